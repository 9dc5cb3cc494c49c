/*
 * HTTP connections of a drill's load. See wire.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "drill/wire.h"

#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <unistd.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>

#include "base/clock.h"
#include "base/reap.h"

#define IDLE_MAX_US 10000000

enum wire_state { WIRE_CONNECTING, WIRE_BUSY, WIRE_IDLE, WIRE_CLOSED };

struct connection {
    enum wire_state state;
    struct wire *wire;
    struct bufferevent *bev; /* NULL: no socket to be had, ends at the next tick */
    uint32_t number;
    uint64_t tag;
    int64_t since_us; /* of the request, or of being idle */
    TAILQ_ENTRY(connection) link;
};

TAILQ_HEAD(connection_list, connection);

struct wire {
    struct wire_config config;
    struct sockaddr_storage address;
    struct connection_list busy; /* CONNECTING and BUSY: without a socket, then by age */
    struct connection_list idle; /* the last one used first */
    size_t busy_count;
    uint32_t last_number;
};

/* --- states ----------------------------------------------------------------------------------- */

static bool is_busy(enum wire_state state)
{
    return state == WIRE_CONNECTING || state == WIRE_BUSY;
}

/* Moves the connection to the list of its new state. */
static void set_state(struct connection *conn, enum wire_state state)
{
    struct wire *wire = conn->wire;
    if (is_busy(conn->state) && is_busy(state)) {
        conn->state = state;
        return;
    }
    if (is_busy(conn->state)) {
        TAILQ_REMOVE(&wire->busy, conn, link);
        wire->busy_count--;
    } else if (conn->state == WIRE_IDLE) {
        TAILQ_REMOVE(&wire->idle, conn, link);
    }
    conn->state = state;
    if (is_busy(state)) {
        wire->busy_count++;
        if (conn->bev)
            TAILQ_INSERT_TAIL(&wire->busy, conn, link);
        else
            TAILQ_INSERT_HEAD(&wire->busy, conn, link);
    } else if (state == WIRE_IDLE) {
        TAILQ_INSERT_HEAD(&wire->idle, conn, link);
    }
}

static void connection_free(void *object)
{
    struct connection *conn = object;
    if (conn->bev)
        bufferevent_free(conn->bev);
    free(conn);
}

static void hang_up(struct connection *conn)
{
    set_state(conn, WIRE_CLOSED);
    if (conn->bev)
        bufferevent_disable(conn->bev, EV_READ | EV_WRITE);
    reap(conn->wire->config.reap, conn, connection_free);
}

/* The connection is of no more use. Its request, if it has one, ends so. */
static void lose(struct connection *conn, enum history_end end)
{
    const struct wire_config *config = &conn->wire->config;
    bool had_request = is_busy(conn->state);
    uint64_t tag = conn->tag;
    if (conn->state == WIRE_CONNECTING)
        end = HISTORY_UNREACHED;
    hang_up(conn);
    if (had_request)
        config->on_end(config->arg, tag, end, NULL);
}

/* --- answers ---------------------------------------------------------------------------------- */

static void on_readable(struct bufferevent *bev, void *arg)
{
    struct connection *conn = arg;
    const struct wire_config *config = &conn->wire->config;
    struct evbuffer *input = bufferevent_get_input(bev);
    size_t len = evbuffer_get_length(input);
    struct answer answer;
    if (conn->state == WIRE_CLOSED)
        return;
    const char *bytes = (const char *)evbuffer_pullup(input, -1);
    enum answer_verdict verdict = answer_parse(bytes, len, &answer);
    if (verdict == ANSWER_NEED_MORE && conn->state == WIRE_BUSY)
        return;
    if (verdict != ANSWER_COMPLETE || conn->state != WIRE_BUSY || answer.len != len) {
        lose(conn, HISTORY_GARBLED); /* also bytes that nobody asked for */
        return;
    }
    uint64_t tag = conn->tag;
    if (answer.closes) {
        hang_up(conn); /* its buffers stay until the loop is back */
    } else {
        conn->since_us = clock_mono_us();
        set_state(conn, WIRE_IDLE);
    }
    config->on_end(config->arg, tag, HISTORY_ANSWERED, &answer);
    evbuffer_drain(input, len);
}

static void on_event(struct bufferevent *bev, short what, void *arg)
{
    struct connection *conn = arg;
    (void)bev;
    if (conn->state == WIRE_CLOSED)
        return;
    if (what & BEV_EVENT_CONNECTED)
        set_state(conn, WIRE_BUSY);
    else
        lose(conn, HISTORY_CLOSED);
}

/* --- requests --------------------------------------------------------------------------------- */

/* A socket that connects, or -1. */
static int dial(const struct wire *wire)
{
    int on = 1;
    int fd = socket(wire->address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    if (connect(fd, (const struct sockaddr *)&wire->address, wire->config.address_len) < 0 &&
        errno != EINPROGRESS) {
        close(fd);
        return -1;
    }
    return fd;
}

/* A connection under way. Without a socket it is CONNECTING all the same, and fails later. */
static struct connection *open_connection(struct wire *wire)
{
    struct connection *conn = calloc(1, sizeof(*conn));
    if (!conn)
        return NULL;
    conn->wire = wire;
    conn->state = WIRE_CLOSED;
    conn->number = ++wire->last_number;
    int fd = dial(wire);
    if (fd < 0)
        return conn;
    conn->bev = bufferevent_socket_new(wire->config.base, fd, BEV_OPT_CLOSE_ON_FREE);
    if (!conn->bev) {
        close(fd);
        return conn;
    }
    bufferevent_setcb(conn->bev, on_readable, NULL, on_event, conn);
    if (bufferevent_socket_connect(conn->bev, NULL, 0) < 0 ||
        bufferevent_enable(conn->bev, EV_READ | EV_WRITE) < 0) {
        bufferevent_free(conn->bev);
        conn->bev = NULL;
    }
    return conn;
}

/* The connection used last, unless it has rested for too long. */
static struct connection *take_idle(struct wire *wire, int64_t now_us)
{
    struct connection *conn = TAILQ_FIRST(&wire->idle);
    if (!conn || now_us - conn->since_us <= IDLE_MAX_US)
        return conn;
    while ((conn = TAILQ_FIRST(&wire->idle)))
        hang_up(conn);
    return NULL;
}

uint32_t wire_send(struct wire *wire, const char *bytes, size_t len, uint64_t tag)
{
    int64_t now_us = clock_mono_us();
    struct connection *conn = take_idle(wire, now_us);
    bool is_new = !conn;
    if (is_new && !(conn = open_connection(wire)))
        return 0;
    conn->tag = tag;
    conn->since_us = now_us;
    set_state(conn, is_new ? WIRE_CONNECTING : WIRE_BUSY);
    if (conn->bev && bufferevent_write(conn->bev, bytes, len) < 0) {
        hang_up(conn);
        return 0;
    }
    return conn->number;
}

void wire_tick(struct wire *wire, int64_t now_us)
{
    for (size_t left = wire->busy_count; left; left--) {
        struct connection *conn = TAILQ_FIRST(&wire->busy);
        if (!conn || (conn->bev && now_us - conn->since_us < wire->config.timeout_us))
            return;
        lose(conn, HISTORY_TIMED_OUT);
    }
}

size_t wire_busy(const struct wire *wire)
{
    return wire->busy_count;
}

/* --- life ------------------------------------------------------------------------------------- */

struct wire *wire_new(const struct wire_config *config)
{
    struct wire *wire = calloc(1, sizeof(*wire));
    assert(config->address_len <= sizeof(wire->address));
    if (!wire)
        return NULL;
    wire->config = *config;
    memcpy(&wire->address, config->address, config->address_len);
    wire->config.address = NULL;
    TAILQ_INIT(&wire->busy);
    TAILQ_INIT(&wire->idle);
    return wire;
}

void wire_free(struct wire *wire)
{
    struct connection *conn;
    if (!wire)
        return;
    while ((conn = TAILQ_FIRST(&wire->busy)) || (conn = TAILQ_FIRST(&wire->idle))) {
        set_state(conn, WIRE_CLOSED);
        connection_free(conn);
    }
    free(wire);
}
