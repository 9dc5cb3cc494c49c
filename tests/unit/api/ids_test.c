/*
 * Goal: ids and cursors are read strictly: one spelling for each, nothing else passes.
 * Method: tables; cursors written, read back, and broken at every byte.
 *
 * SPDX-License-Identifier: MIT
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "api/cursor.h"
#include "api/ids.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static void event_ids(void **state)
{
    static const struct {
        const char *text;
        int64_t id; /* 0: refused */
    } cases[] = {
        {"1", 1},
        {"1000", 1000},
        {"9223372036854775807", INT64_MAX},
        {"9223372036854775808", 0},
        {"18446744073709551617", 0},
        {"99999999999999999999999999999999999999999999", 0},
        {"0", 0},
        {"00", 0},
        {"01", 0},
        {"-1", 0},
        {"+1", 0},
        {" 1", 0},
        {"1 ", 0},
        {"1e3", 0},
        {"1.0", 0},
        {"0x1", 0},
        {"abc", 0},
        {"", 0},
        {"\xd9\xa1", 0}, /* an Arabic one */
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        int64_t id = 0;
        bool fine = ids_parse_event(cases[i].text, strlen(cases[i].text), &id);
        if (fine != (cases[i].id > 0) || id != cases[i].id)
            fail_msg("'%s' gives %lld", cases[i].text, (long long)id);
    }
    int64_t id = 0;
    assert_true(ids_parse_event("12/seats", 2, &id)); /* only as far as told */
    assert_int_equal(id, 12);
}

static void uuids(void **state)
{
    char uuid[IDS_UUID_LEN + 1] = "untouched";
    const char *good = "0190F3c2-7d1e-4c55-9e5a-3f0f6d1c2b7A";
    static const char *const bad[] = {
        "",
        "0190f3c2-7d1e-4c55-9e5a-3f0f6d1c2b7",
        "0190f3c2-7d1e-4c55-9e5a-3f0f6d1c2b7aa",
        "0190f3c2x7d1e-4c55-9e5a-3f0f6d1c2b7a",
        "0190f3c2-7d1e-4c55-9e5a-3f0f6d1c2b7g",
        "0190f3c27d1e4c559e5a3f0f6d1c2b7a----",
        "{190f3c2-7d1e-4c55-9e5a-3f0f6d1c2b7}",
        "0190f3c2-7d1e-4c55-9e5a-3f0f6d1c2b7'",
    };
    (void)state;
    for (size_t i = 0; i < COUNT(bad); i++) {
        if (ids_parse_uuid(bad[i], strlen(bad[i]), uuid))
            fail_msg("'%s' passes", bad[i]);
        assert_string_equal(uuid, "untouched");
    }
    assert_true(ids_parse_uuid(good, strlen(good), uuid));
    assert_string_equal(uuid, "0190f3c2-7d1e-4c55-9e5a-3f0f6d1c2b7a");
}

static void printable_ascii(void **state)
{
    (void)state;
    assert_true(ids_is_printable_ascii("order-1 ~", 9));
    assert_false(ids_is_printable_ascii("order-1 ~", 8));
    assert_false(ids_is_printable_ascii("", 8));
    assert_false(ids_is_printable_ascii("a\tb", 8));
    assert_false(ids_is_printable_ascii("a\x7f", 8));
    assert_false(ids_is_printable_ascii("\xc3\xa9", 8));
}

static void cursors(void **state)
{
    static const int64_t ids[] = {1, 2, 63, 64, 1000, INT64_C(1) << 40, INT64_MAX};
    (void)state;
    for (size_t i = 0; i < COUNT(ids); i++) {
        char text[CURSOR_LEN + 1], broken[CURSOR_LEN + 1];
        int64_t id = -1;
        cursor_write(ids[i], text);
        assert_int_equal(strlen(text), CURSOR_LEN);
        assert_true(cursor_parse(text, &id));
        assert_int_equal(id, ids[i]);
        for (size_t k = 0; k < CURSOR_LEN; k++) {
            memcpy(broken, text, sizeof(broken));
            broken[k] = broken[k] == 'A' ? 'B' : 'A';
            id = -1;
            assert_false(cursor_parse(broken, &id));
            broken[k] = '+';
            assert_false(cursor_parse(broken, &id));
            broken[k] = '\0';
            assert_false(cursor_parse(broken, &id));
            assert_int_equal(id, -1);
        }
    }
    int64_t id = -1;
    char zero[CURSOR_LEN + 1], negative[CURSOR_LEN + 1];
    cursor_write(0, zero);
    cursor_write(-1, negative);
    assert_false(cursor_parse(zero, &id));
    assert_false(cursor_parse(negative, &id));
    assert_false(cursor_parse("AAAAAAAAAAAAAAAAA", &id));
}

static void what_a_uuid_says(void **state)
{
    (void)state;
    assert_int_equal(ids_uuid_version("0190f3c2-7d1e-7c55-9e5a-3f0f6d1c2b7a"), 7);
    assert_int_equal(ids_uuid_version("0190f3c2-7d1e-fc55-9e5a-3f0f6d1c2b7a"), 15);
    assert_int_equal(ids_uuid_v7_ms("0190f3c2-7d1e-7c55-9e5a-3f0f6d1c2b7a"),
                     INT64_C(0x0190f3c27d1e));
    assert_int_equal(ids_uuid_v7_ms("00000000-0000-7fff-9e5a-3f0f6d1c2b7a"), 0);
    assert_int_equal(ids_uuid_v7_ms("ffffffff-ffff-7000-8000-000000000000"),
                     INT64_C(0xffffffffffff));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(event_ids),        cmocka_unit_test(uuids),
        cmocka_unit_test(printable_ascii),  cmocka_unit_test(cursors),
        cmocka_unit_test(what_a_uuid_says),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
