/*
 * Goal: a write goes to the one right primary or nowhere; a read never goes to a replica that is
 * staler than asked, nor to one that has not replayed what the reader has seen.
 * Method: tables of small topologies; for each the node that must be chosen, "-" for none.
 *
 * SPDX-License-Identifier: MIT
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "router/router.h"
#include "router/topology.h"

struct row {
    const char *name;
    const char *shard;
    bool up;
    enum node_role role;
    int32_t timeline;
    bool fenced;
    int64_t epoch;
    int64_t staleness_us;
};

struct story {
    const char *name;
    struct row rows[5]; /* up to the first without a name */
    const char *write;
    const char *read; /* of shard "a", bound 100 µs, at sampled time + 10 µs, turn 0 */
};

#define P NODE_PRIMARY
#define R NODE_REPLICA
#define U NODE_UNKNOWN

static const struct story stories[] = {
    {"empty", {{0}}, "-", "-"},
    {"primary alone serves both", {{"a1", "a", 1, P, 1, 0, 1, 0}}, "a1", "a1"},
    {"fresh replica reads",
     {{"a1", "a", 1, P, 1, 0, 1, 0}, {"a2", "a", 1, R, 1, 0, 1, 20}},
     "a1",
     "a2"},
    {"stale replica does not",
     {{"a1", "a", 1, P, 1, 0, 1, 0}, {"a2", "a", 1, R, 1, 0, 1, 91}},
     "a1",
     "a1"},
    {"exactly at the bound does",
     {{"a1", "a", 1, P, 1, 0, 1, 0}, {"a2", "a", 1, R, 1, 0, 1, 90}},
     "a1",
     "a2"},
    {"unknown staleness is not fresh",
     {{"a1", "a", 1, P, 1, 0, 1, 0}, {"a2", "a", 1, R, 1, 0, 1, STALENESS_UNKNOWN}},
     "a1",
     "a1"},
    {"dead replica does not read",
     {{"a1", "a", 1, P, 1, 0, 1, 0}, {"a2", "a", 0, R, 1, 0, 1, 0}},
     "a1",
     "a1"},
    {"dead primary: replica still reads, nobody writes",
     {{"a1", "a", 0, P, 1, 0, 1, 0}, {"a2", "a", 1, R, 1, 0, 1, 5}},
     "-",
     "a2"},
    {"nothing up", {{"a1", "a", 0, P, 1, 0, 1, 0}, {"a2", "a", 0, R, 1, 0, 1, 5}}, "-", "-"},
    {"stale replica and no primary: no answer rather than an old one",
     {{"a1", "a", 0, P, 1, 0, 1, 0}, {"a2", "a", 1, R, 1, 0, 1, 500}},
     "-",
     "-"},
    {"fenced primary takes reads only", {{"a1", "a", 1, P, 1, 1, 1, 0}}, "-", "a1"},
    {"role not yet known", {{"a1", "a", 1, U, 0, 0, 0, STALENESS_UNKNOWN}}, "-", "-"},
    {"old primary that came back is refused",
     {{"a1", "a", 1, P, 1, 0, 1, 0}, {"a2", "a", 1, P, 2, 0, 2, 0}},
     "a2",
     "a2"},
    {"old primary is refused while the new one is dead",
     {{"a1", "a", 1, P, 1, 0, 9, 0}, {"a2", "a", 0, P, 2, 0, 2, 0}},
     "-",
     "-"},
    {"a replica on a newer timeline makes the old primary old",
     {{"a1", "a", 1, P, 1, 0, 1, 0}, {"a2", "a", 1, R, 2, 0, 1, STALENESS_UNKNOWN}},
     "-",
     "-"},
    {"two primaries on one timeline: the higher epoch",
     {{"a1", "a", 1, P, 2, 0, 4, 0}, {"a2", "a", 1, P, 2, 0, 5, 0}},
     "a2",
     "a2"},
    {"two primaries on one timeline, higher epoch fenced: nobody",
     {{"a1", "a", 1, P, 2, 0, 4, 0}, {"a2", "a", 1, P, 2, 1, 5, 0}},
     "-",
     "a2"},
    {"two primaries nobody can tell apart: neither",
     {{"a1", "a", 1, P, 2, 0, 4, 0}, {"a2", "a", 1, P, 2, 0, 4, 0}},
     "-",
     "-"},
    {"an ambiguity below a better one does not matter",
     {{"a1", "a", 1, P, 2, 0, 4, 0}, {"a2", "a", 1, P, 2, 0, 4, 0}, {"a3", "a", 1, P, 2, 0, 5, 0}},
     "a3",
     "a3"},
    {"other shards are not looked at",
     {{"b1", "b", 1, P, 7, 0, 1, 0}, {"b2", "b", 1, R, 7, 0, 1, 0}, {"a1", "a", 1, P, 1, 0, 1, 0}},
     "a1",
     "a1"},
};

#define SAMPLED_US 1000
#define NOW_US 1010
#define BOUND_US 100

static struct topology *build(const struct row *rows)
{
    struct topology *topology = calloc(1, sizeof(*topology) + 5 * sizeof(struct topology_node));
    assert_non_null(topology);
    for (const struct row *row = rows; row < rows + 5 && row->name; row++) {
        struct topology_node *node = &topology->nodes[topology->node_count++];
        snprintf(node->name, sizeof(node->name), "%s", row->name);
        snprintf(node->shard, sizeof(node->shard), "%s", row->shard);
        node->up = row->up;
        node->role = row->role;
        node->timeline = row->timeline;
        node->fenced = row->fenced;
        node->epoch = row->epoch;
        node->staleness_us = row->staleness_us;
        node->sampled_us = SAMPLED_US;
    }
    return topology;
}

static void expect(const char *story, const char *what, const struct topology_node *got,
                   const char *want)
{
    if (strcmp(got ? got->name : "-", want) != 0)
        fail_msg("%s: %s goes to %s, expected %s", story, what, got ? got->name : "-", want);
}

static void stories_hold(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(stories) / sizeof(stories[0]); i++) {
        const struct story *story = &stories[i];
        struct topology *topology = build(story->rows);
        expect(story->name, "write", route_write(topology, "a"), story->write);
        expect(story->name, "read", route_read(topology, "a", BOUND_US, NULL, NOW_US, 0),
               story->read);
        free(topology);
    }
}

static const struct row three_replicas[5] = {
    {"a1", "a", 1, P, 1, 0, 1, 0},
    {"a2", "a", 1, R, 1, 0, 1, 1},
    {"a3", "a", 1, R, 1, 0, 1, 500}, /* too stale for the bound */
    {"a4", "a", 1, R, 1, 0, 1, 3},
};

static void turns_spread_over_fresh_replicas_alone(void **state)
{
    (void)state;
    struct topology *topology = build(three_replicas);
    int a2 = 0;
    int a4 = 0;
    for (unsigned turn = 0; turn < 100; turn++) {
        const struct topology_node *node = route_read(topology, "a", BOUND_US, NULL, NOW_US, turn);
        a2 += strcmp(node->name, "a2") == 0;
        a4 += strcmp(node->name, "a4") == 0;
    }
    assert_int_equal(a2, 50);
    assert_int_equal(a4, 50);
    assert_non_null(route_read(topology, "a", BOUND_US, NULL, NOW_US, UINT32_MAX));
    free(topology);
}

struct token_story {
    const char *name;
    int32_t timeline; /* of the replica a2; the primary a1 is on 2 */
    uint64_t lsn;
    bool primary_up;
    int64_t staleness_us;
    const char *read; /* with the token a.2.100 */
};

static const struct token_story token_stories[] = {
    {"has replayed exactly that", 2, 100, true, 1, "a2"},
    {"has replayed more", 2, 101, true, 1, "a2"},
    {"one byte is missing", 2, 99, true, 1, "a1"},
    {"knows of no LSN yet", 2, 0, true, 1, "a1"},
    {"equal LSN on an older timeline", 1, 100, true, 1, "a1"},
    {"far ahead on an older timeline", 1, 100000, true, 1, "a1"},
    {"equal LSN on a newer timeline", 3, 100, true, 1, "-"}, /* and that primary is an old one */
    {"has replayed it, is too stale for the bound", 2, 100, true, 500, "a1"},
    {"has replayed it, of unknown age", 2, 100, true, STALENESS_UNKNOWN, "a1"},
    {"has replayed it, no primary", 2, 100, false, 1, "a2"},
    {"has not, no primary: nowhere rather than without the booking", 2, 99, false, 1, "-"},
};

static void a_token_asks_for_its_lsn_on_its_timeline(void **state)
{
    static const struct read_token token = {.shard = "a", .timeline = 2, .lsn = 100};
    (void)state;
    for (size_t i = 0; i < sizeof(token_stories) / sizeof(token_stories[0]); i++) {
        const struct token_story *story = &token_stories[i];
        const struct row rows[5] = {
            {"a1", "a", story->primary_up, P, 2, 0, 1, 0},
            {"a2", "a", 1, R, story->timeline, 0, 1, story->staleness_us},
        };
        struct topology *topology = build(rows);
        topology->nodes[0].lsn = 200;
        topology->nodes[1].lsn = story->lsn;
        for (unsigned turn = 0; turn < 3; turn++)
            expect(story->name, "read", route_read(topology, "a", BOUND_US, &token, NOW_US, turn),
                   story->read);
        free(topology);
    }
}

/* Also who takes what there is must not be shown a state without the booking. */
static void any_age_is_not_any_lsn(void **state)
{
    static const struct read_token token = {.shard = "a", .timeline = 1, .lsn = 100};
    (void)state;
    struct topology *topology = build(three_replicas);
    topology->nodes[0].up = false;
    for (unsigned turn = 0; turn < 4; turn++)
        assert_null(route_read(topology, "a", STALENESS_ANY, &token, NOW_US, turn));
    topology->nodes[2].lsn = 100;
    for (unsigned turn = 0; turn < 4; turn++)
        expect("any age", "read", route_read(topology, "a", STALENESS_ANY, &token, NOW_US, turn),
               "a3");
    free(topology);
}

static void staleness_grows_with_the_clock_and_unknown_stays(void **state)
{
    (void)state;
    struct topology_node node = {.role = NODE_REPLICA, .staleness_us = 5, .sampled_us = 100};
    assert_int_equal(topology_staleness_us(&node, 100), 5);
    assert_int_equal(topology_staleness_us(&node, 150), 55);
    assert_int_equal(topology_staleness_us(&node, 90), 5); /* another thread's clock read */
    node.staleness_us = STALENESS_UNKNOWN;
    assert_int_equal(topology_staleness_us(&node, 1000000), STALENESS_UNKNOWN);
    node.role = NODE_UNKNOWN;
    node.staleness_us = 0;
    assert_int_equal(topology_staleness_us(&node, 100), STALENESS_UNKNOWN);
    node.role = NODE_PRIMARY;
    assert_int_equal(topology_staleness_us(&node, 1000000), 0);
}

static void nodes_are_found_by_name(void **state)
{
    (void)state;
    struct topology *topology = build(three_replicas);
    assert_string_equal(topology_find(topology, "a3")->name, "a3");
    assert_null(topology_find(topology, "a"));
    assert_null(topology_find(topology, ""));
    assert_string_equal(node_role_name(NODE_UNKNOWN), "unknown");
    assert_string_equal(node_role_name(NODE_PRIMARY), "primary");
    assert_string_equal(node_role_name(NODE_REPLICA), "replica");
    free(topology);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stories_hold),
        cmocka_unit_test(turns_spread_over_fresh_replicas_alone),
        cmocka_unit_test(a_token_asks_for_its_lsn_on_its_timeline),
        cmocka_unit_test(any_age_is_not_any_lsn),
        cmocka_unit_test(staleness_grows_with_the_clock_and_unknown_stays),
        cmocka_unit_test(nodes_are_found_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
