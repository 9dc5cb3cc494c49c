/*
 * The callbacks of the stand-in. See callbacks.h.
 *
 *   callbacks_send ──pause──> on_due ── httpclient of that server ──> on_answered ── 2xx ──> gone
 *                      ^                                                  │ else
 *                      └──────────────── pause, doubled ──────────────────┘ the last time ──> gone
 *
 * SPDX-License-Identifier: MIT
 */
#include "payment/callbacks.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include <event2/event.h>

#include "base/clock.h"
#include "base/log.h"
#include "payment/httpclient.h"

#define CONNECTIONS 16 /* to one server */
#define ANSWER_MAX 65536

struct server {
    struct tcpdial_address address;
    struct httpclient *client;
};

struct callback {
    TAILQ_ENTRY(callback) entry;
    struct callbacks *callbacks;
    struct event *due;
    struct httpclient *client;
    char path[HTTPCLIENT_PATH_MAX + 1];
    int tries;
    int64_t pause_us; /* before the next try */
    size_t len;
    char body[];
};

struct callbacks {
    struct event_base *base;
    struct hmac_secret secret;
    struct callbacks_counts counts;
    TAILQ_HEAD(, callback) open;
    bool stopping;
    size_t server_count;
    struct server servers[CALLBACKS_SERVERS_MAX];
};

static void callback_free(struct callback *callback)
{
    TAILQ_REMOVE(&callback->callbacks->open, callback, entry);
    callback->callbacks->counts.open--;
    event_free(callback->due);
    free(callback);
}

static void try_later(struct callback *callback)
{
    struct callbacks *callbacks = callback->callbacks;
    struct timeval pause = clock_timeval_us(callback->pause_us);
    if (callback->tries >= CALLBACKS_TRIES || event_add(callback->due, &pause) < 0) {
        callbacks->counts.given_up++;
        log_warn(NULL, "callback %s: given up after %d tries", callback->path, callback->tries);
        callback_free(callback);
        return;
    }
    callback->pause_us *= 2;
}

static void on_answered(void *arg, int status, const char *body, size_t len, const char *reason)
{
    struct callback *callback = arg;
    (void)body;
    (void)len;
    if (callback->callbacks->stopping) {
        callback_free(callback);
    } else if (status >= 200 && status <= 299) {
        callback->callbacks->counts.delivered++;
        callback_free(callback);
    } else {
        log_info(NULL, "callback %s: status %d %s", callback->path, status, reason);
        try_later(callback);
    }
}

static void on_due(evutil_socket_t fd, short what, void *arg)
{
    struct callback *callback = arg;
    char signature[HMAC_SIGNATURE_SIZE];
    (void)fd;
    (void)what;
    struct httpclient_request request = {.method = HTTPCLIENT_POST,
                                         .path = callback->path,
                                         .body = callback->body,
                                         .len = callback->len,
                                         .header_name = HMAC_HEADER,
                                         .header_value = signature};
    callback->tries++;
    callback->callbacks->counts.sent++;
    if (!hmac_sign(&callback->callbacks->secret, clock_wall_us() / 1000000, callback->body,
                   callback->len, signature) ||
        httpclient_send(callback->client, &request, on_answered, callback) != SG_OK)
        try_later(callback);
}

/* NULL when there are too many, or memory runs out. */
static struct httpclient *client_of(struct callbacks *callbacks,
                                    const struct tcpdial_address *address)
{
    for (size_t i = 0; i < callbacks->server_count; i++) {
        const struct server *server = &callbacks->servers[i];
        if (strcmp(server->address.host, address->host) == 0 &&
            strcmp(server->address.port, address->port) == 0)
            return server->client;
    }
    if (callbacks->server_count == CALLBACKS_SERVERS_MAX)
        return NULL;
    struct server *server = &callbacks->servers[callbacks->server_count];
    server->address = *address;
    server->client =
        httpclient_new(&(struct httpclient_config){.base = callbacks->base,
                                                   .address = *address,
                                                   .connections = CONNECTIONS,
                                                   .queue_max = CALLBACKS_OPEN_MAX,
                                                   .body_max = ANSWER_MAX,
                                                   .timeout_us = CALLBACKS_TIMEOUT_US});
    if (server->client)
        callbacks->server_count++;
    return server->client;
}

enum sg_error callbacks_send(struct callbacks *callbacks, const char *url, const void *body,
                             size_t len, int64_t pause_us)
{
    struct httpclient_url parts;
    struct timeval pause = clock_timeval_us(pause_us);
    if (!httpclient_parse_url(url, &parts))
        return SG_INVALID_VALUE;
    struct httpclient *client = client_of(callbacks, &parts.address);
    if (!client || callbacks->counts.open >= CALLBACKS_OPEN_MAX)
        return SG_OVERLOADED;
    struct callback *callback = calloc(1, sizeof(*callback) + len);
    if (callback)
        callback->due = evtimer_new(callbacks->base, on_due, callback);
    if (!callback || !callback->due || event_add(callback->due, &pause) < 0) {
        if (callback && callback->due)
            event_free(callback->due);
        free(callback);
        return SG_NO_MEMORY;
    }
    callback->callbacks = callbacks;
    callback->client = client;
    snprintf(callback->path, sizeof(callback->path), "%s", parts.path[0] ? parts.path : "/");
    callback->pause_us = CALLBACKS_FIRST_PAUSE_US;
    callback->len = len;
    memcpy(callback->body, body, len);
    TAILQ_INSERT_TAIL(&callbacks->open, callback, entry);
    callbacks->counts.open++;
    return SG_OK;
}

struct callbacks *callbacks_new(struct event_base *base, const struct hmac_secret *secret)
{
    struct callbacks *callbacks = calloc(1, sizeof(*callbacks));
    if (!callbacks)
        return NULL;
    callbacks->base = base;
    callbacks->secret = *secret;
    TAILQ_INIT(&callbacks->open);
    return callbacks;
}

void callbacks_free(struct callbacks *callbacks)
{
    struct callback *callback;
    if (!callbacks)
        return;
    callbacks->stopping = true;
    for (size_t i = 0; i < callbacks->server_count; i++)
        httpclient_free(callbacks->servers[i].client); /* frees those under way */
    while ((callback = TAILQ_FIRST(&callbacks->open)))
        callback_free(callback);
    free(callbacks);
}

void callbacks_counts(const struct callbacks *callbacks, struct callbacks_counts *ret_counts)
{
    *ret_counts = callbacks->counts;
}
