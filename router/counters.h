/*
 * Counters: what a worker reads from Redis. See base/rediskeys.h for the keys, and who writes them.
 *
 *   every redis.poll_ms: HMGET of each shard's hash ─> which generation, is it kept in step
 *   counters_events ─> one pipelined HMGET an event ─> counts
 *   counters_owners ─> which shards hold tickets of a user
 *
 * Redis is never waited for: while it is down, a shard's hash says "stale", or its beat has not
 * moved for redis.max_staleness_ms, the calls refuse at once and PostgreSQL is asked; a call that
 * is not answered in redis.read_timeout_ms is answered with "nothing known". Nothing is ever
 * decided by what stands here.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_ROUTER_COUNTERS_H
#define SG_ROUTER_COUNTERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "router/router.h"

struct counters;

/* NULL when memory runs out, or settings->redis.address is "" (then there are none). */
struct counters *counters_new(const struct router_config *config);
/* Answers everything first. */
void counters_free(struct counters *counters);
/* True if the shard's keys may be believed now; *ret_generation names them. */
bool counters_live(const struct counters *counters, const char *shard, int64_t *ret_generation);

struct event_counts {
    int64_t event_id;
    bool known;
    int64_t total, available, held, booked;
    int32_t rows, cols;
};

/* counts are in the order asked for; `known` false where Redis has no such key or did not answer.
 */
typedef void counters_events_fn(void *arg, const struct event_counts *counts, size_t count);
/* SG_OK: one fn, later. SG_SHARD_UNAVAILABLE: not live now. At most 1,000 events of one shard. */
enum sg_error counters_events(struct counters *counters, const char *shard,
                              const int64_t *event_ids, size_t count, counters_events_fn *fn,
                              void *arg);

#define COUNTERS_SHARDS_MAX 1024 /* shards of one question */

/* holds[i] says whether shards[i] has tickets of the user; also true where Redis does not know.
 * NULL: Redis did not answer in time, nothing is known. */
typedef void counters_owners_fn(void *arg, const bool *holds, size_t count);
enum sg_error counters_owners(struct counters *counters, const char *user_id,
                              const char *const *shards, size_t count, counters_owners_fn *fn,
                              void *arg);
/* Calls that are accepted and not yet called back. */
size_t counters_in_flight(const struct counters *counters);

#endif
