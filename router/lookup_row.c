/*
 * One row. See lookup_row.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "router/lookup_row.h"

#include <stdlib.h>

#include "base/clock.h"
#include "base/settings.h"
#include "router/lane.h"
#include "router/params.h"

struct lookup {
    const struct router_config *config;
    struct calls *calls;
    struct route route;
    struct row_wanted wanted; /* without its id */
    bool has_id;
    struct uuid id;
    bool asked_primary;
    lookup_row_fn *fn;
    void *arg;
};

struct params *lookup_params(void)
{
    struct params *params = malloc(sizeof(*params));
    if (params)
        params_init(params);
    return params;
}

static void on_lookup(void *arg, const struct call_reply *reply);

static enum sg_error ask(struct lookup *lookup)
{
    struct params *params = lookup_params();
    if (!params)
        return SG_NO_MEMORY;
    params_i64(params, lookup->wanted.event_id);
    if (lookup->has_id)
        params_uuid(params, &lookup->id);
    int64_t left_ms = (lookup->wanted.deadline_us - clock_mono_us()) / 1000;
    struct call_request request = {.route = lookup->route,
                                   .target = lookup->asked_primary ? CALL_PRIMARY : CALL_READ,
                                   .fresh = lookup->wanted.fresh,
                                   .deadline_ms = left_ms > 0 ? left_ms : 0,
                                   .statement = lookup->wanted.statement,
                                   .params = params};
    return call_start(lookup->calls, &request, on_lookup, lookup);
}

static void on_lookup(void *arg, const struct call_reply *reply)
{
    struct lookup *lookup = arg;
    enum sg_error error = reply->error;
    if (error == SG_OK && PQntuples(reply->result) == 0) {
        error = lookup->wanted.missing;
        if (!reply->from_primary && !lookup->asked_primary) {
            lookup->asked_primary = true;
            error = ask(lookup);
            if (error == SG_OK)
                return;
        }
    }
    lookup->fn(lookup->arg, reply->route, error, error == SG_OK ? reply->result : NULL);
    free(lookup);
}

enum sg_error lookup_row(const struct router_config *config, struct calls *calls,
                         const struct route *route, const struct row_wanted *wanted,
                         lookup_row_fn *fn, void *arg)
{
    struct uuid id = {{0}};
    if (wanted->id && !uuid_parse(wanted->id, &id))
        return SG_INVALID_VALUE;
    struct lookup *lookup = malloc(sizeof(*lookup));
    if (!lookup)
        return SG_NO_MEMORY;
    *lookup = (struct lookup){.config = config,
                              .calls = calls,
                              .route = *route,
                              .wanted = *wanted,
                              .has_id = wanted->id != NULL,
                              .id = id,
                              .asked_primary = wanted->of_primary,
                              .fn = fn,
                              .arg = arg};
    lookup->wanted.id = NULL;
    if (!lookup->wanted.deadline_us)
        lookup->wanted.deadline_us = clock_mono_us() + config->settings->reads.deadline_ms * 1000;
    enum sg_error error = ask(lookup);
    if (error != SG_OK)
        free(lookup);
    return error;
}

struct freshness lookup_fresh(const struct router_config *config, const struct route *route,
                              const struct read_wish *wish)
{
    return freshness_of(wish, route->shard, config->settings->reads.max_staleness_ms * 1000);
}

enum sg_error lookup_guard(const PGresult *result)
{
    enum sg_error error;
    if (PQntuples(result) == 0 || !lane_outcome(PQgetvalue(result, 0, 0), &error))
        return SG_OK;
    return error == SG_FENCED || error == SG_STALE_EPOCH || error == SG_NOT_SYNCHRONOUS ? error
                                                                                        : SG_OK;
}

const char *lookup_text(const PGresult *rows, int row, int column)
{
    return PQgetisnull(rows, row, column) ? NULL : PQgetvalue(rows, row, column);
}

int64_t lookup_number(const PGresult *rows, int row, int column)
{
    return strtoll(PQgetvalue(rows, row, column), NULL, 10);
}
