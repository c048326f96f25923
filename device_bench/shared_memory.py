"""Memory that this process writes and its workers only read: pictures reach all of them without a copy.

On Linux it is a file without a name (memfd), which a worker opens for reading before it gives up its rights. Elsewhere,
and where a worker cannot open it, pictures travel through the pipe, as they do to boards.
"""

import mmap
import os
from types import TracebackType
from typing import Any

import numpy as np


class SharedMemory:
    """So many bytes, of which arrays are taken. Use it in a `with` block, which ends after the workers that read it."""

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self._fd = os.memfd_create("edgenet-pictures")
        try:
            os.ftruncate(self._fd, size_bytes)
            self._map = mmap.mmap(self._fd, size_bytes)
        except BaseException:
            os.close(self._fd)
            raise
        self._taken = 0
        self._base: int = np.frombuffer(self._map, np.uint8).__array_interface__["data"][0]

    @classmethod
    def of(cls, size_bytes: int) -> "SharedMemory | None":
        """Return it, None where the system has no such thing."""
        if size_bytes < 1 or not hasattr(os, "memfd_create"):
            return None
        try:
            return cls(size_bytes)
        except OSError:
            return None

    @property
    def path(self) -> str:
        """Where a child of this process opens it."""
        return f"/proc/{os.getpid()}/fd/{self._fd}"

    def take(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """Return an array of the memory that nobody has yet."""
        array: np.ndarray = np.ndarray(shape, dtype, self._map, self._taken)
        self._taken += -(-array.nbytes // 64) * 64
        return array

    def offset_of(self, array: np.ndarray) -> int | None:
        """Return where in the memory an array lies, None where it lies elsewhere or has gaps."""
        offset: int = array.__array_interface__["data"][0] - self._base
        inside = 0 <= offset <= self.size_bytes - array.nbytes
        return offset if inside and array.flags.c_contiguous else None

    def close(self) -> None:
        """Give it back; arrays that are still in use keep it alive."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def __enter__(self) -> "SharedMemory":
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None) -> None:
        self.close()
