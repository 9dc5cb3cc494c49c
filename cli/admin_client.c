/*
 * One question to the admin listener. See admin_client.h.
 *
 *   admin_call ─> evhttp client on a private event_base ─> on_answer ─> ret_status, ret_body
 *
 * The only use of evhttp: as a client, towards a server that we trust.
 *
 * SPDX-License-Identifier: MIT
 */
#include "cli/admin_client.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <event2/buffer.h>
#include <event2/event.h>
#include <event2/http.h>
#include <event2/keyvalq_struct.h>

#include "api/http_decode.h"
#include "base/clock.h"
#include "base/dynbuf.h"

#define HEADER_BYTES_MAX 16384

struct call {
    struct event_base *base;
    struct dynbuf *body;
    bool done;
    int status; /* 0: no answer */
    bool too_large;
    bool no_memory;
};

static void on_error(enum evhttp_request_error error, void *arg)
{
    struct call *call = arg;
    call->too_large = error == EVREQ_HTTP_DATA_TOO_LONG;
}

static void keep_body(struct call *call, struct evbuffer *input)
{
    size_t len = evbuffer_get_length(input);
    size_t room = call->body->max_len - call->body->len;
    if (len > room)
        call->too_large = true;
    else if (!dynbuf_reserve(call->body, len))
        call->no_memory = true;
    if (call->too_large || call->no_memory)
        return;
    evbuffer_remove(input, call->body->data + call->body->len, len);
    call->body->len += len;
    call->body->data[call->body->len] = '\0';
}

static void on_answer(struct evhttp_request *request, void *arg)
{
    struct call *call = arg;
    call->done = true;
    if (request)
        call->status = evhttp_request_get_response_code(request);
    if (call->status)
        keep_body(call, evhttp_request_get_input_buffer(request));
    event_base_loopbreak(call->base);
}

/* False for a method that no endpoint of the admin listener has. */
static bool command_of(const char *method, enum evhttp_cmd_type *ret_command)
{
    static const struct {
        const char *method;
        enum evhttp_cmd_type command;
    } known[] = {{"GET", EVHTTP_REQ_GET},
                 {"POST", EVHTTP_REQ_POST},
                 {"PUT", EVHTTP_REQ_PUT},
                 {"DELETE", EVHTTP_REQ_DELETE}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (strcmp(known[i].method, method) == 0) {
            *ret_command = known[i].command;
            return true;
        }
    }
    return false;
}

/* Where to connect for an address that was meant for listening. */
static const char *reachable(const char *host)
{
    if (host[0] == '\0' || strcmp(host, "0.0.0.0") == 0 || strcmp(host, "*") == 0)
        return "127.0.0.1";
    return strcmp(host, "::") == 0 ? "::1" : host;
}

/* False when memory runs out. The connection owns the request from here on. */
static bool send_request(struct evhttp_connection *conn, struct call *call, const char *address,
                         enum evhttp_cmd_type command, const char *path, const void *body,
                         size_t len)
{
    struct evhttp_request *request = evhttp_request_new(on_answer, call);
    if (!request)
        return false;
    evhttp_request_set_error_cb(request, on_error);
    struct evkeyvalq *headers = evhttp_request_get_output_headers(request);
    if (evhttp_add_header(headers, "Host", address) < 0 ||
        evhttp_add_header(headers, "Connection", "close") < 0 ||
        (len && evhttp_add_header(headers, "Content-Type", "application/json") < 0) ||
        (len && evbuffer_add(evhttp_request_get_output_buffer(request), body, len) < 0)) {
        evhttp_request_free(request);
        return false;
    }
    return evhttp_make_request(conn, request, command, path) == 0;
}

static enum sg_error conclude(const struct call *call, const char *address, int64_t timeout_ms,
                              char *error_text, size_t error_size)
{
    if (call->too_large) {
        snprintf(error_text, error_size, "%s: the answer is larger than %zu bytes", address,
                 call->body->max_len);
        return SG_BODY_TOO_LARGE;
    }
    if (call->no_memory) {
        snprintf(error_text, error_size, "%s: out of memory", address);
        return SG_NO_MEMORY;
    }
    if (!call->done) {
        snprintf(error_text, error_size, "%s: no answer within %lld ms", address,
                 (long long)timeout_ms);
        return SG_DEADLINE;
    }
    if (!call->status) {
        snprintf(error_text, error_size, "%s: no connection or no HTTP answer", address);
        return SG_IO;
    }
    return SG_OK;
}

enum sg_error admin_call(const char *address, const char *method, const char *path,
                         const void *body, size_t len, int64_t timeout_ms, int *ret_status,
                         struct dynbuf *ret_body, char *error_text, size_t error_size)
{
    char host[HTTP_HOST_MAX];
    char port[HTTP_PORT_MAX];
    enum evhttp_cmd_type command;
    if (http_address_split(address, host, port) != SG_OK || !command_of(method, &command)) {
        snprintf(error_text, error_size, "%s %s: not host:port, or no such method", method,
                 address);
        return SG_INVALID_VALUE;
    }
    struct call call = {.base = event_base_new(), .body = ret_body};
    struct evhttp_connection *conn = NULL;
    if (call.base)
        conn = evhttp_connection_base_new(call.base, NULL, reachable(host),
                                          (uint16_t)strtoul(port, NULL, 10));
    enum sg_error error = SG_NO_MEMORY;
    snprintf(error_text, error_size, "%s: out of memory", address);
    if (conn) {
        struct timeval patience = clock_timeval_us(timeout_ms * 1000);
        evhttp_connection_set_max_headers_size(conn, HEADER_BYTES_MAX);
        evhttp_connection_set_max_body_size(conn, (ev_ssize_t)(ret_body->max_len - ret_body->len));
        event_base_loopexit(call.base, &patience);
        if (send_request(conn, &call, address, command, path, body, len)) {
            if (!call.done)
                event_base_dispatch(call.base);
            error = conclude(&call, address, timeout_ms, error_text, error_size);
        }
        call.done = true;
        evhttp_connection_free(conn);
    }
    if (call.base)
        event_base_free(call.base);
    if (error == SG_OK)
        *ret_status = call.status;
    return error;
}
