/*
 * What differs between two shard maps: which event ids change hands, which shards and nodes come,
 * go or change. Pure: two maps in, a list out.
 *
 *   old map ─┐
 *            ├─ shardmap_diff_new ─> moves (ids, from, to) ─┬─> shardmap_lost: what to ask a shard
 *   new map ─┘                       changes (servers) ─────┴─> text for people, JSON for programs
 *
 * Called by reload (which asks the shards about what they would lose) and by `seatgrid map diff`.
 * The diff owns copies of all its names: both maps may go before it does. It holds no connection
 * strings, so it can be shown and logged. Hides how ranges and pins are overlaid.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_SHARDMAP_DIFF_H
#define SG_SHARDMAP_DIFF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct dynbuf;
struct shardmap;

/* Both ends inclusive. */
struct shardmap_interval {
    int64_t first;
    int64_t last;
};

/* Ids whose owner differs, pins included. Both ends inclusive; from and to are never equal. */
struct shardmap_move {
    int64_t first;
    int64_t last;
    const char *from; /* shard in the old map; NULL: none held these ids */
    const char *to;   /* shard in the new map; NULL: none holds them any more */
};

enum shardmap_change_kind {
    SHARDMAP_SHARD_ADDED,
    SHARDMAP_SHARD_REMOVED,
    SHARDMAP_NODE_ADDED,
    SHARDMAP_NODE_REMOVED,
    SHARDMAP_NODE_MOVED, /* the same node name under another shard */
    SHARDMAP_NODE_DSN,   /* the same node name with another connection string */
    SHARDMAP_DURABILITY  /* of a shard that both maps have */
};

struct shardmap_change {
    enum shardmap_change_kind kind;
    const char *shard;      /* in the new map; in the old one for _REMOVED */
    const char *node;       /* NULL for SHARDMAP_SHARD_* and SHARDMAP_DURABILITY */
    const char *old_shard;  /* SHARDMAP_NODE_MOVED only, else NULL */
    const char *durability; /* SHARDMAP_DURABILITY only, else NULL: the new one, static */
};

struct shardmap_diff {
    int64_t old_version;
    int64_t new_version;
    struct shardmap_move *moves; /* ascending, disjoint, merged where from and to are the same */
    size_t move_count;
    struct shardmap_change *changes; /* removals first, then additions and alterations, map order */
    size_t change_count;
    char *names; /* where the names above live */
};

/* Compares. Shards and nodes are the same if their names are. SG_OK or SG_NO_MEMORY. The caller
 * frees *ret_diff with shardmap_diff_free. */
enum sg_error shardmap_diff_new(const struct shardmap *old_map, const struct shardmap *new_map,
                                struct shardmap_diff **ret_diff);
void shardmap_diff_free(void *diff); /* void, so that it serves as a free_fn; NULL is fine */

/* True if both maps send every id to the same shard, name the same servers and promise the same. */
bool shardmap_diff_empty(const struct shardmap_diff *diff);

/* The ids that `shard` owns in the old map and not in the new one: ascending, disjoint, adjacent
 * ones merged whoever gets them. *ret_intervals is malloc'ed, NULL when *ret_count is 0; the caller
 * frees it. SG_OK or SG_NO_MEMORY. An event that exists there would be stranded. */
enum sg_error shardmap_lost(const struct shardmap_diff *diff, const char *shard,
                            struct shardmap_interval **ret_intervals, size_t *ret_count);

/* "shard_added", "shard_removed", "node_added", "node_removed", "node_moved", "node_dsn",
 * "durability" */
const char *shardmap_change_name(enum shardmap_change_kind kind);

/* For people: lines of at most 80 columns (names of usual length), each ended by a newline. */
void shardmap_diff_text(const struct shardmap_diff *diff, struct dynbuf *out);
/* One object: {"oldVersion":1,"newVersion":2,"moves":[{"first":1,"last":9,"from":"alpha",
 * "to":null}],"changes":[{"kind":"node_added","shard":"alpha","node":"alpha-3"}]} */
void shardmap_diff_json(const struct shardmap_diff *diff, struct dynbuf *out);

#endif
