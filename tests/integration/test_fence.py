"""The SQL functions of a change of primary: fences, epochs, attestation, durability.

Goal: migrations/0004_failover.sql does what its comments say: a fence keeps every write out, waits for
those that were let in, ends by itself unless it was made lasting; nobody takes away another's; an
epoch is given once a timeline; a connection that asks for sync gets it or no. Method: sessions on a
real PostgreSQL, which one statement after the other is asked of.

SPDX-License-Identifier: MIT
"""

import uuid

from harness import timeout, wait_until
from psql import Session, literal
from seat_model import EPOCH, RESET

CLUSTER = {"replicas": 0, "no_serve": True}
MINE, OTHER = (literal(str(uuid.uuid4())) for _ in range(2))


def fresh(session):
    """An attested primary without a fence."""
    session.run(RESET)
    return session


def guard(session, epoch=EPOCH):
    """What a write with that epoch would be told."""
    return session.value(f"SELECT write_guard({epoch})")


def fence(session, owner, ms):
    """shard_fence's outcome."""
    return session.value(f"SELECT outcome FROM shard_fence({owner}, {ms})")


@timeout(60)
def test_a_fence_ends_by_itself(cluster):
    """Not before its time, and then for everybody; its owner learns that it has lost it."""
    with Session(cluster.port("alpha-1")) as session:
        fresh(session)
        assert guard(session) == "ok"
        assert fence(session, MINE, 60000) == "ok"
        assert guard(session) == "fenced"
        assert fence(session, OTHER, 60000) == "busy"
        assert session.value(f"SELECT shard_unfence({OTHER})") == "lost"
        assert session.value(f"SELECT shard_fence_keep({OTHER})") == "lost"
        assert fence(session, MINE, 200) == "ok"  # its own, anew
        wait_until(lambda: guard(session) == "ok", what="the fence to end")
        assert session.value(f"SELECT shard_fence_keep({MINE})") == "lost"
        assert fence(session, OTHER, 60000) == "ok"
        assert session.value(f"SELECT shard_fence_keep({OTHER})") == "ok"
        assert session.value("SELECT fenced_until = 'infinity' FROM shard_meta") is True
        assert session.value(f"SELECT shard_unfence({MINE})") == "lost"
        assert session.value(f"SELECT shard_unfence({OTHER})") == "ok"
        assert guard(session) == "ok"
        assert session.value("SELECT epoch FROM shard_meta") == EPOCH


@timeout(60)
def test_a_fence_by_hand_is_nobodys(cluster):
    """Neither a switchover nor an attestation takes it away; also behind one that has ended."""
    with Session(cluster.port("alpha-1")) as session:
        fresh(session)
        assert fence(session, MINE, 1) == "ok"
        wait_until(lambda: guard(session) == "ok", what="the fence to end")
        assert fence(session, "NULL", "NULL") == "ok"
        assert guard(session) == "fenced"
        assert fence(session, MINE, 60000) == "busy"
        session.run("UPDATE shard_meta SET timeline = timeline - 1")
        assert session.value("SELECT outcome FROM shard_attest(own_timeline(), NULL)") == "fenced"
        assert session.value("SELECT shard_unfence(NULL)") == "ok"
        assert session.value("SELECT outcome FROM shard_attest(own_timeline(), NULL)") == "ok"


@timeout(60)
def test_a_fence_waits_for_who_was_let_in(cluster):
    """And who comes behind it waits for it, and is refused."""
    port = cluster.port("alpha-1")
    with Session(port) as writer, Session(port) as operator, Session(port) as late, \
            Session(port) as looker:
        def blocked(session_pid):
            return looker.value(f"SELECT cardinality(pg_blocking_pids({session_pid})) > 0")

        fresh(writer)
        pids = {name: session.value("SELECT pg_backend_pid()")
                for name, session in (("operator", operator), ("late", late))}
        writer.run("BEGIN")
        assert guard(writer) == "ok"
        operator.send(f"SELECT outcome FROM shard_fence({MINE}, 60000)")
        wait_until(lambda: blocked(pids["operator"]), what="the fence to wait")
        late.send(f"SELECT write_guard({EPOCH})")
        wait_until(lambda: blocked(pids["late"]), what="the late one to wait")
        writer.run("COMMIT")
        assert operator.receive() == ["ok"]
        assert late.receive() == ["fenced"]
        writer.run(f"SELECT shard_unfence({MINE})")


@timeout(60)
def test_an_epoch_is_given_once_a_timeline(cluster):
    """Whoever attests first; what else it changes; and a primary of which nobody has yet."""
    with Session(cluster.port("alpha-1")) as session:
        fresh(session)
        assert session.rows("SELECT * FROM shard_attest(own_timeline(), NULL)") == [
            {"outcome": "already", "epoch": EPOCH}]
        assert session.value("SELECT outcome FROM shard_attest(own_timeline() + 1, NULL)") \
            == "stale"
        fence(session, MINE, 60000)
        session.run(f"SELECT shard_fence_keep({MINE})")
        session.run("UPDATE shard_meta SET timeline = timeline - 1")  # as if just promoted
        assert guard(session) == "fenced"
        assert session.rows("SELECT * FROM shard_attest(own_timeline(), '0/1234')") == [
            {"outcome": "ok", "epoch": EPOCH + 1}]
        assert session.rows("SELECT fenced, fence_id, fenced_until, handover_timeline + 1 ="
                            " own_timeline() AS from_before, handover_lsn FROM shard_meta") == [
            {"fenced": False, "fence_id": None, "fenced_until": None, "from_before": True,
             "handover_lsn": "0/1234"}]
        assert guard(session) == "stale_epoch" and guard(session, EPOCH + 1) == "ok"
        session.run("UPDATE shard_meta SET timeline = timeline - 1")
        assert guard(session, EPOCH + 1) == "stale_epoch"  # not attested on this timeline
        session.run("SELECT shard_attest(own_timeline(), NULL)")
        assert session.rows("SELECT handover_timeline, handover_lsn FROM shard_meta") == [
            {"handover_timeline": None, "handover_lsn": None}]


@timeout(60)
def test_sync_or_no(cluster):
    """The guard of a connection that asks for sync: a server that waits for nobody, a session that
    would not wait, a standby that is not there. Others are let in."""
    port = cluster.port("alpha-1")
    with Session(port) as session, Session(port, user="postgres") as admin:
        fresh(session)
        session.run("SET seatgrid.durability = 'async'")
        assert guard(session) == "ok"
        session.run("SET seatgrid.durability = 'sync'")
        assert guard(session) == "not_synchronous"
        assert guard(session, EPOCH + 1) == "stale_epoch"
        admin.run("ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (nobody)'")
        admin.run("SELECT pg_reload_conf()")
        try:
            wait_until(lambda: session.run("SHOW synchronous_standby_names")
                       == ["ANY 1 (nobody)"], what="the setting")
            assert guard(session) == "not_synchronous"  # rather than a COMMIT that hangs
            session.run("SET synchronous_commit = local")
            assert guard(session) == "not_synchronous"
            session.run("SET seatgrid.durability = 'async'")
            assert guard(session) == "ok"
            # Fences and attestations wait for no standby: there may be none yet.
            session.run("SET synchronous_commit = on")
            assert fence(session, MINE, 60000) == "ok"
            assert session.value(f"SELECT shard_unfence({MINE})") == "ok"
            session.run("SET synchronous_commit = local")
            session.run("UPDATE shard_meta SET timeline = timeline - 1")
            session.run("SET synchronous_commit = on")
            assert session.value("SELECT outcome FROM shard_attest(own_timeline(), NULL)") == "ok"
        finally:
            admin.run("ALTER SYSTEM RESET synchronous_standby_names")
            admin.run("SELECT pg_reload_conf()")


@timeout(60)
def test_what_is_told_again_is_waited_for(cluster):
    """A replayed answer writes nothing by itself. With sync its transaction writes, so that its COMMIT
    waits; with async it stays as cheap as it was."""
    booking = literal(str(uuid.uuid4()))
    creation = literal(str(uuid.uuid4()))
    replay = f"SELECT outcome FROM booking_replay(1, {booking}, NULL, %d)"
    create = (f"SELECT outcome FROM create_event({EPOCH}, {creation}, 'Show', 0, 2, 2,"
              " ARRAY[50]::bigint[], ARRAY[60]::bigint[], ARRAY[]::bigint[])")
    with Session(cluster.port("alpha-1")) as session:
        def asked(statement, durability):
            session.run(f"BEGIN; SET LOCAL seatgrid.durability = '{durability}'")
            outcome = session.value(statement)
            wrote = session.value("SELECT pg_current_xact_id_if_assigned() IS NOT NULL")
            session.run("COMMIT")
            return outcome, wrote

        fresh(session)
        session.run("INSERT INTO bookings (event_id, booking_id, user_id, status, seats,"
                    f" request_hash) VALUES (1, {booking}, 'u', 'confirmed', '{{1}}', 5)")
        assert asked(replay % 5, "async") == ("replayed", False)
        assert asked(replay % 5, "sync") == ("replayed", True)
        assert asked(replay % 6, "sync") == ("key_reused", False)
        assert session.value(create) == "created"
        assert asked(create, "async") == ("created", False)
        session.run("ALTER FUNCTION write_guard(bigint) RENAME TO write_guard_kept")
        session.run("CREATE FUNCTION write_guard(bigint) RETURNS text LANGUAGE sql"
                    " AS $$ SELECT 'ok' $$")
        try:
            assert asked(create, "sync") == ("created", True)
        finally:
            session.run("DROP FUNCTION write_guard(bigint)")
            session.run("ALTER FUNCTION write_guard_kept(bigint) RENAME TO write_guard")
