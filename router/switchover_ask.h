/*
 * The questions of a switchover to PostgreSQL, and how the answers to those with many columns read.
 *
 * For the driver and the steps of router/switchover_internal.h alone. Each text is one statement;
 * what varies is a parameter.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_ROUTER_SWITCHOVER_ASK_H
#define SG_ROUTER_SWITCHOVER_ASK_H

#include <libpq-fe.h>
#include <stdbool.h>

#include "router/switchover_plan.h"

extern const char *const switchover_look_sql;
extern const char *const switchover_lock_sql;
extern const char *const switchover_rival_sql;
extern const char *const switchover_unlock_sql;
extern const char *const switchover_end_sql;
extern const char *const switchover_fence_sql;   /* $1 fence_id, $2 ms, $3 lock_timeout */
extern const char *const switchover_replay_sql;  /* $1 fence_id */
extern const char *const switchover_keep_sql;    /* $1 fence_id */
extern const char *const switchover_unfence_sql; /* $1 fence_id */
extern const char *const switchover_promote_sql; /* $1 fence_id */
extern const char *const switchover_watch_sql;
extern const char *const switchover_slot_sql;   /* $1 slot */
extern const char *const switchover_attest_sql; /* $1 timeline, $2 handover LSN or NULL */
extern const char *const switchover_tidy_sql;   /* $1 slot */

#define SWITCHOVER_LOOK_COLUMNS 16
#define SWITCHOVER_SYNC_COLUMN 15 /* a primary's: names of those it waits for, with commas */

/* Fills all but name, sync and problem. False when the result is not what the question asks for. */
bool switchover_read_look(const PGresult *result, struct switchover_node *node);
/* Is `name` one of the comma-separated `names`? */
bool switchover_names_hold(const char *names, const char *name);

#endif
