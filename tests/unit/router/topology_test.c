/*
 * Goal: a write goes to the one right primary or nowhere, and everybody agrees whose WAL is the
 * truth.
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
    const char *primary;
};

#define P NODE_PRIMARY
#define R NODE_REPLICA
#define U NODE_UNKNOWN

static const struct story stories[] = {
    {"empty", {{0}}, "-", "-"},
    {"primary alone", {{"a1", "a", 1, P, 1, 0, 1, 0}}, "a1", "a1"},
    {"a replica is none",
     {{"a1", "a", 1, P, 1, 0, 1, 0}, {"a2", "a", 1, R, 1, 0, 1, 20}},
     "a1",
     "a1"},
    {"a stale one neither",
     {{"a1", "a", 1, P, 1, 0, 1, 0}, {"a2", "a", 1, R, 1, 0, 1, 91}},
     "a1",
     "a1"},
    {"nor a fresh one",
     {{"a1", "a", 1, P, 1, 0, 1, 0}, {"a2", "a", 1, R, 1, 0, 1, 90}},
     "a1",
     "a1"},
    {"nor one of unknown age",
     {{"a1", "a", 1, P, 1, 0, 1, 0}, {"a2", "a", 1, R, 1, 0, 1, STALENESS_UNKNOWN}},
     "a1",
     "a1"},
    {"nor a dead one", {{"a1", "a", 1, P, 1, 0, 1, 0}, {"a2", "a", 0, R, 1, 0, 1, 0}}, "a1", "a1"},
    {"dead primary: nobody",
     {{"a1", "a", 0, P, 1, 0, 1, 0}, {"a2", "a", 1, R, 1, 0, 1, 5}},
     "-",
     "-"},
    {"nothing up", {{"a1", "a", 0, P, 1, 0, 1, 0}, {"a2", "a", 0, R, 1, 0, 1, 5}}, "-", "-"},
    {"stale replica and no primary",
     {{"a1", "a", 0, P, 1, 0, 1, 0}, {"a2", "a", 1, R, 1, 0, 1, 500}},
     "-",
     "-"},
    {"fenced primary takes no writes", {{"a1", "a", 1, P, 1, 1, 1, 0}}, "-", "a1"},
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
        node->attested = true;
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
        expect(story->name, "primary", topology_primary(topology, "a"), story->primary);
        free(topology);
    }
}

static const struct row three_replicas[5] = {
    {"a1", "a", 1, P, 1, 0, 1, 0},
    {"a2", "a", 1, R, 1, 0, 1, 1},
    {"a3", "a", 1, R, 1, 0, 1, 500}, /* too stale for the bound */
    {"a4", "a", 1, R, 1, 0, 1, 3},
};

static void a_primary_is_written_to_when_it_is_attested_and_not_refused(void **state)
{
    static const struct row two[5] = {{"a1", "a", 1, P, 2, 0, 3, 0}, {"a2", "a", 1, P, 2, 0, 2, 0}};
    struct topology *topology = build(two);
    (void)state;
    topology->nodes[0].attested = false;
    expect("not attested", "write", route_write(topology, "a"), "-");
    expect("not attested", "primary", topology_primary(topology, "a"), "a1");
    topology->nodes[0].attested = true;
    topology->nodes[0].refused = NODE_EPOCH_BEHIND;
    expect("refused", "write", route_write(topology, "a"), "a2");
    expect("refused", "primary", topology_primary(topology, "a"), "a2");
    topology->nodes[1].refused = NODE_AMBIGUOUS;
    expect("both refused", "primary", topology_primary(topology, "a"), "-");
    free(topology);
    assert_string_equal(node_refusal_name(NODE_NOT_REFUSED), "");
    assert_string_equal(node_refusal_name(NODE_AMBIGUOUS), "ambiguous");
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
        cmocka_unit_test(a_primary_is_written_to_when_it_is_attested_and_not_refused),
        cmocka_unit_test(staleness_grows_with_the_clock_and_unknown_stays),
        cmocka_unit_test(nodes_are_found_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
