/*
 * The steps of a switchover.
 *
 * Goal: every step leads where the drawing in switchover_state.h says, whatever happens in it; from
 * no state and by no history does a promotion follow an undo, or an undo a promotion that may have
 * been heard; everything ends. Method: the whole table, step by event, once more by hand; then all
 * histories of bounded length, walked without the table.
 *
 * SPDX-License-Identifier: MIT
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "router/switchover_state.h"

#define STEPS (SWITCHOVER_DONE)

static enum switchover_step after(enum switchover_step step, enum switchover_event event)
{
    struct switchover_state state;
    switchover_state_init(&state, false, false);
    state.step = step;
    switchover_advance(&state, event);
    return state.step;
}

/* --- the table -------------------------------------------------------------------------------- */

static void test_every_step_and_event(void **unused)
{
    static const struct {
        const char *step;
        const char *next[SWITCHOVER_EVENT_COUNT]; /* ok, no, lost, deadline, stopped */
    } cases[] = {
        {"look", {"lock", "refused", "refused", "refused", "refused"}},
        {"lock", {"near", "refused", "refused", "refused", "refused"}},
        {"recheck", {"unfence", "refused", "refused", "refused", "refused"}},
        {"near", {"meet", "refused", "refused", "refused", "refused"}},
        {"meet", {"lead", "refused", "lead", "refused", "refused"}},
        {"lead", {"fence", "fence", "fence", "fence", "refused"}},
        {"fence", {"end", "refused", "unfence", "unfence", "unfence"}},
        {"end", {"replay", "unfence", "unfence", "unfence", "unfence"}},
        {"replay", {"drain", "unfence", "unfence", "unfence", "unfence"}},
        {"drain", {"keep", "unfence", "keep", "unfence", "unfence"}},
        {"keep", {"kept", "unfence", "unfence", "unfence", "unfence"}},
        {"kept", {"promote", "unfence", "unfence", "unfence", "unfence"}},
        {"promote", {"watch", "unfence", "watch", "watch", "promote"}},
        {"watch", {"slot", "promote", "watch", "left", "watch"}},
        {"slot", {"attest", "attest", "attest", "attest", "slot"}},
        {"attest", {"tidy", "left", "attest", "left", "attest"}},
        {"tidy", {"rejoin", "rejoin", "rejoin", "rejoin", "tidy"}},
        {"rejoin", {"done", "done", "done", "done", "rejoin"}},
        {"unfence", {"undone", "undone", "unfence", "undone", "unfence"}},
        {"unlead", {"undone", "undone", "undone", "undone", "undone"}},
    };
    (void)unused;
    assert_int_equal(sizeof(cases) / sizeof(cases[0]), STEPS);
    for (size_t i = 0; i < STEPS; i++) {
        const enum switchover_step step = switchover_step_by_name(cases[i].step);
        assert_int_equal(step, i);
        for (int event = 0; event < SWITCHOVER_EVENT_COUNT; event++) {
            const char *next = switchover_step_name(after(step, (enum switchover_event)event));
            if (strcmp(next, cases[i].next[event]) != 0)
                fail_msg("%s, event %d: %s, not %s", cases[i].step, event, next,
                         cases[i].next[event]);
        }
    }
}

static void test_names(void **unused)
{
    (void)unused;
    for (int step = 0; step < SWITCHOVER_STEP_COUNT; step++) {
        assert_true(switchover_step_name((enum switchover_step)step)[0]);
        assert_true(switchover_step_text((enum switchover_step)step)[0]);
        assert_int_equal(switchover_ended((enum switchover_step)step), step >= SWITCHOVER_DONE);
    }
    assert_int_equal(switchover_step_by_name("done"), SWITCHOVER_STEP_COUNT);
    assert_int_equal(switchover_step_by_name(""), SWITCHOVER_STEP_COUNT);
}

/* --- what a step remembers -------------------------------------------------------------------- */

static void walk(struct switchover_state *state, enum switchover_step until)
{
    for (int i = 0; i < STEPS && state->step != until; i++)
        switchover_advance(state, SWITCHOVER_OK);
    assert_int_equal(state->step, until);
}

static void test_a_consumer_that_is_not_there_is_left_out(void **unused)
{
    struct switchover_state state;
    (void)unused;
    switchover_state_init(&state, false, false);
    walk(&state, SWITCHOVER_MEET);
    switchover_advance(&state, SWITCHOVER_LOST);
    walk(&state, SWITCHOVER_REPLAY);
    switchover_advance(&state, SWITCHOVER_OK);
    assert_int_equal(state.step, SWITCHOVER_KEEP);
    walk(&state, SWITCHOVER_WATCH);
    switchover_advance(&state, SWITCHOVER_OK);
    assert_int_equal(state.step, SWITCHOVER_ATTEST);
    walk(&state, SWITCHOVER_DONE);
}

static void test_a_consumer_lost_behind_the_fence_gets_no_slot(void **unused)
{
    struct switchover_state state;
    (void)unused;
    switchover_state_init(&state, false, false);
    walk(&state, SWITCHOVER_DRAIN);
    switchover_advance(&state, SWITCHOVER_LOST);
    assert_int_equal(state.step, SWITCHOVER_KEEP);
    assert_false(state.consumer);
    walk(&state, SWITCHOVER_WATCH);
    switchover_advance(&state, SWITCHOVER_OK);
    assert_int_equal(state.step, SWITCHOVER_ATTEST);
}

static void test_a_slow_consumer_is_left_behind_only_when_asked(void **unused)
{
    static const enum switchover_event slow[] = {SWITCHOVER_NO, SWITCHOVER_DEADLINE};
    struct switchover_state state;
    (void)unused;
    for (int i = 0; i < 2; i++) {
        switchover_state_init(&state, false, true);
        walk(&state, SWITCHOVER_DRAIN);
        switchover_advance(&state, slow[i]);
        assert_int_equal(state.step, SWITCHOVER_KEEP);
        assert_false(state.consumer);
        switchover_state_init(&state, false, true);
        walk(&state, SWITCHOVER_MEET);
        switchover_advance(&state, slow[i]);
        assert_int_equal(state.step, SWITCHOVER_LEAD);
        switchover_state_init(&state, false, true);
        walk(&state, SWITCHOVER_DRAIN);
        switchover_advance(&state, SWITCHOVER_STOPPED);
        assert_int_equal(state.step, SWITCHOVER_UNFENCE);
    }
}

static void test_an_order_that_was_refused_is_undone(void **unused)
{
    struct switchover_state state;
    (void)unused;
    switchover_state_init(&state, false, false);
    walk(&state, SWITCHOVER_PROMOTE);
    switchover_advance(&state, SWITCHOVER_NO);
    assert_int_equal(state.step, SWITCHOVER_UNFENCE);
    assert_true(state.kept);
    switchover_advance(&state, SWITCHOVER_DEADLINE);
    assert_int_equal(state.step, SWITCHOVER_UNLEAD);
    switchover_advance(&state, SWITCHOVER_OK);
    assert_int_equal(state.step, SWITCHOVER_STUCK);
}

/* The standbys that follow the target go back, whatever became of that; only before they were led
 * there is nothing to take back. */
static void test_who_was_led_is_led_back(void **unused)
{
    struct switchover_state state;
    (void)unused;
    switchover_state_init(&state, false, false);
    walk(&state, SWITCHOVER_MEET);
    switchover_advance(&state, SWITCHOVER_STOPPED);
    assert_int_equal(state.step, SWITCHOVER_REFUSED);
    for (int event = 0; event < SWITCHOVER_EVENT_COUNT; event++) {
        switchover_state_init(&state, false, false);
        walk(&state, SWITCHOVER_LEAD);
        switchover_advance(&state, SWITCHOVER_STOPPED);
        assert_int_equal(state.step, SWITCHOVER_UNLEAD);
        switchover_advance(&state, (enum switchover_event)event);
        assert_int_equal(state.step, SWITCHOVER_REFUSED);
        switchover_state_init(&state, false, false);
        walk(&state, SWITCHOVER_FENCE);
        switchover_advance(&state, SWITCHOVER_LOST);
        switchover_advance(&state, SWITCHOVER_OK);
        assert_int_equal(state.step, SWITCHOVER_UNLEAD);
        switchover_advance(&state, (enum switchover_event)event);
        assert_int_equal(state.step, SWITCHOVER_UNDONE);
    }
}

/* Lost, so perhaps heard: a later refusal proves nothing, only the target's own word does. */
static void test_a_doubtful_order_is_never_undone(void **unused)
{
    struct switchover_state state;
    (void)unused;
    switchover_state_init(&state, false, false);
    walk(&state, SWITCHOVER_PROMOTE);
    switchover_advance(&state, SWITCHOVER_LOST);
    assert_int_equal(state.step, SWITCHOVER_WATCH);
    assert_true(state.doubtful);
    switchover_advance(&state, SWITCHOVER_NO);
    assert_int_equal(state.step, SWITCHOVER_PROMOTE);
    switchover_advance(&state, SWITCHOVER_NO);
    assert_int_equal(state.step, SWITCHOVER_WATCH);
    switchover_advance(&state, SWITCHOVER_NO);
    switchover_advance(&state, SWITCHOVER_OK);
    assert_false(state.doubtful);
    switchover_advance(&state, SWITCHOVER_DEADLINE);
    assert_int_equal(state.step, SWITCHOVER_LEFT);
}

static void test_a_fence_with_an_end_is_never_stuck(void **unused)
{
    struct switchover_state state;
    (void)unused;
    switchover_state_init(&state, false, false);
    walk(&state, SWITCHOVER_REPLAY);
    switchover_advance(&state, SWITCHOVER_DEADLINE);
    switchover_advance(&state, SWITCHOVER_LOST);
    switchover_advance(&state, SWITCHOVER_DEADLINE);
    switchover_advance(&state, SWITCHOVER_OK);
    assert_int_equal(state.step, SWITCHOVER_UNDONE);
}

static void test_abort_lifts_and_nothing_else(void **unused)
{
    struct switchover_state state;
    (void)unused;
    switchover_state_init(&state, true, false);
    switchover_advance(&state, SWITCHOVER_OK);
    switchover_advance(&state, SWITCHOVER_OK);
    assert_int_equal(state.step, SWITCHOVER_RECHECK);
    switchover_advance(&state, SWITCHOVER_OK);
    assert_int_equal(state.step, SWITCHOVER_UNFENCE);
    switchover_advance(&state, SWITCHOVER_DEADLINE);
    assert_int_equal(state.step, SWITCHOVER_STUCK);
}

/* --- all histories ---------------------------------------------------------------------------- */

struct history {
    bool led;      /* a standby may follow the target */
    bool back;     /* it was told to follow the old primary again */
    bool fenced;   /* may be up */
    bool lifted;   /* an undo was begun */
    bool heard;    /* a promotion may have been heard */
    bool attested; /* was asked for */
};

static unsigned long ends_seen;

/* Retries that change nothing are cut: `again` bounds them. */
static void explore(const struct switchover_state *at, struct history history, int depth)
{
    for (int e = 0; e < SWITCHOVER_EVENT_COUNT; e++) {
        const enum switchover_event event = (enum switchover_event)e;
        struct switchover_state next = *at;
        struct history then = history;
        if (at->step == SWITCHOVER_FENCE && event != SWITCHOVER_NO)
            then.fenced = true;
        if (at->step == SWITCHOVER_PROMOTE && event != SWITCHOVER_NO && event != SWITCHOVER_STOPPED)
            then.heard = true;
        if (event == SWITCHOVER_STOPPED && !switchover_may_stop(at->step))
            continue;
        switchover_advance(&next, event);
        then.led = then.led || at->step == SWITCHOVER_LEAD;
        then.back = then.back || at->step == SWITCHOVER_UNLEAD;
        then.lifted = then.lifted || next.step == SWITCHOVER_UNFENCE;
        then.attested = then.attested || next.step == SWITCHOVER_ATTEST;
        assert_false(then.lifted && then.heard);
        assert_false(then.back && (then.heard || !then.led));
        assert_true(!switchover_ended(next.step) || then.heard || then.back == then.led);
        assert_false(next.step == SWITCHOVER_REFUSED && then.fenced);
        assert_false(next.step == SWITCHOVER_UNDONE && then.heard);
        assert_false(next.step == SWITCHOVER_STUCK && then.heard);
        assert_false(next.step == SWITCHOVER_LEFT && !then.heard);
        assert_false(next.step == SWITCHOVER_ATTEST && !then.heard);
        assert_false(next.step == SWITCHOVER_DONE && !then.attested);
        assert_false(next.step == SWITCHOVER_RECHECK && !at->abort);
        assert_false(at->abort && next.step == SWITCHOVER_FENCE);
        if (switchover_ended(next.step))
            ends_seen++;
        else if (depth > 0)
            explore(&next, then, depth - 1);
    }
}

static void test_no_history_breaks_a_promise(void **unused)
{
    (void)unused;
    for (int abort = 0; abort < 2; abort++) {
        for (int without_cdc = 0; without_cdc < 2; without_cdc++) {
            struct switchover_state state;
            const struct history none = {0};
            switchover_state_init(&state, abort, without_cdc);
            explore(&state, none, 20);
        }
    }
    assert_true(ends_seen > 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_step_and_event),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_a_consumer_that_is_not_there_is_left_out),
        cmocka_unit_test(test_a_consumer_lost_behind_the_fence_gets_no_slot),
        cmocka_unit_test(test_a_slow_consumer_is_left_behind_only_when_asked),
        cmocka_unit_test(test_an_order_that_was_refused_is_undone),
        cmocka_unit_test(test_who_was_led_is_led_back),
        cmocka_unit_test(test_a_doubtful_order_is_never_undone),
        cmocka_unit_test(test_a_fence_with_an_end_is_never_stuck),
        cmocka_unit_test(test_abort_lifts_and_nothing_else),
        cmocka_unit_test(test_no_history_breaks_a_promise),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
