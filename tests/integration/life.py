"""The life of bookings on one event, driven by the functions of migrations/0005_life.sql.

    Life(cluster)                    an event of 4 rows by 5 with a session on its shard's primary
        .take("ann", (1, 2))         books seats (their numbers); hold_ms, method as take_batch has them
        .change("cancel", b, "ann")  one change; gives (outcome, status)
        .order(b, "charging", ...)   one step of an order; gives (outcome, state)
        .run_out(b)                  the time of the hold is over, from now on
        .sweep()                     until there is nothing to sweep
        .counts()                    (total, available, held, booked) by the bookings

Standard library only.

SPDX-License-Identifier: MIT
"""

import uuid

from psql import Session, literal

ROWS, COLS = 4, 5
HOLD_MS = 3600000


class Life:
    """One event. Not for two threads at once."""

    def __init__(self, cluster, shard="alpha", node=None):
        self.shard = shard
        self.event = cluster.make_event(ROWS, COLS, shard)
        self.session = Session(cluster.port(node or shard))
        self.epoch = self.session.value("SELECT epoch FROM shard_meta")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.session.close()

    def sell_in_tiers(self, price=500):
        """Seats cost something from now on."""
        self.session.run(f"UPDATE events SET currency = 'EUR', tier_names = '{{all}}', tier_prices ="
                         f" ARRAY[{price}], tier_first_rows = '{{1}}' WHERE event_id = {self.event}")

    def try_take(self, user, seats, hold_ms=None, method=None):
        """(outcome, booking)"""
        booking = str(uuid.uuid4())
        count = len(seats)
        (row,) = self.session.rows(
            f"SELECT outcome FROM take_batch({self.epoch}, ARRAY[{self.event}::bigint],"
            f" ARRAY['{booking}'::uuid], ARRAY[{literal(user)}], ARRAY[NULL::text], ARRAY[0::bigint],"
            f" ARRAY[false], ARRAY[false], ARRAY[{literal(hold_ms)}::bigint],"
            f" ARRAY[{literal(method)}::text], {literal([1] * count)},"
            f" {literal([seat // COLS + 1 for seat in seats])},"
            f" {literal([seat % COLS + 1 for seat in seats])}, 600000)")
        return row["outcome"], booking

    def take(self, user, seats, hold_ms=None, method=None):
        """The booking."""
        outcome, booking = self.try_take(user, seats, hold_ms, method)
        assert outcome == "booked", outcome
        return booking

    def hold(self, user, seats, method=None):
        """The booking: a hold that lasts longer than any test."""
        return self.take(user, seats, HOLD_MS, method)

    def change(self, kind, booking, user, to=None):
        """(outcome, status)"""
        (row,) = self.session.rows(
            f"SELECT outcome, status FROM change_batch({self.epoch}, ARRAY[{self.event}::bigint],"
            f" ARRAY['{booking}'::uuid], ARRAY[{literal(user)}], ARRAY[NULL::text], ARRAY[0::bigint],"
            f" ARRAY[gen_random_uuid()], ARRAY['{kind}'], ARRAY[{HOLD_MS}::bigint],"
            f" ARRAY[{literal(to)}::text], 3, {HOLD_MS})")
        return row["outcome"], row["status"]

    def order(self, booking, state, action, problem=None):
        """(outcome, state)"""
        (row,) = self.session.rows(
            f"SELECT outcome, state FROM order_step({self.epoch}, {self.event}, '{booking}', '{state}',"
            f" '{action}', 600000, {literal(problem)}, {HOLD_MS})")
        return row["outcome"], row["state"]

    def wait_in_line(self, user, quantity=1):
        """Joins the waiting list; gives the entry."""
        entry = str(uuid.uuid4())
        (row,) = self.session.rows(
            f"SELECT outcome FROM waitlist_join({self.epoch}, {self.event}, '{entry}', {literal(user)},"
            f" {quantity}, NULL, false, NULL, 0, {HOLD_MS})")
        assert row["outcome"] == "ok", row
        return entry

    def offered_to(self, entry):
        """The booking that the entry was offered; None: none."""
        return self.session.value(
            f"SELECT booking_id FROM waitlist_look({self.event}, '{entry}')")

    def run_out(self, booking):
        """Nobody has noticed yet."""
        self.session.run(
            f"BEGIN; UPDATE bookings SET expires_at = now() - interval '1 s'"
            f" WHERE event_id = {self.event} AND booking_id = '{booking}' AND status = 'held';"
            f" UPDATE claims SET held_until = now() - interval '1 s'"
            f" WHERE event_id = {self.event} AND booking_id = '{booking}' AND state = 'held'; COMMIT")

    def sweep(self):
        """As often as there is more to do."""
        more = True
        while more:
            (row,) = self.session.rows(f"SELECT * FROM sweep({self.epoch}, 1000, {HOLD_MS})")
            assert row["outcome"] in ("ok", "busy"), row
            more = row["more"] or row["outcome"] == "busy"

    def counts(self):
        """What is not marked as expired yet is held."""
        (row,) = self.session.rows(
            f"SELECT coalesce(sum(cardinality(seats)) FILTER (WHERE status = 'held'), 0) AS held,"
            f"       coalesce(sum(cardinality(seats)) FILTER (WHERE status = 'confirmed'), 0) AS booked"
            f"  FROM bookings WHERE event_id = {self.event}")
        total = ROWS * COLS
        return total, total - row["held"] - row["booked"], row["held"], row["booked"]

    def owners(self):
        """{seat: booking} by the bookings; a seat that two have fails."""
        owners = {}
        for row in self.session.rows(
                f"SELECT booking_id, unnest(seats) AS seat FROM bookings"
                f" WHERE event_id = {self.event} AND status IN ('held', 'confirmed')"):
            assert row["seat"] not in owners, f"seat {row['seat']} of event {self.event} twice"
            owners[row["seat"]] = row["booking_id"]
        return owners
