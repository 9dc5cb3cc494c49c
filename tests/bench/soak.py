#!/usr/bin/python3
"""`make soak`: hours of use in minutes, to see whether the server grows or loses something.

    bookings, fights for one event, seat maps, lists ─┐
    malformed requests, half requests, hang-ups ──────┼─> seatgrid serve ─> RSS, fds, SQL
    a replica, a primary, Redis restarted in turn ────┘    (--kills)

Load runs in short pieces, so that connections come and go all the time. After a warm-up the
server's resident memory may grow by --growth-percent plus --growth-mb and no more; when the load
has gone its file descriptors must be back where they were; in the end SQL must find every claim
with its booking and no seat sold twice. Exit: 0 all held, 1 not, 2 wrong usage.

SPDX-License-Identifier: MIT
"""

import argparse
import itertools
import pathlib
import random
import socket
import statistics
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import load  # noqa: E402
from rig import Rig  # noqa: E402

PIECE_MS = 5000
MALFORMED = [
    b"GARBAGE\r\n\r\n",
    b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\n\r\n",
    b"GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /events/%00 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /events/99999999999999999999 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 70000 + b"\r\n\r\n",
    b"POST /book HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
    b"POST /book HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n",
    b"POST /book HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n+3\r\nabc\r\n0\r\n\r\n",
]
BODIES = [b"", b"{", b"[]", b"null", b'{"eventId":"1"}', b'{"eventId":-1,"userId":"u","seats":[]}',
          b'{"eventId":1e400,"userId":"u","seats":[{"row":1,"col":1}]}',
          b'{"eventId":1,"userId":"u","seats":[{"row":1,"col":1},{"row":1,"col":1}]}',
          b'{"eventId":1,"userId":"\xff\xfe","seats":[{"row":1,"col":1}]}',
          b'{"eventId":1,"userId":"u","seats":[{"row":0,"col":2147483648}]}',
          b"[" * 5000, b'{"userId":"' + b"u" * 100000 + b'"}']


def post(body):
    return (b"POST /book HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (len(body), body))


class Worker(threading.Thread):
    """Repeats one piece of load until told to stop; keeps the first error."""

    def __init__(self, name, piece):
        super().__init__(name=name, daemon=True)
        self.piece = piece
        self.stopping = threading.Event()
        self.error = None
        self.counts = {}

    def run(self):
        while not self.stopping.is_set():
            try:
                for key, count in self.piece().items():
                    self.counts[key] = self.counts.get(key, 0) + count
            except Exception as error:  # pylint: disable=broad-except
                self.error = self.error or f"{self.name}: {type(error).__name__}: {error}"
                self.stopping.wait(1)


class Soak:
    """The pieces of load, each bounded, on one cluster."""

    def __init__(self, rig, kills):
        self.rig = rig
        self.kills = kills
        self.random = random.Random(1)
        self.grid = rig.create_events(50, 1000, 1000)
        self.small = rig.create_events(50, 30, 30)
        self.next_seat = 1
        self.victims = itertools.cycle(rig.killable())
        self.host, port = rig.address.split(":")
        self.port = int(port)

    def loadgen(self, **options):
        """A piece of load. Without kills nothing may be lost and nothing may be a 5xx."""
        raw = load.loadgen(self.rig.address, hold_ms=PIECE_MS, **options)["raw"]
        bad = load.lost(raw) + load.server_errors(raw)
        if bad and not self.kills:
            raise load.LoadError(f"{bad} lost or 5xx: {raw['statuses']}")
        return {**raw["statuses"], "lost": load.lost(raw)}, raw

    def sell(self):
        counts, raw = self.loadgen(traffic="walk", events=self.rig.events_file(self.grid),
                                   rows=1000, cols=1000, first_seat=self.next_seat, seats="1-4",
                                   connections=32, pause_ms=10)
        self.next_seat += (raw["walked"] // len(self.grid) + 2) * 4
        return counts

    def fight(self):
        event = self.random.choice(self.small)[0]
        return self.loadgen(traffic="random", event=event, rows=30, cols=30, seats="1-6",
                            connections=50, pause_ms=20, seed=self.random.randrange(1 << 30))[0]

    def browse(self):
        return self.loadgen(traffic="mixed", events=self.rig.events_file(self.small), rows=30,
                            cols=30, read_percent=100, connections=20, pause_ms=10,
                            header=self.random.choice([[], ["Accept-Encoding: gzip"], [
                                "Accept: application/vnd.seatgrid.full+json"], [
                                    "Accept: application/x-protobuf"]]))[0]

    def list(self):
        return self.loadgen(traffic="get", path="/events?limit=50", connections=4, pause_ms=50)[0]

    def exchange(self, data, wait):
        """Sends bytes; hangs up at once or reads until the server has said something or closed."""
        with socket.create_connection((self.host, self.port), timeout=5) as connection:
            try:
                connection.sendall(data)
                return connection.recv(65536) if wait else b""
            except (ConnectionResetError, BrokenPipeError):
                return b""

    def rude(self):
        """Malformed requests, half requests and hang-ups; a wrong one must not get a 2xx or 5xx."""
        counts = {"malformed": 0, "hang-ups": 0}
        for data in [*MALFORMED, *map(post, BODIES)]:
            answer = self.exchange(data, wait=True)
            status = answer[9:10]
            if answer and status != b"4" and not (status == b"5" and b" 505 " in answer[:16]):
                raise load.LoadError(f"{data[:60]!r} got {answer[:80]!r}")
            counts["malformed"] += 1
        event = self.random.choice(self.small)[0]
        good = post(b'{"eventId":%d,"userId":"rude","seats":[{"row":%d,"col":%d}]}' % (
            event, self.random.randint(1, 30), self.random.randint(1, 30)))
        for data in (b"", good[:20], good[:-5], good, good * 3,
                     b"GET /events/%d/seats HTTP/1.1\r\nHost: x\r\n\r\n" % event):
            for _ in range(5):
                self.exchange(data, wait=False)
                counts["hang-ups"] += 1
        time.sleep(0.2)
        return counts

    def kill(self):
        """Kills one server, leaves it dead for a moment, starts it again, waits for recovery."""
        name = next(self.victims)
        self.rig.kill(name)
        time.sleep(2)
        self.rig.revive(name)
        self.rig.wait_ready()
        time.sleep(8)
        return {f"kill {name}": 1}

    def workers(self):
        pieces = [("sell", self.sell), ("fight", self.fight), ("browse", self.browse),
                  ("list", self.list), ("rude", self.rude)]
        if self.kills:
            pieces.append(("kill", self.kill))
        return [Worker(name, piece) for name, piece in pieces]


def watch(rig, workers, seconds, warm_seconds):
    """Samples memory and file descriptors; returns [(t, rss_kb, fds)]."""
    samples = []
    start = shown = time.monotonic()
    while time.monotonic() - start < seconds:
        time.sleep(1)
        now = time.monotonic()
        samples.append((now - start, rig.rss_kb(), rig.fd_count()))
        if now - shown >= 15:
            shown = now
            t, rss, fds = samples[-1]
            word = "warming up" if t < warm_seconds else "watching"
            print(f"  {t:5.0f} s  RSS {rss / 1024:7.1f} MB  {fds:5d} fds  {word}", flush=True)
        for worker in workers:
            if worker.error:
                return samples
    return samples


def judge_memory(samples, warm_seconds, arguments):
    """Problems in words. Compares medians, so that one sample does not decide."""
    warm = [rss for t, rss, _ in samples if warm_seconds / 2 <= t < warm_seconds]
    late = [rss for t, rss, _ in samples if t >= samples[-1][0] * 0.8]
    if not warm or not late or samples[-1][0] < warm_seconds * 1.2:
        return ["too short to judge the memory"]
    before, after = statistics.median(warm), statistics.median(late)
    bound = before * (1 + arguments.growth_percent / 100) + arguments.growth_mb * 1024
    print(f"  RSS {before / 1024:.1f} MB after the warm-up, {after / 1024:.1f} MB at the end, "
          f"bound {bound / 1024:.1f} MB")
    return [f"RSS grew past its bound: {after / 1024:.1f} MB"] if after > bound else []


def judge_sales(rig, kills):
    """SQL against what the server says it answered; a row may lack its 201 only after a kill."""
    problems = []
    rows = sum(int(rig.sql(shard, "SELECT count(*) FROM bookings")[0][0]) for shard in rig.shards)
    answered, odd = rig.bookings_answered(), rig.odd_seats()
    print(f"  {rows} bookings in SQL, {answered} x 201, {odd} odd seats")
    if rows < answered or (rows > answered and not kills):
        problems.append(f"{rows} bookings in SQL, {answered} x 201")
    if odd:
        problems.append(f"{odd} seats whose claim and booking disagree")
    return problems


def judge_end(rig, idle_fds, kills):
    """What must hold when all load has gone."""
    problems = judge_sales(rig, kills)
    deadline = time.monotonic() + 20
    while rig.fd_count() > idle_fds + 8 and time.monotonic() < deadline:
        time.sleep(0.5)
    print(f"  {idle_fds} fds before the load, {rig.fd_count()} after")
    if rig.fd_count() > idle_fds + 8:
        problems.append(f"file descriptors leak: {idle_fds} before, {rig.fd_count()} after")
    if rig.get("/readyz")[0] != 200:
        problems.append("the server is not ready")
    return problems


def soak(rig, arguments):
    warm_seconds = min(120, arguments.seconds * 0.3)
    load_maker = Soak(rig, arguments.kills)
    rig.get("/readyz")
    time.sleep(2)
    idle_fds = rig.fd_count()
    workers = load_maker.workers()
    for worker in workers:
        worker.start()
    samples = watch(rig, workers, arguments.seconds, warm_seconds)
    for worker in workers:
        worker.stopping.set()
    for worker in workers:
        worker.join(60)
        print(f"  {worker.name:<8}{dict(sorted(worker.counts.items()))}")
    problems = [worker.error for worker in workers if worker.error]
    rig.wait_ready()
    rig.wait_idle()
    return (problems + judge_memory(samples, warm_seconds, arguments)
            + judge_end(rig, idle_fds, arguments.kills))


def main():
    parser = argparse.ArgumentParser(prog="soak", description="Mixed load while memory is watched.")
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--growth-percent", type=float, default=15)
    parser.add_argument("--growth-mb", type=float, default=12)
    parser.add_argument("--kills", action="store_true", help="restart servers under the load")
    arguments = parser.parse_args()
    with Rig() as rig:
        problems = soak(rig, arguments)
    for problem in problems:
        print(f"FAILED: {problem}", file=sys.stderr)
    if not problems:
        print("  ok")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
