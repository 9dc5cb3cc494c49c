/*
 * Goal: a seat map is what the claims say, its hash changes exactly when a state does, and no bytes
 * from a server can break the decoder.
 * Method: random grids against a plain array; the decoder against arrays it must take, and against
 * every truncation and corruption of them.
 *
 * SPDX-License-Identifier: MIT
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "router/params.h"
#include "router/seatmaps.h"

#define SIDE_MAX 40

static uint32_t below(uint32_t *seed, uint32_t bound)
{
    *seed = *seed * 1664525 + 1013904223;
    return (*seed >> 8) % bound;
}

static struct seatmap *from_states(int32_t rows, int32_t cols, const char *states)
{
    int32_t booked[SIDE_MAX * SIDE_MAX];
    int32_t held[SIDE_MAX * SIDE_MAX];
    size_t booked_count = 0;
    size_t held_count = 0;
    for (int32_t i = 0; i < rows * cols; i++) {
        if (states[i] == 'x')
            booked[booked_count++] = i;
        else if (states[i] == 'h')
            held[held_count++] = i;
    }
    return seatmap_new(7, rows, cols, booked, booked_count, held, held_count);
}

static void test_states_and_hash_on_random_maps(void **state)
{
    (void)state;
    for (uint32_t round = 1; round <= 2000; round++) {
        char states[SIDE_MAX * SIDE_MAX + 1] = "";
        uint32_t seed = round;
        int32_t rows = (int32_t)(1 + below(&seed, SIDE_MAX));
        int32_t cols = (int32_t)(1 + below(&seed, SIDE_MAX));
        int32_t len = rows * cols;
        for (int32_t i = 0; i < len; i++)
            states[i] = "..xh"[below(&seed, 4)];
        struct seatmap *map = from_states(rows, cols, states);
        struct seatmap *same = from_states(rows, cols, states);
        assert_memory_equal(map->states, states, (size_t)len);
        assert_int_equal(map->states[len], '\0');
        assert_int_equal(map->rows, rows);
        assert_int_equal(map->cols, cols);
        assert_int_equal(map->event_id, 7);
        assert_true(map->hash == same->hash);
        int32_t changed = (int32_t)below(&seed, (uint32_t)len);
        states[changed] = states[changed] == '.' ? 'x' : states[changed] == 'x' ? 'h' : '.';
        struct seatmap *other = from_states(rows, cols, states);
        assert_true(map->hash != other->hash);
        seatmap_unref(map);
        seatmap_unref(same);
        seatmap_unref(other);
    }
}

/* Every single seat, and the words at the end that are shorter than eight. */
static void test_hash_sees_each_seat(void **state)
{
    (void)state;
    for (int32_t len = 1; len <= 40; len++) {
        struct seatmap *empty = seatmap_new(1, 1, len, NULL, 0, NULL, 0);
        for (int32_t i = 0; i < len; i++) {
            struct seatmap *one = seatmap_new(1, 1, len, &i, 1, NULL, 0);
            struct seatmap *held = seatmap_new(1, 1, len, NULL, 0, &i, 1);
            assert_true(one->hash != empty->hash);
            assert_true(held->hash != empty->hash);
            assert_true(held->hash != one->hash);
            seatmap_unref(one);
            seatmap_unref(held);
        }
        seatmap_unref(empty);
    }
}

static void test_hash_sees_the_shape(void **state)
{
    (void)state;
    struct seatmap *wide = seatmap_new(1, 2, 6, NULL, 0, NULL, 0);
    struct seatmap *high = seatmap_new(1, 6, 2, NULL, 0, NULL, 0);
    struct seatmap *square = seatmap_new(1, 3, 4, NULL, 0, NULL, 0);
    assert_true(wide->hash != high->hash);
    assert_true(wide->hash != square->hash);
    seatmap_unref(wide);
    seatmap_unref(high);
    seatmap_unref(square);
}

static void test_booked_wins_and_strangers_are_ignored(void **state)
{
    int32_t booked[] = {1, 1, 6, -1, INT32_MIN};
    int32_t held[] = {1, 0, INT32_MAX, 6};
    (void)state;
    struct seatmap *map = seatmap_new(1, 2, 3, booked, 5, held, 4);
    assert_string_equal(map->states, "hx....");
    seatmap_ref(map);
    seatmap_unref(map);
    assert_string_equal(map->states, "hx....");
    seatmap_unref(map);
    seatmap_unref(NULL);
}

static void test_decodes_what_the_encoder_writes(void **state)
{
    (void)state;
    for (int32_t count = 0; count < 200; count++) {
        struct params params;
        int32_t *values = NULL;
        size_t got = 99;
        params_init(&params);
        params_array_begin(&params, PARAMS_INT4, count);
        for (int32_t i = 0; i < count; i++)
            params_array_i32(&params, i * 7919 - 500);
        params_array_end(&params);
        assert_true(
            seatmap_decode_ints(params.data.data, (size_t)params.item[0].len, &values, &got));
        assert_int_equal(got, count);
        for (int32_t i = 0; i < count; i++)
            assert_int_equal(values[i], i * 7919 - 500);
        free(values);
        params_done(&params);
    }
}

/* Exactly as many bytes as named, on the heap, so that a read past the end is seen by ASan. */
static bool decodes(const char *bytes, size_t len)
{
    int32_t untouched = 0;
    int32_t *values = &untouched;
    size_t count = 12345;
    char *exact = malloc(len ? len : 1);
    memcpy(exact, bytes, len);
    bool ok = seatmap_decode_ints(exact, len, &values, &count);
    free(exact);
    if (ok)
        free(values);
    else
        assert_true(values == &untouched && count == 12345);
    return ok;
}

static void test_broken_arrays_are_refused(void **state)
{
    static const char good[] = "\0\0\0\1\0\0\0\0\0\0\0\x17\0\0\0\2\0\0\0\1"
                               "\0\0\0\4\0\0\0\5\0\0\0\4\0\0\0\6";
    size_t len = sizeof(good) - 1;
    char bytes[sizeof(good)];
    (void)state;
    assert_true(decodes(good, len));
    for (size_t cut = 0; cut < len; cut++)
        assert_false(decodes(good, cut));
    assert_false(decodes(good, len + 1)); /* with a byte too many */
    static const struct {
        size_t at;
        char byte;
    } wrong[] = {
        {3, 2},                             /* dimensions */
        {0, (char)0x80},                    /* negative */
        {11, 0x14},                         /* int8 */
        {15, 3},          {15, 1},          /* another count */
        {12, 0x7f},       {12, (char)0xff}, /* far more, negative */
        {23, 3},          {31, 8},          /* sizes of elements */
        {20, (char)0xff},                   /* a NULL */
    };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        memcpy(bytes, good, sizeof(good));
        bytes[wrong[i].at] = wrong[i].byte;
        assert_false(decodes(bytes, len));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_states_and_hash_on_random_maps),
        cmocka_unit_test(test_hash_sees_each_seat),
        cmocka_unit_test(test_hash_sees_the_shape),
        cmocka_unit_test(test_booked_wins_and_strangers_are_ignored),
        cmocka_unit_test(test_decodes_what_the_encoder_writes),
        cmocka_unit_test(test_broken_arrays_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
