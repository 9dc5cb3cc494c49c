"""Requests that no server should accept, and how to look at the answers.

Tables of bodies, ids, paths and bytes, each with what the answer must say; used by the tests of bad
input, of bad HTTP and of bounded memory.

SPDX-License-Identifier: MIT
"""

import contextlib
import json
import re

from wire import Wire

BIG = 9223372036854775807
GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"
POST = b"POST /book HTTP/1.1\r\nHost: x\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"


# ---- looking -------------------------------------------------------------------------------------


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
        (number % b"18446744073709551617", "too big"),
        (number % b"99999999999999999999", "too big"),
        (number % b"-9223372036854775809", "too big negative"), (number % (b"9" * 5000), "too big"),
        (number % (b"1" * 200000), "too big"),
        (user % b"\xff", "decode"), (user % b"\xc0\xaf", "decode"),
        (user % b"\xed\xa0\x80", "decode"),
        (user % b"\xf4\x90\x80\x80", "decode"), (user % b"\xe2\x82", "decode"),
        (user % b"\x80", "decode"),
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


def book_types(event):
    """[(body, word)]: all wrong_type."""
    seats = lambda *values: book_with(event, seats=list(values))  # noqa: E731
    cases = [([], "must be a JSON object"), ([1], "must be a JSON object"),
             ({}, "eventId: is miss")]
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
              (seats((1, 1), (2, 2), (3, 3), (2, 2)),
               "duplicate_seat", r"seats\[3\]: is seats\[1\]"),
              (seats(*many), "too_many_seats", "at most 20 seats, names 21"),
              (seats(*[(1, 1)] * 5000), "too_many_seats", "names 5000"),
              (seats(*many[:19], many[0]), "duplicate_seat", r"seats\[19\]: is seats\[0\]")]
    return cases


# ---- ids and paths -------------------------------------------------------------------------------


BAD_IDS = ("-1", "0", "+1", "01", "00", "1e3", "0x1", "1.0", "1,0", "abc", "NaN", "1%20", "%201",
           "9223372036854775808", "18446744073709551616", "18446744073709551617",
           "99999999999999999999", "-9223372036854775808", "1" * 500, "%D9%A1", "%EF%BC%91",
           "1;x=1",
           "1:", "1'", "%7B1%7D", "*", "null", "1%0", "~")
PATHS_400 = ("/events/../healthz", "/../healthz", "/./healthz", "/healthz/.", "/healthz/..",
             "//healthz", "/events//1", "///", "/%2e%2e/healthz", "/events/%2e%2e/healthz",
             "/%2E/healthz", "/events/.%2e/healthz", "/healthz%00", "/healthz%00.json", "/%00",
             "/events%2f1", "/events%2F1", "/events%5c1", "/%5C", "/%ff", "/%c0%af",
             "/%c0%ae%c0%ae/",
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


ID = "0190f3c2-7d1e-4c55-9e5a-3f0f6d1c2b7a"
READ, WRITE, BOTH = "GET, HEAD, OPTIONS", "POST, OPTIONS", "GET, HEAD, DELETE, OPTIONS"
PATHS = {  # path: what Allow says
         "/events": "GET, HEAD, POST, OPTIONS", "/book": WRITE,
         "/events/1": READ, "/events/1/seats": READ, "/events/1/holds": WRITE,
         f"/events/1/bookings/{ID}": BOTH, f"/events/1/bookings/{ID}/confirm": WRITE,
         f"/events/1/bookings/{ID}/extend": WRITE, f"/events/1/bookings/{ID}/transfer": WRITE,
         "/events/1/orders": WRITE, f"/events/1/orders/{ID}": READ,
         f"/events/1/queue/{ID}": READ,
         "/events/1/waitlist": WRITE, f"/events/1/waitlist/{ID}": BOTH,
         "/healthz": READ, "/readyz": READ, "/metrics": READ, "/openapi.json": READ, "/docs": READ}


# ---- bytes whose end is in doubt -----------------------------------------------------------------


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
    (POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400,
     "two"),
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
    (GET + b"X: a\nY: b\r\n\r\n", 400, "bare LF|control"),
    (GET + b"X: a\rY: b\r\n\r\n", 400, "bare CR"),
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
    (b"\r\n\r\nGET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", 400, ""),
    (b"\nGET / HTTP/1.1\r\n", 400, ""),
    (b"G(T /healthz HTTP/1.1\r\nHost: x\r\n\r\n", 400, ""), (b"{}\r\n\r\n", 400, ""),
    (b"CONNECT x:1 HTTP/1.1\r\nHost: x:1\r\n\r\n", 501, "CONNECT"),
] + [(CHUNKED + tail, 400, "") for tail in (
    b"+2\r\n{}\r\n0\r\n\r\n", b"0x2\r\n{}\r\n0\r\n\r\n", b"-2\r\n{}\r\n0\r\n\r\n",
    b" 2\r\n{}\r\n0\r\n\r\n", b"2 \r\n{}\r\n0\r\n\r\n", b"2\n{}\r\n0\r\n\r\n",
    b"2\r{}\r\n0\r\n\r\n",
    b"\r\n{}\r\n0\r\n\r\n", b"g\r\n{}\r\n0\r\n\r\n", b"2\r\n{}0\r\n\r\n", b"2\r\n{}\n0\r\n\r\n",
    b"2\r\n{}x\r\n0\r\n\r\n", b"2;\0\r\n{}\r\n0\r\n\r\n", b"000000002\r\n{}\r\n0\r\n\r\n",
    b"10000000000000002\r\n{}\r\n0\r\n\r\n", b"2;a=b\n{}\r\n0\r\n\r\n",
    b"2\r\n{}\r\n0\r\nX y: z\r\n\r\n",
    b"2\r\n{}\r\n0\r\n X: y\r\n\r\n", b"2\r\n{}\r\n0\r\nX: y\n\r\n", b"2_0\r\n{}\r\n0\r\n\r\n")]
