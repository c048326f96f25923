"""The numbers of a run that have a trend: accuracy, latency and size of each file, each with its interval."""

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist

from edgenet.compare.latency import interval_ms
from edgenet.compare.nouns import ACCURACY, LATENCY, SIZE
from edgenet.results import Measurement, Results

ESTIMATE = "estimate"  # of a compiler: milliseconds that nobody measured
ASPECTS = (ACCURACY, LATENCY, ESTIMATE, SIZE)
UNITS = {ACCURACY: "fraction", LATENCY: "ms", ESTIMATE: "ms", SIZE: "bytes"}
_Z95 = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True)
class Series:
    """What makes figures comparable at a glance: they belong in one trend.

    Attributes:
        model: "" where the run does not name it (`edgenet bench --json`).
        device: "" for a size, which no device has to do with.
        machine: the host, where the device is `local`; a latency of another machine is another trend.
        how: threads and delegate of a latency; what emulated an accuracy; the tool of an estimate.
    """

    model: str
    file: str
    aspect: str
    device: str = ""
    runtime: str = ""
    machine: str = ""
    how: str = ""


@dataclass(frozen=True)
class Figure:
    """A number of one run. `low` and `high` are its 95 % interval, None where nothing is known of it.

    `value` is a fraction of 1, milliseconds or bytes, as UNITS has it; `n` counts pictures or runs.
    """

    series: Series
    value: float
    low: float | None = None
    high: float | None = None
    n: int | None = None


def figures_of(results: Results) -> tuple[Figure, ...]:
    """Return the figures of a run, each series once."""
    found: dict[Series, Figure] = {}
    for f in _figures(results):
        found.setdefault(f.series, f)
    return tuple(found.values())


def _figures(results: Results) -> Iterator[Figure]:
    models = {a.id: a.model for a in results.artifacts}
    host = results.context.host
    for e in results.evaluations:
        if e.top1 is not None and e.n_labelled:
            low, high = e.top1_ci95 or (None, None)
            series = Series(models.get(e.artifact, ""), e.artifact, ACCURACY, e.device, e.runtime, how=e.emulated)
            yield Figure(series, e.top1, low, high, e.n_labelled)
    for m in results.measurements:
        low, high = interval_ms(m, _Z95) or (None, None)
        machine = host if m.device == "local" else ""
        series = Series(models.get(m.artifact, ""), m.artifact, LATENCY, m.device, m.runtime, machine, _how(m))
        yield Figure(series, m.median_ms, low, high, m.n_runs)
    for t in results.estimates:
        if t.inference_ms is not None:
            tool = t.tool.split()[0] if t.tool.split() else ""
            series = Series(models.get(t.artifact, ""), t.artifact, ESTIMATE, t.device, how=tool)
            low, high = t.inference_bounds_ms or (None, None)
            yield Figure(series, t.inference_ms, low, high)
    for a in results.artifacts:
        yield Figure(Series(a.model, a.id, SIZE), float(a.size_bytes))


def _how(m: Measurement) -> str:
    threads = f"{m.threads} thread{'s' * (m.threads != 1)}"
    return ", ".join(filter(None, (threads, m.delegate, f"{m.sustained_s:g} s without a pause" * bool(m.sustained_s))))
