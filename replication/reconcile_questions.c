/*
 * What is asked of PostgreSQL within the snapshot, one question after the other, and what its
 * answers mean for the comparison. See reconcile.h.
 *
 *   ASK_EVENTS              counters from the cursor upwards, in portions
 *   ASK_SUSPECTED_EVENTS    do the events that Redis has exist?
 *   ASK_TICKETS             tickets from the cursor upwards
 *   ASK_PAIRS               are the tickets that Redis has there?  in portions
 *
 * SPDX-License-Identifier: MIT
 */
#include <stdlib.h>

#include "base/settings.h"
#include "replication/reconcile_internal.h"

#define PAIRS_ASKED 1000  /* in one question */
#define EVENTS_ASKED 50   /* in one question */
#define SUMMED_MAX 200000 /* bookings; past it a slice takes no more events */

/* --- questions to PostgreSQL ------------------------------------------------------------------ */

/* Integers and uuids are all that is ever written into a statement. */

/* Portions, because nobody knows before how many bookings an event has. */
static int64_t events_asked(const struct reconcile *reconcile)
{
    const int64_t left = reconcile->config.settings->cdc.reconcile_slice - reconcile->events_taken;
    return left < EVENTS_ASKED ? left : EVENTS_ASKED;
}

static void write_events_sql(struct reconcile *reconcile, struct dynbuf *sql)
{
    const struct reconcile_config *config = &reconcile->config;
    dynbuf_adds(sql, "SELECT e.event_id, e.rows, e.cols, coalesce(b.held, 0),"
                     "       coalesce(b.booked, 0), b.count"
                     "  FROM (SELECT event_id, rows, cols FROM events WHERE event_id ");
    if (config->only_events) {
        dynbuf_adds(sql, "= ANY ('{");
        for (size_t i = 0; i < config->only_count; i++)
            dynbuf_addf(sql, "%s%lld", i ? "," : "", (long long)config->only_events[i]);
        dynbuf_adds(sql, "}')");
    } else {
        dynbuf_addf(sql, "> %lld ORDER BY event_id LIMIT %lld",
                    (long long)reconcile->next.after_event, (long long)events_asked(reconcile));
    }
    dynbuf_adds(sql,
                ") e LEFT JOIN LATERAL"
                "       (SELECT sum(cardinality(seats)) FILTER (WHERE status = 'held') AS held,"
                "               sum(cardinality(seats)) FILTER (WHERE status = 'confirmed')"
                "                   AS booked,"
                "               count(*) AS count"
                "          FROM bookings WHERE event_id = e.event_id"
                "           AND status IN ('held', 'confirmed')) b ON true"
                " ORDER BY e.event_id");
}

static void write_suspected_events_sql(struct reconcile *reconcile, struct dynbuf *sql)
{
    dynbuf_adds(sql, "SELECT event_id FROM events WHERE event_id = ANY ('{");
    for (size_t i = 0; i < reconcile->event_count; i++)
        dynbuf_addf(sql, "%s%lld", i ? "," : "", (long long)reconcile->events[i]);
    dynbuf_adds(sql, "}') ORDER BY event_id");
}

static void write_tickets_sql(struct reconcile *reconcile, struct dynbuf *sql)
{
    char booking[UUID_TEXT_LEN + 1];
    uuid_format(&reconcile->next.ticket_booking, booking);
    dynbuf_addf(sql,
                "SELECT user_id, booking_id, event_id FROM bookings"
                " WHERE (event_id, booking_id) > (%lld, '%s')"
                "   AND status IN ('held', 'confirmed')"
                "   AND octet_length(user_id) BETWEEN 1 AND 64"
                " ORDER BY event_id, booking_id LIMIT %lld",
                (long long)reconcile->next.ticket_event, booking,
                (long long)reconcile->config.settings->cdc.reconcile_slice);
}

static void write_pairs_sql(struct reconcile *reconcile, struct dynbuf *sql)
{
    const struct pair *pairs = reconcile->pairs + reconcile->pairs_asked;
    size_t count = reconcile->pair_count - reconcile->pairs_asked;
    char booking[UUID_TEXT_LEN + 1];
    if (count > PAIRS_ASKED)
        count = PAIRS_ASKED;
    dynbuf_adds(sql, "SELECT b.user_id, b.booking_id, b.event_id FROM unnest('{");
    for (size_t i = 0; i < count; i++)
        dynbuf_addf(sql, "%s%lld", i ? "," : "", (long long)pairs[i].event_id);
    dynbuf_adds(sql, "}'::bigint[], '{");
    for (size_t i = 0; i < count; i++) {
        uuid_format(&pairs[i].booking_id, booking);
        dynbuf_addf(sql, "%s%s", i ? "," : "", booking);
    }
    dynbuf_adds(sql, "}'::uuid[]) AS q (event_id, booking_id)"
                     "  JOIN bookings b USING (event_id, booking_id)"
                     " WHERE b.status IN ('held', 'confirmed')"
                     "   AND octet_length(b.user_id) BETWEEN 1 AND 64");
    reconcile->pairs_asked += count;
}

/* The next question, or false when there is none. */
bool reconcile_write_question(struct reconcile *reconcile, struct dynbuf *sql)
{
    const bool only = reconcile->config.only_events != NULL;
    for (;; reconcile->question++) {
        switch (reconcile->question) {
        case ASK_EVENTS:
            if (reconcile->next.events_done)
                continue;
            write_events_sql(reconcile, sql);
            return true;
        case ASK_SUSPECTED_EVENTS:
            if (!reconcile->event_count)
                continue;
            write_suspected_events_sql(reconcile, sql);
            return true;
        case ASK_TICKETS:
            if (only || reconcile->next.listed)
                continue;
            write_tickets_sql(reconcile, sql);
            return true;
        case ASK_PAIRS:
            if (reconcile->pairs_asked == reconcile->pair_count)
                continue;
            write_pairs_sql(reconcile, sql);
            return true;
        case ASK_NO_MORE:
            return false;
        }
    }
}

static int64_t number_at(const PGresult *result, int row, int column)
{
    return strtoll(PQgetvalue(result, row, column), NULL, 10);
}

static void take_events(struct reconcile *reconcile, const PGresult *result)
{
    const struct reconcile_config *config = &reconcile->config;
    const int count = PQntuples(result);
    const bool last = config->only_events || count < events_asked(reconcile);
    for (int i = 0; i < count; i++) {
        const struct compare_counters counters = {.exists = true,
                                                  .rows = (int32_t)number_at(result, i, 1),
                                                  .cols = (int32_t)number_at(result, i, 2),
                                                  .held = number_at(result, i, 3),
                                                  .booked = number_at(result, i, 4)};
        compare_add_event(reconcile->compare, number_at(result, i, 0), &counters);
        reconcile->bookings_summed += number_at(result, i, 5);
    }
    reconcile->events_taken += count;
    for (size_t i = 0; config->only_events && i < config->only_count; i++)
        compare_add_event(reconcile->compare, config->only_events[i],
                          &(struct compare_counters){0}); /* a double, if it exists */
    if (last)
        reconcile->next.events_done = true;
    else
        reconcile->next.after_event = number_at(result, count - 1, 0);
}

static int by_number(const void *a, const void *b)
{
    const int64_t left = *(const int64_t *)a, right = *(const int64_t *)b;
    return (left > right) - (left < right);
}

/* Both in order: who is suspected and not in the answer does not exist. */
static void take_suspected_events(struct reconcile *reconcile, const PGresult *result)
{
    int row = 0;
    qsort(reconcile->events, reconcile->event_count, sizeof(*reconcile->events), by_number);
    for (size_t i = 0; i < reconcile->event_count; i++) {
        const int64_t event_id = reconcile->events[i];
        while (row < PQntuples(result) && number_at(result, row, 0) < event_id)
            row++;
        if (row == PQntuples(result) || number_at(result, row, 0) != event_id)
            compare_add_event(reconcile->compare, event_id, &(struct compare_counters){0});
    }
}

static void take_tickets(struct reconcile *reconcile, const PGresult *result)
{
    const int count = PQntuples(result);
    struct uuid booking_id = {0};
    for (int i = 0; i < count; i++) {
        if (!reconcile_parse_uuid(PQgetvalue(result, i, 1), (size_t)PQgetlength(result, i, 1),
                                  &booking_id)) {
            reconcile_fail(reconcile, "PostgreSQL sent a booking_id that cannot be read");
            return;
        }
        compare_add_ticket(reconcile->compare, PQgetvalue(result, i, 0),
                           (size_t)PQgetlength(result, i, 0), &booking_id, number_at(result, i, 2));
    }
    if (reconcile->question != ASK_TICKETS)
        return;
    if (count < reconcile->config.settings->cdc.reconcile_slice) {
        reconcile->next.listed = true;
    } else {
        reconcile->next.ticket_event = number_at(result, count - 1, 2);
        reconcile->next.ticket_booking = booking_id;
    }
}

void reconcile_on_answer(void *arg, const PGresult *result)
{
    struct reconcile *reconcile = arg;
    if (reconcile_is_over(reconcile) || PQresultStatus(result) != PGRES_TUPLES_OK)
        return;
    reconcile->answered = true;
    switch (reconcile->question) {
    case ASK_EVENTS:
        take_events(reconcile, result);
        return;
    case ASK_SUSPECTED_EVENTS:
        take_suspected_events(reconcile, result);
        return;
    case ASK_TICKETS:
    case ASK_PAIRS:
        take_tickets(reconcile, result);
        return;
    case ASK_NO_MORE:
        return;
    }
}

void reconcile_next_question(struct reconcile *reconcile)
{
    const bool more_events = reconcile->question == ASK_EVENTS && !reconcile->next.events_done &&
                             reconcile->bookings_summed < SUMMED_MAX && events_asked(reconcile) > 0;
    const bool more_pairs =
        reconcile->question == ASK_PAIRS && reconcile->pairs_asked < reconcile->pair_count;
    if (!more_events && !more_pairs)
        reconcile->question++;
}
