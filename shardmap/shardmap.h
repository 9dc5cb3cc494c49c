/*
 * The shard map: EventId to shard. Immutable once loaded.
 *
 *   file ── shardmap_load: parse, validate ──> struct shardmap ── publish ──> shardmap_find
 *
 * Called by the router (find), by reload and by the commands check-config and map. Hides how the
 * ranges and pins are searched. Format of the file: configs/shardmap.cfg; rules: DESIGN, section 3.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_SHARDMAP_SHARDMAP_H
#define SG_SHARDMAP_SHARDMAP_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct dynbuf;
struct shardmap;

#define SHARDMAP_NAME_MAX 63 /* bytes of a shard's or node's name: [a-z0-9][a-z0-9_.-]* */

struct shardmap_node {
    char name[SHARDMAP_NAME_MAX + 1];
    char *dsn; /* libpq connection string */
};

/* What an answer to a write promises. */
enum shardmap_durability {
    SHARDMAP_ASYNC, /* the primary has it on disk */
    SHARDMAP_SYNC   /* a standby, too */
};

struct shardmap_shard {
    char name[SHARDMAP_NAME_MAX + 1];
    enum shardmap_durability durability;
    struct shardmap_node *nodes;
    size_t node_count;
};

/* Both ends inclusive; `shard` is an index for shardmap_shard(). */
struct shardmap_range {
    int64_t first;
    int64_t last;
    int shard;
};

struct shardmap_pin {
    int64_t event_id;
    int shard;
};

/* Reads and validates the file. On failure every problem found is in *errors, one a line:
 * "file:line: key: what is wrong; how to mend it". Errors: SG_IO (cannot read), SG_CONFIG_INVALID,
 * SG_NO_MEMORY. The caller frees *ret_map with shardmap_free. */
enum sg_error shardmap_load(const char *path, struct shardmap **ret_map, struct dynbuf *errors);
/* The same from memory; `name` stands for the file in messages. */
enum sg_error shardmap_parse(const char *name, const char *text, struct shardmap **ret_map,
                             struct dynbuf *errors);
void shardmap_free(void *map); /* void, so that it serves as a free_fn */

/* "async", "sync" */
const char *shardmap_durability_name(enum shardmap_durability durability);

/* Index of the shard that owns the event: its pin, else its range; -1 if no range holds it. */
int shardmap_find(const struct shardmap *map, int64_t event_id);

int64_t shardmap_version(const struct shardmap *map);
size_t shardmap_shard_count(const struct shardmap *map);
/* Borrowed from the map. */
const struct shardmap_shard *shardmap_shard(const struct shardmap *map, int shard);
/* Index of the shard of that name, or -1. */
int shardmap_shard_by_name(const struct shardmap *map, const char *name);
/* All ranges in ascending order; borrowed. */
const struct shardmap_range *shardmap_ranges(const struct shardmap *map, size_t *ret_count);
/* All pins in ascending order; borrowed. */
const struct shardmap_pin *shardmap_pins(const struct shardmap *map, size_t *ret_count);

#endif
