/*
 * What a local cluster consists of: its servers, their names, ports and folders.
 *
 *   VAR/seatgrid.cfg shardmap.cfg     what `seatgrid serve` and `seatgrid cdc` read
 *   VAR/payment.secret                what `seatgrid mockpay` signs with and serve verifies
 *   VAR/mockpay.journal               what it has charged
 *   VAR/log/<server>.log              one a server
 *   VAR/run/                          lock, pid files, the ports in use
 *   VAR/servers/<node>/, redis/       data; a link elsewhere if the servers' user cannot reach VAR
 *
 * Ports, from --port-base, one primary and R replicas a shard:
 *   alpha-1, alpha-2 .. alpha-(R+1), beta-1, beta-2 .. beta-(R+1), redis, cdc
 * then with --ha
 *   etcd, etcd for its own kind, the REST APIs of alpha-1-patroni .. beta-(R+1)-patroni
 * then with --queue
 *   rabbitmq, two more of its own (rabbitmq.h), worker
 * then
 *   mockpay
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_DEV_LAYOUT_H
#define SG_DEV_LAYOUT_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"
#include "dev/process.h"

#define CLUSTER_PATH_MAX 1024
#define CLUSTER_VAR_MAX 512 /* bytes of the folder's path */
#define CLUSTER_SHARDS 2
#define CLUSTER_REPLICAS_MAX 8
#define CLUSTER_NODES_MAX (CLUSTER_SHARDS * (1 + CLUSTER_REPLICAS_MAX))
#define CLUSTER_SETS_MAX 64
#define CLUSTER_SECRET_FILE "payment.secret"
#define CLUSTER_UNSET (-1) /* an option not given: as last time, else the default */

struct cluster_options {
    const char *var;
    int port_base;
    int http_port;
    int admin_port;
    int replicas;         /* a shard */
    int sync;             /* 1: a write waits for a replica, durability "sync" */
    int ha;               /* 1: Patroni and etcd look after the shards */
    int queue;            /* 1: RabbitMQ and `seatgrid worker` */
    bool servers_only;    /* PostgreSQL and Redis with an empty database, nothing of ours */
    bool no_serve;        /* migrated, but without `seatgrid serve` and `seatgrid cdc` */
    bool no_cdc;          /* without `seatgrid cdc` */
    bool foreground;      /* the servers die with the command */
    const char *strategy; /* NULL for the default */
    const char *sets[CLUSTER_SETS_MAX]; /* "group.key=value" for seatgrid.cfg */
    size_t set_count;
};

enum server_role {
    ROLE_NONE, /* no data, or no PostgreSQL */
    ROLE_PRIMARY,
    ROLE_OLD_PRIMARY, /* another node has been promoted since */
    ROLE_REPLICA,
    ROLE_HALF_REWOUND, /* a rejoin was cut short: its data is of no use as it stands */
};

struct server {
    char name[64];
    char shard[64]; /* "" for all but nodes */
    int port;
    struct process_id id;  /* pid 0: does not run */
    bool started_here;     /* by this command, so a failure stops it */
    enum server_role role; /* this and the next: as of the last roles_learn */
    uint32_t timeline;     /* 0: no data */
};

struct cluster {
    struct cluster_options options;
    char var[CLUSTER_PATH_MAX];     /* real path */
    char servers[CLUSTER_PATH_MAX]; /* real path of the servers' data */
    struct process_user user;       /* whom the servers run as */
    int lock_fd;                    /* -1: not held */
    struct server nodes[CLUSTER_NODES_MAX];
    size_t node_count;
    struct server redis;
    struct server serve;                      /* port: of HTTP */
    struct server cdc;                        /* port: of its admin listener */
    struct server mockpay;                    /* the payment service */
    struct server rabbitmq;                   /* with queue, as the next */
    struct server worker;                     /* port: of its admin listener */
    struct server etcd;                       /* with ha, as the next */
    struct server patroni[CLUSTER_NODES_MAX]; /* of the node of that index; port: of its REST API */
    char problem[4096];                       /* what went wrong, one or several lines */
};

/* Formats a path into a buffer of CLUSTER_PATH_MAX; gives the buffer. */
char *cluster_path(char *ret_path, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Notes what went wrong and gives SG_IO, for `return cluster_fail(...)`. */
enum sg_error cluster_fail(struct cluster *cluster, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* A line of progress for people: "  alpha-1   primary on 127.0.0.1:8100". */
void cluster_say(const char *who, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The end of a server's log, to standard error. */
void cluster_show_log(const struct cluster *cluster, const char *name);

/* The servers that the options ask for. SG_CONFIG_INVALID: ports that are none or meet. */
enum sg_error layout_plan(struct cluster *cluster);
/* Ports in a row, from port_base on, that the servers may have; serve's are not among them. */
int layout_port_count(const struct cluster_options *options);
/* The servers whose data is there, whatever the options were (for down, status, destroy). */
void layout_scan(struct cluster *cluster);
/* Options not given become those of the last `up` in this folder, else the defaults. */
void layout_complete_options(struct cluster *cluster);
enum sg_error layout_remember_options(struct cluster *cluster);

#endif
