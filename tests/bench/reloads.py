"""The reload row of the benchmark: how long a reload takes, and what it does to traffic.

    map of 10,000 ranges ─> POST /admin/reload, again and again ─> its own durations
    two maps in turn ──────> POST /admin/reload, 1,000 times ──┐
    loadgen, 1,000,000 requests, shard of every answer checked ┴─> 0 dropped, 0 misrouted

The two maps cut the ranges of existing events differently (same owner, other borders) and let ids
without events change hands, so each reload has to ask the shards whether any event would strand.

SPDX-License-Identifier: MIT
"""

import re
import threading
import time

import load
from report import median

RANGE = re.compile(r'first\s*=\s*(\d+)L?\s*;\s*last\s*=\s*(\d+)L?\s*;\s*shard\s*=\s*"([^"]+)"')
CHUNKS = 50             # loadgen runs that the traffic is made of
TAIL_IDS = 10           # ids of each range behind the existing ones


class Maps:
    """Shard maps made from the cluster's own: other versions, other borders, same servers."""

    def __init__(self, text):
        self.original = text
        self.version = int(re.search(r"map_version\s*=\s*(\d+)", text).group(1))
        self.ranges = [(int(first), int(last), shard) for first, last, shard in RANGE.findall(text)]
        self.shards = list(dict.fromkeys(shard for _, _, shard in self.ranges))

    def _split(self, pieces):
        """Existing ranges, each cut into so many; owners stay."""
        out = []
        for first, last, shard in self.ranges:
            count = min(pieces, last - first + 1)
            borders = [first + (last - first + 1) * i // count for i in range(count + 1)]
            out += [(a, b - 1, shard) for a, b in zip(borders, borders[1:])]
        return out

    def next(self, pieces, total, phase):
        """Text of a map with the next version: existing ranges in pieces, filled up to `total`."""
        ranges = self._split(pieces)
        first = ranges[-1][1] + 1
        for i in range(total - len(ranges)):
            shard = self.shards[(i + phase) % len(self.shards)]
            ranges.append((first, first + TAIL_IDS - 1, shard))
            first += TAIL_IDS
        self.version += 1
        body = ",\n".join(f'  {{ first = {a}L; last = {b}L; shard = "{shard}"; }}'
                          for a, b, shard in ranges)
        text = re.sub(r"map_version\s*=\s*\d+", f"map_version = {self.version}", self.original)
        return re.sub(r"ranges\s*=\s*\(.*?\)\s*;", f"ranges = (\n{body} );", text, count=1,
                      flags=re.DOTALL)


def timed(bench, maps):
    """Reloads of a map of 10,000 ranges on a quiet system."""
    rig, report = bench.rig, bench.report
    parts = {}
    for turn in range(bench.plan.timed_reloads):
        rig.write_map(maps.next(pieces=100, total=10_000, phase=turn % 2))
        durations = rig.reload()
        for name, us in durations.items():
            parts.setdefault(name, []).append(us)
    for name in ("own", "ask", "call"):
        rounds = [{"rate": us / 1000} for us in parts[name]]
        report.figure({"own": "10,000 ranges: parse to publish", "ask": "asking the shards",
                       "call": "the whole call"}[name], rounds, unit="ms")
    report.note(f"medians: parse {median(parts['parse']) / 1000:.2f} ms, publish "
                f"{median(parts['publish']) / 1000:.3f} ms; asking the shards, which waits for "
                "PostgreSQL, is not the reload's own time")
    return median(parts["own"]) / 1000


class Traffic(threading.Thread):
    """Mixed load in chunks until told to stop; adds the reports up."""

    def __init__(self, bench, events, wanted):
        super().__init__(daemon=True)
        self.bench, self.events, self.wanted = bench, events, wanted
        self.totals = {key: 0 for key in ("answers", "lost", "misrouted", "unrouted",
                                          "map_version_backwards", "sold", "seconds")}
        self.statuses = {}
        self.stopping = threading.Event()
        self.error = None

    def run(self):
        first_seat = 1
        try:
            while not self.stopping.is_set():
                result = load.loadgen(self.bench.rig.address, traffic="mixed", read_percent=70,
                                      events=self.events, rows=50, cols=50, first_seat=first_seat,
                                      connections=64, requests=self.wanted // CHUNKS,
                                      hold_ms=300_000)
                first_seat += result["raw"]["walked"] // 200 + 2
                self.add(result["raw"])
        except load.LoadError as error:
            self.error = error

    def add(self, raw):
        for key in ("answers", "misrouted", "unrouted", "map_version_backwards"):
            self.totals[key] += raw[key]
        self.totals["lost"] += load.lost(raw)
        self.totals["sold"] += raw["statuses"].get("201", 0)
        self.totals["seconds"] += raw["run"]["seconds"]
        for status, count in raw["statuses"].items():
            self.statuses[status] = self.statuses.get(status, 0) + count


def under_load(bench, maps):
    """Reloads between two maps while requests run; returns (good, reloads, answers)."""
    rig, report, plan = bench.rig, bench.report, bench.plan
    events = rig.create_events(200, 50, 50)
    rig.wait_replicated()
    traffic = Traffic(bench, rig.events_file(events), plan.reload_requests)
    traffic.start()
    deadline = time.monotonic() + plan.reload_seconds
    durations, shown = [], 0
    while traffic.is_alive():
        share = traffic.totals["answers"] / plan.reload_requests
        if share >= 1 and len(durations) >= plan.reloads or time.monotonic() > deadline:
            traffic.stopping.set()
        if share * 4 >= shown + 1:
            shown = int(share * 4)
            print(f"    ... {traffic.totals['answers']:,} requests, {len(durations):,} reloads",
                  flush=True)
        if len(durations) >= plan.reloads * (share + 1 / CHUNKS):
            time.sleep(0.02)    # as many reloads as requests, in proportion
            continue
        turn = len(durations) % 2
        rig.write_map(maps.next(pieces=10 + turn, total=50, phase=turn))
        durations.append(rig.reload()["call"])
    traffic.join()
    if traffic.error:
        raise traffic.error
    return finish(bench, traffic, events, len(durations), durations)


def finish(bench, traffic, events, reloads, durations):
    report, totals = bench.report, traffic.totals
    report.figure("traffic during the reloads", [{"rate": totals["answers"] / totals["seconds"]}])
    report.note(f"{totals['answers']:,} requests, {reloads:,} reloads of a map of 50 ranges "
                f"(calls: median {median(durations) / 1000:.1f} ms, slowest "
                f"{max(durations) / 1000:.1f} ms), statuses {traffic.statuses}")
    report.check("no request dropped", totals["lost"] == 0, f"{totals['lost']}")
    report.check("none refused", set(traffic.statuses) <= {"200", "201"}, str(traffic.statuses))
    report.check("none misrouted: every answer names its event's shard",
                 totals["misrouted"] + totals["unrouted"] == 0,
                 f"{totals['misrouted']} and {totals['unrouted']} without a name")
    report.check("no connection saw the map go back", totals["map_version_backwards"] == 0,
                 f"{totals['map_version_backwards']}")
    rows, strays = placed(bench.rig, events)
    report.check("rows are where the map says, as many as 201s (SQL)",
                 rows == totals["sold"] and strays == 0,
                 f"{rows} rows, {totals['sold']} x 201, {strays} on the wrong shard")
    good = (totals["lost"] + totals["misrouted"] + totals["unrouted"] + strays == 0
            and rows == totals["sold"])
    return good, reloads, totals["answers"]


def placed(rig, events):
    """Bookings of these events over all shards, and those on a shard that is not their event's."""
    rows = strays = 0
    for shard in rig.shards:
        own = {event for event, home in events if home == shard}
        low, high = min(event for event, _ in events), max(event for event, _ in events)
        for event, count in rig.sql(shard, "SELECT event_id, count(*) FROM bookings WHERE event_id "
                                           f"BETWEEN {low} AND {high} GROUP BY event_id"):
            if int(event) in own:
                rows += int(count)
            elif int(event) in {e for e, _ in events}:
                strays += int(count)
    return rows, strays


def run(bench):
    rig, report = bench.rig, bench.report
    report.section("reload", "Reload of the shard map")
    rig.serve({})
    original = rig.read_map()
    maps = Maps(original)
    try:
        own_ms = timed(bench, maps)
        good, reloads, answers = under_load(bench, maps)
    finally:
        rig.write_map(maps.next(pieces=1, total=0, phase=0))
        rig.reload()
    report.promise("reload of 10,000 ranges, parse to publish", "<= 10 ms", f"{own_ms:.1f} ms",
                   own_ms <= 10)
    report.promise("reloads under load", "0 misrouted, 0 dropped of 1 M over 1,000",
                   f"{'0' if good else 'some'} of {answers:,} over {reloads:,}",
                   good if answers >= 1_000_000 and reloads >= 1000 else None if good else False)
