"""Runs in words: rows of a table for the terminal, and plain values for `--json`."""

from collections.abc import Iterable, Sequence
from typing import Any

from edgenet.compare import text as compare_text
from edgenet.compare.nouns import ACCURACY, LATENCY, SIZE
from edgenet.history.figures import ESTIMATE, UNITS, Figure, Series
from edgenet.history.trends import Done, PastRun, trends_of
from edgenet.report.formatting import MISSING, NBSP, counted, interval, megabytes, milliseconds, percent
from edgenet.results.plain import write

TITLES = ("run", "when", "file", "on", "right", "95 %", "latency", "between", "size", "worse than before")


def value(f: Figure) -> str:
    """Return a figure with its unit."""
    if f.series.aspect == SIZE:
        return f"{f.value / 1e3:.1f}{NBSP}kB" if f.value < 1e6 else megabytes(f.value)
    return percent(f.value) if f.series.aspect == ACCURACY else milliseconds(f.value)


def between(f: Figure) -> str:
    """Return the interval of a figure, without the unit."""
    if f.low is None or f.high is None:
        return MISSING
    if f.series.aspect == ACCURACY:
        return interval((f.low, f.high))
    low, high = (milliseconds(x).removesuffix(f"{NBSP}ms") for x in (f.low, f.high))
    return f"{low} to {high}"


def place_of(s: Series) -> str:
    """Return where a figure is from: a device, or the host where that is this computer."""
    return s.machine or s.device


def rows(runs: Sequence[PastRun]) -> list[tuple[str, ...]]:
    """Return the table: a row a run, file and device."""
    return [row for run in runs for row in _rows(run)]


def _rows(run: PastRun) -> Iterable[tuple[str, ...]]:
    when = run.row.created[:16].replace("T", " ")
    for file in run.files:
        of_file = [f for f in run.figures if f.series.file == file]
        size = next((f for f in of_file if f.series.aspect == SIZE), None)
        devices = list(dict.fromkeys(f.series.device for f in of_file if f.series.aspect != SIZE)) or [""]
        for device in devices:
            of_device = [f for f in of_file if f.series.device == device and f.series.aspect != SIZE]
            right = [f for f in of_device if f.series.aspect == ACCURACY]
            times = [f for f in of_device if f.series.aspect in (LATENCY, ESTIMATE)]
            for n in range(max(len(right), len(times), 1)):
                a, t = (found[n] if n < len(found) else None for found in (right, times))
                here = [f for f in (a, t, size if device == devices[0] and n == 0 else None) if f is not None]
                worse = ", ".join(f.series.aspect for f in here if f.series in run.worse)
                estimated = " (estimated)" if t is not None and t.series.aspect == ESTIMATE else ""
                yield (
                    str(run.row.id), when, file, next((place_of(f.series) for f in (t, a) if f is not None), MISSING),
                    value(a) if a else MISSING, between(a) if a else MISSING,
                    value(t) + estimated if t else MISSING, between(t) if t else MISSING,
                    value(size) if size else MISSING, worse,
                )  # fmt: skip


def notes(done: Done) -> list[str]:
    """Return what has to be said below the table: what is worse, a line each, and what cannot be compared."""
    said = []
    for run in done.runs:
        name = f"run {run.row.id}"
        for series, f in run.worse.items():
            said.append(f"{name} is worse than run {run.before[series]}: {compare_text.sentence(f)}")
        said += [f"{name} lacks what the run before had: {compare_text.sentence(f)}" for f in run.lost]
        if run.refused:
            said.append(f"{name}: {run.refused}")
    newest = [t.newest.unclear for t in trends_of(done.runs)]
    unclear = [f for f in newest if f is not None]
    if unclear:
        first = compare_text.sentence(unclear[0])
        more = f"; and {len(unclear) - 1} more" if len(unclear) > 1 else ""
        said.append(f"not comparable with the run before: {first}{more}")
    return said


def added(done: Done) -> list[str]:
    """Return what became of the runs that were given, a line each."""
    lines = []
    for a in done.added:
        what = "was added" if a.is_new else "was there already, and is listed once"
        lines.append(f"{a.out} {what}")
    return lines


def headline(done: Done) -> str:
    """Return how much there is, in a line."""
    n = len(done.runs)
    if not n:
        return "no run fits what was asked for"
    first, last = (done.runs[i].row.created[:10] for i in (0, -1))
    worse = sum(bool(r.worse or r.lost) for r in done.runs)
    days = f"of {first}" if first == last else f"from {first} to {last}"
    if not worse:
        return f"{counted(n, 'run')} {days}; nothing is known to be worse than in the run before"
    return f"{counted(n, 'run')} {days}; in {worse} of them something is worse than before"


def plain(done: Done) -> dict[str, Any]:
    """Return all of it as plain values."""
    return {
        "added": [{"out": str(a.out), "is_new": a.is_new} for a in done.added],
        "runs": [_plain_run(run) for run in done.runs],
        **({"page": str(done.page)} if done.page is not None else {}),
    }


def _plain_run(run: PastRun) -> dict[str, Any]:
    figures = [
        {
            **write(f.series),
            "unit": UNITS[f.series.aspect],
            "value": f.value,
            "low": f.low,
            "high": f.high,
            "n": f.n,
            "before": run.before.get(f.series),
            "worse": write(run.worse[f.series]) if f.series in run.worse else None,
            "not_comparable": run.unclear[f.series].how if f.series in run.unclear else "",
        }
        for f in run.figures
    ]
    return {
        "id": run.row.id,
        "created": run.row.created,
        "place": str(run.row.place),
        "host": run.host,
        "edgenet_version": run.edgenet_version,
        "n_failures": run.n_failures,
        "figures": figures,
        "lost": write(run.lost),
        "refused": run.refused,
    }
