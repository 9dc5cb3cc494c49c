/*
 * The books of the stand-in for a payment service: what became of each order's charge. Kept in
 * memory and, with a file, in a journal: a line is on disk before anybody is told.
 *
 *   journal   CHARGE id status amount currency url     a new one; url "-" for none
 *             STATUS id status                         pending -> succeeded, declined, cancelled
 *                                                      succeeded -> refunded
 *
 * A last line that a crash has cut short was never told to anybody: it is taken off at the start.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_PAYMENT_LEDGER_H
#define SG_PAYMENT_LEDGER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "payment/provider.h"
#include "payment/wire.h"

struct ledger;

#define LEDGER_CHARGES_MAX 5000000

struct ledger_charge {
    char order_id[PAY_ORDER_ID_MAX + 1];
    enum pay_outcome outcome;
    int64_t amount; /* 0 and currency "" if it was cancelled before anybody asked for money */
    char currency[PAY_CURRENCY_LEN + 1];
    char *callback_url; /* owned; NULL for none */
};

struct ledger_totals {
    int64_t charged;  /* ever taken, in minor units */
    int64_t refunded; /* of that */
    int64_t count;    /* of charges, whatever became of them */
    int64_t by_outcome[PAY_OUTCOME_COUNT];
};

/* Reads the journal, if `path` is not NULL, and makes it if there is none. On failure a readable
 * line is in error_text. */
enum sg_error ledger_open(const char *path, struct ledger **ret_ledger, char *error_text,
                          size_t error_size);
void ledger_close(struct ledger *ledger);
/* NULL if there is none. Valid until ledger_close. */
const struct ledger_charge *ledger_find(const struct ledger *ledger, const char *order_id);
/* A charge that was not there, durable when this returns. `request` NULL: one that is cancelled
 * before it was asked for. SG_IO: the journal cannot be written; nothing happened. SG_OVERLOADED:
 * LEDGER_CHARGES_MAX. */
enum sg_error ledger_add(struct ledger *ledger, const char *order_id,
                         const struct wire_charge *request, enum pay_outcome outcome,
                         const struct ledger_charge **ret_charge);
/* The next outcome of a charge, likewise. The caller keeps to the order above. */
enum sg_error ledger_set(struct ledger *ledger, const char *order_id, enum pay_outcome outcome);
void ledger_totals(const struct ledger *ledger, struct ledger_totals *ret_totals);
/* The charges in the order in which they came; index from 0. NULL behind the last one. */
const struct ledger_charge *ledger_at(const struct ledger *ledger, size_t index);

#endif
