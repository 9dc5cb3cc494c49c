/*
 * The rules of a shard map, each a function over the draft (DESIGN, section 3).
 *
 *   draft ── names are unique ── servers are distinct ── ranges meet without gap or overlap ──
 *         ── every shard has a range ── no event is pinned twice ──> sorted draft, problems noted
 *
 * No I/O. Every rule sorts and looks at neighbours: O(n log n).
 *
 * SPDX-License-Identifier: MIT
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/dsn.h"
#include "shardmap/draft.h"

/* qsort wants an array even for nothing. */
static void sort(void *array, size_t count, size_t size, int (*compare)(const void *, const void *))
{
    if (count > 1)
        qsort(array, count, size, compare);
}

/* --- shards and nodes ------------------------------------------------------------------------- */

static void check_shard_names(struct draft *draft)
{
    const struct shardmap *map = draft->map;
    for (size_t i = 1; i < map->shard_count; i++) {
        int before = map->by_name[i - 1];
        int shard = map->by_name[i];
        const char *name = map->shards[shard].name;
        if (!*name || strcmp(name, map->shards[before].name) != 0)
            continue;
        draft->owners_complete = false; /* which of them is meant? */
        cfgread_problem(draft->read, draft->shard_at[shard], "name",
                        "shard \"%s\" is already in line %d; rename or remove one", name,
                        cfgread_line(draft->shard_at[before]));
    }
}

static int compare_node_names(const void *a, const void *b)
{
    const struct draft_node *left = a;
    const struct draft_node *right = b;
    int order = strcmp(left->node->name, right->node->name);
    return order ? order : cfgread_line(left->at) - cfgread_line(right->at);
}

/* A node's name is unique over all shards: metrics and logs name a node by it alone. */
static void check_node_names(struct draft *draft)
{
    sort(draft->nodes, draft->node_count, sizeof(*draft->nodes), compare_node_names);
    for (size_t i = 1; i < draft->node_count; i++) {
        const struct draft_node *before = &draft->nodes[i - 1];
        const struct draft_node *node = &draft->nodes[i];
        if (!*node->node->name || strcmp(node->node->name, before->node->name) != 0)
            continue;
        cfgread_problem(draft->read, node->at, "name",
                        "node \"%s\" is already in line %d, shard \"%s\"; rename or remove one",
                        node->node->name, cfgread_line(before->at),
                        draft->map->shards[before->shard].name);
    }
}

struct server {
    struct dsn_target target;
    const struct draft_node *node;
};

static int compare_targets(const struct dsn_target *left, const struct dsn_target *right)
{
    int order = strcmp(left->host, right->host);
    if (!order)
        order = strcmp(left->port, right->port);
    return order ? order : strcmp(left->dbname, right->dbname);
}

static int compare_servers(const void *a, const void *b)
{
    const struct server *left = a;
    const struct server *right = b;
    int order = compare_targets(&left->target, &right->target);
    return order ? order : cfgread_line(left->node->at) - cfgread_line(right->node->at);
}

/* False, and a problem unless it was one already, if the node has no usable connection string. */
static bool read_server(struct draft *draft, const struct draft_node *node,
                        struct dsn_target *ret_target)
{
    char problem[200];
    if (!node->node->dsn)
        return false;
    if (!*node->node->dsn) {
        cfgread_problem(draft->read, node->at, "dsn",
                        "is empty; write \"host=... port=... dbname=... user=...\"");
        return false;
    }
    if (dsn_check(node->node->dsn, ret_target, problem, sizeof(problem)))
        return true;
    cfgread_problem(draft->read, node->at, "dsn", "is no connection string: %s", problem);
    return false;
}

/* Two nodes are two servers. Names for one server that differ as text are found when it is asked
 * for its system identifier. */
static enum sg_error check_servers(struct draft *draft)
{
    size_t count = 0;
    struct server *servers = calloc(draft->node_count + 1, sizeof(*servers));
    if (!servers)
        return SG_NO_MEMORY;
    for (size_t i = 0; i < draft->node_count; i++) {
        servers[count].node = &draft->nodes[i];
        if (read_server(draft, &draft->nodes[i], &servers[count].target))
            count++;
    }
    sort(servers, count, sizeof(*servers), compare_servers);
    for (size_t i = 1; i < count; i++) {
        if (compare_targets(&servers[i - 1].target, &servers[i].target) != 0)
            continue;
        cfgread_problem(draft->read, servers[i].node->at, "dsn",
                        "is the same server as node \"%s\" in line %d; change host, port or dbname",
                        servers[i - 1].node->node->name, cfgread_line(servers[i - 1].node->at));
    }
    free(servers);
    return SG_OK;
}

/* --- ranges ----------------------------------------------------------------------------------- */

static int compare_ids(int64_t left, int64_t right)
{
    return (left > right) - (left < right);
}

static int compare_ranges(const void *a, const void *b)
{
    const struct draft_range *left = a;
    const struct draft_range *right = b;
    int order = compare_ids(left->range.first, right->range.first);
    return order ? order : cfgread_line(left->at) - cfgread_line(right->at);
}

static void overlap_problem(struct draft *draft, const struct draft_range *range,
                            const struct draft_range *before)
{
    int64_t last = range->range.last < before->range.last ? range->range.last : before->range.last;
    cfgread_problem(draft->read, range->at, "first",
                    "%lld..%lld overlaps with %lld..%lld in line %d; %lld..%lld are in both",
                    (long long)range->range.first, (long long)range->range.last,
                    (long long)before->range.first, (long long)before->range.last,
                    cfgread_line(before->at), (long long)range->range.first, (long long)last);
}

static void hole_problem(struct draft *draft, const struct draft_range *range,
                         const struct draft_range *before)
{
    cfgread_problem(draft->read, range->at, "first",
                    "ids %lld..%lld, behind the range in line %d, belong to no shard; close the "
                    "hole",
                    (long long)before->range.last + 1, (long long)range->range.first - 1,
                    cfgread_line(before->at));
}

static void check_ranges(struct draft *draft)
{
    sort(draft->ranges, draft->range_count, sizeof(*draft->ranges), compare_ranges);
    const struct draft_range *farthest = draft->ranges; /* of those before, by their last id */
    for (size_t i = 1; i < draft->range_count; i++) {
        const struct draft_range *range = &draft->ranges[i];
        if (range->range.first <= farthest->range.last)
            overlap_problem(draft, range, farthest);
        else if (range->range.first - 1 > farthest->range.last && draft->ranges_complete)
            hole_problem(draft, range, farthest);
        if (range->range.last > farthest->range.last)
            farthest = range;
    }
}

static enum sg_error check_shards_used(struct draft *draft)
{
    if (!draft->owners_complete)
        return SG_OK;
    bool *used = calloc(draft->map->shard_count + 1, sizeof(*used));
    if (!used)
        return SG_NO_MEMORY;
    for (size_t i = 0; i < draft->range_count; i++)
        used[draft->ranges[i].range.shard] = true;
    for (size_t i = 0; i < draft->map->shard_count; i++) {
        if (!used[i] && draft->map->shards[i].name[0])
            cfgread_problem(draft->read, draft->shard_at[i], "name",
                            "shard \"%s\" has no range; give it one or remove it",
                            draft->map->shards[i].name);
    }
    free(used);
    return SG_OK;
}

/* --- pins ------------------------------------------------------------------------------------- */

static int compare_pins(const void *a, const void *b)
{
    const struct draft_pin *left = a;
    const struct draft_pin *right = b;
    int order = compare_ids(left->pin.event_id, right->pin.event_id);
    return order ? order : cfgread_line(left->at) - cfgread_line(right->at);
}

/* A pin to the shard that owns the event anyway is fine: it says that the event shall stay. */
static void check_pins(struct draft *draft)
{
    sort(draft->pins, draft->pin_count, sizeof(*draft->pins), compare_pins);
    for (size_t i = 1; i < draft->pin_count; i++) {
        if (draft->pins[i].pin.event_id == draft->pins[i - 1].pin.event_id)
            cfgread_problem(draft->read, draft->pins[i].at, "event",
                            "event %lld is already pinned in line %d; remove one",
                            (long long)draft->pins[i].pin.event_id,
                            cfgread_line(draft->pins[i - 1].at));
    }
}

enum sg_error draft_validate(struct draft *draft)
{
    check_shard_names(draft);
    check_node_names(draft);
    if (check_servers(draft) != SG_OK)
        return SG_NO_MEMORY;
    check_ranges(draft);
    if (check_shards_used(draft) != SG_OK)
        return SG_NO_MEMORY;
    check_pins(draft);
    return SG_OK;
}
