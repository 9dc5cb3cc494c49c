/*
 * Goal: the decoder says what the server said, and refuses whatever is not exactly one message
 * without looking past its end.
 * Method: what a real server sent (tests/fuzz/corpus/pgoutput, see tests/fuzz/capture_pgoutput.py)
 * and hand-made messages of every type, each decoded from memory of exactly its size; every
 * shorter piece of each must be refused, and each with a byte more; then absurd counts and lengths.
 *
 * SPDX-License-Identifier: MIT
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "replication/netint.h"
#include "replication/pgoutput.h"

#define CORPUS "tests/fuzz/corpus/pgoutput"

/* --- tools -------------------------------------------------------------------------------------
 */

/* A message under construction: put() adds by a format, B byte, H 16, I 32, L 64 bit, s text+NUL,
 * r text alone. */
struct bytes {
    char data[70000];
    size_t len;
};

static void put_int(struct bytes *bytes, uint64_t value, int size)
{
    for (int i = size - 1; i >= 0; i--)
        bytes->data[bytes->len++] = (char)(value >> (8 * i));
}

static void put_text(struct bytes *bytes, const char *text, size_t len)
{
    memcpy(bytes->data + bytes->len, text, len);
    bytes->len += len;
}

static void put(struct bytes *bytes, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    for (; *format; format++) {
        const char *text = *format == 's' || *format == 'r' ? va_arg(args, const char *) : NULL;
        if (text)
            put_text(bytes, text, strlen(text) + (*format == 's'));
        else if (*format == 'L')
            put_int(bytes, va_arg(args, uint64_t), 8);
        else
            put_int(bytes, va_arg(args, uint32_t), *format == 'B' ? 1 : *format == 'H' ? 2 : 4);
    }
    va_end(args);
}

/* The last message stays until the next one, so that what points into it can be looked at. */
static struct pgoutput *decoder;
static struct pgoutput_message message;
static const char *problem;
static char *copy;

static enum sg_error decode(const char *data, size_t len)
{
    free(copy);
    copy = malloc(len ? len : 1);
    assert_non_null(copy);
    if (len)
        memcpy(copy, data, len);
    return pgoutput_decode(decoder, len ? copy : copy + 1, len, &message, &problem);
}

static enum sg_error decode_bytes(const struct bytes *bytes)
{
    return decode(bytes->data, bytes->len);
}

/* Refused with a reason, and nothing written to the result. */
static void assert_refused(const char *data, size_t len)
{
    static struct pgoutput_message untouched;
    memset(&message, 0xa5, sizeof message);
    memset(&untouched, 0xa5, sizeof untouched);
    problem = NULL;
    assert_int_equal(decode(data, len), SG_MALFORMED);
    assert_non_null(problem);
    assert_true(strlen(problem) > 5);
    assert_memory_equal(&message, &untouched, sizeof message);
}

/* Every piece is refused, and the message with one byte more; then it is taken. */
static void assert_exactly(const char *data, size_t len)
{
    struct bytes *more = calloc(1, sizeof *more);
    assert_non_null(more);
    for (size_t part = 0; part < len; part++)
        assert_refused(data, part);
    for (int extra = 0; extra < 256; extra += 51) {
        more->len = 0;
        put_text(more, data, len);
        put(more, "B", extra);
        assert_refused(more->data, more->len);
    }
    free(more);
    assert_int_equal(decode(data, len), SG_OK);
}

static int set_up(void **state)
{
    (void)state;
    decoder = pgoutput_new();
    return decoder ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    pgoutput_free(decoder);
    free(copy);
    decoder = NULL;
    copy = NULL;
    return 0;
}

static void open_block(void)
{
    struct bytes start = {.len = 0};
    put(&start, "BIB", 'S', 900, 1);
    assert_int_equal(decode_bytes(&start), SG_OK);
}

static void assert_value(const struct pgoutput_tuple *tuple, int at, char kind, const char *text)
{
    assert_true(at < tuple->count);
    assert_int_equal(tuple->values[at].kind, kind);
    assert_int_equal(tuple->values[at].len, strlen(text));
    if (kind == 't' || kind == 'b')
        assert_memory_equal(tuple->values[at].data, text, strlen(text));
    else
        assert_null(tuple->values[at].data);
}

/* --- captured ----------------------------------------------------------------------------------
 */

struct capture {
    char *data;
    size_t len;
    size_t at;
};

static void capture_open(struct capture *capture, const char *name)
{
    char path[512];
    snprintf(path, sizeof path, CORPUS "/%s", name);
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    capture->data = malloc(1 << 16);
    assert_non_null(capture->data);
    capture->len = fread(capture->data, 1, 1 << 16, file);
    capture->at = 0;
    assert_true(capture->len > 0 && capture->len < 1 << 16);
    fclose(file);
}

static bool capture_next(struct capture *capture, const char **ret_data, size_t *ret_len)
{
    if (capture->at == capture->len) {
        free(capture->data);
        return false;
    }
    *ret_len = netint_get_u32(capture->data + capture->at);
    *ret_data = capture->data + capture->at + 4;
    capture->at += 4 + *ret_len;
    assert_true(capture->at <= capture->len);
    return true;
}

/* Decodes on until a message of that type. */
static void capture_until(struct capture *capture, enum pgoutput_type type)
{
    const char *data = NULL;
    size_t len = 0;
    do {
        assert_true(capture_next(capture, &data, &len));
        assert_int_equal(decode(data, len), SG_OK);
    } while (message.type != type);
}

struct seen {
    int types[PGOUTPUT_STREAM_ABORT + 1];
    int in_block[PGOUTPUT_STREAM_ABORT + 1];
    int kinds[256];
    int olds[256];
    int sub_aborts;
};

static void see_tuple(struct seen *seen, const struct pgoutput_tuple *tuple)
{
    for (int i = 0; tuple && i < tuple->count; i++)
        seen->kinds[(unsigned char)tuple->values[i].kind]++;
}

static void see_file(struct seen *seen, const char *name)
{
    struct capture capture;
    const char *data;
    size_t len;
    bool in_block = false;
    capture_open(&capture, name);
    pgoutput_reset(decoder);
    while (capture_next(&capture, &data, &len)) {
        assert_exactly(data, len);
        seen->types[message.type]++;
        if (message.type == PGOUTPUT_STREAM_START || message.type == PGOUTPUT_STREAM_STOP)
            in_block = message.type == PGOUTPUT_STREAM_START;
        else if (in_block)
            seen->in_block[message.type] += message.xid != 0;
        see_tuple(seen, message.old);
        see_tuple(seen, message.new);
        seen->olds[(unsigned char)message.old_kind]++;
        seen->sub_aborts += message.type == PGOUTPUT_STREAM_ABORT && message.subxid != message.xid;
    }
}

static void test_captured_whole_and_in_pieces(void **state)
{
    struct seen seen = {.sub_aborts = 0};
    const struct dirent *entry;
    DIR *folder = opendir(CORPUS);
    (void)state;
    assert_non_null(folder);
    while ((entry = readdir(folder)))
        if (entry->d_name[0] == 'v')
            see_file(&seen, entry->d_name);
    closedir(folder);
    for (int type = PGOUTPUT_BEGIN; type <= PGOUTPUT_STREAM_ABORT; type++)
        assert_true(seen.types[type] > 0);
    for (int type = PGOUTPUT_TYPE; type <= PGOUTPUT_MESSAGE; type++)
        if (type != PGOUTPUT_DELETE)
            assert_true(seen.in_block[type] > 0);
    assert_int_equal(seen.in_block[PGOUTPUT_ORIGIN], 0);
    assert_true(seen.kinds['n'] > 0 && seen.kinds['u'] > 0);
    assert_true(seen.kinds['t'] > 0 && seen.kinds['b'] > 0);
    assert_true(seen.olds['K'] > 0 && seen.olds['O'] > 0 && seen.olds[0] > 0);
    assert_true(seen.sub_aborts > 0);
}

static void test_captured_sale(void **state)
{
    struct capture capture;
    (void)state;
    capture_open(&capture, "v1_text_sale");
    capture_until(&capture, PGOUTPUT_MESSAGE);
    assert_string_equal(message.name, "step");
    assert_false(message.transactional);
    assert_int_equal(message.len, 4);
    assert_memory_equal(message.data, "sale", 4);
    capture_until(&capture, PGOUTPUT_BEGIN);
    uint64_t final_lsn = message.lsn;
    int64_t time_us = message.time_us;
    assert_true(message.xid > 0 && final_lsn > 0);
    assert_true(time_us > INT64_C(1700000000000000) && time_us < INT64_C(4000000000000000));
    capture_until(&capture, PGOUTPUT_RELATION);
    assert_string_equal(message.schema, "public");
    assert_string_equal(message.name, "events");
    assert_int_equal(message.identity, 'd');
    assert_int_equal(message.column_count, 5);
    assert_string_equal(message.columns[0].name, "event_id");
    assert_true(message.columns[0].key && !message.columns[1].key);
    assert_int_equal(message.columns[0].type_oid, 20);
    uint32_t events_oid = message.oid;
    capture_until(&capture, PGOUTPUT_INSERT);
    assert_int_equal(message.oid, events_oid);
    assert_null(message.old);
    assert_value(message.new, 0, 't', "7");
    assert_value(message.new, 1, 't', "Träume");
    assert_value(message.new, 4, 't', "20");
    capture_until(&capture, PGOUTPUT_COMMIT);
    assert_int_equal(message.lsn, final_lsn);
    assert_true(message.end_lsn > message.lsn);
    assert_int_equal(message.time_us, time_us);
    capture_until(&capture, PGOUTPUT_TYPE);
    assert_string_equal(message.name, "booking_status");
    capture_until(&capture, PGOUTPUT_RELATION);
    assert_string_equal(message.name, "bookings");
    assert_int_equal(message.identity, 'f');
    capture_until(&capture, PGOUTPUT_UPDATE);
    assert_int_equal(message.old_kind, 'O');
    assert_value(message.old, 3, 't', "held");
    assert_value(message.new, 3, 't', "confirmed");
    assert_value(message.old, 4, 't', "{0,1}");
    free(capture.data);
}

static void test_captured_binary_and_unchanged(void **state)
{
    struct capture capture;
    (void)state;
    capture_open(&capture, "v2_binary_toast");
    capture_until(&capture, PGOUTPUT_INSERT);
    assert_int_equal(message.new->values[0].kind, 'b');
    assert_int_equal(message.new->values[0].len, 4);
    assert_int_equal(netint_get_u32(message.new->values[0].data), 1);
    assert_int_equal(message.new->values[2].len, 4000);
    capture_until(&capture, PGOUTPUT_UPDATE);
    assert_null(message.old);
    assert_value(message.new, 2, 'u', "");
    assert_int_equal(netint_get_u32(message.new->values[1].data), 2);
    capture_until(&capture, PGOUTPUT_UPDATE);
    assert_int_equal(message.old_kind, 'K');
    assert_value(message.old, 1, 'n', "");
    free(capture.data);
}

/* --- hand-made ---------------------------------------------------------------------------------
 */

static void test_borders(void **state)
{
    struct bytes begin = {.len = 0};
    struct bytes commit = {.len = 0};
    struct bytes origin = {.len = 0};
    (void)state;
    put(&begin, "BLLI", 'B', UINT64_C(0x123456789abcdef0), UINT64_C(1), 77);
    assert_exactly(begin.data, begin.len);
    assert_int_equal(message.type, PGOUTPUT_BEGIN);
    assert_true(message.lsn == UINT64_C(0x123456789abcdef0));
    assert_true(message.time_us == INT64_C(946684800000001));
    assert_int_equal(message.xid, 77);
    put(&commit, "BBLLL", 'C', 0, UINT64_C(5), UINT64_C(6), UINT64_C(0) - 1);
    assert_exactly(commit.data, commit.len);
    assert_int_equal(message.type, PGOUTPUT_COMMIT);
    assert_true(message.lsn == 5 && message.end_lsn == 6 && message.xid == 0);
    assert_true(message.time_us == INT64_C(946684799999999));
    put(&origin, "BLs", 'O', UINT64_C(9), "far");
    assert_exactly(origin.data, origin.len);
    assert_true(message.type == PGOUTPUT_ORIGIN && message.lsn == 9);
    assert_string_equal(message.name, "far");
}

static void test_stream_borders(void **state)
{
    struct bytes start = {.len = 0};
    struct bytes commit = {.len = 0};
    struct bytes abort_part = {.len = 0};
    (void)state;
    assert_refused("E", 1);
    put(&start, "BIB", 'S', 0xfffffffe, 1);
    assert_exactly(start.data, start.len);
    assert_true(message.type == PGOUTPUT_STREAM_START && message.xid == 0xfffffffe);
    assert_true(message.first);
    assert_refused(start.data, start.len);
    assert_exactly("E", 1);
    assert_int_equal(message.type, PGOUTPUT_STREAM_STOP);
    start.data[5] = 0;
    assert_exactly(start.data, start.len);
    assert_false(message.first);
    assert_exactly("E", 1);
    put(&commit, "BIBLLL", 'c', 5, 0, UINT64_C(6), UINT64_C(7), UINT64_C(8));
    assert_exactly(commit.data, commit.len);
    assert_true(message.type == PGOUTPUT_STREAM_COMMIT && message.xid == 5 && message.lsn == 6);
    assert_true(message.end_lsn == 7 && message.time_us == INT64_C(946684800000008));
    put(&abort_part, "BII", 'A', 5, 6);
    assert_exactly(abort_part.data, abort_part.len);
    assert_true(message.type == PGOUTPUT_STREAM_ABORT && message.xid == 5 && message.subxid == 6);
}

/* xid: NULL outside of a block. */
static void check_changes(const char *xid_format, uint32_t xid)
{
    struct bytes insert = {.len = 0};
    struct bytes update = {.len = 0};
    struct bytes gone = {.len = 0};
    put(&insert, "B", 'I');
    put(&insert, xid_format, xid);
    put(&insert, "IBHBIrBBBI", 4711, 'N', 4, 't', 3, "abc", 'n', 'u', 'b', 0);
    assert_exactly(insert.data, insert.len);
    assert_true(message.type == PGOUTPUT_INSERT && message.oid == 4711 && message.xid == xid);
    assert_int_equal(message.new->count, 4);
    assert_value(message.new, 0, 't', "abc");
    assert_value(message.new, 1, 'n', "");
    assert_value(message.new, 2, 'u', "");
    assert_value(message.new, 3, 'b', "");
    for (int kind = 0; kind < 3; kind++) {
        update.len = 0;
        put(&update, "B", 'U');
        put(&update, xid_format, xid);
        put(&update, "I", 1);
        if (kind > 0)
            put(&update, "BHBIr", kind == 1 ? 'K' : 'O', 1, 't', 3, "old");
        put(&update, "BHBIrB", 'N', 2, 't', 3, "new", 'u');
        assert_exactly(update.data, update.len);
        assert_true(message.type == PGOUTPUT_UPDATE && message.xid == xid);
        assert_int_equal(message.old_kind, "\0KO"[kind]);
        assert_true((message.old != NULL) == (kind > 0));
        if (kind > 0)
            assert_value(message.old, 0, 't', "old");
        assert_value(message.new, 0, 't', "new");
    }
    put(&gone, "B", 'D');
    put(&gone, xid_format, xid);
    put(&gone, "IBHBIr", 2, 'K', 1, 't', 1, "7");
    assert_exactly(gone.data, gone.len);
    assert_true(message.type == PGOUTPUT_DELETE && message.xid == xid && message.oid == 2);
    assert_true(message.new == NULL &&message.old_kind == 'K');
    assert_value(message.old, 0, 't', "7");
}

static void check_others(const char *xid_format, uint32_t xid)
{
    struct bytes relation = {.len = 0};
    struct bytes type = {.len = 0};
    struct bytes truncate = {.len = 0};
    struct bytes said = {.len = 0};
    put(&relation, "B", 'R');
    put(&relation, xid_format, xid);
    put(&relation, "IssBHBsIIBsII", 16, "", "t", 'i', 2, 1, "id", 20, -1, 0, "", 25, 4);
    assert_exactly(relation.data, relation.len);
    assert_true(message.type == PGOUTPUT_RELATION && message.oid == 16 && message.xid == xid);
    assert_string_equal(message.schema, "");
    assert_string_equal(message.name, "t");
    assert_true(message.identity == 'i' && message.column_count == 2);
    assert_true(message.columns[0].key && !message.columns[1].key);
    assert_string_equal(message.columns[0].name, "id");
    assert_string_equal(message.columns[1].name, "");
    assert_true(message.columns[0].type_oid == 20 && message.columns[1].type_oid == 25);
    put(&type, "B", 'Y');
    put(&type, xid_format, xid);
    put(&type, "Iss", 99, "public", "mood");
    assert_exactly(type.data, type.len);
    assert_true(message.type == PGOUTPUT_TYPE && message.oid == 99 && message.xid == xid);
    assert_string_equal(message.name, "mood");
    put(&truncate, "B", 'T');
    put(&truncate, xid_format, xid);
    put(&truncate, "IBII", 2, 2, 11, 12);
    assert_exactly(truncate.data, truncate.len);
    assert_true(message.type == PGOUTPUT_TRUNCATE && message.oid_count == 2 && message.xid == xid);
    assert_true(message.oids[0] == 11 && message.oids[1] == 12);
    assert_true(message.restart && !message.cascade);
    put(&said, "B", 'M');
    put(&said, xid_format, xid);
    put(&said, "BLsIr", 1, UINT64_C(3), "p", 2, "hi");
    assert_exactly(said.data, said.len);
    assert_true(message.type == PGOUTPUT_MESSAGE && message.transactional && message.lsn == 3);
    assert_true(message.len == 2 && message.xid == xid);
    assert_memory_equal(message.data, "hi", 2);
}

static void test_changes_outside_of_blocks(void **state)
{
    (void)state;
    check_changes("", 0);
    check_others("", 0);
}

static void test_changes_inside_blocks(void **state)
{
    struct bytes none = {.len = 0};
    struct bytes border = {.len = 0};
    (void)state;
    open_block();
    check_changes("I", 901);
    check_others("I", 902);
    put(&none, "BIIBH", 'I', 0, 5, 'N', 0);
    assert_refused(none.data, none.len); /* xid 0 */
    put(&border, "BLLI", 'B', UINT64_C(1), UINT64_C(1), 1);
    assert_refused(border.data, border.len);
    pgoutput_reset(decoder);
    assert_int_equal(decode_bytes(&border), SG_OK);
    check_changes("", 0);
}

static void test_unknown_letters(void **state)
{
    struct bytes bytes = {.len = 0};
    (void)state;
    put(&bytes, "BLLLL", 0, UINT64_C(0), UINT64_C(0), UINT64_C(0), UINT64_C(0));
    for (int letter = 0; letter < 256; letter++) {
        bytes.data[0] = (char)letter;
        if (letter == 0 || !strchr("BCOYRIUDTMSEcA", letter))
            for (size_t len = 1; len <= bytes.len; len++)
                assert_refused(bytes.data, len);
    }
    assert_refused("", 0);
}

/* --- absurd ------------------------------------------------------------------------------------
 */

static void test_absurd_lengths(void **state)
{
    static const uint32_t lens[] = {4,          0x7fffffff, 0x80000000, 0x80000001,
                                    0xffffffff, 0xfffffffb, 0xfffffff0, 0x00010000};
    (void)state;
    for (size_t i = 0; i < sizeof lens / sizeof *lens; i++) {
        struct bytes insert = {.len = 0};
        struct bytes said = {.len = 0};
        put(&insert, "BIBHBIr", 'I', 1, 'N', 1, 't', lens[i], "abc");
        assert_refused(insert.data, insert.len);
        put(&said, "BBLsIr", 'M', 0, UINT64_C(0), "p", lens[i], "abc");
        assert_refused(said.data, said.len);
    }
}

static void test_absurd_counts(void **state)
{
    static const uint32_t counts[] = {2, 1665, 0x7fff, 0x8000, 0xffff};
    static const uint32_t truncated[] = {0,          2,          3,          0x3fffffff,
                                         0x40000000, 0x40000001, 0x7fffffff, 0x80000000,
                                         0x80000001, 0xffffffff};
    (void)state;
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        struct bytes insert = {.len = 0};
        struct bytes relation = {.len = 0};
        put(&insert, "BIBHB", 'I', 1, 'N', counts[i], 'n');
        assert_refused(insert.data, insert.len);
        put(&relation, "BIssBHBsII", 'R', 1, "s", "t", 'd', counts[i], 0, "c", 1, 1);
        assert_refused(relation.data, relation.len);
    }
    for (size_t i = 0; i < sizeof truncated / sizeof *truncated; i++) {
        struct bytes truncate = {.len = 0};
        put(&truncate, "BIBI", 'T', truncated[i], 0, 1);
        assert_refused(truncate.data, truncate.len);
    }
}

/* As many as there may be, then one more with all its bytes there. */
static void test_bounds(void **state)
{
    (void)state;
    for (int over = 0; over < 2; over++) {
        struct bytes *insert = calloc(1, sizeof *insert);
        struct bytes *relation = calloc(1, sizeof *relation);
        int count = PGOUTPUT_COLUMNS_MAX + over;
        assert_true(insert && relation);
        put(insert, "BIBH", 'I', 1, 'N', count);
        put(relation, "BIssBH", 'R', 1, "s", "t", 'd', count);
        for (int i = 0; i < count; i++) {
            put(insert, "BIr", 't', 2, i == count - 1 ? "zz" : "aa");
            put(relation, "BsII", 1, "c", i, -1);
        }
        assert_int_equal(decode_bytes(insert), over ? SG_MALFORMED : SG_OK);
        if (!over)
            assert_value(message.new, count - 1, 't', "zz");
        assert_int_equal(decode_bytes(relation), over ? SG_MALFORMED : SG_OK);
        if (!over)
            assert_int_equal(message.columns[count - 1].type_oid, count - 1);
        free(insert);
        free(relation);
    }
}

static void test_many_truncated_are_counted(void **state)
{
    struct bytes bytes = {.len = 0};
    (void)state;
    put(&bytes, "BIB", 'T', 1000, 3);
    for (int i = 0; i < 1000; i++)
        put(&bytes, "I", i + 1);
    assert_int_equal(decode_bytes(&bytes), SG_OK);
    assert_int_equal(message.oid_count, 1000);
    assert_int_equal(message.oids[PGOUTPUT_TRUNCATE_MAX - 1], PGOUTPUT_TRUNCATE_MAX);
    assert_true(message.cascade && message.restart);
}

static void test_names_without_end(void **state)
{
    struct bytes bytes = {.len = 0};
    (void)state;
    put(&bytes, "BLr", 'O', UINT64_C(1), "far");
    assert_refused(bytes.data, bytes.len);
    bytes.len = 0;
    put(&bytes, "BIsr", 'Y', 1, "public", "mood");
    assert_refused(bytes.data, bytes.len);
    bytes.len = 0;
    put(&bytes, "BIr", 'R', 1, "publictidn");
    assert_refused(bytes.data, bytes.len);
    bytes.len = 0;
    put(&bytes, "BIssBHBr", 'R', 1, "s", "t", 'd', 1, 1, "column");
    assert_refused(bytes.data, bytes.len);
    bytes.len = 0;
    put(&bytes, "BBLr", 'M', 1, UINT64_C(1), "prefix");
    assert_refused(bytes.data, bytes.len);
}

static void test_impossible_fields(void **state)
{
    static const char wrong_row[] = {'K', 'O', 'N', 'n', 0};
    struct bytes bytes = {.len = 0};
    (void)state;
    put(&bytes, "BLLI", 'B', UINT64_C(1), UINT64_C(0x7fffffffffffffff), 1);
    assert_refused(bytes.data, bytes.len); /* the time is beyond 64 bits since 1970 */
    bytes.len = 0;
    put(&bytes, "BLLI", 'B', UINT64_C(1), UINT64_C(1), 0);
    assert_refused(bytes.data, bytes.len);
    bytes.len = 0;
    put(&bytes, "BBLLL", 'C', 1, UINT64_C(1), UINT64_C(1), UINT64_C(1));
    assert_refused(bytes.data, bytes.len);
    bytes.len = 0;
    put(&bytes, "BII", 'A', 0, 1);
    assert_refused(bytes.data, bytes.len);
    bytes.len = 0;
    put(&bytes, "BII", 'A', 1, 0);
    assert_refused(bytes.data, bytes.len);
    bytes.len = 0;
    put(&bytes, "BIBHB", 'I', 1, 'N', 1, 'x');
    assert_refused(bytes.data, bytes.len); /* a value of no kind */
    for (size_t i = 0; i < sizeof wrong_row; i++) {
        bytes.len = 0;
        put(&bytes, "BIBHB", wrong_row[i] == 'N' ? 'D' : 'I', 1, wrong_row[i], 1, 'n');
        assert_refused(bytes.data, bytes.len);
    }
    for (int identity = 0; identity < 256; identity++) {
        bytes.len = 0;
        put(&bytes, "BIssBH", 'R', 1, "s", "t", identity, 0);
        if (identity && strchr("dnfi", identity))
            assert_exactly(bytes.data, bytes.len);
        else
            assert_refused(bytes.data, bytes.len);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_captured_whole_and_in_pieces, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_captured_sale, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_captured_binary_and_unchanged, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_borders, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_stream_borders, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_changes_outside_of_blocks, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_changes_inside_blocks, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_unknown_letters, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_absurd_lengths, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_absurd_counts, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_bounds, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_many_truncated_are_counted, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_names_without_end, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_impossible_fields, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
