/*
 * Paging cursors. See cursor.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "api/cursor.h"

#include <stddef.h>
#include <string.h>

#include "base/rfc3339.h"
#include "base/uuid.h"
#include "router/router.h"

#define CHECK_BYTES 4
#define BYTES_MAX 36

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

static void put(unsigned char *to, uint64_t value, int size)
{
    for (int i = 0; i < size; i++)
        to[i] = (unsigned char)(value >> (8 * (size - 1 - i)));
}

static int64_t get(const unsigned char *from)
{
    uint64_t value = 0;
    for (int i = 0; i < 8; i++)
        value = value << 8 | from[i];
    return (int64_t)value;
}

static uint32_t check_of(const char *format, const unsigned char *bytes, size_t len)
{
    uint32_t check = 2166136261u;
    for (; *format; format++)
        check = (check ^ (unsigned char)*format) * 16777619u;
    for (size_t i = 0; i < len; i++)
        check = (check ^ bytes[i]) * 16777619u;
    return check;
}

/* `len` bytes and their check, a multiple of three together, as text. */
static void write_text(const char *format, unsigned char *bytes, size_t len, char *ret_text)
{
    put(bytes + len, check_of(format, bytes, len), CHECK_BYTES);
    for (size_t i = 0; i < len + CHECK_BYTES; i += 3) {
        uint32_t three =
            (uint32_t)bytes[i] << 16 | (uint32_t)bytes[i + 1] << 8 | (uint32_t)bytes[i + 2];
        for (int k = 0; k < 4; k++)
            *ret_text++ = alphabet[three >> (18 - 6 * k) & 63];
    }
    *ret_text = '\0';
}

/* The bytes of a text that write_text made of `len` bytes. */
static bool read_text(const char *format, const char *text, size_t len, unsigned char *ret_bytes)
{
    unsigned char bytes[BYTES_MAX];
    size_t whole = len + CHECK_BYTES;
    if (strlen(text) != whole / 3 * 4)
        return false;
    for (size_t i = 0; i < whole; i += 3) {
        uint32_t three = 0;
        for (int k = 0; k < 4; k++) {
            const char *at = strchr(alphabet, *text++);
            if (!at)
                return false;
            three = three << 6 | (uint32_t)(at - alphabet);
        }
        put(bytes + i, three, 3);
    }
    unsigned char check[CHECK_BYTES];
    put(check, check_of(format, bytes, len), CHECK_BYTES);
    if (memcmp(check, bytes + len, CHECK_BYTES) != 0)
        return false;
    memcpy(ret_bytes, bytes, len);
    return true;
}

/* --- the list of events ----------------------------------------------------------------------- */

static const char events_format[] = "events.1";

void cursor_write(int64_t last_id, char ret_text[CURSOR_LEN + 1])
{
    unsigned char bytes[BYTES_MAX];
    put(bytes, (uint64_t)last_id, 8);
    write_text(events_format, bytes, 8, ret_text);
}

bool cursor_parse(const char *text, int64_t *ret_last_id)
{
    unsigned char bytes[BYTES_MAX];
    if (!read_text(events_format, text, 8, bytes) || get(bytes) <= 0)
        return false;
    *ret_last_id = get(bytes);
    return true;
}

/* --- my tickets ------------------------------------------------------------------------------- */

static const char tickets_format[] = "tickets.1";

void cursor_write_place(const struct ticket_place *place, char ret_text[CURSOR_PLACE_LEN + 1])
{
    unsigned char bytes[BYTES_MAX];
    struct uuid booking_id = {{0}};
    (void)uuid_parse(place->booking_id, &booking_id);
    put(bytes, (uint64_t)place->starts_at_us, 8);
    put(bytes + 8, (uint64_t)place->event_id, 8);
    memcpy(bytes + 16, booking_id.bytes, 16);
    write_text(tickets_format, bytes, 32, ret_text);
}

bool cursor_parse_place(const char *text, struct ticket_place *ret_place)
{
    unsigned char bytes[BYTES_MAX];
    struct uuid booking_id;
    if (!read_text(tickets_format, text, 32, bytes))
        return false;
    struct ticket_place place = {.starts_at_us = get(bytes), .event_id = get(bytes + 8)};
    if (place.event_id <= 0 || place.starts_at_us < RFC3339_MIN_US ||
        place.starts_at_us > RFC3339_MAX_US)
        return false; /* PostgreSQL would refuse what no event's start can be */
    memcpy(booking_id.bytes, bytes + 16, 16);
    uuid_format(&booking_id, place.booking_id);
    *ret_place = place;
    return true;
}
