/*
 * Who hands over to whom, and every reason why not.
 *
 * Goal: the best target is taken, a node that must not take over never is, and each refusal names
 * its reason. Method: a healthy shard of three nodes, one thing about it changed a case; the named
 * reasons are looked for in the text.
 *
 * SPDX-License-Identifier: MIT
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "router/switchover_ask.h"
#include "router/switchover_plan.h"

#define LAG_MAX 1000

/* a-1 is the primary, a-2 and a-3 stream from it; a-3 has replayed more. */
struct shard {
    struct switchover_node nodes[3];
    const char *to;
};

static void make_shard(struct shard *shard)
{
    static const uint64_t lsns[] = {10000, 9900, 9950};
    *shard = (struct shard){0};
    for (int i = 0; i < 3; i++) {
        struct switchover_node *node = &shard->nodes[i];
        snprintf(node->name, sizeof(node->name), "a-%d", i + 1);
        snprintf(node->shard, sizeof(node->shard), "a");
        node->answered = node->migrated = node->may_promote = true;
        node->in_recovery = node->streaming = i > 0;
        node->timeline = node->meta_timeline = 3;
        node->lsn = lsns[i];
        node->system_identifier = 77;
    }
}

static void refuses(const struct shard *shard, const char *what)
{
    struct switchover_plan plan = {9, 9};
    char text[SWITCHOVER_TEXT_MAX] = "";
    if (switchover_plan(shard->nodes, 3, "a", shard->to, LAG_MAX, &plan, text, sizeof(text)))
        fail_msg("accepted, although: %s", what);
    assert_int_equal(plan.primary, 9);
    assert_int_equal(plan.target, 9);
    if (!strstr(text, what))
        fail_msg("\"%s\" does not say: %s", text, what);
}

static void takes(const struct shard *shard, size_t primary, size_t target)
{
    struct switchover_plan plan;
    char text[SWITCHOVER_TEXT_MAX] = "";
    if (!switchover_plan(shard->nodes, 3, "a", shard->to, LAG_MAX, &plan, text, sizeof(text)))
        fail_msg("refused: %s", text);
    assert_int_equal(plan.primary, primary);
    assert_int_equal(plan.target, target);
}

/* --- the target ------------------------------------------------------------------------------- */

static void test_the_best_one_is_taken(void **unused)
{
    struct shard shard;
    (void)unused;
    make_shard(&shard);
    takes(&shard, 0, 2);
    shard.nodes[1].sync = true;
    takes(&shard, 0, 1);
    shard.nodes[1].answered = false;
    takes(&shard, 0, 2);
    make_shard(&shard);
    shard.nodes[2].streaming = false;
    takes(&shard, 0, 1);
    make_shard(&shard);
    shard.to = "a-2";
    takes(&shard, 0, 1);
}

/* What `change` does to a-2 keeps it from taking over: named it is refused, else a-3 is taken. */
static void never_takes(void (*change)(struct switchover_node *node), const char *what)
{
    struct shard shard;
    make_shard(&shard);
    shard.nodes[2].lsn = 9800;
    takes(&shard, 0, 1);
    change(&shard.nodes[1]);
    takes(&shard, 0, 2);
    shard.to = "a-2";
    refuses(&shard, what);
    shard.to = NULL;
    shard.nodes[2].answered = false;
    snprintf(shard.nodes[2].problem, sizeof(shard.nodes[2].problem), "gone");
    refuses(&shard, what);
}

static void silence(struct switchover_node *node)
{
    node->answered = false;
    snprintf(node->problem, sizeof(node->problem), "Connection refused");
}

static void make_foreign(struct switchover_node *node)
{
    node->system_identifier = 78;
}

static void cut_off(struct switchover_node *node)
{
    node->streaming = false;
}

static void leave_behind(struct switchover_node *node)
{
    node->timeline = 2;
}

static void pause_replay(struct switchover_node *node)
{
    node->replay_paused = true;
}

static void make_late(struct switchover_node *node)
{
    node->delayed = true;
}

static void let_lag(struct switchover_node *node)
{
    node->lsn = 10000 - LAG_MAX - 1;
}

static void forbid(struct switchover_node *node)
{
    node->may_promote = false;
}

static void test_who_never_takes_over(void **unused)
{
    struct shard shard;
    (void)unused;
    never_takes(silence, "a-2 does not answer: Connection refused");
    never_takes(make_foreign, "another system identifier");
    never_takes(cut_off, "a-2 is not streaming");
    never_takes(leave_behind, "a-2 is on timeline 2, its primary a-1 on 3");
    never_takes(pause_replay, "replay paused");
    never_takes(make_late, "recovery_min_apply_delay");
    never_takes(let_lag, "switchover.max_lag_bytes, 1000");
    never_takes(forbid, "GRANT EXECUTE");
    make_shard(&shard);
    shard.nodes[1].lsn = 10000 - LAG_MAX; /* just in time */
    shard.to = "a-2";
    takes(&shard, 0, 1);
    shard.nodes[1].lsn = 10001; /* looked at a moment later than the primary */
    takes(&shard, 0, 1);
}

static void test_named_wrongly(void **unused)
{
    struct shard shard;
    struct switchover_plan plan;
    char text[SWITCHOVER_TEXT_MAX] = "";
    (void)unused;
    make_shard(&shard);
    shard.to = "a-1";
    refuses(&shard, "a-1 is the primary already");
    shard.to = "b-1";
    refuses(&shard, "shard a has no node 'b-1'");
    assert_false(switchover_plan(shard.nodes, 1, "a", NULL, LAG_MAX, &plan, text, sizeof(text)));
    assert_non_null(strstr(text, "shard a has no replica"));
    shard.to = "a-2";
    shard.nodes[1].in_recovery = false;
    shard.nodes[1].timeline = 2;
    refuses(&shard, "a-2 is no standby");
}

/* --- the primary ------------------------------------------------------------------------------ */

static void test_the_primary_that_hands_over(void **unused)
{
    struct shard shard;
    (void)unused;
    make_shard(&shard);
    shard.nodes[0].in_recovery = true;
    refuses(&shard, "no primary on timeline 3");
    silence(&shard.nodes[0]);
    refuses(&shard, "a-1 does not answer: Connection refused");
    make_shard(&shard);
    shard.nodes[1].in_recovery = false; /* two of them */
    refuses(&shard, "a-1 and a-2 both are primaries on timeline 3");
    shard.nodes[1].timeline = 4; /* a-1 is of the past, nobody follows a-2 */
    refuses(&shard, "a-1 is no standby");
    shard.nodes[2].timeline = 4;
    takes(&shard, 1, 2);
    make_shard(&shard);
    shard.nodes[1].timeline = 4; /* a standby of a primary that nobody sees */
    refuses(&shard, "no primary on timeline 4");
    make_shard(&shard);
    shard.nodes[0].migrated = false;
    refuses(&shard, "seatgrid migrate");
    make_shard(&shard);
    snprintf(shard.nodes[0].shard, sizeof(shard.nodes[0].shard), "b");
    refuses(&shard, "belongs to shard 'b', not to a");
}

static void fence(struct switchover_node *node, const char *id, const char *until)
{
    node->fenced = true;
    snprintf(node->fence_id, sizeof(node->fence_id), "%s", id);
    snprintf(node->fenced_until, sizeof(node->fenced_until), "%s", until);
}

static void test_a_fenced_shard_is_left_alone(void **unused)
{
    struct shard shard;
    (void)unused;
    make_shard(&shard);
    fence(&shard.nodes[0], "", "");
    refuses(&shard, "fenced by hand");
    fence(&shard.nodes[0], "0190", "2026-11-21 10:00:00+00");
    refuses(&shard, "fenced by switchover 0190 until 2026-11-21");
    fence(&shard.nodes[0], "0190", "infinity");
    refuses(&shard, "--abort");
    shard.nodes[0].fenced = false; /* it has ended by itself */
    takes(&shard, 0, 2);
}

/* --- abort ------------------------------------------------------------------------------------ */

static void may_not_abort(const struct shard *shard, const char *what)
{
    size_t primary = 9;
    char text[SWITCHOVER_TEXT_MAX] = "";
    assert_false(switchover_may_abort(shard->nodes, 3, "a", &primary, text, sizeof(text)));
    assert_int_equal(primary, 9);
    if (!strstr(text, what))
        fail_msg("\"%s\" does not say: %s", text, what);
}

static void test_abort(void **unused)
{
    struct shard shard;
    size_t primary = 9;
    char text[SWITCHOVER_TEXT_MAX] = "";
    (void)unused;
    make_shard(&shard);
    may_not_abort(&shard, "a-1 is not fenced");
    fence(&shard.nodes[0], "", "");
    may_not_abort(&shard, "by hand");
    fence(&shard.nodes[0], "0190", "infinity");
    assert_true(switchover_may_abort(shard.nodes, 3, "a", &primary, text, sizeof(text)));
    assert_int_equal(primary, 0);
    silence(&shard.nodes[2]);
    may_not_abort(&shard, "a-3 does not answer, so it may have been promoted");
    make_shard(&shard);
    fence(&shard.nodes[0], "0190", "infinity");
    shard.nodes[1].in_recovery = false;
    shard.nodes[1].timeline = 4;
    fence(&shard.nodes[1], "0190", "infinity");
    may_not_abort(&shard, "a-2 has been promoted");
    shard.nodes[1].timeline = 3;
    may_not_abort(&shard, "both are primaries");
    make_shard(&shard);
    fence(&shard.nodes[0], "0190", "infinity");
    shard.nodes[0].meta_timeline = 2; /* it is the promoted one */
    may_not_abort(&shard, "a router does by itself");
    shard.nodes[0].meta_timeline = 0; /* a shard that no router has attested yet */
    assert_true(switchover_may_abort(shard.nodes, 3, "a", &primary, text, sizeof(text)));
}

/* --- names ------------------------------------------------------------------------------------ */

static void test_names_hold(void **unused)
{
    (void)unused;
    assert_true(switchover_names_hold("a-1,a-2", "a-1"));
    assert_true(switchover_names_hold("a-1,a-2", "a-2"));
    assert_true(switchover_names_hold("a-2", "a-2"));
    assert_false(switchover_names_hold("a-1,a-22", "a-2"));
    assert_false(switchover_names_hold("a-1,a-2", "a"));
    assert_false(switchover_names_hold("", "a"));
    assert_false(switchover_names_hold(",,", "a"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_best_one_is_taken),
        cmocka_unit_test(test_who_never_takes_over),
        cmocka_unit_test(test_named_wrongly),
        cmocka_unit_test(test_the_primary_that_hands_over),
        cmocka_unit_test(test_a_fenced_shard_is_left_alone),
        cmocka_unit_test(test_abort),
        cmocka_unit_test(test_names_hold),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
