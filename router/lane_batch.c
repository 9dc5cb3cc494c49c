/*
 * Batches: arrays out, a row an op back. See lane_batch.h; lane_take.c and lane_change.c have the
 * arrays and the rows, migrations/0005_life.sql what the database does with them.
 *
 * Behind each batch's COMMIT goes the question where the WAL ends now. The answer is at or past
 * that commit: the token of the batch's ops. All leaves in one write and comes back in one: a Sync
 * of its own for the question would cost a lone booking another turn of both processes.
 *
 * The same answer says whether the COMMIT has waited for a standby. On a connection with durability
 * sync an op is acknowledged only if it has, surely: if the server says that it waits for none, or
 * that the wait was cut short, or that answer got lost, the op is asked for again, and what it is
 * told then comes behind a COMMIT of its own.
 *
 * SPDX-License-Identifier: MIT
 */
#include "router/lane_batch.h"

#include <assert.h>
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

enum { COL_ORD, COL_OUTCOME }; /* of every codec */

static const struct lane_codec *codec_of(const struct lane *lane)
{
    return lane_class(lane) == LANE_CHANGES ? &lane_change_codec : &lane_take_codec;
}

/* --- the answer ------------------------------------------------------------------------------- */

static void count_batch(struct lane *lane, const char *outcome)
{
    const char *labels[] = {lane_shard(lane), outcome};
    metrics_add(metrics_series(lane_config(lane)->metrics, codec_of(lane)->batches, labels), 1);
}

/* All back into the queue, in their order. */
static void all_again(struct lane_slot *slot, bool asked)
{
    struct lane_op *op;
    while ((op = TAILQ_LAST(lane_slot_ops(slot), lane_op_list))) {
        op->asked |= asked;
        lane_again(slot, op);
    }
}

/* A row for each op: those that are done are answered in order, the rest goes again. Those that are
 * done, but not as durably as was asked for, are asked for again. True if there are such. */
static bool on_rows(struct lane_slot *slot, const PGresult *rows, const struct commit *commit)
{
    const struct lane_codec *codec = codec_of(lane_slot_lane(slot));
    bool sure = commit_holds(commit, lane_slot_durability(slot));
    bool any_unsure = false;
    struct lane_op *ops[BATCH_MAX];
    struct lane_op *again[BATCH_MAX];
    struct lane_op *op;
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
        if (error == SG_OK)
            lane_acknowledged(slot, &commit->token);
        const struct lane_row answer = {rows, row, commit, error};
        bool done = codec->finish(slot, ops[ord - 1], &answer);
        assert(done || error != SG_OK); /* what is counted is told */
        if (done)
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
    struct lane_op *op = TAILQ_FIRST(lane_slot_ops(slot));
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
        log_error(&fields, "%s failed: %s %s", codec_of(lane)->noun, reply->sqlstate,
                  reply->message);
        lane_fail(slot, TAILQ_FIRST(lane_slot_ops(slot)), SG_INTERNAL);
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
    metrics_observe_us(metrics_series(config->metrics, codec_of(lane)->duration, labels),
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

void lane_encode_who(struct params *params, struct lane_op_list *ops, int32_t count)
{
    struct lane_op *op;
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
}

bool lane_batch_send(struct lane_slot *slot, const bool *rivals, size_t count)
{
    struct lane *lane = lane_slot_lane(slot);
    const struct lane_codec *codec = codec_of(lane);
    struct params params;
    params_init(&params);
    params_i64(&params, lane_slot_epoch(slot));
    codec->encode(&params, slot, rivals, (int32_t)count);
    bool sent = params_ok(&params) && pgconn_send_committed(lane_slot_conn(slot), codec->statement,
                                                            &params, STATEMENT_WAL, on_reply, slot);
    params_done(&params);
    if (sent)
        metrics_add(metrics_series(lane_config(lane)->metrics, codec->ops,
                                   (const char *[]){lane_shard(lane)}),
                    (int64_t)count);
    return sent;
}
