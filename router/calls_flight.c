/*
 * Calls on their pools: sending, replies, and the word to the caller. See calls.h.
 *
 * A read that wants to know the replica's position sends that question before its statement, each
 * with a Sync of its own: the position is older than the statement's snapshot, so the snapshot has
 * all that the position covers. If the topology does not say that the replica has replayed the
 * token, the statement waits for the answer.
 *
 * A call may change map and topology inside its callback, so a pool's memory goes by way of the
 * reap list.
 *
 * SPDX-License-Identifier: MIT
 */
#include "router/calls_internal.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/metrics.h"

static void serve_waiting(struct callpool *pool);
static void on_pool_ready(void *arg);
static void on_pool_lost(void *arg, const char *reason);

/* --- pools ------------------------------------------------------------------------------------ */

struct callpool *calls_pool_find(const struct calls *calls, const char *node, enum pgconn_use use)
{
    struct callpool *pool;
    TAILQ_FOREACH (pool, &calls->pools, link) {
        if (pool->use == use && strcmp(pool->node, node) == 0)
            return pool;
    }
    return NULL;
}

/* What a call keeps in its pool, besides a connection. */
static void leave_pool(struct call *call)
{
    assert(call->pool);
    if (call->source == READ_FALLBACK)
        call->pool->fallbacks--;
    call->pool = NULL;
}

void call_park(struct call *call)
{
    assert(!call->pool);
    call->place = CALL_PARKED;
    call->tried = 0;
    TAILQ_INSERT_TAIL(&call->calls->parked, call, place_link);
}

/* Those who wait in the pool choose anew. */
void calls_pool_park_waiting(struct callpool *pool)
{
    struct call *call;
    while ((call = TAILQ_FIRST(&pool->waiting))) {
        TAILQ_REMOVE(&pool->waiting, call, place_link);
        pool->waiting_count--;
        leave_pool(call);
        call_park(call);
    }
}

void calls_pool_close(struct callpool *pool)
{
    struct calls *calls = pool->calls;
    if (pool->closed)
        return;
    pool->closed = true;
    TAILQ_REMOVE(pool->retired ? &calls->retired : &calls->pools, pool, link);
    calls_pool_park_waiting(pool);
    callpool_free(pool);
}

static void close_if_drained(struct callpool *pool)
{
    if (pool->retired && pool->in_flight == 0 && pool->waiting_count == 0)
        calls_pool_close(pool);
}

void calls_pool_retire(struct callpool *pool)
{
    TAILQ_REMOVE(&pool->calls->pools, pool, link);
    TAILQ_INSERT_TAIL(&pool->calls->retired, pool, link);
    pool->retired = true;
    close_if_drained(pool);
}

struct callpool *calls_pool_new(struct calls *calls, const struct shardmap_shard *shard,
                                const struct shardmap_node *node, enum pgconn_use use)
{
    struct callpool *pool =
        callpool_new(calls, calls->config, shard, node, use, on_pool_ready, on_pool_lost);
    if (pool)
        TAILQ_INSERT_TAIL(&calls->pools, pool, link);
    return pool;
}

/* Takes the call out of the list of its place; what is in flight stays there. */
void call_withdraw(struct call *call)
{
    switch (call->place) {
    case CALL_PARKED:
        TAILQ_REMOVE(&call->calls->parked, call, place_link);
        break;
    case CALL_PAUSED:
        TAILQ_REMOVE(&call->calls->paused, call, place_link);
        break;
    case CALL_WAITING:
        TAILQ_REMOVE(&call->pool->waiting, call, place_link);
        call->pool->waiting_count--;
        leave_pool(call);
        break;
    case CALL_IN_FLIGHT:
        break;
    }
}

/* --- answers ---------------------------------------------------------------------------------- */

void call_answer(struct call *call, const struct call_reply *told)
{
    struct route *route = &call->request.route;
    struct call_reply reply = *told;
    reply.route = route;
    reply.from_primary = !call->on_replica;
    assert(!call->answered);
    memcpy(route->seen.shard, route->shard, sizeof(route->seen.shard)); /* arrays of one size */
    route->seen.timeline = call->timeline;
    reply.position = route->seen;
    if (call->has_position)
        reply.position.lsn = call->position;
    call->answered = true;
    call->fn(call->arg, &reply);
}

/* The call is in no list but `all`. */
void call_free(struct call *call)
{
    struct calls *calls = call->calls;
    TAILQ_REMOVE(&calls->all, call, all);
    calls->count--;
    call->crowd->count--;
    params_done(call->request.params);
    free(call->request.params);
    free(call);
}

/* What a call is told that will get no answer. */
enum sg_error call_missed(const struct call *call)
{
    if (call->request.target == CALL_WRITE && (call->maybe_done || call->place == CALL_IN_FLIGHT))
        return SG_OUTCOME_UNKNOWN;
    if (call->refused != SG_OK)
        return call->refused;
    if (call->place == CALL_PARKED)
        return call->wants_room ? SG_OVERLOADED : SG_SHARD_UNAVAILABLE;
    return SG_DEADLINE;
}

static struct commit commit_of(const struct callpool *pool, const struct pgreply *reply)
{
    if (pool->use != PGCONN_WRITE)
        return (struct commit){.durability = SHARDMAP_ASYNC};
    return commit_read(pool->shard, reply->behind, reply->wait_cut);
}

/* Done, but not as durably as its shard promises: the same call again finds it done, and waits. */
static bool is_unsure(const struct callpool *pool, const struct pgreply *reply)
{
    struct commit commit = commit_of(pool, reply);
    return pool->use == PGCONN_WRITE && reply->kind == PGREPLY_ROWS &&
           !commit_holds(&commit, pool->durability);
}

/* The last word on a call; its deadline may have had it before. */
static void conclude(struct call *call, struct callpool *pool, const struct pgreply *reply)
{
    if (call->answered)
        return;
    if (reply->kind == PGREPLY_ROWS) {
        if (call->request.target != CALL_WRITE)
            callpool_count_read(pool, call->source);
        call_answer(call, &(struct call_reply){.error = SG_OK,
                                               .result = reply->result,
                                               .commit = commit_of(pool, reply)});
    } else if (reply->kind == PGREPLY_ERROR) {
        struct log_fields fields = {.shard = pool->shard, .node = pool->node};
        log_error(&fields, "statement %s failed: %s %s",
                  statement_info(call->request.statement)->name, reply->sqlstate, reply->message);
        call_answer(call, &(struct call_reply){.error = SG_INTERNAL});
    } else {
        call_answer(call, &(struct call_reply){.error = call_missed(call)});
    }
}

/* --- replies ---------------------------------------------------------------------------------- */

bool call_has_token(const struct call *call)
{
    return call->request.fresh.token.lsn != 0;
}

/* True if what comes behind the position has all that the token asks for. A token of a replica may
 * be one byte into a record that was under way there (statements.c). With the primary gone there
 * may never be more of it, so that it counts as replayed then. */
static bool position_covers(const struct call *call)
{
    const struct read_token *token = &call->request.fresh.token;
    if (!call_has_token(call) || !call->on_replica)
        return true;
    uint64_t position = call->position + (call->primary_known ? 0 : 1);
    return call->has_position && route_covers(call->timeline, position, token);
}

/* The replica has not got what the token asks for. */
static void try_another(struct call *call)
{
    call->tried |= call->bit;
    call_dispatch(call);
}

void calls_suspect(const struct calls *calls, const struct callpool *pool)
{
    if (calls->config->on_suspect)
        calls->config->on_suspect(calls->config->on_suspect_arg, pool->node);
}

/* True: the reply is none, the call has gone on. */
static bool goes_on(struct call *call, const struct callpool *pool, const struct pgreply *reply)
{
    const struct call_request *request = &call->request;
    bool again = reply->kind == PGREPLY_LOST ||
                 (reply->kind == PGREPLY_ERROR && pgconn_error_is_passing(reply->sqlstate));
    bool refused = false;
    if (reply->kind == PGREPLY_ROWS && request->refusal) {
        call->refused = request->refusal(reply->result);
        refused = call->refused != SG_OK;
    }
    bool unsure = !refused && is_unsure(pool, reply);
    call->maybe_done |= unsure;
    again |= refused;
    if (again)
        calls_suspect(call->calls, pool);
    again |= unsure;
    if (call->answered)
        return false;
    if (again && call->on_replica)
        try_another(call);
    else if (again)
        call_park(call); /* a new topology, a ready connection or the next tick asks again */
    else if (reply->kind == PGREPLY_ROWS && call->on_replica && !position_covers(call))
        try_another(call);
    else
        return false;
    return true;
}

/* Fallbacks of the pool's shard may go on when one has ended. */
static void let_one_in(struct callpool *pool)
{
    struct call *call;
    TAILQ_FOREACH (call, &pool->calls->parked, place_link) {
        if (!call->wants_room || strcmp(call->request.route.shard, pool->shard) != 0)
            continue;
        TAILQ_REMOVE(&pool->calls->parked, call, place_link);
        call_dispatch(call);
        return;
    }
}

/* Nothing of the call is in flight any more; settle() must follow. */
static struct callpool *leave_flight(struct call *call)
{
    struct callpool *pool = call->pool;
    pool->in_flight--;
    leave_pool(call);
    call->place = CALL_PARKED; /* in no list yet */
    return pool;
}

/* Others may take the room that was left. */
static void settle(struct callpool *pool, enum read_source source)
{
    serve_waiting(pool);
    if (source == READ_FALLBACK && !pool->calls->closing)
        let_one_in(pool);
    close_if_drained(pool);
}

/* The last reply to what the call had in flight. */
static void on_last_reply(struct call *call, const struct pgreply *reply)
{
    enum read_source source = call->source;
    struct callpool *pool = leave_flight(call);
    call->maybe_done |= reply->kind == PGREPLY_LOST;
    if (call->calls->closing || !goes_on(call, pool, reply)) {
        conclude(call, pool, reply);
        call_free(call);
    }
    settle(pool, source);
}

static bool send_statement(struct call *call, struct pgconn *conn);

static void on_reply(void *arg, const struct pgreply *reply)
{
    struct call *call = arg;
    call->replies--;
    assert(call->replies == 0);
    if (reply->kind != PGREPLY_LOST)
        callpool_observe(call->pool, call->request.statement, reply->kind == PGREPLY_ROWS,
                         reply->duration_us);
    on_last_reply(call, reply);
}

/* The statement waited for the position. False if it is not for this replica, or not now. */
static bool send_behind(struct call *call)
{
    struct pgconn *conn = callpool_pick(call->pool);
    return !call->answered && position_covers(call) && conn && send_statement(call, conn);
}

static void on_position(void *arg, const struct pgreply *reply)
{
    struct call *call = arg;
    call->replies--;
    if (reply->kind == PGREPLY_ROWS) {
        call->has_position = true;
        call->position = strtoull(PQgetvalue(reply->result, 0, 0), NULL, 10);
    }
    if (call->statement_sent || (reply->kind == PGREPLY_ROWS && send_behind(call)))
        return;
    if (reply->kind != PGREPLY_ROWS) {
        on_last_reply(call, reply);
        return;
    }
    enum read_source source = call->source;
    struct callpool *pool = leave_flight(call);
    if (call->answered)
        call_free(call);
    else
        try_another(call);
    settle(pool, source);
}

/* --- sending ---------------------------------------------------------------------------------- */

static bool send_statement(struct call *call, struct pgconn *conn)
{
    const struct call_request *request = &call->request;
    bool sent = request->target == CALL_WRITE
                    ? pgconn_send_committed(conn, request->statement, request->params,
                                            STATEMENT_WAL, on_reply, call)
                    : pgconn_send(conn, request->statement, request->params, on_reply, call);
    if (!sent)
        return false;
    call->replies++;
    call->statement_sent = true;
    return true;
}

/* On the call's pool. False if the connection takes no more just now. */
static bool send_on(struct call *call, struct pgconn *conn)
{
    assert(call->pool);
    bool asks = call->request.ask_position || (call_has_token(call) && call->on_replica);
    bool waits = call_has_token(call) && call->on_replica && !call->known_ahead;
    if (!callpool_has_room_on(call->pool, conn))
        return false;
    call->replies = 0;
    call->statement_sent = false;
    call->has_position = false;
    if (asks) {
        if (!pgconn_send(conn, STATEMENT_POSITION, NULL, on_position, call))
            return false;
        call->replies++;
    }
    /* If only this fails, on_position sees to it. */
    if (!waits && !send_statement(call, conn) && !asks)
        return false;
    call->place = CALL_IN_FLIGHT;
    call->wants_room = false;
    call->pool->in_flight++;
    return true;
}

/* As long as there is room again, those who wait choose anew, oldest first: what they knew of the
 * node is old by now. Those of a retired pool end on the map they began with. */
static void serve_waiting(struct callpool *pool)
{
    struct call *call;
    while ((call = TAILQ_FIRST(&pool->waiting)) &&
           callpool_has_room_on(pool, callpool_pick(pool))) {
        TAILQ_REMOVE(&pool->waiting, call, place_link);
        pool->waiting_count--;
        if (pool->retired && send_on(call, callpool_pick(pool)))
            continue;
        leave_pool(call);
        call_dispatch(call);
    }
}

/* Sends on the pool, or waits in it. False if neither is possible. */
bool call_enter_pool(struct call *call, struct callpool *pool)
{
    struct pgconn *conn = pool ? callpool_pick(pool) : NULL;
    if (!conn)
        return false;
    struct route *route = &call->request.route;
    memcpy(route->node, pool->node, sizeof(route->node)); /* arrays of one size */
    call->pool = pool;
    if (call->source == READ_FALLBACK)
        pool->fallbacks++;
    if (send_on(call, conn))
        return true;
    if (!callpool_has_room_to_wait(pool)) {
        leave_pool(call);
        return false;
    }
    call->place = CALL_WAITING;
    call->wants_room = false;
    pool->waiting_count++;
    TAILQ_INSERT_TAIL(&pool->waiting, call, place_link);
    return true;
}

static void on_pool_ready(void *arg)
{
    struct callpool *pool = arg;
    serve_waiting(pool);
    calls_dispatch_parked(pool->calls);
}

static void on_pool_lost(void *arg, const char *reason)
{
    struct callpool *pool = arg;
    (void)reason;
    if (callpool_pick(pool))
        serve_waiting(pool);
    else
        calls_pool_park_waiting(pool); /* nobody left to serve them */
    close_if_drained(pool);
}
