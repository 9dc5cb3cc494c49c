/*
 * Replication between the nodes of a shard: the settings that make one follow another, the slots,
 * and whether it does.
 *
 * What depends on ports and roles stands in seatgrid.conf of each node, which is written anew
 * before each start and when its primary changes. Every node has the settings for both roles, so
 * that a promotion needs no restart: a primary ignores primary_conninfo, a standby ignores
 * synchronous_standby_names.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_DEV_STANDBY_H
#define SG_DEV_STANDBY_H

#include <stdint.h>

#include "base/error.h"
#include "dev/layout.h"

#define STANDBY_SLOT_MAX 64

/* The name of the node's slot on its primary; slot names know no dash. */
void standby_slot(const struct server *node, char ret_name[STANDBY_SLOT_MAX]);
/* seatgrid.conf. The roles are known (roles_learn). */
enum sg_error standby_write_settings(struct cluster *cluster, const struct server *node);
/* The node starts as a standby from now on; it does not run. */
enum sg_error standby_mark(struct cluster *cluster, const struct server *node);
/* A running standby reads its settings and follows that node: the primary, or another standby. */
enum sg_error standby_point(struct cluster *cluster, const struct server *node,
                            const struct server *upstream);
/* Whom the running standby was told to follow; NULL if it is none, or says nothing. */
struct server *standby_upstream(struct cluster *cluster, const struct server *node);

/* A slot for each other node of the shard, on its primary. One that has lost its WAL is made anew.
 */
enum sg_error standby_make_slots(struct cluster *cluster, const struct server *primary);
/* One for the node, on that one. */
enum sg_error standby_make_slot(struct cluster *cluster, const struct server *node,
                                const struct server *upstream);
/* Removes the node's slot from all running nodes but the one it follows: nobody reads it there any
 * more. Who does not answer keeps it until it rejoins. */
void standby_leave_others(struct cluster *cluster, const struct server *node,
                          const struct server *upstream);
/* Removes every slot that the standby keeps itself and nobody reads. */
enum sg_error standby_drop_slots(struct cluster *cluster, const struct server *node);
/* Ends what still reads the node's slot, so that it can be used. */
void standby_free_slot(const struct server *node, const struct server *primary);

enum standby_state {
    STANDBY_STREAMS, /* from that primary */
    STANDBY_WAITS,   /* not yet */
    STANDBY_ASTRAY,  /* it has WAL that the primary never had */
    STANDBY_DEAD,
};

/* Waits until the standby streams from the primary, has been found astray for a while, has died,
 * or the time is up. */
enum standby_state standby_wait(struct cluster *cluster, const struct server *node,
                                const struct server *primary, int64_t timeout_ms);

#endif
