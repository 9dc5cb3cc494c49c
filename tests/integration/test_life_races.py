"""A booking's life, many sessions at once: nothing is lost, doubled, or taken before it is free.

Goal: holds that run out under takes, changes, order steps and sweeps at the same moment come to one
end; limits hold; parallel buyers of best seats do not wait for each other and hear no false
"sold out"; nobody on the waiting list is overlooked; nobody waits in a circle for long. Method:
single interleavings held still with open transactions; and a storm of eight sessions for seconds
(seed printed; SEATGRID_SEED repeats it) whose tables, answers and WAL are checked afterwards.

SPDX-License-Identifier: MIT
"""

import contextlib
import json
import os
import random
import threading
import time

from harness import SLOWDOWN, wait_until
from life_sql import (HOLD_MS, RESET, Change, SeatLog, Take, add_event, best, best_sql, book,
                      booking, change_sql, changed, check_tables, due, hold, join, join_sql, leave,
                      leave_sql, look, new_id, owners, run_out, step, step_sql, sweep, sweep_sql, take, take_sql)
from psql import Session, SqlError

CLUSTER = {"replicas": 0, "no_serve": True}
STORM_S = 6
ACTS_MIN = 40   # of each session, on a machine however slow
SEED = int(os.environ.get("SEATGRID_SEED", random.SystemRandom().randrange(1 << 32)))


@contextlib.contextmanager
def world(cluster, count=2, *events):
    """That many sessions on empty tables with the events (arguments of add_event)."""
    port = cluster.port("alpha-1")
    with contextlib.ExitStack() as stack:
        sessions = [stack.enter_context(Session(port)) for _ in range(count)]
        sessions[0].run(RESET)
        for event in events or ((1, 3, 4), (2, 1, 1)):
            add_event(sessions[0], *event)
        log = stack.enter_context(SeatLog(port))
        yield sessions
        check_tables(sessions[0])
        log.read()


def ask(session, query):
    """Sends a query whose rows `told` reads later."""
    session.send(f"SELECT coalesce(json_agg(t), '[]') FROM ({query}) t")


def told(session):
    """The rows of what was asked."""
    return json.loads("".join(session.receive()))


def wait_blocked(session, count=1):
    """Until that many sessions wait for a lock."""
    wait_until(lambda: session.value("SELECT count(*) FROM pg_locks WHERE NOT granted") >= count,
               60, every=0.01, what="a session to wait for a lock")


# ---- holds that have just run out ----------------------------------------------------------------


def test_two_buyers_share_the_seats_of_a_hold_that_ran_out(cluster):
    """One has marked it, uncommitted; the other wants its second seat: 'again' until that is seen,
    so that the log never shows a seat taken that has not come back."""
    with world(cluster) as (one, two):
        old = hold(one, 1, [(1, 1), (1, 2)])
        run_out(one, old)
        one.run("BEGIN")
        book(one, 1, [(1, 1)], "a")
        rival = Take(1, [(1, 2)], "b")
        assert take(two, [rival])[0]["outcome"] == "again"
        one.run("COMMIT")
        assert take(two, [rival])[0]["outcome"] == "booked"
        assert booking(one, old)["status"] == "expired"


def test_a_buyer_and_who_is_late_want_the_same_seats(cluster):
    """Whoever comes first has them; the other hears so. In both orders, committed or not."""
    with world(cluster) as (one, two):
        for end in ("COMMIT", "ROLLBACK"):
            old = hold(one, 1, [(1, 1), (1, 2)])
            run_out(one, old)
            one.run("BEGIN")
            assert changed(one, old, "confirm") == ("ok", "confirmed")
            new = Take(1, [(1, 2), (1, 3)], "b")
            ask(two, take_sql([new]))
            wait_blocked(one)
            one.run(end)
            assert told(two)[0]["outcome"] == "again"
            outcome = take(two, [new])[0]["outcome"]
            assert outcome == ("seats_taken" if end == "COMMIT" else "booked")
            assert changed(one, old, "confirm")[0] == ("ok" if end == "COMMIT" else "hold_expired")
            for of, user in ((old, "u"), (new, "b")):
                changed(one, of, "cancel", user)
        old = hold(one, 1, [(1, 1), (1, 2)])
        run_out(one, old)
        one.run("BEGIN")
        book(one, 1, [(1, 2)], "b")
        ask(two, change_sql([Change(old, "confirm")]))
        wait_blocked(one)
        one.run("COMMIT")
        assert told(two)[0]["outcome"] == "hold_expired"
        assert list(owners(one, 1)) == [1]


def test_a_hold_is_extended_while_it_ends(cluster):
    """The extension's transaction is older than the end, the buyer's is younger: the hold stays."""
    with world(cluster) as (one, two):
        old = hold(one, 1, [(1, 1)])
        one.run("BEGIN; SELECT now()")
        run_out(two, old, ago_ms=0)
        assert booking(two, old)["over"] and not booking(one, old)["over"]
        assert changed(one, old, "extend", arg=HOLD_MS) == ("ok", "held")
        ask(two, take_sql([Take(1, [(1, 1)], "b")]))
        wait_blocked(one)
        one.run("COMMIT")
        assert told(two)[0]["outcome"] == "again"
        assert owners(one, 1) == {0: old.booking_id}


def test_a_hold_committed_only_after_its_end(cluster):
    """Its COMMIT took longer than the hold lasted, and a buyer was there meanwhile: it is marked
    before its seats go to another."""
    with world(cluster) as (one, two):
        one.run("BEGIN")
        old = hold(one, 1, [(1, 1)], hold_ms=1)
        one.run("SELECT pg_sleep(0.01)")
        new = Take(1, [(1, 1)], "b")
        ask(two, take_sql([new]))
        wait_blocked(one)
        one.run("COMMIT")
        assert told(two)[0]["outcome"] == "again"
        assert take(two, [new])[0]["outcome"] == "booked"
        assert booking(one, old)["status"] == "expired"


def test_a_sweep_and_a_buyer(cluster):
    """The buyer comes while the sweep is open: the seat comes back first, then it is taken."""
    with world(cluster) as (one, two):
        old = hold(one, 1, [(1, 1), (1, 2), (1, 3)])
        run_out(one, old)
        one.run("BEGIN")
        assert sweep(one, 1) == ("ok", 1, 0, True)
        new = Take(1, [(1, 1), (1, 3)], "b")
        ask(two, take_sql([new]))
        wait_blocked(one)
        one.run("COMMIT")
        assert told(two)[0]["outcome"] == "again", "the sweep's limit has left a seat"
        assert take(two, [new])[0]["outcome"] == "booked"
        assert set(owners(one, 1).values()) == {new.booking_id}


def test_one_sweep_at_a_time_that_waits_for_nobody(cluster):
    """The second is told 'busy'; a booking that is being changed is left for the next."""
    with world(cluster, 3) as (one, two, three):
        old = hold(one, 1, [(1, 1)])
        run_out(one, old)
        one.run("BEGIN")
        assert changed(one, old, "confirm") == ("ok", "confirmed")
        two.run("BEGIN")
        assert sweep(two) == ("ok", 0, 0, False)
        assert sweep(three)[0] == "busy"
        two.run("COMMIT")
        one.run("COMMIT")
        assert sweep(three) == ("ok", 0, 0, False)
        assert booking(one, old)["status"] == "confirmed"


# ---- limits --------------------------------------------------------------------------------------


def test_a_limit_holds_between_a_confirmation_and_a_purchase(cluster):
    """The hold is confirmed by a transaction older than its end while its user takes as many again
    in a younger one: not both."""
    with world(cluster, 2, (1, 3, 4, (), 2)) as (one, two):
        old = hold(one, 1, [(1, 1), (1, 2)])
        one.run("BEGIN; SELECT now()")
        run_out(two, old, ago_ms=0)
        assert booking(two, old)["over"] and not booking(one, old)["over"]
        assert changed(one, old, "confirm") == ("ok", "confirmed")
        new = Take(1, [(2, 1), (2, 2)])
        assert take(two, [new])[0]["outcome"] == "again"
        one.run("COMMIT")
        (answer,) = take(two, [new])
        assert (answer["outcome"], answer["allowed"]) == ("over_limit", 0)


def test_a_limit_holds_for_late_orders_and_transfers(cluster):
    """Each waits for its user's other purchase, and then counts it."""
    with world(cluster, 2, (1, 3, 4, (("all", 5, 1),), 2)) as (one, two):
        late = hold(one, 1, [(1, 1)], method="card")
        for before, action in (("reserved", "charging"), ("charging", "charged")):
            assert step(one, late, before, action)[0] == "ok"
        run_out(one, late)
        gift = book(one, 1, [(3, 1)], "giver")
        one.run("BEGIN")
        book(one, 1, [(2, 1), (2, 2)])
        ask(two, step_sql(late, "charged", "confirm"))
        wait_blocked(one)
        one.run("COMMIT")
        assert told(two)[0]["state"] == "refunding"
        one.run("BEGIN")
        book(one, 1, [(2, 3), (2, 4)], "taker")
        ask(two, change_sql([Change(gift, "transfer", "giver", text="taker")]))
        wait_blocked(one)
        one.run("COMMIT")
        (answer,) = told(two)
        assert (answer["outcome"], answer["allowed"]) == ("over_limit", 0), answer


# ---- best seats ----------------------------------------------------------------------------------


def test_best_buyers_pass_each_other(cluster):
    """One has taken the best seat and has not committed: the next gets the next best without
    waiting; the one behind the last waits for what becomes of it, and takes what comes back."""
    with world(cluster, 3, (1, 1, 3)) as (one, two, three):
        one.run("BEGIN")
        assert best(one, 1, [(None, 1, False)])["seats"] == [1]
        assert best(two, 1, [(None, 2, False)], user="b")["outcome"] == "booked"
        for end, outcome in (("ROLLBACK", "booked"), ("COMMIT", "sold_out")):
            ask(two, best_sql(1, [(None, 1, True)], user=end))
            wait_blocked(three)
            one.run(end)
            (answer,) = told(two)
            assert answer["outcome"] == outcome, (end, answer)
            if end == "ROLLBACK":
                changed(two, (1, answer_id(two, end)), "cancel", end)
                one.run("BEGIN")
                assert best(one, 1, [(None, 1, False)])["outcome"] == "booked"


def answer_id(session, user):
    """The booking of a user that has one."""
    return session.value(f"SELECT booking_id FROM bookings WHERE user_id = '{user}'")


def test_a_crowd_of_best_buyers_sells_out_exactly(cluster):
    """Six sessions, each again and again two side by side: all 60 are sold, no "no" came before."""
    port = cluster.port("alpha-1")
    with world(cluster, 1, (1, 6, 10)) as (session,):
        answers, errors = [], []

        def buy(number):
            try:
                with Session(port) as own:
                    for n in range(8):
                        answers.append(best(own, 1, [(None, 2, True)], user=f"u{number}-{n}"))
            except Exception as error:  # pylint: disable=broad-except
                errors.append(error)

        threads = [threading.Thread(target=buy, args=(n,)) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        assert not errors, errors
        kinds = [answer["outcome"] for answer in answers]
        assert kinds.count("booked") == 30 and kinds.count("sold_out") == 18, kinds
        assert len(owners(session, 1)) == 60


def test_best_buyers_do_not_fail_over_the_same_key(cluster):
    """The same request twice at once, for the last seat: one booking, told to both."""
    with world(cluster) as (one, two):
        one.run("BEGIN")
        first = best(one, 2, [(None, 1, True)], key="k")
        ask(two, best_sql(2, [(None, 1, True)], key="k"))
        wait_blocked(one)
        one.run("COMMIT")
        (answer,) = told(two)
        assert answer["outcome"] == "replayed" and answer["seats"] == first["seats"] == [0], answer


# ---- the waiting list ----------------------------------------------------------------------------


def test_nobody_is_overlooked_between_joining_and_giving_back(cluster):
    """Whichever commits first, who waits is offered the seat."""
    with world(cluster) as (one, two):
        sold = book(one, 2, [(1, 1)])
        one.run("BEGIN")
        assert changed(one, sold, "cancel") == ("ok", "cancelled")
        ask(two, join_sql(2, "w"))
        wait_blocked(one)
        one.run("COMMIT")
        (answer,) = told(two)
        offer = look(one, 2, answer["entry_id"])
        assert offer["state"] == "offered", offer
        assert changed(one, (2, offer["booking_id"]), "confirm", "w") == ("ok", "confirmed")
        one.run("BEGIN")
        _, entry = join(one, 2, "x")
        ask(two, change_sql([Change((2, offer["booking_id"]), "cancel", "w")]))
        wait_blocked(one)
        one.run("COMMIT")
        assert told(two)[0]["outcome"] == "ok"
        assert look(one, 2, entry)["state"] == "offered"


def test_who_leaves_is_offered_nothing(cluster):
    """The seat comes back while the first is leaving: it is the second's."""
    with world(cluster) as (one, two):
        sold = book(one, 2, [(1, 1)])
        _, first = join(one, 2, "a")
        _, second = join(one, 2, "b")
        two.run("BEGIN")
        assert leave(two, 2, first, "a") == "ok"
        assert changed(one, sold, "cancel") == ("ok", "cancelled")
        two.run("COMMIT")
        assert [look(one, 2, entry)["state"] for entry in (first, second)] == ["left", "offered"]


def test_an_offer_that_finds_a_buyer_at_the_seat_is_made_later(cluster):
    """The buyer has it uncommitted: the offer does not wait for long; the sweep makes it when the
    buyer gives up, before anybody behind is served."""
    with world(cluster, 2, (1, 1, 2)) as (one, two):
        sold = [book(one, 1, [(1, 1)]), book(one, 1, [(1, 2)])]
        _, entry = join(one, 1, "w", 2)
        _, behind = join(one, 1, "x", 1)
        changed(one, sold[0], "cancel")
        assert look(one, 1, behind)["state"] == "offered"
        changed(one, (1, look(one, 1, behind)["booking_id"]), "cancel", "x")
        _, behind = join(one, 1, "x", 1)   # again, behind the pair
        changed(one, (1, look(one, 1, behind)["booking_id"]), "cancel", "x")
        _, last = join(one, 1, "y", 1)
        changed(one, (1, look(one, 1, last)["booking_id"]), "cancel", "y")
        two.run("BEGIN")
        book(two, 1, [(1, 1)], "buyer")
        assert changed(one, sold[1], "cancel") == ("ok", "cancelled")
        assert look(one, 1, entry)["state"] == "waiting"
        two.run("ROLLBACK")
        assert sweep(one) == ("ok", 0, 1, False)
        assert look(one, 1, entry)["state"] == "offered"


def test_seats_that_a_buyer_takes_from_a_hold_and_gives_back(cluster):
    """A hold runs out; a buyer gets its seats and not the third, which another has bought meanwhile:
    they are offered to who waits, though no overdue hold is left that would show that they are free."""
    with world(cluster, 2, (1, 1, 3)) as (one, two):
        old = hold(one, 1, [(1, 1), (1, 2)])
        _, entry = join(one, 1, "w", 2)
        assert look(one, 1, entry)["state"] == "waiting"
        run_out(one, old)
        one.run("BEGIN")
        book(one, 1, [(1, 3)], "a")
        buyer = Take(1, [(1, 1), (1, 2), (1, 3)], "b")
        ask(two, take_sql([buyer]))
        wait_blocked(one)
        one.run("COMMIT")
        assert told(two)[0]["outcome"] == "again"
        assert take(two, [buyer])[0]["outcome"] == "seats_taken"
        assert booking(one, old)["status"] == "expired" and set(owners(one, 1)) == {2}
        assert sweep(one) == ("ok", 0, 1, False)
        assert look(one, 1, entry)["state"] == "offered"


def test_an_offer_to_somebody_who_is_buying(cluster):
    """Under a limit: passed over while their own purchase is open, served by the next sweep."""
    with world(cluster, 2, (1, 1, 4, (), 2)) as (one, two):
        sold = book(one, 1, [(1, 1), (1, 2)])
        book(one, 1, [(1, 3)], "v")
        _, entry = join(one, 1, "w", 2)
        two.run("BEGIN")
        assert take(two, [Take(1, [(1, 4), (1, 3)], "w")])[0]["outcome"] == "seats_taken"
        assert changed(one, sold, "cancel") == ("ok", "cancelled")
        assert look(one, 1, entry)["state"] == "waiting"
        two.run("COMMIT")
        assert sweep(one) == ("ok", 0, 1, False)
        assert look(one, 1, entry)["state"] == "offered"


# ---- orders --------------------------------------------------------------------------------------


def test_one_step_of_an_order_is_taken_once(cluster):
    """Two go on with the same order from the same state: the second finds it moved on."""
    with world(cluster) as (one, two):
        order = hold(one, 1, [(1, 1)], method="card")
        one.run("BEGIN")
        assert step(one, order, "reserved", "charging") == ("ok", "charging")
        ask(two, step_sql(order, "reserved", "fail"))
        wait_blocked(one)
        one.run("COMMIT")
        (answer,) = told(two)
        assert (answer["outcome"], answer["state"]) == ("moved", "charging")
        one.run("UPDATE orders SET due_at = now()")
        one.run("BEGIN")
        assert len(due(one)) == 1
        assert due(two) == [], "leased to the other, which has not even committed"
        one.run("COMMIT")
        one.run("BEGIN")
        assert step(one, order, "charging", "charged") == ("ok", "charged")
        ask(two, change_sql([Change(order, "cancel")]))
        wait_blocked(one)
        one.run("COMMIT")
        assert told(two)[0]["outcome"] == "order_open"


def test_the_same_change_twice_at_once(cluster):
    """A double click: with a key both hear of one change; a change of each commits in turn."""
    with world(cluster) as (one, two):
        held = hold(one, 1, [(1, 1)])
        one.run("BEGIN")
        assert changed(one, held, "extend", arg=HOLD_MS, key="k") == ("ok", "held")
        ask(two, change_sql([Change(held, "extend", arg=HOLD_MS, key="k")]))
        wait_blocked(one)
        one.run("COMMIT")
        assert told(two)[0]["outcome"] == "replayed"
        assert booking(one, held)["extended"] == 1


def test_one_key_for_two_changes_at_once(cluster):
    """Of two bookings, by two sessions: the first is done, the second is sent again and refused."""
    with world(cluster) as (one, two):
        first, second = hold(one, 1, [(1, 1)]), hold(one, 1, [(1, 2)])
        one.run("BEGIN")
        assert changed(one, first, "confirm", key="k") == ("ok", "confirmed")
        ask(two, change_sql([Change(second, "confirm", key="k", body=2)]))
        wait_blocked(one)
        one.run("COMMIT")
        try:
            told(two)
            raise AssertionError("the same key twice")
        except SqlError as error:
            assert "another change at this moment" in str(error), error
        assert changed(two, second, "confirm", key="k", body=2)[0] == "key_reused"
        assert booking(one, second)["status"] == "held"


def test_a_limit_holds_for_what_a_batch_makes_possible(cluster):
    """Confirmed and given away, given away twice: each receiver's other purchase is waited for."""
    with world(cluster, 2, (1, 3, 4, (), 2)) as (one, two):
        for before in (Change, book):
            made = (hold if before is Change else book)(one, 1, [(1, 1), (1, 2)], "u")
            batch = [Change(made, "confirm", "u"), Change(made, "transfer", "u", text="w")] \
                if before is Change else \
                [Change(made, "transfer", "u", text="v"), Change(made, "transfer", "v", text="w")]
            one.run("BEGIN")
            other = book(one, 1, [(2, 1), (2, 2)], "w")
            ask(two, change_sql(batch))
            wait_blocked(one)
            one.run("COMMIT")
            assert told(two)[-1]["outcome"] == "over_limit"
            owner = booking(one, made)["user_id"]
            for each, user in ((other, "w"), (made, owner)):
                assert changed(one, each, "cancel", user)[0] == "ok"


# ---- the storm -----------------------------------------------------------------------------------


class Buyer(threading.Thread):
    """Does one thing after the other, at random, until time is up. What the server ended because of
    a deadlock is sent again, as the router does."""

    USERS = [f"u{n}" for n in range(6)]

    def __init__(self, port, seed, until, past):
        super().__init__()
        self.rng, self.port, self.until, self.past = random.Random(seed), port, until, past
        self.seen, self.deadlocks, self.error = {}, 0, None
        self.acts = 0

    def run(self):
        try:
            with Session(self.port) as session:
                while time.monotonic() < self.until or self.acts < ACTS_MIN:
                    self.act(session)
                    self.acts += 1
        except Exception as error:  # pylint: disable=broad-except
            self.error = error

    def ask(self, session, what, query):
        """The rows of a call."""
        while True:
            try:
                rows = session.rows(query)
            except SqlError as error:
                if "deadlock detected" not in str(error):
                    raise
                self.deadlocks += 1
                continue
            for row in rows:
                name = f"{what}:{row['outcome']}"
                self.seen[name] = self.seen.get(name, 0) + 1
            return rows

    def seats(self, event):
        """Some of an event."""
        rows, cols = STORM[event][1:3]
        count = min(self.rng.choice((1, 1, 2, 3)), rows * cols)
        return [(n // cols + 1, n % cols + 1) for n in self.rng.sample(range(rows * cols), count)]

    def act(self, session):
        """One batch of something."""
        rng = self.rng
        kind = rng.choices(("take", "change", "best", "step", "sweep", "join", "leave"),
                           (10, 10, 3, 5, 2, 2, 1))[0]
        getattr(self, f"do_{kind}")(session)

    def do_take(self, session):
        """A batch, rivals marked as a lane does."""
        batch, touched = [], set()
        for _ in range(self.rng.choice((1, 1, 3, 8))):
            event = self.rng.choice(list(STORM))
            one = Take(event, self.seats(event), self.rng.choice(self.USERS),
                       hold_ms=self.rng.choice((None, 1, 20, 100, 400)))
            if one.hold_ms and self.rng.random() < 0.4:
                one.method = "card"
            things = {(event, *seat) for seat in one.seats}
            one.rival = bool(things & touched)
            touched |= things
            batch.append(one)
        for row in self.ask(session, "take", take_sql(batch)):
            if row["outcome"] == "booked":
                self.past.append(batch[row["ord"] - 1])

    def do_change(self, session):
        """A batch of changes, mostly by the owner."""
        batch = []
        for _ in range(self.rng.choice((1, 1, 3, 8))):
            if self.past:
                of = self.rng.choice(self.past[-60:])
                kind = self.rng.choice(("confirm", "confirm", "extend", "cancel", "cancel",
                                        "cancel", "cancel", "transfer"))
                batch.append(Change(of, kind, of.user, arg=self.rng.choice((1, 50, 300)),
                                    text=self.rng.choice(self.USERS) if kind == "transfer" else None))
        if batch:
            self.ask(session, "change", change_sql(batch))

    def do_best(self, session):
        """Two side by side, or anywhere."""
        event, user = self.rng.choice(list(STORM)), self.rng.choice(self.USERS)
        one = Take(event, [], user)
        (row,) = self.ask(session, "best", best_sql(
            event, [(None, self.rng.choice((1, 2)), self.rng.random() < 0.5)], user,
            self.rng.choice((None, 20, 200)), booking_id=one.booking_id))
        if row["outcome"] == "booked":
            self.past.append(one)

    def do_step(self, session):
        """Orders go on, or somebody is faster."""
        orders = self.ask(session, "due", "SELECT 'ok' AS outcome, event_id, order_id, state"
                                          " FROM orders WHERE due_at IS NOT NULL"
                                          " ORDER BY random() LIMIT 3")
        for order in orders:
            action = self.rng.choice({"reserved": ("charging", "fail", "confirm"),
                                      "charging": ("charged", "charged", "fail", "later"),
                                      "charged": ("confirm",), "refunding": ("refunded",)}
                                     [order["state"]])
            self.ask(session, "step", step_sql((order["event_id"], order["order_id"]),
                                               order["state"], action))

    def do_sweep(self, session):
        """A few or many."""
        self.ask(session, "sweep", sweep_sql(self.rng.choice((1, 5, 100))))

    def do_join(self, session):
        """The waiting list; a present offer is taken up."""
        event, user = self.rng.choice(list(STORM)), self.rng.choice(self.USERS)
        self.ask(session, "join", join_sql(event, user, self.rng.choice((1, 2)),
                                           together=self.rng.random() < 0.5))
        for row in session.rows(f"SELECT event_id, booking_id FROM waitlist WHERE state = 'offered'"
                                f" AND user_id = '{user}'"):
            self.ask(session, "offer", change_sql([
                Change((row["event_id"], row["booking_id"]),
                       self.rng.choice(("confirm", "cancel")), user)]))

    def do_leave(self, session):
        """Whoever waits."""
        for row in session.rows("SELECT event_id, entry_id, user_id FROM waitlist"
                                " WHERE state = 'waiting' ORDER BY random() LIMIT 1"):
            self.ask(session, "leave", leave_sql(*row.values()))


STORM = {1: (1, 3, 4, (("front", 5, 1), ("back", 3, 2))), 2: (2, 1, 1), 3: (3, 2, 5, (), 3),
         4: (4, 5, 8, (("all", 7, 1),), 5)}


def test_storm(cluster):
    """Eight sessions do everything at once over few seats, holds of milliseconds among them."""
    port = cluster.port("alpha-1")
    with world(cluster, 1, *STORM.values()) as (session,):
        until, past = time.monotonic() + STORM_S * SLOWDOWN, []
        buyers = [Buyer(port, SEED + n, until, past) for n in range(8)]
        for buyer in buyers:
            buyer.start()
        for buyer in buyers:
            buyer.join(120)
        assert not any(buyer.is_alive() for buyer in buyers), "a session hangs"
        seen, deadlocks = {}, sum(buyer.deadlocks for buyer in buyers)
        for buyer in buyers:
            for name, count in buyer.seen.items():
                seen[name] = seen.get(name, 0) + count
        print(f"      seed {SEED}, {deadlocks} deadlocks, {sum(seen.values())} answers: {seen}")
        assert not any(buyer.error for buyer in buyers), (SEED, [buyer.error for buyer in buyers])
        check_tables(session)
        assert deadlocks < 3 + sum(seen.values()) / 100, (deadlocks, seen)
        for name in ("take:booked", "take:seats_taken", "change:ok", "best:booked", "step:ok",
                     "sweep:ok", "join:ok"):
            assert seen.get(name), (SEED, name, seen)
        # Quiet: all holds end, and nothing stays behind.
        session.run("UPDATE orders SET due_at = now() WHERE due_at IS NOT NULL")
        quiet(session)
        check_tables(session)
        assert session.value("SELECT count(*) FROM claims WHERE state = 'held'") == 0
        assert session.value("SELECT count(*) FROM bookings WHERE status = 'held'") == 0
        assert session.value("SELECT count(*) FROM orders WHERE due_at IS NOT NULL") == 0
        free_for_waiting = session.rows(
            "SELECT w.* FROM waitlist w JOIN events e USING (event_id) WHERE w.state = 'waiting'"
            " AND w.quantity = 1 AND e.max_per_user IS NULL AND e.rows * e.cols >"
            " (SELECT count(*) FROM claims c WHERE c.event_id = e.event_id)")
        assert not free_for_waiting, (SEED, free_for_waiting)


def quiet(session):
    """Orders go to their end, offers are taken up, holds run out."""
    after = {"reserved": "fail", "charging": "charged", "charged": "confirm", "refunding": "refunded"}
    for _ in range(100):
        for row in session.rows("SELECT event_id, order_id, state FROM orders WHERE due_at IS NOT NULL"):
            step(session, (row["event_id"], row["order_id"]), row["state"], after[row["state"]])
        for row in session.rows("SELECT event_id, booking_id, user_id FROM waitlist"
                                " WHERE state = 'offered'"):
            changed(session, (row["event_id"], row["booking_id"]), "confirm", row["user_id"])
        for row in session.rows("SELECT event_id, booking_id FROM bookings b WHERE status = 'held'"
                                " AND NOT EXISTS (SELECT FROM waitlist w WHERE w.event_id = b.event_id"
                                " AND w.booking_id = b.booking_id AND w.state = 'offered')"
                                " AND NOT EXISTS (SELECT FROM orders o WHERE o.order_id = b.booking_id"
                                " AND o.event_id = b.event_id AND o.due_at IS NOT NULL)"):
            run_out(session, (row["event_id"], row["booking_id"]))
        outcome, expired, offered, more = sweep(session, 1000)
        assert outcome == "ok"
        if not (expired or offered or more) and session.value(
                "SELECT (SELECT count(*) FROM bookings WHERE status = 'held')"
                " + (SELECT count(*) FROM orders WHERE due_at IS NOT NULL)") == 0:
            return
    raise AssertionError("never quiet")
