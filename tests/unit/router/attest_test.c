/*
 * Goal: of a shard's primaries at most one is written to, and only the right one is ever attested:
 * never on an older timeline, never two that nobody can tell apart, never a misplaced one, never
 * against a fence that is not ours to take away.
 * Method: tables of shards; for each node what it is refused for, and which one is to be attested.
 * Stories of what was seen before, since the memory outlives nodes. Then random shards, against the
 * rules themselves.
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

#include "router/attest.h"
#include "router/health_state.h"

#define NOW_US 10000
#define WAIT_US 2000
#define NODES_MAX 4

enum fence { OPEN, BY_HAND, SWITCHOVER };

struct row {
    const char *name;
    bool up;
    enum node_role role;
    int32_t timeline;
    int32_t epoch_timeline;
    int64_t epoch;
    enum fence fence;
    int64_t fenced_for_us;
    bool misplaced;
    uint64_t cluster; /* 0: 7 */
    enum node_refusal refused;
};

#define NODE(its_name, is_up, its_role, its_timeline, given_on, its_epoch, ...)                    \
    {                                                                                              \
        .name = its_name, .up = is_up, .role = its_role, .timeline = its_timeline,                 \
        .epoch_timeline = given_on, .epoch = its_epoch, __VA_ARGS__                                \
    }
#define P NODE_PRIMARY
#define R NODE_REPLICA
#define U NODE_UNKNOWN
#define OLDER NODE_OLDER_TIMELINE
#define BEHIND NODE_EPOCH_BEHIND
#define TWINS NODE_AMBIGUOUS

struct story {
    const char *name;
    struct row before[NODES_MAX]; /* what was seen earlier; up to the first without a name */
    struct row now[NODES_MAX];
    const char *due; /* "-" for none */
};

static const struct story stories[] = {
    {"nothing", {{0}}, {{0}}, "-"},
    {"nobody has answered yet", {{0}}, {NODE("a1", 0, U, 0, 0, 0)}, "-"},
    {"all is well", {{0}}, {NODE("a1", 1, P, 1, 1, 1), NODE("a2", 1, R, 1, 1, 1)}, "-"},
    {"a new shard, on no timeline yet", {{0}}, {NODE("a1", 1, P, 1, 0, 1)}, "a1"},
    {"a replica is never attested", {{0}}, {NODE("a1", 1, R, 2, 1, 1)}, "-"},
    {"a dead primary is not", {{0}}, {NODE("a1", 0, P, 2, 1, 1)}, "-"},
    {"a misplaced one is not", {{0}}, {NODE("a1", 1, P, 2, 1, 1, .misplaced = true)}, "-"},
    {"a database that knows of no attestation needs none",
     {{0}},
     {NODE("a1", 1, P, 3, EPOCH_ON_ANY, 1)},
     "-"},
    {"the migration comes while we look on",
     {NODE("a1", 1, P, 1, EPOCH_ON_ANY, 1)},
     {NODE("a1", 1, P, 1, 0, 1)},
     "a1"},

    {"promoted: at once", {{0}}, {NODE("a1", 0, P, 1, 1, 1), NODE("a2", 1, P, 2, 1, 1)}, "a2"},
    {"the old primary is still there",
     {{0}},
     {NODE("a1", 1, P, 1, 1, 1, .refused = OLDER), NODE("a2", 1, P, 2, 1, 1)},
     "a2"},
    {"its epoch may be higher: it was given on the older timeline",
     {{0}},
     {NODE("a1", 1, P, 1, 1, 9, .refused = OLDER), NODE("a2", 1, P, 2, 1, 1)},
     "a2"},
    {"the old primary comes back alone",
     {NODE("a2", 1, P, 2, 2, 2)},
     {NODE("a1", 1, P, 1, 1, 1, .refused = OLDER)},
     "-"},
    {"a dead node's timeline counts",
     {{0}},
     {NODE("a1", 1, P, 1, 1, 1, .refused = OLDER), NODE("a2", 0, P, 2, 2, 2)},
     "-"},
    {"a replica's does, too",
     {{0}},
     {NODE("a1", 1, P, 1, 1, 1, .refused = OLDER), NODE("a2", 1, R, 2, 1, 1)},
     "-"},
    {"an unattested one below the highest timeline is not attested",
     {NODE("a2", 1, P, 3, 3, 3)},
     {NODE("a1", 1, P, 2, 1, 1, .refused = OLDER)},
     "-"},
    {"a misplaced node's timeline does not count",
     {{0}},
     {NODE("a1", 1, P, 1, 1, 1), NODE("b2", 1, P, 9, 9, 9, .misplaced = true, .cluster = 8)},
     "-"},
    {"another cluster in the shard's place starts afresh",
     {NODE("a1", 1, P, 5, 5, 5)},
     {NODE("a1", 1, P, 1, 0, 1, .cluster = 8)},
     "a1"},
    {"a promotion that missed the last attestation is right nevertheless",
     {NODE("a1", 1, P, 2, 2, 2)},
     {NODE("a1", 0, P, 2, 2, 2), NODE("a2", 1, P, 3, 1, 1)},
     "a2"},

    {"a switchover's fence is respected",
     {{0}},
     {NODE("a1", 1, P, 2, 1, 1, .fence = SWITCHOVER, .fenced_for_us = WAIT_US - 1)},
     "-"},
    {"for so long",
     {{0}},
     {NODE("a1", 1, P, 2, 1, 1, .fence = SWITCHOVER, .fenced_for_us = WAIT_US)},
     "a1"},
    {"one by hand for ever",
     {{0}},
     {NODE("a1", 1, P, 2, 1, 1, .fence = BY_HAND, .fenced_for_us = 9000)},
     "-"},
    {"a fence on an attested primary is none of our business",
     {{0}},
     {NODE("a1", 1, P, 2, 2, 1, .fence = SWITCHOVER, .fenced_for_us = 9000)},
     "-"},

    {"two that nobody can tell apart",
     {{0}},
     {NODE("a1", 1, P, 2, 1, 1, .refused = TWINS), NODE("a2", 1, P, 2, 1, 1, .refused = TWINS)},
     "-"},
    {"two attested ones",
     {{0}},
     {NODE("a1", 1, P, 2, 2, 4, .refused = TWINS), NODE("a2", 1, P, 2, 2, 4, .refused = TWINS)},
     "-"},
    {"the higher epoch",
     {{0}},
     {NODE("a1", 1, P, 2, 2, 4, .refused = BEHIND), NODE("a2", 1, P, 2, 2, 5)},
     "-"},
    {"the attested one, whatever the other's epoch",
     {{0}},
     {NODE("a1", 1, P, 2, 1, 9, .refused = BEHIND), NODE("a2", 1, P, 2, 2, 5)},
     "-"},
    {"of two unattested ones the one that has replayed more",
     {{0}},
     {NODE("a1", 1, P, 2, 1, 1, .refused = BEHIND), NODE("a2", 1, P, 2, 1, 2)},
     "a2"},
    {"twins below a better one",
     {{0}},
     {NODE("a1", 1, P, 2, 2, 4, .refused = BEHIND), NODE("a2", 1, P, 2, 2, 4, .refused = BEHIND),
      NODE("a3", 1, P, 2, 2, 5)},
     "-"},
    {"twins on the older timeline",
     {{0}},
     {NODE("a1", 1, P, 1, 1, 4, .refused = OLDER), NODE("a2", 1, P, 1, 1, 4, .refused = OLDER),
      NODE("a3", 1, P, 2, 1, 4)},
     "a3"},
    {"a dead twin is none", {{0}}, {NODE("a1", 1, P, 2, 1, 1), NODE("a2", 0, P, 2, 1, 1)}, "a1"},
    {"a second branch of a timeline that was attested elsewhere",
     {NODE("a1", 1, P, 2, 2, 2)},
     {NODE("a2", 1, P, 2, 1, 1, .refused = BEHIND)},
     "-"},
    {"attested, but behind what was seen",
     {NODE("a1", 1, P, 2, 2, 5)},
     {NODE("a2", 1, P, 2, 2, 4, .refused = BEHIND)},
     "-"},
    {"a replica may know of the attestation before its primary says so",
     {NODE("a2", 1, R, 2, 2, 2)},
     {NODE("a1", 1, P, 2, 1, 1), NODE("a2", 1, R, 2, 2, 2)},
     "a1"},
    {"an epoch of an older timeline does not raise the bar",
     {NODE("a1", 1, P, 1, 1, 9)},
     {NODE("a2", 1, P, 2, 2, 2)},
     "-"},
};

static size_t build(const struct row *rows, struct health_state *states)
{
    size_t count = 0;
    for (const struct row *row = rows; row < rows + NODES_MAX && row->name; row++) {
        struct health_state *state = &states[count++];
        health_state_init(state, "a", row->name);
        state->node.up = row->up;
        state->node.role = row->role;
        state->node.timeline = row->timeline;
        state->node.epoch = row->epoch;
        state->node.fenced = row->fence != OPEN;
        state->node.system_identifier = row->role == U ? 0 : row->cluster ? row->cluster : 7;
        state->epoch_timeline = row->epoch_timeline;
        state->node.attested = row->role == P && (row->epoch_timeline == EPOCH_ON_ANY ||
                                                  row->epoch_timeline == row->timeline);
        if (row->fence == SWITCHOVER)
            snprintf(state->fence_id, sizeof(state->fence_id), "someone");
        state->waiting_since_us = NOW_US - row->fenced_for_us;
        if (row->misplaced)
            snprintf(state->misplaced, sizeof(state->misplaced), "elsewhere");
    }
    return count;
}

static void stories_hold(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(stories) / sizeof(stories[0]); i++) {
        const struct story *story = &stories[i];
        struct health_state states[NODES_MAX];
        struct attest_memory memory = {0};
        size_t count = build(story->before, states);
        attest_remember(&memory, states, count);
        count = build(story->now, states);
        attest_remember(&memory, states, count);
        for (size_t j = 0; j < count; j++) {
            const enum node_refusal got = attest_refusal(&memory, states, count, &states[j]);
            if (got != story->now[j].refused)
                fail_msg("%s: %s is refused for \"%s\"", story->name, story->now[j].name,
                         node_refusal_name(got));
        }
        const struct health_state *due = attest_due(&memory, states, count, NOW_US, WAIT_US);
        if (strcmp(due ? due->node.name : "-", story->due) != 0)
            fail_msg("%s: %s is to be attested", story->name, due ? due->node.name : "nobody");
    }
}

/* --- the rules, on random shards ---------------------------------------------------------------
 */

static void random_shard(struct row rows[NODES_MAX])
{
    static const char *const names[] = {"a1", "a2", "a3", "a4"};
    memset(rows, 0, NODES_MAX * sizeof(rows[0]));
    for (int i = 0; i < NODES_MAX; i++) {
        rows[i] = (struct row){.name = names[i],
                               .up = rand() % 4 != 0,
                               .role = rand() % 2 ? P : R,
                               .timeline = 1 + rand() % 3,
                               .epoch_timeline = rand() % 4,
                               .epoch = 1 + rand() % 3,
                               .fence = (enum fence)(rand() % 3),
                               .fenced_for_us = rand() % (2 * WAIT_US),
                               .misplaced = rand() % 8 == 0};
    }
}

static void the_rules_hold_for_random_shards(void **state)
{
    int fenced = 0;
    (void)state;
    srand(11);
    for (int round = 0; round < 200000; round++) {
        struct row rows[NODES_MAX];
        struct health_state states[NODES_MAX];
        struct attest_memory memory = {0};
        int taken = 0;
        random_shard(rows);
        attest_remember(&memory, states, build(rows, states));
        const struct attest_memory before = memory;
        random_shard(rows);
        const size_t count = build(rows, states);
        attest_remember(&memory, states, count);
        assert_true(memory.timeline >= before.timeline);
        for (size_t i = 0; i < count; i++) {
            const struct topology_node *node = &states[i].node;
            const bool accepted =
                node->up && node->role == P && !rows[i].misplaced &&
                attest_refusal(&memory, states, count, &states[i]) == NODE_NOT_REFUSED;
            taken += accepted;
            assert_true(!accepted || node->timeline == memory.timeline);
            assert_true(!accepted || !memory.epoch ||
                        (node->attested && node->epoch >= memory.epoch));
        }
        assert_true(taken <= 1);
        const struct health_state *former = attest_to_fence(&memory, states, count);
        if (former) {
            const struct row *row = &rows[former - states];
            assert_true(row->up && row->role == P && !row->misplaced && row->fence == OPEN);
            assert_true(row->timeline < memory.timeline && taken == 1);
            fenced++;
        }
        const struct health_state *due = attest_due(&memory, states, count, NOW_US, WAIT_US);
        if (!due)
            continue;
        const struct row *row = &rows[due - states];
        assert_true(row->up && row->role == P && !row->misplaced && !due->node.attested);
        assert_true(row->timeline == memory.timeline && memory.epoch == 0);
        assert_true(row->fence == OPEN ||
                    (row->fence == SWITCHOVER && row->fenced_for_us >= WAIT_US));
        assert_int_equal(attest_refusal(&memory, states, count, due), NODE_NOT_REFUSED);
    }
    assert_true(fenced > 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stories_hold),
        cmocka_unit_test(the_rules_hold_for_random_shards),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
