/*
 * Taking seats, as POST /book, /events/{id}/holds and /events/{id}/orders have it in common.
 *
 *   body, headers ── take_read ──> struct take ── take_request ──> router_book, saga_start, queue
 *   201 <── take_answer, 4xx and 5xx <── take_fail ──────────────── struct book_result
 *
 * For the files of api/ alone.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_API_TAKE_H
#define SG_API_TAKE_H

#include "api/json_in.h"
#include "api/writes.h"
#include "router/router.h"

struct exchange;

/* What a request asks for, checked; exchange->data. */
struct take {
    struct json_in_take in; /* in.user_id is set, from wherever it came */
    struct write_headers headers;
    char booking_id[ROUTER_UUID_LEN + 1]; /* of one that goes through the queue; else "" */
};

/* NULL if the request was answered: it was not to be understood. Sets exchange->event_id. */
struct take *take_read(struct exchange *exchange, enum json_in_kind kind);
/* As of a booking; hold_ms and method are the caller's to set. Points into the take. */
void take_request(const struct exchange *exchange, const struct take *take,
                  struct book_request *ret_request);
/* What was taken, as a booking. Points into the take and the result. */
void take_booking(const struct take *take, const struct book_result *result,
                  struct booking *ret_booking);
/* A router_book_fn: 201 with the booking, or the problem. */
void take_answer(void *exchange, const struct book_result *result);
/* The problem, with the seats in the way, or how many there are. */
void take_fail(struct exchange *exchange, const struct book_result *result);

#endif
