/*
 * Goal: the names of keys are the contract's, to the byte; a key taken apart gives what made it,
 * and no foreign key is taken for one of ours (old keys are removed by it); positions order as text
 * as they do as numbers. Method: tables.
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

#include "base/rediskeys.h"

#define LONGEST_USER "uuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuu"
#define LONGEST_SHARD "sssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssss"

static void check_name(size_t len, const char *key, const char *wanted)
{
    assert_string_equal(key, wanted);
    assert_int_equal(len, strlen(wanted));
}

static void test_names(void **state)
{
    char key[REDISKEY_MAX];
    size_t len;
    (void)state;
    len = rediskey_shard(key, "alpha");
    check_name(len, key, "sg1:{s:alpha}");
    len = rediskey_event(key, 12, "alpha", 7);
    check_name(len, key, "sg1:{e:12}:alpha.7");
    len = rediskey_changes(key, 12, "alpha", 7);
    check_name(len, key, "sg1:{e:12}:alpha.7:changes");
    len = rediskey_watched(key, INT64_MAX);
    check_name(len, key, "sg1:{e:9223372036854775807}:watched");
    len = rediskey_live(key, 1);
    check_name(len, key, "sg1:{e:1}:live");
    len = rediskey_tickets(key, "u-1}:x", "a.b", INT64_MAX);
    check_name(len, key, "sg1:{u:u-1}:x}:a.b.9223372036854775807");
}

static void test_the_longest_fit(void **state)
{
    char key[REDISKEY_MAX];
    struct rediskey parsed;
    (void)state;
    size_t len = rediskey_tickets(key, LONGEST_USER, LONGEST_SHARD, INT64_MAX);
    assert_true(len < REDISKEY_MAX);
    assert_int_equal(rediskey_parse(key, len, LONGEST_SHARD, &parsed), REDISKEY_TICKETS);
    assert_string_equal(parsed.user, LONGEST_USER);
    len = rediskey_changes(key, INT64_MAX, LONGEST_SHARD, INT64_MAX);
    assert_true(len < REDISKEY_MAX);
    assert_int_equal(rediskey_parse(key, len, LONGEST_SHARD, &parsed), REDISKEY_CHANGES);
    assert_true(parsed.event_id == INT64_MAX && parsed.generation == INT64_MAX);
}

static const struct {
    const char *key;
    enum rediskey_kind kind;
    int64_t event_id;
    int64_t generation;
    const char *user;
} keys[] = {
    {"sg1:{e:12}:alpha.7", REDISKEY_EVENT, 12, 7, ""},
    {"sg1:{e:12}:alpha.7:changes", REDISKEY_CHANGES, 12, 7, ""},
    {"sg1:{u:ann}:alpha.7", REDISKEY_TICKETS, 0, 7, "ann"},
    {"sg1:{u:}:alpha.1}:alpha.7", REDISKEY_TICKETS, 0, 7, "}:alpha.1"},
    {"sg1:{u:a}:alpha.7:changes}:alpha.8", REDISKEY_TICKETS, 0, 8, "a}:alpha.7:changes"},
    {"sg1:{u:" LONGEST_USER "}:alpha.7", REDISKEY_TICKETS, 0, 7, LONGEST_USER},
    {"sg1:{u:" LONGEST_USER "u}:alpha.7", REDISKEY_OTHER, 0, 0, ""},
    {"sg1:{u:}:alpha.7", REDISKEY_OTHER, 0, 0, ""},
    {"sg1:{u:ann}:beta.7", REDISKEY_OTHER, 0, 0, ""},
    {"sg1:{u:ann}:xalpha.7", REDISKEY_OTHER, 0, 0, ""},
    {"sg1:{e:12}:alpha-2.7", REDISKEY_OTHER, 0, 0, ""},
    {"sg1:{e:12}:alpha.", REDISKEY_OTHER, 0, 0, ""},
    {"sg1:{e:12}:alpha.0", REDISKEY_OTHER, 0, 0, ""},
    {"sg1:{e:12}:alpha.07", REDISKEY_OTHER, 0, 0, ""},
    {"sg1:{e:12}:alpha.-7", REDISKEY_OTHER, 0, 0, ""},
    {"sg1:{e:12}:alpha.9223372036854775808", REDISKEY_OTHER, 0, 0, ""},
    {"sg1:{e:12}:alpha.7x", REDISKEY_OTHER, 0, 0, ""},
    {"sg1:{e:012}:alpha.7", REDISKEY_OTHER, 0, 0, ""},
    {"sg1:{e:0}:alpha.7", REDISKEY_OTHER, 0, 0, ""},
    {"sg1:{e:}:alpha.7", REDISKEY_OTHER, 0, 0, ""},
    {"sg1:{e:x}:alpha.7", REDISKEY_OTHER, 0, 0, ""},
    {"sg1:{e:9223372036854775808}:alpha.7", REDISKEY_OTHER, 0, 0, ""},
    {"sg1:{e:12}:alpha.7:change", REDISKEY_OTHER, 0, 0, ""},
    {"sg1:{e:12}:alpha.7:changes:changes", REDISKEY_OTHER, 0, 0, ""},
    {"sg1:{e:12}:watched", REDISKEY_OTHER, 0, 0, ""},
    {"sg1:{s:alpha}", REDISKEY_OTHER, 0, 0, ""},
    {"sg2:{e:12}:alpha.7", REDISKEY_OTHER, 0, 0, ""},
    {"sg1:{e:12}alpha.7", REDISKEY_OTHER, 0, 0, ""},
    {".7", REDISKEY_OTHER, 0, 0, ""},
    {"", REDISKEY_OTHER, 0, 0, ""},
};

static void test_taking_keys_apart(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        struct rediskey before;
        struct rediskey parsed;
        /* Exactly as long as it is, so that a sanitizer sees a step beyond. */
        size_t len = strlen(keys[i].key);
        char *copy = malloc(len ? len : 1);
        memcpy(copy, keys[i].key, len);
        memset(&before, 0x5a, sizeof(before));
        memset(&parsed, 0x5a, sizeof(parsed));
        enum rediskey_kind kind = rediskey_parse(copy, len, "alpha", &parsed);
        free(copy);
        if (kind != keys[i].kind)
            fail_msg("%s: %d", keys[i].key, (int)kind);
        if (kind == REDISKEY_OTHER) {
            assert_memory_equal(&before, &parsed, sizeof(before));
            continue;
        }
        assert_int_equal(parsed.event_id, keys[i].event_id);
        assert_int_equal(parsed.generation, keys[i].generation);
        assert_string_equal(parsed.user, keys[i].user);
    }
    struct rediskey parsed;
    assert_int_equal(rediskey_parse("sg1:{u:a\0b}:alpha.7", 19, "alpha", &parsed), REDISKEY_OTHER);
}

static void test_positions_order_as_text(void **state)
{
    static const struct position rising[] = {{0, 0},
                                             {0, 1},
                                             {1, 0},
                                             {9, UINT32_MAX},
                                             {10, 0},
                                             {10, 9},
                                             {10, 10},
                                             {UINT64_C(1) << 53, 1},
                                             {(UINT64_C(1) << 53) + 1, 1},
                                             {UINT64_MAX, 0},
                                             {UINT64_MAX, UINT32_MAX}};
    enum { COUNT = sizeof(rising) / sizeof(rising[0]) };
    (void)state;
    for (int a = 0; a < COUNT; a++) {
        for (int b = 0; b < COUNT; b++) {
            char text_a[POSITION_TEXT_LEN + 1];
            char text_b[POSITION_TEXT_LEN + 1];
            position_format(&rising[a], text_a);
            position_format(&rising[b], text_b);
            int wanted = (a > b) - (a < b);
            int by_text = strcmp(text_a, text_b);
            assert_int_equal(position_compare(&rising[a], &rising[b]), wanted);
            assert_int_equal((by_text > 0) - (by_text < 0), wanted);
        }
        char text[POSITION_TEXT_LEN + 1];
        struct position back;
        position_format(&rising[a], text);
        assert_int_equal(strlen(text), POSITION_TEXT_LEN);
        assert_true(position_parse(text, POSITION_TEXT_LEN, &back));
        assert_int_equal(position_compare(&rising[a], &back), 0);
    }
}

static void test_what_is_no_position(void **state)
{
    static const char *const bad[] = {"",
                                      "0",
                                      "00000000000000000001000000000", /* 29, 31 digits */
                                      "0000000000000000000100000000001",
                                      "0000000000000000000x0000000001",
                                      "-0000000000000000001000000000 1",
                                      "184467440737095516160000000001", /* 2^64 */
                                      "000000000000000000014294967296", /* 2^32 */
                                      "00000000000000000001000000000 "};
    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct position position = {77, 7};
        assert_false(position_parse(bad[i], strlen(bad[i]), &position));
        assert_true(position.lsn == 77 && position.place == 7);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_the_longest_fit),
        cmocka_unit_test(test_taking_keys_apart),
        cmocka_unit_test(test_positions_order_as_text),
        cmocka_unit_test(test_what_is_no_position),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
