/*
 * Virtual time. See sim_loop.h.
 *
 * Events of one moment run in the order in which they were added; active ones go to the end of the
 * present moment, as libevent's active queue has it.
 *
 * SPDX-License-Identifier: MIT
 */
#include "tests/sim/sim_loop.h"

#include <assert.h>
#include <event2/event.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Wall clock of time zero: 2026-01-01. */
#define WALL_ZERO_S 1767225600

struct event_base {
    bool dead;
    struct event_base *next;
};

struct event {
    struct event_base *base; /* NULL: the world's */
    short flags;
    event_callback_fn fn;
    void *arg;
    void (*once)(void *arg); /* of sim_after, in place of fn */
    int64_t interval_us;     /* EV_PERSIST */
    uint64_t ticket;         /* of its entry in the queue; 0: not pending */
    bool freed;
    struct event *next; /* of all, until the next reset */
};

struct entry {
    int64_t at_us;
    uint64_t ticket;
    struct event *event;
};

static struct {
    int64_t now_us;
    uint64_t random;
    uint64_t tickets;
    struct entry *queue; /* a heap */
    size_t count;
    size_t size;
    struct event *events;
    struct event_base *bases;
} loop;

/* --- the queue -------------------------------------------------------------------------------- */

static bool before(const struct entry *a, const struct entry *b)
{
    return a->at_us != b->at_us ? a->at_us < b->at_us : a->ticket < b->ticket;
}

static void push(int64_t at_us, struct event *event)
{
    if (loop.count == loop.size) {
        loop.size = loop.size ? 2 * loop.size : 1024;
        loop.queue = realloc(loop.queue, loop.size * sizeof(loop.queue[0]));
        assert(loop.queue);
    }
    size_t i = loop.count++;
    struct entry entry = {at_us, ++loop.tickets, event};
    event->ticket = entry.ticket;
    for (; i > 0 && before(&entry, &loop.queue[(i - 1) / 2]); i = (i - 1) / 2)
        loop.queue[i] = loop.queue[(i - 1) / 2];
    loop.queue[i] = entry;
}

static struct entry pop(void)
{
    struct entry top = loop.queue[0];
    struct entry last = loop.queue[--loop.count];
    size_t i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= loop.count)
            break;
        if (child + 1 < loop.count && before(&loop.queue[child + 1], &loop.queue[child]))
            child++;
        if (before(&last, &loop.queue[child]))
            break;
        loop.queue[i] = loop.queue[child];
        i = child;
    }
    if (loop.count)
        loop.queue[i] = last;
    return top;
}

static struct event *new_event(void)
{
    struct event *event = calloc(1, sizeof(*event));
    assert(event);
    event->next = loop.events;
    loop.events = event;
    return event;
}

/* --- the simulation's own side ---------------------------------------------------------------- */

void sim_loop_reset(uint64_t seed)
{
    while (loop.events) {
        struct event *event = loop.events;
        loop.events = event->next;
        free(event);
    }
    while (loop.bases) {
        struct event_base *base = loop.bases;
        loop.bases = base->next;
        free(base);
    }
    loop.count = 0;
    loop.tickets = 0;
    loop.now_us = 1000000;
    loop.random = seed;
}

int64_t sim_now_us(void)
{
    return loop.now_us;
}

/* splitmix64 (Steele, Lea, Flood 2014) */
static uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

uint32_t sim_random(uint32_t bound)
{
    return bound ? (uint32_t)(next_random(&loop.random) % bound) : 0;
}

bool sim_chance(uint32_t percent)
{
    return sim_random(100) < percent;
}

struct event_base *sim_base_new(void)
{
    struct event_base *base = calloc(1, sizeof(*base));
    assert(base);
    base->next = loop.bases;
    loop.bases = base;
    return base;
}

void sim_base_kill(struct event_base *base)
{
    base->dead = true;
}

bool sim_base_lives(const struct event_base *base)
{
    return !base->dead;
}

void sim_after(int64_t us, void (*fn)(void *arg), void *arg)
{
    struct event *event = new_event();
    event->once = fn;
    event->arg = arg;
    push(loop.now_us + us, event);
}

static void fire(struct event *event)
{
    event->ticket = 0;
    if (event->freed || (event->base && event->base->dead))
        return;
    if (event->once) {
        event->once(event->arg);
        return;
    }
    if (event->interval_us && (event->flags & EV_PERSIST))
        push(loop.now_us + event->interval_us, event);
    event->fn(-1, EV_TIMEOUT, event->arg);
}

void sim_run(int64_t until_us)
{
    while (loop.count && loop.queue[0].at_us <= until_us) {
        struct entry entry = pop();
        if (entry.at_us > loop.now_us)
            loop.now_us = entry.at_us;
        if (entry.event->ticket == entry.ticket)
            fire(entry.event);
    }
    if (loop.now_us < until_us)
        loop.now_us = until_us;
}

/* --- in place of libevent --------------------------------------------------------------------- */

struct event *event_new(struct event_base *base, evutil_socket_t fd, short what,
                        event_callback_fn fn, void *arg)
{
    struct event *event = new_event();
    assert(fd == -1);
    event->base = base;
    event->flags = what;
    event->fn = fn;
    event->arg = arg;
    return event;
}

void event_free(struct event *event)
{
    event->ticket = 0;
    event->freed = true;
}

int event_add(struct event *event, const struct timeval *after)
{
    assert(!event->freed && after);
    int64_t us = (int64_t)after->tv_sec * 1000000 + after->tv_usec;
    event->interval_us = us;
    push(loop.now_us + us, event);
    return 0;
}

int event_del(struct event *event)
{
    event->ticket = 0;
    return 0;
}

void event_active(struct event *event, int what, short calls)
{
    (void)what;
    (void)calls;
    assert(!event->freed);
    if (!event->ticket || event->interval_us)
        push(loop.now_us, event);
}

int event_pending(const struct event *event, short what, struct timeval *ret_at)
{
    (void)ret_at;
    return event->ticket ? what : 0;
}

/* --- in place of the system's clock and random numbers ---------------------------------------- */

int clock_gettime(clockid_t clock, struct timespec *ret_time)
{
    ret_time->tv_sec = loop.now_us / 1000000 + (clock == CLOCK_REALTIME ? WALL_ZERO_S : 0);
    ret_time->tv_nsec = loop.now_us % 1000000 * 1000;
    return 0;
}

uint32_t arc4random_uniform(uint32_t bound)
{
    return sim_random(bound);
}

/* Ids are taken from pages that outlive a history, so they must not move its numbers. */
void arc4random_buf(void *data, size_t len)
{
    static uint64_t state;
    for (size_t i = 0; i < len; i++)
        ((uint8_t *)data)[i] = (uint8_t)next_random(&state);
}
