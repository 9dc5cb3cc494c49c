"""Whatever comes in: a clear answer that names what is wrong, and nothing is booked.

Goal: no bytes from outside can crash the server, confuse where a request ends, grow its memory,
book a seat or leave a client without an answer. Method: tables of bad requests on real sockets, as
bytes where a library would be too polite. Each has its status, its stable code and a word that the
detail must say; after each table the server still serves, and SQL shows that nothing was written.

SPDX-License-Identifier: MIT
"""

import contextlib
import json
import random
import re
import time

from harness import SLOWDOWN, VARIANT, short, wait_until
from wire import Closed, Wire, booking, build

REQUEST_TIMEOUT_MS = 1200 * SLOWDOWN
IDLE_TIMEOUT_MS = 2500 * SLOWDOWN
BODY_MAX = 262144
HEADER_MAX = 16384
CLUSTER = {"replicas": 0, "settings": {
    "workers": 2, "http.request_timeout_ms": REQUEST_TIMEOUT_MS,
    "http.idle_timeout_ms": IDLE_TIMEOUT_MS, "http.write_timeout_ms": 1000 * SLOWDOWN,
    "http.max_body_bytes": BODY_MAX, "http.max_header_bytes": HEADER_MAX,
    "http.max_connections": 1500, "reads.seatmap_recent_ms": 0}}

BIG = 9223372036854775807


@contextlib.contextmanager
def nothing_happens(cluster):
    """The block writes nothing to any shard, and the server is the same and well afterwards."""
    def state():
        return [cluster.sql(shard, "SELECT (SELECT count(*) FROM events),"
                                   " (SELECT count(*) FROM claims),"
                                   " (SELECT count(*) FROM bookings)")
                for shard in ("alpha", "beta")] + [cluster.pid("serve")]
    before = state()
    yield
    assert state() == before
    assert cluster.get("/readyz").status == 200


def check_problem(answer, status, code, says="", what=""):
    """A problem as documented, that says the word."""
    assert answer.status == status, (what, status, answer)
    assert answer.headers["content-type"] == "application/problem+json", (what, answer)
    problem = answer.json()
    assert problem["status"] == status and problem["code"] == code, (what, code, answer)
    assert problem["type"] == f"/docs#{code}" and problem["title"], (what, answer)
    assert re.search(says, problem.get("detail", "")), (what, says, answer)
    assert "x-request-id" in answer.headers, (what, answer)


def event_and_wire(cluster, rows=10, cols=10):
    """A fresh event and a connection."""
    return cluster.make_event(rows, cols, "alpha"), Wire(cluster.http_port)


# ---- bodies of POST /book ------------------------------------------------------------------------


def book_with(event, **changes):
    """A booking of one seat as a dict, with fields replaced; a field given as ... is left out."""
    body = {"eventId": event, "userId": "u-1", "seats": [{"row": 1, "col": 1}], **changes}
    return {name: value for name, value in body.items() if value is not ...}


def not_json(event):
    """[(body, a word of the detail)]: all malformed_json."""
    good = json.dumps(book_with(event)).encode()
    number = good.replace(b'"eventId": %d' % event, b'"eventId": %s')
    user = good.replace(b'"u-1"', b'"%s"')
    assert number != good != user
    return [
        (b"", "empty"), (b" ", "line"), (b"{", "line 1, column"), (b"[", "line"), (b"nul", "line"),
        (b"}", "line"), (b"{]", "line"), (good[:-1], "line"), (good[:20], "line"),
        (good + b"x", "end of file"), (good + good, "end of file"), (good + b"\0", "line"),
        (b"\xef\xbb\xbf" + good, "line"), (good.decode().encode("utf-16"), "line"),
        (good.decode().encode("utf-32"), "line"), (good.replace(b'"', b"'"), "line"),
        (good.replace(b"}]}", b"}],}"), "line"), (b"// x\n" + good, "line"),
        (b"\n\n\n  {,", "line 4, column"), (good.replace(b",", b",,"), "line"),
        (good.replace(b":", b"="), "line"), (b"1", "line"), (b'"x"', "line"), (b"null", "line"),
        (b"true", "line"), (number % b"NaN", "line"), (number % b"Infinity", "line"),
        (number % b"-", "line"), (number % b"01", "line"), (number % b"+1", "line"),
        (number % b"0x1", "line"), (number % b"1e400", "overflow"), (number % b"1.", "line"),
        (number % b".5", "line"), (number % b"-1e400", "overflow"),
        (number % b"9223372036854775808", "too big"), (number % b"18446744073709551616", "too big"),
        (number % b"18446744073709551617", "too big"), (number % b"99999999999999999999", "too big"),
        (number % b"-9223372036854775809", "too big negative"), (number % (b"9" * 5000), "too big"),
        (number % (b"1" * 200000), "too big"),
        (user % b"\xff", "decode"), (user % b"\xc0\xaf", "decode"), (user % b"\xed\xa0\x80", "decode"),
        (user % b"\xf4\x90\x80\x80", "decode"), (user % b"\xe2\x82", "decode"), (user % b"\x80", "dec"),
        (user % b"a\nb", "line"), (user % b"a\0b", "line"), (user % b"\\u0000", "line"),
        (user % b"\\ud800", "line"), (user % b"\\udc00x", "line"), (user % b"\\x41", "line"),
        (user % b"\\u12", "line"), (user.replace(b"}]}", b"}]") % b"x", "line"),
        (good.replace(b"{", b'{"eventId": 2, ', 1), "[Dd]uplicate"),
        (good.replace(b'"row"', b'"row": 1, "row"'), "[Dd]uplicate"),
        (good.replace(b"{", b'{"userId": "a", ', 1), "[Dd]uplicate"),
        (b"[" * 100000, "deeper than 8"), (b"[" * 100000 + b"]" * 100000, "deeper than 8"),
        (b'{"a":' * 30000, "deeper"), (b'{"a":' * 30000 + b"1" + b"}" * 30000, "deeper"),
        (good.replace(b'"u-1"', b"[" * 50 + b"]" * 50), "deeper"), (b"[{" * 20000, "deeper"),
    ]


@short
def test_bodies_that_are_no_json(cluster):
    """Broken, truncated, too deep, not UTF-8, numbers past 64 bits: malformed_json with the place.
    The connection goes on."""
    event, wire = event_and_wire(cluster)
    with nothing_happens(cluster), wire:
        for body, says in not_json(event):
            answer = wire.ask("POST", "/book", body)
            check_problem(answer, 400, "malformed_json", says, body[:80])
            detail = answer.json()["detail"]
            assert len(detail) < 240 and detail.isprintable(), detail
            check_problem(wire.ask("POST", "/events", body), 400, "malformed_json", "", body[:80])


def book_types(event):
    """[(body, word)]: all wrong_type."""
    seats = lambda *values: book_with(event, seats=list(values))  # noqa: E731
    cases = [([], "must be a JSON object"), ([1], "must be a JSON object"), ({}, "eventId: is miss")]
    cases += [(book_with(event, eventId=value), "eventId: must be an integer")
              for value in ("1", 1.0, 1.5, True, None, [], {}, [1], "")]
    cases += [(book_with(event, eventId=...), "eventId: is missing"),
              (book_with(event, seats=...), "seats: is missing"),
              (book_with(event, userId=...), "userId: is missing.*X-User-Id")]
    cases += [(book_with(event, userId=value), "userId: must be a string")
              for value in (1, None, True, [], {}, ["u"])]
    cases += [(book_with(event, seats=value), "seats: must be an array")
              for value in (None, 1, "1-1", {}, {"row": 1, "col": 1}, True)]
    cases += [(seats(value), r"seats\[0\]: must be an object") for value in (1, None, "a", [1, 1])]
    cases += [(seats({"row": 1, "col": 1}, {"row": value, "col": 1}),
               r"seats\[1\]\.row: must be an integer")
              for value in ("1", 1.0, None, True, [1], {})]
    cases += [(seats({"row": 1}), r"seats\[0\]\.col: is missing"),
              (seats({"col": 1}), r"seats\[0\]\.row: is missing"), (seats({}), r"row: is missing"),
              (seats({"row": 1, "col": 1, "price": 0}), r"seats\[0\]: unknown field 'price'"),
              (seats({"row": 1, "cool": 1}), "did you mean 'col'"),
              (seats({"Row": 1, "col": 1}), "did you mean 'row'"),
              (book_with(event, eventid=1), "unknown field 'eventid'; did you mean 'eventId'"),
              (book_with(event, seat=[]), "did you mean 'seats'"),
              (book_with(event, __proto__={}), "unknown field '__proto__'"),
              (book_with(event, **{"": 1}), "unknown field ''"),
              (book_with(event, **{"x" * 9000: 1}), "unknown field 'x{10}"),
              (book_with(event, **{"sé\u202e\n\x7f": 1}), r"unknown field 's\?"),
              (book_with(event, **{"%s%n": 1}), "unknown field '%s%n'")]
    return cases


def book_values(event):
    """[(body, code, word)]: all 422."""
    seats = lambda *places: book_with(  # noqa: E731
        event, seats=[{"row": row, "col": col} for row, col in places])
    cases = [(book_with(event, eventId=value), "invalid_value", f"eventId: .*is {value}")
             for value in (0, -1, -BIG, -BIG - 1)]
    cases.append((json.dumps(book_with(event)).replace(f": {event},", ": -0,").encode(),
                  "invalid_value", "eventId"))
    cases += [(book_with(event, userId=value), "invalid_value", "userId: must be 1 to 64 bytes")
              for value in ("", " ", "   ", "a\nb", "a\tb", "\x01", "a\x7f", "a\u0085b", "x" * 65,
                            "é" * 33, "x" * 60000)]
    for value in (0, -1, 1000001, 2147483647, 2147483648, 4294967297, BIG, -4294967295):
        cases += [(seats((1, 1), (value, 1)), "invalid_value", rf"seats\[1\]\.row: .*is {value}"),
                  (seats((1, value)), "invalid_value", rf"seats\[0\]\.col: .*is {value}")]
    many = [(1 + n // 10, 1 + n % 10) for n in range(21)]
    cases += [(seats(), "invalid_value", "seats: must name at least one"),
              (seats((2, 3), (2, 3)), "duplicate_seat", r"seats\[1\]: is seats\[0\] again.*row 2"),
              (seats((1, 1), (2, 2), (3, 3), (2, 2)), "duplicate_seat", r"seats\[3\]: is seats\[1\]"),
              (seats(*many), "too_many_seats", "at most 20 seats, names 21"),
              (seats(*[(1, 1)] * 5000), "too_many_seats", "names 5000"),
              (seats(*many[:19], many[0]), "duplicate_seat", r"seats\[19\]: is seats\[0\]")]
    return cases


@short
def test_bodies_of_wrong_types_and_values(cluster):
    """Each names the field, its place and what would be right."""
    event, wire = event_and_wire(cluster)
    with nothing_happens(cluster), wire:
        for body, says in book_types(event):
            check_problem(wire.ask("POST", "/book", body), 400, "wrong_type", says, str(body)[:200])
        for body, code, says in book_values(event):
            check_problem(wire.ask("POST", "/book", body), 422, code, says, str(body)[:200])


def test_seats_that_are_not_there(cluster):
    """Off the grid by one, by a million, in the largest event; only those seats are named, not
    one that is taken."""
    event, wire = event_and_wire(cluster, 3, 4)
    with wire:
        assert wire.ask("POST", "/book", booking(event, [(1, 1)])).status == 201
        with nothing_happens(cluster):
            for off in ((4, 1), (1, 5), (4, 5), (1000000, 1), (1, 1000000), (1000000, 1000000)):
                for seats in ([off], [(2, 2), off, (3, 3)], [(1, 1), off], [off, (1, 1)]):
                    answer = wire.ask("POST", "/book", booking(event, seats))
                    check_problem(answer, 422, "unknown_seat", "1 seat outside", str(seats))
                    assert answer.json()["conflicts"] == [{"row": off[0], "col": off[1]}], answer
            answer = wire.ask("POST", "/book", booking(event, [(2, 2), (1, 1)]))
            check_problem(answer, 409, "seats_taken", "1 seat held or booked")
            assert answer.json()["conflicts"] == [{"row": 1, "col": 1}]


def test_events_that_are_not_there(cluster):
    """In a range of either shard, and past all ranges."""
    with nothing_happens(cluster), Wire(cluster.http_port) as wire:
        for event, shard in ((999999, "alpha"), (2000000, "beta"), (2000001, None), (BIG, None),
                             (4294967297, None), (BIG - 1, None)):
            booking_id = "0190f3c2-7d1e-4c55-9e5a-3f0f6d1c2b7a"
            for answer in (wire.ask("POST", "/book", booking(event, [(1, 1)])),
                           wire.ask("GET", f"/events/{event}"),
                           wire.ask("GET", f"/events/{event}/seats"),
                           wire.ask("GET", f"/events/{event}/bookings/{booking_id}")):
                assert answer.status == 404, (event, answer)
                assert answer.code in ("unknown_event", "unknown_booking"), answer
                assert str(event) in answer.json()["detail"], answer
                assert answer.headers.get("seatgrid-shard") == shard, answer


def test_headers_of_a_booking(cluster):
    """User and key in headers: bounds, bytes, and a user who contradicts the body."""
    event, wire = event_and_wire(cluster)
    body, anonymous = book_with(event), book_with(event, userId=...)
    with wire, nothing_happens(cluster):
        for value in ("", " ", "x" * 65, "ü", "a\tb", "\xff"):
            check_problem(wire.ask("POST", "/book", anonymous, {"X-User-Id": value}), 400,
                          "malformed_request", "X-User-Id: must be 1 to 64", repr(value))
        check_problem(wire.ask("POST", "/book", body, {"X-User-Id": "u-2"}), 422, "invalid_value",
                      "userId: differs")
        for value in ("", "x" * 256, "é", "a\tb", "x" * 9000):
            check_problem(wire.ask("POST", "/book", body, {"Idempotency-Key": value}), 400,
                          "malformed_request", "Idempotency-Key: must be 1 to 255", repr(value)[:80])
        check_problem(wire.ask("POST", "/book", body,
                               {"Idempotency-Key": "a", "idempotency-Key": "b" * 255}), 400,
                      "malformed_request", "Idempotency-Key", "the joined key is too long")
        for value in ("text/plain", "application/x-www-form-urlencoded", "application/jsonx",
                      "application/json; charset=latin1", "multipart/form-data; boundary=x", "json",
                      "", "text/json", "application/problem+json", ";", "*/*"):
            for path in ("/book", "/events"):
                check_problem(wire.ask("POST", path, body, {"Content-Type": value}), 415,
                              "unsupported_media_type", "application/json", value)
    with Wire(cluster.http_port) as wire:
        for col, headers in enumerate((
                {"X-User-Id": "x" * 64}, {"Idempotency-Key": "x" * 255}, {"Idempotency-Key": "~ !"},
                {"Content-Type": "APPLICATION/JSON"}, {"X-User-Id": "u-1"},
                {"Content-Type": 'application/json;charset="UTF-8"'}), 1):
            fields = {"seats": [{"row": 2, "col": col}]}
            if headers.get("X-User-Id", "u-1") != "u-1":
                fields["userId"] = ...
            answer = wire.ask("POST", "/book", book_with(event, **fields), headers)
            assert answer.status == 201, (headers, answer)
        raw = build("POST", "/book", json.dumps(booking(event, [(3, 1)])).encode())
        assert b"Content-Type" not in raw
        assert wire.send(raw).answer().status == 201


# ---- bodies of POST /events ----------------------------------------------------------------------


def test_events_that_cannot_be_created(cluster):
    """Names, times, grids and shards that are none."""
    good = {"name": "E", "startsAt": "2030-06-01T19:00:00Z", "rows": 2, "cols": 2}
    wrong_type = [("name", 1), ("name", None), ("name", ...), ("name", ["E"]), ("startsAt", 2030),
                  ("startsAt", None), ("startsAt", ...), ("rows", "2"), ("rows", 2.0),
                  ("rows", None), ("rows", ...), ("cols", True), ("cols", ...), ("cols", [2]),
                  ("shard", 1), ("shard", None), ("shard", ["alpha"])]
    impossible = [("name", ""), ("name", " "), ("name", "x" * 201), ("name", "é" * 101),
                  ("name", "a\nb"), ("name", "a\x00b".replace("\x00", "\x01")), ("name", "\u009f"),
                  ("rows", 0), ("rows", -1), ("rows", 1000001), ("rows", 4294967298), ("rows", BIG),
                  ("cols", 0), ("cols", -BIG), ("cols", 1000001)]
    impossible += [("startsAt", text) for text in (
        "", "yesterday", "2030-06-01", "2030-06-01T19:00:00", "2030-02-30T19:00:00Z",
        "2030-13-01T19:00:00Z", "2030-06-01T25:00:00Z", "2030-06-01T19:60:00Z", "30-06-01T19:00:00Z",
        "2030-06-01T19:00:00+25:00", "2030-06-01T19:00:00Zx", "2030-6-1T19:00:00Z",
        "10000-01-01T00:00:00Z", "2030-06-01T19:00Z", "1" * 5000, "2030-06-01T19:00:00.Z",
        "２０３０-06-01T19:00:00Z", "2029-02-29T00:00:00Z")]
    with nothing_happens(cluster), Wire(cluster.http_port) as wire:
        def ask(**changes):
            body = {**good, **changes}
            return wire.ask("POST", "/events", {name: value for name, value in body.items()
                                                if value is not ...})
        for field, value in wrong_type:
            check_problem(ask(**{field: value}), 400, "wrong_type", f"^{field}: ", (field, value))
        for field, value in impossible:
            check_problem(ask(**{field: value}), 422, "invalid_value", f"^{field}: ",
                          (field, str(value)[:50]))
        for rows, cols in ((1001, 1000), (1000, 1001), (1000000, 1000000), (2, 500001)):
            check_problem(ask(rows=rows, cols=cols), 422, "invalid_value",
                          f"rows, cols: .*at most 1000000 seats, this {rows * cols}")
        for shard in ("gamma", "", "alph", "ALPHA", "x" * 64, "x" * 5000, "alpha ", "älpha", "*",
                      "alpha' --", "a\nb"):
            check_problem(ask(shard=shard), 422, "unknown_shard", "^shard: ", shard[:50])
        check_problem(ask(starts_at="x"), 400, "wrong_type", "unknown field 'starts_at'")
        check_problem(ask(row=1), 400, "wrong_type", "unknown field 'row'; did you mean 'rows'")


@short
def test_events_of_a_million_seats(cluster):
    """Created in milliseconds in any shape, booked at the last seat, and the map reads right."""
    for rows, cols in ((1000, 1000), (1, 1000000), (1000000, 1)):
        took = []
        for _ in range(3):  # the machine is shared: the best counts
            start = time.monotonic()
            event = cluster.make_event(rows, cols)
            took.append(time.monotonic() - start)
        assert min(took) < 1 * SLOWDOWN, f"creation has to take milliseconds: {took}"
        assert cluster.book(event, [(rows, cols), (1, 1)]).status == 201
        start = time.monotonic()
        answer = cluster.get(f"/events/{event}/seats")
        assert time.monotonic() - start < 5 * SLOWDOWN
        seats = "".join(answer.json()["seats"])
        assert seats == "x" + "." * 999998 + "x", (len(seats), seats.count("x"))
        assert len(answer.json()["seats"]) == rows
        assert cluster.get(f"/events/{event}").json()["available"] == 999998
        answer = cluster.get(f"/events/{event}/seats", {"Accept": "application/x-protobuf"})
        assert answer.status == 200 and 250000 <= len(answer.body) < 250064
        check = cluster.book(event, [(rows + 1 if rows < 1000000 else 1, cols + 1
                                      if cols < 1000000 else 1)])
        assert check.status in (409, 422), check


# ---- ids, queries and paths ----------------------------------------------------------------------


BAD_IDS = ("-1", "0", "+1", "01", "00", "1e3", "0x1", "1.0", "1,0", "abc", "NaN", "1%20", "%201",
           "9223372036854775808", "18446744073709551616", "18446744073709551617",
           "99999999999999999999", "-9223372036854775808", "1" * 500, "%D9%A1", "%EF%BC%91", "1;x=1",
           "1:", "1'", "%7B1%7D", "*", "null", "1%0", "~")


@short
def test_ids_in_paths(cluster):
    """Only plain decimal numbers are event ids, only 8-4-4-4-12 hex digits booking ids."""
    event, wire = event_and_wire(cluster)
    booking_id = cluster.book(event, [(1, 1)]).json()["bookingId"]
    with nothing_happens(cluster), wire:
        for bad in BAD_IDS:
            for path in (f"/events/{bad}", f"/events/{bad}/seats",
                         f"/events/{bad}/bookings/{booking_id}"):
                answer = wire.ask("GET", path)
                says = "percent" if bad == "1%0" else "event id in the path"
                check_problem(answer, 400, "malformed_request", says, path)
                if answer.headers.get("connection") == "close":
                    wire = Wire(cluster.http_port)
        for bad in ("x", "1", booking_id[:-1], booking_id + "0", booking_id.replace("-", ""),
                    "%7B" + booking_id + "%7D", booking_id[:-1] + "g", "0" * 500,
                    booking_id.replace("-", "_"), booking_id[:-1] + "%20"):
            check_problem(wire.ask("GET", f"/events/{event}/bookings/{bad}"), 400,
                          "malformed_request", "booking id in the path", bad)
        answer = wire.ask("GET", f"/events/{event}/bookings/{booking_id.upper()}")
        assert answer.status == 200 and answer.json()["bookingId"] == booking_id, answer
        unknown = "0190f3c2-7d1e-4c55-9e5a-3f0f6d1c2b7a"
        check_problem(wire.ask("GET", f"/events/{event}/bookings/{unknown}"), 404,
                      "unknown_booking", unknown)


def test_queries(cluster):
    """limit and cursor of GET /events."""
    with nothing_happens(cluster), Wire(cluster.http_port) as wire:
        for value in ("0", "-1", "101", "abc", "1e1", "+5", "05", "", "1.0", str(BIG + 1), "%31x",
                      "9" * 400, "%D9%A1"):
            check_problem(wire.ask("GET", f"/events?limit={value}"), 400, "malformed_request",
                          "limit: must be an integer from 1 to 100", value)
        for value in ("", "x", "AAAAAAAAAAA", "AAAAAAAAAAHChNCL", "AAAAAAAAAAHChNCK=", "A" * 16,
                      "AAAAAAAAAAHChNC%4C", "A" * 4000, "-" * 16, "________________", "%20" * 16):
            check_problem(wire.ask("GET", f"/events?cursor={value}"), 400, "malformed_request",
                          "cursor: must be the nextCursor", value)
        for query, says in (("limit=1&limit=2", "twice"), ("limit=%", "percent"),
                            ("limit=%zz", "percent"), ("a=%00", "control"), ("%ff=1", "UTF-8"),
                            ("a=%c0%af", "UTF-8"), ("a=%ed%a0%80", "UTF-8"), ("a=%0d%0a", "control"),
                            ("&".join(f"p{n}=1" for n in range(300)), "too many")):
            answer = wire.ask("GET", f"/events?{query}")
            check_problem(answer, 400, "malformed_request", says, query)
            wire.close()
            wire = Wire(cluster.http_port)
        for query in ("limit=%31", "", "&&limit=1&&", "unknown=x", "limit=100"):
            assert wire.ask("GET", f"/events?{query}").status == 200, query


PATHS_400 = ("/events/../healthz", "/../healthz", "/./healthz", "/healthz/.", "/healthz/..",
             "//healthz", "/events//1", "///", "/%2e%2e/healthz", "/events/%2e%2e/healthz",
             "/%2E/healthz", "/events/.%2e/healthz", "/healthz%00", "/healthz%00.json", "/%00",
             "/events%2f1", "/events%2F1", "/events%5c1", "/%5C", "/%ff", "/%c0%af", "/%c0%ae%c0%ae/",
             "/%e2%82", "/%", "/%z1", "/%2", "/a%0d%0aX:1", "/a%0a", "/%7f", "/%1b",
             "/healthz#top", "healthz", "", "/a\\b", "/a|b", '/a"b', "/<x>", "/{id}", "/a^b", "/`",
             "/ü", "/\xff", "*", "//", "http://", "http:///healthz", "ftp://x/healthz",
             "/events/1/seats/%2e%2e/%2e%2e/%2e%2e/etc/passwd")
PATHS_404 = ("/", "/healthz/", "/HEALTHZ", "/healthz%20", "/healthz;x=1", "/healthz;", "/event",
             "/events/", "/events/1/", "/events/1/seats/", "/events/1/bookings", "/book/1", "/...",
             "/..healthz", "/.hidden", "/healthz..", "/events/1/bookings/", "/%25", "/%2525",
             "/docs/", "/docs/index.html", "/openapi", "/favicon.ico", "/admin/reload", "/~",
             "/events;v=1", "/%E2%82%AC", "/healthz%3f", "/" + "a" * 9000, "/" + "%41" * 3000,
             "/events/1/seats/x")


@short
def test_path_tricks(cluster):
    """What could mean two things to two programs is 400, what is nowhere 404; never another file
    or another endpoint."""
    with nothing_happens(cluster):
        for path in PATHS_400:
            with Wire(cluster.http_port) as wire:
                check_problem(wire.ask("GET", path), 400, "malformed_request", "", path)
        with Wire(cluster.http_port) as wire:
            for path in PATHS_404:
                check_problem(wire.ask("GET", path), 404, "not_found", "/docs", path[:80])
            for path in ("/healthz", "/%68ealthz", "/healthz?", "/healthz?a=..//%2f", "/healthz?;=&",
                         "http://elsewhere.example/healthz", "HTTP://x/healthz"):
                assert wire.ask("GET", path).status == 200, path
        with Wire(cluster.http_port) as wire:
            check_problem(wire.ask("GET", "/" + "a" * HEADER_MAX), 414, "uri_too_long", "line")
            assert wire.closed()
        with Wire(cluster.http_port) as wire:
            wire.send(b"GET /" + b"a" * HEADER_MAX * 3)  # no end of the line in sight
            check_problem(wire.answer(), 414, "uri_too_long", "line")


# ---- where does a request end? -------------------------------------------------------------------


GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"
POST = b"POST /book HTTP/1.1\r\nHost: x\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
SMUGGLING = [  # (bytes, status, a word of the detail)
    (POST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{} ", 400, "two Content-Length"),
    (POST + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}", 400, "two Content-Length"),
    (POST + b"Content-Length: 2, 2\r\n\r\n{}", 400, "Content-Length"),
    (POST + b"Content-Length: +2\r\n\r\n{}", 400, "Content-Length"),
    (POST + b"Content-Length: -2\r\n\r\n{}", 400, "Content-Length"),
    (POST + b"Content-Length: 0x2\r\n\r\n{}", 400, "Content-Length"),
    (POST + b"Content-Length: 2 2\r\n\r\n{}", 400, "Content-Length"),
    (POST + b"Content-Length: \r\n\r\n{}", 400, "Content-Length is empty"),
    (POST + b"Content-Length: two\r\n\r\n{}", 400, "Content-Length"),
    (POST + b"Content-Length : 2\r\n\r\n{}", 400, "followed by a space"),
    (POST + b"Content-Length\t: 2\r\n\r\n{}", 400, "followed by a space"),
    (POST + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "both"),
    (POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", 400, "both"),
    (POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "two"),
    (POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 501, "chunked"),
    (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501, "chunked"),
    (POST + b"Transfer-Encoding: identity\r\n\r\n", 501, "chunked"),
    (POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501, "chunked"),
    (POST + b"Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", 501, "chunked"),
    (POST + b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n", 400, "control"),
    (POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400, "space"),
    (POST + b" Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "folded"),
    (POST + b"X: y\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "folded"),
    (b"POST /book HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "1.0"),
    (GET + b"X: a\r\n b\r\n\r\n", 400, "folded"), (GET + b"X: a\r\n\tb\r\n\r\n", 400, "folded"),
    (b"GET /healthz HTTP/1.1\r\n X: a\r\nHost: x\r\n\r\n", 400, "white space"),
    (b"GET /healthz HTTP/1.1\r\n\r\n", 400, "no Host"),
    (GET + b"Host: x\r\n\r\n", 400, "two Host"),
    (b"GET /healthz HTTP/1.1\r\nHost: a b\r\n\r\n", 400, "Host"),
    (b"GET /healthz HTTP/1.1\r\nHost: a/b\r\n\r\n", 400, "Host"),
    (GET.replace(b"\r\n", b"\n") + b"\n", 400, "bare LF"), (GET + b"\n", 400, "bare LF"),
    (GET + b"X: a\nY: b\r\n\r\n", 400, "bare LF|control"), (GET + b"X: a\rY: b\r\n\r\n", 400, "bare CR"),
    (GET + b"X: a\0b\r\n\r\n", 400, "NUL"), (GET + b"X: a\x01b\r\n\r\n", 400, "control"),
    (GET + b"X\0: a\r\n\r\n", 400, "no token"), (GET + b"X(: a\r\n\r\n", 400, "no token"),
    (GET + b": a\r\n\r\n", 400, "without a name"), (GET + b"no colon\r\n\r\n", 400, "space|colon"),
    (GET + b"nocolon\r\n\r\n", 400, "colon"), (GET + b"X\xc3\xa9: a\r\n\r\n", 400, "no token"),
    (GET + b"Expect: 200-ok\r\n\r\n", 400, "Expect"),
    (b"GET  /healthz HTTP/1.1\r\nHost: x\r\n\r\n", 400, ""),
    (b"GET /healthz  HTTP/1.1\r\nHost: x\r\n\r\n", 400, ""),
    (b"GET /healthz HTTP/1.1 \r\nHost: x\r\n\r\n", 400, ""),
    (b"GET\t/healthz HTTP/1.1\r\nHost: x\r\n\r\n", 400, ""),
    (b"GET /healthz\r\nHost: x\r\n\r\n", 400, "version"), (b"GET /healthz\r\n\r\n", 400, "version"),
    (b"GET /healthz http/1.1\r\nHost: x\r\n\r\n", 400, ""),
    (b"GET /healthz HTTP/1.10\r\nHost: x\r\n\r\n", 400, ""),
    (b"GET /healthz HTTP/11\r\nHost: x\r\n\r\n", 400, ""),
    (b"GET /healthz HTTP/2.0\r\nHost: x\r\n\r\n", 505, "HTTP/1.1"),
    (b"GET /healthz HTTP/0.9\r\nHost: x\r\n\r\n", 505, "HTTP/1.1"),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "HTTP/1.1"),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "TLS"),
    (b"\0\0\0\0\r\n\r\n", 400, ""), (b" GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", 400, ""),
    (b"\r\n\r\nGET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", 400, ""), (b"\nGET / HTTP/1.1\r\n", 400, ""),
    (b"G(T /healthz HTTP/1.1\r\nHost: x\r\n\r\n", 400, ""), (b"{}\r\n\r\n", 400, ""),
    (b"CONNECT x:1 HTTP/1.1\r\nHost: x:1\r\n\r\n", 501, "CONNECT"),
] + [(CHUNKED + tail, 400, "") for tail in (
    b"+2\r\n{}\r\n0\r\n\r\n", b"0x2\r\n{}\r\n0\r\n\r\n", b"-2\r\n{}\r\n0\r\n\r\n",
    b" 2\r\n{}\r\n0\r\n\r\n", b"2 \r\n{}\r\n0\r\n\r\n", b"2\n{}\r\n0\r\n\r\n", b"2\r{}\r\n0\r\n\r\n",
    b"\r\n{}\r\n0\r\n\r\n", b"g\r\n{}\r\n0\r\n\r\n", b"2\r\n{}0\r\n\r\n", b"2\r\n{}\n0\r\n\r\n",
    b"2\r\n{}x\r\n0\r\n\r\n", b"2;\0\r\n{}\r\n0\r\n\r\n", b"000000002\r\n{}\r\n0\r\n\r\n",
    b"10000000000000002\r\n{}\r\n0\r\n\r\n", b"2;a=b\n{}\r\n0\r\n\r\n", b"2\r\n{}\r\n0\r\nX y: z\r\n\r\n",
    b"2\r\n{}\r\n0\r\n X: y\r\n\r\n", b"2\r\n{}\r\n0\r\nX: y\n\r\n", b"2_0\r\n{}\r\n0\r\n\r\n")]


@short
def test_smuggling(cluster):
    """What two parsers could cut in two ways is refused, the connection is closed, and the request
    hidden behind it is never looked at."""
    event, wire = event_and_wire(cluster)
    wire.close()
    hidden = build("POST", "/book", book_with(event))
    with nothing_happens(cluster):
        for data, status, says in SMUGGLING:
            with Wire(cluster.http_port) as wire:
                wire.send(data + hidden)
                answer = wire.answer()
                code = {400: "malformed_request", 501: "not_implemented",
                        505: "http_version_not_supported"}[status]
                check_problem(answer, status, code, says, data)
                assert answer.headers["connection"] == "close", (data, answer)
                assert wire.closed(), (data, bytes(wire.data))


def test_what_is_unusual_but_fine(cluster):
    """HTTP that few clients send and that means one thing only."""
    event, wire = event_and_wire(cluster)
    body = json.dumps(booking(event, [(1, 1)])).encode()
    half = len(body) // 2
    chunks = b"%X;name=\"va\\\"lue\"\r\n%s\r\n%x\r\n%s\r\n0\r\nTrailer: x\r\n\r\n" % (
        half, body[:half], len(body) - half, body[half:])
    with wire:
        assert wire.send(CHUNKED + chunks).answer().status == 201
        assert wire.send(b"\r\n" + GET + b"\r\n").answer().status == 200  # RFC 9112 2.2
        assert wire.send(GET.replace(b"Host: x", b"hOsT:x\t ") + b"\r\n").answer().status == 200
        assert wire.send(GET + b"Content-Length: 3\r\n\r\nabc").answer().status == 200
        assert wire.send(GET.replace(b"1.1", b"1.7") + b"\r\n").answer().status == 200
        assert wire.send(GET + b"X:\r\nX: \xe9\xff\r\n\r\n").answer().status == 200
        assert wire.send(GET.replace(b"Host: x", b"Host:") + b"\r\n").answer().status == 200
        wire.send(POST + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body))
        assert wire.answer().status == 100
        assert wire.send(body).answer().status == 409
        for byte in GET + b"X: y\r\n\r\n":
            wire.send(bytes([byte]))
        assert wire.answer().status == 200
    for request, closes in ((b"GET /healthz HTTP/1.0\r\n\r\n", True),
                            (b"GET /healthz HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", False),
                            (GET + b"Connection: close\r\n\r\n", True),
                            (GET + b"Connection: x, CLOSE\r\n\r\n", True),
                            (GET + b"Connection: keep-alive\r\n\r\n", False)):
        with Wire(cluster.http_port) as wire:
            assert wire.send(request).answer().status == 200
            if closes:
                assert wire.closed(), request
            else:
                assert wire.ask("GET", "/healthz").status == 200, request
    with Wire(cluster.http_port) as wire:  # the client closes its side and still gets the answer
        wire.send(GET + b"\r\n").socket.shutdown(1)
        assert wire.answer().status == 200 and wire.closed()


# ---- too large, too slow, gone -------------------------------------------------------------------


@short
def test_oversize(cluster):
    """Bodies, headers and lines past their bounds are refused before they are taken in."""
    event, wire = event_and_wire(cluster)
    wire.close()
    good = json.dumps(book_with(event)).encode()
    with nothing_happens(cluster):
        for length in (BODY_MAX + 1, 10**9, 2**31, 2**32 + 10, 2**63, 2**64 + 5, 10**40):
            with Wire(cluster.http_port) as wire:
                wire.send(POST + b"Content-Length: %d\r\n\r\n" % length + good)
                check_problem(wire.answer(), 413, "body_too_large", "", length)
                assert wire.closed(), length
        for size in (BODY_MAX + 1, 0x7fffffff, 0xffffffff):
            with Wire(cluster.http_port) as wire:
                wire.send(CHUNKED + b"%x\r\n" % size + good)
                check_problem(wire.answer(), 413, "body_too_large", "", size)
                assert wire.closed(), size
        with Wire(cluster.http_port) as wire:  # many chunks, each of them small
            wire.send(CHUNKED)
            for _ in range(BODY_MAX // 4096 + 1):
                wire.send(b"1000\r\n" + b" " * 4096 + b"\r\n")
            check_problem(wire.answer(), 413, "body_too_large")
        with Wire(cluster.http_port) as wire:  # told before it is sent
            wire.send(POST + b"Expect: 100-continue\r\nContent-Length: 999999999\r\n\r\n")
            check_problem(wire.answer(), 413, "body_too_large")
        with Wire(cluster.http_port) as wire:
            wire.send(CHUNKED + b"2;" + b"x" * 100000 + b"\r\n{}\r\n0\r\n\r\n")
            check_problem(wire.answer(), 431, "headers_too_large", "extensions")
        with Wire(cluster.http_port) as wire:
            wire.send(CHUNKED + b"0\r\n" + b"X: y\r\n" * 50000)
            check_problem(wire.answer(), 431, "headers_too_large", "trailers")
        for header in (b"X: " + b"y" * HEADER_MAX + b"\r\n\r\n", b"X: " + b"y" * HEADER_MAX * 5,
                       b"X: y\r\n" * 101 + b"\r\n", b"y" * HEADER_MAX * 2):
            with Wire(cluster.http_port) as wire:
                check_problem(wire.send(GET + header).answer(), 431, "headers_too_large", "",
                              header[:20])
                assert wire.closed()
    with Wire(cluster.http_port) as wire:  # exactly as large as allowed
        padded = good + b" " * (BODY_MAX - len(good))
        assert wire.ask("POST", "/book", padded).status == 201
        assert wire.send(GET + b"X: y\r\n" * 99 + b"\r\n").answer().status == 200


@short
def test_half_sent_requests(cluster):
    """A request that does not arrive in time is told so; slow drops of it don't buy more time."""
    event, wire = event_and_wire(cluster)
    wire.close()
    body = json.dumps(book_with(event)).encode()
    halves = [b"G", GET, GET[:-1], POST + b"Content-Length: 50\r\n\r\n",
              POST + b"Content-Length: %d\r\n\r\n" % len(body) + body[:-1], CHUNKED,
              CHUNKED + b"2\r\n{}", CHUNKED + b"2\r\n{}\r\n0\r\n", b"\r\n"]
    bound = REQUEST_TIMEOUT_MS / 1000
    with nothing_happens(cluster), contextlib.ExitStack() as stack:
        wires = [stack.enter_context(Wire(cluster.http_port)) for _ in range(len(halves) + 1)]
        start = time.monotonic()
        for wire, half in zip(wires, halves):
            wire.send(half)
        slow = wires[-1]
        for byte in GET:
            slow.send(bytes([byte]))
            time.sleep(bound / 20)
            if time.monotonic() > start + bound * 1.5:
                break
        for wire, half in zip(wires, [*halves, GET[:9]]):
            answer = wire.answer()
            check_problem(answer, 408, "request_timeout", "in time", half)
            assert answer.headers["connection"] == "close"
            assert wire.closed(), half
        took = time.monotonic() - start
        assert bound * 0.9 < took < bound * 1.5 + 5 * SLOWDOWN, took


def test_idle_and_vanished_connections(cluster):
    """A silent connection is closed without a word; clients that vanish leave nothing behind."""
    event, idle = event_and_wire(cluster)
    busy = json.dumps(book_with(event, seats=[{"row": 9, "col": 9}])).encode()
    open_before = open_connections(cluster)
    start = time.monotonic()
    assert idle.ask("GET", "/healthz").status == 200
    pieces = [b"", b"G", GET, POST + b"Content-Length: 50\r\n\r\n{", GET + b"\r\n", CHUNKED + b"5\r\n",
              build("GET", f"/events/{event}/seats") * 20, build("POST", "/book", busy)]
    for n in range(600):
        wire = Wire(cluster.http_port)
        wire.send(pieces[n % len(pieces)])
        if n % 3 == 0:  # with a reset instead of a farewell
            wire.socket.setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")
        wire.close()
    assert idle.closed() and not idle.data
    assert IDLE_TIMEOUT_MS / 1000 * 0.9 < time.monotonic() - start
    idle.close()
    wait_until(lambda: open_connections(cluster) <= open_before, 10,
               what="the connections to be forgotten")
    assert cluster.get("/readyz").status == 200
    owners = cluster.sql("alpha", f"SELECT count(*) FROM bookings WHERE event_id = {event}")
    assert owners in ([("0",)], [("1",)]), owners


def open_connections(cluster):
    """To the API, as the server counts them."""
    return cluster.metric("seatgrid_http_connections", listener="http")


def test_clients_that_do_not_read(cluster):
    """Fifty maps of a megabyte asked for and not read: memory stays, the connection is cut."""
    event = cluster.make_event(1000, 1000)
    assert cluster.get(f"/events/{event}/seats").status == 200
    wait_until(lambda: open_connections(cluster) == 0, 10, what="earlier connections to go")
    before, worst = cluster.rss_bytes(), 0
    wires = [Wire(cluster.http_port, receive_buffer=4096) for _ in range(8)]
    for wire in wires:
        wire.send(build("GET", f"/events/{event}/seats") * 50)

    def all_cut():
        nonlocal worst
        worst = max(worst, cluster.rss_bytes() - before)
        return open_connections(cluster) == 0
    wait_until(all_cut, 15, every=0.1, what="clients that do not read to be cut off")
    assert cluster.get("/healthz").status == 200
    if VARIANT == "release":
        assert worst < 100e6, f"{worst / 1e6:.0f} MB for clients that do not read"
    for wire in wires:
        whole = 0
        try:
            for whole in range(50):
                wire.answer()
            raise AssertionError("a client that did not read got everything")
        except Closed:
            assert whole < 45, whole
        wire.close()


def test_more_connections_than_allowed(cluster):
    """Past the bound a new connection is closed at once; those that are open go on."""
    limit = CLUSTER["settings"]["http.max_connections"]
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(Wire(cluster.http_port)) for _ in range(limit + 60)]
        served = refused = 0
        for wire in wires:
            try:
                wire.send(GET + b"\r\n")
                served += wire.answer().status == 200
            except (Closed, ConnectionError):
                refused += 1
        assert refused >= 50 and served >= limit * 0.5, (served, refused)
    wait_until(lambda: cluster.get("/readyz").status == 200, 10, what="room again")


# ---- pipelines and long-lived connections --------------------------------------------------------


def mixed_requests(event, count, seed):
    """[(bytes, expected status)]: good and bad ones that all leave the connection open."""
    rng = random.Random(seed)
    seats = iter(range(count))

    def book():
        number = next(seats)
        return build("POST", "/book", booking(event, [(number // 100 + 1, number % 100 + 1)])), 201
    kinds = [book, book, lambda: (build("GET", "/healthz"), 200),
             lambda: (build("GET", f"/events/{event}/seats"), 200),
             lambda: (build("GET", f"/events/{event}"), 200),
             lambda: (build("GET", "/nowhere"), 404),
             lambda: (build("DELETE", "/book"), 405),
             lambda: (build("POST", "/book", b"{"), 400),
             lambda: (build("POST", "/book", booking(event, [(1, 101)])), 422),
             lambda: (build("POST", "/book", booking(999998, [(1, 1)])), 404),
             lambda: (CHUNKED + b"2\r\n{}\r\n0\r\n\r\n", 400),
             lambda: (build("GET", "/events?limit=0"), 400),
             lambda: (build("GET", f"/events/{event}/seats", None, {"Accept": "a/b"}), 406)]
    return [rng.choice(kinds)() for _ in range(count)]


@short
def test_pipelined_requests(cluster):
    """A hundred, then a thousand in one write: answers in order, each with its own request id."""
    event = cluster.make_event(20, 100)
    for count in (100, 1000):
        requests = mixed_requests(event, count, count)
        if count == 1000:
            event = cluster.make_event(20, 100)
            requests = mixed_requests(event, count, count)
        with Wire(cluster.http_port, timeout=60) as wire:
            wire.send(b"".join(
                data.replace(b"\r\n", b"\r\nX-Request-Id: r-%d\r\n" % n, 1)
                for n, (data, _) in enumerate(requests)))
            for n, (data, status) in enumerate(requests):
                answer = wire.answer()
                assert answer.headers["x-request-id"] == f"r-{n}", (n, data, answer)
                assert answer.status == status, (n, data, answer)
            assert not wire.data


def test_pipeline_ends_at_a_broken_request(cluster):
    """What came before is answered, what comes behind is not looked at."""
    event = cluster.make_event(1, 10)
    with Wire(cluster.http_port) as wire:
        wire.send(b"".join(build("POST", "/book", booking(event, [(1, col)])) for col in (1, 2))
                  + POST + b"Content-Length : 3\r\n\r\n"
                  + build("POST", "/book", booking(event, [(1, 3)])))
        assert [wire.answer().status for _ in range(3)] == [201, 201, 400]
        assert wire.closed()
    assert cluster.get(f"/events/{event}/seats").json()["seats"] == ["xx........"]


def test_keep_alive_for_thousands_of_requests(cluster):
    """One connection, 3,000 requests of every kind, one after the other."""
    event = cluster.make_event(40, 100)
    with Wire(cluster.http_port) as wire:
        for data, status in mixed_requests(event, 3000, 1):
            is_map = b"/seats " in data
            if is_map:
                data = build("GET", f"/events/{event}/seats", None, {"Accept-Encoding": "gzip"})
            answer = wire.send(data).answer()
            assert answer.status == (200 if is_map else status), (data, answer)


# ---- methods -------------------------------------------------------------------------------------


PATHS = {"/events": "GET, HEAD, POST, OPTIONS", "/book": "POST, OPTIONS",
         "/events/1": "GET, HEAD, OPTIONS", "/events/1/seats": "GET, HEAD, OPTIONS",
         "/events/1/bookings/0190f3c2-7d1e-4c55-9e5a-3f0f6d1c2b7a": "GET, HEAD, OPTIONS",
         "/healthz": "GET, HEAD, OPTIONS", "/readyz": "GET, HEAD, OPTIONS",
         "/metrics": "GET, HEAD, OPTIONS", "/openapi.json": "GET, HEAD, OPTIONS",
         "/docs": "GET, HEAD, OPTIONS"}


def test_methods(cluster):
    """405 with Allow for each method that a path has not, OPTIONS for all, HEAD where GET is."""
    with nothing_happens(cluster), Wire(cluster.http_port) as wire:
        for path, allow in PATHS.items():
            for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "TRACE", "get", "BREW",
                           "X" * 500):
                if method in allow.split(", "):
                    continue
                answer = wire.ask(method, path)
                if method == "HEAD":
                    assert answer.status == 405 and answer.headers["allow"] == allow, path
                    continue
                check_problem(answer, 405, "method_not_allowed", "not allowed here", (method, path))
                assert answer.headers["allow"] == allow, (method, path, answer)
            answer = wire.ask("OPTIONS", path)
            assert (answer.status, answer.headers["allow"]) == (204, allow), (path, answer)
        assert wire.ask("OPTIONS", "*").status == 204
        check_problem(wire.ask("OPTIONS", "/nowhere"), 404, "not_found")
        check_problem(wire.ask("DELETE", "/nowhere"), 404, "not_found")


# ---- memory --------------------------------------------------------------------------------------


def bad_burst(cluster, event, count):
    """That many bad requests of many kinds, most in pipelines, each tenth on a fresh connection."""
    polite = [build("POST", "/book", body) for body, _ in not_json(event) if len(body) < 20000]
    polite += [build("POST", "/book", body) for body, _ in book_types(event)]
    polite += [build("POST", "/book", body) for body, _, _ in book_values(event)]
    polite += [build("GET", path) for path in PATHS_404]
    polite += [build("GET", f"/events/{bad}/seats") for bad in BAD_IDS if bad != "1%0"]
    polite += [build("BREW", path) for path in PATHS]
    polite += [build("POST", "/book", b" " * 200000)]
    sent = 0
    while sent < count:
        with Wire(cluster.http_port) as wire:
            batch = [polite[(sent + n) % len(polite)] for n in range(90)]
            wire.send(b"".join(batch))
            for data in batch:
                answer = wire.answer()
                assert 400 <= answer.status < 500, (data[:200], answer)
        for n in range(10):
            with Wire(cluster.http_port) as wire:
                wire.send(SMUGGLING[(sent // 10 + n) % len(SMUGGLING)][0])
                assert wire.answer().status in (400, 501, 505)
        sent += 100


def test_memory_is_bounded(cluster):
    """20,000 bad requests leave the server as large as 4,000 did."""
    event = cluster.make_event()
    with nothing_happens(cluster):
        bad_burst(cluster, event, 4000)
        before = cluster.rss_bytes()
        bad_burst(cluster, event, 20000)
        grown = cluster.rss_bytes() - before
        print(f"      {before / 1e6:.1f} MB, grown by {grown / 1e6:.1f} MB")
        if VARIANT == "release":  # sanitizers keep what was freed
            assert grown < 6e6, f"{grown / 1e6:.1f} MB more"
        wait_until(lambda: open_connections(cluster) == 0, 10, what="all connections to go")


def test_long_log_lines_and_formats(cluster):
    """Request ids and names that look like formats or escapes arrive as they are, or are replaced
    whole; nothing of them is interpreted."""
    with Wire(cluster.http_port) as wire:
        for given in ("%s%n%x", "a b", "x" * 65, "ü", "../../x", "<script>", "", "a\tb", "a,b"):
            answer = wire.ask("GET", "/healthz", None, {"X-Request-Id": given})
            told = answer.headers["x-request-id"]
            assert told != given and re.fullmatch("[0-9a-f]{16}", told), (given, told)
        for given in ("x", "x" * 64, "A-b_c.9"):
            answer = wire.ask("GET", "/healthz", None, {"X-Request-Id": given})
            assert answer.headers["x-request-id"] == given
        name = '"</script>\\\' %s é 漢 \U0001f3ad \u2028 {}'
        body = {"name": name, "startsAt": "2030-06-01T19:00:00Z", "rows": 1, "cols": 1}
        answer = wire.ask("POST", "/events", body)
        assert answer.status == 201 and answer.json()["name"] == name, answer
        event = answer.json()["id"]
        assert wire.ask("GET", f"/events/{event}").json()["name"] == name
        user = "o'Brien; DROP TABLE claims; -- \\ \" é 漢"
        answer = wire.ask("POST", "/book", booking(event, [(1, 1)], user))
        assert answer.status == 201 and answer.json()["userId"] == user, answer
        assert wire.ask("GET", answer.headers["location"]).json() == answer.json()
