"""Give every channel of an activation the same range, by a change of the network that leaves its function as it was.

An int8 activation has one scale for all its channels, so that a channel with a tenth of the tensor's range is stored in
25 levels. Scaling a channel where it is made and undoing it where it is read costs nothing at run time. Equalisation as
of https://arxiv.org/abs/1906.04721, but towards the activations instead of the weights (whose scales are per channel and
absorb it on the side that makes the channel), and across residual additions, which have to scale alike. Three changes:

- scale: wherever a convolution makes a channel and convolutions read it, through additions, pools and ReLU;
- shift: the mean of a channel is taken out of the bias of the convolution that makes it and put into the biases of those
  that read it, where nothing but 1x1 convolutions, additions and dense layers do (zero padding would not be zero);
- widen: below a ReLU6 a channel that never comes near 6 is scaled up until it does. This alone is not exact: such a
  channel is now cut at `margin` times the largest value of the calibration pictures.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from edgenet.calibration.quantize import WEIGHT_AXIS, constant_weights
from edgenet.export.graph import Graph, Op, Tensor

NONE, RELU, RELU6 = 0, 1, 3  # of the schema's ActivationFunctionType
SAME_PADDING = 0  # of the schema's Padding
PASSES = {"MAX_POOL_2D", "AVERAGE_POOL_2D", "MEAN", "RELU"}  # a scaled channel in is the scaled channel out
MAX_SCALE = 64.0  # a channel that is nearly dead is not blown up further
WIDEN_MARGIN = 1.1  # over the largest value seen


@dataclass(frozen=True)
class ChannelStats:
    """What the calibration pictures say of one activation, by channel."""

    low: np.ndarray  # (C,)
    high: np.ndarray  # (C,)
    mean: np.ndarray  # (C,)


def equalize(graph: Graph, stats: Mapping[str, ChannelStats], *, shift: bool = True, widen: bool = True) -> Graph:
    """Return the float graph with channels of one range; inputs, outputs and all names stay.

    Args:
        graph: float operators.
        stats: of every float activation, as measure_channels gives them.
        shift, widen: whether to do these too (see above).

    The ranges of the result are others: measure them on it.
    """
    scales = _scales(graph, stats, widen, shifts := _shifts(graph, stats) if shift else {})
    tensors, ops = dict(graph.tensors), []
    for op in graph.ops:
        w = constant_weights(graph, op)
        touched = {str(op.inputs[0]), op.outputs[0]} & (scales.keys() | shifts.keys())
        ops.append(_rewrite(graph, tensors, op, w, scales, shifts) if w is not None and touched else op)
    return replace(graph, tensors=tensors, ops=tuple(ops))


def _rewrite(
    graph: Graph, tensors: dict[str, Tensor], op: Op, w: np.ndarray, scales: Mapping[str, np.ndarray],
    shifts: Mapping[str, np.ndarray],
) -> Op:  # fmt: skip
    """y = W x + b becomes s_out (W / s_in) x' + s_out (b + W d_in - d_out), with x' = s_in (x - d_in)."""
    x, out, channels = str(op.inputs[0]), op.outputs[0], w.shape[WEIGHT_AXIS[op.kind]]
    bias = graph.constant(op.inputs[2]) if len(op.inputs) > 2 else None
    b = np.zeros(channels) if bias is None else bias.astype(np.float64)
    new = w.astype(np.float64)
    if x in shifts:
        b = b + np.moveaxis(new, WEIGHT_AXIS[op.kind], 0).reshape(channels, -1) @ shifts[x]
    if x in scales:
        new = new / scales[x]  # the input's channels, and a depthwise kernel's only ones, come last
    b = b - shifts.get(out, 0.0)
    if out in scales:
        shape = [1] * w.ndim
        shape[WEIGHT_AXIS[op.kind]] = -1
        new, b = new * scales[out].reshape(shape), b * scales[out]
    names = (f"{out}_equalized_weights", f"{out}_equalized_bias")
    tensors[names[0]] = Tensor(names[0], w.shape, "float32", new.astype(np.float32))
    tensors[names[1]] = Tensor(names[1], b.shape, "float32", b.astype(np.float32))
    return replace(op, inputs=(x, *names))


def _shifts(graph: Graph, stats: Mapping[str, ChannelStats]) -> dict[str, np.ndarray]:
    """Return the mean of each channel that can be taken out. Means add up, so an addition's is right by itself."""
    producers, consumers = graph.producers(), graph.consumers()

    def alone(name: str) -> bool:
        if name not in producers or name in graph.outputs or name not in stats:
            return False
        made = graph.ops[producers[name]]
        if made.options.get("fusedActivationFunction", NONE) != NONE:
            return False
        if not (_is_sum(graph, made) or constant_weights(graph, made) is not None):
            return False
        return all(_is_sum(graph, o) or _is_dot(graph, o, name) for o in (graph.ops[i] for i in consumers[name]))

    groups = _groups(graph, lambda op: _is_sum(graph, op))
    chosen = [g for g in groups if all(alone(n) for n in g)]
    out: dict[str, np.ndarray] = {}
    for op in graph.ops:  # in order, so that an addition takes exactly what its inputs were given
        name = op.outputs[0]
        if any(name in g for g in chosen):
            out[name] = (
                out[str(op.inputs[0])] + out[str(op.inputs[1])]
                if _is_sum(graph, op)
                else stats[name].mean.astype(np.float64)
            )
    return out


def _scales(
    graph: Graph, stats: Mapping[str, ChannelStats], widen: bool, shifts: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    producers, consumers = graph.producers(), graph.consumers()

    def free(name: str) -> bool:
        if name not in producers or name in graph.outputs or name not in stats:
            return False
        made = graph.ops[producers[name]]
        activation = made.options.get("fusedActivationFunction", NONE)
        if activation not in (NONE, RELU) and not (widen and activation == RELU6):
            return False
        if not (_passes(graph, made) or _absorbs(graph, made)):
            return False
        return all(_passes(graph, o) or _absorbs(graph, o) for o in (graph.ops[i] for i in consumers[name]))

    out: dict[str, np.ndarray] = {}
    for group in _groups(graph, lambda op: _passes(graph, op)):
        if not all(free(n) for n in group):
            continue
        capped = [n for n in group if graph.ops[producers[n]].options.get("fusedActivationFunction", NONE) == RELU6]
        if capped:
            # Only what is read by depthwise kernels: there the weights' scale per channel absorbs the change.
            if len(group) > 1 or any(graph.ops[i].kind != "DEPTHWISE_CONV_2D" for i in consumers[group[0]]):
                continue
            high = stats[group[0]].high.astype(np.float64) * WIDEN_MARGIN
            scale = np.where(high > 0, np.clip(6.0 / np.maximum(high, 1e-9), 1.0, MAX_SCALE), 1.0)
        else:
            width = np.sqrt(np.mean([_width(stats[n], shifts.get(n, 0.0)) ** 2 for n in group], axis=0))  # (C,)
            alive = width > width.max() * 1e-6
            scale = np.where(alive, np.minimum(width.max() / np.maximum(width, 1e-30), MAX_SCALE), 1.0)
        out.update(dict.fromkeys(group, scale))
    return out


def _width(s: ChannelStats, shift: np.ndarray | float) -> np.ndarray:
    """Largest magnitude of each channel, about its shift."""
    return np.maximum(np.abs(s.low - shift), np.abs(s.high - shift)).astype(np.float64)


def _groups(graph: Graph, joins: Callable[[Op], bool]) -> list[list[str]]:
    """Return the activations in sets that must be changed alike, in the order they are made."""
    parent = {n: n for n in graph.activations()}

    def root(n: str) -> str:
        while parent[n] != n:
            n = parent[n]
        return n

    for op in graph.ops:
        if joins(op):
            for n in _operands(graph, op):
                parent[root(n)] = root(op.outputs[0])
    found: dict[str, list[str]] = {}
    for n in graph.activations():
        found.setdefault(root(n), []).append(n)
    return list(found.values())


def _operands(graph: Graph, op: Op) -> Iterable[str]:
    return (n for n in op.inputs if n is not None and graph.tensors[n].data is None)


def _is_sum(graph: Graph, op: Op) -> bool:
    """An addition of two activations of one shape, with nothing fused."""
    shapes = [graph.tensors[n].shape for n in _operands(graph, op)]
    plain = op.options.get("fusedActivationFunction", NONE) == NONE
    return op.kind == "ADD" and plain and len(shapes) == 2 and shapes[0] == shapes[1]


def _passes(graph: Graph, op: Op) -> bool:
    activation = op.options.get("fusedActivationFunction", NONE)
    if op.kind == "ADD":
        shapes = [graph.tensors[n].shape for n in _operands(graph, op)]
        return activation in (NONE, RELU) and len(shapes) == 2 and shapes[0] == shapes[1]
    if op.kind == "MEAN":
        rank = len(graph.tensors[str(op.inputs[0])].shape)
        axes = graph.constant(op.inputs[1])
        return axes is not None and rank - 1 not in [int(a) % rank for a in axes.ravel()]
    return op.kind in PASSES and activation in (NONE, RELU)


def _absorbs(graph: Graph, op: Op) -> bool:
    """Whether the weights of `op` can take a scale of any input or output channel."""
    w = constant_weights(graph, op)
    if w is None:
        return False
    return graph.tensors[str(op.inputs[0])].shape[-1] == w.shape[-1]  # no groups, no depth multiplier


def _is_dot(graph: Graph, op: Op, name: str) -> bool:
    """Whether `op` sums the channels of one position (a 1x1 convolution, a dense layer), never those of a padded one."""
    w = constant_weights(graph, op)
    if w is None or op.inputs[0] != name or not _absorbs(graph, op):
        return False
    return op.kind == "FULLY_CONNECTED" or (op.kind == "CONV_2D" and w.shape[1] == w.shape[2] == 1)
