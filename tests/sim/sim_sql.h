/*
 * What the simulated servers understand: the questions of health and switchover, by their text, and
 * the prepared statements of lanes and pools, by their number.
 *
 * The functions of migrations/0002 and 0004 are told again here, in C, as far as bookings, fences
 * and attestation go. Whatever else is asked is an error of the simulation and ends it.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_TESTS_SIM_SQL_H
#define SG_TESTS_SIM_SQL_H

#include "router/params.h"
#include "router/statements.h"
#include "tests/sim/sim_servers.h"

struct sim_request;

/* malloc'ed; the session that serves it frees it. */
struct sim_request *sim_request_text(const char *sql, const char *const *params, int count);
struct sim_request *sim_request_statement(enum statement statement, const struct params *params);

/* sim_serve_fn: a text question; a statement, in a transaction of its own. */
void sim_serve_text(struct sim_session *session, void *request);
void sim_serve_statement(struct sim_session *session, void *request);

#endif
