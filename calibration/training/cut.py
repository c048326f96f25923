"""Take a float graph apart for fine-tuning: what stays as it is, what learns, and a new head in the place of the old.

A cut is an activation that everything after it is computed from: below it a frozen network can be run once and its
answers kept, above it the layers learn.
"""

from dataclasses import dataclass, replace

import numpy as np

from edgenet.calibration.training.keras_graph import layer_name, trained_constants
from edgenet.errors import InputError
from edgenet.export.graph import FUSED, WEIGHT_AXIS, Activation, Graph, Op, Tensor, multiply_adds
from edgenet.export.importers.fuse import drop_unused

TOP = 1 / 2  # of the layers with weights, counted from the head: six tenths of the work in EfficientNet-Lite
SPREAD = 1.25
WEIGHTY = 2 / 3
_HEAD = "new_head"  # of the names of its weights
_NONE = Activation.NONE
_ENDINGS = ("SOFTMAX", "LOGISTIC", "RESHAPE", "DEQUANTIZE")


@dataclass(frozen=True)
class Cut:
    """An activation. `layers` with weights stand above it, `work` is their part of all multiply-adds."""

    name: str
    shape: tuple[int, ...]  # without the batch
    layers: int
    work: float


def cuts(graph: Graph) -> tuple[Cut, ...]:
    """Return the cuts of a network, from the picture to the features: the first is the picture itself."""
    last_read = {name: i for i, op in enumerate(graph.ops) for name in op.inputs if name is not None}
    weighted = [op.kind in WEIGHT_AXIS for op in graph.ops]
    work = [multiply_adds(graph, op) for op in graph.ops]
    head = graph.producers()[head_of(graph).outputs[0]]
    found: list[Cut] = []
    alive = [graph.inputs[0]]
    for i in range(head + 1):
        alive = [n for n in alive if last_read.get(n, -1) >= i]
        if len(alive) == 1 and (not found or alive[0] != found[-1].name):
            shape = graph.tensors[alive[0]].shape[1:]
            part = sum(work[i:]) / max(1, sum(work))
            found.append(Cut(alive[0], shape, sum(weighted[i : head + 1]), part))
        alive += [n for n in graph.ops[i].outputs if n not in alive]
    return tuple(found)


def top_cut(graph: Graph) -> Cut:
    """Return the cut below which a network stays as it is while its top learns.

    Of those with at least TOP of the layers above them it is the one with the fewest, but a smaller activation within
    SPREAD of that is taken instead: the disk holds many of them.
    """
    found = cuts(graph)
    whole = found[0].layers
    found = found[1:] or found  # the picture itself would leave nothing below
    least = next((c for c in reversed(found) if c.layers >= TOP * whole), found[0])
    near = [c for c in found if least.layers <= c.layers <= SPREAD * least.layers]
    return min(near, key=lambda c: (int(np.prod(c.shape)), c.layers))


def weighty_cut(graph: Graph) -> Cut:
    """Return the cut above which most weights are, WEIGHTY of all, at the least work.

    Of a network whose pictures shrink that is little work: in EfficientNet-Lite0 three tenths for seven of the weights.
    """
    sizes = [0 if (w := _weights(graph, op)) is None else w.size for op in graph.ops]
    places = {name: i for i, op in enumerate(graph.ops) for name in op.outputs}
    found = cuts(graph)[1:] or cuts(graph)
    enough = [c for c in found if sum(sizes[places.get(c.name, -1) + 1 :]) >= WEIGHTY * sum(sizes)]
    return min(enough or found[:1], key=lambda c: (c.work, int(np.prod(c.shape))))


def _weights(graph: Graph, op: Op) -> np.ndarray | None:
    return graph.constant(op.inputs[1]) if op.kind in WEIGHT_AXIS else None


def below(graph: Graph, cut: str) -> Graph:
    """Return the network up to a cut."""
    return drop_unused(graph.with_outputs([cut]))


def above(graph: Graph, cut: str) -> Graph:
    """Return the network from a cut on."""
    later = graph.ops[graph.producers().get(cut, -1) + 1 :]
    return drop_unused(replace(graph, inputs=(cut,), ops=later))


def head_of(graph: Graph) -> Op:
    """Return the last dense layer, behind which there is no more than a softmax or a sigmoid.

    Raises:
        InputError: the network does not end in one.
    """
    producers, name = graph.producers(), graph.outputs[0]
    while name in producers and graph.ops[producers[name]].kind in _ENDINGS:
        name = str(graph.ops[producers[name]].inputs[0])
    op = graph.ops[producers[name]] if name in producers else None
    if op is None or op.kind != "FULLY_CONNECTED" or graph.constant(op.inputs[1]) is None or op.activation != _NONE:
        maker = "no operator" if op is None else f"a {op.kind}"
        raise InputError(
            f"{name} is made by {maker}, and finetune puts a new head in the place of a last dense layer without an "
            "activation: give a network that ends in one"
        )
    return op


def with_head(graph: Graph, kernel: np.ndarray, bias: np.ndarray) -> Graph:
    """Return the network with another head: kernel (C, classes), bias (classes,), probabilities out.

    Raises:
        InputError: the network does not end in a dense layer.
    """
    old = head_of(graph)
    classes, tensors = len(bias), dict(graph.tensors)
    for name, data in ((f"{_HEAD}/kernel", kernel.T), (f"{_HEAD}/bias", bias)):
        tensors[name] = Tensor(name, data.shape, "float32", np.ascontiguousarray(data, np.float32))
    logits, answer = old.outputs[0], graph.outputs[0]
    answer = answer if answer != logits else f"{logits}_probabilities"
    for name in (logits, answer):
        tensors[name] = Tensor(name, (1, classes), "float32")
    options = {**old.options, FUSED: _NONE.value, "keepNumDims": False}
    head = replace(old, inputs=(old.inputs[0], f"{_HEAD}/kernel", f"{_HEAD}/bias"), options=options)
    softmax = Op("SOFTMAX", (logits,), (answer,), {"beta": 1.0}, "SoftmaxOptions")
    ops = (*graph.ops[: graph.producers()[logits]], head, softmax)
    return drop_unused(replace(graph, tensors=tensors, ops=ops, outputs=(answer,)))


def sharpened(graph: Graph, factor: float) -> Graph:
    """Return the network with logits that are so many times as large: as sure of its answers as it should be."""
    head, tensors = head_of(graph), dict(graph.tensors)
    for name in head.inputs[1:]:
        if name is not None and (data := graph.constant(name)) is not None:
            tensors[name] = replace(tensors[name], data=(factor * data).astype(np.float32))
    return replace(graph, tensors=tensors)


def with_trained(graph: Graph, model: object) -> Graph:
    """Return the network with the weights that a model of a part of it (`float_model`) has now."""
    tensors = dict(graph.tensors)
    for name, data in trained_constants(graph, model).items():
        tensors[name] = replace(tensors[name], data=data)
    return replace(graph, tensors=tensors)


def depths(graph: Graph) -> dict[str, float]:
    """Return how far each layer with weights is from the head, by its layer's name: 0 for the head, 1 for the first."""
    names = [layer_name(op.outputs[0]) for op in graph.ops if op.kind in WEIGHT_AXIS]
    return {name: (len(names) - 1 - i) / max(1, len(names) - 1) for i, name in enumerate(names)}
