/*
 * The place of a call: which node, or what it waits for. See calls.h; route.h has the rules.
 *
 *   CALL_READ      replica ─> pause, while none has replayed the token ─> primary, if there is room
 *                  ─> the freshest replica, without a bound of the reader's ─> parked
 *   CALL_PRIMARY   primary ─> parked
 *   CALL_WRITE     primary that takes writes ─> parked
 *
 * SPDX-License-Identifier: MIT
 */
#include "router/calls_internal.h"

#include <event2/event.h>
#include <string.h>

#include "base/clock.h"
#include "base/settings.h"
#include "base/snapshot.h"
#include "router/topology.h"

#define PAUSE_MIN_US 1000 /* before all replicas are asked again for a token; doubles */

/* Write pools are few: one is made when a node is first written to. Inside a read section. */
static struct callpool *write_pool(struct calls *calls, const struct topology_node *node)
{
    struct callpool *pool = calls_pool_find(calls, node->name, PGCONN_WRITE);
    const struct shardmap *map = snapshot_get(calls->config->maps);
    int index = map ? shardmap_shard_by_name(map, node->shard) : -1;
    if (pool || index < 0)
        return pool;
    const struct shardmap_shard *shard = shardmap_shard(map, index);
    for (size_t i = 0; i < shard->node_count; i++) {
        if (strcmp(shard->nodes[i].name, node->name) == 0)
            return calls_pool_new(calls, shard, &shard->nodes[i], PGCONN_WRITE);
    }
    return NULL;
}

static bool enter_for_writing(struct call *call, const struct topology *topology)
{
    const struct topology_node *node = route_write(topology, call->request.route.shard);
    if (!node)
        return false;
    params_replace_i64(call->request.params, 0, node->epoch);
    call->source = READ_PRIMARY;
    call->on_replica = false;
    call->timeline = node->timeline;
    call->request.route.staleness_us = 0;
    return call_enter_pool(call, write_pool(call->calls, node));
}

/* A primary below the token's timeline is one of the past: whoever gave the token knows of another,
 * and health is to look for it. */
static bool enter_primary(struct call *call, const struct topology *topology, int64_t now_us)
{
    struct calls *calls = call->calls;
    const struct call_request *request = &call->request;
    const struct topology_node *node = topology_primary(topology, request->route.shard);
    struct callpool *pool = node ? calls_pool_find(calls, node->name, PGCONN_READ) : NULL;
    if (!pool)
        return false;
    if (call_has_token(call) && node->timeline < request->fresh.token.timeline) {
        if (!call->suspected)
            calls_suspect(calls, pool);
        call->suspected = true;
        return false;
    }
    int64_t staleness_us = route_primary_staleness_us(topology, node, now_us);
    if (request->fresh.own_bound && staleness_us > request->fresh.max_staleness_us)
        return false;
    bool fallback = route_has_replicas(topology, request->route.shard);
    if (fallback && pool->fallbacks >= (size_t)calls->config->settings->reads.primary_max) {
        call->wants_room = true;
        return false;
    }
    call->source = fallback ? READ_FALLBACK : READ_PRIMARY;
    call->on_replica = false;
    call->timeline = node->timeline;
    call->request.route.staleness_us = staleness_us;
    return call_enter_pool(call, pool);
}

static uint32_t load_of(void *arg, const struct topology_node *node)
{
    const struct callpool *pool = calls_pool_find(arg, node->name, PGCONN_READ);
    const struct pgconn *conn = pool ? callpool_pick(pool) : NULL;
    if (!conn || (!callpool_has_room_on(pool, conn) && !callpool_has_room_to_wait(pool)))
        return ROUTE_FULL;
    return (uint32_t)(pool->in_flight + pool->waiting_count);
}

static bool enter_replica(struct call *call, const struct topology *topology,
                          const struct topology_node *node, enum read_source source, int64_t now_us)
{
    const struct call_request *request = &call->request;
    if (!node)
        return false;
    call->source = source;
    call->on_replica = true;
    call->primary_known = topology_primary(topology, request->route.shard) != NULL;
    call->timeline = node->timeline;
    call->bit = route_bit(topology, node);
    call->known_ahead = route_covers(node->timeline, node->lsn, &request->fresh.token);
    call->request.route.staleness_us = topology_staleness_us(node, now_us);
    return call_enter_pool(call, calls_pool_find(call->calls, node->name, PGCONN_READ));
}

static void pause_arm(struct calls *calls, int64_t us)
{
    struct timeval tv = clock_timeval_us(us > 0 ? us : 1);
    event_add(calls->pause, &tv);
}

/* Every replica that may answer has said that it has not replayed the token yet. */
static bool pause_for_token(struct call *call, int64_t now_us)
{
    struct calls *calls = call->calls;
    if (!call->tried || now_us >= call->token_until_us)
        return false;
    call->pause_us = call->pause_us ? 2 * call->pause_us : PAUSE_MIN_US;
    if (call->pause_us > call->token_until_us - now_us)
        call->pause_us = call->token_until_us - now_us;
    call->again_us = now_us + call->pause_us;
    call->tried = 0;
    call->place = CALL_PAUSED;
    TAILQ_INSERT_TAIL(&calls->paused, call, place_link);
    if (!event_pending(calls->pause, EV_TIMEOUT, NULL) || call->pause_us == PAUSE_MIN_US)
        pause_arm(calls, call->pause_us);
    return true;
}

static bool enter_any(struct call *call, const struct topology *topology, int64_t now_us)
{
    struct calls *calls = call->calls;
    const struct call_request *request = &call->request;
    struct route_wish wish = {.shard = request->route.shard,
                              .fresh = &request->fresh,
                              .known_only = now_us >= call->token_until_us,
                              .tried = call->tried,
                              .now_us = now_us,
                              .turn = calls->turn++,
                              .load = load_of,
                              .load_arg = calls};
    if (enter_replica(call, topology, route_replica(topology, &wish), READ_REPLICA, now_us))
        return true;
    if (call_has_token(call) && pause_for_token(call, now_us))
        return true;
    if (enter_primary(call, topology, now_us))
        return true;
    return !request->fresh.own_bound &&
           enter_replica(call, topology, route_freshest(topology, &wish), READ_STALE, now_us);
}

/* Puts a call that is in no place into one. */
void call_dispatch(struct call *call)
{
    const struct router_config *config = call->calls->config;
    bool placed = false;
    int64_t now_us = clock_mono_us();
    call->wants_room = false;
    snapshot_begin(config->reader);
    const struct topology *topology = snapshot_get(config->topologies);
    if (topology && call->request.target == CALL_READ)
        placed = enter_any(call, topology, now_us);
    else if (topology && call->request.target == CALL_PRIMARY)
        placed = enter_primary(call, topology, now_us);
    else if (topology)
        placed = enter_for_writing(call, topology);
    snapshot_end(config->reader);
    if (!placed)
        call_park(call);
}

void calls_dispatch_parked(struct calls *calls)
{
    struct call_list list;
    struct call *call;
    TAILQ_INIT(&list);
    TAILQ_CONCAT(&list, &calls->parked, place_link);
    while ((call = TAILQ_FIRST(&list))) {
        TAILQ_REMOVE(&list, call, place_link);
        call_dispatch(call);
    }
}

void on_calls_pause_over(evutil_socket_t fd, short what, void *arg)
{
    struct calls *calls = arg;
    struct call_list list;
    struct call *call;
    int64_t now_us = clock_mono_us();
    int64_t next_us = INT64_MAX;
    (void)fd;
    (void)what;
    TAILQ_INIT(&list);
    TAILQ_CONCAT(&list, &calls->paused, place_link);
    while ((call = TAILQ_FIRST(&list))) {
        TAILQ_REMOVE(&list, call, place_link);
        if (call->again_us <= now_us)
            call_dispatch(call);
        else
            TAILQ_INSERT_TAIL(&calls->paused, call, place_link);
    }
    TAILQ_FOREACH (call, &calls->paused, place_link) {
        if (call->again_us < next_us)
            next_us = call->again_us;
    }
    if (next_us != INT64_MAX)
        pause_arm(calls, next_us - now_us);
}
