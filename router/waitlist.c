/*
 * The waiting list: joined, looked at, left. See router.h; who is offered what and when is
 * waitlist_offer()'s in migrations/0005_life.sql.
 *
 * SPDX-License-Identifier: MIT
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/settings.h"
#include "router/lane.h"
#include "router/lookup_row.h"
#include "router/params.h"
#include "router/router_internal.h"
#include "router/token.h"

struct waiting {
    int64_t event_id;
    char entry_id[ROUTER_UUID_LEN + 1];
    router_waitlist_fn *fn;
    void *arg;
};

static struct waiting *waiting_new(int64_t event_id, const char *entry_id, router_waitlist_fn *fn,
                                   void *arg)
{
    struct waiting *waiting = malloc(sizeof(*waiting));
    if (!waiting)
        return NULL;
    *waiting = (struct waiting){.event_id = event_id, .fn = fn, .arg = arg};
    snprintf(waiting->entry_id, sizeof(waiting->entry_id), "%s", entry_id);
    return waiting;
}

static void finish(struct waiting *waiting, const struct waitlist_result *result)
{
    waiting->fn(waiting->arg, result);
    free(waiting);
}

/* --- the entry -------------------------------------------------------------------------------- */

enum entry_column {
    ENTRY_USER,
    ENTRY_QUANTITY,
    ENTRY_TIER,
    ENTRY_TOGETHER,
    ENTRY_STATE,
    ENTRY_POSITION,
    ENTRY_BOOKING,
    ENTRY_EXPIRES_US,
    ENTRY_CREATED_US,
    ENTRY_SEEN
};

/* Its columns begin at `first`. Borrows from the row. */
static struct waitlist_entry entry_row(const struct waiting *waiting, const PGresult *rows,
                                       int first)
{
    struct waitlist_entry entry = {
        .event_id = waiting->event_id,
        .user_id = PQgetvalue(rows, 0, first + ENTRY_USER),
        .wish = {.tier = lookup_text(rows, 0, first + ENTRY_TIER),
                 .quantity = (int32_t)lookup_number(rows, 0, first + ENTRY_QUANTITY),
                 .together = PQgetvalue(rows, 0, first + ENTRY_TOGETHER)[0] == 't'},
        .state = PQgetvalue(rows, 0, first + ENTRY_STATE),
        .position = lookup_number(rows, 0, first + ENTRY_POSITION),
        .booking_id = lookup_text(rows, 0, first + ENTRY_BOOKING),
        .created_at_us = lookup_number(rows, 0, first + ENTRY_CREATED_US)};
    if (strcmp(entry.state, "offered") == 0)
        entry.expires_at_us = lookup_number(rows, 0, first + ENTRY_EXPIRES_US);
    memcpy(entry.entry_id, waiting->entry_id, sizeof(entry.entry_id));
    return entry;
}

static void on_entry(void *arg, const struct route *from, enum sg_error error, const PGresult *rows)
{
    struct waiting *waiting = arg;
    struct route route = *from;
    struct waitlist_result result = {.route = &route, .error = error};
    struct waitlist_entry entry;
    if (error == SG_OK) {
        entry = entry_row(waiting, rows, 0);
        result.entry = &entry;
        token_read_lsn(PQgetvalue(rows, 0, ENTRY_SEEN), &route.seen.lsn);
    }
    finish(waiting, &result);
}

enum sg_error router_waitlist_get(struct router *router, int64_t event_id, const char *entry_id,
                                  const struct read_wish *wish, router_waitlist_fn *fn, void *arg)
{
    const struct router_config *config = router_config(router);
    struct route route;
    enum sg_error error = router_locate(router, event_id, &route);
    if (error != SG_OK)
        return error;
    struct waiting *waiting = waiting_new(event_id, entry_id, fn, arg);
    if (!waiting)
        return SG_NO_MEMORY;
    struct row_wanted wanted = {.statement = STATEMENT_WAITLIST,
                                .event_id = event_id,
                                .id = entry_id,
                                .missing = SG_UNKNOWN_ENTRY,
                                .fresh = lookup_fresh(config, &route, wish)};
    error = lookup_row(config, router_calls(router), &route, &wanted, on_entry, waiting);
    if (error != SG_OK)
        free(waiting);
    return error;
}

/* --- joining and leaving ---------------------------------------------------------------------- */

enum { JOIN_OUTCOME, JOIN_ENTRY, JOIN_COLUMNS };

static void on_joined(void *arg, const struct call_reply *reply)
{
    struct waiting *waiting = arg;
    const PGresult *rows = reply->result;
    struct waitlist_result result = {.route = reply->route, .error = reply->error};
    struct waitlist_entry entry;
    if (reply->error == SG_OK) {
        const char *outcome = PQgetvalue(rows, 0, JOIN_OUTCOME);
        if (!lane_outcome(outcome, &result.error))
            result.error = SG_INTERNAL;
        result.replayed = strcmp(outcome, "replayed") == 0;
    }
    if ((result.error == SG_OK || result.error == SG_ALREADY_WAITING) &&
        PQgetisnull(rows, 0, JOIN_COLUMNS + ENTRY_USER))
        result.error = SG_INTERNAL; /* it should be there */
    if (result.error == SG_OK || result.error == SG_ALREADY_WAITING) {
        snprintf(waiting->entry_id, sizeof(waiting->entry_id), "%s",
                 PQgetvalue(rows, 0, JOIN_ENTRY));
        entry = entry_row(waiting, rows, JOIN_COLUMNS);
        result.entry = &entry;
        result.token = reply->commit.token;
        result.durability = reply->commit.durability;
    }
    finish(waiting, &result);
}

static void on_left(void *arg, const struct call_reply *reply)
{
    struct waitlist_result result = {.route = reply->route, .error = reply->error};
    if (reply->error == SG_OK) {
        const char *outcome = PQgetvalue(reply->result, 0, 0);
        if (!lane_outcome(outcome, &result.error))
            result.error = SG_INTERNAL;
        result.replayed = strcmp(outcome, "replayed") == 0;
    }
    if (result.error == SG_OK) {
        result.token = reply->commit.token;
        result.durability = reply->commit.durability;
    }
    finish(arg, &result);
}

static enum sg_error start_write(struct router *router, const struct route *route,
                                 enum statement statement, struct params *params, call_fn *fn,
                                 struct waiting *waiting)
{
    struct call_request request = {.route = *route,
                                   .target = CALL_WRITE,
                                   .deadline_ms =
                                       router_config(router)->settings->booking.deadline_ms,
                                   .statement = statement,
                                   .params = params,
                                   .refusal = lookup_guard};
    enum sg_error error = call_start(router_calls(router), &request, fn, waiting);
    if (error != SG_OK)
        free(waiting);
    return error;
}

/* What makes two requests with one key the same request. To leave: the user and the place. */
static int64_t join_hash(const struct waitlist_request *request)
{
    const struct best_wish *wish = &request->wish;
    const char *tier = wish->tier ? wish->tier : "";
    uint64_t rest = (uint64_t)wish->quantity << 2 | (uint64_t)wish->together << 1 |
                    (uint64_t)(wish->tier != NULL);
    uint64_t hash = hash_bytes(HASH_START, request->user_id, strlen(request->user_id) + 1);
    hash = hash_bytes(hash, tier, strlen(tier) + 1);
    return (int64_t)(hash ^ hash_u64(rest));
}

static int64_t leave_hash(const char *user_id, const struct uuid *entry_id)
{
    uint64_t hash = hash_bytes(HASH_START, user_id, strlen(user_id) + 1);
    return (int64_t)hash_bytes(hash, entry_id, sizeof(*entry_id));
}

enum sg_error router_waitlist_join(struct router *router, const struct waitlist_request *request,
                                   router_waitlist_fn *fn, void *arg)
{
    struct route route;
    struct uuid entry_id = uuid_v7(clock_wall_us());
    enum sg_error error = router_locate(router, request->event_id, &route);
    if (error != SG_OK)
        return error;
    struct waiting *waiting = waiting_new(request->event_id, "", fn, arg);
    struct params *params = lookup_params();
    if (!waiting || !params) {
        free(waiting);
        free(params);
        return SG_NO_MEMORY;
    }
    params_i64(params, 0); /* the epoch, filled in when it is sent */
    params_i64(params, request->event_id);
    params_uuid(params, &entry_id);
    params_text(params, request->user_id);
    params_i32(params, request->wish.quantity);
    params_text(params, request->wish.tier);
    params_bool(params, request->wish.together);
    params_text(params, request->idempotency_key);
    params_i64(params, join_hash(request));
    params_i64(params, router_config(router)->settings->waitlist.offer_ms);
    return start_write(router, &route, STATEMENT_WAITLIST_JOIN, params, on_joined, waiting);
}

enum sg_error router_waitlist_leave(struct router *router, const struct waitlist_request *request,
                                    const char *entry_id, router_waitlist_fn *fn, void *arg)
{
    struct route route;
    struct uuid id;
    enum sg_error error = router_locate(router, request->event_id, &route);
    if (error != SG_OK)
        return error;
    if (!uuid_parse(entry_id, &id))
        return SG_INVALID_VALUE;
    struct waiting *waiting = waiting_new(request->event_id, entry_id, fn, arg);
    struct params *params = lookup_params();
    if (!waiting || !params) {
        free(waiting);
        free(params);
        return SG_NO_MEMORY;
    }
    params_i64(params, 0); /* the epoch, filled in when it is sent */
    params_i64(params, request->event_id);
    params_uuid(params, &id);
    params_text(params, request->user_id);
    params_text(params, request->idempotency_key);
    params_i64(params, leave_hash(request->user_id, &id));
    return start_write(router, &route, STATEMENT_WAITLIST_LEAVE, params, on_left, waiting);
}
