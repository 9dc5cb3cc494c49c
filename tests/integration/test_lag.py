"""Replicas that lag, and primaries that change: who is read from, who is written to, who decides.

Goal: a replica that falls behind leaves the rotation whatever the reason, and comes back when it has
caught up; no reader is ever given anything older than it asked for; a new primary is attested once,
however many servers see it; one that comes back from the past is refused, told about, and left
alone. Method: two replicas a shard; beta's are held up in every way there is while readers check
what they are told against the time of each booking; alpha's primary is changed by hand.

SPDX-License-Identifier: MIT
"""

import contextlib
import threading
import time

from harness import short, timeout, wait_until

CLUSTER = {"replicas": 2, "settings": {"health.slow_start_ms": 5000}}
SWITCHOVER = "'00000000-0000-4000-8000-000000000001'"


def nodes(server):
    """{name: node} of /admin/nodes; server: a cluster, or a serve beside it."""
    return {node["node"]: node for node in server.admin("GET", "/admin/nodes").json()["nodes"]}


def in_rotation(cluster, *names):
    """Are they all read from?"""
    found = nodes(cluster)
    return all(found[name]["up"] and found[name].get("inRotation") for name in names)


def wait_all_in(cluster, seconds=40):
    """Until every replica is in rotation."""
    wait_until(lambda: in_rotation(cluster, *replicas(cluster)), seconds,
               what="all replicas to be in rotation")


def replicas(cluster):
    """Names of all nodes that are no primaries."""
    return [name for name, node in nodes(cluster).items() if node["role"] != "primary"]


def write(cluster, shard):
    """Something for the replicas to replay."""
    cluster.sql(shard, "SELECT pg_logical_emit_message(true, 'test', 'x')")


@contextlib.contextmanager
def writing(cluster, shard):
    """The shard's primary writes all the time."""
    ended = threading.Event()

    def run():
        while not ended.wait(0.05):
            write(cluster, shard)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def set_on(cluster, node, name, value=None):
    """ALTER SYSTEM and a reload; None: the value of the configuration files again."""
    to = "RESET " + name if value is None else f"SET {name} = '" + value.replace("'", "''") + "'"
    cluster.sql(node, f"ALTER SYSTEM {to}")
    cluster.sql(node, "SELECT pg_reload_conf()")


def lines_of(log, node, text):
    """Lines of a server's log about a node."""
    return [line for line in log.splitlines() if f"node={node}" in line and text in line]


def lags(cluster, name):
    """Is it up and out of rotation?"""
    node = nodes(cluster)[name]
    return node["up"] and not node["inRotation"]


def check_out_and_back(cluster, name, mend):
    """The replica leaves the rotation and is not read from; mended, it comes back."""
    wait_until(lambda: lags(cluster, name), what=f"{name} to be out of rotation")
    assert cluster.metric("seatgrid_node_in_rotation", node=name) == 0
    assert "lags" in cluster.seatgrid("nodes", check=False).stdout
    event = cluster.make_event(shard="beta")
    served = [cluster.get(f"/events/{event}/seats", {"SeatGrid-Max-Staleness": "500ms"})
              for _ in range(20)]
    assert all(answer.status == 200 for answer in served), served
    assert name not in {answer.headers["SeatGrid-Node"] for answer in served}, served
    mend()
    wait_until(lambda: in_rotation(cluster, name), 40, what=f"{name} to be in rotation again")
    assert cluster.metric("seatgrid_node_in_rotation", node=name) == 1
    assert lines_of(cluster.log(), name, "out of rotation")


@short
def test_at_rest_all_are_in_rotation(cluster):
    """With their full share from the start, and attested primaries; the WAL received is known."""
    wait_all_in(cluster)
    wait_until(lambda: all(nodes(cluster)[name]["weight"] == 100 for name in replicas(cluster)),
               what="the full weight of all replicas")
    for name, node in nodes(cluster).items():
        if node["role"] == "primary":
            assert node["attested"] and node["refused"] is None and node["epoch"] == 1, node
            assert "weight" not in node, node
        else:
            assert node["receivedLsn"] != "0/0", (name, node)
    lines = cluster.seatgrid("nodes").stdout.splitlines()
    assert all(len(line) <= 80 for line in lines), lines


def test_paused_replay_leaves_and_comes_back(cluster):
    """pg_wal_replay_pause(), while WAL arrives."""
    wait_all_in(cluster)
    with writing(cluster, "beta"):
        cluster.sql("beta-2", "SELECT pg_wal_replay_pause()")
        try:
            check_out_and_back(cluster, "beta-2",
                               lambda: cluster.sql("beta-2", "SELECT pg_wal_replay_resume()"))
        finally:
            cluster.sql("beta-2", "SELECT pg_wal_replay_resume()")


def test_a_delay_of_replay_leaves_and_comes_back(cluster):
    """recovery_min_apply_delay: always the same age, always too old."""
    wait_all_in(cluster)
    with writing(cluster, "beta"):
        set_on(cluster, "beta-3", "recovery_min_apply_delay", "20s")
        try:
            check_out_and_back(cluster, "beta-3",
                               lambda: set_on(cluster, "beta-3", "recovery_min_apply_delay"))
        finally:
            set_on(cluster, "beta-3", "recovery_min_apply_delay")


def test_a_dead_wal_receiver_leaves_and_comes_back(cluster):
    """It replays all that it has, and hears nothing more."""
    wait_all_in(cluster)
    conninfo = cluster.value("beta-2", "SHOW primary_conninfo")
    with writing(cluster, "beta"):
        set_on(cluster, "beta-2", "primary_conninfo", "host=127.0.0.1 port=1")
        try:
            check_out_and_back(cluster, "beta-2",
                               lambda: set_on(cluster, "beta-2", "primary_conninfo", conninfo))
        finally:
            set_on(cluster, "beta-2", "primary_conninfo", conninfo)


def test_a_stopped_replica_is_not_missed(cluster):
    """SIGSTOP: reads go on by the other one; its return begins with a small share."""
    wait_all_in(cluster)
    event = cluster.make_event(shard="beta")
    cluster.pause("beta-3")
    try:
        wait_until(lambda: not nodes(cluster)["beta-3"]["up"], what="beta-3 to be seen down")
        for _ in range(20):
            answer = cluster.get(f"/events/{event}/seats")
            assert answer.status == 200 and answer.headers["SeatGrid-Node"] != "beta-3", answer
    finally:
        cluster.resume("beta-3")
    weights = []

    def back():
        node = nodes(cluster)["beta-3"]
        if node["up"] and node["inRotation"]:
            weights.append(node["weight"])
        return weights and weights[-1] == 100

    wait_until(back, 40, what="beta-3 to have its full share")
    assert weights[0] < 100, weights


def test_no_reader_is_given_anything_older_than_it_asked_for(cluster):
    """Each booking that was answered a bound before a read began is in that read."""
    wait_all_in(cluster)
    bound = 0.3
    event = cluster.make_event(rows=20, cols=100, shard="beta")
    booked = []  # (seat, time of the answer)
    problems = []
    ended = threading.Event()

    def book():
        for number in range(20 * 100):
            if ended.is_set():
                return
            seat = (number // 100 + 1, number % 100 + 1)
            if cluster.book(event, [seat]).status == 201:
                booked.append((seat, time.monotonic()))
            ended.wait(0.02)

    def read(told):
        began = time.monotonic()
        due = [seat for seat, answered in list(booked) if answered < began - bound]
        answer = cluster.get(f"/events/{event}/seats",
                             {"SeatGrid-Max-Staleness": f"{int(bound * 1000)}ms"})
        if answer.status == 503:  # rather none than an old one
            return
        told.append((answer.headers["SeatGrid-Node"], answer.headers["SeatGrid-Staleness"]))
        if int(answer.headers["SeatGrid-Staleness"].removesuffix("ms")) > bound * 1000:
            problems.append(f"told {told[-1]}")
        rows = answer.json()["seats"]
        missing = [seat for seat in due if rows[seat[0] - 1][seat[1] - 1] != "x"]
        if missing:
            problems.append(f"{told[-1]} lacks {missing[:3]}")

    writer = threading.Thread(target=book)
    writer.start()
    told = []
    try:
        for name in ("beta-2", "beta-3", "beta-2"):
            cluster.sql(name, "SELECT pg_wal_replay_pause()")
            wait_until(lambda name=name: read(told) or problems or not in_rotation(cluster, name),
                       every=0.005, what=f"{name} to be out of rotation")
            cluster.sql(name, "SELECT pg_wal_replay_resume()")
            wait_until(lambda name=name: read(told) or problems or in_rotation(cluster, name),
                       40, every=0.005, what=f"{name} to be in rotation again")
    finally:
        ended.set()
        writer.join()
        for name in ("beta-2", "beta-3"):
            cluster.sql(name, "SELECT pg_wal_replay_resume()")
    assert not problems, problems[:5]
    assert len(booked) > 10 and {node for node, _ in told} & {"beta-2", "beta-3"}, told[-50:]


# ---- primaries -------------------------------------------------------------------------------------


def settled(server, primary, epoch):
    """Is it the shard's attested primary in the eyes of that server?"""
    node = nodes(server)[primary]
    return (node["role"] == "primary" and node["up"] and node["attested"]
            and not node["refused"] and not node["fenced"] and node["epoch"] == epoch)


def book_surely(server, event, seat):
    """Books it, however long it takes; a repetition is known by its key."""
    key = {"Idempotency-Key": f"lag-{event}-{seat[0]}-{seat[1]}"}
    wait_until(lambda: server.book(event, [seat], headers=key).status in (200, 201),
               what=f"seat {seat} to be booked")


def shard_meta(cluster, node):
    """(epoch, attested) as the node's own table says."""
    return cluster.sql(node, "SELECT epoch, timeline = own_timeline() FROM shard_meta")[0]


@timeout(400)
def test_a_promotion_is_attested_once_and_the_old_primary_refused(cluster):
    """Two servers, one promotion by hand after a crash: one attests, both go on; what comes back
    from the past is refused by both, and by a third that never knew it."""
    wait_all_in(cluster)
    event = cluster.make_event(shard="alpha")
    with cluster.serve_beside() as beside:
        beside.wait_ready()
        assert cluster.book(event, [(1, 1)]).status == 201
        cluster.wait_replicas()
        cluster.crash("alpha-1")
        cluster.sql("alpha-2", "SELECT pg_promote()")
        for server in (cluster, beside):
            wait_until(lambda server=server: settled(server, "alpha-2", 2),
                       what="alpha-2 to be attested")
        assert shard_meta(cluster, "alpha-2") == ("2", "t")
        raised = [log for log in (cluster.log(), beside.log())
                  if lines_of(log, "alpha-2", "attested as the primary: timeline 2, epoch 2")]
        assert len(raised) == 1, raised
        for col, server in enumerate((cluster, beside), 2):
            book_surely(server, event, (1, col))

        cluster.start("alpha-1", force=True)
        assert cluster.value("alpha-1", "SELECT pg_is_in_recovery()") == "f"
        before = cluster.sql("alpha-1", "SELECT (SELECT count(*) FROM bookings), epoch"
                                        " FROM shard_meta")
        for server in (cluster, beside):
            wait_until(lambda server=server: nodes(server)["alpha-1"]["up"],
                       what="alpha-1 to be seen")
            assert nodes(server)["alpha-1"]["refused"] == "older_timeline", nodes(server)
        assert cluster.metric("seatgrid_node_refused", node="alpha-1",
                              reason="older_timeline") == 1
        shown = cluster.seatgrid("nodes", check=False)
        assert shown.returncode == 1 and "refused" in shown.stdout, shown
        assert all(len(line) <= 80 for line in shown.stdout.splitlines()[:12]), shown.stdout
        with cluster.serve_beside() as third:
            wait_until(third_knows(third), what="a new server to know both")
            for row, server in enumerate((cluster, beside, third), 2):
                for col in range(1, 6):
                    book_surely(server, event, (row, col))
        assert before == cluster.sql("alpha-1", "SELECT (SELECT count(*) FROM bookings), epoch"
                                                " FROM shard_meta")
        wait_until(lambda: cluster.value("alpha-1", "SELECT fenced FROM shard_meta") == "t",
                   what="it to be fenced")
        assert cluster.value("alpha-2", "SELECT count(*) FROM bookings WHERE event_id ="
                                        f" {event}") == "18"
        fenced = []
        for log in (cluster.log(), beside.log()):
            # Whoever sees it second may find it fenced already, which is no news.
            came = len(lines_of(log, "alpha-1", "node is up: primary, timeline 1"))
            assert len(lines_of(log, "alpha-1", "PRIMARY REFUSED")) \
                + len(lines_of(log, "alpha-1", "former primary, timeline 1")) == came - 1, log
            fenced.extend(lines_of(log, "alpha-1", "former primary fenced"))
        assert fenced
    for name in ("alpha-1", "alpha-3"):
        cluster.rejoin(name)
    wait_all_in(cluster)
    assert cluster.metric("seatgrid_node_refused", node="alpha-1") == 0


def third_knows(server):
    """A condition: the server has found both of alpha's primaries."""
    def check():
        with contextlib.suppress(OSError):
            found = nodes(server)
            return found["alpha-1"].get("refused") and settled(server, "alpha-2", 2)
        return False
    return check


@timeout(400)
def test_a_switchover_that_died_is_ended_by_the_server(cluster):
    """Fenced for good, promoted, and then its operator is no more: attested after a while."""
    wait_all_in(cluster)
    old = cluster.primary("alpha")
    new = next(name for name in cluster.nodes("alpha") if name != old)
    epoch = int(shard_meta(cluster, old)[0])
    event = cluster.make_event(shard="alpha")
    cluster.sql(old, f"SELECT shard_fence({SWITCHOVER}, 60000)")
    cluster.sql(old, f"SELECT shard_fence_keep({SWITCHOVER})")
    wait_until(lambda: nodes(cluster)[old]["fenced"], what="the fence to be seen")
    cluster.wait_replicas()
    cluster.sql(new, "SELECT pg_promote()")
    wait_until(lambda: settled(cluster, new, epoch + 1), what=f"{new} to be attested")
    assert cluster.sql(new, "SELECT fenced, fence_id FROM shard_meta") == [("f", "")]
    assert cluster.book(event, [(1, 1)]).status == 201
    # Nobody is alarmed by the one that the switchover left behind, fenced.
    assert nodes(cluster)[old]["refused"] == "older_timeline"
    assert lines_of(cluster.log(), old, "former primary")
    for name in cluster.nodes("alpha"):
        if name != new:
            cluster.rejoin(name)
    wait_all_in(cluster)
