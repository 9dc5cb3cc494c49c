#!/usr/bin/python3
"""Runs the stories in this folder: one line a test, and "N passed, N failed" at the end.

    run.py [--variant release|asan|tsan] [--short] [-k PART] [--list]

A test is a function test_* in a file test_*.py. One with a parameter `cluster` gets a running
cluster that the tests of its file share (made with the file's CLUSTER = {...}, the arguments of
harness.Cluster; after a failure the next test gets a new one). One without makes its own.

SPDX-License-Identifier: MIT
"""

import argparse
import importlib
import inspect
import os
import pathlib
import signal
import sys
import time
import traceback

HERE = pathlib.Path(__file__).resolve().parent
DEFAULT_TIMEOUT_S = 180
LOG_TAIL_LINES = 25


class TimedOut(BaseException):
    """BaseException, so that no `except Exception` of a test swallows it."""


def parse_arguments():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--variant", choices=("release", "asan", "tsan"), default="release")
    parser.add_argument("--short", action="store_true", help="only tests marked @short")
    parser.add_argument("--list", action="store_true", help="only print names")
    parser.add_argument("-k", metavar="PART", default="", help="only names that contain it")
    return parser.parse_args()


def discover(arguments):
    """[(module, [(name, function)])], in the order of files and lines."""
    found = []
    for path in sorted(HERE.glob("test_*.py")):
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
        passed, failed = run_all(harness, found)
    except KeyboardInterrupt:
        print("interrupted")
        return 130
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
