/*
 * Goal: every event id finds its shard: pin before range, both ends of a range inclusive, nothing
 * outside.
 * Method: random maps asked for every id and compared with a plain array; the borders of 64 bits.
 *
 * SPDX-License-Identifier: MIT
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/shardmap/maps.h"

static void random_maps_against_an_array(void **state)
{
    static const int64_t bases[] = {1, 1000, 2147483600, 4294967280, INT64_MAX - MAP_IDS + 1};
    uint32_t seed = 1;
    (void)state;
    for (int round = 0; round < 2000; round++) {
        int owner[MAP_IDS];
        int64_t base = bases[round % 5];
        struct shardmap *map = map_random(base, &seed, owner);
        for (int i = 0; i < MAP_IDS; i++) {
            if (map_owner(map, base + i) != owner[i])
                fail_msg("round %d, id %lld", round, (long long)base + i);
        }
        assert_int_equal(shardmap_find(map, base - 1), -1);
        if (base <= INT64_MAX - MAP_IDS)
            assert_int_equal(shardmap_find(map, base + MAP_IDS), -1);
        shardmap_free(map);
    }
}

static void the_whole_span_in_two(void **state)
{
    (void)state;
    struct shardmap *map = map_parse(
        "map_version = 9223372036854775807; shards = ("
        "{ name = \"b\"; nodes = ( { name = \"b1\"; dsn = \"host=b\"; } ); },"
        "{ name = \"a\"; nodes = ( { name = \"a1\"; dsn = \"host=a\"; } ); } );"
        "ranges = ( { first = 4611686018427387904; last = 9223372036854775807; shard = \"a\"; },"
        "{ first = 1; last = 4611686018427387903; shard = \"b\"; } );"
        "pins = ( { event = 9223372036854775807; shard = \"b\"; }, { event = 1; shard = \"a\"; } "
        ");");
    int a = shardmap_shard_by_name(map, "a");
    int b = shardmap_shard_by_name(map, "b");
    size_t count;
    assert_int_equal(a, 1);
    assert_int_equal(b, 0);
    assert_int_equal(shardmap_shard_by_name(map, "c"), -1);
    assert_int_equal(shardmap_shard_by_name(map, ""), -1);
    assert_int_equal(shardmap_version(map), INT64_MAX);
    assert_int_equal(shardmap_find(map, 1), a);
    assert_int_equal(shardmap_find(map, 2), b);
    assert_int_equal(shardmap_find(map, 4611686018427387903), b);
    assert_int_equal(shardmap_find(map, 4611686018427387904), a);
    assert_int_equal(shardmap_find(map, INT64_MAX - 1), a);
    assert_int_equal(shardmap_find(map, INT64_MAX), b);
    assert_int_equal(shardmap_find(map, 0), -1);
    assert_int_equal(shardmap_find(map, -1), -1);
    assert_int_equal(shardmap_find(map, INT64_MIN), -1);
    const struct shardmap_range *ranges = shardmap_ranges(map, &count);
    assert_int_equal(count, 2);
    assert_int_equal(ranges[0].first, 1);
    assert_int_equal(ranges[0].shard, b);
    const struct shardmap_pin *pins = shardmap_pins(map, &count);
    assert_int_equal(count, 2);
    assert_int_equal(pins[0].event_id, 1);
    shardmap_free(map);
}

static void many_ranges(void **state)
{
    enum { RANGES = 10000 };
    struct dynbuf text;
    (void)state;
    dynbuf_init(&text, 4 << 20);
    dynbuf_adds(&text, "map_version = 1; shards = (");
    for (int i = 0; i < 100; i++)
        dynbuf_addf(&text,
                    "%s{ name = \"s%d\"; nodes = ( { name = \"n%d\"; dsn = \"host=h%d\"; } ); }",
                    i ? "," : "", i, i, i);
    dynbuf_adds(&text, "); ranges = (");
    for (int i = 0; i < RANGES; i++)
        dynbuf_addf(&text, "%s{ first = %lld; last = %lld; shard = \"s%d\"; }\n", i ? "," : "",
                    i * 1000000LL + 1, (i + 1) * 1000000LL, i % 100);
    dynbuf_adds(&text, ");");
    struct shardmap *map = map_parse(dynbuf_text(&text));
    for (int64_t i = 0; i < RANGES; i++) {
        assert_int_equal(map_owner(map, i * 1000000 + 1), i % 100);
        assert_int_equal(map_owner(map, (i + 1) * 1000000), i % 100);
    }
    assert_int_equal(shardmap_find(map, RANGES * 1000000LL + 1), -1);
    shardmap_free(map);
    dynbuf_done(&text);
}

/* Accepted on purpose: a pin to where the event is anyway, and one outside of all ranges. */
static void harmless_pins(void **state)
{
    (void)state;
    struct shardmap *map = map_parse(
        "map_version = 1; shards = ( { name = \"a\"; nodes = ( { name = \"a1\";"
        "dsn = \"host=a\"; } ); } ); ranges = ( { first = 10; last = 20; shard = \"a\"; } );"
        "pins = ( { event = 15; shard = \"a\"; }, { event = 99; shard = \"a\"; } );");
    assert_int_equal(shardmap_find(map, 15), 0);
    assert_int_equal(shardmap_find(map, 99), 0);
    assert_int_equal(shardmap_find(map, 98), -1);
    shardmap_free(map);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_maps_against_an_array),
        cmocka_unit_test(the_whole_span_in_two),
        cmocka_unit_test(many_ranges),
        cmocka_unit_test(harmless_pins),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
