/*
 * One server of the local cluster at a time: start, stop, pause, resume, kill. See cluster.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include <signal.h>
#include <string.h>

#include "base/clock.h"
#include "dev/cluster.h"
#include "dev/etcd.h"
#include "dev/folders.h"
#include "dev/patroni.h"
#include "dev/postgres.h"
#include "dev/programs.h"
#include "dev/rabbitmq.h"
#include "dev/redis.h"
#include "dev/roles.h"
#include "dev/servers.h"

#define DEATH_MS 10000
#define POLL_MS 5

/* --- start and stop --------------------------------------------------------------------------- */

/* A second primary would take writes that nobody keeps. */
static enum sg_error refuse_old_primary(struct cluster *cluster, const struct server *node)
{
    const struct server *primary = roles_primary(cluster, node->shard);
    if (node->role == ROLE_HALF_REWOUND)
        return cluster_fail(cluster,
                            "%s: a rejoin of it was cut short, its data is of no use; `seatgrid "
                            "dev rejoin %s` mends it",
                            node->name, node->name);
    if (node->role != ROLE_OLD_PRIMARY)
        return SG_OK;
    return cluster_fail(cluster,
                        "%s was the primary of shard %s; %s has been promoted since; `seatgrid "
                        "dev rejoin %s` makes it a replica (--force starts it as it is)",
                        node->name, node->shard, primary ? primary->name : "another", node->name);
}

/* Under Patroni a node is started and stopped through its Patroni. -1: not a node, or none under
 * Patroni. */
static int patroni_index(const struct cluster *cluster, const struct server *server)
{
    for (size_t i = 0; i < cluster->node_count && cluster->options.ha == 1; i++) {
        if (server == &cluster->nodes[i] || server == &cluster->patroni[i])
            return (int)i;
    }
    return -1;
}

static enum sg_error start_under_patroni(struct cluster *cluster, size_t index)
{
    enum sg_error error = SG_OK;
    if (!cluster->patroni[index].id.pid)
        error = patroni_start(cluster, index);
    return error ? error : patroni_wait_node(cluster, index);
}

static enum sg_error start_node(struct cluster *cluster, struct server *node, bool force)
{
    if (!node->port)
        return cluster_fail(cluster, "%s has no port with --replicas %d", node->name,
                            cluster->options.replicas);
    enum sg_error error = force ? SG_OK : refuse_old_primary(cluster, node);
    if (!error)
        error = postgres_start(cluster, node);
    return error ? error : postgres_wait_ready(cluster, node);
}

static enum sg_error start_rabbitmq(struct cluster *cluster)
{
    enum sg_error error = rabbitmq_begin(cluster);
    return error ? error : rabbitmq_wait(cluster);
}

static bool is_program(const struct cluster *cluster, const struct server *server)
{
    return server == &cluster->serve || server == &cluster->cdc || server == &cluster->worker ||
           server == &cluster->mockpay;
}

static enum sg_error start_server(struct cluster *cluster, struct server *server, bool force)
{
    int patroni = patroni_index(cluster, server);
    if (server->id.pid)
        return SG_OK;
    if (patroni >= 0)
        return start_under_patroni(cluster, (size_t)patroni);
    if (server == &cluster->redis)
        return redis_start(cluster);
    if (server == &cluster->etcd)
        return etcd_start(cluster);
    if (server == &cluster->rabbitmq)
        return start_rabbitmq(cluster);
    if (is_program(cluster, server))
        return program_start(cluster, server);
    return start_node(cluster, server, force);
}

static bool stop_server(struct cluster *cluster, struct server *server)
{
    int patroni = patroni_index(cluster, server);
    if (patroni >= 0)
        return patroni_stop(cluster, (size_t)patroni);
    if (server == &cluster->redis)
        return redis_stop(cluster);
    if (server == &cluster->etcd)
        return etcd_stop(cluster);
    if (server == &cluster->rabbitmq)
        return rabbitmq_stop(cluster);
    if (is_program(cluster, server))
        return program_stop(cluster, server);
    return postgres_stop(cluster, server);
}

enum sg_error cluster_start_one(struct cluster *cluster, const char *name, bool force)
{
    enum sg_error error = servers_lock(cluster);
    if (error)
        return error;
    struct server *server = servers_find(cluster, name);
    error = server ? start_server(cluster, server, force) : SG_IO;
    if (error && server && server->started_here)
        stop_server(cluster, server);
    folders_unlock(cluster);
    return error;
}

enum sg_error cluster_stop_one(struct cluster *cluster, const char *name)
{
    enum sg_error error = servers_lock(cluster);
    if (error)
        return error;
    struct server *server = servers_find(cluster, name);
    if (!server)
        error = SG_IO;
    else if (!stop_server(cluster, server))
        error = cluster_fail(cluster, "%s does not stop", name);
    folders_unlock(cluster);
    return error;
}

/* --- faults: without the lock, at once -------------------------------------------------------- */

/* NULL, with cluster->problem, if it does not. */
static struct server *find_running(struct cluster *cluster, const char *name)
{
    servers_inspect(cluster);
    struct server *server = servers_find(cluster, name);
    if (!server || server->id.pid)
        return server;
    cluster_fail(cluster, "%s does not run", name);
    return NULL;
}

/* The main process first: it starts no others any more. */
static void send_signal(struct cluster *cluster, struct server *server, int number)
{
    kill(server->id.pid, number);
    if (server->shard[0])
        postgres_signal_all(cluster, server, number);
}

enum sg_error cluster_pause_one(struct cluster *cluster, const char *name)
{
    struct server *server = find_running(cluster, name);
    if (!server)
        return SG_IO;
    send_signal(cluster, server, SIGSTOP);
    return SG_OK;
}

enum sg_error cluster_resume_one(struct cluster *cluster, const char *name)
{
    struct server *server = find_running(cluster, name);
    if (!server)
        return SG_IO;
    send_signal(cluster, server, SIGCONT);
    return SG_OK;
}

enum sg_error cluster_kill_one(struct cluster *cluster, const char *name)
{
    struct server *server = find_running(cluster, name);
    if (!server)
        return SG_IO;
    int64_t deadline_us = clock_mono_us() + DEATH_MS * 1000;
    send_signal(cluster, server, SIGKILL);
    while (process_alive(&server->id) ||
           (server->shard[0] && postgres_signal_all(cluster, server, SIGKILL) > 0)) {
        if (clock_mono_us() > deadline_us)
            return cluster_fail(cluster, "%s does not die", name);
        process_reap();
        process_sleep_ms(POLL_MS);
    }
    return SG_OK;
}
