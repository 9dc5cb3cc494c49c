/*
 * The local cluster as a whole: PostgreSQL servers, Redis, `seatgrid serve` and
 * `seatgrid cdc`, without containers.
 *
 * Called by the command dev. Each function prints its progress for people, and on failure what went
 * wrong on standard error; a failed or interrupted `up` stops what it started and nothing else.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_DEV_CLUSTER_H
#define SG_DEV_CLUSTER_H

#include <stdbool.h>

#include "base/error.h"
#include "dev/layout.h"

/* Starts what does not run yet. Returns when the API is ready. */
enum sg_error cluster_up(const struct cluster_options *options);
/* Up in the foreground with a demo event and a first booking; returns after a signal has stopped
 * it, or when somebody else did. */
enum sg_error cluster_run(struct cluster_options *options);
/* Stops all that runs; the data stays. */
enum sg_error cluster_down(const char *var);
/* Down, then removes the data and all that `up` wrote. */
enum sg_error cluster_destroy(const char *var);
/* Prints a table, or JSON. SG_OK if all runs, SG_NOT_FOUND if not. */
enum sg_error cluster_status(const char *var, bool json);
/* One server of a cluster that exists: a node's name, "redis", "serve" or "cdc". */
enum sg_error cluster_start_one(const char *var, const char *name);
enum sg_error cluster_stop_one(const char *var, const char *name);

#endif
