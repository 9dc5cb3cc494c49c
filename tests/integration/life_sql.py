"""How to ask the functions of migrations/0005_life.sql, and what must hold of their tables.

    add_event(session, 1, 3, 4, ...)            an event, perhaps with tiers or a limit
    Take, take(session, [Take(...), ...])       take_batch(): the answers in order
    Change, change(session, [Change(...)])      change_batch(): likewise
    best, step, due, join, leave, look, sweep   the other functions, one call each
    run_out(session, booking)                   its hold has just come to its end
    check_tables(session)                       claims, bookings, orders, limits fit together
    SeatLog(port)                               what follows the WAL: no seat is taken before it is free

`*_sql` gives the text of a call, for sessions that do not wait. Standard library only.

SPDX-License-Identifier: MIT
"""

import contextlib
import re
import uuid

from psql import Session, literal

EPOCH = 7
LEASE_MS = 60_000
OFFER_MS = 60_000
HOLD_MS = 600_000
RESET = f"""TRUNCATE events, claims, bookings, orders, waitlist, change_keys, refusals;
            DELETE FROM shard_meta; INSERT INTO shard_meta (shard, epoch, fenced, timeline)
            VALUES ('alpha', {EPOCH}, false, own_timeline())"""


def new_id():
    """A fresh uuid as text."""
    return str(uuid.uuid4())


def array(values, kind):
    """A typed SQL array."""
    return f"{literal(list(values))}::{kind}[]"


def add_event(session, event, rows, cols, tiers=(), limit=None):
    """tiers: (name, price, first row)."""
    names, prices, first_rows = zip(*tiers) if tiers else ((), (), ())
    columns = [literal(event), "'e'", "now()", str(rows), str(cols), "gen_random_uuid()",
               "'EUR'" if tiers else "NULL", array(names, "text") if tiers else "NULL",
               array(prices, "bigint") if tiers else "NULL",
               array(first_rows, "integer") if tiers else "NULL", literal(limit)]
    session.run("INSERT INTO events (event_id, name, starts_at, rows, cols, creation_id, currency,"
                " tier_names, tier_prices, tier_first_rows, max_per_user)"
                f" VALUES ({', '.join(columns)})")


# ---- taking --------------------------------------------------------------------------------------


class Take:
    """One request for seats; hold_ms None: booked at once."""

    def __init__(self, event, seats, user="u", key=None, body=1, hold_ms=None, method=None,
                 booking_id=None, recheck=False, rival=False):
        self.event, self.seats, self.user, self.key, self.body = event, seats, user, key, body
        self.hold_ms, self.method = hold_ms, method
        self.booking_id = booking_id or new_id()
        self.recheck, self.rival = recheck, rival

    def __repr__(self):
        return f"<Take {vars(self)}>"


def take_sql(batch, epoch=EPOCH):
    """A batch as text."""
    seats = [(ord_, row, col) for ord_, one in enumerate(batch, 1) for row, col in one.seats]
    columns = ((("event", "bigint"), ("booking_id", "uuid"), ("user", "text"), ("key", "text"),
                ("body", "bigint"), ("recheck", "boolean"), ("rival", "boolean"),
                ("hold_ms", "bigint"), ("method", "text")))
    arguments = [array((getattr(one, name) for one in batch), kind) for name, kind in columns]
    arguments += [array(column, "integer") for column in zip(*seats)]
    return f"SELECT * FROM take_batch({epoch}, {', '.join(arguments)}, {LEASE_MS})"


def take(session, batch, epoch=EPOCH):
    """The answers in order of the batch."""
    return sorted(session.rows(take_sql(batch, epoch)), key=lambda row: row["ord"])


def hold(session, event, seats, user="u", **more):
    """One hold that must succeed: its Take."""
    one = Take(event, seats, user, **{"hold_ms": HOLD_MS, **more})
    (answer,) = take(session, [one])
    assert answer["outcome"] == "booked", answer
    return one


def book(session, event, seats, user="u", **more):
    """One booking that must succeed."""
    return hold(session, event, seats, user, **{"hold_ms": None, **more})


def best_sql(event, wanted, user="u", hold_ms=HOLD_MS, key=None, body=1, recheck=False,
             booking_id=None, method=None, epoch=EPOCH):
    """wanted: [(tier, quantity, together)]"""
    tiers, quantities, togethers = zip(*wanted)
    return (f"SELECT * FROM best_take({epoch}, {event}, {literal(booking_id or new_id())}::uuid,"
            f" {literal(user)}, {literal(key)}, {body}, {literal(recheck)}, {literal(hold_ms)},"
            f" {literal(method)}, {LEASE_MS}, {array(tiers, 'text')},"
            f" {array(quantities, 'integer')}, {array(togethers, 'boolean')})")


def best(session, *arguments, **more):
    """best_take(): the answer."""
    (answer,) = session.rows(best_sql(*arguments, **more))
    return answer


# ---- changing ------------------------------------------------------------------------------------


class Change:
    """One change of a booking: of a Take, or (event, booking_id)."""

    def __init__(self, of, kind, user="u", arg=None, text=None, key=None, body=1, change_id=None):
        self.event, self.booking_id = of if isinstance(of, tuple) else (of.event, of.booking_id)
        self.kind, self.user, self.arg, self.text = kind, user, arg, text
        self.key, self.body, self.change_id = key, body, change_id or new_id()

    def __repr__(self):
        return f"<Change {vars(self)}>"


def change_sql(batch, epoch=EPOCH, max_extensions=2):
    """A batch as text."""
    columns = (("event", "bigint"), ("booking_id", "uuid"), ("user", "text"), ("key", "text"),
               ("body", "bigint"), ("change_id", "uuid"), ("kind", "text"), ("arg", "bigint"),
               ("text", "text"))
    arguments = [array((getattr(one, name) for one in batch), kind) for name, kind in columns]
    return (f"SELECT * FROM change_batch({epoch}, {', '.join(arguments)}, {max_extensions},"
            f" {OFFER_MS})")


def change(session, batch, **more):
    """The answers in order of the batch."""
    return sorted(session.rows(change_sql(batch, **more)), key=lambda row: row["ord"])


def changed(session, of, kind, user="u", **more):
    """One change: (outcome, status)"""
    (answer,) = change(session, [Change(of, kind, user, **more)])
    return answer["outcome"], answer["status"]


# ---- orders, the waiting list, tidying -----------------------------------------------------------


def step_sql(of, before, action, due_ms=LEASE_MS, problem=None, epoch=EPOCH):
    """order_step() as text; of: a Take, or (event, order_id)."""
    event, order = of if isinstance(of, tuple) else (of.event, of.booking_id)
    return (f"SELECT * FROM order_step({epoch}, {event}, {literal(order)}::uuid, {literal(before)},"
            f" {literal(action)}, {due_ms}, {literal(problem)}, {OFFER_MS})")


def step(session, of, before, action, **more):
    """(outcome, state)"""
    (answer,) = session.rows(step_sql(of, before, action, **more))
    return answer["outcome"], answer["state"]


def due(session, limit=10, lease_ms=LEASE_MS, epoch=EPOCH):
    """orders_due()"""
    return session.rows(f"SELECT * FROM orders_due({epoch}, {limit}, {lease_ms})")


def join_sql(event, user, quantity=1, tier=None, together=False, key=None, body=1, entry=None,
             epoch=EPOCH):
    """waitlist_join() as text."""
    return (f"SELECT * FROM waitlist_join({epoch}, {event}, {literal(entry or new_id())}::uuid,"
            f" {literal(user)}, {quantity}, {literal(tier)}, {literal(together)}, {literal(key)},"
            f" {body}, {OFFER_MS})")


def join(session, *arguments, **more):
    """(outcome, entry_id)"""
    (answer,) = session.rows(join_sql(*arguments, **more))
    return answer["outcome"], answer["entry_id"]


def leave_sql(event, entry, user, key=None, body=1, epoch=EPOCH):
    """waitlist_leave() as text."""
    return (f"SELECT waitlist_leave({epoch}, {event}, {literal(entry)}::uuid, {literal(user)},"
            f" {literal(key)}, {body}) AS outcome")


def leave(session, *arguments, **more):
    """waitlist_leave(): the outcome."""
    return session.value(leave_sql(*arguments, **more))


def look(session, event, entry):
    """waitlist_look()"""
    (answer,) = session.rows(f"SELECT * FROM waitlist_look({event}, {literal(entry)}::uuid)")
    return answer


def sweep_sql(limit=100, epoch=EPOCH):
    """sweep() as text."""
    return f"SELECT * FROM sweep({epoch}, {limit}, {OFFER_MS})"


def sweep(session, limit=100, **more):
    """sweep(): (outcome, expired, offered, more)"""
    (answer,) = session.rows(sweep_sql(limit, **more))
    return answer["outcome"], answer["expired"], answer["offered"], answer["more"]


def run_out(session, of, ago_ms=1):
    """The time of a hold is over, for so long; 0: only for transactions that begin from now on."""
    event, booking_id = of if isinstance(of, tuple) else (of.event, of.booking_id)
    session.run(f"""BEGIN;
        UPDATE bookings SET expires_at = now() - interval '{ago_ms} ms' WHERE event_id = {event}
           AND booking_id = '{booking_id}' AND status = 'held';
        UPDATE claims SET held_until = now() - interval '{ago_ms} ms' WHERE event_id = {event}
           AND booking_id = '{booking_id}' AND state = 'held'; COMMIT""")


def booking(session, of):
    """Its row, or None."""
    event, booking_id = of if isinstance(of, tuple) else (of.event, of.booking_id)
    rows = session.rows(f"SELECT *, expires_at <= now() AS over FROM bookings"
                        f" WHERE event_id = {event} AND booking_id = '{booking_id}'")
    return rows[0] if rows else None


def owners(session, event):
    """{seat_no: booking_id} of what is not free."""
    return {row["seat_no"]: row["booking_id"] for row in session.rows(
        f"SELECT seat_no, booking_id FROM claims WHERE event_id = {event}"
        f" AND (state = 'booked' OR held_until > now())")}


# ---- what must hold ------------------------------------------------------------------------------


RULES = {
    "a booking has all its claims, in its own state, until its end": """
        SELECT b.event_id, b.booking_id, b.status, b.seats, c.seats AS claimed, c.states
          FROM bookings b
          LEFT JOIN (SELECT event_id, booking_id, array_agg(seat_no ORDER BY seat_no) AS seats,
                            array_agg(DISTINCT state::text) AS states,
                            array_agg(DISTINCT held_until) AS until
                       FROM claims GROUP BY 1, 2) c USING (event_id, booking_id)
         WHERE b.status IN ('held', 'confirmed')
           AND ((SELECT array_agg(s ORDER BY s) FROM unnest(b.seats) s) IS DISTINCT FROM c.seats
                OR c.states <> ARRAY[CASE b.status WHEN 'held' THEN 'held' ELSE 'booked' END]
                OR c.until IS DISTINCT FROM ARRAY[b.expires_at])""",
    "a claim that stands is its booking's": """
        SELECT c.*, b.status, b.seats FROM claims c LEFT JOIN bookings b USING (event_id, booking_id)
         WHERE (c.seat_no = ANY (b.seats)
                AND CASE WHEN c.state = 'booked' THEN b.status = 'confirmed'
                         WHEN c.held_until > now() THEN b.status = 'held'
                         ELSE b.status IN ('held', 'expired') END) IS NOT TRUE""",
    "nobody is over the limit": """
        SELECT b.event_id, b.user_id, sum(cardinality(b.seats)) FROM bookings b JOIN events e
         USING (event_id) WHERE b.status IN ('held', 'confirmed') AND e.max_per_user IS NOT NULL
         GROUP BY 1, 2, e.max_per_user HAVING sum(cardinality(b.seats)) > e.max_per_user""",
    "an order and its booking say the same": """
        SELECT o.event_id, o.order_id, o.state, o.due_at, b.status FROM orders o
          LEFT JOIN bookings b ON b.event_id = o.event_id AND b.booking_id = o.order_id
         WHERE CASE WHEN o.state IN ('reserved', 'charging', 'charged')
                    THEN b.status IN ('held', 'expired')
                    WHEN o.state = 'confirmed' THEN b.status = 'confirmed'
                    ELSE b.status IN ('failed', 'cancelled') END IS NOT TRUE
            OR (o.due_at IS NULL) <> (o.state IN ('confirmed', 'failed', 'refunded'))""",
    "an offer is a booking of the waiting user": """
        SELECT w.*, b.status, b.user_id FROM waitlist w LEFT JOIN bookings b USING (event_id, booking_id)
         WHERE (w.booking_id IS NOT NULL) <> (w.state IN ('offered', 'accepted', 'expired'))
            OR w.state = 'offered' AND (b.user_id = w.user_id OR b.status = 'confirmed') IS NOT TRUE""",
}


def check_tables(session):
    """Every rule above; an AssertionError shows what breaks one."""
    for rule, query in RULES.items():
        wrong = session.rows(query + " LIMIT 5")
        assert not wrong, (rule, wrong)


class SeatLog:
    """Reads the bookings' changes in the order of their commits and keeps each seat's owner."""

    CHANGE = re.compile(r"^table public\.bookings: (INSERT|UPDATE): (?:old-key: .*? new-tuple: )?(.*)$")
    FIELD = re.compile(r"(event_id|booking_id|status|seats)\[[^:]*\]:(?:'([^']*)'|(\S+))")

    def __init__(self, port):
        self.session = Session(port, user="postgres")
        self.session.run("SELECT pg_create_logical_replication_slot('seat_log', 'test_decoding')")
        self.held, self.count = {}, 0

    def read(self):
        """All changes up to now. A seat that is taken while another has it is an AssertionError."""
        for row in self.session.rows("SELECT data FROM pg_logical_slot_get_changes('seat_log',"
                                     " NULL, NULL)"):
            match = self.CHANGE.match(row["data"])
            if match:
                self.apply({name: quoted or plain
                            for name, quoted, plain in self.FIELD.findall(match.group(2))})

    def apply(self, new):
        """One new row."""
        self.count += 1
        owner = new["booking_id"]
        for seat in re.findall(r"\d+", new["seats"]):
            place = (new["event_id"], seat)
            if new["status"] in ("held", "confirmed"):
                assert self.held.get(place, owner) == owner, (
                    "taken before it was given back", place, self.held[place], new)
                self.held[place] = owner
            elif self.held.get(place) == owner:
                del self.held[place]

    def close(self):
        """Away with the slot."""
        with contextlib.suppress(Exception):
            self.session.run("SELECT pg_drop_replication_slot('seat_log')")
        self.session.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
