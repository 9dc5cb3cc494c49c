"""The payment service that stands in for a real one: its manners may be bad, its books are not.

Goal: one charge an order whatever is asked how often; cancel is final; callbacks are signed, sent
until they are taken, doubled, late or lost as it is told; kill -9 forgets nothing that was told.
Method: the process alone, asked over HTTP; callbacks to a listener of the test.

SPDX-License-Identifier: MIT
"""

import json
import socket
import subprocess
import threading

from harness import SLOWDOWN, binary, environment, short, wait_until
from mockpay import Listener, Mockpay, order_id, sign


def unanswered(pay, order, **charge):
    """A charge that gets no answer."""
    try:
        answer = pay.charge(order, timeout=1, **charge)
    except socket.timeout:
        return
    raise AssertionError(answer)


@short
def test_a_charge_is_taken_once_and_given_back_once():
    """However often it is asked; another amount under the same order is refused."""
    with Mockpay() as pay:
        order = order_id()
        for _ in range(3):
            answer = pay.charge(order, amount=4500)
            assert (answer.status, answer.json()["status"]) == (200, "succeeded"), answer
        assert pay.charge(order, amount=4501).code == "idempotency_key_reused"
        assert pay.request("POST", f"/charges/{order}/cancel").json()["status"] == "succeeded"
        declined = order_id()
        assert pay.charge(declined, method="decline").json()["status"] == "declined"
        assert pay.request("POST", f"/charges/{declined}/refund").json()["status"] == "declined"
        for _ in range(2):
            assert pay.request("POST", f"/charges/{order}/refund").json()["status"] == "refunded"
        assert pay.charge(order, amount=4500).json()["status"] == "refunded"
        unknown = order_id()
        assert pay.ask(unknown) is None
        assert pay.request("POST", f"/charges/{unknown}/refund").status == 404
        totals = pay.totals()
        assert (totals["charged"], totals["refunded"], totals["count"]) == (4500, 4500, 2), totals
        listed = pay.request("GET", "/charges?limit=1").json()["charges"]
        assert [charge["orderId"] for charge in listed] == [declined], listed


@short
def test_what_was_cancelled_is_never_charged():
    """Before the charge comes, while it is pending, while it is on its way."""
    with Mockpay("--delay-ms", "3600000") as pay, Listener() as listener:
        early, pending, slow = order_id(), order_id(), order_id()
        assert pay.request("POST", f"/charges/{early}/cancel").json()["status"] == "cancelled"
        assert pay.charge(early).json()["status"] == "cancelled"
        answer = pay.charge(pending, method="pending", callback=listener.url)
        assert (answer.status, answer.json()["status"]) == (202, "pending"), answer
        assert pay.request("POST", f"/charges/{pending}/cancel").json()["status"] == "cancelled"
        answers = []
        pay.behave(delayMs=8000)
        asking = threading.Thread(target=lambda: answers.append(pay.charge(slow)))
        asking.start()
        # nobody knows of it before it is decided, so this is the promise that it never is
        assert pay.request("POST", f"/charges/{slow}/cancel").json()["status"] == "cancelled"
        asking.join()
        assert answers[0].json()["status"] == "cancelled", answers
        pay.behave(delayMs=0)
        assert pay.charge(pending).json()["status"] == "cancelled"
        assert pay.totals()["charged"] == 0, pay.totals()
        assert "succeeded" not in listener.statuses()


@short
def test_nothing_that_was_told_is_forgotten():
    """kill -9 after each answer; a charge that was pending is decided by the next process."""
    with Mockpay() as pay, Listener() as listener:
        paid, returned, never, open_one = (order_id() for _ in range(4))

        def reborn():
            pay.kill()
            pay.start()
        assert pay.charge(paid, amount=7).json()["status"] == "succeeded"
        reborn()
        assert pay.charge(returned, amount=5).json()["status"] == "succeeded"
        assert pay.request("POST", f"/charges/{returned}/refund").json()["status"] == "refunded"
        reborn()
        assert pay.request("POST", f"/charges/{never}/cancel").json()["status"] == "cancelled"
        pay.behave(delayMs=3600000)
        assert pay.charge(open_one, amount=3, method="pending", callback=listener.url).status == 202
        reborn()  # also: without the long delay
        wait_until(lambda: pay.ask(open_one) == "succeeded", what="the pending one's decision")
        wait_until(lambda: listener.statuses() == ["succeeded"], what="its callback")
        assert [pay.ask(order) for order in (paid, returned, never)] == \
            ["succeeded", "refunded", "cancelled"]
        assert pay.charge(never).json()["status"] == "cancelled"
        totals = pay.totals()
        assert (totals["charged"], totals["refunded"]) == (15, 5), totals


def test_callbacks_are_signed_and_sent_until_they_are_taken():
    """The signature is HMAC-SHA256 over time and body; 503 is answered with another try."""
    with Mockpay() as pay, Listener() as listener:
        listener.answer = 503
        order = order_id()
        assert pay.charge(order, amount=9, method="pending", callback=listener.url).status == 202
        wait_until(lambda: len(listener.got) >= 2, what="a second try")
        listener.answer = 204
        wait_until(lambda: pay.totals()["callbacks"]["delivered"] == 1, what="it to be taken")
        for signature, body in listener.got:
            at = int(signature.partition(",")[0].removeprefix("t="))
            assert signature == sign(body, at), (signature, body)
            assert json.loads(body) == {"orderId": order, "status": "succeeded", "amount": 9,
                                        "currency": "EUR"}
        assert pay.totals()["callbacks"]["open"] == 0, pay.totals()


def test_callbacks_may_come_twice_late_or_never():
    """By the method, and by the rates."""
    with Mockpay("--late-ms", "1000") as pay, Listener() as listener:
        twice, late, lost = order_id(), order_id(), order_id()
        assert pay.charge(twice, method="duplicate", callback=listener.url).status == 202
        wait_until(lambda: listener.statuses() == ["succeeded"] * 2, what="both callbacks")
        assert pay.charge(late, method="late", callback=listener.url).status == 202
        wait_until(lambda: pay.ask(late) == "succeeded", what="the decision")
        wait_until(lambda: len(listener.got) == 3, what="the late callback")
        pay.behave(pendingPercent=100, loseCallbacksPercent=100)
        assert pay.charge(lost, method="card", callback=listener.url).status == 202
        wait_until(lambda: pay.ask(lost) == "succeeded", what="the decision")
        wait_until(lambda: pay.totals()["callbacks"]["delivered"] == 3, what="the last to be taken")
        assert pay.totals()["callbacks"] == {"sent": 3, "delivered": 3, "givenUp": 0, "open": 0}


def test_silence_takes_the_money():
    """The charge is done, the request is never answered; asked again it says so. Refunds, too."""
    with Mockpay() as pay:
        order = order_id()
        unanswered(pay, order, method="silent")
        wait_until(lambda: pay.ask(order) == "succeeded", what="the charge without an answer")
        assert pay.charge(order, method="silent").json()["status"] == "succeeded"
        pay.behave(silentPercent=100)
        try:
            answer = pay.request("POST", f"/charges/{order}/refund", timeout=1)
            raise AssertionError(answer)
        except socket.timeout:
            pass
        wait_until(lambda: pay.ask(order) == "refunded", what="the refund without an answer")
        assert pay.request("POST", f"/charges/{order}/refund").json()["status"] == "refunded"
        assert pay.totals()["charges"]["refunded"] == 1


def test_the_same_seed_fares_the_same():
    """Rates are shares; which orders they hit depends on seed and order alone."""
    orders = [order_id() for _ in range(60)]

    def fates(seed):
        with Mockpay("--success", "50", "--seed", str(seed)) as pay:
            return [pay.charge(order, method="card").json()["status"] for order in orders]
    first = fates(1)
    assert {"succeeded", "declined"} == set(first), first
    assert fates(1) == first
    assert fates(2) != first


@short
def test_wrong_usage_is_refused():
    """Before it takes a port, with a line that says why."""
    with Mockpay() as pay:
        good = ["--listen", "127.0.0.1:1", "--secret-file", str(pay.secret_file)]
        cases = [([], "are needed"), (good[:2], "are needed"),
                 ([*good, "--success", "101"], "no such number"),
                 ([*good, "--success", "x"], "no such number"),
                 ([*good, "--delay-ms", "5-3"], "ends before"),
                 ([*good, "--delay-ms", "5-"], "no such number"),
                 ([*good, "more"], "too many"),
                 (["--listen", "nowhere", *good[2:]], "host:port"),
                 ([*good[:3], "/nonexistent/secret"], "cannot be read"),
                 ([*good[:3], "/dev/null"], "no secret")]
        for arguments, text in cases:
            done = subprocess.run([binary(), "mockpay", *arguments], env=environment(),
                                  capture_output=True, text=True, timeout=30 * SLOWDOWN,
                                  check=False)
            assert done.returncode == 2 and text in done.stderr, (arguments, done)
        for body in ("", "[]", '{"amount":-1,"currency":"EUR","method":"ok"}',
                     '{"amount":1,"currency":"eur","method":"ok"}',
                     '{"amount":1,"amount":2,"currency":"EUR","method":"ok"}'):
            answer = pay.request("PUT", f"/charges/{order_id()}", body)
            assert answer.status in (400, 422) and answer.code, (body, answer)
        assert pay.request("PUT", "/charges/not-a-uuid", "{}").status == 404
        for path, allow in (("/totals", "GET, HEAD"), ("/behaviour", "GET, HEAD, POST"),
                            (f"/charges/{order_id()}", "PUT, GET, HEAD"),
                            (f"/charges/{order_id()}/refund", "POST")):
            refused = pay.request("DELETE", path)
            assert (refused.status, refused.headers["Allow"]) == (405, allow), refused
        assert pay.request("HEAD", "/totals").status == 200
        assert pay.request("POST", "/behaviour", {"sucessPercent": 1}).status == 400
        assert pay.totals()["count"] == 0
