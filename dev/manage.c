/*
 * A local cluster that exists, as a whole: down, destroy, status. See cluster.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include <stdio.h>
#include <unistd.h>

#include "base/dynbuf.h"
#include "dev/cluster.h"
#include "dev/folders.h"
#include "dev/roles.h"
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
        snprintf(pid, sizeof(pid), "pid %d%s", (int)server->id.pid,
                 process_stopped(&server->id) ? ", frozen" : "");
    dynbuf_addf(out, "%-15s %-12s 127.0.0.1:%-6d %s\n", server->name, role, server->port, pid);
}

enum sg_error cluster_status(const char *var, bool json)
{
    struct cluster *cluster = servers_of(var);
    struct dynbuf out;
    enum sg_error error = servers_open(cluster, false);
    if (error)
        return servers_finish(cluster, error);
    bool ha = cluster->options.ha == 1;
    bool queue = cluster->options.queue == 1;
    dynbuf_init(&out, 1 << 16);
    if (json)
        dynbuf_adds(&out, "{\"servers\":[");
    for (size_t i = 0; i < cluster->node_count; i++) {
        struct server *node = &cluster->nodes[i];
        add_status(&out, json, node, roles_name(node->role));
    }
    for (size_t i = 0; i < cluster->node_count && ha; i++)
        add_status(&out, json, &cluster->patroni[i], "patroni");
    if (ha)
        add_status(&out, json, &cluster->etcd, "etcd");
    add_status(&out, json, &cluster->redis, "redis");
    add_status(&out, json, &cluster->serve, "api");
    add_status(&out, json, &cluster->cdc, "cdc");
    add_status(&out, json, &cluster->mockpay, "payment");
    if (queue) {
        add_status(&out, json, &cluster->rabbitmq, "rabbitmq");
        add_status(&out, json, &cluster->worker, "worker");
    }
    if (json)
        dynbuf_adds(&out, "]}\n");
    fputs(dynbuf_text(&out), stdout);
    dynbuf_done(&out);
    bool all = servers_count_running(cluster) ==
               cluster->node_count + 4 + (ha ? cluster->node_count + 1 : 0) + (queue ? 2 : 0);
    servers_free(cluster);
    return all ? SG_OK : SG_NOT_FOUND;
}
