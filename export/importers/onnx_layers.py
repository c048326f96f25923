"""ONNX convolutions, pools, dense layers and normalisations in TFLite's terms."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from edgenet.errors import InputError
from edgenet.export.graph import Padding, fused, same_pads
from edgenet.export.importers.onnx_elementwise import aligned, binary
from edgenet.export.importers.onnx_graph import Handler, Importer, Node, Value, identity
from edgenet.export.importers.onnx_shapes import reduce


def _spatial(b: Importer, node: Node, x: Value, kernel: Sequence[int]) -> tuple[list[int], list[int], list[int]]:
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


def pad_picture(b: Importer, node: Node, x: Value, pads: Sequence[int], mode: str = "zero") -> Value:
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


def conv(b: Importer, node: Node) -> Value:
    """Import Conv: plain, depthwise or grouped."""
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
        "padding": _padding(same and any(pads)), "strideH": strides[0], "strideW": strides[1],
        "dilationHFactor": dilations[0], "dilationWFactor": dilations[1], **fused(),
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


def _padding(same: bool) -> int:
    return (Padding.SAME if same else Padding.VALID).value


def _window_options(kernel: Sequence[int], strides: Sequence[int], same: bool) -> dict[str, Any]:
    return {
        "padding": _padding(same), "strideH": strides[0], "strideW": strides[1],
        "filterHeight": kernel[0], "filterWidth": kernel[1], **fused(),
    }  # fmt: skip


def _pool_window(b: Importer, node: Node, x: Value) -> tuple[list[int], list[int], list[int], list[int]]:
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


def max_pool(b: Importer, node: Node) -> Value:
    """Import MaxPool."""
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


def _is_never_negative(b: Importer, x: Value) -> bool:
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


def average_pool(b: Importer, node: Node) -> Value:
    """Import AveragePool."""
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


def global_average_pool(b: Importer, node: Node) -> Value:
    """Import GlobalAveragePool."""
    return reduce(b, node, "MEAN", b.value(node), list(range(2, b.value(node).rank)), True)


def global_max_pool(b: Importer, node: Node) -> Value:
    """Import GlobalMaxPool."""
    x = b.picture(node)
    out = replace(x, shape=(*x.shape[:2], 1, 1))
    options = _window_options(x.shape[2:], (1, 1), False)
    return replace(out, name=b.emit(node, "MAX_POOL_2D", [x.name], out.stored, options, "Pool2DOptions"))


def batch_norm(b: Importer, node: Node) -> Value:
    """Import BatchNormalization as a scale and a shift a channel."""
    if node.attributes.get("training_mode", 0):
        raise InputError(f"{node} is in training mode: export the network in inference mode (model.eval())")
    gamma, beta, mean, variance = (b.required(node, i, "parameters").astype(np.float64) for i in range(1, 5))
    scale = gamma / np.sqrt(variance + node.attributes.get("epsilon", 1e-5))
    x = b.value(node)
    shape = (-1, *(1,) * (x.rank - 2))
    y = binary(b, node, "MUL", x, scale.reshape(shape))
    return binary(b, node, "ADD", y, (beta - mean * scale).reshape(shape))


def layer_norm(b: Importer, node: Node) -> Value:
    """Import LayerNormalization."""
    x = b.plain(b.value(node))
    axes = list(range(node.attributes.get("axis", -1) % x.rank, x.rank))
    mean = reduce(b, node, "MEAN", x, axes, True)
    centred = binary(b, node, "SUB", x, mean)
    variance = reduce(b, node, "MEAN", binary(b, node, "MUL", centred, centred), axes, True)
    shifted = binary(b, node, "ADD", variance, np.array([node.attributes.get("epsilon", 1e-5)], np.float32))
    y = binary(b, node, "MUL", centred, b.same(node, "RSQRT", shifted))
    y = binary(b, node, "MUL", y, b.required(node, 1, "scale"))
    return binary(b, node, "ADD", y, b.required(node, 2, "shift")) if node.input(2) else y


def local_response(b: Importer, node: Node) -> Value:
    """Import LRN."""
    x, a = b.picture(node), node.attributes
    if a["size"] % 2 == 0:
        raise InputError(f"{node} has the even size {a['size']}, which edgenet does not handle")
    options = {
        "radius": a["size"] // 2, "bias": a.get("bias", 1.0), "alpha": a.get("alpha", 1e-4) / a["size"],
        "beta": a.get("beta", 0.75),
    }  # fmt: skip
    return b.same(node, "LOCAL_RESPONSE_NORMALIZATION", x, options, "LocalResponseNormalizationOptions")


def dense(b: Importer, node: Node, x: Value, w: np.ndarray, bias: np.ndarray | None) -> Value:
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
    options = {**fused(), "weightsFormat": 0, "keepNumDims": x.rank != 2, "asymmetricQuantizeInputs": False}
    inputs = [x.name, weights, b.add_constant(f"{name}_bias", full)]
    version = 5 if x.rank != 2 else 1
    out_name = b.emit(node, "FULLY_CONNECTED", inputs, out.stored, options, "FullyConnectedOptions", version=version)
    return replace(out, name=out_name)


def gemm(b: Importer, node: Node) -> Value:
    """Import Gemm."""
    a = node.attributes
    if a.get("transA", 0):
        raise InputError(f"{node} transposes its first operand, which edgenet does not handle")
    w = b.required(node, 1, "weights").astype(np.float32) * np.float32(a.get("alpha", 1.0))
    bias = None
    if node.input(2):
        bias = b.required(node, 2, "bias").astype(np.float32).ravel() * np.float32(a.get("beta", 1.0))
    return dense(b, node, b.value(node), w.T if a.get("transB", 0) else w, bias)


def matmul(b: Importer, node: Node) -> Value:
    """Import MatMul."""
    w = b.constant(node, 1)
    if w is not None and w.ndim == 2 and b.constant(node, 0) is None:
        return dense(b, node, b.value(node), w, None)
    x, y = b.in_order(b.value(node)), b.in_order(b.value(node, 1))
    rank = max(x.rank, y.rank)
    if min(x.rank, y.rank) < 2:
        raise InputError(f"{node} multiplies shapes {x.shape} and {y.shape}; edgenet handles matrices")
    x, y = b.in_order(aligned(b, x, rank)), b.in_order(aligned(b, y, rank))
    shape = (*np.broadcast_shapes(x.shape[:-2], y.shape[:-2]), x.shape[-2], y.shape[-1])
    options = {"adjX": False, "adjY": False, "asymmetricQuantizeInputs": False}
    name = b.emit(node, "BATCH_MATMUL", [x.name, y.name], shape, options, "BatchMatMulOptions")
    return Value(name, shape, identity(rank))


def softmax(kind: str) -> Handler:
    """Return the handler of Softmax or LogSoftmax."""

    def handle(b: Importer, node: Node) -> Value:
        x = b.plain(b.value(node))
        axis = node.attributes.get("axis", -1 if b.opset >= 13 else 1) % x.rank
        if b.opset < 13 and any(n != 1 for n in x.shape[axis + 1 :]):
            raise InputError(f"{node} of opset {b.opset} runs over several axes: export with opset 13 or later")
        if x.perm[-1] != axis:
            x = b.turn(x, (*(i for i in x.perm if i != axis), axis))
        options, type_ = ({"beta": 1.0}, "SoftmaxOptions") if kind == "SOFTMAX" else ({}, "LogSoftmaxOptions")
        return b.same(node, kind, x, options, type_)

    return handle
