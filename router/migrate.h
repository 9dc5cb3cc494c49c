/*
 * Migrations: brings the database of a shard to the schema this binary knows.
 *
 *   migrations/NNNN_name.sql ── embedded ──> migrations[] ── migrate_shard ──> the shard's primary
 *
 * Called by the commands migrate and dev. It connects and waits (blocking libpq): never call it on
 * a thread that serves requests. Hides how the primary is found, the lock that keeps two runs
 * apart, and the table schema_migrations, which remembers what was applied and its text's SHA-256.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_ROUTER_MIGRATE_H
#define SG_ROUTER_MIGRATE_H

#include <stdbool.h>

#include "base/error.h"
#include "shardmap/shardmap.h"

struct migration {
    int version;      /* 1, 2, 3 ... without a hole */
    const char *name; /* "0001_tables" */
    const char *text; /* SQL, NUL-terminated */
};

/* In ascending order, closed by an entry with version 0. Generated from migrations/ at build time.
 */
extern const struct migration migrations[];

#define MIGRATE_TEXT_MAX 1024

struct migrate_report {
    char node[SHARDMAP_NAME_MAX + 1];  /* the primary; "" if none was found */
    int before;                        /* version found; -1 if nobody could say */
    int after;                         /* version left behind; -1 likewise */
    char error_text[MIGRATE_TEXT_MAX]; /* "" when all is well; one line of ASCII */
};

/* The newest version in `list`. */
int migrate_latest(const struct migration *list);

/* Applies what is missing of `list`, each migration in its own transaction, then writes the shard's
 * name into shard_meta. Refuses a database that is ahead of the list, one whose applied migrations
 * have another text, and one that belongs to another shard. Safe to run twice at once. With
 * `only_look` nothing is changed and *ret_report tells how things are.
 * SG_OK; SG_SHARD_UNAVAILABLE (no primary answers), SG_CONFIG_INVALID (refused), SG_IO (a statement
 * failed). *ret_report is filled in every case. */
enum sg_error migrate_shard(const struct shardmap_shard *shard, const struct migration *list,
                            bool only_look, struct migrate_report *ret_report);

#endif
