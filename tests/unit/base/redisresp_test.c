/*
 * Goal: commands are RESP to the byte, also with binary arguments, and never more than the buffer
 * may hold; the names of scripts are SHA-1.
 * Method: tables; the vectors of RFC 3174, and every length around the ends of blocks.
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

#include "base/redisresp.h"
#include "base/sha1.h"

static void test_a_command(void **state)
{
    struct dynbuf out;
    (void)state;
    dynbuf_init(&out, 4096);
    redisresp_begin(&out, 5);
    redisresp_args(&out, "SET");
    redisresp_arg(&out, "k\0\r\n", 4);
    redisresp_arg(&out, "", 0);
    redisresp_arg_i64(&out, INT64_MIN);
    redisresp_arg_i64(&out, 0);
    static const char wanted[] = "*5\r\n$3\r\nSET\r\n$4\r\nk\0\r\n\r\n$0\r\n\r\n"
                                 "$20\r\n-9223372036854775808\r\n$1\r\n0\r\n";
    assert_int_equal(out.len, sizeof(wanted) - 1);
    assert_memory_equal(out.data, wanted, sizeof(wanted));
    dynbuf_reset(&out);
    redisresp_arg_pair(&out, "ab\0", 3, "cdef\r\nghi", 9);
    redisresp_arg_pair(&out, "", 0, "", 0);
    redisresp_arg_pair(&out, "x", 1, "", 0);
    static const char pairs[] = "$12\r\nab\0cdef\r\nghi\r\n$0\r\n\r\n$1\r\nx\r\n";
    assert_int_equal(out.len, sizeof(pairs) - 1);
    assert_memory_equal(out.data, pairs, sizeof(pairs));
    dynbuf_reset(&out);
    redisresp_command(&out, "HGET", "key", "field", NULL);
    redisresp_command(&out, "PING", NULL);
    assert_string_equal(dynbuf_text(&out),
                        "*3\r\n$4\r\nHGET\r\n$3\r\nkey\r\n$5\r\nfield\r\n*1\r\n$4\r\nPING\r\n");
    dynbuf_done(&out);
}

static void test_the_bound_of_the_buffer(void **state)
{
    (void)state;
    for (size_t max = 0; max < 400; max++) {
        struct dynbuf out;
        char argument[100];
        memset(argument, 'x', sizeof(argument));
        dynbuf_init(&out, max);
        redisresp_begin(&out, 2);
        redisresp_arg(&out, argument, sizeof(argument));
        redisresp_arg_pair(&out, argument, 40, argument + 40, sizeof(argument) - 40);
        assert_true(out.len <= max);
        assert_true(out.failed || out.len == 220);
        assert_false(max >= 300 && out.failed);
        dynbuf_done(&out);
    }
}

static void check_sha1(const void *bytes, size_t len, const char *wanted)
{
    char hex[SHA1_HEX_LEN + 1];
    sha1_hex(bytes, len, hex);
    assert_string_equal(hex, wanted);
}

static void test_sha1(void **state)
{
    char *million = malloc(1000000);
    (void)state;
    memset(million, 'a', 1000000);
    check_sha1("", 0, "da39a3ee5e6b4b0d3255bfef95601890afd80709");
    check_sha1("abc", 3, "a9993e364706816aba3e25717850c26c9cd0d89d");
    check_sha1("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 56,
               "84983e441c3bd26ebaae4aa1f95129e5e54670f1");
    check_sha1(million, 1000000, "34aa973cd4c4daa4f61eeb2bdbad27316534016f");
    check_sha1(million, 55, "c1c8bbdc22796e28c0e15163d20899b65621d65a");
    check_sha1(million, 63, "03f09f5b158a7a8cdad920bddc29b81c18a551f5");
    check_sha1(million, 64, "0098ba824b5c16427bd7a1122a5a442a25ec644d");
    check_sha1(million, 65, "11655326c708d70319be2610e8a57d9a5b959d3b");
    free(million);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_command),
        cmocka_unit_test(test_the_bound_of_the_buffer),
        cmocka_unit_test(test_sha1),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
