"""`seatgrid drill`: short drills, each on a cluster of its own, under a load.

Goal: after every fault nothing acknowledged is lost, nothing is sold twice, no reader is misled and
Redis agrees with PostgreSQL; the cluster heals; nothing is left behind. Method: the command itself,
whose validator keeps every request and answer and lays them beside the databases; of its report
only what has to be true on any machine is asserted, never a time.

SPDX-License-Identifier: MIT
"""

import json
import os
import pathlib
import signal
import subprocess
import tempfile

import harness
from harness import (SLOWDOWN, Ports, alive, binary, environment, processes_naming, short, timeout,
                     wait_until)

RATE = 100
REPLICAS = 2
# Each of these has to be 0, whatever the machine does meanwhile.
MUST_BE_0 = ("lost", "soldTwice", "staleReads", "timeBackwards", "untrueAnswers", "cdcDrift",
             "untracked")


class Drill:
    """`seatgrid drill ... --json` in a temporary folder and on ports of its own, in a `with` block
    that ends by looking for what it left."""

    def __init__(self, name, *options, rate=RATE, replicas=REPLICAS):
        self._ports = Ports(2 * (1 + replicas) + 4)
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="seatgrid-test-drill-"))
        self.folder.chmod(0o755)
        self.process = subprocess.Popen(
            [binary(), "drill", name, "--json", "--rate", str(rate), "--replicas", str(replicas),
             "--port-base", str(self._ports.base), *options],
            env={**environment(), "TMPDIR": str(self.folder)}, text=True, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def __enter__(self):
        return self

    def report(self, seconds=150):
        """Its report, when it has ended."""
        out, err = self.process.communicate(timeout=seconds * SLOWDOWN)
        assert out, f"exit code {self.process.returncode}: {err[-4000:]}"
        return json.loads(out)

    def servers_run(self):
        """The cluster's servers have been started."""
        return bool(processes_naming(f"{self.folder}/"))

    def __exit__(self, kind, *_):
        try:
            if self.process.poll() is None:
                self.process.send_signal(signal.SIGTERM)
                self.process.communicate(timeout=120 * SLOWDOWN)
            if not kind:
                left = processes_naming(f"{self.folder}/")
                assert not left, f"processes left behind: {left}"
                assert not list(self.folder.iterdir()), list(self.folder.iterdir())
        finally:
            for pid in processes_naming(f"{self.folder}/"):
                os.kill(pid, signal.SIGKILL)
            harness.shutil.rmtree(self.folder, ignore_errors=True)
            self._ports.release()


def check(report, episodes):
    """The promises that hold on any machine; gives the one drill of the report."""
    drill, = report["drills"]
    assert drill["problem"] is None, drill["problem"]
    broken = {name: drill[name] for name in MUST_BE_0 if drill[name] != 0}
    assert not broken, (broken, drill["breaches"], drill["examples"], drill["failedKinds"])
    assert drill["acknowledged"] > 0 and drill["reads"] > 0, drill
    assert [episode["what"] for episode in drill["episodes"]] == episodes, drill["episodes"]
    return drill


def play(name, *options, episodes):
    """Plays it, checks it."""
    with Drill(name, *options) as drill:
        return check(drill.report(), episodes)


@timeout(240)
def test_switchover():
    """Planned: another node is the primary, and nobody was told anything untrue."""
    episode, = play("switchover", episodes=["planned"])["episodes"]
    assert episode["promoted"] not in ("", episode["victim"]), episode


@timeout(240)
def test_crash():
    """The primary's processes die at once; the standby that has most takes over."""
    drill = play("crash", episodes=["primary killed"])
    episode, = drill["episodes"]
    assert episode["promoted"] not in ("", episode["victim"]), episode
    assert episode["detectionMs"] is not None and drill["detectionMs"]["count"] == 1, drill


@timeout(240)
def test_crash_asynchronous():
    """Durability async promises less, and the report says how much went."""
    with Drill("crash", "--durability", "async", replicas=1) as drill:
        report = drill.report()
    assert report["durability"] == "async", report
    drill = check(report, ["primary killed"])
    assert drill["lossy"] and drill["atRisk"] >= 0, drill


@timeout(240)
def test_hang():
    """A frozen primary is left behind; when it wakes it is a second one, and never written to."""
    play("hang", episodes=["primary frozen"])


@timeout(240)
def test_lag():
    """A replica that falls behind is taken out, and comes back; no reader is given old seats."""
    drill = play("lag", episodes=["replay paused", "receiver silent"])
    assert drill["outMs"]["count"] == drill["backMs"]["count"] == 2, drill


@timeout(240)
def test_redis_loss():
    """Redis dies, forgets everything, loses its consumer: bookings go on, and it is right again."""
    play("redis-loss", episodes=["redis killed", "redis emptied", "consumer killed"])


@timeout(300)
def test_back_to_back():
    """Two switchovers, then two crashes, the second one right after the first."""
    drill = play("back-to-back", episodes=["two switchovers", "two crashes"])
    assert drill["apartMs"]["count"] == 2, drill


@timeout(300)
def test_partition():
    """Cut off from everybody, or from its standbys alone: two primaries, one of them believed."""
    with Drill("partition") as drill:
        report = drill.report(240)
    cuts = ["cut off from all", "cut off from standbys"]
    drill = check(report, cuts + (["cut off from router"] if report["network"] else []))
    assert drill["cutsBy"] == ("a network of its own" if report["network"]
                               else "stopping processes"), drill


@timeout(300)
def test_random_faults_come_again_with_their_seed():
    """One seed, one sequence of faults."""
    def played():
        with Drill("random", "--faults", "2", "--seed", "4", "--durability", "async",
                   replicas=1) as drill:
            found, = drill.report(200)["drills"]
        assert found["problem"] is None, found["problem"]
        return [(episode["what"], episode["shard"]) for episode in found["episodes"]]
    first = played()
    assert len(first) == 2 and first == played(), first


@timeout(240)
def test_a_signal_ends_it_and_nothing_is_left():
    """SIGTERM in the middle: it stops its servers, removes its folder, and does not claim success."""
    with Drill("crash", "--seconds", "600") as drill:
        wait_until(drill.servers_run, 60, what="servers to be started")
        drill.process.send_signal(signal.SIGTERM)
        drill.process.communicate(timeout=120 * SLOWDOWN)
        assert drill.process.returncode == 1, drill.process.returncode


@timeout(240)
def test_a_dead_drill_leaves_nothing():
    """kill -9 of the process that does the work: its parent removes the cluster."""
    with Drill("crash", "--seconds", "600") as drill:
        wait_until(drill.servers_run, 60, what="servers to be started")
        children = pathlib.Path(f"/proc/{drill.process.pid}/task/{drill.process.pid}/children")
        worker = int(children.read_text(encoding="ascii").split()[0])
        os.kill(worker, signal.SIGKILL)
        _, err = drill.process.communicate(timeout=120 * SLOWDOWN)
        assert drill.process.returncode == 1 and "signal 9" in err, err
        assert not alive(worker)


@timeout(240)
def test_a_cluster_too_small_is_refused():
    """Sync writes with one replica would wait for ever once the primary is gone."""
    with Drill("crash", replicas=1) as drill:
        found, = drill.report()["drills"]
    assert "wants more replicas" in found["problem"] and drill.process.returncode == 1, found


@short
def test_wrong_usage_is_explained():
    """Exit code 2 and a line that names what is wrong."""
    for arguments, words in (
            (["drll"], "no such drill"),
            ([], "Usage:"),
            (["crash", "hang"], "Usage:"),
            (["crash", "--rate", "many"], "--rate many"),
            (["crash", "--times", "0"], "--times 0"),
            (["crash", "--durability", "maybe"], "sync or async"),
            (["crash", "--replicas", "0"], "waits for a replica"),
            (["crash", "--var", "x", "--replicas", "2"], "cluster that runs")):
        done = subprocess.run([binary(), "drill", *arguments], capture_output=True, text=True,
                              env=environment(), timeout=20 * SLOWDOWN, check=False)
        assert done.returncode == 2 and words in done.stderr, (arguments, done)
    done = subprocess.run([binary(), "drill", "crash", "--var", "/nonexistent"], text=True,
                          capture_output=True, env=environment(), timeout=20 * SLOWDOWN,
                          check=False)
    assert done.returncode == 1 and "/nonexistent" in done.stderr, done
