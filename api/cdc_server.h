/*
 * The running consumer of all shards: what `seatgrid cdc` runs. One thread, one event loop.
 *
 *   signals, health ── topologies ──> one consumer a shard (replication/consumer.h) ──> Redis
 *   admin listener (cdc.listen) ──> api/cdc_admin.h
 *
 * SIGTERM and SIGINT stop it: what was not confirmed to a slot comes again at the next start. The
 * shard map is read at the start; another one wants a restart, which costs no event.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_API_CDC_SERVER_H
#define SG_API_CDC_SERVER_H

#include "base/error.h"

struct settings;
struct shardmap;

/* Runs until it is told to stop. Takes the map over. SG_OK after a regular stop; otherwise it did
 * not start, and why is in the log. */
enum sg_error cdc_server_run(const struct settings *settings, struct shardmap *map);

#endif
