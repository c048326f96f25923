"""The devices that models run on: what each is, and `bench`, which times files there. Today: `local`, this machine."""

import os
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from edgenet.device_bench import timing
from edgenet.device_bench.worker import Worker, WorkerInfo
from edgenet.errors import DeviceError, EdgenetError, InputError
from edgenet.results import Failure, Measurement, sha256_of

_PROC, _SYS_CPU = Path("/proc"), Path("/sys/devices/system/cpu")
# Instruction sets that decide how fast, or how exactly, INT8 and float kernels run: as Linux names them -> as we do.
_ISA = {
    "sse4_2": "sse4_2",
    "fma": "fma",
    "avx2": "avx2",
    "avx512f": "avx512f",
    "avx_vnni": "avx_vnni",
    "avx512_vnni": "avx512_vnni",
    "avx512_bf16": "avx512_bf16",
    "amx_int8": "amx_int8",
    "amx_bf16": "amx_bf16",
    "asimd": "neon",
    "neon": "neon",
    "asimdhp": "fp16",
    "asimddp": "dotprod",
    "i8mm": "i8mm",
    "bf16": "bf16",
    "sve": "sve",
}
_RUNTIME_PACKAGES = {
    "litert": ("ai-edge-litert", "tflite-runtime"),
    "onnxruntime": ("onnxruntime",),
    "openvino": ("openvino",),
}
_OTHERS_AT_WORK = 0.10  # cores that other processes may use before it is worth a warning
_REMEDY = {
    InputError: "export the file again, or give a file that the runtime loads",
    DeviceError: "run `edgenet bench` on this file alone; `edgenet doctor` tells which runtimes are installed",
}


def list_devices() -> list[dict[str, Any]]:
    """Return the devices that `bench` can use, each as {"id", "kind", "name", "runtimes": {name: version}}."""
    runtimes = {}
    for name, packages in _RUNTIME_PACKAGES.items():
        for package in packages:
            try:
                runtimes[name] = metadata.version(package)
                break
            except metadata.PackageNotFoundError:
                continue
    return [{"id": "local", "kind": "local", "name": _cpu_model(), "runtimes": runtimes}]


def local_info() -> dict[str, Any]:
    """Return what this machine is and how busy: plain values, None where the system does not tell."""
    return {
        "cpu_model": _cpu_model(),
        "isa": _isa(),
        "cores": _cores(),
        "cores_total": os.cpu_count(),
        "governor": _read(_SYS_CPU / "cpu0/cpufreq/scaling_governor"),
        "max_khz": _as_int(_read(_SYS_CPU / "cpu0/cpufreq/cpuinfo_max_freq")),
        "memory_bytes": _memory_bytes(),
        "virtual": "hypervisor" in _cpu_flags(),
        "os": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "load_average": _load_average(),
        "python": platform.python_version(),
    }


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
    progress: Callable[[int, int, str], None] | None = None,
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
    ids = [id for id, _ in artifacts]
    if len(set(ids)) < len(ids):
        raise InputError(f"two artifacts have the id '{next(i for i in ids if ids.count(i) > 1)}'; ids must differ")
    if threads < 1:
        raise InputError(f"threads must be at least 1, was {threads}")
    if pixels is not None and (pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3):
        raise InputError(f"pixels must be (H, W, 3) uint8, was {pixels.shape} {pixels.dtype}")
    plan = timing.Plan(
        min_runs=min_runs,
        min_time_s=min_time_s,
        rounds=rounds,
        max_rounds=2 * rounds if max_rounds is None else max_rounds,
        max_time_s=max_time_s,
        seed=seed,
    )
    picture = example_picture() if pixels is None else pixels
    info = local_info()
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
                worker = stack.enter_context(Worker(path, threads, runtime, timeout_s=max_time_s + 120))
                worker.set_input(_network_input(picture, worker.info))
                workers[id] = worker
            except EdgenetError as e:
                failures[id] = e
            step(id)
        busy = _Busy(w.pid for w in workers.values())
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
    info |= {"other_processes_cores": others, "stolen_cores": steal, "load_average_after": _load_average()}
    shared = _machine_warnings(info, threads)
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


def _machine_warnings(info: Mapping[str, Any], threads: int) -> list[str]:
    found = []
    if threads > info["cores"]:
        found.append(f"{threads} threads on {info['cores']} cores: they wait for each other")
    others, steal = info["other_processes_cores"], info["stolen_cores"]
    if others is not None and others > _OTHERS_AT_WORK:
        found.append(f"other processes used {others:.2f} cores while it was measured")
    if steal is not None and steal > _OTHERS_AT_WORK / 2:
        found.append(f"the hypervisor took away {steal:.2f} cores while it was measured")
    if others is None and info["load_average"] and info["load_average"][0] > 0.5 * info["cores"]:
        found.append(f"the load average was {info['load_average'][0]:.1f} at the start")
    if info["governor"] in ("powersave", "ondemand", "conservative"):
        found.append(f"the CPU governor is {info['governor']}: the clock may change; `performance` keeps it")
    return found


class _Busy:
    """How much of the machine's CPU time went to others than us and `pids` since it was made."""

    def __init__(self, pids: Iterable[int]) -> None:
        self._pids = list(pids)
        self._stat, self._ours, self._clock = _stat_jiffies(), _own_and_children(self._pids), time.monotonic()

    def since(self) -> tuple[float | None, float | None]:
        """Return (cores used by other processes, cores that the hypervisor stole); None where nothing tells."""
        stat, seconds = _stat_jiffies(), max(time.monotonic() - self._clock, 1e-3)
        if stat is None or self._stat is None:
            return None, None
        jiffies = os.sysconf("SC_CLK_TCK") * seconds
        others = stat[0] - self._stat[0] - (_own_and_children(self._pids) - self._ours)
        return round(max(others, 0) / jiffies, 3), round((stat[1] - self._stat[1]) / jiffies, 3)


def _own_and_children(pids: Iterable[int]) -> int:
    """Return the jiffies that this process and its children `pids` have used, those that ended too."""
    total = 0
    for pid in [os.getpid(), *pids]:
        stat = _read(_PROC / str(pid) / "stat")
        if stat:
            fields = [int(v) for v in stat.rpartition(")")[2].split()[11:15]]  # utime stime cutime cstime: proc(5)
            total += sum(fields if pid == os.getpid() else fields[:2])  # an ended child's time has moved to ours
    return total


def _stat_jiffies() -> tuple[int, int] | None:
    """Return (busy, stolen) jiffies of all cores since boot."""
    line = (_read(_PROC / "stat") or "").partition("\n")[0].split()
    if len(line) < 9 or line[0] != "cpu":
        return None
    user, nice, system, _idle, _iowait, irq, softirq, steal = (int(v) for v in line[1:9])
    return user + nice + system + irq + softirq, steal


def _cpu_model() -> str:
    for line in (_read(_PROC / "cpuinfo") or "").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Hardware") and value.strip():
            return value.strip()
    board = _read(Path("/proc/device-tree/model"))
    return (board or "").strip("\0 \n") or platform.processor() or platform.machine()


def _cpu_flags() -> set[str]:
    for line in (_read(_PROC / "cpuinfo") or "").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return set(value.split())
    return set()


def _isa() -> list[str]:
    flags = _cpu_flags()
    return list(dict.fromkeys(ours for linux, ours in _ISA.items() if linux in flags))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None


def _load_average() -> list[float] | None:
    try:
        return [round(v, 2) for v in os.getloadavg()]
    except OSError:
        return None


def _read(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return None


def _as_int(text: str | None) -> int | None:
    return int(text) if text and text.isdigit() else None
