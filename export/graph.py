"""The hub: a network as one flat list of operators with their weights, in TFLite's terms.

Every network, ours or the user's, becomes a `Graph` of float operators with batch norm folded and activations fused;
everything after (calibration, quantization, all formats) works on it. Operators and their options carry TFLite's names:
https://github.com/google-ai-edge/LiteRT, `tflite/converter/schema/schema.fbs`. Layouts are TFLite's: activations NHWC,
convolution weights OHWI, depthwise weights (1, H, W, C), dense weights (out, in).
"""

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any, TypeVar

import numpy as np

from edgenet.errors import InputError

# Operators with constant weights: kind -> axis of the output channels in the weights.
WEIGHT_AXIS = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 0}
LARGEST_BYTES = 2**31 - 2**20  # of constants in a flatbuffer or a protobuf, which cannot exceed 2 GiB
FUSED = "fusedActivationFunction"  # the option of an operator that holds its Activation
Choice = TypeVar("Choice", bound=IntEnum)


class Activation(IntEnum):
    """The function that an operator applies to its own output; the schema's ActivationFunctionType.

    The members but NONE are called as the operators that do the same.
    """

    NONE = 0
    RELU = 1
    RELU_N1_TO_1 = 2
    RELU6 = 3
    TANH = 4

    @property
    def bounds(self) -> tuple[float, float]:
        """The least and the largest number that it gives."""
        return _BOUNDS[self]

    @property
    def clips(self) -> bool:
        """Whether it leaves every number within its bounds as it is."""
        return self != Activation.TANH


_BOUNDS = {
    Activation.NONE: (-np.inf, np.inf),
    Activation.RELU: (0.0, np.inf),
    Activation.RELU_N1_TO_1: (-1.0, 1.0),
    Activation.RELU6: (0.0, 6.0),
    Activation.TANH: (-1.0, 1.0),
}


class Padding(IntEnum):
    """The schema's Padding: SAME gives ceil(size / stride) outputs, VALID has only windows that lie inside."""

    SAME = 0
    VALID = 1


def fused(activation: Activation | None = None) -> dict[str, int]:
    """Return the option with which an operator applies `activation`, a plain number as a file has it."""
    return {FUSED: (activation or Activation.NONE).value}


def packed(values: np.ndarray) -> np.ndarray:
    """Return integers of -8 to 7 two a byte, the first in the lower half: (N,) int8 -> (ceil(N / 2),) uint8."""
    halves = np.append(values.ravel(), np.zeros(values.size % 2, np.int8)).astype(np.uint8) & 15
    both: np.ndarray = halves[::2] | halves[1::2] << 4
    return both


def unpacked(stored: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Return the integers that `packed` stored: (ceil(N / 2),) uint8 -> int8 of `shape`."""
    halves = np.stack([stored & 15, stored >> 4], -1).ravel()[: math.prod(shape)].astype(np.int8)
    return ((halves ^ 8) - 8).reshape(shape)


def along_axis(values: np.ndarray, axis: int, rank: int) -> np.ndarray:
    """Return `values`, (C,) or (1,), in the shape that broadcasts along `axis` of an array with `rank` axes."""
    shape = [1] * rank
    if len(values) > 1:
        shape[axis] = -1
    return values.reshape(shape)


def same_pads(size: int, kernel: int, stride: int, dilation: int = 1) -> tuple[int, int]:
    """Return what SAME adds before and after an axis of `size`: TFLite puts the odd pixel at the end."""
    total = max((-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
    return total // 2, total - total // 2


@dataclass(frozen=True)
class Window:
    """How the kernel of a convolution or a pool slides over a picture; pairs are (height, width)."""

    padding: Padding
    strides: tuple[int, int]
    dilations: tuple[int, int] = (1, 1)

    def pads(self, size_px: Sequence[int], kernel: Sequence[int]) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return what is added around a picture of `size_px`: ((top, bottom), (left, right)) px."""
        if self.padding == Padding.VALID:
            return (0, 0), (0, 0)
        height, width = map(same_pads, size_px, kernel, self.strides, self.dilations)
        return height, width

    def output_size(self, size_px: Sequence[int], kernel: Sequence[int]) -> tuple[int, int]:
        """Return how many positions the kernel has, down and across."""
        reach = [
            (k - 1) * d if self.padding == Padding.VALID else 0 for k, d in zip(kernel, self.dilations, strict=True)
        ]
        height, width = (-(-(n - r) // s) for n, r, s in zip(size_px, reach, self.strides, strict=True))
        return height, width


@dataclass(frozen=True)
class Quantization:
    """real = scale * (stored - zero_point); one scale, or one per index of `axis`."""

    scale: np.ndarray  # (1,) or (C,) float32
    zero_point: np.ndarray  # (1,) or (C,) int64
    axis: int = 0

    @classmethod
    def per_tensor(cls, scale: float, zero_point: int = 0) -> "Quantization":
        return cls(np.array([scale], np.float32), np.array([zero_point], np.int64))

    def equals(self, other: "Quantization") -> bool:
        """Return whether both have the same scales and zero points."""
        same_scale = np.array_equal(self.scale, other.scale)
        return bool(same_scale and np.array_equal(self.zero_point, other.zero_point))

    def broadcast(self, rank: int) -> tuple[np.ndarray, np.ndarray]:
        """Return scale and zero point in shapes that broadcast against a tensor with `rank` axes."""
        return along_axis(self.scale, self.axis, rank), along_axis(self.zero_point, self.axis, rank)

    def real(self, stored: np.ndarray) -> np.ndarray:
        """Return the real numbers, float32, that `stored` ones stand for; computed in float64 and rounded once."""
        scale, zero_point = self.broadcast(stored.ndim)
        return np.asarray((stored - zero_point) * scale.astype(np.float64), np.float32)


@dataclass(frozen=True)
class Tensor:
    """A value of the graph; `data` holds its stored numbers when it is a constant.

    `bits`: of an int8 constant whose numbers fit in 4, which a writer may store so; None of all others.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str  # NumPy's name
    data: np.ndarray | None = None
    quantization: Quantization | None = None
    bits: int | None = None


@dataclass(frozen=True)
class Op:
    """One operator. `inputs` are names of tensors, None where an optional one is left out."""

    kind: str  # TFLite's builtin name, e.g. "CONV_2D"
    inputs: tuple[str | None, ...]
    outputs: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    options_type: str = "NONE"  # member of the schema's union BuiltinOptions
    version: int = 1  # as the float file has it; writing raises it where the types need that

    @property
    def activation(self) -> Activation:
        """The activation that is fused into the operator. Raises InputError for one that edgenet does not know."""
        return self._choice(Activation, FUSED)

    @property
    def window(self) -> Window:
        """How the kernel of a convolution or a pool slides. Raises InputError for a padding that TFLite lacks."""
        o = self.options
        dilations = (int(o.get("dilationHFactor") or 1), int(o.get("dilationWFactor") or 1))
        return Window(self._choice(Padding, "padding"), (int(o["strideH"]), int(o["strideW"])), dilations)

    def _choice(self, choices: type[Choice], option: str) -> Choice:
        stored = int(self.options.get(option) or 0)
        if stored not in list(choices):
            valid = ", ".join(f"{c.value} {c.name}" for c in choices)
            raise InputError(
                f"{self.kind} ({self.outputs[0]}) has {option} {stored}, not one of {valid}: convert it anew"
            )
        return choices(stored)


@dataclass(frozen=True)
class Graph:
    """Operators in the order they run, and every tensor by its name."""

    name: str
    tensors: dict[str, Tensor]
    ops: tuple[Op, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def constant(self, name: str | None) -> np.ndarray | None:
        """Return the numbers of a constant, None where `name` is not one."""
        return None if name is None else self.tensors[name].data

    def producers(self) -> dict[str, int]:
        """Return the index of the operator that makes each tensor."""
        return {out: i for i, op in enumerate(self.ops) for out in op.outputs}

    def consumers(self) -> dict[str, list[int]]:
        """Return the indices of the operators that read each tensor."""
        found: dict[str, list[int]] = {name: [] for name in self.tensors}
        for i, op in enumerate(self.ops):
            for name in op.inputs:
                if name is not None:
                    found[name].append(i)
        return found

    def activations(self) -> list[str]:
        """Return the names of all tensors that are computed or fed, inputs first, in the order they are made."""
        return [*self.inputs, *(out for op in self.ops for out in op.outputs)]

    def with_outputs(self, names: Iterable[str]) -> "Graph":
        """Return the same graph with other outputs."""
        return replace(self, outputs=tuple(names))

    def renamed(self, new: Mapping[str, str]) -> "Graph":
        """Return the graph with other names for some tensors."""

        def name(n: Any) -> Any:
            return None if n is None else new.get(n, n)

        tensors = {name(n): replace(t, name=name(n)) for n, t in self.tensors.items()}
        ops = tuple(
            replace(op, inputs=tuple(map(name, op.inputs)), outputs=tuple(map(name, op.outputs))) for op in self.ops
        )
        inputs, outputs = tuple(map(name, self.inputs)), tuple(map(name, self.outputs))
        return replace(self, tensors=tensors, ops=ops, inputs=inputs, outputs=outputs)

    def logits(self) -> str:
        """Return the name of what the final softmax reads, or of the output itself where there is no softmax."""
        producers = self.producers()
        name = self.outputs[0]
        while name in producers and self.ops[producers[name]].kind in ("SOFTMAX", "RESHAPE", "DEQUANTIZE"):
            op = self.ops[producers[name]]
            name = str(op.inputs[0])
            if op.kind == "SOFTMAX":
                return name
        return self.outputs[0]


def fingerprint(graph: Graph) -> str:
    """Return the sha256 of operators and weights, also of a graph that no .tflite file holds."""
    digest = hashlib.sha256(repr((graph.ops, graph.inputs, graph.outputs)).encode())
    for name, tensor in graph.tensors.items():
        digest.update(f"{name} {tensor.shape} {tensor.dtype}".encode())
        if tensor.data is not None:
            digest.update(tensor.data.tobytes())
    return digest.hexdigest()


def multiply_adds(graph: Graph, op: Op) -> int:
    """Return the products of one inference: of convolutions, dense layers and matrix products, 0 of all others."""
    if op.kind == "BATCH_MATMUL":  # (..., n, k) x (..., k, m)
        inner = graph.tensors[str(op.inputs[0])].shape[-2 if op.options.get("adjX") else -1]
        return math.prod(graph.tensors[op.outputs[0]].shape) * inner
    if op.kind == "TRANSPOSE_CONV":  # inputs: output shape, weights (out, h, w, in), data
        return math.prod(graph.tensors[str(op.inputs[2])].shape) * math.prod(
            graph.tensors[str(op.inputs[1])].shape[:-1]
        )
    if op.kind not in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
        return 0
    weights = graph.tensors[str(op.inputs[1])].shape
    each = weights[1] * weights[2] if op.kind == "DEPTHWISE_CONV_2D" else math.prod(weights[1:])
    return math.prod(graph.tensors[op.outputs[0]].shape) * each
