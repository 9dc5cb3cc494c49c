/*
 * Taking seats for good: POST /book.
 *
 *   take_read ──────────────────> router_book ─> 201 with the booking, its token, how durable
 *       │                                     ─> 409 with the seats that are taken
 *       └ Prefer: respond-async ─> queue_publish ─> 202 with where to ask, once RabbitMQ keeps it
 *
 * SPDX-License-Identifier: MIT
 */
#include <stdio.h>
#include <string.h>

#include "api/exchange.h"
#include "api/handlers.h"
#include "api/json_out.h"
#include "api/take.h"
#include "base/clock.h"
#include "base/sha1.h"
#include "queue/message.h"
#include "queue/publisher.h"

/* --- through the queue ------------------------------------------------------------------------ */

/* The key and what it came with: another body gets another booking id, so that it is told apart. */
static void digest(struct dynbuf *scratch, const struct book_request *request,
                   char ret_digest[SHA1_HEX_LEN + 1])
{
    dynbuf_reset(scratch);
    dynbuf_addf(scratch, "%s\n", request->idempotency_key);
    for (size_t i = 0; i < request->seat_count; i++)
        dynbuf_addf(scratch, "%d:%d ", (int)request->seats[i].row, (int)request->seats[i].col);
    for (size_t i = 0; i < request->best_count; i++) {
        const struct best_wish *wish = &request->best[i];
        dynbuf_addf(scratch, "%d%c%s\n", (int)wish->quantity, wish->together ? '+' : '-',
                    wish->tier ? wish->tier : "");
    }
    sha1_hex(dynbuf_text(scratch), scratch->len, ret_digest);
}

static void on_published(void *arg, enum sg_error error)
{
    struct exchange *exchange = arg;
    const struct take *take = exchange->data;
    struct dynbuf *scratch = &exchange->app->scratch;
    if (error == SG_OUTCOME_UNKNOWN) {
        exchange_fail(exchange, error,
                      "the queue did not say whether it keeps the booking; send the same request "
                      "with the same Idempotency-Key, or ask for booking %s",
                      take->booking_id);
        return;
    }
    if (error != SG_OK) {
        exchange_fail_router(exchange, error);
        return;
    }
    writes_tell_location(exchange, "queue", take->booking_id);
    dynbuf_reset(scratch);
    json_out_queued(scratch, take->booking_id, exchange->event_id);
    writes_answer_accepted(exchange, true);
}

static void publish(struct exchange *exchange, struct take *take, struct book_request *request)
{
    struct app *app = exchange->app;
    struct dynbuf *scratch = &app->scratch;
    struct route route = {.map_version = -1};
    char key[SHA1_HEX_LEN + 1];
    int64_t now_us = clock_wall_us();
    enum sg_error error = router_locate(app->router, request->event_id, &route);
    if (error != SG_OK) {
        exchange_fail_router(exchange, error);
        return;
    }
    exchange_set_origin(exchange, &route);
    if (request->idempotency_key)
        digest(scratch, request, key);
    queue_message_booking_id(request->event_id, request->user_id,
                             request->idempotency_key ? key : NULL, now_us, take->booking_id);
    request->booking_id = take->booking_id;
    dynbuf_reset(scratch);
    queue_message_encode(request, now_us, scratch);
    error = scratch->failed ? SG_NO_MEMORY
                            : queue_publish(app->queue, route.shard, scratch->data, scratch->len,
                                            on_published, exchange);
    if (error != SG_OK)
        exchange_fail_router(exchange, error);
}

/* --- POST /book ------------------------------------------------------------------------------- */

void book_create(struct exchange *exchange)
{
    struct book_request request;
    struct take *take = take_read(exchange, JSON_IN_BOOK);
    if (!take)
        return;
    take_request(exchange, take, &request);
    if (take->headers.respond_async && exchange->app->queue) {
        publish(exchange, take, &request);
        return;
    }
    enum sg_error error = router_book(exchange->app->router, &request, take_answer, exchange);
    if (error != SG_OK)
        exchange_fail_router(exchange, error);
}
