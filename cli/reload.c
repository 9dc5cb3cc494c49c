/*
 * `seatgrid reload`: has the running server read its shard map again, and says what came of it.
 *
 * SPDX-License-Identifier: MIT
 */
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "cli/admin_json.h"
#include "cli/cli.h"
#include "cli/options.h"

static const char usage[] =
    "Usage: seatgrid reload [-c FILE] [--dry-run] [--force] [--json]\n"
    "\n"
    "Has the running server read its shard map again. It is checked, compared with\n"
    "the published one and refused if it would strand events that exist; else it is\n"
    "published in one step. Exit code 0: published, or nothing to do; 1: refused.\n"
    "\n"
    "  -n, --dry-run      check and show the difference, publish nothing\n"
    "      --force        publish although events are stranded, or nobody knows\n"
    "  -c, --config FILE  settings that name the admin listener (default:\n"
    "                     $SEATGRID_CONFIG, var/seatgrid.cfg,\n"
    "                     /etc/seatgrid/seatgrid.cfg)\n"
    "      --json         output for programs\n"
    "      --help         this text\n";

#define ANSWER_EXTRA_MS 30000

struct arguments {
    const char *config;
    bool dry_run;
    bool force;
    bool json;
};

static void print_lines(FILE *out, const char *prefix, const json_t *lines)
{
    const json_t *line;
    size_t i;
    json_array_foreach(lines, i, line) fprintf(out, "%s%s\n", prefix, json_string_value(line));
}

static long long number(const json_t *object, const char *name)
{
    return (long long)json_integer_value(json_object_get(object, name));
}

static void print_report(const json_t *report)
{
    const char *outcome = admin_text(report, "outcome");
    const bool forced = json_is_true(json_object_get(report, "forced"));
    if (strcmp(outcome, "unchanged") == 0) {
        printf("unchanged: version %lld is what the server has\n", number(report, "oldVersion"));
        return;
    }
    fputs(admin_text(report, "text"), stdout);
    print_lines(stdout, "warning: ", json_object_get(report, "warnings"));
    if (strcmp(outcome, "published") == 0)
        printf("published%s: read in %lld us, asked in %lld us, published in %lld us\n",
               forced ? " (forced)" : "", number(report, "parseUs"), number(report, "askUs"),
               number(report, "publishUs"));
    else
        printf("dry run: it would be published%s\n", forced ? " (forced)" : "");
}

static void print_refusal(const struct admin_answer *answer)
{
    const json_t *errors = json_object_get(answer->json, "errors");
    fputs(admin_text(answer->json, "text"), stdout);
    fflush(stdout);
    print_lines(stderr, "seatgrid: warning: ", json_object_get(answer->json, "warnings"));
    print_lines(stderr, "seatgrid: ", errors);
    fprintf(stderr, "seatgrid: not reloaded: %s%s%s\n", admin_text(answer->json, "title"),
            json_array_size(errors) ? "" : ": ",
            json_array_size(errors) ? "" : admin_text(answer->json, "detail"));
}

static int reload(const struct arguments *arguments)
{
    struct admin_answer answer;
    char path[64];
    snprintf(path, sizeof(path), "/admin/reload?dry_run=%d&force=%d", arguments->dry_run,
             arguments->force);
    int code = admin_json(arguments->config, "POST", path, ANSWER_EXTRA_MS, &answer);
    if (code)
        return code;
    bool printed = true;
    if (arguments->json)
        printed = admin_answer_print(&answer);
    else if (answer.status == 200)
        print_report(answer.json);
    else
        print_refusal(&answer);
    code = printed && fflush(stdout) == 0 && answer.status == 200 ? 0 : 1;
    admin_answer_done(&answer);
    return code;
}

int cli_reload(int argc, char **argv)
{
    struct arguments arguments = {0};
    const struct cli_option options[] = {
        {.name = "config", .letter = 'c', .text = &arguments.config},
        {.name = "dry-run", .letter = 'n', .flag = &arguments.dry_run},
        {.name = "force", .flag = &arguments.force},
        {.name = "json", .flag = &arguments.json},
        {0}};
    int code = cli_options(argc, argv, usage, options, 0);
    return code >= 0 ? code : reload(&arguments);
}
