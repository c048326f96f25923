"""Cross-layer equalization: give the channels of an activation the same range, without changing the network's function.

An int8 activation has one scale for all its channels. A channel with a tenth of the tensor's range has only 25 levels,
and one between 0 and 10 has half of the levels where others lie between -10 and 10.

A channel can be scaled where it is made and scaled back where it is read. This costs nothing at run time. It is exact
where convolutions make and read the channel, also through pools, ReLU and additions (whose operands must scale alike):
the bottlenecks of MobileNetV2 and EfficientNet-Lite, the inside of a ResNet block. A channel's middle can be moved to
zero in the same way where no ReLU is in between and nothing is padded. Across ReLU6 neither is exact, so nothing is
done there. The method is https://arxiv.org/abs/1906.04721, applied to activations instead of weights: weights have a
scale for each output channel anyway.

A channel's range is the one that int8 stores with the least squared error, so that a single outlier of one picture
does not decide a channel's scale.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgenet.calibration.alike import picture_weights
from edgenet.calibration.execute import activations
from edgenet.calibration.quantize import constant_weights
from edgenet.calibration.ranges import LEVELS, channel_ends, check_finite
from edgenet.export.graph import WEIGHT_AXIS, Activation, Graph, Op, Padding, Tensor, along_axis

MOVES = {"MAX_POOL_2D", "AVERAGE_POOL_2D", "MEAN", "ADD"}  # a moved channel in is the moved channel out
PASSES = {"MAX_POOL_2D", "AVERAGE_POOL_2D", "RELU"}  # a scaled channel in is the scaled channel out
MAX_SCALE = 64.0  # a channel that is nearly dead is not blown up further
SAMPLES = 8192  # numbers of an activation that are kept of one picture; extremes are always exact
BINS, CUTS = 256, 4  # of a channel's histogram, and bins from one possible cut to the next
DEEPEST = BINS // 2  # no more is cut from one side

ChannelRanges = dict[str, tuple[np.ndarray, np.ndarray]]  # (low, high), (C,) each, by name


@dataclass(frozen=True)
class _Change:
    """x becomes scale (x - offset); both (C,)."""

    scale: np.ndarray
    offset: np.ndarray


def equalize(graph: Graph, inputs: Iterable[np.ndarray], threads: int | None = None) -> Graph:
    """Return the float graph with channels of one range; inputs, outputs and all names of activations stay.

    Args:
        graph: float operators.
        inputs: what the graph takes, one picture each: (1, H, W, 3) float32, normalised. Read once, not kept.

    The activations of the result have other ranges: observe it again.

    Raises:
        InputError: there was no picture, or an activation is not a finite number.
    """
    groups = equalizable(graph)
    names = [n for group in groups for n in group]
    if not names:
        return graph
    seen, _ = channel_ranges(graph, names, inputs, threads or os.cpu_count() or 1)
    changes: dict[str, _Change] = {}
    for group in groups:
        changes.update(_changes(graph, group, seen))
    tensors, ops = dict(graph.tensors), []
    for op in graph.ops:
        w = constant_weights(graph, op)
        touched = op.inputs[0] in changes or op.outputs[0] in changes
        ops.append(_rewrite(graph, tensors, op, w, changes) if w is not None and touched else op)
    return replace(graph, tensors=tensors, ops=tuple(ops))


def _rewrite(graph: Graph, tensors: dict[str, Tensor], op: Op, w: np.ndarray, changes: Mapping[str, _Change]) -> Op:
    """y = W x + b becomes s (y - o) = (s W / s_in) (s_in (x - o_in)) + s (b + W o_in - o)."""
    x, out, axis = str(op.inputs[0]), op.outputs[0], WEIGHT_AXIS[op.kind]
    stored = op.inputs[2] if len(op.inputs) > 2 else None
    found = graph.constant(stored)
    new = w.astype(np.float64)
    bias = np.zeros(w.shape[axis]) if found is None else found.astype(np.float64)
    if x in changes:
        # The input's channels come last, a depthwise kernel's only ones too.
        others = tuple(i for i in range(w.ndim) if i != axis)
        bias = bias + (new * changes[x].offset).sum(others)
        new = new / changes[x].scale
    if out in changes:
        bias = (bias - changes[out].offset) * changes[out].scale
        new = new * along_axis(changes[out].scale, axis, w.ndim)
    weights = f"{out}_equalized_weights"
    tensors[weights] = Tensor(weights, w.shape, "float32", new.astype(np.float32))
    if found is not None or bias.any():
        stored = f"{out}_equalized_bias"
        tensors[stored] = Tensor(stored, bias.shape, "float32", bias.astype(np.float32))
    return replace(op, inputs=(x, weights, stored))


def equalizable(graph: Graph) -> list[list[str]]:
    """Return the activations whose channels can be scaled, in sets that must be scaled alike, each in order."""
    producers, consumers = graph.producers(), graph.consumers()

    def free(name: str) -> bool:
        if name not in producers or name in graph.outputs or graph.tensors[name].dtype != "float32":
            return False
        around = [graph.ops[producers[name]], *(graph.ops[i] for i in consumers[name])]
        return _linear(around[0]) and all(_passes(graph, op) or _absorbs(graph, op) for op in around)

    return [group for group in _groups(graph) if all(map(free, group))]


# ---------------------------------------------------------------------------------- the numbers


def channel_ranges(
    graph: Graph, names: Sequence[str], inputs: Iterable[np.ndarray], threads: int
) -> tuple[ChannelRanges, ChannelRanges]:
    """Return (low, high), each (C,), of the channels of each activation: the cheapest for these pictures, and all."""
    kept: dict[str, list[np.ndarray]] = {n: [] for n in names}
    ends: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {n: [] for n in names}
    for i, made in activations(graph, names, inputs, threads):
        for name, y in made.items():
            rows = y.reshape(-1, y.shape[-1])
            every = max(1, rows.size // SAMPLES)
            kept[name].append(rows[i % every :: every].copy())  # a view would keep the whole picture
            ends[name].append(channel_ends(rows))
    check_finite({n: (float(np.min(e)), float(np.max(e))) for n, e in ends.items() if e}, len(kept[names[0]]))
    found, every_value = {}, {}
    for name in names:
        lows, highs = zip(*ends[name], strict=True)
        every_value[name] = np.min(lows, axis=0), np.max(highs, axis=0)
        counts = np.repeat(picture_weights(kept[name]), [len(rows) for rows in kept[name]])
        found[name] = cheapest_ranges(np.concatenate(kept[name]), *every_value[name], counts)
    return found, every_value


def cheapest_ranges(
    rows: np.ndarray, low: np.ndarray, high: np.ndarray, weights: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the range of each channel that int8 stores with the least squared error: (C,) and (C,).

    Within the range the error is step^2 / 12; a number outside is stored as the nearer end.

    Args:
        rows: (n, C) numbers. low, high: (C,) the smallest and the largest of all pictures, maybe beyond `rows`.
        weights: (n,) how much each row counts; alike by default.
    """
    channels = rows.shape[1]
    width = (high - low).astype(np.float64)
    place = (rows - low) * (BINS / np.where(width > 0, width, 1))
    bins = np.clip(place.astype(np.int32), 0, BINS - 1) + BINS * np.arange(channels, dtype=np.int32)
    each = np.ones(len(rows)) if weights is None else weights
    counts = np.bincount(bins.ravel(), np.repeat(each, channels), BINS * channels).reshape(channels, BINS) / each.sum()
    below, above = _cut_error(counts), _cut_error(counts[:, ::-1])  # in squared bins
    cuts = np.arange(0, DEEPEST, CUTS)
    step = (BINS - cuts[:, None] - cuts[None]) / LEVELS
    cost = below[:, cuts, None] + above[:, None, cuts] + step**2 / 12  # (C, cuts below, cuts above)
    i, j = np.divmod(cost.reshape(channels, -1).argmin(1), len(cuts))
    return low + cuts[i] * width / BINS, high - cuts[j] * width / BINS


def _cut_error(counts: np.ndarray) -> np.ndarray:
    """Return, for each bin, the mean squared distance of all that lies left of it to its left edge; (C, BINS) both."""
    centre, edge = np.arange(BINS) + 0.5, np.arange(BINS)
    sums = [np.cumsum(counts * centre**k, axis=1) - counts * centre**k for k in range(3)]
    error: np.ndarray = edge**2 * sums[0] - 2 * edge * sums[1] + sums[2]
    return error


def _changes(
    graph: Graph, group: Sequence[str], seen: Mapping[str, tuple[np.ndarray, np.ndarray]]
) -> dict[str, _Change]:
    """Return how the activations of one group change: one scale (C,), at least 1, and an offset each."""
    if movable(graph, group):
        offsets = _offsets(graph, group, {n: (seen[n][0] + seen[n][1]) / 2 for n in group})
    else:
        offsets = {n: np.zeros_like(seen[n][0]) for n in group}
    # The root mean square over the group: the widest of its activations has the largest error, and counts most.
    peaks = [np.maximum(seen[n][1] - offsets[n], offsets[n] - seen[n][0]) for n in group]
    width = np.sqrt(np.mean(np.square(peaks), axis=0))  # (C,)
    alive = width > width.max() * 1e-6
    scale = np.where(alive, np.minimum(width.max() / np.maximum(width, 1e-30), MAX_SCALE), 1.0)
    return {n: _Change(scale, offsets[n]) for n in group}


def _offsets(graph: Graph, group: Sequence[str], middles: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the offset of each activation: its middle, or the sum of its operands' offsets after an addition."""
    producers, consumers = graph.producers(), graph.consumers()
    offsets: dict[str, np.ndarray] = {}
    for name in group:
        op = graph.ops[producers[name]]
        if not _passes(graph, op):
            offsets[name] = middles[name]
            continue
        fed = list(_operands(graph, op))
        offsets[name] = np.sum([offsets[n] for n in fed], axis=0)
        for n in fed:  # one that nothing else reads can make up for the others
            if op.kind == "ADD" and len(consumers[n]) == 1 and not _passes(graph, graph.ops[producers[n]]):
                offsets[n] = offsets[n] + middles[name] - offsets[name]
                offsets[name] = middles[name]
                break
    return offsets


# ----------------------------------------------------------------------------- where it is exact


def movable(graph: Graph, group: Sequence[str]) -> bool:
    """Whether the middles of channels can be moved: no ReLU makes or reads them, and no convolution pads them."""
    producers, consumers = graph.producers(), graph.consumers()

    def moves(op: Op) -> bool:
        return not op.activation and (op.kind in MOVES or constant_weights(graph, op) is not None)

    def reads(op: Op) -> bool:
        return op.kind in MOVES or _pads_nothing(graph, op)

    return all(moves(graph.ops[producers[n]]) and all(reads(graph.ops[i]) for i in consumers[n]) for n in group)


def _pads_nothing(graph: Graph, op: Op) -> bool:
    if op.kind not in WEIGHT_AXIS:
        return False
    kernel = graph.tensors[str(op.inputs[1])].shape[1:3]
    return op.kind == "FULLY_CONNECTED" or op.window.padding == Padding.VALID or kernel == (1, 1)


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
    return op.activation in (Activation.NONE, Activation.RELU)


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
