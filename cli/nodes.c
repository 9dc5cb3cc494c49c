/*
 * `seatgrid nodes`: what the running server knows of its nodes, and the running consumer of its
 * streams, as text for people or JSON.
 *
 * SPDX-License-Identifier: MIT
 */
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/settings.h"
#include "cli/cli.h"
#include "cli/stream_client.h"

static const char usage[] =
    "Usage: seatgrid nodes [-c FILE] [--json]\n"
    "\n"
    "Shows every node of the shard map as the running server sees it: role, state,\n"
    "timeline, epoch, LSN (written by a primary, replayed by a replica) and how\n"
    "stale a replica is. Below it, every stream as the running consumer (seatgrid\n"
    "cdc) sees it: LSN received, applied in Redis and confirmed to the slot, how far\n"
    "behind it is, how much WAL is kept for it, what was repaired last and why.\n"
    "Exit code 1 if a node is not up; streams have no part in it.\n"
    "\n"
    "  -c, --config FILE  settings that name the admin listeners (default:\n"
    "                     $SEATGRID_CONFIG, var/seatgrid.cfg,\n"
    "                     /etc/seatgrid/seatgrid.cfg)\n"
    "      --json         output for programs\n"
    "      --help         this text\n";

#define SHARD_WIDTH_MAX 12
#define NODE_WIDTH_MAX 14
#define ANSWER_EXTRA_MS 5000
#define STREAMS_TIMEOUT_MS 2000

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

/* --- streams ---------------------------------------------------------------------------------- */

static const char *lsn_of(const json_t *stream, const char *name)
{
    const char *text = admin_text(stream, name);
    return text[0] ? text : "-";
}

/* "12 ms", "3.4 s" or "?" */
static void write_lag(const json_t *lag, char *text, size_t size)
{
    const long long ms = json_integer_value(lag);
    if (!json_is_integer(lag))
        snprintf(text, size, "?");
    else if (ms < 10000)
        snprintf(text, size, "%lld ms", ms);
    else
        snprintf(text, size, "%lld s", ms / 1000);
}

/* A paragraph a stream: it has more to tell than a line of 80 columns holds. */
static void print_stream(const json_t *stream)
{
    const char *at = admin_text(stream, "lastRepairAt");
    const char *detail = admin_text(stream, "detail");
    char behind[32];
    char kept[32];
    char lag[32];
    stream_bytes(json_object_get(stream, "lagBytes"), behind, sizeof(behind));
    stream_bytes(json_object_get(stream, "walKeptBytes"), kept, sizeof(kept));
    write_lag(json_object_get(stream, "lagMs"), lag, sizeof(lag));
    printf("\nstream of %s: %s, slot %s\n", admin_text(stream, "shard"),
           admin_text(stream, "state"), lsn_of(stream, "slot"));
    printf("  received %s, applied %s, confirmed %s\n", lsn_of(stream, "receivedLsn"),
           lsn_of(stream, "appliedLsn"), lsn_of(stream, "confirmedLsn"));
    printf("  behind %s, %s; WAL kept %s%s\n", behind, lag, kept,
           json_is_true(json_object_get(stream, "walAlarm")) ? ", past cdc.wal_budget_bytes" : "");
    printf("  last repair %s%s%.19s%s: %s\n", admin_text(stream, "lastRepair"), at[0] ? ", " : "",
           at, at[0] ? "Z" : "", admin_text(stream, "lastRepairText"));
    if (detail[0])
        printf("  %s\n", detail);
}

static void print_streams(const json_t *answer)
{
    const json_t *stream;
    size_t i;
    json_array_foreach(json_object_get(answer, "streams"), i, stream) print_stream(stream);
}

/* The consumer's streams, as a member of `answer` or printed; that there is none is told. */
static void add_streams(const char *config, json_t *answer, bool json)
{
    static struct settings settings;
    struct admin_answer streams;
    char error_text[512];
    if (!cli_load_settings(config, &settings))
        return;
    enum sg_error error = admin_ask(settings.cdc.listen, "GET", "/admin/streams",
                                    STREAMS_TIMEOUT_MS, &streams, error_text, sizeof(error_text));
    if (error != SG_OK) {
        if (json)
            json_object_set_new(answer, "streams", json_null());
        else
            printf("\nno consumer (seatgrid cdc) answers at %s\n", settings.cdc.listen);
        return;
    }
    if (json)
        json_object_set(answer, "streams", json_object_get(streams.json, "streams"));
    else
        print_streams(streams.json);
    admin_answer_done(&streams);
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
        if (!json)
            print_table(answer.json);
        add_streams(config, answer.json, json);
        if (json)
            printed = admin_answer_print(&answer);
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
