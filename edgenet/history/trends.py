"""From the database to trends: what each run says, what of it is worse than before, and what of it was asked for."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path

from edgenet.compare.nouns import SIZE, Finding
from edgenet.errors import InputError
from edgenet.history.figures import Figure, Series, figures_of
from edgenet.history.marks import Judged, judge
from edgenet.history.options import HistoryJob
from edgenet.history.store import Added, History, Row
from edgenet.options import Progress
from edgenet.results import Results

_LISTED = 8  # names in a message


@dataclass(frozen=True)
class PastRun:
    """A run of the database, with what is known of it.

    Attributes:
        worse: what `edgenet compare` calls worse than in the last run that had this series.
        unclear: what cannot be compared with that run, for the reason in `how`.
        lost: what the run before had and this one failed to make or measure.
        refused: why it cannot be compared with the run before, "" where it can.
        before: id of the run that a series is compared with.
    """

    row: Row
    host: str
    edgenet_version: str
    n_failures: int
    figures: tuple[Figure, ...]
    worse: Mapping[Series, Finding] = field(default_factory=dict)
    unclear: Mapping[Series, Finding] = field(default_factory=dict)
    lost: tuple[Finding, ...] = ()
    refused: str = ""
    before: Mapping[Series, int] = field(default_factory=dict)

    @property
    def models(self) -> tuple[str, ...]:
        """The models of its figures, each once."""
        return tuple(dict.fromkeys(f.series.model for f in self.figures))

    @property
    def files(self) -> tuple[str, ...]:
        """The files of its figures, each once."""
        return tuple(dict.fromkeys(f.series.file for f in self.figures))


@dataclass(frozen=True)
class Point:
    """A figure in the run that it is of; `worse` where it is worse than the point before."""

    run: PastRun
    figure: Figure
    worse: Finding | None

    @property
    def unclear(self) -> Finding | None:
        """Why it cannot be compared with the point before, None where it can or there is none."""
        return self.run.unclear.get(self.figure.series)


@dataclass(frozen=True)
class Trend:
    """A series from run to run, the oldest first."""

    series: Series
    points: tuple[Point, ...]

    @property
    def newest(self) -> Point:
        """The last point."""
        return self.points[-1]


@dataclass(frozen=True)
class Done:
    """What came of the command: runs that were added, those that were asked for, and the page if one was written."""

    added: tuple[Added, ...]
    runs: tuple[PastRun, ...]
    page: Path | None


def past_runs(history: History, job: HistoryJob, progress: Progress = lambda *_: None) -> tuple[PastRun, ...]:
    """Return all runs, the oldest first, each judged against those before it. Memory holds a few runs at a time.

    Raises:
        ValueError: the database is damaged.
    """
    rows = history.rows()
    recent = _Recent(history)
    found: list[PastRun] = []
    for n, row in enumerate(rows):
        progress("history", n, len(rows))
        results = recent.results(row.id)
        c = results.context
        run = PastRun(row, c.host, c.edgenet_version, len(results.failures), figures_of(results))
        before = before_of(run, found)
        judged = judge(row, results, run.figures, before, recent.results, job.limits)
        found.append(_with(run, judged, before))
    progress("history", len(rows), len(rows))
    return tuple(found)


def _with(run: PastRun, judged: Judged, before: Mapping[Series, Row]) -> PastRun:
    ids = {series: row.id for series, row in before.items()}
    return replace(
        run, worse=judged.worse, unclear=judged.unclear, lost=judged.lost, refused=judged.refused, before=ids
    )


def before_of(run: PastRun, earlier: Sequence[PastRun]) -> dict[Series, Row]:
    """Return the last earlier run of each series of a run; under Series(model, "", "") the last one of a model."""
    wanted = {f.series for f in run.figures}
    models = set(run.models)
    found: dict[Series, Row] = {}
    for past in reversed(earlier):
        for f in past.figures:
            if f.series in wanted:
                found.setdefault(f.series, past.row)
        for model in models & set(past.models):
            found.setdefault(Series(model, "", ""), past.row)
        if len(found) == len(wanted) + len(models):
            break
    return found


def selected(runs: Sequence[PastRun], job: HistoryJob) -> tuple[PastRun, ...]:
    """Return the runs, and of each the figures, that were asked for.

    Raises:
        InputError: a name fits nothing.
    """
    every = [f.series for run in runs for f in run.figures]
    for option, wanted, names in (
        ("--model", job.models, [s.model for s in every]),
        ("--device", job.devices, [s.device for s in every if s.aspect != SIZE]),
        ("--file", job.files, [s.file for s in every]),
    ):
        for pattern in wanted:
            if not any(_fits(name, (pattern,)) for name in names):
                raise InputError(f"{option} {pattern} fits nothing in the database (it has {_listed(names)})")
    found = []
    for run in runs:
        if job.since is not None and run.row.created < job.since:
            continue
        kept = tuple(_asked_for(run.figures, job))
        if not kept:
            continue
        series = {f.series for f in kept}
        files = {s.file for s in series}
        worse = {s: f for s, f in run.worse.items() if s in series}
        lost = tuple(f for f in run.lost if not job.files or f.file in files or _fits(f.file, job.files))
        unclear = {s: f for s, f in run.unclear.items() if s in series}
        found.append(replace(run, figures=kept, worse=worse, unclear=unclear, lost=lost))
    return tuple(found)


def _asked_for(figures: Iterable[Figure], job: HistoryJob) -> Iterator[Figure]:
    figures = [
        f for f in figures
        if (not job.models or _fits(f.series.model, job.models)) and (not job.files or _fits(f.series.file, job.files))
    ]  # fmt: skip
    if not job.devices:
        yield from figures
        return
    there = {f.series.file for f in figures if f.series.aspect != SIZE and _fits(f.series.device, job.devices)}
    for f in figures:
        s = f.series
        if (s.aspect == SIZE and s.file in there) or (s.aspect != SIZE and _fits(s.device, job.devices)):
            yield f


def _fits(name: str, wanted: Sequence[str]) -> bool:
    return any(name == w or fnmatchcase(name, w) for w in wanted)


def _listed(names: Sequence[str]) -> str:
    each = list(dict.fromkeys(n for n in names if n))
    more = f" and {len(each) - _LISTED} more" if len(each) > _LISTED else ""
    return (", ".join(each[:_LISTED]) or "none") + more


def trends_of(runs: Sequence[PastRun]) -> tuple[Trend, ...]:
    """Return every series of the runs, in the order in which they first occur in the newest runs."""
    points: dict[Series, list[Point]] = {}
    for run in reversed(runs):
        for f in run.figures:
            points.setdefault(f.series, []).append(Point(run, f, run.worse.get(f.series)))
    return tuple(Trend(series, tuple(reversed(found))) for series, found in points.items())


class _Recent:
    """The results of the runs that were asked for last."""

    _MOST = 6

    def __init__(self, history: History) -> None:
        self._history, self._known = history, dict[int, Results]()

    def results(self, id: int) -> Results:
        found = self._known.pop(id, None) or self._history.results(id)
        self._known[id] = found
        while len(self._known) > self._MOST:
            del self._known[next(iter(self._known))]
        return found
