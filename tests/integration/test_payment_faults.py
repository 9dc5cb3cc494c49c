"""A payment service that stumbles or lies, servers that freeze, shards that forget.

Goal: nothing but a clear word of the service, about this order and all of its money, sells seats or
ends an order; what is unclear is asked for until it is clear, and money that was taken for nothing
is given back, whoever dies or sleeps meanwhile.
Method: a service in this process that answers what a test tells it to, byte for byte; `seatgrid
mockpay` where an honest one will do; SIGSTOP, SIGKILL, and a shard whose rows are gone.

SPDX-License-Identifier: MIT
"""

import contextlib
import http.client
import http.server
import json
import signal
import threading

from harness import PATIENT, SLOWDOWN, Ports, wait_until
from mockpay import SECRET, Mockpay, sign
from test_orders import (COLS, PRICE, ROWS, SHARDS, check_money, decide_pending, die_with_an_order,
                         lose_seats, make_event, order, orders_of, resumed, seats_of,
                         serve_questions, serving, wait_for_end)

CLUSTER = {"replicas": 0, "no_serve": True, "settings": PATIENT}
SETTINGS = Mockpay.settings


# ---- a service that says what it is told to -------------------------------------------------------


class Liar:
    """Keeps honest books and answers with `lie(question, state)`: bytes as they go out, or None for
    the truth. question: charge, ask, cancel, refund."""

    def __init__(self, folder):
        self.lie = None
        self.asked = []   # (question, order id)
        self.charges = {}  # order id: state as it is told
        self._ports = Ports(1)
        self.port = self._ports.base
        self.secret_file = folder / f"liar-{self.port}.secret"
        self.secret_file.write_text(SECRET, encoding="ascii")
        liar = self

        class Handler(http.server.BaseHTTPRequestHandler):
            """One question."""

            def do_GET(self):
                """ask"""
                self.answer("ask")

            def do_PUT(self):
                """charge"""
                self.answer("charge")

            def do_POST(self):
                """cancel, refund"""
                self.answer(self.path.rpartition("/")[2])

            def answer(self, question):
                """The truth or a lie; one request a connection."""
                body = self.rfile.read(int(self.headers["Content-Length"] or 0))
                one = self.path.split("/")[2]
                state = liar.keep(question, one, body)
                liar.asked.append((question, one))
                said = liar.lie(question, state) if liar.lie else None
                self.close_connection = True
                with contextlib.suppress(OSError):  # of an endless answer nobody hears the end
                    self.wfile.write(said if said is not None else told(state))

            def log_message(self, *_):
                """Quiet."""

        class Server(http.server.ThreadingHTTPServer):
            """Threads that do not keep the test from ending."""
            daemon_threads = True

        self._server = Server(("127.0.0.1", self.port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._ports.release()

    settings = SETTINGS

    def keep(self, question, one, body):
        """The books after this question; None: never heard of it."""
        if question == "charge" and one not in self.charges:
            wanted = json.loads(body)
            self.charges[one] = {"orderId": one, "status": "succeeded",
                                 "amount": wanted["amount"], "currency": wanted["currency"]}
        state = self.charges.get(one)
        if question == "refund" and state and state["status"] == "succeeded":
            state["status"] = "refunded"
        if question == "cancel" and not state:
            state = self.charges[one] = {"orderId": one, "status": "cancelled", "amount": 0,
                                         "currency": ""}
        return dict(state) if state else None

    def questions(self, one):
        """What was asked about an order, in the order in which it came."""
        return [question for question, about in list(self.asked) if about == one]


def told(state, line="200 OK", **other):
    """An answer with this state, or what `other` makes of it."""
    if state is None:
        return b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}"
    body = json.dumps({**state, **other})
    return f"HTTP/1.1 {line}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


NOT_ANSWERS = {
    "500 with the truth in it": lambda question, state: told(state, "500 Internal Server Error"),
    "a redirect": lambda question, state: told(state, "302 Found\r\nLocation: http://127.0.0.1:1/"),
    "garbage": lambda question, state: b"\x00\xff\r\n\r\n" * 100,
    "a page": lambda question, state: b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nsucceeded",
    "half an answer": lambda question, state: told(state)[:-20],
    "another order's": lambda question, state: told(
        state, orderId="01890000-0000-7000-8000-00000000000a"),
    "no amount": lambda question, state: told({"orderId": state["orderId"], "status": "succeeded"}
                                              if state else None),
    "a body without an end": lambda question, state:
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1000\r\n" + b" " * 4096
        + (b"\r\n1000\r\n" + b" " * 4096) * 2000,
    "nothing": lambda question, state: b"",
}


def one_order(cluster, event):
    """The id of the only order of an event, once it is there."""
    return wait_until(lambda: next(iter(orders_of(cluster, event)), None), what="the order")


# ---- answers --------------------------------------------------------------------------------------


def test_what_is_no_answer_sells_nothing_and_is_asked_again(cluster):
    """500, a redirect, garbage, half of it, no end: open until the truth is told, charged once."""
    with Liar(cluster.var) as liar, serving(cluster, liar) as serve:
        for what, lie in NOT_ANSWERS.items():
            event = make_event(serve)
            liar.lie = lie
            assert order(serve, event, [(1, 1)], respond_async=True).status == 202, what
            one = one_order(cluster, event)
            wait_until(lambda one=one: len(liar.questions(one)) >= 3, what=f"questions: {what}")
            assert orders_of(cluster, event)[one][0] == "charging", what
            assert seats_of(cluster, event) == {"held": 1}, what
            liar.lie = None
            wait_for_end(cluster, event, "confirmed")
            assert "refund" not in liar.questions(one), what


def test_money_of_another_amount_is_no_sale(cluster):
    """A cent less, another currency: the order stays open, and the log says it aloud."""
    with Liar(cluster.var) as liar, serving(cluster, liar) as serve:
        for lie in ({"amount": PRICE - 1}, {"currency": "USD"}, {"amount": 0}):
            event = make_event(serve)
            liar.lie = lambda question, state, lie=lie: state and told(state, **lie)
            assert order(serve, event, [(1, 1)], respond_async=True).status == 202, lie
            one = one_order(cluster, event)
            wait_until(lambda one=one: len(liar.questions(one)) >= 3, what=f"questions: {lie}")
            assert orders_of(cluster, event)[one][0] == "charging", lie
            wait_until(lambda one=one: f"order {one}: charge: succeeded" in serve.log(),
                       what="the log to say so")
            liar.lie = None
            wait_for_end(cluster, event, "confirmed")


def test_a_refund_is_asked_for_until_it_is_given(cluster):
    """404, 500, a part of it, "still taken": refunding, for as long as it takes."""
    with Liar(cluster.var) as liar, serving(cluster, liar) as serve:
        event = make_event(serve)
        paid = order(serve, event, [(1, 1)])
        assert paid.status == 201, paid
        one = paid.json()["orderId"]
        lies = (lambda question, state: told(None), NOT_ANSWERS["500 with the truth in it"],
                lambda question, state: told(state, amount=1),
                lambda question, state: told(state, status="succeeded"))
        liar.lie = lies[0]
        gone = serve.request("DELETE", f"/events/{event}/bookings/{one}",
                             headers={"X-User-Id": "u-1"})
        assert gone.status == 200, gone
        for lie in lies:
            liar.lie = lie
            before = len(liar.questions(one))
            wait_until(lambda before=before: len(liar.questions(one)) >= before + 2,
                       what="another question")
            read = serve.get(f"/events/{event}/orders/{one}").json()
            assert (read["state"], read["problem"]) == ("refunding", "cancelled"), read
        liar.lie = None
        wait_for_end(cluster, event, "refunded")
        assert liar.charges[one]["status"] == "refunded"
        assert not seats_of(cluster, event)


def test_a_callback_may_come_before_the_answer(cluster):
    """The service calls while it is asked, then answers 500: the callback is what counts, once."""
    with Liar(cluster.var) as liar, serving(cluster, liar) as serve:
        event = make_event(serve)
        heard = []

        def call_first(question, state):
            if question == "charge":
                body = json.dumps(state).encode()
                for _ in range(2):
                    heard.append(serve.post(f"/payments/callback?event={event}", body,
                                            {"SeatGrid-Signature": sign(body)}).status)
            return NOT_ANSWERS["500 with the truth in it"](question, state)
        liar.lie = call_first
        paid = order(serve, event, [(1, 1)])
        assert (paid.status, paid.json()["state"]) == (201, "confirmed"), paid
        wait_until(lambda: len(heard) == 2, what="both callbacks")
        assert heard == [204, 204], heard
        asked = liar.questions(paid.json()["orderId"])  # by a worker that was not called
        assert asked.count("charge") == 1 and "refund" not in asked, asked
        assert seats_of(cluster, event) == {"booked": 1}


def test_money_that_came_before_its_cancel_is_a_sale(cluster):
    """Undecided until it is cancelled; then the service says that it has the money."""
    with Liar(cluster.var) as liar, serving(cluster, liar, give_up_ms=6000 * SLOWDOWN) as serve:
        event = make_event(serve)
        liar.lie = lambda question, state: (
            None if question == "cancel" or state is None
            else told(state, "202 Accepted", status="pending"))
        paid = order(serve, event, [(1, 1)])
        assert (paid.status, paid.json()["state"]) == (201, "confirmed"), paid
        asked = liar.questions(paid.json()["orderId"])
        assert asked[0] == "charge" and asked[-1] == "cancel" and "refund" not in asked, asked


# ---- shards ---------------------------------------------------------------------------------------


def test_money_for_an_order_that_its_shard_has_lost_is_given_back(cluster):
    """As after the loss of a primary without a synchronous standby: its rows are gone."""
    # A lease that never nears its end: it is the service's word that leads to the shard.
    with Mockpay() as pay, serving(cluster, pay, lease_ms=600000) as serve:
        for decided in (False, True):
            pay.behave(delayMs=3600000)
            event = make_event(serve)
            answers = []
            waiting = threading.Thread(target=lambda event=event, answers=answers: answers.append(
                order(serve, event, [(1, 1)], "pending")))
            waiting.start()
            one = one_order(cluster, event)
            wait_until(lambda one=one: pay.ask(one) == "pending", what="the charge to be there")
            for shard in SHARDS:
                cluster.sql(shard, "BEGIN; " + "".join(
                    f"DELETE FROM {table} WHERE event_id = {event}; "
                    for table in ("orders", "claims", "bookings")) + "COMMIT")
            if decided:
                decide_pending(pay)
            else:
                pay.behave(delayMs=0)
                cancel = pay.request("POST", f"/charges/{one}/cancel")
                assert cancel.json()["status"] == "cancelled", cancel
            waiting.join()
            assert (answers[0].status, answers[0].code) == (503, "shard_unavailable"), answers
            state = "refunded" if decided else "cancelled"
            wait_until(lambda one=one, state=state: pay.ask(one) == state, what=f"{one}: {state}")
        totals = pay.totals()
        assert totals["charged"] == totals["refunded"] == PRICE, totals


def test_a_server_with_another_map_takes_nothing_back(cluster):
    """It finds an order due whose event it would send elsewhere, to a shard that knows nothing."""
    with Mockpay() as pay:
        pay.behave(delayMs=3600000)
        event = die_with_an_order(cluster, pay, "charge_sent", "pending")
        one = one_order(cluster, event)
        decide_pending(pay)
        first, second = SHARDS
        right = (cluster.var / "shardmap.cfg").read_text(encoding="utf-8")
        wrong = right.replace(f'shard = "{first}"', 'shard = "?"').replace(
            f'shard = "{second}"', f'shard = "{first}"').replace('shard = "?"', f'shard = "{second}"')
        assert wrong != right, right
        with cluster.serve_beside(wrong, pay.settings()) as other:
            wait_until(lambda: f"order {one}: charging on shard" in other.log(), what="its word")
            assert pay.ask(one) == "succeeded"
            assert orders_of(cluster, event)[one][0] == "charging"
        resumed(cluster, pay, event, "charge_sent", "confirmed")


def test_an_order_outlives_its_primary(cluster):
    """The shard is down when the money comes: asked again, confirmed once it is back."""
    with Mockpay() as pay, serving(cluster, pay) as serve:
        pay.behave(delayMs=3600000)
        event = make_event(serve)
        assert order(serve, event, [(1, 1)], "pending", respond_async=True).status == 202
        one = one_order(cluster, event)
        wait_until(lambda: pay.ask(one) == "pending", what="the charge to be there")
        shard = serve.get(f"/events/{event}").json()["shard"]
        cluster.kill(f"{shard}-1")
        before = pay.totals()["count"]
        decide_pending(pay)
        refused = order(serve, event, [(1, 2)])
        assert (refused.status, refused.headers["Retry-After"] is not None) == (503, True), refused
        cluster.start(f"{shard}-1")
        wait_for_end(cluster, event, "confirmed")
        assert (pay.totals()["count"], pay.totals()["charged"]) == (before, PRICE)
        check_money(cluster, pay, event)


# ---- processes ------------------------------------------------------------------------------------


def test_a_server_that_slept_through_it_undoes_nothing(cluster):
    """Frozen while another server sells, and the buyer has given back: it wakes, and knows."""
    with Mockpay() as pay, serving(cluster, pay) as sleeper, serving(cluster, pay) as other:
        pay.behave(delayMs=3600000)
        event = make_event(sleeper)
        assert order(sleeper, event, [(1, 1)], "pending", respond_async=True).status == 202
        one = one_order(cluster, event)
        wait_until(lambda: pay.ask(one) == "pending", what="the charge to be there")
        sleeper.process.send_signal(signal.SIGSTOP)
        try:
            decide_pending(pay)
            wait_for_end(cluster, event, "confirmed")
            gone = other.request("DELETE", f"/events/{event}/bookings/{one}",
                                 headers={"X-User-Id": "u-1"})
            assert gone.status == 200, gone
            wait_for_end(cluster, event, "refunded")
            assert other.book(event, [(1, 1)], "u-2").status == 201
        finally:
            sleeper.process.send_signal(signal.SIGCONT)
        wait_until(lambda: open_orders(sleeper) == 0, what="the sleeper to find it ended")
        assert orders_of(cluster, event)[one][:2] == ("refunded", "cancelled")
        assert seats_of(cluster, event) == {"booked": 1}
        totals = pay.totals()
        assert totals["charged"] == totals["refunded"] == PRICE, totals


def open_orders(serve):
    """Orders that are under way in a server."""
    for line in serve.admin("GET", "/metrics").body.decode().splitlines():
        if line.startswith("seatgrid_orders_open{"):
            return int(float(line.rpartition(" ")[2]))
    return 0


def test_killed_between_every_word_of_the_service(cluster):
    """It has answered a question, a cancel, a refund of a cancelled booking; nobody was told."""
    with Mockpay() as pay:
        event = die_with_an_order(cluster, pay, "ask_sent", "silent")
        resumed(cluster, pay, event, "ask_sent", "confirmed")

        pay.behave(delayMs=3600000)
        event = die_with_an_order(cluster, pay, "cancel_sent", "pending", give_up_ms=1500)
        with serving(cluster, pay, timeout_ms=10000, lease_ms=20000) as serve:
            assert wait_for_end(cluster, event, "failed") == ["payment_timeout"]
            assert pay.ask(one_order(cluster, event)) == "cancelled"
            assert not seats_of(cluster, event)
            assert serve_questions(serve, "unknown") == 0

        pay.behave(delayMs=0)

        def give_back(serve, event):
            wait_for_end(cluster, event, "confirmed")
            with contextlib.suppress(OSError, http.client.HTTPException):
                serve.request("DELETE", f"/events/{event}/bookings/{one_order(cluster, event)}",
                              headers={"X-User-Id": "u-1"})
        event = die_with_an_order(cluster, pay, "refund_sent", "ok", give_back)
        resumed(cluster, pay, event, "refund_sent", "refunded")
        totals = pay.totals()
        assert (totals["charged"], totals["refunded"]) == (4 * PRICE, 2 * PRICE), totals


def test_both_die_at_the_same_point(cluster):
    """The server with the charge's answer unread, the service right after: one charge all the same."""
    with Mockpay() as pay:
        for point, state in (("charging", "confirmed"), ("charge_sent", "confirmed")):
            event = die_with_an_order(cluster, pay, point, "ok", lambda *_: pay.kill())
            pay.start()
            resumed(cluster, pay, event, point, state)
        assert pay.totals()["charged"] == 2 * 2 * PRICE, pay.totals()


# ---- callers --------------------------------------------------------------------------------------


def test_the_shard_says_what_is_to_be_paid(cluster):
    """Seats of two tiers, and the best of them: their prices, whatever the caller says."""
    with Mockpay() as pay, serving(cluster, pay) as serve:
        event = serve.post("/events", {
            "name": "Tiers", "startsAt": "2030-06-01T19:00:00Z", "rows": ROWS, "cols": COLS,
            "currency": "EUR", "tiers": [
                {"name": "front", "price": 700, "rows": {"first": 1, "last": 1}},
                {"name": "back", "price": 10000000000000, "rows": {"first": 2, "last": 2}}],
        }).json()["id"]
        seats = order(serve, event, [(1, 1), (2, 1), (2, 2)])
        assert (seats.status, seats.json()["amount"]) == (201, 20000000000700), seats
        best = serve.post(f"/events/{event}/orders", {
            "userId": "u-1", "payment": {"method": "ok"},
            "best": [{"tier": "front", "quantity": 2}, {"tier": "back", "quantity": 1}]})
        assert (best.status, best.json()["amount"]) == (201, 10000000001400), best
        assert len(best.json()["booking"]["seats"]) == 3, best
        check_money(cluster, pay, event)
        before = orders_of(cluster, event), seats_of(cluster, event), pay.totals()["count"]
        free = {"userId": "u-1", "seats": [{"row": 1, "col": 5}]}
        for more in ({}, {"payment": None}, {"payment": "card"}, {"payment": []}, {"payment": {}},
                     {"payment": {"method": 1}}, {"payment": {"method": ""}},
                     {"payment": {"method": "x" * 65}}, {"payment": {"method": "a\nb"}},
                     {"payment": {"method": "ok", "amount": 1}}, {"amount": 1,
                                                                 "payment": {"method": "ok"}}):
            refused = serve.post(f"/events/{event}/orders", {**free, **more})
            assert refused.status in (400, 422), (more, refused)
        assert before == (orders_of(cluster, event), seats_of(cluster, event),
                          pay.totals()["count"])


def test_lost_seats_and_a_dead_service_end_in_a_refund(cluster):
    """The seats went to another, then the service died with the money: given back when it lives."""
    with Mockpay() as pay, serving(cluster, pay) as serve:
        event = make_event(serve)
        pay.behave(delayMs=3600000)
        assert order(serve, event, [(1, 1)], "pending", respond_async=True).status == 202
        one = one_order(cluster, event)
        wait_until(lambda: pay.ask(one) == "pending", what="the charge to be there")
        lose_seats(cluster, serve, event)
        decide_pending(pay)
        wait_until(lambda: pay.ask(one) != "pending", what="the decision")
        pay.kill()
        pay.start()
        assert wait_for_end(cluster, event, "refunded") == ["seats_gone"]
        check_money(cluster, pay, event)
