"""What `edgenet bench` says of its measurements: the table's rows, and what is to be noted."""

from collections.abc import Sequence

from edgenet.device_bench import Request, compare
from edgenet.device_bench.steadiness import curve, throttling
from edgenet.device_bench.timing import PUBLISHED, PUBLISHED_QUANTILE, median_interval_by_round
from edgenet.errors import InputError
from edgenet.report.formatting import MISSING, megabytes, milliseconds, number, percent
from edgenet.report.notes import latency_note
from edgenet.results import Estimate, Measurement


def titles(measured: Sequence[Measurement], request: Request) -> tuple[str, ...]:
    """Return the titles of the table's columns."""
    device = ("device",) if _several(measured) else ()
    pace = ("first", "last", "slower") if request.plan.sustained_s else ("± 95 %", "against the first")
    return ("file", *device, "runtime", "threads", "median ms", *pace, "p90", "p95", "runs", "load ms", "peak MB")


def rows(measured: Sequence[Measurement], request: Request) -> list[tuple[str, ...]]:
    """Return one row per measurement, in the columns of `titles`."""
    several, out = _several(measured), []
    for m in measured:
        if request.plan.sustained_s and m.samples_ns:
            t = throttling(curve(m.samples_ns, m.rounds, m.round_s))
            pace: tuple[str, ...] = (f"{t.first_ms:.2f}", f"{t.last_ms:.2f}", percent(t.change))
        else:
            first = next(o for o in measured if o.device == m.device)
            pace = (_half_width(m), "1" if m is first else against(m, first))
        device = (m.device,) if several else ()
        runtime = f"{m.runtime} {m.delegate}".strip()
        out.append(
            (m.artifact, *device, runtime, str(m.threads), f"{m.median_ms:.2f}", *pace, f"{m.p90_ms:.2f}",
             f"{m.p95_ms:.2f}", str(m.n_runs), f"{m.load_ms:.0f}", f"{m.peak_rss_bytes / 1e6:.0f}")
        )  # fmt: skip
    return out


_RUN = "micro"  # the device on which an estimate is what a run took, in a simulator
ESTIMATE_TITLES = ("file", "device", "on the accelerator", "SRAM", "cycles", "estimated", "by")


def estimate_rows(estimates: Sequence[Estimate]) -> list[tuple[str, ...]]:
    """Return one row per estimate, in the columns of `ESTIMATE_TITLES`."""
    return [
        (e.artifact, e.device, f"{e.n_accelerated} of {e.n_operators} operators", megabytes(e.sram_bytes),
         MISSING if e.cycles is None else f"{e.cycles:,}",
         MISSING if e.inference_ms is None else milliseconds(e.inference_ms), e.tool)
        for e in estimates
    ]  # fmt: skip


def estimate_notes(estimates: Sequence[Estimate]) -> list[str]:
    """Return what a reader of the estimates has to know."""
    compiled = any(e.device != _RUN for e in estimates)
    found = ["these are estimates of a compiler, not measurements"] if compiled else []
    found += dict.fromkeys(e.basis for e in estimates if e.device == _RUN)
    for e in estimates:
        if e.memory_bytes:
            parts = ", ".join(f"{purpose} {n:,}" for purpose, n in e.memory_bytes.items())
            found.append(f"{e.artifact} on {e.device} takes {sum(e.memory_bytes.values()):,} bytes of memory: {parts}")
        verb = "does not run the {} {}" if e.device == _RUN else "leaves {} {} to the CPU"
        found += [f"{e.artifact}: {e.device} {verb.format(o.n, o.kind)}: {o.why}" for o in e.left]
    return found


def notes(measured: Sequence[Measurement], request: Request) -> list[str]:
    """Return what has to be said of the measurements, a sentence each."""
    found = []
    if request.plan == PUBLISHED:
        found += [
            f"by MLPerf's single-stream rules {m.artifact} on {m.device} takes "
            f"{milliseconds(m.quantile_ms(PUBLISHED_QUANTILE))}, the 90th percentile of {m.n_runs} queries"
            for m in measured
        ]
    found += [
        f"the median of all {len(m.every_run_ns):,} runs of {m.artifact}, disturbed ones too, is "
        f"{milliseconds(m.every_run_median_ms)}"
        for m in measured
        if any(w.code == "disturbed" for w in m.warnings)
    ]
    for m in measured:
        if m.sustained_s and m.samples_ns:
            t = throttling(curve(m.samples_ns, m.rounds, m.round_s))
            if t.from_s is not None:
                found.append(
                    f"{m.artifact} slows down by {percent(t.change, 0)} from {t.from_s - m.round_s[0]:.0f} s on"
                )
    for device in dict.fromkeys(m.device for m in measured):
        first = next(m for m in measured if m.device == device)
        if first.self_ratio is not None:
            around = f" ({_interval(*first.self_ratio_ci98)})" if first.self_ratio_ci98 else ""
            found.append(f"the first file against itself on {device}: {number(first.self_ratio, 3)}{around}")
    if note := latency_note([(m.artifact, m) for m in measured]):
        found.append(note)
    found += dict.fromkeys(
        f"the busiest other programs were {', '.join(names)}"
        for m in measured
        if any(w.code == "busy" for w in m.warnings)
        and isinstance(names := m.device_info.get("busiest"), list)
        and names
    )
    found += dict.fromkeys(w.text for m in measured for w in m.warnings if w.code == "cannot-tell")
    return found


def against(m: Measurement, first: Measurement) -> str:
    """Return the ratio of two files' latencies with its interval, or that it cannot be told from 1."""
    try:
        c = compare(m, first)
    except (InputError, ValueError):  # no round in common: a device that gives no rounds
        return MISSING
    if c.low <= 0:
        return f"{number(c.ratio, 2)}×, too few rounds"
    return f"{number(c.ratio, 3)}× ({_interval(c.low, c.high)})" + ", cannot tell" * (c.verdict == "cannot tell")


def _interval(low: float, high: float) -> str:
    return f"{number(low, 3)} to {number(high, 3)}"


def _half_width(m: Measurement) -> str:
    if len(set(m.rounds)) < 2 or not m.samples_ns:
        return MISSING
    low, high = median_interval_by_round(m.samples_ns, m.rounds)
    return percent((high - low) / 2 / (m.median_ms * 1e6))


def _several(measured: Sequence[Measurement]) -> bool:
    return len({m.device for m in measured}) > 1
