/*
 * Snapshots on ck_epoch. See snapshot.h.
 *
 *   publish: swap the pointer, hand the old value to ck_epoch_call, poll
 *   poll:    ck_epoch frees what was handed over two ticks ago, or all of it when nobody reads
 *
 * The pointer and the serial are read and written with the compiler's atomics, so that the thread
 * sanitizer sees them. It does not see into libck; the annotations below tell it the one thing that
 * ck_epoch guarantees, that a value is freed after the end of every section that could hold it. A
 * value freed too early is still a race in its eyes.
 *
 * Only one thread publishes and polls, as snapshot.h says; ck_epoch_poll relies on the epoch that
 * this thread itself advances.
 *
 * SPDX-License-Identifier: MIT
 */
#include "base/snapshot.h"

#include <assert.h>
#include <ck_epoch.h>
#include <stdlib.h>

#if defined(__SANITIZE_THREAD__)
#define UNDER_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define UNDER_TSAN 1
#endif
#endif

#ifdef UNDER_TSAN
#include <sanitizer/tsan_interface.h>
#define HAPPENS_BEFORE(address) __tsan_release(address)
#define HAPPENS_AFTER(address) __tsan_acquire(address)
#else
#define HAPPENS_BEFORE(address) ((void)(address))
#define HAPPENS_AFTER(address) ((void)(address))
#endif

struct snapshot_domain {
    ck_epoch_t epoch;
};

/* Never freed before the domain: ck_epoch walks over all records there ever were. */
struct snapshot_reader {
    ck_epoch_record_t record;
    struct snapshot_domain *domain;
};

/* What waits to be freed. */
struct former {
    ck_epoch_entry_t entry;
    struct snapshot_domain *domain;
    void *value;
    void (*free_fn)(void *value);
};

CK_STACK_CONTAINER(struct ck_epoch_record, record_next, record_of)
CK_EPOCH_CONTAINER(struct former, entry, former_of)

struct snapshot_domain *snapshot_domain_new(void)
{
    struct snapshot_domain *domain = calloc(1, sizeof(*domain));
    if (domain)
        ck_epoch_init(&domain->epoch);
    return domain;
}

void snapshot_domain_free(struct snapshot_domain *domain)
{
    ck_stack_entry_t *next;
    if (!domain)
        return;
    HAPPENS_AFTER(domain);
    for (ck_stack_entry_t *cursor = CK_STACK_FIRST(&domain->epoch.records); cursor; cursor = next) {
        struct ck_epoch_record *record = record_of(cursor);
        HAPPENS_AFTER(record);
        next = CK_STACK_NEXT(cursor);
        free(record); /* the first member of its reader */
    }
    free(domain);
}

struct snapshot_reader *snapshot_reader_new(struct snapshot_domain *domain)
{
    _Static_assert(offsetof(struct snapshot_reader, record) == 0, "a record is its reader");
    ck_epoch_record_t *record = ck_epoch_recycle(&domain->epoch, NULL);
    if (record) {
        HAPPENS_AFTER(record);
        return (struct snapshot_reader *)record;
    }
    struct snapshot_reader *reader = aligned_alloc(64, sizeof(*reader));
    if (!reader)
        return NULL;
    reader->domain = domain;
    HAPPENS_BEFORE(domain);
    ck_epoch_register(&domain->epoch, &reader->record, NULL);
    return reader;
}

void snapshot_reader_free(struct snapshot_reader *reader)
{
    if (!reader)
        return;
    assert(reader->record.active == 0);
    if (reader->record.n_pending > 0)
        ck_epoch_barrier(&reader->record); /* unregistering forgets what was not yet freed */
    HAPPENS_BEFORE(&reader->record);
    ck_epoch_unregister(&reader->record);
}

void snapshot_begin(struct snapshot_reader *reader)
{
    ck_epoch_begin(&reader->record, NULL);
    ck_pr_fence_load(); /* the epoch is seen before any pointer it protects */
}

void snapshot_end(struct snapshot_reader *reader)
{
    HAPPENS_BEFORE(&reader->record);
    ck_epoch_end(&reader->record, NULL);
}

void *snapshot_get(const struct snapshot_slot *slot)
{
    return __atomic_load_n(&slot->current, __ATOMIC_ACQUIRE);
}

uint64_t snapshot_serial(const struct snapshot_slot *slot)
{
    return __atomic_load_n(&slot->serial, __ATOMIC_ACQUIRE);
}

static void wait_for_annotated_readers(struct snapshot_domain *domain)
{
#ifdef UNDER_TSAN
    ck_stack_entry_t *cursor;
    HAPPENS_AFTER(domain);
    CK_STACK_FOREACH(&domain->epoch.records, cursor)
    HAPPENS_AFTER(record_of(cursor));
#else
    (void)domain;
#endif
}

static void on_unreachable(ck_epoch_entry_t *entry)
{
    struct former *former = former_of(entry);
    wait_for_annotated_readers(former->domain);
    former->free_fn(former->value);
    free(former);
}

void snapshot_publish(struct snapshot_reader *publisher, struct snapshot_slot *slot, void *value,
                      void (*free_fn)(void *value))
{
    assert(publisher->record.active == 0);
    struct former *former = malloc(sizeof(*former));
    void *old = __atomic_exchange_n(&slot->current, value, __ATOMIC_ACQ_REL);
    __atomic_add_fetch(&slot->serial, 1, __ATOMIC_RELEASE);
    ck_pr_fence_memory(); /* the swap is seen before the epoch that ck_epoch_call notes */
    if (!old) {
        free(former);
    } else if (former) {
        *former = (struct former){.domain = publisher->domain, .value = old, .free_fn = free_fn};
        ck_epoch_call(&publisher->record, &former->entry, on_unreachable);
    } else { /* no memory to remember it by: wait, sections are short */
        ck_epoch_synchronize(&publisher->record);
        wait_for_annotated_readers(publisher->domain);
        free_fn(old);
    }
    ck_epoch_poll(&publisher->record);
}

void snapshot_poll(struct snapshot_reader *publisher)
{
    if (publisher->record.n_pending > 0)
        ck_epoch_poll(&publisher->record);
}

void snapshot_slot_done(struct snapshot_slot *slot, void (*free_fn)(void *value))
{
    if (slot->current)
        free_fn(slot->current);
    *slot = (struct snapshot_slot){0};
}
