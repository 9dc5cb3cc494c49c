"""Reseed, reconcile, and what operators see of the streams.

Goal: a shard's keys are built anew while everything serves; drift is found at one LSN, told, and
healed, without false alarms on an event that is being sold; every figure an operator needs is
there. Method: real servers; drift is planted in Redis by hand, under load and without.

SPDX-License-Identifier: MIT
"""

import json
import threading
import time

from cdc_truth import Churn, streams, wait_running, wait_truth
from harness import timeout, wait_until
from redis_client import RedisClient
from traffic import Traffic

CLUSTER = {"cdc": True, "settings": {"cdc.takeover_ms": 2000, "cdc.heartbeat_ms": 500,
                                     "cdc.reconcile_ms": 0, "cdc.wal_budget_bytes": 33554432}}


def key_of(cluster, event, shard="alpha"):
    """The counters' key of an event."""
    return f"sg1:{{e:{event}}}:{shard}.{streams(cluster)[shard]['generation']}"


def tickets_of(cluster, user, shard="alpha"):
    """The tickets' key of a user."""
    return f"sg1:{{u:{user}}}:{shard}.{streams(cluster)[shard]['generation']}"


@timeout(240)
def test_reseed_while_everything_serves(cluster):
    """A new generation under load; then one while somebody looks all the time: what is told is
    never from a half-built one."""
    wait_running(cluster)
    event = cluster.make_event(10, 10, "alpha")
    assert cluster.book(event, [(1, 1), (1, 2)]).status == 201
    wait_truth(cluster)
    before = {shard: stream["generation"] for shard, stream in streams(cluster).items()}
    with Traffic(cluster), Churn(cluster):
        done = cluster.seatgrid("reseed")
    assert done.returncode == 0, done.stderr
    after = {shard: stream["generation"] for shard, stream in streams(cluster).items()}
    assert all(after[shard] > before[shard] for shard in before), (before, after)
    wait_truth(cluster)
    expected = cluster.value("alpha", "SELECT 100 - coalesce(sum(cardinality(seats)) FILTER (WHERE"
                             f" status IN ('held', 'confirmed')), 0) FROM bookings WHERE event_id = {event}")
    wrong, stop = [], threading.Event()

    def look():
        while not stop.wait(0.002):
            answer = cluster.get(f"/events/{event}/availability")
            if answer.status != 200 or str(answer.json()["available"]) != expected:
                wrong.append(answer)
    looker = threading.Thread(target=look, daemon=True)
    looker.start()
    cluster.seatgrid("reseed", "alpha")
    time.sleep(3)
    stop.set()
    looker.join(10)
    assert not wrong, wrong[:3]


def test_reseed_says_what_is_wrong(cluster):
    """A shard that is not in the map; no consumer."""
    done = cluster.seatgrid("reseed", "gamma", check=False)
    assert done.returncode != 0 and "gamma" in done.stderr, done
    cluster.stop("cdc")
    try:
        done = cluster.seatgrid("reseed", check=False)
        assert done.returncode == 1 and "no consumer" in done.stderr, done
    finally:
        cluster.start("cdc")


def plant(cluster, event, user):
    """Drift of each kind on an event and a user of alpha."""
    with RedisClient(cluster.port("redis")) as redis:
        redis("HINCRBY", key_of(cluster, event), "available", "5")
        tickets = redis("HGETALL", tickets_of(cluster, user))
        booking = next(field for field in tickets[::2] if field not in ("at", "epoch"))
        redis("HDEL", tickets_of(cluster, user), booking)
        redis("HSET", tickets_of(cluster, user),
                      "00000000-0000-7000-8000-000000000000", str(event))


@timeout(240)
def test_reconcile_finds_and_heals(cluster):
    """Planted drift is named by reconcile, healed by --fix, and nothing else is."""
    wait_running(cluster)
    event = cluster.make_event(10, 10, "alpha")
    other = cluster.make_event(10, 10, "alpha")
    assert cluster.book(event, [(1, 1)], user="drifter").status == 201
    assert cluster.book(other, [(1, 1)], user="steady").status == 201
    wait_truth(cluster)
    report = json.loads(cluster.seatgrid("reconcile", "--json").stdout)
    assert all(shard["drift"] == 0 for shard in report["shards"]), report
    plant(cluster, event, "drifter")
    with RedisClient(cluster.port("redis")) as redis:
        redis("DEL", key_of(cluster, other))
    done = cluster.seatgrid("reconcile", check=False)
    assert done.returncode == 1
    assert str(event) in done.stdout and "drifter" in done.stdout, done.stdout
    assert max(len(line) for line in done.stdout.splitlines()) <= 80, done.stdout
    report = json.loads(cluster.seatgrid("reconcile", "--json", check=False).stdout)
    alpha = next(shard for shard in report["shards"] if shard["shard"] == "alpha")
    assert alpha["drift"] == 4, alpha
    assert cluster.seatgrid("reconcile", "--fix").returncode == 0
    wait_truth(cluster)
    assert cluster.seatgrid("reconcile").returncode == 0


@timeout(240)
def test_no_false_drift_on_a_hot_event(cluster):
    """Reconcile over and over while bookings come: not one false word; then real drift is found
    in the middle of it."""
    wait_running(cluster)
    with Traffic(cluster, bookers=6, pause=0), Churn(cluster, pause=0.005):
        for _ in range(8):
            done = cluster.seatgrid("reconcile", "--json", check=False)
            report = json.loads(done.stdout)
            assert all(shard["complete"] and shard["drift"] == 0
                       for shard in report["shards"]), report
        event = int(cluster.value("alpha", "SELECT event_id FROM bookings GROUP BY 1"
                                  " ORDER BY count(*) DESC LIMIT 1"))
        with RedisClient(cluster.port("redis")) as redis:
            redis("HINCRBY", key_of(cluster, event), "booked", "3")
        report = json.loads(cluster.seatgrid("reconcile", "--fix", "--json").stdout)
        alpha = next(shard for shard in report["shards"] if shard["shard"] == "alpha")
        assert alpha["drift"] == 1 and alpha["healed"] == 1, alpha
    wait_truth(cluster)


@timeout(240)
def test_slow_reconcile_heals_by_itself(cluster):
    """Nobody asks: the consumer finds it in its rounds, and the gauge shows it."""
    cluster.settings["cdc.reconcile_ms"] = 300
    cluster.up()
    try:
        wait_running(cluster)
        event = cluster.make_event(10, 10, "alpha")
        assert cluster.book(event, [(1, 1)], user="slow").status == 201
        wait_truth(cluster)
        plant(cluster, event, "slow")
        wait_truth(cluster)
        wait_until(lambda: cluster.metric("seatgrid_cdc_healed_total", "cdc", shard="alpha") >= 3,
                   what="the counter of healed keys")
        wait_until(lambda: cluster.metric("seatgrid_cdc_drift", "cdc", shard="alpha") == 0,
                   what="the gauge to fall")
    finally:
        cluster.settings["cdc.reconcile_ms"] = 0
        cluster.up()


def test_evicted_key_is_healed(cluster):
    """The counters of one event vanish: the next change of it brings them back."""
    wait_running(cluster)
    event = cluster.make_event(5, 5, "beta")
    assert cluster.book(event, [(1, 1)]).status == 201
    wait_truth(cluster)
    with RedisClient(cluster.port("redis")) as redis:
        redis("DEL", key_of(cluster, event, "beta"))
    assert cluster.book(event, [(2, 2)]).status == 201
    wait_truth(cluster)


def test_nodes_and_metrics_show_the_streams(cluster):
    """`seatgrid nodes`, the admin listener and /metrics tell what an operator asks first."""
    wait_running(cluster)
    wait_truth(cluster)
    wait_until(lambda: all(stream["walKeptBytes"] is not None
                           for stream in streams(cluster).values()), what="the first vitals")
    for shard, stream in streams(cluster).items():
        for key in ("state", "slot", "receivedLsn", "appliedLsn", "confirmedLsn", "lagBytes", "lagMs",
                    "walKeptBytes", "lastRepair", "generation", "epoch", "node"):
            assert key in stream, (shard, key, stream)
        assert stream["slot"].startswith(f"seatgrid_{shard}_"), stream
        assert stream["lagBytes"] >= 0 and stream["walKeptBytes"] >= 0, stream
    text = cluster.seatgrid("nodes").stdout
    assert "seatgrid_alpha_" in text and "running" in text, text
    assert max(len(line) for line in text.splitlines()) <= 80, text
    told = json.loads(cluster.seatgrid("nodes", "--json").stdout)
    assert {stream["shard"] for stream in told["streams"]} == {"alpha", "beta"}, told
    for name in ("seatgrid_cdc_lag_bytes", "seatgrid_cdc_wal_kept_bytes", "seatgrid_cdc_lsn_bytes",
                 "seatgrid_cdc_commits_total"):
        assert f"{name}{{" in cluster.cdc("GET", "/metrics").body.decode(), name
    cluster.stop("cdc")
    try:
        done = cluster.seatgrid("nodes", check=False)
        assert "no consumer" in done.stdout + done.stderr, done
    finally:
        cluster.start("cdc")


@timeout(240)
def test_wal_over_budget_is_an_alarm(cluster):
    """Redis is away, WAL piles up past cdc.wal_budget_bytes: gauge and log say so, and it passes."""
    wait_running(cluster)
    cluster.stop("redis")
    try:
        cluster.sql("alpha", "CREATE TABLE pile AS SELECT repeat(md5(i::text), 40) FROM"
                    " generate_series(1, 40000) i")
        wait_until(lambda: cluster.metric("seatgrid_cdc_wal_over_budget", "cdc",
                                          shard="alpha") == 1, 40, what="the alarm")
        assert "wal_budget_bytes" in cluster.log("cdc")
    finally:
        cluster.start("redis")
    wait_running(cluster)

    def passed():
        cluster.sql("alpha", "CHECKPOINT")
        return cluster.metric("seatgrid_cdc_wal_over_budget", "cdc", shard="alpha") == 0
    wait_until(passed, 60, every=0.5, what="the alarm to pass")
    cluster.sql("alpha", "DROP TABLE pile")
    wait_truth(cluster)
