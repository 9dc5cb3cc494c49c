"""One psql that stays connected: many statements on one session, each answer read as JSON.

    Session(port).rows("SELECT ...")  ─> [{column: value}, ...]
                 .value("SELECT ...") ─> the one value
                 .run("BEGIN; ...")   ─> nothing

A statement that fails raises SqlError with the server's message; the session stays usable, unless it
is Lost. Not for two threads at once. Standard library only.

SPDX-License-Identifier: MIT
"""

import contextlib
import json
import os
import subprocess

MARK = "\x1e-done-\x1e"


class SqlError(Exception):
    """What the server said."""


class Lost(SqlError):
    """There is no server, or there was one and psql has ended with it."""


class Session:
    """A connection to one server, as the user the program itself connects as."""

    def __init__(self, port, user="seatgrid", database="seatgrid"):
        environment = {name: value for name, value in os.environ.items()
                       if not name.startswith("PG")}
        environment["PGOPTIONS"] = "-c client_min_messages=warning"
        self.process = subprocess.Popen(
            ["psql", "-XAtq", "-h", "127.0.0.1", "-p", str(port), "-U", user, "-d", database],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env=environment, bufsize=1 << 16)
        self.run("SET statement_timeout = '60s'")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Ends the session; an open transaction is rolled back."""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(timeout=30)

    def send(self, text):
        """Sends statements without waiting; the answer comes from `receive`."""
        try:
            self.process.stdin.write(f"{text};\n\\echo {MARK}\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass    # `receive` says why

    def receive(self):
        """The output of what was sent, as lines."""
        lines = []
        for line in self.process.stdout:
            line = line.rstrip("\n")
            if line == MARK:
                break
            lines.append(line)
        else:
            raise Lost("psql has ended: " + "\n".join(lines))
        if any("FATAL: " in line for line in lines):
            raise Lost("\n".join(lines))
        if any("ERROR: " in line for line in lines):
            raise SqlError("\n".join(lines))
        return lines

    def run(self, text):
        """Runs statements and gives their output as lines."""
        self.send(text)
        return self.receive()

    def rows(self, query):
        """The rows of a query, in its order."""
        text = "".join(self.run(f"SELECT coalesce(json_agg(t), '[]') FROM ({query}) t"))
        return json.loads(text)

    def value(self, query):
        """The one value of a query of one row and column."""
        (row,) = self.rows(query)
        (value,) = row.values()
        return value


def literal(value):
    """A Python value as SQL: None, bool, int, str, or a list of those (without its type)."""
    if isinstance(value, (list, tuple)):
        return "ARRAY[" + ",".join(literal(item) for item in value) + "]"
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    return "'" + value.replace("'", "''") + "'"
