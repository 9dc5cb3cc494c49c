"""My tickets: one list out of many shards, whatever of them is alive.

Goal: the pages hold each ticket once and in order while shards come and go; only the shards that the
index names are asked, all of them when there is no index; a dead shard costs at most 300 ms and is
named; a booking's token brings it although neither index nor replica know it yet. Method: real
servers; the index is written by the test itself (redis_keys.py).

SPDX-License-Identifier: MIT
"""

import time

from harness import Cluster, SLOWDOWN, short, timeout, wait_until
from redis_keys import Keys

SETTINGS = {"redis.poll_ms": 20, "redis.max_staleness_ms": 60000, "reads.max_staleness_ms": 60000}
CLUSTER = {"replicas": 1, "settings": SETTINGS}


def make_event(cluster, shard, starts_at, name="Test"):
    """An event of 10 x 10 that starts then."""
    answer = cluster.post("/events", {"name": name, "startsAt": starts_at, "rows": 10, "cols": 10,
                                      "shard": shard})
    assert answer.status == 201, answer
    return answer.json()["id"]


def book(cluster, event, col, user):
    """(booking, token)"""
    answer = cluster.book(event, [(1, col), (2, col)], user)
    assert answer.status == 201, answer
    return answer.json(), answer.headers["SeatGrid-Token"]


def page(cluster, user, query="", headers=None):
    """The parsed page, checked."""
    answer = cluster.get(f"/users/{user}/tickets{query}", headers)
    assert answer.status == 200, answer
    shown = answer.json()
    assert shown["userId"] == user and shown["partial"] == bool(shown["missing"]), shown
    places = [place(ticket) for ticket in shown["tickets"]]
    assert places == sorted(set(places)), places
    return shown


def place(ticket):
    """What tickets are sorted by."""
    return ticket["startsAt"], ticket["eventId"], ticket["bookingId"]


def ids(shown):
    """The bookings of a page."""
    return [ticket["bookingId"] for ticket in shown["tickets"]]


def asked(cluster):
    """How often the nodes of each shard were asked for tickets."""
    return {shard: sum(cluster.metric("seatgrid_query_duration_seconds_count", statement="tickets",
                                      node=f"{shard}-{number}") for number in (1, 2))
            for shard in ("alpha", "beta")}


@short
def test_tickets_of_all_shards_by_start(cluster):
    """All fields; held and confirmed alone; nobody else's; none is an empty list."""
    late = make_event(cluster, "alpha", "2031-01-01T00:00:00Z", "Late")
    early = make_event(cluster, "beta", "2030-01-01T00:00:00.000001Z", "Early é")
    first, _ = book(cluster, late, 1, "fields")
    second, _ = book(cluster, early, 2, "fields")
    book(cluster, early, 3, "somebody else")
    for status, expires in (("held", "now() + interval '1 hour'"), ("held", "now()"),
                            ("cancelled", "NULL"), ("expired", "NULL"), ("failed", "NULL")):
        cluster.sql("beta", "INSERT INTO bookings (event_id, booking_id, user_id, status, seats,"
                            f" request_hash, expires_at) VALUES ({early}, gen_random_uuid(),"
                            f" 'fields', '{status}', '{{7}}', 0, {expires})")
    cluster.wait_replicas()
    shown = page(cluster, "fields")
    assert (shown["nextCursor"], shown["missing"], shown["source"]) == (None, [], "all")
    assert [ticket["status"] for ticket in shown["tickets"]].count("held") == 1
    assert len(shown["tickets"]) == 3 and ids(shown)[2] == first["bookingId"]
    mine = next(one for one in shown["tickets"] if one["bookingId"] == second["bookingId"])
    assert mine == {**second, "eventName": "Early é", "shard": "beta",
                    "startsAt": "2030-01-01T00:00:00.000001Z"}
    held = next(one for one in shown["tickets"] if one["status"] == "held")
    assert held["seats"] == [{"row": 1, "col": 8}]
    empty = page(cluster, "nobody")
    assert (empty["tickets"], empty["nextCursor"], empty["partial"]) == ([], None, False)
    answer = cluster.get("/users/somebody%20else/tickets").json()
    assert (answer["userId"], len(answer["tickets"])) == ("somebody else", 1)
    book(cluster, early, 4, "Zoë")
    cluster.wait_replicas()
    answer = cluster.get("/users/Zo%C3%AB/tickets").json()
    assert (answer["userId"], len(answer["tickets"])) == ("Zoë", 1)


def fill(cluster, user, count=23):
    """Tickets on both shards, two of each event, six of each start; gives the bookings."""
    bookings, event = [], {}
    for number in range(count):
        shard = ("alpha", "beta")[number % 2]
        if number % 4 < 2:
            event[shard] = make_event(cluster, shard, f"2030-01-{1 + number // 6:02}T00:00:00Z")
            book(cluster, event[shard], 9, "another")
        bookings.append(book(cluster, event[shard], 1 + number % 4 // 2, user)[0])
    cluster.wait_replicas()
    return bookings


@timeout(240)
def test_pages_hold_each_ticket_once(cluster):
    """For every page size; and from every place on."""
    want = {booking["bookingId"] for booking in fill(cluster, "pager")}
    whole = page(cluster, "pager", "?limit=100")
    assert set(ids(whole)) == want and whole["nextCursor"] is None
    for limit in (1, 2, 5, 22, 23, 24):
        got, cursor = [], ""
        while cursor is not None:
            shown = page(cluster, "pager", f"?limit={limit}" + (f"&cursor={cursor}" if cursor
                                                                else ""))
            assert len(shown["tickets"]) == limit or shown["nextCursor"] is None
            got += ids(shown)
            cursor = shown["nextCursor"]
        assert got == ids(whole), limit


@timeout(240)
def unless_partial(shown):
    """The page, or None: each worker finds a shard that is back by itself."""
    return None if shown["partial"] else shown


def test_a_shard_dies_between_two_pages():
    """The pages go on with what the others hold, say so, and never repeat; when the shard is back,
    they hold its tickets behind the cursor again."""
    with Cluster(replicas=0, settings=SETTINGS) as cluster:
        fill(cluster, "pager", 16)
        whole = page(cluster, "pager", "?limit=100")["tickets"]
        first = page(cluster, "pager", "?limit=4")
        assert [place(one) for one in first["tickets"]] == [place(one) for one in whole[:4]]
        cluster.crash("beta-1")
        rest = [one for one in whole[4:] if one["shard"] == "alpha"]
        second = page(cluster, "pager", f"?limit=3&cursor={first['nextCursor']}")
        assert second["missing"] == ["beta"]
        assert ids(second) == [one["bookingId"] for one in rest[:3]]
        cluster.start("beta-1")
        third = wait_until(lambda: unless_partial(
            page(cluster, "pager", f"?limit=100&cursor={second['nextCursor']}")),
            what="beta to be back")
        last = place(second["tickets"][-1])
        assert ids(third) == [one["bookingId"] for one in whole if place(one) > last]


def test_only_the_owning_shards_are_asked(cluster):
    """The index says alpha: beta is not asked, and may as well be dead. An empty index asks nobody.
    A shard whose index is not kept in step is asked in any case."""
    event = make_event(cluster, "alpha", "2030-01-01T00:00:00Z")
    booking, _ = book(cluster, event, 1, "owner")
    cluster.wait_replicas()
    with Keys(cluster) as keys:
        keys.go_live("alpha", "beta")
        keys.tickets("owner", "alpha", {booking["bookingId"]: event})
        keys.tickets("owner", "beta", {})  # a tombstone
        before = asked(cluster)
        shown = page(cluster, "owner")
        assert (ids(shown), shown["source"]) == ([booking["bookingId"]], "redis")
        after = asked(cluster)
        assert (after["alpha"] - before["alpha"], after["beta"] - before["beta"]) == (1, 0)
        assert page(cluster, "nobody")["tickets"] == []
        assert asked(cluster) == after
        keys.redis("HSET", "sg1:{s:beta}", "state", "stale")
        wait_until(lambda: page(cluster, "nobody") and asked(cluster)["beta"] > after["beta"],
                   what="the stale shard to be asked")
        assert asked(cluster)["alpha"] == after["alpha"]
        keys.redis("FLUSHALL")  # no poll in between: gone keys are not "no tickets"
        assert ids(page(cluster, "owner")) == [booking["bookingId"]]
        assert page(cluster, "owner")["source"] == "all"


@short
def test_without_redis_all_shards_are_asked():
    """Hung, then dead."""
    with Cluster(replicas=1, settings=SETTINGS) as cluster:
        bookings = [book(cluster, make_event(cluster, shard, "2030-01-01T00:00:00Z"), 1, "u-1")[0]
                    for shard in ("alpha", "beta")]
        cluster.wait_replicas()
        want = [booking["bookingId"] for booking in bookings]
        with Keys(cluster) as keys:
            keys.go_live("alpha", "beta")
            assert page(cluster, "u-1")["source"] == "redis"
            cluster.pause("redis")
            for _ in range(10):
                shown = page(cluster, "u-1")
                assert (ids(shown), shown["source"], shown["partial"]) == (want, "all", False)
            cluster.resume("redis")
            cluster.crash("redis")
            for _ in range(5):
                assert ids(page(cluster, "u-1")) == want


@timeout(240)
def test_a_dead_shard_makes_a_partial_answer_in_time():
    """Hung, which nobody has noticed yet; then known to be dead. With the index, too: who has
    tickets there alone gets an empty page that names the shard. All dead: 503."""
    with Cluster(replicas=1, settings=SETTINGS) as cluster:
        alpha = make_event(cluster, "alpha", "2030-01-01T00:00:00Z")
        beta = make_event(cluster, "beta", "2030-01-01T00:00:00Z")
        booking, _ = book(cluster, alpha, 1, "u-1")
        other, _ = book(cluster, beta, 1, "u-1")
        cluster.wait_replicas()
        took = []
        for _ in range(4):
            for node in ("beta-1", "beta-2"):
                cluster.pause(node)
            begun = time.monotonic()
            shown = page(cluster, "u-1")
            took.append(time.monotonic() - begun)
            assert shown["missing"] == ["beta"] and ids(shown) == [booking["bookingId"]], shown
            for node in ("beta-1", "beta-2"):
                cluster.resume(node)
            wait_until(lambda: len(page(cluster, "u-1")["tickets"]) == 2, what="beta to be back")
            cluster.wait_ready()
        assert min(took) < 0.3 * SLOWDOWN, took
        for node in ("beta-1", "beta-2"):
            cluster.crash(node)
        wait_until(lambda: fast_and_partial(cluster), what="beta to be missing at once")
        with Keys(cluster) as keys:
            keys.say_live("alpha", "beta")
            keys.tickets("there", "beta", {other["bookingId"]: beta})
            wait_until(lambda: page(cluster, "there")["source"] == "redis", what="the index")
            shown = page(cluster, "there")
            assert (shown["tickets"], shown["missing"]) == ([], ["beta"]), shown
        for node in ("alpha-1", "alpha-2"):
            cluster.crash(node)
        cluster.crash("redis")
        answer = cluster.get("/users/u-1/tickets")
        assert answer.code == "shard_unavailable" and "Retry-After" in answer.headers, answer


def fast_and_partial(cluster):
    """Is the shard left out without waiting for it?"""
    begun = time.monotonic()
    shown = page(cluster, "u-1")
    assert shown["missing"] == ["beta"]
    return time.monotonic() - begun < 0.1 * SLOWDOWN


@short
@timeout(240)
def test_a_token_brings_the_booking():
    """Neither the index nor the paused replica know it: without the token it is not there, with it
    it is, in the list and in the seat map; and when the replica has caught up, it is read there."""
    with Cluster(replicas=1, settings={**SETTINGS, "reads.seatmap_recent_ms": 20}) as cluster:
        event = make_event(cluster, "alpha", "2030-01-01T00:00:00Z")
        elsewhere, other_token = book(cluster, make_event(cluster, "beta", "2030-01-01T00:00:00Z"),
                                      1, "u-1")
        cluster.wait_replicas()
        with Keys(cluster) as keys:
            keys.go_live("alpha", "beta")
            cluster.sql("alpha-2", "SELECT pg_wal_replay_pause()")
            booking, token = book(cluster, event, 1, "u-1")
            assert token.startswith("alpha.1.") and other_token.startswith("beta.1.")
            assert page(cluster, "u-1")["tickets"] == []
            for tokens, want in ((token, [booking]), (f"{token}, {other_token}",
                                                      [booking, elsewhere]),
                                 ("gamma.1.FF", [])):
                shown = page(cluster, "u-1", "", {"SeatGrid-Token": tokens})
                assert ids(shown) == [one["bookingId"] for one in want], tokens
                assert not shown["partial"], tokens
            check_seats(cluster, event, {}, "..", "alpha-2")
            for _ in range(5):
                check_seats(cluster, event, {"SeatGrid-Token": token}, "x.", "alpha-1")
            wait_until(lambda: cluster.get(f"/events/{event}/seats").headers["SeatGrid-Node"] ==
                       "alpha-2", what="what the primary said not to be recent any more")
            check_seats(cluster, event, {"SeatGrid-Token": other_token}, "..", "alpha-2")
            cluster.sql("alpha-2", "SELECT pg_wal_replay_resume()")
            wait_until(lambda: cluster.get(f"/events/{event}/seats", {"SeatGrid-Token": token})
                       .headers["SeatGrid-Node"] == "alpha-2", what="the replica to have it")
            check_seats(cluster, event, {"SeatGrid-Token": token}, "x.", "alpha-2")
            assert ids(page(cluster, "u-1", "", {"SeatGrid-Token": token})) == \
                [booking["bookingId"]]


def check_seats(cluster, event, headers, want, node):
    """The first two seats, and where they were read."""
    answer = cluster.get(f"/events/{event}/seats", headers)
    assert answer.status == 200, answer
    assert (answer.json()["seats"][0][:2], answer.headers["SeatGrid-Node"]) == (want, node), answer


def test_a_repeated_request_has_a_token_too(cluster):
    """The stored answer is no older than its token says; a refusal has none."""
    event = make_event(cluster, "alpha", "2030-01-01T00:00:00Z")
    first = cluster.book(event, [(1, 1)], headers={"Idempotency-Key": "t"})
    again = cluster.book(event, [(1, 1)], headers={"Idempotency-Key": "t"})
    assert again.headers["Idempotent-Replayed"] == "true"
    shard, timeline, lsn = first.headers["SeatGrid-Token"].rsplit(".", 2)
    shard_again, timeline_again, lsn_again = again.headers["SeatGrid-Token"].rsplit(".", 2)
    assert (shard, timeline) == (shard_again, timeline_again) == ("alpha", "1")
    assert int(lsn_again, 16) >= int(lsn, 16)
    flushed = cluster.value("alpha", "SELECT pg_current_wal_insert_lsn() - '0/0'")
    assert int(lsn, 16) <= int(flushed)
    refused = cluster.book(event, [(1, 1)])
    assert refused.code == "seats_taken" and "SeatGrid-Token" not in refused.headers


def test_the_index_serves_whatever_the_plans_age(cluster):
    """The plan is made while the table is all but empty, and kept: still nothing is scanned but the
    user's own bookings when there are many."""
    event = make_event(cluster, "alpha", "2030-01-01T00:00:00Z")
    book(cluster, event, 1, "few")
    cluster.wait_replicas()
    page(cluster, "few")
    cluster.sql("alpha", "INSERT INTO bookings (event_id, booking_id, user_id, status, seats,"
                         f" request_hash) SELECT {event}, gen_random_uuid(), 'many-' || n % 10,"
                         " 'confirmed', '{7}', 0 FROM generate_series(1, 100000) n")
    cluster.sql("alpha", "ANALYZE bookings")
    cluster.wait_replicas()
    for user, most_s in (("few", 0.1), ("many-1", 1.0)):
        took = []
        for _ in range(5):
            begun = time.monotonic()
            shown = page(cluster, user, "?limit=100")
            took.append(time.monotonic() - begun)
        assert len(shown["tickets"]) == (1 if user == "few" else 100)
        assert min(took) < most_s * SLOWDOWN, (user, took)
    assert shown["nextCursor"]
    plan = "\n".join(row[0] for row in cluster.sql("alpha", TICKETS_PLAN))
    assert "bookings_user" in plan and "Seq Scan" not in plan, plan


# The statement of router/statements.c, planned as the router's sessions plan it.
TICKETS_PLAN = """
SET plan_cache_mode = force_generic_plan; SET jit = off; SET enable_seqscan = off;
PREPARE tickets AS
SELECT b.booking_id, e.name
  FROM (SELECT * FROM bookings WHERE user_id = $1::text OFFSET 0) b,
       LATERAL (SELECT * FROM events WHERE event_id = b.event_id OFFSET 0) e
 WHERE (b.status = 'confirmed' OR b.status = 'held' AND coalesce(b.expires_at > now(), true))
   AND (e.starts_at, b.event_id, b.booking_id) > ($2::timestamptz, $3::bigint, $4::uuid)
 ORDER BY e.starts_at, b.event_id, b.booking_id LIMIT $5::bigint;
EXPLAIN EXECUTE tickets('u', '-infinity', 0, '00000000-0000-0000-0000-000000000000', 21)
"""
