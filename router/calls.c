/*
 * Calls. See calls.h.
 *
 *                 ┌────────────── topology, tick, connection ready ───────────────┐
 *                 v                                                               │
 *   ──> dispatch ─┬─> WAITING in a pool ──> IN_FLIGHT ──> answered                │
 *            ^    │                             │ lost                            │
 *            │    ├─> PAUSED, a few ms <────────┤ not replayed yet, by nobody     │
 *            │    │      └─> dispatch           └─> dispatch                      │
 *            │    └─> PARKED ─────────────────────────────────────────────────────┘
 *
 * A call is in exactly one of these places. One that missed its deadline in flight is answered, and
 * stays until its replies let it go.
 *
 * A pool that the map no longer asks for is retired: it takes no new calls and closes when those it
 * has are done. The map may change inside the callback of any call, so a pool's memory goes by way
 * of the reap list.
 *
 * SPDX-License-Identifier: MIT
 */
#include "router/calls_internal.h"

#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/metrics.h"
#include "base/settings.h"
#include "base/snapshot.h"
#include "router/topology.h"

#define TICK_US 20000

/* --- following the topology ------------------------------------------------------------------- */

/* The node cannot be written to any more, however it may come back. */
static bool is_former_primary(const struct callpool *pool, const struct topology *topology)
{
    const struct topology_node *node = topology_find(topology, pool->node);
    const struct topology_node *primary = route_write(topology, pool->shard);
    return (node && node->up && node->role == NODE_REPLICA) ||
           (primary && strcmp(primary->name, pool->node) != 0);
}

static bool is_down(const struct callpool *pool, const struct topology *topology)
{
    const struct topology_node *node = topology_find(topology, pool->node);
    return node && !node->up;
}

static void follow_topology(struct calls *calls)
{
    const struct router_config *config = calls->config;
    struct callpool *pool;
    struct callpool *next;
    uint64_t serial = snapshot_serial(config->topologies);
    if (serial == calls->topology_serial)
        return;
    calls->topology_serial = serial;
    snapshot_begin(config->reader);
    const struct topology *topology = snapshot_get(config->topologies);
    for (pool = TAILQ_FIRST(&calls->pools); topology && pool; pool = next) {
        next = TAILQ_NEXT(pool, link);
        if (pool->in_flight > 0 && is_down(pool, topology))
            callpool_reset(pool, "the node is down");
        if (pool->use != PGCONN_WRITE || !is_former_primary(pool, topology))
            continue;
        calls_pool_park_waiting(pool);
        calls_pool_retire(pool);
    }
    snapshot_end(config->reader);
}

/* --- deadlines -------------------------------------------------------------------------------- */

static void count_refused(const struct call *call)
{
    const char *labels[] = {call->request.route.shard, "refused"};
    if (call->wants_room)
        metrics_add(metrics_series(call->calls->config->metrics, METRIC_READS, labels), 1);
}

static void expire(struct calls *calls, int64_t now_us)
{
    struct call *call;
    struct call *next;
    for (call = TAILQ_FIRST(&calls->all); call; call = next) {
        next = TAILQ_NEXT(call, all);
        if (call->answered || now_us < call->deadline_us)
            continue;
        enum sg_error error = call_missed(call);
        bool in_flight = call->place == CALL_IN_FLIGHT;
        call_withdraw(call);
        count_refused(call);
        call_answer(call, &(struct call_reply){.error = error});
        next = TAILQ_NEXT(call, all); /* the callback may have started calls, never ended any */
        if (!in_flight)
            call_free(call);
    }
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    struct calls *calls = arg;
    (void)fd;
    (void)what;
    expire(calls, clock_mono_us());
    follow_topology(calls);
    calls_dispatch_parked(calls);
    if (calls->count) {
        struct timeval tv = clock_timeval_us(TICK_US);
        event_add(calls->tick, &tv);
    }
}

/* --- crowds ----------------------------------------------------------------------------------- */

/* Makes one if need be. NULL when memory runs out. */
static struct crowd *crowd_of(struct calls *calls, const char *shard)
{
    struct crowd *crowd;
    LIST_FOREACH (crowd, &calls->crowds, link) {
        if (strcmp(crowd->shard, shard) == 0)
            return crowd;
    }
    crowd = calloc(1, sizeof(*crowd));
    if (!crowd)
        return NULL;
    snprintf(crowd->shard, sizeof(crowd->shard), "%s", shard);
    LIST_INSERT_HEAD(&calls->crowds, crowd, link);
    return crowd;
}

static void free_empty_crowds(struct calls *calls)
{
    struct crowd *crowd;
    struct crowd *next;
    for (crowd = LIST_FIRST(&calls->crowds); crowd; crowd = next) {
        next = LIST_NEXT(crowd, link);
        if (crowd->count > 0)
            continue;
        LIST_REMOVE(crowd, link);
        free(crowd);
    }
}

/* --- public ----------------------------------------------------------------------------------- */

struct calls *calls_new(const struct router_config *config)
{
    struct calls *calls = calloc(1, sizeof(*calls));
    if (!calls)
        return NULL;
    calls->config = config;
    TAILQ_INIT(&calls->pools);
    TAILQ_INIT(&calls->retired);
    TAILQ_INIT(&calls->all);
    TAILQ_INIT(&calls->parked);
    TAILQ_INIT(&calls->paused);
    LIST_INIT(&calls->crowds);
    calls->tick = evtimer_new(config->base, on_tick, calls);
    calls->pause = evtimer_new(config->base, on_calls_pause_over, calls);
    if (calls->tick && calls->pause)
        return calls;
    if (calls->tick)
        event_free(calls->tick);
    free(calls);
    return NULL;
}

void calls_free(struct calls *calls)
{
    struct callpool *pool;
    struct call *call;
    if (!calls)
        return;
    calls->closing = true;
    while ((pool = TAILQ_FIRST(&calls->pools)))
        calls_pool_close(pool);
    while ((pool = TAILQ_FIRST(&calls->retired)))
        calls_pool_close(pool);
    while ((call = TAILQ_FIRST(&calls->all))) { /* all of them parked or paused by now */
        call_withdraw(call);
        call->place = CALL_PARKED; /* for what it is told */
        call_answer(call, &(struct call_reply){.error = call_missed(call)});
        call_free(call);
    }
    free_empty_crowds(calls);
    event_free(calls->tick);
    event_free(calls->pause);
    free(calls);
}

/* Keeps the node's pool if it still fits; read pools are there from the start. */
static void want_pool(struct calls *calls, const struct shardmap_shard *shard,
                      const struct shardmap_node *node, enum pgconn_use use)
{
    struct callpool *pool = calls_pool_find(calls, node->name, use);
    if (pool && (strcmp(pool->dsn, node->dsn) != 0 || strcmp(pool->shard, shard->name) != 0 ||
                 (use == PGCONN_WRITE && pool->durability != shard->durability))) {
        calls_pool_retire(pool);
        pool = NULL;
    }
    if (!pool && use == PGCONN_READ)
        pool = calls_pool_new(calls, shard, node, use);
    if (pool)
        pool->wanted = true;
}

void calls_sync_map(struct calls *calls, const struct shardmap *map)
{
    struct callpool *pool;
    struct callpool *next;
    free_empty_crowds(calls); /* those of the map come again with the next call */
    TAILQ_FOREACH (pool, &calls->pools, link)
        pool->wanted = false;
    for (size_t i = 0; i < shardmap_shard_count(map); i++) {
        const struct shardmap_shard *shard = shardmap_shard(map, (int)i);
        for (size_t j = 0; j < shard->node_count; j++) {
            want_pool(calls, shard, &shard->nodes[j], PGCONN_READ);
            want_pool(calls, shard, &shard->nodes[j], PGCONN_WRITE);
        }
    }
    for (pool = TAILQ_FIRST(&calls->pools); pool; pool = next) {
        next = TAILQ_NEXT(pool, link);
        if (!pool->wanted)
            calls_pool_retire(pool);
    }
}

void calls_sync_topology(struct calls *calls)
{
    follow_topology(calls);
    calls_dispatch_parked(calls);
}

size_t calls_in_flight(const struct calls *calls)
{
    return calls->count;
}

enum sg_error call_start(struct calls *calls, struct call_request *request, call_fn *fn, void *arg)
{
    struct call *call = NULL;
    struct crowd *crowd = crowd_of(calls, request->route.shard);
    enum sg_error error = SG_OK;
    if (!params_ok(request->params) || !crowd)
        error = SG_NO_MEMORY;
    else if (crowd->count >= (size_t)calls->config->settings->reads.queue_max)
        error = SG_OVERLOADED;
    else if (!(call = calloc(1, sizeof(*call))))
        error = SG_NO_MEMORY;
    if (error != SG_OK) {
        params_done(request->params);
        free(request->params);
        return error;
    }
    int64_t now_us = clock_mono_us();
    call->calls = calls;
    call->crowd = crowd;
    crowd->count++;
    call->request = *request;
    call->request.route.staleness_us = STALENESS_UNKNOWN;
    call->deadline_us = now_us + request->deadline_ms * 1000;
    call->token_until_us = now_us + calls->config->settings->reads.token_wait_ms * 1000;
    call->source = READ_PRIMARY;
    call->fn = fn;
    call->arg = arg;
    TAILQ_INSERT_TAIL(&calls->all, call, all);
    if (calls->count++ == 0) {
        struct timeval tv = clock_timeval_us(TICK_US);
        event_add(calls->tick, &tv);
    }
    call_dispatch(call);
    return SG_OK;
}
