"""Holds where it gets tight: the bounds that are settings, the very end, two clicks at one moment.

Goal: a hold lasts as long as the settings let it, is extended so often and never shortened; its seats
are free at its end though no sweeper ever comes, for exactly one of all who want them, and its owner
who comes late is one of those; the same click twice, or two that do not go together, is one
outcome. Method: a cluster whose sweeper sleeps; requests sent on open connections all at once; the
tables are looked at behind each round. What a hold is on a new primary is in test_failover.py.

SPDX-License-Identifier: MIT
"""

import datetime

from harness import PATIENT, short, wait_until
from psql import Session
from wire import Crowd, Wire, booking, build

CLUSTER = {"replicas": 0, "settings": {
    **PATIENT, "workers": 2, "holds.min_ms": 1500, "holds.default_ms": 4000, "holds.max_ms": 60500,
    "holds.max_extensions": 2, "sweeper.interval_ms": 600_000}}

CROWD = 60
ROUNDS = 5
ANN = {"X-User-Id": "ann"}


# ---- asking --------------------------------------------------------------------------------------


def places(*seats):
    """Of pairs."""
    return [{"row": row, "col": col} for row, col in seats]


def hold_of(event, *seats, user="ann", **more):
    """Path and body of a hold."""
    return f"/events/{event}/holds", {"userId": user, "seats": places(*seats), **more}


def hold(wire, event, *seats, **more):
    """ann's; the booking."""
    answer = wire.ask("POST", *hold_of(event, *seats, **more))
    assert answer.status == 201, answer
    return answer.json()


def one(held, what=""):
    """The path of a booking, or of what may be done to it."""
    return f"/events/{held['eventId']}/bookings/{held['bookingId']}{what}"


def seconds(held):
    """From its making to its end."""
    made, ends = (datetime.datetime.fromisoformat(held[name].replace("Z", "+00:00"))
                  for name in ("createdAt", "expiresAt"))
    return (ends - made).total_seconds()


def wait_over(session, held):
    """Until the database's clock is past its end."""
    wait_until(lambda: session.value(f"SELECT expires_at <= clock_timestamp() FROM bookings"
                                     f" WHERE booking_id = '{held['bookingId']}'"),
               20, every=0.02, what="the end of the hold")


def statuses(answers):
    """Sorted."""
    return sorted(answer.status for answer in answers)


def marks(answers):
    """Which of them say that they are an earlier answer."""
    return sorted(answer.headers.get("idempotent-replayed", "") for answer in answers)


def owner(session, event):
    """(user, status) of the one who has the event's seats by the bookings, and by the claims: None
    for nobody. Two are an error."""
    rows = session.rows(
        f"SELECT b.user_id, b.status, c.state FROM bookings b"
        f"  FULL JOIN (SELECT DISTINCT event_id, booking_id, state FROM claims"
        f"              WHERE event_id = {event} AND (state = 'booked' OR held_until > now())) c"
        f"  USING (event_id, booking_id)"
        f" WHERE event_id = {event} AND (c.state IS NOT NULL OR b.status = 'confirmed'"
        f"                               OR b.status = 'held' AND b.expires_at > now())")
    if not rows:
        return None
    (row,) = rows
    assert (row["status"], row["state"]) in (("confirmed", "booked"), ("held", "held")), row
    return row["user_id"], row["status"]


# ---- bounds --------------------------------------------------------------------------------------


@short
def test_the_settings_are_the_bounds(cluster):
    """In whole seconds inside of what the settings say; without a wish, the default."""
    event = cluster.make_event(2, 9, "alpha")
    with Wire(cluster.http_port) as wire:
        for col, (ttl, lasts) in enumerate(((2, 2), (60, 60), (None, 4)), 1):
            held = hold(wire, event, (1, col), **({"ttlSeconds": ttl} if ttl else {}))
            assert seconds(held) == lasts, held
        held = hold(wire, event, (2, 1), ttlSeconds=60)
        for ttl in (1, 61):
            for path, body in (hold_of(event, (1, 9), ttlSeconds=ttl),
                               (one(held, "/extend"), {"userId": "ann", "ttlSeconds": ttl})):
                answer = wire.ask("POST", path, body)
                assert (answer.status, answer.code) == (422, "invalid_value"), answer
                assert "from 2 to 60" in answer.json()["detail"], answer


@short
def test_an_extension_never_shortens(cluster):
    """A wish for less is one of the few, and changes nothing; without one it is for the default."""
    event = cluster.make_event(2, 9, "alpha")
    with Wire(cluster.http_port) as wire:
        held = hold(wire, event, (1, 1), ttlSeconds=60)
        for body in ({"ttlSeconds": 2}, {}):
            answer = wire.ask("POST", one(held, "/extend"), body, ANN)
            assert answer.status == 200 and answer.json() == held, answer
        answer = wire.ask("POST", one(held, "/extend"), {"ttlSeconds": 60}, ANN)
        assert (answer.status, answer.code) == (409, "extensions_used"), answer
        assert wire.ask("GET", one(held)).json() == held


# ---- the end -------------------------------------------------------------------------------------


def test_at_its_end_one_of_all_has_the_seat(cluster):
    """Nobody sweeps: the hold is over for every reader, and exactly one of a crowd gets the seat."""
    with Session(cluster.port("alpha-1")) as session, Wire(cluster.http_port) as wire, \
            Crowd([cluster.http_port], CROWD) as crowd:
        event = cluster.make_event(1, 2, "alpha")
        held = hold(wire, event, (1, 1), (1, 2), ttlSeconds=2)
        buyers = [build("POST", *hold_of(event, (1, 1), user=f"u-{i}", ttlSeconds=60)) if i % 2 else
                  build("POST", "/book", booking(event, [(1, 1)], f"u-{i}")) for i in range(CROWD)]
        early = crowd.ask(buyers[:8])   # on a slow machine its end may be here already
        wait_over(session, held)
        if 201 not in statuses(early):
            assert wire.ask("GET", f"/events/{event}/seats").json()["seats"] == [".."]
            assert wire.ask("GET", one(held)).json()["status"] == "expired"
        answers = early + crowd.ask(buyers)
        assert statuses(answers) == [201] + [409] * (len(answers) - 1), statuses(answers)
        late = wire.ask("POST", one(held, "/confirm"), {}, ANN)
        assert (late.status, late.code) == (410, "hold_expired"), late
        assert owner(session, event)[0] != "ann"
        # The seat that nobody took is not stuck with it.
        answer = wire.ask("POST", "/book", booking(event, [(1, 2)], "u-last"))
        assert answer.status == 201, answer


def test_late_beside_a_crowd(cluster):
    """The owner confirms late, twice, while others buy: one of them all has the seats."""
    lucky = 0
    with Session(cluster.port("alpha-1")) as session, Wire(cluster.http_port) as wire, \
            Crowd([cluster.http_port], CROWD) as crowd:
        for turn in range(ROUNDS):
            event = cluster.make_event(1, 2, "alpha")
            held = hold(wire, event, (1, 1), (1, 2), ttlSeconds=2)
            wait_over(session, held)
            requests = [build("POST", *hold_of(event, (1, 1), (1, 2), user=f"u-{i}", ttlSeconds=60))
                        for i in range(CROWD)]
            mine = (turn * 7 % CROWD, turn * 11 % CROWD + 1)
            for i in mine:
                requests[i] = build("POST", one(held, "/confirm"), {}, ANN)
            answers = crowd.ask(requests)
            confirmed = statuses(answers[i] for i in set(mine))
            bought = [a.status for i, a in enumerate(answers) if i not in mine]
            assert len(set(confirmed)) == 1, answers
            if confirmed[0] == 200:
                lucky += 1
                assert set(bought) == {409} and owner(session, event) == ("ann", "confirmed")
            else:
                assert confirmed[0] == 410 and sorted(bought)[:2] == [201, 409], answers
                assert owner(session, event)[1] == "held"
    print(f"      the owner had the seats in {lucky} of {ROUNDS} rounds")


# ---- two clicks ----------------------------------------------------------------------------------


def clicks(crowd, method, path, body, key):
    """The same request of ann on every connection at once."""
    headers = {**ANN, **({"Idempotency-Key": key} if key else {})}
    return crowd.ask([build(method, path, body, headers)] * len(crowd.wires))


@short
def test_each_step_clicked_often_at_one_moment(cluster):
    """Hold, extend, confirm, cancel, under a key: one answer, which all but one tell as an earlier
    one. The extension is one of the two."""
    with Session(cluster.port("alpha-1")) as session, \
            Crowd([cluster.http_port], 8) as crowd:
        for turn in range(ROUNDS):
            event = cluster.make_event(1, 1, "alpha")

            def step(method, path, body, status):
                answers = clicks(crowd, method, path, body, f"{path}-{turn}")
                assert statuses(answers) == [status] * 8, answers
                assert len({answer.body for answer in answers}) == 1, answers
                assert marks(answers) == [""] + ["true"] * 7, answers
                return answers[0].json()
            held = step("POST", *hold_of(event, (1, 1), ttlSeconds=50), 201)
            extended = step("POST", one(held, "/extend"), {"ttlSeconds": 60}, 200)
            assert extended["expiresAt"] > held["expiresAt"], (held, extended)
            assert session.value(f"SELECT extended FROM bookings WHERE event_id = {event}") == 1
            assert step("POST", one(held, "/confirm"), {}, 200)["status"] == "confirmed"
            assert owner(session, event) == ("ann", "confirmed")
            assert step("DELETE", one(held), None, 200)["status"] == "cancelled"
            assert owner(session, event) is None


@short
def test_clicked_often_without_a_key(cluster):
    """One hold; so many extensions as there may be; confirmed once, cancelled once, told to all."""
    with Session(cluster.port("alpha-1")) as session, Crowd([cluster.http_port], 8) as crowd:
        event = cluster.make_event(1, 1, "alpha")
        answers = clicks(crowd, "POST", *hold_of(event, (1, 1), ttlSeconds=50), None)
        assert statuses(answers) == [201] + [409] * 7, answers
        (held,) = [answer.json() for answer in answers if answer.status == 201]
        answers = clicks(crowd, "POST", one(held, "/extend"), {"ttlSeconds": 60}, None)
        assert statuses(answers) == [200] * 2 + [409] * 6, answers
        for method, path, status in (("POST", one(held, "/confirm"), "confirmed"),
                                     ("DELETE", one(held), "cancelled")):
            answers = clicks(crowd, method, path, {} if method == "POST" else None, None)
            assert statuses(answers) == [200] * 8, answers
            assert {answer.json()["status"] for answer in answers} == {status}, answers
        assert owner(session, event) is None


def test_clicks_that_do_not_go_together(cluster):
    """Confirmed and released at one moment, by the owner and by others: it ends released, and only
    the owner had a say."""
    with Session(cluster.port("alpha-1")) as session, Wire(cluster.http_port) as wire, \
            Crowd([cluster.http_port], 6) as crowd:
        for _ in range(ROUNDS):
            event = cluster.make_event(1, 1, "alpha")
            held = hold(wire, event, (1, 1), ttlSeconds=50)
            eve = {"X-User-Id": "eve"}
            answers = crowd.ask([build("DELETE", one(held), None, eve),
                                 build("POST", one(held, "/confirm"), {}, ANN),
                                 build("DELETE", one(held), None, ANN),
                                 build("POST", one(held, "/confirm"), {}, eve),
                                 build("POST", one(held, "/confirm"), {}, ANN),
                                 build("POST", one(held, "/extend"), {}, eve)])
            assert [answers[i].status for i in (0, 3, 5)] == [403] * 3, answers
            assert answers[2].status == 200, answers
            for answer in (answers[1], answers[4]):
                assert answer.status == 200 or answer.code == "booking_ended", answer
            assert wire.ask("GET", one(held)).json()["status"] == "cancelled"
            assert owner(session, event) is None
            answer = wire.ask("POST", "/book", booking(event, [(1, 1)], "bob"))
            assert answer.status == 201, answer
