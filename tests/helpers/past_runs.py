"""Runs of many days for the tests of the history, built by hand: what changes from run to run is planted."""

import json
import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from edgenet.results import RESULTS_FILE, Results
from helpers.hand_built import FILES, a_measurement, an_artifact, an_evaluation, some_results

FIRST_DAY = datetime(2026, 5, 1, 5, 2, 11, tzinfo=UTC)
MACHINE = {"cpu_model": "Intel Xeon", "cores": 2, "machine": "x86_64", "governor": "performance"}


def a_run(n: int, *, host: str = "build-7", slower: float = 1.0, larger: int = 0, worse: float = 0.0) -> Results:
    """Return run `n`, one a day: a little other times and accuracies each time, without a trend.

    Args:
        slower: a factor on the time of the int8 file; larger: bytes more; worse: of its top-1, a fraction of 1.
    """
    created = (FIRST_DAY + timedelta(days=n)).isoformat(timespec="seconds")
    context = some_results(created=created, host=host).context
    out = Results(context=context)
    for i, (precision, size, top1, drop, agreement, ms) in enumerate(FILES):
        is_int8 = precision == "int8"
        sha256 = f"{n:032x}{i:032x}"
        a = an_artifact(precision, size + larger * is_int8, sha256=sha256, export_s=1.0 + n / 1000)
        right = top1 + 0.002 * math.sin(1.7 * n + i) - worse * is_int8
        time = ms * (1 + 0.004 * math.sin(2.3 * n + i)) * (slower if is_int8 else 1.0)
        out.put(a)
        out.put(an_evaluation(a, right, drop, agreement, images=f"{n:064x}", n_images=2000, n_labelled=2000,
                              top1_ci95=(right - 0.015, right + 0.014)))  # fmt: skip
        out.put(replace(a_measurement(a, time), device_info=MACHINE))
    return out


def written(folder: Path, results: Results, report: str | None = "<!doctype html><title>report</title>") -> Path:
    """Write a run's results.json, and a report unless that is None; return the folder."""
    folder.mkdir(parents=True)
    (folder / RESULTS_FILE).write_text(json.dumps(results.to_json()))
    if report is not None:
        (folder / "report.html").write_text(report)
    return folder


def many_runs(root: Path, n: int) -> list[Path]:
    """Return the folders of `n` runs: from the middle on int8 is slower by a tenth, and in the last one larger too."""
    slow = n // 2
    runs = (a_run(i, slower=1.1 if i >= slow else 1.0, larger=100_000 * (i == n - 1)) for i in range(n))
    return [written(root / f"run-{i:03d}", r) for i, r in enumerate(runs)]
