/*
 * The router's front: finds the shard in the published map, and hands the request to the part that
 * carries it out. See router.h.
 *
 *   book, change ─> lanes of the shard (lane.c) event, booking ─> calls (lookups.c, calls.c)
 *   seat map ─> single flight (seatmaps.c)      list of events ─> all shards (event_list.c)
 *   how many are left ─> Redis, else a call     my tickets ─> the shards that hold some
 *     (availability.c, counters.c)                (counters.c, tickets.c)
 *   live seats ─> Redis (live.c)
 *
 * It owns the lanes. A lane whose shard left the map is retired: what is in it ends on the map it
 * began with, then the lane goes (a timer looks for that, as no request may come any more).
 *
 * SPDX-License-Identifier: MIT
 */
#include "router/router.h"

#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "base/clock.h"
#include "base/settings.h"
#include "base/snapshot.h"
#include "router/calls.h"
#include "router/counters.h"
#include "router/event_rows.h"
#include "router/lane.h"
#include "router/live.h"
#include "router/lookups.h"
#include "router/route.h"
#include "router/router_internal.h"
#include "router/seatmaps.h"
#include "router/topology.h"

#define SWEEP_US 100000 /* between two looks at the retired lanes */

struct lane_entry {
    LIST_ENTRY(lane_entry) link;
    struct lane *lane;
};

LIST_HEAD(lane_list, lane_entry);

/* NULL: without memory, or not needed (LANE_TAKES when plain bookings go in batches, too). */
struct shard_lanes {
    struct lane *of[LANE_CLASSES];
};

struct router {
    struct router_config config;
    struct calls *calls;
    struct seatmaps *seatmaps;
    struct counters *counters; /* NULL: there is no Redis */
    struct live *live;         /* NULL: likewise, or no memory */
    uint64_t map_serial;
    struct shard_lanes *lanes; /* by shard index of the map of map_serial */
    size_t lane_count;
    struct lane_list retired;
    struct event *sweep;      /* pending while there are any */
    int64_t created_here[64]; /* events created since the topology was last seen, by shard index */
    uint64_t created_serial;
};

/* --- following the map ------------------------------------------------------------------------ */

static bool is_wanted(const struct router *router, enum lane_class class)
{
    return class != LANE_TAKES || router->config.settings->booking.strategy != STRATEGY_BATCHED;
}

/* The lanes that the shard has already, and new ones for those it lacks. */
static struct shard_lanes take_lanes(struct router *router, const char *shard)
{
    struct shard_lanes lanes = {{NULL}};
    for (int class = 0; class < LANE_CLASSES; class ++) {
        for (size_t i = 0; i < router->lane_count && !lanes.of[class]; i++) {
            struct lane *lane = router->lanes[i].of[class];
            if (!lane || strcmp(lane_shard(lane), shard) != 0)
                continue;
            router->lanes[i].of[class] = NULL;
            lanes.of[class] = lane;
        }
        if (!lanes.of[class] && is_wanted(router, class))
            lanes.of[class] = lane_new(&router->config, router->calls, shard, class);
    }
    return lanes;
}

static void set_sweep(struct router *router)
{
    struct timeval tv = clock_timeval_us(SWEEP_US);
    event_add(router->sweep, &tv);
}

static void retire(struct router *router, struct lane *lane)
{
    struct lane_entry *entry = lane_in_flight(lane) ? malloc(sizeof(*entry)) : NULL;
    if (!entry) {
        lane_free(lane);
        return;
    }
    entry->lane = lane;
    LIST_INSERT_HEAD(&router->retired, entry, link);
    set_sweep(router);
}

static void free_retired(struct router *router, bool all)
{
    struct lane_entry *entry = LIST_FIRST(&router->retired);
    while (entry) {
        struct lane_entry *next = LIST_NEXT(entry, link);
        if (all || lane_in_flight(entry->lane) == 0) {
            LIST_REMOVE(entry, link);
            lane_free(entry->lane);
            free(entry);
        }
        entry = next;
    }
}

static void on_sweep(evutil_socket_t fd, short what, void *arg)
{
    struct router *router = arg;
    (void)fd;
    (void)what;
    free_retired(router, false);
    if (!LIST_EMPTY(&router->retired))
        set_sweep(router);
}

/* Inside a read section. */
static void follow_map(struct router *router, const struct shardmap *map, uint64_t serial)
{
    size_t count = shardmap_shard_count(map);
    struct shard_lanes *lanes = calloc(count, sizeof(*lanes));
    if (!lanes)
        return; /* the next request tries again */
    for (size_t i = 0; i < count; i++)
        lanes[i] = take_lanes(router, shardmap_shard(map, (int)i)->name);
    for (size_t i = 0; i < router->lane_count * LANE_CLASSES; i++) {
        struct lane *lane = router->lanes[i / LANE_CLASSES].of[i % LANE_CLASSES];
        if (lane)
            retire(router, lane);
    }
    free(router->lanes);
    router->lanes = lanes;
    router->lane_count = count;
    router->map_serial = serial;
    calls_sync_map(router->calls, map);
}

/* Begins a read section; the caller ends it. NULL before the first map. */
static const struct shardmap *begin(struct router *router)
{
    snapshot_begin(router->config.reader);
    uint64_t serial = snapshot_serial(router->config.maps);
    const struct shardmap *map = snapshot_get(router->config.maps);
    if (map && serial != router->map_serial)
        follow_map(router, map, serial);
    return map;
}

static void end(struct router *router)
{
    snapshot_end(router->config.reader);
}

static void fill_route(const struct shardmap *map, int shard, struct route *ret_route)
{
    *ret_route = (struct route){.staleness_us = STALENESS_UNKNOWN,
                                .map_version = map ? shardmap_version(map) : 0};
    if (shard >= 0)
        memcpy(ret_route->shard, shardmap_shard(map, shard)->name, sizeof(ret_route->shard));
}

/* --- public ----------------------------------------------------------------------------------- */

struct router *router_new(const struct router_config *config)
{
    struct router *router = calloc(1, sizeof(*router));
    if (!router)
        return NULL;
    router->config = *config;
    LIST_INIT(&router->retired);
    router->sweep = evtimer_new(config->base, on_sweep, router);
    router->calls = router->sweep ? calls_new(&router->config) : NULL;
    router->seatmaps = router->calls ? seatmaps_new(&router->config, router->calls) : NULL;
    router->counters = router->seatmaps ? counters_new(&router->config) : NULL;
    if (!router->seatmaps || (config->settings->redis.address[0] && !router->counters)) {
        calls_free(router->calls);
        seatmaps_free(router->seatmaps);
        if (router->sweep)
            event_free(router->sweep);
        free(router);
        return NULL;
    }
    router->live = live_new(&router->config, router->counters);
    router_sync_map(router);
    return router;
}

void router_free(struct router *router)
{
    if (!router)
        return;
    for (size_t i = 0; i < router->lane_count * LANE_CLASSES; i++)
        lane_free(router->lanes[i / LANE_CLASSES].of[i % LANE_CLASSES]);
    free_retired(router, true);
    live_free(router->live);
    counters_free(router->counters); /* first: who waits for Redis goes on to calls */
    calls_free(router->calls);
    seatmaps_free(router->seatmaps);
    event_free(router->sweep);
    free(router->lanes);
    free(router);
}

void router_sync_map(struct router *router)
{
    struct lane_entry *entry;
    begin(router);
    end(router);
    for (size_t i = 0; i < router->lane_count * LANE_CLASSES; i++) {
        struct lane *lane = router->lanes[i / LANE_CLASSES].of[i % LANE_CLASSES];
        if (lane)
            lane_sync(lane);
    }
    LIST_FOREACH (entry, &router->retired, link)
        lane_sync(entry->lane);
}

void router_sync_topology(struct router *router)
{
    router_sync_map(router);
    calls_sync_topology(router->calls);
}

size_t router_in_flight(const struct router *router)
{
    size_t count = calls_in_flight(router->calls);
    count += router->counters ? counters_in_flight(router->counters) : 0;
    for (size_t i = 0; i < router->lane_count * LANE_CLASSES; i++) {
        const struct lane *lane = router->lanes[i / LANE_CLASSES].of[i % LANE_CLASSES];
        count += lane ? lane_in_flight(lane) : 0;
    }
    struct lane_entry *entry;
    LIST_FOREACH (entry, &router->retired, link)
        count += lane_in_flight(entry->lane);
    return count;
}

int64_t router_map_version(struct router *router)
{
    const struct shardmap *map = begin(router);
    int64_t version = map ? shardmap_version(map) : 0;
    end(router);
    return version;
}

enum sg_error router_locate(struct router *router, int64_t event_id, struct route *ret_route)
{
    const struct shardmap *map = begin(router);
    int shard = map ? shardmap_find(map, event_id) : -1;
    fill_route(map, shard, ret_route);
    end(router);
    return shard >= 0 ? SG_OK : SG_UNKNOWN_EVENT;
}

/* Inside a read section. */
static struct lane *find_lane(struct router *router, const struct shardmap *map, int64_t event_id,
                              enum lane_class class, enum sg_error *ret_error)
{
    int shard = map ? shardmap_find(map, event_id) : -1;
    struct lane *lane = NULL;
    if (shard >= 0 && (size_t)shard < router->lane_count)
        lane = router->lanes[shard].of[class];
    *ret_error = shard < 0 ? SG_UNKNOWN_EVENT : lane ? SG_OK : SG_NO_MEMORY;
    return lane;
}

/* What the statements of a strategy can't do goes in batches whatever the strategy. */
static enum lane_class class_of(const struct router *router, const struct book_request *request)
{
    bool plain = !request->hold_ms && !request->best_count;
    return plain || !is_wanted(router, LANE_TAKES) ? LANE_BOOKINGS : LANE_TAKES;
}

enum sg_error router_book(struct router *router, const struct book_request *request,
                          router_book_fn *fn, void *arg)
{
    const struct shardmap *map = begin(router);
    enum sg_error error;
    struct lane *lane =
        find_lane(router, map, request->event_id, class_of(router, request), &error);
    if (lane)
        error = lane_book(lane, request, shardmap_version(map), fn, arg);
    end(router);
    return error;
}

enum sg_error router_change(struct router *router, const struct change_request *request,
                            router_change_fn *fn, void *arg)
{
    const struct shardmap *map = begin(router);
    enum sg_error error;
    struct lane *lane = find_lane(router, map, request->event_id, LANE_CHANGES, &error);
    if (lane)
        error = lane_change(lane, request, shardmap_version(map), fn, arg);
    end(router);
    return error;
}

enum sg_error router_booking_get(struct router *router, int64_t event_id, const char *booking_id,
                                 const struct read_wish *wish, router_booking_fn *fn, void *arg)
{
    struct route route;
    enum sg_error error = router_locate(router, event_id, &route);
    if (error != SG_OK)
        return error;
    return lookup_booking(&router->config, router->calls, &route, event_id, booking_id, wish, fn,
                          arg);
}

enum sg_error router_event_get(struct router *router, int64_t event_id,
                               const struct read_wish *wish, router_event_fn *fn, void *arg)
{
    struct route route;
    enum sg_error error = router_locate(router, event_id, &route);
    if (error != SG_OK)
        return error;
    return lookup_event(&router->config, router->calls, router->counters, &route, event_id, wish,
                        fn, arg);
}

enum sg_error router_event_list(struct router *router, int64_t after_id, size_t limit,
                                const struct read_wish *wish, router_events_fn *fn, void *arg)
{
    const struct shardmap *map = begin(router);
    enum sg_error error = SG_SHARD_UNAVAILABLE;
    if (map)
        error = event_list_start(&router->config, router->calls, router->counters, map, after_id,
                                 limit, wish, fn, arg);
    end(router);
    return error;
}

enum sg_error router_availability(struct router *router, int64_t event_id,
                                  const struct read_wish *wish, router_availability_fn *fn,
                                  void *arg)
{
    struct route route;
    enum sg_error error = router_locate(router, event_id, &route);
    if (error != SG_OK)
        return error;
    return availability_start(&router->config, router->calls, router->counters, &route, event_id,
                              wish, fn, arg);
}

enum sg_error router_tickets(struct router *router, const struct tickets_request *request,
                             router_tickets_fn *fn, void *arg)
{
    const struct shardmap *map = begin(router);
    enum sg_error error = SG_SHARD_UNAVAILABLE;
    if (map)
        error =
            tickets_start(&router->config, router->calls, router->counters, map, request, fn, arg);
    end(router);
    return error;
}

enum sg_error router_seatmap(struct router *router, int64_t event_id, const struct read_wish *wish,
                             router_seatmap_fn *fn, void *arg)
{
    struct route route;
    enum sg_error error = router_locate(router, event_id, &route);
    if (error != SG_OK)
        return error;
    return seatmaps_get(router->seatmaps, &route, event_id, wish, fn, arg);
}

enum sg_error router_watch(struct router *router, int64_t event_id, const char *last_id,
                           router_live_fn *fn, void *arg, struct live_watch **ret_watch)
{
    struct route route;
    enum sg_error error = router_locate(router, event_id, &route);
    if (error != SG_OK)
        return error;
    if (!router->live)
        return SG_SHARD_UNAVAILABLE;
    return live_watch(router->live, route.shard, event_id, last_id, fn, arg, ret_watch);
}

void router_unwatch(struct router *router, struct live_watch *watch)
{
    (void)router;
    live_unwatch(watch);
}

/* --- for the files of the router -------------------------------------------------------------- */

const struct router_config *router_config(const struct router *router)
{
    return &router->config;
}

struct calls *router_calls(struct router *router)
{
    return router->calls;
}

enum sg_error router_find_shard(struct router *router, const char *shard, struct route *ret_route)
{
    const struct shardmap *map = begin(router);
    int index = map ? shardmap_shard_by_name(map, shard) : -1;
    fill_route(map, index, ret_route);
    end(router);
    return index >= 0 ? SG_OK : SG_UNKNOWN_SHARD;
}

/* --- creating events: the choice of a shard --------------------------------------------------- */

/* What this router created since the topology counted, so that a burst does not pile up on one. */
static int64_t *created_here(struct router *router, int shard)
{
    static const size_t slots = sizeof(router->created_here) / sizeof(router->created_here[0]);
    uint64_t serial = snapshot_serial(router->config.topologies);
    if (serial - router->created_serial > 20) { /* the count's source is a second behind or two */
        memset(router->created_here, 0, sizeof(router->created_here));
        router->created_serial = serial;
    }
    return &router->created_here[(size_t)shard % slots];
}

/* Ids of a shard's ranges and pins: how many events it can ever hold. */
static double capacity(const struct shardmap *map, int shard)
{
    size_t count;
    double ids = 0;
    const struct shardmap_range *ranges = shardmap_ranges(map, &count);
    for (size_t i = 0; i < count; i++) {
        if (ranges[i].shard == shard)
            ids += (double)(ranges[i].last - ranges[i].first) + 1;
    }
    return ids;
}

/* The shard with the fewest events; one without a primary, where it has to wait, only if there is
 * nothing else. Those in `full` are left out; -1: all are. */
static int least_loaded(struct router *router, const struct shardmap *map, const bool *full)
{
    const struct topology *topology = snapshot_get(router->config.topologies);
    int best = -1;
    int64_t best_load = 0;
    for (size_t i = 0; i < shardmap_shard_count(map); i++) {
        const char *name = shardmap_shard(map, (int)i)->name;
        const struct topology_node *primary = topology ? route_write(topology, name) : NULL;
        if (full[i])
            continue;
        int64_t load = INT64_MAX;
        if (primary)
            load = primary->event_count + *created_here(router, (int)i);
        if (primary && (double)load >= capacity(map, (int)i))
            load = INT64_MAX - 1; /* perhaps full: only if there is nothing better */
        if (best < 0 || load < best_load) {
            best = (int)i;
            best_load = load;
        }
    }
    return best;
}

static enum sg_error create_on(struct router *router, const struct shardmap *map, int shard,
                               const struct event_new *event, router_event_fn *fn, void *arg)
{
    struct route route;
    fill_route(map, shard, &route);
    enum sg_error error =
        event_creation_start(&router->config, router->calls, &route, map, event, fn, arg);
    if (error == SG_OK)
        ++*created_here(router, shard);
    return error;
}

/* An event that any shard may take: a full one sends it on to the next. */
struct placing {
    struct router *router;
    struct event_new event;
    struct event_texts texts;
    router_event_fn *fn;
    void *arg;
    uint64_t map_serial; /* what the indexes belong to */
    int shard;           /* asked now */
    bool full[];         /* by shard index */
};

static void on_placed(void *arg, const struct route *route, enum sg_error error,
                      const struct event_info *event);

/* Inside a read section. SG_MAP_FULL: every shard has said so. */
static enum sg_error place(struct placing *placing, const struct shardmap *map)
{
    placing->shard = least_loaded(placing->router, map, placing->full);
    if (placing->shard < 0)
        return SG_MAP_FULL;
    return create_on(placing->router, map, placing->shard, &placing->event, on_placed, placing);
}

static void on_placed(void *arg, const struct route *route, enum sg_error error,
                      const struct event_info *event)
{
    struct placing *placing = arg;
    struct router *router = placing->router;
    if (error == SG_MAP_FULL) {
        const struct shardmap *map = begin(router);
        placing->full[placing->shard] = true;
        if (map && router->map_serial == placing->map_serial)
            error = place(placing, map);
        end(router);
        if (error == SG_OK)
            return;
    }
    placing->fn(placing->arg, route, error, event);
    free(placing);
}

static enum sg_error place_anywhere(struct router *router, const struct shardmap *map,
                                    const struct event_new *event, router_event_fn *fn, void *arg)
{
    struct placing *placing =
        calloc(1, sizeof(*placing) + shardmap_shard_count(map) * sizeof(placing->full[0]));
    if (!placing)
        return SG_NO_MEMORY;
    placing->router = router;
    placing->event = *event;
    event_texts_keep(&placing->texts, &placing->event);
    placing->fn = fn;
    placing->arg = arg;
    placing->map_serial = router->map_serial;
    enum sg_error error = place(placing, map);
    if (error != SG_OK)
        free(placing);
    return error;
}

enum sg_error router_event_create(struct router *router, const struct event_new *event,
                                  router_event_fn *fn, void *arg)
{
    const struct shardmap *map = begin(router);
    enum sg_error error = SG_SHARD_UNAVAILABLE;
    if (map && event->shard) {
        int shard = shardmap_shard_by_name(map, event->shard);
        error = shard < 0 ? SG_UNKNOWN_SHARD : create_on(router, map, shard, event, fn, arg);
    } else if (map) {
        error = place_anywhere(router, map, event, fn, arg);
    }
    end(router);
    return error;
}

/* --- readiness -------------------------------------------------------------------------------- */

size_t router_status(struct router *router, struct shard_status *ret_status, size_t max)
{
    const struct shardmap *map = begin(router);
    const struct topology *topology = snapshot_get(router->config.topologies);
    size_t count = map ? shardmap_shard_count(map) : 0;
    for (size_t i = 0; i < count && i < max; i++) {
        struct shard_status *status = &ret_status[i];
        const char *name = shardmap_shard(map, (int)i)->name;
        snprintf(status->shard, sizeof(status->shard), "%s", name);
        status->writable = topology && route_write(topology, name) != NULL;
        status->readable = topology && route_is_readable(topology, name);
    }
    end(router);
    return count;
}
