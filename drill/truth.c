/*
 * Reading the databases after a drill. See truth.h.
 *
 *   shard of an event ─> ask every node: recovery? timeline? ─> highest primary
 *                     ─> one snapshot: bookings, claims ─> arrays
 *
 * SPDX-License-Identifier: MIT
 */
#include "drill/truth.h"

#include <inttypes.h>
#include <libpq-fe.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/dynbuf.h"
#include "shardmap/shardmap.h"

#define CONNECT_TIMEOUT_S "3"
#define SESSION_OPTIONS "-c statement_timeout=60000"
#define EVENTS_MAX_BYTES (1 << 20)
#define ROOM_MIN 1024

/* --- the arrays ------------------------------------------------------------------------------- */

struct truth *truth_new(void)
{
    return calloc(1, sizeof(struct truth));
}

void truth_free(struct truth *truth)
{
    if (!truth)
        return;
    free(truth->bookings);
    free(truth->claims);
    free(truth->seats);
    free(truth);
}

/* Room for `needed` items; the array itself, moved perhaps, or NULL: it is as it was. */
static void *reserve(void *array, size_t *room, size_t needed, size_t item_bytes)
{
    size_t wish = *room * 2 < ROOM_MIN ? ROOM_MIN : *room * 2;
    if (needed <= *room && array)
        return array;
    if (wish < needed)
        wish = needed;
    array = realloc(array, wish * item_bytes);
    if (array)
        *room = wish;
    return array;
}

bool truth_add_booking(struct truth *truth, const struct truth_booking *booking,
                       const int32_t *seats, size_t seat_count)
{
    struct truth_booking *bookings =
        reserve(truth->bookings, &truth->booking_room, truth->booking_count + 1, sizeof(*bookings));
    if (!bookings)
        return false;
    truth->bookings = bookings;
    int32_t *room =
        reserve(truth->seats, &truth->seat_room, truth->seat_count + seat_count, sizeof(*room));
    if (!room)
        return false;
    truth->seats = room;
    struct truth_booking *copy = &bookings[truth->booking_count++];
    *copy = *booking;
    copy->seats_at = truth->seat_count;
    copy->seat_count = seat_count;
    if (seat_count)
        memcpy(truth->seats + truth->seat_count, seats, seat_count * sizeof(*seats));
    truth->seat_count += seat_count;
    return true;
}

bool truth_add_claim(struct truth *truth, const struct truth_claim *claim)
{
    struct truth_claim *claims =
        reserve(truth->claims, &truth->claim_room, truth->claim_count + 1, sizeof(*claims));
    if (!claims)
        return false;
    truth->claims = claims;
    claims[truth->claim_count++] = *claim;
    return true;
}

/* --- one reading ------------------------------------------------------------------------------ */

struct reading {
    const struct history *history;
    const struct shardmap_shard *shard;
    uint8_t shard_name; /* in the history */
    struct truth *truth;
    PGconn *conn;      /* to the primary */
    char problem[512]; /* what went wrong, one line */
};

__attribute__((format(printf, 3, 4))) static enum sg_error
fail(struct reading *reading, enum sg_error error, const char *format, ...)
{
    size_t len;
    va_list args;
    va_start(args, format);
    vsnprintf(reading->problem, sizeof(reading->problem), format, args);
    va_end(args);
    len = strlen(reading->problem);
    while (len && (unsigned char)reading->problem[len - 1] <= ' ')
        reading->problem[--len] = '\0';
    for (char *p = reading->problem; *p; p++) {
        if (*p == '\n')
            *p = ' ';
    }
    return error;
}

static enum sg_error fail_query(struct reading *reading, PGresult *result, const char *what)
{
    PQclear(result);
    return fail(reading, SG_IO, "shard %s: reading its %s: %s", reading->shard->name, what,
                PQerrorMessage(reading->conn));
}

/* --- the primary ------------------------------------------------------------------------------ */

static PGconn *connect_node(const struct shardmap_node *node)
{
    const char *const keywords[] = {"dbname",  "connect_timeout",  "application_name",
                                    "options", "tcp_user_timeout", NULL};
    const char *const values[] = {node->dsn,       CONNECT_TIMEOUT_S, "seatgrid drill",
                                  SESSION_OPTIONS, "10000",           NULL};
    return PQconnectdbParams(keywords, values, 1);
}

/* The timeline that the node writes to; 0: it does not answer, or is in recovery. */
static int64_t primary_timeline(PGconn *conn)
{
    int64_t timeline = 0;
    if (PQstatus(conn) != CONNECTION_OK)
        return 0;
    PGresult *result =
        PQexec(conn, "SELECT CASE WHEN pg_is_in_recovery() THEN 0 ELSE own_timeline() END");
    if (PQresultStatus(result) == PGRES_TUPLES_OK && PQntuples(result) == 1)
        timeline = strtoll(PQgetvalue(result, 0, 0), NULL, 10);
    PQclear(result);
    return timeline;
}

static enum sg_error find_primary(struct reading *reading)
{
    const struct shardmap_shard *shard = reading->shard;
    int64_t highest = 0;
    bool several = false;
    for (size_t i = 0; i < shard->node_count; i++) {
        PGconn *conn = connect_node(&shard->nodes[i]);
        int64_t timeline = primary_timeline(conn);
        several = timeline > highest ? false : several || (timeline && timeline == highest);
        if (timeline > highest) {
            highest = timeline;
            PQfinish(reading->conn);
            reading->conn = conn;
        } else {
            PQfinish(conn);
        }
    }
    if (!highest)
        return fail(reading, SG_SHARD_UNAVAILABLE, "shard %s: no node says that it is the primary",
                    shard->name);
    if (several)
        return fail(reading, SG_SHARD_UNAVAILABLE, "shard %s: two primaries on timeline %" PRId64,
                    shard->name, highest);
    return SG_OK;
}

/* --- its rows --------------------------------------------------------------------------------- */

/* "{1,2,3}" of the ids of this shard's events. */
static void list_events(const struct reading *reading, struct dynbuf *out)
{
    bool first = true;
    dynbuf_addc(out, '{');
    for (size_t i = 0; i < reading->history->event_count; i++) {
        const struct history_event *event = &reading->history->events[i];
        if (event->shard != reading->shard_name)
            continue;
        if (!first)
            dynbuf_addc(out, ',');
        dynbuf_add_i64(out, event->id);
        first = false;
    }
    dynbuf_addc(out, '}');
}

static uint32_t event_index(const struct reading *reading, const char *id)
{
    int64_t value = strtoll(id, NULL, 10);
    for (size_t i = 0; i < reading->history->event_count; i++) {
        if (reading->history->events[i].id == value)
            return (uint32_t)i;
    }
    return HISTORY_NONE;
}

/* Seats of "{4,5,6}" into an array that is the caller's to free; NULL without memory. */
static int32_t *parse_seats(const char *text, size_t *ret_count)
{
    size_t room = 1, count = 0;
    for (const char *p = text; *p; p++)
        room += *p == ',';
    int32_t *seats = malloc(room * sizeof(*seats));
    for (const char *p = text + 1; seats && *p >= '0' && *p <= '9';) {
        char *end;
        seats[count++] = (int32_t)strtol(p, &end, 10);
        p = *end == ',' ? end + 1 : end;
    }
    *ret_count = count;
    return seats;
}

static bool add_booking_row(struct reading *reading, PGresult *result, int row)
{
    struct truth_booking booking = {.event = event_index(reading, PQgetvalue(result, row, 0))};
    size_t count;
    if (booking.event == HISTORY_NONE ||
        !uuid_parse(PQgetvalue(result, row, 1), &booking.booking_id))
        return false;
    snprintf(booking.status, sizeof(booking.status), "%s", PQgetvalue(result, row, 2));
    snprintf(booking.key, sizeof(booking.key), "%s", PQgetvalue(result, row, 3));
    int32_t *seats = parse_seats(PQgetvalue(result, row, 4), &count);
    bool added = seats && truth_add_booking(reading->truth, &booking, seats, count);
    free(seats);
    return added;
}

static bool add_claim_row(struct reading *reading, PGresult *result, int row)
{
    struct truth_claim claim = {.event = event_index(reading, PQgetvalue(result, row, 0))};
    if (claim.event == HISTORY_NONE || !uuid_parse(PQgetvalue(result, row, 1), &claim.booking_id))
        return false;
    claim.booked = strcmp(PQgetvalue(result, row, 2), "booked") == 0;
    claim.seat_no = (int32_t)strtol(PQgetvalue(result, row, 3), NULL, 10);
    return truth_add_claim(reading->truth, &claim);
}

static enum sg_error read_rows(struct reading *reading, const char *what, const char *sql,
                               const char *events,
                               bool (*add)(struct reading *reading, PGresult *result, int row))
{
    PGresult *result =
        PQexecParams(reading->conn, sql, 1, NULL, (const char *const[]){events}, NULL, NULL, 0);
    if (PQresultStatus(result) != PGRES_TUPLES_OK)
        return fail_query(reading, result, what);
    for (int row = 0; row < PQntuples(result); row++) {
        if (!add(reading, result, row)) {
            PQclear(result);
            return fail(reading, SG_NO_MEMORY, "shard %s: no memory for its %s",
                        reading->shard->name, what);
        }
    }
    PQclear(result);
    return SG_OK;
}

static enum sg_error read_snapshot(struct reading *reading, const char *events)
{
    PGresult *result =
        PQexec(reading->conn, "BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY");
    if (PQresultStatus(result) != PGRES_COMMAND_OK)
        return fail_query(reading, result, "snapshot");
    PQclear(result);
    enum sg_error error =
        read_rows(reading, "bookings",
                  "SELECT event_id, booking_id, status, coalesce(idempotency_key, ''), seats"
                  "  FROM bookings WHERE event_id = ANY ($1::bigint[])",
                  events, add_booking_row);
    if (error != SG_OK)
        return error;
    return read_rows(reading, "claims",
                     "SELECT event_id, booking_id, state, seat_no"
                     "  FROM claims WHERE event_id = ANY ($1::bigint[])",
                     events, add_claim_row);
}

static enum sg_error read_shard(struct reading *reading, uint8_t name, const struct shardmap *map)
{
    struct dynbuf events;
    int index = shardmap_shard_by_name(map, reading->history->names[name]);
    if (index < 0)
        return fail(reading, SG_UNKNOWN_SHARD, "shard %s: is not in the map",
                    reading->history->names[name]);
    reading->shard = shardmap_shard(map, index);
    reading->shard_name = name;
    reading->conn = NULL;
    dynbuf_init(&events, EVENTS_MAX_BYTES);
    list_events(reading, &events);
    enum sg_error error =
        events.failed ? fail(reading, SG_NO_MEMORY, "too many events") : find_primary(reading);
    if (error == SG_OK)
        error = read_snapshot(reading, dynbuf_text(&events));
    PQfinish(reading->conn);
    dynbuf_done(&events);
    return error;
}

static bool has_events(const struct history *history, uint8_t shard)
{
    for (size_t i = 0; i < history->event_count; i++) {
        if (history->events[i].shard == shard)
            return true;
    }
    return false;
}

enum sg_error truth_read(const struct shardmap *map, const struct history *history,
                         struct truth **ret_truth, char *error_text, size_t error_size)
{
    struct reading reading = {.history = history, .truth = truth_new()};
    enum sg_error error =
        reading.truth ? SG_OK : fail(&reading, SG_NO_MEMORY, "no memory for the truth");
    for (size_t name = 0; name < history->name_count && error == SG_OK; name++) {
        if (has_events(history, (uint8_t)name))
            error = read_shard(&reading, (uint8_t)name, map);
    }
    if (error == SG_OK) {
        *ret_truth = reading.truth;
        return SG_OK;
    }
    snprintf(error_text, error_size, "%s", reading.problem);
    truth_free(reading.truth);
    return error;
}
