"""Figures for github-action-benchmark, which charts them from commit to commit and comments where one became worse.

The format is its `customSmallerIsBetter`: a list of name, unit, value, and range and extra as texts. As smaller has to
be better, accuracy is written as its opposite, the share of wrong answers.
https://github.com/benchmark-action/github-action-benchmark#generic-json-format
"""

from typing import Any

from edgenet.compare.nouns import ACCURACY, LATENCY, SIZE
from edgenet.history.figures import ESTIMATE, Figure, figures_of
from edgenet.results import Results

# aspect -> (what it is called, unit). A chart goes on as long as name and unit stay the same.
_CALLED = {
    ACCURACY: ("wrong answers", "%"),
    LATENCY: ("latency", "ms"),
    ESTIMATE: ("estimated latency", "ms"),
    SIZE: ("size", "bytes"),
}


def benchmark_json(results: Results) -> list[dict[str, Any]]:
    """Return an entry a figure: latencies in ms, sizes in bytes, wrong answers in per cent of the labelled pictures.

    `range` is half the 95 % interval, where it is known; `extra` has the interval itself, which need not be symmetric.
    """
    found: list[dict[str, Any]] = []
    names: set[str] = set()
    for figure in figures_of(results):
        called, unit = _CALLED[figure.series.aspect]
        name = plain = f"{figure.series.file} {called}{_where(figure)}"
        n = 1
        while name in names:  # another machine or runtime
            n += 1
            name = f"{plain} ({n})"
        names.add(name)
        value, low, high = _numbers(figure)
        entry: dict[str, Any] = {"name": name, "unit": unit, "value": value}
        if low is not None and high is not None:
            entry["range"] = f"± {_shown((high - low) / 2)}"
        if extra := _extra(figure, low, high, unit):
            entry["extra"] = extra
        found.append(entry)
    return found


def _where(f: Figure) -> str:
    where = [f"on {f.series.device}"] if f.series.device not in ("", "local") else []
    if f.series.aspect == LATENCY:
        where.append(f"({f.series.how})")
    return "".join(f" {w}" for w in where)


def _numbers(f: Figure) -> tuple[float, float | None, float | None]:
    """Return value and interval in the unit that is written, smaller being better."""
    if f.series.aspect != ACCURACY:
        return _rounded(f.value), f.low, f.high
    wrong = [
        None if x is None else 100 * (1 - x) for x in (f.value, f.high, f.low)
    ]  # the interval's ends change places
    return _rounded(wrong[0] or 0.0), wrong[1], wrong[2]


def _extra(f: Figure, low: float | None, high: float | None, unit: str) -> str:
    counted = {ACCURACY: "labelled pictures", LATENCY: "runs"}.get(f.series.aspect, "")
    said = [f"{f.n} {counted}"] if f.n is not None and counted else []
    if low is not None and high is not None:
        said.append(f"95 % interval {_shown(low)} to {_shown(high)} {unit}")
    said += filter(None, (f.series.runtime, f.series.machine))
    return "\n".join(said)


def _rounded(x: float) -> float:
    return float(_shown(x))


def _shown(x: float) -> str:
    text = f"{x:.6f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text
