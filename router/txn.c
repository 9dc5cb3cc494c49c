/*
 * The strategies of separate statements. See txn.h.
 *
 * A transaction is a list of steps with one driver: a reply is recorded, and `next` decides what
 * comes then. Whatever goes wrong after BEGIN leads through ROLLBACK, so that a connection never
 * goes back with a transaction open. Whatever acknowledges a booking, an earlier one too, leads
 * through COMMIT, with the question behind it what that has left (commit.h): both leave together.
 *
 * SPDX-License-Identifier: MIT
 */
#include "router/txn.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/dynbuf.h"
#include "base/log.h"
#include "router/commit.h"
#include "router/lane.h"
#include "router/lane_batch.h"
#include "router/params.h"
#include "router/pgconn.h"

#define STEPS_MAX 7

static const enum statement steps_of[][STEPS_MAX] = {
    [STRATEGY_NAIVE] = {STATEMENT_BEGIN, STATEMENT_LOOK, STATEMENT_CLAIM, STATEMENT_BOOK,
                        STATEMENT_COMMIT, STATEMENT_COUNT},
    [STRATEGY_PESSIMISTIC] = {STATEMENT_BEGIN, STATEMENT_LOCK, STATEMENT_LOOK, STATEMENT_CLAIM,
                              STATEMENT_BOOK, STATEMENT_COMMIT, STATEMENT_COUNT},
    [STRATEGY_OPTIMISTIC] = {STATEMENT_LOOK, STATEMENT_BEGIN, STATEMENT_CLAIM_VERSION,
                             STATEMENT_BOOK, STATEMENT_COMMIT, STATEMENT_COUNT},
};

/* What is to become of the booking once the transaction is out of the way. */
enum txn_end { TXN_ANSWER, TXN_AGAIN, TXN_AGAIN_LATER };

struct txn {
    struct lane_slot *slot;
    const enum statement *steps;
    size_t step;
    bool open; /* from the sending of BEGIN to the end */
    struct lane_op *op;
    bool committed;            /* the server said so */
    bool wait_cut;             /* but waited for no standby */
    bool asks_wal;             /* what comes behind COMMIT was sent, too */
    enum txn_end end;          /* once a ROLLBACK is on its way */
    struct book_result result; /* of TXN_ANSWER */
    struct seat conflicts[ROUTER_SEATS_MAX];
    int32_t seat_nos[ROUTER_SEATS_MAX];
    struct uuid seen[ROUTER_SEATS_MAX];
    bool has_seen[ROUTER_SEATS_MAX];
};

static bool send_step(struct txn *txn, enum statement statement);
static void commit(struct txn *txn);

/* --- parameters ------------------------------------------------------------------------------- */

static void add_rows_cols(struct params *params, const struct lane_op *op)
{
    params_array_begin(params, PARAMS_INT4, (int32_t)op->seat_count);
    for (size_t i = 0; i < op->seat_count; i++)
        params_array_i32(params, op->seats[i].row);
    params_array_end(params);
    params_array_begin(params, PARAMS_INT4, (int32_t)op->seat_count);
    for (size_t i = 0; i < op->seat_count; i++)
        params_array_i32(params, op->seats[i].col);
    params_array_end(params);
}

static void add_seat_nos(struct params *params, const struct txn *txn)
{
    params_array_begin(params, PARAMS_INT4, (int32_t)txn->op->seat_count);
    for (size_t i = 0; i < txn->op->seat_count; i++)
        params_array_i32(params, txn->seat_nos[i]);
    params_array_end(params);
}

static void add_seen(struct params *params, const struct txn *txn)
{
    struct uuid none = {{0}};
    params_array_begin(params, PARAMS_UUID, (int32_t)txn->op->seat_count);
    for (size_t i = 0; i < txn->op->seat_count; i++)
        params_array_uuid(params, txn->has_seen[i] ? &txn->seen[i] : &none);
    params_array_end(params);
}

static void encode(struct params *params, const struct txn *txn, enum statement statement)
{
    const struct lane_op *op = txn->op;
    switch (statement) {
    case STATEMENT_LOCK:
        params_i64(params, op->event_id);
        add_rows_cols(params, op);
        break;
    case STATEMENT_LOOK:
        params_i64(params, lane_slot_epoch(txn->slot));
        params_i64(params, op->event_id);
        params_uuid(params, &op->booking_id);
        params_text(params, op->user_id);
        params_text(params, op->idempotency_key);
        params_i64(params, op->request_hash);
        params_bool(params, op->asked || op->look_first);
        add_rows_cols(params, op);
        break;
    case STATEMENT_CLAIM:
    case STATEMENT_CLAIM_VERSION:
        params_i64(params, op->event_id);
        params_uuid(params, &op->booking_id);
        add_seat_nos(params, txn);
        if (statement == STATEMENT_CLAIM_VERSION) {
            add_seen(params, txn);
            params_i64(params, lane_slot_epoch(txn->slot));
            params_text(params, op->user_id);
        }
        break;
    case STATEMENT_BOOK:
        params_i64(params, op->event_id);
        params_uuid(params, &op->booking_id);
        params_text(params, op->user_id);
        add_seat_nos(params, txn);
        params_text(params, op->idempotency_key);
        params_i64(params, op->request_hash);
        break;
    default: /* BEGIN, ROLLBACK take none */
        break;
    }
}

/* --- endings ---------------------------------------------------------------------------------- */

static void settle(struct txn *txn)
{
    struct lane_op *op = txn->op;
    txn->op = NULL;
    txn->open = false;
    if (txn->end == TXN_ANSWER)
        lane_finish(txn->slot, op, &txn->result);
    else
        lane_again(txn->slot, op);
    lane_slot_idle(txn->slot, txn->end == TXN_AGAIN_LATER);
}

/* Ends the transaction, through ROLLBACK if one is open. */
static void finish(struct txn *txn, enum txn_end end)
{
    txn->end = end;
    if (!txn->open || !send_step(txn, STATEMENT_ROLLBACK))
        settle(txn);
}

static void finish_error(struct txn *txn, enum sg_error error)
{
    txn->result.error = error;
    finish(txn, TXN_ANSWER);
}

static void lost_race(struct txn *txn)
{
    int64_t tries = lane_config(lane_slot_lane(txn->slot))->settings->booking.optimistic_tries;
    if (++txn->op->tries < tries)
        finish(txn, TXN_AGAIN);
    else
        finish_error(txn, SG_OVERLOADED);
}

/* --- replies ---------------------------------------------------------------------------------- */

enum look_column {
    LOOK_OUTCOME,
    LOOK_BOOKING_ID,
    LOOK_CREATED_US,
    LOOK_CONFLICTS,
    LOOK_SEAT_NOS,
    LOOK_SEEN,
    LOOK_STATUS,
    LOOK_EXPIRES_US,
    LOOK_AMOUNT,
    LOOK_CURRENCY,
    LOOK_ALLOWED
};

enum book_column { BOOK_CREATED_US, BOOK_AMOUNT, BOOK_CURRENCY };

/* "{12,13}" and "{NULL,0190…}": as many elements as the booking has seats. */
static bool take_look(struct txn *txn, const char *seat_nos, const char *seen)
{
    for (size_t i = 0; i < txn->op->seat_count; i++) {
        char *end;
        if (*seat_nos != '{' && *seat_nos != ',')
            return false;
        txn->seat_nos[i] = (int32_t)strtol(seat_nos + 1, &end, 10);
        seat_nos = end;

        char text[UUID_TEXT_LEN + 1];
        if (*seen != '{' && *seen != ',')
            return false;
        size_t len = strcspn(++seen, ",}");
        snprintf(text, sizeof(text), "%.*s", (int)(len < sizeof(text) ? len : sizeof(text) - 1),
                 seen);
        txn->has_seen[i] = uuid_parse(text, &txn->seen[i]);
        seen += len;
    }
    return true;
}

/* An earlier answer of the same request. */
static void take_replay(struct txn *txn, const PGresult *rows)
{
    struct book_result *result = &txn->result;
    char own[UUID_TEXT_LEN + 1];
    uuid_format(&txn->op->booking_id, own);
    snprintf(result->booking_id, sizeof(result->booking_id), "%s",
             PQgetvalue(rows, 0, LOOK_BOOKING_ID));
    result->replayed = strcmp(own, result->booking_id) != 0;
    result->created_at_us = lane_number(rows, 0, LOOK_CREATED_US);
    result->status = strcmp(PQgetvalue(rows, 0, LOOK_STATUS), "held") == 0 ? "held" : "confirmed";
    result->expires_at_us = lane_number(rows, 0, LOOK_EXPIRES_US);
    result->amount = lane_number(rows, 0, LOOK_AMOUNT);
    lane_currency(rows, 0, LOOK_CURRENCY, result->currency);
}

/* True if the seats are free and the next step may come; otherwise the end has begun. */
static bool on_look(struct txn *txn, const PGresult *rows)
{
    struct book_result *result = &txn->result;
    const char *outcome = PQgetvalue(rows, 0, LOOK_OUTCOME);
    if (strcmp(outcome, "free") == 0 &&
        take_look(txn, PQgetvalue(rows, 0, LOOK_SEAT_NOS), PQgetvalue(rows, 0, LOOK_SEEN)))
        return true;
    if (!lane_outcome(outcome, &result->error)) {
        finish(txn, TXN_AGAIN); /* "again": an old key has just been set free */
    } else if (result->error == SG_FENCED || result->error == SG_STALE_EPOCH ||
               result->error == SG_NOT_SYNCHRONOUS) {
        lane_refused(txn->slot, result->error);
        finish(txn, TXN_AGAIN);
    } else if (result->error == SG_OK) {
        take_replay(txn, rows);
        commit(txn);
    } else {
        if (result->error == SG_SEATS_TAKEN || result->error == SG_UNKNOWN_SEAT) {
            result->seats = txn->conflicts;
            result->seat_count = lane_conflicts(PQgetvalue(rows, 0, LOOK_CONFLICTS), txn->op->seats,
                                                txn->op->seat_count, txn->conflicts);
        }
        result->left = lane_number(rows, 0, LOOK_ALLOWED);
        finish(txn, TXN_ANSWER);
    }
    return false;
}

/* True if the step did what it should and the next may come. */
static bool on_rows(struct txn *txn, enum statement statement, const PGresult *rows)
{
    switch (statement) {
    case STATEMENT_LOOK:
        return on_look(txn, rows);
    case STATEMENT_CLAIM:
    case STATEMENT_CLAIM_VERSION:
        if ((size_t)PQntuples(rows) == txn->op->seat_count)
            return true;
        lost_race(txn);
        return false;
    case STATEMENT_BOOK:
        if (PQntuples(rows) == 1) {
            txn->result.status = "confirmed";
            txn->result.created_at_us = lane_number(rows, 0, BOOK_CREATED_US);
            txn->result.amount = lane_number(rows, 0, BOOK_AMOUNT);
            lane_currency(rows, 0, BOOK_CURRENCY, txn->result.currency);
            return true;
        }
        txn->op->asked = true; /* its booking, or its key, is there: look for it */
        lost_race(txn);
        return false;
    default:
        return true;
    }
}

static void on_error(struct txn *txn, const struct pgreply *reply)
{
    struct lane *lane = lane_slot_lane(txn->slot);
    struct log_fields fields = {.request_id = txn->op->request_id,
                                .event_id = txn->op->event_id,
                                .shard = lane_shard(lane),
                                .node = pgconn_node(lane_slot_conn(txn->slot))};
    if (strncmp(reply->sqlstate, "40", 2) == 0) {
        lost_race(txn);
    } else if (pgconn_error_is_passing(reply->sqlstate)) {
        lane_slot_suspect(txn->slot, reply->message);
        finish(txn, TXN_AGAIN_LATER);
    } else {
        log_error(&fields, "booking failed: %s %s", reply->sqlstate, reply->message);
        finish_error(txn, SG_INTERNAL);
    }
}

/* The driver. */
static void on_reply(void *arg, const struct pgreply *reply)
{
    struct txn *txn = arg;
    enum statement statement = txn->steps[txn->step];
    if (reply->kind == PGREPLY_LOST) {
        txn->open = false; /* the server rolls back what was not committed */
        txn->op->asked = true;
        finish(txn, TXN_AGAIN);
        return;
    }
    if (reply->kind == PGREPLY_ERROR) {
        on_error(txn, reply);
        return;
    }
    txn->committed = !txn->open; /* a statement outside of a transaction is one */
    txn->wait_cut = reply->wait_cut;
    if (!on_rows(txn, statement, reply->result))
        return;
    enum statement following = txn->steps[++txn->step];
    if (following == STATEMENT_COMMIT)
        commit(txn);
    else if (!send_step(txn, following))
        finish(txn, TXN_AGAIN_LATER);
}

/* --- the end of one that is to stay ----------------------------------------------------------- */

/* The server has answered COMMIT and what is behind it. Without its word that it did commit, nobody
 * knows; and what it did may be less than was promised. Both are asked for again. */
static void conclude(struct txn *txn, const PGresult *behind)
{
    struct lane *lane = lane_slot_lane(txn->slot);
    struct commit left = commit_read(lane_shard(lane), behind, txn->wait_cut);
    txn->open = false;
    if (!txn->committed || !commit_holds(&left, lane_slot_durability(txn->slot))) {
        txn->op->asked = true;
        finish(txn, TXN_AGAIN_LATER);
        return;
    }
    txn->result.token = left.token;
    txn->result.durability = left.durability;
    if (!txn->result.booking_id[0])
        uuid_format(&txn->op->booking_id, txn->result.booking_id);
    lane_acknowledged(txn->slot, &left.token);
    finish_error(txn, SG_OK);
}

static void on_wal(void *arg, const struct pgreply *reply)
{
    conclude(arg, reply->kind == PGREPLY_ROWS ? reply->result : NULL);
}

static void on_committed(void *arg, const struct pgreply *reply)
{
    struct txn *txn = arg;
    txn->wait_cut = reply->wait_cut;
    txn->committed = reply->kind == PGREPLY_ROWS &&
                     strcmp(PQcmdStatus((PGresult *)reply->result), "COMMIT") == 0;
    if (reply->kind == PGREPLY_ERROR) /* whether it was done is not known */
        lane_slot_suspect(txn->slot, reply->message);
    if (!txn->asks_wal)
        conclude(txn, NULL);
}

/* Goes on to on_committed, if a transaction is open, and then on_wal. */
static void commit(struct txn *txn)
{
    struct pgconn *conn = lane_slot_conn(txn->slot);
    bool open = txn->open;
    txn->asks_wal = true; /* both leave before either is answered */
    if (open && !pgconn_send(conn, STATEMENT_COMMIT, NULL, on_committed, txn)) {
        txn->op->asked = true; /* a part of it may have gone out */
        finish(txn, TXN_AGAIN_LATER);
        return;
    }
    txn->asks_wal = pgconn_send(conn, STATEMENT_WAL, NULL, on_wal, txn);
    if (!open && !txn->asks_wal)
        conclude(txn, NULL);
}

static void on_rolled_back(void *arg, const struct pgreply *reply)
{
    struct txn *txn = arg;
    if (reply->kind == PGREPLY_ERROR) /* a lost connection rolls back as well, so lose it */
        lane_slot_suspect(txn->slot, reply->message);
    settle(txn);
}

static bool send_step(struct txn *txn, enum statement statement)
{
    struct params params;
    params_init(&params);
    encode(&params, txn, statement);
    bool sent = params_ok(&params) &&
                pgconn_send(lane_slot_conn(txn->slot), statement, &params,
                            statement == STATEMENT_ROLLBACK ? on_rolled_back : on_reply, txn);
    params_done(&params);
    if (sent && statement == STATEMENT_BEGIN)
        txn->open = true;
    return sent;
}

/* --- public ----------------------------------------------------------------------------------- */

struct txn *txn_new(struct lane_slot *slot, enum booking_strategy strategy)
{
    struct txn *txn = calloc(1, sizeof(*txn));
    if (!txn)
        return NULL;
    txn->slot = slot;
    txn->steps = steps_of[strategy];
    return txn;
}

void txn_free(struct txn *txn)
{
    free(txn);
}

bool txn_start(struct txn *txn, struct lane_op *op)
{
    assert(!txn->op);
    txn->op = op;
    txn->step = 0;
    txn->open = false;
    txn->result = (struct book_result){0};
    if (send_step(txn, txn->steps[0]))
        return true;
    txn->op = NULL;
    return false;
}
