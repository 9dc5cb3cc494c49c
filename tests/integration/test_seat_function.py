"""The SQL functions that decide every sale, against a model that fits on a page.

Goal: book_batch(), booking_look(), write_guard() and create_event() do exactly what their comments
say, whatever comes in. Method: random batches (seed printed; SEATGRID_SEED repeats them) on a real
PostgreSQL; after each one the answers and both tables are compared with the model of seat_model.py.

SPDX-License-Identifier: MIT
"""

import os
import random
import threading
import uuid

from harness import SLOWDOWN, timeout, wait_until
from psql import Session, SqlError, literal
from seat_model import (EPOCH, GRIDS, PREPARE, RESET, Request, book, compare_answers,
                        compare_tables, plan, start_world)

CLUSTER = {"replicas": 0, "no_serve": True}
WORLDS = 24          # fresh tables each
BATCHES = 12         # in a world
SEED = int(os.environ.get("SEATGRID_SEED", random.SystemRandom().randrange(1 << 32)))


# ---- the property test ---------------------------------------------------------------------------


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
        off = rng.choice(((rows + 1, 1), (1, cols + 1), (rows + 1, cols + 1),
                          (1_000_000, 1_000_000),
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
            assert session.value(
                f"SELECT seats FROM bookings WHERE event_id = {event}") == [999_999]


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
