/*
 * Comparison of keys with PostgreSQL at one LSN. See reconcile_compare.h.
 *
 *   notes    before the seal all of them, in the order of the stream; after it those of the slice's
 *            events, chained by event
 *   tickets  found by a hash of user and booking; two with one hash are both taken for touched,
 *            which is safe
 *
 * SPDX-License-Identifier: MIT
 */
#include "replication/reconcile_compare.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"

#define NONE SIZE_MAX

struct note {
    struct position position;
    enum effect_kind kind;
    int32_t rows, cols;
    int64_t event_id;
    int64_t d_held, d_booked;
    uint64_t hash; /* of a ticket; 0 otherwise */
    size_t next;   /* of the same event, after the seal */
};

struct event {
    int64_t event_id;
    struct compare_counters counters;
    size_t first, last; /* notes */
};

struct mark {
    uint64_t hash;
    size_t ticket;
};

struct compare {
    bool full;
    bool sealed;
    struct position at; /* C */
    struct position last;
    size_t notes_max;
    struct note *notes;
    size_t note_count, note_size;
    struct event *events;
    size_t event_count, event_size;
    struct compare_ticket *tickets; /* user: owned */
    size_t ticket_count, ticket_size;
    struct mark *marks; /* of all tickets, by hash */
};

/* --- memory ----------------------------------------------------------------------------------- */

struct compare *compare_new(size_t notes_max)
{
    struct compare *compare = calloc(1, sizeof(*compare));
    if (compare)
        compare->notes_max = notes_max;
    return compare;
}

void compare_free(struct compare *compare)
{
    if (!compare)
        return;
    for (size_t i = 0; i < compare->ticket_count; i++)
        free((char *)compare->tickets[i].user);
    free(compare->tickets);
    free(compare->events);
    free(compare->notes);
    free(compare->marks);
    free(compare);
}

bool compare_is_full(const struct compare *compare)
{
    return compare->full;
}

/* Room for one more; the array, moved if need be, or NULL. */
static void *grow(struct compare *compare, void *items, size_t count, size_t *size, size_t item_len)
{
    if (count < *size)
        return items;
    size_t more = *size ? *size * 2 : 64;
    void *moved = realloc(items, more * item_len);
    if (!moved) {
        compare->full = true;
        return NULL;
    }
    *size = more;
    return moved;
}

/* --- notes ------------------------------------------------------------------------------------ */

static uint64_t hash_ticket(const char *user, size_t user_len, const struct uuid *booking_id)
{
    uint64_t hash = hash_bytes(HASH_START, user, user_len);
    return hash_u64(hash_bytes(hash, booking_id->bytes, sizeof(booking_id->bytes))) | 1;
}

static bool is_ticket(const struct effect *effect)
{
    switch (effect->kind) {
    case EFFECT_TICKET_ADD:
    case EFFECT_TICKET_REMOVE:
    case EFFECT_TICKET_MEND:
    case EFFECT_TICKET_UNMEND:
        return true;
    case EFFECT_GRID:
    case EFFECT_SEATS:
    case EFFECT_EVENT_GONE:
    case EFFECT_EVENT_SEED:
        return false;
    }
    return false;
}

static size_t find_event(const struct compare *compare, int64_t event_id)
{
    size_t low = 0, high = compare->event_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (compare->events[middle].event_id < event_id)
            low = middle + 1;
        else
            high = middle;
    }
    return low < compare->event_count && compare->events[low].event_id == event_id ? low : NONE;
}

static void touch(struct compare *compare, uint64_t hash)
{
    size_t low = 0, high = compare->ticket_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (compare->marks[middle].hash < hash)
            low = middle + 1;
        else
            high = middle;
    }
    for (; low < compare->ticket_count && compare->marks[low].hash == hash; low++)
        compare->tickets[compare->marks[low].ticket].touched = true;
}

static struct note *append(struct compare *compare)
{
    if (compare->note_count == compare->notes_max) {
        compare->full = true;
        return NULL;
    }
    struct note *notes = grow(compare, compare->notes, compare->note_count, &compare->note_size,
                              sizeof(*compare->notes));
    if (!notes)
        return NULL;
    compare->notes = notes;
    return &notes[compare->note_count++];
}

/* After the seal: only what concerns the slice is kept. */
static void note_sealed(struct compare *compare, const struct note *note)
{
    if (position_compare(&note->position, &compare->at) <= 0)
        return;
    if (note->hash) {
        touch(compare, note->hash);
        return;
    }
    size_t i = find_event(compare, note->event_id);
    struct note *kept = i == NONE ? NULL : append(compare);
    if (!kept)
        return;
    *kept = *note;
    kept->next = NONE;
    struct event *event = &compare->events[i];
    size_t index = (size_t)(kept - compare->notes);
    if (event->last == NONE)
        event->first = index;
    else
        compare->notes[event->last].next = index;
    event->last = index;
}

void compare_note(struct compare *compare, const struct effect *effect,
                  const struct position *position)
{
    if (compare->full)
        return;
    struct note note = {
        .position = *position,
        .kind = effect->kind,
        .rows = effect->rows,
        .cols = effect->cols,
        .event_id = effect->event_id,
        .d_held = effect->d_held,
        .d_booked = effect->d_booked,
        .hash = is_ticket(effect) ? hash_ticket(effect->user, effect->user_len, &effect->booking_id)
                                  : 0,
    };
    if (position_compare(position, &compare->last) > 0)
        compare->last = *position;
    if (compare->sealed) {
        note_sealed(compare, &note);
        return;
    }
    struct note *kept = append(compare);
    if (kept)
        *kept = note;
}

/* --- the slice -------------------------------------------------------------------------------- */

void compare_add_event(struct compare *compare, int64_t event_id,
                       const struct compare_counters *counters)
{
    assert(!compare->sealed);
    struct event *events = grow(compare, compare->events, compare->event_count,
                                &compare->event_size, sizeof(*compare->events));
    if (!events)
        return;
    compare->events = events;
    events[compare->event_count++] =
        (struct event){.event_id = event_id, .counters = *counters, .first = NONE, .last = NONE};
}

void compare_add_ticket(struct compare *compare, const char *user, size_t user_len,
                        const struct uuid *booking_id, int64_t event_id)
{
    assert(!compare->sealed && user_len >= 1 && user_len <= COMPARE_USER_MAX);
    struct compare_ticket *tickets = grow(compare, compare->tickets, compare->ticket_count,
                                          &compare->ticket_size, sizeof(*compare->tickets));
    if (!tickets)
        return;
    compare->tickets = tickets;
    char *copy = strndup(user, user_len);
    if (!copy) {
        compare->full = true;
        return;
    }
    tickets[compare->ticket_count++] = (struct compare_ticket){
        .user = copy, .user_len = user_len, .booking_id = *booking_id, .event_id = event_id};
}

static int by_event(const void *a, const void *b)
{
    const struct event *left = a, *right = b;
    return (left->event_id > right->event_id) - (left->event_id < right->event_id);
}

static int compare_tickets(const struct compare_ticket *left, const struct compare_ticket *right)
{
    int order = strcmp(left->user, right->user);
    return order ? order
                 : memcmp(left->booking_id.bytes, right->booking_id.bytes,
                          sizeof(left->booking_id.bytes));
}

/* Doubles: the one that PostgreSQL has comes first. */
static int by_ticket(const void *a, const void *b)
{
    const struct compare_ticket *left = a, *right = b;
    int order = compare_tickets(left, right);
    return order ? order : (left->event_id == 0) - (right->event_id == 0);
}

static int by_hash(const void *a, const void *b)
{
    const struct mark *left = a, *right = b;
    return (left->hash > right->hash) - (left->hash < right->hash);
}

static void sort_events(struct compare *compare)
{
    size_t kept = 0;
    if (compare->event_count)
        qsort(compare->events, compare->event_count, sizeof(*compare->events), by_event);
    for (size_t i = 0; i < compare->event_count; i++) {
        if (kept == 0 || compare->events[kept - 1].event_id != compare->events[i].event_id)
            compare->events[kept++] = compare->events[i];
        else if (compare->events[i].counters.exists)
            compare->events[kept - 1] = compare->events[i];
    }
    compare->event_count = kept;
}

static void sort_tickets(struct compare *compare)
{
    size_t kept = 0;
    if (compare->ticket_count)
        qsort(compare->tickets, compare->ticket_count, sizeof(*compare->tickets), by_ticket);
    for (size_t i = 0; i < compare->ticket_count; i++) {
        if (kept && compare_tickets(&compare->tickets[kept - 1], &compare->tickets[i]) == 0)
            free((char *)compare->tickets[i].user);
        else
            compare->tickets[kept++] = compare->tickets[i];
    }
    compare->ticket_count = kept;
}

static void mark_tickets(struct compare *compare)
{
    if (!compare->ticket_count)
        return;
    compare->marks = calloc(compare->ticket_count, sizeof(*compare->marks));
    if (!compare->marks) {
        compare->full = true;
        return;
    }
    for (size_t i = 0; i < compare->ticket_count; i++) {
        const struct compare_ticket *ticket = &compare->tickets[i];
        compare->marks[i].hash = hash_ticket(ticket->user, ticket->user_len, &ticket->booking_id);
        compare->marks[i].ticket = i;
    }
    qsort(compare->marks, compare->ticket_count, sizeof(*compare->marks), by_hash);
}

void compare_seal(struct compare *compare, uint64_t lsn)
{
    assert(!compare->sealed);
    size_t count = compare->note_count;
    compare->at = (struct position){.lsn = lsn, .place = 0};
    if (position_compare(&compare->at, &compare->last) > 0)
        compare->last = compare->at;
    sort_events(compare);
    sort_tickets(compare);
    mark_tickets(compare);
    if (compare->full)
        return;
    compare->sealed = true;
    compare->note_count = 0; /* taken again one by one, in place: what is kept is never ahead */
    for (size_t i = 0; i < count; i++) {
        struct note note = compare->notes[i];
        note_sealed(compare, &note);
    }
}

size_t compare_event_count(const struct compare *compare)
{
    return compare->event_count;
}

int64_t compare_event_id(const struct compare *compare, size_t i)
{
    return compare->events[i].event_id;
}

size_t compare_ticket_count(const struct compare *compare)
{
    return compare->ticket_count;
}

const struct compare_ticket *compare_ticket_at(const struct compare *compare, size_t i)
{
    return &compare->tickets[i];
}

/* --- events ----------------------------------------------------------------------------------- */

/* An event and whether its counters are known: of one that was made since C, or again, nobody has
 * asked what an earlier one of its id has left. */
struct followed {
    struct compare_counters counters;
    bool unknown;
};

/* As event.lua does. */
static void apply(struct followed *followed, const struct note *note)
{
    struct compare_counters *counters = &followed->counters;
    switch (note->kind) {
    case EFFECT_GRID:
        followed->unknown |= !counters->exists;
        counters->exists = true;
        counters->rows = note->rows;
        counters->cols = note->cols;
        return;
    case EFFECT_SEATS:
        if (counters->exists) {
            counters->held += note->d_held;
            counters->booked += note->d_booked;
        }
        return;
    case EFFECT_EVENT_GONE:
        *followed = (struct followed){0};
        return;
    case EFFECT_EVENT_SEED:
        followed->unknown = false;
        *counters = (struct compare_counters){.exists = true,
                                              .rows = note->rows,
                                              .cols = note->cols,
                                              .held = note->d_held,
                                              .booked = note->d_booked};
        return;
    case EFFECT_TICKET_ADD:
    case EFFECT_TICKET_REMOVE:
    case EFFECT_TICKET_MEND:
    case EFFECT_TICKET_UNMEND:
        return;
    }
}

/* The counters after all notes up to and with `upto`; NULL: all. */
static struct followed follow(const struct compare *compare, const struct event *event,
                              const struct position *upto)
{
    struct followed followed = {.counters = event->counters};
    for (size_t i = event->first; i != NONE; i = compare->notes[i].next) {
        const struct note *note = &compare->notes[i];
        if (upto && position_compare(&note->position, upto) > 0)
            break;
        apply(&followed, note);
    }
    return followed;
}

static bool differs(const char *name, int64_t redis, int64_t postgres, int *len,
                    char what[COMPARE_WHAT_SIZE])
{
    if (redis == postgres)
        return false;
    if (*len < COMPARE_WHAT_SIZE)
        *len += snprintf(what + *len, (size_t)(COMPARE_WHAT_SIZE - *len),
                         "%s%s %lld in Redis, %lld in PostgreSQL", *len ? "; " : "", name,
                         (long long)redis, (long long)postgres);
    return true;
}

static enum compare_verdict say(char what[COMPARE_WHAT_SIZE], const char *text)
{
    snprintf(what, COMPARE_WHAT_SIZE, "%s", text);
    return COMPARE_DRIFT;
}

enum compare_verdict compare_event(const struct compare *compare, size_t i,
                                   const struct compare_event_key *key,
                                   char ret_what[COMPARE_WHAT_SIZE])
{
    static const struct position start = {0, 0};
    int len = 0;
    bool drift = false;
    const struct followed followed =
        follow(compare, &compare->events[i], key->placed ? &key->at : &start);
    const struct compare_counters now = followed.counters;
    const int64_t total = (int64_t)now.rows * now.cols;
    if (followed.unknown)
        return COMPARE_LATER;
    if (!now.exists)
        return key->any ? say(ret_what, "not in PostgreSQL") : COMPARE_SAME;
    if (!key->any)
        return say(ret_what, key->placed ? "deleted in Redis, not in PostgreSQL" : "missing");
    if (!key->placed)
        return say(ret_what, "without a position");
    if (!key->whole)
        return say(ret_what, "a counter is missing or no number");
    drift |= differs("available", key->available, total - now.held - now.booked, &len, ret_what);
    drift |= differs("held", key->held, now.held, &len, ret_what);
    drift |= differs("booked", key->booked, now.booked, &len, ret_what);
    drift |= differs("total", key->total, total, &len, ret_what);
    drift |= differs("rows", key->rows, now.rows, &len, ret_what);
    drift |= differs("cols", key->cols, now.cols, &len, ret_what);
    return drift ? COMPARE_DRIFT : COMPARE_SAME;
}

bool compare_heal_event(const struct compare *compare, size_t i, struct effect *ret_effect,
                        struct position *ret_position)
{
    const struct event *event = &compare->events[i];
    const struct followed followed = follow(compare, event, NULL);
    const struct compare_counters now = followed.counters;
    if (followed.unknown)
        return false;
    *ret_effect = (struct effect){
        .kind = now.exists ? EFFECT_EVENT_SEED : EFFECT_EVENT_GONE,
        .event_id = event->event_id,
        .rows = now.rows,
        .cols = now.cols,
        .d_held = now.held,
        .d_booked = now.booked,
    };
    *ret_position = event->last == NONE ? compare->at : compare->notes[event->last].position;
    return true;
}

/* --- tickets ---------------------------------------------------------------------------------- */

enum compare_verdict compare_ticket(const struct compare *compare, size_t i, int64_t event_id,
                                    char ret_what[COMPARE_WHAT_SIZE])
{
    const struct compare_ticket *ticket = &compare->tickets[i];
    if (event_id == ticket->event_id)
        return COMPARE_SAME;
    if (ticket->touched)
        return COMPARE_LATER;
    char booking[UUID_TEXT_LEN + 1];
    uuid_format(&ticket->booking_id, booking);
    if (event_id == 0)
        snprintf(ret_what, COMPARE_WHAT_SIZE, "missing: %s", booking);
    else if (ticket->event_id == 0)
        snprintf(ret_what, COMPARE_WHAT_SIZE, "not in SQL: %s", booking);
    else
        snprintf(ret_what, COMPARE_WHAT_SIZE, "booking %s of event %lld in Redis", booking,
                 (long long)event_id);
    return COMPARE_DRIFT;
}

bool compare_heal_ticket(const struct compare *compare, size_t i, struct effect *ret_effect,
                         struct position *ret_position)
{
    const struct compare_ticket *ticket = &compare->tickets[i];
    if (ticket->touched)
        return false;
    *ret_effect = (struct effect){
        .kind = ticket->event_id ? EFFECT_TICKET_MEND : EFFECT_TICKET_UNMEND,
        .event_id = ticket->event_id,
        .user = ticket->user,
        .user_len = ticket->user_len,
        .booking_id = ticket->booking_id,
    };
    *ret_position = compare->last;
    return true;
}
