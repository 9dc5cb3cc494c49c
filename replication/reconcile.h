/*
 * Reconcile: compares one slice of a shard's keys with PostgreSQL at one LSN, and heals.
 *
 *   session: BEGIN REPEATABLE READ; CREATE_REPLICATION_SLOT t TEMPORARY ... (SNAPSHOT 'use')
 *        └─> consistent LSN C; then counters and tickets of the slice, as they were at C
 *   feed: every effect put in line since before C, kept for the events and users of the slice (tap)
 *   Redis: counters and tickets, read in order behind the batches; a key's `at` says up to where
 *
 * What Redis held at C is what it holds now, less the noted effects with C < position <= at: exact
 * for an event that is being sold out at this moment, too. A ticket that was touched after C is
 * left for the next round. Both sides are of C: nothing is compared at two moments.
 * Healing is one effect an event (EVENT_SEED at C, then the noted ones again, in one atomic list),
 * and one a ticket (MEND, UNMEND).
 * A slice takes events and tickets of PostgreSQL from cursors upwards, which finds what is wrong or
 * missing in Redis, and keys of Redis from a SCAN, which finds what should not be there (it may
 * repeat keys: they are a set here). The comparison itself is in reconcile_compare.h, pure.
 *
 * States: CONNECTING ─> SCANNING ─> SNAPSHOT ─> ASKING ─> MARKING ─> WAITING (until the feed has
 * applied C) ─> READING ─> HEALING ─> DONE, or FAILED from any of them.
 * Takes the feed's one tap, so one at a time; is freed before its feed and its sink.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_REPLICATION_RECONCILE_H
#define SG_REPLICATION_RECONCILE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/rediskeys.h"
#include "base/uuid.h"
#include "replication/projection.h"

struct event_base;
struct feed;
struct reap_list;
struct reconcile;
struct settings;
struct sink;

/* Where a pass over all keys stands; zero-initialise for its start. */
struct reconcile_cursor {
    int64_t after_event;  /* events above this one are next */
    int64_t ticket_event; /* tickets above this event and booking are next */
    struct uuid ticket_booking;
    uint64_t scan; /* of SCAN */
    bool listed;   /* all tickets of PostgreSQL; */
    bool scanned;  /* all keys of Redis */
    bool events_done;
    bool tickets_done; /* both: the pass is complete */
};

#define RECONCILE_DRIFTS_MAX 100 /* listed; more are counted */

struct reconcile_drift {
    int64_t event_id;
    char user[65];  /* "" : the event's counters */
    char what[120]; /* "available 8 in Redis, 7 in PostgreSQL", "missing", "not in PostgreSQL" */
};

struct reconcile_report {
    uint64_t lsn;
    int64_t events, tickets; /* compared */
    int64_t event_drift, ticket_drift;
    int64_t healed;
    size_t drift_count;
    struct reconcile_drift drifts[RECONCILE_DRIFTS_MAX];
};

struct reconcile_config {
    struct event_base *base;
    struct reap_list *reap;
    const struct settings *settings; /* cdc.reconcile_* */
    const char *shard;
    const char *dsn; /* of the primary */
    int64_t generation;
    int64_t epoch;
    struct sink *sink;
    struct feed *feed;
    struct reconcile_cursor cursor;
    const int64_t *only_events; /* these events alone, and no tickets; NULL: by the cursor;
                                   borrowed until the end */
    size_t only_count;
    bool heal;
    /* Once; reason NULL or why it was given up (nothing is known then). `next`: where to go on. */
    void (*on_done)(void *arg, const struct reconcile_report *report,
                    const struct reconcile_cursor *next, const char *reason);
    void *arg;
};

/* One slice. NULL when memory runs out. */
struct reconcile *reconcile_new(const struct reconcile_config *config);
/* From anywhere on the loop, also inside on_done; takes its tap off the feed. */
void reconcile_free(struct reconcile *reconcile);

#endif
