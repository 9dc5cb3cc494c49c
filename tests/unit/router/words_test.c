/*
 * Goal: the router's words hold together: statements have unique names and sane flags, outcomes of
 * the database map to errors, conflicts name the right seats whatever the text says.
 * Method: tables.
 *
 * SPDX-License-Identifier: MIT
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "router/lane.h"
#include "router/lane_batch.h"
#include "router/pgconn.h"
#include "router/statements.h"

static void test_statements_are_complete_and_unique(void **state)
{
    (void)state;
    for (int i = 0; i < STATEMENT_COUNT; i++) {
        const struct statement_info *info = statement_info((enum statement)i);
        assert_non_null(info->name);
        assert_non_null(info->sql);
        assert_true(strlen(info->name) > 0 && strlen(info->name) < 64); /* NAMEDATALEN */
        assert_true(strlen(info->sql) > 0);
        assert_true(info->result_format == 0 || info->result_format == 1);
        for (int j = 0; j < i; j++)
            assert_string_not_equal(info->name, statement_info((enum statement)j)->name);
    }
}

/* Nothing that is prepared on a replica may write. */
static void test_read_statements_only_read(void **state)
{
    (void)state;
    for (int i = 0; i < STATEMENT_COUNT; i++) {
        const struct statement_info *info = statement_info((enum statement)i);
        if (info->write)
            continue;
        assert_memory_equal(info->sql, "SELECT", 6);
        assert_null(strstr(info->sql, "INSERT"));
        assert_null(strstr(info->sql, "UPDATE"));
        assert_null(strstr(info->sql, "_batch"));
        assert_null(strstr(info->sql, "order_step"));
        assert_null(strstr(info->sql, "orders_due"));
        assert_null(strstr(info->sql, "_store"));
        assert_null(strstr(info->sql, "waitlist_join"));
        assert_null(strstr(info->sql, "waitlist_leave"));
        assert_null(strstr(info->sql, "create_event"));
    }
}

static void test_outcomes(void **state)
{
    static const struct {
        const char *outcome;
        enum sg_error error;
    } cases[] = {{"booked", SG_OK},
                 {"replayed", SG_OK},
                 {"seats_taken", SG_SEATS_TAKEN},
                 {"unknown_seat", SG_UNKNOWN_SEAT},
                 {"unknown_event", SG_UNKNOWN_EVENT},
                 {"over_limit", SG_OVER_LIMIT},
                 {"ok", SG_OK},
                 {"not_owner", SG_NOT_OWNER},
                 {"hold_expired", SG_HOLD_EXPIRED},
                 {"order_open", SG_ORDER_OPEN},
                 {"already_waiting", SG_ALREADY_WAITING},
                 {"key_reused", SG_KEY_REUSED},
                 {"fenced", SG_FENCED},
                 {"stale_epoch", SG_STALE_EPOCH},
                 {"not_synchronous", SG_NOT_SYNCHRONOUS}};
    enum sg_error error;
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_true(lane_outcome(cases[i].outcome, &error));
        assert_int_equal(error, cases[i].error);
    }
    error = SG_IO;
    assert_false(lane_outcome("again", &error));
    assert_false(lane_outcome("", &error));
    assert_false(lane_outcome("bookedx", &error));
    assert_int_equal(error, SG_IO); /* untouched */
}

static void test_passing_errors(void **state)
{
    static const char *const passing[] = {"57P01", "57P02", "57P03", "25006", "53100", "53200",
                                          "53300", "40001", "40P01", "26000", "0A000"};
    static const char *const lasting[] = {"23505", "42P01", "22003", "57014",
                                          "XX000", "25001", "08006", ""};
    (void)state;
    for (size_t i = 0; i < sizeof(passing) / sizeof(passing[0]); i++)
        assert_true(pgconn_error_is_passing(passing[i]));
    for (size_t i = 0; i < sizeof(lasting) / sizeof(lasting[0]); i++)
        assert_false(pgconn_error_is_passing(lasting[i]));
}

static void check_conflicts(const char *text, const char *expected)
{
    static const struct seat seats[] = {{1, 11}, {2, 22}, {3, 33}};
    struct seat found[3] = {{0, 0}};
    char got[64] = "";
    size_t count = lane_conflicts(text, seats, 3, found);
    assert_true(count <= 3);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(found[i].col, found[i].row * 11);
        snprintf(got + strlen(got), sizeof(got) - strlen(got), "%d ", found[i].row);
    }
    assert_string_equal(got, expected);
}

static void test_conflicts(void **state)
{
    (void)state;
    check_conflicts("{1}", "1 ");
    check_conflicts("{1,3}", "1 3 ");
    check_conflicts("{1,2,3}", "1 2 3 ");
    check_conflicts("{}", "");
    check_conflicts("", "");
    check_conflicts("{", "");
    check_conflicts("{,,}", "");
    check_conflicts("{0,4,-1,2}", "2 ");
    check_conflicts("{99999999999999999999,2}", "2 ");
    check_conflicts("{NULL,2}", "");
    check_conflicts("{1,1,1,1,1,1}", "1 1 1 ");
    check_conflicts("1,2", "");
    check_conflicts("{1;2}", "1 ");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_statements_are_complete_and_unique),
        cmocka_unit_test(test_read_statements_only_read),
        cmocka_unit_test(test_outcomes),
        cmocka_unit_test(test_passing_errors),
        cmocka_unit_test(test_conflicts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
