/*
 * Calls: one statement, on a node chosen for it, answered once, within its deadline.
 *
 *   call_start ─> choose node ─> pool of connections to it ─> pgconn ─> reply ─> fn
 *                    ^   │ none now: parked                      │ lost: chosen anew
 *                    └───┴────────────────<──────────────────────┘
 *
 * Everything that goes through here may be asked twice without harm: reads, and the creation of an
 * event (which carries its own id). Bookings have lanes (lane.h). Owns the pools: one a node and
 * use, with a bounded number of waiting calls.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_ROUTER_CALLS_H
#define SG_ROUTER_CALLS_H

#include <libpq-fe.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"
#include "router/params.h"
#include "router/router.h"
#include "router/statements.h"

struct calls;

enum call_target {
    CALL_READ,    /* a replica that is fresh enough, else the primary */
    CALL_PRIMARY, /* a read that the primary must answer */
    CALL_WRITE    /* on a write connection to the primary */
};

struct call_reply {
    enum sg_error error;    /* SG_OK, SG_DEADLINE, SG_SHARD_UNAVAILABLE, SG_OUTCOME_UNKNOWN
                               (CALL_WRITE), SG_INTERNAL */
    const PGresult *result; /* SG_OK; valid during the callback */
    const struct route *route;
};

typedef void call_fn(void *arg, const struct call_reply *reply);

struct call_request {
    struct route route; /* shard and map_version filled in */
    enum call_target target;
    int64_t max_staleness_us; /* CALL_READ */
    bool strict; /* CALL_READ: nothing older, whatever happens; else, while the shard has no primary
                    and no replica is fresh enough, the replicas that there are */
    struct read_token token; /* CALL_READ: what the node must have replayed; lsn 0: none */
    int64_t deadline_ms;     /* from now */
    enum statement statement;
    struct params *params; /* taken over, also when the call is refused */
};

/* `config` is borrowed. NULL when memory runs out. */
struct calls *calls_new(const struct router_config *config);
/* Answers everything first: SG_OUTCOME_UNKNOWN to a write that was sent, else SG_SHARD_UNAVAILABLE.
 */
void calls_free(struct calls *calls);
/* Opens pools after the map's nodes; the others close when what is on them is done. Calls nobody
 * back. */
void calls_sync_map(struct calls *calls, const struct shardmap *map);
size_t calls_in_flight(const struct calls *calls);

/* SG_OK: exactly one fn(arg, reply), later. Refuses: SG_OVERLOADED, SG_NO_MEMORY. */
enum sg_error call_start(struct calls *calls, struct call_request *request, call_fn *fn, void *arg);

#endif
