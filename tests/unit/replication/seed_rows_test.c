/*
 * Goal: a row of the snapshot becomes the command that writes exactly it, whatever a user is
 * called; a row that is not one becomes nothing. Method: tables of rows as COPY writes them, with
 * every escape, beside the command in RESP; rows cut short at each byte.
 *
 * SPDX-License-Identifier: MIT
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/redisresp.h"
#include "replication/seed_rows.h"

#define BOOKING "0192a3b4-c5d6-7e8f-9a0b-1c2d3e4f5061"
#define AT "000000000000000040960000000000"

struct rig {
    struct seed_rows rows;
    struct dynbuf out;
    struct dynbuf expected;
};

static int set_up(void **state)
{
    static struct rig rig;
    seed_rows_init(&rig.rows, "al-pha", 12, 34, 4096);
    dynbuf_init(&rig.out, 1 << 16);
    dynbuf_init(&rig.expected, 1 << 16);
    *state = &rig;
    return 0;
}

static int tear_down(void **state)
{
    struct rig *rig = *state;
    dynbuf_done(&rig->out);
    dynbuf_done(&rig->expected);
    return 0;
}

static void test_counters(void **state)
{
    static const char row[] = "7\t10\t20\t3\t150\n";
    struct rig *rig = *state;
    assert_int_equal(seed_rows_event(&rig->rows, row, strlen(row), &rig->out), SG_OK);
    redisresp_command(&rig->expected, "HSET", "sg1:{e:7}:al-pha.12", "at", AT, "epoch", "34",
                      "total", "200", "available", "47", "held", "3", "booked", "150", "rows", "10",
                      "cols", "20", NULL);
    assert_string_equal(dynbuf_text(&rig->out), dynbuf_text(&rig->expected));
}

/* Bookings that have outlived their event. */
static void test_tombstone(void **state)
{
    static const char row[] = "7\t0\t0\t3\t150\n";
    struct rig *rig = *state;
    assert_int_equal(seed_rows_event(&rig->rows, row, strlen(row), &rig->out), SG_OK);
    redisresp_command(&rig->expected, "HSET", "sg1:{e:7}:al-pha.12", "at", AT, "epoch", "34",
                      "deleted", "1", NULL);
    assert_string_equal(dynbuf_text(&rig->out), dynbuf_text(&rig->expected));
}

static void test_users(void **state)
{
    static const struct {
        const char *copied;
        const char *user;
    } cases[] = {
        {"u-1", "u-1"},
        {"a\\\\b", "a\\b"},
        {"\\\\N", "\\N"},
        {"x}:al-pha.3{", "x}:al-pha.3{"},
        {"\xc3\xa4\xe2\x82\xac", "\xc3\xa4\xe2\x82\xac"},
        {"tab\\tnew\\nret\\rback\\bfeed\\fvert\\v", "tab\tnew\nret\rback\bfeed\fvert\v"},
        {"\\101\\x42\\x4g\\q", "AB\x04gq"},
        {"1234567890123456789012345678901234567890123456789012345678901234",
         "1234567890123456789012345678901234567890123456789012345678901234"},
    };
    struct rig *rig = *state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char row[256];
        char key[REDISKEY_MAX];
        snprintf(row, sizeof(row), "%s\t" BOOKING "\t7\n", cases[i].copied);
        snprintf(key, sizeof(key), "sg1:{u:%s}:al-pha.12", cases[i].user);
        dynbuf_reset(&rig->out);
        dynbuf_reset(&rig->expected);
        assert_int_equal(seed_rows_ticket(&rig->rows, row, strlen(row), &rig->out), SG_OK);
        redisresp_command(&rig->expected, "HSET", key, "at", AT, "epoch", "34", BOOKING, "7", NULL);
        assert_string_equal(dynbuf_text(&rig->out), dynbuf_text(&rig->expected));
    }
}

static void test_what_is_no_row(void **state)
{
    static const char *const tickets[] = {
        "",
        "\n",
        "u\t" BOOKING "\t7",
        "u\t" BOOKING "\n",
        "u\t" BOOKING "\t7\t8\n",
        "\t" BOOKING "\t7\n",
        "\\N\t" BOOKING "\t7\n",
        "u\\\t" BOOKING "\t7\n",
        "a\\000b\t" BOOKING "\t7\n",
        "u\t\\N\t7\n",
        "u\t0192a3b4-c5d6-7e8f-9a0b-1c2d3e4f506\t7\n",
        "u\t0192a3b4-c5d6-7e8f-9a0b-1c2d3e4f506g\t7\n",
        "u\t" BOOKING "\t0\n",
        "u\t" BOOKING "\t-7\n",
        "u\t" BOOKING "\t9223372036854775808\n",
        "u\t" BOOKING "\t\n",
        "12345678901234567890123456789012345678901234567890123456789012345\t" BOOKING "\t7\n",
    };
    static const char *const events[] = {
        "7\t10\t20\t3\n",
        "7\t10\t20\t3\t\\N\n",
        "0\t10\t20\t3\t4\n",
        "7\t2147483648\t20\t3\t4\n",
        "7\t10\t20\t3\t4\t5\n",
        "7\t10\t20\t-3\t4\n",
        "7\t10\t20\t9223372036854775807\t9223372036854775807\n",
    };
    struct rig *rig = *state;
    for (size_t i = 0; i < sizeof(tickets) / sizeof(tickets[0]); i++)
        assert_int_equal(seed_rows_ticket(&rig->rows, tickets[i], strlen(tickets[i]), &rig->out),
                         SG_MALFORMED);
    for (size_t i = 0; i < sizeof(events) / sizeof(events[0]); i++)
        assert_int_equal(seed_rows_event(&rig->rows, events[i], strlen(events[i]), &rig->out),
                         SG_MALFORMED);
    assert_int_equal(rig->out.len, 0);
}

static void test_rows_cut_short(void **state)
{
    static const char ticket[] = "a\\\\\\x41b\t" BOOKING "\t7\n";
    static const char event[] = "7\t10\t20\t3\t150\n";
    struct rig *rig = *state;
    for (size_t len = 0; len < sizeof(ticket) - 1; len++)
        assert_int_equal(seed_rows_ticket(&rig->rows, ticket, len, &rig->out), SG_MALFORMED);
    for (size_t len = 0; len < sizeof(event) - 1; len++)
        assert_int_equal(seed_rows_event(&rig->rows, event, len, &rig->out), SG_MALFORMED);
    assert_int_equal(rig->out.len, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_counters, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_tombstone, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_users, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_is_no_row, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_rows_cut_short, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
