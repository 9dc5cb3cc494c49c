"""The best seats of the house: by the rule, all or nothing, and no false "sold out".

Goal: who asks for the best seats gets those that the rule of docs/life.md names; many who ask at once
sell the house without a seat sold twice or a "no" told while seats were to be had; what is given back
or runs out is found again. Method: one buyer beside a brute-force model; crowds of buyers at one and
at two router processes, whose answers are laid beside the clock and the tables; both ways of
choosing, in memory and in the database.

SPDX-License-Identifier: MIT
"""

import os
import random
import threading
import time

from harness import PATIENT, short, wait_until
from psql import Session

CLUSTER = {"replicas": 0, "settings": {**PATIENT, "workers": 1, "booking.best_tries": 3,
                                         "booking.deadline_ms": 30000}}

# Of a second router: no payment service.
ALONE = {"payment.provider_url": "", "payment.secret_file": ""}

SEED = int(os.environ.get("SEATGRID_SEED", random.SystemRandom().randrange(1 << 32)))
TIERS = [{"name": "front", "price": 900, "rows": {"first": 1, "last": 2}},
         {"name": "back", "price": 300, "rows": {"first": 3, "last": 6}}]


def use(cluster, **settings):
    """Restarts serve with these settings of booking, if it has others; workers=1 is the default."""
    wanted = dict(CLUSTER["settings"])
    wanted.update({"workers" if key == "workers" else f"booking.{key}": value
                   for key, value in settings.items()})
    if cluster.settings != wanted:
        cluster.settings = wanted
        cluster.up()
        cluster.wait_ready()


def make_event(cluster, rows, cols, tiers=None, shard="alpha"):
    """An event, with tiers or without; gives its id."""
    body = {"name": "Best", "startsAt": "2030-06-01T19:00:00Z", "rows": rows, "cols": cols,
            "shard": shard}
    if tiers:
        body.update(tiers=tiers, currency="EUR")
    answer = cluster.post("/events", body)
    assert answer.status == 201, answer
    return answer.json()["id"]


def best(quantity, tier=None, together=True):
    """One wish, as it is sent."""
    wish = {"quantity": quantity, "together": together}
    return wish if tier is None else {**wish, "tier": tier}


def ask(server, event, wishes, user="u-1", headers=None):
    """POST /book for the best seats."""
    return server.post("/book", {"eventId": event, "userId": user, "best": wishes}, headers,
                       timeout=60)


def seats_of(answer):
    """[(row, col), ...] in the order of the answer."""
    return [(seat["row"], seat["col"]) for seat in answer.json()["seats"]]


def claims(cluster, event, node="alpha-1"):
    """[seat_no, ...] of all that is taken."""
    text = cluster.value(node, f"SELECT coalesce(string_agg(seat_no::text, ','), '') FROM claims"
                               f" WHERE event_id = {event}"
                               f" AND (state = 'booked' OR held_until > now())")
    return [int(number) for number in text.split(",")] if text else []


# ---- the model -----------------------------------------------------------------------------------


class House:
    """An event's free seats, and the rule by counting."""

    def __init__(self, rows, cols, tiers=None):
        self.rows, self.cols = rows, cols
        self.free = {(row, col) for row in range(1, rows + 1) for col in range(1, cols + 1)}
        self.tiers = {None: range(1, rows + 1)}
        for tier in tiers or []:
            self.tiers[tier["name"]] = range(tier["rows"]["first"], tier["rows"]["last"] + 1)

    def middle(self, col, quantity=1):
        """How far the middle of so many seats from `col` on is from the row's, doubled."""
        return abs(2 * col + quantity - 1 - (self.cols + 1))

    def side_by_side(self, rows, quantity, free):
        """The run that the rule names, or None."""
        for row in rows:
            runs = [col for col in range(1, self.cols - quantity + 2)
                    if all((row, col + i) in free for i in range(quantity))]
            if runs:
                first = min(runs, key=lambda col: (self.middle(col, quantity), col))
                return [(row, first + i) for i in range(quantity)]
        return None

    def anywhere(self, rows, quantity, free):
        """The seats that the rule names, or None."""
        inside = sorted((seat for seat in free if seat[0] in rows),
                        key=lambda seat: (seat[0], self.middle(seat[1]), seat[1]))
        return inside[:quantity] if len(inside) >= quantity else None

    def choose(self, wishes):
        """The seats for wishes of different tiers, or the code of the refusal."""
        free, chosen = set(self.free), []
        for wish in wishes:
            rows = self.tiers[wish.get("tier")]
            if sum(seat[0] in rows for seat in free) < wish["quantity"]:
                return "sold_out"
        for wish in wishes:
            find = self.side_by_side if wish["together"] else self.anywhere
            seats = find(self.tiers[wish.get("tier")], wish["quantity"], free)
            if seats is None:
                return "not_together"
            chosen += seats
            free -= set(seats)
        return chosen

    def pairs_left(self):
        """Two free seats side by side somewhere?"""
        return any((row, col + 1) in self.free for row, col in self.free)


# ---- one buyer -----------------------------------------------------------------------------------


def some_wishes(rng, tiers):
    """Wishes of different tiers, or of the whole house."""
    if not tiers or rng.random() < 0.2:
        return [best(rng.randrange(1, 6), None, rng.random() < 0.7)]
    names = rng.sample([tier["name"] for tier in tiers], rng.randrange(1, len(tiers) + 1))
    return [best(rng.randrange(1, 5), name, rng.random() < 0.7) for name in names]


def buy_beside_the_model(cluster, rng, tiers, cols):
    """Until the house is nearly full; now and then a seat by its number, of which the one who
    chooses learns only by and by."""
    rows = 6
    event, house = make_event(cluster, rows, cols, tiers), House(rows, cols, tiers)
    refusals = 0
    while len(house.free) > 3 and refusals < 40:
        if rng.random() < 0.2:
            seat = rng.choice(sorted(house.free))
            assert cluster.book(event, [list(seat)]).status == 201
            house.free.discard(seat)
            continue
        wishes = some_wishes(rng, tiers)
        expected = house.choose(wishes)
        answer = ask(cluster, event, wishes)
        if isinstance(expected, str):
            assert answer.status == 409 and answer.code == expected, (SEED, wishes, expected, answer)
            refusals += 1
            continue
        assert answer.status == 201, (SEED, wishes, expected, answer)
        assert seats_of(answer) == expected, (SEED, wishes, expected, answer)
        house.free -= set(expected)
    taken = {(number // cols + 1, number % cols + 1) for number in claims(cluster, event)}
    assert len(taken) + len(house.free) == rows * cols and not taken & house.free, SEED


def test_one_buyer_gets_what_the_rule_says(cluster):
    """With tiers and without, rows with a middle seat and without."""
    use(cluster)
    rng = random.Random(SEED)
    for tiers, cols in ((TIERS, 7), (None, 10), (TIERS, 70)):
        buy_beside_the_model(cluster, rng, tiers, cols)


def test_workers_know_what_each_other_sold_and_gave_back(cluster):
    """Each request comes to another worker's view; seats by number, cancellations and holds that are
    released are known to all at once, though no view is read a second time."""
    use(cluster, workers=3, best_refresh_ms=0)
    rng = random.Random(SEED)
    event, house, owned = make_event(cluster, 6, 9, TIERS), House(6, 9, TIERS), []
    for _ in range(12):     # each worker has its view, of an empty house, surely (1 - 2^-11)
        give_back(cluster, event, take_beside_the_model(cluster, event, house, [best(1)]), house)
    for _ in range(150):
        if owned and (rng.random() < 0.4 or len(house.free) < 12):
            give_back(cluster, event, owned.pop(rng.randrange(len(owned))), house)
        elif rng.random() < 0.2:
            seat = rng.choice(sorted(house.free))
            answer = cluster.book(event, [list(seat)])
            assert answer.status == 201, answer
            house.free.discard(seat)
            owned.append((answer.json()["bookingId"], [seat]))
        else:
            wishes = [best(rng.randrange(1, 4), rng.choice((None, "front", "back")))]
            owned += filter(None, [take_beside_the_model(cluster, event, house, wishes,
                                                         hold=rng.random() < 0.5)])
    assert len(claims(cluster, event)) == 54 - len(house.free), SEED


def take_beside_the_model(cluster, event, house, wishes, hold=False):
    """(booking id, seats), or None if the model says that there are none."""
    expected = house.choose(wishes)
    if isinstance(expected, str):
        return None
    body = {"userId": "u-1", "best": wishes}
    answer = cluster.post(f"/events/{event}/holds", {**body, "ttlSeconds": 300}) if hold else \
        cluster.post("/book", {"eventId": event, **body})
    assert answer.status == 201 and seats_of(answer) == expected, (SEED, wishes, expected, answer)
    house.free -= set(expected)
    return answer.json()["bookingId"], expected


def give_back(cluster, event, owned, house):
    """Cancels a booking, releases a hold."""
    booking, seats = owned
    answer = cluster.request("DELETE", f"/events/{event}/bookings/{booking}",
                             headers={"X-User-Id": "u-1"})
    assert answer.status == 200, answer
    house.free |= set(seats)


def test_one_buyer_gets_what_the_rule_says_of_the_database(cluster):
    """The same, when the database chooses."""
    use(cluster, best_choose="database")
    rng = random.Random(SEED)
    for tiers, cols in ((TIERS, 7), (None, 10)):
        buy_beside_the_model(cluster, rng, tiers, cols)


@short
def test_all_tiers_or_none(cluster):
    """What one tier lacks takes nothing of the other; the answers say what is wrong."""
    for choose in ("memory", "database"):
        use(cluster, best_choose=choose)
        event = make_event(cluster, 6, 4, TIERS)
        both = [best(4, "front"), best(2, "back")]
        for _ in range(2):
            answer = ask(cluster, event, both)
            assert answer.status == 201 and len(answer.json()["seats"]) == 6, answer
        before = claims(cluster, event)
        answer = ask(cluster, event, both)
        assert answer.status == 409 and answer.code == "sold_out", answer
        assert claims(cluster, event) == before
        answer = ask(cluster, event, [best(1, "back"), best(1, "balcony"), best(1, "front")])
        assert answer.status == 422 and answer.code == "unknown_tier", answer
        assert 'none named "balcony"' in answer.json()["detail"], answer
        answer = ask(cluster, event, [best(5, "back")])
        assert answer.status == 409 and answer.code == "not_together", answer
        answer = ask(cluster, event, [best(12, "back", together=False)])
        assert answer.status == 201 and len(set(seats_of(answer))) == 12, answer
        answer = ask(cluster, event, [best(1)])
        assert answer.status == 409 and answer.code == "sold_out", answer
        assert len(set(claims(cluster, event))) == 24
        assert ask(cluster, 999999, [best(1)]).status == 404


@short
def test_a_key_is_answered_as_before_when_all_is_sold(cluster):
    """A double click behind the last seat is no refusal; another body under its key is told so."""
    for choose in ("memory", "database"):
        use(cluster, best_choose=choose)
        event = make_event(cluster, 1, 2)
        key = {"Idempotency-Key": "the-last-two"}
        first = ask(cluster, event, [best(2)], headers=key)
        assert first.status == 201, first
        for _ in range(2):
            again = ask(cluster, event, [best(2)], headers=key)
            assert again.status == first.status, again
            assert again.json()["bookingId"] == first.json()["bookingId"], (first, again)
            assert seats_of(again) == seats_of(first)
        other = ask(cluster, event, [best(1)], headers=key)
        assert other.status == 422 and other.code == "idempotency_key_reused", other
        assert ask(cluster, event, [best(2)], headers={"Idempotency-Key": "late"}).code == "sold_out"


@short
def test_a_hold_that_runs_out_is_found_again(cluster):
    """While it lasts the house is sold out; then it is not, and nobody has to look for it."""
    for choose in ("memory", "database"):
        use(cluster, best_choose=choose)
        event = make_event(cluster, 1, 4)
        held = cluster.post(f"/events/{event}/holds",
                            {"userId": "a", "best": [best(4)], "ttlSeconds": 2})
        assert held.status == 201 and held.json()["status"] == "held", held
        refused = ask(cluster, event, [best(2)], "b")
        gone = cluster.value("alpha-1", f"SELECT count(*) FROM bookings WHERE event_id = {event}"
                                        f" AND expires_at <= now()")
        if gone == "0":   # it lasted over the answer
            assert refused.status == 409 and refused.code == "sold_out", refused
        wait_until(lambda: ask(cluster, event, [best(2)], "b").status == 201,
                   what="seats of a hold that has run out")
        assert len(claims(cluster, event)) in (2, 4)


def lock_a_hold(cluster, session):
    """An event of one seat, held by "a"; the hold's row is locked, and then its time is over."""
    for seconds in (1, 3, 9, 27):   # on a slow machine a short one is over before it is locked
        event = make_event(cluster, 1, 1)
        answer = cluster.post(f"/events/{event}/holds",
                              {"userId": "a", "best": [best(1)], "ttlSeconds": seconds})
        assert answer.status == 201, answer
        hold = answer.json()["bookingId"]
        session.run("BEGIN")
        if session.rows(f"SELECT 1 AS one FROM bookings WHERE booking_id = '{hold}'"
                        f" AND status = 'held' AND expires_at > now() FOR UPDATE"):
            wait_until(lambda: session.value(
                f"SELECT expires_at <= clock_timestamp() FROM bookings"
                f" WHERE booking_id = '{hold}'"),   # pylint: disable=cell-var-from-loop
                every=0.02, what="the end of the hold")
            return event
        session.run("ROLLBACK")
    raise AssertionError("no hold lasted until it was locked")


def test_a_hold_that_is_extended_as_it_ends_is_no_error(cluster):
    """Its owner was in time, only the COMMIT comes late: who asks meanwhile waits for that."""
    for choose in ("memory", "database"):
        use(cluster, best_choose=choose)
        with Session(cluster.port("alpha-1")) as session:
            event = lock_a_hold(cluster, session)
            answers = []
            buyer = threading.Thread(target=lambda: answers.append(
                ask(cluster, event, [best(1)], "b")))   # pylint: disable=cell-var-from-loop
            buyer.start()
            buyer.join(0.5)
            assert not answers, (choose, answers)
            for table, end in (("bookings", "expires_at"), ("claims", "held_until")):
                session.run(f"UPDATE {table} SET {end} = now() + interval '1 hour'"
                            f" WHERE event_id = {event}")
            session.run("COMMIT")
            buyer.join(60)
            assert answers[0].status == 409 and answers[0].code == "sold_out", (choose, answers)


def test_seats_given_back_are_found_again(cluster):
    """Cancelled by its owner: the next one who asks gets them, whoever had heard of it."""
    use(cluster)
    event = make_event(cluster, 1, 6)
    bookings = [ask(cluster, event, [best(2)], "a").json() for _ in range(3)]
    for booking in bookings:
        assert ask(cluster, event, [best(2)], "b").code == "sold_out"
        answer = cluster.request("DELETE", f"/events/{event}/bookings/{booking['bookingId']}",
                                 headers={"X-User-Id": "a"})
        assert answer.status == 200, answer
        found = ask(cluster, event, [best(2)], "b")
        assert found.status == 201 and found.json()["seats"] == booking["seats"], (booking, found)


# ---- crowds --------------------------------------------------------------------------------------


class Buyer(threading.Thread):
    """Buys two together until there are none. Every second one sends keys, and asks again what had
    become of a request that was not answered; `keys`: all do."""

    def __init__(self, server, event, number, keys=False):
        super().__init__()
        self.server, self.event, self.number = server, event, number
        self.keys = keys or number % 2 == 1
        self.sales, self.refused, self.error = [], None, None

    def run(self):
        try:
            while self.refused is None:
                started = time.monotonic()
                answer = self.ask()
                if answer.status == 201:
                    self.sales.append((started, seats_of(answer)))
                else:
                    assert answer.code in ("sold_out", "not_together"), answer
                    self.refused = time.monotonic()
        except Exception as error:  # pylint: disable=broad-except
            self.error = error


    def ask(self):
        """One purchase, or what is said instead."""
        user = f"u-{self.number}"
        headers = {"Idempotency-Key": f"{user}-{len(self.sales)}"} if self.keys else None
        while True:
            answer = ask(self.server, self.event, [best(2)], user, headers)
            if answer.status != 503 or not headers:
                return answer


def sell_out(cluster, servers, buyers=32, rows=20, cols=20):
    """All of a house in pairs, by a crowd; what must hold of it afterwards."""
    event = make_event(cluster, rows, cols)
    crowd = [Buyer(servers[n % len(servers)], event, n) for n in range(buyers)]
    for buyer in crowd:
        buyer.start()
    for buyer in crowd:
        buyer.join(120)
    assert not any(buyer.is_alive() for buyer in crowd), "a buyer hangs"
    errors = {repr(buyer.error) for buyer in crowd if buyer.error}
    assert not errors, errors
    sales = [sale for buyer in crowd for sale in buyer.sales]
    house = House(rows, cols)
    for _, (left, right) in sales:
        assert left[0] == right[0] and left[1] + 1 == right[1], (left, right)
        assert left in house.free and right in house.free, "a seat is sold twice"
        house.free -= {left, right}
    sold = sorted((row - 1) * cols + col - 1 for _, pair in sales for row, col in pair)
    assert sorted(claims(cluster, event)) == sold
    assert not house.pairs_left(), sorted(house.free)
    # Nothing came back, so whoever was sold two after another's "no" could have had them before it.
    first_no = min(buyer.refused for buyer in crowd)
    late = [sale for sale in sales if sale[0] > first_no]
    assert not late, (first_no, late)
    return len(sales)


def test_a_crowd_sells_the_house_and_nobody_is_told_no_too_early(cluster):
    """One router process, whose workers know nothing of each other."""
    use(cluster, workers=3)
    print(f"      {sell_out(cluster, [cluster])} pairs sold")


@short
def test_a_crowd_and_the_database_that_chooses(cluster):
    """The same, with the other way of choosing."""
    use(cluster, workers=2, best_choose="database")
    sell_out(cluster, [cluster], buyers=12, rows=6, cols=10)


def test_two_routers_sell_one_house(cluster):
    """Two processes that learn of each other only by what is taken."""
    use(cluster, workers=2)
    with cluster.serve_beside(settings=ALONE) as second:
        second.wait_ready()
        print(f"      {sell_out(cluster, [cluster, second])} pairs sold")
        choices = [ask(server, make_event(cluster, 1, 4), [best(4)]) for server in (cluster, second)]
        assert all(answer.status == 201 for answer in choices), choices


def test_what_another_router_gave_back_is_seen_though_nothing_is_sold_out(cluster):
    """Its best seats come back to those who ask elsewhere, and not only when all others are gone."""
    use(cluster, best_refresh_ms=50)
    event = make_event(cluster, 4000, 2)
    with cluster.serve_beside(settings=ALONE) as second:
        second.wait_ready()
        first_row = ask(cluster, event, [best(2)], "a")
        assert seats_of(first_row) == [(1, 1), (1, 2)], first_row
        booking = first_row.json()["bookingId"]
        answer = second.request("DELETE", f"/events/{event}/bookings/{booking}",
                                headers={"X-User-Id": "a"})
        assert answer.status == 200, answer

        def the_first_row():
            found = ask(cluster, event, [best(2)], "b")
            assert found.status == 201, found
            assert seats_of(found)[0][0] < 3900, "only when the house is nearly sold out"
            return seats_of(found)[0] == (1, 1)
        wait_until(the_first_row, 120, what="the seats that were given back")


def test_a_crowd_over_a_crash_of_the_primary(cluster):
    """What was under way when the server died is sold once; whoever asks is answered after."""
    use(cluster, workers=2)
    event = make_event(cluster, 10, 10)
    crowd = [Buyer(cluster, event, n, keys=True) for n in range(8)]
    for buyer in crowd:
        buyer.start()
    wait_until(lambda: sum(len(buyer.sales) for buyer in crowd) >= 8, what="some sales")
    cluster.crash("alpha-1")
    cluster.start("alpha-1")
    for buyer in crowd:
        buyer.join(120)
    assert not any(buyer.is_alive() for buyer in crowd), "a buyer hangs"
    errors = {repr(buyer.error) for buyer in crowd if buyer.error}
    assert not errors, errors
    told = [seat for buyer in crowd for _, pair in buyer.sales for seat in pair]
    taken = {(number // 10 + 1, number % 10 + 1) for number in claims(cluster, event)}
    assert len(told) == len(set(told)) and set(told) == taken, "sold twice, lost, or kept from all"
    house = House(10, 10)
    house.free -= taken
    assert not house.pairs_left(), sorted(house.free)
