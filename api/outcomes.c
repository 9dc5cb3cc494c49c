/*
 * Answers counted. See outcomes.h.
 *
 * Open addressing with linear probing; the table doubles at three quarters, up to ENTRIES_MAX. Past
 * that the registry is asked each time, which is slower and just as right.
 *
 * SPDX-License-Identifier: MIT
 */
#include "api/outcomes.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/metrics.h"
#include "shardmap/shardmap.h"

#define ENTRIES_MIN 64 /* power of two */
#define ENTRIES_MAX 1024

struct entry {
    const char *route; /* NULL: free */
    int outcome;
    char shard[SHARDMAP_NAME_MAX + 1];
    char node[SHARDMAP_NAME_MAX + 1];
    struct metrics_series *requests;
    struct metrics_series *duration;
};

struct outcomes {
    struct metrics_set *metrics;
    struct entry *entries;
    size_t size; /* power of two */
    size_t used;
};

struct outcomes *outcomes_new(struct metrics_set *metrics)
{
    struct outcomes *outcomes = calloc(1, sizeof(*outcomes));
    if (!outcomes)
        return NULL;
    outcomes->metrics = metrics;
    outcomes->size = ENTRIES_MIN;
    outcomes->entries = calloc(ENTRIES_MIN, sizeof(*outcomes->entries));
    if (!outcomes->entries) {
        free(outcomes);
        return NULL;
    }
    return outcomes;
}

void outcomes_free(struct outcomes *outcomes)
{
    if (!outcomes)
        return;
    free(outcomes->entries);
    free(outcomes);
}

const char *outcome_name(int outcome)
{
    if (outcome == OUTCOME_REPLAYED)
        return "replayed";
    if (outcome == OUTCOME_NOT_MODIFIED)
        return "not_modified";
    if (outcome == OUTCOME_ACCEPTED)
        return "accepted";
    return sg_error_code((enum sg_error)outcome);
}

static size_t hash_text(size_t hash, const char *text)
{
    for (; *text; text++)
        hash = (hash ^ (unsigned char)*text) * 1099511628211u;
    return (hash ^ 0xff) * 1099511628211u;
}

/* The entry of these values, or the free one where it belongs. */
static struct entry *find(const struct outcomes *outcomes, const char *route, const char *shard,
                          const char *node, int outcome)
{
    size_t hash = hash_text(hash_text((uintptr_t)route + (size_t)outcome, shard), node);
    for (size_t i = hash ^ hash >> 32;; i++) {
        struct entry *entry = &outcomes->entries[i & (outcomes->size - 1)];
        if (!entry->route)
            return entry;
        if (entry->route == route && entry->outcome == outcome &&
            strcmp(entry->shard, shard) == 0 && strcmp(entry->node, node) == 0)
            return entry;
    }
}

/* Doubles the table; the old one stays if memory runs out. */
static void grow(struct outcomes *outcomes)
{
    struct outcomes bigger = *outcomes;
    bigger.size = outcomes->size * 2;
    bigger.entries = calloc(bigger.size, sizeof(*bigger.entries));
    if (!bigger.entries)
        return;
    for (size_t i = 0; i < outcomes->size; i++) {
        const struct entry *old = &outcomes->entries[i];
        if (old->route)
            *find(&bigger, old->route, old->shard, old->node, old->outcome) = *old;
    }
    free(outcomes->entries);
    outcomes->entries = bigger.entries;
    outcomes->size = bigger.size;
}

static void fill(struct outcomes *outcomes, struct entry *ret_entry, const char *route,
                 const char *shard, const char *node, int outcome)
{
    const char *const labels[] = {route, shard, node, outcome_name(outcome)};
    ret_entry->route = route;
    ret_entry->outcome = outcome;
    strncpy(ret_entry->shard, shard, SHARDMAP_NAME_MAX);
    strncpy(ret_entry->node, node, SHARDMAP_NAME_MAX);
    ret_entry->requests = metrics_series(outcomes->metrics, METRIC_HTTP_REQUESTS, labels);
    ret_entry->duration = metrics_series(outcomes->metrics, METRIC_HTTP_DURATION, labels);
}

void outcomes_count(struct outcomes *outcomes, const char *route, const char *shard,
                    const char *node, int outcome, int64_t duration_us)
{
    struct entry unkept = {0};
    struct entry *entry = find(outcomes, route, shard, node, outcome);
    if (!entry->route) {
        if (outcomes->used * 4 >= outcomes->size * 3 && outcomes->size < ENTRIES_MAX) {
            grow(outcomes);
            entry = find(outcomes, route, shard, node, outcome);
        }
        if (outcomes->used * 4 >= outcomes->size * 3)
            entry = &unkept;
        else
            outcomes->used++;
        fill(outcomes, entry, route, shard, node, outcome);
    }
    metrics_add(entry->requests, 1);
    metrics_observe_us(entry->duration, duration_us);
}
