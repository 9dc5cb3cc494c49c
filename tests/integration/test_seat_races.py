"""Several sessions in the SQL functions at once: nobody waits in a circle, nothing is half done.

Goal: batches over the same seats and keys never deadlock, lose or double anything, whatever commits
or rolls back between two of their steps; the fence lets in nobody behind it. Method: sessions that
race for seconds, where only what must hold of any order is checked; and single interleavings held
still with locks and slow triggers.

SPDX-License-Identifier: MIT
"""

import contextlib
import os
import random
import threading
import time
import uuid

from harness import wait_until
from psql import Session
from seat_model import (EPOCH, PREPARE, RESET, Request, batch_call, book, plan, start_world)

CLUSTER = {"replicas": 0, "no_serve": True}
RACE_S = 4
SEED = int(os.environ.get("SEATGRID_SEED", random.SystemRandom().randrange(1 << 32)))


# ---- a race --------------------------------------------------------------------------------------


class Racer(threading.Thread):
    """Sends random batches over few seats until time is up; 'again' goes again, as a lane does."""

    def __init__(self, port, seed, until):
        super().__init__()
        self.rng, self.port, self.until = random.Random(seed), port, until
        self.answers, self.error = [], None

    def run(self):
        try:
            with Session(self.port) as session:
                session.run(PREPARE)
                self.race(session)
        except Exception as error:  # pylint: disable=broad-except
            self.error = error

    def race(self, session):
        """The loop."""
        waiting = []
        while time.monotonic() < self.until or waiting:
            while len(waiting) < 20 and time.monotonic() < self.until:
                waiting.append(self.request())
            plan(waiting)
            again = []
            for request, answer in zip(waiting, book(session, waiting)):
                if answer["outcome"] == "again":
                    again.append(request)
                else:
                    self.answers.append((request, answer))
            waiting = again

    def request(self):
        """One hot event is soon sold out; in the other, all racers want the same fresh seats and
        use the same fresh keys at the same moment."""
        rng = self.rng
        moment = int(1000 * (RACE_S - (self.until - time.monotonic())))  # ms since the start
        event = rng.choice((1, 2, 2, 2))
        if event == 1:
            numbers = rng.sample(range(50), rng.randrange(1, 6))
        else:
            numbers = rng.sample(range(8 * moment, 8 * moment + 200), rng.randrange(1, 6))
        return Request(event, [(n // 200 + 1, n % 200 + 1) for n in numbers],
                       f"u-{rng.randrange(99)}",
                       f"k-{4 * moment + rng.randrange(40)}" if rng.random() < 0.5 else None,
                       rng.choice((1, 2)), str(uuid.UUID(int=rng.getrandbits(128))))


def check_sales(session, answers):
    """What must hold of any order: claims and bookings fit, and so do answers and rows."""
    wrong = session.rows("""
        SELECT b.event_id, b.booking_id, b.seats, c.seats AS claimed FROM bookings b
          FULL JOIN (SELECT event_id, booking_id, array_agg(seat_no ORDER BY seat_no) AS seats
                       FROM claims GROUP BY 1, 2) c USING (event_id, booking_id)
         WHERE (SELECT array_agg(s ORDER BY s) FROM unnest(b.seats) s) IS DISTINCT FROM c.seats
         LIMIT 10""")
    assert not wrong, wrong
    rows = {row["booking_id"]: row for row in session.rows(
        "SELECT booking_id, user_id, cardinality(seats) AS count, idempotency_key, request_hash"
        " FROM bookings")}
    booked = {request.booking_id: request for request, answer in answers
              if answer["outcome"] == "booked"}
    assert set(rows) == set(booked), set(rows) ^ set(booked)
    for booking_id, request in booked.items():
        row = rows[booking_id]
        assert row["user_id"] == request.user and row["count"] == len(request.seats)
    for request, answer in answers:
        if answer["outcome"] in ("replayed", "key_reused"):
            row = rows[answer["booking_id"]]
            assert row["idempotency_key"] == request.key, (request, row)
            assert (row["request_hash"] == request.body) == (answer["outcome"] == "replayed")


def test_racing_batches_never_deadlock(cluster):
    """Four sessions want the same seats and keys for some seconds."""
    port = cluster.port("alpha-1")
    with Session(port) as session:
        session.run(RESET)
        for event, rows, cols in ((1, 1, 200), (2, 200, 200)):
            session.run(f"INSERT INTO events (event_id, name, starts_at, rows, cols, creation_id)"
                        f" VALUES ({event}, 'e', now(), {rows}, {cols}, gen_random_uuid())")
        until = time.monotonic() + RACE_S
        racers = [Racer(port, SEED + n, until) for n in range(4)]
        for racer in racers:
            racer.start()
        for racer in racers:
            racer.join(60)
        assert not any(racer.is_alive() for racer in racers), "a session hangs"
        assert not any(racer.error for racer in racers), (SEED, [racer.error for racer in racers])
        answers = [answer for racer in racers for answer in racer.answers]
        check_sales(session, answers)
        outcomes = {}
        for _, answer in answers:
            outcomes[answer["outcome"]] = outcomes.get(answer["outcome"], 0) + 1
        print(f"      seed {SEED}: {outcomes}")
        assert outcomes["booked"] > 100 and outcomes["seats_taken"] > 100, outcomes


# ---- keys in opposite order ----------------------------------------------------------------------


@contextlib.contextmanager
def slow_writes(port, what):
    """While the block runs each row written to bookings takes 30 ms, so that batches overlap."""
    with Session(port, user="postgres") as session:
        session.run(f"""CREATE OR REPLACE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
                        $$ BEGIN PERFORM pg_sleep(0.03); RETURN new; END $$;
                        CREATE TRIGGER slow BEFORE {what} ON bookings
                        FOR EACH ROW EXECUTE FUNCTION slow()""")
        try:
            yield
        finally:
            session.run("DROP TRIGGER slow ON bookings; DROP FUNCTION slow()")


KEYS = [f"k-{n}" for n in range(8)]


def meet_in_opposite_order(one, two, seats_of_one, seats_of_two):
    """Two batches with the same keys at the same time; gives both texts of answers."""
    for session, seats, keys in ((one, seats_of_one, KEYS), (two, seats_of_two, KEYS[::-1])):
        batch = [Request(3, [seat], key=key) for seat, key in zip(seats, keys)]
        plan(batch)
        session.send(batch_call(batch))
    return ["".join(session.receive()) for session in (one, two)]  # SqlError: deadlock detected


def start_big_world(session):
    """One event of 100 x 100 seats, number 3."""
    start_world(session)
    session.run("INSERT INTO events (event_id, name, starts_at, rows, cols, creation_id)"
                " VALUES (3, 'e', now(), 100, 100, gen_random_uuid())")


def test_new_keys_meet_without_a_deadlock(cluster):
    """Two batches bring the same new keys in opposite order: each key makes one booking."""
    port = cluster.port("alpha-1")
    with Session(port) as one, Session(port) as two:
        for session in (one, two):
            session.run(PREPARE)
        start_big_world(one)
        with slow_writes(port, "INSERT"):
            texts = meet_in_opposite_order(one, two, [(1, n + 1) for n in range(8)],
                                           [(2, n + 1) for n in range(8)])
        counts = [[text.count(f'"outcome":"{outcome}"') for outcome in ("booked", "replayed")]
                  for text in texts]
        assert sorted(counts) == [[0, 8], [8, 0]], texts
        assert one.value("SELECT count(*) FROM claims") == 8


def test_old_keys_are_freed_without_a_deadlock(cluster):
    """Two batches meet the same old keys in opposite order: none waits for the other in a circle.
    Whoever comes first only frees the keys, and may be so early that the other books."""
    port = cluster.port("alpha-1")
    with Session(port) as one, Session(port) as two:
        for session in (one, two):
            session.run(PREPARE)
        start_big_world(one)
        old = [Request(3, [(9, n + 1)], key=key) for n, key in enumerate(KEYS)]
        assert all(row["outcome"] == "booked" for row in book(one, old))
        one.run("UPDATE bookings SET created_at = created_at - interval '25 hours'")
        with slow_writes(port, "UPDATE"):
            texts = meet_in_opposite_order(one, two, [(1, n + 1) for n in range(8)],
                                           [(2, n + 1) for n in range(8)])
        again, booked = ([text.count(f'"outcome":"{outcome}"') for text in texts]
                         for outcome in ("again", "booked"))
        assert max(again) == 8 and sum(again) + sum(booked) == 16, texts
        assert sum(booked) == one.value("SELECT count(*) FROM bookings"
                                        " WHERE idempotency_key IS NOT NULL")


# ---- what commits meanwhile ----------------------------------------------------------------------


def wait_blocked(session, count=1):
    """Until that many sessions wait for a lock."""
    wait_until(lambda: session.value("SELECT count(*) FROM pg_locks WHERE NOT granted") >= count,
               10, every=0.01, what="a session to wait for a lock")


def test_one_booking_asked_by_two_sessions(cluster):
    """A router asks again while its first, lost question still runs: one booking, told to both."""
    port = cluster.port("alpha-1")
    with Session(port) as one, Session(port) as two:
        for session in (one, two):
            session.run(PREPARE)
        for end, outcome in (("COMMIT", "replayed"), ("ROLLBACK", "booked")):
            start_world(one)
            request = Request(1, [(1, 1), (2, 2)])
            one.run("BEGIN")
            assert book(one, [request])[0]["outcome"] == "booked"
            two.send(batch_call([request.again(recheck=True)]))
            wait_blocked(one)
            one.run(end)
            assert f'"outcome":"{outcome}"' in "".join(two.receive()), outcome
            check_sales(one, [(request, {"outcome": "booked"})])


def test_a_hold_made_meanwhile_is_respected(cluster):
    """Between the look and the claim somebody else's hold appears: it is not overwritten."""
    port = cluster.port("alpha-1")
    with Session(port) as one, Session(port) as two:
        two.run(PREPARE)
        start_world(one)
        one.run("BEGIN; INSERT INTO claims VALUES (1, gen_random_uuid(), now() + interval '1 hour',"
                " 5, 'held')")
        two.send(batch_call([Request(1, [(2, 2), (1, 1)])]))
        wait_blocked(one)
        one.run("COMMIT")
        assert '"outcome":"again"' in "".join(two.receive())
        claims = one.rows("SELECT seat_no, state FROM claims")
        assert claims == [{"seat_no": 5, "state": "held"}], claims


def test_a_loser_gives_back_only_its_own(cluster):
    """One seat of three is lost to a session that commits meanwhile: nothing stays claimed."""
    port = cluster.port("alpha-1")
    with Session(port) as one, Session(port) as two:
        for session in (one, two):
            session.run(PREPARE)
        start_world(one)
        winner = Request(1, [(2, 2)])
        one.run("BEGIN")
        assert book(one, [winner])[0]["outcome"] == "booked"
        two.send(batch_call([Request(1, [(3, 3), (2, 2), (1, 1)]), Request(1, [(1, 2)])]))
        wait_blocked(one)
        one.run("COMMIT")
        text = "".join(two.receive())
        assert '"outcome":"again"' in text and '"outcome":"booked"' in text, text
        claims = one.rows("SELECT seat_no FROM claims ORDER BY seat_no")
        assert [row["seat_no"] for row in claims] == [1, 5], claims


def test_a_look_finds_what_took_its_seats(cluster):
    """The same request under the same key commits while booking_look works: that is no conflict."""
    port = cluster.port("alpha-1")
    with Session(port) as one, Session(port) as two:
        two.run(PREPARE)
        start_world(one)
        one.run("BEGIN; ALTER FUNCTION booking_replay RENAME TO replay")  # seen by `one` alone
        one.run("""CREATE FUNCTION booking_replay(e bigint, b uuid, k text, h bigint, OUT outcome
                   text, OUT booking_id uuid, OUT created_us bigint) LANGUAGE plpgsql AS $$ BEGIN
                   SELECT * INTO outcome, booking_id, created_us FROM replay(e, b, k, h);
                   PERFORM pg_sleep(0.4); END $$""")
        one.send(f"SELECT outcome FROM booking_look({EPOCH}, 1, gen_random_uuid(), 'k', 5, false,"
                 f" ARRAY[1], ARRAY[1])")
        time.sleep(0.15)
        booked = book(two, [Request(1, [(1, 1)], key="k", body=5)])
        assert booked[0]["outcome"] == "booked", booked
        outcome = one.receive()
        assert outcome in (["free"], ["replayed"]), outcome
        one.run("ROLLBACK")


# ---- the fence -----------------------------------------------------------------------------------


def test_fencing_waits_for_writes_that_were_let_in(cluster):
    """Who fences gets the fence only when open writes have ended; writes behind it are refused."""
    port = cluster.port("alpha-1")
    fence = ("BEGIN; SELECT pg_advisory_xact_lock(1397900372, 1);"
             " UPDATE shard_meta SET fenced = true; COMMIT")
    with Session(port) as writer, Session(port) as fencer, Session(port) as late:
        for session in (writer, late):
            session.run(PREPARE)
        start_world(writer)
        writer.run("BEGIN")
        assert book(writer, [Request(1, [(1, 1)])])[0]["outcome"] == "booked"
        fencer.send(fence)
        wait_blocked(writer)
        late.send(batch_call([Request(1, [(1, 2)])]))
        wait_blocked(writer, 2)
        writer.run("COMMIT")
        fencer.receive()
        assert '"outcome":"fenced"' in "".join(late.receive())
        assert writer.value("SELECT count(*) FROM bookings") == 1
        assert book(writer, [Request(1, [(1, 3)])])[0]["outcome"] == "fenced"
