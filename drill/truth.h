/*
 * What the databases say after a drill: every booking and every claim of its events.
 *
 * Read from each shard's current primary: of the nodes that answer and are not in recovery the one
 * on the highest timeline. Bookings and claims of a shard come from one snapshot. Blocking, libpq,
 * connections of its own; a node that does not answer within 3 s is left out.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_DRILL_TRUTH_H
#define SG_DRILL_TRUTH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/uuid.h"
#include "drill/history.h"

struct shardmap;

struct truth_booking {
    uint32_t event; /* index in the history's events */
    struct uuid booking_id;
    char key[HISTORY_KEY_SIZE]; /* "" without one; a longer one is cut */
    char status[12];            /* "confirmed", ... */
    size_t seats_at;            /* in truth->seats */
    size_t seat_count;
};

struct truth_claim {
    uint32_t event;
    int32_t seat_no;
    struct uuid booking_id;
    bool booked; /* else held */
};

struct truth {
    struct truth_booking *bookings;
    struct truth_claim *claims;
    int32_t *seats;
    size_t booking_count, claim_count, seat_count;
    size_t booking_room, claim_room, seat_room;
};

/* Reads all events of the history. SG_OK and *ret_truth, which the caller frees; else a line that
 * names the shard and what is wrong: SG_SHARD_UNAVAILABLE (no primary, or two on one timeline),
 * SG_UNKNOWN_SHARD (an event's shard is not in the map), SG_IO (a query failed), SG_NO_MEMORY. */
enum sg_error truth_read(const struct shardmap *map, const struct history *history,
                         struct truth **ret_truth, char *error_text, size_t error_size);

/* An empty one, and rows for it; for tests and for truth_read. NULL, false: no memory. */
struct truth *truth_new(void);
bool truth_add_booking(struct truth *truth, const struct truth_booking *booking,
                       const int32_t *seats, size_t seat_count);
bool truth_add_claim(struct truth *truth, const struct truth_claim *claim);
void truth_free(struct truth *truth);

#endif
