"""A graph of one operator, or of two, for each that onnx.py and openvino.py have to write: (1, 6, 7, 3) pictures in."""

from typing import Any

import numpy as np

from edgenet.export.graph import Activation, Graph, Op, Padding, Tensor, fused
from helpers.graph_builder import NONE, RELU, RELU6, SAME, VALID, Builder

SHAPE = (1, 6, 7, 3)


def convolution(
    b: Builder, x: str, filters: int, stride: int, padding: Padding, activation: Activation = NONE, dilation: int = 1,
    kernel: int = 3,
) -> str:  # fmt: skip
    w = b.normal(filters, kernel, kernel, b.tensors[x].shape[3])
    return b.conv(x, "", w, b.normal(filters), activation, stride, padding, dilation)


def depthwise(b: Builder, x: str, multiplier: int, stride: int = 1) -> str:
    channels = b.tensors[x].shape[3] * multiplier
    return b.depthwise(x, "", b.normal(1, 3, 3, channels), b.normal(channels), RELU6, stride)


def dense(b: Builder, x: str, n: int, activation: Activation = NONE) -> str:
    return b.dense(x, "", b.normal(n, b.tensors[x].shape[-1]), b.normal(n), activation)


def binary(
    kind: str, type: str, other: tuple[int, ...] | None, activation: Activation | None = NONE, swapped: bool = False
) -> Graph:
    b = Builder(*SHAPE)
    x = convolution(b, "image", 3, 1, SAME)
    y = b.constant(b.normal(*other)) if other is not None else "image"
    if kind == "DIV":
        y = b.constant(np.abs(b.tensors[y].data) + 0.5)
    option = {} if activation is None else fused(activation)
    b.op(kind, [y, x] if swapped else [x, y], SHAPE, type, **option)
    return b.graph()


def unary(kind: str, type: str = "NONE", positive: bool = False, **options: Any) -> Graph:
    b = Builder(*SHAPE)
    x = convolution(b, "image", 5, 1, SAME)
    if positive:
        x = b.op(
            "ADD",
            [b.op("ABS", [x], (1, 6, 7, 5), "AbsOptions"), b.constant(0.5)],
            (1, 6, 7, 5),
            "AddOptions",
            **fused(),
        )
    b.op(kind, [x], (1, 6, 7, 5), type, **options)
    return b.graph()


def chain(*steps: Any) -> Graph:
    b, x = Builder(*SHAPE), "image"
    for step in steps:
        x = step(b, x)
    return b.graph()


def reshape(b: Builder, x: str, shape: tuple[int, ...], kind: str = "RESHAPE") -> str:
    if kind == "SQUEEZE":
        return b.op(kind, [x], shape, "SqueezeOptions", squeezeDims=[1, 2])
    return b.op(kind, [x, b.constant(shape, "int32")], shape, "ReshapeOptions", newShape=list(shape))


def transpose(b: Builder, x: str, perm: list[int]) -> str:
    shape = tuple(b.tensors[x].shape[i] for i in perm)
    return b.op("TRANSPOSE", [x, b.constant(perm, "int32")], shape, "TransposeOptions")


def pad(
    b: Builder, x: str, pads: list[tuple[int, int]], kind: str = "PAD", value: float = 0.0, mode: int | None = None
) -> str:
    shape = tuple(n + sum(p) for n, p in zip(b.tensors[x].shape, pads, strict=True))
    inputs = [x, b.constant(pads, "int32")] + ([b.constant(value)] if kind == "PADV2" else [])
    options = {} if mode is None else {"mode": mode}
    return b.op(
        kind,
        inputs,
        shape,
        {"PAD": "PadOptions", "PADV2": "PadV2Options", "MIRROR_PAD": "MirrorPadOptions"}[kind],
        **options,
    )


def concatenation(b: Builder, x: str) -> str:
    left, right = convolution(b, x, 4, 1, SAME, RELU6), convolution(b, x, 2, 1, SAME)
    return b.op("CONCATENATION", [left, right], (1, 6, 7, 6), "ConcatenationOptions", axis=3, **fused())


def pack(b: Builder, x: str) -> str:
    one = reshape(b, x, SHAPE[1:])
    two = b.op("EXP", [one], SHAPE[1:], "ExpOptions")
    return b.op("PACK", [one, two], (2, *SHAPE[1:]), "PackOptions", axis=0, valuesCount=2)


def cut(b: Builder, x: str) -> str:
    inputs = [x, b.constant([0, 1, 0, 1], "int32"), b.constant([1, 3, -1, 2], "int32")]
    return b.op("SLICE", inputs, (1, 3, 7, 2), "SliceOptions")


def strided(b: Builder, x: str, shrink: bool) -> str:
    inputs = [
        x,
        *(
            b.constant(v, "int32")
            for v in ([0, 1, 0, 0], [1, 6 if not shrink else 2, -1, 3], [1, 2 if not shrink else 1, 2, 1])
        ),
    ]
    shape = (1, 3, 3) if shrink else (1, 3, 3, 3)
    masks = {"beginMask": 9, "endMask": 9, "ellipsisMask": 0, "newAxisMask": 0, "shrinkAxisMask": 2 if shrink else 0}
    return b.op("STRIDED_SLICE", inputs, shape, "StridedSliceOptions", **masks)


def resize(b: Builder, x: str, kind: str, aligned: bool, half: bool) -> str:
    type = {"RESIZE_BILINEAR": "ResizeBilinearOptions", "RESIZE_NEAREST_NEIGHBOR": "ResizeNearestNeighborOptions"}[kind]
    return b.op(
        kind, [x, b.constant([9, 13], "int32")], (1, 9, 13, 3), type, alignCorners=aligned, halfPixelCenters=half
    )


def attention(b: Builder, x: str) -> str:
    """Rows of a picture against each other: BATCH_MATMUL of rank 4 and of rank 3, with a softmax."""
    scores = b.op("BATCH_MATMUL", [x, x], (1, 6, 7, 7), "BatchMatMulOptions", adjX=False, adjY=True)
    weights = b.op("SOFTMAX", [scores], (1, 6, 7, 7), "SoftmaxOptions", beta=0.5)
    mixed = reshape(
        b, b.op("BATCH_MATMUL", [weights, x], SHAPE, "BatchMatMulOptions", adjX=False, adjY=False), (6, 7, 3)
    )
    other = b.constant(b.normal(6, 3, 4))
    return b.op("BATCH_MATMUL", [mixed, other], (6, 7, 4), "BatchMatMulOptions", adjX=False, adjY=False)


def squeeze_and_excite(b: Builder, x: str) -> str:
    """x * sigmoid(conv(mean(x))) behind a swish, as EfficientNet has it."""
    y = convolution(b, x, 8, 2, SAME)
    shape = b.tensors[y].shape
    y = b.op("MUL", [y, b.op("LOGISTIC", [y], shape)], shape, "MulOptions", **fused())
    gate = convolution(b, b.mean(y, axes=[1, 2], keep=True), 8, 1, SAME, kernel=1)
    gate = b.op("LOGISTIC", [gate], (1, 1, 1, 8))
    return b.op("MUL", [y, gate], shape, "MulOptions", **fused())


def prelu(b: Builder, x: str) -> str:
    return b.op("PRELU", [convolution(b, x, 5, 1, SAME), b.constant(b.normal(1, 1, 5))], (1, 6, 7, 5))


def cast(b: Builder, x: str) -> str:
    whole = b.op(
        "CAST",
        [b.op("MUL", [x, b.constant(10.0)], SHAPE, "MulOptions", **fused())],
        SHAPE,
        "CastOptions",
        dtype="int32",
    )
    return b.op("CAST", [whole], SHAPE, "CastOptions")


def transposed(b: Builder, x: str, padding: Any, size: tuple[int, int], bias: bool = False) -> str:
    inputs = [b.constant([1, *size, 4], "int32"), b.constant(b.normal(4, 3, 3, 3)), x]
    if bias:
        inputs.append(b.constant(b.normal(4)))
    options = {"padding": padding.value, "strideH": 2, "strideW": 2}
    return b.op("TRANSPOSE_CONV", inputs, (1, *size, 4), "TransposeConvOptions", **options, **fused())


def chosen(b: Builder, x: str, kind: str, type: str) -> str:
    """A number where a comparison holds, twice another where not."""
    y = b.op("MUL", [x, b.constant(2.0)], SHAPE, "MulOptions", **fused())
    holds = b.op(kind, [x, b.constant([0.1, -0.2, 0.0])], SHAPE, type, dtype="bool")
    return b.op("SELECT_V2", [holds, x, y], SHAPE, "SelectV2Options")


def same_or_other(b: Builder, x: str, kind: str, type: str) -> str:
    """Compare whole numbers, which may well be the same."""
    whole = b.op("CEIL", [x], SHAPE)
    return b.op(
        "CAST", [b.op(kind, [whole, b.constant([0.0, 1.0, 0.0])], SHAPE, type, dtype="bool")], SHAPE, "CastOptions"
    )


def local_response(b: Builder, x: str) -> str:
    y = convolution(b, x, 5, 1, SAME)
    options = {"radius": 1, "bias": 1.5, "alpha": 0.3, "beta": 0.75}
    return b.op("LOCAL_RESPONSE_NORMALIZATION", [y], (1, 6, 7, 5), "LocalResponseNormalizationOptions", **options)


def picked(b: Builder, x: str, axis: int, places: list[int]) -> str:
    shape = tuple(len(places) if i == axis else n for i, n in enumerate(SHAPE))
    return b.op("GATHER", [x, b.constant(places, "int32")], shape, "GatherOptions", axis=axis, batchDims=0)


def split_in_two(b: Builder, x: str) -> str:
    y = convolution(b, x, 4, 1, SAME)
    for name in ("left", "right"):
        b.tensors[name] = Tensor(name, (1, 6, 7, 2), "float32")
    b.ops.append(Op("SPLIT", (b.constant(3, "int32"), y), ("left", "right"), {"numSplits": 2}, "SplitOptions"))
    return b.op("SUB", ["left", "right"], (1, 6, 7, 2), "SubOptions", **fused())


CASES: dict[str, Graph] = {
    "a strided convolution with uneven padding": chain(lambda b, x: convolution(b, x, 4, 2, SAME, RELU6)),
    "a convolution without padding": chain(lambda b, x: convolution(b, x, 4, 2, VALID, RELU)),
    "a dilated convolution": chain(lambda b, x: convolution(b, x, 4, 1, SAME, dilation=2)),
    "a depthwise convolution": chain(lambda b, x: depthwise(b, x, 1, 2)),
    "a depthwise convolution with two filters a channel": chain(lambda b, x: depthwise(b, x, 2)),
    "a dense layer on a mean": chain(lambda b, x: dense(b, b.mean(x, axes=[1, 2], keep=False), 5, RELU)),
    "a dense layer on a picture": chain(lambda b, x: dense(b, reshape(b, x, (1, 126)), 5)),
    "a dense layer on each pixel": chain(lambda b, x: dense(b, x, 5)),
    "an addition of pictures": binary("ADD", "AddOptions", None, RELU),
    "an addition a channel": binary("ADD", "AddOptions", (3,)),
    "a subtraction from a constant": binary("SUB", "SubOptions", (3,), swapped=True),
    "a subtraction of one number": binary("SUB", "SubOptions", ()),
    "a multiplication a row": binary("MUL", "MulOptions", (6, 1, 1)),
    "a multiplication a column and channel": binary("MUL", "MulOptions", (1, 7, 3)),
    "a division a channel": binary("DIV", "DivOptions", (1, 1, 1, 3)),
    "a maximum": binary("MAXIMUM", "MaximumMinimumOptions", (3,), None),
    "a minimum": binary("MINIMUM", "MaximumMinimumOptions", None, None),
    "a squared difference": binary("SQUARED_DIFFERENCE", "SquaredDifferenceOptions", None, None),
    "a mean that keeps the axes": chain(lambda b, x: b.mean(x, axes=[1, 2], keep=True)),
    "a mean over rows": chain(lambda b, x: b.mean(x, axes=[1], keep=False)),
    "a mean over channels": chain(lambda b, x: b.mean(x, axes=[3], keep=False)),
    "a sum": chain(lambda b, x: b.mean(x, axes=[1, 2], keep=False, kind="SUM")),
    "a largest value": chain(lambda b, x: b.mean(x, axes=[2], keep=True, kind="REDUCE_MAX")),
    "an average pool with padding": chain(lambda b, x: b.pool(x, "AVERAGE_POOL_2D", SAME)),
    "an average pool": chain(lambda b, x: b.pool(x, "AVERAGE_POOL_2D", VALID)),
    "a max pool with padding": chain(lambda b, x: b.pool(x, "MAX_POOL_2D", SAME)),
    "a padded picture": chain(lambda b, x: pad(b, x, [(0, 0), (1, 2), (3, 0), (0, 1)])),
    "a picture padded with a number": chain(lambda b, x: pad(b, x, [(0, 0), (1, 2), (0, 1), (0, 0)], "PADV2", 0.25)),
    "a mirrored border": chain(lambda b, x: pad(b, x, [(0, 0), (1, 2), (2, 1), (0, 0)], "MIRROR_PAD", mode=0)),
    "padding before a convolution": chain(
        lambda b, x: convolution(b, pad(b, x, [(0, 0), (0, 1), (2, 1), (0, 0)]), 4, 2, VALID)
    ),
    "a concatenation": chain(concatenation),
    "a stack": chain(pack),
    "pixels in a row": chain(lambda b, x: reshape(b, x, (1, 42, 3))),
    "a squeeze": chain(lambda b, x: reshape(b, b.mean(x, axes=[1, 2], keep=True), (1, 3), "SQUEEZE")),
    "a reshape that cuts rows": chain(lambda b, x: reshape(b, x, (1, 3, 14, 3))),
    "a swap of height and width": chain(lambda b, x: transpose(b, x, [0, 2, 1, 3])),
    "channels in front": chain(lambda b, x: transpose(b, x, [0, 3, 1, 2])),
    "a softmax over channels": chain(lambda b, x: b.op("SOFTMAX", [x], SHAPE, "SoftmaxOptions", beta=1.0)),
    "a sigmoid": unary("LOGISTIC"),
    "a tanh": unary("TANH"),
    "a relu": unary("RELU"),
    "a relu6": unary("RELU6"),
    "a leaky relu": unary("LEAKY_RELU", "LeakyReluOptions", alpha=0.2),
    "a relu with a slope a channel": chain(prelu),
    "a hard swish": unary("HARD_SWISH", "HardSwishOptions"),
    "a gelu": unary("GELU", "GeluOptions", approximate=False),
    "an approximate gelu": unary("GELU", "GeluOptions", approximate=True),
    "an exponential": unary("EXP", "ExpOptions"),
    "a square root": unary("SQRT", positive=True),
    "one over a square root": unary("RSQRT", positive=True),
    "integers between": chain(cast),
    "a slice": chain(cut),
    "a slice with steps": chain(lambda b, x: strided(b, x, False)),
    "a slice that drops an axis": chain(lambda b, x: strided(b, x, True)),
    "halves": chain(split_in_two),
    "a bilinear enlargement": chain(lambda b, x: resize(b, x, "RESIZE_BILINEAR", False, True)),
    "a bilinear enlargement, corners aligned": chain(lambda b, x: resize(b, x, "RESIZE_BILINEAR", True, False)),
    "a bilinear enlargement of old": chain(lambda b, x: resize(b, x, "RESIZE_BILINEAR", False, False)),
    "a nearest enlargement": chain(lambda b, x: resize(b, x, "RESIZE_NEAREST_NEIGHBOR", False, True)),
    "a nearest enlargement of old": chain(lambda b, x: resize(b, x, "RESIZE_NEAREST_NEIGHBOR", False, False)),
    "a transposed convolution": chain(lambda b, x: transposed(b, x, VALID, (13, 15))),
    "a transposed convolution of twice the size": chain(lambda b, x: transposed(b, x, SAME, (12, 14), bias=True)),
    "a transposed convolution that leaves a row": chain(lambda b, x: transposed(b, x, VALID, (14, 16))),
    "channels in another order": chain(lambda b, x: picked(b, x, 3, [2, 0, 0, 1])),
    "rows upside down": chain(lambda b, x: picked(b, x, 1, [5, 4, 3, 2, 1, 0])),
    "a choice of what is greater": chain(lambda b, x: chosen(b, x, "GREATER", "GreaterOptions")),
    "a choice of what is not less": chain(lambda b, x: chosen(b, x, "GREATER_EQUAL", "GreaterEqualOptions")),
    "a choice of what is less": chain(lambda b, x: chosen(b, x, "LESS", "LessOptions")),
    "a choice of what is not greater": chain(lambda b, x: chosen(b, x, "LESS_EQUAL", "LessEqualOptions")),
    "what is the same": chain(lambda b, x: same_or_other(b, x, "EQUAL", "EqualOptions")),
    "what is another": chain(lambda b, x: same_or_other(b, x, "NOT_EQUAL", "NotEqualOptions")),
    "a local response": chain(local_response),
    "a log of a softmax": chain(lambda b, x: b.op("LOG_SOFTMAX", [x], SHAPE, "LogSoftmaxOptions")),
    "a product": chain(lambda b, x: b.mean(x, axes=[3], keep=True, kind="REDUCE_PROD")),
    "a rest of a division": binary("FLOOR_MOD", "FloorModOptions", (3,), None),
    "a sign": chain(lambda b, x: b.op("SIGN", [x], SHAPE, "SignOptions")),
    "a sine": unary("SIN"),
    "a cosine": unary("COS", "CosOptions"),
    "attention": chain(attention),
    "squeeze and excite": chain(squeeze_and_excite),
}  # fmt: skip
