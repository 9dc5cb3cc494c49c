"""A Redis of one's own for a test, and a small client that speaks RESP.

    with RedisServer() as server, server.client() as redis:
        redis("SET", "k", "v") ─> "OK";  redis("GET", "k") ─> "v"
        redis.pipeline([("PING",), ...]) ─> answers;  an error reply is a RedisError
        redis.read() ─> the next message, after SUBSCRIBE

Python's standard library only.

SPDX-License-Identifier: MIT
"""

import contextlib
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile

import harness


class RedisError(Exception):
    """An error reply; in a pipeline it is returned, alone it is raised."""


class RedisClient:
    """One connection. Texts are str both ways; bytes that are no UTF-8 come as surrogates."""

    def __init__(self, port, host="127.0.0.1", timeout=15):
        self._socket = socket.create_connection((host, port), timeout * harness.SLOWDOWN)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file = self._socket.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Ends the connection."""
        self._file.close()
        self._socket.close()

    def __call__(self, *command):
        """One command; an error reply is raised."""
        answer = self.pipeline([command])[0]
        if isinstance(answer, RedisError):
            raise answer
        return answer

    def pipeline(self, commands):
        """Many commands at once; error replies are among the answers."""
        commands = list(commands)
        self._socket.sendall(b"".join(self.encode(*command) for command in commands))
        return [self.read() for _ in commands]

    def hash(self, key):
        """HGETALL as a dict."""
        flat = self("HGETALL", key)
        return dict(zip(flat[::2], flat[1::2]))

    def eval(self, script, keys, *arguments):
        """EVAL of a text."""
        return self("EVAL", script, len(keys), *keys, *arguments)

    def settimeout(self, seconds):
        """For read()."""
        self._socket.settimeout(seconds)

    @staticmethod
    def encode(*command):
        """A command as RESP."""
        parts = [argument if isinstance(argument, bytes)
                 else str(argument).encode("utf-8", "surrogateescape") for argument in command]
        return b"*%d\r\n" % len(parts) + b"".join(
            b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)

    def read(self):
        """The next answer or message."""
        line = self._file.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("Redis closed the connection")
        kind, rest = line[:1], line[1:-2]
        if kind == b"+":
            return rest.decode()
        if kind == b"-":
            return RedisError(rest.decode(errors="replace"))
        if kind == b":":
            return int(rest)
        if kind == b"$":
            if rest == b"-1":
                return None
            text = self._file.read(int(rest) + 2)
            return text[:-2].decode("utf-8", "surrogateescape")
        if kind == b"*":
            return None if rest == b"-1" else [self.read() for _ in range(int(rest))]
        raise ConnectionError(f"not RESP: {line!r}")


class RedisServer:
    """A redis-server without persistence on a free port; `options` are arguments of it. One that is
    part of a cluster has a second port, which would be its own plus 10,000, free or not."""

    def __init__(self, *options):
        self.options = options
        self.port = self._ports = self._folder = self._process = None

    def __enter__(self):
        in_cluster = "--cluster-enabled" in self.options
        self._ports = harness.Ports(2 if in_cluster else 1)
        self.port = self._ports.base
        if in_cluster:
            self.options += ("--cluster-port", str(self.port + 1))
        self._folder = tempfile.mkdtemp(prefix="seatgrid-redis-")
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.kill()
        self._ports.release()
        shutil.rmtree(self._folder, ignore_errors=True)

    def start(self):
        """Starts it, again after kill(); back when it answers."""
        self._process = subprocess.Popen(
            ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir",
             self._folder, "--save", "", "--appendonly", "no", "--logfile",
             os.path.join(self._folder, "log"), *self.options],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        harness.wait_until(self._answers, what="redis-server to answer")

    def _answers(self):
        assert self._process.poll() is None, "redis-server ended: " + self.log()
        with contextlib.suppress(OSError, RedisError, ConnectionError), self.client() as redis:
            return redis("PING") == "PONG"
        return False

    def log(self):
        """What it said."""
        with open(os.path.join(self._folder, "log"), encoding="utf-8", errors="replace") as file:
            return file.read()[-3000:]

    def kill(self):
        """kill -9."""
        if self._process and self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()

    def client(self):
        """A new connection."""
        return RedisClient(self.port)


def sha1(text):
    """The name that EVALSHA knows a script by."""
    return hashlib.sha1(text.encode()).hexdigest()
