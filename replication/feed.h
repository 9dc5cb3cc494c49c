/*
 * Feed: the whole way of one generation, from its slot to its keys.
 *
 *   stream ─> projection ─> outbox ─> sink ─> progress ─> stream (confirmed LSN)
 *
 * A shard has one feed; while it is being seeded anew it has two, of two generations and slots.
 * States: STARTING ─> RUNNING ─> OVER (on_over, once; then only free).
 *
 * Batches: what has gathered is sent when fewer than cdc.batches_in_flight are under way; with none
 * under way at once, else after cdc.gather_us at most or when the outbox is full. A transaction may
 * be cut over several batches: each change has its own position. Each batch ends with sink_mark if
 * it completes a commit. When the outbox is full and no batch may go, the stream is not read.
 * Batches that Redis refuses (out of memory, scripts lost) are sent again after a pause that
 * doubles, for as long as it takes; nothing is marked meanwhile. A lost or failed batch: see
 * on_over; Redis being down is the owner's to wait for.
 *
 * The gate: no change of a transaction whose final LSN is at or above it is applied (the standby
 * does not have it yet); at a border of WAL pages, which may cut a record, 64 KiB earlier.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_REPLICATION_FEED_H
#define SG_REPLICATION_FEED_H

#include <stdbool.h>
#include <stdint.h>

#include "base/rediskeys.h"
#include "replication/projection.h"
#include "replication/sink.h"

struct event_base;
struct feed;
struct metrics_set;
struct reap_list;
struct settings;

enum feed_end {
    FEED_STREAM_LOST, /* the connection or the server went: look again, resume */
    FEED_SLOT_GONE,   /* no such slot, or it lost its WAL: seed */
    FEED_SLOT_TAKEN,  /* somebody else reads it */
    FEED_REPLACED,    /* a higher epoch has written: step back */
    FEED_KEYS_GONE,   /* the shard's hash is gone or another generation's: seed */
    FEED_SINK_LOST,   /* Redis went: look again when it is back, resume */
    FEED_TRUNCATED,   /* a table of ours was truncated: seed */
    FEED_BLOCKED      /* a message that cannot be understood: needs an operator; try again slowly */
};

#define FEED_GATE_OPEN UINT64_MAX

struct feed_config {
    struct event_base *base;
    struct reap_list *reap;
    struct metrics_set *metrics;
    const struct settings *settings;
    const char *shard;
    const char *dsn; /* of the primary */
    struct sink *sink;
    const char *slot;
    int64_t generation;
    int64_t epoch;
    uint64_t start_lsn; /* everything up to it is in the keys already; 0: not known */
    bool current; /* mark the shard's hash; false while the generation is not the readers' yet */
    bool streaming;
    uint64_t gate;
    void (*on_started)(void *arg);
    void (*on_over)(void *arg, enum feed_end end, const char *reason);
    /* Redis has acknowledged more: `applied` of the status has grown. May be NULL. */
    void (*on_applied)(void *arg);
    /* Redis has no counters for the event: heal it. */
    void (*on_missing)(void *arg, int64_t event_id);
    /* Every effect of the stream when it is put into the outbox, not those that are injected; may
     * be NULL (reconcile listens). */
    void (*on_effect)(void *arg, const struct effect *effect, const struct position *position);
    void *arg;
};

struct feed_status {
    uint64_t received, applied, confirmed, server_end; /* LSNs */
    int64_t oldest_unapplied_us; /* commit time, since 1970, of the oldest known commit that is not
                                    applied; 0: none */
    int64_t last_latency_us;     /* commit to Redis of the last applied commit */
    uint64_t commits, changes;   /* applied since the start */
};

/* NULL when memory runs out. dsn and slot are borrowed for the call. on_over comes from the loop,
 * never from inside a call. */
struct feed *feed_new(const struct feed_config *config);
/* From anywhere on the loop, also inside a callback; no callback follows. */
void feed_free(struct feed *feed);
void feed_set_gate(struct feed *feed, uint64_t gate);
/* From now on it marks the shard's hash (after the switch to its generation). */
void feed_set_current(struct feed *feed);
void feed_set_tap(struct feed *feed,
                  void (*on_effect)(void *arg, const struct effect *effect,
                                    const struct position *position),
                  void *arg);
/* Puts an effect of seed or reconcile in line, behind what is there. SG_OVERLOADED: later. */
enum sg_error feed_inject(struct feed *feed, const struct effect *effect,
                          const struct position *position);
void feed_get_status(const struct feed *feed, struct feed_status *ret_status);

#endif
