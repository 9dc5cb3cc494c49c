"""The Lua scripts of replication/scripts on a real Redis: each change counts exactly once.

Goal: whatever is sent again, in whatever portions, by whichever consumer, the keys end as if each
change had been applied once; a consumer that was replaced changes nothing; Redis without memory
leaves nothing half done; readers can tell whether they have missed a change.
Method: a redis-server of its own; a model in Python beside it; random lists in random overlapping
portions with a fixed seed; every field of every key compared.

SPDX-License-Identifier: MIT
"""

import random

import harness
from harness import short
from redis_client import RedisError, RedisServer, sha1

FOLDER = harness.ROOT / "replication" / "scripts"
TEXTS = {name: (FOLDER / f"{name}.lua").read_text(encoding="utf-8")
         for name in ("event", "tickets", "shard")}
COUNTERS, CHANGES = "sg1:{e:12}:alpha.7", "sg1:{e:12}:alpha.7:changes"
WATCHED, LIVE = "sg1:{e:12}:watched", "sg1:{e:12}:live"
TICKETS, SHARD = "sg1:{u:ann}:alpha.7", "sg1:{s:alpha}"
HOUR_S = 3600


def place(lsn, number=1):
    """A position as text."""
    return f"{lsn:020}{number:010}"


def id_of(position):
    """The same as the id of a stream's entry."""
    return f"{int(position[:20])}-{int(position[20:])}"


class Scripts:
    """A Redis with the scripts loaded, and one connection."""

    def __init__(self, *options):
        self.server = RedisServer(*options)

    def __enter__(self):
        self.server.__enter__()
        self.redis = self.server.client()
        for text in TEXTS.values():
            assert self.redis("SCRIPT", "LOAD", text) == sha1(text)
        return self

    def __exit__(self, *_):
        self.redis.close()
        self.server.__exit__()

    def event(self, *operations, epoch=5, history=100):
        """event.lua with operations (position, a, b, what)."""
        flat = [part for operation in operations for part in operation]
        return self.redis("EVALSHA", sha1(TEXTS["event"]), 3, COUNTERS, CHANGES, WATCHED, epoch,
                          history, *flat)

    def tickets(self, *operations, epoch=5):
        """tickets.lua with operations (position, booking, event)."""
        flat = [part for operation in operations for part in operation]
        return self.redis("EVALSHA", sha1(TEXTS["tickets"]), 1, TICKETS, epoch, *flat)

    def shard(self, *arguments):
        """shard.lua."""
        return self.redis("EVALSHA", sha1(TEXTS["shard"]), 1, SHARD, *arguments)

    def counters(self):
        """total, available, held, booked as numbers."""
        return tuple(int(value) for value in
                     self.redis("HMGET", COUNTERS, "total", "available", "held", "booked"))

    def everything(self):
        """All keys with all they hold; no times."""
        dump = {}
        for key in sorted(self.redis("KEYS", "*")):
            kind = self.redis("TYPE", key)
            dump[key] = (self.redis.hash(key) if kind == "hash"
                         else self.redis("XRANGE", key, "-", "+") if kind == "stream"
                         else self.redis("GET", key), self.redis("TTL", key) > 0)
        return dump


def refused_oom(call, *arguments):
    """Did Redis refuse for lack of memory?"""
    try:
        call(*arguments)
    except RedisError as error:
        assert str(error).startswith("OOM") or "OOM command not allowed" in str(error), error
        return True
    return False


# ---- the model ------------------------------------------------------------------------------------


class EventModel:
    """What event.lua should make of operations that come once each, in order."""

    def __init__(self):
        self.fields, self.held, self.booked, self.lost = {}, 0, 0, False
        self.stays = False  # the tombstone

    def apply(self, position, first, second, what):
        """One operation."""
        if what in ("grid", "regrid"):
            if "total" not in self.fields:
                self.lost = what == "regrid" or "deleted" in self.fields
                self.held = self.booked = 0
                self.fields = {}
            self.fields.update(rows=str(first), cols=str(second), total=str(first * second))
        elif what == "gone":
            if "total" in self.fields:
                self.stays = self.lost or self.held + self.booked > 0
            self.fields, self.lost = {"deleted": "1"}, False
        elif "total" in self.fields:
            self.held += first
            self.booked += second
        self.fields["at"] = position
        if "total" in self.fields and not self.lost:
            total = int(self.fields["total"])
            self.fields.update(held=str(self.held), booked=str(self.booked),
                               available=str(total - self.held - self.booked))

    def counters(self):
        """As a line on the live channel says them."""
        return [self.fields.get(name, "0") for name in ("total", "available", "held", "booked")]


def random_operations(rng, count, again=True):
    """A life of one event: it is made first, then sold, seldom altered or deleted; and made `again`."""
    operations, lsn, number, gone = [], 1000, 1, False
    for index in range(count):
        if rng.random() < 0.5:
            lsn, number = lsn + rng.randrange(1, 50), 1
        else:
            number += rng.randrange(1, 3)
        dice = rng.random()
        if index == 0 or (dice < 0.05 and (again or not gone)):
            what = (rng.randrange(1, 40), rng.randrange(1, 40),
                    "regrid" if index and not gone else "grid")
        elif dice < 0.08:
            what, gone = (0, 0, "gone"), True
        else:
            seats = rng.sample(range(400), rng.randrange(1, 4))
            what = (rng.randrange(-3, 4), rng.randrange(-3, 4),
                    rng.choice(".hx") + ":" + ",".join(str(seat) for seat in seats))
        operations.append((place(lsn, number), *what))
    return operations


# ---- counters -------------------------------------------------------------------------------------


@short
def test_a_sale_is_counted_once():
    """Grid, hold, confirm, release; each sent twice."""
    with Scripts() as redis:
        steps = [((place(10), 4, 5, "grid"), (20, 20, 0, 0)),
                 ((place(20), 2, 0, "h:1,2"), (20, 18, 2, 0)),
                 ((place(20, 2), 0, 1, "x:7"), (20, 17, 2, 1)),
                 ((place(30), -2, 2, "x:1,2"), (20, 17, 0, 3)),
                 ((place(40), 0, -1, ".:7"), (20, 18, 0, 2)),
                 ((place(50), 5, 5, "regrid"), (25, 23, 0, 2))]
        for operation, wanted in steps:
            for _ in range(2):
                assert redis.event(operation) == 1
                assert redis.counters() == wanted
        assert redis.redis.hash(COUNTERS) == {
            "at": place(50), "epoch": "5", "total": "25", "available": "23", "held": "0",
            "booked": "2", "rows": "5", "cols": "5"}
        assert redis.redis("TTL", COUNTERS) == -1


def test_any_portions_again_change_nothing():
    """Random lists, in random overlapping portions and from earlier starts, end as applied once."""
    rng = random.Random(20261121)
    with Scripts() as redis:
        for _ in range(120):
            redis.redis("FLUSHDB")
            operations, model = random_operations(rng, rng.randrange(2, 60)), EventModel()
            for operation in operations:
                model.apply(*operation)
            done, epoch = 0, 5
            while done < len(operations):
                start = rng.randrange(0, done + 1)      # a restart, mostly: what was done comes again
                end = min(len(operations), start + rng.randrange(1, 20))
                epoch += rng.random() < 0.2
                assert redis.event(*operations[start:end], epoch=epoch) in (1, -1)
                done = max(done, end)
            model.fields["epoch"] = redis.redis("HGET", COUNTERS, "epoch")
            if model.lost:                  # how far it was followed says nothing to anybody
                model.fields["at"] = redis.redis("HGET", COUNTERS, "at")
                assert redis.event(*operations[:3], epoch=epoch) == -1
            assert redis.redis.hash(COUNTERS) == model.fields, operations
            assert (redis.redis("TTL", COUNTERS) > 0) == \
                ("deleted" in model.fields and not model.stays), operations


def test_several_of_one_position_are_one_change():
    """What shares a position counts together, and not again."""
    with Scripts() as redis:
        redis.event((place(10), 2, 2, "grid"))
        both = ((place(20), -1, 0, ".:0"), (place(20), 0, 2, "x:2,3"))
        for _ in range(2):
            redis.event(*both)
            assert redis.counters() == (4, 3, -1, 2)


@short
def test_a_replaced_consumer_changes_nothing():
    """A lower epoch is refused by every script; the same and a higher one are not."""
    with Scripts() as redis:
        redis.event((place(10), 4, 5, "grid"), epoch=10)
        redis.tickets((place(10), "b-1", 12), epoch=10)
        redis.shard("claim", 10)
        before = redis.everything()
        assert redis.event((place(20), 0, 1, "x:1"), epoch=9) == -2
        assert redis.event((place(20), 9, 9, "seed"), (place(20), 1, 1, "grid"), epoch=9) == -2
        assert redis.event((place(10), 4, 5, "grid"), epoch=9) == -2
        assert redis.tickets((place(20), "b-1", ""), epoch=9) == -2
        assert redis.tickets(("", "b-2", 12), epoch=9) == -2
        for command in (("claim", 9), ("mark", 9, 7, 100, "live"), ("tell", 9, "{}"),
                        ("switch", 9, 7, 100, 1, 77)):
            assert redis.shard(*command) == -2
        assert redis.everything() == before
        assert redis.event((place(20), 0, 1, "x:1"), epoch=10) == 1
        assert redis.event((place(30), 0, 1, "x:2"), epoch=11) == 1
        assert redis.event((place(40), 0, 1, "x:3"), epoch=10) == -2
        assert redis.counters() == (20, 18, 0, 2)


def test_deltas_without_a_key_ask_for_healing():
    """No key: nothing is written. A key that lacks a counter is one that is not there."""
    with Scripts() as redis:
        assert redis.event((place(20), 0, 1, "x:1")) == -1
        assert redis.everything() == {}
        lost = ((place(20), 0, 1, "x:1"), (place(30), 2, 3, "grid"))
        for _ in range(2):
            assert redis.event(*lost) == -1                      # a replay asks again
            assert redis.redis.hash(COUNTERS) == {
                "at": place(30), "epoch": "5", "total": "6", "rows": "2", "cols": "3"}
        redis.redis("DEL", COUNTERS)
        for _ in range(2):                                       # its grid alone says nothing
            assert redis.event((place(30), 2, 3, "regrid")) == -1
            assert redis.redis("HMGET", COUNTERS, "total", "available") == ["6", None]
        for field in ("held", "booked", "total"):
            redis.event((place(31), 0, 0, "seed"), (place(31), 2, 3, "grid"))
            redis.redis("HDEL", COUNTERS, field)
            before = redis.everything()
            assert redis.event((place(40), 0, 1, "x:1")) == -1
            assert redis.everything() == before
            assert redis.event((place(41), 1, 0, "seed"), (place(41), 2, 3, "grid")) == 1
            assert redis.counters() == (6, 5, 1, 0)
            redis.redis("DEL", COUNTERS)


def test_a_seed_replaces_what_it_covers():
    """Healing: the counters as of one position, and what came since, in one list."""
    with Scripts() as redis:
        redis.event((place(10), 4, 5, "grid"), (place(20), 0, 1, "x:1"), (place(30), 0, 1, "x:2"))
        redis.redis("HSET", COUNTERS, "booked", 17)              # drift
        healing = ((place(25, 0), 0, 1, "seed"), (place(25, 0), 4, 5, "grid"),
                   (place(30), 0, 1, "x:2"))
        before = redis.everything()
        assert redis.event(*healing[:2]) == 1                    # does not reach `at`: of no use
        assert redis.everything() == before
        for _ in range(2):
            assert redis.event(*healing) == 1
            assert redis.counters() == (20, 18, 0, 2)
        redis.event((place(40), 0, 1, "x:3"))
        assert redis.event(*healing) == 1                        # late: the key has gone on
        assert redis.counters() == (20, 17, 0, 3)
        assert redis.redis("HGET", COUNTERS, "at") == place(40)


def test_a_deleted_event_stays_deleted():
    """A tombstone takes deltas without effect, ends by itself unless something was sold, and is no
    obstacle to a new life."""
    with Scripts() as redis:
        assert redis.event((place(10), 4, 5, "grid"), (place(20), 0, 1, "x:1"),
                           (place(25), 0, -1, ".:1")) == 1
        for _ in range(2):
            assert redis.event((place(30), 0, 0, "gone")) == 1
            assert HOUR_S - 60 < redis.redis("TTL", COUNTERS) <= HOUR_S
        redis.redis("DEL", COUNTERS)
        life = [(place(10), 4, 5, "grid"), (place(20), 0, 1, "x:1"), (place(30), 0, 0, "gone")]
        for _ in range(2):
            assert redis.event(*life) == 1
            assert redis.redis.hash(COUNTERS) == {"at": place(30), "epoch": "5", "deleted": "1"}
            assert redis.redis("TTL", COUNTERS) == -1            # its bookings may be there still
        assert redis.event((place(40), 0, -1, ".:1")) == 1
        assert redis.event((place(10), 4, 5, "grid")) == 1       # a replay
        assert redis.redis.hash(COUNTERS) == {"at": place(40), "epoch": "5", "deleted": "1"}
        for _ in range(2):                                       # its answer may be lost
            assert redis.event((place(50), 1, 5, "grid")) == -1  # what is sold of it is not known
            assert redis.redis.hash(COUNTERS) == {
                "at": place(50), "epoch": "5", "total": "5", "rows": "1", "cols": "5"}
            assert redis.redis("TTL", COUNTERS) == -1
        assert redis.event((place(51), 0, 1, "x:1")) == -1
        assert redis.event((place(49), 0, 2, "seed"), (place(49), 1, 5, "grid")) == -1
        assert redis.event((place(52, 0), 0, 2, "seed"), (place(52, 0), 1, 5, "grid")) == 1
        assert redis.counters() == (5, 3, 0, 2)
        redis.redis("DEL", COUNTERS)
        assert redis.event((place(60), 0, 0, "gone")) == 1       # of a key that was not there
        assert redis.redis("HGET", COUNTERS, "deleted") == "1"
        assert redis.event((place(70), 0, 2, "seed"), (place(70), 1, 5, "grid")) == 1
        assert redis.counters() == (5, 3, 0, 2)
        assert redis.redis("TTL", COUNTERS) == -1


@short
def test_a_spoilt_key_stops_nobody():
    """A key that somebody wrote to is one that is not there: healed alone, not refused for ever."""
    with Scripts() as redis:
        spoils = [("SET", COUNTERS, "no hash"), *(("HSET", COUNTERS, field, "much") for field in
                                                  ("at", "epoch", "total", "held", "booked")),
                  ("HSET", COUNTERS, "at", "9" * 31), ("HDEL", COUNTERS, "at")]
        for spoil in spoils:
            redis.redis("DEL", COUNTERS)
            redis.event((place(10), 4, 5, "grid"), (place(20), 0, 1, "x:1"))
            redis.redis(*spoil)
            assert redis.event((place(30), 0, 1, "x:2")) == -1, spoil
            assert redis.event((place(30, 0), 0, 2, "seed"), (place(30, 0), 4, 5, "grid")) == 1
            assert redis.counters() == (20, 18, 0, 2)
        redis.redis("SET", TICKETS, "no hash")
        assert redis.tickets((place(10), "b-1", 12), (place(20), "b-2", 12)) == 1
        for field in ("at", "epoch"):
            redis.redis("HSET", TICKETS, field, "much")
            assert redis.tickets((place(30), "b-2", ""), (place(40), "b-3", 13)) == 1
            assert redis.redis.hash(TICKETS) == {"at": place(40), "epoch": "5", "b-1": "12",
                                                 "b-3": "13"}


def test_positions_are_compared_as_a_whole():
    """Above 2^53, where numbers of Lua end; place decides among equal LSNs."""
    top = 2 ** 64 - 2
    with Scripts() as redis:
        redis.redis("SET", WATCHED, 1)
        redis.event((place(top), 4, 5, "grid"))
        redis.event((place(top, 2), 0, 1, "x:1"))
        redis.event((place(top, 2), 0, 1, "x:1"))
        redis.event((place(top, 10), 0, 1, "x:2"))
        redis.event((place(top + 1), 0, 1, "x:3"))
        assert redis.event((place(top, 4294967295), 0, 1, "x:4")) == 1
        assert redis.counters() == (20, 17, 0, 3)
        assert [entry[0] for entry in redis.redis("XRANGE", CHANGES, "-", "+")] == [
            f"{top}-1", f"{top}-2", f"{top}-10", f"{top + 1}-1"]


# ---- tickets --------------------------------------------------------------------------------------


def test_tickets_in_any_portions():
    """Random additions and removals, in random overlapping portions, end as applied once."""
    rng = random.Random(7)
    with Scripts() as redis:
        for _ in range(150):
            redis.redis("FLUSHDB")
            operations, model, lsn = [], {}, 100
            for _ in range(rng.randrange(1, 40)):
                lsn += rng.randrange(0, 3)
                booking = f"b-{rng.randrange(4)}"
                event = rng.choice(("", "", 12, 13))
                position = place(lsn, len(operations) + 1)
                operations.append((position, booking, event))
                model["at"] = position
                model.pop(booking, None)
                if event:
                    model[booking] = str(event)
            model["epoch"] = "5"
            done = 0
            while done < len(operations):
                start = rng.randrange(0, done + 1)
                end = min(len(operations), start + rng.randrange(1, 12))
                assert redis.tickets(*operations[start:end]) == 1
                done = max(done, end)
            assert redis.redis.hash(TICKETS) == model, operations
            assert (redis.redis("TTL", TICKETS) > 0) == (len(model) == 2)


@short
def test_a_ticket_given_back_does_not_come_again():
    """The tombstone of an empty key; a new ticket makes it stay again."""
    with Scripts() as redis:
        for _ in range(2):
            redis.tickets((place(10), "b-1", 12), (place(20), "b-1", ""))
            assert redis.redis.hash(TICKETS) == {"at": place(20), "epoch": "5"}
        assert HOUR_S - 60 < redis.redis("TTL", TICKETS) <= HOUR_S
        redis.tickets((place(10), "b-1", 12))
        assert "b-1" not in redis.redis.hash(TICKETS)
        redis.tickets((place(30), "b-2", 12))
        assert redis.redis("TTL", TICKETS) == -1
        redis.tickets((place(40), "b-9", ""))                    # was never there
        assert redis.redis("TTL", TICKETS) == -1
        assert redis.redis.hash(TICKETS) == {"at": place(40), "epoch": "5", "b-2": "12"}


def test_mending_tickets_leaves_the_position():
    """A mend counts below `at`, too, among other operations, and on a key that is not there."""
    with Scripts() as redis:
        redis.tickets((place(50), "b-1", 12))
        redis.tickets(("", "b-2", 13), ("", "b-1", ""))
        redis.tickets((place(50), "b-1", 12))                    # a replay
        assert redis.redis.hash(TICKETS) == {"at": place(50), "epoch": "5", "b-2": "13"}
        redis.tickets(("", "b-2", ""), (place(60), "b-3", 14), ("", "b-4", 15))
        assert redis.redis.hash(TICKETS) == {"at": place(60), "epoch": "5", "b-3": "14",
                                             "b-4": "15"}
        redis.redis("DEL", TICKETS)
        redis.tickets(("", "b-1", 12))
        assert redis.redis.hash(TICKETS) == {"at": place(0, 0), "epoch": "5", "b-1": "12"}
        redis.tickets((place(10), "b-5", 12))
        assert redis.redis("HGET", TICKETS, "at") == place(10)
        redis.redis("DEL", TICKETS)
        redis.tickets((place(10), "b-1", 12), ("", "b-1", ""))
        assert redis.redis("TTL", TICKETS) > 0


# ---- the shard ------------------------------------------------------------------------------------


@short
def test_the_hash_of_a_shard():
    """claim, mark, switch, follow, tell; a mark of another generation, or after FLUSHALL, says so."""
    with Scripts() as redis:
        assert redis.shard("mark", 3, 7, 100, "live") == -3
        assert redis.everything() == {}
        assert redis.shard("claim", 3) == 1
        assert redis.shard("mark", 3, 7, 100, "live") == -3
        assert redis.redis.hash(SHARD) == {"epoch": "3"}
        system = 2 ** 64 - 1
        assert redis.shard("switch", 3, 7, 2 ** 63 + 5, 2, system) == 1
        assert redis.redis.hash(SHARD) == {
            "epoch": "3", "gen": "7", "lsn": str(2 ** 63 + 5), "timeline": "2",
            "system": str(system), "state": "live", "beat": "1"}
        assert redis.shard("mark", 3, 7, 2 ** 63 + 9, "stale") == 1
        assert redis.shard("mark", 3, 8, 1, "live") == -3
        for command in (("tell", 4, "{}"), ("mark", 4, 7, 1, "live"), ("switch", 4, 8, 1, 1, 1),
                        ("follow", 4, 7, 1, 3)):
            assert redis.shard(*command) == -3                   # 4 has not claimed it
        assert redis.shard("claim", 4) == 1
        assert redis.shard("claim", 4) == -2                     # two that drew one number
        assert redis.shard("tell", 4, '{"a": "\u00e4"}') == 1
        assert redis.shard("mark", 3, 7, 1, "live") == -2
        assert redis.redis.hash(SHARD) == {
            "epoch": "4", "gen": "7", "lsn": str(2 ** 63 + 9), "timeline": "2",
            "system": str(system), "state": "stale", "beat": "2", "status": '{"a": "\u00e4"}'}
        assert redis.shard("follow", 3, 7, 1, 3) == -2
        assert redis.shard("follow", 4, 8, 1, 3) == -3           # another generation's
        assert redis.shard("follow", 4, 7, 2 ** 63 + 8, 3) == 1  # says nothing of how live it is
        assert redis.redis.hash(SHARD) == {
            "epoch": "4", "gen": "7", "lsn": str(2 ** 63 + 8), "timeline": "3",
            "system": str(system), "state": "stale", "beat": "2", "status": '{"a": "\u00e4"}'}
        redis.redis("FLUSHALL")
        for command in (("tell", 4, "{}"), ("mark", 4, 7, 1, "live"), ("switch", 4, 8, 1, 1, 1),
                        ("follow", 4, 7, 1, 3)):
            assert redis.shard(*command) == -3
        assert redis.everything() == {}


# ---- without memory -------------------------------------------------------------------------------


@short
def test_without_memory_nothing_is_half_done():
    """Every command that writes is refused as a whole, and works as a whole later."""
    rng = random.Random(3)
    with Scripts("--maxmemory-policy", "noeviction") as redis:
        commands = [
            (redis.event, (place(30), 0, 1, "x:1"), (place(31), 1, 0, "h:2")),
            (redis.event, (place(32), 6, 5, "grid"), (place(33), 0, 0, "gone")),
            (redis.event, (place(34), 0, 1, "x:1")),                    # to the tombstone
            (redis.event, (place(35), 6, 6, "grid")),                   # out of the tombstone
            (redis.event, (place(36), 1, 2, "seed"), (place(36), 6, 6, "grid")),
            (redis.tickets, (place(30), "b-1", ""), (place(31), "b-2", 12)),
            (redis.tickets, (place(32), "b-2", "")),
            (redis.tickets, ("", "b-2", 12)),
            (redis.shard, "claim", 8), (redis.shard, "switch", 8, 8, 1, 1, 1),
            (redis.shard, "follow", 8, 8, 2, 2),
            (redis.shard, "mark", 8, 8, 2, "live"), (redis.shard, "tell", 8, "{}")]
        for watched in (False, True):
            redis.redis("FLUSHALL")
            if watched:
                redis.redis("SET", WATCHED, 1, "PX", 600000)
            redis.event((place(10), 4, 5, "grid"), (place(20), 0, 1, "x:1"))
            redis.tickets((place(10), "b-1", 12))
            redis.shard("claim", 7)
            redis.shard("switch", 7, 7, 1, 1, 1)
            for call, *arguments in commands:
                before = redis.everything()
                redis.redis("CONFIG", "SET", "maxmemory", "1")
                for _ in range(rng.randrange(1, 4)):
                    assert refused_oom(call, *arguments), (call, arguments)
                assert redis.everything() == before
                # A replay writes nothing, so it needs no memory.
                assert redis.event((place(10), 4, 5, "grid")) in (1, -1)
                redis.redis("CONFIG", "SET", "maxmemory", "0")
                assert call(*arguments) in (1, -1)
                assert redis.everything() != before


# ---- those who watch ------------------------------------------------------------------------------


class Reader:
    """Follows the lines of an event the way base/rediskeys.h says."""

    def __init__(self):
        self.last, self.lines = None, []

    def take(self, line):
        """True if nothing was missed before this line."""
        name, previous, here, *rest = line.split(" ")
        assert name == "alpha.7" and len(rest) == 5, line
        whole = self.last is None or previous == self.last
        self.last = here
        self.lines.append(line)
        return whole


@short
def test_lines_of_changes():
    """The very bytes on the channel and in the stream."""
    with Scripts() as redis, redis.server.client() as subscriber:
        subscriber("SUBSCRIBE", LIVE)

        def message():
            kind, channel, text = subscriber.read()
            assert (kind, channel) == ("message", LIVE)
            return text

        redis.event((place(10), 4, 5, "grid"))                   # nobody watches
        redis.redis("SET", WATCHED, 1, "PX", 600000)
        redis.event((place(20), 1, 1, "h:3;x:0"))
        assert message() == "alpha.7 10-1 20-1 20 18 1 1 h:3;x:0"
        redis.event((place(20), 1, 1, "h:3;x:0"), (place(20, 3), -1, 0, ".:3"),
                    (place(30), 0, 2, "x:1,2"))
        assert message() == ("alpha.7 20-1 20-3 20 19 0 1 .:3\n"
                             "alpha.7 20-3 30-1 20 17 0 3 x:1,2")
        redis.event((place(40), 4, 5, "regrid"))
        assert message() == "alpha.7 30-1 40-1 20 17 0 3 -"
        redis.event((place(50), 3, 5, "regrid"), (place(60), 0, 1, "x:9"))
        assert message() == ("alpha.7 40-1 50-1 15 12 0 3 resync\n"
                             "alpha.7 50-1 60-1 15 11 0 4 x:9")
        assert [entry for entry in redis.redis("XRANGE", CHANGES, "-", "+")][-1] == [
            "60-1", ["c", "alpha.7 50-1 60-1 15 11 0 4 x:9"]]
        assert redis.redis("XLEN", CHANGES) == 6
        assert 0 < redis.redis("PTTL", CHANGES) <= 600000
        redis.event((place(55), 1, 2, "seed"), (place(55), 3, 5, "grid"),
                    (place(60), 0, 1, "x:9"))
        assert message() == "alpha.7 60-1 60-1 15 11 1 3 resync"
        assert redis.redis("XLEN", CHANGES) == 1                 # what was before is of no use
        redis.event((place(70), 0, 0, "gone"))
        assert message() == "alpha.7 60-1 70-1 0 0 0 0 gone"
        redis.event((place(80), 0, -1, ".:9"))
        assert message() == "alpha.7 70-1 80-1 0 0 0 0 -"
        redis.event((place(90), 1, 5, "grid"))
        assert message() == "alpha.7 80-1 90-1 5 5 0 0 resync"
        assert redis.event((place(90), 1, 5, "grid")) == -1      # a replay is not told
        redis.event((place(91), 0, 0, "seed"), (place(91), 1, 5, "grid"))
        assert message() == "alpha.7 90-1 91-1 5 5 0 0 resync"
        redis.redis("DEL", WATCHED)
        redis.event((place(100), 0, 1, "x:1"))                   # nobody watches
        redis.redis("SET", WATCHED, 1)
        redis.event((place(110), 0, 1, "x:2"))
        assert message() == "alpha.7 100-1 110-1 5 3 0 2 x:2"    # so a reader of 91-1 looks again


def test_notes_of_bookings():
    """What became of a booking stands before its line, and beside it in the history."""
    booking = "01973c6e-25a1-7c7c-8f00-0123456789ab"
    with Scripts() as redis, redis.server.client() as subscriber:
        subscriber("SUBSCRIBE", LIVE)

        def lines():
            return subscriber.read()[2].split("\n")

        redis.redis("SET", WATCHED, 1)
        redis.event((place(10), 3, 5, "grid"))
        assert lines() == ["alpha.7 0-0 10-1 15 15 0 0 resync"]
        redis.event((place(20), 2, 0, f"h:4,5 {booking} held"), (place(21), 0, 1, "x:6"),
                    (place(22), -2, 0, f".:4,5 {booking} expired"),
                    (place(23), 0, 0, f"- {booking} failed"))
        assert lines() == [f"b {booking} held", "alpha.7 10-1 20-1 15 13 2 0 h:4,5",
                           "alpha.7 20-1 21-1 15 12 2 1 x:6",
                           f"b {booking} expired", "alpha.7 21-1 22-1 15 14 0 1 .:4,5",
                           f"b {booking} failed", "alpha.7 22-1 23-1 15 14 0 1 -"]
        assert redis.counters() == (15, 14, 0, 1)
        assert redis.redis("XRANGE", CHANGES, "20-1", "+") == [
            ["20-1", ["c", "alpha.7 10-1 20-1 15 13 2 0 h:4,5", "b", f"{booking} held"]],
            ["21-1", ["c", "alpha.7 20-1 21-1 15 12 2 1 x:6"]],
            ["22-1", ["c", "alpha.7 21-1 22-1 15 14 0 1 .:4,5", "b", f"{booking} expired"]],
            ["23-1", ["c", "alpha.7 22-1 23-1 15 14 0 1 -", "b", f"{booking} failed"]]]
        redis.event((place(30), 0, 0, "gone"), (place(31), 0, 1, f"x:1 {booking} confirmed"))
        assert lines() == ["alpha.7 23-1 30-1 0 0 0 0 gone",      # a sale of what is not there
                           f"b {booking} confirmed", "alpha.7 30-1 31-1 0 0 0 0 -"]
        redis.event(*[(place(40 + n), 0, 0, f"- {booking} failed") for n in range(5)], history=4)
        assert lines() == ["alpha.7 31-1 44-1 0 0 0 0 gone"]      # too many for notes


def test_readers_know_what_they_missed():
    """Random life, watched now and then: a reader who sees each PREV has seen every change."""
    rng = random.Random(99)
    with Scripts() as redis, redis.server.client() as subscriber:
        subscriber("SUBSCRIBE", LIVE)
        for _ in range(40):
            redis.redis("FLUSHDB")
            operations = random_operations(rng, 60, again=False)
            model, reader = EventModel(), Reader()
            after, watched_since = {}, None
            for operation in operations:
                model.apply(*operation)
                after[id_of(operation[0])] = model.counters()
            done = 0
            while done < len(operations):
                if rng.random() < 0.3:
                    redis.redis(*(("SET", WATCHED, 1) if rng.random() < 0.8 else ("DEL", WATCHED)))
                watched = redis.redis("EXISTS", WATCHED)
                start = rng.randrange(max(0, done - 5), done + 1)
                end = min(len(operations), start + rng.randrange(1, 9))
                redis.event(*operations[start:end])
                fresh = operations[max(start, done):end]
                done = max(done, end)
                if not watched:
                    watched_since = None
                    continue
                if not fresh:
                    continue
                lines = subscriber.read()[2].split("\n")
                assert len(lines) == len(fresh)
                for number, (line, operation) in enumerate(zip(lines, fresh)):
                    whole = reader.take(line)
                    assert whole or (number == 0 and watched_since is None)
                    assert line.split(" ")[2] == id_of(operation[0])
                    assert line.split(" ")[3:7] == after[id_of(operation[0])], line
                watched_since = True
            stream = [entry[1][1] for entry in redis.redis("XRANGE", CHANGES, "-", "+")]
            assert stream == reader.lines
        subscriber.settimeout(0.2)
        try:
            assert False, subscriber.read()                      # nothing is left over
        except TimeoutError:
            pass


def test_the_history_is_bounded():
    """Old entries go; a flood in one command is one line; a stream that is ahead is begun anew."""
    with Scripts() as redis:
        redis.redis("SET", WATCHED, 1, "PX", 600000)
        redis.event((place(1), 100, 100, "grid"))
        for lsn in range(2, 2000):
            redis.event((place(lsn), 0, 1, f"x:{lsn}"), history=50)
        assert 50 <= redis.redis("XLEN", CHANGES) <= 250
        flood = [(place(3000 + number), 0, 1, f"x:{number}") for number in range(51)]
        redis.event(*flood, history=50)
        assert redis.redis("XRANGE", CHANGES, "-", "+") == [
            ["3050-1", ["c", "alpha.7 1999-1 3050-1 10000 7951 0 2049 resync"]]]
        redis.event(*[(place(4000 + number), 0, 1, f"x:{number}") for number in range(50)],
                    history=50)
        assert redis.redis("XLEN", CHANGES) == 51
        redis.redis("XADD", CHANGES, "9000-0", "c", "of somebody else")
        assert redis.event((place(5000), 0, 1, "x:1")) == 1
        assert [entry[0] for entry in redis.redis("XRANGE", CHANGES, "-", "+")] == ["5000-1"]
        redis.redis("DEL", CHANGES)
        redis.redis("SET", CHANGES, "no stream")
        assert redis.event((place(5001), 0, 1, "x:2")) == 1
        assert redis.redis("TYPE", CHANGES) == "stream"


def test_the_keys_of_a_script_are_of_one_slot():
    """A server in cluster mode refuses a script whose keys are not."""
    with Scripts("--cluster-enabled", "yes") as redis:
        redis.redis("CLUSTER", "ADDSLOTSRANGE" if _is_7(redis) else "ADDSLOTS",
                    *((0, 16383) if _is_7(redis) else range(16384)))
        harness.wait_until(lambda: "cluster_state:ok" in redis.redis("CLUSTER", "INFO"),
                           what="the cluster of one")
        redis.redis("SET", WATCHED, 1)
        assert redis.event((place(10), 4, 5, "grid"), (place(20), 0, 1, "x:1")) == 1
        assert redis.redis("XLEN", CHANGES) == 2
        assert redis.tickets((place(10), "b-1", 12)) == 1
        assert redis.shard("claim", 1) == 1


def _is_7(redis):
    """ADDSLOTSRANGE came with Redis 7."""
    version = redis.redis("INFO", "server").split("redis_version:")[1]
    return int(version.split(".")[0]) >= 7
