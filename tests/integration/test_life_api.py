"""The life of a booking over HTTP: held, extended, confirmed, late, released, cancelled, given away;
the best seats of tiers; a limit a user; the waiting list.

Goal: each step does what the documentation says, and nothing to others: seats are free when they
should be, and nobody's who should not have them. Method: buyers against a real cluster, over HTTP
alone; the seat map of the primary is looked at after each step.

SPDX-License-Identifier: MIT
"""

import threading

from harness import PATIENT, short, wait_until

CLUSTER = {"replicas": 1, "settings": {
    **PATIENT, "holds.max_extensions": 2, "holds.max_ms": 900000, "holds.default_ms": 300000,
    "waitlist.offer_ms": 600000, "sweeper.interval_ms": 50, "payment.wait_ms": 30000}}

NOW = {"SeatGrid-Max-Staleness": "0ms"}  # from the primary
TIERS = [{"name": "circle", "price": 3000, "rows": {"first": 3, "last": 4}},
         {"name": "stalls", "price": 4500, "rows": {"first": 1, "last": 2}}]


class Buyer:
    """A user of one event."""

    def __init__(self, cluster, event, user):
        self.cluster, self.event, self.user = cluster, event, user

    def ask(self, method, path, body=None, status=200, **headers):
        """One request; its status is checked."""
        answer = self.cluster.request(method, f"/events/{self.event}/{path}", body,
                                      {"X-User-Id": self.user, **headers})
        assert answer.status == status, (method, path, body, answer)
        return answer

    def hold(self, *seats, status=201, **more):
        """The booking, or the problem."""
        return self.ask("POST", "holds", {"seats": places(seats), **more}, status).json()

    def book(self, *seats, status=201):
        """The same, for good."""
        answer = self.cluster.post("/book", {"eventId": self.event, "seats": places(seats)},
                                   {"X-User-Id": self.user})
        assert answer.status == status, answer
        return answer.json()

    def best(self, *wishes, status=201):
        """The best seats, for good: the booking, or the problem."""
        answer = self.cluster.post("/book", {"eventId": self.event, "best": list(wishes)},
                                   {"X-User-Id": self.user})
        assert answer.status == status, answer
        return answer.json()

    def change(self, booking, what, body=None, status=200):
        """Of a booking: the booking as it is then, or the problem."""
        return self.ask("POST", f"bookings/{booking['bookingId']}/{what}", body, status).json()

    def cancel(self, booking, status=200):
        """The same."""
        return self.ask("DELETE", f"bookings/{booking['bookingId']}", None, status).json()

    def read(self, booking):
        """As it stands on the primary."""
        return self.ask("GET", f"bookings/{booking['bookingId']}", **NOW).json()

    def run_out(self, booking):
        """Time jumps: the hold is over."""
        where = f"event_id = {self.event} AND booking_id = '{booking['bookingId']}'"
        shard = self.cluster.get(f"/events/{self.event}", NOW).json()["shard"]
        self.cluster.sql(shard, "BEGIN; UPDATE bookings SET expires_at = now() - interval '1 s'"
                                f" WHERE {where} AND status = 'held'; UPDATE claims SET held_until ="
                                f" now() - interval '1 s' WHERE {where} AND state = 'held'; COMMIT")

    def wait_expired(self, booking):
        """Until the sweeper has been there."""
        wait_until(lambda: self.read(booking)["status"] == "expired", what="the hold to expire")


def places(seats):
    """Of pairs."""
    return [{"row": row, "col": col} for row, col in seats]


def pairs(booking):
    """And back."""
    return [(seat["row"], seat["col"]) for seat in booking["seats"]]


def make(cluster, *users, rows=4, cols=6, **more):
    """A new event's buyers."""
    new = {"name": "Life", "startsAt": "2030-06-01T19:00:00Z", "rows": rows, "cols": cols, **more}
    answer = cluster.post("/events", new)
    assert answer.status == 201, answer
    return [Buyer(cluster, answer.json()["id"], user) for user in users]


def seat_map(buyer):
    """Rows of characters, of the primary."""
    return buyer.ask("GET", "seats", **NOW).json()["seats"]


@short
def test_held_extended_confirmed(cluster):
    """A hold keeps others away, can be extended so often as the setting says, and is confirmed."""
    ann, bob = make(cluster, "ann", "bob")
    held = ann.hold((1, 1), (1, 2))
    assert held["status"] == "held" and held["expiresAt"] > held["createdAt"], held
    assert seat_map(ann)[0] == "hh...."
    taken = bob.book((1, 2), (1, 3), status=409)
    assert taken["code"] == "seats_taken" and taken["conflicts"] == places([(1, 2)]), taken
    assert bob.hold((1, 1), status=409)["code"] == "seats_taken"
    ends = [held["expiresAt"]]
    for _ in range(2):
        ends.append(ann.change(held, "extend", {"ttlSeconds": 600})["expiresAt"])
    assert ends == sorted(ends) and ends[1] > ends[0], ends
    assert ann.change(held, "extend", status=409)["code"] == "extensions_used"
    booked = ann.change(held, "confirm")
    assert booked["status"] == "confirmed" and "expiresAt" not in booked, booked
    assert booked == ann.read(held)
    assert seat_map(ann)[0] == "xx...."
    assert ann.change(held, "confirm")["status"] == "confirmed"  # as it is already
    assert ann.change(held, "extend", status=409)["code"] == "not_held"
    tickets = cluster.get("/users/ann/tickets", NOW).json()["tickets"]
    assert [ticket["bookingId"] for ticket in tickets] == [held["bookingId"]], tickets


def test_too_late(cluster):
    """A hold whose time is over is the next buyer's at that instant. Confirmed late it goes
    through if its seats are free, and never over another's."""
    ann, bob, eve = make(cluster, "ann", "bob", "eve")
    lost, lucky = ann.hold((1, 1), (1, 2), ttlSeconds=1), ann.hold((2, 1), ttlSeconds=1)

    def bob_has_it():
        answer = cluster.post("/book", {"eventId": bob.event, "seats": places([(1, 2)])},
                              {"X-User-Id": "bob"})
        return answer.status == 201
    wait_until(bob_has_it, what="the hold to end")
    assert ann.change(lost, "confirm", status=410)["code"] == "hold_expired"
    ann.wait_expired(lost)
    ann.wait_expired(lucky)
    assert seat_map(ann)[:2] == [".x....", "......"]
    assert ann.change(lucky, "extend", status=410)["code"] == "hold_expired"
    assert ann.change(lucky, "confirm")["status"] == "confirmed"
    assert seat_map(ann)[:2] == [".x....", "x....."]
    assert eve.book((1, 1))["status"] == "confirmed"
    assert ann.change(lost, "confirm", status=410)["code"] == "hold_expired"
    assert ann.read(lost)["status"] == "expired"
    assert seat_map(ann)[:2] == ["xx....", "x....."]


@short
def test_given_back(cluster):
    """What is released or cancelled is free at once, and cannot be had back by its old owner."""
    ann, bob = make(cluster, "ann", "bob")
    held, booked = ann.hold((1, 1)), ann.book((1, 2))
    assert ann.cancel(held)["status"] == "cancelled"
    assert ann.cancel(booked)["status"] == "cancelled"
    assert seat_map(ann)[0] == "......"
    assert pairs(bob.book((1, 1), (1, 2))) == [(1, 1), (1, 2)]
    for gone in (held, booked):
        assert ann.change(gone, "confirm", status=409)["code"] == "booking_ended"
        assert ann.cancel(gone)["status"] == "cancelled"  # as it is already; bob keeps the seats
    assert seat_map(ann)[0] == "xx...."


@short
def test_only_the_owner(cluster):
    """Nobody else may do anything to a booking; whoever got it may, and the giver may not."""
    ann, bob, eve = make(cluster, "ann", "bob", "eve")
    held, booked = ann.hold((1, 1)), ann.book((1, 2))
    for what, body in (("confirm", None), ("extend", None), ("transfer", {"toUserId": "eve"})):
        for booking in (held, booked):
            assert eve.change(booking, what, body, status=403)["code"] == "not_owner"
    assert eve.cancel(held, status=403)["code"] == "not_owner"
    order = ann.ask("POST", "orders", {"seats": places([(4, 1)]), "payment": {"method": "ok"}},
                    201).json()
    place = ann.ask("POST", "waitlist", {"quantity": 1}, 201).json()
    for what in (f"bookings/{held['bookingId']}", f"queue/{booked['bookingId']}",
                 f"orders/{order['orderId']}", f"waitlist/{place['entryId']}"):
        assert ann.ask("GET", what, **NOW).status == 200
        assert cluster.get(f"/events/{ann.event}/{what}", NOW).status == 200  # who does not say
        refused = eve.ask("GET", what, None, 403, **NOW).json()
        assert refused["code"] == "not_owner" and "ann" not in str(refused), refused
    ann.cancel({"bookingId": place["bookingId"]})
    ann.cancel(order["booking"])
    answer = cluster.request("DELETE", f"/events/{ann.event}/bookings/{held['bookingId']}")
    assert answer.status == 400 and "userId" in answer.json()["detail"], answer
    assert seat_map(ann)[0] == "hx...."
    assert ann.change(held, "transfer", {"toUserId": "bob"}, status=409)["code"] == "not_confirmed"
    given = ann.change(booked, "transfer", {"toUserId": "bob"})
    assert given["userId"] == "bob" and given["status"] == "confirmed", given
    assert ann.cancel(booked, status=403)["code"] == "not_owner"
    assert seat_map(ann)[0] == "hx...."

    def tickets(user):
        page = cluster.get(f"/users/{user}/tickets", NOW).json()
        return [ticket["bookingId"] for ticket in page["tickets"]
                if ticket["eventId"] == ann.event and ticket["status"] == "confirmed"]
    assert tickets("bob") == [booked["bookingId"]] and tickets("ann") == []
    assert bob.cancel(booked)["status"] == "cancelled"


@short
def test_read_by_the_new_owner_at_once(cluster):
    """A replica that has not heard of a transfer turns nobody away."""
    ann, bob = make(cluster, "ann", "bob", shard="alpha")
    booked = ann.book((1, 1))
    cluster.wait_replicas()
    cluster.sql("alpha-2", "SELECT pg_wal_replay_pause()")
    try:
        ann.change(booked, "transfer", {"toUserId": "bob"})
        assert bob.ask("GET", f"bookings/{booked['bookingId']}").json()["userId"] == "bob"
    finally:
        cluster.sql("alpha-2", "SELECT pg_wal_replay_resume()")
    assert ann.ask("GET", f"bookings/{booked['bookingId']}", None, 403,
                   **NOW).json()["code"] == "not_owner"


def test_best_over_tiers(cluster):
    """The best seats side by side, over several tiers all or nothing, priced by tier; too few, or
    none side by side, is told as such and takes nothing."""
    ann, bob = make(cluster, "ann", "bob", tiers=TIERS, currency="EUR")
    got = ann.best({"tier": "stalls", "quantity": 2}, {"tier": "circle", "quantity": 1})
    assert pairs(got) == [(1, 3), (1, 4), (3, 3)], got
    assert (got["amount"], got["currency"]) == (12000, "EUR"), got
    assert pairs(bob.best({"quantity": 2})) == [(1, 1), (1, 2)]
    assert pairs(bob.best({"quantity": 3})) == [(2, 2), (2, 3), (2, 4)]
    assert pairs(bob.best({"tier": "stalls", "quantity": 3, "together": False})) == \
        [(1, 5), (1, 6), (2, 5)]
    before = seat_map(ann)
    assert before == ["xxxxxx", ".xxxx.", "..x...", "......"], before
    none = ann.best({"tier": "circle", "quantity": 2}, {"tier": "stalls", "quantity": 2},
                    status=409)
    assert none["code"] == "not_together", none
    few = ann.best({"tier": "circle", "quantity": 2}, {"tier": "stalls", "quantity": 3}, status=409)
    assert few["code"] == "sold_out" and few["left"] == 2, few
    assert ann.best({"tier": "pit", "quantity": 1}, status=422)["code"] == "unknown_tier"
    assert seat_map(ann) == before
    held = ann.ask("POST", "holds", {"best": [{"tier": "circle", "quantity": 6}]}, 201).json()
    assert pairs(held) == [(4, col) for col in range(1, 7)] and held["amount"] == 18000, held
    event = cluster.get(f"/events/{ann.event}", NOW).json()
    assert [tier["name"] for tier in event["tiers"]] == ["stalls", "circle"], event


def test_last_seats_go_to_somebody(cluster):
    """Many want the best two of a small house at once: every seat is sold once, in pairs, and
    "sold out" is told only when it is."""
    buyers = make(cluster, *(f"crowd-{n}" for n in range(20)), rows=2, cols=8)
    answers = []

    def want(buyer):
        answer = cluster.post("/book", {"eventId": buyer.event, "best": [{"quantity": 2}]},
                              {"X-User-Id": buyer.user}, timeout=60)
        answers.append((answer.status, answer.json()))
    threads = [threading.Thread(target=want, args=(buyer,)) for buyer in buyers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sold = [pairs(body) for status, body in answers if status == 201]
    refused = [body["code"] for status, body in answers if status != 201]
    assert len(answers) == 20 and set(refused) <= {"sold_out", "not_together"}, answers
    flat = [seat for two in sold for seat in two]
    assert len(flat) == len(set(flat)), sold
    assert all(a[0] == b[0] and b[1] - a[1] == 1 for a, b in sold), sold
    left = seat_map(buyers[0])
    assert not any(".." in row for row in left), (left, answers)
    assert sum(row.count("x") for row in left) == len(flat), left


@short
def test_limit_a_user(cluster):
    """maxPerUser counts what a user has in all; what is given back, or runs out, counts no more."""
    ann, bob = make(cluster, "ann", "bob", maxPerUser=3)
    held = ann.hold((1, 1), (1, 2))
    over = ann.book((1, 3), (1, 4), status=409)
    assert over["code"] == "over_limit" and over["left"] == 1, over
    one = ann.book((1, 3))
    assert ann.best({"quantity": 1}, status=409)["left"] == 0
    gift = bob.book((2, 1), (2, 2))
    over = bob.change(gift, "transfer", {"toUserId": "ann"}, status=409)
    assert over["code"] == "over_limit" and over["left"] == 0, over
    ann.cancel(held)
    assert ann.read(one)["status"] == "confirmed"
    assert bob.change(gift, "transfer", {"toUserId": "ann"})["userId"] == "ann"
    assert ann.book((1, 4), status=409)["left"] == 0
    assert cluster.get(f"/events/{ann.event}", NOW).json()["maxPerUser"] == 3


def test_limit_holds_in_a_hurry(cluster):
    """Twenty clicks at once do not pass the limit."""
    ann, = make(cluster, "ann", cols=20, maxPerUser=4)
    threads = [threading.Thread(target=lambda col=col: cluster.post(
        "/book", {"eventId": ann.event, "userId": "ann", "seats": places([(1, col)])},
        timeout=60)) for col in range(1, 21)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert "".join(seat_map(ann)).count("x") == 4


def test_waiting_in_line(cluster):
    """Seats that come back go to those who wait, in their order: by cancelling at once, by
    expiry soon after. Whom they do not fit keeps the place."""
    ann, one, two, pair = make(cluster, "ann", "w-1", "w-2", "w-pair", rows=1, cols=4)
    booked = [ann.book((1, col)) for col in (1, 2, 3)]
    held = ann.hold((1, 4))

    def join(buyer, quantity, status=201):
        return buyer.ask("POST", "waitlist", {"quantity": quantity}, status).json()

    def look(buyer, entry):
        return buyer.ask("GET", f"waitlist/{entry['entryId']}", **NOW).json()
    entries = [join(pair, 2), join(one, 1), join(two, 1)]
    assert [entry["position"] for entry in entries] == [1, 2, 3], entries
    again = join(one, 1, status=409)
    assert again["code"] == "already_waiting" and again["entryId"] == entries[1]["entryId"], again
    ann.run_out(held)
    ann.wait_expired(held)  # one seat: not for the pair, so for w-1
    wait_until(lambda: look(one, entries[1])["state"] == "offered", what="the offer")
    offer = look(one, entries[1])
    assert look(pair, entries[0])["position"] == 1 and look(two, entries[2])["position"] == 2
    assert ann.book((1, 4), status=409)["code"] == "seats_taken"  # it is held for w-1
    busy = one.ask("DELETE", f"waitlist/{entries[1]['entryId']}", None, 409).json()
    assert (busy["code"], busy["bookingId"]) == ("seats_offered", offer["bookingId"]), busy
    assert one.change(offer, "confirm")["userId"] == "w-1"
    wait_until(lambda: look(one, entries[1])["state"] == "accepted", what="it to be accepted")
    ann.cancel(booked[0])  # column 1: not for the pair, so for w-2, at once
    assert look(two, entries[2])["state"] == "offered"
    two.cancel(look(two, entries[2]))  # who does not want it
    ann.cancel(booked[1])  # columns 1 and 2
    wait_until(lambda: look(pair, entries[0])["state"] == "offered", what="the pair's offer")
    got = pair.change(look(pair, entries[0]), "confirm")
    assert pairs(got) == [(1, 1), (1, 2)], got
    assert seat_map(ann) == ["xxxx"]


@short
def test_leaving_the_line(cluster):
    """Only whose place it is may leave; twice is once; those behind move up."""
    ann, one, two = make(cluster, "ann", "l-1", "l-2", rows=1, cols=1)
    ann.book((1, 1))
    entry = one.ask("POST", "waitlist", {"quantity": 1}, 201).json()
    behind = two.ask("POST", "waitlist", {"quantity": 1}, 201).json()
    assert two.ask("DELETE", f"waitlist/{entry['entryId']}", None, 403).json()["code"] == "not_owner"
    for _ in range(2):
        one.ask("DELETE", f"waitlist/{entry['entryId']}", None, 204)
    assert one.ask("GET", f"waitlist/{entry['entryId']}", **NOW).json()["state"] == "left"
    assert two.ask("GET", f"waitlist/{behind['entryId']}", **NOW).json()["position"] == 1
    assert one.ask("POST", "waitlist", {"quantity": 2}, 422).json()["code"] == "too_many_seats"


@short
def test_paid_and_given_back(cluster):
    """An order is paid for by the price of its tiers; a declined one leaves nothing behind; a
    cancelled one is refunded."""
    ann, = make(cluster, "payer", tiers=TIERS, currency="EUR")
    done = ann.ask("POST", "orders", {"best": [{"tier": "stalls", "quantity": 2}],
                                      "payment": {"method": "ok"}}, 201)
    order = done.json()
    assert order["state"] == "confirmed" and order["amount"] == 9000, order
    assert done.headers["location"].endswith(f"/orders/{order['orderId']}"), done
    assert order["booking"]["status"] == "confirmed", order
    no = ann.ask("POST", "orders", {"seats": places([(4, 1)]), "payment": {"method": "decline"}},
                 402).json()
    assert no["code"] == "payment_declined", no
    failed = ann.ask("GET", f"orders/{no['orderId']}", **NOW).json()
    assert failed["state"] == "failed" and failed["booking"]["status"] == "failed", failed
    assert seat_map(ann) == ["..xx..", "......", "......", "......"]
    ann.cancel(order["booking"])
    wait_until(lambda: ann.ask("GET", f"orders/{order['orderId']}", **NOW).json()["state"] ==
               "refunded", what="the refund")
    assert seat_map(ann) == ["......"] * 4
