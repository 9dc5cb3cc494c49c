/*
 * The strategies of separate statements: one booking, one transaction, a round trip a statement, as
 * programs in the field do it. Kept for comparison; none of them may sell a seat twice.
 *
 *   naive        BEGIN, LOOK, CLAIM, BOOK, COMMIT          the key of `claims` has the last word
 *   pessimistic  BEGIN, LOCK, LOOK, CLAIM, BOOK, COMMIT    locks the seats before it reads them
 *   optimistic   LOOK, BEGIN, CLAIM_VERSION, BOOK, COMMIT  claims only what is as it was seen
 *
 * A claim that got fewer seats than asked for lost a race: ROLLBACK, and from the top.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_ROUTER_TXN_H
#define SG_ROUTER_TXN_H

#include <stdbool.h>

#include "base/settings.h"

struct lane_op;
struct lane_slot;
struct txn;

/* One a slot, reused. NULL when memory runs out. */
struct txn *txn_new(struct lane_slot *slot, enum booking_strategy strategy);
void txn_free(struct txn *txn);
/* Starts the op (already in flight on the slot). It comes to lane_finish or lane_again, then
 * lane_slot_idle is called. False if nothing was sent. */
bool txn_start(struct txn *txn, struct lane_op *op);

#endif
