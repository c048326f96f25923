"""Round a network's weights so that its layers' outputs move least: second-order error feedback and bias correction.

Layer by layer, in the order they run, in the network quantized so far: the rounding error of one weight is made good by
those of the same output channel that are not rounded yet, as the covariance of the layer's inputs says (optimal brain
quantization in the form of GPTQ, https://arxiv.org/abs/2210.17323), and the bias takes back what is left of the mean
(https://arxiv.org/abs/1906.04721, section 4.2). Before it is rounded, a layer is moved a little towards giving the float
network's output from the quantized network's input. Unlabelled pictures, closed form, no random numbers: the same
pictures always give the same integers.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgenet.calibration.execute import Executor
from edgenet.calibration.quantize import WEIGHT_AXIS, Weight, constant_weights, quantize, weight_scale
from edgenet.errors import InputError
from edgenet.export.graph import Graph, Op, Quantization
from edgenet.results import Calibration

DAMPING = 0.01  # of the mean variance, added to each input's: GPTQ's own
PULL = 0.1  # the same, for the step towards the float output: larger, since it moves weights instead of rounding them
SAMPLES = 32768  # positions that a layer's covariance is taken from, at least; 16 for each input of the layer
DEPTHWISE_SAMPLES = 2048  # a depthwise kernel has 9 or 25 inputs
MAX_BYTES = 2**30  # for the activations that are kept at one time


@dataclass(frozen=True)
class _Moments:
    """What a layer's input looks like: float network's and quantized one's. T taps times input channels, G groups.

    A convolution and a dense layer have one group; a depthwise one has a group a channel.
    """

    mean: np.ndarray  # (G, T) of the quantized network's input
    float_mean: np.ndarray  # (G, T)
    covariance: np.ndarray  # (G, T, T)
    cross: np.ndarray  # (G, T, T): float (rows) with quantized (columns)


def round_with_feedback(
    graph: Graph,
    inputs: Iterable[np.ndarray],
    calibration: Calibration,
    *,
    bits: int = 8,
    precision: str = "int8",
    exceptions: Mapping[str, str] | None = None,
    feedback: bool = True,
    bias_correction: bool = True,
    reconstruction: bool = True,
    images: int = 48,
    threads: int | None = None,
) -> dict[str, Weight]:
    """Return the weights of every operator that has some, by the name of its output, for `quantize(weights=...)`.

    Args:
        graph: float operators.
        inputs: what the graph takes, one picture each: (1, H, W, 3) float32, normalised. The first `images` are used,
            or fewer where the activations would need more than a gigabyte.
        calibration: ranges of every activation.
        bits: of the weights, 2 to 8.
        precision: "int8" or "int16x8": what the activations are rounded to; "weight-only": not at all.
        exceptions: as `quantize` takes them.
        feedback: second-order; without it each weight is rounded to the nearest integer.
        bias_correction: of the mean of each output channel.
        reconstruction: move weights towards the float output first; needs `feedback`.

    Raises:
        InputError: bits out of range, or no picture.
    """
    if not 2 <= bits <= 8:
        raise InputError(f"weights can have 2 to 8 bits, not {bits}")
    grid = _grid(graph, precision, calibration, exceptions)
    most = max(2 * 4 * int(np.prod(graph.tensors[n].shape)) for n in graph.activations())
    pictures = [x for x, _ in zip(inputs, range(max(1, min(images, MAX_BYTES // most))), strict=False)]
    if not pictures:
        raise InputError("no picture to calibrate with: give a folder of photographs with --images")
    run = _Streams(graph, grid, np.stack(pictures), threads or os.cpu_count() or 1)
    weights = {}
    for op in graph.ops:
        w = constant_weights(graph, op)
        if w is not None:
            moments = run.moments(op, w)
            weights[op.outputs[0]] = _layer(graph, op, w, moments, bits, feedback, bias_correction, reconstruction)
        run.advance(op, weights.get(op.outputs[0]))
    return weights


def _grid(
    graph: Graph, precision: str, calibration: Calibration, exceptions: Mapping[str, str] | None
) -> dict[str, tuple[str, Quantization]]:
    """Return integer type and scale of each activation that `quantize` stores as integers."""
    if precision == "weight-only":
        return {}
    stored = quantize(graph, precision, calibration, exceptions=exceptions).tensors
    fed = {n: stored.get(f"{n}_int8") or stored.get(f"{n}_int16") for n in graph.inputs}
    found = {n: fed.get(n) or stored[n] for n in graph.activations() if n in stored}
    return {n: (t.dtype, t.quantization) for n, t in found.items() if t.quantization is not None}


class _Streams:
    """The activations of all pictures at one place of the network, in float and as quantized so far."""

    def __init__(self, graph: Graph, grid: dict[str, tuple[str, Quantization]], x: np.ndarray, threads: int) -> None:
        self.graph, self.grid, self.threads = graph, grid, threads
        self.last = {n: indices[-1] for n, indices in graph.consumers().items() if indices}
        self.index = {op.outputs[0]: i for i, op in enumerate(graph.ops)}
        name = graph.inputs[0]
        self.float = {name: x}  # (P, 1, H, W, C) float32
        self.stored = {name: _store(x, grid.get(name))}  # the same, integers where the network keeps integers

    def real(self, name: str, rows: slice | np.ndarray = slice(None)) -> np.ndarray:
        """Return activations of the quantized network as real numbers, float32."""
        x = self.stored[name][rows]
        if name not in self.grid:
            return x
        q = self.grid[name][1]
        return (x.astype(np.float32) - np.float32(q.zero_point[0])) * np.float32(q.scale[0])

    def advance(self, op: Op, weight: Weight | None) -> None:
        """Run one operator in both networks and forget what no later one reads."""
        plain = _run(self.graph, op, self.float, self.threads)
        fed = {n: self.real(n) for n in op.inputs if n in self.stored}
        quantized = _run(_with_weight(self.graph, op, weight), op, fed, self.threads)
        for name in op.outputs:
            if name in self.last:
                self.float[name] = plain[name]
                self.stored[name] = _store(quantized[name], self.grid.get(name))
        here = self.index[op.outputs[0]]
        for name in {n for n in op.inputs if n in self.float and self.last[n] == here}:
            del self.float[name], self.stored[name]

    def moments(self, op: Op, w: np.ndarray) -> _Moments:
        name = str(op.inputs[0])
        x, n = self.float[name], len(self.float[name])
        if op.kind == "FULLY_CONNECTED":
            taps, picked = w.shape[1], slice(None)
            a, b = x.reshape(-1, taps), self.real(name).reshape(-1, taps)
            return _moments(a.mean(0)[None], b.mean(0)[None], a[None], b[None])
        kernel = w.shape[1:3]
        geometry = _Geometry.of(op, kernel, x.shape[2:4])
        depthwise = op.kind == "DEPTHWISE_CONV_2D"
        channels = x.shape[-1]
        taps = kernel[0] * kernel[1] * (1 if depthwise else channels)
        wanted = DEPTHWISE_SAMPLES if depthwise else max(SAMPLES, 16 * taps)
        every = max(1, n * geometry.positions // wanted)
        means = [_grouped(geometry.patches(m.mean(0)), depthwise).mean(1) for m in (x, self.real(name))]
        sampled = [], []
        for i in range(n):  # each picture starts elsewhere, so that all positions are seen
            picked = np.arange(i % every, geometry.positions, every)
            if len(picked):
                sampled[0].append(geometry.patches(x[i], picked))
                sampled[1].append(geometry.patches(self.real(name, np.array([i]))[0], picked))
        a, b = (_grouped(np.concatenate(s), depthwise) for s in sampled)
        return _moments(means[0], means[1], a, b)


def _moments(float_mean: np.ndarray, mean: np.ndarray, x: np.ndarray, xq: np.ndarray) -> _Moments:
    """x, xq: (G, n, T) samples of the float and of the quantized network."""
    x, xq = x - x.mean(1, keepdims=True), xq - xq.mean(1, keepdims=True)
    t = np.ascontiguousarray(xq.transpose(0, 2, 1))
    n = x.shape[1]
    return _Moments(
        mean.astype(np.float64),
        float_mean.astype(np.float64),
        np.matmul(t, xq).astype(np.float64) / n,
        np.matmul(t, x).astype(np.float64).transpose(0, 2, 1) / n,
    )


def _grouped(patches: np.ndarray, depthwise: bool) -> np.ndarray:
    """(n, taps, C) -> (1, n, taps * C), or (C, n, taps) for a depthwise kernel."""
    if depthwise:
        return np.ascontiguousarray(patches.transpose(2, 0, 1))
    return patches.reshape(1, len(patches), -1)


@dataclass(frozen=True)
class _Geometry:
    """Which inputs each output position of a convolution reads."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    before: tuple[int, int]  # padding
    after: tuple[int, int]
    out: tuple[int, int]

    @classmethod
    def of(cls, op: Op, kernel: Any, size: Any) -> "_Geometry":
        stride = (op.options["strideH"], op.options["strideW"])
        dilation = (op.options.get("dilationHFactor", 1), op.options.get("dilationWFactor", 1))
        out, before, after = [], [], []
        for k, s, d, n in zip(kernel, stride, dilation, size, strict=True):
            reach = (k - 1) * d + 1
            same = op.options["padding"] == 0
            out.append(-(-n // s) if same else -(-(n - reach + 1) // s))
            pad = max((out[-1] - 1) * s + reach - n, 0) if same else 0
            before.append(pad // 2)
            after.append(pad - pad // 2)
        return cls(tuple(kernel), stride, dilation, tuple(before), tuple(after), tuple(out))  # type: ignore[arg-type]

    @property
    def positions(self) -> int:
        return self.out[0] * self.out[1]

    def patches(self, x: np.ndarray, picked: np.ndarray | None = None) -> np.ndarray:
        """Return (positions, taps, C) of one picture x: (1, H, W, C), at the picked positions or at all."""
        picked = np.arange(self.positions) if picked is None else picked
        rows, columns = picked // self.out[1] * self.stride[0], picked % self.out[1] * self.stride[1]
        if self.kernel == (1, 1):
            return x[0][rows, columns][:, None]
        padded = np.pad(x[0], ((self.before[0], self.after[0]), (self.before[1], self.after[1]), (0, 0)))
        taps = [(i * self.dilation[0], j * self.dilation[1]) for i in range(self.kernel[0]) for j in range(self.kernel[1])]
        return np.stack([padded[rows + i, columns + j] for i, j in taps], axis=1)


def _store(x: np.ndarray, grid: tuple[str, Quantization] | None) -> np.ndarray:
    if grid is None:
        return x
    info = np.iinfo(grid[0])
    y = x * np.float32(1 / grid[1].scale[0])
    np.rint(y, out=y)
    y += np.float32(grid[1].zero_point[0])
    return np.clip(y, info.min, info.max, out=y).astype(grid[0])


def _run(graph: Graph, op: Op, feeds: Mapping[str, np.ndarray], threads: int) -> dict[str, np.ndarray]:
    """Return the outputs of one operator for all pictures, each (P, *shape)."""
    fed = tuple(dict.fromkeys(n for n in op.inputs if n is not None and graph.tensors[n].data is None))
    run = Executor(Graph(op.kind, graph.tensors, (op,), fed, op.outputs), op.outputs, threads)
    pictures = len(feeds[fed[0]])
    out = {n: np.empty((pictures, *graph.tensors[n].shape), graph.tensors[n].dtype) for n in op.outputs}
    for i in range(pictures):
        for name, y in zip(op.outputs, run(*(feeds[n][i] for n in fed)), strict=True):
            out[name][i] = y
    return out


def _with_weight(graph: Graph, op: Op, weight: Weight | None) -> Graph:
    """Return the graph with the rounded weights of `op` in the place of the float ones."""
    if weight is None:
        return graph
    shape = [1] * weight.values.ndim
    shape[weight.axis] = -1
    tensors = dict(graph.tensors)
    t = tensors[str(op.inputs[1])]
    tensors[t.name] = replace(t, data=weight.values.astype(np.float32) * weight.scale.reshape(shape))
    if weight.bias is not None and len(op.inputs) > 2 and op.inputs[2] is not None:
        tensors[op.inputs[2]] = replace(tensors[op.inputs[2]], data=weight.bias)
    return replace(graph, tensors=tensors)


def _layer(
    graph: Graph, op: Op, w: np.ndarray, m: _Moments, bits: int, feedback: bool, bias_correction: bool, reconstruction: bool
) -> Weight:
    axis, limit = WEIGHT_AXIS[op.kind], 2 ** (bits - 1) - 1
    channels = w.shape[axis]
    rows = np.moveaxis(w, axis, 0).reshape(channels, -1).astype(np.float64)  # (C, T)
    depthwise = op.kind == "DEPTHWISE_CONV_2D"
    multiplier = channels // len(m.mean) if depthwise else channels  # output channels of a group
    grouped = rows.reshape(len(m.mean), multiplier, -1)  # (G, R, T)
    target = np.einsum("grt,gt->gr", grouped, m.float_mean)
    if feedback and reconstruction:
        grouped = _towards_float(grouped, m)
    scale = weight_scale(grouped.reshape(channels, -1), 0, bits)
    s = scale.astype(np.float64).reshape(grouped.shape[:2])
    if feedback:
        q = _round_with_feedback(grouped, s, m.covariance, limit)
    else:
        q = np.clip(np.rint(grouped / s[..., None]), -limit, limit)
    stored = op.inputs[2] if len(op.inputs) > 2 else None
    bias = None
    if bias_correction and stored is not None:
        shift = target - np.einsum("grt,gt->gr", q * s[..., None], m.mean)
        bias = (graph.constant(stored) + shift.reshape(-1)).astype(np.float32)
    shape = (channels, *(n for i, n in enumerate(w.shape) if i != axis))
    values = np.moveaxis(q.reshape(shape), 0, axis).astype(np.int8)
    return Weight(np.ascontiguousarray(values), scale, axis, bias)


def _towards_float(w: np.ndarray, m: _Moments) -> np.ndarray:
    """Return the weights that give the float output from the quantized input, by least squares pulled towards `w`.

    w: (G, R, T). Minimises |w x - v xq|^2 + pull |v - w|^2: v = w + w (cov(x, xq) - cov(xq)) (cov(xq) + pull)^-1.
    """
    size = m.covariance.shape[-1]
    pull = PULL * np.trace(m.covariance, axis1=1, axis2=2) / size + 1e-12
    regular = m.covariance + pull[:, None, None] * np.eye(size)
    moved = np.linalg.solve(regular, (w @ (m.cross - m.covariance)).transpose(0, 2, 1))
    return w + moved.transpose(0, 2, 1)


def _round_with_feedback(w: np.ndarray, scale: np.ndarray, covariance: np.ndarray, limit: int, block: int = 64) -> np.ndarray:
    """Return integers (G, R, T), rounded one input after another, the largest variance first.

    w: (G, R, T). scale: (G, R). covariance: (G, T, T) of the layer's inputs.
    """
    groups, _, size = w.shape
    variance = np.diagonal(covariance, axis1=1, axis2=2)  # (G, T)
    order = np.argsort(-variance, axis=1, kind="stable")
    h = np.take_along_axis(np.take_along_axis(covariance, order[:, :, None], 1), order[:, None, :], 2)
    damping = DAMPING * variance.mean(1) + 1e-12
    h = h + damping[:, None, None] * np.eye(size)
    # Row i of the upper factor of the inverse says how the inputs after i make good an error in i.
    factor = np.linalg.cholesky(np.linalg.inv(h)).transpose(0, 2, 1)
    left = np.take_along_axis(w, order[:, None, :], 2).transpose(0, 2, 1).copy()  # (G, T, R): what is not rounded yet
    q = np.empty_like(left)
    for start in range(0, size, block):
        stop = min(start + block, size)
        errors = np.empty((groups, stop - start, w.shape[1]))
        for i in range(start, stop):
            q[:, i] = np.clip(np.rint(left[:, i] / scale), -limit, limit)
            error = (left[:, i] - q[:, i] * scale) / factor[:, i, i, None]
            errors[:, i - start] = error
            left[:, i + 1 : stop] -= factor[:, i, i + 1 : stop, None] * error[:, None, :]
        left[:, stop:] -= factor[:, start:stop, stop:].transpose(0, 2, 1) @ errors
    out = np.empty_like(w)
    np.put_along_axis(out, np.broadcast_to(order[:, None, :], w.shape), q.transpose(0, 2, 1), 2)
    return out
