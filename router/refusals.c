/*
 * Refusals that are kept, of bookings that went through the queue. See router.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include <stdlib.h>
#include <string.h>

#include "base/settings.h"
#include "router/lane.h"
#include "router/lookup_row.h"
#include "router/params.h"
#include "router/router_internal.h"

/* --- kept ------------------------------------------------------------------------------------- */

struct storing {
    router_done_fn *fn;
    void *arg;
};

static void on_stored(void *arg, const struct call_reply *reply)
{
    struct storing *storing = arg;
    enum sg_error error = reply->error;
    if (error == SG_OK && !lane_outcome(PQgetvalue(reply->result, 0, 0), &error))
        error = SG_INTERNAL;
    storing->fn(storing->arg, error);
    free(storing);
}

static void add_seats(struct params *params, const struct refusal *refusal)
{
    params_array_begin(params, PARAMS_INT4, (int32_t)refusal->seat_count * 2);
    for (size_t i = 0; i < refusal->seat_count; i++) {
        params_array_i32(params, refusal->seats[i].row);
        params_array_i32(params, refusal->seats[i].col);
    }
    params_array_end(params);
}

enum sg_error router_refusal_store(struct router *router, int64_t event_id, const char *booking_id,
                                   const struct refusal *refusal, router_done_fn *fn, void *arg)
{
    struct route route;
    struct uuid id;
    enum sg_error error = router_locate(router, event_id, &route);
    if (error != SG_OK)
        return error;
    if (!uuid_parse(booking_id, &id))
        return SG_INVALID_VALUE;
    struct storing *storing = malloc(sizeof(*storing));
    struct params *params = lookup_params();
    if (!storing || !params) {
        free(storing);
        free(params);
        return SG_NO_MEMORY;
    }
    *storing = (struct storing){.fn = fn, .arg = arg};
    params_i64(params, 0); /* the epoch, filled in when it is sent */
    params_i64(params, event_id);
    params_uuid(params, &id);
    params_text(params, refusal->user_id);
    params_text(params, refusal->code);
    add_seats(params, refusal);
    struct call_request request = {.route = route,
                                   .target = CALL_WRITE,
                                   .deadline_ms =
                                       router_config(router)->settings->booking.deadline_ms,
                                   .statement = STATEMENT_REFUSAL_STORE,
                                   .params = params,
                                   .refusal = lookup_guard};
    error = call_start(router_calls(router), &request, on_stored, storing);
    if (error != SG_OK)
        free(storing);
    return error;
}

/* --- asked for -------------------------------------------------------------------------------- */

struct refusal_lookup {
    router_refusal_fn *fn;
    void *arg;
};

enum refusal_column { REFUSAL_USER, REFUSAL_CODE, REFUSAL_SEATS };

/* Pairs of numbers in PostgreSQL's text of an array, "{1,7,1,8}". */
static size_t read_seats(const char *text, struct seat ret_seats[ROUTER_SEATS_MAX])
{
    size_t count = 0;
    int32_t pair[2];
    for (int half = 0; *text == '{' || *text == ','; half = !half) {
        char *end;
        pair[half] = (int32_t)strtol(text + 1, &end, 10);
        if (end == text + 1 || count == ROUTER_SEATS_MAX)
            break;
        if (half)
            ret_seats[count++] = (struct seat){.row = pair[0], .col = pair[1]};
        text = end;
    }
    return count;
}

static void on_refusal(void *arg, const struct route *route, enum sg_error error,
                       const PGresult *rows)
{
    struct refusal_lookup *lookup = arg;
    struct seat seats[ROUTER_SEATS_MAX];
    if (error == SG_OK && PQntuples(rows) > 0) {
        struct refusal refusal = {.code = PQgetvalue(rows, 0, REFUSAL_CODE),
                                  .user_id = PQgetvalue(rows, 0, REFUSAL_USER),
                                  .seats = seats,
                                  .seat_count =
                                      read_seats(PQgetvalue(rows, 0, REFUSAL_SEATS), seats)};
        lookup->fn(lookup->arg, route, SG_OK, &refusal);
    } else {
        lookup->fn(lookup->arg, route, error, NULL);
    }
    free(lookup);
}

enum sg_error router_refusal_get(struct router *router, int64_t event_id, const char *booking_id,
                                 router_refusal_fn *fn, void *arg)
{
    struct route route;
    enum sg_error error = router_locate(router, event_id, &route);
    if (error != SG_OK)
        return error;
    struct refusal_lookup *lookup = malloc(sizeof(*lookup));
    if (!lookup)
        return SG_NO_MEMORY;
    *lookup = (struct refusal_lookup){.fn = fn, .arg = arg};
    struct row_wanted wanted = {.statement = STATEMENT_REFUSAL,
                                .event_id = event_id,
                                .id = booking_id,
                                .missing = SG_OK,
                                .of_primary = true};
    error = lookup_row(router_config(router), router_calls(router), &route, &wanted, on_refusal,
                       lookup);
    if (error != SG_OK)
        free(lookup);
    return error;
}
