"""Random lives of bookings: what is done, and what is held against what.

    alone(world, seed, n)   one client: every answer is the model's (house.py), with time jumps
    crowd(world, seed, n)   many clients at once, with faults: what must hold of any order is checked
                            when all is at rest (world.py)
    again(...)              either, and a failure says how to have it again

What many do at once never comes twice in the same order: a seed of `crowd` repeats the operations,
not the moments. Standard library only.

SPDX-License-Identifier: MIT
"""

import random
import threading
import time
import uuid

from house import Event, House, best
from world import METHODS, wait_until

USERS = [f"user-{n}" for n in range(6)]
CLIENTS = 6
# shard, rows, cols, tiers, limit
EVENTS = (("alpha", 4, 6, (("front", 900, 1, 2), ("back", 250, 3, 4)), None),
          ("alpha", 3, 5, (("all", 700, 1, 3),), 4),
          ("beta", 1, 1, (), None),
          ("beta", 4, 5, (("all", 100, 1, 4),), None))
LARGER = (("alpha", 10, 12, (("front", 900, 1, 4), ("back", 250, 5, 10)), None),
          ("alpha", 6, 8, (("all", 700, 1, 6),), 5),
          ("beta", 1, 1, (), None),
          ("beta", 6, 10, (("all", 100, 1, 6),), None))


def seats_json(seats):
    """As the API has them."""
    return [{"row": row, "col": col} for row, col in seats]


def seats_of(booking):
    """The opposite."""
    return [(seat["row"], seat["col"]) for seat in booking["seats"]]


def make_events(world, events, house=None):
    """Fresh ones: their ids."""
    ids = []
    for shard, rows, cols, tiers, limit in events:
        ids.append(world.make_event(shard, rows, cols, tiers, limit))
        if house:
            house.events[ids[-1]] = Event(rows, cols, {name: rest for name, *rest in tiers}, limit)
    return ids


# ---- one client ----------------------------------------------------------------------------------


class Alone:
    """Each method does one operation and holds the answer against the model's."""

    def __init__(self, world, seed):
        self.world, self.rng, self.house = world, random.Random(seed), House({})
        self.ids = make_events(world, EVENTS, self.house)
        self.seen = {}

    def step(self):
        """One operation at random."""
        kind = self.rng.choices(("take", "best", "change", "order", "join", "leave", "jump"),
                                (8, 4, 12, 3, 3, 1, 3))[0]
        getattr(self, kind)()

    def ask(self, expected, method, path, body, user, **more):
        """The answer, which must have this (status, code)."""
        key = str(uuid.UUID(int=self.rng.getrandbits(128)))
        answer = self.world.ask(method, path, body, user, key, **more)
        if answer.status == 202:    # an order that takes its time: the key tells how it ended
            def ended():
                found = self.world.ask(method, path, body, user, key, **more)
                return found.status != 202 and found
            answer = wait_until(ended, 60, what=f"the end of {path}")
        told = answer.status, answer.code
        assert told == expected, (method, path, body, user, "model:", expected, "told:", answer)
        self.seen[expected] = self.seen.get(expected, 0) + 1
        return answer

    def pick(self):
        """(event id, its Event, a user)"""
        event = self.rng.choice(self.ids)
        return event, self.house.events[event], self.rng.choice(USERS)

    def some_seats(self, event):
        """A few; rarely one that is none."""
        if self.rng.random() < 0.03:
            return [(event.rows + 1, 1)]
        return self.rng.sample(sorted(event.seats), min(self.rng.choice((1, 1, 2, 3)), len(event.seats)))

    def take(self):
        """Books or holds."""
        event_id, event, user = self.pick()
        seats = self.some_seats(event)
        refusal = self.house.refusal(event_id, user, seats)
        body = {"userId": user, "seats": seats_json(seats)}
        held = self.rng.random() < 0.6
        path = f"/events/{event_id}/holds" if held else "/book"
        body.update({"ttlSeconds": 600} if held else {"eventId": event_id})
        answer = self.ask(refusal or (201, None), "POST", path, body, user)
        if not refusal:
            self.made(self.house.add(event_id, user, seats, "held" if held else "confirmed"), answer)
        elif refusal[1] == "seats_taken":
            conflicts = {(seat["row"], seat["col"]) for seat in answer.json()["conflicts"]}
            assert conflicts == {seat for seat in seats if event.seats.get(seat)}, answer

    def made(self, one, answer):
        """The booking as it was told."""
        told = answer.json()
        one.booking_id = told["bookingId"]
        assert seats_of(told) == one.seats and told["userId"] == one.user, (told, vars(one))
        assert told["status"] == one.status, told
        event = self.house.events[one.event]
        assert told.get("amount", 0) == event.price(one.seats), told

    def best(self):
        """Some of a tier: if the model finds such seats, so must the program, and the other way."""
        event_id, event, user = self.pick()
        tier = self.rng.choice([None, *event.tiers])
        quantity, together = self.rng.choice((1, 2, 2, 3, 4)), self.rng.random() < 0.6
        wish = {"quantity": quantity, "together": together, **({"tier": tier} if tier else {})}
        answer = self.world.ask("POST", f"/events/{event_id}/holds",
                                {"userId": user, "best": [wish], "ttlSeconds": 600}, user,
                                str(uuid.UUID(int=self.rng.getrandbits(128))))
        free = event.free()
        there = best(event, free, tier, quantity, together)
        fits = self.house.fits(event_id, user, quantity)
        if answer.status == 201:
            seats = seats_of(answer.json())
            first, last = event.rows_of(tier)
            assert there and fits and set(seats) <= free and len(seats) == quantity, (wish, answer)
            assert all(first <= row <= last for row, _ in seats), (wish, answer)
            assert not together or (len({row for row, _ in seats}) == 1 and
                                    [col for _, col in seats] == list(range(seats[0][1],
                                                                            seats[0][1] + quantity)))
            self.made(self.house.add(event_id, user, seats, "held"), answer)
            if seats != there:
                self.seen["other seats"] = self.seen.get("other seats", 0) + 1
        elif answer.code == "over_limit":
            assert not fits, (wish, answer)
        else:
            enough = len([seat for seat in free if event.rows_of(tier)[0] <= seat[0]
                          <= event.rows_of(tier)[1]]) >= quantity
            assert not there, (wish, "there are", there, answer)
            assert answer.code == ("not_together" if enough else "sold_out"), (wish, answer)
        self.seen[answer.status, answer.code] = self.seen.get((answer.status, answer.code), 0) + 1

    def change(self):
        """One of confirm, extend, cancel, transfer, mostly by the owner."""
        known = [one for one in self.house.bookings if one.booking_id]
        if not known:
            return
        one = self.rng.choice(known[-25:])
        kind = self.rng.choice(("confirm", "confirm", "extend", "cancel", "cancel", "transfer"))
        user = one.user if self.rng.random() < 0.9 else self.rng.choice(USERS)
        to_user = self.rng.choice(USERS)
        was = one.status
        expected = self.house.change(one, kind, user, to_user)
        path = f"/events/{one.event}/bookings/{one.booking_id}"
        if kind == "cancel":
            answer = self.ask(expected, "DELETE", f"{path}?userId={user}", None, user)
            if answer.status == 200 and was == "over" and answer.json()["status"] == "cancelled":
                one.status = "ended"
            self.offers(one.event)
            return
        body = {"userId": user, **({"toUserId": to_user} if kind == "transfer" else {}),
                **({"ttlSeconds": 600} if kind == "extend" else {})}
        answer = self.ask(expected, "POST", f"{path}/{kind}", body, user)
        if answer.status == 200:
            assert answer.json()["status"] == one.status and answer.json()["userId"] == one.user, answer
        self.offers(one.event)

    def order(self):
        """Paid at once, or declined."""
        event_id, event, user = self.pick()
        seats = self.some_seats(event)
        refusal = self.house.refusal(event_id, user, seats)
        method = self.rng.choice(("ok", "ok", "decline", "duplicate"))
        declined = method == "decline" and event.price(seats) > 0
        answer = self.ask(refusal or ((402, "payment_declined") if declined else (201, None)), "POST",
                          f"/events/{event_id}/orders",
                          {"userId": user, "seats": seats_json(seats), "payment": {"method": method}},
                          user)
        if not refusal:
            one = self.house.add(event_id, user, seats, "confirmed")
            if declined:
                self.house.give_back(one, "ended")
                self.offers(event_id)
            else:
                told = answer.json()
                assert told["state"] == "confirmed" and told["amount"] == event.price(seats), told
                assert seats_of(told["booking"]) == seats, told
                one.booking_id = told["orderId"]

    def join(self):
        """The waiting list."""
        event_id, event, user = self.pick()
        tier = self.rng.choice([None, None, *event.tiers])
        quantity, together = self.rng.choice((1, 1, 2, 5)), self.rng.random() < 0.5
        expected, entry = self.house.join(event_id, user, quantity, tier, together)
        answer = self.ask(expected, "POST", f"/events/{event_id}/waitlist",
                          {"userId": user, "quantity": quantity, "together": together,
                           **({"tier": tier} if tier else {})}, user)
        if answer.status == 201:
            entry.entry_id = answer.json()["entryId"]
        elif entry:
            assert answer.json()["entryId"] == entry.entry_id, answer
        self.offers(event_id)

    def leave(self):
        """Whoever has a place."""
        places = [(event_id, entry) for event_id in self.ids
                  for entry in self.house.events[event_id].line]
        if places:
            event_id, entry = self.rng.choice(places)
            user = entry.user if self.rng.random() < 0.8 else self.rng.choice(USERS)
            self.ask(self.house.leave(entry, user), "DELETE",
                     f"/events/{event_id}/waitlist/{entry.entry_id}?userId={user}", None, user)

    def jump(self):
        """A hold runs out. Where somebody waits the sweeper has to be through before the next."""
        held = [one for one in self.house.bookings if one.status == "held" and one.booking_id]
        if not held:
            return
        one = self.rng.choice(held)
        self.world.jump(self.world.events[one.event][0], f"b.booking_id = '{one.booking_id}'")
        if any(entry.state() == "waiting" for entry in self.house.events[one.event].line):
            self.world.wait_swept()
        self.house.run_out(one)
        self.offers(one.event)

    def offers(self, event_id):
        """Every place in the line stands where the model has it."""
        line = self.house.events[event_id].line
        waiting = [entry for entry in line if entry.state() == "waiting"]
        for entry in line:
            path = f"/events/{event_id}/waitlist/{entry.entry_id}"

            def agrees(entry=entry, path=path):
                told = self.world.ask("GET", path).json()
                return told["state"] == entry.state() and told
            # 'accepted' of what was confirmed late, 'expired' of what was confirmed after that
            if entry.offer is None or entry.offer.booking_id is None:
                try:
                    told = wait_until(agrees, 30, what=f"the place {path}")
                except AssertionError as error:
                    raise AssertionError(f"{path}: model {entry.state()},"
                                         f" told {self.world.ask('GET', path).json()}") from error
                if entry.state() == "waiting":
                    assert told["position"] == waiting.index(entry) + 1, told
                elif entry.offer:
                    entry.offer.booking_id = told["bookingId"]
                    booking = self.world.ask(
                        "GET", f"/events/{event_id}/bookings/{told['bookingId']}").json()
                    assert sorted(seats_of(booking)) == sorted(entry.offer.seats), (
                        booking, entry.offer.seats)

    def compare(self):
        """Every seat has the model's owner."""
        for event_id in self.ids:
            rows = self.world.sql(self.world.events[event_id][0], f"""
                SELECT booking_id, unnest(seats) AS seat FROM bookings WHERE event_id = {event_id}
                   AND (status = 'confirmed' OR status = 'held' AND expires_at > now())""")
            event = self.house.events[event_id]
            found = {(row["seat"] // event.cols + 1, row["seat"] % event.cols + 1): row["booking_id"]
                     for row in rows}
            wanted = {seat: one.booking_id for seat, one in event.seats.items() if one}
            assert found == wanted, (event_id, found, wanted)


def alone(world, seed, operations):
    """One client."""
    one = Alone(world, seed)
    for number in range(operations):
        try:
            one.step()
            if number % 25 == 24:
                one.compare()
        except AssertionError as error:
            raise AssertionError(f"operation {number}: {error}") from error
    one.compare()
    world.rest()
    world.check()
    return one.seen


# ---- a crowd -------------------------------------------------------------------------------------


class Client(threading.Thread):
    """One of many: operation after operation, each to its final answer."""

    def __init__(self, world, seed, ids, operations, bookings, queue):
        super().__init__(daemon=True)
        self.world, self.rng, self.ids, self.operations = world, random.Random(seed), ids, operations
        self.bookings = bookings   # (event, booking_id, user), of all clients
        self.queue = queue
        self.journal, self.locations, self.error, self.stop = [], {}, None, False

    def run(self):
        try:
            while self.operations > 0 or not self.stop:
                self.step()
                self.operations -= 1
        except Exception as error:  # pylint: disable=broad-except
            self.error = error

    def step(self):
        """One at random."""
        kind = self.rng.choices(("take", "change", "order", "join", "leave", "queued"),
                                (8, 12, 5, 2, 1, 4 if self.queue else 0))[0]
        getattr(self, kind)()

    def ask(self, method, path, body, user, kind, event, **more):
        """The answer, noted; sometimes asked twice at the same moment, for one answer."""
        key = str(uuid.UUID(int=self.rng.getrandbits(128)))
        twin = self.rng.random() < 0.1 and Twin(self.world, method, path, body, user, key, more)
        answer = self.world.ask(method, path, body, user, key, **more)
        if twin:
            other = twin.answer()
            names = ("bookingId", "orderId", "entryId")
            if answer.status < 300 and other.status < 300 and answer.body:
                both = [{name: one.json().get(name) for name in names} for one in (answer, other)]
                assert both[0] == both[1], (answer, other)
            if other.status < 300 <= answer.status:
                answer = other   # the first was refused, then the same got what it wanted
        if kind:
            self.journal.append((kind, event, key, answer, None))
        return answer

    def wanted(self, event):
        """Seats, or the best."""
        _, rows, cols = self.world.events[event]
        if self.rng.random() < 0.4:
            return {"best": [{"quantity": self.rng.choice((1, 2)),
                              "together": self.rng.random() < 0.5}]}
        places = [(row, col) for row in range(1, rows + 1) for col in range(1, cols + 1)]
        count = min(len(places), self.rng.choice((1, 1, 2, 3)))
        return {"seats": seats_json(self.rng.sample(places, count))}

    def take(self):
        """Books or holds."""
        event, user = self.rng.choice(self.ids), self.rng.choice(USERS)
        body = {"userId": user, **self.wanted(event)}
        if self.rng.random() < 0.6:
            path = f"/events/{event}/holds"
            body["ttlSeconds"] = self.rng.choice((1, 2, 600))
        else:
            path, body["eventId"] = "/book", event
        answer = self.ask("POST", path, body, user, "take", event)
        if answer.status == 201:
            self.bookings.append((event, answer.json()["bookingId"], user))

    def change(self):
        """Somebody changes a booking that is still theirs, or was."""
        if not self.bookings:
            return
        event, booking, user = self.rng.choice(self.bookings[-40:])
        kind = self.rng.choice(("confirm", "extend", "cancel", "cancel", "cancel", "transfer"))
        path = f"/events/{event}/bookings/{booking}"
        if kind == "cancel":
            answer = self.ask("DELETE", f"{path}?userId={user}", None, user, "change", event)
        else:
            to_user = self.rng.choice(USERS)
            body = {"userId": user, **({"toUserId": to_user} if kind == "transfer" else {}),
                    **({"ttlSeconds": self.rng.choice((1, 600))} if kind == "extend" else {})}
            answer = self.ask("POST", f"{path}/{kind}", body, user, "change", event)
            if kind == "transfer" and answer.status == 200:
                self.bookings.append((event, booking, to_user))
        assert answer.status in (200, 403, 409, 410), answer

    def order(self):
        """Paid for, one way or another."""
        event, user = self.rng.choice(self.ids), self.rng.choice(USERS)
        body = {"userId": user, **self.wanted(event),
                "payment": {"method": self.rng.choice((*METHODS, "any", "any"))}}
        answer = self.ask("POST", f"/events/{event}/orders", body, user, "order", event,
                          later=self.rng.random() < 0.3)
        assert answer.status in (201, 202, 402, 409, 410, 422), answer
        if answer.status in (201, 202):
            self.bookings.append((event, answer.json()["orderId"], user))

    def queued(self):
        """Accepted for later."""
        event, user = self.rng.choice(self.ids), self.rng.choice(USERS)
        wanted = self.wanted(event)
        if "best" not in wanted:
            answer = self.ask("POST", "/book", {"userId": user, "eventId": event, **wanted}, user,
                              None, event, later=True)
            if answer.status == 202:
                self.locations[answer.headers["Location"]] = event

    def join(self):
        """The waiting list; the offer that stands is taken up or given back."""
        event, user = self.rng.choice(self.ids), self.rng.choice(USERS)
        answer = self.ask("POST", f"/events/{event}/waitlist",
                          {"userId": user, "quantity": self.rng.choice((1, 1, 2)),
                           "together": False}, user, "join", event)
        assert answer.status in (201, 409, 422), answer
        if answer.status != 422:
            entry = answer.json()["entryId"]
            found = self.world.ask("GET", f"/events/{event}/waitlist/{entry}").json()
            if found["state"] == "offered":
                self.bookings.append((event, found["bookingId"], user))

    def leave(self):
        """Whoever waits on some event."""
        event = self.rng.choice(self.ids)
        rows = self.world.sql(self.world.events[event][0],
                              f"SELECT entry_id, user_id FROM waitlist WHERE event_id = {event}"
                              f" AND state IN ('waiting', 'offered') ORDER BY place LIMIT 1")
        for row in rows:
            answer = self.ask("DELETE", f"/events/{event}/waitlist/{row['entry_id']}"
                                        f"?userId={row['user_id']}", None, row["user_id"], None, event)
            assert answer.status in (204, 409), answer


class Twin(threading.Thread):
    """The same request once more, at the same moment."""

    def __init__(self, world, method, path, body, user, key, more):
        super().__init__(daemon=True)
        self.call = lambda: world.ask(method, path, body, user, key, **more)
        self.result = None
        self.start()

    def run(self):
        try:
            self.result = self.call()
        except Exception as error:  # pylint: disable=broad-except
            self.result = error

    def answer(self):
        """What it was told."""
        self.join()
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


def crowd(world, seed, operations):
    """Many clients, for so many operations at least and until every fault has come."""
    rng, ids, bookings = random.Random(seed), make_events(world, LARGER), []
    clients = [Client(world, seed + 1 + n, ids, operations // CLIENTS, bookings, world.queue)
               for n in range(CLIENTS)]
    for client in clients:
        client.start()
    faults = world.deck(rng)
    while not any(client.error for client in clients) and (
            faults or any(client.operations > 0 for client in clients)):
        time.sleep(rng.uniform(0.2, 1))
        faults = faults or world.deck(rng)
        world.fault(faults.pop(), rng)
    for client in clients:
        client.stop = True
        if any(client.error for client in clients):
            client.operations = 0
    for client in clients:
        client.join()
    errors = [client.error for client in clients if client.error]
    if errors:
        raise AssertionError(f"{len(errors)} clients failed: {errors[0]!r}") from errors[0]
    ends = world.rest([location for client in clients for location in client.locations])
    journal = [entry for client in clients for entry in client.journal]
    journal += [("queued", client.locations[location], None, None, ends[location])
                for client in clients for location in client.locations]
    world.check()
    world.check_journal(journal)
    world.end_holds()
    world.check()
    seen = {}
    for kind, _, _, answer, end in journal:
        name = (kind, answer.status if answer else end["status"], answer.code if answer else None)
        seen[name] = seen.get(name, 0) + 1
    return seen


def again(seed, operations, life, world):
    """alone() or crowd(); an AssertionError says how to have it again."""
    try:
        return life(world, seed, operations)
    except AssertionError as error:
        raise AssertionError(f"run it again: python3 tests/model/run.py --{life.__name__} --seed {seed}"
                             f" --operations {operations}{' --queue' if world.queue else ''}\n{error}"
                             ) from error
