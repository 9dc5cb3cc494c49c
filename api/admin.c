/*
 * The admin endpoints. See admin.h.
 *
 *   admin_handle ─> table below ─> endpoint ─> reply, or for a reload: later, from its callback
 *
 * SPDX-License-Identifier: MIT
 */
#include "api/admin.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/http.h"
#include "api/problem.h"
#include "base/clock.h"
#include "base/dynbuf.h"
#include "base/metrics.h"
#include "base/settings.h"
#include "base/snapshot.h"
#include "router/reload.h"
#include "router/topology.h"
#include "shardmap/diff.h"
#include "shardmap/shardmap.h"

#define BODY_MAX ((size_t)64 << 20)
#define JSON_TYPE "application/json"
#define METRICS_TYPE "text/plain; version=0.0.4; charset=utf-8"

struct admin {
    struct admin_config config;
    struct dynbuf body; /* the answer being written; free between any two answers */
};

/* --- answering -------------------------------------------------------------------------------- */

static void fail(struct admin *admin, struct http_request *request, enum sg_error error,
                 const char *detail)
{
    const struct problem problem = {.error = error, .detail = detail};
    dynbuf_reset(&admin->body);
    problem_write(&admin->body, &problem);
    http_reply(request, sg_error_http_status(error), PROBLEM_CONTENT_TYPE,
               dynbuf_text(&admin->body), admin->body.len);
}

/* Answers with what was written to admin->body. */
static void reply(struct admin *admin, struct http_request *request, int status, const char *type)
{
    if (admin->body.failed) {
        fail(admin, request, SG_NO_MEMORY, NULL);
        return;
    }
    http_reply_header(request, "Cache-Control", "no-store");
    http_reply(request, status, type, dynbuf_text(&admin->body), admin->body.len);
}

/* Length of the valid UTF-8 sequence at `text`, 0 if there is none. */
static size_t utf8_length(const unsigned char *text, size_t left)
{
    static const uint32_t lowest[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t len = text[0] < 0x80 ? 1 : text[0] >= 0xf0 ? 4 : text[0] >= 0xe0 ? 3 : 2;
    if (len == 1)
        return 1;
    if (text[0] < 0xc2 || text[0] > 0xf4 || len > left)
        return 0;
    uint32_t point = text[0] & (0xffu >> (len + 1));
    for (size_t i = 1; i < len; i++) {
        if ((text[i] & 0xc0) != 0x80)
            return 0;
        point = point << 6 | (text[i] & 0x3f);
    }
    return point < lowest[len] || point > 0x10ffff || (point >= 0xd800 && point < 0xe000) ? 0 : len;
}

/* A JSON string of text that came from a server or a file: what is not UTF-8 becomes '?'. */
static void add_text(struct dynbuf *out, const char *text, size_t len)
{
    struct dynbuf clean;
    dynbuf_init(&clean, BODY_MAX);
    for (size_t i = 0; i < len;) {
        size_t valid = utf8_length((const unsigned char *)text + i, len - i);
        if (valid)
            dynbuf_add(&clean, text + i, valid);
        else
            dynbuf_addc(&clean, '?');
        i += valid ? valid : 1;
    }
    dynbuf_add_json(out, dynbuf_text(&clean));
    dynbuf_done(&clean);
}

/* A JSON array of the lines of `text`. */
static void add_lines(struct dynbuf *out, const char *text)
{
    dynbuf_addc(out, '[');
    for (const char *line = text; *line;) {
        size_t len = strcspn(line, "\n");
        if (line != text)
            dynbuf_addc(out, ',');
        add_text(out, line, len);
        line += len + (line[len] == '\n');
    }
    dynbuf_addc(out, ']');
}

static const char *json_bool(bool value)
{
    return value ? "true" : "false";
}

/* --- GET /healthz, /metrics ------------------------------------------------------------------- */

static void get_healthz(struct admin *admin, struct http_request *request)
{
    dynbuf_adds(&admin->body, "{\"status\":\"alive\"}");
    reply(admin, request, 200, JSON_TYPE);
}

static void get_metrics(struct admin *admin, struct http_request *request)
{
    metrics_render(&admin->body);
    reply(admin, request, 200, METRICS_TYPE);
}

/* --- GET /admin/nodes ------------------------------------------------------------------------- */

static void add_lsn(struct dynbuf *out, const char *member, uint64_t lsn)
{
    dynbuf_addf(out, ",\"%s\":\"%X/%X\"", member, (unsigned)(lsn >> 32), (unsigned)lsn);
}

/* What only a primary has, and what only a replica has. */
static void add_standing(struct dynbuf *out, const struct topology_node *node)
{
    if (node->role == NODE_PRIMARY)
        dynbuf_addf(out, ",\"attested\":%s", json_bool(node->attested));
    if (node->role == NODE_PRIMARY && node->refused)
        dynbuf_addf(out, ",\"refused\":\"%s\"", node_refusal_name(node->refused));
    else if (node->role == NODE_PRIMARY)
        dynbuf_adds(out, ",\"refused\":null");
    if (node->role != NODE_REPLICA)
        return;
    add_lsn(out, "receivedLsn", node->received_lsn);
    dynbuf_addf(out, ",\"inRotation\":%s,\"weight\":%d", json_bool(node->in_rotation),
                node->weight);
}

static void add_node(struct dynbuf *out, const struct topology_node *node, int64_t now_us)
{
    const int64_t staleness_us = topology_staleness_us(node, now_us);
    dynbuf_adds(out, "{\"shard\":");
    dynbuf_add_json(out, node->shard);
    dynbuf_adds(out, ",\"node\":");
    dynbuf_add_json(out, node->name);
    dynbuf_addf(out, ",\"role\":\"%s\",\"up\":%s,\"timeline\":%d", node_role_name(node->role),
                json_bool(node->up), node->timeline);
    add_lsn(out, "lsn", node->lsn);
    if (staleness_us == STALENESS_UNKNOWN)
        dynbuf_adds(out, ",\"stalenessMs\":null");
    else
        dynbuf_addf(out, ",\"stalenessMs\":%lld", (long long)(staleness_us / 1000));
    dynbuf_addf(out, ",\"epoch\":%lld,\"fenced\":%s,\"events\":%lld", (long long)node->epoch,
                json_bool(node->fenced), (long long)node->event_count);
    add_standing(out, node);
    /* beyond 2^53, so a string */
    if (node->system_identifier)
        dynbuf_addf(out, ",\"systemIdentifier\":\"%llu\"",
                    (unsigned long long)node->system_identifier);
    else
        dynbuf_adds(out, ",\"systemIdentifier\":null");
    dynbuf_adds(out, ",\"lastError\":");
    if (node->last_error[0])
        add_text(out, node->last_error, strlen(node->last_error));
    else
        dynbuf_adds(out, "null");
    dynbuf_addc(out, '}');
}

static void get_nodes(struct admin *admin, struct http_request *request)
{
    struct dynbuf *out = &admin->body;
    const int64_t now_us = clock_mono_us();
    snapshot_begin(admin->config.reader);
    const struct shardmap *map = snapshot_get(admin->config.maps);
    const struct topology *topology = snapshot_get(admin->config.topologies);
    dynbuf_addf(out, "{\"mapVersion\":%lld,\"nodes\":[", (long long)shardmap_version(map));
    for (size_t i = 0; topology && i < topology->node_count; i++) {
        if (i)
            dynbuf_addc(out, ',');
        add_node(out, &topology->nodes[i], now_us);
    }
    snapshot_end(admin->config.reader);
    dynbuf_adds(out, "]}");
    reply(admin, request, 200, JSON_TYPE);
}

/* --- GET /admin/map --------------------------------------------------------------------------- */

static void add_shard(struct dynbuf *out, const struct shardmap *map, int index)
{
    const struct shardmap_shard *shard = shardmap_shard(map, index);
    size_t range_count;
    size_t pin_count;
    long long ranges = 0;
    long long pins = 0;
    const struct shardmap_range *range = shardmap_ranges(map, &range_count);
    const struct shardmap_pin *pin = shardmap_pins(map, &pin_count);
    for (size_t i = 0; i < range_count; i++)
        ranges += range[i].shard == index;
    for (size_t i = 0; i < pin_count; i++)
        pins += pin[i].shard == index;
    dynbuf_adds(out, "{\"shard\":");
    dynbuf_add_json(out, shard->name);
    dynbuf_addf(out, ",\"ranges\":%lld,\"pins\":%lld,\"nodes\":[", ranges, pins);
    for (size_t i = 0; i < shard->node_count; i++) {
        if (i)
            dynbuf_addc(out, ',');
        dynbuf_add_json(out, shard->nodes[i].name);
    }
    dynbuf_adds(out, "]}");
}

static void add_map(struct dynbuf *out, const struct shardmap *map)
{
    size_t range_count;
    size_t pin_count;
    (void)shardmap_ranges(map, &range_count);
    (void)shardmap_pins(map, &pin_count);
    dynbuf_addf(out, "{\"version\":%lld,\"ranges\":%zu,\"pins\":%zu,\"shards\":[",
                (long long)shardmap_version(map), range_count, pin_count);
    for (size_t i = 0; i < shardmap_shard_count(map); i++) {
        if (i)
            dynbuf_addc(out, ',');
        add_shard(out, map, (int)i);
    }
    dynbuf_adds(out, "]}");
}

/* False if `text` is no event id: a decimal from 1 to 2^63 - 1. */
static bool parse_event_id(const char *text, int64_t *ret_event_id)
{
    char *end;
    if (text[0] < '1' || text[0] > '9')
        return false;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (*end || errno)
        return false;
    *ret_event_id = value;
    return true;
}

/* The shard that owns the event, as an index; -1 for none. Writes the answer if there is one. */
static int add_owner(struct admin *admin, int64_t event_id)
{
    struct dynbuf *out = &admin->body;
    snapshot_begin(admin->config.reader);
    const struct shardmap *map = snapshot_get(admin->config.maps);
    const int shard = shardmap_find(map, event_id);
    if (shard >= 0) {
        dynbuf_addf(out, "{\"version\":%lld,\"eventId\":%lld,\"shard\":",
                    (long long)shardmap_version(map), (long long)event_id);
        dynbuf_add_json(out, shardmap_shard(map, shard)->name);
        dynbuf_addc(out, '}');
    }
    snapshot_end(admin->config.reader);
    return shard;
}

static void get_map(struct admin *admin, struct http_request *request)
{
    const char *event = http_request_query(request, "event");
    int64_t event_id;
    if (!event) {
        snapshot_begin(admin->config.reader);
        add_map(&admin->body, snapshot_get(admin->config.maps));
        snapshot_end(admin->config.reader);
    } else if (!parse_event_id(event, &event_id)) {
        fail(admin, request, SG_MALFORMED, "event must be a number from 1 to 9223372036854775807");
        return;
    } else if (add_owner(admin, event_id) < 0) {
        fail(admin, request, SG_UNKNOWN_EVENT, "no range of the shard map holds this id");
        return;
    }
    reply(admin, request, 200, JSON_TYPE);
}

/* --- POST /admin/reload ----------------------------------------------------------------------- */

struct pending_reload {
    struct admin *admin;
    struct http_request *request;
};

static void add_stranded(struct dynbuf *out, const struct reload_stranded *const *stranded)
{
    dynbuf_adds(out, ",\"stranded\":[");
    for (size_t i = 0; stranded[i]; i++) {
        const struct reload_stranded *one = stranded[i];
        const bool more = one->count > RELOAD_COUNTED_MAX;
        dynbuf_adds(out, i ? ",{\"shard\":" : "{\"shard\":");
        dynbuf_add_json(out, one->shard);
        dynbuf_addf(out, ",\"count\":%lld,\"more\":%s,\"eventIds\":[",
                    (long long)(more ? RELOAD_COUNTED_MAX : one->count), json_bool(more));
        for (size_t j = 0; j < one->shown; j++) {
            if (j)
                dynbuf_addc(out, ',');
            dynbuf_add_i64(out, one->event_ids[j]);
        }
        dynbuf_adds(out, "]}");
    }
    dynbuf_addc(out, ']');
}

static void add_diff(struct dynbuf *out, const struct shardmap_diff *diff)
{
    struct dynbuf text;
    dynbuf_adds(out, ",\"diff\":");
    if (!diff) {
        dynbuf_adds(out, "null");
        return;
    }
    shardmap_diff_json(diff, out);
    dynbuf_init(&text, BODY_MAX);
    shardmap_diff_text(diff, &text);
    dynbuf_adds(out, ",\"text\":");
    dynbuf_add_json(out, dynbuf_text(&text));
    dynbuf_done(&text);
}

/* Members that the report and the problem have in common, from a comma on to the closing brace. */
static void add_report(struct dynbuf *out, const struct reload_report *report)
{
    dynbuf_addf(out,
                ",\"outcome\":\"%s\",\"dryRun\":%s,\"forced\":%s,\"oldVersion\":%lld,"
                "\"newVersion\":",
                reload_outcome_name(report->outcome), json_bool(report->dry_run),
                json_bool(report->forced), (long long)report->old_version);
    if (report->new_version)
        dynbuf_add_i64(out, report->new_version);
    else
        dynbuf_adds(out, "null");
    dynbuf_adds(out, ",\"errors\":");
    add_lines(out, report->errors);
    dynbuf_adds(out, ",\"warnings\":");
    add_lines(out, report->warnings);
    add_stranded(out, report->stranded);
    add_diff(out, report->diff);
    dynbuf_addf(out, ",\"parseUs\":%lld,\"askUs\":%lld,\"publishUs\":%lld}",
                (long long)report->parse_us, (long long)report->ask_us,
                (long long)report->publish_us);
}

static void on_reloaded(void *arg, const struct reload_report *report)
{
    const struct pending_reload pending = *(struct pending_reload *)arg;
    struct dynbuf *out = &pending.admin->body;
    const bool refused = report->outcome == RELOAD_REFUSED;
    free(arg);
    dynbuf_reset(out);
    if (refused) {
        const struct problem problem = {
            .error = SG_MAP_REFUSED,
            .detail = "The published map stays as it is; `errors` says what is wrong."};
        problem_write_open(out, &problem);
    } else {
        dynbuf_addf(out, "{\"mapVersion\":%lld",
                    (long long)(report->outcome == RELOAD_PUBLISHED ? report->new_version
                                                                    : report->old_version));
    }
    add_report(out, report);
    reply(pending.admin, pending.request, refused ? sg_error_http_status(SG_MAP_REFUSED) : 200,
          refused ? PROBLEM_CONTENT_TYPE : JSON_TYPE);
}

/* A flag of the query: absent or 0 is no, 1 is yes. */
static bool read_flag(struct http_request *request, const char *name, bool *ret_value)
{
    const char *value = http_request_query(request, name);
    if (value && strcmp(value, "0") != 0 && strcmp(value, "1") != 0)
        return false;
    *ret_value = value && value[0] == '1';
    return true;
}

static void post_reload(struct admin *admin, struct http_request *request)
{
    bool dry_run;
    bool force;
    if (!read_flag(request, "dry_run", &dry_run) || !read_flag(request, "force", &force)) {
        fail(admin, request, SG_MALFORMED, "dry_run and force are 0 or 1");
        return;
    }
    struct pending_reload *pending = malloc(sizeof(*pending));
    if (!pending) {
        fail(admin, request, SG_NO_MEMORY, NULL);
        return;
    }
    *pending = (struct pending_reload){admin, request};
    enum sg_error error = reload_start(admin->config.reload, dry_run, force, on_reloaded, pending);
    if (error != SG_OK) {
        free(pending);
        http_reply_header(request, "Retry-After", "1");
        fail(admin, request, error, "ask again when it is done");
    }
}

/* --- the table -------------------------------------------------------------------------------- */

static const struct endpoint {
    enum http_method method;
    const char *path;
    const char *allow;
    void (*handle)(struct admin *admin, struct http_request *request);
} endpoints[] = {
    {HTTP_GET, "/healthz", "GET, HEAD", get_healthz},
    {HTTP_GET, "/metrics", "GET, HEAD", get_metrics},
    {HTTP_GET, "/admin/nodes", "GET, HEAD", get_nodes},
    {HTTP_GET, "/admin/map", "GET, HEAD", get_map},
    {HTTP_POST, "/admin/reload", "POST", post_reload},
};

void admin_handle(void *object, struct http_request *request)
{
    struct admin *admin = object;
    enum http_method method = http_request_method(request);
    const char *path = http_request_path(request);
    if (method == HTTP_HEAD)
        method = HTTP_GET;
    dynbuf_reset(&admin->body);
    for (size_t i = 0; i < sizeof(endpoints) / sizeof(endpoints[0]); i++) {
        const struct endpoint *endpoint = &endpoints[i];
        if (strcmp(endpoint->path, path) != 0)
            continue;
        if (endpoint->method == method) {
            endpoint->handle(admin, request);
            return;
        }
        http_reply_header(request, "Allow", endpoint->allow);
        fail(admin, request, SG_METHOD_NOT_ALLOWED, NULL);
        return;
    }
    fail(admin, request, SG_NOT_FOUND, NULL);
}

struct admin *admin_new(const struct admin_config *config)
{
    struct admin *admin = calloc(1, sizeof(*admin));
    if (!admin)
        return NULL;
    admin->config = *config;
    dynbuf_init(&admin->body, BODY_MAX);
    return admin;
}

void admin_free(struct admin *admin)
{
    if (!admin)
        return;
    dynbuf_done(&admin->body);
    free(admin);
}
