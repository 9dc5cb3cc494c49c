/*
 * Live seats: connections to Redis, topics and their timer. See live.h.
 *
 * A topic that nobody watches any more goes with the next tick, so that a client which comes back
 * at once finds it. Nothing is freed from inside a callback.
 *
 * SPDX-License-Identifier: MIT
 */
#include "router/live.h"

#include <event2/event.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/redisconn.h"
#include "base/redisresp.h"
#include "base/settings.h"
#include "base/snapshot.h"
#include "router/counters.h"
#include "router/live_topic.h"

#define BUCKETS 1024 /* a power of two */
#define IN_FLIGHT_MAX 16384
#define RESP_BYTES_MAX 4096
/* `changes` is trimmed to live.history entries or, a node of the stream, this many more. */
#define HISTORY_SLACK 128
#define NO_GENERATION (-1)

enum topic_state { TOPIC_WAITING, TOPIC_SUBSCRIBING, TOPIC_READING, TOPIC_LIVE };

struct entry {
    struct live_topic topic;
    struct live *live;
    LIST_ENTRY(entry) bucket;
    TAILQ_ENTRY(entry) link;
    TAILQ_ENTRY(entry) due_link;
    enum topic_state state;
    bool due;        /* in live->due */
    bool subscribed; /* Redis has confirmed it */
    bool in_flight;  /* a question is; it is never given up, but may be of no use any more */
    int64_t next_us; /* WAITING: the next try; LIVE: the next renewal */
};

LIST_HEAD(entry_bucket, entry);
TAILQ_HEAD(entry_list, entry);

struct live {
    const struct router_config *config;
    const struct counters *counters;
    struct redisconn *questions;
    struct redisconn *messages;
    struct event *tick;
    struct event *settle; /* active while anybody is due */
    uint64_t map_serial;
    struct entry_bucket buckets[BUCKETS];
    struct entry_list entries;
    struct entry_list due; /* somebody joined, or has to catch up */
    struct live_seats seats;
    struct dynbuf resp;
    struct live_text *lines; /* of the reading at hand */
    size_t line_max;
};

/* Marks the event as watched, and reads it: {counters, changes}. */
static const char script[] =
    "redis.call('SET', KEYS[1], '1', 'PX', ARGV[1])\n"
    "local counters = redis.call('HMGET', KEYS[2],\n"
    "    'at', 'total', 'available', 'held', 'booked', 'cols', 'deleted')\n"
    "if ARGV[2] == '' then return {counters, {}} end\n"
    "return {counters, redis.call('XRANGE', KEYS[3], ARGV[2], '+', 'COUNT', ARGV[3])}\n";

enum counter_field {
    FIELD_AT,
    FIELD_TOTAL,
    FIELD_AVAILABLE,
    FIELD_HELD,
    FIELD_BOOKED,
    FIELD_COLS,
    FIELD_DELETED,
    FIELD_COUNT
};

/* --- topics ----------------------------------------------------------------------------------- */

static struct entry_bucket *bucket_of(struct live *live, int64_t event_id)
{
    return &live->buckets[hash_u64((uint64_t)event_id) & (BUCKETS - 1)];
}

static struct entry *find(struct live *live, int64_t event_id)
{
    struct entry *entry;
    LIST_FOREACH (entry, bucket_of(live, event_id), bucket) {
        if (entry->topic.event_id == event_id)
            return entry;
    }
    return NULL;
}

/* The topic of a channel; NULL if it is none's. */
static struct entry *find_channel(struct live *live, const char *channel)
{
    char key[REDISKEY_MAX];
    const char *tag = strchr(channel, '{'); /* {e:EVENT} */
    struct entry *entry = tag && strlen(tag) > 3 ? find(live, strtoll(tag + 3, NULL, 10)) : NULL;
    if (!entry)
        return NULL;
    rediskey_live(key, entry->topic.event_id);
    return strcmp(key, channel) == 0 ? entry : NULL;
}

static int64_t renewal_us(const struct live *live)
{
    return live->config->settings->live.keep_ms * 1000 / 3;
}

static void set_state(struct entry *entry, enum topic_state state)
{
    const struct settings *settings = entry->live->config->settings;
    entry->state = state;
    if (state == TOPIC_WAITING) {
        live_topic_interrupt(&entry->topic);
        entry->next_us = clock_mono_us() + settings->redis.poll_ms * 1000;
    } else if (state == TOPIC_LIVE) {
        entry->next_us = clock_mono_us() + renewal_us(entry->live);
    }
}

static void set_due(struct entry *entry)
{
    struct live *live = entry->live;
    if (entry->due)
        return;
    if (TAILQ_EMPTY(&live->due))
        event_active(live->settle, 0, 0);
    TAILQ_INSERT_TAIL(&live->due, entry, due_link);
    entry->due = true;
}

static struct entry *entry_new(struct live *live, const char *shard, int64_t generation,
                               int64_t event_id)
{
    struct entry *entry = calloc(1, sizeof(*entry));
    if (!entry)
        return NULL;
    live_topic_init(&entry->topic, event_id, shard, generation, &live->seats);
    entry->live = live;
    entry->state = TOPIC_WAITING;
    LIST_INSERT_HEAD(bucket_of(live, event_id), entry, bucket);
    TAILQ_INSERT_TAIL(&live->entries, entry, link);
    return entry;
}

static void entry_free(struct entry *entry)
{
    struct live *live = entry->live;
    if (entry->due)
        TAILQ_REMOVE(&live->due, entry, due_link);
    LIST_REMOVE(entry, bucket);
    TAILQ_REMOVE(&live->entries, entry, link);
    live_topic_done(&entry->topic);
    free(entry);
}

static void unsubscribe(struct entry *entry)
{
    char channel[REDISKEY_MAX];
    rediskey_live(channel, entry->topic.event_id);
    redisconn_unsubscribe(entry->live->messages, channel);
}

/* --- a reading -------------------------------------------------------------------------------- */

static bool is_text(const redisReply *reply)
{
    return reply->type == REDIS_REPLY_STRING;
}

static bool field_i64(const redisReply *field, int64_t *ret_value)
{
    return is_text(field) && live_count_parse(field->str, field->len, ret_value);
}

/* False if there is no such key, or nothing that could be shown. */
static bool read_counters(const redisReply *reply, struct live_reading *ret_reading)
{
    int64_t cols;
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements != FIELD_COUNT)
        return false;
    redisReply **field = reply->element;
    struct live_counts *counts = &ret_reading->counts;
    if (!is_text(field[FIELD_AT]) ||
        !position_parse(field[FIELD_AT]->str, field[FIELD_AT]->len, &ret_reading->at))
        return false;
    if (is_text(field[FIELD_DELETED])) {
        ret_reading->gone = true;
        return true;
    }
    if (!field_i64(field[FIELD_TOTAL], &counts->total) ||
        !field_i64(field[FIELD_AVAILABLE], &counts->available) ||
        !field_i64(field[FIELD_HELD], &counts->held) ||
        !field_i64(field[FIELD_BOOKED], &counts->booked) || !field_i64(field[FIELD_COLS], &cols) ||
        cols < 1 || cols > INT32_MAX)
        return false;
    ret_reading->cols = (int32_t)cols;
    return true;
}

/* ["c", line, "b", note], the note perhaps, and others that are passed over. */
static bool read_fields(const redisReply *fields, struct live_text *ret_text)
{
    struct live_text text = {.text = NULL};
    for (size_t i = 0; i + 1 < fields->elements; i += 2) {
        const redisReply *name = fields->element[i];
        const redisReply *value = fields->element[i + 1];
        if (!is_text(name) || !is_text(value) || name->len != 1)
            continue;
        if (name->str[0] == 'c') {
            text.text = value->str;
            text.len = value->len;
        } else if (name->str[0] == 'b') {
            text.note = value->str;
            text.note_len = value->len;
        }
    }
    if (!text.text)
        return false;
    *ret_text = text;
    return true;
}

/* [id, fields] each; others are left out, and so leave a gap. */
static bool read_changes(struct live *live, const redisReply *reply,
                         struct live_reading *ret_reading)
{
    if (reply->type != REDIS_REPLY_ARRAY)
        return false;
    if (reply->elements > live->line_max) {
        struct live_text *lines = realloc(live->lines, reply->elements * sizeof(*lines));
        if (!lines)
            return false;
        live->lines = lines;
        live->line_max = reply->elements;
    }
    ret_reading->lines = live->lines;
    for (size_t i = 0; i < reply->elements; i++) {
        const redisReply *change = reply->element[i];
        if (change->type == REDIS_REPLY_ARRAY && change->elements == 2 &&
            change->element[1]->type == REDIS_REPLY_ARRAY &&
            read_fields(change->element[1], &live->lines[ret_reading->line_count]))
            ret_reading->line_count++;
    }
    return true;
}

/* The event is not there yet, or Redis cannot say now: WAITING, whoever is in step stays so. */
static void on_read(void *arg, const redisReply *reply)
{
    struct entry *entry = arg;
    struct live_reading reading = {.gone = false};
    bool wanted = entry->state == TOPIC_READING || entry->state == TOPIC_LIVE;
    entry->in_flight = false;
    if (!wanted || !reply || reply->type != REDIS_REPLY_ARRAY || reply->elements != 2 ||
        !read_counters(reply->element[0], &reading) ||
        !read_changes(entry->live, reply->element[1], &reading)) {
        if (reply && reply->type == REDIS_REPLY_ERROR)
            log_warn(&(struct log_fields){.event_id = entry->topic.event_id,
                                          .shard = entry->topic.shard},
                     "live seats: Redis refuses to be asked: %s", reply->str);
        live_topic_unanswered(&entry->topic);
        if (wanted)
            set_state(entry, TOPIC_WAITING);
        return;
    }
    set_state(entry, TOPIC_LIVE);
    if (live_topic_read(&entry->topic, &reading))
        set_due(entry);
}

static void write_question(struct entry *entry, bool changes, const struct position *from)
{
    const struct settings *settings = entry->live->config->settings;
    const struct live_topic *topic = &entry->topic;
    struct dynbuf *out = &entry->live->resp;
    char key[REDISKEY_MAX];
    char text[LIVE_POSITION_MAX + 1];
    dynbuf_reset(out);
    redisresp_begin(out, 9);
    redisresp_args(out, "EVAL");
    redisresp_args(out, script);
    redisresp_args(out, "3");
    redisresp_arg(out, key, rediskey_watched(key, topic->event_id));
    redisresp_arg(out, key, rediskey_event(key, topic->event_id, topic->shard, topic->generation));
    redisresp_arg(out, key,
                  rediskey_changes(key, topic->event_id, topic->shard, topic->generation));
    redisresp_arg_i64(out, settings->live.keep_ms);
    if (changes)
        redisresp_arg(out, text, live_position_format(from, text));
    else
        redisresp_args(out, "");
    redisresp_arg_i64(out, settings->live.history + HISTORY_SLACK);
}

static void ask(struct entry *entry)
{
    struct live *live = entry->live;
    struct position from;
    write_question(entry, live_topic_ask(&entry->topic, &from), &from);
    entry->in_flight = !live->resp.failed && redisconn_send(live->questions, live->resp.data,
                                                            live->resp.len, on_read, entry);
    if (entry->in_flight)
        return;
    live_topic_unanswered(&entry->topic);
    set_state(entry, TOPIC_WAITING);
}

/* --- the way to LIVE -------------------------------------------------------------------------- */

/* Takes a waiting topic on, as far as Redis lets it. */
static void begin(struct entry *entry)
{
    struct live *live = entry->live;
    char channel[REDISKEY_MAX];
    int64_t generation;
    if (entry->in_flight || !redisconn_is_up(live->questions) || !redisconn_is_up(live->messages) ||
        !counters_live(live->counters, entry->topic.shard, &generation))
        return;
    if (generation != entry->topic.generation)
        live_topic_turn(&entry->topic, entry->topic.shard, generation);
    rediskey_live(channel, entry->topic.event_id);
    if (!entry->subscribed && !redisconn_subscribe(live->messages, channel))
        return;
    set_state(entry, entry->subscribed ? TOPIC_READING : TOPIC_SUBSCRIBING);
    if (entry->subscribed)
        ask(entry);
}

static void on_subscribed(void *arg, const char *channel)
{
    struct live *live = arg;
    struct entry *entry = find_channel(live, channel);
    if (!entry)
        return;
    entry->subscribed = true;
    if (entry->state == TOPIC_SUBSCRIBING) {
        set_state(entry, TOPIC_READING);
        ask(entry);
    }
}

static void on_message(void *arg, const char *channel, const char *payload, size_t len)
{
    struct entry *entry = find_channel(arg, channel);
    if (entry && live_topic_message(&entry->topic, payload, len))
        set_due(entry);
}

/* Everybody in step waits; what they miss is read as soon as it can be. */
static void on_messages_lost(void *arg, const char *reason)
{
    struct live *live = arg;
    struct entry *entry;
    (void)reason;
    TAILQ_FOREACH (entry, &live->entries, link) {
        entry->subscribed = false;
        set_state(entry, TOPIC_WAITING);
    }
}

static void on_up(void *arg)
{
    struct live *live = arg;
    struct entry *entry;
    TAILQ_FOREACH (entry, &live->entries, link)
        entry->next_us = entry->state == TOPIC_WAITING ? 0 : entry->next_us;
    event_active(live->tick, 0, 0);
}

/* --- joiners, and those who have to catch up -------------------------------------------------- */

static void on_settle(evutil_socket_t fd, short what, void *arg)
{
    struct live *live = arg;
    struct entry *entry;
    struct entry_list due = TAILQ_HEAD_INITIALIZER(due);
    (void)fd;
    (void)what;
    TAILQ_CONCAT(&due, &live->due, due_link);
    while ((entry = TAILQ_FIRST(&due))) {
        TAILQ_REMOVE(&due, entry, due_link);
        entry->due = false;
        bool wanted = live_topic_greet(&entry->topic);
        if (entry->state == TOPIC_WAITING)
            begin(entry);
        else if (wanted && entry->state == TOPIC_LIVE && !entry->in_flight)
            ask(entry);
        /* a question in flight: its reading says whether another one is wanted */
    }
}

/* --- the tick --------------------------------------------------------------------------------- */

/* The event's shard in the newest map; where it has none, it stays where it was. */
static void follow_map(struct live *live)
{
    struct entry *entry;
    const struct router_config *config = live->config;
    uint64_t serial = snapshot_serial(config->maps);
    if (serial == live->map_serial)
        return;
    live->map_serial = serial;
    snapshot_begin(config->reader);
    const struct shardmap *map = snapshot_get(config->maps);
    TAILQ_FOREACH (entry, &live->entries, link) {
        int shard = map ? shardmap_find(map, entry->topic.event_id) : -1;
        if (shard < 0 || strcmp(shardmap_shard(map, shard)->name, entry->topic.shard) == 0)
            continue;
        live_topic_turn(&entry->topic, shardmap_shard(map, shard)->name, NO_GENERATION);
        set_state(entry, TOPIC_WAITING);
    }
    snapshot_end(config->reader);
}

static void follow_generation(struct entry *entry)
{
    struct live_topic *topic = &entry->topic;
    int64_t generation;
    if (!counters_live(entry->live->counters, topic->shard, &generation) ||
        generation == topic->generation)
        return;
    live_topic_turn(topic, topic->shard, generation);
    set_state(entry, TOPIC_WAITING);
    entry->next_us = 0;
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    struct live *live = arg;
    struct entry *next;
    int64_t now_us = clock_mono_us();
    (void)fd;
    (void)what;
    follow_map(live);
    for (struct entry *entry = TAILQ_FIRST(&live->entries); entry; entry = next) {
        next = TAILQ_NEXT(entry, link);
        if (entry->topic.watch_count == 0 && !entry->in_flight) {
            unsubscribe(entry);
            entry_free(entry);
            continue;
        }
        follow_generation(entry);
        if (entry->in_flight || entry->next_us > now_us)
            continue;
        if (entry->state == TOPIC_WAITING)
            begin(entry);
        else if (entry->state == TOPIC_LIVE)
            ask(entry);
    }
}

/* --- public ----------------------------------------------------------------------------------- */

static bool open_connections(struct live *live)
{
    const struct router_config *config = live->config;
    struct redisconn_config redis = {.base = config->base,
                                     .reap = config->reap,
                                     .settings = config->settings,
                                     .name = NULL, /* the router's other connection tells */
                                     .in_flight_max = IN_FLIGHT_MAX,
                                     .on_up = on_up,
                                     .arg = live};
    live->questions = redisconn_new(&redis);
    redis.on_lost = on_messages_lost;
    redis.on_message = on_message;
    redis.on_subscribed = on_subscribed;
    live->messages = redisconn_new(&redis);
    return live->questions && live->messages;
}

struct live *live_new(const struct router_config *config, const struct counters *counters)
{
    if (!config->settings->redis.address[0])
        return NULL;
    struct live *live = calloc(1, sizeof(*live));
    if (!live)
        return NULL;
    struct timeval interval = clock_timeval_us(config->settings->redis.poll_ms * 1000);
    live->config = config;
    live->counters = counters;
    TAILQ_INIT(&live->entries);
    TAILQ_INIT(&live->due);
    dynbuf_init(&live->resp, RESP_BYTES_MAX);
    live->tick = event_new(config->base, -1, EV_PERSIST, on_tick, live);
    live->settle = event_new(config->base, -1, 0, on_settle, live);
    if (!live->tick || !live->settle || event_add(live->tick, &interval) < 0 ||
        !open_connections(live)) {
        live_free(live);
        return NULL;
    }
    return live;
}

void live_free(struct live *live)
{
    if (!live)
        return;
    /* these come back with everything that is in flight */
    redisconn_free(live->questions);
    redisconn_free(live->messages);
    while (!TAILQ_EMPTY(&live->entries))
        entry_free(TAILQ_FIRST(&live->entries));
    if (live->tick)
        event_free(live->tick);
    if (live->settle)
        event_free(live->settle);
    dynbuf_done(&live->resp);
    free(live->lines);
    free(live);
}

enum sg_error live_watch(struct live *live, const char *shard, int64_t event_id,
                         const char *last_id, router_live_fn *fn, void *arg,
                         struct live_watch **ret_watch)
{
    int64_t generation;
    if (!redisconn_is_up(live->questions) || !redisconn_is_up(live->messages) ||
        !counters_live(live->counters, shard, &generation))
        return SG_SHARD_UNAVAILABLE;
    follow_map(live);
    struct entry *entry = find(live, event_id);
    if (!entry)
        entry = entry_new(live, shard, generation, event_id);
    if (!entry)
        return SG_NO_MEMORY;
    follow_generation(entry);
    struct live_watch *watch = live_topic_join(&entry->topic, last_id, fn, arg);
    if (!watch)
        return SG_NO_MEMORY;
    set_due(entry);
    *ret_watch = watch;
    return SG_OK;
}

void live_unwatch(struct live_watch *watch)
{
    live_topic_leave(watch);
}
