/*
 * The commands' HTTP client, on libevent's evhttp with an event loop of its own. See
 * admin_client.h. The only place where evhttp is used.
 *
 * SPDX-License-Identifier: MIT
 */
#include "cli/admin_client.h"

#include <event2/buffer.h>
#include <event2/event.h>
#include <event2/http.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/dynbuf.h"

struct call {
    struct event_base *base;
    bool answered;
    bool timed_out;
    int status;
    struct dynbuf *body;
};

static void on_answer(struct evhttp_request *request, void *arg)
{
    struct call *call = arg;
    if (request && evhttp_request_get_response_code(request) != 0) {
        struct evbuffer *in = evhttp_request_get_input_buffer(request);
        size_t len = evbuffer_get_length(in);
        call->answered = true;
        call->status = evhttp_request_get_response_code(request);
        if (len)
            dynbuf_add(call->body, evbuffer_pullup(in, -1), len);
    }
    event_base_loopbreak(call->base);
}

static void on_timeout(evutil_socket_t fd, short what, void *arg)
{
    struct call *call = arg;
    (void)fd;
    (void)what;
    call->timed_out = true;
    event_base_loopbreak(call->base);
}

/* "127.0.0.1:80", "[::1]:80"; false if there is no port. */
static bool split_address(const char *address, char *ret_host, size_t size, int *ret_port)
{
    const char *colon = strrchr(address, ':');
    if (!colon || colon == address || atoi(colon + 1) <= 0)
        return false;
    size_t len = (size_t)(colon - address);
    if (address[0] == '[' && address[len - 1] == ']') {
        address++;
        len -= 2;
    }
    if (len >= size)
        return false;
    memcpy(ret_host, address, len);
    ret_host[len] = '\0';
    *ret_port = atoi(colon + 1);
    return true;
}

static bool method_of(const char *name, enum evhttp_cmd_type *ret_method)
{
    static const struct {
        const char *name;
        enum evhttp_cmd_type method;
    } methods[] = {{"GET", EVHTTP_REQ_GET},
                   {"POST", EVHTTP_REQ_POST},
                   {"PUT", EVHTTP_REQ_PUT},
                   {"DELETE", EVHTTP_REQ_DELETE}};
    for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++) {
        if (strcmp(name, methods[i].name) == 0) {
            *ret_method = methods[i].method;
            return true;
        }
    }
    return false;
}

static bool send_request(struct evhttp_connection *connection, struct call *call,
                         const char *address, enum evhttp_cmd_type method, const char *path,
                         const void *body, size_t len)
{
    struct evhttp_request *request = evhttp_request_new(on_answer, call);
    if (!request)
        return false;
    struct evkeyvalq *headers = evhttp_request_get_output_headers(request);
    evhttp_add_header(headers, "Host", address);
    evhttp_add_header(headers, "Connection", "close");
    if (len) {
        evhttp_add_header(headers, "Content-Type", "application/json");
        evbuffer_add(evhttp_request_get_output_buffer(request), body, len);
    }
    return evhttp_make_request(connection, request, method, path) == 0; /* owns the request */
}

enum sg_error admin_call(const char *address, const char *method, const char *path,
                         const void *body, size_t len, int64_t timeout_ms, int *ret_status,
                         struct dynbuf *ret_body, char *error_text, size_t error_size)
{
    char host[256];
    int port;
    enum evhttp_cmd_type type;
    if (!split_address(address, host, sizeof(host), &port) || !method_of(method, &type)) {
        snprintf(error_text, error_size, "'%s %s' is not a request to host:port", method, address);
        return SG_IO;
    }
    struct call call = {.base = event_base_new(), .body = ret_body};
    struct event *deadline = call.base ? evtimer_new(call.base, on_timeout, &call) : NULL;
    struct evhttp_connection *connection =
        call.base ? evhttp_connection_base_new(call.base, NULL, host, (ev_uint16_t)port) : NULL;
    enum sg_error error = SG_NO_MEMORY;
    snprintf(error_text, error_size, "out of memory");
    if (deadline && connection &&
        send_request(connection, &call, address, type, path, body, len)) {
        struct timeval tv = clock_timeval_us(timeout_ms * 1000);
        event_add(deadline, &tv);
        event_base_dispatch(call.base);
        error = call.answered ? SG_OK : call.timed_out ? SG_DEADLINE : SG_IO;
    }
    if (error == SG_OK)
        *ret_status = call.status;
    else if (error == SG_DEADLINE)
        snprintf(error_text, error_size, "no answer from http://%s within %lld ms", address,
                 (long long)timeout_ms);
    else if (error == SG_IO)
        snprintf(error_text, error_size, "no answer from http://%s: is `seatgrid serve` running?",
                 address);
    if (connection)
        evhttp_connection_free(connection);
    if (deadline)
        event_free(deadline);
    if (call.base)
        event_base_free(call.base);
    return error;
}
