/*
 * Consumer: keeps one shard's keys in Redis in step, whatever happens, without an operator.
 *
 *   NO_PRIMARY ──primary known──> NO_REDIS ──Redis up──> LOOKING: lock, facts, repair_decide
 *       ^                             ^                     │
 *       │                             │                     ├─ WAIT ───> WAITING: another, a switch
 *       │                             │                     ├─ RESUME ─> RUNNING
 *       └─────────── any loss ────────┴──── with a pause ───┤
 *                    that doubles                           └─ SEED ───> SEEDING ─> CATCHING_UP
 *                                                                           switch ─> RUNNING
 *   BLOCKED: a message that cannot be understood, a database that is not migrated; tried again
 *   slowly
 *
 * Owns, while it has the shard: the control session to the primary with the shard's advisory lock
 * (1397900372, 3), the sink, one feed (two while a generation is seeded beside a healthy one), the
 * heartbeats, the removal of left-over slots and of keys of former generations (SCAN, UNLINK, a
 * little at a time, not before readers have seen the switch), the slow reconcile.
 * A switchover: the operator fences the primary and has the consumer drain what is before the
 * fence; the consumer reads on from there on the new primary, with the same keys (repair.h). Order
 * of a take-over: lock, next epoch (of sequence and hash, the higher), claim the hash, end a
 * left-over walsender of the slot, read the stream.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_REPLICATION_CONSUMER_H
#define SG_REPLICATION_CONSUMER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "replication/reconcile.h"
#include "replication/repair.h"
#include "replication/seed.h"

struct consumer;
struct dynbuf;
struct event_base;
struct metrics_set;
struct reap_list;
struct settings;
struct snapshot_reader;
struct snapshot_slot;

enum consumer_state {
    CONSUMER_NO_PRIMARY,
    CONSUMER_NO_REDIS,
    CONSUMER_LOOKING,
    CONSUMER_WAITING,
    CONSUMER_SEEDING,
    CONSUMER_CATCHING_UP,
    CONSUMER_RUNNING,
    CONSUMER_BLOCKED,
    CONSUMER_STATES
};

struct consumer_config {
    struct event_base *base;
    struct reap_list *reap;
    struct metrics_set *metrics;
    const struct settings *settings;
    struct snapshot_reader *reader;
    const struct snapshot_slot *maps;       /* struct shardmap */
    const struct snapshot_slot *topologies; /* struct topology */
    const char *shard;
};

struct consumer *consumer_new(const struct consumer_config *config); /* NULL: no memory */
/* Stops where it stands; what was not confirmed comes again. */
void consumer_free(struct consumer *consumer);
/* The topology changed. */
void consumer_sync(struct consumer *consumer);
const char *consumer_shard(const struct consumer *consumer);
const char *consumer_state_name(enum consumer_state state);

struct consumer_status {
    const char *shard;
    enum consumer_state state;
    const char *detail; /* why not RUNNING, or the last problem; "" */
    const char *node;   /* the primary; "" */
    const char *slot;   /* "" */
    int64_t generation, epoch;
    uint64_t received, applied, confirmed, server_lsn; /* LSNs; 0 unknown */
    int64_t lag_bytes, lag_ms;                         /* -1 unknown */
    int64_t wal_kept_bytes;                            /* -1 unknown */
    bool wal_alarm;
    bool counted_standby; /* a commit may wait for this consumer as if it were a standby */
    enum repair_reason last_repair;
    int64_t last_repair_us; /* wall clock; 0 none */
    int64_t repairs;
    bool seeding; /* also while RUNNING, beside it */
    struct seed_progress seed;
    int64_t drift;         /* keys, in the last whole pass of the slow reconcile */
    int64_t reconciled_us; /* wall clock, end of it; 0 never */
};

void consumer_get_status(const struct consumer *consumer, struct consumer_status *ret_status);
/* The same as one JSON object: what the admin listeners and `seatgrid nodes` show. */
void consumer_write_status(const struct consumer *consumer, struct dynbuf *out);

/* Seeds a new generation, beside the current one if there is one that is fed; also the way past
 * what has BLOCKED a stream. SG_OK: begun, see status. SG_RELOAD_BUSY: one is under way.
 * SG_SHARD_UNAVAILABLE: not the consumer that has the shard (WAITING, no primary ...).
 */
enum sg_error consumer_reseed(struct consumer *consumer);

/* --- a switchover's question ------------------------------------------------------------------ */

#define CONSUMER_DRAINS_MAX 4 /* waiting at once; more are SG_OVERLOADED */

/* Valid during the callback. */
struct consumer_drained {
    int64_t generation;
    const char *slot; /* of the generation: to be made on the new primary */
    uint64_t lsn;     /* up to where Redis has everything, at or past what was asked for */
    int32_t timeline; /* of the server that is followed */
    uint64_t system_identifier;
};

/* SG_OK; SG_DEADLINE; SG_INVALID_VALUE: the server's WAL does not reach to the LSN;
 * SG_SHARD_UNAVAILABLE: the stream was lost meanwhile. Not SG_OK: no `drained`, and why. */
typedef void consumer_drain_fn(void *arg, enum sg_error error,
                               const struct consumer_drained *drained, const char *reason);
/* Waits until Redis has acknowledged everything up to `lsn` and the shard's hash says so, which
 * outlives the consumer. Writes a mark into the WAL, so that the stream gets there at once. SG_OK:
 * fn is called once, later. Refused: SG_SHARD_UNAVAILABLE (not the consumer that has the shard, or
 * not RUNNING), SG_RELOAD_BUSY (a new generation is being built), SG_OVERLOADED. */
enum sg_error consumer_drain(struct consumer *consumer, uint64_t lsn, int64_t timeout_ms,
                             consumer_drain_fn *fn, void *arg);

/* One whole pass, slice by slice. Same errors. `fn` is called after each slice, and with `last` at
 * the end; a `reason` ends it, too. */
typedef void consumer_reconcile_fn(void *arg, const struct reconcile_report *report, bool last,
                                   const char *reason);
enum sg_error consumer_reconcile(struct consumer *consumer, bool heal, consumer_reconcile_fn *fn,
                                 void *arg);

#endif
