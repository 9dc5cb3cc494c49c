"""Whatever bytes come in: where a request ends is never in doubt, and no client costs more than
its share.

Goal: smuggled, oversize, half-sent, endless, vanished and silent requests get a clear answer or a
closed connection; pipelines and long-lived connections are answered in order; memory stays bounded.
Method: bytes on real sockets, with short timeouts; after each story the server still serves, and
SQL shows that nothing was written that should not be.

SPDX-License-Identifier: MIT
"""

import contextlib
import json
import random
import time

from bad_requests import (BAD_IDS, CHUNKED, GET, PATHS, PATHS_404, POST, SMUGGLING,
                          book_types, book_values, book_with, check_problem, event_and_wire,
                          not_json,
                          nothing_happens)
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


# ---- where does a request end? -------------------------------------------------------------------


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


def open_connections(cluster):
    """To the API, as the server counts them."""
    return cluster.metric("seatgrid_http_connections", listener="http")


def test_idle_and_vanished_connections(cluster):
    """A silent connection is closed without a word; clients that vanish leave nothing behind."""
    event, idle = event_and_wire(cluster)
    busy = json.dumps(book_with(event, seats=[{"row": 9, "col": 9}])).encode()
    open_before = open_connections(cluster)
    start = time.monotonic()
    assert idle.ask("GET", "/healthz").status == 200
    pieces = [b"", b"G", GET, POST + b"Content-Length: 50\r\n\r\n{", GET + b"\r\n",
              CHUNKED + b"5\r\n",
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
