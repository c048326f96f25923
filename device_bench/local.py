"""`local`: this machine. Each file runs in a child process of its own, one at a time, in interleaved rounds."""

import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgenet.device_bench import timing
from edgenet.device_bench.device import Progress, Request
from edgenet.device_bench.machine import Busy, cpu_model, load_average, local_info, machine_warnings, runtimes
from edgenet.device_bench.worker import Worker, WorkerInfo
from edgenet.errors import DeviceError, EdgenetError, InputError
from edgenet.results import Failure, Measurement, sha256_of

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
        min_runs, min_time_s, rounds, max_rounds, max_time_s, seed: see `timing.Plan`; `max_rounds` None is twice
            `rounds`.
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
    )
    return _bench(artifacts, Request(threads, runtime, plan=plan, pixels=pixels), progress)


def _bench(
    artifacts: Sequence[tuple[str, Path]], request: Request, progress: Progress | None
) -> tuple[list[Measurement], list[Failure]]:
    ids = [id for id, _ in artifacts]
    if len(set(ids)) < len(ids):
        raise InputError(f"two artifacts have the id '{next(i for i in ids if ids.count(i) > 1)}'; ids must differ")
    plan, threads, runtime = request.plan, request.threads, request.runtime
    picture = example_picture() if request.pixels is None else request.pixels
    info = local_info()
    if request.cores:
        info["pinned_cores"] = list(request.cores)
    failures: dict[str, EdgenetError] = {}
    done, total = 0, len(artifacts) * (2 + plan.max_rounds)

    def step(id: str) -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total, id)

    with ExitStack() as stack:
        workers: dict[str, Worker] = {}
        for id, path in artifacts:
            try:
                worker = stack.enter_context(
                    Worker(path, threads, runtime, cores=request.cores, timeout_s=plan.max_time_s + 120)
                )
                worker.set_input(_network_input(picture, worker.info))
                workers[id] = worker
            except EdgenetError as e:
                failures[id] = e
            step(id)
        busy = Busy(w.pid for w in workers.values())
        traces = timing.measure(workers, plan, time.perf_counter_ns, step)
        others, steal = busy.since()
        failures.update({id: t.error for id, t in traces.items() if t.error is not None})
        memories = {}
        for id in [id for id in workers if id not in failures]:
            try:
                memories[id] = workers[id].memory()
            except EdgenetError as e:
                failures[id] = e
    if progress is not None:
        progress(total, total, "")
    traces = {
        id: replace(t, samples_ns=[n // _batch(workers[id].info) for n in t.samples_ns])
        for id, t in traces.items()
        if id not in failures and t.samples_ns
    }
    info |= {"other_processes_cores": others, "stolen_cores": steal, "load_average_after": load_average()}
    shared = machine_warnings(info, threads)
    unclear = timing.indistinct(traces)
    measurements = []
    for id, path in artifacts:
        if id in traces:
            trace, worker_info = traces[id], workers[id].info
            measurements.append(
                Measurement(
                    artifact=id,
                    device="local",
                    runtime=worker_info.runtime,
                    threads=threads,
                    samples_ns=tuple(trace.samples_ns),
                    rounds=tuple(trace.rounds),
                    warmup_runs=trace.warmup_runs,
                    load_ns=worker_info.load_ns,
                    peak_rss_bytes=memories[id].peak_rss_bytes,
                    baseline_rss_bytes=memories[id].baseline_rss_bytes,
                    artifact_sha256=sha256_of(Path(path)),
                    runtime_version=worker_info.version,
                    delegate=worker_info.delegate,
                    device_info=info,
                    warnings=(
                        *_batch_note(worker_info),
                        *timing.warnings_of(trace, plan),
                        *_unclear(unclear[id]),
                        *shared,
                    ),
                )
            )
    return measurements, [_failure(id, failures[id]) for id in ids if id in failures]


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
