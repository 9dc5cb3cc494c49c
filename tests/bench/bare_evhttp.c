/*
 * The ceiling that every HTTP figure is set beside: libevent's own evhttp answering a constant.
 *
 *   bare_evhttp PORT THREADS      one evhttp a thread on an SO_REUSEPORT socket of 127.0.0.1
 *
 * It parses and answers, and does nothing else: no routing, no database, no request id. What the
 * edge in api/ does per request costs extra; this program shows how much. Runs until killed.
 *
 * SPDX-License-Identifier: MIT
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <event2/buffer.h>
#include <event2/event.h>
#include <event2/http.h>

#define THREADS_MAX 64

static const char answer[] = "{\"eventId\":1,\"rows\":2,\"cols\":5,\"seats\":[\"..hx.\",\".....\"],"
                             "\"note\":\"about a hundred bytes, no more\"}";

static void on_request(struct evhttp_request *request, void *arg)
{
    (void)arg;
    struct evbuffer *body = evhttp_request_get_output_buffer(request);
    evbuffer_add_reference(body, answer, sizeof answer - 1, NULL, NULL);
    evhttp_add_header(evhttp_request_get_output_headers(request), "Content-Type",
                      "application/json");
    evhttp_send_reply(request, 200, "OK", NULL);
}

/* A listening socket that shares its port with those of the other threads; -1 with errno. */
static int listen_on(int port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    int on = 1;
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0 ||
        setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) < 0 ||
        bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, 1024) < 0) {
        int saved = errno;
        close(fd);
        errno = saved;
        return -1;
    }
    return fd;
}

static void *serve(void *arg)
{
    int port = *(const int *)arg;
    struct event_base *base = event_base_new();
    struct evhttp *http = base ? evhttp_new(base) : NULL;
    int fd = listen_on(port);
    if (!http || fd < 0 || evhttp_accept_socket(http, fd) < 0) {
        fprintf(stderr, "bare_evhttp: port %d: %s\n", port, strerror(errno));
        exit(1);
    }
    evhttp_set_gencb(http, on_request, NULL);
    event_base_dispatch(base);
    evhttp_free(http);
    event_base_free(base);
    return NULL;
}

int main(int argc, char **argv)
{
    int port = argc == 3 ? atoi(argv[1]) : 0;
    int threads = argc == 3 ? atoi(argv[2]) : 0;
    if (port < 1 || port > 65535 || threads < 1 || threads > THREADS_MAX) {
        fprintf(stderr, "usage: bare_evhttp PORT THREADS\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    pthread_t ids[THREADS_MAX];
    for (int i = 0; i < threads; i++) {
        if (pthread_create(&ids[i], NULL, serve, &port) != 0) {
            fprintf(stderr, "bare_evhttp: cannot start a thread\n");
            return 1;
        }
    }
    for (int i = 0; i < threads; i++)
        pthread_join(ids[i], NULL);
    return 0;
}
