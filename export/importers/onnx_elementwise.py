"""ONNX operators that change every number on its own, or pairs of them, in TFLite's terms."""

from dataclasses import replace
from typing import Any

import numpy as np

from edgenet.errors import InputError
from edgenet.export.graph import Activation, fused
from edgenet.export.importers.onnx_graph import Handler, Importer, Node, Value

FLOAT_MAX = float(np.finfo(np.float32).max)


_OPTIONS = {
    "ADD": "AddOptions", "SUB": "SubOptions", "MUL": "MulOptions", "DIV": "DivOptions", "POW": "PowOptions",
    "MAXIMUM": "MaximumMinimumOptions", "MINIMUM": "MaximumMinimumOptions", "FLOOR_MOD": "FloorModOptions",
    "ATAN2": "ATan2Options",
}  # fmt: skip


def number(value: float) -> np.ndarray:
    """Return one number as a constant operand."""
    return np.asarray(value, np.float32)


def same(kind: str, options_type: str = "NONE", **options: Any) -> Handler:
    """Return the handler of an operator that TFLite has under another name."""

    def handle(b: Importer, node: Node) -> Value:
        return b.same(node, kind, b.value(node), options, options_type)

    return handle


def passed(b: Importer, node: Node) -> Value:
    """Import what gives its input unchanged: Identity, Dropout."""
    if node.kind == "Dropout" and (training := b.constant(node, 2)) is not None and bool(training):
        raise InputError(f"{node} is in training mode: export the network in inference mode (model.eval())")
    return b.value(node)


def aligned(b: Importer, x: Value, rank: int) -> Value:
    """Return activation `x` with axes of length 1 in front up to `rank`."""
    return b.reshape(x, (1,) * (rank - x.rank) + x.shape) if x.rank < rank else x


def constant_like(b: Importer, name: str, data: np.ndarray, x: Value) -> str:
    """Add a constant in the order in which `x`, of its rank or higher, is stored."""
    data = np.asarray(data, np.float32)
    data = data.reshape((1,) * (x.rank - data.ndim) + data.shape)
    if x.flat is not None and data.shape[-1] > 1:
        data = data[..., x.flat_order()]
    data = data.transpose(x.perm)
    while data.ndim > 1 and data.shape[0] == 1:
        data = data[0]
    return b.add_constant(name, data if data.ndim or not x.rank else data.reshape(1))


def binary(b: Importer, node: Node, kind: str, x: Value, y: Value | np.ndarray, swap: bool = False) -> Value:
    """Add an operator of two operands that broadcast; `swap` puts `y` first."""
    options_type = _OPTIONS[kind]
    options = fused() if kind in ("ADD", "SUB", "MUL", "DIV") else {}
    if isinstance(y, np.ndarray):
        if y.ndim > x.rank:
            x = aligned(b, x, y.ndim)
        if kind == "DIV" and not swap:
            kind, y, options_type = "MUL", (1 / y.astype(np.float64)).astype(np.float32), "MulOptions"
        other, shape = (
            constant_like(b, f"{node.outputs[0].strip('/')}_constant", y, x),
            np.broadcast_shapes(x.shape, y.shape),
        )
        out = replace(x, shape=shape)
    else:
        rank = max(x.rank, y.rank)
        x, y = b.plain(aligned(b, x, rank)), b.plain(aligned(b, y, rank))
        if np.prod(y.shape) > np.prod(x.shape):
            x = b.turn(x, y.perm)
        y = b.turn(y, x.perm)
        numbers = x.numbers if x.numbers == y.numbers else "real"
        other, out = y.name, replace(x, shape=np.broadcast_shapes(x.shape, y.shape), numbers=numbers)
    operands = [other, x.name] if swap else [x.name, other]
    return replace(out, name=b.emit(node, kind, operands, out.stored, options, options_type))


def arithmetic(kind: str) -> Handler:
    """Return the handler of Add, Sub, Mul or Div."""

    def handle(b: Importer, node: Node) -> Value:
        first, second = b.constant(node, 0), b.constant(node, 1)
        if b.opset < 7 and "axis" in node.attributes:  # the second operand's axes begin there, not at the end
            rank, at = b.value(node).rank, node.attributes["axis"] % b.value(node).rank
            if second is not None:
                second = second.reshape((*second.shape, *(1,) * (rank - at - second.ndim)))
            else:
                y = b.value(node, 1)
                y = b.reshape(y, (*y.shape, *(1,) * (rank - at - y.rank)))
                return binary(b, node, kind, b.value(node), y)
        if second is not None:
            return binary(b, node, kind, b.value(node), second)
        if first is not None:
            return binary(b, node, kind, b.value(node, 1), first, swap=kind in ("SUB", "DIV"))
        return binary(b, node, kind, b.value(node), b.value(node, 1))

    return handle


def extremes(kind: str) -> Handler:
    """Return the handler of Min, Max or Sum, of any number of inputs."""

    def handle(b: Importer, node: Node) -> Value:
        known = [c for i in range(len(node.inputs)) if (c := b.constant(node, i)) is not None]
        rest = [b.value(node, i) for i in range(len(node.inputs)) if b.constant(node, i) is None]
        out = rest[0]
        others: list[Value | np.ndarray] = [*rest[1:], *known]
        for y in others:
            out = binary(b, node, kind, out, y)
        return out

    return handle


def mean(b: Importer, node: Node) -> Value:
    """Import Mean, of any number of inputs."""
    return binary(b, node, "MUL", extremes("ADD")(b, node), number(1 / len(node.inputs)))  # type: ignore[arg-type]


def clip(b: Importer, node: Node, x: Value, low: float, high: float) -> Value:
    """Hold `x` within [low, high]: RELU, RELU6, or MAXIMUM and MINIMUM."""
    for activation in (Activation.RELU6, Activation.RELU_N1_TO_1):
        if (low, high) == activation.bounds:
            return b.same(node, activation.name, x)
    if low == 0.0:
        x = b.same(node, "RELU", x)
    elif low > -FLOAT_MAX:
        x = binary(b, node, "MAXIMUM", x, number(low))
    return binary(b, node, "MINIMUM", x, number(high)) if high < FLOAT_MAX else x


def clip_node(b: Importer, node: Node) -> Value:
    """Import Clip."""
    limits = []
    for i, key, default in ((1, "min", -np.inf), (2, "max", np.inf)):
        given = b.required(node, i, key) if node.input(i) else node.attributes.get(key, default)
        limits.append(float(np.asarray(given).ravel()[0]) if np.size(given) else default)
    if any(np.isnan(limits)):
        raise InputError(f"{node} has a limit that is NaN: the file is damaged")
    return clip(b, node, b.value(node), *limits)


def hard_sigmoid(b: Importer, node: Node) -> Value:
    """max(0, min(1, alpha x + beta)) as ReLU6 does it: 6 times as large, then divided."""
    alpha, beta = node.attributes.get("alpha", 0.2), node.attributes.get("beta", 0.5)
    x = b.value(node)
    if abs(alpha * 6 - 1) > 1e-6:
        x = binary(b, node, "MUL", x, number(alpha * 6))
    x = binary(b, node, "ADD", x, number(beta * 6))
    return binary(b, node, "MUL", b.same(node, "RELU6", x), number(1 / 6))


def leaky_relu(b: Importer, node: Node) -> Value:
    """Import LeakyRelu."""
    return b.same(node, "LEAKY_RELU", b.value(node), {"alpha": node.attributes.get("alpha", 0.01)}, "LeakyReluOptions")


def prelu(b: Importer, node: Node) -> Value:
    """Import PRelu."""
    x, slope = b.value(node), b.required(node, 1, "slope")
    if b.opset < 7 and slope.size > 1:  # one a channel, whatever its shape
        slope = slope.reshape(-1, *(1,) * (x.rank - 2))
    if np.broadcast_shapes(x.shape, slope.shape) != x.shape:
        raise InputError(f"{node} has slopes of shape {slope.shape} for {x.shape}: the file is damaged")
    name = constant_like(b, f"{node.outputs[0].strip('/')}_slope", slope, x)
    return replace(x, name=b.emit(node, "PRELU", [x.name, name], x.stored))


def elu(b: Importer, node: Node) -> Value:
    """Import Elu, Celu or Selu: x where it is positive, elsewhere a part of exp(x) - 1."""
    x, a = b.value(node), node.attributes
    alpha = a.get("alpha", 1.67326319217681884765625 if node.kind == "Selu" else 1.0)
    gamma = a.get("gamma", 1.05070102214813232421875) if node.kind == "Selu" else 1.0
    if alpha == 1.0:
        out = b.same(node, "ELU", x)
    else:
        below = binary(b, node, "MINIMUM", x, number(0))
        if node.kind == "Celu":
            below = binary(b, node, "MUL", below, number(1 / alpha))
        bent = binary(b, node, "MUL", b.same(node, "ELU", below), number(alpha))
        out = binary(b, node, "ADD", b.same(node, "RELU", x), bent)
    return out if gamma == 1.0 else binary(b, node, "MUL", out, number(gamma))


def softsign(b: Importer, node: Node) -> Value:
    """Import Softsign: x / (1 + |x|)."""
    x = b.value(node)
    return binary(b, node, "DIV", x, binary(b, node, "ADD", b.same(node, "ABS", x, {}, "AbsOptions"), number(1)))


def gelu(b: Importer, node: Node) -> Value:
    """Import Gelu."""
    tanh = node.attributes.get("approximate", "none") == "tanh"
    return b.same(node, "GELU", b.value(node), {"approximate": tanh}, "GeluOptions")


def silu(b: Importer, node: Node) -> Value:
    """Import Swish: x times its sigmoid."""
    x = b.value(node)
    alpha = node.attributes.get("alpha", 1.0)
    inner = x if alpha == 1.0 else binary(b, node, "MUL", x, number(alpha))
    return binary(b, node, "MUL", x, b.same(node, "LOGISTIC", inner))


def _softplus_of(b: Importer, node: Node, x: Value) -> Value:
    """log(1 + exp(x)) as max(x, 0) + log(1 + exp(-|x|)), which does not overflow."""
    small = b.same(
        node, "EXP", b.same(node, "NEG", b.same(node, "ABS", x, {}, "AbsOptions"), {}, "NegOptions"), {}, "ExpOptions"
    )
    log = b.same(node, "LOG", binary(b, node, "ADD", small, number(1)))
    return binary(b, node, "ADD", b.same(node, "RELU", x), log)


def softplus(b: Importer, node: Node) -> Value:
    """Import Softplus."""
    return _softplus_of(b, node, b.value(node))


def mish(b: Importer, node: Node) -> Value:
    """x tanh(log(1 + exp(x))), with s = sigmoid(x) and p = s (2 - s) as x p / (2 - p): nothing overflows or cancels."""
    x = b.value(node)
    s = b.same(node, "LOGISTIC", x)
    p = binary(b, node, "MUL", s, binary(b, node, "SUB", s, number(2), swap=True))
    return binary(b, node, "MUL", x, binary(b, node, "DIV", p, binary(b, node, "SUB", p, number(2), swap=True)))


def power(b: Importer, node: Node) -> Value:
    """Import Pow."""
    exponent, base = b.constant(node, 1), b.constant(node, 0)
    if exponent is None:
        if base is not None:
            if base.dtype.kind != "f":
                raise InputError(f"{node} has a whole number as its base, which edgenet does not handle")
            return binary(b, node, "POW", b.value(node, 1), base.astype(np.float32), swap=True)
        return binary(b, node, "POW", b.value(node), b.value(node, 1))
    x = b.value(node)
    n = float(exponent.ravel()[0]) if exponent.size == 1 and exponent.ndim <= x.rank else None
    if n == 0.5:
        return b.same(node, "SQRT", x)
    if n in (1.0, 2.0):
        return x if n == 1.0 else b.same(node, "SQUARE", x, {}, "SquareOptions")
    if n in (-1.0, 3.0):
        return (
            one_over(b, node, x)
            if n == -1.0
            else binary(b, node, "MUL", x, b.same(node, "SQUARE", x, {}, "SquareOptions"))
        )
    return binary(b, node, "POW", x, exponent.astype(np.float32))


def remainder(b: Importer, node: Node) -> Value:
    """Import Mod: of the sign of the first operand (fmod), or of the second."""
    second = b.constant(node, 1)
    x: Value = b.value(node)
    y = b.value(node, 1) if second is None else second.astype(np.float32)
    if not node.attributes.get("fmod", 0):
        return binary(b, node, "FLOOR_MOD", x, y)
    size = b.same(node, "ABS", x, {}, "AbsOptions")
    by = np.abs(y) if isinstance(y, np.ndarray) else b.same(node, "ABS", y, {}, "AbsOptions")
    return binary(b, node, "MUL", binary(b, node, "FLOOR_MOD", size, by), b.same(node, "SIGN", x, {}, "SignOptions"))


def one_over(b: Importer, node: Node, x: Value) -> Value:
    """Return 1 / `x`."""
    return binary(b, node, "DIV", x, number(1), swap=True)


def reciprocal(b: Importer, node: Node) -> Value:
    """Import Reciprocal."""
    return one_over(b, node, b.value(node))


def expand(b: Importer, node: Node) -> Value:
    """Import Expand."""
    x, wanted = b.value(node), tuple(int(n) for n in b.required(node, 1, "shape"))
    if np.broadcast_shapes(x.shape, wanted) != np.broadcast_shapes(x.shape):
        return binary(b, node, "ADD", x, np.zeros(wanted, np.float32))
    return x
