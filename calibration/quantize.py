"""From a float graph and calibrated ranges to a quantized graph; every format is written from the result.

The scheme is TFLite's: https://ai.google.dev/edge/litert/conversion/tensorflow/quantization/quantization_spec.
Weights are symmetric, one scale per output channel; int8 activations are asymmetric, int16 ones symmetric; a bias has
the scale of input times weight. Any operator may stay in another precision: conversions are put where precisions meet.
"""

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, replace

import numpy as np

from edgenet.errors import InputError
from edgenet.export.graph import WEIGHT_AXIS, Graph, Op, Quantization, Tensor, along_axis
from edgenet.options import PRECISIONS
from edgenet.results import Calibration
from edgenet.targets import PAIR_LIMIT

# The output has the scale of the input, because the kernel only moves or picks numbers (or averages a few).
SAME_SCALE = {
    "RESHAPE", "SQUEEZE", "EXPAND_DIMS", "TRANSPOSE", "MAX_POOL_2D", "AVERAGE_POOL_2D", "PAD", "PADV2", "MIRROR_PAD",
    "SLICE", "STRIDED_SLICE", "SPLIT", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "GATHER",
}  # fmt: skip
# All inputs and the output have one scale: inputs with another are requantized first.
ONE_SCALE = {"CONCATENATION", "MAXIMUM", "MINIMUM", "PACK"}
# The kernel demands this scale and zero point: kind -> (int8, int16).
FIXED_OUTPUT = {
    "SOFTMAX": (Quantization.per_tensor(1 / 256, -128), Quantization.per_tensor(1 / 32768)),
    "LOGISTIC": (Quantization.per_tensor(1 / 256, -128), Quantization.per_tensor(1 / 32768)),
    "TANH": (Quantization.per_tensor(1 / 128), Quantization.per_tensor(1 / 32768)),
}
FREE = {
    "ADD", "SUB", "MUL", "MEAN", "SUM", "RELU", "RELU6", "RELU_N1_TO_1", "LEAKY_RELU", "PRELU", "HARD_SWISH", "GELU",
}  # fmt: skip
# Operators whose result is only as exact as an input near zero: (kind, index of that input).
DIVIDES = {("DIV", 1), ("RSQRT", 0), ("SQRT", 0), ("LOG", 0)}
SUMS = {"ADD", "SUM", "MEAN", "MAXIMUM", "RESHAPE"}  # through these it is traced to the operator that makes it
INT8_KINDS = set(WEIGHT_AXIS) | SAME_SCALE | ONE_SCALE | set(FIXED_OUTPUT) | FREE
# No integer kernel of these takes int16 activations.
INT16_KINDS = INT8_KINDS - {"HARD_SWISH", "PRELU", "GELU", "RELU_N1_TO_1", "GATHER", "MIRROR_PAD", "SPLIT"}

INTEGER = {"int8": (-128, 127), "int16": (-32768, 32767), "uint8": (0, 255)}
# Precisions of single operators that do not round their weights, or hardly.
UNROUNDED = ("float32", "float16")
NEEDS_CALIBRATION = ("int8", "int16x8", "int4")
ACTIVATIONS = {"int8": "int8", "int16x8": "int16", "int4": "int8"}  # of the precisions that need it
FEW_BITS = 4  # of the weights of int4 files that have fewer than 8
# The converter's own threshold: smaller weights are not worth a hybrid kernel.
MIN_HYBRID_ELEMENTS = 1024


@dataclass(frozen=True)
class Weight:
    """Integers of one operator's weights, in the layout of the float ones, and the bias that goes with them."""

    values: np.ndarray  # int8
    scale: np.ndarray  # (C,) float32; one number where the weights have one scale
    axis: int
    bias: np.ndarray | None = None  # (C,) float32; None leaves the float graph's
    bits: int = 8

    @property
    def quantization(self) -> Quantization:
        return Quantization(self.scale, np.zeros(len(self.scale), np.int64), self.axis)


def affine(low: float, high: float, dtype: str) -> Quantization:
    """Return scale and zero point that cover [low, high] and zero; symmetric for int16.

    Zero is exact, so that padding is; the range is widened to include it.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    qmin, qmax = INTEGER[dtype]
    if dtype == "int16":
        return Quantization.per_tensor(max(-low, high, 1e-8) / qmax)
    scale = max(high - low, 1e-8) / (qmax - qmin)
    return Quantization.per_tensor(scale, int(np.clip(round(qmin - low / scale), qmin, qmax)))


def quantize_array(x: np.ndarray, q: Quantization, dtype: str) -> np.ndarray:
    """Return the stored integers of real numbers `x`, rounded half to even and clipped to the type."""
    scale, zero = q.broadcast(x.ndim)
    qmin, qmax = INTEGER[dtype]
    return np.clip(np.rint(x / scale.astype(np.float64)) + zero, qmin, qmax).astype(dtype)


def held_exactly(x: np.ndarray) -> np.ndarray:
    """Return the numbers nearest to `x`, positive ones, that an int8 constant of all of them holds exactly."""
    step = float(x.max()) / 255
    held: np.ndarray = np.maximum(np.rint(x / step), 4) * step
    return held


def weight_scale(w: np.ndarray, axis: int, bits: int = 8, per_channel: bool = True) -> np.ndarray:
    """Return the symmetric scale(s) of weights, (C,) or (1,) float32: the largest number meets the largest integer."""
    peak = np.abs(w).max(axis=tuple(i for i in range(w.ndim) if i != axis)) if per_channel else np.abs(w).max()[None]
    return np.maximum(peak / (2 ** (bits - 1) - 1), 1e-10).astype(np.float32)


def adds_in_pairs(kind: str, shape: tuple[int, ...]) -> bool:
    """Whether a kernel adds the products of a layer's neighbours, inputs 2i and 2i + 1 of one tap, first.

    `shape`: of the weights. x86's kernels pack the inputs of convolutions and dense layers by four. Where their number
    is odd, and in depthwise layers, it is not known which products are added first.
    """
    return kind in ("CONV_2D", "FULLY_CONNECTED") and shape[-1] % 2 == 0


def pair_scale(w: np.ndarray) -> np.ndarray:
    """Return the scales, (C,) float32, of rows (C, T) whose pairs share PAIR_LIMIT.

    The largest pair is one short of it: both may be rounded up.
    """
    pairs = np.abs(w).reshape(len(w), -1, 2).sum(-1).max(-1)
    return np.maximum(np.maximum(pairs / (PAIR_LIMIT - 1), np.abs(w).max(-1) / 127), 1e-10).astype(np.float32)


def share_pairs(q: np.ndarray) -> np.ndarray:
    """Return rounded weights, (..., T): the second of each pair is clipped to what the first leaves of PAIR_LIMIT."""
    out, room = q.copy(), PAIR_LIMIT - np.abs(q[..., ::2])
    out[..., 1::2] = np.clip(q[..., 1::2], -room, room)
    return out


def layer_bits(graph: Graph, most: int = 8) -> dict[str, int]:
    """Return the bits of each operator's weights in an int4 file, by its output.

    Pointwise (1 x 1) convolutions and dense layers have FEW_BITS: they are nearly all of the weights. Others keep
    `most`, and so does the first layer, whose errors all others see.
    """
    bits: dict[str, int] = {}
    for op in graph.ops:
        w = constant_weights(graph, op)
        if w is not None:
            few = op.kind == "FULLY_CONNECTED" or (op.kind == "CONV_2D" and w.shape[1:3] == (1, 1))
            bits[op.outputs[0]] = min(FEW_BITS, most) if few and bits else most
    return bits


def round_weights(
    graph: Graph, bits: int | Mapping[str, int] = 8, per_channel: bool = True, skip: Container[str] = ()
) -> dict[str, Weight]:
    """Return the weights rounded to the nearest integer, by the name of the operator's output, without `skip`.

    bits: of all weights, or by the name of the operator's output, 8 for those that it leaves out.
    """
    weights = {}
    for op in graph.ops:
        w = constant_weights(graph, op)
        if w is not None and op.outputs[0] not in skip:
            axis = WEIGHT_AXIS[op.kind]
            own = bits.get(op.outputs[0], 8) if isinstance(bits, Mapping) else bits
            scale = weight_scale(w, axis, own, per_channel)
            q = Quantization(scale, np.zeros(len(scale), np.int64), axis)
            weights[op.outputs[0]] = Weight(quantize_array(w, q, "int8"), scale, axis, bits=own)
    return weights


def constant_weights(graph: Graph, op: Op) -> np.ndarray | None:
    """Return the float weights of `op`, None where it has none or they are computed."""
    return graph.constant(op.inputs[1]) if op.kind in WEIGHT_AXIS else None


def quantize(
    graph: Graph,
    precision: str,
    calibration: Calibration | None = None,
    *,
    weights: Mapping[str, Weight] | None = None,
    exceptions: Mapping[str, str] | None = None,
) -> Graph:
    """Return `graph` in `precision`, with float input and output.

    Args:
        graph: float operators.
        precision: one of PRECISIONS.
        calibration: ranges of every activation; int8, int16x8 and int4 need it.
        weights: the integers to use, by the name of the operator's output; rounded to the nearest by default.
        exceptions: the precision of single operators, by the name of their output: "int8", "int16", "float32", or two
            that compute in float: "weight-only" with the integers of its weights, "float16" with weights in float16.

    Raises:
        InputError: unknown precision, or one that needs a calibration came without.
    """
    if precision not in PRECISIONS:
        raise InputError(f"unknown precision '{precision}' (valid: {', '.join(PRECISIONS)})")
    if precision == "float32":
        return graph
    if precision == "float16":
        return _with_stored_weights(graph, lambda t, _: _half(t) if t.dtype == "float32" else None)
    bits = layer_bits(graph) if precision == "int4" else 8
    weights = {**round_weights(graph, bits, skip=weights or {}), **(weights or {})}
    if precision == "weight-only":
        graph = _with_corrected_biases(graph, weights)
        return _with_stored_weights(graph, lambda t, w: None if w is None else _int8_constant(t, w), weights)
    if precision == "dynamic":
        return _dynamic(_with_corrected_biases(graph, weights), weights)
    if calibration is None:
        raise InputError(f"precision {precision} needs images to calibrate with: give --images DIR (or sample)")
    return _Quantizer(graph, calibration, weights, ACTIVATIONS[precision], exceptions or {}).run()


def _half(t: Tensor) -> Tensor:
    assert t.data is not None
    limit = np.finfo(np.float16).max
    return replace(t, name=f"{t.name}_float16", dtype="float16", data=np.clip(t.data, -limit, limit).astype(np.float16))


def _int8_constant(t: Tensor, w: Weight) -> Tensor:
    return replace(t, name=f"{t.name}_int8", dtype="int8", data=w.values, quantization=w.quantization)


def _with_stored_weights(
    graph: Graph, store: Callable[[Tensor, Weight | None], Tensor | None], weights: Mapping[str, Weight] | None = None
) -> Graph:
    """Keep constants in a smaller type and dequantize them once, when the file is loaded."""
    tensors, ops, done = dict(graph.tensors), [], set[str]()
    for op in graph.ops:
        for i, name in enumerate(op.inputs):
            if name is None or name in done or graph.tensors[name].data is None:
                continue
            w = (weights or {}).get(op.outputs[0]) if i == 1 else None
            stored = store(graph.tensors[name], w)
            if stored is not None:
                done.add(name)
                tensors[stored.name] = stored
                tensors[name] = replace(graph.tensors[name], data=None)
                ops.append(Op("DEQUANTIZE", (stored.name,), (name,), options_type="DequantizeOptions"))
    return replace(graph, tensors=tensors, ops=(*ops, *graph.ops))


def _with_corrected_biases(graph: Graph, weights: Mapping[str, Weight]) -> Graph:
    tensors, ops = dict(graph.tensors), []
    for op in graph.ops:
        w = weights.get(op.outputs[0])
        if w is not None and w.bias is not None and len(op.inputs) > 2 and op.inputs[2] is not None:
            bias = replace(tensors[op.inputs[2]], name=f"{op.outputs[0]}_bias", data=w.bias)
            tensors[bias.name] = bias
            op = replace(op, inputs=(*op.inputs[:2], bias.name))
        ops.append(op)
    return replace(graph, tensors=tensors, ops=tuple(ops))


def _dynamic(graph: Graph, weights: Mapping[str, Weight]) -> Graph:
    """int8 weights, float activations quantized as they come by the kernel."""
    tensors, ops = dict(graph.tensors), []
    for op in graph.ops:
        w = weights.get(op.outputs[0])
        if w is not None and w.values.size >= MIN_HYBRID_ELEMENTS:
            t = _int8_constant(graph.tensors[str(op.inputs[1])], w)
            tensors[t.name] = t
            options = dict(op.options)
            if "asymmetricQuantizeInputs" in options:
                options["asymmetricQuantizeInputs"] = True
            op = replace(op, inputs=(op.inputs[0], t.name, *op.inputs[2:]), options=options)
        ops.append(op)
    return replace(graph, tensors=tensors, ops=tuple(ops))


def normalising(graph: Graph) -> set[str]:
    """Return the activations that stay in float: divisors, and what was just divided.

    Steps of equal size are useless there: the variance of a normalisation is often less than one step, and would become
    0; its reciprocal is as uneven.
    """
    made_by = {n: op for op in graph.ops for n in op.outputs}
    scaled = {
        op.outputs[0]
        for op in graph.ops
        if op.kind == "MUL" and any(n in made_by and made_by[n].kind == "RSQRT" for n in op.inputs)
    }
    found = set[str]()
    ahead = [str(op.inputs[i]) for op in graph.ops for kind, i in DIVIDES if op.kind == kind]
    while ahead:
        name = ahead.pop()
        if name in made_by and name not in found:
            found.add(name)
            if made_by[name].kind in SUMS:
                ahead += [str(n) for n in made_by[name].inputs]
    return found | scaled


class _Quantizer:
    """Walks the operators in order; each tensor may exist in several types, made when first asked for."""

    def __init__(
        self,
        graph: Graph,
        calibration: Calibration,
        weights: Mapping[str, Weight],
        dtype: str,
        exceptions: Mapping[str, str],
    ) -> None:
        self.graph, self.calibration, self.weights = graph, calibration, weights
        self.dtype, self.exceptions, self.normalising = dtype, exceptions, normalising(graph)
        self.tensors = {n: t for n, t in graph.tensors.items() if t.data is not None or n in graph.inputs}
        self.ops: list[Op] = []
        self.made: dict[tuple[str, str], str] = {(n, graph.tensors[n].dtype): n for n in graph.inputs}
        self.home: dict[str, str] = {n: graph.tensors[n].dtype for n in graph.inputs}
        self.scales: dict[tuple[str, str], Quantization] = {}

    def run(self) -> Graph:
        for op in self.graph.ops:
            dtype = self.dtype_of(op)
            if dtype == "float32":
                self.keep(op)
            else:
                self.integer(op, dtype)
        outputs = tuple(self.fetch(n, "float32") for n in self.graph.outputs)
        return Graph(self.graph.name, self.tensors, tuple(self.ops), self.graph.inputs, outputs)

    def dtype_of(self, op: Op) -> str:
        asked = self.exceptions.get(op.outputs[0], self.dtype)
        if self.graph.tensors[op.outputs[0]].dtype != "float32" or op.outputs[0] not in self.calibration.ranges:
            return "float32"
        if op.outputs[0] in self.normalising:
            return "float32"
        # The softmax or sigmoid of the output stays in float: 8 bits have ties, and a thousand numbers cost nothing.
        if op.kind in ("SOFTMAX", "LOGISTIC") and op.outputs[0] in self.graph.outputs:
            return "float32"
        if op.kind in WEIGHT_AXIS and constant_weights(self.graph, op) is None:
            return "float32"
        return asked if op.kind in {"int8": INT8_KINDS, "int16": INT16_KINDS}.get(asked, ()) else "float32"

    def keep(self, op: Op) -> None:
        inputs = tuple(
            self.fetch(n, "float32") if n in self.home and self.graph.tensors[n].dtype == "float32" else n
            for n in op.inputs
        )
        out = op.outputs[0]
        if constant_weights(self.graph, op) is not None and self.exceptions.get(out) in ("weight-only", "float16"):
            inputs = self.stored_weights(op, inputs)
        self.emit(replace(op, inputs=inputs), "float32")

    def stored_weights(self, op: Op, inputs: tuple[str | None, ...]) -> tuple[str | None, ...]:
        """Store the weights of an operator that computes in float smaller, with the bias of rounded weights."""
        out, t = op.outputs[0], self.graph.tensors[str(op.inputs[1])]
        w = self.weights[out] if self.exceptions[out] == "weight-only" else None
        stored, real = f"{out}_weights", f"{out}_weights_real"
        self.tensors[stored] = replace(_half(t) if w is None else _int8_constant(t, w), name=stored)
        self.tensors[real] = replace(t, name=real, data=None)
        self.ops.append(Op("DEQUANTIZE", (stored,), (real,), options_type="DequantizeOptions"))
        if w is None or w.bias is None:
            return (inputs[0], real, *inputs[2:])
        self.tensors[f"{out}_bias"] = Tensor(f"{out}_bias", w.bias.shape, "float32", w.bias)
        return (inputs[0], real, f"{out}_bias")

    def emit(self, op: Op, dtype: str, quantization: Quantization | None = None) -> None:
        for name in op.outputs:
            t = self.graph.tensors[name]
            stored = dtype if t.dtype == "float32" else t.dtype
            self.tensors[name] = replace(t, dtype=stored, quantization=quantization)
            self.made[name, stored], self.home[name] = name, stored
        self.ops.append(op)

    def scale_of(self, name: str, dtype: str) -> Quantization:
        """Scale and zero point of an activation: the calibrated range's, unless its operator decided otherwise."""
        if (name, dtype) not in self.scales:
            fixed = self.calibration.fixed.get(name) if dtype == "int8" else None
            self.scales[name, dtype] = (
                Quantization.per_tensor(*fixed) if fixed else affine(*self.range_of(name, dtype), dtype)
            )
        return self.scales[name, dtype]

    def range_of(self, name: str, dtype: str) -> tuple[float, float]:
        """The range of an activation: 16 bits have levels to spare for all that was seen, and for what was not."""
        if dtype == "int16" and name in self.calibration.wide:
            return self.calibration.wide[name]
        return self.calibration.ranges[name]

    def fetch(self, name: str, dtype: str, quantization: Quantization | None = None) -> str:
        """Return the name of activation `name` in `dtype` (and with this scale), converting it if there is none yet."""
        key, suffix = (name, dtype), dtype
        if dtype != "float32":
            own = self.scale_of(name, dtype) if self.home[name] != dtype else self.tensors[name].quantization
            quantization = quantization or own
            if own is not None and quantization is not None and not own.equals(quantization):
                suffix = f"{dtype}_{float(quantization.scale[0]):.6g}_{int(quantization.zero_point[0])}"
                key = (name, suffix)
        if key not in self.made:
            source = self.made[name, self.home[name]]
            out = f"{name}_{suffix}"
            kind, options = (
                ("DEQUANTIZE", "DequantizeOptions") if dtype == "float32" else ("QUANTIZE", "QuantizeOptions")
            )
            t = self.graph.tensors[name]
            self.tensors[out] = Tensor(out, t.shape, dtype, None, quantization)
            self.ops.append(Op(kind, (source,), (out,), options_type=options))
            self.made[key] = out
        return self.made[key]

    def integer(self, op: Op, dtype: str) -> None:
        data = [n for n in op.inputs if n is not None and self.graph.tensors[n].dtype == "float32"]
        out = op.outputs[0]
        if op.kind in WEIGHT_AXIS:
            self.weighted(op, dtype)
            return
        quantization: Quantization | None
        if op.kind in FIXED_OUTPUT:
            quantization = FIXED_OUTPUT[op.kind][dtype == "int16"]
        elif op.kind in SAME_SCALE:
            moved = self.fetch(data[0], dtype)
            quantization = self.tensors[moved].quantization
        else:
            quantization = self.scale_of(out, dtype)
        one = quantization if op.kind in ONE_SCALE or op.kind == "PADV2" else None
        inputs = tuple(
            n if n is None or self.graph.tensors[n].dtype != "float32" else self.operand(n, dtype, one)
            for n in op.inputs
        )
        options = dict(op.options)
        if "potScaleInt16" in options:  # the schema's default says that int16 scales are powers of two; these are not
            options["potScaleInt16"] = False
        self.emit(replace(op, inputs=inputs, options=options), dtype, quantization)

    def operand(self, name: str, dtype: str, one: Quantization | None) -> str:
        data = self.graph.constant(name)
        if data is None:
            return self.fetch(name, dtype, one)
        q = one or affine(float(data.min()), float(data.max()), dtype)
        out = f"{name}_{dtype}" + (f"_{float(q.scale[0]):.6g}" if one else "")
        self.tensors[out] = Tensor(out, data.shape, dtype, quantize_array(data, q, dtype), q)
        return out

    def weighted(self, op: Op, dtype: str) -> None:
        out = op.outputs[0]
        x = self.fetch(str(op.inputs[0]), dtype)
        w, input_scale = self.weights[out], self.tensors[x].quantization
        assert input_scale is not None
        bias = w.bias if w.bias is not None else self.graph.constant(op.inputs[2] if len(op.inputs) > 2 else None)
        t = _int8_constant(self.graph.tensors[str(op.inputs[1])], w)
        few = w.bits <= FEW_BITS and dtype == "int8"  # no kernel takes them beside int16 activations
        t = replace(t, name=f"{out}_weights", bits=FEW_BITS if few else None)
        inputs: tuple[str | None, ...] = (x, t.name, None)
        if bias is not None:
            stored, t = _bias(out, bias, float(input_scale.scale[0]), t, dtype)
            self.tensors[stored.name] = stored
            inputs = (x, t.name, stored.name)
        self.tensors[t.name] = t
        self.emit(replace(op, inputs=inputs), dtype, self.scale_of(out, dtype))


def _bias(out: str, bias: np.ndarray, input_scale: float, weights: Tensor, dtype: str) -> tuple[Tensor, Tensor]:
    """Return the stored bias, and the weights, whose scale grows where a 32-bit bias would overflow (dead channels)."""
    q = weights.quantization
    assert q is not None
    scale = q.scale.astype(np.float64) * input_scale
    stored_as = "int64" if dtype == "int16" else "int32"
    needed = np.abs(bias) / 2**30 if len(q.scale) > 1 else np.abs(bias).max(keepdims=True) / 2**30
    if dtype == "int8" and np.any(scale < needed):
        grown = np.maximum(scale, needed) / scale
        assert weights.data is not None
        values = np.rint(weights.data / along_axis(grown, q.axis, weights.data.ndim)).astype(np.int8)
        q = replace(q, scale=(q.scale * grown).astype(np.float32))
        weights = replace(weights, data=values, quantization=q)
        scale = q.scale.astype(np.float64) * input_scale
    values = np.rint(bias / scale).astype(stored_as)
    quantization = Quantization(scale.astype(np.float32), np.zeros(len(scale), np.int64), 0)
    return Tensor(f"{out}_bias", values.shape, stored_as, values, quantization), weights
