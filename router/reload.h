/*
 * Reload of the shard map, while serving: a list of steps with one driver.
 *
 *   load ─> compare ─> ask the shards ─> judge ─> publish ─> done
 *    │         │                           │
 *    └─────────┴── refused or unchanged ───┴─ dry run ─────> done
 *
 * Runs on the control thread, which is the only publisher of maps. One reload at a time. A map that
 * is refused changes nothing. Requests in flight end on the map they began with: that is the
 * snapshot's doing (base/snapshot.h).
 *
 * Refused is a map that does not load, that differs without a higher map_version, that makes two
 * shards of one PostgreSQL, or that would strand events which exist. Only the last can be forced.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_ROUTER_RELOAD_H
#define SG_ROUTER_RELOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "router/reload_ask.h"

struct event_base;
struct metrics_set;
struct reap_list;
struct reload;
struct settings;
struct shardmap_diff;
struct snapshot_reader;
struct snapshot_slot;

enum reload_outcome {
    RELOAD_PUBLISHED,
    RELOAD_UNCHANGED, /* the file says what is published already */
    RELOAD_DRY_RUN,   /* would be published */
    RELOAD_REFUSED
};

/* Valid during the callback. */
struct reload_report {
    enum reload_outcome outcome;
    bool dry_run;
    bool forced; /* published, or would be, against the objections in `warnings` */
    int64_t old_version;
    int64_t new_version;              /* 0: the file could not be loaded */
    const char *errors;               /* refused: why, one a line; as the map loader says it. "" */
    const char *warnings;             /* one a line; "" */
    const struct shardmap_diff *diff; /* NULL: not loaded */
    const struct reload_stranded *const *stranded; /* ends with NULL */
    int64_t parse_us;
    int64_t ask_us;
    int64_t publish_us;
};

typedef void reload_fn(void *arg, const struct reload_report *report);

/* All borrowed, outliving the object. */
struct reload_config {
    const struct settings *settings; /* shard_map, reload.ask_timeout_ms */
    struct event_base *base;
    struct reap_list *reap;
    struct metrics_set *metrics;
    struct snapshot_reader *publisher;      /* of the control thread */
    struct snapshot_slot *maps;             /* struct shardmap; published before reload_new */
    const struct snapshot_slot *topologies; /* struct topology; may be NULL: nothing is known */
    /* A new map was just published: tell health and the workers. May be NULL. */
    void (*on_published)(void *arg);
    void *arg;
};

/* NULL when memory runs out. */
struct reload *reload_new(const struct reload_config *config);
/* A reload under way ends as refused, its callback runs first. */
void reload_free(struct reload *reload);

/* Reads settings.shard_map anew. SG_OK: fn (may be NULL) runs exactly once, later. Refuses:
 * SG_RELOAD_BUSY. The outcome is logged and counted here. */
enum sg_error reload_start(struct reload *reload, bool dry_run, bool force, reload_fn *fn,
                           void *arg);

/* "published", "unchanged", "dry_run", "refused" */
const char *reload_outcome_name(enum reload_outcome outcome);

#endif
