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

from harness import PATIENT, short, wait_until
from mockpay import sign
from schema import Schemas
from wire import Wire, booking

CLUSTER = {"replicas": 1, "settings": {
    **PATIENT, "payment.wait_ms": 30000, "holds.max_extensions": 2}}

UNKNOWN_BOOKING = "0190f3c2-7d1e-4c55-9e5a-3f0f6d1c2b7a"
UNKNOWN_ENTRY = "0190f3c2-7d1e-7c55-9e5a-3f0f6d1c2b7b"
OPTIONAL_HEADERS = {"Content-Encoding", "Idempotent-Replayed", "Allow", "Preference-Applied"}
# An order that ends without its seats has them; one that is refused at once is none.
OF_AN_ORDER = {"Location", "SeatGrid-Token", "SeatGrid-Durability"}
ONE_BOOKING = "/events/{id}/bookings/{bookingId}"
ONE_ENTRY = "/events/{id}/waitlist/{entryId}"
QUEUED, HOLDS = "/events/{id}/queue/{bookingId}", "/events/{id}/holds"
ORDERS, ONE_ORDER = "/events/{id}/orders", "/events/{id}/orders/{orderId}"
WAITLIST, CALLBACK = "/events/{id}/waitlist", "/payments/callback"
WRITES = [("POST", path) for path in (
    "/events", "/book", HOLDS, ORDERS, CALLBACK, WAITLIST, ONE_BOOKING + "/confirm",
    ONE_BOOKING + "/extend", ONE_BOOKING + "/transfer")] + [
        ("DELETE", ONE_BOOKING), ("DELETE", ONE_ENTRY)]
# Needs a broken shard or a full map: shown by the tests that break one.
NOT_HERE = {("GET", "/readyz", 503), ("POST", "/events", 507),
            # A broker: test_queue.py. Seats that go while their buyer pays: the stories of orders.
            ("POST", "/book", 202), ("POST", ORDERS, 410),
            # A stream needs a consumer: test_live.py.
            ("GET", "/events/{id}/stream", 200)} | {("GET", path, 503) for path in (
                "/events", "/events/{id}", "/events/{id}/seats", "/events/{id}/availability",
                ONE_BOOKING, QUEUED, ONE_ORDER, ONE_ENTRY, "/users/{userId}/tickets",
                "/events/{id}/stream")} | {(method, path, 503) for method, path in WRITES}
# The same for a code beside others that are provoked.
CODES_NOT_HERE = {("POST", ORDERS, 409, "order_refunded")}


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
                assert name in OPTIONAL_HEADERS or name == "SeatGrid-Shard" or \
                    answer.status >= 400 and name in OF_AN_ORDER, (name, answer)
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
    """The events 1 and (of beta) another that the examples speak of; and what they are of: the
    booking, the order and the place on the waiting list that a path names."""
    new = {"name": "Opening night", "startsAt": "2030-06-01T19:00:00Z", "rows": 100, "cols": 100,
           "shard": "alpha", "currency": "EUR",
           "tiers": [{"name": "stalls", "price": 4500, "rows": {"first": 1, "last": 100}}]}
    event = wire.ask("POST", "/events", new).json()["id"]
    assert event == 1, event
    cluster.make_event(100, 100, "beta")
    cluster.wait_replicas()
    made = Made(wire, event)
    return {ONE_BOOKING: made.booking((50, 50)), ONE_BOOKING + "/confirm": made.hold((50, 51)),
            ONE_BOOKING + "/extend": made.hold((50, 52)), QUEUED: made.booking((50, 53)),
            ONE_BOOKING + "/transfer": made.booking((50, 54)), ONE_ORDER: made.order((50, 55)),
            ONE_ENTRY: made.entry("waiting-1")}


class Made:
    """What requests need that are about something: made by u-1 unless another user is named."""

    def __init__(self, wire, event):
        self.wire, self.event = wire, event

    def do(self, method, path, body=None, user="u-1", status=(200, 201), **headers):
        """The answer's body."""
        answer = self.wire.ask(method, fill(path, "", self.event), body,
                               {"X-User-Id": user, **headers})
        assert answer.status in status, (method, path, body, answer)
        return answer.json()

    def booking(self, *seats, **more):
        """The id of a booking."""
        return self.do("POST", "/book", {"eventId": self.event, "seats": places(seats)},
                       **more)["bookingId"]

    def hold(self, *seats, seconds=900, **more):
        """The id of a hold."""
        return self.do("POST", HOLDS, {"seats": places(seats), "ttlSeconds": seconds},
                       **more)["bookingId"]

    def late(self, *seats, **more):
        """The id of a hold whose time is over."""
        held = self.hold(*seats, seconds=1, **more)
        wait_until(lambda: self.do("GET", f"/events/{{id}}/bookings/{held}")["status"] == "expired",
                   what="the hold to expire")
        return held

    def change(self, booking_id, what, body=None, **more):
        """One of its owner."""
        self.do("POST", f"/events/{{id}}/bookings/{booking_id}/{what}", body, **more)
        return booking_id

    def cancelled(self, *seats):
        """The id of a booking that was."""
        gone = self.booking(*seats)
        self.do("DELETE", f"/events/{{id}}/bookings/{gone}")
        return gone

    def order(self, *seats, **more):
        """The id of an order."""
        return self.do("POST", ORDERS, {"seats": places(seats), "payment": {"method": "card"}},
                       **more)["orderId"]

    def entry(self, user):
        """The id of a place on the waiting list."""
        return self.do("POST", WAITLIST, {"quantity": 1}, user)["entryId"]


def places(seats):
    """Of pairs."""
    return [{"row": row, "col": col} for row, col in seats]


def fill(path, ids, event=1):
    """The path with its parameters; ids: one for all, or by path."""
    target = ids if isinstance(ids, str) else ids.get(path, "")
    for name in ("{bookingId}", "{orderId}", "{entryId}"):
        path = path.replace(name, target)
    return path.replace("{id}", str(event)).replace("{userId}", "u-1")


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
        if isinstance(example, dict) and "code" in example and "bookingId" not in example:
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
        ids = prepare(cluster, wire)
        cluster.wait_replicas()
        shown = 0
        for method, path, operation in document.operations():
            status = min(int(code) for code in operation["responses"] if code.isdigit())
            if (method, path, status) in NOT_HERE:
                continue
            real = fill(path, ids)
            if path == CALLBACK:  # its headers are of its own making: test_every_status
                continue
            body = operation.get("requestBody", {}).get("content", {}).get("application/json")
            for name, example in (body or {"examples": {"": {"value": None}}})["examples"].items():
                headers = {"X-User-Id": "u-1"} if name == "header" or method == "DELETE" else {}
                if method == "DELETE" and path == ONE_ENTRY:
                    headers = {"X-User-Id": "waiting-1"}
                    cancel_offer(wire, ids[ONE_ENTRY], headers)
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
        headers = {parameter["name"]: parameter.get("example", "u-1")}
        answer = wire.ask("POST", "/book", booking(1, [(99, col)]), headers)
        document.check_answer(operation, answer, 201)


def cancel_offer(wire, entry_id, headers):
    """The seats that were offered are given back; the place ends."""
    entry = wire.ask("GET", fill(ONE_ENTRY, entry_id)).json()
    if entry["state"] == "offered":
        path = fill(ONE_BOOKING, entry["bookingId"])
        assert wire.ask("DELETE", path, None, headers).status == 200


def test_every_status(cluster):
    """Each documented status of each operation, provoked; each code that an example names, too."""
    with Wire(cluster.http_port) as wire:
        document = Document(wire)
        done, codes = set(), set()
        stories = [provocations(wire, cluster.make_event(10, 10, "beta")),
                   of_bookings(wire, cluster), of_orders(wire, cluster),
                   of_the_waiting_list(wire)]
        cluster.wait_replicas()
        for event, cases in stories:
            for method, path, status, target, body, headers in cases:
                target = fill(target, UNKNOWN_BOOKING, event)
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
        check_all_were_seen(document, done, codes)


def check_all_were_seen(document, done, codes):
    """Every documented status, and every code that an example of one has."""
    wanted = {(method, path, int(status)) for method, path, operation in document.operations()
              for status in operation["responses"] if status.isdigit()}
    assert wanted - done == NOT_HERE, (wanted - done) ^ NOT_HERE
    missing = []
    for method, path, operation in document.operations():
        for status, response in document.responses(operation).items():
            if not status.isdigit() or (method, path, int(status)) in NOT_HERE:
                continue
            content = response.get("content", {}).get("application/problem+json", {})
            for example in content.get("examples", {}).values():
                place = (method, path, int(status), example["value"]["code"])
                if place not in codes | CODES_NOT_HERE:
                    missing.append(place)
    assert not missing, missing


LARGE = b" " * 70000
TEXT = {"Content-Type": "text/plain"}
U1 = {"X-User-Id": "u-1"}


def provocations(wire, event):
    """The event, and [(method, path of the document, status, target, body, headers)]: of events,
    seats, and what has no life of its own."""
    booking_id = Made(wire, event).booking((1, 1), **{"Idempotency-Key": "k"})
    new = {"name": "E", "startsAt": "2030-06-01T19:00:00Z", "rows": 2, "cols": 2}
    large, text = LARGE, TEXT
    seat_map, one_booking = "/events/{id}/seats", ONE_BOOKING
    itself = one_booking.replace("{bookingId}", booking_id)
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
        ("GET", one_booking, 200, itself, None, {}),
        ("GET", one_booking, 400, f"/events/x/bookings/{booking_id}", None, {}),
        ("GET", one_booking, 403, itself, None, {"X-User-Id": "thief"}),
        ("GET", one_booking, 400, "/events/{id}/bookings/x", None, {}),
        ("GET", one_booking, 404, f"/events/{{id}}/bookings/{UNKNOWN_BOOKING}", None, {}),
        ("GET", one_booking, 404, f"/events/5000000/bookings/{UNKNOWN_BOOKING}", None, {}),
    ]
    cases += [("GET", path, 200, path, None, {})
              for path in ("/healthz", "/readyz", "/metrics", "/openapi.json", "/docs")]
    cases += [("GET", path, 304, path, None, tag) for path in ("/openapi.json", "/docs")]
    return event, cases


def limited_event(wire, shard, rows=4, cols=4, limit=4):
    """The id of one with tiers and a limit a user, a price a seat."""
    tiers = [{"name": "front", "price": 100, "rows": {"first": 1, "last": 2}},
             {"name": "back", "price": 50, "rows": {"first": 3, "last": rows}}]
    new = {"name": "Limited", "startsAt": "2030-06-01T19:00:00Z", "rows": rows, "cols": cols,
           "tiers": tiers, "currency": "EUR", "maxPerUser": limit, "shard": shard}
    answer = wire.ask("POST", "/events", new)
    assert answer.status == 201, answer
    return answer.json()["id"]


def of_taking(method, path, extra, key_body, wire, event):
    """What /book, holds and orders have in common. One seat of the event is left in its front, and
    in its back no two are side by side."""
    def body(**fields):
        fields = {"userId": "taker", **extra, **fields}
        return {**fields, "eventId": event} if path == "/book" else fields
    many = places([(1 + n // 10, 1 + n % 10) for n in range(21)])
    one = places([(3, 1)])
    target = path
    answer = wire.ask(method, fill(path, "", event), body(**key_body), {"Idempotency-Key": path})
    assert answer.status in (201, 202), answer
    return [
        (method, path, 400, target, b"{", {}),
        (method, path, 400, target, body(sates=[]), {}),
        (method, path, 400, target, body(seats=one), {"Idempotency-Key": "é"}),
        (method, path, 404, path.replace("{id}", "999999"),
         {**body(seats=one), **({"eventId": 999999} if path == "/book" else {})}, {}),
        (method, path, 409, target, body(seats=places([(1, 1)])), {}),
        (method, path, 409, target, body(best=[{"tier": "front", "quantity": 3}]), {}),
        (method, path, 409, target, body(best=[{"tier": "back", "quantity": 2}]), {}),
        (method, path, 409, target, body(seats=one, userId="full"), {}),
        (method, path, 413, target, LARGE, {}),
        (method, path, 415, target, body(seats=one), TEXT),
        (method, path, 422, target, body(seats=places([(9, 9)])), {}),
        (method, path, 422, target, body(best=[{"tier": "pit", "quantity": 1}]), {}),
        (method, path, 422, target, body(seats=one + one), {}),
        (method, path, 422, target, body(seats=many), {}),
        (method, path, 422, target, body(seats=one, userId=""), {}),
        (method, path, 422, target, body(seats=places([(3, 3)])), {"Idempotency-Key": path}),
    ]


def crowded_event(wire):
    """One of alpha, 4 rows of 4: "full" has what the limit allows, the front has two seats left, and
    of the back the odd columns, but for the seats (3, 1) and (4, 1), which requests may take."""
    event = limited_event(wire, "alpha")
    made = Made(wire, event)
    made.booking((1, 1), (1, 2), (1, 3), (1, 4), user="full")
    made.booking((2, 1), (2, 2), (3, 2), (3, 4), user="other-1")
    made.booking((4, 2), (4, 4), user="other-2")
    return event


def of_bookings(wire, cluster):
    """Taking, and what owners do."""
    event = crowded_event(wire)
    cases = of_taking("POST", HOLDS, {"ttlSeconds": 60}, {"seats": places([(4, 1)])}, wire, event)
    cases += of_taking("POST", "/book", {}, {"seats": places([(4, 3)])}, wire, event)
    cases.append(("POST", HOLDS, 201, HOLDS,
                  {"seats": places([(3, 1)]), "ttlSeconds": 60}, U1))
    cases.append(("POST", HOLDS, 422, HOLDS, {"seats": places([(3, 3)]), "ttlSeconds": 0}, U1))
    roomy = limited_event(wire, "alpha", 10, 10, limit=30)
    cases = [(method, path, status, target.replace("{id}", str(event)), body, headers)
             for method, path, status, target, body, headers in cases]
    cases += of_changes(Made(wire, roomy), cluster)
    cases += of_the_limit(wire)
    return roomy, cases


def of_changes(made, cluster):
    """Of bookings, each in the state that the status needs."""
    def at(booking_id, what=""):
        return ONE_BOOKING.replace("{bookingId}", booking_id) + what
    one, unknown = ONE_BOOKING, at(UNKNOWN_BOOKING)
    held, booked = made.hold((1, 1)), made.booking((1, 2))
    gone, late = made.cancelled((1, 3)), made.late((1, 4))
    made.booking((1, 4), user="u-2")  # and now it is too late
    worn = made.change(made.change(made.hold((1, 5)), "extend"), "extend")
    paid_for = open_order(made, cluster, (1, 6))
    keyed = made.change(made.hold((1, 7)), "extend", {"ttlSeconds": 800},
                        **{"Idempotency-Key": "changed"})
    key, to = {**U1, "Idempotency-Key": "changed"}, {"toUserId": "u-9"}
    kinds = [("POST", one + "/confirm", "/confirm", None), ("POST", one + "/extend", "/extend", None),
             ("POST", one + "/transfer", "/transfer", to), ("DELETE", one, "", None)]
    cases = []
    for method, path, what, body in kinds:
        bad = {} if method == "DELETE" else b"{"
        cases += [
            (method, path, 400, at(held, what), bad or None, {}),
            (method, path, 400, at(held, what), body, {**U1, "Idempotency-Key": "é"}),
            (method, path, 403, at(held, what), body, {"X-User-Id": "thief"}),
            (method, path, 404, unknown + what, body, U1),
            (method, path, 404, unknown.replace("{id}", "5000000") + what, body, U1),
            (method, path, 409, at(paid_for, what), body, U1),
            (method, path, 415, at(held, what), body, {**U1, **TEXT}),
            (method, path, 422, at(keyed, what),
             {"ttlSeconds": 60} if what == "/extend" else body, key),
        ]
        if method == "POST":
            cases += [(method, path, 400, at(held, what), {"usrId": "u"}, U1),
                      (method, path, 409, at(gone, what), body, U1),
                      (method, path, 413, at(held, what), LARGE, U1)]
    differ = {"userId": "u-2"}
    cases += [
        ("POST", one + "/confirm", 410, at(late, "/confirm"), None, U1),
        ("POST", one + "/confirm", 422, at(held, "/confirm"), differ, U1),
        ("POST", one + "/extend", 200, at(held, "/extend"), None, U1),
        ("POST", one + "/extend", 409, at(booked, "/extend"), None, U1),
        ("POST", one + "/extend", 409, at(worn, "/extend"), None, U1),
        ("POST", one + "/extend", 410, at(late, "/extend"), None, U1),
        ("POST", one + "/extend", 422, at(held, "/extend"), {"ttlSeconds": 901}, U1),
        ("POST", one + "/transfer", 409, at(held, "/transfer"), to, U1),
        ("POST", one + "/transfer", 422, at(booked, "/transfer"), {"toUserId": ""}, U1),
        ("POST", one + "/transfer", 200, at(booked, "/transfer"), to, U1),
        ("POST", one + "/confirm", 200, at(held, "/confirm"), None, U1),
        ("DELETE", one, 422, at(held) + "?userId=u-2", None, U1),
        ("DELETE", one, 200, at(held), None, U1),
        ("GET", QUEUED, 200, QUEUED.replace("{bookingId}", held), None, {}),
        ("GET", QUEUED, 400, "/events/{id}/queue/x", None, {}),
        ("GET", QUEUED, 403, QUEUED.replace("{bookingId}", held), None, {"X-User-Id": "thief"}),
        ("GET", QUEUED, 404, QUEUED, None, {}),
        ("GET", QUEUED, 404, QUEUED.replace("{id}", "5000000"), None, {}),
    ]
    return cases


def of_the_limit(wire):
    """A late confirmation, and a gift, that would be one seat too many."""
    event = limited_event(wire, "beta", limit=1)
    made = Made(wire, event)
    late = made.late((1, 1))
    made.booking((1, 2))
    gift = made.booking((1, 3), user="u-2")
    one = ONE_BOOKING.replace("{id}", str(event))
    return [("POST", ONE_BOOKING + "/confirm", 409,
             one.replace("{bookingId}", late) + "/confirm", None, U1),
            ("POST", ONE_BOOKING + "/transfer", 409,
             one.replace("{bookingId}", gift) + "/transfer", {"toUserId": "u-1"},
             {"X-User-Id": "u-2"})]


def open_order(made, cluster, seat):
    """The id of an order that stays open: as if somebody waited for its payment for a day."""
    order_id = made.order(seat)
    cluster.sql(cluster.primary("alpha"), "UPDATE orders SET state = 'charging', "
                f"due_at = now() + interval '1 day' WHERE order_id = '{order_id}'")
    return order_id


def of_orders(wire, cluster):
    """Orders, and what the payment service tells."""
    event = crowded_event(wire)
    made = Made(wire, event)
    order_id = made.order((3, 3))
    pay = {"payment": {"method": "card"}}
    cases = of_taking("POST", ORDERS, pay, {"seats": places([(4, 1)])}, wire, event)
    roomy = limited_event(wire, "beta", 10, 10, limit=30)
    secret = (cluster.var / "payment.secret").read_text(encoding="ascii").strip()

    def notice(body, **more):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return data, {"SeatGrid-Signature": sign(data, secret=secret), **more}
    callback = f"{CALLBACK}?event={event}"
    known = {"orderId": order_id, "status": "declined"}
    other = {"orderId": UNKNOWN_ENTRY, "status": "declined"}
    one = ONE_ORDER.replace("{orderId}", order_id)
    cases += [
        ("POST", ORDERS, 202, f"/events/{roomy}/orders",
         {**pay, "seats": places([(1, 1)])}, {**U1, "Prefer": "respond-async"}),
        ("POST", ORDERS, 201, f"/events/{roomy}/orders", {**pay, "seats": places([(1, 2)])}, U1),
        ("POST", ORDERS, 402, f"/events/{roomy}/orders",
         {"payment": {"method": "decline"}, "seats": places([(1, 3)])}, U1),
        ("GET", ONE_ORDER, 200, one, None, {}),
        ("GET", ONE_ORDER, 400, "/events/{id}/orders/x", None, {}),
        ("GET", ONE_ORDER, 403, one, None, {"X-User-Id": "thief"}),
        ("GET", ONE_ORDER, 404, ONE_ORDER, None, {}),
        ("GET", ONE_ORDER, 404, ONE_ORDER.replace("{id}", "5000000"), None, {}),
        ("POST", CALLBACK, 204, callback, *notice(known)),
        ("POST", CALLBACK, 400, CALLBACK, *notice(known)),
        ("POST", CALLBACK, 422, callback, *notice({**known, "status": "paid"})),
        ("POST", CALLBACK, 422, callback, *notice({**known, "status": "succeeded", "amount": 1,
                                                   "currency": "EUR"})),
        ("POST", CALLBACK, 401, callback, json.dumps(known).encode(), {}),
        ("POST", CALLBACK, 404, callback, *notice(other)),
        ("POST", CALLBACK, 404, f"{CALLBACK}?event=5000000", *notice(other)),
        ("POST", CALLBACK, 413, callback, *notice(LARGE)),
    ]
    return event, cases


def of_the_waiting_list(wire):
    """Places in line."""
    event = limited_event(wire, "beta", 2 + 2, 2, limit=4)
    made = Made(wire, event)
    made.booking((1, 1), (1, 2), (2, 1), (2, 2), user="full")
    made.booking((3, 1), (3, 2), (4, 1), user="other")
    offered = made.entry("first")  # (4, 2)
    key = {"X-User-Id": "keyed", "Idempotency-Key": "w"}
    answer = wire.ask("POST", fill(WAITLIST, "", event), {"quantity": 1}, key)
    assert answer.status == 201, answer
    waiting = answer.json()["entryId"]
    one, own = ONE_ENTRY.replace("{entryId}", waiting), {"X-User-Id": "keyed"}
    offer = ONE_ENTRY.replace("{entryId}", offered)
    return event, [
        ("POST", WAITLIST, 201, WAITLIST, {"quantity": 2, "tier": "front"}, U1),
        ("POST", WAITLIST, 400, WAITLIST, b"{", U1),
        ("POST", WAITLIST, 400, WAITLIST, {}, U1),
        ("POST", WAITLIST, 400, WAITLIST, {"quantity": 1}, {"X-User-Id": "é"}),
        ("POST", WAITLIST, 404, "/events/999999/waitlist", {"quantity": 1}, U1),
        ("POST", WAITLIST, 409, WAITLIST, {"quantity": 1}, U1),
        ("POST", WAITLIST, 413, WAITLIST, LARGE, U1),
        ("POST", WAITLIST, 415, WAITLIST, {"quantity": 1}, {**U1, **TEXT}),
        ("POST", WAITLIST, 422, WAITLIST, {"quantity": 3}, {"X-User-Id": "u-2"}),
        ("POST", WAITLIST, 422, WAITLIST, {"quantity": 1, "tier": "pit"}, {"X-User-Id": "u-2"}),
        ("POST", WAITLIST, 422, WAITLIST, {"quantity": 0}, {"X-User-Id": "u-2"}),
        ("POST", WAITLIST, 422, WAITLIST, {"quantity": 2}, key),
        ("GET", ONE_ENTRY, 200, one, None, {}),
        ("GET", ONE_ENTRY, 200, offer, None, {}),
        ("GET", ONE_ENTRY, 400, "/events/{id}/waitlist/x", None, {}),
        ("GET", ONE_ENTRY, 403, one, None, {"X-User-Id": "thief"}),
        ("GET", ONE_ENTRY, 404, ONE_ENTRY, None, {}),
        ("GET", ONE_ENTRY, 404, ONE_ENTRY.replace("{id}", "5000000"), None, {}),
        ("DELETE", ONE_ENTRY, 400, one, None, {}),
        ("DELETE", ONE_ENTRY, 400, one, None, {**own, "Idempotency-Key": "é"}),
        ("DELETE", ONE_ENTRY, 403, one, None, U1),
        ("DELETE", ONE_ENTRY, 404, ONE_ENTRY, None, U1),
        ("DELETE", ONE_ENTRY, 404, ONE_ENTRY.replace("{id}", "5000000"), None, U1),
        ("DELETE", ONE_ENTRY, 409, offer, None, {"X-User-Id": "first"}),
        ("DELETE", ONE_ENTRY, 415, one, None, {**own, **TEXT}),
        ("DELETE", ONE_ENTRY, 422, one + "?userId=u-2", None, own),
        ("DELETE", ONE_ENTRY, 422, one, None, key),
        ("DELETE", ONE_ENTRY, 204, one, None, own),
    ]
