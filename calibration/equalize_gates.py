"""Equalize the channels that a gate (squeeze and excite) makes small.

A gate is one number between 0 and 1 a channel, and multiplies all of a picture. In a trained network many channels have
a gate that is small on every picture: their product uses a few of the 255 levels that it shares with the others. This
is exact, and the multiplication more is of one number a channel, not of a picture:

    z = y * g          z' = y * (g / t)          one number t a channel
    u = V z            u  = (V t) z'

t is never smaller than the gate's largest value, so that g / t stays below 1, where the 8 bits of the gate suffice.
"""

import itertools
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgenet.calibration.equalize import channel_ranges
from edgenet.calibration.equalize_swish import is_gate, scaled_layer, takes
from edgenet.calibration.quantize import held_exactly
from edgenet.export.graph import Graph, Op, Tensor, fused

PICTURES = 200  # of them, at most
LEAST = 1 / 8  # t: a gate that was nearly closed on all pictures may open on another
HEADROOM = 1.25  # for the same reason


@dataclass(frozen=True)
class Gate:
    """y * g, where only this product reads g and only layers that can take a scale read the product."""

    gate: str
    product: str
    readers: tuple[Op, ...]


def equalize_gates(graph: Graph, inputs: Iterable[np.ndarray], threads: int | None = None) -> Graph:
    """Return the float graph with products of gates whose channels are alike; names of activations stay.

    One is new for every gate: what the product reads in its place.

    Args:
        graph: float operators.
        inputs: what the graph takes, one picture each: (1, H, W, 3) float32, normalised. The first PICTURES are used.

    Raises:
        InputError: there was no picture, or an activation is not a finite number.
    """
    gates = find_gates(graph)
    if not gates:
        return graph
    names = [n for g in gates for n in (g.gate, g.product)]
    shown = itertools.islice(inputs, PICTURES)
    cheapest, widest = channel_ranges(graph, names, shown, threads or os.cpu_count() or 1)
    parts = {}
    for g in gates:
        low, high = cheapest[g.product]
        width = np.maximum(-low, high)
        part = np.maximum(width / max(float(width.max()), 1e-30), widest[g.gate][1]) * HEADROOM
        parts[g.product] = 1 / held_exactly(1 / np.clip(part, LEAST, 1.0))
    return _rewritten(graph, gates, parts)


def find_gates(graph: Graph) -> list[Gate]:
    """Return the gates whose products' channels can be scaled, in order."""
    producers, consumers, found = graph.producers(), graph.consumers(), []
    for op in graph.ops:
        if op.kind != "MUL" or op.activation or op.outputs[0] in graph.outputs or len(set(op.inputs)) != 2:
            continue
        product, shape = op.outputs[0], graph.tensors[op.outputs[0]].shape
        for gate in map(str, op.inputs):
            made_by = graph.ops[producers[gate]].kind if gate in producers else ""
            readers = tuple(graph.ops[i] for i in consumers[product])
            if (
                made_by == "LOGISTIC"  # between 0 and 1
                and is_gate(graph, gate, shape)
                and len(consumers[gate]) == 1
                and gate not in graph.outputs
                and readers
                and all(takes(graph, r, product) for r in readers)
            ):
                found.append(Gate(gate, product, readers))
    return found


def _rewritten(graph: Graph, gates: Sequence[Gate], parts: dict[str, np.ndarray]) -> Graph:
    taken = {r.outputs[0]: parts[g.product] for g in gates for r in g.readers}
    products = {g.product: g for g in gates}
    tensors, ops = dict(graph.tensors), list[Op]()
    for op in graph.ops:
        out = op.outputs[0]
        if out in taken:
            op = scaled_layer(graph, tensors, op, None, taken[out])
        if out in products:
            gate = products[out].gate
            name, constant = f"{gate}_opened", f"{gate}_parts"
            data = (1 / parts[out]).astype(np.float32)
            tensors[constant] = Tensor(constant, data.shape, "float32", data)
            tensors[name] = replace(tensors[gate], name=name)
            ops.append(Op("MUL", (gate, constant), (name,), fused(), "MulOptions"))
            op = replace(op, inputs=tuple(name if n == gate else n for n in op.inputs))
        ops.append(op)
    return replace(graph, tensors=tensors, ops=tuple(ops))
