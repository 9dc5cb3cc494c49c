/*
 * A local cluster that exists: down, destroy, status, one server at a time. See cluster.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/dynbuf.h"
#include "dev/cluster.h"
#include "dev/folders.h"
#include "dev/postgres.h"
#include "dev/programs.h"
#include "dev/redis.h"
#include "dev/servers.h"

enum sg_error cluster_down(const char *var)
{
    struct cluster *cluster = servers_of(var);
    process_catch_signals();
    enum sg_error error = servers_open(cluster, true);
    if (error == SG_NOT_FOUND || (!error && servers_count_running(cluster) == 0)) {
        printf("Nothing runs in %s.\n", var);
        return servers_finish(cluster, SG_OK);
    }
    if (!error && !servers_stop(cluster, false))
        error = cluster_fail(cluster, "not everything could be stopped");
    return servers_finish(cluster, error);
}

enum sg_error cluster_destroy(const char *var)
{
    struct cluster *cluster = servers_of(var);
    process_catch_signals();
    enum sg_error error = folders_open(cluster, false);
    if (!error && access(cluster->var, W_OK) == 0) {
        char run[CLUSTER_PATH_MAX];
        if (access(cluster_path(run, "%s/run", cluster->var), F_OK) != 0)
            error = SG_NOT_FOUND;
    }
    if (!error)
        error = servers_open(cluster, true);
    if (error == SG_NOT_FOUND && cluster->lock_fd < 0) {
        printf("Nothing to remove in %s.\n", var);
        return servers_finish(cluster, SG_OK);
    }
    if (error && error != SG_NOT_FOUND)
        return servers_finish(cluster, error);
    if (!error && !servers_stop(cluster, false))
        return servers_finish(cluster, cluster_fail(cluster, "not everything could be stopped"));
    error = folders_destroy(cluster);
    if (!error)
        printf("Removed the cluster in %s.\n", var);
    return servers_finish(cluster, error);
}

static void add_status(struct dynbuf *out, bool json, const struct server *server, const char *role)
{
    if (json) {
        dynbuf_addf(out,
                    "%s{\"name\":\"%s\",\"role\":\"%s\",\"shard\":\"%s\",\"port\":%d,\"pid\":%d}",
                    out->len && out->data[out->len - 1] == '}' ? "," : "", server->name, role,
                    server->shard, server->port, (int)server->id.pid);
        return;
    }
    char pid[32] = "does not run";
    if (server->id.pid)
        snprintf(pid, sizeof(pid), "pid %d", (int)server->id.pid);
    dynbuf_addf(out, "%-12s %-8s 127.0.0.1:%-6d %s\n", server->name, role, server->port, pid);
}

enum sg_error cluster_status(const char *var, bool json)
{
    struct cluster *cluster = servers_of(var);
    struct dynbuf out;
    enum sg_error error = servers_open(cluster, false);
    if (error)
        return servers_finish(cluster, error);
    dynbuf_init(&out, 1 << 16);
    if (json)
        dynbuf_adds(&out, "{\"servers\":[");
    for (size_t i = 0; i < cluster->node_count; i++) {
        struct server *node = &cluster->nodes[i];
        bool standby = postgres_is_standby(cluster, node);
        add_status(&out, json, node, standby ? "replica" : "primary");
    }
    add_status(&out, json, &cluster->redis, "redis");
    add_status(&out, json, &cluster->serve, "api");
    add_status(&out, json, &cluster->cdc, "cdc");
    if (json)
        dynbuf_adds(&out, "]}\n");
    fputs(dynbuf_text(&out), stdout);
    dynbuf_done(&out);
    bool all = servers_count_running(cluster) == cluster->node_count + 3;
    servers_free(cluster);
    return all ? SG_OK : SG_NOT_FOUND;
}

static struct server *find_server(struct cluster *cluster, const char *name)
{
    for (size_t i = 0; i < cluster->node_count; i++) {
        if (strcmp(cluster->nodes[i].name, name) == 0)
            return &cluster->nodes[i];
    }
    if (strcmp(name, "redis") == 0)
        return &cluster->redis;
    if (strcmp(name, "serve") == 0)
        return &cluster->serve;
    if (strcmp(name, "cdc") == 0)
        return &cluster->cdc;
    cluster_fail(cluster, "%s has no server \"%s\"; `seatgrid dev status` lists them", cluster->var,
                 name);
    return NULL;
}

static enum sg_error start_server(struct cluster *cluster, struct server *server)
{
    if (server == &cluster->redis)
        return redis_start(cluster);
    if (server == &cluster->serve || server == &cluster->cdc)
        return program_start(cluster, server);
    if (!server->port)
        return cluster_fail(cluster, "%s has no port with --replicas %d", server->name,
                            cluster->options.replicas);
    enum sg_error error = postgres_start(cluster, server);
    return error ? error : postgres_wait_ready(cluster, server);
}

static bool stop_server(struct cluster *cluster, struct server *server)
{
    if (server == &cluster->redis)
        return redis_stop(cluster);
    if (server == &cluster->serve || server == &cluster->cdc)
        return program_stop(cluster, server);
    return postgres_stop(cluster, server);
}

enum sg_error cluster_start_one(const char *var, const char *name)
{
    struct cluster *cluster = servers_of(var);
    process_catch_signals();
    enum sg_error error = servers_open(cluster, true);
    struct server *server = error ? NULL : find_server(cluster, name);
    if (!server)
        return servers_finish(cluster, SG_IO);
    if (server->id.pid) {
        cluster_say(name, "runs already");
        return servers_finish(cluster, SG_OK);
    }
    error = start_server(cluster, server);
    if (!error)
        cluster_say(name, "on 127.0.0.1:%d", server->port);
    else if (server->started_here)
        stop_server(cluster, server);
    return servers_finish(cluster, error);
}

enum sg_error cluster_stop_one(const char *var, const char *name)
{
    struct cluster *cluster = servers_of(var);
    process_catch_signals();
    enum sg_error error = servers_open(cluster, true);
    struct server *server = error ? NULL : find_server(cluster, name);
    if (!server)
        return servers_finish(cluster, SG_IO);
    if (!stop_server(cluster, server))
        error = cluster_fail(cluster, "%s does not stop", name);
    else
        cluster_say(name, "stopped");
    return servers_finish(cluster, error);
}
