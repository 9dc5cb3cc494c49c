/*
 * `seatgrid dev`: a local cluster of plain processes. Arguments in, one call of dev/cluster.h out.
 *
 * SPDX-License-Identifier: MIT
 */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/options.h"
#include "dev/cluster.h"
#include "dev/process.h"
#include "dev/rejoin.h"
#include "dev/servers.h"

static const char usage[] =
    "Usage: seatgrid dev up|run [options]\n"
    "       seatgrid dev down|destroy|status [--var DIR]\n"
    "       seatgrid dev start|stop|kill|pause|resume SERVER [--var DIR]\n"
    "       seatgrid dev promote NODE [--force] [--var DIR]\n"
    "       seatgrid dev rejoin NODE [UPSTREAM] [--var DIR]\n"
    "\n"
    "A local cluster without containers: two shards, each a primary and its\n"
    "replicas, a Redis, `seatgrid cdc`, `seatgrid serve` and `seatgrid mockpay`.\n"
    "\n"
    "  up       start what does not run yet; returns when the API is ready\n"
    "  run      the same in the foreground, with a demo event; Ctrl-C stops it\n"
    "  down     stop all of it; the data stays\n"
    "  destroy  stop it and remove the data\n"
    "  status   list the servers; exit 1 if one does not run\n"
    "  start, stop    one server, by the name that `status` shows\n"
    "  kill           the same, as a power cut would (SIGKILL)\n"
    "  pause, resume  it takes connections and says nothing (SIGSTOP)\n"
    "  promote  make a replica the primary; the others of its shard follow\n"
    "  rejoin   make a node a replica of its shard's primary, e.g. an old one; with\n"
    "           UPSTREAM: have a running replica stream from that node\n"
    "\n"
    "      --var DIR         folder of the cluster (default: var)\n"
    "      --port-base N     first port of the servers (default: 8100)\n"
    "      --http-port N     the API (default: 8080)\n"
    "      --admin-port N    the admin API (default: 8081)\n"
    "      --replicas N      a shard, 0 to 8 (default: 1)\n"
    "      --ha              every shard under Patroni, with etcd\n"
    "      --queue           with RabbitMQ and `seatgrid worker`: bookings for later\n"
    "      --durability D    sync (a write waits for a replica) or async (default)\n"
    "      --strategy S      batched, pessimistic, optimistic or naive\n"
    "      --set KEY=VALUE   a setting for seatgrid.cfg, e.g. booking.max_seats=5\n"
    "      --no-cdc          all but `seatgrid cdc`\n"
    "      --no-serve        the servers and their schema, none of our programs\n"
    "      --servers-only    PostgreSQL and Redis, empty\n"
    "      --force           start even an old primary, as a second one; promote a\n"
    "                        replica that lacks what another one has\n"
    "      --json            status for programs\n"
    "      --help            this text\n"
    "\n"
    "Ports, replicas, durability, --ha and --queue not given are those of the last\n"
    "time.\n";

#define PORT_MAX 65535

struct arguments {
    struct cluster_options cluster;
    const char *verb;
    const char *server; /* of the verbs for one */
    const char *upstream;
    bool json;
    bool force;
};

static bool take_set(void *arg, const char *name, const char *text)
{
    struct cluster_options *cluster = arg;
    if (!strchr(text, '=') || text[0] == '=') {
        fprintf(stderr, "seatgrid: --%s %s: KEY=VALUE is wanted\n", name, text);
        return false;
    }
    if (cluster->set_count == CLUSTER_SETS_MAX) {
        fprintf(stderr, "seatgrid: --%s: at most %d\n", name, CLUSTER_SETS_MAX);
        return false;
    }
    cluster->sets[cluster->set_count++] = text;
    return true;
}

static bool take_durability(void *arg, const char *name, const char *text)
{
    int *ret_sync = arg;
    if (strcmp(text, "sync") != 0 && strcmp(text, "async") != 0) {
        fprintf(stderr, "seatgrid: --%s %s: sync or async is wanted\n", name, text);
        return false;
    }
    *ret_sync = strcmp(text, "sync") == 0;
    return true;
}

/* --- one server ------------------------------------------------------------------------------- */

static enum sg_error start(struct cluster *cluster, const struct arguments *arguments)
{
    const char *name = arguments->server;
    struct server *server = servers_find(cluster, name);
    bool runs = server && server->id.pid;
    enum sg_error error = cluster_start_one(cluster, name, arguments->force);
    if (error)
        return error;
    if (runs)
        cluster_say(name, "runs already");
    else
        cluster_say(name, "on 127.0.0.1:%d", servers_find(cluster, name)->port);
    return SG_OK;
}

static enum sg_error stop(struct cluster *cluster, const struct arguments *arguments)
{
    enum sg_error error = cluster_stop_one(cluster, arguments->server);
    if (!error)
        cluster_say(arguments->server, "stopped");
    return error;
}

static enum sg_error kill_one(struct cluster *cluster, const struct arguments *arguments)
{
    enum sg_error error = cluster_kill_one(cluster, arguments->server);
    if (!error)
        cluster_say(arguments->server, "killed");
    return error;
}

static enum sg_error pause_one(struct cluster *cluster, const struct arguments *arguments)
{
    enum sg_error error = cluster_pause_one(cluster, arguments->server);
    if (!error)
        cluster_say(arguments->server, "frozen; `seatgrid dev resume %s` wakes it",
                    arguments->server);
    return error;
}

static enum sg_error resume(struct cluster *cluster, const struct arguments *arguments)
{
    enum sg_error error = cluster_resume_one(cluster, arguments->server);
    if (!error)
        cluster_say(arguments->server, "goes on");
    return error;
}

static enum sg_error promote(struct cluster *cluster, const struct arguments *arguments)
{
    const char *name = arguments->server;
    struct cluster_promotion promotion;
    enum sg_error error = cluster_promote(cluster, name, arguments->force, &promotion);
    if (error)
        return error;
    if (promotion.already) {
        cluster_say(name, "is the primary already");
        return SG_OK;
    }
    cluster_say(name, "is the primary after %.3f s", (double)promotion.promoted_us / 1e6);
    if (promotion.followers > 0)
        cluster_say("", "%d other replica%s followed after %.3f s", promotion.followers,
                    promotion.followers > 1 ? "s" : "", (double)promotion.followed_us / 1e6);
    if (promotion.astray[0])
        cluster_say(promotion.astray, "does not follow; `seatgrid dev rejoin %s` mends it",
                    promotion.astray);
    if (promotion.former[0] && cluster->options.ha == 1)
        cluster_say(promotion.former, "was it before; Patroni makes it a replica");
    else if (promotion.former[0])
        cluster_say(promotion.former, "was it before; `seatgrid dev rejoin %s` makes it a replica",
                    promotion.former);
    return SG_OK;
}

static enum sg_error rejoin(struct cluster *cluster, const struct arguments *arguments)
{
    struct cluster_rejoin report;
    enum sg_error error = cluster_rejoin(cluster, arguments->server, arguments->upstream, &report);
    if (!error)
        cluster_say(arguments->server, "%s %s (%.1f s)", rejoin_way_text(report.way),
                    report.primary, (double)report.took_us / 1e6);
    return error;
}

static const struct verb {
    const char *name;
    enum sg_error (*fn)(struct cluster *cluster, const struct arguments *arguments);
} verbs[] = {
    {"start", start},   {"stop", stop},       {"kill", kill_one}, {"pause", pause_one},
    {"resume", resume}, {"promote", promote}, {"rejoin", rejoin},
};

static const struct verb *find_verb(const char *name)
{
    for (size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++) {
        if (strcmp(verbs[i].name, name) == 0)
            return &verbs[i];
    }
    return NULL;
}

static enum sg_error on_one_server(const struct verb *verb, const struct arguments *arguments)
{
    struct cluster *cluster = servers_of(arguments->cluster.var);
    process_catch_signals();
    enum sg_error error = servers_open(cluster, false);
    if (!error)
        error = verb->fn(cluster, arguments);
    return servers_finish(cluster, error);
}

/* --- the command line ------------------------------------------------------------------------- */

/* -1 to go on, else the exit code. */
static int parse(int argc, char **argv, struct arguments *ret)
{
    struct cluster_options *cluster = &ret->cluster;
    bool ha = false;
    bool queue = false;
    const struct cli_option options[] = {
        {.name = "var", .text = &cluster->var},
        {.name = "port-base", .number = &cluster->port_base, .most = PORT_MAX},
        {.name = "http-port", .number = &cluster->http_port, .most = PORT_MAX},
        {.name = "admin-port", .number = &cluster->admin_port, .most = PORT_MAX},
        {.name = "replicas", .number = &cluster->replicas, .most = CLUSTER_REPLICAS_MAX},
        {.name = "strategy", .text = &cluster->strategy},
        {.name = "durability", .take = take_durability, .arg = &cluster->sync},
        {.name = "force", .flag = &ret->force},
        {.name = "ha", .flag = &ha},
        {.name = "queue", .flag = &queue},
        {.name = "set", .take = take_set, .arg = cluster},
        {.name = "no-serve", .flag = &cluster->no_serve},
        {.name = "no-cdc", .flag = &cluster->no_cdc},
        {.name = "servers-only", .flag = &cluster->servers_only},
        {.name = "json", .flag = &ret->json},
        {0}};
    int code = cli_options(argc, argv, usage, options, 3);
    if (code >= 0)
        return code;
    if (ha)
        cluster->ha = 1;
    if (queue)
        cluster->queue = 1;
    char **words = argv + 1;
    if (*words)
        ret->verb = *words++;
    if (*words && find_verb(ret->verb))
        ret->server = *words++;
    if (*words && ret->server && strcmp(ret->verb, "rejoin") == 0)
        ret->upstream = *words++;
    if (!ret->verb || *words) {
        fputs(usage, stderr);
        return 2;
    }
    return -1;
}

static int exit_code(enum sg_error error)
{
    if (error == SG_CONFIG_INVALID)
        return 2;
    return error ? 1 : 0;
}

static int dispatch(struct arguments *arguments)
{
    const char *verb = arguments->verb;
    const char *var = arguments->cluster.var;
    if (strcmp(verb, "up") == 0)
        return exit_code(cluster_up(&arguments->cluster));
    if (strcmp(verb, "run") == 0)
        return exit_code(cluster_run(&arguments->cluster));
    if (strcmp(verb, "down") == 0)
        return exit_code(cluster_down(var));
    if (strcmp(verb, "destroy") == 0)
        return exit_code(cluster_destroy(var));
    if (strcmp(verb, "status") == 0)
        return exit_code(cluster_status(var, arguments->json));
    if (arguments->server)
        return exit_code(on_one_server(find_verb(verb), arguments));
    fprintf(stderr, "seatgrid: dev %s: no such command, or the server's name is missing\n", verb);
    fputs(usage, stderr);
    return 2;
}

int cli_dev(int argc, char **argv)
{
    struct arguments arguments = {.cluster = {.var = "var",
                                              .port_base = CLUSTER_UNSET,
                                              .http_port = CLUSTER_UNSET,
                                              .admin_port = CLUSTER_UNSET,
                                              .replicas = CLUSTER_UNSET,
                                              .sync = CLUSTER_UNSET,
                                              .ha = CLUSTER_UNSET,
                                              .queue = CLUSTER_UNSET}};
    int code = parse(argc, argv, &arguments);
    return code >= 0 ? code : dispatch(&arguments);
}
