/*
 * The questions of a health probe. See probe.h.
 *
 * The timeline: a primary's is in the name of the WAL file it writes (the control file shows the
 * new one only after the first checkpoint that follows a promotion). A replica's is the one its WAL
 * receiver streams, NULL without a receiver or without pg_read_all_stats; then the control file's
 * is taken, which may lag until the next restartpoint but is never ahead. A receiver can only
 * stream a timeline that the replica's own history leads to, and the LSNs sampled on that timeline
 * lie behind the fork; so "received" is as good as "replayed" for judging staleness.
 *
 * SPDX-License-Identifier: MIT
 */
#include "router/probe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* OFFSET 0 keeps the subquery: the role is asked once and all columns agree on it. */
#define ROLE_COLUMNS                                                                               \
    " r.in_recovery,"                                                                              \
    " CASE WHEN r.in_recovery"                                                                     \
    "      THEN COALESCE((SELECT received_tli FROM pg_stat_wal_receiver),"                         \
    "                    (SELECT GREATEST(rec.min_recovery_end_timeline, chk.timeline_id)"         \
    "                       FROM pg_control_recovery() rec, pg_control_checkpoint() chk))"         \
    "      ELSE ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::integer"    \
    " END,"                                                                                        \
    " (CASE WHEN r.in_recovery THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END"        \
    "  - '0/0'::pg_lsn)::bigint,"                                                                  \
    " (CASE WHEN r.in_recovery THEN pg_last_wal_receive_lsn() END - '0/0'::pg_lsn)::bigint"
#define FROM_ROLE " FROM (SELECT pg_is_in_recovery() AS in_recovery OFFSET 0) r"

const char *const probe_hello_sql =
    "SELECT" ROLE_COLUMNS ","
    " (SELECT system_identifier FROM pg_control_system()),"
    " to_regclass('shard_meta') IS NOT NULL AND to_regclass('events') IS NOT NULL" FROM_ROLE;

/* Columns that a later migration adds to shard_meta are read by way of JSON, so that one which is
 * not there yet is NULL instead of an error. The fence is up as is_fenced() says it. The count of
 * events is the statistics' estimate; a replica keeps none and says 0. */
const char *const probe_state_sql =
    "SELECT" ROLE_COLUMNS ","
    " m.shard, m.epoch, j.meta ->> 'timeline',"
    " m.fenced AND COALESCE((j.meta ->> 'fenced_until')::timestamptz > clock_timestamp(), true),"
    " j.meta ->> 'fence_id',"
    " pg_stat_get_live_tuples(to_regclass('events'))" FROM_ROLE " LEFT JOIN shard_meta m ON true"
    " LEFT JOIN LATERAL (SELECT to_jsonb(m) AS meta) j ON true LIMIT 1";

static const char *value(const PGresult *result, int column)
{
    return PQgetvalue(result, 0, column); /* "" for NULL */
}

static bool is_true(const PGresult *result, int column)
{
    return value(result, column)[0] == 't';
}

static void read_role(const PGresult *result, struct health_answer *answer)
{
    answer->ok = true;
    answer->role = is_true(result, 0) ? NODE_REPLICA : NODE_PRIMARY;
    answer->timeline = (int32_t)strtol(value(result, 1), NULL, 10);
    answer->lsn = strtoull(value(result, 2), NULL, 10);
    answer->received_lsn = strtoull(value(result, 3), NULL, 10);
}

bool probe_read_hello(const PGresult *result, struct health_answer *ret_answer)
{
    if (PQntuples(result) != 1 || PQnfields(result) != 6)
        return false;
    read_role(result, ret_answer);
    /* a signed bigint in SQL, an unsigned number in meaning */
    ret_answer->system_identifier = (uint64_t)strtoll(value(result, 4), NULL, 10);
    ret_answer->migrated = is_true(result, 5);
    return true;
}

bool probe_read_state(const PGresult *result, struct health_answer *ret_answer)
{
    if (PQntuples(result) != 1 || PQnfields(result) != 10)
        return false;
    read_role(result, ret_answer);
    /* an empty shard_meta is a database that nobody has made a shard yet */
    ret_answer->migrated = !PQgetisnull(result, 0, 4);
    snprintf(ret_answer->shard, sizeof(ret_answer->shard), "%s", value(result, 4));
    ret_answer->epoch = strtoll(value(result, 5), NULL, 10);
    ret_answer->epoch_timeline =
        PQgetisnull(result, 0, 6) ? EPOCH_ON_ANY : (int32_t)strtol(value(result, 6), NULL, 10);
    ret_answer->fenced = is_true(result, 7);
    snprintf(ret_answer->fence_id, sizeof(ret_answer->fence_id), "%s", value(result, 8));
    ret_answer->event_count = strtoll(value(result, 9), NULL, 10);
    return true;
}
