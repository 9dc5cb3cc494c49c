/*
 * What probes mean: pure, no I/O and no clock. The heart of health.{h,c}.
 *
 *   answer of one probe ── health_step ────> state of the node ────┐
 *   all states, shard by shard ─────────── health_identify ────────┤
 *   a shard's states ───────────────────── health_learn ───────────┼─ health_show ─> topology_node
 *     (its primary's LSNs, the newest timeline and epoch ever)     │
 *   staleness at each answer ───────────── health_rotate ──────────┘
 *
 * Rules:
 *   - up and down are N of M: so many good answers in a row, so many failures in a row. Only the
 *     first answer of a node that was never judged counts at once, so that a start does not wait.
 *   - a role, timeline, epoch or fence is believed at once: it is the node's own word. Whether a
 *     primary is the shard's is another question: attest.h.
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

#include "router/attest.h"
#include "router/rotation.h"
#include "router/staleness.h"
#include "router/topology.h"

struct health_limits {
    int64_t down_after; /* failures in a row */
    int64_t up_after;   /* good answers in a row */
    struct rotation_limits rotation;
};

#define HEALTH_ERROR_MAX 128
#define HEALTH_FENCE_ID_MAX 37
#define EPOCH_ON_ANY (-1) /* a database that knows of no attestation: attested as it stands */

/* One probe: what the node said, or why it said nothing. */
struct health_answer {
    bool ok;
    char error[HEALTH_ERROR_MAX]; /* not ok: why */
    bool first;                   /* ok: the first on its connection */
    enum node_role role;
    int32_t timeline;
    uint64_t lsn;
    uint64_t received_lsn;
    uint64_t system_identifier; /* 0: not asked this time, same as before */
    bool migrated;              /* there is a shard_meta, which the next five are from */
    char shard[SHARDMAP_NAME_MAX + 1];
    int64_t epoch;
    int32_t epoch_timeline;             /* that the epoch was given on, or EPOCH_ON_ANY */
    bool fenced;                        /* and the fence's time is not over */
    char fence_id[HEALTH_FENCE_ID_MAX]; /* of the switchover that has fenced it; "" */
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
    int32_t epoch_timeline; /* as in the answer */
    char fence_id[HEALTH_FENCE_ID_MAX];
    int64_t waiting_since_us; /* fenced and not attested: when first told so; 0: is not */
    struct rotation rotation;
    char claimed_shard[SHARDMAP_NAME_MAX + 1]; /* what its shard_meta says; "" unknown */
    char misplaced[HEALTH_ERROR_MAX];          /* why it must not be routed to; "" */
};

void health_state_init(struct health_state *state, const char *shard, const char *node);
/* The state after `answer`. */
struct health_state health_step(const struct health_state *before,
                                const struct health_answer *answer,
                                const struct health_limits *limits);
/* True if the states would be written to differently: up, role, timeline, epoch, fence, identity */
bool health_changed(const struct health_state *before, const struct health_state *after);

/* Fills `misplaced` of every state. `states` are grouped by shard, in map order: where two shards
 * turn out to be the same PostgreSQL the earlier one keeps it. */
void health_identify(struct health_state *states, size_t count);

/* What is remembered of a shard as a whole. Zero-initialise. */
struct health_shard {
    char name[SHARDMAP_NAME_MAX + 1];
    uint64_t system_identifier; /* of the primary that the history is about */
    struct staleness_history history;
    struct attest_memory memory;
};

/* Notes the LSN that the shard's primary gave, and what its nodes are. `states` are the shard's
 * own, identified. A primary that is refused is not listened to. */
void health_learn(struct health_shard *shard, const struct health_state *states, size_t count);

/* Takes the node in or out of rotation after health_step; `answered`: it said where it is. */
void health_rotate(struct health_state *state, const struct health_shard *shard, bool answered,
                   const struct health_limits *limits, int64_t now_us);

/* Fills ret_nodes[0 .. count - 1] from the shard's states: up only if rightly placed, staleness by
 * the shard's history, refused by its memory. */
void health_show(const struct health_shard *shard, const struct health_state *states, size_t count,
                 const struct health_limits *limits, int64_t now_us,
                 struct topology_node *ret_nodes);

#endif
