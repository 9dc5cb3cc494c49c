/*
 * The questions of a health probe, and how their answers read.
 *
 *   new connection, or no shard_meta yet ─> "hello": who are you (cluster, role, migrated?)
 *   migrated                             ─> "state": role, timeline, LSN, epoch, fence, load
 *
 * Two questions because a statement cannot name a table that may not exist: `hello` works on any
 * PostgreSQL and says whether `state` will.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_ROUTER_PROBE_H
#define SG_ROUTER_PROBE_H

#include <libpq-fe.h>
#include <stdbool.h>

#include "router/health_state.h"

extern const char *const probe_hello_sql;
extern const char *const probe_state_sql;

/* Fill what the question answers and leave the rest of *ret_answer alone; false, and nothing
 * changed, when the result is not what the question asks for. */
bool probe_read_hello(const PGresult *result, struct health_answer *ret_answer);
bool probe_read_state(const PGresult *result, struct health_answer *ret_answer);

#endif
