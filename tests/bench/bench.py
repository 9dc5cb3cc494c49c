#!/usr/bin/python3
"""`make bench`: SeatGrid's figures, each beside its baseline of the same run.

    cluster of its own (2 shards, a streaming replica each) ─> rows below ─> table, JSON, Markdown

Every cell is warmed up, then measured for a fixed time; where a ratio is promised, the cell and its
baseline alternate for several rounds and the medians are compared. After bookings SQL is asked
whether rows and answers agree. Exit: 0 measured and every check held, 1 not, 2 wrong usage.

SPDX-License-Identifier: MIT
"""

import argparse
import math
import os
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import booking_life  # noqa: E402
import cdc  # noqa: E402
import load  # noqa: E402
import reloads  # noqa: E402
from report import Report, median  # noqa: E402
from rig import Rig  # noqa: E402

STRATEGIES = ("batched", "pessimistic", "optimistic", "naive")
DOTNET_RATE = 5547      # SeatGrid on .NET, Redis Lua, warm: answers/s
DOTNET_P95_MS = 314
GRID = 1000             # rows and columns of the events that bookings walk through


class Plan:
    """How long and how often: the default stays under fifteen minutes, --quick under three."""

    def __init__(self, quick):
        self.rounds = 1 if quick else 3
        self.seconds = 2 if quick else 4
        self.warm_seconds = 1
        self.connections = (64, 256)
        self.ramp_ms, self.hold_ms = (2000, 4000) if quick else (10000, 20000)
        self.rate_seconds = 3 if quick else 10
        self.router_blocks = 8 if quick else 60
        self.reload_requests = 100_000 if quick else 1_000_000
        self.reloads = 100 if quick else 1000
        self.hot_halls = 1 if quick else 3              # a round, for the best seats
        self.backlog = 100_000 if quick else 400_000
        self.reseed = 200_000 if quick else 1_000_000
        self.timed_reloads = 10 if quick else 30
        self.reload_seconds = 60 if quick else 400     # then it ends, however far it got


class Bench:
    """What the rows share: the cluster, the report, the plan and which seats are used up."""

    def __init__(self, rig, report, plan):
        self.rig = rig
        self.report = report
        self.plan = plan
        self._walk_events = None
        self._next_seat = 1

    def walk_events(self):
        """200 large events over both shards, so large that no run sells one out."""
        if not self._walk_events:
            self._walk_events = self.rig.create_events(200, GRID, GRID)
        return self._walk_events

    def take_region(self, requests):
        """First seat of a region that no earlier run touched, for about so many requests."""
        first = self._next_seat
        self._next_seat += math.ceil(requests / len(self.walk_events())) + 8
        if self._next_seat > GRID * GRID:
            raise load.LoadError("the bench events are sold out")
        return first

    def wrk_bookings(self, connections, seconds):
        """POST /book by wrk, each its own seat."""
        threads = 1
        first = self._next_seat
        result = load.wrk(self.rig.address, "/book", connections, seconds, threads,
                          script=("walk", self.rig.events_file(self.walk_events()), GRID, first,
                                  threads))
        self.take_region(result["raw"]["requests"] + connections)
        if result["raw"]["refused"]:
            raise load.LoadError(f"bookings were refused: {result['raw']}")
        return result

    def loadgen_bookings(self, **options):
        first = self._next_seat
        result = load.loadgen(self.rig.address, traffic="walk", rows=GRID, cols=GRID,
                              events=self.rig.events_file(self.walk_events()), first_seat=first,
                              **options)
        self.take_region(result["raw"]["walked"])
        return result

    def alternate(self, cells):
        """Runs the cells in turn, forward and back, for as many rounds as planned."""
        results = {name: [] for name, _ in cells}
        for turn in range(self.plan.rounds):
            for name, cell in cells if turn % 2 == 0 else reversed(cells):
                results[name].append(cell())
        return results


def rate_of(rounds):
    return median([r["rate"] for r in rounds])


def median_interval(values):
    """Where the true median lies with 95 % certainty, from the order of the values alone."""
    ordered, half = sorted(values), 0.98 * math.sqrt(len(values))
    middle = (len(values) - 1) / 2
    return (ordered[max(0, math.floor(middle - half))],
            ordered[min(len(values) - 1, math.ceil(middle + half))])


# ---- 1. bookings, four strategies ----------------------------------------------------------------

def sale_counts(rig):
    """Rows of bookings over all shards, and 201s that the server counted since its start."""
    rows = sum(int(rig.sql(shard, "SELECT count(*) FROM bookings")[0][0]) for shard in rig.shards)
    return rows, rig.bookings_answered()


def measure_strategy(bench, strategy, results):
    """One server life: warm-up and one measured run at each number of connections."""
    rig, plan = bench.rig, bench.plan
    rig.serve({"booking.strategy": strategy})
    rows_before, answered_before = sale_counts(rig)
    for connections in plan.connections:
        bench.wrk_bookings(connections, plan.warm_seconds)
        results[strategy, connections].append(bench.wrk_bookings(connections, plan.seconds))
    rig.wait_idle()
    rows, answered = sale_counts(rig)
    return rows - rows_before, answered - answered_before


def bookings(bench):
    report, plan = bench.report, bench.plan
    report.section("bookings",
                   "Durable bookings/s of one seat, 200 events, 2 shards, async replicas")
    results = {(s, c): [] for s in STRATEGIES for c in plan.connections}
    differences = []
    for turn in range(plan.rounds):
        for strategy in STRATEGIES if turn % 2 == 0 else reversed(STRATEGIES):
            rows, answered = measure_strategy(bench, strategy, results)
            if rows != answered:
                differences.append(f"{strategy}: {rows} rows, {answered} x 201")
    for connections in plan.connections:
        slowest = rate_of(results["pessimistic", connections])
        for strategy in STRATEGIES:
            rounds = results[strategy, connections]
            report.figure(f"{strategy}, {connections} connections", rounds, unit="bookings/s",
                          baseline="pessimistic", ratio=rate_of(rounds) / slowest)
    report.check("every 201 has its row and every row its 201", not differences,
                 "; ".join(differences))
    check_sales(bench)
    promise_bookings(report, results)


def check_sales(bench):
    odd = bench.rig.odd_seats()
    bench.report.check("no seat is sold twice, no claim without its booking (SQL)", odd == 0,
                       "" if odd == 0 else f"{odd} seats")


def promise_bookings(report, results):
    rounds = results["batched", 256]
    rate, p99 = rate_of(rounds), median([r["p99"] for r in rounds])
    ratio = rate / rate_of(results["pessimistic", 256])
    report.promise("durable bookings, 256 connections", ">= 8 x pessimistic", f"{ratio:.1f} x",
                   ratio >= 8)
    report.promise("durable bookings, 256 connections, no CDC", ">= 30 k/s, p99 <= 20 ms",
                   f"{rate / 1000:.1f} k/s, p99 {p99:.1f} ms", rate >= 30_000 and p99 <= 20)


# ---- 2. the hot event ----------------------------------------------------------------------------

def hot_run(bench, name, pause_ms):
    """100 seats, 2,000 clients; returns loadgen's result after the checks."""
    rig, report, plan = bench.rig, bench.report, bench.plan
    event, shard = rig.create_events(1, 10, 10)[0]
    result = load.loadgen(rig.address, traffic="random", event=event, connections=2000,
                          ramp_ms=plan.ramp_ms, hold_ms=plan.hold_ms, pause_ms=pause_ms)
    raw = result["raw"]
    hold = raw["hold"]
    report.figure(name, [result], unit="answers/s", baseline=".NET's 5,547",
                  ratio=result["rate"] / DOTNET_RATE)
    report.figure("  during the hold alone", [load.of_rate(hold)], unit="answers/s",
                  baseline=".NET's 5,547", ratio=hold["answers_per_s"] / DOTNET_RATE)
    report.note(f"p95 {result['p95']:.1f} ms (.NET: {DOTNET_P95_MS}); statuses {raw['statuses']}; "
                f"loadgen itself used {raw['cpu_seconds']:.1f} s of CPU")
    sold = int(rig.sql(shard, f"SELECT count(*) FROM claims WHERE event_id = {event}")[0][0])
    said = raw["statuses"].get("201", 0)
    report.check("exactly 100 sold", sold == 100 and said == 100, f"{sold} rows, {said} x 201")
    report.check("no 5xx, nothing unanswered",
                 load.server_errors(raw) == 0 and load.lost(raw) == 0,
                 f"{load.server_errors(raw)} and {load.lost(raw)}")
    return result, sold == 100 and load.server_errors(raw) == 0


def hot(bench):
    report, plan = bench.report, bench.plan
    report.section("hot", "One hot event: 100 seats, 0 to 2,000 clients in "
                          f"{plan.ramp_ms // 1000} s, hold {plan.hold_ms // 1000} s")
    bench.rig.serve({})
    paused, paused_good = hot_run(bench, "0.1 s pause", 100)
    ceiling = (2000 / 0.1) * (plan.ramp_ms / 2 + plan.hold_ms) / (plan.ramp_ms + plan.hold_ms)
    report.note(f"with the pause, 2,000 clients cannot ask more than 20,000 times a second, "
                f"{ceiling:,.0f} over ramp and hold: 5 x 5,547 is out of reach by arithmetic, "
                "so the rate is judged without the pause")
    rushed, rushed_good = hot_run(bench, "no pause", 0)
    p95 = max(paused["p95"], rushed["p95"])
    report.promise("one hot event, 2,000 clients", ">= 5 x 5,547 answers/s (no pause)",
                   f"{rushed['rate'] / DOTNET_RATE:.1f} x", rushed["rate"] >= 5 * DOTNET_RATE)
    report.promise("one hot event, 2,000 clients", "p95 <= 60 ms",
                   f"{paused['p95']:.1f} ms with pause, {rushed['p95']:.1f} ms without", p95 <= 60)
    report.promise("one hot event, 2,000 clients", "exactly 100 sold, 0 x 5xx",
                   "so in both runs" if paused_good and rushed_good else "not so",
                   paused_good and rushed_good)


# ---- 3. seat maps, and 8. the ceiling ------------------------------------------------------------

def seatmap_event(bench):
    """10,000 seats, 2,700 taken, scattered."""
    event, _ = bench.rig.create_events(1, 100, 100)[0]
    bench.rig.take_seats(event, 100, 100, 2700)
    return event


def seatmap_cells(bench, event, evhttp, edge):
    rig, plan = bench.rig, bench.plan
    path = f"/events/{event}/seats"
    etag = rig.get(path)[1]["ETag"]

    def cell(address, where, headers=(), connections=64):
        def run():
            load.wrk(address, where, connections, plan.warm_seconds, 2, headers)
            return load.wrk(address, where, connections, plan.seconds, 2, headers)
        return run

    return [("bare evhttp", cell(evhttp.address, "/")),
            ("304", cell(rig.address, path, (f"If-None-Match: {etag}",))),
            ("200", cell(rig.address, path)),
            ("200 gzip", cell(rig.address, path, ("Accept-Encoding: gzip",))),
            ("GET /healthz", cell(rig.address, "/healthz")),
            ("our edge, constant", cell(edge.address, "/"))]


def check_seatmap_cells(bench, event):
    """That the cells ask for what their names say."""
    path = f"/events/{event}/seats"
    status, headers, body = bench.rig.get(path)
    taken = body.count(b"x")
    again = bench.rig.get(path, {"If-None-Match": headers["ETag"]})[0]
    packed = bench.rig.get(path, {"Accept-Encoding": "gzip"})
    bench.report.check("the map shows 2,700 taken, its ETag gives 304, gzip is used",
                       status == 200 and taken == 2700 and again == 304
                       and packed[1].get("Content-Encoding") == "gzip",
                       f"{status}, {taken} taken, {again}; {len(body)} bytes, "
                       f"{len(packed[2])} packed")


def seatmap(bench):
    rig, report = bench.rig, bench.report
    report.section("seatmap", "Seat-map reads, 10,000 seats, 2,700 taken, 64 connections; ceiling")
    rig.serve({})
    event = seatmap_event(bench)
    rig.wait_replicated()
    check_seatmap_cells(bench, event)
    evhttp = load.Constant("bare_evhttp", rig.ports.base, rig.workers)
    edge = load.Constant("bare_edge", rig.ports.base + 1, rig.workers)
    try:
        shared = bench.alternate(seatmap_cells(bench, event, evhttp, edge))
        ceiling = rate_of(shared["bare evhttp"])
        report_reads(report, shared, ceiling, "")
        rig.serve({"reads.seatmap_recent_ms": 0})
        alone = bench.alternate(seatmap_cells(bench, event, evhttp, edge)[:3])
        report_reads(report, alone, rate_of(alone["bare evhttp"]), ", flights only")
    finally:
        evhttp.stop()
        edge.stop()
    share = rate_of(shared["304"]) / ceiling
    full = rate_of(shared["200"])
    report.promise("seat-map reads, conditional (304)", ">= 70 % of bare evhttp",
                   f"{share * 100:.0f} %", share >= 0.7)
    report.promise("seat-map reads, full", ">= 10 k maps/s", f"{full / 1000:.1f} k/s",
                   full >= 10_000)


def report_reads(report, results, ceiling, suffix):
    for name, rounds in results.items():
        ratio = None if name == "bare evhttp" else rate_of(rounds) / ceiling
        report.figure(name + suffix, rounds, unit="/s",
                      baseline=None if ratio is None else "bare evhttp", ratio=ratio)


# ---- 4. sold out ---------------------------------------------------------------------------------

def soldout(bench):
    rig, report, plan = bench.rig, bench.report, bench.plan
    report.section("soldout", "The sold-out refusal (409) beside a sale, 256 connections")
    rig.serve({})
    event, _ = rig.create_events(1, 10, 10)[0]
    rig.take_seats(event, 10, 10, 100)
    bench.walk_events()

    def refuse():
        result = load.loadgen(rig.address, traffic="random", event=event, connections=256,
                              hold_ms=plan.seconds * 1000)
        if set(result["raw"]["statuses"]) != {"409"}:
            raise load.LoadError(f"not all refused: {result['raw']['statuses']}")
        return result

    def sell():
        return bench.loadgen_bookings(connections=256, hold_ms=plan.seconds * 1000)

    refuse()
    results = bench.alternate([("bookings (201)", sell), ("refusals (409)", refuse)])
    sold = rate_of(results["bookings (201)"])
    for name, rounds in results.items():
        report.figure(name, rounds, unit="answers/s", baseline="bookings/s",
                      ratio=rate_of(rounds) / sold)


# ---- 5. the router's own cost --------------------------------------------------------------------

def router_cost(bench, name, dsn, event, **options):
    """Alternating blocks of one request at a time; returns how much the router adds to p50 and p99
    and the interval of the latter, in us. Compared block with neighbouring block, so that a slow
    moment of the disk hits both."""
    arms = load.direct_libpq(bench.rig.address, dsn, event, block=200,
                             blocks=bench.plan.router_blocks, **options)
    router, direct, hop = arms["router"], arms["direct"], arms["hop"]
    for arm_name, arm in (("through SeatGrid", router), ("libpq", direct), ("/healthz", hop)):
        rounds = [{"rate": arm["p50_us"], "p50": arm["p50_us"] / 1000, "p99": arm["p99_us"] / 1000}]
        bench.report.figure(f"{name}, {arm_name}", rounds, unit="us")
    added = {q: [r - d for r, d in zip(router[f"block_{q}_us"], direct[f"block_{q}_us"])]
             for q in ("p50", "p99")}
    spans = {q: median_interval(values) for q, values in added.items()}
    bench.report.note(
        f"{name}: router minus libpq, median over {len(added['p50'])} pairs of blocks (95 % "
        f"interval): p50 {median(added['p50']):+.0f} us ({spans['p50'][0]:+.0f} to "
        f"{spans['p50'][1]:+.0f}), p99 {median(added['p99']):+.0f} us ({spans['p99'][0]:+.0f} to "
        f"{spans['p99'][1]:+.0f}); all samples together p50 "
        f"{router['p50_us'] - direct['p50_us']:+.0f} us, p99 "
        f"{router['p99_us'] - direct['p99_us']:+.0f} us; a bare HTTP round trip p50 "
        f"{hop['p50_us']:.0f} us")
    return median(added["p50"]), median(added["p99"]), spans["p99"]


def router(bench):
    rig, report, plan = bench.rig, bench.report, bench.plan
    report.section("router", "The router's own cost: one request at a time, quiet system")
    rig.serve({"reads.seatmap_recent_ms": 0})
    event, shard = rig.create_events(1, GRID, GRID)[0]
    rig.wait_replicated()
    p50, p99, (low, high) = router_cost(bench, "book", rig.primary_dsn(shard), event, cols=GRID)
    small, shard = rig.create_events(1, 100, 100)[0]
    rig.take_seats(small, 100, 100, 2700)
    rig.wait_replicated()
    router_cost(bench, "seats", rig.replica_dsn(shard), small, reads=True)
    report.promise("the router's own cost, POST /book", "<= 50 us p99 over libpq",
                   f"p99 {p99:+.0f} us ({low:+.0f} to {high:+.0f}), p50 {p50:+.0f} us",
                   True if high <= 50 else False if low > 50 else None)


# ---- 6. reload -----------------------------------------------------------------------------------

def reload(bench):
    reloads.run(bench)


# ---- 7. fixed arrival rate -----------------------------------------------------------------------

def rate(bench):
    rig, report, plan = bench.rig, bench.report, bench.plan
    report.section("rate", "Bookings at a fixed arrival rate (open loop), 256 connections")
    rig.serve({})
    bench.loadgen_bookings(connections=256, hold_ms=1000)
    for arrivals in (5000, 10000):
        result = bench.loadgen_bookings(connections=256, rate=arrivals,
                                        hold_ms=plan.rate_seconds * 1000)
        raw = result["raw"]
        report.figure(f"{arrivals:,} arrivals/s", [result], unit="answers/s")
        report.note(f"p95 {result['p95']:.2f} ms, p99.9 {result['p99.9']:.2f} ms, max "
                    f"{raw['run']['latency_ms']['max']:.1f} ms, from the intended time of each")
        report.check("all of them sold", set(raw["statuses"]) == {"201"} and load.lost(raw) == 0,
                     f"{raw['statuses']}, {load.lost(raw)} lost")


def consumer(bench):
    cdc.run(bench)


def tickets(bench):
    cdc.tickets(bench)


def live(bench):
    cdc.live(bench)


def life(bench):
    booking_life.life(bench)


def best(bench):
    booking_life.best(bench)


def queued(bench):
    booking_life.queued(bench)


ROWS = {"bookings": bookings, "hot": hot, "seatmap": seatmap, "soldout": soldout,
        "router": router, "reload": reload, "rate": rate,
        "cdc": consumer, "tickets": tickets, "live": live,
        "life": life, "best": best, "queue": queued}


def parse_arguments():
    parser = argparse.ArgumentParser(prog="bench", description="SeatGrid's figures, each beside "
                                     "its baseline of the same run.")
    parser.add_argument("--quick", action="store_true", help="about three minutes, one round each")
    parser.add_argument("--only", action="append", choices=ROWS, metavar="NAME",
                        help=f"one of {', '.join(ROWS)}; may be repeated")
    parser.add_argument("--json", metavar="FILE", help="write the results as JSON")
    parser.add_argument("--markdown", metavar="FILE",
                        help="write a section for docs/benchmarks.md")
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    report = Report(arguments.quick)
    started = time.monotonic()
    with Rig() as rig:
        bench = Bench(rig, report, Plan(arguments.quick))
        for name, row in ROWS.items():
            if not arguments.only or name in arguments.only:
                row(bench)
    report.print_promises()
    print(f"\n{time.monotonic() - started:.0f} s, load {os.getloadavg()[0]:.2f} at the end")
    if arguments.json:
        report.write_json(arguments.json)
    if arguments.markdown:
        pathlib.Path(arguments.markdown).write_text(report.markdown(), encoding="utf-8")
    for check in report.failed():
        print(f"FAILED: {check['what']}: {check['detail']}", file=sys.stderr)
    return 1 if report.failed() else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (load.LoadError, AssertionError) as problem:
        sys.exit(f"bench: {problem}")
    except KeyboardInterrupt:
        sys.exit(130)
