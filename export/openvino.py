"""Write a graph as an OpenVINO IR (.xml and .bin): NCHW, the input `image`, the output `probabilities`, one emitter a kind.

Quantized graphs become what NNCF's are, https://docs.openvino.ai/2026/openvino-workflow/model-optimization-guide/:
a FakeQuantize of 256 levels behind every quantized activation, from the graph's scale and zero point, and weights as
int8 constants that are converted and multiplied by a scale per output channel. From those the CPU plugin makes its int8
kernels.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgenet.errors import InputError, MissingDependency
from edgenet.export.graph import Graph, Op, Tensor
from edgenet.export.nchw import to_nchw
from edgenet.export.network import OUTPUT, Network, canonical_names

SUFFIX = ".xml"
PRECISIONS = ("float32", "float16", "weight-only", "int8", "int16x8")


def to_openvino(network: Network, graph: Graph, path: Path, about: dict[str, Any], batch: int | None = 1) -> Path:
    """Write `graph`, a quantized form of `network`, to `path`, which ends in .xml, and its numbers to a .bin beside it.

    Args:
        about: precision, io_dtype and provenance, kept in the file as JSON; `edgenet inspect` reads it.
        batch: the batch of the input, None for one that the caller chooses.

    Raises:
        InputError: an operator or a precision that has no form in OpenVINO here.
        MissingDependency: the openvino package is not installed.
    """
    try:
        import openvino as ov
        from openvino import opset13
    except ImportError:
        raise MissingDependency("openvino", "openvino", "writing an OpenVINO IR") from None
    if graph.outputs[0] != OUTPUT:
        graph = canonical_names(graph)
    writer = _Writer(ov, opset13, to_nchw(graph), batch)
    model = writer.model(network.name)
    model.set_rt_info(json.dumps(about, sort_keys=True), ["edgenet"])
    model.set_rt_info(json.dumps(network.class_names, ensure_ascii=False), ["labels"])
    ov.serialize(model, path, path.with_suffix(".bin"))
    return path


class _Writer:
    """Builds the model; `values` holds, by tensor name, the output that stands for its real numbers."""

    def __init__(self, ov: Any, ops: Any, graph: Graph, batch: int | None) -> None:
        self.ov, self.ops, self.graph, self.batch = ov, ops, graph, batch
        self.values: dict[str, Any] = {}
        self.pieces: dict[str, Any] = {}  # of int8 weights: the constants, to give them another shape

    def model(self, name: str) -> Any:
        parameters = [self.parameter(n) for n in self.graph.inputs]
        for op in self.graph.ops:
            self.add(op)
        results = [self.result(n) for n in self.graph.outputs]
        return self.ov.Model(results, parameters, name)

    def parameter(self, name: str) -> Any:
        t = self.graph.tensors[name]
        shape = self.ov.PartialShape([-1 if self.batch is None else self.batch, *t.shape[1:]])
        node = self.ops.parameter(shape, np.dtype(t.dtype), name)
        node.output(0).set_names({name})
        self.values[name] = node if t.quantization is None else self.affine(node, t)
        return node

    def result(self, name: str) -> Any:
        t, value = self.graph.tensors[name], self.values[name]
        if t.quantization is not None:
            value = self.integers(value, t)
        output = value.output(0) if isinstance(value, self.ov.Node) else value
        output.set_names({name})
        return self.ops.result(output, name)

    # Values

    def scalar(self, value: float, rank: int = 0) -> Any:
        return self.ops.constant(np.full((1,) * rank, value, np.float32))

    def affine(self, stored: Any, t: Tensor) -> Any:
        """From the integers of a quantized input to real numbers."""
        assert t.quantization is not None
        real = self.ops.convert(stored, "f32")
        zero = float(t.quantization.zero_point[0])
        if zero:
            real = self.ops.subtract(real, self.scalar(zero))
        return self.ops.multiply(real, self.scalar(float(t.quantization.scale[0])))

    def integers(self, real: Any, t: Tensor) -> Any:
        """From real numbers to the integers of a quantized output."""
        assert t.quantization is not None
        limits = np.iinfo(t.dtype)
        steps = self.ops.divide(real, self.scalar(float(t.quantization.scale[0])))
        whole = self.ops.add(self.ops.round(steps, "half_to_even"), self.scalar(float(t.quantization.zero_point[0])))
        return self.ops.convert(self.ops.clamp(whole, float(limits.min), float(limits.max)), {"int8": "i8", "uint8": "u8", "int16": "i16"}[t.dtype])

    def fake_quantize(self, real: Any, t: Tensor) -> Any:
        """Round to the steps of `t`: float64 until the limits are known, as float32 ones must be exact multiples."""
        assert t.quantization is not None
        limits = np.iinfo(t.dtype)
        scale, zero = float(t.quantization.scale[0]), int(t.quantization.zero_point[0])
        rank = len(t.shape)
        low, high = (self.scalar((limit - zero) * scale, rank) for limit in (limits.min, limits.max))
        return self.ops.fake_quantize(real, low, high, low, high, int(limits.max) - int(limits.min) + 1)

    def constant(self, t: Tensor, shape: Sequence[int] | None = None) -> Any:
        """Return a constant's real numbers, in another `shape` if asked: splitting its first axis, for the groups."""
        assert t.data is not None
        data = t.data if shape is None else t.data.reshape(shape)
        q = t.quantization
        if q is None:
            node = self.ops.constant(data)
            return self.decompressed(node) if t.dtype == "float16" else node
        if t.dtype != "int8":  # a bias
            return self.ops.constant((data * q.scale.astype(np.float64)).astype(np.float32))
        scale = q.scale.astype(np.float32)
        if len(scale) > 1:
            axes = [1] * t.data.ndim
            axes[q.axis] = -1
            scale = scale.reshape(axes)
            if shape is not None:
                scale = scale.reshape(*shape[:2], *[1] * (len(shape) - 2))
        else:
            scale = scale.reshape((1,) * data.ndim)
        real = self.ops.convert(self.ops.constant(data), "f32")
        if q.zero_point.any():
            real = self.ops.subtract(real, self.ops.constant(np.full((1,) * data.ndim, q.zero_point[0], np.float32)))
        return self.ops.multiply(real, self.ops.constant(scale))

    def decompressed(self, half: Any) -> Any:
        return self.ops.convert(half, "f32")

    def value(self, name: str) -> Any:
        """Return the real numbers that stand for tensor `name`."""
        if name not in self.values:
            self.values[name] = self.constant(self.graph.tensors[name])
        return self.values[name]

    def weights(self, op: Op, shape: Sequence[int]) -> Any:
        """Return the weights of `op` in `shape`: one that keeps the order, with the output channels in front."""
        t = self.graph.tensors[str(op.inputs[1])]
        if t.data is None:
            packed = {o.outputs[0]: o.inputs[0] for o in self.graph.ops if o.kind == "DEQUANTIZE"}
            t = self.graph.tensors[str(packed[t.name])]
        return self.constant(t, None if tuple(shape) == t.shape else shape)

    # Operators

    def add(self, op: Op) -> None:
        if op.kind in ("DEQUANTIZE", "QUANTIZE"):
            made = [self.value(str(op.inputs[0]))]
        else:
            read = op.inputs[:1] if op.kind in ("CONV_2D", "DEPTHWISE_CONV_2D") else op.inputs
            made = _KINDS[op.kind](self, op, [self.value(str(n)) for n in read if n is not None])
            for name, value in zip(op.outputs, made, strict=True):
                if isinstance(value, self.ov.Node):
                    value.friendly_name = name
        for name, value in zip(op.outputs, made, strict=True):
            t = self.graph.tensors[name]
            if t.quantization is not None and not self.is_rounded(op, t):
                value = self.fake_quantize(value, t)
                value.friendly_name = f"{name}/fq"
            self.values[name] = value

    def is_rounded(self, op: Op, t: Tensor) -> bool:
        """Whether the operator only moves numbers that have these steps already, or shifts uint8 pixels to int8."""
        if op.kind not in ("QUANTIZE", "RESHAPE", "TRANSPOSE", "SLICE", "RELU", "RELU6"):
            return False
        a, b = self.graph.tensors[str(op.inputs[0])], t
        if a.quantization is None or b.quantization is None or a.dtype == "int16" or b.dtype == "int16":
            return False
        lowest = [int(x.quantization.zero_point[0]) - int(np.iinfo(x.dtype).min) for x in (a, b) if x.quantization]
        return bool(np.array_equal(a.quantization.scale, b.quantization.scale)) and lowest[0] == lowest[1]

    def shape(self, name: str | None) -> tuple[int, ...]:
        return self.graph.tensors[str(name)].shape

    def integer_constant(self, values: Sequence[int]) -> Any:
        return self.ops.constant(np.array(values, np.int64))


_Emitter = Callable[[_Writer, Op, list[Any]], list[Any]]


def _simple(method: str) -> _Emitter:
    def emit(w: _Writer, op: Op, x: list[Any]) -> list[Any]:
        return [getattr(w.ops, method)(*x)]

    return emit


def _clamp(low: float, high: float) -> _Emitter:
    def emit(w: _Writer, op: Op, x: list[Any]) -> list[Any]:
        return [w.ops.clamp(x[0], low, high)]

    return emit


def _convolution(w: _Writer, op: Op, x: list[Any]) -> list[Any]:
    o, shape = op.options, w.shape(op.inputs[1])  # (out, in / groups, H, W)
    window = (list(o["strides"]), list(o["pads"][:2]), list(o["pads"][2:]), list(o["dilations"]))
    if o["groups"] == 1:
        node = w.ops.convolution(x[0], w.weights(op, shape), *window)
    else:
        grouped = (o["groups"], shape[0] // o["groups"], *shape[1:])
        node = w.ops.group_convolution(x[0], w.weights(op, grouped), *window)
    return [_plus_bias(w, op, node, (1, -1, 1, 1))]


def _plus_bias(w: _Writer, op: Op, node: Any, shape: tuple[int, ...]) -> Any:
    if len(op.inputs) < 3 or op.inputs[2] is None:
        return node
    name = str(op.inputs[2])
    t = w.graph.tensors[name]
    if t.data is not None:
        return w.ops.add(node, w.constant(t, None) if t.data.ndim == len(shape) else _shaped(w, t, shape))
    return w.ops.add(node, w.ops.reshape(w.value(name), w.integer_constant(shape), False))


def _shaped(w: _Writer, t: Tensor, shape: tuple[int, ...]) -> Any:
    data = t.data.astype(np.float64) if t.data is not None else None
    assert data is not None
    if t.quantization is not None:
        data = data * t.quantization.scale.astype(np.float64)
    return w.ops.constant(data.astype(np.float32).reshape(shape))


def _dense(w: _Writer, op: Op, x: list[Any]) -> list[Any]:
    return [_plus_bias(w, op, w.ops.matmul(x[0], x[1], False, True), (1, -1))]


def _reduction(method: str) -> _Emitter:
    def emit(w: _Writer, op: Op, x: list[Any]) -> list[Any]:
        return [getattr(w.ops, method)(x[0], w.integer_constant(op.options["axes"]), True)]

    return emit


def _average_pool(w: _Writer, op: Op, x: list[Any]) -> list[Any]:
    o = op.options
    pads = (list(o["pads"][:2]), list(o["pads"][2:]))
    return [w.ops.avg_pool(x[0], list(o["strides"]), *pads, list(o["kernel"]), True)]


def _max_pool(w: _Writer, op: Op, x: list[Any]) -> list[Any]:
    o = op.options
    pads = (list(o["pads"][:2]), list(o["pads"][2:]))
    return [w.ops.max_pool(x[0], list(o["strides"]), [1, 1], *pads, list(o["kernel"])).output(0)]


def _reshape(w: _Writer, op: Op, x: list[Any]) -> list[Any]:
    before, shape = w.shape(op.inputs[0]), list(op.options["shape"])
    if shape and before and shape[0] == before[0]:
        shape[0] = 0  # as the input has it, whatever the batch
    return [w.ops.reshape(x[0], w.integer_constant(shape), True)]


def _transpose(w: _Writer, op: Op, x: list[Any]) -> list[Any]:
    return [w.ops.transpose(x[0], w.integer_constant(op.options["perm"]))]


def _pad(w: _Writer, op: Op, x: list[Any]) -> list[Any]:
    before, after = (w.integer_constant(op.options[key]) for key in ("before", "after"))
    if op.kind == "MIRROR_PAD":
        return [w.ops.pad(x[0], before, after, ("reflect", "symmetric")[op.options["mode"]])]
    return [w.ops.pad(x[0], before, after, "constant", x[1] if len(x) > 1 else w.scalar(0))]


def _slice(w: _Writer, op: Op, x: list[Any]) -> list[Any]:
    o, shape = op.options, w.shape(op.inputs[0])
    cut = [i for i, n in enumerate(shape) if (o["starts"][i], o["ends"][i], o["steps"][i]) != (0, n, 1)]
    given = [w.integer_constant([o[key][i] for i in cut]) for key in ("starts", "ends", "steps")]
    return [w.ops.slice(x[0], *given, w.integer_constant(cut)) if cut else x[0]]


def _concatenation(w: _Writer, op: Op, x: list[Any]) -> list[Any]:
    return [w.ops.concat(x, op.options["axis"])]


def _split(w: _Writer, op: Op, x: list[Any]) -> list[Any]:
    node = w.ops.split(x[0], w.integer_constant(op.options["axis"]), len(op.outputs))
    return [node.output(i) for i in range(len(op.outputs))]


def _softmax(w: _Writer, op: Op, x: list[Any]) -> list[Any]:
    beta = float(op.options["beta"])
    return [w.ops.softmax(x[0] if beta == 1 else w.ops.multiply(x[0], w.scalar(beta)), op.options["axis"])]


def _leaky_relu(w: _Writer, op: Op, x: list[Any]) -> list[Any]:
    return [w.ops.prelu(x[0], w.ops.constant(np.array([op.options["alpha"]], np.float32)))]


def _prelu(w: _Writer, op: Op, x: list[Any]) -> list[Any]:
    slope = x[1]
    if len(w.shape(op.inputs[1])) == 4 and w.shape(op.inputs[1])[2:] == (1, 1):  # one a channel
        slope = w.ops.reshape(slope, w.integer_constant([-1]), False)
    return [w.ops.prelu(x[0], slope)]


def _elu(w: _Writer, op: Op, x: list[Any]) -> list[Any]:
    return [w.ops.elu(x[0], 1.0)]


def _gelu(w: _Writer, op: Op, x: list[Any]) -> list[Any]:
    return [w.ops.gelu(x[0], "tanh" if op.options.get("approximate") else "erf")]


def _round(w: _Writer, op: Op, x: list[Any]) -> list[Any]:
    return [w.ops.round(x[0], "half_to_even")]


def _rsqrt(w: _Writer, op: Op, x: list[Any]) -> list[Any]:
    return [w.ops.power(x[0], w.scalar(-0.5))]


def _square(w: _Writer, op: Op, x: list[Any]) -> list[Any]:
    return [w.ops.multiply(x[0], x[0])]


def _cast(w: _Writer, op: Op, x: list[Any]) -> list[Any]:
    return [w.ops.convert(x[0], w.ov.Type(np.dtype(w.graph.tensors[op.outputs[0]].dtype)).get_type_name())]


def _resize(w: _Writer, op: Op, x: list[Any]) -> list[Any]:
    o, nearest = op.options, op.kind == "RESIZE_NEAREST_NEIGHBOR"
    where = "align_corners" if o.get("alignCorners") else "half_pixel" if o.get("halfPixelCenters") else "asymmetric"
    node = w.ops.interpolate(
        x[0], w.integer_constant(o["size"]), "nearest" if nearest else "linear_onnx", "sizes",
        coordinate_transformation_mode=where, axes=w.integer_constant([2, 3]),
        # TFLite's nearest: floor of the position, which half_pixel has moved by a half; round when corners are aligned.
        nearest_mode="floor" if where == "asymmetric" else "round_prefer_ceil",
    )  # fmt: skip
    return [node]


def _batch_matmul(w: _Writer, op: Op, x: list[Any]) -> list[Any]:
    return [w.ops.matmul(x[0], x[1], bool(op.options.get("adjX")), bool(op.options.get("adjY")))]


_KINDS: dict[str, _Emitter] = {
    "ABS": _simple("abs"),
    "ADD": _simple("add"),
    "AVERAGE_POOL_2D": _average_pool,
    "BATCH_MATMUL": _batch_matmul,
    "CAST": _cast,
    "CONCATENATION": _concatenation,
    "CONV_2D": _convolution,
    "DEPTHWISE_CONV_2D": _convolution,
    "DIV": _simple("divide"),
    "ELU": _elu,
    "EXP": _simple("exp"),
    "FLOOR": _simple("floor"),
    "FULLY_CONNECTED": _dense,
    "GELU": _gelu,
    "HARD_SWISH": _simple("hswish"),
    "LEAKY_RELU": _leaky_relu,
    "LOG": _simple("log"),
    "LOGISTIC": _simple("sigmoid"),
    "MAXIMUM": _simple("maximum"),
    "MAX_POOL_2D": _max_pool,
    "MEAN": _reduction("reduce_mean"),
    "MINIMUM": _simple("minimum"),
    "MIRROR_PAD": _pad,
    "MUL": _simple("multiply"),
    "NEG": _simple("negative"),
    "PAD": _pad,
    "POW": _simple("power"),
    "PRELU": _prelu,
    "REDUCE_MAX": _reduction("reduce_max"),
    "REDUCE_MIN": _reduction("reduce_min"),
    "RELU": _simple("relu"),
    "RELU6": _clamp(0, 6),
    "RELU_N1_TO_1": _clamp(-1, 1),
    "RESHAPE": _reshape,
    "RESIZE_BILINEAR": _resize,
    "RESIZE_NEAREST_NEIGHBOR": _resize,
    "ROUND": _round,
    "RSQRT": _rsqrt,
    "SLICE": _slice,
    "SOFTMAX": _softmax,
    "SPLIT": _split,
    "SQRT": _simple("sqrt"),
    "SQUARE": _square,
    "SQUARED_DIFFERENCE": _simple("squared_difference"),
    "SUB": _simple("subtract"),
    "SUM": _reduction("reduce_sum"),
    "TANH": _simple("tanh"),
    "TRANSPOSE": _transpose,
}
