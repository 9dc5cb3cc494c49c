#!/usr/bin/python3
"""The long version of tests/integration/test_cdc.py: hundreds of random kills, then the truth.

    bookings over HTTP, lives of bookings by SQL ─> PostgreSQL ─> seatgrid cdc ─> Redis
              kill -9 of the consumer, of Redis, of a primary; FLUSHALL; a slot dropped; ...

After every --round kills the load stops and every counter and every entry of the index is compared
with SQL. The seed is printed; --seed repeats the order of faults. Exit: 0 no difference ever, 1 not.

SPDX-License-Identifier: MIT
"""

import argparse
import collections
import contextlib
import pathlib
import random
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "integration"))

from cdc_truth import SHARDS, Churn, streams, wait_running, wait_truth  # noqa: E402
from harness import Cluster, wait_until  # noqa: E402
from redis_client import RedisClient, RedisError  # noqa: E402
from traffic import Traffic  # noqa: E402

SETTINGS = {"cdc.takeover_ms": 2000, "cdc.heartbeat_ms": 500, "log.level": "info"}


class Faults:
    """Each does one kill, at once, and sees to it that the server is started again."""

    def __init__(self, cluster, rng):
        self.cluster = cluster
        self.rng = rng
        # How often each is chosen.
        self.weights = {self.kill_consumer: 60, self.kill_redis: 10, self.flush: 5,
                        self.end_walsender: 10, self.kill_primary: 3, self.drop_slot: 4,
                        self.pause_consumer: 4, self.pause_redis: 4}

    def one(self):
        """A random fault; its name."""
        fault = self.rng.choices(list(self.weights), list(self.weights.values()))[0]
        fault()
        return fault.__name__

    def kill_consumer(self):
        self.cluster.crash("cdc")
        self.cluster.start("cdc")

    def kill_redis(self):
        self.cluster.crash("redis")
        time.sleep(self.rng.uniform(0, 1))
        self.cluster.start("redis")

    def flush(self):
        with contextlib.suppress(OSError, RedisError):
            with RedisClient(self.cluster.port("redis")) as redis:
                redis("FLUSHALL")

    def end_walsender(self):
        self.cluster.sql(self.rng.choice(SHARDS), "SELECT pg_terminate_backend(active_pid)"
                         " FROM pg_replication_slots WHERE slot_type = 'logical' AND active")

    def kill_primary(self):
        name = f"{self.rng.choice(SHARDS)}-1"
        self.cluster.crash(name)
        self.cluster.start(name)

    def drop_slot(self):
        shard = self.rng.choice(SHARDS)
        self.cluster.crash("cdc")
        wait_until(lambda: self.cluster.value(
            shard, "SELECT count(*) FROM pg_replication_slots WHERE slot_type = 'logical' AND"
            " active") == "0", what="an idle slot")
        self.cluster.sql(shard, "SELECT pg_drop_replication_slot(slot_name) FROM"
                         " pg_replication_slots WHERE slot_type = 'logical'")
        self.cluster.start("cdc")

    def pause_consumer(self):
        self.cluster.pause("cdc")
        time.sleep(self.rng.uniform(0.5, 3))
        self.cluster.resume("cdc")

    def pause_redis(self):
        self.cluster.pause("redis")
        time.sleep(self.rng.uniform(0.5, 4))
        self.cluster.resume("redis")


def away(cluster, seconds, rng):
    """Redis is not there for so long, under load."""
    with Traffic(cluster, seed=rng.randrange(1 << 30)) as traffic, Churn(cluster):
        time.sleep(1)
        cluster.stop("redis")
        time.sleep(seconds)
        cluster.start("redis")
        time.sleep(1)
    sold = sum(1 for record in traffic.records if record.kind == "book" and record.status == 201)
    start = time.monotonic()
    wait_running(cluster, seconds=90)
    wait_truth(cluster, seconds=120)
    print(f"  Redis away for {seconds} s, {sold} bookings meanwhile, no difference after "
          f"{time.monotonic() - start:.1f} s", flush=True)


def soak(cluster, arguments, rng):
    """Rounds of faults under load; the counts of each."""
    faults, counts, done = Faults(cluster, rng), collections.Counter(), 0
    rss = []
    while done < arguments.kills:
        with Traffic(cluster, seed=rng.randrange(1 << 30)), Churn(cluster):
            for _ in range(min(arguments.round, arguments.kills - done)):
                time.sleep(rng.uniform(0, 1))
                counts[faults.one()] += 1
                done += 1
        wait_running(cluster, seconds=90)
        start = time.monotonic()
        wait_truth(cluster, seconds=120)
        rss.append(cluster.rss_bytes("cdc"))
        repairs = {shard: stream["repairs"] for shard, stream in streams(cluster).items()}
        print(f"  {done:4d} kills, no difference after {time.monotonic() - start:.1f} s, "
              f"RSS {rss[-1] / 1e6:.1f} MB, repairs since its last start {repairs}", flush=True)
    return counts


def main():
    parser = argparse.ArgumentParser(prog="soak_cdc", description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--round", type=int, default=20, help="kills between two comparisons")
    parser.add_argument("--away", type=int, default=60, help="seconds without Redis at first")
    parser.add_argument("--seed", type=int, default=None)
    arguments = parser.parse_args()
    seed = random.randrange(1 << 30) if arguments.seed is None else arguments.seed
    print(f"  seed {seed}", flush=True)
    start = time.monotonic()
    try:
        with Cluster(cdc=True, settings=SETTINGS) as cluster:
            wait_running(cluster)
            if arguments.away:
                away(cluster, arguments.away, random.Random(seed))
            counts = soak(cluster, arguments, random.Random(seed))
    except AssertionError as problem:
        print(f"FAILED: {problem}", file=sys.stderr)
        return 1
    print(f"  {dict(counts)} in {time.monotonic() - start:.0f} s: ok")
    return 0


if __name__ == "__main__":
    sys.exit(main())
