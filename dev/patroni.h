/*
 * Patroni in the local cluster: one process a node, which makes, starts, promotes, rewinds and
 * stops that node's PostgreSQL, as etcd says who leads the shard.
 *
 * Its configuration is written before each start; deploy/patroni/patroni.yml has the same choices
 * with their reasons. Between Patroni and the router there is no wire: the router asks the servers.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_DEV_PATRONI_H
#define SG_DEV_PATRONI_H

#include <stdbool.h>

#include "base/error.h"
#include "dev/layout.h"

/* Patroni that is stopped while it makes a node for the first time leaves data that it cannot start
 * afterwards. As long as not all nodes have been seen at work once there is nothing in it: what a
 * former `up` has left half made is removed here, etcd's memory of it, too. */
enum sg_error patroni_clear_half_made(struct cluster *cluster);
/* All nodes are at work: from now on the data stays. */
enum sg_error patroni_note_made(struct cluster *cluster);

/* Of the node with this index in cluster->nodes. */
void patroni_inspect(struct cluster *cluster, size_t index);
/* Writes the configuration and starts it; does not wait for PostgreSQL. */
enum sg_error patroni_start(struct cluster *cluster, size_t index);
/* Patroni stops its PostgreSQL first; both are gone afterwards. False if something lives on. */
bool patroni_stop(struct cluster *cluster, size_t index);

/* Waits until the node's PostgreSQL runs: as the leader of its shard, or streaming from it. */
enum sg_error patroni_wait_node(struct cluster *cluster, size_t index);
/* A planned switchover to that node, by Patroni; returns when it is the leader. */
enum sg_error patroni_switchover(struct cluster *cluster, size_t index);

#endif
