"""The consumer tells the truth, whatever is done to it, to Redis or to PostgreSQL.

Goal: after any fault, without an operator, every counter and every entry of the user-to-ticket
index in Redis equals SQL. Method: real servers under bookings over HTTP (traffic.py) and random
lives of bookings by SQL (cdc_truth.Churn); a fault; then all keys laid beside all rows.

SPDX-License-Identifier: MIT
"""

import contextlib
import os
import random
import signal
import subprocess
import time

from cdc_truth import (SHARDS, Churn, differences, primaries, streams, wait_running, wait_truth)
from harness import SLOWDOWN, Cluster, Ports, alive, binary, environment, short, timeout, wait_until
from redis_client import RedisClient
from traffic import Traffic

# Faster than the defaults, so that a story takes seconds; the rules are the same.
QUICK = {"cdc.takeover_ms": 2000, "cdc.heartbeat_ms": 500, "cdc.reconcile_ms": 0,
         "redis.max_staleness_ms": 2000}
CLUSTER = {"cdc": True, "settings": QUICK}


@contextlib.contextmanager
def load(cluster):
    """Bookings over HTTP and by SQL, together."""
    with Traffic(cluster) as traffic, Churn(cluster) as churn:
        yield traffic
    assert churn.done > 0


def redis(cluster):
    """A connection to the cluster's Redis."""
    return RedisClient(cluster.port("redis"), timeout=30)


def slot_of(cluster, shard):
    """The slot that the consumer of the shard reads."""
    return streams(cluster)[shard]["slot"]


def last_repair(cluster, shard):
    """The reason of the last one."""
    return streams(cluster)[shard]["lastRepair"]


def wait_repair(cluster, shard, *reasons):
    """Until the shard runs again and names one of these as its last repair."""
    def repaired():
        try:
            told = streams(cluster)[shard]
        except OSError:
            return False
        return told["state"] == "running" and told["lastRepair"] in reasons
    wait_until(repaired, 40, what=f"{shard} to be repaired ({', '.join(reasons)})")


@short
def test_follows_bookings(cluster):
    """Bookings, holds, cancellations, transfers and deletions are in Redis a moment later."""
    wait_running(cluster)
    with load(cluster):
        time.sleep(3)
    wait_truth(cluster)


def test_latency_of_a_quiet_booking(cluster):
    """One booking is in the counters at once, not at the next poll of something."""
    event = cluster.make_event(5, 5, "alpha")
    wait_truth(cluster)
    generation = streams(cluster)["alpha"]["generation"]
    took = []
    with redis(cluster) as connection:
        for seat in range(1, 6):
            assert cluster.book(event, [(1, seat)]).status == 201
            start = time.monotonic()
            while connection("HGET", f"sg1:{{e:{event}}}:alpha.{generation}",
                                     "booked") != str(seat):
                assert time.monotonic() - start < 5 * SLOWDOWN, "never came"
            took.append(time.monotonic() - start)
    assert min(took) < 0.1 * SLOWDOWN, took


@short
@timeout(240)
def test_consumer_killed_at_any_point(cluster):
    """kill -9 of the consumer at random moments under load."""
    with load(cluster):
        for _ in range(6):
            time.sleep(random.uniform(0.05, 0.8))
            cluster.crash("cdc")
            cluster.start("cdc")
    wait_running(cluster)
    wait_truth(cluster)


class Second:
    """Another consumer of the same cluster."""

    def __init__(self, cluster):
        self._ports = Ports(1)
        self.port = self._ports.base
        self.log = cluster.folder / "second.log"
        with open(self.log, "w", encoding="utf-8") as out:
            self.process = subprocess.Popen(
                [binary(), "cdc", "-c", str(cluster.var / "seatgrid.cfg"), "--listen",
                 f"127.0.0.1:{self.port}"], env=environment(), stdin=subprocess.DEVNULL, stdout=out,
                stderr=out)

    def states(self):
        """{shard: state}, {} while it does not answer."""
        from harness import http_request
        try:
            answer = http_request(self.port, "GET", "/admin/streams", None, None, 5)
        except OSError:
            return {}
        return {stream["shard"]: stream["state"] for stream in answer.json()["streams"]}

    def wait(self, state, seconds=30):
        """Until it is in that state for every shard."""
        wait_until(lambda: set(self.states().values()) == {state}, seconds,
                   what=f"the second consumer to be {state}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        self.process.wait(20 * SLOWDOWN)
        self._ports.release()


@timeout(240)
def test_two_consumers_one_works(cluster):
    """The second one waits, takes over when the first dies, and the first then waits."""
    wait_running(cluster)
    with Second(cluster) as second, load(cluster):
        second.wait("waiting")
        assert all(stream["state"] == "running" for stream in streams(cluster).values())
        cluster.crash("cdc")
        second.wait("running")
        cluster.start("cdc")
        wait_until(lambda: all(stream["state"] == "waiting"
                               for stream in streams(cluster).values()), what="the first to wait")
    wait_running(cluster)
    wait_truth(cluster)


@timeout(240)
def test_zombie_is_refused(cluster):
    """A consumer that was frozen and replaced comes back with batches in its pockets."""
    wait_running(cluster)
    with Second(cluster) as second:
        second.wait("waiting")
        with load(cluster):
            time.sleep(1)
            cluster.pause("cdc")
            second.wait("running")
            time.sleep(1)
            cluster.resume("cdc")
            wait_until(lambda: all(stream["state"] == "waiting"
                                   for stream in streams(cluster).values()),
                       what="the zombie to step back")
            time.sleep(1)
        assert set(second.states().values()) == {"running"}
        wait_truth(cluster)
    wait_running(cluster)
    wait_truth(cluster)


def aof_of(cluster):
    """The file that Redis appends to."""
    folder = cluster.var / "servers" / "redis"
    found = sorted(folder.glob("appendonlydir/*.incr.aof")) + sorted(folder.glob("*.aof"))
    assert found, list(folder.iterdir())
    return found[0]


@timeout(240)
def test_redis_loses_its_last_second(cluster):
    """kill -9 of Redis, and what it had not synced is gone: read again, without a seed."""
    wait_running(cluster)
    with load(cluster):
        time.sleep(2)
        aof = aof_of(cluster)
        kept = aof.stat().st_size
        time.sleep(1)
        cluster.crash("redis")
        assert aof.stat().st_size > kept
        os.truncate(aof, kept)
        cluster.start("redis")
        time.sleep(2)
    wait_running(cluster)
    for shard in SHARDS:
        assert last_repair(cluster, shard) == "started", streams(cluster)[shard]
    wait_truth(cluster)


@timeout(240)
def test_redis_loses_more_than_promised(cluster):
    """Ten seconds are gone, which the slot has let go: a new generation."""
    wait_running(cluster)
    with load(cluster):
        aof = aof_of(cluster)
        kept = aof.stat().st_size
        time.sleep(8)
        cluster.crash("redis")
        os.truncate(aof, kept)
        cluster.start("redis")
        time.sleep(1)
    for shard in SHARDS:
        wait_repair(cluster, shard, "redis_lost_too_much")
    wait_truth(cluster)


@short
@timeout(240)
def test_flushall(cluster):
    """Everything is gone from Redis under load, twice."""
    wait_running(cluster)
    with load(cluster):
        for _ in range(2):
            time.sleep(1)
            with redis(cluster) as connection:
                connection("FLUSHALL")
            for shard in SHARDS:
                wait_repair(cluster, shard, "redis_empty")
    wait_truth(cluster)


@timeout(300)
def test_redis_down_under_load(cluster):
    """Redis is away for a while: WAL waits, the API answers from PostgreSQL."""
    wait_running(cluster)
    event = cluster.make_event(5, 5, "alpha")
    wait_truth(cluster)
    with load(cluster):
        time.sleep(1)
        cluster.stop("redis")
        time.sleep(8)
        assert cluster.book(event, [(1, 1), (1, 2)]).status == 201
        answer = cluster.get(f"/events/{event}/availability").json()
        assert answer["source"] != "redis", answer
        assert cluster.get(f"/events/{event}").status == 200
        cluster.start("redis")
        time.sleep(1)
    wait_running(cluster)
    wait_truth(cluster)
    wait_until(lambda: cluster.get(f"/events/{event}/availability").json()["source"] == "redis",
               what="Redis to be believed again")
    left = cluster.value("alpha", "SELECT 25 - sum(cardinality(seats)) FILTER (WHERE status IN"
                         f" ('held', 'confirmed')) FROM bookings WHERE event_id = {event}")
    assert str(cluster.get(f"/events/{event}/availability").json()["available"]) == left


@timeout(240)
def test_redis_out_of_memory(cluster):
    """Redis refuses writes: WAL waits, nothing is lost, nothing half done."""
    wait_running(cluster)
    with redis(cluster) as connection:
        with load(cluster):
            time.sleep(1)
            connection("CONFIG", "SET", "maxmemory", "1")
            time.sleep(4)
            connection("CONFIG", "SET", "maxmemory", "0")
            time.sleep(1)
    wait_running(cluster)
    wait_truth(cluster)


@timeout(240)
def test_slot_dropped(cluster):
    """Somebody drops the slot while nobody reads it."""
    wait_running(cluster)
    slot = slot_of(cluster, "alpha")
    with load(cluster):
        cluster.crash("cdc")
        wait_until(lambda: cluster.value("alpha", "SELECT active FROM pg_replication_slots WHERE "
                                         f"slot_name = '{slot}'") == "f", what="an idle slot")
        cluster.sql("alpha", f"SELECT pg_drop_replication_slot('{slot}')")
        time.sleep(1)
        cluster.start("cdc")
        time.sleep(1)
    wait_repair(cluster, "alpha", "slot_missing")
    assert slot_of(cluster, "alpha") != slot
    wait_truth(cluster)


@timeout(240)
def test_slot_invalidated(cluster):
    """The slot kept more WAL than PostgreSQL was willing to keep."""
    wait_running(cluster)
    slot = slot_of(cluster, "beta")
    with load(cluster):
        cluster.crash("cdc")
        cluster.sql("beta", "ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'")
        cluster.sql("beta", "SELECT pg_reload_conf()")

        def lost():
            cluster.sql("beta", "CREATE TABLE IF NOT EXISTS filler (t text);"
                        " INSERT INTO filler SELECT repeat('x', 1000) FROM generate_series(1, 20000)")
            cluster.sql("beta", "SELECT pg_switch_wal()")
            cluster.sql("beta", "CHECKPOINT")
            return cluster.value("beta", "SELECT wal_status FROM pg_replication_slots WHERE "
                                 f"slot_name = '{slot}'") == "lost"
        wait_until(lost, 60, what="the slot to be invalidated")
        cluster.sql("beta", "ALTER SYSTEM RESET max_slot_wal_keep_size")
        cluster.sql("beta", "SELECT pg_reload_conf()")
        cluster.start("cdc")
        time.sleep(1)
    wait_repair(cluster, "beta", "slot_invalidated", "slot_missing")
    wait_truth(cluster)


@timeout(240)
def test_postgres_restarted(cluster):
    """Both primaries restart, one orderly, one by a crash."""
    wait_running(cluster)
    with load(cluster):
        time.sleep(0.5)
        cluster.restart("alpha-1")
        cluster.crash("beta-1")
        cluster.start("beta-1")
        time.sleep(1)
    wait_running(cluster)
    wait_truth(cluster)
    cluster.wait_ready()


@short
@timeout(300)
def test_failover_without_phantom():
    """The standby takes over, which never got the last sales: they vanish from Redis, too."""
    with Cluster(cdc=True, settings=QUICK) as cluster:
        wait_running(cluster)
        event = cluster.make_event(5, 5, "alpha")
        assert cluster.book(event, [(1, 1)], user="before").status == 201
        cluster.wait_replicas()
        cluster.sql("alpha-2", "ALTER SYSTEM SET primary_conninfo = ''")
        cluster.sql("alpha-2", "SELECT pg_reload_conf()")
        wait_until(lambda: cluster.value("alpha-1", "SELECT count(*) FROM pg_stat_replication WHERE "
                                         "application_name = 'alpha-2'") == "0", what="no standby")
        assert cluster.book(event, [(1, 2)], user="phantom").status == 201
        wait_truth(cluster)
        with redis(cluster) as connection:
            old = streams(cluster)["alpha"]["generation"]
            assert connection("EXISTS", f"sg1:{{u:phantom}}:alpha.{old}") == 1
        cluster.crash("alpha-1")
        cluster.sql("alpha-2", "SELECT pg_promote()")
        wait_repair(cluster, "alpha", "failover", "slot_missing")
        assert primaries(cluster)["alpha"] == "alpha-2"
        wait_truth(cluster)
        new = streams(cluster)["alpha"]["generation"]
        with redis(cluster) as connection:
            assert new != old
            assert connection("EXISTS", f"sg1:{{u:phantom}}:alpha.{new}") == 0
            assert connection("EXISTS", f"sg1:{{u:before}}:alpha.{new}") == 1
            wait_until(lambda: connection("EXISTS", f"sg1:{{u:phantom}}:alpha.{old}") == 0,
                       what="the old generation to be removed")
        wait_until(lambda: cluster.book(event, [(1, 3)], user="after").status == 201,
                   what="bookings on the new primary")
        wait_truth(cluster)


@timeout(400)
def test_a_million_rows_in_one_transaction():
    """One transaction of a million bookings goes through in bounded memory, once streamed."""
    for streaming in ("off", "on"):
        with Cluster(cdc=True, replicas=0, settings={**QUICK, "cdc.streaming": streaming}) as cluster:
            wait_running(cluster)
            event = cluster.make_event(1000, 1000, "alpha")
            wait_truth(cluster)
            before = cluster.rss_bytes("cdc")
            rows = 1_000_000 if streaming == "off" else 300_000
            cluster.sql("alpha", "INSERT INTO bookings (event_id, booking_id, user_id, status, seats,"
                        f" request_hash) SELECT {event}, gen_random_uuid(), 'u-' || i % 500,"
                        f" 'confirmed', ARRAY[i - 1], 0 FROM generate_series(1, {rows}) i;")
            wait_truth(cluster, seconds=120)
            grown = cluster.rss_bytes("cdc") - before
            assert grown < 48 << 20 or os.environ.get("SEATGRID_VARIANT", "release") != "release", \
                f"{grown >> 20} MiB more"


def test_event_deleted(cluster):
    """An event and its bookings are deleted; a replay does not bring them back."""
    event = cluster.make_event(4, 4, "beta")
    for seat in range(1, 5):
        assert cluster.book(event, [(seat, seat)], user=f"gone-{seat}").status == 201
    wait_truth(cluster)
    cluster.sql("beta", f"DELETE FROM claims WHERE event_id = {event};"
                f" DELETE FROM bookings WHERE event_id = {event};"
                f" DELETE FROM events WHERE event_id = {event}")
    wait_truth(cluster)
    cluster.crash("cdc")  # what was not confirmed yet comes again
    cluster.start("cdc")
    wait_running(cluster)
    wait_truth(cluster)
    assert cluster.get(f"/events/{event}/availability").status == 404


def test_unknown_table_and_column(cluster):
    """The publication and the tables grow: what is not ours is passed over."""
    wait_running(cluster)
    cluster.sql("alpha", "CREATE TABLE stranger (id int PRIMARY KEY, t text);"
                " ALTER PUBLICATION seatgrid ADD TABLE stranger;"
                " ALTER TABLE bookings ADD COLUMN note text;"
                " ALTER TABLE events ADD COLUMN poster bytea;"
                " INSERT INTO stranger SELECT i, repeat('x', 3000) FROM generate_series(1, 500) i")
    try:
        event = cluster.make_event(3, 3, "alpha")
        assert cluster.book(event, [(1, 1)]).status == 201
        cluster.sql("alpha", f"UPDATE bookings SET note = repeat('y', 5000) WHERE event_id = {event};"
                    f" UPDATE bookings SET status = 'cancelled' WHERE event_id = {event};"
                    f" UPDATE events SET poster = '\\x00', rows = 4 WHERE event_id = {event};"
                    " TRUNCATE stranger")
        wait_truth(cluster)
        assert cluster.metric("seatgrid_cdc_changes_total", "cdc", shard="alpha",
                              table="unknown") >= 500
    finally:
        cluster.sql("alpha", "ALTER PUBLICATION seatgrid DROP TABLE stranger; DROP TABLE stranger;"
                    " ALTER TABLE bookings DROP COLUMN note; ALTER TABLE events DROP COLUMN poster")
    wait_truth(cluster)


def test_missing_column_blocks_and_says_so(cluster):
    """A column of ours is renamed away: the stream stops with its name, and goes on when it is
    back. The other shard does not notice."""
    wait_running(cluster)
    cluster.sql("alpha", "ALTER TABLE bookings RENAME COLUMN seats TO places")
    try:
        cluster.sql("alpha", "INSERT INTO bookings (event_id, booking_id, user_id, status, places,"
                    " request_hash) VALUES (1, gen_random_uuid(), 'u', 'cancelled', '{1}', 0)")
        wait_until(lambda: "seats" in streams(cluster)["alpha"]["detail"], what="the reason")
        assert streams(cluster)["beta"]["state"] == "running"
    finally:
        cluster.sql("alpha", "ALTER TABLE bookings RENAME COLUMN places TO seats")
    # What is in the WAL under the other name stays there: only a seed gets past it.
    cluster.cdc("POST", "/admin/reseed?shard=alpha")
    wait_running(cluster)
    wait_truth(cluster)


def test_truncate(cluster):
    """TRUNCATE tells no rows: the shard is read anew."""
    wait_running(cluster)
    cluster.sql("beta", "TRUNCATE bookings, claims")
    wait_repair(cluster, "beta", "truncated")
    wait_truth(cluster)


def test_idle_shards_confirm(cluster):
    """Nobody books; other tables write WAL; the slot moves on all the same."""
    wait_running(cluster)
    cluster.sql("alpha", "CREATE TABLE IF NOT EXISTS noise AS"
                " SELECT repeat('n', 1000) FROM generate_series(1, 5000)")
    written = cluster.value("alpha", "SELECT pg_current_wal_lsn()")
    slot = slot_of(cluster, "alpha")
    wait_until(lambda: cluster.value("alpha", "SELECT confirmed_flush_lsn >= "
                                     f"'{written}' FROM pg_replication_slots WHERE slot_name = "
                                     f"'{slot}'") == "t", 20, what="the slot to move")
    cluster.sql("alpha", "DROP TABLE noise")


def test_nothing_left_behind(cluster):
    """After all of that: one slot a shard, and keys of one generation."""
    wait_running(cluster)
    wait_truth(cluster)

    def tidy():
        for shard, node in primaries(cluster).items():
            slots = cluster.sql(node, "SELECT slot_name FROM pg_replication_slots WHERE "
                                "slot_type = 'logical'")
            if slots != [(slot_of(cluster, shard),)]:
                return False
            suffix = f"{shard}.{streams(cluster)[shard]['generation']}"
            with redis(cluster) as connection:
                cursor = "0"
                while True:
                    cursor, keys = connection("SCAN", cursor, "MATCH", f"*:{shard}.*",
                                                      "COUNT", "1000")
                    if any(suffix not in key for key in keys):
                        return False
                    if cursor == "0":
                        break
        return True
    wait_until(tidy, 60, every=0.5, what="left-overs to be removed")
    assert differences(cluster) == []
    assert alive(cluster.pid("cdc"))
