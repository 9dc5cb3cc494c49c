/*
 * The choice of a node for a request: pure functions over an immutable topology. See topology.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "router/topology.h"

#include <string.h>

#include "router/router.h"

const char *node_role_name(enum node_role role)
{
    static const char *const names[] = {"unknown", "primary", "replica"};
    return names[role];
}

const struct topology_node *topology_find(const struct topology *topology, const char *node)
{
    for (size_t i = 0; i < topology->node_count; i++) {
        if (strcmp(topology->nodes[i].name, node) == 0)
            return &topology->nodes[i];
    }
    return NULL;
}

static bool of_shard(const struct topology_node *node, const char *shard)
{
    return strcmp(node->shard, shard) == 0;
}

/* The highest timeline that any node of the shard was ever seen on, dead ones too: a primary below
 * it was replaced while nobody told it. */
static int32_t highest_timeline(const struct topology *topology, const char *shard)
{
    int32_t highest = 0;
    for (size_t i = 0; i < topology->node_count; i++) {
        const struct topology_node *node = &topology->nodes[i];
        if (of_shard(node, shard) && node->timeline > highest)
            highest = node->timeline;
    }
    return highest;
}

/* The one primary, fenced or not. Two on the highest timeline are told apart by their epoch; if
 * that is equal too, nobody can know which one is right, so neither is. */
const struct topology_node *topology_primary(const struct topology *topology, const char *shard)
{
    const int32_t timeline = highest_timeline(topology, shard);
    const struct topology_node *primary = NULL;
    bool ambiguous = false;
    for (size_t i = 0; i < topology->node_count; i++) {
        const struct topology_node *node = &topology->nodes[i];
        if (!of_shard(node, shard) || !node->up || node->role != NODE_PRIMARY ||
            node->timeline != timeline)
            continue;
        if (!primary || node->epoch > primary->epoch) {
            primary = node;
            ambiguous = false;
        } else if (node->epoch == primary->epoch) {
            ambiguous = true;
        }
    }
    return ambiguous ? NULL : primary;
}

const struct topology_node *route_write(const struct topology *topology, const char *shard)
{
    const struct topology_node *primary = topology_primary(topology, shard);
    return primary && !primary->fenced ? primary : NULL;
}

int64_t topology_staleness_us(const struct topology_node *node, int64_t now_us)
{
    if (node->role == NODE_PRIMARY)
        return 0;
    if (node->role != NODE_REPLICA || node->staleness_us < 0)
        return STALENESS_UNKNOWN;
    int64_t since_us = now_us - node->sampled_us;
    return node->staleness_us + (since_us > 0 ? since_us : 0);
}

static bool fresh_replica(const struct topology *topology, const struct topology_node *node,
                          const char *shard, int64_t max_staleness_us,
                          const struct read_token *token, int64_t now_us)
{
    if (!of_shard(node, shard) || !node->up || node->role != NODE_REPLICA)
        return false;
    if (token && (node->timeline != token->timeline || node->lsn < token->lsn))
        return false;
    int64_t staleness_us = topology_staleness_us(node, now_us);
    if (staleness_us == STALENESS_UNKNOWN)
        return max_staleness_us == STALENESS_ANY &&
               node->timeline == highest_timeline(topology, shard);
    return staleness_us <= max_staleness_us;
}

const struct topology_node *route_read(const struct topology *topology, const char *shard,
                                       int64_t max_staleness_us, const struct read_token *token,
                                       int64_t now_us, unsigned turn)
{
    size_t fresh = 0;
    for (size_t i = 0; i < topology->node_count; i++)
        fresh +=
            fresh_replica(topology, &topology->nodes[i], shard, max_staleness_us, token, now_us);
    if (fresh == 0)
        return topology_primary(topology, shard);
    size_t skip = turn % fresh;
    for (size_t i = 0; i < topology->node_count; i++) {
        if (fresh_replica(topology, &topology->nodes[i], shard, max_staleness_us, token, now_us) &&
            skip-- == 0)
            return &topology->nodes[i];
    }
    return NULL;
}
