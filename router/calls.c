/*
 * Calls and the pools they go through. See calls.h.
 *
 * A call is in exactly one place: parked, waiting in a pool, or in flight on a connection. One that
 * missed its deadline in flight is answered, and stays until its reply lets it go.
 *
 * A pool that the map no longer asks for is retired: it takes no new calls and closes when those it
 * has are done. The map may change inside the callback of any call, so a pool's memory goes by way
 * of the reap list.
 *
 * SPDX-License-Identifier: MIT
 */
#include "router/calls.h"

#include <assert.h>
#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/reap.h"
#include "base/settings.h"
#include "base/snapshot.h"
#include "router/pgconn.h"
#include "router/topology.h"

#define TICK_US 20000

enum call_place { CALL_PARKED, CALL_WAITING, CALL_IN_FLIGHT };

struct call {
    TAILQ_ENTRY(call) all;        /* calls->all */
    TAILQ_ENTRY(call) place_link; /* calls->parked or pool->waiting */
    struct calls *calls;
    struct pool *pool; /* CALL_WAITING, CALL_IN_FLIGHT */
    enum call_place place;
    struct call_request request;
    int64_t deadline_us;
    bool sent;     /* at least once */
    bool answered; /* fn has run */
    call_fn *fn;
    void *arg;
};

TAILQ_HEAD(call_list, call);
TAILQ_HEAD(pool_list, pool);

struct pool {
    TAILQ_ENTRY(pool) link;
    struct calls *calls;
    char shard[SHARDMAP_NAME_MAX + 1];
    char node[SHARDMAP_NAME_MAX + 1];
    char *dsn;
    enum pgconn_use use;
    struct pgconn **conns;
    size_t conn_count;
    struct call_list waiting;
    size_t waiting_count;
    size_t in_flight; /* calls on its connections */
    bool wanted;      /* during calls_sync_map: named by the new map */
    bool retired;     /* in calls->retired */
    bool closed;      /* in no list; only the memory is left */
    struct metrics_series *duration[STATEMENT_COUNT][2]; /* ok, error */
};

struct calls {
    const struct router_config *config;
    struct pool_list pools;
    struct pool_list retired;
    struct call_list all; /* accepted and not yet freed */
    struct call_list parked;
    size_t count;
    unsigned turn; /* spreads reads over replicas */
    struct event *tick;
    bool closing;
};

static void dispatch(struct call *call);
static void serve_waiting(struct pool *pool);

/* --- pools ------------------------------------------------------------------------------------ */

static void on_pool_ready(void *arg);
static void on_pool_lost(void *arg, const char *reason);

static struct pool *pool_find(const struct calls *calls, const char *node, enum pgconn_use use)
{
    struct pool *pool;
    TAILQ_FOREACH (pool, &calls->pools, link) {
        if (pool->use == use && strcmp(pool->node, node) == 0)
            return pool;
    }
    return NULL;
}

static void pool_destroy(void *object)
{
    struct pool *pool = object;
    free(pool->conns);
    free(pool->dsn);
    free(pool);
}

static void park(struct call *call)
{
    call->place = CALL_PARKED;
    call->pool = NULL;
    TAILQ_INSERT_TAIL(&call->calls->parked, call, place_link);
}

/* Those who wait in the pool choose anew. */
static void park_waiting(struct pool *pool)
{
    struct call *call;
    while ((call = TAILQ_FIRST(&pool->waiting))) {
        TAILQ_REMOVE(&pool->waiting, call, place_link);
        pool->waiting_count--;
        park(call);
    }
}

/* Gives up the connections: what is in flight on them comes back lost. */
static void pool_close(struct pool *pool)
{
    struct calls *calls = pool->calls;
    size_t count = pool->conn_count;
    if (pool->closed)
        return;
    pool->closed = true;
    pool->conn_count = 0; /* none to pick any more */
    TAILQ_REMOVE(pool->retired ? &calls->retired : &calls->pools, pool, link);
    park_waiting(pool);
    for (size_t i = 0; i < count; i++)
        pgconn_free(pool->conns[i]);
    reap(calls->config->reap, pool, pool_destroy);
}

static void close_if_drained(struct pool *pool)
{
    if (pool->retired && pool->in_flight == 0 && pool->waiting_count == 0)
        pool_close(pool);
}

static void pool_retire(struct pool *pool)
{
    TAILQ_REMOVE(&pool->calls->pools, pool, link);
    TAILQ_INSERT_TAIL(&pool->calls->retired, pool, link);
    pool->retired = true;
    close_if_drained(pool);
}

static struct pool *pool_new(struct calls *calls, const char *shard,
                             const struct shardmap_node *node, enum pgconn_use use)
{
    struct pool *pool = calloc(1, sizeof(*pool));
    if (!pool)
        return NULL;
    size_t wanted = use == PGCONN_READ ? (size_t)calls->config->settings->reads.connections : 1;
    pool->calls = calls;
    pool->use = use;
    TAILQ_INIT(&pool->waiting);
    TAILQ_INSERT_TAIL(&calls->pools, pool, link);
    snprintf(pool->shard, sizeof(pool->shard), "%s", shard);
    snprintf(pool->node, sizeof(pool->node), "%s", node->name);
    pool->dsn = strdup(node->dsn);
    pool->conns = calloc(wanted, sizeof(struct pgconn *));
    if (!pool->dsn || !pool->conns)
        goto fail;
    for (size_t i = 0; i < wanted; i++) {
        pool->conns[i] = pgconn_new(&(struct pgconn_config){.base = calls->config->base,
                                                            .reap = calls->config->reap,
                                                            .metrics = calls->config->metrics,
                                                            .settings = calls->config->settings,
                                                            .shard = pool->shard,
                                                            .node = pool->node,
                                                            .dsn = pool->dsn,
                                                            .use = use,
                                                            .on_ready = on_pool_ready,
                                                            .on_lost = on_pool_lost,
                                                            .arg = pool});
        if (!pool->conns[i])
            goto fail;
        pool->conn_count++;
    }
    return pool;
fail:
    pool_close(pool);
    return NULL;
}

/* The ready connection with the fewest statements in flight, or NULL if none is ready. */
static struct pgconn *pool_pick(const struct pool *pool)
{
    struct pgconn *best = NULL;
    for (size_t i = 0; i < pool->conn_count; i++) {
        struct pgconn *conn = pool->conns[i];
        if (pgconn_is_ready(conn) && (!best || pgconn_in_flight(conn) < pgconn_in_flight(best)))
            best = conn;
    }
    return best;
}

/* True if a call can go out on the connection now. */
static bool conn_has_room(const struct pool *pool, const struct pgconn *conn)
{
    return conn &&
           pgconn_in_flight(conn) < (size_t)pool->calls->config->settings->reads.pipeline_max;
}

static bool pool_has_room(const struct pool *pool)
{
    return pool->waiting_count < (size_t)pool->calls->config->settings->reads.queue_max;
}

/* --- one call --------------------------------------------------------------------------------- */

static void answer(struct call *call, enum sg_error error, const PGresult *result)
{
    struct call_reply reply = {.error = error, .result = result, .route = &call->request.route};
    assert(!call->answered);
    call->answered = true;
    call->fn(call->arg, &reply);
}

/* The call is in no list but `all`. */
static void call_free(struct call *call)
{
    struct calls *calls = call->calls;
    TAILQ_REMOVE(&calls->all, call, all);
    calls->count--;
    params_done(call->request.params);
    free(call->request.params);
    free(call);
}

static void observe(struct pool *pool, enum statement statement, bool ok, int64_t duration_us)
{
    struct metrics_series **series = &pool->duration[statement][ok];
    if (!*series) {
        const char *labels[] = {statement_info(statement)->name, pool->node, ok ? "ok" : "error"};
        *series = metrics_series(pool->calls->config->metrics, METRIC_QUERY_DURATION, labels);
    }
    metrics_observe_us(*series, duration_us);
}

/* What a call is told that will get no answer. */
static enum sg_error missed(const struct call *call)
{
    if (call->request.target == CALL_WRITE && call->sent)
        return SG_OUTCOME_UNKNOWN;
    return call->place == CALL_PARKED ? SG_SHARD_UNAVAILABLE : SG_DEADLINE;
}

/* The last word on a call; its deadline may have had it before. */
static void conclude(struct call *call, const struct pool *pool, const struct pgreply *reply)
{
    if (call->answered)
        return;
    if (reply->kind == PGREPLY_ROWS) {
        answer(call, SG_OK, reply->result);
    } else if (reply->kind == PGREPLY_ERROR) {
        struct log_fields fields = {.shard = pool->shard, .node = pool->node};
        log_error(&fields, "statement %s failed: %s %s",
                  statement_info(call->request.statement)->name, reply->sqlstate, reply->message);
        answer(call, SG_INTERNAL, NULL);
    } else {
        answer(call, missed(call), NULL);
    }
}

static void on_reply(void *arg, const struct pgreply *reply)
{
    struct call *call = arg;
    struct calls *calls = call->calls;
    struct pool *pool = call->pool;
    pool->in_flight--;
    call->place = CALL_PARKED; /* in no list yet */
    if (reply->kind != PGREPLY_LOST)
        observe(pool, call->request.statement, reply->kind == PGREPLY_ROWS, reply->duration_us);

    bool again = reply->kind == PGREPLY_LOST ||
                 (reply->kind == PGREPLY_ERROR && pgconn_error_is_passing(reply->sqlstate));
    if (again && calls->config->on_suspect && !calls->closing)
        calls->config->on_suspect(calls->config->on_suspect_arg, pool->node);
    if (!call->answered && again && !calls->closing) {
        park(call); /* the next tick, or a connection that becomes ready, asks again */
    } else {
        conclude(call, pool, reply);
        call_free(call);
    }
    serve_waiting(pool);
    close_if_drained(pool);
}

/* On the call's pool. False if the connection takes no more just now. */
static bool send_on(struct call *call, struct pgconn *conn)
{
    assert(call->pool);
    if (!conn_has_room(call->pool, conn) ||
        !pgconn_send(conn, call->request.statement, call->request.params, on_reply, call))
        return false;
    call->place = CALL_IN_FLIGHT;
    call->sent = true;
    call->pool->in_flight++;
    return true;
}

/* As long as there is room again, those who wait choose anew, oldest first: what they knew of the
 * node is old by now. Those of a retired pool end on the map they began with. */
static void serve_waiting(struct pool *pool)
{
    struct call *call;
    while ((call = TAILQ_FIRST(&pool->waiting)) && conn_has_room(pool, pool_pick(pool))) {
        TAILQ_REMOVE(&pool->waiting, call, place_link);
        pool->waiting_count--;
        if (!pool->retired || !send_on(call, pool_pick(pool)))
            dispatch(call);
    }
}

/* Sends on the pool, or waits in it. False if neither is possible. */
static bool enter_pool(struct call *call, struct pool *pool, int64_t staleness_us)
{
    struct pgconn *conn = pool ? pool_pick(pool) : NULL;
    if (!conn)
        return false;
    struct route *route = &call->request.route;
    memcpy(route->node, pool->node, sizeof(route->node)); /* arrays of one size */
    route->staleness_us = staleness_us;
    call->pool = pool;
    if (send_on(call, conn))
        return true;
    if (!pool_has_room(pool))
        return false;
    call->place = CALL_WAITING;
    pool->waiting_count++;
    TAILQ_INSERT_TAIL(&pool->waiting, call, place_link);
    return true;
}

/* Write pools are few: one is made when a node is first written to. Inside a read section. */
static struct pool *write_pool(struct calls *calls, const struct topology_node *node)
{
    struct pool *pool = pool_find(calls, node->name, PGCONN_WRITE);
    const struct shardmap *map = snapshot_get(calls->config->maps);
    int index = map ? shardmap_shard_by_name(map, node->shard) : -1;
    if (pool || index < 0)
        return pool;
    const struct shardmap_shard *shard = shardmap_shard(map, index);
    for (size_t i = 0; i < shard->node_count; i++) {
        if (strcmp(shard->nodes[i].name, node->name) == 0)
            return pool_new(calls, shard->name, &shard->nodes[i], PGCONN_WRITE);
    }
    return NULL;
}

static bool enter_primary(struct call *call, const struct topology *topology, enum pgconn_use use)
{
    const struct topology_node *node = route_write(topology, call->request.route.shard);
    if (!node)
        return false;
    struct pool *pool = use == PGCONN_WRITE ? write_pool(call->calls, node)
                                            : pool_find(call->calls, node->name, PGCONN_READ);
    return enter_pool(call, pool, 0);
}

static bool enter_replica(struct call *call, const struct topology *topology,
                          int64_t max_staleness_us)
{
    struct calls *calls = call->calls;
    const struct topology_node *first = NULL;
    const struct read_token *token = call->request.token.lsn ? &call->request.token : NULL;
    int64_t now_us = clock_mono_us();
    for (;;) {
        const struct topology_node *node = route_read(
            topology, call->request.route.shard, max_staleness_us, token, now_us, calls->turn++);
        if (!node || node == first)
            return false; /* all of them were tried */
        if (!first)
            first = node;
        if (enter_pool(call, pool_find(calls, node->name, PGCONN_READ),
                       topology_staleness_us(node, now_us)))
            return true;
    }
}

static bool enter_any(struct call *call, const struct topology *topology)
{
    return enter_replica(call, topology, call->request.max_staleness_us) ||
           enter_primary(call, topology, PGCONN_READ) ||
           (!call->request.strict && enter_replica(call, topology, STALENESS_ANY));
}

/* Puts a call that is in no place into one. */
static void dispatch(struct call *call)
{
    const struct router_config *config = call->calls->config;
    bool placed = false;
    snapshot_begin(config->reader);
    const struct topology *topology = snapshot_get(config->topologies);
    if (topology) {
        if (call->request.target == CALL_READ)
            placed = enter_any(call, topology);
        else
            placed = enter_primary(call, topology,
                                   call->request.target == CALL_WRITE ? PGCONN_WRITE : PGCONN_READ);
    }
    snapshot_end(config->reader);
    if (!placed)
        park(call);
}

static void dispatch_parked(struct calls *calls)
{
    struct call_list list;
    struct call *call;
    TAILQ_INIT(&list);
    TAILQ_CONCAT(&list, &calls->parked, place_link);
    while ((call = TAILQ_FIRST(&list))) {
        TAILQ_REMOVE(&list, call, place_link);
        dispatch(call);
    }
}

static void on_pool_ready(void *arg)
{
    struct pool *pool = arg;
    serve_waiting(pool);
    dispatch_parked(pool->calls);
}

static void on_pool_lost(void *arg, const char *reason)
{
    struct pool *pool = arg;
    (void)reason;
    if (pool_pick(pool))
        serve_waiting(pool);
    else
        park_waiting(pool); /* nobody left to serve them */
    close_if_drained(pool);
}

/* --- deadlines -------------------------------------------------------------------------------- */

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    struct calls *calls = arg;
    struct call *call;
    struct call *next;
    int64_t now_us = clock_mono_us();
    (void)fd;
    (void)what;
    for (call = TAILQ_FIRST(&calls->all); call; call = next) {
        next = TAILQ_NEXT(call, all);
        if (call->answered || now_us < call->deadline_us)
            continue;
        enum sg_error error = missed(call);
        if (call->place == CALL_PARKED) {
            TAILQ_REMOVE(&calls->parked, call, place_link);
        } else if (call->place == CALL_WAITING) {
            TAILQ_REMOVE(&call->pool->waiting, call, place_link);
            call->pool->waiting_count--;
        }
        bool in_flight = call->place == CALL_IN_FLIGHT;
        answer(call, error, NULL);
        next = TAILQ_NEXT(call, all); /* the callback may have started calls, never ended any */
        if (!in_flight)
            call_free(call);
    }
    dispatch_parked(calls);
    if (calls->count) {
        struct timeval tv = clock_timeval_us(TICK_US);
        event_add(calls->tick, &tv);
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
    calls->tick = evtimer_new(config->base, on_tick, calls);
    if (!calls->tick) {
        free(calls);
        return NULL;
    }
    return calls;
}

void calls_free(struct calls *calls)
{
    struct pool *pool;
    struct call *call;
    if (!calls)
        return;
    calls->closing = true;
    while ((pool = TAILQ_FIRST(&calls->pools)))
        pool_close(pool);
    while ((pool = TAILQ_FIRST(&calls->retired)))
        pool_close(pool);
    while ((call = TAILQ_FIRST(&calls->all))) { /* all of them parked by now */
        TAILQ_REMOVE(&calls->parked, call, place_link);
        answer(call, missed(call), NULL);
        call_free(call);
    }
    event_free(calls->tick);
    free(calls);
}

/* Keeps the node's pool if it still fits; read pools are there from the start. */
static void want_pool(struct calls *calls, const char *shard, const struct shardmap_node *node,
                      enum pgconn_use use)
{
    struct pool *pool = pool_find(calls, node->name, use);
    if (pool && (strcmp(pool->dsn, node->dsn) != 0 || strcmp(pool->shard, shard) != 0)) {
        pool_retire(pool);
        pool = NULL;
    }
    if (!pool && use == PGCONN_READ)
        pool = pool_new(calls, shard, node, use);
    if (pool)
        pool->wanted = true;
}

void calls_sync_map(struct calls *calls, const struct shardmap *map)
{
    struct pool *pool;
    struct pool *next;
    TAILQ_FOREACH (pool, &calls->pools, link)
        pool->wanted = false;
    for (size_t i = 0; i < shardmap_shard_count(map); i++) {
        const struct shardmap_shard *shard = shardmap_shard(map, (int)i);
        for (size_t j = 0; j < shard->node_count; j++) {
            want_pool(calls, shard->name, &shard->nodes[j], PGCONN_READ);
            want_pool(calls, shard->name, &shard->nodes[j], PGCONN_WRITE);
        }
    }
    for (pool = TAILQ_FIRST(&calls->pools); pool; pool = next) {
        next = TAILQ_NEXT(pool, link);
        if (!pool->wanted)
            pool_retire(pool);
    }
}

size_t calls_in_flight(const struct calls *calls)
{
    return calls->count;
}

enum sg_error call_start(struct calls *calls, struct call_request *request, call_fn *fn, void *arg)
{
    struct call *call = NULL;
    enum sg_error error = SG_OK;
    if (!params_ok(request->params))
        error = SG_NO_MEMORY;
    else if (calls->count >= (size_t)calls->config->settings->reads.queue_max)
        error = SG_OVERLOADED;
    else if (!(call = calloc(1, sizeof(*call))))
        error = SG_NO_MEMORY;
    if (error != SG_OK) {
        params_done(request->params);
        free(request->params);
        return error;
    }
    call->calls = calls;
    call->request = *request;
    call->request.route.staleness_us = STALENESS_UNKNOWN;
    call->deadline_us = clock_mono_us() + request->deadline_ms * 1000;
    call->fn = fn;
    call->arg = arg;
    TAILQ_INSERT_TAIL(&calls->all, call, all);
    if (calls->count++ == 0) {
        struct timeval tv = clock_timeval_us(TICK_US);
        event_add(calls->tick, &tv);
    }
    dispatch(call);
    return SG_OK;
}
