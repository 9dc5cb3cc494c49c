/*
 * Mailbox: a ck_ring of messages by value and an eventfd that wakes the receiver. See mailbox.h.
 *
 * The sender puts the message into the ring first and writes the eventfd second; the receiver
 * clears the eventfd first and empties the ring second. So no message is left behind asleep.
 *
 * SPDX-License-Identifier: MIT
 */
#include "base/mailbox.h"

#include <assert.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <ck_ring.h>
#include <event2/event.h>

CK_RING_PROTOTYPE(mailbox, mailbox_message)

struct mailbox {
    ck_ring_t ring;
    struct mailbox_message *slots;
    size_t capacity;
    int fd;
    struct event *wake;
    mailbox_fn *on_message;
    void *arg;
};

/* One turn hands over at most a ring full, so that a busy sender cannot starve the loop. */
static void on_wake(evutil_socket_t fd, short what, void *arg)
{
    struct mailbox *mailbox = arg;
    uint64_t count;
    (void)what;
    if (read(fd, &count, sizeof(count)) < 0)
        count = 0; /* woken by ourselves below, the eventfd itself is quiet */
    for (size_t i = 0; i < mailbox->capacity; i++) {
        struct mailbox_message message;
        if (!CK_RING_DEQUEUE_SPSC(mailbox, &mailbox->ring, mailbox->slots, &message))
            return;
        mailbox->on_message(mailbox->arg, &message);
    }
    event_active(mailbox->wake, EV_READ, 0);
}

struct mailbox *mailbox_new(struct event_base *base, size_t capacity, mailbox_fn *on_message,
                            void *arg)
{
    assert(capacity >= 4 && (capacity & (capacity - 1)) == 0);
    struct mailbox *mailbox = calloc(1, sizeof(*mailbox));
    if (!mailbox)
        return NULL;
    *mailbox =
        (struct mailbox){.capacity = capacity, .fd = -1, .on_message = on_message, .arg = arg};
    ck_ring_init(&mailbox->ring, (unsigned)capacity);
    mailbox->slots = calloc(capacity, sizeof(*mailbox->slots));
    mailbox->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (mailbox->slots && mailbox->fd >= 0)
        mailbox->wake = event_new(base, mailbox->fd, EV_READ | EV_PERSIST, on_wake, mailbox);
    if (!mailbox->wake || event_add(mailbox->wake, NULL) < 0) {
        mailbox_free(mailbox);
        return NULL;
    }
    return mailbox;
}

void mailbox_free(struct mailbox *mailbox)
{
    if (!mailbox)
        return;
    if (mailbox->wake)
        event_free(mailbox->wake);
    if (mailbox->fd >= 0)
        close(mailbox->fd);
    free(mailbox->slots);
    free(mailbox);
}

bool mailbox_send(struct mailbox *mailbox, int kind, const char *text)
{
    struct mailbox_message message = {.kind = kind};
    const uint64_t one = 1;
    snprintf(message.text, sizeof(message.text), "%s", text ? text : "");
    if (!CK_RING_ENQUEUE_SPSC(mailbox, &mailbox->ring, mailbox->slots, &message))
        return false;
    /* Fails only with EAGAIN at 2^64 - 1 unread wake-ups: then the receiver is awake anyhow. */
    ssize_t written = write(mailbox->fd, &one, sizeof(one));
    (void)written;
    return true;
}
