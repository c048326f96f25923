"""`local`: this machine. Each file runs in a child process of its own, one at a time, in interleaved rounds."""

import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgenet.device_bench import timing
from edgenet.device_bench.describe import runtimes
from edgenet.device_bench.device import Progress, Request
from edgenet.device_bench.machine import Busy, cpu_model, local_info, pulse, state, temperature_c
from edgenet.device_bench.rounds import Place, bench_workers, check_unique
from edgenet.device_bench.steadiness import cool_down
from edgenet.device_bench.worker import Worker
from edgenet.errors import InputError
from edgenet.results import Failure, Measurement

_REQUEST = Request(plan=timing.Plan(max_rounds=20))
_LIST_TIMEOUT_S = 60.0
_MAY_WARM_C, _COOL_DOWN_S = 10.0, 30.0  # a turn waits, so long at most, until it is no warmer than at the start by this


def open_device(address: str = "") -> "Local":
    """Return this machine; `address` is empty."""
    return Local()


def find() -> list[dict[str, Any]]:
    """Return this machine, as `devices.list_devices` does; `openvino`: what `--delegate` can name for its files."""
    found = {"id": "local", "kind": "local", "name": cpu_model(), "runtimes": runtimes()}
    return [{**found, "openvino": _openvino_devices()} if "openvino" in found["runtimes"] else found]


def _openvino_devices() -> list[str]:
    """Return what OpenVINO finds here, asked in a process of its own: its drivers are not ours to load, or to crash."""
    code = "from edgenet.export.runtime import openvino_devices; print(*openvino_devices())"
    # -P: a file of the working folder that is called edgenet.py is not edgenet.
    command = [sys.executable, "-P", "-c", code]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=_LIST_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:  # a driver that hangs is none that can be used
        return []
    return said.stdout.split() if said.returncode == 0 else []


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
        return bench(artifacts, request, progress)

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
    artifacts: Sequence[tuple[str, Path]], request: Request = _REQUEST, progress: Progress | None = None
) -> tuple[list[Measurement], list[Failure]]:
    """Time files on this machine, against each other: `rounds.bench_workers`, each in a child process of its own.

    Args:
        artifacts: (id, path) pairs; ids are unique.
        request: threads, runtime, delegate, cores, the plan, and the picture to compute on.
        progress: called with (turns done, turns at most, id).

    Returns:
        measurements in the order given, and failures.

    Raises:
        InputError: the request makes no sense here, two ids are the same, or no file is one that can be loaded. A wrong
            file among others is a Failure.
    """
    check_unique([id for id, _ in artifacts])
    _check(request)
    info = local_info()
    start_c = info["temperature_c"]

    def open_worker(id: str, path: Path) -> Worker:
        timeout_s = request.plan.max_time_s + 120
        return Worker(
            path, request.threads, request.runtime, delegate=request.delegate, cores=request.cores, timeout_s=timeout_s
        )

    def watch(workers: Callable[[], list[Worker]]) -> Callable[[], dict[str, Any]]:
        busy = Busy(lambda: [w.pid for w in workers()])

        def tell() -> dict[str, Any]:
            others, stolen = busy.since()
            return info | {
                "other_processes_cores": others, "stolen_cores": stolen, "busiest": busy.busiest(), "after": state()
            }  # fmt: skip

        return tell

    def cool() -> None:
        if start_c is not None:
            cool_down(temperature_c, start_c + _MAY_WARM_C, _COOL_DOWN_S, time.monotonic, time.sleep)

    place = Place("local", open_worker, watch, virtual=info["virtual"], probe=pulse, cool=cool)
    return bench_workers(artifacts, request, place, progress)


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
