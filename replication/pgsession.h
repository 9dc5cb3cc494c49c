/*
 * One PostgreSQL connection on the event loop for commands that pgask (base/pgask.h) has no words
 * for: the simple protocol, which replication commands want, several commands in a row in one
 * session, COPY out, and COPY both ways.
 *
 *   CONNECTING ──> IDLE ──pgsession_run──> RUNNING ──results, copied rows──> IDLE
 *        │           │                        │
 *        └───────────┴──── lost: refused, EOF, deadline ──> LOST (one on_lost, then only free)
 *
 * No reconnecting: whoever owns it makes a new one. One command at a time. Every wait has a
 * deadline. Host names are resolved by libpq, which blocks; addresses are not.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_REPLICATION_PGSESSION_H
#define SG_REPLICATION_PGSESSION_H

#include <libpq-fe.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct event_base;
struct pgsession;
struct reap_list;

struct pgsession_config {
    struct event_base *base;
    struct reap_list *reap;
    const char *dsn;              /* copied */
    bool replication;             /* adds replication=database */
    const char *application_name; /* copied */
    int64_t connect_timeout_us;
    /* Connected and idle: the first command may be run, also from inside. From the loop. */
    void (*on_connected)(void *arg);
    /* Over, and never on again; a command under way gets no on_done. sqlstate "" if it was not the
     * server's word. From the loop, never from inside a call. */
    void (*on_lost)(void *arg, const char *sqlstate, const char *reason);
    void *arg;
};

struct pgsession_command {
    const char *sql; /* borrowed for the call */
    /* Rows (PGRES_TUPLES_OK, PGRES_COMMAND_OK) of each statement; may be NULL. */
    void (*on_result)(void *arg, const PGresult *result);
    /* One piece of COPY data; returns false to be called again with it only after
     * pgsession_resume (nothing else is read meanwhile). */
    bool (*on_copy)(void *arg, const char *bytes, size_t len);
    /* COPY both ways has begun: pgsession_put works. May be NULL. */
    void (*on_copy_both)(void *arg);
    /* The command is over: error NULL, or the server's message and its sqlstate; the session is
     * idle again and may run another, also from inside. */
    void (*on_done)(void *arg, const char *sqlstate, const char *error);
    void *arg;
    int64_t timeout_us; /* from now to the first answer, and for each silence after it; 0: none */
};

struct pgsession *pgsession_new(const struct pgsession_config *config); /* NULL: no memory */
/* From anywhere on the loop, also inside a callback; no callback follows. */
void pgsession_free(struct pgsession *session);
bool pgsession_is_idle(const struct pgsession *session);
/* Only while idle. */
void pgsession_run(struct pgsession *session, const struct pgsession_command *command);
void pgsession_resume(struct pgsession *session);
/* COPY both ways: sends one message to the server. */
void pgsession_put(struct pgsession *session, const char *bytes, size_t len);

#endif
