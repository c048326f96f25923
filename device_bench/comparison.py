"""Which of two artifacts is faster: the ratio of their medians round by round, with an interval, or "cannot tell".

What changes slowly (clock, temperature, neighbours) hits both in a round. The interval is the exact one of Wilcoxon's
signed-rank test (Hodges and Lehmann 1963, https://doi.org/10.1214/aoms/1177704172), which for two equal files errs as
often as it says, not more.
"""

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from edgenet.device_bench import pace
from edgenet.device_bench.timing import by_round
from edgenet.errors import InputError


@dataclass(frozen=True)
class Comparison:
    """`a` against `b`: the ratio of their medians (below 1: `a` is faster) with an interval (low, high)."""

    ratio: float
    low: float
    high: float
    verdict: str  # a is "faster" | "slower" | "cannot tell"
    n_rounds: int


class Timed(Protocol):
    """What `compare` compares: a Trace or a Measurement."""

    @property
    def samples_ns(self) -> Sequence[int]: ...
    @property
    def rounds(self) -> Sequence[int]: ...
    @property
    def pace_ns(self) -> Sequence[int]: ...
    @property
    def disturbed_ns(self) -> Sequence[int]: ...
    @property
    def disturbed_rounds(self) -> Sequence[int]: ...
    @property
    def disturbed_pace_ns(self) -> Sequence[int]: ...


def compare(a: Timed, b: Timed, confidence: float = 0.98) -> Comparison:
    """Compare two artifacts measured in the same rounds.

    Each round gives one ratio of medians; rounds in which one of the two has no undisturbed run are joined with those
    after them until both have. The ratios' logarithms give the Hodges-Lehmann estimate and the signed-rank interval. At
    98 %, two equal files are told apart once in 50 comparisons, by mistake. That needs seven ratios. Where the
    undisturbed runs give fewer, all runs count; where those do not suffice either, the verdict is "cannot tell" and the
    interval is open (0, infinity).

    Raises:
        InputError: there is no round that both have.
    """
    logs = _log_ratios(_calm_runs_by_round(a), _calm_runs_by_round(b))
    if (a.disturbed_ns or b.disturbed_ns) and signed_rank_critical(len(logs), 1 - confidence) == 0:
        logs = _log_ratios(_every_run_by_round(a), _every_run_by_round(b))
    if not logs:
        raise InputError("the two were not measured in the same rounds; bench them in one command to compare them")
    n = len(logs)
    walsh = sorted((logs[i] + logs[j]) / 2 for i in range(n) for j in range(i, n))
    ratio = math.exp(statistics.median(walsh))
    k = signed_rank_critical(n, 1 - confidence)
    if k == 0:
        return Comparison(ratio, 0.0, math.inf, "cannot tell", n)
    low, high = math.exp(walsh[k - 1]), math.exp(walsh[-k])
    verdict = "faster" if high < 1 else "slower" if low > 1 else "cannot tell"
    return Comparison(ratio, low, high, verdict, n)


def _log_ratios(a: Mapping[int, list[float]], b: Mapping[int, list[float]]) -> list[float]:
    logs = []
    x: list[float] = []
    y: list[float] = []
    for r in sorted({*a, *b}):
        x, y = x + a.get(r, []), y + b.get(r, [])
        if x and y:
            logs.append(math.log(statistics.median(x) / statistics.median(y)))
            x, y = [], []
    return logs


def _calm_runs_by_round(t: Timed) -> dict[int, list[float]]:
    """Group the undisturbed runs, none of those that count only because there are too few; all without a pace."""
    if not t.disturbed_ns:
        return by_round(t.samples_ns, t.rounds)
    limit_ns = pace.pace_limit_ns([*t.pace_ns, *t.disturbed_pace_ns])
    calm = [p <= limit_ns for p in t.pace_ns]
    return by_round(list(itertools.compress(t.samples_ns, calm)), list(itertools.compress(t.rounds, calm)))


def _every_run_by_round(t: Timed) -> dict[int, list[float]]:
    return by_round([*t.samples_ns, *t.disturbed_ns], [*t.rounds, *t.disturbed_rounds])


def signed_rank_critical(n: int, alpha: float) -> int:
    """Return the largest k with 2 P(W < k) <= `alpha`, W being Wilcoxon's signed-rank statistic of `n`; 0 for none.

    The k-th smallest and k-th largest Walsh averages are then an interval of confidence 1 - alpha at least.
    """
    counts = np.ones(1)
    for rank in range(1, n + 1):  # each rank is in the sum or is not
        longer = np.zeros(len(counts) + rank)
        longer[: len(counts)] += counts / 2
        longer[rank:] += counts / 2
        counts = longer
    return int(np.searchsorted(np.cumsum(counts), alpha / 2 * (1 + 1e-12), side="right"))


def indistinct(traces: Mapping[str, Timed]) -> dict[str, list[tuple[str, Comparison]]]:
    """Return for each name those neighbours by median that it cannot be told from, both ways."""
    order = sorted(traces, key=lambda name: statistics.median(traces[name].samples_ns))
    found: dict[str, list[tuple[str, Comparison]]] = {name: [] for name in order}
    for fast, slow in itertools.pairwise(order):
        f, s = traces[fast], traces[slow]
        for name, other, x, y in ((fast, slow, f, s), (slow, fast, s, f)):
            try:
                c = compare(x, y)
            except InputError:  # one of them ran out of time before a common round
                continue
            if c.verdict == "cannot tell":
                found[name].append((other, c))
    return found
