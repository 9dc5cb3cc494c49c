"""Servers die, restart and fall silent under load; the router says so clearly and comes back.

Goal: no confirmed booking is lost, no seat has two owners, nobody is told no to what was done; the
other shard notices nothing; all of it heals without a restart of serve, and without a leak. Method:
threads book, read and list all the time (traffic.py writes every answer down) while one thing is
broken after the other; then the answers are laid beside the tables.

SPDX-License-Identifier: MIT
"""

import contextlib
import os
import pathlib
import signal
import subprocess
import time

from harness import (SANITIZER, SLOWDOWN, VARIANT, Ports, binary, environment,
                     http_request, refused, short, timeout, wait_until)
from traffic import Traffic

# Short deadlines, so that a fault of seconds reaches them; the order of the three is the usual one.
CLUSTER = {"replicas": 1, "strategy": "batched",
           "settings": {"workers": 2, "booking.deadline_ms": 1500, "reads.deadline_ms": 800,
                        "postgres.statement_timeout_ms": 1200}}
HEALS_WITHIN_S = 8


# ---- watching serve -------------------------------------------------------------------------------


def open_files(cluster):
    """Descriptors of serve."""
    return len(os.listdir(f"/proc/{cluster.pid('serve')}/fd"))


class Watch:
    """Serve is the same process afterwards, with as many descriptors and as much memory."""

    def __init__(self, cluster):
        self.cluster = cluster

    def __enter__(self):
        self.pid = self.cluster.pid("serve")
        with Traffic(self.cluster):  # warm: buffers and pools have their size
            time.sleep(0.5)
        self._settle()
        self.ready, self.others = self._descriptors()
        self.write = self.cluster.metric("seatgrid_db_connections", use="write")
        self.rss = self.cluster.rss_bytes()
        return self

    def _settle(self):
        wait_until(lambda: self.cluster.metric("seatgrid_http_connections", listener="http") == 0,
                   what="clients to be gone")

    def _descriptors(self):
        """(connections to PostgreSQL that are ready, all other descriptors)"""
        ready = int(self.cluster.metric("seatgrid_db_connections"))
        return ready, open_files(self.cluster) - ready

    def _is_as_before(self):
        # the connection for creating events is made when a worker is first asked to; some were only
        # on their way at first
        late = self.cluster.metric("seatgrid_db_connections", use="write") - self.write
        ready, others = self._descriptors()
        return (late >= 0 and ready >= self.ready and others <= self.others
                and ready + others <= self.ready + self.others + late)

    def __exit__(self, kind, *_):
        if kind:
            return
        assert self.cluster.pid("serve") == self.pid, "serve did not survive"
        self._settle()
        wait_until(self._is_as_before, what="connections and descriptors to be as before: "
                   f"{(self.ready, self.others)}, now {self._descriptors()}")
        grown = self.cluster.rss_bytes() - self.rss
        if VARIANT == "release":  # sanitizers keep what was freed
            assert grown < 24 << 20, f"serve has grown by {grown >> 20} MiB"


def story(cluster, fault, heal, shard="alpha", hold=2.2, other="beta", untouched=True,
          recovers="book"):
    """One fault under load, and the verdict. Gives the traffic, and when the fault was."""
    cluster.wait_ready()
    with Watch(cluster):
        with Traffic(cluster) as traffic:
            traffic.wait_for(20, shard=shard)
            broken = time.monotonic()
            fault()
            time.sleep(hold * SLOWDOWN)
            healed = time.monotonic()
            heal()
            ready = time.monotonic()
            took = traffic.wait_for(20, HEALS_WITHIN_S, shard=shard, kind=recovers)
            time.sleep(0.3)
        traffic.check_answers()
        if untouched:
            p95 = traffic.check_untouched(other, broken, ready)
            print(f"      {other} meanwhile: p95 {p95 * 1000:.1f} ms")
        traffic.check_tables(cluster)
        again = traffic.retry_unknown(cluster)
    cluster.wait_ready()
    print(f"      {traffic.counts()}; good again after {took:.2f} s, {again} asked again")
    return traffic, broken, healed


def codes(records):
    """The different codes among them."""
    return {record.code for record in records if record.code}


# ---- one thing breaks -----------------------------------------------------------------------------


@short
@timeout(120)
def test_primary_is_killed(cluster):
    """kill -9 of a primary and a start seconds later."""
    traffic, broken, healed = story(cluster, lambda: cluster.crash("alpha-1"),
                                    lambda: cluster.start("alpha-1"))
    meanwhile = traffic.select("alpha", "book", broken, healed)
    assert codes(meanwhile) & {"shard_unavailable", "outcome_unknown"}, codes(meanwhile)
    assert codes(traffic.select("beta", "book")) <= {"seats_taken"}
    reads = traffic.select("alpha", "read", broken + 0.5, healed)
    assert reads and all(r.status == 200 for r in reads), "the replica is still there to read from"


@timeout(120)
def test_primary_restarts_again_and_again(cluster):
    """Fast restarts: transactions are cut at every moment, some between their rows and commit."""
    def restarts():
        for _ in range(4):
            cluster.restart("alpha-1")
            time.sleep(0.3)

    traffic, _, _ = story(cluster, restarts, lambda: None, hold=0)
    assert sum(r.status == 201 for r in traffic.select("alpha", "book")) > 50


@timeout(120)
def test_replica_is_killed(cluster):
    """Reads go to the primary, and come back; nobody sees an error."""
    traffic, broken, healed = story(cluster, lambda: cluster.crash("alpha-2"),
                                    lambda: cluster.start("alpha-2"), recovers="read")
    bad = [r for r in traffic.records if r.status not in (200, 201, 409)]
    assert len([r for r in bad if r.kind != "book"]) <= 2, bad  # documented: 503, may be retried
    assert not [r for r in bad if r.kind == "book"], bad
    late = traffic.select("alpha", "seats", broken + 1, healed)
    assert {r.node for r in late} == {"alpha-1"}, {r.node for r in late}
    wait_until(lambda: cluster.get(f"/events/{traffic.events['alpha'][0]}/seats")
               .headers["SeatGrid-Node"] == "alpha-2", what="reads to be back on the replica")


@timeout(120)
def test_redis_is_killed(cluster):
    """Nothing notices but its own gauge."""
    def gauge():
        return cluster.metric("seatgrid_redis_up")

    def fault():
        wait_until(lambda: gauge() == 1, what="seatgrid_redis_up to be 1")
        cluster.crash("redis")
        wait_until(lambda: gauge() == 0, what="seatgrid_redis_up to be 0")

    traffic, broken, _ = story(cluster, fault, lambda: cluster.start("redis"), hold=0.5)
    traffic.check_untouched("alpha", broken, float("inf"))
    assert codes(traffic.records) <= {"seats_taken"}
    wait_until(lambda: gauge() == 1, what="seatgrid_redis_up to be 1 again")


@short
@timeout(120)
def test_primary_falls_silent(cluster):
    """SIGSTOP: connections are taken and nothing is said. Deadlines answer; then it goes on."""
    try:
        traffic, broken, healed = story(cluster, lambda: cluster.pause("alpha-1"),
                                        lambda: cluster.resume("alpha-1"), hold=3.5)
    finally:
        cluster.resume("alpha-1")
    meanwhile = traffic.select("alpha", "book", broken, healed - 2 * SLOWDOWN)
    assert "outcome_unknown" in codes(meanwhile), codes(meanwhile)
    slowest = max(r.end - r.start for r in traffic.select("alpha"))
    assert slowest < 1.5 + 1.0 * SLOWDOWN, f"an answer took {slowest:.1f} s"


@timeout(120)
def test_a_whole_shard_is_dead(cluster):
    """Both nodes gone: every answer says so within its deadline; lists are partial."""
    gone = []

    def fault():
        cluster.crash("alpha-1")
        cluster.crash("alpha-2")
        gone.append(time.monotonic())

    def heal():
        cluster.start("alpha-1")
        cluster.start("alpha-2")

    traffic, _, healed = story(cluster, fault, heal, hold=2.5)
    broken = gone[0]
    meanwhile = traffic.select("alpha", since=broken + 0.3, until=healed)
    own = [r for r in meanwhile if r.kind != "list"]
    assert own and all(r.status == 503 for r in own if r.end < healed), codes(own)
    lists = [r for r in traffic.select(kind="list", since=broken + 0.3) if r.end < healed]
    assert lists and all(r.status == 200 for r in lists), lists[:3]
    assert all(r.body == {"partial": True, "missing": ["alpha"]} for r in lists), lists[:3]


# ---- the other strategies, in short ---------------------------------------------------------------


def killed_with(cluster, strategy):
    """Serve with the strategy; the primary is killed once."""
    cluster.strategy = strategy
    cluster.up()
    try:
        story(cluster, lambda: cluster.crash("alpha-1"), lambda: cluster.start("alpha-1"),
              hold=0.8)
    finally:
        cluster.strategy = "batched"
        cluster.up()


@timeout(120)
def test_primary_is_killed_pessimistic(cluster):
    """As above, seats locked before they are read."""
    killed_with(cluster, "pessimistic")


@timeout(120)
def test_primary_is_killed_optimistic(cluster):
    """As above, a version checked when it writes."""
    killed_with(cluster, "optimistic")


@timeout(120)
def test_primary_is_killed_naive(cluster):
    """As above, separate statements."""
    killed_with(cluster, "naive")


# ---- serve itself ---------------------------------------------------------------------------------


class Serve:
    """Another `seatgrid serve` on the cluster's shards, as a child of the test."""

    def __init__(self, cluster, http_port=None, admin_port=None):
        self._ports = Ports(2)
        self.http_port = http_port or self._ports.base
        self.admin_port = admin_port or self._ports.base + 1
        text = (cluster.var / "seatgrid.cfg").read_text(encoding="utf-8")
        text = text.replace(f":{cluster.http_port}", f":{self.http_port}")
        text = text.replace(f":{cluster.admin_port}", f":{self.admin_port}")
        self._config = cluster.var / "other.cfg"
        self._config.write_text(text, encoding="utf-8")
        self.log = cluster.var / "log" / "other.log"

    def __enter__(self):
        with self.log.open("w", encoding="utf-8") as output:
            self.process = subprocess.Popen(
                [binary(), "serve", "-c", self._config], env=environment(),
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
        return self

    def __exit__(self, kind, *_):
        self.process.kill()
        self.process.wait()
        self._ports.release()
        said = self.log.read_text(encoding="utf-8", errors="replace")
        if not kind:
            assert not SANITIZER.search(said), said[-6000:]

    def wait_listening(self):
        """Until it answers at all."""
        def answers():
            assert self.process.poll() is None, self.text()
            with contextlib.suppress(OSError):
                return http_request(self.http_port, "GET", "/healthz", timeout=2).status == 200
        wait_until(answers, 20, what="the other serve to answer")

    def wait_ready(self):
        """Until both of its shards are there."""
        def ready():
            with contextlib.suppress(OSError):
                return http_request(self.http_port, "GET", "/readyz", timeout=2).status == 200
        wait_until(ready, 20, what="the other serve to be ready")

    def end(self, number=signal.SIGTERM):
        """The exit code after the signal."""
        self.process.send_signal(number)
        return self.process.wait(20 * SLOWDOWN)

    def text(self):
        """What it has said."""
        return self.log.read_text(encoding="utf-8", errors="replace")


@short
@timeout(120)
def test_sigterm_drains(cluster):
    """Under load: what was accepted is answered, then it ends with 0."""
    cluster.wait_ready()
    with Serve(cluster) as serve:
        serve.wait_ready()
        with Traffic(cluster, port=serve.http_port, bookers=8) as traffic:
            traffic.wait_for(50)
            start = time.monotonic()
            assert serve.end() == 0, serve.text()
            took = time.monotonic() - start
            assert refused(serve.http_port)
        print(f"      drained in {took:.2f} s: {traffic.counts()}")
        assert took < 2 * SLOWDOWN, serve.text()
        assert sum(r.status == 201 for r in traffic.records) >= 50
        bad = [r for r in traffic.records if r.status not in (200, 201, 409, None)]
        assert not bad, bad[:5]
        rows = traffic.rows(cluster)
        lost = [r for r in traffic.records if r.status is None and r.user in rows]
        assert not lost, f"booked, but never answered: {lost[:5]}"
        traffic.check_tables(cluster)


@timeout(60)
def test_reads_outlive_a_primary(cluster):
    """Whoever sets no bound is served by the replica and told its age; a bound is kept."""
    made = cluster.post("/events", {"name": "Outlives", "startsAt": "2027-06-01T19:00:00Z",
                                    "rows": 2, "cols": 2, "shard": "alpha"})
    assert made.status == 201, made.body
    path = "/events/%d/seats" % made.json()["id"]
    strict = {"SeatGrid-Max-Staleness": "1500ms"}
    wait_until(lambda: cluster.get(path, strict).status == 200, what="the replica to have the event")
    cluster.crash("alpha-1")
    try:
        def age_ms():
            answer = cluster.get(path)
            assert answer.status in (200, 503), answer
            told = answer.headers.get("SeatGrid-Staleness")
            return int(told.removesuffix("ms")) if answer.status == 200 and told else 0
        wait_until(lambda: age_ms() > 2000, what="the replica's age to be told")
        for _ in range(10):
            assert cluster.get(path).status == 200
            refused = cluster.get(path, strict)
            assert (refused.status, refused.code) == (503, "shard_unavailable"), refused
    finally:
        cluster.start("alpha-1")
    wait_until(lambda: cluster.get(path, strict).status == 200, what="fresh reads again")


@timeout(60)
def test_a_changed_column_is_prepared_anew(cluster):
    """DDL under a prepared statement costs its connection, not the answer."""
    def make():
        answer = cluster.post("/events", {"name": "DDL", "startsAt": "2027-06-01T19:00:00Z",
                                          "rows": 2, "cols": 2, "shard": "alpha"})
        return answer.status == 201 and answer
    made = wait_until(make, what="the primary, which the test before has killed")
    path = "/events/%d" % made.json()["id"]
    for type_name in ("varchar(300)", "text"):
        assert cluster.get(path).status == 200
        cluster.sql("alpha-1", "ALTER TABLE events ALTER name TYPE %s" % type_name)
        for _ in range(20):
            answer = cluster.get(path)
            assert answer.status == 200, answer.body


@timeout(60)
def test_sigint_without_load(cluster):
    """Ctrl-C on a quiet server is the end at once."""
    cluster.wait_ready()
    with Serve(cluster) as serve:
        serve.wait_ready()
        start = time.monotonic()
        assert serve.end(signal.SIGINT) == 0, serve.text()
        assert time.monotonic() - start < 2 * SLOWDOWN


@timeout(60)
def test_a_taken_port_is_a_clear_error(cluster):
    """Exit code 1, and the address in the message; the one who has it notices nothing."""
    cluster.wait_ready()
    for ports in ({"http_port": cluster.http_port}, {"admin_port": cluster.admin_port}):
        with Serve(cluster, **ports) as serve:
            assert serve.process.wait(20 * SLOWDOWN) == 1, serve.text()
            (port,) = ports.values()
            assert f"127.0.0.1:{port}" in serve.text(), serve.text()
            assert "in use" in serve.text(), serve.text()
    assert cluster.get("/readyz").status == 200


@timeout(120)
def test_starts_with_a_dead_shard(cluster):
    """The living shard is served at once; the dead one as soon as it lives."""
    cluster.wait_ready()
    event = cluster.make_event(shard="beta")
    dead_event = cluster.make_event(shard="alpha")
    cluster.wait_replicas()
    cluster.crash("alpha-1")
    cluster.crash("alpha-2")
    try:
        with Serve(cluster) as serve:
            serve.wait_listening()

            def book(event_id, col):
                return http_request(serve.http_port, "POST", "/book",
                                    {"eventId": event_id, "userId": "u",
                                     "seats": [{"row": 1, "col": col}]})
            wait_until(lambda: book(event, 1).status in (201, 409), 5, what="beta to be served")
            start = time.monotonic()
            answer = book(event, 2)
            assert answer.status == 201 and time.monotonic() - start < 0.5 * SLOWDOWN, answer
            assert http_request(serve.http_port, "GET", "/readyz").status == 503
            answer = book(dead_event, 1)
            assert (answer.status, answer.code) == (503, "shard_unavailable"), answer
            assert http_request(serve.http_port, "GET", f"/events/{dead_event}").status == 503
            cluster.start("alpha-1")
            cluster.start("alpha-2")
            serve.wait_ready()
            wait_until(lambda: book(dead_event, 3).status in (201, 409), 5,
                       what="alpha to be served")
            assert serve.end() == 0, serve.text()
    finally:
        for name in ("alpha-1", "alpha-2"):
            if not cluster.pid(name):
                cluster.start(name)
    cluster.wait_ready()


def test_nothing_was_said_on_the_way(cluster):
    """After all of it: no assertion, no sanitizer, no internal error in the log."""
    log = pathlib.Path(cluster.var / "log" / "serve.log").read_text(encoding="utf-8")
    errors = [line for line in log.splitlines() if " error " in line]
    assert not errors, errors[:10]
