/*
 * Goal: a broken promise fails the drill, each of them by itself; a slow machine does not, unless
 * it was asked to; the text fits a terminal and the JSON says the same. Method: outcomes made by
 * hand, one thing wrong at a time.
 *
 * SPDX-License-Identifier: MIT
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "base/dynbuf.h"
#include "drill/report.h"

static struct rig rig = {.options = {.replicas = 2, .sync = true}, .max_staleness_ms = 1000};

static struct outcome good(const char *drill, struct outcome_episode *episode)
{
    *episode = (struct outcome_episode){.episode = {.drill = drill,
                                                    .what = "primary killed",
                                                    .shard = "alpha",
                                                    .victim = "alpha-1",
                                                    .promoted = "alpha-2",
                                                    .made_us = 1000,
                                                    .seen_us = 21000,
                                                    .promoted_us = 50000,
                                                    .ended_us = 2001000},
                                        .pause_us = 120000,
                                        .back_us = 40000,
                                        .others_p99_us = 5000};
    struct outcome outcome = {
        .drill = drill, .episodes = episode, .count = 1, .deadline_ms = 5000, .load_us = 10000000};
    outcome.verdict.bookings = outcome.verdict.outcomes[HISTORY_BOOKED] = 1000;
    return outcome;
}

/* The verdict of the text and of the JSON, which have to agree; the JSON's one drill. */
static bool judged(const struct outcome *outcome, bool strict, json_t **ret_drill)
{
    const struct report_options options = {.rig = &rig, .rate = 300, .seed = 1, .strict = strict};
    struct dynbuf text;
    dynbuf_init(&text, 1 << 20);
    const bool kept = report_write(&options, outcome, 1, false, &text);
    assert_non_null(strstr(dynbuf_text(&text), kept ? "  PASS\n" : "  FAIL\n"));
    for (const char *line = dynbuf_text(&text); *line; line += strcspn(line, "\n") + 1) {
        if (line[2] != '!' && strncmp(line, "    ", 4) != 0)
            assert_in_range(strcspn(line, "\n"), 0, 80);
    }
    dynbuf_reset(&text);
    assert_int_equal(report_write(&options, outcome, 1, true, &text), kept);
    json_t *json = json_loads(dynbuf_text(&text), JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(json);
    assert_int_equal(json_is_true(json_object_get(json, "holds")), kept);
    if (ret_drill)
        *ret_drill = json_incref(json_array_get(json_object_get(json, "drills"), 0));
    json_decref(json);
    dynbuf_done(&text);
    return kept;
}

static void all_is_well(void **state)
{
    struct outcome_episode episode;
    struct outcome outcome = good("crash", &episode);
    json_t *drill;
    (void)state;
    assert_true(judged(&outcome, true, &drill));
    assert_true(json_is_null(json_object_get(drill, "problem")));
    assert_int_equal(json_integer_value(json_object_get(drill, "acknowledged")), 1000);
    json_t *pause = json_object_get(drill, "writePauseMs");
    assert_true(json_real_value(json_object_get(pause, "max")) == 120.0);
    assert_null(json_object_get(pause, "kept"));
    json_t *back = json_object_get(drill, "writesBackMs");
    assert_true(json_is_true(json_object_get(back, "kept")));
    assert_true(json_is_null(json_object_get(drill, "outMs")));
    json_decref(drill);
}

static void every_breach_decides(void **state)
{
    struct outcome_episode episode;
    (void)state;
    for (int kind = 0; kind < VERDICT_KINDS; kind++) {
        struct outcome outcome = good("switchover", &episode);
        outcome.verdict.breaches[kind] = 1;
        assert_false(judged(&outcome, false, NULL));
        /* An asynchronous shard that lost its primary may lose bookings, and nothing else. */
        outcome.lossy = true;
        assert_int_equal(judged(&outcome, false, NULL),
                         kind == VERDICT_LOST_ASYNC || kind == VERDICT_UNDONE);
    }
}

static void every_other_count_decides(void **state)
{
    struct outcome_episode episode;
    (void)state;
    struct outcome outcome = good("crash", &episode);
    outcome.drift = 1;
    assert_false(judged(&outcome, false, NULL));
    outcome.drift = OUTCOME_UNKNOWN;
    assert_false(judged(&outcome, false, NULL));
    outcome.drift = 0;
    outcome.failed_in_bound = 1;
    assert_false(judged(&outcome, false, NULL));
    outcome.failed_in_bound = 0;
    outcome.others_failed = 1;
    assert_false(judged(&outcome, false, NULL));
    outcome.others_failed = 0;
    outcome.verdict.refused = 1;
    assert_false(judged(&outcome, false, NULL));
    outcome.verdict.refused = 0;
    assert_true(judged(&outcome, false, NULL));
    snprintf(outcome.problem, sizeof(outcome.problem), "the \"cluster\" did not heal");
    assert_false(judged(&outcome, false, NULL));
}

/* What went past the buffer's bound is shown, not held against it. */
static void failures_past_the_bound_are_shown(void **state)
{
    struct outcome_episode episode;
    struct outcome outcome = good("crash", &episode);
    const struct report_options options = {.rig = &rig, .rate = 300};
    struct dynbuf text;
    (void)state;
    outcome.all.failed = 4;
    outcome.all.failed_kinds[SG_DEADLINE] = 4;
    dynbuf_init(&text, 1 << 20);
    assert_true(report_write(&options, &outcome, 1, false, &text));
    assert_non_null(strstr(dynbuf_text(&text), "deadline_exceeded"));
    assert_non_null(strstr(dynbuf_text(&text), "past the bound of the buffer"));
    dynbuf_done(&text);
}

static void slowness_decides_only_if_asked(void **state)
{
    static const struct {
        const char *drill;
        bool slow; /* a promise of that drill is broken by a pause of 400 ms and 300 ms back */
    } rows[] = {{"switchover", true}, {"crash", true},         {"hang", true},
                {"lag", false},       {"replica-loss", false}, {"random", false}};
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct outcome_episode episode;
        struct outcome outcome = good(rows[i].drill, &episode);
        episode.pause_us = 400000; /* p99 of one is the one: past 250, within 500 */
        episode.back_us = 300000;
        assert_true(judged(&outcome, false, NULL));
        assert_int_equal(judged(&outcome, true, NULL), !rows[i].slow);
    }
}

static void a_lagging_replica_is_timed(void **state)
{
    struct outcome_episode episode;
    struct outcome outcome = good("lag", &episode);
    (void)state;
    episode.episode.out_us = 1000 + 1300 * 1000;
    episode.episode.fresh_us = 1500 * 1000;
    episode.episode.back_us = 2500 * 1000;
    assert_true(judged(&outcome, true, NULL));
    episode.episode.out_us += 1;
    assert_false(judged(&outcome, true, NULL));
    episode.episode.out_us -= 1;
    episode.episode.back_us += 1;
    assert_false(judged(&outcome, true, NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_is_well),
        cmocka_unit_test(every_breach_decides),
        cmocka_unit_test(every_other_count_decides),
        cmocka_unit_test(failures_past_the_bound_are_shown),
        cmocka_unit_test(slowness_decides_only_if_asked),
        cmocka_unit_test(a_lagging_replica_is_timed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
