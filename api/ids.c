/*
 * Ids and numbers in text. See ids.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "api/ids.h"

bool ids_parse_number(const char *text, size_t len, int64_t *ret_value)
{
    int64_t value = 0;
    if (len == 0 || (len > 1 && text[0] == '0'))
        return false;
    for (size_t i = 0; i < len; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
        if (__builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, text[i] - '0', &value))
            return false;
    }
    *ret_value = value;
    return true;
}

bool ids_parse_event(const char *text, size_t len, int64_t *ret_event_id)
{
    int64_t value;
    if (!ids_parse_number(text, len, &value) || value < 1)
        return false;
    *ret_event_id = value;
    return true;
}

bool ids_parse_uuid(const char *text, size_t len, char ret_uuid[IDS_UUID_LEN + 1])
{
    char uuid[IDS_UUID_LEN + 1];
    if (len != IDS_UUID_LEN)
        return false;
    for (size_t i = 0; i < IDS_UUID_LEN; i++) {
        char c = text[i];
        bool dash = i == 8 || i == 13 || i == 18 || i == 23;
        if (c >= 'A' && c <= 'F')
            c = (char)(c - 'A' + 'a');
        bool hex = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
        if (dash ? c != '-' : !hex)
            return false;
        uuid[i] = c;
    }
    uuid[IDS_UUID_LEN] = '\0';
    for (size_t i = 0; i <= IDS_UUID_LEN; i++)
        ret_uuid[i] = uuid[i];
    return true;
}

static int hex_digit(char digit)
{
    return digit <= '9' ? digit - '0' : digit - 'a' + 10;
}

int ids_uuid_version(const char *uuid)
{
    return hex_digit(uuid[14]);
}

int64_t ids_uuid_v7_ms(const char *uuid)
{
    int64_t ms = 0;
    for (int i = 0; i < 13; i++) {
        if (i != 8) /* the hyphen */
            ms = ms * 16 + hex_digit(uuid[i]);
    }
    return ms;
}

bool ids_is_printable_ascii(const char *text, size_t max)
{
    size_t len = 0;
    for (; text[len]; len++) {
        if (text[len] < 0x20 || text[len] > 0x7e || len == max)
            return false;
    }
    return len > 0;
}
