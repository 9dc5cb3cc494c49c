/*
 * What is known of the nodes: who is primary, who is up, how stale each replica is.
 *
 *   health (control thread) ── publish ──> struct topology (immutable) ──> route_* (workers)
 *
 * The choice of a node for a request is pure: topology, shard and wish in, node out.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_ROUTER_TOPOLOGY_H
#define SG_ROUTER_TOPOLOGY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shardmap/shardmap.h"

enum node_role { NODE_UNKNOWN, NODE_PRIMARY, NODE_REPLICA };

/* Why a node that calls itself primary is none of ours. */
enum node_refusal {
    NODE_NOT_REFUSED,
    NODE_OLDER_TIMELINE, /* the shard has been on a newer one: it was replaced */
    NODE_EPOCH_BEHIND,   /* a newer epoch was given on its timeline: its WAL is another branch */
    NODE_AMBIGUOUS       /* another primary with the same timeline and epoch */
};

#define STALENESS_UNKNOWN (-1)

struct topology_node {
    char name[SHARDMAP_NAME_MAX + 1];
    char shard[SHARDMAP_NAME_MAX + 1];
    bool up;             /* answers its probes (N of M) */
    enum node_role role; /* as it said itself; NODE_UNKNOWN until the first answer */
    int32_t timeline;
    uint64_t lsn;          /* primary: current write LSN; replica: replayed */
    uint64_t received_lsn; /* replica: WAL that it has on disk; 0 for a primary */
    int64_t epoch;         /* of shard_meta; 0 unknown */
    bool fenced;
    bool attested;              /* primary: its epoch was given on the timeline it is on */
    enum node_refusal refused;  /* primary: why it is never written to */
    bool in_rotation;           /* replica: fresh enough for long enough for the default bound */
    int32_t weight;             /* 0 to 100: share of the reads it may be given, after its return */
    uint64_t system_identifier; /* 0 unknown */
    int64_t staleness_us;       /* at sampled_us; STALENESS_UNKNOWN; 0 for a primary */
    int64_t sampled_us;         /* monotonic, when this was learnt */
    int64_t event_count;        /* rows in events, an estimate; least-loaded choice only */
    char last_error[128];       /* why it is not up; "" when up */
};

struct topology {
    size_t node_count;
    struct topology_node nodes[]; /* grouped by shard, in map order */
};

/* "unknown", "primary", "replica" */
const char *node_role_name(enum node_role role);
/* "", "older_timeline", "epoch_behind", "ambiguous" */
const char *node_refusal_name(enum node_refusal refusal);

/* The node of that name, or NULL. */
const struct topology_node *topology_find(const struct topology *topology, const char *node);

/* The node that takes writes for the shard: its one primary, if that is attested and not fenced.
 * NULL if there is none now. */
const struct topology_node *route_write(const struct topology *topology, const char *shard);

/* The highest timeline that any node of the shard was ever seen on, dead ones too; 0: none. */
int32_t topology_timeline(const struct topology *topology, const char *shard);

/* The shard's one primary, attested or not, fenced or not: whose WAL is the truth. It is up, not
 * refused, and on the highest timeline seen among the shard's nodes. NULL if there is none now. */
const struct topology_node *topology_primary(const struct topology *topology, const char *shard);

/* Staleness now of what the node said at sampled_us; STALENESS_UNKNOWN stays unknown. */
int64_t topology_staleness_us(const struct topology_node *node, int64_t now_us);

#endif
