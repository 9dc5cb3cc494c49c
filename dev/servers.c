/*
 * The servers of a local cluster taken together. See servers.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "dev/servers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "dev/etcd.h"
#include "dev/folders.h"
#include "dev/patroni.h"
#include "dev/postgres.h"
#include "dev/programs.h"
#include "dev/rabbitmq.h"
#include "dev/redis.h"
#include "dev/roles.h"

#define LOCK_MS 120000 /* another command may be copying a primary */
#define LOCK_POLL_MS 20

struct cluster *servers_new(const struct cluster_options *options)
{
    struct cluster *cluster = calloc(1, sizeof(*cluster));
    if (!cluster) {
        fprintf(stderr, "seatgrid: out of memory\n");
        exit(1);
    }
    cluster->options = *options;
    cluster->lock_fd = -1;
    return cluster;
}

void servers_free(struct cluster *cluster)
{
    folders_unlock(cluster);
    free(cluster);
}

struct cluster *servers_of(const char *var)
{
    struct cluster_options options = {.var = var,
                                      .port_base = CLUSTER_UNSET,
                                      .http_port = CLUSTER_UNSET,
                                      .admin_port = CLUSTER_UNSET,
                                      .replicas = CLUSTER_UNSET,
                                      .sync = CLUSTER_UNSET,
                                      .ha = CLUSTER_UNSET,
                                      .queue = CLUSTER_UNSET};
    return servers_new(&options);
}

enum sg_error servers_finish(struct cluster *cluster, enum sg_error error)
{
    if (error && cluster->problem[0])
        fprintf(stderr, "seatgrid: %s\n", cluster->problem);
    servers_free(cluster);
    return error;
}

void servers_inspect(struct cluster *cluster)
{
    for (size_t i = 0; i < cluster->node_count; i++)
        postgres_inspect(cluster, &cluster->nodes[i]);
    redis_inspect(cluster);
    program_inspect(cluster, &cluster->serve);
    program_inspect(cluster, &cluster->cdc);
    program_inspect(cluster, &cluster->mockpay);
    if (cluster->options.queue == 1) {
        rabbitmq_inspect(cluster);
        program_inspect(cluster, &cluster->worker);
    }
    if (cluster->options.ha != 1)
        return;
    etcd_inspect(cluster);
    for (size_t i = 0; i < cluster->node_count; i++)
        patroni_inspect(cluster, i);
}

size_t servers_count_running(const struct cluster *cluster)
{
    size_t running = (cluster->redis.id.pid != 0) + (cluster->serve.id.pid != 0) +
                     (cluster->cdc.id.pid != 0) + (cluster->mockpay.id.pid != 0);
    for (size_t i = 0; i < cluster->node_count; i++)
        running += (cluster->nodes[i].id.pid != 0) + (cluster->patroni[i].id.pid != 0);
    running += (cluster->rabbitmq.id.pid != 0) + (cluster->worker.id.pid != 0);
    return running + (cluster->etcd.id.pid != 0);
}

bool servers_started_here(const struct cluster *cluster)
{
    bool some =
        cluster->serve.started_here || cluster->cdc.started_here || cluster->redis.started_here;
    for (size_t i = 0; i < cluster->node_count; i++)
        some |= cluster->nodes[i].started_here || cluster->patroni[i].started_here;
    some |= cluster->rabbitmq.started_here || cluster->worker.started_here ||
            cluster->mockpay.started_here;
    return some || cluster->etcd.started_here;
}

/* What is there, what runs, and as what. */
static void look(struct cluster *cluster)
{
    layout_scan(cluster);
    servers_inspect(cluster);
    roles_learn(cluster);
}

enum sg_error servers_open(struct cluster *cluster, bool lock)
{
    enum sg_error error = folders_open(cluster, false);
    if (!error && lock)
        error = folders_lock(cluster);
    if (!error)
        error = folders_servers(cluster, false);
    if (error)
        return error;
    layout_complete_options(cluster);
    look(cluster);
    return SG_OK;
}

enum sg_error servers_lock(struct cluster *cluster)
{
    int64_t deadline_us = clock_mono_us() + LOCK_MS * 1000;
    enum sg_error error;
    while ((error = folders_lock(cluster)) == SG_RELOAD_BUSY && clock_mono_us() < deadline_us) {
        if (process_interrupted())
            return cluster_fail(cluster, "interrupted");
        process_sleep_ms(LOCK_POLL_MS);
    }
    if (error)
        return error;
    cluster->problem[0] = '\0';
    look(cluster);
    return SG_OK;
}

struct server *servers_find(struct cluster *cluster, const char *name)
{
    for (size_t i = 0; i < cluster->node_count; i++) {
        if (strcmp(cluster->nodes[i].name, name) == 0)
            return &cluster->nodes[i];
        if (cluster->options.ha == 1 && strcmp(cluster->patroni[i].name, name) == 0)
            return &cluster->patroni[i];
    }
    if (cluster->options.ha == 1 && strcmp(name, "etcd") == 0)
        return &cluster->etcd;
    if (strcmp(name, "redis") == 0)
        return &cluster->redis;
    if (strcmp(name, "serve") == 0)
        return &cluster->serve;
    if (strcmp(name, "cdc") == 0)
        return &cluster->cdc;
    if (strcmp(name, "mockpay") == 0)
        return &cluster->mockpay;
    if (cluster->options.queue == 1 && strcmp(name, "rabbitmq") == 0)
        return &cluster->rabbitmq;
    if (cluster->options.queue == 1 && strcmp(name, "worker") == 0)
        return &cluster->worker;
    cluster_fail(cluster, "%s has no server \"%s\"; `seatgrid dev status` lists them", cluster->var,
                 name);
    return NULL;
}

struct server *servers_find_node(struct cluster *cluster, const char *name)
{
    struct server *server = servers_find(cluster, name);
    if (!server || server->shard[0])
        return server;
    cluster_fail(cluster, "%s is no PostgreSQL server", name);
    return NULL;
}

static bool stop_node(struct cluster *cluster, size_t index)
{
    struct server *node = &cluster->nodes[index];
    bool stopped =
        cluster->options.ha == 1 ? patroni_stop(cluster, index) : postgres_stop(cluster, node);
    cluster_say(node->name, stopped ? "stopped (%s)" : "does not stop (%s)",
                roles_name(node->role));
    return stopped;
}

static bool is_to_stop(const struct server *server, bool own_only)
{
    return server->id.pid && (!own_only || server->started_here);
}

/* Replicas before primaries, so that none of them sees its primary go. */
static bool stop_nodes(struct cluster *cluster, bool own_only)
{
    bool all = true;
    for (int standbys = 1; standbys >= 0; standbys--) {
        for (size_t i = 0; i < cluster->node_count; i++) {
            if ((is_to_stop(&cluster->nodes[i], own_only) ||
                 is_to_stop(&cluster->patroni[i], own_only)) &&
                postgres_is_standby(cluster, &cluster->nodes[i]) == (standbys == 1))
                all &= stop_node(cluster, i);
        }
    }
    return all;
}

bool servers_stop(struct cluster *cluster, bool own_only)
{
    bool all = true;
    servers_inspect(cluster);
    struct server *const programs[] = {&cluster->serve, &cluster->worker, &cluster->mockpay,
                                       &cluster->cdc};
    for (size_t i = 0; i < 4; i++) {
        if (!is_to_stop(programs[i], own_only))
            continue;
        bool stopped = program_stop(cluster, programs[i]);
        cluster_say(programs[i]->name, stopped ? "stopped" : "does not stop");
        all &= stopped;
    }
    all &= stop_nodes(cluster, own_only);
    if (is_to_stop(&cluster->redis, own_only)) {
        all &= redis_stop(cluster);
        cluster_say("redis", "stopped");
    }
    if (is_to_stop(&cluster->rabbitmq, own_only)) {
        all &= rabbitmq_stop(cluster);
        cluster_say("rabbitmq", "stopped");
    }
    if (is_to_stop(&cluster->etcd, own_only)) {
        all &= etcd_stop(cluster);
        cluster_say("etcd", "stopped");
    }
    return all;
}
