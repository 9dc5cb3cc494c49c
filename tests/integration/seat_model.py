"""What the SQL functions of migrations/0002_functions.sql should do, as a model that fits on a
page, and how to ask them.

    Request            one booking asked for
    Model.book(batch)  the answers of book_batch(), and what the tables hold afterwards
    plan(batch)        marks the rivals as router/batch.c does
    book(session, batch)            the same of the database
    compare_answers, compare_tables the one beside the other

SPDX-License-Identifier: MIT
"""

import json
import random
import uuid

from psql import literal

EPOCH = 7
RESET = f"""TRUNCATE events, claims, bookings; DELETE FROM shard_meta;
            INSERT INTO shard_meta (shard, epoch, fenced, timeline)
            VALUES ('alpha', {EPOCH}, false, own_timeline())"""
GRIDS = {1: (3, 4), 2: (1, 10), 9_000_000_000_000_000_000: (5, 3)}


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


def start_world(session):
    """Empty tables with a few small events, and their model."""
    session.run(RESET)
    model = Model()
    for event, (rows, cols) in GRIDS.items():
        session.run(f"INSERT INTO events (event_id, name, starts_at, rows, cols, creation_id)"
                    f" VALUES ({event}, 'e', now(), {rows}, {cols}, gen_random_uuid())")
    model.events = dict(GRIDS)
    return model


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
