"""ONNX operators in TFLite's terms, one handler a kind: `HANDLERS[node.kind](importer, node)` returns what the node makes.

https://onnx.ai/onnx/operators/ says what they mean, with the changes from opset to opset.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from edgenet.errors import InputError
from edgenet.export.from_onnx import NHWC, Node, Value, _Importer, identity
from edgenet.export.fuse import SAME, VALID, same_pads

NONE = {"fusedActivationFunction": 0}
FLOAT_MAX = float(np.finfo(np.float32).max)
Handler = Callable[[_Importer, Node], Value | list[Value]]


# ------------------------------------------------------------------------------------------------- elementwise


def _same(kind: str, options_type: str = "NONE", **options: Any) -> Handler:
    def handle(b: _Importer, node: Node) -> Value:
        return b.same(node, kind, b.value(node), options, options_type)

    return handle


def _passed(b: _Importer, node: Node) -> Value:
    if node.kind == "Dropout" and (training := b.constant(node, 2)) is not None and bool(training):
        raise InputError(f"{node} is in training mode: export the network in inference mode (model.eval())")
    return b.value(node)


def _aligned(b: _Importer, x: Value, rank: int) -> Value:
    """Return activation `x` with axes of length 1 in front up to `rank`."""
    return b.reshape(x, (1,) * (rank - x.rank) + x.shape) if x.rank < rank else x


def _constant_like(b: _Importer, name: str, data: np.ndarray, x: Value) -> str:
    """Add a constant in the order in which `x`, of its rank or higher, is stored."""
    data = np.asarray(data, np.float32)
    data = data.reshape((1,) * (x.rank - data.ndim) + data.shape)
    if x.flat is not None and data.shape[-1] > 1:
        data = data[..., x.flat_order()]
    data = data.transpose(x.perm)
    while data.ndim > 1 and data.shape[0] == 1:
        data = data[0]
    return b.add_constant(name, data if data.ndim else data.reshape(1))


def binary(b: _Importer, node: Node, kind: str, x: Value, y: Value | np.ndarray, swap: bool = False) -> Value:
    """Add an operator of two operands that broadcast; `swap` puts `y` first."""
    options_type = {"ADD": "AddOptions", "SUB": "SubOptions", "MUL": "MulOptions", "DIV": "DivOptions"}.get(kind)
    options, options_type = (NONE, options_type) if options_type else ({}, "MaximumMinimumOptions")
    if isinstance(y, np.ndarray):
        if y.ndim > x.rank:
            x = _aligned(b, x, y.ndim)
        if kind == "DIV" and not swap:
            kind, y, options_type = "MUL", (1 / y.astype(np.float64)).astype(np.float32), "MulOptions"
        other, shape = (
            _constant_like(b, f"{node.outputs[0].strip('/')}_constant", y, x),
            np.broadcast_shapes(x.shape, y.shape),
        )
        out = replace(x, shape=shape)
    else:
        rank = max(x.rank, y.rank)
        x, y = b.plain(_aligned(b, x, rank)), b.plain(_aligned(b, y, rank))
        if np.prod(y.shape) > np.prod(x.shape):
            x = b.turn(x, y.perm)
        y = b.turn(y, x.perm)
        other, out = y.name, replace(x, shape=np.broadcast_shapes(x.shape, y.shape))
    operands = [other, x.name] if swap else [x.name, other]
    return replace(out, name=b.emit(node, kind, operands, out.stored, options, options_type))


def _binary(kind: str) -> Handler:
    def handle(b: _Importer, node: Node) -> Value:
        first, second = b.constant(node, 0), b.constant(node, 1)
        if second is not None:
            return binary(b, node, kind, b.value(node), second)
        if first is not None:
            return binary(b, node, kind, b.value(node, 1), first, swap=kind in ("SUB", "DIV"))
        return binary(b, node, kind, b.value(node), b.value(node, 1))

    return handle


def _extremes(kind: str) -> Handler:
    def handle(b: _Importer, node: Node) -> Value:
        known = [c for i in range(len(node.inputs)) if (c := b.constant(node, i)) is not None]
        rest = [b.value(node, i) for i in range(len(node.inputs)) if b.constant(node, i) is None]
        out = rest[0]
        for y in (*rest[1:], *known):
            out = binary(b, node, kind, out, y)
        return out

    return handle


def clip(b: _Importer, node: Node, x: Value, low: float, high: float) -> Value:
    kinds = {(0.0, 6.0): "RELU6", (-1.0, 1.0): "RELU_N1_TO_1"}
    if (low, high) in kinds:
        return b.same(node, kinds[low, high], x)
    if low == 0.0:
        x = b.same(node, "RELU", x)
    elif low > -FLOAT_MAX:
        x = binary(b, node, "MAXIMUM", x, np.float32(low).reshape(1))
    return binary(b, node, "MINIMUM", x, np.float32(high).reshape(1)) if high < FLOAT_MAX else x


def _clip(b: _Importer, node: Node) -> Value:
    limits = []
    for i, key, default in ((1, "min", -np.inf), (2, "max", np.inf)):
        given = b.required(node, i, key) if node.input(i) else node.attributes.get(key, default)
        limits.append(float(np.asarray(given).ravel()[0]) if np.size(given) else default)
    return clip(b, node, b.value(node), *limits)


def _hard_sigmoid(b: _Importer, node: Node) -> Value:
    """max(0, min(1, alpha x + beta)) as ReLU6 does it: 6 times as large, then divided."""
    alpha, beta = node.attributes.get("alpha", 0.2), node.attributes.get("beta", 0.5)
    x = b.value(node)
    if abs(alpha * 6 - 1) > 1e-6:
        x = binary(b, node, "MUL", x, np.array([alpha * 6], np.float32))
    x = binary(b, node, "ADD", x, np.array([beta * 6], np.float32))
    return binary(b, node, "MUL", b.same(node, "RELU6", x), np.array([1 / 6], np.float32))


def _leaky_relu(b: _Importer, node: Node) -> Value:
    return b.same(node, "LEAKY_RELU", b.value(node), {"alpha": node.attributes.get("alpha", 0.01)}, "LeakyReluOptions")


def _prelu(b: _Importer, node: Node) -> Value:
    x, slope = b.value(node), b.required(node, 1, "slope")
    name = _constant_like(b, f"{node.outputs[0].strip('/')}_slope", slope, x)
    return replace(x, name=b.emit(node, "PRELU", [x.name, name], x.stored))


def _elu(b: _Importer, node: Node) -> Value:
    if node.attributes.get("alpha", 1.0) != 1.0:
        raise InputError(f"{node} has alpha {node.attributes['alpha']:g}; edgenet handles 1")
    return b.same(node, "ELU", b.value(node))


def _gelu(b: _Importer, node: Node) -> Value:
    tanh = node.attributes.get("approximate", "none") == "tanh"
    return b.same(node, "GELU", b.value(node), {"approximate": tanh}, "GeluOptions")


def _silu(b: _Importer, node: Node) -> Value:
    x = b.value(node)
    alpha = node.attributes.get("alpha", 1.0)
    inner = x if alpha == 1.0 else binary(b, node, "MUL", x, np.array([alpha], np.float32))
    return binary(b, node, "MUL", x, b.same(node, "LOGISTIC", inner))


def _softplus_of(b: _Importer, node: Node, x: Value) -> Value:
    """log(1 + exp(x)) as max(x, 0) + log(1 + exp(-|x|)), which does not overflow."""
    small = b.same(
        node, "EXP", b.same(node, "NEG", b.same(node, "ABS", x, {}, "AbsOptions"), {}, "NegOptions"), {}, "ExpOptions"
    )
    log = b.same(node, "LOG", binary(b, node, "ADD", small, np.ones(1, np.float32)))
    return binary(b, node, "ADD", b.same(node, "RELU", x), log)


def _softplus(b: _Importer, node: Node) -> Value:
    return _softplus_of(b, node, b.value(node))


def _mish(b: _Importer, node: Node) -> Value:
    x = b.value(node)
    return binary(b, node, "MUL", x, b.same(node, "TANH", _softplus_of(b, node, x)))


def _power(b: _Importer, node: Node) -> Value:
    exponent = b.required(node, 1, "exponent")
    if exponent.size != 1 or float(exponent.ravel()[0]) not in (0.5, 1.0, 2.0):
        raise InputError(f"{node} has an exponent other than 0.5, 1 and 2, which edgenet does not handle")
    x = b.value(node)
    kind = {0.5: "SQRT", 1.0: "", 2.0: "SQUARE"}[float(exponent.ravel()[0])]
    return b.same(node, kind, x, {}, "SquareOptions" if kind == "SQUARE" else "NONE") if kind else x


def _reciprocal(b: _Importer, node: Node) -> Value:
    return binary(b, node, "DIV", b.value(node), np.ones(1, np.float32), swap=True)


def _cast(b: _Importer, node: Node) -> Value:
    name = b.onnx.TensorProto.DataType.Name(node.attributes["to"])
    if name not in ("FLOAT", "FLOAT16", "DOUBLE", "BFLOAT16"):
        raise InputError(f"{node} turns an activation into {name}; edgenet handles real numbers")
    return b.value(node)


def _expand(b: _Importer, node: Node) -> Value:
    x, wanted = b.value(node), tuple(int(n) for n in b.required(node, 1, "shape"))
    if np.broadcast_shapes(x.shape, wanted) != np.broadcast_shapes(x.shape):
        return binary(b, node, "ADD", x, np.zeros(wanted, np.float32))
    return x


# ------------------------------------------------------------------------- convolutions, pools, dense layers, norms


def _spatial(b: _Importer, node: Node, x: Value, kernel: Sequence[int]) -> tuple[list[int], list[int], list[int]]:
    """Return strides, dilations and pads (top, left, bottom, right) of a sliding window."""
    a = node.attributes
    strides, dilations = list(a.get("strides", (1, 1))), list(a.get("dilations", (1, 1)))
    auto = a.get("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        pairs = [same_pads(n, k, s, d) for n, k, s, d in zip(x.shape[2:], kernel, strides, dilations, strict=True)]
        if auto == "SAME_LOWER":
            pairs = [(after, before) for before, after in pairs]
        return strides, dilations, [p[0] for p in pairs] + [p[1] for p in pairs]
    return strides, dilations, list(a.get("pads", (0,) * 4)) if auto == "NOTSET" else [0] * 4


def _is_same(
    x: Value, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int], pads: Sequence[int]
) -> bool:
    return all(
        same_pads(x.shape[2 + i], kernel[i], strides[i], dilations[i]) == (pads[i], pads[i + 2]) for i in range(2)
    )


def _output(x: Value, channels: int, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int],
            pads: Sequence[int]) -> Value:  # fmt: skip
    sizes = [
        (x.shape[2 + i] + pads[i] + pads[i + 2] - (kernel[i] - 1) * dilations[i] - 1) // strides[i] + 1
        for i in range(2)
    ]
    return replace(x, shape=(x.shape[0], channels, *sizes))


def pad_picture(b: _Importer, node: Node, x: Value, pads: Sequence[int], mode: str = "zero") -> Value:
    """Return an NHWC `x` with `pads` (top, left, bottom, right) around it."""
    if not any(pads):
        return x
    table = np.array([[0, 0], [pads[0], pads[2]], [pads[1], pads[3]], [0, 0]], np.int32)
    n, c, h, w = x.shape
    out = replace(x, shape=(n, c, h + pads[0] + pads[2], w + pads[1] + pads[3]))
    inputs = [x.name, b.add_constant(f"{x.name}_pads", table)]
    padded = replace(node, outputs=(f"{x.name}_padded",))
    if mode == "zero":
        return replace(out, name=b.emit(padded, "PAD", inputs, out.stored, {}, "PadOptions"))
    options = {"mode": {"reflect": 0, "symmetric": 1}[mode]}
    return replace(out, name=b.emit(padded, "MIRROR_PAD", inputs, out.stored, options, "MirrorPadOptions"))


def _conv(b: _Importer, node: Node) -> Value:
    w = b.required(node, 1, "weights").astype(np.float32)
    if w.ndim != 4:
        raise InputError(f"{node} is a convolution over {w.ndim - 2} dimensions; edgenet handles pictures")
    x, groups, kernel = b.picture(node), int(node.attributes.get("group", 1)), w.shape[2:]
    channels, out_channels = x.shape[1], w.shape[0]
    if w.shape[1] * groups != channels or out_channels % groups:
        raise InputError(
            f"{node} has weights {w.shape} for {channels} channels in {groups} groups: the file is damaged"
        )
    strides, dilations, pads = _spatial(b, node, x, kernel)
    out = _output(x, out_channels, kernel, strides, dilations, pads)
    same = _is_same(x, kernel, strides, dilations, pads)
    if not same:
        x = pad_picture(b, node, x, pads)
    options = {
        "padding": SAME if same and any(pads) else VALID, "strideH": strides[0], "strideW": strides[1],
        "dilationHFactor": dilations[0], "dilationWFactor": dilations[1], **NONE,
    }  # fmt: skip
    bias = np.zeros(out_channels, np.float32)
    if node.input(2):
        bias = b.required(node, 2, "bias").astype(np.float32)
    name = node.outputs[0].strip("/").removesuffix("_output_0")
    depthwise = groups == channels and (groups > 1 or channels == 1)
    if depthwise:
        weights = b.add_constant(f"{name}_weights", w.transpose(1, 2, 3, 0))  # (1, H, W, C * multiplier)
        kind, options_type = "DEPTHWISE_CONV_2D", "DepthwiseConv2DOptions"
        options["depthMultiplier"] = out_channels // channels
    else:
        weights = b.add_constant(f"{name}_weights", w.transpose(0, 2, 3, 1))  # OHWI
        kind, options_type = "CONV_2D", "Conv2DOptions"
    inputs = [x.name, weights, b.add_constant(f"{name}_bias", bias)]
    version = 2 if depthwise and max(dilations) > 1 else 6 if groups > 1 and not depthwise else 1
    return replace(out, name=b.emit(node, kind, inputs, out.stored, options, options_type, version=version))


def _window_options(kernel: Sequence[int], strides: Sequence[int], same: bool) -> dict[str, Any]:
    return {
        "padding": SAME if same else VALID, "strideH": strides[0], "strideW": strides[1],
        "filterHeight": kernel[0], "filterWidth": kernel[1], **NONE,
    }  # fmt: skip


def _pool_window(b: _Importer, node: Node, x: Value) -> tuple[list[int], list[int], list[int], list[int]]:
    """Return kernel, strides, ONNX's pads, and the pads with what `ceil_mode` adds at the end."""
    kernel = list(node.attributes["kernel_shape"])
    strides, dilations, pads = _spatial(b, node, x, kernel)
    if max(dilations) > 1:
        raise InputError(f"{node} has dilations {dilations}, which edgenet does not handle")
    grown = list(pads)
    if node.attributes.get("ceil_mode", 0):
        for i in range(2):
            span = x.shape[2 + i] + pads[i] + pads[i + 2] - kernel[i]
            n = -(-span // strides[i]) + 1
            if (n - 1) * strides[i] >= x.shape[2 + i] + pads[i]:  # the last window must begin inside
                n -= 1
            grown[i + 2] = max(pads[i + 2] + (n - 1) * strides[i] - span, 0)
    return kernel, strides, pads, grown


def _max_pool(b: _Importer, node: Node) -> Value:
    if len(node.outputs) > 1 and node.outputs[1]:
        raise InputError(f"{node} gives indices, which edgenet does not handle")
    x = b.picture(node)
    kernel, strides, given, pads = _pool_window(b, node, x)
    out = _output(x, x.shape[1], kernel, strides, (1, 1), pads)
    same = _is_same(x, kernel, strides, (1, 1), pads)
    if not same:
        # Zeros change nothing where no number is below. Elsewhere the edge is mirrored, where the window has what that
        # repeats anyway, or else repeated: a window that reaches beyond an edge has the edge in it.
        if _is_never_negative(b, x):
            x = pad_picture(b, node, x, pads)
        elif pads == given and all(kernel[i % 2] >= 2 * p + 1 for i, p in enumerate(pads)):
            x = pad_picture(b, node, x, pads, "reflect")
        else:
            for step in range(max(pads)):
                x = pad_picture(b, node, x, [int(p > step) for p in pads], "symmetric")
    options = _window_options(kernel, strides, same)
    return replace(out, name=b.emit(node, "MAX_POOL_2D", [x.name], out.stored, options, "Pool2DOptions"))


def _is_never_negative(b: _Importer, x: Value) -> bool:
    made = next((op for op in b.ops if x.name in op.outputs), None)
    if made is not None and made.kind in (
        "MAX_POOL_2D",
        "AVERAGE_POOL_2D",
        "PAD",
        "CONCATENATION",
        "TRANSPOSE",
        "RESHAPE",
    ):
        sources = made.inputs if made.kind == "CONCATENATION" else made.inputs[:1]
        return all(_is_never_negative(b, replace(x, name=str(n))) for n in sources)
    return made is not None and made.kind in ("RELU", "RELU6", "LOGISTIC", "SOFTMAX")


def _average_pool(b: _Importer, node: Node) -> Value:
    x = b.picture(node)
    kernel, strides, pads, grown = _pool_window(b, node, x)
    if kernel == strides == [1, 1] and not any(grown):  # an adaptive pool that has nothing to do
        return x
    out = _output(x, x.shape[1], kernel, strides, (1, 1), grown)
    with_pads = bool(node.attributes.get("count_include_pad", 0))
    counts = np.outer(*(_counted(x.shape[2 + i], kernel[i], strides[i], pads[i], pads[i + 2] if with_pads else 0,
                                 with_pads, out.shape[2 + i]) for i in range(2)))  # fmt: skip
    same = _is_same(x, kernel, strides, (1, 1), grown) and (not with_pads or not any(pads))
    if not same:
        x = pad_picture(b, node, x, grown)
    options = _window_options(kernel, strides, same)
    out = replace(out, name=b.emit(node, "AVERAGE_POOL_2D", [x.name], out.stored, options, "Pool2DOptions"))
    if same or np.all(counts == kernel[0] * kernel[1]):
        return out
    return binary(b, node, "MUL", out, (kernel[0] * kernel[1] / counts).astype(np.float32)[None, None])


def _counted(size: int, kernel: int, stride: int, before: int, after: int, with_pads: bool, n: int) -> np.ndarray:
    """Return how many numbers of an axis each of `n` windows averages."""
    low, high = (-before, size + after) if with_pads else (0, size)
    starts = np.arange(n) * stride - before
    return np.minimum(starts + kernel, high) - np.maximum(starts, low)


def _global_average_pool(b: _Importer, node: Node) -> Value:
    return reduce(b, node, "MEAN", b.value(node), list(range(2, b.value(node).rank)), True)


def _global_max_pool(b: _Importer, node: Node) -> Value:
    x = b.picture(node)
    out = replace(x, shape=(*x.shape[:2], 1, 1))
    options = _window_options(x.shape[2:], (1, 1), False)
    return replace(out, name=b.emit(node, "MAX_POOL_2D", [x.name], out.stored, options, "Pool2DOptions"))


def _batch_norm(b: _Importer, node: Node) -> Value:
    if node.attributes.get("training_mode", 0):
        raise InputError(f"{node} is in training mode: export the network in inference mode (model.eval())")
    gamma, beta, mean, variance = (b.required(node, i, "parameters").astype(np.float64) for i in range(1, 5))
    scale = gamma / np.sqrt(variance + node.attributes.get("epsilon", 1e-5))
    x = b.value(node)
    shape = (-1, *(1,) * (x.rank - 2))
    y = binary(b, node, "MUL", x, scale.reshape(shape))
    return binary(b, node, "ADD", y, (beta - mean * scale).reshape(shape))


def _layer_norm(b: _Importer, node: Node) -> Value:
    x = b.plain(b.value(node))
    axes = list(range(node.attributes.get("axis", -1) % x.rank, x.rank))
    mean = reduce(b, node, "MEAN", x, axes, True)
    centred = binary(b, node, "SUB", x, mean)
    variance = reduce(b, node, "MEAN", binary(b, node, "MUL", centred, centred), axes, True)
    shifted = binary(b, node, "ADD", variance, np.array([node.attributes.get("epsilon", 1e-5)], np.float32))
    y = binary(b, node, "MUL", centred, b.same(node, "RSQRT", shifted))
    y = binary(b, node, "MUL", y, b.required(node, 1, "scale"))
    return binary(b, node, "ADD", y, b.required(node, 2, "shift")) if node.input(2) else y


def _local_response(b: _Importer, node: Node) -> Value:
    x, a = b.picture(node), node.attributes
    if a["size"] % 2 == 0:
        raise InputError(f"{node} has the even size {a['size']}, which edgenet does not handle")
    options = {
        "radius": a["size"] // 2, "bias": a.get("bias", 1.0), "alpha": a.get("alpha", 1e-4) / a["size"],
        "beta": a.get("beta", 0.75),
    }  # fmt: skip
    return b.same(node, "LOCAL_RESPONSE_NORMALIZATION", x, options, "LocalResponseNormalizationOptions")


def dense(b: _Importer, node: Node, x: Value, w: np.ndarray, bias: np.ndarray | None) -> Value:
    """Add a dense layer over the last axis. w: (in, out)."""
    if x.flat is not None and x.flat[0] and x.shape[-1] == w.shape[0]:
        w = w[x.flat_order()]  # the picture stays as it is stored, its rows move
        x = replace(x, flat=None)
    x = x if x.perm[-1] == x.rank - 1 else b.in_order(x)
    name = node.outputs[0].strip("/").removesuffix("_output_0")
    if w.shape[0] != x.shape[-1]:
        raise InputError(f"{node} has weights for {w.shape[0]} numbers and is given {x.shape[-1]}: the file is damaged")
    weights = b.add_constant(f"{name}_weights", w.T.astype(np.float32))
    full = np.zeros(w.shape[1], np.float32) if bias is None else np.broadcast_to(bias, (w.shape[1],)).astype(np.float32)
    out = replace(x, shape=(*x.shape[:-1], w.shape[1]))
    options = {**NONE, "weightsFormat": 0, "keepNumDims": x.rank != 2, "asymmetricQuantizeInputs": False}
    inputs = [x.name, weights, b.add_constant(f"{name}_bias", full)]
    version = 5 if x.rank != 2 else 1
    out_name = b.emit(node, "FULLY_CONNECTED", inputs, out.stored, options, "FullyConnectedOptions", version=version)
    return replace(out, name=out_name)


def _gemm(b: _Importer, node: Node) -> Value:
    a = node.attributes
    if a.get("transA", 0):
        raise InputError(f"{node} transposes its first operand, which edgenet does not handle")
    w = b.required(node, 1, "weights").astype(np.float32) * np.float32(a.get("alpha", 1.0))
    bias = None
    if node.input(2):
        bias = b.required(node, 2, "bias").astype(np.float32).ravel() * np.float32(a.get("beta", 1.0))
    return dense(b, node, b.value(node), w.T if a.get("transB", 0) else w, bias)


def _matmul(b: _Importer, node: Node) -> Value:
    w = b.constant(node, 1)
    if w is not None and w.ndim == 2 and b.constant(node, 0) is None:
        return dense(b, node, b.value(node), w, None)
    x, y = b.in_order(b.value(node)), b.in_order(b.value(node, 1))
    rank = max(x.rank, y.rank)
    if min(x.rank, y.rank) < 2:
        raise InputError(f"{node} multiplies shapes {x.shape} and {y.shape}; edgenet handles matrices")
    x, y = b.in_order(_aligned(b, x, rank)), b.in_order(_aligned(b, y, rank))
    shape = (*np.broadcast_shapes(x.shape[:-2], y.shape[:-2]), x.shape[-2], y.shape[-1])
    options = {"adjX": False, "adjY": False, "asymmetricQuantizeInputs": False}
    name = b.emit(node, "BATCH_MATMUL", [x.name, y.name], shape, options, "BatchMatMulOptions")
    return Value(name, shape, identity(rank))


def _softmax(kind: str) -> Handler:
    def handle(b: _Importer, node: Node) -> Value:
        x = b.plain(b.value(node))
        axis = node.attributes.get("axis", -1 if b.opset >= 13 else 1) % x.rank
        if b.opset < 13 and any(n != 1 for n in x.shape[axis + 1 :]):
            raise InputError(f"{node} of opset {b.opset} runs over several axes: export with opset 13 or later")
        if x.perm[-1] != axis:
            x = b.turn(x, (*(i for i in x.perm if i != axis), axis))
        options, type_ = ({"beta": 1.0}, "SoftmaxOptions") if kind == "SOFTMAX" else ({}, "LogSoftmaxOptions")
        return b.same(node, kind, x, options, type_)

    return handle


# ------------------------------------------------------------------------------------------- reductions and shapes


def reduce(b: _Importer, node: Node, kind: str, x: Value, axes: Sequence[int], keep: bool) -> Value:
    x = b.plain(x)
    axes = sorted({a % x.rank for a in axes}) if axes else list(range(x.rank))
    places = b.add_constant(f"{x.name}_axes", np.array(sorted(x.axis(a) for a in axes), np.int32))
    if keep:
        out = replace(x, shape=tuple(1 if i in axes else n for i, n in enumerate(x.shape)))
    else:
        left = [i for i in range(x.rank) if i not in axes]
        perm = tuple(left.index(i) for i in x.perm if i in left)
        out = Value("", tuple(x.shape[i] for i in left), perm)
    name = b.emit(node, kind, [x.name, places], out.stored, {"keepDims": keep}, "ReducerOptions")
    return replace(out, name=name)


def _axes(b: _Importer, node: Node, x: Value | None = None) -> list[int]:
    if node.input(1):
        return [int(a) for a in np.ravel(b.required(node, 1, "axes"))]
    return [int(a) for a in node.attributes.get("axes", ())]


def _reduction(kind: str) -> Handler:
    def handle(b: _Importer, node: Node) -> Value:
        axes, x = _axes(b, node), b.value(node)
        if not axes and node.attributes.get("noop_with_empty_axes", 0):
            return x
        return reduce(b, node, kind, x, axes, bool(node.attributes.get("keepdims", 1)))

    return handle


def _reshape(b: _Importer, node: Node) -> Value:
    x, wanted = b.value(node), [int(n) for n in b.required(node, 1, "shape")]
    if not node.attributes.get("allowzero", 0):
        wanted = [x.shape[i] if n == 0 else n for i, n in enumerate(wanted)]
    if -1 in wanted:
        rest = int(np.prod([n for n in wanted if n != -1]))
        wanted[wanted.index(-1)] = int(np.prod(x.shape)) // max(rest, 1)
    if np.prod(wanted) != np.prod(x.shape):
        raise InputError(
            f"{node} makes {wanted} of {list(x.shape)}: export the network with a batch of 1 and a fixed size"
        )
    return b.reshape(x, wanted)


def _flatten(b: _Importer, node: Node) -> Value:
    x = b.value(node)
    axis = node.attributes.get("axis", 1)
    axis = axis + x.rank if axis < 0 else axis
    return b.reshape(x, (int(np.prod(x.shape[:axis])), int(np.prod(x.shape[axis:]))))


def _squeeze(b: _Importer, node: Node) -> Value:
    x = b.value(node)
    axes = [a % x.rank for a in _axes(b, node)] or [i for i, n in enumerate(x.shape) if n == 1]
    return b.reshape(x, [n for i, n in enumerate(x.shape) if i not in axes])


def _unsqueeze(b: _Importer, node: Node) -> Value:
    x, axes = b.value(node), _axes(b, node)
    rank = x.rank + len(axes)
    places, left = {a % rank for a in axes}, list(x.shape)
    return b.reshape(x, [1 if i in places else left.pop(0) for i in range(rank)])


def _transpose(b: _Importer, node: Node) -> Value:
    x = b.plain(b.value(node))
    order = list(node.attributes.get("perm", reversed(range(x.rank))))
    return Value(x.name, tuple(x.shape[i] for i in order), tuple(order.index(i) for i in x.perm))


def _concat(b: _Importer, node: Node) -> Value:
    values = [b.plain(b.value(node, i)) for i in range(len(node.inputs))]
    lead = next((v for i, v in enumerate(values) if b.constant(node, i) is None), values[0])
    values = [b.turn(v, lead.perm) for v in values]
    axis = node.attributes["axis"] % lead.rank
    shape = list(lead.shape)
    shape[axis] = sum(v.shape[axis] for v in values)
    out = replace(lead, shape=tuple(shape))
    options = {"axis": lead.axis(axis), **NONE}
    name = b.emit(node, "CONCATENATION", [v.name for v in values], out.stored, options, "ConcatenationOptions")
    return replace(out, name=name)


def cut(b: _Importer, node: Node, x: Value, starts: Sequence[int], sizes: Sequence[int]) -> Value:
    """Add a SLICE; `starts` and `sizes` are an axis of ONNX's each."""
    if tuple(sizes) == x.shape:
        return x
    out = replace(x, shape=tuple(sizes))
    begin = b.add_constant(f"{x.name}_begin", np.array([starts[i] for i in x.perm], np.int32))
    size = b.add_constant(f"{x.name}_size", np.array(out.stored, np.int32))
    return replace(out, name=b.emit(node, "SLICE", [x.name, begin, size], out.stored, {}, "SliceOptions"))


def _slice(b: _Importer, node: Node) -> Value:
    x, a = b.plain(b.value(node)), node.attributes
    if b.opset < 10:
        starts, ends = list(a["starts"]), list(a["ends"])
        axes, steps = list(a.get("axes", range(len(starts)))), [1] * len(starts)
    else:
        starts, ends = (b.required(node, i, "limits").tolist() for i in (1, 2))
        axes = b.required(node, 3, "axes").tolist() if node.input(3) else list(range(len(starts)))
        steps = b.required(node, 4, "steps").tolist() if node.input(4) else [1] * len(starts)
    chosen = [range(n) for n in x.shape]
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        chosen[axis] = range(x.shape[axis])[slice(start, end, step)]
    if any(r.step < 0 for r in chosen):
        raise InputError(f"{node} runs backwards, which edgenet does not handle")
    if any(len(r) == 0 for r in chosen):
        raise InputError(f"{node} leaves nothing of shape {x.shape}")
    if all(r.step == 1 for r in chosen):
        return cut(b, node, x, [r.start for r in chosen], [len(r) for r in chosen])
    out = replace(x, shape=tuple(len(r) for r in chosen))
    stored = [chosen[i] for i in x.perm]
    limits = [
        b.add_constant(f"{x.name}_{what}", np.array(values, np.int32))
        for what, values in (
            ("begin", [r.start for r in stored]), ("end", [r[-1] + 1 for r in stored]), ("step", [r.step for r in stored])
        )
    ]  # fmt: skip
    masks = dict.fromkeys(("beginMask", "endMask", "ellipsisMask", "newAxisMask", "shrinkAxisMask"), 0)
    name = b.emit(
        node, "STRIDED_SLICE", [x.name, *limits], out.stored, {**masks, "offset": False}, "StridedSliceOptions"
    )
    return replace(out, name=name)


def _split(b: _Importer, node: Node) -> list[Value]:
    x, a = b.plain(b.value(node)), node.attributes
    axis, n = a.get("axis", 0) % x.rank, len(node.outputs)
    if node.input(1):
        sizes = [int(v) for v in b.required(node, 1, "sizes")]
    elif "split" in a:
        sizes = list(a["split"])
    else:
        each = -(-x.shape[axis] // n)
        sizes = [min(each, x.shape[axis] - i * each) for i in range(n)]
    parts, start = [], 0
    for i, size in enumerate(sizes):
        starts, shape = [0] * x.rank, list(x.shape)
        starts[axis], shape[axis] = start, size
        parts.append(cut(b, replace(node, outputs=(node.outputs[i],)), x, starts, shape))
        start += size
    return parts


def _gather(b: _Importer, node: Node) -> Value:
    x, indices = b.plain(b.value(node)), b.required(node, 1, "indices")
    axis = node.attributes.get("axis", 0) % x.rank
    indices = np.where(indices < 0, indices + x.shape[axis], indices)
    if indices.size == 1:
        starts, shape = [0] * x.rank, list(x.shape)
        starts[axis], shape[axis] = int(indices.ravel()[0]), 1
        out = cut(b, node, x, starts, shape)
        return b.reshape(out, [*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]])
    if indices.ndim != 1:
        raise InputError(f"{node} picks by indices of shape {indices.shape}; edgenet handles one axis of them")
    out = replace(x, shape=(*x.shape[:axis], indices.size, *x.shape[axis + 1 :]))
    inputs = [x.name, b.add_constant(f"{x.name}_indices", indices.astype(np.int32))]
    options = {"axis": x.axis(axis), "batchDims": 0}
    return replace(out, name=b.emit(node, "GATHER", inputs, out.stored, options, "GatherOptions"))


def _pad(b: _Importer, node: Node) -> Value:
    x, a = b.plain(b.value(node)), node.attributes
    pads = [int(p) for p in (a["pads"] if b.opset < 11 else b.required(node, 1, "pads"))]
    table = np.zeros((x.rank, 2), np.int32)
    axes = [int(i) % x.rank for i in b.required(node, 3, "axes")] if node.input(3) else range(x.rank)
    for i, axis in enumerate(axes):
        table[axis] = pads[i], pads[i + len(pads) // 2]
    if not table.any():
        return x
    if table.min() < 0:
        raise InputError(f"{node} cuts off (negative pads), which edgenet does not handle")
    given = b.required(node, 2, "value") if node.input(2) else np.float32(a.get("value", 0.0))
    value, mode = float(np.ravel(given)[0]) if np.size(given) else 0.0, a.get("mode", "constant")
    if mode not in ("constant", "reflect"):
        raise InputError(f"{node} has the mode '{mode}'; edgenet handles constant and reflect")
    out = replace(x, shape=tuple(int(n + t.sum()) for n, t in zip(x.shape, table, strict=True)))
    inputs = [x.name, b.add_constant(f"{x.name}_pads", table[list(x.perm)])]
    if mode == "reflect":
        name = b.emit(node, "MIRROR_PAD", inputs, out.stored, {"mode": 0}, "MirrorPadOptions")
    elif value == 0.0:
        name = b.emit(node, "PAD", inputs, out.stored, {}, "PadOptions")
    else:
        inputs.append(b.add_constant(f"{x.name}_pad", np.array([value], np.float32)))
        name = b.emit(node, "PADV2", inputs, out.stored, {}, "PadV2Options")
    return replace(out, name=name)


def _resize(b: _Importer, node: Node) -> Value:
    x, a = b.picture(node), node.attributes
    old = node.kind == "Upsample" or b.opset < 11  # (x, scales), asymmetric
    sizes = None if old or not node.input(3) else b.required(node, 3, "size").astype(int)
    scales = None if sizes is not None else b.required(node, 1 if old else 2, "scales")
    if a.get("antialias", 0) or "axes" in a or a.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise InputError(f"{node} asks for antialiasing, axes or an aspect ratio, which edgenet does not handle")
    if sizes is None:
        sizes = np.floor(np.array(x.shape) * np.asarray(scales, np.float64) + 1e-6).astype(int)
    if tuple(sizes[:2]) != x.shape[:2]:
        raise InputError(f"{node} resizes channels, which edgenet does not handle")
    where = "asymmetric" if old else a.get("coordinate_transformation_mode", "half_pixel")
    mode, factors = a.get("mode", "nearest"), np.array(sizes[2:]) / np.array(x.shape[2:])
    flags = {
        "alignCorners": where == "align_corners",
        "halfPixelCenters": where in ("half_pixel", "pytorch_half_pixel"),
    }
    whole = bool(np.all(factors == np.rint(factors)) and np.all(factors >= 1))
    rounding = "floor" if old else a.get("nearest_mode", "round_prefer_floor")
    if mode == "nearest" and whole and where in ("half_pixel", "asymmetric", "pytorch_half_pixel"):
        if where == "asymmetric" and rounding != "floor":
            raise InputError(f"{node} rounds '{rounding}'; edgenet handles floor there")
        kind, flags = "RESIZE_NEAREST_NEIGHBOR", {"alignCorners": False, "halfPixelCenters": False}
    elif mode == "nearest" and where == "asymmetric" and rounding == "floor":
        kind = "RESIZE_NEAREST_NEIGHBOR"
    elif mode == "linear" and where in ("half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners"):
        kind = "RESIZE_BILINEAR"
    else:
        raise InputError(f"{node} resizes by '{mode}' with '{where}', which edgenet does not handle")
    out = replace(x, shape=tuple(int(n) for n in sizes))
    inputs = [x.name, b.add_constant(f"{x.name}_size", np.array(sizes[2:], np.int32))]
    options_type = "ResizeBilinearOptions" if kind == "RESIZE_BILINEAR" else "ResizeNearestNeighborOptions"
    return replace(out, name=b.emit(node, kind, inputs, out.stored, flags, options_type, version=3))


# ----------------------------------------------------------------------------------------------------------- patterns


def find_gelu(b: _Importer, nodes: list[Node]) -> list[Node]:
    """Return the nodes with `0.5 x (1 + erf(x / sqrt(2)))`, as exporters spell it out, and `x hardsigmoid(x)` as one node."""
    made = {out: n for n in nodes for out in n.outputs}
    readers: dict[str, list[Node]] = {}
    for n in nodes:
        for name in n.inputs:
            readers.setdefault(name, []).append(n)
    constants = {n.outputs[0] for n in nodes if n.kind == "Constant"}

    def number(name: str) -> float:
        if name in constants and name not in b.constants:
            b.fold(made[name])
        data = b.constants.get(name)
        return float(data.ravel()[0]) if data is not None and data.size == 1 else np.nan

    def only(name: str, kind: str) -> Node | None:
        found = readers.get(name, [])
        return found[0] if len(found) == 1 and found[0].kind == kind else None

    def other(n: Node, name: str) -> str:
        return n.inputs[1] if n.inputs[0] == name else n.inputs[0]

    replaced: dict[str, Node] = {}  # first output of the node that is replaced -> the new one
    gone: set[str] = set()
    for n in nodes:
        if n.kind == "HardSigmoid" and abs(n.attributes.get("alpha", 0.2) - 1 / 6) < 1e-6:
            product = only(n.outputs[0], "Mul")
            if product and other(product, n.outputs[0]) == n.inputs[0] and n.attributes.get("beta", 0.5) == 0.5:
                replaced[product.outputs[0]] = Node("HardSwish", product.name, n.inputs[:1], product.outputs, {})
                gone.add(n.outputs[0])
        if n.kind != "Erf" or n.inputs[0] not in made:
            continue
        scaled = made[n.inputs[0]]
        x = scaled.inputs[0] if np.isnan(number(scaled.inputs[0])) else scaled.input(1)
        factor = number(other(scaled, x)) if len(scaled.inputs) == 2 else np.nan
        factor = 1 / factor if scaled.kind == "Div" else factor
        plus = only(n.outputs[0], "Add")
        if abs(factor - 0.5**0.5) > 1e-4 or plus is None or number(other(plus, n.outputs[0])) != 1:
            continue
        first = only(plus.outputs[0], "Mul")
        if first is None:
            continue
        factor_name = other(first, plus.outputs[0])
        half = made.get(factor_name)
        if half and half.kind == "Mul" and x in half.inputs and number(other(half, x)) == 0.5:  # (x / 2) (1 + erf)
            last, parts = first, [scaled, n, plus, half]
        else:
            after = only(first.outputs[0], "Mul")
            if after is None or {factor_name} != {x} and number(factor_name) != 0.5:
                continue
            rest = other(after, first.outputs[0])
            if not (factor_name == x and number(rest) == 0.5) and not (number(factor_name) == 0.5 and rest == x):
                continue
            last, parts = after, [scaled, n, plus, first]
        replaced[last.outputs[0]] = Node("Gelu", last.name, (x,), last.outputs, {})
        gone |= {p.outputs[0] for p in parts if len(readers.get(p.outputs[0], [])) == 1}
    return [replaced.get(n.outputs[0], n) for n in nodes if n.outputs[0] not in gone]


HANDLERS: dict[str, Handler] = {
    "Abs": _same("ABS", "AbsOptions"),
    "Add": _binary("ADD"),
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": _concat,
    "Conv": _conv,
    "Div": _binary("DIV"),
    "Dropout": _passed,
    "Elu": _elu,
    "Exp": _same("EXP", "ExpOptions"),
    "Expand": _expand,
    "Flatten": _flatten,
    "Floor": _same("FLOOR"),
    "Gather": _gather,
    "Gelu": _gelu,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_average_pool,
    "GlobalMaxPool": _global_max_pool,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _same("HARD_SWISH", "HardSwishOptions"),
    "Identity": _passed,
    "LRN": _local_response,
    "LayerNormalization": _layer_norm,
    "LeakyRelu": _leaky_relu,
    "Log": _same("LOG"),
    "LogSoftmax": _softmax("LOG_SOFTMAX"),
    "MatMul": _matmul,
    "Max": _extremes("MAXIMUM"),
    "MaxPool": _max_pool,
    "Min": _extremes("MINIMUM"),
    "Mish": _mish,
    "Mul": _binary("MUL"),
    "Neg": _same("NEG", "NegOptions"),
    "PRelu": _prelu,
    "Pad": _pad,
    "Pow": _power,
    "Reciprocal": _reciprocal,
    "ReduceMax": _reduction("REDUCE_MAX"),
    "ReduceMean": _reduction("MEAN"),
    "ReduceMin": _reduction("REDUCE_MIN"),
    "ReduceSum": _reduction("SUM"),
    "Relu": _same("RELU"),
    "Reshape": _reshape,
    "Resize": _resize,
    "Shape": _passed,
    "Sigmoid": _same("LOGISTIC"),
    "Slice": _slice,
    "Softmax": _softmax("SOFTMAX"),
    "Softplus": _softplus,
    "Split": _split,
    "Sqrt": _same("SQRT"),
    "Squeeze": _squeeze,
    "Sub": _binary("SUB"),
    "Swish": _silu,
    "Tanh": _same("TANH"),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Upsample": _resize,
}
