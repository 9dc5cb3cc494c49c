"""The cluster under the benchmark: the test harness's, and what load needs to know about it.

    Rig() ─> harness.Cluster ─> PostgreSQL primaries and replicas, Redis, seatgrid serve
      serve({settings})      restarts seatgrid serve when they differ from what it has
      create_events, take_seats, sql, metric, reload, kill, ...

Leaving it stops and removes everything. It knows nothing of figures.

SPDX-License-Identifier: MIT
"""

import os
import pathlib
import random
import re
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "integration"))

import harness  # noqa: E402

SHARDS = ("alpha", "beta")


class Rig:
    """Two shards with a streaming replica each, a Redis, and `seatgrid serve`."""

    shards = SHARDS
    workers = os.cpu_count()    # the default of `seatgrid serve`: one a core

    def __init__(self):
        self.cluster = harness.Cluster(start=False, queue=True)     # the consumer: see consume()
        self.cluster.queue = False      # its ports are reserved: see queue()
        self.cluster.settings = self._settings({})
        self.ports = harness.Ports(2)
        self._files = {}

    def __enter__(self):
        self.cluster.__enter__()
        try:
            self.cluster.up()
            self.pid = self.cluster.pid("serve")
        except BaseException:
            self.__exit__(*sys.exc_info())
            raise
        return self

    def __exit__(self, *what):
        self.ports.release()
        self.cluster.__exit__(*what)

    # ---- the server under test -------------------------------------------------------------------

    @staticmethod
    def _settings(settings):
        return {"log.level": "warn", "http.max_connections": 20000, **settings}

    @property
    def address(self):
        return f"127.0.0.1:{self.cluster.http_port}"

    def serve(self, settings):
        """`seatgrid serve` with these settings over the defaults; restarted unless it has them."""
        wanted = self._settings(settings)
        if self.cluster.settings != wanted:
            self.cluster.stop("serve")
            self.cluster.settings = wanted
            self.cluster.up()
            self.pid = self.cluster.pid("serve")

    def consume(self, running):
        """Starts or stops `seatgrid cdc`; it does not run unless a row wants it."""
        flags = self.cluster.flags
        if running == ("--no-cdc" not in flags):
            return
        if running:
            flags.remove("--no-cdc")
            self.cluster.up()
        else:
            flags.append("--no-cdc")
            self.cluster.stop("cdc")

    def queue(self):
        """RabbitMQ and `seatgrid worker` beside `seatgrid serve`, from now on."""
        if not self.cluster.queue:
            self.cluster.down()
            self.cluster.queue = True
            self.cluster.up()
            self.pid = self.cluster.pid("serve")

    def work(self, running):
        """Starts or stops the worker."""
        if running:
            self.cluster.start("worker")
        else:
            self.cluster.stop("worker")

    def wait_ready(self):
        self.cluster.wait_ready(60)

    def wait_idle(self):
        """Until no booking waits in a lane or is in flight, also of clients that have gone."""
        harness.wait_until(lambda: self.metric("seatgrid_lane_waiting") == 0, 30, what="idle lanes")
        time.sleep(0.1)

    def rss_kb(self):
        status = pathlib.Path(f"/proc/{self.pid}/status").read_text(encoding="ascii")
        return int(re.search(r"VmRSS:\s*(\d+)", status).group(1))

    def fd_count(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def get(self, path, headers=None):
        """(status, headers, body)"""
        answer = self.cluster.get(path, headers)
        return answer.status, answer.headers, answer.body

    def metric(self, name, **labels):
        return self.cluster.metric(name, **labels)

    def bookings_answered(self):
        """201s since the server started, whether the client was still there or not."""
        return int(self.metric("seatgrid_http_requests_total", route="POST /book", outcome="ok"))

    # ---- events and seats ------------------------------------------------------------------------

    def create_events(self, count, rows, cols):
        """[(id, shard)], in turn on each shard."""
        homes = [SHARDS[i % len(SHARDS)] for i in range(count)]
        return [(self.cluster.make_event(rows, cols, shard, "Bench"), shard) for shard in homes]

    def events_file(self, events):
        """Path of a file with a line "ID SHARD" for each."""
        key = tuple(events)
        if key not in self._files:
            path = self.cluster.folder / f"events-{len(self._files)}"
            path.write_text("".join(f"{event} {shard}\n" for event, shard in events),
                            encoding="ascii")
            self._files[key] = path
        return self._files[key]

    def take_seats(self, event, rows, cols, count):
        """Books so many seats, scattered over the grid, ten a booking."""
        seats = [(1 + i // cols, 1 + i % cols) for i in range(rows * cols)]
        random.Random(event).shuffle(seats)
        for first in range(0, count, 10):
            answer = self.cluster.book(event, seats[first:min(first + 10, count)])
            assert answer.status == 201, answer

    # ---- databases -------------------------------------------------------------------------------

    def sql(self, shard, query):
        """Rows of strings, from the shard's primary."""
        return self.cluster.sql(shard, query)

    def dsn(self, node):
        """As the shard map says it."""
        entry = rf'name\s*=\s*"{node}"\s*;\s*dsn\s*=\s*"([^"]+)"'
        return re.search(entry, self.read_map()).group(1)

    def primary_dsn(self, shard):
        return self.dsn(f"{shard}-1")

    def replica_dsn(self, shard):
        return self.dsn(f"{shard}-2")

    def wait_replicated(self):
        self.cluster.wait_replicas(60)

    def odd_seats(self):
        """Seats whose claim and booking disagree, over all shards: a seat that is in two bookings,
        a claim without its booking, a booking without one of its claims."""
        return sum(int(self.sql(shard, """
            SELECT count(*) FROM (SELECT event_id, unnest(seats) AS seat_no, booking_id
                                    FROM bookings WHERE status = 'confirmed'
                                      OR status = 'held' AND expires_at > now()) b
              FULL JOIN (SELECT * FROM claims WHERE state = 'booked' OR held_until > now()) c
             USING (event_id, seat_no)
             WHERE b.booking_id IS DISTINCT FROM c.booking_id""")[0][0]) for shard in SHARDS)

    # ---- the shard map ---------------------------------------------------------------------------

    @property
    def map_path(self):
        return self.cluster.var / "shardmap.cfg"

    def read_map(self):
        return self.map_path.read_text(encoding="utf-8")

    def write_map(self, text):
        fresh = self.map_path.with_suffix(".fresh")
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(self.map_path)

    def reload(self):
        """Durations of a reload in microseconds: its steps; "own": reading, checking, publishing
        without the wait for the shards' word; "call": the HTTP call around all of it."""
        started = time.monotonic()
        answer = self.cluster.admin("POST", "/admin/reload")
        call_us = (time.monotonic() - started) * 1e6
        assert answer.status == 200 and answer.json()["outcome"] == "published", answer
        steps = {name: answer.json()[f"{name}Us"] for name in ("parse", "ask", "publish")}
        return {**steps, "own": steps["parse"] + steps["publish"], "call": call_us}

    # ---- breaking things -------------------------------------------------------------------------

    def killable(self):
        """Servers that `kill` and `revive` know."""
        return [f"{shard}-{number}" for shard in SHARDS for number in (1, 2)] + ["redis"]

    def kill(self, name):
        self.cluster.crash(name)

    def revive(self, name):
        self.cluster.start(name)
