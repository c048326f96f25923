"""Whether a file is within a budget, as far as the pictures can tell: met, missed, or cannot tell.

A loss that was measured within the budget proves nothing on a few pictures. On 300 a typical INT8 file answers 4 of
them otherwise, and its loss is sure to 1.3 points on each side; one whose true loss lies at the budget is measured
within it every second time. So "met" is said only where the upper limit of the loss is within the budget. Three things
keep it honest:

- **The limits are those of Tango's score interval for matched pairs.** Where nothing or little changed, the interval
  that the page has elsewhere (Agresti and Min's) is too short above: 86 pictures of which none changed have 2.2 points
  as their limit, and a file that loses 2.3 shows none changed in one of 7 samples. The score's limit is 4.3 points.
- **A search looks often**: of 20 files, each allowed to be wrong in 1 of 40 cases, one is soon met by luck. The k-th
  file has the share 1 / (k (k + 1)) of ERROR: all together have ERROR, however long the search is.
- **A file is met on all pictures or not at all.** The first thousand may only refuse it, which costs no share.

Source: T. Tango, Statistics in Medicine 17 (1998), 891-908.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

from edgenet.errors import InputError
from edgenet.results import Evaluation
from edgenet.results.records import CANNOT_TELL, FAILED, MET, MISSED

ERROR = 0.025  # the chance that a search calls a file within the budget that is not
POWER_Z = NormalDist().inv_cdf(0.8)  # "so many pictures would tell": in 4 of 5 cases
ASSUMED_CHANGE = (1, 50)  # of so many pictures: INT8 files of EfficientNet-Lite change 1 to 2 % of the answers
MAX_NEEDED = 10_000_000  # of pictures; beyond it no number is named
_EPSILON = 1e-9  # of rounding: 3 of 600 lost are within half a point


@dataclass(frozen=True)
class Counts:
    """What changed on `n` pictures: `lost` by the file, and `won`, which is None where nothing is labelled.

    Without labels each picture with another answer than float32's is lost.
    """

    lost: float
    won: float | None
    n: float

    @property
    def loss(self) -> float:
        """A fraction of 1, below 0 where more was won."""
        return (self.lost - (self.won or 0)) / self.n

    def times(self, factor: float) -> "Counts":
        """Return the same changes on `factor` times as many pictures."""
        return Counts(self.lost * factor, None if self.won is None else self.won * factor, self.n * factor)


def counts_of(e: Evaluation) -> Counts:
    """Return what an evaluation against float32 counted."""
    if e.flips_broken is not None and e.flips_fixed is not None and e.n_labelled:
        return Counts(e.flips_broken, e.flips_fixed, e.n_labelled)
    return Counts(round((1 - (e.agreement or 0.0)) * e.n_images), None, e.n_images)


@dataclass(frozen=True)
class Budget:
    """What a file may lose: points of top-1 (of agreement, where nothing is labelled), or noise in the logits."""

    max_drop_points: float | None = None
    min_sqnr_db: float | None = None

    def __post_init__(self) -> None:
        if self.max_drop_points is not None and not 0 <= self.max_drop_points <= 100:
            raise InputError(f"--max-accuracy-drop is in points, 0 to 100, was {self.max_drop_points:g}")
        if self.max_drop_points is not None and self.min_sqnr_db is not None:
            raise InputError("--max-accuracy-drop and --min-sqnr are two budgets: give one")

    def __bool__(self) -> bool:
        return self.max_drop_points is not None or self.min_sqnr_db is not None

    @property
    def text(self) -> str:
        if self.min_sqnr_db is not None:
            return f"logits of at least {self.min_sqnr_db:g} dB SQNR against float32"
        return f"at most {self.max_drop_points:g} points lost"

    @property
    def max_drop(self) -> float | None:
        """The loss that is allowed, a fraction of 1."""
        return None if self.max_drop_points is None else self.max_drop_points / 100


@dataclass(frozen=True)
class Judgement:
    """What one file's evaluation says of the budget. `limits` are of the loss, and hold for the search as a whole."""

    verdict: str
    quality: float  # SQNR in dB; the agreement where the output has too few bits for one
    counts: Counts | None = None
    limits: tuple[float, float] | None = None
    pictures_needed: int | None = None  # to tell, where these cannot


BROKEN = Judgement(FAILED, -math.inf)  # a file that could not be written or does not run


def judge(budget: Budget, e: Evaluation, number: int) -> Judgement:
    """Return what an evaluation says of the budget.

    Args:
        number: of the file in its search, from 1.
    """
    quality = quality_of(e)
    if budget.max_drop is None:
        known = e.sqnr_db is not None or math.isinf(quality)
        return Judgement(MET if known and quality >= (budget.min_sqnr_db or 0.0) else MISSED, quality)
    counts, z = counts_of(e), z_of(number)
    low, high = limits = loss_limits(counts, z)
    needed = pictures_needed(counts, budget.max_drop, z) if low <= budget.max_drop < high else None
    if high <= budget.max_drop + _EPSILON:
        verdict = MET
    elif counts.loss <= budget.max_drop + _EPSILON:
        verdict = CANNOT_TELL
    else:
        verdict = MISSED  # as measured: a gate that lets through what was measured above its limit is none
    return Judgement(verdict, quality, counts, limits, needed)


def refused_for_sure(budget: Budget, j: Judgement) -> bool:
    """Whether more pictures of the same kind would not change that a file misses the budget."""
    if budget.max_drop is None:
        return j.verdict == MISSED
    return j.limits is not None and j.limits[0] > budget.max_drop


def quality_of(e: Evaluation) -> float:
    """Return how near the file is to float32: the SQNR in dB, infinite where nothing differs; else the agreement."""
    if e.sqnr_db is not None:
        return e.sqnr_db
    eight_bit = any(w.code == "8-bit-output" for w in e.warnings)
    return math.inf if e.agreement == 1 and not eight_bit else (e.agreement or 0.0)


def is_over(budget: Budget, judged: Sequence[Judgement]) -> bool:
    """Whether a search ends with the last of the files that were judged so far.

    It ends with the first file that meets the budget. Where one was measured within it and these pictures are too few
    to tell, going on would end with a large file that they cannot tell of either. So it ends as soon as a file with
    half as many changed answers, as many won as lost, would not meet the budget on them.
    """
    last = judged[-1]
    if last.verdict == MET:
        return _is_no_worse(last, judged[0])
    within = any(j.verdict == CANNOT_TELL and _is_no_worse(j, judged[0]) for j in judged)
    if not within or last.counts is None or budget.max_drop is None:
        return False
    c = last.counts
    changed = (c.lost + (c.won or 0)) / 2
    better = Counts(changed, None, c.n) if c.won is None else Counts(changed / 2, changed / 2, c.n)
    return loss_limits(better, z_of(len(judged) + 1))[1] > budget.max_drop


def chosen(judged: Sequence[Judgement]) -> int:
    """Return the index of the file to keep; the first one is the default, and the later ones keep more layers better.

    Of those that meet the budget it is the first, else the first that was measured within it, else the one that lost
    least, or has the least noise. One that is noisier than the default is never kept: it is worse at the same size.
    """
    good = [i for i, j in enumerate(judged) if j.verdict != FAILED and _is_no_worse(j, judged[0])]
    for verdict in (MET, CANNOT_TELL):
        if found := [i for i in good if judged[i].verdict == verdict]:
            return found[0]
    return max(good, key=lambda i: (-_loss(judged[i]), judged[i].quality, -i))


def _is_no_worse(j: Judgement, default: Judgement) -> bool:
    return j.quality >= default.quality


def _loss(j: Judgement) -> float:
    return 0.0 if j.counts is None else j.counts.loss


def z_of(number: int) -> float:
    """Return the quantile of the normal distribution for the limits of the `number`-th file of a search, from 1."""
    return NormalDist().inv_cdf(1 - ERROR / (number * (number + 1)))


def loss_limits(c: Counts, z: float) -> tuple[float, float]:
    """Return (low, high) of the loss, fractions of 1: those losses that the counts do not refute at `z`."""
    low = -1.0 if c.won is not None else 0.0
    return _crossing(c, z, low, c.loss, c.loss), _crossing(c, z, c.loss, 1.0, c.loss)


def _crossing(c: Counts, z: float, low: float, high: float, at: float) -> float:
    """Return where |score| is z between `low` and `high`, one of which is `at`, where it is 0."""
    inside, outside = (low, high) if at == low else (high, low)
    if abs(_score(c, outside)) <= z:
        return outside
    for _ in range(50):
        middle = (inside + outside) / 2
        inside, outside = (middle, outside) if abs(_score(c, middle)) <= z else (inside, middle)
    return (inside + outside) / 2


def _score(c: Counts, loss: float) -> float:
    """Return by how many standard errors the counts are above a true loss."""
    above = c.lost - (c.won or 0) - c.n * loss
    if c.won is None:
        variance = c.n * loss * (1 - loss)  # one fraction: Wilson's interval
    else:
        # The likeliest rate of winning under this loss is the root of 2n q^2 + b q - won loss (1 - loss).
        b = (2 * c.n - c.lost + c.won) * loss - c.lost - c.won
        root = math.sqrt(max(b * b + 8 * c.n * c.won * loss * (1 - loss), 0.0))
        variance = c.n * (2 * max((root - b) / (4 * c.n), 0.0) + loss * (1 - loss))
    if variance <= 0:
        return 0.0 if abs(above) < _EPSILON else math.copysign(math.inf, above)
    return above / math.sqrt(variance)


def pictures_needed(c: Counts, max_drop: float, z: float) -> int | None:
    """Return how many pictures would tell on which side of the budget the loss lies, if it is what it was measured as.

    The fewer answers change, the fewer pictures it takes. Some pictures without a change do not show that nothing ever
    changes: it is reckoned as if ASSUMED_CHANGE more had been seen. None where the loss lies so near to the budget that
    no number helps.
    """
    rates, z = c, z + POWER_Z
    if c.won is not None:
        changed, of = ASSUMED_CHANGE
        rate = max((c.lost + c.won + changed) / (c.n + of), abs(c.loss))
        rates = Counts((rate + c.loss) / 2, (rate - c.loss) / 2, 1.0)

    def tells(n: float) -> bool:
        low, high = loss_limits(rates.times(n / rates.n), z)
        return high <= max_drop if rates.loss <= max_drop else low > max_drop

    few, many = 1.0, 2.0
    while not tells(many):
        few, many = many, 2 * many
        if many > MAX_NEEDED:
            return None
    while many - few > max(1.0, 0.01 * few):
        middle = (few + many) / 2
        few, many = (few, middle) if tells(middle) else (middle, many)
    return max(math.ceil(many), int(c.n) + 1)
