/*
 * Who hands over to whom, or why not: what the nodes said of themselves in, a choice out. Pure.
 *
 * Called by router/switchover_steps.c after its look at the nodes.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_ROUTER_SWITCHOVER_PLAN_H
#define SG_ROUTER_SWITCHOVER_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shardmap/shardmap.h"

#define SWITCHOVER_TEXT_MAX 320

/* A node of the shard as it said itself. */
struct switchover_node {
    char name[SHARDMAP_NAME_MAX + 1];
    bool answered;
    char problem[SWITCHOVER_TEXT_MAX]; /* why not */
    bool migrated;                     /* its schema knows fences that end by themselves */
    bool in_recovery;
    int32_t timeline;
    uint64_t lsn; /* written, or replayed */
    uint64_t system_identifier;
    char shard[SHARDMAP_NAME_MAX + 1]; /* that it belongs to; "" unknown */
    int64_t epoch;
    int32_t meta_timeline; /* that the epoch was given on */
    bool fenced;           /* a fence is up now */
    char fence_id[40];     /* of the switchover that set one, also of a fence that has ended; "" */
    char fenced_until[40]; /* "" without an end */
    bool streaming;        /* a standby that hears from its upstream */
    bool replay_paused;
    bool delayed;     /* recovery_min_apply_delay */
    bool may_promote; /* our user there */
    bool sync;        /* the primary waits for it, or counts it among those it waits for */
};

struct switchover_plan {
    size_t primary; /* indexes of nodes */
    size_t target;
};

/* Fills *ret_plan, or gives false and the reason in `text`. `to`: the node that the operator named,
 * NULL for the best: streaming, on the primary's timeline, not further behind than max_lag_bytes;
 * synchronous ones first, then the one that has replayed most. */
bool switchover_plan(const struct switchover_node *nodes, size_t count, const char *shard,
                     const char *to, uint64_t max_lag_bytes, struct switchover_plan *ret_plan,
                     char *text, size_t size);

/* May the fence that a switchover left be lifted? Every node has to answer, and none may have been
 * promoted. *ret_primary is the one that is fenced. */
bool switchover_may_abort(const struct switchover_node *nodes, size_t count, const char *shard,
                          size_t *ret_primary, char *text, size_t size);

#endif
