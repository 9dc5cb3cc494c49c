/*
 * A call on its way, shared by the files of calls.
 *
 *   calls.c         the door: accepts, expires, follows map and topology
 *   calls_choose.c  dispatch: which node, or which waiting place
 *   calls_flight.c  pools: sending, replies, the word to the caller
 *
 * For these three alone.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_ROUTER_CALLS_INTERNAL_H
#define SG_ROUTER_CALLS_INTERNAL_H

#include <event2/util.h>
#include <sys/queue.h>

#include "router/callpool.h"
#include "router/calls.h"

struct event;

enum call_place { CALL_PARKED, CALL_PAUSED, CALL_WAITING, CALL_IN_FLIGHT };

/* The calls of one shard: a shard that answers nobody takes no room from the others. */
struct crowd {
    LIST_ENTRY(crowd) link; /* calls->crowds */
    char shard[SHARDMAP_NAME_MAX + 1];
    size_t count;
};

struct call {
    TAILQ_ENTRY(call) all;        /* calls->all */
    TAILQ_ENTRY(call) place_link; /* calls->parked, calls->paused or pool->waiting */
    struct calls *calls;
    struct crowd *crowd;
    struct callpool *pool; /* CALL_WAITING, CALL_IN_FLIGHT */
    enum call_place place;
    struct call_request request;
    int64_t deadline_us;
    /* of the node that was chosen: */
    enum read_source source;
    bool on_replica;
    bool primary_known; /* the shard had a primary then */
    int32_t timeline;
    uint64_t bit;      /* route_bit */
    bool known_ahead;  /* by the topology: it has replayed the token */
    bool has_position; /* it has told: */
    uint64_t position;
    /* of the call as a whole: */
    unsigned replies;       /* outstanding, of what is in flight */
    bool statement_sent;    /* is among them */
    uint64_t tried;         /* bits of replicas that did not do; until it parks */
    int64_t token_until_us; /* from then on only replicas known to have replayed the token */
    int64_t pause_us;       /* the last one */
    int64_t again_us;       /* CALL_PAUSED */
    bool wants_room;        /* CALL_PARKED: among the fallbacks of the shard's primary */
    bool maybe_done;        /* lost in flight; of a write nobody knows then */
    enum sg_error refused;  /* a write: why, by its last answer */
    bool suspected;         /* health was told that its token knows of another primary */
    bool answered;          /* fn has run */
    call_fn *fn;
    void *arg;
};

struct calls {
    const struct router_config *config;
    struct callpool_list pools;
    struct callpool_list retired;
    struct call_list all; /* accepted and not yet freed */
    struct call_list parked;
    struct call_list paused;
    LIST_HEAD(, crowd) crowds;
    size_t count;
    uint32_t turn; /* spreads reads over replicas */
    uint64_t topology_serial;
    struct event *tick;
    struct event *pause; /* armed while some are paused */
    bool closing;
};

/* --- calls_choose.c --- */

/* Puts a call that is in no place into one. */
void call_dispatch(struct call *call);
/* The same for all that are parked, oldest first. */
void calls_dispatch_parked(struct calls *calls);
/* Of the timer of the paused ones. */
void on_calls_pause_over(evutil_socket_t fd, short what, void *arg);

/* --- calls_flight.c --- */

bool call_has_token(const struct call *call);
/* Sends on the pool (may be NULL), or waits in it. False if neither is possible. */
bool call_enter_pool(struct call *call, struct callpool *pool);
/* Into calls->parked, for a call that is in no place. */
void call_park(struct call *call);
/* Takes the call out of the list of its place; what is in flight stays there. */
void call_withdraw(struct call *call);
/* The one word to the caller. */
void call_answer(struct call *call, const struct call_reply *told);
/* What a call is told that will get no answer. */
enum sg_error call_missed(const struct call *call);
/* The call is in no list but `all`. */
void call_free(struct call *call);
/* Tells health that the pool's node is not what it seemed. */
void calls_suspect(const struct calls *calls, const struct callpool *pool);

/* The pool that takes new calls, or NULL. */
struct callpool *calls_pool_find(const struct calls *calls, const char *node, enum pgconn_use use);
struct callpool *calls_pool_new(struct calls *calls, const struct shardmap_shard *shard,
                                const struct shardmap_node *node, enum pgconn_use use);
/* Those who wait in the pool choose anew, later. */
void calls_pool_park_waiting(struct callpool *pool);
/* Takes no new calls and closes when those it has are done. */
void calls_pool_retire(struct callpool *pool);
void calls_pool_close(struct callpool *pool);

#endif
