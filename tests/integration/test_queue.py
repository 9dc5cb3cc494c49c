"""Bookings that are accepted now and made later, through RabbitMQ.

Goal: what was answered 202 is booked or finally refused, once, whoever is killed in between; nobody
is answered 202 for what the broker does not keep; what cannot be worked off harms nobody else.
Method: a cluster with a real broker and `seatgrid worker`, the worker stopped so that the queue
grows, killed in the middle of it, the broker and the API killed under traffic, rubbish in the queue;
afterwards every Location is asked, and PostgreSQL counted.

SPDX-License-Identifier: MIT
"""

import http.client
import os
import re
import signal
import threading
import time
import uuid

from amqp_client import Broker
from harness import PATIENT, Cluster, short, timeout, wait_until

CLUSTER = {"replicas": 0, "queue": True, "settings": PATIENT}
LATER = {"Prefer": "respond-async"}
QUEUE = "seatgrid.book.alpha"
DEAD = QUEUE + ".dead"


# ---- asking ---------------------------------------------------------------------------------------


def book_later(cluster, event, seats, user="u-1", key=None, **options):
    """The answer to a booking that may be made later."""
    headers = dict(LATER, **({"Idempotency-Key": key} if key else {}))
    return cluster.book(event, seats, user, headers=headers, **options)


def accepted(cluster, event, seats, user="u-1", key=None):
    """Its Location."""
    answer = book_later(cluster, event, seats, user, key)
    assert answer.status == 202, answer
    return answer.headers["Location"]


def state(cluster, location):
    """What is known of it: {"status": "queued" | "confirmed" | "failed", ...}"""
    answer = cluster.get(location)
    assert answer.status == 200, answer
    return answer.json()


def outcome(cluster, location, seconds=60):
    """The same, once it is decided."""
    def decided():
        found = state(cluster, location)
        return found if found["status"] != "queued" else None
    return wait_until(decided, seconds, what=f"the outcome of {location}")


def confirmed(cluster, locations, seconds=90):
    """All of them end so."""
    for location in locations:
        found = outcome(cluster, location, seconds)
        assert found["status"] == "confirmed", found


def depth(cluster, queue=QUEUE):
    """Messages that wait in the broker."""
    with Broker(cluster.port("rabbitmq")) as broker:
        return broker.depth(queue)


def wait_drained(cluster, shard="alpha"):
    """Nothing waits, and the worker has nothing that it did not acknowledge."""
    def drained():
        return (depth(cluster, f"seatgrid.book.{shard}") == 0 and
                cluster.metric("seatgrid_queue_under_way", "worker", shard=shard) == 0)
    wait_until(drained, 60, what="the queue to be drained")


def truth(cluster, event, shard="alpha"):
    """(bookings, seats that are taken) in PostgreSQL; no seat has two owners."""
    bookings = int(cluster.value(shard, "SELECT count(*) FROM bookings"
                                        f" WHERE event_id = {event} AND status = 'confirmed'"))
    claims = int(cluster.value(shard, "SELECT count(*) FROM claims"
                                      f" WHERE event_id = {event} AND state = 'booked'"))
    sold = int(cluster.value(shard, "SELECT coalesce(sum(cardinality(seats)), 0) FROM bookings"
                                    f" WHERE event_id = {event} AND status = 'confirmed'"))
    assert sold == claims, f"{sold} seats in bookings, {claims} claimed"
    return bookings, claims


class Traffic:
    """Single seats of one event, each wanted once, later, by a few threads until stop(). A 503 is
    asked again with the same key. .locations: seat -> Location of those answered 202."""

    def __init__(self, cluster, event, rows, cols, threads=3):
        self.cluster, self.event = cluster, event
        self.seats = iter([(row + 1, col + 1) for row in range(rows) for col in range(cols)])
        self.lock = threading.Lock()
        self.stopping = False
        self.locations, self.codes, self.odd = {}, set(), []
        self.threads = [threading.Thread(target=self._run, daemon=True) for _ in range(threads)]
        for thread in self.threads:
            thread.start()

    def _next(self):
        with self.lock:
            return None if self.stopping else next(self.seats, None)

    def _run(self):
        while seat := self._next():
            self._book(seat)

    def _book(self, seat):
        key = f"{uuid.uuid4()}"
        while True:
            try:
                answer = book_later(self.cluster, self.event, [seat], "t", key, timeout=60)
            except (OSError, http.client.HTTPException):  # the API is being killed
                answer = None
            if answer and answer.status == 202:
                with self.lock:
                    self.locations[seat] = answer.headers["Location"]
                return
            if answer and answer.status != 503:
                self.odd.append(answer)
                return
            with self.lock:
                self.codes.add(answer.code if answer else "no answer")
                if self.stopping:
                    return
            time.sleep(0.05)

    def wait_accepted(self, count):
        """Until so many were answered 202."""
        wait_until(lambda: len(self.locations) >= count or self.odd, 90, what=f"{count} accepted")
        assert not self.odd, self.odd

    def stop(self):
        """Gives {seat: Location}."""
        self.stopping = True
        for thread in self.threads:
            thread.join(120)
            assert not thread.is_alive(), "a request never ended"
        assert not self.odd, self.odd
        return self.locations


# ---- what it promises -----------------------------------------------------------------------------


@short
def test_accepted_then_booked(cluster):
    """202 with a Location that tells the outcome; the booking is an ordinary one."""
    event = cluster.make_event(rows=2, cols=5, shard="alpha")
    answer = book_later(cluster, event, [(1, 2), (2, 3)], "buyer")
    assert answer.status == 202, answer
    assert answer.headers["Preference-Applied"] == "respond-async"
    assert answer.headers["SeatGrid-Shard"] == "alpha"
    found = outcome(cluster, answer.headers["Location"])
    assert found["status"] == "confirmed", found
    booking = found["booking"]
    assert booking["userId"] == "buyer" and booking["eventId"] == event, booking
    assert booking["seats"] == [{"row": 1, "col": 2}, {"row": 2, "col": 3}], booking
    assert answer.headers["Location"].endswith(booking["bookingId"])
    assert cluster.get(f"/events/{event}/bookings/{booking['bookingId']}").status == 200
    wait_until(lambda: cluster.get(f"/events/{event}/seats").json()["seats"] == [".x...", "..x.."],
               what="the seat map to show it")
    assert truth(cluster, event) == (1, 2)
    wait_drained(cluster)
    wait_until(lambda: cluster.metric("seatgrid_queue_published_total", shard="alpha",
                                      outcome="confirmed") >= 1, what="it to be counted")
    wait_until(lambda: cluster.metric("seatgrid_queue_consumed_total", "worker", shard="alpha",
                                      outcome="booked") >= 1, what="it to be counted by the worker")


@short
def test_whoever_may_book_may_book_later(cluster):
    """All that POST /book takes as a user or a tier comes out of the queue again."""
    event = cluster.make_event(rows=1, cols=4, shard="alpha")
    users = ["Zo\u00eb", "\u674e\u5c0f\u9f99", "\U0001f3ab" * 16, "a b"]
    locations = [accepted(cluster, event, [(1, col)], user) for col, user in enumerate(users, 1)]
    confirmed(cluster, locations)
    assert [outcome(cluster, location)["booking"]["userId"] for location in locations] == users
    wait_drained(cluster)


@short
def test_refusals_are_kept_for_who_asks(cluster):
    """What was wrong is told at the Location: an unknown seat, a seat that was sold long before."""
    event = cluster.make_event(rows=1, cols=3, shard="alpha")
    assert cluster.book(event, [(1, 1)]).status == 201
    outside = accepted(cluster, event, [(1, 1), (9, 9)], "a")
    taken = accepted(cluster, event, [(1, 2), (1, 1)], "b")
    found = outcome(cluster, outside)
    assert (found["status"], found["code"]) == ("failed", "unknown_seat"), found
    assert found["conflicts"] == [{"row": 9, "col": 9}], found
    found = outcome(cluster, taken)
    assert (found["status"], found["code"]) == ("failed", "seats_taken"), found
    assert found["conflicts"] == [{"row": 1, "col": 1}], found
    assert truth(cluster, event) == (1, 1)
    assert cluster.get(f"/events/{event}/seats").json()["seats"] == ["x.."]


@timeout(300)
def test_stopped_workers_only_make_the_queue_grow(cluster):
    """Everything is accepted and waits; afterwards everything is booked. Other shards don't notice,
    and neither does who books at once."""
    events = {shard: cluster.make_event(rows=10, cols=10, shard=shard)
              for shard in ("alpha", "beta")}
    cluster.stop("worker")
    before = depth(cluster)
    locations = [accepted(cluster, event, [(row, col)])
                 for event in events.values() for row in range(1, 5) for col in range(1, 11)]
    wait_until(lambda: depth(cluster) == before + 40, what="40 that wait")
    assert state(cluster, locations[0])["status"] == "queued"
    assert truth(cluster, events["alpha"]) == (0, 0)
    assert cluster.book(events["alpha"], [(10, 10)]).status == 201
    cluster.start("worker")
    confirmed(cluster, locations)
    assert truth(cluster, events["alpha"]) == (41, 41)
    assert truth(cluster, events["beta"], "beta") == (40, 40)
    for shard in events:
        wait_drained(cluster, shard)


@timeout(300)
def test_a_seat_wanted_twice_is_sold_once(cluster):
    """Both wait in the queue; one gets it, the other one is told who did not."""
    event = cluster.make_event(rows=10, cols=10, shard="alpha")
    cluster.stop("worker")
    pairs = [[accepted(cluster, event, [(row, 1), (row, 2)], "a"),
              accepted(cluster, event, [(row, 2), (row, 3)], "b")] for row in range(1, 11)]
    cluster.start("worker")
    for row, pair in enumerate(pairs, 1):
        found = sorted((outcome(cluster, location) for location in pair),
                       key=lambda one: one["status"])
        assert [one["status"] for one in found] == ["confirmed", "failed"], found
        assert found[1]["code"] == "seats_taken", found
        assert found[1]["conflicts"] == [{"row": row, "col": 2}], found
    assert truth(cluster, event) == (10, 20)


@timeout(300)
def test_the_same_key_is_the_same_booking(cluster):
    """Sent twice while it waits, and once more without the queue: one Location, one booking."""
    event = cluster.make_event(rows=2, cols=5, shard="alpha")
    key, other = str(uuid.uuid4()), str(uuid.uuid4())
    cluster.stop("worker")
    first = accepted(cluster, event, [(1, 1)], "a", key)
    assert accepted(cluster, event, [(1, 1)], "a", key) == first
    changed = accepted(cluster, event, [(2, 1)], "a", key)
    assert changed != first
    at_once = cluster.book(event, [(1, 5)], "a", headers={"Idempotency-Key": other})
    assert at_once.status == 201, at_once
    late = accepted(cluster, event, [(1, 5)], "a", other)
    cluster.start("worker")
    booking = outcome(cluster, first)
    assert booking["status"] == "confirmed", booking
    found = outcome(cluster, changed)
    assert (found["status"], found["code"]) == ("failed", "idempotency_key_reused"), found
    # The key stands for a booking that was made without the queue, under another id.
    found = outcome(cluster, late)
    assert (found["status"], found["code"]) == ("failed", "idempotency_key_reused"), found
    again = cluster.book(event, [(1, 1)], "a", headers={"Idempotency-Key": key})
    assert again.status == 201 and again.headers["Idempotent-Replayed"] == "true", again
    assert again.json()["bookingId"] == booking["booking"]["bookingId"]
    assert truth(cluster, event) == (2, 2)


@timeout(300)
def test_a_message_that_comes_twice_is_booked_once(cluster):
    """Copies side by side in one batch, and one more when all is done."""
    event = cluster.make_event(rows=2, cols=5, shard="alpha")
    cluster.stop("worker")  # its counters begin anew, too
    location = accepted(cluster, event, [(1, 1), (1, 2)], "a")
    with Broker(cluster.port("rabbitmq")) as broker:
        body = wait_until(lambda: broker.get(QUEUE), what="the message")
        for _ in range(5):
            broker.publish(QUEUE, body)
        wait_until(lambda: broker.depth(QUEUE) == 5, what="the copies")
        cluster.start("worker")
        confirmed(cluster, [location])
        broker.publish(QUEUE, body)

        def worked_off():
            return cluster.metric("seatgrid_queue_consumed_total", "worker", shard="alpha",
                                  outcome="booked")
        # before the connection ends, and takes with it what the broker has not read
        wait_until(lambda: worked_off() >= 6, 60, what="the copies to be worked off")
    wait_drained(cluster)
    confirmed(cluster, [location])
    assert cluster.value("alpha", "SELECT count(*) FROM refusals"
                                  f" WHERE event_id = {event}") == "0"
    assert truth(cluster, event) == (1, 2)


@timeout(300)
def test_a_refusal_that_was_told_is_final(cluster):
    """Its message comes again, as after a worker's death; or its buyer sends it again, with its key.
    The seat is free by now, and stays so: who was told "failed" would not look again."""
    event = cluster.make_event(rows=1, cols=4, shard="alpha")
    sold = cluster.book(event, [(1, 1)], "first").json()["bookingId"]
    cluster.stop("worker")
    location = accepted(cluster, event, [(1, 1)], "late", "once")
    answer = cluster.post("/book", {"eventId": event, "userId": "b", "best": [{"quantity": 4}]}, LATER)
    assert answer.status == 202, answer
    best = answer.headers["Location"]
    with Broker(cluster.port("rabbitmq")) as broker:
        bodies = [wait_until(lambda: broker.get(QUEUE), what="the message") for _ in range(2)]
        for body in bodies:
            broker.publish(QUEUE, body)
        cluster.start("worker")
        assert [outcome(cluster, one)["code"] for one in (location, best)] == \
            ["seats_taken", "sold_out"]
        wait_drained(cluster)
        answer = cluster.request("DELETE", f"/events/{event}/bookings/{sold}", None,
                                 {"X-User-Id": "first"})
        assert answer.status == 200, answer

        def worked_off():
            return sum(cluster.metric("seatgrid_queue_consumed_total", "worker", shard="alpha",
                                      outcome=end) for end in ("booked", "refused"))
        before = worked_off()
        for body in bodies:
            broker.publish(QUEUE, body)
        assert accepted(cluster, event, [(1, 1)], "late", "once") == location
        wait_until(lambda: worked_off() >= before + 3, 60, what="them to be worked off")
        wait_drained(cluster)
    found = [outcome(cluster, one) for one in (location, best)]
    assert [one.get("code") for one in found] == ["seats_taken", "sold_out"], found
    assert truth(cluster, event) == (0, 0)


@timeout(300)
def test_poison_goes_to_the_dead_letters(cluster):
    """Bytes that are no message, a megabyte of them, one of another version, one for an event that is
    on no shard: kept for people, and those behind them are booked."""
    event = cluster.make_event(rows=2, cols=5, shard="alpha")
    # version 1, an id, event 999999999, a user, seat 1/1: right in itself, and nowhere to tell it
    nowhere = (b"\x08\x01\x12\x10" + bytes(range(16)) + b"\x18\xff\x93\xeb\xdc\x03\x22\x01u"
               b"\x3a\x04\x0a\x02\x01\x01")
    poison = [b"rubbish", b"", b"\x08\x02" + nowhere[2:], nowhere, b"\x08\x01" * (1 << 19)]
    with Broker(cluster.port("rabbitmq")) as broker:
        while broker.get(DEAD):
            pass
        for body in poison:
            broker.publish(QUEUE, body)
        location = accepted(cluster, event, [(1, 1)])
        confirmed(cluster, [location])
        wait_until(lambda: broker.depth(DEAD) == len(poison), 60, what="the dead letters")
        assert sorted(broker.get(DEAD) for _ in poison) == sorted(poison)
    wait_until(lambda: cluster.metric("seatgrid_queue_consumed_total", "worker", shard="alpha",
                                      outcome="dead") >= len(poison), what="them to be counted")
    wait_drained(cluster)


# ---- whoever is killed ----------------------------------------------------------------------------


@timeout(420)
def test_a_killed_worker_loses_nothing(cluster):
    """kill -9 in the middle of a full queue, again and again."""
    event = cluster.make_event(rows=30, cols=20, shard="alpha")
    cluster.stop("worker")
    locations = [accepted(cluster, event, [(row, col)])
                 for row in range(1, 31) for col in range(1, 21)]
    for share in (1, 2, 3):
        cluster.start("worker")
        wait_until(lambda: truth(cluster, event)[0] >= 100 * share, 60, every=0.005,
                   what="some bookings")
        cluster.crash("worker")
    cluster.start("worker")
    confirmed(cluster, locations)
    assert truth(cluster, event) == (600, 600)
    assert depth(cluster, DEAD) == 0
    wait_drained(cluster)


@timeout(420)
def test_a_killed_broker_loses_nothing_accepted(cluster):
    """Under traffic. While it is away the answer is 503 with Retry-After, and soon."""
    event = cluster.make_event(rows=100, cols=50, shard="alpha")
    traffic = Traffic(cluster, event, 100, 50)
    traffic.wait_accepted(50)
    cluster.crash("rabbitmq")
    accepted_before = len(traffic.locations)

    def told_away():
        answer = book_later(cluster, event, [(1, 1)], "x", timeout=60)
        return answer if answer.code == "queue_unavailable" else None
    answer = wait_until(told_away, 60, what="the API to notice")
    assert answer.status == 503 and int(answer.headers["Retry-After"]) >= 1, answer
    cluster.start("rabbitmq")
    traffic.wait_accepted(accepted_before + 100)
    locations = traffic.stop()
    assert traffic.codes <= {"queue_unavailable", "outcome_unknown"}, traffic.codes
    confirmed(cluster, locations.values(), 120)
    wait_drained(cluster)
    # Those of unknown outcome that nobody asked about again may have been booked, too.
    assert truth(cluster, event)[1] >= len(locations)


@timeout(420)
def test_a_killed_api_loses_nothing_accepted(cluster):
    """Every 202 that somebody got is booked, also when nobody is left who sent it."""
    event = cluster.make_event(rows=100, cols=50, shard="alpha")
    traffic = Traffic(cluster, event, 100, 50)
    traffic.wait_accepted(50)
    cluster.crash("serve")
    accepted_before = len(traffic.locations)
    cluster.start("serve")
    traffic.wait_accepted(accepted_before + 50)
    locations = traffic.stop()
    confirmed(cluster, locations.values(), 120)
    wait_drained(cluster)
    assert truth(cluster, event)[1] >= len(locations)


@timeout(420)
def test_a_shard_without_a_primary_only_waits(cluster):
    """Its messages are neither lost nor dead; the other shard's are booked meanwhile."""
    events = {shard: cluster.make_event(rows=10, cols=10, shard=shard)
              for shard in ("alpha", "beta")}
    dead = depth(cluster, DEAD)
    cluster.crash("alpha-1")
    waiting = [accepted(cluster, events["alpha"], [(1, col)]) for col in range(1, 11)]
    confirmed(cluster, [accepted(cluster, events["beta"], [(1, col)]) for col in range(1, 11)])
    wait_until(lambda: cluster.metric("seatgrid_queue_retries_total", "worker",
                                      shard="alpha") > 0, 60, what="a try that failed")
    cluster.start("alpha-1")
    confirmed(cluster, waiting)
    assert truth(cluster, events["alpha"]) == (10, 10)
    assert depth(cluster, DEAD) == dead
    wait_drained(cluster)


@timeout(300)
def test_many_workers_that_end_do_a_message_no_harm(cluster):
    """It comes back each time: far more often than it may fail by itself."""
    event = cluster.make_event(rows=1, cols=1, shard="alpha")
    dead = depth(cluster, DEAD)
    cluster.stop("worker")
    location = accepted(cluster, event, [(1, 1)])
    with Broker(cluster.port("rabbitmq")) as broker:
        for _ in range(30):
            wait_until(lambda: broker.give_back(QUEUE), what="the message")
        wait_until(lambda: broker.depth(QUEUE) == 1, what="the message")
    cluster.start("worker")
    confirmed(cluster, [location])
    assert depth(cluster, DEAD) == dead


@timeout(300)
def test_a_new_shard_is_worked_off(cluster):
    """A worker takes up the queue of a shard that comes into the map, without a restart: what is
    accepted for it meanwhile only waits."""
    event = cluster.make_event(rows=1, cols=2, shard="beta")
    path = cluster.var / "shardmap.cfg"
    both = path.read_text(encoding="utf-8")
    alone = re.sub(r',\n  \{ name = "beta";.*?\); \}', "", both, flags=re.DOTALL)
    alone = re.sub(r',\n  \{ first = \d+; last = \d+; shard = "beta"; \}', "", alone)
    assert "beta" not in alone, alone

    def shards():
        return [one["shard"] for one in cluster.worker("GET", "/admin/queue").json()["shards"]]
    cluster.stop("worker")
    try:
        path.write_text(alone, encoding="utf-8")
        cluster.start("worker")
        assert shards() == ["alpha"]
        location = accepted(cluster, event, [(1, 1)])
        assert state(cluster, location)["status"] == "queued"
    finally:
        version = int(re.search(r"map_version = (\d+)", both).group(1))
        path.write_text(both.replace(f"map_version = {version}", f"map_version = {version + 1}"),
                        encoding="utf-8")
    confirmed(cluster, [location])
    assert shards() == ["alpha", "beta"]
    events = [event, cluster.make_event(rows=1, cols=2, shard="alpha")]
    confirmed(cluster, [accepted(cluster, one, [(1, 2)]) for one in events])
    wait_drained(cluster, "beta")


@timeout(300)
def test_a_deleted_queue_is_made_again(cluster):
    """By whoever notices; nobody is answered 202 for a message that found no queue."""
    event = cluster.make_event(rows=10, cols=10, shard="alpha")
    cluster.stop("worker")
    with Broker(cluster.port("rabbitmq")) as broker:
        broker.delete(QUEUE)
    refused = book_later(cluster, event, [(1, 1)], "a")
    assert refused.code == "queue_unavailable", refused
    location = accepted(cluster, event, [(1, 2)], "a")
    cluster.start("worker")
    confirmed(cluster, [location])
    with Broker(cluster.port("rabbitmq")) as broker:
        broker.delete(QUEUE)  # under the worker, too

    def accepted_again():
        answer = book_later(cluster, event, [(1, 3)], "b", "key-after")
        return answer.headers["Location"] if answer.status == 202 else None
    confirmed(cluster, [wait_until(accepted_again, 30, what="a queue")])
    assert truth(cluster, event) == (2, 2)


@timeout(300)
def test_a_worker_ends_in_order(cluster):
    """SIGTERM in the middle of the queue: what it was asked for is done and acknowledged, the rest
    stays where it is."""
    event = cluster.make_event(rows=20, cols=20, shard="alpha")
    cluster.stop("worker")
    locations = [accepted(cluster, event, [(row, col)])
                 for row in range(1, 21) for col in range(1, 21)]
    cluster.start("worker")
    pid = cluster.pid("worker")
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not cluster.pid("worker"), 30, what="the worker to end")
    assert "stopped" in cluster.log_tail("worker", 3), cluster.log_tail("worker")
    booked = truth(cluster, event)[0]
    wait_until(lambda: depth(cluster) == 400 - booked, 30, what="the rest in the queue")
    cluster.start("worker")
    confirmed(cluster, locations)
    assert truth(cluster, event) == (400, 400)
    wait_drained(cluster)


@short
def test_without_a_broker_it_is_an_ordinary_booking():
    """The preference is no more than one."""
    with Cluster(replicas=0) as cluster:
        event = cluster.make_event(rows=1, cols=2)
        answer = book_later(cluster, event, [(1, 1)])
        assert answer.status == 201, answer
        assert "Preference-Applied" not in answer.headers, answer.headers
        assert answer.json()["status"] == "confirmed"
        again = book_later(cluster, event, [(1, 1)])
        assert (again.status, again.code) == (409, "seats_taken"), again
