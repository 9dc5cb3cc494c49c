/*
 * A payment service, as the saga of an order sees it: the one file that another provider has to
 * fulfil. provider_http.c does, for `seatgrid mockpay` and whatever speaks like it.
 *
 *   saga ── charge, ask, cancel, refund ──> provider ──────> payment service
 *   saga <── outcome ────────────────────── provider <────── answer, or none in time
 *   saga <── verify: order id, outcome <── callback of the service, signed
 *
 * What the saga relies on:
 *   - A charge is named by the order's id, a refund too. Asking twice takes and returns money once.
 *   - Whatever comes that is not a clear answer (no connection, a lost one, a timeout, 5xx,
 *     nonsense) is PAY_UNKNOWN: it may have happened, it may still happen. Nothing is guessed.
 *   - After cancel has said PAY_CANCELLED or PAY_DECLINED no money will ever be taken under this
 *     id, also when a charge that was sent earlier arrives later.
 *
 * Contract of the four calls: SG_OK means accepted, and fn runs exactly once, later, never from
 * inside the call, within payment.timeout_ms; any other value (SG_OVERLOADED, SG_NO_MEMORY) means
 * refused, nothing was sent, and fn never runs. Arguments are borrowed for the call.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_PAYMENT_PROVIDER_H
#define SG_PAYMENT_PROVIDER_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct payment_provider;

#define PAY_ORDER_ID_MAX 36 /* bytes: a UUID in text */
#define PAY_CURRENCY_LEN 3  /* ISO 4217, upper case */
#define PAY_METHOD_MAX 64   /* bytes of printable ASCII */

enum pay_outcome {
    PAY_SUCCEEDED, /* the money has been taken */
    PAY_DECLINED,  /* none was taken, and none will be */
    PAY_PENDING,   /* not decided yet; a callback will tell, or ask again */
    PAY_UNKNOWN,   /* no answer, or none that can be relied on */
    PAY_NONE,      /* the service has never heard of this order */
    PAY_CANCELLED, /* none was taken, and none will be, because cancel said so */
    PAY_REFUNDED,  /* it was taken and given back */
    PAY_OUTCOME_COUNT
};

/* Borrowed for the call. */
struct payment_charge {
    const char *order_id;
    int64_t event_id; /* comes back with the callback: it says which shard the order is on */
    int64_t amount;   /* in minor units of the currency */
    const char *currency;
    const char *method; /* what the buyer pays with; the service's business */
};

/* What the service says. */
struct payment_word {
    enum pay_outcome outcome;
    int64_t amount; /* of SUCCEEDED and REFUNDED: what was taken, or given back */
    char currency[PAY_CURRENCY_LEN + 1];
};

/* detail: one line for the log, "" for none. Both are valid during the callback. */
typedef void payment_fn(void *arg, const struct payment_word *word, const char *detail);

/* What a callback of the service says. */
struct payment_notice {
    char order_id[PAY_ORDER_ID_MAX + 1];
    struct payment_word word;
};

struct payment_provider_calls {
    /* SUCCEEDED, DECLINED, PENDING, UNKNOWN; CANCELLED or REFUNDED if that was said before. */
    enum sg_error (*charge)(struct payment_provider *provider, const struct payment_charge *charge,
                            payment_fn *fn, void *arg);
    /* How it stands; any outcome. */
    enum sg_error (*ask)(struct payment_provider *provider, const char *order_id, payment_fn *fn,
                         void *arg);
    /* CANCELLED or DECLINED: no money, now and for ever. SUCCEEDED: it has been taken already. */
    enum sg_error (*cancel)(struct payment_provider *provider, const char *order_id, payment_fn *fn,
                            void *arg);
    /* REFUNDED; DECLINED or CANCELLED: nothing was taken. Any other word, NONE too: not yet. */
    enum sg_error (*refund)(struct payment_provider *provider, const char *order_id, payment_fn *fn,
                            void *arg);
    /* Is this callback the service's own, and of now? `signature` is the value of the header
     * signature_header, NULL if there is none. SG_BAD_SIGNATURE, SG_MALFORMED_JSON, SG_WRONG_TYPE,
     * SG_INVALID_VALUE. */
    enum sg_error (*verify)(struct payment_provider *provider, const char *signature,
                            const void *body, size_t len, int64_t now_s,
                            struct payment_notice *ret_notice);
    /* Questions that are under way get PAY_UNKNOWN first. Not from inside a payment_fn. */
    void (*free)(struct payment_provider *provider);
    const char *signature_header; /* of a callback, lower case */
};

/* The head of every provider's own struct. */
struct payment_provider {
    const struct payment_provider_calls *calls;
};

/* "succeeded", "declined", "pending", "unknown", "none", "cancelled", "refunded": what goes over
 * the wire (but for unknown and none) and into the log. */
const char *pay_outcome_name(enum pay_outcome outcome);
/* PAY_OUTCOME_COUNT if there is none of that name. */
enum pay_outcome pay_outcome_by_name(const char *name);

#endif
