/*
 * Goal: a view shows as free exactly what it may try, gives a seat to one attempt at a time, gets
 * back what comes back, and a "no" comes only when nothing speaks against it. The views of a lane
 * keep to their bytes, and none goes that has work under way. Method: random reads, choices, ends
 * of attempts, news and steps of time against a model that has one record a seat; the decision as a
 * table over all its inputs; the rest by hand.
 *
 * SPDX-License-Identifier: MIT
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "router/bestview.h"

#define MARGIN BESTVIEW_MARGIN_US
#define SEATS_MAX 300

static uint32_t below(uint32_t *seed, uint32_t bound)
{
    *seed = *seed * 1664525 + 1013904223;
    return (uint32_t)(((uint64_t)(*seed >> 4) * bound) >> 28);
}

/* Reads a grid with nothing taken. */
static void load_free(struct bestview *view, int32_t rows, int32_t cols, int64_t asked_us)
{
    struct bestview_read read = {.rows = rows, .cols = cols};
    bestview_ask(view, asked_us);
    assert_true(bestview_load(view, &read, asked_us));
}

static int64_t free_seats(const struct bestview *view)
{
    struct best_part all = {1, INT32_MAX, 1, false};
    return bestview_free_count(view, &all);
}

/* --- against a model -------------------------------------------------------------------------- */

struct model_seat {
    bool taken;
    bool held;
    bool tentative;
    int64_t ends_us[64]; /* of its holds so far; the first to come ends the one there is */
    size_t end_count;
};

struct play {
    struct bestviews *views;
    struct bestview *view;
    int32_t rows;
    int32_t cols;
    struct model_seat seats[SEATS_MAX];
    struct seat attempts[20][ROUTER_SEATS_MAX]; /* under way */
    size_t attempt_seats[20];                   /* 0: none */
    int64_t now_us;
    uint32_t seed;
    uint32_t round;
};

static struct model_seat *model_of(struct play *play, const struct seat *seat)
{
    return &play->seats[(seat->row - 1) * play->cols + seat->col - 1];
}

static void play_read(struct play *play)
{
    int32_t booked[SEATS_MAX];
    int32_t held[SEATS_MAX];
    int32_t left_ms[SEATS_MAX];
    struct bestview_read read = {.rows = play->rows,
                                 .cols = play->cols,
                                 .booked = booked,
                                 .held = held,
                                 .held_left_ms = left_ms};
    uint32_t per_mille = below(&play->seed, 1000);
    for (int32_t no = 0; no < play->rows * play->cols; no++) {
        struct model_seat *seat = &play->seats[no];
        *seat = (struct model_seat){.tentative = seat->tentative};
        seat->taken = below(&play->seed, 1000) < per_mille;
        if (!seat->taken)
            continue;
        if (below(&play->seed, 2)) {
            left_ms[read.held_count] = 1 + (int32_t)below(&play->seed, 50);
            seat->held = true;
            seat->ends_us[seat->end_count++] =
                play->now_us + left_ms[read.held_count] * 1000 + MARGIN;
            held[read.held_count++] = no;
        } else {
            booked[read.booked_count++] = no;
        }
    }
    bestview_ask(play->view, play->now_us);
    assert_true(bestview_load(play->view, &read, play->now_us));
}

/* What the model takes for free now; ended holds are. */
static bool model_is_free(struct model_seat *seat, int64_t now_us)
{
    for (size_t i = 0; i < seat->end_count;) {
        if (seat->ends_us[i] > now_us) {
            i++;
            continue;
        }
        seat->ends_us[i] = seat->ends_us[--seat->end_count];
        seat->taken = seat->taken && !seat->held;
        seat->held = false;
    }
    return !seat->taken && !seat->tentative;
}

static void play_choose(struct play *play)
{
    struct best_part part = {1, play->rows, 1 + (int32_t)below(&play->seed, 4),
                             below(&play->seed, 2)};
    size_t a = below(&play->seed, 20);
    int64_t free_count = 0;
    if (play->attempt_seats[a])
        return;
    for (int32_t no = 0; no < play->rows * play->cols; no++)
        free_count += model_is_free(&play->seats[no], play->now_us);
    bool chosen = bestview_choose(play->view, play->now_us, &part, 1, below(&play->seed, 3),
                                  play->attempts[a], &play->attempt_seats[a]);
    if (!chosen && !part.together && free_count >= part.quantity)
        fail_msg("round %u: none of %d free seats", play->round, (int)free_count);
    for (size_t i = 0; chosen && i < play->attempt_seats[a]; i++) {
        struct model_seat *seat = model_of(play, &play->attempts[a][i]);
        if (!model_is_free(seat, play->now_us))
            fail_msg("round %u: chosen, but not free", play->round);
        seat->tentative = true;
    }
}

static void model_mark(struct play *play, const struct seat *at, enum bestview_end end,
                       int64_t until_us)
{
    struct model_seat *seat = model_of(play, at);
    seat->taken = true;
    seat->held = end == BESTVIEW_HELD;
    if (seat->held)
        seat->ends_us[seat->end_count++] = until_us + MARGIN;
}

/* Each seat of an attempt has an end of its own, as with a conflict. */
static void play_settle(struct play *play)
{
    size_t a = below(&play->seed, 20);
    for (size_t i = 0; i < play->attempt_seats[a]; i++) {
        const struct seat *seat = &play->attempts[a][i];
        enum bestview_end end = (enum bestview_end)below(&play->seed, 4);
        int64_t until_us = play->now_us + below(&play->seed, 40000);
        bestview_settle(play->view, seat, 1, end, until_us);
        model_of(play, seat)->tentative = false;
        if (end != BESTVIEW_FREE)
            model_mark(play, seat, end, until_us);
    }
    play->attempt_seats[a] = 0;
}

/* Somewhere else a hold is confirmed or extended, or seats are given back. */
static void play_tell(struct play *play)
{
    struct seat at = {1 + (int32_t)below(&play->seed, (uint32_t)play->rows),
                      1 + (int32_t)below(&play->seed, (uint32_t)play->cols)};
    struct model_seat *seat = model_of(play, &at);
    enum bestview_end end = (enum bestview_end)below(&play->seed, 4);
    int64_t until_us = play->now_us + below(&play->seed, 40000);
    bestview_tell(play->view, &at, 1, end, until_us);
    if (end == BESTVIEW_FREE)
        seat->taken = seat->held = false;
    else
        model_mark(play, &at, end, until_us);
}

static void check_play(struct play *play)
{
    struct best_part all = {1, play->rows, 0, true};
    size_t tentative = 0;
    int64_t free_count = 0;
    size_t none;
    struct seat seats[ROUTER_SEATS_MAX];
    assert_true(bestview_choose(play->view, play->now_us, &all, 1, 0, seats, &none));
    for (int32_t no = 0; no < play->rows * play->cols; no++) {
        free_count += model_is_free(&play->seats[no], play->now_us);
        tentative += play->seats[no].tentative;
    }
    if (free_seats(play->view) != free_count)
        fail_msg("round %u: %d free, expected %d", play->round, (int)free_seats(play->view),
                 (int)free_count);
    assert_int_equal(bestview_tentative_count(play->view), tentative);
    assert_int_equal(bestview_is_tentative(play->view, &all, 1), tentative > 0);
}

static void test_random_plays_against_the_model(void **state)
{
    (void)state;
    for (uint32_t round = 1; round <= 1500; round++) {
        struct play play = {.seed = round * 7919, .round = round, .now_us = 1000000};
        play.rows = 1 + (int32_t)below(&play.seed, 5);
        play.cols = 1 + (int32_t)below(&play.seed, round % 10 ? 12 : 60);
        play.views = bestviews_new(1 << 20);
        play.view = bestviews_get(play.views, 1);
        play_read(&play);
        for (int step = 0; step < 60; step++) {
            uint32_t what = below(&play.seed, 100);
            if (what < 45)
                play_choose(&play);
            else if (what < 75)
                play_settle(&play);
            else if (what < 85)
                play.now_us += below(&play.seed, 20000);
            else if (what < 95)
                play_tell(&play);
            else
                play_read(&play);
            check_play(&play);
        }
        bestviews_free(play.views);
    }
}

/* --- attempts by hand ------------------------------------------------------------------------- */

static void test_a_hold_that_ends_is_free_again_a_little_later(void **state)
{
    struct bestviews *views = bestviews_new(1 << 20);
    struct bestview *view = bestviews_get(views, 7);
    struct best_part one = {1, 1, 1, true};
    struct seat seats[ROUTER_SEATS_MAX];
    int32_t held[] = {0, 1};
    int32_t left_ms[] = {5, 3};
    struct bestview_read read = {
        .rows = 1, .cols = 2, .held = held, .held_left_ms = left_ms, .held_count = 2};
    size_t count;
    (void)state;
    assert_false(bestview_is_known(view));
    assert_int_equal(bestview_free_count(view, &one), 0);
    bestview_ask(view, 100);
    assert_true(bestview_load(view, &read, 1000));
    assert_true(bestview_is_known(view));
    assert_false(bestview_choose(view, 3999 + MARGIN, &one, 1, 0, seats, &count));
    assert_true(bestview_choose(view, 4000 + MARGIN, &one, 1, 0, seats, &count));
    assert_int_equal(seats[0].col, 2);
    assert_false(bestview_choose(view, 5999 + MARGIN, &one, 1, 0, seats, &count));
    bestview_settle(view, seats, 1, BESTVIEW_HELD, 9000);
    assert_true(bestview_choose(view, 6000 + MARGIN, &one, 1, 0, seats, &count));
    assert_int_equal(seats[0].col, 1);
    bestview_settle(view, seats, 1, BESTVIEW_BOOKED, 0);
    assert_false(bestview_choose(view, 8999 + MARGIN, &one, 1, 0, seats, &count));
    assert_true(bestview_choose(view, 9000 + MARGIN, &one, 1, 0, seats, &count));
    assert_int_equal(seats[0].col, 2);
    bestviews_free(views);
}

static void test_what_a_conflict_taught_stays_until_the_next_read(void **state)
{
    struct bestviews *views = bestviews_new(1 << 20);
    struct bestview *view = bestviews_get(views, 7);
    struct best_part one = {1, 1, 1, true};
    struct seat seats[ROUTER_SEATS_MAX];
    size_t count;
    (void)state;
    load_free(view, 1, 1, 100);
    assert_true(bestview_choose(view, 200, &one, 1, 0, seats, &count));
    bestview_settle(view, seats, 1, BESTVIEW_TAKEN, 0);
    assert_false(bestview_choose(view, INT64_MAX - 1, &one, 1, 0, seats, &count));
    load_free(view, 1, 1, 300);
    assert_true(bestview_choose(view, 400, &one, 1, 0, seats, &count));
    bestviews_free(views);
}

static void test_seats_under_way_stay_so_over_a_read(void **state)
{
    struct bestviews *views = bestviews_new(1 << 20);
    struct bestview *view = bestviews_get(views, 7);
    struct best_part one = {1, 1, 1, true};
    struct seat first[ROUTER_SEATS_MAX];
    struct seat second[ROUTER_SEATS_MAX];
    struct seat third[ROUTER_SEATS_MAX];
    int32_t booked[] = {0, -1, 3, 1000000};
    struct bestview_read read = {.rows = 1, .cols = 3, .booked = booked, .booked_count = 4};
    size_t count;
    (void)state;
    load_free(view, 1, 3, 100);
    assert_true(bestview_choose(view, 100, &one, 1, 0, first, &count));  /* column 2 */
    assert_true(bestview_choose(view, 100, &one, 1, 0, second, &count)); /* column 1 */
    bestview_ask(view, 200);
    assert_true(bestview_load(view, &read, 250)); /* seats that no grid has are left out */
    assert_int_equal(bestview_tentative_count(view), 2);
    assert_int_equal(free_seats(view), 1);
    bestview_settle(view, first, 1, BESTVIEW_FREE, 0);
    assert_int_equal(free_seats(view), 2);
    bestview_settle(view, second, 1, BESTVIEW_FREE, 0); /* the read has said it is booked */
    assert_int_equal(free_seats(view), 2);
    bestview_settle(view, second, 1, BESTVIEW_FREE, 0); /* once is enough */
    assert_int_equal(bestview_tentative_count(view), 0);
    assert_true(bestview_choose(view, 300, &one, 1, 0, third, &count));
    assert_int_equal(third[0].col, 2);
    bestviews_free(views);
}

/* A read that was asked before a sale and comes behind it does not give the sold seat away again,
 * and no "no" is told because of it. */
static void test_what_was_taken_while_a_read_was_under_way_is_remembered(void **state)
{
    struct bestviews *views = bestviews_new(1 << 20);
    struct bestview *view = bestviews_get(views, 1);
    const struct best_part parts[] = {{1, 1, 1, true}};
    struct bestview_read read = {.rows = 1, .cols = 4, .booked = (int32_t[]){2}, .booked_count = 1};
    struct seat own;
    size_t count;
    (void)state;
    load_free(view, 1, 4, 1000);
    bestview_remember(view);
    assert_int_equal(free_seats(view), 4);
    bestview_tell(view, &(struct seat){1, 1}, 1, BESTVIEW_BOOKED, 0); /* before it is asked */
    bestview_ask(view, 2000);
    assert_true(bestview_choose(view, 2000, parts, 1, 0, &own, &count));
    assert_int_equal(own.col, 2);
    bestview_settle(view, &own, 1, BESTVIEW_BOOKED, 0);
    bestview_tell(view, &(struct seat){1, 4}, 1, BESTVIEW_TAKEN, 0);
    bestview_tell(view, &(struct seat){1, 4}, 1, BESTVIEW_FREE, 0);
    assert_true(bestview_load(view, &read, 3000));
    assert_int_equal(free_seats(view), 3); /* as the read says: a "no" of it counts */
    assert_false(bestview_find_out(view, 1500, parts, 1).changed);
    bestview_remember(view);
    assert_int_equal(free_seats(view), 2); /* without the own one, with the one given back */
    assert_true(bestview_find_out(view, 1500, parts, 1).changed);
    load_free(view, 1, 4, 4000);
    bestview_remember(view);
    assert_int_equal(free_seats(view), 4); /* the next read knows */
    assert_false(bestview_find_out(view, 1500, parts, 1).changed);
    bestviews_free(views);
}

static void test_a_grid_of_another_size_begins_anew(void **state)
{
    struct bestviews *views = bestviews_new(1 << 20);
    struct bestview *view = bestviews_get(views, 7);
    struct best_part five = {1, 2, 5, true};
    struct seat seats[ROUTER_SEATS_MAX];
    size_t count;
    (void)state;
    load_free(view, 2, 5, 100);
    assert_true(bestview_choose(view, 100, &five, 1, 0, seats, &count));
    load_free(view, 3, 3, 200);
    assert_int_equal(bestview_tentative_count(view), 0);
    bestview_settle(view, seats, count, BESTVIEW_BOOKED, 0); /* of the old one: nothing happens */
    assert_int_equal(free_seats(view), 9);
    bestviews_free(views);
}

static void test_tiers(void **state)
{
    static const char *const names[] = {"front", "middle", "far back"};
    static const int32_t first_rows[] = {1, 3, 4};
    struct bestviews *views = bestviews_new(1 << 20);
    struct bestview *view = bestviews_get(views, 7);
    struct bestview_read read = {
        .rows = 9, .cols = 2, .tier_names = names, .tier_first_rows = first_rows, .tier_count = 3};
    struct best_part part = {.first_row = -7, .quantity = 4};
    (void)state;
    assert_true(bestview_load(view, &read, 0));
    assert_true(bestview_tier(view, "front", &part));
    assert_int_equal(part.first_row, 1);
    assert_int_equal(part.last_row, 2);
    assert_int_equal(bestview_free_count(view, &part), 4);
    assert_true(bestview_tier(view, "middle", &part));
    assert_int_equal(part.first_row, 3);
    assert_int_equal(part.last_row, 3);
    assert_true(bestview_tier(view, "far back", &part));
    assert_int_equal(part.first_row, 4);
    assert_int_equal(part.last_row, 9);
    assert_false(bestview_tier(view, "far", &part));
    assert_int_equal(part.first_row, 4);
    assert_true(bestview_tier(view, NULL, &part));
    assert_int_equal(part.first_row, 1);
    assert_int_equal(part.last_row, 9);
    assert_int_equal(part.quantity, 4);
    read.tier_count = 0; /* an event without any */
    assert_true(bestview_load(view, &read, 0));
    assert_false(bestview_tier(view, "front", &part));
    assert_true(bestview_tier(view, NULL, &part));
    size_t bytes = bestviews_bytes(views);
    for (int i = 0; i < 10; i++) { /* what goes is not counted any more */
        read.tier_count = i % 3;
        assert_true(bestview_load(view, &read, 0));
    }
    assert_int_equal(read.tier_count, 0);
    assert_int_equal(bestviews_bytes(views), bytes);
    bestviews_free(views);
}

static void test_news_from_elsewhere(void **state)
{
    struct bestviews *views = bestviews_new(1 << 20);
    struct bestview *view = bestviews_get(views, 7);
    struct seat seat = {1, 1};
    struct seat outside = {2, 1};
    struct best_part nothing = {1, 1, 0, true};
    struct seat seats[ROUTER_SEATS_MAX];
    size_t count;
    (void)state;
    bestview_tell(view, &seat, 1, BESTVIEW_BOOKED, 0); /* not known yet */
    bestview_settle(view, &seat, 1, BESTVIEW_BOOKED, 0);
    load_free(view, 1, 2, 100);
    bestview_tell(view, &seat, 1, BESTVIEW_HELD, 1000);
    bestview_tell(view, &outside, 1, BESTVIEW_BOOKED, 0);
    assert_int_equal(free_seats(view), 1);
    bestview_tell(view, &seat, 1, BESTVIEW_BOOKED, 0); /* confirmed: its end means nothing now */
    assert_true(bestview_choose(view, 2000 + MARGIN, &nothing, 1, 0, seats, &count));
    assert_int_equal(free_seats(view), 1);
    bestview_tell(view, &seat, 1, BESTVIEW_FREE, 0); /* cancelled */
    assert_int_equal(free_seats(view), 2);
    bestviews_free(views);
}

/* More holds than a view keeps the ends of: those stay taken until the next read, none is lost. */
static void test_ends_of_holds_are_bounded(void **state)
{
    struct bestviews *views = bestviews_new(1 << 26);
    struct bestview *view = bestviews_get(views, 7);
    int32_t total = BESTVIEW_ENDS_MAX + 1000;
    int32_t *held = malloc((size_t)total * sizeof(*held));
    int32_t *left_ms = malloc((size_t)total * sizeof(*left_ms));
    struct best_part nothing = {1, 1, 0, true};
    struct bestview_read read = {.rows = total / 8,
                                 .cols = 8,
                                 .held = held,
                                 .held_left_ms = left_ms,
                                 .held_count = (size_t)total};
    struct seat seats[ROUTER_SEATS_MAX];
    uint32_t seed = 1;
    size_t count;
    (void)state;
    assert_true(held && left_ms);
    for (int32_t i = 0; i < total; i++) {
        held[i] = i;
        left_ms[i] = (int32_t)below(&seed, 1000);
    }
    assert_true(bestview_load(view, &read, 0));
    assert_int_equal(free_seats(view), 0);
    for (int64_t now_us = 0; now_us <= 1000000 + MARGIN; now_us += 50000) {
        int64_t expected = 0;
        for (int32_t i = 0; i < BESTVIEW_ENDS_MAX; i++)
            expected += left_ms[i] * 1000 + MARGIN <= now_us;
        assert_true(bestview_choose(view, now_us, &nothing, 1, 0, seats, &count));
        assert_int_equal(free_seats(view), expected);
    }
    bestviews_free(views);
    free(held);
    free(left_ms);
}

/* --- the views of a lane ---------------------------------------------------------------------- */

static void test_the_longest_unused_view_goes(void **state)
{
    struct bestviews *views = bestviews_new(100000);
    struct best_part one = {1, 10, 1, true};
    struct seat seats[ROUTER_SEATS_MAX];
    size_t count;
    (void)state;
    for (int64_t event = 1; event <= 1000; event++) {
        struct bestview *first = bestviews_get(views, 1); /* always in use */
        assert_non_null(first);
        struct bestview *view = bestviews_get(views, event);
        assert_non_null(view);
        load_free(view, 10, 10, 100);
        if (event == 2) /* under way for long */
            assert_true(bestview_choose(view, 100, &one, 1, 0, seats, &count));
        if (event == 3)
            bestview_ask(view, 200);
        if (event == 4)
            bestview_set_user(view, views);
        assert_true(bestviews_bytes(views) <= 100000);
    }
    assert_true(bestviews_count(views) < 300);
    assert_non_null(bestviews_find(views, 1));
    assert_non_null(bestviews_find(views, 2));
    assert_non_null(bestviews_find(views, 3));
    assert_ptr_equal(bestview_user(bestviews_find(views, 4)), views);
    assert_int_equal(bestview_event(bestviews_find(views, 4)), 4);
    assert_null(bestviews_find(views, 5));
    assert_non_null(bestviews_find(views, 1000));
    bestview_settle(bestviews_find(views, 2), seats, 1, BESTVIEW_FREE, 0);
    bestview_unask(bestviews_find(views, 3));
    bestview_set_user(bestviews_find(views, 4), NULL);
    for (int64_t event = 2000; event < 3000; event++)
        load_free(bestviews_get(views, event), 10, 10, 100);
    assert_null(bestviews_find(views, 2));
    assert_null(bestviews_find(views, 3));
    assert_null(bestviews_find(views, 4));
    bestviews_free(views);
}

static void test_one_view_always_fits_and_busy_ones_do_not_go(void **state)
{
    struct bestviews *views = bestviews_new(1000);
    struct bestview *view = bestviews_get(views, 1);
    struct best_part one = {1, 10, 1, true};
    struct bestview_read read = {.rows = 100, .cols = 100};
    struct seat seats[ROUTER_SEATS_MAX];
    size_t count;
    (void)state;
    load_free(view, 100, 100, 100);
    assert_true(bestviews_bytes(views) > 1000);
    assert_true(bestview_choose(view, 100, &one, 1, 0, seats, &count));
    assert_null(bestviews_get(views, 2)); /* no room beside it, and it is at work */
    bestview_settle(view, seats, count, BESTVIEW_BOOKED, 0);
    struct bestview *second = bestviews_get(views, 2);
    assert_non_null(second);
    assert_null(bestviews_find(views, 1));
    assert_true(bestview_load(second, &read, 100));
    assert_int_equal(bestviews_count(views), 1);
    bestviews_free(views);
    bestviews_free(NULL);
}

static void test_a_read_without_room_leaves_the_view_as_it_was(void **state)
{
    struct bestviews *views = bestviews_new(3000);
    struct bestview *busy = bestviews_get(views, 1);
    struct bestview *view;
    struct best_part one = {1, 10, 1, true};
    struct bestview_read small = {.rows = 2, .cols = 2};
    struct bestview_read large = {.rows = 1000, .cols = 10};
    struct seat seats[ROUTER_SEATS_MAX];
    size_t count;
    (void)state;
    load_free(busy, 2, 2, 100);
    assert_true(bestview_choose(busy, 100, &one, 1, 0, seats, &count));
    view = bestviews_get(views, 2);
    bestview_ask(view, 100);
    assert_false(bestview_load(view, &large, 200));
    assert_int_equal(bestview_reading_us(view), 0);
    assert_false(bestview_is_known(view));
    assert_true(bestview_load(view, &small, 200));
    assert_int_equal(free_seats(view), 4);
    bestview_settle(busy, seats, count, BESTVIEW_FREE, 0);
    assert_true(bestview_load(view, &large, 200)); /* the other one goes for it */
    assert_null(bestviews_find(views, 1));
    bestviews_free(views);
}

/* A seat that is held and given back again and again leaves ends behind that are all to come. */
static void test_ends_of_holds_keep_to_the_bytes_too(void **state)
{
    struct bestviews *views = bestviews_new(20000);
    struct bestview *busy = bestviews_get(views, 1);
    struct bestview *view = bestviews_get(views, 2);
    struct best_part one = {1, 10, 1, true};
    struct best_part nothing = {1, 1, 0, true};
    struct seat last = {10, 10};
    struct seat seats[ROUTER_SEATS_MAX];
    struct seat own;
    size_t count;
    (void)state;
    load_free(busy, 10, 10, 100);
    assert_true(bestview_choose(busy, 100, &one, 1, 0, &own, &count));
    load_free(view, 10, 10, 100);
    load_free(bestviews_get(views, 3), 10, 10, 100);
    for (int32_t i = 0; i < 50; i++)
        bestview_tell(view, &(struct seat){1 + i / 10, 1 + i % 10}, 1, BESTVIEW_HELD, 1000000 + i);
    for (int64_t i = 0; i < 3 * BESTVIEW_ENDS_MAX; i++) {
        bestview_tell(view, &last, 1, BESTVIEW_HELD, 2000000 + i);
        bestview_tell(view, &last, 1, BESTVIEW_FREE, 0);
        assert_true(bestviews_bytes(views) <= 20000);
    }
    assert_null(bestviews_find(views, 3)); /* nobody used it */
    assert_ptr_equal(bestviews_find(views, 1), busy);
    assert_int_equal(free_seats(view), 50);
    assert_true(bestview_choose(view, 1000049 + MARGIN, &nothing, 1, 0, seats, &count));
    assert_int_equal(free_seats(view), 100); /* the first were remembered */
    bestview_settle(busy, &own, 1, BESTVIEW_FREE, 0);
    bestviews_free(views);
}

/* --- the decision ----------------------------------------------------------------------------- */

static void test_the_decision(void **state)
{
    static const struct {
        struct bestview_finding finding;
        enum bestview_action action;
    } cases[] = {
        /* Nothing is known: it is read, once for all who wait. */
        {{.accepted_us = 50}, BESTVIEW_READ},
        {{.accepted_us = 50, .reading = true}, BESTVIEW_WAIT},
        {{.accepted_us = 50, .enough = true, .found = true}, BESTVIEW_READ},
        /* Any view is good enough for a try. */
        {{.accepted_us = 50, .asked_us = 10, .known = true, .found = true}, BESTVIEW_TRY},
        {{.accepted_us = 50, .known = true, .found = true, .changed = true}, BESTVIEW_TRY},
        {{.accepted_us = 50, .known = true, .found = true, .reading = true, .tentative = true},
         BESTVIEW_TRY},
        /* But not if it has misled too often. */
        {{.accepted_us = 50, .asked_us = 60, .known = true, .found = true, .worn = true},
         BESTVIEW_READ},
        {{.accepted_us = 50, .known = true, .found = true, .worn = true, .reading = true},
         BESTVIEW_WAIT},
        {{.accepted_us = 50, .asked_us = 60, .known = true, .worn = true}, BESTVIEW_READ},
        /* A "no" of a read from after the request, the only one there is. */
        {{.accepted_us = 50, .asked_us = 50, .known = true}, BESTVIEW_SOLD_OUT},
        {{.accepted_us = 50, .asked_us = 60, .known = true}, BESTVIEW_SOLD_OUT},
        {{.accepted_us = 50, .asked_us = 60, .known = true, .reading = true}, BESTVIEW_SOLD_OUT},
        {{.accepted_us = 50, .asked_us = 60, .known = true, .enough = true}, BESTVIEW_NOT_TOGETHER},
        /* Not of an older one, nor of none, nor of what the lane itself has put into it since. */
        {{.accepted_us = 50, .asked_us = 49, .known = true}, BESTVIEW_READ},
        {{.accepted_us = 50, .asked_us = 49, .known = true, .reading = true}, BESTVIEW_WAIT},
        {{.accepted_us = -50, .asked_us = 0, .known = true}, BESTVIEW_READ},
        {{.accepted_us = 50, .asked_us = 60, .known = true, .changed = true}, BESTVIEW_READ},
        {{.accepted_us = 50, .asked_us = 60, .known = true, .changed = true, .reading = true},
         BESTVIEW_WAIT},
        /* Not while seats could come back. */
        {{.accepted_us = 50, .asked_us = 60, .known = true, .tentative = true}, BESTVIEW_WAIT},
        {{.accepted_us = 50, .asked_us = 10, .known = true, .tentative = true}, BESTVIEW_WAIT},
        {{.accepted_us = 50, .asked_us = 60, .known = true, .tentative = true, .enough = true},
         BESTVIEW_WAIT},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        enum bestview_action action = bestview_decide(&cases[i].finding);
        if (action != cases[i].action)
            fail_msg("case %zu: action %d, expected %d", i, (int)action, (int)cases[i].action);
    }
}

/* Whatever comes together: a "no" has all its reasons, and a try something to try. */
static void test_no_combination_makes_a_false_no(void **state)
{
    (void)state;
    for (unsigned bits = 0; bits < 1u << 8; bits++) {
        struct bestview_finding finding = {.accepted_us = 50,
                                           .asked_us = bits & 1 ? 60 : 40,
                                           .known = bits & 2,
                                           .reading = bits & 4,
                                           .worn = bits & 8,
                                           .found = bits & 16,
                                           .changed = bits & 32,
                                           .tentative = bits & 64,
                                           .enough = bits & 128};
        enum bestview_action action = bestview_decide(&finding);
        if (action == BESTVIEW_SOLD_OUT || action == BESTVIEW_NOT_TOGETHER)
            assert_true(finding.known && finding.asked_us == 60 && !finding.changed &&
                        !finding.tentative && !finding.found && !finding.worn &&
                        finding.enough == (action == BESTVIEW_NOT_TOGETHER));
        if (action == BESTVIEW_TRY)
            assert_true(finding.known && finding.found && !finding.worn);
        if (action == BESTVIEW_READ)
            assert_false(finding.reading);
        if (action == BESTVIEW_WAIT) /* for something that comes */
            assert_true(finding.reading || finding.tentative);
    }
}

static void test_what_is_old_is_stale_and_what_is_slow_to_read_is_old_later(void **state)
{
    struct bestviews *views = bestviews_new(1 << 20);
    struct bestview *view = bestviews_get(views, 7);
    struct bestview_read read = {.rows = 1, .cols = 1};
    int64_t old_us = BESTVIEW_STALE_US;
    (void)state;
    load_free(view, 1, 1, 1000);
    assert_false(bestview_is_stale(view, 2000, 1000 + old_us));
    assert_true(bestview_is_stale(view, 2000, 1001 + old_us));
    assert_false(bestview_is_stale(view, 1000, 1001 + old_us)); /* read after the request came */
    bestview_ask(view, 2000);
    assert_true(bestview_load(view, &read, 2000 + old_us)); /* it took that long */
    assert_false(bestview_is_stale(view, 3000, 2000 + 8 * old_us));
    assert_true(bestview_is_stale(view, 3000, 2001 + 8 * old_us));
    load_free(view, 1, 1, 1000);
    bestviews_age(views);
    assert_true(bestview_is_stale(view, 1, 1001 + old_us));
    bestviews_free(views);
}

static void test_two_misled_at_one_time_make_a_contest(void **state)
{
    struct bestviews *views = bestviews_new(1 << 20);
    struct bestview *view = bestviews_get(views, 7);
    int64_t long_us = BESTVIEW_CONTEST_US;
    char a, b;
    (void)state;
    assert_false(bestview_misled(view, &a, 1000));
    assert_false(bestview_misled(view, &a, 1001)); /* the same one again */
    assert_true(bestview_misled(view, &b, 1000 + long_us));
    assert_true(bestview_misled(view, &a, 1000 + long_us));
    assert_false(bestview_misled(view, &b, 1000 + 2 * long_us));
    bestviews_free(views);
}

static void test_the_way_to_a_no(void **state)
{
    struct bestviews *views = bestviews_new(1 << 20);
    struct bestview *view = bestviews_get(views, 7);
    struct best_part pair = {1, 2, 2, true};
    struct best_part behind = {2, 2, 1, true};
    struct seat seats[ROUTER_SEATS_MAX];
    int32_t booked[] = {0, 1, 3, 4};
    struct bestview_read read = {.rows = 2, .cols = 3, .booked = booked, .booked_count = 4};
    struct bestview_finding finding;
    size_t count;
    (void)state;
    finding = bestview_find_out(view, 50, &pair, 1);
    assert_int_equal(bestview_decide(&finding), BESTVIEW_READ);
    load_free(view, 1, 2, 60);
    assert_true(bestview_choose(view, 70, &pair, 1, 0, seats, &count));
    finding = bestview_find_out(view, 50, &pair, 1); /* somebody is at the only two */
    assert_int_equal(bestview_decide(&finding), BESTVIEW_WAIT);
    finding = bestview_find_out(view, 50, &behind, 1); /* not at those */
    assert_int_equal(bestview_decide(&finding), BESTVIEW_SOLD_OUT);
    bestview_settle(view, seats, 2, BESTVIEW_BOOKED, 0);
    finding = bestview_find_out(view, 50, &pair, 1);
    assert_int_equal(bestview_decide(&finding), BESTVIEW_READ);
    bestview_ask(view, 80);
    finding = bestview_find_out(view, 50, &pair, 1);
    assert_int_equal(bestview_decide(&finding), BESTVIEW_WAIT);
    assert_true(bestview_load(view, &read, 90));
    finding = bestview_find_out(view, 50, &pair, 1);
    assert_int_equal(bestview_decide(&finding), BESTVIEW_NOT_TOGETHER);
    finding = bestview_find_out(view, 81, &pair, 1); /* came behind the read */
    assert_int_equal(bestview_decide(&finding), BESTVIEW_READ);
    bestviews_age(views); /* another primary: may have lost what this one said */
    finding = bestview_find_out(view, 50, &pair, 1);
    assert_int_equal(bestview_decide(&finding), BESTVIEW_READ);
    bestviews_free(views);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_plays_against_the_model),
        cmocka_unit_test(test_a_hold_that_ends_is_free_again_a_little_later),
        cmocka_unit_test(test_what_a_conflict_taught_stays_until_the_next_read),
        cmocka_unit_test(test_seats_under_way_stay_so_over_a_read),
        cmocka_unit_test(test_what_was_taken_while_a_read_was_under_way_is_remembered),
        cmocka_unit_test(test_a_grid_of_another_size_begins_anew),
        cmocka_unit_test(test_tiers),
        cmocka_unit_test(test_news_from_elsewhere),
        cmocka_unit_test(test_ends_of_holds_are_bounded),
        cmocka_unit_test(test_the_longest_unused_view_goes),
        cmocka_unit_test(test_one_view_always_fits_and_busy_ones_do_not_go),
        cmocka_unit_test(test_a_read_without_room_leaves_the_view_as_it_was),
        cmocka_unit_test(test_ends_of_holds_keep_to_the_bytes_too),
        cmocka_unit_test(test_the_decision),
        cmocka_unit_test(test_no_combination_makes_a_false_no),
        cmocka_unit_test(test_what_is_old_is_stale_and_what_is_slow_to_read_is_old_later),
        cmocka_unit_test(test_two_misled_at_one_time_make_a_contest),
        cmocka_unit_test(test_the_way_to_a_no),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
