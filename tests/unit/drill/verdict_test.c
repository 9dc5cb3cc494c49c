/*
 * Goal: each promise of a drill is judged exactly as verdict.h says, at its very edge: what breaks
 * it is counted once and nothing else is, and what only looks like it is let pass.
 * Method: small histories and truths made by hand, one a test.
 *
 * SPDX-License-Identifier: MIT
 */
#include "tests/unit/drill/story.h"

static int setup(void **state)
{
    struct story *story = malloc(sizeof(*story));
    story_new(story);
    *state = story;
    return 0;
}

static int teardown(void **state)
{
    story_free(*state);
    free(*state);
    return 0;
}

/* --- bookings --------------------------------------------------------------------------------- */

static void test_nothing_is_broken_in_a_good_story(void **state)
{
    struct story *story = *state;
    story_sale(story, 0, 1000, 2000, 0, 2);
    uint32_t second = story_wish(story, 0, 1500, 1, 2);
    story_refused(story, second, 1500, 2500, 1, 1);
    struct history_read *read = story_read(story, 0, 3000, 3100, 0, 2);
    read->bound_ms = 0;
    story_expect(story, STORY_NOTHING, 0);
    assert_int_equal(story->verdict.bookings, 2);
    assert_int_equal(story->verdict.outcomes[HISTORY_BOOKED], 1);
    assert_int_equal(story->verdict.outcomes[HISTORY_REFUSED], 1);
    assert_int_equal(story->verdict.reads_bound, 1);
}

static void test_an_empty_history_holds(void **state)
{
    struct story *story = *state;
    story_expect(story, STORY_NOTHING, 0);
}

static void test_an_acknowledged_booking_that_is_not_there_is_lost(void **state)
{
    struct story *story = *state;
    story_booked(story, story_wish(story, 0, 1000, 0, 2), 1000, 2000);
    story_expect(story, VERDICT_LOST, 1);
    assert_int_equal(story->verdict.example_count, 1);
    assert_non_null(strstr(story->verdict.examples[0].text, "drill-000000000000feed-0"));
}

static void test_a_loss_under_async_is_told_apart(void **state)
{
    struct story *story = *state;
    uint32_t booking = story_wish(story, 0, 1000, 0, 2);
    story_booked(story, booking, 1000, 2000)->durability = HISTORY_ASYNC;
    story_expect(story, VERDICT_LOST_ASYNC, 1);
    /* A second 201 that told sync makes it a promise. */
    story_booked(story, booking, 3000, 4000);
    story_expect(story, VERDICT_LOST, 1);
}

static void test_a_seat_sold_again_after_an_async_loss_is_not_sold_twice(void **state)
{
    struct story *story = *state;
    uint32_t booking = story_wish(story, 0, 1000, 0, 1);
    story_booked(story, booking, 1000, 2000)->durability = HISTORY_ASYNC;
    story_sale(story, 0, 5000, 6000, 0, 1);
    story_expect(story, VERDICT_LOST_ASYNC, 1);
}

/* Seats 0 and 1 are acknowledged; the tables have these two. */
static void sell_as(struct story *story, const int32_t seats[2])
{
    uint32_t booking = story_wish(story, 0, 1000, 0, 2);
    story_booked(story, booking, 1000, 2000);
    story_row_of(story, booking, seats, 2);
    story_claim(story, 0, seats[0], booking);
    story_claim(story, 0, seats[1], booking);
}

static void test_a_booking_there_with_other_seats_is_lost(void **state)
{
    sell_as(*state, (const int32_t[]){0, 2});
    story_expect(*state, VERDICT_LOST, 1);
}

static void test_the_order_of_seats_does_not_matter(void **state)
{
    sell_as(*state, (const int32_t[]){1, 0});
    story_expect(*state, STORY_NOTHING, 0);
}

static void test_a_seat_acknowledged_to_two_is_sold_twice(void **state)
{
    struct story *story = *state;
    story_sale(story, 0, 1000, 2000, 0, 2);
    uint32_t second = story_wish(story, 0, 1000, 1, 2);
    story_booked(story, second, 1000, 2000);
    story_judge(story);
    assert_int_equal(story->verdict.breaches[VERDICT_SOLD_TWICE], 1);
    assert_int_equal(story->verdict.breaches[VERDICT_LOST], 1);
}

static void test_a_seat_in_two_confirmed_bookings_is_sold_twice(void **state)
{
    struct story *story = *state;
    const int32_t seats[] = {0, 1};
    story_sale(story, 0, 1000, 2000, 0, 2);
    uint32_t second = story_wish(story, 0, 1000, 0, 2);
    story_attempt(story, second, 1000, 2000, HISTORY_CLOSED);
    story_row_of(story, second, seats, 2);
    story_expect(story, VERDICT_SOLD_TWICE, 2);
}

static void test_an_ambiguous_booking_may_be_there_or_not(void **state)
{
    struct story *story = *state;
    story_attempt(story, story_wish(story, 0, 1000, 0, 1), 1000, 2000, HISTORY_CLOSED);
    uint32_t done = story_wish(story, 0, 1000, 1, 1);
    story_failed(story, done, 1000, 2000, SG_OUTCOME_UNKNOWN);
    story_failed(story, done, 2000, 3000, SG_SHARD_UNAVAILABLE);
    story_there(story, done);
    story_expect(story, STORY_NOTHING, 0);
    assert_int_equal(story->verdict.outcomes[HISTORY_AMBIGUOUS], 2);
    assert_int_equal(story->verdict.ambiguous_done, 1);
    assert_int_equal(story->verdict.resolved, 0);
}

static void test_an_ambiguity_that_is_answered_is_resolved(void **state)
{
    struct story *story = *state;
    uint32_t booking = story_wish(story, 0, 1000, 0, 1);
    story_attempt(story, booking, 1000, 2000, HISTORY_TIMED_OUT);
    story_booked(story, booking, 3000, 4000);
    story_there(story, booking);
    uint32_t second = story_wish(story, 0, 1000, 0, 1);
    story_attempt(story, second, 1000, 2000, HISTORY_GARBLED);
    story_refused(story, second, 3000, 4000, 0, 1);
    story_expect(story, STORY_NOTHING, 0);
    assert_int_equal(story->verdict.resolved, 2);
}

static void test_a_no_to_what_was_done_is_a_denial(void **state)
{
    struct story *story = *state;
    uint32_t refused = story_wish(story, 0, 1000, 0, 1);
    story_attempt(story, refused, 1000, 2000, HISTORY_CLOSED);
    story_failed(story, refused, 3000, 4000, SG_KEY_REUSED);
    story_there(story, refused);
    uint32_t failed = story_wish(story, 0, 1000, 1, 1);
    story_failed(story, failed, 1000, 2000, SG_DEADLINE);
    story_there(story, failed);
    uint32_t unsent = story_wish(story, 0, 1000, 2, 1);
    story_there(story, unsent);
    uint32_t unreached = story_wish(story, 0, 1000, 3, 1);
    story_attempt(story, unreached, 1000, 1001, HISTORY_UNREACHED);
    story_there(story, unreached);
    story_expect(story, VERDICT_DENIED, 4);
}

static void test_strange_bookings_are_found(void **state)
{
    struct story *story = *state;
    const int32_t seat = 7, other = 8, third = 9;
    char key[HISTORY_KEY_SIZE];
    story_row(story, 0, "drill-0000000000001234-0", 900, &seat, 1); /* another drill's */
    story_claim(story, 0, 7, 900);
    story_row(story, 0, "", 901, &other, 1);
    story_claim(story, 0, 8, 901);
    uint32_t elsewhere = story_event(story, "alpha", false);
    uint32_t booking = story_wish(story, 0, 1000, 0, 1);
    story_attempt(story, booking, 1000, 2000, HISTORY_CLOSED);
    history_key(story->history, booking, key);
    story_row(story, elsewhere, key, 902, &third, 1);
    story_claim(story, elsewhere, 9, 902);
    story_expect(story, VERDICT_STRANGE, 3);
}

static void test_a_booking_that_is_not_confirmed_is_strange_and_lost(void **state)
{
    struct story *story = *state;
    story_sale(story, 0, 1000, 2000, 0, 1);
    story->truth->claim_count = 0;
    snprintf(story->truth->bookings[0].status, sizeof(story->truth->bookings[0].status),
             "cancelled");
    story_judge(story);
    assert_int_equal(story->verdict.breaches[VERDICT_STRANGE], 1);
    assert_int_equal(story->verdict.breaches[VERDICT_LOST], 1);
    assert_int_equal(story->verdict.breaches[VERDICT_TORN], 0);
}

static void test_claims_and_bookings_have_to_match(void **state)
{
    struct story *story = *state;
    const int32_t outside = STORY_SEATS;
    story_sale(story, 0, 1000, 2000, 0, 1);
    story->truth->claims[0].booking_id = story_id(77); /* another's */
    story_sale(story, 0, 1000, 2000, 1, 1);
    story->truth->claims[1].booked = false; /* held */
    story_sale(story, 0, 1000, 2000, 2, 1);
    story->truth->claim_count--;    /* none */
    story_claim(story, 0, 10, 500); /* of no booking */
    story_claim(story, 0, -1, 501); /* outside */
    uint32_t last = story_wish(story, 0, 1000, 3, 1);
    story_attempt(story, last, 1000, 2000, HISTORY_CLOSED);
    story_row_of(story, last, &outside, 1);
    story_expect(story, VERDICT_TORN, 6);
}

static void test_answers_that_contradict_each_other(void **state)
{
    struct story *story = *state;
    uint32_t booking = story_sale(story, 0, 1000, 2000, 0, 1);
    story_booked(story, booking, 3000, 4000)->booking_id = story_id(55);
    uint32_t alone = story_sale(story, 0, 1000, 2000, 1, 1);
    story->history->attempts[story->history->bookings[alone].first_attempt].booking_id =
        story_id(56);
    uint32_t wrong = story_sale(story, 0, 1000, 2000, 2, 1);
    story->history->attempts[story->history->bookings[wrong].first_attempt].differs = true;
    story_expect(story, VERDICT_CONTRADICTION, 3);
}

/* --- refusals --------------------------------------------------------------------------------- */

static void test_a_refusal_needs_somebody_who_had_the_seat(void **state)
{
    struct story *story = *state;
    /* sold, but asked for only after the refusal had come */
    story_sale(story, 0, 5000, 6000, 0, 1);
    story_refused(story, story_wish(story, 0, 1000, 0, 1), 1000, 5000, 0, 1);
    /* nobody ever asked for it */
    story_refused(story, story_wish(story, 0, 1000, 1, 1), 1000, 2000, 1, 1);
    /* only somebody who was refused, and somebody who was never sent */
    story_refused(story, story_wish(story, 0, 900, 2, 1), 900, 1800, 2, 1);
    uint32_t unreached = story_wish(story, 0, 900, 3, 1);
    story_attempt(story, unreached, 900, 901, HISTORY_UNREACHED);
    story_refused(story, story_wish(story, 0, 1000, 3, 1), 1000, 2000, 3, 1);
    /* names none; names one that it did not ask for */
    story_sale(story, 0, 1000, 2000, 10, 2);
    story_refused(story, story_wish(story, 0, 1000, 10, 1), 1000, 2000, 10, 0);
    story_refused(story, story_wish(story, 0, 1000, 10, 1), 1000, 2000, 11, 1);
    story_expect(story, VERDICT_FALSE_NO, 6);
}

static void test_a_refusal_is_right_if_somebody_may_have_had_the_seat(void **state)
{
    struct story *story = *state;
    uint32_t unknown = story_wish(story, 0, 900, 0, 1);
    story_attempt(story, unknown, 900, 2000, HISTORY_CLOSED);
    story_refused(story, story_wish(story, 0, 1000, 0, 1), 1000, 2000, 0, 1);
    /* one microsecond before the answer will do */
    story_sale(story, 0, 4999, 6000, 1, 1);
    story_refused(story, story_wish(story, 0, 1000, 1, 1), 1000, 5000, 1, 1);
    story_expect(story, STORY_NOTHING, 0);
}

static void test_nobody_is_refused_for_its_own_booking(void **state)
{
    struct story *story = *state;
    uint32_t booking = story_wish(story, 0, 1000, 0, 1);
    story_attempt(story, booking, 1000, 2000, HISTORY_CLOSED);
    story_refused(story, booking, 3000, 4000, 0, 1);
    story_there(story, booking);
    story_judge(story);
    assert_int_equal(story->verdict.breaches[VERDICT_FALSE_NO], 1);
    assert_int_equal(story->verdict.breaches[VERDICT_DENIED], 1);
}

/* --- reads ------------------------------------------------------------------------------------ */

static void test_a_bound_is_kept_to_the_microsecond(void **state)
{
    struct story *story = *state;
    story_sale(story, 0, 1000, 2000, 0, 2);
    story_read(story, 0, 252000, 252100, 0, 1)->bound_ms = 250; /* exactly as old as allowed */
    story_expect(story, STORY_NOTHING, 0);
    story_read(story, 0, 252001, 252100, 0, 1)->bound_ms = 250; /* sees only half of it */
    story_expect(story, VERDICT_STALE_BOUND, 1);
    story_read(story, 0, 900000, 900100, 0, 0); /* no bound, no promise */
    story_read(story, 0, 900000, 900100, 0, 2)->bound_ms = 250;
    story_expect(story, VERDICT_STALE_BOUND, 1);
    assert_int_equal(story->verdict.reads, 4);
    assert_int_equal(story->verdict.reads_bound, 3);
}

static void test_a_read_of_what_is_lost_is_not_stale(void **state)
{
    struct story *story = *state;
    story_booked(story, story_wish(story, 0, 1000, 0, 1), 1000, 2000);
    story_read(story, 0, 900000, 900100, 0, 0)->bound_ms = 0;
    story_expect(story, VERDICT_LOST, 1);
}

static void test_a_failed_read_shows_nothing(void **state)
{
    struct story *story = *state;
    story_sale(story, 0, 1000, 2000, 0, 1);
    struct history_read *read = story_read(story, 0, 900000, 900100, 0, 0);
    read->bound_ms = 0;
    read->status = 503;
    read = story_read(story, 0, 900000, 900100, 0, 0);
    read->bound_ms = 0;
    read->end = HISTORY_CLOSED;
    read = story_read(story, 0, 900000, 900100, 0, 0);
    read->bound_ms = 0;
    read->seen_at = HISTORY_NONE;
    story_expect(story, STORY_NOTHING, 0);
    assert_int_equal(story->verdict.reads, 0);
}

static void test_a_told_age_has_to_be_true(void **state)
{
    struct story *story = *state;
    story_sale(story, 0, 1000, 2000, 0, 1);
    story_read(story, 0, 12000, 12100, 0, 0)->staleness_ms = 10;
    story_expect(story, STORY_NOTHING, 0);
    story_read(story, 0, 12001, 12100, 0, 0)->staleness_ms = 10;
    struct history_read *admits = story_read(story, 0, 50000, 50100, 0, 1);
    admits->bound_ms = 5;
    admits->staleness_ms = 6;
    story_expect(story, VERDICT_STALE_TOLD, 2);
    story->history->reads[2].staleness_ms = 5;
    story_expect(story, VERDICT_STALE_TOLD, 1);
}

static void test_a_token_shows_what_stands_before_it(void **state)
{
    static const struct {
        const char *what;
        struct history_token told, carried;
        int64_t sent_us; /* the booking was acknowledged at 2000 */
        uint64_t breaches;
    } rows[] = {
        {"its own", {100, 1}, {100, 1}, 2000, 1},
        {"its own, told by a read while the booking's COMMIT waited", {100, 1}, {100, 1}, 1999, 0},
        {"a later one", {100, 1}, {101, 1}, 2500, 1},
        {"an earlier one", {100, 1}, {99, 1}, 2500, 0},
        {"none", {100, 1}, {0, 0}, 2500, 0},
        {"a booking without a token", {0, 0}, {100, 1}, 2500, 0},
        {"one of a later timeline", {100, 1}, {100, 2}, 2500, 1},
        {"one of a later timeline that branched off before", {100, 1}, {99, 2}, 2500, 0},
        {"one of an earlier timeline", {100, 2}, {200, 1}, 2500, 0},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct story story;
        story_new(&story);
        uint32_t booking = story_sale(&story, 0, 1000, 2000, 0, 2);
        story.history->attempts[story.history->bookings[booking].first_attempt].token =
            rows[i].told;
        story_read(&story, 0, rows[i].sent_us, rows[i].sent_us + 100, 0, 1)->carried =
            rows[i].carried;
        story_judge(&story);
        if (story.verdict.breaches[VERDICT_TOKEN_MISSED] != rows[i].breaches)
            fail_msg("%s", rows[i].what);
        story_free(&story);
    }
    (void)state;
}

static void test_a_token_promises_nothing_of_another_event(void **state)
{
    struct story *story = *state;
    uint32_t other = story_event(story, "alpha", true);
    uint32_t booking = story_sale(story, 0, 1000, 2000, 0, 2);
    story->history->attempts[story->history->bookings[booking].first_attempt].token =
        (struct history_token){100, 1};
    story_read(story, other, 3000, 4000, 0, 0)->carried = (struct history_token){100, 1};
    story_expect(story, STORY_NOTHING, 0);
    assert_int_equal(story->verdict.reads_token, 1);
}

/* Two reads of one session: the first saw the seat, the second did not. */
static void read_back(struct story *story, struct history_token got, struct history_token carried,
                      int64_t second_sent_us, uint32_t second_reader)
{
    struct history_read *first = story_read(story, 0, 10000, 20000, 0, 1);
    first->session = true;
    first->reader = 5;
    first->got = got;
    struct history_read *second = story_read(story, 0, second_sent_us, 90000, 0, 0);
    second->session = true;
    second->reader = second_reader;
    second->carried = carried;
}

static void test_a_session_does_not_go_back_in_time(void **state)
{
    const struct history_token none = {0, 0}, at100 = {100, 1}, at101 = {101, 1}, at99 = {99, 1};
    static const struct history_token branch = {99, 2};
    const struct {
        const char *what;
        struct history_token got, carried;
        int64_t second_sent_us;
        uint32_t second_reader;
        uint64_t breaches, pairs;
    } rows[] = {
        {"with its token", at100, at100, 20001, 5, 1, 1},
        {"with a later one", at100, at101, 20001, 5, 1, 1},
        {"without any", at100, none, 20001, 5, 0, 0},
        {"with an earlier one", at100, at99, 20001, 5, 0, 0},
        {"of a branch that may lack it", at100, branch, 20001, 5, 0, 0},
        {"nothing was promised", none, at100, 20001, 5, 0, 0},
        {"sent before the first was answered", at100, at100, 20000, 5, 0, 0},
        {"another reader", at100, at100, 20001, 6, 0, 0},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct story story;
        story_new(&story);
        story_sale(&story, 0, 1000, 80000, 0, 1);
        read_back(&story, rows[i].got, rows[i].carried, rows[i].second_sent_us,
                  rows[i].second_reader);
        story_judge(&story);
        if (story.verdict.breaches[VERDICT_BACKWARDS] != rows[i].breaches ||
            story.verdict.session_pairs != rows[i].pairs)
            fail_msg("%s", rows[i].what);
        story_free(&story);
    }
    (void)state;
}

static void test_what_nobody_has_in_the_end_was_undone(void **state)
{
    struct story *story = *state;
    const struct history_token token = {100, 1};
    read_back(story, token, token, 20001, 5);
    story_expect(story, VERDICT_UNDONE, 1);
}

static void test_what_escaped_the_history_is_told(void **state)
{
    struct story *story = *state;
    story->history->refused = 1;
    story_expect(story, STORY_NOTHING, 0);
    assert_int_equal(story->verdict.refused, 1);
}

static void test_examples_are_few(void **state)
{
    struct story *story = *state;
    for (int32_t i = 0; i < 40; i++)
        story_booked(story, story_wish(story, 0, 1000, i, 1), 1000, 2000);
    story_expect(story, VERDICT_LOST, 40);
    assert_int_equal(story->verdict.example_count, 3);
}

static void test_names_are_there(void **state)
{
    (void)state;
    for (int kind = 0; kind < VERDICT_KINDS; kind++) {
        assert_true(strlen(verdict_name(kind)) > 0);
        assert_true(strlen(verdict_text(kind)) > 0);
        for (int other = 0; other < kind; other++)
            assert_string_not_equal(verdict_name(kind), verdict_name(other));
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_nothing_is_broken_in_a_good_story),
        TEST(test_an_empty_history_holds),
        TEST(test_an_acknowledged_booking_that_is_not_there_is_lost),
        TEST(test_a_loss_under_async_is_told_apart),
        TEST(test_a_seat_sold_again_after_an_async_loss_is_not_sold_twice),
        TEST(test_a_booking_there_with_other_seats_is_lost),
        TEST(test_the_order_of_seats_does_not_matter),
        TEST(test_a_seat_acknowledged_to_two_is_sold_twice),
        TEST(test_a_seat_in_two_confirmed_bookings_is_sold_twice),
        TEST(test_an_ambiguous_booking_may_be_there_or_not),
        TEST(test_an_ambiguity_that_is_answered_is_resolved),
        TEST(test_a_no_to_what_was_done_is_a_denial),
        TEST(test_strange_bookings_are_found),
        TEST(test_a_booking_that_is_not_confirmed_is_strange_and_lost),
        TEST(test_claims_and_bookings_have_to_match),
        TEST(test_answers_that_contradict_each_other),
        TEST(test_a_refusal_needs_somebody_who_had_the_seat),
        TEST(test_a_refusal_is_right_if_somebody_may_have_had_the_seat),
        TEST(test_nobody_is_refused_for_its_own_booking),
        TEST(test_a_bound_is_kept_to_the_microsecond),
        TEST(test_a_read_of_what_is_lost_is_not_stale),
        TEST(test_a_failed_read_shows_nothing),
        TEST(test_a_told_age_has_to_be_true),
        TEST(test_a_token_shows_what_stands_before_it),
        TEST(test_a_token_promises_nothing_of_another_event),
        TEST(test_a_session_does_not_go_back_in_time),
        TEST(test_what_nobody_has_in_the_end_was_undone),
        TEST(test_what_escaped_the_history_is_told),
        TEST(test_examples_are_few),
        TEST(test_names_are_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
