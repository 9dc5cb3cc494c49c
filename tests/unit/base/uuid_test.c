/*
 * Goal: UUIDs of version 7 are well-formed, ordered by time and unlike each other; text and bytes
 * turn into each other, and nothing else is taken for one.
 * Method: properties over many, and every single wrong character.
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

#include "base/uuid.h"

static void test_version_variant_and_time(void **state)
{
    static const int64_t times_us[] = {0, 999, 1000, INT64_C(1795219200123456),
                                       INT64_C(0xffffffffffff) * 1000 + 999};
    (void)state;
    for (size_t i = 0; i < sizeof(times_us) / sizeof(times_us[0]); i++) {
        struct uuid uuid = uuid_v7(times_us[i]);
        uint64_t ms = 0;
        for (int b = 0; b < 6; b++)
            ms = ms << 8 | uuid.bytes[b];
        assert_true(ms == (uint64_t)times_us[i] / 1000);
        assert_int_equal(uuid.bytes[6] >> 4, 7);
        assert_int_equal(uuid.bytes[8] >> 6, 2);
    }
}

static int by_bytes(const void *a, const void *b)
{
    return memcmp(a, b, sizeof(struct uuid));
}

static void test_no_two_alike_even_in_one_moment(void **state)
{
    enum { COUNT = 100000 };
    struct uuid *uuids = malloc(COUNT * sizeof(*uuids));
    (void)state;
    for (int i = 0; i < COUNT; i++)
        uuids[i] = uuid_v7(1795219200000000);
    qsort(uuids, COUNT, sizeof(*uuids), by_bytes);
    for (int i = 1; i < COUNT; i++)
        assert_true(by_bytes(&uuids[i - 1], &uuids[i]) != 0);
    free(uuids);
}

static void test_later_is_greater(void **state)
{
    (void)state;
    for (int64_t ms = 1; ms < 2000; ms++) {
        struct uuid before = uuid_v7((ms - 1) * 1000);
        struct uuid after = uuid_v7(ms * 1000);
        assert_true(by_bytes(&before, &after) < 0);
    }
}

static void test_text_and_back(void **state)
{
    struct uuid back;
    char text[UUID_TEXT_LEN + 1];
    struct uuid known = {{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 255}};
    (void)state;
    uuid_format(&known, text);
    assert_string_equal(text, "00010203-0405-0607-0809-0a0b0c0d0eff");
    for (int i = 0; i < 1000; i++) {
        struct uuid uuid = uuid_v7(INT64_C(12345678) * i);
        uuid_format(&uuid, text);
        assert_int_equal(strlen(text), UUID_TEXT_LEN);
        assert_true(uuid_parse(text, &back));
        assert_memory_equal(&uuid, &back, sizeof(uuid));
    }
    assert_true(uuid_parse("ABCDEF01-2345-6789-abcd-EF0123456789", &back)); /* upper case too */
    uuid_format(&back, text);
    assert_string_equal(text, "abcdef01-2345-6789-abcd-ef0123456789");
}

static void test_any_wrong_character_is_refused(void **state)
{
    static const char good[] = "01234567-89ab-7cde-8f01-23456789abcd";
    static const char wrong[] = "gG@`/:-{} \t\n\x80\xff";
    struct uuid untouched = {{42}};
    char text[sizeof(good)];
    (void)state;
    for (size_t at = 0; at < sizeof(good) - 1; at++) {
        for (size_t w = 0; w < sizeof(wrong); w++) { /* with the NUL: cut there */
            memcpy(text, good, sizeof(good));
            if (text[at] == wrong[w])
                continue;
            text[at] = wrong[w];
            assert_false(uuid_parse(text, &untouched));
        }
    }
    assert_false(uuid_parse("", &untouched));
    assert_false(uuid_parse("01234567-89ab-7cde-8f01-23456789abcde", &untouched));
    assert_false(uuid_parse("{01234567-89ab-7cde-8f01-23456789abcd}", &untouched));
    assert_false(uuid_parse("0123456789ab7cde8f0123456789abcd", &untouched));
    assert_int_equal(untouched.bytes[0], 42);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_version_variant_and_time),
        cmocka_unit_test(test_no_two_alike_even_in_one_moment),
        cmocka_unit_test(test_later_is_greater),
        cmocka_unit_test(test_text_and_back),
        cmocka_unit_test(test_any_wrong_character_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
