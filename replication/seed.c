/*
 * Seed: snapshot to keys. See seed.h.
 *
 *   session A   connect ─> CREATE_REPLICATION_SLOT, which waits for transactions that run ─┐
 *   session B   connect ─> (meanwhile: who is it waiting for?)          snapshot name, LSN │
 *                          BEGIN, SET TRANSACTION SNAPSHOT, count  <───────────────────────┘
 *                          COPY of counters ─> COPY of tickets ─> commands, gathered ─> sink
 *
 * A's snapshot lives until A's next command, so A stays untouched until B has it; the slot outlives
 * A.
 *
 * SPDX-License-Identifier: MIT
 */
#include "replication/seed.h"

#include <event2/event.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/dynbuf.h"
#include "base/log.h"
#include "base/reap.h"
#include "base/settings.h"
#include "replication/pgsession.h"
#include "replication/seed_rows.h"
#include "replication/sink.h"

#define SQL_MAX 1024
#define REASON_MAX 320
#define ROW_MAX 1024    /* of the command of one row, and more */
#define LOOK_US 2000000 /* between two looks at what the slot waits for */
#define LOOK_TIMEOUT_US 5000000

enum seed_state {
    SEED_CONNECTING,
    SEED_SLOT,
    SEED_COUNTING,
    SEED_EVENTS,
    SEED_TICKETS,
    SEED_DONE,
    SEED_FAILED
};

static const char *const state_names[] = {
    "connecting", "making the slot", "counting", "copying counters", "copying tickets",
    "done",       "failed"};

struct seed {
    struct seed_config config; /* shard, dsn, slot: copies */
    enum seed_state state;
    bool freed;
    bool told; /* on_done was called */
    char *shard;
    char *slot;
    struct pgsession *maker;  /* A */
    struct pgsession *reader; /* B */
    bool maker_ready, reader_ready;
    struct event *look; /* SLOT: at what it waits for; DONE, FAILED: tells it at the next turn */
    char blocker[160];  /* "" : nothing known */
    char snapshot[64];
    uint64_t consistent_lsn;
    char reason[REASON_MAX];

    struct seed_rows rows;
    struct seed_progress progress;
    struct dynbuf batch;
    size_t batch_count;
    int64_t batches_in_flight;
    bool held_back; /* B: a row waits for a batch to come back */
    bool copied;    /* both COPYs are over */
};

/* Every transaction that is older than the slot has to end first. */
static const char who_sql[] =
    "SELECT coalesce(b.pid, 0), coalesce(nullif(b.application_name, ''), 'unknown'),"
    "       coalesce(extract(epoch FROM now() - b.xact_start)::bigint, 0)"
    "  FROM pg_replication_slots s"
    " CROSS JOIN LATERAL unnest(pg_blocking_pids(s.active_pid)) AS w (pid)"
    "  LEFT JOIN pg_stat_activity b ON b.pid = w.pid"
    " WHERE s.slot_name = '%s' AND s.active_pid IS NOT NULL LIMIT 1";

/* A snapshot lasts as long as its transaction, so nothing may end that. */
static const char snapshot_sql[] =
    "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;"
    "SET TRANSACTION SNAPSHOT '%s';"
    "SET LOCAL statement_timeout = 0;"
    "SET LOCAL idle_in_transaction_session_timeout = 0;"
    "SELECT (SELECT count(*) FROM events),"
    "       (SELECT count(*) FROM bookings WHERE status IN ('held', 'confirmed')"
    "           AND octet_length(user_id) BETWEEN 1 AND 64)";

/* Without a grid: bookings that have outlived their event. */
static const char events_sql[] =
    "COPY (SELECT event_id, coalesce(e.rows, 0), coalesce(e.cols, 0),"
    "             coalesce(b.held, 0), coalesce(b.booked, 0)"
    "        FROM events e FULL JOIN"
    "             (SELECT event_id,"
    "                     sum(cardinality(seats)) FILTER (WHERE status = 'held') AS held,"
    "                     sum(cardinality(seats)) FILTER (WHERE status = 'confirmed') AS booked"
    "                FROM bookings WHERE status IN ('held', 'confirmed') GROUP BY event_id) b"
    "       USING (event_id)) TO STDOUT";

/* A user id that nobody can ask for is not indexed, here and in projection.c. */
static const char tickets_sql[] = "COPY (SELECT user_id, booking_id, event_id FROM bookings"
                                  "       WHERE status IN ('held', 'confirmed')"
                                  "         AND octet_length(user_id) BETWEEN 1 AND 64) TO STDOUT";

static void set_state(struct seed *seed, enum seed_state state)
{
    seed->state = state;
}

static bool is_over(const struct seed *seed)
{
    return seed->freed || seed->state == SEED_DONE || seed->state == SEED_FAILED;
}

static struct log_fields fields_of(const struct seed *seed)
{
    return (struct log_fields){.shard = seed->shard};
}

/* --- the end ---------------------------------------------------------------------------------- */

static void tell_soon(struct seed *seed)
{
    struct timeval now = {0};
    event_add(seed->look, &now);
}

static void fail(struct seed *seed, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void fail(struct seed *seed, const char *format, ...)
{
    va_list args;
    if (is_over(seed))
        return;
    int len = snprintf(seed->reason, sizeof(seed->reason), "%s: ", state_names[seed->state]);
    va_start(args, format);
    vsnprintf(seed->reason + len, sizeof(seed->reason) - (size_t)len, format, args);
    va_end(args);
    set_state(seed, SEED_FAILED);
    pgsession_free(seed->maker);
    pgsession_free(seed->reader);
    seed->maker = NULL;
    seed->reader = NULL;
    tell_soon(seed);
}

static void finish(struct seed *seed)
{
    set_state(seed, SEED_DONE);
    pgsession_free(seed->reader);
    seed->reader = NULL;
    tell_soon(seed);
}

static void tell(struct seed *seed)
{
    if (seed->told)
        return;
    seed->told = true;
    seed->config.on_done(seed->config.arg, seed->consistent_lsn,
                         seed->state == SEED_DONE ? NULL : seed->reason);
}

/* Runs a command of the reader; everything that fails is the end. */
static void run(struct seed *seed, const char *sql, void (*on_result)(void *, const PGresult *),
                bool (*on_copy)(void *, const char *, size_t),
                void (*on_done)(void *, const char *, const char *))
{
    pgsession_run(seed->reader, &(struct pgsession_command){
                                    .sql = sql,
                                    .on_result = on_result,
                                    .on_copy = on_copy,
                                    .on_done = on_done,
                                    .arg = seed,
                                    .timeout_us = seed->config.settings->cdc.seed_timeout_ms * 1000,
                                });
}

/* --- keys ------------------------------------------------------------------------------------- */

static void on_batch(void *arg, const struct sink_result *result);

static void release(struct seed *seed);

static void send_batch(struct seed *seed)
{
    if (!sink_send(seed->config.sink, &seed->batch, seed->batch_count, on_batch, seed)) {
        fail(seed, seed->batch.failed ? "out of memory" : "Redis is not connected");
        return;
    }
    seed->batches_in_flight++;
    dynbuf_reset(&seed->batch);
    seed->batch_count = 0;
}

static bool may_send(const struct seed *seed)
{
    return seed->batches_in_flight < seed->config.settings->cdc.batches_in_flight;
}

static bool is_full(const struct seed *seed)
{
    const struct settings *settings = seed->config.settings;
    return seed->batch_count >= (size_t)settings->cdc.batch_max ||
           seed->batch.len >= (size_t)settings->cdc.batch_bytes;
}

/* Both COPYs are over: what was gathered goes, and when all is acknowledged it is done. */
static void go_on_to_end(struct seed *seed)
{
    if (seed->batch_count && may_send(seed))
        send_batch(seed);
    if (!is_over(seed) && !seed->batch_count && !seed->batches_in_flight)
        finish(seed);
}

static void on_batch(void *arg, const struct sink_result *result)
{
    struct seed *seed = arg;
    seed->batches_in_flight--;
    if (seed->freed) {
        release(seed);
        return;
    }
    if (is_over(seed))
        return;
    if (result->outcome != SINK_DONE) {
        fail(seed, "Redis: %s", result->reason);
    } else if (seed->copied) {
        go_on_to_end(seed);
    } else if (seed->held_back) {
        seed->held_back = false;
        pgsession_resume(seed->reader);
    }
}

/* False: not now, the batch is full and none may go. */
static bool take_row(struct seed *seed, const char *row, size_t len,
                     enum sg_error (*write)(const struct seed_rows *, const char *, size_t,
                                            struct dynbuf *),
                     int64_t *count)
{
    if (is_over(seed))
        return true;
    if (is_full(seed)) {
        if (!may_send(seed)) {
            seed->held_back = true;
            return false;
        }
        send_batch(seed);
        if (is_over(seed))
            return true;
    }
    if (write(&seed->rows, row, len, &seed->batch)) {
        fail(seed, "PostgreSQL sent a row that cannot be read: %.*s", (int)strcspn(row, "\n"), row);
        return true;
    }
    seed->batch_count++;
    (*count)++;
    return true;
}

static bool on_event_row(void *arg, const char *row, size_t len)
{
    struct seed *seed = arg;
    return take_row(seed, row, len, seed_rows_event, &seed->progress.events);
}

static bool on_ticket_row(void *arg, const char *row, size_t len)
{
    struct seed *seed = arg;
    return take_row(seed, row, len, seed_rows_ticket, &seed->progress.tickets);
}

/* --- session B -------------------------------------------------------------------------------- */

static void on_tickets_done(void *arg, const char *sqlstate, const char *error)
{
    struct seed *seed = arg;
    (void)sqlstate;
    if (is_over(seed))
        return;
    if (error) {
        fail(seed, "%s", error);
        return;
    }
    seed->copied = true;
    go_on_to_end(seed);
}

static void on_events_done(void *arg, const char *sqlstate, const char *error)
{
    struct seed *seed = arg;
    (void)sqlstate;
    if (is_over(seed))
        return;
    if (error) {
        fail(seed, "%s", error);
        return;
    }
    set_state(seed, SEED_TICKETS);
    run(seed, tickets_sql, NULL, on_ticket_row, on_tickets_done);
}

static void on_counts(void *arg, const PGresult *result)
{
    struct seed *seed = arg;
    if (PQresultStatus(result) != PGRES_TUPLES_OK || PQntuples(result) != 1)
        return;
    seed->progress.events_total = strtoll(PQgetvalue(result, 0, 0), NULL, 10);
    seed->progress.tickets_total = strtoll(PQgetvalue(result, 0, 1), NULL, 10);
}

static void on_counted(void *arg, const char *sqlstate, const char *error)
{
    struct seed *seed = arg;
    (void)sqlstate;
    if (is_over(seed))
        return;
    pgsession_free(seed->maker); /* B has the snapshot; the slot stays */
    seed->maker = NULL;
    if (error) {
        fail(seed, "%s", error);
        return;
    }
    set_state(seed, SEED_EVENTS);
    run(seed, events_sql, NULL, on_event_row, on_events_done);
}

static void count(struct seed *seed)
{
    char sql[SQL_MAX];
    if (!pgsession_is_idle(seed->reader))
        return; /* it is looking at what the slot waits for; goes on when it has seen it */
    set_state(seed, SEED_COUNTING);
    event_del(seed->look);
    snprintf(sql, sizeof(sql), snapshot_sql, seed->snapshot);
    run(seed, sql, on_counts, NULL, on_counted);
}

/* --- the slot --------------------------------------------------------------------------------- */

static void on_blocker(void *arg, const PGresult *result)
{
    struct seed *seed = arg;
    seed->blocker[0] = '\0';
    if (PQresultStatus(result) != PGRES_TUPLES_OK || PQntuples(result) != 1)
        return;
    const char *pid = PQgetvalue(result, 0, 0);
    if (strcmp(pid, "0") == 0)
        snprintf(seed->blocker, sizeof(seed->blocker), "a prepared transaction");
    else
        snprintf(seed->blocker, sizeof(seed->blocker),
                 "a transaction that is open for %s s (pid %s, %.64s)", PQgetvalue(result, 0, 2),
                 pid, PQgetvalue(result, 0, 1));
}

static void look_later(struct seed *seed)
{
    struct timeval pause = clock_timeval_us(LOOK_US);
    event_add(seed->look, &pause);
}

static void on_looked(void *arg, const char *sqlstate, const char *error)
{
    struct seed *seed = arg;
    const struct log_fields fields = fields_of(seed);
    (void)sqlstate;
    (void)error; /* it is for people only */
    if (is_over(seed))
        return;
    if (seed->snapshot[0]) {
        count(seed);
        return;
    }
    if (seed->blocker[0])
        log_warn(&fields, "seed: the slot waits for %s", seed->blocker);
    look_later(seed);
}

static void look(struct seed *seed)
{
    char sql[SQL_MAX];
    snprintf(sql, sizeof(sql), who_sql, seed->slot);
    pgsession_run(seed->reader, &(struct pgsession_command){.sql = sql,
                                                            .on_result = on_blocker,
                                                            .on_done = on_looked,
                                                            .arg = seed,
                                                            .timeout_us = LOOK_TIMEOUT_US});
}

static void on_look(evutil_socket_t fd, short what, void *arg)
{
    struct seed *seed = arg;
    (void)fd;
    (void)what;
    if (is_over(seed))
        tell(seed);
    else if (seed->state == SEED_SLOT && pgsession_is_idle(seed->reader))
        look(seed);
}

/* slot_name, consistent_point, snapshot_name, output_plugin */
static void on_slot(void *arg, const PGresult *result)
{
    struct seed *seed = arg;
    uint32_t high, low;
    if (PQresultStatus(result) != PGRES_TUPLES_OK || PQntuples(result) != 1 ||
        PQnfields(result) < 3 ||
        sscanf(PQgetvalue(result, 0, 1), "%" SCNx32 "/%" SCNx32, &high, &low) != 2)
        return;
    const char *snapshot = PQgetvalue(result, 0, 2);
    if (strlen(snapshot) >= sizeof(seed->snapshot) ||
        strspn(snapshot, "0123456789ABCDEFabcdef-") != strlen(snapshot))
        return;
    seed->consistent_lsn = (uint64_t)high << 32 | low;
    snprintf(seed->snapshot, sizeof(seed->snapshot), "%s", snapshot);
}

static void on_slot_made(void *arg, const char *sqlstate, const char *error)
{
    struct seed *seed = arg;
    (void)sqlstate;
    if (is_over(seed))
        return;
    if (error || !seed->snapshot[0]) {
        fail(seed, "%s", error ? error : "PostgreSQL gave no snapshot with the slot");
        return;
    }
    seed_rows_init(&seed->rows, seed->shard, seed->config.generation, seed->config.epoch,
                   seed->consistent_lsn);
    count(seed);
}

static void make_slot(struct seed *seed)
{
    char sql[SQL_MAX];
    if (!seed->maker_ready || !seed->reader_ready)
        return;
    set_state(seed, SEED_SLOT);
    snprintf(sql, sizeof(sql),
             "CREATE_REPLICATION_SLOT \"%s\" LOGICAL pgoutput (SNAPSHOT 'export')", seed->slot);
    pgsession_run(seed->maker,
                  &(struct pgsession_command){
                      .sql = sql,
                      .on_result = on_slot,
                      .on_done = on_slot_made,
                      .arg = seed,
                      .timeout_us = seed->config.settings->cdc.seed_timeout_ms * 1000});
    look_later(seed);
}

/* --- sessions --------------------------------------------------------------------------------- */

static void on_maker_connected(void *arg)
{
    struct seed *seed = arg;
    seed->maker_ready = true;
    make_slot(seed);
}

static void on_reader_connected(void *arg)
{
    struct seed *seed = arg;
    seed->reader_ready = true;
    make_slot(seed);
}

static void on_lost(void *arg, const char *sqlstate, const char *reason)
{
    struct seed *seed = arg;
    (void)sqlstate;
    if (seed->state == SEED_SLOT && seed->blocker[0])
        fail(seed, "%s; it waits for %s", reason, seed->blocker);
    else
        fail(seed, "%s", reason);
}

static struct pgsession *connect_to(struct seed *seed, bool replication,
                                    void (*on_connected)(void *))
{
    const struct seed_config *config = &seed->config;
    return pgsession_new(&(struct pgsession_config){
        .base = config->base,
        .reap = config->reap,
        .dsn = config->dsn,
        .replication = replication,
        .application_name = "seatgrid cdc seed",
        .connect_timeout_us = config->settings->cdc.connect_timeout_ms * 1000,
        .on_connected = on_connected,
        .on_lost = on_lost,
        .arg = seed,
    });
}

static void free_memory(void *object)
{
    struct seed *seed = object;
    if (seed->look)
        event_free(seed->look);
    dynbuf_done(&seed->batch);
    free(seed->shard);
    free(seed->slot);
    free(seed);
}

struct seed *seed_new(const struct seed_config *config)
{
    struct seed *seed = calloc(1, sizeof(*seed));
    if (!seed)
        return NULL;
    seed->config = *config;
    seed->progress.started_us = clock_mono_us();
    dynbuf_init(&seed->batch, (size_t)config->settings->cdc.batch_bytes + ROW_MAX);
    seed->shard = strdup(config->shard);
    seed->slot = strdup(config->slot);
    seed->look = evtimer_new(config->base, on_look, seed);
    if (seed->shard && seed->slot && seed->look) {
        seed->maker = connect_to(seed, true, on_maker_connected);
        seed->reader = connect_to(seed, false, on_reader_connected);
    }
    if (seed->maker && seed->reader)
        return seed;
    pgsession_free(seed->maker);
    pgsession_free(seed->reader);
    free_memory(seed);
    return NULL;
}

/* Freed, and no batch is under way any more. */
static void release(struct seed *seed)
{
    if (!seed->batches_in_flight)
        reap(seed->config.reap, seed, free_memory);
}

void seed_free(struct seed *seed)
{
    if (!seed || seed->freed)
        return;
    seed->freed = true;
    event_del(seed->look);
    pgsession_free(seed->maker);
    pgsession_free(seed->reader);
    seed->maker = NULL;
    seed->reader = NULL;
    release(seed);
}

struct seed_progress seed_get_progress(const struct seed *seed)
{
    return seed->progress;
}
