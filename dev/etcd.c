/*
 * etcd of the local cluster. See etcd.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "dev/etcd.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/dynbuf.h"
#include "cli/admin_client.h"
#include "dev/process.h"

#define PROGRAM "/usr/bin/etcd"
#define READY_TIMEOUT_MS 60000
#define ASK_TIMEOUT_MS 1000
#define STOP_MS 10000

static char *pid_path(char *ret_path, const struct cluster *cluster)
{
    return cluster_path(ret_path, "%s/run/etcd.pid", cluster->var);
}

void etcd_inspect(struct cluster *cluster)
{
    char path[CLUSTER_PATH_MAX];
    cluster->etcd.id.pid = 0;
    process_file_read(pid_path(path, cluster), &cluster->etcd.id);
}

static bool is_healthy(int port)
{
    char address[64];
    char why[256];
    int status = 0;
    struct dynbuf body;
    snprintf(address, sizeof(address), "127.0.0.1:%d", port);
    dynbuf_init(&body, 1 << 16);
    bool healthy = admin_call(address, "GET", "/health", NULL, 0, ASK_TIMEOUT_MS, &status, &body,
                              why, sizeof(why)) == SG_OK &&
                   status == 200;
    dynbuf_done(&body);
    return healthy;
}

static enum sg_error wait_ready(struct cluster *cluster)
{
    struct server *etcd = &cluster->etcd;
    int64_t deadline_us = clock_mono_us() + READY_TIMEOUT_MS * 1000;
    while (!is_healthy(etcd->port)) {
        process_reap();
        if (process_interrupted())
            return cluster_fail(cluster, "interrupted");
        if (!process_alive(&etcd->id) || clock_mono_us() > deadline_us) {
            cluster_show_log(cluster, "etcd");
            return cluster_fail(cluster, "etcd did not start");
        }
        process_sleep_ms(20);
    }
    return SG_OK;
}

static enum sg_error make_folder(struct cluster *cluster, char *ret_path)
{
    cluster_path(ret_path, "%s/etcd", cluster->servers);
    if (mkdir(ret_path, 0700) != 0 && errno != EEXIST)
        return cluster_fail(cluster, "cannot make the folder %s: %m", ret_path);
    if (cluster->user.change && lchown(ret_path, cluster->user.uid, cluster->user.gid) != 0)
        return cluster_fail(cluster, "%s: cannot give it to the servers' user: %m", ret_path);
    return SG_OK;
}

enum sg_error etcd_start(struct cluster *cluster)
{
    char folder[CLUSTER_PATH_MAX];
    char log[CLUSTER_PATH_MAX];
    char pid[CLUSTER_PATH_MAX];
    char clients[64];
    char peers[64];
    char members[80];
    if (access(PROGRAM, X_OK) != 0)
        return cluster_fail(cluster, "etcd is not installed; tools/install-deps ha does it");
    enum sg_error error = make_folder(cluster, folder);
    if (error)
        return error;
    snprintf(clients, sizeof(clients), "http://127.0.0.1:%d", cluster->etcd.port);
    snprintf(peers, sizeof(peers), "http://127.0.0.1:%d", cluster->etcd.port + 1);
    snprintf(members, sizeof(members), "seatgrid=%s", peers);
    const char *const argv[] = {PROGRAM, "--name", "seatgrid", "--data-dir", folder,
                                "--listen-client-urls", clients, "--advertise-client-urls", clients,
                                "--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers,
                                "--initial-cluster", members,
                                /* what is overwritten is of no use to anybody */
                                "--auto-compaction-mode", "periodic", "--auto-compaction-retention",
                                "10m", "--logger", "zap", "--log-level", "warn", NULL};
    struct process_spec spec = {.argv = argv,
                                .user = cluster->user,
                                .log_path = cluster_path(log, "%s/log/etcd.log", cluster->var),
                                .signal_on_parent_death =
                                    cluster->options.foreground ? SIGTERM : 0};
    if (process_start(&spec, &cluster->etcd.id) != SG_OK)
        return cluster_fail(cluster, "etcd: cannot start: %m");
    cluster->etcd.started_here = true;
    if (process_file_write(pid_path(pid, cluster), &cluster->etcd.id) != SG_OK)
        return cluster_fail(cluster, "cannot write %s: %m", pid);
    return wait_ready(cluster);
}

bool etcd_stop(struct cluster *cluster)
{
    etcd_inspect(cluster);
    return process_stop(&cluster->etcd.id, SIGTERM, STOP_MS) ||
           process_stop(&cluster->etcd.id, SIGKILL, STOP_MS);
}
