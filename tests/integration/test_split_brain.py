"""Two primaries: whoever is not the shard's newest one gets no write from anybody who can know it.

Goal: a primary that was replaced is never written to, whether it was fenced, or died and came back
writable; and two routers with different maps never both confirm one seat. Method: clusters with
two primaries of one shard at the same time, made on purpose; a second router that knows of one
only; afterwards the tables of both servers are read.

A dead primary that came back is fenced by the first router that sees its successor, too, so that
even a router that knows only the old one is refused. Before that, with durability sync, it confirms
nothing either, since that server waits for a standby and has none.

SPDX-License-Identifier: MIT
"""

import re

from harness import Cluster, timeout, wait_until
from switching import done, fence, primary, wait_whole

# Short deadlines, since refused bookings wait for them.
SETTINGS = {"booking.deadline_ms": 3000}


def map_without(cluster, *nodes):
    """The cluster's shard map, as somebody has it who never heard of these nodes."""
    text = (cluster.var / "shardmap.cfg").read_text(encoding="utf-8")
    for node in nodes:
        assert node in text, text
        text = re.sub(r"\{[^{}]*name = \"" + node + r"\"[^{}]*\}\s*,?", "", text)
        assert node not in text, text
    return re.sub(r",(\s*\))", r"\1", text)


def rows(cluster, node, event):
    """Bookings of the event that this server has, by seat."""
    return dict(cluster.sql(node, f"SELECT s, user_id FROM bookings, unnest(seats) s"
                                  f" WHERE event_id = {event} AND status = 'confirmed'"))


def guard(cluster, node, durability="async"):
    """What this server says to a write with any epoch that there can be."""
    return {cluster.sql(node, f"SET seatgrid.durability = '{durability}'; BEGIN;"
                              f" SELECT write_guard({epoch}); COMMIT")[-1][0]
            for epoch in range(1, 9)}


@timeout(300)
def test_the_old_primary_stays_fenced_until_it_rejoins():
    """For ever, over restarts, for every epoch, and for a router that knows only this node."""
    settings = SETTINGS | {"switchover.rejoin_command": ""}
    with Cluster(replicas=1, settings=settings) as cluster:
        wait_whole(cluster, "alpha")
        event = cluster.make_event(1, 10, "alpha")
        switch = done(cluster, "alpha")
        assert any("alpha-1 has to follow alpha-2" in note for note in switch.json["notes"]), switch
        assert cluster.book(event, [(1, 1)]).status == 201
        cluster.stop("alpha-1")
        cluster.start("alpha-1", force=True)
        assert cluster.value("alpha-1", "SELECT pg_is_in_recovery()") == "f"
        assert fence(cluster, "alpha-1") == "infinity"
        assert guard(cluster, "alpha-1") == {"fenced"}
        with cluster.serve_beside(map_without(cluster, "alpha-2")) as stray:
            stray.wait_ready("/healthz")
            answer = stray.book(event, [(1, 2)], user="stray")
            assert answer.status == 503, answer
        assert "stray" not in rows(cluster, "alpha-1", event).values()
        assert cluster.book(event, [(1, 3)]).status == 201
        assert set(rows(cluster, "alpha-2", event)) == {"0", "2"}
        cluster.rejoin("alpha-1")
        wait_whole(cluster, "alpha")
        assert set(rows(cluster, "alpha-1", event)) == {"0", "2"}


@timeout(300)
def test_a_dead_primary_that_comes_back_writable_is_refused():
    """It is up and of the past: no write goes there, it is fenced, and people are told."""
    with Cluster(replicas=2, settings=SETTINGS) as cluster:
        wait_whole(cluster, "alpha")
        event = cluster.make_event(1, 20, "alpha")
        cluster.crash("alpha-1")
        cluster.promote("alpha-2")
        assert primary(cluster, "alpha") == "alpha-2"
        wait_until(lambda: cluster.book(event, [(1, 1)]).status in (201, 409), 60,
                   what="bookings to go on")
        cluster.start("alpha-1", force=True)
        assert cluster.value("alpha-1", "SELECT pg_is_in_recovery()") == "f"
        old = cluster.value("alpha-1", "SELECT count(*) FROM bookings")
        for seat in range(2, 10):
            answer = cluster.book(event, [(1, seat)])
            assert answer.status == 201, answer
        assert cluster.value("alpha-1", "SELECT count(*) FROM bookings") == old
        assert set(rows(cluster, "alpha-2", event)) == {str(seat) for seat in range(9)}
        wait_until(lambda: "PRIMARY REFUSED" in cluster.log(), 20, what="the log to tell")
        wait_until(lambda: fence(cluster, "alpha-1") == "hand", 20, what="it to be fenced")
        assert guard(cluster, "alpha-1") == {"fenced"}
        assert fence(cluster, "alpha-2") == ""


def two_primaries(cluster, event):
    """alpha-1 died and came back writable, alpha-2 was promoted meanwhile; both have the event."""
    cluster.crash("alpha-1")
    cluster.promote("alpha-2")
    wait_until(lambda: cluster.book(event, [(1, 1)]).status in (201, 409), 60,
               what="bookings to go on")
    cluster.start("alpha-1", force=True)


@timeout(300)
def test_sync_never_confirms_a_seat_twice():
    """The router that knows only the old primary gets no confirmation from it."""
    with Cluster(replicas=2, durability="sync", settings=SETTINGS) as cluster:
        wait_whole(cluster, "alpha")
        event = cluster.make_event(1, 20, "alpha")
        two_primaries(cluster, event)
        with cluster.serve_beside(map_without(cluster, "alpha-2", "alpha-3")) as stray:
            stray.wait_ready("/healthz")
            for seat in (2, 3):
                strays = stray.book(event, [(1, seat)], user="stray")
                assert strays.status == 503, strays
                assert cluster.book(event, [(1, seat)], user="ours").status == 201
        wait_until(lambda: set(rows(cluster, "alpha-2", event)) == {"0", "1", "2"}, 20,
                   what="our seats")
        assert "stray" not in rows(cluster, "alpha-2", event).values()


@timeout(300)
def test_async_two_routers_agree_when_they_can():
    """Both know both nodes: only the newer is written to, whoever looks. They have fenced the old
    one, so a router that knows only that is refused there; its rejoin takes the fence away."""
    with Cluster(replicas=1, settings=SETTINGS) as cluster:
        wait_whole(cluster, "alpha")
        event = cluster.make_event(1, 20, "alpha")
        two_primaries(cluster, event)
        with cluster.serve_beside() as second:
            second.wait_ready("/readyz")
            for seat in (2, 3, 4):
                answers = [router.book(event, [(1, seat)], user=user) for router, user in
                           ((second, "second"), (cluster, "first"))]
                assert [answer.status for answer in answers] == [201, 409], answers
        assert set(rows(cluster, "alpha-1", event)) <= {"0"}
        wait_until(lambda: fence(cluster, "alpha-1") == "hand", 20, what="it to be fenced")
        with cluster.serve_beside(map_without(cluster, "alpha-2")) as stray:
            stray.wait_ready("/healthz")
            answer = stray.book(event, [(1, 5)], user="stray")
            assert answer.status == 503, answer
        for node in ("alpha-1", "alpha-2"):
            assert "stray" not in rows(cluster, node, event).values()
        cluster.rejoin("alpha-1")
        wait_whole(cluster, "alpha")
        assert fence(cluster, "alpha-1") == fence(cluster, "alpha-2") == ""
        assert rows(cluster, "alpha-1", event) == rows(cluster, "alpha-2", event)
