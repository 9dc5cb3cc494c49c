"""How many are left: out of Redis while it is kept in step, out of PostgreSQL whenever it is not.

Goal: the number is right whoever says it, `source` tells who, Redis never makes a request fail or
wait, and never says that an event is not there. Method: the keys are written by the test itself
(redis_keys.py), with numbers that PostgreSQL does not have, so that one sees who answered.

SPDX-License-Identifier: MIT
"""

import signal
import time

from harness import Cluster, SLOWDOWN, short, wait_until
from redis_keys import GENERATION, Keys

CLUSTER = {"replicas": 1, "settings": {"redis.poll_ms": 20, "redis.max_staleness_ms": 1000}}


def availability(cluster, event):
    """The parsed answer, checked."""
    answer = cluster.get(f"/events/{event}/availability")
    assert answer.status == 200, answer
    shown = answer.json()
    assert shown["eventId"] == event
    assert shown["total"] == shown["available"] + shown["held"] + shown["booked"], shown
    from_redis = shown["source"] == "redis"
    assert (answer.headers["SeatGrid-Node"] == "redis") == from_redis, answer.headers
    assert ("SeatGrid-Staleness" in answer.headers) != from_redis, answer.headers
    return shown


def counted(shown):
    """(available, held, booked, source)"""
    return shown["available"], shown["held"], shown["booked"], shown["source"]


def listed(cluster, event):
    """`available` of the event, read alone and in the list."""
    alone = cluster.get(f"/events/{event}").json()["available"]
    answer = cluster.get("/events?limit=100").json()
    assert not answer["partial"]
    return alone, next(one["available"] for one in answer["events"] if one["id"] == event)


@short
def test_without_a_consumer_the_database_counts(cluster):
    """Booked and held seats, also a hold whose time is over; the same in the lists."""
    event = cluster.make_event(10, 10, "beta")
    assert cluster.book(event, [(1, 1), (1, 2)]).status == 201
    for seat, when in ((50, "+"), (51, "-")):
        cluster.sql("beta", f"INSERT INTO claims VALUES ({event}, gen_random_uuid(), now() {when}"
                            f" interval '1 hour', {seat}, 'held')")
    cluster.wait_replicas()
    assert counted(availability(cluster, event)) == (97, 1, 2, "replica")
    assert listed(cluster, event) == (97, 97)
    assert cluster.get("/events/999999/availability").code == "unknown_event"


def test_a_live_shard_is_read_from_redis(cluster):
    """And only that one: the other shard's events are counted by PostgreSQL."""
    alpha, beta = cluster.make_event(10, 10, "alpha"), cluster.make_event(10, 10, "beta")
    cluster.wait_replicas()
    with Keys(cluster) as keys:
        keys.go_live("alpha")
        keys.event(alpha, "alpha", 10, 10, held=3, booked=4)
        keys.event(beta, "beta", 10, 10, held=3, booked=4)
        # every event of the page has to be there, else the page is counted by PostgreSQL
        for one in cluster.get("/events?limit=100").json()["events"]:
            if one["shard"] == "alpha":
                keys.event(one["id"], "alpha", 10, 10, held=3, booked=4)
        assert counted(availability(cluster, alpha)) == (93, 3, 4, "redis")
        assert counted(availability(cluster, beta)) == (100, 0, 0, "replica")
        before = counts_by_sql(cluster)
        assert listed(cluster, alpha) == (93, 93)
        after = counts_by_sql(cluster)
        assert after["alpha"] == before["alpha"], "alpha was counted by PostgreSQL"
        assert listed(cluster, beta) == (100, 100)
        assert counts_by_sql(cluster)["beta"] > before["beta"]


def counts_by_sql(cluster):
    """Statements with a count that were sent to each shard."""
    return {shard: sum(cluster.metric("seatgrid_query_duration_seconds_count", statement=statement,
                                      node=f"{shard}-{number}")
                       for statement in ("event", "events", "availability") for number in (1, 2))
            for shard in ("alpha", "beta")}


def test_what_redis_does_not_know_is_asked_of_postgres(cluster):
    """No key, a tombstone, half a hash, numbers that cannot be, another grid: PostgreSQL answers,
    404 only if it has no such event either; a list is never mixed."""
    event, other = cluster.make_event(10, 10, "alpha"), cluster.make_event(10, 10, "alpha")
    assert cluster.book(event, [(1, 1)]).status == 201
    cluster.wait_replicas()
    with Keys(cluster) as keys:
        keys.go_live("alpha")
        key = f"sg1:{{e:{event}}}:alpha.{GENERATION}"
        for one in cluster.get("/events?limit=100").json()["events"]:
            if one["shard"] == "alpha":
                keys.event(one["id"], "alpha", 10, 10, booked=50)
        assert listed(cluster, event) == (50, 50)
        for spoil in (("DEL", key), ("HSET", key, "deleted", "1"), ("HDEL", key, "held"),
                      ("HSET", key, "available", "-1"), ("HSET", key, "available", "51"),
                      ("HSET", key, "booked", "x"), ("HSET", key, "total", "10000")):
            keys.event(event, "alpha", 10, 10, booked=50)
            assert availability(cluster, event)["source"] == "redis"
            keys.redis(*spoil)
            assert counted(availability(cluster, event)) == (99, 0, 1, "replica"), spoil
            assert listed(cluster, event) == (99, 99), spoil
            assert listed(cluster, other) == (50, 100), spoil  # alone: known; the page: counted
        keys.event(event, "alpha", 20, 5, booked=50)  # another grid of as many seats
        assert listed(cluster, event) == (99, 99)
        assert cluster.get("/events/888888/availability").code == "unknown_event"
        keys.event(888888, "alpha", 10, 10, deleted=1)
        assert cluster.get("/events/888888/availability").code == "unknown_event"
        keys.redis("SET", key + "x", "1")
        keys.redis("RENAME", key + "x", key)  # a string in its place
        assert availability(cluster, event)["source"] == "replica"


def test_a_shard_that_nobody_keeps_in_step_is_not_believed(cluster):
    """state "stale", no hash at all, and a consumer that died with "live" on its lips."""
    event = cluster.make_event(10, 10, "alpha")
    cluster.wait_replicas()
    with Keys(cluster) as keys:
        keys.event(event, "alpha", 10, 10, booked=1)
        for spoil in (("HSET", "sg1:{s:alpha}", "state", "stale"), ("DEL", "sg1:{s:alpha}"),
                      ("HSET", "sg1:{s:alpha}", "gen", "8"), None):
            keys.go_live("alpha")
            assert availability(cluster, event)["source"] == "redis"
            if spoil:
                keys.redis(*spoil)
            else:
                keys.stop_beat()
            wait_until(lambda: all(availability(cluster, event)["source"] == "replica"
                                   for _ in range(10)), what=f"{spoil} to be seen")


@short
def test_a_dead_redis_is_not_waited_for():
    """Killed, hung and back: every request is answered, and at most a few wait for a moment."""
    with Cluster(replicas=1, settings={"redis.poll_ms": 20, "redis.read_timeout_ms": 100,
                                       "redis.reply_timeout_ms": 500}) as cluster:
        event = cluster.make_event(10, 10, "alpha")
        cluster.wait_replicas()
        with Keys(cluster) as keys:
            keys.go_live("alpha")
            keys.event(event, "alpha", 10, 10, booked=1)
            assert availability(cluster, event)["source"] == "redis"
            cluster.signal("redis", signal.SIGSTOP)
            took = []
            for _ in range(60):
                begun = time.monotonic()
                shown = availability(cluster, event)
                took.append(time.monotonic() - begun)
                assert shown["source"] == "replica" or len(took) <= 4, took
            assert sum(one > 0.09 for one in took) <= 2 + 2 * SLOWDOWN, took  # one or two a worker
            cluster.signal("redis", signal.SIGCONT)
            wait_until(lambda: availability(cluster, event)["source"] == "redis",
                       what="Redis to be believed again")
            cluster.crash("redis")
            for _ in range(20):
                assert availability(cluster, event)["source"] == "replica"
                assert cluster.get(f"/events/{event}").json()["available"] == 100
        assert cluster.metric("seatgrid_redis_reads_total", source="postgres_down") > 0


def test_no_shard_and_no_redis(cluster):
    """An id outside the map needs neither."""
    answer = cluster.get("/events/9000000000/availability")
    assert answer.code == "unknown_event" and "SeatGrid-Node" not in answer.headers
