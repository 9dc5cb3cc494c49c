"""Random lives of bookings against a model, a short one.

Goal and method: as tests/model/run.py says. One client whose every answer is the model's, of two
seeds (SEATGRID_SEED sets the second); then a crowd with every fault. `make soak` runs long ones.

SPDX-License-Identifier: MIT
"""

import os
import sys

from harness import ROOT, timeout

sys.path.insert(0, str(ROOT / "tests" / "model"))

from lives import again, alone, crowd  # noqa: E402  pylint: disable=wrong-import-position
from world import World  # noqa: E402  pylint: disable=wrong-import-position

FIXED = 20261121
SEED = int(os.environ.get("SEATGRID_SEED", FIXED + 1))   # `make soak` takes others


@timeout(600)
def test_random_lives_against_a_model():
    """A seat has one owner, the counters and the money fit, every yes is there, every no is none."""
    print(f"      seed {SEED}")
    with World() as world:
        for seed in (FIXED, SEED):
            again(seed, 100, alone, world)
        seen = again(SEED, 300, crowd, world)
        print(f"      {sum(seen.values())} answers, faults: {world.faults}")
        assert seen.get(("take", 201, None)) and seen.get(("order", 201, None)), seen
