/*
 * Counts answers by route, shard, node and outcome, without building a string on the way.
 *
 *   (route, shard, node, outcome) ── hash ──> two metric series: a counter and a histogram
 *
 * One object an app, on its thread. Shards and nodes come from the shard map and routes from the
 * table of endpoints, so the number of combinations is bounded by the configuration.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_API_OUTCOMES_H
#define SG_API_OUTCOMES_H

#include <stdint.h>

#include "base/error.h"

struct metrics_set;
struct outcomes;

/* What became of a request: an enum sg_error, or one of these finer kinds of success. */
enum {
    OUTCOME_REPLAYED = SG_ERROR_COUNT, /* the stored answer of an earlier request */
    OUTCOME_NOT_MODIFIED,
    OUTCOME_ACCEPTED, /* 202: it is on its way */
    OUTCOME_COUNT
};

/* NULL when memory runs out. `metrics` is borrowed. */
struct outcomes *outcomes_new(struct metrics_set *metrics);
void outcomes_free(struct outcomes *outcomes);
/* `route` must be a string that lives for ever: it is told apart by its address. */
void outcomes_count(struct outcomes *outcomes, const char *route, const char *shard,
                    const char *node, int outcome, int64_t duration_us);
/* "ok", "replayed", "not_modified", "accepted" or the code of an error. */
const char *outcome_name(int outcome);

#endif
