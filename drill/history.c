/*
 * The record of a drill. See history.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "drill/history.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define ROOM_MIN 1024
#define KEY_PREFIX "drill-"

/* --- memory ----------------------------------------------------------------------------------- */

struct history *history_new(size_t max_bytes, uint64_t run)
{
    struct history *history = calloc(1, sizeof(*history));
    if (!history)
        return NULL;
    history->run = run;
    history->max_bytes = max_bytes;
    history->name_count = 1;
    return history;
}

void history_free(struct history *history)
{
    if (!history)
        return;
    free(history->events);
    free(history->bookings);
    free(history->attempts);
    free(history->reads);
    free(history->seats);
    free(history->seen);
    free(history);
}

/* More room for an array, if the bound allows it. `array_at` points to the pointer to it. */
static bool grow(struct history *history, void *array_at, size_t *room, size_t new_room,
                 size_t item_bytes)
{
    void *array;
    size_t more = (new_room - *room) * item_bytes;
    if (more > history->max_bytes - history->bytes)
        return false;
    memcpy(&array, array_at, sizeof(array));
    array = realloc(array, new_room * item_bytes);
    if (!array)
        return false;
    memcpy(array_at, &array, sizeof(array));
    history->bytes += more;
    *room = new_room;
    return true;
}

/* Room for `needed` items; twice as much at a time, as long as the bound allows that. */
static bool reserve(struct history *history, void *array_at, size_t *room, size_t needed,
                    size_t item_bytes)
{
    if (needed <= *room)
        return true;
    size_t wish = *room * 2 < ROOM_MIN ? ROOM_MIN : *room * 2;
    if (wish < needed)
        wish = needed;
    /* seats and bitmaps are found by 32 bits */
    if (needed < HISTORY_NONE && (grow(history, array_at, room, wish, item_bytes) ||
                                  grow(history, array_at, room, needed, item_bytes)))
        return true;
    history->refused++;
    return false;
}

static bool add_seats(struct history *history, const int32_t *seats, size_t count, uint32_t *ret_at)
{
    if (count > UINT16_MAX || !reserve(history, &history->seats, &history->seat_room,
                                       history->seat_count + count, sizeof(*history->seats)))
        return false;
    *ret_at = (uint32_t)history->seat_count;
    if (count)
        memcpy(history->seats + history->seat_count, seats, count * sizeof(*seats));
    history->seat_count += count;
    return true;
}

/* --- names ------------------------------------------------------------------------------------ */

uint8_t history_name(struct history *history, const char *text, size_t len)
{
    if (len == 0)
        return 0;
    for (size_t i = 1; i < history->name_count; i++) {
        if (strlen(history->names[i]) == len && memcmp(history->names[i], text, len) == 0)
            return (uint8_t)i;
    }
    if (len > SHARDMAP_NAME_MAX || history->name_count == HISTORY_NAMES_MAX)
        return 0;
    memcpy(history->names[history->name_count], text, len);
    return (uint8_t)history->name_count++;
}

/* --- appending -------------------------------------------------------------------------------- */

uint32_t history_add_event(struct history *history, const struct history_event *event)
{
    if (!reserve(history, &history->events, &history->event_room, history->event_count + 1,
                 sizeof(*event)))
        return HISTORY_NONE;
    history->events[history->event_count] = *event;
    return (uint32_t)history->event_count++;
}

uint32_t history_add_booking(struct history *history, int64_t due_us, uint32_t event, uint32_t user,
                             const int32_t *seats, size_t seat_count)
{
    uint32_t seats_at;
    assert(event < history->event_count);
    if (!reserve(history, &history->bookings, &history->booking_room, history->booking_count + 1,
                 sizeof(*history->bookings)) ||
        !add_seats(history, seats, seat_count, &seats_at))
        return HISTORY_NONE;
    history->bookings[history->booking_count] = (struct history_booking){
        .due_us = due_us,
        .event = event,
        .seats_at = seats_at,
        .seat_count = (uint16_t)seat_count,
        .first_attempt = HISTORY_NONE,
        .last_attempt = HISTORY_NONE,
        .user = user,
    };
    return (uint32_t)history->booking_count++;
}

uint32_t history_add_attempt(struct history *history, uint32_t booking, int64_t sent_us,
                             uint32_t connection)
{
    struct history_booking *of = &history->bookings[booking];
    assert(booking < history->booking_count);
    if (of->attempt_count == UINT16_MAX ||
        !reserve(history, &history->attempts, &history->attempt_room, history->attempt_count + 1,
                 sizeof(*history->attempts)))
        return HISTORY_NONE;
    uint32_t index = (uint32_t)history->attempt_count++;
    history->attempts[index] = (struct history_attempt){
        .sent_us = sent_us, .booking = booking, .next = HISTORY_NONE, .connection = connection};
    if (of->attempt_count++)
        history->attempts[of->last_attempt].next = index;
    else
        of->first_attempt = index;
    of->last_attempt = index;
    return index;
}

uint32_t history_add_read(struct history *history, const struct history_read *read)
{
    if (!reserve(history, &history->reads, &history->read_room, history->read_count + 1,
                 sizeof(*read)))
        return HISTORY_NONE;
    struct history_read *copy = &history->reads[history->read_count];
    *copy = *read;
    copy->seen_at = HISTORY_NONE;
    copy->seen_booked = 0;
    copy->end = HISTORY_PENDING;
    return (uint32_t)history->read_count++;
}

bool history_set_conflicts(struct history *history, uint32_t attempt, const int32_t *seats,
                           size_t count)
{
    uint32_t at;
    if (!add_seats(history, seats, count, &at))
        return false;
    history->attempts[attempt].conflicts_at = at;
    history->attempts[attempt].conflict_count = (uint16_t)count;
    return true;
}

uint64_t *history_set_seen(struct history *history, uint32_t read)
{
    const struct history_event *event = &history->events[history->reads[read].event];
    size_t words = ((size_t)event->rows * (size_t)event->cols + 63) / 64;
    if (!reserve(history, &history->seen, &history->seen_room, history->seen_words + words,
                 sizeof(*history->seen)))
        return NULL;
    uint64_t *bitmap = history->seen + history->seen_words;
    memset(bitmap, 0, words * sizeof(*bitmap));
    history->reads[read].seen_at = (uint32_t)history->seen_words;
    history->seen_words += words;
    return bitmap;
}

/* --- keys and errors -------------------------------------------------------------------------- */

void history_key(const struct history *history, uint32_t booking, char ret_key[HISTORY_KEY_SIZE])
{
    snprintf(ret_key, HISTORY_KEY_SIZE, KEY_PREFIX "%016" PRIx64 "-%" PRIu32, history->run,
             booking);
}

uint32_t history_key_booking(const struct history *history, const char *key)
{
    char own[HISTORY_KEY_SIZE];
    const char *digits = strrchr(key, '-');
    if (!digits || !digits[1])
        return HISTORY_NONE;
    uint64_t number = strtoull(digits + 1, NULL, 10);
    if (number >= history->booking_count)
        return HISTORY_NONE;
    history_key(history, (uint32_t)number, own);
    return strcmp(own, key) == 0 ? (uint32_t)number : HISTORY_NONE;
}

uint8_t history_error(const char *code, size_t len)
{
    for (int error = 0; error < SG_ERROR_COUNT; error++) {
        const char *known = sg_error_code((enum sg_error)error);
        if (strlen(known) == len && memcmp(known, code, len) == 0)
            return (uint8_t)error;
    }
    return HISTORY_ERROR_OTHER;
}

const char *history_error_name(uint8_t error)
{
    return error < SG_ERROR_COUNT ? sg_error_code((enum sg_error)error) : "other";
}

const char *history_end_name(enum history_end end)
{
    static const char *const names[HISTORY_ENDS] = {
        [HISTORY_PENDING] = "pending",     [HISTORY_ANSWERED] = "answered",
        [HISTORY_UNREACHED] = "unreached", [HISTORY_CLOSED] = "closed",
        [HISTORY_TIMED_OUT] = "timed_out", [HISTORY_GARBLED] = "garbled",
    };
    assert(end < HISTORY_ENDS);
    return names[end];
}

const char *history_outcome_name(enum history_outcome outcome)
{
    static const char *const names[HISTORY_OUTCOMES] = {
        [HISTORY_UNSENT] = "unsent",       [HISTORY_BOOKED] = "booked",
        [HISTORY_REFUSED] = "refused",     [HISTORY_FAILED] = "failed",
        [HISTORY_AMBIGUOUS] = "ambiguous",
    };
    assert(outcome < HISTORY_OUTCOMES);
    return names[outcome];
}

/* --- what became of it ------------------------------------------------------------------------ */

static bool is_4xx(const struct history_attempt *attempt)
{
    return attempt->end == HISTORY_ANSWERED && attempt->status >= 400 && attempt->status < 500;
}

/* Errors that promise that nothing was done. */
static bool promises_nothing_done(uint8_t error)
{
    return error == SG_OVERLOADED || error == SG_SHARD_UNAVAILABLE || error == SG_DEADLINE ||
           error == SG_FENCED || error == SG_STALE_EPOCH || error == SG_NOT_SYNCHRONOUS;
}

bool history_is_booked(const struct history_attempt *attempt)
{
    return attempt->end == HISTORY_ANSWERED && attempt->status == 201;
}

bool history_is_refusal(const struct history_attempt *attempt)
{
    return is_4xx(attempt) && attempt->status != 408 && attempt->status != 429;
}

bool history_is_ambiguous(const struct history_attempt *attempt)
{
    if (attempt->end == HISTORY_ANSWERED)
        return attempt->status != 201 && !is_4xx(attempt) && !promises_nothing_done(attempt->error);
    return attempt->end != HISTORY_UNREACHED;
}

enum history_outcome history_outcome(const struct history *history, uint32_t booking)
{
    enum history_outcome outcome = HISTORY_UNSENT;
    for (uint32_t i = history->bookings[booking].first_attempt; i != HISTORY_NONE;
         i = history->attempts[i].next) {
        const struct history_attempt *attempt = &history->attempts[i];
        if (history_is_booked(attempt))
            return HISTORY_BOOKED;
        if (history_is_refusal(attempt))
            outcome = HISTORY_REFUSED;
        else if (history_is_ambiguous(attempt))
            outcome = HISTORY_AMBIGUOUS;
        else if (outcome == HISTORY_UNSENT)
            outcome = HISTORY_FAILED;
    }
    return outcome;
}

const struct history_attempt *history_acknowledged(const struct history *history, uint32_t booking)
{
    for (uint32_t i = history->bookings[booking].first_attempt; i != HISTORY_NONE;
         i = history->attempts[i].next) {
        if (history_is_booked(&history->attempts[i]))
            return &history->attempts[i];
    }
    return NULL;
}

/* --- as JSON lines ---------------------------------------------------------------------------- */

static void write_seats(const struct history *history, FILE *file, const char *name, uint32_t at,
                        size_t count)
{
    fprintf(file, ",\"%s\":[", name);
    for (size_t i = 0; i < count; i++)
        fprintf(file, "%s%" PRId32, i ? "," : "", history->seats[at + i]);
    fputc(']', file);
}

static void write_token(FILE *file, const char *name, const struct history_token *token)
{
    if (token->lsn)
        fprintf(file, ",\"%s\":\"%" PRId32 ".%" PRIX64 "\"", name, token->timeline, token->lsn);
}

/* Names are of the alphabet of shard maps, or came in a header: only printable ones are written. */
static void write_name(const struct history *history, FILE *file, const char *name, uint8_t index)
{
    const char *text = history->names[index];
    if (index && strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789_.-") == strlen(text))
        fprintf(file, ",\"%s\":\"%s\"", name, text);
}

static void write_event(const struct history *history, FILE *file, size_t index)
{
    const struct history_event *event = &history->events[index];
    fprintf(file, "{\"event\":%zu,\"id\":%" PRId64 ",\"rows\":%" PRId32 ",\"cols\":%" PRId32, index,
            event->id, event->rows, event->cols);
    write_name(history, file, "shard", event->shard);
    fprintf(file, ",\"watched\":%s}\n", event->watched ? "true" : "false");
}

static void write_attempt(const struct history *history, FILE *file,
                          const struct history_attempt *attempt)
{
    static const char *const durabilities[] = {"", ",\"durability\":\"async\"",
                                               ",\"durability\":\"sync\""};
    char id[UUID_TEXT_LEN + 1];
    fprintf(file,
            "{\"sentUs\":%" PRId64 ",\"answeredUs\":%" PRId64 ",\"connection\":%" PRIu32
            ",\"end\":\"%s\",\"status\":%u%s",
            attempt->sent_us, attempt->answered_us, attempt->connection,
            history_end_name(attempt->end), attempt->status, durabilities[attempt->durability]);
    if (attempt->end == HISTORY_ANSWERED)
        fprintf(file, ",\"code\":\"%s\"", history_error_name(attempt->error));
    if (history_is_booked(attempt)) {
        uuid_format(&attempt->booking_id, id);
        fprintf(file, ",\"bookingId\":\"%s\"%s%s", id,
                attempt->replayed ? ",\"replayed\":true" : "",
                attempt->differs ? ",\"differs\":true" : "");
    }
    if (attempt->conflict_count)
        write_seats(history, file, "conflicts", attempt->conflicts_at, attempt->conflict_count);
    write_token(file, "token", &attempt->token);
    write_name(history, file, "shard", attempt->shard);
    write_name(history, file, "node", attempt->node);
    fputc('}', file);
}

static void write_booking(const struct history *history, FILE *file, uint32_t index)
{
    const struct history_booking *booking = &history->bookings[index];
    char key[HISTORY_KEY_SIZE];
    history_key(history, index, key);
    fprintf(file,
            "{\"booking\":%" PRIu32 ",\"key\":\"%s\",\"event\":%" PRId64 ",\"user\":%" PRIu32
            ",\"dueUs\":%" PRId64 ",\"outcome\":\"%s\"",
            index, key, history->events[booking->event].id, booking->user, booking->due_us,
            history_outcome_name(history_outcome(history, index)));
    write_seats(history, file, "seats", booking->seats_at, booking->seat_count);
    fputs(",\"attempts\":[", file);
    for (uint32_t i = booking->first_attempt; i != HISTORY_NONE; i = history->attempts[i].next) {
        if (i != booking->first_attempt)
            fputc(',', file);
        write_attempt(history, file, &history->attempts[i]);
    }
    fputs("]}\n", file);
}

/* The bitmap as 16 hexadecimal digits a word, bit 0 of a word being its lowest seat. */
static void write_seen(const struct history *history, FILE *file, const struct history_read *read)
{
    const struct history_event *event = &history->events[read->event];
    size_t words = ((size_t)event->rows * (size_t)event->cols + 63) / 64;
    fprintf(file, ",\"booked\":%" PRIu32 ",\"seen\":\"", read->seen_booked);
    for (size_t i = 0; i < words; i++)
        fprintf(file, "%016" PRIx64, history->seen[read->seen_at + i]);
    fputc('"', file);
}

static void write_read(const struct history *history, FILE *file, size_t index)
{
    const struct history_read *read = &history->reads[index];
    fprintf(file,
            "{\"read\":%zu,\"event\":%" PRId64 ",\"reader\":%" PRIu32 ",\"session\":%s"
            ",\"dueUs\":%" PRId64 ",\"sentUs\":%" PRId64 ",\"answeredUs\":%" PRId64
            ",\"connection\":%" PRIu32 ",\"end\":\"%s\",\"status\":%u",
            index, history->events[read->event].id, read->reader, read->session ? "true" : "false",
            read->due_us, read->sent_us, read->answered_us, read->connection,
            history_end_name(read->end), read->status);
    if (read->end == HISTORY_ANSWERED)
        fprintf(file, ",\"code\":\"%s\"", history_error_name(read->error));
    if (read->bound_ms >= 0)
        fprintf(file, ",\"boundMs\":%" PRId32, read->bound_ms);
    if (read->staleness_ms >= 0)
        fprintf(file, ",\"stalenessMs\":%" PRId32, read->staleness_ms);
    write_token(file, "carried", &read->carried);
    write_token(file, "got", &read->got);
    write_name(history, file, "shard", read->shard);
    write_name(history, file, "node", read->node);
    if (read->seen_at != HISTORY_NONE)
        write_seen(history, file, read);
    fputs("}\n", file);
}

bool history_write(const struct history *history, FILE *file)
{
    for (size_t i = 0; i < history->event_count; i++)
        write_event(history, file, i);
    for (size_t i = 0; i < history->booking_count; i++)
        write_booking(history, file, (uint32_t)i);
    for (size_t i = 0; i < history->read_count; i++)
        write_read(history, file, i);
    return fflush(file) == 0 && !ferror(file);
}
