"""What the stories of live seats need: a client of Server-Sent Events, and a played consumer.

    PlayedConsumer(cluster) ─> Redis, as `seatgrid cdc` would write it (replication/scripts)
    EventStream(port, event) ─> GET /events/{id}/stream ─> events, as the WHATWG standard reads them

SPDX-License-Identifier: MIT
"""

import json
import pathlib
import socket
import threading
import time

import harness
from redis_client import RedisClient, RedisError

SCRIPT = harness.ROOT / "replication/scripts/event.lua"


class PlayedConsumer:
    """Writes the keys of both shards; keeps their beat going until it is closed."""

    def __init__(self, port, history=256, generation=1):
        self.port = port
        self.history = history
        self.generation = generation
        self.epoch = 1
        self.lsn = int(time.time() * 1000) * 8  # above any that was played before
        self.script = pathlib.Path(SCRIPT).read_text(encoding="utf-8")
        self.redis = RedisClient(port)
        self._stop = threading.Event()
        self.switch(generation)
        self._beating = threading.Thread(target=self._beat, daemon=True)
        self._beating.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._beating.join()
        self.redis.close()

    def _beat(self):
        redis = None
        while not self._stop.wait(0.05):
            try:
                redis = redis or RedisClient(self.port)
                for shard in ("alpha", "beta"):
                    redis("HINCRBY", f"sg1:{{s:{shard}}}", "beat", "1")
            except (OSError, RedisError):  # away, or it loads its data
                redis = None

    def reconnect(self):
        """After Redis was away."""
        def again():
            try:
                self.redis = RedisClient(self.port)
                return self.redis("PING") == "PONG"
            except (OSError, RedisError):
                return False
        harness.wait_until(again, what="Redis")

    def switch(self, generation):
        """Readers are to read this generation."""
        self.generation = generation
        for shard in ("alpha", "beta"):
            self.redis("HSET", f"sg1:{{s:{shard}}}", "gen", generation, "epoch", self.epoch,
                       "state", "live", "lsn", self.lsn, "timeline", 1, "system", 1)

    def keys(self, event, generation=None, shard="alpha"):
        """counters, changes, watched"""
        base = f"sg1:{{e:{event}}}"
        generation = generation or self.generation
        return [f"{base}:{shard}.{generation}", f"{base}:{shard}.{generation}:changes",
                f"{base}:watched"]

    def apply(self, event, *operations, generation=None):
        """Operations (a, b, what), each a commit of its own; gives the ids they have."""
        arguments, ids = [], []
        for first, second, what in operations:
            self.lsn += 8
            ids.append(f"alpha.{generation or self.generation}-{self.lsn}-1")
            arguments += [f"{self.lsn:020d}{1:010d}", first, second, what]
        answer = self.redis.eval(self.script, self.keys(event, generation), self.epoch,
                                 self.history, *arguments)
        assert answer == 1, answer
        return ids

    def grid(self, event, rows, cols, generation=None):
        """The event exists."""
        return self.apply(event, (rows, cols, "grid"), generation=generation)

    def sell(self, event, *seats):
        """Each seat number in a commit of its own."""
        return self.apply(event, *[(0, 1, f"x:{seat}") for seat in seats])


class EventStream:
    """One open stream. `last_id` follows what was received, as in a browser."""

    def __init__(self, port, event, last_id=None, version="1.1", method="GET", timeout=10,
                 receive_bytes=None):
        self.socket = socket.socket()
        if receive_bytes:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.socket.settimeout(timeout * harness.SLOWDOWN)
        self.socket.connect(("127.0.0.1", port))
        self.last_id = last_id
        self.heartbeats = 0
        self._bytes = b""
        resume = f"Last-Event-ID: {last_id}\r\n" if last_id else ""
        self.socket.sendall(f"{method} /events/{event}/stream HTTP/{version}\r\nHost: t\r\n"
                            f"Accept: text/event-stream\r\n{resume}\r\n".encode())
        head = self._until(b"\r\n\r\n").decode()
        lines = head.split("\r\n")
        self.status = int(lines[0].split()[1])
        self.headers = {name.lower(): value for name, _, value in
                        (line.partition(": ") for line in lines[1:])}
        self.problem = None  # of a refusal
        if self.status >= 400:
            while len(self._bytes) < int(self.headers["content-length"]):
                self._more()
            self.problem = json.loads(self._bytes)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Leaves."""
        self.socket.close()

    def _more(self):
        piece = self.socket.recv(65536)
        if not piece:
            raise EOFError
        self._bytes += piece

    def _until(self, mark):
        while mark not in self._bytes:
            self._more()
        piece, _, self._bytes = self._bytes.partition(mark)
        return piece

    def next(self):
        """(event, data), parsed; EOFError at the end."""
        until = time.monotonic() + 10 * harness.SLOWDOWN
        while True:
            assert time.monotonic() < until, "nothing but heartbeats comes"
            event, data = "message", None
            for line in self._until(b"\n\n").decode().split("\n"):
                field, _, value = line.partition(": ")
                if line.startswith(":"):
                    self.heartbeats += 1
                elif field == "event":
                    event = value
                elif field == "data":
                    data = json.loads(value)
                elif field == "id":
                    self.last_id = value
                else:
                    assert (field, value) == ("retry", "1000"), line
            if data is not None:
                return event, data

    def expect(self, wanted):
        """The next event is of this kind; gives its data."""
        event, data = self.next()
        assert event == wanted, (event, data)
        return data

    def expect_seats(self, seat, cols):
        """The next is the sale of this one seat, with its counters."""
        data = self.expect("seats")
        where = {"row": seat // cols + 1, "col": seat % cols + 1, "status": "booked"}
        assert data["seats"] == [where], (data, where)
        counters = self.expect("counters")
        assert {**data, "seats": None} == {**counters, "seats": None}, (data, counters)
        return counters

    def rest(self):
        """All that is left, until the server ends it; gives the events."""
        events = []
        try:
            while True:
                events.append(self.next())
        except (EOFError, ConnectionResetError):
            return events

    def is_quiet(self, seconds=0.3):
        """Nothing but heartbeats comes for so long."""
        self.socket.settimeout(0.05)
        until = time.monotonic() + seconds
        try:
            while time.monotonic() < until:
                try:
                    event = self.next()
                    raise AssertionError(f"not quiet: {event}")
                except TimeoutError:
                    continue
        finally:
            self.socket.settimeout(10 * harness.SLOWDOWN)
        return True
