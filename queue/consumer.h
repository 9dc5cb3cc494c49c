/*
 * The consumer: messages of all shards become bookings, through the same lanes as those over HTTP.
 *
 *   fetcher ── delivery ──> decode ──> waiting, in order ──> router_book ──> verdict (verdict.h)
 *                             │                 ^                              │
 *      dead letters <── no ───┘                 └── pause ── again ────────────┤
 *      acknowledged <── booked; or refused, and the refusal stored ────────────┘
 *
 * A message is acknowledged when what became of it stands in the shard. One that comes twice has
 * the same booking id, so the second time finds what the first one did; while the first is still
 * being asked for, the second waits.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_QUEUE_CONSUMER_H
#define SG_QUEUE_CONSUMER_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

struct dynbuf;
struct event_base;
struct metrics_set;
struct queue_consumer;
struct router;
struct settings;

/* All borrowed but for the names; they outlive the consumer. */
struct queue_consumer_config {
    const struct settings *settings;
    struct event_base *base;
    struct metrics_set *metrics;
    struct router *router;
    const char *const *shards; /* copied */
    size_t shard_count;
};

/* NULL when memory, descriptors or the URL (then said in the log) do not allow it. */
struct queue_consumer *queue_consumer_new(const struct queue_consumer_config *config);
enum sg_error queue_consumer_start(struct queue_consumer *consumer);
/* Does it work off this shard's queue? */
bool queue_consumer_has(const struct queue_consumer *consumer, const char *shard);
/* Asks the router for nothing new. */
void queue_consumer_drain(struct queue_consumer *consumer);
/* Messages that the router has been asked for. */
size_t queue_consumer_busy(const struct queue_consumer *consumer);
/* Tells RabbitMQ what was settled and leaves it; the rest is delivered to somebody else. */
void queue_consumer_stop(struct queue_consumer *consumer);
/* After queue_consumer_stop, and after the router has called back everything. NULL is fine. */
void queue_consumer_free(struct queue_consumer *consumer);
/* {"connected":true,"shards":[{"shard":"alpha","waiting":0,"busy":3}]} */
void queue_consumer_write_status(const struct queue_consumer *consumer, struct dynbuf *out);
bool queue_consumer_is_connected(const struct queue_consumer *consumer);

#endif
