"""Sensitivity: what it costs to quantize each operator alone. An accuracy budget puts the worst into float first."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgenet.calibration.execute import Executor
from edgenet.calibration.quantize import Weight, constant_weights, quantize
from edgenet.errors import InputError
from edgenet.export.graph import Graph
from edgenet.results import Calibration

PICTURES = 16


@dataclass(frozen=True)
class Alone:
    """Quantizes some operators of a graph alone, and says what that costs: a task that may travel to other machines.

    `expected` are the float graph's logits, (N, classes); `others` what a group is computed in while the rest is in
    float, where it is not `precision`.
    """

    graph: Graph
    pictures: tuple[np.ndarray, ...]
    calibration: Calibration
    weights: Mapping[str, Weight] | None
    precision: str
    kept: str | None
    expected: np.ndarray

    def do(self, group: Sequence[str], threads: int) -> float:
        """Return the SQNR of the logits in dB where these operators, by their outputs, are quantized alone."""
        exceptions = {op.outputs[0]: "float32" for op in self.graph.ops if op.outputs[0] not in group}
        if self.kept is not None:
            exceptions |= dict.fromkeys(group, self.kept)
        quantized = quantize(self.graph, self.precision, self.calibration, weights=self.weights, exceptions=exceptions)
        return sqnr_db(self.expected, _logits(quantized, self.pictures, threads))


Each = Callable[[Alone, Sequence[Sequence[str]]], Iterable[float]]  # task.do of each group, in order


def sensitivity(
    graph: Graph,
    inputs: Sequence[np.ndarray],
    calibration: Calibration,
    weights: Mapping[str, Weight] | None = None,
    *,
    groups: Sequence[Sequence[str]] | None = None,
    precision: str = "int8",
    alone: str | None = None,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    each: Each | None = None,
) -> list[tuple[tuple[str, ...], float]]:
    """Return (names of the outputs, SQNR of the logits in dB) of each group of operators, quantized alone, worst first.

    Args:
        groups: of names of operators' outputs; each operator by itself by default.
        inputs: what the graph takes, one picture each: (1, H, W, 3) float32, normalised; the first 16 are used.
        weights: the integers of each operator, as `quantize` takes them.
        alone: what a group is computed in while the others are in float, where it is not `precision`.
        each: who computes the groups; this machine by default.

    Raises:
        InputError: there was no picture.
    """
    pictures = tuple(inputs[:PICTURES])
    if not pictures:
        raise InputError("no picture to measure with: give a folder of photographs with --images")
    expected = _logits(graph, pictures, threads)
    names = [op.outputs[0] for op in graph.ops]
    whole = quantize(graph, precision, calibration, weights=weights)
    integer = {n for n in names if n in whole.tensors and whole.tensors[n].dtype in ("int8", "int16")}
    wanted = [tuple(n for n in group if n in integer) for group in groups or [(n,) for n in names]]
    wanted = [group for group in wanted if group]
    task = Alone(graph, pictures, calibration, weights, precision, alone, expected)
    here = (task.do(group, threads or os.cpu_count() or 1) for group in wanted)
    found = []
    for group, db in zip(wanted, here if each is None else each(task, wanted), strict=True):
        found.append((group, db))
        if progress:
            progress(len(found), len(wanted))
    return sorted(found, key=lambda f: f[1])


def loudest(graph: Graph, inputs: Iterable[np.ndarray], n: int, threads: int | None = None) -> list[np.ndarray]:
    """Return the n inputs with the largest logits: an SQNR over many pictures is theirs, where they differ much."""
    kept: list[tuple[float, int, np.ndarray]] = []
    run = Executor(graph, [graph.logits()], threads or os.cpu_count() or 1)
    for i, x in enumerate(inputs):
        kept = sorted([*kept, (-float(np.square(_centred(run(x)[0])).sum()), i, x)], key=lambda k: k[:2])[:n]
    return [x for _, _, x in kept]


def layers(graph: Graph) -> list[tuple[str, ...]]:
    """Return the operators' outputs layer by layer: what has weights, with the operators without any that follow it."""
    found: list[list[str]] = []
    for op in graph.ops:
        if not found or constant_weights(graph, op) is not None:
            found.append([])
        found[-1].append(op.outputs[0])
    return [tuple(layer) for layer in found]


def sqnr_db(expected: np.ndarray, found: np.ndarray) -> float:
    """10 log10(sum of expected^2 / sum of (found - expected)^2); infinite where they are equal."""
    noise = float(np.square(found.astype(np.float64) - expected).sum())
    return float("inf") if noise == 0 else 10 * float(np.log10(np.square(expected.astype(np.float64)).sum() / noise))


def _logits(graph: Graph, pictures: Sequence[np.ndarray], threads: int | None) -> np.ndarray:
    """Return (N, classes), of mean zero a picture: a softmax forgets the mean."""
    run = Executor(graph, [graph.logits()], threads or os.cpu_count() or 1)
    return np.concatenate([_centred(run(x)[0]) for x in pictures])


def _centred(logits: np.ndarray) -> np.ndarray:
    y = logits.reshape(1, -1).astype(np.float64)
    return y - y.mean()
