"""Every turn in the life of a booking is in Redis, and told to those who watch.

Goal: holds, late confirmations, orders, transfers and offers move the counters, the user-to-ticket
index and the live stream by exactly what they did, in the order in which it happened; whoever waits
for the outcome of an order hears it on the stream; a hold that is over but not swept is no drift.
Method: a real cluster with a consumer; the functions of migrations/0005_life.sql, called by SQL (the
sweeper of `serve` looks so seldom that each test does it itself), and a client of the stream, which
holds each event against the bookings.

SPDX-License-Identifier: MIT
"""

import json
import random
import time

from cdc_truth import differences, wait_running, wait_truth
from harness import PATIENT, SLOWDOWN, short, timeout, wait_until
from life import COLS, ROWS, Life
from live_client import EventStream
from redis_client import RedisClient

CLUSTER = {"replicas": 0, "cdc": True,
           "settings": {**PATIENT, "cdc.takeover_ms": 2000, "cdc.heartbeat_ms": 500, "cdc.reconcile_ms": 0,
                        "redis.max_staleness_ms": 30000, "redis.poll_ms": 50,
                        "sweeper.interval_ms": 600000}}
STATES = {"held": "held", "confirmed": "booked"}  # of a booking: of its seats


class Watched(Life):
    """An event with somebody who watches it, and knows its seats from what is told alone."""

    def __init__(self, cluster, shard="alpha"):
        super().__init__(cluster, shard)
        self.cluster = cluster
        self.open()
        self.told_counts = self._counts(self.stream.expect("counters"))
        self.states = ["available"] * (ROWS * COLS)

    def __exit__(self, *_):
        self.stream.close()
        super().__exit__()

    def open(self, last_id=None):
        """Watches from now on, or from that change on."""
        self.stream = wait_until(lambda: self._opened(last_id), 30, what="the stream to open")

    def _opened(self, last_id):
        stream = EventStream(self.cluster.http_port, self.event, last_id=last_id)
        if stream.status == 200:
            return stream
        stream.close()
        return None

    @staticmethod
    def _counts(data):
        return tuple(data[name] for name in ("total", "available", "held", "booked"))

    def next(self):
        """The next change: (booking, status, its seats' numbers)."""
        data = self.stream.expect("seats")
        assert self._counts(self.stream.expect("counters")) == self._counts(data), data
        assert "userId" not in data and "user" not in json.dumps(data), data
        self.told_counts = self._counts(data)
        seats = []
        for seat in data["seats"]:
            number = (seat["row"] - 1) * COLS + seat["col"] - 1
            self.states[number] = seat["status"]
            seats.append(number)
            assert seat["status"] == STATES.get(data["status"], "available"), data
        return data["bookingId"], data["status"], seats

    def told(self, *changes):
        """These changes, (booking, status, seats), come next, and nothing is left to be told."""
        for change in changes:
            found = self.next()
            assert found == (change[0], change[1], list(change[2])), (found, change)
        self.check()

    def told_late(self, booking, seats):
        """A hold that was over is confirmed; it may be told to be over first, for it was."""
        found = self.next()
        if found == (booking, "expired", seats):
            found = self.next()
        assert found == (booking, "confirmed", seats), found
        self.check()

    def check(self):
        """What was told is what is."""
        assert self.told_counts == self.counts(), (self.told_counts, self.counts())
        taken = {number for number, state in enumerate(self.states) if state != "available"}
        assert taken == set(self.owners()), (taken, self.owners())


def index_of(cluster, user, shard="alpha"):
    """The bookings of a user as Redis has them."""
    with RedisClient(cluster.port("redis")) as redis:
        generation = redis("HGET", f"sg1:{{s:{shard}}}", "gen")
        fields = redis.hash(f"sg1:{{u:{user}}}:{shard}.{generation}") or {}
    return {name for name in fields if name not in ("at", "epoch")}


def wait_index(cluster, user, *bookings):
    """Until these are all that the user has on alpha."""
    wait_until(lambda: index_of(cluster, user) == set(bookings), what=f"the tickets of {user}")


@short
def test_a_hold_and_what_becomes_of_it(cluster):
    """Held, extended, confirmed, cancelled; held and released."""
    wait_running(cluster)
    with Watched(cluster) as life:
        first = life.hold("ann-hold", [3, 4])
        life.told((first, "held", [3, 4]))
        wait_index(cluster, "ann-hold", first)
        assert life.change("extend", first, "ann-hold") == ("ok", "held")
        assert life.change("confirm", first, "ann-hold") == ("ok", "confirmed")
        life.told((first, "confirmed", [3, 4]))  # and nothing of the extension
        wait_index(cluster, "ann-hold", first)
        second = life.take("ann-hold", [0])
        life.told((second, "confirmed", [0]))
        assert life.change("confirm", second, "ann-hold") == ("ok", "confirmed")  # was so already
        assert life.change("cancel", first, "ann-hold") == ("ok", "cancelled")
        life.told((first, "cancelled", [3, 4]))
        wait_index(cluster, "ann-hold", second)
        third = life.hold("ann-hold", [3])
        assert life.change("cancel", third, "ann-hold") == ("ok", "cancelled")
        life.told((third, "held", [3]), (third, "cancelled", [3]))
        assert life.try_take("bob", [0, 1])[0] == "seats_taken"
        assert life.change("cancel", second, "bob")[0] == "not_owner"
        assert life.stream.is_quiet(0.2)
        life.check()
    wait_truth(cluster)


@short
def test_holds_whose_time_is_over(cluster):
    """Swept, taken over by another, confirmed late: a seat comes back before it is taken again."""
    wait_running(cluster)
    with Watched(cluster) as life:
        swept, taken, late, lost = (life.hold("ann-late", seats)
                                    for seats in ([0, 1], [2], [5, 6], [10, 11]))
        for booking, seats in ((swept, [0, 1]), (taken, [2]), (late, [5, 6]), (lost, [10, 11])):
            assert life.next() == (booking, "held", seats)
        life.run_out(swept)
        life.sweep()
        life.told((swept, "expired", [0, 1]))
        wait_index(cluster, "ann-late", taken, late, lost)
        # another buyer is first: the marks come before the sale
        life.run_out(taken)
        sold = life.take("bob-late", [2, 3])
        life.told((taken, "expired", [2]), (sold, "confirmed", [2, 3]))
        assert life.change("confirm", taken, "ann-late") == ("hold_expired", "expired")
        # late, and all is still there: before and after the sweeper
        life.run_out(late)
        assert life.change("confirm", late, "ann-late") == ("ok", "confirmed")
        life.told_late(late, [5, 6])
        assert life.change("confirm", swept, "ann-late") == ("ok", "confirmed")
        life.told_late(swept, [0, 1])
        wait_index(cluster, "ann-late", swept, late, lost)
        # late, and one of two is gone
        life.run_out(lost)
        other = life.hold("bob-late", [11])
        assert life.change("confirm", lost, "ann-late") == ("hold_expired", "expired")
        life.told((lost, "expired", [10, 11]), (other, "held", [11]))
        life.sweep()
        assert life.stream.is_quiet(0.2)
        wait_index(cluster, "ann-late", swept, late)
        wait_index(cluster, "bob-late", sold, other)
    wait_truth(cluster)


@short
def test_over_but_not_swept_is_no_drift(cluster):
    """Redis, and reconcile, go by what the bookings say; the seat is free all the same."""
    wait_running(cluster)
    with Watched(cluster) as life:
        booking = life.hold("ann-over", [7, 8])
        life.told((booking, "held", [7, 8]))
        life.run_out(booking)
        wait_truth(cluster)
        report = json.loads(cluster.seatgrid("reconcile", "--json").stdout)
        assert all(shard["drift"] == 0 for shard in report["shards"]), report
        assert life.stream.is_quiet(0.2)
        assert life.told_counts == (20, 18, 2, 0)
        seats = cluster.get(f"/events/{life.event}/seats").json()["seats"]
        assert "".join(seats) == "." * 20, seats
        life.sweep()
        life.told((booking, "expired", [7, 8]))
        assert cluster.seatgrid("reconcile").returncode == 0


@short
def test_the_outcome_of_an_order_is_heard(cluster):
    """Paid, refused, too late: the one who waits hears of it by its booking's id."""
    wait_running(cluster)
    with Watched(cluster) as life:
        life.sell_in_tiers()  # a change of the event's row: counters come, and no seat
        life.stream.expect("counters")
        paid, refused, late, gone = (life.hold("ann-pays", seats, "card")
                                     for seats in ([0], [1, 2], [3], [4]))
        for booking, seats in ((paid, [0]), (refused, [1, 2]), (late, [3]), (gone, [4])):
            assert life.next() == (booking, "held", seats)
            assert life.order(booking, "reserved", "charging") == ("ok", "charging")
        assert life.order(paid, "charging", "charged") == ("ok", "charged")
        assert life.order(paid, "charged", "confirm") == ("ok", "confirmed")
        life.told((paid, "confirmed", [0]))
        assert life.order(refused, "charging", "fail", "declined") == ("ok", "failed")
        life.told((refused, "failed", [1, 2]))
        # the hold was over and swept before: the seats stay where they are, the outcome is told
        for booking in (late, gone):
            life.run_out(booking)
        life.sweep()
        swept = [life.next(), life.next()]
        assert sorted(swept, key=str) == sorted([(late, "expired", [3]), (gone, "expired", [4])],
                                                key=str), swept
        assert life.order(late, "charging", "fail", "no_answer") == ("ok", "failed")
        life.told((late, "failed", []))
        # the money came, the seat is another's
        other = life.take("bob-pays", [4])
        life.told((other, "confirmed", [4]))
        assert life.order(gone, "charging", "charged") == ("ok", "charged")
        assert life.order(gone, "charged", "confirm") == ("ok", "refunding")
        life.told((gone, "failed", []))
        assert life.order(gone, "refunding", "refunded") == ("ok", "refunded")
        # who has paid gives it back
        assert life.change("cancel", paid, "ann-pays") == ("ok", "cancelled")
        life.told((paid, "cancelled", [0]))
        assert life.stream.is_quiet(0.2)
        wait_index(cluster, "ann-pays")
        wait_index(cluster, "bob-pays", other)
    wait_truth(cluster)


@short
def test_a_transfer_moves_the_ticket_and_no_seat(cluster):
    """The index of both users follows; watchers hear nothing; the new owner rules."""
    wait_running(cluster)
    with Watched(cluster) as life:
        booking = life.take("ann-gives", [9])
        life.told((booking, "confirmed", [9]))
        wait_index(cluster, "ann-gives", booking)
        assert life.change("transfer", booking, "ann-gives", "bob-gets") == ("ok", "confirmed")
        wait_index(cluster, "ann-gives")
        wait_index(cluster, "bob-gets", booking)
        assert life.stream.is_quiet(0.2)
        assert life.change("cancel", booking, "ann-gives")[0] == "not_owner"
        # there and back again in one transaction
        life.session.run("BEGIN")
        assert life.change("transfer", booking, "bob-gets", "ann-gives")[0] == "ok"
        assert life.change("transfer", booking, "ann-gives", "eve-gets")[0] == "ok"
        life.session.run("COMMIT")
        wait_index(cluster, "eve-gets", booking)
        wait_index(cluster, "bob-gets")
        wait_index(cluster, "ann-gives")
        assert life.change("cancel", booking, "eve-gets") == ("ok", "cancelled")
        life.told((booking, "cancelled", [9]))
        wait_index(cluster, "eve-gets")
    wait_truth(cluster)


@short
def test_a_returned_seat_is_offered(cluster):
    """Back, and held for who waits, in this order; in the end it is sold."""
    wait_running(cluster)
    with Watched(cluster) as life:
        everything = life.take("ann-all", range(20))
        life.told((everything, "confirmed", range(20)))
        first, second = life.wait_in_line("bob-waits"), life.wait_in_line("eve-waits", 19)
        assert life.offered_to(first) is None
        assert life.change("cancel", everything, "ann-all") == ("ok", "cancelled")
        offer, large = life.offered_to(first), life.offered_to(second)
        assert life.next() == (everything, "cancelled", list(range(20)))
        booking, status, seats = life.next()
        assert (booking, status, len(seats)) == (offer, "held", 1)
        booking, status, others = life.next()
        assert (booking, status, len(others)) == (large, "held", 19)
        life.check()
        wait_index(cluster, "bob-waits", offer)
        assert life.change("confirm", offer, "bob-waits") == ("ok", "confirmed")
        life.told((offer, "confirmed", seats))
        third = life.wait_in_line("zoe-waits")
        life.run_out(large)
        life.sweep()
        assert life.next() == (large, "expired", others)
        booking, status, seats = life.next()
        assert (booking, status) == (life.offered_to(third), "held")
        life.check()
        wait_index(cluster, "eve-waits")
        wait_index(cluster, "zoe-waits", booking)
    wait_truth(cluster)


@short
def test_who_comes_back_hears_what_was_missed(cluster):
    """Last-Event-ID brings what became of bookings, too."""
    wait_running(cluster)
    with Watched(cluster) as life:
        booking = life.hold("ann-away", [3], "card")
        life.told((booking, "held", [3]))
        last_id = life.stream.last_id
        life.stream.close()
        assert life.order(booking, "reserved", "fail", "declined") == ("ok", "failed")
        after = life.take("ann-away", [4])
        life.open(last_id)
        life.told((booking, "failed", [3]), (after, "confirmed", [4]))


@short
def test_over_http(cluster):
    """The same lives by requests: what an answer says, the stream says, and the index has."""
    wait_running(cluster)
    with Watched(cluster) as life:
        user, place = {"X-User-Id": "ann-http"}, f"/events/{life.event}"
        held = cluster.post(f"{place}/holds", {"userId": "ann-http", "seats": [{"row": 1, "col": 4}]})
        assert held.status == 201, held
        booking = held.json()["bookingId"]
        life.told((booking, "held", [3]))
        path = f"{place}/bookings/{booking}"
        assert cluster.post(f"{path}/confirm", {"userId": "ann-http"}).status == 200
        life.told((booking, "confirmed", [3]))
        wait_index(cluster, "ann-http", booking)
        given = cluster.post(f"{path}/transfer", {"userId": "ann-http", "toUserId": "bob-http"})
        assert given.status == 200, given
        wait_index(cluster, "ann-http")
        wait_index(cluster, "bob-http", booking)
        assert cluster.request("DELETE", path, headers=user).status == 403
        assert cluster.request("DELETE", path, headers={"X-User-Id": "bob-http"}).status == 200
        life.told((booking, "cancelled", [3]))
        wait_index(cluster, "bob-http")
    wait_truth(cluster)


class Users:
    """Users who do what comes to mind, to the events of one shard."""

    def __init__(self, cluster, seed):
        self.rng = random.Random(seed)
        self.lives = [Life(cluster, shard) for shard in ("alpha", "beta") for _ in range(2)]
        self.bookings = [[] for _ in self.lives]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for life in self.lives:
            life.session.close()

    def step(self):
        """One thing is done, or refused."""
        which = self.rng.randrange(len(self.lives))
        life, bookings = self.lives[which], self.bookings[which]
        user = f"life-{self.rng.randrange(6)}"
        what = self.rng.random()
        if what < 0.35 or not bookings:
            seats = self.rng.sample(range(ROWS * COLS), self.rng.randrange(1, 4))
            outcome, booking = life.try_take(user, seats, self.rng.choice((None, 3600000, 3600000)),
                                             None)
            if outcome == "booked":
                bookings.append((booking, user))
        elif what < 0.5:
            life.run_out(self.rng.choice(bookings)[0])
        elif what < 0.55:
            life.sweep()
        elif what < 0.6:
            outcome, booking = life.try_take(user, [self.rng.randrange(20)], 3600000, "card")
            if outcome == "booked" and life.order(booking, "reserved", "charging")[0] == "ok":
                life.order(booking, "charging", self.rng.choice(("fail", "charged")))
                life.order(booking, "charged", "confirm")
        else:
            booking, owner = self.rng.choice(bookings)
            kind = self.rng.choice(("confirm", "confirm", "extend", "cancel", "transfer"))
            outcome, _ = life.change(kind, booking, owner, user if kind == "transfer" else None)
            if (kind, outcome) == ("transfer", "ok"):
                bookings[bookings.index((booking, owner))] = (booking, user)
        life.owners()  # nobody's seat is another's


@timeout(240)
def test_random_lives_under_faults(cluster):
    """Whatever they do, with the consumer and Redis killed meanwhile, Redis equals SQL at the end."""
    wait_running(cluster)
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"      seed {seed}")
    with Users(cluster, seed) as users:
        for round_number in range(6):
            until = time.monotonic() + 1.0 * SLOWDOWN
            while time.monotonic() < until:
                users.step()
            if round_number in (1, 3):
                cluster.crash("cdc")
                users.step()
                cluster.start("cdc")
            elif round_number == 2:
                with RedisClient(cluster.port("redis")) as redis:
                    redis("FLUSHALL")  # everything is built anew, beside those who go on
            elif round_number == 4:
                wait_running(cluster)
                wait_truth(cluster)
        wait_running(cluster)
        wait_truth(cluster)
        assert not differences(cluster)
        assert cluster.seatgrid("reconcile").returncode == 0
