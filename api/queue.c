/*
 * What became of a booking that went through the queue: GET /events/{id}/queue/{bookingId}.
 *
 *   router_booking_get ─ there is one ─> confirmed, with the booking
 *           └ none ─> router_refusal_get ─ there is one ─> failed, with its code
 *                             └ none ─> queued; 404 if it cannot be, by its id
 *
 * SPDX-License-Identifier: MIT
 */
#include "api/exchange.h"
#include "api/handlers.h"
#include "api/ids.h"
#include "api/json_out.h"
#include "base/clock.h"

#define KEPT_MS INT64_C(86400000) /* refusals, and keys, are forgotten then */
#define AHEAD_MS 60000            /* another server's clock may be ahead of this one's */

/* An id made here with this time in it, or of an Idempotency-Key: without a time. */
static bool may_be_queued(const char *booking_id)
{
    int64_t made_ms;
    int64_t now_ms = clock_wall_us() / 1000;
    switch (ids_uuid_version(booking_id)) {
    case 7:
        made_ms = ids_uuid_v7_ms(booking_id);
        return made_ms > now_ms - KEPT_MS && made_ms < now_ms + AHEAD_MS;
    case 8:
        return true;
    default:
        return false;
    }
}

static void on_refusal_read(void *arg, const struct route *route, enum sg_error error,
                            const struct refusal *refusal)
{
    struct exchange *exchange = arg;
    struct dynbuf *scratch = &exchange->app->scratch;
    exchange_set_origin(exchange, route);
    if (error == SG_OK && !refusal && !may_be_queued(exchange->target_id))
        error = SG_UNKNOWN_BOOKING;
    if (error != SG_OK) {
        exchange_fail_router(exchange, error);
        return;
    }
    if (refusal && !exchange_may_see(exchange, refusal->user_id, queue_get))
        return;
    dynbuf_reset(scratch);
    if (refusal)
        json_out_queue_failed(scratch, exchange->target_id, exchange->event_id, refusal);
    else
        json_out_queued(scratch, exchange->target_id, exchange->event_id);
    exchange_answer_scratch(exchange, 200, JSON_CONTENT_TYPE);
}

static void on_booking_read(void *arg, const struct route *route, enum sg_error error,
                            const struct booking *booking)
{
    struct exchange *exchange = arg;
    struct dynbuf *scratch = &exchange->app->scratch;
    if (error == SG_UNKNOWN_BOOKING) {
        error = router_refusal_get(exchange->app->router, exchange->event_id, exchange->target_id,
                                   on_refusal_read, exchange);
        if (error == SG_OK)
            return;
    }
    exchange_set_origin(exchange, route);
    if (error != SG_OK) {
        exchange_fail_router(exchange, error);
        return;
    }
    if (!exchange_may_see(exchange, booking->user_id, queue_get))
        return;
    dynbuf_reset(scratch);
    json_out_queue_confirmed(scratch, booking);
    exchange_answer_scratch(exchange, 200, JSON_CONTENT_TYPE);
}

void queue_get(struct exchange *exchange)
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
