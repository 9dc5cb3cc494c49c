/*
 * Seed: builds a new generation of a shard's keys from one snapshot.
 *
 *   session A (replication): CREATE_REPLICATION_SLOT slot LOGICAL pgoutput (SNAPSHOT 'export')
 *        └─> consistent LSN, snapshot ── SET TRANSACTION SNAPSHOT ──> session B
 *   session B: COPY counters of every event, then every ticket ─> commands ─> sink
 *
 * States: CONNECTING ─> SLOT ─> COUNTING ─> EVENTS ─> TICKETS ─> DONE, or FAILED from any of them.
 * The keys of the new generation are read by nobody until the switch, so plain writes do; they get
 * the consistent LSN as their position, and the feed goes on from there. What it leaves behind
 * when it fails (slot, keys) is for the consumer to remove (consumer.h).
 * The slot waits for every transaction that runs when it is made, at most cdc.seed_timeout_ms;
 * while it does, B asks for whom, for the log and the reason. Owns both sessions. Not more than
 * cdc.batches_in_flight batches are under way; then B is not read.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_REPLICATION_SEED_H
#define SG_REPLICATION_SEED_H

#include <stdbool.h>
#include <stdint.h>

struct event_base;
struct reap_list;
struct seed;
struct settings;
struct sink;

struct seed_progress {
    int64_t events, events_total;
    int64_t tickets, tickets_total; /* totals: counted in the snapshot; 0 until known */
    int64_t started_us;             /* monotonic */
};

struct seed_config {
    struct event_base *base;
    struct reap_list *reap;
    const struct settings *settings;
    const char *shard;
    const char *dsn; /* of the primary */
    const char *slot;
    int64_t generation;
    int64_t epoch;
    struct sink *sink;
    /* Once: reason NULL, all keys are written and acknowledged, consistent_lsn is their position;
     * or the reason why not. From the loop, never from inside a call. */
    void (*on_done)(void *arg, uint64_t consistent_lsn, const char *reason);
    void *arg;
};

struct seed *seed_new(const struct seed_config *config); /* NULL when memory runs out */
void seed_free(struct seed *seed);
struct seed_progress seed_get_progress(const struct seed *seed);

#endif
