"""Is a run worse than before? `edgenet compare` decides; here is only which run each figure is held against.

A figure is held against the last run that has the same series: with two phones in turn, each against its own past.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgenet.compare.job import compare_opened
from edgenet.compare.nouns import REFUSED, SIZE, Comparison, Finding
from edgenet.compare.options import CompareJob
from edgenet.compare.pairs import Run
from edgenet.errors import InputError
from edgenet.history.figures import Figure, Series
from edgenet.history.store import Row
from edgenet.results import Results


@dataclass(frozen=True)
class Judged:
    """What is worse in a run; see trends.PastRun."""

    worse: Mapping[Series, Finding] = field(default_factory=dict)
    unclear: Mapping[Series, Finding] = field(default_factory=dict)
    lost: tuple[Finding, ...] = ()
    refused: str = ""


def name_of(row: Row) -> str:
    """Return what a run is called in sentences."""
    return f"the run of {row.created[:16].replace('T', ' ')}"


def judge(
    row: Row,
    results: Results,
    figures: Sequence[Figure],
    before: Mapping[Series, Row],
    results_of: Callable[[int], Results],
    limits: CompareJob,
) -> Judged:
    """Return what is worse in a run than in those `before` it, by series; a series without a file stands for a model.

    Args:
        results_of: gives the results of a run by its id.
    """
    worse: dict[Series, Finding] = {}
    unclear: dict[Series, Finding] = {}
    lost: list[Finding] = []
    refused = ""
    for old in dict.fromkeys(before.values()):
        try:
            found = compare_opened(
                Run(name_of(old), Path(), results_of(old.id)), Run(name_of(row), Path(), results), limits
            )
        except InputError as e:
            refused = refused or str(e)
            continue
        for f in figures:
            finding = _about(f, found) if before.get(f.series) == old else None
            if finding is not None and finding.verdict == REFUSED:
                unclear[f.series] = finding
            elif finding is not None and finding.fails:
                worse[f.series] = finding
        if any(not series.file and at == old for series, at in before.items()):
            lost += [f for f in found.findings if f.fails and f.how == "failed"]
    return Judged(worse, unclear, tuple(dict.fromkeys(lost)), refused)


def _about(figure: Figure, found: Comparison) -> Finding | None:
    """Return what a comparison says of a figure; of several thread counts, what is nearest to it.

    Of a pair that cannot be compared it says why; but another pair of the same file may be comparable.
    """
    s = figure.series
    device = "" if s.device == "local" else s.device
    about = [
        f for f in found.findings
        if (f.file, f.aspect, f.device) == (s.file, s.aspect, device) and f.new is not None
        and (f.aspect == SIZE or f.runtime == s.runtime)
    ]  # fmt: skip
    return min(about, key=lambda f: (f.verdict == REFUSED, abs((f.new or 0.0) - figure.value)), default=None)
