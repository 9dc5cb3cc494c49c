/*
 * Live seats: what a worker hears from Redis of the events that its clients watch.
 *
 *   live_watch ─> topic of the event ─┬─ SUBSCRIBE its channel ─> lines, as they come
 *                                     └─ one script: watched, counters, latest changes at an
 * instant lines, readings ─> live_topic.c (who has to be told what) ─> router_live_fn
 *
 *   WAITING ──Redis up, keys in step──> SUBSCRIBING ──confirmed──> READING ──answer──> LIVE
 *      ^                                     │                        │                 │
 *      └──── Redis lost, another generation, no answer, no such key yet ────────────────┘
 *
 * All watches of an event in one worker share a topic: one subscription, one reading. A topic that
 * is LIVE reads again when somebody has to catch up, and at a third of live.keep_ms to go on being
 * watched, which also finds whatever a subscription might have swallowed. Bounded: one question a
 * topic in flight, and what comes meanwhile (live_topic.c).
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_ROUTER_LIVE_H
#define SG_ROUTER_LIVE_H

#include "router/router.h"

struct counters;
struct live;

/* NULL when memory runs out, or settings->redis.address is "" (then there are none). `counters`
 * is borrowed: it tells which generation of a shard's keys is current. */
struct live *live_new(const struct router_config *config, const struct counters *counters);
/* Watches end without a word. */
void live_free(struct live *live);
/* As router_watch; `shard` is the event's. */
enum sg_error live_watch(struct live *live, const char *shard, int64_t event_id,
                         const char *last_id, router_live_fn *fn, void *arg,
                         struct live_watch **ret_watch);
void live_unwatch(struct live_watch *watch);

#endif
