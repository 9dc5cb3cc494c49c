/*
 * One PostgreSQL connection on the event loop, in pipeline mode: a state machine that connects,
 * prepares, sends, matches results in order, and after any loss begins again by itself.
 *
 *        pgconn_new
 *            │                     connected                     all prepared
 *   ┌──> PGCONN_WAITING ──timer──> PGCONN_CONNECTING ──> PGCONN_PREPARING ──> PGCONN_READY
 *   │     (backoff, jitter)              │                     │                  │ pgconn_send
 *   └────────────── lost: refused, EOF, deadline, pgconn_reset ┴──────────────────┘
 *
 * Each statement carries its own Sync, so each is its own transaction (unless BEGIN opened one) and
 * an error stops at it. A deadline cannot skip one result of a pipeline, so a statement that takes
 * longer than postgres.statement_timeout_ms costs the connection: everything in flight is lost,
 * and its senders decide what that means.
 *
 * Host names are resolved by libpq, which blocks; use addresses (hostaddr) in a busy system.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_ROUTER_PGCONN_H
#define SG_ROUTER_PGCONN_H

#include <libpq-fe.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "router/params.h"
#include "router/statements.h"
#include "shardmap/shardmap.h"

#define PGCONN_IN_FLIGHT_MAX 1024 /* statements; the bound of reads.pipeline_max */

struct event_base;
struct metrics_set;
struct pgconn;
struct reap_list;
struct settings;

enum pgconn_use {
    PGCONN_READ, /* any node */
    PGCONN_WRITE /* a primary, or the connection fails */
};

enum pgreply_kind {
    PGREPLY_ROWS,  /* `result` holds the answer */
    PGREPLY_ERROR, /* the server refused: sqlstate and message; the connection goes on */
    PGREPLY_LOST   /* the connection went first: whether it was done is not known */
};

/* Valid during the callback. */
struct pgreply {
    enum pgreply_kind kind;
    const PGresult *result; /* PGREPLY_ROWS */
    const PGresult *behind; /* rows of the statement behind it; NULL: none, or it failed */
    bool wait_cut;          /* PGREPLY_ROWS: done, but the server gave up waiting for a standby */
    char sqlstate[6];       /* PGREPLY_ERROR */
    const char *message;    /* PGREPLY_ERROR, PGREPLY_LOST */
    int64_t duration_us;
};

typedef void pgreply_fn(void *arg, const struct pgreply *reply);

/* What is borrowed outlives the connection; dsn, node and shard are copied. */
struct pgconn_config {
    struct event_base *base;
    struct reap_list *reap;
    struct metrics_set *metrics;
    const struct settings *settings;
    const char *shard;
    const char *node;
    const char *dsn;
    enum pgconn_use use;
    enum shardmap_durability durability; /* PGCONN_WRITE: of every COMMIT */
    /* The connection became ready, or was lost (after all its replies were delivered). From the
     * loop, never from inside a call. */
    void (*on_ready)(void *arg);
    void (*on_lost)(void *arg, const char *reason);
    void *arg;
};

/* Starts connecting at the next turn of the loop. NULL when memory runs out. */
struct pgconn *pgconn_new(const struct pgconn_config *config);
/* Delivers PGREPLY_LOST for what is in flight, closes, and frees when it is safe. No callback of
 * the configuration follows. */
void pgconn_free(struct pgconn *conn);

/* True for a server's error that says nothing about the statement: it goes down, is read-only,
 * recovers, is out of resources, gave up a deadlock, or wants the statement prepared anew (the
 * connection then resets itself). The same may be asked again, here or elsewhere. */
bool pgconn_error_is_passing(const char *sqlstate);

bool pgconn_is_ready(const struct pgconn *conn);
size_t pgconn_in_flight(const struct pgconn *conn);
const char *pgconn_node(const struct pgconn *conn);

/* Sends one statement. True: exactly one fn(arg, reply) later. False (not ready, or the send
 * failed): fn never runs; a failed send also starts a reconnect. */
bool pgconn_send(struct pgconn *conn, enum statement statement, const struct params *params,
                 pgreply_fn *fn, void *arg);
/* The same as BEGIN, statement, COMMIT, and behind them `behind`, which has no parameters and sees
 * what the commit left; all of it leaves in one piece and comes back in one. Nothing further is
 * taken until it is answered. What becomes of `behind` changes nothing in what is said of the
 * statement. Rows come only of what the server says it has committed. A connection for writing. */
bool pgconn_send_committed(struct pgconn *conn, enum statement statement,
                           const struct params *params, enum statement behind, pgreply_fn *fn,
                           void *arg);
/* The node is known to be back: connects now, if it is pausing before the next try. */
void pgconn_hurry(struct pgconn *conn);
/* Gives the connection up and begins again, e.g. because its node is no longer what it was. */
void pgconn_reset(struct pgconn *conn, const char *reason);

#endif
