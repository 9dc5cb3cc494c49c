-- The only writers of a shard. All run in READ COMMITTED, on the primary.
--
-- Lock order, the same in every function, so that there is no deadlock:
--   1. the fence (shared)   2. claims by (event_id, seat_no)   3. bookings by (event_id, key)
--
-- SPDX-License-Identifier: MIT

-- May this transaction write? Holds the fence shared until its end, so that fencing (which takes it
-- exclusively) waits for every write that was let in. Returns 'ok', 'fenced' or 'stale_epoch'.
CREATE FUNCTION write_guard(p_epoch bigint) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
    meta shard_meta;
BEGIN
    PERFORM pg_advisory_xact_lock_shared(1397900372, 1);   -- 'SEAT', 1: the fence
    SELECT * INTO meta FROM shard_meta;
    RETURN CASE WHEN NOT FOUND OR meta.fenced THEN 'fenced'
                WHEN meta.epoch <> p_epoch THEN 'stale_epoch'
                ELSE 'ok' END;
END $$;

-- The answer that a request has had already: the booking it made, or one made with its key.
-- Returns nothing if there is none; outcome 'replayed', 'key_reused', or 'again' when the key was
-- older than 24 hours and has just been set free.
CREATE FUNCTION booking_replay(p_event_id bigint, p_booking_id uuid, p_key text, p_hash bigint,
                               OUT outcome text, OUT booking_id uuid, OUT created_us bigint)
LANGUAGE plpgsql AS $$
DECLARE
    found_one bookings;
BEGIN
    SELECT * INTO found_one FROM bookings b
     WHERE b.event_id = p_event_id AND b.booking_id = p_booking_id;
    IF NOT FOUND AND p_key IS NOT NULL THEN
        SELECT * INTO found_one FROM bookings b
         WHERE b.event_id = p_event_id AND b.idempotency_key = p_key;
        IF FOUND AND found_one.created_at < now() - interval '24 hours' THEN
            -- Skips a row that another batch is at: waiting for it here could be a deadlock.
            PERFORM FROM bookings b
             WHERE b.event_id = p_event_id AND b.booking_id = found_one.booking_id
               FOR UPDATE SKIP LOCKED;
            IF FOUND THEN
                UPDATE bookings b SET idempotency_key = NULL
                 WHERE b.event_id = p_event_id AND b.booking_id = found_one.booking_id;
            END IF;
            outcome := 'again';
            RETURN;
        END IF;
    END IF;
    IF found_one.booking_id IS NOT NULL THEN
        outcome := CASE WHEN found_one.request_hash = p_hash THEN 'replayed' ELSE 'key_reused' END;
        booking_id := found_one.booking_id;
        created_us := (extract(epoch FROM found_one.created_at) * 1000000)::bigint;
    END IF;
END $$;

-- Books many requests at once: one statement, one transaction, one fsync.
--
-- Requests are numbered from 1 by their place in the arrays of the first group; each seat of the
-- second group names its request in p_ords and stands in that request's order. A request that
-- shares a seat or a key with an earlier one of the batch comes with p_rivals set: it is only looked
-- at (its seats may be gone: a "no" now), and otherwise answered 'again', for the next batch.
--
-- Returns one row a request: its outcome, and
--   booked         created_us
--   replayed       booking_id and created_us of the earlier answer (p_recheck or a key)
--   seats_taken    conflicts: which of the request's seats, counted from 1
--   unknown_seat   conflicts: likewise
--   unknown_event, key_reused, again
-- or, when nothing may be written here, one row with ord 0: fenced, stale_epoch.
CREATE FUNCTION book_batch(
    p_epoch bigint,
    p_event_ids bigint[], p_booking_ids uuid[], p_user_ids text[], p_keys text[], p_hashes bigint[],
    p_recheck boolean[], p_rivals boolean[],
    p_ords integer[], p_rows integer[], p_cols integer[])
RETURNS TABLE (ord integer, outcome text, booking_id uuid, created_us bigint, conflicts integer[])
LANGUAGE plpgsql ROWS 100 AS $$
#variable_conflict use_column
DECLARE
    guard  text := write_guard(p_epoch);
    now_us bigint := (extract(epoch FROM now()) * 1000000)::bigint;
    r      record;
BEGIN
    IF guard <> 'ok' THEN
        RETURN QUERY SELECT 0, guard, NULL::uuid, NULL::bigint, NULL::integer[];
        RETURN;
    END IF;

    FOR r IN
        WITH request AS (
            SELECT q.ord::integer AS ord, q.event_id, q.booking_id, q.user_id, q.key, q.hash,
                   q.recheck
              FROM unnest(p_event_ids, p_booking_ids, p_user_ids, p_keys, p_hashes, p_recheck,
                          p_rivals) WITH ORDINALITY
                   AS q (event_id, booking_id, user_id, key, hash, recheck, rival, ord)
        ), seat AS (   -- look: what stands in the way of each seat, before anything is written
            SELECT s.ord, s.idx, p_event_ids[s.ord] AS event_id, p_booking_ids[s.ord] AS booking_id,
                   (s.row - 1)::bigint * e.cols + s.col - 1 AS seat_no,
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
                   array_agg(seat_no) AS seat_nos, array_agg(obstacle) AS obstacles
              FROM (SELECT * FROM seat ORDER BY ord, idx) s GROUP BY ord
        ), claimed AS (   -- claim: in (event, seat) order
            INSERT INTO claims AS c (event_id, seat_no, booking_id, state)
            SELECT s.event_id, s.seat_no, s.booking_id, 'booked'
              FROM seat s JOIN looked l USING (ord)
             WHERE l.obstacle = 0 AND NOT p_rivals[s.ord]
             ORDER BY s.event_id, s.seat_no
            ON CONFLICT (event_id, seat_no) DO UPDATE
               SET booking_id = excluded.booking_id, state = 'booked', held_until = NULL
             WHERE c.state = 'held' AND c.held_until <= now()
            RETURNING c.event_id, c.seat_no, c.booking_id
        ), got AS (
            SELECT booking_id, count(*) AS count, array_agg(seat_no) AS seat_nos
              FROM claimed GROUP BY booking_id
        ), booked AS (   -- book: who got all
            INSERT INTO bookings AS b (event_id, booking_id, user_id, status, seats, idempotency_key,
                                       request_hash)
            SELECT q.event_id, q.booking_id, q.user_id, 'confirmed', l.seat_nos, q.key, q.hash
              FROM got g JOIN request q USING (booking_id) JOIN looked l ON l.ord = q.ord
             WHERE g.count = l.wanted
             ORDER BY q.event_id, q.key
            ON CONFLICT DO NOTHING
            RETURNING b.booking_id
        )
        SELECT q.ord, q.event_id, q.booking_id, q.key, q.hash,
               q.recheck OR q.key IS NOT NULL AS recheck,
               l.obstacle, l.obstacles, l.seat_nos, g.seat_nos AS got_seat_nos,
               b.booking_id IS NOT NULL AS booked
          FROM request q
          JOIN looked l USING (ord)
          LEFT JOIN got g ON g.booking_id = q.booking_id
          LEFT JOIN booked b ON b.booking_id = q.booking_id
         ORDER BY q.ord
    LOOP
        ord := r.ord;
        booking_id := NULL;
        created_us := NULL;
        conflicts := NULL;
        IF r.booked THEN
            outcome := 'booked';
            created_us := now_us;
            RETURN NEXT;
            CONTINUE;
        END IF;

        -- Give back what a request got without getting all: exactly those rows, because another
        -- transaction may hold the rest under the same booking_id (the same request, asked again).
        IF r.got_seat_nos IS NOT NULL THEN
            DELETE FROM claims c
             WHERE c.event_id = r.event_id AND c.seat_no = ANY (r.got_seat_nos)
               AND c.booking_id = r.booking_id;
        END IF;

        outcome := NULL;
        IF r.recheck THEN
            SELECT p.outcome, p.booking_id, p.created_us INTO outcome, booking_id, created_us
              FROM booking_replay(r.event_id, r.booking_id, r.key, r.hash) p;
        END IF;
        IF outcome IS NULL THEN
            IF r.obstacle > 0 THEN
                outcome := (ARRAY['seats_taken', 'unknown_seat', 'unknown_event'])[r.obstacle];
                conflicts := array_positions(r.obstacles, r.obstacle);
            ELSE   -- overlaps another of the batch, or lost a race after the look
                outcome := 'again';
            END IF;
        END IF;
        RETURN NEXT;
    END LOOP;
END $$;

-- The look of the strategies that use separate statements: one request, nothing written.
-- outcome: 'free' or as of book_batch. `seen` is the version of each seat, in request order: the
-- booking whose claim stands there (an expired hold), or NULL.
CREATE FUNCTION booking_look(
    p_epoch bigint, p_event_id bigint, p_booking_id uuid, p_key text, p_hash bigint,
    p_recheck boolean, p_rows integer[], p_cols integer[],
    OUT outcome text, OUT booking_id uuid, OUT created_us bigint, OUT conflicts integer[],
    OUT seat_nos integer[], OUT seen uuid[])
LANGUAGE plpgsql AS $$
DECLARE
    obstacle  integer;
    obstacles integer[];
BEGIN
    outcome := write_guard(p_epoch);
    IF outcome <> 'ok' THEN
        RETURN;
    END IF;
    SELECT max(s.obstacle), array_agg(s.obstacle ORDER BY s.idx),
           array_agg(s.seat_no ORDER BY s.idx), array_agg(s.seen ORDER BY s.idx)
      INTO obstacle, obstacles, seat_nos, seen
      FROM (SELECT q.idx, (q.row - 1)::bigint * e.cols + q.col - 1 AS seat_no, c.booking_id AS seen,
                   CASE WHEN e.event_id IS NULL THEN 3
                        WHEN q.row NOT BETWEEN 1 AND e.rows OR q.col NOT BETWEEN 1 AND e.cols THEN 2
                        WHEN c.state = 'booked' OR c.held_until > now() THEN 1
                        ELSE 0 END AS obstacle
              FROM unnest(p_rows, p_cols) WITH ORDINALITY AS q (row, col, idx)
              LEFT JOIN events e ON e.event_id = p_event_id
              LEFT JOIN claims c ON c.event_id = e.event_id
                                AND c.seat_no = (q.row - 1)::bigint * e.cols + q.col - 1
                                AND q.col BETWEEN 1 AND e.cols) s;
    outcome := NULL;
    IF p_recheck OR p_key IS NOT NULL THEN   -- after the look: what took the seats is found here
        SELECT p.outcome, p.booking_id, p.created_us INTO outcome, booking_id, created_us
          FROM booking_replay(p_event_id, p_booking_id, p_key, p_hash) p;
    END IF;
    IF outcome IN ('replayed', 'key_reused') THEN
        RETURN;
    END IF;
    outcome := CASE obstacle WHEN 0 THEN 'free' WHEN 1 THEN 'seats_taken'
                             WHEN 2 THEN 'unknown_seat' ELSE 'unknown_event' END;
    conflicts := CASE WHEN obstacle > 0 THEN array_positions(obstacles, obstacle) END;
END $$;

-- Creates an event under the next free id of the shard's ranges, in the order given; p_excluded are
-- ids inside them that are pinned elsewhere. outcome: 'created', 'map_full', 'fenced', 'stale_epoch'.
CREATE FUNCTION create_event(
    p_epoch bigint, p_creation_id uuid, p_name text, p_starts_us bigint, p_rows integer,
    p_cols integer, p_first bigint[], p_last bigint[], p_excluded bigint[],
    OUT outcome text, OUT event_id bigint)
LANGUAGE plpgsql AS $$
DECLARE
    -- In two steps, because a double cannot hold the microseconds of a far year.
    starts_at timestamptz := to_timestamp(p_starts_us / 1000000)
                             + p_starts_us % 1000000 * interval '1 microsecond';
BEGIN
    outcome := write_guard(p_epoch);
    IF outcome <> 'ok' THEN
        RETURN;
    END IF;
    PERFORM pg_advisory_xact_lock(1397900372, 2);   -- one creation at a time
    outcome := 'created';
    SELECT e.event_id INTO event_id FROM events e WHERE e.creation_id = p_creation_id;
    IF FOUND THEN
        RETURN;   -- asked again after a lost answer
    END IF;
    FOR i IN 1 .. cardinality(p_first) LOOP
        SELECT max(e.event_id) INTO event_id FROM events e
         WHERE e.event_id BETWEEN p_first[i] AND p_last[i];
        IF event_id = p_last[i] THEN
            CONTINUE;   -- the range is used up
        END IF;
        event_id := coalesce(event_id + 1, p_first[i]);
        WHILE event_id = ANY (p_excluded) AND event_id < p_last[i] LOOP
            event_id := event_id + 1;
        END LOOP;
        IF NOT event_id = ANY (p_excluded) THEN
            INSERT INTO events (event_id, name, starts_at, rows, cols, creation_id)
            VALUES (event_id, p_name, starts_at, p_rows, p_cols, p_creation_id);
            RETURN;
        END IF;
    END LOOP;
    outcome := 'map_full';
    event_id := NULL;
END $$;
