/*
 * Paging cursors. See cursor.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "api/cursor.h"

#include <stddef.h>
#include <string.h>

#define CURSOR_BYTES 12

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

static void fill(int64_t last_id, unsigned char ret_bytes[CURSOR_BYTES])
{
    static const char format[] = "events.1";
    uint32_t check = 2166136261u;
    for (int i = 0; i < 8; i++)
        ret_bytes[i] = (unsigned char)((uint64_t)last_id >> (56 - 8 * i));
    for (size_t i = 0; i < sizeof(format) - 1; i++)
        check = (check ^ (unsigned char)format[i]) * 16777619u;
    for (int i = 0; i < 8; i++)
        check = (check ^ ret_bytes[i]) * 16777619u;
    for (int i = 0; i < 4; i++)
        ret_bytes[8 + i] = (unsigned char)(check >> (24 - 8 * i));
}

void cursor_write(int64_t last_id, char ret_text[CURSOR_LEN + 1])
{
    unsigned char bytes[CURSOR_BYTES];
    fill(last_id, bytes);
    for (int i = 0; i < CURSOR_BYTES / 3; i++) {
        uint32_t three = (uint32_t)bytes[3 * i] << 16 | (uint32_t)bytes[3 * i + 1] << 8 |
                         (uint32_t)bytes[3 * i + 2];
        for (int k = 0; k < 4; k++)
            ret_text[4 * i + k] = alphabet[three >> (18 - 6 * k) & 63];
    }
    ret_text[CURSOR_LEN] = '\0';
}

bool cursor_parse(const char *text, int64_t *ret_last_id)
{
    uint64_t id = 0;
    char expected[CURSOR_LEN + 1];
    if (strlen(text) != CURSOR_LEN)
        return false;
    for (int i = 0; i < 11; i++) { /* the id fills ten characters and four bits of the next */
        const char *at = strchr(alphabet, text[i]);
        if (!at)
            return false;
        uint64_t six = (uint64_t)(at - alphabet);
        id = i < 10 ? id << 6 | six : id << 4 | six >> 2;
    }
    if (id == 0 || id > INT64_MAX)
        return false;
    cursor_write((int64_t)id, expected);
    if (strcmp(expected, text) != 0)
        return false;
    *ret_last_id = (int64_t)id;
    return true;
}
