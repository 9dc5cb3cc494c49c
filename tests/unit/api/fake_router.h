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
    struct event_info event;
    struct event_page page;
    struct availability availability;
    struct ticket_page ticket_page;
    struct seatmap *seatmap; /* one reference is the fake's */
    struct shard_status status[4];
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
