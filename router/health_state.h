/*
 * What probes mean: pure, no I/O and no clock. The heart of health.{h,c}.
 *
 *   answer of one probe ── health_step ──> state of the node ─┐
 *   all states, shard by shard ───────── health_identify ─────┼─ health_topology ─> struct topology
 *   histories of the primaries' LSNs ─── health_sample ───────┘
 *
 * Rules:
 *   - up and down are N of M: so many good answers in a row, so many failures in a row. Only the
 *     first answer of a node that was never judged counts at once, so that a start does not wait.
 *   - a role, timeline, epoch or fence is believed at once: it is the node's own word.
 *   - a node whose identity is wrong is never routed to, however healthy: it says it is of another
 *     shard, or it is another PostgreSQL than its shard's, or the same as another shard's.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_ROUTER_HEALTH_STATE_H
#define SG_ROUTER_HEALTH_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "router/staleness.h"
#include "router/topology.h"

struct health_limits {
    int64_t down_after; /* failures in a row */
    int64_t up_after;   /* good answers in a row */
};

#define HEALTH_ERROR_MAX 128

/* One probe: what the node said, or why it said nothing. */
struct health_answer {
    bool ok;
    char error[HEALTH_ERROR_MAX]; /* not ok: why */
    bool first;                   /* ok: the first on its connection */
    enum node_role role;
    int32_t timeline;
    uint64_t lsn;
    uint64_t system_identifier; /* 0: not asked this time, same as before */
    bool migrated;              /* there is a shard_meta; shard, epoch and fenced are from it */
    char shard[SHARDMAP_NAME_MAX + 1];
    int64_t epoch;
    bool fenced;
    int64_t event_count;
    int64_t asked_us; /* when the question was sent */
};

/* One node. health_state_init, then health_step for each answer. */
struct health_state {
    struct topology_node node; /* as it would be published; up does not know of `misplaced` yet */
    bool judged;               /* was ever found up or down */
    int64_t good;              /* in a row */
    int64_t bad;               /* in a row */
    int64_t asked_us;          /* of the last good answer; 0: none yet */
    bool migrated;
    char claimed_shard[SHARDMAP_NAME_MAX + 1]; /* what its shard_meta says; "" unknown */
    char misplaced[HEALTH_ERROR_MAX];          /* why it must not be routed to; "" */
};

void health_state_init(struct health_state *state, const char *shard, const char *node);
/* The state after `answer`. */
struct health_state health_step(const struct health_state *before,
                                const struct health_answer *answer,
                                const struct health_limits *limits);
/* True if both states would be routed differently: up, role, timeline, epoch, fence, identity. */
bool health_changed(const struct health_state *before, const struct health_state *after);

/* Fills `misplaced` of every state. `states` are grouped by shard, in map order: where two shards
 * turn out to be the same PostgreSQL the earlier one keeps it. */
void health_identify(struct health_state *states, size_t count);

/* What is remembered of a shard as a whole. Zero-initialise. */
struct health_shard {
    char name[SHARDMAP_NAME_MAX + 1];
    uint64_t system_identifier; /* of the primary that the history is about */
    struct staleness_history history;
};

/* Notes the LSN that the shard's primary gave. `states` are the shard's own. */
void health_sample(struct health_shard *shard, const struct health_state *states, size_t count);

/* Fills *ret_node from the state: up only if rightly placed, staleness by the shard's history. */
void health_publishable(const struct health_state *state, const struct staleness_history *history,
                        int64_t now_us, struct topology_node *ret_node);

#endif
