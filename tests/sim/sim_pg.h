/*
 * The two ways to PostgreSQL, base/pgask.h and router/pgconn.h, on the simulated shard.
 *
 * Stands in for base/pgask.c and router/pgconn.c at link time and keeps their contracts: deadlines,
 * reconnecting with backoff, what is lost and when that is told. Questions are served by sim_sql.h.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_TESTS_SIM_PG_H
#define SG_TESTS_SIM_PG_H

/* "host=10.0.0.1 port=5432": node 0. */
#define SIM_DSN_FORMAT "host=10.0.0.%d port=5432"

int sim_node_of_dsn(const char *dsn);

#endif
