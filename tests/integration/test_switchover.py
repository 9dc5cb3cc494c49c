"""`seatgrid switchover`: another node becomes the primary, and clients do not notice.

Goal: no booking fails, none is lost, no seat is sold twice, however often it is done and wherever
its operator dies; what cannot be done is refused with its reason or undone, and leaves nothing
behind. Method: the command on a running cluster, under a light load whose every answer is laid
beside the tables; for the failures it is stopped before a step, then something breaks, then it is
resumed or killed.

SPDX-License-Identifier: MIT
"""

import signal

import switching
from harness import Cluster, short, timeout, wait_until
from switching import Paused, done, fence, nothing_left, primary, run, wait_whole
from traffic import Traffic

CLUSTER = {"replicas": 2}
# Who is told to follow does so in time also on a slow machine.
PATIENT = {"switchover.lead_ms": 100000, "switchover.promote_ms": 100000}


def other(cluster, shard):
    """A node that is not its primary."""
    leader = primary(cluster, shard)
    return next(node for node in cluster.nodes(shard) if node != leader)


class Buyer:
    """Buys the seats of an event of its own, one after the other; writes may have to wait."""

    def __init__(self, cluster, shard):
        self._cluster, self._sold = cluster, 0
        wait_whole(cluster, shard)
        self.event = cluster.make_event(2, 50, shard)

    def buys(self, count=1):
        """All confirmed."""
        for _ in range(count):
            self._sold += 1
            answer = self._cluster.book(self.event, [(1, self._sold)])
            assert answer.status == 201, answer


def check_all_good(traffic, cluster):
    """Not one booking failed, and all that was confirmed is there."""
    traffic.check_answers()
    bad = [r for r in traffic.select(kind="book") if r.status not in (201, 409)]
    assert not bad, (traffic.counts(), bad[:5])
    traffic.check_tables(cluster)


# ---- as it should be -----------------------------------------------------------------------------


@timeout(400)
def test_there_and_back_under_load(cluster):
    """Twice in a row, the second as soon as the first is over; nobody notices."""
    wait_whole(cluster, "alpha")
    first = primary(cluster, "alpha")
    epoch = int(cluster.value(first, "SELECT epoch FROM shard_meta"))
    with Traffic(cluster, bookers=2, pause=0.01) as traffic:
        traffic.wait_for(20, shard="alpha")
        switch = done(cluster, "alpha")
        second = switch.json["to"]
        assert switch.json["from"] == first and second != first, switch
        assert switch.json["epoch"] == epoch + 1 and switch.json["pauseMs"] > 0, switch
        back = done(cluster, "alpha", "--to", first)
        assert (back.json["from"], back.json["to"]) == (second, first), back
        assert back.json["timeline"] == switch.json["timeline"] + 1, back
        traffic.wait_for(20, shard="alpha")
        traffic.wait_for(5, shard="beta")
    check_all_good(traffic, cluster)
    assert primary(cluster, "alpha") == first
    wait_whole(cluster, "alpha")
    nothing_left(cluster, "alpha")


def upstream(cluster, node):
    """The port that it streams from."""
    return cluster.value(node, "SELECT coalesce((SELECT sender_port FROM pg_stat_wal_receiver"
                               " WHERE status = 'streaming'), 0)")


def slots(cluster, node):
    """The names of its slots."""
    return {row[0] for row in cluster.sql(node, "SELECT slot_name FROM pg_replication_slots")}


@timeout(400)
def test_the_other_standby_follows_first():
    """Durability sync: the other standby follows the target before the fence and through the
    promotion, without a restart; undone, it follows the old primary again. Nobody in a circle."""
    with Cluster(replicas=2, durability="sync", settings=PATIENT) as cluster:
        buyer = Buyer(cluster, "alpha")
        born = cluster.value("alpha-3", "SELECT pg_postmaster_start_time()")
        slow = ("--timeout-ms", "150000", "--to")
        with Paused(cluster, "fence", "alpha", *slow, "alpha-2") as paused:
            assert upstream(cluster, "alpha-3") == str(cluster.port("alpha-2"))
            assert slots(cluster, "alpha-2") == {"alpha_3"}
            assert slots(cluster, "alpha-1") == {"alpha_2"}
            buyer.buys()
            cluster.sql("alpha-2", "SELECT pg_wal_replay_pause()")
            switch = paused.finish()
        cluster.sql("alpha-2", "SELECT pg_wal_replay_resume()")
        assert switch.outcome == "undone", switch
        assert upstream(cluster, "alpha-3") == str(cluster.port("alpha-1")), switch
        assert slots(cluster, "alpha-2") == set() and primary(cluster, "alpha") == "alpha-1"
        buyer.buys()
        wait_whole(cluster, "alpha")

        with Paused(cluster, "fence", "alpha", *slow, "alpha-3") as paused:
            assert upstream(cluster, "alpha-2") == str(cluster.port("alpha-3"))
            paused.kill()
        buyer.buys()
        wait_whole(cluster, "alpha")
        switch = run(cluster, "alpha", *slow, "alpha-2")  # which followed alpha-3 until now
        assert switch.outcome == "done", switch
        assert not any("alpha-3" in note for note in switch.json["notes"]), switch
        assert upstream(cluster, "alpha-3") == str(cluster.port("alpha-2"))
        assert cluster.value("alpha-3", "SELECT pg_postmaster_start_time()") == born
        assert slots(cluster, "alpha-2") == {"alpha_1", "alpha_3"}
        assert slots(cluster, "alpha-1") == slots(cluster, "alpha-3") == set()
        buyer.buys()
        wait_whole(cluster, "alpha")
        nothing_left(cluster, "alpha")


@timeout(400)
def test_with_a_single_replica():
    """The shard has no standby until the old primary is one; it is, by itself, and can go back."""
    with Cluster(replicas=1) as cluster:
        with Traffic(cluster, bookers=2, pause=0.01) as traffic:
            traffic.wait_for(20, shard="alpha")
            assert done(cluster, "alpha").json["to"] == "alpha-2"
            wait_whole(cluster, "alpha")
            assert done(cluster, "alpha").json["to"] == "alpha-1"
            traffic.wait_for(20, shard="alpha")
        check_all_good(traffic, cluster)
        wait_whole(cluster, "alpha")
        nothing_left(cluster, "alpha")


@timeout(400)
def test_the_consumer_follows():
    """Its slot stands on the new primary, the old one has none; hung it is waited for or left."""
    with Cluster(replicas=1, cdc=True) as cluster:
        buyer = Buyer(cluster, "alpha")
        buyer.buys(3)
        path = f"/events/{buyer.event}/availability"
        wait_until(lambda: cluster.get(path).json()["source"] == "redis", 60,
                   what="the consumer to have the event")
        switch = done(cluster, "alpha")
        assert switch.json["handover"], switch
        slots = "SELECT count(*) FROM pg_replication_slots WHERE slot_type = 'logical'"
        assert cluster.value("alpha-2", slots) == "1"
        assert cluster.value("alpha-1", slots) == "0"
        wait_whole(cluster, "alpha")
        cluster.pause("cdc")
        refused = run(cluster, "alpha")
        assert refused.code == 1 and refused.outcome == "refused", refused
        assert "--without-cdc" in refused.json["text"], refused
        assert primary(cluster, "alpha") == "alpha-2" and fence(cluster, "alpha-2") == ""
        left = run(cluster, "alpha", "--without-cdc", "--timeout-ms", "10000")
        assert left.outcome == "done" and not left.json["handover"], left
        cluster.resume("cdc")
        buyer.buys(3)


# ---- refusals ------------------------------------------------------------------------------------


@short
def test_what_is_refused(cluster):
    """Each with its reason and exit code 1; wrong usage is 2; nothing is left of any."""
    buyer = Buyer(cluster, "alpha")
    leader, standby = primary(cluster, "alpha"), other(cluster, "alpha")

    def refuses(why, *arguments):
        switch = run(cluster, *arguments)
        assert switch.code == 1 and switch.outcome == "refused", switch
        assert why in switch.json["text"], switch
        assert not any(step["step"] == "fence" for step in switch.json["steps"]), switch

    unknown = run(cluster, "gamma")
    assert unknown.code == 1 and "no shard 'gamma'" in unknown.stderr, unknown
    refuses("is the primary already", "alpha", "--to", leader)
    refuses("no node 'alpha-9'", "alpha", "--to", "alpha-9")
    refuses("no node 'beta-2'", "alpha", "--to", "beta-2")
    refuses("not fenced", "alpha", "--abort")
    cluster.sql(standby, "SELECT pg_wal_replay_pause()")
    try:
        refuses("replay paused", "alpha", "--to", standby)
    finally:
        cluster.sql(standby, "SELECT pg_wal_replay_resume()")
    cluster.sql(leader, "UPDATE shard_meta SET fenced = true")
    try:
        refuses("by hand", "alpha")
        refuses("by hand", "alpha", "--abort")
    finally:
        cluster.sql(leader, "UPDATE shard_meta SET fenced = false")
    for wrong in ([], ["alpha", "beta"], ["alpha", "--timeout-ms", "x"], ["alpha", "--wrong"],
                  ["alpha", "--abort", "--to", standby], ["alpha", "--pause-before", "done"]):
        assert run(cluster, *wrong).code == 2, wrong
    nothing_left(cluster, "alpha")
    assert primary(cluster, "alpha") == leader
    buyer.buys()


def test_two_operators(cluster):
    """The second one is refused and told who is at it; the first one is not disturbed."""
    wait_whole(cluster, "beta")
    with Paused(cluster, "fence", "beta", *switching.PATIENT) as first:
        second = run(cluster, "beta")
        assert second.outcome == "refused", second
        assert f"pid {first.process.pid}" in second.json["text"], second
        assert "since" in second.json["text"], second
        aborter = run(cluster, "beta", "--abort")
        assert aborter.outcome == "refused", aborter
        switch = first.finish()
    assert switch.outcome == "done", switch
    wait_whole(cluster, "beta")
    nothing_left(cluster, "beta")


# ---- undone --------------------------------------------------------------------------------------


@short
def test_a_target_that_stops_replaying_is_given_up(cluster):
    """The deadline undoes it: the bookings that waited are made on the old primary."""
    buyer = Buyer(cluster, "alpha")
    leader, standby = primary(cluster, "alpha"), other(cluster, "alpha")
    try:
        with Paused(cluster, "fence", "alpha", "--to", standby, *switching.PATIENT) as paused:
            cluster.sql(standby, "SELECT pg_wal_replay_pause()")
            switch = paused.finish()
        assert switch.code == 1 and switch.outcome == "undone", switch
        assert "replay: not in time" in switch.json["text"], switch
        buyer.buys()
        assert fence(cluster, leader) == ""
    finally:
        cluster.sql(standby, "SELECT pg_wal_replay_resume()")
    wait_whole(cluster, "alpha")
    nothing_left(cluster, "alpha")
    assert primary(cluster, "alpha") == leader


def test_control_c(cluster):
    """Before the promotion it undoes, afterwards it goes on."""
    buyer = Buyer(cluster, "alpha")
    leader = primary(cluster, "alpha")
    with Paused(cluster, "fence", "alpha", *switching.PATIENT) as paused:
        paused.send(signal.SIGINT)
        switch = paused.finish()
    assert switch.code == 1 and switch.outcome in ("undone", "refused"), switch
    assert "stopped by its operator" in switch.json["text"], switch
    nothing_left(cluster, "alpha")
    buyer.buys()
    assert primary(cluster, "alpha") == leader
    with Paused(cluster, "watch", "alpha", *switching.PATIENT) as paused:
        paused.send(signal.SIGINT)
        switch = paused.finish()
    assert switch.outcome == "done", switch
    assert primary(cluster, "alpha") != leader
    wait_whole(cluster, "alpha")
    nothing_left(cluster, "alpha")


def test_the_lock_is_lost(cluster):
    """Without its lock an operator does not go on: another one may be at it already."""
    wait_whole(cluster, "alpha")
    leader = primary(cluster, "alpha")
    with Paused(cluster, "fence", "alpha", *switching.PATIENT) as paused:
        cluster.sql(leader, "SELECT pg_terminate_backend(pid) FROM pg_locks"
                            " WHERE locktype = 'advisory' AND objid = 4")
        wait_until(lambda: cluster.value(
            leader, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 4")
            == "0", 20, what="the session to end")
        switch = paused.finish()
    assert switch.outcome in ("undone", "refused"), switch
    assert "lock was lost" in switch.json["text"], switch
    nothing_left(cluster, "alpha")
    assert primary(cluster, "alpha") == leader


# ---- the operator dies ---------------------------------------------------------------------------


@timeout(400)
def test_killed_before_the_point_of_no_return(cluster):
    """The fence, where there is one, ends by itself; the next operator succeeds."""
    buyer = Buyer(cluster, "beta")
    leader = primary(cluster, "beta")
    for step in ("near", "fence", "end", "replay", "keep"):
        with Paused(cluster, step, "beta", *switching.PATIENT) as paused:
            paused.kill()
        buyer.buys()
        nothing_left(cluster, "beta")
        assert primary(cluster, "beta") == leader, step
    done(cluster, "beta")
    wait_whole(cluster, "beta")


@timeout(400)
def test_killed_between_keep_and_promote(cluster):
    """The fence lasts, writes wait: --abort lifts it, but not while an operator is at it."""
    buyer = Buyer(cluster, "beta")
    leader = primary(cluster, "beta")
    for step in ("kept", "promote"):
        with Paused(cluster, step, "beta", *switching.PATIENT) as paused:
            assert fence(cluster, leader) == "infinity"
            busy = run(cluster, "beta", "--abort")
            assert busy.outcome == "refused" and "another operator" in busy.json["text"], busy
            paused.kill()
        wait_until(lambda: "did not end" in run(cluster, "beta").json["text"], 30,
                   what="the lock to end with its operator")
        assert fence(cluster, leader) == "infinity"
        lifted = run(cluster, "beta", "--abort")
        assert lifted.code == 0 and lifted.outcome == "lifted", lifted
        buyer.buys()
        nothing_left(cluster, "beta")
        assert primary(cluster, "beta") == leader, step


def test_a_stalled_operator_loses_its_turn(cluster):
    """Stopped before the promotion for longer than the fence may be up, it undoes what it did."""
    buyer = Buyer(cluster, "beta")
    leader = primary(cluster, "beta")
    with Paused(cluster, "promote", "beta", *switching.PATIENT) as paused:
        since = cluster.value(leader, "SELECT clock_timestamp()")
        wait_until(lambda: cluster.value(
            leader, f"SELECT clock_timestamp() > '{since}'::timestamptz + interval '2.1 s'")
            == "t", 20, what="the fence's time to be over")
        switch = paused.finish()
    assert switch.outcome == "undone" and "too late" in switch.json["text"], switch
    buyer.buys()
    nothing_left(cluster, "beta")
    assert primary(cluster, "beta") == leader


@timeout(400)
def test_killed_after_the_promotion(cluster):
    """A router attests the new primary; the old one stays fenced until it rejoins."""
    for step in ("watch", "attest"):
        buyer = Buyer(cluster, "alpha")
        leader = primary(cluster, "alpha")
        with Paused(cluster, step, "alpha", *switching.PATIENT) as paused:
            paused.kill()
        wait_until(lambda leader=leader: primary(cluster, "alpha") != leader, 30,
                   what="the promotion")
        wait_until(lambda: cluster.value(
            primary(cluster, "alpha"), "SELECT timeline = own_timeline() FROM shard_meta") == "t",
            30, what="a router to attest it")
        buyer.buys()
        assert fence(cluster, leader) == "infinity"
        for node in cluster.nodes("alpha"):
            if node != primary(cluster, "alpha"):
                cluster.rejoin(node)
    wait_whole(cluster, "alpha")
    nothing_left(cluster, "alpha")


@timeout(400)
def test_the_old_primary_dies_after_the_promotion_was_asked_for(cluster):
    """Nobody needs it any more: it goes forward."""
    buyer = Buyer(cluster, "alpha")
    leader = primary(cluster, "alpha")
    with Paused(cluster, "watch", "alpha", *switching.PATIENT) as paused:
        cluster.crash(leader)
        switch = paused.finish()
    assert switch.outcome == "done", switch
    buyer.buys()
    if not cluster.pid(leader):
        cluster.rejoin(leader)
    wait_whole(cluster, "alpha")
