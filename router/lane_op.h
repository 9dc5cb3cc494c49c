/*
 * An op: one request on its way through a lane, a take or a change. Made from the request, one
 * block of memory with all it points to; owned by its lane.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_ROUTER_LANE_OP_H
#define SG_ROUTER_LANE_OP_H

#include <sys/queue.h>

#include "base/uuid.h"
#include "router/router.h"

struct lane_op {
    TAILQ_ENTRY(lane_op) all;   /* in order of acceptance */
    TAILQ_ENTRY(lane_op) place; /* in a queue, in flight in a slot, or among those that wait */
    int64_t event_id;
    struct uuid booking_id; /* that is made, or changed */
    int64_t request_hash;
    int64_t deadline_us;
    int64_t map_version;
    router_book_fn *book_fn;     /* of a take; else NULL */
    router_change_fn *change_fn; /* of a change; else NULL */
    void *arg;
    char *user_id;
    char *idempotency_key; /* NULL for none */
    char *request_id;
    size_t size;     /* of all of it, in bytes */
    bool asked;      /* was in flight when its connection went */
    bool look_first; /* for its booking, or for the change: it may be there already */
    bool in_flight;
    bool waits;     /* for its seats to be chosen, in no queue */
    bool answered;  /* at its deadline, in flight; freed when it comes back */
    unsigned tries; /* lost races, for the strategies that count them */

    /* a take: */
    int64_t hold_ms;          /* 0: booked */
    char *method;             /* NULL: no order */
    struct best_wish *wishes; /* seats are to be chosen */
    size_t wish_count;
    struct seat *seats;
    size_t seat_count; /* with wishes: 0 while they are not chosen */
    size_t seat_room;  /* `seats` has room for so many */
    void *best;        /* lane_best.c's; NULL at first */

    /* a change: */
    enum change_kind kind;
    struct uuid change_id;
    int64_t extend_ms;
    char *to_user; /* NULL for none */
};

TAILQ_HEAD(lane_op_list, lane_op);

/* NULL in *ret_op's place is never given: SG_OK, SG_NO_MEMORY, SG_INVALID_VALUE (a booking id that
 * is no UUID). Freed with free(). */
enum sg_error lane_op_take(const struct book_request *request, struct lane_op **ret_op);
enum sg_error lane_op_change(const struct change_request *request, struct lane_op **ret_op);

#endif
