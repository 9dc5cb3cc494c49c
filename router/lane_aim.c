/*
 * Where a lane is to go. See lane_aim.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "router/lane_aim.h"

#include <stdio.h>
#include <string.h>

#include "base/hash.h"

static const struct shardmap_shard *find_shard(const struct shardmap *map, const char *name)
{
    int index = map ? shardmap_shard_by_name(map, name) : -1;
    return index < 0 ? NULL : shardmap_shard(map, index);
}

static const struct shardmap_node *find_node(const struct shardmap_shard *shard, const char *name)
{
    for (size_t i = 0; shard && i < shard->node_count; i++) {
        if (strcmp(shard->nodes[i].name, name) == 0)
            return &shard->nodes[i];
    }
    return NULL;
}

struct lane_place lane_place_of(const struct shardmap_node *node,
                                enum shardmap_durability durability)
{
    struct lane_place place = {.dsn_hash = hash_bytes(HASH_START, node->dsn, strlen(node->dsn)),
                               .durability = durability};
    snprintf(place.node, sizeof(place.node), "%s", node->name);
    return place;
}

/* The map has the node elsewhere now, or promises something else. A node or a shard that the map
 * does not have any more is no reason: what was accepted ends on the map it began with. */
static bool remapped(const struct shardmap_shard *shard, const struct lane_place *place)
{
    const struct shardmap_node *node = find_node(shard, place->node);
    if (!node)
        return false;
    struct lane_place wanted = lane_place_of(node, shard->durability);
    return wanted.dsn_hash != place->dsn_hash || wanted.durability != place->durability;
}

/* It says itself that it is a replica, or others have gone on to a newer timeline without it. */
static bool replaced(const struct topology *topology, const char *shard, const char *node_name)
{
    const struct topology_node *node = topology_find(topology, node_name);
    if (!node)
        return false;
    return (node->up && node->role == NODE_REPLICA) ||
           node->timeline < topology_timeline(topology, shard);
}

struct lane_aim lane_aim(const struct topology *topology, const struct shardmap *map,
                         const char *shard_name, const struct lane_place *place)
{
    struct lane_aim aim = {0};
    if (!topology)
        return aim;
    const struct shardmap_shard *shard = find_shard(map, shard_name);
    const struct topology_node *primary = topology_primary(topology, shard_name);
    const struct topology_node *writable = route_write(topology, shard_name);
    bool there = place->node[0] != '\0';
    if (there)
        aim.leave = remapped(shard, place) || replaced(topology, shard_name, place->node) ||
                    (primary && strcmp(primary->name, place->node) != 0);
    if (primary) {
        aim.timeline = primary->timeline;
        if (!there || aim.leave)
            aim.connect_to = find_node(shard, primary->name);
    }
    if (aim.connect_to)
        aim.durability = shard->durability;
    bool at_primary = aim.connect_to || (there && !aim.leave);
    if (writable && writable == primary && at_primary) {
        aim.open = true;
        aim.epoch = writable->epoch;
    }
    return aim;
}
