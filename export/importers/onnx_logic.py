"""ONNX operators that compare, choose and count, in TFLite's terms.

Whole numbers and truth values stand in the graph as float32, like everything else: TFLite's own types are cast to and
from right where an operator needs them.
"""

from dataclasses import replace

import numpy as np

from edgenet.errors import InputError
from edgenet.export.importers.onnx_elementwise import aligned, binary, number
from edgenet.export.importers.onnx_graph import Handler, Importer, Node, Value, axis_of, numbers_of


def cast_op(b: Importer, node: Node, x: Value, dtype: str) -> str:
    """Add a CAST of `x` to `dtype` and return its output."""
    kinds = {"float32": 0, "int32": 2, "bool": 6}
    options = {"inDataType": kinds[b.tensors[x.name].dtype], "outDataType": kinds[dtype]}
    return b.emit(node, "CAST", [x.name], x.stored, options, "CastOptions", dtype=dtype)


def as_float(b: Importer, node: Node, name: str, like: Value, numbers: str) -> Value:
    """Return tensor `name`, of another type and stored like `like`, as float32."""
    x = replace(like, name=name)
    return replace(x, name=cast_op(b, node, x, "float32"), numbers=numbers)


def together(b: Importer, node: Node, count: int) -> list[Value]:
    """Return the first operands with one rank and one order of axes; they may still have to be broadcast."""
    values = [b.value(node, i) for i in range(count)]
    rank = max(1, *(v.rank for v in values))
    values = [b.plain(aligned(b, v, rank)) for v in values]
    lead = max(values, key=lambda v: int(np.prod(v.shape)))
    return [b.turn(v, lead.perm) for v in values]


def comparison(kind: str, options_type: str) -> Handler:
    """Return the handler of an operator that compares two numbers."""

    def handle(b: Importer, node: Node) -> Value:
        x, y = together(b, node, 2)
        out = replace(x, shape=np.broadcast_shapes(x.shape, y.shape))
        name = b.emit(node, kind, [x.name, y.name], out.stored, {}, options_type, dtype="bool")
        return as_float(b, node, name, out, "truth")

    return handle


def both(b: Importer, node: Node) -> Value:
    """Import And."""
    x, y = together(b, node, 2)
    return binary(b, node, "MUL", x, y)


def either(b: Importer, node: Node) -> Value:
    """Import Or."""
    x, y = together(b, node, 2)
    return binary(b, node, "MAXIMUM", x, y)


def one_of_two(b: Importer, node: Node) -> Value:
    """Import Xor."""
    x, y = together(b, node, 2)
    return b.same(node, "ABS", binary(b, node, "SUB", x, y), {}, "AbsOptions")


def opposite(b: Importer, node: Node) -> Value:
    """Import Not."""
    return binary(b, node, "SUB", b.value(node), number(1), swap=True)


def is_nan(b: Importer, node: Node) -> Value:
    """Import IsNaN: only NaN differs from itself."""
    x = b.plain(b.value(node))
    name = b.emit(node, "NOT_EQUAL", [x.name, x.name], x.stored, {}, "NotEqualOptions", dtype="bool")
    return as_float(b, node, name, x, "truth")


def is_infinite(b: Importer, node: Node) -> Value:
    """Import IsInf."""
    x, a = b.plain(b.value(node)), node.attributes
    up, down = a.get("detect_positive", 1), a.get("detect_negative", 1)
    if not up and not down:
        raise InputError(f"{node} looks for no infinity at all")
    if up and down:
        x = b.same(node, "ABS", x, {}, "AbsOptions")
    limit = b.add_constant(f"{x.name}_infinity", number(np.inf if up else -np.inf))
    name = b.emit(node, "EQUAL", [x.name, limit], x.stored, {}, "EqualOptions", dtype="bool")
    return as_float(b, node, name, x, "truth")


def where(b: Importer, node: Node) -> Value:
    """Import Where."""
    condition, x, y = together(b, node, 3)
    if x.numbers != y.numbers:
        raise InputError(f"{node} chooses between a {x.numbers} and a {y.numbers} number: the file is damaged")
    lead = max((condition, x, y), key=lambda v: int(np.prod(v.shape)))
    shape = np.broadcast_shapes(condition.shape, x.shape, y.shape)
    out = replace(lead, shape=shape, numbers=x.numbers)
    chosen = cast_op(b, node, condition, "bool")
    return replace(out, name=b.emit(node, "SELECT_V2", [chosen, x.name, y.name], out.stored, {}, "SelectV2Options"))


def cast(b: Importer, node: Node) -> Value:
    """Import Cast."""
    name = b.onnx.TensorProto.DataType.Name(node.attributes["to"])
    if name in ("FLOAT", "FLOAT16", "DOUBLE", "BFLOAT16"):
        return replace(b.value(node), numbers="real")
    if name == "BOOL":
        return _as(b, node, b.value(node), "truth")
    if name in ("INT32", "INT64"):
        return _as(b, node, b.value(node), "whole")
    raise InputError(f"{node} turns an activation into {name}; edgenet handles real numbers")


def cast_like(b: Importer, node: Node) -> Value:
    """Import CastLike."""
    like = b.constant(node, 1)
    if like is not None and str(like.dtype) not in ("float32", "int32", "int64", "bool"):
        raise InputError(f"{node} turns an activation into {like.dtype}; edgenet handles real numbers")
    return _as(b, node, b.value(node), numbers_of(like) if like is not None else b.value(node, 1).numbers)


def _as(b: Importer, node: Node, x: Value, numbers: str) -> Value:
    x = b.plain(x)
    if numbers == "truth" and x.numbers != "truth":
        zero = b.add_constant(f"{x.name}_zero", np.zeros(1, np.float32))
        name = b.emit(node, "NOT_EQUAL", [x.name, zero], x.stored, {}, "NotEqualOptions", dtype="bool")
        return as_float(b, node, name, x, "truth")
    if numbers == "whole" and x.numbers == "real":
        return as_float(b, node, cast_op(b, node, x, "int32"), x, "whole")  # towards zero, as ONNX
    return replace(x, numbers=numbers)


def place(kind: str, options_type: str) -> Handler:
    """Return the handler of ArgMax or ArgMin."""

    def handle(b: Importer, node: Node) -> Value:
        if node.attributes.get("select_last_index", 0):
            raise InputError(f"{node} takes the last of several, which edgenet does not handle")
        x = b.plain(b.value(node))
        axis = axis_of(node, node.attributes.get("axis", 0), x.rank)
        return _place(b, node, kind, options_type, x, axis, bool(node.attributes.get("keepdims", 1)))

    return handle


def _place(b: Importer, node: Node, kind: str, options_type: str, x: Value, axis: int, keep: bool) -> Value:
    x = b.in_order(x)
    left = [n for i, n in enumerate(x.shape) if i != axis]
    out = Value("", tuple(left), tuple(range(len(left))))
    where_axis = b.add_constant(f"{x.name}_axis", np.array([axis], np.int32))
    name = b.emit(node, kind, [x.name, where_axis], left, {"outputType": 2}, options_type, dtype="int32")
    out = as_float(b, node, name, out, "whole")
    return b.reshape(out, [1 if i == axis else n for i, n in enumerate(x.shape)]) if keep else out


def hard_max(b: Importer, node: Node) -> Value:
    """Import Hardmax: 1 at the first largest number along an axis, 0 elsewhere."""
    x = b.plain(b.value(node))
    axis = axis_of(node, node.attributes.get("axis", -1 if b.opset >= 13 else 1), x.rank)
    if b.opset < 13 and any(n != 1 for n in x.shape[axis + 1 :]):
        raise InputError(f"{node} of opset {b.opset} runs over several axes: export with opset 13 or later")
    first = _place(b, node, "ARG_MAX", "ArgMaxOptions", x, axis, True)
    numbers = np.arange(x.shape[axis], dtype=np.float32).reshape([-1 if i == axis else 1 for i in range(x.rank)])
    steps = Value(b.add_constant(f"{x.name}_places", numbers), numbers.shape, tuple(range(x.rank)))
    name = b.emit(node, "EQUAL", [first.name, steps.name], x.shape, {}, "EqualOptions", dtype="bool")
    return as_float(b, node, name, Value("", x.shape, tuple(range(x.rank))), "real")


def mask(b: Importer, node: Node, x: Value, kind: str, options_type: str, limit: float) -> Value:
    """Return 1 where `x` is beyond `limit`, 0 elsewhere, as real numbers."""
    name = b.emit(
        node, kind, [x.name, b.add_constant(f"{x.name}_limit", number(limit))], x.stored, {},
        options_type, dtype="bool",
    )  # fmt: skip
    return as_float(b, node, name, x, "real")
