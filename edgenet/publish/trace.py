"""The rounds of a measurement, and operators where they were timed, as a trace: for Perfetto and speedscope.

The format is Chrome's Trace Event Format, in JSON; times are microseconds. A device is a process there and a file a
thread, so that rounds that took turns stand below each other.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from edgenet.results import Explanation, Measurement, Results

Event = dict[str, Any]
_ROUNDS = (
    "a round begins when it did; the runs in it follow each other from there without the pauses between them, "
    "which are not recorded"
)
_OPERATORS = "operators follow each other in the order of the file; each lasts the median of its runs"


def trace(results: Results) -> dict[str, Any]:
    """Return the trace: a process for each device, runtime and number of threads, and one for each file's operators."""
    events: list[Event] = []
    measured = sorted((m for m in results.measurements if m.every_run_ns), key=_condition)
    process = 0
    for condition, group in groupby(measured, key=_condition):
        process += 1
        device, runtime, threads = condition
        events.append(_named("process_name", process, 0, f"{device}, {runtime}, {_threads(threads)}"))
        for thread, m in enumerate(group, 1):
            events.append(_named("thread_name", process, thread, m.artifact))
            events += _rounds(m, process, thread)
    for e in results.explanations:
        process += 1
        name = f"operators of {e.artifact} on {e.device}, {e.runtime}, {_threads(e.threads)}"
        events += [_named("process_name", process, 0, name), _named("thread_name", process, 1, e.how)]
        events += _operators(e, process)
    about = {
        "made_by": f"edgenet {results.context.edgenet_version}".strip(),
        "rounds": _ROUNDS,
        "operators": _OPERATORS,
    }
    return {"traceEvents": events, "displayTimeUnit": "ms", "otherData": about}


def _condition(m: Measurement) -> tuple[str, str, int]:
    return m.device, m.runtime, m.threads


def _threads(n: int) -> str:
    return f"{n} thread{'s' * (n != 1)}"


def _named(kind: str, process: int, thread: int, name: str) -> Event:
    return {"name": kind, "ph": "M", "pid": process, "tid": thread, "args": {"name": name}}


def _slice(name: str, category: str, at: float, us: float, process: int, thread: int, **args: Any) -> Event:
    return {"name": name, "cat": category, "ph": "X", "ts": round(at, 3), "dur": round(us, 3), "pid": process,
            "tid": thread, "args": args}  # fmt: skip


def _rounds(m: Measurement, process: int, thread: int) -> Iterator[Event]:
    """Yield a slice a round, the runs inside it, and clock and temperature as they were when it began."""
    now = 0.0
    counters = (("clock", "MHz", m.round_mhz), ("temperature", "°C", m.round_celsius))
    for i, (number, runs) in enumerate(_runs(m)):
        begun = max(now, m.round_s[i] * 1e6) if i < len(m.round_s) else now
        yield _slice(f"round {number}", "round", begun, sum(us for us, _ in runs), process, thread, runs=len(runs))
        now = begun
        for us, set_aside in runs:
            name = "run beside other work, not counted" if set_aside else "run"
            yield _slice(name, "run", now, us, process, thread)
            now += us
        for name, unit, values in counters:
            if i < len(values) and values[i] is not None:
                yield {"name": f"{name} ({unit}) of {m.artifact}", "ph": "C", "ts": round(begun, 3), "pid": process,
                       "tid": thread, "args": {unit: values[i]}}  # fmt: skip


def _runs(m: Measurement) -> list[tuple[int, Sequence[tuple[float, bool]]]]:
    """Return (round, its runs in microseconds and whether each was set aside), in the order of the rounds.

    In which order those that count and the others came within a round is not recorded: the others stand last.
    """
    found: dict[int, list[tuple[float, bool]]] = {}
    aside = [False] * len(m.samples_ns) + [True] * len(m.disturbed_ns)
    numbers = m.every_round or (0,) * len(m.every_run_ns)
    for number, ns, is_aside in zip(numbers, m.every_run_ns, aside, strict=True):
        found.setdefault(number, []).append((ns / 1e3, is_aside))
    return sorted(found.items())


def _operators(e: Explanation, process: int) -> Iterator[Event]:
    now = 0.0
    for layer in e.layers:
        about = {"arithmetic": layer.arithmetic, "kernel": layer.kernel, "multiply_adds": layer.multiply_adds,
                 "moved_bytes": layer.moved_bytes}  # fmt: skip
        yield _slice(f"{layer.kind} {layer.name}", layer.kind, now, layer.time_us, process, 1, **about)
        now += layer.time_us
