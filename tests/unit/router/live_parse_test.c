/*
 * Goal: a line of changes means exactly what base/rediskeys.h says, and nothing else is taken for
 * one; an id comes back as it went out.
 * Method: tables of good and bad texts.
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

#include "router/live_parse.h"

#define HEAD "alpha.7 91234-1 91300-2 "

static struct live_seats seats;

static bool parse(const char *text, struct live_line *ret_line)
{
    /* of exactly its size, so that the sanitizer sees a read beyond it */
    size_t len = strlen(text);
    char *copy = malloc(len ? len : 1);
    memcpy(copy, text, len);
    bool fine = live_line_parse(copy, len, ret_line);
    if (fine && ret_line->kind == LIVE_SEATS)
        fine = live_seats_parse(ret_line, 10, ret_line->counts.total, &seats);
    free(copy);
    return fine;
}

static void a_line_is_taken_apart(void **state)
{
    struct live_line line;
    (void)state;
    assert_true(parse(HEAD "100 97 1 2 x:4,5;.:99,100;h:0", &line));
    assert_string_equal(line.shard, "alpha");
    assert_int_equal(line.generation, 7);
    assert_int_equal(line.previous.lsn, 91234);
    assert_int_equal(line.previous.place, 1);
    assert_int_equal(line.id.lsn, 91300);
    assert_int_equal(line.id.place, 2);
    assert_int_equal(line.counts.total, 100);
    assert_int_equal(line.counts.available, 97);
    assert_int_equal(line.counts.held, 1);
    assert_int_equal(line.counts.booked, 2);
    assert_int_equal(line.kind, LIVE_SEATS);
    assert_int_equal(seats.count, 4); /* 100 is outside of the grid */
    assert_memory_equal(seats.states, "xx.h", 4);
    assert_int_equal(seats.seats[0].row, 1);
    assert_int_equal(seats.seats[0].col, 5);
    assert_int_equal(seats.seats[2].row, 10);
    assert_int_equal(seats.seats[2].col, 10);
    assert_int_equal(seats.seats[3].row, 1);
    assert_int_equal(seats.seats[3].col, 1);
}

static void words_and_odd_names(void **state)
{
    struct live_line line;
    (void)state;
    assert_true(parse(HEAD "100 97 1 2 -", &line));
    assert_int_equal(line.kind, LIVE_NONE);
    assert_true(parse(HEAD "100 97 1 2 resync", &line));
    assert_int_equal(line.kind, LIVE_RESYNC);
    assert_true(parse(HEAD "0 0 0 0 gone", &line));
    assert_int_equal(line.kind, LIVE_GONE);
    assert_true(parse("eu-1.a_b.12 0-0 18446744073709551615-4294967295 1 1 0 0 -", &line));
    assert_string_equal(line.shard, "eu-1.a_b");
    assert_int_equal(line.generation, 12);
    assert_true(line.id.lsn == UINT64_MAX && line.id.place == UINT32_MAX);
    /* drift is for others to find */
    assert_true(parse(HEAD "10 -1 0 11 -", &line));
    assert_int_equal(line.counts.available, -1);
    assert_true(parse("a.1 5-1 5-1 1 1 0 0 resync", &line));
}

static void what_is_no_line_is_refused(void **state)
{
    static const char *const texts[] = {
        "",
        " ",
        "alpha",
        "alpha.7",
        HEAD,
        HEAD "100 97 1 2",
        HEAD "100 97 1 2 ",
        HEAD "100 97 1 x:4",
        HEAD "100  97 1 2 -",
        " " HEAD "100 97 1 2 -",
        HEAD "100 97 1 2 - ",
        HEAD "100 97 1 2 resyncs",
        HEAD "100 97 1 2 x",
        HEAD "100 97 1 2 x:",
        HEAD "100 97 1 2 x:4,",
        HEAD "100 97 1 2 x:4;",
        HEAD "100 97 1 2 ;x:4",
        HEAD "100 97 1 2 x:,4",
        HEAD "100 97 1 2 y:4",
        HEAD "100 97 1 2 x:-4",
        HEAD "100 97 1 2 x:+4",
        HEAD "100 97 1 2 x:04",
        HEAD "100 97 1 2 x:4 ",
        HEAD "100 97 1 2 x:4\n",
        HEAD "100 97 1 2 x:99999999999999999999",
        HEAD "100 97 1 9223372036854775808 -",
        HEAD "1e2 97 1 2 -",
        HEAD "--1 97 1 2 -",
        "alpha.7 91300-2 91234-1 100 97 1 2 -",
        "alpha.7 91234 91300-2 100 97 1 2 -",
        "alpha.7 91234-1-1 91300-2 100 97 1 2 -",
        "alpha.7 091234-1 91300-2 100 97 1 2 -",
        "alpha.7 18446744073709551616-1 91300-2 100 97 1 2 -",
        "alpha.7 91234-4294967296 91300-2 100 97 1 2 -",
        "alpha.x 91234-1 91300-2 100 97 1 2 -",
        "alpha. 91234-1 91300-2 100 97 1 2 -",
        ".7 91234-1 91300-2 100 97 1 2 -",
        "alpha7 91234-1 91300-2 100 97 1 2 -",
        "Alpha.7 91234-1 91300-2 100 97 1 2 -",
        "al}pha.7 91234-1 91300-2 100 97 1 2 -",
        "b 01973c6e-25a1-7c7c-8f00-0123456789ab confirmed", /* a note is no line */
        "a2345678901234567890123456789012345678901234567890123456789012345.7 1-1 2-1 1 1 0 0 -",
    };
    (void)state;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        struct live_line line = {.generation = -5};
        if (parse(texts[i], &line))
            fail_msg("\"%s\" was taken for a line", texts[i]);
    }
}

static void too_many_seats_are_refused(void **state)
{
    struct live_line line;
    char *text = malloc(100 + 6 * (LIVE_SEATS_MAX + 1));
    size_t len = (size_t)sprintf(text, HEAD "100000 97 1 2 x:0");
    (void)state;
    for (int i = 1; i < LIVE_SEATS_MAX; i++)
        len += (size_t)sprintf(text + len, ",%d", i);
    assert_true(parse(text, &line));
    assert_int_equal(seats.count, LIVE_SEATS_MAX);
    sprintf(text + len, ",7");
    assert_false(parse(text, &line));
    free(text);
    assert_true(live_line_parse(HEAD "10 8 1 1 x:1", sizeof(HEAD "10 8 1 1 x:1") - 1, &line));
    assert_false(live_seats_parse(&line, 0, 10, &seats));
}

static void notes_are_taken_apart(void **state)
{
    static const char booking[] = "01973c6e-25a1-7c7c-8f00-0123456789ab";
    static const char *const statuses[] = {"held", "confirmed", "cancelled", "expired", "failed"};
    static const char *const bad[] = {
        "",
        " ",
        "held",
        "01973c6e-25a1-7c7c-8f00-0123456789ab",
        "01973c6e-25a1-7c7c-8f00-0123456789ab ",
        "01973c6e-25a1-7c7c-8f00-0123456789ab  held",
        "01973c6e-25a1-7c7c-8f00-0123456789ab held ",
        "01973c6e-25a1-7c7c-8f00-0123456789ab hel",
        "01973c6e-25a1-7c7c-8f00-0123456789ab heldd",
        "01973c6e-25a1-7c7c-8f00-0123456789ab HELD",
        "01973c6e-25a1-7c7c-8f00-0123456789a held",
        "01973c6e-25a1-7c7c-8f00-0123456789abc held",
        "01973c6e-25a1-7c7c-8f00-0123456789ax held",
        "01973c6e 25a1-7c7c-8f00-0123456789ab held",
    };
    (void)state;
    for (size_t i = 0; i < sizeof(statuses) / sizeof(statuses[0]); i++) {
        struct live_note note;
        char text[80], back[UUID_TEXT_LEN + 1];
        size_t len = (size_t)snprintf(text, sizeof(text), "%s %s", booking, statuses[i]);
        assert_true(live_note_parse(text, len, &note));
        assert_string_equal(note.status, statuses[i]);
        uuid_format(&note.booking_id, back);
        assert_string_equal(back, booking);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct live_note note = {.status = "untouched"};
        size_t len = strlen(bad[i]);
        char *copy = malloc(len ? len : 1); /* the sanitizer sees a read beyond it */
        memcpy(copy, bad[i], len);
        if (live_note_parse(copy, len, &note))
            fail_msg("\"%s\" was taken for a note", bad[i]);
        assert_string_equal(note.status, "untouched");
        free(copy);
    }
}

static void ids_come_back(void **state)
{
    static const char *const good[] = {"alpha.7-91300-2", "a-b.c.0-0-0",
                                       "x.9223372036854775807-18446744073709551615-4294967295"};
    static const char *const bad[] = {"",
                                      "alpha",
                                      "alpha.7",
                                      "alpha.7-1",
                                      "alpha-7-1-1",
                                      ".7-1-1",
                                      "alpha.-7-1-1",
                                      "alpha.7-1-1 ",
                                      "alpha.7-1-",
                                      "alpha.7--1",
                                      "alpha.07-1-1",
                                      "alpha.7-1-4294967296",
                                      "ALPHA.7-1-1",
                                      "alpha.7-1-1\n"};
    (void)state;
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        struct live_id id;
        char text[ROUTER_LIVE_ID_MAX + 1];
        assert_true(live_id_parse(good[i], &id));
        live_id_format(&id, text);
        assert_string_equal(text, good[i]);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct live_id id;
        if (live_id_parse(bad[i], &id))
            fail_msg("\"%s\" was taken for an id", bad[i]);
    }
    char long_text[400];
    memset(long_text, 'a', sizeof(long_text));
    strcpy(long_text + 380, ".7-1-1");
    struct live_id id;
    assert_false(live_id_parse(long_text, &id));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_line_is_taken_apart),      cmocka_unit_test(words_and_odd_names),
        cmocka_unit_test(what_is_no_line_is_refused), cmocka_unit_test(too_many_seats_are_refused),
        cmocka_unit_test(notes_are_taken_apart),      cmocka_unit_test(ids_come_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
