/*
 * Goal: the record of a drill keeps what it was given, says what became of a booking as history.h
 * has it, and refuses what does not fit instead of forgetting it.
 * Method: tables of attempts and outcomes; a tiny bound; keys there and back; the JSON lines read
 * again.
 *
 * SPDX-License-Identifier: MIT
 */
#include "tests/unit/drill/story.h"

#include <stdio.h>

#include <jansson.h>

static void test_outcomes(void **state)
{
    enum { NO, OK, TAKEN, SICK, BUSY, CLOSED, UNREACHED, LATE, PENDING, ODD, TOO_MANY };
    static const struct {
        const char *what;
        int attempts[4]; /* up to NO */
        enum history_outcome outcome;
    } rows[] = {
        {"never sent", {NO}, HISTORY_UNSENT},
        {"booked", {OK}, HISTORY_BOOKED},
        {"refused", {TAKEN}, HISTORY_REFUSED},
        {"failed", {BUSY}, HISTORY_FAILED},
        {"too many requests is no answer", {TOO_MANY}, HISTORY_FAILED},
        {"reached nobody", {UNREACHED}, HISTORY_FAILED},
        {"an internal error promises nothing", {SICK}, HISTORY_AMBIGUOUS},
        {"an unknown status neither", {ODD}, HISTORY_AMBIGUOUS},
        {"closed", {CLOSED}, HISTORY_AMBIGUOUS},
        {"late", {LATE}, HISTORY_AMBIGUOUS},
        {"pending", {PENDING}, HISTORY_AMBIGUOUS},
        {"a failure after it settles nothing", {CLOSED, BUSY}, HISTORY_AMBIGUOUS},
        {"a refusal after it settles it", {CLOSED, BUSY, TAKEN}, HISTORY_REFUSED},
        {"a 201 settles all", {CLOSED, OK, BUSY}, HISTORY_BOOKED},
        {"ambiguous again after a refusal", {TAKEN, CLOSED}, HISTORY_AMBIGUOUS},
        {"refused after a failure", {BUSY, TAKEN}, HISTORY_REFUSED},
        {"a failure after a refusal", {TAKEN, BUSY}, HISTORY_REFUSED},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct story story;
        story_new(&story);
        uint32_t booking = story_wish(&story, 0, 0, 0, 1);
        for (size_t k = 0; k < 4 && rows[i].attempts[k] != NO; k++) {
            int what = rows[i].attempts[k];
            if (what == OK)
                story_booked(&story, booking, 1, 2);
            else if (what == TAKEN)
                story_refused(&story, booking, 1, 2, 0, 1);
            else if (what == SICK)
                story_failed(&story, booking, 1, 2, SG_INTERNAL);
            else if (what == BUSY)
                story_failed(&story, booking, 1, 2, SG_OVERLOADED);
            else if (what == ODD)
                story_attempt(&story, booking, 1, 2, HISTORY_ANSWERED)->status = 299;
            else if (what == TOO_MANY)
                story_attempt(&story, booking, 1, 2, HISTORY_ANSWERED)->status = 429;
            else
                story_attempt(&story, booking, 1, 2,
                              what == CLOSED      ? HISTORY_CLOSED
                              : what == UNREACHED ? HISTORY_UNREACHED
                              : what == LATE      ? HISTORY_TIMED_OUT
                                                  : HISTORY_PENDING);
        }
        if (history_outcome(story.history, booking) != rows[i].outcome)
            fail_msg("%s: %s", rows[i].what,
                     history_outcome_name(history_outcome(story.history, booking)));
        story_free(&story);
    }
}

static void test_only_promises_of_nothing_are_not_ambiguous(void **state)
{
    static const enum sg_error safe[] = {SG_OVERLOADED, SG_SHARD_UNAVAILABLE, SG_DEADLINE,
                                         SG_FENCED,     SG_STALE_EPOCH,       SG_NOT_SYNCHRONOUS};
    (void)state;
    for (int error = 0; error < SG_ERROR_COUNT; error++) {
        struct history_attempt attempt = {.end = HISTORY_ANSWERED, .error = (uint8_t)error};
        attempt.status = (uint16_t)sg_error_http_status((enum sg_error)error);
        bool expected = attempt.status >= 500;
        for (size_t i = 0; i < sizeof(safe) / sizeof(safe[0]); i++)
            expected = expected && error != (int)safe[i];
        if (error != SG_OK && history_is_ambiguous(&attempt) != expected)
            fail_msg("%s", sg_error_code((enum sg_error)error));
    }
}

static void test_keys_name_bookings_of_this_history_only(void **state)
{
    struct story story;
    char key[HISTORY_KEY_SIZE];
    (void)state;
    story_new(&story);
    story_wish(&story, 0, 0, 0, 1);
    uint32_t second = story_wish(&story, 0, 0, 1, 1);
    history_key(story.history, second, key);
    assert_string_equal(key, "drill-000000000000feed-1");
    assert_int_equal(history_key_booking(story.history, key), second);
    static const char *const others[] = {
        "",
        "drill-",
        "drill-000000000000feed-",
        "drill-000000000000feed-2",
        "drill-000000000000feed-01",
        "drill-000000000000feed-1x",
        "drill-000000000000feee-1",
        "drill-000000000000feed--1",
        "x-1",
        "drill-000000000000feed-99999999999999999999999",
    };
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
        assert_int_equal(history_key_booking(story.history, others[i]), HISTORY_NONE);
    story_free(&story);
}

static void test_errors_and_names(void **state)
{
    struct story story;
    (void)state;
    story_new(&story);
    assert_int_equal(history_error("seats_taken", 11), SG_SEATS_TAKEN);
    assert_int_equal(history_error("seats_take", 10), HISTORY_ERROR_OTHER);
    assert_int_equal(history_error("", 0), HISTORY_ERROR_OTHER);
    assert_string_equal(history_error_name(HISTORY_ERROR_OTHER), "other");
    assert_string_equal(history_error_name(SG_FENCED), "shard_fenced");
    assert_int_equal(history_name(story.history, "", 0), 0);
    assert_int_equal(history_name(story.history, "alpha", 5), 1);
    assert_int_equal(history_name(story.history, "alpha-1", 7), 2);
    assert_int_equal(history_name(story.history, "alpha-1", 7), 2);
    for (int i = 0; i < 2 * HISTORY_NAMES_MAX; i++) {
        char name[16];
        int len = snprintf(name, sizeof(name), "n%d", i);
        history_name(story.history, name, (size_t)len);
    }
    assert_int_equal(story.history->name_count, HISTORY_NAMES_MAX);
    assert_int_equal(history_name(story.history, "one-too-many", 12), 0);
    story_free(&story);
}

static void test_beyond_its_bound_it_refuses_and_says_so(void **state)
{
    struct history *history = history_new(400000, 1);
    struct history_event event = {.id = 1, .rows = 8, .cols = 8, .shard = 0, .watched = true};
    int32_t seat = 3;
    uint32_t booking;
    size_t made = 0;
    (void)state;
    assert_int_equal(history_add_event(history, &event), 0);
    while ((booking = history_add_booking(history, 0, 0, 1, &seat, 1)) != HISTORY_NONE) {
        assert_int_equal(booking, made++);
        assert_true(history->bytes <= history->max_bytes);
    }
    assert_true(made > 1000);
    assert_int_equal(history->refused, 1);
    assert_int_equal(history->booking_count, made);
    assert_int_equal(history->seats[history->bookings[made - 1].seats_at], 3);
    while (history_add_attempt(history, 0, 0, 1) != HISTORY_NONE)
        assert_true(history->bytes <= history->max_bytes);
    assert_int_equal(history->refused, 2);
    history_free(history);
    history_free(NULL);
}

static void test_attempts_of_interleaved_bookings_keep_their_order(void **state)
{
    struct story story;
    (void)state;
    story_new(&story);
    uint32_t first = story_wish(&story, 0, 0, 0, 1), second = story_wish(&story, 0, 0, 1, 1);
    story_attempt(&story, first, 10, 20, HISTORY_CLOSED);
    story_attempt(&story, second, 11, 21, HISTORY_CLOSED);
    story_booked(&story, first, 30, 40);
    story_booked(&story, second, 31, 41);
    assert_int_equal(story.history->bookings[first].attempt_count, 2);
    assert_int_equal(history_acknowledged(story.history, first)->answered_us, 40);
    assert_int_equal(history_acknowledged(story.history, second)->answered_us, 41);
    story_free(&story);
}

static void test_every_line_is_json(void **state)
{
    struct story story;
    char *text = NULL;
    size_t len = 0, lines = 0;
    (void)state;
    story_new(&story);
    uint32_t booking = story_sale(&story, 0, 1000, 2000, 0, 2);
    story.history->attempts[0].token = (struct history_token){0xABC, 2};
    story.history->attempts[0].shard = history_name(story.history, "alpha", 5);
    story.history->attempts[0].node = history_name(story.history, "no\"name", 7);
    story_failed(&story, booking, 3000, 4000, SG_OUTCOME_UNKNOWN);
    story_refused(&story, story_wish(&story, 0, 0, 1, 2), 1000, 2000, 1, 1);
    story_wish(&story, 0, 0, 5, 1);
    story_read(&story, 0, 1000, 2000, 0, 2)->bound_ms = 250;
    story_read(&story, 0, 1000, 2000, 0, 2)->seen_at = HISTORY_NONE;
    FILE *file = open_memstream(&text, &len);
    assert_true(history_write(story.history, file));
    fclose(file);
    for (char *rest = text, *line; (line = strsep(&rest, "\n")) && *line; lines++) {
        json_error_t error;
        json_t *object = json_loads(line, JSON_REJECT_DUPLICATES, &error);
        if (!object)
            fail_msg("%s: %s", error.text, line);
        if (json_object_get(object, "booking") &&
            json_integer_value(json_object_get(object, "booking")) == 0) {
            const json_t *attempts = json_object_get(object, "attempts");
            const json_t *attempt = json_array_get(attempts, 0);
            assert_int_equal(json_array_size(attempts), 2);
            assert_int_equal(json_array_size(json_object_get(object, "seats")), 2);
            assert_string_equal(json_string_value(json_object_get(attempt, "token")), "2.ABC");
            assert_string_equal(json_string_value(json_object_get(attempt, "shard")), "alpha");
            assert_null(json_object_get(attempt, "node"));
        }
        json_decref(object);
    }
    assert_int_equal(lines, 1 + 3 + 2);
    free(text);
    story_free(&story);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_outcomes),
        cmocka_unit_test(test_only_promises_of_nothing_are_not_ambiguous),
        cmocka_unit_test(test_keys_name_bookings_of_this_history_only),
        cmocka_unit_test(test_errors_and_names),
        cmocka_unit_test(test_beyond_its_bound_it_refuses_and_says_so),
        cmocka_unit_test(test_attempts_of_interleaved_bookings_keep_their_order),
        cmocka_unit_test(test_every_line_is_json),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
