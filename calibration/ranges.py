"""Measure the range of every activation on calibration pictures, once, for all formats."""

import os
from collections.abc import Iterable

import numpy as np

from edgenet.calibration.execute import Executor
from edgenet.errors import InputError
from edgenet.export.graph import Graph


def measure_ranges(
    graph: Graph, inputs: Iterable[np.ndarray], threads: int | None = None
) -> dict[str, tuple[float, float]]:
    """Return (lowest, highest) of every float activation over all inputs, by tensor name.

    Args:
        inputs: what the graph takes, one picture each: (1, H, W, 3) float32, normalised. Read once, not kept.

    Raises:
        InputError: an activation is not a finite number, or there was no picture.
    """
    fed = [n for n in graph.inputs if graph.tensors[n].dtype == "float32"]
    names = [n for n in graph.activations() if n not in graph.inputs and graph.tensors[n].dtype == "float32"]
    run = Executor(graph, names, threads or os.cpu_count() or 1)
    low, high = np.full(len(names), np.inf), np.full(len(names), -np.inf)
    fed_low, fed_high, n = np.inf, -np.inf, 0
    for x in inputs:
        fed_low, fed_high, n = min(fed_low, float(x.min())), max(fed_high, float(x.max())), n + 1
        for i, a in enumerate(run(x)):
            low[i], high[i] = min(low[i], a.min()), max(high[i], a.max())
    if n == 0:
        raise InputError("no picture to calibrate with: give a folder of photographs with --images")
    bad = [name for name, lo, hi in zip(names, low, high, strict=True) if not np.isfinite(lo + hi)]
    if bad:
        raise InputError(f"{bad[0]} is not a finite number on the calibration pictures: are the weights whole?")
    ranges = {name: (float(lo), float(hi)) for name, lo, hi in zip(names, low, high, strict=True)}
    return {**dict.fromkeys(fed, (fed_low, fed_high)), **ranges}
