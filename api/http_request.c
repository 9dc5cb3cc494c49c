/*
 * One HTTP request: its memory, and what the handler may ask of it.
 *
 *   bytes: "GET /events/7?full=1 HTTP/1.1\r\nHost: a\r\n..."
 *               ^path    ^params                ^fields[0].value    cut into strings in place
 *
 * A request owns all that it points to and outlives its connection until it is answered. Finished
 * ones are kept, with their buffers, for the next request of the same server.
 *
 * SPDX-License-Identifier: MIT
 */
#include <stdlib.h>
#include <string.h>

#include "api/http_internal.h"

#define REPLY_HEADER_BYTES_MAX 16384

struct http_joined {
    struct http_joined *next;
    char text[];
};

static void reset_buffer(struct dynbuf *buf)
{
    if (buf->size > HTTP_KEPT_BUFFER_BYTES)
        dynbuf_done(buf);
    dynbuf_reset(buf);
}

static struct http_request *make(const struct http_limits *limits)
{
    size_t fields = limits->max_headers * sizeof(struct http_field);
    struct http_request *request = calloc(1, sizeof *request + fields);
    if (!request)
        return NULL;
    /* One byte more than the limit must fit, for the parser to see that it is crossed. */
    dynbuf_init(&request->bytes, limits->max_header_bytes + 1);
    dynbuf_init(&request->body, limits->max_body_bytes);
    dynbuf_init(&request->reply_header, REPLY_HEADER_BYTES_MAX);
    return request;
}

struct http_request *http_request_new(struct http_connection *conn, int64_t now_us)
{
    struct http_server *server = conn->server;
    const struct http_limits *limits = &server->config.limits;
    struct http_request *request = LIST_FIRST(&server->kept_requests);
    if (request) {
        LIST_REMOVE(request, link);
        server->kept_count--;
    } else {
        request = make(limits);
        if (!request)
            return NULL;
    }
    http_head_init(&request->head, limits->max_header_bytes, request->fields, limits->max_headers);
    request->head_done = false;
    request->path = "";
    request->param_count = 0;
    request->reply_header_count = 0;
    request->id[0] = '\0';
    request->started_us = now_us;
    request->server = server;
    request->conn = conn;
    LIST_INSERT_HEAD(&server->requests, request, link);
    return request;
}

void http_request_free(struct http_request *request)
{
    dynbuf_done(&request->bytes);
    dynbuf_done(&request->body);
    dynbuf_done(&request->reply_header);
    free(request);
}

void http_request_release(struct http_request *request)
{
    struct http_server *server = request->server;
    if (request->data_free_fn)
        request->data_free_fn(request->data);
    request->data = NULL;
    request->data_free_fn = NULL;
    while (request->joined) {
        struct http_joined *joined = request->joined;
        request->joined = joined->next;
        free(joined);
    }
    if (server)
        LIST_REMOVE(request, link);
    if (!server || server->kept_count == HTTP_KEPT_REQUESTS) {
        http_request_free(request);
        return;
    }
    reset_buffer(&request->bytes);
    reset_buffer(&request->body);
    reset_buffer(&request->reply_header);
    request->conn = NULL;
    LIST_INSERT_HEAD(&server->kept_requests, request, link);
    server->kept_count++;
}

/* --- the head becomes strings ----------------------------------------------------------------- */

/* A bijection of 64 bits (splitmix64): ids of one server never repeat, and don't show their count.
 */
static uint64_t scramble(uint64_t x)
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

void http_request_make_id(struct http_request *request)
{
    static const char digits[] = "0123456789abcdef";
    struct http_server *server = request->server;
    uint64_t value = scramble(server->id_seed + server->id_count++);
    for (int i = 15; i >= 0; i--, value >>= 4)
        request->id[i] = digits[value & 15];
    request->id[16] = '\0';
}

static bool is_request_id(const char *text, size_t len)
{
    if (len < 1 || len > HTTP_REQUEST_ID_MAX)
        return false;
    for (size_t i = 0; i < len; i++) {
        char c = text[i];
        bool fine = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                    c == '.' || c == '_' || c == '-';
        if (!fine)
            return false;
    }
    return true;
}

static void settle_id(struct http_request *request)
{
    const char *given = http_request_header(request, "x-request-id");
    size_t len = given ? strlen(given) : 0;
    if (given && is_request_id(given, len))
        memcpy(request->id, given, len + 1);
    else
        http_request_make_id(request);
}

static enum sg_error settle_path(struct http_request *request, const char **ret_detail)
{
    const struct http_span *span = &request->head.path;
    char *path = request->bytes.data + span->at;
    size_t len = span->len;
    if (len == 0) {
        request->path = "/";
        return SG_OK;
    }
    enum sg_error error = http_path_decode(path, len, &len, ret_detail);
    if (error == SG_OK) {
        path[len] = '\0';
        request->path = path;
    }
    return error;
}

enum sg_error http_request_settle_head(struct http_request *request, const char **ret_detail)
{
    struct http_head *head = &request->head;
    char *bytes = request->bytes.data;
    /* The byte behind each piece is a separator that has done its duty. */
    for (size_t i = 0; i < head->field_count; i++)
        bytes[head->fields[i].value.at + head->fields[i].value.len] = '\0';
    bytes[head->method_name.at + head->method_name.len] = '\0';
    request->head_done = true;
    settle_id(request);
    enum sg_error error = settle_path(request, ret_detail);
    if (error == SG_OK && head->query.len)
        error = http_query_decode(bytes + head->query.at, head->query.len, request->params,
                                  &request->param_count, ret_detail);
    return error;
}

/* --- what the handler may ask ----------------------------------------------------------------- */

enum http_method http_request_method(const struct http_request *request)
{
    return request->head.method;
}

const char *http_request_method_name(const struct http_request *request)
{
    return request->bytes.data + request->head.method_name.at;
}

const char *http_request_path(const struct http_request *request)
{
    return request->path;
}

const char *http_request_query(const struct http_request *request, const char *name)
{
    for (size_t i = 0; i < request->param_count; i++) {
        if (strcmp(request->params[i].name, name) == 0)
            return request->params[i].value;
    }
    return NULL;
}

static bool is_field(const struct http_request *request, size_t i, const char *name, size_t len)
{
    const struct http_span *span = &request->head.fields[i].name;
    return span->len == len && http_equals_nocase(request->bytes.data + span->at, len, name);
}

/* The values of a repeated header in one string that the request owns; NULL when memory runs out.
 */
static const char *join(struct http_request *request, const char *name, size_t name_len)
{
    const struct http_head *head = &request->head;
    size_t room = 1;
    for (size_t i = 0; i < head->field_count; i++) {
        if (is_field(request, i, name, name_len))
            room += head->fields[i].value.len + 2;
    }
    struct http_joined *joined = malloc(sizeof *joined + room);
    if (!joined)
        return NULL;
    char *at = joined->text;
    for (size_t i = 0; i < head->field_count; i++) {
        if (!is_field(request, i, name, name_len))
            continue;
        if (at > joined->text)
            at = mempcpy(at, ", ", 2);
        const struct http_span *value = &head->fields[i].value;
        at = mempcpy(at, request->bytes.data + value->at, value->len);
    }
    *at = '\0';
    joined->next = request->joined;
    request->joined = joined;
    return joined->text;
}

const char *http_request_header(const struct http_request *request, const char *name)
{
    size_t len = strlen(name);
    const char *found = NULL;
    for (size_t i = 0; i < request->head.field_count; i++) {
        if (!is_field(request, i, name, len))
            continue;
        if (found) /* the joined text is a cache: the request stays the same to the caller */
            return join((struct http_request *)(uintptr_t)request, name, len);
        found = request->bytes.data + request->head.fields[i].value.at;
    }
    return found;
}

const char *http_request_body(const struct http_request *request, size_t *ret_len)
{
    *ret_len = request->body.len;
    return dynbuf_text(&request->body);
}

const char *http_request_id(const struct http_request *request)
{
    return request->id;
}

int64_t http_request_started_us(const struct http_request *request)
{
    return request->started_us;
}

void http_request_set_data(struct http_request *request, void *data, void (*free_fn)(void *data))
{
    request->data = data;
    request->data_free_fn = free_fn;
}

void *http_request_data(const struct http_request *request)
{
    return request->data;
}
