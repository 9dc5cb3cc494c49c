/*
 * One question at a time over non-blocking libpq. See pgask.h.
 *
 * The socket event is one-shot and made anew for each wait: libpq may change its socket while it
 * connects (next address, TLS refused), and an event must never outlive the descriptor it watches.
 *
 * SPDX-License-Identifier: MIT
 */
#include "base/pgask.h"

#include <assert.h>
#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/reap.h"

#define REASON_MAX 256

enum pgask_state { PGASK_CLOSED, PGASK_CONNECTING, PGASK_READY, PGASK_ASKING };

struct pgask {
    struct event_base *base;
    struct reap_list *reap;
    char *dsn;
    char *application_name;
    const char *options;
    void (*on_lost)(void *arg, const char *reason);
    void *lost_arg;

    enum pgask_state state;
    PGconn *pg;
    struct event *io;    /* NULL: not waiting for the socket */
    struct event *timer; /* deadline of the state; zero when `stillborn` */
    bool stillborn;      /* failed before the loop could have its turn */
    bool asked_before;   /* on this connection */

    struct pgask_question question; /* fn != NULL: under way */
    pgask_fn *fn;
    void *arg;
    int64_t asked_us;
    PGresult *result;        /* the first one of the answer so far */
    char notice[REASON_MAX]; /* what the server said unasked: "terminating connection due to ..." */
};

static void on_socket(evutil_socket_t fd, short what, void *arg);
static void on_timer(evutil_socket_t fd, short what, void *arg);

struct pgask *pgask_new(const struct pgask_config *config)
{
    struct pgask *ask = calloc(1, sizeof(*ask));
    if (!ask)
        return NULL;
    ask->base = config->base;
    ask->reap = config->reap;
    ask->on_lost = config->on_lost;
    ask->lost_arg = config->arg;
    ask->dsn = strdup(config->dsn);
    ask->application_name = strdup(config->application_name);
    ask->options = config->options;
    ask->timer = evtimer_new(config->base, on_timer, ask);
    if (!ask->dsn || !ask->application_name || !ask->timer) {
        if (ask->timer)
            event_free(ask->timer);
        free(ask->dsn);
        free(ask->application_name);
        free(ask);
        return NULL;
    }
    return ask;
}

static void forget_io(struct pgask *ask)
{
    if (ask->io)
        event_free(ask->io);
    ask->io = NULL;
}

static void close_connection(struct pgask *ask)
{
    forget_io(ask);
    event_del(ask->timer);
    PQclear(ask->result);
    ask->result = NULL;
    PQfinish(ask->pg);
    ask->pg = NULL;
    ask->state = PGASK_CLOSED;
    ask->stillborn = false;
    ask->asked_before = false;
}

static void free_memory(void *object)
{
    struct pgask *ask = object;
    event_free(ask->timer);
    free(ask->dsn);
    free(ask->application_name);
    free(ask);
}

void pgask_free(struct pgask *ask)
{
    if (!ask)
        return;
    ask->fn = NULL;
    close_connection(ask);
    reap(ask->reap, ask, free_memory);
}

bool pgask_busy(const struct pgask *ask)
{
    return ask->fn != NULL;
}

bool pgask_connected(const struct pgask *ask)
{
    return ask->state == PGASK_READY || ask->state == PGASK_ASKING;
}

/* First line of what libpq says. `source` may point into the connection. */
static void copy_reason(char *reason, const char *source)
{
    size_t len = strcspn(source, "\r\n");
    if (len >= REASON_MAX)
        len = REASON_MAX - 1;
    memcpy(reason, source, len);
    reason[len] = '\0';
}

/* The question is answered; the callback comes last, for it may ask again or free. */
static void answer(struct pgask *ask, struct pgask_answer *said)
{
    pgask_fn *fn = ask->fn;
    ask->fn = NULL;
    said->asked_us = ask->asked_us;
    said->answered_us = clock_mono_us();
    fn(ask->arg, said);
}

/* The connection is over, with a reason as text; tells the asker, or the owner if nobody asked. */
static void lose(struct pgask *ask, enum sg_error error, const char *why)
{
    char reason[REASON_MAX];
    copy_reason(reason, why[0] ? why : "connection lost");
    struct pgask_answer said = {.error = error, .reason = reason, .first = !ask->asked_before};
    close_connection(ask);
    if (ask->fn)
        answer(ask, &said);
    else if (ask->on_lost)
        ask->on_lost(ask->lost_arg, reason);
}

/* What libpq knows about the loss. The server's own last word says more than libpq's "closed
 * unexpectedly", which may stand in front of it. */
static void lose_by_libpq(struct pgask *ask)
{
    char reason[REASON_MAX];
    const char *last_word = PQresultErrorField(ask->result, PG_DIAG_MESSAGE_PRIMARY);
    if (!last_word)
        last_word = ask->notice[0] ? ask->notice : PQerrorMessage(ask->pg);
    copy_reason(reason, last_word);
    lose(ask, SG_SHARD_UNAVAILABLE, reason);
}

static void wait_for(struct pgask *ask, short what)
{
    forget_io(ask);
    ask->io = event_new(ask->base, PQsocket(ask->pg), what, on_socket, ask);
    if (!ask->io || event_add(ask->io, NULL) < 0)
        lose(ask, SG_NO_MEMORY, "out of memory");
}

static void set_deadline(struct pgask *ask, int64_t timeout_us)
{
    struct timeval timeout = clock_timeval_us(timeout_us);
    event_add(ask->timer, &timeout);
}

/* Failed inside pgask_ask: the callback has to wait for the loop. */
static void fail_soon(struct pgask *ask)
{
    ask->stillborn = true;
    set_deadline(ask, 0);
}

static void on_notice(void *arg, const char *message)
{
    struct pgask *ask = arg;
    copy_reason(ask->notice, message);
}

static void start_connecting(struct pgask *ask)
{
    const char *const keys[] = {"dbname", "application_name", "client_encoding", "options", NULL};
    const char *const values[] = {ask->dsn, ask->application_name, "UTF8", ask->options, NULL};
    ask->notice[0] = '\0';
    ask->state = PGASK_CONNECTING;
    ask->pg = PQconnectStartParams(keys, values, 1);
    if (!ask->pg || PQstatus(ask->pg) == CONNECTION_BAD) {
        fail_soon(ask);
        return;
    }
    PQsetNoticeProcessor(ask->pg, on_notice, ask);
    set_deadline(ask, ask->question.connect_timeout_us);
    ask->io = event_new(ask->base, PQsocket(ask->pg), EV_WRITE, on_socket, ask);
    if (!ask->io || event_add(ask->io, NULL) < 0)
        fail_soon(ask);
}

/* False when the connection is over. */
static bool send_question(struct pgask *ask)
{
    const struct pgask_question *question = &ask->question;
    ask->state = PGASK_ASKING;
    ask->asked_us = clock_mono_us();
    ask->notice[0] = '\0';
    set_deadline(ask, question->answer_timeout_us);
    return PQsendQueryParams(ask->pg, question->sql, question->param_count, NULL, question->params,
                             NULL, NULL, 0) &&
           PQflush(ask->pg) >= 0;
}

void pgask_ask(struct pgask *ask, const struct pgask_question *question, pgask_fn *fn, void *arg)
{
    assert(!ask->fn && question->param_count <= PGASK_PARAMS_MAX);
    ask->question = *question;
    ask->fn = fn;
    ask->arg = arg;
    ask->asked_us = clock_mono_us();
    if (ask->state == PGASK_CLOSED) {
        start_connecting(ask);
        return;
    }
    forget_io(ask);
    if (send_question(ask))
        ask->io = event_new(ask->base, PQsocket(ask->pg), EV_READ | EV_WRITE, on_socket, ask);
    if (!ask->io || event_add(ask->io, NULL) < 0)
        fail_soon(ask);
}

void pgask_close(struct pgask *ask)
{
    assert(!ask->fn);
    close_connection(ask);
}

static void go_on_connecting(struct pgask *ask)
{
    switch (PQconnectPoll(ask->pg)) {
    case PGRES_POLLING_READING:
        wait_for(ask, EV_READ);
        return;
    case PGRES_POLLING_WRITING:
        wait_for(ask, EV_WRITE);
        return;
    case PGRES_POLLING_OK:
        PQsetnonblocking(ask->pg, 1);
        if (send_question(ask))
            wait_for(ask, EV_READ | EV_WRITE);
        else
            lose_by_libpq(ask);
        return;
    default:
        lose_by_libpq(ask);
    }
}

/* The whole answer is here: one result, then the server is ready for the next question. */
static void answer_with_result(struct pgask *ask)
{
    char reason[REASON_MAX] = "";
    PGresult *result = ask->result;
    const ExecStatusType status = PQresultStatus(result);
    const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    struct pgask_answer said = {.error = SG_OK, .result = result, .first = !ask->asked_before};
    if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK) {
        copy_reason(reason, PQresultErrorMessage(result));
        snprintf(said.sqlstate, sizeof(said.sqlstate), "%s", sqlstate ? sqlstate : "");
        said.error = SG_INTERNAL;
        said.result = NULL;
        said.reason = reason;
    }
    ask->result = NULL;
    ask->asked_before = true;
    ask->state = PGASK_READY;
    event_del(ask->timer);
    wait_for(ask, EV_READ); /* to hear of its end */
    if (ask->state == PGASK_READY)
        answer(ask, &said);
    PQclear(result);
}

static void read_answer(struct pgask *ask)
{
    int alive = PQconsumeInput(ask->pg);
    while (!PQisBusy(ask->pg)) {
        PGresult *result = PQgetResult(ask->pg);
        if (!result) {
            if (PQstatus(ask->pg) != CONNECTION_OK || !ask->result)
                lose_by_libpq(ask);
            else
                answer_with_result(ask);
            return;
        }
        if (ask->result)
            PQclear(result);
        else
            ask->result = result;
    }
    if (!alive)
        lose_by_libpq(ask);
    else
        wait_for(ask, PQflush(ask->pg) > 0 ? EV_READ | EV_WRITE : EV_READ);
}

/* Nobody asked, yet there is something to read: a notice, or the end. */
static void read_unasked(struct pgask *ask)
{
    int alive = PQconsumeInput(ask->pg);
    PQisBusy(ask->pg); /* parses, so that a notice is heard */
    if (alive && PQstatus(ask->pg) == CONNECTION_OK)
        wait_for(ask, EV_READ);
    else
        lose_by_libpq(ask);
}

static void go_on_asking(struct pgask *ask, short what)
{
    int more = what & EV_WRITE ? PQflush(ask->pg) : 0;
    if (more < 0)
        lose_by_libpq(ask);
    else if (what & EV_READ)
        read_answer(ask);
    else
        wait_for(ask, more > 0 ? EV_READ | EV_WRITE : EV_READ);
}

static void on_socket(evutil_socket_t fd, short what, void *arg)
{
    struct pgask *ask = arg;
    (void)fd;
    switch (ask->state) {
    case PGASK_CONNECTING:
        go_on_connecting(ask);
        return;
    case PGASK_ASKING:
        go_on_asking(ask, what);
        return;
    case PGASK_READY:
        read_unasked(ask);
        return;
    case PGASK_CLOSED:
        return;
    }
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct pgask *ask = arg;
    (void)fd;
    (void)what;
    if (ask->stillborn) {
        char reason[REASON_MAX];
        copy_reason(reason, ask->pg ? PQerrorMessage(ask->pg) : "out of memory");
        lose(ask, SG_SHARD_UNAVAILABLE, reason);
    } else if (ask->state == PGASK_CONNECTING) {
        lose(ask, SG_DEADLINE, "timeout while connecting");
    } else {
        lose(ask, SG_DEADLINE, "timeout while waiting for the answer");
    }
}
