/*
 * Immutable snapshots that one thread publishes and many threads read without a lock.
 *
 *   control thread ── snapshot_publish ──> slot (one pointer)
 *   worker ── snapshot_begin .. snapshot_get .. snapshot_end: the pointer stays valid in between
 *
 * The old value is freed by ck_epoch once no reader can still hold it. This is how the shard map
 * and the topology cross threads, and the only way (docs/ARCHITECTURE.md, "What crosses threads").
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_BASE_SNAPSHOT_H
#define SG_BASE_SNAPSHOT_H

#include <stdint.h>

struct snapshot_domain; /* one epoch for all slots of a process */
struct snapshot_reader; /* a thread's record in it; 64-byte aligned, used by its owner alone */

/* One published pointer. Zero-initialise. Written by the publishing thread alone. */
struct snapshot_slot {
    void *current;
    uint64_t serial; /* counts publications, so that a reader can see that something changed */
};

/* NULL when memory runs out. */
struct snapshot_domain *snapshot_domain_new(void);
/* All readers must be gone. */
void snapshot_domain_free(struct snapshot_domain *domain);

/* Registers the calling thread; the publisher needs one too. NULL when memory runs out. */
struct snapshot_reader *snapshot_reader_new(struct snapshot_domain *domain);
/* Unregisters. The memory is kept for the next reader, as ck_epoch wants it. */
void snapshot_reader_free(struct snapshot_reader *reader);

/* A read section: short, never across a return to the event loop, may nest. */
void snapshot_begin(struct snapshot_reader *reader);
void snapshot_end(struct snapshot_reader *reader);
/* Inside a section: the current value, NULL before the first publication. */
void *snapshot_get(const struct snapshot_slot *slot);
/* Any time, any thread: how many publications there were. */
uint64_t snapshot_serial(const struct snapshot_slot *slot);

/* Publishes `value` (ownership passes on) and frees the former one with free_fn as soon as no
 * reader can hold it. `publisher` is the calling thread's own reader, outside any section. */
void snapshot_publish(struct snapshot_reader *publisher, struct snapshot_slot *slot, void *value,
                      void (*free_fn)(void *value));
/* Lets deferred frees happen; call now and then on the publishing thread. */
void snapshot_poll(struct snapshot_reader *publisher);
/* At shutdown, when no reader is left: frees the slot's value. */
void snapshot_slot_done(struct snapshot_slot *slot, void (*free_fn)(void *value));

#endif
