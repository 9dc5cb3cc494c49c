"""What Redis should hold, by SQL, laid beside what it holds, by its own keys.

    wait_truth(cluster)      until every counter and every index entry of both shards equals SQL
    differences(cluster)     the same as a list of sentences, now
    Churn(cluster)           holds, confirmations, cancellations and expiries by SQL, in a `with` block
    streams(cluster)         {shard: what the consumer says of its stream}

Nothing here knows how the consumer works: it reads the keys that base/rediskeys.h promises, and the
tables. Standard library only.

SPDX-License-Identifier: MIT
"""

import random
import re
import subprocess
import threading

from harness import SLOWDOWN, environment, wait_until
from redis_client import RedisClient, RedisError

SHARDS = ("alpha", "beta")
EVENTS = """
SELECT e.event_id, e.rows::bigint * e.cols,
       coalesce(sum(cardinality(b.seats)) FILTER (WHERE b.status = 'held'), 0),
       coalesce(sum(cardinality(b.seats)) FILTER (WHERE b.status = 'confirmed'), 0)
  FROM events e LEFT JOIN bookings b USING (event_id) GROUP BY e.event_id"""
TICKETS = """
SELECT user_id, booking_id, event_id FROM bookings WHERE status IN ('held', 'confirmed')"""


def primaries(cluster):
    """{shard: node} that takes writes now, as the servers themselves say."""
    found = {}
    for name, server in cluster.status().items():
        if not server["shard"] or not server["pid"]:
            continue
        try:
            if cluster.value(name, "SELECT pg_is_in_recovery()") == "f":
                found[server["shard"]] = name
        except AssertionError:
            pass
    return found


def by_sql(cluster, node):
    """({event: (total, available, held, booked)}, {(user, booking): event})"""
    events = {}
    for event, total, held, booked in cluster.sql(node, EVENTS):
        total, held, booked = int(total), int(held), int(booked)
        events[int(event)] = (total, total - held - booked, held, booked)
    return events, {(user, booking): int(event)
                    for user, booking, event in cluster.sql(node, TICKETS)}


def pages(redis, pattern):
    """All keys of a pattern; SCAN may name one twice."""
    cursor, keys = "0", set()
    while True:
        cursor, found = redis("SCAN", cursor, "MATCH", pattern, "COUNT", "5000")
        keys.update(found)
        if cursor == "0":
            return sorted(keys)


def by_redis(redis, shard):
    """The same from the keys of the shard's current generation; None if there is none."""
    generation = redis("HGET", f"sg1:{{s:{shard}}}", "gen")
    if generation is None:
        return None
    suffix = f":{shard}.{generation}"
    events, tickets = {}, {}
    event_keys = pages(redis, f"sg1:{{e:*}}{suffix}")
    user_keys = pages(redis, f"sg1:{{u:*}}{suffix}")
    answers = redis.pipeline([("HGETALL", key) for key in event_keys + user_keys])
    for key, answer in zip(event_keys + user_keys, answers):
        fields = {answer[i]: answer[i + 1] for i in range(0, len(answer), 2)}
        text = key
        if text.startswith("sg1:{u:"):
            user = text[len("sg1:{u:"):-len("}" + suffix)]
            for field, value in fields.items():
                if field not in ("at", "epoch"):
                    tickets[user, field] = int(value)
        elif "deleted" not in fields:
            event = int(re.match(r"sg1:\{e:(\d+)\}", text).group(1))
            events[event] = tuple(int(fields[name]) for name in ("total", "available", "held",
                                                                  "booked"))
    return events, tickets


def laid_beside(kind, wanted, found):
    """Sentences about what differs."""
    for key in sorted(set(wanted) | set(found), key=str):
        if wanted.get(key) != found.get(key):
            yield f"{kind} {key}: SQL says {wanted.get(key)}, Redis {found.get(key)}"


def differences(cluster, shards=SHARDS):
    """All of them; empty when Redis tells the truth."""
    told = []
    nodes = primaries(cluster)
    with RedisClient(cluster.port("redis"), timeout=60) as redis:
        for shard in shards:
            if shard not in nodes:
                told.append(f"{shard} has no primary")
                continue
            found = by_redis(redis, shard)
            if found is None:
                told.append(f"{shard} has no generation in Redis")
                continue
            if redis("HGET", f"sg1:{{s:{shard}}}", "state") != "live":
                told.append(f"{shard} is not live in Redis")
            events, tickets = by_sql(cluster, nodes[shard])
            told += [f"{shard}: {text}" for text in laid_beside("event", events, found[0])]
            told += [f"{shard}: {text}" for text in laid_beside("ticket", tickets, found[1])]
    return told


def wait_truth(cluster, seconds=40, shards=SHARDS):
    """Until there is no difference. Nobody may be writing."""
    last = []

    def true():
        nonlocal last
        try:
            last = differences(cluster, shards)
        except (OSError, RedisError) as error:
            last = [repr(error)]
        return not last
    try:
        wait_until(true, seconds, every=0.1, what="Redis to equal SQL")
    except AssertionError as error:
        raise AssertionError(f"{error}\n" + "\n".join(last[:12]) +
                             f"\n... {len(last)} differences\n{cluster.log_tail('cdc', 25)}") from None


def streams(cluster):
    """{shard: status} from the consumer's admin listener."""
    answer = cluster.cdc("GET", "/admin/streams")
    assert answer.status == 200, answer
    return {stream["shard"]: stream for stream in answer.json()["streams"]}


def wait_running(cluster, shards=SHARDS, seconds=30):
    """Until the consumer streams every one of the shards."""
    def running():
        try:
            told = streams(cluster)
        except OSError:
            return False
        return all(told.get(shard, {}).get("state") == "running" for shard in shards)
    wait_until(running, seconds, what="the consumer to run")


class Churn:
    """Random lives of bookings by SQL: what issue after issue will do through functions."""

    STEPS = (
        "INSERT INTO bookings (event_id, booking_id, user_id, status, seats, request_hash)"
        " SELECT event_id, gen_random_uuid(), 'churn-' || (random() * 40)::int,"
        "        (ARRAY['held', 'confirmed', 'cancelled'])[1 + (random() * 2)::int]::booking_status,"
        "        ARRAY[(random() * 1000)::int, 1001 + (random() * 1000)::int], 0"
        "   FROM events ORDER BY random() LIMIT 3",
        "UPDATE bookings SET status = 'confirmed', updated_at = now() WHERE (event_id, booking_id) IN"
        " (SELECT event_id, booking_id FROM bookings WHERE status = 'held'"
        "   ORDER BY random() LIMIT 2)",
        "UPDATE bookings SET status = (ARRAY['cancelled', 'expired', 'failed'])"
        "                             [1 + (random() * 2)::int]::booking_status"
        " WHERE (event_id, booking_id) IN (SELECT event_id, booking_id FROM bookings"
        "  WHERE status IN ('held', 'confirmed') ORDER BY random() LIMIT 2)",
        "UPDATE bookings SET user_id = 'churn-moved' WHERE (event_id, booking_id) IN"
        " (SELECT event_id, booking_id FROM bookings ORDER BY random() LIMIT 1)",
        "UPDATE bookings SET seats = seats || (2001 + (random() * 1000)::int)"
        " WHERE cardinality(seats) < 9 AND (event_id, booking_id) IN"
        " (SELECT event_id, booking_id FROM bookings ORDER BY random() LIMIT 1)",
        "DELETE FROM bookings WHERE (event_id, booking_id) IN"
        " (SELECT event_id, booking_id FROM bookings ORDER BY random() LIMIT 1)",
        "BEGIN; UPDATE bookings SET status = 'failed'; ROLLBACK",
    )

    def __init__(self, cluster, pause=0.02):
        self._cluster = cluster
        self._pause = pause * SLOWDOWN
        self._stop = threading.Event()
        self.done = 0
        self._threads = [threading.Thread(target=self._run, args=(shard,), daemon=True)
                         for shard in SHARDS]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join(60 * SLOWDOWN)

    def _session(self, port):
        return subprocess.Popen(
            ["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-p", str(port), "-U", "postgres",
             "-d", "seatgrid"], env=environment(), stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True)

    def _run(self, shard):
        ports = [server["port"] for server in self._cluster.status().values()
                 if server["shard"] == shard]
        turn, session = 0, None
        while not self._stop.wait(self._pause):
            if session is None or session.poll() is not None:
                session = self._session(ports[turn % len(ports)])
                turn += 1
            try:
                session.stdin.write(random.choice(self.STEPS) + ";\n")
                session.stdin.flush()
                self.done += 1
            except OSError:
                session.kill()
                session = None
        if session is not None:
            try:
                session.stdin.close()
                session.wait(20 * SLOWDOWN)
            except (OSError, subprocess.TimeoutExpired):
                session.kill()
