/*
 * The strategy "batched": what has gathered goes as one statement. See lane.h.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_ROUTER_LANE_BATCH_H
#define SG_ROUTER_LANE_BATCH_H

#include <stdbool.h>
#include <stddef.h>

struct lane_slot;
struct seat;

/* Sends the slot's ops (already in flight on it, planned by batch_plan) as one batch. Each comes to
 * lane_finish or lane_again, then lane_slot_idle is called. `rivals` as batch_plan gave them.
 * False if nothing was sent. */
bool lane_batch_send(struct lane_slot *slot, const bool *rivals, size_t count);
/* The seats named in PostgreSQL's text of an int array, e.g. "{1,3}", counted from 1 among `seats`;
 * returns how many were filled in, never more than seat_count. Shared with txn.c. */
size_t lane_conflicts(const char *text, const struct seat *seats, size_t seat_count,
                      struct seat *ret_seats);

#endif
