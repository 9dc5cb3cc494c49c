/*
 * Goal: the comparison finds exactly the drift that is there, however busy the keys are, and what
 * it heals with makes them right for good. Method: tables of single cases; then random histories: a
 * stream of transactions, a snapshot at a random LSN between two of them, notes from a random
 * earlier point, keys read at random later points, each key with its own progress. Two Redis are
 * kept, one sound and one with planted damage, both by the rules of the scripts: a key must be
 * found if the two differ, and never if they do not; and after the healing and the rest of the
 * stream they must be the same.
 *
 * SPDX-License-Identifier: MIT
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "replication/reconcile_compare.h"

#define NOTES_MAX 1000

/* --- tables ----------------------------------------------------------------------------------- */

static const struct position c_lsn = {.lsn = 1000, .place = 0};

static struct compare_event_key key_of(int64_t held, int64_t booked, struct position at)
{
    return (struct compare_event_key){.any = true,
                                      .whole = true,
                                      .placed = true,
                                      .at = at,
                                      .total = 100,
                                      .available = 100 - held - booked,
                                      .held = held,
                                      .booked = booked,
                                      .rows = 10,
                                      .cols = 10};
}

static void note_seats(struct compare *compare, int64_t d_held, int64_t d_booked, uint64_t lsn,
                       uint32_t place)
{
    const struct effect effect = {
        .kind = EFFECT_SEATS, .event_id = 7, .d_held = d_held, .d_booked = d_booked};
    compare_note(compare, &effect, &(struct position){lsn, place});
}

/* Event 7 of 100 seats, at C 2 held and 3 booked; then one more is booked, then one held. */
static struct compare *busy_event(void)
{
    const struct compare_counters counters = {
        .exists = true, .rows = 10, .cols = 10, .held = 2, .booked = 3};
    struct compare *compare = compare_new(NOTES_MAX);
    note_seats(compare, 1, 1, 999, 7);  /* in the snapshot */
    note_seats(compare, 0, 1, 1000, 1); /* starts right at C: not in it */
    compare_add_event(compare, 7, &counters);
    compare_seal(compare, c_lsn.lsn);
    note_seats(compare, 1, 0, 1001, 1);
    return compare;
}

static void test_event_is_followed_up_to_its_position(void **state)
{
    static const struct {
        int64_t held, booked;
        struct position at;
        enum compare_verdict verdict;
    } cases[] = {
        {2, 3, {999, 7}, COMPARE_SAME},   {2, 3, {1000, 0}, COMPARE_SAME},
        {2, 4, {1000, 1}, COMPARE_SAME},  {3, 4, {1001, 1}, COMPARE_SAME},
        {2, 4, {999, 7}, COMPARE_DRIFT},  {2, 3, {1000, 1}, COMPARE_DRIFT},
        {2, 4, {1001, 1}, COMPARE_DRIFT},
    };
    char what[COMPARE_WHAT_SIZE];
    (void)state;
    struct compare *compare = busy_event();
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct compare_event_key key = key_of(cases[i].held, cases[i].booked, cases[i].at);
        assert_int_equal(compare_event(compare, 0, &key, what), cases[i].verdict);
    }
    compare_free(compare);
}

static void test_damage_is_named(void **state)
{
    char what[COMPARE_WHAT_SIZE];
    struct effect effect;
    struct position position;
    (void)state;
    struct compare *compare = busy_event();
    struct compare_event_key key = key_of(2, 3, c_lsn);
    key.available = 90;
    assert_int_equal(compare_event(compare, 0, &key, what), COMPARE_DRIFT);
    assert_string_equal(what, "available 90 in Redis, 95 in PostgreSQL");
    key = (struct compare_event_key){0};
    assert_int_equal(compare_event(compare, 0, &key, what), COMPARE_DRIFT);
    assert_string_equal(what, "missing");
    key = (struct compare_event_key){.placed = true, .at = c_lsn};
    assert_int_equal(compare_event(compare, 0, &key, what), COMPARE_DRIFT);
    key = key_of(2, 3, c_lsn);
    key.whole = false;
    assert_int_equal(compare_event(compare, 0, &key, what), COMPARE_DRIFT);
    key = key_of(2, 3, c_lsn);
    key.placed = false;
    assert_int_equal(compare_event(compare, 0, &key, what), COMPARE_DRIFT);

    assert_true(compare_heal_event(compare, 0, &effect, &position)); /* after all, as of the last */
    assert_int_equal(effect.kind, EFFECT_EVENT_SEED);
    assert_int_equal(effect.d_held, 3);
    assert_int_equal(effect.d_booked, 4);
    assert_int_equal(effect.rows, 10);
    assert_int_equal(position.lsn, 1001);
    assert_int_equal(position.place, 1);
    compare_free(compare);
}

static void test_what_is_not_in_postgres(void **state)
{
    char what[COMPARE_WHAT_SIZE];
    struct effect effect;
    struct position position;
    (void)state;
    struct compare *compare = compare_new(NOTES_MAX);
    compare_add_event(compare, 7, &(struct compare_counters){0});
    compare_seal(compare, c_lsn.lsn);
    struct compare_event_key key = key_of(0, 0, (struct position){900, 1});
    assert_int_equal(compare_event(compare, 0, &key, what), COMPARE_DRIFT);
    assert_string_equal(what, "not in PostgreSQL");
    assert_true(compare_heal_event(compare, 0, &effect, &position));
    assert_int_equal(effect.kind, EFFECT_EVENT_GONE);
    assert_int_equal(position.lsn, c_lsn.lsn);
    key = (struct compare_event_key){.placed = true, .at = {900, 1}}; /* a tombstone */
    assert_int_equal(compare_event(compare, 0, &key, what), COMPARE_SAME);
    key = (struct compare_event_key){0};
    assert_int_equal(compare_event(compare, 0, &key, what), COMPARE_SAME);
    /* Created since: what was sold of an earlier one of this id is not known. */
    const struct effect grid = {.kind = EFFECT_GRID, .event_id = 7, .rows = 10, .cols = 10};
    compare_note(compare, &grid, &(struct position){1000, 1});
    key = key_of(0, 0, (struct position){1000, 1});
    assert_int_equal(compare_event(compare, 0, &key, what), COMPARE_LATER);
    key.whole = false; /* the grid alone, to be healed */
    assert_int_equal(compare_event(compare, 0, &key, what), COMPARE_LATER);
    assert_false(compare_heal_event(compare, 0, &effect, &position));
    /* A key of before it is drift, but cannot be put right now. */
    key = key_of(0, 0, (struct position){900, 1});
    assert_int_equal(compare_event(compare, 0, &key, what), COMPARE_DRIFT);
    assert_false(compare_heal_event(compare, 0, &effect, &position));
    /* Gone again: */
    const struct effect gone = {.kind = EFFECT_EVENT_GONE, .event_id = 7};
    compare_note(compare, &gone, &(struct position){1010, 1});
    assert_true(compare_heal_event(compare, 0, &effect, &position));
    assert_int_equal(effect.kind, EFFECT_EVENT_GONE);
    assert_int_equal(position.lsn, 1010);
    compare_free(compare);
}

static void note_ticket(struct compare *compare, const char *user, const struct uuid *booking_id,
                        uint64_t lsn)
{
    const struct effect effect = {.kind = EFFECT_TICKET_REMOVE,
                                  .event_id = 7,
                                  .user = user,
                                  .user_len = strlen(user),
                                  .booking_id = *booking_id};
    compare_note(compare, &effect, &(struct position){lsn, 1});
}

static void test_tickets(void **state)
{
    const struct uuid one = {{1}}, two = {{2}}, three = {{3}};
    char what[COMPARE_WHAT_SIZE];
    struct effect effect;
    struct position position;
    (void)state;
    struct compare *compare = compare_new(NOTES_MAX);
    note_ticket(compare, "ann", &one, 999);
    note_ticket(compare, "bob", &two, 1000);
    compare_add_ticket(compare, "bob", 3, &two, 7);
    compare_add_ticket(compare, "ann", 3, &one, 0); /* suspected */
    compare_add_ticket(compare, "ann", 3, &one, 7); /* and sound: one ticket */
    compare_add_ticket(compare, "ann", 3, &three, 0);
    compare_seal(compare, c_lsn.lsn);
    assert_int_equal(compare_ticket_count(compare), 3);
    assert_string_equal(compare_ticket_at(compare, 1)->user, "ann");
    assert_string_equal(compare_ticket_at(compare, 2)->user, "bob");

    assert_int_equal(compare_ticket(compare, 0, 7, what), COMPARE_SAME);
    assert_int_equal(compare_ticket(compare, 0, 0, what), COMPARE_DRIFT);
    assert_string_equal(what, "missing: 01000000-0000-0000-0000-000000000000");
    assert_int_equal(compare_ticket(compare, 0, 8, what), COMPARE_DRIFT);
    assert_int_equal(compare_ticket(compare, 0, -1, what), COMPARE_DRIFT);
    assert_true(compare_heal_ticket(compare, 0, &effect, &position));
    assert_int_equal(effect.kind, EFFECT_TICKET_MEND);
    assert_int_equal(effect.event_id, 7);
    assert_int_equal(position.lsn, 1000);
    assert_int_equal(position.place, 1);

    assert_int_equal(compare_ticket(compare, 1, 0, what), COMPARE_SAME);
    assert_int_equal(compare_ticket(compare, 1, 5, what), COMPARE_DRIFT);
    assert_true(compare_heal_ticket(compare, 1, &effect, &position));
    assert_int_equal(effect.kind, EFFECT_TICKET_UNMEND);

    assert_int_equal(compare_ticket(compare, 2, 7, what), COMPARE_SAME);
    assert_int_equal(compare_ticket(compare, 2, 0, what), COMPARE_LATER);
    assert_false(compare_heal_ticket(compare, 2, &effect, &position));
    compare_free(compare);
}

static void test_notes_are_bounded(void **state)
{
    (void)state;
    struct compare *compare = compare_new(2);
    note_seats(compare, 1, 0, 1, 1);
    note_seats(compare, 1, 0, 2, 1);
    assert_false(compare_is_full(compare));
    note_seats(compare, 1, 0, 3, 1);
    assert_true(compare_is_full(compare));
    compare_free(compare);

    /* What does not concern the slice takes no room once it is known. */
    compare = compare_new(2);
    note_seats(compare, 1, 0, 1, 1);
    note_seats(compare, 1, 0, 2000, 1);
    compare_add_event(compare, 8, &(struct compare_counters){.exists = true});
    compare_seal(compare, c_lsn.lsn);
    for (uint64_t lsn = 3000; lsn < 3100; lsn++)
        note_seats(compare, 1, 0, lsn, 1);
    assert_false(compare_is_full(compare));
    compare_free(compare);
}

/* --- random histories ------------------------------------------------------------------------- */

#define EVENTS 6 /* the last one never exists */
#define USERS 4
#define BOOKINGS 24
#define TXNS 40
#define STREAM_MAX 1000
#define TRIALS 4000

struct item {
    struct effect effect;
    struct position position;
    int txn;
};

struct booking {
    int event, user;
    int64_t seats;
    char state; /* 0 none yet, 'h', 'x', '.' */
};

struct truth {
    struct compare_counters events[EVENTS];
    bool dead[EVENTS];
    struct booking bookings[BOOKINGS];
};

struct tickets_key {
    struct position at;
    int64_t events[BOOKINGS]; /* 0: not there */
};

struct redis {
    struct compare_event_key events[EVENTS];
    struct tickets_key users[USERS];
};

struct history {
    struct item stream[STREAM_MAX];
    size_t count;
    size_t ends[TXNS + 1];        /* of the stream, after so many transactions */
    struct truth after[TXNS + 1]; /* truth, likewise */
};

static uint64_t seed;

static size_t roll(size_t below)
{
    seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (size_t)(seed >> 33) % below;
}

static char user_names[USERS][8] = {"ann", "bob}", "{c", "d:1"};

static struct uuid booking_uuid(int booking)
{
    return (struct uuid){{0, 0, 0, (uint8_t)(booking + 1)}};
}

static void emit(struct history *history, struct effect effect, const struct position *position,
                 int txn)
{
    assert_true(history->count < STREAM_MAX);
    history->stream[history->count++] = (struct item){effect, *position, txn};
}

static void emit_event(struct history *history, struct truth *truth,
                       const struct position *position, int txn)
{
    int event = (int)roll(EVENTS - 1);
    struct compare_counters *counters = &truth->events[event];
    struct effect effect = {.event_id = event + 1, .rows = 5 + (int)roll(3), .cols = 10};
    if (truth->dead[event])
        return;
    if (counters->exists && roll(6) == 0) {
        effect.kind = EFFECT_EVENT_GONE;
        *counters = (struct compare_counters){0};
        truth->dead[event] = true;
    } else {
        effect.kind = EFFECT_GRID;
        counters->exists = true;
        counters->rows = effect.rows;
        counters->cols = effect.cols;
    }
    emit(history, effect, position, txn);
}

static void count_seats(struct compare_counters *counters, const struct booking *booking, int sign,
                        struct effect *effect)
{
    if (booking->state == 'h')
        effect->d_held += sign * booking->seats;
    if (booking->state == 'x')
        effect->d_booked += sign * booking->seats;
    if (counters->exists) {
        counters->held += booking->state == 'h' ? sign * booking->seats : 0;
        counters->booked += booking->state == 'x' ? sign * booking->seats : 0;
    }
}

static void emit_booking(struct history *history, struct truth *truth,
                         const struct position *position, int txn)
{
    int number = (int)roll(BOOKINGS);
    struct booking *booking = &truth->bookings[number];
    if (!booking->state) {
        *booking =
            (struct booking){(int)roll(EVENTS - 1), (int)roll(USERS), 1 + (int64_t)roll(4), '.'};
        if (!truth->events[booking->event].exists) {
            booking->state = 0;
            return;
        }
    }
    struct compare_counters *counters = &truth->events[booking->event];
    struct effect seats = {.kind = EFFECT_SEATS, .event_id = booking->event + 1};
    struct effect ticket = {.event_id = booking->event + 1,
                            .user = user_names[booking->user],
                            .user_len = strlen(user_names[booking->user]),
                            .booking_id = booking_uuid(number)};
    bool had = booking->state != '.';
    count_seats(counters, booking, -1, &seats);
    booking->state = ".hx"[roll(3)];
    count_seats(counters, booking, 1, &seats);
    emit(history, seats, position, txn);
    if (had != (booking->state != '.')) {
        ticket.kind = had ? EFFECT_TICKET_REMOVE : EFFECT_TICKET_ADD;
        emit(history, ticket, position, txn);
    }
}

/* Transaction n is committed at LSN 10 * n. */
static void make_history(struct history *history)
{
    struct truth truth = {0};
    history->count = 0;
    history->ends[0] = 0;
    history->after[0] = truth;
    for (int txn = 1; txn <= TXNS; txn++) {
        struct position position = {.lsn = (uint64_t)txn * 10};
        for (size_t changes = roll(5); changes > 0; changes--) {
            position.place++;
            if (roll(4) == 0)
                emit_event(history, &truth, &position, txn);
            else
                emit_booking(history, &truth, &position, txn);
        }
        history->ends[txn] = history->count;
        history->after[txn] = truth;
    }
}

/* --- Redis, as the scripts have it ------------------------------------------------------------ */

static void set_counters(struct compare_event_key *key, int64_t rows, int64_t cols, int64_t held,
                         int64_t booked)
{
    key->any = key->whole = true;
    key->rows = rows;
    key->cols = cols;
    key->held = held;
    key->booked = booked;
    key->total = rows * cols;
    key->available = key->total - held - booked;
}

static void apply_event(struct compare_event_key *key, const struct item *item)
{
    const struct effect *effect = &item->effect;
    bool total = key->placed && key->any;
    int past = key->placed ? position_compare(&item->position, &key->at) : 1;
    if (effect->kind == EFFECT_EVENT_SEED) {
        if (past < 0)
            return;
        set_counters(key, effect->rows, effect->cols, effect->d_held, effect->d_booked);
    } else {
        if (past <= 0)
            return;
        if (effect->kind == EFFECT_GRID)
            set_counters(key, effect->rows, effect->cols, total ? key->held : 0,
                         total ? key->booked : 0);
        else if (effect->kind == EFFECT_EVENT_GONE)
            *key = (struct compare_event_key){0};
        else if (total)
            set_counters(key, key->rows, key->cols, key->held + effect->d_held,
                         key->booked + effect->d_booked);
        else if (!key->placed)
            return; /* no such key: to be healed */
    }
    key->placed = true;
    key->at = item->position;
}

static void apply_ticket(struct tickets_key *key, const struct item *item)
{
    const struct effect *effect = &item->effect;
    int booking = effect->booking_id.bytes[3] - 1;
    bool mend = effect->kind == EFFECT_TICKET_MEND || effect->kind == EFFECT_TICKET_UNMEND;
    bool add = effect->kind == EFFECT_TICKET_ADD || effect->kind == EFFECT_TICKET_MEND;
    if (!mend && position_compare(&item->position, &key->at) < 0)
        return; /* several effects of one position come in one list */
    key->events[booking] = add ? effect->event_id : 0;
    if (!mend)
        key->at = item->position;
}

static int user_of(const struct effect *effect)
{
    for (int user = 0; user < USERS; user++) {
        if (strcmp(effect->user, user_names[user]) == 0)
            return user;
    }
    return -1;
}

static bool is_of_event(const struct item *item, int event)
{
    return !item->effect.user && item->effect.event_id == event + 1;
}

static bool is_of_user(const struct item *item, int user)
{
    return item->effect.user && user_of(&item->effect) == user;
}

/* --- one trial -------------------------------------------------------------------------------- */

struct trial {
    struct history history;
    struct redis sound, damaged;
    size_t event_progress[EVENTS]; /* of the stream, in both */
    size_t user_progress[USERS];
    bool lost[EVENTS]; /* the key was removed */
    bool left[EVENTS]; /* made above C: for the next time */
    int k;             /* transactions in the snapshot */
    uint64_t lsn;
    size_t noted;
    struct compare *compare;
    size_t found, sane;
};

static void bring_event(struct trial *trial, int event, size_t upto)
{
    for (; trial->event_progress[event] < upto; trial->event_progress[event]++) {
        const struct item *item = &trial->history.stream[trial->event_progress[event]];
        if (is_of_event(item, event)) {
            apply_event(&trial->sound.events[event], item);
            apply_event(&trial->damaged.events[event], item);
        }
    }
}

static void bring_user(struct trial *trial, int user, size_t upto)
{
    for (; trial->user_progress[user] < upto; trial->user_progress[user]++) {
        const struct item *item = &trial->history.stream[trial->user_progress[user]];
        if (is_of_user(item, user)) {
            apply_ticket(&trial->sound.users[user], item);
            apply_ticket(&trial->damaged.users[user], item);
        }
    }
}

static void note_upto(struct trial *trial, size_t upto)
{
    for (; trial->noted < upto; trial->noted++)
        compare_note(trial->compare, &trial->history.stream[trial->noted].effect,
                     &trial->history.stream[trial->noted].position);
}

static void damage_event(struct trial *trial, int event)
{
    struct compare_event_key *key = &trial->damaged.events[event];
    switch (roll(8)) {
    case 0:
        if (key->any)
            key->held += 1 + (int64_t)roll(3);
        return;
    case 1:
        if (key->any)
            key->available--;
        return;
    case 2:
        *key = (struct compare_event_key){0};
        trial->lost[event] = true;
        return;
    case 3:
        if (!trial->history.after[TXNS].dead[event] && !key->placed && event == EVENTS - 1)
            set_counters(key, 3, 3, 0, 0);
        return;
    default:
        return;
    }
}

static void damage_user(struct trial *trial, int user)
{
    struct tickets_key *key = &trial->damaged.users[user];
    size_t booking = roll(BOOKINGS);
    switch (roll(6)) {
    case 0:
        key->events[booking] = 0;
        return;
    case 1:
        key->events[booking] = 1 + (int64_t)roll(EVENTS);
        return;
    default:
        return;
    }
}

static void damage_all(struct trial *trial)
{
    for (int event = 0; event < EVENTS; event++)
        damage_event(trial, event);
    for (int user = 0; user < USERS; user++)
        damage_user(trial, user);
}

/* Everything PostgreSQL has at C, and of what Redis had some time before as a suspicion. */
static void ask(struct trial *trial)
{
    const struct truth *truth = &trial->history.after[trial->k];
    for (int event = 0; event < EVENTS; event++)
        compare_add_event(trial->compare, event + 1, &truth->events[event]);
    for (int booking = 0; booking < BOOKINGS; booking++) {
        const struct uuid id = booking_uuid(booking);
        const struct booking *one = &truth->bookings[booking];
        if (one->state == 'h' || one->state == 'x')
            compare_add_ticket(trial->compare, user_names[one->user], strlen(user_names[one->user]),
                               &id, one->event + 1);
        for (int user = 0; user < USERS; user++) {
            if (trial->damaged.users[user].events[booking])
                compare_add_ticket(trial->compare, user_names[user], strlen(user_names[user]), &id,
                                   0);
        }
    }
}

static bool same_event(const struct compare_event_key *a, const struct compare_event_key *b)
{
    return a->any == b->any &&
           (!a->any || (a->placed == b->placed && a->total == b->total &&
                        a->available == b->available && a->held == b->held &&
                        a->booked == b->booked && a->rows == b->rows && a->cols == b->cols));
}

/* Was made or removed above C, as far as noted. */
static bool came_or_went(const struct trial *trial, int event)
{
    for (size_t i = trial->history.ends[trial->k]; i < trial->noted; i++) {
        if (is_of_event(&trial->history.stream[i], event) &&
            trial->history.stream[i].effect.kind != EFFECT_SEATS)
            return true;
    }
    return false;
}

static void check_event(struct trial *trial, size_t i)
{
    char what[COMPARE_WHAT_SIZE];
    int event = (int)compare_event_id(trial->compare, i) - 1;
    const struct compare_event_key *sound = &trial->sound.events[event];
    struct compare_event_key *key = &trial->damaged.events[event];
    enum compare_verdict verdict = compare_event(trial->compare, i, key, what);
    bool same = same_event(sound, key);
    if (verdict == COMPARE_LATER) {
        assert_true(came_or_went(trial, event));
        trial->left[event] = true;
        return;
    }
    bool undecided = trial->lost[event] && !key->placed && came_or_went(trial, event);
    if (!undecided)
        assert_int_equal(verdict, same ? COMPARE_SAME : COMPARE_DRIFT);
    trial->sane += same;
    trial->found += !same;
    if (verdict != COMPARE_DRIFT)
        return;
    struct item heal;
    if (!compare_heal_event(trial->compare, i, &heal.effect, &heal.position)) {
        assert_true(came_or_went(trial, event));
        trial->left[event] = true;
        return;
    }
    for (size_t line = trial->event_progress[event]; line < trial->noted; line++) {
        if (is_of_event(&trial->history.stream[line], event)) {
            apply_event(&trial->sound.events[event], &trial->history.stream[line]);
            apply_event(key, &trial->history.stream[line]);
        }
    }
    trial->event_progress[event] = trial->noted;
    apply_event(key, &heal);
    assert_true(same_event(&trial->sound.events[event], key));
    trial->lost[event] = false;
}

static bool touched(const struct trial *trial, int user, int booking)
{
    for (size_t i = trial->history.ends[trial->k]; i < trial->noted; i++) {
        const struct item *item = &trial->history.stream[i];
        if (is_of_user(item, user) && item->effect.booking_id.bytes[3] == booking + 1)
            return true;
    }
    return false;
}

static void check_ticket(struct trial *trial, size_t i, bool repaired[USERS][BOOKINGS])
{
    char what[COMPARE_WHAT_SIZE];
    const struct compare_ticket *ticket = compare_ticket_at(trial->compare, i);
    const struct effect named = {.user = ticket->user};
    int user = user_of(&named);
    int booking = ticket->booking_id.bytes[3] - 1;
    struct tickets_key *key = &trial->damaged.users[user];
    enum compare_verdict verdict = compare_ticket(trial->compare, i, key->events[booking], what);
    if (touched(trial, user, booking)) {
        assert_int_not_equal(verdict, COMPARE_DRIFT);
        return;
    }
    bool same = key->events[booking] == trial->sound.users[user].events[booking];
    assert_int_equal(verdict, same ? COMPARE_SAME : COMPARE_DRIFT);
    trial->sane += same;
    trial->found += !same;
    repaired[user][booking] = true;
    if (same)
        return;
    struct item heal;
    assert_true(compare_heal_ticket(trial->compare, i, &heal.effect, &heal.position));
    bring_user(trial, user, trial->noted);
    apply_ticket(key, &heal);
}

/* What was seen to be right, or healed, is right after the rest of the stream, too. */
static void check_end(struct trial *trial, bool repaired[USERS][BOOKINGS])
{
    for (int event = 0; event < EVENTS; event++) {
        bring_event(trial, event, trial->history.count);
        if (!trial->lost[event] && !trial->left[event])
            assert_true(same_event(&trial->sound.events[event], &trial->damaged.events[event]));
    }
    for (int user = 0; user < USERS; user++) {
        bring_user(trial, user, trial->history.count);
        for (int booking = 0; booking < BOOKINGS; booking++) {
            if (repaired[user][booking])
                assert_int_equal(trial->damaged.users[user].events[booking],
                                 trial->sound.users[user].events[booking]);
        }
    }
}

/* Any point from `from` to the end of the stream. */
static size_t later(const struct trial *trial, size_t from)
{
    return from + roll(trial->history.count - from + 1);
}

static void bring_all(struct trial *trial, size_t from, size_t to)
{
    for (int event = 0; event < EVENTS; event++)
        bring_event(trial, event, from + roll(to - from + 1));
    for (int user = 0; user < USERS; user++)
        bring_user(trial, user, from + roll(to - from + 1));
}

static void run_trial(struct trial *trial)
{
    bool repaired[USERS][BOOKINGS] = {0};
    make_history(&trial->history);
    trial->k = (int)roll(TXNS);
    trial->lsn = (uint64_t)trial->k * 10 + 1 + roll(10);
    size_t c_end = trial->history.ends[trial->k];
    trial->compare = compare_new(STREAM_MAX);
    trial->noted = roll(c_end + 1);
    bring_all(trial, 0, c_end);
    if (roll(2))
        damage_all(trial);
    note_upto(trial, trial->noted + roll(trial->history.count - trial->noted + 1) / 2);
    ask(trial);
    compare_seal(trial->compare, trial->lsn);
    note_upto(trial, later(trial, trial->noted < c_end ? c_end : trial->noted));
    bring_all(trial, c_end, c_end);
    if (roll(2))
        damage_all(trial);
    for (size_t i = 0; i < compare_event_count(trial->compare); i++) {
        note_upto(trial, trial->noted + roll(trial->history.count - trial->noted + 1) / 8);
        bring_event(trial, (int)compare_event_id(trial->compare, i) - 1,
                    c_end + roll(trial->noted - c_end + 1));
        check_event(trial, i);
    }
    for (size_t i = 0; i < compare_ticket_count(trial->compare); i++) {
        const struct effect named = {.user = compare_ticket_at(trial->compare, i)->user};
        int user = user_of(&named);
        note_upto(trial, trial->noted + roll(trial->history.count - trial->noted + 1) / 16);
        bring_user(trial, user, c_end + roll(trial->noted - c_end + 1));
        check_ticket(trial, i, repaired);
    }
    assert_false(compare_is_full(trial->compare));
    check_end(trial, repaired);
    compare_free(trial->compare);
}

static void test_random_histories(void **state)
{
    static struct trial trial;
    size_t found = 0, sane = 0;
    (void)state;
    for (uint64_t i = 0; i < TRIALS; i++) {
        seed = i * 7919 + 1;
        memset(&trial, 0, sizeof(trial));
        run_trial(&trial);
        found += trial.found;
        sane += trial.sane;
    }
    assert_true(found > TRIALS); /* the trials are worth something */
    assert_true(sane > TRIALS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_event_is_followed_up_to_its_position),
        cmocka_unit_test(test_damage_is_named),
        cmocka_unit_test(test_what_is_not_in_postgres),
        cmocka_unit_test(test_tickets),
        cmocka_unit_test(test_notes_are_bounded),
        cmocka_unit_test(test_random_histories),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
