"""The SQL functions that decide every sale, against a model that fits on a page.

Goal: book_batch(), booking_look(), write_guard() and create_event() do exactly what their comments
say, whatever comes in, and two of them at once never lock each other out. Method: random batches
(seed printed) on a real PostgreSQL; after each one the answers and both tables are compared with
the model. Then the same batches from several sessions at once, where only what must hold of any
order is checked.

SPDX-License-Identifier: MIT
"""

import contextlib
import json
import os
import random
import threading
import time
import uuid

from harness import SLOWDOWN, timeout, wait_until
from psql import Session, SqlError, literal

CLUSTER = {"replicas": 0, "no_serve": True}

EPOCH = 7
WORLDS = 24          # fresh tables each
BATCHES = 12         # in a world
SEED = int(os.environ.get("SEATGRID_SEED", random.SystemRandom().randrange(1 << 32)))
RACE_S = 4
RESET = f"""TRUNCATE events, claims, bookings; DELETE FROM shard_meta;
            INSERT INTO shard_meta (shard, epoch, fenced) VALUES ('alpha', {EPOCH}, false)"""


# ---- the model -----------------------------------------------------------------------------------


class Request:
    """One booking asked for, as book_batch() takes it."""

    def __init__(self, event, seats, user="u", key=None, body=0, booking_id=None, recheck=False):
        self.event, self.seats, self.user, self.key = event, seats, user, key
        self.body = body
        self.booking_id = booking_id or str(uuid.UUID(int=random.getrandbits(128)))
        self.recheck, self.rival = recheck, False

    def again(self, **changes):
        """The same request once more."""
        fields = {"event": self.event, "seats": self.seats, "user": self.user, "key": self.key,
                  "body": self.body, "booking_id": self.booking_id, "recheck": self.recheck}
        return Request(**{**fields, **changes})

    def __repr__(self):
        return (f"<{self.booking_id[:8]} event={self.event} seats={self.seats} key={self.key} "
                f"body={self.body} recheck={self.recheck} rival={self.rival}>")


class Model:
    """What the tables hold, and what a batch makes of them."""

    def __init__(self):
        self.events = {}    # id -> (rows, cols)
        self.claims = {}    # (event, seat_no) -> (booking_id, "booked" | "held" | "expired")
        self.bookings = {}  # (event, booking_id) -> {user, seats, key, body, old}

    def seat_no(self, event, seat):
        """Its number; None if the event has no such seat."""
        rows, cols = self.events[event]
        row, col = seat
        return (row - 1) * cols + col - 1 if 1 <= row <= rows and 1 <= col <= cols else None

    def look(self, request):
        """(outcome, conflicts) before anything is written; outcome None: all seats are free."""
        if request.event not in self.events:
            return "unknown_event", list(range(1, len(request.seats) + 1))
        unknown, taken = [], []
        for index, seat in enumerate(request.seats, 1):
            seat_no = self.seat_no(request.event, seat)
            if seat_no is None:
                unknown.append(index)
            elif self.claims.get((request.event, seat_no), (None, "expired"))[1] != "expired":
                taken.append(index)
        if unknown:
            return "unknown_seat", unknown
        return ("seats_taken", taken) if taken else (None, None)

    def replay(self, request):
        """(outcome, booking_id) of an earlier answer, or (None, None)."""
        found = self.bookings.get((request.event, request.booking_id)) and request.booking_id
        if not found and request.key is not None:
            for (event, booking_id), booking in self.bookings.items():
                if event == request.event and booking["key"] == request.key:
                    if booking["old"]:
                        booking["key"] = None
                        return "again", None
                    found = booking_id
        if not found:
            return None, None
        same = self.bookings[request.event, found]["body"] == request.body
        return ("replayed" if same else "key_reused"), found

    def key_is_taken(self, request):
        """Does a booking of the event have its key?"""
        return request.key is not None and any(
            event == request.event and booking["key"] == request.key
            for (event, _), booking in self.bookings.items())

    def book(self, batch):
        """The answers, in order: (outcome, booking_id, conflicts)."""
        looks = [self.look(request) for request in batch]
        booked = set()
        for index, request in enumerate(batch):
            if looks[index][0] or request.rival:
                continue
            places = [(request.event, self.seat_no(request.event, seat)) for seat in request.seats]
            if (request.event, request.booking_id) in self.bookings or self.key_is_taken(request):
                for place in places:  # claimed and given back: what stood there had expired
                    self.claims.pop(place, None)
                continue
            for place in places:
                self.claims[place] = (request.booking_id, "booked")
            self.bookings[request.event, request.booking_id] = {
                "user": request.user, "seats": [seat_no for _, seat_no in places],
                "key": request.key, "body": request.body, "old": False}
            booked.add(index)
        answers = []
        for index, request in enumerate(batch):
            outcome = found = conflicts = None
            if index in booked:
                answers.append(("booked", None, None))
                continue
            if request.recheck or request.key is not None:
                outcome, found = self.replay(request)
            if outcome is None:
                outcome, conflicts = looks[index]
            answers.append((outcome or "again", found, conflicts))
        return answers


def plan(batch):
    """Marks the rivals as router/batch.c does."""
    touched = set()
    for request in batch:
        things = [(request.event, *seat) for seat in request.seats]
        if request.key is not None:
            things.append((request.event, request.key))
        request.rival = any(thing in touched for thing in things)
        touched.update(things)


# ---- the database --------------------------------------------------------------------------------


ARRAYS = ("bigint", "uuid", "text", "text", "bigint", "boolean", "boolean", "integer", "integer",
          "integer")
PREPARE = """PREPARE book_batch (bigint, bigint[], uuid[], text[], text[], bigint[], boolean[],
                                 boolean[], integer[], integer[], integer[]) AS
             SELECT json_agg(t) FROM book_batch($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) t"""


def batch_call(batch, epoch=EPOCH):
    """The batch as one EXECUTE."""
    seats = [(ord_, row, col) for ord_, request in enumerate(batch, 1)
             for row, col in request.seats]
    columns = [[request.event for request in batch], [request.booking_id for request in batch],
               [request.user for request in batch], [request.key for request in batch],
               [request.body for request in batch], [request.recheck for request in batch],
               [request.rival for request in batch], *[list(column) for column in zip(*seats)]]
    arrays = (f"{literal(column)}::{kind}[]" for column, kind in zip(columns, ARRAYS))
    return f"EXECUTE book_batch ({epoch}, {', '.join(arrays)})"


def book(session, batch, epoch=EPOCH):
    """The answers of the database: dicts with ord, outcome, booking_id, created_us, conflicts."""
    return json.loads("".join(session.run(batch_call(batch, epoch))))


def compare_answers(batch, expected, answers):
    """Row by row."""
    assert [answer["ord"] for answer in answers] == list(range(1, len(batch) + 1)), answers
    for request, (outcome, booking_id, conflicts), answer in zip(batch, expected, answers):
        told = (answer["outcome"], answer["booking_id"], answer["conflicts"])
        assert answer["outcome"] == outcome, (request, (outcome, booking_id, conflicts), answer)
        if outcome in ("replayed", "key_reused"):
            assert answer["booking_id"] == booking_id, (request, booking_id, answer)
        if outcome in ("seats_taken", "unknown_seat"):
            assert answer["conflicts"] == conflicts, (request, conflicts, told)
        timed = outcome in ("booked", "replayed", "key_reused")
        assert (answer["created_us"] is not None) == timed, (request, answer)


def compare_tables(session, model):
    """The claims and bookings of the database are the model's."""
    claims = session.rows("""SELECT event_id, seat_no, booking_id, state = 'booked' AS booked,
                             coalesce(held_until <= now(), false) AS expired FROM claims""")
    claims = {(row["event_id"], row["seat_no"]): (
        row["booking_id"],
        "booked" if row["booked"] else "expired" if row["expired"] else "held") for row in claims}
    assert claims == model.claims, difference(claims, model.claims)
    bookings = session.rows("""SELECT event_id, booking_id, user_id, seats, idempotency_key, status,
                               request_hash FROM bookings""")
    assert all(row["status"] == "confirmed" for row in bookings)
    bookings = {(row["event_id"], row["booking_id"]): (row["user_id"], row["seats"],
                                                       row["idempotency_key"], row["request_hash"])
                for row in bookings}
    expected = {place: (booking["user"], booking["seats"], booking["key"], booking["body"])
                for place, booking in model.bookings.items()}
    assert bookings == expected, difference(bookings, expected)


def difference(database, model):
    """Only what differs."""
    return "\n".join(f"{key}: database {database.get(key)}, model {model.get(key)}"
                     for key in {**database, **model} if database.get(key) != model.get(key))


# ---- the property test ---------------------------------------------------------------------------


GRIDS = {1: (3, 4), 2: (1, 10), 9_000_000_000_000_000_000: (5, 3)}


def start_world(session):
    """Empty tables with a few small events, and their model."""
    session.run(RESET)
    model = Model()
    for event, (rows, cols) in GRIDS.items():
        session.run(f"INSERT INTO events (event_id, name, starts_at, rows, cols, creation_id)"
                    f" VALUES ({event}, 'e', now(), {rows}, {cols}, gen_random_uuid())")
    model.events = dict(GRIDS)
    return model


def random_request(rng, past):
    """A new request, or one of the past asked again in one way or another."""
    if past and rng.random() < 0.25:
        old = rng.choice(past)
        return rng.choice((
            lambda: old.again(recheck=True),                               # a lost answer
            lambda: old.again(booking_id=str(uuid.UUID(int=rng.getrandbits(128)))),
            lambda: old.again(booking_id=str(uuid.UUID(int=rng.getrandbits(128))),
                              body=rng.randrange(-5, 0)),                  # same key, other body
            lambda: old.again(recheck=True, body=rng.randrange(-5, 0)),
        ))()
    event = rng.choice([*GRIDS, *GRIDS, 3])
    rows, cols = GRIDS.get(event, (3, 3))
    count = min(rng.choice((1, 1, 1, 2, 2, 3, 5)), rows * cols)
    seats = [(n // cols + 1, n % cols + 1) for n in rng.sample(range(rows * cols), count)]
    if rng.random() < 0.12:
        off = rng.choice(((rows + 1, 1), (1, cols + 1), (rows + 1, cols + 1), (1_000_000, 1_000_000),
                          (1, 1_000_000), (1_000_000, 1)))
        seats.insert(rng.randrange(len(seats) + 1), off)
    key = f"key-{rng.randrange(5)}'\\" if rng.random() < 0.4 else None
    return Request(event, seats, f"u-{rng.randrange(9)}", key, rng.getrandbits(62) - (1 << 61),
                   str(uuid.UUID(int=rng.getrandbits(128))))


def random_batch(rng, past):
    """No two of a batch are the same booking: the router never asks one twice at a time."""
    batch = {}
    for _ in range(rng.choice((1, 2, 5, 12, 30))):
        request = random_request(rng, past)
        batch.setdefault(request.booking_id, request)
    batch = list(batch.values())
    plan(batch)
    for request in batch:  # two fingerprints may meet: a rival that is none
        request.rival = request.rival or rng.random() < 0.02
    return batch


def disturb(rng, session, model):
    """Holds that live and holds that are over appear; keys grow old."""
    statements = []
    for _ in range(rng.randrange(4)):
        event = rng.choice(list(GRIDS))
        rows, cols = GRIDS[event]
        place = (event, rng.randrange(rows * cols))
        if place in model.claims:
            continue
        expired = rng.random() < 0.6
        holder = str(uuid.UUID(int=rng.getrandbits(128)))
        model.claims[place] = (holder, "expired" if expired else "held")
        statements.append(f"INSERT INTO claims (event_id, booking_id, held_until, seat_no, state)"
                          f" VALUES ({event}, '{holder}', now() {'-' if expired else '+'}"
                          f" interval '1 hour', {place[1]}, 'held')")
    for (event, booking_id), booking in model.bookings.items():
        if booking["key"] is not None and not booking["old"] and rng.random() < 0.1:
            old = rng.random() < 0.7
            booking["old"] = old
            statements.append(f"UPDATE bookings SET created_at = now() - interval "
                              f"'{'24 hours 1 second' if old else '23 hours 58 minutes'}'"
                              f" WHERE event_id = {event} AND booking_id = '{booking_id}'")
    if statements:
        session.run("; ".join(statements))


def test_book_batch_is_the_model(cluster):
    """Thousands of random requests in random batches: answers and tables are the model's."""
    rng = random.Random(SEED)
    count, seen = 0, {}
    with Session(cluster.port("alpha-1")) as session:
        session.run(PREPARE)
        for world in range(WORLDS):
            model, past = start_world(session), []
            for number in range(BATCHES):
                disturb(rng, session, model)
                batch = random_batch(rng, past)
                expected = model.book(batch)
                try:
                    compare_answers(batch, expected, book(session, batch))
                    compare_tables(session, model)
                except AssertionError as error:
                    raise AssertionError(f"SEATGRID_SEED={SEED} world {world} batch {number}:\n"
                                         f"{error}\n" + "\n".join(map(repr, batch))) from error
                past += [request for request, answer in zip(batch, expected)
                         if answer[0] in ("booked", "again", "seats_taken")]
                count += len(batch)
                for outcome, _, _ in expected:
                    seen[outcome] = seen.get(outcome, 0) + 1
    print(f"      seed {SEED}, {count} requests: {seen}")
    missing = {"booked", "seats_taken", "unknown_seat", "unknown_event", "replayed", "key_reused",
               "again"} - set(seen)
    assert count > 2000 and not missing, (count, seen)


def test_booking_look_is_the_model(cluster):
    """What the strategies of separate statements see is what a batch would be told."""
    rng = random.Random(SEED + 1)
    seen = {}
    with Session(cluster.port("alpha-1")) as session:
        session.run(PREPARE)
        for _ in range(WORLDS // 3):
            model, past = start_world(session), []
            for _ in range(BATCHES // 2):
                disturb(rng, session, model)
                batch = random_batch(rng, past)
                model.book(batch)
                book(session, batch)
                past += batch
                for request in (random_request(rng, past) for _ in range(12)):
                    outcome = look_once(session, model, request)
                    seen[outcome] = seen.get(outcome, 0) + 1
                compare_tables(session, model)
    print(f"      seed {SEED}: {seen}")
    missing = {"free", "seats_taken", "unknown_seat", "unknown_event", "replayed",
               "key_reused"} - set(seen)
    assert not missing, seen


def look_once(session, model, request):
    """One booking_look, compared; gives the outcome."""
    outcome = found = None
    if request.recheck or request.key is not None:
        outcome, found = model.replay(request)  # an old key is set free on the way
    conflicts = None
    if outcome in (None, "again"):
        outcome, conflicts = model.look(request)
    outcome = outcome or "free"
    rows, cols = zip(*request.seats)
    (answer,) = session.rows(
        f"SELECT * FROM booking_look({EPOCH}, {request.event}, '{request.booking_id}', "
        f"{literal(request.key)}, {request.body}, {literal(request.recheck)}, "
        f"{literal(rows)}, {literal(cols)})")
    assert answer["outcome"] == outcome, (SEED, request, outcome, answer)
    assert answer["booking_id"] == found or outcome not in ("replayed", "key_reused"), answer
    if outcome in ("seats_taken", "unknown_seat"):
        assert answer["conflicts"] == conflicts, (SEED, request, conflicts, answer)
    if outcome == "free":
        seat_nos = [model.seat_no(request.event, seat) for seat in request.seats]
        assert answer["seat_nos"] == seat_nos, (request, answer)
        assert answer["seen"] == [model.claims.get((request.event, seat_no), (None,))[0]
                                  for seat_no in seat_nos], (request, answer)
    return outcome


# ---- single cases --------------------------------------------------------------------------------


def test_a_hold_is_free_the_moment_it_is_over(cluster):
    """No sweeper runs: the database's clock alone frees a seat."""
    with Session(cluster.port("alpha-1")) as session:
        session.run(PREPARE)
        start_world(session)
        session.run("INSERT INTO claims VALUES (1, gen_random_uuid(),"
                    " clock_timestamp() + interval '400 milliseconds', 5, 'held')")
        seat = [(2, 2)]
        assert book(session, [Request(1, seat)])[0]["outcome"] == "seats_taken"
        wait_until(lambda: session.value("SELECT held_until <= clock_timestamp() AS o FROM claims"),
                   5, every=0.01)
        assert book(session, [Request(1, seat)])[0]["outcome"] == "booked"
        assert session.rows("SELECT state, held_until FROM claims") == [
            {"state": "booked", "held_until": None}]


def test_seat_numbers_of_the_largest_grids(cluster):
    """The last seat of a million, as one row, one column and a square; one further is unknown."""
    with Session(cluster.port("alpha-1")) as session:
        session.run(PREPARE)
        session.run(RESET)
        for event, (rows, cols) in {1: (1, 1_000_000), 2: (1_000_000, 1), 3: (1000, 1000)}.items():
            session.run(f"INSERT INTO events (event_id, name, starts_at, rows, cols, creation_id)"
                        f" VALUES ({event}, 'e', now(), {rows}, {cols}, gen_random_uuid())")
            last = Request(event, [(rows, cols)])
            answers = book(session, [last, Request(event, [(rows + 1, cols)]),
                                     Request(event, [(rows, cols + 1)]),
                                     Request(event, [(2147483647, 2147483647)]),
                                     Request(event, [(1, 1), (0, 1)])])
            assert [answer["outcome"] for answer in answers] == ["booked"] + ["unknown_seat"] * 4
            assert session.value(f"SELECT seats FROM bookings WHERE event_id = {event}") == [999_999]


def test_a_large_batch_of_many_seats(cluster):
    """1,024 bookings of four seats each go in one call."""
    with Session(cluster.port("alpha-1")) as session:
        session.run(PREPARE)
        session.run(RESET)
        session.run("INSERT INTO events (event_id, name, starts_at, rows, cols, creation_id)"
                    " VALUES (1, 'e', now(), 64, 64, gen_random_uuid())")
        batch = [Request(1, [(n // 16 + 1, n % 16 * 4 + col) for col in (4, 3, 2, 1)])
                 for n in range(1024)]
        plan(batch)
        answers = book(session, batch)
        assert all(answer["outcome"] == "booked" for answer in answers)
        assert session.value("SELECT count(DISTINCT seat_no) FROM claims") == 4096


# ---- several sessions ----------------------------------------------------------------------------


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


# ---- the fence and the epoch ---------------------------------------------------------------------


def outcomes_of_writes(session, epoch):
    """What each function says to a write under that epoch."""
    request = Request(1, [(1, 1)])
    return [book(session, [request], epoch)[0]["outcome"],
            session.value(f"SELECT outcome FROM booking_look({epoch}, 1, '{request.booking_id}',"
                          f" NULL, 0, true, ARRAY[1], ARRAY[1])"),
            session.value(f"SELECT outcome FROM create_event({epoch}, gen_random_uuid(), 'e', 0, 1,"
                          f" 1, ARRAY[1000], ARRAY[1000], '{{}}')"),
            session.value(f"SELECT write_guard({epoch})")]


def test_fence_and_epoch(cluster):
    """Fenced or with another epoch nothing is written, and that is all that is said."""
    with Session(cluster.port("alpha-1")) as session:
        session.run(PREPARE)
        start_world(session)
        assert outcomes_of_writes(session, EPOCH - 1) == ["stale_epoch"] * 4
        assert outcomes_of_writes(session, EPOCH + 1) == ["stale_epoch"] * 4
        session.run("UPDATE shard_meta SET fenced = true")
        assert outcomes_of_writes(session, EPOCH) == ["fenced"] * 4
        assert outcomes_of_writes(session, EPOCH - 1) == ["fenced"] * 4
        session.run("DELETE FROM shard_meta")
        assert outcomes_of_writes(session, EPOCH) == ["fenced"] * 4
        assert book(session, [Request(1, [(1, 1)])])[0]["ord"] == 0
        counts = session.rows("SELECT (SELECT count(*) FROM claims) AS c,"
                              " (SELECT count(*) FROM bookings) AS b,"
                              " (SELECT count(*) FROM events WHERE event_id = 1000) AS e")
        assert counts == [{"c": 0, "b": 0, "e": 0}], counts
        session.run(RESET.split(";")[-1])
        assert outcomes_of_writes(session, EPOCH)[3] == "ok"


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
        assert outcomes_of_writes(writer, EPOCH) == ["fenced"] * 4


# ---- events --------------------------------------------------------------------------------------


def create(session, ranges, excluded=(), creation_id=None, epoch=EPOCH):
    """(outcome, event_id)"""
    creation_id = creation_id or str(uuid.uuid4())
    excluded = literal(list(excluded)) if excluded else "'{}'"
    (row,) = session.rows(
        f"SELECT * FROM create_event({epoch}, '{creation_id}', 'An event', 1811876400000000, 2, 3,"
        f" {literal([first for first, _ in ranges])}, {literal([last for _, last in ranges])},"
        f" {excluded})")
    return row["outcome"], row["event_id"]


def test_events_fill_their_ranges_in_order(cluster):
    """Each id of each range once, pinned ones left out, then map_full."""
    with Session(cluster.port("alpha-1")) as session:
        session.run(RESET)
        ranges, excluded = [(10, 13), (5, 5), (100, 103), (7, 7)], [12, 100, 103, 7]
        got = [create(session, ranges, excluded) for _ in range(7)]
        assert got == [("created", event) for event in (10, 11, 13, 5, 101, 102)] + [
            ("map_full", None)], got
        assert create(session, ranges, excluded) == ("map_full", None)
        assert create(session, [(7, 7)], []) == ("created", 7)
        assert create(session, [(9223372036854775806, 9223372036854775807)]) == (
            "created", 9223372036854775806)
        assert create(session, [(9223372036854775806, 9223372036854775807)]) == (
            "created", 9223372036854775807)
        assert create(session, [(9223372036854775806, 9223372036854775807)]) == ("map_full", None)
        row = session.rows("SELECT * FROM events WHERE event_id = 5")[0]
        assert (row["name"], row["rows"], row["cols"]) == ("An event", 2, 3), row
        assert session.value("SELECT extract(epoch FROM starts_at)::bigint FROM events"
                             " WHERE event_id = 5") == 1811876400


def test_a_range_of_pins_only_is_full(cluster):
    """Every id of the range is pinned elsewhere."""
    with Session(cluster.port("alpha-1")) as session:
        session.run(RESET)
        assert create(session, [(1, 3)], [1, 2, 3]) == ("map_full", None)
        assert create(session, [(1, 3)], [1, 2]) == ("created", 3)
        assert create(session, [(1, 3)], [1, 2]) == ("map_full", None)


def test_a_creation_asked_again_is_one_event(cluster):
    """The same creation_id gives the same event, also when the map is full meanwhile."""
    with Session(cluster.port("alpha-1")) as session:
        session.run(RESET)
        creation_id = str(uuid.uuid4())
        assert create(session, [(1, 2)], (), creation_id) == ("created", 1)
        assert create(session, [(1, 2)], (), creation_id) == ("created", 1)
        assert create(session, [(1, 2)]) == ("created", 2)
        assert create(session, [(1, 2)]) == ("map_full", None)
        assert create(session, [(1, 2)], (), creation_id) == ("created", 1)
        assert session.value("SELECT count(*) FROM events") == 2


@timeout(60)
def test_events_created_at_once_differ(cluster):
    """Eight sessions create at the same time: no id twice, none left out, no deadlock."""
    port, each, threads = cluster.port("alpha-1"), 25, []
    got, errors = [], []
    with Session(port) as session:
        session.run(RESET)

        def work():
            try:
                with Session(port) as own:
                    for _ in range(each):
                        got.append(create(own, [(1, 150), (1000, 2000)], [77]))
            except SqlError as error:
                errors.append(error)
        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30 * SLOWDOWN)
        assert not errors, errors
        ids = sorted(event for _, event in got)
        assert all(outcome == "created" for outcome, _ in got)
        assert ids == [n for n in range(1, 151) if n != 77] + list(range(1000, 1051)), ids
