/*
 * The sweeper: ends holds whose time is over, shard by shard, so that counters and streams follow
 * and the waiting list is offered the seats. That a seat is free the instant its hold is over does
 * not depend on it.
 *
 *   every sweeper.interval_ms, at once while there is more ─> sweep() on the shard's primary
 *
 * One a process of serve, on the control thread. Of several that sweep one shard the database lets
 * one through at a time. A connection of its own to each primary; its commits wait for no standby:
 * what is lost with a primary is swept again on the next.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_ROUTER_SWEEPER_H
#define SG_ROUTER_SWEEPER_H

struct event_base;
struct metrics_set;
struct reap_list;
struct settings;
struct snapshot_reader;
struct snapshot_slot;
struct sweeper;

/* All borrowed; they outlive the sweeper. */
struct sweeper_config {
    const struct settings *settings;
    struct event_base *base;
    struct reap_list *reap;
    struct metrics_set *metrics;
    struct snapshot_reader *reader;
    const struct snapshot_slot *maps;
    const struct snapshot_slot *topologies;
};

/* NULL when memory runs out. */
struct sweeper *sweeper_new(const struct sweeper_config *config);
void sweeper_free(struct sweeper *sweeper);

#endif
