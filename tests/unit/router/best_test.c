/*
 * Goal: a wish gets the seats that the rule says, all of them or none, and never a "none" while
 * there is a way to seat it. Method: thousands of random grids, small ones and ones wider than a
 * word, against a model that tries every seat and every run by counting; for several parts in the
 * same rows a model that tries every way to seat them. Then the edges by themselves. The seed is
 * printed when something differs.
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

#include "router/best.h"

/* --- the model -------------------------------------------------------------------------------- */

struct model {
    int32_t rows;
    int32_t cols;
    bool *taken;
};

static bool *at(const struct model *model, int32_t row, int32_t col)
{
    return &model->taken[(size_t)(row - 1) * (size_t)model->cols + (size_t)(col - 1)];
}

/* Of what stands from `col` on, twice the distance of its middle from the row's. */
static int32_t distance(const struct model *model, int32_t col, int32_t quantity)
{
    return abs(2 * col + quantity - 1 - (model->cols + 1));
}

static bool run_is_free(const struct model *model, int32_t row, int32_t col, int32_t quantity)
{
    for (int32_t i = 0; i < quantity; i++) {
        if (*at(model, row, col + i))
            return false;
    }
    return true;
}

static bool model_run(const struct model *model, const struct best_part *part, struct seat *ret)
{
    for (int32_t row = part->first_row; row <= part->last_row && row <= model->rows; row++) {
        int32_t best = 0;
        for (int32_t col = 1; col + part->quantity - 1 <= model->cols; col++) {
            if (run_is_free(model, row, col, part->quantity) &&
                (!best ||
                 distance(model, col, part->quantity) < distance(model, best, part->quantity)))
                best = col;
        }
        for (int32_t i = 0; best && i < part->quantity; i++)
            ret[i] = (struct seat){row, best + i};
        if (best)
            return true;
    }
    return false;
}

static bool model_singles(const struct model *model, const struct best_part *part, struct seat *ret)
{
    int32_t count = 0;
    for (int32_t row = part->first_row; row <= part->last_row && row <= model->rows; row++) {
        for (int32_t d = 0; d <= model->cols; d++) {
            for (int32_t col = 1; col <= model->cols && count < part->quantity; col++) {
                if (distance(model, col, 1) == d && !*at(model, row, col))
                    ret[count++] = (struct seat){row, col};
            }
        }
    }
    return count == part->quantity;
}

static bool is_whole(const struct model *model, const struct best_part *part)
{
    return part->first_row == 1 && part->last_row == model->rows;
}

/* One after the other: tiers before the whole house, of these those together first. Leaves their
 * seats taken. */
static bool model_in_order(struct model *model, const struct best_part *parts, size_t count,
                           struct seat *ret)
{
    for (int turn = 0; turn < 4; turn++) {
        size_t from = 0;
        for (size_t i = 0; i < count; i++) {
            const struct best_part *part = &parts[i];
            if (part->quantity && part->together == (turn % 2 == 0) &&
                is_whole(model, part) == (turn >= 2)) {
                if (!(part->together ? model_run(model, part, ret + from)
                                     : model_singles(model, part, ret + from)))
                    return false;
                for (int32_t s = 0; s < part->quantity; s++)
                    *at(model, ret[from + (size_t)s].row, ret[from + (size_t)s].col) = true;
            }
            from += (size_t)part->quantity;
        }
    }
    return true;
}

/* Whether there is any way at all to seat the parts that are together. */
static bool model_any_way(struct model *model, const struct best_part *parts, size_t count)
{
    if (count == 0)
        return true;
    if (!parts->together || !parts->quantity)
        return model_any_way(model, parts + 1, count - 1);
    for (int32_t row = parts->first_row; row <= parts->last_row && row <= model->rows; row++) {
        for (int32_t col = 1; col + parts->quantity - 1 <= model->cols; col++) {
            if (!run_is_free(model, row, col, parts->quantity))
                continue;
            memset(at(model, row, col), 1, (size_t)parts->quantity);
            bool found = model_any_way(model, parts + 1, count - 1);
            memset(at(model, row, col), 0, (size_t)parts->quantity);
            if (found)
                return true;
        }
    }
    return false;
}

/* --- worlds ----------------------------------------------------------------------------------- */

struct world {
    struct model model;
    struct best_grid grid;
};

static uint32_t below(uint32_t *seed, uint32_t bound)
{
    *seed = *seed * 1664525 + 1013904223;
    return (uint32_t)(((uint64_t)(*seed >> 4) * bound) >> 28);
}

static void world_init(struct world *world, int32_t rows, int32_t cols)
{
    world->model = (struct model){rows, cols, calloc((size_t)rows * (size_t)cols, sizeof(bool))};
    assert_non_null(world->model.taken);
    assert_true(best_grid_init(&world->grid, rows, cols));
}

static void world_done(struct world *world)
{
    free(world->model.taken);
    best_grid_done(&world->grid);
}

static void world_set(struct world *world, int32_t row, int32_t col, bool taken)
{
    struct seat seat = {row, col};
    *at(&world->model, row, col) = taken;
    if (taken)
        best_grid_take(&world->grid, &seat);
    else
        best_grid_give(&world->grid, &seat);
}

/* `per_mille` of the seats, each by itself. */
static void world_fill(struct world *world, uint32_t *seed, uint32_t per_mille)
{
    for (int32_t row = 1; row <= world->model.rows; row++) {
        for (int32_t col = 1; col <= world->model.cols; col++) {
            if (below(seed, 1000) < per_mille)
                world_set(world, row, col, true);
        }
    }
}

static void check_grid(const struct world *world, uint32_t seed)
{
    for (int32_t row = 1; row <= world->model.rows; row++) {
        for (int32_t col = 1; col <= world->model.cols; col++) {
            struct seat seat = {row, col};
            if (best_grid_is_free(&world->grid, &seat) == *at(&world->model, row, col))
                fail_msg("seed %u: seat %d-%d has changed", seed, row, col);
        }
    }
}

/* What the grid says of one part is what the model says; false: none, of both. */
static bool check_part(struct world *world, const struct best_part *part, uint32_t seed)
{
    struct seat expected[ROUTER_SEATS_MAX] = {{0, 0}};
    struct seat seats[ROUTER_SEATS_MAX];
    size_t count = 12345;
    bool found = part->together ? model_run(&world->model, part, expected)
                                : model_singles(&world->model, part, expected);
    bool chosen = best_choose(&world->grid, part, 1, 0, seats, &count);
    if (chosen != found)
        fail_msg("seed %u: %s, expected %s", seed, chosen ? "seats" : "none",
                 found ? "seats" : "none");
    if (!chosen) {
        assert_int_equal(count, 12345);
        return false;
    }
    assert_int_equal(count, part->quantity);
    for (size_t i = 0; i < count; i++) {
        if (seats[i].row != expected[i].row || seats[i].col != expected[i].col)
            fail_msg("seed %u: seat %zu is %d-%d, expected %d-%d", seed, i, seats[i].row,
                     seats[i].col, expected[i].row, expected[i].col);
    }
    return true;
}

static struct best_part random_part(uint32_t *seed, int32_t rows, uint32_t quantity_max)
{
    int32_t first = 1 + (int32_t)below(seed, (uint32_t)rows);
    int32_t last = first + (int32_t)below(seed, (uint32_t)(rows - first) + 2); /* or past the end */
    return (struct best_part){first, last, 1 + (int32_t)below(seed, quantity_max),
                              below(seed, 3) != 0};
}

/* --- one part --------------------------------------------------------------------------------- */

/* One grid lives long: seats are taken and given back between the choices, so that what it
 * remembers of its rows is put to the test. */
static void live(uint32_t round, int32_t rows, int32_t cols, uint32_t quantity_max, int choices)
{
    struct world world;
    uint32_t seed = round;
    world_init(&world, rows, cols);
    world_fill(&world, &seed, below(&seed, 1000));
    for (int i = 0; i < choices; i++) {
        struct best_part part = random_part(&seed, rows, quantity_max);
        struct seat seats[ROUTER_SEATS_MAX];
        size_t count;
        if (check_part(&world, &part, round) && below(&seed, 2)) {
            assert_true(best_choose(&world.grid, &part, 1, 0, seats, &count));
            for (size_t s = 0; s < count; s++)
                world_set(&world, seats[s].row, seats[s].col, true);
        }
        for (uint32_t n = below(&seed, 6); n; n--)
            world_set(&world, 1 + (int32_t)below(&seed, (uint32_t)rows),
                      1 + (int32_t)below(&seed, (uint32_t)cols), below(&seed, 2));
    }
    check_grid(&world, round);
    world_done(&world);
}

static void test_small_grids_against_the_model(void **state)
{
    (void)state;
    for (uint32_t round = 1; round <= 4000; round++) {
        uint32_t seed = round * 7919;
        live(round, 1 + (int32_t)below(&seed, 6), 1 + (int32_t)below(&seed, 16),
             1 + below(&seed, 6), 12);
    }
}

static void test_grids_around_the_width_of_words_against_the_model(void **state)
{
    static const int32_t widths[] = {63, 64, 65, 127, 128, 129, 191, 192, 193, 300};
    (void)state;
    for (uint32_t round = 1; round <= 600; round++) {
        uint32_t seed = round * 104729;
        int32_t cols = widths[below(&seed, sizeof(widths) / sizeof(widths[0]))];
        live(100000 + round, 1 + (int32_t)below(&seed, 4), cols, round % 3 ? 8 : ROUTER_SEATS_MAX,
             12);
    }
}

/* Few seats taken, so that long runs are there, over many words. */
static void test_very_wide_rows_against_the_model(void **state)
{
    (void)state;
    for (uint32_t round = 1; round <= 12; round++) {
        struct world world;
        uint32_t seed = 200000 + round;
        world_init(&world, 2, 10000);
        world_fill(&world, &seed, round % 2 ? 10 : 200);
        for (int32_t quantity = 1; quantity <= ROUTER_SEATS_MAX; quantity += 9) {
            struct best_part part = {1, 2, quantity, true};
            check_part(&world, &part, 200000 + round);
        }
        check_grid(&world, 200000 + round);
        world_done(&world);
    }
}

static void test_an_event_is_sold_from_the_stage_and_the_middle_until_nothing_is_left(void **state)
{
    struct world world;
    struct best_part pair = {1, 7, 2, true};
    struct best_part single = {1, 7, 1, false};
    struct seat seats[ROUTER_SEATS_MAX];
    size_t count;
    int sold = 0;
    (void)state;
    world_init(&world, 7, 21);
    for (const struct best_part *part = &pair; part; part = part == &pair ? &single : NULL) {
        while (check_part(&world, part, 0)) {
            assert_true(best_choose(&world.grid, part, 1, 0, seats, &count));
            for (size_t i = 0; i < count; i++, sold++)
                world_set(&world, seats[i].row, seats[i].col, true);
        }
        assert_int_equal(sold, best_count(&world.grid, 1, 7) == 0 ? 7 * 21 : 7 * 20);
    }
    assert_int_equal(best_count(&world.grid, 1, 7), 0);
    world_set(&world, 5, 1, false); /* and one comes back */
    assert_true(check_part(&world, &single, 0));
    assert_false(check_part(&world, &pair, 0));
    world_done(&world);
}

static void expect(struct best_grid *grid, struct best_part part, int32_t row, int32_t col)
{
    struct seat seats[ROUTER_SEATS_MAX];
    size_t count;
    assert_true(best_choose(grid, &part, 1, 0, seats, &count));
    assert_int_equal(count, part.quantity);
    assert_int_equal(seats[0].row, row);
    assert_int_equal(seats[0].col, col);
}

static void expect_none(struct best_grid *grid, struct best_part part)
{
    struct seat seats[ROUTER_SEATS_MAX];
    size_t count = 77;
    assert_false(best_choose(grid, &part, 1, 0, seats, &count));
    assert_int_equal(count, 77);
}

static void test_the_rule_by_hand(void **state)
{
    struct best_grid grid;
    (void)state;
    assert_true(best_grid_init(&grid, 3, 10));
    expect(&grid, (struct best_part){1, 3, 1, true}, 1, 5); /* of two equally near, the left */
    expect(&grid, (struct best_part){1, 3, 2, true}, 1, 5); /* right in the middle */
    expect(&grid, (struct best_part){1, 3, 3, true}, 1, 4);
    expect(&grid, (struct best_part){2, 3, 2, true}, 2, 5);
    expect(&grid, (struct best_part){1, 3, 10, true}, 1, 1); /* the whole row */
    expect_none(&grid, (struct best_part){1, 3, 11, true});
    expect(&grid, (struct best_part){1, 3, 11, false}, 1, 5);
    best_grid_take(&grid, &(struct seat){1, 5});
    expect(&grid, (struct best_part){1, 3, 2, true}, 1, 6); /* nearer than 3 and 4 */
    best_grid_take(&grid, &(struct seat){1, 6});
    expect(&grid, (struct best_part){1, 3, 2, true}, 1, 3); /* as near as 7 and 8 */
    expect(&grid, (struct best_part){1, 3, 5, true}, 2, 3); /* row 1 has no five */
    expect(&grid, (struct best_part){0, 99, 1, true}, 1, 4);
    best_grid_done(&grid);
}

static void test_edges(void **state)
{
    struct seat seats[ROUTER_SEATS_MAX];
    struct best_grid grid;
    size_t count = 1;
    (void)state;
    assert_true(best_grid_init(&grid, 2, 100));
    struct best_part nothing = {1, 2, 0, true};
    assert_true(best_choose(&grid, &nothing, 1, 0, seats, &count));
    assert_int_equal(count, 0);
    count = 1;
    assert_true(best_choose(&grid, NULL, 0, 0, seats, &count));
    assert_int_equal(count, 0);
    expect(&grid, (struct best_part){1, 2, 100, true}, 1, 1); /* the row's width */
    expect_none(&grid, (struct best_part){1, 2, 101, false}); /* more than a booking may have */
    expect_none(&grid, (struct best_part){1, 2, INT32_MAX, true});
    expect_none(&grid, (struct best_part){1, 2, -1, true});
    expect_none(&grid, (struct best_part){3, 9, 1, true}); /* no such rows */
    expect_none(&grid, (struct best_part){2, 1, 1, false});
    struct best_part many[] = {{1, 2, 60, false}, {1, 2, 60, false}};
    assert_false(best_choose(&grid, many, 2, 0, seats, &count));
    struct best_part crowd[BEST_PARTS_MAX + 1] = {0};
    assert_false(best_choose(&grid, crowd, BEST_PARTS_MAX + 1, 0, seats, &count));
    for (int32_t i = 0; i < 200; i++)
        best_grid_take(&grid, &(struct seat){i / 100 + 1, i % 100 + 1});
    expect_none(&grid, (struct best_part){1, 2, 1, true}); /* full */
    expect_none(&grid, (struct best_part){1, 2, 1, false});
    best_grid_give(&grid, &(struct seat){2, 100});
    expect(&grid, (struct best_part){1, 2, 1, true}, 2, 100);
    best_grid_give_all(&grid);
    expect(&grid, (struct best_part){1, 2, 2, true}, 1, 50);
    best_grid_done(&grid);
    assert_true(best_grid_init(&grid, 1, 1));
    expect(&grid, (struct best_part){1, 1, 1, true}, 1, 1);
    expect_none(&grid, (struct best_part){1, 1, 2, true});
    best_grid_done(&grid);
}

static void test_a_million_seats(void **state)
{
    static const int32_t shapes[][2] = {{1000, 1000}, {100, 10000}, {100000, 10}, {1, 1000000}};
    (void)state;
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        int32_t rows = shapes[i][0];
        int32_t cols = shapes[i][1];
        struct best_grid grid;
        assert_true(best_grid_init(&grid, rows, cols));
        for (int32_t n = 0; n < rows * cols - 3; n++)
            best_grid_take(&grid, &(struct seat){n / cols + 1, n % cols + 1});
        assert_int_equal(best_count(&grid, 1, rows), 3);
        expect(&grid, (struct best_part){1, rows, 2, true}, rows, cols - 2);
        expect(&grid, (struct best_part){1, rows, 3, true}, rows, cols - 2);
        expect_none(&grid, (struct best_part){1, rows, 4, true});
        expect_none(&grid, (struct best_part){1, rows, 4, false});
        best_grid_done(&grid);
    }
}

/* --- several parts ---------------------------------------------------------------------------- */

static bool seats_are_right(const struct world *world, const struct best_part *parts, size_t count,
                            const struct seat *seats)
{
    bool ok = true;
    size_t total = 0;
    for (size_t p = 0; p < count; p++) {
        for (int32_t i = 0; i < parts[p].quantity; i++, total++) {
            const struct seat *seat = &seats[total];
            ok &= best_grid_holds(&world->grid, seat) && seat->row >= parts[p].first_row &&
                  seat->row <= parts[p].last_row && !*at(&world->model, seat->row, seat->col);
            if (parts[p].together && i)
                ok &= seat->row == seats[total - 1].row && seat->col == seats[total - 1].col + 1;
            for (size_t s = 0; s < total; s++)
                ok &= memcmp(seat, &seats[s], sizeof(*seat)) != 0;
        }
    }
    return ok;
}

/* Tiers: rows 1 to `border`, and those behind it; with `whole` some want any row. */
static size_t random_parts(uint32_t *seed, int32_t rows, bool whole, struct best_part *ret_parts)
{
    int32_t border = 1 + (int32_t)below(seed, (uint32_t)rows);
    size_t count = 1 + below(seed, 4);
    for (size_t i = 0; i < count; i++) {
        bool front = border == rows || below(seed, 2);
        ret_parts[i] = (struct best_part){front ? 1 : border + 1, front ? border : rows,
                                          (int32_t)below(seed, 5), below(seed, 4) != 0};
        if (whole && below(seed, 2))
            ret_parts[i] = (struct best_part){1, rows, ret_parts[i].quantity, below(seed, 2)};
    }
    return count;
}

static void check_parts(uint32_t round, bool whole, int *packed, int *refused)
{
    struct world world;
    uint32_t seed = round * 31337;
    struct best_part parts[BEST_PARTS_MAX];
    struct seat seats[ROUTER_SEATS_MAX];
    struct seat expected[ROUTER_SEATS_MAX];
    size_t total = 0;
    int32_t rows = 1 + (int32_t)below(&seed, 3);
    world_init(&world, rows, 1 + (int32_t)below(&seed, 9));
    world_fill(&world, &seed, below(&seed, 700));
    size_t count = random_parts(&seed, rows, whole, parts);
    bool any_way =
        model_any_way(&world.model, parts, count) && best_enough(&world.grid, parts, count);
    bool chosen = best_choose(&world.grid, parts, count, 0, seats, &total);
    if (chosen != any_way && !(whole && !chosen))
        fail_msg("round %u: %s, but there is %s way", round, chosen ? "seats" : "none",
                 any_way ? "a" : "no");
    if (chosen && !seats_are_right(&world, parts, count, seats))
        fail_msg("round %u: seats that are not to be had", round);
    check_grid(&world, round);
    bool in_order = model_in_order(&world.model, parts, count, expected);
    if (in_order && !chosen)
        fail_msg("round %u: none, but the rule has seats", round);
    if (in_order && memcmp(seats, expected, total * sizeof(seats[0])) != 0)
        fail_msg("round %u: other seats than by the rule", round);
    *packed += chosen && !in_order;
    *refused += !chosen;
    world_done(&world);
}

static void test_several_parts_against_the_model(void **state)
{
    int packed = 0;
    int refused = 0;
    (void)state;
    for (uint32_t round = 1; round <= 6000; round++)
        check_parts(round, false, &packed, &refused);
    assert_in_range(packed, 30, 3000); /* the world is such that all of it happens */
    assert_in_range(refused, 300, 5000);
    for (uint32_t round = 6001; round <= 9000; round++)
        check_parts(round, true, &packed, &refused);
}

static void test_parts_that_need_to_be_packed(void **state)
{
    struct best_part parts[] = {{1, 1, 3, true}, {1, 1, 3, true}};
    struct best_part uneven[] = {{1, 2, 2, true}, {1, 2, 3, true}, {1, 2, 1, false}};
    struct seat seats[ROUTER_SEATS_MAX];
    struct best_grid grid;
    size_t count;
    (void)state;
    assert_true(best_grid_init(&grid, 1, 6)); /* the first three would take the middle */
    assert_true(best_choose(&grid, parts, 2, 0, seats, &count));
    assert_int_equal(count, 6);
    assert_int_equal(seats[0].col, 1);
    assert_int_equal(seats[3].col, 4);
    assert_true(best_choose(&grid, parts, 2, 5, seats, &count));
    best_grid_done(&grid);
    assert_true(
        best_grid_init(&grid, 2, 3)); /* the two would take of the only row that has three */
    best_grid_take(&grid, &(struct seat){2, 1});
    assert_true(best_choose(&grid, uneven, 2, 0, seats, &count));
    assert_int_equal(seats[0].row, 2);
    assert_int_equal(seats[2].row, 1);
    assert_false(best_choose(&grid, uneven, 3, 0, seats, &count)); /* the single has none left */
    assert_false(best_enough(&grid, uneven, 3));
    best_grid_done(&grid);
}

/* The whole house would take of the first rows what the tier there needs. */
static void test_a_tier_is_served_before_the_whole_house(void **state)
{
    struct best_part parts[] = {{1, 2, 2, true}, {1, 1, 1, false}, {1, 2, 1, false}};
    struct seat seats[ROUTER_SEATS_MAX];
    struct best_grid grid;
    size_t count;
    (void)state;
    assert_true(best_grid_init(&grid, 2, 3));
    best_grid_take(&grid, &(struct seat){1, 3});
    assert_true(best_choose(&grid, parts, 3, 0, seats, &count));
    assert_int_equal(count, 4);
    assert_int_equal(seats[0].row, 2);
    assert_int_equal(seats[2].row, 1);
    assert_int_equal(seats[2].col, 2);
    assert_int_equal(seats[3].row, 1);
    parts[2].quantity = 3;
    assert_false(best_enough(&grid, parts, 3));
    best_grid_done(&grid);
}

/* Parts in a hall of many runs that are just too short: the search ends, and in time. */
static void test_a_hopeless_packing_ends(void **state)
{
    struct best_part parts[BEST_PARTS_MAX];
    struct seat seats[ROUTER_SEATS_MAX];
    struct best_grid grid;
    size_t count;
    (void)state;
    assert_true(best_grid_init(&grid, 1000, 1000));
    for (int32_t row = 1; row <= 1000; row++) {
        for (int32_t col = 1 + row % 9; col <= 1000; col += 9)
            best_grid_take(&grid, &(struct seat){row, col});
    }
    for (size_t i = 0; i < BEST_PARTS_MAX; i++)
        parts[i] = (struct best_part){1, 1000, i < BEST_PARTS_MAX - 1 ? 5 : 9, true};
    assert_true(best_enough(&grid, parts, BEST_PARTS_MAX));
    assert_false(best_choose(&grid, parts, BEST_PARTS_MAX, 0, seats, &count));
    parts[BEST_PARTS_MAX - 1].quantity = 8;
    assert_true(best_choose(&grid, parts, BEST_PARTS_MAX, 0, seats, &count));
    best_grid_done(&grid);
}

/* --- rivals ----------------------------------------------------------------------------------- */

/* Choice number `skip` is the one that would be made if the `skip` before had been taken. */
static void test_skips_are_the_next_choices(void **state)
{
    (void)state;
    for (uint32_t round = 1; round <= 500; round++) {
        struct world world;
        uint32_t seed = round * 271;
        int32_t rows = 1 + (int32_t)below(&seed, 4);
        struct best_part part = {1, rows, 1 + (int32_t)below(&seed, 4), below(&seed, 2)};
        struct seat skipped[20][ROUTER_SEATS_MAX];
        struct seat seats[ROUTER_SEATS_MAX];
        size_t count;
        world_init(&world, rows, 1 + (int32_t)below(&seed, 90));
        world_fill(&world, &seed, below(&seed, 1000));
        int choices = 0;
        while (choices < 20 &&
               best_choose(&world.grid, &part, 1, (uint32_t)choices, skipped[choices], &count))
            choices++;
        for (int i = 0; i < choices; i++) {
            if (!check_part(&world, &part, round))
                break; /* there are no more: those beyond began anew */
            assert_true(best_choose(&world.grid, &part, 1, 0, seats, &count));
            if (part.together || i == 0)
                assert_memory_equal(seats, skipped[i], count * sizeof(seats[0]));
            for (size_t s = 0; s < count; s++)
                world_set(&world, seats[s].row, seats[s].col, true);
        }
        world_done(&world);
    }
}

static void test_a_skip_never_makes_a_no(void **state)
{
    (void)state;
    for (uint32_t round = 1; round <= 1500; round++) {
        struct world world;
        uint32_t seed = round * 613;
        int32_t rows = 1 + (int32_t)below(&seed, 3);
        struct best_part parts[BEST_PARTS_MAX];
        struct seat seats[ROUTER_SEATS_MAX];
        size_t total;
        world_init(&world, rows, 1 + (int32_t)below(&seed, 12));
        world_fill(&world, &seed, below(&seed, 900));
        size_t count = random_parts(&seed, rows, round % 3 == 0, parts);
        bool without = best_choose(&world.grid, parts, count, 0, seats, &total);
        for (uint32_t skip = 1; skip < 40; skip += 1 + skip / 3) {
            bool with = best_choose(&world.grid, parts, count, skip, seats, &total);
            if (with != without && !(round % 3 == 0 && with)) /* see best.h on the whole house */
                fail_msg("round %u: skip %u makes it %s", round, skip, with ? "seats" : "none");
            if (with && !seats_are_right(&world, parts, count, seats))
                fail_msg("round %u: skip %u gives seats that are not to be had", round, skip);
        }
        assert_true(best_choose(&world.grid, parts, count, UINT32_MAX, seats, &total) >= without);
        check_grid(&world, round);
        world_done(&world);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_rule_by_hand),
        cmocka_unit_test(test_edges),
        cmocka_unit_test(test_small_grids_against_the_model),
        cmocka_unit_test(test_grids_around_the_width_of_words_against_the_model),
        cmocka_unit_test(test_very_wide_rows_against_the_model),
        cmocka_unit_test(test_an_event_is_sold_from_the_stage_and_the_middle_until_nothing_is_left),
        cmocka_unit_test(test_a_million_seats),
        cmocka_unit_test(test_several_parts_against_the_model),
        cmocka_unit_test(test_parts_that_need_to_be_packed),
        cmocka_unit_test(test_a_tier_is_served_before_the_whole_house),
        cmocka_unit_test(test_a_hopeless_packing_ends),
        cmocka_unit_test(test_skips_are_the_next_choices),
        cmocka_unit_test(test_a_skip_never_makes_a_no),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
