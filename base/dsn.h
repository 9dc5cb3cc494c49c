/*
 * What a libpq connection string says, without connecting: is it well-formed, and which server does
 * it name. For checking a shard map and for showing a node without its password.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_BASE_DSN_H
#define SG_BASE_DSN_H

#include <stdbool.h>
#include <stddef.h>

struct dsn_target {
    char host[256];  /* host, else hostaddr, else "service:NAME", else "" (libpq's default) */
    char port[16];   /* "5432" if not given */
    char dbname[64]; /* the user if not given, as libpq does; "" if that is not given either */
};

/* True and *ret_target if `dsn` is a keyword string or URI that libpq can parse and that names one
 * server; else the reason, one line without secrets, in `problem`. Environment variables and
 * service files are not looked at. */
bool dsn_check(const char *dsn, struct dsn_target *ret_target, char *problem, size_t problem_size);

#endif
