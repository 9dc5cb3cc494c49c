/*
 * Staleness of replicas from samples of the primary's LSN. See staleness.h.
 *
 * The history is bounded without forgetting its beginning: when it is full, every second point of
 * its older half goes. What was exact becomes coarser with age, in the safe direction.
 *
 * SPDX-License-Identifier: MIT
 */
#include "router/staleness.h"

#include <string.h>

static void thin_older_half(struct staleness_history *history)
{
    const size_t half = STALENESS_SAMPLES_MAX / 2;
    size_t kept = 0;
    for (size_t i = 0; i < half; i += 2)
        history->points[kept++] = history->points[i];
    memmove(history->points + kept, history->points + half,
            (history->count - half) * sizeof(history->points[0]));
    history->count = kept + history->count - half;
}

void staleness_sample(struct staleness_history *history, int32_t timeline, uint64_t lsn,
                      int64_t asked_us)
{
    if (timeline <= 0 || lsn == 0 || timeline < history->timeline)
        return;
    struct staleness_point *newest = history->count ? &history->points[history->count - 1] : NULL;
    if (newest && timeline == history->timeline) {
        if (asked_us < newest->asked_us)
            return; /* a late answer to an early question adds nothing */
        if (lsn == newest->lsn) {
            newest->asked_us = asked_us;
            return;
        }
    }
    /* WAL that went backwards was lost in a crash: what was learnt of it means nothing now. */
    if (timeline > history->timeline || (newest && lsn < newest->lsn))
        history->count = 0;
    if (history->count == STALENESS_SAMPLES_MAX)
        thin_older_half(history);
    history->timeline = timeline;
    history->points[history->count++] = (struct staleness_point){lsn, asked_us};
}

int64_t staleness_of(const struct staleness_history *history, int32_t timeline, uint64_t lsn,
                     int64_t now_us)
{
    if (history->count == 0 || timeline != history->timeline || lsn == 0)
        return STALENESS_UNKNOWN;
    /* The first point beyond `lsn`; the one before it is the newest that is replayed. */
    size_t low = 0;
    size_t high = history->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (history->points[middle].lsn <= lsn)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == 0)
        return STALENESS_UNKNOWN;
    int64_t age_us = now_us - history->points[low - 1].asked_us;
    return age_us > 0 ? age_us : 0;
}
