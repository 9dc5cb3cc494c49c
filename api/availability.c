/*
 * How many seats are left: GET /events/{id}/availability.
 *
 * SPDX-License-Identifier: MIT
 */
#include "api/exchange.h"
#include "api/handlers.h"
#include "api/json_out.h"

static void on_availability(void *arg, const struct route *route, enum sg_error error,
                            const struct availability *availability)
{
    struct exchange *exchange = arg;
    struct dynbuf *scratch = &exchange->app->scratch;
    exchange_set_origin(exchange, route);
    if (error != SG_OK) {
        exchange_fail_router(exchange, error);
        return;
    }
    dynbuf_reset(scratch);
    json_out_availability(scratch, availability);
    exchange_answer_scratch(exchange, 200, JSON_CONTENT_TYPE);
}

void availability_get(struct exchange *exchange)
{
    struct read_token tokens[ROUTER_TOKENS_MAX];
    struct read_wish wish;
    exchange->is_read = true;
    if (!exchange_read_wish(exchange, tokens, &wish))
        return;
    enum sg_error error = router_availability(exchange->app->router, exchange->event_id, &wish,
                                              on_availability, exchange);
    if (error != SG_OK)
        exchange_fail_router(exchange, error);
}
