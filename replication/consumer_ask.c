/*
 * The control session of a consumer: SQL questions to the primary, one after another, each answer
 * to the one who asked. The session holds the shard's advisory lock, so its end is the end of the
 * attempt.
 *
 *   control_ask ─> line ─> pgask ─> fn      lost ─> consumer_control_lost, the line is forgotten
 *
 * Numbers and heartbeats are committed without waiting for a synchronous standby: what they say is
 * checked elsewhere, and a standby that is away must not cost the session.
 *
 * SPDX-License-Identifier: MIT
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/settings.h"
#include "replication/consumer_internal.h"
#include "replication/fence_sql.h"

/* --- the texts -------------------------------------------------------------------------------- */

const char *const ask_lock_sql = "SELECT pg_try_advisory_lock(1397900372, 3), pg_backend_pid()";

/* The timeline is in the name of the WAL file; the control file shows it only after the first
 * checkpoint that follows a promotion. OFFSET 0: the role is asked once. */
const char *const ask_facts_sql =
    "SELECT r.in_recovery,"
    " (SELECT system_identifier FROM pg_control_system()),"
    " CASE WHEN NOT r.in_recovery"
    "      THEN ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::integer END,"
    " EXISTS (SELECT FROM pg_publication WHERE pubname = 'seatgrid'),"
    " to_regclass('cdc_epoch') IS NOT NULL,"
    " current_setting('wal_level'),"
    " current_setting('synchronous_standby_names') <> '',"
    " CASE WHEN NOT r.in_recovery THEN (pg_current_wal_lsn() - '0/0')::bigint END,"
    " COALESCE((SELECT max(l.pid) FROM pg_locks l"
    "            WHERE l.locktype = 'advisory' AND l.granted AND l.classid = 1397900372"
    "              AND l.objid = 3 AND l.objsubid = 2"
    "              AND l.database = (SELECT oid FROM pg_database"
    "                                 WHERE datname = current_database())), 0)"
    " FROM (SELECT pg_is_in_recovery() AS in_recovery OFFSET 0) r";

/* By the row as JSON, because columns that a database does not have yet are NULL there. */
const char *const ask_meta_sql = "SELECT COALESCE((j ->> 'timeline')::integer, 0),"
                                 " COALESCE((j ->> 'handover_timeline')::integer, 0),"
                                 " COALESCE(((j ->> 'handover_lsn')::pg_lsn - '0/0')::bigint, 0),"
                                 " " FENCE_IS_UP_SQL " FROM " FENCE_ROW_SQL;

const char *const ask_follow_sql =
    "UPDATE shard_meta SET handover_timeline = NULL, handover_lsn = NULL"
    " WHERE handover_timeline = $1::integer"
    "   AND set_config('synchronous_commit', 'local', true) IS NOT NULL";

#define SLOTS_OF_SHARD                                                                             \
    " FROM pg_replication_slots"                                                                   \
    " WHERE slot_type = 'logical' AND plugin = 'pgoutput' AND NOT temporary"                       \
    "   AND database = current_database() AND starts_with(slot_name, $1)"

const char *const ask_slots_sql =
    "SELECT slot_name,"
    " wal_status IS NOT DISTINCT FROM 'lost' OR restart_lsn IS NULL,"
    " COALESCE((confirmed_flush_lsn - '0/0')::bigint, 0),"
    " COALESCE(active_pid, 0)" SLOTS_OF_SHARD " ORDER BY length(slot_name) DESC, slot_name DESC";

const char *const ask_draw_sql =
    "SELECT set_config('synchronous_commit', 'local', true), nextval('cdc_epoch')";

const char *const ask_raise_sql = "SELECT set_config('synchronous_commit', 'local', true),"
                                  " setval('cdc_epoch', $1::bigint)";

const char *const ask_end_sql = "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots"
                                " WHERE slot_name = $1 AND active_pid IS NOT NULL";

const char *const ask_terminate_sql = "SELECT pg_terminate_backend($1::integer)";

const char *const ask_drop_sql =
    "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1";

const char *const ask_vitals_sql =
    "SELECT (pg_current_wal_lsn() - '0/0')::bigint,"
    " current_setting('synchronous_standby_names') <> '',"
    " (SELECT max(pg_current_wal_lsn() - restart_lsn)::bigint" SLOTS_OF_SHARD "),"
    " EXISTS (SELECT FROM pg_stat_replication WHERE sync_priority > 0"
    "          AND pid IN (SELECT active_pid" SLOTS_OF_SHARD ")),"
    " (SELECT " FENCE_IS_UP_SQL " FROM " FENCE_ROW_SQL ")";

/* What a commit waits for, or should: with FIRST n, the last of the n synchronous standbys; with
 * ANY n, the n-th best of the quorum. Fewer than n of them: nothing is acknowledged. Readers of
 * logical slots, such as this consumer, are counted by PostgreSQL if their names match ('*' does),
 * but none of them can take over: they do not count here. Where one has taken a standby's place,
 * the next standby takes its. */
const char *const ask_standby_sql =
    "WITH names AS (SELECT current_setting('synchronous_standby_names') AS list),"
    " wanted AS ("
    "  SELECT COALESCE(substring(list FROM '^\\s*(?:[A-Za-z]+\\s+)?(\\d+)\\s*\\(')::integer, 1) AS "
    "n"
    "    FROM names),"
    " standbys AS ("
    "  SELECT flush_lsn, row_number() OVER (ORDER BY array_position("
    "           ARRAY['quorum', 'sync', 'potential'], sync_state),"
    "           CASE sync_state WHEN 'quorum' THEN 0 ELSE sync_priority END, flush_lsn DESC) AS "
    "place"
    "    FROM pg_stat_replication"
    "   WHERE sync_priority > 0 AND flush_lsn IS NOT NULL"
    "     AND sync_state IN ('quorum', 'sync', 'potential')"
    "     AND pid NOT IN (SELECT active_pid FROM pg_replication_slots"
    "                      WHERE slot_type = 'logical' AND active_pid IS NOT NULL))"
    " SELECT pg_has_role('pg_read_all_stats', 'USAGE'),"
    " COALESCE((SELECT CASE WHEN count(*) = max(n) THEN (min(flush_lsn) - '0/0')::bigint END"
    "             FROM standbys, wanted WHERE place <= n), 0)";

const char *const ask_heartbeat_sql =
    "SELECT set_config('synchronous_commit', 'local', true),"
    " (pg_logical_emit_message(true, 'seatgrid.cdc', '') - '0/0')::bigint";

/* --- reading answers -------------------------------------------------------------------------- */

static const char *value(const PGresult *result, int column)
{
    return PQgetvalue(result, 0, column); /* "" for NULL */
}

static bool is_true(const PGresult *result, int column)
{
    return value(result, column)[0] == 't';
}

int64_t ask_number(const PGresult *result, int column)
{
    return PQntuples(result) > 0 && PQnfields(result) > column
               ? strtoll(value(result, column), NULL, 10)
               : 0;
}

bool ask_read_facts(const PGresult *result, struct ask_facts *ret_facts)
{
    if (PQntuples(result) != 1 || PQnfields(result) != 9)
        return false;
    *ret_facts = (struct ask_facts){.in_recovery = is_true(result, 0),
                                    /* signed in SQL, unsigned in meaning */
                                    .system_identifier = (uint64_t)ask_number(result, 1),
                                    .timeline = (int32_t)ask_number(result, 2),
                                    .published = is_true(result, 3),
                                    .numbered = is_true(result, 4),
                                    .synchronous = is_true(result, 6),
                                    .lsn = (uint64_t)ask_number(result, 7),
                                    .holder_pid = (int32_t)ask_number(result, 8)};
    snprintf(ret_facts->wal_level, sizeof(ret_facts->wal_level), "%s", value(result, 5));
    return true;
}

void ask_read_slots(const PGresult *result, const char *shard, struct repair_facts *facts)
{
    facts->slot_count = 0;
    for (int i = 0; i < PQntuples(result) && PQnfields(result) == 4; i++) {
        const char *name = PQgetvalue(result, i, 0);
        int64_t generation = repair_slot_generation(name, shard);
        /* the generation to be resumed must not fall off the end of the list */
        size_t at = facts->slot_count < REPAIR_SLOTS_MAX ? facts->slot_count
                    : generation == facts->generation    ? REPAIR_SLOTS_MAX - 1
                                                         : REPAIR_SLOTS_MAX;
        if (generation == 0 || at == REPAIR_SLOTS_MAX)
            continue;
        struct repair_slot *slot = &facts->slots[at];
        facts->slot_count = at + 1;
        snprintf(slot->name, sizeof(slot->name), "%s", name);
        slot->generation = generation;
        slot->lost = PQgetvalue(result, i, 1)[0] == 't';
        slot->confirmed_lsn = strtoull(PQgetvalue(result, i, 2), NULL, 10);
        slot->active_pid = (int32_t)strtol(PQgetvalue(result, i, 3), NULL, 10);
    }
}

void ask_read_meta(const PGresult *result, struct repair_facts *facts)
{
    const bool there = PQntuples(result) == 1 && PQnfields(result) == 4;
    facts->attested_timeline = there ? (int32_t)ask_number(result, 0) : 0;
    facts->handover_timeline = there ? (int32_t)ask_number(result, 1) : 0;
    facts->handover_lsn = there ? (uint64_t)ask_number(result, 2) : 0;
    facts->switching = there && is_true(result, 3);
}

bool ask_read_vitals(const PGresult *result, struct ask_vitals *ret_vitals)
{
    if (PQntuples(result) != 1 || PQnfields(result) != 5)
        return false;
    *ret_vitals =
        (struct ask_vitals){.lsn = (uint64_t)ask_number(result, 0),
                            .synchronous = is_true(result, 1),
                            .kept_bytes = PQgetisnull(result, 0, 2) ? -1 : ask_number(result, 2),
                            .counted_standby = is_true(result, 3),
                            .switching = is_true(result, 4)};
    return true;
}

/* --- the session ------------------------------------------------------------------------------ */

static void pump(struct consumer *consumer);

static void on_lost(void *arg, const char *reason)
{
    struct consumer *consumer = arg;
    consumer->control.count = 0;
    consumer_control_lost(consumer, reason);
}

static void on_answer(void *arg, const struct pgask_answer *answer)
{
    struct consumer *consumer = arg;
    struct control *control = &consumer->control;
    if (answer->error != SG_OK && answer->error != SG_INTERNAL) {
        on_lost(consumer, answer->reason);
        return;
    }
    control_fn *fn = control->jobs[control->first].fn;
    bool current = control->jobs[control->first].attempt == consumer->attempt;
    control->first = (control->first + 1) % CONTROL_QUEUE_MAX;
    control->count--;
    if (current)
        fn(consumer, answer);
    pump(consumer);
}

static void pump(struct consumer *consumer)
{
    struct control *control = &consumer->control;
    if (!control->ask || control->count == 0 || pgask_busy(control->ask))
        return;
    const struct control_job *job = &control->jobs[control->first];
    struct pgask_question question = {
        .sql = job->sql,
        .params = {job->params[0], job->params[1]},
        .param_count = job->param_count,
        .connect_timeout_us = consumer->config.settings->cdc.connect_timeout_ms * 1000,
        .answer_timeout_us = consumer->config.settings->cdc.silence_timeout_ms * 1000};
    pgask_ask(control->ask, &question, on_answer, consumer);
}

bool control_open(struct consumer *consumer, const char *node, const char *dsn)
{
    struct control *control = &consumer->control;
    char name[SHARDMAP_NAME_MAX + 32];
    if (control->ask && strcmp(control->node, node) == 0 && strcmp(control->dsn, dsn) == 0)
        return true;
    control_close(consumer);
    if (consumer->forced == REPAIR_SLOT_UNREADABLE)
        consumer->forced = REPAIR_NONE; /* it was another server's */
    snprintf(control->node, sizeof(control->node), "%s", node);
    snprintf(name, sizeof(name), "seatgrid cdc %.40s", consumer->shard);
    control->dsn = strdup(dsn);
    if (control->dsn)
        control->ask = pgask_new(&(struct pgask_config){.base = consumer->config.base,
                                                        .reap = consumer->config.reap,
                                                        .dsn = dsn,
                                                        .application_name = name,
                                                        .on_lost = on_lost,
                                                        .arg = consumer});
    return control->ask != NULL;
}

void control_close(struct consumer *consumer)
{
    struct control *control = &consumer->control;
    pgask_free(control->ask);
    free(control->dsn);
    *control = (struct control){0};
    consumer->locked = false;
    consumer->backend_pid = 0;
}

bool control_idle(const struct consumer *consumer)
{
    return consumer->control.ask && consumer->control.count == 0;
}

void control_ask(struct consumer *consumer, const char *sql, const char *first, const char *second,
                 control_fn *fn)
{
    struct control *control = &consumer->control;
    if (!control->ask || control->count == CONTROL_QUEUE_MAX) {
        consumer_lose(consumer, CONSUMER_LOOKING, "too many questions to the primary at once");
        return;
    }
    struct control_job *job = &control->jobs[(control->first + control->count) % CONTROL_QUEUE_MAX];
    *job = (struct control_job){.sql = sql,
                                .param_count = second  ? 2
                                               : first ? 1
                                                       : 0,
                                .attempt = consumer->attempt,
                                .fn = fn};
    snprintf(job->params[0], sizeof(job->params[0]), "%s", first ? first : "");
    snprintf(job->params[1], sizeof(job->params[1]), "%s", second ? second : "");
    control->count++;
    pump(consumer);
}

/* --- numbers ---------------------------------------------------------------------------------- */

static void on_raised(struct consumer *consumer, const struct pgask_answer *answer)
{
    int64_t number = answer->error == SG_OK ? ask_number(answer->result, 1) : 0;
    consumer->draw_fn(consumer, number, answer->reason);
}

static void on_drawn(struct consumer *consumer, const struct pgask_answer *answer)
{
    int64_t number = answer->error == SG_OK ? ask_number(answer->result, 1) : 0;
    if (answer->error != SG_OK || number > consumer->draw_floor) {
        consumer->draw_fn(consumer, number, answer->reason);
        return;
    }
    /* the sequence fell behind with a failover that lost its last values */
    char above[24];
    snprintf(above, sizeof(above), "%lld", (long long)consumer->draw_floor + 1);
    control_ask(consumer, ask_raise_sql, above, NULL, on_raised);
}

void control_draw(struct consumer *consumer, int64_t floor, control_number_fn *fn)
{
    consumer->draw_floor = floor;
    consumer->draw_fn = fn;
    control_ask(consumer, ask_draw_sql, NULL, NULL, on_drawn);
}
