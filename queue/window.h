/*
 * What was published and not yet confirmed, by delivery tag: tags go up by one from 1, and every
 * tag stands for one item. Pure.
 *
 *   tags   first ................. next
 *          item NULL item item NULL        NULL: settled; `first` is never
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_QUEUE_WINDOW_H
#define SG_QUEUE_WINDOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct window {
    void **slots;
    size_t size; /* a power of two */
    uint64_t first;
    uint64_t next;
};

/* Room for `count` tags from the oldest that is open to the newest. False without memory. */
bool window_init(struct window *window, size_t count);
void window_done(struct window *window);
/* Begins at tag 1 again; it is empty. */
void window_reset(struct window *window);
bool window_is_full(const struct window *window);
bool window_is_empty(const struct window *window);
/* Its tag. The window is not full. */
uint64_t window_push(struct window *window, void *item);
/* The oldest open item, NULL if there is none. */
void *window_oldest(const struct window *window);
/* The item of a tag, which is settled with this; NULL if the tag is not open. */
void *window_take(struct window *window, uint64_t tag);
/* The same without settling it. */
void *window_find(const struct window *window, uint64_t tag);
/* The oldest item up to `tag`, settled with this; NULL when there is none: for `multiple`. */
void *window_take_upto(struct window *window, uint64_t tag);

#endif
