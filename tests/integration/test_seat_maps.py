"""Seat maps as clients read them: three representations, entity tags, negotiation, bounds.

Goal: all representations say the same and what the database holds, 304 comes exactly while nothing
has changed, and a reader gets data as fresh as asked for. Method: holds and bookings placed on a
cluster with replicas; JSON compared field by field, protobuf decoded by hand.

SPDX-License-Identifier: MIT
"""

import gzip
import json
import re

from harness import short
from origin import FULL, PROTOBUF, check_origin
from wire import Wire, booking

CLUSTER = {"replicas": 1, "settings": {"reads.seatmap_recent_ms": 0}}


# ---- representations -----------------------------------------------------------------------------


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
    cluster.wait_replicas()
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
    cluster.wait_replicas()
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
            assert answer.status == 200 and answer.headers["content-type"] == media, (
                accept, answer)
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


# ---- conditions and bounds -----------------------------------------------------------------------


@short
def test_entity_tags(cluster):
    """304 exactly while nothing has changed; a tag for each representation."""
    event = cluster.make_event(50, 100, "alpha")
    cluster.wait_replicas()
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
                for given in ('"x"', tag.strip('"'), tag.upper() + "0", "", "W/", '"',
                              tag[:-1], ",,,", f'"{tag}"', f"{tag}0", f"0{tag}"):
                    answer = wire.ask("GET", path, None, {**headers, "If-None-Match": given})
                    assert answer.status == 200 and answer.body, (given, answer)
        assert len(tags) >= 5, "each representation has a tag of its own"
        assert wire.ask("POST", "/book", booking(event, [(50, 100)])).status == 201
        cluster.wait_replicas()
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
    cluster.wait_replicas()
    varying = {"date", "x-request-id", "seatgrid-staleness", "seatgrid-node"}
    with Wire(cluster.http_port) as wire:
        for path, headers in ((f"/events/{event}", {}), (f"/events/{event}/seats", {}),
                              (f"/events/{event}/seats", {"Accept-Encoding": "gzip"}),
                              (f"/events/{event}/seats", {"Accept": "a/b"}),
                              (f"/events/{event}/bookings/{booking_id}",
                               {}), ("/events?limit=3", {}),
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
                      "99999999999999999999ms", "01ms", "+1ms", "1ms, 2ms", "1e3ms",
                      "msx"):
            answer = wire.ask("GET", f"/events/{event}/seats", None,
                              {"SeatGrid-Max-Staleness": bound})
            assert (answer.status, answer.code) == (400, "malformed_request"), (bound, answer)
            assert "SeatGrid-Max-Staleness: must be like" in answer.json()["detail"], answer
