"""The consumer follows a planned change of the primary without a new generation of keys.

Goal: after a switchover, whatever happens to the consumer meanwhile, Redis equals SQL; and when it was
drained first, with the same keys as before. Without the drain, or after a promotion that nobody
planned, the keys are built anew. Method: real servers under bookings; the steps of a switchover one by
one in SQL, so that a fault can be put between any two of them.

SPDX-License-Identifier: MIT
"""

import contextlib
import time
import uuid

from cdc_truth import streams, wait_running, wait_truth
from harness import Cluster, short, timeout, wait_until
from redis_client import RedisClient
from traffic import Traffic

# The slow reconcile runs all the time: it must not disturb, and not be disturbed.
SETTINGS = {"cdc.heartbeat_ms": 200, "cdc.reconcile_ms": 300, "cdc.takeover_ms": 10000,
            "redis.max_staleness_ms": 2000}


def at_least(lsn):
    """SQL: has this standby replayed it?"""
    return f"SELECT pg_last_wal_replay_lsn() >= '{lsn}'"


class Switchover:
    """One switchover of alpha, step by step."""

    def __init__(self, cluster, old="alpha-1", new="alpha-2"):
        self.cluster, self.old, self.new = cluster, old, new
        self.id = uuid.uuid4()
        self.lsn = self.drained = None
        told = streams(cluster)["alpha"]
        self.slot, self.generation = told["slot"], told["generation"]
        self.reseeds = self._reseeds()

    def _reseeds(self):
        return self.cluster.metric("seatgrid_cdc_repairs_total", "cdc", shard="alpha", how="reseed")

    def fence(self):
        """Keeps every write out; what is in before it is behind self.lsn."""
        outcome = self.cluster.sql(self.old, f"SELECT outcome FROM shard_fence('{self.id}', 60000)")
        assert outcome == [("ok",)], outcome
        self.lsn = self.cluster.value(self.old, "SELECT pg_current_wal_insert_lsn()")
        return self

    def drain(self):
        """The consumer says that Redis has everything."""
        answer = self.cluster.cdc("POST", "/admin/drain?shard=alpha&timeout_ms=20000&timeline="
                                  f"{self._timeline(self.old)}&lsn={self.lsn}", timeout=40)
        assert answer.status == 200, answer
        self.drained = answer.json()
        assert self.drained["slot"] == self.slot, self.drained
        assert self.drained["generation"] == self.generation, self.drained
        assert self.drained["timeline"] == self._timeline(self.old), self.drained
        assert self.drained["system"] == self.cluster.value(
            self.old, "SELECT system_identifier FROM pg_control_system()"), self.drained
        assert self.cluster.value(self.old, f"SELECT '{self.drained['lsn']}'::pg_lsn >="
                                            f" '{self.lsn}'") == "t", self.drained
        return self

    def _timeline(self, node):
        return int(self.cluster.value(node, "SELECT own_timeline()"))

    def keep(self):
        """The fence stays for good, and the new primary has it."""
        assert self.cluster.value(self.old, f"SELECT shard_fence_keep('{self.id}')") == "ok"
        lsn = self.cluster.value(self.old, "SELECT pg_current_wal_insert_lsn()")
        wait_until(lambda: self.cluster.value(self.new, at_least(lsn)) == "t",
                   what=f"{self.new} to replay {lsn}")
        return self

    def promote(self):
        """The new primary is one, and not written to yet."""
        assert self.cluster.value(self.new, "SELECT pg_promote(true, 60)") == "t"
        return self

    def make_slot(self):
        """Where the consumer is to go on."""
        self.cluster.sql(self.new, f"SELECT pg_create_logical_replication_slot('{self.slot}',"
                                   " 'pgoutput')")
        return self

    def attest(self):
        """The new primary is written to; tells whether the consumer was drained."""
        handover = f"'{self.lsn}'" if self.drained else "NULL"
        outcome = self.cluster.sql(self.new, "SELECT outcome FROM shard_attest(own_timeline(),"
                                             f" {handover})")
        assert outcome == [("ok",)], outcome
        return self

    def drop_old_slot(self):
        """Ends whoever reads it first."""
        def dropped():
            self.cluster.sql(self.old, "SELECT pg_terminate_backend(active_pid) FROM"
                                       f" pg_replication_slots WHERE slot_name = '{self.slot}' AND"
                                       " active_pid IS NOT NULL")
            try:
                self.cluster.sql(self.old, "SELECT pg_drop_replication_slot(slot_name) FROM"
                                           f" pg_replication_slots WHERE slot_name = '{self.slot}'")
            except AssertionError:  # not gone yet, or read again
                return False
            return self.cluster.value(self.old, "SELECT count(*) FROM pg_replication_slots WHERE"
                                                f" slot_name = '{self.slot}'") == "0"
        wait_until(dropped, what="the old slot to be dropped")
        return self

    def finish(self):
        """All steps that are left."""
        return self.keep().promote().make_slot().attest().drop_old_slot()

    def wait_followed(self):
        """Until the consumer reads from the new primary, with the keys it had."""
        wait_on(self.cluster, self.new)
        told = streams(self.cluster)["alpha"]
        assert told["generation"] == self.generation, told
        assert told["slot"] == self.slot, told
        assert self._reseeds() == self.reseeds, self.cluster.log_tail("cdc", 40)

    def wait_built_anew(self, reason):
        """Until it does, with new ones, for that reason."""
        wait_on(self.cluster, self.new)
        told = streams(self.cluster)["alpha"]
        assert told["generation"] > self.generation, told
        assert told["lastRepair"] == reason, told


def wait_on(cluster, node):
    """Until the consumer of alpha streams from the node."""
    def there():
        try:
            told = streams(cluster)["alpha"]
        except OSError:
            return False
        return told["state"] == "running" and told["node"] == node
    wait_until(there, 60, what=f"the consumer to stream from {node}")


def check_truth(cluster):
    """Redis equals SQL, and the consumer's own comparison says so, too."""
    wait_truth(cluster, 60)

    def compared():
        answer = cluster.cdc("POST", "/admin/reconcile?shard=alpha", timeout=60)
        if answer.status == 409:
            return None
        assert answer.status == 200, answer
        one = answer.json()["shards"][0]
        told.append(one.get("detail"))
        return one if one["complete"] else None
    told = []
    try:
        found = wait_until(compared, 60, every=0.2, what="a whole reconcile")
    except AssertionError as error:
        raise AssertionError(f"{error}: {told[-3:]}") from None
    assert found["drift"] == 0, found
    assert cluster.metric("seatgrid_cdc_healed_total", "cdc", shard="alpha") == 0


def new_cluster(replicas=1, **settings):
    """A cluster with a consumer whose heartbeats are quick."""
    return Cluster(cdc=True, replicas=replicas, settings={**SETTINGS, **settings})


@contextlib.contextmanager
def new_cluster_with_sales(replicas=1):
    """The same, and an event of alpha of which the first three seats are sold."""
    with new_cluster(replicas) as cluster:
        wait_running(cluster)
        event = cluster.make_event(5, 30, "alpha")
        sell_some(cluster, event, 1)
        yield cluster, event


def sell_some(cluster, event, first):
    """Three seats of an event, one booking each."""
    for seat in range(first, first + 3):
        wait_until(lambda seat=seat: cluster.book(event, [(1, seat)], user=f"s-{seat}").status
                   in (201, 409), 40, every=0.2, what="a booking on alpha")


def hash_of(cluster):
    """What Redis says of alpha."""
    with RedisClient(cluster.port("redis"), timeout=30) as redis:
        return redis.hash("sg1:{s:alpha}")


@short
@timeout(240)
def test_a_switchover_under_load():
    """The same keys before and after, nothing compared differs, and bookings go on."""
    with new_cluster() as cluster:
        wait_running(cluster)
        with Traffic(cluster, bookers=1, readers=1, pause=0.02) as traffic:
            traffic.wait_for(20, shard="alpha")
            step = Switchover(cluster).fence().drain().finish()
            step.wait_followed()
            traffic.wait_for(20, 40, shard="alpha")
        assert streams(cluster)["alpha"]["lastRepair"] == "switched_over"
        check_truth(cluster)
        assert cluster.sql("alpha-2", "SELECT handover_timeline, handover_lsn FROM shard_meta") == \
            [("", "")]
        assert hash_of(cluster)["timeline"] == cluster.value("alpha-2", "SELECT own_timeline()")


@timeout(240)
def test_a_drain_says_when():
    """Nothing published is behind the fence, and it is drained at once; an LSN of nowhere is
    refused; after a switchover that came to nothing all goes on as before."""
    with new_cluster() as cluster:
        wait_running(cluster)
        event = cluster.make_event(5, 30, "alpha")
        step = Switchover(cluster).fence()
        took = []
        for _ in range(5):
            step.lsn = cluster.value("alpha-1", "SELECT pg_current_wal_insert_lsn()")
            start = time.monotonic()
            step.drain()
            took.append(time.monotonic() - start)
        assert min(took) < 1, took  # not after a heartbeat, a report or a time limit
        refused = cluster.cdc("POST", "/admin/drain?shard=alpha&timeout_ms=20000&lsn=FFFF/0")
        assert refused.status == 422 and refused.code == "invalid_value", refused
        other = cluster.cdc("POST", "/admin/drain?shard=alpha&timeout_ms=20000&timeline=77&lsn="
                            f"{step.lsn}")
        assert other.status == 422, other
        assert cluster.value("alpha-1", f"SELECT shard_unfence('{step.id}')") == "ok"
        sell_some(cluster, event, 1)
        check_truth(cluster)
        assert streams(cluster)["alpha"]["generation"] == step.generation


@timeout(240)
def test_a_handover_counts_once():
    """The consumer died when the hash had followed and the handover was not taken out yet. It is when
    the next one resumes: a Redis that comes back later with the hash of before lacks something."""
    with new_cluster_with_sales() as (cluster, event):
        step = Switchover(cluster).fence().drain().finish()
        step.wait_followed()
        cluster.crash("cdc")
        cluster.sql("alpha-2", "UPDATE shard_meta SET handover_timeline = 1,"
                               f" handover_lsn = '{step.lsn}'")
        cluster.start("cdc")
        wait_on(cluster, "alpha-2")
        sell_some(cluster, event, 4)
        wait_truth(cluster)
        cluster.crash("cdc")
        with RedisClient(cluster.port("redis"), timeout=30) as redis:
            high, low = step.lsn.split("/")
            redis("HSET", "sg1:{s:alpha}", "timeline", "1",
                  "lsn", str(int(high, 16) << 32 | int(low, 16)))
            redis("HSET", f"sg1:{{e:{event}}}:alpha.{step.generation}", "booked", "3")
        cluster.start("cdc")
        step.wait_built_anew("failover")
        check_truth(cluster)


@timeout(240)
def test_without_a_drain_keys_are_built_anew():
    """The operator could not ask the consumer: nobody knows what is missing."""
    with new_cluster_with_sales() as (cluster, event):
        wait_truth(cluster)
        step = Switchover(cluster).fence().finish()
        step.wait_built_anew("failover")
        sell_some(cluster, event, 4)
        check_truth(cluster)
        # the slot that was made for it is a left-over
        wait_until(lambda: cluster.value("alpha-2", "SELECT count(*) FROM pg_replication_slots WHERE"
                                                    f" slot_name = '{step.slot}'") == "0",
                   40, what="the slot of the former generation to go")


@timeout(240)
def test_a_promotion_that_nobody_planned():
    """The standby becomes the primary while the old one still writes heartbeats."""
    with new_cluster_with_sales() as (cluster, event):
        wait_truth(cluster)
        step = Switchover(cluster)
        step.promote()
        step.wait_built_anew("failover")
        cluster.stop("alpha-1")
        sell_some(cluster, event, 4)
        check_truth(cluster)


@timeout(300)
def test_consumer_dies_between_drain_and_switch():
    """It comes back when all is over, or in the middle, and goes on with the keys it had."""
    for restart_at in ("before", "between", "after"):
        with new_cluster_with_sales() as (cluster, event):
            step = Switchover(cluster).fence().drain()
            cluster.crash("cdc")
            if restart_at == "before":
                cluster.start("cdc")
                wait_on(cluster, "alpha-1")
            step.reseeds = 0  # counters of the new process
            step.keep().promote()
            if restart_at == "between":
                cluster.start("cdc")
            step.make_slot().attest().drop_old_slot()
            if restart_at == "after":
                sell_some(cluster, event, 4)
                cluster.start("cdc")
            step.wait_followed()
            sell_some(cluster, event, 7)
            check_truth(cluster)


@timeout(240)
def test_marks_past_the_fork():
    """The consumer goes on with a fenced primary that nobody copies any more: Redis is then ahead of
    all that the new primary has, by nothing but marks."""
    with new_cluster_with_sales() as (cluster, event):
        step = Switchover(cluster).fence().drain().keep()
        cluster.sql("alpha-2", "ALTER SYSTEM SET primary_conninfo = ''")
        cluster.sql("alpha-2", "SELECT pg_reload_conf()")
        wait_until(lambda: cluster.value("alpha-1", "SELECT count(*) FROM pg_stat_replication WHERE"
                                                    " application_name = 'alpha-2'") == "0",
                   what="no standby")
        fork = int(cluster.value("alpha-2", "SELECT (pg_last_wal_receive_lsn() - '0/0')::bigint"))
        cluster.sql("alpha-1", "SELECT pg_logical_emit_message(false, 'filler', repeat('x', 300000))")
        step.lsn, drained_lsn = cluster.value("alpha-1", "SELECT pg_current_wal_insert_lsn()"), step.lsn
        step.drain()
        step.lsn = drained_lsn
        assert int(hash_of(cluster)["lsn"]) > fork + 250000
        step.promote()
        # not seeded while the new primary is not attested, however often it looks
        wait_until(lambda: streams(cluster)["alpha"]["node"] == "alpha-2" and
                   streams(cluster)["alpha"]["state"] == "waiting", 40, what="the consumer to wait")
        step.make_slot().attest()
        step.wait_followed()
        assert int(hash_of(cluster)["lsn"]) < fork + 250000
        sell_some(cluster, event, 4)
        check_truth(cluster)


@timeout(240)
def test_the_old_slot_goes_before_the_new_primary_is_there():
    """The consumer waits on the fenced primary, and builds nothing there."""
    with new_cluster_with_sales() as (cluster, event):
        step = Switchover(cluster).fence().drain().keep().drop_old_slot()
        wait_until(lambda: streams(cluster)["alpha"]["state"] == "waiting", 40,
                   what="the consumer to wait")
        assert "switchover" in streams(cluster)["alpha"]["detail"]
        time.sleep(1)
        assert cluster.value("alpha-1", "SELECT count(*) FROM pg_replication_slots WHERE slot_type ="
                                        " 'logical'") == "0"
        step.promote().make_slot().attest()
        step.wait_followed()
        sell_some(cluster, event, 4)
        check_truth(cluster)


@timeout(300)
def test_again_and_again():
    """Two switchovers, one after the other, each to a standby that follows the last primary; then
    one more that the consumer is away for, together with the one before."""
    with new_cluster_with_sales(replicas=3) as (cluster, event):
        for old, new in (("alpha-1", "alpha-2"), ("alpha-2", "alpha-3")):
            step = Switchover(cluster, old, new).fence().drain()
            follow(cluster, new, None)  # nobody but the new primary has the very end
            step.finish().wait_followed()
            follow(cluster, new, new)
            cluster.stop(old)
            sell_some(cluster, event, 4 if new == "alpha-2" else 7)
            check_truth(cluster)
        step = Switchover(cluster, "alpha-3", "alpha-4").fence().drain()
        cluster.crash("cdc")
        step.finish()
        sell_some(cluster, event, 10)
        # as if one more had happened: a handover from a timeline that the hash never saw
        cluster.sql("alpha-4", "UPDATE shard_meta SET handover_timeline = timeline")
        cluster.start("cdc")
        step.wait_built_anew("failover")
        check_truth(cluster)


def follow(cluster, new, primary):
    """All living standbys of alpha but the new primary copy this one, or (None) nobody."""
    for name, server in cluster.status().items():
        if server["shard"] != "alpha" or not server["pid"] or name == new:
            continue
        if cluster.value(name, "SELECT pg_is_in_recovery()") == "f":
            continue
        source = f"host=127.0.0.1 port={cluster.port(primary)} user=postgres" \
                 f" application_name={name}" if primary else ""
        cluster.sql(name, "ALTER SYSTEM SET primary_slot_name = ''")
        cluster.sql(name, f"ALTER SYSTEM SET primary_conninfo = '{source}'")
        cluster.sql(name, "SELECT pg_reload_conf()")
        wait_until(lambda name=name: cluster.value(
            name, "SELECT count(*) FROM pg_stat_wal_receiver WHERE status = 'streaming'")
            == ("1" if primary else "0"), 40, what=f"{name} to follow {primary}")


@timeout(240)
def test_a_standby_by_any_name():
    """With '*' PostgreSQL counts the consumer itself as a standby: it says so, and does not wait for
    itself; named standbys are the way out."""
    with new_cluster(**{"cdc.redis_loss_ms": 200, "cdc.feedback_ms": 100}) as cluster:
        wait_running(cluster)
        event = cluster.make_event(5, 30, "alpha")

        def counted(expected):
            return (streams(cluster)["alpha"]["countedStandby"] is expected and
                    cluster.metric("seatgrid_cdc_counted_standby", "cdc",
                                   shard="alpha") == int(expected))

        def say(names):
            cluster.sql("alpha-1", f"ALTER SYSTEM SET synchronous_standby_names = '{names}'")
            cluster.sql("alpha-1", "SELECT pg_reload_conf()")
        for i, names in enumerate(("*", "ANY 1 (*)")):
            say(names)
            wait_until(lambda: counted(True), 40, what=f"the alarm for {names}")
            sell_some(cluster, event, 1 + 3 * i)
            check_truth(cluster)
        # two are wanted, and the consumer must not make up for the one that is not there
        assert "synchronous_standby_names" in cluster.log("cdc")
        say('FIRST 2 ("alpha-2", *)')
        cluster.restart("cdc")  # so that it knows
        wait_running(cluster)
        generation = streams(cluster)["alpha"]["generation"]
        sell_some(cluster, event, 7)
        time.sleep(1)
        with RedisClient(cluster.port("redis"), timeout=30) as redis:
            assert redis("HGET", f"sg1:{{e:{event}}}:alpha.{generation}", "booked") == "6"
        say('"alpha-2"')
        wait_until(lambda: counted(False), 40, what="the alarm to pass")
        check_truth(cluster)
