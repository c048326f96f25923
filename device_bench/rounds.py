"""Files against each other in interleaved rounds, each in a worker: what every device with a runner shares.

A device says how a worker is started there and how the place is watched meanwhile; all else is the same everywhere.
"""

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edgenet.device_bench import comparison, timing
from edgenet.device_bench.device import Progress, Request
from edgenet.device_bench.machine import machine_warnings
from edgenet.device_bench.steadiness import dependence, effective_runs
from edgenet.device_bench.worker import Burst, Memory, Worker, WorkerInfo
from edgenet.errors import DeviceError, EdgenetError, InputError
from edgenet.files import sha256_of
from edgenet.results import Failure, Measurement, Warning

# Called when all files are loaded, with what returns the workers that run now; what it returns is called when all are
# timed, and tells about the device then.
Watch = Callable[[Callable[[], list[Worker]]], Callable[[], dict[str, Any]]]

_AGAIN = "\0again"  # the first file, measured as if it were another one
_CHEAP_START_S = 1.0
_REMEDY: dict[type[EdgenetError], str] = {
    InputError: "export the file again, or give a file that the runtime loads",
    DeviceError: "run `edgenet bench` on this file alone; `edgenet doctor` tells which runtimes are installed",
}


@dataclass(frozen=True)
class Place:
    """Where files are timed, and how that place is watched meanwhile.

    `open_worker` takes (id, path) and returns a worker that has loaded the file; an EdgenetError is the file's failure.
    `fresh`: start workers anew between rounds where that is cheap: where memory lies differs from process to process.
    `virtual`: it is a virtual machine, whose cores others may use unseen: what they disturb is set aside (`pace.py`).
    """

    device: str  # its id, for the measurements
    open_worker: Callable[[str, Path], Worker]
    watch: Watch
    remedy: Mapping[type[EdgenetError], str] = field(default_factory=lambda: _REMEDY)  # by the kind of error
    fresh: bool = True
    virtual: bool = False
    probe: Callable[[], dict[str, Any]] = dict  # the state (`mhz`, `temperature_c`), read before every turn
    cool: Callable[[], None] = lambda: None  # waits before a turn until the device is cool enough


def bench_workers(
    artifacts: Sequence[tuple[str, Path]], request: Request, place: Place, progress: Progress | None = None
) -> tuple[list[Measurement], list[Failure]]:
    """Time files on one device, against each other.

    A file that takes several pictures at once is timed on as many, and its samples are the time of one of them.
    Each is loaded in a worker of its own and warmed up until its rate settles; then all take turns, in rounds
    shuffled by the plan's seed, one worker running at a time. The first is measured twice, as if it were two files: how
    far it is from itself is the noise floor. A file that fails becomes a Failure, the others go on.

    Args:
        artifacts: (id, path) pairs; ids are unique.
        progress: called with (turns done, turns at most, id).

    Returns:
        measurements in the order given, and failures.

    Raises:
        InputError: two ids are the same, or no file is one that can be loaded. A wrong one among others is a Failure.
    """
    ids = [id for id, _ in artifacts]
    check_unique(ids)
    plan = request.plan if place.virtual else replace(request.plan, every_run=True)
    taken = _take(artifacts, replace(request, plan=plan), place, progress)
    same = _self_comparison(taken.traces.get(taken.first or ""), taken.again)
    found = {id: f for id, f in taken.found().items() if f.trace.samples_ns}
    shared = [*machine_warnings(taken.info, request.threads, request.cores), *_noise_floor(same)]
    unclear = {} if plan.sustained_s else comparison.indistinct({id: f.trace for id, f in found.items()})
    about = {**taken.info, "pinned_to": list(request.cores)}
    measurements = []
    for id, path in artifacts:
        if id in found:
            m = _measurement(id, path, found[id], request.threads, plan)
            warnings = (*_of_file(found[id], plan), *_unclear(unclear.get(id, [])), *shared)
            interval = (same.low, same.high) if same and math.isfinite(same.high) else None
            ratio = same.ratio if same else None
            m = replace(m, device=place.device, device_info=about, self_ratio=ratio, self_ratio_ci98=interval)
            measurements.append(replace(m, warnings=warnings))
    wrong = [e for e in taken.failures.values() if isinstance(e, InputError)]
    if len(wrong) == len(ids) > 0 and request.delegate in (None, "cpu"):  # else the processor may be what is missing
        raise wrong[0]
    failures = [failure(id, place.device, taken.failures[id], place.remedy) for id in ids if id in taken.failures]
    return measurements, failures


@dataclass(frozen=True)
class _Found:
    """What was taken of a file. `trace` is of one picture, however many the file takes at once."""

    trace: timing.Trace
    worker: WorkerInfo
    memory: Memory
    loads_ns: tuple[int, ...]  # of each process


@dataclass
class _Taken:
    """What was taken of all files, with what the place tells. `again` is the first file as if it were another one."""

    timed: "dict[str, _Timed]" = field(default_factory=dict)
    traces: dict[str, timing.Trace] = field(default_factory=dict)
    memories: dict[str, Memory] = field(default_factory=dict)
    failures: dict[str, EdgenetError] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)
    first: str | None = None
    again: timing.Trace | None = None

    def found(self) -> dict[str, _Found]:
        """Return what was taken of the files that did not fail."""
        return {
            id: _Found(
                trace.of_one(_batch(self.timed[id].worker.info)),
                self.timed[id].worker.info,
                self.memories[id],
                tuple(self.timed[id].loads_ns),
            )
            for id, trace in self.traces.items()
            if id not in self.failures
        }


def _take(artifacts: Sequence[tuple[str, Path]], request: Request, place: Place, progress: Progress | None) -> _Taken:
    """Load all files, time them in rounds, and end their workers."""
    plan, taken = request.plan, _Taken()
    picture = example_picture() if request.pixels is None else request.pixels
    done, total = 0, (len(artifacts) + plan.self_check) * (2 + plan.most_turns)

    def step(id: str) -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(min(done, total), total, artifacts[0][0] if id == _AGAIN else id)

    with ExitStack() as stack:
        _load(artifacts, place, picture, plan, taken, stack, step)
        hooks = timing.Hooks(
            renew=lambda id: place.fresh and taken.timed[id].renew(),
            probe=lambda _: place.probe(),
            cool=lambda _: place.cool(),
        )
        tell = place.watch(lambda: [t.worker for t in taken.timed.values()])
        taken.traces = timing.measure(taken.timed, plan, time.perf_counter_ns, step, hooks)
        taken.info = tell()
        taken.again = taken.traces.pop(_AGAIN, None)
        taken.failures.update({id: t.error for id, t in taken.traces.items() if t.error is not None})
        for id in [id for id in taken.traces if id not in taken.failures]:
            try:
                taken.memories[id] = taken.timed[id].worker.memory()
            except EdgenetError as e:
                taken.failures[id] = e
    if progress is not None:
        progress(total, total, "")
    return taken


def _load(
    artifacts: Sequence[tuple[str, Path]],
    place: Place,
    picture: np.ndarray,
    plan: timing.Plan,
    taken: _Taken,
    stack: ExitStack,
    step: Callable[[str], None],
) -> None:
    """Start a worker for each file, and a second one for the first, until `stack` ends."""
    for id, path in artifacts:
        try:
            taken.timed[id] = stack.enter_context(_Timed(partial(place.open_worker, id, path), picture))
        except EdgenetError as e:
            taken.failures[id] = e
        step(id)
    taken.first = next(iter(taken.timed), None)
    if taken.first is not None and plan.self_check and not plan.sustained_s:
        with suppress(EdgenetError):  # nothing that was asked for; the first file says itself what is wrong
            taken.timed[_AGAIN] = stack.enter_context(_Timed(taken.timed[taken.first].open, picture))


def _measurement(id: str, path: Path, found: _Found, threads: int, plan: timing.Plan) -> Measurement:
    """Return what was measured of a file, without what the device says of itself and of all files."""
    trace, info = found.trace, found.worker
    return Measurement(
        artifact=id,
        device="",
        runtime=info.runtime,
        threads=threads,
        samples_ns=tuple(trace.samples_ns),
        rounds=tuple(trace.rounds),
        pace_ns=tuple(trace.pace_ns),
        disturbed_ns=tuple(trace.disturbed_ns),
        disturbed_rounds=tuple(trace.disturbed_rounds),
        disturbed_pace_ns=tuple(trace.disturbed_pace_ns),
        round_s=tuple(round(ns / 1e9, 3) for ns in trace.turn_at_ns),
        round_mhz=tuple(s.get("mhz") for s in trace.states),
        round_celsius=tuple(s.get("temperature_c") for s in trace.states),
        processes=len(found.loads_ns),
        effective_runs=round(effective_runs(trace.samples_ns, trace.rounds), 1),
        sustained_s=plan.sustained_s,
        warmup_runs=trace.warmup_runs,
        load_ns=round(statistics.median(found.loads_ns)),
        peak_rss_bytes=found.memory.peak_rss_bytes,
        baseline_rss_bytes=found.memory.baseline_rss_bytes,
        artifact_sha256=sha256_of(Path(path)),
        runtime_version=info.version,
        delegate=info.delegate,
    )


def _of_file(found: _Found, plan: timing.Plan) -> list[Warning]:
    """Return what speaks against one file's times, whatever the others took."""
    trace = found.trace
    return [
        *_batch_note(found.worker),
        *timing.warnings_of(trace, plan),
        *dependence(trace.samples_ns, trace.rounds),
    ]


class _Timed:
    """A file under the clock: its process, which is started anew where that is cheap."""

    def __init__(self, open: Callable[[], Worker], picture: np.ndarray) -> None:
        self.open, self._picture = open, picture
        self.loads_ns: list[int] = []
        self._start()

    def _start(self) -> None:
        before = time.perf_counter()
        self.worker = self.open()
        try:
            self.worker.set_input(network_input(self._picture, self.worker.info))
        except BaseException:
            self.worker.close()
            raise
        self._start_s = time.perf_counter() - before
        self.loads_ns.append(self.worker.info.load_ns)

    def renew(self) -> bool:
        """Start the process anew, where that took no longer than `_CHEAP_START_S`; tell whether it was done."""
        if self._start_s > _CHEAP_START_S:
            return False
        self.worker.close()
        self._start()
        return True

    def run(self, runs: int, time_ns: int = 0, **options: Any) -> Burst:
        return self.worker.run(runs, time_ns, **options)

    def __enter__(self) -> "_Timed":
        return self

    def __exit__(self, *error: object) -> None:
        self.worker.close()


def check_unique(ids: Sequence[str]) -> None:
    """Raise InputError where two ids are the same."""
    if len(set(ids)) < len(ids):
        raise InputError(f"two artifacts have the id '{next(i for i in ids if ids.count(i) > 1)}'; ids must differ")


def failure(id: str, device: str, e: EdgenetError, remedy: Mapping[type[EdgenetError], str] = _REMEDY) -> Failure:
    """Return what became of timing `id`."""
    text = next((text for cls, text in remedy.items() if isinstance(e, cls)), "")
    return Failure("bench", id, device, why=str(e), remedy=text)


def busy_between(before: Mapping[str, Any], after: Mapping[str, Any], ours_s: float) -> dict[str, float | None]:
    """Return how many cores others used between two `describe.describe()`s, and how many the hypervisor stole.

    Args:
        ours_s: the CPU seconds that our own processes used in between.
    """
    if before.get("busy_s") is None or after.get("busy_s") is None:
        return {"other_processes_cores": None, "stolen_cores": None}
    seconds = max(after["uptime_s"] - before["uptime_s"], 1e-3)
    others = max(after["busy_s"] - before["busy_s"] - ours_s, 0) / seconds
    stolen = (after["stolen_s"] - before["stolen_s"]) / seconds
    return {"other_processes_cores": round(others, 3), "stolen_cores": round(stolen, 3)}


def _self_comparison(first: timing.Trace | None, again: timing.Trace | None) -> comparison.Comparison | None:
    if first is None or again is None or again.error is not None or first.error is not None:
        return None
    try:
        return comparison.compare(first, again)
    except InputError:
        return None


def _noise_floor(same: comparison.Comparison | None) -> list[Warning]:
    if same is None or same.verdict == "cannot tell":
        return []
    apart = abs(same.ratio - 1)
    text = f"the first file differs from itself by {apart:.1%}: so much means nothing on this machine now"
    return [Warning("noise-floor", text, apart)]


def example_picture(size_px: int = 320, seed: int = 0) -> np.ndarray:
    """Return a made picture, (size_px, size_px, 3) uint8, with a spectrum like a photograph's, 1 / frequency^1.2."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(size_px)[:, None], np.fft.rfftfreq(size_px)[None]) + 1 / size_px
    planes = []
    for _ in range(3):
        phases = np.exp(2j * np.pi * rng.random(frequency.shape))
        plane = np.fft.irfft2(phases / frequency**1.2, s=(size_px, size_px))
        planes.append((plane - plane.mean()) / plane.std())
    picture = np.stack(planes, axis=-1)
    pixels: np.ndarray = np.clip(np.rint(127 + 50 * picture), 0, 255).astype(np.uint8)
    return pixels


_MOST_NUMBERS = 1 << 28  # of an input: 1 GiB of float32


def network_input(picture: np.ndarray, info: WorkerInfo) -> np.ndarray:
    """Return `picture` at the size, batch and type that the file takes: (N, H, W, C). Raises InputError."""
    height, width = info.size_px
    channels = info.input_shape[3 if info.layout == "NHWC" else 1]
    if min(height, width, channels) < 1:
        raise InputError(f"its input {info.input_shape} has no fixed size; export it with a static shape to time it")
    if height * width * channels * _batch(info) > _MOST_NUMBERS:
        raise InputError(
            f"its input {info.input_shape} is larger than any picture; export it with the size that it has"
        )
    rows = np.arange(height) * picture.shape[0] // height
    columns = np.arange(width) * picture.shape[1] // width
    resized = picture[rows[:, None], columns][..., np.arange(channels) % picture.shape[-1]]
    x: np.ndarray = np.repeat(resized[None], _batch(info), axis=0)
    if info.io_dtype not in ("uint8", "int8"):
        x = (x.astype(np.float32) - 127) / 128  # any sensible scale: time does not depend on it
    return x


def _batch(info: WorkerInfo) -> int:
    return max(info.input_shape[0], 1)


def _batch_note(info: WorkerInfo) -> list[Warning]:
    n = _batch(info)
    text = f"it takes {n} pictures at once: times are of one of them, a call takes {n} times as long"
    return [Warning("batch", text, n)] if n > 1 else []


def _unclear(neighbours: list[tuple[str, comparison.Comparison]]) -> list[Warning]:
    said = []
    for other, c in neighbours:
        interval = f" (ratio {c.ratio:.3f}, {c.low:.3f} to {c.high:.3f})" if c.low > 0 else f" in {c.n_rounds} rounds"
        text = f"cannot tell it from {other}{interval}: equally fast, or more rounds or a quieter machine needed"
        said.append(Warning("cannot-tell", text, c.ratio))
    return said
