"""Small networks of every kind: one sigmoid, several, an embedding, grey input, input that is no square."""

from pathlib import Path

import numpy as np

from edgenet.export.graph import Graph
from edgenet.export.tflite_file import write_tflite
from helpers.graph_builder import RELU6, Builder


def graph(kind: str = "binary", height: int = 20, width: int = 20, channels: int = 3, seed: int = 0) -> Graph:
    """Return a float network that ends as `kind` says: softmax, binary, labels, logit, normalised, pooled or linear.

    One sigmoid is surer of yes the redder a picture is; of four labels each stands for a colour or for brightness.
    """
    b = Builder(1, height, width, channels, seed=seed)
    stem = b.conv("image", "stem", _colours(channels), np.zeros(8), RELU6, 2)
    pooled = b.mean(b.conv(stem, "body", np.eye(8).reshape(8, 1, 1, 8), np.full(8, 0.1), RELU6), "pooled")
    if kind == "pooled":
        return b.graph()
    outputs = {"binary": 1, "logit": 1, "normalised": 6}.get(kind, 4)
    w = np.zeros((outputs, 8))
    w[:, : min(channels, 3)] = b.rng.normal(0, 1, (outputs, min(channels, 3)))
    if channels == 3 and kind in ("binary", "logit"):
        w[0, :3] = [4, -3, -3]
    last = b.dense(pooled, "last", w, np.full(outputs, -0.2 if kind == "labels" else 0.1))
    if kind in ("binary", "labels"):
        last = b.op("LOGISTIC", [last], (1, outputs))
    elif kind == "softmax":
        last = b.op("SOFTMAX", [last], (1, outputs), "SoftmaxOptions", beta=1.0)
    elif kind == "normalised":
        last = b.op("L2_NORMALIZATION", [last], (1, outputs), "L2NormOptions", fusedActivationFunction=0)
    return b.graph(last)


def _colours(channels: int) -> np.ndarray:
    """Weights that pass each channel on, three pixels by three: (8, 3, 3, channels)."""
    w = np.random.default_rng(3).normal(0, 0.1, (8, 3, 3, channels))
    for k in range(channels):
        w[k, ..., k] += 1 / 9
    return w


def save(path: Path, kind: str = "binary", **shape: int) -> Path:
    """Write the network as a .tflite that says nothing of itself."""
    path.write_bytes(write_tflite(graph(kind, **shape)))
    return path
