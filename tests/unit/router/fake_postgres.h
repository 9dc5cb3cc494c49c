/*
 * A PostgreSQL made of lies: speaks just enough of protocol 3 for the router's connections, on
 * 127.0.0.1 and on the event loop of the test itself, so that a test says when each byte comes.
 * And because one thread does both sides, a client that blocks is a test that hangs (alarm).
 *
 *   libpq ─> Startup Parse Bind Describe Execute Sync ─> fake ─> on_execute of the test, or a row
 *   libpq <─ at once, or byte for byte <──────────────── fake <─ fake_rows, fake_error, fake_end
 * ...
 *
 * The server's mood decides what a new connection meets; fake_* functions act on living ones.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_TESTS_FAKE_POSTGRES_H
#define SG_TESTS_FAKE_POSTGRES_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <errno.h>
#include <event2/event.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/dynbuf.h"

#define FAKE_PARAMS_MAX 16
#define FAKE_BUFFER_MAX (64 << 20)

enum fake_mood {
    FAKE_WELL,
    FAKE_SILENT,          /* accepts and says nothing */
    FAKE_CLOSES,          /* accepts and closes at the first byte */
    FAKE_HALF_A_START,    /* dies in the middle of its greeting */
    FAKE_STARTING_UP,     /* FATAL 57P03 */
    FAKE_STANDBY,         /* is read-only */
    FAKE_REFUSES_PREPARE, /* ERROR 42P01 to the first Parse */
    FAKE_DIES_PREPARING,  /* closes at the first Parse */
    FAKE_HANGS_PREPARING, /* falls silent at the first Parse */
    FAKE_BABBLES          /* bytes that are no protocol */
};

struct fake_postgres;

/* One client's connection. */
struct fake_session {
    LIST_ENTRY(fake_session) link;
    struct fake_postgres *server;
    int fd;
    struct event *readable;
    struct event *drip; /* the next byte, when bytes go one by one */
    struct dynbuf in;
    struct dynbuf out;
    size_t out_at;
    bool started;
    unsigned executed;  /* on this connection */
    bool ending;        /* closes when `out` is through */
    bool skipping;      /* an error came: nothing until the Sync */
    bool hung;          /* hears nothing more */
    char at_sync[6];    /* SQLSTATE of an error that only the Sync brings; "" for none */
    char statement[64]; /* named by the last Bind */
    char sql[512];      /* of the last Parse; its beginning */
    char options[512];  /* of its startup packet */
    int param_count;
    size_t param_at[FAKE_PARAMS_MAX]; /* in `in` */
    int param_len[FAKE_PARAMS_MAX];   /* -1: NULL */
};

typedef void fake_execute_fn(void *arg, struct fake_session *session);
/* The simple protocol: 'Q' a query, 'd' COPY data, 'c' its end, 'f' given up. */
typedef void fake_simple_fn(void *arg, struct fake_session *session, char type, const char *body,
                            size_t len);

struct fake_postgres {
    struct event_base *base;
    int port;
    int listen_fd; /* -1: refuses */
    struct event *acceptable;
    enum fake_mood mood;
    bool byte_for_byte;
    bool deaf; /* reads nothing */
    LIST_HEAD(, fake_session) sessions;
    unsigned accepted;
    unsigned parsed;
    unsigned executed;
    fake_execute_fn *on_execute; /* NULL: one row, the number of the execution */
    fake_simple_fn *on_simple;   /* NULL: not heard */
    void *arg;
};

/* --- what it says ----------------------------------------------------------------------------- */

static inline void fake_close(struct fake_session *session)
{
    LIST_REMOVE(session, link);
    event_free(session->readable);
    event_free(session->drip);
    close(session->fd);
    dynbuf_done(&session->in);
    dynbuf_done(&session->out);
    free(session);
}

/* Hands over what is to be said, all or a byte. May close the session. */
static inline void fake_flush(struct fake_session *session)
{
    bool drip = session->server->byte_for_byte;
    while (session->out_at < session->out.len) {
        size_t len = drip ? 1 : session->out.len - session->out_at;
        ssize_t sent = send(session->fd, session->out.data + session->out_at, len, MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN)
            sent = (ssize_t)(session->out.len - session->out_at); /* nobody listens any more */
        session->out_at += sent > 0 ? (size_t)sent : 0;
        if (drip || sent < 0) {
            struct timeval now = {0, 0};
            event_add(session->drip, &now);
            return;
        }
    }
    dynbuf_reset(&session->out);
    session->out_at = 0;
    if (session->ending)
        fake_close(session);
}

static inline void on_fake_drip(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    fake_flush(arg);
}

static inline void fake_put(struct fake_session *session, char type, const void *body, size_t len)
{
    uint32_t wire = htonl((uint32_t)len + 4);
    dynbuf_addc(&session->out, type);
    dynbuf_add(&session->out, &wire, 4);
    dynbuf_add(&session->out, body, len);
}

/* ErrorResponse or NoticeResponse: 'E' or 'N'. */
static inline void fake_put_report(struct fake_session *session, char type, const char *severity,
                                   const char *sqlstate)
{
    char body[128];
    int len = snprintf(body, sizeof(body), "S%s%cV%s%cC%s%cM%s%c%c", severity, 0, severity, 0,
                       sqlstate, 0, "it is what it is", 0, 0);
    fake_put(session, type, body, (size_t)len);
}

/* ERROR now; nothing more until the Sync. */
static inline void fake_error(struct fake_session *session, const char *sqlstate)
{
    fake_put_report(session, 'E', "ERROR", sqlstate);
    session->skipping = true;
}

/* ERROR in the place of the Sync's "ready", as of a transaction that cannot commit. */
static inline void fake_error_at_sync(struct fake_session *session, const char *sqlstate)
{
    snprintf(session->at_sync, sizeof(session->at_sync), "%s", sqlstate);
}

/* Says what was said so far, then closes. */
static inline void fake_end(struct fake_session *session)
{
    session->ending = true;
    session->skipping = true;
}

/* FATAL, then the end. */
static inline void fake_fatal(struct fake_session *session, const char *sqlstate)
{
    fake_put_report(session, 'E', "FATAL", sqlstate);
    fake_end(session);
}

/* Never says anything again, but stays. */
static inline void fake_hang(struct fake_session *session)
{
    session->hung = true;
}

static inline void fake_describe(struct fake_session *session, int columns)
{
    struct dynbuf body;
    uint16_t wire = htons((uint16_t)columns);
    dynbuf_init(&body, 1 << 16);
    dynbuf_add(&body, &wire, 2);
    for (int i = 0; i < columns; i++) {
        static const char text_column[] = "\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0";
        dynbuf_addf(&body, "c%d", i);
        dynbuf_add(&body, text_column, sizeof(text_column) - 1);
    }
    fake_put(session, 'T', body.data, body.len);
    dynbuf_done(&body);
}

static inline void fake_row(struct fake_session *session, int columns, const char *const *values)
{
    struct dynbuf body;
    uint16_t wire = htons((uint16_t)columns);
    dynbuf_init(&body, FAKE_BUFFER_MAX);
    dynbuf_add(&body, &wire, 2);
    for (int i = 0; i < columns; i++) {
        uint32_t len = values[i] ? htonl((uint32_t)strlen(values[i])) : UINT32_MAX;
        dynbuf_add(&body, &len, 4);
        if (values[i])
            dynbuf_adds(&body, values[i]);
    }
    fake_put(session, 'D', body.data, body.len);
    dynbuf_done(&body);
}

static inline void fake_complete(struct fake_session *session, const char *tag)
{
    fake_put(session, 'C', tag, strlen(tag) + 1);
}

/* One row of one column. */
static inline void fake_value(struct fake_session *session, const char *value)
{
    fake_describe(session, 1);
    fake_row(session, 1, &value);
    fake_complete(session, "SELECT 1");
}

/* A command without rows. */
static inline void fake_command(struct fake_session *session, const char *tag)
{
    fake_put(session, 'n', NULL, 0);
    fake_complete(session, tag);
}

/* --- what it hears ---------------------------------------------------------------------------- */

/* The parameter's bytes; valid inside on_execute. */
static inline const char *fake_param(const struct fake_session *session, int i, int *ret_len)
{
    *ret_len = session->param_len[i];
    return session->in.data + session->param_at[i];
}

static inline uint32_t fake_u32(const char *bytes)
{
    uint32_t wire;
    memcpy(&wire, bytes, 4);
    return ntohl(wire);
}

static inline uint16_t fake_u16(const char *bytes)
{
    uint16_t wire;
    memcpy(&wire, bytes, 2);
    return ntohs(wire);
}

/* Elements of an array parameter. */
static inline unsigned fake_array_len(const struct fake_session *session, int param)
{
    int len;
    const char *bytes = fake_param(session, param, &len);
    return fake_u32(bytes) == 0 ? 0 : fake_u32(bytes + 12);
}

/* Element i of an array parameter of fixed-size elements. */
static inline const char *fake_array_item(const struct fake_session *session, int param, unsigned i,
                                          unsigned size)
{
    int len;
    return fake_param(session, param, &len) + 20 + (size_t)i * (4 + size) + 4;
}

/* The startup packet: a length, a version, then names and values. */
static inline void fake_read_startup(struct fake_session *session, const char *body,
                                     const char *end)
{
    for (body += 8; body < end && *body; body += strlen(body) + 1) {
        const char *value = body + strlen(body) + 1;
        if (strcmp(body, "options") == 0)
            snprintf(session->options, sizeof(session->options), "%s", value);
        body = value;
    }
}

static inline void fake_greet(struct fake_session *session)
{
    static const char *const standby[][2] = {{"in_hot_standby", "off"},
                                             {"default_transaction_read_only", "off"},
                                             {"server_version", "15.0"},
                                             {"client_encoding", "UTF8"}};
    enum fake_mood mood = session->server->mood;
    session->started = true;
    if (mood == FAKE_STARTING_UP) {
        fake_fatal(session, "57P03");
        return;
    }
    fake_put(session, 'R', "\0\0\0", 4);
    for (int i = 0; i < 4; i++) {
        char body[64];
        bool on = i == 0 && mood == FAKE_STANDBY;
        int len = snprintf(body, sizeof(body), "%s%c%s%c", standby[i][0], 0,
                           on ? "on" : standby[i][1], 0);
        fake_put(session, 'S', body, (size_t)len);
        if (i == 1 && mood == FAKE_HALF_A_START) {
            session->out.len -= 7;
            fake_end(session);
            return;
        }
    }
    fake_put(session, 'K', "\0\0\0\1\0\0\0\2", 8);
    fake_put(session, 'Z', "I", 1);
}

static inline void fake_parse(struct fake_session *session, const char *body)
{
    snprintf(session->sql, sizeof(session->sql), "%s", body + strlen(body) + 1);
    session->server->parsed++;
    if (session->server->mood == FAKE_REFUSES_PREPARE)
        fake_error(session, "42P01");
    else if (session->server->mood == FAKE_DIES_PREPARING)
        fake_end(session);
    else if (session->server->mood == FAKE_HANGS_PREPARING)
        fake_hang(session);
    else
        fake_put(session, '1', NULL, 0);
}

/* portal, statement, formats, parameters */
static inline void fake_bind(struct fake_session *session, const char *body)
{
    const char *at = body + strlen(body) + 1;
    snprintf(session->statement, sizeof(session->statement), "%s", at);
    at += strlen(at) + 1;
    at += 2 + 2 * fake_u16(at);
    session->param_count = fake_u16(at);
    at += 2;
    for (int i = 0; i < session->param_count; i++) {
        session->param_len[i] = (int)fake_u32(at);
        at += 4;
        session->param_at[i] = (size_t)(at - session->in.data);
        at += session->param_len[i] > 0 ? session->param_len[i] : 0;
    }
    fake_put(session, '2', NULL, 0);
}

static inline void fake_execute(struct fake_session *session)
{
    struct fake_postgres *server = session->server;
    char number[16];
    session->executed++;
    snprintf(number, sizeof(number), "%u", ++server->executed);
    if (server->on_execute)
        server->on_execute(server->arg, session);
    else
        fake_value(session, number);
}

static inline void fake_sync(struct fake_session *session)
{
    if (session->at_sync[0])
        fake_put_report(session, 'E', "ERROR", session->at_sync);
    session->at_sync[0] = '\0';
    session->skipping = false;
    fake_put(session, 'Z', "I", 1);
}

static inline void fake_hear(struct fake_session *session, char type, const char *body)
{
    if (type == 'S')
        fake_sync(session);
    else if (type == 'X')
        fake_end(session);
    else if (session->skipping)
        return;
    else if (type == 'P')
        fake_parse(session, body);
    else if (type == 'B')
        fake_bind(session, body);
    else if (type == 'E')
        fake_execute(session);
    else if (session->server->on_simple)
        session->server->on_simple(session->server->arg, session, type, body,
                                   fake_u32(body - 4) - 4);
}

/* Takes the complete messages from `in`. */
static inline void fake_take_messages(struct fake_session *session)
{
    size_t at = 0;
    while (!session->ending && !session->hung) {
        size_t head = session->started ? 1 : 0;
        if (session->in.len - at < head + 4)
            break;
        const char *message = session->in.data + at;
        size_t len = fake_u32(message + head);
        if (session->in.len - at < head + len)
            break;
        if (session->started) {
            fake_hear(session, message[0], message + 5);
        } else {
            fake_read_startup(session, message, message + len);
            fake_greet(session);
        }
        at += head + len;
    }
    if (at)
        memmove(session->in.data, session->in.data + at, session->in.len - at);
    session->in.len -= at;
}

/* Hears again, and what came meanwhile. */
static inline void fake_wake(struct fake_session *session)
{
    session->hung = false;
    fake_take_messages(session);
    fake_flush(session);
}

static inline void on_fake_readable(evutil_socket_t fd, short what, void *arg)
{
    struct fake_session *session = arg;
    struct fake_postgres *server = session->server;
    (void)what;
    if (server->deaf)
        return;
    dynbuf_reserve(&session->in, 1 << 16);
    ssize_t len = recv(fd, session->in.data + session->in.len, 1 << 16, 0);
    if (len < 0 && errno == EAGAIN)
        return;
    if (len <= 0 || server->mood == FAKE_CLOSES) {
        fake_close(session);
        return;
    }
    session->in.len += (size_t)len;
    if (server->mood == FAKE_SILENT)
        return;
    if (server->mood == FAKE_BABBLES) {
        dynbuf_adds(&session->out, "HTTP/1.1 400 Bad Request\r\n\r\n");
        fake_end(session);
    } else {
        fake_take_messages(session);
    }
    fake_flush(session);
}

static inline void on_fake_acceptable(evutil_socket_t listen_fd, short what, void *arg)
{
    struct fake_postgres *server = arg;
    struct fake_session *session = calloc(1, sizeof(*session));
    int one = 1;
    (void)what;
    session->server = server;
    session->fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    assert_true(session->fd >= 0);
    setsockopt(session->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    session->readable =
        event_new(server->base, session->fd, EV_READ | EV_PERSIST, on_fake_readable, session);
    session->drip = evtimer_new(server->base, on_fake_drip, session);
    dynbuf_init(&session->in, FAKE_BUFFER_MAX);
    dynbuf_init(&session->out, FAKE_BUFFER_MAX);
    LIST_INSERT_HEAD(&server->sessions, session, link);
    if (!server->deaf)
        event_add(session->readable, NULL);
    server->accepted++;
}

/* --- life ------------------------------------------------------------------------------------- */

/* Listens, on the port it had before if it had one. */
static inline void fake_listen(struct fake_postgres *server)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)server->port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(address);
    int one = 1;
    server->listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    setsockopt(server->listen_fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    assert_int_equal(bind(server->listen_fd, (struct sockaddr *)&address, len), 0);
    assert_int_equal(listen(server->listen_fd, 64), 0);
    getsockname(server->listen_fd, (struct sockaddr *)&address, &len);
    server->port = ntohs(address.sin_port);
    server->acceptable = event_new(server->base, server->listen_fd, EV_READ | EV_PERSIST,
                                   on_fake_acceptable, server);
    event_add(server->acceptable, NULL);
}

/* New connections are refused from now on. */
static inline void fake_stop_listening(struct fake_postgres *server)
{
    if (server->listen_fd < 0)
        return;
    event_free(server->acceptable);
    close(server->listen_fd);
    server->listen_fd = -1;
}

static inline struct fake_postgres *fake_new(struct event_base *base)
{
    struct fake_postgres *server = calloc(1, sizeof(*server));
    server->base = base;
    LIST_INIT(&server->sessions);
    fake_listen(server);
    return server;
}

/* Every living connection is cut, without a word. */
static inline void fake_cut(struct fake_postgres *server)
{
    while (!LIST_EMPTY(&server->sessions))
        fake_close(LIST_FIRST(&server->sessions));
}

/* Every living connection hears FATAL, then is closed: a fast shutdown. */
static inline void fake_shut_down(struct fake_postgres *server, const char *sqlstate)
{
    struct fake_session *session = LIST_FIRST(&server->sessions);
    while (session) {
        struct fake_session *next = LIST_NEXT(session, link);
        fake_fatal(session, sqlstate);
        fake_flush(session);
        session = next;
    }
}

/* Reads nothing, as if stopped: the kernel still takes connections and bytes. */
static inline void fake_set_deaf(struct fake_postgres *server, bool deaf)
{
    struct fake_session *session;
    server->deaf = deaf;
    LIST_FOREACH (session, &server->sessions, link) {
        if (deaf)
            event_del(session->readable);
        else
            event_add(session->readable, NULL);
    }
}

static inline unsigned fake_session_count(const struct fake_postgres *server)
{
    unsigned count = 0;
    struct fake_session *session;
    LIST_FOREACH (session, &server->sessions, link)
        count++;
    return count;
}

static inline void fake_free(struct fake_postgres *server)
{
    fake_stop_listening(server);
    fake_cut(server);
    free(server);
}

static inline void fake_dsn(const struct fake_postgres *server, char *ret_dsn, size_t size)
{
    snprintf(ret_dsn, size,
             "hostaddr=127.0.0.1 port=%d dbname=x user=x sslmode=disable gssencmode=disable",
             server->port);
}

/* --- the loop --------------------------------------------------------------------------------- */

/* One turn. */
static inline void turn(struct event_base *base)
{
    event_base_loop(base, EVLOOP_ONCE | EVLOOP_NONBLOCK);
}

/* Turns the loop for so long. */
static inline void turn_for(struct event_base *base, int64_t ms)
{
    int64_t end_us = clock_mono_us() + ms * 1000;
    while (clock_mono_us() < end_us) {
        turn(base);
        usleep(100);
    }
}

/* Turns the loop until the condition holds; fails after ten seconds. */
#define turn_until(base, condition)                                                                \
    do {                                                                                           \
        int64_t end_us_ = clock_mono_us() + 10000000;                                              \
        while (!(condition)) {                                                                     \
            if (clock_mono_us() > end_us_)                                                         \
                fail_msg("never came true: %s", #condition);                                       \
            turn(base);                                                                            \
            usleep(20);                                                                            \
        }                                                                                          \
    } while (0)

#endif
