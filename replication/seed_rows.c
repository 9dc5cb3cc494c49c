/*
 * Rows of COPY to commands. See seed_rows.h.
 *
 * The position of all keys is the consistent LSN with place 0. A slot sends exactly the
 * transactions whose commit record starts at or above that LSN (PostgreSQL, snapbuild.c,
 * SnapBuildXactNeedsSkip), and the LSN is the end of a record, so the very next commit may start
 * right there: its changes have places from 1 and are above place 0, and all that is in the
 * snapshot is below.
 *
 * SPDX-License-Identifier: MIT
 */
#include "replication/seed_rows.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/redisresp.h"
#include "base/uuid.h"

#define EVENT_FIELDS 5
#define TICKET_FIELDS 3
#define USER_MAX 64
#define DIGITS_MAX 19

struct field {
    const char *data;
    size_t len;
};

void seed_rows_init(struct seed_rows *rows, const char *shard, int64_t generation, int64_t epoch,
                    uint64_t consistent_lsn)
{
    const struct position at = {.lsn = consistent_lsn, .place = 0};
    rows->shard = shard;
    rows->generation = generation;
    position_format(&at, rows->at);
    rows->epoch_len = (size_t)snprintf(rows->epoch, sizeof(rows->epoch), "%lld", (long long)epoch);
}

/* --- the text format of COPY ------------------------------------------------------------------ */

static bool split(const char *row, size_t len, struct field *fields, size_t count)
{
    const char *end = row + len;
    if (len == 0 || end[-1] != '\n')
        return false;
    end--;
    for (size_t i = 0; i < count; i++) {
        const char *tab = memchr(row, '\t', (size_t)(end - row));
        if ((tab == NULL) != (i + 1 == count))
            return false;
        fields[i].data = row;
        fields[i].len = (size_t)((tab ? tab : end) - row);
        row = tab ? tab + 1 : end;
    }
    return true;
}

static int digit_of(char c, int base)
{
    int value = c >= '0' && c <= '9'   ? c - '0'
                : c >= 'a' && c <= 'f' ? c - 'a' + 10
                : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                       : 16;
    return value < base ? value : -1;
}

/* Up to `max` digits of \123 or \x7f; returns how many bytes they are. */
static size_t read_digits(const char *text, size_t len, int base, size_t max, char *ret_byte)
{
    size_t used = 0;
    int value = 0;
    while (used < len && used < max && digit_of(text[used], base) >= 0)
        value = value * base + digit_of(text[used++], base);
    if (used)
        *ret_byte = (char)(value & 0xff);
    return used;
}

/* One escape after its backslash; returns how many bytes it is. */
static size_t read_escape(const char *text, size_t len, char *ret_byte)
{
    static const char names[] = "bfnrtv";
    static const char bytes[] = "\b\f\n\r\t\v";
    const char *name = memchr(names, text[0], sizeof(names) - 1);
    size_t used = read_digits(text, len, 8, 3, ret_byte);
    if (used)
        return used;
    if (text[0] == 'x') {
        used = read_digits(text + 1, len - 1, 16, 2, ret_byte);
        if (used)
            return used + 1;
    }
    *ret_byte = name ? bytes[name - names] : text[0];
    return 1;
}

/* False: NULL, ends in a backslash, empty, with a NUL, or longer than a user may be. */
static bool read_user(const struct field *field, char ret_user[USER_MAX + 1])
{
    size_t len = 0;
    for (size_t i = 0; i < field->len; len++) {
        if (len == USER_MAX)
            return false;
        ret_user[len] = field->data[i++];
        if (ret_user[len] == '\\') {
            if (i == field->len || field->data[i] == 'N')
                return false;
            i += read_escape(field->data + i, field->len - i, &ret_user[len]);
        }
        if (ret_user[len] == '\0')
            return false;
    }
    ret_user[len] = '\0';
    return len > 0;
}

/* Not negative. */
static bool read_number(const struct field *field, int64_t *ret_value)
{
    int64_t value = 0;
    if (field->len < 1 || field->len > DIGITS_MAX)
        return false;
    for (size_t i = 0; i < field->len; i++) {
        int digit = digit_of(field->data[i], 10);
        if (digit < 0 || value > (INT64_MAX - digit) / 10)
            return false;
        value = value * 10 + digit;
    }
    *ret_value = value;
    return true;
}

static bool is_uuid(const struct field *field)
{
    char text[UUID_TEXT_LEN + 1];
    struct uuid uuid;
    if (field->len != UUID_TEXT_LEN)
        return false;
    memcpy(text, field->data, UUID_TEXT_LEN);
    text[UUID_TEXT_LEN] = '\0';
    return uuid_parse(text, &uuid);
}

/* --- commands --------------------------------------------------------------------------------- */

static void begin(const struct seed_rows *rows, struct dynbuf *out, const char *key, size_t len,
                  size_t fields)
{
    redisresp_begin(out, 2 + 2 * (2 + fields));
    redisresp_arg(out, "HSET", 4);
    redisresp_arg(out, key, len);
    redisresp_arg(out, "at", 2);
    redisresp_arg(out, rows->at, POSITION_TEXT_LEN);
    redisresp_arg(out, "epoch", 5);
    redisresp_arg(out, rows->epoch, rows->epoch_len);
}

static void add_number(struct dynbuf *out, const char *name, int64_t value)
{
    redisresp_args(out, name);
    redisresp_arg_i64(out, value);
}

enum sg_error seed_rows_event(const struct seed_rows *rows, const char *row, size_t len,
                              struct dynbuf *out)
{
    struct field fields[EVENT_FIELDS];
    int64_t values[EVENT_FIELDS];
    char key[REDISKEY_MAX];
    if (!split(row, len, fields, EVENT_FIELDS))
        return SG_MALFORMED;
    for (size_t i = 0; i < EVENT_FIELDS; i++) {
        if (!read_number(&fields[i], &values[i]))
            return SG_MALFORMED;
    }
    const int64_t event_id = values[0], grid_rows = values[1], cols = values[2];
    const int64_t held = values[3], booked = values[4];
    if (event_id == 0 || grid_rows > INT32_MAX || cols > INT32_MAX || held > INT64_MAX / 2 ||
        booked > INT64_MAX / 2)
        return SG_MALFORMED;
    const size_t key_len = rediskey_event(key, event_id, rows->shard, rows->generation);
    if (grid_rows == 0) {
        begin(rows, out, key, key_len, 1);
        add_number(out, "deleted", 1);
        return SG_OK;
    }
    begin(rows, out, key, key_len, 6);
    add_number(out, "total", grid_rows * cols);
    add_number(out, "available", grid_rows * cols - held - booked);
    add_number(out, "held", held);
    add_number(out, "booked", booked);
    add_number(out, "rows", grid_rows);
    add_number(out, "cols", cols);
    return SG_OK;
}

enum sg_error seed_rows_ticket(const struct seed_rows *rows, const char *row, size_t len,
                               struct dynbuf *out)
{
    struct field fields[TICKET_FIELDS];
    char user[USER_MAX + 1];
    char key[REDISKEY_MAX];
    int64_t event_id;
    if (!split(row, len, fields, TICKET_FIELDS) || !read_user(&fields[0], user) ||
        !is_uuid(&fields[1]) || !read_number(&fields[2], &event_id) || event_id == 0)
        return SG_MALFORMED;
    begin(rows, out, key, rediskey_tickets(key, user, rows->shard, rows->generation), 1);
    redisresp_arg(out, fields[1].data, fields[1].len);
    redisresp_arg(out, fields[2].data, fields[2].len);
    return SG_OK;
}
