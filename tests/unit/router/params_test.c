/*
 * Goal: parameters leave as the bytes PostgreSQL reads, and survive running out of room.
 * Method: byte for byte against what array_recv and friends want (params.h has the format).
 *
 * SPDX-License-Identifier: MIT
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "router/params.h"

static void check(const struct params *params, int i, const char *bytes, int len)
{
    const char *values[PARAMS_MAX];
    int lengths[PARAMS_MAX];
    int formats[PARAMS_MAX];
    params_export(params, values, lengths, formats);
    assert_int_equal(formats[i], 1);
    if (len < 0) {
        assert_null(values[i]);
        return;
    }
    assert_non_null(values[i]);
    assert_int_equal(lengths[i], len);
    assert_memory_equal(values[i], bytes, (size_t)len);
}

#define CHECK(params, i, bytes) check(params, i, bytes, (int)sizeof(bytes) - 1)

static void test_single_values(void **state)
{
    struct params params;
    struct uuid uuid;
    (void)state;
    assert_true(uuid_parse("0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b", &uuid));
    params_init(&params);
    params_i64(&params, INT64_C(0x0102030405060708));
    params_i64(&params, -1);
    params_i64(&params, INT64_MIN);
    params_i32(&params, 0x01020304);
    params_i32(&params, INT32_MIN);
    params_bool(&params, true);
    params_bool(&params, false);
    params_text(&params, "grüß");
    params_text(&params, "");
    params_text(&params, NULL);
    params_uuid(&params, &uuid);
    assert_true(params_ok(&params));
    assert_int_equal(params.count, 11);
    CHECK(&params, 0, "\x01\x02\x03\x04\x05\x06\x07\x08");
    CHECK(&params, 1, "\xff\xff\xff\xff\xff\xff\xff\xff");
    CHECK(&params, 2, "\x80\0\0\0\0\0\0\0");
    CHECK(&params, 3, "\x01\x02\x03\x04");
    CHECK(&params, 4, "\x80\0\0\0");
    CHECK(&params, 5, "\1");
    CHECK(&params, 6, "\0");
    CHECK(&params, 7, "gr\xc3\xbc\xc3\x9f");
    CHECK(&params, 8, ""); /* empty is not NULL */
    check(&params, 9, NULL, -1);
    CHECK(&params, 10, "\x01\x90\xa1\xb2\xc3\xd4\x7e\x5f\x8a\x9b\x0c\x1d\x2e\x3f\x4a\x5b");
    params_done(&params);
}

static void test_arrays(void **state)
{
    struct params params;
    struct uuid uuid;
    (void)state;
    assert_true(uuid_parse("00112233-4455-6677-8899-aabbccddeeff", &uuid));
    params_init(&params);
    params_array_begin(&params, PARAMS_INT8, 2);
    params_array_i64(&params, 1);
    params_array_i64(&params, -2);
    params_array_end(&params);
    params_array_begin(&params, PARAMS_INT4, 1);
    params_array_i32(&params, 258);
    params_array_end(&params);
    params_array_begin(&params, PARAMS_TEXT, 3);
    params_array_text(&params, "ab");
    params_array_text(&params, NULL);
    params_array_text(&params, "");
    params_array_end(&params);
    params_array_begin(&params, PARAMS_BOOL, 2);
    params_array_bool(&params, false);
    params_array_bool(&params, true);
    params_array_end(&params);
    params_array_begin(&params, PARAMS_UUID, 1);
    params_array_uuid(&params, &uuid);
    params_array_end(&params);
    params_array_begin(&params, PARAMS_INT8, 0);
    params_array_end(&params);
    assert_true(params_ok(&params));
    CHECK(&params, 0,
          "\0\0\0\1\0\0\0\1\0\0\0\x14\0\0\0\2\0\0\0\1"
          "\0\0\0\x8\0\0\0\0\0\0\0\1\0\0\0\x8\xff\xff\xff\xff\xff\xff\xff\xfe");
    CHECK(&params, 1, "\0\0\0\1\0\0\0\1\0\0\0\x17\0\0\0\1\0\0\0\1\0\0\0\4\0\0\1\2");
    CHECK(&params, 2,
          "\0\0\0\1\0\0\0\1\0\0\0\x19\0\0\0\3\0\0\0\1\0\0\0\2"
          "ab\xff\xff\xff\xff\0\0\0\0");
    CHECK(&params, 3, "\0\0\0\1\0\0\0\1\0\0\0\x10\0\0\0\2\0\0\0\1\0\0\0\1\0\0\0\0\1\1");
    CHECK(&params, 4,
          "\0\0\0\1\0\0\0\1\0\0\x0b\x86\0\0\0\1\0\0\0\1\0\0\0\x10"
          "\x00\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\xdd\xee\xff");
    CHECK(&params, 5, "\0\0\0\0\0\0\0\1\0\0\0\x14"); /* no dimensions: the empty array */
    params_done(&params);
}

static void test_too_much_is_not_ok(void **state)
{
    struct params params;
    size_t size = (size_t)9 << 20;
    char *text = malloc(size);
    (void)state;
    memset(text, 'x', size - 1);
    text[size - 1] = '\0';
    params_init(&params);
    params_text(&params, text);
    assert_true(params_ok(&params));
    params_text(&params, text);
    assert_false(params_ok(&params));
    params_i64(&params, 1); /* harmless by now */
    assert_false(params_ok(&params));
    params_done(&params);
    params_done(&params); /* twice is fine: an owner that was refused need not know */
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_single_values),
        cmocka_unit_test(test_arrays),
        cmocka_unit_test(test_too_much_is_not_ok),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
