"""The API as clients see it: shapes, headers, representations, paging, placement, operation.

Goal: every endpoint answers in the shape that DESIGN.md section 8 promises, says which shard, node
and map version served it, and reads what was written. Method: a cluster of two shards with
replicas; bodies are compared field by field, protobuf is decoded by hand, holds are placed in SQL.

SPDX-License-Identifier: MIT
"""

import base64
import datetime
import gzip
import hashlib
import json
import re
import uuid

from harness import Cluster, http_request, short, wait_until
from wire import Wire, booking, build

CLUSTER = {"replicas": 1, "settings": {"reads.seatmap_recent_ms": 0}}

FULL = "application/vnd.seatgrid.full+json"
PROTOBUF = "application/x-protobuf"
NODES = {"alpha": ("alpha-1", "alpha-2"), "beta": ("beta-1", "beta-2")}


def check_origin(answer, shard, is_read):
    """The headers that tell where an answer comes from."""
    headers = answer.headers
    assert headers["seatgrid-shard"] == shard, answer
    assert headers["seatgrid-map-version"] == "1", answer
    if is_read:
        assert headers["seatgrid-node"] in NODES[shard], answer
        assert re.fullmatch(r"\d+ms", headers["seatgrid-staleness"]), answer
        assert int(headers["seatgrid-staleness"][:-2]) < 5000, answer
    else:
        assert "seatgrid-staleness" not in headers and "seatgrid-node" not in headers, answer


def fresh(cluster):
    """The replicas have what was written."""
    cluster.wait_replicas()


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
            fresh(cluster)
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


# ---- seat maps -----------------------------------------------------------------------------------


def event_with_all_states(cluster, rows, cols, shard="beta"):
    """An event with booked and held seats and one whose hold is over; gives id and the states."""
    event = cluster.make_event(rows, cols, shard)
    states = [["."] * cols for _ in range(rows)]
    booked = [(1, 2), (rows // 2 + 1, 1)]
    assert cluster.book(event, booked).status == 201
    for row, col in booked:
        states[row - 1][col - 1] = "x"
    held, over = (1, cols), (rows, cols - 1)
    for (row, col), when in ((held, "+"), (over, "-")):
        cluster.sql(shard, f"INSERT INTO claims VALUES ({event}, gen_random_uuid(), now() {when}"
                           f" interval '1 hour', {(row - 1) * cols + col - 1}, 'held')")
    states[held[0] - 1][held[1] - 1] = "h"
    fresh(cluster)
    return event, ["".join(row) for row in states]


def decode_varint(data, at):
    """(value, next)"""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def decode_seatmap(data):
    """message SeatMap of proto/seatgrid.proto, by hand: (event_id, rows, cols, states)."""
    fields, at = {}, 0
    while at < len(data):
        key, at = decode_varint(data, at)
        number, kind = key >> 3, key & 7
        assert number not in fields and number in (1, 2, 3, 4), number
        if kind == 0:
            fields[number], at = decode_varint(data, at)
        else:
            assert (number, kind) == (4, 2), key
            size, at = decode_varint(data, at)
            fields[number], at = data[at:at + size], at + size
    assert at == len(data)
    rows, cols, packed = fields[2], fields[3], fields[4]
    assert len(packed) == (rows * cols + 3) // 4
    states = ["." "h" "x"[packed[n // 4] >> 2 * (n % 4) & 3] for n in range(rows * cols)]
    for n in range(rows * cols, len(packed) * 4):
        assert packed[n // 4] >> 2 * (n % 4) & 3 == 0, "the last byte is filled up with zeros"
    return fields[1], rows, cols, ["".join(states[row * cols:(row + 1) * cols])
                                   for row in range(rows)]


@short
def test_seat_map_representations(cluster):
    """Compact, full and protobuf say the same, plain and compressed; an expired hold is free."""
    words = {".": "available", "h": "held", "x": "booked"}
    for rows, cols in ((3, 5), (2, 3), (1, 7), (40, 60)):
        event, states = event_with_all_states(cluster, rows, cols)
        with Wire(cluster.http_port) as wire:
            for coding in (None, "gzip"):
                bodies = {}
                for media in ("application/json", FULL, PROTOBUF):
                    headers = {"Accept": media}
                    if coding:
                        headers["Accept-Encoding"] = coding
                    answer = wire.ask("GET", f"/events/{event}/seats", None, headers)
                    assert answer.status == 200, answer
                    assert answer.headers["content-type"] == media, answer
                    assert answer.headers["vary"] == "Accept, Accept-Encoding"
                    assert answer.headers["cache-control"] == "no-cache"
                    check_origin(answer, "beta", True)
                    packed = answer.headers.get("content-encoding")
                    assert packed in (None, coding), answer
                    if rows * cols > 2000 and coding and media != PROTOBUF:
                        assert packed == "gzip", "a large body is compressed"
                    bodies[media] = gzip.decompress(answer.body) if packed else answer.body
                assert json.loads(bodies["application/json"]) == {
                    "eventId": event, "rows": rows, "cols": cols, "seats": states}
                assert json.loads(bodies[FULL]) == {"eventId": event, "seats": [
                    {"row": row, "col": col, "status": words[states[row - 1][col - 1]]}
                    for row in range(1, rows + 1) for col in range(1, cols + 1)]}
                assert decode_seatmap(bodies[PROTOBUF]) == (event, rows, cols, states)
        booked = sum(row.count("x") + row.count("h") for row in states)
        assert cluster.get(f"/events/{event}").json()["available"] == rows * cols - booked


def test_negotiation(cluster):
    """Accept and Accept-Encoding with weights, wildcards and nonsense."""
    event = cluster.make_event(50, 100)
    fresh(cluster)
    compact = "application/json"
    chosen = [(None, compact), ("", compact), ("*/*", compact), ("application/*", compact),
              (FULL, FULL), (PROTOBUF, PROTOBUF), ("APPLICATION/X-PROTOBUF", PROTOBUF),
              (f"{compact};q=0.5, {PROTOBUF}", PROTOBUF), (f"{PROTOBUF};q=0.1, */*;q=0.2", compact),
              (f"{FULL};q=0.9,{PROTOBUF};q=0.8", FULL), ("text/html, */*;q=0.1", compact),
              (f"text/html,{FULL}", FULL), (f"{compact};q=0, */*", FULL),
              (f"*/*;q=0.1, {FULL};q=1.000", FULL), ("application/json;charset=utf-8", compact),
              (f"{FULL};q=x, {PROTOBUF}", PROTOBUF), (" ,, " + PROTOBUF, PROTOBUF)]
    with Wire(cluster.http_port) as wire:
        for accept, media in chosen:
            headers = {} if accept is None else {"Accept": accept}
            answer = wire.ask("GET", f"/events/{event}/seats", None, headers)
            assert answer.status == 200 and answer.headers["content-type"] == media, (accept, answer)
        for accept in ("text/html", "application/json;q=0", "*/*;q=0", "image/*", "json", "a/b;q=1",
                       "application/xml, text/*", "x" * 3000, ";;;,,,;q", "application/json;q=2"):
            answer = wire.ask("GET", f"/events/{event}/seats", None, {"Accept": accept})
            assert (answer.status, answer.code) == (406, "not_acceptable"), (accept, answer)
            assert compact in answer.json()["detail"] and PROTOBUF in answer.json()["detail"]
            assert answer.headers["vary"] == "Accept, Accept-Encoding", answer
        for coding, packed in (("gzip", True), ("x-gzip", True), ("GZIP", True), ("*", True),
                               ("gzip;q=0.5, identity;q=0.1", True), ("br, gzip;q=0.001", None),
                               ("gzip;q=0", False), ("identity", False), ("br", False),
                               ("*;q=0, gzip", True), ("", False), ("gzip;q=x", False),
                               ("identity, gzip;q=0.2", False)):
            answer = wire.ask("GET", f"/events/{event}/seats", None, {"Accept-Encoding": coding})
            is_packed = answer.headers.get("content-encoding") == "gzip"
            assert answer.status == 200 and packed in (None, is_packed), (coding, answer)
            body = gzip.decompress(answer.body) if is_packed else answer.body
            assert json.loads(body)["cols"] == 100


@short
def test_entity_tags(cluster):
    """304 exactly while nothing has changed; a tag for each representation."""
    event = cluster.make_event(50, 100, "alpha")
    fresh(cluster)
    path, tags = f"/events/{event}/seats", {}
    with Wire(cluster.http_port) as wire:
        for media in ("application/json", FULL, PROTOBUF):
            for coding in ("identity", "gzip"):
                headers = {"Accept": media, "Accept-Encoding": coding}
                answer = wire.ask("GET", path, None, headers)
                tag = answer.headers["etag"]
                assert re.fullmatch(r'"[!-~]+"', tag) and not tag.startswith("W/"), tag
                tags[tag] = headers
                for given in (tag, f"W/{tag}", "*", f'"x", {tag}', f'"a,b" ,W/"c",{tag}'):
                    answer = wire.ask("GET", path, None, {**headers, "If-None-Match": given})
                    assert (answer.status, answer.body) == (304, b""), (given, answer)
                    assert answer.headers["etag"] == tag and "content-type" not in answer.headers
                    assert answer.headers["vary"] == "Accept, Accept-Encoding"
                    check_origin(answer, "alpha", True)
                for given in ('"x"', tag.strip('"'), tag.upper() + "0", "", "W/", '"', f"{tag[:-1]}",
                              ",,,", f'"{tag}"'):
                    answer = wire.ask("GET", path, None, {**headers, "If-None-Match": given})
                    assert answer.status == 200 and answer.body, (given, answer)
        assert len(tags) >= 5, "each representation has a tag of its own"
        assert wire.ask("POST", "/book", booking(event, [(50, 100)])).status == 201
        fresh(cluster)
        for tag, headers in tags.items():
            answer = wire.ask("GET", path, None, {**headers, "If-None-Match": tag})
            assert answer.status == 200 and answer.headers["etag"] not in tags, answer
        # Two events that look alike: the tag says nothing about the address, but the body does.
        for static in ("/openapi.json", "/docs"):
            answer = wire.ask("GET", static)
            again = wire.ask("GET", static, None, {"If-None-Match": answer.headers["etag"]})
            assert (again.status, again.body) == (304, b""), again
            assert "max-age" in answer.headers["cache-control"]


def test_head_is_get_without_a_body(cluster):
    """Same status, same headers, same length, nothing else."""
    event = cluster.make_event(20, 100)
    booking_id = cluster.book(event, [(1, 1)]).json()["bookingId"]
    fresh(cluster)
    varying = {"date", "x-request-id", "seatgrid-staleness", "seatgrid-node"}
    with Wire(cluster.http_port) as wire:
        for path, headers in ((f"/events/{event}", {}), (f"/events/{event}/seats", {}),
                              (f"/events/{event}/seats", {"Accept-Encoding": "gzip"}),
                              (f"/events/{event}/seats", {"Accept": "a/b"}),
                              (f"/events/{event}/bookings/{booking_id}", {}), ("/events?limit=3", {}),
                              ("/healthz", {}), ("/readyz", {}), ("/openapi.json", {}),
                              ("/docs", {}), ("/nowhere", {}), ("/events/0", {})):
            whole = wire.ask("GET", path, None, headers)
            head = wire.ask("HEAD", path, None, headers)
            assert head.status == whole.status and head.body == b"", path
            assert {name: value for name, value in head.headers.items() if name not in varying} \
                == {name: value for name, value in whole.headers.items() if name not in varying}
            assert int(head.headers["content-length"]) == len(whole.body) > 0, path
        assert wire.ask("HEAD", "/metrics").status == 200
        tag = wire.ask("HEAD", f"/events/{event}/seats").headers["etag"]
        answer = wire.ask("HEAD", f"/events/{event}/seats", None, {"If-None-Match": tag})
        assert answer.status == 304


def test_staleness_bounds(cluster):
    """A reader gets what it asks for: zero means the primary and so its own booking, at once."""
    event = cluster.make_event(1, 60, "alpha")
    with Wire(cluster.http_port) as wire:
        for col in range(1, 31):
            assert wire.ask("POST", "/book", booking(event, [(1, col)])).status == 201
            answer = wire.ask("GET", f"/events/{event}/seats", None,
                              {"SeatGrid-Max-Staleness": "0ms"})
            assert answer.headers["seatgrid-node"] == "alpha-1", answer
            told_ms = int(answer.headers["seatgrid-staleness"][:-2])  # counted from the question
            assert told_ms < 2000, answer
            assert answer.json()["seats"] == ["x" * col + "." * (60 - col)], answer
        nodes = set()
        for bound in ("5s", "3600s", "4000ms", "2s"):
            for _ in range(5):
                answer = wire.ask("GET", f"/events/{event}/seats", None,
                                  {"SeatGrid-Max-Staleness": bound})
                limit = int(bound.rstrip("ms")) * (1 if bound.endswith("ms") else 1000)
                assert int(answer.headers["seatgrid-staleness"][:-2]) <= limit, answer
                nodes.add(answer.headers["seatgrid-node"])
        assert "alpha-2" in nodes, nodes
        for bound in ("", "1", "-1ms", "1.5s", "ms", "250 ms", "3601s", "3600001ms", "1m", "0",
                      "99999999999999999999ms", "01ms", "+1ms", "1ms, 2ms", "1e3ms", "１ms"[1:] + "x"):
            answer = wire.ask("GET", f"/events/{event}/seats", None,
                              {"SeatGrid-Max-Staleness": bound})
            assert (answer.status, answer.code) == (400, "malformed_request"), (bound, answer)
            assert "SeatGrid-Max-Staleness: must be like" in answer.json()["detail"], answer


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
                fresh(cluster)
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
            "code": "seats_taken", "detail": "3 seats held or booked by another; nothing was booked",
            "conflicts": [{"row": 3, "col": 3}, {"row": 2, "col": 2}, {"row": 1, "col": 1}]}
        check_origin(answer, "beta", False)
        fresh(cluster)
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


# ---- paging --------------------------------------------------------------------------------------


def walk(wire, limit, meanwhile=None):
    """All pages: the events in order, and the sizes of the pages."""
    events, sizes, cursor = [], [], ""
    while True:
        answer = wire.ask("GET", f"/events?limit={limit}{cursor}")
        assert answer.status == 200, answer
        page = answer.json()
        assert set(page) == {"events", "nextCursor", "partial", "missing"}, page
        assert page["partial"] is False and page["missing"] == [], page
        assert answer.headers["seatgrid-map-version"] == "1"
        assert len(page["events"]) <= limit
        again = wire.ask("GET", f"/events?limit={limit}{cursor}").json()
        if meanwhile is None:
            assert again == page, "the same cursor gives the same page"
        events += page["events"]
        sizes.append(len(page["events"]))
        if page["nextCursor"] is None:
            return events, sizes
        assert page["events"], "a page before the last is not empty"
        cursor = f"&cursor={page['nextCursor']}"
        if meanwhile:
            meanwhile()


def test_paging_over_both_shards():
    """Every event once, in order of ids, whatever the page size, also while events are added."""
    with Cluster(replicas=1) as cluster, Wire(cluster.http_port) as wire:
        assert wire.ask("GET", "/events").json() == {"events": [], "nextCursor": None,
                                                     "partial": False, "missing": []}
        ids = []
        for n in range(24):
            shard = ("alpha", "beta", "alpha")[n % 3]
            ids.append(cluster.make_event(n + 1, 2, shard, f"Event {n}"))
        ids.sort()
        fresh(cluster)
        for limit in (1, 2, 3, 7, 8, 12, 16, 23, 24, 25, 100):
            events, sizes = walk(wire, limit)
            assert [event["id"] for event in events] == ids, (limit, events)
            assert all(size == limit for size in sizes[:-1]), (limit, sizes)
            assert sizes[-1] == (24 % limit or min(limit, 24)), (limit, sizes)
        for event in events:
            assert event == wire.ask("GET", f"/events/{event['id']}").json()
        assert len(wire.ask("GET", "/events").json()["events"]) == 20, "the default"
        before = set(ids)

        def add():
            ids.append(cluster.make_event(1, 1, ("alpha", "beta")[len(ids) % 2]))
            fresh(cluster)
        events, _ = walk(wire, 4, add)
        seen = [event["id"] for event in events]
        assert seen == sorted(set(seen)) and before <= set(seen) <= set(ids), seen


# ---- placement -----------------------------------------------------------------------------------


def counts(cluster):
    """Events on each shard."""
    return [int(cluster.value(shard, "SELECT count(*) FROM events")) for shard in ("alpha", "beta")]


@short
def test_events_land_where_there_is_room(cluster):
    """Unnamed: on the shard with fewer; named: there; unknown: refused and nothing made."""
    with Wire(cluster.http_port) as wire:
        def create(**fields):
            return wire.ask("POST", "/events", {"name": "E", "startsAt": "2030-06-01T19:00:00Z",
                                                "rows": 1, "cols": 1, **fields})
        for _ in range(5):
            assert create(shard="alpha").json()["shard"] == "alpha"
        wait_until(lambda: create().json()["shard"] == "beta", 5, what="beta to be chosen")
        alpha, beta = counts(cluster)
        for _ in range(abs(alpha - beta) + 60):
            create()
        alpha, beta = counts(cluster)
        assert abs(alpha - beta) <= 20, (alpha, beta)
        before = counts(cluster)
        for name in ("gamma", "alph", "Alpha", "alpha-1"):
            answer = create(shard=name)
            assert (answer.status, answer.code) == (422, "unknown_shard"), answer
        assert counts(cluster) == before


def test_small_maps_and_pins():
    """Pins are left out here and used there; full shards are passed over; a full map says so."""
    with Cluster(replicas=0) as cluster:
        path = cluster.var / "shardmap.cfg"
        text = path.read_text(encoding="utf-8")
        text = text[:text.index("ranges")].replace("map_version = 1", "map_version = 2")
        path.write_text(text + """
            ranges = ( { first = 1; last = 6; shard = "alpha"; },
                       { first = 7; last = 9; shard = "beta"; },
                       { first = 10; last = 11; shard = "alpha"; } );
            pins = ( { event = 2; shard = "beta"; }, { event = 6; shard = "beta"; },
                     { event = 9; shard = "alpha"; }, { event = 10; shard = "alpha"; } );
            """, encoding="utf-8")
        answer = cluster.admin("POST", "/admin/reload")
        assert answer.status == 200, answer
        wait_until(lambda: cluster.get("/healthz").headers["SeatGrid-Map-Version"] == "2", 5)
        made = {}
        body = {"name": "E", "startsAt": "2030-06-01T19:00:00Z", "rows": 2, "cols": 2}
        for shard, ids in (("alpha", [1, 3, 4, 5, 10, 11, 9]), ("beta", [7, 8, 2, 6])):
            got = []
            for _ in ids:
                answer = cluster.post("/events", {**body, "shard": shard})
                assert answer.status == 201, answer
                got.append(answer.json()["id"])
                made[got[-1]] = shard
            assert sorted(got) == sorted(ids), (shard, got)
            if shard == "alpha":  # full: whoever names no shard gets the other, two of its four
                answer = cluster.post("/events", {**body, "shard": "alpha"})
                assert (answer.status, answer.code) == (507, "map_full"), answer
                assert "alpha" == answer.headers["SeatGrid-Shard"], answer.headers
        for event, shard in made.items():
            answer = cluster.get(f"/events/{event}")
            assert answer.status == 200 and answer.headers["SeatGrid-Shard"] == shard, answer
            assert cluster.value(shard, f"SELECT count(*) FROM events WHERE event_id = {event}") \
                == "1"
            answer = cluster.book(event, [(1, 1)])
            assert answer.status == 201 and answer.headers["SeatGrid-Shard"] == shard, answer
            assert answer.headers["SeatGrid-Map-Version"] == "2"
        for fields in ({}, {"shard": "alpha"}, {"shard": "beta"}):
            answer = cluster.post("/events", {**body, **fields})
            assert (answer.status, answer.code) == (507, "map_full"), answer
        assert [event["id"] for event in cluster.get("/events").json()["events"]] == \
            sorted(made), "paging follows ids, not ranges"
        assert cluster.get("/events/12").status == 404


def test_full_shards_are_passed_over():
    """Unnamed events go on as long as any shard has an id left."""
    with Cluster(replicas=0) as cluster:
        path = cluster.var / "shardmap.cfg"
        text = path.read_text(encoding="utf-8")
        text = text[:text.index("ranges")].replace("map_version = 1", "map_version = 2")
        path.write_text(text + 'ranges = ( { first = 1; last = 3; shard = "alpha"; },'
                               ' { first = 4; last = 40; shard = "beta"; } );', encoding="utf-8")
        assert cluster.admin("POST", "/admin/reload").status == 200
        body = {"name": "E", "startsAt": "2030-06-01T19:00:00Z", "rows": 1, "cols": 1}
        answers = [cluster.post("/events", body) for _ in range(40)]
        assert [answer.status for answer in answers] == [201] * 40, answers
        assert sorted(answer.json()["id"] for answer in answers) == list(range(1, 41))
        answer = cluster.post("/events", body)
        assert (answer.status, answer.code) == (507, "map_full"), answer


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


# ---- operation -----------------------------------------------------------------------------------


SAMPLE = re.compile(r'([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (-?[0-9.e+-]+|\+Inf|NaN)$')
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\\\|\\"|\\n)*)"')


def parse_metrics(text):
    """{(name, ((label, value), ...)): float}, after checking the format 0.0.4 strictly."""
    samples, types, helped, order = {}, {}, set(), []
    assert text.endswith("\n")
    for line in text.splitlines():
        if line.startswith("# HELP "):
            name = line.split(" ", 3)[2]
            assert name not in helped, f"HELP {name} twice"
            helped.add(name)
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name not in types and kind in ("counter", "gauge", "histogram"), line
            types[name] = kind
        else:
            found = SAMPLE.match(line)
            assert found, line
            name, labels, value = found.groups()
            pairs = LABEL.findall(labels or "")
            assert ",".join(f'{key}="{value_}"' for key, value_ in pairs) == (labels or ""), line
            base = re.sub("_(bucket|sum|count)$", "", name) if name not in types else name
            assert base in types and base in helped, f"{line}: no TYPE or HELP before it"
            if not order or order[-1] != base:
                assert base not in order, f"{base}: its lines are not together"
                order.append(base)
            key = (name, tuple(pairs))
            assert key not in samples, f"{line}: twice"
            samples[key] = float(value)
            if types[base] == "counter":
                assert samples[key] >= 0, line
    check_histograms(samples, types)
    return samples


def check_histograms(samples, types):
    """Buckets rise, the last is +Inf and equals the count."""
    series = {}
    for (name, labels), value in samples.items():
        base = name[:-len("_bucket")]
        if name.endswith("_bucket") and types.get(base) == "histogram":
            rest = tuple(pair for pair in labels if pair[0] != "le")
            series.setdefault((base, rest), []).append((float(dict(labels)["le"]), value))
    assert series
    for (base, labels), buckets in series.items():
        bounds, values = zip(*buckets)
        assert list(bounds) == sorted(set(bounds)) and bounds[-1] == float("inf"), (base, bounds)
        assert list(values) == sorted(values), (base, labels, values)
        assert samples[base + "_count", labels] == values[-1], (base, labels)
        assert samples[base + "_sum", labels] >= 0


@short
def test_metrics(cluster):
    """Prometheus text that parses, with route, shard, node and outcome; counters that count."""
    event = cluster.make_event(10, 10, "beta")
    fresh(cluster)

    def scrape(port=cluster.http_port):
        answer = http_request(port, "GET", "/metrics")
        assert answer.status == 200
        assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        return parse_metrics(answer.body.decode())

    def total(samples, name, **labels):
        return sum(value for (sample, pairs), value in samples.items()
                   if sample == name and labels.items() <= dict(pairs).items())
    before = scrape()
    with Wire(cluster.http_port) as wire:
        tag = wire.ask("GET", f"/events/{event}/seats").headers["etag"]
        for n in range(10):
            wire.ask("POST", "/book", booking(event, [(1, n + 1)]), {"Idempotency-Key": f"m{n}"})
            wire.ask("POST", "/book", booking(event, [(1, n + 1)]))
            wire.ask("POST", "/book", booking(event, [(1, n + 1)]), {"Idempotency-Key": f"m{n}"})
            wire.ask("GET", "/nowhere")
            wire.ask("POST", "/book", b"{")
            wire.ask("GET", f"/events/{event}")
        assert wire.ask("GET", f"/events/{event}/seats", None, {"If-None-Match": "*"}).status == 304
        assert tag
        for _ in range(5):
            with Wire(cluster.http_port) as other:
                other.send(b"nonsense\r\n\r\n").answer()
    after = scrape()
    name = "seatgrid_http_requests_total"
    for count, labels in ((10, {"route": "POST /book", "shard": "beta", "outcome": "ok"}),
                          (10, {"route": "POST /book", "shard": "beta", "outcome": "seats_taken"}),
                          (10, {"route": "POST /book", "shard": "beta", "outcome": "replayed"}),
                          (10, {"route": "POST /book", "outcome": "malformed_json"}),
                          (10, {"route": "unmatched", "outcome": "not_found"}),
                          (10, {"route": "GET /events/{id}", "shard": "beta", "outcome": "ok"}),
                          (1, {"route": "GET /events/{id}/seats", "outcome": "not_modified"}),
                          (5, {"route": "refused", "outcome": "malformed_request"})):
        rise = total(after, name, **labels) - total(before, name, **labels)
        assert rise == count, (labels, rise)
        timed = "seatgrid_http_request_duration_seconds_count"
        assert total(after, timed, **labels) - total(before, timed, **labels) == count, labels
    nodes = {dict(pairs).get("node") for (sample, pairs) in after if sample == name}
    assert nodes & {"beta-1", "beta-2"}, nodes
    for (sample, pairs), value in before.items():
        if sample.endswith(("_total", "_count", "_bucket")):
            assert after[sample, pairs] >= value, f"{sample} {pairs} has fallen"
    wanted = {"seatgrid_http_connections", "seatgrid_batches_total", "seatgrid_db_connections",
              "seatgrid_batch_bookings_total", "seatgrid_node_up", "seatgrid_node_staleness_ms",
              "seatgrid_map_version", "seatgrid_redis_up", "process_resident_memory_bytes"}
    missing = wanted - {sample for sample, _ in after}
    assert not missing, missing
    assert total(after, "seatgrid_map_version") >= 1
    for node in ("alpha-1", "alpha-2", "beta-1", "beta-2"):
        assert total(after, "seatgrid_node_up", node=node) == 1, node
    assert parse_metrics(http_request(cluster.admin_port, "GET", "/metrics").body.decode())


@short
def test_health_and_readiness(cluster):
    """Alive is alive; ready names each shard."""
    answer = cluster.get("/healthz")
    assert (answer.status, answer.json()) == (200, {"status": "alive"})
    answer = cluster.get("/readyz")
    assert (answer.status, answer.json()) == (200, {"ready": True, "shards": [
        {"shard": shard, "readable": True, "writable": True} for shard in ("alpha", "beta")]})
    assert answer.headers["Cache-Control"] == "no-store"


def test_docs_page_works_offline(cluster):
    """One page, its script allowed by hash, and nothing loaded from elsewhere."""
    answer = cluster.get("/docs")
    page = answer.body.decode()
    assert answer.status == 200 and answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert page.lstrip().lower().startswith("<!doctype html>") and "</html>" in page
    loads = re.findall(r"""(?:src|href|action|data|poster|srcset)\s*=\s*["']?([^"'\s>]+)"""
                       r"""|url\(\s*["']?([^"')]+)|@import\s+["']?([^"';]+)""", page, re.I)
    outside = [load for group in loads for load in group
               if re.match(r"(https?:|//|ftp:|ws)", load.strip(), re.I)]
    assert not outside, outside
    assert not re.search(r"""(fetch|import|open|Worker|EventSource|WebSocket)\s*\(\s*["'`]"""
                         r"""(https?:|//)""", page), "the script asks other servers"
    assert "<iframe" not in page and "<object" not in page
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "http" not in policy, policy
    scripts = re.findall(r"<script[^>]*>(.*?)</script>", page, re.S)
    assert scripts and not re.findall(r"<script[^>]*\ssrc", page)
    for script in scripts:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy, policy
    assert not re.findall(r"<[a-zA-Z][^>]*\son[a-z]+\s*=", page), "the policy forbids such handlers"
    assert cluster.get("/openapi.json").json()["openapi"].startswith("3.1.")


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
