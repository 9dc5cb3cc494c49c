/*
 * One connection to Redis, kept alive: connects, asks PING every second, and after any loss begins
 * again by itself.
 *
 *   WAITING ──backoff──> CONNECTING ──connected──> CHECKING ──PONG──> UP ──1 s──> CHECKING ...
 *      ^                     │                        │               │
 *      └── refused, deadline, EOF, error reply ───────┴───────────────┘
 *
 * On the control thread. Redis never decides a sale, so its death changes nothing here but the
 * metric seatgrid_redis_up and a log line. The process must ignore SIGPIPE. A host name in the
 * address is resolved by hiredis, which blocks; an address is not.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_ROUTER_REDIS_H
#define SG_ROUTER_REDIS_H

#include <stdbool.h>

struct event_base;
struct metrics_set;
struct redis;

/* Borrowed, outliving the object; `address` is copied: "host:port" or "[v6]:port". */
struct redis_config {
    struct event_base *base;
    struct metrics_set *metrics;
    const char *address;
};

/* Starts connecting at the next turn of the loop. NULL when memory runs out or the address is not
 * one. With address "" there is no Redis: do not call. */
struct redis *redis_new(const struct redis_config *config);
/* Not from inside a callback of hiredis. */
void redis_free(struct redis *redis);
/* True if the last PING was answered. */
bool redis_is_up(const struct redis *redis);

#endif
