"""The rows about Redis: the consumer of the WAL, "my tickets", event streams.

Latency is measured twice: by the consumer's own histogram (commit by the server's clock, to the
acknowledgement by Redis), and from outside, by a prober that books a seat over HTTP and looks into
Redis until the user's ticket is there. A backlog is drained by `seatgrid cdc` and, from another slot
at the same place, by pg_recvlogical into /dev/null.

SPDX-License-Identifier: MIT
"""

import json
import pathlib
import re
import subprocess
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "integration"))

import load  # noqa: E402
from redis_client import RedisClient  # noqa: E402
from report import median  # noqa: E402

SHARD = "alpha"
PROBE_SLOT = "bench_probe"


def quantile(values, q):
    """The value below which q of them lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


def streams(rig):
    """{shard: status}"""
    return {stream["shard"]: stream
            for stream in rig.cluster.cdc("GET", "/admin/streams").json()["streams"]}


def lsn(text):
    """'0/3000148' as a number."""
    high, low = text.split("/")
    return int(high, 16) << 32 | int(low, 16)


def wait_applied(rig, shard, target, seconds=300):
    """Until Redis has everything up to the LSN; returns when, and the largest RSS seen."""
    rss, deadline = 0, time.monotonic() + seconds
    while True:
        try:
            applied = lsn(streams(rig)[shard]["appliedLsn"] or "0/0")
        except (OSError, KeyError):
            applied = 0
        rss = max(rss, rig.cluster.rss_bytes("cdc"))
        if applied >= target:
            return time.monotonic(), rss
        if time.monotonic() > deadline:
            raise load.LoadError(f"{shard}: not applied after {seconds} s")
        time.sleep(0.02)


def wait_idle(rig):
    """Until no backlog is left on any shard."""
    for shard in rig.shards:
        target = lsn(rig.sql(shard, "SELECT pg_current_wal_lsn()")[0][0])
        rig.sql(shard, "SELECT pg_logical_emit_message(true, 'bench', '')")
        wait_applied(rig, shard, target)


# ---- commit to Redis -----------------------------------------------------------------------------

class Prober(threading.Thread):
    """Books one seat after the other and waits for each in Redis; keeps the waits in ms."""

    def __init__(self, rig, event, generation, pause):
        super().__init__(daemon=True)
        self.rig, self.event, self.generation, self.pause = rig, event, generation, pause
        self.waits = []
        self.error = None
        self.stopping = threading.Event()

    def run(self):
        try:
            self._probe()
        except Exception as error:  # pylint: disable=broad-except
            self.error = error

    def _probe(self):
        number = 0
        with RedisClient(self.rig.cluster.port("redis")) as redis:
            while not self.stopping.wait(self.pause):
                user = f"probe-{self.event}-{number}"
                answer = self.rig.cluster.book(self.event, [(1 + number // 1000,
                                                             1 + number % 1000)], user=user)
                start = time.monotonic()
                assert answer.status == 201, answer
                key = f"sg1:{{u:{user}}}:{SHARD}.{self.generation}"
                while not redis("EXISTS", key):
                    assert time.monotonic() - start < 30, f"{user} never came"
                    time.sleep(0.0003)
                self.waits.append((time.monotonic() - start) * 1000)
                number += 1


def histogram(rig):
    """{upper bound in ms: count}, cumulated, of the consumer's latency."""
    text = rig.cluster.cdc("GET", "/metrics").body.decode()
    buckets = {}
    for bound, count in re.findall(r'seatgrid_cdc_latency_seconds_bucket\{[^}]*le="([^"]+)"\} (\d+)',
                                   text):
        bound = float("inf") if bound == "+Inf" else float(bound) * 1000
        buckets[bound] = buckets.get(bound, 0) + int(count)
    return buckets


def between(before, after, q):
    """The bucket bound in ms below which q of the commits between two looks lie."""
    counts = {bound: after[bound] - before.get(bound, 0) for bound in sorted(after)}
    total = counts[float("inf")]
    for bound, count in counts.items():
        if total and count >= q * total:
            return bound
    return None


def latency(bench, name, seconds, **options):
    """Both measurements under one load; returns (p50, p99) of the prober."""
    rig, report = bench.rig, bench.report
    event = rig.cluster.make_event(1000, 1000, SHARD, "Probe")
    wait_idle(rig)
    prober = Prober(rig, event, streams(rig)[SHARD]["generation"], 0.01)
    before = histogram(rig)
    prober.start()
    result = bench.loadgen_bookings(hold_ms=seconds * 1000, **options)
    prober.stopping.set()
    prober.join(60)
    if prober.error:
        raise load.LoadError(f"prober: {prober.error}")
    after = histogram(rig)
    p50, p99 = quantile(prober.waits, 0.5), quantile(prober.waits, 0.99)
    report.figure(f"201 to Redis, {name}", [{"rate": result["rate"], "p50": p50, "p99": p99}],
                  unit="bookings/s")
    report.note(f"{len(prober.waits)} probes; the consumer's own histogram, commit to "
                f"acknowledgement: p50 <= {between(before, after, 0.5)} ms, "
                f"p99 <= {between(before, after, 0.99)} ms; RSS of the consumer "
                f"{rig.cluster.rss_bytes('cdc') / 1e6:.1f} MB")
    return p50, p99


# ---- the backlog ---------------------------------------------------------------------------------

def make_backlog(rig, bookings):
    """So many bookings in transactions of 100 on one shard, while nobody reads; the last LSN."""
    event = rig.cluster.make_event(1000, 1000, SHARD, "Backlog")
    rig.sql(SHARD, "CREATE OR REPLACE PROCEDURE bench_backlog(e bigint, n int) LANGUAGE plpgsql AS $$"
            " BEGIN FOR i IN 0 .. n - 1 BY 100 LOOP"
            " PERFORM set_config('synchronous_commit', 'off', true);"
            " INSERT INTO bookings (event_id, booking_id, user_id, status, seats, request_hash)"
            " SELECT e, gen_random_uuid(), 'b-' || (j % 20000), 'confirmed', ARRAY[j], 0"
            " FROM generate_series(i, i + 99) j; COMMIT; END LOOP; END $$")
    rig.sql(SHARD, f"CALL bench_backlog({event}, {bookings})")
    rig.sql(SHARD, "SELECT pg_logical_emit_message(true, 'bench', '')")
    return rig.sql(SHARD, "SELECT pg_current_wal_lsn()")[0][0]


def recvlogical(rig, end, *options):
    """Seconds that pg_recvlogical takes for the same, with the same decoder."""
    name = f"{PROBE_SLOT}_{len(options)}"
    command = ["pg_recvlogical", "-h", "127.0.0.1", "-p", str(rig.cluster.port(f"{SHARD}-1")), "-U",
               "postgres", "-d", "seatgrid", "--slot", name, "--start", "--endpos", end, "-o",
               "proto_version=1", "-o", "publication_names=seatgrid", *options, "-f", "/dev/null",
               "--no-loop"]
    bindir = subprocess.run(["pg_config", "--bindir"], capture_output=True, text=True,
                            check=True).stdout.strip()
    command[0] = f"{bindir}/pg_recvlogical"
    start = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode != 0:
        raise load.LoadError(f"pg_recvlogical: {done.stderr.strip()[-300:]}")
    seconds = time.monotonic() - start
    rig.sql(SHARD, f"SELECT pg_drop_replication_slot('{name}')")
    return seconds


def drain(bench, bookings):
    rig, report = bench.rig, bench.report
    binary = ("-o", "binary=true")
    rig.consume(True)
    wait_idle(rig)
    rig.cluster.stop("cdc")
    for options in ((), binary):
        rig.sql(SHARD, "SELECT pg_create_logical_replication_slot("
                       f"'{PROBE_SLOT}_{len(options)}', 'pgoutput')")
    end = make_backlog(rig, bookings)
    text_s = recvlogical(rig, end)
    binary_s = recvlogical(rig, end, *binary)
    start = time.monotonic()
    rig.cluster.start("cdc")
    done, rss = wait_applied(rig, SHARD, lsn(end))
    ours, theirs = bookings / (done - start), bookings / binary_s
    report.figure("backlog, pg_recvlogical, binary", [{"rate": theirs}], unit="bookings/s")
    report.figure("backlog, pg_recvlogical, text", [{"rate": bookings / text_s}], unit="bookings/s")
    report.figure("backlog, seatgrid cdc", [{"rate": ours}], unit="bookings/s",
                  baseline="pg_recvlogical", ratio=ours / theirs)
    report.note(f"{bookings:,} bookings in transactions of 100, from the start of the process; "
                f"largest RSS {rss / 1e6:.1f} MB")
    report.promise("CDC drains a backlog", ">= 60 k bookings/s", f"{ours / 1000:.1f} k/s",
                   ours >= 60_000)
    report.promise("CDC drains a backlog", ">= half of pg_recvlogical", f"{ours / theirs:.2f} x",
                   ours / theirs >= 0.5)
    report.promise("CDC memory", "RSS <= 64 MB", f"{rss / 1e6:.1f} MB", rss <= 64e6)


def reseed(bench, bookings):
    """One shard with so many bookings, while everything serves."""
    rig, report = bench.rig, bench.report
    have = int(rig.sql(SHARD, "SELECT count(*) FROM bookings")[0][0])
    if have < bookings:
        make_backlog(rig, bookings - have)
    wait_idle(rig)
    have = int(rig.sql(SHARD, "SELECT count(*) FROM bookings")[0][0])
    before = streams(rig)[SHARD]["generation"]
    start = time.monotonic()
    answer = rig.cluster.cdc("POST", f"/admin/reseed?shard={SHARD}")
    if answer.status != 202:
        raise load.LoadError(f"reseed: {answer}")
    while True:
        stream = streams(rig)[SHARD]
        if stream["generation"] != before and stream["state"] == "running" \
                and not stream["seeding"]:
            break
        if time.monotonic() - start > 300:
            raise load.LoadError(f"reseed: not done: {stream}")
        time.sleep(0.02)
    seconds = time.monotonic() - start
    report.figure(f"reseed of {have:,} bookings", [{"rate": seconds}], unit="s")
    report.note(f"{have / seconds / 1000:.0f} k bookings/s, to the switch of the readers; RSS "
                f"{rig.cluster.rss_bytes('cdc') / 1e6:.1f} MB")


def with_cdc(bench):
    """Bookings with and without the consumer, in turn."""
    rig, report, plan = bench.rig, bench.report, bench.plan
    results = {True: [], False: []}
    for turn in range(plan.rounds):
        for running in (True, False) if turn % 2 == 0 else (False, True):
            rig.consume(running)
            if running:
                wait_idle(rig)
            bench.wrk_bookings(256, plan.warm_seconds)
            results[running].append(bench.wrk_bookings(256, plan.seconds))
    alone = median([r["rate"] for r in results[False]])
    both = median([r["rate"] for r in results[True]])
    report.figure("bookings, 256 connections", results[False], unit="bookings/s")
    report.figure("bookings, 256 connections, CDC", results[True], unit="bookings/s",
                  baseline="without CDC", ratio=both / alone)
    p99 = median([r["p99"] for r in results[True]])
    report.promise("durable bookings, 256 connections, CDC running", ">= 25 k/s, p99 <= 20 ms",
                   f"{both / 1000:.1f} k/s, p99 {p99:.1f} ms", both >= 25_000 and p99 <= 20)


def run(bench):
    """The consumer."""
    report, plan = bench.report, bench.plan
    report.section("cdc", "WAL to Redis: bookings beside it, latency, backlog, reseed")
    bench.rig.serve({})
    with_cdc(bench)
    bench.rig.consume(True)
    p50, p99 = latency(bench, "2,000 bookings/s", plan.rate_seconds, connections=64, rate=2000)
    latency(bench, "saturation", plan.rate_seconds, connections=256)
    report.promise("CDC latency at 2 k bookings/s", "p50 <= 5 ms, p99 <= 30 ms",
                   f"p50 {p50:.1f} ms, p99 {p99:.1f} ms", p50 <= 5 and p99 <= 30)
    drain(bench, plan.backlog)
    reseed(bench, plan.reseed)
    bench.rig.consume(False)


# ---- event streams -------------------------------------------------------------------------------

def live(bench):
    """10,000 open streams of one event, and sales told to all of them."""
    rig, report = bench.rig, bench.report
    report.section("live", "Event streams: 10,000 watchers of one event")
    rig.serve({"live.max_streams": 20000})
    rig.consume(True)
    event = rig.cluster.make_event(100, 100, SHARD, "Live")
    wait_idle(rig)
    while rig.cluster.get(f"/events/{event}/availability").json()["source"] != "redis":
        time.sleep(0.1)     # the server has not seen the consumer alive yet
    watchers = subprocess.Popen([load.tool("streams"), rig.address, str(event), "10000", "12",
                                 str(rig.pid)], stdout=subprocess.PIPE, text=True)
    time.sleep(5)
    for number in range(50):
        assert rig.cluster.book(event, [(1 + number, 1)], user=f"live-{number}").status == 201
        time.sleep(0.05)
    told = json.loads(watchers.communicate(timeout=120)[0].strip().splitlines()[-1])
    open_kb = max(told["rssOpenKb"], told["rssEndKb"])
    report.figure("open streams", [{"rate": told["opened"]}], unit="streams")
    report.figure("RSS of serve with them open", [{"rate": open_kb / 1000}], unit="MB")
    report.note(f"RSS {told['rssBeforeKb'] / 1000:.1f} MB before, {told['rssOpenKb'] / 1000:.1f}"
                f" with all open, {told['rssEndKb'] / 1000:.1f} after 50 sales were told to all; "
                f"{told}")
    report.check("every stream heard every sale, none ended",
                 told["opened"] == 10000 and told["ended"] == 0
                 and told["events"] >= 50 * 10000, f"{told}")
    report.promise("10,000 open streams", "300 MB", f"{open_kb / 1000:.0f} MB",
                   open_kb <= 300_000 and told["opened"] == 10000)
    rig.consume(False)


# ---- my tickets ----------------------------------------------------------------------------------

def give_tickets(rig, user, homes):
    """Ten tickets on each of the shards named, of ten in all."""
    for shard, count in homes.items():
        event = rig.cluster.make_event(10, 10, shard, "Tickets")
        for number in range(count):
            answer = rig.cluster.book(event, [(1 + number, 1)], user=user)
            assert answer.status == 201, answer


def ask_tickets(bench, name, user, wanted, partial=False, baseline=None, path=None):
    """A row: one way to ask, at a fixed rate of arrivals, after a look at one answer."""
    rig, report, plan = bench.rig, bench.report, bench.plan
    where = path or f"/users/{user}/tickets"
    if not path:
        body = rig.cluster.get(where).json()
        report.check(f"{name}: {wanted} tickets, partial {partial}",
                     len(body["tickets"]) == wanted and body["partial"] == partial,
                     f"{len(body['tickets'])}, {body['partial']}")
    load.loadgen(rig.address, traffic="get", path=where, connections=16, rate=300, hold_ms=1000)
    rounds = [load.loadgen(rig.address, traffic="get", path=where, connections=16, rate=300,
                           hold_ms=plan.rate_seconds * 500) for _ in range(plan.rounds)]
    for result in rounds:
        if set(result["raw"]["statuses"]) != {"200"}:
            raise load.LoadError(f"{name}: {result['raw']['statuses']}")
    p99 = median([r["p99"] for r in rounds])
    report.figure(name, rounds, unit="answers/s", baseline="one shard's p99" if baseline else None,
                  ratio=p99 / baseline if baseline else None)
    return p99


def tickets(bench):
    """GET /users/{id}/tickets, ten tickets."""
    rig, report = bench.rig, bench.report
    report.section("tickets", "My tickets: ten of a user, 300 arrivals/s")
    rig.serve({})
    rig.consume(True)
    give_tickets(rig, "bench-one", {SHARD: 10})
    give_tickets(rig, "bench-all", {shard: 10 // len(rig.shards) for shard in rig.shards})
    wait_idle(rig)
    rig.wait_replicated()
    time.sleep(2)
    alone = ask_tickets(bench, "on one shard", "bench-one", 10)
    everywhere = ask_tickets(bench, "on all shards", "bench-all", 10, baseline=alone)
    rig.cluster.stop("redis")
    time.sleep(1)
    ask_tickets(bench, "on one shard, Redis dead", "bench-one", 10, baseline=alone)
    rig.cluster.start("redis")
    for number in (1, 2):
        rig.cluster.stop(f"beta-{number}")
    time.sleep(3)
    dead = ask_tickets(bench, "on all shards, one dead", "bench-all", 5, partial=True,
                       baseline=alone)
    for number in (1, 2):
        rig.cluster.start(f"beta-{number}")
    rig.wait_ready()
    report.promise("my tickets, on all shards", "p99 <= 1.3 x a single-shard query",
                   f"{everywhere / alone:.2f} x ({everywhere:.2f} ms)", everywhere <= 1.3 * alone)
    report.promise("my tickets with a shard dead", "partial answer <= 300 ms",
                   f"p99 {dead:.1f} ms", dead <= 300)
    rig.consume(False)
