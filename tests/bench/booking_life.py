"""The rows about the life of a booking: holds, best seats, bookings through the queue.

    life(bench)     holds, and holds that are confirmed, beside POST /book
    best(bench)     the best two seats, chosen in memory and by the database: one event, many events
    queued(bench)   accepted, drained, and how long the acceptance takes at a fixed rate

Every figure stands beside POST /book of the same run, in turns with it. After each row SQL is asked
whether every answer has its booking and every seat one owner.

SPDX-License-Identifier: MIT
"""

import time

import load
from report import median

CONNECTIONS = 256
HALL = 100              # rows and columns of the events whose best seats are wanted
PAIR = 2                # seats of such a request
ASYNC = "Prefer: respond-async"
ARRIVALS = 5000


def rate_of(rounds):
    """Their median."""
    return median([r["rate"] for r in rounds])


def expect(result, *statuses):
    """The run, if it had no answers but these."""
    odd = set(result["raw"]["statuses"]) - {str(status) for status in statuses}
    if odd or load.lost(result["raw"]):
        raise load.LoadError(f"answers that were not expected: {result['raw']['statuses']}, "
                             f"{load.lost(result['raw'])} lost")
    return result


def bookings_with(rig, condition):
    """How many there are, over all shards."""
    return sum(int(rig.sql(shard, f"SELECT count(*) FROM bookings WHERE {condition}")[0][0])
               for shard in rig.shards)


def check_seats(bench):
    """No seat has two owners."""
    odd = bench.rig.odd_seats()
    bench.report.check("no seat is sold twice, no claim without its booking (SQL)", odd == 0,
                       "" if odd == 0 else f"{odd} seats")


# ---- holds ---------------------------------------------------------------------------------------

def pairs_of(result):
    """As a result whose rate is that of the pairs; the latencies stay those of single answers."""
    raw = result["raw"]
    return {**result, "rate": raw["pairs"] / raw["run"]["seconds"]}


def life(bench):
    rig, report, plan = bench.rig, bench.report, bench.plan
    report.section("life", "Holds and what becomes of them, one seat, 200 events, 256 connections")
    rig.serve({})
    span = {"connections": CONNECTIONS, "hold_ms": plan.seconds * 1000}
    counted = {"book": 0, "hold": 0, "confirm": 0}

    def book():
        result = expect(bench.loadgen_bookings(**span), 201)
        counted["book"] += result["raw"]["answers"]
        return result

    def hold():
        result = expect(bench.loadgen_bookings(take="hold", **span), 201)
        counted["hold"] += result["raw"]["answers"]
        return result

    def pair():
        result = expect(bench.loadgen_bookings(take="pair", **span), 200, 201)
        counted["confirm"] += result["raw"]["pairs"]
        counted["hold"] += result["raw"]["statuses"]["201"] - result["raw"]["pairs"]
        return pairs_of(result)

    before = {status: bookings_with(rig, f"status = '{status}'") for status in ("held", "confirmed")}
    bench.loadgen_bookings(connections=CONNECTIONS, hold_ms=plan.warm_seconds * 1000, take="pair")
    rig.wait_idle()
    warm = {status: bookings_with(rig, f"status = '{status}'") - before[status]
            for status in ("held", "confirmed")}
    results = bench.alternate([("POST /book", book), ("holds", hold),
                               ("hold, then confirm", pair)])
    direct = rate_of(results["POST /book"])
    for name, rounds in results.items():
        report.figure(name, rounds, unit="pairs/s" if "then" in name else "/s",
                      baseline=None if name == "POST /book" else "POST /book",
                      ratio=rate_of(rounds) / direct)
    report.note("a pair is two requests, one after the other; its latencies are those of one")
    rig.wait_idle()
    held = bookings_with(rig, "status = 'held'") - before["held"] - warm["held"]
    sold = bookings_with(rig, "status = 'confirmed'") - before["confirmed"] - warm["confirmed"]
    report.check("every hold and every confirmation has its row",
                 (held, sold) == (counted["hold"], counted["book"] + counted["confirm"]),
                 f"{held} held, {sold} confirmed; answered {counted}")
    check_seats(bench)
    share = rate_of(results["holds"]) / direct
    report.promise("holds", ">= 80 % of POST /book", f"{share * 100:.0f} %", share >= 0.8)


# ---- best seats ----------------------------------------------------------------------------------

def sales_of(result):
    """As a result whose rate counts the sales alone; others may only be "try again later"."""
    raw = result["raw"]
    if set(raw["statuses"]) - {"201", "503"} or load.lost(raw):
        raise load.LoadError(f"answers that were not expected: {raw['statuses']}, "
                             f"{load.lost(raw)} lost")
    return {**result, "rate": raw["statuses"].get("201", 0) / raw["run"]["seconds"],
            "late": raw["statuses"].get("503", 0)}


def best_round(bench, way, results):
    """One server life: the baseline, many events, one event. All halls are new."""
    rig, plan = bench.rig, bench.plan
    rig.serve({"booking.best_choose": way})
    halls = rig.create_events(200, HALL, HALL)

    def run(traffic, seconds, **options):
        return sales_of(load.loadgen(rig.address, traffic=traffic, rows=HALL, cols=HALL, seats=PAIR,
                                     connections=CONNECTIONS, hold_ms=seconds * 1000, **options))
    run("best", plan.warm_seconds, events=rig.events_file(halls))
    results[way, "200 events"].append(run("best", plan.seconds, events=rig.events_file(halls)))
    halls = rig.create_events(200, HALL, HALL)
    results[way, "POST /book"].append(run("walk", plan.seconds, events=rig.events_file(halls)))
    for _ in range(plan.hot_halls):     # nine in ten of its seats, or as many as there is time for
        event, _ = rig.create_events(1, HALL, HALL)[0]
        results[way, "one event"].append(run("best", 2 * plan.seconds, event=event,
                                             requests=HALL * HALL // PAIR * 9 // 10))


def sold_out(bench):
    """All of one hall by more buyers than seats: nobody hears a false no. Pairs begin at the middle
    of a row, so the first and the last seat of each stay alone."""
    rig = bench.rig
    event, shard = rig.create_events(1, HALL, HALL)[0]
    pairs = HALL * (HALL - 2) // PAIR
    result = load.loadgen(rig.address, traffic="best", event=event, seats=PAIR, rows=HALL, cols=HALL,
                          connections=CONNECTIONS, hold_ms=60000, requests=pairs + 500)
    sold = int(rig.sql(shard, f"SELECT count(*) FROM claims WHERE event_id = {event}")[0][0])
    bench.report.check("the last seats are sold, and then it is no",
                       sold == PAIR * pairs
                       and result["raw"]["statuses"] == {"201": pairs, "409": 500},
                       f"{sold} of {PAIR * pairs}, {result['raw']['statuses']}")


def best(bench):
    report, plan = bench.report, bench.plan
    report.section("best", "The best 2 seats side by side, 10,000-seat events, 256 buyers")
    ways = ("memory", "database")
    where = ("POST /book", "200 events", "one event")
    results = {(way, place): [] for way in ways for place in where}
    for turn in range(plan.rounds):
        for way in ways if turn % 2 == 0 else reversed(ways):
            best_round(bench, way, results)
    direct = median([r["rate"] for way in ways for r in results[way, "POST /book"]])
    report.figure("POST /book, 2 seats", results["memory", "POST /book"] +
                  results["database", "POST /book"])
    for way in ways:
        for place in where[1:]:
            rounds = results[way, place]
            report.figure(f"{way}, {place}", rounds, baseline="POST /book",
                          ratio=rate_of(rounds) / direct)
            late = sum(r["late"] for r in rounds)
            if late:
                report.note(f"{late} x 503: not answered before booking.deadline_ms")
    bench.rig.serve({"booking.best_choose": "memory"})
    sold_out(bench)
    check_seats(bench)
    rate = rate_of(results["memory", "200 events"])
    report.promise("best seats, 200 events", ">= 10 k/s", f"{rate / 1000:.1f} k/s", rate >= 10_000)


# ---- through the queue ---------------------------------------------------------------------------

def wait_drained(rig, wanted, seconds=120):
    """Until so many bookings are there. PostgreSQL's own count is a moment late, and cheap."""
    deadline = time.monotonic() + seconds
    while True:
        found = sum(int(rig.sql(shard, "SELECT n_tup_ins FROM pg_stat_user_tables"
                                       " WHERE relname = 'bookings'")[0][0])
                    for shard in rig.shards)
        if found >= wanted and bookings_with(rig, "true") >= wanted:
            return
        if time.monotonic() > deadline:
            raise load.LoadError(f"{wanted} bookings wanted, {found} came in {seconds} s")
        time.sleep(0.2)


def drained(rig, mark):
    """Bookings a second between the first and the last commit behind the mark, over all shards."""
    found = [rig.sql(shard, f"SELECT count(*), extract(epoch FROM max(created_at) - min(created_at)),"
                            f" extract(epoch FROM min(created_at)), extract(epoch FROM max(created_at))"
                            f" FROM bookings WHERE created_at > '{mark}'")[0] for shard in rig.shards]
    found = [row for row in found if int(row[0])]
    span = max(float(row[3]) for row in found) - min(float(row[2]) for row in found)
    return sum(int(row[0]) for row in found) / span


def queued(bench):
    rig, report, plan = bench.rig, bench.report, bench.plan
    report.section("queue", "Bookings for later: RabbitMQ has confirmed them, 256 connections")
    rig.serve({})
    rig.queue()
    span = {"connections": CONNECTIONS, "hold_ms": plan.seconds * 1000}
    drains, lost = [], []

    def book():
        return expect(bench.loadgen_bookings(**span), 201)

    def accept():
        """The workers stand still; then they have the backlog for themselves."""
        rig.work(False)
        before = bookings_with(rig, "true")
        mark = rig.sql(rig.shards[0], "SELECT now()")[0][0]
        result = expect(bench.loadgen_bookings(header=ASYNC, **span), 202)
        rig.work(True)
        wait_drained(rig, before + result["raw"]["answers"])
        drains.append({"rate": drained(rig, mark)})
        lost.append(before + result["raw"]["answers"] - bookings_with(rig, "true"))
        return result

    bench.loadgen_bookings(connections=CONNECTIONS, hold_ms=plan.warm_seconds * 1000, header=ASYNC)
    time.sleep(1)
    results = bench.alternate([("POST /book", book), ("accepted", accept)])
    direct = rate_of(results["POST /book"])
    report.figure("POST /book", results["POST /book"])
    for name, rounds in (("accepted", results["accepted"]), ("drained", drains)):
        report.figure(name, rounds, baseline="POST /book", ratio=rate_of(rounds) / direct)
    report.check("every acceptance has become one booking", set(lost) == {0}, f"missing: {lost}")
    paced(bench)
    check_seats(bench)


def paced(bench):
    """Bookings at a fixed rate: made at once, accepted while the workers stand still, and accepted
    while they work. The last of these is what is promised."""
    rig, report, plan = bench.rig, bench.report, bench.plan
    span = {"connections": CONNECTIONS, "rate": ARRIVALS, "hold_ms": plan.rate_seconds * 1000}
    report.figure(f"{ARRIVALS:,} arrivals/s, POST /book",
                  [expect(bench.loadgen_bookings(**span), 201)])
    for name, work in (("workers stopped", False), ("workers at work", True)):
        rig.work(work)
        before = bookings_with(rig, "true")
        result = bench.loadgen_bookings(header=ASYNC, **span)
        rig.work(True)
        report.figure(f"{ARRIVALS:,} arrivals/s, accepted, {name}", [result])
        report.check("all of them accepted", set(result["raw"]["statuses"]) == {"202"} and
                     load.lost(result["raw"]) == 0,
                     f"{result['raw']['statuses']}, {load.lost(result['raw'])} lost")
        wait_drained(rig, before + result["raw"]["statuses"].get("202", 0))
    report.promise("acceptance by the queue, 5 k/s", "p99 <= 20 ms", f"p99 {result['p99']:.1f} ms",
                   result["p99"] <= 20)
