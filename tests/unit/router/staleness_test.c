/*
 * Goal: staleness is never below the truth, and unknown is never zero.
 * Method: a table of stories, each a list of primary samples and one question, with a made-up
 * clock; then a simulation against the plain definition over a long random history.
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

#include "router/staleness.h"

struct sample {
    int32_t timeline;
    uint64_t lsn;
    int64_t asked_us;
};

struct story {
    const char *name;
    struct sample samples[6]; /* up to the first with timeline 0 */
    int32_t timeline;
    uint64_t replayed;
    int64_t now_us;
    int64_t expect_us;
};

static const struct story stories[] = {
    {"nothing sampled is unknown", {{0}}, 1, 100, 50, STALENESS_UNKNOWN},
    {"caught up at the newest sample", {{1, 100, 10}, {1, 200, 20}}, 1, 200, 25, 5},
    {"ahead of the newest sample", {{1, 100, 10}, {1, 200, 20}}, 1, 250, 25, 5},
    {"between two samples counts the older", {{1, 100, 10}, {1, 200, 20}}, 1, 199, 25, 15},
    {"idle primary stays fresh for ever",
     {{1, 100, 10}, {1, 100, 5000}, {1, 100, 900000}},
     1,
     100,
     900001,
     1},
    {"dead WAL receiver grows",
     {{1, 100, 10}, {1, 200, 20}, {1, 300, 30}},
     1,
     150,
     1000030,
     1000020},
    {"dead receiver on an idle primary is not behind",
     {{1, 100, 10}, {1, 200, 20}, {1, 200, 70}},
     1,
     200,
     75,
     5},
    {"paused replay grows although WAL arrives", {{1, 100, 10}, {1, 900, 500}}, 1, 100, 600, 590},
    {"behind the oldest sample is unknown, not zero",
     {{1, 100, 10}, {1, 200, 20}},
     1,
     99,
     25,
     STALENESS_UNKNOWN},
    {"nothing replayed is unknown", {{1, 100, 10}}, 1, 0, 25, STALENESS_UNKNOWN},
    {"equal LSN on an older timeline is never fresh",
     {{2, 100, 10}},
     1,
     100,
     25,
     STALENESS_UNKNOWN},
    {"equal LSN on a newer timeline is never fresh", {{2, 100, 10}}, 3, 100, 25, STALENESS_UNKNOWN},
    {"unknown timeline is never fresh", {{1, 100, 10}}, 0, 100, 25, STALENESS_UNKNOWN},
    {"a promotion forgets the old timeline's samples",
     {{1, 100, 10}, {2, 120, 20}},
     2,
     110,
     25,
     STALENESS_UNKNOWN},
    {"a primary of the past is not listened to", {{2, 100, 10}, {1, 500, 20}}, 2, 100, 25, 15},
    {"WAL lost in a crash starts a new history",
     {{1, 100, 10}, {1, 300, 20}, {1, 200, 30}},
     1,
     150,
     40,
     STALENESS_UNKNOWN},
    {"a late answer to an early question changes nothing",
     {{1, 100, 10}, {1, 200, 20}, {1, 150, 15}},
     1,
     200,
     30,
     10},
    {"an unknown LSN is no sample", {{1, 0, 10}}, 1, 100, 25, STALENESS_UNKNOWN},
    {"the clock may stand still", {{1, 100, 10}}, 1, 100, 10, 0},
    {"the clock jumps ahead: older for one sample",
     {{1, 100, 10}, {1, 200, 20}},
     1,
     200,
     10000020,
     10000000},
    {"and right again with the next",
     {{1, 100, 10}, {1, 200, 20}, {1, 210, 10000020}},
     1,
     210,
     10000025,
     5},
    {"a clock that steps back is never a negative age",
     {{1, 100, 10}, {1, 200, 2000}},
     1,
     200,
     500,
     0},
    {"a sample from before the step back is not replaced by an older one",
     {{1, 100, 2000}, {1, 300, 500}},
     1,
     100,
     2005,
     5},
    {"recovery_min_apply_delay: as old as the delay",
     {{1, 100, 0}, {1, 200, 1000}, {1, 300, 2000}, {1, 400, 3000}},
     1,
     200,
     3500,
     2500},
    {"primary gone: older with every moment",
     {{1, 100, 10}, {1, 200, 20}},
     1,
     200,
     9000020,
     9000000},
    {"one slow probe: as old as its answer is late",
     {{1, 100, 100}, {1, 200, 200}, {1, 300, 300}, {1, 400, 400}},
     1,
     100,
     450,
     350},
};

static void stories_hold(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(stories) / sizeof(stories[0]); i++) {
        const struct story *story = &stories[i];
        struct staleness_history history = {0};
        for (const struct sample *s = story->samples; s->timeline; s++)
            staleness_sample(&history, s->timeline, s->lsn, s->asked_us);
        int64_t got = staleness_of(&history, story->timeline, story->replayed, story->now_us);
        if (got != story->expect_us)
            fail_msg("%s: %lld, expected %lld", story->name, (long long)got,
                     (long long)story->expect_us);
    }
}

/* A primary that writes for a million samples: the history stays bounded, keeps its beginning, and
 * never says less than the truth; for the recent past it says exactly the truth. */
static void long_history_is_bounded_and_never_too_low(void **state)
{
    enum { SAMPLES = 100000, STEP_US = 100 };
    static struct staleness_history history;
    static uint64_t lsns[SAMPLES];
    (void)state;
    memset(&history, 0, sizeof(history));
    srand(7);
    uint64_t lsn = 1000;
    for (int i = 0; i < SAMPLES; i++) {
        lsn += (uint64_t)(rand() % 3); /* idle now and then */
        lsns[i] = lsn;
        staleness_sample(&history, 1, lsn, (int64_t)i * STEP_US);
        assert_true(history.count <= STALENESS_SAMPLES_MAX);
    }
    const int64_t now_us = (int64_t)SAMPLES * STEP_US;
    for (int i = 0; i < SAMPLES; i += 37) {
        int newest = i; /* the newest sample with this LSN */
        while (newest + 1 < SAMPLES && lsns[newest + 1] == lsns[i])
            newest++;
        const int64_t truth_us = now_us - (int64_t)newest * STEP_US;
        const int64_t got_us = staleness_of(&history, 1, lsns[i], now_us);
        assert_true(got_us != STALENESS_UNKNOWN);
        assert_true(got_us >= truth_us);
        if (i > SAMPLES - STALENESS_SAMPLES_MAX / 2)
            assert_int_equal(got_us, truth_us);
    }
    assert_int_equal(staleness_of(&history, 1, lsns[0] - 1, now_us), STALENESS_UNKNOWN);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stories_hold),
        cmocka_unit_test(long_history_is_bounded_and_never_too_low),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
