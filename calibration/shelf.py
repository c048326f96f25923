"""Arrays of the same shape, one a picture, that wait in memory or in a scratch file until they are read again.

All pictures' activations at one place of a network are hundreds of megabytes, and some networks have many such places
at a time. What is on disk does not count against memory: the kernel keeps what it has room for. The file has no name,
so that a killed run leaves nothing behind.
"""

import math
import os
import tempfile
import threading
from collections.abc import Iterator
from io import FileIO

import numpy as np


class Shelf:
    """(n, *shape) numbers. Reading and writing single ones from several threads is safe."""

    def __init__(self, n: int, shape: tuple[int, ...], dtype: np.dtype, in_memory: bool = True) -> None:
        self.shape, self.dtype = (n, *shape), np.dtype(dtype)
        self._bytes = math.prod(shape) * self.dtype.itemsize  # of one
        self._kept: np.ndarray | None = None
        self._file: FileIO | None = None
        if in_memory:
            self._kept = np.empty(self.shape, dtype)
        else:
            self._file = tempfile.TemporaryFile(prefix="edgenet-", buffering=0)  # noqa: SIM115

    @property
    def bytes_in_memory(self) -> int:
        return 0 if self._kept is None else self._kept.nbytes

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, i: int) -> np.ndarray:
        if self._kept is not None:
            kept: np.ndarray = self._kept[i]
            return kept
        if not 0 <= i < len(self):  # what follows would be an empty read
            raise IndexError(i)
        assert self._file is not None
        found = np.empty(self.shape[1:], self.dtype)
        view, done = found.reshape(-1).view(np.uint8).data, 0
        while done < self._bytes:  # one call moves at most 2 GiB
            n = os.preadv(self._file.fileno(), [view[done:]], i * self._bytes + done)
            if n == 0:  # nothing was put there, and asking again would never end
                raise IndexError(i)
            done += n
        return found

    def __setitem__(self, i: int, x: np.ndarray) -> None:
        if self._kept is not None:
            self._kept[i] = x
            return
        assert self._file is not None
        view, done = np.ascontiguousarray(x, self.dtype).reshape(-1).view(np.uint8).data, 0
        while done < self._bytes:
            done += os.pwrite(self._file.fileno(), view[done:], i * self._bytes + done)

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[i] for i in range(len(self)))

    def close(self) -> None:
        """Give memory and disk back; the shelf is of no use afterwards."""
        self._kept = None
        if self._file is not None:
            self._file.close()

    def __del__(self) -> None:
        self.close()  # what the last layers read, or an error left


class Store:
    """Makes shelves: in memory as long as all of them together take at most `max_bytes`, then on disk."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._shelves: list[Shelf] = []
        self._lock = threading.Lock()

    def shelf(self, n: int, shape: tuple[int, ...], dtype: np.dtype) -> Shelf:
        with self._lock:
            taken = sum(s.bytes_in_memory for s in self._shelves)
            fits = taken + n * math.prod(shape) * np.dtype(dtype).itemsize <= self.max_bytes
            made = Shelf(n, shape, dtype, fits)
            self._shelves = [s for s in self._shelves if s.bytes_in_memory] + [made]
        return made
