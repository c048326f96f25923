"""What the integers around one layer stand for: the scales of its inputs and its output, some of which learn."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgenet.frameworks import tensorflow

MOST_MOVED = 1.0  # in the natural logarithm of a scale: further off, calibration was wrong or the learning rate is
Step = Callable[[], Any]  # the scale of an activation as it is now


@dataclass(frozen=True)
class Links:
    """The scales are functions, since they may learn.

    low, high: levels that the output's type holds. activation: "relu", "relu6" or None, a further bound.
    """

    inputs: tuple[Step, ...] = (lambda: np.float32(1.0),)
    output: Step = lambda: np.float32(1.0)
    low: int = -128
    high: int = 127
    activation: str | None = None


def ratio_of(moved: Any) -> Any:
    """Return the factor by which a scale was changed, exp(moved) within bounds; tensors in, tensors out."""
    tf = tensorflow()
    return tf.exp(tf.clip_by_value(tf.cast(moved, tf.float32), -MOST_MOVED, MOST_MOVED))
