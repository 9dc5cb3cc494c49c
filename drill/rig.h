/*
 * The cluster that a drill torments: brought up, watched, commanded, taken down.
 *
 * In come options; out come the addresses of the API, what the router knows of its nodes, and
 * answers to "is all of it well again?". The servers are those of `seatgrid dev`, in a folder of
 * the drill's own, or in one that is given; commands to them are this same program, started as a
 * child, so that what the drill does is what an operator would type. Their output goes to a log
 * in the folder. Blocking, for one thread; every wait has an end.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_DRILL_RIG_H
#define SG_DRILL_RIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "dev/layout.h"

struct shardmap;

#define RIG_ARGUMENTS_MAX 48
#define RIG_UNKNOWN_MS (-1)
#define RIG_ANSWER_MAX 128

struct rig_options {
    const char *var;  /* a cluster that runs; NULL: one of the drill's own */
    const char *keep; /* NULL, or the folder for the drill's own, whose data stays afterwards */
    int port_base;    /* of its own; 0: any free ones */
    int replicas;     /* a shard */
    bool sync;        /* durability */
    bool ha;          /* Patroni does the promotions */
};

struct rig {
    struct rig_options options;
    char var[CLUSTER_VAR_MAX];
    char binary[CLUSTER_PATH_MAX];
    char log[CLUSTER_PATH_MAX]; /* of the commands */
    bool network;               /* a network of its own, with cuts */
    const char *network_why;    /* why it has none */
    int port_base;
    struct cluster *cluster; /* open, without its lock */
    char http[32];           /* host:port */
    char admin[32];
    char cdc[32];
    int64_t deadline_ms;      /* booking.deadline_ms: how long a write waits for a primary */
    int64_t max_staleness_ms; /* reads.max_staleness_ms: a replica older than that is out */
    struct shardmap *map;
    char problem[1024]; /* what went wrong last, for people */
};

/* What the router knows of a node. */
struct rig_node {
    char name[64];
    char shard[64];
    bool up;
    bool primary;
    bool writable; /* up, primary, attested, not fenced */
    bool in_rotation;
    int timeline;
    int64_t staleness_ms; /* RIG_UNKNOWN_MS */
};

struct rig_view {
    struct rig_node nodes[CLUSTER_NODES_MAX];
    size_t count;
};

/* Makes the folder of the drill's own cluster; starts nothing yet. */
enum sg_error rig_init(struct rig *rig, const struct rig_options *options);
/* Enters a network of its own if it can, starts the cluster, or looks at the one that is given.
 * SG_OK when all of it is whole. */
enum sg_error rig_up(struct rig *rig);
/* Stops the drill's own cluster and removes it, or keeps its data; leaves a given one alone. Again
 * is fine, also from the process that has forked the one which called rig_up. */
void rig_down(struct rig *rig);

/* Runs `seatgrid ARGUMENT... ` (ended by NULL), waits for its end. */
enum sg_error rig_command(struct rig *rig, int64_t timeout_ms, const char *argument, ...)
    __attribute__((sentinel));
/* Notes what went wrong and gives SG_IO. */
enum sg_error rig_fail(struct rig *rig, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Port of a node, or of "redis"; 0: no such server. */
int rig_port(const struct rig *rig, const char *server);
/* Asks a node as its superuser; ret_text (RIG_ANSWER_MAX, or NULL) is the first value of the
 * answer, "" for none. */
enum sg_error rig_ask(struct rig *rig, const char *node, const char *sql, char *ret_text);

/* The router's view now; false if it does not answer. */
bool rig_look(const struct rig *rig, struct rig_view *ret_view);
/* A gauge or counter of the router's /metrics, summed over its series; negative: no answer. */
double rig_metric(const struct rig *rig, const char *name);
const struct rig_node *rig_find(const struct rig_view *view, const char *name);
/* The node that the router writes to; NULL if it knows none. */
const struct rig_node *rig_primary(const struct rig_view *view, const char *shard);
/* Every server does what it is there for: each shard has its primary, all others replicate from it
 * and are in rotation, and the consumer is in step. Else ret_why says what is missing. */
bool rig_whole(const struct rig *rig, char *ret_why, size_t size);
/* Asks that until it is so. */
enum sg_error rig_await_whole(struct rig *rig, int64_t timeout_ms);
/* Redis laid beside PostgreSQL: keys that differ, of all shards. Nothing is healed. */
enum sg_error rig_reconcile(struct rig *rig, int64_t timeout_ms, int64_t *ret_drift);

#endif
