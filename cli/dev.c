/*
 * `seatgrid dev`: a local cluster of plain processes. Arguments in, one call of dev/cluster.h out.
 *
 * SPDX-License-Identifier: MIT
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "dev/cluster.h"

static const char usage[] =
    "Usage: seatgrid dev up|run [options]\n"
    "       seatgrid dev down|destroy|status [--var DIR]\n"
    "       seatgrid dev start|stop SERVER [--var DIR]\n"
    "\n"
    "A local cluster without containers: two shards, each a primary and its\n"
    "replicas, a Redis, `seatgrid cdc` and `seatgrid serve`.\n"
    "\n"
    "  up       start what does not run yet; returns when the API is ready\n"
    "  run      the same in the foreground, with a demo event; Ctrl-C stops it\n"
    "  down     stop all of it; the data stays\n"
    "  destroy  stop it and remove the data\n"
    "  status   list the servers; exit 1 if one does not run\n"
    "  start, stop  one server: a node's name, redis, cdc or serve\n"
    "\n"
    "      --var DIR         folder of the cluster (default: var)\n"
    "      --port-base N     first port of the servers (default: 8100)\n"
    "      --http-port N     the API (default: 8080)\n"
    "      --admin-port N    the admin API (default: 8081)\n"
    "      --replicas N      a shard, 0 to 8 (default: 1)\n"
    "      --strategy S      batched, pessimistic, optimistic or naive\n"
    "      --set KEY=VALUE   a setting for seatgrid.cfg, e.g. booking.max_seats=5\n"
    "      --no-cdc          all but `seatgrid cdc`\n"
    "      --no-serve        all but `seatgrid serve` and `seatgrid cdc`\n"
    "      --servers-only    PostgreSQL and Redis, empty\n"
    "      --json            status for programs\n"
    "      --help            this text\n"
    "\n"
    "Ports and replicas not given are those of the last time.\n";

enum { OPT_VAR = 256, OPT_BASE, OPT_HTTP, OPT_ADMIN, OPT_REPLICAS, OPT_STRATEGY, OPT_SET };
enum { OPT_NO_SERVE = OPT_SET + 1, OPT_NO_CDC, OPT_SERVERS_ONLY, OPT_JSON, OPT_HELP };

static const struct option long_options[] = {{"var", required_argument, NULL, OPT_VAR},
                                             {"port-base", required_argument, NULL, OPT_BASE},
                                             {"http-port", required_argument, NULL, OPT_HTTP},
                                             {"admin-port", required_argument, NULL, OPT_ADMIN},
                                             {"replicas", required_argument, NULL, OPT_REPLICAS},
                                             {"strategy", required_argument, NULL, OPT_STRATEGY},
                                             {"set", required_argument, NULL, OPT_SET},
                                             {"no-serve", no_argument, NULL, OPT_NO_SERVE},
                                             {"no-cdc", no_argument, NULL, OPT_NO_CDC},
                                             {"servers-only", no_argument, NULL, OPT_SERVERS_ONLY},
                                             {"json", no_argument, NULL, OPT_JSON},
                                             {"help", no_argument, NULL, OPT_HELP},
                                             {NULL, 0, NULL, 0}};

struct arguments {
    struct cluster_options cluster;
    const char *verb;
    const char *server; /* of start and stop */
    bool json;
};

static bool parse_number(const char *name, const char *text, int *ret_number)
{
    char *end;
    long number = strtol(text, &end, 10);
    if (!*text || *end || number < 0 || number > 65535) {
        fprintf(stderr, "seatgrid: --%s %s: not a number between 0 and 65535\n", name, text);
        return false;
    }
    *ret_number = (int)number;
    return true;
}

static bool add_set(struct cluster_options *cluster, const char *set)
{
    if (!strchr(set, '=') || set[0] == '=') {
        fprintf(stderr, "seatgrid: --set %s: KEY=VALUE is wanted\n", set);
        return false;
    }
    if (cluster->set_count == CLUSTER_SETS_MAX) {
        fprintf(stderr, "seatgrid: --set: at most %d\n", CLUSTER_SETS_MAX);
        return false;
    }
    cluster->sets[cluster->set_count++] = set;
    return true;
}

static bool take_option(int option, const char *name, struct arguments *ret)
{
    struct cluster_options *cluster = &ret->cluster;
    switch (option) {
    case OPT_VAR:
        cluster->var = optarg;
        return true;
    case OPT_BASE:
        return parse_number(name, optarg, &cluster->port_base);
    case OPT_HTTP:
        return parse_number(name, optarg, &cluster->http_port);
    case OPT_ADMIN:
        return parse_number(name, optarg, &cluster->admin_port);
    case OPT_REPLICAS:
        return parse_number(name, optarg, &cluster->replicas);
    case OPT_STRATEGY:
        cluster->strategy = optarg;
        return true;
    case OPT_SET:
        return add_set(cluster, optarg);
    case OPT_NO_SERVE:
        cluster->no_serve = true;
        return true;
    case OPT_NO_CDC:
        cluster->no_cdc = true;
        return true;
    case OPT_SERVERS_ONLY:
        cluster->servers_only = true;
        return true;
    case OPT_JSON:
        ret->json = true;
        return true;
    default:
        fputs(usage, stderr);
        return false;
    }
}

/* -1 to go on, else the exit code. */
static int parse(int argc, char **argv, struct arguments *ret)
{
    int option;
    int index = 0;
    optind = 1;
    while ((option = getopt_long(argc, argv, "", long_options, &index)) != -1) {
        if (option == OPT_HELP) {
            fputs(usage, stdout);
            return 0;
        }
        if (!take_option(option, long_options[index].name, ret))
            return 2;
    }
    if (optind < argc)
        ret->verb = argv[optind++];
    if (optind < argc && (strcmp(ret->verb, "start") == 0 || strcmp(ret->verb, "stop") == 0))
        ret->server = argv[optind++];
    if (!ret->verb || optind < argc) {
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
    if (arguments->server && strcmp(verb, "start") == 0)
        return exit_code(cluster_start_one(var, arguments->server));
    if (arguments->server && strcmp(verb, "stop") == 0)
        return exit_code(cluster_stop_one(var, arguments->server));
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
                                              .replicas = CLUSTER_UNSET}};
    int code = parse(argc, argv, &arguments);
    return code >= 0 ? code : dispatch(&arguments);
}
