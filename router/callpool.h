/*
 * The connections of a worker to one node for one use, and the calls that are on them or wait for
 * room on them. For the files of calls alone (calls_internal.h), which move the calls.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_ROUTER_CALLPOOL_H
#define SG_ROUTER_CALLPOOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "router/pgconn.h"
#include "router/router.h"
#include "router/statements.h"

struct call;
struct calls;

TAILQ_HEAD(call_list, call);
TAILQ_HEAD(callpool_list, callpool);

/* Where an answer came from, for the metric. */
enum read_source { READ_REPLICA, READ_PRIMARY, READ_FALLBACK, READ_STALE, READ_SOURCES };

struct callpool {
    TAILQ_ENTRY(callpool) link; /* the owner's */
    struct calls *calls;
    const struct router_config *config;
    char shard[SHARDMAP_NAME_MAX + 1];
    char node[SHARDMAP_NAME_MAX + 1];
    char *dsn;
    enum pgconn_use use;
    enum shardmap_durability durability; /* PGCONN_WRITE */
    struct pgconn **conns;
    size_t conn_count;
    struct call_list waiting;
    size_t waiting_count;
    size_t in_flight; /* calls on its connections */
    size_t fallbacks; /* of both, those that are here only because no replica would do */
    bool wanted;      /* while a map is followed: named by the new one */
    bool retired;     /* takes no new calls, closes when those it has are done */
    bool closed;      /* in no list; only the memory is left */
    struct metrics_series *duration[STATEMENT_COUNT][2]; /* error, ok */
    struct metrics_series *reads[READ_SOURCES];
};

/* on_ready and on_lost get the pool. NULL when memory runs out. */
struct callpool *callpool_new(struct calls *calls, const struct router_config *config,
                              const struct shardmap_shard *shard, const struct shardmap_node *node,
                              enum pgconn_use use, void (*on_ready)(void *arg),
                              void (*on_lost)(void *arg, const char *reason));
/* Gives up the connections: what is in flight on them comes back lost, inside this. The memory goes
 * by way of the reap list. Nobody waits any more. */
void callpool_free(struct callpool *pool);
/* What is in flight comes back lost, soon, and every connection is made anew. */
void callpool_reset(struct callpool *pool, const char *reason);

/* The ready connection with the fewest statements in flight, or NULL if none is ready. */
struct pgconn *callpool_pick(const struct callpool *pool);
/* True if a call can go out on the connection (may be NULL) now. A write goes alone. */
bool callpool_has_room_on(const struct callpool *pool, const struct pgconn *conn);
/* True if one more may wait. */
bool callpool_has_room_to_wait(const struct callpool *pool);

void callpool_observe(struct callpool *pool, enum statement statement, bool ok,
                      int64_t duration_us);
void callpool_count_read(struct callpool *pool, enum read_source source);

#endif
