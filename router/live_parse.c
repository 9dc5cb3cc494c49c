/*
 * Lines of seat changes to values. See live_parse.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "router/live_parse.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

_Static_assert(ROUTER_LIVE_ID_MAX >= SHARDMAP_NAME_MAX + 1 + 19 + 1 + 20 + 1 + 10,
               "an id is SHARD.GEN-LSN-PLACE");

/* Reads from `at` to `end`; after a failure nothing is read any more. */
struct cursor {
    const char *at;
    const char *end;
    bool failed;
};

/* Canonical decimal: digits, no leading zero but "0", at most `max`. */
static uint64_t take_number(struct cursor *cursor, uint64_t max)
{
    const char *start = cursor->at;
    uint64_t value = 0;
    while (!cursor->failed && cursor->at < cursor->end && *cursor->at >= '0' &&
           *cursor->at <= '9') {
        unsigned digit = (unsigned)(*cursor->at - '0');
        if (value > (max - digit) / 10 || (cursor->at > start && *start == '0')) {
            cursor->failed = true;
            break;
        }
        value = value * 10 + digit;
        cursor->at++;
    }
    cursor->failed |= cursor->at == start;
    return value;
}

static bool take_char(struct cursor *cursor, char c)
{
    cursor->failed |= cursor->at == cursor->end || *cursor->at != c;
    if (!cursor->failed)
        cursor->at++;
    return !cursor->failed;
}

/* True if the next one is `c`, which is then taken; nothing fails otherwise. */
static bool take_if(struct cursor *cursor, char c)
{
    if (cursor->failed || cursor->at == cursor->end || *cursor->at != c)
        return false;
    cursor->at++;
    return true;
}

static struct position take_position(struct cursor *cursor)
{
    struct position position = {.lsn = take_number(cursor, UINT64_MAX)};
    take_char(cursor, '-');
    position.place = (uint32_t)take_number(cursor, UINT32_MAX);
    return position;
}

static int64_t take_count(struct cursor *cursor)
{
    bool negative = take_if(cursor, '-');
    int64_t count = (int64_t)take_number(cursor, INT64_MAX);
    return negative ? -count : count;
}

static int64_t take_count_behind_blank(struct cursor *cursor)
{
    take_char(cursor, ' ');
    return take_count(cursor);
}

static bool is_name_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '.' || c == '-';
}

/* "SHARD.GEN"; the shard's name may have dots and dashes, so it ends at the last dot before
 * `generation_end`. */
static void take_generation(struct cursor *cursor, const char *generation_end,
                            char ret_shard[SHARDMAP_NAME_MAX + 1], int64_t *ret_generation)
{
    const char *start = cursor->at;
    const char *dot =
        generation_end > start ? memrchr(start, '.', (size_t)(generation_end - start)) : NULL;
    cursor->failed |= !dot || dot == start || dot - start > SHARDMAP_NAME_MAX;
    if (cursor->failed)
        return;
    for (const char *c = start; c < dot; c++) {
        if (!is_name_char(*c)) {
            cursor->failed = true;
            return;
        }
    }
    memcpy(ret_shard, start, (size_t)(dot - start));
    ret_shard[dot - start] = '\0';
    cursor->at = dot + 1;
    *ret_generation = (int64_t)take_number(cursor, INT64_MAX);
}

/* --- lines ------------------------------------------------------------------------------------ */

static enum live_kind kind_of(const char *text, size_t len)
{
    if (len == 1 && *text == '-')
        return LIVE_NONE;
    if (len == 6 && memcmp(text, "resync", 6) == 0)
        return LIVE_RESYNC;
    if (len == 4 && memcmp(text, "gone", 4) == 0)
        return LIVE_GONE;
    return LIVE_SEATS;
}

bool live_line_parse(const char *text, size_t len, struct live_line *ret_line)
{
    struct cursor cursor = {.at = text, .end = text + len};
    struct live_line line = {.generation = 0};
    const char *blank = len ? memchr(text, ' ', len) : NULL;
    take_generation(&cursor, blank ? blank : text, line.shard, &line.generation);
    take_char(&cursor, ' ');
    line.previous = take_position(&cursor);
    take_char(&cursor, ' ');
    line.id = take_position(&cursor);
    line.counts.total = take_count_behind_blank(&cursor);
    line.counts.available = take_count_behind_blank(&cursor);
    line.counts.held = take_count_behind_blank(&cursor);
    line.counts.booked = take_count_behind_blank(&cursor);
    take_char(&cursor, ' ');
    if (cursor.failed || cursor.at == cursor.end || position_compare(&line.previous, &line.id) > 0)
        return false;
    line.groups = cursor.at;
    line.groups_len = (size_t)(cursor.end - cursor.at);
    line.kind = kind_of(line.groups, line.groups_len);
    *ret_line = line;
    return true;
}

static void take_seat(struct cursor *cursor, char state, int32_t cols, int64_t total,
                      struct live_seats *seats)
{
    int64_t number = (int64_t)take_number(cursor, INT64_MAX);
    if (cursor->failed || number >= total)
        return;
    if (seats->count == LIVE_SEATS_MAX || number / cols >= INT32_MAX) {
        cursor->failed = true;
        return;
    }
    seats->states[seats->count] = state;
    seats->seats[seats->count++] =
        (struct seat){.row = (int32_t)(number / cols) + 1, .col = (int32_t)(number % cols) + 1};
}

bool live_seats_parse(const struct live_line *line, int32_t cols, int64_t total,
                      struct live_seats *ret_seats)
{
    struct cursor cursor = {.at = line->groups, .end = line->groups + line->groups_len};
    ret_seats->count = 0;
    if (line->kind != LIVE_SEATS || cols < 1)
        return false;
    do {
        char state = cursor.at < cursor.end ? *cursor.at : '\0';
        if (state != '.' && state != 'h' && state != 'x')
            return false;
        cursor.at++;
        take_char(&cursor, ':');
        do {
            take_seat(&cursor, state, cols, total, ret_seats);
        } while (take_if(&cursor, ','));
    } while (take_if(&cursor, ';'));
    return !cursor.failed && cursor.at == cursor.end;
}

bool live_note_parse(const char *text, size_t len, struct live_note *ret_note)
{
    static const char *const statuses[] = {"held", "confirmed", "cancelled", "expired", "failed"};
    char booking[UUID_TEXT_LEN + 1];
    struct live_note note = {.status = NULL};
    if (len <= UUID_TEXT_LEN + 1 || text[UUID_TEXT_LEN] != ' ')
        return false;
    memcpy(booking, text, UUID_TEXT_LEN);
    booking[UUID_TEXT_LEN] = '\0';
    text += UUID_TEXT_LEN + 1;
    len -= UUID_TEXT_LEN + 1;
    for (size_t i = 0; i < sizeof(statuses) / sizeof(statuses[0]); i++) {
        if (strlen(statuses[i]) == len && memcmp(statuses[i], text, len) == 0)
            note.status = statuses[i];
    }
    if (!note.status || !uuid_parse(booking, &note.booking_id))
        return false;
    *ret_note = note;
    return true;
}

/* --- positions, counters, ids ----------------------------------------------------------------- */

size_t live_position_format(const struct position *position, char ret_text[LIVE_POSITION_MAX + 1])
{
    return (size_t)snprintf(ret_text, LIVE_POSITION_MAX + 1, "%" PRIu64 "-%" PRIu32, position->lsn,
                            position->place);
}

bool live_count_parse(const char *text, size_t len, int64_t *ret_count)
{
    struct cursor cursor = {.at = text, .end = text + len};
    int64_t count = take_count(&cursor);
    if (cursor.failed || cursor.at != cursor.end)
        return false;
    *ret_count = count;
    return true;
}

void live_id_format(const struct live_id *id, char ret_text[ROUTER_LIVE_ID_MAX + 1])
{
    snprintf(ret_text, ROUTER_LIVE_ID_MAX + 1, "%s.%" PRId64 "-%" PRIu64 "-%" PRIu32, id->shard,
             id->generation, id->position.lsn, id->position.place);
}

bool live_id_parse(const char *text, struct live_id *ret_id)
{
    size_t len = strnlen(text, ROUTER_LIVE_ID_MAX + 1);
    struct cursor cursor = {.at = text, .end = text + len};
    struct live_id id;
    const char *place = len <= ROUTER_LIVE_ID_MAX ? memrchr(text, '-', len) : NULL;
    const char *lsn = place ? memrchr(text, '-', (size_t)(place - text)) : NULL;
    if (!lsn)
        return false;
    take_generation(&cursor, lsn, id.shard, &id.generation);
    take_char(&cursor, '-');
    id.position = take_position(&cursor);
    if (cursor.failed || cursor.at != cursor.end)
        return false;
    *ret_id = id;
    return true;
}
