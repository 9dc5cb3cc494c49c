/*
 * The thread that has the worker's connection to RabbitMQ: messages in, acknowledgements out.
 *
 *   RabbitMQ ── basic.deliver ──> fetcher ── ck_ring ──> on_delivery (the loop, consumer.c)
 *   RabbitMQ <── basic.ack up to a tag, basic.reject ── fetcher <── ck_ring ── fetcher_settle
 *
 * A channel a shard, so that one whose messages cannot be booked now does not hold up the others.
 * A delivery is the loop's from on_delivery to fetcher_settle. When the connection is lost, the
 * broker delivers anew what was not acknowledged, and what the loop still settles of the old one is
 * dropped: the booking id makes the second time harmless.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_QUEUE_FETCHER_H
#define SG_QUEUE_FETCHER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct event_base;
struct fetcher;
struct settings;

enum delivery_end { DELIVERY_ACK, DELIVERY_DEAD };

struct delivery {
    size_t shard;        /* its place in fetcher_config.shards */
    uint64_t generation; /* of the connection: tags begin anew with each */
    uint64_t tag;
    enum delivery_end end;
    size_t len; /* of the body, which is cut off behind QUEUE_MESSAGE_BYTES_MAX + 1 */
    char body[];
};

struct fetcher_config {
    const struct settings *settings;
    struct event_base *base;   /* of the loop */
    const char *const *shards; /* lives as long as the fetcher */
    size_t shard_count;        /* at most FETCHER_SHARDS_MAX */
    void (*on_delivery)(void *arg, struct delivery *delivery);
    /* The connection was lost, or made: deliveries of an older generation come again. On the loop.
     */
    void (*on_connection)(void *arg, uint64_t generation);
    void *arg;
};

#define FETCHER_SHARDS_MAX 1024 /* a channel each; a shard map has no more */

/* NULL when memory, descriptors or the URL (then said in the log) do not allow it. */
struct fetcher *fetcher_new(const struct fetcher_config *config);
enum sg_error fetcher_start(struct fetcher *fetcher);
/* From the loop: what was decided. The delivery is gone with this. */
void fetcher_settle(struct fetcher *fetcher, struct delivery *delivery, enum delivery_end end);
/* Tells the broker what was settled, closes the connection and ends the thread; at most some
 * connect timeouts. Nothing is delivered any more; what was not settled comes again later. */
void fetcher_stop(struct fetcher *fetcher);
/* After fetcher_stop, when all deliveries were settled. */
void fetcher_free(struct fetcher *fetcher);
/* Any thread. */
bool fetcher_is_connected(const struct fetcher *fetcher);

#endif
