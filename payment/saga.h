/*
 * The runner of orders: reserve, charge, confirm, or take back what was done. One a worker of
 * `seatgrid serve`, used on that thread alone.
 *
 *   api/orders.c ── saga_start ──> reserve (router) ─> charge (provider) ─> confirm (router)
 *   api/orders.c <── saga_fn: reserved (async), or ended, or payment.wait_ms have passed
 *   api/payments.c ── saga_on_callback ──> the order of which it speaks, wherever it was begun
 *   timer ── orders that are due: of a process that died, of a booking that was cancelled ──> here
 *
 * Which state leads where is saga_state.h (pure); the state stands in the shard. Here are the
 * open orders of this worker, at most payment.max_open, their pauses, and nothing that could not be
 * lost: killed at any point, the order is resumed by whoever finds it due. For that proof the
 * environment variable SEATGRID_CRASH_AT=NAME makes the process kill itself (SIGKILL) the first
 * time an order comes by the point of that name: a state's name (the step into it is durable, and
 * nothing was done yet because of it), or charge_sent, ask_sent, cancel_sent, refund_sent (the
 * payment service has it, and its answer, if there is one, was not looked at).
 *
 * The contract of every call that takes a callback is the router's: SG_OK means accepted, and the
 * callback runs exactly once, later, never from inside the call; any other value means refused, and
 * it never runs. Arguments are borrowed for the call, results for the callback. What GET
 * .../orders/ tells is router_order_get.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_PAYMENT_SAGA_H
#define SG_PAYMENT_SAGA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "payment/provider.h"
#include "payment/saga_state.h"
#include "router/router.h"

struct event_base;
struct metrics_set;
struct reap_list;
struct saga;
struct settings;

/* All borrowed; they outlive the saga. */
struct saga_config {
    const struct settings *settings; /* payment.provider_url is not "" */
    struct event_base *base;
    struct reap_list *reap;
    struct metrics_set *metrics;
    struct router *router;
};

/* SG_IO, SG_CONFIG_INVALID (the secret's file), SG_NO_MEMORY, with a readable line in error_text.
 */
enum sg_error saga_new(const struct saga_config *config, struct saga **ret_saga, char *error_text,
                       size_t error_size);
/* In this order: saga_drain when the worker is to stop, saga_stop before router_free, saga_free
 * after it. NULL is allowed in each. */
/* No more due orders are taken; callers that wait are called back with the order as it stands. Open
 * orders go on. */
void saga_drain(struct saga *saga);
/* Nothing is begun any more. Orders stay as they are; somebody else finds them due. */
void saga_stop(struct saga *saga);
/* Callbacks that are not heard to their end get SG_SHARD_UNAVAILABLE. */
void saga_free(struct saga *saga);

struct saga_request {
    const struct book_request *book; /* as of a hold, with `method`; hold_ms is the saga's to set */
    bool wait; /* false (Prefer: respond-async): called back as soon as the order is reserved */
};

struct saga_result {
    const struct book_result *book; /* how the reservation went. error not SG_OK: there is no order.
                                       replayed: the order of an earlier request with this key */
    /* book->error SG_OK: the order, whose id is book->booking_id, as it stands now; with `wait` at
     * its end, if that came within payment.wait_ms. */
    const char *state;       /* reserved charging charged confirmed failed refunding refunded */
    const char *problem;     /* a code: payment_declined, payment_timeout, seats_gone, ...; NULL */
    struct read_token token; /* a read that carries it sees this state; lsn 0: none */
};

typedef void saga_fn(void *arg, const struct saga_result *result);

/* Refuses: SG_OVERLOADED (payment.max_open), what router_book refuses. An order of an earlier
 * request with the same Idempotency-Key is told as it stands now. */
enum sg_error saga_start(struct saga *saga, const struct saga_request *request, saga_fn *fn,
                         void *arg);

typedef void saga_notice_fn(void *arg, enum sg_error error);
/* The header that signs a callback of the payment service, lower case. */
const char *saga_signature_header(const struct saga *saga);
/* POST /payments/callback?event=ID: `signature` is the value of saga_signature_header, NULL if
 * there is none. Refuses at once: SG_BAD_SIGNATURE, SG_MALFORMED_JSON, SG_WRONG_TYPE,
 * SG_INVALID_VALUE, SG_OVERLOADED. fn: SG_OK when what it says is durable, or no news (answer 204);
 * else the service shall send it again (SG_UNKNOWN_ORDER, SG_SHARD_UNAVAILABLE, ...;
 * SG_OVERLOADED: payment.max_open others are under way; SG_INVALID_VALUE: it speaks of another
 * amount). */
enum sg_error saga_on_callback(struct saga *saga, int64_t event_id, const char *signature,
                               const void *body, size_t len, saga_notice_fn *fn, void *arg);

#endif
