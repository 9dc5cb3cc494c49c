/*
 * A lane: the bookings of one worker for one shard, on their way to its primary.
 *
 *   router_book ─> lane_book ─> queue ─> slot: batch (or one transaction) on its connection ─┐
 *        callback <── answered <─ outcome <──────────────────────────────────────────────────┤
 *                     first in line again <─ "again", connection lost, batch halved <────────┘
 *
 * A slot is a connection and what is in flight on it. With booking.strategy "batched" each slot has
 * a queue of its own and an event always takes the same one, so its bookings keep their order; what
 * has gathered when the slot is free goes as one statement. With the other strategies all slots
 * take from one queue, a booking at a time, statement by statement (txn.h).
 *
 * A booking lives here from acceptance to answer: it waits while the shard has no primary, is asked
 * again under its own booking_id after a lost connection (the database then tells what had become
 * of it), and is answered at its deadline at the latest. Bounds: booking.queue_max,
 * queue_bytes, deadline_ms.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_ROUTER_LANE_H
#define SG_ROUTER_LANE_H

#include <sys/queue.h>

#include "base/uuid.h"
#include "router/router.h"

struct lane;

/* One booking on its way. Owned by its lane. */
struct booking_op {
    TAILQ_ENTRY(booking_op) all;   /* in order of acceptance */
    TAILQ_ENTRY(booking_op) place; /* in a queue, or in flight in a slot */
    int64_t event_id;
    struct uuid booking_id;
    int64_t request_hash;
    int64_t deadline_us;
    int64_t map_version;
    router_book_fn *fn;
    void *arg;
    char *user_id;
    char *idempotency_key; /* NULL for none */
    char *request_id;
    size_t seat_count;
    size_t size; /* of all of it, in bytes */
    bool asked;  /* was in flight when its connection went: look for its booking first */
    bool in_flight;
    bool answered;  /* at its deadline, in flight; freed when it comes back */
    unsigned tries; /* lost races, for the strategies that count them */
    struct seat seats[];
};

TAILQ_HEAD(booking_op_list, booking_op);

/* `config` is borrowed. NULL when memory runs out. */
struct lane *lane_new(const struct router_config *config, const char *shard);
/* Answers everything with SG_SHARD_UNAVAILABLE, or SG_OUTCOME_UNKNOWN if it was sent. */
void lane_free(struct lane *lane);
const char *lane_shard(const struct lane *lane);
/* Bookings accepted and not yet answered. */
size_t lane_in_flight(const struct lane *lane);
/* The topology or the map changed: follows it at once. */
void lane_sync(struct lane *lane);

/* SG_OK: exactly one callback, later. Refuses: SG_OVERLOADED, SG_NO_MEMORY. */
enum sg_error lane_book(struct lane *lane, const struct book_request *request, int64_t map_version,
                        router_book_fn *fn, void *arg);

/* --- for the strategies (txn.c and the batches in lane_batch.c) ------------------------------- */

struct lane_slot;
struct pgconn;

struct pgconn *lane_slot_conn(struct lane_slot *slot);
struct lane *lane_slot_lane(struct lane_slot *slot);
/* The epoch of the primary the slot is connected to. */
int64_t lane_slot_epoch(const struct lane_slot *slot);
const struct router_config *lane_config(const struct lane *lane);
/* The bookings in flight on the slot, in order. */
struct booking_op_list *lane_slot_ops(struct lane_slot *slot);

/* The end of one booking: answers it (unless its deadline did) and frees it. `result` has error,
 * replayed, booking_id, created_at_us, token and seats; the rest is filled in here. */
void lane_finish(struct lane_slot *slot, struct booking_op *op, struct book_result *result);
/* Back to the head of the slot's queue, in the order of calls reversed: last one first. */
void lane_again(struct lane_slot *slot, struct booking_op *op);
/* Nothing is in flight on the slot any more: it may take the next. `pause`: not before the next
 * tick, because the same would happen again. */
void lane_slot_idle(struct lane_slot *slot, bool pause);
/* The primary takes no writes of ours now, none of them: SG_FENCED, SG_STALE_EPOCH or
 * SG_NOT_SYNCHRONOUS. All wait until something has changed. */
void lane_refused(struct lane_slot *slot, enum sg_error refusal);
/* So many bookings were acknowledged; `token` is at or past all of them. */
void lane_acknowledged(struct lane_slot *slot, const struct read_token *token, int64_t bookings);
/* What the slot's COMMITs are to promise. */
enum shardmap_durability lane_slot_durability(const struct lane_slot *slot);
/* The node is not what it was: tells health, and gives the connection up. */
void lane_slot_suspect(struct lane_slot *slot, const char *reason);
/* A batch of that size failed as a whole: the next ones are half as large until all of it is
 * through. */
void lane_slot_failed(struct lane_slot *slot, size_t batch_size);

/* Maps the database's word to an error; false if it is no outcome of a booking. */
bool lane_outcome(const char *outcome, enum sg_error *ret_error);

#endif
