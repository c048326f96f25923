"""Whether a machine kept its pace: independent runs, throttling, temperature. Pure: clock and thermometer are given.

Runs one after another resemble each other, so a hundred of them tell less than a hundred independent ones. How much
less is the integrated autocorrelation time, cut where pairs of lags stop being positive (Geyer 1992,
https://doi.org/10.1214/ss/1177011137); it is taken of ranks, which a single stall of a second does not move.
"""

import re
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from edgenet.device_bench.timing import by_round
from edgenet.errors import InputError
from edgenet.results import Warning

_NUMBER = r"([0-9]+(?:\.[0-9]+)?)"
_DURATION = re.compile(f"(?:{_NUMBER}h)?(?:{_NUMBER}m)?(?:{_NUMBER}s)?")
_LONGEST_S = 86_400
_FEW = 10
_WORTH_TELLING = 0.03  # slower by so much, it is called throttling


@dataclass(frozen=True)
class Throttling:
    """How a machine slowed down: the pace of the first tenth, of the slowest tenth and of the last one.

    `from_s` is when it was first slower than the beginning by half of what it lost in the end, None where it kept pace.
    """

    first_ms: float
    last_ms: float
    slowest_ms: float
    from_s: float | None

    @property
    def change(self) -> float:
        """Return last against first as a fraction; 0.2 is a fifth slower."""
        return self.last_ms / self.first_ms - 1


def autocorrelation(samples: Sequence[float], lags: int) -> list[float]:
    """Return the autocorrelation of the samples' ranks for lags 1 to `lags`; zeros where all samples are equal."""
    order = np.argsort(np.asarray(samples, float), kind="stable")
    ranks = np.empty(len(order))
    ranks[order] = np.arange(len(order))
    values, inverse = np.unique(np.asarray(samples, float), return_inverse=True)
    ranks = (np.bincount(inverse, ranks) / np.bincount(inverse))[inverse]  # equal samples share their mean rank
    x = ranks - ranks.mean()
    power = float(x @ x)
    if len(values) < 2 or power == 0:
        return [0.0] * lags
    return [float(x[k:] @ x[:-k]) / power if k < len(x) else 0.0 for k in range(1, lags + 1)]


def effective_runs(samples: Sequence[float], rounds: Sequence[int]) -> float:
    """Return how many independent runs the samples are worth: n / (1 + 2 sum of autocorrelations), at most n.

    Lags within a round and beyond it count alike: what is taken is the order in which the runs were made.
    """
    x = [v for group in by_round(samples, rounds).values() for v in group]
    n = len(x)
    if n < 4:
        return float(n)
    rho = [1.0, *autocorrelation(x, min(n - 1, 1000))]
    total = 0.0
    for even in range(0, len(rho) - 1, 2):
        pair = rho[even] + rho[even + 1]
        if pair <= 0:
            break
        total += pair
    return float(min(n, n / max(2 * total - 1, 1.0)))


def dependence(samples: Sequence[float], rounds: Sequence[int]) -> list[Warning]:
    """Return a warning where many runs are worth few."""
    n, worth = len(samples), effective_runs(samples, rounds)
    text = f"runs resemble each other: {n} are worth {worth:.0f} independent ones"
    return [Warning("dependent-runs", text, worth)] if worth < _FEW <= n else []


def curve(
    samples_ns: Sequence[int], rounds: Sequence[int], round_s: Sequence[float], points: int = 60
) -> list[tuple[float, float]]:
    """Return the pace over time as (seconds, median ms) pairs.

    With `points` rounds or more, or several short ones, a point is a round's median at the round's beginning. Rounds
    that hold many runs are cut into equal parts, which follow each other as their runs did.

    Args:
        round_s: when each round began, in the order of the rounds.
    """
    groups = list(by_round(samples_ns, rounds).values())
    if len(groups) != len(round_s):
        raise InputError(f"{len(round_s)} times for {len(groups)} rounds")
    parts = max(points // max(len(groups), 1), 1)
    found = []
    for group, begin_s in zip(groups, round_s, strict=True):
        size = max(-(-len(group) // parts), 5)
        at_s = begin_s
        for i in range(0, len(group), size):
            part = group[i : i + size]
            found.append((at_s, statistics.median(part) / 1e6))
            at_s += sum(part) / 1e9
    return found


def throttling(points: Sequence[tuple[float, float]]) -> Throttling:
    """Return how the pace changed along a `curve`, by the medians of its tenths.

    Raises:
        InputError: there is no point.
    """
    if not points:
        raise InputError("there is no curve to judge: nothing was measured")
    ms = [m for _, m in points]
    tenth = max(len(ms) // 10, 1)
    tenths = [statistics.median(ms[i : i + tenth]) for i in range(0, len(ms), tenth)]
    first, last = tenths[0], tenths[-1]
    limit = first + (last - first) / 2
    onset = None
    if last > first * (1 + _WORTH_TELLING):
        # From there on at least half of the points are above: one stall at the beginning is not the onset.
        above = [m >= limit for m in ms]
        onset = next(t for i, (t, _) in enumerate(points) if above[i] and 2 * sum(above[i:]) >= len(ms) - i)
    return Throttling(first, last, max(tenths), onset)


def cool_down(
    celsius: Callable[[], float | None],
    limit_c: float,
    timeout_s: float,
    clock_s: Callable[[], float],
    sleep: Callable[[float], None],
    step_s: float = 1.0,
) -> float:
    """Wait until the temperature is at most `limit_c`; return the seconds that it took.

    It does not wait where no temperature can be read, and no longer than `timeout_s`.
    """
    start = clock_s()
    while clock_s() - start < timeout_s:
        now = celsius()
        if now is None or now <= limit_c:
            break
        sleep(step_s)
    return clock_s() - start


def seconds_of(text: str, option: str = "--sustained") -> float:
    """Return the seconds that a duration names: 90s, 10m, 1.5h, 1h30m. A number without its unit may mean any.

    Raises:
        InputError: it is none, or not between a second and a day.
    """
    found = _DURATION.fullmatch(text)
    total = sum(float(n or 0) * unit_s for n, unit_s in zip(found.groups(), (3600, 60, 1), strict=True)) if found else 0
    if not 1 <= total <= _LONGEST_S:
        raise InputError(f"{option} '{text}' is not a duration from 1s to 24h: write 90s, 10m or 1h30m")
    return total
