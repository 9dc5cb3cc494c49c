/*
 * The publisher: bookings that are to be made later go to RabbitMQ, and are accepted only when it
 * has said that it keeps them.
 *
 *   worker ── queue_publish ──> ck_ring ──> publisher ── basic.publish ──> seatgrid.book.SHARD
 *   worker <── queue_publish_fn ── ck_ring <── publisher <── basic.ack ────────────┘
 *
 * One publisher a process: a thread of its own with one connection, as librabbitmq blocks. One
 * sender a worker: made and freed while no thread runs on it, else used by its worker alone. A
 * message that the broker has not confirmed when the connection breaks is published again: its
 * booking id makes a second copy harmless. What crosses threads here, and nothing else: the two
 * rings of each sender (queue/handover.h).
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_QUEUE_PUBLISHER_H
#define SG_QUEUE_PUBLISHER_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

struct event_base;
struct queue_publisher;
struct queue_sender;
struct settings;

struct queue_publisher_config {
    const struct settings *settings; /* queue.*; outlives the publisher */
    const char *const *shards;       /* their queues are made at once; copied */
    size_t shard_count;              /* another shard's is made with its first message */
};

/* NULL when memory, file descriptors or the URL (then said in the log) do not allow it. */
struct queue_publisher *queue_publisher_new(const struct queue_publisher_config *config);
/* Starts the thread; it connects by itself, again and again. SG_NO_MEMORY without a thread. */
enum sg_error queue_publisher_start(struct queue_publisher *publisher);
/* Ends the thread, at most some connect timeouts later. What it still has is called back by
 * queue_sender_free. */
void queue_publisher_stop(struct queue_publisher *publisher);
/* After queue_publisher_stop, and after the senders were freed. */
void queue_publisher_free(struct queue_publisher *publisher);

/* A worker's handle, before queue_publisher_start. `base`: the worker's loop, on which answers are
 * told. NULL without memory or descriptors, or past 256 senders. */
struct queue_sender *queue_sender_new(struct queue_publisher *publisher, struct event_base *base);
/* After queue_publisher_stop; on the worker's thread, or when that has ended. Calls back what is
 * still under way, with SG_OUTCOME_UNKNOWN unless its answer has come. NULL is fine. */
void queue_sender_free(struct queue_sender *sender);

/* SG_OK: RabbitMQ keeps the message durably. SG_QUEUE_UNAVAILABLE: it does not, and never will.
 * SG_OUTCOME_UNKNOWN: it may; asking again with the same booking id is safe. */
typedef void queue_publish_fn(void *arg, enum sg_error error);

/* From the sender's worker. SG_OK: accepted, fn runs exactly once, later, on the worker's loop, at
 * most about queue.confirm_ms from now. Anything else: refused, fn never runs: SG_QUEUE_UNAVAILABLE
 * (queue.max_pending messages are under way), SG_NO_MEMORY. `shard` and `body` are copied. */
enum sg_error queue_publish(struct queue_sender *sender, const char *shard, const void *body,
                            size_t len, queue_publish_fn *fn, void *arg);

#endif
