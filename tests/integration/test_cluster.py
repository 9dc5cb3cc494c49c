"""The local cluster itself: what `make run`, `make up` and `make down` promise.

Goal: it starts, stops and starts again after any end, says clearly what is in its way, and never
leaves a process behind or signals a stranger's. Method: real clusters in folders of their own,
killed and interrupted at awkward moments; afterwards /proc is searched for what should be gone.

SPDX-License-Identifier: MIT
"""

import contextlib
import functools
import os
import re
import signal
import socket
import subprocess
import threading
import time

import harness
from harness import (PATIENT, Ports, alive, binary, environment, processes_naming, refused, short,
                     timeout, wait_until)

Cluster = functools.partial(harness.Cluster, cdc=True)


def nothing_left(cluster):
    """No process of the cluster, and nobody on its ports."""
    wait_until(lambda: not processes_naming(str(cluster.var)), 10, what="processes to be gone")
    ports = range(cluster.port_base, cluster.admin_port + 1)
    # A process whose first thread is gone may hold its sockets a moment longer.
    wait_until(lambda: all(refused(port) for port in ports), 10, what="nobody to listen")


class Run:
    """`seatgrid dev run` in the foreground, its output collected."""

    def __init__(self, cluster):
        self.process = subprocess.Popen(
            [binary(), "dev", "run", *cluster.options()], env=environment(), text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True)
        self.output = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.process.stdout:
            self.output += line

    def wait_for(self, text, seconds=60):
        """Until the output holds the text."""
        wait_until(lambda: text in self.output or self.process.poll() is not None, seconds,
                   what=f"{text!r} in the output of run")
        assert text in self.output, self.output

    def end(self, number):
        """Sends the signal as a terminal would, gives the exit code."""
        os.killpg(self.process.pid, number)
        code = self.process.wait(timeout=120)
        self._reader.join(10)
        return code


@short
def test_up_down_up_keeps_the_data():
    """A booking made before `down` is there after the next `up`; twice `up` is fine."""
    with Cluster() as cluster:
        event = cluster.make_event(rows=2, cols=3)
        assert cluster.book(event, [(1, 2)]).status == 201
        again = cluster.up()
        assert "All of it runs already." in again.stdout, again.stdout
        cluster.down()
        nothing_left(cluster)
        assert "Nothing runs" in cluster.down().stdout
        cluster.up()
        cluster.wait_replicas()
        assert cluster.get(f"/events/{event}/seats").json()["seats"] == [".x.", "..."]
        for shard in ("alpha", "beta"):
            assert cluster.value(f"{shard}-2", "SELECT pg_is_in_recovery()") == "t"
            assert cluster.value(shard, "SELECT count(*) FROM pg_stat_replication"
                                        " WHERE state = 'streaming' AND application_name ="
                                        f" '{shard}-2'") == "1"


def test_servers_are_set_up_as_promised():
    """Logical WAL, durability on, loopback only, an unprivileged user."""
    with Cluster(servers_only=True) as cluster:
        wanted = {"wal_level": "logical", "fsync": "on", "synchronous_commit": "on",
                  "max_wal_senders": "20", "max_replication_slots": "20",
                  "max_connections": "300", "hot_standby_feedback": "on",
                  "listen_addresses": "127.0.0.1", "server_encoding": "UTF8"}
        for node in ("alpha-1", "alpha-2", "beta-1", "beta-2"):
            for name, value in wanted.items():
                assert cluster.value(node, f"SHOW {name}") == value, (node, name)
            uid = os.stat(f"/proc/{cluster.pid(node)}").st_uid
            assert uid != 0, f"{node} runs as root"
            assert cluster.value(node, "SHOW cluster_name") == node
        assert cluster.value("beta", "SELECT slot_name FROM pg_replication_slots") == "beta_2"
        assert os.stat(f"/proc/{cluster.pid('redis')}").st_uid != 0
        ids = {cluster.value(node, "SELECT system_identifier FROM pg_control_system()")
               for node in ("alpha-1", "alpha-2", "beta-1", "beta-2")}
        assert len(ids) == 2, "two shards, two systems"


@short
def test_up_after_kill_9_of_everything():
    """All processes die at once, with stale pid files that name strangers: the next `up` works,
    and the strangers live."""
    with Cluster() as cluster:
        event = cluster.make_event(rows=1, cols=3)
        assert cluster.book(event, [(1, 1)]).status == 201
        for pid in processes_naming(str(cluster.var)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        nothing_left(cluster)
        stranger = subprocess.Popen(["sleep", "600"])
        try:
            postmaster = cluster.var / "servers" / "alpha-1" / "postmaster.pid"
            lines = postmaster.read_text(encoding="ascii").splitlines()
            postmaster.write_text("\n".join([str(stranger.pid), *lines[1:]]) + "\n",
                                  encoding="ascii")
            pid_file = cluster.var / "run" / "redis.pid"
            words = pid_file.read_text(encoding="ascii").split()
            pid_file.write_text(" ".join([str(stranger.pid), *words[1:]]), encoding="ascii")
            cluster.up()
            cluster.down()
            assert alive(stranger.pid), "a stranger was killed"
        finally:
            stranger.kill()
            stranger.wait()
        cluster.up()
        assert cluster.get(f"/events/{event}/seats").json()["seats"] == ["x.."]


def test_up_brings_back_what_is_missing():
    """One server of each kind dies: `up` starts those and leaves the others alone."""
    with Cluster() as cluster:
        before = cluster.status()
        for name in ("alpha-2", "redis", "cdc", "serve"):
            cluster.crash(name)
        assert cluster.dev("status", "--var", str(cluster.var), check=False).returncode == 1
        cluster.up()
        after = cluster.status()
        for name in before:
            changed = before[name]["pid"] != after[name]["pid"]
            assert changed == (name in ("alpha-2", "redis", "cdc", "serve")), name


def test_taken_ports_are_named():
    """Each taken port is named with who needs it and which option moves it, before anything
    starts."""
    with Cluster(start=False) as cluster, contextlib.ExitStack() as stack:
        for port in (cluster.port("beta-1"), cluster.http_port):
            taken = stack.enter_context(socket.socket())
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            taken.bind(("0.0.0.0", port))
            taken.listen()
        done = cluster.dev("up", *cluster.options(), check=False)
        assert done.returncode == 1
        assert re.search(rf"port {cluster.port('beta-1')} is taken by \S+ \(pid {os.getpid()}\); "
                         r"beta-1 needs it; --port-base N moves it", done.stderr), done.stderr
        assert re.search(rf"port {cluster.http_port} is taken by .*; the API needs it; "
                         r"--http-port N moves it \(make: HTTP_PORT=N\)", done.stderr), done.stderr
        assert "initdb" not in done.stdout, "something was started first"
        assert not processes_naming(str(cluster.var))


def test_impossible_ports_are_refused():
    """Ports that meet, or are none, are wrong usage."""
    with Cluster(start=False) as cluster:
        var = ["--var", str(cluster.var)]
        for options, text in (
                (["--port-base", "65533"], "choose one between 1 and"),
                (["--port-base", "8100", "--http-port", "8102"], "among the servers' ports"),
                (["--http-port", "9000", "--admin-port", "9000"], "are both 9000"),
                (["--http-port", "0"], "a port is 1 to 65535"),
                (["--replicas", "9"], "between 0 and 8"),
                (["--port-base", "x"], "not a number")):
            done = cluster.dev("up", *var, *options, check=False)
            assert done.returncode == 2 and text in done.stderr, (options, done.stderr)


def test_two_side_by_side():
    """Two clusters at once; what happens in one is not seen in the other."""
    with Cluster(replicas=0) as one, Cluster(replicas=0) as two:
        event = one.make_event()
        assert one.get(f"/events/{event}").status == 200
        assert two.get(f"/events/{event}").status == 404
        one.down()
        assert all(server["pid"] for server in two.status().values())
        assert two.get("/readyz").status == 200


def test_second_up_at_once_is_refused():
    """While one `up` works on a folder another is refused, and the first is not disturbed."""
    with Cluster(servers_only=True, start=False) as cluster:
        command = [binary(), "dev", "up", *cluster.options()]
        first = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE,
                                 stderr=subprocess.STDOUT, text=True)
        wait_until(lambda: (cluster.var / "run" / "lock").exists() and
                   (cluster.var / "servers").exists(), what="the first to begin")
        second = subprocess.run(command, env=environment(), capture_output=True, text=True,
                                timeout=60, check=False)
        output = first.communicate(timeout=120)[0]
        assert first.returncode == 0, output
        assert second.returncode == 1
        assert "another `seatgrid dev` is at work" in second.stderr, second.stderr


def test_other_ports_while_it_runs_are_refused():
    """A running cluster is not moved under its users; a stopped one is."""
    with Cluster(replicas=1, servers_only=True) as cluster:
        others = Ports(5)
        try:
            options = ["--var", str(cluster.var), "--servers-only", "--port-base",
                       str(others.base), "--http-port", str(cluster.http_port),
                       "--admin-port", str(cluster.admin_port)]
            done = cluster.dev("up", *options, check=False)
            assert done.returncode == 1 and "runs already" in done.stderr, done.stderr
            cluster.down()
            cluster.dev("up", *options)
            status = cluster.status()
            assert status["alpha-2"]["port"] == others.base + 1
            assert not refused(others.base + 1)
            cluster.port_base = others.base
            wait_until(lambda: cluster.value("alpha", "SELECT count(*) FROM pg_stat_replication",
                                             database="postgres") == "1",
                       what="the replica to find its primary on the new port")
        finally:
            others.release()


@timeout(300)
def test_run_and_ctrl_c_leave_no_process():
    """`run` books a first seat and prints lines to try, each of at most 80 columns; Ctrl-C,
    SIGTERM and SIGHUP stop everything; the folder can be used again."""
    with Cluster(start=False) as cluster:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            run = Run(cluster)
            run.wait_for("Ctrl-C stops it")
            run.wait_for("dev status")
            seats = re.search(r"127\.0\.0\.1:\d+/events/(\d+)/seats", run.output)
            answer = cluster.get(f"/events/{seats.group(1)}/seats")
            assert answer.status == 200, (answer, cluster.log_tail())
            booked = answer.json()["seats"]
            assert sum(row.count("x") for row in booked) == 2, booked
            long = [line for line in run.output.splitlines() if len(line) > 80
                    and str(cluster.var) not in line]
            assert not long, long
            code = run.end(number)
            assert code == 0, (code, run.output)
            nothing_left(cluster)


def test_the_curl_lines_of_run_work():
    """What `run` prints is typed as it stands: each line that says its status gets it; then the
    seat map, an event, counters, tickets, a stream, figures."""
    with Cluster(start=False, replicas=0, settings=PATIENT) as cluster:
        run = Run(cluster)
        run.wait_for("dev status")
        text = run.output.replace("curl ", "curl -sS -m 60 ")
        hold = re.search(r"^  (HOLD=\S+)$", text, re.MULTILINE).group(1)
        wait_until(lambda: cluster.get("/events/1/availability").json()["source"] == "redis",
                   what="the counters to be believed")

        def typed(command):
            return subprocess.run(["sh", "-c", f"{hold}\n{command}"], capture_output=True,
                                  text=True, timeout=90, check=False).stdout
        answers = []
        commands = re.findall(r"^  (curl [^\n]*(?:\n    [^\n]*)*)", text, re.MULTILINE)
        for command in commands:
            if "/availability" in command:  # held: for u-3 and u-5; the late money of u-4 has come
                wait_until(lambda: [cluster.get("/events/1/availability").json()[name]
                                    for name in ("held", "booked")] == [4, 10],
                           what="the counters to follow")
            if "/stream" in command:  # has no end of its own
                command = command.replace("-m 60", "-m 10")
            answers.append(typed(command))
        again = typed(commands[0])
        run.end(signal.SIGINT)
        assert "Idempotent-Replayed: true" in again, again
        assert again.splitlines()[-1] == answers[0].splitlines()[-1], again
        statuses = [re.match(r"HTTP/1.1 (\d+)", answer) for answer in answers]
        life, orders = ["200"] * 4, ["201", "402", "202"]
        assert [found and found.group(1) for found in statuses] == \
            ["201", "409", "201", "201", *life, *orders, "201"] + [None] * 6, answers
        assert re.findall(r": (\d\d\d)\b", run.output) == \
            ["201", "409", "201", "201", "200", *orders, "201"], run.output
        assert '"conflicts"' in answers[1] and '"row":7,"col":10' in answers[2], answers[1:3]
        for n, status in enumerate(("held", "held", "confirmed", "confirmed", "cancelled"), 3):
            assert f'"status":"{status}"' in answers[n], answers[n]
        assert '"userId":"u-6"' in answers[6] and '"amount":9000' in answers[8], answers
        assert '"payment_declined"' in answers[9] and "Location: " in answers[10], answers
        assert '"state":"offered"' in answers[11], answers[11]
        assert '"seats"' in answers[12] and '"id"' in answers[13], answers
        assert '"available":186,"held":4,"booked":10' in answers[14], answers[14]
        assert '"tickets":[{' in answers[15] and "event: counters" in answers[16], answers
        assert "seatgrid_" in answers[17], answers[17]


@timeout(300)
def test_interrupted_while_starting():
    """Ctrl-C at any moment of the start leaves no process, and the next start works."""
    with Cluster(start=False) as cluster:
        for pause in (0.05, 0.3, 0.9, 1.6, 2.4):
            run = Run(cluster)
            time.sleep(pause)
            run.end(signal.SIGINT)
            nothing_left(cluster)
        cluster.up()
        assert cluster.get("/readyz").status == 200


def test_run_killed_takes_its_servers_along():
    """Even kill -9 of `run` does not leave its servers behind."""
    with Cluster(start=False) as cluster:
        run = Run(cluster)
        run.wait_for("dev status")
        run.end(signal.SIGKILL)
        nothing_left(cluster)


def test_down_from_another_terminal_ends_run():
    """`run` notices that somebody else stopped its cluster, and ends without an error."""
    with Cluster(start=False, replicas=0) as cluster:
        run = Run(cluster)
        run.wait_for("dev status")
        cluster.down()
        assert run.process.wait(timeout=60) == 0
        nothing_left(cluster)


def test_run_refuses_a_running_cluster():
    """What runs in the background is not stopped by somebody's Ctrl-C."""
    with Cluster(replicas=0) as cluster:
        done = cluster.dev("run", *cluster.options(), check=False)
        assert done.returncode == 1 and "runs already" in done.stderr, done.stderr
        assert cluster.get("/readyz").status == 200


def test_failure_half_way_stops_what_was_started():
    """cdc, the first of ours, refuses its settings: the message shows its log, and no server is left."""
    with Cluster(start=False, settings={"booking.max_seats": "many"}) as cluster:
        done = cluster.dev("up", *cluster.options(), check=False)
        assert done.returncode == 1
        assert "seatgrid cdc has ended" in done.stderr, done.stderr
        assert "max_seats" in done.stderr, done.stderr
        nothing_left(cluster)


def test_edited_map_is_kept():
    """The operator's edits of shardmap.cfg survive `up`, unless other ports need another map."""
    with Cluster(replicas=0) as cluster:
        path = cluster.var / "shardmap.cfg"
        path.write_text(path.read_text(encoding="utf-8").replace("map_version = 1",
                                                                 "map_version = 7"),
                        encoding="utf-8")
        cluster.down()
        cluster.up()
        assert "map_version = 7" in path.read_text(encoding="utf-8")
        assert cluster.get("/events/1").headers["SeatGrid-Map-Version"] == "7"
        cluster.down()
        cluster.replicas = 1  # as many ports more as were reserved: none, so take others
        ports = Ports(8)
        try:
            cluster.port_base = ports.base
            done = cluster.up()
            assert "shardmap.cfg.old" in done.stdout, done.stdout
            assert "map_version = 1" in path.read_text(encoding="utf-8")
            assert cluster.value("alpha-2", "SELECT pg_is_in_recovery()") == "t"
        finally:
            ports.release()


def test_settings_of_another_up_restart_serve():
    """`up --strategy` on a running cluster starts serve anew with it."""
    with Cluster(replicas=0) as cluster:
        first = cluster.pid("serve")
        cluster.strategy = "naive"
        cluster.up()
        assert cluster.pid("serve") != first
        text = (cluster.var / "seatgrid.cfg").read_text(encoding="utf-8")
        assert 'strategy = "naive"' in text


def test_one_server_at_a_time():
    """stop, start, kill, pause and resume reach the one that was named, also when it is frozen."""
    with Cluster(servers_only=True, replicas=0) as cluster:
        var = ["--var", str(cluster.var)]
        others = {name: server["pid"] for name, server in cluster.status().items()}
        cluster.dev("pause", "redis", *var)
        assert re.search(r"redis .*frozen", cluster.dev("status", *var, check=False).stdout)
        cluster.dev("resume", "redis", *var)
        assert "frozen" not in cluster.dev("status", *var, check=False).stdout
        cluster.kill("redis")
        assert cluster.pid("redis") == 0
        assert "on 127.0.0.1" in cluster.dev("start", "redis", *var).stdout
        assert "runs already" in cluster.dev("start", "redis", *var).stdout

        cluster.dev("pause", "alpha-1", *var)
        cluster.stop("alpha-1")
        assert cluster.pid("alpha-1") == 0
        assert not processes_naming(os.path.realpath(cluster.var / "servers" / "alpha-1"))
        cluster.start("alpha-1")
        assert cluster.value("alpha-1", "SELECT 1", database="postgres") == "1"
        assert cluster.pid("beta-1") == others["beta-1"]
        for command in ("start", "stop", "kill", "pause", "resume", "promote", "rejoin"):
            done = cluster.dev(command, "gamma-1", *var, check=False)
            assert done.returncode == 1 and 'no server "gamma-1"' in done.stderr, done
            done = cluster.dev(command, *var, check=False)
            assert done.returncode == 2 and "name is missing" in done.stderr, done


def test_the_rejoin_command_of_the_settings_works():
    """What a switchover is told to run for a node, run as it stands."""
    with Cluster(no_serve=True) as cluster:
        text = (cluster.var / "seatgrid.cfg").read_text(encoding="utf-8")
        command = re.search(r'rejoin_command = "(.*)"', text).group(1)
        done = subprocess.run([*command.split(" "), "alpha-2"], env=environment(), text=True,
                              capture_output=True, timeout=120, check=False)
        assert done.returncode == 0 and "streams already from alpha-1" in done.stdout, done


def test_a_serve_beside():
    """A second `seatgrid serve` with settings of its own, on the same servers."""
    with Cluster(replicas=0) as cluster:
        event = cluster.make_event(rows=1, cols=4, shard="alpha")
        with cluster.serve_beside(settings={"booking.max_seats": 1}) as other:
            other.wait_ready()
            assert other.book(event, [(1, 1), (1, 2)]).code == "too_many_seats"
            assert other.book(event, [(1, 1)]).status == 201
            assert cluster.book(event, [(1, 1)]).status == 409
            assert cluster.book(event, [(1, 2), (1, 3)]).status == 201
        assert refused(other.http_port)


def test_destroy_removes_only_its_own():
    """What else lies in the folder stays; a folder that is none of ours is not touched."""
    with Cluster(servers_only=True, replicas=0) as cluster:
        (cluster.var / "notes.txt").write_text("mine", encoding="utf-8")
        cluster.dev("destroy", "--var", str(cluster.var))
        nothing_left(cluster)
        assert [path.name for path in cluster.var.iterdir()] == ["notes.txt"]
        done = cluster.dev("destroy", "--var", str(cluster.folder))
        assert "Nothing to remove" in done.stdout
        assert (cluster.var / "notes.txt").exists()
