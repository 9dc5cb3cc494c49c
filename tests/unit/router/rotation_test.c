/*
 * Goal: one bad probe takes no replica out of rotation and one good one brings none back; a replica
 * that hovers around the bound does not flap; unknown is bad; a return starts slowly, the start of
 * the program does not.
 * Method: samples written as letters, a probe each 100 ms of a made-up clock; below them what the
 * rotation must be after each. Then replicas of a small model of a shard, sampled through the real
 * staleness, with the time that leaving and coming back take.
 *
 * SPDX-License-Identifier: MIT
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "router/rotation.h"
#include "router/staleness.h"

#define MS 1000
#define PROBE_US (100 * MS)

static const struct rotation_limits two_of_three = {.bound_us = 1000 * MS,
                                                    .back_us = 500 * MS,
                                                    .samples = 3,
                                                    .needed = 2,
                                                    .slow_start_us = 1000 * MS};

/* g good, b bad, m in between, u unknown, x dead; i in, o out after it */
struct story {
    const char *name;
    int64_t samples;
    int64_t needed;
    const char *probes;
    const char *expect;
};

#define THIRTY_ONE_BAD "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
#define THIRTY_ONE_IN "iiiiiiiiiiiiiiiiiiiiiiiiiiiiiii"

static const struct story stories[] = {
    {"the first probe takes it in", 3, 2, "g", "i"},
    {"even one of unknown staleness: at a start the primary may answer later", 3, 2, "ug", "ii"},
    {"one slow probe flaps nothing", 3, 2, "gbgggbgg", "iiiiiiii"},
    {"two of three do", 3, 2, "gbgb", "iiio"},
    {"two in a row do", 3, 2, "ggbb", "iiio"},
    {"the third forgets the first", 3, 2, "gbggb", "iiiii"},
    {"unknown is bad", 3, 2, "guu", "iio"},
    {"one good probe brings nothing back", 3, 2, "gbbgbbgbb", "iiooooooo"},
    {"two of three do, a slow one between them or not", 3, 2, "gbbgbg", "iioooi"},
    {"in between changes nothing when in", 3, 2, "gmmmmmmm", "iiiiiiii"},
    {"in between changes nothing when out", 3, 2, "gbbmmmmmm", "iiooooooo"},
    {"around the bound: out once, and not back until it is well", 3, 2, "gbmbmbmbmgg",
     "iiioooooo"
     "oi"},
    {"around the lower bound: in, and stays", 3, 2, "gbbmgmggmgmg", "iiooooiiiiii"},
    {"a change of mind starts a new list", 5, 2, "gbbggb", "iiooii"},
    {"death is at once, the return is earned", 3, 2, "ggxggg", "iiooii"},
    {"dead at the start: the return is earned, too", 3, 2, "xgg", "ooi"},
    {"one of one", 1, 1, "gbgb", "ioio"},
    {"all of thirty-two", 32, 32, "g" THIRTY_ONE_BAD "bb", "i" THIRTY_ONE_IN "oo"},
};

static int64_t staleness_of_letter(char letter, const struct rotation_limits *limits)
{
    switch (letter) {
    case 'g':
        return limits->back_us;
    case 'm':
        return limits->bound_us;
    case 'b':
        return limits->bound_us + 1;
    default:
        return STALENESS_UNKNOWN;
    }
}

static void letters_hold(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(stories) / sizeof(stories[0]); i++) {
        const struct story *story = &stories[i];
        struct rotation_limits limits = two_of_three;
        struct rotation rotation = {0};
        limits.samples = story->samples;
        limits.needed = story->needed;
        assert_int_equal(strlen(story->probes), strlen(story->expect));
        for (size_t j = 0; story->probes[j]; j++) {
            const char letter = story->probes[j];
            if (letter == 'x')
                rotation_leave(&rotation);
            else
                rotation_sample(&rotation, staleness_of_letter(letter, &limits), &limits,
                                (int64_t)j * PROBE_US);
            if (rotation.in != (story->expect[j] == 'i'))
                fail_msg("%s: after probe %zu it is %s", story->name, j + 1,
                         rotation.in ? "in" : "out");
        }
    }
}

/* --- weight ----------------------------------------------------------------------------------- */

static void sample(struct rotation *rotation, char letter, int64_t now_us)
{
    rotation_sample(rotation, staleness_of_letter(letter, &two_of_three), &two_of_three, now_us);
}

static void a_return_starts_slowly(void **state)
{
    struct rotation rotation = {0};
    (void)state;
    sample(&rotation, 'g', 5000);
    assert_int_equal(rotation_weight(&rotation, &two_of_three, 5000), 100); /* the program starts */
    sample(&rotation, 'b', 6000);
    sample(&rotation, 'b', 7000);
    assert_int_equal(rotation_weight(&rotation, &two_of_three, 7000), 100); /* by a wider bound */
    sample(&rotation, 'g', 8000);
    sample(&rotation, 'g', 9000);
    assert_true(rotation.in);
    assert_int_equal(rotation_weight(&rotation, &two_of_three, 9000), 10);
    assert_int_equal(rotation_weight(&rotation, &two_of_three, 9000 + 500 * MS), 55);
    assert_int_equal(rotation_weight(&rotation, &two_of_three, 9000 + 999 * MS), 99);
    assert_int_equal(rotation_weight(&rotation, &two_of_three, 9000 + 1000 * MS), 100);
    assert_int_equal(rotation_weight(&rotation, &two_of_three, INT64_MAX), 100);
    int32_t before = 0;
    for (int64_t us = 9000; us < 9000 + 1100 * MS; us += 7 * MS) {
        const int32_t weight = rotation_weight(&rotation, &two_of_three, us);
        assert_true(weight >= before && weight >= 10 && weight <= 100);
        before = weight;
    }
    /* a clock that steps back is a start anew, not a negative share */
    assert_int_equal(rotation_weight(&rotation, &two_of_three, 10), 10);
}

static void a_slow_start_may_be_switched_off(void **state)
{
    struct rotation_limits limits = two_of_three;
    struct rotation rotation = {0};
    (void)state;
    limits.slow_start_us = 0;
    rotation_leave(&rotation);
    sample(&rotation, 'g', 1);
    sample(&rotation, 'g', 2);
    assert_true(rotation.in);
    assert_int_equal(rotation_weight(&rotation, &limits, 2), 100);
}

/* --- a shard ---------------------------------------------------------------------------------- */

/* A primary that writes 100 bytes of WAL a millisecond from t = 0 on, and a replica that replays it
 * all the time but for what the story says. The primary is probed every 100 ms, the replica from
 * FIRST_PROBE_MS on. */
#define FIRST_PROBE_MS 1500

struct drama {
    const char *name;
    int64_t idle_from_ms; /* the primary writes no more; 0: goes on */
    int64_t stops_ms;     /* replay stands still from here ... */
    int64_t resumes_ms;   /* ... to here, and is caught up at once */
    int64_t delay_ms;     /* recovery_min_apply_delay */
    int64_t primary_gone_ms;
    int64_t step_at_ms; /* the clock jumps by step_ms */
    int64_t step_ms;
    int64_t late_from_ms; /* probes of the replica take late_ms on their way back */
    int64_t late_to_ms;
    int64_t late_ms;
    int64_t timeline_from_ms; /* the replica is on another timeline from here ... */
    int64_t timeline_to_ms;   /* ... to here */
    int64_t out_by_ms;        /* 0: never out */
    int64_t out_from_ms;      /* not before */
    int64_t back_by_ms;       /* 0: not back until the end, at 10 s */
};

static const struct drama dramas[] = {
    {"nothing happens", .stops_ms = 0},
    {"idle primary", .idle_from_ms = 1000},
    {"idle primary, then a dead WAL receiver: it has all there is", .idle_from_ms = 1000,
     .stops_ms = 2000, .resumes_ms = 10000},
    {"dead WAL receiver, out 300 ms after the bound, back 1 s after it caught up", .stops_ms = 2000,
     .resumes_ms = 6000, .out_from_ms = 3000, .out_by_ms = 3300, .back_by_ms = 7000},
    {"a pause below the bound", .stops_ms = 2000, .resumes_ms = 2850},
    {"recovery_min_apply_delay past the bound", .delay_ms = 1500, .out_from_ms = 1500,
     .out_by_ms = 1700},
    {"recovery_min_apply_delay well below it", .delay_ms = 300},
    {"another timeline is never fresh, and back when it has followed", .timeline_from_ms = 3000,
     .timeline_to_ms = 5000, .out_from_ms = 3000, .out_by_ms = 3300, .back_by_ms = 6000},
    {"primary gone: nobody knows what is written elsewhere", .primary_gone_ms = 4000,
     .out_from_ms = 4900, .out_by_ms = 5300},
    {"the clock jumps ahead by 10 s: one bad sample", .step_at_ms = 4030, .step_ms = 10000},
    {"the clock steps back", .step_at_ms = 4030, .step_ms = -3000},
    {"one slow probe", .late_from_ms = 4000, .late_to_ms = 4100, .late_ms = 1500},
    {"slow probes are known for what they are", .late_from_ms = 4000, .late_to_ms = 8000,
     .late_ms = 1500, .out_from_ms = 4000, .out_by_ms = 4300, .back_by_ms = 9000},
};

static int64_t written_at(const struct drama *drama, int64_t ms)
{
    const int64_t end_ms =
        drama->idle_from_ms && ms > drama->idle_from_ms ? drama->idle_from_ms : ms;
    return 1000 + 100 * (end_ms > 0 ? end_ms : 0);
}

static int64_t replayed_at(const struct drama *drama, int64_t ms)
{
    if (drama->stops_ms && ms >= drama->stops_ms && ms < drama->resumes_ms)
        ms = drama->stops_ms;
    return written_at(drama, ms - drama->delay_ms - 1);
}

static void play(const struct drama *drama)
{
    static struct staleness_history history;
    struct rotation rotation = {0};
    int64_t out_ms = -1;
    int64_t back_ms = -1;
    memset(&history, 0, sizeof(history));
    for (int64_t ms = 10; ms < 10000; ms += 100) {
        const bool stepped = drama->step_at_ms && ms >= drama->step_at_ms;
        const int64_t now_us = (ms + (stepped ? drama->step_ms : 0)) * MS + 20000 * MS;
        const bool elsewhere = ms >= drama->timeline_from_ms && ms < drama->timeline_to_ms;
        const bool late = ms >= drama->late_from_ms && ms < drama->late_to_ms;
        const int64_t said_ms = late ? ms - drama->late_ms : ms;
        if (!drama->primary_gone_ms || ms < drama->primary_gone_ms)
            staleness_sample(&history, 1, (uint64_t)written_at(drama, ms), now_us);
        if (ms < FIRST_PROBE_MS)
            continue;
        const int64_t staleness_us = staleness_of(&history, elsewhere ? 2 : 1,
                                                  (uint64_t)replayed_at(drama, said_ms), now_us);
        rotation_sample(&rotation, staleness_us, &two_of_three, now_us);
        if (!rotation.in && out_ms < 0)
            out_ms = ms;
        if (rotation.in && out_ms >= 0 && back_ms < 0)
            back_ms = ms;
        if (!rotation.in && back_ms >= 0)
            fail_msg("%s: out again at %lld", drama->name, (long long)ms);
    }
    if (drama->out_by_ms ? out_ms < drama->out_from_ms || out_ms > drama->out_by_ms : out_ms >= 0)
        fail_msg("%s: out at %lld", drama->name, (long long)out_ms);
    if (drama->back_by_ms ? back_ms < 0 || back_ms > drama->back_by_ms : back_ms >= 0)
        fail_msg("%s: back at %lld", drama->name, (long long)back_ms);
}

static void dramas_end_as_they_should(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(dramas) / sizeof(dramas[0]); i++)
        play(&dramas[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(letters_hold),
        cmocka_unit_test(a_return_starts_slowly),
        cmocka_unit_test(a_slow_start_may_be_switched_off),
        cmocka_unit_test(dramas_end_as_they_should),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
