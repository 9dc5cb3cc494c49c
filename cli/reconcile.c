/*
 * `seatgrid reconcile`: has the consumer compare Redis with PostgreSQL, each slice at one LSN, and
 * shows what differs.
 *
 * SPDX-License-Identifier: MIT
 */
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/options.h"
#include "cli/stream_client.h"

static const char usage[] =
    "Usage: seatgrid reconcile [SHARD] [--fix] [-c FILE] [--json]\n"
    "\n"
    "Has the running consumer compare every counter and every ticket of a shard, or\n"
    "of all, with PostgreSQL. Exit code 0: no drift, or all of it healed; 1: drift,\n"
    "or a comparison that did not come to its end.\n"
    "\n"
    "      --fix          heal what differs, one event at a time\n"
    "  -c, --config FILE  settings that name the consumer's admin listener\n"
    "      --json         output for programs\n"
    "      --help         this text\n";

#define PASS_TIMEOUT_MS 3600000
#define SHARD_WIDTH 12
#define USER_WIDTH 12

/* Columns of the table of drift: as wide as what is in them. */
struct widths {
    int shard;
    int event;
    int user;
};

static void widen(int *width, int len, int max)
{
    if (len > max)
        len = max;
    if (len > *width)
        *width = len;
}

static struct widths measure(const json_t *shards)
{
    struct widths widths = {sizeof("SHARD") - 1, sizeof("EVENT") - 1, sizeof("USER") - 1};
    const json_t *pass;
    const json_t *drift;
    size_t i;
    size_t j;
    json_array_foreach(shards, i, pass)
    {
        widen(&widths.shard, (int)strlen(admin_text(pass, "shard")), SHARD_WIDTH);
        json_array_foreach(json_object_get(pass, "drifts"), j, drift)
        {
            widen(&widths.event, snprintf(NULL, 0, "%lld", stream_number(drift, "eventId")), 19);
            widen(&widths.user, (int)strlen(admin_text(drift, "userId")), USER_WIDTH);
        }
    }
    return widths;
}

static void print_drifts(const json_t *pass, const struct widths *widths)
{
    const json_t *drift;
    size_t i;
    const json_t *drifts = json_object_get(pass, "drifts");
    json_array_foreach(drifts, i, drift)
    {
        const char *user = admin_text(drift, "userId");
        printf("%-*.*s  %*lld  %-*.*s  %s\n", widths->shard, widths->shard,
               admin_text(pass, "shard"), widths->event, stream_number(drift, "eventId"),
               widths->user, widths->user, user[0] ? user : "-", admin_text(drift, "what"));
    }
    const long long more = stream_number(pass, "drift") - (long long)json_array_size(drifts);
    if (more > 0)
        printf("%-*.*s  and %lld more\n", widths->shard, widths->shard, admin_text(pass, "shard"),
               more);
}

static void print_pass(const json_t *pass)
{
    if (json_is_string(json_object_get(pass, "code"))) {
        printf("%-*.*s  %s\n", SHARD_WIDTH, SHARD_WIDTH, admin_text(pass, "shard"),
               admin_text(pass, "detail"));
        return;
    }
    printf("%-*.*s  %10lld  %10lld  %8lld  %8lld%s%s\n", SHARD_WIDTH, SHARD_WIDTH,
           admin_text(pass, "shard"), stream_number(pass, "events"), stream_number(pass, "tickets"),
           stream_number(pass, "drift"), stream_number(pass, "healed"),
           json_is_true(json_object_get(pass, "complete")) ? "" : "  given up: ",
           admin_text(pass, "detail"));
}

static void print_report(const json_t *report)
{
    const json_t *shards = json_object_get(report, "shards");
    const json_t *pass;
    size_t i;
    long long drift = 0;
    printf("%-*s  %10s  %10s  %8s  %8s\n", SHARD_WIDTH, "SHARD", "EVENTS", "TICKETS", "DRIFT",
           "HEALED");
    json_array_foreach(shards, i, pass)
    {
        print_pass(pass);
        drift += stream_number(pass, "drift");
    }
    if (drift == 0)
        return;
    const struct widths widths = measure(shards);
    printf("\n%-*s  %*s  %-*s  %s\n", widths.shard, "SHARD", widths.event, "EVENT", widths.user,
           "USER", "WHAT");
    json_array_foreach(shards, i, pass) print_drifts(pass, &widths);
}

/* Every shard was compared to the end, and nothing that differs is left. */
static bool all_well(const json_t *report)
{
    const json_t *pass;
    size_t i;
    json_array_foreach(json_object_get(report, "shards"), i, pass)
    {
        if (!json_is_true(json_object_get(pass, "complete")) ||
            stream_number(pass, "drift") > stream_number(pass, "healed"))
            return false;
    }
    return true;
}

static int reconcile(const char *config, const char *shard, bool fix, bool json)
{
    struct admin_answer answer;
    int code = stream_ask(config, "POST", "/admin/reconcile", shard, fix ? "fix=1" : "fix=0",
                          PASS_TIMEOUT_MS, &answer);
    if (code)
        return code;
    bool printed = true;
    if (answer.status != 200)
        stream_print_problem(&answer);
    else if (json)
        printed = admin_answer_print(&answer);
    else
        print_report(answer.json);
    code = answer.status == 200 && printed && fflush(stdout) == 0 && all_well(answer.json) ? 0 : 1;
    admin_answer_done(&answer);
    return code;
}

int cli_reconcile(int argc, char **argv)
{
    const char *config = NULL;
    bool fix = false;
    bool json = false;
    const struct cli_option options[] = {{.name = "config", .letter = 'c', .text = &config},
                                         {.name = "fix", .flag = &fix},
                                         {.name = "json", .flag = &json},
                                         {0}};
    int code = cli_options(argc, argv, usage, options, 1);
    return code >= 0 ? code : reconcile(config, argv[1], fix, json);
}
