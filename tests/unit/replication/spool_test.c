/*
 * Goal: what was spooled comes back once, whole, in order and without what was aborted; the bound
 * holds; a transaction that lost something is never replayed; no file and no name is left behind.
 * Method: many transactions in turns, with random sizes around those of the buffers and random
 * aborts, against plain arrays; bounds one byte below and at; folders and files that refuse.
 *
 * SPDX-License-Identifier: MIT
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "replication/spool.h"

#define LARGE (INT64_C(1) << 40)

static int count_entries(const char *folder)
{
    int count = 0;
    DIR *dir = opendir(folder);
    assert_non_null(dir);
    while (readdir(dir))
        count++;
    closedir(dir);
    return count;
}

/* A message whose content is known from its number and length: type1 xid4 fill. */
static char *make_message(uint32_t subxid, uint32_t number, size_t len)
{
    char *bytes = malloc(len);
    assert_non_null(bytes);
    assert_true(len >= 5);
    memset(bytes, (int)(number * 31 + 7), len);
    bytes[0] = 'I';
    for (int i = 0; i < 4; i++)
        bytes[1 + i] = (char)(subxid >> (24 - 8 * i));
    for (size_t i = 5; i < len && i < 9; i++)
        bytes[i] = (char)(number >> (8 * (i - 5)));
    return bytes;
}

static enum sg_error add(struct spool *spool, uint32_t xid, uint32_t subxid, uint32_t number,
                         size_t len)
{
    char *bytes = make_message(subxid, number, len);
    enum sg_error error = spool_add(spool, xid, subxid, bytes, len);
    free(bytes);
    return error;
}

static void assert_next(struct spool *spool, uint32_t number, size_t len)
{
    const char *got = NULL;
    size_t got_len = 0;
    char *wanted = make_message(0, number, len);
    assert_int_equal(spool_replay_next(spool, &got, &got_len), SG_OK);
    assert_int_equal(got_len, len - 4);
    assert_int_equal(got[0], 'I');
    assert_memory_equal(got + 1, wanted + 5, len - 5);
    free(wanted);
}

static void assert_end(struct spool *spool, uint32_t xid)
{
    const char *got = "untouched";
    size_t got_len = 4711;
    assert_int_equal(spool_replay_next(spool, &got, &got_len), SG_NOT_FOUND);
    assert_string_equal(got, "untouched");
    assert_int_equal(got_len, 4711);
    assert_int_equal(spool_replay_begin(spool, xid), SG_NOT_FOUND);
}

static void test_one_transaction(void **state)
{
    struct spool *spool = spool_new(LARGE);
    (void)state;
    assert_int_equal(spool_replay_begin(spool, 1), SG_NOT_FOUND);
    assert_int_equal(add(spool, 1, 1, 0, 5), SG_OK);
    assert_int_equal(spool_bytes(spool), 8 + 1);
    assert_int_equal(add(spool, 1, 2, 1, 100), SG_OK);
    assert_int_equal(add(spool, 1, 1, 2, 6), SG_OK);
    assert_int_equal(spool_bytes(spool), 3 * 8 + 1 + 96 + 2);
    assert_int_equal(spool_replay_begin(spool, 2), SG_NOT_FOUND);
    assert_int_equal(spool_replay_begin(spool, 1), SG_OK);
    assert_next(spool, 0, 5);
    assert_next(spool, 1, 100);
    assert_next(spool, 2, 6);
    assert_end(spool, 1);
    assert_int_equal(spool_bytes(spool), 0);
    spool_free(spool);
    spool_free(NULL);
}

static void test_aborted_parts_and_wholes(void **state)
{
    struct spool *spool = spool_new(LARGE);
    (void)state;
    for (uint32_t i = 0; i < 3000; i++)
        assert_int_equal(add(spool, 10, 10 + i % 30, i, 50 + i % 100), SG_OK);
    spool_abort(spool, 99, 99); /* not known */
    for (uint32_t sub = 39; sub > 10; sub -= 2)
        spool_abort(spool, 10, sub);
    for (uint32_t i = 0; i < 10; i++)
        assert_int_equal(add(spool, 10, 10, 5000 + i, 20), SG_OK);
    assert_int_equal(spool_replay_begin(spool, 10), SG_OK);
    for (uint32_t i = 0; i < 3000; i += 2)
        assert_next(spool, i, 50 + i % 100);
    for (uint32_t i = 0; i < 10; i++)
        assert_next(spool, 5000 + i, 20);
    assert_end(spool, 10);
    assert_int_equal(add(spool, 11, 12, 0, 40), SG_OK); /* all of it aborted: still a transaction */
    spool_abort(spool, 11, 12);
    assert_int_equal(spool_replay_begin(spool, 11), SG_OK);
    assert_end(spool, 11);
    assert_int_equal(add(spool, 13, 13, 0, 40), SG_OK);
    spool_abort(spool, 13, 13);
    assert_int_equal(spool_bytes(spool), 0);
    assert_int_equal(spool_replay_begin(spool, 13), SG_NOT_FOUND);
    spool_free(spool);
}

/* The write buffer passes from one to the other, both ways, also while a third is read. */
static void test_transactions_in_turns(void **state)
{
    struct spool *spool = spool_new(LARGE);
    (void)state;
    for (uint32_t i = 0; i < 2000; i++)
        assert_int_equal(add(spool, 1 + i % 3, 1 + i % 3, i, 300), SG_OK);
    assert_int_equal(spool_replay_begin(spool, 2), SG_OK);
    for (uint32_t i = 1; i < 2000; i += 3) {
        assert_next(spool, i, 300);
        assert_int_equal(add(spool, 2, 2, i, 10), SG_OK); /* another one of the same number */
        if (i == 1000)
            spool_abort(spool, 1, 1);
    }
    const char *got;
    size_t len;
    assert_int_equal(spool_replay_next(spool, &got, &len), SG_NOT_FOUND);
    assert_int_equal(spool_replay_begin(spool, 1), SG_NOT_FOUND);
    assert_int_equal(spool_replay_begin(spool, 3), SG_OK);
    for (uint32_t i = 2; i < 2000; i += 3)
        assert_next(spool, i, 300);
    assert_end(spool, 3);
    assert_int_equal(spool_replay_begin(spool, 2), SG_OK);
    for (uint32_t i = 1; i < 2000; i += 3)
        assert_next(spool, i, 10);
    assert_end(spool, 2);
    assert_int_equal(spool_bytes(spool), 0);
    spool_free(spool);
}

static void test_random_against_arrays(void **state)
{
    static const size_t edges[] = {5,      6,      131063, 131064, 131067, 131068, 131072,
                                   131076, 131080, 262144, 400000, 70000,  65536,  30};
    (void)state;
    for (uint32_t round = 0; round < 20; round++) {
        struct spool *spool = spool_new(LARGE);
        uint32_t seed = round + 1;
        struct {
            uint32_t subxid;
            size_t len;
        } added[300];
        for (uint32_t i = 0; i < 300; i++) {
            seed = seed * 1664525 + 1013904223;
            added[i].subxid = 100 + (seed >> 24) % 8;
            added[i].len = (seed >> 16) % 8 ? 5 + (seed >> 8) % 2000 : edges[(seed >> 20) % 14];
            assert_int_equal(add(spool, 100, added[i].subxid, i, added[i].len), SG_OK);
            if (seed % 5 == 0)
                assert_int_equal(add(spool, 7, 7, i, 64), SG_OK);
        }
        uint32_t aborted = seed >> 24; /* a bit for each part; 100 itself stays */
        for (uint32_t part = 1; part < 8; part++)
            if (aborted & 1U << part)
                spool_abort(spool, 100, 100 + part);
        assert_int_equal(spool_replay_begin(spool, 100), SG_OK);
        for (uint32_t i = 0; i < 300; i++)
            if (added[i].subxid == 100 || !(aborted & 1U << (added[i].subxid - 100)))
                assert_next(spool, i, added[i].len);
        assert_end(spool, 100);
        spool_free(spool);
    }
}

/* Every way to end near the end of the buffer, and then one more. */
static void test_buffer_filled_to_the_byte(void **state)
{
    (void)state;
    for (size_t len = 131040; len < 131090; len++) {
        struct spool *spool = spool_new(LARGE);
        assert_int_equal(add(spool, 1, 1, 0, len), SG_OK);
        assert_int_equal(add(spool, 1, 1, 1, 6), SG_OK);
        assert_int_equal(spool_replay_begin(spool, 1), SG_OK);
        assert_next(spool, 0, len);
        assert_next(spool, 1, 6);
        assert_end(spool, 1);
        spool_free(spool);
    }
}

static void test_bound(void **state)
{
    struct spool *spool = spool_new(1000);
    (void)state;
    assert_int_equal(add(spool, 1, 1, 0, 504), SG_OK); /* 508 */
    assert_int_equal(add(spool, 2, 2, 0, 489), SG_OVERLOADED);
    assert_int_equal(spool_bytes(spool), 508);
    assert_int_equal(add(spool, 2, 2, 0, 10), SG_OVERLOADED); /* it has a hole now */
    assert_int_equal(spool_replay_begin(spool, 2), SG_OVERLOADED);
    assert_int_equal(add(spool, 1, 1, 1, 488), SG_OK);
    assert_int_equal(spool_bytes(spool), 1000);
    assert_int_equal(add(spool, 3, 3, 1, 5), SG_OVERLOADED);
    spool_abort(spool, 2, 2);
    spool_abort(spool, 3, 3);
    assert_int_equal(spool_replay_begin(spool, 1), SG_OK);
    assert_next(spool, 0, 504);
    assert_int_equal(spool_bytes(spool), 1000); /* still on the disk */
    assert_next(spool, 1, 488);
    assert_end(spool, 1);
    assert_int_equal(add(spool, 2, 2, 0, 996), SG_OK);
    assert_int_equal(add(spool, 2, 2, 0, 5), SG_OVERLOADED);
    spool_reset(spool);
    assert_int_equal(add(spool, 2, 2, 0, 996), SG_OK);
    spool_free(spool);
}

static void test_reset_while_writing_and_reading(void **state)
{
    int files = count_entries("/proc/self/fd");
    struct spool *spool = spool_new(LARGE);
    (void)state;
    for (uint32_t round = 0; round < 3; round++) {
        for (uint32_t i = 0; i < 40; i++)
            assert_int_equal(add(spool, i % 20, i % 20, i, 60000), SG_OK);
        assert_int_equal(spool_replay_begin(spool, 5), SG_OK);
        assert_next(spool, 5, 60000);
        assert_true(count_entries("/proc/self/fd") > files);
        spool_reset(spool);
        assert_int_equal(spool_bytes(spool), 0);
        assert_int_equal(count_entries("/proc/self/fd"), files);
        assert_int_equal(spool_replay_begin(spool, 5), SG_NOT_FOUND);
    }
    spool_free(spool);
}

static void test_not_a_change(void **state)
{
    struct spool *spool = spool_new(LARGE);
    char *origin = make_message(1, 0, 20);
    (void)state;
    origin[0] = 'O';
    assert_int_equal(spool_add(spool, 1, 1, origin, 20), SG_MALFORMED);
    origin[0] = 'I';
    assert_int_equal(spool_add(spool, 1, 2, origin, 20), SG_MALFORMED);
    assert_int_equal(spool_add(spool, 1, 1, origin, 4), SG_MALFORMED);
    assert_int_equal(spool_bytes(spool), 0);
    assert_int_equal(spool_replay_begin(spool, 1), SG_NOT_FOUND);
    assert_int_equal(spool_add(spool, 1, 1, origin, 20), SG_OK);
    free(origin);
    spool_free(spool);
}

static void test_no_names_in_the_folder(void **state)
{
    char folder[] = "/tmp/spool-test-XXXXXX";
    (void)state;
    assert_non_null(mkdtemp(folder));
    setenv("TMPDIR", folder, 1);
    struct spool *spool = spool_new(LARGE);
    for (uint32_t i = 0; i < 10; i++)
        assert_int_equal(add(spool, i % 2, i % 2, i, 100000), SG_OK);
    assert_int_equal(count_entries(folder), 2); /* . and .. */
    spool_free(spool);
    unsetenv("TMPDIR");
    assert_int_equal(rmdir(folder), 0);
}

static void test_no_folder(void **state)
{
    (void)state;
    setenv("TMPDIR", "/nowhere/at/all", 1);
    struct spool *spool = spool_new(LARGE);
    assert_int_equal(add(spool, 1, 1, 0, 100), SG_OK);
    assert_int_equal(add(spool, 2, 2, 0, 100), SG_OK); /* 1 loses its buffer */
    assert_int_equal(add(spool, 1, 1, 1, 100), SG_IO);
    assert_int_equal(spool_replay_begin(spool, 1), SG_IO);
    assert_int_equal(spool_replay_begin(spool, 2), SG_IO);
    assert_int_equal(add(spool, 3, 3, 0, 300000), SG_IO);
    unsetenv("TMPDIR");
    assert_int_equal(add(spool, 1, 1, 2, 100), SG_IO); /* it has a hole */
    spool_reset(spool);
    assert_int_equal(add(spool, 1, 1, 0, 100), SG_OK);
    assert_int_equal(spool_replay_begin(spool, 1), SG_OK);
    assert_next(spool, 0, 100);
    assert_end(spool, 1);
    spool_free(spool);
}

/* A file that takes a part and then no more, as on a full disk. */
static void test_full_disk(void **state)
{
    struct rlimit before, small;
    struct spool *spool = spool_new(LARGE);
    enum sg_error error = SG_OK;
    uint32_t added = 0;
    (void)state;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    small = before;
    small.rlim_cur = 300000;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    while (added < 10000 && (error = add(spool, 1, 1, added, 100)) == SG_OK)
        added++;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_int_equal(error, SG_IO);
    assert_int_equal(spool_replay_begin(spool, 1), SG_IO);
    spool_abort(spool, 1, 1);
    assert_int_equal(spool_bytes(spool), 0);
    spool_free(spool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_transaction),
        cmocka_unit_test(test_aborted_parts_and_wholes),
        cmocka_unit_test(test_transactions_in_turns),
        cmocka_unit_test(test_random_against_arrays),
        cmocka_unit_test(test_buffer_filled_to_the_byte),
        cmocka_unit_test(test_bound),
        cmocka_unit_test(test_reset_while_writing_and_reading),
        cmocka_unit_test(test_not_a_change),
        cmocka_unit_test(test_no_names_in_the_folder),
        cmocka_unit_test(test_no_folder),
        cmocka_unit_test(test_full_disk),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
