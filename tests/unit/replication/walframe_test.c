/*
 * Goal: frames are read as the manual draws them, anything else is refused without looking past its
 * end, and a status message has the bytes that a server wants.
 * Method: hand-made frames and those of a real server (tests/fuzz/corpus/walframe), each in memory
 * of exactly its size, with every shorter piece; the status compared byte by byte.
 *
 * SPDX-License-Identifier: MIT
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "replication/walframe.h"

#define CORPUS "tests/fuzz/corpus/walframe/"
#define EPOCH_US INT64_C(946684800000000)

static struct walframe frame;

static enum sg_error parse(const char *bytes, size_t len, size_t *ret_payload_at)
{
    char *copy = malloc(len ? len : 1);
    assert_non_null(copy);
    if (len)
        memcpy(copy, bytes, len);
    enum sg_error error = walframe_parse(len ? copy : copy + 1, len, &frame);
    if (error == SG_OK && frame.kind == 'w' && ret_payload_at)
        *ret_payload_at = (size_t)(frame.payload - copy);
    free(copy);
    return error;
}

static void assert_refused(const char *bytes, size_t len)
{
    struct walframe untouched;
    memset(&frame, 0xa5, sizeof frame);
    memset(&untouched, 0xa5, sizeof untouched);
    assert_int_equal(parse(bytes, len, NULL), SG_MALFORMED);
    assert_memory_equal(&frame, &untouched, sizeof frame);
}

static void test_wal(void **state)
{
    static const char bytes[] = "w\x01\x02\x03\x04\x05\x06\x07\x08"
                                "\xf1\xf2\xf3\xf4\xf5\xf6\xf7\xf8"
                                "\0\0\0\0\0\0\0\x2a"
                                "payload";
    size_t at = 0;
    (void)state;
    for (size_t len = 0; len < 25; len++)
        assert_refused(bytes, len);
    for (size_t len = 25; len < sizeof bytes; len++) {
        assert_int_equal(parse(bytes, len, &at), SG_OK);
        assert_int_equal(frame.kind, 'w');
        assert_true(frame.start_lsn == UINT64_C(0x0102030405060708));
        assert_true(frame.end_lsn == UINT64_C(0xf1f2f3f4f5f6f7f8));
        assert_true(frame.clock_us == EPOCH_US + 42);
        assert_false(frame.reply);
        assert_int_equal(at, 25);
        assert_int_equal(frame.len, len - 25);
    }
}

static void test_keepalive(void **state)
{
    char bytes[] = "k\0\0\0\x01\0\0\0\x02\xff\xff\xff\xff\xff\xff\xff\xff\0more";
    (void)state;
    for (size_t len = 0; len < sizeof bytes; len++)
        if (len != 18)
            assert_refused(bytes, len);
    for (int reply = 0; reply < 2; reply++) {
        bytes[17] = (char)reply;
        assert_int_equal(parse(bytes, 18, NULL), SG_OK);
        assert_int_equal(frame.kind, 'k');
        assert_true(frame.end_lsn == UINT64_C(0x0000000100000002));
        assert_true(frame.clock_us == EPOCH_US - 1);
        assert_int_equal(frame.reply, reply);
        assert_null(frame.payload);
    }
}

static void test_others(void **state)
{
    char bytes[40] = {0};
    (void)state;
    for (int letter = 0; letter < 256; letter++) {
        bytes[0] = (char)letter;
        for (size_t len = 1; len <= sizeof bytes; len++)
            if (letter != 'w' && letter != 'k')
                assert_refused(bytes, len);
    }
}

static void test_clock_out_of_range(void **state)
{
    char wal[30] = "w";
    char keepalive[18] = "k";
    (void)state;
    memset(wal + 17, 0xff, 8);
    memset(keepalive + 9, 0xff, 8);
    wal[17] = keepalive[9] = 0x7f;
    assert_refused(wal, sizeof wal);
    assert_refused(keepalive, sizeof keepalive);
}

static void test_captured(void **state)
{
    static const char *const names[] = {"w_0", "w_1", "w_2", "k_0", "k_1"};
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[100];
        char bytes[400];
        snprintf(path, sizeof path, CORPUS "%s", names[i]);
        FILE *file = fopen(path, "rb");
        assert_non_null(file);
        size_t len = fread(bytes, 1, sizeof bytes, file);
        fclose(file);
        assert_int_equal(parse(bytes, len, NULL), SG_OK);
        assert_int_equal(frame.kind, names[i][0]);
        assert_true(frame.end_lsn > 0 || frame.kind == 'w');
        assert_true(frame.end_lsn < UINT64_C(1) << 40 && frame.start_lsn <= frame.end_lsn);
        assert_true(frame.clock_us > INT64_C(1700000000000000));
        assert_true(frame.clock_us < INT64_C(4000000000000000));
        assert_true((frame.kind == 'w') == (frame.len > 0));
    }
}

static void test_status(void **state)
{
    static const char wanted[] = "r\x01\x02\x03\x04\x05\x06\x07\x08"
                                 "\0\0\0\0\0\0\0\x09"
                                 "\xff\xff\xff\xff\xff\xff\xff\xff"
                                 "\0\0\0\0\0\0\x01\0"
                                 "\0";
    char *bytes = malloc(WALFRAME_STATUS_LEN);
    (void)state;
    assert_non_null(bytes);
    assert_int_equal(sizeof wanted - 1, WALFRAME_STATUS_LEN);
    walframe_status(bytes, UINT64_C(0x0102030405060708), 9, UINT64_MAX, EPOCH_US + 256);
    assert_memory_equal(bytes, wanted, WALFRAME_STATUS_LEN);
    walframe_status(bytes, 0, 0, 0, 0);
    assert_memory_equal(bytes + 25, "\xff\xfc\xa2\xfe\xc4\xc8\x20\x00", 8);
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wal),      cmocka_unit_test(test_keepalive),
        cmocka_unit_test(test_others),   cmocka_unit_test(test_clock_out_of_range),
        cmocka_unit_test(test_captured), cmocka_unit_test(test_status),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
