"""`seatgrid mockpay` as a child of a test: the payment service that behaves as it is told.

    with Mockpay("--pending", "100") as pay:
        pay.settings()                  what a `serve` needs to use it
        pay.charge(order, amount=100, method="ok")
        pay.kill(); pay.start()         the journal keeps what was told

SPDX-License-Identifier: MIT
"""

import contextlib
import hashlib
import hmac
import http.client
import json
import pathlib
import shutil
import subprocess
import tempfile
import time
import uuid

from harness import (SANITIZER, SLOWDOWN, Ports, binary, environment, http_request, wait_until)

SECRET = "a secret of stories"


def order_id():
    """A new one, as SeatGrid makes them."""
    return str(uuid.uuid4())


def sign(body, at=None, secret=SECRET):
    """The value of SeatGrid-Signature for a body."""
    at = int(time.time()) if at is None else at
    digest = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={digest}"


class Mockpay:
    """Runs with a journal and a secret of its own; gone at the end of the `with` block."""

    def __init__(self, *options):
        self._options = options
        self._ports = Ports(1)
        self.port = self._ports.base
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="seatgrid-test-mockpay-"))
        self.secret_file = self.folder / "secret"
        self.secret_file.write_text(SECRET + "\n", encoding="ascii")
        self.journal = self.folder / "journal"
        self._log = self.folder / "log"
        self.process = None

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind, *_):
        if self.process.poll() is None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(10 * SLOWDOWN)
        spoken, code = self.log(), self.process.poll()
        self.close()
        assert kind or not SANITIZER.search(spoken), spoken[-6000:]
        assert kind or code in (0, -9), (code, spoken[-3000:])

    def close(self):
        """Nothing is left of it."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
        self._ports.release()

    def start(self):
        """Back when it answers."""
        with self._log.open("a", encoding="utf-8") as output:
            self.process = subprocess.Popen(
                [binary(), "mockpay", "--listen", f"127.0.0.1:{self.port}", "--secret-file",
                 self.secret_file, "--state", self.journal, *self._options],
                env=environment(), stdin=subprocess.DEVNULL, stdout=output,
                stderr=subprocess.STDOUT)

        def answers():
            assert self.process.poll() is None, self.log()
            try:
                return self.request("GET", "/healthz", timeout=2).status == 200
            except (OSError, http.client.HTTPException):
                return False
        wait_until(answers, what="mockpay to answer")

    def kill(self):
        """kill -9; may be called again."""
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def log(self):
        """What it has said."""
        return self._log.read_text(encoding="utf-8") if self._log.exists() else ""

    def request(self, method, path, body=None, timeout=15):
        """One request to it."""
        return http_request(self.port, method, path, body, timeout=timeout)

    def charge(self, order, amount=100, method="ok", callback=None, timeout=15):
        """Asks for money; gives the Response."""
        body = {"amount": amount, "currency": "EUR", "method": method}
        if callback:
            body["callbackUrl"] = callback
        return self.request("PUT", f"/charges/{order}", body, timeout)

    def ask(self, order):
        """The status of an order's charge; None if there is none."""
        answer = self.request("GET", f"/charges/{order}")
        return answer.json()["status"] if answer.status in (200, 202) else None

    def totals(self):
        """{"charged", "refunded", "count", "charges", "callbacks"}"""
        return self.request("GET", "/totals").json()

    def behave(self, **fields):
        """Changes how it behaves: behave(successPercent=50)."""
        answer = self.request("POST", "/behaviour", fields)
        assert answer.status == 200, answer

    def settings(self, callback_port=None, **more):
        """Settings of a `serve` that uses it; times that suit a test."""
        settings = {"provider_url": f"http://127.0.0.1:{self.port}",
                    "secret_file": str(self.secret_file), "timeout_ms": 1000 * SLOWDOWN,
                    "ask_ms": 100, "ask_max_ms": 1000, "give_up_ms": 60000, "hold_ms": 120000,
                    "wait_ms": 20000 * SLOWDOWN, "due_ms": 200, "lease_ms": 3000 * SLOWDOWN}
        if callback_port:
            settings["callback_url"] = f"http://127.0.0.1:{callback_port}/payments/callback"
        settings.update(more)
        return {f"payment.{name}": value for name, value in settings.items()}


class Listener:
    """Takes callbacks: a small HTTP server in a thread; `answer` is the status that it gives."""

    def __init__(self):
        import http.server
        import threading
        self.got = []  # (signature, body as bytes)
        self.answer = 204
        listener = self

        class Handler(http.server.BaseHTTPRequestHandler):
            """One callback."""
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                """Notes it."""
                body = self.rfile.read(int(self.headers["Content-Length"]))
                listener.got.append((self.headers["SeatGrid-Signature"], body))
                self.send_response(listener.answer)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                """Quiet."""

        class Server(http.server.ThreadingHTTPServer):
            """Threads that do not keep the test from ending."""
            daemon_threads = True

        self._ports = Ports(1)
        self._server = Server(("127.0.0.1", self._ports.base), Handler)
        self.url = f"http://127.0.0.1:{self._ports.base}/callback?event=7"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._ports.release()

    def statuses(self):
        """What the callbacks said, in the order in which they came."""
        return [json.loads(body)["status"] for _, body in list(self.got)]
