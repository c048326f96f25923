"""ONNX operators that move, pick or sum up numbers along axes, in TFLite's terms."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from edgenet.errors import InputError
from edgenet.export.graph import fused
from edgenet.export.importers.onnx_graph import Handler, Importer, Node, Value


def reduce(b: Importer, node: Node, kind: str, x: Value, axes: Sequence[int], keep: bool) -> Value:
    """Reduce `x` over `axes`, which are ONNX's."""
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


def _axes(b: Importer, node: Node, x: Value | None = None) -> list[int]:
    if node.input(1):
        return [int(a) for a in np.ravel(b.required(node, 1, "axes"))]
    return [int(a) for a in node.attributes.get("axes", ())]


def reduction(kind: str) -> Handler:
    """Return the handler of ReduceMean, ReduceSum or ReduceMax."""

    def handle(b: Importer, node: Node) -> Value:
        axes, x = _axes(b, node), b.value(node)
        if not axes and node.attributes.get("noop_with_empty_axes", 0):
            return x
        return reduce(b, node, kind, x, axes, bool(node.attributes.get("keepdims", 1)))

    return handle


def l2_norm(b: Importer, node: Node) -> Value:
    """Import ReduceL2."""
    squares = b.same(node, "SQUARE", b.plain(b.value(node)))
    total = reduce(b, node, "SUM", squares, _axes(b, node), bool(node.attributes.get("keepdims", 1)))
    return b.same(node, "SQRT", total)


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
    axes = [a % x.rank for a in _axes(b, node)] or [i for i, n in enumerate(x.shape) if n == 1]
    return b.reshape(x, [n for i, n in enumerate(x.shape) if i not in axes])


def unsqueeze(b: Importer, node: Node) -> Value:
    """Import Unsqueeze."""
    x, axes = b.value(node), _axes(b, node)
    rank = x.rank + len(axes)
    places, left = {a % rank for a in axes}, list(x.shape)
    return b.reshape(x, [1 if i in places else left.pop(0) for i in range(rank)])


def transpose(b: Importer, node: Node) -> Value:
    """Import Transpose."""
    x = b.plain(b.value(node))
    order = list(node.attributes.get("perm", reversed(range(x.rank))))
    return Value(x.name, tuple(x.shape[i] for i in order), tuple(order.index(i) for i in x.perm))


def concat(b: Importer, node: Node) -> Value:
    """Import Concat."""
    values = [b.plain(b.value(node, i)) for i in range(len(node.inputs))]
    lead = next((v for i, v in enumerate(values) if b.constant(node, i) is None), values[0])
    values = [b.turn(v, lead.perm) for v in values]
    axis = node.attributes["axis"] % lead.rank
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


def split(b: Importer, node: Node) -> list[Value]:
    """Import Split."""
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


def gather(b: Importer, node: Node) -> Value:
    """Import Gather."""
    x, indices = b.plain(b.value(node)), b.required(node, 1, "indices")
    axis = node.attributes.get("axis", 0) % x.rank
    picked = np.where(indices < 0, indices + x.shape[axis], indices).ravel()
    shape = [*x.shape[:axis], len(picked), *x.shape[axis + 1 :]]
    if len(picked) == 1:
        starts = [0] * x.rank
        starts[axis] = int(picked[0])
        out = cut(b, node, x, starts, shape)
    elif np.array_equal(picked, np.arange(x.shape[axis])):
        out = x  # PyTorch writes a view so
    else:
        out = replace(x, shape=tuple(shape))
        inputs = [x.name, b.add_constant(f"{x.name}_indices", picked.astype(np.int32))]
        options = {"axis": x.axis(axis), "batchDims": 0}
        out = replace(out, name=b.emit(node, "GATHER", inputs, out.stored, options, "GatherOptions"))
    return b.reshape(out, [*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]])


def pad(b: Importer, node: Node) -> Value:
    """Import Pad."""
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


def resize(b: Importer, node: Node) -> Value:
    """Import Resize."""
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
