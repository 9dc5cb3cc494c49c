/*
 * Goal: a batch is a prefix of what waits, within its bounds, and its rivals are exactly those that
 * share a seat or a key with an earlier one.
 * Method: random items, small worlds so that they meet often, against a model that compares all
 * with all; and the bounds by themselves. The seed is printed when something differs.
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

#include "router/batch.h"

#define ITEMS_MAX 1500

struct world {
    struct batch_item items[ITEMS_MAX];
    struct seat seats[ITEMS_MAX][ROUTER_SEATS_MAX];
    char keys[ITEMS_MAX][8];
    size_t count;
};

static uint32_t below(uint32_t *seed, uint32_t bound)
{
    *seed = *seed * 1664525 + 1013904223;
    return (*seed >> 8) % bound;
}

static void make_world(struct world *world, uint32_t *seed, size_t count, uint32_t events,
                       uint32_t side, uint32_t seats_max)
{
    world->count = count;
    for (size_t i = 0; i < count; i++) {
        struct batch_item *item = &world->items[i];
        *item = (struct batch_item){.event_id = 1 + below(seed, events),
                                    .seats = world->seats[i],
                                    .seat_count = 1 + below(seed, seats_max)};
        for (size_t s = 0; s < item->seat_count; s++)
            world->seats[i][s] = (struct seat){.row = (int32_t)(1 + below(seed, side)),
                                               .col = (int32_t)(1 + below(seed, side))};
        if (below(seed, 4) == 0) {
            snprintf(world->keys[i], sizeof(world->keys[i]), "k%u", below(seed, 10));
            item->idempotency_key = world->keys[i];
        }
    }
}

/* Also true of a seat that one item names twice: the API refuses those, the planner is only
 * careful.
 */
static bool names_twice(const struct batch_item *item)
{
    for (size_t i = 0; i < item->seat_count; i++) {
        for (size_t j = 0; j < i; j++) {
            if (memcmp(&item->seats[i], &item->seats[j], sizeof(struct seat)) == 0)
                return true;
        }
    }
    return false;
}

static bool meet(const struct batch_item *a, const struct batch_item *b)
{
    if (a->event_id != b->event_id)
        return false;
    if (a->idempotency_key && b->idempotency_key &&
        strcmp(a->idempotency_key, b->idempotency_key) == 0)
        return true;
    for (size_t i = 0; i < a->seat_count; i++) {
        for (size_t j = 0; j < b->seat_count; j++) {
            if (a->seats[i].row == b->seats[j].row && a->seats[i].col == b->seats[j].col)
                return true;
        }
    }
    return false;
}

static void check_plan(const struct world *world, size_t max, uint32_t seed)
{
    bool rivals[BATCH_MAX + 1];
    memset(rivals, 0x55, sizeof(rivals));
    size_t taken = batch_plan(world->items, world->count, max, rivals);
    size_t bound = world->count < max ? world->count : max;
    size_t seats = 0;
    bound = bound < BATCH_MAX ? bound : BATCH_MAX;
    if (taken > bound || (bound && taken == 0))
        fail_msg("seed %u: %zu taken of %zu", seed, taken, bound);
    for (size_t i = 0; i < taken; i++) {
        bool rival = taken > 1 && names_twice(&world->items[i]);
        for (size_t j = 0; j < i && !rival; j++)
            rival = meet(&world->items[j], &world->items[i]);
        if (rivals[i] != rival && !(taken == 1 && !rivals[i]))
            fail_msg("seed %u: item %zu of %zu is %s rival", seed, i, taken, rival ? "a" : "no");
        seats += world->items[i].seat_count;
    }
    assert_true(taken <= 1 || seats <= BATCH_SEATS_MAX);
    if (taken < bound) /* stopped early: by the seats of the next one */
        assert_true(seats + world->items[taken].seat_count > BATCH_SEATS_MAX);
}

static void test_random_items_against_the_model(void **state)
{
    static struct world world;
    (void)state;
    for (uint32_t round = 1; round <= 600; round++) {
        uint32_t seed = round;
        uint32_t side = 1 + below(&seed, round % 3 ? 100 : 4);
        make_world(&world, &seed, below(&seed, 120), 1 + below(&seed, 5), side,
                   1 + below(&seed, 10));
        check_plan(&world, 1 + below(&seed, 150), round);
    }
}

static void test_large_batches_against_the_model(void **state)
{
    static struct world world;
    (void)state;
    for (uint32_t round = 1; round <= 4; round++) {
        uint32_t seed = 1000 + round;
        make_world(&world, &seed, ITEMS_MAX, 20, 400, round % 2 ? 1 : ROUTER_SEATS_MAX);
        check_plan(&world, 5000, 1000 + round);
    }
}

static void test_bounds(void **state)
{
    static struct world world;
    bool rivals[BATCH_MAX];
    uint32_t seed = 7;
    (void)state;
    make_world(&world, &seed, ITEMS_MAX, 1000, 1000, 1);
    assert_int_equal(batch_plan(world.items, 0, 10, rivals), 0);
    assert_int_equal(batch_plan(world.items, 5, 10, rivals), 5);
    assert_int_equal(batch_plan(world.items, 10, 5, rivals), 5);
    assert_int_equal(batch_plan(world.items, ITEMS_MAX, 100000, rivals), BATCH_MAX);
    make_world(&world, &seed, ITEMS_MAX, 1000, 1000, 1);
    for (size_t i = 0; i < world.count; i++)
        world.items[i].seat_count = ROUTER_SEATS_MAX;
    assert_int_equal(batch_plan(world.items, 100, 100, rivals), BATCH_SEATS_MAX / ROUTER_SEATS_MAX);
}

/* Ids that differ in high bits, negative ones, and rows and columns that change places. */
static void test_neighbours_in_hash_space_are_told_apart(void **state)
{
    struct seat seats[] = {{1, 2}, {2, 1}, {1, 2}, {1, 2}, {INT32_MAX, 1}, {1, INT32_MAX}};
    int64_t events[] = {1, 1, INT64_C(1) << 32, INT64_MAX, 1, 1};
    struct batch_item items[6];
    bool rivals[6];
    (void)state;
    for (int i = 0; i < 6; i++)
        items[i] = (struct batch_item){.event_id = events[i], .seats = &seats[i], .seat_count = 1};
    assert_int_equal(batch_plan(items, 6, 6, rivals), 6);
    for (int i = 0; i < 6; i++)
        assert_false(rivals[i]);
}

static void test_the_same_key_of_two_events_is_two_keys(void **state)
{
    struct seat seats[] = {{1, 1}, {1, 2}, {1, 3}};
    struct batch_item items[] = {
        {.event_id = 1, .seats = &seats[0], .seat_count = 1, .idempotency_key = "k"},
        {.event_id = 2, .seats = &seats[1], .seat_count = 1, .idempotency_key = "k"},
        {.event_id = 1, .seats = &seats[2], .seat_count = 1, .idempotency_key = "k"}};
    bool rivals[3];
    (void)state;
    assert_int_equal(batch_plan(items, 3, 3, rivals), 3);
    assert_false(rivals[0]);
    assert_false(rivals[1]);
    assert_true(rivals[2]);
}

static void test_halves_end_at_nothing(void **state)
{
    (void)state;
    for (size_t count = 1; count <= BATCH_MAX; count++) {
        size_t half = batch_halve(count);
        assert_true(half < count);
        assert_true(count == 1 ? half == 0 : half >= 1);
    }
}

static void test_only_a_busy_lane_gathers_and_never_too_long(void **state)
{
    static const struct {
        size_t waiting;
        size_t population;
        int64_t idle_us;
        int64_t expected_us;
    } cases[] = {
        {1, 0, 0, 0},              /* the first ever */
        {1, BATCH_BUSY - 1, 0, 0}, /* a quiet lane */
        {1, BATCH_BUSY, 0, 500},   /* a busy one that has just become free */
        {1, BATCH_BUSY, 200, 300}, /* what is left of it */
        {1, BATCH_BUSY, 500, 0},   /* long enough */
        {1, BATCH_BUSY, 90000, 0}, /* it was idle for long */
        {14, 20, 0, 500},          /* under three quarters */
        {15, 20, 0, 0},            /* three quarters are there */
        {100, 900, 0, 0},          /* as many as may go */
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        assert_int_equal(
            batch_gather_us(cases[i].waiting, cases[i].population, 100, cases[i].idle_us, 500),
            cases[i].expected_us);
    assert_int_equal(batch_gather_us(1, 100, 100, 0, 0), 0); /* switched off */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_only_a_busy_lane_gathers_and_never_too_long),
        cmocka_unit_test(test_random_items_against_the_model),
        cmocka_unit_test(test_large_batches_against_the_model),
        cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_neighbours_in_hash_space_are_told_apart),
        cmocka_unit_test(test_the_same_key_of_two_events_is_two_keys),
        cmocka_unit_test(test_halves_end_at_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
