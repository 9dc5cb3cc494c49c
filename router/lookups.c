/*
 * Events and single bookings. See lookups.h.
 *
 * Of an event that Redis counts, only the rest is asked of PostgreSQL.
 *
 * SPDX-License-Identifier: MIT
 */
#include "router/lookups.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/settings.h"
#include "router/event_rows.h"
#include "router/lane.h"
#include "router/lookup_row.h"
#include "router/params.h"
#include "router/route.h"
#include "router/token.h"
#include "router/topology.h"

/* --- a booking -------------------------------------------------------------------------------- */

struct booking_lookup {
    int64_t event_id;
    char booking_id[ROUTER_UUID_LEN + 1];
    router_booking_fn *fn;
    void *arg;
};

size_t lookup_seats(const char *text, int32_t cols, struct seat *ret_seats, size_t max)
{
    size_t count = 0;
    while (cols > 0 && (*text == '{' || *text == ',') && count < max) {
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

struct booking lookup_booking_row(const PGresult *rows, int row, int64_t event_id,
                                  const char *booking_id, struct seat seats[ROUTER_SEATS_MAX])
{
    struct booking booking = {.event_id = event_id,
                              .user_id = PQgetvalue(rows, row, BOOKING_USER),
                              .status = PQgetvalue(rows, row, BOOKING_STATUS),
                              .seats = seats,
                              .seat_count =
                                  lookup_seats(PQgetvalue(rows, row, BOOKING_SEATS),
                                               (int32_t)lookup_number(rows, row, BOOKING_COLS),
                                               seats, ROUTER_SEATS_MAX),
                              .created_at_us = lookup_number(rows, row, BOOKING_CREATED_US),
                              .expires_at_us = lookup_number(rows, row, BOOKING_EXPIRES_US),
                              .amount = lookup_number(rows, row, BOOKING_AMOUNT),
                              .currency = lookup_text(rows, row, BOOKING_CURRENCY)};
    snprintf(booking.booking_id, sizeof(booking.booking_id), "%s", booking_id);
    return booking;
}

static void on_booking_row(void *arg, const struct route *route, enum sg_error error,
                           const PGresult *rows)
{
    struct booking_lookup *lookup = arg;
    struct seat seats[ROUTER_SEATS_MAX];
    if (error == SG_OK) {
        struct route seen = *route;
        struct booking booking =
            lookup_booking_row(rows, 0, lookup->event_id, lookup->booking_id, seats);
        token_read_lsn(PQgetvalue(rows, 0, BOOKING_SEEN), &seen.seen.lsn);
        lookup->fn(lookup->arg, &seen, SG_OK, &booking);
    } else {
        lookup->fn(lookup->arg, route, error, NULL);
    }
    free(lookup);
}

enum sg_error lookup_booking(const struct router_config *config, struct calls *calls,
                             const struct route *route, int64_t event_id, const char *booking_id,
                             const struct read_wish *wish, router_booking_fn *fn, void *arg)
{
    struct booking_lookup *lookup = malloc(sizeof(*lookup));
    if (!lookup)
        return SG_NO_MEMORY;
    *lookup = (struct booking_lookup){.event_id = event_id, .fn = fn, .arg = arg};
    snprintf(lookup->booking_id, sizeof(lookup->booking_id), "%s", booking_id);
    struct row_wanted wanted = {.statement = STATEMENT_BOOKING,
                                .event_id = event_id,
                                .id = booking_id,
                                .missing = SG_UNKNOWN_BOOKING,
                                .fresh = lookup_fresh(config, route, wish)};
    enum sg_error error = lookup_row(config, calls, route, &wanted, on_booking_row, lookup);
    if (error != SG_OK)
        free(lookup);
    return error;
}

/* --- an event --------------------------------------------------------------------------------- */

struct event_lookup {
    const struct router_config *config;
    struct calls *calls;
    struct route route;
    int64_t event_id;
    struct freshness fresh;
    struct event_counts counts; /* of Redis; `known` false: PostgreSQL is to count */
    int64_t deadline_us;
    router_event_fn *fn;
    void *arg;
};

static void on_event_row(void *arg, const struct route *route, enum sg_error error,
                         const PGresult *rows);

static enum sg_error ask_event(struct event_lookup *lookup)
{
    struct row_wanted wanted = {.statement =
                                    lookup->counts.known ? STATEMENT_EVENT_PLAIN : STATEMENT_EVENT,
                                .event_id = lookup->event_id,
                                .missing = SG_UNKNOWN_EVENT,
                                .fresh = lookup->fresh,
                                .deadline_us = lookup->deadline_us};
    return lookup_row(lookup->config, lookup->calls, &lookup->route, &wanted, on_event_row, lookup);
}

/* The age of a number out of Redis is not known, so the answer's is not either. */
static void give_event(const struct event_lookup *lookup, const struct route *from,
                       struct event_info *event)
{
    struct route route = *from;
    if (lookup->counts.known) {
        event->available = lookup->counts.available;
        route.staleness_us = STALENESS_UNKNOWN;
    }
    lookup->fn(lookup->arg, &route, SG_OK, event);
}

static void on_event_row(void *arg, const struct route *route, enum sg_error error,
                         const PGresult *rows)
{
    struct event_lookup *lookup = arg;
    struct event_info *event = NULL;
    if (error == SG_OK) {
        event = event_rows_read(rows, route->shard);
        error = event ? SG_OK : SG_NO_MEMORY;
    }
    /* The grid that Redis counted may not be the event's: then PostgreSQL is to count. */
    if (event && lookup->counts.known &&
        (event->rows != lookup->counts.rows || event->cols != lookup->counts.cols)) {
        free(event);
        event = NULL;
        lookup->counts.known = false;
        error = ask_event(lookup);
        if (error == SG_OK)
            return;
    }
    if (event)
        give_event(lookup, route, event);
    else
        lookup->fn(lookup->arg, route, error, NULL);
    free(event);
    free(lookup);
}

static void on_counts(void *arg, const struct event_counts *counts, size_t count)
{
    struct event_lookup *lookup = arg;
    (void)count;
    lookup->counts = counts[0];
    enum sg_error error = ask_event(lookup);
    if (error == SG_OK)
        return;
    lookup->fn(lookup->arg, &lookup->route, error, NULL);
    free(lookup);
}

enum sg_error lookup_event(const struct router_config *config, struct calls *calls,
                           struct counters *counters, const struct route *route, int64_t event_id,
                           const struct read_wish *wish, router_event_fn *fn, void *arg)
{
    struct event_lookup *lookup = malloc(sizeof(*lookup));
    if (!lookup)
        return SG_NO_MEMORY;
    *lookup = (struct event_lookup){.config = config,
                                    .calls = calls,
                                    .route = *route,
                                    .event_id = event_id,
                                    .fresh = lookup_fresh(config, route, wish),
                                    .deadline_us = clock_mono_us() +
                                                   config->settings->reads.deadline_ms * 1000,
                                    .fn = fn,
                                    .arg = arg};
    if (counters && !freshness_is_asked(&lookup->fresh) &&
        counters_events(counters, route->shard, &event_id, 1, on_counts, lookup) == SG_OK)
        return SG_OK;
    enum sg_error error = ask_event(lookup);
    if (error != SG_OK)
        free(lookup);
    return error;
}

/* --- creation --------------------------------------------------------------------------------- */

struct creation {
    struct event_info event;
    router_event_fn *fn;
    void *arg;
    struct event_texts texts;
};

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

/* Currency, names, prices and first rows, limit: NULL for what there is none of. */
static void add_tiers(struct params *params, const struct event_new *event)
{
    int32_t count = (int32_t)event->tier_count;
    params_text(params, event->currency);
    if (count == 0) {
        for (int i = 0; i < 3; i++)
            params_text(params, NULL);
    } else {
        params_array_begin(params, PARAMS_TEXT, count);
        for (int32_t i = 0; i < count; i++)
            params_array_text(params, event->tiers[i].name);
        params_array_end(params);
        params_array_begin(params, PARAMS_INT8, count);
        for (int32_t i = 0; i < count; i++)
            params_array_i64(params, event->tiers[i].price);
        params_array_end(params);
        params_array_begin(params, PARAMS_INT4, count);
        for (int32_t i = 0; i < count; i++)
            params_array_i32(params, event->tiers[i].first_row);
        params_array_end(params);
    }
    if (event->max_per_user)
        params_i32(params, event->max_per_user);
    else
        params_text(params, NULL);
}

static struct creation *creation_new(const struct route *route, const struct event_new *event,
                                     router_event_fn *fn, void *arg)
{
    struct creation *creation = calloc(1, sizeof(*creation));
    struct event_new kept = *event;
    if (!creation)
        return NULL;
    creation->fn = fn;
    creation->arg = arg;
    event_texts_keep(&creation->texts, &kept);
    creation->event = (struct event_info){.name = kept.name,
                                          .starts_at_us = kept.starts_at_us,
                                          .rows = kept.rows,
                                          .cols = kept.cols,
                                          .available = (int64_t)kept.rows * kept.cols,
                                          .tiers = kept.tiers,
                                          .tier_count = kept.tier_count,
                                          .currency = kept.currency,
                                          .max_per_user = kept.max_per_user};
    snprintf(creation->event.shard, sizeof(creation->event.shard), "%s", route->shard);
    return creation;
}

enum sg_error event_creation_start(const struct router_config *config, struct calls *calls,
                                   const struct route *route, const struct shardmap *map,
                                   const struct event_new *event, router_event_fn *fn, void *arg)
{
    struct creation *creation = creation_new(route, event, fn, arg);
    struct params *params = lookup_params();
    struct uuid creation_id = uuid_v7(clock_wall_us());
    if (!creation || !params) {
        free(creation);
        free(params);
        return SG_NO_MEMORY;
    }
    params_i64(params, 0); /* the epoch, filled in when it is sent */
    params_uuid(params, &creation_id);
    params_text(params, creation->event.name);
    params_i64(params, event->starts_at_us);
    params_i32(params, event->rows);
    params_i32(params, event->cols);
    add_free_ids(params, map, shardmap_shard_by_name(map, route->shard));
    add_tiers(params, event);
    struct call_request request = {.route = *route,
                                   .target = CALL_WRITE,
                                   .deadline_ms = config->settings->booking.deadline_ms,
                                   .statement = STATEMENT_CREATE_EVENT,
                                   .params = params,
                                   .refusal = lookup_guard};
    enum sg_error error = call_start(calls, &request, on_created, creation);
    if (error != SG_OK)
        free(creation);
    return error;
}
