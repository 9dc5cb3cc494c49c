"""Continuous load whose every request and answer is written down, and laid beside the tables.

    with Traffic(cluster) as traffic:       threads book, read and list on both shards
        ... a fault ...
    traffic.check_answers()                 each answer was one that the documents allow
    traffic.check_tables(cluster)           each 201 has its row, each row its 201 or its excuse
    traffic.retry_unknown(cluster)          the same Idempotency-Key gives the truth

Every booking has a user of its own, so that a row names its request. Standard library only.

SPDX-License-Identifier: MIT
"""

import copy
import http.client
import json
import random
import threading
import time

from harness import SLOWDOWN

SHARDS = ("alpha", "beta")
# What a client may be told while something is broken; each is a 503. The last three are a primary's
# own words, told at the booking's deadline if it has said nothing else until then.
BROKEN = {"shard_unavailable", "deadline_exceeded", "outcome_unknown",
          "shard_fenced", "stale_epoch", "not_synchronous"}
ROWS, COLS = 70, 70


class Record:
    """One request and its answer; status None: the connection ended without one."""

    __slots__ = ("kind", "shard", "event", "user", "seats", "key", "start", "end", "status",
                 "code", "body", "node", "problem", "number")

    def __init__(self, kind, shard):
        self.kind, self.shard = kind, shard
        self.event = self.user = self.seats = self.key = None
        self.start = self.end = 0.0
        self.status = self.code = self.body = self.node = self.problem = None
        self.number = 0

    def request(self):
        """(method, path, body, headers)"""
        if self.kind == "book":
            body = {"eventId": self.event, "userId": self.user,
                    "seats": [{"row": row, "col": col} for row, col in self.seats]}
            headers = {"Content-Type": "application/json"}
            if self.key:
                headers["Idempotency-Key"] = self.key
            return "POST", "/book", json.dumps(body), headers
        path = {"seats": f"/events/{self.event}/seats", "event": f"/events/{self.event}",
                "list": "/events?limit=20"}[self.kind]
        return "GET", path, None, {}

    def __repr__(self):
        return (f"<{self.kind} {self.shard} event {self.event} {self.user} {self.seats} "
                f"key {self.key}: {self.status} {self.code} {self.body} {self.node} "
                f"{self.end - self.start:.3f} s>")


def ask(connection, record):
    """Sends the record's request on the connection and fills in what came."""
    record.start = time.monotonic()
    try:
        method, path, body, headers = record.request()
        connection.request(method, path, body=body, headers=headers)
        answer = connection.getresponse()
        text = answer.read()
        record.status = answer.status
        record.node = answer.headers.get("SeatGrid-Node")
        if record.kind == "book" or record.status >= 400:
            record.body = json.loads(text)
        elif record.kind == "list":
            record.body = {name: json.loads(text)[name] for name in ("partial", "missing")}
        if record.status >= 400:
            record.code = record.body.get("code")
            record.problem = (answer.headers.get("Content-Type"),
                              answer.headers.get("Retry-After"))
    except (OSError, http.client.HTTPException):
        record.status = None
        connection.close()
    record.end = time.monotonic()


class Traffic:
    """Load in a `with` block; .records afterwards."""

    def __init__(self, cluster, port=None, bookers=3, readers=1, pause=0.004, seed=None):
        self.port = port or cluster.http_port
        self.records = []
        self._stop = threading.Event()
        self._pause = pause * SLOWDOWN
        self._seed = random.randrange(1 << 32) if seed is None else seed
        self.events = {shard: [cluster.make_event(ROWS, COLS, shard) for _ in range(2)]
                       for shard in SHARDS}
        self._threads = []
        for shard in SHARDS:
            for kind, count in (("book", bookers), ("read", readers)):
                for number in range(count):
                    self._threads.append(threading.Thread(
                        target=self._run, args=(shard, kind, f"{shard}-{kind}-{number}"),
                        daemon=True))

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join(60 * SLOWDOWN)
            assert not thread.is_alive(), "a request never came back"

    def _make(self, rng, shard, kind, name, number):
        record = Record(kind, shard)
        record.event = rng.choice(self.events[shard])
        record.number = number
        if kind == "read":
            record.kind = rng.choice(("seats", "seats", "event", "list"))
        else:
            row, col = rng.randrange(1, ROWS + 1), rng.randrange(1, COLS - 3)
            record.user = f"u-{self._seed:08x}-{name}-{number}"
            record.seats = [(row, col + i) for i in range(rng.randrange(1, 5))]
            record.key = f"k-{record.user}" if rng.random() < 0.5 else None
        return record

    def _run(self, shard, kind, name):
        rng = random.Random(f"{self._seed}-{name}")
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30 * SLOWDOWN)
        number = 0
        while not self._stop.is_set():
            number += 1
            record = self._make(rng, shard, kind, name, number)
            ask(connection, record)
            self.records.append(record)
            self._stop.wait(self._pause if record.status is not None else 0.1)
        connection.close()

    # ---- looking ----

    def select(self, shard=None, kind=None, since=0.0, until=float("inf")):
        """Records that began in the time."""
        kinds = {None: None, "read": ("seats", "event", "list")}.get(kind, (kind,))
        return [r for r in list(self.records) if since <= r.start < until
                and (shard is None or r.shard == shard) and (kinds is None or r.kind in kinds)]

    def wait_for(self, count, seconds=20, **where):
        """Until so many bookings (or what `where` says) have been confirmed since now; gives the
        seconds it took."""
        start = time.monotonic()
        where.setdefault("kind", "book")
        while time.monotonic() - start < seconds * SLOWDOWN:
            if sum(r.status in (200, 201) for r in self.select(since=start, **where)) >= count:
                return time.monotonic() - start
            time.sleep(0.02)
        raise AssertionError(f"no {count} good answers in {seconds * SLOWDOWN} s: "
                             f"{self.select(since=start, **where)[-3:]}")

    # ---- judging ----

    def check_answers(self):
        """Only answers that the documents promise; problems as RFC 9457 has them."""
        for record in self.records:
            good = {"book": (201, 409), "list": (200,)}.get(record.kind, (200,))
            if record.status is None or record.status in good:
                continue
            assert record.status == 503, record
            assert record.code in BROKEN, record
            assert record.code != "outcome_unknown" or record.kind == "book", record
            assert record.problem[0] == "application/problem+json", record
            assert record.problem[1] and int(record.problem[1]) >= 1, record

    def check_untouched(self, shard, since, until):
        """The shard did not notice: no error, and no wait to speak of."""
        records = self.select(shard, since=since, until=until)
        assert len(records) > 20, f"{shard} had only {len(records)} requests"
        # a list asks both shards, so it may wait for the one that is broken
        own = [r for r in records if r.kind != "list"]
        bad = [r for r in own if r.status not in (200, 201, 409)]
        assert not bad, bad[:5]
        times = sorted(r.end - r.start for r in own)
        p95 = times[int(len(times) * 0.95)]
        assert p95 < 0.15 * SLOWDOWN, f"{shard}: p95 {p95:.3f} s while the other was broken"
        return p95

    def counts(self):
        """{(kind, status or code): how many}, for people."""
        result = {}
        for record in self.records:
            key = f"{record.kind} {record.code or record.status}"
            result[key] = result.get(key, 0) + 1
        return dict(sorted(result.items()))

    def rows(self, cluster):
        """{user: (booking id, event, [(row, col)])} of this load's bookings."""
        found = {}
        for shard in SHARDS:
            for user, booking, event, seats in cluster.sql(
                    shard, "SELECT user_id, booking_id, event_id, array_to_string(seats, ' ')"
                           f" FROM bookings WHERE user_id LIKE 'u-{self._seed:08x}-%'"):
                assert user not in found, f"two bookings of {user}"
                numbers = [int(number) for number in seats.split()]
                found[user] = (booking, int(event),
                               [(n // COLS + 1, n % COLS + 1) for n in numbers])
        return found

    def check_tables(self, cluster):
        """The answers beside the tables."""
        rows = self.rows(cluster)
        asked = {r.user: r for r in self.records if r.kind == "book"}  # the last word counts
        for user, record in asked.items():
            row = rows.get(user)
            if record.status == 201:
                assert row, f"confirmed, and lost: {record}"
                assert row == (record.body["bookingId"], record.event, record.seats), (record, row)
            elif row:  # nobody was told yes: then nobody was told no, either
                assert record.status is None or record.code == "outcome_unknown", (record, row)
        assert set(rows) <= set(asked), set(rows) - set(asked)
        for shard in SHARDS:
            events = ",".join(str(event) for event in self.events[shard])
            wrong = cluster.sql(shard, f"""
                SELECT b.booking_id, b.seats, c.seats
                  FROM (SELECT * FROM bookings WHERE event_id IN ({events})) b
                  FULL JOIN (SELECT event_id, booking_id, array_agg(seat_no ORDER BY seat_no)
                                    AS seats
                               FROM claims WHERE event_id IN ({events}) AND state = 'booked'
                              GROUP BY 1, 2) c USING (event_id, booking_id)
                 WHERE (SELECT array_agg(s ORDER BY s) FROM unnest(b.seats) s)
                       IS DISTINCT FROM c.seats LIMIT 5""")
            assert not wrong, f"a booking without all its seats, or seats without it: {wrong}"
            twice = cluster.sql(shard, f"SELECT event_id, s FROM bookings, unnest(seats) s"
                                       f" WHERE event_id IN ({events})"
                                       f" GROUP BY 1, 2 HAVING count(*) > 1 LIMIT 5")
            assert not twice, f"seats with two owners: {twice}"
        return rows

    def retry_unknown(self, cluster):
        """Asks again for what nobody knows, and for what got no answer; gives how many."""
        before = self.rows(cluster)
        unknown = [r for r in self.records if r.kind == "book" and r.key
                   and (r.code == "outcome_unknown" or r.status is None)]
        connection = http.client.HTTPConnection("127.0.0.1", cluster.http_port,
                                                timeout=30 * SLOWDOWN)
        for record in unknown:
            again = copy.copy(record)
            again.code = again.body = None
            ask(connection, again)
            self.records.append(again)
            row = before.get(record.user)
            if row:  # it was done: the same answer, not another booking
                assert again.status == 201, (record, again, row)
                assert again.body["bookingId"] == row[0], (record, again, row)
            else:
                assert again.status in (201, 409), (record, again)
        connection.close()
        self.check_tables(cluster)
        return len(unknown)
