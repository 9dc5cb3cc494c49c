"""The SQL functions of a booking's life, one after the other: every answer and what it leaves.

Goal: take_batch(), best_take(), change_batch(), order_step(), orders_due(), the waiting list and
sweep() do what their comments in migrations/0005_life.sql say, also asked twice, too late, by the
wrong user, fenced. Method: calls on a real PostgreSQL; best_seats() against a brute-force model with
random houses (seed printed; SEATGRID_SEED repeats them); a follower of the WAL sees no seat taken
before it is given back. What happens at the same moment is in test_life_races.py.

SPDX-License-Identifier: MIT
"""

import contextlib
import os
import random

from harness import short
from life_sql import (EPOCH, HOLD_MS, LEASE_MS, RESET, Change, SeatLog, Take, add_event, best, book,
                      booking, change, change_sql, changed, check_tables, due, hold, join, join_sql,
                      leave, look, new_id, owners, run_out, step, sweep, sweep_sql, take, take_sql)
from psql import Session, literal

CLUSTER = {"replicas": 0, "no_serve": True}
SEED = int(os.environ.get("SEATGRID_SEED", random.SystemRandom().randrange(1 << 32)))
TIERS = (("front", 9000, 1), ("middle", 5000, 2), ("back", 1000, 4))
BIG = 9_000_000_000_000_000_000
LIMITED = 5   # no more than 4 seats a user


@contextlib.contextmanager
def world(cluster):
    """A session on empty tables with: 1 tiers 5 x 4; 2 without tiers 2 x 3; 3 of one seat; BIG;
    LIMITED. What holds of the tables is checked at the end, and the log all along."""
    port = cluster.port("alpha-1")
    with Session(port) as session:
        session.run(RESET)
        add_event(session, 1, 5, 4, TIERS)
        add_event(session, 2, 2, 3)
        add_event(session, 3, 1, 1)
        add_event(session, BIG, 3, 3)
        add_event(session, LIMITED, 3, 4, limit=4)
        with SeatLog(port) as log:
            yield session
            check_tables(session)
            log.read()
            assert log.count > 0


def outcomes(answers):
    """Only these."""
    return [answer["outcome"] for answer in answers]


# ---- taking --------------------------------------------------------------------------------------


@short
def test_holds_bookings_and_orders_in_one_batch(cluster):
    """Each gets what it asked for: times, amounts of the tiers, an order of its own."""
    with world(cluster) as session:
        batch = [Take(1, [(1, 1), (2, 4)], hold_ms=1500), Take(1, [(5, 4), (4, 1)]),
                 Take(2, [(1, 1)], hold_ms=1000), Take(3, [(1, 1)]),
                 Take(1, [(3, 1)], hold_ms=9000, method="card"),
                 Take(2, [(2, 1)], hold_ms=9000, method="free")]
        answers = take(session, batch)
        assert outcomes(answers) == ["booked"] * 6
        assert [answer["status"] for answer in answers] == [
            "held", "confirmed", "held", "confirmed", "held", "held"]
        assert [answer["amount"] for answer in answers] == [14000, 2000, 0, 0, 5000, 0]
        assert [answer["currency"] for answer in answers] == ["EUR", "EUR", None, None, "EUR", None]
        for one, answer in zip(batch, answers):
            row = booking(session, one)
            assert row["amount"] == answer["amount"] and row["hold_ms"] == one.hold_ms
            assert (answer["expires_us"] is None) == (one.hold_ms is None)
            if one.hold_ms:
                assert answer["expires_us"] - answer["created_us"] == one.hold_ms * 1000
        orders = session.rows("SELECT order_id, state, amount, method, due_at - created_at ="
                              f" interval '{LEASE_MS} ms' AS leased FROM orders ORDER BY amount")
        assert orders == [
            {"order_id": batch[5].booking_id, "state": "reserved", "amount": 0, "method": "free",
             "leased": True},
            {"order_id": batch[4].booking_id, "state": "reserved", "amount": 5000, "method": "card",
             "leased": True}]


def test_an_expired_hold_is_in_nobodys_way(cluster):
    """Its seats are free for a booking and for another hold; it is 'expired' from then on, also if
    only some of its seats are taken, and a seat map of claims never shows it."""
    with world(cluster) as session:
        old = hold(session, 1, [(1, 1), (1, 2), (1, 3)])
        other = hold(session, 2, [(1, 1)])
        assert outcomes(take(session, [Take(1, [(1, 1)])])) == ["seats_taken"]
        run_out(session, old)
        run_out(session, other)
        new = book(session, 1, [(1, 2), (2, 2)])
        assert booking(session, old)["status"] == "expired"
        assert booking(session, other)["status"] == "held", "another event's"
        again = hold(session, 1, [(1, 3)])
        assert owners(session, 1) == {1: new.booking_id, 5: new.booking_id, 2: again.booking_id}
        assert outcomes(take(session, [Take(1, [(1, 3)])])) == ["seats_taken"]
        assert changed(session, old, "confirm") == ("hold_expired", "expired")


def test_of_many_holds_that_are_over_only_those_in_the_way_are_marked(cluster):
    """Hundreds end at one moment: who buys, confirms late, or has a limit pays for what is in the way,
    and leaves the rest to the sweeper."""
    with world(cluster) as session:
        def marked(event):
            return session.value(f"SELECT count(*) FROM bookings WHERE event_id = {event}"
                                 " AND status = 'expired'")

        for event, limit in ((6, None), (7, 40)):
            add_event(session, event, 20, 20, limit=limit)
            over = [Take(event, [(n // 20 + 1, n % 20 + 1)], f"u{n % 10}", hold_ms=HOLD_MS)
                    for n in range(300)]
            for n in range(0, 300, 10):   # of a user one in a batch
                assert set(outcomes(take(session, over[n:n + 10]))) == {"booked"}
            session.run(f"BEGIN; UPDATE bookings SET expires_at = now() WHERE event_id = {event};"
                        f" UPDATE claims SET held_until = now() WHERE event_id = {event}; COMMIT")
            assert set(outcomes(take(session, [Take(event, [(1, 1)], "a"),
                                               Take(event, [(1, 2), (16, 1)], "b")]))) == {"booked"}
            assert marked(event) == 2
            assert changed(session, over[17], "confirm", "u7") == ("ok", "confirmed")
            book(session, event, [(20, 1)], "u3")
            # under a limit all that u7 and u3 had held counts no more, but for what u7 confirmed
            assert marked(event) == 2 + (29 + 30 if limit else 0)
        _, entry = join(session, 6, "w", 2, together=True)
        assert look(session, 6, entry)["state"] == "offered"
        assert marked(6) == 2 + 2
        assert sweep(session, 1000)[1] == 295 + 238


def test_limits(cluster):
    """Held and confirmed seats count, expired and cancelled ones don't; of one batch the first
    counts and the others come again; a replay is told whatever the limit says."""
    with world(cluster) as session:
        first = hold(session, LIMITED, [(1, 1), (1, 2)], key="k")
        batch = [Take(LIMITED, [(2, 1), (2, 2), (2, 3)]), Take(LIMITED, [(3, 1)]),
                 Take(LIMITED, [(3, 2)], "v"), Take(2, [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2)]),
                 Take(LIMITED, [(1, 1)])]
        answers = take(session, batch)
        assert outcomes(answers) == ["over_limit", "again", "booked", "booked", "seats_taken"]
        assert answers[0]["allowed"] == 2
        assert outcomes(take(session, [batch[1]])) == ["booked"]
        (answer,) = take(session, [Take(LIMITED, [(2, 1), (2, 2)])])
        assert (answer["outcome"], answer["allowed"]) == ("over_limit", 1)
        assert outcomes(take(session, [Take(LIMITED, [(2, 1)])])) == ["booked"]
        assert outcomes(take(session, [Take(LIMITED, [(2, 2)])])) == ["over_limit"]
        (answer,) = take(session, [Take(LIMITED, first.seats, key="k", hold_ms=HOLD_MS)])
        assert (answer["outcome"], answer["booking_id"]) == ("replayed", first.booking_id)
        run_out(session, first)
        assert outcomes(take(session, [Take(LIMITED, [(2, 2)])])) == ["booked"]
        assert changed(session, batch[1], "cancel") == ("ok", "cancelled")
        assert outcomes(take(session, [Take(LIMITED, [(2, 3)])])) == ["booked"]
        # nothing that was refused has left anything
        assert len(owners(session, LIMITED)) == 4
        session.run(f"UPDATE events SET max_per_user = 1 WHERE event_id = {LIMITED}")
        (answer,) = take(session, [Take(LIMITED, [(3, 4)])])
        assert (answer["outcome"], answer["allowed"]) == ("over_limit", 0), "never below zero"
        session.run(f"UPDATE events SET max_per_user = 4 WHERE event_id = {LIMITED}")


def rows_read(session, table, queries):
    """How many rows of a table the queries read, one after the other."""
    counts = ("SELECT seq_tup_read + coalesce(idx_tup_fetch, 0) AS n FROM pg_stat_xact_user_tables"
              f" WHERE relname = '{table}'")
    session.run("BEGIN")
    before = session.value(counts)
    for query in queries:
        session.rows(query)
    read = session.value(counts) - before
    session.run("COMMIT")
    return read


def look_sql(event, seat, user):
    """booking_look() of the strategies of separate statements, for one seat."""
    return (f"SELECT * FROM booking_look({EPOCH}, {event}, gen_random_uuid(), '{user}', NULL, 1,"
            f" false, ARRAY[{seat[0]}], ARRAY[{seat[1]}])")


def test_only_where_there_is_a_limit_the_users_bookings_are_counted(cluster):
    """Who has 400 bookings pays for none of them when the event lets everybody have all seats; with
    a limit they are counted."""
    with world(cluster) as session:
        add_event(session, 6, 21, 20)
        take(session, [Take(6, [(n // 20 + 1, n % 20 + 1)]) for n in range(400)])
        seat = (21, 1)
        gift = book(session, 6, [(21, 2)], "v")
        questions = [look_sql(6, seat, "u"), "SELECT user_may_take(6, 'u', 1)",
                     take_sql([Take(6, [seat])]), change_sql([Change(gift, "transfer", "v", text="u")])]
        # what the tables hold so far is too little for every plan to use their indexes
        session.run("SET enable_seqscan = off")
        assert rows_read(session, "bookings", questions) < 100
        add_event(session, 7, 21, 20, limit=420)
        take(session, [Take(7, [(n // 20 + 1, n % 20 + 1)]) for n in range(400)])
        assert rows_read(session, "bookings", [look_sql(7, seat, "u")]) >= 400
        assert session.value("SELECT user_may_take(6, 'u', 100)") is True


def test_a_look_under_a_limit(cluster):
    """booking_look() and user_may_take() count as take_batch() does."""
    with world(cluster) as session:
        for user, mine, left in (("a", [(1, 1), (1, 2), (1, 3)], 1),
                                 ("b", [(2, 1), (2, 2), (2, 3), (2, 4)], 0), ("c", [], 4)):
            if mine:
                hold(session, LIMITED, mine, user)
            (answer,) = session.rows(
                f"SELECT * FROM booking_look({EPOCH}, {LIMITED}, gen_random_uuid(), '{user}', NULL,"
                f" 1, false, ARRAY[3, 3, 3, 3], ARRAY[1, 2, 3, 4])")
            assert answer["outcome"] == ("free" if left == 4 else "over_limit"), answer
            assert answer["allowed"] == (None if left == 4 else left), answer
            for count in range(1, 6):
                assert session.value(
                    f"SELECT user_may_take({LIMITED}, '{user}', {count})") is (count <= left)


def test_keys_of_takes_and_changes_are_one_set(cluster):
    """A key that a change has used is no take's, and the other way round; after 24 hours it is."""
    with world(cluster) as session:
        taken = hold(session, 1, [(1, 1)], key="taken")
        assert changed(session, taken, "extend", arg=HOLD_MS, key="changed") == ("ok", "held")
        assert outcomes(take(session, [Take(1, [(2, 2)], key="changed")])) == ["key_reused"]
        assert changed(session, taken, "confirm", key="taken")[0] == "key_reused"
        assert join(session, 1, "w", key="changed")[0] == "key_reused"
        assert join(session, 1, "w", key="taken")[0] == "key_reused"
        assert outcomes(take(session, [Take(2, [(2, 2)], key="changed")])) == ["booked"], "per event"
        assert owners(session, 1) == {0: taken.booking_id}
        session.run("UPDATE change_keys SET created_at = created_at - interval '25 hours';"
                    " UPDATE bookings SET created_at = created_at - interval '25 hours'")
        assert outcomes(take(session, [Take(1, [(2, 2)], key="changed")])) == ["booked"]
        assert changed(session, taken, "extend", arg=HOLD_MS, key="taken") == ("ok", "held")


def test_a_replayed_hold_is_told_as_first(cluster):
    """Whatever became of it: extended, confirmed, expired and its seats another's."""
    with world(cluster) as session:
        first = Take(1, [(1, 2), (1, 1)], key="k", hold_ms=5000)
        (told,) = take(session, [first])
        same = Take(1, first.seats, key="k", hold_ms=5000)

        def replay():
            (answer,) = take(session, [same])
            assert answer["outcome"] == "replayed" and answer["booking_id"] == first.booking_id
            assert (answer["status"], answer["expires_us"]) == ("held", told["expires_us"]), answer
            assert (answer["seats"], answer["cols"], answer["amount"]) == ([1, 0], 4, 18000)

        replay()
        changed(session, first, "extend", arg=HOLD_MS)
        replay()
        run_out(session, first)
        replay()
        book(session, 1, [(1, 1)], "v")
        replay()
        (answer,) = take(session, [Take(1, first.seats, key="k", body=2, hold_ms=5000)])
        assert answer["outcome"] == "key_reused"
        (answer,) = take(session, [Take(1, first.seats, booking_id=first.booking_id, hold_ms=5000,
                                        recheck=True)])
        assert answer["outcome"] == "replayed"
        assert session.value("SELECT count(*) FROM orders") == 0


def test_rivals_are_only_looked_at(cluster):
    """A rival takes nothing; over the limit or not, it comes again unless its seats are gone."""
    with world(cluster) as session:
        one = book(session, LIMITED, [(1, 1)])
        answers = take(session, [Take(LIMITED, [(2, 2)], rival=True, hold_ms=HOLD_MS),
                                 Take(LIMITED, [(1, 1)], rival=True),
                                 Take(77, [(1, 1)], rival=True), Take(1, [(9, 9)], rival=True)])
        assert outcomes(answers) == ["again", "seats_taken", "unknown_event", "unknown_seat"]
        assert owners(session, LIMITED) == {0: one.booking_id}


# ---- best seats ----------------------------------------------------------------------------------


def best_model(cols, free, first_row, last_row, quantity, together):
    """The rule, seat by seat. free: {(row, col)}; None: there are none."""
    if together:
        for row in range(first_row, last_row + 1):
            runs = [start for start in range(1, cols - quantity + 2)
                    if all((row, start + n) in free for n in range(quantity))]
            if runs:
                start = min(runs, key=lambda s: (abs(2 * s + quantity - 2 - cols), s))
                return [(row, start + n) for n in range(quantity)]
        return None
    seats = sorted((seat for seat in free if first_row <= seat[0] <= last_row),
                   key=lambda seat: (seat[0], abs(2 * seat[1] - 1 - cols), seat[1]))
    return seats[:quantity] if len(seats) >= quantity else None


def test_best_seats_are_the_models(cluster):
    """Random houses: the function's choice is the brute-force one."""
    rng = random.Random(SEED)
    print(f"      seed {SEED}")
    found = 0
    with Session(cluster.port("alpha-1")) as session:
        for number in range(60):
            session.run(RESET)
            rows, cols = rng.choice(((1, 1), (1, 9), (3, 4), (4, 7), (6, 10), (9, 1)))
            event = rng.choice((1, BIG))
            add_event(session, event, rows, cols)
            full = rng.choice((0, 0.2, 0.5, 0.8, 1))
            every = [(row, col) for row in range(1, rows + 1) for col in range(1, cols + 1)]
            states = {seat: rng.choice(("booked", "held", "over")) if rng.random() < full else "free"
                      for seat in every}
            values = [f"({event}, gen_random_uuid(), "
                      + {"booked": "NULL", "held": "now() + interval '1 hour'",
                         "over": "now() - interval '1 ms'"}[state]
                      + f", {(row - 1) * cols + col - 1}, '{'booked' if state == 'booked' else 'held'}')"
                      for (row, col), state in states.items() if state != "free"]
            if values:
                session.run(f"INSERT INTO claims VALUES {', '.join(values)}")
            for _ in range(8):
                without = rng.sample(every, rng.randrange(min(3, len(every)) + 1))
                free = {seat for seat, state in states.items() if state in ("free", "over")}
                first = rng.randrange(1, rows + 1)
                last = rng.randrange(first, rows + 1)
                quantity, together = rng.randrange(1, cols + 3), rng.random() < 0.6
                expected = best_model(cols, free - set(without), first, last, quantity, together)
                numbers = [(row - 1) * cols + col - 1 for row, col in without]
                told = session.value(f"SELECT best_seats({event}, {first}, {last}, {quantity},"
                                     f" {literal(together)}, {literal(numbers)}::integer[])")
                seats = told and [(n // cols + 1, n % cols + 1) for n in told]
                assert seats == expected, (SEED, number, rows, cols, sorted(free), without, first,
                                           last, quantity, together, seats, expected)
                found += expected is not None
    assert found > 50


def test_best_of_several_tiers_all_or_nothing(cluster):
    """In the order asked for, each from its tier, at its price; or nothing of any."""
    with world(cluster) as session:
        answer = best(session, 1, [("back", 2, True), ("front", 1, False), (None, 2, True)])
        assert answer["outcome"] == "booked" and answer["cols"] == 4, answer
        # back: rows 4-5, middle of row 4; front: row 1, left of the middle two; any: row 1 has
        # seats 1, 3 and 4 left: 3-4
        assert answer["seats"] == [13, 14, 1, 2, 3] and answer["amount"] == 2000 + 3 * 9000, answer
        answer = best(session, 1, [("middle", 2, True), ("front", 2, False)], user="v")
        assert (answer["outcome"], answer["allowed"]) == ("sold_out", 1), answer
        assert answer["conflicts"] is None and answer["seats"] is None, answer
        assert session.value("SELECT count(*) FROM bookings") == 1
        book(session, 1, [(4, 1)])
        answer = best(session, 1, [("back", 5, True)])
        assert answer["outcome"] == "not_together", answer
        answer = best(session, 1, [("back", 1, True), ("balcony", 1, True), ("pit", 1, True)])
        assert (answer["outcome"], answer["allowed"]) == ("unknown_tier", 2), answer
        assert best(session, 77, [(None, 1, True)])["outcome"] == "unknown_event"
        answer = best(session, 1, [("front", 1, False), ("front", 1, False)])
        assert (answer["outcome"], answer["allowed"]) == ("sold_out", 1), "one is left, not two"
        # the whole house in one request, of one seat
        answer = best(session, 3, [(None, 1, True)], hold_ms=None)
        assert (answer["outcome"], answer["seats"], answer["status"]) == ("booked", [0], "confirmed")
        assert best(session, 3, [(None, 1, False)])["outcome"] == "sold_out"
        assert best(session, BIG, [(None, 3, True)])["outcome"] == "booked"


def test_the_whole_house_leaves_the_tiers_theirs(cluster):
    """Whatever the order they are asked for in; the seats are told in that order."""
    with world(cluster) as session:
        answer = best(session, 1, [(None, 1, False), (None, 2, True), ("front", 4, True)])
        assert answer["outcome"] == "booked", answer
        assert answer["seats"] == [4, 5, 6, 0, 1, 2, 3], answer
        answer = best(session, 1, [("middle", 1, False), ("middle", 4, True)])
        assert (answer["outcome"], answer["seats"]) == ("booked", [7, 8, 9, 10, 11]), answer


def test_best_take_with_keys_limits_and_orders(cluster):
    """Replayed with its seats, even when nothing is left; over the limit; an order; fenced."""
    with world(cluster) as session:
        first = best(session, LIMITED, [(None, 3, True)], key="k", method="card")
        assert first["outcome"] == "booked", first
        assert session.value("SELECT count(*) FROM orders") == 1
        told = best(session, LIMITED, [(None, 3, True)], key="k", method="card")
        assert told["outcome"] == "replayed" and told["seats"] == first["seats"], told
        assert told["status"] == "held" and told["expires_us"] == first["expires_us"]
        assert best(session, LIMITED, [(None, 3, True)], key="k", body=2)["outcome"] == "key_reused"
        answer = best(session, LIMITED, [(None, 2, True)])
        assert (answer["outcome"], answer["allowed"]) == ("over_limit", 1), answer
        for user in ("v", "w"):
            assert best(session, LIMITED, [(None, 4, False)], user=user)["outcome"] == "booked"
        assert best(session, LIMITED, [(None, 1, False)], user="x")["outcome"] == "booked"
        assert best(session, LIMITED, [(None, 1, False)], user="y")["outcome"] == "sold_out"
        told = best(session, LIMITED, [(None, 3, True)], key="k")
        assert told["outcome"] == "replayed" and told["seats"] == first["seats"], told
        # an old key is set free, and the request comes again
        session.run("UPDATE bookings SET created_at = created_at - interval '25 hours'")
        answer = best(session, LIMITED, [(None, 1, True)], key="k", user="z")
        assert answer["outcome"] == "again", answer
        assert best(session, LIMITED, [(None, 1, True)], key="k", user="z")["outcome"] == "sold_out"


# ---- changing ------------------------------------------------------------------------------------


@short
def test_changes_by_status(cluster):
    """Each kind of change of a booking in each status: the outcome and the status afterwards."""
    def made(session, status):
        if status == "confirmed":
            return book(session, 1, [(1, 1), (1, 2)])
        one = hold(session, 1, [(1, 1), (1, 2)], method="card" if status == "failed" else None)
        if status == "overdue":
            run_out(session, one)
        elif status == "expired":
            run_out(session, one)
            assert sweep(session)[1] == 1
        elif status == "cancelled":
            changed(session, one, "cancel")
        elif status == "failed":
            assert step(session, one, "reserved", "fail") == ("ok", "failed")
        return one

    expected = {
        ("held", "confirm"): ("ok", "confirmed"), ("held", "extend"): ("ok", "held"),
        ("held", "cancel"): ("ok", "cancelled"), ("held", "transfer"): ("not_confirmed", "held"),
        ("confirmed", "confirm"): ("ok", "confirmed"),
        ("confirmed", "extend"): ("not_held", "confirmed"),
        ("confirmed", "cancel"): ("ok", "cancelled"), ("confirmed", "transfer"): ("ok", "confirmed"),
        ("overdue", "confirm"): ("ok", "confirmed"), ("overdue", "extend"): ("hold_expired", "held"),
        ("overdue", "cancel"): ("ok", "cancelled"), ("overdue", "transfer"): ("not_confirmed", "held"),
        ("expired", "confirm"): ("ok", "confirmed"), ("expired", "extend"): ("hold_expired", "expired"),
        ("expired", "cancel"): ("ok", "expired"), ("expired", "transfer"): ("not_confirmed", "expired"),
        **{(status, kind): ("booking_ended", status) for status in ("cancelled", "failed")
           for kind in ("confirm", "extend", "transfer")},
        ("cancelled", "cancel"): ("ok", "cancelled"), ("failed", "cancel"): ("ok", "failed"),
    }
    with world(cluster) as session:
        for (status, kind), outcome in expected.items():
            one = made(session, status)
            row = booking(session, one)
            assert changed(session, one, kind, "v")[0] == "not_owner", (status, kind)
            assert booking(session, one) == row, (status, kind)
            told = changed(session, one, kind, arg=HOLD_MS, text="v" if kind == "transfer" else None)
            assert told == outcome, (status, kind, told)
            row = booking(session, one)
            assert row["status"] == outcome[1], (status, kind, row)
            assert row["user_id"] == ("v" if (status, kind) == ("confirmed", "transfer") else "u")
            assert (row["expires_at"] is None) == (outcome[1] not in ("held", "expired")), row
            check_tables(session)
            changed(session, one, "cancel", row["user_id"])
            session.run(f"DELETE FROM bookings WHERE booking_id = '{one.booking_id}';"
                        f" DELETE FROM claims WHERE booking_id = '{one.booking_id}';"
                        f" DELETE FROM orders WHERE order_id = '{one.booking_id}'")
        for kind in ("confirm", "extend", "cancel", "transfer"):
            assert changed(session, (1, new_id()), kind) == ("unknown_booking", None)
            assert changed(session, (77, new_id()), kind) == ("unknown_booking", None)


def test_late_confirm(cluster):
    """Over seats that are its own, swept, another's overdue hold's: through. Over one that is
    another's: 'hold_expired', and the rest of its seats are free."""
    with world(cluster) as session:
        def overdue(swept):
            one = hold(session, 1, [(1, 1), (1, 2), (1, 3)])
            run_out(session, one)
            if swept:
                assert sweep(session) == ("ok", 1, 0, False)
                assert session.value("SELECT count(*) FROM claims") == 0
            return one

        for swept in (False, True):
            one = overdue(swept)
            assert changed(session, one, "confirm") == ("ok", "confirmed")
            assert owners(session, 1) == dict.fromkeys((0, 1, 2), one.booking_id)
            changed(session, one, "cancel")

            one = overdue(swept)
            other = hold(session, 1, [(1, 2), (2, 2)], "v")
            run_out(session, other)
            assert changed(session, one, "confirm") == ("ok", "confirmed"), "another's hold is over"
            assert booking(session, other)["status"] == "expired"
            check_tables(session)
            assert changed(session, other, "confirm", "v") == ("hold_expired", "expired")
            assert owners(session, 1) == dict.fromkeys((0, 1, 2), one.booking_id)
            changed(session, one, "cancel")

            one = overdue(swept)
            other = hold(session, 1, [(1, 2)], "v")
            row = booking(session, other)
            for _ in range(2):
                assert changed(session, one, "confirm") == ("hold_expired", "expired")
            assert booking(session, other) == row
            assert owners(session, 1) == {1: other.booking_id}
            assert session.value("SELECT count(*) FROM claims") == 1
            changed(session, other, "cancel", "v")


def test_late_confirm_and_transfer_under_a_limit(cluster):
    """Who is late, or receives, may not have more than the event allows."""
    with world(cluster) as session:
        late = hold(session, LIMITED, [(1, 1), (1, 2)])
        run_out(session, late)
        book(session, LIMITED, [(2, 1), (2, 2), (2, 3)])
        (answer,) = change(session, [Change(late, "confirm")])
        assert (answer["outcome"], answer["allowed"]) == ("over_limit", 1), answer
        assert answer["user_id"] == "u" and booking(session, late)["status"] == "expired"
        given = book(session, LIMITED, [(3, 1), (3, 2)], "v")
        (answer,) = change(session, [Change(given, "transfer", "v", text="u")])
        assert (answer["outcome"], answer["allowed"], answer["user_id"]) == ("over_limit", 1, "v")
        assert changed(session, given, "transfer", "v", text="w") == ("ok", "confirmed")
        assert changed(session, given, "transfer", "w", text="w") == ("ok", "confirmed")
        assert changed(session, given, "cancel", "v")[0] == "not_owner"
        # the receiver's hold that has run out does not count, swept or not
        old = hold(session, LIMITED, [(1, 3), (1, 4), (1, 1)], "v")
        run_out(session, old)
        assert changed(session, given, "transfer", "w", text="v") == ("ok", "confirmed")
        # two transfers to one user in one batch: the second is over
        more = [book(session, LIMITED, [(1, n)], "x") for n in (1, 2, 3)]
        answers = change(session, [Change(one, "transfer", "x", text="v") for one in more])
        assert sorted(outcomes(answers)) == ["ok", "ok", "over_limit"], answers


def test_extending(cluster):
    """A bounded number of times, never to an earlier end, and the claims go along."""
    with world(cluster) as session:
        one = hold(session, 1, [(1, 1), (2, 1)], hold_ms=60_000)
        before = booking(session, one)
        assert changed(session, one, "extend", arg=1000) == ("ok", "held")
        assert booking(session, one)["expires_at"] == before["expires_at"]
        (answer,) = change(session, [Change(one, "extend", arg=90_000)])
        assert answer["outcome"] == "ok" and answer["expires_us"] > answer["created_us"] + 60_000_000
        after = booking(session, one)
        assert after["expires_at"] > before["expires_at"] and after["extended"] == 2
        check_tables(session)
        assert changed(session, one, "extend", arg=120_000) == ("extensions_used", "held")
        assert booking(session, one) == after


def test_changes_asked_again(cluster):
    """By the key: the stored answer, whatever came later. By change_id: the same change once. Another
    kind, booking or body under the key: refused. Refusals are not stored."""
    with world(cluster) as session:
        one, two = hold(session, 1, [(1, 1)]), hold(session, 1, [(1, 2)])
        (first,) = change(session, [Change(one, "extend", arg=HOLD_MS, key="a", body=5)])
        assert first["outcome"] == "ok"
        assert changed(session, one, "confirm", key="c") == ("ok", "confirmed")
        (again,) = change(session, [Change(one, "extend", arg=HOLD_MS, key="a", body=5)])
        assert (again["outcome"], again["status"]) == ("replayed", "held")
        assert again["expires_us"] == first["expires_us"]
        assert booking(session, one)["extended"] == 1
        for wrong in (Change(one, "extend", arg=HOLD_MS, key="a", body=6),
                      Change(two, "extend", arg=HOLD_MS, key="a", body=5),
                      Change(one, "cancel", key="a", body=5)):
            assert outcomes(change(session, [wrong])) == ["key_reused"], wrong
        assert changed(session, one, "extend", key="r", arg=1)[0] == "not_held"
        assert changed(session, one, "cancel", key="r") == ("ok", "cancelled"), "a refusal is not kept"
        assert changed(session, one, "confirm", key="c") == ("replayed", "confirmed")
        lost = Change(two, "extend", arg=HOLD_MS)
        assert outcomes(change(session, [lost])) == ["ok"]
        assert outcomes(change(session, [lost])) == ["ok"]
        assert booking(session, two)["extended"] == 1
        changed(session, two, "confirm")
        gift = Change(two, "transfer", text="v")
        for _ in range(2):   # asked again after it is the other's
            (answer,) = change(session, [gift])
            assert (answer["outcome"], answer["user_id"]) == ("ok", "v")


def test_several_changes_of_one_booking_in_a_batch(cluster):
    """In their order; one key twice is one change."""
    with world(cluster) as session:
        one, two = hold(session, 1, [(1, 1)]), hold(session, 1, [(1, 2)])
        batch = [Change(one, "extend", arg=HOLD_MS), Change(two, "cancel"), Change(one, "confirm"),
                 Change(one, "extend", arg=HOLD_MS), Change(two, "confirm"),
                 Change(one, "transfer", text="v"), Change(one, "cancel"),
                 Change((1, new_id()), "cancel")]
        answers = change(session, batch)
        assert outcomes(answers) == ["ok", "ok", "ok", "not_held", "booking_ended", "ok",
                                     "not_owner", "unknown_booking"]
        assert [answer["booking_id"] for answer in answers] == [c.booking_id for c in batch]
        three = hold(session, 1, [(1, 3)])
        answers = change(session, [Change(three, "extend", arg=HOLD_MS, key="k"),
                                   Change(three, "extend", arg=HOLD_MS, key="k")])
        assert outcomes(answers) == ["ok", "replayed"] and booking(session, three)["extended"] == 1


# ---- orders --------------------------------------------------------------------------------------


STATES = ("reserved", "charging", "charged", "confirmed", "failed", "refunding", "refunded")
MOVES = {("reserved", "charging"): "charging", ("charging", "charged"): "charged",
         ("charged", "confirm"): "confirmed", ("reserved", "fail"): "failed",
         ("charging", "fail"): "failed", ("failed", "refund"): "refunding",
         ("refunding", "refunded"): "refunded", **{(state, "later"): state for state in STATES
            if state not in ("confirmed", "failed", "refunded")}}
PATHS = {"reserved": (), "charging": ("charging",), "charged": ("charging", "charged"),
         "confirmed": ("charging", "charged", "confirm"), "failed": ("fail",),
         "refunding": ("fail", "refund"), "refunded": ("fail", "refund", "refunded")}


def order_in(session, state, seats=((1, 1), (1, 2)), event=1, **more):
    """An order that has come to that state."""
    one = hold(session, event, list(seats), method="card", **more)
    now = "reserved"
    for action in PATHS[state]:
        outcome, now = step(session, one, now, action)
        assert outcome == "ok"
    assert now == state
    return one


def test_every_step_of_an_order(cluster):
    """Each action in each state: the next one, or nothing at all."""
    ends = {"reserved": "held", "charging": "held", "charged": "held", "confirmed": "confirmed"}
    with world(cluster) as session:
        for state in STATES:
            for action in ("charging", "later", "charged", "confirm", "fail", "refund", "refunded"):
                one = order_in(session, state)
                row = f"SELECT * FROM orders WHERE order_id = '{one.booking_id}'"
                (before,) = session.rows(row)
                wrong = STATES[(STATES.index(state) + 1) % len(STATES)]
                assert step(session, one, wrong, action) == ("moved", state)
                assert session.rows(row) == [before]
                reached = MOVES.get((state, action))
                outcome = step(session, one, state, action, problem="p")
                assert outcome == (("ok", reached) if reached else ("moved", state)), (state, action)
                (after,) = session.rows(row)
                if not reached:
                    assert after == before
                else:
                    assert after["state"] == reached
                    assert after["attempts"] == (1 if action == "later" else 0)
                    assert after["problem"] == "p"
                    assert (after["due_at"] is None) == (reached in ("confirmed", "failed", "refunded"))
                assert booking(session, one)["status"] == ends.get(reached or state, "failed")
                check_tables(session)
                session.run("DELETE FROM orders; DELETE FROM claims; UPDATE bookings SET status ="
                            " 'cancelled' WHERE status IN ('held', 'confirmed')")
        assert step(session, (1, new_id()), "reserved", "fail") == ("unknown_order", None)
        assert step(session, (77, new_id()), "reserved", "later") == ("unknown_order", None)


def test_an_order_that_costs_nothing(cluster):
    """Confirmed from 'reserved'; without seats it has failed, nothing is to be refunded."""
    with world(cluster) as session:
        one = hold(session, 2, [(1, 1)], method="card")
        assert step(session, one, "reserved", "confirm") == ("ok", "confirmed")
        assert changed(session, one, "cancel") == ("ok", "cancelled")
        assert step(session, one, "failed", "refund") == ("moved", "failed")
        two = hold(session, 2, [(1, 1)], method="card")
        run_out(session, two)
        book(session, 2, [(1, 1)], "v")
        assert step(session, two, "reserved", "confirm") == ("ok", "failed")
        paid = order_in(session, "reserved")
        assert step(session, paid, "reserved", "confirm") == ("moved", "reserved"), "not for free"


def test_money_for_seats_that_are_gone(cluster):
    """Charged, and the seats are another's or over the limit by then: refunding, and what is left of
    them comes back. Still free, swept or not: confirmed."""
    with world(cluster) as session:
        for swept in (False, True):
            one = order_in(session, "charged")
            run_out(session, one)
            if swept:
                sweep(session)
            assert step(session, one, "charged", "confirm") == ("ok", "confirmed")
            assert changed(session, one, "cancel") == ("ok", "cancelled")
            assert step(session, one, "refunding", "refunded") == ("ok", "refunded")

            one = order_in(session, "charged")
            run_out(session, one)
            if swept:
                sweep(session)
            other = book(session, 1, [(1, 2)], "v")
            assert step(session, one, "charged", "confirm") == ("ok", "refunding")
            assert session.value("SELECT problem FROM orders WHERE state = 'refunding'") == "seats_gone"
            assert booking(session, one)["status"] == "failed"
            assert owners(session, 1) == {1: other.booking_id}
            due_now(session)
            assert [row["state"] for row in due(session)] == ["refunding"]
            assert step(session, one, "refunding", "refunded") == ("ok", "refunded")
            changed(session, other, "cancel", "v")
        session.run(f"UPDATE events SET currency = 'EUR', tier_names = '{{all}}', tier_prices = '{{5}}',"
                    f" tier_first_rows = '{{1}}' WHERE event_id = {LIMITED}")
        one = order_in(session, "charged", event=LIMITED)
        run_out(session, one)
        book(session, LIMITED, [(2, 1), (2, 2), (2, 3)])
        assert step(session, one, "charged", "confirm") == ("ok", "refunding"), "over the limit"
        assert len(owners(session, LIMITED)) == 3


def due_now(session):
    """All orders are due."""
    session.run("UPDATE orders SET due_at = now() - interval '1 s' WHERE due_at IS NOT NULL")


def test_changes_of_a_booking_with_an_order(cluster):
    """While it is being paid for nobody changes it; a confirmed one is cancelled and refunded."""
    with world(cluster) as session:
        for state in ("reserved", "charging", "charged"):
            one = order_in(session, state)
            row = booking(session, one)
            for kind in ("confirm", "extend", "cancel", "transfer"):
                assert changed(session, one, kind, arg=HOLD_MS, text="v")[0] == "order_open"
            assert booking(session, one) == row
            session.run(f"UPDATE orders SET state = 'reserved' WHERE order_id = '{one.booking_id}'")
            assert step(session, one, "reserved", "fail") == ("ok", "failed")
            assert owners(session, 1) == {}
        one = order_in(session, "confirmed")
        assert changed(session, one, "transfer", text="v") == ("ok", "confirmed")
        assert changed(session, one, "cancel", "v", key="k") == ("ok", "cancelled")
        (row,) = due(session)
        assert (row["order_id"], row["state"], row["amount"]) == (one.booking_id, "refunding", 18000)
        assert session.value("SELECT problem FROM orders WHERE state = 'refunding'") == "cancelled"
        assert changed(session, one, "cancel", "v", key="k") == ("replayed", "cancelled")
        assert step(session, one, "refunding", "refunded") == ("ok", "refunded")
        assert changed(session, one, "cancel", "v") == ("ok", "cancelled")
        assert due(session) == []


def test_orders_due(cluster):
    """Who asks gets them for the time of the lease, the longest due first; final ones are nobody's."""
    with world(cluster) as session:
        orders = [order_in(session, state, [(n, 1)])
                  for n, state in enumerate(("reserved", "charging", "charged", "refunding"), 1)]
        order_in(session, "confirmed", [(5, 1)])
        order_in(session, "failed", [(5, 2)])
        assert due(session) == []
        for n, one in enumerate(orders):
            session.run(f"UPDATE orders SET due_at = now() - interval '{10 - n} s',"
                        f" created_at = now() - interval '1 hour'"
                        f" WHERE order_id = '{one.booking_id}'")
        rows = due(session, limit=3)
        assert {row["order_id"] for row in rows} == {one.booking_id for one in orders[:3]}
        assert all(row["outcome"] == "ok" and 3_600_000 <= row["age_ms"] < 3_700_000 for row in rows)
        (row,) = due(session)
        assert (row["order_id"], row["state"], row["method"]) == (
            orders[3].booking_id, "refunding", "card")
        assert due(session) == []
        assert session.value("SELECT count(*) FROM orders WHERE due_at > now()") == 4
        due_now(session)
        assert len(due(session, lease_ms=0)) == 4 and len(due(session)) == 4


# ---- the waiting list ----------------------------------------------------------------------------


def test_waiting_in_order(cluster):
    """Who came first is offered first; whom nothing fits is passed over and keeps the place."""
    with world(cluster) as session:
        sold = [book(session, 2, [(row, col)], "s") for row in (1, 2) for col in (1, 2, 3)]
        entries = {}
        for user, quantity, together in (("pair", 2, True), ("a", 1, False), ("b", 1, False)):
            outcome, entries[user] = join(session, 2, user, quantity, together=together)
            assert outcome == "ok"
        assert [look(session, 2, entries[user])["queue_position"] for user in entries] == [1, 2, 3]
        changed(session, sold[0], "cancel", "s")
        assert [look(session, 2, entries[user])["state"] for user in entries] == [
            "waiting", "offered", "waiting"]
        told = look(session, 2, entries["b"])
        assert (told["queue_position"], told["booking_id"]) == (2, None)
        told = look(session, 2, entries["a"])
        row = booking(session, (2, told["booking_id"]))
        assert (row["user_id"], row["status"], row["seats"]) == ("a", "held", [0])
        assert told["expires_us"] is not None and told["queue_position"] is None
        change(session, [Change(sold[3], "cancel", "s"), Change(sold[4], "cancel", "s")])
        assert booking(session, (2, look(session, 2, entries["pair"])["booking_id"]))["seats"] == [3, 4]
        assert look(session, 2, entries["b"])["queue_position"] == 1
        # accepted, released, run out
        assert changed(session, (2, told["booking_id"]), "confirm", "a") == ("ok", "confirmed")
        assert look(session, 2, entries["a"])["state"] == "accepted"
        pair = (2, look(session, 2, entries["pair"])["booking_id"])
        run_out(session, pair)
        assert look(session, 2, entries["pair"])["state"] == "expired"
        assert look(session, 2, entries["b"])["state"] == "waiting"
        assert sweep(session) == ("ok", 1, 1, False)
        assert look(session, 2, entries["b"])["state"] == "offered"
        assert session.rows("SELECT user_id, state FROM waitlist ORDER BY place") == [
            {"user_id": "pair", "state": "expired"}, {"user_id": "a", "state": "accepted"},
            {"user_id": "b", "state": "offered"}]
        assert look(session, 2, new_id())["user_id"] is None


def test_many_that_nothing_fits_keep_nobody_from_the_rest(cluster):
    """150 want two side by side, one at the end wants any: the single seat is theirs."""
    with world(cluster) as session:
        sold = [book(session, 2, [(row, col)], "s") for row in (1, 2) for col in (1, 2, 3)]
        for n in range(150):
            join(session, 2, f"pair-{n}", 2, together=True)
        _, last = join(session, 2, "single", 1)
        assert look(session, 2, last)["queue_position"] == 151
        change(session, [Change(sold[0], "cancel", "s"), Change(sold[5], "cancel", "s")])
        assert look(session, 2, last)["state"] == "offered"
        assert session.value("SELECT count(*) FROM waitlist WHERE state = 'offered'") == 1


def test_an_offer_ends_with_its_hold(cluster):
    """Whoever ends the hold, with no sweep between: accepted and then cancelled is accepted, released
    or run out is expired."""
    with world(cluster) as session:
        def offered(user):
            entry = join(session, 2, user)[1]
            return entry, (2, look(session, 2, entry)["booking_id"])

        def state(entry):
            return session.value(f"SELECT state FROM waitlist WHERE entry_id = '{entry}'")

        entry, one = offered("a")
        assert changed(session, one, "extend", "a", arg=HOLD_MS)[0] == "ok" and state(entry) == "offered"
        assert changed(session, one, "confirm", "a")[0] == "ok" and state(entry) == "accepted"
        assert changed(session, one, "cancel", "a")[0] == "ok" and state(entry) == "accepted"
        entry, one = offered("b")
        assert changed(session, one, "cancel", "b")[0] == "ok" and state(entry) == "expired"
        entry, one = offered("c")
        run_out(session, one)
        seat = booking(session, one)["seats"][0]
        book(session, 2, [(seat // 3 + 1, seat % 3 + 1)], "buyer")
        assert state(entry) == "expired"
        assert changed(session, one, "confirm", "c")[0] == "hold_expired" and state(entry) == "expired"
        entry, one = offered("d")
        run_out(session, one)
        assert sweep(session) == ("ok", 1, 0, False) and state(entry) == "expired"


def test_a_sweep_does_not_read_the_offers_that_stand(cluster):
    """Hundreds are open: a sweep that ends one of them reads few."""
    with world(cluster) as session:
        add_event(session, 6, 20, 20)
        session.run("SET enable_seqscan = off; SET jit = off")
        entries = [join(session, 6, f"w{n}")[1] for n in range(300)]
        assert rows_read(session, "waitlist", [sweep_sql()]) < 10
        run_out(session, (6, look(session, 6, entries[7])["booking_id"]))
        session.run("VACUUM waitlist")   # what is dead would count as well
        assert rows_read(session, "waitlist", [sweep_sql()]) < 20
        assert rows_read(session, "waitlist", [join_sql(6, "late")]) < 20
        assert look(session, 6, entries[7])["state"] == "expired"
        assert look(session, 6, entries[8])["state"] == "offered"


def test_joining(cluster):
    """Offered at once if seats fit; once a user; too much is refused; keys and lost answers."""
    with world(cluster) as session:
        outcome, entry = join(session, 1, "a", 2, "front", True, key="k")
        told = look(session, 1, entry)
        assert (outcome, told["state"], told["tier"]) == ("ok", "offered", "front")
        row = booking(session, (1, told["booking_id"]))
        assert (row["seats"], row["amount"], row["currency"]) == ([1, 2], 18000, "EUR")
        assert join(session, 1, "a", 2, "front", True, key="k") == ("replayed", entry)
        assert join(session, 1, "a", 2, "front", True, key="k", body=2)[0] == "key_reused"
        assert join(session, 1, "a", 1) == ("already_waiting", entry)
        assert join(session, 1, "a", 1, entry=entry) == ("ok", entry), "a lost answer"
        changed(session, (1, told["booking_id"]), "confirm", "a")
        outcome, second = join(session, 1, "a", 1)
        assert outcome == "ok" and second != entry, "the first was accepted"
        run_out(session, (1, look(session, 1, second)["booking_id"]))
        outcome, third = join(session, 1, "a", 1)
        assert outcome == "ok" and look(session, 1, second)["state"] == "expired"
        assert look(session, 1, third)["state"] == "offered"
        assert join(session, 1, "b", 5, None, True)[0] == "too_many", "a row has 4"
        assert join(session, 1, "b", 5, "front", False)[0] == "too_many"
        assert join(session, 1, "b", 21)[0] == "too_many"
        assert join(session, LIMITED, "b", 5)[0] == "too_many"
        assert join(session, 1, "b", 1, "balcony")[0] == "unknown_tier"
        assert join(session, 77, "b", 1)[0] == "unknown_event"
        assert session.value("SELECT count(*) FROM waitlist WHERE user_id = 'b'") == 0


def test_leaving(cluster):
    """One's own; twice; not while an offer stands; and who has left is offered nothing."""
    with world(cluster) as session:
        sold = book(session, 3, [(1, 1)], "s")
        entries = {user: join(session, 3, user)[1] for user in ("a", "b", "c")}
        assert leave(session, 3, entries["a"], "b") == "not_owner"
        for _ in range(2):
            assert leave(session, 3, entries["a"], "a") == "ok"
        assert leave(session, 3, new_id(), "a") == "unknown_entry"
        assert [look(session, 3, entries[user])["queue_position"] for user in "abc"] == [None, 1, 2]
        changed(session, sold, "cancel", "s")
        assert [look(session, 3, entries[user])["state"] for user in "abc"] == [
            "left", "offered", "waiting"]
        assert leave(session, 3, entries["b"], "b") == "offered"
        changed(session, (3, look(session, 3, entries["b"])["booking_id"]), "cancel", "b")
        assert look(session, 3, entries["c"])["state"] == "offered", "released: the next one's"
        assert leave(session, 3, entries["b"], "b") == "ok"
        outcome, again = join(session, 3, "a")
        assert outcome == "ok" and look(session, 3, again)["queue_position"] == 1
        assert leave(session, 3, again, "b", key="k") == "not_owner", "and the key is still free"
        assert [leave(session, 3, again, "a", key="k") for _ in range(2)] == ["ok", "replayed"]
        assert leave(session, 3, again, "a", key="k", body=2) == "key_reused"
        assert leave(session, 3, entries["b"], "b", key="k") == "key_reused"
        assert join(session, 3, "a", key="k")[0] == "key_reused"


def test_offers_under_a_limit(cluster):
    """Who may have no more is passed over, and served once they may."""
    with world(cluster) as session:
        own = book(session, LIMITED, [(1, 1), (1, 2), (1, 3)], "a")
        rest = book(session, LIMITED, [(row, col) for row in (2, 3) for col in (1, 2)], "s")
        others = book(session, LIMITED, [(1, 4), (2, 3), (2, 4), (3, 3)], "t")
        filler = book(session, LIMITED, [(3, 4)], "v")
        _, greedy = join(session, LIMITED, "a", 2)
        _, modest = join(session, LIMITED, "b", 1)
        changed(session, rest, "cancel", "s")
        assert look(session, LIMITED, greedy)["state"] == "waiting"
        assert look(session, LIMITED, modest)["state"] == "offered"
        changed(session, own, "cancel", "a")
        assert look(session, LIMITED, greedy)["state"] == "offered"
        assert len(owners(session, LIMITED)) == 5 + 1 + 2 and others and filler


def test_who_gives_a_ticket_away_may_be_offered_seats(cluster):
    """At the limit, with seats free: offered none; with the transfer they are."""
    with world(cluster) as session:
        add_event(session, 50, 1, 4, limit=2)
        own = book(session, 50, [(1, 1), (1, 2)], "a")
        _, entry = join(session, 50, "a", 2)
        assert look(session, 50, entry)["state"] == "waiting"
        assert changed(session, own, "transfer", "a", text="b") == ("ok", "confirmed")
        assert look(session, 50, entry)["state"] == "offered"


def test_offers_wherever_seats_come_back(cluster):
    """A failed order, one without seats left, a late confirmation that fails: all give back."""
    with world(cluster) as session:
        def waiting():
            outcome, entry = join(session, 3, "w")
            assert outcome == "ok" and look(session, 3, entry)["state"] == "waiting"
            return entry

        def offered(entry):
            told = look(session, 3, entry)
            assert told["state"] == "offered", told
            assert changed(session, (3, told["booking_id"]), "cancel", "w") == ("ok", "cancelled")
            sweep(session)

        one = hold(session, 3, [(1, 1)], method="card")
        entry = waiting()
        assert step(session, one, "reserved", "fail") == ("ok", "failed")
        offered(entry)
        one = hold(session, 3, [(1, 1)])
        entry = waiting()
        assert changed(session, one, "cancel") == ("ok", "cancelled")
        offered(entry)
        one = hold(session, 3, [(1, 1)])
        entry = waiting()
        run_out(session, one)
        assert sweep(session) == ("ok", 1, 1, False)
        offered(entry)
        # one of two seats is another's: the other one comes back
        one = hold(session, 2, [(1, 1), (1, 2)])
        run_out(session, one)
        book(session, 2, [(1, 1), (1, 3), (2, 1), (2, 2), (2, 3)], "s")
        hold(session, 2, [(1, 2)], "t")
        _, entry = join(session, 2, "w")
        assert look(session, 2, entry)["state"] == "waiting"
        assert changed(session, one, "confirm") == ("hold_expired", "expired")


# ---- tidying -------------------------------------------------------------------------------------


def test_sweeping_in_bits(cluster):
    """A limit at a time, whole bookings; what buyers have marked goes, too; the rest stays."""
    with world(cluster) as session:
        overdue = [hold(session, 1, [(row, 1), (row, 2), (row, 3)]) for row in (1, 2, 3)]
        stays, booked = hold(session, 1, [(4, 1)]), book(session, 1, [(4, 2)])
        for one in overdue:
            run_out(session, one)
        assert sweep(session, 2) == ("ok", 2, 0, True)
        check_tables(session)
        count = 1
        while sweep(session, 2)[3]:
            check_tables(session)
            count += 1
            assert count < 20
        assert sweep(session, 2) == ("ok", 0, 0, False)
        assert [booking(session, one)["status"] for one in overdue] == ["expired"] * 3
        assert owners(session, 1) == {12: stays.booking_id, 13: booked.booking_id}
        assert session.value("SELECT count(*) FROM claims") == 2
        one = hold(session, 1, [(1, 1), (1, 2)])
        run_out(session, one)
        book(session, 1, [(1, 1)], "v")   # marks it
        assert session.value("SELECT count(*) FROM claims WHERE held_until <= now()") == 1
        assert sweep(session) == ("ok", 0, 0, False)
        assert session.value("SELECT count(*) FROM claims WHERE held_until <= now()") == 0


def test_a_sweep_looks_at_no_more_than_it_ends(cluster):
    """Hundreds are over; one that ends ten of them reads some tens of bookings and claims."""
    with world(cluster) as session:
        session.run(f"""
            INSERT INTO events (event_id, name, starts_at, rows, cols, creation_id)
            VALUES (6, 'e', now(), 20, 20, gen_random_uuid());
            INSERT INTO bookings (event_id, booking_id, user_id, status, seats, request_hash,
                                  expires_at, hold_ms)
            SELECT 6, gen_random_uuid(), 'h', 'held', ARRAY[n], 1, now() - (400 - n) * interval '1 ms', 1
              FROM generate_series(0, 399) n;
            INSERT INTO claims (event_id, seat_no, booking_id, state, held_until)
            SELECT event_id, seats[1], booking_id, 'held', expires_at FROM bookings;
            SET enable_seqscan = off""")
        assert rows_read(session, "bookings", [sweep_sql(10)]) < 100
        assert session.value("SELECT count(*) FROM claims") == 390
        assert session.value("SELECT count(*) FROM bookings WHERE status = 'expired'") == 10


def test_the_keys_of_a_take_are_looked_up_one_by_one(cluster):
    """A plan made while there were none is right when there are many."""
    with world(cluster) as session:
        session.run("SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off")
        take(session, [Take(1, [(1, 1)], key="first")])
        session.run("INSERT INTO change_keys SELECT 1, 'k' || n, 1, 'extend', gen_random_uuid(), 'held',"
                    " 'u', now(), now() FROM generate_series(1, 300) n")
        assert rows_read(session, "change_keys", [take_sql([Take(1, [(1, 2)], key="k7"),
                                                            Take(1, [(1, 3)], key="k8")])]) < 10


@contextlib.contextmanager
def slow_offers(cluster):
    """Each takes 10 ms at least, on a machine however fast."""
    with Session(cluster.port("alpha-1"), user="postgres") as session:
        session.run("""CREATE FUNCTION slow_offer() RETURNS trigger LANGUAGE plpgsql AS
            'BEGIN PERFORM pg_sleep(0.01); RETURN NEW; END';
            CREATE TRIGGER slow_offer BEFORE UPDATE ON waitlist FOR EACH ROW
            WHEN (NEW.state = 'offered') EXECUTE FUNCTION slow_offer()""")
        try:
            yield
        finally:
            session.run("DROP TRIGGER slow_offer ON waitlist; DROP FUNCTION slow_offer()")


def test_a_sweep_with_offers_for_many_seconds(cluster):
    """Hundreds wait in many large houses and all seats come back at once: a sweep makes some offers
    and says that there is more, one after the other until all are made."""
    with world(cluster) as session, slow_offers(cluster):
        events = range(100, 160)
        session.run(f"""
            INSERT INTO events (event_id, name, starts_at, rows, cols, creation_id)
            SELECT e, 'e', now(), 150, 150, gen_random_uuid() FROM generate_series(100, 159) e;
            INSERT INTO bookings (event_id, booking_id, user_id, status, seats, request_hash,
                                  expires_at, hold_ms)
            SELECT e, gen_random_uuid(), 'h', 'held', ARRAY[1], 1, now() - interval '1 s', 1
              FROM generate_series(100, 159) e;
            INSERT INTO claims (event_id, seat_no, booking_id, state, held_until)
            SELECT event_id, 1, booking_id, 'held', expires_at FROM bookings;
            INSERT INTO waitlist (event_id, entry_id, user_id, quantity, together)
            SELECT e, gen_random_uuid(), 'w' || n, 2, false
              FROM generate_series(100, 159) e, generate_series(1, 6) n""")
        sweeps, offered, more = 0, 0, True
        while more or offered < 6 * len(events):
            outcome, _, made, more = sweep(session)
            assert outcome == "ok" and sweeps < 400, (sweeps, offered)
            sweeps, offered = sweeps + 1, offered + made
        assert sweeps > 1, "it ends"
        assert session.value("SELECT count(*) FROM waitlist WHERE state = 'offered'") == 6 * len(events)


def test_sweeping_forgets_old_keys_and_refusals(cluster):
    """Older than 24 hours, and no younger."""
    with world(cluster) as session:
        hold(session, 1, [(1, 1)])
        for n in range(5):
            session.run(f"INSERT INTO change_keys SELECT 1, 'k{n}', 1, 'extend', gen_random_uuid(),"
                        f" 'held', 'u', now(), now() - interval '{22 + n} hours'")
            session.run(f"INSERT INTO refusals SELECT 1, gen_random_uuid(), 'u', 'seats_taken', NULL,"
                        f" now() - interval '{22 + n} hours'")
        assert sweep(session, 1)[-1], "there is more"
        assert session.value("SELECT count(*) FROM change_keys") == 4
        sweep(session)
        for table in ("change_keys", "refusals"):
            assert session.value(f"SELECT count(*) FROM {table}") == 2, table


@short
def test_a_booking_that_was_refused_stays_so(cluster):
    """Its message comes again when the seats are free: whoever asked was told no. A booking that was
    made after all counts for more."""
    with world(cluster) as session:
        one, other = Take(1, [(1, 1)], recheck=True), Take(1, [(1, 2)], recheck=True)
        for refused in (one, other):
            answer = f"{refused.event}, '{refused.booking_id}', 'u', 'seats_taken', NULL"
            if refused is other:
                assert outcomes(take(session, [other])) == ["booked"]
            assert session.value(f"SELECT refusal_store({EPOCH}, {answer})") == "ok"
        fresh = Take(1, [(1, 3)], recheck=True)
        assert outcomes(take(session, [one, other, fresh])) == ["key_reused", "replayed", "booked"]
        look_only = Take(1, [], recheck=True, booking_id=one.booking_id)
        assert outcomes(take(session, [look_only, Take(1, [(1, 4)])])) == ["key_reused", "booked"]
        assert best(session, 1, [(None, 1, True)], booking_id=one.booking_id, hold_ms=None,
                    recheck=True)["outcome"] == "key_reused"
        looked = session.rows(f"SELECT * FROM booking_look({EPOCH}, 1, '{one.booking_id}', 'u', NULL,"
                              " 1, true, '{1}', '{1}')")
        assert outcomes(looked) == ["key_reused"]
        assert set(owners(session, 1)) == {1, 2, 3}


# ---- the fence, creating events ------------------------------------------------------------------


def test_fence_and_epoch_of_each_function(cluster):
    """Fenced, or with another epoch: nothing is done, and it is said."""
    with world(cluster) as session:
        one, order = hold(session, 1, [(1, 1)]), order_in(session, "reserved", [(2, 1)])
        _, entry = join(session, 3, "w")
        run_out(session, one)
        due_now(session)

        def dump():
            return [session.rows(f"SELECT * FROM {table} ORDER BY 1, 2, 3, 4") for table in
                    ("bookings", "claims", "orders", "waitlist", "change_keys")]

        def ask(epoch):
            yield take(session, [Take(1, [(3, 1)])], epoch=epoch)[0]["outcome"]
            yield take(session, [Take(1, [(3, 1)])], epoch=epoch)[0]["ord"] == 0
            yield best(session, 1, [(None, 1, True)], epoch=epoch)["outcome"]
            yield best(session, 1, [(None, 1, True)], epoch=epoch)["ord"] == 0
            yield change(session, [Change(one, "confirm")], epoch=epoch)[0]["outcome"]
            yield change(session, [Change(one, "confirm")], epoch=epoch)[0]["ord"] == 0
            yield step(session, order, "reserved", "fail", epoch=epoch)[0]
            yield due(session, epoch=epoch)[0]["outcome"]
            yield join(session, 3, "x", epoch=epoch)[0]
            yield leave(session, 3, entry, "w", epoch=epoch)
            yield sweep(session, epoch=epoch)[0]

        before = dump()
        assert set(ask(EPOCH + 1)) == {"stale_epoch", True}
        session.run("UPDATE shard_meta SET fenced = true")
        assert set(ask(EPOCH)) == {"fenced", True}
        session.run("UPDATE shard_meta SET fenced = false")
        assert dump() == before


def test_creating_events_with_tiers_and_limits(cluster):
    """Stored as given, once, also when it is asked again; without either as before."""
    with world(cluster) as session:
        def create(creation, tiers, limit, epoch=EPOCH):
            names, prices, rows = tiers or ("NULL",) * 3
            (answer,) = session.rows(
                f"SELECT * FROM create_event({epoch}, '{creation}', 'n', 0, 5, 4, '{{100}}', '{{199}}',"
                f" '{{}}', {literal('EUR') if tiers else 'NULL'}, {names}, {prices}, {rows},"
                f" {literal(limit)})")
            return answer["outcome"], answer["event_id"]

        tiers = ("'{front,back}'", "'{500,100}'", "'{1,3}'")
        first, second, third = new_id(), new_id(), new_id()
        for _ in range(2):
            assert create(first, tiers, 6) == ("created", 100)
        assert create(second, None, None) == ("created", 101)
        assert create(third, None, 2) == ("created", 102)
        assert create(new_id(), tiers, 2, EPOCH + 1) == ("stale_epoch", None)
        rows = session.rows("SELECT currency, tier_names, tier_prices, tier_first_rows, max_per_user"
                            " FROM events WHERE event_id BETWEEN 100 AND 199 ORDER BY event_id")
        assert [list(row.values()) for row in rows] == [
            ["EUR", ["front", "back"], [500, 100], [1, 3], 6], [None] * 5, [None] * 4 + [2]], rows
        assert take(session, [Take(100, [(2, 4), (3, 1)])])[0]["amount"] == 600
