/*
 * The HTTP client. See httpclient.h.
 *
 *   waiting ──on_pump──> a slot's connection ──on_answer──> gone
 *      └───────on_deadline───────┴──> gone, and the slot's connection with it
 *
 * A slot has one request at a time, so that closing its connection ends that one alone. Connections
 * are never freed inside a callback of evhttp: a deadline frees them from the loop, an answer
 * leaves them.
 *
 * SPDX-License-Identifier: MIT
 */
#include "payment/httpclient.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/http.h>
#include <event2/keyvalq_struct.h>

#include "base/clock.h"

#define HEADER_BYTES_MAX 16384

struct slot {
    struct evhttp_connection *conn; /* NULL until it is needed */
    struct call *call;              /* under way; NULL: free */
    bool spoiled;                   /* more may come of an answer that was told */
};

struct call {
    TAILQ_ENTRY(call) entry;
    struct httpclient *client;
    struct slot *slot; /* NULL: waiting */
    struct event *deadline;
    httpclient_fn *fn;
    void *arg;
    enum httpclient_method method;
    char *path; /* in text, as the others */
    char *header_name;
    char *header_value;
    void *body;
    size_t len;
    char text[];
};

TAILQ_HEAD(call_list, call);

struct httpclient {
    struct httpclient_config config;
    char host[300]; /* value of the Host header */
    struct call_list waiting;
    size_t waiting_count;
    struct event *pump;
    struct slot slots[];
};

/* --- addresses -------------------------------------------------------------------------------- */

bool httpclient_parse_url(const char *text, struct httpclient_url *ret_url)
{
    static const char scheme[] = "http://";
    struct httpclient_url url;
    char address[sizeof(url.address.host) + sizeof(url.address.port) + 4];
    if (strncmp(text, scheme, strlen(scheme)) != 0)
        return false;
    text += strlen(scheme);
    size_t len = strcspn(text, "/");
    if (len >= sizeof(address) || strlen(text + len) > HTTPCLIENT_PATH_MAX)
        return false;
    for (const char *p = text; *p; p++) {
        if (*p <= ' ' || *p > '~' || *p == '"')
            return false;
    }
    snprintf(address, sizeof(address), "%.*s", (int)len, text);
    if (!tcpdial_parse(address, &url.address))
        return false;
    snprintf(url.path, sizeof(url.path), "%s", text + len);
    *ret_url = url;
    return true;
}

/* --- one request ------------------------------------------------------------------------------ */

static void call_free(struct call *call)
{
    if (call->deadline)
        event_free(call->deadline);
    free(call);
}

/* Tells its sender, and is gone; its slot is free. */
static void call_end(struct call *call, int status, const char *body, size_t len,
                     const char *reason)
{
    struct httpclient *client = call->client;
    if (call->slot) {
        call->slot->call = NULL;
    } else {
        TAILQ_REMOVE(&client->waiting, call, entry);
        client->waiting_count--;
    }
    if (client->waiting_count)
        event_active(client->pump, 0, 0);
    httpclient_fn *fn = call->fn;
    void *arg = call->arg;
    call_free(call);
    fn(arg, status, body, len, reason);
}

static void on_answer(struct evhttp_request *request, void *arg)
{
    struct call *call = arg;
    int status = request ? evhttp_request_get_response_code(request) : 0;
    if (!status) {
        call_end(call, 0, "", 0, "no connection, or it was lost");
        return;
    }
    call->slot->spoiled = status < 200; /* evhttp takes an interim answer for the last one */
    struct evbuffer *input = evhttp_request_get_input_buffer(request);
    size_t len = evbuffer_get_length(input);
    if (evbuffer_add(input, "", 1) < 0) {
        call_end(call, 0, "", 0, "no memory for the answer");
        return;
    }
    const unsigned char *body = evbuffer_pullup(input, -1);
    if (body)
        call_end(call, status, (const char *)body, len, "");
    else
        call_end(call, 0, "", 0, "no memory for the answer");
}

static void on_deadline(evutil_socket_t fd, short what, void *arg)
{
    struct call *call = arg;
    (void)fd;
    (void)what;
    if (call->slot) { /* frees the request, too, without a callback */
        evhttp_connection_free(call->slot->conn);
        call->slot->conn = NULL;
    }
    call_end(call, 0, "", 0, "no answer in time");
}

/* --- sending ---------------------------------------------------------------------------------- */

/* What a server said unasked would be taken for the next answer. */
static void drop_spoiled(struct slot *slot)
{
    struct bufferevent *bev = slot->conn ? evhttp_connection_get_bufferevent(slot->conn) : NULL;
    if (bev && (slot->spoiled || evbuffer_get_length(bufferevent_get_input(bev)))) {
        evhttp_connection_free(slot->conn);
        slot->conn = NULL;
    }
    slot->spoiled = false;
}

static bool connect_slot(struct httpclient *client, struct slot *slot)
{
    const struct tcpdial_address *address = &client->config.address;
    drop_spoiled(slot);
    if (slot->conn)
        return true;
    slot->conn = evhttp_connection_base_new(client->config.base, NULL, address->host,
                                            (uint16_t)strtoul(address->port, NULL, 10));
    if (!slot->conn)
        return false;
    struct timeval patience = clock_timeval_us(client->config.timeout_us);
    evhttp_connection_set_timeout_tv(slot->conn, &patience);
    evhttp_connection_set_max_headers_size(slot->conn, HEADER_BYTES_MAX);
    evhttp_connection_set_max_body_size(slot->conn, (ev_ssize_t)client->config.body_max);
    return true;
}

static struct evhttp_request *make_request(const struct call *call)
{
    struct evhttp_request *request = evhttp_request_new(on_answer, (void *)call);
    if (!request)
        return NULL;
    struct evkeyvalq *headers = evhttp_request_get_output_headers(request);
    bool made =
        evhttp_add_header(headers, "Host", call->client->host) == 0 &&
        (!call->len || evhttp_add_header(headers, "Content-Type", "application/json") == 0) &&
        (!call->header_name ||
         evhttp_add_header(headers, call->header_name, call->header_value) == 0) &&
        (!call->len ||
         evbuffer_add(evhttp_request_get_output_buffer(request), call->body, call->len) == 0);
    if (made)
        return request;
    evhttp_request_free(request);
    return NULL;
}

/* Whatever happens ends in on_answer, at once if it has to be. */
static void start(struct httpclient *client, struct slot *slot, struct call *call)
{
    static const enum evhttp_cmd_type commands[] = {[HTTPCLIENT_GET] = EVHTTP_REQ_GET,
                                                    [HTTPCLIENT_POST] = EVHTTP_REQ_POST,
                                                    [HTTPCLIENT_PUT] = EVHTTP_REQ_PUT};
    TAILQ_REMOVE(&client->waiting, call, entry);
    client->waiting_count--;
    call->slot = slot;
    slot->call = call;
    struct evhttp_request *request = connect_slot(client, slot) ? make_request(call) : NULL;
    if (!request) {
        call_end(call, 0, "", 0, "no memory for the request");
        return;
    }
    /* may have called back: nothing of the call is touched after it */
    if (evhttp_make_request(slot->conn, request, commands[call->method], call->path) != 0 &&
        slot->call == call)
        call_end(call, 0, "", 0, "the request could not be sent");
}

static void on_pump(evutil_socket_t fd, short what, void *arg)
{
    struct httpclient *client = arg;
    (void)fd;
    (void)what;
    for (size_t i = 0; i < client->config.connections && client->waiting_count; i++) {
        if (!client->slots[i].call)
            start(client, &client->slots[i], TAILQ_FIRST(&client->waiting));
    }
}

/* Everything of the request in one piece of memory. */
static struct call *call_new(struct httpclient *client, const struct httpclient_request *request)
{
    size_t path_size = strlen(request->path) + 1;
    size_t name_size = request->header_name ? strlen(request->header_name) + 1 : 0;
    size_t value_size = request->header_name ? strlen(request->header_value) + 1 : 0;
    struct call *call =
        calloc(1, sizeof(*call) + path_size + name_size + value_size + request->len);
    if (!call)
        return NULL;
    char *end = call->text;
    call->path = memcpy(end, request->path, path_size);
    end += path_size;
    if (request->header_name) {
        call->header_name = memcpy(end, request->header_name, name_size);
        call->header_value = memcpy(end + name_size, request->header_value, value_size);
        end += name_size + value_size;
    }
    call->body = end;
    if (request->len)
        memcpy(end, request->body, request->len);
    call->len = request->len;
    call->method = request->method;
    call->client = client;
    return call;
}

enum sg_error httpclient_send(struct httpclient *client, const struct httpclient_request *request,
                              httpclient_fn *fn, void *arg)
{
    if (client->waiting_count >= client->config.queue_max)
        return SG_OVERLOADED;
    struct call *call = call_new(client, request);
    struct timeval patience = clock_timeval_us(client->config.timeout_us);
    if (call)
        call->deadline = evtimer_new(client->config.base, on_deadline, call);
    if (!call || !call->deadline || event_add(call->deadline, &patience) < 0) {
        if (call)
            call_free(call);
        return SG_NO_MEMORY;
    }
    call->fn = fn;
    call->arg = arg;
    TAILQ_INSERT_TAIL(&client->waiting, call, entry);
    client->waiting_count++;
    event_active(client->pump, 0, 0);
    return SG_OK;
}

/* --- life ------------------------------------------------------------------------------------- */

struct httpclient *httpclient_new(const struct httpclient_config *config)
{
    struct httpclient *client =
        calloc(1, sizeof(*client) + config->connections * sizeof(struct slot));
    if (!client)
        return NULL;
    client->config = *config;
    TAILQ_INIT(&client->waiting);
    bool v6 = strchr(config->address.host, ':') != NULL;
    snprintf(client->host, sizeof(client->host), v6 ? "[%s]:%s" : "%s:%s", config->address.host,
             config->address.port);
    client->pump = event_new(config->base, -1, 0, on_pump, client);
    if (!client->pump) {
        free(client);
        return NULL;
    }
    return client;
}

void httpclient_free(struct httpclient *client)
{
    if (!client)
        return;
    client->config.queue_max = 0; /* nobody sends any more from inside what follows */
    struct call *call;
    while ((call = TAILQ_FIRST(&client->waiting)))
        call_end(call, 0, "", 0, "this process is stopping");
    for (size_t i = 0; i < client->config.connections; i++) {
        struct slot *slot = &client->slots[i];
        if (slot->conn)
            evhttp_connection_free(slot->conn);
        slot->conn = NULL;
        if (slot->call)
            call_end(slot->call, 0, "", 0, "this process is stopping");
    }
    event_free(client->pump);
    free(client);
}
