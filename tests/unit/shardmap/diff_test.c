/*
 * Goal: the diff of two maps names every id that changes hands, and no other, in order and merged;
 * it names every server that comes, goes or changes; what a shard loses is exactly that.
 * Method: random pairs of maps compared id by id; hand-made pairs for servers and the last id.
 *
 * SPDX-License-Identifier: MIT
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "shardmap/diff.h"
#include "tests/unit/shardmap/maps.h"

static int number_of(const char *shard)
{
    return shard ? atoi(shard + 1) : -1;
}

/* Each id is in a move if and only if its owner differs. */
static void check_moves(const struct shardmap_diff *diff, int64_t base, const int *old_owner,
                        const int *new_owner)
{
    size_t at = 0;
    for (int i = 0; i < MAP_IDS; i++) {
        int64_t id = base + i;
        while (at < diff->move_count && diff->moves[at].last < id)
            at++;
        bool moved = at < diff->move_count && diff->moves[at].first <= id;
        assert_int_equal(moved, old_owner[i] != new_owner[i]);
        if (!moved)
            continue;
        assert_int_equal(number_of(diff->moves[at].from), old_owner[i]);
        assert_int_equal(number_of(diff->moves[at].to), new_owner[i]);
    }
}

static void check_order(const struct shardmap_diff *diff, int64_t base)
{
    for (size_t i = 0; i < diff->move_count; i++) {
        const struct shardmap_move *move = &diff->moves[i];
        assert_true(move->first <= move->last);
        assert_true(move->first >= base && move->last - base < MAP_IDS);
        assert_int_not_equal(number_of(move->from), number_of(move->to));
        if (i == 0)
            continue;
        const struct shardmap_move *before = move - 1;
        assert_true(before->last < move->first);
        bool adjacent = before->last + 1 == move->first;
        bool same = number_of(before->from) == number_of(move->from) &&
                    number_of(before->to) == number_of(move->to);
        assert_false(adjacent && same);
    }
}

static void check_lost(const struct shardmap_diff *diff, int64_t base, int shard,
                       const int *old_owner, const int *new_owner)
{
    struct shardmap_interval *lost = NULL;
    size_t count;
    size_t at = 0;
    char name[16];
    snprintf(name, sizeof(name), "s%d", shard);
    assert_int_equal(shardmap_lost(diff, name, &lost, &count), SG_OK);
    assert_int_equal(count == 0, lost == NULL);
    for (size_t i = 1; i < count; i++)
        assert_true(lost[i - 1].last + 1 < lost[i].first);
    for (int i = 0; i < MAP_IDS; i++) {
        while (at < count && lost[at].last < base + i)
            at++;
        bool is_lost = at < count && lost[at].first <= base + i;
        assert_int_equal(is_lost, old_owner[i] == shard && new_owner[i] != shard);
    }
    free(lost);
}

static void random_pairs_against_arrays(void **state)
{
    static const int64_t bases[] = {1, 4294967280, INT64_MAX - MAP_IDS + 1};
    uint32_t seed = 7;
    (void)state;
    for (int round = 0; round < 1500; round++) {
        int old_owner[MAP_IDS];
        int new_owner[MAP_IDS];
        struct shardmap_diff *diff = NULL;
        int64_t base = bases[round % 3];
        struct shardmap *old_map = map_random(base, &seed, old_owner);
        struct shardmap *new_map = map_random(base, &seed, new_owner);
        assert_int_equal(shardmap_diff_new(old_map, new_map, &diff), SG_OK);
        shardmap_free(old_map); /* the diff lives without them */
        shardmap_free(new_map);
        check_moves(diff, base, old_owner, new_owner);
        check_order(diff, base);
        for (int shard = 0; shard < 8; shard++)
            check_lost(diff, base, shard, old_owner, new_owner);
        shardmap_diff_free(diff);
    }
}

#define SHARD(name, nodes) "{ name = \"" name "\"; nodes = ( " nodes " ); }"
#define NODE(name, dsn) "{ name = \"" name "\"; dsn = \"" dsn "\"; }"
#define RANGE(first, last, shard) "{ first = " first "; last = " last "; shard = \"" shard "\"; }"

static void expect_diff(const char *old_text, const char *new_text, const char *text,
                        const char *json)
{
    struct shardmap *old_map = map_parse(old_text);
    struct shardmap *new_map = map_parse(new_text);
    struct shardmap_diff *diff = NULL;
    struct dynbuf out;
    dynbuf_init(&out, 1 << 16);
    assert_int_equal(shardmap_diff_new(old_map, new_map, &diff), SG_OK);
    shardmap_diff_text(diff, &out);
    assert_string_equal(dynbuf_text(&out), text);
    dynbuf_reset(&out);
    shardmap_diff_json(diff, &out);
    assert_string_equal(dynbuf_text(&out), json);
    shardmap_diff_free(diff);
    shardmap_free(old_map);
    shardmap_free(new_map);
    dynbuf_done(&out);
}

static void servers_and_events(void **state)
{
    (void)state;
    expect_diff(
        "map_version = 1; shards = (" SHARD(
            "a",
            NODE("a1", "host=1 password=x") "," NODE(
                "n",
                "host=2")) "," SHARD("b",
                                     NODE("b1",
                                          "host=3")) "); ranges = (" RANGE("1", "100",
                                                                           "a") "," RANGE("101",
                                                                                          "200",
                                                                                          "b") ");",
        "map_version = 2; shards = (" SHARD("c", NODE("n", "host=4") "," NODE("c1", "host=5")) "," SHARD(
            "a",
            NODE("a1",
                 "host=1 password=y")) "); ranges = (" RANGE("1", "150",
                                                             "a") "," RANGE("151", "300",
                                                                            "c") "); pins = ( { "
                                                                                 "event = 7; shard "
                                                                                 "= \"c\"; } );",
        "map version 1 -> 2\n"
        "servers\n"
        "  - shard b\n"
        "  - node b1 of b\n"
        "  + shard c\n"
        "  ~ node n: a -> c\n"
        "  ~ node n of c: another dsn\n"
        "  + node c1 of c\n"
        "  ~ node a1 of a: another dsn\n"
        "events that change hands\n"
        "  7  a -> c\n"
        "  101..150  b -> a\n"
        "  151..200  b -> c\n"
        "  201..300  (none) -> c\n",
        "{\"oldVersion\":1,\"newVersion\":2,\"moves\":["
        "{\"first\":7,\"last\":7,\"from\":\"a\",\"to\":\"c\"},"
        "{\"first\":101,\"last\":150,\"from\":\"b\",\"to\":\"a\"},"
        "{\"first\":151,\"last\":200,\"from\":\"b\",\"to\":\"c\"},"
        "{\"first\":201,\"last\":300,\"from\":null,\"to\":\"c\"}],\"changes\":["
        "{\"kind\":\"shard_removed\",\"shard\":\"b\"},"
        "{\"kind\":\"node_removed\",\"shard\":\"b\",\"node\":\"b1\"},"
        "{\"kind\":\"shard_added\",\"shard\":\"c\"},"
        "{\"kind\":\"node_moved\",\"shard\":\"c\",\"node\":\"n\",\"oldShard\":\"a\"},"
        "{\"kind\":\"node_dsn\",\"shard\":\"c\",\"node\":\"n\"},"
        "{\"kind\":\"node_added\",\"shard\":\"c\",\"node\":\"c1\"},"
        "{\"kind\":\"node_dsn\",\"shard\":\"a\",\"node\":\"a1\"}]}");
}

#define ONE(version, ranges)                                                                       \
    "map_version = " version                                                                       \
    "; shards = (" SHARD("a", NODE("a1", "host=1")) "); ranges = (" ranges ");"

static void nothing_differs(void **state)
{
    (void)state;
    expect_diff(ONE("3", RANGE("1", "100", "a")),
                ONE("4", RANGE("51", "100", "a") "," RANGE("1", "50", "a")),
                "map version 3 -> 4\nno difference in events, shards and nodes\n",
                "{\"oldVersion\":3,\"newVersion\":4,\"moves\":[],\"changes\":[]}");
}

#define PROMISE(version, a, b)                                                                     \
    "map_version = " version "; shards = ({ name = \"a\"; " a                                      \
    "nodes = (" NODE("a1", "host=1") "); }, { name = \"b\"; " b "nodes = (" NODE(                  \
        "b1", "host=2") "); }); ranges = (" RANGE("1", "5", "a") "," RANGE("6", "9", "b") ");"

/* Async is the default, so naming it changes nothing. */
static void promises(void **state)
{
    (void)state;
    expect_diff(PROMISE("1", "", "durability = \"sync\"; "),
                PROMISE("2", "durability = \"sync\"; ", "durability = \"async\"; "),
                "map version 1 -> 2\nservers\n"
                "  ~ shard a: durability is now sync\n"
                "  ~ shard b: durability is now async\n",
                "{\"oldVersion\":1,\"newVersion\":2,\"moves\":[],\"changes\":["
                "{\"kind\":\"durability\",\"shard\":\"a\",\"durability\":\"sync\"},"
                "{\"kind\":\"durability\",\"shard\":\"b\",\"durability\":\"async\"}]}");
    expect_diff(PROMISE("1", "", ""), PROMISE("2", "durability = \"async\"; ", ""),
                "map version 1 -> 2\nno difference in events, shards and nodes\n",
                "{\"oldVersion\":1,\"newVersion\":2,\"moves\":[],\"changes\":[]}");
}

static void up_to_the_last_id(void **state)
{
    (void)state;
    expect_diff(ONE("1", RANGE("1", "9223372036854775806", "a")),
                ONE("2", RANGE("2", "9223372036854775807", "a")),
                "map version 1 -> 2\nevents that change hands\n  1  a -> (none)\n"
                "  9223372036854775807  (none) -> a\n",
                "{\"oldVersion\":1,\"newVersion\":2,\"moves\":["
                "{\"first\":1,\"last\":1,\"from\":\"a\",\"to\":null},"
                "{\"first\":9223372036854775807,\"last\":9223372036854775807,\"from\":null,"
                "\"to\":\"a\"}],\"changes\":[]}");
    expect_diff(ONE("1", RANGE("1", "9223372036854775807", "a")), ONE("2", RANGE("1", "5", "a")),
                "map version 1 -> 2\nevents that change hands\n"
                "  6..9223372036854775807  a -> (none)\n",
                "{\"oldVersion\":1,\"newVersion\":2,\"moves\":["
                "{\"first\":6,\"last\":9223372036854775807,\"from\":\"a\",\"to\":null}],"
                "\"changes\":[]}");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_pairs_against_arrays),
        cmocka_unit_test(servers_and_events),
        cmocka_unit_test(nothing_differs),
        cmocka_unit_test(promises),
        cmocka_unit_test(up_to_the_last_id),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
