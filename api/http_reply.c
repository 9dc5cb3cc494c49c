/*
 * Answers and refusals: from values to bytes on the socket.
 *
 *   values ─> head in the scratch buffer ─┬─────────────────> socket, at once
 *             body as it is ──────────────┴─> bufferevent ──> socket, when it has room
 *
 * An answer that fits into the socket is one system call. The rest, and the answers to a pipelined
 * burst, go through the bufferevent, which keeps their order.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>

#include "api/http_internal.h"
#include "api/problem.h"
#include "base/clock.h"
#include "base/log.h"

#define REPLY_HEADERS_MAX 24
#define REPLY_HEADER_VALUE_MAX 512
#define CONTENT_TYPE_MAX 128
/* What the edge itself writes into a head, at most. */
#define OWN_HEAD_BYTES 512
/* Up to this size a body is copied behind its head, and both go as one piece. */
#define COPIED_BODY_BYTES 4096

struct answer {
    int status;
    const char *content_type; /* NULL: no body, ever */
    bool endless;             /* the body follows, and ends with the connection */
    const void *body;
    size_t len;
    void (*free_fn)(void *arg); /* NULL: the body is copied */
    void *arg;
};

/* A referenced body that waits in an evbuffer. */
struct held_body {
    void (*free_fn)(void *arg);
    void *arg;
};

const char *http_reason(int status)
{
    switch (status) {
    case 200:
        return "OK";
    case 201:
        return "Created";
    case 202:
        return "Accepted";
    case 204:
        return "No Content";
    case 304:
        return "Not Modified";
    case 400:
        return "Bad Request";
    case 401:
        return "Unauthorized";
    case 402:
        return "Payment Required";
    case 403:
        return "Forbidden";
    case 404:
        return "Not Found";
    case 405:
        return "Method Not Allowed";
    case 406:
        return "Not Acceptable";
    case 408:
        return "Request Timeout";
    case 409:
        return "Conflict";
    case 410:
        return "Gone";
    case 411:
        return "Length Required";
    case 412:
        return "Precondition Failed";
    case 413:
        return "Content Too Large";
    case 414:
        return "URI Too Long";
    case 415:
        return "Unsupported Media Type";
    case 422:
        return "Unprocessable Content";
    case 428:
        return "Precondition Required";
    case 429:
        return "Too Many Requests";
    case 431:
        return "Request Header Fields Too Large";
    case 500:
        return "Internal Server Error";
    case 501:
        return "Not Implemented";
    case 503:
        return "Service Unavailable";
    case 505:
        return "HTTP Version Not Supported";
    case 507:
        return "Insufficient Storage";
    default:
        return "";
    }
}

/* --- the head of an answer -------------------------------------------------------------------- */

/* "Sun, 06 Nov 1994 08:49:37 GMT", made anew once a second. */
static const char *date_now(struct http_server *server)
{
    static const char days[7][4] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
    static const char months[12][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                       "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    time_t now = time(NULL);
    if (now == server->date_second)
        return server->date;
    struct tm tm;
    gmtime_r(&now, &tm);
    snprintf(server->date, sizeof server->date, "%s, %02d %s %04d %02d:%02d:%02d GMT",
             days[tm.tm_wday], tm.tm_mday, months[tm.tm_mon], (tm.tm_year + 1900) % 10000,
             tm.tm_hour, tm.tm_min, tm.tm_sec);
    server->date_second = now;
    return server->date;
}

static char *put(char *at, const char *text)
{
    return stpcpy(at, text);
}

static char *put_number(char *at, size_t value)
{
    char digits[20];
    size_t i = sizeof digits;
    do {
        digits[--i] = (char)('0' + value % 10);
        value /= 10;
    } while (value);
    return mempcpy(at, digits + i, sizeof digits - i);
}

static char *put_content(char *at, const struct answer *answer)
{
    if (answer->content_type) {
        at = put(at, "\r\nContent-Type: ");
        at = mempcpy(at, answer->content_type, strnlen(answer->content_type, CONTENT_TYPE_MAX));
    }
    if (answer->status != 204 && answer->status != 304 && !answer->endless) {
        at = put(at, "\r\nContent-Length: ");
        at = put_number(at, answer->len);
    }
    return at;
}

/* Writes the head into the scratch buffer. False when memory runs out. */
static bool write_head(struct http_connection *conn, const struct http_request *request,
                       const struct answer *answer)
{
    struct dynbuf *out = &conn->server->scratch;
    const struct dynbuf *lines = &request->reply_header;
    dynbuf_reset(out);
    if (!dynbuf_reserve(out, OWN_HEAD_BYTES + lines->len + COPIED_BODY_BYTES))
        return false;
    char *at = put(out->data, "HTTP/1.1 ");
    at = put_number(at, (size_t)answer->status);
    *at++ = ' ';
    at = put(at, http_reason(answer->status));
    at = put(at, "\r\nDate: ");
    at = put(at, date_now(conn->server));
    at = put_content(at, answer);
    if (conn->close_after)
        at = put(at, "\r\nConnection: close");
    else if (request->head.version_minor == 0)
        at = put(at, "\r\nConnection: keep-alive");
    at = put(at, "\r\nX-Request-Id: ");
    at = put(at, request->id);
    at = put(at, "\r\n");
    if (lines->len)
        at = mempcpy(at, lines->data, lines->len);
    at = put(at, "\r\n");
    out->len = (size_t)(at - out->data);
    return true;
}

/* --- onto the socket -------------------------------------------------------------------------- */

static void let_go(const struct answer *answer)
{
    if (answer->free_fn)
        answer->free_fn(answer->arg);
}

/* Sends as much as the socket takes now. -1 if the connection is broken. */
static ssize_t send_now(const struct http_connection *conn, struct iovec pieces[2])
{
    struct msghdr message = {.msg_iov = pieces, .msg_iovlen = pieces[1].iov_len ? 2 : 1};
    ssize_t sent = message.msg_iovlen == 1
                       ? send(conn->fd, pieces[0].iov_base, pieces[0].iov_len, MSG_NOSIGNAL)
                       : sendmsg(conn->fd, &message, MSG_NOSIGNAL);
    if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
        return 0;
    return sent;
}

static void on_body_written(const void *bytes, size_t len, void *arg)
{
    struct held_body *held = arg;
    (void)bytes;
    (void)len;
    held->free_fn(held->arg);
    free(held);
}

/* The referenced rest of a body. False when memory runs out; the body is then let go already. */
static bool queue_reference(struct evbuffer *output, const struct iovec *rest,
                            const struct answer *answer)
{
    struct held_body *held = malloc(sizeof *held);
    if (held) {
        *held = (struct held_body){.free_fn = answer->free_fn, .arg = answer->arg};
        if (evbuffer_add_reference(output, rest->iov_base, rest->iov_len, on_body_written, held) ==
            0)
            return true;
        free(held);
    }
    let_go(answer);
    return false;
}

/* Hands what the socket did not take to the bufferevent. */
static bool queue_rest(struct http_connection *conn, struct iovec pieces[2], size_t sent,
                       const struct answer *answer)
{
    struct evbuffer *output = bufferevent_get_output(conn->bev);
    bool fine = true;
    for (int i = 0; i < 2; i++) {
        size_t skip = sent < pieces[i].iov_len ? sent : pieces[i].iov_len;
        sent -= skip;
        pieces[i].iov_base = (char *)pieces[i].iov_base + skip;
        pieces[i].iov_len -= skip;
    }
    if (pieces[0].iov_len)
        fine = evbuffer_add(output, pieces[0].iov_base, pieces[0].iov_len) == 0;
    if (pieces[1].iov_len && answer->free_fn)
        return queue_reference(output, &pieces[1], answer) && fine;
    if (pieces[1].iov_len && fine)
        fine = evbuffer_add(output, pieces[1].iov_base, pieces[1].iov_len) == 0;
    let_go(answer);
    return fine;
}

/* pieces[0] is the head, pieces[1] the body or nothing. Lets the answer's body go when it is done
 * with it. */
static void emit(struct http_connection *conn, struct iovec pieces[2], const struct answer *answer)
{
    ssize_t sent = 0;
    bool gathers = conn->advancing && http_conn_input_len(conn) > 0;
    if (!gathers && http_conn_output_len(conn) == 0)
        sent = send_now(conn, pieces);
    if (sent < 0) {
        let_go(answer);
        http_conn_close(conn, "the client is gone");
    } else if ((size_t)sent == pieces[0].iov_len + pieces[1].iov_len) {
        let_go(answer);
    } else if (!queue_rest(conn, pieces, (size_t)sent, answer)) {
        http_conn_close(conn, "no memory for an answer");
    }
}

static void send_answer(struct http_connection *conn, const struct http_request *request,
                        const struct answer *answer)
{
    struct dynbuf *head = &conn->server->scratch;
    if (!write_head(conn, request, answer)) {
        let_go(answer);
        http_conn_close(conn, "no memory for an answer");
        return;
    }
    struct iovec pieces[2] = {{.iov_base = head->data}, {.iov_base = NULL}};
    bool bodiless =
        request->head.method == HTTP_HEAD || answer->status == 204 || answer->status == 304;
    size_t len = bodiless ? 0 : answer->len;
    if (len <= COPIED_BODY_BYTES) {
        if (len)
            memcpy(head->data + head->len, answer->body, len);
        pieces[0].iov_len = head->len + len;
    } else {
        pieces[0].iov_len = head->len;
        pieces[1] = (struct iovec){.iov_base = (void *)(uintptr_t)answer->body, .iov_len = len};
    }
    emit(conn, pieces, answer);
}

void http_reply_endless_head(struct http_request *request, const char *content_type)
{
    struct http_connection *conn = request->conn;
    conn->close_after = true;
    conn->linger = false;
    send_answer(conn, request,
                &(struct answer){.status = 200, .content_type = content_type, .endless = true});
}

void http_reply_continue(struct http_connection *conn)
{
    char text[] = "HTTP/1.1 100 Continue\r\n\r\n";
    struct iovec pieces[2] = {{.iov_base = text, .iov_len = sizeof text - 1}, {.iov_base = NULL}};
    emit(conn, pieces, &(struct answer){.free_fn = NULL});
}

/* --- for the handler -------------------------------------------------------------------------- */

static bool is_clean(const char *text, bool token)
{
    for (const char *c = text; *c; c++) {
        if (token ? !http_is_token_char(*c) : *c < 0x20 || *c > 0x7e)
            return false;
    }
    return true;
}

void http_reply_header(struct http_request *request, const char *name, const char *value)
{
    struct log_fields fields = {.request_id = request->id};
    size_t name_len = strlen(name);
    size_t value_len = strlen(value);
    if (request->reply_header_count == REPLY_HEADERS_MAX || name_len == 0 ||
        name_len + value_len + 4 > REPLY_HEADER_VALUE_MAX || !is_clean(name, true) ||
        !is_clean(value, false)) {
        log_warn(&fields, "answer header dropped: one of too many, too long or not printable");
        return;
    }
    struct dynbuf *lines = &request->reply_header;
    if (!dynbuf_reserve(lines, name_len + value_len + 4)) {
        log_error(&fields, "answer header dropped: no memory");
        return;
    }
    char *at = mempcpy(lines->data + lines->len, name, name_len);
    at = mempcpy(at, ": ", 2);
    at = mempcpy(at, value, value_len);
    at = mempcpy(at, "\r\n", 2);
    lines->len = (size_t)(at - lines->data);
    request->reply_header_count++;
}

static void reply(struct http_request *request, const struct answer *answer)
{
    struct http_connection *conn = request->conn;
    if (conn) {
        conn->close_after = !request->head.keep_alive || conn->server->draining;
        conn->linger = request->head.keep_alive;
        send_answer(conn, request, answer);
    } else {
        let_go(answer);
    }
    http_request_release(request);
    if (conn)
        http_conn_answered(conn);
}

void http_reply(struct http_request *request, int status, const char *content_type,
                const void *body, size_t len)
{
    reply(request, &(struct answer){.status = status,
                                    .content_type = content_type,
                                    .body = body,
                                    .len = content_type ? len : 0});
}

void http_reply_ref(struct http_request *request, int status, const char *content_type,
                    const void *body, size_t len, void (*free_fn)(void *arg), void *arg)
{
    reply(request, &(struct answer){.status = status,
                                    .content_type = content_type,
                                    .body = body,
                                    .len = content_type ? len : 0,
                                    .free_fn = free_fn,
                                    .arg = arg});
}

/* --- for the edge itself ---------------------------------------------------------------------- */

static void send_problem(struct http_connection *conn, struct http_request *request,
                         enum sg_error error, const char *detail)
{
    struct dynbuf body;
    dynbuf_init(&body, COPIED_BODY_BYTES);
    problem_write(&body, &(struct problem){.error = error, .detail = detail});
    if (sg_error_may_retry(error))
        http_reply_header(request, "Retry-After", "1");
    send_answer(conn, request,
                &(struct answer){.status = sg_error_http_status(error),
                                 .content_type = PROBLEM_CONTENT_TYPE,
                                 .body = dynbuf_text(&body),
                                 .len = body.len});
    dynbuf_done(&body);
}

void http_reply_refusal(struct http_connection *conn, enum sg_error error, const char *detail)
{
    struct http_server *server = conn->server;
    struct http_request *request = conn->request;
    int64_t duration_us = clock_mono_us() - request->started_us;
    conn->close_after = true;
    conn->linger = true;
    if (!request->id[0])
        http_request_make_id(request);
    log_debug(&(struct log_fields){.request_id = request->id}, "http: refused: %s", detail);
    send_problem(conn, request, error, detail);
    /* A connection that broke meanwhile has let go of its request already. */
    if (conn->request)
        http_request_release(request);
    http_conn_answered(conn);
    if (server->config.on_refused)
        server->config.on_refused(server->config.arg, error, duration_us);
}
