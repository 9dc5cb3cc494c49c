/*
 * Batches: the arrays of book_batch() out, a row a booking back. See lane_batch.h, and for what the
 * database does with them migrations/0002_functions.sql.
 *
 * Behind each batch's COMMIT goes the question where the WAL ends now. The answer is at or past
 * that commit: the token of the batch's bookings. All leaves in one write and comes back in one: a
 * Sync of its own for the question would cost a lone booking another turn of both processes.
 *
 * The same answer says whether the COMMIT has waited for a standby. On a connection with durability
 * sync a booking is acknowledged only if it has, surely: if the server says that it waits for none,
 * or that the wait was cut short, or that answer got lost, the booking is asked for again, and what
 * it is told then comes behind a COMMIT of its own.
 *
 * SPDX-License-Identifier: MIT
 */
#include "router/lane_batch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/metrics.h"
#include "router/batch.h"
#include "router/commit.h"
#include "router/lane.h"
#include "router/params.h"
#include "router/pgconn.h"

static void encode_requests(struct params *params, struct booking_op_list *ops, const bool *rivals,
                            int32_t count)
{
    struct booking_op *op;
    params_array_begin(params, PARAMS_INT8, count);
    TAILQ_FOREACH (op, ops, place)
        params_array_i64(params, op->event_id);
    params_array_end(params);
    params_array_begin(params, PARAMS_UUID, count);
    TAILQ_FOREACH (op, ops, place)
        params_array_uuid(params, &op->booking_id);
    params_array_end(params);
    params_array_begin(params, PARAMS_TEXT, count);
    TAILQ_FOREACH (op, ops, place)
        params_array_text(params, op->user_id);
    params_array_end(params);
    params_array_begin(params, PARAMS_TEXT, count);
    TAILQ_FOREACH (op, ops, place)
        params_array_text(params, op->idempotency_key);
    params_array_end(params);
    params_array_begin(params, PARAMS_INT8, count);
    TAILQ_FOREACH (op, ops, place)
        params_array_i64(params, op->request_hash);
    params_array_end(params);
    params_array_begin(params, PARAMS_BOOL, count);
    TAILQ_FOREACH (op, ops, place)
        params_array_bool(params, op->asked);
    params_array_end(params);
    params_array_begin(params, PARAMS_BOOL, count);
    for (int32_t i = 0; i < count; i++)
        params_array_bool(params, rivals[i]);
    params_array_end(params);
}

static void encode_seats(struct params *params, struct booking_op_list *ops)
{
    struct booking_op *op;
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

/* --- the answer ------------------------------------------------------------------------------- */

enum batch_column { COL_ORD, COL_OUTCOME, COL_BOOKING_ID, COL_CREATED_US, COL_CONFLICTS };

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

static void finish(struct lane_slot *slot, struct booking_op *op, const PGresult *rows, int row,
                   const struct commit *commit, enum sg_error error)
{
    struct seat conflicts[ROUTER_SEATS_MAX];
    struct book_result result = {.error = error};
    if (error == SG_OK) {
        result.token = commit->token;
        result.durability = commit->durability;
        result.created_at_us = strtoll(PQgetvalue(rows, row, COL_CREATED_US), NULL, 10);
        if (PQgetisnull(rows, row, COL_BOOKING_ID)) {
            uuid_format(&op->booking_id, result.booking_id);
        } else { /* found: somebody's earlier answer, or our own that was lost on the way */
            char own[UUID_TEXT_LEN + 1];
            uuid_format(&op->booking_id, own);
            snprintf(result.booking_id, sizeof(result.booking_id), "%s",
                     PQgetvalue(rows, row, COL_BOOKING_ID));
            result.replayed = strcmp(own, result.booking_id) != 0;
        }
    } else if (error == SG_SEATS_TAKEN || error == SG_UNKNOWN_SEAT) {
        result.seats = conflicts;
        result.seat_count = lane_conflicts(PQgetvalue(rows, row, COL_CONFLICTS), op->seats,
                                           op->seat_count, conflicts);
    }
    lane_finish(slot, op, &result);
}

static void count_batch(struct lane *lane, const char *outcome)
{
    const char *labels[] = {lane_shard(lane), outcome};
    metrics_add(metrics_series(lane_config(lane)->metrics, METRIC_BATCHES, labels), 1);
}

/* All back into the queue, in their order. */
static void all_again(struct lane_slot *slot, bool asked)
{
    struct booking_op *op;
    while ((op = TAILQ_LAST(lane_slot_ops(slot), booking_op_list))) {
        op->asked |= asked;
        lane_again(slot, op);
    }
}

/* A row for each booking: those that are done are answered in order, the rest goes again. Those
 * that are done, but not as durably as was asked for, are asked for again. True if there are such.
 */
static bool on_rows(struct lane_slot *slot, const PGresult *rows, const struct commit *commit)
{
    bool sure = commit_holds(commit, lane_slot_durability(slot));
    bool any_unsure = false;
    struct booking_op *ops[BATCH_MAX];
    struct booking_op *again[BATCH_MAX];
    struct booking_op *op;
    int count = 0;
    size_t again_count = 0;
    TAILQ_FOREACH (op, lane_slot_ops(slot), place)
        ops[count++] = op;
    for (int row = 0; row < PQntuples(rows); row++) {
        enum sg_error error;
        int ord = atoi(PQgetvalue(rows, row, COL_ORD));
        if (ord < 1 || ord > count || !ops[ord - 1])
            continue;
        if (!lane_outcome(PQgetvalue(rows, row, COL_OUTCOME), &error))
            continue;
        if (error == SG_OK && !sure) {
            ops[ord - 1]->asked = true;
            any_unsure = true;
            continue;
        }
        if (error == SG_OK) /* counted before it is told: who is told may look at once */
            lane_acknowledged(slot, &commit->token, 1);
        finish(slot, ops[ord - 1], rows, row, commit, error);
        ops[ord - 1] = NULL;
    }
    for (int i = 0; i < count; i++) {
        if (ops[i])
            again[again_count++] = ops[i];
    }
    while (again_count)
        lane_again(slot, again[--again_count]);
    return any_unsure;
}

static bool is_refusal_of_all(const PGresult *rows)
{
    return PQntuples(rows) == 1 && strcmp(PQgetvalue(rows, 0, COL_ORD), "0") == 0;
}

static void on_error(struct lane_slot *slot, const struct pgreply *reply)
{
    struct lane *lane = lane_slot_lane(slot);
    struct booking_op *op = TAILQ_FIRST(lane_slot_ops(slot));
    struct log_fields fields = {.request_id = op->request_id,
                                .event_id = op->event_id,
                                .shard = lane_shard(lane),
                                .node = pgconn_node(lane_slot_conn(slot))};
    if (pgconn_error_is_passing(reply->sqlstate)) {
        bool collided = strncmp(reply->sqlstate, "40", 2) == 0;
        all_again(slot, false);
        if (!collided)
            lane_slot_suspect(slot, reply->message);
        lane_slot_idle(slot, collided);
        return;
    }
    size_t count = 0;
    TAILQ_FOREACH (op, lane_slot_ops(slot), place)
        count++;
    if (batch_halve(count)) {
        log_warn(&fields, "a batch of %zu failed and goes again in halves: %s %s", count,
                 reply->sqlstate, reply->message);
        lane_slot_failed(slot, count);
        all_again(slot, false);
    } else {
        log_error(&fields, "booking failed: %s %s", reply->sqlstate, reply->message);
        lane_finish(slot, TAILQ_FIRST(lane_slot_ops(slot)),
                    &(struct book_result){.error = SG_INTERNAL});
    }
    lane_slot_idle(slot, false);
}

static void on_reply(void *arg, const struct pgreply *reply)
{
    struct lane_slot *slot = arg;
    struct lane *lane = lane_slot_lane(slot);
    const struct router_config *config = lane_config(lane);
    if (reply->kind == PGREPLY_LOST) {
        count_batch(lane, "lost");
        all_again(slot, true);
        lane_slot_idle(slot, false);
        return;
    }
    const char *labels[] = {lane_shard(lane), pgconn_node(lane_slot_conn(slot))};
    metrics_observe_us(metrics_series(config->metrics, METRIC_BATCH_DURATION, labels),
                       reply->duration_us);
    if (reply->kind == PGREPLY_ERROR) {
        count_batch(lane, "error");
        on_error(slot, reply);
    } else if (is_refusal_of_all(reply->result)) {
        enum sg_error refusal = SG_FENCED;
        (void)lane_outcome(PQgetvalue(reply->result, 0, COL_OUTCOME), &refusal);
        count_batch(lane, PQgetvalue(reply->result, 0, COL_OUTCOME));
        all_again(slot, false);
        lane_refused(slot, refusal);
        lane_slot_idle(slot, false);
    } else {
        struct commit commit = commit_read(lane_shard(lane), reply->behind, reply->wait_cut);
        bool unsure = on_rows(slot, reply->result, &commit);
        count_batch(lane, unsure ? "unsure" : "ok");
        lane_slot_idle(slot, unsure);
    }
}

bool lane_batch_send(struct lane_slot *slot, const bool *rivals, size_t count)
{
    struct lane *lane = lane_slot_lane(slot);
    struct params params;
    params_init(&params);
    params_i64(&params, lane_slot_epoch(slot));
    encode_requests(&params, lane_slot_ops(slot), rivals, (int32_t)count);
    encode_seats(&params, lane_slot_ops(slot));
    bool sent =
        params_ok(&params) && pgconn_send_committed(lane_slot_conn(slot), STATEMENT_BOOK_BATCH,
                                                    &params, STATEMENT_WAL, on_reply, slot);
    params_done(&params);
    if (sent)
        metrics_add(metrics_series(lane_config(lane)->metrics, METRIC_BATCH_BOOKINGS,
                                   (const char *[]){lane_shard(lane)}),
                    (int64_t)count);
    return sent;
}
