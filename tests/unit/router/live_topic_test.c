/*
 * Goal: whatever Redis, its channel and the clients do, a reader who applies what it is told, and
 * reads the seats anew when told to, always has exactly the seats of the position it was told: no
 * change is missed and none is told twice.
 * Method: a few cases by hand; then simulations of a Redis (applies changes, trims its history,
 * stops recording while unwatched, loses its last changes, gets a new generation), a channel (late,
 * cut off) and clients (join, resume, leave, also from inside their own callback), with checks at
 * every call.
 *
 * SPDX-License-Identifier: MIT
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "router/live_topic.h"

#define EVENT 7
#define COLS 4
#define SEATS 12
#define LOG_MAX 400
#define READERS 6
#define RUNS 3000
#define STEPS 250

/* --- what is true: PostgreSQL ----------------------------------------------------------------- */

struct change {
    struct position id;
    int seat; /* -1: counters alone; -2: a resync */
    char state;
    char seats[SEATS + 1]; /* after it */
};

static struct {
    struct change log[LOG_MAX]; /* [0]: the beginning */
    int count;
} truth;

static int64_t booked_in(const char *seats)
{
    int64_t count = 0;
    for (int i = 0; i < SEATS; i++)
        count += seats[i] == 'x';
    return count;
}

static int index_of(const struct position *id)
{
    for (int i = 0; i < truth.count; i++) {
        if (position_compare(&truth.log[i].id, id) == 0)
            return i;
    }
    fail_msg("nobody was ever at %llu-%u", (unsigned long long)id->lsn, id->place);
    return -1;
}

static void line_of(int i, int64_t generation, char ret_text[200])
{
    const struct change *change = &truth.log[i];
    const struct change *before = &truth.log[i - 1];
    char what[32] = "-";
    int64_t booked = booked_in(change->seats);
    if (change->seat >= 0)
        snprintf(what, sizeof(what), "%c:%d", change->state, change->seat);
    else if (change->seat == -2)
        snprintf(what, sizeof(what), "resync");
    snprintf(ret_text, 200, "alpha.%lld %llu-%u %llu-%u %d %lld 0 %lld %s", (long long)generation,
             (unsigned long long)before->id.lsn, before->id.place,
             (unsigned long long)change->id.lsn, change->id.place, SEATS,
             (long long)(SEATS - booked), (long long)booked, what);
}

/* --- Redis, its channel, and the topic under test --------------------------------------------- */

static struct {
    int64_t generation;
    int at;              /* index in the log */
    int stream[LOG_MAX]; /* indexes that `changes` holds */
    int stream_count;
    bool watched;
    bool lapsed;          /* since then a reading has not been executed */
    int channel[LOG_MAX]; /* published, on its way */
    int64_t channel_generation[LOG_MAX];
    int channel_count;
    bool asked;    /* a question is on its way back, or there */
    bool answered; /* it was executed: */
    bool with_changes;
    struct position from;
    int answer_at;
    int answer[LOG_MAX];
    int answer_count;
    bool wanted; /* the topic wants a reading */
} redis;

static struct live_topic topic;
static struct live_seats scratch;

/* --- readers ---------------------------------------------------------------------------------- */

struct reader {
    struct live_watch *watch; /* NULL: does not watch */
    bool knows;
    int64_t generation;
    struct position id;
    char seats[SEATS + 1];
    char last_id[ROUTER_LIVE_ID_MAX + 1];
    int calls;
    bool leaves; /* at its next call */
    char note[80];
};

static struct reader readers[READERS];
static int resyncs;

static void on_change(void *arg, const struct live_change *change)
{
    struct reader *reader = arg;
    struct live_id id;
    assert_non_null(reader->watch);
    assert_int_equal(change->event_id, EVENT);
    assert_true(live_id_parse(change->id, &id));
    int at = index_of(&id.position);
    if (change->resync || !reader->knows) {
        resyncs += change->resync;
        memcpy(reader->seats, truth.log[at].seats, SEATS + 1);
    } else {
        assert_true(id.generation == reader->generation);
        int order = position_compare(&id.position, &reader->id);
        if (order < 0 || (order == 0 && change->seat_count > 0))
            fail_msg("%s was told after %s", change->id, reader->last_id);
        for (size_t i = 0; i < change->seat_count; i++)
            reader->seats[(change->seats[i].row - 1) * COLS + change->seats[i].col - 1] =
                change->states[i];
    }
    if (strcmp(reader->seats, truth.log[at].seats) != 0)
        fail_msg("at %s: has %s, true is %s", change->id, reader->seats, truth.log[at].seats);
    assert_int_equal(change->booked, booked_in(truth.log[at].seats));
    reader->knows = true;
    reader->generation = id.generation;
    reader->id = id.position;
    reader->calls++;
    reader->note[0] = '\0';
    if (change->status) {
        assert_false(change->resync);
        uuid_format(&change->booking_id, reader->note);
        snprintf(reader->note + UUID_TEXT_LEN, sizeof(reader->note) - UUID_TEXT_LEN, " %s",
                 change->status);
    }
    snprintf(reader->last_id, sizeof(reader->last_id), "%s", change->id);
    if (reader->leaves) {
        live_topic_leave(reader->watch);
        reader->watch = NULL;
        reader->leaves = false;
    }
}

static void join(struct reader *reader, bool resume)
{
    if (!resume)
        reader->knows = false;
    reader->calls = 0;
    reader->watch =
        live_topic_join(&topic, reader->knows ? reader->last_id : "", on_change, reader);
    assert_non_null(reader->watch);
    redis.wanted |= live_topic_greet(&topic);
}

/* --- the world's steps ------------------------------------------------------------------------ */

static void sell(int kind)
{
    struct change *change = &truth.log[truth.count];
    if (truth.count == LOG_MAX)
        return;
    *change = truth.log[truth.count - 1];
    change->id.place++;
    if (rand() % 3 == 0)
        change->id = (struct position){change->id.lsn + 5, 1};
    change->seat = kind;
    if (kind >= 0) {
        change->state = ".hx"[rand() % 3];
        change->seats[kind] = change->state;
    } else if (kind == -2) {
        change->seats[rand() % SEATS] = 'x';
    }
    truth.count++;
}

/* The consumer applies the next change. */
static void apply(int history)
{
    if (redis.at + 1 >= truth.count)
        return;
    redis.at++;
    if (!redis.watched)
        return;
    redis.stream[redis.stream_count++] = redis.at;
    if (redis.stream_count > history) {
        memmove(redis.stream, redis.stream + 1, sizeof(int) * (size_t)(redis.stream_count - 1));
        redis.stream_count--;
    }
    redis.channel[redis.channel_count] = redis.at;
    redis.channel_generation[redis.channel_count++] = redis.generation;
}

static void deliver(void)
{
    char text[400], more[200];
    if (redis.channel_count == 0)
        return;
    int count = 1 + (redis.channel_count > 1 && rand() % 2);
    line_of(redis.channel[0], redis.channel_generation[0], text);
    if (count == 2) {
        line_of(redis.channel[1], redis.channel_generation[1], more);
        strcat(strcat(text, "\n"), more);
    }
    redis.channel_count -= count;
    memmove(redis.channel, redis.channel + count, sizeof(int) * (size_t)redis.channel_count);
    memmove(redis.channel_generation, redis.channel_generation + count,
            sizeof(int64_t) * (size_t)redis.channel_count);
    redis.wanted |= live_topic_message(&topic, text, strlen(text));
}

static void ask(void)
{
    if (redis.asked)
        return;
    redis.asked = true;
    redis.answered = false;
    redis.wanted = false;
    redis.with_changes = live_topic_ask(&topic, &redis.from);
}

static void execute(void)
{
    if (!redis.asked || redis.answered)
        return;
    redis.answered = true;
    redis.watched = true;
    redis.lapsed = false;
    redis.answer_at = redis.at;
    redis.answer_count = 0;
    for (int i = 0; redis.with_changes && i < redis.stream_count; i++) {
        if (position_compare(&truth.log[redis.stream[i]].id, &redis.from) >= 0)
            redis.answer[redis.answer_count++] = redis.stream[i];
    }
}

static void answer(void)
{
    static char text[LOG_MAX][200];
    static struct live_text lines[LOG_MAX];
    if (!redis.asked || !redis.answered)
        return;
    redis.asked = false;
    int64_t booked = booked_in(truth.log[redis.answer_at].seats);
    struct live_reading reading = {.at = truth.log[redis.answer_at].id,
                                   .counts = {SEATS, SEATS - booked, 0, booked},
                                   .cols = COLS,
                                   .lines = lines,
                                   .line_count = (size_t)redis.answer_count};
    for (int i = 0; i < redis.answer_count; i++) {
        line_of(redis.answer[i], redis.generation, text[i]);
        lines[i] = (struct live_text){.text = text[i], .len = strlen(text[i])};
    }
    redis.wanted |= live_topic_read(&topic, &reading);
}

static void lose_question(void)
{
    if (redis.asked)
        live_topic_unanswered(&topic);
    redis.asked = false;
    redis.wanted = true;
}

/* The connections go; Redis may have forgotten its last changes when it is back. */
static void cut_off(void)
{
    lose_question();
    redis.channel_count = 0;
    live_topic_interrupt(&topic);
    if (rand() % 2 == 0)
        return;
    for (int forgotten = rand() % 4; forgotten > 0 && redis.at > 0; forgotten--) {
        if (redis.stream_count && redis.stream[redis.stream_count - 1] == redis.at)
            redis.stream_count--;
        redis.at--;
    }
}

static void turn_generation(void)
{
    lose_question();
    redis.generation++;
    redis.stream_count = 0;
    live_topic_turn(&topic, topic.shard, redis.generation);
}

static void start(unsigned seed)
{
    srand(seed);
    memset(&truth, 0, sizeof(truth));
    memset(&redis, 0, sizeof(redis));
    memset(readers, 0, sizeof(readers));
    truth.log[0].id = (struct position){100, 1};
    truth.log[0].seat = -1;
    memset(truth.log[0].seats, '.', SEATS);
    truth.count = 1;
    redis.generation = 3;
    live_topic_init(&topic, EVENT, "alpha", redis.generation, &scratch);
}

static void step(int history, bool faults)
{
    struct reader *reader = &readers[rand() % READERS];
    int chance = rand() % 100;
    if (chance < 25)
        sell(rand() % 10 == 0 ? -1 - (faults && rand() % 2) : rand() % SEATS);
    else if (chance < 50)
        apply(history);
    else if (chance < 65)
        deliver();
    else if (chance < 72)
        execute();
    else if (chance < 80)
        answer();
    else if (chance < 82 || redis.wanted)
        ask();
    else if (chance < 92 && !reader->watch)
        join(reader, rand() % 3);
    else if (chance < 92)
        reader->leaves = true;
    else if (chance < 94 && reader->watch && !reader->leaves) {
        live_topic_leave(reader->watch);
        reader->watch = NULL;
    } else if (!faults)
        return;
    else if (chance == 95 && !redis.asked) {
        redis.watched = false;
        redis.lapsed = true;
    } else if (chance == 96)
        cut_off();
    else if (chance == 97 && rand() % 3 == 0)
        turn_generation();
}

/* Nothing new happens any more: everybody comes to the same end. */
static void come_to_rest(int history)
{
    while (redis.at + 1 < truth.count)
        apply(history);
    bool lapsed = redis.lapsed;
    for (int i = 0; i < 20; i++) {
        while (redis.channel_count)
            deliver();
        if (redis.wanted || !topic.current || lapsed)
            ask(); /* only if it has to; it knows of a lapse by its renewal */
        lapsed = false;
        execute();
        answer();
    }
    for (int i = 0; i < READERS; i++) {
        if (!readers[i].watch)
            continue;
        assert_true(readers[i].calls > 0);
        assert_string_equal(readers[i].seats, truth.log[truth.count - 1].seats);
        assert_int_equal(readers[i].watch->step, LIVE_IN_STEP);
    }
}

static void simulate(unsigned seed, bool faults)
{
    start(seed);
    resyncs = 0;
    int history = faults ? 1 + rand() % 12 : LOG_MAX;
    for (int i = 0; i < STEPS; i++)
        step(history, faults);
    come_to_rest(history);
    live_topic_done(&topic);
}

static void nobody_misses_anything(void **state)
{
    int runs_with_resync = 0;
    (void)state;
    for (unsigned seed = 1; seed <= RUNS; seed++) {
        simulate(seed, true);
        runs_with_resync += resyncs > 0;
    }
    assert_true(runs_with_resync > RUNS / 10);
}

static void without_faults_nobody_has_to_look_again(void **state)
{
    (void)state;
    for (unsigned seed = 1; seed <= RUNS; seed++) {
        simulate(seed, false);
        if (resyncs)
            fail_msg("seed %u: %d resyncs", seed, resyncs);
    }
}

/* --- by hand ---------------------------------------------------------------------------------- */

static void read_now(void)
{
    ask();
    execute();
    answer();
}

static void a_resume_gets_exactly_what_was_missed(void **state)
{
    (void)state;
    start(1);
    join(&readers[0], false);
    read_now();
    assert_int_equal(readers[0].calls, 1);
    for (int i = 0; i < 5; i++) {
        sell(i);
        apply(100);
        deliver();
        if (i == 1) { /* leaves after two changes */
            live_topic_leave(readers[0].watch);
            readers[0].watch = NULL;
        }
    }
    resyncs = 0;
    join(&readers[0], true);
    assert_int_equal(readers[0].calls, 0);
    assert_true(redis.wanted);
    read_now();
    assert_int_equal(readers[0].calls, 3);
    assert_int_equal(resyncs, 0);
    join(&readers[1], false); /* who is new is told at once, from what is known */
    assert_int_equal(readers[1].calls, 1);
    assert_false(redis.wanted);
    live_topic_done(&topic);
}

static void what_cannot_be_resumed_is_a_resync(void **state)
{
    static const char *const ids[] = {"x",           "alpha.2-100-1", "beta.3-100-1",
                                      "alpha.3-1-1", "alpha.3-999-1", "alpha.3-100-2"};
    (void)state;
    for (size_t i = 0; i < sizeof(ids) / sizeof(ids[0]); i++) {
        start(1);
        readers[0].knows = true;
        snprintf(readers[0].last_id, sizeof(readers[0].last_id), "%s", ids[i]);
        resyncs = 0;
        join(&readers[0], true);
        read_now();
        assert_int_equal(readers[0].calls, 1);
        assert_int_equal(resyncs, 1);
        live_topic_done(&topic);
    }
}

static void a_trimmed_history_is_a_resync(void **state)
{
    (void)state;
    start(1);
    join(&readers[0], false);
    read_now();
    live_topic_interrupt(&topic);
    for (int i = 0; i < 3; i++) {
        sell(i);
        apply(3);
    }
    redis.channel_count = 0;
    resyncs = 0;
    read_now();
    assert_int_equal(resyncs, 0); /* the oldest entry follows what is known */
    for (int i = 0; i < 4; i++) {
        sell(i);
        apply(3);
    }
    redis.channel_count = 0;
    read_now();
    assert_int_equal(resyncs, 1);
    live_topic_done(&topic);
}

static void a_redis_that_forgot_is_a_resync(void **state)
{
    (void)state;
    start(1);
    join(&readers[0], false);
    read_now();
    for (int i = 0; i < 3; i++) {
        sell(i);
        apply(100);
        deliver();
    }
    assert_int_equal(readers[0].calls, 4);
    redis.at = 1;
    redis.stream_count = 1;
    resyncs = 0;
    read_now();
    assert_int_equal(resyncs, 1);
    apply(100); /* and what it had forgotten is news again */
    deliver();
    assert_int_equal(readers[0].calls, 6);
    live_topic_done(&topic);
}

static void a_deleted_event_is_told_to_all(void **state)
{
    static const char line[] = "alpha.3 100-1 120-1 0 0 0 0 gone";
    (void)state;
    start(1);
    join(&readers[0], false);
    read_now();
    sell(-1);
    truth.log[1].id = (struct position){120, 1};
    int calls = readers[0].calls;
    resyncs = 0;
    assert_false(live_topic_message(&topic, line, sizeof(line) - 1));
    assert_int_equal(readers[0].calls, calls + 1);
    assert_int_equal(resyncs, 1);
    /* its id may be given to a new event: who joins now is told nothing of the old one */
    join(&readers[1], false);
    assert_true(live_topic_greet(&topic));
    assert_int_equal(readers[1].calls, 0);
    live_topic_done(&topic);
}

#define BOOKING "01973c6e-25a1-7c7c-8f00-0123456789ab"

/* The next change with what stands before it; gives what the first reader was told of bookings. */
static const char *note_told(const char *before, int kind)
{
    char line[200], text[500];
    sell(kind);
    redis.at++;
    line_of(redis.at, redis.generation, line);
    snprintf(text, sizeof(text), "%s%s", before, line);
    int calls = readers[0].calls;
    assert_false(live_topic_message(&topic, text, strlen(text)));
    assert_int_equal(readers[0].calls, calls + 1);
    return readers[0].note;
}

static void a_note_belongs_to_the_line_behind_it(void **state)
{
    (void)state;
    start(1);
    join(&readers[0], false);
    read_now();
    assert_string_equal(readers[0].note, "");
    assert_string_equal(note_told("b " BOOKING " held\n", 1), BOOKING " held");
    assert_string_equal(note_told("", 1), "");
    assert_string_equal(note_told("b " BOOKING " failed\n", -1), BOOKING " failed");
    assert_string_equal(note_told("b " BOOKING " held\nb " BOOKING " expired\n", 2),
                        BOOKING " expired");
    /* one that cannot be read, or belongs to a line that cannot, is told to nobody */
    assert_string_equal(note_told("b " BOOKING " sold\n", 3), "");
    assert_string_equal(note_told("b " BOOKING " held\nhello\n", 4), "");
    assert_string_equal(note_told("n " BOOKING " held\n", 4), "");
    live_topic_done(&topic);
}

static void a_reading_brings_notes_too(void **state)
{
    static char text[2][200];
    struct live_text lines[2] = {{.note = BOOKING " confirmed", .note_len = 46}, {.note = NULL}};
    struct live_reading reading = {.counts = {SEATS, SEATS, 0, 0}, .cols = COLS, .lines = lines};
    struct position from;
    (void)state;
    for (int count = 1; count <= 2; count++) {
        start(1);
        join(&readers[0], false);
        read_now();
        for (int i = 0; i < count; i++) {
            sell(-1);
            line_of(i + 1, redis.generation, text[i]);
            lines[i].text = text[i];
            lines[i].len = strlen(text[i]);
        }
        reading.line_count = (size_t)count;
        reading.at = truth.log[count].id;
        (void)live_topic_ask(&topic, &from);
        assert_false(live_topic_read(&topic, &reading));
        assert_int_equal(readers[0].calls, 1 + count);
        assert_string_equal(readers[0].note, count == 1 ? BOOKING " confirmed" : "");
        /* who comes now is told the counters of that position, and of no booking */
        join(&readers[1], false);
        assert_int_equal(readers[1].calls, 1);
        assert_string_equal(readers[1].note, "");
        live_topic_done(&topic);
    }
}

static void rubbish_on_the_channel_is_survived(void **state)
{
    static const char *const texts[] = {"", "\n\n", "hello", "alpha.3 100-1 101-1 1 1 0 0",
                                        "alpha.4 100-1 101-1 12 12 0 0 x:1"};
    (void)state;
    start(1);
    join(&readers[0], false);
    read_now();
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        assert_false(live_topic_message(&topic, texts[i], strlen(texts[i])));
    assert_int_equal(readers[0].calls, 1);
    live_topic_done(&topic);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_resume_gets_exactly_what_was_missed),
        cmocka_unit_test(what_cannot_be_resumed_is_a_resync),
        cmocka_unit_test(a_trimmed_history_is_a_resync),
        cmocka_unit_test(a_redis_that_forgot_is_a_resync),
        cmocka_unit_test(a_deleted_event_is_told_to_all),
        cmocka_unit_test(a_note_belongs_to_the_line_behind_it),
        cmocka_unit_test(a_reading_brings_notes_too),
        cmocka_unit_test(rubbish_on_the_channel_is_survived),
        cmocka_unit_test(nobody_misses_anything),
        cmocka_unit_test(without_faults_nobody_has_to_look_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
