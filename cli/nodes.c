/*
 * `seatgrid nodes`: what the running server knows of its nodes, as a table for people or JSON.
 *
 * SPDX-License-Identifier: MIT
 */
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "cli/admin_json.h"
#include "cli/cli.h"

static const char usage[] =
    "Usage: seatgrid nodes [-c FILE] [--json]\n"
    "\n"
    "Shows every node of the shard map as the running server sees it: role, state,\n"
    "timeline, epoch, LSN (written by a primary, replayed by a replica) and how\n"
    "stale a replica is. Exit code 1 if a node is not up.\n"
    "\n"
    "  -c, --config FILE  settings that name the admin listener (default:\n"
    "                     $SEATGRID_CONFIG, var/seatgrid.cfg,\n"
    "                     /etc/seatgrid/seatgrid.cfg)\n"
    "      --json         output for programs\n"
    "      --help         this text\n";

#define SHARD_WIDTH_MAX 12
#define NODE_WIDTH_MAX 14
#define ANSWER_EXTRA_MS 5000

struct widths {
    int shard;
    int node;
};

static const char *state_of(const json_t *node)
{
    if (!json_is_true(json_object_get(node, "up")))
        return "down";
    return json_is_true(json_object_get(node, "fenced")) ? "fenced" : "up";
}

/* "-" for a primary, "?" when unknown, else "12 ms" or "3.4 s". */
static void write_staleness(const json_t *node, char *text, size_t size)
{
    const json_t *staleness = json_object_get(node, "stalenessMs");
    const long long ms = json_integer_value(staleness);
    if (strcmp(admin_text(node, "role"), "primary") == 0)
        snprintf(text, size, "-");
    else if (!json_is_integer(staleness))
        snprintf(text, size, "?");
    else if (ms < 10000)
        snprintf(text, size, "%lld ms", ms);
    else
        snprintf(text, size, "%lld s", ms / 1000);
}

static int width_of(const json_t *nodes, const char *member, const char *title, int max)
{
    const json_t *node;
    size_t i;
    int width = (int)strlen(title);
    json_array_foreach(nodes, i, node)
    {
        int len = (int)strlen(admin_text(node, member));
        if (len > width)
            width = len;
    }
    return width < max ? width : max;
}

static void print_node(const json_t *node, const struct widths *widths)
{
    char staleness[32];
    write_staleness(node, staleness, sizeof(staleness));
    printf("%-*.*s  %-*.*s  %-7s  %-6s  %3lld  %5lld  %-11s  %7s\n", widths->shard, widths->shard,
           admin_text(node, "shard"), widths->node, widths->node, admin_text(node, "node"),
           admin_text(node, "role"), state_of(node),
           (long long)json_integer_value(json_object_get(node, "timeline")),
           (long long)json_integer_value(json_object_get(node, "epoch")), admin_text(node, "lsn"),
           staleness);
}

/* Behind the table, why nodes are not up: the whole reason, it may be longer than a line. */
static void print_reasons(const json_t *nodes)
{
    const json_t *node;
    size_t i;
    bool any = false;
    json_array_foreach(nodes, i, node)
    {
        if (!admin_text(node, "lastError")[0])
            continue;
        printf("%s%s: %s\n", any ? "" : "\n", admin_text(node, "node"),
               admin_text(node, "lastError"));
        any = true;
    }
}

static void print_table(const json_t *answer)
{
    const json_t *nodes = json_object_get(answer, "nodes");
    const json_t *node;
    size_t i;
    const struct widths widths = {width_of(nodes, "shard", "SHARD", SHARD_WIDTH_MAX),
                                  width_of(nodes, "node", "NODE", NODE_WIDTH_MAX)};
    printf("map version %lld\n\n%-*s  %-*s  %-7s  %-6s  %3s  %5s  %-11s  %7s\n",
           (long long)json_integer_value(json_object_get(answer, "mapVersion")), widths.shard,
           "SHARD", widths.node, "NODE", "ROLE", "STATE", "TL", "EPOCH", "LSN", "STALE");
    json_array_foreach(nodes, i, node) print_node(node, &widths);
    print_reasons(nodes);
}

static bool all_up(const json_t *answer)
{
    const json_t *nodes = json_object_get(answer, "nodes");
    const json_t *node;
    size_t i;
    json_array_foreach(nodes, i, node)
    {
        if (!json_is_true(json_object_get(node, "up")))
            return false;
    }
    return true;
}

static int show(const char *config, bool json)
{
    struct admin_answer answer;
    int code = admin_json(config, "GET", "/admin/nodes", ANSWER_EXTRA_MS, &answer);
    if (code)
        return code;
    bool printed = true;
    if (answer.status != 200) {
        fprintf(stderr, "seatgrid: the server answered %d: %s\n", answer.status,
                admin_text(answer.json, "title"));
        code = 1;
    } else {
        if (json)
            printed = admin_answer_print(&answer);
        else
            print_table(answer.json);
        code = printed && fflush(stdout) == 0 && all_up(answer.json) ? 0 : 1;
    }
    admin_answer_done(&answer);
    return code;
}

int cli_nodes(int argc, char **argv)
{
    static const struct option options[] = {{"config", required_argument, NULL, 'c'},
                                            {"json", no_argument, NULL, 'j'},
                                            {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    const char *config = NULL;
    bool json = false;
    int option;
    optind = 1;
    while ((option = getopt_long(argc, argv, "c:", options, NULL)) != -1) {
        switch (option) {
        case 'c':
            config = optarg;
            break;
        case 'j':
            json = true;
            break;
        case 'h':
            fputs(usage, stdout);
            return 0;
        default:
            fputs(usage, stderr);
            return 2;
        }
    }
    if (optind < argc) {
        fprintf(stderr, "seatgrid: '%s' is one argument too many\n%s", argv[optind], usage);
        return 2;
    }
    return show(config, json);
}
