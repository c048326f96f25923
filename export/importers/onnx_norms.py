"""ONNX normalisations in TFLite's terms."""

from collections.abc import Sequence

import numpy as np

from edgenet.errors import InputError
from edgenet.export.importers.onnx_elementwise import binary, number
from edgenet.export.importers.onnx_graph import Importer, Node, Value, axis_of
from edgenet.export.importers.onnx_shapes import reduce


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


def _normalised(b: Importer, node: Node, x: Value, axes: Sequence[int], epsilon: float) -> tuple[Value, Value, Value]:
    """Return `x` with mean 0 and variance 1 over `axes`, the mean that it had, and one over its deviation."""
    mean = reduce(b, node, "MEAN", x, axes, True)
    centred = binary(b, node, "SUB", x, mean)
    variance = reduce(b, node, "MEAN", binary(b, node, "MUL", centred, centred), axes, True)
    inverse = b.same(node, "RSQRT", binary(b, node, "ADD", variance, number(epsilon)))
    return binary(b, node, "MUL", centred, inverse), mean, inverse


def layer_norm(b: Importer, node: Node) -> list[Value]:
    """Import LayerNormalization."""
    x = b.plain(b.value(node))
    axes = list(range(axis_of(node, node.attributes.get("axis", -1), x.rank), x.rank))
    y, mean, inverse = _normalised(b, node, x, axes, node.attributes.get("epsilon", 1e-5))
    y = binary(b, node, "MUL", y, b.required(node, 1, "scale"))
    if node.input(2):
        y = binary(b, node, "ADD", y, b.required(node, 2, "shift"))
    return [y, mean, inverse]


def instance_norm(b: Importer, node: Node) -> Value:
    """Import InstanceNormalization: each channel of a picture alone."""
    x = b.plain(b.value(node))
    y, _, _ = _normalised(b, node, x, range(2, x.rank), node.attributes.get("epsilon", 1e-5))
    shape = (-1, *(1,) * (x.rank - 2))
    y = binary(b, node, "MUL", y, b.required(node, 1, "scale").astype(np.float32).reshape(shape))
    return binary(b, node, "ADD", y, b.required(node, 2, "shift").astype(np.float32).reshape(shape))


def group_norm(b: Importer, node: Node) -> Value:
    """Import GroupNormalization: groups of channels of a picture; one scale a channel, or before opset 21 a group."""
    x, groups = b.plain(b.value(node)), int(node.attributes["num_groups"])
    if groups < 1 or x.shape[1] % groups:
        raise InputError(f"{node} has {groups} groups for {x.shape[1]} channels: the file is damaged")
    apart = b.reshape(x, (x.shape[0], groups, x.shape[1] // groups, *x.shape[2:]))
    y, _, _ = _normalised(b, node, apart, range(2, apart.rank), node.attributes.get("epsilon", 1e-5))
    y = b.reshape(y, x.shape)
    for i, kind in ((1, "MUL"), (2, "ADD")):
        numbers = b.required(node, i, "scale and shift").astype(np.float32)
        if len(numbers) == groups != x.shape[1]:
            numbers = np.repeat(numbers, x.shape[1] // groups)
        y = binary(b, node, kind, y, numbers.reshape(-1, *(1,) * (x.rank - 2)))
    return y


def rms_norm(b: Importer, node: Node) -> Value:
    """Import RMSNormalization."""
    x = b.plain(b.value(node))
    axes = list(range(axis_of(node, node.attributes.get("axis", -1), x.rank), x.rank))
    squares = reduce(b, node, "MEAN", binary(b, node, "MUL", x, x), axes, True)
    shifted = binary(b, node, "ADD", squares, number(node.attributes.get("epsilon", 1e-5)))
    return binary(
        b, node, "MUL", binary(b, node, "MUL", x, b.same(node, "RSQRT", shifted)), b.required(node, 1, "scale")
    )


def lp_norm(b: Importer, node: Node) -> Value:
    """Import LpNormalization: divided by its own length; where that is 0 it stays 0."""
    x, p = b.plain(b.value(node)), node.attributes.get("p", 2)
    axis = [node.attributes.get("axis", -1)]
    if p == 1:
        length = reduce(b, node, "SUM", b.same(node, "ABS", x, {}, "AbsOptions"), axis, True)
    elif p == 2:
        length = b.same(
            node, "SQRT", reduce(b, node, "SUM", b.same(node, "SQUARE", x, {}, "SquareOptions"), axis, True)
        )
    else:
        raise InputError(f"{node} has p {p}; edgenet handles 1 and 2")
    return binary(b, node, "DIV", x, binary(b, node, "MAXIMUM", length, number(1e-30)))


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


def global_lp_pool(b: Importer, node: Node) -> Value:
    """Import GlobalLpPool of p 1 or 2."""
    x, p = b.plain(b.value(node)), node.attributes.get("p", 2)
    axes = list(range(2, x.rank))
    if p not in (1, 2):
        raise InputError(f"{node} has p {p}; edgenet handles 1 and 2")
    powers = b.same(node, "ABS", x, {}, "AbsOptions") if p == 1 else b.same(node, "SQUARE", x, {}, "SquareOptions")
    total = reduce(b, node, "SUM", powers, axes, True)
    return total if p == 1 else b.same(node, "SQRT", total)
