/*
 * Reload of the shard map. See reload.h.
 *
 * Each step returns the next one; STEP_WAIT hands control back to the loop until an answer or a
 * deadline calls the driver again.
 *
 * SPDX-License-Identifier: MIT
 */
#include "router/reload.h"

#include <event2/event.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/dynbuf.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/settings.h"
#include "base/snapshot.h"
#include "router/topology.h"
#include "shardmap/diff.h"
#include "shardmap/shardmap.h"

#define TEXT_MAX ((size_t)1 << 20)

enum reload_step {
    STEP_IDLE,
    STEP_LOAD,
    STEP_COMPARE,
    STEP_ASK,
    STEP_WAIT,
    STEP_JUDGE,
    STEP_PUBLISH,
    STEP_DONE
};

struct reload {
    struct reload_config config;
    struct event *turn; /* runs the driver from the loop */
    enum reload_step step;

    /* of the reload under way */
    bool force;
    reload_fn *fn;
    void *arg;
    struct shardmap *new_map; /* owned until it is published */
    struct shardmap_diff *diff;
    struct reload_asks *asks;
    struct dynbuf errors;
    struct dynbuf warnings;
    struct reload_report report;
    const struct reload_stranded **stranded;
    int64_t started_us;
    int64_t asked_us;
};

/* The published map. Only this thread publishes maps, so it stays while a reload waits. */
static const struct shardmap *published_map(const struct reload *reload)
{
    snapshot_begin(reload->config.publisher);
    const struct shardmap *map = snapshot_get(reload->config.maps);
    snapshot_end(reload->config.publisher);
    return map;
}

/* Likewise, but health publishes in between: only until control returns to the loop. */
static const struct topology *published_topology(const struct reload *reload)
{
    if (!reload->config.topologies)
        return NULL;
    snapshot_begin(reload->config.publisher);
    const struct topology *topology = snapshot_get(reload->config.topologies);
    snapshot_end(reload->config.publisher);
    return topology;
}

static enum reload_step refuse(struct reload *reload)
{
    reload->report.outcome = RELOAD_REFUSED;
    return STEP_DONE;
}

static enum reload_step refuse_for(struct reload *reload, enum sg_error error)
{
    dynbuf_addf(&reload->errors, "%s\n", sg_error_title(error));
    return refuse(reload);
}

/* --- the steps -------------------------------------------------------------------------------- */

static enum reload_step step_load(struct reload *reload)
{
    const int64_t from_us = clock_mono_us();
    enum sg_error error =
        shardmap_load(reload->config.settings->shard_map, &reload->new_map, &reload->errors);
    reload->report.parse_us = clock_mono_us() - from_us;
    if (error == SG_OK)
        return STEP_COMPARE;
    return reload->errors.len ? refuse(reload) : refuse_for(reload, error);
}

static enum reload_step step_compare(struct reload *reload)
{
    const struct shardmap *old_map = published_map(reload);
    struct reload_report *report = &reload->report;
    enum sg_error error = shardmap_diff_new(old_map, reload->new_map, &reload->diff);
    if (error != SG_OK)
        return refuse_for(reload, error);
    report->new_version = shardmap_version(reload->new_map);
    const bool same = shardmap_diff_empty(reload->diff);
    if (same && report->new_version == report->old_version) {
        report->outcome = RELOAD_UNCHANGED;
        return STEP_DONE;
    }
    if (report->new_version > report->old_version)
        return STEP_ASK;
    dynbuf_addf(&reload->errors, "%s: map_version %lld is not newer than the published %lld\n",
                reload->config.settings->shard_map, (long long)report->new_version,
                (long long)report->old_version);
    return refuse(reload);
}

static void drive(struct reload *reload, enum reload_step step);

static void on_asked(void *arg)
{
    drive(arg, STEP_JUDGE);
}

static enum reload_step step_ask(struct reload *reload)
{
    const struct reload_asks_config config = {
        .base = reload->config.base,
        .reap = reload->config.reap,
        .timeout_us = reload->config.settings->reload.ask_timeout_ms * 1000,
        .on_done = on_asked,
        .arg = reload};
    reload->asked_us = clock_mono_us();
    enum sg_error error = reload_asks_new(&config, published_map(reload), reload->new_map,
                                          reload->diff, published_topology(reload), &reload->asks);
    if (error != SG_OK)
        return refuse_for(reload, error);
    if (reload_asks_count(reload->asks) == 0)
        return STEP_JUDGE;
    reload_asks_start(reload->asks);
    return STEP_WAIT;
}

static bool list_stranded(struct reload *reload)
{
    size_t count = 0;
    while (reload_asks_stranded(reload->asks, count))
        count++;
    reload->stranded = calloc(count + 1, sizeof(const struct reload_stranded *));
    if (!reload->stranded)
        return false;
    for (size_t i = 0; i < count; i++)
        reload->stranded[i] = reload_asks_stranded(reload->asks, i);
    reload->report.stranded = reload->stranded;
    return true;
}

static enum reload_step step_judge(struct reload *reload)
{
    struct dynbuf objections;
    struct reload_report *report = &reload->report;
    dynbuf_init(&objections, TEXT_MAX);
    report->ask_us = clock_mono_us() - reload->asked_us;
    reload_asks_judge(reload->asks, reload->new_map, published_topology(reload), &reload->errors,
                      &objections, &reload->warnings);
    const bool listed = list_stranded(reload);
    report->forced = reload->force && objections.len > 0;
    dynbuf_adds(reload->force ? &reload->warnings : &reload->errors, dynbuf_text(&objections));
    dynbuf_done(&objections);
    if (!listed)
        return refuse_for(reload, SG_NO_MEMORY);
    if (reload->errors.len)
        return refuse(reload);
    if (!report->dry_run)
        return STEP_PUBLISH;
    report->outcome = RELOAD_DRY_RUN;
    return STEP_DONE;
}

static enum reload_step step_publish(struct reload *reload)
{
    const int64_t from_us = clock_mono_us();
    snapshot_publish(reload->config.publisher, reload->config.maps, reload->new_map, shardmap_free);
    reload->report.publish_us = clock_mono_us() - from_us;
    reload->new_map = NULL;
    reload->report.outcome = RELOAD_PUBLISHED;
    metrics_set_value(
        metrics_series(reload->config.metrics, METRIC_MAP_VERSION, (const char *[]){"published"}),
        reload->report.new_version);
    if (reload->config.on_published)
        reload->config.on_published(reload->config.arg);
    return STEP_DONE;
}

/* --- the end ---------------------------------------------------------------------------------- */

static void log_lines(enum log_level level, const char *prefix, const char *lines)
{
    while (*lines) {
        int len = (int)strcspn(lines, "\n");
        log_write(level, NULL, "%s: %.*s", prefix, len, lines);
        lines += len + (lines[len] == '\n');
    }
}

static void log_outcome(const struct reload *reload)
{
    const struct reload_report *report = &reload->report;
    const long long old_version = report->old_version;
    const long long new_version = report->new_version;
    switch (report->outcome) {
    case RELOAD_PUBLISHED:
        log_info(NULL,
                 "shard map version %lld published, was %lld%s: read %lld us, asked %lld us, "
                 "published %lld us",
                 new_version, old_version, report->forced ? " (forced)" : "",
                 (long long)report->parse_us, (long long)report->ask_us,
                 (long long)report->publish_us);
        break;
    case RELOAD_UNCHANGED:
        log_info(NULL, "shard map version %lld is unchanged", old_version);
        break;
    case RELOAD_DRY_RUN:
        log_info(NULL, "shard map version %lld would be accepted (dry run)", new_version);
        break;
    case RELOAD_REFUSED:
        log_lines(LOG_LEVEL_WARN, "shard map refused", report->errors);
        break;
    }
    log_lines(LOG_LEVEL_WARN, "shard map", report->warnings);
}

static void forget(struct reload *reload)
{
    shardmap_free(reload->new_map);
    shardmap_diff_free(reload->diff);
    reload_asks_free(reload->asks);
    free(reload->stranded);
    dynbuf_done(&reload->errors);
    dynbuf_done(&reload->warnings);
    reload->new_map = NULL;
    reload->diff = NULL;
    reload->asks = NULL;
    reload->stranded = NULL;
    reload->fn = NULL;
    reload->step = STEP_IDLE;
}

/* Counts, logs, tells the caller, forgets. The callback may not start another reload. */
static void step_done(struct reload *reload)
{
    static const struct reload_stranded *const none[] = {NULL};
    struct reload_report *report = &reload->report;
    const char *const outcome[] = {reload_outcome_name(report->outcome)};
    report->errors = dynbuf_text(&reload->errors);
    report->warnings = dynbuf_text(&reload->warnings);
    report->diff = reload->diff;
    if (!report->stranded)
        report->stranded = none;
    metrics_add(metrics_series(reload->config.metrics, METRIC_RELOADS, outcome), 1);
    metrics_observe_us(metrics_series(reload->config.metrics, METRIC_RELOAD_DURATION, outcome),
                       clock_mono_us() - reload->started_us);
    log_outcome(reload);
    if (reload->fn)
        reload->fn(reload->arg, report);
    forget(reload);
}

/* --- the driver ------------------------------------------------------------------------------- */

static void drive(struct reload *reload, enum reload_step step)
{
    while (step != STEP_WAIT) {
        reload->step = step;
        switch (step) {
        case STEP_LOAD:
            step = step_load(reload);
            break;
        case STEP_COMPARE:
            step = step_compare(reload);
            break;
        case STEP_ASK:
            step = step_ask(reload);
            break;
        case STEP_JUDGE:
            step = step_judge(reload);
            break;
        case STEP_PUBLISH:
            step = step_publish(reload);
            break;
        case STEP_DONE:
            step_done(reload);
            return;
        case STEP_IDLE:
        case STEP_WAIT:
            return;
        }
    }
    reload->step = STEP_WAIT;
}

static void on_turn(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    drive(arg, STEP_LOAD);
}

enum sg_error reload_start(struct reload *reload, bool dry_run, bool force, reload_fn *fn,
                           void *arg)
{
    if (reload->step != STEP_IDLE)
        return SG_RELOAD_BUSY;
    reload->step = STEP_LOAD;
    reload->force = force;
    reload->fn = fn;
    reload->arg = arg;
    reload->started_us = clock_mono_us();
    reload->report = (struct reload_report){.dry_run = dry_run,
                                            .old_version = shardmap_version(published_map(reload))};
    dynbuf_init(&reload->errors, TEXT_MAX);
    dynbuf_init(&reload->warnings, TEXT_MAX);
    event_active(reload->turn, EV_TIMEOUT, 0);
    return SG_OK;
}

const char *reload_outcome_name(enum reload_outcome outcome)
{
    static const char *const names[] = {"published", "unchanged", "dry_run", "refused"};
    return names[outcome];
}

struct reload *reload_new(const struct reload_config *config)
{
    struct reload *reload = calloc(1, sizeof(*reload));
    if (!reload)
        return NULL;
    reload->config = *config;
    reload->turn = evtimer_new(config->base, on_turn, reload);
    if (!reload->turn) {
        free(reload);
        return NULL;
    }
    metrics_set_value(
        metrics_series(config->metrics, METRIC_MAP_VERSION, (const char *[]){"published"}),
        shardmap_version(published_map(reload)));
    return reload;
}

void reload_free(struct reload *reload)
{
    if (!reload)
        return;
    if (reload->step != STEP_IDLE) {
        dynbuf_adds(&reload->errors, "the server is shutting down\n");
        refuse(reload);
        step_done(reload);
    }
    event_free(reload->turn);
    free(reload);
}
