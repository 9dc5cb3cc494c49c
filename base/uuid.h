/*
 * UUID version 7 (RFC 9562): 48 bits of milliseconds, then random. Bookings made one after another
 * stand one after another in the index.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_BASE_UUID_H
#define SG_BASE_UUID_H

#include <stdbool.h>
#include <stdint.h>

#define UUID_TEXT_LEN 36

struct uuid {
    uint8_t bytes[16]; /* as PostgreSQL's binary uuid */
};

struct uuid uuid_v7(int64_t wall_us);
/* Lower case with hyphens, NUL-terminated. */
void uuid_format(const struct uuid *uuid, char ret_text[UUID_TEXT_LEN + 1]);
/* True and *ret_uuid filled if the text is exactly 8-4-4-4-12 hex digits. */
bool uuid_parse(const char *text, struct uuid *ret_uuid);

#endif
