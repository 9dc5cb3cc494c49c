/*
 * How many seats of an event are left. See lookups.h.
 *
 *   a bound or a token? then PostgreSQL is asked at once; else
 *   Redis ── known ──────────────────────────────> answer, source "redis"
 *     └── down, late, not live, no such key, gone ──> one count on a replica ──> "replica"
 *                         (a replica that has no such event: on the primary ──> "primary", 404)
 *
 * Redis never says that there is no such event: PostgreSQL has the last word.
 *
 * SPDX-License-Identifier: MIT
 */
#include "router/lookups.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/settings.h"
#include "router/params.h"
#include "router/topology.h"

struct question {
    const struct router_config *config;
    struct calls *calls;
    struct route route;
    int64_t event_id;
    struct freshness fresh;
    int64_t deadline_us;
    bool asked_primary;
    router_availability_fn *fn;
    void *arg;
};

enum column { COL_TOTAL, COL_HELD, COL_BOOKED };

static void give(struct question *question, const struct route *route, enum sg_error error,
                 const struct availability *availability)
{
    question->fn(question->arg, route, error, availability);
    free(question);
}

static void on_row(void *arg, const struct call_reply *reply);

static enum sg_error ask(struct question *question, enum call_target target)
{
    struct params *params = malloc(sizeof(*params));
    if (!params)
        return SG_NO_MEMORY;
    params_init(params);
    params_i64(params, question->event_id);
    int64_t left_ms = (question->deadline_us - clock_mono_us()) / 1000;
    struct call_request request = {.route = question->route,
                                   .target = target,
                                   .fresh = question->fresh,
                                   .deadline_ms = left_ms > 0 ? left_ms : 0,
                                   .statement = STATEMENT_AVAILABILITY,
                                   .params = params};
    return call_start(question->calls, &request, on_row, question);
}

static int64_t number(const PGresult *rows, int column)
{
    return strtoll(PQgetvalue(rows, 0, column), NULL, 10);
}

static void on_row(void *arg, const struct call_reply *reply)
{
    struct question *question = arg;
    bool from_replica = !reply->from_primary;
    if (reply->error != SG_OK) {
        give(question, reply->route, reply->error, NULL);
        return;
    }
    if (PQntuples(reply->result) == 0) {
        enum sg_error error = SG_UNKNOWN_EVENT;
        if (from_replica && !question->asked_primary) { /* it may be too young for the replica */
            question->asked_primary = true;
            error = ask(question, CALL_PRIMARY);
        }
        if (error != SG_OK)
            give(question, reply->route, error, NULL);
        return;
    }
    struct availability availability = {.event_id = question->event_id,
                                        .total = number(reply->result, COL_TOTAL),
                                        .held = number(reply->result, COL_HELD),
                                        .booked = number(reply->result, COL_BOOKED),
                                        .source = from_replica ? "replica" : "primary"};
    availability.available = availability.total - availability.held - availability.booked;
    give(question, reply->route, SG_OK, &availability);
}

static void on_counts(void *arg, const struct event_counts *counts, size_t count)
{
    struct question *question = arg;
    (void)count;
    if (!counts[0].known) {
        enum sg_error error = ask(question, CALL_READ);
        if (error != SG_OK)
            give(question, &question->route, error, NULL);
        return;
    }
    struct route route = question->route;
    snprintf(route.node, sizeof(route.node), "redis");
    route.staleness_us = STALENESS_UNKNOWN;
    give(question, &route, SG_OK,
         &(struct availability){.event_id = question->event_id,
                                .total = counts[0].total,
                                .available = counts[0].available,
                                .held = counts[0].held,
                                .booked = counts[0].booked,
                                .source = "redis"});
}

enum sg_error availability_start(const struct router_config *config, struct calls *calls,
                                 struct counters *counters, const struct route *route,
                                 int64_t event_id, const struct read_wish *wish,
                                 router_availability_fn *fn, void *arg)
{
    const struct settings *settings = config->settings;
    struct question *question = malloc(sizeof(*question));
    if (!question)
        return SG_NO_MEMORY;
    *question = (struct question){
        .config = config,
        .calls = calls,
        .route = *route,
        .event_id = event_id,
        .fresh = freshness_of(wish, route->shard, settings->reads.max_staleness_ms * 1000),
        .deadline_us = clock_mono_us() + settings->reads.deadline_ms * 1000,
        .fn = fn,
        .arg = arg};
    if (counters && !freshness_is_asked(&question->fresh) &&
        counters_events(counters, route->shard, &event_id, 1, on_counts, question) == SG_OK)
        return SG_OK;
    enum sg_error error = ask(question, CALL_READ);
    if (error != SG_OK)
        free(question);
    return error;
}
