/*
 * Pointers from one thread to another, bounded and without a lock: a ck_ring with one sender and
 * one receiver, and the receiver's eventfd.
 *
 *   sender ── handover_put, handover_put, handover_wake ──> eventfd ──> receiver ── handover_take
 *
 * What is pointed at changes hands with the pointer. Many rings may share one eventfd, so that a
 * receiver waits at one place. See docs/ARCHITECTURE.md, "What crosses threads".
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_QUEUE_HANDOVER_H
#define SG_QUEUE_HANDOVER_H

#include <stdbool.h>
#include <stddef.h>

struct handover;

/* Holds at least `count` pointers. The eventfd is borrowed. NULL without memory. */
struct handover *handover_new(size_t count, int wake_fd);
/* No thread uses it any more. What is in it is the caller's to have taken. */
void handover_free(struct handover *handover);
/* From the one sending thread. False when it is full. */
bool handover_put(struct handover *handover, void *pointer);
/* After one or many puts: the receiver looks. */
void handover_wake(struct handover *handover);
/* From the one receiving thread; NULL when it is empty. Woken, it clears its eventfd first and
 * empties the ring second, so that nothing is left behind asleep. */
void *handover_take(struct handover *handover);

/* A new eventfd for a receiver, -1 without one. */
int handover_fd_new(void);
/* Clears the receiver's eventfd: what is put from now on wakes it anew. */
void handover_fd_clear(int wake_fd);

#endif
