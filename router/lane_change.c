/*
 * Changes on the wire: the arrays of change_batch() out, the bookings as they stand then back. See
 * lane_batch.h, and for what the database does with them migrations/0005_life.sql.
 *
 * Several changes of one booking may stand in one batch: they are made in their order, and so are
 * those with one key.
 *
 * SPDX-License-Identifier: MIT
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/settings.h"
#include "router/best_news.h"
#include "router/lane.h"
#include "router/lane_batch.h"
#include "router/lookups.h"
#include "router/params.h"

static const char *const kinds[] = {[CHANGE_CONFIRM] = "confirm",
                                    [CHANGE_EXTEND] = "extend",
                                    [CHANGE_CANCEL] = "cancel",
                                    [CHANGE_TRANSFER] = "transfer"};

/* --- out -------------------------------------------------------------------------------------- */

static void encode_what(struct params *params, struct lane_op_list *ops, int32_t count)
{
    struct lane_op *op;
    params_array_begin(params, PARAMS_UUID, count);
    TAILQ_FOREACH (op, ops, place)
        params_array_uuid(params, &op->change_id);
    params_array_end(params);
    params_array_begin(params, PARAMS_TEXT, count);
    TAILQ_FOREACH (op, ops, place)
        params_array_text(params, kinds[op->kind]);
    params_array_end(params);
    params_array_begin(params, PARAMS_INT8, count);
    TAILQ_FOREACH (op, ops, place)
        params_array_i64(params, op->extend_ms);
    params_array_end(params);
    params_array_begin(params, PARAMS_TEXT, count);
    TAILQ_FOREACH (op, ops, place)
        params_array_text(params, op->to_user);
    params_array_end(params);
}

static void encode(struct params *params, struct lane_slot *slot, const bool *rivals, int32_t count)
{
    const struct settings *settings = lane_config(lane_slot_lane(slot))->settings;
    (void)rivals;
    lane_encode_who(params, lane_slot_ops(slot), count);
    encode_what(params, lane_slot_ops(slot), count);
    params_i32(params, (int32_t)settings->holds.max_extensions);
    params_i64(params, settings->waitlist.offer_ms);
}

/* --- back ------------------------------------------------------------------------------------- */

enum change_column {
    COL_ORD,
    COL_OUTCOME,
    COL_USER_ID,
    COL_STATUS,
    COL_CREATED_US,
    COL_EXPIRES_US,
    COL_AMOUNT,
    COL_CURRENCY,
    COL_SEATS,
    COL_COLS,
    COL_ALLOWED
};

/* Borrows from the row. */
static struct booking booking_of(const struct lane_op *op, const PGresult *rows, int row,
                                 struct seat seats[ROUTER_SEATS_MAX])
{
    struct booking booking = {.event_id = op->event_id,
                              .user_id = PQgetvalue(rows, row, COL_USER_ID),
                              .status = PQgetvalue(rows, row, COL_STATUS),
                              .seats = seats,
                              .seat_count = lookup_seats(PQgetvalue(rows, row, COL_SEATS),
                                                         (int32_t)lane_number(rows, row, COL_COLS),
                                                         seats, ROUTER_SEATS_MAX),
                              .created_at_us = lane_number(rows, row, COL_CREATED_US),
                              .expires_at_us = lane_number(rows, row, COL_EXPIRES_US),
                              .amount = lane_number(rows, row, COL_AMOUNT),
                              .currency = PQgetisnull(rows, row, COL_CURRENCY)
                                              ? NULL
                                              : PQgetvalue(rows, row, COL_CURRENCY)};
    uuid_format(&op->booking_id, booking.booking_id);
    return booking;
}

/* Seats that are free again, or sold and no longer held; others learn of an extension when they
 * meet it. Offered to somebody who waits they may be taken all the same. */
static void spread(const struct lane *lane, const struct booking *booking)
{
    const struct router_config *config = lane_config(lane);
    struct best_note about = {.shard = best_news_shard(lane_shard(lane)),
                              .event_id = booking->event_id,
                              .of_change = true,
                              .end = BESTVIEW_FREE};
    if (strcmp(booking->status, "confirmed") == 0)
        about.end = BESTVIEW_BOOKED;
    else if (strcmp(booking->status, "held") == 0)
        return;
    if (config->best_news)
        best_news_say(config->best_news, config->worker, &about, booking->seats,
                      booking->seat_count);
}

static bool finish(struct lane_slot *slot, struct lane_op *op, const struct lane_row *row)
{
    struct seat seats[ROUTER_SEATS_MAX];
    struct change_result result = {.error = row->error};
    struct booking booking;
    if (row->error == SG_OK) {
        booking = booking_of(op, row->rows, row->row, seats);
        result.booking = &booking;
        result.token = row->commit->token;
        result.durability = row->commit->durability;
        result.replayed = strcmp(PQgetvalue(row->rows, row->row, COL_OUTCOME), "replayed") == 0;
        if (!result.replayed)
            spread(lane_slot_lane(slot), &booking);
    } else if (row->error == SG_OVER_LIMIT) {
        result.left = lane_number(row->rows, row->row, COL_ALLOWED);
    }
    lane_finish_change(slot, op, &result);
    return true;
}

const struct lane_codec lane_change_codec = {.statement = STATEMENT_CHANGE_BATCH,
                                             .noun = "change",
                                             .batches = METRIC_CHANGE_BATCHES,
                                             .ops = METRIC_CHANGE_BATCH_CHANGES,
                                             .duration = METRIC_CHANGE_BATCH_DURATION,
                                             .encode = encode,
                                             .finish = finish};
