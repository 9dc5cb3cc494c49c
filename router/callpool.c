/*
 * Connections to one node. See callpool.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "router/callpool.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/metrics.h"
#include "base/reap.h"
#include "base/settings.h"

static void destroy(void *object)
{
    struct callpool *pool = object;
    free(pool->conns);
    free(pool->dsn);
    free(pool);
}

void callpool_free(struct callpool *pool)
{
    size_t count = pool->conn_count;
    assert(pool->waiting_count == 0);
    pool->closed = true;
    pool->conn_count = 0; /* none to pick any more */
    for (size_t i = 0; pool->conns && i < count; i++)
        pgconn_free(pool->conns[i]);
    reap(pool->config->reap, pool, destroy);
}

struct callpool *callpool_new(struct calls *calls, const struct router_config *config,
                              const struct shardmap_shard *shard, const struct shardmap_node *node,
                              enum pgconn_use use, void (*on_ready)(void *arg),
                              void (*on_lost)(void *arg, const char *reason))
{
    struct callpool *pool = calloc(1, sizeof(*pool));
    if (!pool)
        return NULL;
    size_t wanted = use == PGCONN_WRITE ? 1 : (size_t)config->settings->reads.connections;
    pool->calls = calls;
    pool->config = config;
    pool->use = use;
    pool->durability = shard->durability;
    TAILQ_INIT(&pool->waiting);
    snprintf(pool->shard, sizeof(pool->shard), "%s", shard->name);
    snprintf(pool->node, sizeof(pool->node), "%s", node->name);
    pool->dsn = strdup(node->dsn);
    pool->conns = calloc(wanted, sizeof(struct pgconn *));
    for (size_t i = 0; pool->dsn && pool->conns && i < wanted; i++) {
        pool->conns[i] = pgconn_new(&(struct pgconn_config){.base = config->base,
                                                            .reap = config->reap,
                                                            .metrics = config->metrics,
                                                            .settings = config->settings,
                                                            .shard = pool->shard,
                                                            .node = pool->node,
                                                            .dsn = pool->dsn,
                                                            .use = use,
                                                            .durability = pool->durability,
                                                            .on_ready = on_ready,
                                                            .on_lost = on_lost,
                                                            .arg = pool});
        if (!pool->conns[i])
            break;
        pool->conn_count++;
    }
    if (pool->conn_count == wanted)
        return pool;
    callpool_free(pool);
    return NULL;
}

void callpool_reset(struct callpool *pool, const char *reason)
{
    for (size_t i = 0; i < pool->conn_count; i++)
        pgconn_reset(pool->conns[i], reason);
}

struct pgconn *callpool_pick(const struct callpool *pool)
{
    struct pgconn *best = NULL;
    for (size_t i = 0; i < pool->conn_count; i++) {
        struct pgconn *conn = pool->conns[i];
        if (pgconn_is_ready(conn) && (!best || pgconn_in_flight(conn) < pgconn_in_flight(best)))
            best = conn;
    }
    return best;
}

bool callpool_has_room_on(const struct callpool *pool, const struct pgconn *conn)
{
    int64_t max = pool->use == PGCONN_WRITE ? 1 : pool->config->settings->reads.pipeline_max;
    return conn && pgconn_in_flight(conn) < (size_t)max;
}

bool callpool_has_room_to_wait(const struct callpool *pool)
{
    return pool->waiting_count < (size_t)pool->config->settings->reads.queue_max;
}

void callpool_observe(struct callpool *pool, enum statement statement, bool ok, int64_t duration_us)
{
    struct metrics_series **series = &pool->duration[statement][ok];
    if (!*series) {
        const char *labels[] = {statement_info(statement)->name, pool->node, ok ? "ok" : "error"};
        *series = metrics_series(pool->config->metrics, METRIC_QUERY_DURATION, labels);
    }
    metrics_observe_us(*series, duration_us);
}

void callpool_count_read(struct callpool *pool, enum read_source source)
{
    static const char *const names[] = {"replica", "primary", "fallback", "stale"};
    struct metrics_series **series = &pool->reads[source];
    if (!*series) {
        const char *labels[] = {pool->shard, names[source]};
        *series = metrics_series(pool->config->metrics, METRIC_READS, labels);
    }
    metrics_add(*series, 1);
}
