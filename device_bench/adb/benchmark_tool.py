"""TFLite's `benchmark_model`: how it is called, and what its log proves.

The log is text that differs from version to version (2019 to LiteRT's of today) and may come through logcat. Numbers
are taken only from lines that are whole, and a number that is not one as C++ prints it is an error: a decimal comma or
a line that was cut must not become another number. All of its times are microseconds.

https://github.com/google-ai-edge/LiteRT/tree/main/tflite/tools/benchmark
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from edgenet.errors import DeviceError


class Delegate(NamedTuple):
    """How benchmark_model is asked for a delegate, and how its log names it."""

    name: str  # in "Explicitly applied NAME delegate"
    flags: tuple[str, ...]
    kernel: str  # a pattern of the class in "Replacing N node(s) with delegate (CLASS)"


# With gpu and nnapi, XNNPACK takes what they leave, as in an app. NNAPI's own CPU is no accelerator.
DELEGATES = {
    "cpu": Delegate("XNNPACK", ("--use_xnnpack=true",), r"(?i)xnnpack"),
    "gpu": Delegate("GPU", ("--use_gpu=true",), r"(?i)gpu|_cl\b"),
    "nnapi": Delegate("NNAPI", ("--use_nnapi=true", "--disable_nnapi_cpu=true"), r"(?i)nnapi"),
    "npu": Delegate("NPU", ("--use_npu=true",), r"(?i)dispatch"),  # LiteRT's own benchmark_model, compiled files
}


# --------------------------------------------------------------------------------------------------------- the call


def arguments(
    graph: str,
    threads: int,
    delegate: str,
    *,
    runs: int,
    min_s: float,
    max_s: float,
    warmup_s: float,
    profile: bool = False,
    libraries: str = "",
) -> list[str]:
    """Return benchmark_model's arguments: at least `runs` runs and `min_s` seconds after `warmup_s` seconds.

    `libraries` is the folder on the phone with what its NPU needs.
    """
    out = [f"--graph={graph}", f"--num_threads={threads}", f"--num_runs={runs}", f"--min_secs={min_s:g}"]
    out += [f"--max_secs={max_s:g}", "--warmup_runs=1", f"--warmup_min_secs={warmup_s:g}", *DELEGATES[delegate].flags]
    if libraries:
        out.append(f"--dispatch_library_path={libraries}")
    if profile:
        out += ["--enable_op_profiling=true", "--report_peak_memory_footprint=true"]
    return out


def predict_arguments(graph: str, shape: Sequence[int], source: str, target: str, threads: int = 1) -> list[str]:
    """Return the arguments that compute on the raw bytes in `source` and write those of all outputs to `target`."""
    return [
        f"--graph={graph}",
        f"--num_threads={threads}",
        "--num_runs=1",
        "--min_secs=-1",
        "--warmup_runs=0",
        "--warmup_min_secs=-1",
        "--input_layer=image",  # the name need not be the file's
        f"--input_layer_shape={','.join(map(str, shape))}",
        f"--input_layer_value_files=image:{source}",
        f"--output_filepath={target}",
    ]


# ---------------------------------------------------------------------------------------------------------- the log


class LogError(DeviceError):
    """A log says no whole, consistent numbers. The message is one line."""


@dataclass(frozen=True)
class Stats:
    """What one line of statistics says of a series of runs, in microseconds; None where the version prints none."""

    count: int
    first_us: float
    last_us: float
    min_us: float
    max_us: float
    avg_us: float
    std_us: float | None = None
    p5_us: float | None = None
    median_us: float | None = None
    p95_us: float | None = None


@dataclass(frozen=True)
class Operator:
    """A line of the per-operator profile; `inside` marks what a delegate tells of its own, no node of the file."""

    kind: str
    name: str
    avg_ms: float
    calls: int
    delegated: bool
    inside: bool = False


@dataclass(frozen=True)
class Applied:
    """`verdict` is "completely", "partially" or "not", which is how much of the graph the delegate executes."""

    delegate: str
    verdict: str
    kernels: int | None


@dataclass(frozen=True)
class Replaced:
    """`nodes` of `total` (None where it is not said) were given to the class `delegate`."""

    delegate: str
    nodes: int
    total: int | None
    partitions: int
    graph: str


@dataclass(frozen=True)
class Log:
    """What a whole log says."""

    runs: Stats
    warmup: Stats | None
    init_us: float
    version: str = ""
    footprint_mb: float | None = None  # more than when the tool started
    peak_mb: float | None = None
    applied: tuple[Applied, ...] = ()
    replaced: tuple[Replaced, ...] = ()
    refused: tuple[str, ...] = ()  # operators that a delegate refused, with its reason
    operators: tuple[Operator, ...] = ()
    unknown_flags: tuple[str, ...] = ()  # that this version of the tool does not have
    not_dispatched: tuple[str, ...] = ()  # why the NPU does not run what the log says it was given


_LONGEST_LINE = 4000  # characters: its own have some hundred, and patterns need their square in time
_LOGCAT = re.compile(r"^\d\d-\d\d \d\d:\d\d:\d\d\.\d+ +\d+ +\d+ [VDIWEF] \S+ *: ?")
_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_SERIES = re.compile(r"Running benchmark for at least \S+ iterations")
_SUMMARY = re.compile(r"nference timings in us:(?>.*?\bInit: ([^,\s]+),).*\b(?:Inference(?: \(avg\))?|no stats): (\S+)")
_SUMMARY_LITERT = re.compile(r"Model initialization: +(\S+) ms")
_VERSION = re.compile(r"(?i)Tensorflow Version ?: ?(\S+)")
_FOOTPRINT = re.compile(r"emory footprint[^:=]*\(MB\): init=\S+ overall=(\S+)")
_FOOTPRINT_LITERT = re.compile(r"Overall footprint: +(\S+) MB")
_PEAK = re.compile(r"(?:Overall peak memory footprint \(MB\) via periodic monitoring: |Peak memory: +)(\S+)")
_EXPLICIT = re.compile(
    r"Explicitly applied (\S+) delegate, and the model graph will be (completely|partially) executed by the delegate"
    r"(?: w/ (\d{1,9}) delegate kernels)?"
)
_THOUGH = re.compile(r"Though (\S+) delegate is explicitly applied, the model graph will not be executed")
_REPLACING = re.compile(
    r"Replacing (\d{1,9})(?: out of (\d{1,9}))? node\(s\) with delegate \(([^)]+)\) node, "
    r"yielding (\d{1,9}) partitions(.*)"
)
_NO_KERNELS = re.compile(r"Created 0 (\S+) delegate kernels")
_REFUSED = re.compile(r"Operator (\S+) .*?refused by (\S+) delegate: (.*)")
_UNSUPPORTED = re.compile(r"Following operations are not supported by (\S+) delegate")
_END_OF_UNSUPPORTED = re.compile(r"\d{1,9} operations will run on|No operations will run on")
_NOT_DISPATCHED = re.compile(r"Failed to (?:initialize Dispatch API|create a dispatch delegate kernel): *(.*)")
_UNKNOWN_FLAGS = re.compile(r"Unconsumed cmdline flags: (.*)")
_DELEGATED = re.compile(r"(?i)^tflite\w*delegate|^delegate$|delegate$|^delegate/")


def parse(text: str) -> Log:
    """Return what a log says.

    Raises:
        LogError: it is not a log of benchmark_model, ends before the timed runs do, or has numbers that are none.
    """
    lines = [_LOGCAT.sub("", line[:_LONGEST_LINE].rstrip("\r")) for line in text.split("\n")]
    warmup, runs = _series(lines)
    init_us = _init_us(lines, runs)
    footprints = [*_numbers(_FOOTPRINT, lines), *_numbers(_FOOTPRINT_LITERT, lines)]
    peaks = _numbers(_PEAK, lines)
    applied = [Applied(m[1], m[2], int(m[3]) if m[3] else None) for m in _each(_EXPLICIT, lines)]
    applied += [Applied(m[1], "not", 0) for p in (_THOUGH, _NO_KERNELS) for m in _each(p, lines)]
    unknown = [flag for m in _each(_UNKNOWN_FLAGS, lines) for flag in m[1].split()]
    return Log(
        runs=runs,
        warmup=warmup,
        init_us=init_us,
        version=next((m[1] for m in _each(_VERSION, lines)), ""),
        footprint_mb=footprints[0] if footprints else None,
        peak_mb=peaks[0] if peaks else None,
        applied=tuple(applied),
        replaced=tuple(
            Replaced(m[3], int(m[1]), int(m[2]) if m[2] else None, int(m[4]), m[5].strip(" ."))
            for m in _each(_REPLACING, lines)
        ),
        refused=_refusals(lines),
        operators=tuple(_operators(lines)),
        unknown_flags=tuple(flag.split("=")[0] for flag in unknown if flag.startswith("--")),
        not_dispatched=tuple(m[1].strip() for m in _each(_NOT_DISPATCHED, lines)),
    )


def last_words(text: str, limit: int = 200) -> str:
    """Return the line of a failed log that says most about why, or the last one; "" of an empty log."""
    lines = [_LOGCAT.sub("", line).strip() for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if re.search(r"ERROR|FATAL|CANNOT|Disallowed|Failed|not found|denied", line)]
    telling = [line for line in telling if "Benchmarking failed" not in line] or lines
    return telling[-1][:limit] if telling else ""


def _series(lines: Sequence[str]) -> tuple[Stats | None, Stats]:
    """Return the statistics of the warm-up and of the timed runs: the first such line after each announcement."""
    found: list[Stats | None] = []
    waiting = False
    for line in lines:
        if _SERIES.search(line):
            if waiting:
                raise LogError("a series of runs in benchmark_model's log has no statistics: it was cut in the middle")
            waiting = True
        elif waiting and (at := line.find("count=")) >= 0:
            found.append(_stats(line[at:]))
            waiting = False
    if not found and not waiting:
        said = last_words("\n".join(lines))
        raise LogError(f"this is no log of benchmark_model{f': {said}' if said else ', it is empty'}")
    if waiting or len(found) < 2:
        raise LogError("benchmark_model's log ends before the timed runs do: it crashed, or the connection was lost")
    runs = found[1]
    if runs is None:
        raise LogError("benchmark_model made no timed run: give it more time")
    return found[0], runs


def _stats(text: str) -> Stats | None:
    """Parse "count=50 first=1 curr=2 min=1 max=3 avg=1.5 std=1 p5=1 median=1 p95=3"; None of "count=0"."""
    values: dict[str, float] = {}
    for token in text.replace("(all same)", " ").split():
        key, equals, value = token.partition("=")
        if equals:
            values[key] = _number(value, text)
    count = int(values["count"])
    if count == 0:
        return None
    if "curr" not in values:
        raise LogError(f"a line of benchmark_model's log was cut: '{text[:80]}'")
    same = values["curr"]  # one run, or all the same: nothing else is printed
    least, most = values.get("min", same), values.get("max", same)
    avg = values.get("avg", same)
    if count > 1 and "(all same)" not in text and not {"first", "min", "max", "avg", "std"} <= set(values):
        raise LogError(f"a line of benchmark_model's log was cut: '{text[:80]}'")
    if not least * (1 - 1e-5) <= avg <= most * (1 + 1e-5):  # six digits are printed
        raise LogError(f"a line of benchmark_model's log contradicts itself: '{text[:80]}'")
    return Stats(
        count,
        values.get("first", same),
        same,
        least,
        most,
        avg,
        values.get("std"),
        *(values.get(name, same if count == 1 else None) for name in ("p5", "median", "p95")),
    )


def _init_us(lines: Sequence[str], runs: Stats) -> float:
    """Return the time to load, from the summary that ends every version's log."""
    for m in _each(_SUMMARY, lines):
        if not math.isclose(_number(m[2], m[0]), runs.avg_us, rel_tol=1e-4):
            raise LogError(f"the summary in benchmark_model's log contradicts its statistics: '{m[0][:120]}'")
        return _number(m[1], m[0])
    if found := _numbers(_SUMMARY_LITERT, lines):
        return found[0] * 1000
    raise LogError("benchmark_model's log has no summary at its end: it crashed, or the connection was lost")


def _numbers(pattern: re.Pattern[str], lines: Iterable[str]) -> list[float]:
    return [_number(m[1], m[0]) for m in _each(pattern, lines)]


def _number(text: str, line: str) -> float:
    if not _NUMBER.fullmatch(text) or not math.isfinite(value := float(text)):
        raise LogError(f"'{text}' in benchmark_model's log is not a number as it prints them: '{line[:80]}'")
    return value


def _each(pattern: re.Pattern[str], lines: Iterable[str]) -> list[re.Match[str]]:
    return [m for line in lines if (m := pattern.search(line))]


def _refusals(lines: Sequence[str]) -> tuple[str, ...]:
    found, inside = [f"{m[1]}: {m[3]}" for m in _each(_REFUSED, lines)], False
    for line in lines:
        if _END_OF_UNSUPPORTED.search(line):
            inside = False
        elif inside and line.strip():
            found.append(re.sub(r"^(?:ERROR|INFO|WARNING): ", "", line.strip()))
        inside = inside or bool(_UNSUPPORTED.search(line))
    return tuple(dict.fromkeys(found))


def _operators(lines: Sequence[str]) -> list[Operator]:
    """Return the rows of the "Run Order" tables of the timed runs."""
    rows: list[Operator] = []
    header: list[str] = []
    initialisation = inside = in_table = False
    for line in lines:
        if "Profiling Info for" in line:
            initialisation, inside = "Initialization" in line, False
        elif "Delegate internal" in line:
            inside = True
        if "====" in line:
            in_table, header = "Run Order" in line, []
        elif in_table and not line.strip():
            in_table = False
        elif in_table and not initialisation:
            cells = [c.strip() for c in re.split(r"\s{2,}|\t", line.strip())]
            if not header:
                header = [re.sub(r"[\[\]]", "", c).lower() for c in re.split(r"(?<=\])\s*", line.strip()) if c]
            elif row := _operator(dict(zip(header, cells, strict=False)), inside):
                rows.append(row)
    return rows


def _operator(cells: Mapping[str, str], inside: bool) -> Operator | None:
    """Return a row, None of a line that was cut: times of a profile are shown, never compared."""
    kind, avg, calls = cells.get("node type", ""), cells.get("avg ms", ""), cells.get("times called", "")
    if not kind or not _NUMBER.fullmatch(avg) or not re.fullmatch("[0-9]{1,12}", calls):
        return None
    name = cells.get("name", "")
    delegated = inside or bool(_DELEGATED.search(kind) or _DELEGATED.search(name))
    return Operator(kind, name, float(avg), int(calls), delegated, inside)


# ------------------------------------------------------------------------------------------------------- delegation


@dataclass(frozen=True)
class Delegation:
    """What a delegate took of a file: `nodes` of `total`, None where the log does not prove it; `left` by operator."""

    delegate: str
    nodes: int | None
    total: int | None
    partitions: int | None
    left: Mapping[str, int]
    refused: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "refused": list(self.refused)}

    @property
    def notes(self) -> list[str]:
        """What a reader of the times has to know, in words."""
        of = f" of {self.total}" if self.total else ""
        if self.nodes is None:
            return [f"how many nodes {self.delegate} took is not known: this benchmark_model does not say"]
        if self.nodes == 0:
            return [f"{self.delegate} took none of {self.total or 'the'} nodes: TFLite's own kernels were timed"]
        if self.total is None or self.nodes < self.total:
            kinds = ", ".join(f"{kind} {n}" for kind, n in self.left.items())
            return [f"{self.delegate} took {self.nodes}{of} nodes" + (f"; it left {kinds}" if kinds else "")]
        return []


def delegation(log: Log, delegate: str, n_nodes: int | None) -> Delegation:
    """Return what the delegate took, proved by the log.

    Args:
        delegate: one of DELEGATES.
        n_nodes: operators of the file, None if not known.

    Raises:
        DeviceError: it was asked for and took nothing: what was timed is the CPU. `cpu` cannot fall back.
    """
    what = DELEGATES[delegate]
    missing = [flag for flag in what.flags[:1] if flag.split("=")[0] in log.unknown_flags]
    applied = [a for a in log.applied if a.delegate.upper() == what.name]
    replaced = {r.graph: r for r in log.replaced if re.search(what.kernel, r.delegate)}  # the last for each subgraph
    nodes_of_file = [o for o in log.operators if not o.inside]
    left = Counter(o.kind for o in nodes_of_file if not o.delegated)
    total = sum(r.total for r in replaced.values() if r.total is not None) or n_nodes
    partitions = sum(r.partitions for r in replaced.values()) or None
    nodes: int | None
    if any(a.verdict == "not" for a in applied) or (delegate == "npu" and log.not_dispatched):
        nodes = 0
    elif replaced:
        nodes = sum(r.nodes for r in replaced.values())
    elif any(a.verdict == "completely" for a in applied):
        nodes = total
    elif any(o.delegated for o in nodes_of_file) and total is not None and (applied or delegate == "cpu"):
        nodes = max(total - sum(left.values()), 0)
    else:
        nodes = 0 if missing and delegate == "cpu" else None
    if delegate != "cpu" and (missing or nodes == 0 or (nodes is None and not applied)):
        why = f"; it refused {log.refused[0]}" if log.refused else ""
        if log.not_dispatched:
            why = f"; LiteRT says: {log.not_dispatched[-1]}"
        if missing:
            why = f": this benchmark_model has no {missing[0].split('=')[0]}"
        raise DeviceError(
            f"the {what.name} delegate took no node of this file, it would have run on the CPU{why}; "
            "time it without the delegate, or export what the delegate runs"
        )
    return Delegation(what.name, nodes, total, partitions, dict(left) if nodes != total else {}, log.refused)
