"""`local`: this machine. Each file runs in a child process of its own, one at a time, in interleaved rounds."""

import math
import os
import platform
import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgenet.device_bench import timing
from edgenet.device_bench.device import Progress, Request
from edgenet.device_bench.machine import (
    Busy,
    cpu_model,
    local_info,
    machine_warnings,
    pulse,
    runtimes,
    state,
    temperature_c,
)
from edgenet.device_bench.steadiness import cool_down, dependence, effective_runs
from edgenet.device_bench.worker import Burst, Worker, WorkerInfo
from edgenet.errors import DeviceError, EdgenetError, InputError
from edgenet.results import Failure, Measurement, sha256_of

_AGAIN = "\0again"  # the first file, measured as if it were another one
_CHEAP_START_S = 1.0
_MAY_WARM_C, _COOL_DOWN_S = 10.0, 30.0  # a turn waits, so long at most, until it is no warmer than at the start by this
_REMEDY = {
    InputError: "export the file again, or give a file that the runtime loads",
    DeviceError: "run `edgenet bench` on this file alone; `edgenet doctor` tells which runtimes are installed",
}


def open_device(address: str = "") -> "Local":
    """Return this machine; `address` is empty."""
    return Local()


def find() -> list[dict[str, Any]]:
    """Return this machine, as `devices.list_devices` does."""
    return [{"id": "local", "kind": "local", "name": cpu_model(), "runtimes": runtimes()}]


class Local:
    """This machine. Files that `predict` has loaded stay loaded until the end of the `with` block."""

    id = kind = "local"

    def __init__(self) -> None:
        self._workers: dict[Path, Worker] = {}

    def info(self) -> dict[str, Any]:
        """Return what `machine.local_info` does."""
        return local_info()

    def bench(
        self, artifacts: Sequence[tuple[str, Path]], request: Request, progress: Progress | None = None
    ) -> tuple[list[Measurement], list[Failure]]:
        """Time files against each other, one process running at a time; see `bench` below."""
        return _bench(artifacts, request, progress)

    def predict(self, path: Path, batch: np.ndarray) -> np.ndarray:
        """Return (N, classes) float32 for (N, H, W, 3) of what the file takes. Raises InputError, DeviceError."""
        if path not in self._workers:
            self._workers[path] = Worker(path, threads=os.cpu_count() or 1)
        return self._workers[path].predict(batch)

    def __enter__(self) -> "Local":
        return self

    def __exit__(self, *error: object) -> None:
        while self._workers:
            self._workers.popitem()[1].close()


def bench(
    artifacts: Sequence[tuple[str, Path]],
    *,
    threads: int = 1,
    runtime: str | None = None,
    min_runs: int = 50,
    min_time_s: float = 1.0,
    rounds: int = 10,
    max_rounds: int | None = None,
    max_time_s: float = 60.0,
    seed: int = 0,
    pixels: np.ndarray | None = None,
    self_check: bool = True,
    progress: Progress | None = None,
) -> tuple[list[Measurement], list[Failure]]:
    """Time files on this machine, against each other.

    A file that takes several pictures at once is timed on as many, and its samples are the time of one of them.
    Each is loaded in a child process of its own and warmed up until its rate settles; then all take turns, in rounds
    shuffled by `seed`, one process running at a time. A file that fails becomes a Failure and the others go on.

    Args:
        artifacts: (id, path) pairs; ids are unique.
        threads: threads of one inference.
        runtime: litert, onnxruntime or openvino for all; None takes each format's own.
        min_runs, min_time_s, rounds, max_rounds, max_time_s, seed, self_check: see `timing.Plan`; `max_rounds` None
            is twice `rounds`.
        pixels: (H, W, 3) uint8, the picture to compute on, at any size; None takes a made one. Never zeros: some
            kernels are faster on those.
        progress: called with (turns done, turns at most, id).

    Returns:
        measurements in the order given, and failures.

    Raises:
        InputError: an argument is wrong. A wrong file is a Failure.
    """
    plan = timing.Plan(
        min_runs=min_runs,
        min_time_s=min_time_s,
        rounds=rounds,
        max_rounds=2 * rounds if max_rounds is None else max_rounds,
        max_time_s=max_time_s,
        seed=seed,
        self_check=self_check,
    )
    return _bench(artifacts, Request(threads, runtime, plan=plan, pixels=pixels), progress)


def _bench(
    artifacts: Sequence[tuple[str, Path]], request: Request, progress: Progress | None
) -> tuple[list[Measurement], list[Failure]]:
    ids = [id for id, _ in artifacts]
    if len(set(ids)) < len(ids):
        raise InputError(f"two artifacts have the id '{next(i for i in ids if ids.count(i) > 1)}'; ids must differ")
    _check(request)
    plan = request.plan
    picture = example_picture() if request.pixels is None else request.pixels
    info = local_info()
    failures: dict[str, EdgenetError] = {}
    done, total = 0, (len(artifacts) + plan.self_check) * (2 + plan.most_turns)

    def step(id: str) -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(min(done, total), total, ids[0] if id == _AGAIN else id)

    with ExitStack() as stack:
        timed: dict[str, _Timed] = {}
        for id, path in artifacts:
            try:
                timed[id] = stack.enter_context(_Timed(path, request, picture))
            except EdgenetError as e:
                failures[id] = e
            step(id)
        first = next(iter(timed), None)
        if first is not None and plan.self_check and not plan.sustained_s:
            with suppress(EdgenetError):  # nothing that was asked for; the first file says itself what is wrong
                timed[_AGAIN] = stack.enter_context(_Timed(timed[first].path, request, picture))
        busy = Busy(lambda: [t.worker.pid for t in timed.values()])
        traces = timing.measure(timed, plan, time.perf_counter_ns, step, _hooks(timed, info["temperature_c"]))
        others, steal = busy.since()
        info |= {"other_processes_cores": others, "stolen_cores": steal, "busiest": busy.busiest(), "after": state()}
        again = traces.pop(_AGAIN, None)
        failures.update({id: t.error for id, t in traces.items() if t.error is not None})
        memories = {}
        for id in [id for id in traces if id not in failures]:
            try:
                memories[id] = timed[id].worker.memory()
            except EdgenetError as e:
                failures[id] = e
    if progress is not None:
        progress(total, total, "")
    same = _self_comparison(traces.get(first or ""), again)
    traces = {
        id: replace(t, samples_ns=[n // _batch(timed[id].worker.info) for n in t.samples_ns])
        for id, t in traces.items()
        if id not in failures and t.samples_ns
    }
    shared = [*machine_warnings(info, request.threads, request.cores), *_noise_floor(same)]
    unclear = {} if plan.sustained_s else timing.indistinct(traces)
    measurements = []
    for id, path in artifacts:
        if id in traces:
            trace, worker_info = traces[id], timed[id].worker.info
            warnings = [
                *_batch_note(worker_info),
                *timing.warnings_of(trace, plan),
                *dependence(trace.samples_ns, trace.rounds),
                *_unclear(unclear.get(id, [])),
            ]
            measurements.append(
                Measurement(
                    artifact=id,
                    device="local",
                    runtime=worker_info.runtime,
                    threads=request.threads,
                    samples_ns=tuple(trace.samples_ns),
                    rounds=tuple(trace.rounds),
                    round_s=tuple(round(ns / 1e9, 3) for ns in trace.turn_at_ns),
                    round_mhz=tuple(s["mhz"] for s in trace.states),
                    round_celsius=tuple(s["temperature_c"] for s in trace.states),
                    processes=timed[id].processes,
                    effective_runs=round(effective_runs(trace.samples_ns, trace.rounds), 1),
                    self_ratio=same.ratio if same else None,
                    self_ratio_ci98=(same.low, same.high) if same and math.isfinite(same.high) else None,
                    sustained_s=plan.sustained_s,
                    warmup_runs=trace.warmup_runs,
                    load_ns=round(statistics.median(timed[id].loads_ns)),
                    peak_rss_bytes=memories[id].peak_rss_bytes,
                    baseline_rss_bytes=memories[id].baseline_rss_bytes,
                    artifact_sha256=sha256_of(Path(path)),
                    runtime_version=worker_info.version,
                    delegate=worker_info.delegate,
                    device_info={**info, "pinned_to": list(request.cores)},
                    warnings=(*warnings, *shared),
                )
            )
    return measurements, [_failure(id, failures[id]) for id in ids if id in failures]


class _Timed:
    """A file under the clock: its process, which is started anew where that is cheap."""

    def __init__(self, path: Path, request: Request, picture: np.ndarray) -> None:
        self.path, self._request, self._picture = path, request, picture
        self.loads_ns: list[int] = []
        self._start()

    @property
    def processes(self) -> int:
        return len(self.loads_ns)

    def _start(self) -> None:
        before, r = time.perf_counter(), self._request
        timeout_s = r.plan.max_time_s + 120
        self.worker = Worker(
            self.path, r.threads, r.runtime, delegate=r.delegate, cores=r.cores, timeout_s=timeout_s
        )  # fmt: skip
        try:
            self.worker.set_input(_network_input(self._picture, self.worker.info))
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

    def run(self, runs: int, time_ns: int = 0, *, lead_ns: int = 0, limit_ns: int | None = None) -> Burst:
        return self.worker.run(runs, time_ns, lead_ns=lead_ns, limit_ns=limit_ns)

    def __enter__(self) -> "_Timed":
        return self

    def __exit__(self, *error: object) -> None:
        self.worker.close()


def _check(request: Request) -> None:
    if request.delegate not in (None, "cpu", "gpu", "npu"):
        raise InputError(
            f"local has no delegate '{request.delegate}' (valid: cpu; gpu and npu with --runtime openvino)"
        )
    if request.cores and not hasattr(os, "sched_getaffinity"):
        raise InputError(f"{platform.system()} cannot pin a process to cores: leave --cores out")
    if request.cores and (strange := set(request.cores) - os.sched_getaffinity(0)):
        valid = ",".join(map(str, sorted(os.sched_getaffinity(0))))
        raise InputError(f"there is no core {min(strange)} to run on here (valid: {valid})")


def _hooks(timed: Mapping[str, _Timed], start_c: float | None) -> timing.Hooks:
    def cool(name: str) -> None:
        if start_c is not None:
            cool_down(temperature_c, start_c + _MAY_WARM_C, _COOL_DOWN_S, time.monotonic, time.sleep)

    return timing.Hooks(renew=lambda name: timed[name].renew(), probe=lambda name: pulse(), cool=cool)


def _self_comparison(first: timing.Trace | None, again: timing.Trace | None) -> timing.Comparison | None:
    if first is None or again is None or again.error is not None or first.error is not None:
        return None
    try:
        return timing.compare(first.samples_ns, first.rounds, again.samples_ns, again.rounds)
    except InputError:
        return None


def _noise_floor(same: timing.Comparison | None) -> list[str]:
    if same is None or same.verdict == "cannot tell":
        return []
    return [
        f"the first file differs from itself by {abs(same.ratio - 1):.1%}: so much means nothing on this machine now"
    ]


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


def _network_input(picture: np.ndarray, info: WorkerInfo) -> np.ndarray:
    """Return `picture` at the size, batch and type that the file takes: (N, H, W, C)."""
    height, width = info.size_px
    channels = info.input_shape[3 if info.layout == "NHWC" else 1]
    if min(height, width, channels) < 1:
        raise InputError(f"its input {info.input_shape} has no fixed size; export it with a static shape to time it")
    rows = np.arange(height) * picture.shape[0] // height
    columns = np.arange(width) * picture.shape[1] // width
    resized = picture[rows[:, None], columns][..., np.arange(channels) % 3]
    x: np.ndarray = np.repeat(resized[None], _batch(info), axis=0)
    if info.io_dtype not in ("uint8", "int8"):
        x = (x.astype(np.float32) - 127) / 128  # any sensible scale: time does not depend on it
    return x


def _batch(info: WorkerInfo) -> int:
    return max(info.input_shape[0], 1)


def _batch_note(info: WorkerInfo) -> list[str]:
    n = _batch(info)
    return [f"it takes {n} pictures at once: times are of one of them, a call takes {n} times as long"] if n > 1 else []


def _failure(id: str, e: EdgenetError) -> Failure:
    return Failure("bench", id, str(e), next((text for cls, text in _REMEDY.items() if isinstance(e, cls)), ""))


def _unclear(neighbours: list[tuple[str, timing.Comparison]]) -> list[str]:
    said = []
    for other, c in neighbours:
        interval = f" (ratio {c.ratio:.3f}, {c.low:.3f} to {c.high:.3f})" if c.low > 0 else f" in {c.n_rounds} rounds"
        said.append(f"cannot tell it from {other}{interval}: equally fast, or more rounds or a quieter machine needed")
    return said
