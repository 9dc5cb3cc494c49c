/*
 * Goal: the error table keeps its promises to clients: codes are unique and stable in form, status
 * and retry fit together.
 * Method: properties of every row, and the rows that clients rely on by name.
 *
 * SPDX-License-Identifier: MIT
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "base/error.h"

static void test_every_row_is_whole(void **state)
{
    (void)state;
    for (int i = 0; i < SG_ERROR_COUNT; i++) {
        enum sg_error error = (enum sg_error)i;
        const char *code = sg_error_code(error);
        int status = sg_error_http_status(error);
        assert_non_null(code);
        assert_true(strlen(code) > 0 &&
                    strspn(code, "abcdefghijklmnopqrstuvwxyz_") == strlen(code));
        assert_true(strlen(sg_error_title(error)) > 1);
        assert_true(i == SG_OK ? status == 200 : status >= 400 && status <= 599);
        for (int j = 0; j < i; j++)
            assert_string_not_equal(code, sg_error_code((enum sg_error)j));
    }
}

/* 503 means "not now", so it may be tried again; what is wrong with the request itself stays wrong.
 */
static void test_retry_fits_the_status(void **state)
{
    (void)state;
    for (int i = 0; i < SG_ERROR_COUNT; i++) {
        enum sg_error error = (enum sg_error)i;
        int status = sg_error_http_status(error);
        if (status == 503)
            assert_true(sg_error_may_retry(error));
        if (status == 400 || status == 404 || status == 413 || status == 422)
            assert_false(sg_error_may_retry(error));
    }
}

static void test_what_clients_rely_on(void **state)
{
    static const struct {
        enum sg_error error;
        const char *code;
        int status;
    } rows[] = {{SG_SEATS_TAKEN, "seats_taken", 409},
                {SG_UNKNOWN_EVENT, "unknown_event", 404},
                {SG_UNKNOWN_BOOKING, "unknown_booking", 404},
                {SG_UNKNOWN_SEAT, "unknown_seat", 422},
                {SG_DUPLICATE_SEAT, "duplicate_seat", 422},
                {SG_KEY_REUSED, "idempotency_key_reused", 422},
                {SG_BODY_TOO_LARGE, "body_too_large", 413},
                {SG_OVERLOADED, "overloaded", 503},
                {SG_SHARD_UNAVAILABLE, "shard_unavailable", 503},
                {SG_DEADLINE, "deadline_exceeded", 503},
                {SG_OUTCOME_UNKNOWN, "outcome_unknown", 503},
                {SG_MAP_FULL, "map_full", 507}};
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        assert_string_equal(sg_error_code(rows[i].error), rows[i].code);
        assert_int_equal(sg_error_http_status(rows[i].error), rows[i].status);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_row_is_whole),
        cmocka_unit_test(test_retry_fits_the_status),
        cmocka_unit_test(test_what_clients_rely_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
