"""Is a new file less accurate than an old one? Picture by picture where both saw the same, else by two intervals.

Pictures are paired by their content. What only the old file answers rightly is lost, what only the new one does is won;
all other pictures say nothing. The interval of the loss is Tango's score interval for matched pairs (budget_verdict
has it). Something is called worse only if McNemar's test agrees: mid-p, one side, which for few changes errs less often
than the score (Fagerland, Lydersen and Laake 2013, https://doi.org/10.1186/1471-2288-13-91). Without pairs the
interval is Newcombe's of two independent fractions (1998, method 10, https://doi.org/10.1002/sim.4780170515); on the
same pictures it is too wide, never too narrow.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np

from edgenet.compare.nouns import (
    ACCURACY,
    CANNOT_TELL,
    MET,
    MISSED,
    REFUSED,
    SHOWN,
    Finding,
    Sure,
    verdict_of,
)
from edgenet.jobs.budget_verdict import MAX_NEEDED, Counts, loss_limits, pictures_needed
from edgenet.results import Evaluation, PictureAnswers

_POWER_Z = NormalDist().inv_cdf(0.8)  # "so many pictures would tell": in 4 of 5 cases
_MANY = 100_000  # changed pictures, from which on the normal distribution is as good as the exact one


@dataclass(frozen=True)
class Seen:
    """What one run measured of a file, with what pairs it: sha256 of its pictures (hex), by the set's fingerprint."""

    evaluation: Evaluation
    pictures: Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Pairs:
    """Pictures with a label that both files were asked."""

    n: int
    lost: int
    won: int
    n_old_right: int


def judge(file: str, old: Seen, new: Seen, limit: float | None, sure: Sure) -> Finding:
    """Return what two evaluations say of the accuracy of a file, `new` against `old`."""
    a, b = old.evaluation, new.evaluation
    finding = Finding(file, ACCURACY, REFUSED, "no-labels", old_file=a.artifact, limit=limit, old=a.top1, new=b.top1)
    if not a.n_labelled or not b.n_labelled or a.top1 is None or b.top1 is None:
        return replace(finding, n=min(a.n_images, b.n_images))
    if a.artifact_sha256 and a.artifact_sha256 == b.artifact_sha256:
        verdict = SHOWN if limit is None else MET
        return replace(finding, verdict=verdict, how="same-file", change=0.0, low=0.0, high=0.0, n=b.n_labelled)
    found = paired(old, new)
    if found == "other-labels":
        return replace(finding, how="other-labels")
    if isinstance(found, Pairs):
        return _of_pairs(finding, found, limit, sure)
    return _of_intervals(finding, (a.top1, a.n_labelled), (b.top1, b.n_labelled), limit, sure)


def paired(old: Seen, new: Seen) -> Pairs | str:
    """Return the pictures that both were asked; or "unknown" (which they were), "none", "other-labels"."""
    a, b = old.evaluation.answers, new.evaluation.answers
    if a is None or b is None:
        return "unknown"
    places = _places(old, new)
    if isinstance(places, str):
        return places
    i, j = places
    right_a, right_b = a.right_each[i], b.right_each[j]
    both = (right_a | a.wrong_each[i]) & (right_b | b.wrong_each[j])
    if not both.any():
        return "none"
    classes_a, classes_b = a.top1_each, b.top1_each
    # One answer cannot be right in one run and wrong in the other, unless the label is another one.
    if classes_a is not None and classes_b is not None:
        same = classes_a[i] == classes_b[j]
        if (both & same & (right_a != right_b)).any():
            return "other-labels"
    lost, won = both & right_a & ~right_b, both & ~right_a & right_b
    return Pairs(int(both.sum()), int(lost.sum()), int(won.sum()), int((both & right_a).sum()))


def _places(old: Seen, new: Seen) -> tuple[np.ndarray, np.ndarray] | str:
    """Return where the same pictures stand in both, (n,) each."""
    a, b = old.evaluation, new.evaluation
    n_a, n_b = _n(a.answers), _n(b.answers)
    if a.images and a.images == b.images:
        return (np.arange(n_a), np.arange(n_a)) if n_a == n_b else "unknown"
    first, second = (sorted(seen.pictures.get(seen.evaluation.images, ())) for seen in (old, new))
    if len(first) != n_a or len(second) != n_b:
        return "unknown"
    if first == second:
        return "other-labels"  # the fingerprint covers labels too
    at_a, at_b = _single(first), _single(second)
    common = sorted(at_a.keys() & at_b.keys())
    return np.array([at_a[d] for d in common], int), np.array([at_b[d] for d in common], int)


def _n(answers: PictureAnswers | None) -> int:
    return 0 if answers is None else answers.n


def _single(digests: Sequence[str]) -> dict[str, int]:
    """Return the place of each picture that is there once; copies may have two labels."""
    counts: dict[str, int] = {}
    for d in digests:
        counts[d] = counts.get(d, 0) + 1
    return {d: i for i, d in enumerate(digests) if counts[d] == 1}


def _of_pairs(finding: Finding, pairs: Pairs, limit: float | None, sure: Sure) -> Finding:
    counts = Counts(pairs.lost, pairs.won, pairs.n)
    low, high = loss_limits(counts, sure.z)
    verdict, p = verdict_of(low, high, limit), mid_p(pairs.lost, pairs.won)
    if verdict == MISSED and p > sure.error:
        verdict = CANNOT_TELL
    needed = None
    if verdict == CANNOT_TELL and limit is not None:
        needed = pictures_needed(counts, limit, sure.z)
    return replace(
        finding,
        verdict=verdict,
        how="paired",
        old=pairs.n_old_right / pairs.n,
        new=(pairs.n_old_right - pairs.lost + pairs.won) / pairs.n,
        change=counts.loss,
        low=low,
        high=high,
        confidence=sure.confidence,
        n=pairs.n,
        needed=needed,
        lost=pairs.lost,
        won=pairs.won,
        p=p,
    )


def mid_p(lost: int, won: int) -> float:
    """Return the one-sided mid-p of McNemar's test: the chance of so many lost, were one as likely as the other."""
    n, log_half = lost + won, math.log(0.5)
    if n > _MANY:
        return NormalDist().cdf((won - lost) / math.sqrt(n))

    def chance(k: int) -> float:
        return math.exp(math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) + n * log_half)

    return min(1.0, math.fsum(chance(k) for k in range(lost + 1, n + 1)) + chance(lost) / 2)


def _of_intervals(
    finding: Finding, old: tuple[float, int], new: tuple[float, int], limit: float | None, sure: Sure
) -> Finding:
    (p, n), (q, m) = old, new
    low, high = independent_difference(p, n, q, m, sure.z)
    verdict, change = verdict_of(low, high, limit), p - q
    needed = None
    if verdict == CANNOT_TELL and limit is not None:
        apart = abs(change - limit)
        spread = (sure.z + _POWER_Z) * math.sqrt(max(p * (1 - p) + q * (1 - q), 1e-4))
        pictures = math.ceil((spread / apart) ** 2) if apart > spread / math.sqrt(MAX_NEEDED) else None
        needed = None if pictures is None else max(pictures, min(n, m) + 1)
    return replace(
        finding,
        verdict=verdict,
        how="intervals",
        change=change,
        low=low,
        high=high,
        confidence=sure.confidence,
        n=min(n, m),
        needed=needed,
    )


def independent_difference(p: float, n: int, q: float, m: int, z: float) -> tuple[float, float]:
    """Return the interval of p - q, fractions of n and of m other pictures."""
    (low_p, high_p), (low_q, high_q) = _wilson(p, n, z), _wilson(q, m, z)
    d = p - q
    low = d - math.hypot(p - low_p, high_q - q)
    return low, d + math.hypot(high_p - p, q - low_q)


def _wilson(p: float, n: int, z: float) -> tuple[float, float]:
    centre, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return (centre - half) / scale, (centre + half) / scale
