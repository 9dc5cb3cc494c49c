/*
 * One PostgreSQL server of the local cluster: made, started, asked, stopped.
 *
 * A node's data is made under another name and renamed when it is whole, so that an interrupted
 * `up` leaves nothing half-made behind. What depends on ports and roles stands in seatgrid.conf,
 * written anew before each start.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_DEV_POSTGRES_H
#define SG_DEV_POSTGRES_H

#include <stdbool.h>

#include "base/error.h"
#include "dev/layout.h"

bool postgres_exists(const struct cluster *cluster, const struct server *node);
/* By its files: it starts as a replica. What it is when it runs: dev/roles.h. */
bool postgres_is_standby(const struct cluster *cluster, const struct server *node);
/* Making a node takes seconds and runs beside others: begin gives the process to wait for, end
 * waits, configures and puts the data in place, instead of what is there. */
enum sg_error postgres_init_begin(struct cluster *cluster, const struct server *node,
                                  struct process_id *ret_id);
enum sg_error postgres_copy_begin(struct cluster *cluster, const struct server *node,
                                  const struct server *primary, struct process_id *ret_id);
enum sg_error postgres_init_end(struct cluster *cluster, const struct server *node,
                                const struct process_id *id);
enum sg_error postgres_copy_end(struct cluster *cluster, const struct server *node,
                                const struct process_id *id);

/* Fills node->id (pid 0 if it does not run); the port, too, if the node knows none. */
void postgres_inspect(const struct cluster *cluster, struct server *node);
/* Writes seatgrid.conf and starts the server; does not wait for it. */
enum sg_error postgres_start(struct cluster *cluster, struct server *node);
/* Waits until it takes connections. */
enum sg_error postgres_wait_ready(struct cluster *cluster, struct server *node);
/* Fast shutdown, then harder. False if it lives on. */
bool postgres_stop(const struct cluster *cluster, struct server *node);
/* To the server and all its processes, as many as are found. */
int postgres_signal_all(const struct cluster *cluster, const struct server *node, int signal);

/* Role and database for SeatGrid on a primary, and a slot for each of its replicas; what is there
 * already stays. */
enum sg_error postgres_prepare(struct cluster *cluster, const struct server *primary);

/* --- for those who work on the data of a node that does not run ------------------------------- */

/* After a crash: waits for what is left of the server, removes its lock files. */
enum sg_error postgres_clear_stale_locks(struct cluster *cluster, const struct server *node);
/* A file of the data folder, owned by the servers' user. */
enum sg_error postgres_write_file(struct cluster *cluster, const struct server *node,
                                  const char *name, const char *text);
/* All of it on disk. */
enum sg_error postgres_sync(struct cluster *cluster, const struct server *node);

#endif
