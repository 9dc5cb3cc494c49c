/*
 * The local cluster as a whole: PostgreSQL servers, Redis, `seatgrid serve` and
 * `seatgrid cdc`, without containers.
 *
 * Called by the command dev, and by drills for single servers. A failed or interrupted `up` stops
 * what it started and nothing else.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_DEV_CLUSTER_H
#define SG_DEV_CLUSTER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "dev/layout.h"

/* --- the whole: these print their progress for people, and on failure what went wrong --------- */

/* Starts what does not run yet, and brings back what has dropped out of its shard. Returns when the
 * API is ready. */
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

/* --- one server of a cluster that exists: quiet, what went wrong stands in cluster->problem ----
 *
 * The cluster comes from servers_of and servers_open without its lock (dev/servers.h) and may be
 * used for any number of calls. Those that change data or start something take the lock while they
 * work, and wait for another command to give it back. `name`: a node's name, "redis", "serve",
 * "cdc" or "mockpay"; with a queue "rabbitmq" and "worker"; under Patroni also "etcd", and
 * "<node>-patroni".
 *
 * Under Patroni a node starts and stops together with its Patroni, a promotion is a switchover that
 * Patroni makes, and rejoining is waiting for it. To pause or kill a node does nothing to its
 * Patroni. */

/* SG_OK, too, if it runs already. An old primary is not started as a second one, unless `force`. */
enum sg_error cluster_start_one(struct cluster *cluster, const char *name, bool force);
/* In order, then harder; a frozen one is woken first. */
enum sg_error cluster_stop_one(struct cluster *cluster, const char *name);
/* SIGSTOP to all its processes: connections are taken, nothing is said. SIGCONT undoes it. */
enum sg_error cluster_pause_one(struct cluster *cluster, const char *name);
enum sg_error cluster_resume_one(struct cluster *cluster, const char *name);
/* SIGKILL to all its processes, as a power cut would; returns when none lives. */
enum sg_error cluster_kill_one(struct cluster *cluster, const char *name);

struct cluster_promotion {
    bool already;        /* it was the primary: nothing was done */
    char former[64];     /* the primary until now; "" if the shard had none */
    int64_t promoted_us; /* from the call until the node was out of recovery */
    int64_t followed_us; /* from then until the living standbys streamed from it */
    int followers;       /* those that do */
    char astray[64];     /* one that does not, and needs a rejoin; "" */
};

/* Makes a running standby the primary of its shard, however its primary fares. The shard's other
 * running standbys follow it from before its promotion on, so that the primary of until now, when
 * it wakes up, finds none that would confirm its writes. Refused, unless `force`, if one of them
 * has received more WAL than the node. */
enum sg_error cluster_promote(struct cluster *cluster, const char *name, bool force,
                              struct cluster_promotion *ret_promotion);

enum cluster_rejoin_way {
    REJOIN_ALREADY,  /* it streamed from the primary */
    REJOIN_FOLLOWED, /* a running standby of another primary: pointed at this one */
    REJOIN_STARTED,  /* as a standby, its data as it was */
    REJOIN_REWOUND,  /* pg_rewind, then started */
    REJOIN_COPIED,   /* a new copy of the primary */
};

struct cluster_rejoin {
    enum cluster_rejoin_way way;
    char primary[64]; /* or the upstream */
    int64_t took_us;
};

/* Makes a node, in whatever state, a standby that streams from its shard's running primary. Its own
 * replication slots go: one that nobody reads would keep its WAL for ever. With an upstream: makes
 * a running standby stream from that node of its shard, whatever that is; not under Patroni. */
enum sg_error cluster_rejoin(struct cluster *cluster, const char *name, const char *upstream,
                             struct cluster_rejoin *ret_rejoin);

#endif
