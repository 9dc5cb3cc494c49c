/*
 * Goal: timestamps are read and written exactly, and nothing else passes for one.
 * Method: tables of known instants (from the calendar, not from this code), every day of 1896-2104
 * counted on by one, round trips at the bounds.
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

#include "base/rfc3339.h"

#define S INT64_C(1000000)

static void known_instants(void **state)
{
    static const struct {
        const char *text;
        int64_t us;
        const char *back;
    } cases[] = {
        {"1970-01-01T00:00:00Z", 0, "1970-01-01T00:00:00Z"},
        {"2000-02-29T12:00:00Z", 951825600 * S, "2000-02-29T12:00:00Z"},
        {"2027-06-01T19:00:00Z", 1811876400 * S, "2027-06-01T19:00:00Z"},
        {"2027-06-01T21:00:00+02:00", 1811876400 * S, "2027-06-01T19:00:00Z"},
        {"2027-06-01T13:30:00-05:30", 1811876400 * S, "2027-06-01T19:00:00Z"},
        {"2027-06-01t19:00:00z", 1811876400 * S, "2027-06-01T19:00:00Z"},
        {"2027-06-01T19:00:00-00:00", 1811876400 * S, "2027-06-01T19:00:00Z"},
        {"2027-06-01T19:00:00.25Z", 1811876400 * S + 250000, "2027-06-01T19:00:00.250Z"},
        {"2027-06-01T19:00:00.000001Z", 1811876400 * S + 1, "2027-06-01T19:00:00.000001Z"},
        {"2027-06-01T19:00:00.123456789Z", 1811876400 * S + 123456, "2027-06-01T19:00:00.123456Z"},
        {"1969-12-31T23:59:59.999999Z", -1, "1969-12-31T23:59:59.999999Z"},
        {"2028-03-01T00:30:00+01:00", 1835479800 * S, "2028-02-29T23:30:00Z"},
        {"2026-12-31T23:30:00-01:00", 1798763400 * S, "2027-01-01T00:30:00Z"},
        {"0001-01-01T00:00:00Z", RFC3339_MIN_US, "0001-01-01T00:00:00Z"},
        {"9999-12-31T23:59:59.999999Z", RFC3339_MAX_US, "9999-12-31T23:59:59.999999Z"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        int64_t us = 12345;
        char back[RFC3339_SIZE];
        if (!rfc3339_parse(cases[i].text, &us) || us != cases[i].us)
            fail_msg("%s gave %lld", cases[i].text, (long long)us);
        assert_int_equal(rfc3339_format(us, back), strlen(cases[i].back));
        assert_string_equal(back, cases[i].back);
    }
}

static void nonsense_is_refused(void **state)
{
    static const char *const cases[] = {
        "",
        "2027",
        "2027-06-01",
        "2027-06-01 19:00:00Z",
        "2027-06-01T19:00Z",
        "2027-06-01T19:00:00",
        "2027-06-01T19:00:00Z ",
        " 2027-06-01T19:00:00Z",
        "2027-6-1T19:00:00Z",
        "2027-00-01T19:00:00Z",
        "2027-13-01T19:00:00Z",
        "2027-06-00T19:00:00Z",
        "2027-06-31T19:00:00Z",
        "2027-02-29T19:00:00Z",
        "1900-02-29T19:00:00Z",
        "2027-06-01T24:00:00Z",
        "2027-06-01T19:60:00Z",
        "2016-12-31T23:59:60Z",
        "2027-06-01T19:00:00.Z",
        "2027-06-01T19:00:00.1234567890Z",
        "2027-06-01T19:00:00,5Z",
        "2027-06-01T19:00:00+0200",
        "2027-06-01T19:00:00+02",
        "2027-06-01T19:00:00+24:00",
        "2027-06-01T19:00:00+02:60",
        "2027-06-01T19:00:00X",
        "+2027-06-01T19:00:00Z",
        "-001-06-01T19:00:00Z",
        "12027-06-01T19:00:00Z",
        "0000-06-01T19:00:00Z",
        "0001-01-01T00:00:00+00:01",
        "9999-12-31T23:59:59-00:01",
        "٢٠٢٧-06-01T19:00:00Z",
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        int64_t us = 12345;
        if (rfc3339_parse(cases[i], &us))
            fail_msg("'%s' passes", cases[i]);
        assert_int_equal(us, 12345);
    }
}

static int month_days(int year, int month)
{
    if (month == 2)
        return year % 400 == 0 || (year % 4 == 0 && year % 100 != 0) ? 29 : 28;
    return month == 4 || month == 6 || month == 9 || month == 11 ? 30 : 31;
}

static void every_day_follows_the_one_before(void **state)
{
    int64_t before_us, us;
    (void)state;
    assert_true(rfc3339_parse("1895-12-31T00:00:00Z", &before_us));
    for (int year = 1896; year <= 2104; year++) {
        for (int month = 1; month <= 12; month++) {
            for (int day = 1; day <= month_days(year, month); day++) {
                char text[64], back[RFC3339_SIZE];
                snprintf(text, sizeof(text), "%04d-%02d-%02dT00:00:00Z", year, month, day);
                assert_true(rfc3339_parse(text, &us));
                assert_int_equal(us - before_us, 86400 * S);
                rfc3339_format(us, back);
                assert_string_equal(back, text);
                before_us = us;
            }
        }
    }
}

static void out_of_bounds_is_clamped_when_written(void **state)
{
    char text[RFC3339_SIZE];
    (void)state;
    rfc3339_format(INT64_MIN, text);
    assert_string_equal(text, "0001-01-01T00:00:00Z");
    rfc3339_format(INT64_MAX, text);
    assert_string_equal(text, "9999-12-31T23:59:59.999999Z");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_instants),
        cmocka_unit_test(nonsense_is_refused),
        cmocka_unit_test(every_day_follows_the_one_before),
        cmocka_unit_test(out_of_bounds_is_clamped_when_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
