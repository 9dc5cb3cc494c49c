/*
 * Batches: what has gathered in a lane goes as one statement. See lane.h.
 *
 *   ops ── codec: encode ──> arrays ── take_batch, change_batch ──> rows ── codec: finish ──> ends
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_ROUTER_LANE_BATCH_H
#define SG_ROUTER_LANE_BATCH_H

#include <libpq-fe.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"
#include "base/metrics.h"
#include "router/commit.h"
#include "router/statements.h"

struct lane_op;
struct lane_op_list;
struct lane_slot;
struct params;
struct seat;

/* What became of one op. The first two columns, its number and the outcome, have been read. */
struct lane_row {
    const PGresult *rows;
    int row;
    const struct commit *commit;
    enum sg_error error;
};

/* A class of ops on the wire. */
struct lane_codec {
    enum statement statement; /* its first parameter is the epoch */
    const char *noun;         /* for the log */
    enum metric_family batches, ops, duration;
    /* Appends the other parameters, of the ops in flight on the slot. */
    void (*encode)(struct params *params, struct lane_slot *slot, const bool *rivals,
                   int32_t count);
    /* Ends the op. False, of what was refused only: it is to go again instead. */
    bool (*finish)(struct lane_slot *slot, struct lane_op *op, const struct lane_row *row);
};

extern const struct lane_codec lane_take_codec;   /* lane_take.c */
extern const struct lane_codec lane_change_codec; /* lane_change.c */

/* Sends the slot's ops (already in flight on it, planned by batch_plan) as one batch. Each comes to
 * its end or to lane_again, then lane_slot_idle is called. `rivals` as batch_plan gave them. False
 * if nothing was sent. */
bool lane_batch_send(struct lane_slot *slot, const bool *rivals, size_t count);
/* Appends what begins the parameters of both codecs: of which event, booking and user each op is,
 * its key, and the hash of its request. */
void lane_encode_who(struct params *params, struct lane_op_list *ops, int32_t count);
/* The seats named in PostgreSQL's text of an int array, e.g. "{1,3}", counted from 1 among `seats`;
 * returns how many were filled in, never more than seat_count. Shared with txn.c. */
size_t lane_conflicts(const char *text, const struct seat *seats, size_t seat_count,
                      struct seat *ret_seats);
/* Columns of what takes and changes answer: a number, 0 for NULL; a currency. */
int64_t lane_number(const PGresult *rows, int row, int column);
void lane_currency(const PGresult *rows, int row, int column, char ret_currency[4]);

#endif
