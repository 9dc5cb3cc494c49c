"""The consumer gets out of every corner by itself.

Goal: no order of faults leaves it stuck, leaking, or wrong: a publication that was made anew, a
transaction that stays open, a Redis that is full of what it has left itself, a database that is not
migrated, askers that go away. Method: real servers, brought into that state; then the states, slots
and keys are looked at from outside, and every key is laid beside every row.

SPDX-License-Identifier: MIT
"""

import concurrent.futures
import contextlib
import re
import signal
import socket
import subprocess
import time

from cdc_truth import Churn, streams, wait_running, wait_truth
from harness import SLOWDOWN, Cluster, Ports, binary, environment, timeout, wait_until
from psql import Session
from redis_client import RedisClient
from traffic import Traffic

QUICK = {"cdc.takeover_ms": 2000, "cdc.heartbeat_ms": 500, "cdc.reconcile_ms": 0,
         "redis.max_staleness_ms": 2000, "cdc.seed_timeout_ms": 20000}
CLUSTER = {"cdc": True, "settings": QUICK}


def redis(cluster):
    """A connection to the cluster's Redis."""
    return RedisClient(cluster.port("redis"), timeout=30)


def state_of(cluster, shard="alpha"):
    """What the consumer says of itself; {} if it does not run."""
    try:
        return streams(cluster)[shard]
    except OSError:
        return {}


def insert_booking(event, user, seat, status="confirmed"):
    """SQL of one booking."""
    return ("INSERT INTO bookings (event_id, booking_id, user_id, status, seats, request_hash)"
            f" VALUES ({event}, gen_random_uuid(), {user}, '{status}', '{{{seat}}}', 0);")


@timeout(120)
def test_publication_made_anew(cluster):
    """The WAL before the new publication cannot be decoded any more: a new generation."""
    wait_running(cluster)
    event = cluster.make_event(5, 5, "alpha")
    wait_truth(cluster)
    cluster.sql("alpha", "CREATE TABLE published AS SELECT tablename FROM pg_publication_tables"
                " WHERE pubname = 'seatgrid'; DROP PUBLICATION seatgrid;" +
                insert_booking(event, "'u-1'", 3))
    cluster.sql("alpha", insert_booking(event, "'u-2'", 4))
    wait_until(lambda: state_of(cluster).get("state") == "blocked", 20, what="it to be blocked")
    cluster.sql("alpha", "CREATE PUBLICATION seatgrid FOR TABLE events, bookings;"
                "DROP TABLE published")
    wait_until(lambda: state_of(cluster).get("lastRepair") == "slot_unreadable" and
               state_of(cluster)["state"] == "running", 30, what="the repair")
    wait_truth(cluster)


@timeout(120)
def test_not_migrated_then_migrated(cluster):
    """Without the sequence it says so, and goes on by itself when it is there."""
    wait_running(cluster)
    cluster.stop("cdc")
    cluster.sql("alpha", "ALTER SEQUENCE cdc_epoch RENAME TO cdc_epoch_hidden")
    try:
        cluster.start("cdc")
        wait_until(lambda: "migrate" in state_of(cluster).get("detail", ""), 20, what="the reason")
        cluster.cdc("POST", "/admin/reseed?shard=alpha")
        cluster.cdc("POST", "/admin/reseed?shard=alpha")
    finally:
        cluster.sql("alpha", "ALTER SEQUENCE cdc_epoch_hidden RENAME TO cdc_epoch")
    wait_running(cluster)
    wait_truth(cluster)


@timeout(180)
def test_open_transaction_leaves_no_slots():
    """A transaction stays open for long: every slice of reconcile gives up, and so does the server."""
    settings = {**QUICK, "cdc.reconcile_ms": 200, "cdc.reconcile_timeout_ms": 1000,
                "cdc.seed_timeout_ms": 5000}
    count = ("SELECT count(*) FROM pg_replication_slots WHERE slot_name LIKE 'sg\\_reconcile%'")
    with Cluster(cdc=True, replicas=0, settings=settings) as cluster:
        wait_running(cluster)
        with Session(cluster.port("alpha"), user="postgres") as session:
            session.run("BEGIN; SELECT txid_current()")
            most, end = 0, time.monotonic() + 12 * SLOWDOWN
            while time.monotonic() < end:
                most = max(most, int(cluster.value("alpha", count)))
                time.sleep(0.3)
            assert 0 < most <= 3, most
            answer = cluster.cdc("POST", "/admin/reseed?shard=alpha")
            assert answer.status == 202, answer
            wait_until(lambda: "given up" in state_of(cluster)["detail"], 30, what="the reseed to end")
            assert "open for" in state_of(cluster)["detail"], state_of(cluster)
            session.run("COMMIT")
        wait_truth(cluster)


def fill(connection, shard, generation, megabytes):
    """Keys of a generation, each of a quarter of a megabyte."""
    for i in range(megabytes * 4):
        connection("HSET", f"sg1:{{e:{900000 + i}}}:{shard}.{generation}", "at", "0" * 30, "junk",
                   "j" * 262144)


@timeout(180)
def test_redis_full_of_left_overs(cluster):
    """There is no room for anything, because of keys that nobody reads: they are removed first."""
    wait_running(cluster)
    cluster.sql("alpha", "SELECT nextval('cdc_epoch') FROM generate_series(1, 5)")
    cluster.cdc("POST", "/admin/reseed?shard=alpha")
    wait_until(lambda: not state_of(cluster)["seeding"], 30, what="the reseed")
    with redis(cluster) as connection:
        cluster.crash("cdc")
        fill(connection, "alpha", 1, 20)
        used = int(re.search(r"used_memory:(\d+)", connection("INFO", "memory")).group(1))
        connection("CONFIG", "SET", "maxmemory", str(used - (8 << 20)))
        try:
            cluster.start("cdc")
            wait_running(cluster, seconds=40)
            wait_truth(cluster)
        finally:
            connection("CONFIG", "SET", "maxmemory", "0")


@timeout(180)
def test_redis_full_of_a_generation_that_lost_its_slot(cluster):
    """The keys that a new generation has no room beside are those of one that cannot go on."""
    wait_running(cluster)
    told = state_of(cluster)
    with redis(cluster) as connection:
        cluster.crash("cdc")
        wait_until(lambda: cluster.value("alpha", "SELECT active FROM pg_replication_slots WHERE"
                                         f" slot_name = '{told['slot']}'") == "f", what="an idle slot")
        cluster.sql("alpha", f"SELECT pg_drop_replication_slot('{told['slot']}')")
        fill(connection, "alpha", told["generation"], 20)
        used = int(re.search(r"used_memory:(\d+)", connection("INFO", "memory")).group(1))
        connection("CONFIG", "SET", "maxmemory", str(used - (8 << 20)))
        try:
            cluster.start("cdc")
            wait_running(cluster, seconds=40)
            wait_truth(cluster)
        finally:
            connection("CONFIG", "SET", "maxmemory", "0")


@timeout(120)
def test_odd_users_and_a_reseed(cluster):
    """Whatever a user id may hold comes through the stream and through a seed alike."""
    wait_running(cluster)
    event = cluster.make_event(10, 10, "alpha")
    users = ["E'tab\\tuser'", "E'back\\\\slash'", "'bra}ce{'", "E'\\u00fcml\\u00e4ut'",
             "repeat('w', 64)", "repeat('w', 65)", "E'\\\\N'", "E'\\x01\\x7f'", "''", "' '"]
    for seat, user in enumerate(users):
        cluster.sql("alpha", insert_booking(event, user, seat))
    cluster.cdc("POST", "/admin/reseed?shard=alpha")
    wait_until(lambda: state_of(cluster)["lastRepair"] == "requested" and
               not state_of(cluster)["seeding"], 30, what="the reseed")
    assert "given up" not in state_of(cluster)["detail"], state_of(cluster)
    cluster.sql("alpha", f"DELETE FROM bookings WHERE event_id = {event}"
                " AND octet_length(user_id) NOT BETWEEN 1 AND 64")
    wait_truth(cluster)


@timeout(180)
def test_id_made_again_with_old_bookings(cluster):
    """An event goes, its bookings stay; nothing in Redis tells so; the id is made again."""
    wait_running(cluster)
    event = cluster.make_event(6, 6, "alpha")
    assert cluster.book(event, [(1, 1), (1, 2)]).status == 201
    wait_truth(cluster)
    row = f"INSERT INTO events SELECT * FROM kept WHERE event_id = {event}"
    cluster.sql("alpha", "CREATE TABLE kept AS TABLE events")
    try:
        cluster.sql("alpha", f"DELETE FROM events WHERE event_id = {event}")
        wait_truth(cluster)
        with redis(cluster) as connection:
            key = f"sg1:{{e:{event}}}:alpha.{state_of(cluster)['generation']}"
            assert connection("HGET", key, "deleted") == "1"
            assert connection("TTL", key) == -1, "a tombstone that bookings have outlived stays"
        cluster.cdc("POST", "/admin/reseed?shard=alpha")
        wait_until(lambda: state_of(cluster)["lastRepair"] == "requested" and
                   not state_of(cluster)["seeding"], 30, what="the reseed")
        wait_truth(cluster)
        cluster.sql("alpha", row)
        wait_truth(cluster)
    finally:
        cluster.sql("alpha", "DROP TABLE kept")


@timeout(240)
def test_rubbish_and_askers_that_go_away(cluster):
    """Orders from many sides at once, from clients that do not wait, and rubbish."""
    wait_running(cluster)
    port = cluster.port("cdc")

    def ask(text):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5) as link:
            link.sendall(text)
            link.settimeout(0.05)
            with contextlib.suppress(OSError):
                link.recv(100)
    orders = [f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode()
              for method in ("POST", "GET", "HEAD", "PUT", "DELETE")
              for path in ("/admin/reseed", "/admin/reseed?shard=alpha", "/admin/reconcile?fix=1",
                           "/admin/reconcile?fix=7", "/admin/reconcile?shard=%00", "/metrics",
                           "/admin/streams", "/admin/reseed?shard=" + "z" * 3000, "/nothing")]
    orders += [b"\x00" * 5000, b"POST /admin/reconcile HTTP/1.1\r\n", b"GET / HTTP/9.9\r\n\r\n",
               b"POST /admin/reconcile HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n{}"]
    with Traffic(cluster), Churn(cluster), concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, orders * 6))
    wait_running(cluster)
    wait_until(lambda: not any(s["seeding"] for s in streams(cluster).values()), 60,
               what="the seeds to end")
    wait_truth(cluster)
    answer = cluster.cdc("POST", "/admin/reconcile", timeout=60)
    assert answer.status == 200 and all(s["complete"] for s in answer.json()["shards"]), answer


def hears(pid):
    """Has the process a handler for SIGTERM?"""
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        caught = int(re.search(r"SigCgt:\s+(\w+)", status.read()).group(1), 16)
    return bool(caught >> (signal.SIGTERM - 1) & 1)


@timeout(240)
def test_ends_promptly_in_any_state(cluster):
    """SIGTERM: code 0 within two seconds, whatever it was about to do."""
    def run_for(seconds, before=lambda: None, after=lambda: None):
        ports = Ports(1)
        before()
        try:
            process = subprocess.Popen(
                [binary(), "cdc", "-c", str(cluster.var / "seatgrid.cfg"),
                 "--listen", f"127.0.0.1:{ports.base}"],
                env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            wait_until(lambda: hears(process.pid), what="it to hear signals")
            time.sleep(seconds * SLOWDOWN)
            process.send_signal(signal.SIGTERM)
            begun = time.monotonic()
            _, told = process.communicate(timeout=30 * SLOWDOWN)
            assert process.returncode == 0, told[-3000:]
            assert time.monotonic() - begun < 2 * SLOWDOWN
        finally:
            after()
            ports.release()
    run_for(0.5)  # another one has the shards
    cluster.stop("cdc")
    for seconds in (0, 0.02, 0.05, 0.1, 0.2, 0.4, 1):
        run_for(seconds)
    run_for(1, lambda: cluster.stop("redis"), lambda: cluster.start("redis"))
    run_for(1, lambda: cluster.stop("alpha-1"), lambda: cluster.start("alpha-1"))
    with Session(cluster.port("beta"), user="postgres") as session:
        session.run("BEGIN; SELECT txid_current()")
        with redis(cluster) as connection:
            connection("FLUSHALL")
        for seconds in (0.1, 0.3, 1, 4):
            run_for(seconds)
        session.run("COMMIT")
    cluster.start("cdc")
    wait_running(cluster)
    wait_truth(cluster)


@timeout(180)
def test_spool_overflow_at_small_memory():
    """Streamed transactions that do not fit into the spool, some of them taken back."""
    settings = {**QUICK, "cdc.streaming": "on", "cdc.spool_bytes": 1048576}
    with Cluster(cdc=True, replicas=0, settings=settings) as cluster:
        wait_running(cluster)
        cluster.sql("alpha", "ALTER SYSTEM SET logical_decoding_work_mem = '64kB'")
        cluster.sql("alpha", "SELECT pg_reload_conf()")
        event = cluster.make_event(300, 300, "alpha")
        rows = ("INSERT INTO bookings (event_id, booking_id, user_id, status, seats, request_hash)"
                f" SELECT {event}, gen_random_uuid(), 'u-' || i % 50, 'confirmed', ARRAY[i], 0"
                " FROM generate_series({}, {}) i;")
        with Churn(cluster):
            for i in range(4):
                cluster.sql("alpha", "BEGIN;" + rows.format(i * 9000, i * 9000 + 3999) +
                            "SAVEPOINT s;" + rows.format(80000, 84000) + "ROLLBACK TO s;" +
                            rows.format(i * 9000 + 4000, i * 9000 + 8999) +
                            ("ROLLBACK" if i == 2 else "COMMIT"))
        wait_truth(cluster)


@timeout(180)
def test_older_copy_of_postgres():
    """PostgreSQL comes back as it was some bookings ago: what it has forgotten goes from Redis. It is a
    segment of WAL behind, so that it cannot have caught up before the consumer looks."""
    with Cluster(cdc=True, replicas=0, settings=QUICK) as cluster:
        wait_running(cluster)
        event = cluster.make_event(5, 5, "alpha")
        wait_truth(cluster)
        data = cluster.value("alpha", "SHOW data_directory")
        cluster.stop("alpha-1")
        subprocess.run(["cp", "-a", data, data + ".old"], check=True)
        cluster.start("alpha-1")
        wait_running(cluster)
        for col in (1, 2):
            wait_until(lambda col=col: cluster.book(event, [(1, col)], "forgotten").status == 201,
                       what="a booking")
            cluster.sql("alpha", "SELECT pg_switch_wal()")
        wait_truth(cluster)
        cluster.stop("alpha-1")
        subprocess.run(["rm", "-rf", data], check=True)
        subprocess.run(["mv", data + ".old", data], check=True)
        cluster.start("alpha-1")
        wait_truth(cluster, seconds=60)


@timeout(180)
def test_standby_away_and_back():
    """The synchronous standby is away: nothing new in Redis, nothing stuck; then all of it."""
    with Cluster(cdc=True, replicas=1, settings=QUICK) as cluster:
        wait_running(cluster)
        event = cluster.make_event(9, 9, "alpha")
        wait_truth(cluster)
        cluster.sql("alpha", "ALTER SYSTEM SET synchronous_standby_names = '\"alpha-2\"'")
        cluster.sql("alpha", "SELECT pg_reload_conf()")
        time.sleep(3)
        cluster.stop("alpha-2")
        cluster.sql("alpha", "SET synchronous_commit = local;" + insert_booking(event, "'early'", 5))
        cluster.cdc("POST", "/admin/reseed?shard=alpha")
        time.sleep(8)
        with redis(cluster) as connection:
            number = connection("HGET", "sg1:{s:alpha}", "gen")
            assert connection("EXISTS", f"sg1:{{u:early}}:alpha.{number}") == 0
        cluster.start("alpha-2")
        wait_truth(cluster)
        cluster.sql("alpha", "ALTER SYSTEM RESET synchronous_standby_names")
        cluster.sql("alpha", "SELECT pg_reload_conf()")
