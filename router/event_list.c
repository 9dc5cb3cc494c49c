/*
 * The list of events over all shards: every shard is asked for its next `limit` events at once, and
 * what comes back is merged by id.
 *
 *   event_list_start ─┬─> shard 1 ─┐
 *                ├─> shard 2 ─┼─> all in: merge, cut at limit ─> fn
 *                └─> shard n ─┘   (a shard that does not answer is named as missing)
 *
 * A shard whose counters Redis keeps is asked without the count, and Redis for the events that
 * came; if it does not know all of them, the shard is asked again, with the count.
 *
 * SPDX-License-Identifier: MIT
 */
#include "router/lookups.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/settings.h"
#include "router/event_rows.h"
#include "router/params.h"
#include "router/topology.h"

struct list;

struct list_shard {
    struct list *list;
    char name[SHARDMAP_NAME_MAX + 1];
    struct event_info *events; /* one block with all that they point to */
    size_t count;
    size_t next; /* during the merge */
    struct freshness fresh;
    struct route route; /* who answered */
    bool counted_by_redis;
    bool missing;
};

struct list {
    const struct router_config *config;
    struct calls *calls;
    struct counters *counters; /* NULL: none */
    int64_t after_id;
    int64_t deadline_us;
    router_events_fn *fn;
    void *arg;
    size_t limit;
    int64_t map_version;
    size_t waiting; /* shards that have not answered */
    size_t shard_count;
    struct list_shard shards[];
};

static void list_free(struct list *list)
{
    for (size_t i = 0; i < list->shard_count; i++)
        free(list->shards[i].events);
    free(list);
}

/* Copies the rows: the result goes away before the last shard has answered. */
static bool keep_rows(struct list_shard *shard, const PGresult *rows)
{
    shard->events = event_rows_read(rows, shard->name);
    shard->count = shard->events ? (size_t)PQntuples(rows) : 0;
    return shard->events != NULL;
}

/* The shard whose next event has the lowest id, or NULL at the end. */
static struct list_shard *lowest(struct list *list)
{
    struct list_shard *best = NULL;
    for (size_t i = 0; i < list->shard_count; i++) {
        struct list_shard *shard = &list->shards[i];
        if (shard->next < shard->count &&
            (!best || shard->events[shard->next].event_id < best->events[best->next].event_id))
            best = shard;
    }
    return best;
}

/* A copy of an event that a moved range left behind on another shard is shown once. */
static size_t merge(struct list *list, struct event_info *ret_events)
{
    size_t count = 0;
    struct list_shard *shard;
    while (count < list->limit && (shard = lowest(list))) {
        const struct event_info *event = &shard->events[shard->next++];
        if (count == 0 || ret_events[count - 1].event_id != event->event_id)
            ret_events[count++] = *event;
    }
    return count;
}

static void finish(struct list *list)
{
    struct event_info *events = calloc(list->limit, sizeof(*events));
    const char **missing = calloc(list->shard_count, sizeof(*missing));
    struct route *sources = calloc(list->shard_count, sizeof(*sources));
    struct event_page page = {.events = events,
                              .missing_shards = missing,
                              .sources = sources,
                              .map_version = list->map_version};
    enum sg_error error = events && missing && sources ? SG_OK : SG_NO_MEMORY;
    for (size_t i = 0; error == SG_OK && i < list->shard_count; i++) {
        if (list->shards[i].missing)
            missing[page.missing_count++] = list->shards[i].name;
        else
            sources[page.source_count++] = list->shards[i].route;
    }
    if (error == SG_OK && page.missing_count == list->shard_count)
        error = SG_SHARD_UNAVAILABLE;
    if (error == SG_OK) {
        page.event_count = merge(list, events);
        page.more = lowest(list) != NULL;
    }
    list->fn(list->arg, error, &page);
    free(events);
    free(missing);
    free(sources);
    list_free(list);
}

static void settle(struct list_shard *shard, bool missing)
{
    shard->missing = missing;
    if (--shard->list->waiting == 0)
        finish(shard->list);
}

static enum sg_error ask(struct list_shard *shard);

/* As the shard was asked without the count, so again with it. */
static void ask_with_count(struct list_shard *shard)
{
    free(shard->events);
    shard->events = NULL;
    shard->count = 0;
    shard->counted_by_redis = false;
    if (ask(shard) != SG_OK)
        settle(shard, true);
}

static void on_counts(void *arg, const struct event_counts *counts, size_t count)
{
    struct list_shard *shard = arg;
    for (size_t i = 0; i < count; i++) {
        struct event_info *event = &shard->events[i];
        if (!counts[i].known || counts[i].rows != event->rows || counts[i].cols != event->cols) {
            ask_with_count(shard);
            return;
        }
        event->available = counts[i].available;
    }
    shard->route.staleness_us = STALENESS_UNKNOWN; /* as Redis' age is not known */
    settle(shard, false);
}

static bool ask_redis(struct list_shard *shard)
{
    struct list *list = shard->list;
    int64_t *ids = malloc(shard->count * sizeof(*ids));
    if (!ids)
        return false;
    for (size_t i = 0; i < shard->count; i++)
        ids[i] = shard->events[i].event_id;
    enum sg_error error =
        counters_events(list->counters, shard->name, ids, shard->count, on_counts, shard);
    free(ids);
    return error == SG_OK;
}

static void on_shard(void *arg, const struct call_reply *reply)
{
    struct list_shard *shard = arg;
    shard->route = *reply->route;
    if (reply->error != SG_OK || !keep_rows(shard, reply->result))
        settle(shard, true);
    else if (!shard->counted_by_redis || shard->count == 0)
        settle(shard, false);
    else if (!ask_redis(shard))
        ask_with_count(shard);
}

static enum sg_error ask(struct list_shard *shard)
{
    const struct list *list = shard->list;
    struct params *params = malloc(sizeof(*params));
    if (!params)
        return SG_NO_MEMORY;
    params_init(params);
    params_i64(params, list->after_id);
    params_i64(params, (int64_t)list->limit + 1);
    int64_t left_ms = (list->deadline_us - clock_mono_us()) / 1000;
    struct call_request request = {.target = CALL_READ,
                                   .fresh = shard->fresh,
                                   .deadline_ms = left_ms > 0 ? left_ms : 0,
                                   .statement = shard->counted_by_redis ? STATEMENT_EVENTS_PLAIN
                                                                        : STATEMENT_EVENTS,
                                   .params = params};
    memcpy(request.route.shard, shard->name, sizeof(shard->name));
    request.route.map_version = list->map_version;
    return call_start(list->calls, &request, on_shard, shard);
}

enum sg_error event_list_start(const struct router_config *config, struct calls *calls,
                               struct counters *counters, const struct shardmap *map,
                               int64_t after_id, size_t limit, const struct read_wish *wish,
                               router_events_fn *fn, void *arg)
{
    size_t count = shardmap_shard_count(map);
    struct list *list = calloc(1, sizeof(*list) + count * sizeof(list->shards[0]));
    enum sg_error error = SG_OK;
    if (!list)
        return SG_NO_MEMORY;
    list->config = config;
    list->calls = calls;
    list->counters = counters;
    list->after_id = after_id;
    list->deadline_us = clock_mono_us() + config->settings->reads.deadline_ms * 1000;
    list->fn = fn;
    list->arg = arg;
    list->limit = limit;
    list->map_version = shardmap_version(map);
    list->shard_count = count;
    for (size_t i = 0; i < count; i++) {
        struct list_shard *shard = &list->shards[i];
        shard->list = list;
        snprintf(shard->name, sizeof(shard->name), "%s", shardmap_shard(map, (int)i)->name);
        shard->fresh =
            freshness_of(wish, shard->name, config->settings->reads.max_staleness_ms * 1000);
        int64_t generation;
        shard->counted_by_redis = counters && !freshness_is_asked(&shard->fresh) &&
                                  counters_live(counters, shard->name, &generation);
        enum sg_error refused = ask(shard);
        if (refused == SG_OK)
            list->waiting++;
        else
            error = refused;
        shard->missing = refused != SG_OK;
    }
    if (list->waiting == 0) {
        list_free(list);
        return error == SG_OK ? SG_SHARD_UNAVAILABLE : error;
    }
    return SG_OK;
}
