/*
 * One question at a time to one PostgreSQL server, on the event loop: for health and reload, which
 * ask little and must never wait for a server that is dead.
 *
 *                 pgask_ask                connected, question sent
 *   PGASK_CLOSED ───────────> CONNECTING ──────────────────────────> ASKING
 *        ^                        │                                  │    ^ pgask_ask
 *        │                        │ refused, deadline          answer│    │
 *        └────────────────────────┴────────── EOF, deadline ─────────┴─> READY
 *
 * It connects when asked, keeps the connection for the next question, and says so when it is lost
 * in between. No reconnecting by itself, no queue, no pipeline: that is router/pgconn.h.
 *
 * Connecting is non-blocking but for one thing: libpq resolves a host name itself and waits for it.
 * Addresses in the dsn (host=10.0.0.7 as well as hostaddr=) are never looked up.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_BASE_PGASK_H
#define SG_BASE_PGASK_H

#include <libpq-fe.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

struct event_base;
struct pgask;
struct reap_list;

#define PGASK_PARAMS_MAX 4

/* Borrowed until the answer. */
struct pgask_question {
    const char *sql;                      /* one statement */
    const char *params[PGASK_PARAMS_MAX]; /* text format */
    int param_count;
    int64_t connect_timeout_us;
    int64_t answer_timeout_us;
};

/* Valid during the callback. */
struct pgask_answer {
    enum sg_error error;    /* SG_OK: `result` holds rows. SG_INTERNAL: the server refused the
                               question. SG_SHARD_UNAVAILABLE: no connection, or it was lost.
                               SG_DEADLINE: too slow, the connection is closed. */
    const PGresult *result; /* SG_OK */
    char sqlstate[6];       /* SG_INTERNAL; else "" */
    const char *reason;     /* not SG_OK: one line for people */
    bool first;             /* the first question on this connection */
    int64_t asked_us;       /* monotonic, when the question was sent */
    int64_t answered_us;
};

typedef void pgask_fn(void *arg, const struct pgask_answer *answer);

/* dsn and application_name are copied. NULL when memory runs out. */
struct pgask_config {
    struct event_base *base;
    struct reap_list *reap;
    const char *dsn;
    const char *application_name;
    const char *options; /* of the session, lasting longer than it; NULL: the database's */
    /* The connection went while no question was under way; may be NULL. */
    void (*on_lost)(void *arg, const char *reason);
    void *arg;
};

struct pgask *pgask_new(const struct pgask_config *config);
/* Closes and frees, from anywhere on the loop, also inside a callback; no callback follows. */
void pgask_free(struct pgask *ask);

/* True if a question is under way. */
bool pgask_busy(const struct pgask *ask);
bool pgask_connected(const struct pgask *ask);
/* Asks; not while busy. fn runs exactly once, later, never from inside the call; it may ask again.
 */
void pgask_ask(struct pgask *ask, const struct pgask_question *question, pgask_fn *fn, void *arg);
/* Closes a connection that nobody needs any more, quietly; not while busy. */
void pgask_close(struct pgask *ask);

#endif
