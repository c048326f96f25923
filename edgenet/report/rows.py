"""Results -> one row a file, with all that is known of it, and which of two files is the faster."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from edgenet.device_bench.comparison import compare
from edgenet.errors import InputError
from edgenet.report.formatting import MISSING, NBSP, times
from edgenet.results import Artifact, Estimate, Evaluation, Failure, Measurement, Results
from edgenet.targets import target_of
from edgenet.tasks.words import WORDS, Words


@dataclass(frozen=True)
class Ratio:
    """How many times as fast one file is as another; no interval where there were too few rounds to tell."""

    value: float
    ci98: tuple[float, float] | None
    told_apart: bool


def speedup(slow: Measurement, fast: Measurement, same_within: float = 0.03) -> Ratio | None:
    """Return how many times as fast `fast` is as `slow`; above 1 where it is faster. None without samples.

    The value is the ratio of the medians, interval and verdict are those of `comparison.compare`, round by round.
    Differences up to `same_within` are not told apart however many samples there are: each file runs in a process of
    its own, and where its memory lands alone moves it by that much.
    """
    if not slow.samples_ns or not fast.samples_ns or min(*slow.samples_ns, *fast.samples_ns) <= 0:
        return None
    value = slow.median_ms / fast.median_ms
    try:
        c = compare(slow, fast)
    except (InputError, ValueError):  # no round in common, or samples without rounds
        return Ratio(value, None, False)
    if not math.isfinite(c.high):
        return Ratio(value, None, False)
    apart = c.verdict != "cannot tell" and abs(math.log(value)) > math.log1p(same_within)
    return Ratio(value, (min(c.low, value), max(c.high, value)), apart)


@dataclass(frozen=True)
class Row:
    """One file with all that is known of it. `speedup` is against the baseline, the float32 file."""

    artifact: Artifact
    evaluation: Evaluation | None
    measurement: Measurement | None
    speedup: Ratio | None
    is_baseline: bool
    failures: tuple[Failure, ...]

    @property
    def name(self) -> str:
        return PurePosixPath(self.artifact.path).name or self.artifact.id

    @property
    def words(self) -> Words:
        """What the figures of its task are called."""
        return WORDS[self.evaluation.task if self.evaluation else "classes"]

    @property
    def drop(self) -> float | None:
        """Top-1 lost against the baseline, a fraction; 0 for the baseline, None where it is not known."""
        if self.is_baseline:
            return 0.0
        return self.evaluation.top1_drop if self.evaluation else None

    @property
    def disagreement(self) -> float | None:
        """Fraction of the pictures whose top-1 is not the baseline's."""
        if self.is_baseline:
            return 0.0
        e = self.evaluation
        return None if e is None or e.agreement is None else 1 - e.agreement


def main_condition(results: Results) -> tuple[str, int] | None:
    """Return the (device, threads) that most files were measured on, the first of equals; None without measurements."""
    counts = Counter((m.device, m.threads) for m in results.measurements if m.samples_ns)
    return counts.most_common(1)[0][0] if counts else None


def only_chips(results: Results) -> bool:
    """Tell whether all devices are chips that are not here, so that nothing was timed and nothing will be."""
    asked = {e.device for e in results.estimates} | {f.device for f in results.failures if f.stage == "bench"}
    return main_condition(results) is None and bool(asked) and all(map(target_of, asked))


def baseline_of(results: Results, model: str) -> Artifact | None:
    """Return the float32 file that the rest of `model` is compared with: the evaluations' reference, or the first."""
    of_model = [a for a in results.artifacts if a.model == model]
    references = {e.reference for e in results.evaluations}
    floats = [a for a in of_model if a.precision == "float32"]
    return next((a for a in of_model if a.id in references), floats[0] if floats else None)


def rows(results: Results) -> list[Row]:
    """Return one row per file, in the order of the results.

    An evaluation or measurement of another content than the file's (by sha256) is left out: it is of an earlier file.
    """
    condition = main_condition(results)

    def of(a: Artifact | None) -> tuple[Evaluation | None, Measurement | None]:
        if a is None:
            return None, None
        fits = [m for m in results.measurements if is_of(m, a) and m.samples_ns and (m.device, m.threads) == condition]
        m = fits[0] if fits else None
        evaluations = [e for e in results.evaluations if is_of(e, a) and e.device == "local"]
        same_runtime = [e for e in evaluations if m and e.runtime == m.runtime]
        return next(iter(same_runtime or evaluations), None), m

    out = []
    for a in results.artifacts:
        baseline = baseline_of(results, a.model)
        (e, m), base_m = of(a), of(baseline)[1]
        is_baseline = baseline is not None and a.id == baseline.id
        ratio = speedup(base_m, m) if m and base_m and not is_baseline else None
        out.append(Row(a, e, m, ratio, is_baseline, tuple(f for f in results.failures if _concerns(f, a))))
    return out


def by_format(table: Sequence[Row]) -> list[Row]:
    """Return the rows with those of one format together, formats and files in the order that they came in."""
    order = list(dict.fromkeys(r.artifact.format for r in table))
    return sorted(table, key=lambda r: order.index(r.artifact.format))


def is_of(item: Evaluation | Measurement | Estimate, a: Artifact) -> bool:
    """Tell whether something is of a file as it is, and not of an earlier one of its name."""
    return item.artifact == a.id and (not item.artifact_sha256 or not a.sha256 or item.artifact_sha256 == a.sha256)


def _concerns(f: Failure, a: Artifact) -> bool:
    """What a chip's compiler or emulator did not do says nothing of the file on a computer or phone."""
    return target_of(f.device) is None and f.artifact in (a.id, a.path, PurePosixPath(a.path).name)


def median_ms(r: Row) -> float:
    """Return the median latency of a file, infinity where it was not measured."""
    return r.measurement.median_ms if r.measurement else math.inf


def told_apart(a: Row, b: Row) -> bool:
    """Return whether the speeds of two files differ by more than noise; False where one was not measured."""
    ratio = speedup(a.measurement, b.measurement) if a.measurement and b.measurement else None
    return ratio is not None and ratio.told_apart


def speedup_text(ratio: Ratio | None) -> str:
    """Return a speed-up, or "≈ 1×" where it cannot be told from none."""
    return MISSING if ratio is None else times(ratio.value) if ratio.told_apart else "≈" + NBSP + "1×"
