/*
 * PostgreSQL servers of the local cluster. See postgres.h.
 *
 *   init_begin ── initdb ────────> init_end ─┐
 *   copy_begin ── pg_basebackup ─> copy_end ─┴─> start ─> wait_ready ─> prepare ... stop
 *
 * SPDX-License-Identifier: MIT
 */
#include "dev/postgres.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "dev/folders.h"
#include "dev/pgbin.h"
#include "dev/standby.h"

#define MAKE_TIMEOUT_MS 180000
#define READY_TIMEOUT_MS 120000 /* crash recovery of a busy database takes a while */
#define SQL_TIMEOUT_MS 60000
#define ORPHAN_TIMEOUT_MS 10000
#define FAST_STOP_MS 30000
#define HARD_STOP_MS 10000
#define POSTMASTER_LINES 8

static char *data_path(char *ret_path, const struct cluster *cluster, const struct server *node)
{
    return cluster_path(ret_path, "%s/%s", cluster->servers, node->name);
}

static char *log_path(char *ret_path, const struct cluster *cluster, const struct server *node)
{
    return cluster_path(ret_path, "%s/log/%s.log", cluster->var, node->name);
}

bool postgres_exists(const struct cluster *cluster, const struct server *node)
{
    char path[CLUSTER_PATH_MAX];
    return access(cluster_path(path, "%s/%s/PG_VERSION", cluster->servers, node->name), F_OK) == 0;
}

bool postgres_is_standby(const struct cluster *cluster, const struct server *node)
{
    char path[CLUSTER_PATH_MAX];
    return access(cluster_path(path, "%s/%s/standby.signal", cluster->servers, node->name), F_OK) ==
           0;
}

/* --- files of a data folder ------------------------------------------------------------------- */

/* Owned by the servers' user. */
static enum sg_error write_file(struct cluster *cluster, const char *path, const char *flags,
                                const char *text)
{
    int fd = -1;
    FILE *file = fopen(path, flags);
    if (file)
        fd = fileno(file);
    if (!file || (cluster->user.change && fchown(fd, cluster->user.uid, cluster->user.gid) != 0)) {
        if (file)
            fclose(file);
        return cluster_fail(cluster, "cannot write %s: %m", path);
    }
    fputs(text, file);
    if (fclose(file) != 0)
        return cluster_fail(cluster, "cannot write %s: %m", path);
    return SG_OK;
}

enum sg_error postgres_write_file(struct cluster *cluster, const struct server *node,
                                  const char *name, const char *text)
{
    char path[CLUSTER_PATH_MAX];
    return write_file(cluster, cluster_path(path, "%s/%s/%s", cluster->servers, node->name, name),
                      "we", text);
}

/* One call for all the files in the folder; the makers' own way, an fsync a file, takes many times
 * longer. */
static enum sg_error sync_all(struct cluster *cluster, const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || syncfs(fd) != 0) {
        if (fd >= 0)
            close(fd);
        return cluster_fail(cluster, "cannot sync %s: %m", path);
    }
    close(fd);
    return SG_OK;
}

enum sg_error postgres_sync(struct cluster *cluster, const struct server *node)
{
    char path[CLUSTER_PATH_MAX];
    return sync_all(cluster, data_path(path, cluster, node));
}

/* --- making a node ---------------------------------------------------------------------------- */

static enum sg_error begin(struct cluster *cluster, const struct server *node,
                           const char *const *argv, struct process_id *ret_id)
{
    char path[CLUSTER_PATH_MAX];
    enum sg_error error =
        folders_remove_tree(cluster, cluster_path(path, "%s/%s.new", cluster->servers, node->name));
    if (error)
        return error;
    struct process_spec spec = {.argv = argv, .user = cluster->user};
    spec.log_path = log_path(path, cluster, node);
    if (process_start(&spec, ret_id) != SG_OK)
        return cluster_fail(cluster, "%s: cannot run %s: %m", node->name, argv[0]);
    return SG_OK;
}

enum sg_error postgres_init_begin(struct cluster *cluster, const struct server *node,
                                  struct process_id *ret_id)
{
    char program[CLUSTER_PATH_MAX];
    char target[CLUSTER_PATH_MAX];
    enum sg_error error = pgbin_find(cluster, node, "initdb", program);
    if (error)
        return error;
    cluster_path(target, "%s/%s.new", cluster->servers, node->name);
    const char *const argv[] = {program,
                                "-D",
                                target,
                                "-U",
                                "postgres",
                                "-E",
                                "UTF8",
                                "--locale=C.UTF-8",
                                "--auth=trust",
                                "--no-instructions",
                                NULL};
    return begin(cluster, node, argv, ret_id);
}

enum sg_error postgres_copy_begin(struct cluster *cluster, const struct server *node,
                                  const struct server *primary, struct process_id *ret_id)
{
    char program[CLUSTER_PATH_MAX];
    char target[CLUSTER_PATH_MAX];
    char source[CLUSTER_PATH_MAX];
    char slot[STANDBY_SLOT_MAX];
    enum sg_error error = pgbin_find(cluster, primary, "pg_basebackup", program);
    if (error)
        return error;
    standby_slot(node, slot);
    cluster_path(target, "%s/%s.new", cluster->servers, node->name);
    cluster_path(source, "host=127.0.0.1 port=%d user=postgres application_name=%s", primary->port,
                 node->name);
    const char *const argv[] = {program,  "-D", target, "-d", source, "-X",
                                "stream", "-S", slot,   "-c", "fast", NULL};
    return begin(cluster, node, argv, ret_id);
}

/* Waits for the maker, then adds the text to the file, which makes its work whole: on disk, in the
 * place of what was there. */
static enum sg_error end(struct cluster *cluster, const struct server *node,
                         const struct process_id *id, const char *file, const char *text)
{
    char made[CLUSTER_PATH_MAX];
    char path[CLUSTER_PATH_MAX];
    enum sg_error error = process_wait(id, MAKE_TIMEOUT_MS);
    if (error && process_interrupted())
        return cluster_fail(cluster, "interrupted");
    if (error) {
        cluster_show_log(cluster, node->name);
        return cluster_fail(cluster, "%s: making its data %s", node->name,
                            error == SG_DEADLINE ? "took too long" : "failed");
    }
    cluster_path(made, "%s/%s.new", cluster->servers, node->name);
    error = write_file(cluster, cluster_path(path, "%s/%s", made, file), "ae", text);
    if (!error)
        error = sync_all(cluster, made);
    if (!error)
        error = folders_remove_tree(cluster, data_path(path, cluster, node));
    if (error)
        return error;
    if (rename(made, path) != 0)
        return cluster_fail(cluster, "cannot rename %s: %m", made);
    return SG_OK;
}

enum sg_error postgres_init_end(struct cluster *cluster, const struct server *node,
                                const struct process_id *id)
{
    return end(cluster, node, id, "postgresql.conf",
               "\n# Of the local cluster; written anew before each start.\n"
               "include_if_exists 'seatgrid.conf'\n");
}

enum sg_error postgres_copy_end(struct cluster *cluster, const struct server *node,
                                const struct process_id *id)
{
    return end(cluster, node, id, "standby.signal", "");
}

/* --- starting --------------------------------------------------------------------------------- */

/* Lines of postmaster.pid: 1 pid, 4 port, 8 status. False if there is no such file. */
static bool read_postmaster(const struct cluster *cluster, const struct server *node,
                            char ret_lines[POSTMASTER_LINES][64])
{
    char path[CLUSTER_PATH_MAX];
    char line[CLUSTER_PATH_MAX];
    FILE *file =
        fopen(cluster_path(path, "%s/%s/postmaster.pid", cluster->servers, node->name), "re");
    if (!file)
        return false;
    memset(ret_lines, 0, POSTMASTER_LINES * sizeof(ret_lines[0]));
    for (int i = 0; i < POSTMASTER_LINES && fgets(line, sizeof(line), file); i++) {
        line[strcspn(line, " \n")] = '\0';
        snprintf(ret_lines[i], sizeof(ret_lines[i]), "%.63s", line);
    }
    fclose(file);
    return true;
}

/* The server that postmaster.pid tells of, if that pid is a process at work in this data folder:
 * after a crash or a reboot the number may be anybody's. */
void postgres_inspect(const struct cluster *cluster, struct server *node)
{
    char lines[POSTMASTER_LINES][64];
    char path[CLUSTER_PATH_MAX];
    char cwd[64];
    struct stat data;
    struct stat at;
    struct process_id id;
    node->id.pid = 0;
    if (!read_postmaster(cluster, node, lines) || !process_identify(atoi(lines[0]), &id))
        return;
    snprintf(cwd, sizeof(cwd), "/proc/%d/cwd", (int)id.pid);
    if (stat(data_path(path, cluster, node), &data) != 0 || stat(cwd, &at) != 0 ||
        data.st_dev != at.st_dev || data.st_ino != at.st_ino)
        return;
    node->id = id;
    if (!node->port)
        node->port = atoi(lines[3]);
}

static enum sg_error remove_stale(struct cluster *cluster, const char *path)
{
    if (unlink(path) != 0 && errno != ENOENT)
        return cluster_fail(cluster, "cannot remove %s: %m", path);
    return SG_OK;
}

/* Backends may outlive a killed postmaster for a moment: they have to go first. Then the lock files
 * are stale, and must not keep the server from starting because their pid is a zombie's or, since a
 * reboot, somebody else's. */
enum sg_error postgres_clear_stale_locks(struct cluster *cluster, const struct server *node)
{
    char path[CLUSTER_PATH_MAX];
    int64_t deadline_us = clock_mono_us() + ORPHAN_TIMEOUT_MS * 1000;
    data_path(path, cluster, node);
    while (process_lives_in(path)) {
        if (clock_mono_us() > deadline_us || process_interrupted())
            return cluster_fail(cluster, "%s: processes of a killed server still work in %s",
                                node->name, path);
        process_reap();
        process_sleep_ms(50);
    }
    enum sg_error error = remove_stale(
        cluster, cluster_path(path, "%s/%s/postmaster.pid", cluster->servers, node->name));
    if (!error)
        error = remove_stale(
            cluster, cluster_path(path, "%s/.s.PGSQL.%d.lock", cluster->servers, node->port));
    return error;
}

enum sg_error postgres_start(struct cluster *cluster, struct server *node)
{
    char program[CLUSTER_PATH_MAX];
    char data[CLUSTER_PATH_MAX];
    char log[CLUSTER_PATH_MAX];
    enum sg_error error = pgbin_find(cluster, node, "postgres", program);
    if (!error)
        error = postgres_clear_stale_locks(cluster, node);
    if (!error)
        error = standby_write_settings(cluster, node);
    if (error)
        return error;
    const char *const argv[] = {program, "-D", data_path(data, cluster, node), NULL};
    struct process_spec spec = {.argv = argv,
                                .user = cluster->user,
                                .log_path = log_path(log, cluster, node),
                                .signal_on_parent_death = cluster->options.foreground ? SIGINT : 0};
    if (process_start(&spec, &node->id) != SG_OK)
        return cluster_fail(cluster, "%s: cannot start: %m", node->name);
    node->started_here = true;
    return SG_OK;
}

enum sg_error postgres_wait_ready(struct cluster *cluster, struct server *node)
{
    char lines[POSTMASTER_LINES][64];
    int64_t deadline_us = clock_mono_us() + READY_TIMEOUT_MS * 1000;
    for (;;) {
        if (read_postmaster(cluster, node, lines) && atoi(lines[0]) == node->id.pid &&
            strcmp(lines[7], "ready") == 0)
            return SG_OK;
        process_reap();
        if (process_interrupted())
            return cluster_fail(cluster, "interrupted");
        if (!process_alive(&node->id)) {
            cluster_show_log(cluster, node->name);
            return cluster_fail(cluster, "%s did not start", node->name);
        }
        if (clock_mono_us() > deadline_us) {
            cluster_show_log(cluster, node->name);
            return cluster_fail(cluster, "%s takes no connections after %d s", node->name,
                                READY_TIMEOUT_MS / 1000);
        }
        process_sleep_ms(20);
    }
}

int postgres_signal_all(const struct cluster *cluster, const struct server *node, int signal)
{
    char path[CLUSTER_PATH_MAX];
    return process_signal_in(data_path(path, cluster, node), signal);
}

/* A frozen one has its processes woken, or they would keep it from ending. */
bool postgres_stop(const struct cluster *cluster, struct server *node)
{
    postgres_inspect(cluster, node);
    if (!node->id.pid)
        return true;
    if (process_stopped(&node->id))
        postgres_signal_all(cluster, node, SIGCONT);
    return process_stop(&node->id, SIGINT, FAST_STOP_MS) ||
           process_stop(&node->id, SIGQUIT, HARD_STOP_MS) ||
           process_stop(&node->id, SIGKILL, HARD_STOP_MS);
}

/* --- the database ----------------------------------------------------------------------------- */

static enum sg_error run_sql(struct cluster *cluster, const struct server *node, const char *sql)
{
    char program[CLUSTER_PATH_MAX];
    char log[CLUSTER_PATH_MAX];
    char port[16];
    enum sg_error error = pgbin_find(cluster, node, "psql", program);
    if (error)
        return error;
    snprintf(port, sizeof(port), "%d", node->port);
    const char *const argv[] = {program, "-XAtq", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1",
                                "-p",    port,    "-U", "postgres",        "-d", "postgres",
                                "-f",    "-",     NULL};
    struct process_spec spec = {.argv = argv,
                                .user = cluster->user,
                                .log_path = log_path(log, cluster, node),
                                .stdin_text = sql};
    if (process_run(&spec, SQL_TIMEOUT_MS) == SG_OK)
        return SG_OK;
    if (process_interrupted())
        return cluster_fail(cluster, "interrupted");
    cluster_show_log(cluster, node->name);
    return cluster_fail(cluster, "%s: preparing the database failed", node->name);
}

enum sg_error postgres_prepare(struct cluster *cluster, const struct server *primary)
{
    /* Local: there may be no replica to wait for yet. */
    static const char role_and_database[] =
        "SET client_min_messages = warning;\n"
        "SET synchronous_commit = local;\n"
        "SELECT 'CREATE ROLE seatgrid LOGIN REPLICATION'\n"
        " WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'seatgrid') \\gexec\n"
        "GRANT pg_monitor TO seatgrid;\n"
        "SELECT 'CREATE DATABASE seatgrid OWNER seatgrid'\n"
        " WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'seatgrid') \\gexec\n"
        "\\connect seatgrid\n"
        "SET synchronous_commit = local;\n"
        "GRANT EXECUTE ON FUNCTION pg_promote TO seatgrid;\n"; /* for switchovers */
    enum sg_error error = run_sql(cluster, primary, role_and_database);
    /* Patroni makes its own. */
    if (error || cluster->options.ha == 1)
        return error;
    return standby_make_slots(cluster, primary);
}
