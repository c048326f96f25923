"""Equalize the channels of a SiLU, x * sigmoid(x), which the layers around it scale differently.

Before and after a SiLU one channel may reach 130 where another reaches 0.5: with one int8 step for both, the second is
gone. In EfficientNet-B0 that is most of all that int8 loses. A SiLU cannot be scaled as a ReLU can, but this is exact:

    x = W u + b                      x' = (W u + b) / s          one scale s a channel
    y = x * sigmoid(x)               y' = x' * sigmoid(s x')     a multiplication more
    z = V y                          z  = (V s) y'

The new multiplication feeds the sigmoid alone, which tells nothing beyond 6.24 either way: its 8 bits need to cover no
more. Padding, means, pools and the multiplication by a gate (squeeze and excite) pass the scale on to the next layers.
Where there are many channels, those with like scales stand side by side and share one (channel_groups.py).

The scale of a channel is chosen with the ranges of x' and y', for the least noise behind: rounding and cutting of x as
it comes out of the SiLU, where much of what is below zero does not count, and rounding of y. A channel's noise counts
as much as the layers that read it make of it. A SiLU whose channels are alike gets new ranges, and no operator.
"""

import itertools
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgenet.calibration.alike import picture_weights
from edgenet.calibration.channel_groups import assigned, groups_for, reordered
from edgenet.calibration.execute import activations
from edgenet.calibration.quantize import constant_weights, held_exactly
from edgenet.calibration.ranges import channel_ends, check_finite
from edgenet.calibration.shelf import Shelf, Store
from edgenet.export.graph import WEIGHT_AXIS, Graph, Op, Tensor, along_axis, fused

SIGMOID_REACH = float(np.log(511))  # where an 8-bit sigmoid has reached its last level
LOWEST = -0.2785  # of x * sigmoid(x)
LEAST = 1.0  # that x reaches above zero, for its range to reach below as far as the SiLU tells apart
STEPS = 255
BELOW_X = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0)  # how far x' may reach below zero, as a part of how far it reaches above
BELOW_Y = (1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
CANDIDATES = 40  # for the scale of a channel
MOST = 63  # times the smallest scale, the largest one: an int8 constant holds both to 2 %
FEW = 4  # positions, or fewer, give no distribution of a channel's numbers
SAMPLES = 128  # positions of one picture, or fewer:
MAX_BYTES = 2**30  # for what is kept of all pictures,
MEMORY = 2**28  # so much of it in memory
CHANNELS = 64  # that are sorted at one time
PICTURES = 200  # at most: many channels fire on few pictures
TAILS, MIDDLE = 64, 128  # of a channel's numbers each end is kept, and what is between as so many means
HEADROOM = 1.1  # pictures that were not seen go further than those that were
WORTH_DB = 2.0  # less noise than this is not worth an operator


@dataclass(frozen=True)
class Swish:
    """A SiLU of the graph: what makes x, the sigmoid of it, the product, and what can take a scale of y.

    `carried`: y and what passes its scale on. `readers`: the layers that take it; empty where one of them cannot.
    """

    layer: Op
    sigmoid: Op
    product: Op
    carried: tuple[str, ...]
    readers: tuple[Op, ...]

    @property
    def x(self) -> str:
        return self.layer.outputs[0]

    @property
    def y(self) -> str:
        return self.product.outputs[0]


@dataclass(frozen=True)
class Choice:
    """What is best for one SiLU. `scale`: (C,), all the same where scaling brings little.

    `noise`: (C, CANDIDATES), what each candidate for its scale costs a channel; None where all are the same. `low_y`:
    where y / scale may be cut off below.
    """

    scale: np.ndarray
    x: tuple[float, float]  # the range of x / scale
    y: tuple[float, float]
    noise: np.ndarray | None = None
    low_y: float = 0.0


@dataclass(frozen=True)
class _Numbers:
    """What a channel of x is like: values (C, n), how often each stands (C, n), and the largest of all (C,)."""

    values: np.ndarray
    counts: np.ndarray
    high: np.ndarray


def equalize_swishes(
    graph: Graph, inputs: Iterable[np.ndarray], threads: int | None = None
) -> tuple[Graph, dict[str, tuple[float, float]]]:
    """Return the float graph with SiLUs whose channels are alike, and the int8 ranges of what is around them.

    Names of activations stay, and one is new for every SiLU that was scaled: what its sigmoid reads.

    Args:
        graph: float operators.
        inputs: what the graph takes, one picture each: (1, H, W, 3) float32, normalised. The first PICTURES are used.

    Raises:
        InputError: there was no picture, or an activation is not a finite number.
    """
    swishes = find_swishes(graph)
    if not swishes:
        return graph, {}
    gates = _gates(graph, swishes)
    numbers, gate_squares = _observed(graph, swishes, gates, inputs, threads or os.cpu_count() or 1)
    importance: dict[str, np.ndarray] = {}
    choices: dict[str, Choice] = {}
    for swish in reversed(swishes):  # what a channel makes behind it is known first
        weights = _importance(graph, swish, swishes, importance, numbers, gates, gate_squares)
        importance[swish.y] = weights
        choices[swish.y] = _choose(numbers[swish.x], weights, bool(swish.readers))
    graph = _in_groups(graph, swishes, choices, numbers)
    ranges = {}
    for swish in swishes:
        choice = choices[swish.y]
        ranges[swish.x], ranges[swish.y] = choice.x, choice.y
    return _rewritten(graph, find_swishes(graph), choices), ranges


def find_swishes(graph: Graph) -> list[Swish]:
    """Return the SiLUs whose x a layer with weights makes and nothing else reads, in order."""
    producers, consumers, found = graph.producers(), graph.consumers(), []
    for op in graph.ops:
        if op.kind != "LOGISTIC" or op.inputs[0] not in producers or op.inputs[0] in graph.outputs:
            continue
        x, layer = str(op.inputs[0]), graph.ops[producers[str(op.inputs[0])]]
        readers = [graph.ops[i] for i in consumers[op.outputs[0]]]
        if len(readers) != 1 or readers[0].kind != "MUL" or readers[0].activation or op.outputs[0] in graph.outputs:
            continue
        product = readers[0]
        if set(product.inputs) != {x, op.outputs[0]} or len(consumers[x]) != 2:
            continue
        if constant_weights(graph, layer) is None or layer.activation or _positions(graph, x) < FEW:
            continue
        carried, takers = _takers(graph, product.outputs[0])
        found.append(Swish(layer, op, product, carried, takers))
    return found


def sigmoid_ranges(graph: Graph, ranges: Mapping[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    """Return narrower ranges of what only sigmoids read: beyond SIGMOID_REACH 8 bits tell nothing."""
    consumers = graph.consumers()
    found = {}
    for name, (low, high) in ranges.items():
        readers = {graph.ops[i].kind for i in consumers.get(name, ())}
        if readers == {"LOGISTIC"} and name not in graph.outputs:
            found[name] = max(low, -SIGMOID_REACH), min(high, SIGMOID_REACH)
    return found


# ---------------------------------------------------------------------------------------------------- where it is exact


def _takers(graph: Graph, y: str) -> tuple[tuple[str, ...], tuple[Op, ...]]:
    """Return what carries a scale of y's channels, and the layers that take it: none where something cannot."""
    consumers, carried, takers, ahead = graph.consumers(), [y], list[Op](), [y]
    nothing: tuple[tuple[str, ...], tuple[Op, ...]] = ((y,), ())
    while ahead:
        name = ahead.pop()
        if name in graph.outputs:
            return nothing
        for op in (graph.ops[i] for i in consumers[name]):
            if takes(graph, op, name):
                takers.append(op)
            elif _carries(graph, op, name) and op.outputs[0] not in carried:
                carried.append(op.outputs[0])
                ahead.append(op.outputs[0])
            else:
                return nothing
    return tuple(carried), tuple(takers)


def takes(graph: Graph, op: Op, name: str) -> bool:
    """Whether the weights of `op` can take a scale of any channel of its input: no groups, no depth multiplier."""
    w = constant_weights(graph, op)
    channels = graph.tensors[name].shape[-1]
    return w is not None and op.inputs[0] == name and name not in op.inputs[1:] and w.shape[-1] == channels


def _carries(graph: Graph, op: Op, name: str) -> bool:
    """Whether scaling the channels of `name` scales those of the operator's output alike, and does nothing else."""
    if op.activation:
        return False
    shape, out = graph.tensors[name].shape, graph.tensors[op.outputs[0]].shape
    if op.kind == "MEAN":
        axes = graph.constant(op.inputs[1])
        return axes is not None and len(shape) - 1 not in [int(a) % len(shape) for a in axes.ravel()]
    if op.kind == "MUL":  # by a gate, one number a channel that is computed from somewhere else
        other = [n for n in op.inputs if n != name]
        return len(other) == 1 and graph.constant(other[0]) is None and is_gate(graph, str(other[0]), shape)
    if op.kind in ("RESHAPE", "SQUEEZE"):
        return out[-1] == shape[-1] == int(np.prod(shape))
    return op.kind in ("PAD", "MAX_POOL_2D", "AVERAGE_POOL_2D")


def is_gate(graph: Graph, name: str, shape: Sequence[int]) -> bool:
    """Whether an activation is one number a channel, for a picture of `shape`."""
    gate = graph.tensors[name].shape
    return len(gate) == len(shape) == 4 and gate[1:3] == (1, 1) != tuple(shape[1:3]) and gate[3] == shape[3]


def _gates(graph: Graph, swishes: Sequence[Swish]) -> dict[str, str]:
    """Return what multiplies each carried activation's source: name of the product -> name of the gate."""
    carried = {n for s in swishes for n in s.carried}
    found = {}
    for op in graph.ops:
        if op.kind == "MUL" and op.outputs[0] in carried and len(set(op.inputs)) == 2:
            for name in map(str, op.inputs):
                if graph.constant(name) is None and is_gate(graph, name, graph.tensors[op.outputs[0]].shape):
                    found[op.outputs[0]] = name
    return found


# ---------------------------------------------------------------------------------------------------------- the numbers


def _observed(
    graph: Graph, swishes: Sequence[Swish], gates: Mapping[str, str], inputs: Iterable[np.ndarray], threads: int
) -> tuple[dict[str, _Numbers], dict[str, np.ndarray]]:
    """Return what every x is like, and the mean square of every gate, (C,)."""
    names = list(dict.fromkeys([*(s.x for s in swishes), *gates.values()]))
    width = sum(graph.tensors[n].shape[-1] for n in names)
    samples = max(1, min(SAMPLES, MAX_BYTES // (4 * width * PICTURES)))
    store, kept = Store(MEMORY), dict[str, Shelf]()
    ends: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {n: [] for n in names}
    pictures = 0
    for i, made in activations(graph, names, itertools.islice(inputs, PICTURES), threads):
        for name, value in made.items():
            rows = value.reshape(-1, value.shape[-1])
            every = max(1, len(rows) // samples)
            some = rows[i % every :: every][:samples]
            if name not in kept:
                kept[name] = store.shelf(PICTURES, some.shape, some.dtype)
            kept[name][i] = some
            ends[name].append(channel_ends(rows))
        pictures = i + 1
    check_finite({n: (float(np.min(e)), float(np.max(e))) for n, e in ends.items() if e}, pictures)
    highs = {n: np.max([high for _, high in e], axis=0) for n, e in ends.items()}
    numbers = {s.x: _summary(kept[s.x], pictures, highs[s.x]) for s in swishes}
    squares = {n: np.square(np.concatenate([kept[n][i] for i in range(pictures)])).mean(0) for n in gates.values()}
    for shelf in kept.values():
        shelf.close()
    return numbers, squares


def _summary(kept: Shelf, pictures: int, high: np.ndarray) -> _Numbers:
    """Return (C, n) sorted, of each picture's (positions, C): both tails, and groups between them by their means."""
    _, positions, channels = kept.shape
    values = np.empty((channels, pictures * positions), np.float32)
    for i in range(pictures):
        values[:, i * positions : (i + 1) * positions] = kept[i].T
    counts = np.repeat(picture_weights(np.maximum(kept[i], LOWEST) for i in range(pictures)), positions)
    parts = [_summary_of(values[i : i + CHANNELS], counts) for i in range(0, channels, CHANNELS)]
    means, sizes = (np.concatenate(p) for p in zip(*parts, strict=True))
    return _Numbers(means, sizes, high)


def _summary_of(values: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the values of `_Numbers` and how often they stand; values: (C, n) as they came, counts: (n,)."""
    order = np.argsort(values, axis=1)
    ordered, counts = np.take_along_axis(values, order, 1), counts[order]
    n = ordered.shape[1]
    if n <= 2 * TAILS + MIDDLE:
        return ordered, counts
    edges = np.linspace(TAILS, n - TAILS, MIDDLE + 1).astype(int)[:-1]
    starts = np.concatenate([np.arange(TAILS), edges, np.arange(n - TAILS, n)])
    sizes = np.add.reduceat(counts, starts, axis=1)
    return np.add.reduceat(ordered * counts, starts, axis=1) / sizes, sizes


def _importance(
    graph: Graph,
    swish: Swish,
    swishes: Sequence[Swish],
    known: Mapping[str, np.ndarray],
    numbers: Mapping[str, _Numbers],
    gates: Mapping[str, str],
    gate_squares: Mapping[str, np.ndarray],
) -> np.ndarray:
    """Return what a unit of noise in each channel of y, (C,), becomes in the outputs of the next dense layers."""
    channels = graph.tensors[swish.y].shape[-1]
    if not swish.readers:
        return np.ones(channels)
    behind = {s.x: s for s in swishes}
    producers = graph.producers()
    total = np.zeros(channels)
    for op in swish.readers:
        w = constant_weights(graph, op)
        assert w is not None
        squares = np.square(w.astype(np.float64))
        if op.kind == "DEPTHWISE_CONV_2D":
            gain = squares.sum((0, 1, 2))
            after = behind.get(op.outputs[0])
            if after is not None:
                gain = gain * _slope_squares(numbers[after.x]) * known[after.y]
        else:
            gain = squares.reshape(-1, channels).sum(0)
        name = str(op.inputs[0])
        while name != swish.y:  # back to y: a mean averages the noise, a gate scales it
            maker = graph.ops[producers[name]]
            source = next(str(n) for n in maker.inputs if n in swish.carried)
            if name in gates:
                gain = gain * gate_squares[gates[name]]
            if maker.kind == "MEAN":
                gain = gain * _positions(graph, name) / _positions(graph, source)
            name = source
        total += gain
    return np.maximum(total, 1e-6 * max(float(total.max()), 1e-30))


def _positions(graph: Graph, name: str) -> int:
    """Return how many numbers each channel of an activation has."""
    return int(np.prod(graph.tensors[name].shape[:-1]))


def _swish(x: np.ndarray) -> np.ndarray:
    y: np.ndarray = x / (1 + np.exp(-np.clip(x, -60, 60)))
    return y


def _slope_squares(numbers: _Numbers) -> np.ndarray:
    """Return the mean square of the SiLU's slope, (C,)."""
    sigmoid = 1 / (1 + np.exp(-np.clip(numbers.values, -60, 60)))
    slopes = sigmoid * (1 + numbers.values * (1 - sigmoid))
    squares: np.ndarray = np.average(np.square(slopes), axis=1, weights=numbers.counts)
    return squares


def _choose(numbers: _Numbers, importance: np.ndarray, may_scale: bool) -> Choice:
    """Return the scales and the ranges with the least noise in y, weighted by `importance`, (C,)."""
    candidates = _candidates(numbers)
    top = float(candidates[-1])
    cut = np.stack([_cost_of_x(numbers, candidates, below) for below in BELOW_X])  # (below, C, candidates)
    best: dict[bool, tuple[float, np.ndarray, float, float, np.ndarray]] = {}
    for (i, a), b in itertools.product(enumerate(BELOW_X), BELOW_Y):
        allowed = candidates * b >= -LOWEST * 0.999
        if not allowed.any():
            continue
        cost = importance[:, None] * (cut[i] + np.square(candidates * (1 + b) / STEPS) / 12)
        cost = np.where(allowed, cost, np.inf)
        each = cost.argmin(1)
        alike = int(cost.sum(0).argmin())
        for scaled, j in ((True, each), (False, np.full(len(cost), alike))):
            noise = float(cost[np.arange(len(cost)), j].sum())
            if scaled not in best or noise < best[scaled][0]:
                best[scaled] = noise, candidates[j], a, b, cost
    gain_db = 10 * np.log10(max(best[False][0], 1e-300) / max(best[True][0], 1e-300))
    if not may_scale or gain_db < WORTH_DB:
        _, scale, a, b, _ = best[False]
        reach = min(HEADROOM * float(scale[0]), top)
        return Choice(np.ones(len(scale)), (-a * reach, reach), (max(-b * reach, LOWEST), reach))
    _, scale, a, b, cost = best[True]
    return _scaled(scale, numbers.high, -a, -b, cost)


def _candidates(numbers: _Numbers) -> np.ndarray:
    top = max(float(numbers.high.max()), LEAST)
    found: np.ndarray = np.geomspace(top / MOST, top, CANDIDATES)
    return found


def _scaled(scale: np.ndarray, high: np.ndarray, low_x: float, low_y: float, noise: np.ndarray) -> Choice:
    """Return a choice of scales, (C,), with some room above them for channels that reach `high`, (C,)."""
    scale = held_exactly(np.minimum(HEADROOM * scale, np.maximum(high, scale)))
    return Choice(scale, (low_x, 1.0), (max(low_y, LOWEST / float(scale.min())), 1.0), noise, low_y)


def _in_groups(
    graph: Graph, swishes: Sequence[Swish], choices: dict[str, Choice], numbers: Mapping[str, _Numbers]
) -> Graph:
    """Put channels with like scales side by side and give them one scale; return the graph, change `choices`.

    A SiLU and the one behind a depthwise layer have the same groups: their channels are the same. Others whose channels
    move along keep a scale for each, and channels move once.
    """
    moved = set[str]()
    for swish in swishes:
        behind = [s for s in swishes if [s.layer] == list(swish.readers) and s.layer.kind == "DEPTHWISE_CONV_2D"]
        chain = [s for s in (swish, *behind) if choices[s.y].noise is not None]
        alike = [s for s in chain if groups_for(graph.tensors[s.x].shape) > 1]
        if not alike or swish.x in moved:
            continue
        n = groups_for(graph.tensors[swish.x].shape)
        groups, picked = assigned([noise for s in alike if (noise := choices[s.y].noise) is not None], n)
        order = np.argsort(groups, kind="stable")
        changed = reordered(graph, swish.x, order)
        if changed is None:
            continue
        (graph, along), every = changed, groups[order]
        moved |= along
        for s in swishes:
            if s.x in along:
                choices[s.y] = replace(choices[s.y], scale=choices[s.y].scale[order])
        for s, candidates in zip(alike, picked.T, strict=True):
            c, noise = choices[s.y], choices[s.y].noise
            assert noise is not None
            high = np.array([numbers[s.x].high[groups == g].max() for g in range(len(candidates))])
            scale = _candidates(numbers[s.x])[candidates]
            choices[s.y] = _scaled(scale[every], high[every], c.x[0], c.low_y, noise)
    return graph


def _cost_of_x(numbers: _Numbers, candidates: np.ndarray, below: float) -> np.ndarray:
    """Return the mean square of what rounding x to 8 bits over scale * (-below, 1) does to y: (C, candidates)."""
    zero = round(STEPS * below / (1 + below))
    costs = np.empty((len(numbers.values), len(candidates)))
    for start in range(0, len(costs), CHANNELS):  # that a processor's cache holds
        some = slice(start, start + CHANNELS)
        values, counts = numbers.values[some], numbers.counts[some].astype(np.float64)
        wanted, total = _swish(values), counts.sum(1)
        for j, scale in enumerate(candidates):
            step = scale * (1 + below) / STEPS
            levels = _swish((np.arange(STEPS + 1) - zero) * step)
            place = values / step
            np.rint(place, out=place)
            place += zero
            wrong = np.take(levels, place.astype(np.intp), mode="clip")
            wrong -= wanted
            np.square(wrong, out=wrong)
            wrong *= counts
            costs[some, j] = wrong.sum(1) / total
    return costs


# ------------------------------------------------------------------------------------------------------- the new graph


def _rewritten(graph: Graph, swishes: Sequence[Swish], choices: Mapping[str, Choice]) -> Graph:
    scaled = [s for s in swishes if np.ptp(choices[s.y].scale) > 0]
    made = {s.x: choices[s.y].scale for s in scaled}
    taken: dict[str, np.ndarray] = {}
    for s in scaled:
        for op in s.readers:
            taken[op.outputs[0]] = choices[s.y].scale
    sigmoids = {s.sigmoid.outputs[0]: s for s in scaled}
    tensors, ops = dict(graph.tensors), list[Op]()
    for op in graph.ops:
        out = op.outputs[0]
        if out in made or out in taken:
            op = scaled_layer(graph, tensors, op, made.get(out), taken.get(out))
        if out in sigmoids:
            x = sigmoids[out].x
            name, constant = f"{x}_unscaled", f"{x}_scales"
            scale = made[x].astype(np.float32)
            tensors[constant] = Tensor(constant, scale.shape, "float32", scale)
            tensors[name] = replace(tensors[x], name=name)
            ops.append(Op("MUL", (x, constant), (name,), fused(), "MulOptions"))
            op = replace(op, inputs=(name,))
        ops.append(op)
    return replace(graph, tensors=tensors, ops=tuple(ops))


def scaled_layer(
    graph: Graph, tensors: dict[str, Tensor], op: Op, made: np.ndarray | None, taken: np.ndarray | None
) -> Op:
    """Return the layer whose output channels are divided by `made` and whose input channels come divided by `taken`."""
    w, out, axis = constant_weights(graph, op), op.outputs[0], WEIGHT_AXIS[op.kind]
    assert w is not None
    new = w.astype(np.float64)
    if taken is not None:
        new = new * taken  # the input's channels come last, a depthwise kernel's only ones too
    stored = op.inputs[2] if len(op.inputs) > 2 else None
    if made is not None:
        new = new / along_axis(made, axis, w.ndim)
        found = graph.constant(stored)
        if found is not None:
            stored = f"{out}_scaled_bias"
            tensors[stored] = Tensor(stored, found.shape, "float32", (found / made).astype(np.float32))
    weights = f"{out}_scaled_weights"
    tensors[weights] = Tensor(weights, w.shape, "float32", new.astype(np.float32))
    return replace(op, inputs=(op.inputs[0], weights, stored))
