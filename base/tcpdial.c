/*
 * Connecting by TCP. See tcpdial.h.
 *
 *   addresses ─> socket, connect ──writable──> fn(fd)
 *       ^             │ refused
 *       └── next <────┴──────── none left ───> fn(-1, reason), from an event of its own
 *
 * SPDX-License-Identifier: MIT
 */
#include "base/tcpdial.h"

#include <errno.h>
#include <event2/event.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct tcpdial {
    struct event_base *base;
    tcpdial_fn *fn;
    void *arg;
    struct addrinfo *addresses;
    const struct addrinfo *next;
    int fd; /* -1: none */
    struct event *writable;
    struct event *failed;
    char reason[128];
};

bool tcpdial_parse(const char *text, struct tcpdial_address *ret_address)
{
    const char *colon = strrchr(text, ':');
    char *end;
    if (!colon || colon == text)
        return false;
    const long port = strtol(colon + 1, &end, 10);
    if (*end || port < 1 || port > 65535)
        return false;
    const bool bracketed = text[0] == '[' && colon[-1] == ']';
    const char *from = bracketed ? text + 1 : text;
    const size_t len = (size_t)(colon - from) - (bracketed ? 1 : 0);
    if (len == 0 || len >= sizeof(ret_address->host))
        return false;
    memcpy(ret_address->host, from, len);
    ret_address->host[len] = '\0';
    snprintf(ret_address->port, sizeof(ret_address->port), "%ld", port);
    return true;
}

static void close_socket(struct tcpdial *dial)
{
    if (dial->writable)
        event_free(dial->writable);
    dial->writable = NULL;
    if (dial->fd >= 0)
        close(dial->fd);
    dial->fd = -1;
}

static void fail(struct tcpdial *dial, const char *reason)
{
    close_socket(dial);
    snprintf(dial->reason, sizeof(dial->reason), "%s", reason);
    event_active(dial->failed, 0, 0);
}

static void on_failed(evutil_socket_t fd, short what, void *arg)
{
    struct tcpdial *dial = arg;
    (void)fd;
    (void)what;
    dial->fn(dial->arg, -1, dial->reason);
}

static void on_writable(evutil_socket_t fd, short what, void *arg);

/* 0, or errno. */
static int open_socket(struct tcpdial *dial, const struct addrinfo *address)
{
    const int one = 1;
    dial->fd = socket(address->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (dial->fd < 0)
        return errno;
    setsockopt(dial->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    if (connect(dial->fd, address->ai_addr, address->ai_addrlen) != 0 && errno != EINPROGRESS)
        return errno;
    dial->writable = event_new(dial->base, dial->fd, EV_WRITE, on_writable, dial);
    return dial->writable && event_add(dial->writable, NULL) == 0 ? 0 : ENOMEM;
}

static void try_next(struct tcpdial *dial, int error)
{
    while (dial->next) {
        const struct addrinfo *address = dial->next;
        dial->next = address->ai_next;
        close_socket(dial);
        error = open_socket(dial, address);
        if (error == 0)
            return;
    }
    fail(dial, strerror(error));
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
    struct tcpdial *dial = arg;
    int error = 0;
    socklen_t len = sizeof(error);
    (void)what;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) != 0)
        error = errno;
    if (error) {
        try_next(dial, error);
        return;
    }
    dial->fd = -1; /* handed over */
    dial->fn(dial->arg, fd, NULL);
}

struct tcpdial *tcpdial_new(struct event_base *base, const struct tcpdial_address *address,
                            tcpdial_fn *fn, void *arg)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    struct tcpdial *dial = calloc(1, sizeof(*dial));
    if (!dial)
        return NULL;
    *dial = (struct tcpdial){.base = base, .fn = fn, .arg = arg, .fd = -1};
    dial->failed = event_new(base, -1, 0, on_failed, dial);
    if (!dial->failed) {
        free(dial);
        return NULL;
    }
    const int error = getaddrinfo(address->host, address->port, &hints, &dial->addresses);
    if (error) {
        dial->addresses = NULL;
        fail(dial, gai_strerror(error));
        return dial;
    }
    dial->next = dial->addresses;
    try_next(dial, EADDRNOTAVAIL);
    return dial;
}

void tcpdial_free(struct tcpdial *dial)
{
    if (!dial)
        return;
    close_socket(dial);
    event_free(dial->failed);
    if (dial->addresses)
        freeaddrinfo(dial->addresses);
    free(dial);
}
