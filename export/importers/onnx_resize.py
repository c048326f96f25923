"""ONNX's Resize in TFLite's terms.

TFLite's own two operators are taken where they read the same pixels at the same places. All else that a Resize may do
is linear, an axis at a time: a nearest pixel is one GATHER, a mixture of pixels (cubic, antialiased, from a scale
that is not the ratio of the sizes) one small dense layer. Their numbers come from ONNX's reference implementation.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from edgenet.errors import InputError
from edgenet.export.importers.onnx_graph import NHWC, Importer, Node, Value, axis_of
from edgenet.export.importers.onnx_layers import dense
from edgenet.export.importers.onnx_shapes import pick, turned

MAX_SIDE = 2**14


def resize(b: Importer, node: Node) -> Value:
    """Import Resize and Upsample."""
    x, a = b.plain(b.value(node)), node.attributes
    old = node.kind == "Upsample" or b.opset < 11  # (x, scales), asymmetric
    if a.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise InputError(f"{node} asks for an aspect ratio, which edgenet does not handle")
    where = "asymmetric" if old else a.get("coordinate_transformation_mode", "half_pixel")
    if where == "tf_crop_and_resize":
        raise InputError(f"{node} crops too ({where}), which edgenet does not handle")
    axes = [axis_of(node, int(i), x.rank) for i in a.get("axes", range(x.rank))]
    sizes = None if old or not node.input(3) else [int(n) for n in b.required(node, 3, "size")]
    if sizes is None:
        given = a["scales"] if "scales" in a else b.required(node, 1 if old else 2, "scales")
        scales = [float(s) for s in np.ravel(given)]
        new = {axis: int(np.floor(x.shape[axis] * s)) for axis, s in zip(axes, scales, strict=True)}
    else:
        scales = [n / x.shape[axis] for axis, n in zip(axes, sizes, strict=True)]
        new = dict(zip(axes, sizes, strict=True))
    new = {axis: n for axis, n in new.items() if (n, scales[axes.index(axis)]) != (x.shape[axis], 1.0)}
    if max(new.values(), default=0) > MAX_SIDE:
        raise InputError(f"{node} makes a side of {max(new.values())}; edgenet handles up to {MAX_SIDE}")
    mode = a.get("mode", "nearest")
    matrices = {
        axis: _weights(b, node, where, x.shape[axis], n, None if sizes is not None else scales[axes.index(axis)])
        for axis, n in new.items()
    }
    flags = _native(mode, x, matrices)
    if flags is not None:
        return _own(b, node, x, mode, new, flags)
    for axis, matrix in matrices.items():
        x = _along(b, node, x, axis, matrix)
    return x


def _weights(b: Importer, node: Node, where: str, size: int, new: int, scale: float | None) -> np.ndarray:
    """Return (new, size): how much of each pixel of an axis is in each of the new ones."""
    a = {k: v for k, v in node.attributes.items() if k not in ("axes", "scales", "keep_aspect_ratio_policy")}
    a = {**a, "coordinate_transformation_mode": where}
    if node.kind == "Upsample" or b.opset < 11:
        a["nearest_mode"] = "floor"
    names = ("pixels", "", "scales", "") if scale is not None else ("pixels", "", "", "sizes")
    fed: dict[str, np.ndarray] = {
        "pixels": np.eye(size, dtype=np.float32),
        "scales": np.array([1.0, scale or 1.0], np.float32),
        "sizes": np.array([size, new], np.int64),
    }
    alone = replace(node, kind="Resize", inputs=names, outputs=("mixed",), attributes=a)
    return np.asarray(b.evaluate(alone, fed, opset=19)[0], np.float32).T


def _native(mode: str, x: Value, matrices: Mapping[int, np.ndarray]) -> dict[str, bool] | None:
    """Return the flags with which TFLite's operator does the same to a picture, None where it does not."""
    if x.rank != 4 or not matrices or not set(matrices) <= {2, 3} or mode not in ("nearest", "linear"):
        return None
    for aligned, half in ((False, False), (True, False), (False, True)):
        if all(
            np.allclose(m, _tflite(mode, m.shape[0], m.shape[1], aligned, half), atol=1e-5) for m in matrices.values()
        ):
            return {"alignCorners": aligned, "halfPixelCenters": half}
    return None


def _tflite(mode: str, new: int, size: int, aligned: bool, half: bool) -> np.ndarray:
    """Return the `_weights` of TFLite's operators: reference_ops/resize_bilinear.h, resize_nearest_neighbor.h."""
    scale = np.float32((size - 1) / (new - 1) if aligned and new > 1 else size / new)
    at = np.arange(new, dtype=np.float32)
    out = np.zeros((new, size), np.float32)
    if mode == "nearest":
        places = (at + np.float32(0.5)) * scale if half else at * scale
        whole = np.floor(places + np.float32(0.5)) if aligned else np.floor(places)
        out[np.arange(new), np.clip(whole.astype(int), 0, size - 1)] = 1
        return out
    places = (at + np.float32(0.5)) * scale - np.float32(0.5) if half else at * scale
    low = np.floor(places).astype(int)
    part = places - low
    np.add.at(out, (np.arange(new), np.clip(low, 0, size - 1)), 1 - part)
    np.add.at(out, (np.arange(new), np.clip(low + 1, 0, size - 1)), part)
    return out


def _own(b: Importer, node: Node, x: Value, mode: str, new: Mapping[int, int], flags: dict[str, bool]) -> Value:
    x = b.turn(x, NHWC)
    out = replace(x, shape=tuple(new.get(i, n) for i, n in enumerate(x.shape)))
    kind, options_type = {
        "nearest": ("RESIZE_NEAREST_NEIGHBOR", "ResizeNearestNeighborOptions"),
        "linear": ("RESIZE_BILINEAR", "ResizeBilinearOptions"),
    }[mode]
    options: dict[str, Any] = dict(flags)
    inputs = [x.name, b.add_constant(f"{x.name}_size", np.array(out.shape[2:], np.int32))]
    return replace(out, name=b.emit(node, kind, inputs, out.stored, options, options_type, version=3))


def _along(b: Importer, node: Node, x: Value, axis: int, matrix: np.ndarray) -> Value:
    """Return `x` with each row of `axis` multiplied by `matrix`, (new, size)."""
    if np.array_equal(matrix, (matrix == 1)) and np.all(matrix.sum(1) == 1):
        return pick(b, node, x, axis, matrix.argmax(1))
    order = [*(i for i in range(x.rank) if i != axis), axis]
    out = dense(b, node, turned(x, order), matrix.T, None)
    return turned(out, [order.index(i) for i in range(x.rank)])
