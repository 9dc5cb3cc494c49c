"""What the consumer of the WAL would have written into Redis, for tests that run without one.

    with Keys(cluster) as keys:            a connection to the cluster's Redis, and a beat
        keys.go_live("alpha", "beta")      both shards are kept in step, from now on
        keys.event(17, "alpha", rows=10, cols=10, held=1, booked=2)
        keys.tickets("u-1", "alpha", {booking_id: event_id})
        keys.stop_beat()                   the consumer has died

The names are those of base/rediskeys.h. Standard library only.

SPDX-License-Identifier: MIT
"""

import threading
import time

from harness import wait_until
from redis_client import RedisClient

GENERATION = 7
AT = "0" * 30


class Keys:
    """Writes keys of generation 7, and moves the beat of the shards that are live."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.redis = RedisClient(cluster.port("redis"))
        self._beating = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()
        self.redis.close()

    def _beat(self):
        """On a connection of its own, for as long as there is a Redis."""
        redis = None
        while not self._stop.wait(0.05):
            try:
                redis = redis or RedisClient(self.cluster.port("redis"), timeout=2)
                for shard in list(self._beating):
                    redis("HINCRBY", f"sg1:{{s:{shard}}}", "beat", "1")
            except OSError:
                redis = None
        if redis:
            redis.close()

    def say_live(self, *shards):
        """The shards' hashes say "live", and their beat moves."""
        for shard in shards:
            self.redis("HSET", f"sg1:{{s:{shard}}}", "gen", str(GENERATION), "epoch", "1",
                       "state", "live", "lsn", "1")
            self._beating.add(shard)

    def go_live(self, *shards):
        """The same; back when the API believes it."""
        self.say_live(*shards)
        self.wait_believed(*shards)

    def wait_believed(self, *shards):
        """Until every worker reads from Redis for each of the shards."""
        for shard in shards:
            event = {"alpha": 999999, "beta": 1999999}[shard]
            self.event(event, shard, 1, 1)
            seen = []

            def all_redis(event=event, seen=seen):
                answer = self.cluster.get(f"/events/{event}/availability")
                seen.append(answer.status == 200 and answer.json()["source"] == "redis")
                return len(seen) >= 20 and all(seen[-20:])

            wait_until(all_redis, every=0.01, what=f"the API to read {shard} from Redis")
            self.redis("DEL", f"sg1:{{e:{event}}}:{shard}.{GENERATION}")

    def stop_beat(self, *shards):
        """Nobody keeps them in step any more."""
        self._beating -= set(shards or tuple(self._beating))
        time.sleep(0.1)

    def event(self, event_id, shard, rows, cols, held=0, booked=0, **more):
        """The counters of an event."""
        fields = {"total": rows * cols, "available": rows * cols - held - booked, "held": held,
                  "booked": booked, "rows": rows, "cols": cols, "at": AT, "epoch": 1, **more}
        self._hash(f"sg1:{{e:{event_id}}}:{shard}.{GENERATION}", fields)

    def tickets(self, user, shard, bookings):
        """The index entry of a user on a shard: {booking_id: event_id}."""
        self._hash(f"sg1:{{u:{user}}}:{shard}.{GENERATION}", {"at": AT, "epoch": 1, **bookings})

    def _hash(self, key, fields):
        self.redis("DEL", key)
        self.redis("HSET", key, *[str(item) for pair in fields.items() for item in pair])
