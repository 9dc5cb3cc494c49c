/*
 * A small HTTP client on the event loop: many requests to one server, over a few connections that
 * are kept. libevent's evhttp as a client stays behind this line.
 *
 *   httpclient_send ──> waiting, at most queue_max ──> a free one of `connections` ──> server
 *   fn(status, body) <── answer, or a lost connection, or the deadline (from httpclient_send)
 *
 * An answer is one only when it came whole. Nothing is sent twice: a request whose connection was
 * lost, also a kept one that the server closed at that moment, is told as unanswered (status 0),
 * and whoever sent it knows what that means.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_PAYMENT_HTTPCLIENT_H
#define SG_PAYMENT_HTTPCLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/tcpdial.h"

struct event_base;
struct httpclient;

#define HTTPCLIENT_PATH_MAX 768

struct httpclient_url {
    struct tcpdial_address address;
    char path[HTTPCLIENT_PATH_MAX + 1]; /* with its query; "" for none */
};

/* Takes "http://host:port" or "http://host:port/path?query" apart, printable ASCII without blanks;
 * false and *ret_url untouched if it is none. */
bool httpclient_parse_url(const char *text, struct httpclient_url *ret_url);

enum httpclient_method { HTTPCLIENT_GET, HTTPCLIENT_POST, HTTPCLIENT_PUT };

struct httpclient_config {
    struct event_base *base;
    struct tcpdial_address address; /* a host name is looked up at each connect, and blocks */
    size_t connections;             /* open at the same time, made when they are needed */
    size_t queue_max;               /* requests waiting for one: SG_OVERLOADED past it */
    size_t body_max;                /* bytes of an answer; a longer one is none */
    int64_t timeout_us;             /* from httpclient_send to the answer's last byte */
};

/* Borrowed for the call. */
struct httpclient_request {
    enum httpclient_method method;
    const char *path;
    const void *body; /* application/json */
    size_t len;
    const char *header_name; /* one more header; NULL for none */
    const char *header_value;
};

/* status 0: no answer; reason says why. The body is NUL-terminated and valid during the callback.
 */
typedef void httpclient_fn(void *arg, int status, const char *body, size_t len, const char *reason);

/* NULL when memory runs out. */
struct httpclient *httpclient_new(const struct httpclient_config *config);
/* Requests under way are told as unanswered first. Not from inside an httpclient_fn. */
void httpclient_free(struct httpclient *client);
/* SG_OK: fn runs exactly once, later, never from inside the call. SG_OVERLOADED, SG_NO_MEMORY:
 * nothing was sent and fn never runs. */
enum sg_error httpclient_send(struct httpclient *client, const struct httpclient_request *request,
                              httpclient_fn *fn, void *arg);

#endif
