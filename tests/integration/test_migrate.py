"""`seatgrid migrate`: every shard gets the schema, and nothing is ever migrated by guess.

Goal: safe to repeat and to run twice at once; a changed or unknown migration, a database of another
shard and a dead shard are refused by name, and the other shards still get theirs. Method: a cluster
with empty databases, damaged in SQL; the program's own output and exit code, and the tables.

SPDX-License-Identifier: MIT
"""

import hashlib
import json
import pathlib
import re
import subprocess

import life_sql
import seat_model
from harness import ROOT, Cluster, binary, environment, short, wait_until
from psql import Session

NAMES = sorted(path.stem for path in pathlib.Path(ROOT / "migrations").glob("*.sql"))
LATEST = len(NAMES)
# The cluster comes up migrated; each test below starts from empty databases.
CLUSTER = {"no_serve": True}


def empty(cluster, migrated=False):
    """Both shards without any table, or freshly migrated."""
    for shard in ("alpha", "beta"):
        cluster.sql(shard, "DROP DATABASE IF EXISTS seatgrid WITH (FORCE)", database="postgres")
        cluster.sql(shard, "CREATE DATABASE seatgrid OWNER seatgrid", database="postgres")
    if migrated:
        cluster.seatgrid("migrate")


def migrate(cluster, *arguments):
    """(exit code, {shard: report}, standard error)"""
    done = cluster.seatgrid("migrate", "--json", *arguments, check=False)
    reports = {one["shard"]: one for one in json.loads(done.stdout)["shards"]}
    return done.returncode, reports, done.stderr


@short
def test_applies_records_and_names_the_shard(cluster):
    """From nothing to the latest version, with name and sha256 of each migration; then no-op."""
    empty(cluster)
    code, reports, _ = migrate(cluster)
    assert code == 0
    for shard in ("alpha", "beta"):
        assert reports[shard] == {"shard": shard, "node": f"{shard}-1", "before": 0,
                                  "after": LATEST, "latest": LATEST, "error": None}
        applied = cluster.sql(shard, "SELECT version, name, length(sha256) FROM schema_migrations"
                                     " ORDER BY version")
        assert applied == [(str(i + 1), name, "64") for i, name in enumerate(NAMES)]
        assert cluster.sql(shard, "SELECT shard, epoch, fenced FROM shard_meta") == [
            (shard, "1", "f")]
    code, reports, _ = migrate(cluster)
    assert code == 0 and reports["beta"]["before"] == LATEST


def test_a_database_in_use_is_brought_further(cluster):
    """At version 4, with sales: they stay, are told again by their keys, and can be changed; a router
    that is connected and knows only version 4 goes on selling."""
    empty(cluster)
    alpha = cluster.port("alpha-1")
    for number, name in enumerate(NAMES[:4], 1):
        text = (ROOT / "migrations" / f"{name}.sql").read_text(encoding="utf-8")
        with Session(alpha) as session:
            session.run(f"BEGIN;\n{text}")
            if number == 1:
                session.run("""CREATE TABLE schema_migrations (version integer PRIMARY KEY,
                    name text NOT NULL, sha256 text NOT NULL,
                    applied_at timestamptz NOT NULL DEFAULT now());
                    INSERT INTO shard_meta (shard, epoch, fenced) VALUES ('alpha', 1, false)""")
            session.run(f"INSERT INTO schema_migrations VALUES ({number}, '{name}', "
                        f"'{hashlib.sha256(text.encode()).hexdigest()}'); COMMIT")
    with Session(alpha) as router:
        router.run(seat_model.PREPARE + """; INSERT INTO events (event_id, name, starts_at, rows, cols,
                   creation_id) VALUES (1, 'e', now(), 3, 4, gen_random_uuid())""")
        sold = [seat_model.Request(1, [(1, n), (2, n)], "u", f"key-{n}", 5) for n in (1, 2)]
        assert [row["outcome"] for row in seat_model.book(router, sold, 1)] == ["booked"] * 2
        code, reports, _ = migrate(cluster)
        assert code == 0, reports
        assert (reports["alpha"]["before"], reports["alpha"]["after"]) == (4, LATEST)
        again = [*sold, seat_model.Request(1, [(3, 3)], "v"), seat_model.Request(1, [(1, 1)], "v")]
        rows = seat_model.book(router, again, 1)
        assert [row["outcome"] for row in rows] == ["replayed", "replayed", "booked", "seats_taken"]
        assert rows[0]["booking_id"] == sold[0].booking_id and rows[3]["conflicts"] == [1]
        take = life_sql.Take(1, [(1, 1)], "u", key="key-1", body=5)
        (row,) = life_sql.take(router, [take], epoch=1)
        assert (row["outcome"], row["status"], row["amount"]) == ("replayed", "confirmed", 0)
        ticket = (1, sold[0].booking_id)
        rows = life_sql.change(router, [life_sql.Change(ticket, "transfer", text="w"),
                                        life_sql.Change(ticket, "cancel", "w")], epoch=1)
        assert [(row["outcome"], row["status"]) for row in rows] == [
            ("ok", "confirmed"), ("ok", "cancelled")]
        life_sql.check_tables(router)


def test_status_only_looks(cluster):
    """--status changes nothing and says with its exit code whether something is missing."""
    empty(cluster)
    code, reports, _ = migrate(cluster, "--status")
    assert code == 1 and reports["alpha"]["after"] == 0
    assert cluster.value("alpha", "SELECT count(*) FROM pg_tables"
                                  " WHERE schemaname = 'public'") == "0"
    migrate(cluster)
    assert migrate(cluster, "--status")[0] == 0
    text = cluster.seatgrid("migrate", "--status").stdout
    assert re.search(rf"^alpha +alpha-1 +version {LATEST}, up to date$", text, re.MULTILINE), text
    assert all(len(line) <= 80 for line in text.splitlines())


def test_two_at_once(cluster):
    """Several runs at the same moment: all succeed, each migration is applied once."""
    empty(cluster)
    command = [binary(), "migrate", "-c", str(cluster.var / "seatgrid.cfg")]
    runs = [subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, text=True) for _ in range(4)]
    outputs = [run.communicate(timeout=120)[0] for run in runs]
    assert [run.returncode for run in runs] == [0] * 4, outputs
    assert cluster.value("alpha", "SELECT count(*) FROM schema_migrations") == str(LATEST)


def test_changed_text_is_refused(cluster):
    """An applied migration whose text is another now: named, nothing done, others still done."""
    empty(cluster, migrated=True)
    cluster.sql("alpha", "UPDATE schema_migrations SET sha256 = 'x' WHERE version = 1")
    code, reports, errors = migrate(cluster)
    assert code == 1
    assert NAMES[0] in reports["alpha"]["error"] and "another text" in reports["alpha"]["error"]
    assert "shard alpha" in errors
    assert reports["beta"]["error"] is None


def test_hole_is_refused(cluster):
    """A migration that is not recorded below one that is."""
    empty(cluster, migrated=True)
    cluster.sql("beta", "DELETE FROM schema_migrations WHERE version = 1")
    code, reports, _ = migrate(cluster)
    assert code == 1 and "missing" in reports["beta"]["error"]


def test_newer_database_is_refused(cluster):
    """A database that a newer program has migrated."""
    empty(cluster, migrated=True)
    cluster.sql("alpha", "INSERT INTO schema_migrations VALUES (9999, '9999_future', 'x')")
    code, reports, _ = migrate(cluster)
    assert code == 1
    assert "version 9999" in reports["alpha"]["error"], reports
    assert "newer seatgrid" in reports["alpha"]["error"], reports


def test_foreign_shard_is_refused(cluster):
    """The map names a server that holds another shard's data: nothing is written there."""
    empty(cluster, migrated=True)
    cluster.sql("alpha", "UPDATE shard_meta SET shard = 'beta'")
    code, reports, _ = migrate(cluster)
    assert code == 1
    assert "belongs to shard beta, not to alpha" in reports["alpha"]["error"]
    assert cluster.value("alpha", "SELECT shard FROM shard_meta") == "beta"


def test_failing_statement_leaves_nothing(cluster):
    """A migration that fails is named with its line, and leaves neither tables nor a record."""
    empty(cluster)
    cluster.sql("alpha", "CREATE TABLE events (x int)", user="seatgrid")
    code, reports, _ = migrate(cluster)
    assert code == 1
    assert re.match(r"0001_\w+\.sql.*: relation \"events\" already exists",
                    reports["alpha"]["error"]), reports
    assert reports["alpha"]["after"] == 0
    assert cluster.value("alpha", "SELECT to_regclass('claims') IS NULL") == "t"
    assert cluster.value("alpha", "SELECT count(*) FROM schema_migrations") == "0"
    assert reports["beta"]["after"] == LATEST


def test_waits_for_a_lock_in_the_way(cluster):
    """Another migration holds the lock: this one waits, and goes on when it is gone."""
    empty(cluster)
    holder = subprocess.Popen(
        ["psql", "-XAtq", "-h", "127.0.0.1", "-p", str(cluster.port("alpha-1")), "-U", "postgres",
         "-d", "seatgrid", "-c", "SELECT pg_advisory_lock(1397900372, 2), pg_sleep(2)"],
        stdout=subprocess.DEVNULL, env=environment())
    wait_until(lambda: cluster.value("alpha", "SELECT count(*) FROM pg_locks WHERE granted AND"
                                     " classid = 1397900372 AND objid = 2") == "1",
               what="the lock to be held")
    code, reports, _ = migrate(cluster)
    holder.wait(timeout=30)
    assert code == 0 and reports["alpha"]["after"] == LATEST


def test_dead_and_frozen_servers():
    """A shard that is dead, and one that accepts and says nothing: named within a bounded time,
    and the other is migrated. A replica in the primary's place is not written to."""
    with Cluster(no_serve=True) as cluster:
        empty(cluster)
        cluster.stop("alpha-1")
        code, reports, errors = migrate(cluster)
        assert code == 1 and reports["beta"]["after"] == LATEST
        assert "no primary answers" in reports["alpha"]["error"]
        assert "alpha-2: is a replica" in reports["alpha"]["error"]
        assert "shard alpha" in errors
        cluster.start("alpha-1")
        cluster.pause("alpha-1")
        try:
            code, reports, _ = migrate(cluster)
        finally:
            cluster.resume("alpha-1")
        assert code == 1 and "timeout" in reports["alpha"]["error"], reports
        assert migrate(cluster)[0] == 0


def test_usage():
    """--help is an answer; anything unknown, and a configuration that is not there, are usage."""
    def run(*arguments):
        return subprocess.run([binary(), "migrate", *arguments], env=environment(),
                              capture_output=True, text=True, timeout=60, check=False)
    assert run("--help").returncode == 0 and "Usage" in run("--help").stdout
    assert run("--nonsense").returncode == 2
    assert run("something").returncode == 2
    assert run("-c", "/nonexistent.cfg").returncode == 2
