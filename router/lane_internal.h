/*
 * What the files of the lane share: lane.c (ops, slots, deadlines) and lane_follow.c (which
 * primary, and whether anything may be sent to it). Of nobody else's business.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_ROUTER_LANE_INTERNAL_H
#define SG_ROUTER_LANE_INTERNAL_H

#include "router/at_risk.h"
#include "router/lane.h"
#include "router/lane_aim.h"

struct event;
struct metrics_series;
struct txn;

#define LANE_SLOTS_MAX 128

enum lane_state {
    LANE_CLOSED, /* no primary is known to take writes */
    LANE_OPEN,
    LANE_REFUSED /* one is, but said no to what it was sent */
};

struct lane_queue {
    struct lane_op_list ops;
    size_t count;
};

struct lane_slot {
    struct lane *lane;
    struct lane_queue *queue; /* its own (batched) or the lane's one */
    struct pgconn *conn;      /* NULL as long as the shard has had no primary */
    struct txn *txn;          /* NULL in a batched lane */
    struct lane_op_list in_flight;
    size_t in_flight_count;
    bool paused;       /* until the next tick */
    size_t answered;   /* of the last batch */
    size_t population; /* answered and waiting when the slot became free */
    int64_t idle_since_us;
    struct event *gather; /* a busy lane lets a batch gather until it fires */
    size_t limit;         /* of the next batch */
    size_t limit_left;    /* ops to go before the limit is lifted again */
};

struct lane {
    const struct router_config *config;
    char shard[SHARDMAP_NAME_MAX + 1];
    enum lane_class class;
    enum lane_state state;
    struct lane_place place; /* the primary that the slots connect to */
    int64_t epoch;
    enum sg_error refusal; /* LANE_REFUSED: why */
    int64_t refused_us;
    uint64_t topology_serial;
    uint64_t map_serial;
    struct lane_op_list all;  /* not yet answered */
    struct lane_op_list wait; /* for their seats to be chosen */
    struct lane_best *best;   /* NULL: no takes */
    size_t count;             /* not yet freed */
    size_t bytes;             /* of these */
    struct at_risk risk;
    struct lane_queue queues[LANE_SLOTS_MAX];
    struct lane_slot slots[LANE_SLOTS_MAX];
    size_t slot_count;
    struct event *tick;
    struct event *flush; /* runs behind the events of this turn of the loop: what they brought goes
                            together */
    bool flush_scheduled;
    bool closing;
    struct metrics_series *waiting_gauge;
    struct metrics_series *bytes_gauge;
    struct metrics_series *risk_gauge;
};

/* What can be sent is, behind the events of this turn of the loop. */
void lane_schedule_flush(struct lane *lane);

void lane_set_state(struct lane *lane, enum lane_state state);
/* Looks at the topology and the map, if they are new, and goes where they say. */
void lane_follow(struct lane *lane);
/* Gives the connections up; what is in flight on them comes back, to be asked again. */
void lane_disconnect(struct lane *lane);

#endif
