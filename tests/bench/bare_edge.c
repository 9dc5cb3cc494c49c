/*
 * The HTTP edge of api/ answering a constant: what is left of the ceiling before any real work.
 *
 *   bare_edge PORT THREADS [later]    one server a thread on an SO_REUSEPORT socket of 127.0.0.1
 *
 * The same answer as bare_evhttp gives, so that the two can be set beside each other in one run.
 * With `later` each answer is given in the next turn of the loop, as a handler that has to ask a
 * database would. Runs until killed.
 *
 * SPDX-License-Identifier: MIT
 */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <event2/event.h>

#include "api/http.h"
#include "base/metrics.h"
#include "base/reap.h"

#define THREADS_MAX 64

static const char answer[] = "{\"eventId\":1,\"rows\":2,\"cols\":5,\"seats\":[\"..hx.\",\".....\"],"
                             "\"note\":\"about a hundred bytes, no more\"}";

static char address[32];
static bool answers_later;

static void reply(struct http_request *request)
{
    http_reply(request, 200, "application/json", answer, sizeof answer - 1);
}

static void on_later(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    reply(arg);
}

static void on_request(void *arg, struct http_request *request)
{
    struct timeval now = {0};
    if (answers_later)
        event_base_once(arg, -1, EV_TIMEOUT, on_later, request, &now);
    else
        reply(request);
}

static void *serve(void *arg)
{
    char error_text[256];
    int fd;
    (void)arg;
    if (http_listen(address, true, 1024, &fd, error_text, sizeof error_text) != SG_OK) {
        fprintf(stderr, "bare_edge: %s\n", error_text);
        exit(1);
    }
    struct event_base *base = event_base_new();
    struct http_server_config config = {
        .base = base,
        .metrics = metrics_set_new(),
        .reap = base ? reap_list_new(base) : NULL,
        .limits = {.max_connections = 10000,
                   .max_header_bytes = 16384,
                   .max_headers = 64,
                   .max_body_bytes = 65536,
                   .request_timeout_ms = 10000,
                   .idle_timeout_ms = 60000,
                   .write_timeout_ms = 10000},
        .listener = "http",
        .on_request = on_request,
        .arg = base,
    };
    if (!config.reap || !config.metrics || !http_server_new(&config, fd)) {
        fprintf(stderr, "bare_edge: out of memory\n");
        exit(1);
    }
    event_base_dispatch(base);
    return NULL;
}

int main(int argc, char **argv)
{
    int port = argc >= 3 ? atoi(argv[1]) : 0;
    int threads = argc >= 3 ? atoi(argv[2]) : 0;
    answers_later = argc == 4 && strcmp(argv[3], "later") == 0;
    if (port < 1 || port > 65535 || threads < 1 || threads > THREADS_MAX ||
        argc > (answers_later ? 4 : 3)) {
        fprintf(stderr, "usage: bare_edge PORT THREADS [later]\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    snprintf(address, sizeof address, "127.0.0.1:%d", port);
    pthread_t ids[THREADS_MAX];
    for (int i = 0; i < threads; i++) {
        if (pthread_create(&ids[i], NULL, serve, NULL) != 0) {
            fprintf(stderr, "bare_edge: cannot start a thread\n");
            return 1;
        }
    }
    for (int i = 0; i < threads; i++)
        pthread_join(ids[i], NULL);
    return 0;
}
