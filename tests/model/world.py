"""The servers of a model run: how they are asked, tormented, brought to rest and held against
each other.

    World(queue)              PostgreSQL, Redis, serve, cdc, mockpay, and with queue=True a broker and
      .ask(...)               `seatgrid worker`; an answer that is final, however often it takes
      .fault(name, rng)       a time jump, a kill -9 of any process or server, seats that go to somebody
                              else while an order waits for its money, another payment behaviour
      .rest()                 every order and every queued booking has come to its end
      .check(journal)         what must hold of a world at rest; AssertionError

Standard library and tests/integration/ only.

SPDX-License-Identifier: MIT
"""

import http.client
import pathlib
import sys
import time
import uuid

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "integration"))

# pylint: disable=wrong-import-position
from cdc_truth import wait_truth  # noqa: E402
from harness import PATIENT, SLOWDOWN, Cluster, wait_until  # noqa: E402
from life_sql import check_tables  # noqa: E402
from mockpay import Mockpay  # noqa: E402
from psql import Lost, Session  # noqa: E402

SHARDS = ("alpha", "beta")
METHODS = ("ok", "ok", "ok", "decline", "silent", "pending", "late", "duplicate")
GONE = ("sold_out", "not_together", "seats_taken", "over_limit", "unknown_seat", "unknown_tier")
# Of an order: money was asked for, or would have been, and it came to nothing.
UNPAID = ("payment_declined", "order_refunded", "hold_expired")


class World:
    """In a `with` block."""

    def __init__(self, queue=False):
        self.pay = Mockpay("--late-ms", "1500", "--delay-ms", "0-60")
        self.cluster = Cluster(replicas=0, cdc=True, queue=queue, start=False)
        self.queue = queue
        self.events = {}    # id -> (shard, rows, cols)
        self.faults = {}
        self.robbed = []    # orders whose seats went to somebody else

    def __enter__(self):
        self.pay.__enter__()
        try:
            self.cluster.settings = {
                **PATIENT,
                **self.pay.settings(callback_port=self.cluster.http_port, wait_ms=1500 * SLOWDOWN,
                                    give_up_ms=20000 * SLOWDOWN, hold_ms=60000 * SLOWDOWN,
                                    timeout_ms=500 * SLOWDOWN),
                "waitlist.offer_ms": 900000}
            self.cluster.up()
        except BaseException:
            self.cluster.close()
            self.pay.close()
            raise
        return self

    def __exit__(self, kind, error, trace):
        try:
            self.cluster.__exit__(kind, error, trace)
        finally:
            self.pay.__exit__(kind, error, trace)

    # ---- asking ----

    def make_event(self, shard, rows, cols, tiers=(), limit=None):
        """Its id. tiers: (name, price, first, last)."""
        body = {"name": "Model", "startsAt": "2030-06-01T19:00:00Z", "rows": rows, "cols": cols,
                "shard": shard}
        if tiers:
            body["currency"] = "EUR"
            body["tiers"] = [{"name": name, "price": price, "rows": {"first": first, "last": last}}
                             for name, price, first, last in tiers]
        if limit:
            body["maxPerUser"] = limit
        answer = self.cluster.post("/events", body)
        assert answer.status == 201, answer
        self.events[answer.json()["id"]] = (shard, rows, cols)
        return answer.json()["id"]

    def ask(self, method, path, body=None, user=None, key=None, later=False, seconds=90):
        """The final answer. A lost one, and "not now", are asked again under the same key."""
        headers = {"X-User-Id": user} if user else {}
        if key:
            headers["Idempotency-Key"] = key
        if later:
            headers["Prefer"] = "respond-async"
        deadline = time.monotonic() + seconds * SLOWDOWN
        while True:
            try:
                answer = self.cluster.request(method, path, body, headers, timeout=15)
                if answer.status != 503:
                    assert answer.status < 500, (method, path, body, answer)
                    return answer
            except (OSError, http.client.HTTPException) as error:
                answer = error
            if time.monotonic() > deadline:
                raise AssertionError(f"{method} {path}: no final answer: {answer}")
            time.sleep(0.1)

    def sql(self, shard, query):
        """Rows as dicts, of a server that may just be dead."""
        def rows():
            try:
                with Session(self.cluster.port(shard)) as session:
                    return session.rows(query), True
            except Lost:
                return None
        return wait_until(rows, 30, every=0.2, what=f"PostgreSQL of {shard}")[0]

    def everywhere(self, query):
        """Rows of both shards."""
        return [row for shard in SHARDS for row in self.sql(shard, query)]

    # ---- faults ----

    def jump(self, shard, where="true"):
        """The holds of these bookings have just run out."""
        with Session(self.cluster.port(shard)) as session:
            session.run(f"""BEGIN;
                CREATE TEMPORARY TABLE ended ON COMMIT DROP AS SELECT b.event_id, b.booking_id
                  FROM bookings b WHERE b.status = 'held' AND b.expires_at > now() AND {where}
                 ORDER BY b.event_id, b.booking_id FOR UPDATE;
                UPDATE bookings b SET expires_at = now() - interval '1 ms' FROM ended e
                 WHERE b.event_id = e.event_id AND b.booking_id = e.booking_id;
                UPDATE claims c SET held_until = now() - interval '1 ms' FROM ended e
                 WHERE c.event_id = e.event_id AND c.booking_id = e.booking_id AND c.state = 'held';
                COMMIT""")

    def wait_swept(self):
        """Nothing stands whose time is over."""
        query = ("SELECT (SELECT count(*) FROM bookings WHERE status = 'held' AND expires_at <= now())"
                 " + (SELECT count(*) FROM claims WHERE state = 'held' AND held_until <= now()) AS n")
        wait_until(lambda: sum(row["n"] for row in self.everywhere(query)) == 0, 60,
                   what="the sweeper to be through")

    def deck(self, rng):
        """Each fault at least once, in some order."""
        names = ["jump"] * 4 + ["rob"] * 2 + \
                ["due", "serve", "cdc", "mockpay", "behaviour", "redis", "alpha-1", "beta-1"] + \
                (["worker"] if self.queue else [])
        return rng.sample(names, len(names))

    def fault(self, name, rng):
        """One of the deck."""
        self.faults[name] = self.faults.get(name, 0) + 1
        if name == "jump":
            self.jump(rng.choice(SHARDS), f"hashtext(b.booking_id::text) % 3 <> {rng.randrange(3)}")
        elif name == "rob":
            self.rob()
        elif name == "due":
            for shard in SHARDS:
                with Session(self.cluster.port(shard)) as session:
                    session.run("UPDATE orders SET due_at = now() - interval '1 s'"
                                " WHERE due_at IS NOT NULL")
        elif name == "mockpay":
            self.pay.kill()
            time.sleep(rng.random())
            self.pay.start()
        elif name == "behaviour":
            self.behave(rng.choice((0, 50, 100)), rng.choice((0, 30)), rng.choice((0, 50)),
                        rng.choice((0, 50)))
        else:
            self.cluster.crash(name)
            time.sleep(rng.random())
            self.cluster.start(name)

    def rob(self):
        """While an order waits for its money its hold runs out, and somebody else buys the seats. Of
        the first such orders that there are; none may come."""
        before, until = len(self.robbed), time.monotonic() + 5 * SLOWDOWN
        while len(self.robbed) == before and time.monotonic() < until:
            for shard in SHARDS:
                self.rob_shard(shard)
        self.faults["robbed orders"] = len(self.robbed)

    def rob_shard(self, shard):
        """All that wait for their money just now."""
        for row in self.sql(shard, """
                SELECT o.event_id, o.order_id, b.seats, e.cols FROM orders o
                  JOIN bookings b ON b.event_id = o.event_id AND b.booking_id = o.order_id
                  JOIN events e ON e.event_id = o.event_id
                 WHERE o.state = 'charging' AND b.status = 'held' AND b.expires_at > now()"""):
            self.jump(shard, f"b.booking_id = '{row['order_id']}'")
            seats = [{"row": seat // row["cols"] + 1, "col": seat % row["cols"] + 1}
                     for seat in row["seats"]]
            answer = self.ask("POST", "/book", {"userId": "robber", "eventId": row["event_id"],
                                                "seats": seats}, "robber", str(uuid.uuid4()))
            if answer.status == 201:
                self.robbed.append(row["order_id"])

    def behave(self, success=100, silent=0, duplicate=0, lose=0):
        """How mockpay treats a method that it does not know ("any")."""
        self.pay.behave(successPercent=success, silentPercent=silent,
                        duplicateCallbacksPercent=duplicate, loseCallbacksPercent=lose)

    # ---- at rest ----

    def rest(self, locations=()):
        """Nothing is under way any more: no order, no queued booking, no sweep."""
        self.behave()
        self.cluster.wait_ready(60)
        wait_until(lambda: not self.everywhere("SELECT 1 AS n FROM orders WHERE due_at IS NOT NULL"),
                   90, every=0.2, what="every order to be final")
        ends = {}
        for location in locations:
            def ended(location=location):
                answer = self.ask("GET", location)
                return answer.status == 200 and answer.json()["status"] != "queued" and answer
            ends[location] = wait_until(ended, 90, what=f"{location} to be decided").json()
        self.wait_swept()
        return ends

    def end_holds(self):
        """The line is empty, and all that is held runs out."""
        for row in self.everywhere("SELECT event_id, entry_id, user_id FROM waitlist"
                                   " WHERE state = 'waiting'"):
            answer = self.ask("DELETE", f"/events/{row['event_id']}/waitlist/{row['entry_id']}",
                              user=row["user_id"])
            assert answer.status in (204, 409), answer
        for shard in SHARDS:
            self.jump(shard)
        self.wait_swept()
        assert not self.everywhere("SELECT 1 AS n FROM bookings WHERE status = 'held'")

    def check(self):
        """Every table, every counter and the money fit together."""
        for shard in SHARDS:
            with Session(self.cluster.port(shard)) as session:
                check_tables(session)
                self.check_line(session)
        wait_truth(self.cluster, 60)
        for event in self.events:
            self.check_counts(event)
        self.check_money()

    def check_counts(self, event):
        """available + held + booked = total, and as SQL has it, from the API, too."""
        shard, rows, cols = self.events[event]
        (truth,) = self.sql(shard, f"""
            SELECT coalesce(sum(cardinality(seats)) FILTER (WHERE status = 'held'), 0)::int AS held,
                   coalesce(sum(cardinality(seats)) FILTER (WHERE status = 'confirmed'), 0)::int
                   AS booked FROM bookings WHERE event_id = {event}""")
        truth.update(total=rows * cols, available=rows * cols - truth["held"] - truth["booked"])

        def told():
            found = self.ask("GET", f"/events/{event}/availability").json()
            return {name: found[name] for name in truth}
        wait_until(lambda: told() == truth, 30, what=f"the counters of {event} to be {truth}")

    def check_money(self):
        """What the payment service has is what confirmed orders cost."""
        orders = self.everywhere("SELECT order_id, state, amount FROM orders")
        states = {order["order_id"]: order["state"] for order in orders}
        for order in self.robbed:
            assert states[order] in ("failed", "refunded"), ("its seats are gone", order, states[order])
        worth = sum(order["amount"] for order in orders if order["state"] == "confirmed")

        def has():
            totals = self.pay.totals()
            return totals["charged"] - totals["refunded"]
        try:
            wait_until(lambda: has() == worth, 20, what="money")
        except AssertionError as error:
            raise AssertionError(f"the payment service has {has()}, confirmed orders cost {worth}:"
                                 f" {self.pay.totals()} {orders}") from error

    @staticmethod
    def check_line(session):
        """Nobody was offered seats while somebody before, who wanted the same, went on waiting. Of
        events without a limit: under one a user may be passed over."""
        wrong = session.rows("""
            SELECT f.event_id, f.place, f.state, l.place AS later, b.created_at
              FROM waitlist f JOIN events e USING (event_id)
              JOIN waitlist l ON l.event_id = f.event_id AND l.place > f.place
                   AND l.quantity = f.quantity AND l.together = f.together
                   AND l.tier IS NOT DISTINCT FROM f.tier
              JOIN bookings b ON b.event_id = l.event_id AND b.booking_id = l.booking_id
              LEFT JOIN bookings o ON o.event_id = f.event_id AND o.booking_id = f.booking_id
             WHERE e.max_per_user IS NULL
               AND CASE WHEN f.state = 'left' THEN f.updated_at > b.created_at + interval '5 s'
                        ELSE coalesce(o.created_at > b.created_at, true) END LIMIT 5""")
        assert not wrong, ("served before somebody who waits for the same", wrong)

    def check_journal(self, journal):
        """Every yes is there, every definite no has done nothing."""
        made = {(row["event_id"], row["idempotency_key"]): row for row in self.everywhere(
            "SELECT event_id, idempotency_key, booking_id, user_id, status::text FROM bookings"
            " WHERE idempotency_key IS NOT NULL")}
        changes = {(row["event_id"], row["idempotency_key"]): row for row in self.everywhere(
            "SELECT * FROM change_keys")}
        queued = {row["booking_id"]: row["status"] for row in self.everywhere(
            "SELECT booking_id, status::text FROM bookings")}
        for kind, event, key, answer, end in journal:
            where = (kind, event, key, answer, end)
            if kind == "queued":
                assert (queued.get(end["bookingId"]) is not None) == (end["status"] == "confirmed"), where
            elif kind in ("take", "order"):
                found = made.get((event, key))
                if answer.status in (201, 202):
                    told = answer.json()
                    assert found and found["booking_id"] in (told.get("bookingId"),
                                                             told.get("orderId")), (where, found)
                elif kind == "order" and answer.code in UNPAID:
                    assert found and found["status"] in ("failed", "cancelled"), (where, found)
                else:
                    assert answer.code in GONE and not found, (where, found)
            else:
                found = changes.get((event, key))
                assert bool(found) == (answer.status in (200, 201)), (where, found)
