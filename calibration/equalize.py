"""Give every channel of an activation the same range, by a change of the network that leaves its function as it was.

An int8 activation has one scale for all its channels, so that a channel with a tenth of the tensor's range is stored in
25 levels. Scaling a channel where it is made and undoing it where it is read costs nothing at run time, and is exact
wherever convolutions make a channel and convolutions read it, through additions (which have to scale alike), pools and
ReLU: the bottlenecks of MobileNetV2 and EfficientNet-Lite, the inside of a ResNet block. Across ReLU6 it is not, so
nothing is done there. As https://arxiv.org/abs/1906.04721, but for the activations instead of the weights, which have
a scale a channel on the side that makes it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np

from edgenet.calibration.quantize import WEIGHT_AXIS, constant_weights
from edgenet.calibration.ranges import Observation
from edgenet.export.graph import Graph, Op, Tensor

NONE, RELU = 0, 1  # of the schema's ActivationFunctionType
PASSES = {"MAX_POOL_2D", "AVERAGE_POOL_2D", "RELU"}  # a scaled channel in is the scaled channel out
MAX_SCALE = 64.0  # a channel that is nearly dead is not blown up further


def equalize(graph: Graph, observations: Mapping[str, Observation]) -> Graph:
    """Return the float graph with channels of one range; inputs, outputs and all names of activations stay.

    Args:
        graph: float operators.
        observations: of every activation of `equalizable`, as `observe` gives them.

    The ranges of the result are others: observe it again.
    """
    scales = _scales(graph, observations)
    tensors, ops = dict(graph.tensors), []
    for op in graph.ops:
        w = constant_weights(graph, op)
        touched = op.inputs[0] in scales or op.outputs[0] in scales
        ops.append(_rewrite(graph, tensors, op, w, scales) if w is not None and touched else op)
    return replace(graph, tensors=tensors, ops=tuple(ops))


def _rewrite(graph: Graph, tensors: dict[str, Tensor], op: Op, w: np.ndarray, scales: Mapping[str, np.ndarray]) -> Op:
    """y = W x + b becomes s_out y = (s_out W / s_in) (s_in x) + s_out b."""
    x, out, axis = str(op.inputs[0]), op.outputs[0], WEIGHT_AXIS[op.kind]
    shape = [1] * w.ndim
    shape[axis] = -1
    new = w.astype(np.float64)
    if x in scales:
        new = new / scales[x]  # the input's channels come last, a depthwise kernel's only ones too
    if out in scales:
        new = new * scales[out].reshape(shape)
    weights, stored = f"{out}_equalized_weights", op.inputs[2] if len(op.inputs) > 2 else None
    tensors[weights] = Tensor(weights, w.shape, "float32", new.astype(np.float32))
    bias = graph.constant(stored)
    if bias is not None and out in scales:
        stored = f"{out}_equalized_bias"
        tensors[stored] = Tensor(stored, bias.shape, "float32", (bias * scales[out]).astype(np.float32))
    return replace(op, inputs=(x, weights, stored))


def equalizable(graph: Graph) -> list[list[str]]:
    """Return the activations whose channels can be scaled, in sets that must be scaled alike."""
    producers, consumers = graph.producers(), graph.consumers()

    def free(name: str) -> bool:
        if name not in producers or name in graph.outputs or graph.tensors[name].dtype != "float32":
            return False
        around = [graph.ops[producers[name]], *(graph.ops[i] for i in consumers[name])]
        return _linear(around[0]) and all(_passes(graph, op) or _absorbs(graph, op) for op in around)

    return [group for group in _groups(graph) if all(map(free, group))]


def _scales(graph: Graph, observations: Mapping[str, Observation]) -> dict[str, np.ndarray]:
    """Return the factor of each channel, (C,), at least 1, of each activation that can be scaled."""
    out: dict[str, np.ndarray] = {}
    for group in equalizable(graph):
        # The root mean square over the group: the widest of its activations has the largest error, and counts most.
        peaks = [np.maximum(-observations[n].low, observations[n].high).astype(np.float64) for n in group]
        width = np.sqrt(np.mean(np.square(peaks), axis=0))  # (C,)
        alive = width > width.max() * 1e-6
        scale = np.where(alive, np.minimum(width.max() / np.maximum(width, 1e-30), MAX_SCALE), 1.0)
        out.update(dict.fromkeys(group, scale))
    return out


def _groups(graph: Graph) -> list[list[str]]:
    """Return the activations in sets that must be scaled alike, in the order they are made."""
    parent = {n: n for n in graph.activations()}

    def root(n: str) -> str:
        while parent[n] != n:
            n = parent[n]
        return n

    for op in graph.ops:
        if _passes(graph, op):
            for n in _operands(graph, op):
                parent[root(n)] = root(op.outputs[0])
    found: dict[str, list[str]] = {}
    for n in graph.activations():
        found.setdefault(root(n), []).append(n)
    return list(found.values())


def _operands(graph: Graph, op: Op) -> Iterable[str]:
    return (n for n in op.inputs if n is not None and graph.tensors[n].data is None)


def _linear(op: Op) -> bool:
    return op.options.get("fusedActivationFunction", NONE) in (NONE, RELU)


def _passes(graph: Graph, op: Op) -> bool:
    """Whether scaling the channels of all inputs scales those of the output alike."""
    if not _linear(op):
        return False
    if op.kind == "ADD":
        shapes = [graph.tensors[n].shape for n in _operands(graph, op)]
        return len(shapes) == 2 and shapes[0] == shapes[1]
    if op.kind == "MEAN":
        rank = len(graph.tensors[str(op.inputs[0])].shape)
        axes = graph.constant(op.inputs[1])
        return axes is not None and rank - 1 not in [int(a) % rank for a in axes.ravel()]
    return op.kind in PASSES


def _absorbs(graph: Graph, op: Op) -> bool:
    """Whether the weights of `op` can take a scale of any input or output channel: no groups, no depth multiplier."""
    w = constant_weights(graph, op)
    return w is not None and graph.tensors[str(op.inputs[0])].shape[-1] == w.shape[-1]
