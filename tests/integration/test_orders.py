"""Orders: reserve, charge, confirm; or give back what was taken. With kill -9 at every step.

Goal: an order ends once, as the money says: seats sold for money that was taken once, or seats given
back and no money kept, whatever the payment service's manners are and wherever the process dies.
Method: `seatgrid mockpay` as the service; servers that kill themselves at a named step, and others
that find the order due; then three books are laid side by side: orders, seats, money.

SPDX-License-Identifier: MIT
"""

import contextlib
import http.client
import os
import threading

from harness import PATIENT, SLOWDOWN, short, wait_until
from mockpay import Mockpay, order_id, sign

# Each test starts the servers that it needs, so that no other takes up their orders.
CLUSTER = {"replicas": 0, "no_serve": True,
           "settings": {**PATIENT, "http.drain_timeout_ms": 20000}}
SHARDS = ("alpha", "beta")
PRICE = 4500
ROWS, COLS = 2, 5


# ---- helpers --------------------------------------------------------------------------------------


def make_event(serve):
    """An event whose seats cost PRICE each."""
    answer = serve.post("/events", {
        "name": "Paid", "startsAt": "2030-06-01T19:00:00Z", "rows": ROWS, "cols": COLS,
        "currency": "EUR",
        "tiers": [{"name": "all", "price": PRICE, "rows": {"first": 1, "last": ROWS}}]})
    assert answer.status == 201, answer
    return answer.json()["id"]


@contextlib.contextmanager
def serving(cluster, pay, crash_at=None, workers=2, **settings):
    """One more server that uses this payment service; ready."""
    settings.setdefault("lease_ms", 2000 * SLOWDOWN)
    if crash_at:
        os.environ["SEATGRID_CRASH_AT"] = crash_at
    try:
        serve = cluster.serve_beside(settings={**pay.settings(**settings), "workers": workers})
    finally:
        os.environ.pop("SEATGRID_CRASH_AT", None)
    with serve:
        serve.wait_ready()
        yield serve


def order(serve, event, seats, method="ok", user="u-1", respond_async=False, key=None):
    """POST of an order; gives the Response."""
    headers = {"Prefer": "respond-async"} if respond_async else {}
    if key:
        headers["Idempotency-Key"] = key
    return serve.post(f"/events/{event}/orders",
                      {"userId": user, "seats": [{"row": row, "col": col} for row, col in seats],
                       "payment": {"method": method}}, headers, timeout=40)


def orders_of(cluster, event):
    """{order id: (state, problem, amount)} as the shard has them."""
    return {row[0]: (row[1], row[2], int(row[3])) for shard in SHARDS for row in cluster.sql(
        shard, "SELECT order_id, state, coalesce(problem, ''), amount FROM orders"
               f" WHERE event_id = {event}")}


def seats_of(cluster, event):
    """{"booked": n, "held": n} of the claims that count."""
    return {state: int(count) for shard in SHARDS for state, count in cluster.sql(
        shard, f"SELECT state, count(*) FROM claims WHERE event_id = {event}"
               " AND (state = 'booked' OR held_until > now()) GROUP BY 1")}


def wait_for_end(cluster, event, state, count=1):
    """Until all orders of the event are in that state; gives their problems."""
    def ended():
        found = orders_of(cluster, event).values()
        return len(found) == count and all(one[0] == state for one in found)
    try:
        wait_until(ended, 60, what=f"{count} orders of event {event} to be {state}")
    except AssertionError as error:
        raise AssertionError(f"{error}: {orders_of(cluster, event)}") from error
    return [one[1] for one in orders_of(cluster, event).values()]


def check_money(cluster, pay, event):
    """What was taken and not given back is what confirmed orders cost."""
    totals = pay.totals()
    confirmed = sum(amount for state, _, amount in orders_of(cluster, event).values()
                    if state == "confirmed")
    assert totals["charged"] - totals["refunded"] == confirmed, (totals, orders_of(cluster, event))


def lose_seats(cluster, serve, event):
    """Time jumps: the holds of the event are over, and somebody else buys all of its seats."""
    for shard in SHARDS:
        cluster.sql(shard, "BEGIN; UPDATE bookings SET expires_at = now() - interval '1 second'"
                           f" WHERE event_id = {event} AND status = 'held';"
                           " UPDATE claims SET held_until = now() - interval '1 second'"
                           f" WHERE event_id = {event} AND state = 'held'; COMMIT")
    answer = serve.book(event, [(row, col) for row in range(1, ROWS + 1)
                                for col in range(1, COLS + 1)], "rival")
    assert answer.status == 201, answer


def decide_pending(pay):
    """The service decides what it has put off: a new process forgets the long delay."""
    pay.kill()
    pay.start()


# ---- the service's manners ------------------------------------------------------------------------


@short
def test_an_order_ends_as_the_money_says(cluster):
    """Taken, declined, put off, taken in silence: seats and money agree, the answer says so."""
    with Mockpay() as pay, serving(cluster, pay) as serve:
        event = make_event(serve)
        paid = order(serve, event, [(1, 1), (1, 2)])
        assert paid.status == 201, paid
        assert (paid.json()["state"], paid.json()["amount"]) == ("confirmed", 2 * PRICE), paid
        declined = order(serve, event, [(1, 3)], "decline")
        assert (declined.status, declined.code) == (402, "payment_declined"), declined
        assert seats_of(cluster, event) == {"booked": 2}
        assert order(serve, event, [(1, 3)], "pending").status == 201
        assert order(serve, event, [(1, 4)], "silent").status == 201
        taken = order(serve, event, [(1, 1)])
        assert (taken.status, taken.code) == (409, "seats_taken"), taken
        assert seats_of(cluster, event) == {"booked": 4}
        check_money(cluster, pay, event)
        assert pay.totals()["charged"] == 4 * PRICE, pay.totals()
        read = serve.get(f"/events/{event}/orders/{paid.json()['orderId']}")
        assert (read.status, read.json()["state"]) == (200, "confirmed"), read


@short
def test_without_a_payment_service_orders_are_refused(cluster):
    """503 payment_off, and nothing is held."""
    with cluster.serve_beside(settings={"payment.provider_url": ""}) as serve:
        serve.wait_ready()
        event = make_event(serve)
        answer = order(serve, event, [(1, 1)])
        assert (answer.status, answer.code) == (503, "payment_off"), answer
        assert not orders_of(cluster, event) and not seats_of(cluster, event)


def test_respond_async_and_a_double_click(cluster):
    """202 with Location, then the state by asking; the same key at the same time is one order."""
    with Mockpay() as pay, serving(cluster, pay) as serve:
        event = make_event(serve)
        accepted = order(serve, event, [(1, 1)], "pending", respond_async=True)
        assert accepted.status == 202 and accepted.json()["state"] == "reserved", accepted
        location = accepted.headers["Location"]
        wait_until(lambda: serve.get(location).json()["state"] == "confirmed", what=location)
        answers = []
        clicks = [threading.Thread(target=lambda: answers.append(
            order(serve, event, [(2, 1)], "pending", key="click"))) for _ in range(4)]
        for click in clicks:
            click.start()
        for click in clicks:
            click.join()
        assert {answer.status for answer in answers} <= {201, 202}, answers
        assert len({answer.json()["orderId"] for answer in answers}) == 1, answers
        wait_for_end(cluster, event, "confirmed", 2)
        again = order(serve, event, [(2, 1)], "pending", key="click")
        assert again.json()["state"] == "confirmed", again
        assert again.headers["Idempotent-Replayed"] == "true", again.headers
        other = order(serve, event, [(2, 2)], "pending", key="click")
        assert (other.status, other.code) == (422, "idempotency_key_reused"), other
        assert seats_of(cluster, event) == {"booked": 2}
        assert pay.totals()["charged"] == 2 * PRICE, pay.totals()


def test_an_order_that_costs_nothing_needs_no_service(cluster):
    """Confirmed without asking for money, although the service is down."""
    with Mockpay() as pay, serving(cluster, pay) as serve:
        pay.kill()
        event = serve.post("/events", {"name": "Free", "startsAt": "2030-06-01T19:00:00Z",
                                       "rows": 2, "cols": 2}).json()["id"]
        answer = order(serve, event, [(1, 1)])
        assert (answer.status, answer.json()["state"]) == (201, "confirmed"), answer
        pay.start()
        assert pay.totals()["count"] == 0


def test_callbacks_end_an_order_wherever_it_was_begun(cluster):
    """The service calls one server about orders of another: twice, late, and with lies among it."""
    with Mockpay("--late-ms", "300") as pay, serving(cluster, pay) as called, \
            serving(cluster, pay, callback_port=called.http_port, ask_ms=60000, ask_max_ms=60000,
                    lease_ms=100000) as begun:
        event = make_event(called)
        for col, method in enumerate(("pending", "duplicate", "late"), 1):
            answer = order(begun, event, [(1, col)], method, respond_async=True)
            assert answer.status == 202, answer
        # nobody asks within a minute, so it is the callbacks that end them
        wait_for_end(cluster, event, "confirmed", 3)
        wait_until(lambda: pay.totals()["callbacks"]["open"] == 0, what="all callbacks")
        assert pay.totals()["callbacks"]["delivered"] == 4, pay.totals()
        forged = order(begun, event, [(2, 1)], "silent", respond_async=True).json()["orderId"]
        path = f"/payments/callback?event={event}"
        body = f'{{"orderId":"{forged}","status":"declined"}}'
        for signature in (None, sign(body.encode(), secret="another secret"),
                          sign(body.encode(), at=1000000000), sign(b"{}")):
            headers = {"SeatGrid-Signature": signature} if signature else {}
            refused = called.post(path, body, {"Content-Type": "application/json", **headers})
            assert (refused.status, refused.code) == (401, "bad_signature"), refused
        nobody = f'{{"orderId":"{order_id()}","status":"declined"}}'
        unknown = called.post(path, nobody, {"SeatGrid-Signature": sign(nobody.encode())})
        assert (unknown.status, unknown.code) == (404, "unknown_order"), unknown
        assert seats_of(cluster, event)["booked"] == 3
        for lie in ('"amount":1,"currency":"EUR"', f'"amount":{PRICE},"currency":"USD"'):
            body = f'{{"orderId":"{forged}","status":"succeeded",{lie}}}'
            other = called.post(path, body, {"SeatGrid-Signature": sign(body.encode())})
            assert (other.status, other.code) == (422, "invalid_value"), other
        true = (f'{{"orderId":"{forged}","status":"succeeded",'
                f'"amount":{PRICE},"currency":"EUR"}}')
        for _ in range(2):
            heard = called.post(path, true, {"SeatGrid-Signature": sign(true.encode())})
            assert heard.status == 204, heard
        wait_for_end(cluster, event, "confirmed", 4)
        check_money(cluster, pay, event)


def test_a_server_that_stops_leaves_its_orders_to_the_next(cluster):
    """SIGTERM with a client waiting: it is told the state, and another server ends the order."""
    with Mockpay() as pay:
        pay.behave(delayMs=3600000)
        with serving(cluster, pay) as serve:
            event = make_event(serve)
            answers = []
            waiting = threading.Thread(target=lambda: answers.append(
                order(serve, event, [(1, 1)], "pending")))
            waiting.start()
            one = wait_until(lambda: next(iter(orders_of(cluster, event)), None), what="the order")
            wait_until(lambda: pay.ask(one) == "pending", what="the charge to be there")
            serve.process.terminate()
            waiting.join()
            assert answers[0].status == 202, answers
            assert answers[0].json()["state"] in ("reserved", "charging"), answers
            assert serve.process.wait(30 * SLOWDOWN) == 0, serve.log()[-3000:]
        decide_pending(pay)
        with serving(cluster, pay):
            wait_for_end(cluster, event, "confirmed")
        assert pay.totals()["charged"] == PRICE
        check_money(cluster, pay, event)


def test_no_more_orders_are_taken_than_the_bound(cluster):
    """payment.max_open: 503, nothing is held; room comes back when one ends."""
    with Mockpay() as pay, serving(cluster, pay, max_open=1, workers=1) as serve:
        pay.behave(delayMs=3600000)
        event = make_event(serve)
        assert order(serve, event, [(1, 1)], "pending", respond_async=True).status == 202
        one = next(iter(orders_of(cluster, event)))
        wait_until(lambda: pay.ask(one) == "pending", what="the charge to be there")
        refused = order(serve, event, [(1, 2)], respond_async=True)
        assert (refused.status, refused.code) == (503, "overloaded"), refused
        assert refused.headers["Retry-After"], refused.headers
        assert seats_of(cluster, event) == {"held": 1}
        decide_pending(pay)
        wait_for_end(cluster, event, "confirmed")
        wait_until(lambda: order(serve, event, [(1, 2)]).status == 201, what="room for another")


# ---- too late -------------------------------------------------------------------------------------


def test_money_for_seats_that_are_gone_is_given_back(cluster):
    """The hold ran out, a rival has the seats, then the money comes: refunded, and it says so."""
    with Mockpay() as pay, serving(cluster, pay) as serve:
        pay.behave(delayMs=3600000)
        event = make_event(serve)
        answer = order(serve, event, [(1, 1)], "pending", respond_async=True)
        assert answer.status == 202, answer
        one = answer.json()["orderId"]
        wait_until(lambda: pay.ask(one) == "pending", what="the charge to be there")
        lose_seats(cluster, serve, event)
        decide_pending(pay)
        assert wait_for_end(cluster, event, "refunded") == ["seats_gone"]
        assert pay.ask(one) == "refunded"
        read = serve.get(answer.headers["Location"]).json()
        assert (read["state"], read["problem"]) == ("refunded", "seats_gone"), read
        assert seats_of(cluster, event) == {"booked": ROWS * COLS}
        check_money(cluster, pay, event)


def test_an_undecided_charge_is_cancelled_and_never_taken(cluster):
    """Past give_up_ms: cancelled at the service, seats free at once, later decisions are none."""
    with Mockpay() as pay, serving(cluster, pay, give_up_ms=1500) as serve:
        pay.behave(delayMs=3600000)
        event = make_event(serve)
        answer = order(serve, event, [(1, 1)], "pending")
        assert (answer.status, answer.code) == (402, "payment_declined"), answer
        assert wait_for_end(cluster, event, "failed") == ["payment_timeout"]
        assert not seats_of(cluster, event)
        one = next(iter(orders_of(cluster, event)))
        assert pay.ask(one) == "cancelled"
        decide_pending(pay)
        assert pay.charge(one, amount=PRICE).json()["status"] == "cancelled"
        assert pay.totals()["charged"] == 0
        assert serve.book(event, [(1, 1)], "u-2").status == 201


def test_a_service_that_is_down_is_asked_until_it_answers(cluster):
    """Dead when the order comes, dead again after it has the money."""
    with Mockpay() as pay, serving(cluster, pay) as serve:
        event = make_event(serve)
        pay.kill()
        assert order(serve, event, [(1, 1)], respond_async=True).status == 202
        wait_until(lambda: serve_questions(serve, "unknown") >= 2, what="questions without answer")
        assert seats_of(cluster, event) == {"held": 1}
        pay.start()
        wait_for_end(cluster, event, "confirmed")
        assert order(serve, event, [(1, 2)], "silent", respond_async=True).status == 202
        wait_until(lambda: pay.totals()["count"] == 2, what="the silent charge")
        pay.kill()
        pay.start()
        wait_for_end(cluster, event, "confirmed", 2)
        assert pay.totals()["charged"] == 2 * PRICE
        check_money(cluster, pay, event)


def serve_questions(serve, outcome):
    """How many questions to the payment service had this outcome."""
    total = 0
    for line in serve.admin("GET", "/metrics").body.decode().splitlines():
        if line.startswith("seatgrid_payment_questions_total{") and f'outcome="{outcome}"' in line:
            total += int(float(line.rpartition(" ")[2]))
    return total


def test_a_paid_booking_that_is_cancelled_is_paid_back(cluster):
    """DELETE of the booking: the seats are free, the money is given back once."""
    with Mockpay() as pay, serving(cluster, pay) as serve:
        event = make_event(serve)
        paid = order(serve, event, [(1, 1)])
        assert paid.status == 201, paid
        booking = paid.json()["orderId"]
        gone = serve.request("DELETE", f"/events/{event}/bookings/{booking}",
                             headers={"X-User-Id": "u-1"})
        assert gone.status in (200, 204), gone
        assert wait_for_end(cluster, event, "refunded") == ["cancelled"]
        assert pay.ask(booking) == "refunded"
        assert not seats_of(cluster, event)
        check_money(cluster, pay, event)


# ---- kill -9 at every step ------------------------------------------------------------------------


def die_with_an_order(cluster, pay, point, method, before_end=None, **settings):
    """A server that dies at this point with an order of a new event; gives the event."""
    with serving(cluster, pay, crash_at=point, **settings) as serve:
        event = make_event(serve)
        with contextlib.suppress(OSError, http.client.HTTPException):  # it may die before it answers
            order(serve, event, [(1, 1), (1, 2)], method, respond_async=True)
        if before_end:
            before_end(serve, event)
        wait_until(lambda: serve.process.poll() is not None, 60,
                   what=f"the server to die at {point}: {serve.log()[-2000:]}")
        assert serve.process.poll() == -9, serve.log()[-3000:]
    return event


def resumed(cluster, pay, event, point, state):
    """Another server brings the order to its end; the three books agree, nothing was done twice."""
    with serving(cluster, pay) as serve:
        wait_for_end(cluster, event, state)
        one = next(iter(orders_of(cluster, event)))
        money = {"confirmed": "succeeded", "failed": "declined", "refunded": "refunded"}[state]
        assert pay.ask(one) == money, (point, pay.ask(one))
        read = serve.get(f"/events/{event}/orders/{one}")
        assert read.json()["state"] == state, (point, read)
    check_money_of(cluster, pay, point)


def check_money_of(cluster, pay, point):
    """All orders of this service so far against its books; each was charged and refunded once."""
    totals = pay.totals()
    states = {}
    for charge in pay.request("GET", "/charges?limit=1000").json()["charges"]:
        for shard in SHARDS:
            for (state,) in cluster.sql(shard, "SELECT state FROM orders WHERE order_id = "
                                               f"'{charge['orderId']}'"):
                states[charge["orderId"]] = (state, charge)
    kept = sum(charge["amount"] for state, charge in states.values() if state == "confirmed")
    assert len(states) == totals["count"], (point, states, totals)
    assert totals["charged"] - totals["refunded"] == kept, (point, states, totals)


def test_killed_at_every_step_of_a_sale(cluster):
    """Reserved, asking, asked, paid, sold: the next server sells the seats, for one charge."""
    with Mockpay() as pay:
        for point in ("reserved", "charging", "charge_sent", "charged", "confirmed"):
            event = die_with_an_order(cluster, pay, point, "ok")
            resumed(cluster, pay, event, point, "confirmed")
            assert seats_of(cluster, event) == {"booked": 2}, point
        assert pay.totals()["charged"] == 5 * 2 * PRICE, pay.totals()


def test_killed_when_the_money_does_not_come(cluster):
    """Asked, given up: the next server gives the seats back, nothing is charged."""
    with Mockpay() as pay:
        for point in ("charge_sent", "failed"):
            event = die_with_an_order(cluster, pay, point, "decline")
            resumed(cluster, pay, event, point, "failed")
            assert not seats_of(cluster, event), point
        assert pay.totals()["charged"] == 0, pay.totals()


def test_killed_at_every_step_of_a_refund(cluster):
    """The seats are gone when the money comes; paid, giving back, given back: once, by the next."""
    with Mockpay() as pay:
        def too_late(serve, event):
            one = wait_until(lambda: next(iter(orders_of(cluster, event)), None), what="the order")
            wait_until(lambda: pay.ask(one) == "pending", what="the charge to be there")
            lose_seats(cluster, serve, event)
            decide_pending(pay)
        for point in ("charged", "refunding", "refund_sent", "refunded"):
            pay.behave(delayMs=3600000)
            event = die_with_an_order(cluster, pay, point, "pending", too_late)
            resumed(cluster, pay, event, point, "refunded")
            assert seats_of(cluster, event) == {"booked": ROWS * COLS}, point
        totals = pay.totals()
        assert totals["refunded"] == totals["charged"] == 4 * 2 * PRICE, totals
