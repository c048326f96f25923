"""Files against each other in interleaved rounds, each in a worker: what every device with a runner shares.

A device says how a worker is started there and how the place is watched meanwhile; all else is the same everywhere.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgenet.device_bench import timing
from edgenet.device_bench.device import Progress, Request
from edgenet.device_bench.worker import Worker, WorkerInfo
from edgenet.errors import DeviceError, EdgenetError, InputError
from edgenet.results import Failure, Measurement, sha256_of

# Called when all files are loaded; what it returns is called when all are timed, and tells about the device then.
Watch = Callable[[Sequence[Worker]], Callable[[], dict[str, Any]]]

_OTHERS_AT_WORK = 0.10  # cores that other processes may use before it is worth a warning
_HOT_C = 80.0  # boards throttle from here on
_REMEDY: dict[type[EdgenetError], str] = {
    InputError: "export the file again, or give a file that the runtime loads",
    DeviceError: "run `edgenet bench` on this file alone; `edgenet doctor` tells which runtimes are installed",
}


def bench_workers(
    artifacts: Sequence[tuple[str, Path]],
    request: Request,
    open_worker: Callable[[str, Path], Worker],
    watch: Watch,
    *,
    device: str,
    progress: Progress | None = None,
    remedy: Mapping[type[EdgenetError], str] = _REMEDY,
) -> tuple[list[Measurement], list[Failure]]:
    """Time files on one device, against each other.

    A file that takes several pictures at once is timed on as many, and its samples are the time of one of them.
    Each is loaded in a worker of its own and warmed up until its rate settles; then all take turns, in rounds
    shuffled by the plan's seed, one worker running at a time. A file that fails becomes a Failure, the others go on.

    Args:
        artifacts: (id, path) pairs; ids are unique.
        open_worker: (id, path) -> a worker that has loaded the file; an EdgenetError is that file's failure.
        device: its id, for the measurements.
        progress: called with (turns done, turns at most, id).
        remedy: what to do about a failure, by the kind of error.

    Returns:
        measurements in the order given, and failures.

    Raises:
        InputError: two ids are the same. A wrong file is a Failure.
    """
    ids = [id for id, _ in artifacts]
    check_unique(ids)
    picture = example_picture() if request.pixels is None else request.pixels
    failures: dict[str, EdgenetError] = {}
    done, total = 0, len(artifacts) * (2 + request.plan.max_rounds)

    def step(id: str) -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total, id)

    with ExitStack() as stack:
        workers: dict[str, Worker] = {}
        for id, path in artifacts:
            try:
                worker = stack.enter_context(open_worker(id, path))
                worker.set_input(network_input(picture, worker.info))
                workers[id] = worker
            except EdgenetError as e:
                failures[id] = e
            step(id)
        tell = watch(list(workers.values()))
        traces = timing.measure(workers, request.plan, time.perf_counter_ns, step)
        info = tell()
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
    shared = machine_warnings(info, request.threads)
    unclear = timing.indistinct(traces)
    measurements = []
    for id, path in artifacts:
        if id in traces:
            trace, loaded = traces[id], workers[id].info
            measurements.append(
                Measurement(
                    artifact=id,
                    device=device,
                    runtime=loaded.runtime,
                    threads=request.threads,
                    samples_ns=tuple(trace.samples_ns),
                    rounds=tuple(trace.rounds),
                    warmup_runs=trace.warmup_runs,
                    load_ns=loaded.load_ns,
                    peak_rss_bytes=memories[id].peak_rss_bytes,
                    baseline_rss_bytes=memories[id].baseline_rss_bytes,
                    artifact_sha256=sha256_of(Path(path)),
                    runtime_version=loaded.version,
                    delegate=loaded.delegate,
                    device_info=info,
                    warnings=(
                        *_batch_note(loaded),
                        *timing.warnings_of(trace, request.plan),
                        *_unclear(unclear[id]),
                        *shared,
                    ),
                )
            )
    return measurements, [failure(id, failures[id], remedy) for id in ids if id in failures]


def check_unique(ids: Sequence[str]) -> None:
    """Raise InputError where two ids are the same."""
    if len(set(ids)) < len(ids):
        raise InputError(f"two artifacts have the id '{next(i for i in ids if ids.count(i) > 1)}'; ids must differ")


def failure(id: str, e: EdgenetError, remedy: Mapping[type[EdgenetError], str] = _REMEDY) -> Failure:
    """Return what became of timing `id`."""
    return Failure("bench", id, str(e), next((text for cls, text in remedy.items() if isinstance(e, cls)), ""))


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


def machine_warnings(info: Mapping[str, Any], threads: int) -> list[str]:
    """Return what speaks against trusting times, from what a device told before and (`*_after`) after."""
    found = []
    if threads > info["cores"]:
        found.append(f"{threads} threads on {info['cores']} cores: they wait for each other")
    others, stolen = info["other_processes_cores"], info["stolen_cores"]
    if others is not None and others > _OTHERS_AT_WORK:
        found.append(f"other processes used {others:.2f} cores while it was measured")
    if stolen is not None and stolen > _OTHERS_AT_WORK / 2:
        found.append(f"the hypervisor took away {stolen:.2f} cores while it was measured")
    if others is None and info["load_average"] and info["load_average"][0] > 0.5 * info["cores"]:
        found.append(f"the load average was {info['load_average'][0]:.1f} at the start")
    if info["governor"] in ("powersave", "ondemand", "conservative"):
        found.append(f"the CPU governor is {info['governor']}: the clock may change; `performance` keeps it")
    hottest = max((t for t in (info.get("temperature_c"), info.get("temperature_c_after")) if t), default=0.0)
    if hottest >= _HOT_C:
        found.append(f"the CPU was at {hottest:.0f} °C: it may have slowed down; let it cool, or cool it")
    throttled = (info.get("throttled") or 0) | (info.get("throttled_after") or 0)
    if throttled & 1:
        found.append("the board reported under-voltage: it slows down then; use a stronger power supply")
    if throttled & 0b1110:
        found.append("the board reported a capped or throttled clock while it was measured")
    return found


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


def network_input(picture: np.ndarray, info: WorkerInfo) -> np.ndarray:
    """Return `picture` at the size, batch and type that the file takes: (N, H, W, C). Raises InputError."""
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


def _unclear(neighbours: list[tuple[str, timing.Comparison]]) -> list[str]:
    said = []
    for other, c in neighbours:
        interval = f" (ratio {c.ratio:.3f}, {c.low:.3f} to {c.high:.3f})" if c.low > 0 else f" in {c.n_rounds} rounds"
        said.append(f"cannot tell it from {other}{interval}: equally fast, or more rounds or a quieter machine needed")
    return said
