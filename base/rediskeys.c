/*
 * Names of keys and texts of positions. See rediskeys.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "base/rediskeys.h"

#include <assert.h>
#include <string.h>

#define EVENT_PREFIX "sg1:{e:"
#define USER_PREFIX "sg1:{u:"
#define SHARD_PREFIX "sg1:{s:"
#define CHANGES_SUFFIX ":changes"
#define USER_MAX 64
#define LSN_DIGITS 20
#define PLACE_DIGITS 10

/* --- positions ------------------------------------------------------------------------------ */

int position_compare(const struct position *a, const struct position *b)
{
    if (a->lsn != b->lsn)
        return a->lsn < b->lsn ? -1 : 1;
    if (a->place != b->place)
        return a->place < b->place ? -1 : 1;
    return 0;
}

static void write_digits(char *to, size_t count, uint64_t value)
{
    for (size_t i = count; i > 0; i--) {
        to[i - 1] = (char)('0' + value % 10);
        value /= 10;
    }
}

void position_format(const struct position *position, char ret_text[POSITION_TEXT_LEN + 1])
{
    write_digits(ret_text, LSN_DIGITS, position->lsn);
    write_digits(ret_text + LSN_DIGITS, PLACE_DIGITS, position->place);
    ret_text[POSITION_TEXT_LEN] = '\0';
}

/* Digits alone, up to `max`. */
static bool parse_digits(const char *text, size_t len, uint64_t max, uint64_t *ret_value)
{
    uint64_t value = 0;
    if (len == 0)
        return false;
    for (size_t i = 0; i < len; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
        uint64_t digit = (uint64_t)(text[i] - '0');
        if (value > (max - digit) / 10)
            return false;
        value = value * 10 + digit;
    }
    *ret_value = value;
    return true;
}

bool position_parse(const char *text, size_t len, struct position *ret_position)
{
    uint64_t lsn;
    uint64_t place;
    if (len != POSITION_TEXT_LEN || !parse_digits(text, LSN_DIGITS, UINT64_MAX, &lsn) ||
        !parse_digits(text + LSN_DIGITS, PLACE_DIGITS, UINT32_MAX, &place))
        return false;
    *ret_position = (struct position){.lsn = lsn, .place = (uint32_t)place};
    return true;
}

/* --- writing keys --------------------------------------------------------------------------- */

/* The room that is left in a key; what does not fit was no name of ours. */
struct pen {
    char *at;
    char *end; /* of the room, less one byte for the NUL */
};

static void pen_bytes(struct pen *pen, const char *bytes, size_t len)
{
    assert(len <= (size_t)(pen->end - pen->at));
    memcpy(pen->at, bytes, len);
    pen->at += len;
}

static void pen_text(struct pen *pen, const char *text)
{
    pen_bytes(pen, text, strlen(text));
}

static void pen_i64(struct pen *pen, int64_t value)
{
    char digits[20];
    size_t i = sizeof(digits);
    uint64_t rest = value < 0 ? -(uint64_t)value : (uint64_t)value;
    do {
        digits[--i] = (char)('0' + rest % 10);
        rest /= 10;
    } while (rest);
    if (value < 0)
        digits[--i] = '-';
    pen_bytes(pen, digits + i, sizeof(digits) - i);
}

static struct pen pen_new(char ret_key[REDISKEY_MAX])
{
    return (struct pen){ret_key, ret_key + REDISKEY_MAX - 1};
}

static size_t pen_done(struct pen *pen, const char *key)
{
    *pen->at = '\0';
    return (size_t)(pen->at - key);
}

static void pen_generation(struct pen *pen, const char *shard, int64_t generation)
{
    pen_text(pen, "}:");
    pen_text(pen, shard);
    pen_text(pen, ".");
    pen_i64(pen, generation);
}

size_t rediskey_shard(char ret_key[REDISKEY_MAX], const char *shard)
{
    struct pen pen = pen_new(ret_key);
    pen_text(&pen, SHARD_PREFIX);
    pen_text(&pen, shard);
    pen_text(&pen, "}");
    return pen_done(&pen, ret_key);
}

size_t rediskey_event(char ret_key[REDISKEY_MAX], int64_t event_id, const char *shard,
                      int64_t generation)
{
    struct pen pen = pen_new(ret_key);
    pen_text(&pen, EVENT_PREFIX);
    pen_i64(&pen, event_id);
    pen_generation(&pen, shard, generation);
    return pen_done(&pen, ret_key);
}

size_t rediskey_changes(char ret_key[REDISKEY_MAX], int64_t event_id, const char *shard,
                        int64_t generation)
{
    struct pen pen = pen_new(ret_key);
    pen_text(&pen, EVENT_PREFIX);
    pen_i64(&pen, event_id);
    pen_generation(&pen, shard, generation);
    pen_text(&pen, CHANGES_SUFFIX);
    return pen_done(&pen, ret_key);
}

static size_t write_of_event(char ret_key[REDISKEY_MAX], int64_t event_id, const char *suffix)
{
    struct pen pen = pen_new(ret_key);
    pen_text(&pen, EVENT_PREFIX);
    pen_i64(&pen, event_id);
    pen_text(&pen, suffix);
    return pen_done(&pen, ret_key);
}

size_t rediskey_watched(char ret_key[REDISKEY_MAX], int64_t event_id)
{
    return write_of_event(ret_key, event_id, "}:watched");
}

size_t rediskey_live(char ret_key[REDISKEY_MAX], int64_t event_id)
{
    return write_of_event(ret_key, event_id, "}:live");
}

size_t rediskey_tickets(char ret_key[REDISKEY_MAX], const char *user, const char *shard,
                        int64_t generation)
{
    struct pen pen = pen_new(ret_key);
    pen_text(&pen, USER_PREFIX);
    pen_text(&pen, user);
    pen_generation(&pen, shard, generation);
    return pen_done(&pen, ret_key);
}

/* --- taking keys apart ---------------------------------------------------------------------- */

static bool starts_with(const char *text, size_t len, const char *prefix)
{
    size_t prefix_len = strlen(prefix);
    return len >= prefix_len && memcmp(text, prefix, prefix_len) == 0;
}

static bool ends_with(const char *text, size_t len, const char *suffix)
{
    size_t suffix_len = strlen(suffix);
    return len >= suffix_len && memcmp(text + len - suffix_len, suffix, suffix_len) == 0;
}

/* A number as we write it: from 1, no leading zero. */
static bool parse_number(const char *text, size_t len, int64_t *ret_value)
{
    uint64_t value;
    if (len == 0 || text[0] == '0' || !parse_digits(text, len, INT64_MAX, &value))
        return false;
    *ret_value = (int64_t)value;
    return true;
}

/* "NAME}:SHARD.GENERATION": the length of NAME, read from the end, for a user may hold any of these
 * characters. */
static bool parse_generation(const char *text, size_t len, const char *shard, size_t *ret_name_len,
                             int64_t *ret_generation)
{
    size_t digits = 0;
    while (digits < len && text[len - digits - 1] >= '0' && text[len - digits - 1] <= '9')
        digits++;
    if (!parse_number(text + len - digits, digits, ret_generation))
        return false;
    len -= digits;
    if (!ends_with(text, len, "."))
        return false;
    len -= 1;
    if (!ends_with(text, len, shard))
        return false;
    len -= strlen(shard);
    if (!ends_with(text, len, "}:"))
        return false;
    *ret_name_len = len - 2;
    return true;
}

static enum rediskey_kind parse_event(const char *text, size_t len, const char *shard,
                                      struct rediskey *ret_key)
{
    enum rediskey_kind kind = REDISKEY_EVENT;
    struct rediskey key = {0};
    size_t name_len;
    if (ends_with(text, len, CHANGES_SUFFIX)) {
        kind = REDISKEY_CHANGES;
        len -= strlen(CHANGES_SUFFIX);
    }
    if (!parse_generation(text, len, shard, &name_len, &key.generation) ||
        !parse_number(text, name_len, &key.event_id))
        return REDISKEY_OTHER;
    *ret_key = key;
    return kind;
}

static enum rediskey_kind parse_tickets(const char *text, size_t len, const char *shard,
                                        struct rediskey *ret_key)
{
    struct rediskey key = {0};
    size_t name_len;
    if (!parse_generation(text, len, shard, &name_len, &key.generation) || name_len == 0 ||
        name_len > USER_MAX || memchr(text, '\0', name_len))
        return REDISKEY_OTHER;
    memcpy(key.user, text, name_len);
    *ret_key = key;
    return REDISKEY_TICKETS;
}

enum rediskey_kind rediskey_parse(const char *key, size_t len, const char *shard,
                                  struct rediskey *ret_key)
{
    size_t prefix_len = strlen(EVENT_PREFIX);
    if (starts_with(key, len, EVENT_PREFIX))
        return parse_event(key + prefix_len, len - prefix_len, shard, ret_key);
    if (starts_with(key, len, USER_PREFIX))
        return parse_tickets(key + prefix_len, len - prefix_len, shard, ret_key);
    return REDISKEY_OTHER;
}
