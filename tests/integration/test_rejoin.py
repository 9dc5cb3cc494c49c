"""Another primary for a shard, and the old one back as a replica: `seatgrid dev promote, rejoin`.

Goal: whatever a node was and however it ended, `rejoin` makes it a replica that streams and keeps
no slots of its own; `up` never starts an old primary as a second one; nothing is needed from the
operator but the one command. Method: clusters without our programs (the servers are what matters),
their nodes promoted, crashed, frozen and led astray; what they have is compared row by row.

SPDX-License-Identifier: MIT
"""

import functools
import re

import harness
from harness import DevError, short, timeout, wait_until

Cluster = functools.partial(harness.Cluster, servers_only=True)


def make_table(cluster):
    """On alpha-1, with a row."""
    cluster.sql("alpha-1", "CREATE TABLE seen(what text); INSERT INTO seen VALUES ('first')")


def write(cluster, node, what):
    """A row on a node that is no replica."""
    cluster.sql(node, f"INSERT INTO seen VALUES ('{what}')")


def rows(cluster, node):
    """What a node has."""
    return {row[0] for row in cluster.sql(node, "SELECT what FROM seen")}


def slots(cluster, node):
    """The names of its slots."""
    return {row[0] for row in cluster.sql(node, "SELECT slot_name FROM pg_replication_slots")}


def check_replica(cluster, node, primary, wanted):
    """It streams from that primary under its own name, has the rows, and keeps no slots."""
    assert cluster.value(node, "SELECT pg_is_in_recovery()") == "t"
    assert cluster.value(node, "SELECT sender_port FROM pg_stat_wal_receiver") == \
        str(cluster.port(primary))
    wait_until(lambda: rows(cluster, node) == wanted, what=f"{node} to have {wanted}")
    assert cluster.sql(primary, "SELECT state FROM pg_stat_replication"
                                f" WHERE application_name = '{node}'") == [("streaming",)]
    assert slots(cluster, node) == set(), slots(cluster, node)
    assert cluster.status()[node]["role"] == "replica"


def refused_with(cluster, text, command, *arguments):
    """The command fails and says so."""
    done = cluster.dev(command, *arguments, "--var", str(cluster.var), check=False)
    assert done.returncode == 1 and text in done.stderr, (command, done)


@short
@timeout(240)
def test_there_and_back():
    """The primary lives on while another is promoted; it comes back, and is promoted again."""
    with Cluster() as cluster:
        make_table(cluster)
        cluster.wait_replicas()
        said = cluster.promote("alpha-2")
        assert re.search(r"alpha-2 +is the primary after 0\.\d+ s|after [\d.]+ s", said), said
        assert "seatgrid dev rejoin alpha-1" in said, said
        status = cluster.status()
        assert (status["alpha-1"]["role"], status["alpha-2"]["role"]) == ("old primary", "primary")
        assert cluster.primary("alpha") == "alpha-2"
        assert "is the primary already" in cluster.promote("alpha-2")
        write(cluster, "alpha-1", "lost")
        write(cluster, "alpha-2", "second")
        cluster.sql("alpha-1", "SELECT pg_create_logical_replication_slot('left', 'pgoutput')")

        assert "rewound" in cluster.rejoin("alpha-1")
        check_replica(cluster, "alpha-1", "alpha-2", {"first", "second"})
        assert "streams already from alpha-2" in cluster.rejoin("alpha-1")
        assert slots(cluster, "alpha-2") == {"alpha_1"}

        cluster.promote("alpha-1")
        write(cluster, "alpha-1", "third")
        cluster.rejoin("alpha-2")
        check_replica(cluster, "alpha-2", "alpha-1", {"first", "second", "third"})


@timeout(240)
def test_a_crashed_primary_comes_back():
    """kill -9 under writes: what the replica never got is gone, the node follows."""
    with Cluster() as cluster:
        make_table(cluster)
        cluster.wait_replicas()
        cluster.pause("alpha-2")
        write(cluster, "alpha-1", "never sent")
        cluster.kill("alpha-1")
        assert cluster.pid("alpha-1") == 0
        cluster.resume("alpha-2")
        cluster.promote("alpha-2")
        write(cluster, "alpha-2", "second")
        refused_with(cluster, "alpha-2 has been promoted since", "start", "alpha-1")
        assert cluster.pid("alpha-1") == 0
        cluster.rejoin("alpha-1")
        has = rows(cluster, "alpha-2")
        assert has >= {"first", "second"}, has  # the pause may have come too late
        check_replica(cluster, "alpha-1", "alpha-2", has)


@timeout(240)
def test_a_frozen_primary_comes_back():
    """SIGSTOP: the others go on without it; rejoin ends it and brings it back."""
    with Cluster() as cluster:
        make_table(cluster)
        cluster.wait_replicas()
        cluster.dev("pause", "alpha-1", "--var", str(cluster.var))
        assert "frozen" in cluster.dev("status", "--var", str(cluster.var), check=False).stdout
        refused_with(cluster, "is frozen", "rejoin", "alpha-2")
        cluster.promote("alpha-2")
        write(cluster, "alpha-2", "second")
        cluster.rejoin("alpha-1")
        check_replica(cluster, "alpha-1", "alpha-2", {"first", "second"})
        cluster.dev("pause", "alpha-1", "--var", str(cluster.var))
        cluster.rejoin("alpha-1")  # a frozen replica likewise
        check_replica(cluster, "alpha-1", "alpha-2", {"first", "second"})
        cluster.dev("pause", "alpha-1", "--var", str(cluster.var))
        cluster.dev("resume", "alpha-1", "--var", str(cluster.var))
        assert cluster.value("alpha-1", "SELECT 1") == "1"


@timeout(300)
def test_the_other_replicas_follow():
    """Two replicas: one is promoted, the other follows it by itself, or after a rejoin when it was
    promoted behind the back of `dev`, or when it was ahead."""
    with Cluster(replicas=2) as cluster:
        make_table(cluster)
        cluster.wait_replicas()
        assert "1 other replica followed" in cluster.promote("alpha-3")
        write(cluster, "alpha-3", "second")
        check_replica(cluster, "alpha-2", "alpha-3", {"first", "second"})
        cluster.rejoin("alpha-1")
        check_replica(cluster, "alpha-1", "alpha-3", {"first", "second"})

        cluster.sql("alpha-1", "SELECT pg_promote()")
        write(cluster, "alpha-1", "third")
        cluster.rejoin("alpha-2")
        check_replica(cluster, "alpha-2", "alpha-1", {"first", "second", "third"})
        cluster.rejoin("alpha-3")

        # alpha-2 gets what alpha-3 never gets, and alpha-3 becomes the primary.
        cluster.wait_replicas()
        cluster.pause("alpha-3")
        write(cluster, "alpha-1", "astray")
        wait_until(lambda: "astray" in rows(cluster, "alpha-2"), what="alpha-2 to have the row")
        cluster.kill("alpha-1")
        cluster.kill("alpha-3")
        cluster.start("alpha-3")
        has = rows(cluster, "alpha-3")
        if "astray" not in has:  # the pause may have come too late
            refused_with(cluster, "alpha-2 has received more WAL", "promote", "alpha-3")
            assert cluster.value("alpha-3", "SELECT pg_is_in_recovery()") == "t"
        said = cluster.dev("promote", "alpha-3", "--force", "--var", str(cluster.var)).stdout
        if "astray" not in has:
            assert "alpha-2    does not follow" in said, said
            said = cluster.rejoin("alpha-2")
            assert "rewound" in said, said + cluster.log_tail("alpha-2", 40)
        check_replica(cluster, "alpha-2", "alpha-3", has)
        cluster.rejoin("alpha-1")
        check_replica(cluster, "alpha-1", "alpha-3", has)


@timeout(240)
def test_a_replica_follows_another_one():
    """Told so, it streams from a replica, and goes over to its timeline when that is promoted, by
    `dev` or behind its back; no slot is left where it was."""
    def follow(node, upstream):
        return cluster.dev("rejoin", node, upstream, "--var", str(cluster.var)).stdout

    with Cluster(replicas=2) as cluster:
        make_table(cluster)
        cluster.wait_replicas()
        assert "follows alpha-2" in follow("alpha-3", "alpha-2")
        assert "streams already from alpha-2" in follow("alpha-3", "alpha-2")
        check_replica(cluster, "alpha-3", "alpha-2", {"first"})
        assert slots(cluster, "alpha-1") == {"alpha_2"}
        refused_with(cluster, "alpha-3 follows alpha-2 itself", "rejoin", "alpha-2", "alpha-3")
        refused_with(cluster, "alpha-2 follows alpha-2 itself", "rejoin", "alpha-2", "alpha-2")
        refused_with(cluster, "no running replica", "rejoin", "alpha-1", "alpha-2")
        refused_with(cluster, "another shard", "rejoin", "alpha-2", "beta-1")
        refused_with(cluster, 'no server "gamma-1"', "rejoin", "alpha-2", "gamma-1")
        assert "follows alpha-1" in cluster.rejoin("alpha-3")
        assert slots(cluster, "alpha-2") == set()
        assert "follows alpha-2" in follow("alpha-3", "alpha-2")
        cluster.sql("alpha-2", "SELECT pg_promote()")
        write(cluster, "alpha-2", "second")
        check_replica(cluster, "alpha-3", "alpha-2", {"first", "second"})
        cluster.rejoin("alpha-1")
        check_replica(cluster, "alpha-1", "alpha-2", {"first", "second"})
        assert "1 other replica followed" in cluster.promote("alpha-3")
        check_replica(cluster, "alpha-1", "alpha-3", {"first", "second"})


@timeout(240)
def test_without_a_way_back():
    """The primary has thrown away the WAL it takes, or a rewind was cut short: a new copy."""
    with Cluster() as cluster:
        make_table(cluster)
        cluster.wait_replicas()
        cluster.promote("alpha-2")
        cluster.stop("alpha-1")
        (cluster.var / "run" / "alpha-1.rewinding").touch()
        assert cluster.status()["alpha-1"]["role"] == "half rewound"
        refused_with(cluster, "was cut short", "start", "alpha-1")
        assert "copied anew" in cluster.rejoin("alpha-1")
        check_replica(cluster, "alpha-1", "alpha-2", {"first"})

        cluster.kill("alpha-1")
        for path in (cluster.var / "servers" / "alpha-1" / "global").iterdir():
            path.unlink()
        assert "copied anew" in cluster.rejoin("alpha-1")
        check_replica(cluster, "alpha-1", "alpha-2", {"first"})


@timeout(240)
def test_what_rejoin_and_promote_refuse():
    """Nobody to follow, the primary itself, servers that are none or do not run."""
    with Cluster() as cluster:
        refused_with(cluster, "alpha-1 is the primary of shard alpha itself", "rejoin", "alpha-1")
        refused_with(cluster, "is no PostgreSQL server", "rejoin", "redis")
        refused_with(cluster, 'no server "gamma-1"', "promote", "gamma-1")
        cluster.kill("alpha-1")
        refused_with(cluster, "has no running primary", "rejoin", "alpha-2")
        cluster.stop("alpha-2")
        refused_with(cluster, "does not run", "promote", "alpha-2")
        refused_with(cluster, "does not run", "pause", "alpha-2")
        refused_with(cluster, "does not run", "kill", "alpha-2")
        try:
            cluster.start("gamma-1")
            raise AssertionError("a server that does not exist was started")
        except DevError as error:
            assert 'no server "gamma-1"' in error.stderr, error


@timeout(240)
def test_up_after_failovers():
    """Old primaries, dead or alive, are brought back by `up`, never started as second ones."""
    with Cluster() as cluster:
        make_table(cluster)
        cluster.wait_replicas()
        cluster.kill("alpha-1")
        cluster.promote("alpha-2")
        cluster.promote("beta-2")  # beta-1 lives on
        write(cluster, "alpha-2", "second")
        done = cluster.up()
        assert "old primary: it rejoins alpha-2" in done.stdout, done.stdout
        assert "old primary: it rejoins beta-2" in done.stdout, done.stdout
        check_replica(cluster, "alpha-1", "alpha-2", {"first", "second"})

        cluster.promote("alpha-1")  # alpha-2 is the old one now, and both are stopped
        write(cluster, "alpha-1", "third")
        cluster.down()
        cluster.up()
        assert cluster.primary("alpha") == "alpha-1" and cluster.primary("beta") == "beta-2"
        check_replica(cluster, "alpha-2", "alpha-1", {"first", "second", "third"})
        again = cluster.up()
        assert "All of it runs already." in again.stdout, again.stdout
        cluster.kill("alpha-1")
        cluster.start("alpha-1")  # nobody has been promoted: it is the primary still
        assert cluster.primary("alpha") == "alpha-1"


@timeout(240)
def test_two_primaries_on_purpose():
    """--force starts an old primary beside the new one; the newer is told apart by everyone."""
    with Cluster() as cluster:
        make_table(cluster)
        cluster.wait_replicas()
        cluster.kill("alpha-1")
        cluster.promote("alpha-2")
        cluster.start("alpha-1", force=True)
        write(cluster, "alpha-1", "lost")
        status = cluster.status()
        assert (status["alpha-1"]["role"], status["alpha-2"]["role"]) == ("old primary", "primary")
        refused_with(cluster, "alpha-1 is an old primary", "promote", "alpha-1")
        cluster.rejoin("alpha-1")
        check_replica(cluster, "alpha-1", "alpha-2", {"first"})


@timeout(240)
def test_durability_sync():
    """A write waits for a replica, after a promotion, too; one replica of two may be lost."""
    with Cluster(replicas=2, durability="sync") as cluster:
        make_table(cluster)
        for node, others in (("alpha-1", '"alpha-2", "alpha-3"'), ("alpha-2", '"alpha-1", "alpha-3"')):
            assert cluster.value(node, "SHOW synchronous_standby_names") == f"ANY 1 ({others})"
        assert {row[0] for row in cluster.sql(
            "alpha-1", "SELECT sync_state FROM pg_stat_replication")} == {"quorum"}
        cluster.kill("alpha-3")
        write(cluster, "alpha-1", "with one")
        cluster.kill("alpha-1")
        cluster.promote("alpha-2")
        cluster.rejoin("alpha-1")
        write(cluster, "alpha-2", "on the new one")
        cluster.rejoin("alpha-3")
        check_replica(cluster, "alpha-3", "alpha-2", {"first", "with one", "on the new one"})
        cluster.down()
        cluster.durability = None  # as last time
        cluster.up()
        assert "ANY 1" in cluster.value("alpha-2", "SHOW synchronous_standby_names")
        done = cluster.dev("up", *cluster.options(), "--durability", "async", check=False)
        assert done.returncode == 1 and "--durability sync" in done.stderr, done.stderr
        done = cluster.dev("up", *cluster.options(), "--durability", "maybe", check=False)
        assert done.returncode == 2 and "sync or async" in done.stderr, done.stderr
