/*
 * What is read for a request: events, single bookings, how many seats are left, the list of events
 * over all shards, the tickets of a user over all shards.
 *
 * With `counters` (NULL: none) the number of free seats comes from Redis where it is known there,
 * and the statement without the count is sent; else PostgreSQL counts. It also does where the
 * reader has set a bound or brought a token: how far Redis is behind is not known.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_ROUTER_LOOKUPS_H
#define SG_ROUTER_LOOKUPS_H

#include "router/calls.h"
#include "router/counters.h"
#include "router/router.h"

/* `route` has shard and map_version filled in; otherwise as the functions of router.h. */
enum sg_error lookup_event(const struct router_config *config, struct calls *calls,
                           struct counters *counters, const struct route *route, int64_t event_id,
                           const struct read_wish *wish, router_event_fn *fn, void *arg);
enum sg_error lookup_booking(const struct router_config *config, struct calls *calls,
                             const struct route *route, int64_t event_id, const char *booking_id,
                             const struct read_wish *wish, router_booking_fn *fn, void *arg);
/* Ids are taken from the shard's ranges in `map`. While the shard has no primary that takes writes
 * it waits for one. */
enum sg_error event_creation_start(const struct router_config *config, struct calls *calls,
                                   const struct route *route, const struct shardmap *map,
                                   const struct event_new *event, router_event_fn *fn, void *arg);
/* Asks every shard of `map`. */
enum sg_error event_list_start(const struct router_config *config, struct calls *calls,
                               struct counters *counters, const struct shardmap *map,
                               int64_t after_id, size_t limit, const struct read_wish *wish,
                               router_events_fn *fn, void *arg);
enum sg_error availability_start(const struct router_config *config, struct calls *calls,
                                 struct counters *counters, const struct route *route,
                                 int64_t event_id, const struct read_wish *wish,
                                 router_availability_fn *fn, void *arg);
/* Asks those shards of `map` that may hold tickets of the user. */
enum sg_error tickets_start(const struct router_config *config, struct calls *calls,
                            struct counters *counters, const struct shardmap *map,
                            const struct tickets_request *request, router_tickets_fn *fn,
                            void *arg);

/* The first columns of the statements `booking` and `order`. */
enum booking_column {
    BOOKING_COLS,
    BOOKING_USER,
    BOOKING_STATUS,
    BOOKING_SEATS,
    BOOKING_CREATED_US,
    BOOKING_EXPIRES_US,
    BOOKING_AMOUNT,
    BOOKING_CURRENCY,
    BOOKING_SEEN,
    BOOKING_COLUMNS
};

/* Borrows from the row, and from `seats`. */
struct booking lookup_booking_row(const PGresult *rows, int row, int64_t event_id,
                                  const char *booking_id, struct seat seats[ROUTER_SEATS_MAX]);
/* Seats from PostgreSQL's text of their numbers, "{0,1,205}"; returns how many were filled in, at
 * most `max`. */
size_t lookup_seats(const char *text, int32_t cols, struct seat *ret_seats, size_t max);

#endif
