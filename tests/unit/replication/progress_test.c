/*
 * Goal: the slot is never told an LSN that Redis might still lose, nor one that is no end of a
 * commit; and it is told, even when acknowledgements come without a pause.
 * Method: small tables, and a simulation: random batches sent and acknowledged at random times, all
 * acknowledged ends kept by the test, which then knows what the answer may be at most and at least.
 *
 * SPDX-License-Identifier: MIT
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>

#include "replication/progress.h"

#define SECOND 1000000

static void send_one(struct progress *progress, uint64_t end_lsn)
{
    const struct progress_batch batch = {.end_lsn = end_lsn, .commits = end_lsn ? 1 : 0};
    assert_true(progress_sent(progress, &batch));
}

static void test_start(void **state)
{
    struct progress progress;
    (void)state;
    progress_init(&progress, 100, SECOND);
    assert_int_equal(progress_confirm(&progress, 0), 100);
    assert_int_equal(progress.received, 100);
    assert_int_equal(progress.applied, 100);
}

static void test_confirmed_only_when_redis_has_kept_it_long_enough(void **state)
{
    struct progress progress;
    (void)state;
    progress_init(&progress, 100, 2 * SECOND);
    send_one(&progress, 200);
    assert_int_equal(progress_confirm(&progress, 50 * SECOND), 100);
    assert_int_equal(progress_acked(&progress, 50 * SECOND).end_lsn, 200);
    assert_int_equal(progress.applied, 200);
    assert_int_equal(progress_confirm(&progress, 52 * SECOND - 1), 100);
    assert_int_equal(progress_confirm(&progress, 52 * SECOND), 200);
}

static void test_at_once_when_redis_loses_nothing(void **state)
{
    struct progress progress;
    (void)state;
    progress_init(&progress, 100, 0);
    send_one(&progress, 200);
    progress_acked(&progress, 7);
    assert_int_equal(progress_confirm(&progress, 7), 200);
}

/* A part of a transaction, and a keepalive, are no ends of commits. */
static void test_received_and_parts_are_never_confirmed(void **state)
{
    struct progress progress;
    (void)state;
    progress_init(&progress, 100, SECOND);
    progress_received(&progress, 900);
    send_one(&progress, 0);
    progress_acked(&progress, 0);
    assert_int_equal(progress.received, 900);
    assert_int_equal(progress.applied, 100);
    assert_int_equal(progress_confirm(&progress, 10 * SECOND), 100);
    progress_received(&progress, 500);
    assert_int_equal(progress.received, 900);
}

/* What is acknowledged a second time, or comes from further back, moves nothing down. */
static void test_never_goes_down(void **state)
{
    struct progress progress;
    (void)state;
    progress_init(&progress, 1000, SECOND);
    send_one(&progress, 900);
    progress_acked(&progress, 0);
    assert_int_equal(progress.applied, 1000);
    assert_int_equal(progress_confirm(&progress, 10 * SECOND), 1000);
}

static void test_in_flight_is_bounded_and_in_order(void **state)
{
    struct progress progress;
    const struct progress_batch more = {.end_lsn = 1};
    (void)state;
    progress_init(&progress, 0, 0);
    for (unsigned round = 0; round < 3; round++) {
        for (uint64_t i = 1; i <= PROGRESS_BATCHES_MAX; i++)
            send_one(&progress, round * 1000 + i);
        assert_false(progress_sent(&progress, &more));
        for (uint64_t i = 1; i <= PROGRESS_BATCHES_MAX; i++)
            assert_int_equal(progress_acked(&progress, 0).end_lsn, round * 1000 + i);
    }
}

/* A million acknowledgements a second for ten seconds, and nobody asks meanwhile. */
static void test_moves_under_steady_load(void **state)
{
    struct progress progress;
    (void)state;
    progress_init(&progress, 0, 2 * SECOND);
    for (int64_t now = 0; now < 10 * SECOND; now += 10) {
        send_one(&progress, 1 + (uint64_t)now);
        progress_acked(&progress, now);
        assert_true(progress.history_count <= PROGRESS_HISTORY);
    }
    uint64_t confirmed = progress_confirm(&progress, 10 * SECOND);
    assert_true(confirmed <= 8 * SECOND + 1);
    assert_true(confirmed >= 8 * SECOND - 2 * SECOND / 16);
}

/* --- simulation ------------------------------------------------------------------------------- */

#define COMMITS_MAX 4096

struct acked {
    int64_t at_us;
    uint64_t lsn;
};

/* The newest end that was acknowledged at or before `at_us`. */
static uint64_t newest_at(const struct acked *acked, size_t count, int64_t at_us)
{
    uint64_t lsn = 0;
    for (size_t i = 0; i < count && acked[i].at_us <= at_us; i++)
        lsn = acked[i].lsn;
    return lsn;
}

static bool is_end(const struct acked *acked, size_t count, uint64_t lsn)
{
    for (size_t i = 0; i < count; i++) {
        if (acked[i].lsn == lsn)
            return true;
    }
    return lsn == 0;
}

static void simulate(unsigned seed)
{
    static struct acked acked[COMMITS_MAX];
    struct progress progress;
    size_t count = 0;
    int64_t now_us = 1;
    uint64_t lsn = 0;
    uint64_t last = 0;
    srandom(seed);
    int64_t loss_us = random() % 4 ? 1 + random() % (3 * SECOND) : 0;
    int64_t pace_us = 1 + random() % (random() % 2 ? 1000 : SECOND);
    progress_init(&progress, 0, loss_us);
    while (count < COMMITS_MAX - 1) {
        now_us += random() % pace_us;
        if (random() % 2 && progress.in_flight < PROGRESS_BATCHES_MAX) {
            lsn += 1 + (uint64_t)random() % 1000;
            send_one(&progress, random() % 3 ? lsn : 0);
            progress_received(&progress, lsn + (uint64_t)random() % 5000);
        } else if (progress.in_flight) {
            uint64_t end = progress_acked(&progress, now_us).end_lsn;
            if (end)
                acked[count++] = (struct acked){now_us, end};
        }
        if (random() % 8)
            continue;
        uint64_t confirmed = progress_confirm(&progress, now_us);
        assert_true(confirmed >= last);
        assert_true(is_end(acked, count, confirmed));
        assert_true(confirmed <= newest_at(acked, count, now_us - loss_us));
        assert_true(confirmed >= newest_at(acked, count, now_us - loss_us - loss_us / 16 - 1) ||
                    loss_us / 32 < pace_us);
        last = confirmed;
    }
    now_us += loss_us;
    assert_int_equal(progress_confirm(&progress, now_us), acked[count - 1].lsn);
}

static void test_simulation(void **state)
{
    (void)state;
    for (unsigned seed = 1; seed <= 40; seed++)
        simulate(seed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_start),
        cmocka_unit_test(test_confirmed_only_when_redis_has_kept_it_long_enough),
        cmocka_unit_test(test_at_once_when_redis_loses_nothing),
        cmocka_unit_test(test_received_and_parts_are_never_confirmed),
        cmocka_unit_test(test_never_goes_down),
        cmocka_unit_test(test_in_flight_is_bounded_and_in_order),
        cmocka_unit_test(test_moves_under_steady_load),
        cmocka_unit_test(test_simulation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
