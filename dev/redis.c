/*
 * Redis of the local cluster. See redis.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "dev/redis.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "dev/ports.h"
#include "dev/process.h"

#define READY_TIMEOUT_MS 60000
#define ANSWER_TIMEOUT_MS 500
#define STOP_MS 15000

static char *pid_path(char *ret_path, const struct cluster *cluster)
{
    return cluster_path(ret_path, "%s/run/redis.pid", cluster->var);
}

void redis_inspect(struct cluster *cluster)
{
    char path[CLUSTER_PATH_MAX];
    cluster->redis.id.pid = 0;
    process_file_read(pid_path(path, cluster), &cluster->redis.id);
}

static const char *find_program(void)
{
    static const char *const places[] = {"/usr/bin/redis-server", "/usr/local/bin/redis-server",
                                         "/usr/sbin/redis-server"};
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        if (access(places[i], X_OK) == 0)
            return places[i];
    }
    return NULL;
}

static enum sg_error make_folder(struct cluster *cluster, char *ret_path)
{
    cluster_path(ret_path, "%s/redis", cluster->servers);
    if (mkdir(ret_path, 0700) != 0 && errno != EEXIST)
        return cluster_fail(cluster, "cannot make the folder %s: %m", ret_path);
    if (cluster->user.change && lchown(ret_path, cluster->user.uid, cluster->user.gid) != 0)
        return cluster_fail(cluster, "%s: cannot give it to the servers' user: %m", ret_path);
    return SG_OK;
}

/* One PING; while it loads its data Redis answers with an error instead of +PONG. */
static bool answers(int port)
{
    char answer[8] = "";
    return port_ask(port, "PING\r\n", 6, ANSWER_TIMEOUT_MS, answer, 7) >= 5 &&
           strncmp(answer, "+PONG", 5) == 0;
}

static enum sg_error wait_ready(struct cluster *cluster)
{
    struct server *redis = &cluster->redis;
    int64_t deadline_us = clock_mono_us() + READY_TIMEOUT_MS * 1000;
    while (!answers(redis->port)) {
        process_reap();
        if (process_interrupted())
            return cluster_fail(cluster, "interrupted");
        if (!process_alive(&redis->id) || clock_mono_us() > deadline_us) {
            cluster_show_log(cluster, "redis");
            return cluster_fail(cluster, "redis did not start");
        }
        process_sleep_ms(10);
    }
    return SG_OK;
}

enum sg_error redis_start(struct cluster *cluster)
{
    char folder[CLUSTER_PATH_MAX];
    char log[CLUSTER_PATH_MAX];
    char pid[CLUSTER_PATH_MAX];
    char port[16];
    const char *program = find_program();
    if (!program)
        return cluster_fail(cluster,
                            "redis-server is not installed; tools/install-deps run does it");
    enum sg_error error = make_folder(cluster, folder);
    if (error)
        return error;
    snprintf(port, sizeof(port), "%d", cluster->redis.port);
    const char *const argv[] = {program,     "--port",        port,       "--bind",
                                "127.0.0.1", "--dir",         folder,     "--appendonly",
                                "yes",       "--appendfsync", "everysec", "--save",
                                "",          "--daemonize",   "no",       NULL};
    struct process_spec spec = {.argv = argv,
                                .user = cluster->user,
                                .log_path = cluster_path(log, "%s/log/redis.log", cluster->var),
                                .signal_on_parent_death =
                                    cluster->options.foreground ? SIGTERM : 0};
    if (process_start(&spec, &cluster->redis.id) != SG_OK)
        return cluster_fail(cluster, "redis: cannot start: %m");
    cluster->redis.started_here = true;
    error = process_file_write(pid_path(pid, cluster), &cluster->redis.id);
    if (error)
        return cluster_fail(cluster, "cannot write %s: %m", pid);
    return wait_ready(cluster);
}

bool redis_stop(struct cluster *cluster)
{
    redis_inspect(cluster);
    return process_stop(&cluster->redis.id, SIGTERM, STOP_MS) ||
           process_stop(&cluster->redis.id, SIGKILL, STOP_MS);
}
