/*
 * Compares two maps. See diff.h.
 *
 *   moves    every id where an owner may change, in either map, sorted; between two such ids both
 *            owners are constant, so asking shardmap_find once for each is enough
 *   changes  nodes of both maps sorted by name and looked up in the other
 *
 * SPDX-License-Identifier: MIT
 */
#include "shardmap/diff.h"

#include <stdlib.h>
#include <string.h>

#include "shardmap/shardmap.h"

/* A node and where it hangs; the names live in the diff. */
struct placed_node {
    const char *name;
    const char *shard;
    const char *dsn; /* borrowed from the map */
};

/* One of the two maps with its names copied. */
struct side {
    const struct shardmap *map;
    const char **shards;       /* by index */
    struct placed_node *nodes; /* in map order */
    const struct placed_node **by_name;
    size_t node_count;
};

struct work {
    struct side old;
    struct side new;
    int64_t *bounds; /* first ids of stretches with one owner, ascending */
    size_t bound_count;
    struct shardmap_diff *diff;
};

/* --- names ------------------------------------------------------------------------------------ */

static size_t names_size(const struct shardmap *map)
{
    size_t size = 0;
    for (int i = 0; i < (int)shardmap_shard_count(map); i++) {
        const struct shardmap_shard *shard = shardmap_shard(map, i);
        size += strlen(shard->name) + 1;
        for (size_t j = 0; j < shard->node_count; j++)
            size += strlen(shard->nodes[j].name) + 1;
    }
    return size;
}

static const char *copy_name(char **at, const char *name)
{
    size_t size = strlen(name) + 1;
    char *copy = memcpy(*at, name, size);
    *at += size;
    return copy;
}

static int compare_nodes(const void *a, const void *b)
{
    const struct placed_node *const *left = a;
    const struct placed_node *const *right = b;
    return strcmp((*left)->name, (*right)->name);
}

static void fill_side(struct side *side, char **names)
{
    for (int i = 0; i < (int)shardmap_shard_count(side->map); i++) {
        const struct shardmap_shard *shard = shardmap_shard(side->map, i);
        side->shards[i] = copy_name(names, shard->name);
        for (size_t j = 0; j < shard->node_count; j++) {
            struct placed_node *node = &side->nodes[side->node_count];
            node->name = copy_name(names, shard->nodes[j].name);
            node->shard = side->shards[i];
            node->dsn = shard->nodes[j].dsn;
            side->by_name[side->node_count++] = node;
        }
    }
    qsort(side->by_name, side->node_count, sizeof(*side->by_name), compare_nodes);
}

static enum sg_error make_side(struct side *side, const struct shardmap *map)
{
    size_t shards = shardmap_shard_count(map);
    size_t nodes = 0;
    for (size_t i = 0; i < shards; i++)
        nodes += shardmap_shard(map, (int)i)->node_count;
    side->map = map;
    side->shards = calloc(shards + 1, sizeof(*side->shards));
    side->nodes = calloc(nodes + 1, sizeof(*side->nodes));
    side->by_name = calloc(nodes + 1, sizeof(*side->by_name));
    return side->shards && side->nodes && side->by_name ? SG_OK : SG_NO_MEMORY;
}

static void side_done(struct side *side)
{
    free(side->shards);
    free(side->nodes);
    free(side->by_name);
}

/* --- moves ------------------------------------------------------------------------------------ */

static int compare_ids(const void *a, const void *b)
{
    int64_t left = *(const int64_t *)a;
    int64_t right = *(const int64_t *)b;
    return (left > right) - (left < right);
}

/* Behind the largest id there is none where anything could begin. */
static void add_bounds(struct work *work, int64_t first, int64_t last)
{
    work->bounds[work->bound_count++] = first;
    if (last < INT64_MAX)
        work->bounds[work->bound_count++] = last + 1;
}

static void collect_bounds(struct work *work, const struct shardmap *map)
{
    size_t count;
    const struct shardmap_range *ranges = shardmap_ranges(map, &count);
    for (size_t i = 0; i < count; i++)
        add_bounds(work, ranges[i].first, ranges[i].last);
    const struct shardmap_pin *pins = shardmap_pins(map, &count);
    for (size_t i = 0; i < count; i++)
        add_bounds(work, pins[i].event_id, pins[i].event_id);
}

static size_t bounds_max(const struct shardmap *map)
{
    size_t ranges;
    size_t pins;
    shardmap_ranges(map, &ranges);
    shardmap_pins(map, &pins);
    return 2 * (ranges + pins);
}

static const char *owner(const struct side *side, int64_t event_id)
{
    int shard = shardmap_find(side->map, event_id);
    return shard < 0 ? NULL : side->shards[shard];
}

static bool same_name(const char *a, const char *b)
{
    return a == b || (a && b && strcmp(a, b) == 0);
}

static void add_move(struct shardmap_diff *diff, const struct shardmap_move *move)
{
    if (diff->move_count > 0) {
        struct shardmap_move *before = &diff->moves[diff->move_count - 1];
        if (before->last + 1 == move->first && same_name(before->from, move->from) &&
            same_name(before->to, move->to)) {
            before->last = move->last;
            return;
        }
    }
    diff->moves[diff->move_count++] = *move;
}

static enum sg_error find_moves(struct work *work)
{
    size_t max = bounds_max(work->old.map) + bounds_max(work->new.map);
    work->bounds = calloc(max + 1, sizeof(*work->bounds));
    work->diff->moves = calloc(max + 1, sizeof(*work->diff->moves));
    if (!work->bounds || !work->diff->moves)
        return SG_NO_MEMORY;
    collect_bounds(work, work->old.map);
    collect_bounds(work, work->new.map);
    qsort(work->bounds, work->bound_count, sizeof(*work->bounds), compare_ids);
    for (size_t i = 0; i < work->bound_count; i++) {
        int64_t first = work->bounds[i];
        bool is_last = i + 1 == work->bound_count;
        if (!is_last && work->bounds[i + 1] == first)
            continue;
        struct shardmap_move move = {.first = first,
                                     .last = is_last ? INT64_MAX : work->bounds[i + 1] - 1,
                                     .from = owner(&work->old, first),
                                     .to = owner(&work->new, first)};
        if (!same_name(move.from, move.to))
            add_move(work->diff, &move);
    }
    return SG_OK;
}

/* --- changes ---------------------------------------------------------------------------------- */

static const struct placed_node *find_node(const struct side *side, const char *name)
{
    const struct placed_node key = {.name = name};
    const struct placed_node *key_at = &key;
    const struct placed_node **found =
        bsearch(&key_at, side->by_name, side->node_count, sizeof(*side->by_name), compare_nodes);
    return found ? *found : NULL;
}

static void add_change(struct shardmap_diff *diff, enum shardmap_change_kind kind,
                       const char *shard, const char *node, const char *old_shard)
{
    diff->changes[diff->change_count++] = (struct shardmap_change){
        .kind = kind, .shard = shard, .node = node, .old_shard = old_shard};
}

static void find_gone(const struct work *work)
{
    const struct side *old = &work->old;
    for (size_t i = 0; i < shardmap_shard_count(old->map); i++) {
        if (shardmap_shard_by_name(work->new.map, old->shards[i]) < 0)
            add_change(work->diff, SHARDMAP_SHARD_REMOVED, old->shards[i], NULL, NULL);
    }
    for (size_t i = 0; i < old->node_count; i++) {
        const struct placed_node *node = &old->nodes[i];
        if (!find_node(&work->new, node->name))
            add_change(work->diff, SHARDMAP_NODE_REMOVED, node->shard, node->name, NULL);
    }
}

static void find_new(const struct work *work)
{
    const struct side *new = &work->new;
    for (size_t i = 0; i < shardmap_shard_count(new->map); i++) {
        if (shardmap_shard_by_name(work->old.map, new->shards[i]) < 0)
            add_change(work->diff, SHARDMAP_SHARD_ADDED, new->shards[i], NULL, NULL);
    }
    for (size_t i = 0; i < new->node_count; i++) {
        const struct placed_node *node = &new->nodes[i];
        const struct placed_node *before = find_node(&work->old, node->name);
        if (!before) {
            add_change(work->diff, SHARDMAP_NODE_ADDED, node->shard, node->name, NULL);
            continue;
        }
        if (strcmp(before->shard, node->shard) != 0)
            add_change(work->diff, SHARDMAP_NODE_MOVED, node->shard, node->name, before->shard);
        if (strcmp(before->dsn, node->dsn) != 0)
            add_change(work->diff, SHARDMAP_NODE_DSN, node->shard, node->name, NULL);
    }
}

static void find_durabilities(const struct work *work)
{
    const struct side *old = &work->old;
    for (size_t i = 0; i < shardmap_shard_count(old->map); i++) {
        int index = shardmap_shard_by_name(work->new.map, old->shards[i]);
        if (index < 0)
            continue;
        enum shardmap_durability durability = shardmap_shard(work->new.map, index)->durability;
        if (durability == shardmap_shard(old->map, (int)i)->durability)
            continue;
        add_change(work->diff, SHARDMAP_DURABILITY, old->shards[i], NULL, NULL);
        work->diff->changes[work->diff->change_count - 1].durability =
            shardmap_durability_name(durability);
    }
}

/* A shard is added, removed or altered at most once; a node likewise, or moved and readdressed. */
static enum sg_error find_changes(const struct work *work)
{
    size_t max = shardmap_shard_count(work->old.map) + shardmap_shard_count(work->new.map) +
                 work->old.node_count + 2 * work->new.node_count;
    work->diff->changes = calloc(max + 1, sizeof(*work->diff->changes));
    if (!work->diff->changes)
        return SG_NO_MEMORY;
    find_gone(work);
    find_new(work);
    find_durabilities(work);
    return SG_OK;
}

/* --- the whole -------------------------------------------------------------------------------- */

static enum sg_error compare(struct work *work, const struct shardmap *old_map,
                             const struct shardmap *new_map)
{
    if (make_side(&work->old, old_map) != SG_OK || make_side(&work->new, new_map) != SG_OK)
        return SG_NO_MEMORY;
    work->diff->names = malloc(names_size(old_map) + names_size(new_map) + 1);
    if (!work->diff->names)
        return SG_NO_MEMORY;
    char *names = work->diff->names;
    fill_side(&work->old, &names);
    fill_side(&work->new, &names);
    work->diff->old_version = shardmap_version(old_map);
    work->diff->new_version = shardmap_version(new_map);
    if (find_moves(work) != SG_OK)
        return SG_NO_MEMORY;
    return find_changes(work);
}

enum sg_error shardmap_diff_new(const struct shardmap *old_map, const struct shardmap *new_map,
                                struct shardmap_diff **ret_diff)
{
    struct work work = {.diff = calloc(1, sizeof(*work.diff))};
    if (!work.diff)
        return SG_NO_MEMORY;
    enum sg_error error = compare(&work, old_map, new_map);
    side_done(&work.old);
    side_done(&work.new);
    free(work.bounds);
    if (error == SG_OK)
        *ret_diff = work.diff;
    else
        shardmap_diff_free(work.diff);
    return error;
}

void shardmap_diff_free(void *arg)
{
    struct shardmap_diff *diff = arg;
    if (!diff)
        return;
    free(diff->moves);
    free(diff->changes);
    free(diff->names);
    free(diff);
}

bool shardmap_diff_empty(const struct shardmap_diff *diff)
{
    return diff->move_count == 0 && diff->change_count == 0;
}

enum sg_error shardmap_lost(const struct shardmap_diff *diff, const char *shard,
                            struct shardmap_interval **ret_intervals, size_t *ret_count)
{
    size_t count = 0;
    struct shardmap_interval *intervals = NULL;
    for (size_t i = 0; i < diff->move_count; i++) {
        const struct shardmap_move *move = &diff->moves[i];
        if (!same_name(move->from, shard))
            continue;
        if (count > 0 && intervals[count - 1].last + 1 == move->first) {
            intervals[count - 1].last = move->last;
            continue;
        }
        if (!intervals)
            intervals = calloc(diff->move_count - i, sizeof(*intervals));
        if (!intervals)
            return SG_NO_MEMORY;
        intervals[count++] = (struct shardmap_interval){move->first, move->last};
    }
    *ret_intervals = intervals;
    *ret_count = count;
    return SG_OK;
}
