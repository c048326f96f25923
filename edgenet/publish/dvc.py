"""Figures as metrics of DVC: nested numbers, which `dvc metrics show` and `dvc metrics diff` read.

https://dvc.org/doc/command-reference/metrics
"""

from typing import Any

from edgenet.compare.nouns import ACCURACY, LATENCY, SIZE
from edgenet.history.figures import ESTIMATE, figures_of
from edgenet.results import Results

_METRICS = {ACCURACY: "top1", LATENCY: "latency_ms", ESTIMATE: "estimated_ms", SIZE: "size_bytes"}


def dvc_metrics(results: Results) -> dict[str, Any]:
    """Return {file: {metric: number}}; a metric of another device than this computer has it in its name.

    Shares are fractions of 1. METRIC_low and METRIC_high are the ends of 95 % intervals, where they are known.
    """
    found: dict[str, Any] = {}
    for f in figures_of(results):
        metrics = found.setdefault(f.series.file, {})
        where = f" {f.series.device}" if f.series.device not in ("", "local") else ""
        name = plain = _METRICS[f.series.aspect] + where
        n = 1
        while name in metrics:  # another runtime, another number of threads
            n += 1
            name = f"{plain} {n}"
        value = int(f.value) if f.series.aspect == SIZE else f.value
        numbers = {name: value, f"{name}_low": f.low, f"{name}_high": f.high}
        metrics |= {key: x for key, x in numbers.items() if x is not None}
    return found
