/*
 * The worker's side of the publisher: hands messages over, and tells their answers on its loop.
 *
 * What is pending is bounded by queue.max_pending, and both rings hold as much, so that neither is
 * ever full.
 *
 * SPDX-License-Identifier: MIT
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <event2/event.h>

#include "base/clock.h"
#include "queue/handover.h"
#include "queue/publisher_internal.h"

#define ANSWERS_A_TURN 1024 /* so that a busy publisher does not starve the loop */

static void unlink_item(struct queue_sender *sender, struct publish_item *item)
{
    if (item->prev)
        item->prev->next = item->next;
    else
        sender->items = item->next;
    if (item->next)
        item->next->prev = item->prev;
    sender->pending--;
}

static void answer(struct queue_sender *sender, struct publish_item *item, enum sg_error error)
{
    queue_publish_fn *fn = item->fn;
    void *arg = item->arg;
    unlink_item(sender, item);
    free(item);
    fn(arg, error);
}

static void on_wake(evutil_socket_t fd, short what, void *arg)
{
    struct queue_sender *sender = arg;
    (void)what;
    handover_fd_clear(fd);
    for (int i = 0; i < ANSWERS_A_TURN; i++) {
        struct publish_item *item = handover_take(sender->to_worker);
        if (!item)
            return;
        answer(sender, item, item->answer);
    }
    event_active(sender->wake, EV_READ, 0);
}

static bool build(struct queue_sender *sender, struct queue_publisher *publisher)
{
    sender->wake_fd = handover_fd_new();
    if (sender->wake_fd < 0)
        return false;
    sender->to_publisher = handover_new(sender->max_pending, queue_publisher_wake_fd(publisher));
    sender->to_worker = handover_new(sender->max_pending, sender->wake_fd);
    sender->wake = event_new(sender->base, sender->wake_fd, EV_READ | EV_PERSIST, on_wake, sender);
    return sender->to_publisher && sender->to_worker && sender->wake &&
           event_add(sender->wake, NULL) == 0 && queue_publisher_enter(publisher, sender);
}

struct queue_sender *queue_sender_new(struct queue_publisher *publisher, struct event_base *base)
{
    struct queue_sender *sender = calloc(1, sizeof(*sender));
    if (!sender)
        return NULL;
    sender->base = base;
    sender->wake_fd = -1;
    sender->max_pending = (size_t)queue_publisher_max_pending(publisher);
    if (!build(sender, publisher)) {
        queue_sender_free(sender);
        return NULL;
    }
    return sender;
}

void queue_sender_free(struct queue_sender *sender)
{
    struct publish_item *item;
    if (!sender)
        return;
    while (sender->to_worker && (item = handover_take(sender->to_worker)))
        answer(sender, item, item->answer);
    while (sender->items)
        answer(sender, sender->items, SG_OUTCOME_UNKNOWN);
    if (sender->wake)
        event_free(sender->wake);
    if (sender->wake_fd >= 0)
        close(sender->wake_fd);
    handover_free(sender->to_publisher);
    handover_free(sender->to_worker);
    free(sender);
}

enum sg_error queue_publish(struct queue_sender *sender, const char *shard, const void *body,
                            size_t len, queue_publish_fn *fn, void *arg)
{
    if (sender->pending == sender->max_pending)
        return SG_QUEUE_UNAVAILABLE;
    struct publish_item *item = calloc(1, sizeof(*item) + len);
    if (!item)
        return SG_NO_MEMORY;
    item->fn = fn;
    item->arg = arg;
    item->sender = sender;
    item->accepted_us = clock_mono_us();
    snprintf(item->shard_name, sizeof(item->shard_name), "%s", shard);
    item->len = len;
    memcpy(item->body, body, len);
    item->next = sender->items;
    if (item->next)
        item->next->prev = item;
    sender->items = item;
    sender->pending++;
    bool fitted = handover_put(sender->to_publisher, item);
    assert(fitted);
    (void)fitted;
    handover_wake(sender->to_publisher);
    return SG_OK;
}
