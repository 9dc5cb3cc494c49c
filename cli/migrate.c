/*
 * `seatgrid migrate`: brings every shard of the map to the schema of this binary.
 *
 * Shards are independent: one that cannot be reached or refuses is named and the others go on.
 *
 * SPDX-License-Identifier: MIT
 */
#include <stdbool.h>
#include <stdio.h>

#include "base/dynbuf.h"
#include "base/settings.h"
#include "cli/cli.h"
#include "cli/options.h"
#include "router/migrate.h"
#include "shardmap/shardmap.h"

static const char usage[] =
    "Usage: seatgrid migrate [-c FILE] [--status] [--json]\n"
    "\n"
    "Brings the database of every shard in the map to the schema of this binary.\n"
    "Each migration is one transaction; running it twice, or twice at once, is safe.\n"
    "\n"
    "  -c, --config FILE  settings (default: $SEATGRID_CONFIG, var/seatgrid.cfg, ...)\n"
    "      --status       only look; exit 1 if something is missing or wrong\n"
    "      --json         output for programs\n"
    "      --help         this text\n";

struct arguments {
    const char *config;
    bool status;
    bool json;
};

/* -1 to go on, else the exit code. */
static int parse(int argc, char **argv, struct arguments *ret)
{
    const struct cli_option options[] = {{.name = "config", .letter = 'c', .text = &ret->config},
                                         {.name = "status", .flag = &ret->status},
                                         {.name = "json", .flag = &ret->json},
                                         {0}};
    return cli_options(argc, argv, usage, options, 0);
}

static void add_json(struct dynbuf *out, const char *shard, const struct migrate_report *report)
{
    dynbuf_adds(out, out->data[out->len - 1] == '}' ? ",{\"shard\":" : "{\"shard\":");
    dynbuf_add_json(out, shard);
    dynbuf_adds(out, ",\"node\":");
    dynbuf_add_json(out, report->node);
    dynbuf_addf(out, ",\"before\":%d,\"after\":%d,\"latest\":%d,\"error\":", report->before,
                report->after, migrate_latest(migrations));
    if (report->error_text[0])
        dynbuf_add_json(out, report->error_text);
    else
        dynbuf_adds(out, "null");
    dynbuf_addc(out, '}');
}

static void add_text(struct dynbuf *out, const char *shard, const struct migrate_report *report)
{
    int latest = migrate_latest(migrations);
    dynbuf_addf(out, "%-12s %-14s ", shard, report->node[0] ? report->node : "-");
    if (report->error_text[0])
        dynbuf_adds(out, "failed\n");
    else if (report->after < latest)
        dynbuf_addf(out, "version %d of %d\n", report->after, latest);
    else if (report->before < report->after)
        dynbuf_addf(out, "version %d, was %d\n", report->after, report->before);
    else
        dynbuf_addf(out, "version %d, up to date\n", report->after);
}

/* One shard; true if it is where it should be. */
static bool migrate_one(const struct shardmap_shard *shard, const struct arguments *arguments,
                        struct dynbuf *out)
{
    struct migrate_report report;
    enum sg_error error = migrate_shard(shard, migrations, arguments->status, &report);
    if (error)
        fprintf(stderr, "seatgrid: shard %s: %s\n", shard->name, report.error_text);
    if (arguments->json)
        add_json(out, shard->name, &report);
    else
        add_text(out, shard->name, &report);
    return !error && report.after == migrate_latest(migrations);
}

int cli_migrate(int argc, char **argv)
{
    struct arguments arguments = {0};
    int code = parse(argc, argv, &arguments);
    if (code >= 0)
        return code;
    static struct settings settings;
    struct shardmap *map =
        cli_load_settings(arguments.config, &settings) ? cli_load_map(settings.shard_map) : NULL;
    if (!map)
        return 2;

    struct dynbuf out;
    bool all_well = true;
    dynbuf_init(&out, 16 << 20);
    if (arguments.json)
        dynbuf_adds(&out, "{\"shards\":[");
    for (size_t i = 0; i < shardmap_shard_count(map); i++)
        all_well &= migrate_one(shardmap_shard(map, (int)i), &arguments, &out);
    if (arguments.json)
        dynbuf_adds(&out, "]}\n");
    fputs(dynbuf_text(&out), stdout);
    dynbuf_done(&out);
    shardmap_free(map);
    return all_well ? 0 : 1;
}
