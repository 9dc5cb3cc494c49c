/*
 * The best seats chosen by the database: booking.best_choose = "database".
 *
 *   op ─> best_take_start ─> a call of best_take() (migrations/0005_life.sql) ─> lane_best_finish
 *
 * A transaction of its own for each take, beside the lane's batches. The op waits meanwhile.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_ROUTER_BEST_TAKE_H
#define SG_ROUTER_BEST_TAKE_H

#include "base/error.h"

struct best_take;
struct calls;
struct lane;
struct lane_op;

/* SG_OK: lane_best_finish is called for the op, later, unless it is forgotten first. From now on
 * its outcome is unknown until it is answered (op->asked). Refuses as call_start. */
enum sg_error best_take_start(struct calls *calls, struct lane *lane, struct lane_op *op,
                              struct best_take **ret_take);
/* The op is gone, or is being answered; NULL is allowed. */
void best_take_forget(struct best_take *take);

#endif
