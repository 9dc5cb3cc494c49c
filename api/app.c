/*
 * The application. See app.h. From here a request goes to the handler of its endpoint.
 *
 *   edge ─> app_handle ─> endpoints_match ─> path parameters ─> book.c, events.c, seats.c, ...
 *
 * SPDX-License-Identifier: MIT
 */
#include "api/app.h"

#include <stdlib.h>
#include <string.h>

#include "api/embedded.h"
#include "api/endpoints.h"
#include "api/exchange.h"
#include "api/ids.h"
#include "api/json_in.h"
#include "api/live.h"
#include "api/outcomes.h"
#include "api/problem.h"
#include "base/clock.h"

#define SCRATCH_MAX_BYTES (1024 * 1024)

static const char route_unmatched[] = "unmatched";
static const char route_options[] = "OPTIONS";
static const char route_refused[] = "refused";

struct app *app_new(const struct app_config *config)
{
    struct app *app = calloc(1, sizeof(*app));
    if (!app)
        return NULL;
    app->settings = config->settings;
    app->router = config->router;
    app->saga = config->saga;
    app->queue = config->queue;
    dynbuf_init(&app->scratch, SCRATCH_MAX_BYTES);
    embedded_etag(&embedded_openapi, app->openapi_etag);
    embedded_etag(&embedded_docs, app->docs_etag);
    app->outcomes = outcomes_new(config->metrics);
    app->live = live_streams_new(&(struct live_streams_config){.settings = config->settings,
                                                               .base = config->base,
                                                               .router = config->router,
                                                               .metrics = config->metrics,
                                                               .workers = config->workers});
    if (!app->outcomes || !app->live) {
        app_free(app);
        return NULL;
    }
    return app;
}

void app_end_streams(struct app *app)
{
    live_streams_end(app->live);
}

void app_free(struct app *app)
{
    if (!app)
        return;
    live_streams_free(app->live);
    outcomes_free(app->outcomes);
    dynbuf_done(&app->scratch);
    free(app);
}

static void answer_unmatched(struct exchange *exchange, unsigned methods)
{
    struct http_request *request = exchange->request;
    if (!methods) {
        exchange_fail(exchange, SG_NOT_FOUND, "there is nothing at this path; see /docs");
        return;
    }
    http_reply_header(request, "Allow", endpoints_allow(methods));
    exchange_fail(exchange, SG_METHOD_NOT_ALLOWED, "%.16s is not allowed here; %s are",
                  http_request_method_name(request), endpoints_allow(methods));
}

static void answer_options(struct exchange *exchange, const char *path, unsigned methods)
{
    if (strcmp(path, "*") == 0)
        methods = 1u << HTTP_GET | 1u << HTTP_POST;
    if (!methods) {
        exchange->route = route_unmatched;
        answer_unmatched(exchange, 0);
        return;
    }
    http_reply_header(exchange->request, "Allow", endpoints_allow(methods));
    exchange_answer(exchange, 204, NULL, NULL, 0);
}

static bool read_user_id(struct exchange *exchange, const struct endpoint_param *user_id)
{
    if (user_id->len > ROUTER_USER_MAX)
        return false;
    memcpy(exchange->user_id, user_id->start, user_id->len);
    exchange->user_id[user_id->len] = '\0';
    return json_in_is_user_text(exchange->user_id);
}

/* Answers itself and returns false if a parameter of the path is malformed. */
static bool read_params(struct exchange *exchange, const struct endpoint_match *match)
{
    const struct endpoint_param *id = &match->id;
    const struct endpoint_param *target = &match->target;
    const struct endpoint_param *user_id = &match->user_id;
    if (id->start && !ids_parse_event(id->start, id->len, &exchange->event_id)) {
        exchange_fail(exchange, SG_MALFORMED,
                      "event id in the path: must be an integer from 1 to 9223372036854775807");
        return false;
    }
    if (target->start && !ids_parse_uuid(target->start, target->len, exchange->target_id)) {
        exchange_fail(exchange, SG_MALFORMED,
                      "%s id in the path: must be a UUID like "
                      "0190f3c2-7d1e-4c55-9e5a-3f0f6d1c2b7a",
                      match->target_kind);
        return false;
    }
    if (user_id->start && !read_user_id(exchange, user_id)) {
        exchange_fail(exchange, SG_MALFORMED,
                      "user id in the path: must be 1 to %d bytes of printable text",
                      ROUTER_USER_MAX);
        return false;
    }
    return true;
}

static const char *route_of(enum http_method method, const struct endpoint_match *match)
{
    if (match->endpoint)
        return match->endpoint->route;
    return method == HTTP_OPTIONS ? route_options : route_unmatched;
}

void app_handle(void *object, struct http_request *request)
{
    struct app *app = object;
    struct endpoint_match match;
    enum http_method method = http_request_method(request);
    const char *path = http_request_path(request);
    endpoints_match(method, path, &match);
    struct exchange *exchange = exchange_new(app, request, route_of(method, &match));
    if (!exchange) {
        http_reply(request, sg_error_http_status(SG_NO_MEMORY), NULL, NULL, 0);
        app_refused(app, SG_NO_MEMORY, 0);
    } else if (method == HTTP_OPTIONS) {
        answer_options(exchange, path, match.methods);
    } else if (!match.endpoint) {
        answer_unmatched(exchange, match.methods);
    } else if (read_params(exchange, &match)) {
        match.endpoint->handle(exchange);
    }
}

void app_refused(void *object, enum sg_error error, int64_t duration_us)
{
    struct app *app = object;
    outcomes_count(app->outcomes, route_refused, "", "", (int)error, duration_us);
}
