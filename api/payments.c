/*
 * What the payment service tells by itself: POST /payments/callback?event=ID, signed.
 *
 *   bytes, signature ── saga_on_callback ──> 204 once it is durable, or no news
 *                                       ──> 401, 4xx, 5xx: the service sends it again
 *
 * SPDX-License-Identifier: MIT
 */
#include <string.h>

#include "api/exchange.h"
#include "api/handlers.h"
#include "api/ids.h"
#include "payment/saga.h"

static void on_noted(void *arg, enum sg_error error)
{
    struct exchange *exchange = arg;
    if (error == SG_INVALID_VALUE)
        exchange_fail(exchange, error, "amount, currency: are not those of the order");
    else if (error != SG_OK)
        exchange_fail_router(exchange, error);
    else
        exchange_answer(exchange, 204, NULL, NULL, 0);
}

/* What is wrong with it, of what the saga refuses at once; NULL for what is not of its making. */
static const char *wrong(enum sg_error error)
{
    switch (error) {
    case SG_BAD_SIGNATURE:
        return "SeatGrid-Signature: is missing, or not of this body, or its time is not now";
    case SG_MALFORMED_JSON:
        return "body: must be a JSON object";
    case SG_WRONG_TYPE:
        return "body: must be an object like {\"orderId\":\"...\",\"status\":\"succeeded\","
               "\"amount\":4500,\"currency\":\"EUR\"}";
    case SG_INVALID_VALUE:
        return "orderId, status, amount, currency: one of them cannot be";
    default:
        return NULL;
    }
}

void payments_callback(struct exchange *exchange)
{
    struct saga *saga = exchange->app->saga;
    size_t len;
    const char *body = http_request_body(exchange->request, &len);
    const char *event = http_request_query(exchange->request, "event");
    if (!saga) {
        exchange_fail_router(exchange, SG_PAYMENT_OFF);
        return;
    }
    if (!event || !ids_parse_event(event, strlen(event), &exchange->event_id)) {
        exchange_fail(exchange, SG_MALFORMED,
                      "event: %s the event's id, an integer from 1 to 9223372036854775807",
                      event ? "must be" : "is missing in the query; give");
        return;
    }
    const char *signature = http_request_header(exchange->request, saga_signature_header(saga));
    enum sg_error error =
        saga_on_callback(saga, exchange->event_id, signature, body, len, on_noted, exchange);
    if (error == SG_BAD_SIGNATURE)
        http_reply_header(exchange->request, "WWW-Authenticate", saga_signature_header(saga));
    if (error != SG_OK && wrong(error))
        exchange_fail(exchange, error, "%s", wrong(error));
    else if (error != SG_OK)
        exchange_fail_router(exchange, error);
}
