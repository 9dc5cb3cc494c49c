/*
 * What health tells people of one node: log lines about what changed, each once, and gauges.
 *
 * Owned by health, on its thread; nothing here decides anything.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_ROUTER_HEALTH_REPORT_H
#define SG_ROUTER_HEALTH_REPORT_H

#include <stdint.h>

#include "router/health_state.h"

struct metrics_set;
struct metrics_series;

#define NODE_REFUSALS (NODE_AMBIGUOUS + 1)

/* One node. Its name and its shard's are borrowed. */
struct health_report {
    struct metrics_set *metrics;
    const char *shard;
    const char *node;
    char misplaced[HEALTH_ERROR_MAX];               /* as logged last */
    enum node_refusal refused;                      /* as logged last */
    struct metrics_series *up[NODE_REPLICA + 1];    /* by role, as they come up */
    struct metrics_series *refusals[NODE_REFUSALS]; /* likewise, by reason */
    struct metrics_series *in_rotation;
    struct metrics_series *staleness;
    struct metrics_series *duration;
};

void health_report_init(struct health_report *report, struct metrics_set *metrics,
                        const char *shard, const char *node);
/* How long a probe took. */
void health_report_probe(struct health_report *report, int64_t duration_us);
/* An answer, or its absence, has led from one state to the other. */
void health_report_step(struct health_report *report, const struct health_state *before,
                        const struct health_state *after);
/* Identities were judged. */
void health_report_identity(struct health_report *report, const struct health_state *state);
/* The node as it is published. */
void health_report_published(struct health_report *report, const struct topology_node *node);
/* The node has left the map: it is neither up nor stale nor refused. */
void health_report_gone(struct health_report *report);

#endif
