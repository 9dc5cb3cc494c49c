/*
 * EventId to shard, and what else is asked of a finished map. Pure.
 *
 * Ranges and pins lie sorted in plain arrays, so an answer is two binary searches.
 *
 * SPDX-License-Identifier: MIT
 */
#include <string.h>

#include "shardmap/draft.h"

/* NO_SHARD if the event is not pinned. */
static int find_pin(const struct shardmap *map, int64_t event_id)
{
    size_t low = 0;
    size_t high = map->pin_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (map->pins[middle].event_id < event_id)
            low = middle + 1;
        else
            high = middle;
    }
    bool found = low < map->pin_count && map->pins[low].event_id == event_id;
    return found ? map->pins[low].shard : NO_SHARD;
}

int shardmap_find(const struct shardmap *map, int64_t event_id)
{
    int pinned = map->pin_count ? find_pin(map, event_id) : NO_SHARD;
    if (pinned != NO_SHARD)
        return pinned;
    size_t low = 0; /* the first range that ends at the event or behind it */
    size_t high = map->range_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (map->ranges[middle].last < event_id)
            low = middle + 1;
        else
            high = middle;
    }
    bool found = low < map->range_count && map->ranges[low].first <= event_id;
    return found ? map->ranges[low].shard : NO_SHARD;
}

int64_t shardmap_version(const struct shardmap *map)
{
    return map->version;
}

size_t shardmap_shard_count(const struct shardmap *map)
{
    return map->shard_count;
}

const struct shardmap_shard *shardmap_shard(const struct shardmap *map, int shard)
{
    return &map->shards[shard];
}

int shardmap_shard_by_name(const struct shardmap *map, const char *name)
{
    size_t low = 0;
    size_t high = map->shard_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(map->shards[map->by_name[middle]].name, name);
        if (order == 0)
            return map->by_name[middle];
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NO_SHARD;
}

const struct shardmap_range *shardmap_ranges(const struct shardmap *map, size_t *ret_count)
{
    *ret_count = map->range_count;
    return map->ranges;
}

const struct shardmap_pin *shardmap_pins(const struct shardmap *map, size_t *ret_count)
{
    *ret_count = map->pin_count;
    return map->pins;
}
