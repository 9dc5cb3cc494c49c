/*
 * The drills as lists of steps: what is done to the cluster, in which order, and what is waited
 * for.
 *
 * A scenario has variants; each is one fault (or two) with all that follows until the cluster is
 * whole again. Playing a variant gives an episode: the moments at which things happened. What the
 * clients felt meanwhile stands in the load's history, not here.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_DRILL_SCENARIO_H
#define SG_DRILL_SCENARIO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "drill/fault.h"
#include "drill/rig.h"

struct load;

/* Moments, monotonic; 0: it did not come to that. */
struct episode {
    const char *drill;
    const char *what;  /* the variant, for people */
    const char *shard; /* NULL: the fault is no shard's */
    char victim[64];   /* the first server that was hit */
    char promoted[64]; /* the last node that was promoted */
    int64_t made_us;   /* the fault, or the order to switch over */
    int64_t again_us;  /* the second one */
    int64_t seen_us;   /* the router knows of the first */
    int64_t promoted_us;
    int64_t out_us;   /* the lagging replica is out of rotation */
    int64_t fresh_us; /* it has replayed what it missed */
    int64_t back_us;  /* it is in rotation again */
    int64_t ended_us; /* all is whole */
    double at_risk;   /* bookings that no replica was seen to have, right before the fault */
    bool lossy;       /* a primary went with an asynchronous shard */
};

enum victim { VICTIM_PRIMARY, VICTIM_REPLICA, VICTIM_REDIS, VICTIM_CDC };

struct variant;

struct scenario {
    const char *name;
    const char *help; /* one line */
    const struct variant *variants;
    size_t variant_count;
};

/* All of them, in the order that "all" plays them. */
extern const struct scenario scenarios[];
extern const size_t scenario_count;
/* NULL: no such scenario. */
const struct scenario *scenario_find(const char *name);
/* Variants that this cluster can play: see fault_possible; some need two replicas. */
size_t scenario_variants(const struct scenario *scenario, const struct rig *rig);

/* What an episode is played with. */
struct stage {
    struct rig *rig;
    struct load *load;
    const char *const *shards; /* the load's */
    size_t shard_count;
};

/* Plays the number-th of those variants on the shard of that index; blocking, under the load. SG_OK
 * when the cluster is whole again. On failure rig->problem says at which step, and the fault is
 * undone as far as that goes. */
enum sg_error scenario_play(const struct scenario *scenario, size_t number, size_t shard,
                            const struct stage *stage, struct episode *ret_episode);

#endif
