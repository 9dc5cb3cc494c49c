/*
 * Goal: the figures of a report are those of the history: pauses of the shard that was hit,
 * failures of that one and of the others apart, what lies past the buffer's bound not held against
 * it. Method: histories made by hand, bookings on a grid of 10 ms with a hole in it; expected
 * figures counted by hand.
 *
 * SPDX-License-Identifier: MIT
 */
#include "tests/unit/drill/story.h"

#include "drill/outcome.h"

#define MS INT64_C(1000)
#define START (1000 * MS)
#define END (3000 * MS)
#define DEADLINE_MS 500

/* Bookings of an event every 10 ms, each answered 2 ms later; what is due in the hole is answered
 * when it ends. */
static void sell(struct story *story, uint32_t event, int64_t hole_from_us, int64_t hole_to_us)
{
    for (int64_t due_us = START; due_us < END; due_us += 10 * MS) {
        uint32_t booking = story_wish(story, event, due_us, 0, 1);
        const bool held = due_us >= hole_from_us && due_us < hole_to_us;
        story_booked(story, booking, due_us, (held ? hole_to_us : due_us) + 2 * MS);
    }
}

static struct episode crash_of(const char *shard)
{
    return (struct episode){.drill = "crash",
                            .what = "primary killed",
                            .shard = shard,
                            .made_us = 1500 * MS,
                            .seen_us = 1520 * MS,
                            .promoted_us = 1700 * MS,
                            .ended_us = 2500 * MS};
}

static struct outcome_round round_of(const struct story *story, const struct episode *episodes,
                                     size_t count)
{
    return (struct outcome_round){.history = story->history,
                                  .verdict = &story->verdict,
                                  .episodes = episodes,
                                  .episode_count = count,
                                  .calm_from_us = START,
                                  .calm_to_us = 1500 * MS};
}

static void a_pause_is_of_the_shard_that_was_hit(void **state)
{
    struct story story;
    struct outcome outcome;
    const struct episode episodes[] = {crash_of("alpha"), crash_of("beta")};
    (void)state;
    story_new(&story);
    sell(&story, 0, 1500 * MS, 1800 * MS);
    sell(&story, story_event(&story, "beta", false), 0, 0);
    outcome_init(&outcome, "crash", DEADLINE_MS);
    struct outcome_round round = round_of(&story, episodes, 2);
    assert_int_equal(outcome_add(&outcome, &round), SG_OK);
    assert_int_equal(outcome.count, 2);
    /* From the last answer, 1492, to the first, 1802. */
    assert_int_equal(outcome.episodes[0].pause_us, 310 * MS);
    assert_int_equal(outcome.episodes[0].back_us, 102 * MS);
    assert_int_equal(outcome.episodes[0].others_p99_us, 2 * MS);
    assert_int_equal(outcome.episodes[1].pause_us, 10 * MS);
    assert_int_equal(outcome.episodes[1].back_us, 2 * MS);
    /* 30 of 100 waited; the two longest 302 and 292. */
    assert_int_equal(outcome.episodes[1].others_p99_us, 292 * MS);
    assert_int_equal(outcome.before_p99_us, 2 * MS);
    assert_int_equal(outcome.failed_in_bound, 0);
    const struct outcome_spread spread = outcome_spread(&outcome, OUTCOME_DETECTION, 0, NULL);
    assert_int_equal(spread.count, 2);
    assert_int_equal(spread.max_us, 20 * MS);
    outcome_done(&outcome);
    story_free(&story);
}

/* One failure in the episode, one outside it, one of the other shard. */
static void failures_are_told_apart(void **state)
{
    struct story story;
    struct outcome outcome;
    const struct episode episode = crash_of("alpha");
    (void)state;
    for (int past_bound = 0; past_bound < 2; past_bound++) {
        story_new(&story);
        sell(&story, 0, 1500 * MS, past_bound ? 2100 * MS : 1600 * MS);
        const uint32_t beta = story_event(&story, "beta", false);
        sell(&story, beta, 0, 0);
        uint32_t booking = story_wish(&story, 0, 1550 * MS, 1, 1);
        story_failed(&story, booking, 1550 * MS, 2050 * MS, SG_SHARD_UNAVAILABLE);
        booking = story_wish(&story, 0, 2900 * MS, 1, 1);
        story_failed(&story, booking, 2900 * MS, 2901 * MS, SG_INTERNAL);
        booking = story_wish(&story, beta, 1600 * MS, 1, 1);
        story_failed(&story, booking, 1600 * MS, 1601 * MS, SG_INTERNAL);
        outcome_init(&outcome, "crash", DEADLINE_MS);
        struct outcome_round round = round_of(&story, &episode, 1);
        assert_int_equal(outcome_add(&outcome, &round), SG_OK);
        assert_int_equal(outcome.episodes[0].failed, 1);
        assert_int_equal(outcome.others_failed, 1);
        assert_int_equal(outcome.all.failed, 3);
        assert_int_equal(outcome.all.failed_kinds[SG_INTERNAL], 2);
        assert_int_equal(outcome.failed_in_bound, past_bound ? 2 : 3);
        outcome_done(&outcome);
        story_free(&story);
    }
}

static void a_fault_of_no_shard_is_felt_by_all(void **state)
{
    struct story story;
    struct outcome outcome;
    struct episode episode = crash_of(NULL);
    (void)state;
    story_new(&story);
    sell(&story, 0, 0, 0);
    sell(&story, story_event(&story, "beta", false), 1500 * MS, 1700 * MS);
    outcome_init(&outcome, "redis-loss", DEADLINE_MS);
    struct outcome_round round = round_of(&story, &episode, 1);
    assert_int_equal(outcome_add(&outcome, &round), SG_OK);
    assert_int_equal(outcome.episodes[0].pause_us, 210 * MS);
    assert_int_equal(outcome.episodes[0].back_us, -1);
    assert_int_equal(outcome.episodes[0].others_p99_us, -1);
    assert_int_equal(outcome_spread(&outcome, OUTCOME_OTHERS_P99, 0, NULL).count, 0);
    outcome_done(&outcome);
    story_free(&story);
}

/* Out: counted from when the replica was older than the bound. In: from when it had caught up. */
static void times_of_a_lagging_replica(void **state)
{
    struct story story;
    struct outcome outcome;
    const struct episode episodes[] = {
        {.drill = "lag",
         .shard = "alpha",
         .made_us = 1500 * MS,
         .out_us = 2700 * MS,
         .fresh_us = 2800 * MS,
         .back_us = 2950 * MS,
         .ended_us = END},
        {.drill = "lag",
         .shard = "alpha",
         .made_us = 1500 * MS,
         .out_us = 2400 * MS,
         .fresh_us = 2800 * MS,
         .back_us = 2790 * MS,
         .ended_us = END},
        {.drill = "lag", .shard = "alpha", .made_us = 1500 * MS, .ended_us = END}};
    (void)state;
    story_new(&story);
    sell(&story, 0, 0, 0);
    outcome_init(&outcome, "lag", DEADLINE_MS);
    struct outcome_round round = round_of(&story, episodes, 3);
    assert_int_equal(outcome_add(&outcome, &round), SG_OK);
    struct outcome_spread spread = outcome_spread(&outcome, OUTCOME_OUT, 1000 * MS, NULL);
    assert_int_equal(spread.count, 2);
    assert_int_equal(spread.p50_us, 0); /* sooner than the bound */
    assert_int_equal(spread.max_us, 200 * MS);
    spread = outcome_spread(&outcome, OUTCOME_IN, 1000 * MS, NULL);
    assert_int_equal(spread.count, 2);
    assert_int_equal(spread.p50_us, 0); /* in rotation again before we saw it fresh */
    assert_int_equal(spread.max_us, 150 * MS);
    outcome_done(&outcome);
    story_free(&story);
}

static void rounds_add_up(void **state)
{
    struct story story;
    struct outcome outcome;
    struct episode episode = crash_of("alpha");
    (void)state;
    story_new(&story);
    sell(&story, 0, 0, 0);
    story.verdict.breaches[VERDICT_LOST] = 2;
    story.verdict.outcomes[HISTORY_BOOKED] = 200;
    story.verdict.reads = 7;
    story.verdict.example_count = VERDICT_EXAMPLES_MAX - 1;
    outcome_init(&outcome, "random", DEADLINE_MS);
    for (int i = 0; i < 20; i++) {
        episode.lossy = i == 7;
        episode.at_risk = i;
        struct outcome_round round = round_of(&story, &episode, 1);
        assert_int_equal(outcome_add(&outcome, &round), SG_OK);
    }
    assert_int_equal(outcome.count, 20);
    assert_int_equal(outcome.rounds, 20);
    assert_int_equal(outcome.verdict.breaches[VERDICT_LOST], 40);
    assert_int_equal(outcome.verdict.outcomes[HISTORY_BOOKED], 4000);
    assert_int_equal(outcome.verdict.reads, 140);
    assert_int_equal(outcome.verdict.example_count, VERDICT_EXAMPLES_MAX);
    assert_int_equal(outcome.all.booked, 4000);
    assert_true(outcome.lossy);
    assert_true(outcome.at_risk == 19);
    assert_int_equal(outcome.load_us, 20 * (END - START - 8 * MS));
    outcome_done(&outcome);
    story_free(&story);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_pause_is_of_the_shard_that_was_hit),
        cmocka_unit_test(failures_are_told_apart),
        cmocka_unit_test(a_fault_of_no_shard_is_felt_by_all),
        cmocka_unit_test(times_of_a_lagging_replica),
        cmocka_unit_test(rounds_add_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
