/*
 * The HTTP around the stand-in for a payment service. See mockpay_server.h.
 *
 *   on_request ─> table ─> endpoint ─> reply, or for a charge: later, when it is decided
 *
 * SPDX-License-Identifier: MIT
 */
#include "api/mockpay_server.h"

#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "api/host.h"
#include "api/http.h"
#include "api/ids.h"
#include "api/problem.h"
#include "base/clock.h"
#include "base/dynbuf.h"
#include "base/log.h"
#include "base/settings.h"
#include "payment/callbacks.h"
#include "payment/mockpay.h"

#define BODY_MAX ((size_t)16 << 20)
#define JSON_TYPE "application/json"
#define LIST_DEFAULT 100

/* A request that is with the stand-in, or is kept in silence. */
struct waiting {
    TAILQ_ENTRY(waiting) entry;
    struct mockpay_server *server;
    struct http_request *request;
    struct event *silence; /* NULL: with the stand-in */
};

struct mockpay_server {
    struct host host;
    struct settings settings; /* the bounds are those that `seatgrid serve` has by default */
    struct mockpay *mockpay;
    TAILQ_HEAD(, waiting) waiting;
    struct dynbuf body; /* the answer being written; free between any two answers */
};

/* --- answering -------------------------------------------------------------------------------- */

static void fail(struct mockpay_server *server, struct http_request *request, enum sg_error error,
                 const char *detail)
{
    const struct problem problem = {.error = error, .detail = detail};
    dynbuf_reset(&server->body);
    problem_write(&server->body, &problem);
    http_reply(request, sg_error_http_status(error), PROBLEM_CONTENT_TYPE,
               dynbuf_text(&server->body), server->body.len);
}

/* Answers with what was written to server->body. */
static void reply(struct mockpay_server *server, struct http_request *request, int status)
{
    if (server->body.failed)
        fail(server, request, SG_NO_MEMORY, NULL);
    else
        http_reply(request, status, JSON_TYPE, dynbuf_text(&server->body), server->body.len);
}

static void write_charge(struct dynbuf *out, const struct ledger_charge *charge)
{
    wire_write_state(out, charge->order_id, charge->outcome, charge->amount, charge->currency);
}

static void reply_charge(struct mockpay_server *server, struct http_request *request,
                         const struct ledger_charge *charge)
{
    dynbuf_reset(&server->body);
    write_charge(&server->body, charge);
    reply(server, request, charge->outcome == PAY_PENDING ? 202 : 200);
}

/* --- silence ---------------------------------------------------------------------------------- */

static void waiting_free(struct waiting *waiting)
{
    TAILQ_REMOVE(&waiting->server->waiting, waiting, entry);
    if (waiting->silence)
        event_free(waiting->silence);
    free(waiting);
}

static struct waiting *waiting_new(struct mockpay_server *server, struct http_request *request)
{
    struct waiting *waiting = calloc(1, sizeof(*waiting));
    if (!waiting)
        return NULL;
    waiting->server = server;
    waiting->request = request;
    TAILQ_INSERT_TAIL(&server->waiting, waiting, entry);
    return waiting;
}

static void end_silence(struct waiting *waiting)
{
    fail(waiting->server, waiting->request, SG_DEADLINE, "it was done, and nobody was told");
    waiting_free(waiting);
}

static void on_silence_over(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    end_silence(arg);
}

static void keep_silent(struct waiting *waiting)
{
    struct timeval patience = clock_timeval_us((int64_t)MOCKPAY_SILENCE_MS * 1000);
    waiting->silence = evtimer_new(waiting->server->host.base, on_silence_over, waiting);
    if (!waiting->silence || event_add(waiting->silence, &patience) < 0)
        end_silence(waiting);
}

/* --- charges ---------------------------------------------------------------------------------- */

static const char *refusal_text(enum sg_error error)
{
    return error == SG_KEY_REUSED ? "this order has been charged another amount" : NULL;
}

static void on_charged(void *arg, enum sg_error error, const struct ledger_charge *charge,
                       bool silent)
{
    struct waiting *waiting = arg;
    if (silent) {
        keep_silent(waiting);
        return;
    }
    if (error == SG_OK)
        reply_charge(waiting->server, waiting->request, charge);
    else
        fail(waiting->server, waiting->request, error, refusal_text(error));
    waiting_free(waiting);
}

static void put_charge(struct mockpay_server *server, struct http_request *request,
                       const char *order_id)
{
    struct wire_charge charge;
    size_t len;
    const char *body = http_request_body(request, &len);
    enum sg_error error = wire_read_charge(body, len, &charge);
    if (error != SG_OK) {
        fail(server, request, error,
             "send {\"amount\":4500,\"currency\":\"EUR\",\"method\":\"ok\",\"callbackUrl\":\"…\"}");
        return;
    }
    struct waiting *waiting = waiting_new(server, request);
    if (waiting)
        mockpay_charge(server->mockpay, order_id, &charge, on_charged, waiting);
    else
        fail(server, request, SG_NO_MEMORY, NULL);
}

static void get_charge(struct mockpay_server *server, struct http_request *request,
                       const char *order_id)
{
    const struct ledger_charge *charge = ledger_find(mockpay_ledger(server->mockpay), order_id);
    if (charge)
        reply_charge(server, request, charge);
    else
        fail(server, request, SG_NOT_FOUND, "no charge was ever asked for under this order");
}

static void post_cancel(struct mockpay_server *server, struct http_request *request,
                        const char *order_id)
{
    const struct ledger_charge *charge;
    enum sg_error error = mockpay_cancel(server->mockpay, order_id, &charge);
    if (error == SG_OK)
        reply_charge(server, request, charge);
    else
        fail(server, request, error, NULL);
}

static void post_refund(struct mockpay_server *server, struct http_request *request,
                        const char *order_id)
{
    const struct ledger_charge *charge;
    bool silent = false;
    enum sg_error error = mockpay_refund(server->mockpay, order_id, &charge, &silent);
    struct waiting *waiting = error == SG_OK && silent ? waiting_new(server, request) : NULL;
    if (error != SG_OK)
        fail(server, request, error, NULL);
    else if (waiting)
        keep_silent(waiting);
    else
        reply_charge(server, request, charge);
}

/* --- what tests and people look at ------------------------------------------------------------ */

static void get_charges(struct mockpay_server *server, struct http_request *request)
{
    const struct ledger *ledger = mockpay_ledger(server->mockpay);
    const char *text = http_request_query(request, "limit");
    struct ledger_totals totals;
    int64_t limit = LIST_DEFAULT;
    if (text && (!ids_parse_number(text, strlen(text), &limit) || limit > MOCKPAY_LIST_MAX)) {
        fail(server, request, SG_MALFORMED, "limit is a number up to 10000");
        return;
    }
    ledger_totals(ledger, &totals);
    int64_t first = totals.count > limit ? totals.count - limit : 0;
    dynbuf_adds(&server->body, "{\"charges\":[");
    for (int64_t i = totals.count - 1; i >= first; i--) {
        write_charge(&server->body, ledger_at(ledger, (size_t)i));
        dynbuf_adds(&server->body, i > first ? "," : "");
    }
    dynbuf_adds(&server->body, "]}");
    reply(server, request, 200);
}

static void get_totals(struct mockpay_server *server, struct http_request *request)
{
    struct ledger_totals totals;
    struct callbacks_counts counts;
    ledger_totals(mockpay_ledger(server->mockpay), &totals);
    mockpay_callbacks(server->mockpay, &counts);
    dynbuf_addf(&server->body, "{\"charged\":%lld,\"refunded\":%lld,\"count\":%lld",
                (long long)totals.charged, (long long)totals.refunded, (long long)totals.count);
    dynbuf_adds(&server->body, ",\"charges\":");
    char separator = '{';
    for (int i = 0; i < PAY_OUTCOME_COUNT; i++) {
        if (i == PAY_UNKNOWN || i == PAY_NONE)
            continue;
        dynbuf_addf(&server->body, "%c\"%s\":%lld", separator,
                    pay_outcome_name((enum pay_outcome)i), (long long)totals.by_outcome[i]);
        separator = ',';
    }
    dynbuf_addf(&server->body,
                "},\"callbacks\":{\"sent\":%lld,\"delivered\":%lld,\"givenUp\":%lld,"
                "\"open\":%lld}}",
                (long long)counts.sent, (long long)counts.delivered, (long long)counts.given_up,
                (long long)counts.open);
    reply(server, request, 200);
}

static void get_behaviour(struct mockpay_server *server, struct http_request *request)
{
    wire_write_behaviour(&server->body, mockpay_behaviour(server->mockpay));
    reply(server, request, 200);
}

static void post_behaviour(struct mockpay_server *server, struct http_request *request)
{
    size_t len;
    const char *body = http_request_body(request, &len);
    enum sg_error error = wire_read_behaviour(body, len, mockpay_behaviour(server->mockpay));
    if (error == SG_OK)
        get_behaviour(server, request);
    else
        fail(server, request, error, "GET /behaviour shows the fields; percents go to 100");
}

static void get_healthz(struct mockpay_server *server, struct http_request *request)
{
    dynbuf_adds(&server->body, "{\"status\":\"alive\"}");
    reply(server, request, 200);
}

/* --- the table -------------------------------------------------------------------------------- */

static const struct endpoint {
    enum http_method method;
    const char *path;
    const char *allow;
    void (*handle)(struct mockpay_server *server, struct http_request *request);
} endpoints[] = {
    {HTTP_GET, "/healthz", "GET, HEAD", get_healthz},
    {HTTP_GET, "/totals", "GET, HEAD", get_totals},
    {HTTP_GET, "/charges", "GET, HEAD", get_charges},
    {HTTP_GET, "/behaviour", "GET, HEAD, POST", get_behaviour},
    {HTTP_POST, "/behaviour", "GET, HEAD, POST", post_behaviour},
};

static const struct charge_endpoint {
    enum http_method method;
    const char *suffix; /* behind /charges/{orderId} */
    const char *allow;
    void (*handle)(struct mockpay_server *server, struct http_request *request,
                   const char *order_id);
} charge_endpoints[] = {
    {HTTP_PUT, "", "PUT, GET, HEAD", put_charge},
    {HTTP_GET, "", "PUT, GET, HEAD", get_charge},
    {HTTP_POST, "/cancel", "POST", post_cancel},
    {HTTP_POST, "/refund", "POST", post_refund},
};

/* False and *ret_suffix untouched if the path is not that of a charge. */
static bool split_charge_path(const char *path, char ret_order_id[PAY_ORDER_ID_MAX + 1],
                              const char **ret_suffix)
{
    static const char prefix[] = "/charges/";
    if (strncmp(path, prefix, strlen(prefix)) != 0)
        return false;
    path += strlen(prefix);
    size_t len = strcspn(path, "/");
    if (len != PAY_ORDER_ID_MAX)
        return false;
    memcpy(ret_order_id, path, len);
    ret_order_id[len] = '\0';
    if (!wire_is_order_id(ret_order_id))
        return false;
    *ret_suffix = path + len;
    return true;
}

static void on_request(void *arg, struct http_request *request)
{
    struct mockpay_server *server = arg;
    const char *path = http_request_path(request);
    enum http_method method = http_request_method(request);
    char order_id[PAY_ORDER_ID_MAX + 1];
    const char *suffix = "";
    const char *allow = NULL;
    if (method == HTTP_HEAD)
        method = HTTP_GET;
    dynbuf_reset(&server->body);
    bool of_charge = split_charge_path(path, order_id, &suffix);
    for (size_t i = 0; of_charge && i < sizeof(charge_endpoints) / sizeof(*charge_endpoints); i++) {
        const struct charge_endpoint *endpoint = &charge_endpoints[i];
        if (strcmp(endpoint->suffix, suffix) != 0)
            continue;
        allow = endpoint->allow;
        if (endpoint->method == method) {
            endpoint->handle(server, request, order_id);
            return;
        }
    }
    for (size_t i = 0; !of_charge && i < sizeof(endpoints) / sizeof(*endpoints); i++) {
        if (strcmp(endpoints[i].path, path) != 0)
            continue;
        allow = endpoints[i].allow;
        if (endpoints[i].method == method) {
            endpoints[i].handle(server, request);
            return;
        }
    }
    if (allow)
        http_reply_header(request, "Allow", allow);
    fail(server, request, allow ? SG_METHOD_NOT_ALLOWED : SG_NOT_FOUND, NULL);
}

/* --- life ------------------------------------------------------------------------------------- */

static void on_stop_signal(evutil_socket_t number, short what, void *arg)
{
    struct mockpay_server *server = arg;
    (void)what;
    log_info(NULL, "signal %d: stopping", (int)number);
    event_base_loopbreak(server->host.base);
}

static void tear_down(struct mockpay_server *server)
{
    struct waiting *waiting;
    mockpay_free(server->mockpay); /* answers what waits for a decision */
    while ((waiting = TAILQ_FIRST(&server->waiting)))
        end_silence(waiting);
    host_end(&server->host);
    dynbuf_done(&server->body);
    free(server);
}

static enum sg_error start(struct mockpay_server *server, const struct mockpay_options *options,
                           char *error_text, size_t error_size)
{
    TAILQ_INIT(&server->waiting);
    dynbuf_init(&server->body, BODY_MAX);
    settings_init(&server->settings);
    server->settings.http.max_body_bytes = WIRE_BODY_MAX;
    if (!host_begin(&server->host, &server->settings, NULL, false, on_stop_signal, NULL, server))
        return SG_NO_MEMORY;
    enum sg_error error = mockpay_new(&(struct mockpay_config){.base = server->host.base,
                                                               .journal = options->journal,
                                                               .secret = options->secret,
                                                               .behaviour = options->behaviour},
                                      &server->mockpay, error_text, error_size);
    if (error == SG_OK)
        error = host_listen(&server->host, options->listen, "mockpay",
                            (size_t)server->settings.http.max_connections, on_request, server,
                            error_text, error_size);
    return error;
}

enum sg_error mockpay_server_run(const struct mockpay_options *options)
{
    char error_text[256] = "out of memory or file descriptors";
    struct mockpay_server *server = calloc(1, sizeof(*server));
    if (!server)
        return SG_NO_MEMORY;
    enum sg_error error = start(server, options, error_text, sizeof(error_text));
    if (error == SG_OK) {
        log_info(NULL, "taking payments on http://%s, %s%s", options->listen,
                 options->journal ? "journal " : "in memory",
                 options->journal ? options->journal : "");
        host_run(&server->host);
    } else {
        log_error(NULL, "not started: %s", error_text);
    }
    tear_down(server);
    return error;
}
