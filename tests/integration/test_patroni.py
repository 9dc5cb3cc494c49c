"""Shards under Patroni: the router follows what Patroni decides, with nothing reloaded.

Goal: a switchover that Patroni makes, and a failover after a leader has died with its Patroni, so
that nobody but the clock of etcd can tell, lose no confirmed booking and sell no seat twice; the
router finds each new leader by itself; the old one is brought back and keeps no slot of the consumer.
Method: two replicas a shard and durability sync under Patroni and etcd, load on both shards, every
answer laid beside the tables afterwards.

SPDX-License-Identifier: MIT
"""

import signal
import subprocess
import time

from harness import (Cluster, binary, environment, http_request, processes_naming, timeout,
                     wait_until)
from traffic import Traffic

CLUSTER = {"ha": True, "replicas": 2, "durability": "sync", "cdc": True}


def streams(cluster, node, primary):
    """Does the node stream from that primary?"""
    if not cluster.pid(node):
        return False
    try:
        return cluster.sql(node, "SELECT status, sender_port FROM pg_stat_wal_receiver") == \
            [("streaming", str(cluster.port(primary)))]
    except AssertionError:  # not up yet
        return False


def wait_whole(cluster, shard="alpha"):
    """Until both other nodes of the shard stream from its primary and Patroni trusts one of them to
    have every confirmed write; gives the names of the primary and of that one."""
    def look():
        primary = next((name for name, server in cluster.status().items()
                        if server["shard"] == shard and server["role"] == "primary"), None)
        if not primary or not all(streams(cluster, name, primary)
                                  for name in cluster.nodes(shard) if name != primary):
            return None
        answer = http_request(cluster.port(f"{primary}-patroni"), "GET", "/cluster").json()
        roles = {member["name"]: member["role"] for member in answer["members"]}
        heirs = [name for name, role in roles.items() if role in ("sync_standby", "quorum_standby")]
        return (primary, heirs[0]) if heirs and roles[primary] in ("leader", "master") else None
    return wait_until(look, 120, every=0.3, what=f"{shard} to be whole")


def check_no_slots_left(cluster, node):
    """A replica keeps no slot that holds WAL for a consumer."""
    wait_until(lambda: cluster.value(node, "SELECT count(*) FROM pg_replication_slots"
                                           " WHERE slot_type = 'logical'") == "0",
               30, what=f"{node} to keep no logical slot")


def pause_s(traffic, shard, since):
    """The longest time without a booking confirmed on the shard."""
    ends = sorted(r.end for r in traffic.select(shard, "book", since=since) if r.status == 201)
    return max(b - a for a, b in zip(ends, ends[1:]))


def check(cluster, traffic):
    """No promise was broken."""
    traffic.check_answers()
    traffic.check_tables(cluster)
    return traffic.retry_unknown(cluster)


@timeout(300)
def test_planned_switchover(cluster):
    """By Patroni's own API, under load."""
    primary, heir = wait_whole(cluster)
    with Traffic(cluster) as traffic:
        traffic.wait_for(30, shard="alpha", seconds=60)
        start = time.monotonic()
        assert "is the primary after" in cluster.promote(heir)
        took = time.monotonic() - start
        traffic.wait_for(30, shard="alpha", seconds=60)
    paused = pause_s(traffic, "alpha", start - 1)
    check(cluster, traffic)
    assert wait_whole(cluster)[0] == heir
    check_no_slots_left(cluster, primary)
    cluster.wait_ready()
    print(f"      Patroni took {took:.1f} s, no booking for {paused:.1f} s; {traffic.counts()}")


@timeout(420)
def test_leader_dies_with_its_patroni(cluster):
    """kill -9 of PostgreSQL and of its Patroni: the leader's key runs out in etcd."""
    primary, _ = wait_whole(cluster)
    with Traffic(cluster) as traffic:
        traffic.wait_for(30, shard="alpha", seconds=60)
        start = time.monotonic()
        cluster.kill(f"{primary}-patroni")
        cluster.kill(primary)
        wait_until(lambda: cluster.primary("alpha") != primary, 120, every=0.2,
                   what="another leader")
        elected = time.monotonic() - start
        traffic.wait_for(30, shard="alpha", seconds=60)
        beta = traffic.select("beta", "book", since=start)
        assert beta and all(r.status in (201, 409) for r in beta), beta[:3]
    paused = pause_s(traffic, "alpha", start - 1)
    check(cluster, traffic)
    cluster.start(primary)
    assert wait_whole(cluster)[0] != primary
    check_no_slots_left(cluster, primary)
    cluster.wait_ready()
    print(f"      another leader after {elected:.1f} s, no booking for {paused:.1f} s; "
          f"{traffic.counts()}")


@timeout(300)
def test_down_and_up_again(cluster):
    """Everything stops, and comes back with what was booked."""
    event = cluster.make_event(rows=2, cols=3, shard="alpha")
    assert cluster.book(event, [(1, 2)]).status == 201
    cluster.down()
    assert not any(server["pid"] for server in cluster.status().values())
    cluster.up()
    wait_until(lambda: cluster.get(f"/events/{event}/seats").json().get("seats") ==
               [".x.", "..."], 30, what="the booking to be there")
    assert "All of it runs already." in cluster.up().stdout
    assert "rejoin_command" not in (cluster.var / "seatgrid.cfg").read_text(encoding="utf-8")


@timeout(300)
def test_interrupted_while_starting():
    """Ctrl-C while Patroni makes the nodes leaves no process, and the next start works."""
    with Cluster(ha=True, servers_only=True, replicas=0, start=False) as cluster:
        first = subprocess.Popen([binary(), "dev", "up", *cluster.options()], env=environment(),
                                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        data = cluster.var / "servers" / "alpha-1"
        wait_until(lambda: (data / "PG_VERSION").exists(), 60, what="initdb to be at work")
        first.send_signal(signal.SIGINT)
        assert first.wait(120) == 1
        wait_until(lambda: not processes_naming(str(cluster.var)), 30, what="processes to be gone")
        cluster.up()
        assert cluster.status()["alpha-1"]["role"] == "primary"


def test_data_without_patroni_is_not_taken_over():
    """Patroni and `dev` itself keep different settings with the data: a clear refusal."""
    with Cluster(ha=True, start=False) as cluster:
        data = cluster.var / "servers" / "alpha-1"
        data.mkdir(parents=True)
        (data / "PG_VERSION").write_text("15\n", encoding="ascii")
        (cluster.var / "run").mkdir()
        (cluster.var / "run" / "ports").write_text(
            "port_base 8100\nhttp 8080\nadmin 8081\nreplicas 1\n", encoding="ascii")
        done = cluster.dev("up", *cluster.options(), check=False)
        assert done.returncode == 1 and "was made without Patroni" in done.stderr, done
