"""What those see who run SeatGrid: /healthz, /readyz, /metrics, /docs.

Goal: the figures parse, count right and carry route, shard, node and outcome; the page of the API
needs nothing from elsewhere. Method: a strict reader of the Prometheus text format; the page's
sources are searched, its script is hashed and compared with the policy.

SPDX-License-Identifier: MIT
"""

import base64
import hashlib
import re

from harness import ROOT, http_request, short
from wire import Wire, booking

CLUSTER = {"replicas": 1, "settings": {"reads.seatmap_recent_ms": 0}}


# ---- metrics -------------------------------------------------------------------------------------


SAMPLE = re.compile(r'([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (-?[0-9.e+-]+|\+Inf|NaN)$')
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\\\|\\"|\\n)*)"')


def parse_metrics(text):
    """{(name, ((label, value), ...)): float}, after checking the format 0.0.4 strictly."""
    samples, types, helped, order = {}, {}, set(), []
    assert text.endswith("\n")
    for line in text.splitlines():
        if line.startswith("# HELP "):
            name = line.split(" ", 3)[2]
            assert name not in helped, f"HELP {name} twice"
            helped.add(name)
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name not in types and kind in ("counter", "gauge", "histogram"), line
            types[name] = kind
        else:
            found = SAMPLE.match(line)
            assert found, line
            name, labels, value = found.groups()
            pairs = LABEL.findall(labels or "")
            assert ",".join(f'{key}="{value_}"' for key, value_ in pairs) == (labels or ""), line
            base = re.sub("_(bucket|sum|count)$", "", name) if name not in types else name
            assert base in types and base in helped, f"{line}: no TYPE or HELP before it"
            if not order or order[-1] != base:
                assert base not in order, f"{base}: its lines are not together"
                order.append(base)
            key = (name, tuple(pairs))
            assert key not in samples, f"{line}: twice"
            samples[key] = float(value)
            if types[base] == "counter":
                assert samples[key] >= 0, line
    check_histograms(samples, types)
    return samples


def check_histograms(samples, types):
    """Buckets rise, the last is +Inf and equals the count."""
    series = {}
    for (name, labels), value in samples.items():
        base = name[:-len("_bucket")]
        if name.endswith("_bucket") and types.get(base) == "histogram":
            rest = tuple(pair for pair in labels if pair[0] != "le")
            series.setdefault((base, rest), []).append((float(dict(labels)["le"]), value))
    assert series
    for (base, labels), buckets in series.items():
        bounds, values = zip(*buckets)
        assert list(bounds) == sorted(set(bounds)) and bounds[-1] == float("inf"), (base, bounds)
        assert list(values) == sorted(values), (base, labels, values)
        assert samples[base + "_count", labels] == values[-1], (base, labels)
        assert samples[base + "_sum", labels] >= 0


@short
def test_metrics(cluster):
    """Prometheus text that parses, with route, shard, node and outcome; counters that count."""
    event = cluster.make_event(10, 10, "beta")
    cluster.wait_replicas()

    def scrape(port=cluster.http_port):
        answer = http_request(port, "GET", "/metrics")
        assert answer.status == 200
        assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        return parse_metrics(answer.body.decode())

    def total(samples, name, **labels):
        return sum(value for (sample, pairs), value in samples.items()
                   if sample == name and labels.items() <= dict(pairs).items())
    before = scrape()
    with Wire(cluster.http_port) as wire:
        tag = wire.ask("GET", f"/events/{event}/seats").headers["etag"]
        for n in range(10):
            wire.ask("POST", "/book", booking(event, [(1, n + 1)]), {"Idempotency-Key": f"m{n}"})
            wire.ask("POST", "/book", booking(event, [(1, n + 1)]))
            wire.ask("POST", "/book", booking(event, [(1, n + 1)]), {"Idempotency-Key": f"m{n}"})
            wire.ask("GET", "/nowhere")
            wire.ask("POST", "/book", b"{")
            wire.ask("GET", f"/events/{event}")
        assert wire.ask("GET", f"/events/{event}/seats", None, {"If-None-Match": "*"}).status == 304
        assert tag
        for _ in range(5):
            with Wire(cluster.http_port) as other:
                other.send(b"nonsense\r\n\r\n").answer()
    after = scrape()
    name = "seatgrid_http_requests_total"
    for count, labels in ((10, {"route": "POST /book", "shard": "beta", "outcome": "ok"}),
                          (10, {"route": "POST /book", "shard": "beta", "outcome": "seats_taken"}),
                          (10, {"route": "POST /book", "shard": "beta", "outcome": "replayed"}),
                          (10, {"route": "POST /book", "outcome": "malformed_json"}),
                          (10, {"route": "unmatched", "outcome": "not_found"}),
                          (10, {"route": "GET /events/{id}", "shard": "beta", "outcome": "ok"}),
                          (1, {"route": "GET /events/{id}/seats", "outcome": "not_modified"}),
                          (5, {"route": "refused", "outcome": "malformed_request"})):
        rise = total(after, name, **labels) - total(before, name, **labels)
        assert rise == count, (labels, rise)
        timed = "seatgrid_http_request_duration_seconds_count"
        assert total(after, timed, **labels) - total(before, timed, **labels) == count, labels
    nodes = {dict(pairs).get("node") for (sample, pairs) in after if sample == name}
    assert nodes & {"beta-1", "beta-2"}, nodes
    for (sample, pairs), value in before.items():
        if sample.endswith(("_total", "_count", "_bucket")):
            assert after[sample, pairs] >= value, f"{sample} {pairs} has fallen"
    wanted = {"seatgrid_http_connections", "seatgrid_batches_total", "seatgrid_db_connections",
              "seatgrid_batch_bookings_total", "seatgrid_node_up", "seatgrid_node_staleness_ms",
              "seatgrid_map_version", "seatgrid_redis_up", "process_resident_memory_bytes"}
    missing = wanted - {sample for sample, _ in after}
    assert not missing, missing
    assert total(after, "seatgrid_map_version") >= 1
    for node in ("alpha-1", "alpha-2", "beta-1", "beta-2"):
        assert total(after, "seatgrid_node_up", node=node) == 1, node
    assert parse_metrics(http_request(cluster.admin_port, "GET", "/metrics").body.decode())


# ---- the command line ----------------------------------------------------------------------------


@short
def test_help_fits_a_terminal(cluster):
    """Every command that --help names tells its own usage, none wider than 80 columns."""
    overview = cluster.seatgrid("--help").stdout
    commands = re.findall(r"^  ([a-z-]+)  ", overview, re.M)
    assert {"serve", "worker", "mockpay", "dev"} <= set(commands), overview
    for command in ["", *commands]:
        text = cluster.seatgrid(*command.split(), "--help").stdout
        assert text.startswith(f"Usage: seatgrid {command}"), (command, text)
        wide = [line for line in text.splitlines() if len(line) > 80]
        assert not wide, (command, wide)


# ---- health and documents ------------------------------------------------------------------------


def test_documents_name_what_there_is():
    """Every metric and every setting that the documents name exists."""
    metrics = set(re.findall(r'"(seatgrid_\w+)"', (ROOT / "base/metrics.h").read_text()))
    example = (ROOT / "configs/seatgrid.example.cfg").read_text()
    settings = {(section, key) for section, body in
                re.findall(r"^(\w+) = \{\n(.*?)^\};", example, re.MULTILINE | re.DOTALL)
                for key in re.findall(r"^    (\w+) =", body, re.MULTILINE)}
    sections = {section for section, _ in settings}
    assert metrics and {"payment", "queue", "holds"} <= sections, sections
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        text = page.read_text()
        named = set(re.findall(r"`(seatgrid_[a-z_]+)", text))
        assert named <= metrics, (page.name, named - metrics)
        named = {found for found in re.findall(r"`([a-z]+)\.([a-z_]+)`", text)
                 if found[0] in sections}
        assert named <= settings, (page.name, named - settings)


@short
def test_health_and_readiness(cluster):
    """Alive is alive; ready names each shard."""
    answer = cluster.get("/healthz")
    assert (answer.status, answer.json()) == (200, {"status": "alive"})
    answer = cluster.get("/readyz")
    assert (answer.status, answer.json()) == (200, {"ready": True, "shards": [
        {"shard": shard, "readable": True, "writable": True} for shard in ("alpha", "beta")]})
    assert answer.headers["Cache-Control"] == "no-store"


def test_docs_page_works_offline(cluster):
    """One page, its script allowed by hash, and nothing loaded from elsewhere."""
    answer = cluster.get("/docs")
    page = answer.body.decode()
    assert answer.status == 200 and answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert page.lstrip().lower().startswith("<!doctype html>") and "</html>" in page
    loads = re.findall(r"""(?:src|href|action|data|poster|srcset)\s*=\s*["']?([^"'\s>]+)"""
                       r"""|url\(\s*["']?([^"')]+)|@import\s+["']?([^"';]+)""", page, re.I)
    outside = [load for group in loads for load in group
               if re.match(r"(https?:|//|ftp:|ws)", load.strip(), re.I)]
    assert not outside, outside
    assert not re.search(r"""(fetch|import|open|Worker|EventSource|WebSocket)\s*\(\s*["'`]"""
                         r"""(https?:|//)""", page), "the script asks other servers"
    assert "<iframe" not in page and "<object" not in page
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "http" not in policy, policy
    scripts = re.findall(r"<script[^>]*>(.*?)</script>", page, re.S)
    assert scripts and not re.findall(r"<script[^>]*\ssrc", page)
    for script in scripts:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy, policy
    assert not re.findall(r"<[a-zA-Z][^>]*\son[a-z]+\s*=", page), "the policy forbids such handlers"
    assert cluster.get("/openapi.json").json()["openapi"].startswith("3.1.")
