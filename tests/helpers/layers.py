"""Graphs of a few operators, for tests that work numbers out by hand."""

from typing import Any

import numpy as np

from edgenet.calibration.execute import Executor
from edgenet.export.graph import Graph, Op, Tensor

NONE, RELU, RELU6 = 0, 1, 3
CONV = {"padding": 0, "strideW": 1, "strideH": 1, "dilationWFactor": 1, "dilationHFactor": 1}


class Builder:
    """Collects operators; each method returns the name of what it made."""

    def __init__(self, *shape: int) -> None:
        self.tensors = {"image": Tensor("image", shape, "float32")}
        self.ops: list[Op] = []

    def constant(self, name: str, data: Any, dtype: str = "float32") -> str:
        array = np.asarray(data, dtype)
        self.tensors[name] = Tensor(name, array.shape, dtype, array)
        return name

    def op(
        self, kind: str, inputs: tuple[str, ...], out: str, shape: tuple[int, ...], type: str, **options: Any
    ) -> str:
        self.tensors[out] = Tensor(out, shape, "float32")
        self.ops.append(Op(kind, inputs, (out,), options, type))
        return out

    def dense(self, x: str, out: str, w: Any, b: Any, activation: int = NONE) -> str:
        inputs = (x, self.constant(f"{out}/w", w), self.constant(f"{out}/b", b))
        shape = (1, len(np.asarray(w)))
        return self.op(
            "FULLY_CONNECTED", inputs, out, shape, "FullyConnectedOptions", fusedActivationFunction=activation
        )

    def conv(self, x: str, out: str, w: Any, b: Any, activation: int = NONE, stride: int = 1) -> str:
        """SAME padding. w: (out, kernel, kernel, in)."""
        inputs = (x, self.constant(f"{out}/w", w), self.constant(f"{out}/b", b))
        shape = (1, *(-(-n // stride) for n in self.tensors[x].shape[1:3]), len(np.asarray(w)))
        options = {**CONV, "strideW": stride, "strideH": stride, "fusedActivationFunction": activation}
        return self.op("CONV_2D", inputs, out, shape, "Conv2DOptions", **options)

    def depthwise(self, x: str, out: str, w: Any, b: Any, activation: int = NONE, stride: int = 1) -> str:
        """SAME padding. w: (1, kernel, kernel, C)."""
        inputs = (x, self.constant(f"{out}/w", w), self.constant(f"{out}/b", b))
        shape = (1, *(-(-n // stride) for n in self.tensors[x].shape[1:3]), np.asarray(w).shape[3])
        options = {**CONV, "strideW": stride, "strideH": stride, "fusedActivationFunction": activation}
        options["depthMultiplier"] = 1
        return self.op("DEPTHWISE_CONV_2D", inputs, out, shape, "DepthwiseConv2DOptions", **options)

    def add(self, a: str, b: str, out: str, activation: int = NONE) -> str:
        shape = self.tensors[a].shape
        return self.op("ADD", (a, b), out, shape, "AddOptions", fusedActivationFunction=activation)

    def mean(self, x: str, out: str) -> str:
        axes = self.constant(f"{out}/axes", [1, 2], "int32")
        shape = (1, self.tensors[x].shape[-1])
        return self.op("MEAN", (x, axes), out, shape, "ReducerOptions", keepDims=False)

    def graph(self, out: str) -> Graph:
        return Graph("layers", self.tensors, tuple(self.ops), ("image",), (out,))


def bottleneck(seed: int = 0, size: int = 12, classes: int = 5) -> Graph:
    """A stem, two inverted residual blocks with ReLU6, one addition, a dense layer; channels of very unlike ranges."""
    rng = np.random.default_rng(seed)
    b = Builder(1, size, size, 3)

    def w(*shape: int) -> np.ndarray:
        return rng.normal(0, (2 / np.prod(shape[1:])) ** 0.5, shape)

    x = b.conv("image", "stem", w(8, 3, 3, 3), rng.normal(0, 0.1, 8), RELU6, stride=2)
    spread = np.geomspace(1, 20, 6)
    x = skip = b.conv(x, "project0", w(6, 1, 1, 8) * spread[:, None, None, None], rng.normal(0, 0.1, 6))
    for i in (1, 2):
        x = b.conv(x, f"expand{i}", w(16, 1, 1, 6) / spread * 2, rng.normal(0, 0.3, 16), RELU6)
        x = b.depthwise(x, f"depthwise{i}", rng.normal(0, 0.4, (1, 3, 3, 16)), rng.normal(0.3, 0.3, 16), RELU6)
        x = b.conv(x, f"project{i}", w(6, 1, 1, 16) * spread[:, None, None, None], rng.normal(0, 0.1, 6))
        x = skip = b.add(x, skip, f"add{i}")
    x = b.mean(x, "pool")
    return b.graph(b.dense(x, "logits", rng.normal(0, 1, (classes, 6)) / spread, rng.normal(0, 0.1, classes)))


def pictures(n: int, size: int = 12, seed: int = 1) -> list[np.ndarray]:
    """(1, size, size, 3) float32 in [-1, 1], smooth as photographs are."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(-1, 1, (n, size // 4, size // 4, 3))
    fine = coarse.repeat(4, axis=1).repeat(4, axis=2) + rng.normal(0, 0.1, (n, size, size, 3))
    return [x[None] for x in np.clip(fine, -1, 1).astype(np.float32)]


def outputs(graph: Graph, xs: list[np.ndarray]) -> np.ndarray:
    """Return what a graph of one output gives for each input, in LiteRT."""
    run = Executor(graph, graph.outputs, 1)
    return np.concatenate([run(x)[0] for x in xs])
