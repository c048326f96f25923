"""ONNX operators that move, pick or sum up numbers along axes, in TFLite's terms."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from edgenet.errors import InputError
from edgenet.export.graph import fused
from edgenet.export.importers.onnx_elementwise import binary
from edgenet.export.importers.onnx_graph import Handler, Importer, Node, Value, axis_of

MAX_REPEATS, MAX_PAD = 64, 2**16
MAX_STEPS = 4  # of a MIRROR_PAD each; beyond, one GATHER an axis is faster
OPTIONS = {"ABS": "AbsOptions", "SQUARE": "SquareOptions", "SQRT": "NONE", "LOG": "NONE"}


def reduce(b: Importer, node: Node, kind: str, x: Value, axes: Sequence[int], keep: bool) -> Value:
    """Reduce `x` over `axes`, which are ONNX's."""
    x = b.plain(x)
    axes = sorted({axis_of(node, a, x.rank) for a in axes}) if axes else list(range(x.rank))
    places = b.add_constant(f"{x.name}_axes", np.array(sorted(x.axis(a) for a in axes), np.int32))
    if keep:
        out = replace(x, shape=tuple(1 if i in axes else n for i, n in enumerate(x.shape)))
    else:
        left = [i for i in range(x.rank) if i not in axes]
        perm = tuple(left.index(i) for i in x.perm if i in left)
        out = Value("", tuple(x.shape[i] for i in left), perm, numbers=x.numbers)
    name = b.emit(node, kind, [x.name, places], out.stored, {"keepDims": keep}, "ReducerOptions")
    return replace(out, name=name)


def _axes(b: Importer, node: Node, x: Value | None = None) -> list[int]:
    if node.input(1):
        return [int(a) for a in np.ravel(b.required(node, 1, "axes"))]
    return [int(a) for a in node.attributes.get("axes", ())]


def reduction(kind: str, before: str = "", after: str = "") -> Handler:
    """Return the handler of a reduction.

    Args:
        kind: TFLite's operator.
        before: what is applied to each number first, a key of OPTIONS.
        after: what is applied to the result.
    """

    def handle(b: Importer, node: Node) -> Value:
        axes, x = _axes(b, node), b.plain(b.value(node))
        x = b.same(node, before, x, {}, OPTIONS[before]) if before else x
        if axes or not node.attributes.get("noop_with_empty_axes", 0):
            x = reduce(b, node, kind, x, axes, bool(node.attributes.get("keepdims", 1)))
        return b.same(node, after, x, {}, OPTIONS[after]) if after else x

    return handle


def log_sum_exp(b: Importer, node: Node) -> Value:
    """Import ReduceLogSumExp, less the largest number first, so that nothing overflows."""
    axes, x = _axes(b, node), b.plain(b.value(node))
    if not axes and node.attributes.get("noop_with_empty_axes", 0):
        return x
    top = reduce(b, node, "REDUCE_MAX", x, axes, True)
    less = b.same(node, "EXP", binary(b, node, "SUB", x, top), {}, "ExpOptions")
    out = binary(b, node, "ADD", b.same(node, "LOG", reduce(b, node, "SUM", less, axes, True)), top)
    if node.attributes.get("keepdims", 1):
        return out
    gone = {axis_of(node, a, x.rank) for a in axes} or set(range(x.rank))
    return b.reshape(out, [n for i, n in enumerate(out.shape) if i not in gone])


def reshape(b: Importer, node: Node) -> Value:
    """Import Reshape."""
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


def flatten(b: Importer, node: Node) -> Value:
    """Import Flatten."""
    x = b.value(node)
    axis = node.attributes.get("axis", 1)
    axis = axis + x.rank if axis < 0 else axis
    return b.reshape(x, (int(np.prod(x.shape[:axis])), int(np.prod(x.shape[axis:]))))


def squeeze(b: Importer, node: Node) -> Value:
    """Import Squeeze."""
    x = b.value(node)
    axes = [axis_of(node, a, x.rank) for a in _axes(b, node)] or [i for i, n in enumerate(x.shape) if n == 1]
    return b.reshape(x, [n for i, n in enumerate(x.shape) if i not in axes])


def unsqueeze(b: Importer, node: Node) -> Value:
    """Import Unsqueeze."""
    x, axes = b.value(node), _axes(b, node)
    rank = x.rank + len(axes)
    places, left = {axis_of(node, a, rank) for a in axes}, list(x.shape)
    return b.reshape(x, [1 if i in places else left.pop(0) for i in range(rank)])


def transpose(b: Importer, node: Node) -> Value:
    """Import Transpose."""
    x = b.plain(b.value(node))
    return turned(x, list(node.attributes.get("perm", reversed(range(x.rank)))))


def turned(x: Value, order: Sequence[int]) -> Value:
    """Return `x` with its axes in another order; no number moves."""
    order = list(order)
    return replace(x, shape=tuple(x.shape[i] for i in order), perm=tuple(order.index(i) for i in x.perm))


def concat(b: Importer, node: Node) -> Value:
    """Import Concat."""
    known = [b.constant(node, i) for i in range(len(node.inputs))]
    values = [b.value(node, i) for i, c in enumerate(known) if c is None or c.size]  # PyTorch joins empty lists too
    lead = next((i for i, v in enumerate(values) if v.name in b.made), 0)
    return _joined(b, node, values, node.attributes["axis"], lead)


def _joined(b: Importer, node: Node, values: Sequence[Value], axis: int, leading: int = 0) -> Value:
    """Return `values` one after the other along `axis`, stored as number `leading` of them is."""
    lead = b.plain(values[leading])
    values = [b.turn(v, lead.perm) for v in values]
    axis = axis_of(node, axis, lead.rank)
    if any(v.shape[:axis] != lead.shape[:axis] or v.shape[axis + 1 :] != lead.shape[axis + 1 :] for v in values):
        raise InputError(f"{node} joins shapes {[v.shape for v in values]} along axis {axis}: the file is damaged")
    shape = list(lead.shape)
    shape[axis] = sum(v.shape[axis] for v in values)
    out = replace(lead, shape=tuple(shape))
    options = {"axis": lead.axis(axis), **fused()}
    name = b.emit(node, "CONCATENATION", [v.name for v in values], out.stored, options, "ConcatenationOptions")
    return replace(out, name=name)


def cut(b: Importer, node: Node, x: Value, starts: Sequence[int], sizes: Sequence[int]) -> Value:
    """Add a SLICE; `starts` and `sizes` are an axis of ONNX's each."""
    if tuple(sizes) == x.shape:
        return x
    out = replace(x, shape=tuple(sizes))
    begin = b.add_constant(f"{x.name}_begin", np.array([starts[i] for i in x.perm], np.int32))
    size = b.add_constant(f"{x.name}_size", np.array(out.stored, np.int32))
    return replace(out, name=b.emit(node, "SLICE", [x.name, begin, size], out.stored, {}, "SliceOptions"))


def slice_node(b: Importer, node: Node) -> Value:
    """Import Slice."""
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
    for axis, r in enumerate(chosen):
        if r.step < 0:
            x = pick(b, node, x, axis, np.array(r))
            chosen[axis] = range(len(r))
    if any(len(r) == 0 for r in chosen):
        raise InputError(f"{node} leaves nothing of shape {x.shape}")
    if all(r.step == 1 for r in chosen):
        return cut(b, node, x, [r.start for r in chosen], [len(r) for r in chosen])
    out = replace(x, shape=tuple(len(r) for r in chosen))
    stored = [chosen[i] for i in x.perm]
    limits = [
        b.add_constant(f"{x.name}_{what}", np.array(values, np.int32))
        for what, values in (
            ("begin", [r.start for r in stored]),
            ("end", [r[-1] + 1 for r in stored]),
            ("step", [r.step for r in stored]),
        )
    ]
    masks = dict.fromkeys(("beginMask", "endMask", "ellipsisMask", "newAxisMask", "shrinkAxisMask"), 0)
    name = b.emit(
        node, "STRIDED_SLICE", [x.name, *limits], out.stored, {**masks, "offset": False}, "StridedSliceOptions"
    )
    return replace(out, name=name)


def split(b: Importer, node: Node) -> list[Value | None]:
    """Import Split."""
    x, a = b.plain(b.value(node)), node.attributes
    axis, n = axis_of(node, a.get("axis", 0), x.rank), len(node.outputs)
    if node.input(1):
        sizes = [int(v) for v in b.required(node, 1, "sizes")]
    elif "split" in a:
        sizes = list(a["split"])
    else:
        each = -(-x.shape[axis] // n)
        sizes = [min(each, x.shape[axis] - i * each) for i in range(n)]
    if sum(sizes) != x.shape[axis] or min(sizes, default=0) < 0 or len(sizes) != n:
        raise InputError(f"{node} splits {x.shape[axis]} into {n} of {sizes}: the file is damaged")
    parts: list[Value | None] = []
    start = 0
    for i, size in enumerate(sizes):
        if size == 0 and node.outputs[i]:
            empty = [0 if k == axis else length for k, length in enumerate(x.shape)]
            b.constants[node.outputs[i]] = np.zeros(empty, np.float32)
            parts.append(None)
            continue
        starts, shape = [0] * x.rank, list(x.shape)
        starts[axis], shape[axis] = start, size
        parts.append(cut(b, replace(node, outputs=(node.outputs[i],)), x, starts, shape))
        start += size
    return parts


def gather(b: Importer, node: Node) -> Value:
    """Import Gather."""
    x, indices = b.plain(b.value(node)), b.required(node, 1, "indices")
    axis = axis_of(node, node.attributes.get("axis", 0), x.rank)
    out = pick(b, node, x, axis, indices)
    return b.reshape(out, [*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]])


def pick(b: Importer, node: Node, x: Value, axis: int, indices: np.ndarray) -> Value:
    """Return what `x` has at `indices` of `axis`, in their order."""
    picked = np.where(indices < 0, indices + x.shape[axis], indices).ravel()
    if len(picked) and not 0 <= picked.min() <= picked.max() < x.shape[axis]:
        raise InputError(f"{node} picks beyond the {x.shape[axis]} that there are: the file is damaged")
    shape = [*x.shape[:axis], len(picked), *x.shape[axis + 1 :]]
    if np.array_equal(picked, np.arange(x.shape[axis])):
        return x  # PyTorch writes a view so
    if len(picked) == 1:
        starts = [0] * x.rank
        starts[axis] = int(picked[0])
        return cut(b, node, x, starts, shape)
    out = replace(x, shape=tuple(shape))
    inputs = [x.name, b.add_constant(f"{x.name}_indices", picked.astype(np.int32))]
    options = {"axis": x.axis(axis), "batchDims": 0}
    return replace(out, name=b.emit(node, "GATHER", inputs, out.stored, options, "GatherOptions"))


def moved(b: Importer, node: Node) -> Value:
    """Import what only moves numbers, to places that are known: GatherElements, GatherND, Compress, ReverseSequence.

    The reference implementation moves the places themselves, and one GATHER from the flat numbers does the same.
    """
    x = b.in_order(b.plain(b.value(node)))
    for i in range(1, len(node.inputs)):
        if node.input(i):
            b.required(node, i, "indices")
    size = int(np.prod(x.shape))
    places = b.evaluate(node, {node.inputs[0]: np.arange(size).reshape(x.shape)})[0]
    flat = pick(b, node, b.reshape(x, (size,)), 0, places)
    return b.reshape(flat, places.shape)


def scattered(b: Importer, node: Node) -> Value:
    """Import ScatterElements and ScatterND: numbers put to places that are known, as one GATHER from old and new."""
    if node.attributes.get("reduction", "none") != "none":
        raise InputError(f"{node} has the reduction '{node.attributes['reduction']}'; edgenet handles none")
    b.required(node, 1, "indices")
    old, new = (b.in_order(b.plain(b.value(node, i))) for i in (0, 2))
    sizes = [int(np.prod(v.shape)) for v in (old, new)]
    fed = {
        node.inputs[0]: np.arange(sizes[0]).reshape(old.shape),
        node.inputs[2]: sizes[0] + np.arange(sizes[1]).reshape(new.shape),
    }
    places = b.evaluate(node, fed)[0]
    flat = [b.reshape(v, (n,)) for v, n in zip((old, new), sizes, strict=True)]
    both = _joined(b, node, flat, 0)
    return b.reshape(pick(b, node, both, 0, places), old.shape)


def tile(b: Importer, node: Node) -> Value:
    """Import Tile: an axis joined to itself."""
    x, repeats = b.plain(b.value(node)), [int(n) for n in b.required(node, 1, "repeats")]
    wrong = next((n for n in repeats if not 1 <= n <= MAX_REPEATS), None)
    if wrong is not None:
        raise InputError(f"{node} repeats {wrong} times; edgenet handles 1 to {MAX_REPEATS}")
    for axis, n in enumerate(repeats):
        x = _joined(b, node, [x] * n, axis) if n != 1 else x
    return x


def triangle(b: Importer, node: Node) -> Value:
    """Import Trilu: 0 above or below a diagonal."""
    x = b.plain(b.value(node))
    k = int(np.ravel(b.required(node, 1, "diagonal"))[0]) if node.input(1) else 0
    keep = (np.triu if node.attributes.get("upper", 1) else np.tril)(np.ones(x.shape[-2:], np.float32), k)
    return binary(b, node, "MUL", x, keep)


def depth_to_space(b: Importer, node: Node) -> Value:
    """Import DepthToSpace: channels become squares of pixels."""
    x, size = b.plain(b.value(node)), int(node.attributes["blocksize"])
    n, c, h, w = x.shape
    if c % size**2:
        raise InputError(f"{node} makes squares of {size} of {c} channels: the file is damaged")
    if node.attributes.get("mode", "DCR") == "DCR":
        apart = b.reshape(x, (n, size, size, c // size**2, h, w))
        return b.reshape(turned(apart, (0, 3, 4, 1, 5, 2)), (n, c // size**2, h * size, w * size))
    apart = b.reshape(x, (n, c // size**2, size, size, h, w))
    return b.reshape(turned(apart, (0, 1, 4, 2, 5, 3)), (n, c // size**2, h * size, w * size))


def space_to_depth(b: Importer, node: Node) -> Value:
    """Import SpaceToDepth: squares of pixels become channels."""
    x, size = b.plain(b.value(node)), int(node.attributes["blocksize"])
    n, c, h, w = x.shape
    if h % size or w % size:
        raise InputError(f"{node} cuts {h} x {w} pixels into squares of {size}: the file is damaged")
    apart = b.reshape(x, (n, c, h // size, size, w // size, size))
    order = (0, 3, 5, 1, 2, 4) if node.attributes.get("mode", "DCR") == "DCR" else (0, 1, 3, 5, 2, 4)
    return b.reshape(turned(apart, order), (n, c * size**2, h // size, w // size))


def pad(b: Importer, node: Node) -> Value:
    """Import Pad."""
    x, a = b.plain(b.value(node)), node.attributes
    pads = [int(p) for p in (a["pads"] if b.opset < 11 else b.required(node, 1, "pads"))]
    table = np.zeros((x.rank, 2), np.int64)
    axes = [axis_of(node, int(i), x.rank) for i in b.required(node, 3, "axes")] if node.input(3) else range(x.rank)
    for i, axis in enumerate(axes):
        table[axis] = pads[i], pads[i + len(pads) // 2]
    given = b.required(node, 2, "value") if node.input(2) else np.float32(a.get("value", 0.0))
    value, mode = float(np.ravel(given)[0]) if np.size(given) else 0.0, a.get("mode", "constant")
    if table.min() < 0:  # these cut off
        starts = [max(-int(t[0]), 0) for t in table]
        x = cut(
            b, node, x, starts, [n - s - max(-int(t[1]), 0) for n, s, t in zip(x.shape, starts, table, strict=True)]
        )
        table = np.maximum(table, 0)
    return padded(b, node, x, table, mode, value)


def padded(b: Importer, node: Node, x: Value, table: np.ndarray, mode: str, value: float = 0.0) -> Value:
    """Return `x` with `table` (before, after) an axis around it; mode: one of ONNX's."""
    if mode not in ("constant", "reflect", "edge", "wrap"):
        raise InputError(f"{node} has the mode '{mode}'; edgenet handles constant, reflect, edge and wrap")
    if not table.any():
        return x
    if table.max() > MAX_PAD:
        raise InputError(f"{node} adds {table.max()} to an axis; edgenet handles up to {MAX_PAD}")
    if mode == "constant":
        return _bordered(b, node, x, table, {0.0: "PAD"}.get(value, "PADV2"), value)
    if mode == "reflect" and all(t.max() < n for n, t in zip(x.shape, table, strict=True)):
        return _bordered(b, node, x, table, "MIRROR_PAD", 0)
    if mode == "edge" and table.max() <= MAX_STEPS:  # a mirror of one step has the edge in it
        for step in range(table.max()):
            x = _bordered(b, node, x, (table > step).astype(np.int64), "MIRROR_PAD", 1)
        return x
    kind: Any = mode  # NumPy calls it the same
    for axis, (before, after) in enumerate(table):
        places = np.pad(np.arange(x.shape[axis]), (int(before), int(after)), mode=kind)
        x = pick(b, node, x, axis, places)
    return x


def _bordered(b: Importer, node: Node, x: Value, table: np.ndarray, kind: str, value: float) -> Value:
    """Add PAD, PADV2 with `value`, or MIRROR_PAD of the mode `value`: 0 leaves the edge out, 1 repeats it."""
    out = replace(x, shape=tuple(int(n + t.sum()) for n, t in zip(x.shape, table, strict=True)))
    inputs = [x.name, b.add_constant(f"{x.name}_pads", table[list(x.perm)].astype(np.int32))]
    if kind == "MIRROR_PAD":
        return replace(out, name=b.emit(node, kind, inputs, out.stored, {"mode": int(value)}, "MirrorPadOptions"))
    if kind == "PADV2":
        inputs.append(b.add_constant(f"{x.name}_pad", np.array([value], np.float32)))
    options_type = {"PAD": "PadOptions", "PADV2": "PadV2Options"}[kind]
    return replace(out, name=b.emit(node, kind, inputs, out.stored, {}, options_type))
