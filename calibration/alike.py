"""Every calibration picture counts alike: the range that costs the pictures the fewest decibels.

Some networks answer a few pictures with values ten times those of all others. Summed squared errors are then those of
these few, and a range that holds them leaves the others a tenth of the levels. Here each picture's error stands beside
its own values, and the mean over pictures is one of decibels: a picture may be lost, if that gives all others a bit.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from edgenet.calibration.shelf import Shelf

LEVELS = 255  # steps of an int8 activation
BINS = 256  # of a picture's histogram, half of them below zero
CUTS = 48  # of either side, each a tenth smaller than the one before
CUT = 1.1
FLOOR = 1e-5  # noise, in a picture's own energy, that what else is rounded adds anyhow
MOST_WEIGHT = 4.0  # of a picture that is nearly right, beside the median picture's 1


@dataclass(frozen=True)
class Pictures:
    """The values of one activation, picture by picture.

    Attributes:
        counts: (P, BINS) how many values lie in each bin; bin i begins at (i - BINS / 2) * width.
        width: (P,) of a picture's bins.
        zeros: (P,) how many values are exactly zero.
    """

    counts: np.ndarray
    width: np.ndarray
    zeros: np.ndarray

    @property
    def centres(self) -> np.ndarray:
        """The middle of each bin, (P, BINS)."""
        middles: np.ndarray = (np.arange(BINS) - BINS / 2 + 0.5) * self.width[:, None]
        return middles

    @classmethod
    def of(cls, values: Iterable[np.ndarray]) -> "Pictures":
        """Return what some values of each picture, of any shape, are like."""
        return cls.joined(map(histogram, values))

    @classmethod
    def joined(cls, histograms: Iterable[tuple[np.ndarray, float, int]]) -> "Pictures":
        """Return what `histogram` said of each picture."""
        counts, widths, zeros = zip(*histograms, strict=True)
        return cls(np.stack(counts), np.array(widths), np.array(zeros))


def histogram(x: np.ndarray) -> tuple[np.ndarray, float, int]:
    """Return counts (BINS,), the width of a bin, and how many values of `x` are exactly zero."""
    x = x.ravel()
    peak = max(float(x.max(initial=0)), -float(x.min(initial=0)))
    width = max(peak, 1e-30) * (1 + 1e-6) / (BINS / 2)
    place = x * np.float32(1 / width)
    place += np.float32(BINS / 2)
    index = place.astype(np.intp)  # towards zero, which is down: what lies below the first bin does so by rounding
    counts = np.bincount(np.minimum(index, BINS - 1, out=index), minlength=BINS).astype(np.uint32)
    return counts, width, int(x.size - np.count_nonzero(x))


def errors(seen: Pictures, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Return each picture's mean squared error with each pair of ends, lows (K,) and highs (L,): (P, K, L)."""
    low, high = np.minimum(low, 0.0), np.maximum(high, 0.0)
    n, x = seen.counts.astype(np.float64), seen.centres
    total = np.maximum(n.sum(1), 1)
    far = np.empty_like(x)  # one buffer for all ends: 96 of them are asked about each activation

    def cut(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        np.maximum(np.subtract(a, b, out=far), 0, out=far)
        np.square(far, out=far)
        np.multiply(far, n, out=far)
        return far.sum(1)

    below = np.stack([cut(end, x) for end in low], axis=1)
    above = np.stack([cut(x, end) for end in high], axis=1)
    rounded = np.square((high[None] - low[:, None]) / LEVELS) / 12
    found: np.ndarray = (
        below[:, :, None] + above[:, None, :] + rounded[None] * (total - seen.zeros)[:, None, None]
    ) / total[:, None, None]
    return found


def energies(seen: Pictures) -> np.ndarray:
    """Return each picture's mean square, (P,)."""
    squares: np.ndarray = (np.square(seen.centres) * seen.counts).sum(1) / np.maximum(seen.counts.sum(1), 1)
    return squares


def best_range(seen: Pictures, low: float, high: float) -> tuple[float, float, float]:
    """Return the ends with the least noise in decibels, in the mean over pictures, and what they save of its logarithm.

    low, high: the least and the largest value of all pictures.
    """
    part = CUT ** -np.arange(CUTS)
    lows = low * part if low < 0 else np.array([low])
    highs = high * part if high > 0 else np.array([high])
    squares = energies(seen)
    alive = squares > 0
    if not alive.any():
        return low, high, 0.0
    noise = errors(seen, lows, highs)[alive] / squares[alive, None, None]
    cost = np.log(noise + FLOOR).mean(0)
    i, j = np.unravel_index(int(cost.argmin()), cost.shape)
    return float(lows[i]), float(highs[j]), float(cost[0, 0] - cost[i, j])


def weights_of(wrong: np.ndarray) -> np.ndarray:
    """Return how much each picture counts, (P,) float32, 1 in the mean, for the least noise in decibels.

    wrong: (P,) mean squared error of each picture. The larger, the less it counts: a picture whose values are cut off
    is lost, and would draw everything away from what is right for the others.
    """
    least = float(np.median(wrong)) / MOST_WEIGHT
    if not least > 0:
        return np.ones(len(wrong), np.float32)
    weights = 1 / np.maximum(wrong, least)
    found: np.ndarray = (weights / weights.mean()).astype(np.float32)
    return found


def picture_weights(values: Iterable[np.ndarray]) -> np.ndarray:
    """Return how much each picture counts, (P,), where its values of one activation get one int8 range."""
    low, high, found = np.inf, -np.inf, []
    for x in values:  # once, and one at a time: all of them may be on disk
        low, high = min(low, float(x.min())), max(high, float(x.max()))
        found.append(histogram(x))
    seen = Pictures.joined(found)
    low, high, _ = best_range(seen, low, high)
    return weights_of(errors(seen, np.array([low]), np.array([high]))[:, 0, 0] + FLOOR * energies(seen))


def weighted_mean(x: np.ndarray | Shelf, weights: np.ndarray) -> np.ndarray:
    """Return the mean of (P, ...) over pictures, float32; weights: (P,), 1 in the mean."""
    total = np.zeros(x.shape[1:], np.float32)
    for one, weight in zip(x, weights, strict=True):
        total += one * weight
    return total / np.float32(len(x))


def mean_square(x: np.ndarray) -> float:
    """Return the mean of the squares of all numbers."""
    return float(np.vdot(x, x)) / x.size
