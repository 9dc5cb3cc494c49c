/*
 * Bookings and what their owners may do with them.
 *
 *   GET    /events/{id}/bookings/{bookingId}           ─> router_booking_get
 *   POST   /events/{id}/bookings/{bookingId}/confirm   ┐
 *   POST   /events/{id}/bookings/{bookingId}/extend    ├> router_change ─> 200 with the booking
 *   POST   /events/{id}/bookings/{bookingId}/transfer  │
 *   DELETE /events/{id}/bookings/{bookingId}           ┘
 *
 * SPDX-License-Identifier: MIT
 */
#include <stdio.h>
#include <string.h>

#include "api/exchange.h"
#include "api/handlers.h"
#include "api/json_in.h"
#include "api/json_out.h"
#include "api/problem.h"
#include "api/writes.h"
#include "base/settings.h"

static void answer_booking(struct exchange *exchange, const struct booking *booking)
{
    struct dynbuf *scratch = &exchange->app->scratch;
    dynbuf_reset(scratch);
    json_out_booking(scratch, booking);
    exchange_answer_scratch(exchange, 200, JSON_CONTENT_TYPE);
}

/* --- reading ---------------------------------------------------------------------------------- */

static void on_booking_read(void *arg, const struct route *route, enum sg_error error,
                            const struct booking *booking)
{
    struct exchange *exchange = arg;
    exchange_set_origin(exchange, route);
    if (error != SG_OK)
        exchange_fail_router(exchange, error);
    else if (exchange_may_see(exchange, booking->user_id, bookings_get))
        answer_booking(exchange, booking);
}

void bookings_get(struct exchange *exchange)
{
    struct read_token tokens[ROUTER_TOKENS_MAX];
    struct read_wish wish;
    exchange->is_read = true;
    if (!exchange_read_wish(exchange, tokens, &wish))
        return;
    enum sg_error error = router_booking_get(exchange->app->router, exchange->event_id,
                                             exchange->target_id, &wish, on_booking_read, exchange);
    if (error != SG_OK)
        exchange_fail_router(exchange, error);
}

/* --- changing --------------------------------------------------------------------------------- */

static void fail_change(struct exchange *exchange, const struct change_result *result)
{
    char detail[128];
    if (result->error != SG_OVER_LIMIT) {
        exchange_fail_router(exchange, result->error);
        return;
    }
    snprintf(detail, sizeof(detail),
             "the event limits what a user has; %lld more may be taken; nothing was changed",
             (long long)result->left);
    exchange_fail_problem(exchange, &(struct problem){.error = result->error,
                                                      .detail = detail,
                                                      .has_left = true,
                                                      .left = result->left});
}

static void on_changed(void *arg, const struct change_result *result)
{
    struct exchange *exchange = arg;
    exchange_set_origin(exchange, &result->route);
    if (result->error != SG_OK) {
        fail_change(exchange, result);
        return;
    }
    exchange_tell_commit(exchange, &result->token, result->durability);
    if (result->replayed)
        writes_tell_replayed(exchange);
    answer_booking(exchange, result->booking);
}

static bool read_body(struct exchange *exchange, enum change_kind kind,
                      struct json_in_change *ret_change)
{
    char detail[JSON_IN_DETAIL_SIZE];
    size_t len;
    const char *body = http_request_body(exchange->request, &len);
    struct json_in_bounds bounds = writes_bounds(exchange->app);
    enum sg_error error = json_in_change(kind, body, len, &bounds, ret_change, detail);
    if (error != SG_OK)
        exchange_fail(exchange, error, "%s", detail);
    return error == SG_OK;
}

static void change(struct exchange *exchange, enum change_kind kind)
{
    struct app *app = exchange->app;
    struct write_headers headers;
    struct json_in_change in = {.ttl_ms = 0};
    if (!writes_read_headers(exchange, &headers))
        return;
    if (!(kind == CHANGE_CANCEL ? writes_read_query_user(exchange, in.user_id)
                                : read_body(exchange, kind, &in)))
        return;
    if (!writes_read_user(exchange, in.user_id))
        return;
    struct change_request request = {
        .kind = kind,
        .event_id = exchange->event_id,
        .booking_id = exchange->target_id,
        .user_id = in.user_id,
        .to_user = kind == CHANGE_TRANSFER ? in.to_user : NULL,
        .idempotency_key = headers.key,
        .request_id = http_request_id(exchange->request),
    };
    if (kind == CHANGE_EXTEND)
        request.extend_ms = in.ttl_ms ? in.ttl_ms : app->settings->holds.default_ms;
    enum sg_error error = router_change(app->router, &request, on_changed, exchange);
    if (error != SG_OK)
        exchange_fail_router(exchange, error);
}

void bookings_confirm(struct exchange *exchange)
{
    change(exchange, CHANGE_CONFIRM);
}

void bookings_extend(struct exchange *exchange)
{
    change(exchange, CHANGE_EXTEND);
}

void bookings_transfer(struct exchange *exchange)
{
    change(exchange, CHANGE_TRANSFER);
}

void bookings_cancel(struct exchange *exchange)
{
    change(exchange, CHANGE_CANCEL);
}
