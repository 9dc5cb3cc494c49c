/*
 * The choice of a node for a request: pure functions over an immutable topology. See topology.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "router/topology.h"

#include <string.h>

const char *node_role_name(enum node_role role)
{
    static const char *const names[] = {"unknown", "primary", "replica"};
    return names[role];
}

const char *node_refusal_name(enum node_refusal refusal)
{
    static const char *const names[] = {"", "older_timeline", "epoch_behind", "ambiguous"};
    return names[refusal];
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

/* A primary below it was replaced while nobody told it. */
int32_t topology_timeline(const struct topology *topology, const char *shard)
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
    const int32_t timeline = topology_timeline(topology, shard);
    const struct topology_node *primary = NULL;
    bool ambiguous = false;
    for (size_t i = 0; i < topology->node_count; i++) {
        const struct topology_node *node = &topology->nodes[i];
        if (!of_shard(node, shard) || !node->up || node->role != NODE_PRIMARY || node->refused ||
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
    return primary && primary->attested && !primary->fenced ? primary : NULL;
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
