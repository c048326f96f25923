"""DIR/index.html: trends by model, file and device, what got worse and in which run, and a link to each report.

One file without a script and without anything from elsewhere; it opens from a disk. What is shown is chosen by radio
buttons and the style sheet alone.
"""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from edgenet import templating
from edgenet.compare import text as compare_text
from edgenet.compare.nouns import ACCURACY, LATENCY, SIZE, Finding
from edgenet.door import open_regular
from edgenet.errors import InputError
from edgenet.files import atomic_write
from edgenet.history.figures import ASPECTS, ESTIMATE, Series
from edgenet.history.marks import name_of
from edgenet.history.options import HistoryJob
from edgenet.history.plot import Dot, trend
from edgenet.history.text import between, place_of, value
from edgenet.history.trends import PastRun, Point, Trend, trends_of
from edgenet.report import pieces
from edgenet.report.formatting import MISSING, counted
from edgenet.report.pieces import Figure
from edgenet.results import RESULTS_FILE

PAGE_FILE = "index.html"
_TEMPLATES = Path(__file__).with_name("templates")
_MADE = b'<meta name="generator" content="edgenet history">'  # in the template; a page without it is somebody else's
_REPORT = "report.html"
_NAMES = {ACCURACY: "Right answers", LATENCY: "Latency", ESTIMATE: "Latency, estimated", SIZE: "Size"}
_SHOWN_WORSE, _SHOWN_RUNS = 20, 50  # the newest; the others are folded
_LONGEST = 100  # characters of a name


@dataclass(frozen=True)
class Choice:
    """A radio button: `key` is the class of what it shows, "" for all."""

    key: str
    name: str


@dataclass(frozen=True)
class Panel:
    """A trend: its drawing, what is said of its newest value, and the classes by which it is chosen."""

    title: str
    where: str
    value: str
    between: str
    is_worse: bool
    is_unclear: bool
    classes: str
    figure: Figure


@dataclass(frozen=True)
class FileSection:
    """A file and its trends."""

    name: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class ModelSection:
    """A model and its files."""

    id: str
    name: str
    n_runs: str
    files: tuple[FileSection, ...]


@dataclass(frozen=True)
class Worse:
    """A line of what got worse. `was` and `now` are figures; `report` and `before` are links."""

    run: int
    when: str
    file: str
    what: str
    was: str
    now: str
    change: str
    between: str
    before: int | None
    report: str


@dataclass(frozen=True)
class RunLine:
    """A line of the list of runs. `report` is a link, "" where there is none, and then `why_not` says why."""

    id: int
    when: str
    models: str
    files: str
    host: str
    edgenet_version: str
    failures: str
    worse: str
    report: str
    why_not: str


@dataclass(frozen=True)
class Page:
    """What the page shows, from top to bottom."""

    title: str
    lead: str
    limits: str
    worse: tuple[Worse, ...]
    worse_folded: tuple[Worse, ...]
    notes: tuple[str, ...]
    devices: tuple[Choice, ...]
    aspects: tuple[Choice, ...]
    models: tuple[ModelSection, ...]
    runs: tuple[RunLine, ...]
    runs_folded: tuple[RunLine, ...]


def write_page(runs: Sequence[PastRun], job: HistoryJob, database: Path) -> Path:
    """Write DIR/index.html whole or not at all, and return its path.

    Raises:
        InputError: a page of that name is there that edgenet did not make, or the place cannot be written.
    """
    assert job.page is not None
    path = job.page / PAGE_FILE
    if job.page.exists() and not job.page.is_dir():
        raise InputError(f"--page {job.page} is a file: give a folder")
    _refuse_foreign(path)
    html = templating.page("history.html", page(runs, job, database), _TEMPLATES, pieces.TEMPLATES)
    with atomic_write(path) as part:
        part.write_text(html, encoding="utf-8", errors="replace")
    return path


def _refuse_foreign(path: Path) -> None:
    if not os.path.lexists(path):
        return
    with open_regular(path) as f:
        if _MADE not in f.read(1 << 16):
            raise InputError(f"{path} is there already, and edgenet did not make it: give --page another folder")


def page(runs: Sequence[PastRun], job: HistoryJob, database: Path) -> Page:
    """Return what the page shows."""
    assert job.page is not None
    trends = trends_of(runs)
    links = {run.row.id: report_link(run, job.page) for run in runs}
    devices = tuple(dict.fromkeys(t.series.device for t in trends if t.series.device))
    keys = {device: f"d{i}" for i, device in enumerate(devices)}
    worse = [line for run in reversed(runs) for line in _worse(run, links)]
    lines = [_run_line(run, links) for run in reversed(runs)]
    there = [a for a in ASPECTS if any(t.series.aspect == a for t in trends)]
    return Page(
        title=headline(trends),
        lead=_lead(runs, trends, database),
        limits=_limits(job),
        worse=tuple(worse[:_SHOWN_WORSE]),
        worse_folded=tuple(worse[_SHOWN_WORSE:]),
        notes=_notes(runs, trends),
        devices=tuple(Choice(keys[d], "this computer" if d == "local" else _short(d)) for d in devices),
        aspects=tuple(Choice(f"a-{a}", _NAMES[a]) for a in there),
        models=tuple(_models(runs, trends, keys)),
        runs=tuple(lines[:_SHOWN_RUNS]),
        runs_folded=tuple(lines[_SHOWN_RUNS:]),
    )


def _notes(runs: Sequence[PastRun], trends: Sequence[Trend]) -> tuple[str, ...]:
    """Return what cannot be compared: whole runs, and the newest figures."""
    whole = [f"Run {run.row.id}: {run.refused}" for run in runs if run.refused]
    newest = [(t.newest.run.row.id, t.newest.unclear) for t in trends]
    return (*whole, *(f"Run {id}: {compare_text.sentence(f)}" for id, f in newest if f is not None))


def headline(trends: Sequence[Trend]) -> str:
    """Return the answer: how many of the trends are worse in their newest run."""
    worse = [t for t in trends if t.newest.worse is not None]
    if not trends:
        return "No run fits what was asked for"
    unclear = sum(t.newest.unclear is not None for t in trends)
    if not worse and unclear:
        return f"Nothing is known to be worse in the newest runs; {counted(unclear, 'figure')} cannot be compared"
    if all(len(t.points) == 1 for t in trends):
        return "The first run of each file: there is none before to compare it with"
    if not worse:
        return "Nothing got worse in the newest runs, as far as the data can tell"
    if len(worse) == 1:
        s = worse[0].series
        return f"{_short(s.file)}: {_NAMES[s.aspect].lower()} got worse in the newest run"
    return f"{len(worse)} of {counted(len(trends), 'trend')} got worse in their newest run"


def report_link(run: PastRun, folder: Path) -> tuple[str, str]:
    """Return (a link from a page in `folder` to the report of a run, ""), or ("", why there is none)."""
    if not run.row.is_latest:
        return "", "a later run filled its folder"
    report = run.row.place / _REPORT
    try:
        there = report.is_file()
    except (OSError, ValueError):
        there = False
    if not there:
        return "", "not there any more" if not run.row.place.is_dir() else f"no {_REPORT} in its folder"
    relative = os.path.relpath(report, os.path.abspath(folder))
    return quote(os.fsencode(relative)) if relative.startswith("..") else "./" + quote(os.fsencode(relative)), ""


def _lead(runs: Sequence[PastRun], trends: Sequence[Trend], database: Path) -> str:
    if not runs:
        return f"{database.name} has none."
    models = {s.series.model for s in trends}
    files = {(s.series.model, s.series.file) for s in trends}
    first, last = runs[0].row.created[:10], runs[-1].row.created[:10]
    days = f"of {first}" if first == last else f"from {first} to {last}"
    return f"{counted(len(runs), 'run')} {days}, {counted(len(models), 'model')}, {counted(len(files), 'file')}."


def _limits(job: HistoryJob) -> str:
    lost, slower, larger = job.max_accuracy_drop, job.max_slowdown, job.max_growth
    return (
        "Marked is what edgenet compare calls worse than in the last run with the same file on the same device: the "
        f"whole interval of the difference is beyond {lost:g} points of right answers lost, {slower} slower, {larger} "
        "larger. Small steps that each lie within their interval are not marked."
    )


def _models(runs: Sequence[PastRun], trends: Sequence[Trend], keys: Mapping[str, str]) -> Iterator[ModelSection]:
    for i, model in enumerate(dict.fromkeys(t.series.model for t in trends)):
        of_model = [t for t in trends if t.series.model == model]
        with_model = [run for run in runs if model in run.models]
        places = {run.row.id: at for at, run in enumerate(with_model)}
        days = [run.row.created[:10] for run in with_model]
        files = []
        for file in dict.fromkeys(t.series.file for t in of_model):
            of_file = sorted((t for t in of_model if t.series.file == file), key=_order)
            files.append(FileSection(_short(file), tuple(_panel(t, places, days, keys) for t in of_file)))
        name = _short(model) or "Files whose runs name no model"
        yield ModelSection(f"model-{i}", name, counted(len(with_model), "run"), tuple(files))


def _order(t: Trend) -> tuple[int, str, str]:
    return ASPECTS.index(t.series.aspect), (t.series.device != "local" and t.series.device) or "", t.series.machine


def _panel(t: Trend, places: Mapping[int, int], days: Sequence[str], keys: Mapping[str, str]) -> Panel:
    s = t.series
    small = s.aspect == SIZE and all(p.figure.value < 1e6 for p in t.points)
    scale = 1e-3 if small else {ACCURACY: 100.0, SIZE: 1e-6}.get(s.aspect, 1.0)
    dots = [_dot(p, places[p.run.row.id], scale) for p in t.points]
    unit = "kB" if small else {ACCURACY: "%", SIZE: "MB"}.get(s.aspect, "ms")
    newest, n_worse = t.newest, sum(p.worse is not None for p in t.points)
    title = _NAMES[s.aspect]
    said = f"{title} of {_short(s.file)} in {unit}, {counted(len(t.points), 'run')}"
    alt = f"{said}: {value(t.points[0].figure)} in the first, {value(newest.figure)} in the last"
    caption = f"{counted(len(t.points), 'run')}" + (f", worse in {n_worse}" if n_worse else "")
    return Panel(
        title=f"{title}, {unit}",
        where=_where(s),
        value=value(newest.figure),
        between="" if between(newest.figure) == MISSING else between(newest.figure),
        is_worse=newest.worse is not None,
        is_unclear=newest.unclear is not None,
        classes=" ".join([f"a-{s.aspect}", keys.get(s.device, "anywhere")]),
        figure=Figure(trend(dots, days, 100.0 if s.aspect == ACCURACY else math.inf, alt), caption),
    )


def _dot(p: Point, at: int, scale: float) -> Dot:
    f = p.figure
    ends = [None if x is None else x * scale for x in (f.low, f.high)]
    sure = "" if between(f) == MISSING else f" ({between(f)})"
    said = f"; worse: {compare_text.sentence(p.worse)}" if p.worse is not None else ""
    title = f"{name_of(p.run.row).removeprefix('the ')}, no. {p.run.row.id}: {value(f)}{sure}{said}"
    return Dot(at, f.value * scale, ends[0], ends[1], title, p.worse is not None)


def _where(s: Series) -> str:
    """Return on what and how a figure came about, "" for a size."""
    if s.aspect == SIZE:
        return ""
    place = place_of(s)
    how = f"emulated by {s.how}" if s.aspect == ACCURACY and s.how else s.how
    return _short(", ".join(filter(None, ("this computer" if place == "local" else place, s.runtime, how))))


def _worse(run: PastRun, links: Mapping[int, tuple[str, str]]) -> Iterator[Worse]:
    about: list[tuple[Finding, int | None]] = [(f, run.before.get(series)) for series, f in run.worse.items()]
    about += [(f, None) for f in run.lost]
    for f, before in about:
        failed = f.how == "failed"
        yield Worse(
            run=run.row.id,
            when=_when(run),
            file=_short(compare_text.name_of(f)),
            what=f"failed at {f.said[2]}" if failed else f.aspect,
            was=compare_text.value(f, f.old),
            now=MISSING if failed else compare_text.value(f, f.new),
            change=compare_text.change(f, f.change),
            between=compare_text.between(f),
            before=before,
            report=links[run.row.id][0],
        )


def _run_line(run: PastRun, links: Mapping[int, tuple[str, str]]) -> RunLine:
    report, why_not = links[run.row.id]
    n = len(run.worse) + len(run.lost)
    return RunLine(
        id=run.row.id,
        when=_when(run),
        models=_short(", ".join(m for m in run.models if m)) or MISSING,
        files=counted(len(run.files), "file"),
        host=_short(run.host) or MISSING,
        edgenet_version=_short(run.edgenet_version) or MISSING,
        failures=str(run.n_failures or MISSING),
        worse=counted(n, "figure") if n else MISSING,
        report=report,
        why_not=why_not if run.row.place.name != RESULTS_FILE else "a results file alone",
    )


def _when(run: PastRun) -> str:
    return run.row.created[:16].replace("T", " ")


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"
