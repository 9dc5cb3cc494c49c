/*
 * My tickets: GET /users/{userId}/tickets.
 *
 *   limit, cursor, wish ─> router_tickets ─> a page, perhaps without some shards
 *
 * SPDX-License-Identifier: MIT
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/cursor.h"
#include "api/exchange.h"
#include "api/handlers.h"
#include "api/ids.h"
#include "api/json_out.h"

#define LIMIT_DEFAULT 20
#define LIMIT_MAX 100

static void on_tickets(void *arg, enum sg_error error, const struct ticket_page *page)
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
    json_out_ticket_page(scratch, exchange->user_id, page);
    exchange_answer_scratch(exchange, 200, JSON_CONTENT_TYPE);
}

/* Answers itself and returns false if a parameter is malformed. */
static bool read_page(struct exchange *exchange, int64_t *ret_limit, bool *ret_has_after,
                      struct ticket_place *ret_after)
{
    const char *limit = http_request_query(exchange->request, "limit");
    const char *cursor = http_request_query(exchange->request, "cursor");
    *ret_limit = LIMIT_DEFAULT;
    if (limit && (!ids_parse_event(limit, strlen(limit), ret_limit) || *ret_limit > LIMIT_MAX)) {
        exchange_fail(exchange, SG_MALFORMED, "limit: must be an integer from 1 to %d", LIMIT_MAX);
        return false;
    }
    *ret_has_after = cursor != NULL;
    if (cursor && !cursor_parse_place(cursor, ret_after)) {
        exchange_fail(exchange, SG_MALFORMED,
                      "cursor: must be the nextCursor of an earlier page, unchanged");
        return false;
    }
    return true;
}

void tickets_get(struct exchange *exchange)
{
    struct read_token tokens[ROUTER_TOKENS_MAX];
    struct ticket_place after;
    struct tickets_request request = {.user_id = exchange->user_id};
    int64_t limit;
    bool has_after;
    exchange->is_read = true;
    if (!read_page(exchange, &limit, &has_after, &after) ||
        !exchange_read_wish(exchange, tokens, &request.wish))
        return;
    request.limit = (size_t)limit;
    request.after = has_after ? &after : NULL;
    enum sg_error error = router_tickets(exchange->app->router, &request, on_tickets, exchange);
    if (error != SG_OK)
        on_tickets(exchange, error, NULL);
}
