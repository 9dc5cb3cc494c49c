/*
 * What the two sides of the publisher share: the worker's (sender.c) and the thread's
 * (publisher.c).
 *
 * An item is its worker's until it is in `to_publisher`, then the thread's until it is in
 * `to_worker`; but for prev and next, which only the worker touches.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_QUEUE_PUBLISHER_INTERNAL_H
#define SG_QUEUE_PUBLISHER_INTERNAL_H

#include "queue/publisher.h"

#include <stdint.h>

#include "shardmap/shardmap.h"

#define SENDERS_MAX 256

struct event;
struct handover;
struct publish_shard; /* of publisher.c */

struct publish_item {
    /* the worker's */
    struct publish_item *prev, *next; /* all that the sender has under way */
    queue_publish_fn *fn;
    void *arg;
    /* the thread's */
    struct publish_item *behind; /* in the list of those that wait */
    struct publish_shard *shard;
    bool was_sent; /* the broker may have it */
    bool in_doubt; /* likewise, by a connection that was lost: whatever this one says */
    bool returned; /* the broker has no such queue */
    /* both */
    struct queue_sender *sender;
    int64_t accepted_us; /* monotonic */
    enum sg_error answer;
    char shard_name[SHARDMAP_NAME_MAX + 1];
    size_t len;
    char body[];
};

struct queue_sender {
    struct event_base *base;
    struct handover *to_publisher;
    struct handover *to_worker;
    int wake_fd;        /* of the worker */
    struct event *wake; /* on its loop */
    size_t pending;     /* the worker's, as the next two */
    size_t max_pending;
    struct publish_item *items;
    bool answered; /* the thread's: wake the worker at the end of this turn */
};

/* Of publisher.c: enters a sender; false when there are too many. Its eventfd. */
bool queue_publisher_enter(struct queue_publisher *publisher, struct queue_sender *sender);
int queue_publisher_wake_fd(const struct queue_publisher *publisher);
int64_t queue_publisher_max_pending(const struct queue_publisher *publisher);

#endif
