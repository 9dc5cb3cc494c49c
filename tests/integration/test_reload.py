"""Reload of the shard map while serving.

Goal: a good map is published in one step, a bad one changes nothing, events are never stranded
unasked, and a dead server stands in nobody's way. Method: rewrite the map file of a running
cluster, reload by POST, by SIGHUP and by `seatgrid reload`, and look at what is served afterwards.

SPDX-License-Identifier: MIT
"""

import json
import re
import signal
import subprocess
import threading
import time

from harness import (Cluster, binary, environment, http_request, short, timeout, wait_until)

CLUSTER = {}
ALPHA = (1, 1000000, "alpha")
BETA = (1000001, 2000000, "beta")


def published(cluster):
    """Version of the map that is served."""
    return cluster.admin("GET", "/admin/map").json()["version"]


def dsn(cluster, node, host=None):
    """How the cluster's own map names a node's server; or by another spelling of its host."""
    if not hasattr(cluster, "first_map"):
        cluster.first_map = (cluster.var / "shardmap.cfg").read_text(encoding="utf-8")
    found = re.search(rf'name = "{node}";\s*dsn = "([^"]*)"', cluster.first_map).group(1)
    return found.replace("host=127.0.0.1", f"host={host}") if host else found


def write_map(cluster, version=None, ranges=(ALPHA, BETA), shards=None, pins=(), text=None):
    """Writes the map file; version None: one more than the published. Gives the version."""
    version = version or published(cluster) + 1
    shards = shards or {}
    all_shards = {name: [(f"{name}-{n}", dsn(cluster, f"{name}-{n}"))
                         for n in range(1, 2 + cluster.replicas)] for name in ("alpha", "beta")}
    all_shards.update(shards)
    if text is None:
        nodes = {name: ", ".join(f'{{ name = "{node}"; dsn = "{where}"; }}' for node, where in of)
                 for name, of in all_shards.items()}
        text = f"map_version = {version};\nshards = (\n" + ",\n".join(
            f'  {{ name = "{name}"; nodes = ( {of} ); }}' for name, of in nodes.items())
        text += "\n);\nranges = (\n" + ",\n".join(
            f'  {{ first = {first}; last = {last}; shard = "{shard}"; }}'
            for first, last, shard in ranges)
        text += "\n);\npins = ( " + ", ".join(
            f'{{ event = {event}; shard = "{shard}"; }}' for event, shard in pins) + " );\n"
    (cluster.var / "shardmap.cfg").write_text(text, encoding="utf-8")
    return version


def reload(cluster, query="", patience=30):
    """POST /admin/reload."""
    return cluster.admin("POST", "/admin/reload" + query, timeout=patience)


def restore(cluster):
    """Back to the map that the cluster began with, whatever it strands."""
    write_map(cluster)
    answer = reload(cluster, "?force=1")
    assert answer.status == 200, answer


@short
def test_post_publishes_in_one_step(cluster):
    """Answers carry the new version at once; the same file again is no news."""
    event = cluster.make_event(shard="alpha")
    before = published(cluster)
    version = write_map(cluster, ranges=(ALPHA, (1000001, 3000000, "beta")))
    answer = reload(cluster)
    assert answer.status == 200, answer
    report = answer.json()
    assert report["outcome"] == "published" and report["mapVersion"] == version, report
    assert (report["oldVersion"], report["newVersion"]) == (before, version)
    assert report["diff"]["moves"] == [
        {"first": 2000001, "last": 3000000, "from": None, "to": "beta"}], report
    assert published(cluster) == version
    assert cluster.metric("seatgrid_map_version") == version
    wait_until(lambda: cluster.get(f"/events/{event}").headers["SeatGrid-Map-Version"]
               == str(version), 2, what="answers by the new map")
    again = reload(cluster)
    assert again.status == 200 and again.json()["outcome"] == "unchanged", again
    restore(cluster)


def test_dry_run_changes_nothing(cluster):
    """It says what would be, and that is all."""
    before = published(cluster)
    write_map(cluster, ranges=(ALPHA, (1000001, 3000000, "beta")))
    answer = reload(cluster, "?dry_run=1")
    assert answer.status == 200 and answer.json()["outcome"] == "dry_run", answer
    assert answer.json()["diff"]["moves"], answer
    assert published(cluster) == before
    assert cluster.admin("GET", "/admin/map?event=2500000").status == 404
    done = cluster.seatgrid("reload", "--dry-run")
    assert "dry run: it would be published" in done.stdout, done.stdout
    assert "(none) -> beta" in done.stdout, done.stdout
    assert all(len(line) <= 80 for line in done.stdout.splitlines()), done.stdout
    assert published(cluster) == before


@short
def test_events_that_exist_are_not_stranded(cluster):
    """A map that takes an event from its shard is refused and names the event; force overrules."""
    events = [cluster.make_event(shard="alpha", rows=1, cols=2) for _ in range(3)]
    before = published(cluster)
    version = write_map(cluster, ranges=((1, events[1] - 1, "alpha"),
                                         (events[1], 2000000, "beta")))
    answer = reload(cluster)
    assert answer.status == 409 and answer.code == "map_refused", answer
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem = answer.json()
    stranded = [one for one in problem["stranded"] if one["shard"] == "alpha"]
    assert [id for one in stranded for id in one["eventIds"]] == events[1:], problem
    assert stranded[0]["count"] == 2 and not stranded[0]["more"], problem
    assert f"{events[1]} (to beta)" in problem["errors"][0], problem
    assert published(cluster) == before
    assert cluster.get(f"/events/{events[1]}").status == 200

    done = cluster.seatgrid("reload", check=False)
    assert done.returncode == 1, done
    assert "seatgrid: shard \"alpha\" holds 2 events" in done.stderr, done.stderr

    forced = reload(cluster, "?force=1")
    assert forced.status == 200 and forced.json()["forced"], forced
    assert any(str(events[1]) in line for line in forced.json()["warnings"]), forced
    assert published(cluster) == version
    wait_until(lambda: cluster.get(f"/events/{events[1]}").status == 404, 2,
               what="the stranded event to be out of reach")
    restore(cluster)
    wait_until(lambda: cluster.get(f"/events/{events[1]}").status == 200, 2,
               what="the event to be back")


def test_a_pin_strands_too_and_free_ids_move_freely(cluster):
    """Pinning an event that exists elsewhere is refused; ids that no event has go anywhere."""
    event = cluster.make_event(shard="beta")
    write_map(cluster, pins=((event, "alpha"),))
    answer = reload(cluster)
    assert answer.status == 409, answer
    assert answer.json()["stranded"] == [
        {"shard": "beta", "count": 1, "more": False, "eventIds": [event]}], answer
    write_map(cluster, ranges=((1, 900000, "alpha"), (900001, 2000000, "beta")),
              pins=((950000, "alpha"),))
    answer = reload(cluster)
    assert answer.status == 200, answer
    assert cluster.admin("GET", "/admin/map?event=950000").json()["shard"] == "alpha"
    assert cluster.admin("GET", "/admin/map?event=950001").json()["shard"] == "beta"
    restore(cluster)


def test_more_than_twenty_stranded_events_are_counted(cluster):
    """Twenty are named, all are counted."""
    cluster.sql("alpha", "INSERT INTO events (event_id, name, starts_at, rows, cols, creation_id)"
                         " SELECT 500000 + i, 'x', now(), 1, 1, gen_random_uuid()"
                         "   FROM generate_series(1, 57) i")
    try:
        write_map(cluster, ranges=((1, 500000, "alpha"), (500001, 2000000, "beta")))
        answer = reload(cluster)
        assert answer.status == 409, answer
        one = answer.json()["stranded"][0]
        assert one["count"] == 57 and one["eventIds"] == list(range(500001, 500021)), one
    finally:
        cluster.sql("alpha", "DELETE FROM events WHERE event_id > 500000")


@short
def test_a_refused_map_changes_nothing(cluster):
    """Broken syntax, broken rules, an old version: the loader's own words, the old map serves."""
    event = cluster.make_event(shard="beta")
    before = published(cluster)
    bad = {
        "syntax": dict(text="map_version = 99;\nshards = (\n"),
        "overlap": dict(ranges=((1, 1000000, "alpha"), (900000, 2000000, "beta"))),
        'no shard "gamma"': dict(ranges=((1, 1000000, "alpha"), (1000001, 2000000, "gamma"))),
        "not newer": dict(version=before, ranges=(ALPHA, (1000001, 2000005, "beta"))),
    }
    for word, change in bad.items():
        write_map(cluster, **change)
        answer = reload(cluster, "?force=1")
        assert answer.status == 409 and answer.code == "map_refused", (word, answer)
        assert "shardmap.cfg" in answer.json()["errors"][0], (word, answer)
        if word != "syntax":
            assert any(word in line for line in answer.json()["errors"]), (word, answer)
        assert published(cluster) == before
    assert cluster.get(f"/events/{event}").status == 200
    (cluster.var / "shardmap.cfg").unlink()
    answer = reload(cluster)
    assert answer.status == 409 and "cannot be read" in answer.json()["errors"][0], answer
    restore(cluster)


@short
def test_sighup_reloads(cluster):
    """SIGHUP does as POST does; a bad map is refused in the log, and serving goes on."""
    version = write_map(cluster, ranges=(ALPHA, (1000001, 2500000, "beta")))
    cluster.signal("serve", signal.SIGHUP)
    wait_until(lambda: published(cluster) == version, 5, what="the map after SIGHUP")
    write_map(cluster, text="nonsense")
    cluster.signal("serve", signal.SIGHUP)
    wait_until(lambda: "shard map refused" in cluster.log(), 5, what="the refusal in the log")
    assert published(cluster) == version
    assert cluster.get("/healthz").status == 200
    restore(cluster)


def test_the_same_postgres_twice_is_refused(cluster):
    """Two shards on one PostgreSQL, by another spelling of the address: found by asking it."""
    before = published(cluster)
    write_map(cluster, ranges=(ALPHA, BETA, (2000001, 3000000, "gamma")),
              shards={"gamma": [("gamma-1", dsn(cluster, "beta-2", host="localhost"))]})
    answer = reload(cluster, "?force=1")
    assert answer.status == 409, answer
    errors = "\n".join(answer.json()["errors"])
    assert 'shards "beta" and "gamma" are the same PostgreSQL' in errors, errors
    assert published(cluster) == before
    # a replica of beta listed under alpha
    nodes = [(f"alpha-{n}", dsn(cluster, f"alpha-{n}")) for n in range(1, 2 + cluster.replicas)]
    write_map(cluster, shards={"alpha": nodes + [("alpha-9", dsn(cluster, "beta-2", "localhost"))]})
    answer = reload(cluster)
    assert answer.status == 409, answer
    assert any("its shard_meta says it is of shard \"beta\"" in line
               for line in answer.json()["errors"]), answer
    restore(cluster)


def test_a_new_shard_on_a_dead_server_is_taken(cluster):
    """Nobody answers there: the map is published with a warning, quickly."""
    write_map(cluster, ranges=(ALPHA, BETA, (2000001, 3000000, "gamma")),
              shards={"gamma": [("gamma-1", "host=127.0.0.1 port=1 dbname=seatgrid")]})
    answer = reload(cluster)
    assert answer.status == 200, answer
    assert any("gamma-1" in line for line in answer.json()["warnings"]), answer
    nodes = {node["node"]: node for node in cluster.admin("GET", "/admin/nodes").json()["nodes"]}
    assert not nodes["gamma-1"]["up"] and nodes["alpha-1"]["up"], nodes  # alpha kept its state
    assert cluster.get("/events/2500000").status == 503
    assert cluster.book(cluster.make_event(shard="alpha"), [(1, 1)]).status == 201
    restore(cluster)


def test_reloads_drop_no_request(cluster):
    """Clients book and read while the map is published again and again: not one fails."""
    event = cluster.make_event(rows=100, cols=100, shard="alpha")
    stop = threading.Event()
    bad, counts = [], [0, 0, 0, 0]

    def client(number):
        while not stop.is_set():
            seat = counts[number] * 4 + number
            if number % 2:
                answer = cluster.book(event, [(seat // 100 + 1, seat % 100 + 1)])
                good = answer.status == 201
            else:
                answer = cluster.get(f"/events/{event}")
                good = answer.status == 200
            counts[number] += 1
            if not good or answer.headers["SeatGrid-Shard"] != "alpha":
                bad.append(answer)

    threads = [threading.Thread(target=client, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    try:
        deadline = time.monotonic() + 60
        turn = 0
        while turn < 100 or (min(counts) < 50 and time.monotonic() < deadline):
            turn += 1
            write_map(cluster, ranges=(ALPHA, (1000001, 2000000 + turn % 9, "beta")))
            answer = reload(cluster, "?force=1")
            assert answer.status == 200, answer
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not bad, bad[:3]
    assert min(counts) >= 50, counts
    restore(cluster)


def test_json_and_text_of_the_command(cluster):
    """`seatgrid reload` and its --json say the same; wrong usage is 2; nobody there is 1."""
    version = write_map(cluster, ranges=(ALPHA, (1000001, 2100000, "beta")))
    done = cluster.seatgrid("reload", "--json")
    report = json.loads(done.stdout)
    assert report["outcome"] == "published" and report["newVersion"] == version, report
    done = cluster.seatgrid("reload")
    assert done.stdout == f"unchanged: version {version} is what the server has\n", done.stdout
    assert cluster.seatgrid("reload", "--wrong", check=False).returncode == 2
    assert cluster.seatgrid("reload", "--help").stdout.startswith("Usage: seatgrid reload")
    restore(cluster)


@timeout(240)
def test_a_dead_server_blocks_neither_reload_nor_start():
    """A crashed shard, then one that only hangs: reloads that do not need it pass, those that do
    are refused by name within the deadline, and `serve` starts without it."""
    with Cluster(settings={"reload.ask_timeout_ms": 1500}) as cluster:
        event = cluster.make_event(shard="alpha")
        cluster.crash("beta-1")
        cluster.crash("beta-2")
        from_s = time.monotonic()
        write_map(cluster, ranges=((1, 999999, "alpha"), (1000000, 2000000, "beta")))
        answer = reload(cluster)  # alpha loses an id and answers; beta is not asked
        assert answer.status == 200, answer
        assert time.monotonic() - from_s < 5

        write_map(cluster, ranges=((1, 1000001, "alpha"), (1000002, 2000000, "beta")))
        answer = reload(cluster)  # now beta would have to answer
        assert answer.status == 409, answer
        assert 'shard "beta" loses ids' in answer.json()["errors"][0], answer
        assert "force=1" in answer.json()["errors"][0], answer

        write_map(cluster, ranges=((1, 999999, "alpha"), (1000000, 2000000, "beta")))
        cluster.stop("serve")
        with Serve(cluster):
            assert cluster.get(f"/events/{event}").status == 200
            assert cluster.book(event, [(1, 1)]).status == 201
            assert cluster.get("/events/1500000").status == 503
            assert published(cluster) > 1

            cluster.start("beta-1")
            cluster.start("beta-2")
            cluster.wait_ready()
            cluster.pause("beta-1")  # accepts connections, says nothing
            cluster.pause("beta-2")
            write_map(cluster, ranges=((1, 999998, "alpha"), (999999, 2000000, "beta")))
            assert reload(cluster).status == 200
            write_map(cluster, ranges=((1, 1000001, "alpha"), (1000002, 2000000, "beta")))
            from_s = time.monotonic()
            answer = reload(cluster)
            assert answer.status == 409, answer
            assert time.monotonic() - from_s < 10
            cluster.resume("beta-1")
            cluster.resume("beta-2")
            cluster.wait_ready()
            assert reload(cluster).status == 200  # the very same file


class Serve:
    """`seatgrid serve` of a cluster started by hand: `dev start` waits until all shards answer."""

    def __init__(self, cluster):
        self.cluster = cluster

    def __enter__(self):
        with open(self.cluster.var / "log" / "serve.log", "ab") as log:
            self.process = subprocess.Popen(
                [binary(), "serve", "-c", str(self.cluster.var / "seatgrid.cfg")],
                env=environment(), stderr=log)
        wait_until(self.knows_alpha, 20, what="serve to know alpha without beta")
        return self

    def knows_alpha(self):
        """Does it answer, and has it found alpha's servers?"""
        try:
            answer = http_request(self.cluster.admin_port, "GET", "/admin/nodes", timeout=2)
        except OSError:
            return False
        return all(node["up"] for node in answer.json()["nodes"] if node["shard"] == "alpha")

    def __exit__(self, *_):
        self.process.terminate()
        assert self.process.wait(timeout=60) == 0
