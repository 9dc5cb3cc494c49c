/*
 * A lane: what one worker writes to one shard, on its way to its primary.
 *
 *   router_book ───> lane_book ───┐
 *   router_change ─> lane_change ─┴> queue ─> slot: batch (or one transaction) on its connection ─┐
 *        callback <── answered <─ outcome <───────────────────────────────────────────────────────┤
 *                     first in line again <─ "again", connection lost, batch halved <─────────────┘
 *
 * What is on its way is an op: a TAKE (seats are booked, or held) or a CHANGE of a booking. Each
 * lane carries ops of one class, so that a crowd of buyers does not keep those waiting who pay.
 *
 * A slot is a connection and what is in flight on it. A batched lane has a queue for each slot, and
 * an event always takes the same one, so its ops keep their order; what has gathered when the slot
 * is free goes as one statement. With another booking.strategy plain bookings go in a lane of their
 * own, whose slots take from one queue, a booking at a time, statement by statement (txn.h).
 *
 * An op lives here from acceptance to answer: it waits while the shard has no primary, is asked
 * again under its own id after a lost connection (the database then tells what had become of it),
 * and is answered at its deadline at the latest. A take that wants the best seats has them chosen
 * just before its batch (lane_best.h), and may wait for that. Bounds: booking.queue_max,
 * queue_bytes, deadline_ms.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_ROUTER_LANE_H
#define SG_ROUTER_LANE_H

#include "router/lane_op.h"
#include "router/router.h"

struct calls;
struct lane;
struct lane_best;

enum lane_class {
    LANE_BOOKINGS, /* plain bookings, by booking.strategy; with "batched" all takes */
    LANE_TAKES,    /* with another strategy: the other takes, batched */
    LANE_CHANGES,  /* batched */
    LANE_CLASSES
};

/* `config` and `calls` are borrowed. NULL when memory runs out. */
struct lane *lane_new(const struct router_config *config, struct calls *calls, const char *shard,
                      enum lane_class class);
/* Answers everything with SG_SHARD_UNAVAILABLE, or SG_OUTCOME_UNKNOWN if it was sent. */
void lane_free(struct lane *lane);
const char *lane_shard(const struct lane *lane);
enum lane_class lane_class(const struct lane *lane);
/* Ops accepted and not yet answered. */
size_t lane_in_flight(const struct lane *lane);
/* The topology or the map changed: follows it at once. */
void lane_sync(struct lane *lane);

/* SG_OK: exactly one callback, later. Refuses: SG_OVERLOADED, SG_NO_MEMORY, SG_INVALID_VALUE (a
 * booking id that is none). */
enum sg_error lane_book(struct lane *lane, const struct book_request *request, int64_t map_version,
                        router_book_fn *fn, void *arg);
enum sg_error lane_change(struct lane *lane, const struct change_request *request,
                          int64_t map_version, router_change_fn *fn, void *arg);

/* --- for what goes through a lane (txn.c, lane_batch.c and its codecs, lane_best.c) ----------- */

struct lane_slot;
struct pgconn;

struct pgconn *lane_slot_conn(struct lane_slot *slot);
struct lane *lane_slot_lane(struct lane_slot *slot);
/* The epoch of the primary the slot is connected to. */
int64_t lane_slot_epoch(const struct lane_slot *slot);
const struct router_config *lane_config(const struct lane *lane);
/* NULL: the lane carries no takes. */
struct lane_best *lane_best(const struct lane *lane);
/* The ops in flight on the slot, in order. */
struct lane_op_list *lane_slot_ops(struct lane_slot *slot);

/* The end of one op: answers it (unless its deadline did) and frees it. Of `result` the route is
 * filled in here. */
void lane_finish(struct lane_slot *slot, struct lane_op *op, struct book_result *result);
void lane_finish_change(struct lane_slot *slot, struct lane_op *op, struct change_result *result);
/* The same for an op of either class of which there is nothing more to tell. */
void lane_fail(struct lane_slot *slot, struct lane_op *op, enum sg_error error);
/* Back to the head of the slot's queue, in the order of calls reversed: last one first. */
void lane_again(struct lane_slot *slot, struct lane_op *op);
/* Nothing is in flight on the slot any more: it may take the next. `pause`: not before the next
 * tick, because the same would happen again. */
void lane_slot_idle(struct lane_slot *slot, bool pause);
/* The primary takes no writes of ours now, none of them: SG_FENCED, SG_STALE_EPOCH or
 * SG_NOT_SYNCHRONOUS. All wait until something has changed. */
void lane_refused(struct lane_slot *slot, enum sg_error refusal);
/* An op has taken effect; `token` is at or past it. Called before it is answered: who is told may
 * look at the gauge at once. */
void lane_acknowledged(struct lane_slot *slot, const struct read_token *token);
/* What the slot's COMMITs are to promise. */
enum shardmap_durability lane_slot_durability(const struct lane_slot *slot);
/* The node is not what it was: tells health, and gives the connection up. */
void lane_slot_suspect(struct lane_slot *slot, const char *reason);
/* A batch of that size failed as a whole: the next ones are half as large until all of it is
 * through. */
void lane_slot_failed(struct lane_slot *slot, size_t batch_size);

/* An op that waits for its seats to be chosen (lane_best.h): into its queue again, where it is
 * asked for anew; or its end, answered and freed. */
void lane_best_ready(struct lane *lane, struct lane_op *op);
void lane_best_finish(struct lane *lane, struct lane_op *op, struct book_result *result);

/* Maps the database's word for the outcome of a write to an error; false if it is no final one. */
bool lane_outcome(const char *outcome, enum sg_error *ret_error);

#endif
