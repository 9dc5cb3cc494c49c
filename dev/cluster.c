/*
 * The local cluster as a whole. See cluster.h.
 *
 *   open ─> lock ─> servers' folder ─> plan ─> inspect ─> ports ─┐
 *     ┌──────────────────────────────────────────────────────────┘
 *     └> primaries ─> databases ─> migrations ─> replicas ─> redis ─> cdc ─> serve
 *
 * Each word is a step of the list `up_steps`; the first that fails ends the list, and what was
 * started here is stopped in reverse.
 *
 * SPDX-License-Identifier: MIT
 */
#include "dev/cluster.h"

#include <stdio.h>
#include <string.h>

#include "dev/configs.h"
#include "dev/demo.h"
#include "dev/folders.h"
#include "dev/migrated.h"
#include "dev/ports.h"
#include "dev/postgres.h"
#include "dev/programs.h"
#include "dev/redis.h"
#include "dev/servers.h"

#define LOCK_TRIES 300 /* of 100 ms, when a run ends while a down is at work */
#define WATCH_MS 200

typedef enum sg_error step_fn(struct cluster *cluster);

struct step {
    const char *name;
    step_fn *fn;
};

/* --- the steps of up, in order ---------------------------------------------------------------- */

static enum sg_error open_folder(struct cluster *cluster)
{
    return folders_open(cluster, true);
}

static enum sg_error open_servers(struct cluster *cluster)
{
    return folders_servers(cluster, true);
}

static enum sg_error plan(struct cluster *cluster)
{
    layout_complete_options(cluster);
    return layout_plan(cluster);
}

/* What runs already has to run where the options want it. */
static enum sg_error look_around(struct cluster *cluster)
{
    struct cluster *running = servers_of(cluster->options.var);
    const struct cluster_options *now = &running->options;
    const struct cluster_options *wanted = &cluster->options;
    enum sg_error error = SG_OK;
    cluster_path(running->var, "%s", cluster->var);
    cluster_path(running->servers, "%s", cluster->servers);
    layout_complete_options(running);
    layout_scan(running);
    servers_inspect(running);
    if (servers_count_running(running) > 0 &&
        (now->port_base != wanted->port_base || now->http_port != wanted->http_port ||
         now->admin_port != wanted->admin_port || now->replicas != wanted->replicas))
        error = cluster_fail(cluster,
                             "%s runs already, with --port-base %d --http-port %d --admin-port %d "
                             "--replicas %d; `seatgrid dev down` first (make down)",
                             cluster->var, now->port_base, now->http_port, now->admin_port,
                             now->replicas);
    servers_free(running);
    servers_inspect(cluster);
    return error;
}

/* One line more about a port that is taken. */
static void note_taken(struct cluster *cluster, int port, const char *who, const char *option,
                       const char *variable)
{
    char owner[128];
    size_t len = strlen(cluster->problem);
    if (port_is_free(port))
        return;
    port_owner(port, owner, sizeof(owner));
    snprintf(cluster->problem + len, sizeof(cluster->problem) - len,
             "%sport %d is taken by %s; %s needs it; %s N moves it (make: %s=N)",
             len ? "\nseatgrid: " : "", port, owner, who, option, variable);
}

static enum sg_error check_ports(struct cluster *cluster)
{
    const struct cluster_options *options = &cluster->options;
    for (size_t i = 0; i < cluster->node_count; i++) {
        const struct server *node = &cluster->nodes[i];
        if (!node->id.pid)
            note_taken(cluster, node->port, node->name, "--port-base", "PORT_BASE");
    }
    if (!cluster->redis.id.pid)
        note_taken(cluster, cluster->redis.port, "redis", "--port-base", "PORT_BASE");
    if (!cluster->cdc.id.pid && !options->servers_only && !options->no_serve && !options->no_cdc)
        note_taken(cluster, cluster->cdc.port, "cdc", "--port-base", "PORT_BASE");
    if (!cluster->serve.id.pid && !options->servers_only && !options->no_serve) {
        note_taken(cluster, options->http_port, "the API", "--http-port", "HTTP_PORT");
        note_taken(cluster, options->admin_port, "the admin API", "--admin-port", "ADMIN_PORT");
    }
    return cluster->problem[0] ? SG_IO : SG_OK;
}

static bool shard_exists(const struct cluster *cluster, const char *shard)
{
    for (size_t i = 0; i < cluster->node_count; i++) {
        const struct server *node = &cluster->nodes[i];
        if (strcmp(node->shard, shard) == 0 && postgres_exists(cluster, node))
            return true;
    }
    return false;
}

/* A shard without data gets its first node from initdb, all shards at the same time. */
static enum sg_error make_primaries(struct cluster *cluster)
{
    struct process_id makers[CLUSTER_NODES_MAX] = {0};
    enum sg_error error = SG_OK;
    const char *shard = "";
    for (size_t i = 0; !error && i < cluster->node_count; i++) {
        const struct server *node = &cluster->nodes[i];
        bool first = strcmp(node->shard, shard) != 0;
        shard = node->shard;
        if (!first || shard_exists(cluster, shard))
            continue;
        cluster_say(node->name, "initdb");
        error = postgres_init_begin(cluster, node, &makers[i]);
    }
    for (size_t i = 0; i < cluster->node_count; i++) {
        if (!makers[i].pid)
            continue;
        enum sg_error one = postgres_init_end(cluster, &cluster->nodes[i], &makers[i]);
        error = error ? error : one;
    }
    return error;
}

/* Starts the nodes of one role, waits for all of them. */
static enum sg_error start_nodes(struct cluster *cluster, bool standbys)
{
    enum sg_error error = SG_OK;
    for (size_t i = 0; !error && i < cluster->node_count; i++) {
        struct server *node = &cluster->nodes[i];
        if (!node->id.pid && postgres_exists(cluster, node) &&
            postgres_is_standby(cluster, node) == standbys)
            error = postgres_start(cluster, node);
    }
    for (size_t i = 0; !error && i < cluster->node_count; i++) {
        struct server *node = &cluster->nodes[i];
        if (!node->id.pid || postgres_is_standby(cluster, node) != standbys)
            continue;
        error = postgres_wait_ready(cluster, node);
        if (!error)
            cluster_say(node->name, "%s on 127.0.0.1:%d%s", standbys ? "replica" : "primary",
                        node->port, node->started_here ? "" : ", runs already");
    }
    return error;
}

static enum sg_error start_primaries(struct cluster *cluster)
{
    return start_nodes(cluster, false);
}

static enum sg_error prepare_databases(struct cluster *cluster)
{
    enum sg_error error = SG_OK;
    const char *shard = "";
    for (size_t i = 0; !error && i < cluster->node_count; i++) {
        if (strcmp(cluster->nodes[i].shard, shard) == 0)
            continue;
        shard = cluster->nodes[i].shard;
        const struct server *primary = postgres_primary(cluster, shard);
        if (!primary)
            return cluster_fail(cluster, "shard %s: all its nodes are replicas; promote one",
                                shard);
        error = postgres_prepare(cluster, primary);
    }
    return error;
}

static enum sg_error migrate(struct cluster *cluster)
{
    bool changed;
    if (cluster->options.servers_only)
        return SG_OK;
    enum sg_error error = configs_write(cluster, &changed);
    struct server *const programs[] = {&cluster->serve, &cluster->cdc};
    for (size_t i = 0; !error && changed && i < 2; i++) {
        if (!programs[i]->id.pid)
            continue;
        cluster_say(programs[i]->name, "other settings: starting it anew");
        program_stop(cluster, programs[i]);
        program_inspect(cluster, programs[i]);
    }
    return error ? error : migrated_all(cluster);
}

static enum sg_error make_replicas(struct cluster *cluster)
{
    struct process_id makers[CLUSTER_NODES_MAX] = {0};
    enum sg_error error = SG_OK;
    for (size_t i = 0; !error && i < cluster->node_count; i++) {
        const struct server *node = &cluster->nodes[i];
        if (postgres_exists(cluster, node))
            continue;
        const struct server *primary = postgres_primary(cluster, node->shard);
        cluster_say(node->name, "pg_basebackup of %s", primary->name);
        error = postgres_copy_begin(cluster, node, primary, &makers[i]);
    }
    for (size_t i = 0; i < cluster->node_count; i++) {
        if (!makers[i].pid)
            continue;
        enum sg_error one = postgres_copy_end(cluster, &cluster->nodes[i], &makers[i]);
        error = error ? error : one;
    }
    return error;
}

static enum sg_error start_replicas(struct cluster *cluster)
{
    return start_nodes(cluster, true);
}

static enum sg_error start_redis(struct cluster *cluster)
{
    bool runs = cluster->redis.id.pid != 0;
    enum sg_error error = runs ? SG_OK : redis_start(cluster);
    if (!error)
        cluster_say("redis", "on 127.0.0.1:%d%s", cluster->redis.port,
                    runs ? ", runs already" : "");
    return error;
}

static enum sg_error start_cdc(struct cluster *cluster)
{
    const struct cluster_options *options = &cluster->options;
    bool runs = cluster->cdc.id.pid != 0;
    if (options->servers_only || options->no_serve || options->no_cdc)
        return SG_OK;
    enum sg_error error = runs ? SG_OK : program_start(cluster, &cluster->cdc);
    if (!error)
        cluster_say("cdc", "admin http://127.0.0.1:%d%s", cluster->cdc.port,
                    runs ? ", runs already" : "");
    return error;
}

static enum sg_error start_serve(struct cluster *cluster)
{
    const struct cluster_options *options = &cluster->options;
    bool runs = cluster->serve.id.pid != 0;
    if (options->servers_only || options->no_serve)
        return SG_OK;
    enum sg_error error = runs ? SG_OK : program_start(cluster, &cluster->serve);
    if (!error)
        cluster_say("serve", "http://127.0.0.1:%d, admin http://127.0.0.1:%d%s", options->http_port,
                    options->admin_port, runs ? ", runs already" : "");
    return error;
}

static const struct step up_steps[] = {
    {"opening the folder", open_folder},
    {"locking it", folders_lock},
    {"choosing the data folder", open_servers},
    {"planning", plan},
    {"looking around", look_around},
    {"checking ports", check_ports},
    {"noting the options", layout_remember_options},
    {"making primaries", make_primaries},
    {"starting primaries", start_primaries},
    {"preparing databases", prepare_databases},
    {"migrating", migrate},
    {"making replicas", make_replicas},
    {"starting replicas", start_replicas},
    {"starting Redis", start_redis},
    {"starting the consumer", start_cdc},
    {"starting the API", start_serve},
};

/* --- up and run ------------------------------------------------------------------------------- */

static enum sg_error run_steps(struct cluster *cluster)
{
    enum sg_error error = SG_OK;
    for (size_t i = 0; !error && i < sizeof(up_steps) / sizeof(up_steps[0]); i++) {
        error = up_steps[i].fn(cluster);
        if (!error && process_interrupted())
            error = cluster_fail(cluster, "interrupted while %s", up_steps[i].name);
    }
    if (error && servers_started_here(cluster)) {
        fprintf(stderr, "seatgrid: %s\nseatgrid: stopping what was started\n", cluster->problem);
        cluster->problem[0] = '\0';
        process_interrupt_reset();
        servers_stop(cluster, true);
    }
    return error;
}

enum sg_error cluster_up(const struct cluster_options *options)
{
    struct cluster *cluster = servers_new(options);
    process_catch_signals();
    enum sg_error error = run_steps(cluster);
    if (!error && !servers_started_here(cluster))
        printf("All of it runs already.\n");
    return servers_finish(cluster, error);
}

/* Before `run` starts anything: what runs in the background is not its own to stop. */
static enum sg_error refuse_if_running(const char *var)
{
    struct cluster *cluster = servers_of(var);
    enum sg_error error = folders_open(cluster, false);
    if (!error)
        error = folders_servers(cluster, false);
    if (error) {
        servers_free(cluster);
        return SG_OK; /* nothing there yet; up says what else is wrong */
    }
    layout_complete_options(cluster);
    layout_scan(cluster);
    servers_inspect(cluster);
    if (servers_count_running(cluster) > 0)
        error = cluster_fail(cluster, "%s runs already; `seatgrid dev down --var %s` stops it",
                             cluster->var, var);
    return servers_finish(cluster, error);
}

/* Tells once of a server that has ended. */
static void watch_one(struct server *server)
{
    if (!server->id.pid || process_alive(&server->id))
        return;
    cluster_say(server->name, "has ended; `seatgrid dev start %s` brings it back", server->name);
    server->id.pid = 0;
}

/* Until a signal comes or serve ends. */
static enum sg_error watch(struct cluster *cluster)
{
    while (!process_interrupted()) {
        process_reap();
        if (!process_alive(&cluster->serve.id)) {
            program_inspect(cluster, &cluster->serve); /* started anew by another command? */
            if (!cluster->serve.id.pid)
                return cluster_fail(cluster, "seatgrid serve has ended");
        }
        for (size_t i = 0; i < cluster->node_count; i++)
            watch_one(&cluster->nodes[i]);
        watch_one(&cluster->redis);
        watch_one(&cluster->cdc);
        process_sleep_ms(WATCH_MS);
    }
    return SG_OK;
}

/* A `down` or `start` of another terminal may be at work: wait for it. */
static void lock_again(struct cluster *cluster)
{
    for (int i = 0; i < LOCK_TRIES && folders_lock(cluster) == SG_RELOAD_BUSY; i++)
        process_sleep_ms(100);
    cluster->problem[0] = '\0';
}

enum sg_error cluster_run(struct cluster_options *options)
{
    char why[sizeof(((struct cluster *)0)->problem)] = "";
    process_catch_signals();
    if (refuse_if_running(options->var))
        return SG_IO;
    options->foreground = true;
    struct cluster *cluster = servers_new(options);
    enum sg_error error = run_steps(cluster);
    if (error)
        return servers_finish(cluster, error);

    error = demo_play(cluster);
    folders_unlock(cluster);
    if (!error)
        error = watch(cluster);
    if (error)
        snprintf(why, sizeof(why), "%s", cluster->problem);
    process_interrupt_reset();
    lock_again(cluster);
    servers_inspect(cluster);
    if (servers_count_running(cluster) == 0) {
        printf("Stopped from elsewhere.\n");
        return servers_finish(cluster, SG_OK);
    }
    if (error)
        cluster_show_log(cluster, "serve");
    printf("\nStopping.\n");
    servers_stop(cluster, false);
    snprintf(cluster->problem, sizeof(cluster->problem), "%s", why);
    return servers_finish(cluster, error);
}
