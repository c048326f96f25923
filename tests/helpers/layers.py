"""A network of a few layers, pictures for it, and what it gives."""

import numpy as np

from edgenet.calibration.execute import Executor
from edgenet.export.graph import Graph, fused
from helpers.graph_builder import RELU6, Builder


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


def silu(b: Builder, x: str, out: str) -> str:
    """x * sigmoid(x), as an importer draws it."""
    shape = b.tensors[x].shape
    sigmoid = b.op("LOGISTIC", [x], shape, out=f"{out}_sigmoid")
    return b.op("MUL", [x, sigmoid], shape, "MulOptions", out=out, **fused())


def gated(
    seed: int = 0, size: int = 16, unlike: float = 200.0, classes: int = 5, channels: int = 24, stride: int = 1
) -> Graph:
    """An inverted residual block with SiLU and squeeze and excite; the channels of x before a SiLU differ by `unlike`.

    The depthwise kernel that reads a SiLU makes up for its channel, as those of a trained EfficientNet do.
    """
    rng = np.random.default_rng(seed)
    b, c = Builder(1, size, size, 3), channels
    spread = np.geomspace(unlike**-0.5, unlike**0.5, c)

    def w(*shape: int) -> np.ndarray:
        return rng.normal(0, (2 / np.prod(shape[1:])) ** 0.5, shape)

    x = b.conv("image", "expand", w(c, 3, 3, 3) * spread[:, None, None, None], rng.normal(0, 0.2, c) * spread)
    x = silu(b, x, "expanded")
    w_depthwise = rng.normal(0, 0.4, (1, 3, 3, c)) / spread * 2
    x = b.depthwise(x, "depthwise", w_depthwise, rng.normal(0.2, 0.2, c), stride=stride)
    x = wide = silu(b, x, "filtered")
    x = b.mean(x, "squeeze", keep=True)
    x = silu(b, b.conv(x, "reduce", w(6, 1, 1, c), rng.normal(0, 0.1, 6)), "reduced")
    x = b.conv(x, "excite", w(c, 1, 1, 6), rng.normal(0, 0.5, c))
    x = b.op("LOGISTIC", [x], (1, 1, 1, c), out="gate")
    x = b.op("MUL", [wide, x], b.tensors[wide].shape, "MulOptions", out="gated", **fused())
    x = b.mean(b.conv(x, "project", w(8, 1, 1, c), rng.normal(0, 0.1, 8)), "pool")
    return b.graph(b.dense(x, "logits", w(classes, 8), rng.normal(0, 0.1, classes)))
