/*
 * Goal: one bad probe flaps nothing, a dead node is found, roles are followed at once, a node of
 * the wrong identity is never published as up, and a refused primary is no measure of freshness.
 * Method: answers written as letters drive the state machine; the expected `up` is written below
 * them, letter by letter. Identity by tables of nodes.
 *
 * SPDX-License-Identifier: MIT
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "router/health_state.h"

static const struct health_limits limits = {
    .down_after = 3,
    .up_after = 2,
    .rotation = {
        .bound_us = 1000, .back_us = 500, .samples = 3, .needed = 2, .slow_start_us = 900}};

static struct health_answer good(enum node_role role, int32_t timeline, uint64_t lsn)
{
    return (struct health_answer){.ok = true,
                                  .role = role,
                                  .timeline = timeline,
                                  .lsn = lsn,
                                  .system_identifier = 42,
                                  .migrated = true,
                                  .shard = "a",
                                  .epoch = 1,
                                  .epoch_timeline = timeline,
                                  .asked_us = 1000};
}

static struct health_answer bad(const char *error)
{
    struct health_answer answer = {.ok = false};
    snprintf(answer.error, sizeof(answer.error), "%s", error);
    return answer;
}

/* + a good answer, - a failure; u up after it, d down after it */
static const struct {
    const char *answers;
    const char *expect;
} letters[] = {
    {"+", "u"},                     /* a start does not wait for up_after */
    {"-+", "du"},                   /* not judged yet: the first good answer counts */
    {"+-+-+-+-+", "uuuuuuuuu"},     /* one bad probe in two flaps nothing */
    {"+--+--+", "uuuuuuu"},         /* nor two in a row */
    {"+---", "uuud"},               /* three do */
    {"---+", "dddd"},               /* once found down, one good answer is not enough */
    {"---++", "ddddu"},             /* two are */
    {"---+-+-+-++", "ddddddddddu"}, /* in a row */
    {"+---++---++", "uuudduuudd"
                    "u"},
};

static void letters_hold(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(letters) / sizeof(letters[0]); i++) {
        struct health_state node;
        health_state_init(&node, "a", "a1");
        assert_false(node.node.up);
        for (size_t j = 0; letters[i].answers[j]; j++) {
            struct health_answer answer =
                letters[i].answers[j] == '+' ? good(NODE_PRIMARY, 1, 100) : bad("refused");
            node = health_step(&node, &answer, &limits);
            if (node.node.up != (letters[i].expect[j] == 'u'))
                fail_msg("\"%s\", answer %zu: up is %d", letters[i].answers, j + 1, node.node.up);
            if (node.node.up)
                assert_string_equal(node.node.last_error, "");
            else
                assert_true(node.node.last_error[0] != '\0');
        }
    }
}

static void the_newest_reason_is_shown(void **state)
{
    (void)state;
    struct health_state node;
    health_state_init(&node, "a", "a1");
    assert_string_equal(node.node.last_error, "no answer yet");
    const char *const reasons[] = {"one", "two", "three", "four"};
    for (int i = 0; i < 4; i++) {
        struct health_answer answer = bad(reasons[i]);
        node = health_step(&node, &answer, &limits);
        assert_string_equal(node.node.last_error, reasons[i]);
    }
    assert_int_equal(node.node.role, NODE_UNKNOWN);
}

static void roles_and_fences_are_believed_at_once(void **state)
{
    (void)state;
    struct health_state before;
    struct health_state after;
    health_state_init(&before, "a", "a1");
    struct health_answer answer = good(NODE_REPLICA, 1, 100);
    before = health_step(&before, &answer, &limits);
    after = health_step(&before, &answer, &limits);
    assert_false(health_changed(&before, &after));
    answer = good(NODE_PRIMARY, 2, 110); /* promoted */
    after = health_step(&before, &answer, &limits);
    assert_int_equal(after.node.role, NODE_PRIMARY);
    assert_int_equal(after.node.timeline, 2);
    assert_true(health_changed(&before, &after));
    before = after;
    answer.fenced = true;
    after = health_step(&before, &answer, &limits);
    assert_true(after.node.fenced && health_changed(&before, &after));
    /* The last known role outlives the node's death: its timeline still outranks older ones. */
    for (int i = 0; i < 3; i++) {
        answer = bad("EOF");
        after = health_step(&after, &answer, &limits);
    }
    assert_false(after.node.up);
    assert_int_equal(after.node.timeline, 2);
}

static void a_replicas_timeline_goes_back_only_with_a_new_connection(void **state)
{
    (void)state;
    struct health_state node;
    health_state_init(&node, "a", "a2");
    struct health_answer answer = good(NODE_REPLICA, 3, 100);
    node = health_step(&node, &answer, &limits);
    answer.timeline = 2; /* its receiver died; the control file lags */
    node = health_step(&node, &answer, &limits);
    assert_int_equal(node.node.timeline, 3);
    answer.first = true;
    node = health_step(&node, &answer, &limits);
    assert_int_equal(node.node.timeline, 2);
    answer = good(NODE_PRIMARY, 1, 100); /* a primary knows for sure */
    node = health_step(&node, &answer, &limits);
    assert_int_equal(node.node.timeline, 1);
}

static void an_unmigrated_database_has_neither_epoch_nor_fence(void **state)
{
    (void)state;
    struct health_state node;
    health_state_init(&node, "a", "a1");
    struct health_answer answer = good(NODE_PRIMARY, 1, 100);
    answer.migrated = false;
    answer.fenced = true;
    node = health_step(&node, &answer, &limits);
    assert_true(node.node.up);
    assert_int_equal(node.node.epoch, 0);
    assert_false(node.node.fenced);
    assert_string_equal(node.claimed_shard, "");
}

static void an_attestation_is_of_one_timeline(void **state)
{
    (void)state;
    struct health_state before;
    struct health_state after;
    health_state_init(&before, "a", "a1");
    struct health_answer answer = good(NODE_PRIMARY, 2, 100);
    answer.epoch_timeline = 1;
    before = health_step(&before, &answer, &limits);
    assert_false(before.node.attested);
    answer.epoch_timeline = 2;
    after = health_step(&before, &answer, &limits);
    assert_true(after.node.attested && health_changed(&before, &after));
    answer.epoch_timeline = EPOCH_ON_ANY; /* before migration 4 */
    after = health_step(&before, &answer, &limits);
    assert_true(after.node.attested);
    answer.migrated = false; /* before any */
    answer.epoch_timeline = 0;
    after = health_step(&before, &answer, &limits);
    assert_true(after.node.attested);
    answer = good(NODE_REPLICA, 2, 100);
    answer.received_lsn = 150;
    after = health_step(&before, &answer, &limits);
    assert_false(after.node.attested);
    assert_int_equal(after.node.received_lsn, 150);
    answer = good(NODE_PRIMARY, 3, 100);
    answer.received_lsn = 150;
    after = health_step(&after, &answer, &limits);
    assert_int_equal(after.node.received_lsn, 0);
}

/* A fenced primary that is not attested waits since it was first seen so, with this fence and on
 * this timeline. */
static void the_wait_behind_a_fence_has_one_beginning(void **state)
{
    (void)state;
    struct health_state node;
    health_state_init(&node, "a", "a1");
    struct health_answer answer = good(NODE_PRIMARY, 2, 100);
    answer.epoch_timeline = 1;
    answer.fenced = true;
    snprintf(answer.fence_id, sizeof(answer.fence_id), "one");
    const struct {
        int64_t asked_us;
        int32_t timeline;
        bool fenced;
        const char *fence_id;
        int64_t since_us;
    } steps[] = {{10, 2, true, "one", 10}, {20, 2, true, "one", 10}, {30, 2, true, "two", 30},
                 {40, 2, true, "two", 30}, {50, 3, true, "two", 50}, {60, 3, false, "", 0},
                 {70, 3, true, "two", 70}, {80, 3, true, "two", 70}};
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        answer.asked_us = steps[i].asked_us;
        answer.timeline = steps[i].timeline;
        answer.fenced = steps[i].fenced;
        snprintf(answer.fence_id, sizeof(answer.fence_id), "%s", steps[i].fence_id);
        node = health_step(&node, &answer, &limits);
        assert_int_equal(node.waiting_since_us, steps[i].since_us);
    }
    answer.epoch_timeline = 3;
    node = health_step(&node, &answer, &limits);
    assert_int_equal(node.waiting_since_us, 0);
}

struct placed {
    const char *shard;
    const char *node;
    uint64_t system_identifier; /* 0: never answered */
    const char *claims;         /* "" unmigrated */
    const char *expect;         /* part of `misplaced`; "" rightly placed */
};

static const struct placed placements[][6] = {
    {{"a", "a1", 1, "a", ""}, {"a", "a2", 1, "a", ""}, {"b", "b1", 2, "b", ""}},
    /* before any migration */
    {{"a", "a1", 1, "", ""}, {"a", "a2", 1, "", ""}, {"b", "b1", 2, "", ""}},
    /* a node of shard b listed under a */
    {{"a", "a1", 1, "a", ""}, {"a", "a2", 2, "b", "shard \"b\""}, {"b", "b1", 2, "b", ""}},
    /* one PostgreSQL for two shards: the first in the map keeps it */
    {{"a", "a1", 1, "", ""}, {"b", "b1", 1, "", "as node \"a1\" of shard \"a\""}},
    /* two databases of one cluster, each migrated for its shard: still one PostgreSQL */
    {{"a", "a1", 1, "a", ""}, {"b", "b1", 1, "b", "as node \"a1\" of shard \"a\""}},
    /* a replica of something else under shard a; the migrated one stands for the shard */
    {{"a", "a1", 9, "", "cluster than node \"a2\""}, {"a", "a2", 1, "a", ""}},
    {{"a", "a1", 1, "", ""}, {"a", "a2", 9, "", "cluster than node \"a1\""}},
    /* a dead node says nothing and accuses nobody */
    {{"a", "a1", 0, "", ""}, {"b", "b1", 0, "", ""}, {"b", "b2", 3, "b", ""}},
    /* a misplaced node does not take the blame of others with it */
    {{"a", "a1", 1, "a", ""}, {"a", "a2", 2, "b", "shard \"b\""}, {"b", "b1", 2, "", ""}},
};

static void identities_are_judged(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(placements) / sizeof(placements[0]); i++) {
        struct health_state states[6];
        size_t count = 0;
        for (const struct placed *p = placements[i]; p < placements[i] + 6 && p->shard; p++) {
            health_state_init(&states[count], p->shard, p->node);
            if (p->system_identifier) {
                struct health_answer answer = good(NODE_PRIMARY, 1, 100);
                answer.system_identifier = p->system_identifier;
                answer.migrated = p->claims[0] != '\0';
                snprintf(answer.shard, sizeof(answer.shard), "%s", p->claims);
                states[count] = health_step(&states[count], &answer, &limits);
            }
            count++;
        }
        health_identify(states, count);
        for (size_t j = 0; j < count; j++) {
            const char *expect = placements[i][j].expect;
            const char *got = states[j].misplaced;
            if (expect[0] ? !strstr(got, expect) : got[0] != '\0')
                fail_msg("placement %zu, node %s: \"%s\", expected \"%s\"", i, states[j].node.name,
                         got, expect);
            static const struct health_shard none;
            struct topology_node out;
            health_show(&none, &states[j], 1, &limits, 0, &out);
            assert_int_equal(out.up, states[j].node.up && !expect[0]);
            if (expect[0])
                assert_string_equal(out.last_error, got);
        }
    }
}

static void step(struct health_state *node, enum node_role role, int32_t timeline, uint64_t lsn,
                 int64_t asked_us)
{
    struct health_answer answer = good(role, timeline, lsn);
    answer.asked_us = asked_us;
    *node = health_step(node, &answer, &limits);
}

static int64_t published_staleness(struct health_state *node, struct health_shard *shard,
                                   int64_t now_us)
{
    struct topology_node out;
    health_show(shard, node, 1, &limits, now_us, &out);
    assert_int_equal(out.sampled_us, now_us);
    return out.staleness_us;
}

/* The life of a shard: fresh, receiver dies, promotion, the old primary follows. */
static void staleness_follows_the_shards_life(void **state)
{
    (void)state;
    struct health_state nodes[2];
    static struct health_shard shard;
    memset(&shard, 0, sizeof(shard));
    health_state_init(&nodes[0], "a", "a1");
    health_state_init(&nodes[1], "a", "a2");
    step(&nodes[1], NODE_REPLICA, 1, 100, 10);
    health_learn(&shard, nodes, 2);
    assert_int_equal(published_staleness(&nodes[1], &shard, 20), STALENESS_UNKNOWN);
    step(&nodes[0], NODE_PRIMARY, 1, 100, 30);
    health_learn(&shard, nodes, 2);
    assert_int_equal(published_staleness(&nodes[1], &shard, 35), 5);
    assert_int_equal(published_staleness(&nodes[0], &shard, 35), 0);
    /* the receiver is dead: the primary goes on, the replica does not */
    step(&nodes[0], NODE_PRIMARY, 1, 900, 1000);
    step(&nodes[1], NODE_REPLICA, 1, 100, 1000);
    health_learn(&shard, nodes, 2);
    assert_int_equal(published_staleness(&nodes[1], &shard, 1030), 1000);
    /* promotion of a2; a1 restarts as a replica, still on its old timeline: never fresh */
    step(&nodes[1], NODE_PRIMARY, 2, 950, 2000);
    step(&nodes[0], NODE_REPLICA, 1, 950, 2000);
    health_learn(&shard, nodes, 2);
    assert_int_equal(published_staleness(&nodes[0], &shard, 2010), STALENESS_UNKNOWN);
    step(&nodes[0], NODE_REPLICA, 2, 950, 2100);
    assert_int_equal(published_staleness(&nodes[0], &shard, 2110), 110);
    /* the shard is rebuilt from nothing: another cluster, timeline 1 again */
    for (int i = 0; i < 2; i++) {
        struct health_answer answer = good(i == 0 ? NODE_PRIMARY : NODE_REPLICA, 1, 50);
        answer.first = true;
        answer.system_identifier = 43;
        answer.asked_us = 3000;
        nodes[i] = health_step(&nodes[i], &answer, &limits);
    }
    health_learn(&shard, nodes, 2);
    assert_int_equal(published_staleness(&nodes[1], &shard, 3001), 1);
}

static void a_misplaced_primary_is_not_sampled(void **state)
{
    (void)state;
    struct health_state node;
    static struct health_shard shard;
    memset(&shard, 0, sizeof(shard));
    health_state_init(&node, "a", "a1");
    step(&node, NODE_PRIMARY, 7, 100, 10);
    snprintf(node.misplaced, sizeof(node.misplaced), "elsewhere");
    health_learn(&shard, &node, 1);
    assert_int_equal(shard.history.count, 0);
    struct topology_node out;
    health_show(&shard, &node, 1, &limits, 20, &out);
    assert_int_equal(out.timeline, 0); /* or it would outrank the shard's own primary */
    assert_int_equal(out.role, NODE_UNKNOWN);
}

/* Its LSNs are of WAL that the shard has left behind: no replica is fresh by them. */
static void a_refused_primary_is_not_sampled(void **state)
{
    (void)state;
    struct health_state nodes[3];
    static struct health_shard shard;
    struct topology_node out[3];
    memset(&shard, 0, sizeof(shard));
    health_state_init(&nodes[0], "a", "a1");
    health_state_init(&nodes[1], "a", "a2");
    health_state_init(&nodes[2], "a", "a3");
    step(&nodes[0], NODE_PRIMARY, 1, 100, 10);
    step(&nodes[1], NODE_REPLICA, 1, 100, 10);
    health_learn(&shard, nodes, 3);
    step(&nodes[2], NODE_REPLICA, 2, 120, 20); /* somebody has been promoted */
    step(&nodes[0], NODE_PRIMARY, 1, 100, 900);
    health_learn(&shard, nodes, 3);
    health_show(&shard, nodes, 3, &limits, 1000, out);
    assert_int_equal(out[0].refused, NODE_OLDER_TIMELINE);
    assert_int_equal(out[1].staleness_us, 990);
    assert_int_equal(out[2].staleness_us, STALENESS_UNKNOWN);
}

/* Rotation follows up, role and identity; an answer is a sample, a failure is none. */
static void rotation_is_for_replicas_that_are_up(void **state)
{
    (void)state;
    struct health_state nodes[2];
    static struct health_shard shard;
    struct topology_node out[2];
    const struct health_answer failure = bad("EOF");
    memset(&shard, 0, sizeof(shard));
    health_state_init(&nodes[0], "a", "a1");
    health_state_init(&nodes[1], "a", "a2");
    health_rotate(&nodes[1], &shard, false, &limits, 5); /* nothing known: nothing to earn */
    step(&nodes[0], NODE_PRIMARY, 1, 100, 10);
    health_learn(&shard, nodes, 2);
    step(&nodes[1], NODE_REPLICA, 1, 100, 10);
    health_rotate(&nodes[0], &shard, true, &limits, 20);
    health_rotate(&nodes[1], &shard, true, &limits, 20);
    health_show(&shard, nodes, 2, &limits, 20, out);
    assert_true(out[1].in_rotation && !out[0].in_rotation);
    assert_int_equal(out[1].weight, 100);
    /* failures below down_after are no samples, however long they take */
    for (int i = 0; i < 2; i++) {
        nodes[1] = health_step(&nodes[1], &failure, &limits);
        health_rotate(&nodes[1], &shard, false, &limits, 90000);
        assert_true(nodes[1].rotation.in);
    }
    nodes[1] = health_step(&nodes[1], &failure, &limits);
    health_rotate(&nodes[1], &shard, false, &limits, 90000);
    assert_false(nodes[1].node.up || nodes[1].rotation.in);
    /* up after two good answers, in after two samples from then on, with a small share at first */
    const bool in[] = {false, false, true};
    for (int i = 0; i < 3; i++) {
        step(&nodes[0], NODE_PRIMARY, 1, 100, 100000 + i);
        health_learn(&shard, nodes, 2);
        step(&nodes[1], NODE_REPLICA, 1, 100, 100000 + i);
        health_rotate(&nodes[1], &shard, true, &limits, 100000 + i);
        assert_int_equal(nodes[1].rotation.in, in[i]);
    }
    health_show(&shard, nodes, 2, &limits, 100002, out);
    assert_int_equal(out[1].weight, 10);
    /* promoted, and a replica again */
    step(&nodes[1], NODE_PRIMARY, 2, 100, 100010);
    health_rotate(&nodes[1], &shard, true, &limits, 100010);
    assert_false(nodes[1].rotation.in);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(letters_hold),
        cmocka_unit_test(the_newest_reason_is_shown),
        cmocka_unit_test(roles_and_fences_are_believed_at_once),
        cmocka_unit_test(a_replicas_timeline_goes_back_only_with_a_new_connection),
        cmocka_unit_test(an_unmigrated_database_has_neither_epoch_nor_fence),
        cmocka_unit_test(identities_are_judged),
        cmocka_unit_test(staleness_follows_the_shards_life),
        cmocka_unit_test(a_misplaced_primary_is_not_sampled),
        cmocka_unit_test(a_refused_primary_is_not_sampled),
        cmocka_unit_test(an_attestation_is_of_one_timeline),
        cmocka_unit_test(the_wait_behind_a_fence_has_one_beginning),
        cmocka_unit_test(rotation_is_for_replicas_that_are_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
