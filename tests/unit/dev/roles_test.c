/*
 * Who is the primary of a shard, of the nodes that say they are.
 *
 * Goal: after any number of promotions and crashes exactly one node of a shard is its primary, the
 * one on the highest timeline, dead or alive; the point where a timeline began is read right.
 * Method: tables of nodes and of history files.
 *
 * SPDX-License-Identifier: MIT
 */
#include "dev/roles.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define NODES_MAX 5
#define P ROLE_PRIMARY
#define O ROLE_OLD_PRIMARY
#define R ROLE_REPLICA
#define H ROLE_HALF_REWOUND
#define N ROLE_NONE

struct look {
    const char *shard;
    enum server_role role;
    uint32_t timeline;
    bool runs;
    enum server_role wanted;
};

static const struct {
    const char *what;
    struct look nodes[NODES_MAX];
} cases[] = {
    {"as made", {{"a", P, 1, true, P}, {"a", R, 1, true, R}, {"b", P, 1, true, P}}},
    {"promoted, the old one dead", {{"a", P, 1, false, O}, {"a", P, 2, true, P}}},
    {"promoted, the old one alive", {{"a", P, 1, true, O}, {"a", P, 2, true, P}}},
    {"the promoted one died, the old one runs", {{"a", P, 1, true, O}, {"a", P, 2, false, P}}},
    {"the order of the nodes does not matter", {{"a", P, 2, false, P}, {"a", P, 1, true, O}}},
    {"three promotions", {{"a", P, 2, true, O}, {"a", P, 4, true, P}, {"a", P, 3, false, O}}},
    {"two at once: the one that runs", {{"a", P, 2, false, O}, {"a", P, 2, true, P}}},
    {"two at once, both run: the first", {{"a", P, 2, true, P}, {"a", P, 2, true, O}}},
    {"two at once, none runs: the first", {{"a", P, 2, false, P}, {"a", P, 2, false, O}}},
    {"a replica that has heard of more", {{"a", P, 2, true, P}, {"a", R, 3, true, R}}},
    {"half rewound", {{"a", H, 3, false, H}, {"a", P, 2, true, P}}},
    {"no data yet", {{"a", P, 1, true, P}, {"a", N, 0, false, N}}},
    {"replicas only", {{"a", R, 1, true, R}, {"a", R, 1, true, R}}},
    {"shards do not meet",
     {{"a", P, 1, false, O}, {"a", P, 2, true, P}, {"b", P, 1, true, P}, {"b", R, 1, true, R}}},
};

static void test_one_primary_a_shard(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct server nodes[NODES_MAX] = {0};
        size_t count = 0;
        while (count < NODES_MAX && cases[i].nodes[count].shard) {
            const struct look *look = &cases[i].nodes[count];
            snprintf(nodes[count].shard, sizeof(nodes[count].shard), "%s", look->shard);
            nodes[count].role = look->role;
            nodes[count].timeline = look->timeline;
            nodes[count].id.pid = look->runs ? 1000 : 0;
            count++;
        }
        roles_decide(nodes, count);
        for (size_t j = 0; j < count; j++) {
            if (nodes[j].role != cases[i].nodes[j].wanted)
                fail_msg("%s: node %zu is %s", cases[i].what, j, roles_name(nodes[j].role));
        }
    }
}

static void test_the_primary_is_found_by_shard(void **state)
{
    (void)state;
    struct cluster cluster = {.node_count = 3};
    for (size_t i = 0; i < 3; i++) {
        struct server *node = &cluster.nodes[i];
        snprintf(node->shard, sizeof(node->shard), "%s", i < 2 ? "a" : "b");
        node->role = i == 1 ? P : R;
    }
    assert_ptr_equal(roles_primary(&cluster, "a"), &cluster.nodes[1]);
    assert_null(roles_primary(&cluster, "b"));
    assert_null(roles_primary(&cluster, "c"));
}

static void test_where_a_timeline_began(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool found;
        uint64_t lsn;
    } histories[] = {
        {"1\t0/3000148\tno recovery target specified\n", true, 0x3000148},
        {"1\t0/3000148\tno recovery target specified\n\n2\tA/10\tno recovery target specified\n",
         true, 0xA00000010},
        {"# a remark\n1\tFF/FFFFFFF8\tbefore 2026-11-21\n", true, 0xFFFFFFFFF8},
        {"1\t0/5", true, 5},
        {"", false, 0},
        {"\n\n", false, 0},
        {"what is this\n", false, 0},
    };
    for (size_t i = 0; i < sizeof(histories) / sizeof(histories[0]); i++) {
        uint64_t lsn = 7;
        assert_int_equal(roles_parse_history(histories[i].text, &lsn), histories[i].found);
        assert_true(lsn == (histories[i].found ? histories[i].lsn : 7));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_primary_a_shard),
        cmocka_unit_test(test_the_primary_is_found_by_shard),
        cmocka_unit_test(test_where_a_timeline_began),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
