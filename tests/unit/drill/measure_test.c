/*
 * Goal: what a drill tells of pauses, latencies and failures is what its clients felt, window by
 * window and shard by shard.
 * Method: histories made by hand, with times that can be added up by eye.
 *
 * SPDX-License-Identifier: MIT
 */
#include "tests/unit/drill/story.h"

static struct measure measure(const struct story *story, const char *shard, const char *except,
                              int64_t from_us, int64_t to_us)
{
    struct measure measured;
    assert_int_equal(verdict_measure(story->history, shard, except, from_us, to_us, &measured),
                     SG_OK);
    return measured;
}

static uint64_t failed_as(const struct measure *measured, const char *name)
{
    uint64_t count = 0;
    for (size_t i = 0; i < MEASURE_KINDS; i++) {
        if (strcmp(measure_kind_name(i), name) == 0)
            count += measured->failed_kinds[i];
    }
    return count;
}

static void test_quantiles_are_of_the_nearest_rank(void **state)
{
    int64_t hundred[100], one[] = {7}, few[] = {30, 10, 20};
    (void)state;
    for (int i = 0; i < 100; i++)
        hundred[i] = 100 - i;
    assert_int_equal(verdict_quantile(hundred, 100, 0.5), 50);
    assert_int_equal(verdict_quantile(hundred, 100, 0.99), 99);
    assert_int_equal(verdict_quantile(hundred, 100, 1), 100);
    assert_int_equal(verdict_quantile(hundred, 100, 0.001), 1);
    assert_int_equal(verdict_quantile(one, 1, 0.99), 7);
    assert_int_equal(verdict_quantile(few, 3, 0.5), 20);
    assert_int_equal(verdict_quantile(few, 3, 0.99), 30);
    assert_int_equal(verdict_quantile(NULL, 0, 0.5), 0);
}

static void test_a_pause_is_the_longest_gap_that_touches_the_window(void **state)
{
    static const struct {
        const char *what;
        int64_t from_us, to_us, pause_us;
    } rows[] = {
        {"all of it", INT64_MIN, INT64_MAX, 700},
        {"before", 0, 250, 100},
        {"inside the gap", 500, 600, 700},
        {"its first moment", 200, 301, 700},
        {"ends as it begins", 200, 300, 100},
        {"its last moment", 999, 1050, 700},
        {"begins as it ends", 1000, 1050, 100},
        {"the last one runs to the history's end", 1100, 1101, 400},
    };
    struct story story;
    (void)state;
    story_new(&story);
    uint32_t beta = story_event(&story, "beta", false);
    const int64_t times[] = {100, 200, 300, 1000, 1100};
    for (size_t i = 0; i < 5; i++)
        story_booked(&story, story_wish(&story, 0, times[i] - 100, (int32_t)i, 1), times[i] - 100,
                     times[i]);
    /* answered meanwhile, but not of this shard, or no acknowledgement */
    story_booked(&story, story_wish(&story, beta, 300, 0, 1), 300, 600);
    story_refused(&story, story_wish(&story, 0, 300, 0, 1), 300, 700, 0, 1);
    story_refused(&story, story_wish(&story, 0, 1200, 0, 1), 1200, 1500, 0, 1);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct measure got = measure(&story, "alpha", NULL, rows[i].from_us, rows[i].to_us);
        if (got.pause_us != rows[i].pause_us)
            fail_msg("%s: %lld", rows[i].what, (long long)got.pause_us);
    }
    story_free(&story);
}

static void test_requests_count_where_they_were_due(void **state)
{
    struct story story;
    (void)state;
    story_new(&story);
    uint32_t beta = story_event(&story, "beta", true);
    story_booked(&story, story_wish(&story, 0, 1000, 0, 1), 1500, 4000);
    story_refused(&story, story_wish(&story, 0, 1999, 0, 1), 2500, 2600, 0, 1);
    story_booked(&story, story_wish(&story, 0, 2000, 1, 1), 2000, 2100); /* outside */
    story_booked(&story, story_wish(&story, beta, 1000, 0, 1), 1000, 1100);
    story_wish(&story, 0, 1500, 9, 1);
    struct measure got = measure(&story, "alpha", NULL, 1000, 2000);
    assert_int_equal(got.bookings, 3);
    assert_int_equal(got.booked, 1);
    assert_int_equal(got.refused, 1);
    assert_int_equal(got.not_sent, 1);
    assert_int_equal(got.failed, 0);
    assert_int_equal(got.booking_latency.count, 2);
    assert_int_equal(got.booking_latency.p50_us, 601);
    assert_int_equal(got.booking_latency.max_us, 3000);
    assert_int_equal(got.longest_wait_us, 3000);
    assert_int_equal(measure(&story, NULL, NULL, 1000, 2000).bookings, 4);
    assert_int_equal(measure(&story, NULL, "alpha", 1000, 2000).bookings, 1);
    assert_int_equal(measure(&story, "gamma", NULL, 1000, 2000).bookings, 0);
    story_free(&story);
}

static void test_failures_count_by_kind_even_if_made_good(void **state)
{
    struct story story;
    (void)state;
    story_new(&story);
    uint32_t booking = story_wish(&story, 0, 1000, 0, 1);
    story_attempt(&story, booking, 1000, 2000, HISTORY_CLOSED);
    story_failed(&story, booking, 2100, 2200, SG_OUTCOME_UNKNOWN);
    story_booked(&story, booking, 3000, 4000);
    story_failed(&story, story_wish(&story, 0, 1000, 1, 1), 1000, 1500, SG_SHARD_UNAVAILABLE);
    story_failed(&story, story_wish(&story, 0, 1000, 2, 1), 1000, 1500, SG_UNKNOWN_EVENT);
    story_attempt(&story, story_wish(&story, 0, 1000, 3, 1), 1000, 1500, HISTORY_ANSWERED)->status =
        299;
    story_attempt(&story, story_wish(&story, 0, 1000, 4, 1), 1000, 0, HISTORY_PENDING);
    struct history_read *read = story_read(&story, 0, 1000, 1300, 0, 0);
    read->status = 503;
    read->error = SG_DEADLINE;
    story_read(&story, 0, 1000, 1400, 0, 0);
    struct history_read *unsent = story_read(&story, 0, 1000, 0, 0, 0);
    unsent->sent_us = 0;
    unsent->end = HISTORY_PENDING;
    struct measure got = measure(&story, "alpha", NULL, INT64_MIN, INT64_MAX);
    assert_int_equal(got.bookings, 5);
    assert_int_equal(got.booked, 1);
    assert_int_equal(got.refused, 1);
    assert_int_equal(got.failed_bookings, 1);
    assert_int_equal(got.unsettled, 2);
    assert_int_equal(got.failed, 6);
    assert_int_equal(failed_as(&got, "closed"), 1);
    assert_int_equal(failed_as(&got, "outcome_unknown"), 1);
    assert_int_equal(failed_as(&got, "shard_unavailable"), 1);
    assert_int_equal(failed_as(&got, "unknown_event"), 1);
    assert_int_equal(failed_as(&got, "other"), 1);
    assert_int_equal(failed_as(&got, "pending"), 1);
    assert_int_equal(failed_as(&got, "deadline_exceeded"), 1);
    assert_int_equal(got.reads, 3);
    assert_int_equal(got.reads_ok, 1);
    assert_int_equal(got.reads_failed, 1);
    assert_int_equal(got.reads_not_sent, 1);
    /* the one that was never settled waits to the end of the history, 4000 */
    assert_int_equal(got.longest_wait_us, 3000);
    assert_int_equal(got.booking_latency.max_us, 3000);
    story_free(&story);
}

static void test_an_empty_history_measures_nothing(void **state)
{
    struct story story;
    int64_t from_us, to_us;
    (void)state;
    story_new(&story);
    verdict_span(story.history, &from_us, &to_us);
    assert_int_equal(from_us, 0);
    assert_int_equal(to_us, 0);
    struct measure got = measure(&story, NULL, NULL, INT64_MIN, INT64_MAX);
    assert_int_equal(got.bookings, 0);
    assert_int_equal(got.pause_us, 0);
    story_free(&story);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_quantiles_are_of_the_nearest_rank),
        cmocka_unit_test(test_a_pause_is_the_longest_gap_that_touches_the_window),
        cmocka_unit_test(test_requests_count_where_they_were_due),
        cmocka_unit_test(test_failures_count_by_kind_even_if_made_good),
        cmocka_unit_test(test_an_empty_history_measures_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
