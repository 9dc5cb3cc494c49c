"""What health knows: /admin/nodes, `seatgrid nodes`, and the metrics, while servers die and return.

Goal: roles are found by asking, deaths are seen at once and told with their reason, a replica that
falls behind is never called fresh, and everything recovers by itself. Method: torment the servers
of a running cluster, one after the other.

SPDX-License-Identifier: MIT
"""

import json

from harness import short, wait_until

CLUSTER = {}


def nodes(cluster):
    """{name: node} of /admin/nodes."""
    return {node["node"]: node for node in cluster.admin("GET", "/admin/nodes").json()["nodes"]}


def all_up(cluster):
    """Every node answers, every replica's staleness is known."""
    return all(node["up"] and node["stalenessMs"] is not None for node in nodes(cluster).values())


@short
def test_roles_and_identities_are_found(cluster):
    """Nodes are not marked in the map, yet everything about them is known."""
    wait_until(lambda: all_up(cluster), what="all nodes to be up")
    found = nodes(cluster)
    for name, node in found.items():
        assert node["role"] == ("primary" if name.endswith("-1") else "replica"), node
        assert node["timeline"] == 1 and node["epoch"] == 1 and not node["fenced"], node
        assert node["lastError"] is None, node
    identifiers = {name: node["systemIdentifier"] for name, node in found.items()}
    assert identifiers["alpha-1"] == identifiers["alpha-2"] != identifiers["beta-1"], identifiers
    for name in ("alpha-1", "beta-1"):
        assert identifiers[name] == cluster.value(
            name, "SELECT system_identifier FROM pg_control_system()")


@short
def test_an_idle_system_stays_fresh(cluster):
    """Staleness does not grow while nothing is written."""
    wait_until(lambda: all_up(cluster), what="all nodes to be up")
    seen = [nodes(cluster)["alpha-2"]["stalenessMs"] for _ in range(30)]
    assert all(ms is not None for ms in seen) and sorted(seen)[len(seen) // 2] < 1000, seen


def test_a_dead_replica_is_down_and_comes_back(cluster):
    """kill -9: down with the reason; started again: up. The log says each once."""
    wait_until(lambda: all_up(cluster), what="all nodes to be up")
    cluster.crash("alpha-2")
    wait_until(lambda: not nodes(cluster)["alpha-2"]["up"], 5, what="alpha-2 to be seen down")
    node = nodes(cluster)["alpha-2"]
    assert node["lastError"] and nodes(cluster)["beta-2"]["up"], node
    assert cluster.metric("seatgrid_node_up", node="alpha-2") == 0
    done = cluster.seatgrid("nodes", check=False)
    assert done.returncode == 1, done
    assert "down" in done.stdout and f"alpha-2: {node['lastError']}" in done.stdout, done.stdout
    cluster.start("alpha-2")
    wait_until(lambda: all_up(cluster), what="alpha-2 to be up again")
    assert cluster.metric("seatgrid_node_up", node="alpha-2", role="replica") == 1
    lines = [line for line in cluster.log().splitlines() if "node=alpha-2" in line]
    assert sum("node is down" in line for line in lines) == 1, lines


def test_a_hanging_server_is_down_by_the_deadline(cluster):
    """A stopped server accepts connections and says nothing; the others are not delayed."""
    wait_until(lambda: all_up(cluster), what="all nodes to be up")
    cluster.pause("beta-2")
    wait_until(lambda: not nodes(cluster)["beta-2"]["up"], 20, what="beta-2 to be seen down")
    found = nodes(cluster)
    assert "timeout" in found["beta-2"]["lastError"], found["beta-2"]
    assert found["beta-1"]["up"] and found["alpha-2"]["stalenessMs"] < 2000, found
    cluster.resume("beta-2")
    wait_until(lambda: all_up(cluster), what="beta-2 to be up again")


def test_paused_replay_grows_stale_and_recovers(cluster):
    """Replay stands still while the primary writes: staleness grows; afterwards it is fresh."""
    wait_until(lambda: all_up(cluster), what="all nodes to be up")
    cluster.sql("alpha-2", "SELECT pg_wal_replay_pause()")
    cluster.sql("alpha-1", "SELECT pg_logical_emit_message(true, 'test', 'x')")
    wait_until(lambda: nodes(cluster)["alpha-2"]["stalenessMs"] > 1500, 10,
               what="staleness to grow")
    assert cluster.metric("seatgrid_node_staleness_ms", node="alpha-2") > 1000
    assert nodes(cluster)["alpha-2"]["up"]
    cluster.sql("alpha-2", "SELECT pg_wal_replay_resume()")
    wait_until(lambda: nodes(cluster)["alpha-2"]["stalenessMs"] < 1000, 10,
               what="the replica to be fresh again")


def test_a_dead_wal_receiver_grows_stale(cluster):
    """The replica is healthy but hears nothing more: it must not read as fresh."""
    wait_until(lambda: all_up(cluster), what="all nodes to be up")
    conninfo = cluster.value("beta-2", "SHOW primary_conninfo")
    try:
        cluster.sql("beta-2", "ALTER SYSTEM SET primary_conninfo = 'host=127.0.0.1 port=1'")
        cluster.sql("beta-2", "SELECT pg_reload_conf()")
        wait_until(lambda: not cluster.sql("beta-2", "SELECT 1 FROM pg_stat_wal_receiver"), 10,
                   what="the receiver to die")
        cluster.sql("beta-1", "SELECT pg_logical_emit_message(true, 'test', 'x')")
        wait_until(lambda: nodes(cluster)["beta-2"]["stalenessMs"] > 1500, 10,
                   what="staleness to grow")
    finally:
        quoted = conninfo.replace("'", "''")
        cluster.sql("beta-2", f"ALTER SYSTEM SET primary_conninfo = '{quoted}'")
        cluster.sql("beta-2", "SELECT pg_reload_conf()")
    wait_until(lambda: nodes(cluster)["beta-2"]["stalenessMs"] < 1000, 30,
               what="the replica to be fresh again")


def test_the_fence_and_the_epoch_are_seen(cluster):
    """What shard_meta says is known within a moment, and undone as fast."""
    cluster.sql("beta", "UPDATE shard_meta SET fenced = true")
    wait_until(lambda: nodes(cluster)["beta-1"]["fenced"], 5, what="the fence to be seen")
    assert "fenced" in cluster.seatgrid("nodes").stdout
    cluster.sql("beta", "UPDATE shard_meta SET fenced = false")
    wait_until(lambda: not nodes(cluster)["beta-1"]["fenced"], 5, what="the fence to be gone")


def test_a_database_before_the_migration_needs_no_attestation(cluster):
    """A shard_meta that cannot say on which timeline its epoch was given: as it was before."""
    wait_until(lambda: all_up(cluster), what="all nodes to be up")
    assert nodes(cluster)["beta-1"]["attested"], nodes(cluster)
    cluster.sql("beta", "ALTER TABLE shard_meta RENAME timeline TO not_known")
    cluster.sql("beta", "UPDATE shard_meta SET not_known = 0")
    try:
        cluster.restart("serve")
        wait_until(lambda: all_up(cluster), what="all nodes to be up")
        assert nodes(cluster)["beta-1"]["attested"], nodes(cluster)
        assert not cluster.metric("seatgrid_attestations_total", node="beta-1")
        assert cluster.value("beta", "SELECT epoch FROM shard_meta") == "1"
    finally:
        cluster.sql("beta", "ALTER TABLE shard_meta RENAME not_known TO timeline")
    # The column comes while the server looks on: the primary is attested.
    wait_until(lambda: nodes(cluster)["beta-1"]["epoch"] == 2, what="beta-1 to be attested")
    assert cluster.metric("seatgrid_attestations_total", node="beta-1", outcome="ok") == 1


@short
def test_the_command_prints_a_table_that_fits(cluster):
    """80 columns for people, the endpoint's own JSON for programs."""
    wait_until(lambda: all_up(cluster), what="all nodes to be up")
    done = cluster.seatgrid("nodes")
    lines = done.stdout.splitlines()
    assert all(len(line) <= 80 for line in lines), done.stdout
    assert sum(line.startswith(("alpha", "beta")) for line in lines) == 4, done.stdout
    answer = json.loads(cluster.seatgrid("nodes", "--json").stdout)
    assert {node["node"] for node in answer["nodes"]} == set(nodes(cluster)), answer
    assert cluster.seatgrid("nodes", "--wrong", check=False).returncode == 2


def test_redis_is_watched(cluster):
    """kill -9 and a new start of Redis; a hang, too."""
    wait_until(lambda: cluster.metric("seatgrid_redis_up") == 1, what="Redis to be up")
    cluster.crash("redis")
    wait_until(lambda: cluster.metric("seatgrid_redis_up") == 0, 5, what="Redis to be seen down")
    cluster.start("redis")
    wait_until(lambda: cluster.metric("seatgrid_redis_up") == 1, 10, what="Redis to be up again")
    cluster.pause("redis")
    wait_until(lambda: cluster.metric("seatgrid_redis_up") == 0, 10, what="the hang to be seen")
    cluster.resume("redis")
    wait_until(lambda: cluster.metric("seatgrid_redis_up") == 1, 10, what="Redis to be back")
