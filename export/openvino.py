"""Write a graph as an OpenVINO IR (.xml and .bin): NCHW, input `image`, output `probabilities`, one emitter a kind.

Quantized graphs become what NNCF's are, https://docs.openvino.ai/2026/openvino-workflow/model-optimization-guide/:
a FakeQuantize of 256 levels behind every quantized activation, from the graph's scale and zero point, and weights as
int8 constants that are converted and multiplied by a scale per output channel. From those the CPU plugin makes its int8
kernels.
"""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgenet.errors import MissingDependency
from edgenet.export.graph import Activation, Graph, Op, Tensor
from edgenet.export.lowering.unscaled_swish import unscaled_swishes
from edgenet.export.nchw import left_in_float, to_nchw
from edgenet.export.network import Network

SUFFIX = ".xml"
PRECISIONS = ("float32", "float16", "weight-only", "int8", "int16x8", "int4")


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
    writer = _Writer(ov, opset13, to_nchw(left_in_float(graph, _WEIGHTED)), batch)
    model = writer.model(network.name)
    model.set_rt_info(json.dumps(about, sort_keys=True), ["edgenet"])
    model.set_rt_info(json.dumps(network.task.output_names(network.class_names), ensure_ascii=False), ["labels"])
    ov.serialize(model, path, path.with_suffix(".bin"))
    return path


class _Writer:
    """Builds the model; `values` holds, by tensor name, the output that stands for its real numbers."""

    def __init__(self, ov: Any, ops: Any, graph: Graph, batch: int | None) -> None:
        self.ov, self.ops, self.graph, self.batch = ov, ops, graph, batch
        self.values: dict[str, Any] = {}
        self.graph, self.divided = unscaled_swishes(graph)
        graph = self.graph
        self.consumers = graph.consumers()
        # Constants that are stored smaller and dequantized by an operator of their own, by what that makes.
        self.packed = {
            op.outputs[0]: graph.tensors[str(op.inputs[0])]
            for op in graph.ops
            if op.kind == "DEQUANTIZE" and graph.constant(op.inputs[0]) is not None
        }

    def model(self, name: str) -> Any:
        parameters = [self.parameter(n) for n in self.graph.inputs]
        for op in self.graph.ops:
            self.add(op)
        results = [self.result(n) for n in self.graph.outputs]
        model = self.ov.Model(results, parameters, name)
        for i, node in enumerate(model.get_ordered_ops()):
            kind = node.get_type_name()
            if re.fullmatch(rf"{kind}_\d+", node.friendly_name):  # the runtime's: numbered since the process began
                node.friendly_name = f"{kind}_{i}"
        return model

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
        return self.ops.convert(
            self.ops.clamp(whole, float(limits.min), float(limits.max)),
            {"int8": "i8", "uint8": "u8", "int16": "i16"}[t.dtype],
        )

    def fake_quantize(self, real: Any, t: Tensor) -> Any:
        """Round to the steps of `t`: float64 until the limits are known, as float32 ones must be exact multiples."""
        assert t.quantization is not None
        limits = np.iinfo(t.dtype)
        scale, zero = float(t.quantization.scale[0]), int(t.quantization.zero_point[0])
        rank = len(t.shape)
        low, high = (self.scalar((limit - zero) * scale, rank) for limit in (limits.min, limits.max))
        first, last = low, high
        if t.name in self.divided:
            first, last = (
                self.ops.constant(((limit - zero) * scale * self.divided[t.name]).astype(np.float32))
                for limit in (limits.min, limits.max)
            )
        return self.ops.fake_quantize(real, first, last, low, high, int(limits.max) - int(limits.min) + 1)

    def constant(self, t: Tensor, shape: Sequence[int] | None = None, packed: bool = False, fold: bool = False) -> Any:
        """Return the real numbers of a constant.

        Args:
            shape: another shape, that splits the first axis (for groups) or adds axes of length 1.
            packed: store integers as they are; only what is large is worth it.
            fold: the integers are for a float operator. The plugin would keep them, dequantize at every inference, and
                quantize the activations of a dense layer as well; an addition of nothing makes it fold them at load.
        """
        assert t.data is not None
        shape, q = tuple(t.data.shape if shape is None else shape), t.quantization
        if q is None:
            node = self.ops.constant(t.data.reshape(shape))
            return self.ops.convert(node, "f32") if t.dtype == "float16" else node
        if not packed:
            return self.ops.constant(q.real(t.data).reshape(shape))
        scale, _ = q.broadcast(t.data.ndim)
        if len(shape) != t.data.ndim:
            scale = scale.reshape(*shape[:2], *[1] * (len(shape) - 2)) if len(q.scale) > 1 else scale[..., None]
        whole = self.ops.constant(t.data.reshape(shape), *([self.ov.Type.i4] if t.bits is not None else ()))
        # The plugin folds what makes i8 of i4 when it loads the file, and has its int8 kernels then.
        real = self.ops.convert(whole if t.bits is None else self.ops.convert(whole, "i8"), "f32")
        if q.zero_point.any():
            real = self.ops.subtract(real, self.scalar(float(q.zero_point[0]), len(shape)))
        elif fold:
            real = self.ops.add(real, self.scalar(0, len(shape)))
        return self.ops.multiply(real, self.ops.constant(scale))

    def value(self, name: str) -> Any:
        """Return the real numbers that stand for tensor `name`."""
        if name not in self.values:
            self.values[name] = self.constant(self.graph.tensors[name])
        return self.values[name]

    def weights(self, op: Op, shape: Sequence[int]) -> Any:
        """Return the weights of `op` in `shape`, the output channels in front."""
        t = self.graph.tensors[str(op.inputs[1])]
        t = self.packed.get(t.name, t)
        if t.data is None:
            return self.value(t.name)
        return self.constant(t, shape, packed=True, fold=self.graph.tensors[str(op.inputs[0])].dtype != "int8")

    # Operators

    def add(self, op: Op) -> None:
        if op.outputs[0] in self.packed:
            self.values[op.outputs[0]] = self.constant(self.packed[op.outputs[0]], packed=True, fold=True)
            return
        if op.kind in ("DEQUANTIZE", "QUANTIZE"):
            made = [self.value(str(op.inputs[0]))]
        else:
            read = op.inputs[:1] if op.kind in _WEIGHTED else op.inputs
            made = _KINDS[op.kind](self, op, [self.value(str(n)) for n in read if n is not None])
            for name, value in zip(op.outputs, made, strict=True):
                if isinstance(value, self.ov.Node):
                    value.friendly_name = name
        for name, value in zip(op.outputs, made, strict=True):
            t = self.graph.tensors[name]
            if t.quantization is not None and not self.stays(op, t):
                value = self.fake_quantize(value, t)
                value.friendly_name = f"{name}/fq"
            elif name in self.divided:
                value = self.ops.multiply(value, self.ops.constant((1 / self.divided[name]).astype(np.float32)))
            self.values[name] = value

    def in_float(self, op: Op) -> bool:
        """Whether the plugin computes `op` in float, or would not keep to its numbers.

        A constant that is added becomes part of the zero point, rounded to whole steps.
        """
        if op.kind in ("ADD", "SUB", "DIV"):
            return any(self.graph.constant(n) is not None for n in op.inputs)
        return op.kind in _FLOAT_KERNELS

    def stays(self, op: Op, t: Tensor) -> bool:
        """Whether output `t` needs no rounding: it has these steps already, or only float kernels read it."""
        readers = [self.graph.ops[i] for i in self.consumers[t.name]]
        if readers and all(map(self.in_float, readers)) and t.name not in self.graph.outputs:
            return True
        source = self.graph.tensors[str(op.inputs[0])]
        if op.kind not in _MOVES or source.quantization is None or t.quantization is None:
            return False
        lowest = [
            float(x.zero_point[0]) - np.iinfo(d).min
            for x, d in ((source.quantization, source.dtype), (t.quantization, t.dtype))
        ]
        same_scale = np.array_equal(source.quantization.scale, t.quantization.scale)
        return bool(same_scale) and lowest[0] == lowest[1] and "int16" not in (source.dtype, t.dtype)

    def shape(self, name: str | None) -> tuple[int, ...]:
        return self.graph.tensors[str(name)].shape

    def integer_constant(self, values: Sequence[int]) -> Any:
        return self.ops.constant(np.array(values, np.int64))


_WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")  # these ask for their weights and bias themselves
# The plugin has no integer kernels of these; it fuses them, in float, with the operator before them (x * sigmoid(x),
# say), which a FakeQuantize between would prevent: unrounded is faster, and nearer to the float network.
_FLOAT_KERNELS = {"ELU", "EXP", "GELU", "HARD_SWISH", "LOGISTIC", "MUL", "SOFTMAX", "TANH"}
_MOVES = {"QUANTIZE", "RESHAPE", "SLICE", "TRANSPOSE", "RELU", "RELU6"}
_Emitter = Callable[[_Writer, Op, list[Any]], list[Any]]


def _simple(method: str) -> _Emitter:
    def emit(w: _Writer, op: Op, x: list[Any]) -> list[Any]:
        return [getattr(w.ops, method)(*x)]

    return emit


def _clamp(activation: Activation) -> _Emitter:
    def emit(w: _Writer, op: Op, x: list[Any]) -> list[Any]:
        return [w.ops.clamp(x[0], *activation.bounds)]

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


def _transposed(w: _Writer, op: Op, x: list[Any]) -> list[Any]:
    o, ops = op.options, w.ops
    node = ops.convolution_backprop_data(
        x[0],
        x[1],
        list(o["strides"]),
        None,
        list(o["pads"][:2]),
        list(o["pads"][2:]),
        [1, 1],
        "explicit",
        list(o["more"]),
    )
    return [node if len(x) < 3 else ops.add(node, ops.reshape(x[2], w.integer_constant((1, -1, 1, 1)), False))]


def _gather(w: _Writer, op: Op, x: list[Any]) -> list[Any]:
    axis = w.ops.constant(np.int64(op.options["axis"]))
    return [w.ops.gather(x[0], w.integer_constant(op.options["indices"]), axis)]


def _local_response(w: _Writer, op: Op, x: list[Any]) -> list[Any]:
    """The squares of neighbouring channels are added up by a convolution: the plugin's own LRN gives other numbers."""
    o, ops, channels = op.options, w.ops, np.arange(w.shape(op.inputs[0])[1])
    near = np.abs(channels[:, None] - channels) <= int(o["radius"])
    band = ops.constant(near[:, :, None, None].astype(np.float32))
    total = ops.convolution(ops.multiply(x[0], x[0]), band, [1, 1], [0, 0], [0, 0], [1, 1])
    base = ops.add(ops.multiply(total, w.scalar(float(o["alpha"]))), w.scalar(float(o["bias"])))
    return [ops.multiply(x[0], ops.power(base, w.scalar(-float(o["beta"]))))]


def _log_softmax(w: _Writer, op: Op, x: list[Any]) -> list[Any]:
    return [w.ops.log_softmax(x[0], op.options["axis"])]


def _plus_bias(w: _Writer, op: Op, node: Any, shape: tuple[int, ...]) -> Any:
    if len(op.inputs) < 3 or op.inputs[2] is None:
        return node
    t = w.graph.tensors[str(op.inputs[2])]
    t = w.packed.get(t.name, t)
    if t.data is None:
        return w.ops.add(node, w.ops.reshape(w.value(t.name), w.integer_constant(shape), False))
    return w.ops.add(node, w.constant(t, shape))


def _dense(w: _Writer, op: Op, x: list[Any]) -> list[Any]:
    return [_plus_bias(w, op, w.ops.matmul(x[0], w.weights(op, w.shape(op.inputs[1])), False, True), (1, -1))]


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


_METHODS = {  # of operators that OpenVINO has as they are
    "ABS": "abs", "ADD": "add", "CEIL": "ceiling", "COS": "cos", "DIV": "divide", "EQUAL": "equal", "EXP": "exp",
    "FLOOR": "floor", "FLOOR_MOD": "floor_mod", "GREATER": "greater", "GREATER_EQUAL": "greater_equal",
    "HARD_SWISH": "hswish", "LESS": "less", "LESS_EQUAL": "less_equal", "LOG": "log", "LOGISTIC": "sigmoid",
    "MAXIMUM": "maximum", "MINIMUM": "minimum", "MUL": "multiply", "NEG": "negative", "NOT_EQUAL": "not_equal",
    "POW": "power", "RELU": "relu", "SELECT_V2": "select", "SIGN": "sign", "SIN": "sin", "SQRT": "sqrt",
    "SQUARED_DIFFERENCE": "squared_difference", "SUB": "subtract", "TANH": "tanh",
}  # fmt: skip
_KINDS: dict[str, _Emitter] = {
    **{kind: _simple(method) for kind, method in _METHODS.items()},
    "AVERAGE_POOL_2D": _average_pool,
    "BATCH_MATMUL": _batch_matmul,
    "CAST": _cast,
    "CONCATENATION": _concatenation,
    "CONV_2D": _convolution,
    "DEPTHWISE_CONV_2D": _convolution,
    "ELU": _elu,
    "FULLY_CONNECTED": _dense,
    "GATHER": _gather,
    "GELU": _gelu,
    "LEAKY_RELU": _leaky_relu,
    "LOCAL_RESPONSE_NORMALIZATION": _local_response,
    "LOG_SOFTMAX": _log_softmax,
    "MAX_POOL_2D": _max_pool,
    "MEAN": _reduction("reduce_mean"),
    "MIRROR_PAD": _pad,
    "PAD": _pad,
    "PRELU": _prelu,
    "REDUCE_MAX": _reduction("reduce_max"),
    "REDUCE_MIN": _reduction("reduce_min"),
    "REDUCE_PROD": _reduction("reduce_prod"),
    "RELU6": _clamp(Activation.RELU6),
    "RELU_N1_TO_1": _clamp(Activation.RELU_N1_TO_1),
    "RESHAPE": _reshape,
    "RESIZE_BILINEAR": _resize,
    "RESIZE_NEAREST_NEIGHBOR": _resize,
    "ROUND": _round,
    "RSQRT": _rsqrt,
    "SLICE": _slice,
    "SOFTMAX": _softmax,
    "SPLIT": _split,
    "SQUARE": _square,
    "SUM": _reduction("reduce_sum"),
    "TRANSPOSE": _transpose,
    "TRANSPOSE_CONV": _transposed,
}
