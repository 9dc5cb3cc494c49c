/*
 * Messages from one thread to the event loop of another, bounded and without a lock.
 *
 *   sender thread ── mailbox_send ──> ck_ring (one sender, one receiver) ── eventfd ──> on_message
 *
 * One mailbox for each pair of threads and direction. A message is small and travels by value, so
 * nobody owns anything on the way. Order is kept. A full mailbox refuses: the sender decides what
 * that means. One of the few ways to cross threads (docs/ARCHITECTURE.md, "What crosses threads").
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_BASE_MAILBOX_H
#define SG_BASE_MAILBOX_H

#include <stdbool.h>
#include <stddef.h>

struct event_base;
struct mailbox;

#define MAILBOX_TEXT_MAX 64

struct mailbox_message {
    int kind;                    /* sender and receiver agree on an enum of their own */
    char text[MAILBOX_TEXT_MAX]; /* a name, or "" */
};

/* Called on the receiver's loop, never from inside mailbox_send. Must not free the mailbox. */
typedef void mailbox_fn(void *arg, const struct mailbox_message *message);

/* Made on, and freed by, the receiver's thread. `capacity` is a power of two of at least 4; it
 * holds capacity - 1 messages. NULL when memory or file descriptors run out. */
struct mailbox *mailbox_new(struct event_base *base, size_t capacity, mailbox_fn *on_message,
                            void *arg);
/* No sender may use it any more; messages still in it are dropped. */
void mailbox_free(struct mailbox *mailbox);
/* From the one sending thread. `text` may be NULL and is cut to MAILBOX_TEXT_MAX - 1 bytes. False
 * when the mailbox is full: nothing was sent. */
bool mailbox_send(struct mailbox *mailbox, int kind, const char *text);

#endif
