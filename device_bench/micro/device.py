"""Microcontrollers, `micro`: what tflite-micro makes of a file, the memory that it takes there, and its answers.

TensorFlow Lite for Microcontrollers is compiled for this machine and runs with its portable reference kernels, whose
integers are the same on every processor. Answers and memory are those of a microcontroller; time is not: none is given.
https://github.com/tensorflow/tflite-micro
"""

import os
import signal
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from edgenet.device_bench.device import Progress, Request, estimate_each
from edgenet.device_bench.micro import interpreter
from edgenet.device_bench.micro.arena import arena_bytes
from edgenet.device_bench.micro.interpreter import EXTRA, NAME, PACKAGE
from edgenet.device_bench.micro.operators import refused
from edgenet.device_bench.worker import CONFINED, Launch, Worker, child_command
from edgenet.errors import DeviceError, EdgenetError, InputError, MissingDependency
from edgenet.export.inspect.tflite import operator_outputs
from edgenet.files import sha256_of
from edgenet.results import Estimate, Failure, LeftOperators, Warning

TIMEOUT_S = 600.0
BASIS = "run in tflite-micro on this machine: its memory is a microcontroller's, its time is not and is not given"
_REMEDIES = {
    InputError: "give an int8 .tflite, as `edgenet export --precision int8 --io int8` writes it",
    DeviceError: "run `edgenet inspect` on the file; a newer tflite-micro may take it",
}


def find() -> list[dict[str, Any]]:
    """Return the device, where tflite-micro is installed."""
    if (found := version()) is None:
        return []
    name = "a microcontroller, in tflite-micro: memory and answers, no time"
    return [{"id": "micro", "kind": "micro", "name": name, "runtimes": {NAME: found}}]


def open_device(address: str = "") -> "Micro":
    """Return the device. It takes no address.

    Raises:
        InputError: one was given.
        MissingDependency: tflite-micro is not installed.
    """
    if address:
        raise InputError(f"micro takes no address, was given '{address}': write --device micro")
    require("--device micro")
    return Micro()


def require(purpose: str) -> None:
    """Raise MissingDependency where tflite-micro is not installed."""
    if version() is None:
        raise MissingDependency(PACKAGE, EXTRA, purpose)


def version() -> str | None:
    """Return the version of the installed tflite-micro, None where there is none."""
    try:
        return metadata.version(PACKAGE)
    except metadata.PackageNotFoundError:
        return None


def emulator() -> str:
    """Return what computes the answers, with its version."""
    return f"{NAME} {version()}"


class Micro:
    """tflite-micro in child processes."""

    id = kind = "micro"

    def __init__(self, timeout_s: float = TIMEOUT_S) -> None:
        self._timeout_s, self._answers = timeout_s, Answers(timeout_s)

    def info(self) -> dict[str, Any]:
        """Return what computes in a microcontroller's place."""
        return {"emulator": emulator(), "machine": NAME, "measures": False}

    def bench(
        self, artifacts: Sequence[tuple[str, Path]], request: Request, progress: Progress | None = None
    ) -> tuple[list[Estimate], list[Failure]]:
        """Run each file once, for the memory that it takes. `request.threads` and `request.plan` mean nothing here.

        Raises:
            InputError: a runtime, a delegate or cores are asked for.
        """
        if request.runtime is not None or request.delegate is not None or request.cores:
            raise InputError("micro has its own runtime: leave out the runtime, the delegate and the cores")
        return estimate_each(self.id, artifacts, self._estimate, _REMEDIES, progress)

    def predict(self, path: Path, batch: np.ndarray) -> np.ndarray:
        """Return (N, classes) float32 for (N, H, W, 3) of what the file takes, on all cores of this machine.

        Raises:
            InputError: the batch does not fit the file.
            DeviceError: tflite-micro does not run the file, crashed or hung.
        """
        return self._answers.predict(path, batch)

    def __enter__(self) -> "Micro":
        return self

    def __exit__(self, *error: object) -> None:
        self._answers.close()

    def _estimate(self, id: str, path: Path) -> Estimate:
        check_file(path)
        n = len(operator_outputs(path))  # refuses a damaged file, on which native code might crash
        try:
            memory = memory_of(path, self._timeout_s)
        except EdgenetError:  # it ends at the first operator that it does not take
            if not (left := Counter(refused(path, self._timeout_s))):
                raise
            return self._of(id, path, n, left, warnings=(_does_not_run(left),))
        left = Counter(refused(path, self._timeout_s))  # some refuse only when they run
        warnings = (_does_not_run(left),) if left else ()
        known = {"sram_bytes": sum(memory.values()), "flash_bytes": path.stat().st_size, "memory_bytes": memory}
        return self._of(id, path, n, left, warnings=warnings, **known)

    def _of(self, id: str, path: Path, n: int, left: Counter[tuple[str, str]], **known: Any) -> Estimate:
        rows = sorted(left.items(), key=lambda row: (-row[1], row[0]))
        return Estimate(
            artifact=id,
            device=self.id,
            tool=emulator(),
            basis=BASIS,
            n_operators=n,
            n_accelerated=n - left.total(),
            left=tuple(LeftOperators(kind, count, why) for (kind, why), count in rows),
            artifact_sha256=sha256_of(path),
            settings={"kernels": "reference"},
            **known,
        )


def _does_not_run(left: Counter[tuple[str, str]]) -> Warning:
    text = f"{left.total()} operators do not run in {NAME}, so that the file does not run on a microcontroller"
    return Warning("missing-operators", text, left.total())


class Answers:
    """What files answer in tflite-micro, on all cores; each loaded file stays loaded until `close`."""

    def __init__(self, timeout_s: float = TIMEOUT_S) -> None:
        self._timeout_s, self._n = timeout_s, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
        self._workers: dict[Path, list[Worker]] = {}
        self._open, self._pool = ExitStack(), ThreadPoolExecutor(self._n)

    def predict(self, path: Path, batch: np.ndarray) -> np.ndarray:
        """Return (N, classes) float32; raises as `Micro.predict`."""
        workers = self._workers.setdefault(path, [])
        while len(workers) < min(self._n, max(1, len(batch))):  # each computes on one core
            workers.append(self._open.enter_context(self._load(path)))
        parts = np.array_split(batch, min(len(workers), max(1, len(batch))))
        return np.concatenate(list(self._pool.map(Worker.predict, workers, parts)))

    def _load(self, path: Path) -> Worker:
        try:
            check_file(path)
            return open_worker(path, self._timeout_s)
        except InputError as e:  # of the file, which the other devices may run
            raise DeviceError(f"{e}; `edgenet bench {path} --device micro` names all that is missing") from None

    def close(self) -> None:
        """End the processes. May be called twice."""
        self._open.close()
        self._workers.clear()
        self._pool.shutdown()


def check_file(path: Path) -> None:
    """Raise InputError for what is no .tflite file by its name."""
    if path.suffix.lower() != ".tflite":
        raise InputError(f"{path} is no .tflite file, and {NAME} runs only those")
    if not path.is_file():
        raise InputError(f"no file {path}: give model files")


def memory_of(path: Path, timeout_s: float = TIMEOUT_S) -> dict[str, int]:
    """Return the arena that a .tflite file needs in tflite-micro by purpose, in bytes: `arena.arena_bytes`.

    Raises:
        InputError: tflite-micro does not take the file.
        DeviceError: it crashed, or says what edgenet does not understand.
    """
    with open_worker(path, timeout_s) as worker:
        memory = arena_bytes(worker.stderr())
    if not memory:
        raise DeviceError(f"{emulator()} does not print its memory as the versions do that edgenet knows")
    return memory


def open_worker(path: Path, timeout_s: float = TIMEOUT_S) -> Worker:
    """Load a file in a child process. Raises InputError, DeviceError."""
    launch = Launch([*child_command(interpreter.__file__), *CONFINED], str(path), partial(_explain, path))
    return Worker(path.resolve(), launch=launch, timeout_s=timeout_s)


def _explain(path: Path, status: int, said: str) -> str | None:
    """Return why the child aborted, where that is known of the file's operators."""
    if abs(status) % 128 != signal.SIGABRT or "SOFTMAX" not in {kind for kind, _ in operator_outputs(path)}:
        return None
    return (
        f"{path}: {NAME} aborted, as TFLite's reference SOFTMAX in 8 bits does on a picture for which no class gets "
        "more than 1/512; with --io float32 the softmax stays in float"
    )
