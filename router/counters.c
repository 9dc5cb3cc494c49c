/*
 * What a worker reads from Redis. See counters.h.
 *
 *   DOWN ──connected──> CHECKING ──a poll was answered in time──> READY
 *    ^                   ^    ^                                     │
 *    │                   │    └──── an answer came too late ────────┤
 *    └───────────────────┴──────────── connection lost ─────────────┘
 *
 * Only in READY is anything asked for a request; in CHECKING the polls alone go on, so a Redis that
 * hangs costs a few requests redis.read_timeout_ms, and the others nothing. What was known of the
 * shards is forgotten with the connection: a Redis that comes back may have lost its last second,
 * and is believed again when a consumer has moved the beat.
 *
 * A missing ticket key means "none there", so it has to be a key of the generation that is current
 * at that moment: behind those reads goes the shard's `gen`, and Redis answers in order. After a
 * FLUSHALL, or a switch that no poll has seen yet, the answer is thus "not known".
 *
 * SPDX-License-Identifier: MIT
 */
#include "router/counters.h"

#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "base/clock.h"
#include "base/metrics.h"
#include "base/redisconn.h"
#include "base/rediskeys.h"
#include "base/redisresp.h"
#include "base/settings.h"
#include "base/snapshot.h"

#define EVENTS_MAX 1000    /* of one call */
#define IN_FLIGHT_MAX 8192 /* commands; more are refused, and PostgreSQL answers */
#define COMMANDS_BYTES_MAX ((size_t)1 << 20)
#define BEAT_MAX 24
#define TICKETS_FIELDS 2 /* of a ticket key besides the tickets: at, epoch */

enum counters_state { COUNTERS_DOWN, COUNTERS_CHECKING, COUNTERS_READY };

enum what { WHAT_COUNTS, WHAT_OWNERS, WHATS };
enum source { FROM_REDIS, IS_DOWN, IS_STALE, IS_LATE, IS_UNKNOWN, SOURCES };

/* A shard, as its hash said last. */
struct followed {
    char name[SHARDMAP_NAME_MAX + 1];
    int64_t generation; /* 0: none */
    bool live;          /* state is "live" */
    char beat[BEAT_MAX];
    int64_t moved_us; /* when the beat was seen to move; 0: not yet */
};

/* A call under way. */
struct reading {
    TAILQ_ENTRY(reading) link; /* in `waiting` until it is answered */
    struct counters *counters;
    enum what what;
    int64_t deadline_us;
    size_t commands; /* that Redis has not answered */
    bool answered;   /* fn has run; stays until Redis has answered */
    size_t next;     /* item that the next answer is about */
    size_t known;    /* items */
    counters_events_fn *events_fn;
    counters_owners_fn *owners_fn;
    void *arg;
    size_t count;
    struct event_counts *counts; /* WHAT_COUNTS; behind the struct */
    struct owner *owners;        /* WHAT_OWNERS; likewise */
};

struct owner {
    int64_t generation; /* 0: the shard is not live, Redis is not asked */
    bool has_none;      /* no ticket key of that generation was found */
    bool holds;
};

TAILQ_HEAD(reading_list, reading);

struct counters {
    const struct router_config *config;
    enum counters_state state;
    struct redisconn *conn;
    struct followed *shards;
    size_t shard_count;
    uint64_t map_serial; /* of the map that `shards` was made from */
    struct event *poll;
    struct event *timer;         /* deadline of the oldest that waits */
    size_t polls;                /* answers of the last poll that are still to come */
    bool poll_failed;            /* one of them was none */
    int64_t polled_us;           /* when it was sent */
    struct reading_list waiting; /* in order of their deadlines */
    size_t in_flight;            /* not yet answered to their callers */
    struct dynbuf commands;      /* being written */
    struct metrics_series *series[WHATS][SOURCES];
};

static void count_reads(struct counters *counters, enum what what, enum source source, size_t n)
{
    if (n)
        metrics_add(counters->series[what][source], (int64_t)n);
}

static int64_t read_timeout_us(const struct counters *counters)
{
    return counters->config->settings->redis.read_timeout_ms * 1000;
}

static void set_timer_us(struct event *timer, int64_t us)
{
    struct timeval tv = clock_timeval_us(us);
    event_add(timer, &tv);
}

static void forget(struct followed *shard)
{
    shard->generation = 0;
    shard->live = false;
    shard->beat[0] = '\0';
    shard->moved_us = 0;
}

/* The one place where the state changes. */
static void set_state(struct counters *counters, enum counters_state state)
{
    counters->state = state;
    if (state != COUNTERS_DOWN)
        return;
    for (size_t i = 0; i < counters->shard_count; i++) {
        forget(&counters->shards[i]);
    }
}

/* --- polls ------------------------------------------------------------------------------------ */

static struct followed *find_shard(const struct counters *counters, const char *name)
{
    for (size_t i = 0; i < counters->shard_count; i++) {
        if (strcmp(counters->shards[i].name, name) == 0)
            return &counters->shards[i];
    }
    return NULL;
}

/* Takes over the shards of a new map; never while a poll is under way, whose answers point here. */
static void follow_map(struct counters *counters)
{
    const struct router_config *config = counters->config;
    uint64_t serial = snapshot_serial(config->maps);
    if (serial == counters->map_serial)
        return;
    snapshot_begin(config->reader);
    const struct shardmap *map = snapshot_get(config->maps);
    size_t count = map ? shardmap_shard_count(map) : 0;
    struct followed *shards = calloc(count + 1, sizeof(*shards));
    for (size_t i = 0; shards && i < count; i++) {
        const char *name = shardmap_shard(map, (int)i)->name;
        const struct followed *old = find_shard(counters, name);
        if (old)
            shards[i] = *old;
        snprintf(shards[i].name, sizeof(shards[i].name), "%s", name);
    }
    snapshot_end(config->reader);
    if (!shards)
        return; /* the next poll tries again */
    free(counters->shards);
    counters->shards = shards;
    counters->shard_count = count;
    counters->map_serial = serial;
}

/* A number of 0 or more, digits alone. */
static bool read_number(const struct redisReply *reply, int64_t *ret_value)
{
    int64_t value = 0;
    if (reply->type != REDIS_REPLY_STRING || reply->len == 0)
        return false;
    for (size_t i = 0; i < (size_t)reply->len; i++) {
        if (reply->str[i] < '0' || reply->str[i] > '9' ||
            __builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, reply->str[i] - '0', &value))
            return false;
    }
    *ret_value = value;
    return true;
}

static bool is_text(const struct redisReply *reply, const char *text)
{
    return reply->type == REDIS_REPLY_STRING && strcmp(reply->str, text) == 0;
}

static void learn_beat(struct followed *shard, const struct redisReply *beat)
{
    int64_t number;
    if (!read_number(beat, &number)) {
        shard->beat[0] = '\0';
        shard->moved_us = 0;
        return;
    }
    if (shard->beat[0] && strcmp(shard->beat, beat->str) != 0)
        shard->moved_us = clock_mono_us();
    snprintf(shard->beat, sizeof(shard->beat), "%s", beat->str);
}

/* gen state beat */
static void learn(struct followed *shard, const struct redisReply *reply)
{
    int64_t generation = 0;
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 3 ||
        !read_number(reply->element[0], &generation)) {
        forget(shard);
        return;
    }
    shard->generation = generation;
    shard->live = is_text(reply->element[1], "live");
    learn_beat(shard, reply->element[2]);
}

/* The answers come in the order of the shards. */
static void on_polled(void *arg, const redisReply *reply)
{
    struct counters *counters = arg;
    struct followed *shard = &counters->shards[counters->shard_count - counters->polls];
    counters->polls--;
    if (!reply) {
        counters->poll_failed = true;
        return;
    }
    learn(shard, reply);
    if (counters->polls > 0 || counters->poll_failed || counters->state == COUNTERS_DOWN)
        return;
    if (clock_mono_us() - counters->polled_us <= read_timeout_us(counters))
        set_state(counters, COUNTERS_READY);
    else
        set_state(counters, COUNTERS_CHECKING);
}

static void send_poll(struct counters *counters)
{
    struct dynbuf *commands = &counters->commands;
    char key[REDISKEY_MAX];
    follow_map(counters);
    dynbuf_reset(commands);
    for (size_t i = 0; i < counters->shard_count; i++) {
        rediskey_shard(key, counters->shards[i].name);
        redisresp_command(commands, "HMGET", key, "gen", "state", "beat", NULL);
    }
    if (counters->shard_count == 0 || commands->failed ||
        !redisconn_send_many(counters->conn, dynbuf_text(commands), commands->len,
                             counters->shard_count, on_polled, counters))
        return;
    counters->polls = counters->shard_count;
    counters->poll_failed = false;
    counters->polled_us = clock_mono_us();
}

static void on_poll(evutil_socket_t fd, short what, void *arg)
{
    struct counters *counters = arg;
    (void)fd;
    (void)what;
    set_timer_us(counters->poll, counters->config->settings->redis.poll_ms * 1000);
    if (!redisconn_is_up(counters->conn))
        return;
    if (counters->polls == 0)
        send_poll(counters);
    else if (clock_mono_us() - counters->polled_us > read_timeout_us(counters))
        set_state(counters, COUNTERS_CHECKING);
}

static void on_up(void *arg)
{
    struct counters *counters = arg;
    set_state(counters, COUNTERS_CHECKING);
    set_timer_us(counters->poll, 0);
}

static void on_lost(void *arg, const char *reason)
{
    struct counters *counters = arg;
    (void)reason;
    set_state(counters, COUNTERS_DOWN);
}

bool counters_live(const struct counters *counters, const char *shard, int64_t *ret_generation)
{
    const struct followed *followed = find_shard(counters, shard);
    int64_t max_us = counters->config->settings->redis.max_staleness_ms * 1000;
    if (counters->state != COUNTERS_READY || !followed || !followed->live ||
        followed->generation == 0 || followed->moved_us == 0 ||
        clock_mono_us() - followed->moved_us > max_us)
        return false;
    *ret_generation = followed->generation;
    return true;
}

/* --- answers ---------------------------------------------------------------------------------- */

static void give_owners(struct reading *reading)
{
    bool holds[COUNTERS_SHARDS_MAX];
    for (size_t i = 0; i < reading->count; i++)
        holds[i] = reading->owners[i].holds;
    reading->owners_fn(reading->arg, reading->known ? holds : NULL, reading->count);
}

/* Once; what has not come by now is not known. */
static void answer(struct reading *reading, enum source otherwise)
{
    struct counters *counters = reading->counters;
    reading->answered = true;
    TAILQ_REMOVE(&counters->waiting, reading, link);
    counters->in_flight--;
    count_reads(counters, reading->what, FROM_REDIS, reading->known);
    count_reads(counters, reading->what, otherwise, reading->count - reading->known);
    if (reading->what == WHAT_COUNTS)
        reading->events_fn(reading->arg, reading->counts, reading->count);
    else
        give_owners(reading);
}

/* total available held booked rows cols deleted */
static void learn_counts(struct reading *reading, const struct redisReply *reply)
{
    struct event_counts *counts = &reading->counts[reading->next++];
    struct event_counts found = {.event_id = counts->event_id, .known = true};
    int64_t rows;
    int64_t cols;
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 7 ||
        reply->element[6]->type != REDIS_REPLY_NIL || !read_number(reply->element[0], &found.total))
        return;
    if (!read_number(reply->element[1], &found.available) ||
        !read_number(reply->element[2], &found.held) ||
        !read_number(reply->element[3], &found.booked) || !read_number(reply->element[4], &rows) ||
        !read_number(reply->element[5], &cols) || rows > INT32_MAX || cols > INT32_MAX)
        return;
    if (rows * cols != found.total || found.held > found.total || found.booked > found.total ||
        found.available != found.total - found.held - found.booked)
        return; /* makes no sense: not shown */
    found.rows = (int32_t)rows;
    found.cols = (int32_t)cols;
    *counts = found;
    reading->known++;
}

/* For each shard that is live two answers: the length of the ticket key, then the generation. */
static void learn_owner(struct reading *reading, const struct redisReply *reply)
{
    while (reading->owners[reading->next / 2].generation == 0)
        reading->next += 2;
    struct owner *owner = &reading->owners[reading->next / 2];
    int64_t generation;
    if (reading->next++ % 2 == 0) {
        owner->has_none = reply->type == REDIS_REPLY_INTEGER && reply->integer <= TICKETS_FIELDS;
    } else if (read_number(reply, &generation) && generation == owner->generation) {
        owner->holds = !owner->has_none;
        reading->known++;
    }
}

static void on_reply(void *arg, const redisReply *reply)
{
    struct reading *reading = arg;
    reading->commands--;
    if (!reading->answered && reply) {
        if (reading->what == WHAT_COUNTS)
            learn_counts(reading, reply);
        else
            learn_owner(reading, reply);
    }
    if (reading->commands > 0)
        return;
    if (!reading->answered)
        answer(reading, reply ? IS_UNKNOWN : IS_DOWN);
    free(reading);
}

static void set_deadline_timer(struct counters *counters)
{
    const struct reading *oldest = TAILQ_FIRST(&counters->waiting);
    if (oldest)
        set_timer_us(counters->timer, oldest->deadline_us - clock_mono_us());
}

static void on_deadline(evutil_socket_t fd, short what, void *arg)
{
    struct counters *counters = arg;
    struct reading *oldest;
    int64_t now_us = clock_mono_us();
    (void)fd;
    (void)what;
    while ((oldest = TAILQ_FIRST(&counters->waiting)) && oldest->deadline_us <= now_us) {
        if (counters->state == COUNTERS_READY)
            set_state(counters, COUNTERS_CHECKING);
        answer(oldest, IS_LATE);
    }
    set_deadline_timer(counters);
}

/* Sends counters->commands for it. False: refused, and the reading is freed. */
static bool start(struct counters *counters, struct reading *reading, size_t commands)
{
    const struct dynbuf *out = &counters->commands;
    reading->commands = commands;
    if (out->failed ||
        !redisconn_send_many(counters->conn, out->data, out->len, commands, on_reply, reading)) {
        count_reads(counters, reading->what, IS_DOWN, reading->count);
        free(reading);
        return false;
    }
    reading->deadline_us = clock_mono_us() + read_timeout_us(counters);
    TAILQ_INSERT_TAIL(&counters->waiting, reading, link);
    counters->in_flight++;
    if (TAILQ_FIRST(&counters->waiting) == reading)
        set_deadline_timer(counters);
    return true;
}

static enum sg_error refuse(struct counters *counters, enum what what, size_t count)
{
    enum source source = counters->state == COUNTERS_READY ? IS_STALE : IS_DOWN;
    count_reads(counters, what, source, count);
    return SG_SHARD_UNAVAILABLE;
}

static struct reading *reading_new(struct counters *counters, enum what what, size_t count,
                                   size_t item_size, void *arg)
{
    struct reading *reading = calloc(1, sizeof(*reading) + count * item_size);
    if (!reading)
        return NULL;
    reading->counters = counters;
    reading->what = what;
    reading->count = count;
    reading->arg = arg;
    return reading;
}

enum sg_error counters_events(struct counters *counters, const char *shard,
                              const int64_t *event_ids, size_t count, counters_events_fn *fn,
                              void *arg)
{
    int64_t generation;
    char key[REDISKEY_MAX];
    if (count == 0 || count > EVENTS_MAX || !counters_live(counters, shard, &generation))
        return refuse(counters, WHAT_COUNTS, count);
    struct reading *reading =
        reading_new(counters, WHAT_COUNTS, count, sizeof(struct event_counts), arg);
    if (!reading)
        return SG_NO_MEMORY;
    reading->events_fn = fn;
    reading->counts = (struct event_counts *)(reading + 1);
    dynbuf_reset(&counters->commands);
    for (size_t i = 0; i < count; i++) {
        reading->counts[i].event_id = event_ids[i];
        rediskey_event(key, event_ids[i], shard, generation);
        redisresp_command(&counters->commands, "HMGET", key, "total", "available", "held", "booked",
                          "rows", "cols", "deleted", NULL);
    }
    return start(counters, reading, count) ? SG_OK : SG_SHARD_UNAVAILABLE;
}

enum sg_error counters_owners(struct counters *counters, const char *user_id,
                              const char *const *shards, size_t count, counters_owners_fn *fn,
                              void *arg)
{
    char key[REDISKEY_MAX];
    size_t commands = 0;
    if (count > COUNTERS_SHARDS_MAX || counters->state != COUNTERS_READY)
        return refuse(counters, WHAT_OWNERS, count);
    struct reading *reading = reading_new(counters, WHAT_OWNERS, count, sizeof(struct owner), arg);
    if (!reading)
        return SG_NO_MEMORY;
    reading->owners_fn = fn;
    reading->owners = (struct owner *)(reading + 1);
    dynbuf_reset(&counters->commands);
    for (size_t i = 0; i < count; i++) {
        struct owner *owner = &reading->owners[i];
        owner->holds = true; /* until Redis says otherwise */
        if (!counters_live(counters, shards[i], &owner->generation))
            continue;
        rediskey_tickets(key, user_id, shards[i], owner->generation);
        redisresp_command(&counters->commands, "HLEN", key, NULL);
        rediskey_shard(key, shards[i]);
        redisresp_command(&counters->commands, "HGET", key, "gen", NULL);
        commands += 2;
    }
    if (commands == 0) {
        free(reading);
        return refuse(counters, WHAT_OWNERS, count);
    }
    return start(counters, reading, commands) ? SG_OK : SG_SHARD_UNAVAILABLE;
}

size_t counters_in_flight(const struct counters *counters)
{
    return counters->in_flight;
}

/* --- life ------------------------------------------------------------------------------------- */

static void make_series(struct counters *counters)
{
    static const char *const whats[WHATS] = {"counts", "owners"};
    static const char *const sources[SOURCES] = {"redis", "postgres_down", "postgres_stale",
                                                 "postgres_late", "postgres_unknown"};
    for (int i = 0; i < WHATS; i++) {
        for (int k = 0; k < SOURCES; k++)
            counters->series[i][k] = metrics_series(counters->config->metrics, METRIC_REDIS_READS,
                                                    (const char *[]){whats[i], sources[k]});
    }
}

struct counters *counters_new(const struct router_config *config)
{
    if (!config->settings->redis.address[0])
        return NULL;
    struct counters *counters = calloc(1, sizeof(*counters));
    if (!counters)
        return NULL;
    counters->config = config;
    TAILQ_INIT(&counters->waiting);
    dynbuf_init(&counters->commands, COMMANDS_BYTES_MAX);
    make_series(counters);
    counters->poll = evtimer_new(config->base, on_poll, counters);
    counters->timer = evtimer_new(config->base, on_deadline, counters);
    /* The gauge and the log line are of the control thread's connection. */
    counters->conn = redisconn_new(&(struct redisconn_config){.base = config->base,
                                                              .reap = config->reap,
                                                              .settings = config->settings,
                                                              .in_flight_max = IN_FLIGHT_MAX,
                                                              .on_up = on_up,
                                                              .on_lost = on_lost,
                                                              .arg = counters});
    if (!counters->poll || !counters->timer || !counters->conn) {
        counters_free(counters);
        return NULL;
    }
    set_timer_us(counters->poll, 0);
    return counters;
}

void counters_free(struct counters *counters)
{
    if (!counters)
        return;
    set_state(counters, COUNTERS_DOWN); /* a callback that asks again is refused */
    redisconn_free(counters->conn);     /* answers everything */
    if (counters->poll)
        event_free(counters->poll);
    if (counters->timer)
        event_free(counters->timer);
    dynbuf_done(&counters->commands);
    free(counters->shards);
    free(counters);
}
