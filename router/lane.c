/*
 * The lane. See lane.h for the path of an op.
 *
 * An op is in exactly one place: waiting in a queue, in flight in a slot, or waiting for its seats
 * to be chosen. `all` holds those that have not been answered, in order of acceptance, which is the
 * order of their deadlines.
 *
 * SPDX-License-Identifier: MIT
 */
#include "router/lane.h"

#include <assert.h>
#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/settings.h"
#include "router/batch.h"
#include "router/lane_batch.h"
#include "router/lane_best.h"
#include "router/lane_internal.h"
#include "router/pgconn.h"
#include "router/txn.h"

#define BUSY_TICK_US 20000
#define IDLE_TICK_US 100000
/* A primary that has refused and of which nothing new is heard is tried again: after so long, or at
 * the next tick if it is a standby that it lacks, of which no topology tells. */
#define REFUSED_US 200000

/* --- slots ------------------------------------------------------------------------------------ */

static size_t batch_max(const struct lane *lane)
{
    return (size_t)lane->config->settings->booking.batch_max;
}

static void unplace(struct lane_op *op, struct lane_op_list *list)
{
    TAILQ_REMOVE(list, op, place);
}

void lane_schedule_flush(struct lane *lane)
{
    if (lane->flush_scheduled || lane->closing)
        return;
    lane->flush_scheduled = true;
    event_active(lane->flush, EV_TIMEOUT, 0);
}

/* Moves the first `count` of the queue into flight. */
static void take(struct lane_slot *slot, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct lane_op *op = TAILQ_FIRST(&slot->queue->ops);
        unplace(op, &slot->queue->ops);
        op->in_flight = true;
        TAILQ_INSERT_TAIL(&slot->in_flight, op, place);
    }
    slot->queue->count -= count;
    slot->in_flight_count = count;
}

/* What could not be sent. A part of it, or all, may have gone out before that was known. */
static void give_back(struct lane_slot *slot)
{
    struct lane_op *op;
    while ((op = TAILQ_LAST(&slot->in_flight, lane_op_list))) {
        op->asked = true;
        lane_again(slot, op);
    }
}

/* True if the op may go in the next batch. Otherwise it has left the queue: to wait for its seats,
 * or answered. */
static bool choose_seats(struct lane_slot *slot, struct lane_op *op)
{
    struct lane *lane = slot->lane;
    struct book_result result = {.error = SG_INTERNAL};
    if (op->wish_count == 0 || op->seat_count)
        return true;
    enum lane_best_verdict verdict = lane_best_choose(lane->best, op, &result);
    if (verdict == LANE_BEST_CHOSEN || verdict == LANE_BEST_LOOK)
        return true;
    unplace(op, &slot->queue->ops);
    slot->queue->count--;
    op->waits = true;
    TAILQ_INSERT_TAIL(&lane->wait, op, place);
    if (verdict == LANE_BEST_REFUSED)
        lane_best_finish(lane, op, &result);
    return false;
}

/* The first ops of the queue, as many as go together. */
static size_t plan_batch(struct lane_slot *slot, bool ret_rivals[BATCH_MAX])
{
    struct batch_item items[BATCH_MAX];
    struct lane_op *op = TAILQ_FIRST(&slot->queue->ops);
    size_t limit = slot->limit < BATCH_MAX ? slot->limit : BATCH_MAX;
    size_t count = 0;
    while (op && count < limit) {
        struct lane_op *next = TAILQ_NEXT(op, place);
        if (choose_seats(slot, op))
            items[count++] = (struct batch_item){.event_id = op->event_id,
                                                 .seats = op->seats,
                                                 .seat_count = op->seat_count,
                                                 .idempotency_key = op->idempotency_key};
        op = next;
    }
    return count ? batch_plan(items, count, limit, ret_rivals) : 0;
}

/* False if it could not be sent. */
static bool start_batch(struct lane_slot *slot)
{
    bool rivals[BATCH_MAX];
    size_t count = plan_batch(slot, rivals);
    if (count == 0)
        return true;
    take(slot, count);
    slot->answered = 0;
    if (!lane_batch_send(slot, rivals, count))
        return false;
    if (slot->limit_left <= count) {
        slot->limit = batch_max(slot->lane);
        slot->limit_left = 0;
    } else {
        slot->limit_left -= count;
    }
    return true;
}

static bool slot_is_free(const struct lane_slot *slot)
{
    return slot->in_flight_count == 0 && !slot->paused && slot->conn && pgconn_is_ready(slot->conn);
}

/* True if the slot is better off waiting for more; its timer then starts it. */
static bool gather(struct lane_slot *slot)
{
    int64_t wait_us = batch_gather_us(slot->queue->count, slot->population, slot->limit,
                                      clock_mono_us() - slot->idle_since_us,
                                      slot->lane->config->settings->booking.gather_us);
    if (wait_us <= 0)
        return false;
    if (!event_pending(slot->gather, EV_TIMEOUT, NULL)) {
        struct timeval tv = clock_timeval_us(wait_us);
        event_add(slot->gather, &tv);
    }
    return true;
}

static void start(struct lane_slot *slot)
{
    if (slot->lane->state != LANE_OPEN || !slot_is_free(slot) || slot->queue->count == 0 ||
        slot->lane->closing)
        return;
    if (!slot->txn && gather(slot))
        return;
    bool sent;
    if (slot->txn) {
        take(slot, 1);
        sent = txn_start(slot->txn, TAILQ_FIRST(&slot->in_flight));
    } else {
        sent = start_batch(slot);
    }
    if (!sent) {
        give_back(slot);
        slot->paused = true;
    }
}

static void on_gathered(evutil_socket_t fd, short what, void *arg)
{
    struct lane_slot *slot = arg;
    (void)fd;
    (void)what;
    start(slot);
}

static void on_flush(evutil_socket_t fd, short what, void *arg)
{
    struct lane *lane = arg;
    (void)fd;
    (void)what;
    lane->flush_scheduled = false;
    for (size_t i = 0; i < lane->slot_count; i++)
        start(&lane->slots[i]);
}

/* --- answers and deadlines -------------------------------------------------------------------- */

/* What has become of a take, before anybody is told: who is told may ask for the best seats at
 * once. */
static void note(struct lane *lane, struct lane_op *op, const struct book_result *result)
{
    if (lane->best)
        lane_best_done(lane->best, op, result);
}

static void op_free(struct lane *lane, struct lane_op *op)
{
    lane->count--;
    lane->bytes -= op->size;
    metrics_add(lane->waiting_gauge, -1);
    metrics_add(lane->bytes_gauge, -(int64_t)op->size);
    free(op);
}

static void fill_route(const struct lane *lane, const struct lane_op *op, struct route *ret_route)
{
    memcpy(ret_route->shard, lane->shard, sizeof(ret_route->shard)); /* arrays of one size */
    memcpy(ret_route->node, lane->place.node, sizeof(ret_route->node));
    ret_route->map_version = op->map_version;
    ret_route->staleness_us = 0;
}

static void answer(struct lane *lane, struct lane_op *op, struct book_result *result)
{
    fill_route(lane, op, &result->route);
    op->answered = true;
    TAILQ_REMOVE(&lane->all, op, all);
    op->book_fn(op->arg, result);
}

static void answer_change(struct lane *lane, struct lane_op *op, struct change_result *result)
{
    fill_route(lane, op, &result->route);
    op->answered = true;
    TAILQ_REMOVE(&lane->all, op, all);
    op->change_fn(op->arg, result);
}

static void answer_error(struct lane *lane, struct lane_op *op, enum sg_error error)
{
    if (op->change_fn)
        answer_change(lane, op, &(struct change_result){.error = error});
    else
        answer(lane, op, &(struct book_result){.error = error});
}

static enum sg_error missed(const struct lane *lane, const struct lane_op *op)
{
    if (op->asked || op->in_flight)
        return SG_OUTCOME_UNKNOWN;
    if (lane->state == LANE_REFUSED)
        return lane->refusal;
    if (lane->state == LANE_CLOSED)
        return SG_SHARD_UNAVAILABLE;
    for (size_t i = 0; i < lane->slot_count; i++) {
        if (lane->slots[i].conn && pgconn_is_ready(lane->slots[i].conn))
            return SG_DEADLINE;
    }
    return SG_SHARD_UNAVAILABLE;
}

static struct lane_queue *queue_of(struct lane *lane, int64_t event_id)
{
    size_t queues = lane->slots[0].txn ? 1 : lane->slot_count;
    return &lane->queues[hash_u64((uint64_t)event_id) % queues];
}

static void enqueue(struct lane *lane, struct lane_op *op)
{
    struct lane_queue *queue = queue_of(lane, op->event_id);
    TAILQ_INSERT_TAIL(&queue->ops, op, place);
    queue->count++;
    lane_schedule_flush(lane);
}

/* Out of its place, if that is not a slot. */
static void withdraw(struct lane *lane, struct lane_op *op)
{
    struct lane_queue *queue = queue_of(lane, op->event_id);
    if (op->waits) {
        unplace(op, &lane->wait);
        op->waits = false;
    } else {
        unplace(op, &queue->ops);
        queue->count--;
    }
}

static void expire(struct lane *lane, int64_t now_us)
{
    struct lane_op *op;
    while ((op = TAILQ_FIRST(&lane->all)) && (now_us >= op->deadline_us || lane->closing)) {
        enum sg_error error = missed(lane, op);
        struct log_fields fields = {
            .request_id = op->request_id, .event_id = op->event_id, .shard = lane->shard};
        if (error == SG_OUTCOME_UNKNOWN)
            log_warn(&fields, "no answer within booking.deadline_ms; the outcome is not known");
        if (op->in_flight) {
            answer_error(lane, op, error);
        } else {
            note(lane, op, &(struct book_result){.error = error});
            withdraw(lane, op);
            answer_error(lane, op, error);
            op_free(lane, op);
        }
    }
}

static void set_tick(struct lane *lane)
{
    struct timeval tv = clock_timeval_us(lane->count ? BUSY_TICK_US : IDLE_TICK_US);
    event_add(lane->tick, &tv);
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    struct lane *lane = arg;
    (void)fd;
    (void)what;
    int64_t now_us = clock_mono_us();
    lane_follow(lane);
    expire(lane, now_us);
    if (lane->state == LANE_REFUSED &&
        (lane->refusal == SG_NOT_SYNCHRONOUS || now_us - lane->refused_us >= REFUSED_US))
        lane_set_state(lane, LANE_OPEN);
    for (size_t i = 0; i < lane->slot_count; i++) {
        lane->slots[i].paused = false;
        start(&lane->slots[i]);
    }
    set_tick(lane);
}

/* --- for the strategies ----------------------------------------------------------------------- */

struct pgconn *lane_slot_conn(struct lane_slot *slot)
{
    return slot->conn;
}

struct lane *lane_slot_lane(struct lane_slot *slot)
{
    return slot->lane;
}

int64_t lane_slot_epoch(const struct lane_slot *slot)
{
    return slot->lane->epoch;
}

enum shardmap_durability lane_slot_durability(const struct lane_slot *slot)
{
    return slot->lane->place.durability;
}

const struct router_config *lane_config(const struct lane *lane)
{
    return lane->config;
}

struct lane_best *lane_best(const struct lane *lane)
{
    return lane->best;
}

struct lane_op_list *lane_slot_ops(struct lane_slot *slot)
{
    return &slot->in_flight;
}

static void land(struct lane_slot *slot, struct lane_op *op)
{
    assert(op->in_flight);
    unplace(op, &slot->in_flight);
    op->in_flight = false;
    slot->in_flight_count--;
}

void lane_finish(struct lane_slot *slot, struct lane_op *op, struct book_result *result)
{
    land(slot, op);
    slot->answered++;
    note(slot->lane, op, result);
    if (!op->answered)
        answer(slot->lane, op, result);
    op_free(slot->lane, op);
}

void lane_finish_change(struct lane_slot *slot, struct lane_op *op, struct change_result *result)
{
    land(slot, op);
    slot->answered++;
    if (!op->answered)
        answer_change(slot->lane, op, result);
    op_free(slot->lane, op);
}

void lane_fail(struct lane_slot *slot, struct lane_op *op, enum sg_error error)
{
    if (op->change_fn)
        lane_finish_change(slot, op, &(struct change_result){.error = error});
    else
        lane_finish(slot, op, &(struct book_result){.error = error});
}

void lane_again(struct lane_slot *slot, struct lane_op *op)
{
    struct lane *lane = slot->lane;
    land(slot, op);
    if (op->answered) {
        note(lane, op, &(struct book_result){.error = SG_OUTCOME_UNKNOWN});
        op_free(lane, op);
        return;
    }
    TAILQ_INSERT_HEAD(&slot->queue->ops, op, place);
    slot->queue->count++;
}

void lane_best_ready(struct lane *lane, struct lane_op *op)
{
    assert(op->waits);
    unplace(op, &lane->wait);
    op->waits = false;
    enqueue(lane, op);
}

void lane_best_finish(struct lane *lane, struct lane_op *op, struct book_result *result)
{
    assert(op->waits);
    note(lane, op, result);
    withdraw(lane, op);
    answer(lane, op, result);
    op_free(lane, op);
}

void lane_slot_idle(struct lane_slot *slot, bool pause)
{
    assert(slot->in_flight_count == 0);
    slot->paused = pause;
    slot->idle_since_us = clock_mono_us();
    slot->population = slot->answered + slot->queue->count;
    if (!pause && slot->queue->count)
        lane_schedule_flush(slot->lane);
}

void lane_slot_failed(struct lane_slot *slot, size_t batch_size)
{
    size_t limit = batch_halve(batch_size);
    slot->limit = limit ? limit : 1;
    slot->limit_left = batch_size;
}

/* --- public ----------------------------------------------------------------------------------- */

static enum booking_strategy strategy_of(const struct router_config *config, enum lane_class class)
{
    return class == LANE_BOOKINGS ? config->settings->booking.strategy : STRATEGY_BATCHED;
}

static size_t slots_wanted(const struct settings *settings, enum booking_strategy strategy)
{
    int64_t connections =
        strategy == settings->booking.strategy ? settings->booking.connections : 0;
    if (connections == 0)
        connections = strategy == STRATEGY_BATCHED ? 1 : 16;
    return connections > LANE_SLOTS_MAX ? LANE_SLOTS_MAX : (size_t)connections;
}

struct lane *lane_new(const struct router_config *config, struct calls *calls, const char *shard,
                      enum lane_class class)
{
    struct lane *lane = calloc(1, sizeof(*lane));
    if (!lane)
        return NULL;
    enum booking_strategy strategy = strategy_of(config, class);
    lane->config = config;
    lane->class = class;
    TAILQ_INIT(&lane->all);
    TAILQ_INIT(&lane->wait);
    snprintf(lane->shard, sizeof(lane->shard), "%s", shard);
    lane->waiting_gauge =
        metrics_series(config->metrics, METRIC_LANE_WAITING, (const char *[]){lane->shard});
    lane->bytes_gauge =
        metrics_series(config->metrics, METRIC_LANE_BYTES, (const char *[]){lane->shard});
    lane->risk_gauge =
        metrics_series(config->metrics, METRIC_AT_RISK, (const char *[]){lane->shard});
    lane->tick = evtimer_new(config->base, on_tick, lane);
    lane->flush = event_new(config->base, -1, 0, on_flush, lane);
    if (class != LANE_CHANGES && strategy == STRATEGY_BATCHED)
        lane->best = lane_best_new(lane, calls);
    size_t wanted = slots_wanted(config->settings, strategy);
    bool ok = lane->tick && lane->flush &&
              (lane->best || class == LANE_CHANGES || strategy != STRATEGY_BATCHED);
    for (size_t i = 0; ok && i < wanted; i++) {
        struct lane_slot *slot = &lane->slots[i];
        TAILQ_INIT(&lane->queues[i].ops);
        TAILQ_INIT(&slot->in_flight);
        slot->lane = lane;
        slot->queue = &lane->queues[strategy == STRATEGY_BATCHED ? i : 0];
        slot->limit = batch_max(lane);
        slot->gather = evtimer_new(config->base, on_gathered, slot);
        if (strategy != STRATEGY_BATCHED)
            slot->txn = txn_new(slot, strategy);
        ok = slot->gather && (slot->txn || strategy == STRATEGY_BATCHED);
        lane->slot_count++;
    }
    if (!ok) {
        lane_free(lane);
        return NULL;
    }
    lane_follow(lane);
    set_tick(lane);
    return lane;
}

void lane_free(struct lane *lane)
{
    if (!lane)
        return;
    lane->closing = true;
    lane_disconnect(lane); /* everything in flight comes back into the queues, asked */
    expire(lane, 0);
    for (size_t i = 0; i < lane->slot_count; i++) {
        txn_free(lane->slots[i].txn);
        if (lane->slots[i].gather)
            event_free(lane->slots[i].gather);
    }
    if (lane->tick)
        event_free(lane->tick);
    if (lane->flush)
        event_free(lane->flush);
    assert(lane->count == 0);
    if (lane->best)
        lane_best_free(lane->best);
    metrics_add(lane->risk_gauge, -at_risk_count(&lane->risk));
    free(lane);
}

const char *lane_shard(const struct lane *lane)
{
    return lane->shard;
}

enum lane_class lane_class(const struct lane *lane)
{
    return lane->class;
}

size_t lane_in_flight(const struct lane *lane)
{
    return lane->count;
}

void lane_sync(struct lane *lane)
{
    lane_follow(lane);
    lane_schedule_flush(lane);
}

/* SG_OK if one more may come in. */
static enum sg_error has_room(const struct lane *lane)
{
    const struct settings *settings = lane->config->settings;
    bool full = lane->count >= (size_t)settings->booking.queue_max ||
                lane->bytes >= (size_t)settings->booking.queue_bytes;
    return full ? SG_OVERLOADED : SG_OK;
}

static void accept_op(struct lane *lane, struct lane_op *op, int64_t map_version, void *arg)
{
    op->map_version = map_version;
    op->arg = arg;
    op->deadline_us = clock_mono_us() + lane->config->settings->booking.deadline_ms * 1000;
    lane->count++;
    lane->bytes += op->size;
    metrics_add(lane->waiting_gauge, 1);
    metrics_add(lane->bytes_gauge, (int64_t)op->size);
    TAILQ_INSERT_TAIL(&lane->all, op, all);
    enqueue(lane, op);
}

enum sg_error lane_book(struct lane *lane, const struct book_request *request, int64_t map_version,
                        router_book_fn *fn, void *arg)
{
    struct lane_op *op = NULL;
    enum sg_error error = has_room(lane);
    assert(lane->class != LANE_CHANGES);
    if (error == SG_OK)
        error = lane_op_take(request, &op);
    if (error != SG_OK)
        return error;
    op->book_fn = fn;
    accept_op(lane, op, map_version, arg);
    return SG_OK;
}

enum sg_error lane_change(struct lane *lane, const struct change_request *request,
                          int64_t map_version, router_change_fn *fn, void *arg)
{
    struct lane_op *op = NULL;
    enum sg_error error = has_room(lane);
    assert(lane->class == LANE_CHANGES);
    if (error == SG_OK)
        error = lane_op_change(request, &op);
    if (error != SG_OK)
        return error;
    op->change_fn = fn;
    accept_op(lane, op, map_version, arg);
    return SG_OK;
}
