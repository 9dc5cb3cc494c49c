/*
 * The batch planner: which of the waiting bookings go together. Pure.
 *
 * Bookings of one batch are one transaction. They are numbered in the order they came; one that
 * shares a seat or an idempotency key with an earlier one of the batch is marked a rival, and the
 * database only looks at it (migrations/0002_functions.sql): if its seats are gone that is a "no"
 * at once, else it goes again, first in line, in the next batch. So a crowd that wants the same
 * few seats still travels in full batches, and the first who came is the first to be tried.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_ROUTER_BATCH_H
#define SG_ROUTER_BATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "router/router.h"

#define BATCH_MAX 1024       /* bookings; the bound of booking.batch_max */
#define BATCH_SEATS_MAX 4096 /* seats in one batch */

struct batch_item {
    int64_t event_id;
    const struct seat *seats;
    size_t seat_count;
    const char *idempotency_key; /* NULL for none */
};

/* Takes a prefix of `items` of at most `max` (and BATCH_MAX) bookings and BATCH_SEATS_MAX seats, at
 * least one if there is one; fills ret_rival for each taken. Returns how many. */
size_t batch_plan(const struct batch_item *items, size_t count, size_t max, bool *ret_rival);

/* How much longer a free lane lets bookings gather before it sends `waiting` of them, in
 * microseconds; 0: now. `population` is how many were under way when it became free, idle_us ago:
 * those it had just answered and those that waited already. A lane with few (under BATCH_BUSY)
 * never waits. On a busy one what each transaction costs whatever its size is shared by more: it
 * waits until three quarters of them are (again) there, at most gather_us. */
int64_t batch_gather_us(size_t waiting, size_t population, size_t max, int64_t idle_us,
                        int64_t gather_us);
#define BATCH_BUSY 16

/* After a batch failed as a whole: how many of its `count` bookings go in the next try, so that one
 * poisonous booking cannot fail its neighbours. 0: it was alone, and is itself the reason. */
size_t batch_halve(size_t count);

#endif
