/*
 * The lane. See lane.h for the path of a booking.
 *
 * A booking is in exactly one place: waiting in a queue, or in flight in a slot. `all` holds those
 * that have not been answered, in order of acceptance, which is the order of their deadlines.
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

static void unplace(struct booking_op *op, struct booking_op_list *list)
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
        struct booking_op *op = TAILQ_FIRST(&slot->queue->ops);
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
    struct booking_op *op;
    while ((op = TAILQ_LAST(&slot->in_flight, booking_op_list))) {
        op->asked = true;
        lane_again(slot, op);
    }
}

static bool start_batch(struct lane_slot *slot)
{
    struct batch_item items[BATCH_MAX];
    bool rivals[BATCH_MAX];
    struct booking_op *op;
    size_t count = 0;
    size_t limit = slot->limit < BATCH_MAX ? slot->limit : BATCH_MAX;
    TAILQ_FOREACH (op, &slot->queue->ops, place) {
        if (count == limit)
            break;
        items[count++] = (struct batch_item){.event_id = op->event_id,
                                             .seats = op->seats,
                                             .seat_count = op->seat_count,
                                             .idempotency_key = op->idempotency_key};
    }
    count = batch_plan(items, count, limit, rivals);
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

static void op_free(struct lane *lane, struct booking_op *op)
{
    lane->count--;
    lane->bytes -= op->size;
    metrics_add(lane->waiting_gauge, -1);
    metrics_add(lane->bytes_gauge, -(int64_t)op->size);
    free(op);
}

static void answer(struct lane *lane, struct booking_op *op, struct book_result *result)
{
    struct route *route = &result->route;
    memcpy(route->shard, lane->shard, sizeof(route->shard)); /* arrays of one size */
    memcpy(route->node, lane->place.node, sizeof(route->node));
    route->map_version = op->map_version;
    route->staleness_us = 0;
    op->answered = true;
    TAILQ_REMOVE(&lane->all, op, all);
    op->fn(op->arg, result);
}

static enum sg_error missed(const struct lane *lane, const struct booking_op *op)
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

static void expire(struct lane *lane, int64_t now_us)
{
    struct booking_op *op;
    while ((op = TAILQ_FIRST(&lane->all)) && (now_us >= op->deadline_us || lane->closing)) {
        struct book_result result = {.error = missed(lane, op)};
        struct log_fields fields = {
            .request_id = op->request_id, .event_id = op->event_id, .shard = lane->shard};
        if (result.error == SG_OUTCOME_UNKNOWN)
            log_warn(&fields, "no answer within booking.deadline_ms; the outcome is not known");
        answer(lane, op, &result);
        if (!op->in_flight) {
            struct lane_queue *queue = queue_of(lane, op->event_id);
            unplace(op, &queue->ops);
            queue->count--;
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

struct booking_op_list *lane_slot_ops(struct lane_slot *slot)
{
    return &slot->in_flight;
}

static void land(struct lane_slot *slot, struct booking_op *op)
{
    assert(op->in_flight);
    unplace(op, &slot->in_flight);
    op->in_flight = false;
    slot->in_flight_count--;
}

void lane_finish(struct lane_slot *slot, struct booking_op *op, struct book_result *result)
{
    struct lane *lane = slot->lane;
    land(slot, op);
    slot->answered++;
    if (!op->answered)
        answer(lane, op, result);
    op_free(lane, op);
}

void lane_again(struct lane_slot *slot, struct booking_op *op)
{
    struct lane *lane = slot->lane;
    land(slot, op);
    if (op->answered) {
        op_free(lane, op);
        return;
    }
    TAILQ_INSERT_HEAD(&slot->queue->ops, op, place);
    slot->queue->count++;
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

void lane_refused(struct lane_slot *slot, enum sg_error refusal)
{
    struct lane *lane = slot->lane;
    lane->refusal = refusal;
    lane->refused_us = clock_mono_us();
    if (lane->state == LANE_OPEN)
        lane_set_state(lane, LANE_REFUSED);
    lane_suspect(lane);
}

void lane_acknowledged(struct lane_slot *slot, const struct read_token *token, int64_t bookings)
{
    struct lane *lane = slot->lane;
    if (lane->place.durability == SHARDMAP_SYNC || bookings == 0)
        return;
    if (token->lsn)
        lane_follow_timeline(lane, token->timeline);
    at_risk_add(&lane->risk, token->lsn, bookings);
    metrics_add(lane->risk_gauge, bookings);
}

void lane_slot_suspect(struct lane_slot *slot, const char *reason)
{
    lane_suspect(slot->lane);
    if (slot->conn)
        pgconn_reset(slot->conn, reason);
}

void lane_slot_failed(struct lane_slot *slot, size_t batch_size)
{
    size_t limit = batch_halve(batch_size);
    slot->limit = limit ? limit : 1;
    slot->limit_left = batch_size;
}

bool lane_outcome(const char *outcome, enum sg_error *ret_error)
{
    static const struct {
        const char *outcome;
        enum sg_error error;
    } outcomes[] = {{"booked", SG_OK},
                    {"replayed", SG_OK},
                    {"seats_taken", SG_SEATS_TAKEN},
                    {"unknown_seat", SG_UNKNOWN_SEAT},
                    {"unknown_event", SG_UNKNOWN_EVENT},
                    {"key_reused", SG_KEY_REUSED},
                    {"fenced", SG_FENCED},
                    {"stale_epoch", SG_STALE_EPOCH},
                    {"not_synchronous", SG_NOT_SYNCHRONOUS}};
    for (size_t i = 0; i < sizeof(outcomes) / sizeof(outcomes[0]); i++) {
        if (strcmp(outcome, outcomes[i].outcome) == 0) {
            *ret_error = outcomes[i].error;
            return true;
        }
    }
    return false;
}

/* --- public ----------------------------------------------------------------------------------- */

static size_t slots_wanted(const struct settings *settings)
{
    int64_t connections = settings->booking.connections;
    if (connections == 0)
        connections = settings->booking.strategy == STRATEGY_BATCHED ? 1 : 16;
    return connections > LANE_SLOTS_MAX ? LANE_SLOTS_MAX : (size_t)connections;
}

struct lane *lane_new(const struct router_config *config, const char *shard)
{
    struct lane *lane = calloc(1, sizeof(*lane));
    if (!lane)
        return NULL;
    enum booking_strategy strategy = config->settings->booking.strategy;
    lane->config = config;
    TAILQ_INIT(&lane->all);
    snprintf(lane->shard, sizeof(lane->shard), "%s", shard);
    lane->waiting_gauge =
        metrics_series(config->metrics, METRIC_LANE_WAITING, (const char *[]){lane->shard});
    lane->bytes_gauge =
        metrics_series(config->metrics, METRIC_LANE_BYTES, (const char *[]){lane->shard});
    lane->risk_gauge =
        metrics_series(config->metrics, METRIC_AT_RISK, (const char *[]){lane->shard});
    lane->tick = evtimer_new(config->base, on_tick, lane);
    lane->flush = event_new(config->base, -1, 0, on_flush, lane);
    size_t wanted = slots_wanted(config->settings);
    bool ok = lane->tick && lane->flush;
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
    metrics_add(lane->risk_gauge, -at_risk_count(&lane->risk));
    free(lane);
}

const char *lane_shard(const struct lane *lane)
{
    return lane->shard;
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

/* What makes two requests with one key the same request. */
static int64_t request_hash(const struct book_request *request)
{
    uint64_t hash = hash_bytes(HASH_START, request->user_id, strlen(request->user_id) + 1);
    for (size_t i = 0; i < request->seat_count; i++) {
        uint64_t place =
            (uint64_t)(uint32_t)request->seats[i].row << 32 | (uint32_t)request->seats[i].col;
        hash = hash_bytes(hash, &place, sizeof(place));
    }
    return (int64_t)hash;
}

static char *append(char **at, const char *text)
{
    if (!text)
        return NULL;
    size_t size = strlen(text) + 1;
    char *copy = memcpy(*at, text, size);
    *at += size;
    return copy;
}

/* One block: the op, its seats, its texts. */
static struct booking_op *op_new(const struct book_request *request)
{
    size_t seats_size = request->seat_count * sizeof(struct seat);
    size_t text_size = strlen(request->user_id) + 1;
    text_size += request->idempotency_key ? strlen(request->idempotency_key) + 1 : 0;
    text_size += request->request_id ? strlen(request->request_id) + 1 : 0;
    struct booking_op *op = malloc(sizeof(*op) + seats_size + text_size);
    if (!op)
        return NULL;
    *op = (struct booking_op){.event_id = request->event_id,
                              .booking_id = uuid_v7(clock_wall_us()),
                              .request_hash = request_hash(request),
                              .seat_count = request->seat_count,
                              .size = sizeof(*op) + seats_size + text_size};
    memcpy(op->seats, request->seats, seats_size);
    char *at = (char *)op->seats + seats_size;
    op->user_id = append(&at, request->user_id);
    op->idempotency_key = append(&at, request->idempotency_key);
    op->request_id = append(&at, request->request_id);
    return op;
}

enum sg_error lane_book(struct lane *lane, const struct book_request *request, int64_t map_version,
                        router_book_fn *fn, void *arg)
{
    const struct settings *settings = lane->config->settings;
    if (lane->count >= (size_t)settings->booking.queue_max ||
        lane->bytes >= (size_t)settings->booking.queue_bytes)
        return SG_OVERLOADED;
    struct booking_op *op = op_new(request);
    if (!op)
        return SG_NO_MEMORY;
    op->map_version = map_version;
    op->fn = fn;
    op->arg = arg;
    op->deadline_us = clock_mono_us() + settings->booking.deadline_ms * 1000;
    lane->count++;
    lane->bytes += op->size;
    metrics_add(lane->waiting_gauge, 1);
    metrics_add(lane->bytes_gauge, (int64_t)op->size);
    TAILQ_INSERT_TAIL(&lane->all, op, all);
    struct lane_queue *queue = queue_of(lane, op->event_id);
    TAILQ_INSERT_TAIL(&queue->ops, op, place);
    queue->count++;
    lane_schedule_flush(lane);
    return SG_OK;
}
