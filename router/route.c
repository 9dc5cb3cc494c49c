/*
 * The choice of a node for a read. See route.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "router/route.h"

#include <string.h>

#include "router/token.h"

struct freshness freshness_of(const struct read_wish *wish, const char *shard, int64_t default_us)
{
    struct freshness fresh = {.max_staleness_us = default_us};
    const struct read_token *token =
        wish ? tokens_find(wish->tokens, wish->token_count, shard) : NULL;
    if (token)
        fresh.token = *token;
    if (wish && wish->max_staleness_us >= 0) {
        fresh.own_bound = true;
        fresh.max_staleness_us = wish->max_staleness_us;
    }
    return fresh;
}

bool freshness_is_asked(const struct freshness *fresh)
{
    return fresh->own_bound || fresh->token.lsn != 0;
}

bool route_covers(int32_t timeline, uint64_t lsn, const struct read_token *token)
{
    return timeline >= token->timeline && lsn >= token->lsn;
}

static bool is_replica_of(const struct topology_node *node, const char *shard)
{
    return strcmp(node->shard, shard) == 0 && node->up && node->role == NODE_REPLICA;
}

/* Bit i of `tried` is the shard's i-th node; nodes are grouped by shard. */
uint64_t route_bit(const struct topology *topology, const struct topology_node *node)
{
    size_t first = 0;
    while (strcmp(topology->nodes[first].shard, node->shard) != 0)
        first++;
    size_t i = (size_t)(node - topology->nodes) - first;
    return i < 64 ? 1ULL << i : 0;
}

static bool has_what_is_asked(const struct topology_node *node, uint64_t lsn,
                              const struct route_wish *wish)
{
    const struct read_token *token = &wish->fresh->token;
    return token->lsn == 0 || route_covers(node->timeline, lsn, token);
}

/* Up, a replica, not tried, and not without what the token asks for, as far as is known. */
static bool is_candidate(const struct topology *topology, const struct route_wish *wish,
                         const struct topology_node *node)
{
    if (!is_replica_of(node, wish->shard) || route_bit(topology, node) & wish->tried)
        return false;
    uint64_t lsn = wish->known_only ? node->lsn : UINT64_MAX;
    return has_what_is_asked(node, lsn, wish);
}

static bool is_fresh(const struct topology_node *node, const struct route_wish *wish)
{
    int64_t staleness_us = topology_staleness_us(node, wish->now_us);
    return staleness_us != STALENESS_UNKNOWN && staleness_us <= wish->fresh->max_staleness_us &&
           (node->in_rotation || wish->fresh->own_bound);
}

/* Better ones first: in rotation, then known to have the token. Only those of the best rank are
 * chosen among. */
static unsigned rank_of(const struct topology_node *node, const struct route_wish *wish)
{
    unsigned rank = node->in_rotation && node->weight > 0 ? 2 : 0;
    if (has_what_is_asked(node, node->lsn, wish))
        rank += 1;
    return rank;
}

/* Fixed point, never 0 for a node that may be chosen. */
static uint64_t share_of(const struct topology_node *node, const struct route_wish *wish)
{
    uint32_t load = wish->load ? wish->load(wish->load_arg, node) : 0;
    if (load == ROUTE_FULL)
        return 0;
    if (load > ROUTE_LOAD_MAX)
        load = ROUTE_LOAD_MAX;
    uint64_t weight = node->weight > 0 ? (uint64_t)node->weight : 1;
    return (weight << 32) / ((uint64_t)load + 1);
}

/* Multiples of the golden ratio, as a fraction of 2^32: any few of them in a row are spread evenly
 * over the whole. */
static uint32_t spread(uint32_t turn)
{
    return turn * 2654435769U;
}

const struct topology_node *route_replica(const struct topology *topology,
                                          const struct route_wish *wish)
{
    unsigned best_rank = 0;
    uint64_t total = 0;
    for (size_t i = 0; i < topology->node_count; i++) {
        const struct topology_node *node = &topology->nodes[i];
        if (!is_candidate(topology, wish, node) || !is_fresh(node, wish))
            continue;
        uint64_t share = share_of(node, wish);
        unsigned rank = rank_of(node, wish);
        if (share == 0 || (total > 0 && rank < best_rank))
            continue;
        total = total > 0 && rank == best_rank ? total + share : share;
        best_rank = rank;
    }
    if (total == 0)
        return NULL;
    uint64_t point = (uint64_t)((unsigned __int128)total * spread(wish->turn) >> 32);
    for (size_t i = 0; i < topology->node_count; i++) {
        const struct topology_node *node = &topology->nodes[i];
        if (!is_candidate(topology, wish, node) || !is_fresh(node, wish) ||
            rank_of(node, wish) != best_rank)
            continue;
        uint64_t share = share_of(node, wish);
        if (point < share)
            return node;
        point -= share;
    }
    return NULL;
}

/* Of two replicas the one to ask for want of a fresh one. */
static bool is_fresher(const struct topology_node *node, const struct topology_node *than,
                       int64_t now_us)
{
    int64_t a_us = topology_staleness_us(node, now_us);
    int64_t b_us = topology_staleness_us(than, now_us);
    if ((a_us == STALENESS_UNKNOWN) != (b_us == STALENESS_UNKNOWN))
        return b_us == STALENESS_UNKNOWN;
    if (a_us != b_us)
        return a_us < b_us;
    return node->lsn > than->lsn;
}

const struct topology_node *route_freshest(const struct topology *topology,
                                           const struct route_wish *wish)
{
    const int32_t timeline = topology_timeline(topology, wish->shard);
    const struct topology_node *best = NULL;
    for (size_t i = 0; i < topology->node_count; i++) {
        const struct topology_node *node = &topology->nodes[i];
        if (!is_candidate(topology, wish, node) || share_of(node, wish) == 0)
            continue;
        if (topology_staleness_us(node, wish->now_us) == STALENESS_UNKNOWN &&
            node->timeline != timeline)
            continue;
        if (!best || is_fresher(node, best, wish->now_us))
            best = node;
    }
    return best;
}

int64_t route_primary_staleness_us(const struct topology *topology,
                                   const struct topology_node *primary, int64_t now_us)
{
    int64_t oldest_us = now_us;
    if (!primary->fenced)
        return 0;
    for (size_t i = 0; i < topology->node_count; i++) {
        const struct topology_node *node = &topology->nodes[i];
        if (strcmp(node->shard, primary->shard) == 0 && node->up && node->sampled_us < oldest_us)
            oldest_us = node->sampled_us;
    }
    return now_us - oldest_us;
}

bool route_has_replicas(const struct topology *topology, const char *shard)
{
    size_t count = 0;
    for (size_t i = 0; i < topology->node_count; i++)
        count += strcmp(topology->nodes[i].shard, shard) == 0;
    return count > 1;
}

bool route_is_readable(const struct topology *topology, const char *shard)
{
    static const struct freshness any = {.max_staleness_us = INT64_MAX};
    return topology_primary(topology, shard) ||
           route_freshest(topology, &(struct route_wish){.shard = shard, .fresh = &any});
}
