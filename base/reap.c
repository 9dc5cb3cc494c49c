/*
 * The reap list. See reap.h.
 *
 *   reap() ─> items ─> event made active ─> on_loop_turn: free_fn(object) each, from the loop
 * itself
 *
 * The event runs behind all callbacks that are already due, with none of them on the stack.
 *
 * SPDX-License-Identifier: MIT
 */
#include "base/reap.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>

#include <event2/event.h>

#include "base/log.h"

struct reap_item {
    void *object;
    void (*free_fn)(void *object);
};

struct reap_list {
    struct event *turn;
    struct reap_item *items;
    size_t count;
    size_t size;
};

/* Frees what is on the list; a free_fn may put more on it, which goes in the same run. */
static void run(struct reap_list *list)
{
    while (list->count) {
        struct reap_item item = list->items[--list->count];
        item.free_fn(item.object);
    }
}

static void on_loop_turn(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    run(arg);
}

static bool grow(struct reap_list *list)
{
    size_t size = list->size ? list->size * 2 : 64;
    struct reap_item *items = realloc(list->items, size * sizeof *items);
    if (!items)
        return false;
    list->items = items;
    list->size = size;
    return true;
}

struct reap_list *reap_list_new(struct event_base *base)
{
    struct reap_list *list = calloc(1, sizeof *list);
    if (!list)
        return NULL;
    list->turn = event_new(base, -1, 0, on_loop_turn, list);
    if (!list->turn || !grow(list)) {
        reap_list_free(list);
        return NULL;
    }
    return list;
}

void reap_list_free(struct reap_list *list)
{
    if (!list)
        return;
    run(list);
    if (list->turn)
        event_free(list->turn);
    free(list->items);
    free(list);
}

void reap(struct reap_list *list, void *object, void (*free_fn)(void *object))
{
    if (list->count == list->size && !grow(list)) {
        /* Freeing it now could pull it from under a callback: losing it is the lesser harm. */
        log_error(NULL, "reap list cannot grow past %zu: an object is not freed", list->count);
        return;
    }
    list->items[list->count++] = (struct reap_item){.object = object, .free_fn = free_fn};
    if (list->count == 1)
        event_active(list->turn, 0, 0);
}
