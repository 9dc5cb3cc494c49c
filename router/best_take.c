/*
 * The best seats chosen by the database. See best_take.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "router/best_take.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/settings.h"
#include "router/calls.h"
#include "router/lane.h"
#include "router/lane_batch.h"
#include "router/lane_best.h"
#include "router/lookups.h"

struct best_take {
    struct lane *lane;
    struct lane_op *op; /* NULL: gone */
};

enum take_column {
    COL_OUTCOME,
    COL_BOOKING_ID,
    COL_CREATED_US,
    COL_STATUS,
    COL_EXPIRES_US,
    COL_AMOUNT,
    COL_CURRENCY,
    COL_SEATS,
    COL_COLS,
    COL_ALLOWED
};

/* --- out -------------------------------------------------------------------------------------- */

static void add_wishes(struct params *params, const struct lane_op *op)
{
    int32_t count = (int32_t)op->wish_count;
    params_array_begin(params, PARAMS_TEXT, count);
    for (int32_t i = 0; i < count; i++)
        params_array_text(params, op->wishes[i].tier);
    params_array_end(params);
    params_array_begin(params, PARAMS_INT4, count);
    for (int32_t i = 0; i < count; i++)
        params_array_i32(params, op->wishes[i].quantity);
    params_array_end(params);
    params_array_begin(params, PARAMS_BOOL, count);
    for (int32_t i = 0; i < count; i++)
        params_array_bool(params, op->wishes[i].together);
    params_array_end(params);
}

static struct params *params_of(const struct lane *lane, const struct lane_op *op)
{
    struct params *params = malloc(sizeof(*params));
    if (!params)
        return NULL;
    params_init(params);
    params_i64(params, 0); /* the epoch, filled in when it is sent */
    params_i64(params, op->event_id);
    params_uuid(params, &op->booking_id);
    params_text(params, op->user_id);
    params_text(params, op->idempotency_key);
    params_i64(params, op->request_hash);
    params_bool(params, true); /* the call may have been sent before */
    if (op->hold_ms)
        params_i64(params, op->hold_ms);
    else
        params_text(params, NULL);
    params_text(params, op->method);
    params_i64(params, lane_config(lane)->settings->payment.lease_ms);
    add_wishes(params, op);
    return params;
}

/* --- back ------------------------------------------------------------------------------------- */

/* "again": its seats cannot be told free or taken just now, somebody is changing a hold of them. */
static enum sg_error refusal(const PGresult *rows)
{
    enum sg_error error = SG_OK;
    if (!lane_outcome(PQgetvalue(rows, 0, COL_OUTCOME), &error))
        return SG_OVERLOADED;
    bool passes = error == SG_FENCED || error == SG_STALE_EPOCH || error == SG_NOT_SYNCHRONOUS;
    return passes ? error : SG_OK;
}

static void fill_done(const struct lane_op *op, const struct call_reply *reply, struct seat *seats,
                      struct book_result *result)
{
    const PGresult *rows = reply->result;
    char own[UUID_TEXT_LEN + 1];
    uuid_format(&op->booking_id, own);
    bool found = !PQgetisnull(rows, 0, COL_BOOKING_ID);
    snprintf(result->booking_id, sizeof(result->booking_id), "%s",
             found ? PQgetvalue(rows, 0, COL_BOOKING_ID) : own);
    result->replayed = found && strcmp(own, result->booking_id) != 0;
    result->token = reply->commit.token;
    result->durability = reply->commit.durability;
    result->created_at_us = lane_number(rows, 0, COL_CREATED_US);
    result->status = PQgetvalue(rows, 0, COL_STATUS);
    result->expires_at_us = lane_number(rows, 0, COL_EXPIRES_US);
    result->amount = lane_number(rows, 0, COL_AMOUNT);
    lane_currency(rows, 0, COL_CURRENCY, result->currency);
    result->taken = seats;
    result->taken_count =
        lookup_seats(PQgetvalue(rows, 0, COL_SEATS), (int32_t)lane_number(rows, 0, COL_COLS), seats,
                     ROUTER_SEATS_MAX);
}

/* Number `wish` from 1; NULL: there is no such one. */
static const char *tier_of(const struct lane_op *op, int64_t wish)
{
    return wish >= 1 && wish <= (int64_t)op->wish_count ? op->wishes[wish - 1].tier : NULL;
}

static void on_taken(void *arg, const struct call_reply *reply)
{
    struct best_take *take = arg;
    struct lane_op *op = take->op;
    struct seat seats[ROUTER_SEATS_MAX];
    struct book_result result = {.error = reply->error};
    if (op) {
        if (reply->error == SG_OK &&
            !lane_outcome(PQgetvalue(reply->result, 0, COL_OUTCOME), &result.error))
            result.error = SG_INTERNAL;
        if (reply->error == SG_OK && result.error == SG_OK)
            fill_done(op, reply, seats, &result);
        else if (result.error == SG_SOLD_OUT || result.error == SG_OVER_LIMIT)
            result.left = lane_number(reply->result, 0, COL_ALLOWED);
        else if (result.error == SG_UNKNOWN_TIER)
            result.tier = tier_of(op, lane_number(reply->result, 0, COL_ALLOWED));
        lane_best_finish(take->lane, op, &result);
    }
    free(take);
}

enum sg_error best_take_start(struct calls *calls, struct lane *lane, struct lane_op *op,
                              struct best_take **ret_take)
{
    int64_t left_ms = (op->deadline_us - clock_mono_us()) / 1000;
    struct best_take *take = calloc(1, sizeof(*take));
    struct params *params = params_of(lane, op);
    if (!take || !params) {
        free(take);
        if (params)
            params_done(params);
        free(params);
        return SG_NO_MEMORY;
    }
    take->lane = lane;
    take->op = op;
    struct call_request request = {.route = {.map_version = op->map_version},
                                   .target = CALL_WRITE,
                                   .deadline_ms = left_ms > 0 ? left_ms : 1,
                                   .statement = STATEMENT_BEST_TAKE,
                                   .params = params,
                                   .refusal = refusal};
    snprintf(request.route.shard, sizeof(request.route.shard), "%s", lane_shard(lane));
    enum sg_error error = call_start(calls, &request, on_taken, take);
    if (error != SG_OK) {
        free(take);
        return error;
    }
    op->asked = true;
    *ret_take = take;
    return SG_OK;
}

void best_take_forget(struct best_take *take)
{
    if (take)
        take->op = NULL;
}
