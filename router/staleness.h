/*
 * How stale is a replica: pure, the caller brings the clock.
 *
 *   primary's LSN at known times ── staleness_sample ──> history ─┐
 *   replica's replayed LSN ─────────────────────────────────────┴─ staleness_of ──> age in µs
 *
 * The staleness of a replica is the age of the newest sampled primary LSN that it has replayed:
 * everything the primary had written at that sample is visible on the replica. So it
 *
 *   - stays small on an idle primary (its newest sample is replayed, however old the last write),
 *   - grows by itself when the WAL receiver is dead or replay is paused,
 *   - needs no clock in common with the servers,
 *   - is an upper bound: it may say more than the truth, never less.
 *
 * A replica on another timeline, or behind the oldest sample, is of unknown staleness; unknown is
 * never zero. LSNs compare only within one timeline: a new timeline starts a new history.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_ROUTER_STALENESS_H
#define SG_ROUTER_STALENESS_H

#include <stddef.h>
#include <stdint.h>

#include "router/topology.h" /* STALENESS_UNKNOWN */

#define STALENESS_SAMPLES_MAX 512

struct staleness_point {
    uint64_t lsn;
    int64_t asked_us; /* when the primary was asked: it had at least this LSN from then on */
};

/* One shard's primary over time. Zero-initialise. */
struct staleness_history {
    int32_t timeline; /* 0: no sample yet */
    size_t count;
    struct staleness_point points[STALENESS_SAMPLES_MAX]; /* lsn and asked_us both rise */
};

/* Notes that the primary, asked at asked_us, was on `timeline` at `lsn`. A higher timeline starts
 * afresh, a lower one is ignored (a primary of the past). */
void staleness_sample(struct staleness_history *history, int32_t timeline, uint64_t lsn,
                      int64_t asked_us);

/* Staleness at now_us of a replica that has replayed `lsn` on `timeline`; STALENESS_UNKNOWN when
 * that cannot be told. */
int64_t staleness_of(const struct staleness_history *history, int32_t timeline, uint64_t lsn,
                     int64_t now_us);

#endif
