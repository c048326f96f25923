"""What a file answered to pictures: the numbers that other files are compared with, when there is one more of them.

The numbers depend on the file, the pictures in their order, how these become its input, the runtime and the kind of
processor. They are written and read block by block, so that memory does not grow with the pictures.
"""

import hashlib
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from edgenet.cache import store
from edgenet.device_bench.machine import local_info
from edgenet.results import ImageSet

KIND = "answers"
_RUNTIMES = {".tflite": ("ai-edge-litert", "tflite-runtime"), ".onnx": ("onnxruntime",), ".xml": ("openvino",)}


def key_of(path: Path, sha256: str, images: ImageSet, preprocessing: Mapping[str, Any], threads: int) -> dict[str, Any]:
    """Return all that decides what a file of this hash answers, to the bit."""
    pictures = hashlib.sha256("\n".join(images.digests).encode()).hexdigest()
    runtimes = {name: _version(name) for name in (*_RUNTIMES.get(path.suffix.lower(), ()), "numpy", "Pillow")}
    machine = local_info()
    return {
        "file": sha256,
        "pictures": pictures,
        "preprocessing": dict(preprocessing),
        "versions": runtimes,
        "threads": threads,
        "cpu": machine["cpu_model"],
        "isa": list(machine["isa"]),
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


@dataclass(frozen=True)
class Shape:
    """What is known of the file: what ran it, the type of its input, whether its output has 8 bits."""

    runtime: str
    io_dtype: str
    eight_bit: bool


class Kept:
    """Answers that are kept. Use it in a `with` block."""

    def __init__(self, path: Path) -> None:
        self._stack = ExitStack()
        found = self._stack.enter_context(store.reading(path))
        self.shape: Shape | None = None
        self._indices = np.zeros(0, np.int64)
        if found is None:
            return
        step, self._file = found
        try:
            n, self._k = int(step.about["n"]), int(step.about["k"])
            self._start = self._file.tell()
            self._file.seek(self._start + 4 * n * self._k)
            data = self._file.read()
            if len(data) == 8 * n:
                self._indices = np.frombuffer(data, "<i8")
                self.shape = Shape(**step.about["file"])
        except (KeyError, TypeError, ValueError):
            self.shape = None

    def outputs(self, indices: np.ndarray) -> np.ndarray | None:
        """Return (n, outputs) float32 for pictures that follow each other, by indices; None if not all are there."""
        if self.shape is None or not len(indices):
            return None
        first = int(np.searchsorted(self._indices, indices[0]))
        if not np.array_equal(self._indices[first : first + len(indices)], indices):
            return None
        self._file.seek(self._start + 4 * first * self._k)
        data = self._file.read(4 * len(indices) * self._k)
        if len(data) != 4 * len(indices) * self._k:
            return None
        return np.frombuffer(data, "<f4").reshape(len(indices), self._k).astype(np.float32, copy=False)

    def close(self) -> None:
        self._stack.close()


class Keeping:
    """Answers that are being kept, in the order in which pictures come."""

    def __init__(self, path: Path) -> None:
        self._writing = store.writing(path)
        self._indices: list[np.ndarray] = []
        self._k = -1

    def add(self, indices: np.ndarray, outputs: np.ndarray) -> None:
        """Take the answers to some pictures: (n,) and (n, outputs) float32."""
        if self._writing is None:
            return
        if self._k not in (-1, outputs.shape[1]):
            self.close()
            return
        self._k = outputs.shape[1]
        self._indices.append(indices)
        try:
            self._writing.file.write(np.ascontiguousarray(outputs, "<f4").data)
        except OSError:  # the disk is full: nothing is kept
            self.close()

    def commit(self, what: str, shape: Shape) -> None:
        """Keep them: all pictures have been answered."""
        if self._writing is None or not self._indices:
            return
        indices = np.concatenate(self._indices).astype("<i8")
        try:
            self._writing.file.write(indices.data)
        except OSError:
            self.close()
            return
        about = {"n": len(indices), "k": self._k, "file": asdict(shape)}
        self._writing.commit(KIND, what, about)
        self._writing = None

    def close(self) -> None:
        """Give up what is not committed."""
        if self._writing is not None:
            self._writing.close()
        self._writing = None
