/*
 * What the files of the HTTP edge share among themselves; nobody else includes this.
 *
 *   http.c          the listening socket, the server object, the clock that looks at deadlines
 *   http_conn.c     one connection: its states, and bytes to requests
 *   http_request.c  one request: its memory and what the handler may ask of it
 *   http_reply.c    answers and refusals: from values to bytes on the socket
 *   http_stream.c   answers without an end
 *
 * A server, its connections and its requests belong to one event loop; nothing here is shared
 * between threads.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_API_HTTP_INTERNAL_H
#define SG_API_HTTP_INTERNAL_H

#include <sys/queue.h>
#include <sys/uio.h>
#include <time.h>

#include "api/http.h"
#include "api/http_decode.h"
#include "api/http_parse.h"
#include "base/dynbuf.h"

struct bufferevent;
struct event;
struct metrics_series;

/* How long, and how many bytes, a client that was refused may go on sending before it is cut. */
#define HTTP_LINGER_US 2000000
#define HTTP_LINGER_BYTES (1 << 20)
/* Answers to a pipelined burst gather up to this size before the next request is looked at. */
#define HTTP_OUTPUT_BATCH_BYTES 65536
/* Buffers of a request larger than this are not kept for the next one. */
#define HTTP_KEPT_BUFFER_BYTES 16384
#define HTTP_KEPT_REQUESTS 256

/*
 *          first byte          complete           answer handed over
 *   IDLE ─────────────> READING ────────> WORKING ────────────────────> IDLE
 *    ^                     │ refused         │ the socket is full, or
 *    │ written             v                 v this was the last answer
 *    └────────────────── WRITING <───────────┘
 *                          │ written, and this was the last answer
 *                          v
 *                       LINGERING ──> CLOSED (on the reap list)
 *
 *   WORKING ──http_stream_begin──> STREAMING ──http_stream_end──> as after the last answer
 *
 * Each state but WORKING and STREAMING has a deadline, the same span for all connections in it; so
 * each state is a list that is always sorted by deadline, and only its first entries are ever
 * looked at.
 */
enum http_conn_state {
    HTTP_CONN_IDLE,
    HTTP_CONN_READING,
    HTTP_CONN_WORKING,
    HTTP_CONN_STREAMING,
    HTTP_CONN_WRITING,
    HTTP_CONN_LINGERING,
    HTTP_CONN_CLOSED
};
#define HTTP_CONN_STATES HTTP_CONN_CLOSED /* those that have a list */

struct http_connection {
    TAILQ_ENTRY(http_connection) link; /* in the list of its state */
    TAILQ_ENTRY(http_connection) ready_link;
    struct http_server *server; /* NULL once closed */
    struct bufferevent *bev;
    int fd; /* the bufferevent's */
    enum http_conn_state state;
    bool advancing;   /* the driver is on the stack: an answer must not start it again */
    bool ready;       /* in the server's ready list */
    bool peer_done;   /* the client sends nothing more */
    bool held_back;   /* reading is off: enough waits behind the request at work */
    bool close_after; /* what is being answered is the last request */
    bool linger;      /* close in a way that lets the client read the answer first */
    struct http_request *request; /* being read or with the handler */
    struct http_stream *stream;   /* STREAMING */
    int64_t deadline_us;
    size_t output_seen;    /* WRITING: bytes that were left when the deadline was last set */
    size_t lingered_bytes; /* LINGERING: thrown away so far */
};

TAILQ_HEAD(http_conn_list, http_connection);

struct http_joined; /* a repeated header, its values joined */

struct http_request {
    LIST_ENTRY(http_request) link;
    struct http_server *server;   /* NULL once the server is gone */
    struct http_connection *conn; /* NULL once the client is gone */
    struct dynbuf bytes;          /* the head as received, cut into strings when complete */
    struct dynbuf body;
    struct dynbuf reply_header; /* complete lines for the answer to come */
    unsigned reply_header_count;
    struct http_head head;
    bool head_done;
    struct http_chunked chunked;
    const char *path;
    struct http_param params[HTTP_PARAMS_MAX];
    size_t param_count;
    struct http_joined *joined;
    char id[HTTP_REQUEST_ID_MAX + 1];
    int64_t started_us;
    void *data;
    void (*data_free_fn)(void *data);
    struct http_field fields[]; /* limits.max_headers */
};

LIST_HEAD(http_request_list, http_request);

struct http_server {
    struct http_server_config config;
    int listen_fd; /* -1 once draining */
    struct event *accept_event;
    struct event *tick_event;
    struct event *ready_event;
    struct http_conn_list conns[HTTP_CONN_STATES];
    struct http_conn_list ready; /* have input to look at, once control is back in the loop */
    int64_t timeout_us[HTTP_CONN_STATES];
    size_t conn_count;
    bool draining;
    bool accept_paused; /* no file descriptor or memory was left; the tick tries again */
    struct http_request_list requests;      /* alive */
    struct http_request_list kept_requests; /* free, for the next */
    size_t kept_count;
    uint64_t id_seed;
    uint64_t id_count;
    struct dynbuf scratch; /* the answer being written */
    time_t date_second;
    char date[40];
    struct metrics_series *connections_gauge;
    struct metrics_series *refused_counter;
};

/* --- http_conn.c */

/* Takes fd, also on failure (out of memory: closed). */
void http_conn_new(struct http_server *server, int fd);
/* Off all lists, its request on its own; the memory goes with the reap list. */
void http_conn_close(struct http_connection *conn, const char *reason);
/* The deadline of its state is over. */
void http_conn_on_deadline(struct http_connection *conn);
/* The driver: takes steps until the connection has to wait for something. */
void http_conn_advance(struct http_connection *conn);
/* The answer to its request is handed over. */
void http_conn_answered(struct http_connection *conn);
/* The head of an answer without an end is handed over, the request released. */
void http_conn_streams(struct http_connection *conn, struct http_stream *stream);
/* True if the state has a deadline. */
bool http_conn_state_ends(enum http_conn_state state);
size_t http_conn_input_len(const struct http_connection *conn);
size_t http_conn_output_len(const struct http_connection *conn);

/* --- http_request.c */

/* For the first byte of a request on `conn`. NULL when memory runs out. */
struct http_request *http_request_new(struct http_connection *conn, int64_t now_us);
void http_request_release(struct http_request *request);
void http_request_free(struct http_request *request);
/* The head is complete: makes strings of its pieces, decodes path and query, settles the id. */
enum sg_error http_request_settle_head(struct http_request *request, const char **ret_detail);
/* An id for a request that is refused before it told one. */
void http_request_make_id(struct http_request *request);

/* --- http_reply.c */

/* "Not Found" of 404; "" if the status is none that is answered here. */
const char *http_reason(int status);
/* Answers the request that is being read with a problem, and closes behind it. */
void http_reply_refusal(struct http_connection *conn, enum sg_error error, const char *detail);
/* Sends the head of an answer that ends with its connection. The request stays. */
void http_reply_endless_head(struct http_request *request, const char *content_type);
/* "100 Continue", for a client that waits for it before it sends the body. */
void http_reply_continue(struct http_connection *conn);

/* --- http_stream.c */

/* The connection of a stream is closing: frees the stream, then tells its owner. */
void http_stream_closed(struct http_stream *stream);

#endif
