/*
 * UUIDs. See uuid.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "base/uuid.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

static bool is_hyphen_at(int i)
{
    return i == 8 || i == 13 || i == 18 || i == 23;
}

/* Each arc4random_buf is a system call; a thread takes its bytes from a page of them. */
static void random_bytes(uint8_t *ret_bytes, size_t len)
{
    static _Thread_local uint8_t page[1000];
    static _Thread_local size_t used = sizeof(page);
    if (sizeof(page) - used < len) {
        arc4random_buf(page, sizeof(page));
        used = 0;
    }
    memcpy(ret_bytes, page + used, len);
    used += len;
}

struct uuid uuid_v7(int64_t wall_us)
{
    struct uuid uuid;
    uint64_t ms = (uint64_t)wall_us / 1000;
    random_bytes(uuid.bytes + 6, 10);
    for (int i = 0; i < 6; i++)
        uuid.bytes[i] = (uint8_t)(ms >> (40 - 8 * i));
    uuid.bytes[6] = 0x70 | (uuid.bytes[6] & 0x0f);
    uuid.bytes[8] = 0x80 | (uuid.bytes[8] & 0x3f);
    return uuid;
}

void uuid_format(const struct uuid *uuid, char ret_text[UUID_TEXT_LEN + 1])
{
    static const char hex[] = "0123456789abcdef";
    int at = 0;
    for (int i = 0; i < 16; i++) {
        if (is_hyphen_at(at))
            ret_text[at++] = '-';
        ret_text[at++] = hex[uuid->bytes[i] >> 4];
        ret_text[at++] = hex[uuid->bytes[i] & 15];
    }
    ret_text[at] = '\0';
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool uuid_parse(const char *text, struct uuid *ret_uuid)
{
    struct uuid uuid = {{0}};
    int nibbles = 0;
    for (int i = 0; i < UUID_TEXT_LEN; i++) {
        if (is_hyphen_at(i)) {
            if (text[i] != '-')
                return false;
            continue;
        }
        int value = hex_value(text[i]); /* also stops at an early NUL */
        if (value < 0)
            return false;
        uuid.bytes[nibbles / 2] = (uint8_t)(uuid.bytes[nibbles / 2] << 4 | value);
        nibbles++;
    }
    if (text[UUID_TEXT_LEN] != '\0')
        return false;
    *ret_uuid = uuid;
    return true;
}
