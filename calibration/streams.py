"""Two networks side by side, on all pictures: the float one, and the one that is quantized so far.

Layers are rounded in the order they run. Only what such a layer reads is kept for all pictures: what lies between two
of them (a batch of sigmoids and products) is computed for one picture after another, and forgotten. Where even that
is too much for memory, it waits on disk.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

import numpy as np

from edgenet.calibration.alike import weighted_mean
from edgenet.calibration.execute import Executor
from edgenet.calibration.quantize import Weight
from edgenet.calibration.shelf import Shelf, Store
from edgenet.export.graph import Graph, Op, Quantization, along_axis

T = TypeVar("T")

Grid = Mapping[str, tuple[str, Quantization]]  # integer type and scale of the activations that are stored as integers
MEMORY = 2**29  # bytes of activations, of all pictures, that are not on disk


class Streams:
    """The activations of all pictures that later operators read, in float and as quantized so far.

    Args:
        graph: float operators, which are handed to `advance` in their order.
        x: what the graph takes, one picture each.
    """

    def __init__(self, graph: Graph, grid: Grid, x: Sequence[np.ndarray], threads: int) -> None:
        self.graph, self.grid, self.threads, self.pictures = graph, grid, threads, len(x)
        self._last = {n: indices[-1] for n, indices in graph.consumers().items() if indices}
        self._done, self._waiting = 0, list[tuple[Op, Weight | None]]()
        self._store = Store(MEMORY)
        self.float, self.stored = dict[str, Shelf](), dict[str, Shelf]()
        for i, picture in enumerate(x):
            self._keep(self.float, graph.inputs[0], i, picture)
            self._keep(self.stored, graph.inputs[0], i, stored(picture, grid.get(graph.inputs[0])))

    def real(self, name: str, x: np.ndarray) -> np.ndarray:
        """Return the real numbers, float32, that `x` of an activation of the quantized network stands for."""
        if name not in self.grid:
            return x
        q = self.grid[name][1]
        return (x - np.float32(q.zero_point[0])) * np.float32(q.scale[0])

    def mean_real(self, name: str, weights: np.ndarray) -> np.ndarray:
        """Return the weighted mean of an activation of the quantized network over all pictures, (1, ..., C) float32."""
        return self.real(name, weighted_mean(self.stored[name], weights))

    def advance(self, op: Op, weight: Weight | None) -> None:
        """Note the next operator, and its rounded weights; `catch_up` runs it."""
        self._waiting.append((op, weight))

    def catch_up(self) -> None:
        """Run the operators that were noted, in both networks, and forget what no later one reads."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        self._done += len(waiting)
        made = {n for op, _ in waiting for n in op.outputs}
        fed = tuple(dict.fromkeys(str(n) for op, _ in waiting for n in op.inputs if n in self.stored))
        kept = tuple(n for n in self._last if n in made and self._last[n] >= self._done)
        if kept:
            both(lambda: self._float(waiting, fed, kept), lambda: self._quantized(waiting, fed, kept))
        for name in [n for n in self.stored if self._last[n] < self._done]:
            self.float.pop(name).close()
            self.stored.pop(name).close()

    def _keep(self, shelves: dict[str, Shelf], name: str, picture: int, x: np.ndarray) -> None:
        if name not in shelves:
            shelves[name] = self._store.shelf(self.pictures, x.shape, x.dtype)
        shelves[name][picture] = x

    def _float(self, waiting: Sequence[tuple[Op, Weight | None]], fed: Sequence[str], kept: Sequence[str]) -> None:
        run = self._executor(self.graph, [op for op, _ in waiting], fed, kept)
        for i in range(self.pictures):
            for name, y in zip(kept, run(*(self.float[n][i] for n in fed)), strict=True):
                self._keep(self.float, name, i, y)

    def _quantized(self, waiting: Sequence[tuple[Op, Weight | None]], fed: Sequence[str], kept: Sequence[str]) -> None:
        """One operator after another, since what each of them makes is rounded."""
        runs, known = [], set(fed)
        for op, weight in waiting:
            read = [n for n in dict.fromkeys(map(str, op.inputs)) if n in known]
            made = [n for n in op.outputs if n in self._last]
            known.update(made)
            if made:
                runs.append((read, self._executor(with_weight(self.graph, op, weight), [op], read, made)))
        for i in range(self.pictures):
            values = {n: self.real(n, self.stored[n][i]) for n in fed}
            for read, run in runs:
                for name, y in zip(run.names, run(*(values[n] for n in read)), strict=True):
                    y = stored(y, self.grid.get(name))
                    if name in kept:
                        self._keep(self.stored, name, i, y)
                    values[name] = self.real(name, y)

    def _executor(self, graph: Graph, ops: Sequence[Op], fed: Sequence[str], kept: Sequence[str]) -> Executor:
        part = Graph(ops[0].kind, graph.tensors, tuple(ops), tuple(fed), tuple(kept))
        return Executor(part, kept, max(1, self.threads // 2))


def both(a: Callable[[], T], b: Callable[[], T]) -> tuple[T, T]:
    """Return a() and b(), computed side by side: NumPy and LiteRT let go of the interpreter while they work."""
    with ThreadPoolExecutor(1) as pool:
        later = pool.submit(b)
        return a(), later.result()


def stored(x: np.ndarray, grid: tuple[str, Quantization] | None) -> np.ndarray:
    """Return the integers of real numbers, float32; the numbers themselves where an activation stays in float."""
    if grid is None:
        return x
    info = np.iinfo(grid[0])
    y = x * np.float32(1 / grid[1].scale[0])
    np.rint(y, out=y)
    y += np.float32(grid[1].zero_point[0])
    return np.clip(y, info.min, info.max, out=y).astype(grid[0])


def with_weight(graph: Graph, op: Op, weight: Weight | None) -> Graph:
    """Return the graph with the rounded weights of `op` in the place of the float ones."""
    if weight is None:
        return graph
    scale = along_axis(weight.scale, weight.axis, weight.values.ndim)
    tensors = dict(graph.tensors)
    t = tensors[str(op.inputs[1])]
    tensors[t.name] = replace(t, data=weight.values.astype(np.float32) * scale)
    if weight.bias is not None and len(op.inputs) > 2 and op.inputs[2] is not None:
        tensors[op.inputs[2]] = replace(tensors[op.inputs[2]], data=weight.bias)
    return replace(graph, tensors=tensors)
