/*
 * `seatgrid nodes`: what the running server knows of its nodes, and the running consumer of its
 * streams, as text for people or JSON.
 *
 * SPDX-License-Identifier: MIT
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/settings.h"
#include "cli/cli.h"
#include "cli/options.h"
#include "cli/stream_client.h"

static const char usage[] =
    "Usage: seatgrid nodes [-c FILE] [--json]\n"
    "\n"
    "Shows every node of the shard map as the running server sees it: role, state,\n"
    "timeline, epoch, LSN (written by a primary, replayed by a replica), how much\n"
    "more WAL a replica has received, and how stale it is. States:\n"
    "  up       a replica that has just come back: with its share of the reads\n"
    "  lags     replica out of rotation: no reads but those that allow for it\n"
    "  new      primary that is not attested yet: no writes until then\n"
    "  fenced   no writes, by a switchover or by hand\n"
    "  refused  calls itself primary and is none of the shard: no writes, ever\n"
    "  down     does not answer, or is none of the shard's nodes\n"
    "Below it, every stream as the running consumer (seatgrid cdc) sees it: LSN\n"
    "received, applied in Redis and confirmed to the slot, how far behind it is, how\n"
    "much WAL is kept for it, what was repaired last and why.\n"
    "Exit code 1 if a node is down or refused; streams have no part in it.\n"
    "\n"
    "  -c, --config FILE  settings that name the admin listeners (default:\n"
    "                     $SEATGRID_CONFIG, var/seatgrid.cfg,\n"
    "                     /etc/seatgrid/seatgrid.cfg)\n"
    "      --json         output for programs\n"
    "      --help         this text\n";

#define SHARD_WIDTH_MAX 10
#define NODE_WIDTH_MAX 12
#define ANSWER_EXTRA_MS 5000
#define STREAMS_TIMEOUT_MS 2000

struct widths {
    int shard;
    int node;
};

static bool is_primary(const json_t *node)
{
    return strcmp(admin_text(node, "role"), "primary") == 0;
}

static bool is_true(const json_t *node, const char *member)
{
    return json_is_true(json_object_get(node, member));
}

/* One word, for a replica in its slow start also its weight. */
static void write_state(const json_t *node, char *text, size_t size)
{
    const long long weight = json_integer_value(json_object_get(node, "weight"));
    if (!is_true(node, "up"))
        snprintf(text, size, "down");
    else if (admin_text(node, "refused")[0])
        snprintf(text, size, "refused");
    else if (is_primary(node))
        snprintf(text, size, "%s",
                 is_true(node, "fenced")     ? "fenced"
                 : is_true(node, "attested") ? "up"
                                             : "new");
    else if (!is_true(node, "inRotation"))
        snprintf(text, size, "lags");
    else if (weight < 100)
        snprintf(text, size, "up %lld%%", weight);
    else
        snprintf(text, size, "up");
}

/* 0 if it is none. */
static unsigned long long read_lsn(const char *text)
{
    char *slash;
    const unsigned long long high = strtoull(text, &slash, 16);
    return *slash == '/' ? high << 32 | strtoull(slash + 1, NULL, 16) : 0;
}

/* WAL that a replica has received and not replayed: "+0", "+123k", "+45M", "+6G"; "-" for others.
 */
static void write_received(const json_t *node, char *text, size_t size)
{
    static const char units[] = {'k', 'M', 'G', 'T'};
    const unsigned long long received = read_lsn(admin_text(node, "receivedLsn"));
    const unsigned long long replayed = read_lsn(admin_text(node, "lsn"));
    unsigned long long ahead = received > replayed ? received - replayed : 0;
    size_t unit = 0;
    if (!received) {
        snprintf(text, size, "-");
        return;
    }
    if (ahead < 1000) {
        snprintf(text, size, "+%llu", ahead);
        return;
    }
    for (ahead /= 1000; ahead >= 1000 && unit + 1 < sizeof(units); unit++)
        ahead /= 1000;
    snprintf(text, size, "+%llu%c", ahead, units[unit]);
}

/* "-" for a primary, "?" when unknown, else "12 ms" or "3.4 s". */
static void write_staleness(const json_t *node, char *text, size_t size)
{
    const json_t *staleness = json_object_get(node, "stalenessMs");
    const long long ms = json_integer_value(staleness);
    if (is_primary(node))
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
    char state[32];
    char received[32];
    char staleness[32];
    write_state(node, state, sizeof(state));
    write_received(node, received, sizeof(received));
    write_staleness(node, staleness, sizeof(staleness));
    printf("%-*.*s  %-*.*s  %-7s  %-7s  %2lld  %5lld  %-11s %5s %7s\n", widths->shard,
           widths->shard, admin_text(node, "shard"), widths->node, widths->node,
           admin_text(node, "node"), admin_text(node, "role"), state,
           (long long)json_integer_value(json_object_get(node, "timeline")),
           (long long)json_integer_value(json_object_get(node, "epoch")), admin_text(node, "lsn"),
           received, staleness);
}

/* Why a node is not used, or "". */
static const char *reason_of(const json_t *node)
{
    const char *refused = admin_text(node, "refused");
    if (strcmp(refused, "older_timeline") == 0)
        return "refused as primary, the shard has gone on on a newer timeline";
    if (strcmp(refused, "epoch_behind") == 0)
        return "refused as primary, another one was attested on this timeline";
    if (strcmp(refused, "ambiguous") == 0)
        return "refused as primary, another one has the same timeline and epoch";
    return admin_text(node, "lastError");
}

/* Behind the table, why nodes are not used: the whole reason, it may be longer than a line. */
static void print_reasons(const json_t *nodes)
{
    const json_t *node;
    size_t i;
    bool any = false;
    json_array_foreach(nodes, i, node)
    {
        if (!reason_of(node)[0])
            continue;
        printf("%s%s: %s\n", any ? "" : "\n", admin_text(node, "node"), reason_of(node));
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
    printf("map version %lld\n\n%-*s  %-*s  %-7s  %-7s  %2s  %5s  %-11s %5s %7s\n",
           (long long)json_integer_value(json_object_get(answer, "mapVersion")), widths.shard,
           "SHARD", widths.node, "NODE", "ROLE", "STATE", "TL", "EPOCH", "LSN", "RECV", "STALE");
    json_array_foreach(nodes, i, node) print_node(node, &widths);
    print_reasons(nodes);
}

static bool all_well(const json_t *answer)
{
    const json_t *nodes = json_object_get(answer, "nodes");
    const json_t *node;
    size_t i;
    json_array_foreach(nodes, i, node)
    {
        if (!is_true(node, "up") || admin_text(node, "refused")[0])
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
        code = printed && fflush(stdout) == 0 && all_well(answer.json) ? 0 : 1;
    }
    admin_answer_done(&answer);
    return code;
}

int cli_nodes(int argc, char **argv)
{
    const char *config = NULL;
    bool json = false;
    const struct cli_option options[] = {
        {.name = "config", .letter = 'c', .text = &config}, {.name = "json", .flag = &json}, {0}};
    int code = cli_options(argc, argv, usage, options, 0);
    return code >= 0 ? code : show(config, json);
}
