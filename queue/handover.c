/*
 * Handover: a ck_ring of pointers. See handover.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "queue/handover.h"

#include <stdint.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <ck_ring.h>

struct handover {
    ck_ring_t ring;
    ck_ring_buffer_t *slots;
    int wake_fd;
    /* What is pointed at is visible with its pointer by the ring's fences, which the thread
     * sanitizer does not model; released before and acquired behind, this says the same to it. */
    uint64_t passed;
};

struct handover *handover_new(size_t count, int wake_fd)
{
    size_t capacity = 4;
    while (capacity < count + 1) /* a ring holds one less than its size */
        capacity *= 2;
    /* ck aligns the ring's two ends to cache lines; malloc does not. */
    struct handover *handover =
        aligned_alloc(CK_MD_CACHELINE, (sizeof(*handover) | (CK_MD_CACHELINE - 1)) + 1);
    if (!handover)
        return NULL;
    handover->wake_fd = wake_fd;
    handover->passed = 0;
    handover->slots = calloc(capacity, sizeof(*handover->slots));
    if (!handover->slots) {
        free(handover);
        return NULL;
    }
    ck_ring_init(&handover->ring, (unsigned)capacity);
    return handover;
}

void handover_free(struct handover *handover)
{
    if (!handover)
        return;
    free(handover->slots);
    free(handover);
}

bool handover_put(struct handover *handover, void *pointer)
{
    __atomic_store_n(&handover->passed, handover->passed + 1, __ATOMIC_RELEASE);
    return ck_ring_enqueue_spsc(&handover->ring, handover->slots, pointer);
}

void handover_wake(struct handover *handover)
{
    const uint64_t one = 1;
    /* Fails only with EAGAIN at 2^64 - 1 unread wake-ups: then the receiver is awake anyhow. */
    ssize_t written = write(handover->wake_fd, &one, sizeof(one));
    (void)written;
}

void *handover_take(struct handover *handover)
{
    void *pointer;
    if (!ck_ring_dequeue_spsc(&handover->ring, handover->slots, &pointer))
        return NULL;
    (void)__atomic_load_n(&handover->passed, __ATOMIC_ACQUIRE);
    return pointer;
}

int handover_fd_new(void)
{
    return eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
}

void handover_fd_clear(int wake_fd)
{
    uint64_t count;
    ssize_t got = read(wake_fd, &count, sizeof(count));
    (void)got; /* nothing in it: no matter */
}
