/*
 * The endpoints of `seatgrid cdc`. See cdc_admin.h.
 *
 *   cdc_admin_handle ─> table ─> endpoint ─> reply, or for a reconcile: later, when the last shard
 *                                            has said its last word; for a drain: when it is told
 *
 * SPDX-License-Identifier: MIT
 */
#include "api/cdc_admin.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/http.h"
#include "api/problem.h"
#include "base/dynbuf.h"
#include "base/metrics.h"
#include "replication/consumer.h"

#define BODY_MAX ((size_t)64 << 20)
#define JSON_TYPE "application/json"
#define METRICS_TYPE "text/plain; version=0.0.4; charset=utf-8"
#define DRIFTS_LISTED_MAX 1000 /* of one shard in one answer; more are counted */

struct cdc_admin {
    struct consumer *const *consumers;
    size_t count;
    struct dynbuf body; /* the answer being written; free between any two answers */
};

/* --- answering -------------------------------------------------------------------------------- */

static void fail(struct cdc_admin *admin, struct http_request *request, enum sg_error error,
                 const char *detail)
{
    const struct problem problem = {.error = error, .detail = detail};
    dynbuf_reset(&admin->body);
    problem_write(&admin->body, &problem);
    if (sg_error_may_retry(error))
        http_reply_header(request, "Retry-After", "1");
    http_reply(request, sg_error_http_status(error), PROBLEM_CONTENT_TYPE,
               dynbuf_text(&admin->body), admin->body.len);
}

/* Answers with what was written to admin->body. */
static void reply(struct cdc_admin *admin, struct http_request *request, int status,
                  const char *type)
{
    if (admin->body.failed) {
        fail(admin, request, SG_NO_MEMORY, NULL);
        return;
    }
    http_reply_header(request, "Cache-Control", "no-store");
    http_reply(request, status, type, dynbuf_text(&admin->body), admin->body.len);
}

static const char *refusal_text(enum sg_error error)
{
    if (error == SG_RELOAD_BUSY)
        return "the shard is at it already; see /admin/streams";
    if (error == SG_SHARD_UNAVAILABLE)
        return "this consumer does not keep the shard in step now; see /admin/streams";
    return sg_error_title(error);
}

/* {"shard":"alpha","code":"...","detail":"..."} */
static void add_refusal(struct dynbuf *out, const char *shard, enum sg_error error)
{
    dynbuf_adds(out, "{\"shard\":");
    dynbuf_add_json(out, shard);
    dynbuf_addf(out, ",\"code\":\"%s\",\"detail\":", sg_error_code(error));
    dynbuf_add_json(out, refusal_text(error));
    dynbuf_addc(out, '}');
}

/* True if the request means this consumer. */
static bool is_meant(const struct consumer *consumer, const char *shard)
{
    return !shard || strcmp(consumer_shard(consumer), shard) == 0;
}

/* How many consumers `shard` means; answers if it is none. */
static size_t count_meant(struct cdc_admin *admin, struct http_request *request, const char *shard)
{
    size_t meant = 0;
    for (size_t i = 0; i < admin->count; i++)
        meant += is_meant(admin->consumers[i], shard);
    if (meant == 0) {
        char detail[160];
        snprintf(detail, sizeof(detail),
                 "the shard map has no shard \"%.64s\"; `seatgrid map show` lists them", shard);
        fail(admin, request, SG_UNKNOWN_SHARD, detail);
    }
    return meant;
}

/* --- GET /healthz, /metrics, /admin/streams --------------------------------------------------- */

static void get_healthz(struct cdc_admin *admin, struct http_request *request)
{
    dynbuf_adds(&admin->body, "{\"status\":\"alive\"}");
    reply(admin, request, 200, JSON_TYPE);
}

static void get_metrics(struct cdc_admin *admin, struct http_request *request)
{
    metrics_render(&admin->body);
    reply(admin, request, 200, METRICS_TYPE);
}

static void get_streams(struct cdc_admin *admin, struct http_request *request)
{
    dynbuf_adds(&admin->body, "{\"streams\":[");
    for (size_t i = 0; i < admin->count; i++) {
        if (i)
            dynbuf_addc(&admin->body, ',');
        consumer_write_status(admin->consumers[i], &admin->body);
    }
    dynbuf_adds(&admin->body, "]}");
    reply(admin, request, 200, JSON_TYPE);
}

/* --- POST /admin/reseed ----------------------------------------------------------------------- */

static void post_reseed(struct cdc_admin *admin, struct http_request *request)
{
    const char *shard = http_request_query(request, "shard");
    enum sg_error error = SG_OK;
    size_t began = 0;
    size_t refused = 0;
    struct dynbuf refusals;
    if (count_meant(admin, request, shard) == 0)
        return;
    dynbuf_init(&refusals, BODY_MAX);
    dynbuf_adds(&admin->body, "{\"began\":[");
    for (size_t i = 0; i < admin->count; i++) {
        struct consumer *consumer = admin->consumers[i];
        if (!is_meant(consumer, shard))
            continue;
        enum sg_error one = consumer_reseed(consumer);
        if (one == SG_OK) {
            dynbuf_adds(&admin->body, began++ ? "," : "");
            dynbuf_add_json(&admin->body, consumer_shard(consumer));
        } else {
            dynbuf_adds(&refusals, refused++ ? "," : "");
            add_refusal(&refusals, consumer_shard(consumer), one);
            error = one;
        }
    }
    dynbuf_adds(&admin->body, "],\"refused\":[");
    dynbuf_add(&admin->body, dynbuf_text(&refusals), refusals.len);
    dynbuf_adds(&admin->body, "]}");
    dynbuf_done(&refusals);
    if (began)
        reply(admin, request, 202, JSON_TYPE);
    else
        fail(admin, request, error, refusal_text(error));
}

/* --- POST /admin/reconcile -------------------------------------------------------------------- */

struct shard_pass {
    struct pending_reconcile *pending;
    const char *shard;   /* the consumer's */
    enum sg_error error; /* refused */
    bool given_up;
    char reason[256];
    int64_t events, tickets, drift, healed;
    size_t listed;
    struct dynbuf drifts; /* JSON objects with commas between them */
};

struct pending_reconcile {
    struct cdc_admin *admin;
    struct http_request *request;
    size_t open; /* shards that have not said their last word, and one while they are being asked */
    size_t count;
    struct shard_pass passes[];
};

static void add_drift(struct shard_pass *pass, const struct reconcile_drift *drift)
{
    struct dynbuf *out = &pass->drifts;
    if (pass->listed >= DRIFTS_LISTED_MAX)
        return;
    dynbuf_addf(out, "%s{\"eventId\":%lld,\"userId\":", pass->listed++ ? "," : "",
                (long long)drift->event_id);
    if (drift->user[0])
        dynbuf_add_json(out, drift->user);
    else
        dynbuf_adds(out, "null");
    dynbuf_adds(out, ",\"what\":");
    dynbuf_add_json(out, drift->what);
    dynbuf_addc(out, '}');
}

static void add_pass(struct dynbuf *out, const struct shard_pass *pass)
{
    if (pass->error != SG_OK) {
        add_refusal(out, pass->shard, pass->error);
        return;
    }
    dynbuf_adds(out, "{\"shard\":");
    dynbuf_add_json(out, pass->shard);
    dynbuf_addf(out,
                ",\"complete\":%s,\"events\":%lld,\"tickets\":%lld,\"drift\":%lld,\"healed\":%lld",
                pass->given_up ? "false" : "true", (long long)pass->events,
                (long long)pass->tickets, (long long)pass->drift, (long long)pass->healed);
    if (pass->given_up) {
        dynbuf_adds(out, ",\"detail\":");
        dynbuf_add_json(out, pass->reason);
    }
    dynbuf_adds(out, ",\"drifts\":[");
    dynbuf_add(out, dynbuf_text(&pass->drifts), pass->drifts.len);
    dynbuf_adds(out, "]}");
}

/* Answers and is gone once the last one is through. */
static void finish_one(struct pending_reconcile *pending)
{
    struct cdc_admin *admin = pending->admin;
    enum sg_error refused = SG_OK;
    bool any = false;
    if (--pending->open > 0)
        return;
    dynbuf_reset(&admin->body);
    dynbuf_adds(&admin->body, "{\"shards\":[");
    for (size_t i = 0; i < pending->count; i++) {
        if (i)
            dynbuf_addc(&admin->body, ',');
        add_pass(&admin->body, &pending->passes[i]);
        any = any || pending->passes[i].error == SG_OK;
        refused = pending->passes[i].error ? pending->passes[i].error : refused;
        dynbuf_done(&pending->passes[i].drifts);
    }
    dynbuf_adds(&admin->body, "]}");
    if (any)
        reply(admin, pending->request, 200, JSON_TYPE);
    else
        fail(admin, pending->request, refused, refusal_text(refused));
    free(pending);
}

static void on_reconciled(void *arg, const struct reconcile_report *report, bool last,
                          const char *reason)
{
    struct shard_pass *pass = arg;
    pass->events += report->events;
    pass->tickets += report->tickets;
    pass->drift += report->event_drift + report->ticket_drift;
    pass->healed += report->healed;
    for (size_t i = 0; i < report->drift_count; i++)
        add_drift(pass, &report->drifts[i]);
    if (reason) {
        pass->given_up = true;
        snprintf(pass->reason, sizeof(pass->reason), "%s", reason);
        for (char *c = pass->reason; *c; c++) {
            if (*c < ' ' || *c > '~')
                *c = '?';
        }
    }
    if (last)
        finish_one(pass->pending);
}

static void post_reconcile(struct cdc_admin *admin, struct http_request *request)
{
    const char *shard = http_request_query(request, "shard");
    const char *fix = http_request_query(request, "fix");
    if (fix && strcmp(fix, "0") != 0 && strcmp(fix, "1") != 0) {
        fail(admin, request, SG_MALFORMED, "fix is 0 or 1");
        return;
    }
    const bool heal = fix && fix[0] == '1';
    const size_t meant = count_meant(admin, request, shard);
    if (meant == 0)
        return;
    struct pending_reconcile *pending =
        calloc(1, sizeof(*pending) + meant * sizeof(pending->passes[0]));
    if (!pending) {
        fail(admin, request, SG_NO_MEMORY, NULL);
        return;
    }
    *pending = (struct pending_reconcile){.admin = admin, .request = request, .open = meant + 1};
    for (size_t i = 0; i < admin->count; i++) {
        struct consumer *consumer = admin->consumers[i];
        if (!is_meant(consumer, shard))
            continue;
        struct shard_pass *pass = &pending->passes[pending->count++];
        pass->pending = pending;
        pass->shard = consumer_shard(consumer);
        dynbuf_init(&pass->drifts, BODY_MAX / 64);
        pass->error = consumer_reconcile(consumer, heal, on_reconciled, pass);
        if (pass->error != SG_OK)
            pending->open--;
    }
    finish_one(pending);
}

/* --- POST /admin/drain ------------------------------------------------------------------------ */

#define DRAIN_TIMEOUT_MAX_MS 600000

struct pending_drain {
    struct cdc_admin *admin;
    struct http_request *request;
    const struct consumer *consumer;
    int32_t timeline; /* that is to be followed; 0: any */
};

/* Up to `max_digits` digits of the base, and nothing else. */
static bool parse_number(const char *text, size_t max_digits, int base, uint64_t *ret_value)
{
    const char *digits = base == 16 ? "0123456789abcdefABCDEF" : "0123456789";
    const size_t len = strspn(text, digits);
    if (len == 0 || len > max_digits || text[len])
        return false;
    *ret_value = strtoull(text, NULL, base);
    return true;
}

/* "0/16B3748", as PostgreSQL writes it; not 0/0. */
static bool parse_lsn(const char *text, uint64_t *ret_lsn)
{
    char high_text[9];
    uint64_t high, low;
    const char *slash = strchr(text, '/');
    if (!slash || (size_t)(slash - text) >= sizeof(high_text))
        return false;
    snprintf(high_text, sizeof(high_text), "%.*s", (int)(slash - text), text);
    if (!parse_number(high_text, 8, 16, &high) || !parse_number(slash + 1, 8, 16, &low) ||
        (high | low) == 0)
        return false;
    *ret_lsn = high << 32 | low;
    return true;
}

static struct consumer *find_consumer(const struct cdc_admin *admin, const char *shard)
{
    for (size_t i = 0; i < admin->count; i++) {
        if (strcmp(consumer_shard(admin->consumers[i]), shard) == 0)
            return admin->consumers[i];
    }
    return NULL;
}

static void write_drained(struct dynbuf *out, const struct pending_drain *pending,
                          const struct consumer_drained *drained)
{
    dynbuf_adds(out, "{\"shard\":");
    dynbuf_add_json(out, consumer_shard(pending->consumer));
    dynbuf_addf(out, ",\"generation\":%lld,\"slot\":", (long long)drained->generation);
    dynbuf_add_json(out, drained->slot);
    dynbuf_addf(out, ",\"lsn\":\"%X/%X\",\"timeline\":%d,\"system\":\"%llu\"}",
                (unsigned)(drained->lsn >> 32), (unsigned)drained->lsn, (int)drained->timeline,
                (unsigned long long)drained->system_identifier);
}

static void on_drained(void *arg, enum sg_error error, const struct consumer_drained *drained,
                       const char *reason)
{
    struct pending_drain *pending = arg;
    struct cdc_admin *admin = pending->admin;
    char detail[120];
    dynbuf_reset(&admin->body);
    if (error != SG_OK) {
        fail(admin, pending->request, error, reason);
    } else if (pending->timeline && pending->timeline != drained->timeline) {
        snprintf(detail, sizeof(detail), "timeline %d is followed, not %d", (int)drained->timeline,
                 (int)pending->timeline);
        fail(admin, pending->request, SG_INVALID_VALUE, detail);
    } else {
        write_drained(&admin->body, pending, drained);
        reply(admin, pending->request, 200, JSON_TYPE);
    }
    free(pending);
}

static const char *drain_refusal_text(enum sg_error error)
{
    if (error == SG_RELOAD_BUSY)
        return "a new generation of keys is being built; see /admin/streams";
    if (error == SG_OVERLOADED)
        return "too many drains are waiting already";
    return refusal_text(error);
}

/* NULL: all is well. */
static const char *drain_problem(const char *shard, const char *lsn_text, const char *timeout_text,
                                 const char *timeline_text, uint64_t *lsn, uint64_t *timeout_ms,
                                 uint64_t *timeline)
{
    if (!shard)
        return "shard names the shard";
    if (!lsn_text || !parse_lsn(lsn_text, lsn))
        return "lsn is a position such as 0/16B3748";
    if (!timeout_text || !parse_number(timeout_text, 6, 10, timeout_ms) || *timeout_ms == 0 ||
        *timeout_ms > DRAIN_TIMEOUT_MAX_MS)
        return "timeout_ms is a number from 1 to 600000";
    if (timeline_text && (!parse_number(timeline_text, 9, 10, timeline) || *timeline == 0))
        return "timeline is the number of a timeline";
    return NULL;
}

static void post_drain(struct cdc_admin *admin, struct http_request *request)
{
    const char *shard = http_request_query(request, "shard");
    uint64_t lsn = 0;
    uint64_t timeout_ms = 0;
    uint64_t timeline = 0;
    const char *problem = drain_problem(
        shard, http_request_query(request, "lsn"), http_request_query(request, "timeout_ms"),
        http_request_query(request, "timeline"), &lsn, &timeout_ms, &timeline);
    if (problem) {
        fail(admin, request, SG_MALFORMED, problem);
        return;
    }
    if (count_meant(admin, request, shard) == 0)
        return;
    struct pending_drain *pending = calloc(1, sizeof(*pending));
    if (!pending) {
        fail(admin, request, SG_NO_MEMORY, NULL);
        return;
    }
    struct consumer *consumer = find_consumer(admin, shard);
    *pending = (struct pending_drain){
        .admin = admin, .request = request, .consumer = consumer, .timeline = (int32_t)timeline};
    enum sg_error error = consumer_drain(consumer, lsn, (int64_t)timeout_ms, on_drained, pending);
    if (error == SG_OK)
        return;
    free(pending);
    fail(admin, request, error, drain_refusal_text(error));
}

/* --- the table -------------------------------------------------------------------------------- */

static const struct endpoint {
    enum http_method method;
    const char *path;
    const char *allow;
    void (*handle)(struct cdc_admin *admin, struct http_request *request);
} endpoints[] = {
    {HTTP_GET, "/healthz", "GET, HEAD", get_healthz},
    {HTTP_GET, "/metrics", "GET, HEAD", get_metrics},
    {HTTP_GET, "/admin/streams", "GET, HEAD", get_streams},
    {HTTP_POST, "/admin/reseed", "POST", post_reseed},
    {HTTP_POST, "/admin/reconcile", "POST", post_reconcile},
    {HTTP_POST, "/admin/drain", "POST", post_drain},
};

void cdc_admin_handle(void *object, struct http_request *request)
{
    struct cdc_admin *admin = object;
    enum http_method method = http_request_method(request);
    if (method == HTTP_HEAD)
        method = HTTP_GET;
    dynbuf_reset(&admin->body);
    for (size_t i = 0; i < sizeof(endpoints) / sizeof(endpoints[0]); i++) {
        if (strcmp(endpoints[i].path, http_request_path(request)) != 0)
            continue;
        if (endpoints[i].method == method) {
            endpoints[i].handle(admin, request);
        } else {
            http_reply_header(request, "Allow", endpoints[i].allow);
            fail(admin, request, SG_METHOD_NOT_ALLOWED, NULL);
        }
        return;
    }
    fail(admin, request, SG_NOT_FOUND, NULL);
}

struct cdc_admin *cdc_admin_new(struct consumer *const *consumers, size_t count)
{
    struct cdc_admin *admin = calloc(1, sizeof(*admin));
    if (!admin)
        return NULL;
    admin->consumers = consumers;
    admin->count = count;
    dynbuf_init(&admin->body, BODY_MAX);
    return admin;
}

void cdc_admin_free(struct cdc_admin *admin)
{
    if (!admin)
        return;
    dynbuf_done(&admin->body);
    free(admin);
}
