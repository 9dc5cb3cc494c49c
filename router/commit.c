/*
 * What a COMMIT has left behind. See commit.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "router/commit.h"

#include "router/token.h"

struct commit commit_read(const char *shard, const PGresult *rows, bool wait_cut)
{
    struct commit commit = {.token = {.lsn = 0}, .durability = SHARDMAP_ASYNC};
    if (!rows || PQntuples(rows) != 1 || PQnfields(rows) != 3)
        return commit;
    (void)token_from_wal(shard, PQgetvalue(rows, 0, 0), PQgetvalue(rows, 0, 1), &commit.token);
    if (!wait_cut && PQgetvalue(rows, 0, 2)[0] == 't')
        commit.durability = SHARDMAP_SYNC;
    return commit;
}

bool commit_holds(const struct commit *commit, enum shardmap_durability asked)
{
    return asked == SHARDMAP_ASYNC || commit->durability == SHARDMAP_SYNC;
}
