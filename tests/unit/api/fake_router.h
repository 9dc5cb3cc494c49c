/*
 * A router with scripted answers, for tests of what stands in front of it.
 *
 * The test sets what the next calls say and reads what they were asked. Callbacks run later, from
 * the event loop, as the contract of router.h asks; with `hold` they wait for fake_router_release.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_TESTS_FAKE_ROUTER_H
#define SG_TESTS_FAKE_ROUTER_H

#include <event2/event.h>

#include "router/router.h"

struct fake_pending;

#define FAKE_SHARDS_MAX 300

struct router {
    struct event_base *base;

    /* The script. */
    enum sg_error refusal; /* returned by the call itself unless SG_OK */
    enum sg_error error;   /* given to the callback */
    bool hold;
    int64_t map_version;
    struct route route;
    struct book_result booked; /* route and error are taken from above */
    struct booking booking;
    enum sg_error booking_error;  /* of router_booking_get alone, unless SG_OK */
    struct change_result changed; /* route, error and booking are taken from here */
    struct order order;
    struct order_moved moved; /* of router_order_step; its error is its own */
    const struct order *due;  /* of router_orders_due */
    size_t due_count;
    const struct refusal *refusal_kept; /* NULL: there is none */
    struct waitlist_result waitlist;    /* route, error and entry are taken from here */
    struct waitlist_entry entry;
    bool entry_gone;          /* the result has no entry */
    enum sg_error left_error; /* of router_waitlist_leave alone, unless SG_OK */
    struct event_info event;
    struct event_page page;
    struct availability availability;
    struct ticket_page ticket_page;
    struct seatmap *seatmap; /* one reference is the fake's */
    struct shard_status status[FAKE_SHARDS_MAX];
    size_t status_count;

    /* What was asked last. */
    int calls;
    int64_t asked_event_id;
    int64_t asked_staleness_us;
    int64_t asked_after_id;
    size_t asked_limit;
    struct ticket_place asked_after; /* event_id 0: from the beginning */
    struct read_token asked_tokens[ROUTER_TOKENS_MAX];
    size_t asked_token_count;
    char asked_user[ROUTER_USER_MAX + 1];
    char asked_key[ROUTER_KEY_MAX + 1]; /* "" for none */
    char asked_booking[ROUTER_UUID_LEN + 1];
    char asked_name[ROUTER_NAME_MAX + 1];
    char asked_shard[SHARDMAP_NAME_MAX + 1]; /* "" for none */
    int64_t asked_starts_at_us;
    int32_t asked_rows;
    int32_t asked_cols;
    struct seat asked_seats[ROUTER_SEATS_MAX];
    size_t asked_seat_count;
    struct best_wish asked_best[ROUTER_BEST_MAX]; /* tier: "" for NULL */
    char asked_tiers[ROUTER_BEST_MAX][ROUTER_TIER_MAX + 1];
    size_t asked_best_count;
    int64_t asked_hold_ms;
    int steps;             /* of orders */
    char asked_action[16]; /* of the last one */
    int due_looks;
    enum change_kind asked_change;
    int64_t asked_extend_ms;
    char asked_to_user[ROUTER_USER_MAX + 1]; /* "" for none */
    struct event_tier asked_event_tiers[ROUTER_TIERS_MAX];
    char asked_tier_names[ROUTER_TIERS_MAX][ROUTER_TIER_MAX + 1];
    size_t asked_tier_count;
    char asked_currency[8]; /* "" for none */
    int32_t asked_max_per_user;

    struct live_watch *watches;
    int watch_count;
    enum sg_error watch_refusal; /* returned by router_watch unless SG_OK */
    char asked_last_id[ROUTER_LIVE_ID_MAX + 1];

    struct fake_pending *pending;
};

/* Map version 7, shard alpha, node alpha-2, 12 ms stale; everything succeeds. */
struct router *fake_router_new(struct event_base *base);
void fake_router_free(struct router *router);
/* Runs the callbacks that were held back. */
void fake_router_release(struct router *router);
/* Tells a change to all who watch the event, the earliest first. Gives how many were told. */
int fake_router_tell(struct router *router, const struct live_change *change);
/* A seat map with a copy of `states`, one reference. */
struct seatmap *fake_seatmap_new(int64_t event_id, int32_t rows, int32_t cols, const char *states);
/* Seat maps alive, to find lost references. */
extern int fake_seatmaps_alive;

#endif
