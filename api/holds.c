/*
 * Holding seats: POST /events/{id}/holds. What becomes of a hold: bookings.c.
 *
 * SPDX-License-Identifier: MIT
 */
#include "api/exchange.h"
#include "api/handlers.h"
#include "api/take.h"
#include "base/settings.h"

void holds_create(struct exchange *exchange)
{
    struct book_request request;
    const struct take *take = take_read(exchange, JSON_IN_HOLD);
    if (!take)
        return;
    take_request(exchange, take, &request);
    request.hold_ms = take->in.ttl_ms ? take->in.ttl_ms : exchange->app->settings->holds.default_ms;
    enum sg_error error = router_book(exchange->app->router, &request, take_answer, exchange);
    if (error != SG_OK)
        exchange_fail_router(exchange, error);
}
