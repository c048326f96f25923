"""Find the learning rate's peak: it rises step by step until the loss does, https://arxiv.org/abs/1506.01186.

The weights are as before afterwards.
"""

import math
from itertools import islice
from typing import Any

from edgenet.calibration.training.loop import Training

LOWEST, HIGHEST = 1e-4, 0.3
STEPS = 64
SMOOTH = 0.8  # of the loss's running average
RISEN = 1.25  # times the least average so far: training has come apart
PART = 0.25  # of the rate at which it came apart


def find_rate(run: Training, data: Any) -> float:
    """Return a learning rate for a training that has not begun, to two digits.

    Args:
        data: a tf.data.Dataset of (x, target); it is repeated where it is short.
    """
    before = [v.numpy() for v in run.everything()]
    average, least, rate = 0.0, math.inf, LOWEST
    for i, (x, target) in enumerate(islice(data.repeat(), STEPS)):
        rate = LOWEST * (HIGHEST / LOWEST) ** (i / (STEPS - 1))
        loss = run.one_step(x, target, rate)
        average = SMOOTH * average + (1 - SMOOTH) * loss if math.isfinite(loss) else math.inf
        corrected = average / (1 - SMOOTH ** (i + 1))
        least = min(least, corrected)
        if corrected > RISEN * least:
            break
    for v, a in zip(run.everything(), before, strict=True):
        v.assign(a)
    return float(f"{PART * rate:.2g}")
