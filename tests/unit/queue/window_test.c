/*
 * Goal: every confirmation finds exactly the messages that it means, each once, in order.
 * Method: random pushes, single and multiple confirmations, also of tags that are settled or were
 * never given, against a model that is a plain array; small windows, so that they are often full.
 *
 * SPDX-License-Identifier: MIT
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdbool.h>

#include "queue/window.h"

#define TAGS_MAX 4000

static uint32_t below(uint32_t *seed, uint32_t bound)
{
    *seed = *seed * 1664525 + 1013904223;
    return (*seed >> 8) % bound;
}

static int items[TAGS_MAX + 1];
static bool open_tags[TAGS_MAX + 1];

static uint64_t oldest_open(uint64_t next)
{
    uint64_t tag = 1;
    while (tag < next && !open_tags[tag])
        tag++;
    return tag;
}

static void confirm_one(struct window *window, uint64_t tag, uint64_t next)
{
    void *expected = tag >= 1 && tag < next && open_tags[tag] ? &items[tag] : NULL;
    assert_ptr_equal(window_find(window, tag), expected);
    assert_ptr_equal(window_take(window, tag), expected);
    assert_null(window_take(window, tag));
    if (expected)
        open_tags[tag] = false;
}

static void confirm_upto(struct window *window, uint64_t tag, uint64_t next)
{
    for (uint64_t i = 1; i <= tag && i < next; i++) {
        if (!open_tags[i])
            continue;
        assert_ptr_equal(window_take_upto(window, tag), &items[i]);
        open_tags[i] = false;
    }
    assert_null(window_take_upto(window, tag));
}

static void play(uint32_t seed, size_t room)
{
    struct window window;
    uint64_t next = 1;
    assert_true(window_init(&window, room));
    for (size_t i = 0; i <= TAGS_MAX; i++)
        open_tags[i] = false;
    for (int step = 0; step < 20000 && next <= TAGS_MAX; step++) {
        uint64_t oldest = oldest_open(next);
        uint64_t tag = oldest + below(&seed, (uint32_t)(next - oldest) + 3);
        assert_int_equal(window_is_empty(&window), oldest == next);
        assert_ptr_equal(window_oldest(&window), oldest == next ? NULL : &items[oldest]);
        assert_int_equal(window_is_full(&window), next - oldest == window.size);
        if (below(&seed, 3) && !window_is_full(&window)) {
            assert_int_equal(window_push(&window, &items[next]), next);
            open_tags[next++] = true;
        } else if (below(&seed, 4)) {
            confirm_one(&window, tag, next);
        } else {
            confirm_upto(&window, below(&seed, 8) ? tag : tag / 2, next);
        }
    }
    confirm_upto(&window, UINT64_MAX, next);
    assert_true(window_is_empty(&window));
    window_reset(&window);
    assert_true(window_is_empty(&window));
    assert_int_equal(window_push(&window, &items[2]), 1); /* a new channel counts anew */
    assert_ptr_equal(window_take(&window, 1), &items[2]);
    window_done(&window);
}

static void confirmations_find_their_messages(void **state)
{
    (void)state;
    for (uint32_t seed = 1; seed <= 40; seed++)
        play(seed, 1 + seed % 30);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(confirmations_find_their_messages)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
