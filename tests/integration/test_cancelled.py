"""Statements of the router are cancelled from outside, at every moment of a batch.

Goal: whoever cancels (an administrator, a watchdog) costs the bookings at hand and no others: no
connection stays in a transaction that nobody ends, nothing is confirmed that did not commit, and
nothing that did is refused. Method: pg_cancel_backend in a loop while threads book, so that some
land between a batch's rows and its COMMIT; then the answers are laid beside the tables.

SPDX-License-Identifier: MIT
"""

import time

from harness import SLOWDOWN, short, timeout
from psql import Session
from traffic import Traffic

CLUSTER = {"replicas": 0, "settings": {"workers": 2}}
CANCEL = ("SELECT pg_cancel_backend(pid) FROM pg_stat_activity"
          " WHERE application_name = 'seatgrid-write'")


@short
@timeout(120)
def test_a_cancelled_batch_leaves_nothing_open(cluster):
    """A cancelled COMMIT has ended nothing: the next batch must not find its transaction."""
    with Traffic(cluster) as traffic, Session(cluster.port("alpha")) as session:
        traffic.wait_for(20, shard="alpha")
        began = time.monotonic()
        while time.monotonic() - began < 3 * SLOWDOWN:
            for _ in range(20):
                session.run(CANCEL)
            time.sleep(0.002)
        time.sleep(0.2 * SLOWDOWN)  # what was asked before has its answer
        ended = time.monotonic()
        traffic.wait_for(50, shard="alpha")
    cut = [r for r in traffic.select("alpha", "book", began, ended) if r.status == 500]
    assert cut, "nothing was ever cancelled"
    late = [r for r in traffic.select(since=ended) if r.status not in (200, 201, 409)]
    assert not late, late[:5]
    assert not [r for r in traffic.select("beta", "book") if r.status not in (201, 409)]
    traffic.check_tables(cluster)
    print(f"      {traffic.counts()}")
