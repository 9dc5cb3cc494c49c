/*
 * The questions of a switchover. See switchover_ask.h.
 *
 * Every session commits locally: what a switchover writes has to be on the new primary before it is
 * promoted, and the switchover looks there itself; a new primary may have no standby yet that a
 * synchronous commit could wait for.
 *
 * SPDX-License-Identifier: MIT
 */
#include "router/switchover_ask.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The timeline as in router/probe.c. to_jsonb, so that a schema without the newer columns is no
 * error but an answer. OFFSET 0 keeps the subquery: the role is asked once. */
const char *const switchover_look_sql =
    "SELECT r.in_recovery,"
    " CASE WHEN r.in_recovery"
    "      THEN COALESCE((SELECT received_tli FROM pg_stat_wal_receiver),"
    "                    (SELECT GREATEST(rec.min_recovery_end_timeline, chk.timeline_id)"
    "                       FROM pg_control_recovery() rec, pg_control_checkpoint() chk))"
    "      ELSE ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::integer"
    " END,"
    " (CASE WHEN r.in_recovery THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END"
    "  - '0/0'::pg_lsn)::bigint,"
    " (SELECT system_identifier FROM pg_control_system()),"
    " m.j ? 'fence_id',"
    " m.j ->> 'shard',"
    " m.j ->> 'epoch',"
    " m.j ->> 'timeline',"
    " (m.j ->> 'fenced')::boolean"
    "   AND COALESCE((m.j ->> 'fenced_until')::timestamptz > clock_timestamp(), true),"
    " m.j ->> 'fence_id',"
    " (m.j ->> 'fenced_until')::timestamptz(0)::text,"
    " (SELECT COALESCE(status, 'streaming') = 'streaming' FROM pg_stat_wal_receiver),"
    " CASE WHEN r.in_recovery THEN pg_is_wal_replay_paused() END,"
    " current_setting('recovery_min_apply_delay') <> '0',"
    " has_function_privilege('pg_promote(boolean, integer)', 'execute'),"
    " CASE WHEN NOT r.in_recovery THEN"
    "      (SELECT string_agg(application_name, ',') FROM pg_stat_replication"
    "        WHERE sync_state IN ('sync', 'quorum')) END"
    " FROM (SELECT pg_is_in_recovery() AS in_recovery OFFSET 0) r"
    " LEFT JOIN (SELECT to_jsonb(s) AS j FROM shard_meta s LIMIT 1) m ON true";

/* 1397900372 is 'SEAT'; 4: operators, 1: the fence. */
const char *const switchover_lock_sql = "SELECT pg_try_advisory_lock(1397900372, 4)";

const char *const switchover_rival_sql =
    "SELECT a.application_name, COALESCE(host(a.client_addr), 'a local socket'),"
    "       a.backend_start::timestamptz(0)::text, a.pid"
    "  FROM pg_locks l JOIN pg_stat_activity a USING (pid)"
    " WHERE l.locktype = 'advisory' AND l.classid = 1397900372 AND l.objid = 4"
    "   AND l.objsubid = 2 AND l.granted"
    "   AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())";

const char *const switchover_unlock_sql = "SELECT pg_advisory_unlock(1397900372, 4)";

/* What is written, not what is inserted: only that can reach a standby. */
const char *const switchover_end_sql = "SELECT (pg_current_wal_lsn() - '0/0'::pg_lsn)::bigint";

/* set_config comes first, for the function's number depends on it. */
const char *const switchover_fence_sql =
    "SELECT f.outcome, f.epoch, f.timeline"
    "  FROM (SELECT set_config('lock_timeout', $3, true) ||"
    "               set_config('synchronous_commit', 'local', true) AS set OFFSET 0) s,"
    "       LATERAL shard_fence($1::uuid, CASE WHEN s.set <> '' THEN $2::bigint END) f";

/* The fence itself proves that what was replayed is this primary's WAL and no other's. */
const char *const switchover_replay_sql =
    "SELECT (pg_last_wal_replay_lsn() - '0/0'::pg_lsn)::bigint,"
    "       m.fenced AND m.fence_id = $1::uuid,"
    "       m.fenced AND m.fence_id = $1::uuid AND m.fenced_until = 'infinity'"
    "  FROM shard_meta m";

const char *const switchover_keep_sql =
    "SELECT shard_fence_keep($1::uuid), set_config('synchronous_commit', 'local', true)";

const char *const switchover_unfence_sql =
    "SELECT shard_unfence($1::uuid), set_config('synchronous_commit', 'local', true)";

/* Without pg_promote's own waiting, which looks ten times a second. No row: the fence is not up. */
const char *const switchover_promote_sql =
    "SELECT pg_promote(false) FROM shard_meta m"
    " WHERE m.fenced AND m.fence_id = $1::uuid AND m.fenced_until = 'infinity'";

const char *const switchover_watch_sql =
    "SELECT r.in_recovery, CASE WHEN NOT r.in_recovery THEN own_timeline() END"
    "  FROM (SELECT pg_is_in_recovery() AS in_recovery OFFSET 0) r";

const char *const switchover_slot_sql =
    "SELECT lsn FROM pg_create_logical_replication_slot($1, 'pgoutput')";

const char *const switchover_attest_sql =
    "SELECT a.outcome, a.epoch, set_config('synchronous_commit', 'local', true)"
    "  FROM shard_attest($1::integer, $2::pg_lsn) a";

/* Asked until there is no row: ends the reader first, then drops. */
const char *const switchover_tidy_sql =
    "SELECT CASE WHEN active THEN pg_terminate_backend(active_pid)::text"
    "            ELSE pg_drop_replication_slot(slot_name)::text END"
    "  FROM pg_replication_slots WHERE slot_name = $1";

static const char *value(const PGresult *result, int column)
{
    return PQgetvalue(result, 0, column); /* "" for NULL */
}

static bool is_true(const PGresult *result, int column)
{
    return value(result, column)[0] == 't';
}

bool switchover_read_look(const PGresult *result, struct switchover_node *node)
{
    if (PQntuples(result) != 1 || PQnfields(result) != SWITCHOVER_LOOK_COLUMNS)
        return false;
    node->answered = true;
    node->in_recovery = is_true(result, 0);
    node->timeline = (int32_t)strtol(value(result, 1), NULL, 10);
    node->lsn = strtoull(value(result, 2), NULL, 10);
    /* a signed bigint in SQL, an unsigned number in meaning */
    node->system_identifier = (uint64_t)strtoll(value(result, 3), NULL, 10);
    node->migrated = is_true(result, 4);
    snprintf(node->shard, sizeof(node->shard), "%s", value(result, 5));
    node->epoch = strtoll(value(result, 6), NULL, 10);
    node->meta_timeline = (int32_t)strtol(value(result, 7), NULL, 10);
    node->fenced = is_true(result, 8);
    snprintf(node->fence_id, sizeof(node->fence_id), "%s", value(result, 9));
    snprintf(node->fenced_until, sizeof(node->fenced_until), "%s", value(result, 10));
    node->streaming = is_true(result, 11);
    node->replay_paused = is_true(result, 12);
    node->delayed = is_true(result, 13);
    node->may_promote = is_true(result, 14);
    return true;
}

bool switchover_names_hold(const char *names, const char *name)
{
    const size_t len = strlen(name);
    for (const char *at = names; *at; at += strcspn(at, ","), at += *at == ',') {
        if (strcspn(at, ",") == len && strncmp(at, name, len) == 0)
            return true;
    }
    return false;
}
