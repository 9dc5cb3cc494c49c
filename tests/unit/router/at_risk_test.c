/*
 * Goal: the count of bookings at risk is never lower than it is, falls to nothing once a replica
 * has all, and what a change of timeline may have lost is told once. Method: tables of what is
 * acknowledged, received and begun; random histories against a plain list.
 *
 * SPDX-License-Identifier: MIT
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "router/at_risk.h"

enum act { ADD, RECEIVED, TIMELINE };

struct step {
    enum act act;
    int32_t timeline; /* RECEIVED, TIMELINE */
    uint64_t lsn;     /* ADD, RECEIVED */
    int64_t bookings; /* ADD: how many; TIMELINE: how many may be lost */
    int64_t count;    /* afterwards */
};

static void play(const struct step *steps, size_t count)
{
    static struct at_risk risk;
    memset(&risk, 0, sizeof(risk));
    for (size_t i = 0; i < count; i++) {
        const struct step *step = &steps[i];
        if (step->act == ADD)
            at_risk_add(&risk, step->lsn, step->bookings);
        else if (step->act == RECEIVED)
            at_risk_received(&risk, step->timeline, step->lsn);
        else
            assert_int_equal(at_risk_timeline(&risk, step->timeline), step->bookings);
        if (at_risk_count(&risk) != step->count)
            fail_msg("step %zu: %lld at risk, expected %lld", i, (long long)at_risk_count(&risk),
                     (long long)step->count);
    }
}

#define PLAY(...)                                                                                  \
    do {                                                                                           \
        static const struct step steps_[] = {__VA_ARGS__};                                         \
        play(steps_, sizeof(steps_) / sizeof(steps_[0]));                                          \
    } while (0)

static void replicas_take_them(void **state)
{
    (void)state;
    PLAY({TIMELINE, 1, 0, 0, 0}, {ADD, 0, 100, 3, 3}, {ADD, 0, 200, 4, 7}, {RECEIVED, 1, 99, 0, 7},
         {RECEIVED, 1, 100, 0, 4}, {RECEIVED, 1, 150, 0, 4}, {RECEIVED, 1, 100, 0, 4},
         {RECEIVED, 1, 5000, 0, 0}, {RECEIVED, 1, 6000, 0, 0}, {ADD, 0, 5500, 1, 1},
         {RECEIVED, 1, 5500, 0, 0});
}

/* Equal positions on different timelines are different positions. */
static void another_timeline_says_nothing(void **state)
{
    (void)state;
    PLAY({TIMELINE, 3, 0, 0, 0}, {ADD, 0, 100, 5, 5}, {RECEIVED, 2, 1000, 0, 5},
         {RECEIVED, 4, 1000, 0, 5}, {RECEIVED, 0, 1000, 0, 5}, {RECEIVED, 3, 1000, 0, 0});
}

static void a_new_timeline_tells_what_may_be_lost_once(void **state)
{
    (void)state;
    PLAY({TIMELINE, 1, 0, 0, 0}, {ADD, 0, 100, 5, 5}, {ADD, 0, 200, 6, 11},
         {RECEIVED, 1, 100, 0, 6}, {TIMELINE, 1, 0, 0, 6}, {TIMELINE, 0, 0, 0, 6},
         {TIMELINE, 2, 0, 6, 0}, {TIMELINE, 2, 0, 0, 0}, {TIMELINE, 1, 0, 0, 0}, {ADD, 0, 50, 2, 2},
         {RECEIVED, 1, 100, 0, 2}, {RECEIVED, 2, 60, 0, 0}, {TIMELINE, 3, 0, 0, 0});
}

static void answers_may_cross(void **state)
{
    (void)state;
    PLAY({TIMELINE, 1, 0, 0, 0}, {ADD, 0, 300, 1, 1}, {ADD, 0, 200, 1, 2}, {RECEIVED, 1, 250, 0, 2},
         {RECEIVED, 1, 300, 0, 0});
}

/* Without an LSN they stay until the next that has one is safe, or may all be lost. */
static void some_have_no_lsn(void **state)
{
    (void)state;
    PLAY({TIMELINE, 1, 0, 0, 0}, {ADD, 0, 0, 2, 2}, {RECEIVED, 1, 9999, 0, 2},
         {ADD, 0, 10000, 3, 5}, {RECEIVED, 1, 9999, 0, 5}, {RECEIVED, 1, 10000, 0, 0},
         {ADD, 0, 0, 4, 4}, {TIMELINE, 2, 0, 4, 0}, {ADD, 0, 10, 1, 1}, {RECEIVED, 2, 10, 0, 0});
}

static void a_full_ring_counts_on(void **state)
{
    static struct at_risk risk;
    const int64_t total = 5 * AT_RISK_ENTRIES;
    (void)state;
    memset(&risk, 0, sizeof(risk));
    assert_int_equal(at_risk_timeline(&risk, 1), 0);
    for (int64_t i = 1; i <= total; i++)
        at_risk_add(&risk, (uint64_t)i * 10, 1);
    assert_int_equal(at_risk_count(&risk), total);
    for (int64_t i = 1; i <= total; i++) {
        at_risk_received(&risk, 1, (uint64_t)i * 10);
        assert_true(at_risk_count(&risk) >= total - i); /* never too low */
    }
    assert_int_equal(at_risk_count(&risk), 0);
}

/* Against the truth: a list of all that were ever added. */
static void random_histories(void **state)
{
    static struct at_risk risk;
    uint32_t seed = 11;
    (void)state;
    for (int round = 0; round < 200; round++) {
        uint64_t lsn = 1;
        uint64_t received = 0;
        static struct {
            uint64_t lsn;
            int64_t bookings;
        } added[3000];
        size_t count = 0;
        memset(&risk, 0, sizeof(risk));
        at_risk_timeline(&risk, 7);
        while (count < 3000) {
            seed = seed * 1664525 + 1013904223;
            if (seed >> 8 & 15) {
                lsn += seed >> 12 & 7;
                added[count].lsn = lsn;
                added[count++].bookings = 1 + (seed >> 16 & 3);
                at_risk_add(&risk, lsn, 1 + (seed >> 16 & 3));
            } else if (round % 2) {
                uint64_t back = (seed >> 12) % 40;
                uint64_t got = lsn > back ? lsn - back : 0;
                received = got > received ? got : received;
                at_risk_received(&risk, 7, got);
            }
        }
        int64_t truth = 0;
        for (size_t i = 0; i < count; i++)
            truth += added[i].lsn > received ? added[i].bookings : 0;
        assert_true(at_risk_count(&risk) >= truth);
        at_risk_received(&risk, 7, lsn);
        assert_int_equal(at_risk_count(&risk), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(replicas_take_them),
        cmocka_unit_test(another_timeline_says_nothing),
        cmocka_unit_test(a_new_timeline_tells_what_may_be_lost_once),
        cmocka_unit_test(answers_may_cross),
        cmocka_unit_test(some_have_no_lsn),
        cmocka_unit_test(a_full_ring_counts_on),
        cmocka_unit_test(random_histories),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
