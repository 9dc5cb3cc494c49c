"""Long model runs: `python3 tests/model/run.py --seed N --operations N [--queue] [--runs N]`.

Goal: whatever comes in whatever order, and whoever dies: a seat has one owner, available + held +
booked = total in PostgreSQL, Redis and API, money taken = confirmed + refunded, nobody is over the
limit, every yes is there and every definite no has done nothing, who waits is served in order.
Method: lives.py, on servers of its own; alone, then a crowd, or with --alone or --crowd one of them.

SPDX-License-Identifier: MIT
"""

import argparse
import pathlib
import random
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from world import World  # noqa: E402  pylint: disable=wrong-import-position
from lives import alone, again, crowd  # noqa: E402  pylint: disable=wrong-import-position


def main():
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--operations", type=int, default=1000, help="of each kind of life")
    parser.add_argument("--queue", action="store_true", help="with RabbitMQ and `seatgrid worker`")
    parser.add_argument("--runs", type=int, default=1, help="with the seeds that follow")
    parser.add_argument("--alone", action="store_true", help="one client only")
    parser.add_argument("--crowd", action="store_true", help="the crowd only")
    options = parser.parse_args()
    lives = [life for life, chosen in ((alone, options.alone), (crowd, options.crowd)) if chosen]
    for seed in range(options.seed, options.seed + options.runs):
        with World(options.queue) as world:
            for life in lives or (alone, crowd):
                start = time.monotonic()
                seen = again(seed, options.operations, life, world)
                print(f"seed {seed} {life.__name__}, {time.monotonic() - start:.0f} s:"
                      f" {dict(sorted(seen.items(), key=str))}", flush=True)
            print(f"faults: {world.faults}", flush=True)


if __name__ == "__main__":
    main()
