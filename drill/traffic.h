/*
 * What a drill's load asks for: whose turn it is, which event, which seats. Pure: no I/O, no clock;
 * one seed gives one sequence.
 *
 * Large events take most bookings: each asks for the next free seats of its event, and a few FIGHT
 * for seats that were asked for just now. Watched events are small, sell slowly (so that they last
 * for expected_s), and are what readers look at: in turn one without a bound, one with each of two
 * bounds, and the SESSION of a watched event, which carries forward every token that a booking or a
 * read of its event was told, and reads as soon as it has a new one.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_DRILL_TRAFFIC_H
#define SG_DRILL_TRAFFIC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "drill/history.h"
#include "drill/load.h"

#define TRAFFIC_SEATS_MAX 4
#define TRAFFIC_WATCHED_ROWS 20
#define TRAFFIC_WATCHED_COLS 20

struct traffic;

struct traffic_booking {
    uint32_t event;
    uint32_t user;
    size_t seat_count;
    int32_t seats[TRAFFIC_SEATS_MAX];
};

struct traffic_read {
    uint32_t event;
    uint32_t reader;
    int32_t bound_ms; /* -1: none */
    bool session;
    struct history_token token; /* to carry; lsn 0: none */
};

/* The grid of a large event that lasts for expected_s: square, of `ret_side` rows and columns. */
int32_t traffic_large_side(const struct load_options *options);

/* The events are those of the history, which is borrowed. `shards` are their names there, borrowed.
 * NULL without memory. */
struct traffic *traffic_new(const struct load_options *options, const struct history *history,
                            const uint8_t *shards);
void traffic_free(struct traffic *traffic);

/* The next booking and the next read of a shard, an index of options.shards. */
void traffic_next_booking(struct traffic *traffic, size_t shard,
                          struct traffic_booking *ret_booking);
void traffic_next_read(struct traffic *traffic, size_t shard, struct traffic_read *ret_read);
/* A booking of the event, or a read of its session, was answered with this token. */
void traffic_told(struct traffic *traffic, uint32_t event, const struct history_token *token);

#endif
