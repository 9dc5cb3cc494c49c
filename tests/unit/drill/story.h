/*
 * Histories and truths made by hand, for the tests of the verdict.
 *
 *   story_new ─> story_book, story_read ... ─> story_judge ─> story->verdict
 *
 * One shard, "alpha", and one watched event of 8 x 8 seats (index 0), more with story_event.
 * Whatever fails to be made fails the test.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_TESTS_DRILL_STORY_H
#define SG_TESTS_DRILL_STORY_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "drill/history.h"
#include "drill/truth.h"
#include "drill/verdict.h"

#define STORY_SIDE 8
#define STORY_SEATS (STORY_SIDE * STORY_SIDE)

struct story {
    struct history *history;
    struct truth *truth;
    struct verdict verdict;
};

static inline uint32_t story_event(struct story *story, const char *shard, bool watched)
{
    struct history_event event = {
        .id = 100 + (int64_t)story->history->event_count,
        .rows = STORY_SIDE,
        .cols = STORY_SIDE,
        .shard = history_name(story->history, shard, strlen(shard)),
        .watched = watched,
    };
    uint32_t index = history_add_event(story->history, &event);
    assert_int_not_equal(index, HISTORY_NONE);
    return index;
}

static inline void story_new(struct story *story)
{
    memset(story, 0, sizeof(*story));
    story->history = history_new(64 << 20, 0xfeed);
    story->truth = truth_new();
    assert_non_null(story->history);
    assert_non_null(story->truth);
    story_event(story, "alpha", true);
}

static inline void story_free(struct story *story)
{
    history_free(story->history);
    truth_free(story->truth);
}

static inline struct uuid story_id(uint32_t number)
{
    struct uuid id = {{0}};
    memcpy(id.bytes, &number, sizeof(number));
    return id;
}

/* A wish for `count` seats from `first` on. */
static inline uint32_t story_wish(struct story *story, uint32_t event, int64_t due_us,
                                  int32_t first, int32_t count)
{
    int32_t seats[STORY_SEATS];
    for (int32_t i = 0; i < count; i++)
        seats[i] = first + i;
    uint32_t booking = history_add_booking(story->history, due_us, event, 1, seats, (size_t)count);
    assert_int_not_equal(booking, HISTORY_NONE);
    return booking;
}

static inline struct history_attempt *story_attempt(struct story *story, uint32_t booking,
                                                    int64_t sent_us, int64_t answered_us,
                                                    enum history_end end)
{
    uint32_t index = history_add_attempt(story->history, booking, sent_us, 1);
    assert_int_not_equal(index, HISTORY_NONE);
    struct history_attempt *attempt = &story->history->attempts[index];
    attempt->end = (uint8_t)end;
    attempt->answered_us = answered_us;
    return attempt;
}

/* Answered 201 under the id that belongs to the booking. */
static inline struct history_attempt *story_booked(struct story *story, uint32_t booking,
                                                   int64_t sent_us, int64_t answered_us)
{
    struct history_attempt *attempt =
        story_attempt(story, booking, sent_us, answered_us, HISTORY_ANSWERED);
    attempt->status = 201;
    attempt->error = SG_OK;
    attempt->durability = HISTORY_SYNC;
    attempt->booking_id = story_id(booking);
    return attempt;
}

/* Answered 409 naming `count` seats from `first` on. */
static inline struct history_attempt *story_refused(struct story *story, uint32_t booking,
                                                    int64_t sent_us, int64_t answered_us,
                                                    int32_t first, int32_t count)
{
    int32_t seats[STORY_SEATS];
    struct history_attempt *attempt =
        story_attempt(story, booking, sent_us, answered_us, HISTORY_ANSWERED);
    attempt->status = 409;
    attempt->error = SG_SEATS_TAKEN;
    for (int32_t i = 0; i < count; i++)
        seats[i] = first + i;
    assert_true(history_set_conflicts(
        story->history, (uint32_t)(attempt - story->history->attempts), seats, (size_t)count));
    return attempt;
}

static inline struct history_attempt *story_failed(struct story *story, uint32_t booking,
                                                   int64_t sent_us, int64_t answered_us,
                                                   enum sg_error error)
{
    struct history_attempt *attempt =
        story_attempt(story, booking, sent_us, answered_us, HISTORY_ANSWERED);
    attempt->status = (uint16_t)sg_error_http_status(error);
    attempt->error = (uint8_t)error;
    return attempt;
}

static inline void story_claim(struct story *story, uint32_t event, int32_t seat_no, uint32_t id)
{
    struct truth_claim claim = {
        .event = event, .seat_no = seat_no, .booking_id = story_id(id), .booked = true};
    assert_true(truth_add_claim(story->truth, &claim));
}

/* A confirmed row of that key and id, without claims. */
static inline void story_row(struct story *story, uint32_t event, const char *key, uint32_t id,
                             const int32_t *seats, size_t count)
{
    struct truth_booking row = {.event = event, .booking_id = story_id(id)};
    snprintf(row.status, sizeof(row.status), "confirmed");
    snprintf(row.key, sizeof(row.key), "%s", key);
    assert_true(truth_add_booking(story->truth, &row, seats, count));
}

/* The row of a booking, with these seats, without claims. */
static inline void story_row_of(struct story *story, uint32_t index, const int32_t *seats,
                                size_t count)
{
    char key[HISTORY_KEY_SIZE];
    history_key(story->history, index, key);
    story_row(story, story->history->bookings[index].event, key, index, seats, count);
}

/* The database has the booking, as it was asked for, and its claims. */
static inline void story_there(struct story *story, uint32_t index)
{
    const struct history_booking *booking = &story->history->bookings[index];
    const int32_t *seats = story->history->seats + booking->seats_at;
    story_row_of(story, index, seats, booking->seat_count);
    for (size_t i = 0; i < booking->seat_count; i++)
        story_claim(story, booking->event, seats[i], index);
}

/* A booking that went as it should: wished, acknowledged, there. */
static inline uint32_t story_sale(struct story *story, uint32_t event, int64_t sent_us,
                                  int64_t answered_us, int32_t first, int32_t count)
{
    uint32_t booking = story_wish(story, event, sent_us, first, count);
    story_booked(story, booking, sent_us, answered_us);
    story_there(story, booking);
    return booking;
}

/* A read that shows `count` seats from `first` on as booked. bound_ms and staleness_ms are -1. */
static inline struct history_read *story_read(struct story *story, uint32_t event, int64_t sent_us,
                                              int64_t answered_us, int32_t first, int32_t count)
{
    struct history_read read = {
        .due_us = sent_us, .sent_us = sent_us, .event = event, .bound_ms = -1, .staleness_ms = -1};
    uint32_t index = history_add_read(story->history, &read);
    assert_int_not_equal(index, HISTORY_NONE);
    uint64_t *bitmap = history_set_seen(story->history, index);
    assert_non_null(bitmap);
    for (int32_t seat_no = first; seat_no < first + count; seat_no++)
        bitmap[seat_no / 64] |= UINT64_C(1) << (seat_no % 64);
    struct history_read *made = &story->history->reads[index];
    made->seen_booked = (uint32_t)count;
    made->end = HISTORY_ANSWERED;
    made->status = 200;
    made->answered_us = answered_us;
    return made;
}

static inline void story_judge(struct story *story)
{
    assert_int_equal(verdict_judge(story->history, story->truth, &story->verdict), SG_OK);
}

/* Exactly `count` breaches of that kind, and none of any other. */
static inline void story_expect(struct story *story, enum verdict_kind kind, uint64_t count)
{
    story_judge(story);
    for (int i = 0; i < VERDICT_KINDS; i++) {
        uint64_t expected = i == (int)kind ? count : 0;
        if (story->verdict.breaches[i] != expected)
            fail_msg("%s: %llu breaches instead of %llu; %s", verdict_name(i),
                     (unsigned long long)story->verdict.breaches[i], (unsigned long long)expected,
                     story->verdict.example_count ? story->verdict.examples[0].text : "");
    }
}

#define STORY_NOTHING VERDICT_KINDS /* for story_expect: no breach at all */

#endif
