/*
 * The window of unconfirmed tags. See window.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "queue/window.h"

#include <assert.h>
#include <stdlib.h>

bool window_init(struct window *window, size_t count)
{
    size_t size = 4;
    while (size < count)
        size *= 2;
    *window = (struct window){.size = size, .first = 1, .next = 1};
    window->slots = calloc(size, sizeof(*window->slots));
    return window->slots != NULL;
}

void window_done(struct window *window)
{
    free(window->slots);
    window->slots = NULL;
}

void window_reset(struct window *window)
{
    assert(window_is_empty(window));
    window->first = 1;
    window->next = 1;
}

static void **slot_of(const struct window *window, uint64_t tag)
{
    return &window->slots[tag & (window->size - 1)];
}

bool window_is_full(const struct window *window)
{
    return window->next - window->first == window->size;
}

bool window_is_empty(const struct window *window)
{
    return window->next == window->first;
}

uint64_t window_push(struct window *window, void *item)
{
    assert(!window_is_full(window) && item);
    *slot_of(window, window->next) = item;
    return window->next++;
}

void *window_oldest(const struct window *window)
{
    return window_is_empty(window) ? NULL : *slot_of(window, window->first);
}

void *window_find(const struct window *window, uint64_t tag)
{
    return tag >= window->first && tag < window->next ? *slot_of(window, tag) : NULL;
}

void *window_take(struct window *window, uint64_t tag)
{
    void *item = window_find(window, tag);
    if (!item)
        return NULL;
    *slot_of(window, tag) = NULL;
    while (window->first < window->next && !*slot_of(window, window->first))
        window->first++;
    return item;
}

void *window_take_upto(struct window *window, uint64_t tag)
{
    return !window_is_empty(window) && window->first <= tag ? window_take(window, window->first)
                                                            : NULL;
}
