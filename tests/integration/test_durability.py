"""What the answer to a write promises: sync is sync, async says so, and says what it risks.

Goal: a shard of durability sync acknowledges nothing that a standby does not have, whatever becomes
of its standbys or of the wait for them; with one of two gone it goes on; what was not acknowledged is
told truly later. A shard of durability async goes on without any, and its bookings at risk are on
/metrics. Method: real standbys, stopped and paused; an administrator's cancel in the midst of a wait.

SPDX-License-Identifier: MIT
"""

import contextlib
import re
import threading

from harness import SLOWDOWN, http_request, short, timeout, wait_until

DEADLINE_MS = 2000 * SLOWDOWN
CLUSTER = {"replicas": 2, "durability": "sync",
           "settings": {"workers": 1, "booking.deadline_ms": DEADLINE_MS,
                        "postgres.statement_timeout_ms": 1500 * SLOWDOWN}}


def replicas(cluster, shard):
    """Its replicas."""
    primary = cluster.primary(shard)
    return [name for name in cluster.nodes(shard) if name != primary]


def streaming(cluster, shard):
    """How many standbys its primary sees."""
    return int(cluster.value(cluster.primary(shard), "SELECT count(*) FROM pg_stat_replication"
                                                     " WHERE state = 'streaming'"))


def keyed(event, seat, tag="k"):
    """Headers with a key of its own."""
    return {"Idempotency-Key": f"{tag}-{event}-{seat[0]}-{seat[1]}"}


def surely(cluster, event, seat, headers=None):
    """Books, however often it has to ask."""
    headers = headers or keyed(event, seat)
    found = []

    def booked():
        found.append(cluster.book(event, [seat], headers=headers))
        return found[-1].status == 201
    wait_until(booked, 60, what=f"seat {seat} to be booked")
    return found[-1]


@contextlib.contextmanager
def without(cluster, shard, how="pause"):
    """None of the shard's replicas says anything."""
    names = replicas(cluster, shard)
    for name in names:
        cluster.pause(name) if how == "pause" else cluster.stop(name)
    try:
        yield
    finally:
        for name in names:
            cluster.resume(name) if how == "pause" else cluster.start(name)
        wait_until(lambda: streaming(cluster, shard) == len(names), 60,
                   what="the replicas to be back")


# ---- sync ------------------------------------------------------------------------------------------


@short
@timeout(120)
def test_sync_is_told(cluster):
    """By bookings and new events, with a token that a replica can be asked with."""
    answer = cluster.post("/events", {"name": "Sync", "startsAt": "2030-06-01T19:00:00Z",
                                      "rows": 5, "cols": 5, "shard": "alpha"})
    assert answer.status == 201 and answer.headers["SeatGrid-Durability"] == "sync", answer
    assert answer.headers["SeatGrid-Token"].startswith("alpha."), answer.headers
    event = answer.json()["id"]
    booked = cluster.book(event, [(1, 1)])
    assert booked.status == 201 and booked.headers["SeatGrid-Durability"] == "sync", booked
    seats = cluster.get(f"/events/{event}/seats",
                        {"SeatGrid-Token": booked.headers["SeatGrid-Token"]}).json()["seats"]
    assert seats[0][0] == "x", seats
    taken = cluster.book(event, [(1, 1)])
    assert taken.status == 409 and not taken.headers["SeatGrid-Durability"], taken


@timeout(180)
def test_one_of_two_standbys_may_die(cluster):
    """Bookings go on, and are as durable as before."""
    event = cluster.make_event(shard="alpha")
    name = replicas(cluster, "alpha")[0]
    cluster.crash(name)
    for col in range(1, 11):
        answer = cluster.book(event, [(1, col)])
        assert answer.status == 201 and answer.headers["SeatGrid-Durability"] == "sync", answer
    cluster.start(name)
    wait_until(lambda: streaming(cluster, "alpha") == 2, 60, what=f"{name} to be back")


@timeout(180)
def test_without_a_standby_nothing_is_acknowledged(cluster):
    """None is there: nothing is done. The other shard has its own."""
    event, beta = cluster.make_event(shard="alpha"), cluster.make_event(shard="beta")
    with without(cluster, "alpha", "stop"):
        wait_until(lambda: streaming(cluster, "alpha") == 0, what="the standbys to be gone")
        answer = cluster.book(event, [(1, 1)], headers=keyed(event, (1, 1)))
        assert answer.status == 503 and answer.code == "not_synchronous", answer
        assert int(answer.headers["Retry-After"]) >= 1
        assert cluster.value("alpha", f"SELECT count(*) FROM bookings WHERE event_id = {event}") \
            == "0"
        assert cluster.book(beta, [(1, 1)]).headers["SeatGrid-Durability"] == "sync"
    assert surely(cluster, event, (1, 1)).headers["SeatGrid-Durability"] == "sync"


@timeout(180)
def test_silent_standbys_acknowledge_nothing(cluster):
    """They are there and say nothing: it was done, but nobody may be told so. Asked again with the
    key when they speak, it is the one booking."""
    event = cluster.make_event(shard="alpha")
    with without(cluster, "alpha"):
        answer = cluster.book(event, [(1, 1)], headers=keyed(event, (1, 1)))
        assert answer.status == 503 and answer.code == "outcome_unknown", answer
        free = cluster.book(event, [(2, 2)], headers=keyed(event, (2, 2)))
        assert free.status == 503, free
    first, second = surely(cluster, event, (1, 1)), surely(cluster, event, (2, 2))
    assert {a.headers["SeatGrid-Durability"] for a in (first, second)} == {"sync"}
    assert cluster.sql("alpha", "SELECT count(*), count(DISTINCT booking_id) FROM claims"
                                f" WHERE event_id = {event}") == [("2", "2")]


@timeout(180)
def test_a_wait_that_is_cancelled_is_no_acknowledgement(cluster):
    """pg_cancel_backend makes a COMMIT that waits for a standby succeed, with a warning. The booking
    stands on the primary alone then, and the client hears nothing of it before that has changed."""
    event = cluster.make_event(shard="alpha")
    primary = cluster.primary("alpha")
    answers = []

    def book():
        answers.append(http_request(
            cluster.http_port, "POST", "/book",
            {"eventId": event, "userId": "u-1", "seats": [{"row": 1, "col": 1}]},
            keyed(event, (1, 1)), 60 * SLOWDOWN))

    with without(cluster, "alpha"):
        thread = threading.Thread(target=book, daemon=True)
        thread.start()
        wait_until(lambda: cluster.sql(primary, "SELECT pg_cancel_backend(pid) FROM"
                                       " pg_stat_activity WHERE wait_event = 'SyncRep'"
                                       " AND application_name = 'seatgrid-write'"),
                   what="a COMMIT that waits")
        wait_until(lambda: cluster.value(primary, "SELECT count(*) FROM bookings WHERE"
                                         f" event_id = {event}") == "1",
                   what="the booking to be there")
        thread.join(60 * SLOWDOWN)
        assert answers and answers[0].status == 503 and answers[0].code == "outcome_unknown", \
            answers
    told = surely(cluster, event, (1, 1))
    assert told.headers["SeatGrid-Durability"] == "sync"
    assert cluster.value(primary, f"SELECT booking_id FROM bookings WHERE event_id = {event}") \
        == told.json()["bookingId"]


@timeout(180)
def test_a_server_that_waits_for_nobody(cluster):
    """The map says sync, the server's own configuration does not: no writes, rather than less."""
    event = cluster.make_event(shard="alpha")
    primary = cluster.primary("alpha")
    names = cluster.value(primary, "SHOW synchronous_standby_names")
    assert names
    cluster.sql(primary, "ALTER SYSTEM SET synchronous_standby_names = ''")
    try:
        cluster.sql(primary, "SELECT pg_reload_conf()")
        wait_until(lambda: cluster.value(primary, "SHOW synchronous_standby_names") == "",
                   what="the setting")
        answer = cluster.book(event, [(1, 1)], headers=keyed(event, (1, 1)))
        assert answer.status == 503 and answer.code == "not_synchronous", answer
    finally:
        cluster.sql(primary, "ALTER SYSTEM RESET synchronous_standby_names")
        cluster.sql(primary, "SELECT pg_reload_conf()")
    wait_until(lambda: cluster.value(primary, "SHOW synchronous_standby_names") == names,
               what="the setting")
    assert surely(cluster, event, (1, 1)).headers["SeatGrid-Durability"] == "sync"


# ---- async -----------------------------------------------------------------------------------------


@contextlib.contextmanager
def beta_async(cluster):
    """The map says so, by a reload, and then says again what it did."""
    path = cluster.var / "shardmap.cfg"
    first = path.read_text(encoding="utf-8")
    alpha, beta = re.split(r'(?=name = "beta")', first, maxsplit=1)
    assert 'durability = "sync"' in beta
    version = cluster.admin("GET", "/admin/map").json()["version"]

    def publish(text):
        nonlocal version
        version += 1
        path.write_text(re.sub(r"map_version = \d+", f"map_version = {version}", text),
                        encoding="utf-8")
        answer = cluster.admin("POST", "/admin/reload", timeout=30)
        assert answer.status == 200, answer
        return answer

    answer = publish(alpha + beta.replace('durability = "sync"', 'durability = "async"', 1))
    assert b"durability" in answer.body, answer
    try:
        yield
    finally:
        publish(first)


def told(cluster, event, seat):
    """The durability that a booking is told."""
    answer = cluster.book(event, [seat])
    assert answer.status == 201, answer
    return answer.headers["SeatGrid-Durability"]


@timeout(240)
def test_async_goes_on_and_says_what_is_at_risk(cluster):
    """Without any standby: bookings go on, are told async, and are counted until a replica has
    them; the shard beside it promises what it did."""
    def at_risk(shard):
        return cluster.metric("seatgrid_bookings_at_risk", shard=shard)

    event, alpha = cluster.make_event(shard="beta"), cluster.make_event(shard="alpha")
    with beta_async(cluster):
        wait_until(lambda: told(cluster, cluster.make_event(shard="beta"), (1, 1)) == "async",
                   what="async to be told")
        wait_until(lambda: at_risk("beta") == 0, what="the replicas to have it")
        with without(cluster, "beta"):
            for col in range(1, 8):
                assert told(cluster, event, (1, col)) == "async"
            assert at_risk("beta") == 7, at_risk("beta")
            assert told(cluster, alpha, (1, 1)) == "sync"
            assert at_risk("alpha") == 0
        wait_until(lambda: at_risk("beta") == 0, what="the replicas to have them")
    wait_until(lambda: told(cluster, cluster.make_event(shard="beta"), (1, 1)) == "sync",
               what="sync to be told again")
