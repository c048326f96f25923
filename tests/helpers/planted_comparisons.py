"""How often is the gate wrong? `python tests/helpers/planted_comparisons.py` prints it; docs/ci.md quotes it.

    python tests/helpers/planted_comparisons.py                     planted cases, the same every time
    python tests/helpers/planted_comparisons.py --real FILE.tflite  ten equal and ten slower pairs, timed now

Latency: tests/compare/data/rounds.json holds rounds of real files, five runs of edgenet on two cores of a virtual
machine with neighbours. A case draws blocks of rounds of two files that ran side by side, takes out what they differ
by over the whole run, and makes one of them 3 % slower, or not. Accuracy: of 2,000 pictures each answer changes now
and then, as often for better as for worse, and then 20 right answers become wrong, or none. The limits are 0: whatever
is found to be worse at all fails. `--real` wants a quiet machine.
"""

import argparse
import importlib.util
import json
import math
import statistics
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgenet.compare import accuracy, latency
from edgenet.compare.nouns import CANNOT_TELL, MISSED, REFUSED, Finding, Sure
from edgenet.results import Evaluation, Measurement, Warning
from edgenet.results.answers import pack

ROOT = Path(__file__).resolve().parents[2]
RECORDED = ROOT / "tests" / "compare" / "data" / "rounds.json"
CASES, SLOWER, PICTURES, PLANTED = 100, 0.03, 2000, 20
ROUNDS = 400  # of a minute of each file's own time, as --remeasure takes on a machine that is not quiet
BLOCK = 5  # rounds that are drawn together: what changes slowly stays within them
CHURN = 0.004  # of the answers became right, and as many wrong, with nothing lost: INT8 files of EfficientNet-Lite
ALONE = Sure.among(1)
# Files of one run that do nearly the same work: their ratio moves as that of two equal files does.
ALIKE = (
    ("_float32.tflite", "_float16.tflite"),
    ("_int8.tflite", "_int8_io-int8.tflite"),
    ("_float32.onnx", "_float16.onnx"),
)


# ------------------------------------------------------------------------------------------------------------- latency


def recorded() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(RECORDED.read_text())
    return found


def measurement(row: dict[str, Any], **changes: Any) -> Measurement:
    """Return a recorded measurement, as `run` wrote it."""
    info = {"cpu_model": row["cpu_model"], "cores": 2}
    busy = f"other programs used {row['others_cores']:.2f} cores while it was measured"
    base = Measurement(
        artifact=row["file"],
        device="local",
        runtime=row["runtime"],
        threads=1,
        samples_ns=tuple(1000 * us for us in row["samples_us"]),
        rounds=tuple(row["rounds"]),
        device_info=info,
        warnings=tuple(Warning(code, busy, row["others_cores"]) for code in row["codes"]),
    )
    return replace(base, **changes)


def side_by_side() -> list[tuple[dict[int, list[int]], dict[int, list[int]]]]:
    """Return pairs of round -> samples (ns) of two files that ran in the same rounds, on the quiet runs."""
    pairs = []
    rows = [row for row in recorded() if not row["codes"]]
    for run in sorted({row["run"] for row in rows}):
        of_run = {row["file"]: _by_round(row) for row in rows if row["run"] == run}
        for first, second in ALIKE:
            a, b = (next((r for f, r in of_run.items() if f.endswith(end)), None) for end in (first, second))
            if a is not None and b is not None:
                pairs.append((a, b))
    return pairs


def _by_round(row: dict[str, Any]) -> dict[int, list[int]]:
    rounds: dict[int, list[int]] = {}
    for us, r in zip(row["samples_us"], row["rounds"], strict=True):
        rounds.setdefault(r, []).append(1000 * us)
    return rounds


def planted_latency(seed: int, slower: float, n_rounds: int = ROUNDS) -> Finding:
    """Return what the gate says of two files, the new one slower by a fraction, timed side by side."""
    rng = np.random.default_rng(seed)
    pairs = side_by_side()
    a, b = pairs[seed % len(pairs)]
    if rng.random() < 0.5:
        a, b = b, a
    common = sorted(a.keys() & b.keys())
    apart = latency.compare(_timed({r: a[r] for r in common}), _timed({r: b[r] for r in common})).ratio
    drawn: list[int] = []
    while len(drawn) < n_rounds:
        start = int(rng.integers(len(common)))
        drawn += [common[(start + i) % len(common)] for i in range(BLOCK)]
    drawn = drawn[:n_rounds]
    old = _timed(dict(enumerate(b[r] for r in drawn)))
    new = _timed({i: [round(ns * (1 + slower) / apart) for ns in a[r]] for i, r in enumerate(drawn)})
    return latency.side_by_side("file", old, new, 0.0, ALONE)


def _timed(rounds: dict[int, list[int]]) -> Measurement:
    flat = [(ns, r) for r, samples in rounds.items() for ns in samples]
    return Measurement("file", "local", "litert", 1, tuple(ns for ns, _ in flat), tuple(r for _, r in flat))


def two_runs(*, all_quiet: bool = False) -> Iterator[tuple[str, Finding]]:
    """Return what the gate says of each file that two of the recorded runs timed: it is the same file, both ways.

    Args:
        all_quiet: as if nobody had noticed that two of the five runs were disturbed by other programs.
    """
    rows = [{**row, "codes": [] if all_quiet else row["codes"]} for row in recorded()]
    for old in rows:
        for new in rows:
            if old["sha256"] == new["sha256"] and old["run"] != new["run"]:
                pair = [latency.Timed(measurement(row), "vm") for row in (old, new)]
                yield old["file"], latency.two_runs(old["file"], pair[0], pair[1], 0.0, ALONE)


# ------------------------------------------------------------------------------------------------------------ accuracy


def planted_accuracy(seed: int, planted: int, sampled: bool = False) -> Finding:
    """Return what the gate says of two files on PICTURES pictures, of which `planted` right answers became wrong.

    Args:
        sampled: the loss is that of all pictures there are, of which these are a sample; else of these.
    """
    rng = np.random.default_rng(seed)
    right = rng.random(PICTURES) < 0.8
    chance = rng.random(PICTURES)
    # Of the right ones so many turn wrong, and of the wrong ones right, that both are CHURN of all pictures.
    new = np.where(right, chance >= CHURN / 0.8, chance < CHURN / 0.2)
    still = np.flatnonzero(right & new)
    n = int(rng.binomial(len(still), planted / PICTURES / 0.8)) if sampled else planted
    new[rng.choice(still, n, replace=False)] = False
    old_seen, new_seen = (accuracy.Seen(_evaluation(each), {}) for each in (right, new))
    return accuracy.judge("file", old_seen, new_seen, 0.0, ALONE)


def _evaluation(right: np.ndarray) -> Evaluation:
    return Evaluation("file", "f" * 64, len(right), len(right), float(right.mean()), None, None, None, "litert",
                      answers=pack(right, ~right, None))  # fmt: skip


# ------------------------------------------------------------------------------------------------------ what it prints


def real(path: Path, pairs: int, time_s: float) -> None:
    """Time the file against itself, and against itself slowed down by 3 % (by waiting), `pairs` times each."""
    from edgenet.device_bench import Plan, Request, local

    spec = importlib.util.spec_from_file_location("repeatability", ROOT / "benchmarks" / "repeatability.py")
    assert spec is not None
    assert spec.loader is not None
    repeatability = importlib.util.module_from_spec(spec)
    sys.modules["repeatability"] = repeatability
    spec.loader.exec_module(repeatability)
    local.Worker = repeatability.SlowableWorker  # type: ignore[misc]
    for name, second in (("equal", path), ("3 % slower", path.with_name(repeatability.SLOW_NAME))):
        if not second.exists():
            second.symlink_to(path.name)
        said: Counter[str] = Counter()
        for seed in range(pairs):
            plan = Plan(seed=seed, self_check=False, max_time_s=time_s, max_rounds=round(400 * time_s / 60))
            timed, failures = local.bench([("old", path), ("new", second)], Request(plan=plan))
            if failures:
                raise SystemExit(f"{failures[0].artifact} failed: {failures[0].why}")
            f = latency.side_by_side("new", timed[0], timed[1], 0.0, ALONE)
            said[f.verdict] += 1
            print(f"  {name}: {100 * (f.change or 0):+.2f} % ({100 * (f.low or 0):.2f} to "
                  f"{100 * (f.high or math.inf):.2f}), {f.n} rounds: {f.verdict}", flush=True)  # fmt: skip
        print(f"{pairs} real pairs, {name}: {said[MISSED]} fail")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--real", type=Path, metavar="FILE.tflite", help="time this file instead, on a quiet machine")
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--time", type=float, default=60.0, help="seconds of each file's own time, with --real")
    args = parser.parse_args()
    if args.real:
        real(args.real, args.pairs, args.time)
        return
    print(f"latency, side by side, {ROUNDS} rounds, of {CASES} each")
    for slower in (0.0, SLOWER):
        found = [planted_latency(seed, slower) for seed in range(CASES)]
        width = statistics.median((f.high or 0) - (f.low or 0) for f in found) / 2
        print(f"  {100 * slower:.0f} % slower: {sum(f.verdict == MISSED for f in found):3} fail, interval ±{width:.1%}")
    for name, all_quiet in (("", False), (", busy runs too", True)):
        judged = [f for _, f in two_runs(all_quiet=all_quiet)]
        failed, refused = sum(f.verdict == MISSED for f in judged), sum(f.verdict == REFUSED for f in judged)
        print(f"latency, the same file in two runs{name}: of {len(judged)} pairs {failed} fail, {refused} are refused")
    print(f"accuracy, {PICTURES} pictures, of {CASES} each")
    for name, planted, sampled in (
        ("nothing lost", 0, False),
        ("a point of these lost", PLANTED, False),
        ("a point of all pictures lost, these are a sample", PLANTED, True),
    ):
        verdicts = Counter(planted_accuracy(seed, planted, sampled).verdict for seed in range(CASES))
        print(f"  {name}: {verdicts[MISSED]:3} fail, {verdicts[CANNOT_TELL]:3} cannot tell")


if __name__ == "__main__":
    main()
