/*
 * Seat maps. See seatmaps.h.
 *
 *   request ─> entry of the event: recent enough? ── yes ──> answered at the next turn of the loop
 *                 │ no
 *                 └─> in flight? ── yes ──> waits with the others
 *                        │ no
 *                        └─> call, then all who wait are answered, and it stays for a moment
 *
 * A reader with a bound of its own asks for itself. One with a token shares with others, too: each
 * query asks the node for its position first, so of each seat map is known what it surely contains.
 * If that is not enough for the token, its reader asks once more, alone, and brings the token.
 * Whose query it was is content with the primary's answer: what they brought is older than the
 * question.
 *
 * Each answer tells a token of its own (route.seen), which stays with the seat map: who carries it
 * to the next read never sees time go backwards, whichever replicas answer. The one thing that it
 * cannot promise is beyond PostgreSQL: a standby may show a commit a moment before its own primary
 * does.
 *
 * An event that a replica does not know may be too young for it: the primary is asked once more
 * before it is said that there is none.
 *
 * SPDX-License-Identifier: MIT
 */
#include "router/seatmaps.h"

#include <arpa/inet.h>
#include <event2/event.h>
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
    struct read_token token; /* lsn 0: none */
};

STAILQ_HEAD(waiter_list, waiter);

/* An event somebody reads: in flight, or recently read, or both. */
struct entry {
    LIST_ENTRY(entry) bucket;
    TAILQ_ENTRY(entry) age; /* oldest first, while `recent` is kept */
    struct seatmaps *owner;
    int64_t event_id;
    bool in_flight;
    bool asked_primary; /* the call in flight is the second one, of the primary */
    bool shared;        /* in its bucket; false: one reader who asks alone */
    struct freshness fresh;
    struct waiter_list waiters;
    int64_t asked_us; /* when the query for `recent` or the one in flight was asked */
    struct seatmap *recent;
    struct route route;         /* of `recent` */
    struct read_token position; /* what `recent` surely contains */
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

enum seatmap_column { COL_ROWS, COL_COLS, COL_BOOKED, COL_HELD, COL_SEEN };

/* A pg_lsn on the wire; 0 for NULL. */
static uint64_t column_lsn(const PGresult *rows, int column)
{
    const char *bytes = PQgetvalue(rows, 0, column);
    if (PQgetlength(rows, 0, column) != 8)
        return 0;
    return (uint64_t)(uint32_t)read_i32(bytes) << 32 | (uint32_t)read_i32(bytes + 4);
}

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

static void keep_recent(struct entry *entry, struct seatmap *seatmap, const struct route *route,
                        const struct read_token *position)
{
    forget_recent(entry);
    entry->recent = seatmap_ref(seatmap);
    entry->route = *route;
    entry->position = *position;
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

static enum sg_error ask(struct entry *entry, const struct route *route, enum call_target target)
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
                                   .fresh = entry->fresh,
                                   .ask_position = true,
                                   .deadline_ms = settings->reads.deadline_ms,
                                   .statement = STATEMENT_SEATMAP,
                                   .params = params};
    entry->asked_us = clock_mono_us();
    enum sg_error error = call_start(seatmaps->calls, &request, on_reply, entry);
    entry->in_flight = error == SG_OK;
    return error;
}

static bool is_unknown_to_replica(const struct entry *entry, const struct call_reply *reply)
{
    return reply->error == SG_OK && PQntuples(reply->result) == 0 && !reply->from_primary &&
           !entry->asked_primary;
}

static enum sg_error ask_alone(struct seatmaps *seatmaps, const struct route *route,
                               int64_t event_id, const struct freshness *fresh,
                               struct waiter *waiter);

static bool covers(const struct read_token *position, const struct read_token *token)
{
    return token->lsn == 0 || route_covers(position->timeline, position->lsn, token);
}

/* All who waited: with the answer, or, where they shared one that is older than their token, on
 * their own. */
static void give_all(struct seatmaps *seatmaps, struct waiter_list *waiters,
                     const struct route *route, const struct call_reply *reply, bool shared,
                     enum sg_error error, struct seatmap *seatmap)
{
    struct freshness fresh =
        freshness_of(NULL, route->shard, seatmaps->config->settings->reads.max_staleness_ms * 1000);
    bool asker = true;               /* the first one */
    while (!STAILQ_EMPTY(waiters)) { /* a callback may ask again: the entry is settled by now */
        struct waiter *waiter = STAILQ_FIRST(waiters);
        STAILQ_REMOVE_HEAD(waiters, link);
        bool content =
            !shared || covers(&reply->position, &waiter->token) ||
            (asker && reply->from_primary && reply->position.timeline >= waiter->token.timeline);
        enum sg_error own_error = error;
        asker = false;
        if (seatmap && !content) {
            fresh.token = waiter->token;
            own_error = ask_alone(seatmaps, route, seatmap->event_id, &fresh, waiter);
            if (own_error == SG_OK)
                continue;
        }
        give(waiter, route, own_error, own_error == SG_OK ? seatmap : NULL);
    }
}

/* Takes what a reader who asked alone was given for the event's own entry. */
static void hand_over(const struct entry *entry, struct seatmap *seatmap, const struct route *route,
                      const struct read_token *position)
{
    struct seatmaps *seatmaps = entry->owner;
    struct entry *common = entry_find(seatmaps, entry->event_id);
    if (!common)
        common = entry_new(seatmaps, entry->event_id, true);
    if (!common || common->in_flight || (common->recent && !covers(position, &common->position)))
        return;
    common->asked_us = entry->asked_us;
    keep_recent(common, seatmap, route, position);
}

/* What a reader without a bound was given may serve others, too, for a moment. */
static void settle(struct entry *entry, struct seatmap *seatmap, const struct route *route,
                   const struct read_token *position)
{
    bool keep = seatmap && !entry->fresh.own_bound &&
                entry->owner->config->settings->reads.seatmap_recent_ms > 0;
    entry->in_flight = false;
    if (keep && entry->shared) {
        keep_recent(entry, seatmap, route, position);
        return;
    }
    if (keep)
        hand_over(entry, seatmap, route, position);
    entry_free(entry);
}

static void on_reply(void *arg, const struct call_reply *reply)
{
    struct entry *entry = arg;
    struct seatmaps *seatmaps = entry->owner;
    int64_t now_us = clock_mono_us();
    struct seatmap *seatmap = NULL;
    struct route route = *reply->route;
    enum sg_error error = reply->error;
    if (is_unknown_to_replica(entry, reply)) {
        entry->asked_primary = true;
        error = ask(entry, reply->route, CALL_PRIMARY);
        if (error == SG_OK)
            return;
    } else if (error == SG_OK && PQntuples(reply->result) == 0) {
        error = SG_UNKNOWN_EVENT;
    } else if (error == SG_OK && !(seatmap = decode(entry->event_id, reply->result))) {
        error = SG_INTERNAL;
    }

    struct waiter_list waiters = STAILQ_HEAD_INITIALIZER(waiters);
    STAILQ_CONCAT(&waiters, &entry->waiters);
    if (seatmap)
        route.seen.lsn = column_lsn(reply->result, COL_SEEN);
    /* who joined a flight came after the question; who asked for itself did not */
    bool shared = entry->shared;
    struct route told = shared ? aged(&route, entry->asked_us, now_us) : route;
    settle(entry, seatmap, &route, &reply->position);
    give_all(seatmaps, &waiters, &told, reply, shared, error, seatmap);
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
                      const struct freshness *fresh, int64_t now_us)
{
    if (!entry || !entry->recent || !covers(&entry->position, &fresh->token) ||
        now_us - entry->asked_us > seatmaps->config->settings->reads.seatmap_recent_ms * 1000)
        return false;
    struct route route = aged(&entry->route, entry->asked_us, now_us);
    return !fresh->own_bound ||
           (route.staleness_us >= 0 && route.staleness_us <= fresh->max_staleness_us);
}

/* Asks in the name of the entry, which is new or settled. Neither it nor the waiter is kept if that
 * fails. */
static enum sg_error begin(struct entry *entry, const struct route *route, struct waiter *waiter)
{
    forget_recent(entry);
    entry->asked_primary = false;
    enum sg_error error = ask(entry, route, CALL_READ);
    if (error != SG_OK) {
        entry_free(entry);
        return error;
    }
    STAILQ_INSERT_TAIL(&entry->waiters, waiter, link);
    metrics_add(entry->owner->how[HOW_QUERY], 1);
    return SG_OK;
}

static enum sg_error ask_alone(struct seatmaps *seatmaps, const struct route *route,
                               int64_t event_id, const struct freshness *fresh,
                               struct waiter *waiter)
{
    struct entry *entry = entry_new(seatmaps, event_id, false);
    if (!entry)
        return SG_NO_MEMORY;
    entry->fresh = *fresh;
    return begin(entry, route, waiter);
}

/* The waiter finds what is there, joins who is asking, or asks. */
static enum sg_error serve(struct seatmaps *seatmaps, const struct route *route, int64_t event_id,
                           const struct freshness *fresh, struct waiter *waiter)
{
    int64_t now_us = clock_mono_us();
    struct entry *entry = entry_find(seatmaps, event_id);
    if (is_recent(seatmaps, entry, fresh, now_us)) {
        if (!deliver_recent(seatmaps, entry, waiter, now_us))
            return SG_NO_MEMORY;
        metrics_add(seatmaps->how[HOW_RECENT], 1);
        return SG_OK;
    }
    if (fresh->own_bound)
        return ask_alone(seatmaps, route, event_id, fresh, waiter);
    if (entry && entry->in_flight) {
        metrics_add(seatmaps->how[HOW_FLIGHT], 1);
        STAILQ_INSERT_TAIL(&entry->waiters, waiter, link);
        return SG_OK;
    }
    if (!entry && !(entry = entry_new(seatmaps, event_id, true)))
        return SG_NO_MEMORY;
    entry->fresh = *fresh;
    entry->fresh.token = (struct read_token){.lsn = 0}; /* others are not to wait for it */
    return begin(entry, route, waiter);
}

enum sg_error seatmaps_get(struct seatmaps *seatmaps, const struct route *route, int64_t event_id,
                           const struct read_wish *wish, router_seatmap_fn *fn, void *arg)
{
    struct freshness fresh =
        freshness_of(wish, route->shard, seatmaps->config->settings->reads.max_staleness_ms * 1000);
    struct waiter *waiter = malloc(sizeof(*waiter));
    if (!waiter)
        return SG_NO_MEMORY;
    *waiter = (struct waiter){
        .fn = fn, .arg = arg, .map_version = route->map_version, .token = fresh.token};
    enum sg_error error = serve(seatmaps, route, event_id, &fresh, waiter);
    if (error != SG_OK)
        free(waiter);
    return error;
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
