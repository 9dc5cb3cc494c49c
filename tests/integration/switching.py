"""Running `seatgrid switchover` in stories: to its end, or stopped at a step.

    run(cluster, "alpha", "--to", "alpha-2")   ─> Switch: .code, .json, .text
    with Paused(cluster, "keep", "alpha") as p:    stopped (SIGSTOP) before the step; p.kill(), or
        ...                                        p.resume() and p.finish()

Standard library only.

SPDX-License-Identifier: MIT
"""

import json
import os
import pathlib
import signal
import subprocess

from harness import SLOWDOWN, binary, environment, wait_until

# Longer than any step may take on a slow machine; the fence in its midst ends with fence_ms.
PATIENT = ("--timeout-ms", "60000")


class Switch:
    """A switchover that has ended."""

    def __init__(self, code, stdout, stderr):
        self.code, self.text, self.stderr = code, stdout, stderr
        last = [line for line in stdout.splitlines() if line.startswith("{")]
        self.json = json.loads(last[-1]) if last else None

    @property
    def outcome(self):
        """done, refused, undone, lifted, stuck or left"""
        return self.json["outcome"]

    def __repr__(self):
        return f"<switchover: {self.code} {self.text} {self.stderr}>"


def command(cluster, *arguments):
    """The command line."""
    return [str(binary()), "switchover", *arguments, "--json", "-c",
            str(cluster.var / "seatgrid.cfg")]


def run(cluster, *arguments):
    """To its end, whatever that is."""
    done = subprocess.run(command(cluster, *arguments), env=environment(), capture_output=True,
                          text=True, timeout=150 * SLOWDOWN, check=False,
                          stdin=subprocess.DEVNULL)
    return Switch(done.returncode, done.stdout, done.stderr)


def done(cluster, *arguments):
    """To the end that was wanted."""
    switch = run(cluster, *PATIENT, *arguments)
    assert switch.code == 0 and switch.outcome == "done", switch
    return switch


class Paused:
    """A switchover that stopped itself before a step, as a drill or a stalled machine has it."""

    def __init__(self, cluster, step, *arguments):
        self.process = subprocess.Popen(
            command(cluster, *arguments, "--pause-before", step), env=environment(),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.step = step

    def __enter__(self):
        try:
            wait_until(self._stopped, 60, every=0.002, what=f"the pause before {self.step}")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()

    def _stopped(self):
        if self.process.poll() is not None:
            raise AssertionError(f"it ended before {self.step}: {self.process.communicate()}")
        stat = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text(encoding="ascii")
        return stat.rpartition(")")[2].split()[0] == "T"

    def kill(self):
        """As the death of the operator's machine; the server learns of it by the socket."""
        self.process.kill()
        self.process.communicate()

    def send(self, number):
        """A signal, which it takes once it is resumed."""
        os.kill(self.process.pid, number)

    def resume(self):
        """It goes on."""
        self.send(signal.SIGCONT)

    def finish(self):
        """Resumes it, and waits for its end."""
        self.resume()
        stdout, stderr = self.process.communicate(timeout=150 * SLOWDOWN)
        return Switch(self.process.returncode, stdout, stderr)


# ---- looking -------------------------------------------------------------------------------------


def primary(cluster, shard):
    """The node that is a primary, on the highest timeline."""
    found = []
    for node in cluster.nodes(shard):
        if not cluster.pid(node):
            continue
        recovery, timeline = cluster.sql(
            node, "SELECT pg_is_in_recovery(), CASE WHEN NOT pg_is_in_recovery()"
                  " THEN own_timeline() ELSE 0 END")[0]
        if recovery == "f":
            found.append((int(timeline), node))
    assert found, f"shard {shard} has no primary"
    return max(found)[1]


def whole(cluster, shard):
    """One primary, attested, and every other node streams from it, all of it replayed."""
    try:
        leader = primary(cluster, shard)
        lsn, attested = cluster.sql(leader, "SELECT pg_current_wal_lsn(), timeline = own_timeline()"
                                            " FROM shard_meta")[0]
        if attested != "t":
            return False
        for node in cluster.nodes(shard):
            if node != leader and cluster.value(
                    node, "SELECT pg_is_in_recovery() AND pg_last_wal_replay_lsn() >= "
                          f"'{lsn}' AND EXISTS (SELECT FROM pg_stat_wal_receiver w WHERE"
                          " status = 'streaming' AND received_tli = (SELECT timeline FROM"
                          " shard_meta))") != "t":
                return False
        return True
    except AssertionError:
        return False


def wait_whole(cluster, shard, seconds=60):
    """Until the shard is as a switchover should find it."""
    wait_until(lambda: whole(cluster, shard), seconds, every=0.1, what=f"{shard} to be whole")


def fence(cluster, node):
    """"" if writes are let in, else until when they are not: a time, 'infinity', or 'hand'."""
    return cluster.value(node, """
        SELECT CASE WHEN NOT is_fenced(m) THEN ''
                    ELSE coalesce(fenced_until::text, 'hand') END FROM shard_meta m""")


def nothing_left(cluster, shard):
    """No fence up, no operator's lock, no logical slot on any node but those of a consumer."""
    for node in cluster.nodes(shard):
        wait_until(lambda node=node: fence(cluster, node) == "", 10, what=f"no fence on {node}")
        wait_until(lambda node=node: cluster.value(
            node, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 4")
            == "0", 10, what=f"no operator's lock on {node}")
        slots = cluster.sql(node, "SELECT slot_name FROM pg_replication_slots"
                                  " WHERE slot_type = 'logical'")
        assert not slots, f"{node} has {slots}"
