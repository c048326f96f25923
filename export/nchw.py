"""From TFLite's layout to the one of ONNX and OpenVINO: the same graph with its pictures as NCHW.

Every activation of rank 4 is stored as NCHW. Weights, shape constants and axes are transposed here, once: a file has a
Transpose only where the network itself reorders numbers. What TFLite leaves implicit becomes explicit: a fused
activation is an operator of its own (or gone, where the output's quantized range clips the same), padding is numbers,
and constant operands that are not data (axes, shapes, paddings) become options. Weights of convolutions are
(out, in / groups, H, W). The operators of the result have these options:

| operators | options |
|---|---|
| CONV_2D, DEPTHWISE_CONV_2D | `pads` (top, left, bottom, right), `strides`, `dilations`, `groups` |
| TRANSPOSE_CONV | `pads`, `strides`, `more` (rows, columns) that no window reaches; weights are (in, out, H, W) |
| GATHER | `axis`, `indices` |
| MAX_POOL_2D, AVERAGE_POOL_2D | `pads`, `strides`, `kernel` |
| MEAN, SUM, REDUCE_MAX, REDUCE_MIN, REDUCE_PROD | `axes`; the axes stay, as ones |
| CONCATENATION, SOFTMAX, LOG_SOFTMAX, SPLIT | `axis` |
| PAD, PADV2, MIRROR_PAD | `before`, `after`, an axis each |
| SLICE | `starts`, `ends`, `steps`, an axis each |
| RESHAPE | `shape` |
| TRANSPOSE | `perm` |
| RESIZE_BILINEAR, RESIZE_NEAREST_NEIGHBOR | `size` (H, W), and TFLite's own |
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from edgenet.errors import InputError
from edgenet.export.graph import FUSED, Activation, Graph, Op, Tensor, Window

TO_NCHW = (0, 3, 1, 2)
TO_NHWC = (0, 2, 3, 1)


def to_nchw(graph: Graph) -> Graph:
    """Return `graph`, float or quantized, with activations of rank 4 as NCHW and the options of the table above.

    Raises:
        InputError: an operator whose layout is not known here, or whose shapes or axes are computed.
    """
    return _Layout(graph).run()


def left_in_float(graph: Graph, kinds: Collection[str]) -> Graph:
    """Return `graph`, int8, with the outputs of `kinds` left unrounded where all that is read of them is real numbers.

    For runtimes whose kernels of these operators take integers and give float32: rounding that to 8 bits and back would
    only lose accuracy. The DEQUANTIZE after the operator is removed.
    """
    consumers, producers = graph.consumers(), graph.producers()
    back = {
        op.inputs[0]: op.outputs[0]
        for op in graph.ops
        if op.kind == "DEQUANTIZE"
        and graph.tensors[str(op.inputs[0])].dtype == "int8"
        and op.inputs[0] in producers
        and graph.ops[producers[op.inputs[0]]].kind in kinds
        and len(consumers[op.inputs[0]]) == 1
        and op.inputs[0] not in graph.outputs
    }
    ops = [
        replace(op, outputs=(back.get(op.outputs[0], op.outputs[0]), *op.outputs[1:]))
        for op in graph.ops
        if not (op.kind == "DEQUANTIZE" and op.inputs[0] in back)
    ]
    return replace(graph, ops=tuple(ops))


def stored(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the shape in which an activation with TFLite's `shape` is stored."""
    return tuple(shape[i] for i in TO_NCHW) if len(shape) == 4 else tuple(shape)


def real_numbers(t: Tensor) -> np.ndarray:
    """Return the real numbers of a constant, float32: the stored ones times their scale, less the zero point."""
    assert t.data is not None
    return t.data.astype(np.float32) if t.quantization is None else t.quantization.real(t.data)


def _keeps_order(shape: Sequence[int], perm: Sequence[int]) -> bool:
    """Whether transposing by `perm` moves no number in memory, because only axes of length 1 move."""
    moved = [i for i in perm if shape[i] != 1]
    return moved == sorted(moved)


class _Layout:
    """Walks the operators in order. `tensors` and `ops` are in the new layout, `old` is the graph as it was."""

    def __init__(self, graph: Graph) -> None:
        self.old = replace(graph, tensors=dict(graph.tensors))
        # A constant that is stored smaller (float16, int8) and dequantized when the file is loaded.
        self.packed = {
            op.outputs[0]: str(op.inputs[0])
            for op in graph.ops
            if op.kind == "DEQUANTIZE" and graph.constant(op.inputs[0]) is not None
        }
        self.tensors = {n: self.moved(n) for n in graph.inputs}
        self.ops: list[Op] = []
        self.consumers = graph.consumers()
        self.padded: dict[
            str, tuple[str, tuple[int, ...]]
        ] = {}  # left to the convolution that reads it: (source, pads)
        self.constants: dict[tuple[str, tuple[int, ...], tuple[int, ...] | None], str] = {}

    def run(self) -> Graph:
        for op in self.old.ops:
            if op.outputs[0] in self.packed:
                continue
            handler = _KINDS.get(op.kind)
            if handler is None:
                raise InputError(
                    f"operator {op.kind} ({op.outputs[0]}) has no form in onnx and openvino: use the format tflite, "
                    f"or a network of {', '.join(sorted(_KINDS))}"
                )
            handler(self, op)
        return replace(self.old, tensors=self.tensors, ops=tuple(self.ops))

    # Values

    def shape(self, name: str | None) -> tuple[int, ...]:
        return self.old.tensors[str(name)].shape

    def is_constant(self, name: str | None) -> bool:
        return name in self.packed or self.old.constant(name) is not None

    def moved(self, name: str) -> Tensor:
        t = self.old.tensors[name]
        return replace(t, shape=stored(t.shape))

    def numbers(self, op: Op, i: int) -> list[int]:
        """Return the numbers of operand `i`, a constant that is not data: an axis, a shape, a padding."""
        data = self.old.constant(op.inputs[i])
        if data is None:
            raise InputError(
                f"{op.kind} ({op.outputs[0]}) computes {op.inputs[i]} while it runs: only fixed shapes have a form here"
            )
        return [int(v) for v in np.ravel(data)]

    def constant(self, name: str, shape: Sequence[int] | None = None, perm: Sequence[int] | None = None) -> str:
        """Add constant `name`, reshaped (only leading ones are added) and then transposed; return its new name."""
        source = self.old.tensors[self.packed.get(name, name)]
        assert source.data is not None
        shape = tuple(source.shape if shape is None else shape)
        key = (name, shape, None if perm is None else tuple(perm))
        if key not in self.constants:
            data = source.data.reshape(shape)
            quantization = source.quantization
            axis = 0 if quantization is None else quantization.axis + len(shape) - source.data.ndim
            if perm is not None:
                data, axis = np.ascontiguousarray(data.transpose(perm)), list(perm).index(axis)
            if quantization is not None and len(quantization.scale) > 1:
                quantization = replace(quantization, axis=axis)
            suffix = "" if name not in self.tensors else f"_{'x'.join(map(str, data.shape))}"
            new = replace(source, name=source.name + suffix, shape=data.shape, data=data, quantization=quantization)
            self.tensors[new.name] = new
            out = new.name
            if name in self.packed:
                out = name + suffix
                self.tensors[out] = replace(self.old.tensors[name], name=out, shape=data.shape)
                self.ops.append(Op("DEQUANTIZE", (new.name,), (out,)))
            self.constants[key] = out
        return self.constants[key]

    def operand(self, name: str | None, rank: int) -> str | None:
        """Return operand `name` of an elementwise operator in the layout of its output, which has `rank` axes."""
        if name is None:
            return None
        shape = self.shape(name)
        wide = (1,) * (rank - len(shape)) + tuple(shape)
        if self.is_constant(name):
            if not shape or int(np.prod(shape)) == 1:
                return self.constant(name, (1,) * len(shape))
            return self.constant(name, wide, TO_NCHW) if rank == 4 else self.constant(name)
        return self.reshaped(name, wide) if rank == 4 and len(shape) < 4 else name

    # Operators

    def emit(
        self, op: Op, inputs: Sequence[str | None], options: Mapping[str, Any] | None = None, kind: str = ""
    ) -> None:
        """Add `op` with its outputs; a fused activation becomes an operator behind it."""
        act = op.activation
        outputs = tuple(op.outputs)
        for name in outputs:
            self.tensors[name] = self.moved(name)
        options = {k: v for k, v in (op.options if options is None else options).items() if k != FUSED}
        kind = kind or op.kind
        if act == Activation.NONE or _clipped_by_range(self.tensors[outputs[0]], act):
            self.ops.append(Op(kind, tuple(inputs), outputs, options))
            return
        before = f"{outputs[0]}_before_{act.name.lower()}"
        self.tensors[before] = replace(self.tensors[outputs[0]], name=before)
        self.ops.append(Op(kind, tuple(inputs), (before,), options))
        self.ops.append(Op(act.name, (before,), outputs))

    def step(self, kind: str, source: str, out: str, shape: Sequence[int], options: dict[str, Any]) -> str:
        """Add an operator that moves numbers of `source` to `out`, of stored `shape`, without changing them."""
        if out not in self.tensors:
            self.tensors[out] = replace(self.tensors[source], name=out, shape=tuple(shape), data=None)
            self.ops.append(Op(kind, (source,), (out,), options))
        return out

    def reshaped(
        self, name: str, shape: Sequence[int], out: str | None = None, source_shape: Sequence[int] | None = None
    ) -> str:
        """Return activation `name` with TFLite's `shape`, in the stored layout of it."""
        before = tuple(self.shape(name) if source_shape is None else source_shape)
        shape = tuple(shape)
        if out is None and before == shape:
            return name
        out = out or f"{name}_{'x'.join(map(str, shape))}"
        if len(before) == 4 and not _keeps_order(stored(before), TO_NHWC):
            name = self.step("TRANSPOSE", name, f"{name}_nhwc", before, {"perm": TO_NHWC})
        if len(shape) == 4 and not _keeps_order(shape, TO_NCHW):
            flat = self.step("RESHAPE", name, f"{out}_nhwc", shape, {"shape": shape})
            return self.step("TRANSPOSE", flat, out, stored(shape), {"perm": TO_NCHW})
        return self.step("RESHAPE", name, out, stored(shape), {"shape": stored(shape)})

    def with_ones(self, op: Op, source: str, shape: Sequence[int], kind: str, options: dict[str, Any]) -> None:
        """Add an operator whose output keeps its axes (TFLite's `shape`), and what drops them where TFLite does."""
        out = op.outputs[0]
        if tuple(shape) == tuple(self.shape(out)):
            self.emit(op, [source], options, kind)
            return
        kept = f"{out}_kept"
        self.tensors[kept] = replace(self.old.tensors[out], name=kept, shape=stored(shape))
        self.ops.append(Op(kind, (source,), (kept,), options))
        self.reshaped(kept, self.shape(out), out, source_shape=shape)


def _clipped_by_range(t: Tensor, activation: Activation) -> bool:
    """Whether the integers of `t` cannot hold what `activation` would cut off."""
    if t.quantization is None or not activation.clips:
        return False
    limits = np.iinfo(t.dtype)
    scale, zero = float(t.quantization.scale[0]), int(t.quantization.zero_point[0])
    low, high = activation.bounds
    half = scale / 2  # what lies nearer than half a step to the limit is rounded onto it
    return (limits.min - zero) * scale >= low - half and (limits.max - zero) * scale <= high + half


def _pads(window: Window, shape: Sequence[int], kernel: Sequence[int]) -> tuple[int, int, int, int]:
    """Return (top, left, bottom, right) for a picture (1, H, W, C)."""
    (top, bottom), (left, right) = window.pads(shape[1:3], kernel)
    return top, left, bottom, right


def _convolution(g: _Layout, op: Op) -> None:
    x, w = str(op.inputs[0]), str(op.inputs[1])
    if not g.is_constant(w):
        raise InputError(f"{op.kind} ({op.outputs[0]}) has weights that are computed: use the format tflite")
    depthwise = op.kind == "DEPTHWISE_CONV_2D"
    source, extra = g.padded.get(x, (x, (0, 0, 0, 0)))
    shape, channels = g.shape(w), g.shape(x)[3]
    window = op.window
    pads = _pads(window, g.shape(x), shape[1:3])
    options = {
        "pads": tuple(a + b for a, b in zip(pads, extra, strict=True)),
        "strides": window.strides,
        "dilations": window.dilations,
        "groups": channels if depthwise else channels // shape[3],
    }
    weights = g.constant(w, perm=(3, 0, 1, 2) if depthwise else TO_NCHW)  # (out, in / groups, H, W)
    bias = [g.constant(b) for b in op.inputs[2:] if b is not None]
    g.emit(op, [source, weights, *bias], options)


def _transposed(g: _Layout, op: Op) -> None:
    w, x, out = str(op.inputs[1]), str(op.inputs[2]), op.outputs[0]
    window, kernel = replace(op.window, dilations=(1, 1)), g.shape(w)[1:3]
    pads, more = [], []
    for i in range(2):
        over = (g.shape(x)[1 + i] - 1) * window.strides[i] + kernel[i] - g.shape(out)[1 + i]
        pads.append((max(over, 0) // 2, max(over, 0) - max(over, 0) // 2))
        more.append(max(-over, 0))
    options = {"pads": (*(p[0] for p in pads), *(p[1] for p in pads)), "strides": window.strides, "more": tuple(more)}
    bias = [g.constant(b) for b in op.inputs[3:] if b is not None]
    g.emit(op, [x, g.constant(w, perm=(3, 0, 1, 2)), *bias], options)


def _gather(g: _Layout, op: Op) -> None:
    rank, indices = len(g.shape(op.inputs[0])), g.old.constant(op.inputs[1])
    if indices is None or indices.ndim != 1 or op.options.get("batchDims"):
        raise InputError(
            f"GATHER ({op.outputs[0]}) by computed or nested places has no form here: use the format tflite"
        )
    axis = _axis(int(op.options["axis"]), rank)
    g.emit(op, [op.inputs[0]], {"axis": axis, "indices": tuple(int(i) for i in indices)})


def _dense(g: _Layout, op: Op) -> None:
    x, w = str(op.inputs[0]), str(op.inputs[1])
    out, n_in, shape = op.outputs[0], g.shape(w)[1], g.shape(op.inputs[0])
    rows = int(np.prod(shape)) // n_in
    flat = g.reshaped(x, (rows, n_in))
    operands = [
        flat,
        g.constant(w) if g.is_constant(w) else w,
        *(g.constant(b) for b in op.inputs[2:] if b is not None),
    ]
    if len(g.shape(out)) == 2:
        g.emit(op, operands, {})
        return
    flat_out, n_out = f"{out}_rows", g.shape(w)[0]
    g.old.tensors[flat_out] = replace(g.old.tensors[out], name=flat_out, shape=(rows, n_out))
    g.emit(replace(op, outputs=(flat_out,)), operands, {})
    g.reshaped(flat_out, g.shape(out), out)


def _elementwise(g: _Layout, op: Op) -> None:
    rank = len(g.shape(op.outputs[0]))
    g.emit(op, [g.operand(n, rank) for n in op.inputs])


def _pool(g: _Layout, op: Op) -> None:
    kernel = (op.options["filterHeight"], op.options["filterWidth"])
    pads = _pads(op.window, g.shape(op.inputs[0]), kernel)
    g.emit(op, [op.inputs[0]], {"kernel": kernel, "strides": op.window.strides, "pads": pads})


def _axis(axis: int, rank: int) -> int:
    """Return where an axis of TFLite's is stored."""
    axis %= rank
    return TO_NCHW.index(axis) if rank == 4 else axis


def _reduction(g: _Layout, op: Op) -> None:
    shape = g.shape(op.inputs[0])
    axes = sorted({a % len(shape) for a in g.numbers(op, 1)})
    kept = tuple(1 if i in axes else n for i, n in enumerate(shape))
    g.with_ones(op, str(op.inputs[0]), kept, op.kind, {"axes": tuple(sorted(_axis(a, len(shape)) for a in axes))})


def _reshape(g: _Layout, op: Op) -> None:
    g.reshaped(str(op.inputs[0]), g.shape(op.outputs[0]), op.outputs[0])


def _transpose(g: _Layout, op: Op) -> None:
    perm, out = g.numbers(op, 1), op.outputs[0]
    if len(perm) == 4:
        perm = [_axis(perm[i], 4) for i in TO_NCHW]
    source = g.tensors[str(op.inputs[0])].shape
    shape = stored(g.shape(out))
    if _keeps_order(source, perm):
        g.step("RESHAPE", str(op.inputs[0]), out, shape, {"shape": shape})
    else:
        g.step("TRANSPOSE", str(op.inputs[0]), out, shape, {"perm": tuple(perm)})


def _concatenation(g: _Layout, op: Op) -> None:
    rank = len(g.shape(op.outputs[0]))
    inputs = [g.operand(n, rank) for n in op.inputs]
    g.emit(op, inputs, {"axis": _axis(op.options["axis"], rank)})


def _pack(g: _Layout, op: Op) -> None:
    shape = list(g.shape(op.outputs[0]))
    axis = op.options["axis"] % len(shape)
    shape[axis] = 1
    inputs = []
    for name in op.inputs:
        assert name is not None
        perm = TO_NCHW if len(shape) == 4 else None
        inputs.append(g.constant(name, shape, perm) if g.is_constant(name) else g.reshaped(name, shape))
    g.emit(op, inputs, {"axis": _axis(axis, len(shape))}, "CONCATENATION")


def _pad(g: _Layout, op: Op) -> None:
    pads = np.array(g.numbers(op, 1)).reshape(-1, 2)
    out = op.outputs[0]
    readers = [g.old.ops[i].kind for i in g.consumers[out]]
    convolved = set(readers) in ({"CONV_2D"}, {"DEPTHWISE_CONV_2D"}, {"CONV_2D", "DEPTHWISE_CONV_2D"})
    if op.kind == "PAD" and convolved and not pads[[0, 3]].any() and out not in g.old.outputs:
        g.padded[out] = (str(op.inputs[0]), (int(pads[1, 0]), int(pads[2, 0]), int(pads[1, 1]), int(pads[2, 1])))
        return
    if len(pads) == 4:
        pads = pads[list(TO_NCHW)]
    options = {"before": tuple(int(p) for p in pads[:, 0]), "after": tuple(int(p) for p in pads[:, 1])}
    if op.kind == "MIRROR_PAD":
        options["mode"] = op.options["mode"]
    value = [g.constant(str(op.inputs[2]), ())] if op.kind == "PADV2" else []
    g.emit(op, [op.inputs[0], *value], options, "PAD" if op.kind == "PADV2" else op.kind)


def _softmax(g: _Layout, op: Op) -> None:
    g.emit(op, op.inputs, {"axis": _axis(-1, len(g.shape(op.inputs[0]))), "beta": op.options.get("beta", 1.0)})


def _split(g: _Layout, op: Op) -> None:
    g.emit(op, [op.inputs[1]], {"axis": _axis(g.numbers(op, 0)[0], len(g.shape(op.inputs[1])))})


def _slice(g: _Layout, op: Op) -> None:
    shape = g.shape(op.inputs[0])
    starts, sizes = g.numbers(op, 1), g.numbers(op, 2)
    ends = [n if size < 0 else start + size for n, start, size in zip(shape, starts, sizes, strict=True)]
    kept = [end - start for start, end in zip(starts, ends, strict=True)]
    _cut(g, op, starts, ends, [1] * len(shape), kept)


def _strided_slice(g: _Layout, op: Op) -> None:
    shape, o = g.shape(op.inputs[0]), op.options
    if o.get("ellipsisMask") or o.get("newAxisMask"):
        raise InputError(
            f"STRIDED_SLICE ({op.outputs[0]}) with an ellipsis or a new axis has no form here: use the format tflite"
        )
    given = [g.numbers(op, i) for i in (1, 2, 3)]
    starts, ends, steps, kept = [], [], [], []
    for i, n in enumerate(shape):
        begin, end, step = (v[i] for v in given) if i < len(given[0]) else (0, n, 1)
        if step < 0:
            raise InputError(
                f"STRIDED_SLICE ({op.outputs[0]}) with a negative step has no form here: use the format tflite"
            )
        if (o.get("shrinkAxisMask", 0) >> i) & 1:
            begin = begin % n
            end, step = begin + 1, 1
        else:
            begin, end, step = slice(
                None if (o.get("beginMask", 0) >> i) & 1 else begin,
                None if (o.get("endMask", 0) >> i) & 1 else end,
                step,
            ).indices(n)
        starts.append(begin)
        ends.append(end)
        steps.append(step)
        kept.append(len(range(begin, end, step)))
    _cut(g, op, starts, ends, steps, kept)


def _cut(g: _Layout, op: Op, starts: list[int], ends: list[int], steps: list[int], kept: list[int]) -> None:
    options = {"starts": stored(starts), "ends": stored(ends), "steps": stored(steps)}
    g.with_ones(op, str(op.inputs[0]), kept, "SLICE", options)


def _resize(g: _Layout, op: Op) -> None:
    g.emit(op, [op.inputs[0]], {**op.options, "size": tuple(g.numbers(op, 1))})


def _batch_matmul(g: _Layout, op: Op) -> None:
    """The last two axes are the matrices: pictures of rank 4 go back to TFLite's layout for it."""
    out, inputs = op.outputs[0], []
    for name in op.inputs:
        assert name is not None
        if g.is_constant(name):
            inputs.append(g.constant(name))
        elif len(g.shape(name)) == 4:
            inputs.append(g.step("TRANSPOSE", name, f"{name}_nhwc", g.shape(name), {"perm": TO_NHWC}))
        else:
            inputs.append(name)
    if len(g.shape(out)) != 4:
        g.emit(op, inputs)
        return
    rows = f"{out}_nhwc"
    g.tensors[rows] = replace(g.old.tensors[out], name=rows)
    g.ops.append(Op(op.kind, tuple(inputs), (rows,), dict(op.options)))
    g.step("TRANSPOSE", rows, out, stored(g.shape(out)), {"perm": TO_NCHW})


ELEMENTWISE = (
    "ABS", "ADD", "CAST", "CEIL", "COS", "DEQUANTIZE", "DIV", "ELU", "EQUAL", "EXP", "FLOOR", "FLOOR_MOD", "GELU",
    "GREATER", "GREATER_EQUAL", "HARD_SWISH", "LEAKY_RELU", "LESS", "LESS_EQUAL", "LOCAL_RESPONSE_NORMALIZATION", "LOG",
    "LOGISTIC", "MAXIMUM", "MINIMUM", "MUL", "NEG", "NOT_EQUAL", "POW", "PRELU", "QUANTIZE", "RELU", "RELU6",
    "RELU_N1_TO_1", "ROUND", "RSQRT", "SELECT_V2", "SIGN", "SIN", "SQRT", "SQUARE", "SQUARED_DIFFERENCE", "SUB", "TANH",
)  # fmt: skip
_KINDS: dict[str, Callable[[_Layout, Op], None]] = {
    **dict.fromkeys(ELEMENTWISE, _elementwise),
    **dict.fromkeys(("CONV_2D", "DEPTHWISE_CONV_2D"), _convolution),
    **dict.fromkeys(("MAX_POOL_2D", "AVERAGE_POOL_2D"), _pool),
    **dict.fromkeys(("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD"), _reduction),
    **dict.fromkeys(("RESHAPE", "SQUEEZE", "EXPAND_DIMS"), _reshape),
    **dict.fromkeys(("PAD", "PADV2", "MIRROR_PAD"), _pad),
    **dict.fromkeys(("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"), _resize),
    "FULLY_CONNECTED": _dense,
    "TRANSPOSE": _transpose,
    "CONCATENATION": _concatenation,
    "PACK": _pack,
    **dict.fromkeys(("SOFTMAX", "LOG_SOFTMAX"), _softmax),
    "TRANSPOSE_CONV": _transposed,
    "GATHER": _gather,
    "SPLIT": _split,
    "SLICE": _slice,
    "STRIDED_SLICE": _strided_slice,
    "BATCH_MATMUL": _batch_matmul,
}
