"""The API as clients see it: shapes, headers, stored answers.

Goal: every answer has the shape that docs/ARCHITECTURE.md promises, says which shard, node and map
version served it, and reads what was written. Method: a cluster of two shards with replicas; bodies
are compared field by field.

SPDX-License-Identifier: MIT
"""

import datetime
import json
import re
import uuid

from harness import short, wait_until
from origin import NODES, check_origin
from wire import Wire, booking, build

CLUSTER = {"replicas": 1, "settings": {"reads.seatmap_recent_ms": 0}}


# ---- events --------------------------------------------------------------------------------------


@short
def test_event_shape(cluster):
    """Created, read, and what Location names; times in UTC."""
    with Wire(cluster.http_port) as wire:
        for shard in ("alpha", "beta"):
            answer = wire.ask("POST", "/events", {
                "name": "Opening night", "startsAt": "2027-06-01T21:00:00+02:00", "rows": 100,
                "cols": 50, "shard": shard})
            assert answer.status == 201, answer
            event = answer.json()
            assert event == {"id": event["id"], "name": "Opening night",
                             "startsAt": "2027-06-01T19:00:00Z", "rows": 100, "cols": 50,
                             "shard": shard, "total": 5000, "available": 5000}
            assert answer.headers["location"] == f"/events/{event['id']}"
            assert answer.headers["content-type"] == "application/json"
            check_origin(answer, shard, False)
            assert (1 <= event["id"] <= 1000000) == (shard == "alpha"), event
            answer = wire.ask("GET", answer.headers["location"])
            assert answer.status == 200 and answer.json() == event, answer
            check_origin(answer, shard, True)
            booked = wire.ask("POST", "/book", booking(event["id"], [(1, 1), (9, 9)]))
            assert booked.status == 201
            cluster.wait_replicas()
            answer = wire.ask("GET", f"/events/{event['id']}")
            assert answer.json() == {**event, "available": 4998}, answer


def test_times_survive(cluster):
    """What POST tells is what GET reads, to the microsecond, from the first year to the last."""
    with Wire(cluster.http_port) as wire:
        for given, told in (("2027-06-01T19:00:00.5Z", "2027-06-01T19:00:00.500Z"),
                            ("2027-06-01t19:00:00.123456z", "2027-06-01T19:00:00.123456Z"),
                            ("2030-01-01T00:00:00+14:00", "2029-12-31T10:00:00Z"),
                            ("2028-02-29T23:59:59.999999-12:00", "2028-03-01T11:59:59.999999Z"),
                            ("1969-12-31T23:59:59.999999Z", "1969-12-31T23:59:59.999999Z"),
                            ("2500-06-01T12:00:00.123457Z", "2500-06-01T12:00:00.123457Z"),
                            ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
                            ("9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999999Z")):
            answer = wire.ask("POST", "/events", {"name": "E", "startsAt": given, "rows": 1,
                                                  "cols": 1})
            assert answer.status == 201, (given, answer)
            event = answer.json()
            assert same_time(event["startsAt"], told), (given, event)
            assert event["startsAt"].endswith("Z"), event
            read = wire.ask("GET", answer.headers["location"]).json()
            assert read == event, (given, read, event)


def same_time(one, two):
    """Two RFC 3339 times in UTC, however many digits."""
    def split(text):
        whole, _, fraction = text.rstrip("Z").partition(".")
        return whole, fraction.ljust(6, "0")
    return split(one) == split(two)


# ---- bookings ------------------------------------------------------------------------------------


@short
def test_booking_shape(cluster):
    """201 with the booking, its address, and the same when read back; seats in the order asked."""
    before = datetime.datetime.now(datetime.timezone.utc)
    for shard in ("alpha", "beta"):
        event = cluster.make_event(5, 5, shard)
        seats = [(3, 3), (1, 5), (5, 1)]
        answer = cluster.book(event, seats, "ü-1")
        assert answer.status == 201
        body = answer.json()
        assert body == {"bookingId": body["bookingId"], "eventId": event, "userId": "ü-1",
                        "status": "confirmed", "createdAt": body["createdAt"],
                        "seats": [{"row": row, "col": col} for row, col in seats]}
        assert uuid.UUID(body["bookingId"]).version == 7 and body["bookingId"].islower()
        created = datetime.datetime.fromisoformat(body["createdAt"].replace("Z", "+00:00"))
        now = datetime.datetime.now(datetime.timezone.utc)
        assert before - datetime.timedelta(seconds=1) <= created <= now
        with Wire(cluster.http_port) as wire:
            location = f"/events/{event}/bookings/{body['bookingId']}"
            read = wire.ask("GET", location)  # at once: a replica that lags is no excuse
            assert read.status == 200 and read.json() == body, read
            check_origin(read, shard, True)
            answer = wire.ask("POST", "/book", booking(event, [(2, 2)]))
            check_origin(answer, shard, False)
            assert answer.headers["location"].startswith(f"/events/{event}/bookings/")
            # The same id under another event is no booking.
            other = cluster.make_event(5, 5, shard)
            answer = wire.ask("GET", f"/events/{other}/bookings/{body['bookingId']}")
            assert (answer.status, answer.code) == (404, "unknown_booking"), answer
            for status in ("held", "cancelled", "expired", "failed"):
                cluster.sql(shard, f"UPDATE bookings SET status = '{status}'"
                                   f" WHERE booking_id = '{body['bookingId']}'")
                cluster.wait_replicas()
                assert wire.ask("GET", location).json() == {**body, "status": status}


@short
def test_conflict_shape(cluster):
    """409 names the seats that are taken, in the order asked, and books nothing."""
    event = cluster.make_event(3, 3, "beta")
    assert cluster.book(event, [(1, 1), (2, 2)]).status == 201
    cluster.sql("beta", f"INSERT INTO claims VALUES ({event}, gen_random_uuid(),"
                        f" now() + interval '1 hour', 8, 'held')")
    with Wire(cluster.http_port) as wire:
        answer = wire.ask("POST", "/book", booking(event, [(3, 3), (1, 2), (2, 2), (1, 1), (3, 1)]))
        assert answer.status == 409, answer
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json() == {
            "type": "/docs#seats_taken", "title": "Some of the seats are taken", "status": 409,
            "code": "seats_taken",
            "detail": "3 seats held or booked already; nothing was booked",
            "conflicts": [{"row": 3, "col": 3}, {"row": 2, "col": 2}, {"row": 1, "col": 1}]}
        check_origin(answer, "beta", False)
        cluster.wait_replicas()
        assert wire.ask("GET", f"/events/{event}/seats").json()["seats"] == ["x..", ".x.", "..h"]


def test_idempotency(cluster):
    """The stored answer again, word for word; another body, user or event under the key."""
    event = cluster.make_event(5, 5)
    with Wire(cluster.http_port) as wire:
        def book(key, seats, user="u-1", headers=None):
            headers = {"Idempotency-Key": key, **(headers or {})}
            return wire.ask("POST", "/book", booking(event, seats, user), headers)
        first = book("k", [(1, 1), (1, 2)])
        assert first.status == 201 and "idempotent-replayed" not in first.headers
        for _ in range(3):
            again = book("k", [(1, 1), (1, 2)])
            assert (again.status, again.body) == (201, first.body), again
            assert again.headers["idempotent-replayed"] == "true"
            assert again.headers["location"] == first.headers["location"]
        body = json.dumps(booking(event, [(1, 1), (1, 2)]), indent=3).encode()
        again = wire.ask("POST", "/book", body, {"Idempotency-Key": "k"})
        assert again.body == first.body, "white space does not make another body"
        for seats, user in (([(1, 1)], "u-1"), ([(1, 1), (1, 2)], "u-2"), ([(4, 4)], "u-1"),
                            ([(1, 1), (1, 2), (1, 3)], "u-1")):
            answer = book("k", seats, user)
            assert (answer.status, answer.code) == (422, "idempotency_key_reused"), answer
            assert "Idempotency-Key" in answer.json()["detail"]
        assert book("K", [(2, 1)]).status == 201, "keys differ by case"
        # A refusal is not stored: the same key may get its seat later.
        cluster.sql("alpha" if event <= 1000000 else "beta",
                    f"INSERT INTO claims VALUES ({event}, gen_random_uuid(), clock_timestamp() +"
                    f" interval '600 milliseconds', 24, 'held')")
        assert book("late", [(5, 5)]).status == 409
        wait_until(lambda: book("late", [(5, 5)]).status == 201, 5, what="the hold to be over")
        assert book("late", [(5, 5)]).headers["idempotent-replayed"] == "true"


# ---- headers of every answer ---------------------------------------------------------------------


def test_request_ids_and_map_version(cluster):
    """X-Request-Id comes back, or a fresh one; each answer names the map's version."""
    event = cluster.make_event()
    seen = set()
    with Wire(cluster.http_port) as wire:
        for method, path, body in (
                ("GET", "/healthz", None), ("GET", "/readyz", None), ("GET", "/metrics", None),
                ("GET", "/docs", None), ("GET", "/openapi.json", None), ("GET", "/events", None),
                ("GET", f"/events/{event}", None), ("GET", f"/events/{event}/seats", None),
                ("GET", "/nowhere", None), ("PUT", "/book", None), ("POST", "/book", b"{"),
                ("GET", "/events/0", None), ("OPTIONS", "/book", None),
                ("POST", "/book", booking(event, [(1, 1)])),
                ("POST", "/book", booking(event, [(1, 1)])),
                ("POST", "/book", booking(999997, [(1, 1)]))):
            answer = wire.ask(method, path, body, {"X-Request-Id": "abc-1.2_3"})
            assert answer.headers["x-request-id"] == "abc-1.2_3", answer
            assert answer.headers["seatgrid-map-version"] == "1", (path, answer)
            made = wire.ask(method, path, body).headers["x-request-id"]
            assert re.fullmatch("[0-9a-f]{16}", made) and made not in seen
            seen.add(made)
            if str(event) in path:
                assert "seatgrid-shard" in answer.headers, (path, answer)


def test_answers_of_a_pipeline_carry_their_own_origin(cluster):
    """Requests for two shards mixed on one connection: each answer names its own shard."""
    events = {shard: cluster.make_event(5, 100, shard) for shard in NODES}
    with Wire(cluster.http_port) as wire:
        asked = [(shard, n) for n in range(100) for shard in ("alpha", "beta")]
        wire.send(b"".join(build("POST", "/book", booking(events[shard], [(1, n + 1)]))
                           for shard, n in asked))
        for shard, n in asked:
            answer = wire.answer()
            assert answer.status == 201 and answer.headers["seatgrid-shard"] == shard, answer
            assert answer.json()["seats"] == [{"row": 1, "col": n + 1}], answer
            assert answer.json()["eventId"] == events[shard], answer
