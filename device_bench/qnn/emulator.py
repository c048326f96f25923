"""Qualcomm's emulator of the NPU, on all cores: a process a core, each with the whole compiled file.

The emulator computes a picture on one core, in a second and more; its answers are the same in every process.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType

import numpy as np

from edgenet.device_bench.qnn import htp_runtime
from edgenet.device_bench.qnn.chip import Chip
from edgenet.device_bench.worker import CONFINED, Launch, Worker, child_command

MOST_PROCESSES = 16  # each takes some hundred megabytes
TIMEOUT_S = 600.0  # for one picture


class Emulator:
    """A compiled file in the emulator. Use it in a `with` block.

    Args:
        compiled: an .onnx that names context binaries for `chip`.
        processes: how many pictures are computed at a time; None takes a core for each.

    Raises:
        InputError: the file does not load.
        DeviceError: the emulator is missing or crashed.
    """

    def __init__(self, compiled: Path, chip: Chip, processes: int | None = None, timeout_s: float = TIMEOUT_S) -> None:
        self._n = processes or min(_cores(), MOST_PROCESSES)
        self._compiled, self._chip, self._timeout_s = compiled.resolve(), chip, timeout_s
        self._workers: list[Worker] = [self._open()]  # what is wrong with the file is known after one

    def _open(self) -> Worker:
        return Worker(
            self._compiled,
            runtime=htp_runtime.NAME,
            delegate=str(self._chip.qnn_id),
            launch=Launch(_command(), f"{self._compiled.name} in the emulator"),
            timeout_s=self._timeout_s,
        )

    def predict(self, batch: np.ndarray) -> np.ndarray:
        """Return (N, classes) float32 for (N, H, W, 3) of what the file takes, a picture at a time on each core.

        Raises:
            InputError: the batch does not fit the file.
            DeviceError: the emulator crashed or hung.
        """
        pictures = [batch[i : i + 1] for i in range(len(batch))]
        if not pictures:
            return self._workers[0].predict(batch)
        while len(self._workers) < min(self._n, len(pictures)):
            self._workers.append(self._open())
        free: SimpleQueue[Worker] = SimpleQueue()
        for worker in self._workers:
            free.put(worker)

        def one(picture: np.ndarray) -> np.ndarray:
            worker = free.get()
            try:
                return worker.predict(picture)
            finally:
                free.put(worker)

        with ThreadPoolExecutor(len(self._workers)) as pool:
            waiting = [pool.submit(one, picture) for picture in pictures]
            try:
                return np.concatenate([answer.result() for answer in waiting])
            except BaseException:
                for answer in waiting:
                    answer.cancel()
                raise

    def close(self) -> None:
        """End the processes. May be called twice."""
        while self._workers:
            self._workers.pop().close()

    def __enter__(self) -> "Emulator":
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _command() -> list[str]:
    return [*child_command(htp_runtime.__file__), *CONFINED]
