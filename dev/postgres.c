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
#include <glob.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "dev/folders.h"

#define MAKE_TIMEOUT_MS 180000
#define READY_TIMEOUT_MS 120000 /* crash recovery of a busy database takes a while */
#define SQL_TIMEOUT_MS 60000
#define ORPHAN_TIMEOUT_MS 10000
#define FAST_STOP_MS 30000
#define HARD_STOP_MS 10000
#define SOCKET_PATH_MAX 80 /* the kernel takes 107, the socket's own name needs 20 */
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

struct server *postgres_primary(struct cluster *cluster, const char *shard)
{
    for (size_t i = 0; i < cluster->node_count; i++) {
        struct server *node = &cluster->nodes[i];
        if (strcmp(node->shard, shard) == 0 && postgres_exists(cluster, node) &&
            !postgres_is_standby(cluster, node))
            return node;
    }
    return NULL;
}

/* --- programs --------------------------------------------------------------------------------- */

/* The newest installed major version, as a folder; "" if there is none. */
static void newest_bindir(char *ret_path)
{
    glob_t found;
    int newest = -1;
    ret_path[0] = '\0';
    if (glob("/usr/lib/postgresql/*/bin/postgres", 0, NULL, &found) != 0)
        return;
    for (size_t i = 0; i < found.gl_pathc; i++) {
        int major = atoi(found.gl_pathv[i] + strlen("/usr/lib/postgresql/"));
        if (major > newest) {
            newest = major;
            cluster_path(ret_path, "/usr/lib/postgresql/%d/bin", major);
        }
    }
    globfree(&found);
}

/* Where another distribution keeps them: asks pg_config. */
static void configured_bindir(char *ret_path)
{
    FILE *answer = popen("pg_config --bindir 2>/dev/null", "r");
    ret_path[0] = '\0';
    if (!answer)
        return;
    if (!fgets(ret_path, CLUSTER_PATH_MAX, answer))
        ret_path[0] = '\0';
    ret_path[strcspn(ret_path, "\n")] = '\0';
    pclose(answer);
}

/* Major version of existing data; 0 if there is none. */
static int data_major(const struct cluster *cluster, const struct server *node)
{
    char path[CLUSTER_PATH_MAX];
    int major = 0;
    FILE *file = fopen(cluster_path(path, "%s/%s/PG_VERSION", cluster->servers, node->name), "re");
    if (!file)
        return 0;
    if (fscanf(file, "%d", &major) != 1)
        major = 0;
    fclose(file);
    return major;
}

/* The path of one of PostgreSQL's programs, of the version that made the node's data. */
static enum sg_error find_program(struct cluster *cluster, const struct server *node,
                                  const char *name, char *ret_path)
{
    char folder[CLUSTER_PATH_MAX];
    int major = data_major(cluster, node);
    if (major)
        cluster_path(folder, "/usr/lib/postgresql/%d/bin", major);
    else
        newest_bindir(folder);
    if (!folder[0] || access(folder, X_OK) != 0)
        configured_bindir(folder);
    cluster_path(ret_path, "%s/%s", folder, name);
    if (folder[0] && access(ret_path, X_OK) == 0)
        return SG_OK;
    if (major)
        return cluster_fail(cluster,
                            "%s was made by PostgreSQL %d, which is not installed; install it or "
                            "remove the data with `seatgrid dev destroy`",
                            node->name, major);
    return cluster_fail(cluster,
                        "PostgreSQL's program %s is not installed; tools/install-deps run "
                        "does it",
                        name);
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
    enum sg_error error = find_program(cluster, node, "initdb", program);
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

/* Slot names know no dash. */
static void slot_name(const struct server *node, char ret_name[64])
{
    snprintf(ret_name, 64, "%s", node->name);
    for (char *p = ret_name; *p; p++) {
        if (*p == '-')
            *p = '_';
    }
}

enum sg_error postgres_copy_begin(struct cluster *cluster, const struct server *node,
                                  const struct server *primary, struct process_id *ret_id)
{
    char program[CLUSTER_PATH_MAX];
    char target[CLUSTER_PATH_MAX];
    char source[CLUSTER_PATH_MAX];
    char slot[64];
    enum sg_error error = find_program(cluster, primary, "pg_basebackup", program);
    if (error)
        return error;
    slot_name(node, slot);
    cluster_path(target, "%s/%s.new", cluster->servers, node->name);
    cluster_path(source, "host=127.0.0.1 port=%d user=postgres application_name=%s", primary->port,
                 node->name);
    const char *const argv[] = {program,  "-D", target, "-d", source, "-X",
                                "stream", "-S", slot,   "-c", "fast", NULL};
    return begin(cluster, node, argv, ret_id);
}

/* Writes a file of a server's data folder, owned by the servers' user, in one step. */
static enum sg_error write_data_file(struct cluster *cluster, const char *path, const char *flags,
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

/* On disk before it counts as made. One call for all its files; the makers' own way, an fsync a
 * file, takes many times longer. */
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

/* Waits for the maker, then adds the text to the file, which makes its work whole. */
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
    error = write_data_file(cluster, cluster_path(path, "%s/%s", made, file), "ae", text);
    if (!error)
        error = sync_all(cluster, made);
    if (error)
        return error;
    if (rename(made, data_path(path, cluster, node)) != 0)
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

static const char common_settings[] =
    "# Written by `seatgrid dev`. ALTER SYSTEM overrides it and stays.\n"
    "listen_addresses = '127.0.0.1'\n"
    "wal_level = logical\n"
    "max_wal_senders = 20\n"
    "max_replication_slots = 20\n"
    "max_connections = 300\n"
    "shared_buffers = '256MB'\n"
    "max_wal_size = '4GB'\n"
    "checkpoint_timeout = '15min'\n"
    "fsync = on\n"
    "synchronous_commit = on\n"
    "hot_standby = on\n"
    "hot_standby_feedback = on\n"
    "wal_keep_size = '128MB'\n"
    "max_slot_wal_keep_size = '4GB'\n"
    "wal_retrieve_retry_interval = '500ms'\n"
    "log_line_prefix = '%m [%p] %q%u@%d %a '\n"
    "log_timezone = 'UTC'\n"
    "timezone = 'UTC'\n"
    "lc_messages = 'C'\n";

static enum sg_error write_settings(struct cluster *cluster, const struct server *node)
{
    char path[CLUSTER_PATH_MAX];
    char text[4096];
    char slot[64];
    bool sockets = strlen(cluster->servers) <= SOCKET_PATH_MAX;
    const struct server *primary = postgres_primary(cluster, node->shard);
    int len = snprintf(text, sizeof(text),
                       "%sport = %d\ncluster_name = '%s'\nunix_socket_directories = '%s'\n",
                       common_settings, node->port, node->name, sockets ? cluster->servers : "");
    if (postgres_is_standby(cluster, node) && primary) {
        slot_name(node, slot);
        snprintf(text + len, sizeof(text) - (size_t)len,
                 "primary_conninfo = 'host=127.0.0.1 port=%d user=postgres application_name=%s'\n"
                 "primary_slot_name = '%s'\n",
                 primary->port, node->name, slot);
    }
    cluster_path(path, "%s/%s/seatgrid.conf", cluster->servers, node->name);
    return write_data_file(cluster, path, "we", text);
}

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

/* Nothing runs by postmaster.pid. Backends may outlive a killed postmaster for a moment: they have
 * to go first. Then the lock files are stale, and must not keep the server from starting because
 * their pid is a zombie's or, since a reboot, somebody else's. */
static enum sg_error clear_stale_locks(struct cluster *cluster, const struct server *node)
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
    enum sg_error error = find_program(cluster, node, "postgres", program);
    if (!error)
        error = clear_stale_locks(cluster, node);
    if (!error)
        error = write_settings(cluster, node);
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

bool postgres_stop(const struct cluster *cluster, struct server *node)
{
    postgres_inspect(cluster, node);
    if (!node->id.pid)
        return true;
    return process_stop(&node->id, SIGINT, FAST_STOP_MS) ||
           process_stop(&node->id, SIGQUIT, HARD_STOP_MS) ||
           process_stop(&node->id, SIGKILL, HARD_STOP_MS);
}

/* --- asking ----------------------------------------------------------------------------------- */

static enum sg_error run_sql(struct cluster *cluster, const struct server *node, const char *sql)
{
    char program[CLUSTER_PATH_MAX];
    char log[CLUSTER_PATH_MAX];
    char port[16];
    enum sg_error error = find_program(cluster, node, "psql", program);
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
    static const char role_and_database[] =
        "SET client_min_messages = warning;\n"
        "SELECT 'CREATE ROLE seatgrid LOGIN REPLICATION'\n"
        " WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'seatgrid') \\gexec\n"
        "GRANT pg_monitor TO seatgrid;\n"
        "SELECT 'CREATE DATABASE seatgrid OWNER seatgrid'\n"
        " WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'seatgrid') \\gexec\n";
    char sql[4096];
    char slot[64];
    size_t len = (size_t)snprintf(sql, sizeof(sql), "%s", role_and_database);
    for (size_t i = 0; i < cluster->node_count; i++) {
        const struct server *node = &cluster->nodes[i];
        if (node == primary || strcmp(node->shard, primary->shard) != 0)
            continue;
        slot_name(node, slot);
        len += (size_t)snprintf(
            sql + len, sizeof(sql) - len,
            "SELECT FROM pg_create_physical_replication_slot('%s', true) WHERE NOT EXISTS"
            " (SELECT FROM pg_replication_slots WHERE slot_name = '%s');\n",
            slot, slot);
    }
    return run_sql(cluster, primary, sql);
}
