"""`Idempotency-Key` on every POST and DELETE that takes, changes or gives back something.

Goal: the same key with the same request is one thing, told to everybody who asks, twenty at the same
moment and across a kill -9 of the server, too; with another request it is 422 and nothing happens.
Method: the table REQUESTS has every such operation of api/openapi.json; each is sent over HTTP again
and again, and what came of it is counted in the tables.

SPDX-License-Identifier: MIT
"""

import contextlib
import http.client
import json
import random
import threading
import time
import uuid

from harness import PATIENT, ROOT, SLOWDOWN, Cluster, short, timeout, wait_until
from mockpay import Mockpay

CLICKS = 20
# POSTs without a key: an event has a name of its maker's choice, a callback names its payment.
WITHOUT = {("post", "/events"), ("post", "/payments/callback")}


class Shop:
    """Servers, a large event whose seats cost something, and a full one with a waiting list."""

    def __init__(self):
        self.pay = Mockpay()
        self.cluster = Cluster(replicas=0, start=False)
        self.seats = [(row, col) for row in range(1, 21) for col in range(1, 21)]
        self.event = self.full = None

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.pay)
            self.cluster.settings = {**PATIENT, **self.pay.settings(
                callback_port=self.cluster.http_port, lease_ms=2000 * SLOWDOWN,
                wait_ms=12000 * SLOWDOWN)}
            stack.enter_context(self.cluster)
            self.cluster.up()
            self.event = self.make_event(20, 20)
            self.full = self.make_event(1, 1)
            self.send("POST", "/book", {"eventId": self.full, "seats": [{"row": 1, "col": 1}]}, "first")
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *error):
        self.stack.__exit__(*error)

    def make_event(self, rows, cols):
        """Its id."""
        tiers = [{"name": "all", "price": 100, "rows": {"first": 1, "last": rows}}]
        answer = self.cluster.post("/events", {
            "name": "Keys", "startsAt": "2030-06-01T19:00:00Z", "rows": rows, "cols": cols,
            "currency": "EUR", "tiers": tiers, "shard": "alpha"})
        assert answer.status == 201, answer
        return answer.json()["id"]

    def send(self, method, path, body, user, key=None):
        """One request to its final answer, across a server that dies."""
        headers = {"X-User-Id": user, **({"Idempotency-Key": key} if key else {})}
        deadline = time.monotonic() + 60 * SLOWDOWN
        while True:
            try:
                answer = self.cluster.request(method, path, body, headers, timeout=30 * SLOWDOWN)
                if answer.status != 503:
                    return answer
            except (OSError, http.client.HTTPException) as error:
                answer = error
            assert time.monotonic() < deadline, (method, path, answer)
            time.sleep(0.05)

    def seat(self):
        """One that nobody has."""
        row, col = self.seats.pop()
        return [{"row": row, "col": col}]

    def booking(self, user, hold=True):
        """The path of a new one."""
        path, more = (f"/events/{self.event}/holds", {}) if hold else ("/book", {"eventId": self.event})
        answer = self.send("POST", path, {"seats": self.seat(), **more}, user)
        assert answer.status == 201, answer
        return f"/events/{self.event}/bookings/{answer.json()['bookingId']}"

    def entry(self, user):
        """The path of a new place on the waiting list."""
        answer = self.send("POST", f"/events/{self.full}/waitlist", {"quantity": 1}, user)
        assert answer.status == 201, answer
        return f"/events/{self.full}/waitlist/{answer.json()['entryId']}"


def take(shop, user, path, more):
    """What takes a seat: the request, and another one."""
    return ("POST", path, {"seats": shop.seat(), **more}), ("POST", path, {"seats": shop.seat(), **more})


def book(shop, user):
    """POST /book"""
    return take(shop, user, "/book", {"eventId": shop.event})


def hold(shop, user):
    """POST …/holds"""
    return take(shop, user, f"/events/{shop.event}/holds", {"ttlSeconds": 60})


def order(shop, user):
    """POST …/orders"""
    return take(shop, user, f"/events/{shop.event}/orders", {"payment": {"method": "ok"}})


def confirm(shop, user):
    """POST …/confirm"""
    return tuple(("POST", shop.booking(user) + "/confirm", {}) for _ in range(2))


def extend(shop, user):
    """POST …/extend"""
    path = shop.booking(user) + "/extend"
    return tuple(("POST", path, {"ttlSeconds": seconds}) for seconds in (100, 200))


def transfer(shop, user):
    """POST …/transfer"""
    return tuple(("POST", shop.booking(user, hold=False) + "/transfer", {"toUserId": to_user})
                 for to_user in ("friend", "foe"))


def cancel(shop, user):
    """DELETE …/bookings/…"""
    return tuple(("DELETE", shop.booking(user), None) for _ in range(2))


def join(shop, user):
    """POST …/waitlist"""
    path = f"/events/{shop.full}/waitlist"
    return tuple(("POST", path, {"quantity": 1, "together": together}) for together in (True, False))


def leave(shop, user):
    """DELETE …/waitlist/…, and of a place that the user has left before."""
    left = ("DELETE", shop.entry(user), None)
    assert shop.send(*left, user).status == 204
    return ("DELETE", shop.entry(user), None), left


BOOKING = "/events/{id}/bookings/{bookingId}"
# operation -> (how the request is made, status of a yes)
REQUESTS = {("post", "/book"): (book, 201), ("post", "/events/{id}/holds"): (hold, 201),
            ("post", "/events/{id}/orders"): (order, 201), ("post", BOOKING + "/confirm"): (confirm, 200),
            ("post", BOOKING + "/extend"): (extend, 200), ("post", BOOKING + "/transfer"): (transfer, 200),
            ("delete", BOOKING): (cancel, 200), ("post", "/events/{id}/waitlist"): (join, 201),
            ("delete", "/events/{id}/waitlist/{entryId}"): (leave, 204)}


def what(answer):
    """The thing an answer tells of."""
    told = answer.json() if answer.body else {}
    return [told.get(name) for name in ("bookingId", "orderId", "entryId", "userId")]


def replayed(answer):
    """As an earlier answer?"""
    return answer.headers.get("Idempotent-Replayed") == "true"


def count_keys(shop, key):
    """How many things were made or changed with this key."""
    return int(shop.cluster.value("alpha", f"""
        SELECT (SELECT count(*) FROM bookings WHERE idempotency_key = '{key}')
             + (SELECT count(*) FROM change_keys WHERE idempotency_key = '{key}')"""))


def check_shop(shop):
    """What must hold at the end: nobody has a second booking, no hold was extended twice, money
    was taken once for each order."""
    value = shop.cluster.value
    assert value("alpha", "SELECT coalesce(max(extended), 0) FROM bookings") == "1"
    assert value("alpha", "SELECT count(*) FROM claims") == value(
        "alpha", "SELECT sum(cardinality(seats)) FROM bookings WHERE status IN ('held', 'confirmed')")
    orders = int(value("alpha", "SELECT count(*) FROM orders"))
    assert value("alpha", "SELECT count(*) FROM orders WHERE state = 'confirmed'") == str(orders)
    assert shop.pay.totals()["charged"] == 100 * orders, shop.pay.totals()


def test_the_table_is_whole():
    """Every operation of the API that may have a key, and no POST or DELETE without a reason."""
    document = json.loads((ROOT / "api" / "openapi.json").read_text(encoding="utf-8"))
    writes = {(method, path): {one.get("$ref", "") for one in operation.get("parameters", [])}
              for path, methods in document["paths"].items()
              for method, operation in methods.items() if method in ("post", "delete", "put", "patch")}
    assert set(writes) == set(REQUESTS) | WITHOUT
    keyed = {one for one, refs in writes.items() if "#/components/parameters/IdempotencyKey" in refs}
    assert keyed == set(REQUESTS)


@short
def test_again_and_with_another_body():
    """The same again is the same answer; another body, target or user is 422, and does nothing."""
    with Shop() as shop:
        for name, (make, status) in REQUESTS.items():
            user, key = f"user {make.__name__}", f"key of {make.__name__}"
            request, other = make(shop, user)
            first = shop.send(*request, user, key)
            assert first.status == status and not replayed(first), (name, first)
            for _ in range(2):
                again = shop.send(*request, user, key)
                assert again.status == status and replayed(again), (name, again)
                assert again.body == first.body, (name, first, again)
            for wrong, who in ((other, user), (request, "somebody else")):
                refused = shop.send(*wrong, who, key)
                assert refused.status == 422 and refused.code == "idempotency_key_reused", (name, refused)
            assert count_keys(shop, key) == 1, name
            if make is join:
                continue   # one place a user
            done = shop.send(*other, user, key + ", another")
            assert done.status == status and not replayed(done), (name, "it was not done before", done)
        # a key is an event's: elsewhere it is another one
        elsewhere = shop.make_event(1, 1)
        answer = shop.send("POST", "/book", {"eventId": elsewhere, "seats": [{"row": 1, "col": 1}]},
                           "u", "key of book")
        assert answer.status == 201 and not replayed(answer), answer
        # what was refused keeps no key
        taken = {"eventId": elsewhere, "seats": [{"row": 1, "col": 1}]}
        for _ in range(2):
            assert shop.send("POST", "/book", taken, "v", "refused").code == "seats_taken"
        assert count_keys(shop, "refused") == 0


class Clicks:
    """The same request so many times at once, each from a connection of its own."""

    def __init__(self, shop, request, user, key, count=CLICKS):
        self.answers, self.errors = [], []
        start = threading.Barrier(count)

        def click():
            try:
                start.wait()
                self.answers.append(shop.send(*request, user, key))
            except Exception as error:  # pylint: disable=broad-except
                self.errors.append(error)
        self.threads = [threading.Thread(target=click) for _ in range(count)]
        for thread in self.threads:
            thread.start()

    def wait(self):
        """The answers."""
        for thread in self.threads:
            thread.join()
        if self.errors:
            raise self.errors[0]
        return self.answers


def check_once(shop, name, status, key, answers):
    """All were told of the one thing. Of an order that is under way: how far it is."""
    good = {status, 202} if name[1].endswith("/orders") else {status}
    assert {answer.status for answer in answers} <= good, (name, answers)
    assert all(what(answer) == what(answers[0]) for answer in answers), (name, answers)
    assert count_keys(shop, key) == 1, name


@timeout(300)
def test_twenty_clicks_at_once():
    """One is done, the others are told of it."""
    with Shop() as shop:
        for name, (make, status) in REQUESTS.items():
            user, key = f"user {make.__name__}", str(uuid.uuid4())
            request, _ = make(shop, user)
            answers = Clicks(shop, request, user, key).wait()
            check_once(shop, name, status, key, answers)
            assert len([answer for answer in answers if not replayed(answer)]) == 1, (name, answers)
            # two requests that share a key: one of them is done
            user, key = user + ", again", str(uuid.uuid4())
            rivals = [Clicks(shop, each, user, key, 5) for each in make(shop, user)]
            told = [rival.wait() for rival in rivals]
            losers = [answers for answers in told if {one.status for one in answers} == {422}]
            assert len(losers) == 1, (name, told)
            check_once(shop, name, status, key, told[told[0] is losers[0]])
        check_shop(shop)


@timeout(300)
def test_clicks_across_a_kill():
    """The server dies in the middle of them all, three times; each is done once all the same."""
    with Shop() as shop:
        for number in range(3):
            clicks = {}
            for name, (make, _) in REQUESTS.items():
                user, key = f"user {make.__name__} {number}", str(uuid.uuid4())
                clicks[name] = user, key, make(shop, user)[0]
            running = {name: Clicks(shop, request, user, key, 4)
                       for name, (user, key, request) in clicks.items()}
            time.sleep(random.uniform(0, 0.05))
            shop.cluster.crash("serve")
            shop.cluster.start("serve")
            for name, (user, key, request) in clicks.items():
                answers = running[name].wait()
                answers.append(shop.send(*request, user, key))
                assert replayed(answers[-1]), (name, answers)
                check_once(shop, name, REQUESTS[name][1], key, answers)
        wait_until(lambda: shop.cluster.value("alpha", "SELECT count(*) FROM orders"
                                                       " WHERE due_at IS NOT NULL") == "0",
                   60, what="every order to be final")
        check_shop(shop)
