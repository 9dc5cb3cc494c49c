/*
 * Events: POST /events, GET /events, GET /events/{id}.
 *
 * SPDX-License-Identifier: MIT
 */
#include <stdio.h>
#include <string.h>

#include "api/accept.h"
#include "api/cursor.h"
#include "api/exchange.h"
#include "api/handlers.h"
#include "api/ids.h"
#include "api/json_in.h"
#include "api/json_out.h"
#include "base/settings.h"

#define LIMIT_DEFAULT 20
#define LIMIT_MAX 100

static void answer_event(struct exchange *exchange, int status, const struct event_info *event)
{
    struct dynbuf *scratch = &exchange->app->scratch;
    dynbuf_reset(scratch);
    json_out_event(scratch, event);
    exchange_answer_scratch(exchange, status, JSON_CONTENT_TYPE);
}

/* --- POST /events ----------------------------------------------------------------------------- */

static void on_event_created(void *arg, const struct route *route, enum sg_error error,
                             const struct event_info *event)
{
    struct exchange *exchange = arg;
    char location[40];
    exchange_set_origin(exchange, route);
    if (error != SG_OK) {
        exchange_fail_router(exchange, error);
        return;
    }
    exchange->event_id = event->event_id;
    snprintf(location, sizeof(location), "/events/%lld", (long long)event->event_id);
    http_reply_header(exchange->request, "Location", location);
    exchange_tell_commit(exchange, &event->token, event->durability);
    answer_event(exchange, 201, event);
}

void events_create(struct exchange *exchange)
{
    struct app *app = exchange->app;
    struct json_in_event in;
    char detail[JSON_IN_DETAIL_SIZE];
    size_t len;
    const char *type = http_request_header(exchange->request, "content-type");
    const char *body = http_request_body(exchange->request, &len);
    if (type && !accept_is_json(type)) {
        exchange_fail(exchange, SG_UNSUPPORTED_MEDIA, "Content-Type: must be application/json");
        return;
    }
    enum sg_error error = json_in_event(body, len, app->settings->events.max_seats, &in, detail);
    if (error != SG_OK) {
        exchange_fail(exchange, error, "%s", detail);
        return;
    }
    struct event_new event = {
        .name = in.name,
        .starts_at_us = in.starts_at_us,
        .rows = in.rows,
        .cols = in.cols,
        .tiers = in.tier_count ? in.tiers : NULL,
        .tier_count = in.tier_count,
        .currency = in.tier_count ? in.currency : NULL,
        .max_per_user = in.max_per_user,
        .shard = in.shard[0] ? in.shard : NULL,
    };
    error = router_event_create(app->router, &event, on_event_created, exchange);
    if (error != SG_OK)
        exchange_fail_router(exchange, error);
}

/* --- GET /events/{id} ------------------------------------------------------------------------- */

static void on_event_read(void *arg, const struct route *route, enum sg_error error,
                          const struct event_info *event)
{
    struct exchange *exchange = arg;
    exchange_set_origin(exchange, route);
    if (error != SG_OK)
        exchange_fail_router(exchange, error);
    else
        answer_event(exchange, 200, event);
}

void events_get(struct exchange *exchange)
{
    struct read_token tokens[ROUTER_TOKENS_MAX];
    struct read_wish wish;
    exchange->is_read = true;
    if (!exchange_read_wish(exchange, tokens, &wish))
        return;
    enum sg_error error =
        router_event_get(exchange->app->router, exchange->event_id, &wish, on_event_read, exchange);
    if (error != SG_OK)
        exchange_fail_router(exchange, error);
}

/* --- GET /events ------------------------------------------------------------------------------ */

static void on_events_read(void *arg, enum sg_error error, const struct event_page *page)
{
    struct exchange *exchange = arg;
    struct dynbuf *scratch = &exchange->app->scratch;
    if (error != SG_OK) {
        if (error == SG_SHARD_UNAVAILABLE)
            exchange_fail(exchange, error, "no shard of the map answers; try again");
        else
            exchange_fail_router(exchange, error);
        return;
    }
    exchange->origin.map_version = page->map_version;
    exchange_set_sources(exchange, page->sources, page->source_count);
    dynbuf_reset(scratch);
    json_out_event_page(scratch, page);
    exchange_answer_scratch(exchange, 200, JSON_CONTENT_TYPE);
}

void events_list(struct exchange *exchange)
{
    const char *limit_text = http_request_query(exchange->request, "limit");
    const char *cursor = http_request_query(exchange->request, "cursor");
    int64_t limit = LIMIT_DEFAULT, after_id = 0;
    if (limit_text &&
        (!ids_parse_event(limit_text, strlen(limit_text), &limit) || limit > LIMIT_MAX)) {
        exchange_fail(exchange, SG_MALFORMED, "limit: must be an integer from 1 to %d", LIMIT_MAX);
        return;
    }
    if (cursor && !cursor_parse(cursor, &after_id)) {
        exchange_fail(exchange, SG_MALFORMED,
                      "cursor: must be the nextCursor of an earlier page, unchanged");
        return;
    }
    struct read_token tokens[ROUTER_TOKENS_MAX];
    struct read_wish wish;
    exchange->is_read = true;
    if (!exchange_read_wish(exchange, tokens, &wish))
        return;
    enum sg_error error = router_event_list(exchange->app->router, after_id, (size_t)limit, &wish,
                                            on_events_read, exchange);
    if (error != SG_OK)
        exchange_fail_router(exchange, error);
}
