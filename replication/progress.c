/*
 * Which LSN may be confirmed. See progress.h.
 *
 * The history is a list of (time, applied), oldest first, both growing. Confirmed is the newest
 * entry that is redis_loss_us old; such entries are forgotten. The list stays short: while its last
 * entry stands closer to the one before it than a 32nd of redis_loss_us, the next one takes its
 * place. So an LSN is never younger than its entry says, the list never overflows, and what may be
 * confirmed is behind by at most that step more. A single entry is never replaced, or under steady
 * acknowledgements it would never grow old.
 *
 * SPDX-License-Identifier: MIT
 */
#include "replication/progress.h"

#include <assert.h>

#define STEPS 32 /* entries in redis_loss_us, about */

void progress_init(struct progress *progress, uint64_t start_lsn, int64_t redis_loss_us)
{
    *progress = (struct progress){.received = start_lsn,
                                  .applied = start_lsn,
                                  .confirmed = start_lsn,
                                  .redis_loss_us = redis_loss_us};
}

void progress_received(struct progress *progress, uint64_t lsn)
{
    if (lsn > progress->received)
        progress->received = lsn;
}

bool progress_sent(struct progress *progress, const struct progress_batch *batch)
{
    if (progress->in_flight == PROGRESS_BATCHES_MAX)
        return false;
    size_t last = (progress->first + progress->in_flight++) % PROGRESS_BATCHES_MAX;
    progress->batches[last] = *batch;
    return true;
}

/* Index of the i-th oldest entry. */
static size_t history_at(const struct progress *progress, size_t i)
{
    return (progress->history_first + i) % PROGRESS_HISTORY;
}

static bool last_may_be_replaced(const struct progress *progress)
{
    size_t count = progress->history_count;
    if (count < 2)
        return false;
    int64_t step_us = progress->history[history_at(progress, count - 1)].at_us -
                      progress->history[history_at(progress, count - 2)].at_us;
    return count == PROGRESS_HISTORY || step_us < progress->redis_loss_us / STEPS;
}

/* Confirms what is old enough. */
static void confirm_old(struct progress *progress, int64_t now_us)
{
    while (progress->history_count) {
        size_t oldest = history_at(progress, 0);
        if (now_us - progress->history[oldest].at_us < progress->redis_loss_us)
            return;
        progress->confirmed = progress->history[oldest].applied;
        progress->history_first = history_at(progress, 1);
        progress->history_count--;
    }
}

static void remember(struct progress *progress, int64_t now_us)
{
    confirm_old(progress, now_us);
    if (!last_may_be_replaced(progress))
        progress->history_count++;
    size_t last = history_at(progress, progress->history_count - 1);
    progress->history[last].at_us = now_us;
    progress->history[last].applied = progress->applied;
}

struct progress_batch progress_acked(struct progress *progress, int64_t now_us)
{
    assert(progress->in_flight > 0);
    struct progress_batch batch = progress->batches[progress->first];
    progress->first = (progress->first + 1) % PROGRESS_BATCHES_MAX;
    progress->in_flight--;
    if (batch.end_lsn > progress->applied) {
        progress->applied = batch.end_lsn;
        progress_received(progress, batch.end_lsn);
        remember(progress, now_us);
    }
    return batch;
}

uint64_t progress_confirm(struct progress *progress, int64_t now_us)
{
    confirm_old(progress, now_us);
    return progress->confirmed;
}
