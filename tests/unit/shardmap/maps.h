/*
 * Random maps for the tests of this folder: valid by construction, small enough to be asked for
 * every id, with ranges and pins at both ends of the 64 bits too.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_TESTS_SHARDMAP_MAPS_H
#define SG_TESTS_SHARDMAP_MAPS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/dynbuf.h"
#include "shardmap/shardmap.h"

#define MAP_IDS 60 /* ids of a random map are base + 0 .. base + MAP_IDS - 1 */

/* Deterministic, so that a failure can be repeated. */
static inline uint32_t random_next(uint32_t *seed)
{
    *seed = *seed * 1664525 + 1013904223;
    return *seed >> 8;
}

static inline struct shardmap *map_parse(const char *text)
{
    struct shardmap *map = NULL;
    struct dynbuf errors;
    dynbuf_init(&errors, 1 << 20);
    if (shardmap_parse("random", text, &map, &errors) != SG_OK) {
        fprintf(stderr, "%s%s", text, dynbuf_text(&errors));
        abort();
    }
    dynbuf_done(&errors);
    return map;
}

/* Shards s<n> for the bits of `shards`; nodes and their servers vary with the seed. */
static inline void add_shards(struct dynbuf *text, unsigned shards, uint32_t *seed)
{
    const char *comma = "";
    for (int i = 0; i < 8; i++) {
        if (!(shards & 1u << i))
            continue;
        dynbuf_addf(text, "%s{ name = \"s%d\"; nodes = ( { name = \"s%d-1\"; dsn = \"host=h%d",
                    comma, i, i, i);
        dynbuf_addf(text, " port=%u\"; } ); }\n", random_next(seed) % 2 + 1);
        comma = ",";
    }
}

/* A map over ids base .. base + MAP_IDS - 1, of which it covers some stretch, cut into ranges at
 * random; *ret_owner (MAP_IDS entries) is the number of the shard for each id, -1 for none. */
static inline struct shardmap *map_random(int64_t base, uint32_t *seed, int *ret_owner)
{
    struct dynbuf ranges;
    struct dynbuf pins;
    struct dynbuf text;
    unsigned shards = 0;
    dynbuf_init(&ranges, 1 << 16);
    dynbuf_init(&pins, 1 << 16);
    dynbuf_init(&text, 1 << 17);
    int at = (int)(random_next(seed) % 10);
    int end = MAP_IDS - (int)(random_next(seed) % 10);
    for (int i = 0; i < MAP_IDS; i++)
        ret_owner[i] = -1;
    while (at < end) {
        int shard = (int)(random_next(seed) % 8);
        int len = (int)(random_next(seed) % 12) + 1;
        len = len < end - at ? len : end - at;
        dynbuf_addf(&ranges, "%s{ first = %lld; last = %lld; shard = \"s%d\"; }\n",
                    ranges.len ? "," : "", (long long)(base + at),
                    (long long)(base + (at + len - 1)), shard);
        for (int i = at; i < at + len; i++)
            ret_owner[i] = shard;
        shards |= 1u << shard;
        at += len;
    }
    for (int i = 0; i < MAP_IDS; i++) {
        int shard = (int)(random_next(seed) % 8);
        if (random_next(seed) % 8 != 0 || !(shards & 1u << shard))
            continue;
        dynbuf_addf(&pins, "%s{ event = %lld; shard = \"s%d\"; }\n", pins.len ? "," : "",
                    (long long)(base + i), shard);
        ret_owner[i] = shard;
    }
    dynbuf_addf(&text, "map_version = %u;\nshards = (", random_next(seed) + 1);
    add_shards(&text, shards, seed);
    dynbuf_addf(&text, ");\nranges = (%s);\npins = (%s);\n", dynbuf_text(&ranges),
                dynbuf_text(&pins));
    struct shardmap *map = map_parse(dynbuf_text(&text));
    dynbuf_done(&ranges);
    dynbuf_done(&pins);
    dynbuf_done(&text);
    return map;
}

/* Number of the shard that the map names for the id, as in ret_owner. */
static inline int map_owner(const struct shardmap *map, int64_t event_id)
{
    int shard = shardmap_find(map, event_id);
    return shard < 0 ? -1 : atoi(shardmap_shard(map, shard)->name + 1);
}

#endif
