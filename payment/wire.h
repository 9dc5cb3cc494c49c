/*
 * The JSON between SeatGrid and a payment service, both ways. Pure.
 *
 *   PUT  /charges/{orderId}          charge ->  200, 202 state   (once, however often it is sent)
 *   GET  /charges/{orderId}                     200 state, 404 never heard of
 *   POST /charges/{orderId}/cancel              200 state        (then no charge is ever taken)
 *   POST /charges/{orderId}/refund              200 state, 404
 *   POST {callbackUrl}               state  ->  2xx              (signed: hmac.h)
 *
 *   charge  {"amount":4500,"currency":"EUR","method":"ok","callbackUrl":"http://…"}
 *   state   {"orderId":"…","status":"succeeded","amount":4500,"currency":"EUR"}
 *
 * status: succeeded declined pending cancelled refunded. Of succeeded and refunded, amount and
 * currency say what was taken or given back; of the others they mean nothing. Unknown fields are
 * passed over, so that either side may add some; a name given twice, a wrong type, an impossible
 * value are refused.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_PAYMENT_WIRE_H
#define SG_PAYMENT_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "payment/provider.h"

struct behaviour;
struct dynbuf;

#define WIRE_BODY_MAX 4096
#define WIRE_URL_MAX 511
#define WIRE_AMOUNT_MAX INT64_C(1000000000000000) /* minor units: sums stay far inside 64 bits */

struct wire_charge {
    int64_t amount;
    char currency[PAY_CURRENCY_LEN + 1];
    char method[PAY_METHOD_MAX + 1];
    char callback_url[WIRE_URL_MAX + 1]; /* "" for none */
};

void wire_write_charge(struct dynbuf *out, const struct wire_charge *charge);
void wire_write_state(struct dynbuf *out, const char *order_id, enum pay_outcome outcome,
                      int64_t amount, const char *currency);
/* SG_MALFORMED_JSON, SG_WRONG_TYPE, SG_INVALID_VALUE: *ret_... is untouched. */
enum sg_error wire_read_charge(const char *body, size_t len, struct wire_charge *ret_charge);
enum sg_error wire_read_state(const char *body, size_t len, struct payment_notice *ret_state);

/* {"delayMs":0,"delayMaxMs":0,"successPercent":100,"silentPercent":0,…}: those that are there, over
 * what *behaviour says already. */
enum sg_error wire_read_behaviour(const char *body, size_t len, struct behaviour *behaviour);
void wire_write_behaviour(struct dynbuf *out, const struct behaviour *behaviour);

/* 36 characters of a UUID in lower case: what may stand as {orderId}. */
bool wire_is_order_id(const char *text);

#endif
