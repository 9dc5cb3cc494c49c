/*
 * Goal: sizes are shown so that people can read them, and unknown is never shown as zero; a stream
 * is found by its shard.
 * Method: tables, and an answer made by hand.
 *
 * SPDX-License-Identifier: MIT
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "cli/stream_client.h"

static void test_bytes(void **state)
{
    static const struct {
        json_int_t bytes;
        const char *expect;
    } rows[] = {
        {0, "0 B"},
        {999, "999 B"},
        {1000, "1.0 kB"},
        {1024, "1.0 kB"},
        {10240, "10 kB"},
        {1023999, "1.0 MB"},
        {52428800, "50 MB"},
        {INT64_C(1) << 40, "1.0 TB"},
        {INT64_C(5000) << 40, "5000 TB"},
        {-1, "?"},
    };
    char text[32];
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        json_t *number = json_integer(rows[i].bytes);
        stream_bytes(number, text, sizeof(text));
        assert_string_equal(text, rows[i].expect);
        json_decref(number);
    }
    stream_bytes(NULL, text, sizeof(text));
    assert_string_equal(text, "?");
    json_t *null = json_null();
    stream_bytes(null, text, sizeof(text));
    assert_string_equal(text, "?");
}

static void test_stream_of(void **state)
{
    json_t *answer = json_pack("{s:[{s:s,s:i},{s:s,s:i}]}", "streams", "shard", "alpha",
                               "generation", 3, "shard", "beta", "generation", 4);
    (void)state;
    assert_int_equal(stream_number(stream_of(answer, "beta"), "generation"), 4);
    assert_int_equal(stream_number(stream_of(answer, "alpha"), "generation"), 3);
    assert_null(stream_of(answer, "gamma"));
    assert_int_equal(stream_number(stream_of(answer, "gamma"), "generation"), 0);
    json_decref(answer);
    answer = json_object();
    assert_null(stream_of(answer, "alpha"));
    json_decref(answer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_stream_of),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
