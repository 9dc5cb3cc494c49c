/*
 * Taking seats: POST /book.
 *
 *   body, Idempotency-Key, X-User-Id ─> router_book ─> 201 with the booking, its token, how durable
 *                                                  ─> 409 with the seats that are taken
 *
 * SPDX-License-Identifier: MIT
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/accept.h"
#include "api/exchange.h"
#include "api/handlers.h"
#include "api/ids.h"
#include "api/json_in.h"
#include "api/json_out.h"
#include "api/outcomes.h"
#include "base/settings.h"

static void answer_booked(struct exchange *exchange, const struct book_result *result)
{
    const struct json_in_book *in = exchange->data;
    struct dynbuf *scratch = &exchange->app->scratch;
    struct booking booking = {
        .event_id = in->event_id,
        .user_id = in->user_id,
        .status = "confirmed",
        .seats = in->seats,
        .seat_count = in->seat_count,
        .created_at_us = result->created_at_us,
    };
    char location[96];
    memcpy(booking.booking_id, result->booking_id, sizeof(booking.booking_id));
    snprintf(location, sizeof(location), "/events/%lld/bookings/%s", (long long)in->event_id,
             result->booking_id);
    http_reply_header(exchange->request, "Location", location);
    exchange_tell_commit(exchange, &result->token, result->durability);
    if (result->replayed) {
        exchange->outcome = OUTCOME_REPLAYED;
        http_reply_header(exchange->request, "Idempotent-Replayed", "true");
    }
    dynbuf_reset(scratch);
    json_out_booking(scratch, &booking);
    exchange_answer_scratch(exchange, 201, JSON_CONTENT_TYPE);
}

static void on_booked(void *arg, const struct book_result *result)
{
    struct exchange *exchange = arg;
    char detail[96];
    exchange_set_origin(exchange, &result->route);
    if (result->error == SG_OK) {
        answer_booked(exchange, result);
    } else if (result->seat_count) {
        bool taken = result->error == SG_SEATS_TAKEN;
        snprintf(detail, sizeof(detail), "%zu %s %s; nothing was booked", result->seat_count,
                 result->seat_count == 1 ? "seat" : "seats",
                 taken ? "held or booked by another" : "outside the event's grid");
        exchange_fail_seats(exchange, result->error, detail, result->seats, result->seat_count);
    } else {
        exchange_fail_router(exchange, result->error);
    }
}

/* Who books: X-User-Id or the body's userId. Answers itself and returns false if that is unclear.
 */
static bool read_user(struct exchange *exchange, struct json_in_book *in)
{
    const char *header = http_request_header(exchange->request, "x-user-id");
    if (header && !json_in_is_user_id(header)) {
        exchange_fail(exchange, SG_MALFORMED, "X-User-Id: must be 1 to %d bytes of printable ASCII",
                      ROUTER_USER_MAX);
        return false;
    }
    if (header && in->user_id[0] && strcmp(header, in->user_id) != 0) {
        exchange_fail(exchange, SG_INVALID_VALUE,
                      "userId: differs from the header X-User-Id; send one of them");
        return false;
    }
    if (header)
        memcpy(in->user_id, header, strlen(header) + 1);
    if (!in->user_id[0]) {
        exchange_fail(exchange, SG_WRONG_TYPE,
                      "userId: is missing; give a string of 1 to %d bytes, or the header X-User-Id",
                      ROUTER_USER_MAX);
        return false;
    }
    return true;
}

/* Answers itself and returns false if a header forbids to go on. */
static bool check_headers(struct exchange *exchange, const char *idempotency_key)
{
    const char *type = http_request_header(exchange->request, "content-type");
    if (type && !accept_is_json(type)) {
        exchange_fail(exchange, SG_UNSUPPORTED_MEDIA, "Content-Type: must be application/json");
        return false;
    }
    if (idempotency_key && !ids_is_printable_ascii(idempotency_key, ROUTER_KEY_MAX)) {
        exchange_fail(exchange, SG_MALFORMED,
                      "Idempotency-Key: must be 1 to %d bytes of printable ASCII", ROUTER_KEY_MAX);
        return false;
    }
    return true;
}

/* The checked body, which then belongs to the exchange; NULL if that was answered. */
static struct json_in_book *read_body(struct exchange *exchange)
{
    char detail[JSON_IN_DETAIL_SIZE];
    size_t len;
    const char *body = http_request_body(exchange->request, &len);
    struct json_in_book *in = malloc(sizeof(*in));
    exchange->data = in;
    if (!in) {
        exchange_fail(exchange, SG_NO_MEMORY, "no memory for the request");
        return NULL;
    }
    enum sg_error error =
        json_in_book(body, len, (size_t)exchange->app->settings->booking.max_seats, in, detail);
    if (error != SG_OK) {
        exchange_fail(exchange, error, "%s", detail);
        return NULL;
    }
    return in;
}

void book_create(struct exchange *exchange)
{
    const char *idempotency_key = http_request_header(exchange->request, "idempotency-key");
    if (!check_headers(exchange, idempotency_key))
        return;
    struct json_in_book *in = read_body(exchange);
    if (!in || !read_user(exchange, in))
        return;
    exchange->event_id = in->event_id;
    struct book_request request = {
        .event_id = in->event_id,
        .user_id = in->user_id,
        .seats = in->seats,
        .seat_count = in->seat_count,
        .idempotency_key = idempotency_key,
        .request_id = http_request_id(exchange->request),
    };
    enum sg_error error = router_book(exchange->app->router, &request, on_booked, exchange);
    if (error != SG_OK)
        exchange_fail_router(exchange, error);
}
