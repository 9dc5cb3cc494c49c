/*
 * The servers of a local cluster taken together. See servers.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "dev/servers.h"

#include <stdio.h>
#include <stdlib.h>

#include "dev/folders.h"
#include "dev/postgres.h"
#include "dev/programs.h"
#include "dev/redis.h"

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
                                      .replicas = CLUSTER_UNSET};
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
}

size_t servers_count_running(const struct cluster *cluster)
{
    size_t running =
        (cluster->redis.id.pid != 0) + (cluster->serve.id.pid != 0) + (cluster->cdc.id.pid != 0);
    for (size_t i = 0; i < cluster->node_count; i++)
        running += cluster->nodes[i].id.pid != 0;
    return running;
}

bool servers_started_here(const struct cluster *cluster)
{
    bool some =
        cluster->serve.started_here || cluster->cdc.started_here || cluster->redis.started_here;
    for (size_t i = 0; i < cluster->node_count; i++)
        some |= cluster->nodes[i].started_here;
    return some;
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
    layout_scan(cluster);
    servers_inspect(cluster);
    return SG_OK;
}

static bool stop_node(struct cluster *cluster, struct server *node)
{
    bool standby = postgres_is_standby(cluster, node);
    bool stopped = postgres_stop(cluster, node);
    cluster_say(node->name, stopped ? "stopped (%s)" : "does not stop (%s)",
                standby ? "replica" : "primary");
    return stopped;
}

bool servers_stop(struct cluster *cluster, bool own_only)
{
    bool all = true;
    servers_inspect(cluster);
    struct server *const programs[] = {&cluster->serve, &cluster->cdc};
    for (size_t i = 0; i < 2; i++) {
        if (!programs[i]->id.pid || (own_only && !programs[i]->started_here))
            continue;
        bool stopped = program_stop(cluster, programs[i]);
        cluster_say(programs[i]->name, stopped ? "stopped" : "does not stop");
        all &= stopped;
    }
    for (int standbys = 1; standbys >= 0; standbys--) {
        for (size_t i = 0; i < cluster->node_count; i++) {
            struct server *node = &cluster->nodes[i];
            if (node->id.pid && (!own_only || node->started_here) &&
                postgres_is_standby(cluster, node) == (standbys == 1))
                all &= stop_node(cluster, node);
        }
    }
    if (cluster->redis.id.pid && (!own_only || cluster->redis.started_here)) {
        all &= redis_stop(cluster);
        cluster_say("redis", "stopped");
    }
    return all;
}
