/*
 * The consumer's loop. See consumer.h.
 *
 * A job is a delivery with what was read of it. It waits in its lane's list, sorted by when it
 * came, or is with the router; then it is settled, which gives the delivery back to the fetcher.
 *
 * SPDX-License-Identifier: MIT
 */
#include "queue/consumer.h"

#include <assert.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <event2/event.h>

#include "base/clock.h"
#include "base/dynbuf.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/settings.h"
#include "queue/fetcher.h"
#include "queue/message.h"
#include "queue/verdict.h"
#include "router/router.h"

#define BUCKETS 1024

enum { END_BOOKED, END_REFUSED, END_DEAD, ENDS };
static const char *const end_names[ENDS] = {"booked", "refused", "dead"};

struct job {
    struct queue_lane *lane;
    struct delivery *delivery;
    struct job *prev, *next; /* waiting */
    struct job *beside;      /* busy: in the bucket of its booking id */
    int64_t tries;
    int64_t due_us; /* not before */
    struct queue_message message;
};

struct queue_lane {
    struct queue_consumer *consumer;
    char *shard;
    struct job *first, *last; /* waiting, in the order in which they came */
    size_t waiting;
    size_t busy;
    int64_t paused_until_us;
    int64_t pumped_us; /* when the last batch went */
    struct event *timer;
    int64_t wake_us; /* when the timer is due */
    struct metrics_series *ends[ENDS];
    struct metrics_series *retries;
    struct metrics_series *under_way;
};

struct queue_consumer {
    struct queue_consumer_config config;
    struct fetcher *fetcher;
    uint64_t generation; /* the newest connection: what came over older ones comes again */
    bool draining;
    size_t busy;
    struct job *buckets[BUCKETS];
    const char **names;
    struct queue_lane *lanes;
};

/* --- jobs that the router has been asked for -------------------------------------------------- */

static struct job **bucket_of(struct queue_consumer *consumer, const struct job *job)
{
    const char *id = job->message.booking_id;
    return &consumer->buckets[hash_u64(hash_bytes(HASH_START, id, UUID_TEXT_LEN)) % BUCKETS];
}

static bool is_busy(struct queue_consumer *consumer, const struct job *job)
{
    const struct job *other = *bucket_of(consumer, job);
    while (other && strcmp(other->message.booking_id, job->message.booking_id) != 0)
        other = other->beside;
    return other != NULL;
}

static void begin_busy(struct job *job)
{
    struct job **bucket = bucket_of(job->lane->consumer, job);
    job->beside = *bucket;
    *bucket = job;
    job->lane->busy++;
    job->lane->consumer->busy++;
}

static void end_busy(struct job *job)
{
    struct job **link = bucket_of(job->lane->consumer, job);
    while (*link != job)
        link = &(*link)->beside;
    *link = job->beside;
    job->lane->busy--;
    job->lane->consumer->busy--;
}

/* --- jobs that wait --------------------------------------------------------------------------- */

static bool came_before(const struct job *a, const struct job *b)
{
    if (a->delivery->generation != b->delivery->generation)
        return a->delivery->generation < b->delivery->generation;
    return a->delivery->tag < b->delivery->tag;
}

/* From the end, where nearly all of them belong. */
static void push_waiting(struct job *job)
{
    struct queue_lane *lane = job->lane;
    struct job *before = lane->last;
    while (before && came_before(job, before))
        before = before->prev;
    job->prev = before;
    job->next = before ? before->next : lane->first;
    *(job->next ? &job->next->prev : &lane->last) = job;
    *(before ? &before->next : &lane->first) = job;
    lane->waiting++;
}

static void remove_waiting(struct job *job)
{
    struct queue_lane *lane = job->lane;
    *(job->prev ? &job->prev->next : &lane->first) = job->next;
    *(job->next ? &job->next->prev : &lane->last) = job->prev;
    lane->waiting--;
}

/* --- the end of a job ------------------------------------------------------------------------- */

static void drop(struct job *job, enum delivery_end end)
{
    metrics_add(job->lane->under_way, -1);
    fetcher_settle(job->lane->consumer->fetcher, job->delivery, end);
    free(job);
}

static void finish(struct job *job, int end)
{
    metrics_add(job->lane->ends[end], 1);
    drop(job, end == END_DEAD ? DELIVERY_DEAD : DELIVERY_ACK);
}

static struct log_fields fields_of(const struct job *job)
{
    return (struct log_fields){.request_id = job->message.booking_id,
                               .event_id = job->message.event_id,
                               .shard = job->lane->shard};
}

static void bury(struct job *job, enum sg_error error)
{
    const struct log_fields fields = fields_of(job);
    log_error(&fields, "queue: to the dead letters after %lld tries: %s", (long long)job->tries,
              sg_error_title(error));
    finish(job, END_DEAD);
}

/* An older connection's message is here a second time, or will be. */
static bool is_outdated(const struct job *job)
{
    return job->delivery->generation != job->lane->consumer->generation;
}

/* Or sooner, if it is to wake sooner anyhow: it looks again then. */
static void wake_at(struct queue_lane *lane, int64_t when_us)
{
    struct timeval tv = clock_timeval_us(when_us - clock_mono_us());
    if (event_pending(lane->timer, EV_TIMEOUT, NULL) && lane->wake_us <= when_us)
        return;
    lane->wake_us = when_us;
    event_add(lane->timer, &tv);
}

static void try_again(struct job *job, bool all)
{
    struct queue_lane *lane = job->lane;
    int64_t until_us = clock_mono_us() + lane->consumer->config.settings->queue.retry_ms * 1000;
    if (is_outdated(job)) {
        drop(job, DELIVERY_ACK); /* which the fetcher tells nobody */
        return;
    }
    metrics_add(lane->retries, 1);
    if (all)
        lane->paused_until_us = until_us;
    else
        job->due_us = until_us;
    push_waiting(job);
    wake_at(lane, until_us);
}

/* --- refusals --------------------------------------------------------------------------------- */

/* The answer to storing a refusal; also when that was not accepted. */
static void on_stored(void *arg, enum sg_error error)
{
    struct job *job = arg;
    end_busy(job);
    switch (queue_verdict(error, job->tries, job->lane->consumer->config.settings->queue.tries)) {
    case VERDICT_BOOKED:
        finish(job, END_REFUSED);
        break;
    case VERDICT_AGAIN_ALL:
        try_again(job, true);
        break;
    case VERDICT_AGAIN_ONE:
        try_again(job, false);
        break;
    case VERDICT_REFUSED: /* the event is on no shard any more: nobody could be told */
    case VERDICT_DEAD:
        bury(job, error);
        break;
    }
}

static enum sg_error store_refusal(struct job *job, enum sg_error why, const struct seat *seats,
                                   size_t seat_count)
{
    const struct refusal refusal = {.code = sg_error_code(why),
                                    .user_id = job->message.user_id,
                                    .seats = seats,
                                    .seat_count = seat_count};
    return router_refusal_store(job->lane->consumer->config.router, job->message.event_id,
                                job->message.booking_id, &refusal, on_stored, job);
}

/* --- bookings --------------------------------------------------------------------------------- */

/* The job is busy, and still is if its refusal is being stored. */
static void decide(struct job *job, enum sg_error answer, const struct seat *seats,
                   size_t seat_count)
{
    enum sg_error error;
    switch (queue_verdict(answer, job->tries, job->lane->consumer->config.settings->queue.tries)) {
    case VERDICT_REFUSED:
        error = store_refusal(job, answer, seats, seat_count);
        if (error != SG_OK)
            on_stored(job, error);
        break;
    case VERDICT_AGAIN_ALL:
        end_busy(job);
        try_again(job, true);
        break;
    case VERDICT_AGAIN_ONE:
        end_busy(job);
        try_again(job, false);
        break;
    case VERDICT_BOOKED:
    case VERDICT_DEAD:
        end_busy(job);
        bury(job, answer);
        break;
    }
}

static void on_booked(void *arg, const struct book_result *result)
{
    struct job *job = arg;
    if (result->error != SG_OK) {
        decide(job, result->error, result->seats, result->seat_count);
    } else if (strcmp(result->booking_id, job->message.booking_id) != 0) {
        /* The caller's key stands for a booking that was made without the queue. */
        decide(job, SG_KEY_REUSED, NULL, 0);
    } else {
        end_busy(job);
        finish(job, END_BOOKED); /* now, or by an earlier delivery */
    }
}

static void submit(struct job *job)
{
    struct book_request request;
    remove_waiting(job);
    begin_busy(job);
    job->tries++;
    queue_message_request(&job->message, &request);
    enum sg_error error = router_book(job->lane->consumer->config.router, &request, on_booked, job);
    if (error != SG_OK)
        decide(job, error, NULL, 0);
}

/* Hands the router what waits and is due. Whatever `submit` puts back waits behind `now`. */
static void pump(struct queue_lane *lane)
{
    struct queue_consumer *consumer = lane->consumer;
    const int64_t now_us = clock_mono_us();
    int64_t earliest_us = INT64_MAX;
    struct job *next;
    for (struct job *job = lane->first; job && !consumer->draining; job = next) {
        next = job->next;
        if (lane->paused_until_us > now_us) {
            earliest_us = lane->paused_until_us;
            break;
        }
        if (job->due_us <= now_us && is_busy(consumer, job))
            job->due_us = now_us + consumer->config.settings->queue.retry_ms * 1000;
        if (job->due_us <= now_us)
            submit(job);
        else if (job->due_us < earliest_us)
            earliest_us = job->due_us;
    }
    if (earliest_us != INT64_MAX)
        wake_at(lane, earliest_us);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct queue_lane *lane = arg;
    (void)fd;
    (void)what;
    lane->pumped_us = clock_mono_us();
    pump(lane);
}

/* Nobody waits for an answer: what comes within queue.gather_us of the last batch becomes the next
 * one, unless half a window is there. The first after a pause goes at once. */
static void pump_soon(struct queue_lane *lane)
{
    const struct settings *settings = lane->consumer->config.settings;
    const int64_t due_us = lane->pumped_us + settings->queue.gather_us;
    if (lane->waiting >= (size_t)settings->queue.prefetch / 2 || due_us <= clock_mono_us())
        event_active(lane->timer, EV_TIMEOUT, 0); /* once, for all that came in this turn */
    else
        wake_at(lane, due_us);
}

/* --- what the fetcher brings ------------------------------------------------------------------ */

/* What waits and came over another connection is delivered anew over this one. */
static void on_connection(void *arg, uint64_t generation)
{
    struct queue_consumer *consumer = arg;
    if (generation <= consumer->generation)
        return;
    consumer->generation = generation;
    for (size_t i = 0; i < consumer->config.shard_count; i++) {
        struct queue_lane *lane = &consumer->lanes[i];
        struct job *next;
        for (struct job *job = lane->first; job; job = next) {
            next = job->next;
            if (!is_outdated(job))
                continue;
            remove_waiting(job);
            drop(job, DELIVERY_ACK);
        }
    }
}

static void on_delivery(void *arg, struct delivery *delivery)
{
    struct queue_consumer *consumer = arg;
    struct queue_lane *lane = &consumer->lanes[delivery->shard];
    const char *reason = "out of memory";
    on_connection(consumer, delivery->generation);
    struct job *job = calloc(1, sizeof(*job));
    if (!job || delivery->generation != consumer->generation) {
        free(job);
        /* without memory: to the dead letters, from where it can be brought back */
        fetcher_settle(consumer->fetcher, delivery, DELIVERY_DEAD);
        return;
    }
    job->lane = lane;
    job->delivery = delivery;
    metrics_add(lane->under_way, 1);
    enum sg_error error =
        queue_message_decode(delivery->body, delivery->len, &job->message, &reason);
    if (error != SG_OK) {
        log_error(&(struct log_fields){.shard = lane->shard},
                  "queue: a message of %zu bytes goes to the dead letters: %s", delivery->len,
                  reason);
        finish(job, END_DEAD);
        return;
    }
    push_waiting(job);
    if (!consumer->draining)
        pump_soon(lane);
}

/* --- life ------------------------------------------------------------------------------------- */

static bool build_lane(struct queue_consumer *consumer, size_t i)
{
    struct queue_lane *lane = &consumer->lanes[i];
    struct metrics_set *metrics = consumer->config.metrics;
    lane->consumer = consumer;
    lane->shard = strdup(consumer->config.shards[i]);
    lane->timer = evtimer_new(consumer->config.base, on_timer, lane);
    if (!lane->shard || !lane->timer)
        return false;
    consumer->names[i] = lane->shard;
    for (int end = 0; end < ENDS; end++)
        lane->ends[end] = metrics_series(metrics, METRIC_QUEUE_CONSUMED,
                                         (const char *const[]){lane->shard, end_names[end]});
    lane->retries =
        metrics_series(metrics, METRIC_QUEUE_RETRIES, (const char *const[]){lane->shard});
    lane->under_way =
        metrics_series(metrics, METRIC_QUEUE_UNDER_WAY, (const char *const[]){lane->shard});
    return true;
}

static bool build(struct queue_consumer *consumer)
{
    const struct queue_consumer_config *config = &consumer->config;
    consumer->lanes = calloc(config->shard_count, sizeof(*consumer->lanes));
    consumer->names = calloc(config->shard_count, sizeof(*consumer->names));
    if (!consumer->lanes || !consumer->names)
        return false;
    for (size_t i = 0; i < config->shard_count; i++) {
        if (!build_lane(consumer, i))
            return false;
    }
    consumer->fetcher = fetcher_new(&(struct fetcher_config){.settings = config->settings,
                                                             .base = config->base,
                                                             .shards = consumer->names,
                                                             .shard_count = config->shard_count,
                                                             .on_delivery = on_delivery,
                                                             .on_connection = on_connection,
                                                             .arg = consumer});
    return consumer->fetcher != NULL;
}

struct queue_consumer *queue_consumer_new(const struct queue_consumer_config *config)
{
    struct queue_consumer *consumer = calloc(1, sizeof(*consumer));
    if (!consumer)
        return NULL;
    consumer->config = *config;
    if (!build(consumer)) {
        queue_consumer_free(consumer);
        return NULL;
    }
    return consumer;
}

enum sg_error queue_consumer_start(struct queue_consumer *consumer)
{
    return fetcher_start(consumer->fetcher);
}

bool queue_consumer_has(const struct queue_consumer *consumer, const char *shard)
{
    for (size_t i = 0; i < consumer->config.shard_count; i++) {
        if (strcmp(consumer->lanes[i].shard, shard) == 0)
            return true;
    }
    return false;
}

void queue_consumer_drain(struct queue_consumer *consumer)
{
    consumer->draining = true;
}

size_t queue_consumer_busy(const struct queue_consumer *consumer)
{
    return consumer->busy;
}

void queue_consumer_stop(struct queue_consumer *consumer)
{
    if (!consumer)
        return;
    consumer->draining = true;
    fetcher_stop(consumer->fetcher);
}

static void free_lane(struct queue_lane *lane)
{
    while (lane->first) {
        struct job *job = lane->first;
        remove_waiting(job);
        drop(job, DELIVERY_ACK); /* after the connection was closed: told to nobody */
    }
    assert(lane->busy == 0);
    if (lane->timer)
        event_free(lane->timer);
    free(lane->shard);
}

void queue_consumer_free(struct queue_consumer *consumer)
{
    if (!consumer)
        return;
    for (size_t i = 0; consumer->lanes && i < consumer->config.shard_count; i++)
        free_lane(&consumer->lanes[i]);
    fetcher_free(consumer->fetcher);
    free(consumer->lanes);
    free(consumer->names);
    free(consumer);
}

void queue_consumer_write_status(const struct queue_consumer *consumer, struct dynbuf *out)
{
    dynbuf_addf(out, "{\"connected\":%s,\"shards\":[",
                queue_consumer_is_connected(consumer) ? "true" : "false");
    for (size_t i = 0; i < consumer->config.shard_count; i++) {
        const struct queue_lane *lane = &consumer->lanes[i];
        dynbuf_adds(out, i ? ",{\"shard\":" : "{\"shard\":");
        dynbuf_add_json(out, lane->shard);
        dynbuf_addf(out, ",\"waiting\":%zu,\"busy\":%zu}", lane->waiting, lane->busy);
    }
    dynbuf_adds(out, "]}");
}

bool queue_consumer_is_connected(const struct queue_consumer *consumer)
{
    return fetcher_is_connected(consumer->fetcher);
}
