/*
 * The PostgreSQL connection. See pgconn.h for the states.
 *
 * libpq's pipeline mode: PQgetResult gives a statement's result, then NULL, then the Sync's
 * PGRES_PIPELINE_SYNC (with no NULL behind it). So the queue of expectations holds one entry a
 * statement, finished by its Sync; or one for a whole transaction and what is sent behind it.
 *
 * The reply waits for the Sync: the transaction ends there and not with the rows, so an error may
 * still come behind them (a server that shuts down between the two rolls back what it has just
 * answered). One sent whole ends with its COMMIT, if the server says so and not ROLLBACK; after
 * anything else it is rolled back, as it may still be open. And when the connection goes, libpq
 * makes up an error result for the oldest statement; without its Sync that is no answer of the
 * server, but a loss like the others.
 *
 * SPDX-License-Identifier: MIT
 */
#include "router/pgconn.h"

#include <assert.h>
#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/reap.h"
#include "base/settings.h"
#include "shardmap/shardmap.h"

enum pgconn_state { PGCONN_WAITING, PGCONN_CONNECTING, PGCONN_PREPARING, PGCONN_READY };

struct expectation {
    pgreply_fn *fn; /* NULL: our own preparing */
    void *arg;
    int64_t sent_us;
    PGresult *result; /* owned; waits for the Sync */
    bool wait_cut;    /* the server said so */
    /* of pgconn_send_committed: */
    bool committed;
    unsigned seen;    /* its results so far; the next one's part */
    bool ended;       /* the server said COMMIT to its COMMIT */
    PGresult *behind; /* owned; rows of what is behind it */
};

/* The results of pgconn_send_committed, in order. */
enum part { PART_BEGIN, PART_STATEMENT, PART_COMMIT, PART_BEHIND };

struct pgconn {
    struct pgconn_config config;
    char shard[SHARDMAP_NAME_MAX + 1];
    char node[SHARDMAP_NAME_MAX + 1];
    char *dsn;
    enum pgconn_state state;
    PGconn *pg;
    struct event *io_event; /* on pg's socket; NULL outside a connection */
    struct event *writable; /* armed while libpq has unsent bytes */
    struct event *timer;    /* backoff, connect deadline, or the oldest statement's deadline */
    struct expectation queue[PGCONN_IN_FLIGHT_MAX];
    unsigned head;
    unsigned count;
    unsigned failures; /* connects in a row that failed */
    bool freed;
    bool in_callback; /* results are being delivered: a reset waits until that is done */
    char pending_reset[128];
    struct metrics_series *open_gauge;
};

static void on_connect_progress(evutil_socket_t fd, short what, void *arg);
static void on_readable(evutil_socket_t fd, short what, void *arg);
static void on_writable(evutil_socket_t fd, short what, void *arg);
static void lose(struct pgconn *conn, const char *reason);
static void lose_soon(struct pgconn *conn, const char *reason);

static struct log_fields fields_of(const struct pgconn *conn)
{
    return (struct log_fields){.shard = conn->shard, .node = conn->node};
}

static const char *use_name(const struct pgconn *conn)
{
    return conn->config.use == PGCONN_WRITE ? "write" : "read";
}

static void set_state(struct pgconn *conn, enum pgconn_state state)
{
    if ((conn->state == PGCONN_READY) != (state == PGCONN_READY))
        metrics_add(conn->open_gauge, state == PGCONN_READY ? 1 : -1);
    conn->state = state;
}

static void set_timer_us(struct pgconn *conn, int64_t us)
{
    struct timeval tv = clock_timeval_us(us);
    event_add(conn->timer, &tv);
}

static void count_connect(struct pgconn *conn, const char *outcome)
{
    const char *labels[] = {conn->node, outcome};
    metrics_add(metrics_series(conn->config.metrics, METRIC_DB_CONNECTS, labels), 1);
}

/* Exponential, with jitter of a half, so that a restarted server is not met by everybody at once.
 */
static int64_t backoff_us(const struct pgconn *conn)
{
    int64_t min_us = conn->config.settings->postgres.backoff_min_ms * 1000;
    int64_t max_us = conn->config.settings->postgres.backoff_max_ms * 1000;
    unsigned doublings = conn->failures > 16 ? 16 : conn->failures;
    int64_t us = min_us << doublings;
    if (us > max_us)
        us = max_us;
    return us / 2 + (int64_t)arc4random_uniform((uint32_t)(us / 2 + 1));
}

/* --- the socket's events ---------------------------------------------------------------------- */

static void drop_io_events(struct pgconn *conn)
{
    if (conn->io_event)
        event_free(conn->io_event);
    if (conn->writable)
        event_free(conn->writable);
    conn->io_event = NULL;
    conn->writable = NULL;
}

/* libpq may change its socket between two polls, so the event is made anew for each. */
static bool wait_connect(struct pgconn *conn, PostgresPollingStatusType status)
{
    short what = status == PGRES_POLLING_READING ? EV_READ : EV_WRITE;
    drop_io_events(conn);
    conn->io_event =
        event_new(conn->config.base, PQsocket(conn->pg), what, on_connect_progress, conn);
    return conn->io_event && event_add(conn->io_event, NULL) == 0;
}

static bool watch_pipeline(struct pgconn *conn)
{
    int fd = PQsocket(conn->pg);
    drop_io_events(conn);
    conn->io_event = event_new(conn->config.base, fd, EV_READ | EV_PERSIST, on_readable, conn);
    conn->writable = event_new(conn->config.base, fd, EV_WRITE, on_writable, conn);
    return conn->io_event && conn->writable && event_add(conn->io_event, NULL) == 0;
}

/* False if the connection is broken. */
static bool flush(struct pgconn *conn)
{
    int left = PQflush(conn->pg);
    if (left > 0)
        event_add(conn->writable, NULL);
    return left >= 0;
}

/* --- connecting and preparing ----------------------------------------------------------------- */

/* Whoever cancels a COMMIT's wait for a standby gets a success and this warning. The statements
 * used here give no other of that class, and one taken for it by mistake costs a question more. */
static void on_notice(void *arg, const PGresult *notice)
{
    struct pgconn *conn = arg;
    const char *sqlstate = PQresultErrorField(notice, PG_DIAG_SQLSTATE);
    bool cut = sqlstate && (strcmp(sqlstate, "01000") == 0 || strncmp(sqlstate, "57P", 3) == 0);
    if (cut && conn->count)
        conn->queue[conn->head].wait_cut = true;
}

static const char *session_options(const struct pgconn *conn)
{
    if (conn->config.use != PGCONN_WRITE)
        return STATEMENT_SESSION_OPTIONS;
    return conn->config.durability == SHARDMAP_SYNC ? STATEMENT_SYNC_OPTIONS
                                                    : STATEMENT_ASYNC_OPTIONS;
}

static void start_connect(struct pgconn *conn)
{
    bool write = conn->config.use == PGCONN_WRITE;
    const char *keys[] = {"dbname", "application_name", "options", "target_session_attrs", NULL};
    const char *values[] = {conn->dsn, write ? "seatgrid-write" : "seatgrid-read",
                            session_options(conn), write ? "read-write" : "any", NULL};
    conn->pg = PQconnectStartParams(keys, values, 1);
    set_state(conn, PGCONN_CONNECTING);
    set_timer_us(conn, conn->config.settings->postgres.connect_timeout_ms * 1000);
    if (!conn->pg || PQstatus(conn->pg) == CONNECTION_BAD)
        lose(conn, conn->pg ? PQerrorMessage(conn->pg) : "out of memory");
    else if (!wait_connect(conn, PGRES_POLLING_WRITING))
        lose(conn, "no event for the socket");
    else
        PQsetNoticeReceiver(conn->pg, on_notice, conn);
}

static void expect(struct pgconn *conn, bool committed, pgreply_fn *fn, void *arg)
{
    assert(conn->count < PGCONN_IN_FLIGHT_MAX);
    conn->queue[(conn->head + conn->count++) % PGCONN_IN_FLIGHT_MAX] = (struct expectation){
        .fn = fn, .arg = arg, .sent_us = clock_mono_us(), .committed = committed};
    if (conn->count == 1)
        set_timer_us(conn, conn->config.settings->postgres.statement_timeout_ms * 1000);
}

/* All statements of the use behind one Sync: one round trip, and one error if any fails. */
static bool send_prepares(struct pgconn *conn)
{
    for (int i = 0; i < STATEMENT_COUNT; i++) {
        const struct statement_info *info = statement_info((enum statement)i);
        if (info->write && conn->config.use != PGCONN_WRITE)
            continue;
        if (!PQsendPrepare(conn->pg, info->name, info->sql, 0, NULL))
            return false;
    }
    return PQpipelineSync(conn->pg) == 1;
}

static void on_connected(struct pgconn *conn)
{
    set_state(conn, PGCONN_PREPARING);
    expect(conn, false, NULL, NULL);
    if (PQsetnonblocking(conn->pg, 1) != 0 || !PQenterPipelineMode(conn->pg) ||
        !watch_pipeline(conn) || !send_prepares(conn) || !flush(conn))
        lose(conn, PQerrorMessage(conn->pg));
}

static void on_connect_progress(evutil_socket_t fd, short what, void *arg)
{
    struct pgconn *conn = arg;
    (void)fd;
    (void)what;
    if (conn->pending_reset[0]) {
        lose(conn, conn->pending_reset);
        return;
    }
    PostgresPollingStatusType status = PQconnectPoll(conn->pg);
    if (status == PGRES_POLLING_OK)
        on_connected(conn);
    else if (status == PGRES_POLLING_FAILED)
        lose(conn, PQerrorMessage(conn->pg));
    else if (!wait_connect(conn, status))
        lose(conn, "no event for the socket");
}

static void on_prepared(struct pgconn *conn)
{
    struct log_fields fields = fields_of(conn);
    conn->failures = 0;
    count_connect(conn, "ok");
    set_state(conn, PGCONN_READY);
    log_debug(&fields, "%s connection is ready", use_name(conn));
    conn->config.on_ready(conn->config.arg);
}

/* --- losing ----------------------------------------------------------------------------------- */

static struct expectation take_oldest(struct pgconn *conn)
{
    struct expectation oldest = conn->queue[conn->head];
    conn->head = (conn->head + 1) % PGCONN_IN_FLIGHT_MAX;
    conn->count--;
    return oldest;
}

static void deliver_lost(struct pgconn *conn, const char *reason)
{
    struct pgreply reply = {.kind = PGREPLY_LOST, .message = reason};
    while (conn->count) {
        struct expectation lost = take_oldest(conn);
        PQclear(lost.result);
        PQclear(lost.behind);
        if (!lost.fn)
            continue;
        reply.duration_us = clock_mono_us() - lost.sent_us;
        lost.fn(lost.arg, &reply);
    }
}

static void close_pg(struct pgconn *conn)
{
    drop_io_events(conn);
    event_del(conn->timer);
    if (conn->pg)
        PQfinish(conn->pg);
    conn->pg = NULL;
}

/* The one way out of every state but WAITING. */
static void lose(struct pgconn *conn, const char *reason)
{
    struct log_fields fields = fields_of(conn);
    char text[256];
    bool was_ready = conn->state == PGCONN_READY;
    snprintf(text, sizeof(text), "%s", reason); /* it may live in the PGconn */
    if (was_ready)
        log_warn(&fields, "%s connection lost: %s", use_name(conn), text);
    else if (conn->failures == 0)
        log_warn(&fields, "cannot connect for %ss: %s", use_name(conn), text);
    if (!was_ready)
        count_connect(conn, "failed");
    set_state(conn, PGCONN_WAITING);
    close_pg(conn);
    set_timer_us(conn, backoff_us(conn));
    conn->failures++;
    conn->in_callback = true;
    deliver_lost(conn, text);
    conn->in_callback = false;
    conn->pending_reset[0] = '\0';
    if (!conn->freed)
        conn->config.on_lost(conn->config.arg, text);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct pgconn *conn = arg;
    (void)fd;
    (void)what;
    switch (conn->state) {
    case PGCONN_WAITING:
        start_connect(conn);
        return;
    case PGCONN_CONNECTING:
        lose(conn, "no connection within postgres.connect_timeout_ms");
        return;
    case PGCONN_PREPARING:
    case PGCONN_READY:
        if (conn->count == 0)
            return;
        int64_t left_us = conn->queue[conn->head].sent_us +
                          conn->config.settings->postgres.statement_timeout_ms * 1000 -
                          clock_mono_us();
        if (left_us > 0)
            set_timer_us(conn, left_us); /* the oldest was answered; this is the next one's */
        else
            lose(conn, "no answer within postgres.statement_timeout_ms");
        return;
    }
}

/* --- sending ---------------------------------------------------------------------------------- */

/* Without a Sync. `params` NULL: it has none. */
static bool send_statement(struct pgconn *conn, enum statement statement,
                           const struct params *params)
{
    const struct statement_info *info = statement_info(statement);
    const char *values[PARAMS_MAX];
    int lengths[PARAMS_MAX];
    int formats[PARAMS_MAX];
    if (params)
        params_export(params, values, lengths, formats);
    return PQsendQueryPrepared(conn->pg, info->name, params ? params->count : 0, values, lengths,
                               formats, info->result_format) == 1;
}

static const struct expectation *newest(const struct pgconn *conn)
{
    return &conn->queue[(conn->head + conn->count - 1) % PGCONN_IN_FLIGHT_MAX];
}

/* False if there is no room, or what is in flight is to stay the last. */
static bool has_room(const struct pgconn *conn)
{
    return pgconn_is_ready(conn) && conn->count < PGCONN_IN_FLIGHT_MAX &&
           (conn->count == 0 || !newest(conn)->committed);
}

/* --- results ---------------------------------------------------------------------------------- */

static bool is_error(const PGresult *result)
{
    ExecStatusType status = PQresultStatus(result);
    return status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK;
}

/* One of a transaction's results. True: it has been dealt with; false: it counts like that of a
 * statement sent alone. What comes behind a COMMIT that was executed cannot undo it. */
static bool keep_part(struct expectation *expected, PGresult *result)
{
    unsigned part = expected->seen++;
    bool ok = !is_error(result);
    if (part == PART_COMMIT && ok)
        expected->ended = strcmp(PQcmdStatus(result), "COMMIT") == 0;
    if (part == PART_BEHIND && ok)
        expected->behind = result;
    else if (expected->ended || (ok && part != PART_STATEMENT))
        PQclear(result);
    else
        return false;
    return true;
}

/* An error behind the rows takes their place; the first of several errors is the one that counts,
 * what follows it was only skipped. */
static void keep_result(struct expectation *expected, PGresult *result)
{
    if (expected->committed && keep_part(expected, result))
        return;
    if (expected->result && (is_error(expected->result) || !is_error(result))) {
        PQclear(result);
        return;
    }
    PQclear(expected->result);
    expected->result = result;
}

/* DDL took the prepared statement's ground away, or somebody deallocated it. */
static bool wants_preparing(const char *sqlstate)
{
    return strcmp(sqlstate, "26000") == 0 || strcmp(sqlstate, "0A000") == 0;
}

static void deliver(struct pgconn *conn, const struct expectation *done)
{
    struct pgreply reply = {.kind = PGREPLY_ROWS,
                            .result = done->result,
                            .behind = done->behind,
                            .wait_cut = done->wait_cut,
                            .duration_us = clock_mono_us() - done->sent_us};
    if (done->committed && !done->ended && !is_error(done->result)) {
        /* No error, and no commit: a COMMIT that rolls back says so by its tag alone. */
        reply.kind = PGREPLY_LOST;
        reply.result = NULL;
        reply.behind = NULL;
        reply.message = "COMMIT did not commit";
        lose_soon(conn, reply.message);
    } else if (is_error(done->result)) {
        const char *sqlstate = PQresultErrorField(done->result, PG_DIAG_SQLSTATE);
        const char *message = PQresultErrorField(done->result, PG_DIAG_MESSAGE_PRIMARY);
        reply.kind = PGREPLY_ERROR;
        snprintf(reply.sqlstate, sizeof(reply.sqlstate), "%s", sqlstate ? sqlstate : "XX000");
        reply.message = message ? message : PQresultErrorMessage(done->result);
        if (wants_preparing(reply.sqlstate) && !conn->pending_reset[0])
            snprintf(conn->pending_reset, sizeof(conn->pending_reset),
                     "the statements are to be prepared anew: %s", reply.message);
    }
    if (done->fn)
        done->fn(done->arg, &reply);
    else if (reply.kind == PGREPLY_ROWS)
        on_prepared(conn);
    else
        snprintf(conn->pending_reset, sizeof(conn->pending_reset), "cannot prepare: %s",
                 reply.message);
}

static void on_rolled_back(void *arg, const struct pgreply *reply)
{
    struct pgconn *conn = arg;
    if (reply->kind == PGREPLY_ERROR)
        lose_soon(conn, reply->message);
}

/* Ends what may still be open, so that what comes next does not land in there: a COMMIT that was
 * cancelled before it ran has ended nothing. Outside of a transaction it does no harm. */
static void roll_back(struct pgconn *conn)
{
    if (send_statement(conn, STATEMENT_ROLLBACK, NULL) && PQpipelineSync(conn->pg))
        expect(conn, false, on_rolled_back, conn);
    else
        lose_soon(conn, PQerrorMessage(conn->pg));
}

static void on_sync(struct pgconn *conn)
{
    struct expectation done = take_oldest(conn);
    if (done.committed && !done.ended)
        roll_back(conn);
    deliver(conn, &done);
    PQclear(done.result);
    PQclear(done.behind);
}

/* Takes every result that is complete. Callbacks may send more, or ask for a reset. */
static void take_results(struct pgconn *conn)
{
    int nulls = 0;
    while (conn->count && !conn->freed && !conn->pending_reset[0] && !PQisBusy(conn->pg)) {
        PGresult *result = PQgetResult(conn->pg);
        if (!result) {
            if (++nulls > 1)
                break; /* nothing more until the socket has more */
            continue;
        }
        nulls = 0;
        if (PQresultStatus(result) == PGRES_PIPELINE_SYNC) {
            PQclear(result);
            on_sync(conn);
        } else {
            keep_result(&conn->queue[conn->head], result);
        }
    }
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
    struct pgconn *conn = arg;
    (void)fd;
    (void)what;
    bool alive = PQconsumeInput(conn->pg) == 1;
    conn->in_callback = true;
    take_results(conn); /* what came before the end is still true */
    conn->in_callback = false;
    if (conn->freed) {
        deliver_lost(conn, "the connection is no longer wanted");
        close_pg(conn);
        return;
    }
    if (conn->pending_reset[0])
        lose(conn, conn->pending_reset);
    else if (!alive || PQstatus(conn->pg) == CONNECTION_BAD)
        lose(conn, PQerrorMessage(conn->pg));
    else if (!flush(conn))
        lose(conn, PQerrorMessage(conn->pg));
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
    struct pgconn *conn = arg;
    (void)fd;
    (void)what;
    if (!flush(conn))
        lose(conn, PQerrorMessage(conn->pg));
}

/* --- public ----------------------------------------------------------------------------------- */

static void destroy(void *object)
{
    struct pgconn *conn = object;
    close_pg(conn);
    event_free(conn->timer);
    free(conn->dsn);
    free(conn);
}

struct pgconn *pgconn_new(const struct pgconn_config *config)
{
    struct pgconn *conn = calloc(1, sizeof(*conn));
    if (!conn)
        return NULL;
    conn->config = *config;
    snprintf(conn->shard, sizeof(conn->shard), "%s", config->shard);
    snprintf(conn->node, sizeof(conn->node), "%s", config->node);
    conn->dsn = strdup(config->dsn);
    conn->timer = evtimer_new(config->base, on_timer, conn);
    if (!conn->dsn || !conn->timer) {
        if (conn->timer)
            event_free(conn->timer);
        free(conn->dsn);
        free(conn);
        return NULL;
    }
    const char *labels[] = {conn->node, use_name(conn)};
    conn->open_gauge = metrics_series(config->metrics, METRIC_DB_CONNECTIONS, labels);
    set_timer_us(conn, 0);
    return conn;
}

void pgconn_free(struct pgconn *conn)
{
    if (!conn)
        return;
    assert(!conn->freed);
    conn->freed = true;
    set_state(conn, PGCONN_WAITING);
    event_del(conn->timer);
    if (!conn->in_callback) {
        drop_io_events(conn);
        deliver_lost(conn, "the connection is no longer wanted");
    }
    reap(conn->config.reap, conn, destroy);
}

bool pgconn_error_is_passing(const char *sqlstate)
{
    return strncmp(sqlstate, "57P", 3) == 0 || strcmp(sqlstate, "25006") == 0 ||
           strncmp(sqlstate, "53", 2) == 0 || strncmp(sqlstate, "40", 2) == 0 ||
           wants_preparing(sqlstate);
}

bool pgconn_is_ready(const struct pgconn *conn)
{
    return conn->state == PGCONN_READY && !conn->pending_reset[0] && !conn->freed;
}

size_t pgconn_in_flight(const struct pgconn *conn)
{
    return conn->count;
}

const char *pgconn_node(const struct pgconn *conn)
{
    return conn->node;
}

/* Marks the connection for loss from a place where the caller is not ready for its callbacks. */
static void lose_soon(struct pgconn *conn, const char *reason)
{
    snprintf(conn->pending_reset, sizeof(conn->pending_reset), "%s",
             reason[0] ? reason : "no reason given");
    if (!conn->in_callback)
        event_active(conn->io_event, EV_READ, 0);
}

bool pgconn_send(struct pgconn *conn, enum statement statement, const struct params *params,
                 pgreply_fn *fn, void *arg)
{
    if (!has_room(conn))
        return false;
    if (!send_statement(conn, statement, params) || !PQpipelineSync(conn->pg) || !flush(conn)) {
        lose_soon(conn, PQerrorMessage(conn->pg));
        return false;
    }
    expect(conn, false, fn, arg);
    return true;
}

bool pgconn_send_committed(struct pgconn *conn, enum statement statement,
                           const struct params *params, enum statement behind, pgreply_fn *fn,
                           void *arg)
{
    if (!has_room(conn))
        return false;
    if (!send_statement(conn, STATEMENT_BEGIN, NULL) || !send_statement(conn, statement, params) ||
        !send_statement(conn, STATEMENT_COMMIT, NULL) || !send_statement(conn, behind, NULL) ||
        !PQpipelineSync(conn->pg) || !flush(conn)) {
        lose_soon(conn, PQerrorMessage(conn->pg));
        return false;
    }
    expect(conn, true, fn, arg);
    return true;
}

void pgconn_hurry(struct pgconn *conn)
{
    if (conn->state == PGCONN_WAITING && !conn->freed)
        set_timer_us(conn, 0);
}

void pgconn_reset(struct pgconn *conn, const char *reason)
{
    if (conn->state == PGCONN_WAITING || conn->freed)
        return;
    if (conn->io_event)
        lose_soon(conn, reason);
}
