"""Fuse a float graph as a converter would: scales and shifts into weights, activations into the operator before.

    conv -> MUL c -> ADD b -> RELU6        becomes        conv with other weights, bias and a fused RELU6

Batch norm at inference is such a MUL and ADD. What is folded is computed in float64 and rounded once.
"""

from dataclasses import replace

import numpy as np

from edgenet.export.graph import WEIGHT_AXIS, Activation, Graph, Op, Padding, Tensor, along_axis, fused

CLIPS = ("RELU", "RELU_N1_TO_1", "RELU6")  # operators that are taken into the one before as its activation
TAKES_ACTIVATION = {*WEIGHT_AXIS, "ADD", "SUB", "MUL", "DIV"}


def fuse(graph: Graph) -> Graph:
    """Return the same function with fewer operators; names of inputs and outputs stay."""
    work = _Fuser(graph)
    for op in graph.ops:
        work.add(op)
    return drop_unused(replace(graph, tensors=work.tensors, ops=tuple(work.ops)))


def drop_unused(graph: Graph) -> Graph:
    """Return `graph` without operators that no output needs, and without tensors that no operator has."""
    needed, kept = set(graph.outputs), []
    for op in reversed(graph.ops):
        if needed & set(op.outputs):
            needed |= {n for n in op.inputs if n is not None}
            kept.append(op)
    needed |= {*graph.inputs, *(n for op in kept for n in op.outputs)}
    return replace(graph, tensors={n: t for n, t in graph.tensors.items() if n in needed}, ops=tuple(reversed(kept)))


class _Fuser:
    """Takes the operators in order; what can be taken into an earlier one changes that one."""

    def __init__(self, graph: Graph) -> None:
        self.graph, self.tensors = graph, dict(graph.tensors)
        self.ops: list[Op] = []
        self.made: dict[str, int] = {}  # tensor -> index into ops
        self.readers = {n: len(c) for n, c in graph.consumers().items()}

    def add(self, op: Op) -> None:
        for change in (self.padded, self.scaled, self.activated):
            if change(op):
                return
        self.made.update(dict.fromkeys(op.outputs, len(self.ops)))
        self.ops.append(op)

    def before(self, name: str | None) -> Op | None:
        """Return the operator that makes `name`, if nothing else reads it."""
        if name is None or name not in self.made or self.readers[name] != 1 or name in self.graph.outputs:
            return None
        return self.ops[self.made[name]]

    def put(self, op: Op, name: str | None) -> None:
        """Replace the operator that makes `name` by `op`."""
        i = self.made.pop(str(name))
        self.ops[i] = op
        self.made.update(dict.fromkeys(op.outputs, i))

    def padded(self, op: Op) -> bool:
        """PAD with zeros in front of a VALID convolution, where SAME pads alike."""
        pad = self.before(op.inputs[0] if op.inputs else None)
        if op.kind not in ("CONV_2D", "DEPTHWISE_CONV_2D") or op.window.padding != Padding.VALID:
            return False
        if pad is None or pad.kind != "PAD":
            return False
        pads, w = self.graph.constant(pad.inputs[1]), self.tensors[str(op.inputs[1])].shape
        size_px = self.tensors[str(pad.inputs[0])].shape[1:3]
        same = replace(op.window, padding=Padding.SAME).pads(size_px, w[1:3])
        if pads is None or pads.tolist() != [list(p) for p in ((0, 0), *same, (0, 0))]:
            return False
        options = {**op.options, "padding": Padding.SAME.value}
        self.put(replace(op, inputs=(pad.inputs[0], *op.inputs[1:]), options=options), op.inputs[0])
        return True

    def scaled(self, op: Op) -> bool:
        """MUL, ADD or SUB of one number, or one a channel, behind an operator with constant weights."""
        if op.kind not in ("MUL", "ADD", "SUB"):
            return False
        x, c = op.inputs[0], self.graph.constant(op.inputs[1])
        if c is None and op.kind != "SUB":
            x, c = op.inputs[1], self.graph.constant(op.inputs[0])
        linear = self.before(x)
        if c is None or linear is None or linear.kind not in WEIGHT_AXIS or linear.activation:
            return False
        if self.tensors[op.outputs[0]].shape != self.tensors[str(x)].shape:
            return False
        w = self.tensors[str(linear.inputs[1])].data
        if w is None:
            return False
        channels = w.shape[WEIGHT_AXIS[linear.kind]]
        if c.size not in (1, channels) or (c.size > 1 and c.shape[-1] != channels):
            return False
        bias = self.tensors[str(linear.inputs[2])].data if len(linear.inputs) > 2 and linear.inputs[2] else None
        if bias is None and len(linear.inputs) > 2 and linear.inputs[2]:
            return False
        b = np.zeros(channels) if bias is None else bias.astype(np.float64)
        v, new = np.broadcast_to(c.ravel().astype(np.float64), (channels,)), w.astype(np.float64)
        if op.kind == "MUL":
            new, b = new * along_axis(v, WEIGHT_AXIS[linear.kind], w.ndim), b * v
        else:
            b = b + v if op.kind == "ADD" else b - v
        out = op.outputs[0]
        inputs = [linear.inputs[0], str(linear.inputs[1])]
        if op.kind == "MUL":
            inputs[1] = self.constant(f"{out}_weights", new)
        inputs.append(self.constant(f"{out}_bias", b))
        options = {**linear.options, **fused(op.activation)}
        self.put(replace(linear, inputs=tuple(inputs), outputs=op.outputs, options=options), x)
        return True

    def activated(self, op: Op) -> bool:
        if op.kind not in CLIPS:
            return False
        made = self.before(op.inputs[0])
        if made is None or made.kind not in TAKES_ACTIVATION or made.activation:
            return False
        options = {**made.options, **fused(Activation[op.kind])}
        self.put(replace(made, outputs=op.outputs, options=options), op.inputs[0])
        return True

    def constant(self, name: str, data: np.ndarray) -> str:
        self.tensors[name] = Tensor(name, data.shape, "float32", data.astype(np.float32))
        return name
