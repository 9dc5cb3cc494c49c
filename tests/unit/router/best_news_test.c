/*
 * Goal: what one worker's lanes say of seats the others hear, whole, in order, once; what comes too
 * late is lost and nothing else is. Method: notes by hand between two ears; runs of seats; a log
 * that overtakes its reader; and threads that speak as fast as they can while others listen, each
 * note's fields derived from its number, so that a torn one shows.
 *
 * SPDX-License-Identifier: MIT
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/clock.h"
#include "router/best_news.h"

#define SPOKEN 200000

static void say_one(struct best_news *news, unsigned worker, int64_t event_id, bool of_change)
{
    const struct best_note about = {.shard = best_news_shard("alpha"),
                                    .event_id = event_id,
                                    .of_change = of_change,
                                    .end = BESTVIEW_FREE};
    best_news_say(news, worker, &about, &(struct seat){3, 4}, 1);
}

static size_t hear_all(struct best_ear *ear, struct best_note *notes, size_t size)
{
    size_t count = 0;
    while (count < size && best_news_hear(ear, &notes[count]))
        count++;
    return count;
}

/* --- what is heard ---------------------------------------------------------------------------- */

static void test_others_hear_a_note_once_as_it_was_said(void **state)
{
    struct best_news *news = best_news_new(3);
    struct best_ear *ears[3];
    struct best_note note;
    (void)state;
    for (unsigned i = 0; i < 3; i++)
        ears[i] = best_ear_new(news, i);
    const struct best_note about = {.shard = best_news_shard("beta"),
                                    .event_id = INT64_MAX - 5,
                                    .end = BESTVIEW_HELD,
                                    .until_us = INT64_C(1) << 60};
    best_news_say(news, 1, &about, &(struct seat){INT32_MAX, 1}, 1);
    assert_false(best_news_hear(ears[1], &note)); /* its own */
    for (unsigned i = 0; i < 3; i += 2) {
        assert_true(best_news_hear(ears[i], &note));
        assert_int_equal(note.shard, best_news_shard("beta"));
        assert_true(note.event_id == INT64_MAX - 5 && note.until_us == INT64_C(1) << 60);
        assert_int_equal(note.first.row, INT32_MAX);
        assert_int_equal(note.first.col, 1);
        assert_int_equal(note.count, 1);
        assert_int_equal(note.end, BESTVIEW_HELD);
        assert_false(note.of_change);
        assert_false(best_news_hear(ears[i], &note));
    }
    assert_int_not_equal(best_news_shard("alpha"), best_news_shard("beta"));
    for (unsigned i = 0; i < 3; i++)
        best_ear_free(ears[i]);
    best_news_free(news);
}

static void test_changes_are_heard_on_their_own_worker_too(void **state)
{
    struct best_news *news = best_news_new(1);
    struct best_ear *ear = best_ear_new(news, 0);
    struct best_note notes[4];
    (void)state;
    say_one(news, 0, 1, false);
    say_one(news, 0, 2, true);
    say_one(news, 0, 3, false);
    assert_int_equal(hear_all(ear, notes, 4), 1);
    assert_int_equal(notes[0].event_id, 2);
    best_ear_free(ear);
    best_news_free(news);
}

static void test_an_ear_hears_from_its_beginning_on(void **state)
{
    struct best_news *news = best_news_new(2);
    struct best_note note;
    (void)state;
    say_one(news, 0, 1, false);
    struct best_ear *ear = best_ear_new(news, 1);
    assert_false(best_news_hear(ear, &note));
    say_one(news, 0, 2, false);
    assert_true(best_news_hear(ear, &note));
    assert_int_equal(note.event_id, 2);
    best_ear_free(ear);
    best_news_free(news);
}

/* What one worker says because it has heard of what another said is heard behind that, by all. */
static void test_a_cause_is_heard_before_its_effect(void **state)
{
    struct best_news *news = best_news_new(4);
    struct best_ear *ears[4];
    struct best_note note;
    (void)state;
    for (unsigned i = 0; i < 4; i++)
        ears[i] = best_ear_new(news, i);
    for (int64_t i = 0; i < 200; i++) {
        say_one(news, (unsigned)(i * i + i / 3) % 4, i, true);
        int64_t now_us = clock_mono_us();
        while (clock_mono_us() <= now_us) /* the way to a buyer and back */
            ;
    }
    for (unsigned i = 0; i < 4; i++) {
        for (int64_t next = 0; next < 200; next++) {
            assert_true(best_news_hear(ears[i], &note));
            assert_true(note.event_id == next);
        }
        assert_false(best_news_hear(ears[i], &note));
        best_ear_free(ears[i]);
    }
    best_news_free(news);
}

/* Seats side by side are one note, whatever comes between is not in it. */
static void test_runs_of_seats(void **state)
{
    static const struct seat seats[] = {{1, 5}, {1, 6}, {1, 7}, {2, 8}, {2, 7}, {3, 7}, {3, 8}};
    static const struct best_note runs[] = {{.first = {1, 5}, .count = 3},
                                            {.first = {2, 8}, .count = 1},
                                            {.first = {2, 7}, .count = 1},
                                            {.first = {3, 7}, .count = 2}};
    struct best_news *news = best_news_new(2);
    struct best_ear *ear = best_ear_new(news, 0);
    struct best_note notes[8];
    (void)state;
    const struct best_note about = {.event_id = 1, .end = BESTVIEW_TAKEN};
    best_news_say(news, 1, &about, seats, 7);
    best_news_say(news, 1, &about, seats, 0);
    assert_int_equal(hear_all(ear, notes, 8), 4);
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(notes[i].first.row, runs[i].first.row);
        assert_int_equal(notes[i].first.col, runs[i].first.col);
        assert_int_equal(notes[i].count, runs[i].count);
        assert_int_equal(notes[i].end, BESTVIEW_TAKEN);
    }
    best_ear_free(ear);
    best_news_free(news);
}

static void test_what_was_overwritten_is_lost_and_the_rest_in_order(void **state)
{
    struct best_news *news = best_news_new(2);
    struct best_ear *ear = best_ear_new(news, 0);
    struct best_note note;
    (void)state;
    for (int64_t i = 0; i < BEST_NEWS_NOTES; i++) /* exactly full: nothing is lost */
        say_one(news, 1, i, false);
    for (int64_t i = 0; i < BEST_NEWS_NOTES; i++) {
        assert_true(best_news_hear(ear, &note));
        assert_true(note.event_id == i);
    }
    assert_false(best_news_hear(ear, &note));
    const int64_t said = 3 * BEST_NEWS_NOTES + 7;
    for (int64_t i = 0; i < said; i++)
        say_one(news, 1, i, false);
    assert_true(best_news_hear(ear, &note));
    int64_t next = note.event_id + 1;
    assert_true(next > said - BEST_NEWS_NOTES);
    while (best_news_hear(ear, &note))
        assert_true(note.event_id == next++);
    assert_true(next == said);
    best_ear_free(ear);
    best_news_free(news);
}

/* --- threads ---------------------------------------------------------------------------------- */

struct talk {
    struct best_news *news;
    unsigned worker;
    struct best_ear *ear; /* of a listener, made before anybody speaks */
    size_t heard;
    bool torn;
    bool disordered;
};

static void *speak(void *arg)
{
    struct talk *talk = arg;
    for (int32_t i = 1; i <= SPOKEN; i++) {
        const struct best_note about = {.shard = (uint32_t)i * 3,
                                        .event_id = i,
                                        .end = (enum bestview_end)(i % 4),
                                        .until_us = (int64_t)i * 7};
        best_news_say(talk->news, talk->worker, &about, &(struct seat){i, i * 2}, 1);
    }
    return NULL;
}

static void *listen_to_all(void *arg)
{
    struct talk *talk = arg;
    struct best_note note;
    int64_t last = 0;
    while (last < SPOKEN) {
        if (!best_news_hear(talk->ear, &note))
            continue;
        int32_t i = (int32_t)note.event_id;
        talk->torn |= note.shard != (uint32_t)i * 3 || note.end != (enum bestview_end)(i % 4) ||
                      note.until_us != (int64_t)i * 7 || note.first.row != i ||
                      note.first.col != i * 2 || note.count != 1;
        talk->disordered |= note.event_id <= last;
        last = note.event_id;
        talk->heard++;
    }
    return NULL;
}

static void test_threads_never_hear_half_a_note(void **state)
{
    struct best_news *news = best_news_new(3);
    struct talk talks[] = {
        {.news = news, .worker = 0}, {.news = news, .worker = 1}, {.news = news, .worker = 2}};
    pthread_t threads[3];
    (void)state;
    for (size_t i = 0; i < 3; i++)
        talks[i].ear = best_ear_new(news, (unsigned)i);
    /* Workers 0 and 2 listen to 1; a listener ends with the last note, which nothing overwrites. */
    assert_int_equal(pthread_create(&threads[0], NULL, listen_to_all, &talks[0]), 0);
    assert_int_equal(pthread_create(&threads[2], NULL, listen_to_all, &talks[2]), 0);
    assert_int_equal(pthread_create(&threads[1], NULL, speak, &talks[1]), 0);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        best_ear_free(talks[i].ear);
    }
    for (size_t i = 0; i < 3; i += 2) {
        assert_false(talks[i].torn);
        assert_false(talks[i].disordered);
        assert_true(talks[i].heard > 0 && talks[i].heard <= SPOKEN);
    }
    best_news_free(news);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_others_hear_a_note_once_as_it_was_said),
        cmocka_unit_test(test_changes_are_heard_on_their_own_worker_too),
        cmocka_unit_test(test_an_ear_hears_from_its_beginning_on),
        cmocka_unit_test(test_a_cause_is_heard_before_its_effect),
        cmocka_unit_test(test_runs_of_seats),
        cmocka_unit_test(test_what_was_overwritten_is_lost_and_the_rest_in_order),
        cmocka_unit_test(test_threads_never_hear_half_a_note),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
