/*
 * The servers of a local cluster taken together: opened, inspected, counted, stopped.
 *
 * What `up`, `down`, `status` and the others share.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_DEV_SERVERS_H
#define SG_DEV_SERVERS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"
#include "dev/layout.h"

/* Never NULL: without memory the command ends here. */
struct cluster *servers_new(const struct cluster_options *options);
/* The same with nothing known but the folder. */
struct cluster *servers_of(const char *var);
/* Gives the lock back, too. */
void servers_free(struct cluster *cluster);
/* Ends a command: says what went wrong, frees, hands the error through. */
enum sg_error servers_finish(struct cluster *cluster, enum sg_error error);

/* A cluster that exists, with the nodes found in it, inspected, their roles learned. SG_NOT_FOUND
 * if there is none. */
enum sg_error servers_open(struct cluster *cluster, bool lock);
/* For the time of one change: the lock, which another command may hold for a while, and a fresh
 * look at servers and roles. Given back by folders_unlock. */
enum sg_error servers_lock(struct cluster *cluster);
/* By name; NULL, with cluster->problem, if the cluster has no such server, or it is no node. */
struct server *servers_find(struct cluster *cluster, const char *name);
struct server *servers_find_node(struct cluster *cluster, const char *name);
/* Asks the system which of the servers run. */
void servers_inspect(struct cluster *cluster);
size_t servers_count_running(const struct cluster *cluster);
bool servers_started_here(const struct cluster *cluster);
/* serve, worker, cdc, replicas, primaries, redis, rabbitmq, etcd: nobody loses what they still
 * need. With `own_only` just what this command started. False if something lives on. */
bool servers_stop(struct cluster *cluster, bool own_only);

#endif
