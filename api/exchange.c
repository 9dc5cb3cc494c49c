/*
 * One request and its answer. See exchange.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "api/exchange.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/accept.h"
#include "api/outcomes.h"
#include "api/problem.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/settings.h"
#include "router/token.h"

#define DETAIL_SIZE 320

static void exchange_free(void *object)
{
    struct exchange *exchange = object;
    free(exchange->data);
    free(exchange);
}

struct exchange *exchange_new(struct app *app, struct http_request *request, const char *route)
{
    struct exchange *exchange = calloc(1, sizeof(*exchange));
    if (!exchange)
        return NULL;
    exchange->app = app;
    exchange->request = request;
    exchange->route = route;
    exchange->outcome = SG_OK;
    exchange->origin.map_version = -1;
    exchange->origin.staleness_us = -1;
    http_request_set_data(request, exchange, exchange_free);
    return exchange;
}

void exchange_set_origin(struct exchange *exchange, const struct route *origin)
{
    exchange->origin = *origin;
}

void exchange_tell_commit(struct exchange *exchange, const struct read_token *token,
                          enum shardmap_durability durability)
{
    if (token->lsn) {
        char text[TOKEN_TEXT_SIZE];
        token_format(token, text);
        http_reply_header(exchange->request, "SeatGrid-Token", text);
    }
    http_reply_header(exchange->request, "SeatGrid-Durability",
                      shardmap_durability_name(durability));
}

bool exchange_read_wish(struct exchange *exchange, struct read_token *ret_tokens,
                        struct read_wish *ret_wish)
{
    const char *bound = http_request_header(exchange->request, "seatgrid-max-staleness");
    const char *text = http_request_header(exchange->request, "seatgrid-token");
    struct read_wish wish = {.max_staleness_us = -1, .tokens = ret_tokens};
    if (bound && !accept_staleness(bound, &wish.max_staleness_us)) {
        exchange_fail(exchange, SG_MALFORMED,
                      "SeatGrid-Max-Staleness: must be like 250ms or 2s, at most 3600s");
        return false;
    }
    if (text && !tokens_parse(text, ret_tokens, ROUTER_TOKENS_MAX, &wish.token_count)) {
        exchange_fail(exchange, SG_MALFORMED,
                      "SeatGrid-Token: must be what an answer carried, unchanged; several with "
                      "commas between them, of at most %d shards",
                      ROUTER_TOKENS_MAX);
        return false;
    }
    if (exchange->of_primary)
        wish.max_staleness_us = 0;
    *ret_wish = wish;
    return true;
}

bool exchange_may_see(struct exchange *exchange, const char *owner_id,
                      void (*handle)(struct exchange *exchange))
{
    const char *asking = http_request_header(exchange->request, "x-user-id");
    if (!asking || strcmp(asking, owner_id) == 0)
        return true;
    if (exchange->of_primary) {
        exchange_fail_router(exchange, SG_NOT_OWNER);
        return false;
    }
    exchange->of_primary = true;
    handle(exchange);
    return false;
}

/* The names of as many nodes as fit. */
static void add_nodes_header(struct exchange *exchange, const struct route *sources, size_t count)
{
    char names[1024] = "";
    size_t len = 0;
    for (size_t i = 0; i < count; i++) {
        size_t need = strlen(sources[i].node) + 2;
        if (len + need >= sizeof(names))
            break;
        len += (size_t)snprintf(names + len, sizeof(names) - len, "%s%s", len ? ", " : "",
                                sources[i].node);
    }
    if (len)
        http_reply_header(exchange->request, "SeatGrid-Node", names);
}

void exchange_set_sources(struct exchange *exchange, const struct route *sources, size_t count)
{
    int64_t oldest_us = count ? 0 : -1;
    for (size_t i = 0; i < count; i++) {
        if (sources[i].staleness_us < 0 || oldest_us < 0)
            oldest_us = -1;
        else if (sources[i].staleness_us > oldest_us)
            oldest_us = sources[i].staleness_us;
    }
    add_nodes_header(exchange, sources, count);
    exchange->origin.staleness_us = oldest_us;
}

/* --- what every answer carries ---------------------------------------------------------------- */

/* Decimal with a suffix into a buffer of 32 bytes. */
static const char *decimal(char *buffer, int64_t value, const char *suffix)
{
    size_t suffix_len = strlen(suffix);
    char *p = buffer + 31 - suffix_len;
    memcpy(p, suffix, suffix_len + 1);
    do {
        *--p = (char)('0' + value % 10);
        value /= 10;
    } while (value > 0);
    return p;
}

static void add_origin_headers(struct exchange *exchange)
{
    char buffer[32];
    struct route *origin = &exchange->origin;
    struct http_request *request = exchange->request;
    if (origin->map_version < 0)
        origin->map_version = router_map_version(exchange->app->router);
    if (origin->map_version >= 0)
        http_reply_header(request, "SeatGrid-Map-Version",
                          decimal(buffer, origin->map_version, ""));
    if (origin->shard[0])
        http_reply_header(request, "SeatGrid-Shard", origin->shard);
    if (!exchange->is_read)
        return;
    if (origin->node[0])
        http_reply_header(request, "SeatGrid-Node", origin->node);
    if (origin->seen.lsn) {
        char token[TOKEN_TEXT_SIZE];
        token_format(&origin->seen, token);
        http_reply_header(request, "SeatGrid-Token", token);
    }
    if (origin->staleness_us >= 0) /* an upper bound, so rounded up */
        http_reply_header(request, "SeatGrid-Staleness",
                          decimal(buffer, (origin->staleness_us + 999) / 1000, "ms"));
}

static void prepare(struct exchange *exchange)
{
    add_origin_headers(exchange);
    outcomes_count(exchange->app->outcomes, exchange->route, exchange->origin.shard,
                   exchange->origin.node, exchange->outcome,
                   clock_mono_us() - http_request_started_us(exchange->request));
}

/* --- answers ---------------------------------------------------------------------------------- */

void exchange_answer(struct exchange *exchange, int status, const char *content_type,
                     const void *body, size_t len)
{
    prepare(exchange);
    http_reply(exchange->request, status, content_type, body, len);
}

void exchange_answer_scratch(struct exchange *exchange, int status, const char *content_type)
{
    struct dynbuf *scratch = &exchange->app->scratch;
    if (scratch->failed) {
        exchange_fail(exchange, SG_NO_MEMORY, "the answer did not fit into memory");
        return;
    }
    exchange_answer(exchange, status, content_type, dynbuf_text(scratch), scratch->len);
}

void exchange_answer_ref(struct exchange *exchange, int status, const char *content_type,
                         const void *body, size_t len, void (*free_fn)(void *arg), void *arg)
{
    prepare(exchange);
    http_reply_ref(exchange->request, status, content_type, body, len, free_fn, arg);
}

struct http_stream *exchange_begin_stream(struct exchange *exchange, const char *content_type,
                                          size_t max_waiting_bytes, void (*on_closed)(void *arg),
                                          void *arg)
{
    prepare(exchange);
    return http_stream_begin(exchange->request, content_type, max_waiting_bytes, on_closed, arg);
}

/* --- problems --------------------------------------------------------------------------------- */

/* One line for what is our fault; refusals and unreachable shards are counted, not logged here. */
static void log_problem(const struct exchange *exchange, enum sg_error error, const char *detail)
{
    struct log_fields fields = {
        .request_id = http_request_id(exchange->request),
        .event_id = exchange->event_id,
        .shard = exchange->origin.shard[0] ? exchange->origin.shard : NULL,
        .node = exchange->origin.node[0] ? exchange->origin.node : NULL,
    };
    enum log_level level = sg_error_http_status(error) == 500 ? LOG_LEVEL_ERROR : LOG_LEVEL_DEBUG;
    log_write(level, &fields, "%s: %s: %s", exchange->route, sg_error_code(error),
              detail ? detail : sg_error_title(error));
}

void exchange_prepare_problem(struct exchange *exchange, enum sg_error error, const char *detail)
{
    struct app *app = exchange->app;
    exchange->outcome = (int)error;
    if (exchange->event_id > 0 && !exchange->origin.shard[0]) {
        struct route origin = {.staleness_us = -1};
        if (router_locate(app->router, exchange->event_id, &origin) == SG_OK)
            exchange->origin = origin;
    }
    if (sg_error_may_retry(error)) {
        char buffer[32];
        int64_t after_s = problem_retry_after_s(app->settings->http.retry_after_ms);
        http_reply_header(exchange->request, "Retry-After", decimal(buffer, after_s, ""));
    }
    if (sg_error_http_status(error) >= 500)
        log_problem(exchange, error, detail);
}

/* The scratch as the problem's body; a constant if memory has run out. */
void exchange_fail_problem(struct exchange *exchange, const struct problem *problem)
{
    static const char out_of_memory[] =
        "{\"type\":\"/docs#no_memory\",\"title\":\"Out of memory\",\"status\":500,"
        "\"code\":\"no_memory\"}";
    struct dynbuf *scratch = &exchange->app->scratch;
    exchange_prepare_problem(exchange, problem->error, problem->detail);
    dynbuf_reset(scratch);
    problem_write(scratch, problem);
    if (scratch->failed)
        exchange_answer(exchange, 500, PROBLEM_CONTENT_TYPE, out_of_memory,
                        sizeof(out_of_memory) - 1);
    else
        exchange_answer(exchange, sg_error_http_status(problem->error), PROBLEM_CONTENT_TYPE,
                        dynbuf_text(scratch), scratch->len);
}

void exchange_fail(struct exchange *exchange, enum sg_error error, const char *format, ...)
{
    char detail[DETAIL_SIZE];
    va_list args;
    va_start(args, format);
    vsnprintf(detail, sizeof(detail), format, args);
    va_end(args);
    exchange_fail_problem(exchange, &(struct problem){.error = error, .detail = detail});
}

static const char *router_detail(enum sg_error error)
{
    switch (error) {
    case SG_SHARD_UNAVAILABLE:
        return "the shard does not answer; others are not affected; try again";
    case SG_OVERLOADED:
        return "too many requests wait for the shard; nothing was done; try again";
    case SG_DEADLINE:
        return "the shard did not answer in time; try again, a write with the same "
               "Idempotency-Key";
    case SG_OUTCOME_UNKNOWN:
        return "the connection to the shard broke before its answer; send the same request with "
               "the same Idempotency-Key to learn the outcome";
    case SG_FENCED:
    case SG_STALE_EPOCH:
        return "the shard is changing its primary; nothing was done; try again";
    case SG_NOT_SYNCHRONOUS:
        return "the shard promises that a standby has what it answers, and has none now; nothing "
               "was done; try again";
    case SG_KEY_REUSED:
        return "Idempotency-Key: came with another request before; take a new key";
    case SG_NOT_TOGETHER:
        return "enough seats are free, but not side by side; nothing was booked; ask with "
               "together false";
    case SG_NOT_OWNER:
        return "it belongs to another user than the one who asks; nothing was changed";
    case SG_HOLD_EXPIRED:
        return "its time is over: it cannot be extended, and confirmed only while all its seats "
               "are free; take seats anew";
    case SG_BOOKING_ENDED:
        return "it has been cancelled, or was never paid for; nothing was changed";
    case SG_NOT_HELD:
        return "it is no hold any more; nothing was changed";
    case SG_NOT_CONFIRMED:
        return "confirm it first; nothing was changed";
    case SG_EXTENSIONS_USED:
        return "it has been extended as often as a hold may be; confirm it, or let it go";
    case SG_ORDER_OPEN:
        return "its order is not through yet; nothing was changed; try again";
    case SG_PAYMENT_OFF:
        return "this server knows no payment service; book without an order";
    case SG_QUEUE_UNAVAILABLE:
        return "the queue does not answer, or too much waits for it; nothing was kept; try again, "
               "or without respond-async";
    case SG_UNKNOWN_SHARD:
        return "shard: must be the name of a shard of the map";
    case SG_MAP_FULL:
        return "the shard has no free event id left; name another shard or extend the map";
    default:
        return NULL;
    }
}

static const char *target_noun(enum sg_error error)
{
    if (error == SG_UNKNOWN_BOOKING)
        return "booking";
    return error == SG_UNKNOWN_ORDER ? "order" : "place on its waiting list with the id";
}

void exchange_fail_router(struct exchange *exchange, enum sg_error error)
{
    if (error == SG_UNKNOWN_EVENT)
        exchange_fail(exchange, error, "there is no event %lld", (long long)exchange->event_id);
    else if (error == SG_UNKNOWN_BOOKING || error == SG_UNKNOWN_ORDER || error == SG_UNKNOWN_ENTRY)
        exchange_fail(exchange, error, "event %lld has no %s %s", (long long)exchange->event_id,
                      target_noun(error), exchange->target_id);
    else if (error == SG_UNKNOWN_TIER)
        exchange_fail(exchange, error,
                      "tier: event %lld has none of that name; GET /events/%lld names its tiers; "
                      "leave it out for the whole house",
                      (long long)exchange->event_id, (long long)exchange->event_id);
    else
        exchange_fail_problem(exchange,
                              &(struct problem){.error = error, .detail = router_detail(error)});
}
