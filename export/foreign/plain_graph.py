"""A `Graph` as plain values, and back: what another process sends is checked before anything works with it."""

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from edgenet.export.graph import Graph, Op, Quantization, Tensor, multiply_adds
from edgenet.sandbox.apart import memory_bytes

_DTYPES = frozenset(
    ("float16", "float32", "float64", "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
)
_MAX_NAME, _MAX_RANK, _MAX_NUMBERS = 4096, 8, 1 << 31  # numbers of one tensor: TFLite counts its bytes in 64 bits
# Of one picture: the largest classifiers that were published need 10^13, a core does 10^10 a second.
_MOST_MULTIPLY_ADDS = 10**14
# What reads a second tensor: weights, axes, a shape, or another of its kind.
_OF_TWO = frozenset(
    ("ADD", "BATCH_MATMUL", "CONV_2D", "DEPTHWISE_CONV_2D", "DIV", "FULLY_CONNECTED", "MAXIMUM", "MEAN", "MINIMUM",
     "MUL", "PAD", "POW", "REDUCE_MAX", "SPLIT", "SUB", "SUM", "TRANSPOSE", "TRANSPOSE_CONV")
)  # fmt: skip
_WORD = re.compile(r"[A-Za-z0-9_]+")


def to_plain(graph: Graph) -> dict[str, Any]:
    """Return the graph as lists, texts, numbers and arrays."""
    tensors = []
    for t in graph.tensors.values():
        q = t.quantization
        tensors.append([t.name, list(t.shape), t.dtype, t.data, None if q is None else [q.scale, q.zero_point, q.axis]])
    ops = [[o.kind, list(o.inputs), list(o.outputs), dict(o.options), o.options_type, o.version] for o in graph.ops]
    return {
        "name": graph.name, "tensors": tensors, "ops": ops, "inputs": list(graph.inputs), "outputs": list(graph.outputs)
    }  # fmt: skip


def from_plain(value: Any) -> Graph:
    """Return the graph that `to_plain` wrote. Raises ValueError where it is none, or not a whole one."""
    try:
        tensors = {}
        for row in value["tensors"]:
            t = _tensor(*row)
            if t.name in tensors:
                raise ValueError(f"two tensors called {t.name}")
            tensors[t.name] = t
        inputs, outputs = (tuple(_known(n, tensors) for n in value[side]) for side in ("inputs", "outputs"))
        ops = tuple(_op(tensors, *row) for row in value["ops"])
        graph = Graph(_name(value["name"]), tensors, ops, inputs, outputs)
        _check_work(graph)
    except (KeyError, TypeError, IndexError, AttributeError):
        raise ValueError("its graph is not whole") from None
    _check_order(graph)
    return graph


def _tensor(name: Any, shape: Any, dtype: Any, data: Any, quantization: Any) -> Tensor:
    name = _name(name)
    if len(shape) > _MAX_RANK or not all(type(n) is int and n >= 0 for n in shape) or dtype not in _DTYPES:
        raise ValueError(f"the tensor {name} has the shape {shape} and the type {dtype}")
    if math.prod(shape) > _MAX_NUMBERS:
        raise ValueError(f"the tensor {name} has {math.prod(shape):.2g} numbers, more than a network can hold")
    if data is not None and (not isinstance(data, np.ndarray) or (data.dtype, data.shape) != (dtype, tuple(shape))):
        raise ValueError(f"the constant {name} is not what its type and shape say")
    return Tensor(name, tuple(shape), dtype, data, None if quantization is None else _quantization(*quantization))


def _quantization(scale: Any, zero_point: Any, axis: Any) -> Quantization:
    fits = all(isinstance(a, np.ndarray) and a.ndim == 1 for a in (scale, zero_point))
    if not fits or scale.dtype != "float32" or zero_point.dtype != "int64" or scale.shape != zero_point.shape:
        raise ValueError("a quantization that is none")
    if type(axis) is not int or not 0 <= axis < _MAX_RANK:
        raise ValueError(f"a quantization along the axis {axis}")
    return Quantization(scale, zero_point, axis)


def _op(
    tensors: Mapping[str, Tensor], kind: Any, inputs: Any, outputs: Any, options: Any, options_type: Any, version: Any
) -> Op:
    words = (kind, options_type, *options)
    if not all(isinstance(w, str) and len(w) < 100 and _WORD.fullmatch(w) for w in words) or type(version) is not int:
        raise ValueError("an operator that is none")
    plain = (bool, int, float, str, bytes, list, np.ndarray, np.generic, type(None))
    if not all(isinstance(v, plain) for v in options.values()):
        raise ValueError(f"an operator {kind} with options that are none")
    reads = tuple(None if n is None else _known(n, tensors) for n in inputs)
    gives = tuple(_known(n, tensors) for n in outputs)
    least = 2 if kind in _OF_TWO else 1
    if len(reads) < least or None in reads[:least] or not gives:
        raise ValueError(f"an operator {kind} that reads or gives too little")
    return Op(kind, reads, gives, options, options_type, version)


def _name(name: Any) -> str:
    if not isinstance(name, str) or len(name) > _MAX_NAME or not name.isprintable():
        raise ValueError(f"a name that no terminal shows: {ascii(name)[:60]}")
    return name


def _known(name: Any, tensors: Mapping[str, Tensor]) -> str:
    if name not in tensors:
        raise ValueError(f"there is no tensor {_name(name)[:200]}")
    return str(name)


def _check_work(graph: Graph) -> None:
    """Raise ValueError where one picture would take more memory or computing than a classifier may need."""
    there = memory_bytes()
    for op in graph.ops:
        read = {n: graph.tensors[n] for n in (*op.inputs, *op.outputs) if n is not None}
        needed = sum(math.prod(t.shape) * np.dtype(t.dtype).itemsize for t in read.values() if t.data is None)
        if there is not None and needed > there / 2:
            raise ValueError(
                f"what {op.kind} reads and gives of one picture takes {needed / 1e9:.1f} GB, more than half of this "
                f"machine's {there / 1e9:.1f}"
            )
    work = sum(multiply_adds(graph, op) for op in graph.ops)
    if work > _MOST_MULTIPLY_ADDS:
        raise ValueError(f"it multiplies {work:.1e} times for one picture, more than any classifier")


def _check_order(graph: Graph) -> None:
    """Raise ValueError where an operator reads what nothing before it makes, or makes what is there already."""
    made = {n for n, t in graph.tensors.items() if t.data is not None} | set(graph.inputs)
    for op in graph.ops:
        for name in op.inputs:
            if name is not None and name not in made:
                raise ValueError(f"{op.kind} reads {name}, which nothing before it makes")
        for name in op.outputs:
            if name in made:
                raise ValueError(f"{op.kind} makes {name}, which is there already")
            made.add(name)
    if lost := [n for n in graph.outputs if n not in made]:
        raise ValueError(f"nothing makes the output {lost[0]}")
