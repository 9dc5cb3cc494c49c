"""Live seats: GET /events/{id}/stream.

Goal: who watches an event is told every change of its seats once and in order, also over lost
connections, restarts of Redis and rebuilt keys, or is told to read the seats anew; and a server full
of watchers stays well. Method: a real cluster; the test itself plays the consumer, with the
project's own scripts, so that each moment can be chosen.

SPDX-License-Identifier: MIT
"""

import os
import signal
import socket
import time

from harness import Cluster, alive, short, wait_until
from live_client import EventStream, PlayedConsumer
from redis_client import RedisClient

SETTINGS = {"workers": 2, "redis.poll_ms": 50, "live.heartbeat_ms": 200, "live.keep_ms": 2000,
            "live.buffer_bytes": 8192, "live.max_streams": 60, "http.idle_timeout_ms": 500,
            "redis.max_staleness_ms": 1000}
CLUSTER = {"replicas": 0, "settings": SETTINGS}
COLS = 10


def opened(cluster, event, **options):
    """A stream, as soon as the server believes what is in Redis."""
    def attempt():
        stream = EventStream(cluster.http_port, event, **options)
        if stream.status == 200:
            return stream
        stream.close()
        return None
    return wait_until(attempt, what="a stream")


def prepared(cluster, consumer):
    """A new event of 10 rows that is in Redis, too."""
    event = cluster.make_event(10, COLS, "alpha")
    consumer.grid(event, 10, COLS)
    return event


def played(cluster):
    """A consumer that goes on where an earlier test has left Redis."""
    with RedisClient(cluster.port("redis")) as redis:
        redis("FLUSHALL")
    return PlayedConsumer(cluster.port("redis"))


@short
def test_changes_arrive(cluster):
    """Counters first, then each change with its counters; seats that come free, too."""
    with played(cluster) as consumer:
        event = prepared(cluster, consumer)
        with opened(cluster, event) as stream:
            assert stream.headers["content-type"] == "text/event-stream", stream.headers
            assert stream.headers["connection"] == "close"
            assert stream.headers["seatgrid-shard"] == "alpha"
            assert "content-length" not in stream.headers
            assert "transfer-encoding" not in stream.headers
            assert stream.expect("counters") == {"eventId": event, "total": 100, "available": 100,
                                                 "held": 0, "booked": 0}
            ids = consumer.sell(event, 0, 99)
            assert stream.expect_seats(0, COLS)["available"] == 99
            assert stream.expect_seats(99, COLS)["booked"] == 2
            assert stream.last_id == ids[-1], (stream.last_id, ids)
            consumer.apply(event, (1, 0, "h:5,6"), (-1, -1, ".:5,6;x:0"))
            seats = stream.expect("seats")
            assert [(seat["row"], seat["col"], seat["status"]) for seat in seats["seats"]] == \
                [(1, 6, "held"), (1, 7, "held")]
            assert (seats["held"], seats["booked"]) == (1, 2)
            stream.expect("counters")
            seats = stream.expect("seats")
            assert [seat["status"] for seat in seats["seats"]] == ["available", "available",
                                                                   "booked"]
            stream.expect("counters")
            assert stream.is_quiet(1) and stream.heartbeats >= 3  # and no idle timeout


@short
def test_all_workers_and_streams_hear_it(cluster):
    """Twenty streams over two workers, another event beside them."""
    with played(cluster) as consumer:
        event, other = prepared(cluster, consumer), prepared(cluster, consumer)
        streams = [opened(cluster, event) for _ in range(20)]
        with opened(cluster, other) as elsewhere:
            elsewhere.expect("counters")
            for stream in streams:
                stream.expect("counters")
            channel = f"sg1:{{e:{event}}}:live"
            assert consumer.redis("PUBSUB", "NUMSUB", channel) == [channel, 2]
            consumer.sell(event, 3, 4)
            for stream in streams:
                stream.expect_seats(3, COLS)
                stream.expect_seats(4, COLS)
            assert elsewhere.is_quiet()
        wait_until(lambda: cluster.metric("seatgrid_live_streams") == 20,
                   what="the other stream to be gone")
        for stream in streams:
            stream.close()
        wait_until(lambda: cluster.metric("seatgrid_live_streams") == 0, what="streams to be gone")
        wait_until(lambda: consumer.redis("PUBSUB", "NUMSUB", channel) == [channel, 0],
                   what="the subscriptions to end")


@short
def test_resume(cluster):
    """Last-Event-ID: exactly what was missed, whichever worker answers; nothing if nothing was."""
    with played(cluster) as consumer:
        event = prepared(cluster, consumer)
        with opened(cluster, event) as stream:
            stream.expect("counters")
            consumer.sell(event, 1)
            stream.expect_seats(1, COLS)
            last_id = stream.last_id
        ids = consumer.sell(event, 2, 3, 4)
        for _ in range(6):  # both workers
            with opened(cluster, event, last_id=last_id) as stream:
                for seat in (2, 3, 4):
                    stream.expect_seats(seat, COLS)
                assert stream.last_id == ids[-1]
                assert stream.is_quiet(0.1)
        with opened(cluster, event, last_id=ids[-1]) as stream:
            assert stream.expect("counters")["booked"] == 4
            consumer.sell(event, 5)
            stream.expect_seats(5, COLS)
        # from the middle of it, and from the id of the first counters
        with opened(cluster, event, last_id=ids[1]) as stream:
            stream.expect_seats(4, COLS)
            stream.expect_seats(5, COLS)


@short
def test_what_cannot_be_resumed(cluster):
    """Trimmed, of another generation or shard, from the future, or no id at all: resync."""
    with played(cluster) as consumer:
        consumer.history = 4
        event = prepared(cluster, consumer)
        with opened(cluster, event) as stream:
            stream.expect("counters")
            first_id = stream.last_id
            for number in range(300):
                consumer.sell(event, number % 100)
        now = consumer.lsn
        for last_id in (first_id, f"alpha.9-{now}-1", f"beta.1-{now}-1", f"alpha.1-{now + 800}-1",
                        f"alpha.1-{now - 4}-1", "something"):
            with opened(cluster, event, last_id=last_id) as stream:
                assert stream.expect("resync") == {"eventId": event}, last_id
                stream.expect("counters")
                assert stream.last_id == f"alpha.1-{now}-1"
                assert stream.is_quiet(0.1)


def test_unwatched_changes_are_not_passed_over(cluster):
    """Nobody watches for longer than live.keep_ms: who comes back after that looks anew."""
    with played(cluster) as consumer:
        event = prepared(cluster, consumer)
        with opened(cluster, event) as stream:
            stream.expect("counters")
            consumer.sell(event, 1)
            stream.expect_seats(1, COLS)
            last_id = stream.last_id
        watched = f"sg1:{{e:{event}}}:watched"
        wait_until(lambda: not consumer.redis("EXISTS", watched), what="the watch to lapse")
        consumer.sell(event, 2)
        with opened(cluster, event) as other:
            other.expect("counters")
            consumer.sell(event, 3)
            other.expect_seats(3, COLS)
            with opened(cluster, event, last_id=last_id) as stream:
                stream.expect("resync")
                stream.expect("counters")
        # and while somebody watches it does not lapse
        with opened(cluster, event) as stream:
            stream.expect("counters")
            until = time.monotonic() + 2.5
            while time.monotonic() < until:
                assert consumer.redis("EXISTS", watched)
                time.sleep(0.1)
            consumer.sell(event, 4)
            stream.expect_seats(4, COLS)


@short
def test_generation_switch(cluster):
    """Keys built anew: changes of the new ones are not told before the switch; then a resync."""
    with played(cluster) as consumer:
        event = prepared(cluster, consumer)
        with opened(cluster, event) as stream:
            stream.expect("counters")
            old_lsn = consumer.lsn
            consumer.grid(event, 10, COLS, generation=2)
            consumer.apply(event, (0, 1, "x:7"), generation=2)
            assert stream.is_quiet()
            consumer.switch(2)
            stream.expect("resync")
            assert stream.expect("counters")["booked"] == 1
            assert stream.last_id == f"alpha.2-{consumer.lsn}-1"
            consumer.sell(event, 8)
            stream.expect_seats(8, COLS)
            with opened(cluster, event, last_id=f"alpha.1-{old_lsn}-1") as late:
                kind = late.next()[0]
                if kind == "counters":  # of a worker that has not looked since the switch
                    kind = late.next()[0]
                assert kind == "resync", kind


@short
def test_a_new_grid_and_the_end_of_an_event(cluster):
    """A seed or another grid is a resync; a deleted event ends its streams."""
    with played(cluster) as consumer:
        event = prepared(cluster, consumer)
        with opened(cluster, event) as stream:
            stream.expect("counters")
            consumer.apply(event, (20, 5, "grid"))
            stream.expect("resync")
            stream.expect("counters")
            consumer.sell(event, 7)
            stream.expect_seats(7, 5)
            consumer.apply(event, (0, 3, "seed"), (10, COLS, "grid"))
            stream.expect("resync")
            assert stream.expect("counters")["booked"] == 3
            consumer.apply(event, (0, 0, "gone"))
            assert [name for name, _ in stream.rest()] == ["resync", "counters"]
        cluster.sql("alpha", f"DELETE FROM events WHERE event_id = {event}")
        with EventStream(cluster.http_port, event) as stream:
            assert stream.status == 404


@short
def test_redis_goes_and_comes_back(cluster):
    """Streams stay open over a restart of Redis; what happened meanwhile is told, or a resync."""
    with played(cluster) as consumer:
        event = prepared(cluster, consumer)
        with opened(cluster, event) as stream:
            stream.expect("counters")
            consumer.sell(event, 1)
            stream.expect_seats(1, COLS)
            # connections cut, Redis lives: nothing is lost
            for kind in ("normal", "pubsub"):
                consumer.redis("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
            consumer.sell(event, 2, 3)
            stream.expect_seats(2, COLS)
            stream.expect_seats(3, COLS)
            consumer.redis("SAVE")
            cluster.stop("redis")
            assert stream.is_quiet()
            with EventStream(cluster.http_port, event) as refused:
                assert refused.status == 503
                assert refused.headers["retry-after"]
            cluster.start("redis")
            consumer.reconnect()
            kept = consumer.redis("EXISTS", consumer.keys(event)[0])
            if not kept:
                consumer.switch(1)
                consumer.grid(event, 10, COLS)
            consumer.sell(event, 4)
            booked = 0  # told as it is, or as a resync: either way up to the last one
            while booked < (4 if kept else 1):
                name, data = stream.next()
                booked = data.get("booked", booked)
            if name == "seats":
                stream.expect("counters")
            consumer.sell(event, 5)
            stream.expect_seats(5, COLS)


def test_redis_loses_everything(cluster):
    """FLUSHALL: found by the renewal at the latest; then a resync."""
    with played(cluster) as consumer:
        event = prepared(cluster, consumer)
        with opened(cluster, event) as stream:
            stream.expect("counters")
            consumer.sell(event, 1)
            stream.expect_seats(1, COLS)
            consumer.redis("FLUSHALL")
            consumer.switch(2)
            consumer.grid(event, 10, COLS)
            stream.expect("resync")
            stream.expect("counters")
            consumer.sell(event, 2)
            stream.expect_seats(2, COLS)


def test_event_that_redis_does_not_know_yet(cluster):
    """A just created event: 503 with Retry-After until the consumer has it, and no 404."""
    with played(cluster) as consumer:
        other = prepared(cluster, consumer)
        opened(cluster, other).close()
        event = cluster.make_event(5, 5, "alpha")
        with EventStream(cluster.http_port, event) as stream:
            assert stream.status == 503, stream.headers
        consumer.grid(event, 5, 5)
        with opened(cluster, event) as stream:
            assert stream.expect("counters")["total"] == 25


@short
def test_refusals(cluster):
    """Unknown event, wrong Accept, other methods, HEAD, HTTP/1.0; the bound is kept."""
    with played(cluster) as consumer:
        event = prepared(cluster, consumer)
        opened(cluster, event).close()
        answer = cluster.get("/events/424242/stream")
        assert (answer.status, answer.code) == (404, "unknown_event"), answer
        assert cluster.get("/events/x/stream").status == 400
        answer = cluster.get(f"/events/{event}/stream", {"Accept": "application/json"})
        assert (answer.status, answer.code) == (406, "not_acceptable"), answer
        answer = cluster.post(f"/events/{event}/stream", {})
        assert answer.status == 405 and "GET" in answer.headers["Allow"], answer
        answer = cluster.request("HEAD", f"/events/{event}/stream")
        assert answer.status == 200 and answer.headers["Content-Type"] == "text/event-stream"
        with opened(cluster, event, version="1.0") as stream:
            stream.expect("counters")
            stream.socket.sendall(b"GET /healthz HTTP/1.1\r\nHost: t\r\n\r\n")  # nobody listens
            consumer.sell(event, 1)
            stream.expect_seats(1, COLS)
        streams = []

        def one_more():
            streams.append(EventStream(cluster.http_port, event))
            if streams[-1].status == 200:
                return None
            stream = streams.pop()  # a worker that has just met this Redis may say no, too
            stream.close()
            return stream if stream.problem["code"] == "overloaded" else None

        refused = wait_until(one_more, every=0.002, what="live.max_streams")
        assert 30 <= len(streams) <= 60, len(streams)
        assert refused.headers["retry-after"]
        for stream in streams:
            stream.close()


def test_slow_reader(cluster):
    """One that reads nothing is dropped; the others miss nothing."""
    with played(cluster) as consumer:
        event = prepared(cluster, consumer)
        dropped = cluster.metric("seatgrid_live_dropped_total", reason="slow")
        with opened(cluster, event, receive_bytes=4096) as slow, opened(cluster, event) as quick:
            quick.expect("counters")
            seats = ",".join(str(seat) for seat in range(60))
            for number in range(1000):
                consumer.apply(event, (0, 0, f"{'hx'[number % 2]}:{seats}"))
                quick.expect("seats")
                quick.expect("counters")
                if number % 50 == 49 and cluster.metric("seatgrid_live_dropped_total",
                                                        reason="slow") > dropped:
                    break
            else:
                raise AssertionError("the slow reader was never dropped")
            assert len(slow.rest()) < 2 * number
            consumer.sell(event, 99)
            quick.expect_seats(99, COLS)


def test_a_vanished_client_is_noticed(cluster):
    """RST instead of a farewell."""
    with played(cluster) as consumer:
        event = prepared(cluster, consumer)
        stream = opened(cluster, event)
        stream.expect("counters")
        assert cluster.metric("seatgrid_live_streams") >= 1
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        stream.close()
        wait_until(lambda: cluster.metric("seatgrid_live_streams") == 0, what="it to be noticed")


def test_no_redis():
    """A server without Redis says so."""
    with Cluster(replicas=0, settings={"redis.address": '""'}) as cluster:
        event = cluster.make_event(5, 5, "alpha")
        answer = cluster.get(f"/events/{event}/stream")
        assert answer.status == 503 and "Redis" in answer.json()["detail"], answer


@short
def test_drain():
    """SIGTERM ends streams at once, however many there are."""
    with Cluster(replicas=0, settings={**SETTINGS, "http.drain_timeout_ms": 20000}) as cluster, \
            played(cluster) as consumer:
        event = prepared(cluster, consumer)
        streams = [opened(cluster, event) for _ in range(10)]
        for stream in streams:
            stream.expect("counters")
        pid = cluster.pid("serve")
        started = time.monotonic()
        os.kill(pid, signal.SIGTERM)
        for stream in streams:
            assert stream.rest() == []
        wait_until(lambda: not alive(pid), what="serve to end")
        assert time.monotonic() - started < 5
