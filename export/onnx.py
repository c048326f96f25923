"""Write a graph as an .onnx file for onnxruntime: NCHW, input `image`, output `probabilities`, one emitter a kind.

Quantized graphs become QDQ, https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html: integers,
scales and zero points are the graph's own, in the pattern from which onnxruntime makes QLinearConv and its like. int8
activations are written as uint8 with a zero point that is 128 higher, the same numbers: on x86 the kernels are made
for uint8 activations and int8 weights. int16 ones are written as uint16 in the same way: onnxruntime's optimizations
compute something else from int16, and Qualcomm's compiler refuses it.
"""

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edgenet.errors import InputError, MissingDependency
from edgenet.export.graph import LARGEST_BYTES, Activation, Graph, Op, Quantization, Tensor
from edgenet.export.nchw import left_in_float, to_nchw
from edgenet.export.network import Network
from edgenet.export.onnx_constants import beside, inline
from edgenet.export.onnx_writer import Writer
from edgenet.files import WEIGHTS_BESIDE

SUFFIX = ".onnx"
BESIDE = WEIGHTS_BESIDE[SUFFIX]  # of the file that holds the constants of a network too large for one
PRECISIONS = ("float32", "float16", "weight-only", "dynamic", "int8", "int16x8", "int4")
OPSET = 21  # the first with 16-bit QuantizeLinear; onnxruntime 1.20 and later read it
IR_VERSION = 10
_FLOAT_RESULTS = {"FULLY_CONNECTED"}  # onnxruntime's kernel of QDQ operators that gives float32 from integers: QGemm


def to_onnx(
    network: Network, graph: Graph, path: Path, about: dict[str, Any], batch: int | None = 1, name: str = ""
) -> Path:
    """Write `graph`, a quantized form of `network`, to `path`, which ends in .onnx.

    Constants of more than LARGEST_BYTES go to a file beside it, which ends in .onnx.data (ONNX's external data,
    https://onnx.ai/onnx/repo-docs/ExternalData.html).

    Args:
        about: precision, io_dtype and provenance, kept in the file as JSON; `edgenet inspect` reads it.
        batch: the batch of the input, None for one that the caller chooses.
        name: what the file will be called in the end, where that is not what `path` calls it.

    float16 weights are stored so and cast to float32 when the file is loaded: onnxruntime computes in float32.

    Raises:
        InputError: an operator that has no form in ONNX here.
        MissingDependency: the onnx package is not installed.
    """
    try:
        import onnx
    except ImportError:
        raise MissingDependency("onnx", "onnx", "writing an .onnx file") from None
    size = sum(t.data.nbytes for t in graph.tensors.values() if t.data is not None)
    with contextlib.ExitStack() as stack:
        store = inline(onnx)
        if size > LARGEST_BYTES:
            file = stack.enter_context(open(path.with_suffix(BESIDE), "wb"))
            store = beside(onnx, file, Path(name or path.name).with_suffix(BESIDE).name)
        planar = to_nchw(left_in_float(graph, _FLOAT_RESULTS))
        weights = {n for op in planar.ops if op.kind in _DYNAMIC for n in op.inputs[1:2] if n is not None}
        model = _model(Writer(onnx, planar, batch, store, weights), network.name)
    model.producer_name, model.producer_version = "edgenet", str(about["edgenet_version"])
    properties = {
        "edgenet": json.dumps(about, sort_keys=True),
        "labels": "\n".join(network.task.output_names(network.class_names)),
    }
    onnx.helper.set_model_props(model, properties)
    path.write_bytes(model.SerializeToString(deterministic=True))
    return path


def _model(w: Writer, name: str) -> Any:
    h = w.onnx.helper
    for op in w.graph.ops:
        _add(w, op)
    inputs = [w.info(n) for n in w.graph.inputs]
    outputs = [w.info(n) for n in w.graph.outputs]
    graph = h.make_graph(w.nodes, name, inputs, outputs, list(w.initializers.values()))
    return h.make_model(graph, opset_imports=[h.make_opsetid("", OPSET)], ir_version=IR_VERSION)


def _add(w: Writer, op: Op) -> None:
    if op.kind in ("DEQUANTIZE", "QUANTIZE"):
        w.convert(op)
        return
    outs = [w.graph.tensors[n] for n in op.outputs]
    names = [t.name if t.quantization is None else f"{t.name}_real" for t in outs]
    if _is_dynamic(w, op):
        _DYNAMIC[op.kind](w, op, names[0])
    else:
        _KINDS[op.kind](w, op, [w.real(str(n)) for n in op.inputs if n is not None], names)
    for t, name in zip(outs, names, strict=True):
        if t.quantization is not None:
            w.quantize(name, t.name, t)


def _is_dynamic(w: Writer, op: Op) -> bool:
    """Whether weights are integers and the activations are not: the kernel quantizes them as they come."""
    if op.kind not in _DYNAMIC:
        return False
    x, weight = (w.graph.tensors[str(n)] for n in op.inputs[:2])
    return weight.quantization is not None and weight.data is not None and x.quantization is None


_Emitter = Callable[[Writer, Op, list[str], list[str]], None]


def _simple(kind: str, **attributes: Any) -> _Emitter:
    def emit(w: Writer, op: Op, x: list[str], out: list[str]) -> None:
        w.node(kind, x, out, **attributes)

    return emit


def _clip(activation: Activation) -> _Emitter:
    def emit(w: Writer, op: Op, x: list[str], out: list[str]) -> None:
        w.node("Clip", [x[0], *map(w.scalar, activation.bounds)], out)

    return emit


def _convolution_attributes(w: Writer, op: Op) -> dict[str, Any]:
    o = op.options
    kernel = list(w.shape(op.inputs[1])[2:])
    return {
        "kernel_shape": kernel,
        "strides": list(o["strides"]),
        "dilations": list(o["dilations"]),
        "pads": list(o["pads"]),
        "group": o["groups"],
    }


def _convolution(w: Writer, op: Op, x: list[str], out: list[str]) -> None:
    w.node("Conv", x, out, **_convolution_attributes(w, op))


def _transposed(w: Writer, op: Op, x: list[str], out: list[str]) -> None:
    o = op.options
    more = {"output_padding": list(o["more"])} if any(o["more"]) else {}
    w.node("ConvTranspose", x, out, strides=list(o["strides"]), pads=list(o["pads"]), **more)


def _dense(w: Writer, op: Op, x: list[str], out: list[str]) -> None:
    w.node("Gemm", x, out, transB=1)


def _dynamic(w: Writer, op: Op, out: str) -> tuple[list[str], Tensor, Quantization]:
    """Quantize the input as it comes; return [integers, zero point], the weights and their scales."""
    x = w.real(str(op.inputs[0]))
    names = [f"{x}_quantized", f"{x}_dynamic_scale", f"{x}_dynamic_zero_point"]
    w.once(names[0], lambda _: w.node("DynamicQuantizeLinear", [x], names))
    t = w.graph.tensors[str(op.inputs[1])]
    assert t.data is not None
    assert t.quantization is not None
    return names, t, t.quantization


def _rescale(w: Writer, op: Op, out: str, x_scale: str, scale: np.ndarray, shape: tuple[int, ...]) -> None:
    """From 32-bit sums `OUT_sums` to real numbers, plus the bias."""
    real = w.node("Cast", [f"{out}_sums"], f"{out}_cast", to=w.type("float32"))
    scales = w.initializer(f"{out}_weight_scale", scale.reshape(shape) if len(scale) > 1 else scale)
    both = w.node("Mul", [x_scale, scales], f"{out}_scale")
    bias = [n for n in op.inputs[2:] if n is not None]
    scaled = w.node("Mul", [real, both], f"{out}_scaled" if bias else out)
    if bias:
        data = w.graph.constant(bias[0])
        assert data is not None
        w.node("Add", [scaled, w.initializer(f"{bias[0]}_shaped", data.reshape(shape))], out)


def _dynamic_convolution(w: Writer, op: Op, out: str) -> None:
    (x, x_scale, x_zero), t, q = _dynamic(w, op, out)
    assert t.data is not None
    inputs = [x, w.initializer(t.name, t.data), x_zero]
    w.node("ConvInteger", inputs, f"{out}_sums", **_convolution_attributes(w, op))
    _rescale(w, op, out, x_scale, q.scale, (-1, 1, 1))


def _depthwise_in_float(w: Writer, op: Op, out: str) -> None:
    """Only the weights are integers: onnxruntime's ConvInteger has no depthwise kernel, and is far slower than Conv."""
    t = w.graph.tensors[str(op.inputs[1])]
    weights = w.unpack(t, f"{t.name}_dequantized")
    w.node(
        "Conv",
        [w.real(str(op.inputs[0])), weights, *(w.real(b) for b in op.inputs[2:] if b)],
        out,
        **_convolution_attributes(w, op),
    )


def _dynamic_dense(w: Writer, op: Op, out: str) -> None:
    (x, x_scale, x_zero), t, q = _dynamic(w, op, out)
    assert t.data is not None
    w.node("MatMulInteger", [x, w.initializer(t.name, t.data.T), x_zero], f"{out}_sums")
    _rescale(w, op, out, x_scale, q.scale, (-1,))


_DYNAMIC: dict[str, Callable[[Writer, Op, str], None]] = {
    "CONV_2D": _dynamic_convolution,
    "DEPTHWISE_CONV_2D": _depthwise_in_float,
    "FULLY_CONNECTED": _dynamic_dense,
}


def _reduction(kind: str) -> _Emitter:
    def emit(w: Writer, op: Op, x: list[str], out: list[str]) -> None:
        axes = op.options["axes"]
        if kind == "ReduceMean" and axes == (2, 3) and len(w.shape(op.inputs[0])) == 4:
            w.node("GlobalAveragePool", x, out)
        else:
            w.node(kind, [x[0], w.integers(f"{op.outputs[0]}_axes", axes)], out, keepdims=1)

    return emit


def _pool(kind: str, **attributes: Any) -> _Emitter:
    def emit(w: Writer, op: Op, x: list[str], out: list[str]) -> None:
        o = op.options
        pads = {"pads": list(o["pads"])}
        w.node(kind, x, out, kernel_shape=list(o["kernel"]), strides=list(o["strides"]), **pads, **attributes)

    return emit


def _reshape(w: Writer, op: Op, x: list[str], out: list[str]) -> None:
    before, after = w.shape(op.inputs[0]), tuple(op.options["shape"])
    if len(before) == 4 and len(after) == 2 and before[0] == after[0]:
        w.node("Flatten", x, out)
        return
    shape = list(after)
    if shape and before and shape[0] == before[0]:
        shape[0] = 0  # ONNX: as the input has it, whatever the batch
    w.node("Reshape", [x[0], w.integers(f"{op.outputs[0]}_shape", shape)], out)


def _transpose(w: Writer, op: Op, x: list[str], out: list[str]) -> None:
    w.node("Transpose", x, out, perm=list(op.options["perm"]))


def _pad(w: Writer, op: Op, x: list[str], out: list[str]) -> None:
    mode = "reflect" if op.kind == "MIRROR_PAD" else "constant"
    if op.options.get("mode") == 1:
        if max(*op.options["before"], *op.options["after"]) > 1:
            raise InputError(
                f"MIRROR_PAD ({op.outputs[0]}) of the symmetric kind has no form in onnx: use tflite or openvino"
            )
        mode = "edge"  # one step of it repeats the edge
    pads = w.integers(f"{op.outputs[0]}_pads", [*op.options["before"], *op.options["after"]])
    w.node("Pad", [x[0], pads, *x[1:]], out, mode=mode)


def _slice(w: Writer, op: Op, x: list[str], out: list[str]) -> None:
    o, shape, name = op.options, w.shape(op.inputs[0]), op.outputs[0]
    cut = [i for i, n in enumerate(shape) if (o["starts"][i], o["ends"][i], o["steps"][i]) != (0, n, 1)]
    if not cut:
        w.node("Identity", x, out)
        return
    given = [w.integers(f"{name}_{key}", [o[key][i] for i in cut]) for key in ("starts", "ends")]
    axes, steps = w.integers(f"{name}_axes", cut), w.integers(f"{name}_steps", [o["steps"][i] for i in cut])
    w.node("Slice", [x[0], *given, axes, steps], out)


def _concatenation(w: Writer, op: Op, x: list[str], out: list[str]) -> None:
    w.node("Concat", x, out, axis=op.options["axis"])


def _split(w: Writer, op: Op, x: list[str], out: list[str]) -> None:
    w.node("Split", x, out, axis=op.options["axis"], num_outputs=len(out))


def _softmax(w: Writer, op: Op, x: list[str], out: list[str]) -> None:
    beta = float(op.options["beta"])
    source = x[0] if beta == 1 else w.node("Mul", [x[0], w.scalar(beta)], f"{out[0]}_scaled")
    w.node({"LOG_SOFTMAX": "LogSoftmax"}.get(op.kind, "Softmax"), [source], out, axis=op.options["axis"])


def _gather(w: Writer, op: Op, x: list[str], out: list[str]) -> None:
    indices = w.integers(f"{op.outputs[0]}_indices", op.options["indices"])
    w.node("Gather", [x[0], indices], out, axis=op.options["axis"])


def _local_response(w: Writer, op: Op, x: list[str], out: list[str]) -> None:
    o, size = op.options, 2 * int(op.options["radius"]) + 1
    w.node("LRN", x, out, size=size, alpha=float(o["alpha"]) * size, beta=float(o["beta"]), bias=float(o["bias"]))


def _not_equal(w: Writer, op: Op, x: list[str], out: list[str]) -> None:
    w.node("Not", [w.node("Equal", x, f"{out[0]}_equal")], out)


def _floor_mod(w: Writer, op: Op, x: list[str], out: list[str]) -> None:
    times = w.node("Floor", [w.node("Div", x, f"{out[0]}_quotient")], f"{out[0]}_times")
    w.node("Sub", [x[0], w.node("Mul", [times, x[1]], f"{out[0]}_whole")], out)


def _leaky_relu(w: Writer, op: Op, x: list[str], out: list[str]) -> None:
    w.node("LeakyRelu", x, out, alpha=float(op.options["alpha"]))


def _gelu(w: Writer, op: Op, x: list[str], out: list[str]) -> None:
    w.node("Gelu", x, out, approximate="tanh" if op.options.get("approximate") else "none")


def _rsqrt(w: Writer, op: Op, x: list[str], out: list[str]) -> None:
    w.node("Reciprocal", [w.node("Sqrt", x, f"{out[0]}_sqrt")], out)


def _squared_difference(w: Writer, op: Op, x: list[str], out: list[str]) -> None:
    difference = w.node("Sub", x, f"{out[0]}_difference")
    w.node("Mul", [difference, difference], out)


def _square(w: Writer, op: Op, x: list[str], out: list[str]) -> None:
    w.node("Mul", [x[0], x[0]], out)


def _cast(w: Writer, op: Op, x: list[str], out: list[str]) -> None:
    w.node("Cast", x, out, to=w.type(w.graph.tensors[op.outputs[0]].dtype))


def _resize(w: Writer, op: Op, x: list[str], out: list[str]) -> None:
    o, nearest = op.options, op.kind == "RESIZE_NEAREST_NEIGHBOR"
    where = "align_corners" if o.get("alignCorners") else "half_pixel" if o.get("halfPixelCenters") else "asymmetric"
    # TFLite's nearest: floor of the position, which half_pixel has moved by a half; round when corners are aligned.
    rounding = {"nearest_mode": "floor" if where == "asymmetric" else "round_prefer_ceil"} if nearest else {}
    size = w.integers(f"{op.outputs[0]}_size", o["size"])
    w.node(
        "Resize", [x[0], "", "", size], out, mode="nearest" if nearest else "linear",
        coordinate_transformation_mode=where, axes=[2, 3], **rounding,
    )  # fmt: skip


def _batch_matmul(w: Writer, op: Op, x: list[str], out: list[str]) -> None:
    sides: list[str] = []
    for name, value, adjoint in zip(op.inputs, x, (op.options.get("adjX"), op.options.get("adjY")), strict=True):
        rank = len(w.shape(name))
        perm = [*range(rank - 2), rank - 1, rank - 2]
        sides.append(w.node("Transpose", [value], f"{out[0]}_{len(sides)}_adjoint", perm=perm) if adjoint else value)
    w.node("MatMul", sides, out)


_NAMES = {  # of operators that ONNX has as they are
    "ABS": "Abs", "ADD": "Add", "CEIL": "Ceil", "COS": "Cos", "DIV": "Div", "ELU": "Elu", "EQUAL": "Equal", "EXP":
    "Exp", "FLOOR": "Floor", "GREATER": "Greater", "GREATER_EQUAL": "GreaterOrEqual", "HARD_SWISH": "HardSwish",
    "LESS": "Less", "LESS_EQUAL": "LessOrEqual", "LOG": "Log", "LOGISTIC": "Sigmoid", "MAXIMUM": "Max", "MINIMUM":
    "Min", "MUL": "Mul", "NEG": "Neg", "POW": "Pow", "PRELU": "PRelu", "RELU": "Relu", "ROUND": "Round",
    "SELECT_V2": "Where", "SIGN": "Sign", "SIN": "Sin", "SQRT": "Sqrt", "SUB": "Sub", "TANH": "Tanh",
}  # fmt: skip
_KINDS: dict[str, _Emitter] = {
    **{kind: _simple(name) for kind, name in _NAMES.items()},
    "AVERAGE_POOL_2D": _pool("AveragePool", count_include_pad=0),
    "BATCH_MATMUL": _batch_matmul,
    "CAST": _cast,
    "CONCATENATION": _concatenation,
    "CONV_2D": _convolution,
    "DEPTHWISE_CONV_2D": _convolution,
    "FLOOR_MOD": _floor_mod,
    "FULLY_CONNECTED": _dense,
    "GATHER": _gather,
    "GELU": _gelu,
    "LEAKY_RELU": _leaky_relu,
    "LOCAL_RESPONSE_NORMALIZATION": _local_response,
    "LOG_SOFTMAX": _softmax,
    "MAX_POOL_2D": _pool("MaxPool"),
    "MEAN": _reduction("ReduceMean"),
    "MIRROR_PAD": _pad,
    "NOT_EQUAL": _not_equal,
    "PAD": _pad,
    "REDUCE_MAX": _reduction("ReduceMax"),
    "REDUCE_MIN": _reduction("ReduceMin"),
    "REDUCE_PROD": _reduction("ReduceProd"),
    "RELU6": _clip(Activation.RELU6),
    "RELU_N1_TO_1": _clip(Activation.RELU_N1_TO_1),
    "RESHAPE": _reshape,
    "RESIZE_BILINEAR": _resize,
    "RESIZE_NEAREST_NEIGHBOR": _resize,
    "RSQRT": _rsqrt,
    "SLICE": _slice,
    "SOFTMAX": _softmax,
    "SPLIT": _split,
    "SQUARE": _square,
    "SQUARED_DIFFERENCE": _squared_difference,
    "SUM": _reduction("ReduceSum"),
    "TRANSPOSE": _transpose,
    "TRANSPOSE_CONV": _transposed,
}
