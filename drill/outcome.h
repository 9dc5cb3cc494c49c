/*
 * What a drill came to: its episodes, what clients felt in them, and what the databases said in the
 * end, added up over the rounds of the drill. Pure.
 *
 * A round is one run of the load with some episodes in it; its history and the verdict on it come
 * in together, and are not needed any more afterwards.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_DRILL_OUTCOME_H
#define SG_DRILL_OUTCOME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "drill/history.h"
#include "drill/scenario.h"
#include "drill/verdict.h"

#define OUTCOME_UNKNOWN (-1)

/* An episode and what it cost the clients of its shard; of all shards if it is no shard's. */
struct outcome_episode {
    struct episode episode;
    int64_t pause_us;      /* the write pause (verdict.h) */
    int64_t back_us;       /* from the promotion to the first acknowledgement after it, -1: none */
    uint64_t failed;       /* requests of this shard */
    int64_t others_p99_us; /* bookings of the other shards meanwhile; -1: there are none */
    uint64_t others_failed;
};

struct outcome {
    const char *drill;
    struct outcome_episode *episodes;
    size_t count, room;
    struct measure all; /* counts of every round, whole; its times mean nothing */
    struct verdict verdict;
    uint64_t
        failed_in_bound; /* of the failed: not in an episode whose pause was past deadline_ms */
    int64_t deadline_ms;
    int64_t before_p99_us; /* bookings of all shards before the first fault; the worst round */
    uint64_t others_failed;
    int64_t drift;  /* keys; OUTCOME_UNKNOWN */
    double at_risk; /* most bookings at risk right before a fault */
    bool lossy;     /* an episode took a primary from an asynchronous shard */
    int64_t load_us;
    int rounds;
    char problem[1024]; /* "": it came to its end */
};

struct outcome_round {
    const struct history *history;
    const struct verdict *verdict; /* NULL: it could not be judged */
    const struct episode *episodes;
    size_t episode_count;
    int64_t calm_from_us; /* the load was steady and nothing was wrong */
    int64_t calm_to_us;
};

void outcome_init(struct outcome *outcome, const char *drill, int64_t deadline_ms);
void outcome_done(struct outcome *outcome);
enum sg_error outcome_add(struct outcome *outcome, const struct outcome_round *round);

/* Quantiles of a time over the episodes that have it; count 0: none has. */
struct outcome_spread {
    size_t count;
    int64_t p50_us, p99_us, max_us;
};

enum outcome_time {
    OUTCOME_DETECTION, /* from the fault until the router knew */
    OUTCOME_PAUSE,     /* of writes */
    OUTCOME_BACK,      /* of writes, after the promotion */
    OUTCOME_OUT,       /* of rotation, after the replica was staler than the bound */
    OUTCOME_IN,        /* again, after it had caught up */
    OUTCOME_APART,     /* between the two faults of an episode */
    OUTCOME_OTHERS_P99,
    OUTCOME_WHOLE, /* from the fault until everything was well */
    OUTCOME_TIMES
};

/* bound_us: the staleness that takes a replica out. drill: only its episodes; NULL: all. */
struct outcome_spread outcome_spread(const struct outcome *outcome, enum outcome_time time,
                                     int64_t bound_us, const char *drill);

#endif
