/*
 * From a slot to the keys of a generation: states, time, the owner's calls. See feed.h.
 *
 *   stream ─> feed_take ─> outbox ─> feed_send_gathered ─> sink ─> progress ─> stream_confirm
 *        ^                                                   │
 *        └──────────────── feed_go_on: room again <──────────┘
 *
 * SPDX-License-Identifier: MIT
 */
#include "replication/feed.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/reap.h"
#include "replication/feed_internal.h"

#define COMMANDS_BYTES_MAX (256u << 20) /* of one batch; one effect may be a whole event */

/* --- states ----------------------------------------------------------------------------------- */

static void set_state(struct feed *feed, enum feed_state state)
{
    feed->state = state;
    if (state != FEED_OVER)
        return;
    event_del(feed->gather);
    event_del(feed->again);
    event_del(feed->tick);
    stream_free(feed->stream);
    feed->stream = NULL;
}

/* The owner is told from the loop. */
void feed_over(struct feed *feed, enum feed_end how, const char *reason)
{
    if (feed->state == FEED_OVER)
        return;
    feed->end = how;
    snprintf(feed->reason, sizeof(feed->reason), "%s", reason);
    set_state(feed, FEED_OVER);
    event_active(feed->turn, 0, 0);
}

static void on_gathered(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    feed_send_gathered(arg);
}

static void on_again(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    feed_send_again(arg);
}

static void on_turn(evutil_socket_t fd, short what, void *arg)
{
    struct feed *feed = arg;
    (void)fd;
    (void)what;
    if (feed->state != FEED_OVER) {
        feed_send_gathered(feed);
    } else if (!feed->told) {
        feed->told = true;
        feed->config.on_over(feed->config.arg, feed->end, feed->reason);
    }
}

/* --- the stream ------------------------------------------------------------------------------- */

static void on_started(void *arg)
{
    struct feed *feed = arg;
    set_state(feed, FEED_RUNNING);
    feed->config.on_started(feed->config.arg);
}

static void on_server_end(void *arg, uint64_t end_lsn)
{
    struct feed *feed = arg;
    feed->server_end = end_lsn;
    progress_received(&feed->progress, end_lsn); /* frames come in the order of the WAL */
}

static void on_stream_lost(void *arg, const char *sqlstate, const char *reason)
{
    static const struct {
        const char *sqlstate;
        enum feed_end end;
    } ends[] = {{"42704", FEED_SLOT_GONE},
                {"55000", FEED_SLOT_GONE},
                {"55006", FEED_SLOT_TAKEN},
                {"08P01", FEED_BLOCKED}};
    enum feed_end how = FEED_STREAM_LOST;
    for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
        if (strcmp(sqlstate, ends[i].sqlstate) == 0)
            how = ends[i].end;
    }
    feed_over(arg, how, reason);
}

/* --- time ------------------------------------------------------------------------------------- */

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    struct feed *feed = arg;
    int64_t feedback_us = feed->config.settings->cdc.feedback_ms * 1000;
    (void)fd;
    (void)what;
    feed_after(feed->tick, feedback_us < feed_mark_us(feed) ? feedback_us : feed_mark_us(feed));
    feed_confirm(feed);
    feed_mark_idle(feed);
}

/* --- for the owner ---------------------------------------------------------------------------- */

void feed_set_gate(struct feed *feed, uint64_t gate)
{
    bool opens = gate > feed->config.gate;
    feed->config.gate = gate;
    if (opens && feed->gate_us)
        feed_go_on(feed);
}

void feed_set_current(struct feed *feed)
{
    feed->config.current = true;
}

void feed_set_tap(struct feed *feed,
                  void (*on_effect)(void *arg, const struct effect *effect,
                                    const struct position *position),
                  void *arg)
{
    feed->tap = on_effect;
    feed->tap_arg = arg;
}

enum sg_error feed_inject(struct feed *feed, const struct effect *effect,
                          const struct position *position)
{
    if (feed->state != FEED_RUNNING)
        return SG_OVERLOADED;
    enum sg_error error = outbox_add(feed->outbox, effect, position);
    if (error == SG_OVERLOADED) {
        feed_send_gathered(feed);
        error = outbox_add(feed->outbox, effect, position);
    }
    if (error == SG_OK)
        feed_gathered(feed);
    return error;
}

/* Commit time of the oldest commit that is known and not in the keys. */
static int64_t oldest_unapplied_us(const struct feed *feed)
{
    size_t size = (size_t)feed->config.settings->cdc.batches_in_flight;
    for (size_t i = 0; i < feed->in_flight; i++) {
        const struct feed_batch *batch = &feed->batches[(feed->first + i) % size];
        if (batch->oldest_us)
            return batch->oldest_us;
    }
    return feed->gathering.oldest_us ? feed->gathering.oldest_us : feed->gate_us;
}

void feed_get_status(const struct feed *feed, struct feed_status *ret_status)
{
    *ret_status = (struct feed_status){.received = feed->progress.received,
                                       .applied = feed->progress.applied,
                                       .confirmed = feed->progress.confirmed,
                                       .server_end = feed->server_end,
                                       .oldest_unapplied_us = oldest_unapplied_us(feed),
                                       .last_latency_us = feed->last_latency_us,
                                       .commits = feed->commits,
                                       .changes = feed->changes};
}

/* --- life ------------------------------------------------------------------------------------- */

static void free_event(struct event *event)
{
    if (event)
        event_free(event);
}

void feed_free_memory(void *object)
{
    struct feed *feed = object;
    size_t size = (size_t)feed->config.settings->cdc.batches_in_flight;
    for (size_t i = 0; feed->batches && i < size; i++) {
        dynbuf_done(&feed->batches[i].commands);
        free(feed->batches[i].events);
    }
    free(feed->batches);
    free_event(feed->turn);
    free_event(feed->gather);
    free_event(feed->again);
    free_event(feed->tick);
    projection_free(feed->projection);
    outbox_free(feed->outbox);
    free((char *)feed->config.shard);
    free(feed);
}

static void make_series(struct feed *feed)
{
    for (int i = 0; i < FEED_TABLES; i++) {
        const char *labels[] = {feed->config.shard, feed_table_names[i]};
        feed->changes_series[i] = metrics_series(feed->config.metrics, METRIC_CDC_CHANGES, labels);
    }
    const char *labels[] = {feed->config.shard};
    feed->commits_series = metrics_series(feed->config.metrics, METRIC_CDC_COMMITS, labels);
    feed->latency_series = metrics_series(feed->config.metrics, METRIC_CDC_LATENCY, labels);
}

/* False when memory runs out. */
static bool make_parts(struct feed *feed)
{
    const struct settings *settings = feed->config.settings;
    const struct outbox_config config = {
        .shard = feed->config.shard,
        .generation = feed->config.generation,
        .epoch = feed->config.epoch,
        .live_history = settings->live.history,
        .limits = {(size_t)settings->cdc.batch_max, (size_t)settings->cdc.batch_bytes}};
    feed->outbox = outbox_new(&config);
    feed->projection = projection_new();
    feed->batches = calloc((size_t)settings->cdc.batches_in_flight, sizeof(*feed->batches));
    feed->turn = event_new(feed->config.base, -1, 0, on_turn, feed);
    feed->gather = evtimer_new(feed->config.base, on_gathered, feed);
    feed->again = evtimer_new(feed->config.base, on_again, feed);
    feed->tick = evtimer_new(feed->config.base, on_tick, feed);
    if (!feed->outbox || !feed->projection || !feed->batches || !feed->turn || !feed->gather ||
        !feed->again || !feed->tick)
        return false;
    for (int64_t i = 0; i < settings->cdc.batches_in_flight; i++)
        dynbuf_init(&feed->batches[i].commands, COMMANDS_BYTES_MAX);
    return true;
}

struct feed *feed_new(const struct feed_config *config)
{
    struct feed *feed = calloc(1, sizeof(*feed));
    if (!feed)
        return NULL;
    feed->config = *config;
    feed->tap = config->on_effect;
    feed->tap_arg = config->arg;
    feed->config.shard = strdup(config->shard);
    progress_init(&feed->progress, config->start_lsn, config->settings->cdc.redis_loss_ms * 1000);
    struct stream_config stream = {.base = config->base,
                                   .reap = config->reap,
                                   .settings = config->settings,
                                   .dsn = config->dsn,
                                   .shard = config->shard,
                                   .slot = config->slot,
                                   .start_lsn = config->start_lsn,
                                   .streaming = config->streaming,
                                   .on_started = on_started,
                                   .on_message = feed_take,
                                   .on_server_end = on_server_end,
                                   .on_lost = on_stream_lost,
                                   .arg = feed};
    if (!feed->config.shard || !make_parts(feed) || !(feed->stream = stream_new(&stream))) {
        feed_free_memory(feed);
        return NULL;
    }
    make_series(feed);
    feed_after(feed->tick, feed_mark_us(feed));
    return feed;
}

/* The sink still has batches to answer: the memory waits for that. */
void feed_free(struct feed *feed)
{
    if (!feed)
        return;
    feed->freed = true;
    set_state(feed, FEED_OVER);
    event_del(feed->turn);
    if (!feed->unanswered)
        reap(feed->config.reap, feed, feed_free_memory);
}
