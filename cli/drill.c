/*
 * `seatgrid drill`: faults in a local cluster under a load. Arguments in, one call of drill/drill.h
 * out.
 *
 * SPDX-License-Identifier: MIT
 */
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/options.h"
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
    "      --var DIR          a cluster of `seatgrid dev` that runs, none of its own\n"
    "      --port-base N      first port of its own cluster (default: free ones)\n"
    "      --keep DIR         make its own cluster there, and leave data, logs and\n"
    "                         the history of all requests\n"
    "      --strict           promises of speed decide, too\n"
    "      --json             output for programs\n"
    "      --help             this text\n";

/* The usage, with the drills that there are. */
static const char *whole_usage(void)
{
    static char text[sizeof(usage) + sizeof(usage_options) + 4096];
    size_t len = (size_t)snprintf(text, sizeof(text), "%s", usage);
    for (size_t i = 0; i < scenario_count; i++)
        len += (size_t)snprintf(text + len, sizeof(text) - len, "  %-12s  %s\n", scenarios[i].name,
                                scenarios[i].help);
    snprintf(text + len, sizeof(text) - len, "%s", usage_options);
    return text;
}

static bool take_durability(void *arg, const char *name, const char *text)
{
    bool *ret_sync = arg;
    *ret_sync = strcmp(text, "sync") == 0;
    if (*ret_sync || strcmp(text, "async") == 0)
        return true;
    fprintf(stderr, "seatgrid: --%s %s: sync or async\n", name, text);
    return false;
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

int cli_drill(int argc, char **argv)
{
    struct drill_options drill = {.rig = {.replicas = 2, .sync = true},
                                  .seconds = DRILL_UNSET,
                                  .rate = DRILL_UNSET,
                                  .times = DRILL_UNSET};
    int seed = 1;
    bool own = false;
    const struct cli_option options[] = {
        {.name = "times", .number = &drill.times, .least = 1, .most = 100000},
        {.name = "faults", .number = &drill.times, .least = 1, .most = 100000},
        {.name = "seconds", .number = &drill.seconds, .least = 1, .most = 1000000},
        {.name = "rate", .number = &drill.rate, .least = 10, .most = 100000},
        {.name = "durability", .take = take_durability, .arg = &drill.rig.sync, .seen = &own},
        {.name = "replicas",
         .number = &drill.rig.replicas,
         .most = CLUSTER_REPLICAS_MAX,
         .seen = &own},
        {.name = "ha", .flag = &drill.rig.ha, .seen = &own},
        {.name = "seed", .number = &seed, .most = INT_MAX},
        {.name = "var", .text = &drill.rig.var},
        {.name = "port-base",
         .number = &drill.rig.port_base,
         .least = 1,
         .most = 65000,
         .seen = &own},
        {.name = "keep", .text = &drill.rig.keep, .seen = &own},
        {.name = "strict", .flag = &drill.strict},
        {.name = "json", .flag = &drill.json},
        {0}};
    int code = cli_options(argc, argv, whole_usage(), options, 1);
    if (code >= 0)
        return code;
    if (!argv[1]) {
        fputs(whole_usage(), stderr);
        return 2;
    }
    drill.name = argv[1];
    drill.seed = (uint64_t)seed;
    return check(&drill, own) ? drill_run(&drill) : 2;
}
