"""Where events live: on the shard with room, as the map and its pins say, and paged over all.

Goal: new events go to the least loaded shard that has a free id, or where the caller says; pins are
honoured; GET /events gives every event once, in order, whatever the page size. Method: clusters
with small maps that are filled up; pages walked while events are added.

SPDX-License-Identifier: MIT
"""

from harness import Cluster, short, wait_until
from wire import Wire

CLUSTER = {"replicas": 1, "settings": {"reads.seatmap_recent_ms": 0}}


# ---- paging --------------------------------------------------------------------------------------


def walk(wire, limit, meanwhile=None):
    """All pages: the events in order, and the sizes of the pages."""
    events, sizes, cursor = [], [], ""
    while True:
        answer = wire.ask("GET", f"/events?limit={limit}{cursor}")
        assert answer.status == 200, answer
        page = answer.json()
        assert set(page) == {"events", "nextCursor", "partial", "missing"}, page
        assert page["partial"] is False and page["missing"] == [], page
        assert answer.headers["seatgrid-map-version"] == "1"
        assert len(page["events"]) <= limit
        again = wire.ask("GET", f"/events?limit={limit}{cursor}").json()
        if meanwhile is None:
            assert again == page, "the same cursor gives the same page"
        events += page["events"]
        sizes.append(len(page["events"]))
        if page["nextCursor"] is None:
            return events, sizes
        assert page["events"], "a page before the last is not empty"
        cursor = f"&cursor={page['nextCursor']}"
        if meanwhile:
            meanwhile()


def test_paging_over_both_shards():
    """Every event once, in order of ids, whatever the page size, also while events are added."""
    with Cluster(replicas=1) as cluster, Wire(cluster.http_port) as wire:
        assert wire.ask("GET", "/events").json() == {"events": [], "nextCursor": None,
                                                     "partial": False, "missing": []}
        ids = []
        for n in range(24):
            shard = ("alpha", "beta", "alpha")[n % 3]
            ids.append(cluster.make_event(n + 1, 2, shard, f"Event {n}"))
        ids.sort()
        cluster.wait_replicas()
        for limit in (1, 2, 3, 7, 8, 12, 16, 23, 24, 25, 100):
            events, sizes = walk(wire, limit)
            assert [event["id"] for event in events] == ids, (limit, events)
            assert all(size == limit for size in sizes[:-1]), (limit, sizes)
            assert sizes[-1] == (24 % limit or min(limit, 24)), (limit, sizes)
        for event in events:
            assert event == wire.ask("GET", f"/events/{event['id']}").json()
        assert len(wire.ask("GET", "/events").json()["events"]) == 20, "the default"
        before = set(ids)

        def add():
            ids.append(cluster.make_event(1, 1, ("alpha", "beta")[len(ids) % 2]))
            cluster.wait_replicas()
        events, _ = walk(wire, 4, add)
        seen = [event["id"] for event in events]
        assert seen == sorted(set(seen)) and before <= set(seen) <= set(ids), seen


# ---- placement -----------------------------------------------------------------------------------


def counts(cluster):
    """Events on each shard."""
    return [int(cluster.value(shard, "SELECT count(*) FROM events")) for shard in ("alpha", "beta")]


@short
def test_events_land_where_there_is_room(cluster):
    """Unnamed: on the shard with fewer; named: there; unknown: refused and nothing made."""
    with Wire(cluster.http_port) as wire:
        def create(**fields):
            return wire.ask("POST", "/events", {"name": "E", "startsAt": "2030-06-01T19:00:00Z",
                                                "rows": 1, "cols": 1, **fields})
        for _ in range(5):
            assert create(shard="alpha").json()["shard"] == "alpha"
        wait_until(lambda: create().json()["shard"] == "beta", 5, what="beta to be chosen")
        alpha, beta = counts(cluster)
        for _ in range(abs(alpha - beta) + 60):
            create()
        alpha, beta = counts(cluster)
        assert abs(alpha - beta) <= 20, (alpha, beta)
        before = counts(cluster)
        for name in ("gamma", "alph", "Alpha", "alpha-1"):
            answer = create(shard=name)
            assert (answer.status, answer.code) == (422, "unknown_shard"), answer
        assert counts(cluster) == before


def test_small_maps_and_pins():
    """Pins are left out here and used there; full shards are passed over; a full map says so."""
    with Cluster(replicas=0) as cluster:
        path = cluster.var / "shardmap.cfg"
        text = path.read_text(encoding="utf-8")
        text = text[:text.index("ranges")].replace("map_version = 1", "map_version = 2")
        path.write_text(text + """
            ranges = ( { first = 1; last = 6; shard = "alpha"; },
                       { first = 7; last = 9; shard = "beta"; },
                       { first = 10; last = 11; shard = "alpha"; } );
            pins = ( { event = 2; shard = "beta"; }, { event = 6; shard = "beta"; },
                     { event = 9; shard = "alpha"; }, { event = 10; shard = "alpha"; } );
            """, encoding="utf-8")
        answer = cluster.admin("POST", "/admin/reload")
        assert answer.status == 200, answer
        wait_until(lambda: cluster.get("/healthz").headers["SeatGrid-Map-Version"] == "2", 5)
        made = {}
        body = {"name": "E", "startsAt": "2030-06-01T19:00:00Z", "rows": 2, "cols": 2}
        for shard, ids in (("alpha", [1, 3, 4, 5, 10, 11, 9]), ("beta", [7, 8, 2, 6])):
            got = []
            for _ in ids:
                answer = cluster.post("/events", {**body, "shard": shard})
                assert answer.status == 201, answer
                got.append(answer.json()["id"])
                made[got[-1]] = shard
            assert sorted(got) == sorted(ids), (shard, got)
            if shard == "alpha":  # full: whoever names no shard gets the other, two of its four
                answer = cluster.post("/events", {**body, "shard": "alpha"})
                assert (answer.status, answer.code) == (507, "map_full"), answer
                assert "alpha" == answer.headers["SeatGrid-Shard"], answer.headers
        for event, shard in made.items():
            answer = cluster.get(f"/events/{event}")
            assert answer.status == 200 and answer.headers["SeatGrid-Shard"] == shard, answer
            assert cluster.value(shard, f"SELECT count(*) FROM events WHERE event_id = {event}") \
                == "1"
            answer = cluster.book(event, [(1, 1)])
            assert answer.status == 201 and answer.headers["SeatGrid-Shard"] == shard, answer
            assert answer.headers["SeatGrid-Map-Version"] == "2"
        for fields in ({}, {"shard": "alpha"}, {"shard": "beta"}):
            answer = cluster.post("/events", {**body, **fields})
            assert (answer.status, answer.code) == (507, "map_full"), answer
        assert [event["id"] for event in cluster.get("/events").json()["events"]] == \
            sorted(made), "paging follows ids, not ranges"
        assert cluster.get("/events/12").status == 404


def test_full_shards_are_passed_over():
    """Unnamed events go on as long as any shard has an id left."""
    with Cluster(replicas=0) as cluster:
        path = cluster.var / "shardmap.cfg"
        text = path.read_text(encoding="utf-8")
        text = text[:text.index("ranges")].replace("map_version = 1", "map_version = 2")
        path.write_text(text + 'ranges = ( { first = 1; last = 3; shard = "alpha"; },'
                               ' { first = 4; last = 40; shard = "beta"; } );', encoding="utf-8")
        assert cluster.admin("POST", "/admin/reload").status == 200
        body = {"name": "E", "startsAt": "2030-06-01T19:00:00Z", "rows": 1, "cols": 1}
        answers = [cluster.post("/events", body) for _ in range(40)]
        assert [answer.status for answer in answers] == [201] * 40, answers
        assert sorted(answer.json()["id"] for answer in answers) == list(range(1, 41))
        answer = cluster.post("/events", body)
        assert (answer.status, answer.code) == (507, "map_full"), answer
