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

struct read_token;

enum node_role { NODE_UNKNOWN, NODE_PRIMARY, NODE_REPLICA };

#define STALENESS_UNKNOWN (-1)
#define STALENESS_ANY INT64_MAX /* a reader that takes what there is, even of unknown age */

struct topology_node {
    char name[SHARDMAP_NAME_MAX + 1];
    char shard[SHARDMAP_NAME_MAX + 1];
    bool up;             /* answers its probes (N of M) */
    enum node_role role; /* as it said itself; NODE_UNKNOWN until the first answer */
    int32_t timeline;
    uint64_t lsn;  /* primary: current write LSN; replica: replayed */
    int64_t epoch; /* of shard_meta; 0 unknown */
    bool fenced;
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

/* The node of that name, or NULL. */
const struct topology_node *topology_find(const struct topology *topology, const char *node);

/* The node that takes writes for the shard: up, a primary, not fenced, on the highest timeline seen
 * among the shard's nodes. NULL if there is none now. */
const struct topology_node *route_write(const struct topology *topology, const char *shard);

/* The shard's one primary, fenced or not: whose WAL is the truth. NULL if there is none now. */
const struct topology_node *topology_primary(const struct topology *topology, const char *shard);

/* Staleness now of what the node said at sampled_us; STALENESS_UNKNOWN stays unknown. */
int64_t topology_staleness_us(const struct topology_node *node, int64_t now_us);

/* The node for a read: an up replica whose staleness is known and at most max_staleness_us, chosen
 * by `turn` among equals; else the primary; else NULL. With STALENESS_ANY a replica of unknown age
 * counts too, if it is on the highest timeline seen. With a token (NULL: none) a replica counts
 * only if it has replayed the token's LSN on the token's timeline; an LSN of another timeline says
 * nothing. */
const struct topology_node *route_read(const struct topology *topology, const char *shard,
                                       int64_t max_staleness_us, const struct read_token *token,
                                       int64_t now_us, unsigned turn);

#endif
