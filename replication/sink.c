/*
 * Batches of commands to Redis. See sink.h.
 *
 *   sink_send, sink_ask ─> line ─┬─ batch ─> current: its answers are counted ─> answered ─> fn
 *                                └─ ask ───> redisconn, which calls fn itself
 *
 * While the connection is up, the line is empty unless a batch is current. `answered` holds batches
 * whose fn is due: a callback may send, or free the sink, so it is always emptied from its head and
 * what is done to it in between is seen.
 *
 * SPDX-License-Identifier: MIT
 */
#include "replication/sink.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "base/log.h"
#include "base/metrics.h"
#include "base/reap.h"
#include "base/redisresp.h"
#include "replication/outbox.h"

#define IN_FLIGHT_MAX 1048576 /* one batch, and asks: far above what their owners do */
#define LOAD_BYTES_MAX 1048576
#define REASON_SIZE 256

/* One call of sink_send, or of sink_ask while it stands in line. */
struct sink_item {
    TAILQ_ENTRY(sink_item) entry;
    struct sink *sink;
    bool is_ask;
    redisconn_fn *ask; /* of an ask; may be NULL */
    sink_fn *fn;       /* of a batch */
    void *arg;
    char *resp; /* of what stands in line */
    size_t len;
    size_t count;
    size_t answers; /* so far */
    enum sink_outcome outcome;
    char reason[REASON_SIZE];
    size_t *missing;
    size_t missing_count;
    size_t missing_size;
};

TAILQ_HEAD(sink_items, sink_item);

struct sink_load {
    struct sink *sink;
    enum script script;
};

struct sink {
    struct sink_config config;
    char shard[64];
    char name[72];
    struct redisconn *conn;
    bool up;
    bool freed;
    unsigned loading; /* scripts that are on their way */
    struct sink_load loads[SCRIPT_COUNT];
    struct sink_item *current; /* the batch at Redis */
    struct sink_items line;
    struct sink_items answered;
};

static const char *const outcome_names[] = {
    [SINK_DONE] = "done", [SINK_FULL] = "full", [SINK_FAILED] = "failed",
    [SINK_LOST] = "lost", [SINK_GONE] = "gone", [SINK_STALE] = "stale",
};

static struct log_fields fields_of(const struct sink *sink)
{
    return (struct log_fields){.shard = sink->shard};
}

/* --- scripts, and what is to be known of the server ------------------------------------------- */

static void on_script_loaded(void *arg, const redisReply *reply)
{
    const struct sink_load *load = arg;
    struct sink *sink = load->sink;
    char reason[REASON_SIZE];
    if (!reply)
        return;
    if (reply->type != REDIS_REPLY_STRING || strcmp(reply->str, script_sha(load->script)) != 0) {
        snprintf(reason, sizeof(reason), "SCRIPT LOAD: %s",
                 reply->type == REDIS_REPLY_ERROR ? reply->str : "not the SHA-1 expected");
        redisconn_reset(sink->conn, reason);
        return;
    }
    if (--sink->loading == 0 && !sink->up) {
        sink->up = true;
        if (sink->config.on_up)
            sink->config.on_up(sink->config.arg);
    }
}

static bool send_script(struct sink *sink, enum script script)
{
    struct dynbuf resp;
    size_t len;
    const char *text = script_text(script, &len);
    dynbuf_init(&resp, LOAD_BYTES_MAX);
    redisresp_begin(&resp, 3);
    redisresp_args(&resp, "SCRIPT");
    redisresp_args(&resp, "LOAD");
    redisresp_arg(&resp, text, len);
    const bool sent = !resp.failed && redisconn_send(sink->conn, resp.data, resp.len,
                                                     on_script_loaded, &sink->loads[script]);
    dynbuf_done(&resp);
    return sent;
}

static void load_scripts(struct sink *sink)
{
    sink->loading = SCRIPT_COUNT;
    for (int i = 0; i < SCRIPT_COUNT; i++) {
        if (!send_script(sink, (enum script)i)) {
            redisconn_reset(sink->conn, "the scripts could not be sent");
            return;
        }
    }
}

/* A server may refuse to tell; then nothing is known. */
static void on_policy(void *arg, const redisReply *reply)
{
    const struct sink *sink = arg;
    const struct log_fields fields = fields_of(sink);
    if (!reply || reply->type != REDIS_REPLY_ARRAY || reply->elements != 2 ||
        reply->element[1]->type != REDIS_REPLY_STRING)
        return;
    const char *policy = reply->element[1]->str;
    if (strcmp(policy, "noeviction") != 0)
        log_warn(&fields,
                 "redis may evict keys of ours (maxmemory-policy %s): set it to noeviction",
                 policy);
}

static void ask_policy(struct sink *sink)
{
    struct dynbuf resp;
    dynbuf_init(&resp, 256);
    redisresp_command(&resp, "CONFIG", "GET", "maxmemory-policy", NULL);
    if (!resp.failed)
        redisconn_send(sink->conn, resp.data, resp.len, on_policy, sink);
    dynbuf_done(&resp);
}

/* --- answers ---------------------------------------------------------------------------------- */

/* What one command was told. Redis before 7 wraps what happened inside a script. */
static enum sink_outcome outcome_of(const redisReply *reply, const char **ret_reason)
{
    if (!reply) {
        *ret_reason = "the connection to Redis was lost";
        return SINK_LOST;
    }
    if (reply->type == REDIS_REPLY_ERROR) {
        *ret_reason = reply->str;
        const bool full = strncmp(reply->str, "OOM ", 4) == 0 || strstr(reply->str, "-OOM ");
        return full ? SINK_FULL : SINK_FAILED;
    }
    if (reply->type == REDIS_REPLY_STATUS)
        return SINK_DONE;
    if (reply->type == REDIS_REPLY_INTEGER && reply->integer >= -1)
        return SINK_DONE;
    if (reply->type == REDIS_REPLY_INTEGER && reply->integer == -2) {
        *ret_reason = "another consumer with a higher epoch has written";
        return SINK_STALE;
    }
    if (reply->type == REDIS_REPLY_INTEGER && reply->integer == -3) {
        *ret_reason = "the shard's hash is gone, or names another generation";
        return SINK_GONE;
    }
    *ret_reason = "Redis gave an answer that no script of ours gives";
    return SINK_FAILED;
}

static void worsen(struct sink_item *batch, enum sink_outcome outcome, const char *reason)
{
    if (outcome <= batch->outcome)
        return;
    batch->outcome = outcome;
    snprintf(batch->reason, sizeof(batch->reason), "%s", reason);
}

static void note_missing(struct sink_item *batch, size_t index)
{
    if (batch->missing_count == batch->missing_size) {
        const size_t size = batch->missing_size ? batch->missing_size * 2 : 16;
        size_t *missing = realloc(batch->missing, size * sizeof *missing);
        if (!missing) {
            worsen(batch, SINK_FAILED, "out of memory");
            return;
        }
        batch->missing = missing;
        batch->missing_size = size;
    }
    batch->missing[batch->missing_count++] = index;
}

static void count_outcome(const struct sink_item *batch)
{
    const struct sink *sink = batch->sink;
    if (!sink->config.metrics)
        return;
    const char *labels[] = {sink->shard, outcome_names[batch->outcome]};
    metrics_add(metrics_series(sink->config.metrics, METRIC_CDC_BATCHES, labels), 1);
    if (batch->outcome == SINK_STALE)
        metrics_add(metrics_series(sink->config.metrics, METRIC_CDC_REFUSED, labels), 1);
}

/* --- the line --------------------------------------------------------------------------------- */

static void free_item(struct sink_item *item)
{
    free(item->resp);
    free(item->missing);
    free(item);
}

static void answer(struct sink *sink)
{
    struct sink_item *item;
    while ((item = TAILQ_FIRST(&sink->answered))) {
        TAILQ_REMOVE(&sink->answered, item, entry);
        if (item->is_ask && item->ask) {
            item->ask(item->arg, NULL);
        } else if (!item->is_ask) {
            const struct sink_result result = {.outcome = item->outcome,
                                               .reason = item->reason,
                                               .missing = item->missing,
                                               .missing_count = item->missing_count};
            item->fn(item->arg, &result);
        }
        free_item(item);
    }
}

static void on_answer(void *arg, const redisReply *reply);

static bool start(struct sink *sink, struct sink_item *batch, const char *resp, size_t len)
{
    if (!redisconn_send_many(sink->conn, resp, len, batch->count, on_answer, batch))
        return false;
    sink->current = batch;
    return true;
}

/* Sends what stands in line up to the second batch; behind one that failed no batch goes any more,
 * and asks do. */
static void advance(struct sink *sink, enum sink_outcome outcome, const char *reason)
{
    struct sink_item *item;
    while ((item = TAILQ_FIRST(&sink->line)) && (item->is_ask || !sink->current)) {
        TAILQ_REMOVE(&sink->line, item, entry);
        if (item->is_ask &&
            redisconn_send(sink->conn, item->resp, item->len, item->ask, item->arg)) {
            free_item(item);
            continue;
        }
        if (!item->is_ask && outcome == SINK_DONE) {
            if (start(sink, item, item->resp, item->len))
                continue;
            outcome = SINK_LOST;
            reason = "the connection to Redis was lost before the batch was sent";
        }
        worsen(item, outcome, reason);
        TAILQ_INSERT_TAIL(&sink->answered, item, entry);
    }
}

static void finish(struct sink *sink, struct sink_item *batch)
{
    const struct log_fields fields = fields_of(sink);
    sink->current = NULL;
    count_outcome(batch);
    if (batch->outcome == SINK_FAILED && strncmp(batch->reason, "NOSCRIPT", 8) == 0 &&
        !sink->loading && redisconn_is_up(sink->conn)) {
        log_info(&fields, "redis has lost the scripts: loading them again");
        load_scripts(sink);
    }
    TAILQ_INSERT_TAIL(&sink->answered, batch, entry);
    if (redisconn_is_up(sink->conn)) /* else the line is answered behind what was sent: end_line */
        advance(sink, batch->outcome, batch->reason);
    answer(sink);
}

static void end_line(struct sink *sink)
{
    advance(sink, SINK_LOST, "the connection to Redis was lost before the batch was sent");
    answer(sink);
}

static void on_answer(void *arg, const redisReply *reply)
{
    struct sink_item *batch = arg;
    const char *reason = "";
    const enum sink_outcome outcome = outcome_of(reply, &reason);
    worsen(batch, outcome, reason);
    if (reply && reply->type == REDIS_REPLY_INTEGER && reply->integer == -1)
        note_missing(batch, batch->answers);
    if (++batch->answers == batch->count)
        finish(batch->sink, batch);
}

/* --- the connection --------------------------------------------------------------------------- */

static void on_conn_up(void *arg)
{
    struct sink *sink = arg;
    load_scripts(sink);
    ask_policy(sink);
}

static void on_conn_lost(void *arg, const char *reason)
{
    struct sink *sink = arg;
    const bool was_up = sink->up;
    sink->up = false;
    sink->loading = 0;
    end_line(sink);
    if (was_up && !sink->freed && sink->config.on_lost)
        sink->config.on_lost(sink->config.arg, reason);
}

/* --- what owners do --------------------------------------------------------------------------- */

struct sink *sink_new(const struct sink_config *config)
{
    struct sink *sink = calloc(1, sizeof(*sink));
    if (!sink)
        return NULL;
    sink->config = *config;
    snprintf(sink->shard, sizeof(sink->shard), "%s", config->shard);
    snprintf(sink->name, sizeof(sink->name), "cdc %s", sink->shard);
    TAILQ_INIT(&sink->line);
    TAILQ_INIT(&sink->answered);
    for (int i = 0; i < SCRIPT_COUNT; i++)
        sink->loads[i] = (struct sink_load){.sink = sink, .script = (enum script)i};
    sink->conn = redisconn_new(&(struct redisconn_config){.base = config->base,
                                                          .reap = config->reap,
                                                          .metrics = config->metrics,
                                                          .settings = config->settings,
                                                          .name = sink->name,
                                                          .in_flight_max = IN_FLIGHT_MAX,
                                                          .on_up = on_conn_up,
                                                          .on_lost = on_conn_lost,
                                                          .arg = sink});
    if (!sink->conn) {
        free(sink);
        return NULL;
    }
    return sink;
}

void sink_free(struct sink *sink)
{
    if (!sink)
        return;
    sink->up = false;
    sink->freed = true;
    redisconn_free(sink->conn);
    end_line(sink);
    assert(!sink->current && TAILQ_EMPTY(&sink->line));
    reap(sink->config.reap, sink, free);
}

bool sink_is_up(const struct sink *sink)
{
    return sink->up && redisconn_is_up(sink->conn);
}

/* In line, with a copy of the bytes. */
static bool stand_in_line(struct sink *sink, struct sink_item *item, const struct dynbuf *resp)
{
    item->resp = malloc(resp->len);
    if (!item->resp)
        return false;
    memcpy(item->resp, resp->data, resp->len);
    item->len = resp->len;
    TAILQ_INSERT_TAIL(&sink->line, item, entry);
    return true;
}

bool sink_send(struct sink *sink, const struct dynbuf *commands, size_t count, sink_fn *fn,
               void *arg)
{
    assert(count > 0);
    if (!sink_is_up(sink) || commands->failed)
        return false;
    struct sink_item *batch = calloc(1, sizeof(*batch));
    if (!batch)
        return false;
    *batch = (struct sink_item){.sink = sink, .fn = fn, .arg = arg, .count = count};
    if (sink->current ? stand_in_line(sink, batch, commands)
                      : start(sink, batch, commands->data, commands->len))
        return true;
    free_item(batch);
    return false;
}

bool sink_ask(struct sink *sink, const struct dynbuf *command, redisconn_fn *fn, void *arg)
{
    if (!sink_is_up(sink) || command->failed)
        return false;
    if (TAILQ_EMPTY(&sink->line))
        return redisconn_send(sink->conn, command->data, command->len, fn, arg);
    struct sink_item *ask = calloc(1, sizeof(*ask));
    if (!ask)
        return false;
    *ask = (struct sink_item){.sink = sink, .is_ask = true, .ask = fn, .arg = arg, .count = 1};
    if (stand_in_line(sink, ask, command))
        return true;
    free_item(ask);
    return false;
}
