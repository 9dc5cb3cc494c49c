/*
 * Goal: the load of a drill sells steadily, fights a little, never asks for a seat that is not
 * there, and its sessions carry the latest token they were told.
 * Method: long sequences from several seeds, counted; one seed twice.
 *
 * SPDX-License-Identifier: MIT
 */
#include "tests/unit/drill/story.h"

#include "drill/traffic.h"

#define SHARDS 2

struct rig {
    struct load_options options;
    struct history *history;
    uint8_t shards[SHARDS];
    struct traffic *traffic;
};

static void rig_new(struct rig *rig, uint64_t seed)
{
    static const char *const names[SHARDS] = {"alpha", "beta"};
    load_options_init(&rig->options);
    rig->options.shards = names;
    rig->options.shard_count = SHARDS;
    rig->options.seed = seed;
    rig->options.expected_s = 10;
    rig->history = history_new(1 << 20, 1);
    for (size_t shard = 0; shard < SHARDS; shard++) {
        rig->shards[shard] = history_name(rig->history, names[shard], strlen(names[shard]));
        for (int i = 0; i < rig->options.events_per_shard + rig->options.watched_per_shard; i++) {
            bool watched = i >= rig->options.events_per_shard;
            int32_t side = traffic_large_side(&rig->options);
            struct history_event event = {.id = (int64_t)rig->history->event_count + 1,
                                          .rows = watched ? TRAFFIC_WATCHED_ROWS : side,
                                          .cols = watched ? TRAFFIC_WATCHED_COLS : side,
                                          .shard = rig->shards[shard],
                                          .watched = watched};
            history_add_event(rig->history, &event);
        }
    }
    rig->traffic = traffic_new(&rig->options, rig->history, rig->shards);
    assert_non_null(rig->traffic);
}

static void rig_free(struct rig *rig)
{
    traffic_free(rig->traffic);
    history_free(rig->history);
}

static void test_bookings_sell_and_fight(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 3; seed++) {
        struct rig rig;
        bool *taken[16];
        int sold = 0, partly = 0, watched = 0, several = 0;
        const int count = 10000; /* what 10 s at 1000/s are */
        rig_new(&rig, seed);
        for (size_t i = 0; i < rig.history->event_count; i++)
            taken[i] = calloc((size_t)rig.history->events[i].rows * rig.history->events[i].cols, 1);
        for (int i = 0; i < count; i++) {
            struct traffic_booking wish;
            size_t shard = (size_t)i % SHARDS;
            int conflicts = 0;
            traffic_next_booking(rig.traffic, shard, &wish);
            const struct history_event *event = &rig.history->events[wish.event];
            assert_int_equal(event->shard, rig.shards[shard]);
            assert_in_range(wish.seat_count, 1, TRAFFIC_SEATS_MAX);
            for (size_t k = 0; k < wish.seat_count; k++) {
                assert_in_range(wish.seats[k], 0, event->rows * event->cols - 1);
                assert_true(k == 0 || wish.seats[k] > wish.seats[k - 1]);
                conflicts += taken[wish.event][wish.seats[k]];
            }
            for (size_t k = 0; k < wish.seat_count && !conflicts; k++)
                taken[wish.event][wish.seats[k]] = true;
            sold += !conflicts;
            partly += conflicts && conflicts < (int)wish.seat_count;
            watched += event->watched;
            several += wish.seat_count > 1;
        }
        assert_in_range(sold, count * 85 / 100, count * 98 / 100);
        assert_true(partly > 0);
        assert_in_range(several, count * 20 / 100, count * 45 / 100);
        assert_in_range(watched, count * 5 / 100, count * 30 / 100);
        for (size_t i = 0; i < rig.history->event_count; i++)
            free(taken[i]);
        rig_free(&rig);
    }
}

static void test_when_all_is_sold_it_goes_on_asking(void **state)
{
    struct rig rig;
    (void)state;
    rig_new(&rig, 7);
    for (int i = 0; i < 60000; i++) {
        struct traffic_booking wish;
        traffic_next_booking(rig.traffic, 0, &wish);
        const struct history_event *event = &rig.history->events[wish.event];
        assert_in_range(wish.seat_count, 1, TRAFFIC_SEATS_MAX);
        for (size_t k = 0; k < wish.seat_count; k++)
            assert_in_range(wish.seats[k], 0, event->rows * event->cols - 1);
    }
    rig_free(&rig);
}

static void test_readers_take_turns(void **state)
{
    struct rig rig;
    int kinds[4] = {0};
    (void)state;
    rig_new(&rig, 1);
    for (int i = 0; i < 400; i++) {
        struct traffic_read read;
        traffic_next_read(rig.traffic, 1, &read);
        assert_true(rig.history->events[read.event].watched);
        assert_int_equal(rig.history->events[read.event].shard, rig.shards[1]);
        assert_int_equal(read.token.lsn, 0);
        kinds[read.session ? 3 : read.bound_ms == -1 ? 0 : read.bound_ms == 250 ? 1 : 2]++;
    }
    for (int i = 0; i < 4; i++)
        assert_int_equal(kinds[i], 100);
    rig_free(&rig);
}

/* The next read of a session of shard 0. */
static struct traffic_read next_session(struct rig *rig)
{
    struct traffic_read read;
    do
        traffic_next_read(rig->traffic, 0, &read);
    while (!read.session);
    return read;
}

static void test_a_session_with_news_reads_next(void **state)
{
    struct rig rig;
    const struct history_token first = {100, 1}, older = {90, 1}, later = {50, 2};
    (void)state;
    rig_new(&rig, 1);
    uint32_t event = next_session(&rig).event; /* now the others are before it */
    traffic_told(rig.traffic, event, &first);
    struct traffic_read read = next_session(&rig);
    assert_int_equal(read.event, event);
    assert_int_equal(read.token.lsn, 100);
    traffic_told(rig.traffic, event, &older);
    assert_int_not_equal(next_session(&rig).event, event);
    traffic_told(rig.traffic, event, &later);
    read = next_session(&rig);
    assert_int_equal(read.event, event);
    assert_int_equal(read.token.lsn, 50);
    assert_int_equal(read.token.timeline, 2);
    traffic_told(rig.traffic, 9999, &first); /* no such event: nobody's */
    rig_free(&rig);
}

static void test_one_seed_gives_one_sequence(void **state)
{
    struct rig one, other, third;
    bool differs = false;
    (void)state;
    rig_new(&one, 5);
    rig_new(&other, 5);
    rig_new(&third, 6);
    for (int i = 0; i < 1000; i++) {
        struct traffic_booking a, b, c;
        traffic_next_booking(one.traffic, 0, &a);
        traffic_next_booking(other.traffic, 0, &b);
        traffic_next_booking(third.traffic, 0, &c);
        assert_memory_equal(&a, &b, sizeof(a));
        differs = differs || memcmp(&a, &c, sizeof(a)) != 0;
    }
    assert_true(differs);
    rig_free(&one);
    rig_free(&other);
    rig_free(&third);
}

static void test_large_events_last(void **state)
{
    struct load_options options;
    (void)state;
    load_options_init(&options);
    options.shard_count = 2;
    int32_t side = traffic_large_side(&options);
    assert_in_range(side * side * 4, 30000 * 3 / 2, 30000 * 6);
    options.expected_s = 1;
    options.bookings_per_s = 1;
    assert_in_range(traffic_large_side(&options), 10, 100);
    options.expected_s = 100000;
    options.bookings_per_s = 10000;
    assert_in_range(traffic_large_side(&options), 1000, 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bookings_sell_and_fight),
        cmocka_unit_test(test_when_all_is_sold_it_goes_on_asking),
        cmocka_unit_test(test_readers_take_turns),
        cmocka_unit_test(test_a_session_with_news_reads_next),
        cmocka_unit_test(test_one_seed_gives_one_sequence),
        cmocka_unit_test(test_large_events_last),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
