"""Give groups of channels that share a scale operators of their own, for a runtime to which a table of 256 is cheap.

Calibration scales the channels of a SiLU so that 8 bits hold all of them: (x / s) * sigmoid((x / s) * s), where some
dozens of neighbours have one s (calibration/channel_groups.py). XNNPACK makes one table of 8-bit operators that follow
from one number to the next, a multiplication by a constant among them, and so a SiLU costs it a twentieth of a
multiplication channel by channel. So the layer that makes x becomes one layer for each s, and what is computed channel
by channel after it is done for each group, which also stays in a processor's cache; then the groups are put together.
Nothing else changes: each integer is what it was.
"""

import re
from dataclasses import dataclass, replace

import numpy as np

from edgenet.export.graph import WEIGHT_AXIS, Graph, Op, Quantization, Tensor, fused

MOST_GROUPS = 24  # more than that are no groups
UNIT = 16  # channels that a kernel computes together: groups that are smaller cost more than they save
_GROUP = re.compile(r"_group\d+$")
_ALIKE = {"LOGISTIC", "MUL", "PAD", "DEPTHWISE_CONV_2D"}


@dataclass(frozen=True)
class _Region:
    """A layer, and what is computed of its output channel by channel: the operators, and where groups begin."""

    ops: tuple[int, ...]
    starts: tuple[int, ...]


def split_channels(graph: Graph) -> Graph:
    """Return `graph`, int8, with layers and what follows them split into the groups that scaled SiLUs have."""
    consumers = graph.consumers()
    regions = {}
    for i, op in enumerate(graph.ops):
        if op.kind == "CONV_2D" and (region := _region(graph, consumers, i)) is not None:
            regions[i] = region
    if not regions or any(_GROUP.search(name) for name in graph.tensors):  # a user's names, which would be taken twice
        return graph
    moved = {i for r in regions.values() for i in r.ops}
    tensors, ops = dict(graph.tensors), list[Op]()
    for i, op in enumerate(graph.ops):
        if i in regions:
            ops += _split(graph, consumers, regions[i], tensors)
        elif i not in moved:
            ops.append(op)
    return replace(graph, tensors=tensors, ops=tuple(ops))


def _region(graph: Graph, consumers: dict[str, list[int]], first: int) -> _Region | None:
    """Return what follows a convolution channel by channel, None where no SiLU in it has groups."""
    x = graph.ops[first].outputs[0]
    inside, found = {x}, [first]
    channels = graph.tensors[x].shape[-1]
    starts, scaled = {0}, False
    for i in range(first + 1, len(graph.ops)):
        op = graph.ops[i]
        if not inside & set(op.inputs) or not _is_alike(graph, op, inside, channels):
            continue
        if op.kind == "MUL" and (constant := graph.constant(op.inputs[1])) is not None and constant.size == channels:
            new = {int(n) for n in 1 + np.flatnonzero(np.diff(constant.ravel()))}
            if len(new) > MOST_GROUPS:
                continue  # a number a channel: the groups are put together before it
            starts |= new
            scaled |= any(graph.ops[j].kind == "LOGISTIC" for j in consumers[op.outputs[0]])
        found.append(i)
        inside.add(op.outputs[0])
    sizes = np.diff([*sorted(starts), channels])
    is_int8 = all(graph.tensors[n].dtype == "int8" for n in inside)
    if not scaled or not is_int8 or not 1 < len(starts) <= MOST_GROUPS or np.median(sizes) < UNIT:
        return None
    return _Region(tuple(found), tuple(sorted(starts)))


def _is_alike(graph: Graph, op: Op, inside: set[str], channels: int) -> bool:
    """Whether each channel of the output depends on that of activations inside alone."""
    if op.kind not in _ALIKE or graph.tensors[op.outputs[0]].shape[-1] != channels:
        return False
    if op.kind == "PAD":
        pads = graph.constant(op.inputs[1])
        return pads is not None and not np.any(pads[-1])
    if op.kind == "DEPTHWISE_CONV_2D":
        w = graph.constant(op.inputs[1])
        one_each = graph.tensors[str(op.inputs[0])].shape[-1] == channels
        return op.inputs[0] in inside and w is not None and one_each and w.shape[-1] == channels
    others = [n for n in op.inputs if n is not None and n not in inside]
    return all((c := graph.constant(n)) is not None and c.size in (1, channels) for n in others)


def _split(graph: Graph, consumers: dict[str, list[int]], region: _Region, tensors: dict[str, Tensor]) -> list[Op]:
    """Return the operators of a region group by group, and what puts together those activations that others read."""
    ops = [graph.ops[i] for i in region.ops]
    made = {op.outputs[0] for op in ops}
    channels = graph.tensors[ops[0].outputs[0]].shape[-1]
    ends = (*region.starts[1:], channels)
    found = list[Op]()
    for number, (start, end) in enumerate(zip(region.starts, ends, strict=True), 1):
        for op in ops:
            names = dict[str, str]()
            for k, name in enumerate(op.inputs):
                if name in made:
                    names[name] = f"{name}_group{number}"
                elif name is not None and (k > 0 or op.kind == "MUL"):
                    names[name] = _part(tensors, op, name, number, start, end)
            out = op.outputs[0]
            t = graph.tensors[out]
            new = f"{out}_group{number}"
            tensors[new] = replace(t, name=new, shape=(*t.shape[:-1], end - start))
            inputs = tuple(None if n is None else names.get(n, n) for n in op.inputs)
            found.append(replace(op, inputs=inputs, outputs=(new,)))
    last = set(region.ops)
    for out in dict.fromkeys(op.outputs[0] for op in ops):
        if out in graph.outputs or not last.issuperset(consumers[out]):
            groups = tuple(f"{out}_group{n}" for n in range(1, len(ends) + 1))
            options = {"axis": len(graph.tensors[out].shape) - 1, **fused()}
            found.append(Op("CONCATENATION", groups, (out,), options, "ConcatenationOptions"))
    return found


def _part(tensors: dict[str, Tensor], op: Op, name: str, number: int, start: int, end: int) -> str:
    """Add a group's part of a constant; return its name, or that of a constant that is the same for all channels."""
    t = tensors[name]
    assert t.data is not None
    if op.kind == "PAD" or t.data.size == 1:
        return name
    axis = WEIGHT_AXIS[op.kind] if op.kind in WEIGHT_AXIS and t.data.ndim > 1 else t.data.ndim - 1
    data = np.take(t.data, range(start, end), axis)
    if op.kind == "MUL" and (data == data.flat[0]).all():
        data = data.ravel()[:1].reshape(())
    new = f"{name}_group{number}"
    tensors[new] = replace(t, name=new, shape=data.shape, data=data, quantization=_part_of(t.quantization, start, end))
    return new


def _part_of(q: Quantization | None, start: int, end: int) -> Quantization | None:
    if q is None or len(q.scale) == 1:
        return q
    return replace(q, scale=q.scale[start:end], zero_point=q.zero_point[start:end])
