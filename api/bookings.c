/*
 * Bookings: GET /events/{id}/bookings/{bookingId}.
 *
 * SPDX-License-Identifier: MIT
 */
#include "api/exchange.h"
#include "api/handlers.h"
#include "api/json_out.h"

static void on_booking_read(void *arg, const struct route *route, enum sg_error error,
                            const struct booking *booking)
{
    struct exchange *exchange = arg;
    struct dynbuf *scratch = &exchange->app->scratch;
    exchange_set_origin(exchange, route);
    if (error != SG_OK) {
        exchange_fail_router(exchange, error);
        return;
    }
    dynbuf_reset(scratch);
    json_out_booking(scratch, booking);
    exchange_answer_scratch(exchange, 200, JSON_CONTENT_TYPE);
}

void bookings_get(struct exchange *exchange)
{
    struct read_token tokens[ROUTER_TOKENS_MAX];
    struct read_wish wish;
    exchange->is_read = true;
    if (!exchange_read_wish(exchange, tokens, &wish))
        return;
    enum sg_error error =
        router_booking_get(exchange->app->router, exchange->event_id, exchange->booking_id, &wish,
                           on_booking_read, exchange);
    if (error != SG_OK)
        exchange_fail_router(exchange, error);
}
