/*
 * Seat maps. See seatmaps.h.
 *
 *   request ─> entry of the event: recent enough? ── yes ──> answered at the next turn of the loop
 *                 │ no
 *                 └─> in flight? ── yes ──> waits with the others
 *                        │ no
 *                        └─> call, then all who wait are answered, and it stays for a moment
 *
 * A reader with a bound of its own or with a token asks for itself: whether the answer of another's
 * query is new enough for a token is known only of the node that gave it.
 *
 * An event that a replica does not know may be too young for it: the primary is asked once more
 * before it is said that there is none.
 *
 * SPDX-License-Identifier: MIT
 */
#include "router/seatmaps.h"

#include <arpa/inet.h>
#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/metrics.h"
#include "base/settings.h"
#include "router/params.h"

#define BUCKETS 1024 /* a power of two */
#define INT4_OID 23

struct waiter {
    STAILQ_ENTRY(waiter) link;
    router_seatmap_fn *fn;
    void *arg;
    int64_t map_version;
};

/* An event somebody reads: in flight, or recently read, or both. */
struct entry {
    LIST_ENTRY(entry) bucket;
    TAILQ_ENTRY(entry) age; /* oldest first, while `recent` is kept */
    struct seatmaps *owner;
    int64_t event_id;
    bool in_flight;
    bool asked_primary; /* the call in flight is the second one, of the primary */
    bool shared;        /* in its bucket; false: one reader with a bound or a token of its own */
    bool own_bound;     /* one reader with a bound: nothing older, whatever happens */
    struct read_token token; /* lsn 0: none */
    STAILQ_HEAD(, waiter) waiters;
    int64_t asked_us; /* when the query for `recent` or the one in flight was asked */
    struct seatmap *recent;
    struct route route; /* of `recent` */
};

/* Answers that are due without a query, given from the loop. */
struct due {
    STAILQ_ENTRY(due) link;
    struct waiter *waiter;
    struct seatmap *seatmap;
    struct route route;
};

struct seatmaps {
    const struct router_config *config;
    struct calls *calls;
    LIST_HEAD(, entry) buckets[BUCKETS];
    TAILQ_HEAD(, entry) by_age;
    size_t recent_bytes;
    STAILQ_HEAD(, due) due;
    struct event *deliver;
    struct metrics_series *how[3];
};

enum how { HOW_QUERY, HOW_FLIGHT, HOW_RECENT };

/* --- the value -------------------------------------------------------------------------------- */

struct seatmap *seatmap_ref(struct seatmap *seatmap)
{
    seatmap->refs++;
    return seatmap;
}

void seatmap_unref(void *object)
{
    struct seatmap *seatmap = object;
    if (!seatmap || --seatmap->refs > 0)
        return;
    for (int i = 0; i < SEATMAP_FORMS; i++)
        free(seatmap->bodies[i].data);
    free((char *)seatmap->states);
    free(seatmap);
}

static uint64_t hash_states(const struct seatmap *seatmap, size_t len)
{
    uint64_t hash = hash_u64((uint64_t)(uint32_t)seatmap->rows << 32 | (uint32_t)seatmap->cols);
    size_t i = 0;
    for (; i + 8 <= len; i += 8) {
        uint64_t word;
        memcpy(&word, seatmap->states + i, 8);
        hash = hash_u64(hash ^ word);
    }
    return hash_bytes(hash, seatmap->states + i, len - i);
}

static void mark(char *states, size_t len, const int32_t *seats, size_t count, char state)
{
    for (size_t i = 0; i < count; i++) {
        if (seats[i] >= 0 && (size_t)seats[i] < len)
            states[seats[i]] = state;
    }
}

struct seatmap *seatmap_new(int64_t event_id, int32_t rows, int32_t cols, const int32_t *booked,
                            size_t booked_count, const int32_t *held, size_t held_count)
{
    struct seatmap *seatmap = calloc(1, sizeof(*seatmap));
    size_t len = (size_t)rows * (size_t)cols;
    char *states = malloc(len + 1);
    if (!seatmap || !states) {
        free(seatmap);
        free(states);
        return NULL;
    }
    memset(states, '.', len);
    states[len] = '\0';
    mark(states, len, held, held_count, 'h');
    mark(states, len, booked, booked_count, 'x');
    *seatmap = (struct seatmap){
        .event_id = event_id, .rows = rows, .cols = cols, .states = states, .refs = 1};
    seatmap->hash = hash_states(seatmap, len);
    return seatmap;
}

static int32_t read_i32(const char *bytes)
{
    uint32_t wire;
    memcpy(&wire, bytes, sizeof(wire));
    return (int32_t)ntohl(wire);
}

bool seatmap_decode_ints(const char *bytes, size_t len, int32_t **ret_values, size_t *ret_count)
{
    if (len < 12 || read_i32(bytes + 8) != INT4_OID)
        return false;
    int32_t dimensions = read_i32(bytes);
    if (dimensions == 0) {
        *ret_values = NULL;
        *ret_count = 0;
        return true;
    }
    if (dimensions != 1 || len < 20)
        return false;
    int32_t count = read_i32(bytes + 12);
    if (count < 0 || (len - 20) / 8 != (size_t)count || (len - 20) % 8 != 0)
        return false; /* a NULL among them is shorter, and none is expected */
    int32_t *values = malloc(sizeof(*values) * (count ? (size_t)count : 1));
    if (!values)
        return false;
    const char *at = bytes + 20;
    for (int32_t i = 0; i < count; i++, at += 8) {
        if (read_i32(at) != 4) {
            free(values);
            return false;
        }
        values[i] = read_i32(at + 4);
    }
    *ret_values = values;
    *ret_count = (size_t)count;
    return true;
}

enum seatmap_column { COL_ROWS, COL_COLS, COL_BOOKED, COL_HELD };

static bool column_ints(const PGresult *rows, int column, int32_t **ret_values, size_t *ret_count)
{
    if (PQgetisnull(rows, 0, column)) {
        *ret_values = NULL;
        *ret_count = 0;
        return true;
    }
    return seatmap_decode_ints(PQgetvalue(rows, 0, column), (size_t)PQgetlength(rows, 0, column),
                               ret_values, ret_count);
}

static struct seatmap *decode(int64_t event_id, const PGresult *rows)
{
    int32_t *booked = NULL;
    int32_t *held = NULL;
    size_t booked_count = 0;
    size_t held_count = 0;
    struct seatmap *seatmap = NULL;
    if (column_ints(rows, COL_BOOKED, &booked, &booked_count) &&
        column_ints(rows, COL_HELD, &held, &held_count))
        seatmap = seatmap_new(event_id, read_i32(PQgetvalue(rows, 0, COL_ROWS)),
                              read_i32(PQgetvalue(rows, 0, COL_COLS)), booked, booked_count, held,
                              held_count);
    free(booked);
    free(held);
    return seatmap;
}

/* --- entries ---------------------------------------------------------------------------------- */

static size_t bucket_of(int64_t event_id)
{
    return hash_u64((uint64_t)event_id) & (BUCKETS - 1);
}

static struct entry *entry_find(struct seatmaps *seatmaps, int64_t event_id)
{
    struct entry *entry;
    LIST_FOREACH (entry, &seatmaps->buckets[bucket_of(event_id)], bucket) {
        if (entry->event_id == event_id)
            return entry;
    }
    return NULL;
}

static struct entry *entry_new(struct seatmaps *seatmaps, int64_t event_id, bool shared)
{
    struct entry *entry = calloc(1, sizeof(*entry));
    if (!entry)
        return NULL;
    entry->owner = seatmaps;
    entry->event_id = event_id;
    entry->shared = shared;
    STAILQ_INIT(&entry->waiters);
    if (shared)
        LIST_INSERT_HEAD(&seatmaps->buckets[bucket_of(event_id)], entry, bucket);
    return entry;
}

static size_t bytes_of(const struct seatmap *seatmap)
{
    return 2 * (size_t)seatmap->rows * (size_t)seatmap->cols; /* the states, and about a body */
}

static void forget_recent(struct entry *entry)
{
    if (!entry->recent)
        return;
    entry->owner->recent_bytes -= bytes_of(entry->recent);
    TAILQ_REMOVE(&entry->owner->by_age, entry, age);
    seatmap_unref(entry->recent);
    entry->recent = NULL;
}

static void entry_free(struct entry *entry)
{
    forget_recent(entry);
    if (entry->shared)
        LIST_REMOVE(entry, bucket);
    free(entry);
}

static void keep_recent(struct entry *entry, struct seatmap *seatmap, const struct route *route)
{
    forget_recent(entry);
    entry->recent = seatmap_ref(seatmap);
    entry->route = *route;
    entry->owner->recent_bytes += bytes_of(seatmap);
    TAILQ_INSERT_TAIL(&entry->owner->by_age, entry, age);
}

/* Lets go of what is too old or too much. */
static void trim(struct seatmaps *seatmaps, int64_t now_us)
{
    const struct settings *settings = seatmaps->config->settings;
    struct entry *oldest;
    while ((oldest = TAILQ_FIRST(&seatmaps->by_age))) {
        bool old = now_us - oldest->asked_us > settings->reads.seatmap_recent_ms * 1000;
        if (!old && seatmaps->recent_bytes <= (size_t)settings->reads.seatmap_recent_bytes)
            return;
        if (oldest->in_flight)
            forget_recent(oldest);
        else
            entry_free(oldest);
    }
}

/* --- answers ---------------------------------------------------------------------------------- */

/* The age of the answer counts from the moment the database was asked. */
static struct route aged(const struct route *route, int64_t asked_us, int64_t now_us)
{
    struct route result = *route;
    if (result.staleness_us >= 0)
        result.staleness_us += now_us - asked_us;
    return result;
}

static void give(struct waiter *waiter, const struct route *route, enum sg_error error,
                 struct seatmap *seatmap)
{
    struct route own = *route;
    own.map_version = waiter->map_version;
    waiter->fn(waiter->arg, &own, error, seatmap);
    free(waiter);
}

static void on_reply(void *arg, const struct call_reply *reply);

static enum sg_error ask(struct entry *entry, const struct route *route, enum call_target target,
                         int64_t max_staleness_us)
{
    struct seatmaps *seatmaps = entry->owner;
    const struct settings *settings = seatmaps->config->settings;
    struct params *params = malloc(sizeof(*params));
    if (!params)
        return SG_NO_MEMORY;
    params_init(params);
    params_i64(params, entry->event_id);
    struct call_request request = {.route = *route,
                                   .target = target,
                                   .max_staleness_us = max_staleness_us,
                                   .strict = entry->own_bound,
                                   .token = entry->token,
                                   .deadline_ms = settings->reads.deadline_ms,
                                   .statement = STATEMENT_SEATMAP,
                                   .params = params};
    entry->asked_us = clock_mono_us();
    entry->in_flight = true;
    return call_start(seatmaps->calls, &request, on_reply, entry);
}

static bool is_unknown_to_replica(const struct entry *entry, const struct call_reply *reply)
{
    return reply->error == SG_OK && PQntuples(reply->result) == 0 &&
           reply->route->staleness_us != 0 && !entry->asked_primary;
}

static void on_reply(void *arg, const struct call_reply *reply)
{
    struct entry *entry = arg;
    struct seatmaps *seatmaps = entry->owner;
    int64_t now_us = clock_mono_us();
    struct seatmap *seatmap = NULL;
    enum sg_error error = reply->error;
    if (is_unknown_to_replica(entry, reply)) {
        entry->asked_primary = true;
        error = ask(entry, reply->route, CALL_PRIMARY, 0);
        if (error == SG_OK)
            return;
    } else if (error == SG_OK && PQntuples(reply->result) == 0) {
        error = SG_UNKNOWN_EVENT;
    } else if (error == SG_OK && !(seatmap = decode(entry->event_id, reply->result))) {
        error = SG_INTERNAL;
    }

    STAILQ_HEAD(, waiter) waiters = STAILQ_HEAD_INITIALIZER(waiters);
    STAILQ_CONCAT(&waiters, &entry->waiters);
    /* who joined a flight came after the question; who asked for itself did not */
    struct route route =
        entry->shared ? aged(reply->route, entry->asked_us, now_us) : *reply->route;
    entry->in_flight = false;
    if (seatmap && entry->shared && seatmaps->config->settings->reads.seatmap_recent_ms > 0)
        keep_recent(entry, seatmap, reply->route);
    else
        entry_free(entry);
    while (!STAILQ_EMPTY(&waiters)) { /* a callback may ask again: the entry is settled by now */
        struct waiter *waiter = STAILQ_FIRST(&waiters);
        STAILQ_REMOVE_HEAD(&waiters, link);
        give(waiter, &route, error, seatmap);
    }
    seatmap_unref(seatmap);
    trim(seatmaps, now_us);
}

static void on_deliver(evutil_socket_t fd, short what, void *arg)
{
    struct seatmaps *seatmaps = arg;
    STAILQ_HEAD(, due) batch = STAILQ_HEAD_INITIALIZER(batch);
    (void)fd;
    (void)what;
    STAILQ_CONCAT(&batch, &seatmaps->due);
    while (!STAILQ_EMPTY(&batch)) {
        struct due *due = STAILQ_FIRST(&batch);
        STAILQ_REMOVE_HEAD(&batch, link);
        give(due->waiter, &due->route, SG_OK, due->seatmap);
        seatmap_unref(due->seatmap);
        free(due);
    }
}

static bool deliver_recent(struct seatmaps *seatmaps, const struct entry *entry,
                           struct waiter *waiter, int64_t now_us)
{
    struct due *due = malloc(sizeof(*due));
    if (!due)
        return false;
    *due = (struct due){.waiter = waiter,
                        .seatmap = seatmap_ref(entry->recent),
                        .route = aged(&entry->route, entry->asked_us, now_us)};
    if (STAILQ_EMPTY(&seatmaps->due))
        event_active(seatmaps->deliver, EV_TIMEOUT, 0);
    STAILQ_INSERT_TAIL(&seatmaps->due, due, link);
    return true;
}

static bool is_recent(const struct seatmaps *seatmaps, const struct entry *entry,
                      int64_t max_staleness_us, int64_t now_us)
{
    if (!entry || !entry->recent ||
        now_us - entry->asked_us > seatmaps->config->settings->reads.seatmap_recent_ms * 1000)
        return false;
    struct route route = aged(&entry->route, entry->asked_us, now_us);
    return max_staleness_us < 0 ||
           (route.staleness_us >= 0 && route.staleness_us <= max_staleness_us);
}

enum sg_error seatmaps_get(struct seatmaps *seatmaps, const struct route *route, int64_t event_id,
                           int64_t max_staleness_us, const struct read_token *token,
                           router_seatmap_fn *fn, void *arg)
{
    int64_t now_us = clock_mono_us();
    bool own_bound = max_staleness_us >= 0;
    bool alone = own_bound || token;
    struct entry *entry = entry_find(seatmaps, event_id);
    struct waiter *waiter = malloc(sizeof(*waiter));
    if (!waiter)
        return SG_NO_MEMORY;
    *waiter = (struct waiter){.fn = fn, .arg = arg, .map_version = route->map_version};

    if (!token && is_recent(seatmaps, entry, max_staleness_us, now_us)) {
        metrics_add(seatmaps->how[HOW_RECENT], 1);
        if (deliver_recent(seatmaps, entry, waiter, now_us))
            return SG_OK;
        free(waiter);
        return SG_NO_MEMORY;
    }
    if (entry && entry->in_flight && !alone) {
        metrics_add(seatmaps->how[HOW_FLIGHT], 1);
        STAILQ_INSERT_TAIL(&entry->waiters, waiter, link);
        return SG_OK;
    }
    if (!entry || alone)
        entry = entry_new(seatmaps, event_id, !alone);
    if (!entry) {
        free(waiter);
        return SG_NO_MEMORY;
    }
    forget_recent(entry);
    entry->own_bound = own_bound;
    if (token)
        entry->token = *token;
    STAILQ_INSERT_TAIL(&entry->waiters, waiter, link);
    int64_t default_us = seatmaps->config->settings->reads.max_staleness_ms * 1000;
    entry->asked_primary = false;
    enum sg_error error = ask(entry, route, CALL_READ, own_bound ? max_staleness_us : default_us);
    if (error != SG_OK) {
        free(waiter);
        entry_free(entry);
        return error;
    }
    metrics_add(seatmaps->how[HOW_QUERY], 1);
    return SG_OK;
}

/* --- life ------------------------------------------------------------------------------------- */

struct seatmaps *seatmaps_new(const struct router_config *config, struct calls *calls)
{
    static const char *const names[] = {"query", "flight", "recent"};
    struct seatmaps *seatmaps = calloc(1, sizeof(*seatmaps));
    if (!seatmaps)
        return NULL;
    seatmaps->config = config;
    seatmaps->calls = calls;
    TAILQ_INIT(&seatmaps->by_age);
    STAILQ_INIT(&seatmaps->due);
    seatmaps->deliver = event_new(config->base, -1, 0, on_deliver, seatmaps);
    if (!seatmaps->deliver) {
        free(seatmaps);
        return NULL;
    }
    for (int i = 0; i < 3; i++)
        seatmaps->how[i] = metrics_series(config->metrics, METRIC_SEATMAP_SHARED, &names[i]);
    return seatmaps;
}

void seatmaps_free(struct seatmaps *seatmaps)
{
    struct entry *entry;
    if (!seatmaps)
        return;
    on_deliver(-1, 0, seatmaps);
    while ((entry = TAILQ_FIRST(&seatmaps->by_age)))
        entry_free(entry);
    event_free(seatmaps->deliver);
    free(seatmaps);
}
