/*
 * Takes on the wire: the arrays of take_batch() out, what became of each back. See lane_batch.h,
 * and for what the database does with them migrations/0005_life.sql.
 *
 * SPDX-License-Identifier: MIT
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/settings.h"
#include "router/lane.h"
#include "router/lane_batch.h"
#include "router/lane_best.h"
#include "router/lookups.h"
#include "router/params.h"

/* --- out -------------------------------------------------------------------------------------- */

static void encode_requests(struct params *params, struct lane_op_list *ops, const bool *rivals,
                            int32_t count)
{
    struct lane_op *op;
    lane_encode_who(params, ops, count);
    params_array_begin(params, PARAMS_BOOL, count);
    TAILQ_FOREACH (op, ops, place)
        params_array_bool(params, op->asked || op->look_first);
    params_array_end(params);
    params_array_begin(params, PARAMS_BOOL, count);
    for (int32_t i = 0; i < count; i++)
        params_array_bool(params, rivals[i]);
    params_array_end(params);
}

static void encode_kinds(struct params *params, struct lane_op_list *ops, int32_t count)
{
    struct lane_op *op;
    params_array_begin(params, PARAMS_INT8, count);
    TAILQ_FOREACH (op, ops, place) {
        if (op->hold_ms)
            params_array_i64(params, op->hold_ms);
        else
            params_array_null(params);
    }
    params_array_end(params);
    params_array_begin(params, PARAMS_TEXT, count);
    TAILQ_FOREACH (op, ops, place)
        params_array_text(params, op->method);
    params_array_end(params);
}

static void encode_seats(struct params *params, struct lane_op_list *ops)
{
    struct lane_op *op;
    int32_t seats = 0;
    int32_t ord = 0;
    TAILQ_FOREACH (op, ops, place)
        seats += (int32_t)op->seat_count;
    params_array_begin(params, PARAMS_INT4, seats);
    TAILQ_FOREACH (op, ops, place) {
        ord++;
        for (size_t i = 0; i < op->seat_count; i++)
            params_array_i32(params, ord);
    }
    params_array_end(params);
    params_array_begin(params, PARAMS_INT4, seats);
    TAILQ_FOREACH (op, ops, place) {
        for (size_t i = 0; i < op->seat_count; i++)
            params_array_i32(params, op->seats[i].row);
    }
    params_array_end(params);
    params_array_begin(params, PARAMS_INT4, seats);
    TAILQ_FOREACH (op, ops, place) {
        for (size_t i = 0; i < op->seat_count; i++)
            params_array_i32(params, op->seats[i].col);
    }
    params_array_end(params);
}

static void encode(struct params *params, struct lane_slot *slot, const bool *rivals, int32_t count)
{
    struct lane_op_list *ops = lane_slot_ops(slot);
    encode_requests(params, ops, rivals, count);
    encode_kinds(params, ops, count);
    encode_seats(params, ops);
    params_i64(params, lane_config(lane_slot_lane(slot))->settings->payment.lease_ms);
}

/* --- back ------------------------------------------------------------------------------------- */

enum take_column {
    COL_ORD,
    COL_OUTCOME,
    COL_BOOKING_ID,
    COL_CREATED_US,
    COL_CONFLICTS,
    COL_STATUS,
    COL_EXPIRES_US,
    COL_AMOUNT,
    COL_CURRENCY,
    COL_SEATS,
    COL_COLS,
    COL_ALLOWED
};

size_t lane_conflicts(const char *text, const struct seat *seats, size_t seat_count,
                      struct seat *ret_seats)
{
    size_t count = 0;
    const char *p = text;
    while (*p == '{' || *p == ',') {
        char *end;
        long index = strtol(p + 1, &end, 10);
        if (end == p + 1)
            break;
        if (index >= 1 && (size_t)index <= seat_count && count < seat_count)
            ret_seats[count++] = seats[index - 1];
        p = end;
    }
    return count;
}

int64_t lane_number(const PGresult *rows, int row, int column)
{
    return strtoll(PQgetvalue(rows, row, column), NULL, 10);
}

void lane_currency(const PGresult *rows, int row, int column, char ret_currency[4])
{
    snprintf(ret_currency, 4, "%.3s", PQgetvalue(rows, row, column));
}

/* A replayed take has the seats of its booking; `seats` has room for ROUTER_SEATS_MAX. */
static void fill_seats(struct lane_op *op, const struct lane_row *row, struct seat *seats,
                       struct book_result *result)
{
    int32_t cols = (int32_t)lane_number(row->rows, row->row, COL_COLS);
    if (cols > 0) {
        result->taken = seats;
        result->taken_count =
            lookup_seats(PQgetvalue(row->rows, row->row, COL_SEATS), cols, seats, ROUTER_SEATS_MAX);
    } else if (op->wish_count) {
        result->taken = op->seats;
        result->taken_count = op->seat_count;
    }
}

/* An id in the row: somebody's earlier answer, or our own that was lost on the way. */
static void fill_booking_id(const struct lane_op *op, const struct lane_row *row,
                            struct book_result *result)
{
    char own[UUID_TEXT_LEN + 1];
    uuid_format(&op->booking_id, own);
    bool found = !PQgetisnull(row->rows, row->row, COL_BOOKING_ID);
    snprintf(result->booking_id, sizeof(result->booking_id), "%s",
             found ? PQgetvalue(row->rows, row->row, COL_BOOKING_ID) : own);
    result->replayed = found && strcmp(own, result->booking_id) != 0;
}

static void fill_done(struct lane_op *op, const struct lane_row *row, struct seat *seats,
                      struct book_result *result)
{
    const PGresult *rows = row->rows;
    result->token = row->commit->token;
    result->durability = row->commit->durability;
    result->created_at_us = lane_number(rows, row->row, COL_CREATED_US);
    result->status = PQgetvalue(rows, row->row, COL_STATUS);
    result->expires_at_us = lane_number(rows, row->row, COL_EXPIRES_US);
    result->amount = lane_number(rows, row->row, COL_AMOUNT);
    lane_currency(rows, row->row, COL_CURRENCY, result->currency);
    fill_booking_id(op, row, result);
    fill_seats(op, row, seats, result);
}

static bool finish(struct lane_slot *slot, struct lane_op *op, const struct lane_row *row)
{
    struct seat seats[ROUTER_SEATS_MAX];
    struct book_result result = {.error = row->error};
    if (row->error == SG_OK) {
        fill_done(op, row, seats, &result);
    } else if (row->error == SG_SEATS_TAKEN || row->error == SG_UNKNOWN_SEAT) {
        result.seats = seats;
        result.seat_count = lane_conflicts(PQgetvalue(row->rows, row->row, COL_CONFLICTS),
                                           op->seats, op->seat_count, seats);
    } else if (row->error == SG_OVER_LIMIT) {
        result.left = lane_number(row->rows, row->row, COL_ALLOWED);
    }
    if (op->wish_count && row->error == SG_SEATS_TAKEN) {
        lane_best_missed(lane_best(lane_slot_lane(slot)), op, seats, result.seat_count);
        op->seat_count = 0;
        return false;
    }
    lane_finish(slot, op, &result);
    return true;
}

const struct lane_codec lane_take_codec = {.statement = STATEMENT_TAKE_BATCH,
                                           .noun = "booking",
                                           .batches = METRIC_BATCHES,
                                           .ops = METRIC_BATCH_BOOKINGS,
                                           .duration = METRIC_BATCH_DURATION,
                                           .encode = encode,
                                           .finish = finish};
