/*
 * Batches of a feed: what has gathered goes to Redis, and what becomes of it. See feed.h.
 *
 *   outbox ──send──> batches in flight ──on_batch──> progress ─> confirmed LSN
 *                         │ ^ refused: sent again, all of them and in order, after a pause
 *                         └─┘
 *
 * The mark at the end of a batch says "live" while the last commit that is in the keys is young.
 * The heartbeats of the consumer are such commits: so a server that has nothing to tell is told
 * apart from one that is still busy with what happened long ago.
 *
 * SPDX-License-Identifier: MIT
 */
#include <stdlib.h>
#include <string.h>

#include "base/reap.h"
#include "replication/feed_internal.h"

#define TICK_MAX_US 1000000

/* --- batches ---------------------------------------------------------------------------------- */

/* The keys are as young as readers are told: see the head of the file. */
static bool is_live(const struct feed *feed, int64_t commit_us)
{
    const struct settings *settings = feed->config.settings;
    int64_t age_ms = (clock_wall_us() - commit_us) / 1000;
    int64_t quiet_ms = 3 * settings->cdc.heartbeat_ms; /* between two commits of an idle shard */
    return age_ms <= (quiet_ms > settings->redis.max_staleness_ms
                          ? quiet_ms
                          : settings->redis.max_staleness_ms);
}

static bool note_events(struct feed *feed, struct feed_batch *batch)
{
    size_t count = outbox_keys(feed->outbox);
    if (count > batch->events_size) {
        int64_t *events = realloc(batch->events, count * sizeof(*events));
        if (!events)
            return false;
        batch->events = events;
        batch->events_size = count;
    }
    for (size_t i = 0; i < count; i++)
        batch->events[i] = outbox_event(feed->outbox, i);
    batch->count = count;
    batch->keys = count;
    return true;
}

static void add_mark(struct feed *feed, struct feed_batch *batch, uint64_t lsn, int64_t commit_us)
{
    sink_mark(&batch->commands, feed->config.shard, feed->config.epoch, feed->config.generation,
              lsn, is_live(feed, commit_us));
    feed->marked_us = clock_mono_us();
}

static bool encode(struct feed *feed, struct feed_batch *batch)
{
    const struct feed_gathering *gathering = &feed->gathering;
    dynbuf_reset(&batch->commands);
    batch->oldest_us = gathering->oldest_us;
    batch->changes = gathering->changes;
    batch->refused = false;
    if (!note_events(feed, batch))
        return false;
    outbox_encode(feed->outbox, &batch->commands);
    return !batch->commands.failed;
}

static void on_batch(void *arg, const struct sink_result *result);

static void send_batch(struct feed *feed, struct feed_batch *batch)
{
    batch->refused = false;
    if (batch->commands.failed)
        feed_over(feed, FEED_STREAM_LOST, "a batch that does not fit into memory");
    else if (sink_send(feed->config.sink, &batch->commands, batch->count, on_batch, feed))
        feed->unanswered++;
    else
        feed_over(feed, FEED_SINK_LOST, "no connection");
}

static void applied(struct feed *feed, const struct feed_batch *batch);

/* Nothing for Redis in it: a commit without effects, of a generation that is not marked. */
static void apply_without_sending(struct feed *feed, const struct progress_batch *entry)
{
    const struct feed_batch batch = {0};
    progress_sent(&feed->progress, entry);
    applied(feed, &batch);
}

/* A batch of what has gathered, if it may go. */
void feed_send_gathered(struct feed *feed)
{
    struct feed_gathering *gathering = &feed->gathering;
    bool complete = gathering->end_lsn != 0;
    bool full = feed->in_flight == (size_t)feed->config.settings->cdc.batches_in_flight;
    if (feed->state != FEED_RUNNING || feed->refusals || full ||
        (outbox_keys(feed->outbox) == 0 && !complete))
        return;
    struct progress_batch entry = {.end_lsn = gathering->end_lsn,
                                   .commit_us = gathering->commit_us,
                                   .commits = gathering->commits};
    struct feed_batch *batch = feed_batch_at(feed, feed->in_flight);
    if (outbox_keys(feed->outbox) == 0 && !feed->config.current) {
        if (feed->in_flight)
            return; /* in its turn */
        apply_without_sending(feed, &entry);
    } else {
        if (!encode(feed, batch)) {
            feed_over(feed, FEED_STREAM_LOST, "a batch that does not fit into memory");
            return;
        }
        if (complete && feed->config.current) {
            add_mark(feed, batch, gathering->end_lsn, gathering->commit_us);
            batch->count++;
        }
        progress_sent(&feed->progress, &entry);
        feed->in_flight++;
        send_batch(feed, batch);
    }
    outbox_reset(feed->outbox);
    *gathering =
        (struct feed_gathering){.oldest_us = feed->begin_lsn && !feed->skip ? feed->begin_us : 0};
    event_del(feed->gather);
}

/* Something was put together: it goes at the end of the turn, or when it has gathered. */
void feed_gathered(struct feed *feed)
{
    if (!feed->in_flight) {
        event_active(feed->turn, 0, 0);
    } else if (!feed->gathering.since_us) {
        feed->gathering.since_us = clock_mono_us();
        feed_after(feed->gather, feed->config.settings->cdc.gather_us);
    }
}

/* --- the beat --------------------------------------------------------------------------------- */

/* Between two beats. */
int64_t feed_mark_us(const struct feed *feed)
{
    int64_t quarter_us = feed->config.settings->redis.max_staleness_ms * 250;
    return quarter_us < TICK_MAX_US ? quarter_us : TICK_MAX_US;
}

/* The beat of a shard where nothing happens. */
void feed_mark_idle(struct feed *feed)
{
    if (!feed->config.current || feed->state != FEED_RUNNING || feed->in_flight ||
        outbox_keys(feed->outbox) || feed->gathering.end_lsn || !feed->applied_us ||
        clock_mono_us() - feed->marked_us < feed_mark_us(feed) / 2)
        return;
    const struct progress_batch entry = {0};
    struct feed_batch *batch = feed_batch_at(feed, 0);
    dynbuf_reset(&batch->commands);
    batch->count = 1;
    batch->keys = 0;
    batch->oldest_us = 0;
    batch->changes = 0;
    add_mark(feed, batch, feed->progress.applied, feed->applied_us);
    progress_sent(&feed->progress, &entry);
    feed->in_flight++;
    send_batch(feed, batch);
}

/* --- answers ---------------------------------------------------------------------------------- */

void feed_confirm(struct feed *feed)
{
    uint64_t confirmed = progress_confirm(&feed->progress, clock_mono_us());
    if (feed->stream)
        stream_confirm(feed->stream, feed->progress.received, confirmed);
}

/* The oldest entry of progress is in the keys. */
static void applied(struct feed *feed, const struct feed_batch *batch)
{
    struct progress_batch entry = progress_acked(&feed->progress, clock_mono_us());
    feed->changes += batch->changes;
    if (entry.commits) {
        feed->commits += entry.commits;
        feed->applied_us = entry.commit_us;
        int64_t latency_us = clock_wall_us() - entry.commit_us;
        feed->last_latency_us = latency_us > 0 ? latency_us : 0; /* two machines' clocks */
        metrics_add(feed->commits_series, (int64_t)entry.commits);
        metrics_observe_us(feed->latency_series, feed->last_latency_us);
    }
    feed_confirm(feed);
    if (entry.end_lsn && feed->config.on_applied)
        feed->config.on_applied(feed->config.arg);
}

/* The stream brings again what was not taken. */
void feed_go_on(struct feed *feed)
{
    if (!feed->stalled || feed->state != FEED_RUNNING)
        return;
    feed->stalled = false;
    stream_resume(feed->stream);
}

/* While the batch still has its place: what is injected meanwhile goes behind it. */
static void tell_missing(struct feed *feed, const struct feed_batch *batch,
                         const struct sink_result *result)
{
    for (size_t i = 0; i < result->missing_count && feed->state != FEED_OVER; i++) {
        size_t command = result->missing[i];
        if (command < batch->keys && batch->events[command])
            feed->config.on_missing(feed->config.arg, batch->events[command]);
    }
}

static void batch_done(struct feed *feed, struct feed_batch *batch,
                       const struct sink_result *result)
{
    struct log_fields fields = feed_fields(feed);
    tell_missing(feed, batch, result);
    if (feed->state == FEED_OVER)
        return;
    if (feed->refusals)
        log_info(&fields, "Redis takes writes again");
    feed->refusals = 0;
    feed->first = (feed->first + 1) % (size_t)feed->config.settings->cdc.batches_in_flight;
    feed->in_flight--;
    applied(feed, batch);
    if (!feed->in_flight || feed->stalled ||
        (feed->gathering.since_us &&
         clock_mono_us() - feed->gathering.since_us >= feed->config.settings->cdc.gather_us))
        feed_send_gathered(feed);
    feed_go_on(feed);
}

/* Redis took nothing of it, or a part: a repeat of the part changes nothing. Once all are answered,
 * all are sent again, in their order. */
static void batch_refused(struct feed *feed, struct feed_batch *batch,
                          const struct sink_result *result)
{
    struct log_fields fields = feed_fields(feed);
    const struct settings *settings = feed->config.settings;
    batch->refused = true;
    if (!feed->refusals && strncmp(result->reason, "NOSCRIPT", 8) != 0)
        log_warn(&fields, "Redis refuses writes, the stream waits: %s", result->reason);
    tell_missing(feed, batch, result);
    if (feed->unanswered || feed->state == FEED_OVER)
        return;
    unsigned doublings = feed->refusals > 20 ? 20 : feed->refusals;
    int64_t pause_ms = settings->cdc.repair_min_ms << doublings;
    feed->refusals++;
    feed_after(
        feed->again,
        1000 * (pause_ms > settings->cdc.repair_max_ms ? settings->cdc.repair_max_ms : pause_ms));
}

void feed_send_again(struct feed *feed)
{
    for (size_t i = 0; i < feed->in_flight && feed->state == FEED_RUNNING; i++)
        send_batch(feed, feed_batch_at(feed, i));
}

/* The oldest batch that is at the sink. */
static struct feed_batch *answered_batch(struct feed *feed)
{
    for (size_t i = 0; i < feed->in_flight; i++) {
        if (!feed_batch_at(feed, i)->refused)
            return feed_batch_at(feed, i);
    }
    return NULL;
}

static void on_batch(void *arg, const struct sink_result *result)
{
    struct feed *feed = arg;
    feed->unanswered--;
    if (feed->freed) {
        if (!feed->unanswered)
            reap(feed->config.reap, feed, feed_free_memory);
        return;
    }
    struct feed_batch *batch = answered_batch(feed);
    if (feed->state == FEED_OVER || !batch)
        return;
    bool again = result->outcome == SINK_FULL ||
                 (result->outcome == SINK_FAILED && strncmp(result->reason, "NOSCRIPT", 8) == 0);
    if (again || (result->outcome == SINK_DONE && batch != feed_batch_at(feed, 0)))
        batch_refused(feed, batch, result);
    else if (result->outcome == SINK_DONE)
        batch_done(feed, batch, result);
    else if (result->outcome == SINK_STALE)
        feed_over(feed, FEED_REPLACED, result->reason);
    else if (result->outcome == SINK_GONE)
        feed_over(feed, FEED_KEYS_GONE, result->reason);
    else
        feed_over(feed, FEED_SINK_LOST, result->reason);
}
