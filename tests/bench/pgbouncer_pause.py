#!/usr/bin/python3
"""What PgBouncer's PAUSE and RESUME cost around a planned switchover: the peer beside ours.

    pgbench, 16 clients, one INSERT a transaction ─> pgbouncer ─> primary ──> standby
       PAUSE; wait for the standby; promote it; point pgbouncer at it; RELOAD; RESUME

The write pause is the longest time in which no client's transaction ended, as pgbench's own log has
it. Nothing routes reads, keeps anybody else from writing to the old primary or makes a slot: it is
the least that such a switchover can be. Wants the package pgbouncer; nothing else here does.

SPDX-License-Identifier: MIT
"""

import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "integration"))

import harness  # noqa: E402
import psql  # noqa: E402

CLIENTS = 16
SETTLE_S = 2.0
GAP_WINDOW_S = 3.0


class Bouncer:
    """A pgbouncer of our own in front of one server."""

    def __init__(self, folder, port, server_port):
        self.folder, self.port = folder, port
        self.config = folder / "pgbouncer.ini"
        self.point_at(server_port)
        (folder / "users.txt").write_text('"postgres" ""\n', encoding="ascii")
        command = ["pgbouncer", "-q", str(self.config)]
        if os.getuid() == 0:
            for path in (folder, *folder.iterdir()):
                shutil.chown(path, "postgres")
            command[1:1] = ["-u", "postgres"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)

    def point_at(self, server_port):
        """Writes the configuration; RELOAD makes it count."""
        self.config.write_text(
            f"[databases]\npeer = host=127.0.0.1 port={server_port} dbname=postgres\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {self.port}\n"
            f"unix_socket_dir =\nauth_type = trust\nauth_file = {self.folder}/users.txt\n"
            f"admin_users = postgres\npool_mode = transaction\ndefault_pool_size = {CLIENTS}\n"
            f"logfile = {self.folder}/pgbouncer.log\n", encoding="ascii")

    def close(self):
        """Ends it."""
        self.process.terminate()
        self.process.wait(timeout=10)


class Console:
    """pgbouncer's admin console over one psql; it knows no SQL, so no psql.Session."""

    def __init__(self, port):
        self.process = subprocess.Popen(
            ["psql", "-XAtq", "-h", "127.0.0.1", "-p", str(port), "-U", "postgres", "pgbouncer"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def run(self, command):
        """One command, to its end."""
        self.process.stdin.write(f"{command};\n\\echo done\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.strip() == "done":
                return
            assert "ERROR" not in line, line
        raise AssertionError("psql has ended")

    def close(self):
        """Ends it."""
        self.process.stdin.close()
        self.process.wait(timeout=10)


def switch(console, bouncer, old, new, new_port):
    """One switchover; gives when it began and ended."""
    begin = time.time()
    console.run("PAUSE")
    end_of_wal = old.value("SELECT pg_current_wal_lsn() AS lsn")
    while not new.value(f"SELECT pg_last_wal_replay_lsn() >= '{end_of_wal}' AS there"):
        time.sleep(0.001)
    new.run("SELECT pg_promote(true, 10)")
    bouncer.point_at(new_port)
    console.run("RELOAD")
    console.run("RESUME")
    return begin, time.time()


def longest_gap_s(folder, begin, end):
    """Between the ends of two transactions, whoever's, around that time."""
    ends = []
    for path in folder.glob("pgbench_log.*"):
        for line in path.read_text(encoding="ascii").splitlines():
            fields = line.split()
            if len(fields) < 6:     # pgbench was ended in the middle of its last line
                continue
            at = float(fields[4]) + float(fields[5]) / 1e6
            if begin - GAP_WINDOW_S < at < end + GAP_WINDOW_S:
                ends.append(at)
    ends.sort()
    return max(b - a for a, b in zip(ends, ends[1:]) if b > begin)


def other(node):
    """Of two."""
    return "alpha-2" if node == "alpha-1" else "alpha-1"


def measure(cluster, folder, ports, times):
    """The pauses in seconds."""
    primary = "alpha-1"
    cluster.sql(primary, "CREATE TABLE peer (id bigserial PRIMARY KEY, t text)",
                database="postgres")
    script = folder / "insert.sql"
    script.write_text("INSERT INTO peer (t) VALUES ('x');\n", encoding="ascii")
    bouncer = Bouncer(folder, ports.base, cluster.port(primary))
    load = None
    windows = []
    try:
        harness.wait_until(lambda: subprocess.run(
            ["psql", "-XAtqc", "SELECT 1", "-h", "127.0.0.1", "-p", str(ports.base), "-U",
             "postgres", "peer"], capture_output=True, check=False).returncode == 0,
            what="pgbouncer")
        console = Console(ports.base)
        load = subprocess.Popen(
            ["pgbench", "-n", "-f", str(script), "-c", str(CLIENTS), "-j", "1", "-T", "600", "-l",
             "-h", "127.0.0.1", "-p", str(ports.base), "-U", "postgres", "peer"], cwd=folder,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(times):
            time.sleep(SETTLE_S)
            with psql.Session(cluster.port(primary), "postgres", "postgres") as old, \
                    psql.Session(cluster.port(other(primary)), "postgres", "postgres") as new:
                windows.append(switch(console, bouncer, old, new, cluster.port(other(primary))))
            time.sleep(SETTLE_S)
            cluster.rejoin(primary)
            primary = other(primary)
        console.close()
    finally:
        if load:
            load.terminate()
            load.wait(timeout=10)
        bouncer.close()
    return [longest_gap_s(folder, begin, end) for begin, end in windows]


def main():
    """Prints the pauses."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=10)
    arguments = parser.parse_args()
    if not shutil.which("pgbouncer"):
        print("pgbouncer is not installed (apt-get install pgbouncer)", file=sys.stderr)
        return 2
    ports = harness.Ports(1)
    with harness.Cluster(replicas=1, no_serve=True) as cluster:
        folder = cluster.folder / "pgbouncer"
        folder.mkdir()
        pauses = sorted(measure(cluster, folder, ports, arguments.times))
    ports.release()
    print(f"PgBouncer PAUSE/RESUME, {len(pauses)} switchovers: write pause "
          f"p50 {pauses[len(pauses) // 2] * 1000:.0f} ms, max {pauses[-1] * 1000:.0f} ms")
    return 0


if __name__ == "__main__":
    sys.exit(main())
