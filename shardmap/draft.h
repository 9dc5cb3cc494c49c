/*
 * A shard map on its way from file to use: what was written, and where.
 *
 *   load.c: draft_read ──> struct draft ──> validate.c: draft_validate ──> shardmap/find.c
 *
 * Private to this folder. The draft keeps, beside each shard, node, range and pin, the setting it
 * came from, so that a rule that is broken can name file, line and key. What could not be read at
 * all is already a problem and not in the draft; rules that would then complain of its absence
 * look at the `…_complete` flags.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_SHARDMAP_DRAFT_H
#define SG_SHARDMAP_DRAFT_H

#include <stdbool.h>

#include "base/cfgread.h"
#include "shardmap/shardmap.h"

#define SHARDS_MAX 1000
#define NODES_MAX 16 /* of one shard */
#define RANGES_MAX 1000000
#define PINS_MAX 1000000
#define DSN_MAX_BYTES 2048

#define NO_SHARD (-1)

/* The map itself; opaque outside. */
struct shardmap {
    int64_t version;
    struct shardmap_shard *shards;
    size_t shard_count;
    struct shardmap_range *ranges; /* ascending, without a hole */
    size_t range_count;
    struct shardmap_pin *pins; /* ascending */
    size_t pin_count;
    int *by_name; /* shard indexes in the order of their names */
};

struct draft_range {
    struct shardmap_range range;
    const struct config_setting_t *at;
};

struct draft_pin {
    struct shardmap_pin pin;
    const struct config_setting_t *at;
};

struct draft_node {
    struct shardmap_node *node; /* in the map; its dsn is NULL if it could not be read */
    int shard;
    const struct config_setting_t *at;
};

struct draft {
    struct cfgread *read;
    struct shardmap *map; /* owned until taken; its ranges and pins are filled in at the end */
    const struct config_setting_t **shard_at;
    struct draft_node *nodes; /* of all shards */
    size_t node_count;
    struct draft_range *ranges;
    size_t range_count;
    bool ranges_complete; /* every range could be read */
    bool owners_complete; /* every range names one shard of the map */
    struct draft_pin *pins;
    size_t pin_count;
};

/* Fills the draft from the tree. Problems go to the reader; SG_OK or SG_NO_MEMORY. */
enum sg_error draft_read(struct draft *draft);
/* The rules; sorts nodes, ranges and pins on the way. SG_OK or SG_NO_MEMORY. */
enum sg_error draft_validate(struct draft *draft);
/* Copies what was validated into the map. SG_OK or SG_NO_MEMORY. */
enum sg_error draft_finish(struct draft *draft);

#endif
