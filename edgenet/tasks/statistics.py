"""Pure functions: ROC AUC, average precision, F1 and nearest vectors, and how sure they are.

Intervals are percentiles of a bootstrap over pictures (https://doi.org/10.1201/9780429246593, chapter 13) with a fixed
seed: one set of pictures gives one interval, and two files on the same pictures are resampled alike, so that the
interval of their difference is that of matched pairs. A figure that no resample moves, such as an AUC of exactly 1, has
the interval of a fraction of as many trials as the rarer answer has pictures.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

RESAMPLES, SEED = 400, 20_240_229
Z95 = 1.959964  # 97.5 % quantile of the normal distribution
_CHUNK = 1024  # rows of a similarity matrix that exist at a time


@dataclass(frozen=True)
class Ranked:
    """Scores from the highest, equal ones together, and which of them are of pictures of yes.

    Attributes:
        order: (N,) indices of the pictures.
        ends: (T,) where each run of equal scores ends in `order`: a threshold each.
        truth: (N,) bool, in that order.
    """

    order: np.ndarray
    ends: np.ndarray
    truth: np.ndarray

    @classmethod
    def of(cls, scores: np.ndarray, truth: np.ndarray) -> "Ranked":
        """scores: (N,). truth: (N,) bool."""
        order = np.argsort(-scores, kind="stable")
        return cls(order, np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1), truth[order])

    def figures(self, weights: np.ndarray) -> tuple[float, float]:
        """Return (ROC AUC, average precision) of pictures that count so often each, (N,); NaN where there is none.

        ROC AUC is the chance that a picture of yes scores above one of no, ties counting half. Average precision is the
        sum of precision times gained recall over all thresholds from the highest, as scikit-learn has it.
        """
        w = weights[self.order]
        yes, no = np.cumsum(w * self.truth)[self.ends], np.cumsum(w * ~self.truth)[self.ends]
        n_yes, n_no = yes[-1], no[-1]
        if n_yes <= 0:
            return np.nan, np.nan
        gained, found = np.diff(yes, prepend=0), yes + no
        precision = np.divide(yes, found, out=np.zeros_like(yes), where=found > 0)
        area = float((np.diff(no, prepend=0) * (yes - gained / 2)).sum() / (n_yes * n_no)) if n_no > 0 else np.nan
        return area, float((gained * precision).sum() / n_yes)


def f1(answers: np.ndarray, truth: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return 2 TP / (2 TP + FP + FN) of each label, (L,), NaN where nothing is true.

    answers, truth: (N, L) bool. weights: (N,), how often each picture counts.
    """
    hits, n_true, n_said = (weights @ x for x in (answers & truth, truth, answers))
    return np.divide(2 * hits, n_true + n_said, out=np.full(len(hits), np.nan), where=n_true > 0)


Statistic = Callable[
    [np.ndarray], np.ndarray
]  # weights of the pictures, (N,) -> figures, (K,), NaN where there are none


def resampled(statistic: Statistic, n: int, resamples: int = RESAMPLES) -> np.ndarray:
    """Return figures of the pictures as they are and of each resample of them: (1 + resamples, K).

    The same `n` gives the same resamples, so that rows of two files can be compared.
    """
    rng = np.random.default_rng(SEED)
    rows = [statistic(np.ones(n))]
    rows += [statistic(np.bincount(rng.integers(0, n, n), minlength=n).astype(float)) for _ in range(resamples)]
    return np.array(rows)


def percentiles(samples: np.ndarray) -> tuple[float, float]:
    """Return the 95 % interval of resampled figures, those that could not be computed left out."""
    low, high = np.nanpercentile(samples, [2.5, 97.5])
    return float(low), float(high)


def interval_of(samples: np.ndarray, trials: int) -> tuple[float, float]:
    """Return the 95 % interval of a figure between 0 and 1, (1 + resamples,) with the figure first.

    Args:
        trials: pictures of the rarer answer, for a figure that no resample moves.
    """
    value, low, high = float(samples[0]), *percentiles(samples[1:])
    if low == high:  # a percentile of equal numbers tells nothing: Wilson's interval does
        n, z2 = max(trials, 1), Z95 * Z95
        centre, half = value + z2 / (2 * n), Z95 * np.sqrt(value * (1 - value) / n + z2 / (4 * n * n))
        low, high = float((centre - half) / (1 + z2 / n)), float((centre + half) / (1 + z2 / n))
    return max(0.0, min(low, value)), min(1.0, max(high, value))


def interval_of_difference(samples: np.ndarray, trials: int) -> tuple[float, float]:
    """Return the 95 % interval of a difference of matched pairs, (1 + resamples,) with the difference first.

    Args:
        trials: as for `interval_of`; a difference that no resample moves has the interval of as many pairs (Agresti and
            Min's, https://doi.org/10.1002/sim.1781).
    """
    low, high = percentiles(samples[1:])
    if low == high:
        value, half = float(samples[0]), Z95 / (trials + 2)
        low, high = value - half, value + half
    return max(-1.0, low), min(1.0, high)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Return (N, D) vectors at the length 1, float32; one of zeros stays."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(length > 0, length, 1), np.float32)


def nearest(queries: np.ndarray, gallery: np.ndarray, *, others: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the index, (N,), of the vector that is nearest by its angle to each query, and its cosine.

    queries: (N, D), gallery: (M, D), of length 1. Of equally near ones the lower index.

    Args:
        others: query i and gallery i are of the same picture, which is left out.
    """
    found, cosine = [], []
    for start in range(0, len(queries), _CHUNK):
        alike = queries[start : start + _CHUNK] @ gallery.T
        if others:
            rows = np.arange(len(alike))
            alike[rows, start + rows] = -np.inf
        found.append(alike.argmax(axis=1))
        cosine.append(alike.max(axis=1))
    return np.concatenate(found), np.concatenate(cosine)
