/*
 * Every SQL statement the router sends, prepared once a connection under its name. The functions
 * they call are in migrations/.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_ROUTER_STATEMENTS_H
#define SG_ROUTER_STATEMENTS_H

enum statement {
    /* reads, on any node */
    STATEMENT_SEATMAP,
    STATEMENT_EVENT,
    STATEMENT_EVENT_PLAIN,
    STATEMENT_EVENTS,
    STATEMENT_EVENTS_PLAIN,
    STATEMENT_AVAILABILITY,
    STATEMENT_BOOKING,
    STATEMENT_BEST_VIEW,
    STATEMENT_ORDER,
    STATEMENT_REFUSAL,
    STATEMENT_WAITLIST,
    STATEMENT_TICKETS,
    STATEMENT_POSITION,
    /* writes, on a primary */
    STATEMENT_CREATE_EVENT,
    STATEMENT_ORDER_STEP,
    STATEMENT_ORDERS_DUE,
    STATEMENT_REFUSAL_STORE,
    STATEMENT_WAITLIST_JOIN,
    STATEMENT_WAITLIST_LEAVE,
    STATEMENT_TAKE_BATCH,
    STATEMENT_BEST_TAKE,
    STATEMENT_CHANGE_BATCH,
    STATEMENT_WAL,
    /* the separate statements of the other strategies */
    STATEMENT_BEGIN,
    STATEMENT_LOCK,
    STATEMENT_LOOK,
    STATEMENT_CLAIM,
    STATEMENT_CLAIM_VERSION,
    STATEMENT_BOOK,
    STATEMENT_COMMIT,
    STATEMENT_ROLLBACK,
    STATEMENT_COUNT
};

/* Of every session. Plans are made once and kept: every statement is a handful of index look-ups,
 * and a plan made while a table was empty must not become a sequential scan when it has grown. */
#define STATEMENT_SESSION_OPTIONS                                                                  \
    "-c plan_cache_mode=force_generic_plan -c jit=off -c enable_seqscan=off"                       \
    " -c client_min_messages=error"
/* Of those that write. Whatever the database's default is, a guard that has waited for a fence is
 * to see that fence, so its snapshot must not be older than its wait. */
#define STATEMENT_WRITE_OPTIONS                                                                    \
    STATEMENT_SESSION_OPTIONS " -c default_transaction_isolation=read\\ committed"
/* What their COMMITs promise (migrations/0004_failover.sql), and that they say so when one did not
 * hold it. */
#define STATEMENT_ASYNC_OPTIONS                                                                    \
    STATEMENT_WRITE_OPTIONS " -c seatgrid.durability=async -c synchronous_commit=local"
#define STATEMENT_SYNC_OPTIONS                                                                     \
    STATEMENT_WRITE_OPTIONS " -c seatgrid.durability=sync -c synchronous_commit=on"                \
                            " -c client_min_messages=warning"

struct statement_info {
    const char *name; /* in pg_prepared_statements, logs and metrics */
    const char *sql;
    int result_format; /* 0 text, 1 binary */
    int write;         /* prepared on write connections only */
};

const struct statement_info *statement_info(enum statement statement);

#endif
