"""Files timed against each other on one phone, by TFLite's benchmark_model in interleaved rounds.

benchmark_model prints statistics of many runs and never a single one. So it is called again in each round, and a sample
is what one call says: the median of its runs where the version prints it, else their mean. The first call of a file is
not timed: it tells what the delegate takes, each operator's time, and the memory.
"""

import contextlib
import math
import re
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgenet.device_bench import comparison, timing
from edgenet.device_bench.adb import benchmark_tool, phone
from edgenet.device_bench.adb.benchmark_binary import Binary, find_binary
from edgenet.device_bench.adb.benchmark_tool import Delegation, Log, last_words
from edgenet.device_bench.adb.link import TIMEOUT_S, Link, one_line
from edgenet.device_bench.adb.npu import Npu, open_npu
from edgenet.device_bench.device import Progress, Request
from edgenet.device_bench.worker import describe_exit
from edgenet.errors import DeviceError, EdgenetError, InputError
from edgenet.files import sha256_of
from edgenet.results import Failure, Measurement, Warning

_LOAD_S = 60.0  # for a call of benchmark_model beside the runs: starting, loading, compiling for a GPU
_WARMUP_S = 0.5  # of each call, which is a process of its own; the tool's own default
# What adb or the phone says, as a pattern, and what to do about it. The first that fits.
_REMEDIES = (
    ("unauthorized", "unlock the phone and allow USB debugging for this computer"),
    ("offline", "plug the phone in again, or run `adb reconnect offline`"),
    ("more than one", "unplug all but one of the phones that answer to this name, or give the whole serial"),
    (
        "^device .*not found|no devices",
        "plug the phone in and switch on USB debugging; `edgenet devices` lists what is there",
    ),
    (
        "connection|^closed|^protocol fault",
        "plug the phone in again, with another cable if that happens often, and run the same command",
    ),
    ("No space left", "free space in the phone's /data"),
    ("the phone runs", "docs/devices.md says where to get a benchmark_model for it"),
)
_OTHER_REMEDY = "run `edgenet bench` on this file alone; docs/devices.md lists what can go wrong with phones"


@dataclass(frozen=True)
class Setup:
    """What all calls on a phone have in common."""

    info: dict[str, Any]
    binary: Binary
    command: tuple[str, ...]  # taskset, if any, and benchmark_model
    cores: tuple[int, ...]
    npu: Npu | None = None

    @property
    def libraries(self) -> str:
        """The folder on the phone with what its NPU needs, "" where it is not used."""
        return self.npu.folder if self.npu is not None else ""


@dataclass
class File:
    """A file under test: what was learnt in its first call, and its calls after that."""

    sha256: str
    remote: str
    batch: int
    log: Log
    delegation: Delegation
    logs: list[Log] = field(default_factory=list)
    rounds: list[int] = field(default_factory=list)
    spent_ns: int = 0


def bench(
    link: Link, device: str, artifacts: Sequence[tuple[str, Path]], request: Request, progress: Progress | None = None
) -> tuple[list[Measurement], list[Failure]]:
    """Time .tflite files; see `Device.bench`. A phone that fails is a Failure for each file."""
    ids = [id for id, _ in artifacts]
    delegate = check_request(ids, request)
    try:
        setup = _set_up(link, request)
        npu = open_npu(link, setup.info) if delegate == "npu" else None
        before = state(link)
    except DeviceError as e:
        return [], [_failure(device, id, e) for id in ids]
    if npu is None:
        return _bench(link, device, artifacts, request, setup, delegate, before, progress)
    with npu:
        setup = replace(setup, command=(*npu.environment, *setup.command), npu=npu)
        return _bench(link, device, artifacts, request, setup, delegate, before, progress)


def _bench(
    link: Link,
    device: str,
    artifacts: Sequence[tuple[str, Path]],
    request: Request,
    setup: Setup,
    delegate: str,
    before: Mapping[str, Any],
    progress: Progress | None,
) -> tuple[list[Measurement], list[Failure]]:
    ids = [id for id, _ in artifacts]
    plan = request.plan
    done, total = 0, len(ids) * (1 + plan.max_rounds)

    def step(id: str) -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total, id)

    errors: dict[str, EdgenetError] = {}
    files: dict[str, File] = {}
    for id, path in artifacts:
        try:
            files[id] = _first_call(link, Path(path), setup, request, delegate)
        except EdgenetError as e:
            errors[id] = e
        step(id)
    _rounds(link, files, setup, request, delegate, errors, step)
    after = None
    with contextlib.suppress(DeviceError):  # it was there until the last file: the samples are whole
        after = state(link)
    if progress is not None:
        progress(total, total, "")
    timed = {id: f for id, f in files.items() if id not in errors}
    measurements = _measurements(device, timed, setup, request, before, after)
    return measurements, [_failure(device, id, errors[id]) for id in ids if id in errors]


def check_request(ids: Sequence[str], request: Request) -> str:
    """Return the delegate that is asked for. Raises InputError for a request that no phone can do."""
    if len(set(ids)) < len(ids):
        raise InputError(f"two artifacts have the id '{next(i for i in ids if ids.count(i) > 1)}'; ids must differ")
    if request.runtime not in (None, "litert"):
        raise InputError(f"phones run .tflite files with litert, not {request.runtime} (valid: litert)")
    delegate = request.delegate or "cpu"
    if delegate not in benchmark_tool.DELEGATES:
        raise InputError(f"benchmark_model has no delegate '{delegate}' (valid: {', '.join(benchmark_tool.DELEGATES)})")
    if request.threads < 1:
        raise InputError(f"threads must be at least 1, was {request.threads}")
    return delegate


def about(link: Link, timeout_s: float = TIMEOUT_S) -> dict[str, Any]:
    """Return what the phone is. Raises DeviceError."""
    _, text = link.shell(phone.script(phone.ABOUT), timeout_s)
    return phone.about(phone.split(text))


def state(link: Link) -> dict[str, Any]:
    """Return how the phone is just now. Raises DeviceError."""
    _, text = link.shell(phone.script(phone.STATE), timeout_s=2 * TIMEOUT_S)
    return phone.state(phone.split(text))


def push_tool(link: Link, abis: Sequence[str]) -> tuple[Binary, str]:
    """Put the benchmark_model for a phone of these ABIs there, once; return it and its path there."""
    binary = find_binary(abis)
    remote = link.push(binary.path, binary.sha256)
    status, text = link.shell(f"chmod 755 {shlex.quote(remote)}")
    if status:
        raise DeviceError(f"cannot make benchmark_model executable on the phone: {one_line(text)}")
    return binary, remote


def tflite(path: Path) -> Path:
    """Return `path`. Raises InputError for what is not named as a .tflite file."""
    if path.suffix.lower() != ".tflite":
        raise InputError(f"{path.name} is not a .tflite file, which is what phones run: export it as one")
    return path


def _set_up(link: Link, request: Request) -> Setup:
    info = about(link)
    binary, remote = push_tool(link, info["abis"])
    online = info["cores_online"]
    wrong = [c for c in request.cores if online and c not in online]
    if wrong:
        raise InputError(f"the phone has no core {wrong[0]} (valid: {', '.join(map(str, online))})")
    if request.cores and not info["can_pin"]:
        raise InputError("the phone has no taskset, so nothing can be pinned: leave out the cores")
    cores = request.cores or phone.big_cores(
        {int(c): khz for c, khz in info["max_khz_by_core"].items() if int(c) in online}, request.threads
    )
    if not info["can_pin"] or not cores:
        return Setup(info, binary, (remote,), ())
    pin = ("taskset", phone.mask(cores))
    _, text = link.shell(shlex.join([*pin, "cat", "/proc/self/status"]))
    allowed = re.search(r"Cpus_allowed:\s*([0-9a-f,]+)", text)
    if not allowed or int(allowed[1].replace(",", ""), 16) != int(pin[1], 16):
        if request.cores:
            raise DeviceError(f"the phone did not pin to cores {', '.join(map(str, cores))}: {one_line(text)[-80:]}")
        return Setup(info, binary, (remote,), ())
    return Setup(info, binary, (*pin, remote), cores)


def _first_call(link: Link, path: Path, setup: Setup, request: Request, delegate: str) -> File:
    """Push a file and call benchmark_model once, untimed: profile, memory, and what the delegate takes."""
    from edgenet.export.inspect import inspect

    loaded = setup.npu.compiled(path) if setup.npu is not None else tflite(path)
    facts, digest = inspect(loaded), sha256_of(tflite(path))
    remote = link.push(loaded, sha256_of(loaded))
    warmup_s = request.plan.warmup_s
    log = _call(
        link,
        setup,
        benchmark_tool.arguments(
            remote,
            request.threads,
            delegate,
            runs=10,
            min_s=0,
            max_s=10,
            warmup_s=warmup_s,
            profile=True,
            libraries=setup.libraries,
        ),
        timeout_s=_LOAD_S + 10 + 2 * warmup_s,
    )
    found = benchmark_tool.delegation(log, delegate, facts.n_operators)
    batch = max(facts.inputs[0].shape[0], 1) if facts.inputs and facts.inputs[0].shape else 1
    return File(digest, remote, batch, log, found)


def _call(link: Link, setup: Setup, arguments: Sequence[str], timeout_s: float) -> Log:
    status, text = link.shell(shlex.join([*setup.command, *arguments]), timeout_s)
    if status:
        said = last_words(text)
        raise DeviceError(f"benchmark_model {describe_exit(status)}" + (f"; it said: {said}" if said else ""))
    return benchmark_tool.parse(text)


def _rounds(
    link: Link,
    files: Mapping[str, File],
    setup: Setup,
    request: Request,
    delegate: str,
    errors: dict[str, EdgenetError],
    step: Callable[[str], None],
) -> None:
    plan = request.plan
    runs, min_s = math.ceil(plan.min_runs / plan.rounds), plan.min_time_s / plan.rounds
    for r, order in enumerate(timing.interleave(list(files), plan.max_rounds, plan.seed)):
        alive = [n for n in order if n not in errors and files[n].spent_ns < plan.max_time_s * 1e9]
        if not alive or (r >= plan.rounds and all(_is_enough(files[n], plan) for n in alive)):
            break
        for name in alive:
            file = files[name]
            left_s = plan.max_time_s - file.spent_ns / 1e9
            arguments = benchmark_tool.arguments(
                file.remote,
                request.threads,
                delegate,
                runs=runs,
                min_s=min_s,
                max_s=max(round(left_s, 3), 0.001),
                warmup_s=min(_WARMUP_S, plan.warmup_s),
                libraries=setup.libraries,
            )
            start = time.monotonic_ns()
            try:
                log = _call(link, setup, arguments, timeout_s=_LOAD_S + 2 * left_s)
                benchmark_tool.delegation(log, delegate, file.delegation.total)  # it may fall back at any time
            except EdgenetError as e:
                errors[name] = e
            else:
                file.logs.append(log)
                file.rounds.append(r)
            file.spent_ns += time.monotonic_ns() - start
            step(name)


def _samples_ns(file: File) -> tuple[list[int], str]:
    """Return a sample for each call, and what it is: the median where the version prints it, else the mean."""
    medians = [log.runs.median_us for log in file.logs]
    if all(m is not None for m in medians):
        return [round(m * 1000 / file.batch) for m in medians if m is not None], "median"
    return [round(log.runs.avg_us * 1000 / file.batch) for log in file.logs], "mean"


def _is_enough(file: File, plan: timing.Plan) -> bool:
    n = sum(log.runs.count for log in file.logs)
    if n < plan.min_runs or sum(log.runs.count * log.runs.avg_us for log in file.logs) < plan.min_time_s * 1e6:
        return False
    samples, _ = _samples_ns(file)
    low, high = timing.median_interval_by_round(samples, file.rounds)
    return (high - low) / 2 <= plan.target_ci * timing.quantile(samples, 0.5)


def _measurements(
    device: str,
    files: Mapping[str, File],
    setup: Setup,
    request: Request,
    before: Mapping[str, Any],
    after: Mapping[str, Any] | None,
) -> list[Measurement]:
    traces = {}
    for id, file in files.items():
        warmup = sum(log.warmup.count for log in file.logs if log.warmup)
        traces[id] = timing.Trace(_samples_ns(file)[0], list(file.rounds), warmup_runs=warmup, settled=True)
    unclear = comparison.indistinct(traces)
    shared = phone.warnings(setup.info, before, after or before)
    if after is None:
        text = "the phone was lost before its temperature and battery could be read again"
        shared.append(Warning("device-lost", text))
    if not setup.cores:
        why = "it has no taskset" if not setup.info["can_pin"] else "the phone does not tell its clocks or let it"
        text = f"not pinned to the fast cores ({why}): Android may have moved it to slow ones"
        shared.append(Warning("not-pinned", text))
    if setup.binary.abi != setup.info["abis"][0]:
        text = f"a benchmark_model for {setup.binary.abi} ran on a phone whose first ABI is {setup.info['abis'][0]}"
        shared.append(Warning("other-abi", text))
    measurements = []
    for id, file in files.items():
        trace = traces[id]
        n, what = sum(log.runs.count for log in file.logs), _samples_ns(file)[1]
        said = _of_file(file, trace, what, n, request.plan, unclear[id])
        about = {
            **setup.info,
            "before": dict(before),
            "after": after and dict(after),
            "pinned_cores": list(setup.cores),
            "samples": f"{what} of one call of benchmark_model each",
            "input": "random numbers, made by benchmark_model",
            "benchmark_model": {
                "sha256": setup.binary.sha256,
                "abi": setup.binary.abi,
                "version": file.log.version,
                "unknown_flags": list(file.log.unknown_flags),
            },
            "delegation": file.delegation.to_json(),
            "profile": [asdict(o) for o in file.log.operators],
            "calls": [{"round": r, **asdict(log.runs)} for r, log in zip(file.rounds, file.logs, strict=True)],
        }
        peak_mb, footprint_mb = file.log.peak_mb, file.log.footprint_mb
        peak_mb = footprint_mb if peak_mb is None else peak_mb
        measurements.append(
            Measurement(
                artifact=id,
                device=device,
                runtime="litert",
                threads=request.threads,
                samples_ns=tuple(trace.samples_ns),
                rounds=tuple(trace.rounds),
                warmup_runs=trace.warmup_runs,
                load_ns=round(float(np.median([log.init_us for log in file.logs])) * 1000),
                peak_rss_bytes=round((peak_mb or 0) * 2**20),
                baseline_rss_bytes=round(max((peak_mb or 0) - (footprint_mb or 0), 0) * 2**20),
                artifact_sha256=file.sha256,
                runtime_version=file.log.version or f"benchmark_model {setup.binary.sha256[:12]}",
                delegate=file.delegation.delegate if file.delegation.nodes != 0 else "",
                device_info=about,
                warnings=(*said, *shared),
            )
        )
    return measurements


def _of_file(
    file: File,
    trace: timing.Trace,
    what: str,
    n: int,
    plan: timing.Plan,
    unclear: Sequence[tuple[str, comparison.Comparison]],
) -> list[Warning]:
    """Return what a reader of one file's times has to know. `what` a sample is: mean or median; `n` runs were made."""
    runs = n / len(file.logs)
    text = (
        f"each of the {len(file.logs)} samples is the {what} of about {round(runs)} runs in one call "
        "of benchmark_model, which prints no single runs: percentiles are of calls"
    )
    said = [Warning("samples-are-calls", text, runs)]
    said += [Warning("delegation", note) for note in file.delegation.notes]
    if file.batch > 1:
        text = f"it takes {file.batch} pictures at once: times are of one of them"
        said.append(Warning("batch", text, file.batch))
    if n < plan.min_runs:
        text = f"only {n} of {plan.min_runs} runs fitted into {plan.max_time_s:g} s"
        said.append(Warning("few-runs", text, n))
    said += timing.warnings_of(trace, replace(plan, min_runs=1))
    for other, c in unclear:
        text = f"cannot tell it from {other}: equally fast, or more rounds or a cooler phone needed"
        said.append(Warning("cannot-tell", text, c.ratio))
    return said


def remedy_of(said: str) -> str:
    """Return what to do about what adb or a phone said, "" where that is not known."""
    return next((what for pattern, what in _REMEDIES if re.search(pattern, said)), "")


def _failure(device: str, id: str, e: EdgenetError) -> Failure:
    text = " ".join(str(e).split())  # a file's name may have line breaks
    remedy = remedy_of(text) or _OTHER_REMEDY
    if isinstance(e, InputError):
        remedy = "give a .tflite file that `edgenet inspect` reads"
    return Failure("bench", id, device, why=text, remedy=remedy)
