/*
 * The HTTP edge's server: the listening socket and the clock that looks at deadlines. See http.h.
 *
 *   listening socket ─> on_acceptable ─> http_conn.c ─> http_request.c ─> handler ─> http_reply.c
 *   tick ─> the first entries of each state's list ─> those whose deadline is over
 *
 * SPDX-License-Identifier: MIT
 */
#include "api/http.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include <event2/event.h>

#include "api/http_internal.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/reap.h"
#include "base/settings.h"

/* How many connections one turn of the loop accepts before others have their turn. */
#define ACCEPT_BATCH 64
#define DRAIN_ACCEPT_MAX 4096
#define TICK_MAX_US 100000
#define TICK_MIN_US 5000

/* --- accepting -------------------------------------------------------------------------------- */

static void pause_accepting(struct http_server *server)
{
    log_warn(NULL, "http: cannot accept: %s; trying again shortly", strerror(errno));
    event_del(server->accept_event);
    server->accept_paused = true;
}

/* Takes one connection from the backlog. False when there is none to take. */
static bool accept_one(struct http_server *server)
{
    int fd = accept4(server->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
        if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
            pause_accepting(server);
        /* Of the others, all but EAGAIN concern a connection that is no more. */
        return errno != EAGAIN && errno != EWOULDBLOCK && !server->accept_paused;
    }
    if (server->conn_count >= server->config.limits.max_connections) {
        metrics_add(server->refused_counter, 1);
        close(fd);
        return true;
    }
    http_conn_new(server, fd);
    return true;
}

static void on_acceptable(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    for (int i = 0; i < ACCEPT_BATCH && accept_one(arg); i++)
        ;
}

/* --- deadlines and connections with waiting input --------------------------------------------- */

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    struct http_server *server = arg;
    int64_t now_us = clock_mono_us();
    (void)fd;
    (void)what;
    for (int state = 0; state < HTTP_CONN_STATES; state++) {
        struct http_connection *conn;
        if (!http_conn_state_ends((enum http_conn_state)state))
            continue;
        while ((conn = TAILQ_FIRST(&server->conns[state])) && conn->deadline_us <= now_us)
            http_conn_on_deadline(conn);
    }
    if (server->accept_paused && !server->draining) {
        server->accept_paused = false;
        event_add(server->accept_event, NULL);
    }
}

static void on_ready(evutil_socket_t fd, short what, void *arg)
{
    struct http_server *server = arg;
    struct http_connection *conn;
    (void)fd;
    (void)what;
    while ((conn = TAILQ_FIRST(&server->ready))) {
        TAILQ_REMOVE(&server->ready, conn, ready_link);
        conn->ready = false;
        http_conn_advance(conn);
    }
}

/* Often enough for the shortest deadline, seldom enough to cost nothing. */
static struct timeval tick_interval(const struct http_server *server)
{
    int64_t shortest_us = server->timeout_us[HTTP_CONN_LINGERING];
    for (int state = 0; state < HTTP_CONN_STATES; state++) {
        if (http_conn_state_ends((enum http_conn_state)state) &&
            server->timeout_us[state] < shortest_us)
            shortest_us = server->timeout_us[state];
    }
    int64_t interval_us = shortest_us / 8;
    if (interval_us > TICK_MAX_US)
        interval_us = TICK_MAX_US;
    return clock_timeval_us(interval_us < TICK_MIN_US ? TICK_MIN_US : interval_us);
}

/* --- the server object ------------------------------------------------------------------------ */

static void free_server(void *object)
{
    struct http_server *server = object;
    struct http_request *request;
    while ((request = LIST_FIRST(&server->kept_requests))) {
        LIST_REMOVE(request, link);
        http_request_free(request);
    }
    if (server->accept_event)
        event_free(server->accept_event);
    if (server->tick_event)
        event_free(server->tick_event);
    if (server->ready_event)
        event_free(server->ready_event);
    if (server->listen_fd >= 0)
        close(server->listen_fd);
    dynbuf_done(&server->scratch);
    free(server);
}

/* False when memory runs out. */
static bool start_events(struct http_server *server)
{
    struct event_base *base = server->config.base;
    struct timeval interval = tick_interval(server);
    server->accept_event =
        event_new(base, server->listen_fd, EV_READ | EV_PERSIST, on_acceptable, server);
    server->tick_event = event_new(base, -1, EV_PERSIST, on_tick, server);
    server->ready_event = event_new(base, -1, 0, on_ready, server);
    return server->accept_event && server->tick_event && server->ready_event &&
           event_add(server->accept_event, NULL) == 0 &&
           event_add(server->tick_event, &interval) == 0;
}

struct http_limits http_limits(const struct settings *settings, size_t max_connections)
{
    return (struct http_limits){.max_connections = max_connections,
                                .max_header_bytes = (size_t)settings->http.max_header_bytes,
                                .max_headers = (size_t)settings->http.max_headers,
                                .max_body_bytes = (size_t)settings->http.max_body_bytes,
                                .request_timeout_ms = settings->http.request_timeout_ms,
                                .idle_timeout_ms = settings->http.idle_timeout_ms,
                                .write_timeout_ms = settings->http.write_timeout_ms};
}

struct http_server *http_server_new(const struct http_server_config *config, int listen_fd)
{
    struct http_server *server = calloc(1, sizeof *server);
    const struct http_limits *limits = &config->limits;
    if (!server)
        return NULL;
    server->config = *config;
    server->listen_fd = listen_fd;
    for (int state = 0; state < HTTP_CONN_STATES; state++)
        TAILQ_INIT(&server->conns[state]);
    TAILQ_INIT(&server->ready);
    server->timeout_us[HTTP_CONN_IDLE] = limits->idle_timeout_ms * 1000;
    server->timeout_us[HTTP_CONN_READING] = limits->request_timeout_ms * 1000;
    server->timeout_us[HTTP_CONN_WRITING] = limits->write_timeout_ms * 1000;
    server->timeout_us[HTTP_CONN_LINGERING] = HTTP_LINGER_US;
    dynbuf_init(&server->scratch, 65536);
    if (getrandom(&server->id_seed, sizeof server->id_seed, GRND_NONBLOCK) < 0)
        server->id_seed = (uint64_t)clock_wall_us();
    const char *label[] = {config->listener};
    server->connections_gauge = metrics_series(config->metrics, METRIC_HTTP_CONNECTIONS, label);
    server->refused_counter = metrics_series(config->metrics, METRIC_HTTP_REFUSED, label);
    /* Accepted sockets inherit it; it fails on what is not TCP, where it is not needed. */
    int on = 1;
    (void)setsockopt(listen_fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (!start_events(server)) {
        server->listen_fd = -1; /* stays the caller's */
        free_server(server);
        return NULL;
    }
    return server;
}

/* A request that is in the kernel but not yet in our hands. */
static bool has_unread_bytes(int fd)
{
    char byte;
    return recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
}

void http_server_drain(struct http_server *server)
{
    if (server->draining)
        return;
    /* What the kernel has accepted already must not be reset: it is served once more. */
    for (int i = 0; i < DRAIN_ACCEPT_MAX && !server->accept_paused && accept_one(server); i++)
        ;
    server->draining = true;
    event_del(server->accept_event);
    close(server->listen_fd);
    server->listen_fd = -1;
    struct http_connection *conn;
    while ((conn = TAILQ_FIRST(&server->conns[HTTP_CONN_STREAMING])))
        http_conn_close(conn, "the server is shutting down");
    conn = TAILQ_FIRST(&server->conns[HTTP_CONN_IDLE]);
    while (conn) {
        struct http_connection *next = TAILQ_NEXT(conn, link);
        if (!conn->advancing && http_conn_input_len(conn) == 0 && !has_unread_bytes(conn->fd))
            http_conn_close(conn, "the server is shutting down");
        conn = next;
    }
}

size_t http_server_connections(const struct http_server *server)
{
    return server->conn_count;
}

void http_server_free(struct http_server *server)
{
    if (!server)
        return;
    for (int state = 0; state < HTTP_CONN_STATES; state++) {
        struct http_connection *conn;
        while ((conn = TAILQ_FIRST(&server->conns[state])))
            http_conn_close(conn, "the server is closing");
    }
    struct http_request *request;
    while ((request = LIST_FIRST(&server->requests))) {
        LIST_REMOVE(request, link);
        request->server = NULL;
    }
    event_del(server->accept_event);
    event_del(server->tick_event);
    event_del(server->ready_event);
    if (server->listen_fd >= 0)
        close(server->listen_fd);
    server->listen_fd = -1;
    reap(server->config.reap, server, free_server);
}

/* --- the listening socket --------------------------------------------------------------------- */

static int open_listener(const struct addrinfo *info, bool reuse_port, int backlog)
{
    int on = 1;
    int fd = socket(info->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 &&
        (!reuse_port || setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) == 0) &&
        bind(fd, info->ai_addr, info->ai_addrlen) == 0 && listen(fd, backlog) == 0)
        return fd;
    int saved = errno;
    close(fd);
    errno = saved;
    return -1;
}

enum sg_error http_listen(const char *address, bool reuse_port, int backlog, int *ret_fd,
                          char *error_text, size_t error_size)
{
    char host[HTTP_HOST_MAX];
    char port[HTTP_PORT_MAX];
    if (http_address_split(address, host, port) != SG_OK) {
        snprintf(error_text, error_size, "%s: not host:port or [v6]:port", address);
        errno = EINVAL;
        return SG_IO;
    }
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    struct addrinfo *found;
    int problem = getaddrinfo(host[0] ? host : NULL, port, &hints, &found);
    if (problem != 0) {
        snprintf(error_text, error_size, "%s: %s", address, gai_strerror(problem));
        errno = problem == EAI_SYSTEM ? errno : EADDRNOTAVAIL;
        return SG_IO;
    }
    int fd = -1;
    for (const struct addrinfo *info = found; info && fd < 0; info = info->ai_next)
        fd = open_listener(info, reuse_port, backlog);
    int saved = errno;
    freeaddrinfo(found);
    errno = saved;
    if (fd < 0) {
        snprintf(error_text, error_size, "%s: %s", address, strerror(saved));
        return SG_IO;
    }
    *ret_fd = fd;
    return SG_OK;
}
