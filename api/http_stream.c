/*
 * Answers without an end: a head now, then whatever its owner sends, until either side has enough.
 *
 *   http_stream_send ─┬─ nothing waits ──> socket, at once
 *                     └─ the rest ──> bufferevent (bounded) ──> socket, when it has room
 *
 * An open stream that keeps up costs its connection and a few words: its request is released, and
 * neither input nor output is kept. What has to wait for slow clients of one block refers to that
 * block; it is freed with the last of them.
 *
 * SPDX-License-Identifier: MIT
 */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>

#include "api/http_internal.h"

/* Up to this size the rest of a block is cheaper copied than referred to. */
#define COPIED_REST_BYTES 128

struct http_block {
    unsigned refs;
    size_t len;
    char bytes[];
};

struct http_stream {
    struct http_connection *conn;
    size_t max_waiting_bytes;
    void (*on_closed)(void *arg);
    void *arg;
};

/* --- blocks ----------------------------------------------------------------------------------- */

struct http_block *http_block_new(const void *bytes, size_t len)
{
    struct http_block *block = malloc(sizeof(*block) + len);
    if (!block)
        return NULL;
    block->refs = 1;
    block->len = len;
    memcpy(block->bytes, bytes, len);
    return block;
}

void http_block_unref(struct http_block *block)
{
    if (block && --block->refs == 0)
        free(block);
}

static void on_block_written(const void *bytes, size_t len, void *arg)
{
    (void)bytes;
    (void)len;
    http_block_unref(arg);
}

/* --- begin and end ---------------------------------------------------------------------------- */

/* A reader that does not keep up shall be noticed here, and not after megabytes in the kernel; one
 * that is cut off from the network, when its heartbeats find no answer. */
static void set_socket(const struct http_connection *conn, size_t max_waiting_bytes)
{
    int size = max_waiting_bytes > 1 << 20 ? 1 << 20 : (int)max_waiting_bytes;
    unsigned timeout_ms = (unsigned)conn->server->config.limits.write_timeout_ms;
    /* Both fail on what is no TCP socket, where they are not needed. */
    (void)setsockopt(conn->fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
    (void)setsockopt(conn->fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout_ms, sizeof(timeout_ms));
}

struct http_stream *http_stream_begin(struct http_request *request, const char *content_type,
                                      size_t max_waiting_bytes, void (*on_closed)(void *arg),
                                      void *arg)
{
    struct http_connection *conn = request->conn;
    if (!conn) {
        http_request_release(request);
        return NULL;
    }
    bool wanted = request->head.method != HTTP_HEAD && !conn->server->draining && !conn->peer_done;
    struct http_stream *stream = wanted ? malloc(sizeof(*stream)) : NULL;
    http_reply_endless_head(request, content_type);
    http_request_release(request);
    if (stream && conn->state != HTTP_CONN_CLOSED) {
        *stream = (struct http_stream){conn, max_waiting_bytes, on_closed, arg};
        set_socket(conn, max_waiting_bytes);
        http_conn_streams(conn, stream);
        return stream;
    }
    free(stream);
    http_conn_answered(conn);
    return NULL;
}

void http_stream_closed(struct http_stream *stream)
{
    void (*on_closed)(void *arg) = stream->on_closed;
    void *arg = stream->arg;
    free(stream);
    on_closed(arg);
}

static struct http_connection *leave(struct http_stream *stream)
{
    struct http_connection *conn = stream->conn;
    conn->stream = NULL;
    free(stream);
    return conn;
}

void http_stream_end(struct http_stream *stream)
{
    http_conn_answered(leave(stream));
}

void http_stream_drop(struct http_stream *stream, const char *reason)
{
    http_conn_close(leave(stream), reason);
}

/* --- sending ---------------------------------------------------------------------------------- */

/* How much the socket took. A broken one takes nothing: the bufferevent, which then tries, finds
 * out what is wrong and tells it from the loop. */
static size_t send_now(const struct http_connection *conn, const void *bytes, size_t len)
{
    if (http_conn_output_len(conn) > 0)
        return 0;
    ssize_t sent = send(conn->fd, bytes, len, MSG_NOSIGNAL | MSG_DONTWAIT);
    return sent > 0 ? (size_t)sent : 0;
}

static bool has_room(const struct http_stream *stream, size_t len)
{
    size_t waiting = http_conn_output_len(stream->conn);
    return waiting <= stream->max_waiting_bytes && len <= stream->max_waiting_bytes - waiting;
}

bool http_stream_send(struct http_stream *stream, const void *bytes, size_t len)
{
    struct http_connection *conn = stream->conn;
    if (!has_room(stream, len))
        return false;
    size_t sent = send_now(conn, bytes, len);
    return sent == len || evbuffer_add(bufferevent_get_output(conn->bev),
                                       (const char *)bytes + sent, len - sent) == 0;
}

bool http_stream_send_block(struct http_stream *stream, struct http_block *block)
{
    struct http_connection *conn = stream->conn;
    struct evbuffer *output = bufferevent_get_output(conn->bev);
    if (!has_room(stream, block->len))
        return false;
    size_t sent = send_now(conn, block->bytes, block->len);
    size_t left = block->len - sent;
    if (left <= COPIED_REST_BYTES)
        return left == 0 || evbuffer_add(output, block->bytes + sent, left) == 0;
    if (evbuffer_add_reference(output, block->bytes + sent, left, on_block_written, block) < 0)
        return false;
    block->refs++;
    return true;
}
