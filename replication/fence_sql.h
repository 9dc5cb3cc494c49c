/*
 * The one SQL expression that says whether a switchover's fence is up, over `j`: the row of
 * shard_meta as JSON, because a database before migration 4 has no such columns. One set by hand
 * (no fence_id) is none.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_REPLICATION_FENCE_SQL_H
#define SG_REPLICATION_FENCE_SQL_H

#define FENCE_ROW_SQL "(SELECT to_jsonb(m) AS j FROM shard_meta m) row_of_shard"
#define FENCE_IS_UP_SQL                                                                            \
    "((j ->> 'fenced')::boolean AND j ->> 'fence_id' IS NOT NULL"                                  \
    " AND COALESCE((j ->> 'fenced_until')::timestamptz > clock_timestamp(), true))"

#endif
