#!/usr/bin/python3
"""Goal: loadgen reports what really happened, also when the server misbehaves.

Method: a scripted server in a thread answers in known ways (whole, in pieces, wrong shard, closing,
dying, late, with garbage); the counts in loadgen's report must be those of the script.

SPDX-License-Identifier: MIT
"""

import json
import pathlib
import re
import socket
import sys
import tempfile
import threading
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import load  # noqa: E402


class Server:
    """Answers the n-th request of all connections with script(n, head, body) -> bytes or None."""

    def __init__(self, script):
        self.script = script
        self.lock = threading.Lock()
        self.requests = []
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        data = b""
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with connection:
            while True:
                while b"\r\n\r\n" not in data:
                    more = connection.recv(65536)
                    if not more:
                        return
                    data += more
                head, _, data = data.partition(b"\r\n\r\n")
                length = re.search(rb"Content-Length: (\d+)", head)
                length = int(length.group(1)) if length else 0
                while len(data) < length:
                    data += connection.recv(65536)
                body, data = data[:length], data[length:]
                with self.lock:
                    n = len(self.requests)
                    self.requests.append((head.decode(), body.decode()))
                for piece in self.script(n, head, body) or ():
                    if piece is None:
                        return
                    connection.sendall(piece)

    def close(self):
        self.listener.close()


def answer(status=200, body=b"ok", **headers):
    lines = [f"HTTP/1.1 {status} X", f"content-length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


class LoadgenTest(unittest.TestCase):
    def run_against(self, script, **options):
        server = Server(script)
        self.addCleanup(server.close)
        self.server = server
        return load.loadgen(server.address, **{"connections": 4, "requests": 100,
                                               "hold_ms": 20000, **options})["raw"]

    def test_counts_statuses_and_bytes(self):
        big = answer(409, b"x" * 300_000)
        raw = self.run_against(lambda n, *_: [big if n % 2 else answer(201)])
        self.assertEqual(raw["statuses"], {"201": 50, "409": 50})
        self.assertEqual(raw["asked"], 100)
        self.assertEqual(raw["connects"], 4)
        self.assertEqual(load.lost(raw), 0)
        self.assertEqual(raw["bytes"], 50 * (len(big) + len(answer(201))))

    def test_answers_in_pieces_are_one_answer(self):
        def script(*_):
            whole = answer(200, b"0123456789")
            return [whole[i:i + 1] for i in range(len(whole))]
        raw = self.run_against(script, requests=20)
        self.assertEqual(raw["statuses"], {"200": 20})

    def test_304_has_no_body_whatever_its_length_says(self):
        raw = self.run_against(lambda *_: [b"HTTP/1.1 304 X\r\nContent-Length: 99\r\n\r\n"])
        self.assertEqual(raw["statuses"], {"304": 100})
        self.assertEqual(raw["connects"], 4)

    def test_close_means_a_new_connection_and_nothing_lost(self):
        raw = self.run_against(lambda *_: [answer(Connection="close"), None])
        self.assertEqual((raw["answers"], load.lost(raw)), (100, 0))
        self.assertGreaterEqual(raw["connects"], 100)

    def test_a_connection_that_dies_is_a_dropped_request(self):
        raw = self.run_against(lambda n, *_: [None] if n % 10 == 9 else [answer()])
        self.assertEqual((raw["answers"], raw["dropped"]), (90, 10))

    def test_half_an_answer_is_no_answer(self):
        raw = self.run_against(lambda n, *_: [answer()[:-1], None] if n == 5 else [answer()])
        self.assertEqual((raw["answers"], raw["dropped"]), (99, 1))

    def test_garbage_is_told(self):
        raw = self.run_against(lambda n, *_: [b"BOO!\r\n\r\n"] if n == 7 else [answer()])
        self.assertEqual((raw["answers"], raw["garbage"]), (99, 1))

    def test_late_answers_time_out(self):
        def script(n, *_):
            if n == 3:
                time.sleep(3)
            return [answer()]
        raw = self.run_against(script, timeout_ms=500)
        self.assertEqual((raw["answers"], raw["timeouts"]), (99, 1))

    def test_nobody_listens(self):
        with socket.socket() as bound:      # bound, so nobody else gets it, but not listening
            bound.bind(("127.0.0.1", 0))
            with self.assertRaises(load.LoadError):
                load.loadgen(f"127.0.0.1:{bound.getsockname()[1]}", connections=2, hold_ms=300)

    def test_wrong_and_missing_shards_are_counted(self):
        names = ["alpha", "beta", None, "alphabet"]

        def script(n, *_):
            name = names[n % 4]
            return [answer(**({"SeatGrid_Shard": name} if name else {}))]
        with tempfile.NamedTemporaryFile("w") as events:
            events.write("5 alpha\n")
            events.flush()
            raw = self.run_against(script, traffic="walk", events=events.name)
        self.assertEqual((raw["misrouted"], raw["unrouted"]), (50, 25))

    def test_a_map_version_that_goes_back_is_counted(self):
        raw = self.run_against(lambda n, *_: [answer(SeatGrid_Map_Version=3 if n == 50 else 4)],
                               connections=1)
        self.assertEqual(raw["map_version_backwards"], 1)
        self.assertEqual((raw["map_version_min"], raw["map_version_max"]), (3, 4))

    def test_walk_takes_every_seat_once(self):
        with tempfile.NamedTemporaryFile("w") as events:
            events.write("7\n9 beta\n")
            events.flush()
            raw = self.run_against(lambda *_: [answer(SeatGrid_Shard="beta")], traffic="walk",
                                   events=events.name, rows=10, cols=10, first_seat=51)
        self.assertEqual((raw["misrouted"], raw["walk_wrapped"], raw["walked"]), (0, 0, 100))
        seats = [(body["eventId"], seat["row"], seat["col"])
                 for body in (json.loads(body) for _, body in self.server.requests)
                 for seat in body["seats"]]
        self.assertEqual(sorted(seats), [(event, row, col) for event in (7, 9)
                                         for row in range(6, 11) for col in range(1, 11)])

    def test_random_seats_are_inside_the_grid_and_differ(self):
        self.run_against(lambda *_: [answer()], traffic="random", event=3, rows=2, cols=3,
                         seats="2-6")
        counts = set()
        for _, text in self.server.requests:
            seats = [(seat["row"], seat["col"]) for seat in json.loads(text)["seats"]]
            counts.add(len(seats))
            self.assertEqual(len(set(seats)), len(seats))
            self.assertTrue(all(1 <= row <= 2 and 1 <= col <= 3 for row, col in seats))
        self.assertEqual(counts, {2, 3, 4, 5, 6})

    def test_the_log_has_a_line_an_answer(self):
        with tempfile.NamedTemporaryFile("r") as log:
            self.run_against(lambda *_: [answer(201, Location="/events/3/bookings/x")],
                             traffic="random", event=3, log=log.name)
            lines = [line.rstrip("\n").split("\t") for line in log.readlines()]
        self.assertEqual(len(lines), 100)
        self.assertEqual({(line[0], line[1]) for line in lines}, {("201", "/events/3/bookings/x")})
        self.assertEqual(sorted(line[2] for line in lines),
                         sorted(body for _, body in self.server.requests))

    def test_pairs_confirm_what_they_hold(self):
        def script(n, head, _):
            if "/confirm" in head.decode():
                return [answer(410 if n % 7 == 0 else 200)]
            if n % 5 == 0:
                return [answer(409, Location="/events/3/bookings/nothing")]
            return [answer(201, Location=f"/events/3/bookings/b-{n}")]
        raw = self.run_against(script, traffic="walk", take="pair", event=3, rows=1000,
                               connections=1)
        held, confirmed = None, 0
        for n, (head, text) in enumerate(self.server.requests):
            path, body = head.split(" ")[1], json.loads(text)
            self.assertEqual(body["userId"], "u-0")
            if held:
                self.assertEqual((path, list(body)), (f"/events/3/bookings/{held}/confirm", ["userId"]))
                held, confirmed = None, confirmed + (n % 7 != 0)
            else:
                self.assertEqual((path, sorted(body)), ("/events/3/holds", ["seats", "userId"]))
                held = f"b-{n}" if n % 5 else None
        self.assertEqual(raw["pairs"], confirmed)
        self.assertGreater(confirmed, 30)

    def test_best_leaves_the_choice_to_the_server(self):
        with tempfile.NamedTemporaryFile("w") as events:
            events.write("7\n9\n")
            events.flush()
            self.run_against(lambda *_: [answer(201)], traffic="best", seats="2", events=events.name)
            bodies = [json.loads(text) for _, text in self.server.requests]
            self.assertEqual(sorted(body["eventId"] for body in bodies), [7] * 50 + [9] * 50)
            self.assertTrue(all(body["best"] == [{"quantity": 2, "together": True}]
                                for body in bodies))
            self.run_against(lambda *_: [answer(201)], traffic="best", take="hold", seats="2",
                             events=events.name)
        paths = {head.split(" ")[1] for head, _ in self.server.requests}
        self.assertEqual(paths, {"/events/7/holds", "/events/9/holds"})

    def test_open_loop_charges_a_stall_to_those_it_delayed(self):
        def script(n, *_):
            if n == 100:
                time.sleep(0.5)
            return [answer()]
        raw = self.run_against(script, connections=1, requests=0, rate=200, hold_ms=2000)
        self.assertEqual(raw["answers"], 400)
        self.assertGreater(raw["run"]["latency_ms"]["max"], 490)
        self.assertGreater(raw["run"]["latency_ms"]["p90"], 100)   # about 100 arrivals waited
        self.assertLess(raw["run"]["latency_ms"]["p50"], 100)

    def test_pause_and_ramp_hold_the_rate_down(self):
        raw = self.run_against(lambda *_: [answer()], connections=20, requests=0, ramp_ms=1000,
                               hold_ms=1000, pause_ms=100)
        self.assertGreater(raw["answers"], 200)     # 20 clients, 10 a second, 1.5 s on average
        self.assertLessEqual(raw["answers"], 330)
        self.assertLess(raw["hold"]["answers"], raw["answers"])


if __name__ == "__main__":
    unittest.main()
