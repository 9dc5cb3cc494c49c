/*
 * A stand-in for a payment service: what it decides, and when. The HTTP around it is
 * api/mockpay_server.h; the process is `seatgrid mockpay`.
 *
 *   charge ── new? ── plan (behaviour.h) ──after its delay──> decided, in the ledger ──> answer
 *     │                    │ pending: answered 202 first               └──> callbacks, by the plan
 *     └── known: answered as it stands
 *
 * It keeps the promises that a saga needs, whatever its manners: one charge an order, cancel is
 * final, and with a journal nothing that was told is forgotten by a kill -9.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_PAYMENT_MOCKPAY_H
#define SG_PAYMENT_MOCKPAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "payment/behaviour.h"
#include "payment/hmac.h"
#include "payment/ledger.h"
#include "payment/wire.h"

struct callbacks_counts;
struct event_base;
struct mockpay;

#define MOCKPAY_DECISIONS_MAX 200000 /* charges that wait for their decision */

struct mockpay_config {
    struct event_base *base;
    const char *journal; /* NULL: in memory */
    struct hmac_secret secret;
    struct behaviour behaviour;
};

/* Charges that the journal left pending are decided anew after the delay. On failure a readable
 * line is in error_text. */
enum sg_error mockpay_new(const struct mockpay_config *config, struct mockpay **ret_mockpay,
                          char *error_text, size_t error_size);
/* Requests that wait for a decision are called back with SG_SHARD_UNAVAILABLE: nothing happened. */
void mockpay_free(struct mockpay *mockpay);
struct behaviour *mockpay_behaviour(struct mockpay *mockpay);
const struct ledger *mockpay_ledger(const struct mockpay *mockpay);
void mockpay_callbacks(const struct mockpay *mockpay, struct callbacks_counts *ret_counts);

/* silent: what was asked for is done, and the client is not to be told. charge NULL when not SG_OK:
 * SG_KEY_REUSED (the order has been charged another amount), SG_IO, SG_OVERLOADED, SG_NO_MEMORY. */
typedef void mockpay_fn(void *arg, enum sg_error error, const struct ledger_charge *charge,
                        bool silent);

/* Runs fn once, at once or later. */
void mockpay_charge(struct mockpay *mockpay, const char *order_id,
                    const struct wire_charge *request, mockpay_fn *fn, void *arg);
/* No money will ever be taken for this order, or it has been: *ret_charge tells. */
enum sg_error mockpay_cancel(struct mockpay *mockpay, const char *order_id,
                             const struct ledger_charge **ret_charge);
/* Gives back what was taken; any other charge stays as it is. SG_NOT_FOUND: there is none. */
enum sg_error mockpay_refund(struct mockpay *mockpay, const char *order_id,
                             const struct ledger_charge **ret_charge, bool *ret_silent);

#endif
