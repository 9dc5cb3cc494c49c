/*
 * Goal: no text can crash, hang or leak the shard map's parser, and what it accepts keeps its own
 * promises: ranges meet, every id of them has its shard, a map does not differ from itself.
 * Method: bytes to shardmap_parse; the properties are checked on what comes out.
 *
 * SPDX-License-Identifier: MIT
 */
#include <stdlib.h>
#include <string.h>

#include "base/dynbuf.h"
#include "shardmap/diff.h"
#include "shardmap/shardmap.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void expect(bool condition)
{
    if (!condition)
        abort();
}

static void check_ranges(const struct shardmap *map)
{
    size_t count;
    const struct shardmap_range *ranges = shardmap_ranges(map, &count);
    expect(count > 0);
    for (size_t i = 0; i < count; i++) {
        expect(ranges[i].first >= 1 && ranges[i].first <= ranges[i].last);
        expect(i == 0 || ranges[i - 1].last + 1 == ranges[i].first);
        expect(shardmap_find(map, ranges[i].first) >= 0);
        expect(shardmap_find(map, ranges[i].last) >= 0);
    }
    const struct shardmap_pin *pins = shardmap_pins(map, &count);
    for (size_t i = 0; i < count; i++) {
        expect(i == 0 || pins[i - 1].event_id < pins[i].event_id);
        expect(shardmap_find(map, pins[i].event_id) == pins[i].shard);
    }
}

static void check_map(const struct shardmap *map)
{
    struct shardmap_diff *diff;
    expect(shardmap_version(map) >= 1);
    for (size_t i = 0; i < shardmap_shard_count(map); i++) {
        const struct shardmap_shard *shard = shardmap_shard(map, (int)i);
        expect(shardmap_shard_by_name(map, shard->name) == (int)i);
        expect(shard->node_count > 0 && shard->nodes[0].dsn[0]);
    }
    check_ranges(map);
    if (shardmap_diff_new(map, map, &diff) != SG_OK)
        return;
    expect(shardmap_diff_empty(diff));
    shardmap_diff_free(diff);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct shardmap *map = NULL;
    struct dynbuf errors;
    char *text = malloc(size + 1);
    if (!text)
        return 0;
    if (size)
        memcpy(text, data, size);
    text[size] = '\0';
    dynbuf_init(&errors, 1 << 20);
    enum sg_error error = shardmap_parse("map", text, &map, &errors);
    expect((error == SG_OK) == (map != NULL));
    expect(error != SG_CONFIG_INVALID || errors.len > 0);
    if (map)
        check_map(map);
    shardmap_free(map);
    dynbuf_done(&errors);
    free(text);
    return 0;
}
