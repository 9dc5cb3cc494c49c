/*
 * The local cluster as a whole. See cluster.h.
 *
 *   open ─> lock ─> servers' folder ─> plan ─> inspect ─> ports ─┐
 *     ┌──────────────────────────────────────────────────────────┘
 *     └> primaries ─> databases ─> replicas ─> migrations ─> redis ─> cdc ─> mockpay ─> serve
 *
 * and with --ha:     etcd ─> Patroni, until all nodes run ─> databases ─> migrations ...
 * and with --queue:  RabbitMQ first, as it takes long; waited for, and the worker started, after
 * cdc
 *
 * Each word is a step of the list `up_steps`; the first that fails ends the list, and what was
 * started here is stopped in reverse. Replicas come before migrations, because with durability sync
 * a primary confirms nothing without them.
 *
 * SPDX-License-Identifier: MIT
 */
#include "dev/cluster.h"

#include <stdio.h>
#include <string.h>

#include "dev/configs.h"
#include "dev/demo.h"
#include "dev/etcd.h"
#include "dev/folders.h"
#include "dev/migrated.h"
#include "dev/patroni.h"
#include "dev/ports.h"
#include "dev/postgres.h"
#include "dev/programs.h"
#include "dev/rabbitmq.h"
#include "dev/redis.h"
#include "dev/rejoin.h"
#include "dev/roles.h"
#include "dev/servers.h"
#include "dev/standby.h"

#define LOCK_TRIES 300 /* of 100 ms, when a run ends while a down is at work */
#define WATCH_MS 200
#define STREAM_MS 10000

typedef enum sg_error step_fn(struct cluster *cluster);

struct step {
    const char *name;
    step_fn *fn;
    enum { ALWAYS, WITH_PATRONI, WITHOUT } when;
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

static bool has_data(const struct cluster *cluster)
{
    for (size_t i = 0; i < cluster->node_count; i++) {
        if (postgres_exists(cluster, &cluster->nodes[i]))
            return true;
    }
    return false;
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
         now->admin_port != wanted->admin_port || now->replicas != wanted->replicas ||
         now->sync != wanted->sync || now->ha != wanted->ha || now->queue != wanted->queue))
        error = cluster_fail(cluster,
                             "%s runs already, with --port-base %d --http-port %d --admin-port %d "
                             "--replicas %d --durability %s%s%s; `seatgrid dev down` first (make "
                             "down)",
                             cluster->var, now->port_base, now->http_port, now->admin_port,
                             now->replicas, now->sync == 1 ? "sync" : "async",
                             now->ha == 1 ? " --ha" : "", now->queue == 1 ? " --queue" : "");
    /* Patroni and `dev` itself keep different settings in the data folders. */
    else if (now->ha != wanted->ha && has_data(running))
        error = cluster_fail(cluster,
                             "the data in %s was made %s Patroni; `seatgrid dev destroy` it first, "
                             "or choose another folder with --var (make: VAR=)",
                             cluster->var, now->ha == 1 ? "under" : "without");
    servers_free(running);
    servers_inspect(cluster);
    roles_learn(cluster);
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
    for (size_t i = 0; i < cluster->node_count && options->ha == 1; i++) {
        const struct server *patroni = &cluster->patroni[i];
        if (!patroni->id.pid)
            note_taken(cluster, patroni->port, patroni->name, "--port-base", "PORT_BASE");
    }
    for (int port = cluster->etcd.port;
         port <= cluster->etcd.port + 1 && options->ha == 1 && !cluster->etcd.id.pid; port++)
        note_taken(cluster, port, "etcd", "--port-base", "PORT_BASE");
    if (!cluster->redis.id.pid)
        note_taken(cluster, cluster->redis.port, "redis", "--port-base", "PORT_BASE");
    if (!cluster->cdc.id.pid && !options->servers_only && !options->no_serve && !options->no_cdc)
        note_taken(cluster, cluster->cdc.port, "cdc", "--port-base", "PORT_BASE");
    if (!cluster->mockpay.id.pid && !options->servers_only && !options->no_serve)
        note_taken(cluster, cluster->mockpay.port, "mockpay", "--port-base", "PORT_BASE");
    for (int i = 0; i < RABBITMQ_PORTS && options->queue == 1 && !cluster->rabbitmq.id.pid; i++) {
        if (!rabbitmq_has_port(cluster, i))
            note_taken(cluster, cluster->rabbitmq.port + i, "rabbitmq", "--port-base", "PORT_BASE");
    }
    if (!cluster->worker.id.pid && options->queue == 1 && !options->servers_only &&
        !options->no_serve)
        note_taken(cluster, cluster->worker.port, "worker", "--port-base", "PORT_BASE");
    if (!cluster->serve.id.pid && !options->servers_only && !options->no_serve) {
        note_taken(cluster, options->http_port, "the API", "--http-port", "HTTP_PORT");
        note_taken(cluster, options->admin_port, "the admin API", "--admin-port", "ADMIN_PORT");
    }
    return cluster->problem[0] ? SG_IO : SG_OK;
}

/* --- nodes under Patroni, which does what the steps after these do without it ----------------- */

static enum sg_error start_etcd(struct cluster *cluster)
{
    bool runs = cluster->etcd.id.pid != 0;
    enum sg_error error = runs ? SG_OK : etcd_start(cluster);
    if (!error)
        cluster_say("etcd", "on 127.0.0.1:%d%s", cluster->etcd.port, runs ? ", runs already" : "");
    return error;
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

static bool is_first_of_shard(const struct cluster *cluster, size_t i)
{
    return i == 0 || strcmp(cluster->nodes[i - 1].shard, cluster->nodes[i].shard) != 0;
}

/* The Patronis of a shard settle among themselves who leads. In a new one the first node shall, as
 * it does without Patroni, so it has no rivals until it leads. */
static enum sg_error start_patronis_of(struct cluster *cluster, bool first_of_new)
{
    bool chosen[CLUSTER_NODES_MAX] = {0};
    enum sg_error error = SG_OK;
    for (size_t i = 0; i < cluster->node_count; i++)
        chosen[i] = !first_of_new || (is_first_of_shard(cluster, i) &&
                                      !shard_exists(cluster, cluster->nodes[i].shard));
    for (size_t i = 0; !error && i < cluster->node_count; i++) {
        if (chosen[i] && !cluster->patroni[i].id.pid)
            error = patroni_start(cluster, i);
    }
    for (size_t i = 0; !error && i < cluster->node_count; i++) {
        if (chosen[i])
            error = patroni_wait_node(cluster, i);
    }
    return error;
}

static enum sg_error start_patronis(struct cluster *cluster)
{
    enum sg_error error = start_patronis_of(cluster, true);
    if (!error)
        error = start_patronis_of(cluster, false);
    if (!error)
        error = patroni_note_made(cluster);
    if (error)
        return error;
    roles_learn(cluster);
    for (size_t i = 0; i < cluster->node_count; i++) {
        const struct server *node = &cluster->nodes[i];
        cluster_say(node->name, "%s on 127.0.0.1:%d, Patroni on :%d%s", roles_name(node->role),
                    node->port, cluster->patroni[i].port,
                    cluster->patroni[i].started_here ? "" : ", runs already");
    }
    return SG_OK;
}

/* --- nodes without Patroni -------------------------------------------------------------------- */

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
static enum sg_error start_nodes(struct cluster *cluster, enum server_role role)
{
    enum sg_error error = SG_OK;
    roles_learn(cluster);
    for (size_t i = 0; !error && i < cluster->node_count; i++) {
        struct server *node = &cluster->nodes[i];
        if (!node->id.pid && node->role == role)
            error = postgres_start(cluster, node);
    }
    for (size_t i = 0; !error && i < cluster->node_count; i++) {
        struct server *node = &cluster->nodes[i];
        if (node->role != role)
            continue;
        error = postgres_wait_ready(cluster, node);
        if (!error)
            cluster_say(node->name, "%s on 127.0.0.1:%d%s", roles_name(role), node->port,
                        node->started_here ? "" : ", runs already");
    }
    return error;
}

static enum sg_error start_primaries(struct cluster *cluster)
{
    return start_nodes(cluster, ROLE_PRIMARY);
}

static enum sg_error prepare_databases(struct cluster *cluster)
{
    enum sg_error error = SG_OK;
    const char *shard = "";
    for (size_t i = 0; !error && i < cluster->node_count; i++) {
        if (strcmp(cluster->nodes[i].shard, shard) == 0)
            continue;
        shard = cluster->nodes[i].shard;
        const struct server *primary = roles_primary(cluster, shard);
        if (!primary)
            return cluster_fail(cluster,
                                "shard %s has no primary: `seatgrid dev start NODE`, then "
                                "`seatgrid dev promote NODE` with one of its replicas",
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
    struct server *const programs[] = {&cluster->serve, &cluster->worker, &cluster->mockpay,
                                       &cluster->cdc};
    for (size_t i = 0; !error && changed && i < 4; i++) {
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
        const struct server *primary = roles_primary(cluster, node->shard);
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
    return start_nodes(cluster, ROLE_REPLICA);
}

/* A node that was the primary once, or cannot follow the one of now, is brought back. One that only
 * does not stream yet is left to itself. */
static enum sg_error gather_node(struct cluster *cluster, struct server *node,
                                 struct server *primary)
{
    enum cluster_rejoin_way way;
    if (node->role == ROLE_REPLICA) {
        enum standby_state state = standby_wait(cluster, node, primary, STREAM_MS);
        if (state == STANDBY_WAITS)
            cluster_say(node->name, "does not stream from %s yet", primary->name);
        if (state != STANDBY_ASTRAY)
            return SG_OK;
    }
    cluster_say(node->name, "%s: it rejoins %s", roles_name(node->role), primary->name);
    enum sg_error error = rejoin_node(cluster, node, primary, &way);
    if (!error)
        cluster_say(node->name, "%s %s", rejoin_way_text(way), primary->name);
    return error;
}

static enum sg_error gather_replicas(struct cluster *cluster)
{
    enum sg_error error = SG_OK;
    for (size_t i = 0; !error && i < cluster->node_count; i++) {
        struct server *node = &cluster->nodes[i];
        struct server *primary = roles_primary(cluster, node->shard);
        if (node != primary)
            error = gather_node(cluster, node, primary);
    }
    if (!error && cluster->options.sync == 1 && cluster->options.replicas == 1)
        cluster_say("", "durability sync with one replica: without it no write is confirmed; "
                        "--replicas 2 survives the loss of one");
    return error;
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

static enum sg_error begin_rabbitmq(struct cluster *cluster)
{
    if (cluster->options.queue != 1 || cluster->rabbitmq.id.pid)
        return SG_OK;
    return rabbitmq_begin(cluster);
}

static enum sg_error await_rabbitmq(struct cluster *cluster)
{
    if (cluster->options.queue != 1)
        return SG_OK;
    enum sg_error error = rabbitmq_wait(cluster);
    if (!error)
        cluster_say("rabbitmq", "on 127.0.0.1:%d%s", cluster->rabbitmq.port,
                    cluster->rabbitmq.started_here ? "" : ", runs already");
    return error;
}

static enum sg_error start_worker(struct cluster *cluster)
{
    const struct cluster_options *options = &cluster->options;
    bool runs = cluster->worker.id.pid != 0;
    if (options->queue != 1 || options->servers_only || options->no_serve)
        return SG_OK;
    enum sg_error error = runs ? SG_OK : program_start(cluster, &cluster->worker);
    if (!error)
        cluster_say("worker", "admin http://127.0.0.1:%d%s", cluster->worker.port,
                    runs ? ", runs already" : "");
    return error;
}

static enum sg_error start_mockpay(struct cluster *cluster)
{
    const struct cluster_options *options = &cluster->options;
    bool runs = cluster->mockpay.id.pid != 0;
    if (options->servers_only || options->no_serve)
        return SG_OK;
    enum sg_error error = runs ? SG_OK : program_start(cluster, &cluster->mockpay);
    if (!error)
        cluster_say("mockpay", "the payment service, http://127.0.0.1:%d%s", cluster->mockpay.port,
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
    {"opening the folder", open_folder, ALWAYS},
    {"locking it", folders_lock, ALWAYS},
    {"choosing the data folder", open_servers, ALWAYS},
    {"planning", plan, ALWAYS},
    {"looking around", look_around, ALWAYS},
    {"checking ports", check_ports, ALWAYS},
    {"noting the options", layout_remember_options, ALWAYS},
    {"starting RabbitMQ", begin_rabbitmq, ALWAYS},
    {"clearing what was half made", patroni_clear_half_made, WITH_PATRONI},
    {"starting etcd", start_etcd, WITH_PATRONI},
    {"waiting for Patroni", start_patronis, WITH_PATRONI},
    {"making primaries", make_primaries, WITHOUT},
    {"starting primaries", start_primaries, WITHOUT},
    {"preparing databases", prepare_databases, ALWAYS},
    {"making replicas", make_replicas, WITHOUT},
    {"starting replicas", start_replicas, WITHOUT},
    {"gathering replicas", gather_replicas, WITHOUT},
    {"migrating", migrate, ALWAYS},
    {"starting Redis", start_redis, ALWAYS},
    {"starting the consumer", start_cdc, ALWAYS},
    {"waiting for RabbitMQ", await_rabbitmq, ALWAYS},
    {"starting the worker", start_worker, ALWAYS},
    {"starting the payment service", start_mockpay, ALWAYS},
    {"starting the API", start_serve, ALWAYS},
};

static bool is_wanted(const struct step *step, const struct cluster *cluster)
{
    return step->when == ALWAYS || (step->when == WITH_PATRONI) == (cluster->options.ha == 1);
}

/* --- up and run ------------------------------------------------------------------------------- */

static enum sg_error run_steps(struct cluster *cluster)
{
    enum sg_error error = SG_OK;
    for (size_t i = 0; !error && i < sizeof(up_steps) / sizeof(up_steps[0]); i++) {
        if (is_wanted(&up_steps[i], cluster))
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
            watch_one(cluster->options.ha == 1 ? &cluster->patroni[i] : &cluster->nodes[i]);
        watch_one(&cluster->redis);
        watch_one(&cluster->cdc);
        watch_one(&cluster->mockpay);
        watch_one(&cluster->rabbitmq);
        watch_one(&cluster->worker);
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
