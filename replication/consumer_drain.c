/*
 * A switchover's question to the consumer: is everything up to an LSN in Redis?
 *
 *   consumer_drain ─> a mark into the WAL, behind the LSN (pg) ─> feed: applied past it ─> fn
 *
 * What stands at the end of a fenced primary's WAL is published to nobody, so that the stream alone
 * would not tell that it has come there; the mark is, and it passes the gate of a synchronous
 * standby like any other commit. The batch that it ends in also marks the shard's hash (feed.h), so
 * `applied` of the current feed is what the hash says, acknowledged.
 *
 * SPDX-License-Identifier: MIT
 */
#include <event2/event.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "replication/consumer_internal.h"

/* --- the end of one --------------------------------------------------------------------------- */

/* Its place is free before it is told. */
static void finish(struct consumer *consumer, size_t i, enum sg_error error,
                   const struct consumer_drained *drained, const char *reason)
{
    struct drains *drains = &consumer->drains;
    const struct drain drain = drains->items[i];
    drains->count--;
    memmove(&drains->items[i], &drains->items[i + 1], (drains->count - i) * sizeof(drain));
    drain.fn(drain.arg, error, drained, reason);
}

void drain_stop(struct consumer *consumer, const char *reason)
{
    event_del(consumer->drains.timer);
    for (size_t left = consumer->drains.count; left > 0; left--)
        finish(consumer, 0, SG_SHARD_UNAVAILABLE, NULL, reason);
}

void drain_check(struct consumer *consumer)
{
    struct drains *drains = &consumer->drains;
    struct feed_status status;
    if (!drains->count || !consumer->now)
        return;
    feed_get_status(consumer->now->feed, &status);
    const struct consumer_drained drained = {.generation = consumer->now->number,
                                             .slot = consumer->now->slot,
                                             .lsn = status.applied,
                                             .timeline = consumer->server.timeline,
                                             .system_identifier =
                                                 consumer->server.system_identifier};
    for (size_t i = 0; i < drains->count;) {
        if (drains->items[i].marked && status.applied >= drains->items[i].lsn) {
            consumer->pulse.vitals.switching = true; /* the next vitals know better */
            finish(consumer, i, SG_OK, &drained, "");
        } else {
            i++;
        }
    }
}

/* --- time ------------------------------------------------------------------------------------- */

static void arm(struct consumer *consumer, int64_t now_us)
{
    const struct drains *drains = &consumer->drains;
    int64_t next_us = INT64_MAX;
    for (size_t i = 0; i < drains->count; i++) {
        if (drains->items[i].deadline_us < next_us)
            next_us = drains->items[i].deadline_us;
    }
    if (!drains->count)
        return;
    struct timeval wait = clock_timeval_us(next_us > now_us ? next_us - now_us : 0);
    event_add(drains->timer, &wait);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct consumer *consumer = arg;
    struct drains *drains = &consumer->drains;
    struct feed_status status = {0};
    const int64_t now_us = clock_mono_us();
    char reason[120];
    (void)fd;
    (void)what;
    if (consumer->now)
        feed_get_status(consumer->now->feed, &status);
    snprintf(reason, sizeof(reason), "Redis has everything up to %" PRIX32 "/%" PRIX32,
             (uint32_t)(status.applied >> 32), (uint32_t)status.applied);
    for (size_t i = 0; i < drains->count;) {
        if (now_us >= drains->items[i].deadline_us)
            finish(consumer, i, SG_DEADLINE, NULL, reason);
        else
            i++;
    }
    arm(consumer, now_us);
}

/* --- the mark --------------------------------------------------------------------------------- */

static void ask_mark(struct consumer *consumer);

/* An LSN that is past a mark written after it was named is none of this server's. */
static void take_mark(struct consumer *consumer, uint64_t mark)
{
    struct drains *drains = &consumer->drains;
    for (size_t i = 0; i < drains->count;) {
        struct drain *drain = &drains->items[i];
        drain->marked = drain->marked || drain->asked;
        if (drain->marked && drain->lsn > mark)
            finish(consumer, i, SG_INVALID_VALUE, NULL, "the primary's WAL ends before that LSN");
        else
            i++;
    }
}

static void on_mark(struct consumer *consumer, const struct pgask_answer *answer)
{
    consumer->drains.mark_asked = false;
    if (answer->error != SG_OK) {
        drain_stop(consumer, answer->reason);
        return;
    }
    take_mark(consumer, (uint64_t)ask_number(answer->result, 1));
    drain_check(consumer);
    ask_mark(consumer);
}

/* One for all who wait for one; those who come while it is asked for get the next. */
static void ask_mark(struct consumer *consumer)
{
    struct drains *drains = &consumer->drains;
    bool wanted = false;
    if (drains->mark_asked)
        return;
    for (size_t i = 0; i < drains->count; i++) {
        wanted = wanted || !drains->items[i].asked;
        drains->items[i].asked = true;
    }
    if (!wanted)
        return;
    drains->mark_asked = true;
    control_ask(consumer, ask_heartbeat_sql, NULL, NULL, on_mark);
}

/* --- for the owner ---------------------------------------------------------------------------- */

bool drain_init(struct consumer *consumer)
{
    consumer->drains.timer = evtimer_new(consumer->config.base, on_timer, consumer);
    return consumer->drains.timer != NULL;
}

enum sg_error consumer_drain(struct consumer *consumer, uint64_t lsn, int64_t timeout_ms,
                             consumer_drain_fn *fn, void *arg)
{
    struct drains *drains = &consumer->drains;
    const int64_t now_us = clock_mono_us();
    if (consumer->build.step != BUILD_NONE)
        return SG_RELOAD_BUSY;
    if (consumer->state != CONSUMER_RUNNING || !consumer->now)
        return SG_SHARD_UNAVAILABLE;
    if (drains->count == CONSUMER_DRAINS_MAX || consumer->control.count == CONTROL_QUEUE_MAX)
        return SG_OVERLOADED;
    drains->items[drains->count++] =
        (struct drain){.lsn = lsn, .deadline_us = now_us + timeout_ms * 1000, .fn = fn, .arg = arg};
    arm(consumer, now_us);
    ask_mark(consumer);
    return SG_OK;
}
