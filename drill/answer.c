/*
 * Reading answers. See answer.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "drill/answer.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#define NAME_MAX_BYTES 40

/* --- the head --------------------------------------------------------------------------------- */

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* All of the text as a decimal number of at most 18 digits. */
static bool parse_number(const char *at, size_t len, int64_t *ret_value)
{
    int64_t value = 0;
    if (len == 0 || len > 18)
        return false;
    for (size_t i = 0; i < len; i++) {
        if (!is_digit(at[i]))
            return false;
        value = value * 10 + (at[i] - '0');
    }
    *ret_value = value;
    return true;
}

static bool name_is(const struct answer_text *name, const char *wanted)
{
    return name->len == strlen(wanted) && strncasecmp(name->at, wanted, name->len) == 0;
}

static bool text_is(const struct answer_text *text, const char *wanted)
{
    return name_is(text, wanted);
}

/* False: a field that makes the answer one of a kind we don't read. */
static bool take_field(struct answer *answer, int64_t *length, const struct answer_text *name,
                       const struct answer_text *value)
{
    if (name_is(name, "content-length"))
        return *length < 0 && parse_number(value->at, value->len, length);
    if (name_is(name, "transfer-encoding") || name_is(name, "content-encoding"))
        return false;
    if (name_is(name, "connection"))
        answer->closes = text_is(value, "close");
    else if (name_is(name, "idempotent-replayed"))
        answer->replayed = text_is(value, "true");
    else if (name_is(name, "seatgrid-shard"))
        answer->shard = *value;
    else if (name_is(name, "seatgrid-node"))
        answer->node = *value;
    else if (name_is(name, "seatgrid-staleness"))
        answer->staleness = *value;
    else if (name_is(name, "seatgrid-durability"))
        answer->durability = *value;
    else if (name_is(name, "seatgrid-token"))
        answer->token = *value;
    return true;
}

static bool take_line(struct answer *answer, int64_t *length, const char *line, size_t len)
{
    const char *colon = memchr(line, ':', len);
    if (!colon)
        return false;
    struct answer_text name = {.at = line, .len = (size_t)(colon - line)};
    struct answer_text value = {.at = colon + 1, .len = len - name.len - 1};
    while (value.len && *value.at == ' ') {
        value.at++;
        value.len--;
    }
    return take_field(answer, length, &name, &value);
}

/* "HTTP/1.1 201 Created" */
static bool take_status(struct answer *answer, const char *line, size_t len)
{
    int64_t status;
    if (len < 12 || memcmp(line, "HTTP/1.1 ", 9) != 0 || !parse_number(line + 9, 3, &status) ||
        status < 200 || (len > 12 && line[12] != ' '))
        return false;
    answer->status = (int)status;
    return true;
}

static bool take_head(struct answer *answer, const char *bytes, size_t head_len, int64_t *length)
{
    const char *end = bytes + head_len - 2; /* the empty line */
    bool first = true;
    for (const char *line = bytes; line < end;) {
        const char *line_end = memmem(line, (size_t)(end - line), "\r\n", 2);
        if (!line_end)
            return false;
        size_t len = (size_t)(line_end - line);
        if (first ? !take_status(answer, line, len) : !take_line(answer, length, line, len))
            return false;
        first = false;
        line = line_end + 2;
    }
    return !first;
}

enum answer_verdict answer_parse(const char *bytes, size_t len, struct answer *ret_answer)
{
    struct answer answer = {0};
    int64_t length = -1;
    const char *blank = len ? memmem(bytes, len, "\r\n\r\n", 4) : NULL;
    if (!blank)
        return len > ANSWER_HEAD_MAX ? ANSWER_GARBAGE : ANSWER_NEED_MORE;
    size_t head_len = (size_t)(blank - bytes) + 4;
    if (head_len > ANSWER_HEAD_MAX || !take_head(&answer, bytes, head_len, &length))
        return ANSWER_GARBAGE;
    if (answer.status == 204 || answer.status == 304)
        length = 0;
    if (length < 0 || length > ANSWER_BODY_MAX)
        return ANSWER_GARBAGE;
    if (len - head_len < (size_t)length)
        return ANSWER_NEED_MORE;
    answer.body = (struct answer_text){.at = bytes + head_len, .len = (size_t)length};
    answer.len = head_len + (size_t)length;
    *ret_answer = answer;
    return ANSWER_COMPLETE;
}

int32_t answer_staleness_ms(const struct answer_text *text)
{
    int64_t value;
    if (text->len < 3 || memcmp(text->at + text->len - 2, "ms", 2) != 0 ||
        !parse_number(text->at, text->len - 2, &value) || value > INT32_MAX)
        return -1;
    return (int32_t)value;
}

/* --- the body --------------------------------------------------------------------------------- */

/* What is left of the body behind the first "name":. A quote inside a JSON string has a backslash
 * before it, so only a name can look like this. */
static struct answer_text behind(const struct answer *answer, const char *name)
{
    char quoted[NAME_MAX_BYTES];
    int len = snprintf(quoted, sizeof(quoted), "\"%s\":", name);
    const char *found =
        answer->body.len ? memmem(answer->body.at, answer->body.len, quoted, (size_t)len) : NULL;
    if (!found)
        return (struct answer_text){.len = 0};
    found += len;
    return (struct answer_text){.at = found,
                                .len = (size_t)(answer->body.at + answer->body.len - found)};
}

/* Takes `text` from the front of the rest. */
static bool skip(struct answer_text *rest, const char *text)
{
    size_t len = strlen(text);
    if (rest->len < len || memcmp(rest->at, text, len) != 0)
        return false;
    rest->at += len;
    rest->len -= len;
    return true;
}

static bool skip_number(struct answer_text *rest, int64_t *ret_value)
{
    size_t len = 0;
    while (len < rest->len && is_digit(rest->at[len]))
        len++;
    if (!parse_number(rest->at, len, ret_value))
        return false;
    rest->at += len;
    rest->len -= len;
    return true;
}

bool answer_number(const struct answer *answer, const char *name, int64_t *ret_value)
{
    struct answer_text rest = behind(answer, name);
    return skip_number(&rest, ret_value);
}

struct answer_text answer_string(const struct answer *answer, const char *name)
{
    struct answer_text rest = behind(answer, name);
    const char *end = skip(&rest, "\"") && rest.len ? memchr(rest.at, '"', rest.len) : NULL;
    return (struct answer_text){.at = rest.at, .len = end ? (size_t)(end - rest.at) : 0};
}

bool answer_booking_id(const struct answer *answer, struct uuid *ret_id)
{
    struct answer_text text = answer_string(answer, "bookingId");
    char id[UUID_TEXT_LEN + 1] = "";
    if (text.len != UUID_TEXT_LEN)
        return false;
    memcpy(id, text.at, UUID_TEXT_LEN);
    return uuid_parse(id, ret_id);
}

bool answer_seats(const struct answer *answer, const char *name, int32_t cols, int32_t *ret_seats,
                  size_t max, size_t *ret_count)
{
    struct answer_text rest = behind(answer, name);
    size_t count = 0;
    if (!skip(&rest, "["))
        return false;
    while (!skip(&rest, "]")) {
        int64_t row, col;
        if ((count && !skip(&rest, ",")) || count == max || !skip(&rest, "{\"row\":") ||
            !skip_number(&rest, &row) || !skip(&rest, ",\"col\":") || !skip_number(&rest, &col) ||
            !skip(&rest, "}") || row < 1 || col < 1 || col > cols || row > INT32_MAX / cols)
            return false;
        ret_seats[count++] = (int32_t)((row - 1) * cols + col - 1);
    }
    *ret_count = count;
    return true;
}

bool answer_seat_map(const struct answer *answer, int32_t rows, int32_t cols, uint64_t *bitmap,
                     uint32_t *ret_booked)
{
    struct answer_text rest = behind(answer, "seats");
    uint32_t booked = 0, seat_no = 0;
    if (!skip(&rest, "["))
        return false;
    for (int32_t row = 0; row < rows; row++) {
        if (!skip(&rest, row ? ",\"" : "\"") || rest.len < (size_t)cols)
            return false;
        for (int32_t col = 0; col < cols; col++, seat_no++) {
            char state = rest.at[col];
            if (state == 'x') {
                bitmap[seat_no / 64] |= UINT64_C(1) << (seat_no % 64);
                booked++;
            } else if (state != '.' && state != 'h') {
                return false;
            }
        }
        rest.at += cols;
        rest.len -= (size_t)cols;
        if (!skip(&rest, "\""))
            return false;
    }
    if (!skip(&rest, "]"))
        return false;
    *ret_booked = booked;
    return true;
}
