/*
 * The statements. See statements.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "router/statements.h"

#include <assert.h>
#include <stddef.h>

/* An LSN that the statement's snapshot does not exceed, as it is asked behind it: a replica that
 * has replayed it shows all that this answer does. A replica makes a commit visible a moment before
 * it counts it as replayed, so the record that may be under way counts as seen. */
#define SEEN_LSN                                                                                   \
    " CASE WHEN NOT pg_is_in_recovery() THEN pg_current_wal_insert_lsn()"                          \
    " WHEN pg_last_wal_replay_lsn() = pg_last_wal_receive_lsn() THEN pg_last_wal_replay_lsn()"     \
    " ELSE pg_last_wal_replay_lsn() + 1 END"

/* An event, but for its free seats and what follows them (event_rows.h). */
#define EVENT_COLUMNS                                                                              \
    "SELECT e.event_id, e.name, (extract(epoch FROM e.starts_at) * 1000000)::bigint,"              \
    "       e.rows, e.cols"
#define EVENT_COUNT                                                                                \
    ", e.rows::bigint * e.cols"                                                                    \
    " - (SELECT count(*) FROM claims c WHERE c.event_id = e.event_id"                              \
    "       AND (c.state = 'booked' OR c.held_until > now()))"
#define EVENT_TIERS                                                                                \
    ", e.currency, e.max_per_user, array_to_string(e.tier_names, E'\\n'), e.tier_prices,"          \
    " e.tier_first_rows FROM events e"
/* A hold whose time is over is expired, whether or not it has been swept. */
#define BOOKING_COLUMNS                                                                            \
    "SELECT e.cols, b.user_id,"                                                                    \
    "       CASE WHEN b.status = 'held' AND b.expires_at <= now() THEN 'expired'"                  \
    "            ELSE b.status::text END, b.seats,"                                                \
    "       (extract(epoch FROM b.created_at) * 1000000)::bigint,"                                 \
    "       CASE WHEN b.status = 'held' AND b.expires_at > now()"                                  \
    "            THEN (extract(epoch FROM b.expires_at) * 1000000)::bigint END,"                   \
    "       b.amount, b.currency,"

static const struct statement_info table[STATEMENT_COUNT] = {
    /* One row: the grid, and the seats that are not free; an expired hold is free. */
    [STATEMENT_SEATMAP] =
        {"seatmap",
         "SELECT e.rows, e.cols, c.booked, c.held," SEEN_LSN "  FROM events e,"
         "       (SELECT array_agg(seat_no) FILTER (WHERE state = 'booked') AS booked,"
         "               array_agg(seat_no) FILTER (WHERE held_until > now()) AS held"
         "          FROM claims WHERE event_id = $1) c"
         " WHERE e.event_id = $1::bigint",
         1, 0},
    [STATEMENT_EVENT] = {"event",
                         EVENT_COLUMNS EVENT_COUNT EVENT_TIERS " WHERE e.event_id = $1::bigint", 0,
                         0},
    /* The same without the count, when Redis has it. */
    [STATEMENT_EVENT_PLAIN] = {"event_plain",
                               EVENT_COLUMNS ", 0" EVENT_TIERS " WHERE e.event_id = $1::bigint", 0,
                               0},
    [STATEMENT_EVENTS] = {"events",
                          EVENT_COLUMNS EVENT_COUNT EVENT_TIERS
                          " WHERE e.event_id > $1::bigint ORDER BY e.event_id LIMIT $2::bigint",
                          0, 0},
    [STATEMENT_EVENTS_PLAIN] =
        {"events_plain",
         EVENT_COLUMNS ", 0" EVENT_TIERS
                       " WHERE e.event_id > $1::bigint ORDER BY e.event_id LIMIT $2::bigint",
         0, 0},
    [STATEMENT_AVAILABILITY] = {"availability",
                                "SELECT e.rows::bigint * e.cols, c.held, c.booked"
                                "  FROM events e,"
                                "       (SELECT count(*) FILTER (WHERE state = 'booked') AS booked,"
                                "               count(*) FILTER (WHERE held_until > now()) AS held"
                                "          FROM claims WHERE event_id = $1) c"
                                " WHERE e.event_id = $1::bigint",
                                0, 0},
    [STATEMENT_BOOKING] = {"booking",
                           BOOKING_COLUMNS SEEN_LSN
                           "  FROM bookings b JOIN events e USING (event_id)"
                           " WHERE b.event_id = $1::bigint AND b.booking_id = $2::uuid",
                           0, 0},
    /* One row: the house, and the seats that are not free; of those held, for how long still. */
    [STATEMENT_BEST_VIEW] =
        {"best_view",
         "SELECT e.rows, e.cols, c.booked, c.held, c.left_ms, e.tier_names, e.tier_first_rows"
         "  FROM events e,"
         "       (SELECT array_agg(seat_no) FILTER (WHERE state = 'booked') AS booked,"
         "               array_agg(seat_no) FILTER (WHERE held_until > now()) AS held,"
         "               array_agg(ceil(extract(epoch FROM held_until - now()) * 1000)::integer)"
         "                   FILTER (WHERE held_until > now()) AS left_ms"
         "          FROM claims WHERE event_id = $1) c"
         " WHERE e.event_id = $1::bigint",
         1, 0},
    [STATEMENT_ORDER] =
        {"order",
         BOOKING_COLUMNS SEEN_LSN
         ", o.state, o.problem, o.method, o.currency, o.amount"
         "  FROM orders o JOIN events e USING (event_id)"
         "  JOIN bookings b ON b.event_id = o.event_id AND b.booking_id = o.order_id"
         " WHERE o.event_id = $1::bigint AND o.order_id = $2::uuid",
         0, 0},
    [STATEMENT_REFUSAL] = {"refusal",
                           "SELECT user_id, code, seats FROM refusals"
                           " WHERE event_id = $1::bigint AND booking_id = $2::uuid",
                           0, 0},
    [STATEMENT_WAITLIST] = {"waitlist",
                            "SELECT user_id, quantity, tier, together, state, queue_position,"
                            "       booking_id, expires_us, created_us," SEEN_LSN
                            "  FROM waitlist_look($1::bigint, $2::uuid) WHERE user_id IS NOT NULL",
                            0, 0},
    /* OFFSET 0: the user's bookings by their index, then one look-up of the event each, whatever
     * the plan's age. A hold whose time is over is no ticket any more. */
    [STATEMENT_TICKETS] =
        {"tickets",
         "SELECT b.booking_id, b.event_id, e.name,"
         "       (extract(epoch FROM e.starts_at) * 1000000)::bigint, e.cols, b.status, b.seats,"
         "       (extract(epoch FROM b.created_at) * 1000000)::bigint,"
         "       CASE WHEN b.status = 'held'"
         "            THEN (extract(epoch FROM b.expires_at) * 1000000)::bigint END,"
         "       b.amount, b.currency"
         "  FROM (SELECT * FROM bookings WHERE user_id = $1::text OFFSET 0) b,"
         "       LATERAL (SELECT * FROM events WHERE event_id = b.event_id OFFSET 0) e"
         " WHERE (b.status = 'confirmed'"
         "        OR b.status = 'held' AND coalesce(b.expires_at > now(), true))"
         "   AND (e.starts_at, b.event_id, b.booking_id)"
         "       > ($2::timestamptz, $3::bigint, $4::uuid)"
         " ORDER BY e.starts_at, b.event_id, b.booking_id LIMIT $5::bigint",
         0, 0},
    /* Sent ahead of a read: an LSN that the snapshot of what follows has reached. On a primary a
     * commit's record is in the WAL before the commit is visible, long before if it waits for a
     * standby; whoever was told of it was told an LSN that is at or past the end of the WAL of now,
     * so that end itself is not reached. */
    [STATEMENT_POSITION] =
        {"position",
         "SELECT (CASE WHEN pg_is_in_recovery()"
         "             THEN pg_last_wal_replay_lsn() - '0/0'"
         "             ELSE pg_current_wal_insert_lsn() - '0/0' - 1 END)::bigint",
         0, 0},
    [STATEMENT_CREATE_EVENT] = {"create_event",
                                "SELECT outcome, event_id FROM create_event($1, $2, $3, $4, $5, $6,"
                                " $7, $8, $9, $10, $11, $12, $13, $14)",
                                0, 1},
    [STATEMENT_ORDER_STEP] = {"order_step",
                              "SELECT outcome, state, problem"
                              "  FROM order_step($1, $2, $3, $4, $5, $6, $7, $8)",
                              0, 1},
    [STATEMENT_ORDERS_DUE] = {"orders_due",
                              "SELECT outcome, event_id, order_id, state, amount, currency, method,"
                              "       age_ms FROM orders_due($1, $2, $3)",
                              0, 1},
    [STATEMENT_REFUSAL_STORE] = {"refusal_store", "SELECT refusal_store($1, $2, $3, $4, $5, $6)", 0,
                                 1},
    [STATEMENT_WAITLIST_JOIN] =
        {"waitlist_join",
         "SELECT outcome, entry_id, user_id, quantity, tier, together, state, queue_position,"
         "       booking_id, expires_us, created_us"
         "  FROM waitlist_join_and_look($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
         0, 1},
    [STATEMENT_WAITLIST_LEAVE] = {"waitlist_leave", "SELECT waitlist_leave($1, $2, $3, $4, $5, $6)",
                                  0, 1},
    [STATEMENT_TAKE_BATCH] = {"take_batch",
                              "SELECT ord, outcome, booking_id, created_us, conflicts, status,"
                              "       expires_us, amount, currency, seats, cols, allowed"
                              "  FROM take_batch($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11,"
                              "                  $12, $13, $14)",
                              0, 1},
    [STATEMENT_BEST_TAKE] = {"best_take",
                             "SELECT outcome, booking_id, created_us, status, expires_us, amount,"
                             "       currency, seats, cols, allowed"
                             "  FROM best_take($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12,"
                             "                 $13)",
                             0, 1},
    [STATEMENT_CHANGE_BATCH] = {"change_batch",
                                "SELECT ord, outcome, user_id, status, created_us, expires_us,"
                                "       amount, currency, seats, cols, allowed"
                                "  FROM change_batch($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11,"
                                "                    $12)",
                                0, 1},
    /* Behind a COMMIT: an LSN at or past it, the file's name, which has the timeline, and whether
     * the COMMIT waited for a standby. A session whose settings are changed is told before the
     * process that turns the waiting off, so whoever still says yes here has waited if the guard
     * inside the transaction said yes, too. */
    [STATEMENT_WAL] = {"wal",
                       "SELECT pg_current_wal_insert_lsn(),"
                       "       pg_walfile_name(pg_current_wal_insert_lsn()),"
                       "       current_setting('synchronous_standby_names') <> ''"
                       "       AND current_setting('synchronous_commit') IN ('on', 'remote_apply')",
                       0, 1},
    [STATEMENT_BEGIN] = {"begin", "BEGIN", 0, 1},
    /* Seats are rows of no table while they are free, so "lock before you read" is an advisory lock
     * a seat, in one order for everybody. */
    [STATEMENT_LOCK] =
        {"lock",
         "SELECT pg_advisory_xact_lock(k) FROM"
         " (SELECT hashtextextended($1::bigint || ':' || s.row || ':' || s.col, 0) AS k"
         "    FROM unnest($2::int[], $3::int[]) AS s (row, col) ORDER BY k OFFSET 0) q",
         0, 1},
    [STATEMENT_LOOK] = {"look",
                        "SELECT outcome, booking_id, created_us, conflicts, seat_nos, seen, status,"
                        "       expires_us, amount, currency, allowed"
                        "  FROM booking_look($1, $2, $3, $4, $5, $6, $7, $8, $9)",
                        0, 1},
    [STATEMENT_CLAIM] =
        {"claim",
         "INSERT INTO claims AS c (event_id, booking_id, seat_no, state)"
         " SELECT $1::bigint, $2::uuid, s, 'booked' FROM unnest($3::int[]) s ORDER BY s"
         " ON CONFLICT (event_id, seat_no) DO UPDATE"
         "    SET booking_id = excluded.booking_id, state = 'booked', held_until = NULL"
         "  WHERE c.state = 'held' AND c.held_until <= now()"
         "    AND hold_ended(c.event_id, c.seat_no, c.booking_id)"
         " RETURNING seat_no",
         0, 1},
    /* The same, if the seat's version (the booking whose claim stands there) is the one seen, and
     * the user's limit still allows it: the look was outside of this transaction. In a SELECT of
     * their own both are asked once, and not once a seat. */
    [STATEMENT_CLAIM_VERSION] =
        {"claim_version",
         "INSERT INTO claims AS c (event_id, booking_id, seat_no, state)"
         " SELECT $1::bigint, $2::uuid, s.seat_no, 'booked'"
         "   FROM unnest($3::int[], $4::uuid[]) AS s (seat_no, seen)"
         "  WHERE (SELECT write_guard($5) = 'ok' AND user_may_take($1, $6, cardinality($3::int[])))"
         "  ORDER BY s.seat_no"
         " ON CONFLICT (event_id, seat_no) DO UPDATE"
         "    SET booking_id = excluded.booking_id, state = 'booked', held_until = NULL"
         "  WHERE c.state = 'held' AND c.held_until <= now()"
         "    AND hold_ended(c.event_id, c.seat_no, c.booking_id)"
         "    AND c.booking_id = ($4::uuid[])[array_position($3::int[], c.seat_no)]"
         " RETURNING seat_no",
         0, 1},
    [STATEMENT_BOOK] =
        {"book",
         "INSERT INTO bookings (event_id, booking_id, user_id, status, seats, amount, currency,"
         "                      idempotency_key, request_hash)"
         " SELECT e.event_id, $2::uuid, $3::text, 'confirmed', $4::int[],"
         "        CASE WHEN e.tier_prices IS NULL THEN 0 ELSE seats_amount(e, $4::int[]) END,"
         "        e.currency, $5::text, $6::bigint"
         "   FROM events e WHERE e.event_id = $1::bigint"
         " ON CONFLICT DO NOTHING"
         " RETURNING (extract(epoch FROM created_at) * 1000000)::bigint, amount, currency",
         0, 1},
    [STATEMENT_COMMIT] = {"commit", "COMMIT", 0, 1},
    [STATEMENT_ROLLBACK] = {"rollback", "ROLLBACK", 0, 1},
};

const struct statement_info *statement_info(enum statement statement)
{
    assert(statement < STATEMENT_COUNT);
    return &table[statement];
}
