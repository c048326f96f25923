"""Use dead channels of the first convolution for second copies of those that int8 hurts most, at no cost.

A trained network's first convolution often has channels that are zero for every picture. It also has channels of which
the depthwise kernel that follows takes only differences of neighbours, times 10; there a rounding step is large beside
the result. Such a channel is copied into a dead one, shifted by a part of a step, and the pointwise convolution that
follows reads the mean of both. The two round differently, so that the mean has half the step. The operators, their
shapes and the size of the file stay the same.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from edgenet.calibration.execute import Executor
from edgenet.calibration.quantize import constant_weights
from edgenet.export.graph import Activation, Graph, Op, Tensor

STEPS = 255  # of an int8 activation


@dataclass(frozen=True)
class _Chain:
    """Three operators, of which each is the only one that reads the output of the one before."""

    first: Op  # convolution of the input, C channels
    depthwise: Op
    last: Op  # pointwise convolution of the C channels


def use_dead_channels(graph: Graph, low: np.ndarray, high: np.ndarray, inputs: Iterable[np.ndarray]) -> Graph:
    """Return the float graph with its dead first channels put to use; the names of its activations stay.

    Args:
        graph: float operators.
        low, high: (C,) the limits of each channel of the input, for any picture.
        inputs: what the graph takes, one picture each, (1, H, W, 3) float32: they show which channels suffer most.

    The graph is returned unchanged where it does not begin with a convolution, a depthwise and a pointwise one, or
    where `low` and `high` prove no channel dead.
    """
    chain = _chain(graph)
    if chain is None:
        return graph
    dead = _dead(graph, chain.first, low, high)
    if not len(dead):
        return graph
    noise, step = _noise(graph, chain, inputs)
    return _with_copies(graph, chain, _share_out(noise, dead), step)


def _chain(graph: Graph) -> _Chain | None:
    if len(graph.inputs) != 1:
        return None
    consumers, ops, name = graph.consumers(), [], graph.inputs[0]
    for kind in ("CONV_2D", "DEPTHWISE_CONV_2D", "CONV_2D"):
        readers = [graph.ops[i] for i in consumers[name]]
        if len(readers) != 1 or readers[0].kind != kind or name in graph.outputs:
            return None
        w = constant_weights(graph, readers[0])
        channels = graph.tensors[name].shape[-1]
        bias = graph.constant(readers[0].inputs[2]) if len(readers[0].inputs) > 2 else None
        if w is None or w.shape[-1] != channels or bias is None:
            return None  # groups, a depth multiplier, or numbers that are computed
        ops.append(readers[0])
        name = readers[0].outputs[0]
    chain = _Chain(*ops)
    relus = (Activation.RELU, Activation.RELU6)
    known = chain.first.activation in relus and chain.depthwise.activation in (Activation.NONE, *relus)
    pointwise = graph.tensors[str(chain.last.inputs[1])].shape[1:3] == (1, 1)
    return chain if known and pointwise else None


def _dead(graph: Graph, op: Op, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Return the channels whose sum is at most zero for any input; padding is zero."""
    w = graph.tensors[str(op.inputs[1])].data
    bias = graph.constant(op.inputs[2])
    assert w is not None
    assert bias is not None
    most = np.maximum(w * np.minimum(low, 0.0), w * np.maximum(high, 0.0)).sum((1, 2, 3), dtype=np.float64)
    return np.flatnonzero(bias + most <= 0)


def _noise(graph: Graph, chain: _Chain, inputs: Iterable[np.ndarray]) -> tuple[np.ndarray, float]:
    """Return the variance, (C,), that rounding each channel of the first activation adds to the last, and the step."""
    first, middle = chain.first.outputs[0], chain.depthwise.outputs[0]
    before = Executor(graph, (first,), 1)
    after = Executor(Graph("after", graph.tensors, (chain.depthwise,), (first,), (middle,)), (middle,), 1)
    seen = [before(x)[0] for x in inputs]
    step = max(float(y.max()) for y in seen) / STEPS or 1.0  # where no channel fires at all, nothing is rounded
    power = np.zeros(graph.tensors[middle].shape[-1])
    for y in seen:
        moved = after(np.rint(y / step).astype(np.float32) * np.float32(step))[0] - after(y)[0]
        power += np.square(moved, dtype=np.float64).mean((0, 1, 2)) / len(seen)
    w = constant_weights(graph, chain.last)
    assert w is not None
    return power * np.square(w, dtype=np.float64).sum((0, 1, 2)), step


def _share_out(noise: np.ndarray, dead: np.ndarray) -> dict[int, list[int]]:
    """Return which dead channels each channel gets: one after another goes where it gains most.

    The mean of n copies has an n-th of the step, and an n-th squared of the noise.
    """
    given: dict[int, list[int]] = {}
    copies = np.ones(len(noise))
    for spare in dead:
        gain = noise * (copies**-2.0 - (copies + 1) ** -2.0)
        gain[dead] = 0
        c = int(gain.argmax())
        if gain[c] > 0:
            given.setdefault(c, []).append(int(spare))
            copies[c] += 1
    return given


def _with_copies(graph: Graph, chain: _Chain, given: dict[int, list[int]], step: float) -> Graph:
    w, v, u = (np.array(constant_weights(graph, op)) for op in (chain.first, chain.depthwise, chain.last))
    bias, after, end = (np.array(graph.constant(op.inputs[2])) for op in (chain.first, chain.depthwise, chain.last))
    dead = [spare for spares in given.values() for spare in spares]
    still = np.clip(after[dead], *chain.depthwise.activation.bounds)
    end += u[:, 0, 0, dead] @ still.astype(end.dtype)  # what a dead channel adds everywhere
    for c, spares in given.items():
        share = [c, *spares]
        offsets = ((np.arange(len(share)) + 0.5) / len(share) - 0.5) * step
        w[share], v[..., share] = w[c], v[..., c, None]
        after[share] = after[c] - offsets * v[..., c].sum()
        bias[share] = bias[c] + offsets
        u[..., share] = u[..., c, None] / len(share)
    tensors = dict(graph.tensors)
    new = {}
    for op, arrays in ((chain.first, (w, bias)), (chain.depthwise, (v, after)), (chain.last, (u, end))):
        names = [f"{op.outputs[0]}_{what}_copied" for what in ("weights", "bias")]
        tensors.update({n: Tensor(n, a.shape, "float32", a) for n, a in zip(names, arrays, strict=True)})
        new[op.outputs[0]] = replace(op, inputs=(op.inputs[0], *names))
    return replace(graph, tensors=tensors, ops=tuple(new.get(op.outputs[0], op) for op in graph.ops))
