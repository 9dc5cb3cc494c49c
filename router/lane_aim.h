/*
 * Where a lane is to go: which primary it connects to, and whether it may send. Pure.
 *
 *   topology, map, where the lane is ── lane_aim ──> leave? connect to whom? open? which epoch?
 *
 * A lane connects to the shard's primary as soon as there is one, so that the connections stand
 * when it becomes writable; it sends only to what route_write names: up, on the highest timeline
 * seen, attested, not fenced. While nobody is, the connections to the last one stay (they come back
 * by themselves if it does), unless it is known to be no primary any more.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_ROUTER_LANE_AIM_H
#define SG_ROUTER_LANE_AIM_H

#include <stdbool.h>
#include <stdint.h>

#include "router/topology.h"
#include "shardmap/shardmap.h"

/* What a lane's connections were made for. */
struct lane_place {
    char node[SHARDMAP_NAME_MAX + 1]; /* "": there are none */
    uint64_t dsn_hash;
    enum shardmap_durability durability;
};

struct lane_aim {
    bool leave;                             /* the place it is at, first */
    const struct shardmap_node *connect_to; /* from the map; NULL: stay, or have none */
    enum shardmap_durability durability;    /* of connect_to */
    bool open;                              /* it may send, there */
    int64_t epoch;                          /* if open */
    int32_t timeline;                       /* of the shard's primary; 0: there is none */
};

/* `topology` and `map` NULL: none yet. */
struct lane_aim lane_aim(const struct topology *topology, const struct shardmap *map,
                         const char *shard, const struct lane_place *place);
struct lane_place lane_place_of(const struct shardmap_node *node,
                                enum shardmap_durability durability);

#endif
