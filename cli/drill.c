/*
 * `seatgrid drill`: faults in a local cluster under a load. Arguments in, one call of drill/drill.h
 * out.
 *
 * SPDX-License-Identifier: MIT
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "drill/drill.h"
#include "drill/scenario.h"

static const char usage[] =
    "Usage: seatgrid drill NAME [options]\n"
    "\n"
    "Makes faults in a local cluster of its own, under a load, and tells what they\n"
    "cost. Every request and answer is checked against the databases afterwards.\n"
    "Exit code 0: every promise was kept; 1: one was broken; 2: wrong usage.\n"
    "\n";

static const char usage_options[] =
    "  all           each of these\n"
    "  random        any of them, one after the other\n"
    "\n"
    "      --times N          faults of each drill (default: one of each kind)\n"
    "      --faults N         of random, all in all (default: 50)\n"
    "      --seconds N        each drill lasts that long at least (default: 10);\n"
    "                         random begins no fault after it (default: 3600)\n"
    "      --rate N           bookings a second, and a third of that reads\n"
    "                         (default: 300)\n"
    "      --durability D     sync or async (default: sync)\n"
    "      --replicas N       a shard (default: 2)\n"
    "      --ha               Patroni does the promotions\n"
    "      --seed N           of what is asked and which faults come (default: 1)\n"
    "      --var DIR          a cluster of `seatgrid dev` that runs, not one of its own\n"
    "      --port-base N      first port of its own cluster (default: free ones)\n"
    "      --keep DIR         make its own cluster there, and leave data, logs and the\n"
    "                         history of all requests\n"
    "      --strict           promises of speed decide, too\n"
    "      --json             output for programs\n"
    "      --help             this text\n";

enum { OPT_TIMES = 256, OPT_FAULTS, OPT_SECONDS, OPT_RATE, OPT_DURABILITY, OPT_REPLICAS, OPT_HA };
enum { OPT_SEED = OPT_HA + 1, OPT_VAR, OPT_BASE, OPT_KEEP, OPT_STRICT, OPT_JSON, OPT_HELP };

static const struct option long_options[] = {
    {"times", required_argument, NULL, OPT_TIMES},
    {"faults", required_argument, NULL, OPT_FAULTS},
    {"seconds", required_argument, NULL, OPT_SECONDS},
    {"rate", required_argument, NULL, OPT_RATE},
    {"durability", required_argument, NULL, OPT_DURABILITY},
    {"replicas", required_argument, NULL, OPT_REPLICAS},
    {"ha", no_argument, NULL, OPT_HA},
    {"seed", required_argument, NULL, OPT_SEED},
    {"var", required_argument, NULL, OPT_VAR},
    {"port-base", required_argument, NULL, OPT_BASE},
    {"keep", required_argument, NULL, OPT_KEEP},
    {"strict", no_argument, NULL, OPT_STRICT},
    {"json", no_argument, NULL, OPT_JSON},
    {"help", no_argument, NULL, OPT_HELP},
    {NULL, 0, NULL, 0}};

static void print_usage(FILE *out)
{
    fputs(usage, out);
    for (size_t i = 0; i < scenario_count; i++)
        fprintf(out, "  %-12s  %s\n", scenarios[i].name, scenarios[i].help);
    fputs(usage_options, out);
}

static bool parse_number(const char *name, long long least, long long most, int *ret_number)
{
    char *end;
    long long number = strtoll(optarg, &end, 10);
    if (!*optarg || *end || number < least || number > most) {
        fprintf(stderr, "seatgrid: --%s %s: not a number between %lld and %lld\n", name, optarg,
                least, most);
        return false;
    }
    *ret_number = (int)number;
    return true;
}

static bool parse_durability(bool *ret_sync)
{
    *ret_sync = strcmp(optarg, "sync") == 0;
    if (*ret_sync || strcmp(optarg, "async") == 0)
        return true;
    fprintf(stderr, "seatgrid: --durability %s: sync or async\n", optarg);
    return false;
}

static bool take_option(int option, const char *name, struct drill_options *ret)
{
    int seed;
    switch (option) {
    case OPT_TIMES:
    case OPT_FAULTS:
        return parse_number(name, 1, 100000, &ret->times);
    case OPT_SECONDS:
        return parse_number(name, 1, 1000000, &ret->seconds);
    case OPT_RATE:
        return parse_number(name, 10, 100000, &ret->rate);
    case OPT_DURABILITY:
        return parse_durability(&ret->rig.sync);
    case OPT_REPLICAS:
        return parse_number(name, 0, CLUSTER_REPLICAS_MAX, &ret->rig.replicas);
    case OPT_HA:
        return ret->rig.ha = true;
    case OPT_SEED:
        if (!parse_number(name, 0, 2147483647, &seed))
            return false;
        ret->seed = (uint64_t)seed;
        return true;
    case OPT_VAR:
        ret->rig.var = optarg;
        return true;
    case OPT_BASE:
        return parse_number(name, 1, 65000, &ret->rig.port_base);
    case OPT_KEEP:
        ret->rig.keep = optarg;
        return true;
    case OPT_STRICT:
        return ret->strict = true;
    case OPT_JSON:
        return ret->json = true;
    default:
        print_usage(stderr);
        return false;
    }
}

/* What does not go together. */
static bool check(const struct drill_options *options, bool own)
{
    const char *problem = NULL;
    const char *name = options->name;
    if (!scenario_find(name) && strcmp(name, DRILL_ALL) != 0 && strcmp(name, DRILL_RANDOM) != 0) {
        fprintf(stderr, "seatgrid: drill %s: no such drill; `seatgrid drill --help` lists them\n",
                name);
        return false;
    }
    if (options->rig.var && own)
        problem = "--var DIR is a cluster that runs: --keep, --port-base, --replicas, --durability"
                  " and --ha are for one of the drill's own";
    else if (!options->rig.var && options->rig.sync && options->rig.replicas == 0)
        problem = "--durability sync waits for a replica: --replicas 1 or more, or async";
    if (problem)
        fprintf(stderr, "seatgrid: %s\n", problem);
    return !problem;
}

static bool is_of_own_cluster(int option)
{
    return option == OPT_KEEP || option == OPT_BASE || option == OPT_REPLICAS ||
           option == OPT_DURABILITY || option == OPT_HA;
}

int cli_drill(int argc, char **argv)
{
    struct drill_options options = {.rig = {.replicas = 2, .sync = true},
                                    .seconds = DRILL_UNSET,
                                    .rate = DRILL_UNSET,
                                    .times = DRILL_UNSET,
                                    .seed = 1};
    int option;
    int index = 0;
    bool own = false;
    optind = 1;
    while ((option = getopt_long(argc, argv, "", long_options, &index)) != -1) {
        if (option == OPT_HELP) {
            print_usage(stdout);
            return 0;
        }
        own |= is_of_own_cluster(option);
        if (!take_option(option, long_options[index].name, &options))
            return 2;
    }
    if (optind + 1 != argc) {
        print_usage(stderr);
        return 2;
    }
    options.name = argv[optind];
    return check(&options, own) ? drill_run(&options) : 2;
}
