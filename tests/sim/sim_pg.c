/*
 * pgask and pgconn on the simulated shard. See sim_pg.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "tests/sim/sim_pg.h"

#include <assert.h>
#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/pgask.h"
#include "base/reap.h"
#include "base/settings.h"
#include "router/pgconn.h"
#include "shardmap/shardmap.h"
#include "tests/sim/sim_loop.h"
#include "tests/sim/sim_servers.h"
#include "tests/sim/sim_sql.h"

/* One in so many sends of a transaction fails when it is under way. */
#define SENDS_A_FAILURE 500

int sim_node_of_dsn(const char *dsn)
{
    int number = 0;
    assert(sscanf(dsn, SIM_DSN_FORMAT, &number) == 1 && number >= 1 && number <= SIM_NODES);
    return number - 1;
}

static void set_timer(struct event *timer, int64_t us)
{
    struct timeval tv = clock_timeval_us(us);
    event_add(timer, &tv);
}

/* --- pgask ------------------------------------------------------------------------------------ */

struct pgask {
    struct pgask_config config;
    int node;
    struct sim_conn *conn; /* NULL: closed */
    bool open;             /* it is up */
    bool asked_before;
    struct event *timer;
    struct sim_request *request; /* to be sent once it is up */
    int64_t answer_timeout_us;
    int64_t asked_us;
    bool first;
    pgask_fn *fn;
    void *arg;
};

static void ask_close(struct pgask *ask)
{
    event_del(ask->timer);
    if (ask->conn)
        sim_conn_close(ask->conn);
    ask->conn = NULL;
    ask->open = false;
    ask->asked_before = false;
    free(ask->request);
    ask->request = NULL;
}

static void ask_answer(struct pgask *ask, struct pgask_answer *answer)
{
    pgask_fn *fn = ask->fn;
    answer->first = ask->first;
    answer->asked_us = ask->asked_us;
    answer->answered_us = clock_mono_us();
    ask->fn = NULL;
    fn(ask->arg, answer);
}

static void ask_fail(struct pgask *ask, enum sg_error error, const char *reason)
{
    struct pgask_answer answer = {.error = error, .reason = reason};
    ask_close(ask);
    if (ask->fn)
        ask_answer(ask, &answer);
    else if (ask->config.on_lost)
        ask->config.on_lost(ask->config.arg, reason);
}

static void ask_send(struct pgask *ask)
{
    struct sim_request *request = ask->request;
    ask->request = NULL;
    ask->first = !ask->asked_before;
    ask->asked_before = true;
    ask->asked_us = clock_mono_us();
    set_timer(ask->timer, ask->answer_timeout_us);
    sim_conn_send(ask->conn, sim_serve_text, request);
}

static void on_ask_open(void *arg, bool refused)
{
    struct pgask *ask = arg;
    if (refused) {
        ask_fail(ask, SG_SHARD_UNAVAILABLE, "connection refused");
        return;
    }
    ask->open = true;
    ask_send(ask);
}

static void on_ask_answer(void *arg, struct sim_answer *said)
{
    struct pgask *ask = arg;
    struct pgask_answer answer = {.error = said->sqlstate[0] ? SG_INTERNAL : SG_OK,
                                  .result = said->result,
                                  .reason = "refused"};
    if (!ask->fn)
        return;
    memcpy(answer.sqlstate, said->sqlstate, sizeof(answer.sqlstate));
    event_del(ask->timer);
    ask_answer(ask, &answer);
}

static void on_ask_end(void *arg)
{
    ask_fail(arg, SG_SHARD_UNAVAILABLE, "server closed the connection");
}

static void on_ask_timer(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    ask_fail(arg, SG_DEADLINE, "no answer in time");
}

struct pgask *pgask_new(const struct pgask_config *config)
{
    struct pgask *ask = calloc(1, sizeof(*ask));
    assert(ask);
    ask->config = *config;
    ask->node = sim_node_of_dsn(config->dsn);
    ask->timer = evtimer_new(config->base, on_ask_timer, ask);
    return ask;
}

static void ask_free_memory(void *object)
{
    struct pgask *ask = object;
    event_free(ask->timer);
    free(ask);
}

void pgask_free(struct pgask *ask)
{
    if (!ask)
        return;
    ask->fn = NULL;
    ask_close(ask);
    reap(ask->config.reap, ask, ask_free_memory);
}

bool pgask_busy(const struct pgask *ask)
{
    return ask->fn != NULL;
}

bool pgask_connected(const struct pgask *ask)
{
    return ask->open;
}

void pgask_ask(struct pgask *ask, const struct pgask_question *question, pgask_fn *fn, void *arg)
{
    static const struct sim_conn_events events = {on_ask_open, on_ask_answer, on_ask_end};
    assert(!ask->fn);
    ask->fn = fn;
    ask->arg = arg;
    ask->answer_timeout_us = question->answer_timeout_us;
    ask->asked_us = clock_mono_us();
    ask->first = true;
    ask->request = sim_request_text(question->sql, question->params, question->param_count);
    if (ask->open) {
        ask_send(ask);
        return;
    }
    assert(!ask->conn);
    ask->conn = sim_conn_open(ask->config.base, ask->node, false, &events, ask);
    set_timer(ask->timer, question->connect_timeout_us);
}

void pgask_close(struct pgask *ask)
{
    assert(!ask->fn);
    ask_close(ask);
}

/* --- pgconn ----------------------------------------------------------------------------------- */

struct expectation {
    pgreply_fn *fn;
    void *arg;
    int64_t sent_us;
};

struct pgconn {
    struct pgconn_config config;
    char node[SHARDMAP_NAME_MAX + 1];
    int index;
    bool freed;
    struct sim_conn *conn;
    bool ready;
    unsigned failures;
    struct event *timer; /* backoff, connecting, or the oldest statement's deadline */
    struct expectation queue[PGCONN_IN_FLIGHT_MAX];
    size_t head, count;
};

static int64_t backoff_us(const struct pgconn *conn)
{
    const struct settings *settings = conn->config.settings;
    int64_t us = settings->postgres.backoff_min_ms * 1000;
    for (unsigned i = 0; i < conn->failures && us < settings->postgres.backoff_max_ms * 1000; i++)
        us *= 2;
    return us / 2 + (int64_t)sim_random((uint32_t)(us / 2 + 1));
}

static void conn_deliver_lost(struct pgconn *conn, const char *reason)
{
    while (conn->count) {
        struct expectation first = conn->queue[conn->head];
        struct pgreply reply = {.kind = PGREPLY_LOST, .message = reason};
        conn->head = (conn->head + 1) % PGCONN_IN_FLIGHT_MAX;
        conn->count--;
        first.fn(first.arg, &reply);
    }
}

static void conn_close(struct pgconn *conn)
{
    event_del(conn->timer);
    if (conn->conn)
        sim_conn_close(conn->conn);
    conn->conn = NULL;
    conn->ready = false;
}

static void conn_lose(struct pgconn *conn, const char *reason)
{
    conn_close(conn);
    conn_deliver_lost(conn, reason);
    if (conn->freed)
        return;
    if (conn->config.on_lost)
        conn->config.on_lost(conn->config.arg, reason);
    if (conn->freed)
        return;
    set_timer(conn->timer, backoff_us(conn));
    conn->failures++;
}

/* target_session_attrs=read-write: a standby is none. */
static void on_conn_open(void *arg, bool refused)
{
    struct pgconn *conn = arg;
    if (refused || (conn->config.use == PGCONN_WRITE && sim_node(conn->index)->standby)) {
        conn_lose(conn, "refused");
        return;
    }
    event_del(conn->timer);
    conn->ready = true;
    conn->failures = 0;
    if (conn->config.on_ready)
        conn->config.on_ready(conn->config.arg);
}

static void on_conn_answer(void *arg, struct sim_answer *answer)
{
    struct pgconn *conn = arg;
    struct expectation first = conn->queue[conn->head];
    assert(conn->count > 0);
    struct pgreply reply = {.kind = answer->sqlstate[0] ? PGREPLY_ERROR : PGREPLY_ROWS,
                            .result = answer->result,
                            .behind = answer->behind,
                            .wait_cut = answer->wait_cut,
                            .message = "refused",
                            .duration_us = clock_mono_us() - first.sent_us};
    memcpy(reply.sqlstate, answer->sqlstate, sizeof(reply.sqlstate));
    conn->head = (conn->head + 1) % PGCONN_IN_FLIGHT_MAX;
    conn->count--;
    if (conn->count)
        set_timer(conn->timer, conn->queue[conn->head].sent_us +
                                   conn->config.settings->postgres.statement_timeout_ms * 1000 -
                                   clock_mono_us());
    else
        event_del(conn->timer);
    first.fn(first.arg, &reply);
}

static void on_conn_end(void *arg)
{
    conn_lose(arg, "server closed the connection");
}

static void conn_connect(struct pgconn *conn)
{
    static const struct sim_conn_events events = {on_conn_open, on_conn_answer, on_conn_end};
    conn->conn = sim_conn_open(conn->config.base, conn->index,
                               conn->config.durability == SHARDMAP_SYNC, &events, conn);
    set_timer(conn->timer, conn->config.settings->postgres.connect_timeout_ms * 1000);
}

static void on_conn_timer(evutil_socket_t fd, short what, void *arg)
{
    struct pgconn *conn = arg;
    (void)fd;
    (void)what;
    if (conn->conn)
        conn_lose(conn, "too slow");
    else
        conn_connect(conn);
}

void pgconn_hurry(struct pgconn *conn)
{
    if (!conn->conn)
        set_timer(conn->timer, 0);
}

struct pgconn *pgconn_new(const struct pgconn_config *config)
{
    struct pgconn *conn = calloc(1, sizeof(*conn));
    assert(conn);
    conn->config = *config;
    snprintf(conn->node, sizeof(conn->node), "%s", config->node);
    conn->index = sim_node_of_dsn(config->dsn);
    conn->timer = evtimer_new(config->base, on_conn_timer, conn);
    set_timer(conn->timer, 0);
    return conn;
}

static void conn_free_memory(void *object)
{
    struct pgconn *conn = object;
    event_free(conn->timer);
    free(conn);
}

void pgconn_free(struct pgconn *conn)
{
    if (!conn)
        return;
    conn->freed = true;
    conn_close(conn);
    conn_deliver_lost(conn, "closed");
    reap(conn->config.reap, conn, conn_free_memory);
}

bool pgconn_error_is_passing(const char *sqlstate)
{
    return strcmp(sqlstate, "25006") == 0 || strncmp(sqlstate, "57P", 3) == 0;
}

bool pgconn_is_ready(const struct pgconn *conn)
{
    return conn->ready;
}

size_t pgconn_in_flight(const struct pgconn *conn)
{
    return conn->count;
}

const char *pgconn_node(const struct pgconn *conn)
{
    return conn->node;
}

static bool conn_send(struct pgconn *conn, enum statement statement, const struct params *params,
                      pgreply_fn *fn, void *arg)
{
    if (!conn->ready || conn->count == PGCONN_IN_FLIGHT_MAX)
        return false;
    conn->queue[(conn->head + conn->count++) % PGCONN_IN_FLIGHT_MAX] =
        (struct expectation){fn, arg, clock_mono_us()};
    if (conn->count == 1)
        set_timer(conn->timer, conn->config.settings->postgres.statement_timeout_ms * 1000);
    sim_conn_send(conn->conn, sim_serve_statement, sim_request_statement(statement, params));
    return true;
}

bool pgconn_send(struct pgconn *conn, enum statement statement, const struct params *params,
                 pgreply_fn *fn, void *arg)
{
    return conn_send(conn, statement, params, fn, arg);
}

bool pgconn_send_committed(struct pgconn *conn, enum statement statement,
                           const struct params *params, enum statement behind, pgreply_fn *fn,
                           void *arg)
{
    (void)behind;
    if (conn->ready && sim_random(SENDS_A_FAILURE) == 0) { /* all of it has gone out before */
        sim_conn_send(conn->conn, sim_serve_statement, sim_request_statement(statement, params));
        conn->ready = false;
        set_timer(conn->timer, 0);
        return false;
    }
    return conn_send(conn, statement, params, fn, arg);
}

void pgconn_reset(struct pgconn *conn, const char *reason)
{
    if (conn->conn)
        conn_lose(conn, reason);
}
