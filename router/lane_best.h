/*
 * The best seats for takes that wish for them, chosen in memory just before their batch.
 *
 *   slot takes a batch ─> lane_best_choose ─┬─ seats ─> in the batch ─> lane_best_done
 *                             ^             ├─ none, it only looks ─> in the batch
 *                             │             ├─ it waits ─> lane_best_ready, or lane_best_finish
 *                             │             └─ refused ─> answered
 *                             └── lane_again <── lane_best_missed <── "seats_taken"
 *
 * One a lane of takes, on its thread. Nothing here is called for ops that are in flight but missed
 * and done.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_ROUTER_LANE_BEST_H
#define SG_ROUTER_LANE_BEST_H

#include <stddef.h>

#include "router/router.h"

struct calls;
struct lane;
struct lane_best;
struct lane_op;

enum lane_best_verdict {
    LANE_BEST_CHOSEN, /* op->seats and seat_count are filled in: at most seat_room */
    LANE_BEST_LOOK,   /* it goes without seats, only to find what its key, or it itself, has become;
                         if that is nothing: lane_best_missed, with none taken */
    LANE_BEST_WAITS,  /* the lane takes it out of its queue until lane_best_ready or
                         lane_best_finish is called for it, later */
    LANE_BEST_REFUSED /* *ret_result says why; the lane answers it */
};

/* `lane` and `calls` are borrowed; calls outlive it. NULL when memory runs out. */
struct lane_best *lane_best_new(struct lane *lane, struct calls *calls);
/* The lane has no ops any more. */
void lane_best_free(struct lane_best *best);
/* An op with wishes and without seats, whose slot is about to take a batch. */
enum lane_best_verdict lane_best_choose(struct lane_best *best, struct lane_op *op,
                                        struct book_result *ret_result);
/* Some of the seats chosen for the op are taken. The lane forgets them all (seat_count 0) and has
 * others chosen. */
void lane_best_missed(struct lane_best *best, struct lane_op *op, const struct seat *taken,
                      size_t taken_count);
/* The end of any take of the lane, with wishes or without, whether it was in flight, waiting or in
 * its queue. `result` as it is answered; of one whose deadline had answered before: what has become
 * of it after all, SG_OUTCOME_UNKNOWN if nobody knows. Its seats are still there. */
void lane_best_done(struct lane_best *best, struct lane_op *op, const struct book_result *result);
/* The lane goes to another primary: what was learnt may not be so there. */
void lane_best_moved(struct lane_best *best);

#endif
