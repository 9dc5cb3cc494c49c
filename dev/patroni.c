/*
 * Patroni in the local cluster. See patroni.h.
 *
 *   VAR/servers/patroni/<node>.yml        its configuration
 *   VAR/servers/patroni/<node>.callback   what it runs when the node's role has changed
 *   VAR/log/<node>-patroni.log            what it says, and its PostgreSQL
 *
 * SPDX-License-Identifier: MIT
 */
#include "dev/patroni.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/dynbuf.h"
#include "cli/admin_client.h"
#include "dev/ask.h"
#include "dev/etcd.h"
#include "dev/folders.h"
#include "dev/pgbin.h"
#include "dev/postgres.h"
#include "dev/process.h"
#include "dev/roles.h"

#define PROGRAM "/usr/bin/patroni"
#define CONFIG_MAX 16384
#define READY_TIMEOUT_MS 180000
#define STOP_MS 60000
#define HARD_STOP_MS 5000
#define SWITCHOVER_MS 60000
#define ASK_MS 1000

/* --- its files -------------------------------------------------------------------------------- */

/* Numbers: ttl is the least that newer versions take; ttl >= loop_wait + 2 * retry_timeout. */
static const char shard_settings[] = "bootstrap:\n"
                                     "  dcs:\n"
                                     "    ttl: 20\n"
                                     "    loop_wait: 2\n"
                                     "    retry_timeout: 9\n"
                                     "    maximum_lag_on_failover: 1048576\n"
                                     "    primary_start_timeout: 0\n"
                                     "    failsafe_mode: true\n"
                                     "    check_timeline: true\n"
                                     "    synchronous_mode: %s\n"
                                     "    synchronous_mode_strict: %s\n"
                                     "    ignore_slots:\n"
                                     "    - type: logical\n"
                                     "      plugin: pgoutput\n"
                                     "    postgresql:\n"
                                     "      use_pg_rewind: true\n"
                                     "      remove_data_directory_on_rewind_failure: true\n"
                                     "      remove_data_directory_on_diverged_timelines: true\n"
                                     "      use_slots: true\n"
                                     "      parameters:\n"
                                     "        wal_level: logical\n"
                                     "        wal_log_hints: 'on'\n"
                                     "        max_wal_senders: 20\n"
                                     "        max_replication_slots: 20\n"
                                     "        max_connections: 300\n"
                                     "        shared_buffers: 256MB\n"
                                     "        max_wal_size: 4GB\n"
                                     "        checkpoint_timeout: 15min\n"
                                     "        hot_standby_feedback: 'on'\n"
                                     "        wal_keep_size: 128MB\n"
                                     "        max_slot_wal_keep_size: 4GB\n"
                                     "        wal_retrieve_retry_interval: 500ms\n"
                                     "        recovery_init_sync_method: syncfs\n"
                                     "        log_line_prefix: '%%m [%%p] %%q%%u@%%d %%a '\n"
                                     "        log_timezone: UTC\n"
                                     "        timezone: UTC\n"
                                     "        lc_messages: C\n"
                                     "  initdb:\n"
                                     "  - encoding: UTF8\n"
                                     "  - locale: C.UTF-8\n"
                                     "  - auth: trust\n";

static char *file_path(char *ret_path, const struct cluster *cluster, size_t index,
                       const char *suffix)
{
    return cluster_path(ret_path, "%s/patroni/%s.%s", cluster->servers, cluster->nodes[index].name,
                        suffix);
}

static void add_node_settings(struct cluster *cluster, size_t index, const char *bindir,
                              struct dynbuf *out)
{
    const struct server *node = &cluster->nodes[index];
    char path[CLUSTER_PATH_MAX];
    dynbuf_addf(out,
                "postgresql:\n"
                "  listen: 127.0.0.1:%d\n"
                "  connect_address: 127.0.0.1:%d\n"
                "  data_dir: %s/%s\n"
                "  bin_dir: %s\n"
                "  pgpass: %s\n",
                node->port, node->port, cluster->servers, node->name, bindir,
                file_path(path, cluster, index, "pgpass"));
    dynbuf_adds(out, "  authentication:\n"
                     "    superuser:\n"
                     "      username: postgres\n"
                     "    replication:\n"
                     "      username: replicator\n"
                     "  pg_hba:\n"
                     "  - host all all 127.0.0.1/32 trust\n"
                     "  - host replication all 127.0.0.1/32 trust\n"
                     "  parameters:\n"
                     "    unix_socket_directories: ''\n");
    file_path(path, cluster, index, "callback");
    dynbuf_addf(out,
                "  callbacks:\n"
                "    on_start: /bin/sh %s\n"
                "    on_role_change: /bin/sh %s\n",
                path, path);
    dynbuf_adds(out, "watchdog:\n"
                     "  mode: off\n");
}

static enum sg_error write_text(struct cluster *cluster, const char *path,
                                const struct dynbuf *text)
{
    FILE *file = text->failed ? NULL : fopen(path, "we");
    if (!file)
        return cluster_fail(cluster, "cannot write %s: %m", path);
    fputs(dynbuf_text(text), file);
    if (fclose(file) != 0)
        return cluster_fail(cluster, "cannot write %s: %m", path);
    return SG_OK;
}

static enum sg_error write_config(struct cluster *cluster, size_t index, const char *bindir)
{
    const struct server *node = &cluster->nodes[index];
    const char *sync = cluster->options.sync == 1 ? "true" : "false";
    char path[CLUSTER_PATH_MAX];
    struct dynbuf text;
    dynbuf_init(&text, CONFIG_MAX);
    dynbuf_addf(&text,
                "# Written by `seatgrid dev`. Explained in deploy/patroni/patroni.yml.\n"
                "scope: %s\n"
                "namespace: /seatgrid/\n"
                "name: %s\n"
                "restapi:\n"
                "  listen: 127.0.0.1:%d\n"
                "  connect_address: 127.0.0.1:%d\n"
                "etcd3:\n"
                "  host: 127.0.0.1:%d\n",
                node->shard, node->name, cluster->patroni[index].port, cluster->patroni[index].port,
                cluster->etcd.port);
    dynbuf_addf(&text, shard_settings, sync, sync);
    add_node_settings(cluster, index, bindir, &text);
    enum sg_error error = write_text(cluster, file_path(path, cluster, index, "yml"), &text);
    dynbuf_done(&text);
    return error;
}

/* A node that was the leader keeps the consumer's slot, which Patroni is told to leave alone; on a
 * replica nobody reads it, and its WAL would stay for ever. */
static enum sg_error write_callback(struct cluster *cluster, size_t index, const char *bindir)
{
    char path[CLUSTER_PATH_MAX];
    struct dynbuf text;
    dynbuf_init(&text, CONFIG_MAX);
    dynbuf_addf(&text,
                "# Run by Patroni with: what has happened, the role, the shard.\n"
                "[ \"$2\" = replica ] || exit 0\n"
                "exec %s/psql -XAtq -h 127.0.0.1 -p %d -U postgres -d postgres -c \\\n"
                "    \"SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots"
                " WHERE slot_type = 'logical' AND NOT active\"\n",
                bindir, cluster->nodes[index].port);
    enum sg_error error = write_text(cluster, file_path(path, cluster, index, "callback"), &text);
    dynbuf_done(&text);
    return error;
}

static enum sg_error make_folder(struct cluster *cluster, char *ret_path)
{
    cluster_path(ret_path, "%s/patroni", cluster->servers);
    if (mkdir(ret_path, 0755) != 0 && errno != EEXIST)
        return cluster_fail(cluster, "cannot make the folder %s: %m", ret_path);
    /* Its password file is written by Patroni. */
    if (cluster->user.change && lchown(ret_path, cluster->user.uid, cluster->user.gid) != 0)
        return cluster_fail(cluster, "%s: cannot give it to the servers' user: %m", ret_path);
    return SG_OK;
}

static enum sg_error write_files(struct cluster *cluster, size_t index)
{
    char bindir[CLUSTER_PATH_MAX];
    char folder[CLUSTER_PATH_MAX];
    enum sg_error error = pgbin_folder(cluster, &cluster->nodes[index], bindir);
    if (error)
        return error;
    error = make_folder(cluster, folder);
    if (!error)
        error = write_config(cluster, index, bindir);
    return error ? error : write_callback(cluster, index, bindir);
}

/* --- the first time --------------------------------------------------------------------------- */

static char *made_path(char *ret_path, const struct cluster *cluster)
{
    return cluster_path(ret_path, "%s/patroni/made", cluster->servers);
}

enum sg_error patroni_clear_half_made(struct cluster *cluster)
{
    char path[CLUSTER_PATH_MAX];
    enum sg_error error = SG_OK;
    if (access(made_path(path, cluster), F_OK) == 0)
        return SG_OK;
    for (size_t i = 0; i < cluster->node_count; i++) {
        if (cluster->patroni[i].id.pid || cluster->nodes[i].id.pid)
            return SG_OK; /* still at it: `up` was killed, not Patroni */
    }
    if (!etcd_stop(cluster))
        return cluster_fail(cluster, "etcd does not stop");
    etcd_inspect(cluster);
    for (size_t i = 0; !error && i < cluster->node_count; i++)
        error = folders_remove_tree(
            cluster, cluster_path(path, "%s/%s", cluster->servers, cluster->nodes[i].name));
    if (!error)
        error = folders_remove_tree(cluster, cluster_path(path, "%s/etcd", cluster->servers));
    return error;
}

enum sg_error patroni_note_made(struct cluster *cluster)
{
    char path[CLUSTER_PATH_MAX];
    int fd = open(made_path(path, cluster), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0)
        return cluster_fail(cluster, "cannot write %s: %m", path);
    close(fd);
    return SG_OK;
}

/* --- start and stop --------------------------------------------------------------------------- */

static char *pid_path(char *ret_path, const struct cluster *cluster, size_t index)
{
    return cluster_path(ret_path, "%s/run/%s.pid", cluster->var, cluster->patroni[index].name);
}

void patroni_inspect(struct cluster *cluster, size_t index)
{
    char path[CLUSTER_PATH_MAX];
    cluster->patroni[index].id.pid = 0;
    process_file_read(pid_path(path, cluster, index), &cluster->patroni[index].id);
}

enum sg_error patroni_start(struct cluster *cluster, size_t index)
{
    struct server *patroni = &cluster->patroni[index];
    struct server *node = &cluster->nodes[index];
    char config[CLUSTER_PATH_MAX];
    char log[CLUSTER_PATH_MAX];
    char pid[CLUSTER_PATH_MAX];
    if (access(PROGRAM, X_OK) != 0)
        return cluster_fail(cluster, "Patroni is not installed; tools/install-deps ha does it");
    enum sg_error error = write_files(cluster, index);
    /* Of a PostgreSQL that was killed: its number may be somebody else's by now. */
    if (!error && !node->id.pid && postgres_exists(cluster, node))
        error = postgres_clear_stale_locks(cluster, node);
    if (error)
        return error;
    const char *const argv[] = {PROGRAM, file_path(config, cluster, index, "yml"), NULL};
    struct process_spec spec = {
        .argv = argv,
        .user = cluster->user,
        .log_path = cluster_path(log, "%s/log/%s.log", cluster->var, patroni->name),
        .signal_on_parent_death = cluster->options.foreground ? SIGTERM : 0};
    if (process_start(&spec, &patroni->id) != SG_OK)
        return cluster_fail(cluster, "%s: cannot start: %m", patroni->name);
    patroni->started_here = true;
    if (process_file_write(pid_path(pid, cluster, index), &patroni->id) != SG_OK)
        return cluster_fail(cluster, "cannot write %s: %m", pid);
    return SG_OK;
}

bool patroni_stop(struct cluster *cluster, size_t index)
{
    struct server *node = &cluster->nodes[index];
    patroni_inspect(cluster, index);
    postgres_inspect(cluster, node);
    /* It waits for a frozen PostgreSQL for ever. */
    if (node->id.pid && process_stopped(&node->id))
        postgres_signal_all(cluster, node, SIGCONT);
    bool stopped = process_stop(&cluster->patroni[index].id, SIGTERM, STOP_MS) ||
                   process_stop(&cluster->patroni[index].id, SIGKILL, HARD_STOP_MS);
    return postgres_stop(cluster, node) && stopped;
}

/* --- waiting and asking ----------------------------------------------------------------------- */

/* As it says itself: out of recovery, or streaming. */
static bool node_runs(struct cluster *cluster, struct server *node)
{
    struct ask_answer answer;
    postgres_inspect(cluster, node);
    return node->id.pid && !process_stopped(&node->id) &&
           ask_once(node->port,
                    "SELECT NOT pg_is_in_recovery() OR EXISTS"
                    " (SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming')",
                    ASK_MS, &answer) &&
           strcmp(answer.value[0], "t") == 0;
}

enum sg_error patroni_wait_node(struct cluster *cluster, size_t index)
{
    struct server *node = &cluster->nodes[index];
    struct server *patroni = &cluster->patroni[index];
    int64_t deadline_us = clock_mono_us() + READY_TIMEOUT_MS * 1000;
    while (!node_runs(cluster, node)) {
        process_reap();
        if (process_interrupted())
            return cluster_fail(cluster, "interrupted");
        if (!process_alive(&patroni->id)) {
            cluster_show_log(cluster, patroni->name);
            return cluster_fail(cluster, "%s has ended", patroni->name);
        }
        if (clock_mono_us() > deadline_us) {
            cluster_show_log(cluster, patroni->name);
            return cluster_fail(cluster, "%s: Patroni has not brought it up after %d s", node->name,
                                READY_TIMEOUT_MS / 1000);
        }
        process_sleep_ms(50);
    }
    return SG_OK;
}

enum sg_error patroni_switchover(struct cluster *cluster, size_t index)
{
    const struct server *node = &cluster->nodes[index];
    const struct server *leader = roles_primary(cluster, node->shard);
    char address[64];
    char order[256];
    char why[512] = "";
    int status = 0;
    struct dynbuf answer;
    if (!leader)
        return cluster_fail(cluster, "shard %s has no leader that could hand over", node->shard);
    int len = snprintf(order, sizeof(order), "{\"leader\": \"%s\", \"candidate\": \"%s\"}",
                       leader->name, node->name);
    snprintf(address, sizeof(address), "127.0.0.1:%d", cluster->patroni[index].port);
    dynbuf_init(&answer, 1 << 16);
    enum sg_error error = admin_call(address, "POST", "/switchover", order, (size_t)len,
                                     SWITCHOVER_MS, &status, &answer, why, sizeof(why));
    if (error)
        cluster_fail(cluster, "%s: %s", cluster->patroni[index].name, why);
    else if (status != 200)
        error = cluster_fail(cluster, "%s: %d: %.200s", cluster->patroni[index].name, status,
                             dynbuf_text(&answer));
    dynbuf_done(&answer);
    return error;
}
