/*
 * Reads a shard map file into a draft, and drives it through the rules to a map.
 *
 *   file ── cfgread ──> tree ── draft_read ──> draft ── draft_validate ──> draft_finish ──> map
 *
 * Here: what the keys are and which type each has. The rules are in validate.c.
 *
 * SPDX-License-Identifier: MIT
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/dynbuf.h"
#include "shardmap/draft.h"

static const char *const map_keys[] = {"map_version", "shards", "ranges", "pins", NULL};
static const char *const shard_keys[] = {"name", "durability", "nodes", NULL};
static const char *const node_keys[] = {"name", "dsn", NULL};
static const char *const range_keys[] = {"first", "last", "shard", NULL};
static const char *const pin_keys[] = {"event", "shard", NULL};

/* An array for `count` elements that is never NULL for want of elements. */
static void *new_array(size_t count, size_t size)
{
    return calloc(count ? count : 1, size);
}

/* The list's length; 0 if there is none or (a problem) it is too long. */
static size_t bounded_length(struct draft *draft, const struct config_setting_t *list, size_t max)
{
    size_t count = list ? cfgread_length(list) : 0;
    if (count <= max)
        return count;
    cfgread_problem(draft->read, list, NULL, "has %zu entries; at most %zu are allowed", count,
                    max);
    return 0;
}

/* --- shards and nodes ------------------------------------------------------------------------- */

static bool name_valid(const char *name)
{
    for (const char *p = name; *p; p++) {
        bool alnum = (*p >= 'a' && *p <= 'z') || (*p >= '0' && *p <= '9');
        if (!alnum && (p == name || !strchr("_.-", *p)))
            return false;
    }
    return *name != '\0';
}

/* Leaves "" in ret_name when there is a problem with it. */
static void read_name(struct draft *draft, const struct config_setting_t *group, char *ret_name)
{
    const char *name;
    if (!cfgread_string(draft->read, group, "name", CFGREAD_REQUIRED, SHARDMAP_NAME_MAX, &name))
        return;
    if (name_valid(name))
        snprintf(ret_name, SHARDMAP_NAME_MAX + 1, "%s", name);
    else if (!*name)
        cfgread_problem(draft->read, group, "name", "is empty; give it a name");
    else
        cfgread_problem(draft->read, group, "name",
                        "\"%s\" is no name; begin with a-z or 0-9, go on with a-z 0-9 _ . -", name);
}

static enum sg_error read_node(struct draft *draft, const struct config_setting_t *at, int shard,
                               struct shardmap_node *node)
{
    const char *dsn;
    cfgread_known_keys(draft->read, at, node_keys);
    read_name(draft, at, node->name);
    if (cfgread_string(draft->read, at, "dsn", CFGREAD_REQUIRED, DSN_MAX_BYTES, &dsn)) {
        node->dsn = strdup(dsn);
        if (!node->dsn)
            return SG_NO_MEMORY;
    }
    draft->nodes[draft->node_count++] = (struct draft_node){node, shard, at};
    return SG_OK;
}

static enum sg_error read_nodes(struct draft *draft, const struct config_setting_t *shard_at,
                                int index)
{
    struct shardmap_shard *shard = &draft->map->shards[index];
    const struct config_setting_t *list =
        cfgread_groups(draft->read, shard_at, "nodes", CFGREAD_REQUIRED);
    size_t count = bounded_length(draft, list, NODES_MAX);
    if (list && cfgread_length(list) == 0)
        cfgread_problem(draft->read, shard_at, "nodes", "is empty; a shard needs a node");
    shard->nodes = new_array(count, sizeof(*shard->nodes));
    struct draft_node *nodes =
        realloc(draft->nodes, (draft->node_count + count + 1) * sizeof(*nodes));
    if (nodes)
        draft->nodes = nodes;
    if (!shard->nodes || !nodes)
        return SG_NO_MEMORY;
    for (size_t i = 0; i < count; i++) {
        shard->node_count++;
        if (read_node(draft, cfgread_element(list, i), index, &shard->nodes[i]) != SG_OK)
            return SG_NO_MEMORY;
    }
    return SG_OK;
}

static const char *const durabilities[] = {
    [SHARDMAP_ASYNC] = "async", [SHARDMAP_SYNC] = "sync", NULL};

const char *shardmap_durability_name(enum shardmap_durability durability)
{
    return durabilities[durability];
}

/* Async without the key. */
static void read_durability(struct draft *draft, const struct config_setting_t *at,
                            struct shardmap_shard *shard)
{
    const char *word;
    if (!cfgread_string(draft->read, at, "durability", CFGREAD_OPTIONAL, SHARDMAP_NAME_MAX, &word))
        return;
    for (int i = 0; durabilities[i]; i++) {
        if (strcmp(word, durabilities[i]) == 0) {
            shard->durability = (enum shardmap_durability)i;
            return;
        }
    }
    if (*word)
        cfgread_problem(draft->read, at, "durability",
                        "\"%s\" is none; write \"sync\" or \"async\"", word);
    else
        cfgread_problem(draft->read, at, "durability", "is empty; write \"sync\" or \"async\"");
}

static enum sg_error read_shards(struct draft *draft)
{
    const struct config_setting_t *root = cfgread_root(draft->read);
    const struct config_setting_t *list =
        cfgread_groups(draft->read, root, "shards", CFGREAD_REQUIRED);
    size_t count = bounded_length(draft, list, SHARDS_MAX);
    if (list && cfgread_length(list) == 0)
        cfgread_problem(draft->read, root, "shards", "is empty; a map needs a shard");
    draft->map->shards = new_array(count, sizeof(*draft->map->shards));
    draft->map->by_name = new_array(count, sizeof(*draft->map->by_name));
    draft->shard_at = new_array(count, sizeof(*draft->shard_at));
    if (!draft->map->shards || !draft->map->by_name || !draft->shard_at)
        return SG_NO_MEMORY;
    for (size_t i = 0; i < count; i++) {
        const struct config_setting_t *at = cfgread_element(list, i);
        draft->shard_at[i] = at;
        draft->map->shard_count++;
        draft->map->by_name[i] = (int)i;
        cfgread_known_keys(draft->read, at, shard_keys);
        read_name(draft, at, draft->map->shards[i].name);
        read_durability(draft, at, &draft->map->shards[i]);
        if (read_nodes(draft, at, (int)i) != SG_OK)
            return SG_NO_MEMORY;
    }
    return SG_OK;
}

/* --- ranges and pins -------------------------------------------------------------------------- */

/* Ties in file order, so that the later one is the duplicate. */
static int compare_shards(const void *a, const void *b, void *arg)
{
    const struct shardmap_shard *shards = arg;
    int left = *(const int *)a;
    int right = *(const int *)b;
    int order = strcmp(shards[left].name, shards[right].name);
    return order ? order : left - right;
}

static const char *suggest_shard(const struct shardmap *map, const char *name)
{
    const char *names[SHARDS_MAX + 1];
    for (size_t i = 0; i < map->shard_count; i++)
        names[i] = map->shards[i].name;
    names[map->shard_count] = NULL;
    return cfgread_suggest(name, names);
}

/* Index of the shard that `shard = "…"` names, or NO_SHARD and a problem. */
static int read_owner(struct draft *draft, const struct config_setting_t *at)
{
    const char *name;
    if (!cfgread_string(draft->read, at, "shard", CFGREAD_REQUIRED, SHARDMAP_NAME_MAX, &name))
        return NO_SHARD;
    if (draft->map->shard_count == 0)
        return NO_SHARD; /* that is the problem, and it was noted */
    int shard = *name ? shardmap_shard_by_name(draft->map, name) : NO_SHARD;
    if (shard != NO_SHARD)
        return shard;
    const char *meant = suggest_shard(draft->map, name);
    if (meant)
        cfgread_problem(draft->read, at, "shard", "no shard \"%s\" here; did you mean \"%s\"?",
                        name, meant);
    else
        cfgread_problem(draft->read, at, "shard", "no shard \"%s\" here; add it to shards", name);
    return NO_SHARD;
}

/* False if one of the bounds is missing or impossible; then the range is not part of the draft. */
static bool read_range(struct draft *draft, const struct config_setting_t *at,
                       struct shardmap_range *range)
{
    struct cfgread *read = draft->read;
    bool first = cfgread_int(read, at, "first", CFGREAD_REQUIRED, 1, INT64_MAX, &range->first);
    bool last = cfgread_int(read, at, "last", CFGREAD_REQUIRED, 1, INT64_MAX, &range->last);
    if (!first || !last)
        return false;
    if (range->first <= range->last)
        return true;
    cfgread_problem(read, at, "last", "%lld is before first, %lld; swap them",
                    (long long)range->last, (long long)range->first);
    return false;
}

static enum sg_error read_ranges(struct draft *draft)
{
    const struct config_setting_t *root = cfgread_root(draft->read);
    const struct config_setting_t *list =
        cfgread_groups(draft->read, root, "ranges", CFGREAD_REQUIRED);
    size_t count = bounded_length(draft, list, RANGES_MAX);
    if (list && cfgread_length(list) == 0)
        cfgread_problem(draft->read, root, "ranges", "is empty; a map needs a range");
    draft->ranges = new_array(count, sizeof(*draft->ranges));
    if (!draft->ranges)
        return SG_NO_MEMORY;
    draft->ranges_complete = count > 0;
    draft->owners_complete = count > 0;
    for (size_t i = 0; i < count; i++) {
        struct draft_range *entry = &draft->ranges[draft->range_count];
        entry->at = cfgread_element(list, i);
        cfgread_known_keys(draft->read, entry->at, range_keys);
        bool good = read_range(draft, entry->at, &entry->range);
        entry->range.shard = read_owner(draft, entry->at);
        if (good)
            draft->range_count++;
        if (!good)
            draft->ranges_complete = false;
        if (!good || entry->range.shard == NO_SHARD)
            draft->owners_complete = false;
    }
    return SG_OK;
}

static enum sg_error read_pins(struct draft *draft)
{
    const struct config_setting_t *list =
        cfgread_groups(draft->read, cfgread_root(draft->read), "pins", CFGREAD_OPTIONAL);
    size_t count = bounded_length(draft, list, PINS_MAX);
    draft->pins = new_array(count, sizeof(*draft->pins));
    if (!draft->pins)
        return SG_NO_MEMORY;
    for (size_t i = 0; i < count; i++) {
        struct draft_pin *entry = &draft->pins[draft->pin_count];
        entry->at = cfgread_element(list, i);
        cfgread_known_keys(draft->read, entry->at, pin_keys);
        bool good = cfgread_int(draft->read, entry->at, "event", CFGREAD_REQUIRED, 1, INT64_MAX,
                                &entry->pin.event_id);
        entry->pin.shard = read_owner(draft, entry->at);
        if (good)
            draft->pin_count++;
    }
    return SG_OK;
}

enum sg_error draft_read(struct draft *draft)
{
    struct shardmap *map = draft->map;
    const struct config_setting_t *root = cfgread_root(draft->read);
    if (cfgread_length(root) == 0) {
        cfgread_problem(draft->read, root, NULL,
                        "the map is empty; give map_version, shards and ranges");
        return SG_OK;
    }
    cfgread_known_keys(draft->read, root, map_keys);
    cfgread_int(draft->read, root, "map_version", CFGREAD_REQUIRED, 1, INT64_MAX, &map->version);
    if (read_shards(draft) != SG_OK)
        return SG_NO_MEMORY;
    if (map->shard_count > 1)
        qsort_r(map->by_name, map->shard_count, sizeof(*map->by_name), compare_shards, map->shards);
    if (read_ranges(draft) != SG_OK)
        return SG_NO_MEMORY;
    return read_pins(draft);
}

/* --- from file to map ------------------------------------------------------------------------- */

enum sg_error draft_finish(struct draft *draft)
{
    struct shardmap *map = draft->map;
    map->ranges = new_array(draft->range_count, sizeof(*map->ranges));
    map->pins = new_array(draft->pin_count, sizeof(*map->pins));
    if (!map->ranges || !map->pins)
        return SG_NO_MEMORY;
    for (size_t i = 0; i < draft->range_count; i++)
        map->ranges[i] = draft->ranges[i].range;
    for (size_t i = 0; i < draft->pin_count; i++)
        map->pins[i] = draft->pins[i].pin;
    map->range_count = draft->range_count;
    map->pin_count = draft->pin_count;
    return SG_OK;
}

static enum sg_error build(struct draft *draft)
{
    draft->map = calloc(1, sizeof(*draft->map));
    if (!draft->map)
        return SG_NO_MEMORY;
    enum sg_error error = draft_read(draft);
    if (error == SG_OK)
        error = draft_validate(draft);
    if (error == SG_OK)
        error = cfgread_verdict(draft->read);
    return error == SG_OK ? draft_finish(draft) : error;
}

/* Takes the reader over. */
static enum sg_error map_from(struct cfgread *read, struct shardmap **ret_map)
{
    struct draft draft = {.read = read};
    enum sg_error error = build(&draft);
    if (error == SG_OK)
        *ret_map = draft.map;
    else
        shardmap_free(draft.map);
    free(draft.shard_at);
    free(draft.nodes);
    free(draft.ranges);
    free(draft.pins);
    cfgread_free(read);
    return error;
}

enum sg_error shardmap_load(const char *path, struct shardmap **ret_map, struct dynbuf *errors)
{
    struct cfgread *read;
    enum sg_error error = cfgread_file(path, errors, &read);
    return error == SG_OK ? map_from(read, ret_map) : error;
}

enum sg_error shardmap_parse(const char *name, const char *text, struct shardmap **ret_map,
                             struct dynbuf *errors)
{
    struct cfgread *read;
    enum sg_error error = cfgread_text(name, text, errors, &read);
    return error == SG_OK ? map_from(read, ret_map) : error;
}

void shardmap_free(void *arg)
{
    struct shardmap *map = arg;
    if (!map)
        return;
    for (size_t i = 0; i < map->shard_count; i++) {
        for (size_t j = 0; j < map->shards[i].node_count; j++)
            free(map->shards[i].nodes[j].dsn);
        free(map->shards[i].nodes);
    }
    free(map->shards);
    free(map->ranges);
    free(map->pins);
    free(map->by_name);
    free(map);
}
