/*
 * The running server: the control thread and its workers. What `seatgrid serve` runs.
 *
 *   control thread: signals, reload, health, admin listener ──┬── maps ───────> worker 1..N
 *                                                             └── topologies ─> (snapshots)
 *
 * SIGTERM and SIGINT drain and stop (a second one stops at once); SIGHUP reloads the shard map.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_API_SERVER_H
#define SG_API_SERVER_H

#include "base/error.h"

struct settings;
struct shardmap;

/* Runs until it is told to stop. Takes the map over. SG_OK after a regular stop; otherwise the
 * server did not start, and why is in the log. */
enum sg_error server_run(const struct settings *settings, struct shardmap *map);

#endif
