/*
 * `seatgrid check-config`: is this configuration one that `serve` would start with? In the manner
 * of nginx -t: nothing is started and no server is asked; every problem is listed.
 *
 *   settings file ── settings_load ──> shard_map ── shardmap_load ──> verdict, exit code
 *
 * SPDX-License-Identifier: MIT
 */
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/dynbuf.h"
#include "base/settings.h"
#include "cli/cli.h"
#include "cli/options.h"
#include "shardmap/shardmap.h"

static const char usage[] =
    "Usage: seatgrid check-config [-c FILE] [--json]\n"
    "       seatgrid check-config --example\n"
    "\n"
    "Checks the settings and the shard map they name, without starting anything.\n"
    "Exit code: 0 both are fine, 1 something is wrong, 2 a file cannot be read.\n"
    "\n"
    "  -c, --config FILE  settings (default: $SEATGRID_CONFIG, var/seatgrid.cfg, ...)\n"
    "      --json         output for programs\n"
    "      --example      print a settings file with every key, default and bound\n"
    "      --help         this text\n";

struct arguments {
    const char *config;
    bool json;
    bool example;
};

/* -1 to go on, else the exit code. */
static int parse(int argc, char **argv, struct arguments *ret)
{
    const struct cli_option options[] = {{.name = "config", .letter = 'c', .text = &ret->config},
                                         {.name = "example", .flag = &ret->example},
                                         {.name = "json", .flag = &ret->json},
                                         {0}};
    return cli_options(argc, argv, usage, options, 0);
}

static int print_example(void)
{
    struct dynbuf out;
    dynbuf_init(&out, 1 << 20);
    settings_write_example(&out);
    bool good = !out.failed && fputs(dynbuf_text(&out), stdout) >= 0;
    dynbuf_done(&out);
    return good ? 0 : 1;
}

/* What was found; the map is NULL unless all is well. */
struct outcome {
    const char *config;
    enum sg_error error;
    struct settings settings;
    struct shardmap *map;
    struct dynbuf problems; /* one a line */
};

static void check(struct outcome *outcome)
{
    outcome->error = settings_load(outcome->config, &outcome->settings, &outcome->problems);
    if (outcome->error == SG_OK)
        outcome->error =
            shardmap_load(outcome->settings.shard_map, &outcome->map, &outcome->problems);
}

/* Calls add for each line, without its newline. */
static void each_problem(struct outcome *outcome, void (*add)(struct dynbuf *out, const char *line),
                         struct dynbuf *out)
{
    char *rest = outcome->problems.data;
    char *line;
    while ((line = strsep(&rest, "\n"))) {
        if (*line)
            add(out, line);
    }
}

static void add_text(struct dynbuf *out, const char *line)
{
    dynbuf_addf(out, "seatgrid: %s\n", line);
}

static void add_json(struct dynbuf *out, const char *line)
{
    if (out->data[out->len - 1] != '[')
        dynbuf_addc(out, ',');
    dynbuf_add_json(out, line);
}

static void report_text(struct outcome *outcome)
{
    struct dynbuf out;
    dynbuf_init(&out, 4 << 20);
    each_problem(outcome, add_text, &out);
    if (outcome->error != SG_OK && out.len == 0)
        dynbuf_addf(&out, "seatgrid: %s\n", sg_error_title(outcome->error));
    dynbuf_addf(&out, "seatgrid: configuration file %s test %s\n", outcome->config,
                outcome->error == SG_OK ? "is successful" : "failed");
    fputs(dynbuf_text(&out), stderr);
    dynbuf_done(&out);
}

static void report_json(struct outcome *outcome)
{
    struct dynbuf out;
    size_t ranges;
    size_t pins;
    dynbuf_init(&out, 4 << 20);
    dynbuf_adds(&out, "{\"config\":");
    dynbuf_add_json(&out, outcome->config);
    dynbuf_addf(&out,
                ",\"ok\":%s,\"code\":\"%s\",\"map\":", outcome->error == SG_OK ? "true" : "false",
                sg_error_code(outcome->error));
    if (outcome->map) {
        shardmap_ranges(outcome->map, &ranges);
        shardmap_pins(outcome->map, &pins);
        dynbuf_adds(&out, "{\"file\":");
        dynbuf_add_json(&out, outcome->settings.shard_map);
        dynbuf_addf(&out, ",\"version\":%lld,\"shards\":%zu,\"ranges\":%zu,\"pins\":%zu}",
                    (long long)shardmap_version(outcome->map), shardmap_shard_count(outcome->map),
                    ranges, pins);
    } else {
        dynbuf_adds(&out, "null");
    }
    dynbuf_adds(&out, ",\"problems\":[");
    each_problem(outcome, add_json, &out);
    dynbuf_adds(&out, "]}\n");
    fputs(dynbuf_text(&out), stdout);
    dynbuf_done(&out);
}

int cli_check_config(int argc, char **argv)
{
    struct arguments arguments = {0};
    int code = parse(argc, argv, &arguments);
    if (code >= 0)
        return code;
    if (arguments.example)
        return print_example();

    struct outcome outcome = {.config = cli_config_path(arguments.config)};
    dynbuf_init(&outcome.problems, 2 << 20);
    check(&outcome);
    if (arguments.json)
        report_json(&outcome);
    else
        report_text(&outcome);
    dynbuf_done(&outcome.problems);
    shardmap_free(outcome.map);
    return outcome.error == SG_OK ? 0 : outcome.error == SG_IO ? 2 : 1;
}
