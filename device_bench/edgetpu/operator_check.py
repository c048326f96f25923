"""A static check of a .tflite against what Coral documents of the Edge TPU, for machines without its compiler.

The compiler maps one connected part of the network: from the first operator that it cannot map, all that follows goes
to the CPU. So does the check. What each operator demands in words stands in edgenet/targets.py.
https://coral.ai/docs/edgetpu/models-intro/
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgenet.export.graph import Graph, Op, Tensor
from edgenet.targets import EDGE_TPU_OPERATORS

_EIGHT_BITS = {"int8", "uint8"}
_MAX_SOFTMAX = 16_000


@dataclass(frozen=True)
class Checked:
    """An operator, and why it would stay on the CPU; "" where it would be mapped."""

    kind: str
    why: str


def check(graph: Graph) -> list[Checked]:
    """Return what would become of each operator, in the file's order."""
    out = []
    mapped_before: dict[str, bool] = {}  # tensor -> whether something that it depends on is mapped
    cut: set[str] = set()  # tensors that depend on an operator that is left, and that one on a mapped one
    for op in graph.ops:
        inputs = [n for n in op.inputs if n is not None]
        why = reason(graph, op)
        if not why and any(n in cut for n in inputs):
            why = "it follows an operator that stays on the CPU, and the Edge TPU runs one part of a network"
        before = any(mapped_before.get(n, False) for n in inputs)
        for name in op.outputs:
            mapped_before[name] = before or not why
            if why and before:
                cut.add(name)
        out.append(Checked(op.kind, why))
    return out


def reason(graph: Graph, op: Op) -> str:
    """Return why the operator by itself cannot be mapped, "" where it can."""
    if op.kind not in EDGE_TPU_OPERATORS:
        return "not among the operators that Coral documents"
    inputs = [graph.tensors[n] for n in op.inputs if n is not None]
    outputs = [graph.tensors[n] for n in op.outputs]
    active = [t for t in (*inputs, *outputs) if t.data is None]
    wrong = sorted({t.dtype for t in active} - _EIGHT_BITS)
    if wrong:
        return f"works on {', '.join(wrong)}, the Edge TPU on 8-bit integers"
    if any(t.data is not None and t.dtype not in {*_EIGHT_BITS, "int32", "int64"} for t in inputs):
        return "has constants that are not integers"
    if any(d > 1 for t in active for d in t.shape[:-3]):
        return "has a tensor of more than three dimensions; beyond the inner three each must be 1"
    if any(t.quantization is None for t in active):
        return "has a tensor without a scale"
    if op.kind in _DEMANDS and not _DEMANDS[op.kind](op, inputs, outputs):
        return f"does not meet what Coral demands: {EDGE_TPU_OPERATORS[op.kind]}"
    return ""


def _option(op: Op, *names: str) -> list[Any]:
    return [op.options.get(name) or 0 for name in names]


def _conv(op: Op, inputs: list[Tensor], outputs: list[Tensor]) -> bool:
    x, y = _option(op, "dilationWFactor", "dilationHFactor")
    return bool(x == y and inputs[1].data is not None)


def _depthwise(op: Op, inputs: list[Tensor], outputs: list[Tensor]) -> bool:
    return all(d in (0, 1) for d in _option(op, "dilationWFactor", "dilationHFactor")) and inputs[1].data is not None


def _not_fused(op: Op, inputs: list[Tensor], outputs: list[Tensor]) -> bool:
    return not op.activation


def _dense(op: Op, inputs: list[Tensor], outputs: list[Tensor]) -> bool:
    one_dimension = int(np.prod(outputs[0].shape[:-1])) == 1
    scales = inputs[1].quantization
    return _option(op, "weightsFormat") == [0] and one_dimension and scales is not None and len(scales.scale) == 1


def _keeps_batch(op: Op, inputs: list[Tensor], outputs: list[Tensor]) -> bool:
    axes = inputs[1].data if len(inputs) > 1 else None
    rank = len(inputs[0].shape)
    return axes is not None and all(int(a) % rank != 0 for a in np.atleast_1d(axes))


def _pads_no_batch(op: Op, inputs: list[Tensor], outputs: list[Tensor]) -> bool:
    pads = inputs[1].data if len(inputs) > 1 else None
    return pads is not None and not np.any(pads[0])


def _softmax(op: Op, inputs: list[Tensor], outputs: list[Tensor]) -> bool:
    n = int(np.prod(inputs[0].shape))
    return n == inputs[0].shape[-1] and n <= _MAX_SOFTMAX


def _pack(op: Op, inputs: list[Tensor], outputs: list[Tensor]) -> bool:
    return _option(op, "axis") != [0]


def _split(op: Op, inputs: list[Tensor], outputs: list[Tensor]) -> bool:
    axis = inputs[0].data
    return axis is not None and all(int(a) % len(inputs[1].shape) != 0 for a in np.atleast_1d(axis))


def _strided_slice(op: Op, inputs: list[Tensor], outputs: list[Tensor]) -> bool:
    strides = inputs[3].data if len(inputs) > 3 else None
    return strides is not None and bool(np.all(strides == 1)) and _option(op, "ellipsisMask", "newAxisMask") == [0, 0]


def _prelu(op: Op, inputs: list[Tensor], outputs: list[Tensor]) -> bool:
    return sum(d > 1 for d in inputs[1].shape) <= 1


_DEMANDS: dict[str, Callable[[Op, list[Tensor], list[Tensor]], bool]] = {
    "CONV_2D": _conv,
    "DEPTHWISE_CONV_2D": _depthwise,
    "AVERAGE_POOL_2D": _not_fused,
    "MAX_POOL_2D": _not_fused,
    "CONCATENATION": _not_fused,
    "FULLY_CONNECTED": _dense,
    "MEAN": _keeps_batch,
    "REDUCE_MAX": _keeps_batch,
    "REDUCE_MIN": _keeps_batch,
    "PAD": _pads_no_batch,
    "SOFTMAX": _softmax,
    "PACK": _pack,
    "SPLIT": _split,
    "STRIDED_SLICE": _strided_slice,
    "PRELU": _prelu,
}
