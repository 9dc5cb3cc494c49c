/*
 * Goal: nothing that may pass is ever given up, nothing final is ever tried again, and what is
 * wrong inside ends among the dead letters after its tries. Method: a table for the answers that a
 * booking can have; the rules for all errors there are.
 *
 * SPDX-License-Identifier: MIT
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "queue/verdict.h"

#define MAX 20

static void answers_of_a_booking(void **state)
{
    static const struct {
        enum sg_error error;
        enum queue_verdict verdict;
    } cases[] = {
        {SG_OK, VERDICT_BOOKED},
        {SG_SEATS_TAKEN, VERDICT_REFUSED},
        {SG_UNKNOWN_SEAT, VERDICT_REFUSED},
        {SG_UNKNOWN_EVENT, VERDICT_REFUSED},
        {SG_KEY_REUSED, VERDICT_REFUSED},
        {SG_OVER_LIMIT, VERDICT_REFUSED},
        {SG_SOLD_OUT, VERDICT_REFUSED},
        {SG_NOT_TOGETHER, VERDICT_REFUSED},
        {SG_UNKNOWN_TIER, VERDICT_REFUSED},
        {SG_DEADLINE, VERDICT_AGAIN_ALL},
        {SG_OUTCOME_UNKNOWN, VERDICT_AGAIN_ALL},
        {SG_SHARD_UNAVAILABLE, VERDICT_AGAIN_ALL},
        {SG_OVERLOADED, VERDICT_AGAIN_ALL},
        {SG_FENCED, VERDICT_AGAIN_ALL},
        {SG_STALE_EPOCH, VERDICT_AGAIN_ALL},
        {SG_NOT_SYNCHRONOUS, VERDICT_AGAIN_ALL},
        {SG_NO_MEMORY, VERDICT_AGAIN_ALL},
        {SG_INTERNAL, VERDICT_AGAIN_ONE},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        if (queue_verdict(cases[i].error, 1, MAX) != cases[i].verdict)
            fail_msg("%s: %d", sg_error_code(cases[i].error),
                     queue_verdict(cases[i].error, 1, MAX));
    }
}

static void only_inner_errors_run_out_of_tries(void **state)
{
    (void)state;
    for (int i = 0; i < SG_ERROR_COUNT; i++) {
        enum sg_error error = (enum sg_error)i;
        enum queue_verdict first = queue_verdict(error, 1, MAX);
        enum queue_verdict last = queue_verdict(error, MAX, MAX);
        if (first == VERDICT_AGAIN_ONE)
            assert_int_equal(last, VERDICT_DEAD);
        else
            assert_int_equal(last, first);
        if (sg_error_may_retry(error))
            assert_int_equal(queue_verdict(error, 1000000, MAX), VERDICT_AGAIN_ALL);
        assert_int_equal(first == VERDICT_BOOKED, error == SG_OK);
    }
    assert_int_equal(queue_verdict(SG_INTERNAL, MAX - 1, MAX), VERDICT_AGAIN_ONE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_of_a_booking),
        cmocka_unit_test(only_inner_errors_run_out_of_tries),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
