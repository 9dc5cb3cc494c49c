/*
 * Events and single bookings: one call, one row, one callback; and the list over all shards.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_ROUTER_LOOKUPS_H
#define SG_ROUTER_LOOKUPS_H

#include "router/calls.h"
#include "router/router.h"

/* `route` has shard and map_version filled in; otherwise as the functions of router.h. */
enum sg_error lookup_event(const struct router_config *config, struct calls *calls,
                           const struct route *route, int64_t event_id, router_event_fn *fn,
                           void *arg);
enum sg_error lookup_booking(const struct router_config *config, struct calls *calls,
                             const struct route *route, int64_t event_id, const char *booking_id,
                             router_booking_fn *fn, void *arg);
/* `epoch` of the shard's primary; ids are taken from the shard's ranges in `map`. */
enum sg_error event_creation_start(const struct router_config *config, struct calls *calls,
                                   const struct route *route, const struct shardmap *map,
                                   int64_t epoch, const struct event_new *event,
                                   router_event_fn *fn, void *arg);
/* Asks every shard of `map`. */
enum sg_error event_list_start(const struct router_config *config, struct calls *calls,
                               const struct shardmap *map, int64_t after_id, size_t limit,
                               router_events_fn *fn, void *arg);

#endif
