"""Tokens and bounds: who has seen something is never shown a state without it.

Goal: a reader who brings the token of a write sees it on every endpoint, whichever replicas lag; one
who carries the tokens of seat maps never sees time go backwards; a bound is kept or refused, never
stretched; and lagging replicas do not sink the primary. Method: two replicas, whose replay is
paused and resumed at will, a promotion, and a locked table that makes the primary slow.

SPDX-License-Identifier: MIT
"""

import concurrent.futures
import random
import time

from harness import Cluster, short, timeout, wait_until

REPLICAS = ("alpha-2", "alpha-3")
LOOSE = {"SeatGrid-Max-Staleness": "3600s"}


def replay(cluster, node, on):
    """Lets a replica's replay go on, or stops it between two records."""
    if on:
        cluster.sql(node, "SELECT pg_wal_replay_resume()")
        return
    cluster.sql(node, "SELECT pg_wal_replay_pause()")
    wait_until(lambda: cluster.value(node, "SELECT pg_get_wal_replay_pause_state()") == "paused",
               what=f"replay of {node} to be paused")


def in_rotation(cluster):
    """The replicas of alpha that serve reads with the default bound."""
    return {node for node in REPLICAS
            if cluster.metric("seatgrid_node_in_rotation", node=node) == 1}


def booked(answer):
    """{(row, col)} of a seat map."""
    assert answer.status == 200, answer
    return {(row, col) for row, line in enumerate(answer.json()["seats"], 1)
            for col, state in enumerate(line, 1) if state == "x"}


def endpoints(event, booking):
    """{name: (path, what tells from the answer's body how many seats are booked)} of the only event,
    which has two seats."""
    return {
        "seats": (f"/events/{event}/seats", lambda json: json["seats"][0].count("x")),
        "booking": (f"/events/{event}/bookings/{booking}", lambda json: len(json["seats"])),
        "event": (f"/events/{event}", lambda json: 2 - json["available"]),
        "list": ("/events", lambda json: 2 - json["events"][0]["available"]),
        "availability": (f"/events/{event}/availability", lambda json: json["booked"]),
        "tickets": ("/users/u-1/tickets", lambda json: len(json["tickets"])),
    }


@timeout(300)
def test_a_token_is_honoured_by_every_endpoint():
    """Both replicas stand still. With the token every endpoint shows the booking; with a loose bound
    alone the replicas' past is shown, and told as such; when one goes on, the token is read there."""
    with Cluster(replicas=2, settings={"reads.seatmap_recent_ms": 0}) as cluster:
        event = cluster.make_event(1, 2, "alpha")
        cluster.wait_replicas()
        for node in REPLICAS:
            replay(cluster, node, False)
        answer = cluster.book(event, [(1, 1)])
        assert answer.status == 201, answer
        token = {"SeatGrid-Token": answer.headers["SeatGrid-Token"]}
        paths = endpoints(event, answer.json()["bookingId"])
        for name, (path, count) in paths.items():
            for _ in range(3):
                shown = cluster.get(path, token)
                assert shown.status == 200 and count(shown.json()) == 1, (name, shown)
                assert "alpha-1" in shown.headers["SeatGrid-Node"], (name, shown.headers)
            if name == "booking":
                continue  # a replica that does not know it does not have the last word
            old = cluster.get(path, LOOSE)
            assert old.status == 200 and count(old.json()) == 0, (name, old)
            assert "alpha-1" not in old.headers["SeatGrid-Node"], (name, old.headers)
            assert int(old.headers["SeatGrid-Staleness"][:-2]) >= 0, (name, old.headers)
            both = cluster.get(path, {**LOOSE, **token})
            assert both.status == 200 and count(both.json()) == 1, (name, both)
        replay(cluster, "alpha-2", True)
        for name, (path, count) in paths.items():
            wait_until(lambda path=path: "alpha-2" in cluster.get(path, token)
                       .headers["SeatGrid-Node"], what=f"{name} to be read from alpha-2")
            shown = cluster.get(path, token)
            assert shown.status == 200 and count(shown.json()) == 1, (name, shown)
            assert "alpha-3" not in shown.headers["SeatGrid-Node"], (name, shown.headers)
        replay(cluster, "alpha-3", True)


@timeout(300)
def test_carried_tokens_never_go_back():
    """The replicas stop and go in turns while seats are booked. A reader takes any replica, however
    old, and brings the token of the answer before: what was booked stays booked."""
    with Cluster(replicas=2, settings={"reads.token_wait_ms": 5}) as cluster:
        event = cluster.make_event(10, 10, "alpha")
        cluster.wait_replicas()
        free = [(row, col) for row in range(1, 11) for col in range(1, 11)]
        random.shuffle(free)
        stopped = set()
        nodes = set()
        seen, token = set(), {}
        for turn in range(80):
            if turn % 4 == 0:
                node = random.choice(REPLICAS)
                replay(cluster, node, node in stopped)
                stopped ^= {node}
            answer = cluster.book(event, [free.pop()])
            assert answer.status == 201, answer
            headers = {**token, **(LOOSE if turn % 2 else {})}
            shown = cluster.get(f"/events/{event}/seats", headers)
            now = booked(shown)
            assert seen <= now, (turn, stopped, headers, shown.headers, seen - now)
            seen, token = now, {"SeatGrid-Token": shown.headers["SeatGrid-Token"]}
            nodes.add(shown.headers["SeatGrid-Node"])
        for node in stopped:
            replay(cluster, node, True)
        assert nodes & set(REPLICAS), nodes
        mine = {"SeatGrid-Token": answer.headers["SeatGrid-Token"]}
        assert len(booked(cluster.get(f"/events/{event}/seats", mine))) == 80


@timeout(300)
def test_a_token_outlives_its_timeline():
    """The primary dies and a replica is promoted: a token of the old timeline is answered by the new
    one, with the booking. A token of a timeline that nobody is on is refused, not guessed."""
    with Cluster(replicas=2, settings={"reads.deadline_ms": 1500}) as cluster:
        event = cluster.make_event(1, 5, "alpha")
        answer = cluster.book(event, [(1, 1)])
        token = {"SeatGrid-Token": answer.headers["SeatGrid-Token"]}
        assert token["SeatGrid-Token"].startswith("alpha.1.")
        cluster.wait_replicas()
        cluster.crash("alpha-1")
        cluster.sql("alpha-2", "SELECT pg_promote()")
        path = f"/events/{event}/seats"
        wait_until(lambda: cluster.get(path, token).status == 200, 60, what="a read on timeline 2")
        assert booked(cluster.get(path, token)) == {(1, 1)}
        wait_until(lambda: cluster.book(event, [(1, 2)], headers={"Idempotency-Key": "second"})
                   .status == 201, 60, what="a booking on timeline 2")
        second = cluster.book(event, [(1, 2)], headers={"Idempotency-Key": "second"})
        later = {"SeatGrid-Token": second.headers["SeatGrid-Token"]}
        assert later["SeatGrid-Token"].startswith("alpha.2."), later
        for wish in (later, token, {"SeatGrid-Token": ", ".join(
                (token["SeatGrid-Token"], later["SeatGrid-Token"]))}):
            shown = cluster.get(path, wish)
            assert booked(shown) >= ({(1, 1)} if wish is token else {(1, 1), (1, 2)}), wish
            assert shown.headers["SeatGrid-Node"] == "alpha-2", shown.headers
        refused = cluster.get(path, {"SeatGrid-Token": "alpha.7.FF"})
        assert refused.status == 503 and refused.headers["Retry-After"], refused


@timeout(300)
def test_lagging_replicas_do_not_sink_the_primary():
    """Both replicas are too old, the primary may be read from by one reader at a time, and that one
    waits for a lock. Who set a bound or brought a token waits for room and is then refused; who did
    not gets the freshest replica, its age told; and bookings elsewhere go on."""
    settings = {"reads.primary_max": 1, "workers": 1, "reads.deadline_ms": 2000,
                "reads.token_wait_ms": 10, "reads.seatmap_recent_ms": 0}
    with Cluster(replicas=2, settings=settings) as cluster:
        event = cluster.make_event(1, 5, "alpha")
        other = cluster.make_event(1, 5, "alpha")
        cluster.wait_replicas()
        for node in REPLICAS:
            replay(cluster, node, False)
        token = {"SeatGrid-Token": cluster.book(event, [(1, 1)]).headers["SeatGrid-Token"]}
        wait_until(lambda: not in_rotation(cluster), what="the replicas to leave the rotation")
        path = f"/events/{event}/seats"
        assert booked(cluster.get(path)) == {(1, 1)}  # by the primary: there is room
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            locked = pool.submit(cluster.sql, "alpha-1",
                                 "BEGIN; LOCK TABLE claims; SELECT pg_sleep(12); COMMIT")
            wait_until(lambda: cluster.value(
                "alpha-1", "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock'"
                           " AND granted AND relation = 'claims'::regclass") == "1",
                what="the lock")
            first = pool.submit(cluster.get, f"/events/{other}/seats", token)
            wait_until(lambda: cluster.value(
                "alpha-1", "SELECT count(*) FROM pg_locks WHERE NOT granted") == "1",
                what="the first reader to wait for the lock")
            strict = [pool.submit(cluster.get, path, wish) for wish in
                      (token, {"SeatGrid-Max-Staleness": "0ms"}, {**token, **LOOSE})]
            for _ in range(3):
                old = cluster.get(path)
                assert booked(old) == set() and old.headers["SeatGrid-Node"] in REPLICAS, old
                assert int(old.headers["SeatGrid-Staleness"][:-2]) > 0, old.headers
            waiting = cluster.value("alpha-1", "SELECT count(*) FROM pg_locks WHERE NOT granted")
            assert waiting == "1", waiting
            for answer in [one.result() for one in strict]:
                assert answer.status == 503 and answer.code == "overloaded", answer
                assert answer.headers["Retry-After"], answer.headers
            assert first.result().status == 503, first.result()
            locked.result()
        for wish in (token, {"SeatGrid-Max-Staleness": "0ms"}):
            wait_until(lambda wish=wish: cluster.get(path, wish).status == 200,
                       what="room at the primary")
            assert booked(cluster.get(path, wish)) == {(1, 1)}
        for source in ("fallback", "stale", "refused"):
            assert cluster.metric("seatgrid_reads_total", shard="alpha", source=source) > 0, source
        for node in REPLICAS:
            replay(cluster, node, True)


@timeout(120)
def test_a_shared_map_from_before_a_write_is_not_shown_to_its_writer():
    """A commit's record is in the primary's WAL a while before it is visible; here it waits for a
    standby that is not there. A seat map read meanwhile is served again for long, but not to who
    brings the token of that commit."""
    settings = {"reads.seatmap_recent_ms": 60000, "workers": 1}
    with Cluster(replicas=0, settings=settings) as cluster, \
            concurrent.futures.ThreadPoolExecutor(1) as pool:
        event = cluster.make_event(1, 2, "alpha")
        path = f"/events/{event}/seats"
        cluster.sql("alpha-1", "ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
        cluster.sql("alpha-1", "SELECT pg_reload_conf()")
        wait_until(lambda: cluster.value("alpha-1", "SHOW synchronous_standby_names") == "nobody",
                   what="the setting")
        writer = pool.submit(cluster.sql, "alpha-1",
                             "INSERT INTO claims (event_id, booking_id, seat_no, state)"
                             f" VALUES ({event}, gen_random_uuid(), 0, 'booked')")
        wait_until(lambda: cluster.value(
            "alpha-1", "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'") == "1",
            what="the writer to wait for a standby")
        before = cluster.get(path)
        assert booked(before) == set(), before
        cluster.sql("alpha-1", "ALTER SYSTEM RESET synchronous_standby_names")
        cluster.sql("alpha-1", "SELECT pg_reload_conf()")
        writer.result()
        lsn = cluster.value("alpha-1", "SELECT pg_current_wal_insert_lsn()")
        high, low = lsn.split("/")
        token = f"alpha.1.{int(high, 16) << 32 | int(low, 16):X}"
        print(f"before {before.headers['SeatGrid-Token']}, after {token}")
        assert booked(cluster.get(path)) == set(), "served again to who does not ask for more"
        shown = cluster.get(path, {"SeatGrid-Token": token})
        assert booked(shown) == {(1, 1)}, shown.headers


@timeout(240)
def test_a_crowd_with_tokens_is_served_by_replicas():
    """Readers right behind their writes: each sees their own booking, and almost none of them had to
    go to the primary for it."""
    with Cluster(replicas=2) as cluster:
        event = cluster.make_event(20, 20, "alpha")
        cluster.wait_replicas()

        def one(number):
            seat = (number // 20 + 1, number % 20 + 1)
            answer = cluster.book(event, [seat], f"u-{number}")
            assert answer.status == 201, answer
            token = {"SeatGrid-Token": answer.headers["SeatGrid-Token"]}
            began = time.monotonic()
            shown = cluster.get(f"/events/{event}/seats", token)
            took = time.monotonic() - began
            assert seat in booked(shown), (seat, token, shown.headers)
            return shown.headers["SeatGrid-Node"], took

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            results = list(pool.map(one, range(400)))
        nodes = [node for node, _ in results]
        times = sorted(took for _, took in results)
        print(f"by the primary {nodes.count('alpha-1')} of {len(nodes)}, "
              f"p50 {times[200] * 1000:.1f} ms, p99 {times[395] * 1000:.1f} ms")
        assert set(nodes) & set(REPLICAS), set(nodes)


@short
def test_malformed_wishes_are_refused_everywhere():
    """A token or a bound that is none is told, on every endpoint, not ignored."""
    with Cluster(replicas=0, settings={}) as cluster:
        event = cluster.make_event(1, 2, "alpha")
        booking = cluster.book(event, [(1, 1)]).json()["bookingId"]
        paths = [path for path, _ in endpoints(event, booking).values()]
        for path in [*paths, f"/events/{event}/stream"]:
            for headers in ({"SeatGrid-Token": "x"}, {"SeatGrid-Token": "alpha.1.ff"},
                            {"SeatGrid-Token": "alpha.1.FF,"}, {"SeatGrid-Token": ""},
                            {"SeatGrid-Max-Staleness": "soon"},
                            {"SeatGrid-Max-Staleness": "-1ms"}):
                answer = cluster.get(path, headers)
                assert answer.status == 400, (path, headers, answer)
                assert answer.code == "malformed_request", (path, answer)
            good = {"SeatGrid-Token": "alpha.1.FF, beta.1.FF", "SeatGrid-Max-Staleness": "0ms"}
            if not path.endswith("/stream"):
                assert cluster.get(path, good).status == 200, path
