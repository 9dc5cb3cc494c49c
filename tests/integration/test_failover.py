"""A shard's primary dies, hangs or is replaced under load: its bookings wait, and every one of them
gets the one true answer.

Goal: inside booking.deadline_ms nobody is told an error; with durability sync no acknowledged booking
is lost and no seat has two owners, whichever machine dies; the other shard notices nothing; a
client's Idempotency-Key means the same on the new primary, and so does a hold. Method: two shards
with two replicas each; kill -9 or SIGSTOP of a primary, promotion of the replica that has the most,
and the answers of a load laid beside the tables afterwards (traffic.py).

SPDX-License-Identifier: MIT
"""

import contextlib
import threading
import time
import uuid

from harness import SLOWDOWN, http_request, short, timeout, wait_until
from psql import Session, literal
from traffic import Traffic

# Longer than any failover here takes: what fails does not fail for want of time.
DEADLINE_S = 60
CLUSTER = {"replicas": 2, "durability": "sync",
           "settings": {"workers": 2, "booking.deadline_ms": DEADLINE_S * 1000 * SLOWDOWN,
                        "postgres.statement_timeout_ms": 3000,
                        "http.write_timeout_ms": DEADLINE_S * 1000 * SLOWDOWN}}


# ---- changing primaries ----------------------------------------------------------------------------


def most_advanced(cluster, shard, besides):
    """The living replica that has received the most."""
    found = []
    for name in cluster.nodes(shard):
        if name in besides or not cluster.pid(name):
            continue
        with contextlib.suppress(AssertionError):  # it may be on its way down
            lsn = cluster.value(name, "SELECT pg_last_wal_receive_lsn() - '0/0'"
                                      " WHERE pg_is_in_recovery()")
            found.append((int(lsn), name))
    return max(found)[1]


def take_over(cluster, shard, *gone):
    """Promotes the best of those that are left; gives its name."""
    new = most_advanced(cluster, shard, gone)
    cluster.promote(new)
    return new


def others(cluster, shard, primary):
    """The shard's other nodes."""
    return [name for name in cluster.nodes(shard) if name != primary]


def settled(cluster, shard):
    """A condition: the shard is written to, and all its replicas follow."""
    def check():
        primary = cluster.primary(shard)
        streaming = cluster.value(primary, "SELECT count(*) FROM pg_stat_replication"
                                           " WHERE state = 'streaming'")
        return int(streaming) >= cluster.replicas and \
            shard in writable(cluster)
    return check


def writable(cluster):
    """Shards that serve says it can write to."""
    answer = cluster.get("/readyz")
    return {s["shard"] for s in answer.json()["shards"] if s["writable"]}


def heal(cluster, shard="alpha"):
    """All nodes of the shard run again and follow its primary."""
    primary = cluster.primary(shard)
    for name in others(cluster, shard, primary):
        cluster.rejoin(name)
    wait_until(settled(cluster, shard), 60, what=f"{shard} to be whole again")


class LaterAsked:
    """A request made by a thread of its own."""

    def __init__(self, cluster, method, path, body, headers=None):
        self.answer = None

        def run():
            self.answer = http_request(cluster.http_port, method, path, body, headers,
                                       2 * DEADLINE_S * SLOWDOWN)

        self.thread = threading.Thread(target=run, daemon=True)
        self.thread.start()

    def wait(self):
        """The answer."""
        self.thread.join(2 * DEADLINE_S * SLOWDOWN)
        assert self.answer is not None, "no answer at all"
        return self.answer


def places(*seats):
    """As JSON has them."""
    return [{"row": row, "col": col} for row, col in seats]


class Later(LaterAsked):
    """A booking of one seat."""

    def __init__(self, cluster, event, seat, user="later", key=None):
        super().__init__(cluster, "POST", "/book",
                         {"eventId": event, "userId": user, "seats": places(seat)},
                         {"Idempotency-Key": key} if key else None)


def wait_waiting(cluster, count, shard="alpha"):
    """Until so many bookings wait in the buffers of the shard."""
    wait_until(lambda: cluster.metric("seatgrid_lane_waiting", shard=shard) >= count,
               what=f"{count} bookings to wait")


def owners(cluster, node, event):
    """{seat_no: booking_id} as the node has it."""
    return dict(cluster.sql(node, "SELECT seat_no, booking_id FROM claims"
                                  f" WHERE event_id = {event} AND state = 'booked'"))


def check_nobody_failed(traffic, shard):
    """Every booking of the shard was booked, or lost to a faster one."""
    failed = [r for r in traffic.select(shard, "book") if r.status not in (201, 409)]
    assert not failed, (len(failed), failed[:5])


# ---- deaths ----------------------------------------------------------------------------------------


@timeout(300)
def test_a_crash_under_load_fails_nobody(cluster):
    """With keys and without: all that was acknowledged is there, nobody saw an error."""
    old = cluster.primary("alpha")
    with Traffic(cluster) as traffic:
        traffic.wait_for(30, shard="alpha")
        broken = time.monotonic()
        cluster.crash(old)
        new = take_over(cluster, "alpha", old)
        took = traffic.wait_for(30, DEADLINE_S, shard="alpha")
        until = time.monotonic()
    print(f"      {traffic.counts()}; {new} for {old}, 30 bookings {took:.2f} s after it")
    check_nobody_failed(traffic, "alpha")
    check_nobody_failed(traffic, "beta")
    traffic.check_answers()
    traffic.check_untouched("beta", broken, until)
    traffic.check_tables(cluster)
    heal(cluster)


@short
@timeout(240)
def test_the_first_booking_after_a_quiet_death_waits(cluster):
    """Nothing was under way when the primary died, so nothing had been noticed by a booking."""
    old = cluster.primary("alpha")
    event = cluster.make_event(shard="alpha")
    assert cluster.book(event, [(1, 1)]).status == 201
    cluster.crash(old)
    waiting = [Later(cluster, event, (2, col), f"u-{col}") for col in range(1, 6)]
    wait_waiting(cluster, 5)
    assert cluster.book(cluster.make_event(shard="beta"), [(1, 1)]).status == 201
    new = take_over(cluster, "alpha", old)
    for later in waiting:
        answer = later.wait()
        assert answer.status == 201, answer
        assert answer.headers["SeatGrid-Durability"] == "sync"
    assert len(owners(cluster, new, event)) == 6
    heal(cluster)


@timeout(240)
def test_a_router_that_starts_without_a_primary(cluster):
    """It has never seen one: bookings wait for the first."""
    old = cluster.primary("alpha")
    event = cluster.make_event(shard="alpha")
    cluster.crash(old)
    with cluster.serve_beside() as beside:
        beside.wait_ready("/healthz")
        later = Later(beside, event, (1, 1))
        new = take_over(cluster, "alpha", old)
        assert later.wait().status == 201
    assert len(owners(cluster, new, event)) == 1
    heal(cluster)


@timeout(300)
def test_a_hung_primary(cluster):
    """SIGSTOP: connections stand, nothing is said. What it had been sent is asked of the new one;
    what it does when it wakes is nobody's."""
    old = cluster.primary("alpha")
    event = cluster.make_event(shard="alpha")
    assert cluster.book(event, [(1, 1)]).status == 201
    cluster.pause(old)
    try:
        waiting = [Later(cluster, event, (2, col), f"u-{col}", f"hung-{event}-{col}")
                   for col in range(1, 6)]
        wait_waiting(cluster, 5)
        new = take_over(cluster, "alpha", old)
        answers = [later.wait() for later in waiting]
    finally:
        cluster.resume(old)
    assert [a.status for a in answers] == [201] * 5, answers
    booked = {a.json()["bookingId"] for a in answers}
    # It is back, and still takes itself for the primary: nothing goes there.
    assert cluster.value(old, "SELECT pg_is_in_recovery()") == "f"
    for col in range(1, 11):
        answer = cluster.book(event, [(3, col)])
        assert answer.status == 201, answer
    assert set(owners(cluster, new, event).values()) >= booked
    assert len(owners(cluster, new, event)) == 16
    assert len(owners(cluster, old, event)) <= 6
    cluster.crash(old)
    heal(cluster)


@timeout(300)
def test_two_failovers_in_a_row(cluster):
    """The second while the first is hardly over; then no standby is left, and bookings wait for one
    rather than break the promise."""
    first = cluster.primary("alpha")
    with Traffic(cluster) as traffic:
        traffic.wait_for(10, shard="alpha")
        cluster.crash(first)
        second = take_over(cluster, "alpha", first)
        traffic.wait_for(5, DEADLINE_S, shard="alpha")
        cluster.crash(second)
        third = take_over(cluster, "alpha", first, second)
        wait_waiting(cluster, 3)
        cluster.rejoin(first)
        traffic.wait_for(20, DEADLINE_S, shard="alpha")
    print(f"      {traffic.counts()}; {first}, {second}, {third}")
    check_nobody_failed(traffic, "alpha")
    check_nobody_failed(traffic, "beta")
    traffic.check_tables(cluster)
    heal(cluster)


# ---- a fence ---------------------------------------------------------------------------------------


@timeout(120)
def test_a_booking_behind_the_fences_lock_sees_the_fence(cluster):
    """Also where the database's default isolation would have it look at the time before its wait."""
    primary = cluster.primary("alpha")
    event = cluster.make_event(shard="alpha")
    mine = literal(str(uuid.uuid4()))
    writes = "application_name = 'seatgrid-write'"

    def default_isolation(value):
        cluster.sql(primary, f"ALTER DATABASE seatgrid {value}")
        cluster.sql(primary, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {writes}")

    def waiting():
        return cluster.value(primary, "SELECT count(*) FROM pg_stat_activity WHERE"
                                      f" {writes} AND wait_event = 'advisory'")

    def refused():
        return cluster.metric("seatgrid_batches_total", shard="alpha", outcome="fenced")

    before = refused()
    default_isolation("SET default_transaction_isolation = 'repeatable read'")
    try:
        assert cluster.book(event, [(1, 1)]).status == 201
        with Session(cluster.port(primary)) as operator:
            operator.run("BEGIN")
            assert operator.value(f"SELECT outcome FROM shard_fence({mine}, 600000)") == "ok"
            later = Later(cluster, event, (1, 2))
            wait_until(lambda: waiting() != "0", what="the booking to wait for the fence")
            operator.run("COMMIT")
            wait_until(lambda: refused() > before, what="the booking to be told of the fence")
            assert later.answer is None and len(owners(cluster, primary, event)) == 1
            assert operator.value(f"SELECT shard_unfence({mine})") == "ok"
        assert later.wait().status == 201
    finally:
        default_isolation("RESET default_transaction_isolation")


# ---- the key of the client -------------------------------------------------------------------------


@timeout(240)
def test_an_idempotency_key_means_the_same_on_the_new_primary(cluster):
    """Booked before, and asked for twice at once in the midst of it."""
    old = cluster.primary("alpha")
    event = cluster.make_event(shard="alpha")
    key = {"Idempotency-Key": f"before-{event}"}
    before = cluster.book(event, [(1, 1)], headers=key)
    assert before.status == 201
    cluster.crash(old)
    waiting = [Later(cluster, event, (2, 2), "twice", f"during-{event}") for _ in range(4)]
    wait_waiting(cluster, 4)
    new = take_over(cluster, "alpha", old)
    answers = [later.wait() for later in waiting]
    assert [a.status for a in answers] == [201] * 4, answers
    assert len({a.json()["bookingId"] for a in answers}) == 1, answers
    assert len([a for a in answers if not a.headers["Idempotent-Replayed"]]) == 1, answers

    again = cluster.book(event, [(1, 1)], headers=key)
    assert again.status == 201 and again.json() == before.json(), (before, again)
    assert again.headers["Idempotent-Replayed"] == "true"
    assert again.headers["SeatGrid-Durability"] == "sync"
    other = cluster.book(event, [(1, 2)], headers=key)
    assert other.status == 422 and other.code == "idempotency_key_reused", other
    assert len(owners(cluster, new, event)) == 2
    heal(cluster)


# ---- holds -----------------------------------------------------------------------------------------


@timeout(300)
def test_holds_on_the_new_primary(cluster):
    """What is asked of holds and bookings while there is no primary waits for one, and is done once.
    A hold keeps others away, ends, and is its owner's, as on the old one."""
    old = cluster.primary("alpha")
    event = cluster.make_event(shard="alpha")
    ann = {"X-User-Id": "ann"}

    def hold(col, seconds):
        answer = cluster.post(f"/events/{event}/holds",
                              {"seats": places((1, col)), "ttlSeconds": seconds}, ann)
        assert answer.status == 201, answer
        return f"/events/{event}/bookings/{answer.json()['bookingId']}"

    def later(method, path, body=None, key=None):
        return LaterAsked(cluster, method, path, body,
                          {**ann, "Idempotency-Key": key} if key else ann)
    kept, confirmed, extended, released = (hold(col, 900) for col in range(1, 5))
    brief = hold(6, 1)
    cluster.crash(old)
    waiting = {
        "confirm": [later("POST", f"{confirmed}/confirm", {}, f"confirm-{event}") for _ in range(3)],
        "extend": [later("POST", f"{extended}/extend", {"ttlSeconds": 900}, f"extend-{event}")
                   for _ in range(3)],
        "release": [later("DELETE", released) for _ in range(2)],
        "hold": [later("POST", f"/events/{event}/holds", {"seats": places((2, 1))}, f"h-{event}")
                 for _ in range(3)]}
    wait_waiting(cluster, 11)
    new = take_over(cluster, "alpha", old)
    answers = {what: [one.wait() for one in ones] for what, ones in waiting.items()}
    for what, told in answers.items():
        assert [a.status for a in told] == [201 if what == "hold" else 200] * len(told), told
        assert len({a.body for a in told}) == 1, told
        assert {a.headers["SeatGrid-Durability"] for a in told} == {"sync"}, told
    assert cluster.value(new, f"SELECT string_agg(extended::text, ',' ORDER BY seats) FROM bookings"
                              f" WHERE event_id = {event} AND seats[1] < 4") == "0,0,1,0"

    for col in (1, 2, 3):
        answer = cluster.book(event, [(1, col)], "bob")
        assert (answer.status, answer.code) == (409, "seats_taken"), answer
    assert cluster.request("POST", f"{kept}/confirm", {}, {"X-User-Id": "bob"}).status == 403
    assert cluster.request("POST", f"{kept}/confirm", {}, ann).json()["status"] == "confirmed"
    assert cluster.book(event, [(1, 4)], "bob").status == 201
    wait_until(lambda: cluster.book(event, [(1, 6)], "bob").status == 201,
               what="the brief hold to end")
    late = cluster.request("POST", f"{brief}/confirm", {}, ann)
    assert (late.status, late.code) == (410, "hold_expired"), late
    heal(cluster)
