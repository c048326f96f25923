"""ONNX convolutions, pools, dense layers and normalisations in TFLite's terms."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from edgenet.errors import InputError
from edgenet.export.graph import Padding, fused, same_pads
from edgenet.export.importers.onnx_elementwise import aligned, binary, number
from edgenet.export.importers.onnx_graph import Handler, Importer, Node, Value, axis_of, identity
from edgenet.export.importers.onnx_shapes import cut, reduce, turned

_LONGEST = 1 << 16  # pixels that a window reaches over
_DAMAGED = "the file is damaged"


def row_as_picture(handle: Callable[[Importer, Node], Value]) -> Handler:
    """Return the handler of an operator that slides over pictures, for rows of numbers too: pictures one pixel high."""

    def handled(b: Importer, node: Node) -> Value:
        x = b.value(node)
        if x.rank != 3:
            return handle(b, node)
        a = dict(node.attributes)
        for key, neutral in (("kernel_shape", 1), ("strides", 1), ("dilations", 1), ("output_padding", 0)):
            if key in a:
                a[key] = [neutral, *a[key]]
        if "pads" in a:
            a["pads"] = [0, a["pads"][0], 0, a["pads"][1]]
        if "output_shape" in a:
            a["output_shape"] = [1, *a["output_shape"]]
        names = [f"{node.inputs[0]} as a picture", *node.inputs[1:]]
        b.values[names[0]] = b.reshape(b.plain(x), (*x.shape[:2], 1, x.shape[2]))
        w = b.constant(node, 1)
        if w is not None and w.ndim == 3:
            names[1] = f"{names[1]} as a picture's"
            b.constants[names[1]] = w[:, :, None]
        out = handle(b, replace(node, inputs=tuple(names), attributes=a))
        return b.reshape(out, (*out.shape[:2], out.shape[3]))

    return handled


def _spatial(b: Importer, node: Node, x: Value, kernel: Sequence[int]) -> tuple[list[int], list[int], list[int]]:
    """Return strides, dilations and pads (top, left, bottom, right) of a sliding window."""
    a = node.attributes
    strides, dilations = (
        _two(node, "strides", a.get("strides", (1, 1))),
        _two(node, "dilations", a.get("dilations", (1, 1))),
    )
    if _two(node, "kernel_shape", a.get("kernel_shape", kernel)) != list(kernel):
        raise InputError(f"{node} has kernel_shape {a['kernel_shape']} and weights of {list(kernel)}: {_DAMAGED}")
    auto, pads = a.get("auto_pad", "NOTSET"), list(a.get("pads", (0,) * 4))
    if auto not in ("NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"):
        raise InputError(f"{node} has auto_pad {auto!r}, which ONNX does not know: {_DAMAGED}")
    if len(pads) != 4 or not all(-_LONGEST <= p <= _LONGEST for p in pads):
        raise InputError(f"{node} has {_shown('pads', pads)}; edgenet takes four of up to {_LONGEST}: {_DAMAGED}")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        pairs = [same_pads(n, k, s, d) for n, k, s, d in zip(x.shape[2:], kernel, strides, dilations, strict=True)]
        if auto == "SAME_LOWER":
            pairs = [(after, before) for before, after in pairs]
        return strides, dilations, [p[0] for p in pairs] + [p[1] for p in pairs]
    return strides, dilations, pads if auto == "NOTSET" else [0] * 4


def _two(node: Node, name: str, given: Any) -> list[int]:
    """Return an attribute that has a number for the height and one for the width. Raises InputError."""
    values = list(given)
    if len(values) != 2 or not all(1 <= v <= _LONGEST for v in values):
        raise InputError(f"{node} has {_shown(name, values)}; edgenet takes two from 1 to {_LONGEST}: {_DAMAGED}")
    return [int(v) for v in values]


def _shown(name: str, values: Sequence[int]) -> str:
    return f"{name} {values}" if len(values) <= 6 else f"{len(values)} {name}"


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


def conv_transpose(b: Importer, node: Node) -> Value:
    """Import ConvTranspose: TFLite's gives all that the kernel reaches; pads are cut off, then the bias added."""
    w, x, a = b.required(node, 1, "weights").astype(np.float32), b.value(node), node.attributes
    if w.ndim != 4:
        raise InputError(f"{node} is a convolution over {w.ndim - 2} dimensions; edgenet handles pictures")
    x, groups, kernel = b.picture(node), int(a.get("group", 1)), w.shape[2:]
    if w.shape[0] != x.shape[1] or x.shape[1] % groups:
        raise InputError(f"{node} has weights {w.shape} for {x.shape[1]} channels: the file is damaged")
    strides, dilations, _ = _spatial(b, node, x, kernel)
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    full = [(n - 1) * s + r for n, s, r in zip(x.shape[2:], strides, reach, strict=True)]
    starts, sizes = _transposed_window(node, x, strides, full)
    each, filters = x.shape[1] // groups, w.shape[1]
    if groups * filters * w.shape[0] * math.prod(reach) > MAX_TRANSPOSED:
        raise InputError(f"{node} has {groups} groups of {each} channels, too many for a transposed convolution here")
    spread = np.zeros((groups * filters, *reach, w.shape[0]), np.float32)  # OHWI, zeros between groups and taps
    for g in range(groups):
        part = w[g * each : (g + 1) * each].transpose(1, 2, 3, 0)
        spread[g * filters : (g + 1) * filters, :: dilations[0], :: dilations[1], g * each : (g + 1) * each] = part
    out = replace(x, shape=(x.shape[0], len(spread), *full))
    name = node.outputs[0].strip("/").removesuffix("_output_0")
    inputs = [b.add_constant(f"{name}_size", np.array(out.stored, np.int32)), b.add_constant(f"{name}_weights", spread)]
    options = {"padding": Padding.VALID.value, "strideH": strides[0], "strideW": strides[1], **fused()}
    made = b.emit(node, "TRANSPOSE_CONV", [*inputs, x.name], out.stored, options, "TransposeConvOptions")
    out = replace(out, name=made)
    inside = [min(max(n - s, 0), size) for n, s, size in zip(full, starts, sizes, strict=True)]
    out = cut(b, node, out, [0, 0, *(max(s, 0) for s in starts)], [*out.shape[:2], *inside])
    missing = [size - n for size, n in zip(sizes, inside, strict=True)]
    out = pad_picture(b, node, out, [0, 0, *missing])
    if not node.input(2):
        return out
    return binary(b, node, "ADD", out, b.required(node, 2, "bias").astype(np.float32).reshape(-1, 1, 1))


def _transposed_window(
    node: Node, x: Value, strides: Sequence[int], full: Sequence[int]
) -> tuple[list[int], list[int]]:
    """Return where the output of a ConvTranspose begins in all that its kernel reaches, and its size."""
    a = node.attributes
    more, auto = list(a.get("output_padding", (0, 0))), a.get("auto_pad", "NOTSET")
    wanted = list(a["output_shape"])[-2:] if "output_shape" in a else None
    if wanted is None and auto in ("SAME_UPPER", "SAME_LOWER"):
        wanted = [n * s for n, s in zip(x.shape[2:], strides, strict=True)]
    if wanted is None:
        pads = list(a.get("pads", (0,) * 4)) if auto == "NOTSET" else [0] * 4
        return pads[:2], [n + m - pads[i] - pads[i + 2] for i, (n, m) in enumerate(zip(full, more, strict=True))]
    total = [max(n + m - size, 0) for n, m, size in zip(full, more, wanted, strict=True)]
    return [t // 2 if auto == "SAME_UPPER" else t - t // 2 for t in total], wanted


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


def lp_pool(b: Importer, node: Node) -> Value:
    """Import LpPool of p 1 or 2: an average of powers, as often as there are numbers in it."""
    x, p = b.picture(node), node.attributes.get("p", 2)
    if p not in (1, 2):
        raise InputError(f"{node} has p {p}; edgenet handles 1 and 2")
    kernel, strides, _, pads = _pool_window(b, node, x)
    out = _output(x, x.shape[1], kernel, strides, (1, 1), pads)
    x = b.same(node, "ABS", x, {}, "AbsOptions") if p == 1 else b.same(node, "SQUARE", x, {}, "SquareOptions")
    x = pad_picture(b, node, x, pads)
    options = _window_options(kernel, strides, False)
    out = replace(out, name=b.emit(node, "AVERAGE_POOL_2D", [x.name], out.stored, options, "Pool2DOptions"))
    out = binary(b, node, "MUL", out, number(math.prod(kernel)))
    return out if p == 1 else b.same(node, "SQRT", out)


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


def cumulative_sum(b: Importer, node: Node) -> Value:
    """Import CumSum as a dense layer of ones and zeros."""
    x, a = b.plain(b.value(node)), node.attributes
    axis = axis_of(node, int(np.ravel(b.required(node, 1, "axis"))[0]), x.rank)
    n = x.shape[axis]
    if n > MAX_SUMMED:
        raise InputError(f"{node} adds up {n} numbers; edgenet handles up to {MAX_SUMMED}")
    w = np.triu(np.ones((n, n), np.float32), 1 if a.get("exclusive", 0) else 0)
    order = [*(i for i in range(x.rank) if i != axis), axis]
    out = dense(b, node, turned(x, order), w.T if a.get("reverse", 0) else w, None)
    return turned(out, [order.index(i) for i in range(x.rank)])


MAX_SUMMED = 1024
MAX_TRANSPOSED = 2**26  # numbers in the weights of a transposed convolution, zeros between groups included


def gemm(b: Importer, node: Node) -> Value:
    """Import Gemm."""
    a, w = node.attributes, b.constant(node, 1)
    x = b.value(node)
    x = turned(b.plain(x), (1, 0)) if a.get("transA", 0) else x
    if w is None or b.constant(node, 0) is not None:
        y = b.plain(b.value(node, 1))
        out = _product(b, node, x, turned(y, (1, 0)) if a.get("transB", 0) else y)
        alpha = float(a.get("alpha", 1.0))
        out = out if alpha == 1 else binary(b, node, "MUL", out, number(alpha))
        return _plus(b, node, out)
    w = w.astype(np.float32) * np.float32(a.get("alpha", 1.0))
    w = w.T if a.get("transB", 0) else w
    bias = b.constant(node, 2)
    if bias is not None and (bias.ndim < 2 or bias.size in (1, bias.shape[-1])):  # one number, or one a column
        return dense(b, node, x, w, bias.astype(np.float32).ravel() * np.float32(a.get("beta", 1.0)))
    return _plus(b, node, dense(b, node, x, w, None))


def _plus(b: Importer, node: Node, out: Value) -> Value:
    """Add the third operand of a Gemm."""
    if not node.input(2):
        return out
    c, beta = b.constant(node, 2), float(node.attributes.get("beta", 1.0))
    if c is not None:
        return binary(b, node, "ADD", out, np.asarray(c.astype(np.float32) * beta))
    x = b.value(node, 2)
    return binary(b, node, "ADD", out, x if beta == 1 else binary(b, node, "MUL", x, number(beta)))


def matmul(b: Importer, node: Node) -> Value:
    """Import MatMul."""
    w = b.constant(node, 1)
    if w is not None and w.ndim == 2 and b.constant(node, 0) is None:
        return dense(b, node, b.value(node), w, None)
    return _product(b, node, b.value(node), b.value(node, 1))


def _product(b: Importer, node: Node, x: Value, y: Value) -> Value:
    """Return the product of matrices, or of stacks of them; a vector is a row on the left and a column on the right."""
    x, y = b.plain(x), b.plain(y)
    lost = [i for i, v in ((-2, x), (-1, y)) if v.rank == 1]
    x = b.reshape(x, (1, *x.shape)) if x.rank == 1 else x
    y = b.reshape(y, (*y.shape, 1)) if y.rank == 1 else y
    rank = max(x.rank, y.rank)
    x, y = b.in_order(aligned(b, x, rank)), b.in_order(aligned(b, y, rank))
    if x.shape[-1] != y.shape[-2]:
        raise InputError(f"{node} multiplies shapes {x.shape} and {y.shape}: the file is damaged")
    shape = (*np.broadcast_shapes(x.shape[:-2], y.shape[:-2]), x.shape[-2], y.shape[-1])
    options = {"adjX": False, "adjY": False, "asymmetricQuantizeInputs": False}
    name = b.emit(node, "BATCH_MATMUL", [x.name, y.name], shape, options, "BatchMatMulOptions")
    out = Value(name, shape, identity(rank))
    return b.reshape(out, [n for i, n in enumerate(shape) if i - rank not in lost]) if lost else out


def softmax(kind: str) -> Handler:
    """Return the handler of Softmax or LogSoftmax."""

    def handle(b: Importer, node: Node) -> Value:
        x = b.plain(b.value(node))
        axis = axis_of(node, node.attributes.get("axis", -1 if b.opset >= 13 else 1), x.rank)
        if b.opset < 13 and any(n != 1 for n in x.shape[axis + 1 :]):
            raise InputError(f"{node} of opset {b.opset} runs over several axes: export with opset 13 or later")
        if x.perm[-1] != axis:
            x = b.turn(x, (*(i for i in x.perm if i != axis), axis))
        options, type_ = ({"beta": 1.0}, "SoftmaxOptions") if kind == "SOFTMAX" else ({}, "LogSoftmaxOptions")
        return b.same(node, kind, x, options, type_)

    return handle
