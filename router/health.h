/*
 * Health: asks every node of the shard map who it is and how far it is, and publishes the answers.
 *
 *   every health.interval_ms ─> probe (router/probe.h) over one connection a node
 *   answer ─> health_step (pure) ─> struct topology ── publish ──> workers
 *                               └─> attest_due (pure) ─> attester ─> the new primary
 *   suspicion from a worker ─> probe at once
 *
 * Runs on the control thread. Owns a connection of its own to every node, the nodes' states and
 * what is remembered of the shards; hides reconnecting. A node that does not answer delays nobody:
 * every connect and every probe has a deadline (health.timeout_ms), and each node keeps its own
 * time. A failing node is asked again after a jittered pause that doubles up to a second. The nodes
 * of a shard that cannot be written to are asked every health.urgent_ms, a failing one each 50 ms
 * at the latest; never a second time while a question is under way.
 *
 * A new topology is published when something changed, and after each round of probes.
 *
 * With `attest` set, health also attests new primaries (router/attest.h): the one thing it writes.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_ROUTER_HEALTH_H
#define SG_ROUTER_HEALTH_H

#include <stdbool.h>

struct event_base;
struct health;
struct metrics_set;
struct reap_list;
struct settings;
struct snapshot_reader;
struct snapshot_slot;

/* All borrowed, outliving the health object. */
struct health_config {
    const struct settings *settings;
    struct event_base *base;
    struct reap_list *reap;
    struct metrics_set *metrics;
    struct snapshot_reader *publisher; /* of the control thread */
    const struct snapshot_slot *maps;  /* struct shardmap */
    struct snapshot_slot *topologies;  /* struct topology; health is its only publisher */
    bool attest;                       /* attest new primaries; else only look on */
    /* A topology was published in which a node's role, health, epoch or fence changed; may be
     * NULL. From the loop, never from inside a call but health_sync_map. */
    void (*on_change)(void *arg);
    void *arg;
};

/* Takes the published map, publishes a topology of unknowns and starts asking. NULL when memory
 * runs out. */
struct health *health_new(const struct health_config *config);
/* The map changed: nodes that are new are asked at once, those that stayed keep what is known. */
void health_sync_map(struct health *health);
/* Somebody found the node to be not what the topology says: asks it now. Unknown names are fine. */
void health_suspect(struct health *health, const char *node);
/* Closes all connections. The published topology stays with its slot. */
void health_free(struct health *health);

#endif
