/*
 * A consumer's life: its states, its feeds and what becomes of their end, its clock. See consumer.h
 * for the drawing.
 *
 *   consumer_look ─> ... ─> RUNNING ─> any loss: consumer_lose ─> pause ─> consumer_look
 *
 * A loss ends the attempt: feeds, seed and reconcile go, and so does whatever was asked in it. Only
 * the control session with its lock, and the connection to Redis, stay.
 *
 * SPDX-License-Identifier: MIT
 */
#include "replication/consumer.h"

#include <event2/event.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/metrics.h"
#include "base/reap.h"
#include "base/settings.h"
#include "base/snapshot.h"
#include "replication/consumer_internal.h"
#include "router/topology.h"

#define COMMAND_MAX ((size_t)64 << 10)
#define TICK_US 20000          /* while something is to be waited for */
#define TICK_RUNNING_US 100000 /* while the feed does it all */
#define SETTLED_US 2000000     /* an attempt that ran so long was a good one: no pause after it */

static const char *const state_names[CONSUMER_STATES] = {
    [CONSUMER_NO_PRIMARY] = "no_primary", [CONSUMER_NO_REDIS] = "no_redis",
    [CONSUMER_LOOKING] = "looking",       [CONSUMER_WAITING] = "waiting",
    [CONSUMER_SEEDING] = "seeding",       [CONSUMER_CATCHING_UP] = "catching_up",
    [CONSUMER_RUNNING] = "running",       [CONSUMER_BLOCKED] = "blocked",
};

struct log_fields consumer_fields(const struct consumer *consumer)
{
    return (struct log_fields){.shard = consumer->shard,
                               .node = consumer->control.node[0] ? consumer->control.node : NULL};
}

const char *consumer_shard(const struct consumer *consumer)
{
    return consumer->shard;
}

const char *consumer_state_name(enum consumer_state state)
{
    return state_names[state];
}

/* --- state ------------------------------------------------------------------------------------ */

static bool is_trouble(enum consumer_state state)
{
    return state == CONSUMER_NO_PRIMARY || state == CONSUMER_NO_REDIS || state == CONSUMER_BLOCKED;
}

/* The detail goes into JSON and comes from servers: what is not printable ASCII becomes '?'. */
static void set_detail(struct consumer *consumer, const char *format, va_list arguments)
{
    vsnprintf(consumer->detail, sizeof(consumer->detail), format, arguments);
    for (char *c = consumer->detail; *c; c++) {
        if (*c < ' ' || *c > '~')
            *c = '?';
    }
}

static void enter(struct consumer *consumer, enum consumer_state state)
{
    const struct log_fields fields = consumer_fields(consumer);
    bool changed = consumer->state != state;
    bool fell = consumer->state >= CONSUMER_SEEDING && state == CONSUMER_LOOKING;
    consumer->state = state;
    if (changed)
        log_write(fell || is_trouble(state) ? LOG_LEVEL_WARN : LOG_LEVEL_INFO, &fields,
                  "consumer: %s%s%s", state_names[state], consumer->detail[0] ? ": " : "",
                  consumer->detail);
    else if (consumer->detail[0])
        log_debug(&fields, "consumer: still %s: %s", state_names[state], consumer->detail);
    if (changed)
        status_show_state(consumer);
}

void consumer_set_state(struct consumer *consumer, enum consumer_state state, const char *format,
                        ...)
{
    va_list arguments;
    va_start(arguments, format);
    set_detail(consumer, format, arguments);
    va_end(arguments);
    enter(consumer, state);
}

static void arm(struct consumer *consumer, int64_t us)
{
    struct timeval wait = clock_timeval_us(us);
    if (!consumer->over)
        event_add(consumer->tick, &wait);
}

void consumer_kick(struct consumer *consumer)
{
    arm(consumer, 0);
}

void consumer_look_in(struct consumer *consumer, int64_t us)
{
    consumer->look_at_us = clock_mono_us() + us;
    if (us < TICK_US)
        arm(consumer, us);
}

/* The pause before the next look: none after an attempt that went well. */
static int64_t next_pause_us(struct consumer *consumer)
{
    const struct settings *settings = consumer->config.settings;
    if (consumer->running_since_us && clock_mono_us() - consumer->running_since_us > SETTLED_US)
        consumer->pause_ms = 0;
    consumer->running_since_us = 0;
    int64_t pause_ms = consumer->pause_ms;
    consumer->pause_ms = pause_ms ? 2 * pause_ms : settings->cdc.repair_min_ms;
    if (consumer->pause_ms > settings->cdc.repair_max_ms)
        consumer->pause_ms = settings->cdc.repair_max_ms;
    return pause_ms * 1000;
}

void consumer_next_attempt(struct consumer *consumer)
{
    consumer->attempt++;
    consumer->gate.asked = false;
    consumer->pulse.vitals_asked = false;
    consumer->pulse.heartbeat_asked = false;
    consumer->clean.drop_asked = false;
    consumer->clean.asked = false;
    consumer->drains.mark_asked = false;
}

/* Forgets the attempt: its feeds, seed and reconcile, and whatever was asked in it. */
static void end_attempt(struct consumer *consumer, const char *reason)
{
    consumer_next_attempt(consumer);
    drain_stop(consumer, reason);
    check_stop(consumer, reason, false);
    build_drop(consumer);
    if (consumer->now) {
        feed_get_status(consumer->now->feed, &consumer->last);
        if (consumer->last.applied > consumer->marked_lsn)
            consumer->marked_lsn = consumer->last.applied;
    }
    generation_free(consumer->now);
    consumer->now = NULL;
    gate_stop(consumer);
    clean_stop(consumer);
    consumer->free_until_us = 0;
}

/* Readers are to ask PostgreSQL until the feed marks the hash again. */
void consumer_mark_stale(struct consumer *consumer)
{
    struct dynbuf command;
    if (!consumer->locked || !consumer->epoch || consumer->facts.generation <= 0)
        return;
    dynbuf_init(&command, COMMAND_MAX);
    sink_mark(&command, consumer->shard, consumer->epoch, consumer->facts.generation,
              consumer->marked_lsn, false);
    redis_send(consumer, &command, 1, NULL);
    dynbuf_done(&command);
}

void consumer_lose(struct consumer *consumer, enum consumer_state state, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    set_detail(consumer, format, arguments);
    va_end(arguments);
    if (consumer->over)
        return;
    end_attempt(consumer, consumer->detail);
    enter(consumer, state);
    if (state == CONSUMER_BLOCKED) {
        consumer_mark_stale(consumer);
        consumer->pause_ms = consumer->config.settings->cdc.repair_max_ms;
    }
    consumer_look_in(consumer, next_pause_us(consumer));
}

void consumer_control_lost(struct consumer *consumer, const char *reason)
{
    consumer->locked = false;
    consumer->pulse.vitals_at_us = 0;
    consumer_lose(consumer, CONSUMER_LOOKING, "control session: %s", reason);
}

void consumer_note_repair(struct consumer *consumer, const char *how, enum repair_reason reason)
{
    const struct log_fields fields = consumer_fields(consumer);
    const char *const labels[] = {consumer->shard, how, repair_reason_name(reason)};
    consumer->last_repair = reason;
    consumer->last_repair_us = clock_wall_us();
    consumer->repairs++;
    metrics_add(metrics_series(consumer->config.metrics, METRIC_CDC_REPAIRS, labels), 1);
    log_info(&fields, "consumer: %s: %s", how, repair_reason_text(reason));
}

/* --- Redis, for as long as the attempt lasts -------------------------------------------------- */

struct redis_call {
    struct consumer *consumer;
    uint64_t attempt;
    redis_ask_fn *ask_fn;
    redis_send_fn *send_fn;
};

static void on_reply(void *arg, const redisReply *reply)
{
    const struct redis_call call = *(struct redis_call *)arg;
    free(arg);
    if (call.ask_fn && call.attempt == call.consumer->attempt && !call.consumer->over)
        call.ask_fn(call.consumer, reply);
}

static void on_batch(void *arg, const struct sink_result *result)
{
    const struct redis_call call = *(struct redis_call *)arg;
    free(arg);
    if (call.send_fn && call.attempt == call.consumer->attempt && !call.consumer->over)
        call.send_fn(call.consumer, result);
}

static struct redis_call *call_new(struct consumer *consumer)
{
    struct redis_call *call = calloc(1, sizeof(*call));
    if (call)
        *call = (struct redis_call){.consumer = consumer, .attempt = consumer->attempt};
    return call;
}

bool redis_ask(struct consumer *consumer, const struct dynbuf *command, redis_ask_fn *fn)
{
    struct redis_call *call = command->failed ? NULL : call_new(consumer);
    if (!call)
        return false;
    call->ask_fn = fn;
    if (sink_ask(consumer->sink, command, on_reply, call))
        return true;
    free(call);
    return false;
}

bool redis_send(struct consumer *consumer, const struct dynbuf *commands, size_t count,
                redis_send_fn *fn)
{
    struct redis_call *call = commands->failed ? NULL : call_new(consumer);
    if (!call)
        return false;
    call->send_fn = fn;
    if (sink_send(consumer->sink, commands, count, on_batch, call))
        return true;
    free(call);
    return false;
}

static void on_sink_up(void *arg)
{
    struct consumer *consumer = arg;
    if (consumer->state == CONSUMER_NO_REDIS)
        consumer_look_in(consumer, 0);
}

static void on_sink_lost(void *arg, const char *reason)
{
    struct consumer *consumer = arg;
    /* an attempt that has not come to Redis yet loses nothing */
    if (consumer->state != CONSUMER_NO_PRIMARY && consumer->state != CONSUMER_NO_REDIS)
        consumer_lose(consumer, CONSUMER_NO_REDIS, "Redis: %s", reason);
}

/* --- generations that are fed ----------------------------------------------------------------- */

static void on_feed_started(void *arg)
{
    struct generation *generation = arg;
    struct consumer *consumer = generation->consumer;
    generation->started = true;
    if (generation == consumer->next) {
        build_feed_started(consumer);
        return;
    }
    consumer->running_since_us = clock_mono_us();
    consumer_set_state(consumer, CONSUMER_RUNNING, "%s", "");
    if (consumer->decision.reason == REPAIR_SWITCHED_OVER)
        pulse_beat(consumer); /* readers know at once that the keys are as young as ever */
    consumer_kick(consumer);
}

static void on_feed_over(void *arg, enum feed_end end, const char *reason)
{
    struct generation *generation = arg;
    struct consumer *consumer = generation->consumer;
    if (generation == consumer->next && end != FEED_REPLACED) {
        build_fail(consumer, reason);
        return;
    }
    switch (end) {
    case FEED_SINK_LOST:
        consumer_lose(consumer, CONSUMER_NO_REDIS, "Redis: %s", reason);
        return;
    case FEED_BLOCKED:
        consumer_lose(consumer, CONSUMER_BLOCKED, "%s", reason);
        return;
    case FEED_TRUNCATED:
        consumer->forced = REPAIR_TRUNCATED;
        break;
    case FEED_SLOT_GONE:
        /* If it looks as if it could be resumed: in the WAL that it stands at there is no
         * publication, which was made anew. */
        consumer->forced = REPAIR_SLOT_UNREADABLE;
        break;
    case FEED_STREAM_LOST:
    case FEED_SLOT_TAKEN:
    case FEED_REPLACED:
    case FEED_KEYS_GONE:
        break;
    }
    consumer_lose(consumer, CONSUMER_LOOKING, "%s", reason);
}

static void on_feed_applied(void *arg)
{
    struct generation *generation = arg;
    if (generation == generation->consumer->now)
        drain_check(generation->consumer);
}

static void on_feed_missing(void *arg, int64_t event_id)
{
    struct generation *generation = arg;
    check_missing(generation->consumer, event_id);
}

struct generation *generation_new(struct consumer *consumer, int64_t number, const char *slot,
                                  uint64_t start_lsn, bool current)
{
    const struct settings *settings = consumer->config.settings;
    struct generation *generation = calloc(1, sizeof(*generation));
    if (!generation)
        return NULL;
    generation->consumer = consumer;
    generation->number = number;
    snprintf(generation->slot, sizeof(generation->slot), "%s", slot);
    generation->feed =
        feed_new(&(struct feed_config){.base = consumer->config.base,
                                       .reap = consumer->config.reap,
                                       .metrics = consumer->config.metrics,
                                       .settings = settings,
                                       .shard = consumer->shard,
                                       .dsn = consumer->control.dsn,
                                       .sink = consumer->sink,
                                       .slot = generation->slot,
                                       .generation = number,
                                       .epoch = consumer->epoch,
                                       .start_lsn = start_lsn,
                                       .current = current,
                                       .streaming = settings->cdc.streaming == CDC_STREAMING_ON,
                                       .gate = gate_now(consumer),
                                       .on_started = on_feed_started,
                                       .on_over = on_feed_over,
                                       .on_applied = on_feed_applied,
                                       .on_missing = on_feed_missing,
                                       .arg = generation});
    if (!generation->feed) {
        free(generation);
        return NULL;
    }
    return generation;
}

void generation_free(struct generation *generation)
{
    if (!generation)
        return;
    feed_free(generation->feed);
    generation->feed = NULL;
    reap(generation->consumer->config.reap, generation, free);
}

/* --- time ------------------------------------------------------------------------------------- */

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    struct consumer *consumer = arg;
    const int64_t now_us = clock_mono_us();
    (void)fd;
    (void)what;
    arm(consumer, consumer->state == CONSUMER_RUNNING && consumer->build.step == BUILD_NONE
                      ? TICK_RUNNING_US
                      : TICK_US);
    if (now_us >= consumer->look_at_us)
        consumer_look(consumer);
    pulse_tick(consumer, now_us);
    build_tick(consumer, now_us);
    clean_tick(consumer, now_us);
    check_tick(consumer, now_us);
    status_tick(consumer, now_us);
}

void consumer_sync(struct consumer *consumer)
{
    char primary[SHARDMAP_NAME_MAX + 1] = "";
    snapshot_begin(consumer->config.reader);
    const struct topology *topology = snapshot_get(consumer->config.topologies);
    const struct topology_node *node =
        topology ? topology_primary(topology, consumer->shard) : NULL;
    if (node)
        snprintf(primary, sizeof(primary), "%s", node->name);
    snapshot_end(consumer->config.reader);
    if (!primary[0])
        return; /* the sessions know best whether it is really gone */
    if (consumer->state == CONSUMER_NO_PRIMARY) {
        consumer_look_in(consumer, 0);
    } else if (consumer->control.node[0] && strcmp(primary, consumer->control.node) != 0) {
        control_close(consumer);
        consumer->pause_ms = 0;
        consumer_lose(consumer, CONSUMER_LOOKING, "the primary is %s now", primary);
    }
}

/* --- life ------------------------------------------------------------------------------------- */

static void free_memory(void *object)
{
    struct consumer *consumer = object;
    if (consumer->tick)
        event_free(consumer->tick);
    if (consumer->gate.timer)
        event_free(consumer->gate.timer);
    if (consumer->drains.timer)
        event_free(consumer->drains.timer);
    status_done(consumer);
    free(consumer);
}

struct consumer *consumer_new(const struct consumer_config *config)
{
    struct consumer *consumer = calloc(1, sizeof(*consumer));
    if (!consumer)
        return NULL;
    consumer->config = *config;
    snprintf(consumer->shard, sizeof(consumer->shard), "%s", config->shard);
    consumer->config.shard = consumer->shard;
    repair_slot_name(consumer->slot_prefix, consumer->shard, 1);
    consumer->slot_prefix[strlen(consumer->slot_prefix) - 1] = '\0';
    consumer->tick = evtimer_new(config->base, on_tick, consumer);
    if (!consumer->tick || !gate_init(consumer) || !drain_init(consumer) ||
        !status_init(consumer)) {
        free_memory(consumer);
        return NULL;
    }
    consumer->sink = sink_new(&(struct sink_config){.base = config->base,
                                                    .reap = config->reap,
                                                    .metrics = config->metrics,
                                                    .settings = config->settings,
                                                    .shard = consumer->shard,
                                                    .on_up = on_sink_up,
                                                    .on_lost = on_sink_lost,
                                                    .arg = consumer});
    if (!consumer->sink) {
        free_memory(consumer);
        return NULL;
    }
    status_show_state(consumer);
    consumer->check.next_us = clock_mono_us() + config->settings->cdc.reconcile_ms * 1000;
    consumer_look_in(consumer, 0);
    return consumer;
}

void consumer_free(struct consumer *consumer)
{
    if (!consumer)
        return;
    end_attempt(consumer, "the consumer is stopping");
    consumer->over = true;
    event_del(consumer->tick);
    control_close(consumer);
    sink_free(consumer->sink);
    reap(consumer->config.reap, consumer, free_memory);
}

enum sg_error consumer_reseed(struct consumer *consumer)
{
    if (consumer->build.step != BUILD_NONE)
        return SG_RELOAD_BUSY;
    if (consumer->state == CONSUMER_BLOCKED && consumer->locked) {
        end_attempt(consumer, "a reseed was asked for"); /* the next try may be under way */
        consumer->forced = REPAIR_REQUESTED; /* a new snapshot is past what blocks the stream */
        consumer_look_in(consumer, 0);
        return SG_OK;
    }
    if (consumer->state != CONSUMER_RUNNING)
        return SG_SHARD_UNAVAILABLE;
    build_begin(consumer, REPAIR_REQUESTED);
    return SG_OK;
}
