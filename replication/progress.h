/*
 * Progress: which LSN may be confirmed to the slot. Pure; time is an argument.
 *
 *   received   bytes of WAL that came in, applied or not
 *   applied    end of the last commit of which Redis has acknowledged every part, all earlier too
 *   confirmed  `applied` as it was redis_loss_us ago: Redis may lose its last seconds in a crash,
 *              and the slot must still have them then
 *
 * Only ends of commits are ever applied or confirmed: a keepalive may be ahead of what is still on
 * its way. Batches are acknowledged in the order they were sent.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_REPLICATION_PROGRESS_H
#define SG_REPLICATION_PROGRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PROGRESS_BATCHES_MAX 64 /* the bound of cdc.batches_in_flight */
#define PROGRESS_HISTORY 64

struct progress_batch {
    uint64_t end_lsn;  /* of the last commit it completes; 0: none */
    int64_t commit_us; /* when that was committed, by the server's clock; 0 unknown */
    uint64_t commits;
};

struct progress {
    uint64_t received;
    uint64_t applied;
    uint64_t confirmed;
    int64_t redis_loss_us;
    size_t first; /* ring of batches in flight */
    size_t in_flight;
    struct progress_batch batches[PROGRESS_BATCHES_MAX];
    size_t history_first; /* ring of (time, applied), oldest first, thinned to fit */
    size_t history_count;
    struct {
        int64_t at_us;
        uint64_t applied;
    } history[PROGRESS_HISTORY];
};

void progress_init(struct progress *progress, uint64_t start_lsn, int64_t redis_loss_us);
void progress_received(struct progress *progress, uint64_t lsn);
/* False when PROGRESS_BATCHES_MAX are in flight. */
bool progress_sent(struct progress *progress, const struct progress_batch *batch);
/* The oldest batch in flight was acknowledged; returns it. */
struct progress_batch progress_acked(struct progress *progress, int64_t now_us);
/* What may be confirmed now; never goes down. */
uint64_t progress_confirm(struct progress *progress, int64_t now_us);

#endif
