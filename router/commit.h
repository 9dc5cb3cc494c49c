/*
 * What a COMMIT has left behind: where its WAL ends, and whether a standby has it.
 *
 *   COMMIT, then STATEMENT_WAL on the same connection ── commit_read ──> token, durability
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_ROUTER_COMMIT_H
#define SG_ROUTER_COMMIT_H

#include <libpq-fe.h>
#include <stdbool.h>

#include "router/router.h"

struct commit {
    struct read_token token;             /* at or past it; lsn 0: not known */
    enum shardmap_durability durability; /* SHARDMAP_SYNC only if that is sure */
};

/* `rows` answer STATEMENT_WAL; NULL: that got lost. `wait_cut`: the server said that it had given
 * up waiting for a standby. */
struct commit commit_read(const char *shard, const PGresult *rows, bool wait_cut);
/* True if what was asked for is what was done. */
bool commit_holds(const struct commit *commit, enum shardmap_durability asked);

#endif
