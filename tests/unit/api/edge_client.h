/*
 * The real HTTP edge and the real app in front of a fake router, with a client in the same thread.
 *
 *   client socket ─> 127.0.0.1, any port ─> http edge ─> app ─> fake router
 *
 * edge_setup and edge_teardown are cmocka fixtures around each test. edge_ask sends one request
 * with `Connection: close`, turns the event loop until the answer is complete and returns it.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_TESTS_EDGE_CLIENT_H
#define SG_TESTS_EDGE_CLIENT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <event2/event.h>

#include "api/app.h"
#include "api/http.h"
#include "base/clock.h"
#include "base/dynbuf.h"
#include "base/metrics.h"
#include "base/reap.h"
#include "base/settings.h"
#include "tests/unit/api/fake_router.h"

#define EDGE_PATIENCE_US 5000000

struct edge {
    struct event_base *base;
    struct reap_list *reap;
    struct settings settings;
    struct router *router;
    struct app *app;
    struct http_server *server;
    int port;
    /* The last answer. */
    struct dynbuf bytes;
    int status;
    char *body; /* in bytes */
    size_t body_len;
};

/* For the app; a test that has some sets them before its first fixture. */
static struct saga *edge_saga;
static struct queue_sender *edge_queue;

/* `tune` may change the settings before anybody reads them; NULL for none. */
static inline int edge_setup_tuned(void **state, void (*tune)(struct settings *settings))
{
    struct edge *edge = calloc(1, sizeof(*edge));
    struct metrics_set *metrics = metrics_set_new();
    struct sockaddr_in address;
    socklen_t address_len = sizeof(address);
    char error[128];
    int fd;
    assert_non_null(edge);
    edge->base = event_base_new();
    edge->reap = reap_list_new(edge->base);
    edge->router = fake_router_new(edge->base);
    edge->settings.http.gzip_min_bytes = 1024;
    edge->settings.http.retry_after_ms = 1500;
    edge->settings.booking.max_seats = 10;
    edge->settings.holds.default_ms = 120000;
    edge->settings.holds.min_ms = 1000;
    edge->settings.holds.max_ms = 900000;
    edge->settings.events.max_seats = 1000000;
    edge->settings.http.idle_timeout_ms = 5000;
    edge->settings.live.heartbeat_ms = 15000;
    if (tune)
        tune(&edge->settings);
    edge->app = app_new(&(struct app_config){.settings = &edge->settings,
                                             .router = edge->router,
                                             .metrics = metrics,
                                             .base = edge->base,
                                             .saga = edge_saga,
                                             .queue = edge_queue});
    assert_int_equal(http_listen("127.0.0.1:0", false, 16, &fd, error, sizeof(error)), SG_OK);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &address_len), 0);
    edge->port = ntohs(address.sin_port);
    struct http_server_config config = {
        .base = edge->base,
        .metrics = metrics,
        .reap = edge->reap,
        .limits = {.max_connections = 16,
                   .max_header_bytes = 8192,
                   .max_headers = 64,
                   .max_body_bytes = 65536,
                   .request_timeout_ms = 5000,
                   .idle_timeout_ms = edge->settings.http.idle_timeout_ms,
                   .write_timeout_ms = 5000},
        .listener = "http",
        .on_request = app_handle,
        .on_refused = app_refused,
        .arg = edge->app,
    };
    edge->server = http_server_new(&config, fd);
    assert_non_null(edge->server);
    dynbuf_init(&edge->bytes, 64 * 1024 * 1024);
    *state = edge;
    return 0;
}

static inline int edge_setup(void **state)
{
    return edge_setup_tuned(state, NULL);
}

static inline int edge_teardown(void **state)
{
    struct edge *edge = *state;
    http_server_free(edge->server);
    event_base_loop(edge->base, EVLOOP_NONBLOCK);
    app_free(edge->app);
    fake_router_free(edge->router);
    reap_list_free(edge->reap);
    event_base_free(edge->base);
    dynbuf_done(&edge->bytes);
    metrics_shutdown();
    free(edge);
    return fake_seatmaps_alive;
}

static inline int edge_connect(struct edge *edge)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)edge->port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

/* Reads until the server closes. */
static inline void edge_read(struct edge *edge, int fd)
{
    int64_t until_us = clock_mono_us() + EDGE_PATIENCE_US;
    dynbuf_reset(&edge->bytes);
    for (;;) {
        event_base_loop(edge->base, EVLOOP_NONBLOCK);
        assert_true(dynbuf_reserve(&edge->bytes, 65536));
        ssize_t n = recv(fd, edge->bytes.data + edge->bytes.len, 65536, MSG_DONTWAIT);
        if (n == 0)
            break;
        if (n > 0)
            edge->bytes.len += (size_t)n;
        else
            assert_true(errno == EAGAIN && clock_mono_us() < until_us);
    }
    assert_true(edge->bytes.len > 12);
    edge->bytes.data[edge->bytes.len] = '\0';
    char *head_end = strstr(edge->bytes.data, "\r\n\r\n");
    assert_non_null(head_end);
    head_end[2] = '\0';
    edge->status = atoi(edge->bytes.data + 9);
    edge->body = head_end + 4;
    edge->body_len = edge->bytes.len - (size_t)(edge->body - edge->bytes.data);
}

/* `headers`: complete lines with "\r\n", or "". `body` NULL for none. Returns the status. */
static inline int edge_ask(struct edge *edge, const char *method, const char *target,
                           const char *headers, const char *body)
{
    struct dynbuf request;
    int fd = edge_connect(edge);
    dynbuf_init(&request, 1024 * 1024);
    dynbuf_addf(&request, "%s %s HTTP/1.1\r\nHost: test\r\nConnection: close\r\n%s", method, target,
                headers);
    if (body)
        dynbuf_addf(&request, "Content-Length: %zu\r\n\r\n%s", strlen(body), body);
    else
        dynbuf_adds(&request, "\r\n");
    assert_int_equal(send(fd, request.data, request.len, MSG_NOSIGNAL), request.len);
    dynbuf_done(&request);
    edge_read(edge, fd);
    close(fd);
    return edge->status;
}

/* Value of a header of the last answer, or NULL; valid until the next call. */
static inline const char *edge_header(struct edge *edge, const char *name)
{
    static char value[1024];
    size_t name_len = strlen(name);
    const char *line = edge->bytes.data;
    while ((line = strstr(line, "\r\n"))) {
        line += 2;
        if (strncasecmp(line, name, name_len) != 0 || line[name_len] != ':')
            continue;
        const char *from = line + name_len + 1 + strspn(line + name_len + 1, " ");
        snprintf(value, sizeof(value), "%.*s", (int)strcspn(from, "\r"), from);
        return value;
    }
    return NULL;
}

/* A series, named as /metrics does, with its labels; 0 if it is not there. */
static inline int edge_metric(const char *series)
{
    char line[1024];
    struct dynbuf text;
    int count = 0;
    snprintf(line, sizeof(line), "\n%s ", series);
    dynbuf_init(&text, 16 * 1024 * 1024);
    metrics_render(&text);
    const char *at = strstr(dynbuf_text(&text), line);
    if (at)
        count = atoi(at + strlen(line));
    dynbuf_done(&text);
    return count;
}

/* The counter of requests with these labels. */
static inline int edge_count(const char *route, const char *shard, const char *node,
                             const char *outcome)
{
    char series[512];
    snprintf(series, sizeof(series),
             "seatgrid_http_requests_total{route=\"%s\",shard=\"%s\",node=\"%s\",outcome=\"%s\"}",
             route, shard, node, outcome);
    return edge_metric(series);
}

#define edge_assert_body_has(edge, text)                                                           \
    do {                                                                                           \
        if (!strstr((edge)->body, text))                                                           \
            fail_msg("no '%s' in: %s", text, (edge)->body);                                        \
    } while (0)

#define edge_assert_header(edge, name, expected)                                                   \
    do {                                                                                           \
        const char *found_value = edge_header(edge, name);                                         \
        if (!found_value || strcmp(found_value, expected) != 0)                                    \
            fail_msg("%s is '%s', not '%s'", name, found_value ? found_value : "(missing)",        \
                     expected);                                                                    \
    } while (0)

#endif
