/*
 * Values of PostgreSQL. See pgvalue.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "replication/pgvalue.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define ARRAY_HEAD 12 /* dimensions, has_null, element type */
#define DIMENSION 8   /* length, lower bound */

/* --- integers ------------------------------------------------------------------------------- */

/* Network order, two's complement, 2, 4 or 8 bytes. */
static enum sg_error read_binary(const char *bytes, size_t len, int64_t *ret_number)
{
    if (len != 2 && len != 4 && len != 8)
        return SG_MALFORMED;
    uint64_t number = (int8_t)bytes[0] < 0 ? UINT64_MAX : 0;
    for (size_t i = 0; i < len; i++)
        number = number << 8 | (uint8_t)bytes[i];
    *ret_number = (int64_t)number;
    return SG_OK;
}

/* An optional minus and digits, as PostgreSQL writes them, from *at on; *at moves behind them. */
static enum sg_error read_text(const char **at, const char *end, int64_t *ret_number)
{
    const char *p = *at;
    bool negative = p < end && *p == '-';
    uint64_t max = negative ? (uint64_t)INT64_MAX + 1 : INT64_MAX;
    uint64_t number = 0;
    if (negative)
        p++;
    const char *digits = p;
    for (; p < end && *p >= '0' && *p <= '9'; p++) {
        uint64_t digit = (uint64_t)(*p - '0');
        if (number > (max - digit) / 10)
            return SG_MALFORMED;
        number = number * 10 + digit;
    }
    if (p == digits)
        return SG_MALFORMED;
    *at = p;
    *ret_number = (int64_t)(negative ? 0 - number : number);
    return SG_OK;
}

enum sg_error pgvalue_i64(const struct pgoutput_value *value, int64_t *ret_number)
{
    int64_t number;
    if (value->kind == 'b')
        return read_binary(value->data, value->len, ret_number);
    if (value->kind != 't')
        return SG_MALFORMED;
    const char *at = value->data;
    const char *end = at + value->len;
    if (read_text(&at, end, &number) || at != end)
        return SG_MALFORMED;
    *ret_number = number;
    return SG_OK;
}

static enum sg_error narrow(int64_t number, int32_t *ret_number)
{
    if (number < INT32_MIN || number > INT32_MAX)
        return SG_MALFORMED;
    *ret_number = (int32_t)number;
    return SG_OK;
}

enum sg_error pgvalue_i32(const struct pgoutput_value *value, int32_t *ret_number)
{
    int64_t number;
    enum sg_error error = pgvalue_i64(value, &number);
    return error ? error : narrow(number, ret_number);
}

/* --- uuid ----------------------------------------------------------------------------------- */

enum sg_error pgvalue_uuid(const struct pgoutput_value *value, struct uuid *ret_uuid)
{
    char text[UUID_TEXT_LEN + 1];
    if (value->kind == 'b' && value->len == sizeof(ret_uuid->bytes)) {
        memcpy(ret_uuid->bytes, value->data, sizeof(ret_uuid->bytes));
        return SG_OK;
    }
    if (value->kind != 't' || value->len != UUID_TEXT_LEN)
        return SG_MALFORMED;
    memcpy(text, value->data, UUID_TEXT_LEN);
    text[UUID_TEXT_LEN] = '\0';
    return uuid_parse(text, ret_uuid) ? SG_OK : SG_MALFORMED;
}

/* --- arrays --------------------------------------------------------------------------------- */

static enum sg_error append(struct pgvalue_list *list, int64_t number)
{
    if (list->count == list->size) {
        size_t size = list->size ? list->size * 2 : 16;
        int32_t *items = realloc(list->items, size * sizeof(*items));
        if (!items)
            return SG_NO_MEMORY;
        list->items = items;
        list->size = size;
    }
    enum sg_error error = narrow(number, &list->items[list->count]);
    if (!error)
        list->count++;
    return error;
}

/* "{1,2,3}", or with its bounds "[0:2]={1,2,3}". */
static enum sg_error read_text_array(const char *at, const char *end, struct pgvalue_list *list)
{
    if (at < end && *at == '[') {
        int64_t from;
        int64_t to;
        at++;
        if (read_text(&at, end, &from) || at == end || *at++ != ':' || read_text(&at, end, &to) ||
            end - at < 2 || *at++ != ']' || *at++ != '=')
            return SG_MALFORMED;
    }
    if (end - at < 2 || *at++ != '{')
        return SG_MALFORMED;
    if (*at == '}')
        return end - at == 1 ? SG_OK : SG_MALFORMED;
    for (;;) {
        int64_t number;
        if (read_text(&at, end, &number) || at == end)
            return SG_MALFORMED;
        enum sg_error error = append(list, number);
        if (error)
            return error;
        if (*at == '}')
            return end - at == 1 ? SG_OK : SG_MALFORMED;
        if (*at++ != ',')
            return SG_MALFORMED;
    }
}

static enum sg_error read_binary_array(const char *at, size_t len, struct pgvalue_list *list)
{
    int64_t dimensions;
    int64_t count;
    if (len < ARRAY_HEAD || read_binary(at, 4, &dimensions))
        return SG_MALFORMED;
    if (dimensions == 0)
        return len == ARRAY_HEAD ? SG_OK : SG_MALFORMED;
    if (dimensions != 1 || len < ARRAY_HEAD + DIMENSION || read_binary(at + ARRAY_HEAD, 4, &count))
        return SG_MALFORMED;
    at += ARRAY_HEAD + DIMENSION;
    len -= ARRAY_HEAD + DIMENSION;
    for (; count > 0; count--) {
        int64_t size;
        int64_t number;
        if (len < 4 || read_binary(at, 4, &size) || size < 0 || (uint64_t)size > len - 4 ||
            read_binary(at + 4, (size_t)size, &number))
            return SG_MALFORMED;
        enum sg_error error = append(list, number);
        if (error)
            return error;
        at += 4 + size;
        len -= 4 + (size_t)size;
    }
    return count == 0 && len == 0 ? SG_OK : SG_MALFORMED;
}

enum sg_error pgvalue_array(const struct pgoutput_value *value, struct pgvalue_list *list)
{
    list->count = 0;
    if (value->kind == 't')
        return read_text_array(value->data, value->data + value->len, list);
    if (value->kind == 'b')
        return read_binary_array(value->data, value->len, list);
    return SG_MALFORMED;
}
