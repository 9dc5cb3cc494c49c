"""The load generators as functions: wrk, loadgen, direct_libpq, and the constants to compare with.

Each returns a dict with at least rate (a second), p50, p95 where known, p99 (ms), and the tool's
own report under "raw". Nothing here knows of clusters or promises.

SPDX-License-Identifier: MIT
"""

import json
import os
import pathlib
import signal
import socket
import subprocess
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TOOLS = pathlib.Path(os.environ.get("SEATGRID_BENCH_TOOLS", ROOT / "build/release/bench"))


class LoadError(Exception):
    """A load generator failed or measured something else than was asked."""


def tool(name):
    path = TOOLS / name
    if not path.exists():
        raise LoadError(f"{path} is missing; `make bench` builds it")
    return str(path)


def run_tool(command, timeout_s):
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    if done.returncode != 0:
        raise LoadError(f"{pathlib.Path(command[0]).name}: exit {done.returncode}: "
                        f"{(done.stderr or done.stdout).strip()[-500:]}")
    return done.stdout


def wrk(address, path, connections, seconds, threads=1, headers=(), script=(), broken_ok=False):
    """One run of wrk. script: the arguments of wrk.lua; none sends a constant GET of path."""
    command = ["wrk", "-t", str(threads), "-c", str(connections), "-d", f"{int(seconds)}s",
               "--timeout", "10s", "-s", str(HERE / "wrk.lua")]
    for header in headers:
        command += ["-H", header]
    command.append(f"http://{address}{path}")
    if script:
        command += ["--", *map(str, script)]
    raw = json.loads(run_tool(command, seconds + 60).strip().splitlines()[-1])
    if not raw["requests"] or (not broken_ok and (raw["broken"] or raw["timeouts"])):
        raise LoadError(f"wrk {path}: {raw}")
    return {"rate": raw["requests"] / raw["seconds"], "p50": raw["p50"], "p99": raw["p99"],
            "p99.9": raw["p99.9"], "raw": raw}


def loadgen_command(address, options):
    """options: loadgen's, with _ for -; True: a flag, a list: repeated, None: left out."""
    command = [tool("loadgen")]
    for key, value in options.items():
        name = "--" + key.replace("_", "-")
        if value is True:
            command.append(name)
        elif isinstance(value, (list, tuple)):
            for item in value:
                command += [name, str(item)]
        elif value is not None:
            command += [name, str(value)]
    return [*command, address]


def loadgen(address, timeout_s=300, **options):
    """One run of loadgen."""
    return loadgen_result(json.loads(run_tool(loadgen_command(address, options), timeout_s)))


def loadgen_result(raw):
    """rate and latencies of the whole run; raw["hold"] has those without the ramp."""
    return {**of_rate(raw["run"]), "raw": raw}


def loadgen_start(address, **options):
    """loadgen beside other work; end with loadgen_end."""
    return subprocess.Popen(loadgen_command(address, options), stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True)


def loadgen_end(process, timeout_s=120):
    out, err = process.communicate(timeout=timeout_s)
    if process.returncode != 0:
        raise LoadError(f"loadgen: exit {process.returncode}: {err.strip()[-500:]}")
    return loadgen_result(json.loads(out))


def of_rate(part):
    """A part of loadgen's report ("run", "hold") in the shape of a result."""
    latency = part["latency_ms"]
    return {"rate": part["answers_per_s"], "p50": latency["p50"], "p95": latency["p95"],
            "p99": latency["p99"], "p99.9": latency["p99.9"]}


def lost(raw):
    """Requests of a loadgen run that got no answer they should have got."""
    return sum(raw[key] for key in ("dropped", "timeouts", "garbage", "unanswered", "unsent",
                                    "connect_errors"))


def server_errors(raw):
    return sum(count for status, count in raw["statuses"].items() if status >= "500")


def direct_libpq(address, dsn, event, timeout_s=300, **options):
    """router, direct and hop: each with p50_us, p99_us and block_p50_us."""
    command = [tool("direct_libpq"), "--http", address, "--dsn", dsn, "--event", str(event)]
    for key, value in options.items():
        command.append("--" + key.replace("_", "-"))
        if value is not True:
            command.append(str(value))
    return json.loads(run_tool(command, timeout_s))


def wait_for_port(port, seconds=5.0):
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise LoadError(f"nothing listens on port {port}") from error
            time.sleep(0.02)


class Constant:
    """A server that answers a constant: bare_evhttp or bare_edge, with so many threads."""

    def __init__(self, name, port, threads):
        self.address = f"127.0.0.1:{port}"
        self.process = subprocess.Popen([tool(name), str(port), str(threads)],
                                        stdout=subprocess.DEVNULL)
        wait_for_port(port)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=5)
