/*
 * The running consumer of the queue: what `seatgrid worker` runs. An event loop, and the thread
 * that has the connection to RabbitMQ.
 *
 *   signals, health ── topologies ──> router <── queue/consumer.h <── RabbitMQ
 *   the map's file ── router/reload.h ──> another map
 *   admin listener (queue.worker_listen): /healthz, /readyz, /metrics, /admin/queue
 *
 * SIGTERM and SIGINT stop it: what the router was asked for is waited for, http.drain_timeout_ms at
 * most; the rest goes back to the queue. A shard map that changes is read anew within seconds, on
 * SIGHUP at once; for one with another shard the consumer is replaced, which costs no message.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_API_QUEUE_SERVER_H
#define SG_API_QUEUE_SERVER_H

#include "base/error.h"

struct settings;
struct shardmap;

/* Runs until it is told to stop. Takes the map over. SG_OK after a regular stop; otherwise it did
 * not start, and why is in the log. */
enum sg_error queue_server_run(const struct settings *settings, struct shardmap *map);

#endif
