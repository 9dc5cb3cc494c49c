/*
 * A worker: one thread with an event loop, a listening socket (SO_REUSEPORT), HTTP connections, a
 * router and its connections to PostgreSQL. It shares nothing with other workers.
 *
 *   control ── mailbox: the map or the topology changed, drain ──> worker
 *   control <── mailbox: a node is suspect, drained ── worker
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_API_WORKER_H
#define SG_API_WORKER_H

#include "base/error.h"
#include "base/mailbox.h"

struct queue_publisher;
struct settings;
struct snapshot_domain;
struct snapshot_slot;
struct worker;

/* What a worker tells the control thread. */
enum worker_event {
    WORKER_SUSPECTS_NODE, /* text: the node */
    WORKER_DRAINED
};

/* Borrowed, outliving the worker. */
struct worker_config {
    const struct settings *settings;
    unsigned index;
    unsigned count; /* of workers: connections are bounded by http.max_connections / count */
    struct snapshot_domain *domain;
    const struct snapshot_slot *maps;
    const struct snapshot_slot *topologies;
    struct mailbox *to_control;        /* this worker is its one sender */
    struct queue_publisher *publisher; /* NULL: no RabbitMQ */
    struct best_news *best_news;       /* of all workers */
};

/* Opens the listening socket and builds everything; the thread starts with worker_start. On failure
 * a readable line is in error_text. */
enum sg_error worker_new(const struct worker_config *config, struct worker **ret_worker,
                         char *error_text, size_t error_size);
enum sg_error worker_start(struct worker *worker);
/* Called by the control thread. */
void worker_map_changed(struct worker *worker);
/* One order is enough, however often it changes until the worker looks. */
void worker_topology_changed(struct worker *worker);
/* Stops accepting; WORKER_DRAINED follows when nothing is left or http.drain_timeout_ms passed. */
void worker_drain(struct worker *worker);
/* Ends the loop without waiting for anybody, and joins the thread. */
void worker_stop(struct worker *worker);
/* After worker_stop (or without worker_start). */
void worker_free(struct worker *worker);

#endif
