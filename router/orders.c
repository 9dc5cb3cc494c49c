/*
 * Orders: read, moved by a step, found when nobody goes on with them. See router.h; the states and
 * what may follow which are order_step()'s in migrations/0005_life.sql.
 *
 * Steps and leases go as calls (calls.h), which may be asked twice: a step is a compare-and-set, so
 * the second one of a pair finds that it has moved, and a lease that got lost ends by itself.
 *
 * SPDX-License-Identifier: MIT
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/settings.h"
#include "router/lane.h"
#include "router/lookup_row.h"
#include "router/lookups.h"
#include "router/params.h"
#include "router/router_internal.h"
#include "router/token.h"

#define ORDERS_DUE_MAX 100

/* --- one order -------------------------------------------------------------------------------- */

struct order_lookup {
    int64_t event_id;
    char order_id[ROUTER_UUID_LEN + 1];
    router_order_fn *fn;
    void *arg;
};

enum order_column {
    ORDER_STATE = BOOKING_COLUMNS,
    ORDER_PROBLEM,
    ORDER_METHOD,
    ORDER_CURRENCY,
    ORDER_AMOUNT
};

static void give_order(const struct order_lookup *lookup, const struct route *from,
                       const PGresult *rows)
{
    struct seat seats[ROUTER_SEATS_MAX];
    struct route route = *from;
    struct booking booking = lookup_booking_row(rows, 0, lookup->event_id, lookup->order_id, seats);
    struct order order = {.event_id = lookup->event_id,
                          .state = PQgetvalue(rows, 0, ORDER_STATE),
                          .problem = lookup_text(rows, 0, ORDER_PROBLEM),
                          .method = PQgetvalue(rows, 0, ORDER_METHOD),
                          .currency = lookup_text(rows, 0, ORDER_CURRENCY),
                          .amount = lookup_number(rows, 0, ORDER_AMOUNT),
                          .booking = &booking};
    memcpy(order.order_id, lookup->order_id, sizeof(order.order_id));
    token_read_lsn(PQgetvalue(rows, 0, BOOKING_SEEN), &route.seen.lsn);
    lookup->fn(lookup->arg, &route, SG_OK, &order);
}

static void on_order(void *arg, const struct route *route, enum sg_error error,
                     const PGresult *rows)
{
    struct order_lookup *lookup = arg;
    if (error == SG_OK)
        give_order(lookup, route, rows);
    else
        lookup->fn(lookup->arg, route, error, NULL);
    free(lookup);
}

enum sg_error router_order_get(struct router *router, int64_t event_id, const char *order_id,
                               const struct read_wish *wish, router_order_fn *fn, void *arg)
{
    const struct router_config *config = router_config(router);
    struct route route;
    enum sg_error error = router_locate(router, event_id, &route);
    if (error != SG_OK)
        return error;
    struct order_lookup *lookup = malloc(sizeof(*lookup));
    if (!lookup)
        return SG_NO_MEMORY;
    *lookup = (struct order_lookup){.event_id = event_id, .fn = fn, .arg = arg};
    snprintf(lookup->order_id, sizeof(lookup->order_id), "%s", order_id);
    struct row_wanted wanted = {.statement = STATEMENT_ORDER,
                                .event_id = event_id,
                                .id = order_id,
                                .missing = SG_UNKNOWN_ORDER,
                                .fresh = lookup_fresh(config, &route, wish)};
    error = lookup_row(config, router_calls(router), &route, &wanted, on_order, lookup);
    if (error != SG_OK)
        free(lookup);
    return error;
}

/* --- a step ----------------------------------------------------------------------------------- */

struct stepping {
    router_order_step_fn *fn;
    void *arg;
};

enum step_column { STEP_OUTCOME, STEP_STATE, STEP_PROBLEM };

static void on_stepped(void *arg, const struct call_reply *reply)
{
    struct stepping *stepping = arg;
    const PGresult *rows = reply->result;
    struct order_moved moved = {.error = reply->error};
    if (moved.error == SG_OK) {
        const char *outcome = PQgetvalue(rows, 0, STEP_OUTCOME);
        moved.moved = strcmp(outcome, "moved") == 0;
        if (!moved.moved && !lane_outcome(outcome, &moved.error))
            moved.error = SG_INTERNAL;
    }
    if (moved.error == SG_OK) {
        moved.state = PQgetvalue(rows, 0, STEP_STATE);
        moved.problem = lookup_text(rows, 0, STEP_PROBLEM);
        moved.token = reply->commit.token;
    }
    stepping->fn(stepping->arg, &moved);
    free(stepping);
}

enum sg_error router_order_step(struct router *router, const struct order_step *step,
                                router_order_step_fn *fn, void *arg)
{
    const struct settings *settings = router_config(router)->settings;
    struct route route;
    struct uuid order_id;
    enum sg_error error = router_locate(router, step->event_id, &route);
    if (error != SG_OK)
        return error;
    if (!uuid_parse(step->order_id, &order_id))
        return SG_INVALID_VALUE;
    struct stepping *stepping = malloc(sizeof(*stepping));
    struct params *params = lookup_params();
    if (!stepping || !params) {
        free(stepping);
        free(params);
        return SG_NO_MEMORY;
    }
    *stepping = (struct stepping){.fn = fn, .arg = arg};
    params_i64(params, 0); /* the epoch, filled in when it is sent */
    params_i64(params, step->event_id);
    params_uuid(params, &order_id);
    params_text(params, step->from);
    params_text(params, step->action);
    params_i64(params, step->due_ms);
    params_text(params, step->problem);
    params_i64(params, settings->waitlist.offer_ms);
    struct call_request request = {.route = route,
                                   .target = CALL_WRITE,
                                   .deadline_ms = settings->booking.deadline_ms,
                                   .statement = STATEMENT_ORDER_STEP,
                                   .params = params,
                                   .refusal = lookup_guard};
    error = call_start(router_calls(router), &request, on_stepped, stepping);
    if (error != SG_OK)
        free(stepping);
    return error;
}

/* --- orders that nobody goes on with ---------------------------------------------------------- */

struct due_lookup {
    router_orders_fn *fn;
    void *arg;
};

enum due_column {
    DUE_OUTCOME,
    DUE_EVENT,
    DUE_ORDER,
    DUE_STATE,
    DUE_AMOUNT,
    DUE_CURRENCY,
    DUE_METHOD,
    DUE_AGE_MS
};

static struct order due_row(const PGresult *rows, int row)
{
    struct order order = {.event_id = lookup_number(rows, row, DUE_EVENT),
                          .state = PQgetvalue(rows, row, DUE_STATE),
                          .method = PQgetvalue(rows, row, DUE_METHOD),
                          .currency = lookup_text(rows, row, DUE_CURRENCY),
                          .amount = lookup_number(rows, row, DUE_AMOUNT),
                          .age_ms = lookup_number(rows, row, DUE_AGE_MS)};
    snprintf(order.order_id, sizeof(order.order_id), "%s", PQgetvalue(rows, row, DUE_ORDER));
    return order;
}

static void on_due(void *arg, const struct call_reply *reply)
{
    struct due_lookup *lookup = arg;
    struct order orders[ORDERS_DUE_MAX];
    enum sg_error error = reply->error;
    size_t count = 0;
    int rows = error == SG_OK ? PQntuples(reply->result) : 0;
    for (int row = 0; row < rows && count < ORDERS_DUE_MAX && error == SG_OK; row++) {
        if (!lane_outcome(PQgetvalue(reply->result, row, DUE_OUTCOME), &error))
            error = SG_INTERNAL;
        if (error == SG_OK)
            orders[count++] = due_row(reply->result, row);
    }
    lookup->fn(lookup->arg, error, orders, error == SG_OK ? count : 0);
    free(lookup);
}

enum sg_error router_orders_due(struct router *router, const char *shard, size_t limit,
                                int64_t lease_ms, router_orders_fn *fn, void *arg)
{
    struct route route;
    enum sg_error error = router_find_shard(router, shard, &route);
    if (error != SG_OK)
        return error;
    struct due_lookup *lookup = malloc(sizeof(*lookup));
    struct params *params = lookup_params();
    if (!lookup || !params) {
        free(lookup);
        free(params);
        return SG_NO_MEMORY;
    }
    *lookup = (struct due_lookup){.fn = fn, .arg = arg};
    params_i64(params, 0); /* the epoch, filled in when it is sent */
    params_i32(params, (int32_t)(limit < ORDERS_DUE_MAX ? limit : ORDERS_DUE_MAX));
    params_i64(params, lease_ms);
    struct call_request request = {.route = route,
                                   .target = CALL_WRITE,
                                   .deadline_ms =
                                       router_config(router)->settings->booking.deadline_ms,
                                   .statement = STATEMENT_ORDERS_DUE,
                                   .params = params,
                                   .refusal = lookup_guard};
    error = call_start(router_calls(router), &request, on_due, lookup);
    if (error != SG_OK)
        free(lookup);
    return error;
}
