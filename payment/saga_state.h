/*
 * The states of an order, and what is to be done in each: pure, no clock, no network.
 *
 *              to be asked for       money is there       seats are the buyer's
 *   RESERVED ─────> CHARGING ──────────> CHARGED ──────────────> CONFIRMED
 *      │               │ declined,          │ seats are another's      │ booking cancelled
 *      │ cancelled     │ cancelled          v                          │
 *      └──────────> FAILED ──────────> REFUNDING <─────────────────────┘
 *                       money after all     v
 *                                       REFUNDED
 *
 * The step to CONFIRMED is to the database to decide: it ends in REFUNDING when a seat is
 * another's. The step to FAILED gives the seats back. An order that costs nothing goes from
 * RESERVED straight to CONFIRMED (or FAILED). docs/life.md has the table, state by event.
 *
 * LOST stands in no shard: it is what an order is to its process when the shard has never heard of
 * it, because a primary without a synchronous standby died with it. What was asked for is taken
 * back, as far as this process lives to do it.
 *
 * A state is what stands in the shard: it changes only by a step, a compare-and-set in the
 * database. So whoever reads an order, after whatever crash, goes on from its state alone, and two
 * that do so at the same time do no harm: one of them loses a step and goes on from where the order
 * is. Every question to the payment service carries the order's id and has its effect once, however
 * often it is asked.
 *
 * What is not known is asked for. Seats are given back only after the service has said that no
 * money was taken and none will be (declined, cancelled); a refund is asked for until it is done.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_PAYMENT_SAGA_STATE_H
#define SG_PAYMENT_SAGA_STATE_H

#include <stdbool.h>
#include <stdint.h>

#include "payment/provider.h"

enum saga_state {
    SAGA_RESERVED,
    SAGA_CHARGING,
    SAGA_CHARGED,
    SAGA_CONFIRMED,
    SAGA_FAILED,
    SAGA_REFUNDING,
    SAGA_REFUNDED,
    SAGA_LOST,
    SAGA_STATE_COUNT
};

enum saga_event {
    SAGA_READ,       /* the order was found in this state: whoever had it may have done anything */
    SAGA_ENTERED,    /* this process has just made the step into the state */
    SAGA_PAUSE_OVER, /* of SAGA_WAIT */
    SAGA_TOO_LATE,   /* in the place of the three above: give_up_ms have passed */
    SAGA_FREE,       /* in the place of the four above, in RESERVED: it costs nothing */
    SAGA_STEP_LOST,  /* a step has no answer, or could not be tried */
    /* what the payment service says, as an answer or by itself */
    SAGA_PAY_SUCCEEDED,
    SAGA_PAY_DECLINED,
    SAGA_PAY_PENDING,
    SAGA_PAY_UNKNOWN,
    SAGA_PAY_NONE,
    SAGA_PAY_CANCELLED,
    SAGA_PAY_REFUNDED,
    SAGA_EVENT_COUNT
};

enum saga_action {
    SAGA_KEEP,   /* no news: go on with what is under way or waited for */
    SAGA_STEP,   /* the compare-and-set from this state towards move.to */
    SAGA_CHARGE, /* ask the payment service for it; its answer is the next event */
    SAGA_ASK,
    SAGA_CANCEL,
    SAGA_REFUND,
    SAGA_WAIT, /* a pause, longer each time, then SAGA_PAUSE_OVER */
    SAGA_END,  /* nothing is left to do */
    SAGA_ACTION_COUNT
};

struct saga_move {
    enum saga_action action;
    enum saga_state to; /* of SAGA_STEP; else the state as it is */
};

/* What `event` leads to in `state`. SAGA_KEEP for an answer, with nothing else under way, means the
 * same as SAGA_WAIT. */
struct saga_move saga_next(enum saga_state state, enum saga_event event);

/* Whether the service speaks of this money, if it speaks of money at all. */
bool saga_word_fits(const struct payment_word *word, int64_t amount, const char *currency);
/* The event of an answer of the payment service. */
enum saga_event saga_event_of(enum pay_outcome outcome);
/* One word: "reserved", ...; as in migrations/0005_life.sql, but for "lost". */
const char *saga_state_name(enum saga_state state);
/* The state of that name; SAGA_STATE_COUNT if there is none. */
enum saga_state saga_state_by_name(const char *name);
/* The action of order_step() that leads to this state; NULL for RESERVED and LOST. */
const char *saga_step_name(enum saga_state to);
const char *saga_action_name(enum saga_action action);

#endif
