/*
 * A node that has dropped out of its shard becomes a standby of its primary again.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_DEV_REJOIN_H
#define SG_DEV_REJOIN_H

#include "base/error.h"
#include "dev/cluster.h"
#include "dev/layout.h"

/* From the mildest means to the hardest, until the node streams. The lock is held, the roles are
 * known, the primary runs. */
enum sg_error rejoin_node(struct cluster *cluster, struct server *node, struct server *primary,
                          enum cluster_rejoin_way *ret_way);
/* A running standby follows another running node of its shard, whatever that is. */
enum sg_error rejoin_follow(struct cluster *cluster, struct server *node, struct server *upstream,
                            enum cluster_rejoin_way *ret_way);
/* For people: "streams already from", "rewound, streams from" ... */
const char *rejoin_way_text(enum cluster_rejoin_way way);

#endif
