/*
 * Goal: the buffer holds what was written, never more than its bound, remembers that something did
 * not fit, and its JSON strings are what a JSON parser reads back.
 * Method: random writes against a plain array; every bound one byte below, at and above; jansson.
 *
 * SPDX-License-Identifier: MIT
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/dynbuf.h"

static void test_empty(void **state)
{
    struct dynbuf buf;
    (void)state;
    dynbuf_init(&buf, 10);
    assert_string_equal(dynbuf_text(&buf), "");
    assert_int_equal(buf.len, 0);
    dynbuf_reset(&buf);
    dynbuf_add(&buf, NULL, 0);
    assert_string_equal(dynbuf_text(&buf), "");
    assert_false(buf.failed);
    dynbuf_done(&buf);
    dynbuf_done(&buf);
}

static void test_random_writes_against_a_plain_array(void **state)
{
    (void)state;
    for (uint32_t round = 0; round < 300; round++) {
        static char plain[20000];
        size_t len = 0;
        uint32_t seed = round;
        struct dynbuf buf;
        dynbuf_init(&buf, sizeof(plain));
        for (int i = 0; i < 40; i++) {
            char piece[300];
            seed = seed * 1664525 + 1013904223;
            size_t size = (seed >> 8) % sizeof(piece);
            memset(piece, 'a' + (int)(seed >> 28), size);
            switch ((seed >> 20) % 4) {
            case 0:
                dynbuf_add(&buf, piece, size);
                break;
            case 1:
                piece[size ? size - 1 : 0] = '\0';
                size = strlen(piece);
                dynbuf_adds(&buf, piece);
                break;
            case 2:
                piece[0] = 'z';
                size = 1;
                dynbuf_addc(&buf, 'z');
                break;
            default:
                size = (size_t)snprintf(piece, sizeof(piece), "%u-%s", seed, "format");
                dynbuf_addf(&buf, "%u-%s", seed, "format");
            }
            memcpy(plain + len, piece, size);
            len += size;
            assert_int_equal(buf.len, len);
            if (len)
                assert_memory_equal(buf.data, plain, len);
            assert_true(dynbuf_text(&buf)[len] == '\0');
        }
        dynbuf_done(&buf);
    }
}

static void test_the_bound_is_hard_and_the_error_stays(void **state)
{
    (void)state;
    for (size_t max = 0; max < 300; max++) {
        struct dynbuf buf;
        char bytes[301];
        memset(bytes, 'x', sizeof(bytes));
        dynbuf_init(&buf, max);
        dynbuf_add(&buf, bytes, max);
        assert_false(buf.failed);
        assert_int_equal(buf.len, max);
        dynbuf_addc(&buf, 'y');
        assert_true(buf.failed);
        assert_int_equal(buf.len, max);
        dynbuf_reset(&buf);
        assert_false(buf.failed);
        dynbuf_add(&buf, bytes, max + 1);
        assert_true(buf.failed);
        assert_int_equal(buf.len, 0);
        dynbuf_add(&buf, bytes, 0); /* even nothing does not heal it */
        assert_true(buf.failed);
        assert_false(dynbuf_reserve(&buf, 0));
        dynbuf_done(&buf);
    }
}

static void test_sizes_that_would_wrap(void **state)
{
    struct dynbuf buf;
    (void)state;
    dynbuf_init(&buf, 100);
    dynbuf_adds(&buf, "abc");
    assert_false(dynbuf_reserve(&buf, SIZE_MAX));
    assert_true(buf.failed);
    assert_string_equal(dynbuf_text(&buf), "abc");
    dynbuf_done(&buf);
}

static void test_a_format_that_does_not_fit(void **state)
{
    struct dynbuf buf;
    (void)state;
    dynbuf_init(&buf, 8);
    dynbuf_addf(&buf, "%s", "12345678");
    assert_false(buf.failed);
    dynbuf_addf(&buf, "%d", 9);
    assert_true(buf.failed);
    assert_string_equal(dynbuf_text(&buf), "12345678");
    dynbuf_done(&buf);
}

static void test_integers(void **state)
{
    static const int64_t values[] = {0,         1,         -1,  9,         10,
                                     -10,       99,        100, INT32_MAX, INT32_MIN,
                                     INT64_MAX, INT64_MIN, 123, -456,      INT64_MAX - 1};
    (void)state;
    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        struct dynbuf buf;
        char expected[32];
        dynbuf_init(&buf, 100);
        dynbuf_add_i64(&buf, values[i]);
        snprintf(expected, sizeof(expected), "%" PRId64, values[i]);
        assert_string_equal(dynbuf_text(&buf), expected);
        dynbuf_done(&buf);
    }
}

static void check_json(const char *text)
{
    struct dynbuf buf;
    dynbuf_init(&buf, 1 << 16);
    dynbuf_add_json(&buf, text);
    assert_false(buf.failed);
    json_t *value = json_loads(dynbuf_text(&buf), JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(value);
    assert_string_equal(json_string_value(value), text);
    for (const char *p = dynbuf_text(&buf); *p; p++)
        assert_true((unsigned char)*p >= 0x20); /* one line, whatever was in it */
    json_decref(value);
    dynbuf_done(&buf);
}

static void test_json_strings_read_back(void **state)
{
    char all[256];
    char one[2] = "";
    (void)state;
    for (int c = 1; c < 128; c++) {
        one[0] = (char)c;
        all[c - 1] = (char)c;
        check_json(one);
    }
    all[127] = '\0';
    check_json(all);
    check_json("");
    check_json("\"\\\"\\");
    check_json("grüß 座席 🎟");
    check_json("</script>");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_empty),
        cmocka_unit_test(test_random_writes_against_a_plain_array),
        cmocka_unit_test(test_the_bound_is_hard_and_the_error_stays),
        cmocka_unit_test(test_sizes_that_would_wrap),
        cmocka_unit_test(test_a_format_that_does_not_fit),
        cmocka_unit_test(test_integers),
        cmocka_unit_test(test_json_strings_read_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
