/*
 * pg_rewind of a node of the local cluster. See rewind.h.
 *
 * VAR/run/<node>.rewinding stands from the first change to the last, because pg_rewind that is
 * killed leaves data that starts and is wrong.
 *
 * pg_rewind learns the primary's timeline from its control file, which a fresh promotion has not
 * written yet (before PostgreSQL 16): hence the checkpoint. It brings a crashed primary to a clean
 * end by itself, with `postgres --single`; a crashed standby it cannot, so that one has been
 * started and stopped before.
 *
 * SPDX-License-Identifier: MIT
 */
#include "dev/rewind.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "dev/ask.h"
#include "dev/pgbin.h"
#include "dev/postgres.h"
#include "dev/standby.h"

#define CHECKPOINT_MS 60000
#define REWIND_MS 180000

static char *marker_path(char *ret_path, const struct cluster *cluster, const struct server *node)
{
    return cluster_path(ret_path, "%s/run/%s.rewinding", cluster->var, node->name);
}

bool rewind_cut_short(const struct cluster *cluster, const struct server *node)
{
    char path[CLUSTER_PATH_MAX];
    return access(marker_path(path, cluster, node), F_OK) == 0;
}

void rewind_forget(const struct cluster *cluster, const struct server *node)
{
    char path[CLUSTER_PATH_MAX];
    unlink(marker_path(path, cluster, node));
}

static enum sg_error mark(struct cluster *cluster, const struct server *node)
{
    char path[CLUSTER_PATH_MAX];
    int fd = open(marker_path(path, cluster, node), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0)
        return cluster_fail(cluster, "cannot write %s: %m", path);
    close(fd);
    return SG_OK;
}

static enum sg_error run_pg_rewind(struct cluster *cluster, const struct server *node,
                                   const struct server *primary)
{
    char program[CLUSTER_PATH_MAX];
    char data[CLUSTER_PATH_MAX];
    char log[CLUSTER_PATH_MAX];
    char source[256];
    enum sg_error error = pgbin_find(cluster, node, "pg_rewind", program);
    if (error)
        return error;
    cluster_path(data, "%s/%s", cluster->servers, node->name);
    cluster_path(log, "%s/log/%s.log", cluster->var, node->name);
    snprintf(source, sizeof(source), "host=127.0.0.1 port=%d user=postgres dbname=postgres",
             primary->port);
    /* --no-sync: one call syncs it all below. */
    const char *const argv[] = {program, "-D", data, "--source-server", source, "--no-sync", NULL};
    struct process_spec spec = {.argv = argv, .user = cluster->user, .log_path = log};
    error = process_run(&spec, REWIND_MS);
    if (error && process_interrupted())
        return cluster_fail(cluster, "interrupted");
    if (error)
        return cluster_fail(cluster, "%s: pg_rewind from %s %s; see %s", node->name, primary->name,
                            error == SG_DEADLINE ? "took too long" : "failed", log);
    return SG_OK;
}

enum sg_error rewind_node(struct cluster *cluster, struct server *node,
                          const struct server *primary)
{
    struct ask_answer answer;
    if (!ask_once(primary->port, "CHECKPOINT", CHECKPOINT_MS, &answer))
        return cluster_fail(cluster, "%s: no checkpoint: %s", primary->name, answer.problem);
    enum sg_error error = postgres_clear_stale_locks(cluster, node);
    if (!error)
        error = mark(cluster, node);
    if (!error)
        error = run_pg_rewind(cluster, node, primary);
    if (!error)
        error = standby_mark(cluster, node);
    if (!error)
        rewind_forget(cluster, node);
    return error;
}
