"""An ONNX graph on its way to a float graph: its nodes, its values, and the methods that handlers use.

Each value of the ONNX graph carries the order in which its axes are stored. A Transpose only changes that order, a
convolution asks for NHWC, elementwise operators take any order that their operands share, axes are renumbered, and the
constants are turned here. A TRANSPOSE is written only where numbers really have to move. A Flatten of a picture keeps
its NHWC order too: the rows of the dense layer behind it are put in that order. Whatever depends on constants and
shapes only is computed here. Reference: https://onnx.ai/onnx/operators/
"""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgenet.errors import InputError, MissingDependency
from edgenet.export.graph import Op, Tensor

NHWC = (0, 2, 3, 1)  # the ONNX axes of a picture in the order in which they are stored
MAX_FOLDED_ELEMENTS = 2**27


def onnx_module() -> Any:
    """Return the module onnx. Raises MissingDependency."""
    try:
        import onnx
    except ImportError:
        raise MissingDependency("onnx", "onnx", "reading an .onnx file") from None
    return onnx


@dataclass(frozen=True)
class Node:
    """One operator of the ONNX graph; inputs that are left out are ""."""

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]

    def input(self, i: int) -> str:
        return self.inputs[i] if i < len(self.inputs) else ""

    def __str__(self) -> str:
        return f"{self.kind} (node {self.name or self.outputs[0]})"


@dataclass(frozen=True)
class Value:
    """An activation: tensor `name` of the graph stores it, stored axis i being ONNX axis perm[i].

    Whole numbers and truth values are stored as float32 too: the operators that make and read them convert.

    `flat` is (dims, order) where the last axis is a flattened picture that is still in stored order: axes of lengths
    `dims`, stored in `order`.
    """

    name: str
    shape: tuple[int, ...]  # ONNX's
    perm: tuple[int, ...]
    flat: tuple[tuple[int, ...], tuple[int, ...]] | None = None
    numbers: str = "real"  # what the float32 numbers stand for: "real", "whole" or "truth" (1 and 0)

    @property
    def stored(self) -> tuple[int, ...]:
        return tuple(self.shape[i] for i in self.perm)

    @property
    def rank(self) -> int:
        return len(self.shape)

    def axis(self, axis: int) -> int:
        """Return where ONNX axis `axis` is stored."""
        return self.perm.index(axis % self.rank)

    def flat_order(self) -> np.ndarray:
        """Return ONNX's index of each stored feature of the last axis."""
        assert self.flat is not None
        dims, order = self.flat
        return np.arange(int(np.prod(dims))).reshape(dims).transpose(order).ravel()


def axis_of(node: Node, axis: int, rank: int) -> int:
    """Return an axis counted from the front. Raises InputError where there is none."""
    if not -rank <= axis < rank:
        raise InputError(f"{node} works along axis {axis} of {rank}: the file is damaged")
    return axis % rank


def identity(rank: int) -> tuple[int, ...]:
    """Return the order of axes that moves none."""
    return tuple(range(rank))


class Importer:
    """The float graph so far; `constants` and `values` hold what is known of each ONNX value."""

    def __init__(self, model: Any, shapes: Mapping[str, tuple[int, ...]]) -> None:
        onnx = onnx_module()
        self.onnx, self.model = onnx, model
        self.opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 1)
        self.constants: dict[str, np.ndarray] = {t.name: _numbers(onnx, t) for t in model.graph.initializer}
        self.tensors: dict[str, Tensor] = {}
        self.ops: list[Op] = []
        self.values: dict[str, Value] = {}
        self.turned: dict[tuple[str, tuple[int, ...]], Value] = {}
        for i, (name, shape) in enumerate(shapes.items()):
            nchw = len(shape) == 4 and shape[3] != 3
            first = Value(f"image_{i}" if i else "image", tuple(shape), NHWC if nchw else identity(len(shape)))
            self.tensors[first.name] = Tensor(first.name, first.stored, "float32")
            self.values[name] = first

    def fold(self, node: Node) -> bool:
        """Compute a node whose operands are known now."""
        if node.kind in ("Shape", "Size") and node.inputs[0] in self.values:
            shape = self.values[node.inputs[0]].shape
            start, end = node.attributes.get("start", 0), node.attributes.get("end", len(shape))
            data = np.array(shape[start:end], np.int64) if node.kind == "Shape" else np.int64(np.prod(shape))
            self.constants[node.outputs[0]] = np.asarray(data)
            return True
        if node.kind == "CastLike" and node.inputs[0] in self.constants and node.inputs[1] in self.values:
            self.constants[node.outputs[0]] = self.like(node.inputs[0], self.values[node.inputs[1]].numbers)
            return True
        if any(n and n not in self.constants for n in node.inputs):
            return False
        if node.kind == "Constant" and "value" in node.attributes:
            self.constants[node.outputs[0]] = _numbers(self.onnx, node.attributes["value"])
            return True
        results = self.evaluate(node, {})
        self.constants.update({n: _widened(np.asarray(r)) for n, r in zip(node.outputs, results, strict=True) if n})
        return True

    def like(self, name: str, numbers: str) -> np.ndarray:
        """Return the constant `name` as numbers of another kind."""
        data = self.constants[name]
        kind = {"real": np.float32, "whole": np.int64, "truth": np.bool_}[numbers]
        return data.astype(kind)

    def evaluate(self, node: Node, fed: Mapping[str, np.ndarray], opset: int = 0) -> list[np.ndarray]:
        """Return what ONNX's reference implementation makes of a node, `fed` standing for what is not constant.

        Raises:
            InputError: it cannot, or makes more numbers than fit.
        """
        from onnx.reference import ReferenceEvaluator

        h = self.onnx.helper
        used = {n: fed[n] if n in fed else self.constants[n] for n in dict.fromkeys(node.inputs) if n}
        proto = h.make_node(node.kind, list(node.inputs), list(node.outputs), **node.attributes)
        info = [h.make_tensor_value_info(n, h.np_dtype_to_tensor_dtype(x.dtype), x.shape) for n, x in used.items()]
        outputs = [self.onnx.ValueInfoProto(name=n) for n in node.outputs if n]
        model = h.make_model(
            h.make_graph([proto], "fold", info, outputs), opset_imports=[h.make_opsetid("", opset or self.opset)]
        )
        self._refuse_large(node, model, used)
        try:
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                results = ReferenceEvaluator(model).run(None, used)
        except Exception as e:  # whatever a reference implementation meets in a damaged file
            raise InputError(f"{node}, which depends on constants only, cannot be computed: {e}") from None
        it = iter(results)
        return [next(it) if n else np.zeros(0) for n in node.outputs]

    def _refuse_large(self, node: Node, model: Any, used: Mapping[str, np.ndarray]) -> None:
        """Raise InputError where a node would make more numbers than fit, before it makes them."""
        small = self.onnx.ModelProto()
        small.CopyFrom(model)
        for name, data in used.items():
            if data.size <= 64 and data.dtype.kind in "iuf":
                small.graph.initializer.append(self.onnx.numpy_helper.from_array(np.asarray(data), name))
        try:
            inferred = self.onnx.shape_inference.infer_shapes(small, data_prop=True)
        except Exception:  # it is computed below, where an error has its words
            return
        for out in inferred.graph.output:
            sizes = [int(d.dim_value) for d in out.type.tensor_type.shape.dim]
            if math.prod(sizes) > MAX_FOLDED_ELEMENTS:
                raise InputError(f"{node} makes a constant of more than {MAX_FOLDED_ELEMENTS} numbers")

    # What a handler asks for

    def constant(self, node: Node, i: int) -> np.ndarray | None:
        """Return operand `i` if it is known now, None where it is computed from the picture or left out."""
        return self.constants.get(node.input(i))

    def required(self, node: Node, i: int, what: str) -> np.ndarray:
        data = self.constant(node, i)
        if data is None:
            raise InputError(f"{node} computes its {what} from the picture; edgenet needs it fixed")
        return data

    def value(self, node: Node, i: int = 0) -> Value:
        """Return operand `i`, an activation; a constant becomes one."""
        name = node.input(i)
        if name in self.values:
            return self.values[name]
        if name not in self.constants:
            raise InputError(f"{node} lacks its input {i}: the file is damaged")
        data = self.constants[name]
        numbers = numbers_of(data)
        real = data.astype(np.float32)
        if numbers == "whole" and np.any(real.astype(np.float64) != data):
            raise InputError(f"{node} reads whole numbers beyond 2^24, which float32 does not hold")
        return Value(self.add_constant(_short(name), real), real.shape, identity(real.ndim), numbers=numbers)

    @property
    def made(self) -> set[str]:
        """The tensors that are computed or fed."""
        return {n for n, t in self.tensors.items() if t.data is None}

    # What a handler writes

    def add_constant(self, name: str, data: np.ndarray) -> str:
        name = self.fresh(name)
        self.tensors[name] = Tensor(name, data.shape, str(data.dtype), np.ascontiguousarray(data))
        return name

    def fresh(self, name: str) -> str:
        new, i = name, 0
        while new in self.tensors:
            i += 1
            new = f"{name}_{i}"
        return new

    def emit(
        self, node: Node, kind: str, inputs: Sequence[str | None], shape: Sequence[int],
        options: Mapping[str, Any] | None = None, options_type: str = "NONE", *, version: int = 1,
        dtype: str = "float32",
    ) -> str:  # fmt: skip
        """Add an operator; `shape` is the stored one. Return the name of its output."""
        if any(n < 1 for n in shape):
            raise InputError(f"{node} gives nothing, shape {tuple(shape)}: export the network with its real input size")
        out = self.fresh(_short(next(n for n in node.outputs if n)))
        self.tensors[out] = Tensor(out, tuple(int(n) for n in shape), dtype)
        self.ops.append(Op(kind, tuple(inputs), (out,), dict(options or {}), options_type, version))
        return out

    def same(self, node: Node, kind: str, x: Value, options: Any = None, options_type: str = "NONE") -> Value:
        """Add an operator that changes every number on its own."""
        return replace(x, name=self.emit(node, kind, [x.name], x.stored, options, options_type))

    def turn(self, x: Value, perm: Sequence[int]) -> Value:
        """Return `x` stored in the order `perm`; numbers move only where an axis longer than 1 does."""
        x, perm = self.plain(x), tuple(perm)
        if x.perm == perm:
            return x
        if (x.name, perm) not in self.turned:
            out = replace(x, perm=perm)
            node = Node("Transpose", "", (), (f"{x.name}_turned",), {})
            if _real(x.shape, x.perm) == _real(x.shape, perm):
                out = replace(out, name=self.write_reshape(x.name, out.stored))
            else:
                order = np.array([x.perm.index(i) for i in perm], np.int32)
                order_name = self.add_constant(f"{x.name}_order", order)
                name = self.emit(node, "TRANSPOSE", [x.name, order_name], out.stored, {}, "TransposeOptions")
                out = replace(out, name=name)
            self.turned[x.name, perm] = out
        return self.turned[x.name, perm]

    def in_order(self, x: Value) -> Value:
        """Return `x` stored in ONNX's own order."""
        return self.turn(x, identity(x.rank))

    def picture(self, node: Node, i: int = 0) -> Value:
        """Return operand `i`, stored as NHWC. Raises InputError where it is none."""
        x = self.value(node, i)
        if x.rank != 4:
            raise InputError(f"{node} works on {x.rank - 2} dimensions, shape {x.shape}; edgenet handles pictures")
        return self.turn(x, NHWC)

    def write_reshape(self, name: str, shape: Sequence[int]) -> str:
        if self.tensors[name].shape == tuple(shape):
            return name
        wanted = np.array(shape, np.int32)
        node = Node("Reshape", "", (), (f"{name}_shaped",), {})
        inputs = [name, self.add_constant(f"{name}_shape", wanted)]
        return self.emit(node, "RESHAPE", inputs, shape, {"newShape": wanted}, "ReshapeOptions")

    def plain(self, x: Value) -> Value:
        """Return `x` with its flattened picture in ONNX's order."""
        if x.flat is None:
            return x
        dims, order = x.flat
        picture = Value("", (*x.shape[:-1], *dims), (*identity(x.rank - 1), *(i + x.rank - 1 for i in order)))
        picture = replace(picture, name=self.write_reshape(x.name, picture.stored), numbers=x.numbers)
        return self.reshape(self.in_order(picture), x.shape)

    def reshape(self, x: Value, shape: Sequence[int]) -> Value:
        """Return `x` with ONNX's shape `shape`, moving as few numbers as that takes."""
        x, shape = self.plain(x), tuple(int(n) for n in shape)
        groups = _groups(x.shape, shape)
        place = {axis: g for g, (axes, _) in enumerate(groups) for axis in axes}
        stored = [a for a in x.perm if x.shape[a] != 1]
        wanted = [a for g in dict.fromkeys(place[a] for a in stored) for a in groups[g][0]]
        if stored != wanted:
            if len(groups) == 1 and len(groups[0][1]) == 1 and groups[0][1][0] == len(shape) - 1:
                axes = groups[0][0]  # one flattened picture, which may stay as it is stored
                flat = (tuple(x.shape[a] for a in axes), tuple(axes.index(a) for a in stored))
                return Value(self.write_reshape(x.name, shape), shape, identity(len(shape)), flat, x.numbers)
            ones = [a for a in x.perm if x.shape[a] == 1]
            x = self.turn(x, (*ones, *wanted))
        order = [a for g in dict.fromkeys(place[a] for a in wanted) for a in groups[g][1]]
        out = Value("", shape, _with_ones(shape, order), numbers=x.numbers)
        return replace(out, name=self.write_reshape(x.name, out.stored))


def numbers_of(data: np.ndarray) -> str:
    """Return what `Value.numbers` says of a constant's type."""
    return {"b": "truth", "i": "whole", "u": "whole"}.get(data.dtype.kind, "real")


def _real(shape: Sequence[int], perm: Sequence[int]) -> list[int]:
    return [a for a in perm if shape[a] != 1]


def _groups(before: Sequence[int], after: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Return which axes of `before` become which of `after`; axes of length 1 are left out."""
    a = [i for i, n in enumerate(before) if n != 1]
    b = [i for i, n in enumerate(after) if n != 1]
    groups = []
    while a or b:
        left, right, n, m = [a.pop(0)] if a else [], [b.pop(0)] if b else [], 1, 1
        n, m = (before[left[0]] if left else 1), (after[right[0]] if right else 1)
        while n != m:
            if n < m and a:
                left.append(a.pop(0))
                n *= before[left[-1]]
            elif m < n and b:
                right.append(b.pop(0))
                m *= after[right[-1]]
            else:
                raise InputError(f"a Reshape from {tuple(before)} to {tuple(after)}: the file is damaged")
        groups.append((left, right))
    return groups


def _with_ones(shape: Sequence[int], order: list[int]) -> tuple[int, ...]:
    """Return an order of all axes in which those longer than 1 are in `order`: NHWC, or ONNX's own, where that fits."""
    rank = len(shape)
    for perm in ([NHWC] if rank == 4 else []) + [identity(rank)]:
        if _real(shape, perm) == order:
            return perm
    return (*(i for i in range(rank) if shape[i] == 1), *order)


def _numbers(onnx: Any, t: Any) -> np.ndarray:
    """Return the numbers of a TensorProto. Raises InputError where they are not what it declares."""
    try:
        return _widened(onnx.numpy_helper.to_array(t))
    except InputError:
        raise
    except Exception as e:  # too few bytes for the shape, a type that there is not
        raise InputError(f"the constant {t.name} cannot be read ({one_line(e)}): the file is damaged") from None


def one_line(e: BaseException) -> str:
    """Return what an exception says, shortened, without a line break or a full stop."""
    text = " ".join(str(e).split())[:200].rstrip(".")
    if isinstance(e, KeyError):
        return f"there is no {text}"
    return text or "no reason told"


def _widened(data: np.ndarray) -> np.ndarray:
    """All real numbers are float32 here: a float16 model is computed as one of float32."""
    if data.dtype.name not in ("float16", "float64", "bfloat16"):
        return data
    with np.errstate(over="ignore"):
        narrow = data.astype(np.float32)
    if data.dtype == np.float64 and np.any(np.isinf(narrow) & np.isfinite(data)):
        raise InputError("a constant has DOUBLE numbers beyond those of float32: export the network in float32")
    return narrow


def _short(name: str) -> str:
    return name.strip("/").removesuffix("_output_0").replace(";", "_") or "value"


# None stands for an output that is known already.
Handler = Callable[[Importer, Node], Value | list[Value] | list[Value | None]]
