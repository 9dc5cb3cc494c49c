/*
 * Request bodies: bytes of JSON to checked structs. Pure.
 *
 *   bytes ── json_read.h ──> tree ── json_in.c, json_in_event.c ──> struct
 *
 * Strict: an unknown field, a number that is not an integer, a name given twice are errors. Every
 * error names the place and how to mend it ("seats[2].row: must be an integer from 1 to 1000000").
 * SG_MALFORMED_JSON: not JSON; with line and column. SG_WRONG_TYPE: a field that is missing,
 * unknown or of another type. SG_INVALID_VALUE, SG_DUPLICATE_SEAT, SG_TOO_MANY_SEATS: well-formed,
 * but impossible. On failure the reason is in ret_detail, valid UTF-8, and what was to be filled is
 * unspecified.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_API_JSON_IN_H
#define SG_API_JSON_IN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "router/router.h"

#define JSON_IN_DETAIL_SIZE 240
#define JSON_IN_DEPTH_MAX 8
#define JSON_IN_GRID_MAX 1000000                  /* rows or columns of an event */
#define JSON_IN_PRICE_MAX INT64_C(10000000000000) /* of a seat; a booking stays below 2^53 */

/* What settings allow. */
struct json_in_bounds {
    size_t max_seats;  /* a booking, 1 to ROUTER_SEATS_MAX */
    int64_t ttl_min_s; /* of a hold */
    int64_t ttl_max_s;
};

/* --- taking seats ----------------------------------------------------------------------------- */

enum json_in_kind {
    JSON_IN_BOOK, /* POST /book: eventId, userId, seats or best */
    JSON_IN_HOLD, /* userId, seats or best, ttlSeconds */
    JSON_IN_ORDER /* userId, seats or best, payment */
};

/* Not to be moved: `best` points into it. */
struct json_in_take {
    int64_t event_id;                   /* JSON_IN_BOOK; else 0 */
    char user_id[ROUTER_USER_MAX + 1];  /* "" if the body has none */
    int64_t ttl_ms;                     /* JSON_IN_HOLD; 0 if the body has none */
    char method[ROUTER_METHOD_MAX + 1]; /* JSON_IN_ORDER */
    size_t seat_count;                  /* seats or best: one of the counts is 0 */
    size_t best_count;
    struct best_wish best[ROUTER_BEST_MAX];
    char tiers[ROUTER_BEST_MAX][ROUTER_TIER_MAX + 1];
    struct seat seats[ROUTER_SEATS_MAX]; /* seat_count of them are set */
};

enum sg_error json_in_take(enum json_in_kind kind, const char *body, size_t len,
                           const struct json_in_bounds *bounds, struct json_in_take *ret_take,
                           char ret_detail[JSON_IN_DETAIL_SIZE]);

/* --- changing a booking ----------------------------------------------------------------------- */

struct json_in_change {
    char user_id[ROUTER_USER_MAX + 1]; /* "" if the body has none */
    int64_t ttl_ms;                    /* CHANGE_EXTEND; 0 if the body has none */
    char to_user[ROUTER_USER_MAX + 1]; /* CHANGE_TRANSFER */
};

/* No body at all is {}. */
enum sg_error json_in_change(enum change_kind kind, const char *body, size_t len,
                             const struct json_in_bounds *bounds, struct json_in_change *ret_change,
                             char ret_detail[JSON_IN_DETAIL_SIZE]);

/* --- the waiting list ------------------------------------------------------------------------- */

/* Not to be moved: `wish` points into it. */
struct json_in_waitlist {
    char user_id[ROUTER_USER_MAX + 1]; /* "" if the body has none */
    struct best_wish wish;
    char tier[ROUTER_TIER_MAX + 1];
};

enum sg_error json_in_waitlist(const char *body, size_t len, const struct json_in_bounds *bounds,
                               struct json_in_waitlist *ret_waitlist,
                               char ret_detail[JSON_IN_DETAIL_SIZE]);

/* --- events ----------------------------------------------------------------------------------- */

/* Not to be moved: `tiers` points into it. */
struct json_in_event {
    char name[ROUTER_NAME_MAX + 1];
    int64_t starts_at_us;
    int32_t rows;
    int32_t cols;
    char shard[SHARDMAP_NAME_MAX + 1]; /* "" if the caller leaves the choice to the router */
    int32_t max_per_user;              /* 0: no limit */
    char currency[4];                  /* "" without tiers */
    size_t tier_count;
    struct event_tier tiers[ROUTER_TIERS_MAX]; /* from the first row on */
    char tier_names[ROUTER_TIERS_MAX][ROUTER_TIER_MAX + 1];
};

/* Body of POST /events, with at most max_seats seats in the grid. */
enum sg_error json_in_event(const char *body, size_t len, int64_t max_seats,
                            struct json_in_event *ret_event, char ret_detail[JSON_IN_DETAIL_SIZE]);

/* --- users ------------------------------------------------------------------------------------ */

/* A user id that comes in a header: 1 to ROUTER_USER_MAX bytes of printable ASCII. */
bool json_in_is_user_id(const char *text);
/* One that comes in a path or query, as UTF-8 which the caller has checked: what a body may bring.
 */
bool json_in_is_user_text(const char *text);

#endif
