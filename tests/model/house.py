"""What one client alone must be told: events, bookings and the waiting list in plain Python.

    house.take(...), change(...), order(...), join(...), leave(...)  ─> (status, code) of the answer
    house.run_out(booking)      its time is over, and who waits has been offered what came back
    best(event, free, ...)      the rule of the best seats, seat by seat

A booking is held, over (its hold has run out: its seats are free), confirmed or ended. No clock, no
I/O. Standard library only.

SPDX-License-Identifier: MIT
"""

MAX_EXTENSIONS = 3
OK = (200, None)


class Event:
    """rows x cols; tiers: {name: (price, first row, last row)}; limit: seats a user, or None."""

    def __init__(self, rows, cols, tiers=None, limit=None):
        self.rows, self.cols, self.tiers, self.limit = rows, cols, tiers or {}, limit
        self.seats = {(row, col): None for row in range(1, rows + 1) for col in range(1, cols + 1)}
        self.line = []   # of Entry, in their order

    def free(self):
        """Seats that nobody has."""
        return {seat for seat, owner in self.seats.items() if owner is None}

    def rows_of(self, tier):
        """(first, last)"""
        return self.tiers[tier][1:] if tier else (1, self.rows)

    def price(self, seats):
        """Of all of them."""
        return sum(price for row, _ in seats for price, first, last in self.tiers.values()
                   if first <= row <= last)


class Booking:
    """Seats of a user."""

    def __init__(self, event, user, seats, status):
        self.event, self.user, self.seats, self.status = event, user, list(seats), status
        self.extended, self.booking_id = 0, None


class Entry:
    """A place in the line."""

    def __init__(self, user, quantity, tier, together):
        self.user, self.quantity, self.tier, self.together = user, quantity, tier, together
        self.offer, self.left, self.entry_id = None, False, None

    def state(self):
        """As the API says."""
        if self.left:
            return "left"
        if not self.offer:
            return "waiting"
        return {"held": "offered", "confirmed": "accepted"}.get(self.offer.status, "expired")


def best(event, free, tier, quantity, together):
    """The best of these seats; None: there are none."""
    first, last = event.rows_of(tier)
    if together:
        for row in range(first, last + 1):
            runs = [start for start in range(1, event.cols - quantity + 2)
                    if all((row, start + n) in free for n in range(quantity))]
            if runs:
                start = min(runs, key=lambda s: (abs(2 * s + quantity - 2 - event.cols), s))
                return [(row, start + n) for n in range(quantity)]
        return None
    seats = sorted((seat for seat in free if first <= seat[0] <= last),
                   key=lambda seat: (seat[0], abs(2 * seat[1] - 1 - event.cols), seat[1]))
    return seats[:quantity] if len(seats) >= quantity else None


class House:
    """All events, {id: Event}."""

    def __init__(self, events):
        self.events, self.bookings = events, []

    def allowed(self, event_id, user):
        """How many more seats; None: as many as there are."""
        limit = self.events[event_id].limit
        has = sum(len(b.seats) for b in self.bookings if b.event == event_id and b.user == user
                  and b.status in ("held", "confirmed"))
        return None if limit is None else limit - has

    def fits(self, event_id, user, count):
        """May the user have so many more?"""
        allowed = self.allowed(event_id, user)
        return allowed is None or count <= allowed

    def refusal(self, event_id, user, seats):
        """Why these seats cannot be had; None: they can."""
        event = self.events[event_id]
        if any(seat not in event.seats for seat in seats):
            return 422, "unknown_seat"
        if any(event.seats[seat] for seat in seats):
            return 409, "seats_taken"
        return None if self.fits(event_id, user, len(seats)) else (409, "over_limit")

    def add(self, event_id, user, seats, status):
        """A new booking that has its seats."""
        one = Booking(event_id, user, seats, status)
        self.bookings.append(one)
        for seat in seats:
            self.events[event_id].seats[seat] = one
        return one

    def give_back(self, one, status):
        """Its seats are free, and go to who waits."""
        for seat in one.seats:
            if self.events[one.event].seats[seat] is one:
                self.events[one.event].seats[seat] = None
        one.status = status
        self.offer(one.event)

    def run_out(self, one):
        """Its hold is over."""
        self.give_back(one, "over")

    def change(self, one, kind, user, to_user=None):
        """(status, code) of confirm, extend, cancel, transfer. A cancelled one that is over may be
        told 'expired' instead: the caller looks."""
        if user != one.user:
            return 403, "not_owner"
        if kind == "cancel":
            if one.status in ("held", "confirmed"):
                self.give_back(one, "ended")
            return OK
        if one.status == "ended":
            return 409, "booking_ended"
        return getattr(self, kind)(one, to_user)

    def confirm(self, one, _):
        """Late, too."""
        if one.status == "over":
            if not self.fits(one.event, one.user, len(one.seats)):
                return 409, "over_limit"
            if any(self.events[one.event].seats[seat] for seat in one.seats):
                return 410, "hold_expired"
            for seat in one.seats:
                self.events[one.event].seats[seat] = one
        one.status = "confirmed"
        return OK

    def extend(self, one, _):
        """While it is held."""
        if one.status != "held":
            return (410, "hold_expired") if one.status == "over" else (409, "not_held")
        if one.extended == MAX_EXTENSIONS:
            return 409, "extensions_used"
        one.extended += 1
        return OK

    def transfer(self, one, to_user):
        """Of what is confirmed."""
        if one.status != "confirmed":
            return 409, "not_confirmed"
        if to_user != one.user and not self.fits(one.event, to_user, len(one.seats)):
            return 409, "over_limit"
        if to_user != one.user:
            one.user = to_user
            if self.events[one.event].limit:   # who gave it away may have more now
                self.offer(one.event)
        return OK

    def join(self, event_id, user, quantity, tier, together):
        """((status, code), entry)"""
        event = self.events[event_id]
        first, last = event.rows_of(tier)
        if (event.limit and quantity > event.limit or together and quantity > event.cols
                or quantity > (last - first + 1) * event.cols):
            return (422, "too_many_seats"), None
        for entry in event.line:
            if entry.user == user and entry.state() in ("waiting", "offered"):
                return (409, "already_waiting"), entry
        entry = Entry(user, quantity, tier, together)
        event.line.append(entry)
        self.offer(event_id)
        return (201, None), entry

    def leave(self, entry, user):
        """(status, code)"""
        if user != entry.user:
            return 403, "not_owner"
        if entry.state() == "offered":
            return 409, "seats_offered"
        entry.left = entry.left or entry.offer is None
        return 204, None

    def offer(self, event_id):
        """What is free goes to who waits, in order; whom nothing fits is passed over."""
        event = self.events[event_id]
        for entry in event.line:
            if entry.state() != "waiting" or not self.fits(event_id, entry.user, entry.quantity):
                continue
            seats = best(event, event.free(), entry.tier, entry.quantity, entry.together)
            if seats:
                entry.offer = self.add(event_id, entry.user, seats, "held")
