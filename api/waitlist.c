/*
 * The waiting list of an event.
 *
 *   POST   /events/{id}/waitlist             ─> 201 with the place, or with seats offered at once
 *   GET    /events/{id}/waitlist/{entryId}   ─> where it stands
 *   DELETE /events/{id}/waitlist/{entryId}   ─> 204
 *
 * SPDX-License-Identifier: MIT
 */
#include <string.h>

#include "api/exchange.h"
#include "api/handlers.h"
#include "api/json_in.h"
#include "api/json_out.h"
#include "api/problem.h"
#include "api/writes.h"

static void answer_entry(struct exchange *exchange, int status, const struct waitlist_entry *entry)
{
    struct dynbuf *scratch = &exchange->app->scratch;
    dynbuf_reset(scratch);
    json_out_waitlist_entry(scratch, entry);
    exchange_answer_scratch(exchange, status, JSON_CONTENT_TYPE);
}

static void fail_entry(struct exchange *exchange, const struct waitlist_result *result)
{
    struct problem problem = {.error = result->error};
    switch (result->error) {
    case SG_ALREADY_WAITING:
        problem.detail = "the user has a place on this waiting list; leave that first";
        problem.entry_id = result->entry ? result->entry->entry_id : NULL;
        break;
    case SG_TOO_MANY_SEATS:
        problem.detail = "quantity: is more than there are in the tier, side by side if they are "
                         "to be so, or than the event lets a user have";
        break;
    case SG_OFFERED:
        problem.detail = "seats are held for this place; cancel their booking, or confirm it";
        problem.booking_id = result->entry ? result->entry->booking_id : NULL;
        break;
    default:
        exchange_fail_router(exchange, result->error);
        return;
    }
    exchange_fail_problem(exchange, &problem);
}

/* --- POST ------------------------------------------------------------------------------------- */

static void on_joined(void *arg, const struct waitlist_result *result)
{
    struct exchange *exchange = arg;
    exchange_set_origin(exchange, result->route);
    if (result->error != SG_OK) {
        fail_entry(exchange, result);
        return;
    }
    writes_tell_location(exchange, "waitlist", result->entry->entry_id);
    exchange_tell_commit(exchange, &result->token, result->durability);
    if (result->replayed)
        writes_tell_replayed(exchange);
    answer_entry(exchange, 201, result->entry);
}

void waitlist_join(struct exchange *exchange)
{
    char detail[JSON_IN_DETAIL_SIZE];
    size_t len;
    const char *body = http_request_body(exchange->request, &len);
    struct json_in_bounds bounds = writes_bounds(exchange->app);
    struct write_headers headers;
    struct json_in_waitlist in;
    if (!writes_read_headers(exchange, &headers))
        return;
    enum sg_error error = json_in_waitlist(body, len, &bounds, &in, detail);
    if (error != SG_OK) {
        exchange_fail(exchange, error, "%s", detail);
        return;
    }
    if (!writes_read_user(exchange, in.user_id))
        return;
    struct waitlist_request request = {
        .event_id = exchange->event_id,
        .user_id = in.user_id,
        .wish = in.wish,
        .idempotency_key = headers.key,
    };
    error = router_waitlist_join(exchange->app->router, &request, on_joined, exchange);
    if (error != SG_OK)
        exchange_fail_router(exchange, error);
}

/* --- GET -------------------------------------------------------------------------------------- */

static void on_entry_read(void *arg, const struct waitlist_result *result)
{
    struct exchange *exchange = arg;
    exchange_set_origin(exchange, result->route);
    if (result->error != SG_OK)
        fail_entry(exchange, result);
    else if (exchange_may_see(exchange, result->entry->user_id, waitlist_get))
        answer_entry(exchange, 200, result->entry);
}

void waitlist_get(struct exchange *exchange)
{
    struct read_token tokens[ROUTER_TOKENS_MAX];
    struct read_wish wish;
    exchange->is_read = true;
    if (!exchange_read_wish(exchange, tokens, &wish))
        return;
    enum sg_error error = router_waitlist_get(exchange->app->router, exchange->event_id,
                                              exchange->target_id, &wish, on_entry_read, exchange);
    if (error != SG_OK)
        exchange_fail_router(exchange, error);
}

/* --- DELETE ----------------------------------------------------------------------------------- */

/* The place again, whose offer is in the way of leaving: which booking that is, unless it has ended
 * since. */
static void on_offer_read(void *arg, const struct waitlist_result *result)
{
    bool offered = result->entry && strcmp(result->entry->state, "offered") == 0;
    fail_entry(arg, &(struct waitlist_result){.error = SG_OFFERED,
                                              .entry = offered ? result->entry : NULL});
}

static bool name_offer(struct exchange *exchange)
{
    const struct read_wish wish = {.max_staleness_us = 0};
    return router_waitlist_get(exchange->app->router, exchange->event_id, exchange->target_id,
                               &wish, on_offer_read, exchange) == SG_OK;
}

static void on_left(void *arg, const struct waitlist_result *result)
{
    struct exchange *exchange = arg;
    exchange_set_origin(exchange, result->route);
    if (result->error == SG_OFFERED && name_offer(exchange))
        return;
    if (result->error != SG_OK) {
        fail_entry(exchange, result);
        return;
    }
    exchange_tell_commit(exchange, &result->token, result->durability);
    if (result->replayed)
        writes_tell_replayed(exchange);
    exchange_answer(exchange, 204, NULL, NULL, 0);
}

void waitlist_leave(struct exchange *exchange)
{
    struct write_headers headers;
    char user_id[ROUTER_USER_MAX + 1];
    if (!writes_read_headers(exchange, &headers) || !writes_read_query_user(exchange, user_id) ||
        !writes_read_user(exchange, user_id))
        return;
    struct waitlist_request request = {
        .event_id = exchange->event_id,
        .user_id = user_id,
        .idempotency_key = headers.key,
    };
    enum sg_error error = router_waitlist_leave(exchange->app->router, &request,
                                                exchange->target_id, on_left, exchange);
    if (error != SG_OK)
        exchange_fail_router(exchange, error);
}
