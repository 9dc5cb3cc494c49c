/*
 * One HTTP connection: its states, and bytes to requests. The states are drawn in http_internal.h.
 *
 *   bufferevent input ─> head: copied into the request, parsed ─> body: copied ─> on_request
 *
 * http_conn_advance is the one driver: it takes steps until the connection waits for the client,
 * the handler or the socket. Callbacks only record what happened and call it. An answer given
 * inside on_request finds the driver on the stack and leaves the next step to it; one that comes
 * later puts the connection on the server's ready list if there is input to look at. So a pipelined
 * burst is a loop, never a recursion.
 *
 * While a request is at work reading goes on, so that a client that leaves is noticed, until
 * INPUT_BYTES_MAX wait behind it; then the rest stays in the kernel. (Not by the bufferevent's read
 * watermark: at the mark libevent calls the read callback again and again, a busy loop.)
 *
 * SPDX-License-Identifier: MIT
 */
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>

#include "api/http_internal.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/reap.h"

/* The head is copied out of the input in such steps: a burst of short requests costs no more. */
#define HEAD_STEP_BYTES 1024
#define INPUT_BYTES_MAX 16384

bool http_conn_state_ends(enum http_conn_state state)
{
    return state != HTTP_CONN_WORKING && state != HTTP_CONN_STREAMING;
}

static void set_state(struct http_connection *conn, enum http_conn_state state)
{
    struct http_server *server = conn->server;
    TAILQ_REMOVE(&server->conns[conn->state], conn, link);
    conn->state = state;
    if (state == HTTP_CONN_CLOSED)
        return;
    TAILQ_INSERT_TAIL(&server->conns[state], conn, link);
    if (http_conn_state_ends(state))
        conn->deadline_us = clock_mono_us() + server->timeout_us[state];
}

size_t http_conn_input_len(const struct http_connection *conn)
{
    return evbuffer_get_length(bufferevent_get_input(conn->bev));
}

size_t http_conn_output_len(const struct http_connection *conn)
{
    return evbuffer_get_length(bufferevent_get_output(conn->bev));
}

/* --- the end of a connection ------------------------------------------------------------------ */

static void free_conn(void *object)
{
    struct http_connection *conn = object;
    bufferevent_free(conn->bev); /* closes the socket */
    free(conn);
}

void http_conn_close(struct http_connection *conn, const char *reason)
{
    struct http_server *server = conn->server;
    if (conn->state == HTTP_CONN_CLOSED)
        return;
    log_debug(NULL, "http: connection %d closed: %s", conn->fd, reason);
    if (conn->request) {
        conn->request->conn = NULL;
        if (conn->state != HTTP_CONN_WORKING)
            http_request_release(conn->request);
        conn->request = NULL;
    }
    if (conn->ready)
        TAILQ_REMOVE(&server->ready, conn, ready_link);
    set_state(conn, HTTP_CONN_CLOSED);
    conn->server = NULL;
    server->conn_count--;
    metrics_add(server->connections_gauge, -1);
    bufferevent_setcb(conn->bev, NULL, NULL, NULL, NULL);
    bufferevent_disable(conn->bev, EV_READ | EV_WRITE);
    reap(server->config.reap, conn, free_conn);
    if (conn->stream) {
        struct http_stream *stream = conn->stream;
        conn->stream = NULL;
        http_stream_closed(stream);
    }
}

/* The last answer is in the kernel. Closing at once could reset the connection under it when the
 * client has sent more than was read; so we say that we are done and let the client finish. */
static void finish(struct http_connection *conn)
{
    if (conn->peer_done || (!conn->linger && http_conn_input_len(conn) == 0)) {
        http_conn_close(conn, "answered");
        return;
    }
    if (shutdown(conn->fd, SHUT_WR) < 0) {
        http_conn_close(conn, "the client is gone");
        return;
    }
    conn->lingered_bytes = 0;
    set_state(conn, HTTP_CONN_LINGERING);
}

static void wait_for_socket(struct http_connection *conn)
{
    conn->output_seen = http_conn_output_len(conn);
    set_state(conn, HTTP_CONN_WRITING);
}

/* --- bytes to a request ----------------------------------------------------------------------- */

/* Copies what the parser has not seen yet, at most one step of it. False when memory runs out. */
static bool copy_head_bytes(struct evbuffer *input, size_t input_len, struct dynbuf *bytes)
{
    struct evbuffer_ptr at;
    size_t more = input_len - bytes->len;
    if (more > HEAD_STEP_BYTES)
        more = HEAD_STEP_BYTES;
    if (more > bytes->max_len - bytes->len)
        more = bytes->max_len - bytes->len;
    if (!dynbuf_reserve(bytes, more))
        return false;
    if (bytes->len == 0) {
        evbuffer_copyout(input, bytes->data, more);
    } else if (evbuffer_ptr_set(input, &at, bytes->len, EVBUFFER_PTR_SET) < 0 ||
               evbuffer_copyout_from(input, &at, bytes->data + bytes->len, more) < 0) {
        return false;
    }
    bytes->len += more;
    return true;
}

static enum http_verdict refuse_head(struct http_request *request, enum sg_error error,
                                     const char *detail)
{
    request->head.error = error;
    request->head.detail = detail;
    return HTTP_REJECT;
}

/* What the head announces is looked at before any byte of the body is. */
static enum http_verdict take_head(struct http_connection *conn, struct evbuffer *input)
{
    struct http_request *request = conn->request;
    const struct http_head *head = &request->head;
    const char *detail;
    evbuffer_drain(input, head->len);
    enum sg_error error = http_request_settle_head(request, &detail);
    if (error != SG_OK)
        return refuse_head(request, error, detail);
    if (head->body == HTTP_BODY_LENGTH &&
        head->content_length > conn->server->config.limits.max_body_bytes)
        return refuse_head(request, SG_BODY_TOO_LARGE, "Content-Length is larger than allowed");
    http_chunked_init(&request->chunked);
    bool awaited = head->body == HTTP_BODY_CHUNKED || head->content_length > 0;
    if (head->expect_continue && awaited && evbuffer_get_length(input) == 0)
        http_reply_continue(conn);
    /* It may have found the client gone, and the request with it. */
    return conn->state == HTTP_CONN_CLOSED ? HTTP_NEED_MORE : HTTP_COMPLETE;
}

static enum http_verdict read_head(struct http_connection *conn, struct evbuffer *input)
{
    struct http_request *request = conn->request;
    size_t input_len = evbuffer_get_length(input);
    while (request->bytes.len < input_len) {
        if (!copy_head_bytes(input, input_len, &request->bytes))
            return refuse_head(request, SG_NO_MEMORY, "no memory for the request");
        enum http_verdict verdict =
            http_head_parse(&request->head, request->bytes.data, request->bytes.len);
        if (verdict == HTTP_COMPLETE)
            return take_head(conn, input);
        if (verdict == HTTP_REJECT)
            return HTTP_REJECT;
    }
    return HTTP_NEED_MORE;
}

static enum http_verdict read_counted_body(struct http_request *request, struct evbuffer *input)
{
    struct dynbuf *body = &request->body;
    size_t left = (size_t)request->head.content_length - body->len;
    size_t len = evbuffer_get_length(input);
    if (len > left)
        len = left;
    if (len) {
        if (!dynbuf_reserve(body, len))
            return refuse_head(request, SG_NO_MEMORY, "no memory for the body");
        evbuffer_remove(input, body->data + body->len, len);
        body->len += len;
        body->data[body->len] = '\0';
    }
    return len == left ? HTTP_COMPLETE : HTTP_NEED_MORE;
}

static enum http_verdict read_chunked_body(struct http_request *request, struct evbuffer *input)
{
    enum http_verdict verdict = HTTP_NEED_MORE;
    while (verdict == HTTP_NEED_MORE && evbuffer_get_length(input) > 0) {
        size_t used;
        const unsigned char *piece = evbuffer_pullup(input, 1);
        verdict = http_chunked_decode(&request->chunked, (const char *)piece,
                                      evbuffer_get_contiguous_space(input), &request->body, &used);
        evbuffer_drain(input, used);
    }
    if (verdict == HTTP_REJECT)
        return refuse_head(request, request->chunked.error, request->chunked.detail);
    return verdict;
}

static enum http_verdict read_request(struct http_connection *conn)
{
    struct http_request *request = conn->request;
    struct evbuffer *input = bufferevent_get_input(conn->bev);
    if (!request->head_done) {
        enum http_verdict verdict = read_head(conn, input);
        if (verdict != HTTP_COMPLETE)
            return verdict;
    }
    switch (request->head.body) {
    case HTTP_BODY_LENGTH:
        return read_counted_body(request, input);
    case HTTP_BODY_CHUNKED:
        return read_chunked_body(request, input);
    case HTTP_BODY_NONE:
        break;
    }
    return HTTP_COMPLETE;
}

/* --- the driver: one step a state, true when another may follow ------------------------------- */

static bool step_idle(struct http_connection *conn)
{
    size_t input_len = http_conn_input_len(conn);
    size_t output_len = http_conn_output_len(conn);
    if (output_len && (input_len == 0 || output_len >= HTTP_OUTPUT_BATCH_BYTES)) {
        wait_for_socket(conn);
        return false;
    }
    if (input_len == 0) {
        if (conn->peer_done)
            http_conn_close(conn, "the client closed it");
        return false;
    }
    conn->request = http_request_new(conn, clock_mono_us());
    if (!conn->request) {
        http_conn_close(conn, "no memory for a request");
        return false;
    }
    set_state(conn, HTTP_CONN_READING);
    return true;
}

static bool step_reading(struct http_connection *conn)
{
    struct http_request *request = conn->request;
    switch (read_request(conn)) {
    case HTTP_NEED_MORE:
        if (conn->state == HTTP_CONN_READING && conn->peer_done)
            http_reply_refusal(conn, SG_MALFORMED, "the connection ended inside the request");
        break;
    case HTTP_COMPLETE:
        set_state(conn, HTTP_CONN_WORKING);
        conn->server->config.on_request(conn->server->config.arg, request);
        return true;
    case HTTP_REJECT:
        http_reply_refusal(conn, request->head.error, request->head.detail);
        return true;
    }
    return false;
}

/* A client of a stream has nothing more to say; one that closes its side wants no more. */
static bool step_streaming(struct http_connection *conn)
{
    struct evbuffer *input = bufferevent_get_input(conn->bev);
    evbuffer_drain(input, evbuffer_get_length(input));
    if (conn->peer_done)
        http_conn_close(conn, "the client has left the stream");
    return false;
}

static bool step_lingering(struct http_connection *conn)
{
    struct evbuffer *input = bufferevent_get_input(conn->bev);
    conn->lingered_bytes += evbuffer_get_length(input);
    evbuffer_drain(input, evbuffer_get_length(input));
    if (conn->peer_done)
        http_conn_close(conn, "answered");
    else if (conn->lingered_bytes > HTTP_LINGER_BYTES)
        http_conn_close(conn, "answered, and the client goes on sending");
    return false;
}

static bool step(struct http_connection *conn)
{
    switch (conn->state) {
    case HTTP_CONN_IDLE:
        return step_idle(conn);
    case HTTP_CONN_READING:
        return step_reading(conn);
    case HTTP_CONN_STREAMING:
        return step_streaming(conn);
    case HTTP_CONN_LINGERING:
        return step_lingering(conn);
    case HTTP_CONN_WORKING:
    case HTTP_CONN_WRITING:
    case HTTP_CONN_CLOSED:
        break;
    }
    return false;
}

/* Reads on, or leaves it to the kernel to hold the client back. */
static void settle_reading(struct http_connection *conn)
{
    bool wanted = conn->state == HTTP_CONN_READING || http_conn_input_len(conn) < INPUT_BYTES_MAX;
    if (conn->peer_done || wanted == !conn->held_back)
        return;
    conn->held_back = !wanted;
    if (wanted)
        bufferevent_enable(conn->bev, EV_READ);
    else
        bufferevent_disable(conn->bev, EV_READ);
}

void http_conn_advance(struct http_connection *conn)
{
    if (conn->advancing)
        return;
    conn->advancing = true;
    while (step(conn))
        ;
    conn->advancing = false;
    if (conn->state != HTTP_CONN_CLOSED)
        settle_reading(conn);
}

void http_conn_answered(struct http_connection *conn)
{
    conn->request = NULL;
    if (conn->state == HTTP_CONN_CLOSED)
        return;
    if (conn->close_after) {
        if (http_conn_output_len(conn))
            wait_for_socket(conn);
        else
            finish(conn);
        return;
    }
    set_state(conn, HTTP_CONN_IDLE);
    if (conn->advancing)
        return;
    if (http_conn_input_len(conn) || conn->peer_done) {
        struct http_server *server = conn->server;
        if (TAILQ_EMPTY(&server->ready))
            event_active(server->ready_event, 0, 0);
        TAILQ_INSERT_TAIL(&server->ready, conn, ready_link);
        conn->ready = true;
    } else if (http_conn_output_len(conn)) {
        wait_for_socket(conn);
    }
}

void http_conn_streams(struct http_connection *conn, struct http_stream *stream)
{
    conn->request = NULL;
    conn->stream = stream;
    set_state(conn, HTTP_CONN_STREAMING);
    http_conn_advance(conn); /* throws away what was pipelined, reads on if it was held back */
}

void http_conn_on_deadline(struct http_connection *conn)
{
    switch (conn->state) {
    case HTTP_CONN_IDLE:
        http_conn_close(conn, "idle for too long");
        break;
    case HTTP_CONN_READING:
        http_reply_refusal(conn, SG_REQUEST_TIMEOUT, "the request did not arrive in time");
        break;
    case HTTP_CONN_WRITING:
        if (http_conn_output_len(conn) < conn->output_seen)
            wait_for_socket(conn);
        else
            http_conn_close(conn, "the client takes no byte of its answer");
        break;
    case HTTP_CONN_LINGERING:
        http_conn_close(conn, "answered, and the client does not close");
        break;
    case HTTP_CONN_WORKING:
    case HTTP_CONN_STREAMING:
    case HTTP_CONN_CLOSED:
        break;
    }
}

/* --- callbacks of the bufferevent ------------------------------------------------------------- */

static void on_readable(struct bufferevent *bev, void *arg)
{
    (void)bev;
    http_conn_advance(arg);
}

static void on_drained(struct bufferevent *bev, void *arg)
{
    struct http_connection *conn = arg;
    (void)bev;
    if (conn->state != HTTP_CONN_WRITING)
        return;
    if (conn->close_after) {
        finish(conn);
        return;
    }
    set_state(conn, HTTP_CONN_IDLE);
    http_conn_advance(conn);
}

static void on_end(struct bufferevent *bev, short what, void *arg)
{
    struct http_connection *conn = arg;
    (void)bev;
    if (what & BEV_EVENT_ERROR) {
        http_conn_close(conn, "the connection broke");
    } else if (what & BEV_EVENT_EOF) {
        /* It may have closed only its sending side: what it asked is still answered. */
        conn->peer_done = true;
        http_conn_advance(conn);
    }
}

void http_conn_new(struct http_server *server, int fd)
{
    struct http_connection *conn = calloc(1, sizeof *conn);
    struct bufferevent *bev =
        conn ? bufferevent_socket_new(server->config.base, fd, BEV_OPT_CLOSE_ON_FREE) : NULL;
    if (!bev) {
        log_error(NULL, "http: no memory for a connection");
        free(conn);
        close(fd);
        return;
    }
    *conn = (struct http_connection){.server = server, .bev = bev, .fd = fd};
    TAILQ_INSERT_TAIL(&server->conns[HTTP_CONN_IDLE], conn, link);
    set_state(conn, HTTP_CONN_IDLE);
    server->conn_count++;
    metrics_add(server->connections_gauge, 1);
    bufferevent_setcb(bev, on_readable, on_drained, on_end, conn);
    bufferevent_enable(bev, EV_READ); /* writing is enabled from birth, and idle until needed */
}
