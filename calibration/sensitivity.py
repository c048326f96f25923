"""How much each operator alone costs when it is quantized: what a budget gives back first."""

import os
from collections.abc import Mapping, Sequence

import numpy as np

from edgenet.calibration.execute import Executor
from edgenet.calibration.quantize import Weight, quantize
from edgenet.errors import InputError
from edgenet.export.graph import Graph
from edgenet.results import Calibration

PICTURES = 16


def sensitivity(
    graph: Graph,
    inputs: Sequence[np.ndarray],
    calibration: Calibration,
    weights: Mapping[str, Weight] | None = None,
    *,
    precision: str = "int8",
    threads: int | None = None,
) -> list[tuple[str, float]]:
    """Return (name of the output, SQNR of the logits in dB) of each operator, quantized alone, the worst first.

    Args:
        inputs: what the graph takes, one picture each: (1, H, W, 3) float32, normalised; the first 16 are used.
        weights: the integers of each operator, as `quantize` takes them.

    Raises:
        InputError: there was no picture.
    """
    pictures = inputs[:PICTURES]
    if not pictures:
        raise InputError("no picture to measure with: give a folder of photographs with --images")
    expected = _logits(graph, pictures, threads)
    names = [op.outputs[0] for op in graph.ops]
    whole = quantize(graph, precision, calibration, weights=weights)
    integer = [n for n in names if n in whole.tensors and whole.tensors[n].dtype in ("int8", "int16")]
    found = []
    for name in integer:
        alone = quantize(
            graph, precision, calibration, weights=weights, exceptions={n: "float32" for n in names if n != name}
        )
        found.append((name, sqnr_db(expected, _logits(alone, pictures, threads))))
    return sorted(found, key=lambda f: f[1])


def sqnr_db(expected: np.ndarray, found: np.ndarray) -> float:
    """10 log10(sum of expected^2 / sum of (found - expected)^2); infinite where they are equal."""
    noise = float(np.square(found.astype(np.float64) - expected).sum())
    return float("inf") if noise == 0 else 10 * float(np.log10(np.square(expected.astype(np.float64)).sum() / noise))


def _logits(graph: Graph, pictures: Sequence[np.ndarray], threads: int | None) -> np.ndarray:
    """Return (N, classes), of mean zero a picture: a softmax forgets the mean."""
    run = Executor(graph, [graph.logits()], threads or os.cpu_count() or 1)
    y = np.concatenate([run(x)[0].reshape(1, -1) for x in pictures]).astype(np.float64)
    return y - y.mean(axis=1, keepdims=True)
