/*
 * One slice of reconcile: the steps around the comparison. See reconcile.h.
 *
 *   tap on ─> SCAN, HSCAN: suspects, keys that Redis has
 *          ─> BEGIN, temporary slot: C and its snapshot
 *          ─> questions, one by one: counters, do the suspects exist, tickets
 *          ─> COMMIT, a message into the WAL, so that an idle shard's feed gets past C, too
 *          ─> feed has applied C ─> HMGET of every key ─> compare ─> inject what heals
 *
 * Suspects are only what to ask for; what Redis has counts as it is read at the end.
 *
 * A key that is healed says C. During a switchover, C may be past the end of what the new primary
 * takes over, and its changes there would be passed by as known. So the fence is asked about when C
 * is known: if it is down, C is before it.
 *
 * SPDX-License-Identifier: MIT
 */
#include "replication/reconcile.h"

#include <event2/event.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/reap.h"
#include "base/settings.h"
#include "replication/feed.h"
#include "replication/fence_sql.h"
#include "replication/pgsession.h"
#include "replication/reconcile_internal.h"

#define NOTES_MAX 100000 /* effects while a slice is under way */
#define SQL_MAX ((size_t)4 * 1024 * 1024)

static const char *const state_names[] = {"connecting",
                                          "scanning Redis",
                                          "making a snapshot (waits for running transactions)",
                                          "asking PostgreSQL",
                                          "marking",
                                          "waiting for the feed",
                                          "reading Redis",
                                          "healing",
                                          "done",
                                          "failed"};

void reconcile_set_state(struct reconcile *reconcile, enum reconcile_state state)
{
    reconcile->state = state;
}

bool reconcile_is_over(const struct reconcile *reconcile)
{
    return reconcile->freed || reconcile->state == RECONCILE_DONE ||
           reconcile->state == RECONCILE_FAILED;
}

/* --- the end ---------------------------------------------------------------------------------- */

void reconcile_go_on_in(struct reconcile *reconcile, int64_t us)
{
    struct timeval pause = clock_timeval_us(us);
    event_add(reconcile->turn, &pause);
}

static void let_go(struct reconcile *reconcile)
{
    feed_set_tap(reconcile->config.feed, NULL, NULL);
    pgsession_free(reconcile->session);
    reconcile->session = NULL;
    event_del(reconcile->deadline);
}

void reconcile_fail(struct reconcile *reconcile, const char *format, ...)
{
    va_list args;
    if (reconcile_is_over(reconcile))
        return;
    int len = snprintf(reconcile->reason, sizeof(reconcile->reason),
                       "%s: ", state_names[reconcile->state]);
    va_start(args, format);
    vsnprintf(reconcile->reason + len, sizeof(reconcile->reason) - (size_t)len, format, args);
    va_end(args);
    reconcile_set_state(reconcile, RECONCILE_FAILED);
    let_go(reconcile);
    reconcile_go_on_in(reconcile, 0);
}

void reconcile_finish(struct reconcile *reconcile)
{
    reconcile_set_state(reconcile, RECONCILE_DONE);
    let_go(reconcile);
    reconcile_go_on_in(reconcile, 0);
}

static void tell(struct reconcile *reconcile)
{
    if (reconcile->told)
        return;
    reconcile->told = true;
    reconcile->config.on_done(reconcile->config.arg, &reconcile->report, &reconcile->next,
                              reconcile->state == RECONCILE_DONE ? NULL : reconcile->reason);
}

static void on_deadline(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    reconcile_fail(arg, "timeout");
}

static void on_effect(void *arg, const struct effect *effect, const struct position *position)
{
    struct reconcile *reconcile = arg;
    compare_note(reconcile->compare, effect, position);
    if (compare_is_full(reconcile->compare))
        reconcile_fail(reconcile, "more changes than can be noted");
}

/* Room for one more, or the end. */
void *reconcile_make_room(struct reconcile *reconcile, void *items, size_t count, size_t *size,
                          size_t item_len)
{
    if (count < *size)
        return items;
    size_t more = *size ? *size * 2 : 64;
    void *moved = realloc(items, more * item_len);
    if (!moved) {
        reconcile_fail(reconcile, "out of memory");
        return NULL;
    }
    *size = more;
    return moved;
}

/* --- the session ------------------------------------------------------------------------------ */

static void run(struct reconcile *reconcile, const char *sql,
                void (*on_result)(void *, const PGresult *),
                void (*on_done)(void *, const char *, const char *))
{
    pgsession_run(reconcile->session,
                  &(struct pgsession_command){
                      .sql = sql,
                      .on_result = on_result,
                      .on_done = on_done,
                      .arg = reconcile,
                      .timeout_us = reconcile->config.settings->cdc.reconcile_timeout_ms * 1000});
}

/* False: it is over. */
static bool went_well(struct reconcile *reconcile, const char *error)
{
    if (error)
        reconcile_fail(reconcile, "%s", error);
    return !reconcile_is_over(reconcile);
}

static void on_mark(void *arg, const PGresult *result)
{
    struct reconcile *reconcile = arg;
    if (PQresultStatus(result) == PGRES_TUPLES_OK && PQntuples(result) == 1 &&
        PQnfields(result) == 2)
        reconcile->unfenced = PQgetvalue(result, 0, 1)[0] == 'f';
}

static void on_marked(void *arg, const char *sqlstate, const char *error)
{
    struct reconcile *reconcile = arg;
    (void)sqlstate;
    if (!went_well(reconcile, error))
        return;
    if (!reconcile->unfenced) {
        reconcile_fail(reconcile, "a switchover is under way");
        return;
    }
    pgsession_free(reconcile->session); /* the slot goes with it */
    reconcile->session = NULL;
    reconcile_set_state(reconcile, RECONCILE_WAITING);
    reconcile_go_on_in(reconcile, 0);
}

static void on_committed(void *arg, const char *sqlstate, const char *error)
{
    struct reconcile *reconcile = arg;
    (void)sqlstate;
    if (!went_well(reconcile, error))
        return;
    /* A standby that is not there is not to be waited for here. */
    run(reconcile,
        "SET synchronous_commit = local;"
        "SELECT pg_logical_emit_message(true, 'seatgrid.cdc', 'reconcile')," FENCE_IS_UP_SQL
        " FROM " FENCE_ROW_SQL,
        on_mark, on_marked);
}

static void ask_next(struct reconcile *reconcile);

static void on_answered(void *arg, const char *sqlstate, const char *error)
{
    struct reconcile *reconcile = arg;
    (void)sqlstate;
    if (!went_well(reconcile, error))
        return;
    if (!reconcile->answered) {
        reconcile_fail(reconcile, "PostgreSQL gave no rows");
        return;
    }
    reconcile_next_question(reconcile);
    ask_next(reconcile);
}

static void seal(struct reconcile *reconcile)
{
    for (size_t i = 0; i < reconcile->pair_count; i++) {
        const char *user = reconcile->users[reconcile->pairs[i].user].name;
        compare_add_ticket(reconcile->compare, user, strlen(user), &reconcile->pairs[i].booking_id,
                           0);
    }
    compare_seal(reconcile->compare, reconcile->lsn);
    reconcile->report.lsn = reconcile->lsn;
    reconcile->next.tickets_done = reconcile->next.listed && reconcile->next.scanned;
    if (compare_is_full(reconcile->compare))
        reconcile_fail(reconcile, "out of memory");
}

static void ask_next(struct reconcile *reconcile)
{
    struct dynbuf sql;
    dynbuf_init(&sql, SQL_MAX);
    reconcile->answered = false;
    /* Many small look-ups: neither is worth its start. */
    dynbuf_adds(&sql, "SET LOCAL jit = off; SET LOCAL max_parallel_workers_per_gather = 0;");
    if (reconcile_write_question(reconcile, &sql)) {
        if (sql.failed)
            reconcile_fail(reconcile, "out of memory");
        else
            run(reconcile, dynbuf_text(&sql), reconcile_on_answer, on_answered);
    } else {
        seal(reconcile);
        if (!reconcile_is_over(reconcile)) {
            reconcile_set_state(reconcile, RECONCILE_MARKING);
            run(reconcile, "COMMIT", NULL, on_committed);
        }
    }
    dynbuf_done(&sql);
}

/* slot_name, consistent_point, ... */
static void on_slot(void *arg, const PGresult *result)
{
    struct reconcile *reconcile = arg;
    uint32_t high, low;
    if (PQresultStatus(result) == PGRES_TUPLES_OK && PQntuples(result) == 1 &&
        PQnfields(result) >= 2 &&
        sscanf(PQgetvalue(result, 0, 1), "%" SCNx32 "/%" SCNx32, &high, &low) == 2)
        reconcile->lsn = (uint64_t)high << 32 | low;
}

static void on_slot_made(void *arg, const char *sqlstate, const char *error)
{
    struct reconcile *reconcile = arg;
    (void)sqlstate;
    if (!went_well(reconcile, error))
        return;
    if (!reconcile->lsn) {
        reconcile_fail(reconcile, "PostgreSQL gave no position with the slot");
        return;
    }
    reconcile_set_state(reconcile, RECONCILE_ASKING);
    ask_next(reconcile);
}

/* A name that no slot of a generation has (repair.h). */
static void on_begun(void *arg, const char *sqlstate, const char *error)
{
    struct reconcile *reconcile = arg;
    char sql[160];
    (void)sqlstate;
    if (!went_well(reconcile, error))
        return;
    snprintf(sql, sizeof(sql),
             "CREATE_REPLICATION_SLOT \"sg_reconcile_%ld_%lld\" TEMPORARY LOGICAL pgoutput"
             " (SNAPSHOT 'use')",
             (long)getpid(), (long long)clock_mono_us());
    run(reconcile, sql, on_slot, on_slot_made);
}

void reconcile_take_snapshot(struct reconcile *reconcile)
{
    char sql[200];
    reconcile_set_state(reconcile, RECONCILE_SNAPSHOT);
    /* The server has to give up as well: while it waits for a transaction that is open, it does not
     * see by itself that nobody is there any more, and the slot stays. */
    snprintf(sql, sizeof(sql),
             "SET client_connection_check_interval = '1s'; SET lock_timeout = %lld;"
             "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
             (long long)reconcile->config.settings->cdc.reconcile_timeout_ms);
    run(reconcile, sql, NULL, on_begun);
}

static void on_connected(void *arg)
{
    struct reconcile *reconcile = arg;
    if (reconcile->config.only_events || reconcile->next.scanned) {
        reconcile_take_snapshot(reconcile);
    } else {
        reconcile_set_state(reconcile, RECONCILE_SCANNING);
        reconcile_scan(reconcile);
    }
}

static void on_lost(void *arg, const char *sqlstate, const char *reason)
{
    (void)sqlstate;
    reconcile_fail(arg, "PostgreSQL: %s", reason);
}

/* --- steps on the loop -------------------------------------------------------------------------
 */

/* Behind everything up to C: it is acknowledged. */
static void wait_for_feed(struct reconcile *reconcile)
{
    struct feed_status status;
    feed_get_status(reconcile->config.feed, &status);
    if (status.applied < reconcile->lsn) {
        reconcile_go_on_in(reconcile, RECONCILE_POLL_US);
        return;
    }
    reconcile_set_state(reconcile, RECONCILE_READING);
    reconcile_read(reconcile);
}

static void on_turn(evutil_socket_t fd, short what, void *arg)
{
    struct reconcile *reconcile = arg;
    (void)fd;
    (void)what;
    if (reconcile_is_over(reconcile))
        tell(reconcile);
    else if (reconcile->state == RECONCILE_WAITING)
        wait_for_feed(reconcile);
    else if (reconcile->state == RECONCILE_HEALING)
        reconcile_heal(reconcile);
}

/* --- life ------------------------------------------------------------------------------------- */

static void free_memory(void *object)
{
    struct reconcile *reconcile = object;
    if (reconcile->turn)
        event_free(reconcile->turn);
    if (reconcile->deadline)
        event_free(reconcile->deadline);
    compare_free(reconcile->compare);
    free(reconcile->events);
    free(reconcile->users);
    free(reconcile->pairs);
    free(reconcile->heals);
    free(reconcile->shard);
    free(reconcile);
}

void reconcile_release(struct reconcile *reconcile)
{
    if (reconcile->freed && !reconcile->asks_in_flight)
        reap(reconcile->config.reap, reconcile, free_memory);
}

struct reconcile *reconcile_new(const struct reconcile_config *config)
{
    struct reconcile *reconcile = calloc(1, sizeof(*reconcile));
    if (!reconcile)
        return NULL;
    reconcile->config = *config;
    reconcile->next = config->cursor;
    reconcile->shard = strdup(config->shard);
    reconcile->compare = compare_new(NOTES_MAX);
    reconcile->turn = evtimer_new(config->base, on_turn, reconcile);
    reconcile->deadline = evtimer_new(config->base, on_deadline, reconcile);
    if (reconcile->shard && reconcile->compare && reconcile->turn && reconcile->deadline)
        reconcile->session = pgsession_new(&(struct pgsession_config){
            .base = config->base,
            .reap = config->reap,
            .dsn = config->dsn,
            .replication = true,
            .application_name = "seatgrid cdc reconcile",
            .connect_timeout_us = config->settings->cdc.connect_timeout_ms * 1000,
            .on_connected = on_connected,
            .on_lost = on_lost,
            .arg = reconcile,
        });
    if (!reconcile->session) {
        free_memory(reconcile);
        return NULL;
    }
    struct timeval timeout = clock_timeval_us(config->settings->cdc.reconcile_timeout_ms * 1000);
    event_add(reconcile->deadline, &timeout);
    feed_set_tap(config->feed, on_effect, reconcile);
    return reconcile;
}

void reconcile_free(struct reconcile *reconcile)
{
    if (!reconcile || reconcile->freed)
        return;
    if (!reconcile_is_over(reconcile))
        let_go(reconcile);
    reconcile->freed = true;
    event_del(reconcile->turn);
    reconcile_release(reconcile);
}
