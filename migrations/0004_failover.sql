-- What a change of primary needs: fences that end by themselves, an epoch a timeline, durability.
--
-- A primary may be written to when it has ATTESTED itself: shard_meta says on which timeline it was
-- given its epoch, and that is the timeline it is on. A promotion begins a new timeline, so a new
-- primary is attested once, by a router or a switchover, and every attestation raises the epoch:
-- whoever still writes with the former one is refused.
--
-- A FENCE keeps every write out. A switchover's own has an end (fenced_until): if its operator dies,
-- the shard is written to again without anybody's help. Before it promotes another node it makes the
-- fence lasting ('infinity'); from then on only an attestation on a newer timeline, or the
-- switchover itself giving up, takes it away. An operator fences by hand, without an end and without
-- an id: shard_fence(NULL, NULL), and shard_unfence(NULL).
--
-- The functions that change shard_meta commit without waiting for a standby: a primary that has
-- none yet must be attested, too, and a switchover asks its target itself what it has replayed.
--
-- DURABILITY: a connection says what its writes promise, seatgrid.durability = 'sync' or 'async',
-- beside synchronous_commit = on or local. With 'sync' every answer that acknowledges a booking
-- comes behind a COMMIT that has waited for a standby, even one that tells of an earlier booking:
-- that may stand here alone, committed by a session whose wait for the standby was cut short.
--
-- SPDX-License-Identifier: MIT

ALTER TABLE shard_meta
    ADD COLUMN timeline          integer NOT NULL DEFAULT 0,   -- that the epoch was given on; 0: on none yet
    ADD COLUMN fence_id          uuid,           -- of the switchover that has fenced it
    ADD COLUMN fenced_until      timestamptz,
    ADD COLUMN handover_timeline integer,        -- of the last switchover that the consumer of the WAL
    ADD COLUMN handover_lsn      pg_lsn;         -- had followed to its end: the end of the old timeline.
                                                   -- Taken out by the consumer once it has followed on

-- The timeline of this server, a primary.
CREATE FUNCTION own_timeline() RETURNS integer
LANGUAGE sql AS $$
    SELECT ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::integer
$$;

-- The primary that a migration finds is the one in use.
UPDATE shard_meta SET timeline = own_timeline();

CREATE FUNCTION is_fenced(meta shard_meta) RETURNS boolean
LANGUAGE sql AS $$
    SELECT meta.fenced AND coalesce(meta.fenced_until > clock_timestamp(), true)
$$;

-- False if no standby is there that a COMMIT could wait for: it would hang, holding what it has
-- locked, until one comes. A user without pg_read_all_stats cannot see which of the standbys count,
-- so any will do then.
CREATE FUNCTION has_standby() RETURNS boolean
LANGUAGE sql AS $$
    SELECT EXISTS (SELECT FROM pg_stat_get_wal_senders() w
                    WHERE coalesce(w.sync_state, 'sync') IN ('sync', 'quorum'))
$$;

-- May this transaction write? Holds the fence shared until its end, so that fencing (which takes it
-- exclusively) waits for every write that was let in. Returns
--   'ok'
--   'fenced'
--   'stale_epoch'      the epoch is another one, or was given on another timeline than this one
--   'not_synchronous'  the connection asks for durability 'sync', and this server waits for no
--                      standby, or would wait for one that is not there
CREATE OR REPLACE FUNCTION write_guard(p_epoch bigint) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
    meta shard_meta;
BEGIN
    PERFORM pg_advisory_xact_lock_shared(1397900372, 1);   -- 'SEAT', 1: the fence
    SELECT * INTO meta FROM shard_meta;
    RETURN CASE WHEN NOT FOUND THEN 'fenced'
                WHEN meta.fenced AND coalesce(meta.fenced_until > clock_timestamp(), true) THEN 'fenced'
                WHEN meta.epoch <> p_epoch OR meta.timeline <> own_timeline() THEN 'stale_epoch'
                WHEN current_setting('seatgrid.durability', true) = 'sync'
                     AND (current_setting('synchronous_standby_names') = ''
                          OR current_setting('synchronous_commit') NOT IN ('on', 'remote_apply')
                          OR NOT has_standby()) THEN 'not_synchronous'
                ELSE 'ok' END;
END $$;

-- A transaction that writes nothing waits for no standby. This makes one with durability 'sync'
-- write a word that means nothing, so that its COMMIT returns when a standby has all up to it.
CREATE FUNCTION wait_at_commit() RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('seatgrid.durability', true) = 'sync' THEN
        PERFORM pg_logical_emit_message(true, 'seatgrid', '');
    END IF;
END $$;

-- As in 0002_functions.sql, and what is told again is told with the durability asked for.
CREATE OR REPLACE FUNCTION booking_replay(
    p_event_id bigint, p_booking_id uuid, p_key text, p_hash bigint,
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
        IF outcome = 'replayed' THEN
            PERFORM wait_at_commit();
        END IF;
    END IF;
END $$;

-- Likewise. Creates an event under the next free id of the shard's ranges, in the order given;
-- p_excluded are ids inside them that are pinned elsewhere. outcome: 'created', 'map_full', or the
-- guard's.
CREATE OR REPLACE FUNCTION create_event(
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
        PERFORM wait_at_commit();
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

-- Fences the shard for p_ms (NULL: without end), on the primary. outcome: 'ok', or 'busy' when
-- another fence is up. The same id again prolongs its own fence. Waits for every write that was let
-- in; the caller bounds that by lock_timeout.
CREATE FUNCTION shard_fence(p_fence_id uuid, p_ms bigint,
                            OUT outcome text, OUT epoch bigint, OUT timeline integer)
LANGUAGE plpgsql AS $$
DECLARE
    meta shard_meta;
BEGIN
    PERFORM set_config('synchronous_commit', 'local', true);
    PERFORM pg_advisory_xact_lock(1397900372, 1);
    SELECT * INTO STRICT meta FROM shard_meta FOR UPDATE;
    epoch := meta.epoch;
    timeline := own_timeline();
    IF is_fenced(meta) AND meta.fence_id IS DISTINCT FROM p_fence_id THEN
        outcome := 'busy';
        RETURN;
    END IF;
    UPDATE shard_meta SET fenced = true, fence_id = p_fence_id,
                          fenced_until = clock_timestamp() + p_ms * interval '1 millisecond';
    outcome := 'ok';
END $$;

-- Makes the fence lasting: the point of no return before a promotion. 'ok', or 'lost' when it is not
-- up any more, or another's.
CREATE FUNCTION shard_fence_keep(p_fence_id uuid) RETURNS text
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('synchronous_commit', 'local', true);
    PERFORM pg_advisory_xact_lock(1397900372, 1);
    UPDATE shard_meta m SET fenced_until = 'infinity'
     WHERE m.fence_id = p_fence_id AND is_fenced(m);
    RETURN CASE WHEN FOUND THEN 'ok' ELSE 'lost' END;
END $$;

-- Takes the fence away; nothing else changes, so who was refused is let in. 'ok', or 'lost' likewise.
CREATE FUNCTION shard_unfence(p_fence_id uuid) RETURNS text
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('synchronous_commit', 'local', true);
    PERFORM pg_advisory_xact_lock(1397900372, 1);
    UPDATE shard_meta m SET fenced = false, fence_id = NULL, fenced_until = NULL
     WHERE m.fence_id IS NOT DISTINCT FROM p_fence_id;
    RETURN CASE WHEN FOUND THEN 'ok' ELSE 'lost' END;
END $$;

-- Attests this server as the shard's primary on p_timeline: the epoch rises by one, the fence of the
-- switchover that led here goes. p_handover: the end of the old timeline, if the consumer of the WAL
-- has followed it up to there and its slot stands here; else NULL.
-- outcome: 'ok'; 'already' (somebody else has done it: the epoch is theirs); 'stale' (this server is
-- not on p_timeline); 'fenced' (by hand, not by a switchover: not ours to take away).
CREATE FUNCTION shard_attest(p_timeline integer, p_handover pg_lsn,
                             OUT outcome text, OUT epoch bigint)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    meta shard_meta;
BEGIN
    PERFORM set_config('synchronous_commit', 'local', true);
    PERFORM pg_advisory_xact_lock(1397900372, 1);
    SELECT * INTO STRICT meta FROM shard_meta FOR UPDATE;
    epoch := meta.epoch;
    IF own_timeline() <> p_timeline THEN
        outcome := 'stale';
    ELSIF meta.timeline = p_timeline THEN
        outcome := 'already';
    ELSIF meta.fenced AND meta.fence_id IS NULL THEN
        outcome := 'fenced';
    ELSE
        UPDATE shard_meta m
           SET epoch = m.epoch + 1, timeline = p_timeline, fenced = false, fence_id = NULL,
               fenced_until = NULL,
               handover_timeline = CASE WHEN p_handover IS NOT NULL THEN meta.timeline END,
               handover_lsn = p_handover
        RETURNING m.epoch INTO epoch;
        outcome := 'ok';
    END IF;
END $$;
