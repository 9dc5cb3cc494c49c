"""Test servers for the stories in this folder: the one way to start and torment them.

    Cluster() ─> seatgrid dev up ─> PostgreSQL primaries and replicas, Redis, seatgrid serve
       │                              (and seatgrid cdc for Cluster(cdc=True))
       │  sql(node, text)       psql on one node
       │  get/post/request      HTTP to the API; admin() to the admin listener
       │  crash/stop/start/pause/resume(server)   by the pids of this cluster only
       │  promote/rejoin(node)  another primary for a shard, and the old one back
       │  serve_beside()        one more `seatgrid serve` on the same servers
       └─ leaving the `with` block stops all, removes all, and fails if a sanitizer spoke

Each cluster has a folder of its own under /tmp and ports that were free, so that several test runs
live side by side with each other and with a running system. Python's standard library only.

SPDX-License-Identifier: MIT
"""

import contextlib
import errno
import fcntl
import http.client
import json
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
VARIANT = os.environ.get("SEATGRID_VARIANT", "release")
# Below the kernel's own choice of ports (32768 and up), so that no client socket takes them.
PORTS = tuple(int(n) for n in os.environ.get("SEATGRID_TEST_PORTS", "20000-32000").split("-"))
# Sanitizers make everything slower; waits and timeouts are stretched by this.
SLOWDOWN = {"release": 1, "asan": 3, "tsan": 6}[VARIANT]
PREFIX = "seatgrid-test-"
SANITIZER = re.compile(
    r"(AddressSanitizer|ThreadSanitizer|LeakSanitizer|UndefinedBehaviorSanitizer|runtime error:"
    r"|Assertion .* failed)")
SEPARATOR = "\x1f"
# Settings for stories that are not about time: a machine that stands still for seconds is no 503.
PATIENT = {"booking.deadline_ms": 12000, "reads.deadline_ms": 12000,
           "postgres.statement_timeout_ms": 10000, "queue.confirm_ms": 10000}


def binary():
    """The program under test."""
    return pathlib.Path(os.environ.get("SEATGRID_BINARY", ROOT / "build" / VARIANT / "seatgrid"))


def environment():
    """What the program under test is started with."""
    env = {name: value for name, value in os.environ.items()
           if not name.startswith(("PG", "SEATGRID_CONFIG", "MAKE", "MFLAGS"))}
    env["ASAN_OPTIONS"] = "detect_leaks=1:abort_on_error=0:exitcode=99"
    env["UBSAN_OPTIONS"] = "print_stacktrace=1"
    env["TSAN_OPTIONS"] = f"exitcode=99:suppressions={ROOT / 'tools/tsan.supp'}"
    return env


def wait_until(condition, seconds=20, every=0.05, what="the condition"):
    """Polls until condition() is true and returns its value; AssertionError when time is up."""
    deadline = time.monotonic() + seconds * SLOWDOWN
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {seconds * SLOWDOWN} s")
        time.sleep(every)


def alive(pid):
    """Is there a process of this pid that is no zombie? (kill -0 says yes to a zombie.)"""
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def processes_naming(text):
    """Pids of living processes whose command line or working folder names the text."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            line = (entry / "cmdline").read_bytes().decode(errors="replace")
            folder = os.readlink(entry / "cwd")
        except OSError:
            continue
        if (text in line or text in folder) and alive(int(entry.name)):
            found.append(int(entry.name))
    return found


# ---- ports ----------------------------------------------------------------------------------------


def _is_free(port):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


class Ports:
    """A block of ports that are free and that no other test run of this machine takes meanwhile."""

    def __init__(self, count):
        folder = pathlib.Path(tempfile.gettempdir()) / "seatgrid-test-ports"
        folder.mkdir(exist_ok=True)
        with contextlib.suppress(PermissionError):
            folder.chmod(0o777)
        blocks = list(range(PORTS[0], PORTS[1] - count + 2, count))
        random.shuffle(blocks)
        for base in blocks:
            held = []
            for port in range(base, base + count):
                lock = self._lock(folder / str(port))
                if lock is None:
                    break
                held.append(lock)
                if not _is_free(port):
                    break
            else:
                self.base, self._held = base, held
                return
            for lock in held:
                os.close(lock)
        raise RuntimeError(f"no {count} free ports between {PORTS[0]} and {PORTS[1]}")

    @staticmethod
    def _lock(path):
        try:
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except PermissionError:
            return None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            return None
        return lock

    def release(self):
        """Lets others have them."""
        for lock in self._held:
            os.close(lock)
        self._held = []


# ---- HTTP -----------------------------------------------------------------------------------------


class Response:
    """status, headers (case does not matter), body as bytes."""

    def __init__(self, status, headers, body):
        self.status = status
        self.headers = headers
        self.body = body

    def json(self):
        """The body, parsed."""
        return json.loads(self.body)

    @property
    def code(self):
        """The stable code of a problem; None for other answers."""
        return self.json().get("code") if self.status >= 400 and self.body else None

    def __repr__(self):
        return f"<{self.status} {self.body[:300]!r}>"


def http_request(port, method, path, body=None, headers=None, timeout=15):
    """One request on a connection of its own. A body that is no bytes or str goes as JSON."""
    headers = dict(headers or {})
    if body is not None and not isinstance(body, (bytes, str)):
        body = json.dumps(body)
        headers.setdefault("Content-Type", "application/json")
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout * SLOWDOWN)
    try:
        connection.request(method, path, body=body, headers=headers)
        answer = connection.getresponse()
        return Response(answer.status, answer.headers, answer.read())
    finally:
        connection.close()


# ---- clusters -------------------------------------------------------------------------------------


class DevError(AssertionError):
    """A `seatgrid dev` command failed; has .code, .stdout, .stderr."""

    def __init__(self, command, done):
        super().__init__(f"seatgrid dev {command}: exit code {done.returncode}\n"
                         f"{done.stdout[-3000:]}{done.stderr[-6000:]}")
        self.code, self.stdout, self.stderr = done.returncode, done.stdout, done.stderr


class Cluster:
    """Two shards, alpha and beta, with `replicas` replicas each, a Redis, `seatgrid mockpay`, `serve`;
    with cdc=True also `seatgrid cdc`.

    settings: {"booking.max_seats": 5, ...} for seatgrid.cfg. durability: "sync" or "async", of both
    shards. ha: every shard under Patroni, with etcd; servers then are "etcd" and "alpha-1-patroni",
    too, and promote() is a switchover that Patroni makes. queue: with "rabbitmq" and "worker", so
    that bookings can be accepted for later. start=False only reserves folder and ports. Use it in a `with` block: the end of the
    block leaves nothing behind.
    """

    def __init__(self, replicas=1, strategy=None, settings=None, servers_only=False,
                 no_serve=False, cdc=False, start=True, durability=None, ha=False,
                 queue=False):
        self.replicas = replicas
        self.durability = durability
        self.ha = ha
        self.queue = queue
        self.strategy = strategy
        self.settings = dict(settings or {})
        self.flags = (["--servers-only"] if servers_only else []) + \
                     (["--no-serve"] if no_serve else []) + ([] if cdc else ["--no-cdc"])
        self._start = start
        self._beside = []
        nodes = 2 * (1 + replicas)
        servers = nodes + 3 + (2 + nodes if ha else 0) + (4 if queue else 0)
        self._ports = Ports(servers + 2)
        self.port_base = self._ports.base
        self.http_port = self.port_base + servers
        self.admin_port = self.http_port + 1
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))
        self.folder.chmod(0o755)  # the servers' user has to reach it
        self.var = self.folder / "var"

    def __enter__(self):
        try:
            if self._start:
                self.up()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind, *_):
        for serve in self._beside:
            serve.kill()
        if self.var.exists() and not kind:
            self.dev("down", "--var", str(self.var), check=False)  # leaks are told at the end
        spoken = self.sanitizer_reports()
        self.close()
        if not kind and spoken:
            raise AssertionError("a sanitizer or an assertion spoke:\n" + spoken)

    # ---- life ----

    def options(self):
        """The options of `dev up` for this cluster."""
        options = ["--var", str(self.var), "--port-base", str(self.port_base),
                   "--http-port", str(self.http_port), "--admin-port", str(self.admin_port),
                   "--replicas", str(self.replicas), *self.flags]
        if self.durability:
            options += ["--durability", self.durability]
        if self.ha:
            options += ["--ha"]
        if self.queue:
            options += ["--queue"]
        if self.strategy:
            options += ["--strategy", self.strategy]
        for key, value in self.settings.items():
            text = json.dumps(value) if isinstance(value, bool) else str(value)
            options += ["--set", f"{key}={text}"]
        return options

    def dev(self, command, *arguments, check=True, timeout=240):
        """Runs `seatgrid dev ...`; gives the finished process."""
        done = subprocess.run([binary(), "dev", command, *arguments], env=environment(),
                              capture_output=True, text=True, timeout=timeout * SLOWDOWN,
                              check=False, stdin=subprocess.DEVNULL)
        if check and done.returncode != 0:
            raise DevError(command, done)
        return done

    def up(self):
        """Starts what does not run; back when the API is ready."""
        return self.dev("up", *self.options())

    def down(self):
        """Stops all; the data stays."""
        return self.dev("down", "--var", str(self.var))

    def close(self):
        """Stops and removes everything, whatever state it is in."""
        for serve in self._beside:
            serve.kill()
        if self.var.exists():
            for pid in self._frozen():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
            done = self.dev("destroy", "--var", str(self.var), check=False)
            if done.returncode != 0:
                for pid in processes_naming(str(self.folder)):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)
        self._ports.release()

    def _frozen(self):
        for pid in processes_naming(str(self.folder)):
            with contextlib.suppress(OSError):
                stat = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
                if stat.rpartition(")")[2].split()[0] == "T":
                    yield pid

    # ---- looking ----

    def status(self):
        """{name: {"role", "shard", "port", "pid"}}; pid 0: does not run. Roles of nodes: "primary",
        "old primary", "replica"."""
        done = self.dev("status", "--var", str(self.var), "--json", check=False)
        return {server["name"]: server for server in json.loads(done.stdout)["servers"]}

    def pid(self, name):
        """Of a node, redis, cdc or serve; 0 if it does not run."""
        return self.status()[name]["pid"]

    def port(self, name):
        """Of a node, redis, cdc, rabbitmq, worker, mockpay, etcd; "alpha-1-patroni": of its REST API."""
        nodes = 2 * (1 + self.replicas)
        if name.endswith("-patroni"):
            return self.port(name.removesuffix("-patroni")) + nodes + 4
        index = {"alpha": 0, "beta": 1 + self.replicas, "redis": nodes, "cdc": nodes + 1,
                 "etcd": nodes + 2}
        index["rabbitmq"] = nodes + 2 + (2 + nodes if self.ha else 0)
        index["worker"] = index["rabbitmq"] + 3
        index["mockpay"] = index["rabbitmq"] + (4 if self.queue else 0)
        shard, _, number = name.partition("-")
        return self.port_base + index[shard] + (int(number) - 1 if number else 0)

    def primary(self, shard):
        """The name of the shard's primary: of the nodes that are none, or were, the newest."""
        for name, server in self.status().items():
            if server["shard"] == shard and server["role"] == "primary":
                return name
        raise AssertionError(f"shard {shard} has no primary")

    def nodes(self, shard):
        """The names of its nodes."""
        return [f"{shard}-{number}" for number in range(1, 2 + self.replicas)]

    def log(self, name="serve"):
        """A server's log, as text; "" if there is none."""
        path = self.var / "log" / f"{name}.log"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def log_tail(self, name="serve", lines=30):
        """The end of it, for messages."""
        return "\n".join(self.log(name).splitlines()[-lines:])

    def sanitizer_reports(self):
        """What sanitizers and assertions wrote into the logs of our programs; "" if nothing."""
        spoken = ""
        for program in ("serve", "cdc", "worker", *(serve.name for serve in self._beside)):
            text = self.log(program)
            found = SANITIZER.search(text)
            if found:
                spoken += f"{program}: {text[max(0, found.start() - 200):found.start() + 6000]}\n"
        return spoken

    def rss_bytes(self, program="serve"):
        """Resident memory of `seatgrid serve` or `seatgrid cdc`."""
        status = pathlib.Path(f"/proc/{self.pid(program)}/status").read_text(encoding="ascii")
        return int(re.search(r"VmRSS:\s+(\d+) kB", status).group(1)) * 1024

    def metric(self, name, program="serve", **labels):
        """Sum of the series of that name that carry these labels; 0 if there is none."""
        total = 0.0
        ask = {"cdc": self.cdc, "worker": self.worker}.get(program, self.admin)
        for line in ask("GET", "/metrics").body.decode().splitlines():
            found = re.match(r"(\w+)(?:\{(.*)\})? (\S+)$", line)
            if not found or found.group(1) != name:
                continue
            have = dict(re.findall(r'(\w+)="([^"]*)"', found.group(2) or ""))
            if all(have.get(key) == value for key, value in labels.items()):
                total += float(found.group(3))
        return total

    # ---- asking ----

    def sql(self, node, text, database="seatgrid", user="postgres"):
        """Rows as tuples of strings. `node`: a node's name, or a shard's for the first of its nodes
        that is no replica."""
        names = [node] if "-" in node else self.nodes(node)
        ports = ",".join(str(self.port(name)) for name in names)
        dsn = (f"host={','.join(['127.0.0.1'] * len(names))} port={ports} user={user}"
               f" dbname={database}")
        if len(names) > 1:
            dsn += f" target_session_attrs=primary connect_timeout={2 * SLOWDOWN}"
        done = subprocess.run(
            ["psql", "-XAtq", "-F", SEPARATOR, "-v", "ON_ERROR_STOP=1", "-d", dsn, "-c", text],
            env=environment(), capture_output=True, text=True, timeout=60 * SLOWDOWN, check=False)
        if done.returncode != 0:
            raise AssertionError(f"{node}: {text}\n{done.stderr.strip()}")
        return [tuple(line.split(SEPARATOR)) for line in done.stdout.splitlines()]

    def value(self, node, text, **options):
        """The one value that a query gives."""
        return self.sql(node, text, **options)[0][0]

    def request(self, method, path, body=None, headers=None, timeout=15):
        """One request to the API."""
        return http_request(self.http_port, method, path, body, headers, timeout)

    def get(self, path, headers=None, timeout=15):
        """GET of the API."""
        return self.request("GET", path, None, headers, timeout)

    def post(self, path, body, headers=None, timeout=15):
        """POST to the API; a body that is no bytes or str goes as JSON."""
        return self.request("POST", path, body, headers, timeout)

    def admin(self, method, path, body=None, headers=None, timeout=15):
        """One request to the admin listener."""
        return http_request(self.admin_port, method, path, body, headers, timeout)

    def cdc(self, method, path, body=None, headers=None, timeout=15):
        """One request to the admin listener of `seatgrid cdc`."""
        return http_request(self.port("cdc"), method, path, body, headers, timeout)

    def worker(self, method, path, body=None, headers=None, timeout=15):
        """One request to the admin listener of `seatgrid worker`."""
        return http_request(self.port("worker"), method, path, body, headers, timeout)

    def make_event(self, rows=10, cols=10, shard=None, name="Test"):
        """Makes an event and gives its id."""
        body = {"name": name, "startsAt": "2030-06-01T19:00:00Z", "rows": rows, "cols": cols}
        if shard:
            body["shard"] = shard
        answer = self.post("/events", body)
        assert answer.status == 201, answer
        return answer.json()["id"]

    def book(self, event_id, seats, user="u-1", headers=None, timeout=15):
        """Books [(row, col), ...]; gives the Response."""
        return self.post("/book", {"eventId": event_id, "userId": user,
                                   "seats": [{"row": row, "col": col} for row, col in seats]},
                         headers, timeout)

    def seatgrid(self, *arguments, check=True):
        """Runs a command of the program with this cluster's configuration (-c is added)."""
        done = subprocess.run([binary(), *arguments, "-c", str(self.var / "seatgrid.cfg")],
                              env=environment(), capture_output=True, text=True,
                              timeout=60 * SLOWDOWN, check=False)
        if check and done.returncode != 0:
            raise AssertionError(f"seatgrid {' '.join(arguments)}: exit code {done.returncode}\n"
                                 f"{done.stdout}{done.stderr}")
        return done

    # ---- tormenting ----

    def crash(self, name):
        """kill -9 of a server with all its processes, as a power cut would; waits for the end."""
        pid = self.pid(name)
        assert pid, f"{name} does not run"
        pids = [pid]
        if "-" in name:
            data = os.path.realpath(self.var / "servers" / name)
            pids += [other for other in processes_naming(data) if other != pid]
        for one in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(one, signal.SIGKILL)
        wait_until(lambda: not any(alive(one) for one in pids), what=f"{name} to die")

    def stop(self, name):
        """Orderly end of one server."""
        self.dev("stop", name, "--var", str(self.var))

    def start(self, name, force=False):
        """Starts one server that does not run; back when it is ready. force: even a node that was
        its shard's primary before another was promoted."""
        self.dev("start", name, "--var", str(self.var), *(["--force"] if force else []))

    def kill(self, name):
        """As crash, by the program's own command."""
        self.dev("kill", name, "--var", str(self.var))

    def promote(self, name):
        """Makes a replica its shard's primary, however the primary fares; gives what was said."""
        return self.dev("promote", name, "--var", str(self.var)).stdout

    def rejoin(self, name):
        """Makes a node a replica that streams from its shard's primary; gives what was said."""
        return self.dev("rejoin", name, "--var", str(self.var)).stdout

    def serve_beside(self, map_text=None, settings=None):
        """One more `seatgrid serve` on this cluster's servers, with ports, and maybe a map and
        settings, of its own. In a `with` block it ends with the block, else with the cluster."""
        serve = ServeBeside(self, map_text, settings)
        self._beside.append(serve)
        return serve

    def restart(self, name):
        """Orderly end and new start."""
        self.stop(name)
        self.start(name)

    def signal(self, name, number):
        """Sends a signal to the main process of a server of this cluster."""
        pid = self.pid(name)
        assert pid, f"{name} does not run"
        os.kill(pid, number)

    def pause(self, name):
        """SIGSTOP to all processes of a server: it accepts connections and says nothing."""
        for pid in self._all_of(name):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)

    def resume(self, name):
        """The opposite."""
        for pid in self._all_of(name):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def _all_of(self, name):
        pids = {self.pid(name)}
        if "-" in name:
            pids.update(processes_naming(os.path.realpath(self.var / "servers" / name)))
        return pids - {0}

    def wait_ready(self, seconds=20):
        """Until /readyz says 200."""
        def ready():
            try:
                return self.get("/readyz", timeout=2).status == 200
            except (OSError, http.client.HTTPException):
                return False
        wait_until(ready, seconds, what="/readyz")

    def wait_replicas(self, seconds=20):
        """Until every replica has replayed what its primary has written."""
        for shard in ("alpha", "beta"):
            lsn = self.value(shard, "SELECT pg_current_wal_lsn()")
            for name in self.nodes(shard):
                wait_until(lambda name=name, lsn=lsn: self.value(
                    name, f"SELECT NOT pg_is_in_recovery() OR"
                          f" pg_last_wal_replay_lsn() >= '{lsn}'") == "t",
                    seconds, what=f"{name} to replay {lsn}")


class ServeBeside:
    """`seatgrid serve` as a child of the test, beside the one of the cluster."""

    def __init__(self, cluster, map_text, settings):
        self._ports = Ports(2)
        self.http_port, self.admin_port = self._ports.base, self._ports.base + 1
        # ports come again once an earlier one has ended
        self.name = f"serve-{len(cluster._beside)}-{self.http_port}"
        self.folder = cluster.var / self.name
        self.folder.mkdir()
        self._log = cluster.var / "log" / f"{self.name}.log"
        groups = read_config(cluster.var / "seatgrid.cfg")
        groups[""]["shard_map"] = '"shardmap.cfg"'
        groups["http"]["listen"] = f'"127.0.0.1:{self.http_port}"'
        groups["admin"]["listen"] = f'"127.0.0.1:{self.admin_port}"'
        secret = groups.get("payment", {}).get("secret_file")
        if secret:      # is named relative to its configuration
            groups["payment"]["secret_file"] = json.dumps(str(cluster.var / json.loads(secret)))
        for key, value in (settings or {}).items():
            group, _, name = key.rpartition(".")
            groups.setdefault(group, {})[name] = json.dumps(value)
        write_config(self.folder / "seatgrid.cfg", groups)
        if map_text is None:
            map_text = (cluster.var / "shardmap.cfg").read_text(encoding="utf-8")
        self.map = self.folder / "shardmap.cfg"
        self.map.write_text(map_text, encoding="utf-8")
        with self._log.open("w", encoding="utf-8") as output:
            self.process = subprocess.Popen(
                [binary(), "serve", "-c", self.folder / "seatgrid.cfg"], env=environment(),
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.kill()
        spoken = SANITIZER.search(self.log())
        assert kind or not spoken, self.log()[-6000:]

    def kill(self):
        """Its end; may be called again."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._ports.release()

    def log(self):
        """What it has said."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def request(self, method, path, body=None, headers=None, timeout=15):
        """One request to its API."""
        return http_request(self.http_port, method, path, body, headers, timeout)

    def get(self, path, headers=None, timeout=15):
        """GET of its API."""
        return self.request("GET", path, None, headers, timeout)

    def post(self, path, body, headers=None, timeout=15):
        """POST to its API."""
        return self.request("POST", path, body, headers, timeout)

    def admin(self, method, path, body=None, headers=None, timeout=15):
        """One request to its admin listener."""
        return http_request(self.admin_port, method, path, body, headers, timeout)

    def book(self, event_id, seats, user="u-1", headers=None, timeout=15):
        """Books [(row, col), ...]; gives the Response."""
        return self.post("/book", {"eventId": event_id, "userId": user,
                                   "seats": [{"row": row, "col": col} for row, col in seats]},
                         headers, timeout)

    def wait_ready(self, path="/readyz", seconds=20):
        """Until /readyz says 200; with /healthz, until it answers at all."""
        def ready():
            assert self.process.poll() is None, self.log()
            try:
                return self.get(path, timeout=2).status == 200
            except (OSError, http.client.HTTPException):
                return False
        wait_until(ready, seconds, what=f"{path} of {self.name}")


def read_config(path):
    """{group: {key: value as it stands}} of a seatgrid.cfg that `seatgrid dev` wrote; "" for keys
    outside of groups."""
    groups, group = {"": {}}, ""
    for line in path.read_text(encoding="utf-8").splitlines():
        opened = re.match(r"(\w+) = \{$", line)
        entry = re.match(r"\s*(\w+) = (.*);$", line)
        if opened:
            group = opened.group(1)
            groups[group] = {}
        elif line == "};":
            group = ""
        elif entry:
            groups[group][entry.group(1)] = entry.group(2)
    return groups


def write_config(path, groups):
    """The opposite."""
    text = ""
    for group, entries in groups.items():
        lines = "".join(f"{'    ' if group else ''}{key} = {value};\n"
                        for key, value in entries.items())
        text += f"{group} = {{\n{lines}}};\n" if group else lines
    path.write_text(text, encoding="utf-8")


def sweep():
    """Removes clusters of test runs that were killed before they could do so themselves."""
    for folder in pathlib.Path(tempfile.gettempdir()).glob(f"{PREFIX}*-*"):
        owner = folder.name[len(PREFIX):].split("-")[0]
        if not owner.isdigit() or alive(int(owner)):
            continue
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run([binary(), "dev", "destroy", "--var", folder / "var"],
                           env=environment(), capture_output=True, timeout=120, check=False)
            shutil.rmtree(folder, ignore_errors=True)


# ---- marks for tests ------------------------------------------------------------------------------


def short(test):
    """Part of the short run under sanitizers."""
    test.short = True
    return test


def timeout(seconds):
    """Another limit than the runner's 180 s."""
    def mark(test):
        test.timeout = seconds
        return test
    return mark


def refused(port):
    """Does nobody listen there?"""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED
