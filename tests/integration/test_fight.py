"""200 connections fight for 50 seats, and nobody gets what another has.

Goal: under every strategy, and with several routers on the same shards, no seat has two owners,
each booking has all its seats, every 201 has its row and every row its 201, every refusal names
seats that somebody really has, a double click is one booking, a hold keeps its seats to its very
end and no longer, and nobody gets more than the limit of the event. Method: real connections, all
open at once, each with an overlapping request for 1 to 5 seats, among holds that live and holds
that are over; after each round the answers are laid beside both tables, in SQL.

SPDX-License-Identifier: MIT
"""

import contextlib
import os
import random
import subprocess
import threading

from harness import (PATIENT, SANITIZER, SLOWDOWN, Ports, binary, environment, http_request, short,
                     wait_until)
from psql import Session
from wire import Crowd, Wire, booking, build

CLUSTER = {"replicas": 1, "settings": {**PATIENT, "workers": 3}}

CONNECTIONS = 200
ROWS, COLS = 5, 10
SEED = int(os.environ.get("SEATGRID_SEED", random.SystemRandom().randrange(1 << 32)))
STRATEGIES = ("batched", "pessimistic", "optimistic", "naive")


# ---- servers -------------------------------------------------------------------------------------


def use_strategy(cluster, strategy):
    """Restarts serve with the strategy, if it has another."""
    if cluster.strategy != strategy:
        cluster.strategy = strategy
        cluster.up()
        cluster.wait_ready()


@contextlib.contextmanager
def second_serve(cluster, strategy):
    """Another router process on the same shards; gives its port."""
    ports = Ports(2)
    own = {f":{cluster.http_port}": f":{ports.base}",
           f":{cluster.admin_port}": f":{ports.base + 1}",
           f'"{cluster.strategy or "batched"}"': f'"{strategy}"'}
    text = (cluster.var / "seatgrid.cfg").read_text(encoding="utf-8")
    for old, new in own.items():
        text = text.replace(old, new)
    config, log = cluster.var / "second.cfg", cluster.var / "log" / "second.log"
    config.write_text(text, encoding="utf-8")
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen([binary(), "serve", "-c", config], env=environment(),
                                   stdin=subprocess.DEVNULL, stdout=output,
                                   stderr=subprocess.STDOUT)
    try:
        def ready():
            assert process.poll() is None, log.read_text(encoding="utf-8")[-3000:]
            with contextlib.suppress(OSError):
                return http_request(ports.base, "GET", "/readyz", timeout=2).status == 200
        wait_until(ready, 20, what="the second router to be ready")
        yield ports.base
        process.terminate()
        assert process.wait(20 * SLOWDOWN) == 0
    finally:
        process.kill()
        process.wait()
        ports.release()
    said = log.read_text(encoding="utf-8", errors="replace")
    assert not SANITIZER.search(said), said[-6000:]


# ---- a round -------------------------------------------------------------------------------------


def some_seats(rng):
    """1 to 5 of the 50, in any order; half of the requests sit together as people do."""
    count = rng.randrange(1, 6)
    if rng.random() < 0.5:
        row, col = rng.randrange(ROWS) + 1, rng.randrange(COLS - count + 1) + 1
        return [(row, col + n) for n in range(count)]
    return [(n // COLS + 1, n % COLS + 1) for n in rng.sample(range(ROWS * COLS), count)]


def add_holds(rng, session, event):
    """Nine holds that are over and three that live; gives the seats of those that live."""
    numbers = rng.sample(range(ROWS * COLS), 12)
    for index, number in enumerate(numbers):
        session.run(f"INSERT INTO claims VALUES ({event}, gen_random_uuid(), now() "
                    f"{'+' if index < 3 else '-'} interval '10 minutes', {number}, 'held')")
    return {(n // COLS + 1, n % COLS + 1) for n in numbers[:3]}


def check_tables(session, event):
    """Claims and bookings fit; gives {booking_id: (user, seats)} as the tables have it."""
    wrong = session.rows(f"""
        SELECT b.booking_id, b.seats, c.seats AS claimed
          FROM (SELECT * FROM bookings WHERE event_id = {event}) b
          FULL JOIN (SELECT booking_id, array_agg(seat_no ORDER BY seat_no) AS seats
                       FROM claims WHERE event_id = {event} AND state = 'booked'
                      GROUP BY booking_id) c USING (booking_id)
         WHERE (SELECT array_agg(s ORDER BY s) FROM unnest(b.seats) s) IS DISTINCT FROM c.seats
            OR b.status <> 'confirmed'""")
    assert not wrong, wrong
    # The key of claims lets a seat be there once; this also holds if somebody drops the key.
    assert session.rows(f"SELECT seat_no FROM claims WHERE event_id = {event} GROUP BY seat_no"
                        f" HAVING count(*) > 1") == []
    sums = session.rows(f"""SELECT (SELECT count(*) FROM claims WHERE event_id = {event}
                                       AND state = 'booked') AS claims,
                                   (SELECT coalesce(sum(cardinality(seats)), 0) FROM bookings
                                     WHERE event_id = {event}) AS booked""")[0]
    assert sums["claims"] == sums["booked"] <= ROWS * COLS, sums
    return {row["booking_id"]: (row["user_id"], [(n // COLS + 1, n % COLS + 1)
                                                 for n in row["seats"]])
            for row in session.rows(f"SELECT booking_id, user_id, seats FROM bookings"
                                    f" WHERE event_id = {event}")}


def pairs(seats):
    """[(row, col)] of seats as JSON has them."""
    return [(seat["row"], seat["col"]) for seat in seats]


def check_round(session, event, asked, answers, held):
    """The answers beside the tables. `asked`: (user, seats) of each; gives how many of each."""
    rows = check_tables(session, event)
    owned = {seat for _, seats in rows.values() for seat in seats}
    told, counts = {}, {}
    for (user, seats), answer in zip(asked, answers):
        counts[answer.status] = counts.get(answer.status, 0) + 1
        body = answer.json()
        if answer.status == 201:
            assert body["userId"] == user and pairs(body["seats"]) == seats, (body, user, seats)
            assert (body["eventId"], body["status"]) == (event, "confirmed"), body
            assert answer.headers["location"] == f"/events/{event}/bookings/{body['bookingId']}"
            assert body["bookingId"] not in told, "two answers name one booking"
            told[body["bookingId"]] = (user, seats)
        else:
            assert answer.status == 409 and body["code"] == "seats_taken", (answer, SEED)
            conflicts = pairs(body["conflicts"])
            assert conflicts and len(set(conflicts)) == len(conflicts), body
            assert conflicts == [seat for seat in seats if seat in conflicts], (body, seats)
            free = set(conflicts) - owned - held
            assert not free, f"refused for seats that nobody has: {free}, seed {SEED}"
    assert told == rows, f"seed {SEED}: {set(told.items()) ^ set(rows.items())}"
    assert not owned & held, "a hold that lives was sold"
    return counts


def fight(cluster, ports, shards, rounds, seed):
    """Rounds of 200 requests at once, each for a fresh event of 50 seats."""
    rng = random.Random(seed)
    total = {}
    with Crowd(ports, CONNECTIONS) as crowd, contextlib.ExitStack() as stack:
        sessions = {shard: stack.enter_context(Session(cluster.port(f"{shard}-1")))
                    for shard in ("alpha", "beta")}
        for number in range(rounds):
            shard = shards[number % len(shards)]
            event = cluster.make_event(ROWS, COLS, shard)
            held = add_holds(rng, sessions[shard], event)
            asked = [(f"u-{i}", some_seats(rng)) for i in range(CONNECTIONS)]
            answers = crowd.ask([build("POST", "/book", booking(event, seats, user))
                                 for user, seats in asked])
            counts = check_round(sessions[shard], event, asked, answers, held)
            other = "beta" if shard == "alpha" else "alpha"
            assert sessions[other].value(f"SELECT count(*) FROM claims"
                                         f" WHERE event_id = {event}") == 0
            assert counts[201] >= 10 and counts[409] >= 50, counts
            assert {answer.headers["seatgrid-shard"] for answer in answers} == {shard}
            for status, count in counts.items():
                total[status] = total.get(status, 0) + count
    print(f"      seed {seed}: {total}")


def strategy_fights(cluster, strategy, rounds=4):
    """What each strategy has to stand."""
    use_strategy(cluster, strategy)
    fight(cluster, [cluster.http_port], ("alpha", "beta"), rounds, SEED)
    double_clicks(cluster, [cluster.http_port])


@short
def test_batched_fight(cluster):
    """Batches, three workers."""
    strategy_fights(cluster, "batched", rounds=6)
    assert cluster.metric("seatgrid_batches_total", outcome="ok") > 10
    assert cluster.metric("seatgrid_batches_total", outcome="error") == 0, "a batch went in halves"


def test_pessimistic_fight(cluster):
    """Seats locked before they are read."""
    strategy_fights(cluster, "pessimistic")


def test_optimistic_fight(cluster):
    """Seats claimed only as they were seen."""
    strategy_fights(cluster, "optimistic")


def test_naive_fight(cluster):
    """Separate statements; the key of the table has the last word."""
    strategy_fights(cluster, "naive")


# ---- double clicks -------------------------------------------------------------------------------


def double_clicks(cluster, ports, rounds=4):
    """Each request goes twice at the same moment under one key, for seats that others want too:
    both get the same answer."""
    rng = random.Random(SEED)
    booked = 0
    with Session(cluster.port("alpha-1")) as session, Crowd(ports, CONNECTIONS) as crowd:
        for _ in range(rounds):
            event = cluster.make_event(ROWS, COLS, "alpha")
            asked = [(f"u-{i}", some_seats(rng)) for i in range(CONNECTIONS // 2)]
            requests = [build("POST", "/book", booking(event, seats, user),
                              {"Idempotency-Key": f"click-{user}"}) for user, seats in asked]
            answers = crowd.ask([request for request in requests for _ in range(2)])
            for one, two in zip(answers[::2], answers[1::2]):
                assert one.status == two.status, (one, two, SEED)
                if one.status == 201:
                    assert one.body == two.body, (one, two)
                    marks = [answer.headers.get("idempotent-replayed") for answer in (one, two)]
                    assert sorted(map(str, marks)) == ["None", "true"], marks
            check_round(session, event, asked, answers[::2], set())
            booked += sum(answer.status == 201 for answer in answers[::2])
            again = crowd.ask(requests)
            for first, later in zip(answers[::2], again):
                assert (later.status, later.headers.get("idempotent-replayed")) == (
                    first.status, "true" if first.status == 201 else None), (first, later)
                assert first.status != 201 or first.body == later.body
    assert booked >= 10 * rounds, booked


def key_meets_another_body(cluster, ports):
    """Two bodies under one key at the same moment: one is booked, the other refused, and free
    seats stay free."""
    with Session(cluster.port("beta-1")) as session, Crowd(ports, 100) as crowd:
        event = cluster.make_event(100, 4, "beta")
        requests = []
        for row in range(1, 51):
            for col in (1, 2):
                requests.append(build("POST", "/book", booking(event, [(row, col)], f"u-{row}"),
                                      {"Idempotency-Key": f"body-{row}"}))
        answers = crowd.ask(requests)
        for row, (one, two) in enumerate(zip(answers[::2], answers[1::2]), 1):
            refused, kept = sorted((one, two), key=lambda answer: answer.status, reverse=True)
            assert (kept.status, refused.status) == (201, 422), (row, one, two)
            assert refused.code == "idempotency_key_reused", refused
            assert "Idempotency-Key" in refused.json()["detail"], refused
        assert session.value(f"SELECT count(*) FROM claims WHERE event_id = {event}") == 50
        # The same key for another event is another key.
        other = cluster.make_event(1, 1, "beta")
        with Wire(ports[0]) as wire:
            answer = wire.ask("POST", "/book", booking(other, [(1, 1)]),
                              {"Idempotency-Key": "body-1"})
            assert answer.status == 201, answer
            # Another user under the same key is another body, too.
            answer = wire.ask("POST", "/book", booking(other, [(1, 1)], "u-2"),
                              {"Idempotency-Key": "body-1"})
            assert (answer.status, answer.code) == (422, "idempotency_key_reused"), answer


def test_key_meets_another_body(cluster):
    """For each strategy."""
    for strategy in STRATEGIES:
        use_strategy(cluster, strategy)
        key_meets_another_body(cluster, [cluster.http_port])


# ---- holds and limits ----------------------------------------------------------------------------


def ask_as(cluster, user, method, path, body=None):
    """One request of a user."""
    return cluster.request(method, path, body, {"X-User-Id": user}, timeout=60)


def hold_one_seat(cluster, event, seconds):
    """ann's; its id."""
    answer = ask_as(cluster, "ann", "POST", f"/events/{event}/holds",
                    {"seats": [{"row": 1, "col": 1}], "ttlSeconds": seconds})
    assert answer.status == 201, answer
    return answer.json()["bookingId"]


def over(session, hold):
    """Is its time over by the database's clock?"""
    return session.value(f"SELECT expires_at <= clock_timestamp() FROM bookings"
                         f" WHERE booking_id = '{hold}'")


def hold_ends(cluster, session):
    """Its seat is the next buyer's, and not its owner's any more."""
    event = cluster.make_event(1, 2, "alpha")
    hold = hold_one_seat(cluster, event, 1)
    wait_until(lambda: over(session, hold), 20, every=0.02, what="the end of the hold")
    bought = ask_as(cluster, "bob", "POST", "/book", booking(event, [(1, 1)], "bob"))
    assert bought.status == 201, bought
    late = ask_as(cluster, "ann", "POST", f"/events/{event}/bookings/{hold}/confirm")
    assert (late.status, late.code) == (410, "hold_expired"), late
    assert session.rows(f"SELECT status, user_id FROM bookings WHERE event_id = {event}"
                        f" ORDER BY user_id") == [{"status": "expired", "user_id": "ann"},
                                                  {"status": "confirmed", "user_id": "bob"}]


def hold_is_extended_as_it_ends(cluster, session):
    """Its owner was in time, and only the COMMIT comes late: a buyer waits for that, and does not
    get the seat."""
    answers = []
    for seconds in (1, 3, 9, 27):   # on a slow machine a short one is over before it is locked
        event = cluster.make_event(1, 2, "alpha")
        hold = hold_one_seat(cluster, event, seconds)
        session.run("BEGIN")
        if session.rows(f"SELECT 1 AS one FROM bookings WHERE booking_id = '{hold}'"
                        f" AND status = 'held' AND expires_at > now() FOR UPDATE"):
            break
        session.run("ROLLBACK")
    else:
        raise AssertionError("no hold lasted until it was locked")
    try:
        wait_until(lambda: over(session, hold), 20, every=0.02, what="the end of the hold")
        buyer = threading.Thread(target=lambda: answers.append(
            ask_as(cluster, "bob", "POST", "/book", booking(event, [(1, 1)], "bob"))))
        buyer.start()
        buyer.join(0.5)
        (row,) = session.rows(
            f"SELECT outcome FROM change_batch((SELECT epoch FROM shard_meta),"
            f" ARRAY[{event}::bigint], ARRAY['{hold}'::uuid], ARRAY['ann'], ARRAY[NULL],"
            f" ARRAY[0::bigint], ARRAY[gen_random_uuid()], ARRAY['extend'], ARRAY[60000::bigint],"
            f" ARRAY[NULL], 3, 60000)")
    finally:
        session.run("COMMIT")
    buyer.join()
    assert row["outcome"] == "ok", row
    assert answers[0].status == 409 and answers[0].code == "seats_taken", (cluster.strategy, answers)
    assert session.rows(f"SELECT b.user_id, b.status, c.state FROM bookings b JOIN claims c"
                        f" USING (event_id, booking_id) WHERE event_id = {event}") == [
                            {"user_id": "ann", "status": "held", "state": "held"}]


def limit_in_a_hurry(cluster, session):
    """A crowd of clicks of three users, two seats each, four allowed."""
    answer = cluster.post("/events", {"name": "Limited", "startsAt": "2030-06-01T19:00:00Z",
                                      "rows": 3, "cols": 20, "maxPerUser": 4, "shard": "alpha"})
    assert answer.status == 201, answer
    event = answer.json()["id"]
    with Crowd([cluster.http_port], 30) as crowd:
        answers = crowd.ask([build("POST", "/book", booking(
            event, [(row, col), (row, col + 1)], f"u-{row}"))
                             for col in range(1, 21, 2) for row in (1, 2, 3)])
    told = {}
    for answer in answers:
        told.setdefault((answer.status, answer.json().get("code")), []).append(answer)
    assert set(told) == {(201, None), (409, "over_limit")}, (cluster.strategy, told.keys())
    assert {answer.json()["left"] for answer in told[409, "over_limit"]} <= {0, 2}
    assert session.rows(f"SELECT user_id, sum(cardinality(seats)) AS seats FROM bookings"
                        f" WHERE event_id = {event} GROUP BY 1 ORDER BY 1") == [
                            {"user_id": f"u-{row}", "seats": 4} for row in (1, 2, 3)]
    check_tables(session, event)


def test_holds_and_limits_under_each_strategy(cluster):
    """What a hold and a limit promise does not depend on how others book."""
    with Session(cluster.port("alpha-1")) as session:
        for strategy in STRATEGIES:
            use_strategy(cluster, strategy)
            hold_ends(cluster, session)
            hold_is_extended_as_it_ends(cluster, session)
            limit_in_a_hurry(cluster, session)


# ---- several routers -----------------------------------------------------------------------------


def test_two_routers_on_the_same_shards(cluster):
    """Half of the connections each; both know nothing of each other."""
    use_strategy(cluster, "batched")
    with second_serve(cluster, "batched") as port:
        ports = [cluster.http_port, port]
        fight(cluster, ports, ("alpha", "beta"), 4, SEED + 1)
        double_clicks(cluster, ports, rounds=2)
        key_meets_another_body(cluster, ports)


def test_routers_of_different_strategies(cluster):
    """One batches, the other locks; then one versions and the other hopes."""
    for one, two in (("batched", "pessimistic"), ("optimistic", "naive")):
        use_strategy(cluster, one)
        with second_serve(cluster, two) as port:
            ports = [cluster.http_port, port]
            fight(cluster, ports, ("alpha", "beta"), 2, SEED + 2)
            double_clicks(cluster, ports, rounds=2)


# ---- one seat ------------------------------------------------------------------------------------


@short
def test_one_seat_for_everybody(cluster):
    """200 want the same single seat, again and again: one has it, 199 are told so."""
    use_strategy(cluster, "batched")
    with Crowd([cluster.http_port], CONNECTIONS) as crowd:
        for _ in range(5):
            event = cluster.make_event(1, 1)
            answers = crowd.ask([build("POST", "/book", booking(event, [(1, 1)], f"u-{i}"))
                                 for i in range(CONNECTIONS)])
            statuses = sorted(answer.status for answer in answers)
            assert statuses == [201] + [409] * (CONNECTIONS - 1), statuses
            assert all(answer.json()["conflicts"] == [{"row": 1, "col": 1}]
                       for answer in answers if answer.status == 409)


def test_fights_for_all_seats_leave_none_half_sold(cluster):
    """Everybody wants all ten seats of a row, in another order: one gets all, the others none."""
    for strategy in STRATEGIES:
        use_strategy(cluster, strategy)
        rng = random.Random(SEED)
        with Crowd([cluster.http_port], 60) as crowd:
            event = cluster.make_event(1, 10, "alpha")
            seats = [[(1, col) for col in rng.sample(range(1, 11), 10)] for _ in range(60)]
            answers = crowd.ask([build("POST", "/book", booking(event, order, f"u-{i}"))
                                 for i, order in enumerate(seats)])
            assert sorted(answer.status for answer in answers) == [201] + [409] * 59, strategy
            for order, answer in zip(seats, answers):
                key = "seats" if answer.status == 201 else "conflicts"
                assert pairs(answer.json()[key]) == order, (strategy, answer)
