/*
 * Calls: one statement, on a node chosen for it, answered once, within its deadline.
 *
 *   call_start ─> choose node ─> pool of connections to it ─> pgconn ─> reply ─> fn
 *                    ^   │ none now: parked                      │ lost: chosen anew
 *                    └───┴────────────────<──────────────────────┘
 *
 * A read goes to a replica (route.h says which); if none may answer, to the primary, of which only
 * so many are let through at once (reads.primary_max), so that lagging replicas do not sink it;
 * past that to the freshest replica there is, its age told, unless the reader has set a bound: then
 * it waits for room.
 *
 * A read with a token goes to a replica that says itself, before the statement is sent, that it has
 * replayed the token's LSN. What the topology knows of that is up to health.interval_ms old, which
 * would send every read right behind a write to the primary; the question costs a round trip on an
 * open connection, and a replica that keeps up says yes to it. If none says so they are asked again
 * for reads.token_wait_ms, then the primary answers. Nothing is ever read where the token's write
 * is missing; with no primary and no such replica the read waits.
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
#include "router/commit.h"
#include "router/params.h"
#include "router/route.h"
#include "router/router.h"
#include "router/statements.h"

struct calls;

enum call_target {
    CALL_READ,    /* a replica that is fresh enough, else the primary */
    CALL_PRIMARY, /* a read that the primary must answer */
    CALL_WRITE    /* on a write connection to the primary; its first parameter, an i64, is replaced
                     by the epoch of the primary that it is sent to */
};

struct call_reply {
    enum sg_error error;    /* SG_OK, SG_DEADLINE, SG_SHARD_UNAVAILABLE, SG_OVERLOADED (no room at
                               the primary in time), SG_OUTCOME_UNKNOWN (CALL_WRITE), SG_INTERNAL */
    const PGresult *result; /* SG_OK; valid during the callback */
    struct commit commit;   /* SG_OK of a CALL_WRITE: what it has left */
    const struct route *route; /* seen: with the node's timeline, lsn 0: the statement tells that */
    bool from_primary;
    struct read_token position; /* what the answer surely contains; lsn 0: was not asked */
};

typedef void call_fn(void *arg, const struct call_reply *reply);

struct call_request {
    struct route route; /* shard and map_version filled in */
    enum call_target target;
    struct freshness
        fresh;           /* CALL_READ. Without a bound of the reader's own, while the primary takes
                            no more and no replica is fresh enough, the freshest one answers */
    bool ask_position;   /* fill in the reply's position even without a token */
    int64_t deadline_ms; /* from now */
    enum statement statement;
    struct params *params; /* taken over, also when the call is refused */
    /* CALL_WRITE, may be NULL: SG_OK, or why the node did nothing for a reason that passes; then
     * it is asked again, and that is what is answered at the deadline. */
    enum sg_error (*refusal)(const PGresult *result);
};

/* `config` is borrowed. NULL when memory runs out. */
struct calls *calls_new(const struct router_config *config);
/* Answers everything first: SG_OUTCOME_UNKNOWN to a write that was sent, else SG_SHARD_UNAVAILABLE.
 */
void calls_free(struct calls *calls);
/* Opens pools after the map's nodes; the others close when what is on them is done. Calls nobody
 * back. */
void calls_sync_map(struct calls *calls, const struct shardmap *map);
/* The topology changed: who waits for a node chooses anew, at once; what is in flight on a node
 * that is down is given up and asked elsewhere; write connections to a former primary close. Calls
 * nobody back. */
void calls_sync_topology(struct calls *calls);
size_t calls_in_flight(const struct calls *calls);

/* SG_OK: exactly one fn(arg, reply), later. Refuses: SG_OVERLOADED, SG_NO_MEMORY. */
enum sg_error call_start(struct calls *calls, struct call_request *request, call_fn *fn, void *arg);

#endif
