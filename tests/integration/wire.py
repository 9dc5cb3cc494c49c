"""HTTP as bytes on a socket: for what a polite client library would never send.

    Wire(port).send(b"GET / HTTP/1.1\\r\\n...")   whatever bytes
              .answer()                           the next answer, parsed strictly
              .closed()                           has the server ended the connection?
    build("POST", "/book", body={...})            a well-formed request as bytes
    Crowd(port, size)                             many connections at once, each with one request

The parser asserts what every answer must have: a status line, CRLF, Content-Length that is right,
X-Request-Id, Date. Standard library only.

SPDX-License-Identifier: MIT
"""

import json
import selectors
import socket
import time

from harness import SLOWDOWN


class Closed(AssertionError):
    """The connection ended where an answer was expected."""


class Answer:
    """status, headers (names in lower case, a repeated one is an error), body."""

    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def json(self):
        """The body, parsed."""
        return json.loads(self.body)

    @property
    def code(self):
        """The stable code of a problem."""
        return self.json()["code"]

    def __repr__(self):
        return f"<{self.status} {self.headers} {self.body[:300]!r}>"


def build(method, path, body=None, headers=None, version="1.1", host="test"):
    """A request as bytes. A body that is no bytes goes as JSON; None: no body."""
    lines = [f"{method} {path} HTTP/{version}"]
    headers = dict(headers or {})
    if host is not None:
        headers.setdefault("Host", host)
    if body is not None:
        if not isinstance(body, bytes):
            body = json.dumps(body).encode()
            headers.setdefault("Content-Type", "application/json")
        headers.setdefault("Content-Length", str(len(body)))
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + (body or b"")


def booking(event_id, seats, user="u-1"):
    """The body of POST /book."""
    return {"eventId": event_id, "userId": user,
            "seats": [{"row": row, "col": col} for row, col in seats]}


def parse(data, is_head=False):
    """(Answer, bytes used) of the first complete answer in the bytes, or None."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    lines = bytes(data[:end]).decode("latin-1").split("\r\n")
    words = lines[0].split(" ", 2)
    assert words[0] == "HTTP/1.1" and len(words[1]) == 3 and words[1].isdigit(), lines[0]
    assert not any("\n" in line or "\r" in line for line in lines), lines
    status, headers = int(words[1]), {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        name = name.lower()
        assert colon and name and name.strip() == name and name not in headers, lines
        headers[name] = value.strip()
    assert "transfer-encoding" not in headers, lines
    used = end + 4
    if status == 100:
        return Answer(status, headers, b""), used
    assert "date" in headers and 1 <= len(headers.get("x-request-id", "")) <= 64, lines
    if is_head or status in (204, 304):
        return Answer(status, headers, b""), used
    length = int(headers["content-length"])
    if len(data) < used + length:
        return None
    return Answer(status, headers, bytes(data[used:used + length])), used + length


class Wire:
    """One connection."""

    def __init__(self, port, timeout=15, receive_buffer=None):
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(timeout * SLOWDOWN)
        self.socket.connect(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.data = bytearray()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Ends it from this side."""
        self.socket.close()

    def send(self, data):
        """All of the bytes. A server that has closed already is no error: its answer counts."""
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass
        return self

    def _read(self):
        try:
            piece = self.socket.recv(1 << 18)
        except ConnectionResetError:
            piece = b""
        self.data += piece
        return bool(piece)

    def answer(self, is_head=False):
        """The next answer."""
        while True:
            found = parse(self.data, is_head)
            if found:
                del self.data[:found[1]]
                return found[0]
            if not self._read():
                raise Closed(f"the connection ended; {bytes(self.data)!r} was left")

    def ask(self, method, path, body=None, headers=None):
        """One well-formed request and its answer."""
        self.send(build(method, path, body, headers))
        return self.answer(method == "HEAD")

    def closed(self):
        """True when the server ends the connection with nothing more to say."""
        while not self.data:
            if not self._read():
                return True
        return False


class Crowd:
    """Many open connections, each asked one request at a time; one thread, no waiting in turn."""

    def __init__(self, ports, size):
        """Connection i goes to ports[i % len(ports)]."""
        self.wires = [Wire(ports[i % len(ports)]) for i in range(size)]
        self.selector = selectors.DefaultSelector()
        for wire in self.wires:
            wire.socket.setblocking(False)
            self.selector.register(wire.socket, selectors.EVENT_READ, wire)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.selector.close()
        for wire in self.wires:
            wire.close()

    def ask(self, requests, timeout=30):
        """Sends requests[i] (bytes or None) on connection i, all at once; gives the answers."""
        answers = [None] * len(requests)
        waiting = {}
        for i, (wire, request) in enumerate(zip(self.wires, requests)):
            if request is not None:
                assert wire.socket.send(request) == len(request)
                waiting[wire] = i
        deadline = time.monotonic() + timeout * SLOWDOWN
        while waiting:
            assert time.monotonic() < deadline, f"{len(waiting)} requests have no answer"
            for key, _ in self.selector.select(1):
                wire = key.data
                piece = wire.socket.recv(1 << 16)
                if not piece:
                    raise Closed(f"a connection ended; {bytes(wire.data)!r} was left")
                wire.data += piece
                found = parse(wire.data)
                if found:
                    del wire.data[:found[1]]
                    answers[waiting.pop(wire)] = found[0]
                    assert not wire.data, bytes(wire.data)
        return answers
