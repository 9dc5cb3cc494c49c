/*
 * `seatgrid map`: looks into shard map files, without a server.
 *
 *   map show             shards, nodes, ranges and pins
 *   map find EVENT...    which shard owns an event, and why
 *   map diff OLD NEW     which events change hands, which servers come and go
 *
 * Passwords in connection strings are never shown.
 *
 * SPDX-License-Identifier: MIT
 */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/dsn.h"
#include "base/dynbuf.h"
#include "base/settings.h"
#include "cli/cli.h"
#include "cli/options.h"
#include "shardmap/diff.h"
#include "shardmap/shardmap.h"

static const char usage[] =
    "Usage: seatgrid map show [-c FILE | --map FILE] [--json]\n"
    "       seatgrid map find [-c FILE | --map FILE] [--json] EVENT...\n"
    "       seatgrid map diff [--json] OLD NEW\n"
    "\n"
    "show  lists the shards, nodes, ranges and pins of a shard map.\n"
    "find  says which shard owns each event; exit code 1 if one has none.\n"
    "diff  compares two map files: events that change hands, servers that change;\n"
    "      exit code 0 whether or not they differ.\n"
    "\n"
    "  -c, --config FILE  settings that name the map (default: $SEATGRID_CONFIG,\n"
    "                     var/seatgrid.cfg, /etc/seatgrid/seatgrid.cfg)\n"
    "  -m, --map FILE     the map itself\n"
    "      --json         output for programs\n"
    "      --help         this text\n";

#define OUTPUT_MAX_BYTES ((size_t)1 << 30)

struct arguments {
    const char *config;
    const char *map;
    bool json;
    char **words; /* behind the options */
    int word_count;
};

/* -1 to go on, else the exit code. */
static int parse(int argc, char **argv, struct arguments *ret)
{
    const struct cli_option options[] = {{.name = "config", .letter = 'c', .text = &ret->config},
                                         {.name = "map", .letter = 'm', .text = &ret->map},
                                         {.name = "json", .flag = &ret->json},
                                         {0}};
    int code = cli_options(argc, argv, usage, options, argc);
    if (code >= 0)
        return code;
    ret->words = argv + 1;
    while (ret->words[ret->word_count])
        ret->word_count++;
    return -1;
}

static int wrong_usage(const char *message)
{
    fprintf(stderr, "seatgrid: %s\n%s", message, usage);
    return 2;
}

/* --- output ----------------------------------------------------------------------------------- */

/* Prints the buffer and lets go of it; `code`, or 1 if it could not be printed. */
static int print(struct dynbuf *out, int code)
{
    bool good = !out->failed && fputs(dynbuf_text(out), stdout) >= 0 && fflush(stdout) == 0;
    if (!good)
        fprintf(stderr, "seatgrid: output failed\n");
    dynbuf_done(out);
    return good ? code : 1;
}

/* The map of --map, else the one the settings name. */
static struct shardmap *load(const struct arguments *arguments)
{
    static struct settings settings;
    if (arguments->map)
        return cli_load_map(arguments->map);
    return cli_load_settings(arguments->config, &settings) ? cli_load_map(settings.shard_map)
                                                           : NULL;
}

/* --- show ------------------------------------------------------------------------------------- */

static size_t count_nodes(const struct shardmap *map)
{
    size_t count = 0;
    for (size_t i = 0; i < shardmap_shard_count(map); i++)
        count += shardmap_shard(map, (int)i)->node_count;
    return count;
}

/* Width of the column that holds the names of shards, or of nodes. */
static int name_width(const struct shardmap *map, bool nodes)
{
    size_t width = 5;
    for (size_t i = 0; i < shardmap_shard_count(map); i++) {
        const struct shardmap_shard *shard = shardmap_shard(map, (int)i);
        size_t len = strlen(shard->name);
        width = !nodes && len > width ? len : width;
        for (size_t j = 0; nodes && j < shard->node_count; j++) {
            len = strlen(shard->nodes[j].name);
            width = len > width ? len : width;
        }
    }
    return (int)(width < 20 ? width : 20);
}

static void show_nodes(const struct shardmap *map, struct dynbuf *out)
{
    int shard_width = name_width(map, false);
    int node_width = name_width(map, true);
    dynbuf_addf(out, "%-*s  %-*s  %s\n", shard_width, "SHARD", node_width, "NODE", "SERVER");
    for (size_t i = 0; i < shardmap_shard_count(map); i++) {
        const struct shardmap_shard *shard = shardmap_shard(map, (int)i);
        for (size_t j = 0; j < shard->node_count; j++) {
            struct dsn_target target = {0};
            char problem[64];
            dsn_check(shard->nodes[j].dsn, &target, problem, sizeof(problem));
            dynbuf_addf(out, "%-*s  %-*s  %s:%s/%s\n", shard_width, shard->name, node_width,
                        shard->nodes[j].name, target.host, target.port, target.dbname);
        }
    }
}

static void show_ranges(const struct shardmap *map, struct dynbuf *out)
{
    size_t count;
    const struct shardmap_range *ranges = shardmap_ranges(map, &count);
    dynbuf_addf(out, "\n%19s  %19s  %s\n", "FIRST", "LAST", "SHARD");
    for (size_t i = 0; i < count; i++)
        dynbuf_addf(out, "%19lld  %19lld  %s\n", (long long)ranges[i].first,
                    (long long)ranges[i].last, shardmap_shard(map, ranges[i].shard)->name);
    const struct shardmap_pin *pins = shardmap_pins(map, &count);
    if (count > 0)
        dynbuf_addf(out, "\n%19s  %s\n", "PINNED EVENT", "SHARD");
    for (size_t i = 0; i < count; i++)
        dynbuf_addf(out, "%19lld  %s\n", (long long)pins[i].event_id,
                    shardmap_shard(map, pins[i].shard)->name);
}

static void show_text(const struct shardmap *map, struct dynbuf *out)
{
    size_t ranges;
    size_t pins;
    shardmap_ranges(map, &ranges);
    shardmap_pins(map, &pins);
    dynbuf_addf(out, "map version %lld: shards %zu, nodes %zu, ranges %zu, pins %zu\n\n",
                (long long)shardmap_version(map), shardmap_shard_count(map), count_nodes(map),
                ranges, pins);
    show_nodes(map, out);
    show_ranges(map, out);
}

static void node_json(const struct shardmap_node *node, struct dynbuf *out)
{
    struct dsn_target target = {0};
    char problem[64];
    dsn_check(node->dsn, &target, problem, sizeof(problem));
    dynbuf_adds(out, "{\"name\":");
    dynbuf_add_json(out, node->name);
    dynbuf_adds(out, ",\"host\":");
    dynbuf_add_json(out, target.host);
    dynbuf_addf(out, ",\"port\":%d,\"dbname\":", atoi(target.port));
    dynbuf_add_json(out, target.dbname);
    dynbuf_addc(out, '}');
}

static void shards_json(const struct shardmap *map, struct dynbuf *out)
{
    for (size_t i = 0; i < shardmap_shard_count(map); i++) {
        const struct shardmap_shard *shard = shardmap_shard(map, (int)i);
        dynbuf_adds(out, i ? ",{\"name\":" : "{\"name\":");
        dynbuf_add_json(out, shard->name);
        dynbuf_adds(out, ",\"nodes\":[");
        for (size_t j = 0; j < shard->node_count; j++) {
            dynbuf_adds(out, j ? "," : "");
            node_json(&shard->nodes[j], out);
        }
        dynbuf_adds(out, "]}");
    }
}

static void show_json(const struct shardmap *map, struct dynbuf *out)
{
    size_t count;
    dynbuf_addf(out, "{\"version\":%lld,\"shards\":[", (long long)shardmap_version(map));
    shards_json(map, out);
    dynbuf_adds(out, "],\"ranges\":[");
    const struct shardmap_range *ranges = shardmap_ranges(map, &count);
    for (size_t i = 0; i < count; i++)
        dynbuf_addf(out, "%s{\"first\":%lld,\"last\":%lld,\"shard\":\"%s\"}", i ? "," : "",
                    (long long)ranges[i].first, (long long)ranges[i].last,
                    shardmap_shard(map, ranges[i].shard)->name);
    dynbuf_adds(out, "],\"pins\":[");
    const struct shardmap_pin *pins = shardmap_pins(map, &count);
    for (size_t i = 0; i < count; i++)
        dynbuf_addf(out, "%s{\"event\":%lld,\"shard\":\"%s\"}", i ? "," : "",
                    (long long)pins[i].event_id, shardmap_shard(map, pins[i].shard)->name);
    dynbuf_adds(out, "]}\n");
}

static int map_show(const struct arguments *arguments)
{
    struct dynbuf out;
    if (arguments->word_count > 0)
        return wrong_usage("map show takes no arguments");
    struct shardmap *map = load(arguments);
    if (!map)
        return 2;
    dynbuf_init(&out, OUTPUT_MAX_BYTES);
    if (arguments->json)
        show_json(map, &out);
    else
        show_text(map, &out);
    shardmap_free(map);
    return print(&out, 0);
}

/* --- find ------------------------------------------------------------------------------------- */

static bool parse_event(const char *text, int64_t *ret_event_id)
{
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end || errno == ERANGE || value < 1)
        return false;
    *ret_event_id = value;
    return true;
}

static bool is_pinned(const struct shardmap *map, int64_t event_id)
{
    size_t count;
    const struct shardmap_pin *pins = shardmap_pins(map, &count);
    for (size_t i = 0; i < count; i++) {
        if (pins[i].event_id == event_id)
            return true;
    }
    return false;
}

/* The range that holds the event, or NULL. */
static const struct shardmap_range *range_of(const struct shardmap *map, int64_t event_id)
{
    size_t count;
    const struct shardmap_range *ranges = shardmap_ranges(map, &count);
    for (size_t i = 0; i < count; i++) {
        if (ranges[i].first <= event_id && event_id <= ranges[i].last)
            return &ranges[i];
    }
    return NULL;
}

static void find_text(const struct shardmap *map, int64_t event_id, struct dynbuf *out)
{
    int shard = shardmap_find(map, event_id);
    const struct shardmap_range *range = range_of(map, event_id);
    dynbuf_addf(out, "%lld  ", (long long)event_id);
    if (shard < 0)
        dynbuf_adds(out, "no shard\n");
    else if (is_pinned(map, event_id))
        dynbuf_addf(out, "%s  pinned\n", shardmap_shard(map, shard)->name);
    else if (range)
        dynbuf_addf(out, "%s  %lld..%lld\n", shardmap_shard(map, shard)->name,
                    (long long)range->first, (long long)range->last);
}

static void find_json(const struct shardmap *map, int64_t event_id, struct dynbuf *out)
{
    int shard = shardmap_find(map, event_id);
    dynbuf_addf(out, "{\"event\":%lld,\"shard\":", (long long)event_id);
    if (shard < 0)
        dynbuf_adds(out, "null");
    else
        dynbuf_add_json(out, shardmap_shard(map, shard)->name);
    dynbuf_addf(out, ",\"pinned\":%s}", is_pinned(map, event_id) ? "true" : "false");
}

/* 0, or 1 if an event has no shard. */
static int find_all(const struct shardmap *map, const struct arguments *arguments,
                    struct dynbuf *out)
{
    int code = 0;
    if (arguments->json)
        dynbuf_addf(out, "{\"version\":%lld,\"events\":[", (long long)shardmap_version(map));
    for (int i = 0; i < arguments->word_count; i++) {
        int64_t event_id = 0;
        parse_event(arguments->words[i], &event_id);
        if (shardmap_find(map, event_id) < 0)
            code = 1;
        dynbuf_adds(out, arguments->json && i ? "," : "");
        if (arguments->json)
            find_json(map, event_id, out);
        else
            find_text(map, event_id, out);
    }
    dynbuf_adds(out, arguments->json ? "]}\n" : "");
    return code;
}

static int map_find(const struct arguments *arguments)
{
    struct dynbuf out;
    int64_t event_id;
    if (arguments->word_count == 0)
        return wrong_usage("map find needs an event id");
    for (int i = 0; i < arguments->word_count; i++) {
        if (!parse_event(arguments->words[i], &event_id)) {
            fprintf(stderr, "seatgrid: \"%s\" is no event id; write a whole number from 1\n",
                    arguments->words[i]);
            return 2;
        }
    }
    struct shardmap *map = load(arguments);
    if (!map)
        return 2;
    dynbuf_init(&out, OUTPUT_MAX_BYTES);
    int code = find_all(map, arguments, &out);
    shardmap_free(map);
    return print(&out, code);
}

/* --- diff ------------------------------------------------------------------------------------- */

static int print_diff(const struct shardmap *old_map, const struct shardmap *new_map, bool json)
{
    struct shardmap_diff *diff;
    struct dynbuf out;
    enum sg_error error = shardmap_diff_new(old_map, new_map, &diff);
    if (error != SG_OK) {
        fprintf(stderr, "seatgrid: %s\n", sg_error_title(error));
        return 1;
    }
    dynbuf_init(&out, OUTPUT_MAX_BYTES);
    if (json) {
        shardmap_diff_json(diff, &out);
        dynbuf_addc(&out, '\n');
    } else {
        shardmap_diff_text(diff, &out);
    }
    shardmap_diff_free(diff);
    return print(&out, 0);
}

static int map_diff(const struct arguments *arguments)
{
    if (arguments->word_count != 2 || arguments->config || arguments->map)
        return wrong_usage("map diff needs two map files");
    struct shardmap *old_map = cli_load_map(arguments->words[0]);
    struct shardmap *new_map = cli_load_map(arguments->words[1]);
    int code = old_map && new_map ? print_diff(old_map, new_map, arguments->json) : 2;
    shardmap_free(old_map);
    shardmap_free(new_map);
    return code;
}

int cli_map(int argc, char **argv)
{
    static const struct {
        const char *name;
        int (*run)(const struct arguments *arguments);
    } commands[] = {{"show", map_show}, {"find", map_find}, {"diff", map_diff}};
    struct arguments arguments = {0};
    int code = parse(argc, argv, &arguments);
    if (code >= 0)
        return code;
    if (arguments.word_count == 0)
        return wrong_usage("map needs a command: show, find or diff");
    if (arguments.config && arguments.map)
        return wrong_usage("give either -c or --map");
    const char *name = *arguments.words++;
    arguments.word_count--;
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
        if (strcmp(name, commands[i].name) == 0)
            return commands[i].run(&arguments);
    }
    fprintf(stderr, "seatgrid: no command \"map %s\"\n%s", name, usage);
    return 2;
}
