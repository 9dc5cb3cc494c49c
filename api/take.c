/*
 * Taking seats. See take.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "api/take.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/exchange.h"
#include "api/json_out.h"
#include "api/problem.h"

/* --- the request ------------------------------------------------------------------------------ */

struct take *take_read(struct exchange *exchange, enum json_in_kind kind)
{
    char detail[JSON_IN_DETAIL_SIZE];
    size_t len;
    const char *body = http_request_body(exchange->request, &len);
    struct json_in_bounds bounds = writes_bounds(exchange->app);
    struct write_headers headers;
    if (!writes_read_headers(exchange, &headers))
        return NULL;
    struct take *take = malloc(sizeof(*take));
    exchange->data = take;
    if (!take) {
        exchange_fail(exchange, SG_NO_MEMORY, "no memory for the request");
        return NULL;
    }
    take->headers = headers;
    take->booking_id[0] = '\0';
    enum sg_error error = json_in_take(kind, body, len, &bounds, &take->in, detail);
    if (error != SG_OK) {
        exchange_fail(exchange, error, "%s", detail);
        return NULL;
    }
    if (!writes_read_user(exchange, take->in.user_id))
        return NULL;
    if (kind == JSON_IN_BOOK)
        exchange->event_id = take->in.event_id;
    return take;
}

void take_request(const struct exchange *exchange, const struct take *take,
                  struct book_request *ret_request)
{
    *ret_request = (struct book_request){
        .event_id = exchange->event_id,
        .user_id = take->in.user_id,
        .seats = take->in.seat_count ? take->in.seats : NULL,
        .seat_count = take->in.seat_count,
        .best = take->in.best_count ? take->in.best : NULL,
        .best_count = take->in.best_count,
        .idempotency_key = take->headers.key,
        .request_id = http_request_id(exchange->request),
    };
}

/* --- the answer ------------------------------------------------------------------------------- */

void take_booking(const struct take *take, const struct book_result *result,
                  struct booking *ret_booking)
{
    *ret_booking = (struct booking){
        .user_id = take->in.user_id,
        .status = result->status,
        .seats = result->taken ? result->taken : take->in.seats,
        .seat_count = result->taken ? result->taken_count : take->in.seat_count,
        .created_at_us = result->created_at_us,
        .expires_at_us = result->expires_at_us,
        .amount = result->amount,
        .currency = result->currency[0] ? result->currency : NULL,
    };
    memcpy(ret_booking->booking_id, result->booking_id, sizeof(ret_booking->booking_id));
}

static void answer_taken(struct exchange *exchange, const struct book_result *result)
{
    struct dynbuf *scratch = &exchange->app->scratch;
    struct booking booking;
    take_booking(exchange->data, result, &booking);
    booking.event_id = exchange->event_id;
    writes_tell_location(exchange, "bookings", result->booking_id);
    exchange_tell_commit(exchange, &result->token, result->durability);
    if (result->replayed)
        writes_tell_replayed(exchange);
    dynbuf_reset(scratch);
    json_out_booking(scratch, &booking);
    exchange_answer_scratch(exchange, 201, JSON_CONTENT_TYPE);
}

/* The seats that are in the way, all of them named. */
static void fail_seats(struct exchange *exchange, const struct book_result *result)
{
    char detail[96];
    snprintf(detail, sizeof(detail), "%zu %s %s; nothing was booked", result->seat_count,
             result->seat_count == 1 ? "seat" : "seats",
             result->error == SG_SEATS_TAKEN ? "held or booked already"
                                             : "outside the event's grid");
    exchange_fail_problem(exchange, &(struct problem){.error = result->error,
                                                      .detail = detail,
                                                      .conflicts = result->seats,
                                                      .conflict_count = result->seat_count});
}

/* Some of what was asked for is there: how much. */
static void fail_left(struct exchange *exchange, const struct book_result *result)
{
    char detail[128];
    if (result->error == SG_OVER_LIMIT)
        snprintf(detail, sizeof(detail),
                 "the event limits what a user has; %lld more may be taken; nothing was booked",
                 (long long)result->left);
    else
        snprintf(detail, sizeof(detail),
                 "%lld %s free where more were asked for; nothing was booked",
                 (long long)result->left, result->left == 1 ? "seat is" : "seats are");
    exchange_fail_problem(exchange, &(struct problem){.error = result->error,
                                                      .detail = detail,
                                                      .has_left = true,
                                                      .left = result->left});
}

static void fail_tier(struct exchange *exchange, const char *tier)
{
    exchange_fail(exchange, SG_UNKNOWN_TIER,
                  "tier: event %lld has none named \"%s\"; GET /events/%lld names its tiers; leave "
                  "it out for the whole house",
                  (long long)exchange->event_id, tier, (long long)exchange->event_id);
}

void take_fail(struct exchange *exchange, const struct book_result *result)
{
    if (result->seat_count)
        fail_seats(exchange, result);
    else if (result->error == SG_OVER_LIMIT || result->error == SG_SOLD_OUT)
        fail_left(exchange, result);
    else if (result->error == SG_UNKNOWN_TIER && result->tier)
        fail_tier(exchange, result->tier);
    else
        exchange_fail_router(exchange, result->error);
}

void take_answer(void *arg, const struct book_result *result)
{
    struct exchange *exchange = arg;
    exchange_set_origin(exchange, &result->route);
    if (result->error == SG_OK)
        answer_taken(exchange, result);
    else
        take_fail(exchange, result);
}
