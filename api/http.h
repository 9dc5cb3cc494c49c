/*
 * The HTTP edge: bytes on a socket to requests, answers to bytes on a socket. HTTP/1.1 and 1.0.
 *
 *   socket ─> bufferevent ─> http_parse (pure, strict) ─> struct http_request ─> handler
 *   socket <─ bufferevent <─ http_reply <─────────────────────────── any time later ─┘
 *
 * Whoever stands behind this header could be exchanged. It owns connections and their deadlines:
 * a request that does not arrive in time, a client that does not read, a connection that idles.
 * What is not HTTP is answered here with problem+json and `Connection: close`; the handler never
 * sees it. Requests on one connection are answered in order; a pipelined one waits unparsed.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_API_HTTP_H
#define SG_API_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct event_base;
struct http_request;
struct http_server;
struct metrics_set;
struct reap_list;
struct settings;

#define HTTP_REQUEST_ID_MAX 64

enum http_method {
    HTTP_GET,
    HTTP_HEAD,
    HTTP_POST,
    HTTP_PUT,
    HTTP_DELETE,
    HTTP_PATCH,
    HTTP_OPTIONS,
    HTTP_METHOD_OTHER
};

/* Every bound is a setting (http.*). */
struct http_limits {
    size_t max_connections;     /* of this server object; one more is closed at once */
    size_t max_header_bytes;    /* request line and header: 431 (414 when the line alone is over) */
    size_t max_headers;         /* header lines: 431 */
    size_t max_body_bytes;      /* 413 */
    int64_t request_timeout_ms; /* from the first byte of a request to its last: 408 */
    int64_t idle_timeout_ms;    /* between requests: closed */
    int64_t write_timeout_ms;   /* the client takes no byte for so long: closed */
};

/* Those of http.*, but `max_connections`. */
struct http_limits http_limits(const struct settings *settings, size_t max_connections);

struct http_server_config {
    struct event_base *base;
    struct metrics_set *metrics;
    struct reap_list *reap;
    struct http_limits limits;
    const char *listener; /* label of the metrics: "http" or "admin" */
    /* Called once for each well-formed request, which the handler now owns: it must answer exactly
     * once, now or later, with one of http_reply*. */
    void (*on_request)(void *arg, struct http_request *request);
    /* Called after a request that never reached the handler was refused by the edge (may be NULL)
     */
    void (*on_refused)(void *arg, enum sg_error error, int64_t duration_us);
    void *arg;
};

/* Takes ownership of the listening socket (non-blocking). NULL when memory runs out. */
struct http_server *http_server_new(const struct http_server_config *config, int listen_fd);
/* Stops accepting, closes streams and idle connections; answered ones get `Connection: close`. */
void http_server_drain(struct http_server *server);
/* Open connections, also while draining. */
size_t http_server_connections(const struct http_server *server);
/* Closes everything. Requests that are still with a handler stay valid until it answers. */
void http_server_free(struct http_server *server);

/* Opens a listening TCP socket with SO_REUSEADDR and, if asked, SO_REUSEPORT. `address` is
 * "host:port" or "[v6]:port". SG_OK, or SG_IO with errno and a readable line in error_text. */
enum sg_error http_listen(const char *address, bool reuse_port, int backlog, int *ret_fd,
                          char *error_text, size_t error_size);

/* --- the request, for the handler; everything is valid until the answer ----------------------- */

enum http_method http_request_method(const struct http_request *request);
const char *http_request_method_name(const struct http_request *request);
/* Absolute path, percent-decoded, without query; contains no "//", "/./", "/../", NUL or invalid
 * UTF-8 (the edge answered those with 400). */
const char *http_request_path(const struct http_request *request);
/* Value of a query parameter, percent-decoded, or NULL. */
const char *http_request_query(const struct http_request *request, const char *name);
/* Value of a header, name in lower case, or NULL. Repeated list headers are joined with ", ". */
const char *http_request_header(const struct http_request *request, const char *name);
const char *http_request_body(const struct http_request *request, size_t *ret_len);
/* The client's X-Request-Id if it is 1..64 bytes of [A-Za-z0-9._-], else one made here. */
const char *http_request_id(const struct http_request *request);
/* Monotonic time of the request's first byte. */
int64_t http_request_started_us(const struct http_request *request);
/* Room for the handler's own: freed with free_fn when the request goes. */
void http_request_set_data(struct http_request *request, void *data, void (*free_fn)(void *data));
void *http_request_data(const struct http_request *request);

/* --- the answer ------------------------------------------------------------------------------- */

/* Adds a header to the answer to come. Values are printable ASCII; at most 24 headers of at most
 * 512 bytes, further or larger ones are dropped with a log line. Date, Content-Length, Connection
 * and X-Request-Id are the edge's own. */
void http_reply_header(struct http_request *request, const char *name, const char *value);
/* Answers and releases the request. The body is copied; content_type NULL for no body (204, 304).
 * The body of an answer to HEAD is counted and not sent. */
void http_reply(struct http_request *request, int status, const char *content_type,
                const void *body, size_t len);
/* The same without a copy: `body` stays where it is until free_fn(arg) is called, exactly once. */
void http_reply_ref(struct http_request *request, int status, const char *content_type,
                    const void *body, size_t len, void (*free_fn)(void *arg), void *arg);

/* --- an answer without an end (Server-Sent Events) -------------------------------------------- */

struct http_block; /* bytes that many streams send: kept once, counted */
struct http_stream;

/* A copy of the bytes, one reference. NULL when memory runs out. */
struct http_block *http_block_new(const void *bytes, size_t len);
void http_block_unref(struct http_block *block);

/* Answers 200 with the headers set so far, no Content-Length, `Connection: close`, and keeps the
 * connection open for what http_stream_send writes. The request is released, as by http_reply. For
 * HEAD, a client that has gone, a server that drains, or without memory, NULL: the request is
 * released and there is no stream. on_closed runs once, from the loop, http_server_drain or
 * http_server_free, when the client goes, takes no byte for http.write_timeout_ms, or the server
 * drains; the stream is gone by then. Not after http_stream_end. What the client sends is thrown
 * away. max_waiting_bytes bounds what waits for the client here, and about that again in the
 * kernel. */
struct http_stream *http_stream_begin(struct http_request *request, const char *content_type,
                                      size_t max_waiting_bytes, void (*on_closed)(void *arg),
                                      void *arg);
/* False: the client is too slow, nothing was written; the caller ends or drops the stream. Never
 * calls on_closed. */
bool http_stream_send(struct http_stream *stream, const void *bytes, size_t len);
/* The same; what has to wait refers to the block and is not copied. */
bool http_stream_send_block(struct http_stream *stream, struct http_block *block);
/* Closes after what is waiting was sent (at most http.write_timeout_ms). */
void http_stream_end(struct http_stream *stream);
/* Closes at once; what is waiting is lost. */
void http_stream_drop(struct http_stream *stream, const char *reason);

#endif
