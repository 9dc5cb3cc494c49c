#!/usr/bin/python3
"""Runs the stories in this folder: one line a test, and "N passed, N failed" at the end.

    run.py [--variant release|asan|tsan] [--short] [-k PART] [-j N] [--list]

A test is a function test_* in a file test_*.py. One with a parameter `cluster` gets a running
cluster that the tests of its file share (made with the file's CLUSTER = {...}, the arguments of
harness.Cluster; after a failure the next test gets a new one). One without makes its own. With -j
so many files run at the same time, each in a process of its own; most stories wait.

SPDX-License-Identifier: MIT
"""

import argparse
import importlib
import inspect
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
import traceback

HERE = pathlib.Path(__file__).resolve().parent
DEFAULT_TIMEOUT_S = 180
LOG_TAIL_LINES = 25
# Files that take longest, so that none of them is left for the end.
LONGEST = ("test_cdc", "test_drills", "test_payment_faults", "test_switchover", "test_cluster",
           "test_cdc_switchover", "test_cdc_review", "test_rejoin", "test_patroni", "test_faults",
           "test_orders", "test_tokens", "test_queue", "test_failover", "test_model", "test_lag")


class TimedOut(BaseException):
    """BaseException, so that no `except Exception` of a test swallows it."""


def parse_arguments():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--variant", choices=("release", "asan", "tsan"), default="release")
    parser.add_argument("--short", action="store_true", help="only tests marked @short")
    parser.add_argument("--list", action="store_true", help="only print names")
    parser.add_argument("-k", metavar="PART", default="", help="only names that contain it")
    parser.add_argument("-j", metavar="N", type=int, default=1, help="files at the same time")
    parser.add_argument("--file", metavar="NAME", default="", help="only the tests of this file")
    return parser.parse_args()


def discover(arguments):
    """[(module, [(name, function)])], in the order of files and lines."""
    found = []
    for path in sorted(HERE.glob("test_*.py")):
        if arguments.file not in ("", path.stem):
            continue
        module = importlib.import_module(path.stem)
        tests = [(f"{path.stem}.{name}", function)
                 for name, function in vars(module).items()
                 if name.startswith("test_") and inspect.isfunction(function)
                 and function.__module__ == path.stem]
        tests = [(name, function) for name, function in tests if arguments.k in name
                 and (not arguments.short or getattr(function, "short", False))]
        if tests:
            found.append((module, tests))
    return found


def on_alarm(*_):
    """The test's time is up."""
    raise TimedOut()


def on_terminate(*_):
    """A polite end of the run: clusters are removed on the way out."""
    raise KeyboardInterrupt()


class SharedCluster:
    """The cluster of one file's tests, made when the first one asks."""

    def __init__(self, harness, options):
        self.harness, self.options, self.cluster = harness, options, None

    def get(self):
        """Running."""
        if self.cluster is None:
            self.cluster = self.harness.Cluster(**self.options)
            self.cluster.__enter__()
        return self.cluster

    def drop(self, failed):
        """Removes it; raises if a sanitizer spoke and nothing else is known to have failed."""
        cluster, self.cluster = self.cluster, None
        if cluster is not None:
            cluster.__exit__(AssertionError if failed else None, None, None)


def run_one(function, shared, limit_s):
    """None, or the failure as text."""
    signal.setitimer(signal.ITIMER_REAL, limit_s)
    cluster = None
    try:
        if "cluster" in inspect.signature(function).parameters:
            cluster = shared.get()
            function(cluster)
            reports = cluster.sanitizer_reports()
            assert not reports, "a sanitizer or an assertion spoke:\n" + reports
        else:
            function()
        return None
    except TimedOut:
        text = f"no end after {limit_s} s\n{traceback.format_exc()}"
    except Exception:  # pylint: disable=broad-except
        text = traceback.format_exc()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    if cluster is not None:
        text += f"--- serve.log\n{cluster.log_tail('serve', LOG_TAIL_LINES)}\n"
    try:
        shared.drop(failed=True)
    except Exception:  # pylint: disable=broad-except
        text += traceback.format_exc()
    return text


def run_all(harness, found):
    """(passed, failed)"""
    passed = failed = 0
    for module, tests in found:
        shared = SharedCluster(harness, getattr(module, "CLUSTER", {}))
        try:
            for name, function in tests:
                limit_s = getattr(function, "timeout", DEFAULT_TIMEOUT_S) * harness.SLOWDOWN
                start = time.monotonic()
                failure = run_one(function, shared, limit_s)
                seconds = time.monotonic() - start
                print(f"{'FAIL' if failure else 'ok':5} {name:60} {seconds:6.1f} s", flush=True)
                if failure:
                    failed += 1
                    print("      " + failure.replace("\n", "\n      "), flush=True)
                else:
                    passed += 1
        finally:
            try:
                shared.drop(failed=False)
            except AssertionError as error:
                failed += 1
                print(f"FAIL  {module.__name__}: at the end\n      {error}", flush=True)
    return passed, failed


class FileRun:
    """The tests of one file in a process of their own; what it prints is kept until it ends."""

    def __init__(self, name, arguments):
        command = [sys.executable, __file__, "--variant", arguments.variant, "--file", name,
                   "-k", arguments.k] + (["--short"] if arguments.short else [])
        self.name, self.text = name, ""
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                        stdin=subprocess.DEVNULL, text=True)

    def finish(self):
        """Prints; gives (passed, failed)."""
        found = re.search(r"^(\d+) passed, (\d+) failed$", self.text, re.MULTILINE)
        print(self.text[:found.start()] if found else self.text, end="", flush=True)
        if not found:
            print(f"FAIL  {self.name}: its process ended with {self.process.returncode}")
            return 0, 1
        return int(found.group(1)), int(found.group(2))


def wait_for_one(running):
    """The first of them that has ended. Its output may fill the pipe, so it is read meanwhile."""
    while True:
        for run in running:
            try:
                run.text = run.process.communicate(timeout=0.1)[0]
            except subprocess.TimeoutExpired:
                continue
            return run


def run_files(found, arguments):
    """(passed, failed)"""
    names = [module.__name__ for module, _ in found]
    waiting = [name for name in LONGEST if name in names]
    waiting += [name for name in names if name not in LONGEST]
    running, passed, failed = [], 0, 0
    try:
        while waiting or running:
            while waiting and len(running) < arguments.j:
                running.append(FileRun(waiting.pop(0), arguments))
            ended = wait_for_one(running)
            running.remove(ended)
            more_passed, more_failed = ended.finish()
            passed, failed = passed + more_passed, failed + more_failed
    finally:
        for run in running:
            run.process.terminate()
        for run in running:
            run.process.wait()
    return passed, failed


def main():
    """Exit code 0 if all passed, 1 if not, 2 if nothing was to run."""
    arguments = parse_arguments()
    os.environ["SEATGRID_VARIANT"] = arguments.variant
    sys.path.insert(0, str(HERE))
    sys.dont_write_bytecode = True
    harness = importlib.import_module("harness")
    signal.signal(signal.SIGALRM, on_alarm)
    signal.signal(signal.SIGTERM, on_terminate)
    signal.signal(signal.SIGHUP, on_terminate)
    found = discover(arguments)
    if arguments.list or not found:
        for _, tests in found:
            print("\n".join(name for name, _ in tests))
        return 0 if found else 2
    if not harness.binary().exists():
        print(f"{harness.binary()} is missing; make build VARIANT={arguments.variant}")
        return 2
    harness.sweep()
    try:
        if arguments.j > 1 and len(found) > 1:
            passed, failed = run_files(found, arguments)
        else:
            passed, failed = run_all(harness, found)
    except KeyboardInterrupt:
        print("interrupted")
        return 130
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
