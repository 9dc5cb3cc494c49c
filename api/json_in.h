/*
 * Request bodies: bytes of JSON to checked structs. Pure.
 *
 *   bytes ── nesting, UTF-8, syntax, duplicates ──> tree ── names, types, bounds ──> struct
 *
 * Strict: an unknown field, a number that is not an integer, a name given twice are errors. Every
 * error names the place and how to mend it ("seats[2].row: must be an integer from 1 to 1000000").
 * SG_MALFORMED_JSON: not JSON; with line and column. SG_WRONG_TYPE: a field that is missing,
 * unknown or of another type. SG_INVALID_VALUE, SG_DUPLICATE_SEAT, SG_TOO_MANY_SEATS: well-formed,
 * but impossible.
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
#define JSON_IN_GRID_MAX 1000000 /* rows or columns of an event */

struct json_in_book {
    int64_t event_id;
    char user_id[ROUTER_USER_MAX + 1]; /* "" if the body has none */
    size_t seat_count;
    struct seat seats[ROUTER_SEATS_MAX]; /* seat_count of them are set */
};

struct json_in_event {
    char name[ROUTER_NAME_MAX + 1];
    int64_t starts_at_us;
    int32_t rows;
    int32_t cols;
    char shard[SHARDMAP_NAME_MAX + 1]; /* "" if the caller leaves the choice to the router */
};

/* Body of POST /book, with at most max_seats (1 to ROUTER_SEATS_MAX) seats. On failure the reason
 * is in ret_detail, valid UTF-8, and *ret_book is unspecified. */
enum sg_error json_in_book(const char *body, size_t len, size_t max_seats,
                           struct json_in_book *ret_book, char ret_detail[JSON_IN_DETAIL_SIZE]);
/* Body of POST /events, with at most max_seats seats in the grid. */
enum sg_error json_in_event(const char *body, size_t len, int64_t max_seats,
                            struct json_in_event *ret_event, char ret_detail[JSON_IN_DETAIL_SIZE]);

/* A user id that comes in a header: 1 to ROUTER_USER_MAX bytes of printable ASCII. */
bool json_in_is_user_id(const char *text);
/* One that comes in a path, as UTF-8 which the caller has checked: what a body may bring. */
bool json_in_is_user_text(const char *text);

#endif
