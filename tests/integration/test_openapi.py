"""The program does what its own description says: api/openapi.json, walked from end to end.

Goal: each path and method of the document exists, each documented example request gives its
documented status, each status that can be provoked without breaking a server is provoked, and each
answer has the documented headers, content type and schema. Method: the document is read from the
running server; answers are validated by schema.py. A path, method or status that the document gains
and this file does not know fails here.

SPDX-License-Identifier: MIT
"""

import gzip
import json
import re

from harness import short
from schema import Schemas
from wire import Wire, booking

CLUSTER = {"replicas": 1}

UNKNOWN_BOOKING = "0190f3c2-7d1e-4c55-9e5a-3f0f6d1c2b7a"
OPTIONAL_HEADERS = {"Content-Encoding", "Idempotent-Replayed", "Allow"}
# Needs a broken shard or a full map: shown by the tests that break one.
NOT_HERE = {("GET", "/readyz", 503), ("POST", "/events", 503), ("POST", "/events", 507),
            ("POST", "/book", 503),
            # A stream needs a consumer: test_live.py.
            ("GET", "/events/{id}/stream", 200)} | {("GET", path, 503) for path in (
                "/events", "/events/{id}", "/events/{id}/seats", "/events/{id}/availability",
                "/events/{id}/bookings/{bookingId}", "/users/{userId}/tickets",
                "/events/{id}/stream")}


class Document:
    """The document of the running server."""

    def __init__(self, wire):
        answer = wire.ask("GET", "/openapi.json")
        assert answer.status == 200
        self.json = json.loads(answer.body)
        self.schemas = Schemas(self.json)

    def operations(self):
        """[(METHOD, path, operation)]"""
        methods = {"get", "post", "put", "delete", "patch", "head", "options", "trace"}
        return [(method.upper(), path, operation) for path, item in self.json["paths"].items()
                for method, operation in item.items() if method in methods]

    def responses(self, operation):
        """{status as text: response}"""
        return {status: self.schemas.resolve(response)
                for status, response in operation["responses"].items()}

    def check_answer(self, operation, answer, status):
        """The answer is one that the operation documents under that status."""
        responses = self.responses(operation)
        response = responses.get(str(status)) or responses["default"]
        assert answer.status == status, (operation["operationId"], status, answer)
        self.check_headers(response, answer)
        content = response.get("content")
        if not content or not answer.body:
            assert not answer.body and not content, (operation["operationId"], answer)
            return
        media = answer.headers["content-type"]
        assert media in content, (operation["operationId"], media, list(content))
        schema = content[media]["schema"]
        if media.endswith("json"):
            packed = answer.headers.get("content-encoding") == "gzip"
            self.schemas.check(json.loads(gzip.decompress(answer.body) if packed else answer.body),
                               schema)
            if media == "application/problem+json":
                assert json.loads(answer.body)["status"] == status

    def check_headers(self, response, answer):
        """All that are documented are there, and are as documented."""
        for name, header in response.get("headers", {}).items():
            value = answer.headers.get(name.lower())
            if value is None:
                assert name in OPTIONAL_HEADERS or name == "SeatGrid-Shard", (name, answer)
                continue
            schema = self.schemas.resolve(header)
            schema = self.schemas.resolve(schema.get("schema", {}))
            kinds = schema.get("type")
            if kinds == "integer":
                value = int(value)
            elif kinds == "boolean":
                value = {"true": True, "false": False}[value]
            self.schemas.check(value, schema, name)
        documented = {name.lower() for name in response.get("headers", {})}
        everywhere = {"seatgrid-shard", "seatgrid-map-version"}
        if answer.status >= 400:  # a refusal may say, too, who was asked
            everywhere |= {"seatgrid-node", "seatgrid-staleness"}
        own = {name for name in answer.headers if name.startswith(("seatgrid-", "idempotent-"))}
        assert own <= documented | everywhere, own - documented


def prepare(cluster, wire):
    """The events 1 and (of beta) another that the examples speak of."""
    event = cluster.make_event(100, 100, "alpha")
    assert event == 1, event
    cluster.make_event(100, 100, "beta")
    cluster.wait_replicas()
    return wire.ask("POST", "/book", booking(1, [(50, 50)])).json()["bookingId"]


def fill(path, booking_id, event=1):
    """The path with its parameters."""
    return path.replace("{id}", str(event)).replace("{bookingId}", booking_id) \
        .replace("{userId}", "u-1")


@short
def test_document_is_sound(cluster):
    """References resolve, parameters of paths are declared, operations and codes have no double,
    every example fits its schema."""
    with Wire(cluster.http_port) as wire:
        document = Document(wire)
    schemas, root = document.schemas, document.json
    assert re.fullmatch(r"3\.1\.\d", root["openapi"]) and root["info"]["license"]
    for found in re.findall(r'"\$ref": *"([^"]+)"', json.dumps(root)):
        schemas.resolve({"$ref": found})
    ids = [operation["operationId"] for _, _, operation in document.operations()]
    assert len(ids) == len(set(ids)) >= 11, ids
    count = 0
    for method, path, operation in document.operations():
        item = root["paths"][path]
        declared = {schemas.resolve(parameter)["name"]
                    for parameter in item.get("parameters", []) + operation.get("parameters", [])
                    if schemas.resolve(parameter)["in"] == "path"}
        assert declared == set(re.findall(r"\{(\w+)\}", path)), (method, path)
        assert operation["summary"] and operation["tags"], path
        bodies = [operation["requestBody"]] if "requestBody" in operation else []
        for holder in bodies + list(document.responses(operation).values()):
            assert holder.get("description") or holder in bodies, (path, holder)
            for media, content in holder.get("content", {}).items():
                count += check_examples(schemas, media, content)
    assert count > 60, count
    codes = schemas.resolve({"$ref": "#/components/schemas/ErrorCode"})["enum"]
    assert len(codes) == len(set(codes))


def check_examples(schemas, media, content):
    """Those of one content entry fit its schema; gives how many there are."""
    examples = [entry["value"] for entry in content.get("examples", {}).values()]
    examples += [content["example"]] if "example" in content else []
    for example in examples:
        if media.endswith("json"):
            schemas.check(example, content["schema"])
        if isinstance(example, dict) and "code" in example:
            assert example["type"] == f"/docs#{example['code']}", example
    return len(examples)


@short
def test_every_operation_exists(cluster):
    """Each documented method answers there; each method that is not documented is refused with
    Allow; and the methods that the server tells are the documented ones."""
    with Wire(cluster.http_port) as wire:
        document = Document(wire)
        by_path = {}
        for method, path, _ in document.operations():
            by_path.setdefault(path, set()).add(method)
        for path, methods in by_path.items():
            real = fill(path, UNKNOWN_BOOKING)
            allowed = set(wire.ask("OPTIONS", real).headers["allow"].split(", "))
            assert allowed - \
                {"OPTIONS"} == methods | ({"HEAD"} if "GET" in methods else set()), path
            for method in ("GET", "POST", "PUT", "DELETE", "PATCH"):
                answer = wire.ask(method, real)
                assert (answer.status == 405) == (method not in methods), (method, path, answer)
        for path in ("/", "/event", "/bookings", "/admin/reload", "/nodes"):
            assert wire.ask("GET", path).status == 404, path


def test_every_example_request(cluster):
    """The bodies, parameters and headers that the document shows give the first documented
    success."""
    with Wire(cluster.http_port) as wire:
        document = Document(wire)
        booking_id = prepare(cluster, wire)
        cluster.wait_replicas()
        shown = 0
        for method, path, operation in document.operations():
            status = min(int(code) for code in operation["responses"] if code.isdigit())
            if (method, path, status) in NOT_HERE:
                continue
            real = fill(path, booking_id)
            body = operation.get("requestBody", {}).get("content", {}).get("application/json")
            for name, example in (body or {"examples": {"": {"value": None}}})["examples"].items():
                headers = {"X-User-Id": "u-1"} if name == "header" else {}
                answer = wire.ask(method, real, example["value"], headers)
                document.check_answer(operation, answer, status)
                shown += 1
            for parameter in operation.get("parameters", []):
                parameter = document.schemas.resolve(parameter)
                if "example" not in parameter or body:
                    continue
                where = {"query": (f"{real}?{parameter['name']}={parameter['example']}", {}),
                         "header": (real, {parameter["name"]: parameter["example"]})}
                target, headers = where[parameter["in"]]
                document.check_answer(operation, wire.ask(method, target, None, headers), status)
                shown += 1
        assert shown >= 16, shown
        check_booking_headers(document, wire)


def check_booking_headers(document, wire):
    """The headers that POST /book documents, with a body that is free."""
    operation = document.json["paths"]["/book"]["post"]
    for col, parameter in enumerate(operation["parameters"], 1):
        parameter = document.schemas.resolve(parameter)
        headers = {parameter["name"]: parameter.get("example", "any-1")}
        answer = wire.ask("POST", "/book", booking(1, [(99, col)]), headers)
        document.check_answer(operation, answer, 201)


def test_every_status(cluster):
    """Each documented status of each operation, provoked; each code that an example names, too."""
    with Wire(cluster.http_port) as wire:
        document = Document(wire)
        event = cluster.make_event(10, 10, "beta")
        cluster.wait_replicas()
        booked = wire.ask("POST", "/book", booking(event, [(1, 1)]), {"Idempotency-Key": "k"})
        booking_id = booked.json()["bookingId"]
        cluster.wait_replicas()
        done, codes = set(), set()
        for method, path, status, target, body, headers in provocations(event, booking_id):
            target = fill(target, booking_id, event)
            if status == 413:
                with Wire(cluster.http_port) as other:
                    answer = other.ask(method, target, body, headers)
            else:
                answer = wire.ask(method, target, body, headers)
            operation = document.json["paths"][path][method.lower()]
            assert str(status) in operation["responses"], (method, path, status)
            document.check_answer(operation, answer, status)
            done.add((method, path, status))
            if status >= 400:
                codes.add((method, path, status, json.loads(answer.body)["code"]))
        wanted = {(method, path, int(status)) for method, path, operation in document.operations()
                  for status in operation["responses"] if status.isdigit()}
        assert wanted - done == NOT_HERE, (wanted - done) ^ NOT_HERE
        for method, path, operation in document.operations():
            for status, response in document.responses(operation).items():
                if not status.isdigit() or (method, path, int(status)) in NOT_HERE:
                    continue
                content = response.get("content", {}).get("application/problem+json", {})
                for name, example in content.get("examples", {}).items():
                    place = (method, path, int(status), example["value"]["code"])
                    assert place in codes, f"{name}: no request gave {place}"


def provocations(event, booking_id):
    """[(method, path of the document, status, target, body, headers)]"""
    new = {"name": "E", "startsAt": "2030-06-01T19:00:00Z", "rows": 2, "cols": 2}
    large = b" " * 70000
    text = {"Content-Type": "text/plain"}
    seat_map, one_booking = "/events/{id}/seats", "/events/{id}/bookings/{bookingId}"
    stream = "/events/{id}/stream"
    availability, tickets = "/events/{id}/availability", "/users/{userId}/tickets"
    tag = {"If-None-Match": "*"}
    many = [(1 + n // 10, 1 + n % 10) for n in range(21)]
    cases = [
        ("GET", "/events", 200, "/events", None, {}),
        ("GET", "/events", 400, "/events?limit=0", None, {}),
        ("GET", "/events", 400, "/events?cursor=x", None, {}),
        ("POST", "/events", 201, "/events", new, {}),
        ("POST", "/events", 400, "/events", b"{", {}),
        ("POST", "/events", 400, "/events", {**new, "rows": "2"}, {}),
        ("POST", "/events", 413, "/events", large, {}),
        ("POST", "/events", 415, "/events", new, text),
        ("POST", "/events", 422, "/events", {**new, "rows": 0}, {}),
        ("POST", "/events", 422, "/events", {**new, "shard": "gamma"}, {}),
        ("GET", "/events/{id}", 200, "/events/{id}", None, {}),
        ("GET", "/events/{id}", 400, "/events/0", None, {}),
        ("GET", "/events/{id}", 404, "/events/999999", None, {}),
        ("GET", seat_map, 200, seat_map, None, {}),
        ("GET", seat_map, 200, seat_map, None, {"Accept": "application/x-protobuf"}),
        ("GET", seat_map, 200, seat_map, None, {"Accept": "application/vnd.seatgrid.full+json"}),
        ("GET", seat_map, 304, seat_map, None, tag),
        ("GET", seat_map, 400, "/events/x/seats", None, {}),
        ("GET", seat_map, 400, seat_map, None, {"SeatGrid-Max-Staleness": "soon"}),
        ("GET", seat_map, 404, "/events/999999/seats", None, {}),
        ("GET", seat_map, 406, seat_map, None, {"Accept": "text/html"}),
        ("GET", seat_map, 400, seat_map, None, {"SeatGrid-Token": "x"}),
        ("GET", availability, 200, availability, None, {}),
        ("GET", availability, 400, "/events/x/availability", None, {}),
        ("GET", availability, 404, "/events/999999/availability", None, {}),
        ("GET", stream, 400, "/events/x/stream", None, {}),
        ("GET", stream, 404, "/events/999999/stream", None, {}),
        ("GET", stream, 406, stream, None, {"Accept": "application/json"}),
        ("GET", tickets, 200, tickets, None, {}),
        ("GET", tickets, 400, tickets + "?limit=0", None, {}),
        ("GET", tickets, 400, tickets + "?cursor=x", None, {}),
        ("GET", tickets, 400, "/users/%C2%85/tickets", None, {}),
        ("GET", tickets, 400, tickets, None, {"SeatGrid-Token": "alpha"}),
        ("POST", "/book", 201, "/book", booking(event, [(2, 2)]), {}),
        ("POST", "/book", 201, "/book", booking(event, [(1, 1)]), {"Idempotency-Key": "k"}),
        ("POST", "/book", 400, "/book", b"\xff", {}),
        ("POST", "/book", 400, "/book", {"eventid": 1}, {}),
        ("POST", "/book", 400, "/book", booking(event, [(3, 3)]), {"Idempotency-Key": "é"}),
        ("POST", "/book", 404, "/book", booking(999999, [(1, 1)]), {}),
        ("POST", "/book", 409, "/book", booking(event, [(1, 1)]), {}),
        ("POST", "/book", 413, "/book", large, {}),
        ("POST", "/book", 415, "/book", booking(event, [(3, 3)]), text),
        ("POST", "/book", 422, "/book", booking(event, [(11, 1)]), {}),
        ("POST", "/book", 422, "/book", booking(event, [(3, 3), (3, 3)]), {}),
        ("POST", "/book", 422, "/book", booking(event, many), {}),
        ("POST", "/book", 422, "/book", booking(-1, [(3, 3)]), {}),
        ("POST", "/book", 422, "/book", booking(event, [(3, 3)]), {"Idempotency-Key": "k"}),
        ("GET", one_booking, 200, one_booking, None, {}),
        ("GET", one_booking, 400, f"/events/x/bookings/{booking_id}", None, {}),
        ("GET", one_booking, 400, "/events/{id}/bookings/x", None, {}),
        ("GET", one_booking, 404, f"/events/{{id}}/bookings/{UNKNOWN_BOOKING}", None, {}),
        ("GET", one_booking, 404, f"/events/5000000/bookings/{UNKNOWN_BOOKING}", None, {}),
    ]
    cases += [("GET", path, 200, path, None, {})
              for path in ("/healthz", "/readyz", "/metrics", "/openapi.json", "/docs")]
    cases += [("GET", path, 304, path, None, tag) for path in ("/openapi.json", "/docs")]
    return cases
