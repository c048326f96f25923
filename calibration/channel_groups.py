"""Put channels that get on with one scale side by side, so that a few scales do for all of them.

A multiplication by a number of its own for each channel is slow (equalize_swish.py needs one for each SiLU); where some
dozens of neighbours share a number, a format can give them operators of their own, whose multiplication costs nothing
(export/split_channels.py). Which channel is which does not matter to a network: `reordered` is exact.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from edgenet.calibration.quantize import constant_weights
from edgenet.export.graph import WEIGHT_AXIS, Graph, Op, Tensor

UNIT = 16  # channels that a kernel computes together: a group is of so many, or a multiple
LEAST_CHANNELS, LEAST_NUMBERS = 16, 2**13  # of a group on average: less is not worth operators of its own
MOST_GROUPS = 8
FEW_CHANNELS = 64  # fewer have no group for each scale that is needed,
FEW_NUMBERS = 2**16  # and for fewer the multiplication of each channel takes no time
ROUNDS = 8
# What treats each channel alike and alone.
_ALIKE = {
    "LOGISTIC", "RELU", "RELU6", "RELU_N1_TO_1", "LEAKY_RELU", "HARD_SWISH", "TANH", "GELU", "MAX_POOL_2D",
    "AVERAGE_POOL_2D",
}  # fmt: skip


def groups_for(shape: Sequence[int]) -> int:
    """Return how many groups the channels of an activation may have, (1, H, W, C); 1 where they are not worth it."""
    if shape[-1] < FEW_CHANNELS or math.prod(shape) < FEW_NUMBERS:
        return 1
    return max(1, min(MOST_GROUPS, shape[-1] // LEAST_CHANNELS, math.prod(shape) // LEAST_NUMBERS))


def assigned(noise: Sequence[np.ndarray], n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the group of each channel, (C,), and which candidate each group takes, (groups, S), for the least noise.

    Args:
        noise: for each of S scales that a channel has, what each candidate costs it, (C, candidates); inf where it may
            not be taken, by any channel.
        n: groups at most.

    A channel's best candidates are a seed; the seeds that save most are taken, and then groups and candidates are
    chosen in turn, as k-means does.
    """
    seeds = np.unique(np.stack([a.argmin(1) for a in noise], 1), axis=0)
    costs, least, taken = _costs(noise, seeds), np.full(len(noise[0]), np.inf), list[int]()
    for _ in range(min(n, len(seeds))):
        taken.append(int(np.minimum(least[:, None], costs).sum(0).argmin()))
        least = np.minimum(least, costs[:, taken[-1]])
    picked = seeds[taken]
    groups = balanced(_costs(noise, picked))
    for _ in range(ROUNDS):
        picked = np.stack([[a[groups == g].sum(0).argmin() for a in noise] for g in range(len(picked))])
        groups = balanced(_costs(noise, picked))
    order = np.lexsort(picked.T[::-1])
    rank = np.empty(len(order), int)
    rank[order] = np.arange(len(order))
    return rank[groups], picked[order]


def _costs(noise: Sequence[np.ndarray], picked: np.ndarray) -> np.ndarray:
    """Return what each channel costs in each group: (C, groups)."""
    total: np.ndarray = np.sum([a[:, picked[:, s]] for s, a in enumerate(noise)], 0)
    return total


def balanced(costs: np.ndarray) -> np.ndarray:
    """Return a group for each channel, of costs (C, groups), each a multiple of UNIT large but for one with the rest.

    Channels go where they cost least; from groups that are a little too large, those that lose least by it move on.
    """
    channels, n = costs.shape
    groups = costs.argmin(1)
    sizes = np.bincount(groups, minlength=n)
    wanted = np.maximum(np.rint(sizes / UNIT).astype(int), 1) * UNIT
    while (surplus := int(wanted.sum()) - channels) > 0:
        largest = int(wanted.argmax())
        wanted[largest] -= min(surplus, UNIT)
    wanted[wanted.argmax()] -= surplus
    while (sizes > wanted).any():
        extra = costs - costs[np.arange(channels), groups][:, None]
        extra = np.where((sizes > wanted)[groups][:, None] & (sizes < wanted), extra, np.inf)
        channel, group = np.unravel_index(int(extra.argmin()), extra.shape)
        sizes[groups[channel]] -= 1
        sizes[group] += 1
        groups[channel] = group
    return groups


# ------------------------------------------------------------------------------------------------ another order of them


def reordered(graph: Graph, name: str, order: np.ndarray) -> tuple[Graph, set[str]] | None:
    """Return the float graph, of the same function, with the channels of an activation in another order.

    What shares them follows: layers that make or read them, and all that is computed channel by channel in between.
    The second result has the names of all activations whose channels moved. None where something mixes them otherwise,
    or an output of the graph has them.

    Args:
        order: (C,), which of the old channels comes first, second, ...
    """
    channels, producers, consumers = len(order), graph.producers(), graph.consumers()
    changes: dict[tuple[int, int, int], None] = {}  # (operator, input, axis) of constants that follow
    seen, ahead = {name}, [name]
    while ahead:
        one = ahead.pop()
        if one not in producers or one in graph.outputs:
            return None
        for i in (producers[one], *consumers[one]):
            touched = _touched(graph, graph.ops[i], one, channels)
            if touched is None:
                return None
            activations, constants = touched
            changes |= {(i, k, axis): None for k, axis in constants}
            ahead += [n for n in activations if n not in seen]
            seen |= set(activations)
    tensors, ops = dict(graph.tensors), list(graph.ops)
    for i, k, axis in changes:
        op = ops[i]
        old = tensors[str(op.inputs[k])]
        assert old.data is not None
        new = f"{op.outputs[0]}_ordered_{k}_{axis}"
        tensors[new] = Tensor(new, old.shape, old.dtype, np.ascontiguousarray(np.take(old.data, order, axis)))
        ops[i] = replace(op, inputs=(*op.inputs[:k], new, *op.inputs[k + 1 :]))
    return replace(graph, tensors=tensors, ops=tuple(ops)), seen


Touched = tuple[list[str], list[tuple[int, int]]]


def _touched(graph: Graph, op: Op, name: str, channels: int) -> Touched | None:
    """Return which activations of an operator share the channels of one of them, and which axes of its constants.

    None where it does something else with them.
    """
    kind, out = op.kind, op.outputs[0]
    if kind in WEIGHT_AXIS:
        return _of_layer(graph, op, name, channels)
    if kind in ("MUL", "ADD", "SUB"):
        return _of_both(graph, op, channels)
    constants = [graph.constant(n) for n in op.inputs[1:]]
    alone = len(op.outputs) == 1 and all(c is not None for c in constants)
    return ([str(op.inputs[0]), out], []) if alone and (kind in _ALIKE or _keeps(graph, op)) else None


def _keeps(graph: Graph, op: Op) -> bool:
    """Whether an operator with an option that a constant tells leaves each channel where it is, by itself."""
    shape, made = graph.tensors[str(op.inputs[0])].shape, graph.tensors[op.outputs[0]].shape
    told = graph.constant(op.inputs[1]) if len(op.inputs) > 1 else None
    if op.kind == "PAD":
        return told is not None and not np.any(told[-1])
    if op.kind == "MEAN":
        return told is not None and len(shape) - 1 not in [int(a) % len(shape) for a in told.ravel()]
    return op.kind in ("RESHAPE", "SQUEEZE") and made[-1] == shape[-1] == math.prod(shape)


def _of_layer(graph: Graph, op: Op, name: str, channels: int) -> Touched | None:
    w, out = constant_weights(graph, op), op.outputs[0]
    biases = [(k, 0) for k in (2,) if len(op.inputs) > k and op.inputs[k] is not None]
    if w is None or any(graph.constant(op.inputs[k]) is None for k, _ in biases):
        return None
    if op.kind == "DEPTHWISE_CONV_2D":
        alike = w.shape[-1] == channels == graph.tensors[str(op.inputs[0])].shape[-1]
        return ([str(op.inputs[0]), out], [(1, 3), *biases]) if alike else None
    if name == out:
        return [], [(1, WEIGHT_AXIS[op.kind]), *biases]
    takes = op.inputs[0] == name and name not in op.inputs[1:] and w.shape[-1] == channels
    return ([], [(1, w.ndim - 1)]) if takes else None


def _of_both(graph: Graph, op: Op, channels: int) -> Touched | None:
    activations, constants = [op.outputs[0]], list[tuple[int, int]]()
    if graph.tensors[op.outputs[0]].shape[-1:] != (channels,):
        return None
    for k, n in enumerate(map(str, op.inputs)):
        t = graph.tensors[n]
        if t.shape[-1:] == (channels,):
            if t.data is None:
                activations.append(n)
            else:
                constants.append((k, len(t.shape) - 1))
        elif int(np.prod(t.shape)) != 1:
            return None
    return activations, constants
