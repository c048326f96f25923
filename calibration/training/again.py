"""Learning once more from all pictures, those that were held back among them: for how long, and whether it went well.

The held-back pictures have chosen the stages and their epochs by then. What they chose is done again with them, so that
they teach as well.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

FOLDER = "again"  # in the folder of the run
LEAST_PART = 0.5  # of the chosen epochs: less is another network than the one that was chosen


@dataclass(frozen=True)
class Chosen:
    """A stage that was kept: its best epoch, and what an epoch of it took."""

    layers: str
    epochs: int
    epoch_seconds: float

    def epochs_again(self, part: float) -> int:
        """Return how many epochs it learns again, where there is time for a part of all of them."""
        return max(1, round(part * self.epochs))


def part_that_fits(chosen: Sequence[Chosen], times_the_pictures: float, left_s: float) -> float:
    """Return which part of the chosen epochs fits into a time, 1 at most; 0 where less than LEAST_PART does.

    Args:
        times_the_pictures: how many there are now for each that taught before.
    """
    wanted_s = times_the_pictures * sum(s.epochs * s.epoch_seconds for s in chosen)
    if left_s <= 0:
        return 0.0
    part = 1.0 if wanted_s <= left_s else left_s / wanted_s
    return part if part >= LEAST_PART else 0.0


def reason_against(loss: float, before: float) -> str:
    """Return why the network that learned once more is not the one to return, "" where it is.

    It has learned the held-back pictures by now, so that their loss is no measure of it; but where it is not even lower
    than that of the network which never learned them, something broke.

    Args:
        loss: of the held-back pictures; no number where it diverged.
        before: that of the network that was chosen.
    """
    if not math.isfinite(loss):
        return "diverged"
    return "" if loss < before else "loss"
