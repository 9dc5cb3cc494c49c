-- The life of a booking: held, paid for, confirmed, extended, given back, transferred; best seats,
-- tiers, limits, the waiting list.
--
--            take_batch (hold)          change confirm, order_step
--   free ────────────────────> held ──────────────────────────────> confirmed ──┐ change cancel
--    ^                          │ its time is over: free that instant           │
--    ├── expired <── sweep ─────┤                                               │
--    ├── cancelled <── change ──┤ <─────────────────────────────────────────────┘
--    └── failed <── order_step ─┘ (the payment did not come)
--
-- Time is the database's, now() of the transaction. An expired hold stands in nobody's way: its
-- booking is marked 'expired' before its seats go to another, in the same transaction, so that who
-- follows the WAL sees a seat come back before it is taken again.
--
-- Who has the lock of a booking's row decides whether its hold has run out: its seats go to another
-- only when the other sees it marked. Whoever comes meanwhile is told 'again'.
--
-- Lock order, the same in every function (what is taken with SKIP LOCKED or tried for is outside of it):
--   1. the fence (shared)             4. users of limited events
--   2. changes: bookings by           5. claims by (event_id, seat_no)
--      (event_id, booking_id)         6. bookings by (event_id, key)
--   3. waiting lists by event_id
-- A batch of changes takes claims booking by booking, so two of them, or a late confirmation and a
-- take, may collide at holds that have just run out: PostgreSQL ends one, and the router sends it again.
-- Offers of the waiting list come last, and so wait for claims only briefly.
--
-- SPDX-License-Identifier: MIT

-- ---- tables ---------------------------------------------------------------------------------------

-- Tiers cover the rows from front to back: tier i begins at row tier_first_rows[i] (the first at 1)
-- and ends before the next one. All four are NULL for an event without tiers, whose seats cost nothing.
ALTER TABLE events
    ADD COLUMN currency        text,        -- ISO 4217
    ADD COLUMN tier_names      text[],      -- no name twice
    ADD COLUMN tier_prices     bigint[],    -- of a seat, integer minor units
    ADD COLUMN tier_first_rows integer[],   -- ascending from 1
    ADD COLUMN max_per_user    integer CHECK (max_per_user > 0);   -- seats, held and confirmed; NULL: no limit

CREATE INDEX events_limited ON events (event_id) WHERE max_per_user IS NOT NULL;

ALTER TABLE bookings
    ADD COLUMN hold_ms   bigint,     -- of what began as a hold: how long it was given first
    ADD COLUMN extended  integer NOT NULL DEFAULT 0,   -- how often
    ADD COLUMN change_id uuid;       -- made by the router, of the last change; one asked again is found by it

CREATE INDEX bookings_overdue ON bookings (expires_at) WHERE status = 'held';
CREATE INDEX claims_overdue ON claims (held_until) WHERE state = 'held';

-- What became of a change, or of a place on the waiting list, that a client gave a key.
CREATE TABLE change_keys (
    event_id        bigint      NOT NULL,
    idempotency_key text        NOT NULL,
    request_hash    bigint      NOT NULL,
    outcome         text        NOT NULL,
    target_id       uuid        NOT NULL,   -- booking or entry
    status          text        NOT NULL,   -- of the booking, as it was told
    user_id         text        NOT NULL,
    expires_at      timestamptz,
    created_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (event_id, idempotency_key)
);
CREATE INDEX change_keys_age ON change_keys (created_at);

-- Refusals that somebody will come back to ask for: of bookings that went through the queue.
CREATE TABLE refusals (
    event_id   bigint      NOT NULL,
    booking_id uuid        NOT NULL,
    user_id    text        NOT NULL,
    code       text        NOT NULL,   -- as in the API's problems
    seats      integer[],              -- row, col, row, col, ...: the conflicts
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (event_id, booking_id)
);
CREATE INDEX refusals_age ON refusals (created_at);

-- reserved    the seats are held, nobody has been asked for money
-- charging    the payment service is being asked, or has been: the outcome is not known
-- charged     it has the money, the seats are to be confirmed
-- confirmed   final, unless the booking is cancelled: then refunding
-- failed      final: no money, no seats; unless money comes after all: then refunding
-- refunding   it has the money and there are no seats: it is to be given back
-- refunded    final
CREATE TYPE order_state AS ENUM ('reserved', 'charging', 'charged', 'confirmed', 'failed', 'refunding',
                                 'refunded');

-- An order is a booking that is paid for: order_id is its booking_id.
CREATE TABLE orders (
    event_id   bigint      NOT NULL,
    order_id   uuid        NOT NULL,
    state      order_state NOT NULL DEFAULT 'reserved',
    amount     bigint      NOT NULL,    -- integer minor units
    currency   text,
    method     text        NOT NULL,    -- for the payment service
    problem    text,                    -- why it failed or was refunded, a code
    attempts   integer     NOT NULL DEFAULT 0,   -- in this state
    due_at     timestamptz,             -- from then on anybody may go on with it; NULL: it is final
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (event_id, order_id)
);
CREATE INDEX orders_due ON orders (due_at) WHERE due_at IS NOT NULL;

CREATE TYPE waitlist_state AS ENUM ('waiting', 'offered', 'accepted', 'expired', 'left');

CREATE TABLE waitlist (
    event_id   bigint         NOT NULL,
    entry_id   uuid           NOT NULL,
    place      bigint         NOT NULL GENERATED ALWAYS AS IDENTITY,
    user_id    text           NOT NULL,
    quantity   integer        NOT NULL CHECK (quantity > 0),
    tier       text,                       -- NULL: any
    together   boolean        NOT NULL,
    state      waitlist_state NOT NULL DEFAULT 'waiting',
    booking_id uuid,                       -- the hold that it was offered
    look_again boolean        NOT NULL DEFAULT false,   -- somebody was at seats: the next sweep tries
    created_at timestamptz    NOT NULL DEFAULT now(),
    updated_at timestamptz    NOT NULL DEFAULT now(),
    PRIMARY KEY (event_id, entry_id)
);
CREATE INDEX waitlist_waiting ON waitlist (event_id, place) WHERE state = 'waiting';
CREATE INDEX waitlist_look_again ON waitlist (event_id) WHERE state = 'waiting' AND look_again;
CREATE INDEX waitlist_offered ON waitlist (booking_id) WHERE state = 'offered';
CREATE UNIQUE INDEX waitlist_once ON waitlist (event_id, user_id) WHERE state IN ('waiting', 'offered');

-- ---- small functions ------------------------------------------------------------------------------

CREATE FUNCTION to_us(t timestamptz) RETURNS bigint
LANGUAGE sql STABLE AS $$ SELECT (extract(epoch FROM t) * 1000000)::bigint $$;

CREATE FUNCTION from_ms(ms bigint) RETURNS interval
LANGUAGE sql IMMUTABLE AS $$ SELECT ms * interval '1 millisecond' $$;

-- The price of seats (seat_no) of an event, integer minor units.
CREATE FUNCTION seats_amount(e events, p_seats integer[]) RETURNS bigint
LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN e.tier_prices IS NULL THEN 0
                ELSE (SELECT sum(e.tier_prices[width_bucket(s / e.cols + 1, e.tier_first_rows)])
                        FROM unnest(p_seats) s)::bigint END
$$;

CREATE FUNCTION user_key(p_event_id bigint, p_user_id text) RETURNS bigint
LANGUAGE sql IMMUTABLE AS $$ SELECT hashtextextended('user ' || p_user_id, p_event_id) $$;

-- How many more seats of the event the user may take; NULL: as many as there are. Behind lock_users:
-- a hold that has run out and is still 'held' is being changed, and so it counts; p_at_most: it does
-- not, which is as much as it may come to. Counts what the user has only where there is a limit: some
-- have a great deal.
CREATE FUNCTION seats_allowed(p_event_id bigint, p_user_id text, p_at_most boolean DEFAULT false)
RETURNS integer
LANGUAGE sql STABLE AS $$
    SELECT (e.max_per_user - coalesce((
               SELECT sum(cardinality(b.seats))
                 FROM (SELECT * FROM bookings u WHERE u.user_id = p_user_id OFFSET 0) b
                WHERE b.event_id = p_event_id
                  AND (b.status = 'confirmed'
                       OR b.status = 'held' AND NOT (p_at_most AND b.expires_at <= now()))), 0))::integer
      FROM events e WHERE e.event_id = p_event_id AND e.max_per_user IS NOT NULL
$$;

-- The offer that this hold was, if it was one, ends with it. OFFSET 0: by the index of what is offered.
CREATE FUNCTION offer_end(p_event_id bigint, p_booking_id uuid, p_accepted boolean) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    UPDATE waitlist w
       SET state = CASE WHEN p_accepted THEN 'accepted' ELSE 'expired' END::waitlist_state,
           updated_at = now()
     WHERE w.event_id = p_event_id
       AND w.entry_id = (SELECT o.entry_id
                           FROM (SELECT * FROM waitlist f
                                  WHERE f.booking_id = p_booking_id AND f.state = 'offered' OFFSET 0) o
                          WHERE o.event_id = p_event_id);
END $$;

-- Marks a hold whose time is over, and with it the offer that it was. Its claims stay for whoever takes
-- the seats, or for the sweeper. Waits for nobody: what is locked is being changed or marked by another.
-- OFFSET 0, here and below: always one look-up by the primary key, however few were overdue when the
-- plan was made.
CREATE FUNCTION expire_hold(p_event_id bigint, p_booking_id uuid) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM (SELECT * FROM bookings b
                   WHERE b.event_id = p_event_id AND b.booking_id = p_booking_id OFFSET 0) b
      WHERE b.status = 'held' AND b.expires_at <= now();
    IF NOT FOUND THEN
        RETURN;
    END IF;
    PERFORM FROM (SELECT * FROM bookings b
                   WHERE b.event_id = p_event_id AND b.booking_id = p_booking_id
                  OFFSET 0 FOR UPDATE SKIP LOCKED) b
      WHERE b.status = 'held' AND b.expires_at <= now();
    IF FOUND THEN
        UPDATE bookings b SET status = 'expired', updated_at = now()
         WHERE b.event_id = p_event_id AND b.booking_id = p_booking_id;
        PERFORM offer_end(p_event_id, p_booking_id, false);
    END IF;
END $$;

-- Marks the holds at these seats whose time is over: no more of them than are in somebody's way,
-- however many there are.
CREATE FUNCTION expire_holds_at(p_event_id bigint, p_seats integer[]) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM expire_hold(p_event_id, h.booking_id)
       FROM (SELECT DISTINCT c.booking_id
               FROM unnest(p_seats) s
              CROSS JOIN LATERAL (SELECT * FROM claims k
                                   WHERE k.event_id = p_event_id AND k.seat_no = s OFFSET 0) c
              WHERE c.state = 'held' AND c.held_until <= now() OFFSET 0) h;
END $$;

-- One at a time for a user of an event with a limit. In one order for everybody. Then their holds there
-- whose time is over are marked, and count no more.
CREATE FUNCTION lock_users(p_event_ids bigint[], p_user_ids text[]) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(q.k)
       FROM (SELECT DISTINCT user_key(u.event_id, u.user_id) AS k
               FROM unnest(p_event_ids, p_user_ids) AS u (event_id, user_id)
               JOIN events e ON e.event_id = u.event_id AND e.max_per_user IS NOT NULL
              ORDER BY k OFFSET 0) q;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    PERFORM expire_hold(h.event_id, h.booking_id)
       FROM (SELECT DISTINCT b.event_id, b.booking_id
               FROM unnest(p_event_ids, p_user_ids) AS u (event_id, user_id)
               JOIN events e ON e.event_id = u.event_id AND e.max_per_user IS NOT NULL
              CROSS JOIN LATERAL (SELECT * FROM bookings x WHERE x.user_id = u.user_id OFFSET 0) b
              WHERE b.event_id = u.event_id AND b.status = 'held' AND b.expires_at <= now()
             OFFSET 0) h;
END $$;

-- May the seat of an overdue claim go to another? Not while its booking is 'held': that is locked, so
-- expire_hold has passed over it, or it was committed only after this statement's look.
CREATE FUNCTION hold_ended(p_event_id bigint, p_seat_no integer, p_booking_id uuid) RETURNS boolean
LANGUAGE sql STABLE AS $$
    SELECT EXISTS (SELECT FROM claims c
                     LEFT JOIN bookings b ON b.event_id = c.event_id AND b.booking_id = c.booking_id
                    WHERE c.event_id = p_event_id AND c.seat_no = p_seat_no
                      AND c.booking_id = p_booking_id AND b.status IS DISTINCT FROM 'held')
$$;

-- What became of the key of a change: 'replayed', with what is to be told again; 'key_reused'; NULL:
-- nothing yet. Behind the lock of what it changes. p_target_id NULL: any.
CREATE FUNCTION change_replay(p_event_id bigint, p_key text, p_kind text, p_hash bigint, p_target_id uuid,
                              OUT outcome text, OUT found_key change_keys)
LANGUAGE plpgsql AS $$
BEGIN
    IF p_key IS NULL THEN
        RETURN;
    END IF;
    SELECT * INTO found_key FROM change_keys k
     WHERE k.event_id = p_event_id AND k.idempotency_key = p_key
       AND k.created_at > now() - interval '24 hours';
    IF FOUND AND found_key.request_hash = p_hash AND found_key.outcome = p_kind
       AND found_key.target_id = coalesce(p_target_id, found_key.target_id) THEN
        outcome := 'replayed';
        PERFORM wait_at_commit();
    ELSIF FOUND OR EXISTS (SELECT FROM bookings b
                            WHERE b.event_id = p_event_id AND b.idempotency_key = p_key
                              AND b.created_at > now() - interval '24 hours') THEN
        outcome := 'key_reused';
    END IF;
END $$;

-- Keeps what became of a change that has a key. Another change has just been made with it: all of
-- this transaction is undone, and the router sends it again, to be told 'key_reused'.
CREATE FUNCTION change_key_store(p_event_id bigint, p_key text, p_kind text, p_hash bigint,
                                 p_target_id uuid, p_status text, p_user_id text,
                                 p_expires_at timestamptz) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF p_key IS NULL THEN
        RETURN;
    END IF;
    INSERT INTO change_keys AS k (event_id, idempotency_key, request_hash, outcome, target_id, status,
                                  user_id, expires_at)
    VALUES (p_event_id, p_key, p_hash, p_kind, p_target_id, p_status, p_user_id, p_expires_at)
    ON CONFLICT (event_id, idempotency_key) DO UPDATE
       SET request_hash = excluded.request_hash, outcome = excluded.outcome,
           target_id = excluded.target_id, status = excluded.status, user_id = excluded.user_id,
           expires_at = excluded.expires_at, created_at = now()
     WHERE k.created_at <= now() - interval '24 hours';
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the key came with another change at this moment' USING ERRCODE = '40001';
    END IF;
END $$;

-- The sale and the answer of every function that takes or changes a booking.
CREATE TYPE taken AS (
    ord        integer,
    outcome    text,
    booking_id uuid,        -- 'replayed': of the earlier answer
    created_us bigint,
    conflicts  integer[],   -- which of the request's seats, counted from 1
    status     text,
    expires_us bigint,      -- of a hold
    amount     bigint,
    currency   text,
    seats      integer[],   -- seat_no; NULL: as asked for
    cols       integer,     -- of the event, with seats
    allowed    integer      -- 'over_limit': how many more the user may take
);

-- ---- taking ---------------------------------------------------------------------------------------

-- Takes seats for many requests at once: one statement, one transaction, one fsync. As book_batch in
-- 0002_functions.sql, and
--   p_hold_ms   so long the seats are held; NULL: they are booked
--   p_methods   how the order is to be paid; NULL: it is no order. With a hold only. The order stands
--               in `orders`, 'reserved', due p_lease_ms from now: until then it is its router's.
-- A request without seats only looks for the answer that it has had already: else 'seats_taken'.
-- Outcomes: those of book_batch, with 'booked' also for a hold, and
--   over_limit   the event lets a user have no more than max_per_user seats; nothing was taken
-- and 'key_reused' for a booking that has been refused already (refusals): that was told, so it stays.
CREATE FUNCTION take_batch(
    p_epoch bigint,
    p_event_ids bigint[], p_booking_ids uuid[], p_user_ids text[], p_keys text[], p_hashes bigint[],
    p_recheck boolean[], p_rivals boolean[], p_hold_ms bigint[], p_methods text[],
    p_ords integer[], p_rows integer[], p_cols integer[], p_lease_ms bigint)
RETURNS TABLE (ord integer, outcome text, booking_id uuid, created_us bigint, conflicts integer[],
               status text, expires_us bigint, amount bigint, currency text, seats integer[],
               cols integer, allowed integer)
LANGUAGE plpgsql ROWS 100 AS $$
#variable_conflict use_column
DECLARE
    guard     text := write_guard(p_epoch);
    now_us    bigint := to_us(now());
    any_overdue boolean;
    any_limited boolean;   -- an event with a limit
    v_allowed integer[];   -- by request; NULL: no event here has a limit
    v_reused  boolean[];   -- by request: its key is one of a change, or it has been refused; NULL: none is
    found_one bookings;
    r         record;
BEGIN
    IF guard <> 'ok' THEN
        ord := 0;
        outcome := guard;
        RETURN NEXT;
        RETURN;
    END IF;
    SELECT EXISTS (SELECT FROM (SELECT FROM bookings b   -- ORDER BY: by the index of what is held
                                 WHERE b.status = 'held' AND b.expires_at <= now()
                                 ORDER BY b.expires_at LIMIT 1) b),
           EXISTS (SELECT FROM events e WHERE e.max_per_user IS NOT NULL)   -- mostly there is none
           AND EXISTS (SELECT FROM events e WHERE e.max_per_user IS NOT NULL
                          AND e.event_id = ANY (p_event_ids))
      INTO any_overdue, any_limited;
    IF any_overdue THEN   -- somewhere; those at the wanted seats are marked, as expire_holds_at does
        PERFORM expire_hold(h.event_id, h.booking_id)
           FROM (SELECT DISTINCT c.event_id, c.booking_id
                   FROM unnest(p_ords, p_rows, p_cols) AS s (ord, row, col)
                  CROSS JOIN LATERAL (SELECT * FROM events e
                                       WHERE e.event_id = p_event_ids[s.ord] OFFSET 0) e
                  CROSS JOIN LATERAL (SELECT * FROM claims c
                                       WHERE c.event_id = e.event_id
                                         AND c.seat_no = (s.row - 1)::bigint * e.cols + s.col - 1
                                      OFFSET 0) c
                  WHERE c.state = 'held' AND c.held_until <= now() OFFSET 0) h;
    END IF;

    IF any_limited THEN
        PERFORM lock_users(p_event_ids, p_user_ids);
        -- Of one user's requests for one event the first counts; the others look, and come again. So
        -- does all while a hold of theirs that has run out is being changed by another.
        SELECT array_agg(seats_allowed(q.event_id, q.user_id) ORDER BY q.ord),
               array_agg(q.rival OR e.max_per_user IS NOT NULL AND (q.nth > 1 OR EXISTS (
                             SELECT FROM (SELECT * FROM bookings u WHERE u.user_id = q.user_id
                                           OFFSET 0) b
                              WHERE b.event_id = q.event_id
                                AND b.status = 'held' AND b.expires_at <= now())) ORDER BY q.ord)
          INTO v_allowed, p_rivals
          FROM (SELECT u.*, row_number() OVER (PARTITION BY u.event_id, u.user_id ORDER BY u.ord) AS nth
                  FROM unnest(p_event_ids, p_user_ids, p_rivals) WITH ORDINALITY
                       AS u (event_id, user_id, rival, ord)) q
          LEFT JOIN events e ON e.event_id = q.event_id;
    END IF;
    -- A refusal that somebody may have been told is final: its message may come twice. OFFSET 0: always
    -- by one index look-up.
    IF cardinality(array_remove(p_keys, NULL)) > 0 OR true = ANY (p_recheck) THEN
        SELECT array_agg(k.event_id IS NOT NULL
                         OR q.recheck AND EXISTS (SELECT FROM refusals f WHERE f.event_id = q.event_id
                                                     AND f.booking_id = q.booking_id OFFSET 0)
                         ORDER BY q.ord)
          INTO v_reused
          FROM unnest(p_event_ids, p_keys, p_booking_ids, p_recheck) WITH ORDINALITY
               AS q (event_id, key, booking_id, recheck, ord)
          LEFT JOIN LATERAL (SELECT * FROM change_keys c   -- OFFSET 0: one look-up a key
                              WHERE c.event_id = q.event_id AND c.idempotency_key = q.key
                              OFFSET 0) k ON k.created_at > now() - interval '24 hours';
    END IF;

    FOR r IN
        WITH request AS (
            SELECT q.ord::integer AS ord, q.event_id, q.booking_id, q.user_id, q.key, q.hash,
                   q.recheck, q.hold_ms, now() + from_ms(q.hold_ms) AS until,
                   CASE WHEN q.hold_ms IS NULL THEN 'confirmed' ELSE 'held' END AS status
              FROM unnest(p_event_ids, p_booking_ids, p_user_ids, p_keys, p_hashes, p_recheck,
                          p_hold_ms) WITH ORDINALITY
                   AS q (event_id, booking_id, user_id, key, hash, recheck, hold_ms, ord)
        ), seat AS (   -- look: what stands in the way of each seat, before anything is written
            SELECT s.ord, s.idx, p_event_ids[s.ord] AS event_id, p_booking_ids[s.ord] AS booking_id,
                   now() + from_ms(p_hold_ms[s.ord]) AS until,
                   (s.row - 1)::bigint * e.cols + s.col - 1 AS seat_no,
                   e.tier_prices[width_bucket(s.row, e.tier_first_rows)] AS price, e.currency,
                   CASE WHEN e.event_id IS NULL THEN 3
                        WHEN s.row NOT BETWEEN 1 AND e.rows OR s.col NOT BETWEEN 1 AND e.cols THEN 2
                        WHEN c.state = 'booked' OR c.held_until > now() THEN 1
                        ELSE 0 END AS obstacle
              FROM unnest(p_ords, p_rows, p_cols) WITH ORDINALITY AS s (ord, row, col, idx)
              LEFT JOIN LATERAL (SELECT * FROM events e   -- OFFSET 0: always one index look-up a seat,
                                  WHERE e.event_id = p_event_ids[s.ord]   -- whatever the plan's age
                                  OFFSET 0) e ON true
              LEFT JOIN LATERAL (SELECT * FROM claims c
                                  WHERE c.event_id = e.event_id
                                    AND c.seat_no = (s.row - 1)::bigint * e.cols + s.col - 1
                                    AND s.col BETWEEN 1 AND e.cols
                                  OFFSET 0) c ON true
        ), looked AS (
            SELECT ord, count(*) AS wanted, max(obstacle) AS obstacle,
                   array_agg(seat_no) AS seat_nos, array_agg(obstacle) AS obstacles,
                   coalesce(sum(price), 0)::bigint AS amount, min(currency) AS currency
              FROM (SELECT * FROM seat ORDER BY ord, idx) s GROUP BY ord
        ), claimed AS (   -- claim: in (event, seat) order
            INSERT INTO claims AS c (event_id, seat_no, booking_id, state, held_until)
            SELECT s.event_id, s.seat_no, s.booking_id,
                   CASE WHEN s.until IS NULL THEN 'booked' ELSE 'held' END::claim_state, s.until
              FROM seat s JOIN looked l USING (ord)
             WHERE l.obstacle = 0 AND NOT p_rivals[s.ord]
               AND (v_allowed IS NULL OR coalesce(l.wanted <= v_allowed[s.ord], true))
               AND (v_reused IS NULL OR NOT v_reused[s.ord])
             ORDER BY s.event_id, s.seat_no
            ON CONFLICT (event_id, seat_no) DO UPDATE
               SET booking_id = excluded.booking_id, state = excluded.state,
                   held_until = excluded.held_until
             WHERE c.state = 'held' AND c.held_until <= now()
               AND hold_ended(c.event_id, c.seat_no, c.booking_id)
            RETURNING c.event_id, c.seat_no, c.booking_id
        ), got AS (
            SELECT booking_id, count(*) AS count, array_agg(seat_no) AS seat_nos
              FROM claimed GROUP BY booking_id
        ), booked AS (   -- book: who got all
            INSERT INTO bookings AS b (event_id, booking_id, user_id, status, seats, amount, currency,
                                       idempotency_key, request_hash, expires_at, hold_ms)
            SELECT q.event_id, q.booking_id, q.user_id,
                   q.status::booking_status,
                   l.seat_nos, l.amount, l.currency, q.key, q.hash, q.until, q.hold_ms
              FROM got g JOIN request q USING (booking_id) JOIN looked l ON l.ord = q.ord
             WHERE g.count = l.wanted
             ORDER BY q.event_id, q.key
            ON CONFLICT DO NOTHING
            RETURNING b.booking_id
        )
        SELECT q.ord, q.event_id, q.booking_id, q.key, q.hash, q.status, to_us(q.until) AS until_us,
               q.recheck OR q.key IS NOT NULL AS recheck,
               l.wanted, l.obstacle, l.obstacles, l.seat_nos, l.amount, l.currency,
               g.seat_nos AS got_seat_nos, b.booking_id IS NOT NULL AS booked
          FROM request q
          LEFT JOIN looked l USING (ord)
          LEFT JOIN got g ON g.booking_id = q.booking_id
          LEFT JOIN booked b ON b.booking_id = q.booking_id
         ORDER BY q.ord
    LOOP
        ord := r.ord;
        outcome := NULL;
        booking_id := NULL;
        created_us := NULL;
        conflicts := NULL;
        status := NULL;
        expires_us := NULL;
        amount := NULL;
        currency := NULL;
        seats := NULL;
        cols := NULL;
        allowed := NULL;
        IF r.booked THEN
            outcome := 'booked';
            created_us := now_us;
            status := r.status;
            expires_us := r.until_us;
            amount := r.amount;
            currency := r.currency;
            IF p_methods[r.ord] IS NOT NULL THEN
                INSERT INTO orders (event_id, order_id, amount, currency, method, due_at)
                VALUES (r.event_id, r.booking_id, r.amount, r.currency, p_methods[r.ord],
                        now() + from_ms(p_lease_ms));
            END IF;
            RETURN NEXT;
            CONTINUE;
        END IF;

        -- Give back what a request got without getting all: exactly those rows, because another
        -- transaction may hold the rest under the same booking_id (the same request, asked again).
        IF r.got_seat_nos IS NOT NULL THEN
            DELETE FROM claims c
             WHERE c.event_id = r.event_id AND c.seat_no = ANY (r.got_seat_nos)
               AND c.booking_id = r.booking_id;
            -- Of a hold that had run out nothing is left there that the sweeper would find. It is told
            -- by the last who waits: nobody is passed over because of our lock.
            UPDATE waitlist w SET look_again = true
             WHERE w.event_id = r.event_id AND w.entry_id = (
                   SELECT f.entry_id FROM waitlist f
                    WHERE f.event_id = r.event_id AND f.state = 'waiting'
                    ORDER BY f.place DESC LIMIT 1 FOR UPDATE SKIP LOCKED);
        END IF;

        IF r.recheck THEN
            SELECT p.outcome, p.booking_id, p.created_us
              INTO outcome, booking_id, created_us
              FROM booking_replay(r.event_id, r.booking_id, r.key, r.hash) p;
        END IF;
        IF outcome = 'replayed' THEN   -- as it was told first
            SELECT * INTO found_one FROM bookings b
             WHERE b.event_id = r.event_id AND b.booking_id = take_batch.booking_id;
            status := CASE WHEN found_one.hold_ms IS NULL THEN 'confirmed' ELSE 'held' END;
            expires_us := to_us(found_one.created_at + from_ms(found_one.hold_ms));
            amount := found_one.amount;
            currency := found_one.currency;
            seats := found_one.seats;
            cols := (SELECT e.cols FROM events e WHERE e.event_id = r.event_id);
        ELSIF outcome IS NULL THEN
            IF v_reused[r.ord] THEN
                outcome := 'key_reused';
            ELSIF r.wanted IS NULL THEN
                outcome := 'seats_taken';
            ELSIF r.obstacle > 0 THEN
                outcome :=
                    (ARRAY['seats_taken', 'unknown_seat', 'unknown_event'])[r.obstacle];
                conflicts := array_positions(r.obstacles, r.obstacle);
            ELSIF r.wanted > v_allowed[r.ord] AND NOT p_rivals[r.ord] THEN
                outcome := 'over_limit';
                allowed := greatest(v_allowed[r.ord], 0);
            ELSE   -- overlaps another of the batch, or lost a race after the look
                outcome := 'again';
            END IF;
        END IF;
        RETURN NEXT;
    END LOOP;
END $$;

-- What routers of before this migration call.
CREATE OR REPLACE FUNCTION book_batch(
    p_epoch bigint,
    p_event_ids bigint[], p_booking_ids uuid[], p_user_ids text[], p_keys text[], p_hashes bigint[],
    p_recheck boolean[], p_rivals boolean[],
    p_ords integer[], p_rows integer[], p_cols integer[])
RETURNS TABLE (ord integer, outcome text, booking_id uuid, created_us bigint, conflicts integer[])
LANGUAGE sql ROWS 100 AS $$
    SELECT t.ord, t.outcome, t.booking_id, t.created_us, t.conflicts
      FROM take_batch(p_epoch, p_event_ids, p_booking_ids, p_user_ids, p_keys, p_hashes, p_recheck,
                      p_rivals, array_fill(NULL::bigint, ARRAY[cardinality(p_event_ids)]),
                      array_fill(NULL::text, ARRAY[cardinality(p_event_ids)]),
                      p_ords, p_rows, p_cols, 0) t
$$;

-- ---- best seats -----------------------------------------------------------------------------------

-- The best free seats (seat_no) of rows p_first_row to p_last_row that are not in p_without; NULL if
-- there are none. The rule:
--   together   the lowest row with p_quantity free seats side by side; in it those whose middle is
--              nearest to the row's, of two equally near the left ones
--   else       by row, then nearness to the row's middle, then from the left
CREATE FUNCTION best_seats(p_event_id bigint, p_first_row integer, p_last_row integer,
                           p_quantity integer, p_together boolean, p_without integer[])
RETURNS integer[]
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_cols  integer;
    v_rows  integer;
    v_row   integer;
    v_first integer;
    found_seats integer[];
BEGIN
    SELECT e.cols, e.rows INTO v_cols, v_rows FROM events e WHERE e.event_id = p_event_id;
    p_last_row := least(p_last_row, v_rows);
    IF p_together THEN
        WITH gone AS (
            SELECT c.seat_no FROM claims c
             WHERE c.event_id = p_event_id AND (c.state = 'booked' OR c.held_until > now())
               AND c.seat_no >= (p_first_row - 1) * v_cols AND c.seat_no < p_last_row * v_cols
            UNION SELECT unnest(p_without)
        ), edge AS (
            SELECT seat_no / v_cols + 1 AS row, seat_no % v_cols + 1 AS col FROM gone
            UNION ALL SELECT r, 0 FROM generate_series(p_first_row, p_last_row) r
            UNION ALL SELECT r, v_cols + 1 FROM generate_series(p_first_row, p_last_row) r
        ), gap AS (
            SELECT row, col + 1 AS first,
                   lead(col) OVER (PARTITION BY row ORDER BY col) - p_quantity AS last_start
              FROM edge WHERE row BETWEEN p_first_row AND p_last_row
        ), run AS (
            SELECT row, least(greatest((v_cols + 2 - p_quantity) / 2, first), last_start) AS first
              FROM gap WHERE last_start >= first
        )
        SELECT row, first INTO v_row, v_first FROM run
         ORDER BY row, abs(2 * first + p_quantity - 2 - v_cols), first LIMIT 1;
        IF NOT FOUND THEN
            RETURN NULL;
        END IF;
        SELECT array_agg((v_row - 1) * v_cols + v_first - 1 + i) INTO found_seats
          FROM generate_series(0, p_quantity - 1) i;
        RETURN found_seats;
    END IF;
    SELECT array_agg(f.seat_no) INTO found_seats FROM (
        SELECT (r - 1) * v_cols + c - 1 AS seat_no
          FROM generate_series(p_first_row, p_last_row) r, generate_series(1, v_cols) c
         WHERE NOT EXISTS (SELECT FROM claims k
                            WHERE k.event_id = p_event_id AND k.seat_no = (r - 1) * v_cols + c - 1
                              AND (k.state = 'booked' OR k.held_until > now()))
           AND (r - 1) * v_cols + c - 1 <> ALL (p_without)
         ORDER BY r, abs(2 * c - 1 - v_cols), c LIMIT p_quantity) f;
    RETURN CASE WHEN cardinality(found_seats) = p_quantity THEN found_seats END;
END $$;

-- The rows of a tier, or of the whole house (NULL); no row if the event has no such tier.
CREATE FUNCTION tier_rows(e events, p_tier text, OUT first_row integer, OUT last_row integer)
RETURNS SETOF record
LANGUAGE sql STABLE AS $$
    SELECT 1, e.rows WHERE p_tier IS NULL
    UNION ALL
    SELECT e.tier_first_rows[i], coalesce(e.tier_first_rows[i + 1] - 1, e.rows)
      FROM array_position(e.tier_names, p_tier) i WHERE i IS NOT NULL
$$;

-- The answer that a request for best seats has had already; outcome NULL: none.
CREATE FUNCTION best_replay(p_event_id bigint, p_booking_id uuid, p_key text, p_hash bigint,
                            p_recheck boolean) RETURNS taken
LANGUAGE plpgsql AS $$
DECLARE
    answer taken;
BEGIN
    answer.ord := 1;
    IF p_recheck OR p_key IS NOT NULL THEN
        SELECT p.outcome, p.booking_id, p.created_us
          INTO answer.outcome, answer.booking_id, answer.created_us
          FROM booking_replay(p_event_id, p_booking_id, p_key, p_hash) p;
    END IF;
    IF answer.outcome = 'replayed' THEN
        SELECT CASE WHEN b.hold_ms IS NULL THEN 'confirmed' ELSE 'held' END,
               to_us(b.created_at + from_ms(b.hold_ms)), b.amount, b.currency, b.seats, e.cols
          INTO answer.status, answer.expires_us, answer.amount, answer.currency, answer.seats,
               answer.cols
          FROM bookings b JOIN events e USING (event_id)
         WHERE b.event_id = p_event_id AND b.booking_id = answer.booking_id;
    END IF;
    RETURN answer;
END $$;

-- Takes the best seats of several tiers, all or nothing: booking.best_choose = "database". Who wants
-- the same seats at the same moment does not wait for another: seats are tried for by advisory
-- locks, and those that somebody is at are passed over. Only if nothing else is left it waits for
-- what becomes of them. One row, as take_batch, and
--   sold_out       allowed: how many seats of that tier are free
--   not_together   enough seats are free, but not side by side
--   unknown_tier   allowed: whose, counted from 1
-- `seats` are always told.
CREATE FUNCTION best_take(
    p_epoch bigint, p_event_id bigint, p_booking_id uuid, p_user_id text, p_key text, p_hash bigint,
    p_recheck boolean, p_hold_ms bigint, p_method text, p_lease_ms bigint,
    p_tiers text[], p_quantities integer[], p_togethers boolean[])
RETURNS taken
LANGUAGE plpgsql AS $$
DECLARE
    answer    taken;
    e         events;
    wait      boolean := false;
    passed    integer[] := '{}';   -- somebody is at them
    chosen    integer[];
    whose     integer[];           -- which part each of them is for
    part      integer[];
    i         integer;
    tier      record;
    free      integer;
    lost      integer := 0;        -- how often in a row for no reason that the next look would see
BEGIN
    answer.ord := 0;
    answer.outcome := write_guard(p_epoch);
    IF answer.outcome <> 'ok' THEN
        RETURN answer;
    END IF;
    answer := best_replay(p_event_id, p_booking_id, p_key, p_hash, p_recheck);
    IF answer.outcome IS NOT NULL THEN
        RETURN answer;
    END IF;
    SELECT * INTO e FROM events WHERE event_id = p_event_id;
    IF NOT FOUND THEN
        answer.outcome := 'unknown_event';
        RETURN answer;
    END IF;
    LOOP
        chosen := '{}';
        whose := '{}';
        -- Tiers first, since the whole house could take theirs; of these the ones together.
        FOR i IN SELECT u.i FROM unnest(p_tiers, p_togethers) WITH ORDINALITY AS u (tier, together, i)
                  ORDER BY u.tier IS NULL, NOT u.together, u.i LOOP
            SELECT * INTO tier FROM tier_rows(e, p_tiers[i]);
            IF NOT FOUND THEN
                answer.outcome := 'unknown_tier';
                answer.allowed := i;
                RETURN answer;
            END IF;
            part := best_seats(p_event_id, tier.first_row, tier.last_row, p_quantities[i],
                               p_togethers[i], chosen || passed);
            EXIT WHEN part IS NULL;
            chosen := chosen || part;
            whose := whose || array_fill(i, ARRAY[cardinality(part)]);
        END LOOP;
        IF part IS NULL THEN
            EXIT WHEN cardinality(passed) = 0;
            passed := '{}';
            wait := true;
            CONTINUE;
        END IF;
        IF NOT wait THEN
            SELECT array_agg(s) INTO part FROM unnest(chosen) s
             WHERE NOT pg_try_advisory_xact_lock(hashtextextended('seat ' || s, p_event_id));
            IF part IS NOT NULL THEN
                passed := passed || part;
                CONTINUE;
            END IF;
        END IF;
        SELECT array_agg(u.s ORDER BY u.i, u.o) INTO chosen   -- as they were asked for
          FROM unnest(chosen, whose) WITH ORDINALITY AS u (s, i, o);
        BEGIN
            SELECT * INTO answer
              FROM take_batch(p_epoch, ARRAY[p_event_id], ARRAY[p_booking_id], ARRAY[p_user_id],
                              ARRAY[p_key], ARRAY[p_hash], ARRAY[p_recheck], ARRAY[false],
                              ARRAY[p_hold_ms], ARRAY[p_method],
                              (SELECT array_agg(1) FROM unnest(chosen)),
                              (SELECT array_agg(s / e.cols + 1 ORDER BY o)
                                 FROM unnest(chosen) WITH ORDINALITY AS u (s, o)),
                              (SELECT array_agg(s % e.cols + 1 ORDER BY o)
                                 FROM unnest(chosen) WITH ORDINALITY AS u (s, o)), p_lease_ms);
            lost := CASE answer.outcome WHEN 'again' THEN lost + 1 ELSE 0 END;
            IF answer.outcome IN ('again', 'seats_taken') AND lost < 5 THEN
                RAISE EXCEPTION USING ERRCODE = 'SG001';
            END IF;
            IF answer.outcome = 'booked' THEN
                answer.seats := chosen;
                answer.cols := e.cols;
            END IF;
            RETURN answer;
        EXCEPTION WHEN SQLSTATE 'SG001' THEN
            -- Lost to somebody who is through by now: the next look sees that. Nothing that was
            -- claimed in passing stays locked, or the next claim would break the lock order.
            wait := false;
            passed := '{}';
        END;
    END LOOP;

    -- Nothing fits. The same request, asked twice at once, may have had the last.
    answer := best_replay(p_event_id, p_booking_id, p_key, p_hash, p_recheck);
    IF answer.outcome IS NOT NULL THEN
        RETURN answer;
    END IF;
    answer.outcome := 'not_together';
    FOR i IN 1 .. cardinality(p_quantities) LOOP
        SELECT * INTO tier FROM tier_rows(e, p_tiers[i]);
        SELECT (tier.last_row - tier.first_row + 1) * e.cols - count(*) INTO free FROM claims c
         WHERE c.event_id = p_event_id AND (c.state = 'booked' OR c.held_until > now())
           AND c.seat_no >= (tier.first_row - 1) * e.cols AND c.seat_no < tier.last_row * e.cols;
        IF free < (SELECT sum(u.quantity) FROM unnest(p_tiers, p_quantities) AS u (tier, quantity)
                    WHERE u.tier IS NOT DISTINCT FROM p_tiers[i]) THEN
            answer.outcome := 'sold_out';
            answer.allowed := free;
            EXIT;
        END IF;
    END LOOP;
    RETURN answer;
END $$;

-- ---- the waiting list -----------------------------------------------------------------------------

-- One at a time for the waiting list of an event: who joins, and who gives seats back, so that
-- neither overlooks the other. In one order for everybody.
CREATE FUNCTION waitlist_key(p_event_id bigint) RETURNS bigint
LANGUAGE sql IMMUTABLE AS $$ SELECT hashtextextended('waitlist', p_event_id) $$;

CREATE FUNCTION waitlist_lock(p_event_ids bigint[]) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(q.k)
       FROM (SELECT DISTINCT waitlist_key(e) AS k FROM unnest(p_event_ids) e
              ORDER BY k OFFSET 0) q;
END $$;

-- Holds seats for an offer: 'ok'; 'lost' if one is another's by now; 'busy' if another is at one. The
-- caller holds other claims, so it does not wait for long.
CREATE FUNCTION offer_claim(p_event_id bigint, p_booking_id uuid, p_seats integer[],
                            p_until timestamptz) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
    v_timeout text := current_setting('lock_timeout');
    v_count   integer;
BEGIN
    PERFORM set_config('lock_timeout', '100ms', true);
    INSERT INTO claims AS c (event_id, seat_no, booking_id, state, held_until)
    SELECT p_event_id, s, p_booking_id, 'held', p_until FROM unnest(p_seats) s ORDER BY s
    ON CONFLICT (event_id, seat_no) DO UPDATE
       SET booking_id = excluded.booking_id, state = 'held', held_until = excluded.held_until
     WHERE c.state = 'held' AND c.held_until <= now()
       AND hold_ended(c.event_id, c.seat_no, c.booking_id);
    GET DIAGNOSTICS v_count = ROW_COUNT;
    IF v_count < cardinality(p_seats) THEN
        RAISE EXCEPTION USING ERRCODE = 'SG001';
    END IF;
    PERFORM set_config('lock_timeout', v_timeout, true);
    RETURN 'ok';
EXCEPTION   -- what was claimed, and the setting, are undone
    WHEN SQLSTATE 'SG001' THEN RETURN 'lost';
    WHEN lock_not_available THEN RETURN 'busy';
END $$;

-- Offers what is free to who waits, in their order, as holds of p_offer_ms. Whom nothing fits keeps
-- the place and is passed over; when somebody is at the seats, or half a second is over, the next sweep
-- goes on from there. Returns how many offers were made.
CREATE FUNCTION waitlist_offer(p_event_id bigint, p_offer_ms bigint) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
    e        events;
    w        waitlist;
    tier     record;
    v_seats  integer[];
    v_id     uuid;
    v_claim  text;
    v_until  timestamptz := now() + from_ms(p_offer_ms);
    v_free   bigint;
    v_shape  text;
    unfit    text[] := '{}';   -- what nothing fits
    offered  integer := 0;
    v_end    timestamptz := clock_timestamp() + interval '0.5 s';
BEGIN
    PERFORM waitlist_lock(ARRAY[p_event_id]);
    IF NOT EXISTS (SELECT FROM waitlist q WHERE q.event_id = p_event_id AND q.state = 'waiting') THEN
        RETURN 0;
    END IF;
    SELECT * INTO e FROM events WHERE event_id = p_event_id;
    UPDATE waitlist q SET look_again = false
     WHERE q.event_id = p_event_id AND q.state = 'waiting' AND q.look_again;
    v_free := e.rows::bigint * e.cols - (SELECT count(*) FROM claims c WHERE c.event_id = p_event_id
                                            AND (c.state = 'booked' OR c.held_until > now()));
    FOR w IN SELECT * FROM waitlist q
              WHERE q.event_id = p_event_id AND q.state = 'waiting' AND q.quantity <= v_free
              ORDER BY q.place
    LOOP
        EXIT WHEN v_free <= 0;
        v_shape := concat_ws(' ', w.quantity, w.together, w.tier);
        CONTINUE WHEN v_shape = ANY (unfit) OR seats_allowed(p_event_id, w.user_id, true) < w.quantity;
        IF offered > 0 AND clock_timestamp() > v_end THEN
            UPDATE waitlist q SET look_again = true
             WHERE q.event_id = p_event_id AND q.entry_id = w.entry_id;
            EXIT;
        END IF;
        IF e.max_per_user IS NOT NULL THEN
            IF NOT pg_try_advisory_xact_lock(user_key(p_event_id, w.user_id)) THEN   -- at another purchase
                UPDATE waitlist q SET look_again = true
                 WHERE q.event_id = p_event_id AND q.entry_id = w.entry_id;
                CONTINUE;
            END IF;
            PERFORM lock_users(ARRAY[p_event_id], ARRAY[w.user_id]);   -- it is ours: for what it marks
            CONTINUE WHEN seats_allowed(p_event_id, w.user_id) < w.quantity;
        END IF;
        PERFORM FROM (SELECT * FROM waitlist q WHERE q.event_id = p_event_id AND q.entry_id = w.entry_id
                      OFFSET 0 FOR UPDATE SKIP LOCKED) q
          WHERE q.state = 'waiting';
        CONTINUE WHEN NOT FOUND;   -- leaves at this moment
        SELECT * INTO tier FROM tier_rows(e, w.tier);
        CONTINUE WHEN NOT FOUND;
        FOR attempt IN 1 .. 3 LOOP
            v_seats := best_seats(p_event_id, tier.first_row, tier.last_row, w.quantity, w.together, '{}');
            EXIT WHEN v_seats IS NULL;
            PERFORM expire_holds_at(p_event_id, v_seats);
            v_id := gen_random_uuid();
            v_claim := offer_claim(p_event_id, v_id, v_seats, v_until);
            EXIT WHEN v_claim <> 'lost';   -- a buyer was faster: the next look sees that
        END LOOP;
        IF v_seats IS NULL THEN
            unfit := unfit || v_shape;
            CONTINUE;
        ELSIF v_claim <> 'ok' THEN   -- nobody behind is served before
            UPDATE waitlist q SET look_again = true
             WHERE q.event_id = p_event_id AND q.entry_id = w.entry_id;
            EXIT;
        END IF;
        INSERT INTO bookings (event_id, booking_id, user_id, status, seats, amount, currency,
                              request_hash, expires_at, hold_ms)
        VALUES (p_event_id, v_id, w.user_id, 'held', v_seats, seats_amount(e, v_seats), e.currency,
                0, v_until, p_offer_ms);
        UPDATE waitlist q SET state = 'offered', booking_id = v_id, updated_at = now()
         WHERE q.event_id = p_event_id AND q.entry_id = w.entry_id;
        offered := offered + 1;
        v_free := v_free - w.quantity;
    END LOOP;
    RETURN offered;
END $$;

-- Where an entry stands: state, its position among those who wait (from 1), what it was offered.
CREATE FUNCTION waitlist_look(
    p_event_id bigint, p_entry_id uuid,
    OUT user_id text, OUT quantity integer, OUT tier text, OUT together boolean, OUT state text,
    OUT queue_position bigint, OUT booking_id uuid, OUT expires_us bigint, OUT created_us bigint)
LANGUAGE sql STABLE AS $$
    SELECT w.user_id, w.quantity, w.tier, w.together,
           CASE WHEN w.state <> 'offered' THEN w.state::text
                WHEN b.status = 'confirmed' THEN 'accepted'
                WHEN b.status = 'held' AND b.expires_at > now() THEN 'offered'
                ELSE 'expired' END,
           CASE WHEN w.state = 'waiting' THEN
               (SELECT count(*) FROM waitlist o WHERE o.event_id = w.event_id AND o.state = 'waiting'
                   AND o.place <= w.place) END,
           w.booking_id, CASE WHEN b.status = 'held' THEN to_us(b.expires_at) END, to_us(w.created_at)
      FROM waitlist w
      LEFT JOIN bookings b ON b.event_id = w.event_id AND b.booking_id = w.booking_id
     WHERE w.event_id = p_event_id AND w.entry_id = p_entry_id
$$;

-- Joins the waiting list; if there are seats that fit, they are offered at once. Outcome: 'ok',
-- 'replayed' (entry_id: of the earlier one), 'key_reused', 'already_waiting' (entry_id: the place
-- that the user has), 'unknown_event', 'unknown_tier', 'too_many' (more than the tier or a row has,
-- or the event allows), or the guard's.
CREATE FUNCTION waitlist_join(
    p_epoch bigint, p_event_id bigint, p_entry_id uuid, p_user_id text, p_quantity integer,
    p_tier text, p_together boolean, p_key text, p_hash bigint, p_offer_ms bigint,
    OUT outcome text, OUT entry_id uuid)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    e      events;
    replay record;
    tier   record;
BEGIN
    outcome := write_guard(p_epoch);
    IF outcome <> 'ok' THEN
        RETURN;
    END IF;
    entry_id := p_entry_id;
    PERFORM waitlist_lock(ARRAY[p_event_id]);
    SELECT * INTO replay FROM change_replay(p_event_id, p_key, 'waiting', p_hash, NULL);
    IF replay.outcome IS NOT NULL THEN
        outcome := replay.outcome;
        entry_id := (replay.found_key).target_id;
        RETURN;
    END IF;
    IF EXISTS (SELECT FROM waitlist w WHERE w.event_id = p_event_id AND w.entry_id = p_entry_id) THEN
        PERFORM wait_at_commit();   -- asked again after a lost answer
        RETURN;
    END IF;
    SELECT * INTO e FROM events v WHERE v.event_id = p_event_id;
    IF NOT FOUND THEN
        outcome := 'unknown_event';
        RETURN;
    END IF;
    SELECT * INTO tier FROM tier_rows(e, p_tier);
    IF NOT FOUND THEN
        outcome := 'unknown_tier';
        RETURN;
    END IF;
    IF p_quantity > e.max_per_user OR p_together AND p_quantity > e.cols
       OR p_quantity > (tier.last_row - tier.first_row + 1)::bigint * e.cols THEN
        outcome := 'too_many';
        RETURN;
    END IF;
    PERFORM expire_hold(w.event_id, w.booking_id)   -- an offer that has run out
       FROM (SELECT * FROM waitlist q WHERE q.event_id = p_event_id AND q.user_id = p_user_id
                AND q.state IN ('waiting', 'offered') OFFSET 0) w
      WHERE w.state = 'offered';
    SELECT w.entry_id INTO entry_id FROM waitlist w
     WHERE w.event_id = p_event_id AND w.user_id = p_user_id AND w.state IN ('waiting', 'offered');
    IF FOUND THEN
        outcome := 'already_waiting';
        RETURN;
    END IF;
    entry_id := p_entry_id;
    INSERT INTO waitlist (event_id, entry_id, user_id, quantity, tier, together)
    VALUES (p_event_id, p_entry_id, p_user_id, p_quantity, p_tier, p_together);
    PERFORM change_key_store(p_event_id, p_key, 'waiting', p_hash, p_entry_id, 'waiting', p_user_id, NULL);
    PERFORM waitlist_offer(p_event_id, p_offer_ms);
END $$;

-- The same, with the entry as it then stands, if there is one.
CREATE FUNCTION waitlist_join_and_look(
    p_epoch bigint, p_event_id bigint, p_entry_id uuid, p_user_id text, p_quantity integer,
    p_tier text, p_together boolean, p_key text, p_hash bigint, p_offer_ms bigint,
    OUT outcome text, OUT entry_id uuid, OUT user_id text, OUT quantity integer, OUT tier text,
    OUT together boolean, OUT state text, OUT queue_position bigint, OUT booking_id uuid,
    OUT expires_us bigint, OUT created_us bigint)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    SELECT j.outcome, j.entry_id INTO outcome, entry_id
      FROM waitlist_join(p_epoch, p_event_id, p_entry_id, p_user_id, p_quantity, p_tier, p_together,
                         p_key, p_hash, p_offer_ms) j;
    SELECT l.user_id, l.quantity, l.tier, l.together, l.state, l.queue_position, l.booking_id,
           l.expires_us, l.created_us
      INTO user_id, quantity, tier, together, state, queue_position, booking_id, expires_us, created_us
      FROM waitlist_look(p_event_id, waitlist_join_and_look.entry_id) l;
END $$;

-- Leaves the waiting list. Outcome: 'ok' (also if it has ended before), 'replayed', 'key_reused',
-- 'unknown_entry', 'not_owner', 'offered' (there is a hold: release that), or the guard's.
CREATE FUNCTION waitlist_leave(p_epoch bigint, p_event_id bigint, p_entry_id uuid, p_user_id text,
                               p_key text, p_hash bigint)
RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
    v_outcome text := write_guard(p_epoch);
    w         waitlist;
BEGIN
    IF v_outcome <> 'ok' THEN
        RETURN v_outcome;
    END IF;
    SELECT * INTO w FROM waitlist q WHERE q.event_id = p_event_id AND q.entry_id = p_entry_id FOR UPDATE;
    IF NOT FOUND THEN
        RETURN 'unknown_entry';
    END IF;
    SELECT r.outcome INTO v_outcome FROM change_replay(p_event_id, p_key, 'left', p_hash, p_entry_id) r;
    IF v_outcome IS NOT NULL THEN
        RETURN v_outcome;
    ELSIF w.user_id <> p_user_id THEN
        RETURN 'not_owner';
    ELSIF w.state = 'offered' AND EXISTS (
              SELECT FROM bookings b WHERE b.event_id = p_event_id AND b.booking_id = w.booking_id
                 AND b.status = 'held' AND b.expires_at > now()) THEN
        RETURN 'offered';
    END IF;
    UPDATE waitlist q SET state = 'left', updated_at = now()
     WHERE q.event_id = p_event_id AND q.entry_id = p_entry_id AND q.state = 'waiting';
    PERFORM change_key_store(p_event_id, p_key, 'left', p_hash, p_entry_id, 'left', p_user_id, NULL);
    PERFORM wait_at_commit();
    RETURN 'ok';
END $$;

-- ---- changing -------------------------------------------------------------------------------------

-- The seats of a booking are its own again, or for good: true. False if one of them is another's by
-- now: then it has none any more.
CREATE FUNCTION seats_confirm(b bookings) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    v_count integer;
BEGIN
    UPDATE claims c SET state = 'booked', held_until = NULL
     WHERE c.event_id = b.event_id AND c.seat_no = ANY (b.seats) AND c.booking_id = b.booking_id;
    GET DIAGNOSTICS v_count = ROW_COUNT;
    IF v_count = cardinality(b.seats) THEN
        RETURN true;
    END IF;
    -- Late: the sweeper, or another's hold that has run out, may have been there.
    PERFORM expire_holds_at(b.event_id, b.seats);
    BEGIN
        INSERT INTO claims AS c (event_id, seat_no, booking_id, state)
        SELECT b.event_id, s, b.booking_id, 'booked' FROM unnest(b.seats) s ORDER BY s
        ON CONFLICT (event_id, seat_no) DO UPDATE
           SET booking_id = excluded.booking_id, state = 'booked', held_until = NULL
         WHERE c.booking_id = b.booking_id
            OR c.state = 'held' AND c.held_until <= now()
               AND hold_ended(c.event_id, c.seat_no, c.booking_id);
        GET DIAGNOSTICS v_count = ROW_COUNT;
        IF v_count < cardinality(b.seats) THEN
            RAISE EXCEPTION USING ERRCODE = 'SG001';
        END IF;
    EXCEPTION WHEN SQLSTATE 'SG001' THEN
        -- Its own among them were made 'booked' further up: they are nobody's now.
        DELETE FROM claims c WHERE c.event_id = b.event_id AND c.seat_no = ANY (b.seats)
            AND c.booking_id = b.booking_id;
        RETURN false;
    END;
    RETURN true;
END $$;

CREATE FUNCTION seats_release(b bookings) RETURNS void
LANGUAGE sql AS $$
    DELETE FROM claims c
     WHERE c.event_id = b.event_id AND c.seat_no = ANY (b.seats) AND c.booking_id = b.booking_id
$$;

-- Changes many bookings, in one transaction.
--   p_kinds     confirm, extend, cancel, transfer
--   p_args      extend: for so many ms from now
--   p_texts     transfer: to this user
--   p_max_extensions, p_offer_ms: settings
-- Returns one row a request, in any order: the booking as it stands then, and the outcome
--   ok                (also: it was so already)      replayed, key_reused   by its key
--   unknown_booking   not_owner
--   hold_expired      too late, and a seat is another's, or it is to be extended
--   booking_ended     cancelled or failed            not_held, not_confirmed   of another status
--   extensions_used   over_limit (allowed: how many more the receiver, or who is late, may have)
--   order_open        it is being paid for
-- or, when nothing may be written here, one row with ord 0.
CREATE FUNCTION change_batch(
    p_epoch bigint,
    p_event_ids bigint[], p_booking_ids uuid[], p_user_ids text[], p_keys text[], p_hashes bigint[],
    p_change_ids uuid[], p_kinds text[], p_args bigint[], p_texts text[],
    p_max_extensions integer, p_offer_ms bigint)
RETURNS TABLE (ord integer, outcome text, booking_id uuid, user_id text, status text, created_us bigint,
               expires_us bigint, amount bigint, currency text, seats integer[], cols integer,
               allowed integer)
LANGUAGE plpgsql ROWS 100 AS $$
#variable_conflict use_column
DECLARE
    guard     text := write_guard(p_epoch);
    r         record;
    b         bookings;
    replay    record;
    k         change_keys;
    o         orders;
    is_late   boolean;
    returned  bigint[] := '{}';   -- events that seats have come back to, or where somebody may have more
    v_back    bigint[];           -- events that this may happen to
    v_events  bigint[];           -- of v_users
    v_users   text[];             -- who may get more seats
    any_offers boolean;           -- somebody on a waiting list has one
BEGIN
    IF guard <> 'ok' THEN
        ord := 0;
        outcome := guard;
        RETURN NEXT;
        RETURN;
    END IF;
    PERFORM FROM bookings x
       JOIN (SELECT DISTINCT q.event_id, q.booking_id
               FROM unnest(p_event_ids, p_booking_ids) AS q (event_id, booking_id)) q
         ON x.event_id = q.event_id AND x.booking_id = q.booking_id
      ORDER BY x.event_id, x.booking_id FOR UPDATE OF x;
    -- What may come of it, whatever those before it in this batch make of the booking.
    SELECT array_agg(q.event_id) FILTER (WHERE q.kind IN ('cancel', 'transfer') OR q.is_late),
           array_agg(q.event_id) FILTER (WHERE q.kind = 'transfer' OR q.is_late),
           array_agg(CASE WHEN q.kind = 'transfer' THEN q.text ELSE q.user_id END)
               FILTER (WHERE q.kind = 'transfer' OR q.is_late),
           EXISTS (SELECT FROM waitlist w WHERE w.state = 'offered')
      INTO v_back, v_events, v_users, any_offers
      FROM (SELECT u.event_id, u.user_id, u.kind, u.text,
                   u.kind = 'confirm' AND u.user_id = x.user_id AND x.is_over AS is_late
              FROM unnest(p_event_ids, p_booking_ids, p_user_ids, p_kinds, p_texts)
                   AS u (event_id, booking_id, user_id, kind, text)
              JOIN LATERAL (SELECT y.user_id, y.status = 'expired'
                                   OR y.status = 'held' AND y.expires_at <= now() AS is_over
                              FROM bookings y
                             WHERE y.event_id = u.event_id AND y.booking_id = u.booking_id) x ON true) q;
    PERFORM waitlist_lock(v_back);
    PERFORM lock_users(v_events, v_users);

    FOR r IN
        SELECT q.ord::integer AS ord, q.event_id, q.booking_id, q.user_id, q.key, q.hash, q.change_id,
               q.kind, q.arg, q.text
          FROM unnest(p_event_ids, p_booking_ids, p_user_ids, p_keys, p_hashes, p_change_ids, p_kinds,
                      p_args, p_texts) WITH ORDINALITY
               AS q (event_id, booking_id, user_id, key, hash, change_id, kind, arg, text, ord)
         ORDER BY q.event_id, q.booking_id, q.ord
    LOOP
        ord := r.ord;
        outcome := NULL;
        allowed := NULL;
        SELECT * INTO b FROM bookings x WHERE x.event_id = r.event_id AND x.booking_id = r.booking_id;
        IF NOT FOUND THEN
            outcome := 'unknown_booking';
        ELSIF r.key IS NOT NULL THEN
            SELECT p.outcome, p.found_key INTO replay
              FROM change_replay(r.event_id, r.key, r.kind, r.hash, r.booking_id) p;
            outcome := replay.outcome;
            IF outcome = 'replayed' THEN
                k := replay.found_key;
                b.status := k.status::booking_status;
                b.expires_at := k.expires_at;
                b.user_id := k.user_id;
            END IF;
        END IF;
        IF outcome IS NULL AND b.change_id = r.change_id THEN
            outcome := 'ok';   -- asked again after a lost answer
            r.kind := 'nothing';
        ELSIF outcome IS NULL AND b.user_id <> r.user_id THEN
            outcome := 'not_owner';
        END IF;

        IF outcome IS NULL THEN
            is_late := b.status = 'expired' OR b.status = 'held' AND b.expires_at <= now();
            SELECT * INTO o FROM orders x
             WHERE x.event_id = r.event_id AND x.order_id = r.booking_id FOR UPDATE;
            outcome := CASE
                WHEN o.state IN ('reserved', 'charging', 'charged') THEN 'order_open'
                WHEN r.kind = 'cancel' THEN
                    CASE WHEN b.status IN ('held', 'confirmed') THEN 'ok' ELSE 'already' END
                WHEN b.status IN ('cancelled', 'failed') THEN 'booking_ended'
                WHEN r.kind = 'confirm' THEN
                    CASE WHEN b.status = 'confirmed' THEN 'already' ELSE 'ok' END
                WHEN r.kind = 'extend' THEN
                    CASE WHEN is_late THEN 'hold_expired'
                         WHEN b.status <> 'held' THEN 'not_held'
                         WHEN b.extended >= p_max_extensions THEN 'extensions_used'
                         ELSE 'ok' END
                ELSE CASE WHEN b.status <> 'confirmed' THEN 'not_confirmed'
                          WHEN b.user_id = r.text THEN 'already'
                          ELSE 'ok' END
                END;
            IF outcome = 'ok' AND (r.kind = 'confirm' AND is_late OR r.kind = 'transfer') THEN
                IF r.kind = 'transfer' THEN
                    b.user_id := r.text;
                END IF;
                allowed := seats_allowed(r.event_id, b.user_id);
                IF allowed < cardinality(b.seats) THEN
                    outcome := 'over_limit';
                    allowed := greatest(allowed, 0);
                    b.user_id := r.user_id;
                END IF;
            END IF;
            IF outcome = 'ok' AND r.kind = 'confirm' THEN
                IF seats_confirm(b) THEN
                    b.status := 'confirmed';
                    b.expires_at := NULL;
                ELSE
                    outcome := 'hold_expired';
                    UPDATE bookings x SET status = 'expired', updated_at = now()
                     WHERE x.event_id = b.event_id AND x.booking_id = b.booking_id AND x.status = 'held';
                    b.status := 'expired';
                    returned := returned || b.event_id;
                END IF;
            ELSIF outcome = 'ok' AND r.kind = 'extend' THEN
                b.expires_at := greatest(b.expires_at, now() + from_ms(r.arg));
                b.extended := b.extended + 1;
                UPDATE claims c SET held_until = b.expires_at
                 WHERE c.event_id = b.event_id AND c.seat_no = ANY (b.seats)
                   AND c.booking_id = b.booking_id;
            ELSIF outcome = 'ok' AND r.kind = 'cancel' THEN
                PERFORM seats_release(b);
                b.status := 'cancelled';
                b.expires_at := NULL;
                returned := returned || b.event_id;
                IF o.state = 'confirmed' THEN   -- somebody has paid: the saga gives it back
                    UPDATE orders x
                       SET state = CASE WHEN x.amount > 0 THEN 'refunding' ELSE 'failed' END::order_state,
                           problem = 'cancelled', attempts = 0, updated_at = now(),
                           due_at = CASE WHEN x.amount > 0 THEN now() END
                     WHERE x.event_id = r.event_id AND x.order_id = r.booking_id;
                END IF;
            ELSIF outcome = 'ok' AND allowed IS NOT NULL THEN   -- given away, under a limit
                returned := returned || b.event_id;             -- who gave it may be offered seats now
            END IF;
            IF outcome <> 'over_limit' THEN
                allowed := NULL;
            END IF;
            IF outcome = 'ok' THEN
                b.change_id := r.change_id;
                UPDATE bookings x
                   SET status = b.status, user_id = b.user_id, expires_at = b.expires_at,
                       extended = b.extended, change_id = b.change_id, updated_at = now()
                 WHERE x.event_id = b.event_id AND x.booking_id = b.booking_id;
            ELSIF outcome = 'already' THEN
                outcome := 'ok';
                PERFORM wait_at_commit();
            END IF;
            IF outcome = 'ok' THEN
                PERFORM change_key_store(r.event_id, r.key, r.kind, r.hash, r.booking_id, b.status::text,
                                         b.user_id, b.expires_at);
            END IF;
            IF any_offers AND outcome IN ('ok', 'hold_expired') AND b.status <> 'held' THEN
                PERFORM offer_end(b.event_id, b.booking_id, b.status = 'confirmed');
            END IF;
        ELSIF outcome = 'ok' THEN
            PERFORM wait_at_commit();
        END IF;

        booking_id := r.booking_id;
        user_id := b.user_id;
        status := b.status;
        created_us := to_us(b.created_at);
        expires_us := CASE WHEN b.status = 'held' THEN to_us(b.expires_at) END;
        amount := b.amount;
        currency := b.currency;
        seats := b.seats;
        cols := (SELECT e.cols FROM events e WHERE e.event_id = r.event_id);
        RETURN NEXT;
    END LOOP;
    PERFORM waitlist_offer(q.event_id, p_offer_ms)
       FROM (SELECT DISTINCT e AS event_id FROM unnest(returned) e ORDER BY e OFFSET 0) q;
END $$;

-- ---- orders ---------------------------------------------------------------------------------------

-- One step of an order: from the state p_from, by p_action, or nothing. The next step is due in
-- p_due_ms; until then it is the caller's.
--   charging   reserved -> charging: before the payment service is asked
--   later      the state stays, of an order that is not final: one more attempt, due in p_due_ms
--   charged    charging -> charged: the payment service has the money
--   confirm    charged (or reserved, of an order that costs nothing) -> confirmed, or, if the seats are
--              gone -> refunding (failed, if it costs nothing)
--   fail       reserved, charging -> failed: there will be no money; the seats are given back
--   refund     failed -> refunding: money came after all
--   refunded   refunding -> refunded: the payment service has given it back
-- outcome: 'ok'; 'moved' (another state than p_from: somebody was faster); 'unknown_order'; or the
-- guard's. The order as it stands then.
CREATE FUNCTION order_step(
    p_epoch bigint, p_event_id bigint, p_order_id uuid, p_from text, p_action text, p_due_ms bigint,
    p_problem text, p_offer_ms bigint,
    OUT outcome text, OUT state text, OUT attempts integer, OUT problem text)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    o orders;
    b bookings;
    v_to order_state;
    is_late boolean;
BEGIN
    outcome := write_guard(p_epoch);
    IF outcome <> 'ok' THEN
        RETURN;
    END IF;
    SELECT * INTO b FROM bookings x WHERE x.event_id = p_event_id AND x.booking_id = p_order_id FOR UPDATE;
    SELECT * INTO o FROM orders x WHERE x.event_id = p_event_id AND x.order_id = p_order_id FOR UPDATE;
    IF NOT FOUND THEN
        outcome := 'unknown_order';
        RETURN;
    END IF;
    state := o.state;
    attempts := o.attempts;
    problem := o.problem;
    v_to := CASE
        WHEN o.state::text <> p_from THEN NULL
        WHEN p_action = 'later' AND o.due_at IS NOT NULL THEN o.state
        WHEN p_action = 'charging' AND o.state = 'reserved' THEN 'charging'
        WHEN p_action = 'charged' AND o.state = 'charging' THEN 'charged'
        WHEN p_action = 'confirm' AND (o.state = 'charged' OR o.state = 'reserved' AND o.amount = 0)
            THEN 'confirmed'
        WHEN p_action = 'fail' AND o.state IN ('reserved', 'charging') THEN 'failed'
        WHEN p_action = 'refund' AND o.state = 'failed' AND o.amount > 0 THEN 'refunding'
        WHEN p_action = 'refunded' AND o.state = 'refunding' THEN 'refunded'
        END::order_state;
    IF v_to IS NULL THEN
        outcome := 'moved';
        PERFORM wait_at_commit();
        RETURN;
    END IF;
    is_late := b.status = 'expired' OR b.status = 'held' AND b.expires_at <= now();
    IF v_to = 'failed' OR v_to = 'confirmed' AND is_late THEN
        PERFORM waitlist_lock(ARRAY[p_event_id]);
    END IF;
    IF v_to = 'confirmed' THEN
        IF is_late THEN
            PERFORM lock_users(ARRAY[p_event_id], ARRAY[b.user_id]);
        END IF;
        IF b.status NOT IN ('held', 'expired')
           OR is_late AND seats_allowed(p_event_id, b.user_id) < cardinality(b.seats)
           OR NOT seats_confirm(b) THEN
            v_to := CASE WHEN o.amount > 0 THEN 'refunding' ELSE 'failed' END::order_state;
            p_problem := 'seats_gone';
        ELSE
            UPDATE bookings x SET status = 'confirmed', expires_at = NULL, updated_at = now()
             WHERE x.event_id = p_event_id AND x.booking_id = p_order_id;
        END IF;
    END IF;
    IF v_to IN ('failed', 'refunding') AND b.status IN ('held', 'expired') THEN
        PERFORM seats_release(b);
        UPDATE bookings x SET status = 'failed', expires_at = NULL, updated_at = now()
         WHERE x.event_id = p_event_id AND x.booking_id = p_order_id;
    END IF;
    UPDATE orders x
       SET state = v_to, attempts = CASE WHEN v_to = x.state THEN x.attempts + 1 ELSE 0 END,
           problem = coalesce(p_problem, x.problem),
           due_at = CASE WHEN v_to NOT IN ('confirmed', 'failed', 'refunded')
                         THEN now() + from_ms(p_due_ms) END,
           updated_at = now()
     WHERE x.event_id = p_event_id AND x.order_id = p_order_id
    RETURNING x.state, x.attempts, x.problem INTO state, attempts, problem;
    IF p_action IN ('confirm', 'fail') AND v_to <> 'confirmed' THEN
        PERFORM waitlist_offer(p_event_id, p_offer_ms);
    END IF;
END $$;

-- Orders that nobody goes on with: they are the caller's for p_lease_ms.
CREATE FUNCTION orders_due(p_epoch bigint, p_limit integer, p_lease_ms bigint)
RETURNS TABLE (outcome text, event_id bigint, order_id uuid, state text, amount bigint, currency text,
               method text, attempts integer, age_ms bigint)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    guard text := write_guard(p_epoch);
BEGIN
    IF guard <> 'ok' THEN
        outcome := guard;
        RETURN NEXT;
        RETURN;
    END IF;
    RETURN QUERY
        WITH d AS MATERIALIZED (
            SELECT o.event_id, o.order_id FROM orders o WHERE o.due_at <= now()
             ORDER BY o.due_at LIMIT p_limit FOR UPDATE SKIP LOCKED
        )
        UPDATE orders x SET due_at = now() + from_ms(p_lease_ms)
          FROM d
         WHERE x.event_id = d.event_id AND x.order_id = d.order_id
        RETURNING 'ok', x.event_id, x.order_id, x.state::text, x.amount, x.currency, x.method, x.attempts,
                  (extract(epoch FROM now() - x.created_at) * 1000)::bigint;
END $$;

-- ---- refusals -------------------------------------------------------------------------------------

-- Keeps a refusal; a second one of the booking changes nothing. 'ok' or the guard's.
CREATE FUNCTION refusal_store(p_epoch bigint, p_event_id bigint, p_booking_id uuid, p_user_id text,
                              p_code text, p_seats integer[])
RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
    guard text := write_guard(p_epoch);
BEGIN
    IF guard = 'ok' THEN
        INSERT INTO refusals (event_id, booking_id, user_id, code, seats)
        VALUES (p_event_id, p_booking_id, p_user_id, p_code, p_seats)
        ON CONFLICT (event_id, booking_id) DO NOTHING;
        PERFORM wait_at_commit();
    END IF;
    RETURN guard;
END $$;

-- ---- tidying --------------------------------------------------------------------------------------

-- Turns holds whose time is over into 'expired', p_limit of them and of seats at most, and offers what
-- came back, for a second at most; forgets so many old keys and refusals. One at a time for all who
-- call: the others are told 'busy'. `more`: there was more to do.
CREATE FUNCTION sweep(p_epoch bigint, p_limit integer, p_offer_ms bigint,
                      OUT outcome text, OUT expired integer, OUT offered integer, OUT more boolean)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    v_events bigint[];   -- that something has come back to, or may have
    v_ended  uuid[];     -- what has been marked, of v_events
    v_seats  integer;
    v_keys   integer;
    v_told   integer;    -- refusals
    v_event  bigint;
    v_end    timestamptz;
BEGIN
    outcome := write_guard(p_epoch);
    IF outcome <> 'ok' THEN
        RETURN;
    END IF;
    expired := 0;
    offered := 0;
    more := false;
    -- Most sweeps find nothing, and should cost no more than this look.
    IF NOT (EXISTS (SELECT FROM bookings o WHERE o.status = 'held' AND o.expires_at <= now())
            OR EXISTS (SELECT FROM claims c WHERE c.state = 'held' AND c.held_until <= now())
            OR EXISTS (SELECT FROM waitlist w WHERE w.state = 'waiting' AND w.look_again)
            OR EXISTS (SELECT FROM change_keys o WHERE o.created_at < now() - interval '24 hours')
            OR EXISTS (SELECT FROM refusals o WHERE o.created_at < now() - interval '24 hours')) THEN
        RETURN;
    END IF;
    IF NOT pg_try_advisory_xact_lock(1397900372, 5) THEN
        outcome := 'busy';
        RETURN;
    END IF;
    WITH overdue AS MATERIALIZED (
        SELECT o.event_id, o.booking_id FROM bookings o
         WHERE o.status = 'held' AND o.expires_at <= now()
         ORDER BY o.expires_at LIMIT p_limit FOR UPDATE SKIP LOCKED
    ), marked AS (
        UPDATE bookings b SET status = 'expired', updated_at = now()
          FROM overdue o
         WHERE b.event_id = o.event_id AND b.booking_id = o.booking_id
        RETURNING b.event_id, b.booking_id
    )
    SELECT count(*), array_agg(m.event_id), array_agg(m.booking_id) INTO expired, v_events, v_ended
      FROM marked m;
    IF EXISTS (SELECT FROM waitlist w WHERE w.state = 'offered') THEN
        PERFORM offer_end(q.event_id, q.booking_id, false)
           FROM unnest(v_events, v_ended) AS q (event_id, booking_id);
    END IF;
    -- The claims of these and of those that buyers have marked; of none that is still 'held'.
    -- Where somebody is at the waiting list, they stay for the next time.
    SELECT array_agg(q.event_id) INTO v_events FROM (
        SELECT unnest(v_events) AS event_id
        UNION (SELECT c.event_id FROM claims c WHERE c.state = 'held' AND c.held_until <= now()
                ORDER BY c.held_until LIMIT p_limit)
        UNION SELECT w.event_id FROM waitlist w WHERE w.state = 'waiting' AND w.look_again
        OFFSET 0) q
     WHERE pg_try_advisory_xact_lock(waitlist_key(q.event_id));
    -- OFFSET 0: looked at one after the other, and no more of them than it takes.
    WITH ended AS MATERIALIZED (
        SELECT c.event_id, c.seat_no, c.booking_id
          FROM (SELECT * FROM claims k WHERE k.state = 'held' AND k.held_until <= now()
                 ORDER BY k.held_until OFFSET 0) c
          LEFT JOIN LATERAL (SELECT x.status FROM bookings x
                              WHERE x.event_id = c.event_id AND x.booking_id = c.booking_id
                             OFFSET 0) b ON true
         WHERE c.event_id = ANY (v_events) AND b.status IS DISTINCT FROM 'held'
         LIMIT p_limit
    ), locked AS MATERIALIZED (
        SELECT c.event_id, c.seat_no FROM ended o JOIN claims c USING (event_id, seat_no)
         WHERE c.booking_id = o.booking_id AND c.state = 'held' AND c.held_until <= now()
           FOR UPDATE OF c SKIP LOCKED
    ), gone AS (
        DELETE FROM claims c USING locked o
         WHERE c.event_id = o.event_id AND c.seat_no = o.seat_no
        RETURNING 1
    )
    SELECT count(*) INTO v_seats FROM gone;
    v_end := clock_timestamp() + interval '1 s';
    FOR v_event IN SELECT e FROM unnest(v_events) e ORDER BY e LOOP
        IF clock_timestamp() < v_end THEN
            offered := offered + waitlist_offer(v_event, p_offer_ms);
        ELSE   -- the next one goes on here
            UPDATE waitlist w SET look_again = true
             WHERE w.event_id = v_event AND w.entry_id = (
                   SELECT f.entry_id FROM waitlist f WHERE f.event_id = v_event AND f.state = 'waiting'
                    ORDER BY f.place LIMIT 1);
            more := more OR FOUND;
        END IF;
    END LOOP;
    DELETE FROM change_keys k WHERE (k.event_id, k.idempotency_key) IN (
        SELECT o.event_id, o.idempotency_key FROM change_keys o
         WHERE o.created_at < now() - interval '24 hours' LIMIT p_limit FOR UPDATE SKIP LOCKED);
    GET DIAGNOSTICS v_keys = ROW_COUNT;
    DELETE FROM refusals r WHERE (r.event_id, r.booking_id) IN (
        SELECT o.event_id, o.booking_id FROM refusals o
         WHERE o.created_at < now() - interval '24 hours' LIMIT p_limit FOR UPDATE SKIP LOCKED);
    GET DIAGNOSTICS v_told = ROW_COUNT;
    more := more OR p_limit <= greatest(expired, v_seats, v_keys, v_told);
END $$;

-- ---- what stands elsewhere, with more to it -------------------------------------------------------

-- The look of the strategies that use separate statements, as in 0002_functions.sql, for a user: of an
-- event with a limit 'over_limit' (allowed: how many more), and further looks of that user's wait
-- until this transaction ends. `replayed` tells all that take_batch does.
CREATE FUNCTION booking_look(
    p_epoch bigint, p_event_id bigint, p_booking_id uuid, p_user_id text, p_key text, p_hash bigint,
    p_recheck boolean, p_rows integer[], p_cols integer[],
    OUT outcome text, OUT booking_id uuid, OUT created_us bigint, OUT conflicts integer[],
    OUT seat_nos integer[], OUT seen uuid[], OUT status text, OUT expires_us bigint, OUT amount bigint,
    OUT currency text, OUT allowed integer)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    any_overdue boolean;   -- a hold here has run out
    is_limited  boolean;
    v_seats     integer[];
    found_one   bookings;
BEGIN
    IF write_guard(p_epoch) = 'ok' THEN   -- else booking_look says what
        -- Mostly there is neither; what follows would cost as much as the look itself.
        SELECT EXISTS (SELECT FROM (SELECT o.event_id FROM bookings o
                                     WHERE o.status = 'held' AND o.expires_at <= now() OFFSET 0) o
                        WHERE o.event_id = p_event_id),
               EXISTS (SELECT FROM events e WHERE e.event_id = p_event_id AND e.max_per_user IS NOT NULL)
          INTO any_overdue, is_limited;
        IF any_overdue THEN
            v_seats := ARRAY(SELECT (q.row - 1) * e.cols + q.col - 1
                               FROM unnest(p_rows, p_cols) AS q (row, col)
                               JOIN events e ON e.event_id = p_event_id
                              WHERE q.row BETWEEN 1 AND e.rows AND q.col BETWEEN 1 AND e.cols);
            -- Who is at a hold of these seats that has run out is waited for: expire_hold passes it over.
            PERFORM FROM (SELECT DISTINCT c.booking_id
                            FROM unnest(v_seats) s
                           CROSS JOIN LATERAL (SELECT * FROM claims k
                                                WHERE k.event_id = p_event_id AND k.seat_no = s OFFSET 0) c
                           WHERE c.state = 'held' AND c.held_until <= now() OFFSET 0) c
               JOIN bookings b ON b.event_id = p_event_id AND b.booking_id = c.booking_id
              WHERE b.status = 'held' AND b.expires_at <= now()
              ORDER BY b.booking_id FOR UPDATE OF b;
            PERFORM expire_holds_at(p_event_id, v_seats);
        END IF;
        IF is_limited THEN
            PERFORM lock_users(ARRAY[p_event_id], ARRAY[p_user_id]);
        END IF;
    END IF;
    SELECT l.outcome, l.booking_id, l.created_us, l.conflicts, l.seat_nos, l.seen
      INTO outcome, booking_id, created_us, conflicts, seat_nos, seen
      FROM booking_look(p_epoch, p_event_id, p_booking_id, p_key, p_hash, p_recheck, p_rows, p_cols) l;
    IF outcome = 'replayed' THEN
        SELECT * INTO found_one FROM bookings b
         WHERE b.event_id = p_event_id AND b.booking_id = booking_look.booking_id;
        status := CASE WHEN found_one.hold_ms IS NULL THEN 'confirmed' ELSE 'held' END;
        expires_us := to_us(found_one.created_at + from_ms(found_one.hold_ms));
        amount := found_one.amount;
        currency := found_one.currency;
    ELSIF outcome IN ('free', 'seats_taken')
          AND (p_key IS NOT NULL
               AND EXISTS (SELECT FROM change_keys k
                            WHERE k.event_id = p_event_id AND k.idempotency_key = p_key
                              AND k.created_at > now() - interval '24 hours')
               OR p_recheck AND EXISTS (SELECT FROM refusals f WHERE f.event_id = p_event_id
                                           AND f.booking_id = p_booking_id)) THEN
        outcome := 'key_reused';
    ELSIF is_limited AND outcome = 'free'
          AND seats_allowed(p_event_id, p_user_id) < cardinality(p_rows) THEN
        outcome := 'over_limit';
        allowed := greatest(seats_allowed(p_event_id, p_user_id), 0);
    END IF;
END $$;

-- May the user take so many seats more? One at a time for a user, until the transaction ends.
CREATE FUNCTION user_may_take(p_event_id bigint, p_user_id text, p_count integer) RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM events e WHERE e.event_id = p_event_id AND e.max_per_user IS NOT NULL) THEN
        RETURN true;
    END IF;
    PERFORM lock_users(ARRAY[p_event_id], ARRAY[p_user_id]);
    RETURN coalesce(seats_allowed(p_event_id, p_user_id) >= p_count, true);
END $$;

-- An event with tiers or a limit; NULL: none. As create_event without them.
CREATE FUNCTION create_event(
    p_epoch bigint, p_creation_id uuid, p_name text, p_starts_us bigint, p_rows integer,
    p_cols integer, p_first bigint[], p_last bigint[], p_excluded bigint[],
    p_currency text, p_tier_names text[], p_tier_prices bigint[], p_tier_first_rows integer[],
    p_max_per_user integer, OUT outcome text, OUT event_id bigint)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    SELECT c.outcome, c.event_id INTO outcome, event_id
      FROM create_event(p_epoch, p_creation_id, p_name, p_starts_us, p_rows, p_cols, p_first, p_last,
                        p_excluded) c;
    IF outcome = 'created' AND (p_tier_names IS NOT NULL OR p_max_per_user IS NOT NULL) THEN
        UPDATE events e
           SET currency = p_currency, tier_names = p_tier_names, tier_prices = p_tier_prices,
               tier_first_rows = p_tier_first_rows, max_per_user = p_max_per_user
         WHERE e.creation_id = p_creation_id
           AND (e.tier_names, e.max_per_user) IS DISTINCT FROM (p_tier_names, p_max_per_user);
    END IF;
END $$;
