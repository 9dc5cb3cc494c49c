/*
 * Events and single bookings. See lookups.h.
 *
 * What a replica does not know may be too young for it, so "there is none" is asked of the primary
 * once more before it is said. Of an event that Redis counts, only the rest is asked of PostgreSQL.
 *
 * SPDX-License-Identifier: MIT
 */
#include "router/lookups.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/settings.h"
#include "router/lane.h"
#include "router/params.h"
#include "router/route.h"
#include "router/token.h"
#include "router/topology.h"

enum event_column {
    EVENT_ID,
    EVENT_NAME,
    EVENT_STARTS_US,
    EVENT_ROWS,
    EVENT_COLS,
    EVENT_AVAILABLE
};

/* Borrows from the result. */
static struct event_info event_row(const PGresult *rows, int row, const char *shard)
{
    struct event_info event = {
        .event_id = strtoll(PQgetvalue(rows, row, EVENT_ID), NULL, 10),
        .name = PQgetvalue(rows, row, EVENT_NAME),
        .starts_at_us = strtoll(PQgetvalue(rows, row, EVENT_STARTS_US), NULL, 10),
        .rows = atoi(PQgetvalue(rows, row, EVENT_ROWS)),
        .cols = atoi(PQgetvalue(rows, row, EVENT_COLS)),
        .available = strtoll(PQgetvalue(rows, row, EVENT_AVAILABLE), NULL, 10),
    };
    snprintf(event.shard, sizeof(event.shard), "%s", shard);
    return event;
}

static struct params *params_new(void)
{
    struct params *params = malloc(sizeof(*params));
    if (params)
        params_init(params);
    return params;
}

/* --- one row ---------------------------------------------------------------------------------- */

/* A look-up by event and perhaps booking: asked of a replica, and if it finds nothing, once more of
 * the primary. */
struct lookup {
    const struct router_config *config;
    struct calls *calls;
    struct route route;
    int64_t event_id;
    char booking_id[ROUTER_UUID_LEN + 1]; /* "" for an event */
    struct freshness fresh;
    struct event_counts counts; /* of Redis; `known` false: PostgreSQL is to count */
    bool asked_primary;
    int64_t deadline_us;
    router_event_fn *event_fn;
    router_booking_fn *booking_fn;
    void *arg;
};

static void on_lookup(void *arg, const struct call_reply *reply);

static enum statement statement_of(const struct lookup *lookup)
{
    if (lookup->booking_fn)
        return STATEMENT_BOOKING;
    return lookup->counts.known ? STATEMENT_EVENT_PLAIN : STATEMENT_EVENT;
}

static enum sg_error ask(struct lookup *lookup, enum call_target target)
{
    struct params *params = params_new();
    struct uuid uuid;
    if (!params)
        return SG_NO_MEMORY;
    params_i64(params, lookup->event_id);
    if (lookup->booking_fn && uuid_parse(lookup->booking_id, &uuid))
        params_uuid(params, &uuid);
    int64_t left_ms = (lookup->deadline_us - clock_mono_us()) / 1000;
    struct call_request request = {.route = lookup->route,
                                   .target = target,
                                   .fresh = lookup->fresh,
                                   .deadline_ms = left_ms > 0 ? left_ms : 0,
                                   .statement = statement_of(lookup),
                                   .params = params};
    return call_start(lookup->calls, &request, on_lookup, lookup);
}

/* The age of a number out of Redis is not known, so the answer's is not either. */
static void give_event(const struct lookup *lookup, const struct call_reply *reply,
                       enum sg_error error)
{
    struct route route = *reply->route;
    if (error != SG_OK) {
        lookup->event_fn(lookup->arg, &route, error, NULL);
        return;
    }
    struct event_info event = event_row(reply->result, 0, route.shard);
    if (lookup->counts.known) {
        event.available = lookup->counts.available;
        route.staleness_us = STALENESS_UNKNOWN;
    }
    lookup->event_fn(lookup->arg, &route, SG_OK, &event);
}

enum booking_column {
    BOOKING_COLS,
    BOOKING_USER,
    BOOKING_STATUS,
    BOOKING_SEATS,
    BOOKING_CREATED_US,
    BOOKING_SEEN
};

size_t lookup_seats(const char *text, int32_t cols, struct seat *ret_seats, size_t max)
{
    size_t count = 0;
    while ((*text == '{' || *text == ',') && count < max) {
        char *end;
        long seat_no = strtol(text + 1, &end, 10);
        if (end == text + 1)
            break;
        ret_seats[count++] = (struct seat){.row = (int32_t)(seat_no / cols) + 1,
                                           .col = (int32_t)(seat_no % cols) + 1};
        text = end;
    }
    return count;
}

static void give_booking(const struct lookup *lookup, const struct call_reply *reply,
                         enum sg_error error)
{
    struct seat seats[ROUTER_SEATS_MAX];
    struct booking booking = {.event_id = lookup->event_id, .seats = seats};
    if (error != SG_OK) {
        lookup->booking_fn(lookup->arg, reply->route, error, NULL);
        return;
    }
    const PGresult *rows = reply->result;
    snprintf(booking.booking_id, sizeof(booking.booking_id), "%s", lookup->booking_id);
    booking.user_id = PQgetvalue(rows, 0, BOOKING_USER);
    booking.status = PQgetvalue(rows, 0, BOOKING_STATUS);
    booking.created_at_us = strtoll(PQgetvalue(rows, 0, BOOKING_CREATED_US), NULL, 10);
    booking.seat_count =
        lookup_seats(PQgetvalue(rows, 0, BOOKING_SEATS), atoi(PQgetvalue(rows, 0, BOOKING_COLS)),
                     seats, ROUTER_SEATS_MAX);
    struct route route = *reply->route;
    token_read_lsn(PQgetvalue(rows, 0, BOOKING_SEEN), &route.seen.lsn);
    lookup->booking_fn(lookup->arg, &route, SG_OK, &booking);
}

/* The grid that Redis counted is not the event's: PostgreSQL is to count. */
static bool counts_do_not_fit(const struct lookup *lookup, const struct call_reply *reply)
{
    if (!lookup->counts.known || reply->error != SG_OK || PQntuples(reply->result) == 0)
        return false;
    return atoi(PQgetvalue(reply->result, 0, EVENT_ROWS)) != lookup->counts.rows ||
           atoi(PQgetvalue(reply->result, 0, EVENT_COLS)) != lookup->counts.cols;
}

static void on_lookup(void *arg, const struct call_reply *reply)
{
    struct lookup *lookup = arg;
    enum sg_error error = reply->error;
    if (counts_do_not_fit(lookup, reply)) {
        lookup->counts.known = false;
        error = ask(lookup, lookup->asked_primary ? CALL_PRIMARY : CALL_READ);
        if (error == SG_OK)
            return;
    }
    if (error == SG_OK && PQntuples(reply->result) == 0) {
        if (!reply->from_primary && !lookup->asked_primary) {
            lookup->asked_primary = true;
            error = ask(lookup, CALL_PRIMARY);
            if (error == SG_OK)
                return;
        } else {
            error = lookup->booking_fn ? SG_UNKNOWN_BOOKING : SG_UNKNOWN_EVENT;
        }
    }
    if (lookup->booking_fn)
        give_booking(lookup, reply, error);
    else
        give_event(lookup, reply, error);
    free(lookup);
}

static void on_counts(void *arg, const struct event_counts *counts, size_t count)
{
    struct lookup *lookup = arg;
    (void)count;
    lookup->counts = counts[0];
    enum sg_error error = ask(lookup, CALL_READ);
    if (error == SG_OK)
        return;
    lookup->event_fn(lookup->arg, &lookup->route, error, NULL);
    free(lookup);
}

static enum sg_error lookup_start(const struct lookup *wanted, struct counters *counters)
{
    struct lookup *lookup = malloc(sizeof(*lookup));
    if (!lookup)
        return SG_NO_MEMORY;
    *lookup = *wanted;
    lookup->deadline_us = clock_mono_us() + lookup->config->settings->reads.deadline_ms * 1000;
    if (counters && !freshness_is_asked(&lookup->fresh) &&
        counters_events(counters, lookup->route.shard, &lookup->event_id, 1, on_counts, lookup) ==
            SG_OK)
        return SG_OK;
    enum sg_error error = ask(lookup, CALL_READ);
    if (error != SG_OK)
        free(lookup);
    return error;
}

static struct freshness fresh_for(const struct router_config *config, const struct route *route,
                                  const struct read_wish *wish)
{
    return freshness_of(wish, route->shard, config->settings->reads.max_staleness_ms * 1000);
}

enum sg_error lookup_event(const struct router_config *config, struct calls *calls,
                           struct counters *counters, const struct route *route, int64_t event_id,
                           const struct read_wish *wish, router_event_fn *fn, void *arg)
{
    return lookup_start(&(struct lookup){.config = config,
                                         .calls = calls,
                                         .route = *route,
                                         .event_id = event_id,
                                         .fresh = fresh_for(config, route, wish),
                                         .event_fn = fn,
                                         .arg = arg},
                        counters);
}

enum sg_error lookup_booking(const struct router_config *config, struct calls *calls,
                             const struct route *route, int64_t event_id, const char *booking_id,
                             const struct read_wish *wish, router_booking_fn *fn, void *arg)
{
    struct lookup lookup = {.config = config,
                            .calls = calls,
                            .route = *route,
                            .event_id = event_id,
                            .fresh = fresh_for(config, route, wish),
                            .booking_fn = fn,
                            .arg = arg};
    snprintf(lookup.booking_id, sizeof(lookup.booking_id), "%s", booking_id);
    return lookup_start(&lookup, NULL);
}

/* --- creation --------------------------------------------------------------------------------- */

struct creation {
    struct event_info event;
    router_event_fn *fn;
    void *arg;
    char name[ROUTER_NAME_MAX + 1];
};

/* For the time being. */
static enum sg_error creation_refusal(const PGresult *result)
{
    enum sg_error error;
    if (!lane_outcome(PQgetvalue(result, 0, 0), &error))
        return SG_OK;
    return error == SG_FENCED || error == SG_STALE_EPOCH || error == SG_NOT_SYNCHRONOUS ? error
                                                                                        : SG_OK;
}

static void on_created(void *arg, const struct call_reply *reply)
{
    struct creation *creation = arg;
    enum sg_error error = reply->error;
    if (error == SG_OK) {
        const char *outcome = PQgetvalue(reply->result, 0, 0);
        if (strcmp(outcome, "created") == 0)
            creation->event.event_id = strtoll(PQgetvalue(reply->result, 0, 1), NULL, 10);
        else if (strcmp(outcome, "map_full") == 0)
            error = SG_MAP_FULL;
        else if (!lane_outcome(outcome, &error))
            error = SG_INTERNAL;
        creation->event.token = reply->commit.token;
        creation->event.durability = reply->commit.durability;
    }
    creation->fn(creation->arg, reply->route, error, error == SG_OK ? &creation->event : NULL);
    free(creation);
}

/* The shard's ranges, then what is pinned to it from elsewhere, as parallel arrays of first and
 * last; then the ids inside that are pinned away. */
static void add_free_ids(struct params *params, const struct shardmap *map, int shard)
{
    size_t range_count;
    size_t pin_count;
    const struct shardmap_range *ranges = shardmap_ranges(map, &range_count);
    const struct shardmap_pin *pins = shardmap_pins(map, &pin_count);
    int32_t count = 0;
    int32_t away = 0;
    for (size_t i = 0; i < range_count; i++)
        count += ranges[i].shard == shard;
    for (size_t i = 0; i < pin_count; i++) {
        count += pins[i].shard == shard;
        away += pins[i].shard != shard;
    }
    for (int last = 0; last <= 1; last++) {
        params_array_begin(params, PARAMS_INT8, count);
        for (size_t i = 0; i < range_count; i++) {
            if (ranges[i].shard == shard)
                params_array_i64(params, last ? ranges[i].last : ranges[i].first);
        }
        for (size_t i = 0; i < pin_count; i++) {
            if (pins[i].shard == shard)
                params_array_i64(params, pins[i].event_id);
        }
        params_array_end(params);
    }
    params_array_begin(params, PARAMS_INT8, away);
    for (size_t i = 0; i < pin_count; i++) {
        if (pins[i].shard != shard)
            params_array_i64(params, pins[i].event_id);
    }
    params_array_end(params);
}

enum sg_error event_creation_start(const struct router_config *config, struct calls *calls,
                                   const struct route *route, const struct shardmap *map,
                                   const struct event_new *event, router_event_fn *fn, void *arg)
{
    struct creation *creation = calloc(1, sizeof(*creation));
    struct params *params = params_new();
    struct uuid creation_id = uuid_v7(clock_wall_us());
    if (!creation || !params) {
        free(creation);
        free(params);
        return SG_NO_MEMORY;
    }
    creation->fn = fn;
    creation->arg = arg;
    snprintf(creation->name, sizeof(creation->name), "%s", event->name);
    creation->event = (struct event_info){.name = creation->name,
                                          .starts_at_us = event->starts_at_us,
                                          .rows = event->rows,
                                          .cols = event->cols,
                                          .available = (int64_t)event->rows * event->cols};
    snprintf(creation->event.shard, sizeof(creation->event.shard), "%s", route->shard);
    params_i64(params, 0); /* the epoch, filled in when it is sent */
    params_uuid(params, &creation_id);
    params_text(params, creation->name);
    params_i64(params, event->starts_at_us);
    params_i32(params, event->rows);
    params_i32(params, event->cols);
    add_free_ids(params, map, shardmap_shard_by_name(map, route->shard));
    struct call_request request = {.route = *route,
                                   .target = CALL_WRITE,
                                   .deadline_ms = config->settings->booking.deadline_ms,
                                   .statement = STATEMENT_CREATE_EVENT,
                                   .params = params,
                                   .refusal = creation_refusal};
    enum sg_error error = call_start(calls, &request, on_created, creation);
    if (error != SG_OK)
        free(creation);
    return error;
}
