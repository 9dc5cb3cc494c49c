/*
 * Goal: a read never goes to a replica that is older than asked, out of rotation without being
 * asked for, or surely without what the reader has seen; and those that may answer share the reads
 * by their weight and load. Method: tables of small topologies, for each the node that must be
 * chosen, "-" for none; many choices, counted.
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

#include "router/route.h"

#define P NODE_PRIMARY
#define R NODE_REPLICA
#define U NODE_UNKNOWN
#define UNKNOWN STALENESS_UNKNOWN

#define SAMPLED_US 1000
#define NOW_US 1010
#define BOUND_US 100

struct row {
    const char *name; /* of the shard that its first letter names */
    bool up;
    enum node_role role;
    int32_t timeline;
    uint64_t lsn;
    int64_t staleness_us;
    bool out; /* of rotation */
    int32_t weight;
};

#define ROWS_MAX 5

static struct topology *build(const struct row *rows)
{
    struct topology *topology =
        calloc(1, sizeof(*topology) + ROWS_MAX * sizeof(struct topology_node));
    assert_non_null(topology);
    for (const struct row *row = rows; row < rows + ROWS_MAX && row->name; row++) {
        struct topology_node *node = &topology->nodes[topology->node_count++];
        snprintf(node->name, sizeof(node->name), "%s", row->name);
        snprintf(node->shard, sizeof(node->shard), "%c", row->name[0]);
        node->up = row->up;
        node->role = row->role;
        node->timeline = row->timeline;
        node->lsn = row->lsn;
        node->staleness_us = row->staleness_us;
        node->sampled_us = SAMPLED_US;
        node->in_rotation = row->role == NODE_REPLICA && !row->out;
        node->weight = row->weight;
    }
    return topology;
}

static void expect(const char *story, const char *what, const struct topology_node *got,
                   const char *want)
{
    if (strcmp(got ? got->name : "-", want) != 0)
        fail_msg("%s: %s is %s, expected %s", story, what, got ? got->name : "-", want);
}

/* --- may it answer? --------------------------------------------------------------------------- */

struct story {
    const char *name;
    struct row rows[ROWS_MAX]; /* up to the first without a name */
    const char *by_default;    /* of shard "a", bound 100 µs, 10 µs after the sample */
    const char *own_bound;     /* the same bound, set by the reader */
    const char *freshest;
};

static const struct story stories[] = {
    {"nobody", {{0}}, "-", "-", "-"},
    {"the primary is no replica", {{"a1", 1, P, 1, 9, 0, 0, 100}}, "-", "-", "-"},
    {"a fresh one", {{"a2", 1, R, 1, 9, 20, 0, 100}}, "a2", "a2", "a2"},
    {"exactly at the bound", {{"a2", 1, R, 1, 9, 90, 0, 100}}, "a2", "a2", "a2"},
    {"one microsecond too old", {{"a2", 1, R, 1, 9, 91, 0, 100}}, "-", "-", "a2"},
    {"of unknown age", {{"a2", 1, R, 1, 9, UNKNOWN, 0, 100}}, "-", "-", "a2"},
    {"of unknown age, on another timeline",
     {{"a1", 1, P, 2, 9, 0, 0, 100}, {"a2", 1, R, 1, 9, UNKNOWN, 0, 100}},
     "-",
     "-",
     "-"},
    {"of unknown age, behind a timeline that only a dead node was on",
     {{"a1", 0, P, 2, 9, 0, 0, 100}, {"a2", 1, R, 1, 9, UNKNOWN, 0, 100}},
     "-",
     "-",
     "-"},
    {"dead", {{"a2", 0, R, 1, 9, 5, 0, 100}}, "-", "-", "-"},
    {"of unknown role", {{"a2", 1, U, 1, 9, 5, 0, 100}}, "-", "-", "-"},
    {"out of rotation, though it has caught up: only for who has set a bound",
     {{"a2", 1, R, 1, 9, 5, 1, 0}},
     "-",
     "a2",
     "a2"},
    {"one in rotation goes before one that is not, however fresh",
     {{"a2", 1, R, 1, 9, 1, 1, 0}, {"a3", 1, R, 1, 9, 50, 0, 100}},
     "a3",
     "a3",
     "a2"},
    {"in rotation, too old now",
     {{"a2", 1, R, 1, 9, 500, 0, 100}, {"a3", 1, R, 1, 9, 400, 0, 100}},
     "-",
     "-",
     "a3"},
    {"a known age goes before an unknown one",
     {{"a2", 1, R, 1, 99, UNKNOWN, 0, 100}, {"a3", 1, R, 1, 9, 9000, 0, 100}},
     "-",
     "-",
     "a3"},
    {"of two of unknown age the one with more WAL",
     {{"a2", 1, R, 1, 9, UNKNOWN, 0, 100}, {"a3", 1, R, 1, 10, UNKNOWN, 0, 100}},
     "-",
     "-",
     "a3"},
    {"other shards are not looked at", {{"b2", 1, R, 1, 9, 5, 0, 100}}, "-", "-", "-"},
};

static void who_may_answer(void **state)
{
    const struct freshness bound = {.max_staleness_us = BOUND_US};
    const struct freshness own = {.max_staleness_us = BOUND_US, .own_bound = true};
    (void)state;
    for (size_t i = 0; i < sizeof(stories) / sizeof(stories[0]); i++) {
        const struct story *story = &stories[i];
        struct topology *topology = build(story->rows);
        for (uint32_t turn = 0; turn < 5; turn++) {
            struct route_wish wish = {
                .shard = "a", .fresh = &bound, .now_us = NOW_US, .turn = turn};
            expect(story->name, "by default", route_replica(topology, &wish), story->by_default);
            expect(story->name, "the freshest", route_freshest(topology, &wish), story->freshest);
            wish.fresh = &own;
            expect(story->name, "in the bound", route_replica(topology, &wish), story->own_bound);
        }
        free(topology);
    }
}

/* --- tokens ----------------------------------------------------------------------------------- */

struct token_story {
    const char *name;
    int32_t timeline; /* of a2 */
    uint64_t lsn;
    const char *may; /* with the token a.2.100 */
    const char *known;
};

static const struct token_story token_stories[] = {
    {"has replayed exactly that", 2, 100, "a2", "a2"},
    {"has replayed more", 2, 101, "a2", "a2"},
    {"one byte is missing, as far as is known: it is to be asked", 2, 99, "a2", "-"},
    {"knows of no LSN yet", 2, 0, "a2", "-"},
    {"equal LSN on an older timeline", 1, 100, "-", "-"},
    {"far ahead on an older timeline", 1, 100000, "-", "-"},
    {"equal LSN on a later timeline", 3, 100, "a2", "a2"},
    {"a later timeline that does not reach that far yet", 3, 99, "a2", "-"},
};

static void a_token_asks_for_its_lsn_on_its_lineage(void **state)
{
    static const struct freshness fresh = {.max_staleness_us = BOUND_US,
                                           .token = {.shard = "a", .timeline = 2, .lsn = 100}};
    (void)state;
    for (size_t i = 0; i < sizeof(token_stories) / sizeof(token_stories[0]); i++) {
        const struct token_story *story = &token_stories[i];
        const struct row rows[ROWS_MAX] = {{"a2", 1, R, story->timeline, story->lsn, 1, 0, 100}};
        struct topology *topology = build(rows);
        struct route_wish wish = {.shard = "a", .fresh = &fresh, .now_us = NOW_US};
        expect(story->name, "may", route_replica(topology, &wish), story->may);
        expect(story->name, "may, any age", route_freshest(topology, &wish), story->may);
        wish.known_only = true;
        expect(story->name, "known", route_replica(topology, &wish), story->known);
        expect(story->name, "known, any age", route_freshest(topology, &wish), story->known);
        free(topology);
    }
}

static void who_is_known_to_have_it_goes_first(void **state)
{
    static const struct freshness fresh = {.max_staleness_us = BOUND_US,
                                           .token = {.shard = "a", .timeline = 1, .lsn = 100}};
    static const struct row rows[ROWS_MAX] = {{"a2", 1, R, 1, 99, 1, 0, 100},
                                              {"a3", 1, R, 1, 100, 1, 0, 100},
                                              {"a4", 1, R, 1, 98, 1, 0, 100}};
    (void)state;
    struct topology *topology = build(rows);
    struct route_wish wish = {.shard = "a", .fresh = &fresh, .now_us = NOW_US};
    for (wish.turn = 0; wish.turn < 20; wish.turn++)
        expect("known", "the choice", route_replica(topology, &wish), "a3");
    wish.tried = route_bit(topology, &topology->nodes[1]);
    bool seen[3] = {false};
    for (wish.turn = 0; wish.turn < 20; wish.turn++)
        seen[route_replica(topology, &wish) - topology->nodes] = true;
    assert_true(seen[0] && !seen[1] && seen[2]);
    wish.tried = 7;
    assert_null(route_replica(topology, &wish));
    assert_null(route_freshest(topology, &wish));
    free(topology);
}

/* Bits are counted within the shard. */
static void bits_of_nodes(void **state)
{
    static const struct row rows[ROWS_MAX] = {{"a1", 1, P, 1, 1, 0, 0, 100},
                                              {"a2", 1, R, 1, 1, 1, 0, 100},
                                              {"b1", 1, P, 1, 1, 0, 0, 100},
                                              {"b2", 1, R, 1, 1, 1, 0, 100}};
    (void)state;
    struct topology *topology = build(rows);
    static const uint64_t bits[] = {1, 2, 1, 2};
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(route_bit(topology, &topology->nodes[i]), bits[i]);
    free(topology);
}

static void wishes_become_what_is_asked_of_a_shard(void **state)
{
    static const struct read_token tokens[] = {{.shard = "b", .timeline = 1, .lsn = 5},
                                               {.shard = "a", .timeline = 2, .lsn = 6}};
    struct read_wish wish = {.max_staleness_us = -1, .tokens = tokens, .token_count = 2};
    (void)state;
    struct freshness fresh = freshness_of(NULL, "a", 7);
    assert_true(fresh.max_staleness_us == 7 && !fresh.own_bound && fresh.token.lsn == 0);
    assert_false(freshness_is_asked(&fresh));
    fresh = freshness_of(&wish, "a", 7);
    assert_true(fresh.max_staleness_us == 7 && !fresh.own_bound && fresh.token.lsn == 6);
    assert_true(freshness_is_asked(&fresh));
    fresh = freshness_of(&wish, "c", 7);
    assert_false(freshness_is_asked(&fresh));
    wish.max_staleness_us = 0;
    fresh = freshness_of(&wish, "c", 7);
    assert_true(fresh.max_staleness_us == 0 && fresh.own_bound && freshness_is_asked(&fresh));
}

/* --- which of them? --------------------------------------------------------------------------- */

static uint32_t loads[ROWS_MAX];

static uint32_t load_of(void *arg, const struct topology_node *node)
{
    const struct topology *topology = arg;
    return loads[node - topology->nodes];
}

#define CHOICES 11000

/* How often each of the nodes is chosen; with `hold`, what goes to the i-th stays in flight. */
static void distribute(const struct row *rows, int hold, unsigned ret_counts[ROWS_MAX])
{
    static const struct freshness fresh = {.max_staleness_us = BOUND_US};
    struct topology *topology = build(rows);
    memset(ret_counts, 0, ROWS_MAX * sizeof(ret_counts[0]));
    struct route_wish wish = {
        .shard = "a", .fresh = &fresh, .now_us = NOW_US, .load = load_of, .load_arg = topology};
    for (wish.turn = 0; wish.turn < CHOICES; wish.turn++) {
        const struct topology_node *node = route_replica(topology, &wish);
        assert_non_null(node);
        ret_counts[node - topology->nodes]++;
        if (hold == node - topology->nodes && wish.turn % 2 == 0)
            loads[hold]++;
    }
    free(topology);
}

static void assert_about(unsigned got, unsigned want)
{
    if (got < want - want / 20 || got > want + want / 20)
        fail_msg("%u reads, expected about %u", got, want);
}

static void weight_and_load_share_the_reads(void **state)
{
    static const struct row equal[ROWS_MAX] = {{"a2", 1, R, 1, 1, 1, 0, 100},
                                               {"a3", 1, R, 1, 1, 1, 0, 100}};
    static const struct row slow_start[ROWS_MAX] = {{"a2", 1, R, 1, 1, 1, 0, 100},
                                                    {"a3", 1, R, 1, 1, 1, 0, 10}};
    static const struct row three[ROWS_MAX] = {
        {"a2", 1, R, 1, 1, 1, 0, 50}, {"a3", 1, R, 1, 1, 1, 0, 100}, {"a4", 1, R, 1, 1, 1, 0, 50}};
    unsigned counts[ROWS_MAX];
    (void)state;
    memset(loads, 0, sizeof(loads));
    distribute(equal, -1, counts);
    assert_about(counts[0], CHOICES / 2);
    distribute(slow_start, -1, counts);
    assert_about(counts[1], CHOICES / 11);
    distribute(three, -1, counts);
    assert_about(counts[0], CHOICES / 4);
    assert_about(counts[1], CHOICES / 2);
    loads[1] = 9; /* and one more makes ten: a tenth of the other's share */
    distribute(equal, -1, counts);
    assert_about(counts[1], CHOICES / 11);
    loads[1] = UINT32_MAX - 1; /* more than anybody holds */
    distribute(equal, -1, counts);
    assert_true(counts[1] <= 1);
    loads[1] = 0;
    distribute(equal, 1, counts); /* it answers every other one only */
    assert_true(counts[1] < CHOICES / 20);
    assert_true(counts[1] > 0);
}

/* A short row of choices is even, too: no replica is left idle while another gets a burst. */
static void few_choices_are_even(void **state)
{
    static const struct freshness fresh = {.max_staleness_us = BOUND_US};
    static const struct row rows[ROWS_MAX] = {{"a2", 1, R, 1, 1, 1, 0, 100},
                                              {"a3", 1, R, 1, 1, 1, 0, 100}};
    (void)state;
    struct topology *topology = build(rows);
    for (uint32_t start = UINT32_MAX - 50; start != 50; start++) {
        unsigned first = 0;
        for (uint32_t i = 0; i < 10; i++) {
            struct route_wish wish = {
                .shard = "a", .fresh = &fresh, .now_us = NOW_US, .turn = start + i};
            first += route_replica(topology, &wish) == &topology->nodes[0];
        }
        assert_in_range(first, 4, 6);
    }
    free(topology);
}

static void who_is_full_is_left_out(void **state)
{
    static const struct freshness fresh = {.max_staleness_us = BOUND_US};
    static const struct row rows[ROWS_MAX] = {
        {"a2", 1, R, 1, 1, 1, 0, 100}, {"a3", 1, R, 1, 1, 50, 0, 100}, {"a4", 1, R, 1, 1, 1, 1, 0}};
    (void)state;
    struct topology *topology = build(rows);
    struct route_wish wish = {
        .shard = "a", .fresh = &fresh, .now_us = NOW_US, .load = load_of, .load_arg = topology};
    memset(loads, 0, sizeof(loads));
    loads[0] = ROUTE_FULL;
    for (wish.turn = 0; wish.turn < 10; wish.turn++)
        expect("full", "the choice", route_replica(topology, &wish), "a3");
    expect("full", "the freshest", route_freshest(topology, &wish), "a4");
    loads[1] = ROUTE_FULL;
    assert_null(route_replica(topology, &wish));
    loads[2] = ROUTE_FULL;
    assert_null(route_freshest(topology, &wish));
    free(topology);
}

/* --- the primary ------------------------------------------------------------------------------ */

/* Another may have taken over since the nodes were looked at. */
static void a_fenced_primary_ages(void **state)
{
    static const struct row rows[ROWS_MAX] = {{"a1", 1, P, 1, 1, 0, 0, 100},
                                              {"a2", 1, R, 1, 1, 1, 0, 100},
                                              {"a3", 0, R, 1, 1, 1, 0, 100},
                                              {"b1", 1, P, 1, 1, 0, 0, 100}};
    (void)state;
    struct topology *topology = build(rows);
    struct topology_node *primary = &topology->nodes[0];
    topology->nodes[1].sampled_us = SAMPLED_US - 40;
    topology->nodes[2].sampled_us = 0; /* dead */
    topology->nodes[3].sampled_us = 0; /* of another shard */
    assert_int_equal(route_primary_staleness_us(topology, primary, NOW_US), 0);
    primary->fenced = true;
    assert_int_equal(route_primary_staleness_us(topology, primary, NOW_US), 50);
    assert_int_equal(route_primary_staleness_us(topology, primary, SAMPLED_US - 99), 0);
    free(topology);
}

static void who_has_replicas_and_who_is_readable(void **state)
{
    static const struct row rows[ROWS_MAX] = {{"a1", 0, P, 1, 1, 0, 0, 100},
                                              {"a2", 1, R, 1, 1, UNKNOWN, 1, 0},
                                              {"b1", 1, P, 1, 1, 0, 0, 100},
                                              {"c1", 0, P, 1, 1, 0, 0, 100}};
    (void)state;
    struct topology *topology = build(rows);
    assert_true(route_has_replicas(topology, "a"));
    assert_false(route_has_replicas(topology, "b"));
    assert_false(route_has_replicas(topology, "d"));
    assert_true(route_is_readable(topology, "a"));
    assert_true(route_is_readable(topology, "b"));
    assert_false(route_is_readable(topology, "c"));
    assert_false(route_is_readable(topology, "d"));
    free(topology);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_may_answer),
        cmocka_unit_test(a_token_asks_for_its_lsn_on_its_lineage),
        cmocka_unit_test(who_is_known_to_have_it_goes_first),
        cmocka_unit_test(bits_of_nodes),
        cmocka_unit_test(wishes_become_what_is_asked_of_a_shard),
        cmocka_unit_test(weight_and_load_share_the_reads),
        cmocka_unit_test(few_choices_are_even),
        cmocka_unit_test(who_is_full_is_left_out),
        cmocka_unit_test(a_fenced_primary_ages),
        cmocka_unit_test(who_has_replicas_and_who_is_readable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
