"""Is a new file slower than an old one? By rounds where both ran side by side, else by two runs, if they are alike.

**Side by side** (`--remeasure`): the ratio of medians round by round, as `bench` compares files. That tells a per cent.

**Two runs** on one machine at different times differ by more than the rounds of one run say: the clock, the neighbours
on the host and the places in memory of one hour are not those of the next. The interval of their ratio therefore has
two parts. RUN_TO_RUN is what runs of one file differ by however long they are; docs/ci.md has the figures. The other
part is how far the tenths of each run lie apart, uncut by their number: slow changes are not averaged out by taking
more of the same quarter of an hour, and where tenths differ much, so do hours.

Times of another machine, another clock, other settings, or of a machine that was busy or throttled, are not compared.
"""

import itertools
import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

from edgenet.compare.nouns import CANNOT_TELL, LATENCY, MET, REFUSED, SHOWN, Finding, Sure, verdict_of
from edgenet.device_bench.comparison import compare
from edgenet.device_bench.timing import by_round
from edgenet.errors import InputError
from edgenet.results import Measurement

RUN_TO_RUN = 0.013  # standard deviation of the median from run to run, a fraction of it, on one machine
_TENTHS = 10
_FEWEST = 3  # parts of a run that say how far they lie apart
_FEWEST_ROUNDS = 20  # side by side, for an interval that is worth something
_OTHER_CLOCK = 0.05  # median clocks that differ by more are two clocks
_POWER_Z = NormalDist().inv_cdf(0.8)
_MOST_S = 86_400
# What makes a machine the same one: names of `device_info`, as they are called in a message.
_MACHINE = {"cpu_model": "processor", "name": "device", "soc": "chip", "machine": "architecture", "isa": "instructions",
            "cores": "cores", "cores_total": "cores in all", "max_khz": "highest clock"}  # fmt: skip
_STATE = ("governor", "pinned_to")
# Warnings of a measurement that is not of the machine as it is.
_TROUBLES = ("busy", "stolen", "loaded", "clock-fell", "throttled", "hot", "under-voltage", "capped-clock",
             "battery-saver", "hot-battery", "changed")  # fmt: skip


@dataclass(frozen=True)
class Timed:
    """A measurement and the name of the host that took it, "" where it is not known."""

    measurement: Measurement
    host: str


def side_by_side(file: str, old: Measurement, new: Measurement, limit: float | None, sure: Sure) -> Finding:
    """Return what two measurements in the same rounds say of the latency of a file."""
    finding = _finding(file, old, new, limit)
    try:
        c = compare(new, old, sure.confidence)
    except InputError:
        return replace(finding, how="few-runs")
    change, low, high = c.ratio - 1, c.low - 1, c.high - 1
    verdict = verdict_of(low, high, limit)
    needed = None
    if verdict == CANNOT_TELL and limit is not None:
        seconds_a_round = max(sum(m.every_run_ns) / 1e9 for m in (old, new)) / max(c.n_rounds, 1)
        apart = abs(change - limit)
        if math.isinf(high):
            rounds = float(_FEWEST_ROUNDS)
        else:
            rounds = c.n_rounds * ((high - low) / 2 * (1 + _POWER_Z / sure.z) / apart) ** 2 if apart else math.inf
        needed = math.ceil(rounds * seconds_a_round) if rounds * seconds_a_round <= _MOST_S else None
    open_end = None if math.isinf(high) else high
    return replace(
        finding, verdict=verdict, how="rounds", change=change, low=low, high=open_end, confidence=sure.confidence,
        n=c.n_rounds, needed=needed,
    )  # fmt: skip


def two_runs(file: str, old: Timed, new: Timed, limit: float | None, sure: Sure) -> Finding:
    """Return what measurements of two runs say of the latency of a file, or why they say nothing."""
    a, b = old.measurement, new.measurement
    finding = _finding(file, a, b, limit)
    if a.artifact_sha256 and a.artifact_sha256 == b.artifact_sha256 and a.runtime_version == b.runtime_version:
        return replace(finding, verdict=SHOWN if limit is None else MET, how="same-file", change=0.0)
    if refused := why_not(old, new):
        return replace(finding, how=refused[0], said=refused[1])
    every = bool(a.disturbed_ns) != bool(b.disturbed_ns)  # else one is of quiet moments and the other is not
    first, second = (_spread(m, every) for m in (a, b))
    if first is None or second is None:
        return replace(finding, how="few-runs")
    own = math.hypot(first, second)
    error = math.hypot(own, math.sqrt(2) * RUN_TO_RUN)
    medians = [m.every_run_median_ms if every else m.median_ms for m in (a, b)]
    log_ratio = math.log(medians[1] / medians[0])
    change, low, high = (math.exp(log_ratio + k * error) - 1 for k in (0.0, -sure.z, sure.z))
    return replace(
        finding, verdict=verdict_of(low, high, limit), how="two-runs", old=medians[0], new=medians[1], change=change,
        low=low, high=high, confidence=sure.confidence, n=min(len(set(m.rounds)) or 1 for m in (a, b)),
    )  # fmt: skip


def why_not(old: Timed, new: Timed) -> tuple[str, tuple[str, ...]] | None:
    """Return (code, what the two say of themselves) where two runs cannot be compared, None where they can."""
    a, b = old.measurement, new.measurement
    if min(a.samples_ns, default=0) <= 0 or min(b.samples_ns, default=0) <= 0:
        return "few-runs", ()
    one, two = a.device_info, b.device_info
    if not any(one.get(k) for k in _MACHINE) or not any(two.get(k) for k in _MACHINE):
        return "unknown-machine", ()
    named = {"host": (old.host, new.host)} if a.device == "local" else {}
    for name, (was, now) in {**named, **{title: (one.get(k), two.get(k)) for k, title in _MACHINE.items()}}.items():
        if was != now:
            return "other-machine", (f"{name} {_short(was)}", f"{name} {_short(now)}")
    for name, was, now in (
        ("threads", a.threads, b.threads),
        ("delegate", a.delegate, b.delegate),
        ("sustained_s", a.sustained_s, b.sustained_s),
        *((k, one.get(k) or None, two.get(k) or None) for k in _STATE),
    ):
        if was != now:
            return "other-settings", (f"{name} {_short(was)}", f"{name} {_short(now)}")
    clocks = [_mhz(m) for m in (a, b)]
    if clocks[0] and clocks[1] and abs(clocks[1] / clocks[0] - 1) > _OTHER_CLOCK:
        return "other-clock", (f"{clocks[0]:.0f} MHz", f"{clocks[1]:.0f} MHz")
    for m in (a, b):
        if found := next((w for w in m.warnings if w.code in _TROUBLES), None):
            return "unsteady", (m.artifact, found.text)
    return None


def _finding(file: str, old: Measurement, new: Measurement, limit: float | None) -> Finding:
    return Finding(
        file, LATENCY, REFUSED, "not-measured", old_file=old.artifact, device=new.device, runtime=new.runtime,
        old=old.median_ms, new=new.median_ms, limit=limit,
    )  # fmt: skip


def _spread(m: Measurement, every: bool) -> float | None:
    """Return the standard deviation of the logarithm of the median of a tenth of the run; None where it has no parts.

    A part is some rounds, one after another; where there are few rounds, some runs.
    """
    samples, rounds = (m.every_run_ns, m.every_round) if every else (m.samples_ns, m.rounds)
    groups = list(by_round(samples, rounds).values()) if rounds else []
    if len(groups) < _FEWEST:
        groups = [[float(ns)] for ns in samples]
    if len(groups) < _FEWEST:
        return None
    parts = min(_TENTHS, len(groups))
    cuts = [i * len(groups) // parts for i in range(parts + 1)]
    logs = [math.log(statistics.median([ns for g in groups[i:j] for ns in g])) for i, j in itertools.pairwise(cuts)]
    return statistics.stdev(logs)


def _mhz(m: Measurement) -> float | None:
    known = [mhz for mhz in m.round_mhz if mhz]
    return statistics.median(known) if known else None


def _short(value: Any) -> str:
    if isinstance(value, list | tuple | Mapping):
        value = ", ".join(map(str, value))
    return "unknown" if value in (None, "") else f"{value!s:.80}"


def interval_ms(m: Measurement, z: float) -> tuple[float, float] | None:
    """Return between which medians the next run on the same machine may lie; None where a run has too few parts."""
    spread = _spread(m, every=False) if min(m.samples_ns, default=0) > 0 else None
    if spread is None:
        return None
    error = z * math.hypot(spread, RUN_TO_RUN)
    return m.median_ms * math.exp(-error), m.median_ms * math.exp(error)
