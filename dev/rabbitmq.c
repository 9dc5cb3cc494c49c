/*
 * RabbitMQ of the local cluster. See rabbitmq.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "dev/rabbitmq.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "dev/configs.h"
#include "dev/ports.h"
#include "dev/process.h"

/* Not the wrapper in PATH, which insists on root or on a user of its own, and on its folders. */
#define PROGRAM "/usr/lib/rabbitmq/bin/rabbitmq-server"
#define EPMD "/usr/bin/epmd"
#define READY_TIMEOUT_MS 120000
#define ANSWER_TIMEOUT_MS 500
#define STOP_MS 30000
#define HARD_STOP_MS 5000
#define NAME "rabbitmq"
#define EPMD_INDEX 2 /* its port, from the broker's */

static char *pid_path(char *ret_path, const struct cluster *cluster, const char *name)
{
    return cluster_path(ret_path, "%s/run/%s.pid", cluster->var, name);
}

void rabbitmq_inspect(struct cluster *cluster)
{
    char path[CLUSTER_PATH_MAX];
    cluster->rabbitmq.id.pid = 0;
    process_file_read(pid_path(path, cluster, NAME), &cluster->rabbitmq.id);
}

bool rabbitmq_has_port(const struct cluster *cluster, int index)
{
    char path[CLUSTER_PATH_MAX];
    struct process_id epmd;
    return index == EPMD_INDEX && process_file_read(pid_path(path, cluster, "epmd"), &epmd);
}

static enum sg_error make_folder(struct cluster *cluster, char *ret_path)
{
    cluster_path(ret_path, "%s/" NAME, cluster->servers);
    if (mkdir(ret_path, 0700) != 0 && errno != EEXIST)
        return cluster_fail(cluster, "cannot make the folder %s: %m", ret_path);
    if (cluster->user.change && lchown(ret_path, cluster->user.uid, cluster->user.gid) != 0)
        return cluster_fail(cluster, "%s: cannot give it to the servers' user: %m", ret_path);
    return SG_OK;
}

static enum sg_error write_files(struct cluster *cluster, const char *folder)
{
    char path[CLUSTER_PATH_MAX];
    char text[512];
    snprintf(text, sizeof(text),
             "listeners.tcp.1 = 127.0.0.1:%d\n"
             "default_user = guest\n"
             "default_pass = guest\n"
             "log.console = true\n"
             "log.console.level = warning\n"
             "log.file = false\n"
             /* half a gigabyte by default, of disk and as much of memory */
             "raft.wal_max_size_bytes = 33554432\n",
             cluster->rabbitmq.port);
    enum sg_error error =
        configs_write_file(cluster, cluster_path(path, "%.900s/rabbitmq.conf", folder), text);
    if (error)
        return error;
    /* By default a channel with 32 unconfirmed messages in a quorum queue is stopped. */
    error = configs_write_file(cluster, cluster_path(path, "%.900s/advanced.config", folder),
                               "[{rabbit, [{quorum_commands_soft_limit, 512}]}].\n");
    if (error)
        return error;
    return configs_write_file(cluster, cluster_path(path, "%.900s/enabled_plugins", folder),
                              "[].\n");
}

/* One program with a clean environment, so that nothing of the caller's RabbitMQ gets in. */
static enum sg_error start_program(struct cluster *cluster, const char *name, const char *program,
                                   const char *folder, struct process_id *ret_id)
{
    char variables[9][CLUSTER_PATH_MAX + 40];
    char log[CLUSTER_PATH_MAX];
    char pid[CLUSTER_PATH_MAX];
    const int port = cluster->rabbitmq.port;
    size_t count = 0;
    snprintf(variables[count++], sizeof(variables[0]), "HOME=%s", folder);
    snprintf(variables[count++], sizeof(variables[0]), "ERL_EPMD_PORT=%d", port + EPMD_INDEX);
    snprintf(variables[count++], sizeof(variables[0]), "RABBITMQ_NODE_PORT=%d", port);
    snprintf(variables[count++], sizeof(variables[0]), "RABBITMQ_DIST_PORT=%d", port + 1);
    snprintf(variables[count++], sizeof(variables[0]), "RABBITMQ_MNESIA_BASE=%s/data", folder);
    snprintf(variables[count++], sizeof(variables[0]), "RABBITMQ_LOG_BASE=%s/log", folder);
    snprintf(variables[count++], sizeof(variables[0]), "RABBITMQ_CONFIG_FILE=%s/rabbitmq.conf",
             folder);
    snprintf(variables[count++], sizeof(variables[0]),
             "RABBITMQ_ADVANCED_CONFIG_FILE=%s/advanced.config", folder);
    snprintf(variables[count++], sizeof(variables[0]),
             "RABBITMQ_ENABLED_PLUGINS_FILE=%s/enabled_plugins", folder);
    const char *argv[32] = {"/usr/bin/env", "-i", "-C", folder};
    size_t argc = 4;
    for (size_t i = 0; i < count; i++)
        argv[argc++] = variables[i];
    static const char *const fixed[] = {
        "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG=C.UTF-8",
        "ERL_EPMD_ADDRESS=127.0.0.1",
        "RABBITMQ_CONF_ENV_FILE=/dev/null",
        "RABBITMQ_NODENAME=seatgrid@localhost",
        "RABBITMQ_NODE_IP_ADDRESS=127.0.0.1",
        "RABBITMQ_LOGS=-",
        "RABBITMQ_SCHEDULER_BIND_TYPE=u", /* it is not alone on the machine: no cores of its own */
        "RUNNING_UNDER_SYSTEMD=1", /* the script becomes the broker, and stays no shell beside it */
        ("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=-start_epmd false "
         "-kernel inet_dist_use_interface {127,0,0,1}"),
    };
    for (size_t i = 0; i < sizeof(fixed) / sizeof(fixed[0]); i++)
        argv[argc++] = fixed[i];
    argv[argc] = program;
    struct process_spec spec = {.argv = argv,
                                .user = cluster->user,
                                .log_path = cluster_path(log, "%s/log/%s.log", cluster->var, name),
                                .signal_on_parent_death =
                                    cluster->options.foreground ? SIGTERM : 0};
    if (process_start(&spec, ret_id) != SG_OK)
        return cluster_fail(cluster, "%s: cannot start: %m", name);
    if (process_file_write(pid_path(pid, cluster, name), ret_id) != SG_OK)
        return cluster_fail(cluster, "cannot write %s: %m", pid);
    return SG_OK;
}

enum sg_error rabbitmq_begin(struct cluster *cluster)
{
    char folder[CLUSTER_PATH_MAX];
    char path[CLUSTER_PATH_MAX];
    struct process_id epmd;
    if (access(PROGRAM, X_OK) != 0 || access(EPMD, X_OK) != 0)
        return cluster_fail(cluster,
                            "rabbitmq-server is not installed; tools/install-deps queue does it");
    enum sg_error error = make_folder(cluster, folder);
    if (!error)
        error = write_files(cluster, folder);
    /* epmd outlives a broker that was killed. */
    if (!error && !process_file_read(pid_path(path, cluster, "epmd"), &epmd))
        error = start_program(cluster, "epmd", EPMD, folder, &epmd);
    if (error)
        return error;
    cluster->rabbitmq.started_here = true;
    return start_program(cluster, NAME, PROGRAM, folder, &cluster->rabbitmq.id);
}

/* A broker that is up sends the method connection.start as soon as it has read the protocol's
 * name. */
static bool greets(int port)
{
    char answer[8] = "";
    return port_ask(port, "AMQP\0\0\x09\x01", 8, ANSWER_TIMEOUT_MS, answer, sizeof(answer)) > 0 &&
           answer[0] == 1;
}

enum sg_error rabbitmq_wait(struct cluster *cluster)
{
    const struct server *rabbitmq = &cluster->rabbitmq;
    int64_t deadline_us = clock_mono_us() + READY_TIMEOUT_MS * (int64_t)1000;
    while (!greets(rabbitmq->port)) {
        process_reap();
        if (process_interrupted())
            return cluster_fail(cluster, "interrupted");
        if (!process_alive(&rabbitmq->id) || clock_mono_us() > deadline_us) {
            cluster_show_log(cluster, NAME);
            return cluster_fail(cluster, NAME " did not start");
        }
        process_sleep_ms(50);
    }
    return SG_OK;
}

static bool stop(const struct process_id *id)
{
    return process_stop(id, SIGTERM, STOP_MS) || process_stop(id, SIGKILL, HARD_STOP_MS);
}

bool rabbitmq_stop(struct cluster *cluster)
{
    char path[CLUSTER_PATH_MAX];
    struct process_id epmd;
    rabbitmq_inspect(cluster);
    bool stopped = stop(&cluster->rabbitmq.id);
    if (stopped && process_file_read(pid_path(path, cluster, "epmd"), &epmd))
        stopped = stop(&epmd);
    return stopped;
}
