/*
 * One PostgreSQL connection for the simple protocol and COPY. See pgsession.h.
 *
 *   socket ─> on_readable ─┐
 *   on_turn (later) ───────┴─> drive: copied rows, results ─> callbacks ─> on_done or on_lost
 *
 * A turn of the loop hands over so much COPY data and no more; what is left in libpq's buffer goes
 * on at the next turn, behind everything else that the loop has to do. While a piece is held back
 * ("not now"), or such a rest waits, the socket is not read: libpq's buffer stays small, and TCP
 * holds the server.
 *
 * While it connects, the socket's event is one-shot and made anew for each wait: libpq may change
 * its socket (next address, TLS refused), and an event must never outlive the descriptor it
 * watches. For the same reason the events go as soon as libpq says that the connection is bad.
 *
 * SPDX-License-Identifier: MIT
 */
#include "replication/pgsession.h"

#include <assert.h>
#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/reap.h"

#define REASON_MAX 256
#define TURN_BYTES (256 * 1024) /* of COPY data in one turn of the loop */
#define TURN_US 1000
#define TURN_CLOCK_EVERY 32     /* pieces between two looks at the clock */
#define UNSENT_MAX (256 * 1024) /* put while the server takes nothing */

enum pgsession_state { PGSESSION_CONNECTING, PGSESSION_IDLE, PGSESSION_RUNNING, PGSESSION_LOST };

struct pgsession {
    struct pgsession_config config; /* dsn and application_name: copies */
    enum pgsession_state state;
    bool freed;         /* only memory is left, for the reap list */
    bool ended;         /* libpq read the end; what it had read before is still handed over */
    const char *broken; /* to be lost at the next turn; NULL: no */
    PGconn *pg;
    struct event *connecting; /* CONNECTING: one wait */
    struct event *readable;   /* afterwards */
    struct event *writable;
    struct event *turn;     /* goes on by itself at the next turn */
    struct event *deadline; /* connecting; of the command: looks at heard_us */
    int64_t heard_us;
    size_t unsent_bytes; /* put since libpq had nothing left to send; about */

    struct pgsession_command command; /* RUNNING; sql is gone */
    bool copying;
    bool both_ways; /* its COPY is, or was */
    bool paused;    /* on_copy said "not now" */
    bool resumed;   /* pgsession_resume came while on_copy had the piece */
    char *held;     /* libpq's; the piece to be brought again */
    int held_len;
    char sqlstate[6]; /* of the command's first error */
    char error[REASON_MAX];
    char last_sqlstate[6]; /* what the server said unasked: "terminating connection ..." */
    char last_word[REASON_MAX];
};

static void on_connecting(evutil_socket_t fd, short what, void *arg);
static void on_readable(evutil_socket_t fd, short what, void *arg);
static void on_writable(evutil_socket_t fd, short what, void *arg);
static void on_turn(evutil_socket_t fd, short what, void *arg);
static void on_deadline(evutil_socket_t fd, short what, void *arg);
static void start_connecting(struct pgsession *session);

/* --- life ------------------------------------------------------------------------------------- */

static void forget_event(struct event **event)
{
    if (*event)
        event_free(*event);
    *event = NULL;
}

static void forget_socket_events(struct pgsession *session)
{
    forget_event(&session->connecting);
    forget_event(&session->readable);
    forget_event(&session->writable);
}

static void close_connection(struct pgsession *session)
{
    forget_socket_events(session);
    event_del(session->turn);
    event_del(session->deadline);
    PQfreemem(session->held);
    session->held = NULL;
    PQfinish(session->pg);
    session->pg = NULL;
}

static void free_memory(void *object)
{
    struct pgsession *session = object;
    if (session->turn && session->deadline)
        close_connection(session);
    forget_event(&session->turn);
    forget_event(&session->deadline);
    free((char *)session->config.dsn);
    free((char *)session->config.application_name);
    free(session);
}

struct pgsession *pgsession_new(const struct pgsession_config *config)
{
    struct pgsession *session = calloc(1, sizeof(*session));
    if (!session)
        return NULL;
    session->config = *config;
    session->config.dsn = strdup(config->dsn);
    session->config.application_name = strdup(config->application_name);
    session->turn = evtimer_new(config->base, on_turn, session);
    session->deadline = evtimer_new(config->base, on_deadline, session);
    if (!session->config.dsn || !session->config.application_name || !session->turn ||
        !session->deadline) {
        free_memory(session);
        return NULL;
    }
    start_connecting(session);
    return session;
}

/* The connection itself goes with the memory: a callback that frees may stand on a piece of its
 * buffer. */
void pgsession_free(struct pgsession *session)
{
    if (!session)
        return;
    session->freed = true;
    forget_socket_events(session);
    event_del(session->turn);
    event_del(session->deadline);
    reap(session->config.reap, session, free_memory);
}

bool pgsession_is_idle(const struct pgsession *session)
{
    return session->state == PGSESSION_IDLE && !session->broken && !session->ended;
}

static void set_state(struct pgsession *session, enum pgsession_state state)
{
    session->state = state;
    event_del(session->deadline);
}

/* --- losing ----------------------------------------------------------------------------------- */

/* First line of what libpq says. `source` may point into the connection. */
static void copy_reason(char *reason, const char *source)
{
    size_t len = strcspn(source, "\r\n");
    if (len >= REASON_MAX)
        len = REASON_MAX - 1;
    memmove(reason, source, len);
    reason[len] = '\0';
}

static void lose(struct pgsession *session, const char *sqlstate, const char *why)
{
    char reason[REASON_MAX];
    char state[6];
    copy_reason(reason, why[0] ? why : "connection lost");
    snprintf(state, sizeof(state), "%s", sqlstate);
    set_state(session, PGSESSION_LOST);
    close_connection(session);
    session->config.on_lost(session->config.arg, state, reason);
}

/* What is known about the loss: the server's own last word says more than libpq's "closed
 * unexpectedly". */
static void lose_by_libpq(struct pgsession *session)
{
    if (session->last_word[0])
        lose(session, session->last_sqlstate, session->last_word);
    else if (session->error[0])
        lose(session, session->sqlstate, session->error);
    else
        lose(session, "", PQerrorMessage(session->pg));
}

static void go_on_soon(struct pgsession *session)
{
    static const struct timeval now = {0, 0};
    event_add(session->turn, &now);
}

/* For calls from outside: on_lost has to wait for the loop. */
static void break_soon(struct pgsession *session, const char *why)
{
    session->broken = why;
    go_on_soon(session);
}

static void set_deadline(struct pgsession *session, int64_t timeout_us)
{
    struct timeval timeout = clock_timeval_us(timeout_us);
    event_add(session->deadline, &timeout);
}

/* A silence counts from the last byte; a piece that is held back is not the server's silence. */
static void on_deadline(evutil_socket_t fd, short what, void *arg)
{
    struct pgsession *session = arg;
    (void)fd;
    (void)what;
    if (session->state == PGSESSION_CONNECTING) {
        lose(session, "", "timeout while connecting");
        return;
    }
    int64_t now_us = clock_mono_us();
    if (session->paused)
        session->heard_us = now_us;
    int64_t left_us = session->heard_us + session->command.timeout_us - now_us;
    if (left_us > 0)
        set_deadline(session, left_us);
    else
        lose(session, "", "timeout while waiting for the server");
}

/* --- connecting ------------------------------------------------------------------------------- */

/* Notices are not for standard error. A word without a question is kept: it may be the last. */
static void on_notice(void *arg, const PGresult *result)
{
    struct pgsession *session = arg;
    const char *severity = PQresultErrorField(result, PG_DIAG_SEVERITY_NONLOCALIZED);
    const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    const char *message = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    if (!severity || !message || (strcmp(severity, "FATAL") != 0 && strcmp(severity, "PANIC") != 0))
        return;
    snprintf(session->last_sqlstate, sizeof(session->last_sqlstate), "%s",
             sqlstate ? sqlstate : "");
    copy_reason(session->last_word, message);
}

static bool wait_connecting(struct pgsession *session, short what)
{
    forget_event(&session->connecting);
    session->connecting =
        event_new(session->config.base, PQsocket(session->pg), what, on_connecting, session);
    return session->connecting && event_add(session->connecting, NULL) == 0;
}

static void start_connecting(struct pgsession *session)
{
    const char *const keys[] = {"dbname", "application_name", "client_encoding",
                                session->config.replication ? "replication" : NULL, NULL};
    const char *const values[] = {session->config.dsn, session->config.application_name, "UTF8",
                                  "database", NULL};
    set_deadline(session, session->config.connect_timeout_us);
    session->pg = PQconnectStartParams(keys, values, 1);
    if (!session->pg) {
        break_soon(session, "out of memory");
        return;
    }
    PQsetNoticeReceiver(session->pg, on_notice, session);
    if (PQstatus(session->pg) == CONNECTION_BAD)
        break_soon(session, "");
    else if (!wait_connecting(session, EV_WRITE))
        break_soon(session, "no event for the socket");
}

static void connected(struct pgsession *session)
{
    int fd = PQsocket(session->pg);
    struct event_base *base = session->config.base;
    forget_event(&session->connecting);
    session->readable = event_new(base, fd, EV_READ | EV_PERSIST, on_readable, session);
    session->writable = event_new(base, fd, EV_WRITE, on_writable, session);
    if (!session->readable || !session->writable || event_add(session->readable, NULL) < 0 ||
        PQsetnonblocking(session->pg, 1) != 0) {
        lose(session, "", "no event for the socket");
        return;
    }
    set_state(session, PGSESSION_IDLE);
    session->config.on_connected(session->config.arg);
}

static void on_connecting(evutil_socket_t fd, short what, void *arg)
{
    struct pgsession *session = arg;
    bool waits = true;
    (void)fd;
    (void)what;
    switch (PQconnectPoll(session->pg)) {
    case PGRES_POLLING_READING:
        waits = wait_connecting(session, EV_READ);
        break;
    case PGRES_POLLING_WRITING:
        waits = wait_connecting(session, EV_WRITE);
        break;
    case PGRES_POLLING_OK:
        connected(session);
        return;
    default:
        lose_by_libpq(session);
        return;
    }
    if (!waits)
        lose(session, "", "no event for the socket");
}

/* --- sending ---------------------------------------------------------------------------------- */

/* False when the connection is broken. */
static bool flush(struct pgsession *session)
{
    int left = PQflush(session->pg);
    if (left == 0)
        session->unsent_bytes = 0;
    else if (left > 0 && session->writable)
        event_add(session->writable, NULL);
    return left >= 0;
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
    struct pgsession *session = arg;
    (void)fd;
    (void)what;
    if (!flush(session))
        lose_by_libpq(session);
}

void pgsession_run(struct pgsession *session, const struct pgsession_command *command)
{
    assert(session->state == PGSESSION_IDLE && !session->freed);
    set_state(session, PGSESSION_RUNNING);
    session->command = *command;
    session->command.sql = NULL;
    session->copying = false;
    session->both_ways = false;
    session->error[0] = '\0';
    session->sqlstate[0] = '\0';
    session->heard_us = clock_mono_us();
    if (command->timeout_us > 0)
        set_deadline(session, command->timeout_us);
    if (session->broken || session->ended)
        return; /* the loss is on its way */
    if (!PQsendQuery(session->pg, command->sql) || !flush(session))
        break_soon(session, "");
}

void pgsession_put(struct pgsession *session, const char *bytes, size_t len)
{
    if (session->state != PGSESSION_RUNNING || session->broken || session->ended)
        return;
    session->unsent_bytes += len;
    if (session->unsent_bytes > UNSENT_MAX)
        break_soon(session, "the server does not take what it is sent");
    else if (PQputCopyData(session->pg, bytes, (int)len) != 1 || !flush(session))
        break_soon(session, "");
}

/* --- receiving -------------------------------------------------------------------------------- */

enum pumped { PUMPED_ALL, PUMPED_ENOUGH, PUMPED_HELD, PUMPED_END, PUMPED_FREED };

/* Hands one piece over. False: held back, freed. */
static bool hand_over(struct pgsession *session, char *bytes, int len)
{
    session->resumed = false;
    session->held = bytes;
    session->held_len = len;
    session->paused = session->command.on_copy &&
                      !session->command.on_copy(session->command.arg, bytes, (size_t)len);
    if (session->freed)
        return false;
    if (session->paused && session->resumed) {
        session->paused = false;
        go_on_soon(session);
        return false;
    }
    if (session->paused)
        return false;
    PQfreemem(session->held);
    session->held = NULL;
    return true;
}

/* COPY data that libpq has, until a turn's share is done. */
static enum pumped pump(struct pgsession *session)
{
    size_t bytes = 0;
    int64_t end_us = clock_mono_us() + TURN_US;
    for (unsigned pieces = 1;; pieces++) {
        char *piece = session->held;
        int len = piece ? session->held_len : PQgetCopyData(session->pg, &piece, 1);
        if (len == 0 && !piece)
            return PUMPED_ALL;
        if (len < 0)
            return PUMPED_END;
        bytes += (size_t)len;
        if (!hand_over(session, piece, len))
            return session->freed ? PUMPED_FREED : PUMPED_HELD;
        if (bytes >= TURN_BYTES || (pieces % TURN_CLOCK_EVERY == 0 && clock_mono_us() >= end_us))
            return PUMPED_ENOUGH;
    }
}

static void keep_error(struct pgsession *session, const PGresult *result)
{
    const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    const char *message = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    if (session->error[0])
        return;
    snprintf(session->sqlstate, sizeof(session->sqlstate), "%s", sqlstate ? sqlstate : "");
    copy_reason(session->error, message ? message : PQresultErrorMessage(result));
    if (!session->error[0])
        copy_reason(session->error, "the server refused the command");
}

static void take_result(struct pgsession *session, PGresult *result)
{
    const struct pgsession_command *command = &session->command;
    switch (PQresultStatus(result)) {
    case PGRES_TUPLES_OK:
    case PGRES_COMMAND_OK:
        if (command->on_result)
            command->on_result(command->arg, result);
        break;
    case PGRES_COPY_OUT:
        session->copying = true;
        break;
    case PGRES_COPY_BOTH:
        session->copying = true;
        session->both_ways = true;
        if (command->on_copy_both)
            command->on_copy_both(command->arg);
        break;
    case PGRES_COPY_IN: /* the server has ended its half of COPY both; plain COPY in is not ours */
        PQputCopyEnd(session->pg, session->both_ways ? NULL : "no COPY from the client here");
        flush(session);
        break;
    case PGRES_EMPTY_QUERY:
        break;
    default:
        keep_error(session, result);
    }
    PQclear(result);
}

static void command_done(struct pgsession *session)
{
    char sqlstate[6];
    char error[REASON_MAX];
    memcpy(sqlstate, session->sqlstate, sizeof(sqlstate));
    memcpy(error, session->error, sizeof(error));
    session->error[0] = '\0'; /* a later loss is not of this command */
    set_state(session, PGSESSION_IDLE);
    event_add(session->readable, NULL); /* to hear of its end */
    session->command.on_done(session->command.arg, sqlstate, error[0] ? error : NULL);
}

/* Everything that libpq has is handed over; more is read, or there is no more. */
static void read_on(struct pgsession *session)
{
    if (session->ended)
        lose_by_libpq(session);
    else
        event_add(session->readable, NULL);
}

/* True: look again. */
static bool go_on_copying(struct pgsession *session)
{
    switch (pump(session)) {
    case PUMPED_END:
        session->copying = false;
        return true;
    case PUMPED_ALL:
        read_on(session);
        return false;
    case PUMPED_ENOUGH:
        if (session->readable)
            event_del(session->readable);
        go_on_soon(session);
        return false;
    case PUMPED_HELD:
        if (session->readable)
            event_del(session->readable);
        return false;
    case PUMPED_FREED:
        return false;
    }
    return false;
}

/* True: look again. */
static bool go_on_with_results(struct pgsession *session)
{
    if (PQisBusy(session->pg)) {
        read_on(session);
        return false;
    }
    PGresult *result = PQgetResult(session->pg);
    if (result) {
        take_result(session, result);
        return !session->freed;
    }
    if (session->ended || PQstatus(session->pg) != CONNECTION_OK)
        lose_by_libpq(session);
    else
        command_done(session);
    return false;
}

static void drive(struct pgsession *session)
{
    bool again = session->state == PGSESSION_RUNNING && !session->paused;
    while (again)
        again = session->copying ? go_on_copying(session) : go_on_with_results(session);
}

/* Nobody asked, yet there is something to read: a notice, or the end. */
static void read_unasked(struct pgsession *session)
{
    PQisBusy(session->pg); /* parses, so that a notice is heard */
    if (session->ended || PQstatus(session->pg) != CONNECTION_OK)
        lose_by_libpq(session);
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
    struct pgsession *session = arg;
    (void)fd;
    (void)what;
    session->heard_us = clock_mono_us();
    if (!PQconsumeInput(session->pg)) {
        session->ended = true;
        forget_socket_events(session);
    }
    if (session->state == PGSESSION_IDLE)
        read_unasked(session);
    else
        drive(session);
}

static void on_turn(evutil_socket_t fd, short what, void *arg)
{
    struct pgsession *session = arg;
    (void)fd;
    (void)what;
    if (session->broken && session->broken[0])
        lose(session, "", session->broken);
    else if (session->broken)
        lose_by_libpq(session);
    else
        drive(session);
}

void pgsession_resume(struct pgsession *session)
{
    session->resumed = true;
    if (session->freed || session->state != PGSESSION_RUNNING || !session->paused)
        return;
    session->paused = false;
    session->heard_us = clock_mono_us();
    go_on_soon(session);
}
