"""Run a float graph and look at any of its activations: LiteRT with the wanted tensors made outputs of the file."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from edgenet.errors import MissingDependency
from edgenet.export.graph import Graph, Op
from edgenet.export.tflite_file import write_tflite
from edgenet.frameworks import quiet

A = TypeVar("A")
B = TypeVar("B")

LOOKED_AT = 2**26  # bytes of activations, of one picture, that are looked at together
WAITING = 2**28  # bytes of activations that wait between two parts of a network, of so many pictures at most:
MOST_TOGETHER = 64


class Executor:
    """Computes the named activations of a graph, one picture at a time.

    XNNPACK runs the whole graph at the speed of inference, since nothing but the list of outputs is changed.
    """

    def __init__(self, graph: Graph, names: Sequence[str], threads: int) -> None:
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError:
            raise MissingDependency("ai-edge-litert", "tflite", "calibration") from None
        self.names = tuple(names)
        model = write_tflite(graph.with_outputs(self.names), signature=None)
        with quiet():  # LiteRT says on stderr that it uses XNNPACK
            self._interpreter: Any = Interpreter(model_content=model, num_threads=threads)
            self._interpreter.allocate_tensors()
        self._inputs = [d["index"] for d in self._interpreter.get_input_details()]
        self._outputs = [d["index"] for d in self._interpreter.get_output_details()]

    def __call__(self, *inputs: np.ndarray) -> list[np.ndarray]:
        """Return copies of the activations in the order of `names`. inputs: the graph's, in its order and shapes."""
        for index, x in zip(self._inputs, inputs, strict=True):
            self._interpreter.set_tensor(index, x)
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(i) for i in self._outputs]


def activations(
    graph: Graph, names: Sequence[str], inputs: Iterable[np.ndarray], threads: int, max_bytes: int = LOOKED_AT
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """Yield which picture it is, 0 first, and some of its activations by name: each name once a picture, in order.

    All activations of a large network are gigabytes for one picture. So it is run in parts, each of which shows at most
    `max_bytes`, or one activation; a few pictures are taken through one part after another.

    Args:
        inputs: what the graph takes, one picture each. Read once, not kept.
    """
    parts = _parts(graph, set(names), max_bytes)
    waiting = max(sum(_bytes(graph, n) for n in part.later) for part in parts)
    together = max(1, min(MOST_TOGETHER, WAITING // max(waiting, 1)))
    runs = [parts[0].executor(graph, threads)] if len(parts) == 1 else []
    inputs, first = iter(inputs), 0
    # Two threads: LiteRT computes the next picture meanwhile. More only wait for each other, as most steps are short.
    with ThreadPoolExecutor(1) as ahead:
        while pictures := [{graph.inputs[0]: x} for x in itertools.islice(inputs, together)]:
            for part in parts:
                run = runs[0] if runs else part.executor(graph, threads)
                for i, (known, made) in enumerate(_one_ahead(ahead, _computed(part, run), pictures), first):
                    fed = graph.inputs if part is parts[0] else ()
                    yield i, {**{n: known[n] for n in fed if n in names}, **{n: made[n] for n in part.shown}}
                    known.update({n: made[n] for n in part.later if n in made})
                    for n in set(known) - set(part.later):
                        del known[n]
            first += len(pictures)


@dataclass(frozen=True)
class _Part:
    """Some operators: what they read, what is shown of what they make, and all that parts after this one read."""

    ops: tuple[Op, ...]
    fed: tuple[str, ...]
    shown: tuple[str, ...]
    later: tuple[str, ...]

    def executor(self, graph: Graph, threads: int) -> Executor:
        made = {n for op in self.ops for n in op.outputs}
        kept = dict.fromkeys([*self.shown, *(n for n in self.later if n in made)])
        return Executor(Graph(graph.name, graph.tensors, self.ops, self.fed, tuple(kept)), tuple(kept), threads)


def _computed(part: _Part, run: Executor) -> Callable[[dict[str, np.ndarray]], tuple[dict[str, np.ndarray], ...]]:
    """Return what computes, from the activations of a picture that are known, those that the part makes."""
    return lambda known: (known, dict(zip(run.names, run(*(known[n] for n in part.fed)), strict=True)))


def _parts(graph: Graph, names: set[str], max_bytes: int) -> list[_Part]:
    """Return the operators up to the last one that makes one of `names`, in parts that show at most `max_bytes`."""
    last = max((i for i, op in enumerate(graph.ops) if names & set(op.outputs)), default=0)
    cuts, shown = [0], 0
    for i, op in enumerate(graph.ops[: last + 1]):
        size = sum(_bytes(graph, n) for n in op.outputs if n in names)
        if shown and shown + size > max_bytes:
            cuts.append(i)
            shown = 0
        shown += size
    read = {n: indices[-1] for n, indices in graph.consumers().items() if indices and graph.tensors[n].data is None}
    producers = graph.producers()
    found = []
    for start, stop in itertools.pairwise([*cuts, last + 1]):
        ops = graph.ops[start:stop]
        fed = {str(n): None for op in ops for n in op.inputs if n in read and producers.get(str(n), -1) < start}
        later = (n for n, i in read.items() if stop <= i <= last and producers.get(n, -1) < stop)
        shown_here = (n for op in ops for n in op.outputs if n in names)
        found.append(_Part(ops, tuple(fed), tuple(shown_here), tuple(later)))
    return found


def _bytes(graph: Graph, name: str) -> int:
    t = graph.tensors[name]
    return int(np.prod(t.shape)) * np.dtype(t.dtype).itemsize


def _one_ahead(pool: ThreadPoolExecutor, work: Callable[[A], B], inputs: Iterable[A]) -> Iterator[B]:
    """Yield work(x) for every x, in order; `pool` does the next one meanwhile."""
    later = None
    for x in inputs:
        now, later = later, pool.submit(work, x)
        if now is not None:
            yield now.result()
    if later is not None:
        yield later.result()
