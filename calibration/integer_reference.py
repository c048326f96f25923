"""Run a quantized graph in exact integer arithmetic, as the kernels of a chip that is not at hand would.

Two arithmetics of the dot product, the same integers otherwise:

    exact        every product is added in 32 bits: XNNPACK (TFLite) everywhere, and VNNI, sdot, smmla
    saturating   u8*s8 products are added in pairs that saturate in 16 bits (`pmaddubsw`), the pairs in 32: OpenVINO's
                 (oneDNN) and onnxruntime's (MLAS) convolutions and dense layers on x86 without VNNI. Their depthwise
                 kernels widen first and are exact. Pairs are neighbours in the order (row, column, input channel).

Two ways to bring a 32-bit sum back to 8 bits:

    float        rint(sum * float32(input scale * weight scale / output scale)): XNNPACK, onnxruntime, OpenVINO
    fixed        MultiplyByQuantizedMultiplier, a 31-bit multiplier and two roundings: TFLite's own
                 kernels and those of microcontrollers (https://github.com/google/gemmlowp, doc/quantization.md)

They differ by one level where a sum lies near the middle between two. Additions follow XNNPACK's vadd with "float".
EfficientNet-Lite in "float" agrees with LiteRT's XNNPACK bit by bit, in "fixed" with its reference kernels but for one
logit in a thousand, by one level. With 8-bit weights lite0 keeps 0.875 of float's answers in the saturating arithmetic
(80 photographs, all in the exact one); OpenVINO on a machine without VNNI was measured at 0.877.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgenet.calibration.quantize import INTEGER
from edgenet.errors import InputError
from edgenet.export.graph import Activation, Graph, Op, Quantization, Tensor, Window, fused

ARITHMETICS = ("exact", "saturating")
REQUANTIZATIONS = ("float", "fixed")
INT16_MIN, INT16_MAX = -(2**15), 2**15 - 1
# float32 holds every integer up to 2^24: a sum of this many products of 255 by 127 is exact in any order.
_EXACT_TERMS = 2**24 // (255 * 128)


def saturating_dot(u8: np.ndarray, s8: np.ndarray) -> np.ndarray:
    """Return sums of products over the last axis as x86 without VNNI adds them: (..., K) uint8, (..., K) int8 -> int32.

    `pmaddubsw` adds the products of two neighbours in 16 bits, saturating; `pmaddwd` and `paddd` add the pairs in 32.
    An odd last product stands alone.
    """
    if u8.dtype != np.uint8 or s8.dtype != np.int8:
        raise InputError(f"saturating_dot multiplies uint8 by int8, was given {u8.dtype} and {s8.dtype}")
    products = u8.astype(np.int32) * s8.astype(np.int32)
    if products.shape[-1] % 2:
        products = np.concatenate([products, np.zeros_like(products[..., :1])], -1)
    pairs = np.clip(products[..., ::2] + products[..., 1::2], INT16_MIN, INT16_MAX)
    sums: np.ndarray = pairs.sum(-1, dtype=np.int64).astype(np.int32)
    return sums


def multiply_by_quantized_multiplier(sums: np.ndarray, factor: np.ndarray | float) -> np.ndarray:
    """Return sums * factor as integers, as TFLite's kernels round: int32 sums, positive factors -> int64.

    The factor is a multiplier of 31 bits and a power of two. The high half of the doubled product is rounded to the
    nearest (half up), then shifted right with a second rounding (half away from zero).
    """
    return _multiplied(sums, *_quantized_multiplier(factor))


def _quantized_multiplier(factor: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
    """Return (multiplier, exponent) with factor = multiplier / 2^31 * 2^exponent, the multiplier in [2^30, 2^31)."""
    mantissa, exponent = np.frexp(np.asarray(factor, np.float64))
    multiplier = np.floor(mantissa * 2**31 + 0.5).astype(np.int64)
    grown = multiplier == 2**31
    return np.where(grown, multiplier // 2, multiplier), exponent + grown


def _multiplied(sums: np.ndarray, multiplier: np.ndarray, exponent: np.ndarray) -> np.ndarray:
    left, right = np.maximum(exponent, 0), np.maximum(-exponent, 0).astype(np.int64)
    product = (sums.astype(np.int64) << left) * multiplier
    nudge = np.where(product >= 0, 1 << 30, 1 - (1 << 30))
    shifted = product + nudge
    high = np.where(shifted >= 0, shifted >> 31, -((-shifted) >> 31))  # C++ divides toward zero
    mask = (np.int64(1) << right) - 1
    remainder, threshold = high & mask, (mask >> 1) + (high < 0)
    rounded: np.ndarray = (high >> right) + (remainder > threshold)
    return rounded


def integer_logits(
    graph: Graph, x: np.ndarray, arithmetic: str = "exact", requantization: str = "float", chunk: int = 4
) -> np.ndarray:
    """Return the logits of a quantized graph: (N, H, W, 3) as the graph's input takes it -> (N, classes) float32.

    Args:
        graph: from `quantize(graph, "int8", ...)`, with any input and output type.
        arithmetic: one of ARITHMETICS.
        requantization: one of REQUANTIZATIONS.
        chunk: pictures at a time; memory grows with it.

    Raises:
        InputError: an unknown arithmetic or requantization, or an operator that has no integer reference.
    """
    for what, value, valid in (
        ("arithmetic", arithmetic, ARITHMETICS),
        ("requantization", requantization, REQUANTIZATIONS),
    ):
        if value not in valid:
            raise InputError(f"unknown {what} '{value}' (valid: {', '.join(valid)})")
    name = _logits(graph)
    parts = []
    for start in range(0, len(x), chunk):
        run = _Run(graph, arithmetic == "saturating", requantization == "fixed")
        values = run(x[start : start + chunk], name)
        q = graph.tensors[name].quantization
        parts.append(values if q is None or values.dtype.kind == "f" else _real(values, q))
    return np.concatenate(parts).astype(np.float32)


def _logits(graph: Graph) -> str:
    """Return the tensor before the softmax, also where the probabilities are quantized after it."""
    producers, name = graph.producers(), graph.outputs[0]
    while name in producers and graph.ops[producers[name]].kind in ("QUANTIZE", "DEQUANTIZE"):
        name = str(graph.ops[producers[name]].inputs[0])
    if name in producers and graph.ops[producers[name]].kind == "SOFTMAX":
        return str(graph.ops[producers[name]].inputs[0])
    return graph.logits()


def saturated_share(graph: Graph, bits_limit: int = INT16_MAX) -> dict[str, float]:
    """Return, by operator, the share of weight pairs that some u8 input could make saturate; 0 is safe anywhere.

    Convolutions and dense layers only. 255 * (w1 + w2) over the limit, counting positive or negative weights alone.
    """
    shares = {}
    for op in graph.ops:
        if op.kind in ("CONV_2D", "FULLY_CONNECTED"):
            w = graph.constant(op.inputs[1])
            if w is not None and w.dtype == np.int8:
                high, low = _reach(_pairs(w.reshape(w.shape[0], -1).astype(np.int32)))
                shares[op.outputs[0]] = float(np.mean((255 * high > bits_limit) | (255 * low < -bits_limit - 1)))
    return shares


@dataclass
class _Run:
    """One pass over the operators; `values` holds what is still to be read."""

    graph: Graph
    saturating: bool
    fixed: bool

    def __call__(self, x: np.ndarray, wanted: str) -> np.ndarray:
        self.values: dict[str, np.ndarray] = {self.graph.inputs[0]: x}
        last = {n: i for i, op in enumerate(self.graph.ops) for n in op.inputs if n is not None}
        if wanted == self.graph.inputs[0]:
            return x
        for i, op in enumerate(self.graph.ops):
            if op.kind not in _KERNELS:
                valid = ", ".join(sorted(_KERNELS))
                raise InputError(f"the integer reference has no {op.kind} ({op.outputs[0]}); it has {valid}")
            out = op.outputs[0]
            self.values[out] = _KERNELS[op.kind](self, op)
            if out == wanted:
                return self.values[out]
            for name in op.inputs:
                if name is not None and last[name] == i:
                    self.values.pop(name, None)
        raise InputError(f"the graph has no tensor '{wanted}'")

    def tensor(self, name: str | None) -> Tensor:
        return self.graph.tensors[str(name)]

    def read(self, name: str | None) -> np.ndarray:
        data = self.graph.constant(name)
        return self.values[str(name)] if data is None else data

    def quantization(self, name: str | None) -> Quantization:
        q = self.tensor(name).quantization
        if q is None:
            raise InputError(
                f"{name} is not quantized: the integer reference runs int8 and int16 layers, and no others"
            )
        return q

    def scaled(self, sums: np.ndarray, factor: np.ndarray) -> np.ndarray:
        """Return integers nearest to sums * factor; `factor` float32, one or one per channel."""
        if self.fixed:
            return multiply_by_quantized_multiplier(sums, factor)
        scaled: np.ndarray = np.rint(sums.astype(np.float32) * factor.astype(np.float32)).astype(np.int64)
        return scaled

    def stored(self, op: Op, levels: np.ndarray) -> np.ndarray:
        """Return levels (before the zero point) as the output's type holds them, within the fused activation."""
        t, q = self.tensor(op.outputs[0]), self.quantization(op.outputs[0])
        if not op.activation.clips:
            raise InputError(f"the integer reference has no fused {op.activation.name} ({op.outputs[0]})")
        low, high = op.activation.bounds
        zero, scale = int(q.zero_point[0]), float(q.scale[0])
        least, most = INTEGER[t.dtype]
        least = max(least, zero + round(low / scale)) if np.isfinite(low) else least
        most = min(most, zero + round(high / scale)) if np.isfinite(high) else most
        return np.clip(levels + zero, least, most).astype(t.dtype)


def _real(values: np.ndarray, q: Quantization) -> np.ndarray:
    real: np.ndarray = (values.astype(np.float32) - np.float32(q.zero_point[0])) * np.float32(q.scale[0])
    return real


# ------------------------------------------------------------------------------------------------- sums of products


def _pairs(w: np.ndarray) -> np.ndarray:
    """(O, K) -> (O, ceil(K / 2), 2), an odd last one beside a zero."""
    padded = np.pad(w, ((0, 0), (0, w.shape[1] % 2)))
    return padded.reshape(len(w), -1, 2)


def _reach(pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums of the positive and of the negative weights of each pair."""
    return np.maximum(pairs, 0).sum(-1), np.minimum(pairs, 0).sum(-1)


def _exact_product(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """(M, K) integers by (O, K) int8 -> (M, O) int64. BLAS on floats that hold every partial sum exactly."""
    if max(-int(x.min()), int(x.max())) > 255:  # int16 activations
        wide: np.ndarray = np.rint(x.astype(np.float64) @ w.T.astype(np.float64)).astype(np.int64)
        return wide
    sums = np.zeros((len(x), len(w)), np.int64)
    a, b = x.astype(np.float32), w.T.astype(np.float32)
    for k in range(0, x.shape[1], _EXACT_TERMS):
        sums += (a[:, k : k + _EXACT_TERMS] @ b[k : k + _EXACT_TERMS]).astype(np.int64)
    return sums


def _lost_to_saturation(u8: np.ndarray, w: np.ndarray) -> np.ndarray | None:
    """Return what saturation takes from the exact sums, (M, O): None where nothing can saturate.

    u8: (M, K) 0..255. Only those pairs of weights are computed that the largest inputs of their columns can drive over
    the limit, and only the rows that do: in trained networks these are few.
    """
    pairs = _pairs(w.astype(np.int64))  # (O, K/2, 2)
    inputs = np.pad(u8, ((0, 0), (0, u8.shape[1] % 2))).astype(np.int64).reshape(len(u8), -1, 2)
    peak = inputs.max(0)  # (K/2, 2)
    high, low = _reach(pairs * peak)
    suspects = (high > INT16_MAX) | (low < INT16_MIN)  # (O, K/2)
    if not suspects.any():
        return None
    lost = np.zeros((len(u8), len(w)), np.int64)
    for k in np.flatnonzero(suspects.any(0)):
        channels = np.flatnonzero(suspects[:, k])
        chosen = pairs[channels, k]  # (S, 2)
        x = inputs[:, k]
        up, down = np.maximum(chosen, 0).max(0), np.minimum(chosen, 0).min(0)
        rows = np.flatnonzero((x @ up > INT16_MAX) | (x @ down < INT16_MIN))
        sums = x[rows] @ chosen.T  # (R, S)
        lost[np.ix_(rows, channels)] += sums - np.clip(sums, INT16_MIN, INT16_MAX)
    return lost


def _products(run: _Run, op: Op, columns: np.ndarray, w: np.ndarray) -> np.ndarray:
    """(M, K) stored inputs by (O, K) stored weights -> (M, O) sums with the zero point and the bias accounted for."""
    zero = int(run.quantization(op.inputs[0]).zero_point[0])
    sums = _exact_product(columns.astype(np.int32) - zero, w)
    if run.saturating and columns.dtype == np.int8:
        lost = _lost_to_saturation(columns.astype(np.int16) + 128, w)
        if lost is not None:
            sums -= lost
    return sums


def _requantized(run: _Run, op: Op, sums: np.ndarray) -> np.ndarray:
    """Add the bias, (..., O) int64, and bring the sums to the output's scale."""
    if len(op.inputs) > 2 and op.inputs[2] is not None:
        sums = sums + run.read(op.inputs[2]).astype(np.int64)
    x, w, out = (run.quantization(n).scale.astype(np.float32) for n in (op.inputs[0], op.inputs[1], op.outputs[0]))
    factor = x * w / out if not run.fixed else x.astype(np.float64) * w.astype(np.float64) / out.astype(np.float64)
    return run.stored(op, run.scaled(sums, factor))


# --------------------------------------------------------------------------------------------------------- operators


def _taps(x: np.ndarray, kernel: tuple[int, int], window: Window, fill: int) -> list[list[np.ndarray]]:
    """Return the picture as each tap of the kernel sees it: [row][column] of (N, H', W', C)."""
    padded = np.pad(x, ((0, 0), *window.pads(x.shape[1:3], kernel), (0, 0)), constant_values=fill)
    n = window.output_size(x.shape[1:3], kernel)

    def read(axis: int, tap: int) -> slice:
        first, step = tap * window.dilations[axis], window.strides[axis]
        return slice(first, first + (n[axis] - 1) * step + 1, step)

    return [[padded[:, read(0, i), read(1, j)] for j in range(kernel[1])] for i in range(kernel[0])]


def _conv(run: _Run, op: Op) -> np.ndarray:
    x, w = run.read(op.inputs[0]), run.read(op.inputs[1])  # (N, H, W, C), (O, kh, kw, C / groups)
    run.quantization(op.inputs[1])
    zero = int(run.quantization(op.inputs[0]).zero_point[0])
    taps = [t for row in _taps(x, (w.shape[1], w.shape[2]), op.window, zero) for t in row]
    groups = x.shape[3] // w.shape[3]
    outputs, inputs = w.shape[0] // groups, w.shape[3]
    sums = []
    for g in range(groups):
        columns = np.concatenate([t[..., g * inputs : (g + 1) * inputs] for t in taps], -1)
        flat = columns.reshape(-1, columns.shape[-1])
        kernels = w[g * outputs : (g + 1) * outputs].reshape(outputs, -1)
        sums.append(_products(run, op, flat, kernels).reshape(*columns.shape[:3], outputs))
    return _requantized(run, op, np.concatenate(sums, -1))


def _depthwise(run: _Run, op: Op) -> np.ndarray:
    x, w = run.read(op.inputs[0]), run.read(op.inputs[1])  # (N, H, W, C), (1, kh, kw, C * multiplier)
    run.quantization(op.inputs[1])
    zero = int(run.quantization(op.inputs[0]).zero_point[0])
    multiplier = w.shape[3] // x.shape[3]
    dtype = np.float32 if x.dtype == np.int8 and w.shape[1] * w.shape[2] <= _EXACT_TERMS else np.float64
    centred = x.astype(dtype) - zero
    sums: Any = 0
    for i, row in enumerate(_taps(centred, (w.shape[1], w.shape[2]), op.window, 0)):
        for j, tap in enumerate(row):
            sums = sums + (np.repeat(tap, multiplier, -1) if multiplier > 1 else tap) * w[0, i, j].astype(dtype)
    return _requantized(run, op, sums.astype(np.int64))


def _dense(run: _Run, op: Op) -> np.ndarray:
    x, w = run.read(op.inputs[0]), run.read(op.inputs[1])  # (N, ..., K), (O, K)
    run.quantization(op.inputs[1])
    sums = _products(run, op, x.reshape(-1, w.shape[1]), w)
    keep = x.shape[:-1] if op.options.get("keepNumDims") else (len(sums),)
    return _requantized(run, op, sums.reshape(*keep, len(w)))


def _add(run: _Run, op: Op, sign: int = 1) -> np.ndarray:
    (qa, qb), qo = (run.quantization(n) for n in op.inputs[:2]), run.quantization(op.outputs[0])
    a, b = (run.read(n).astype(np.int64) - int(q.zero_point[0]) for n, q in zip(op.inputs, (qa, qb), strict=False))
    sa, sb, so = (np.float32(q.scale[0]) for q in (qa, qb, qo))
    if run.tensor(op.outputs[0]).dtype != "int8":
        return run.stored(
            op, np.rint((a * np.float64(sa) + sign * b * np.float64(sb)) / np.float64(so)).astype(np.int64)
        )
    if run.fixed:
        twice = 2.0 * max(float(sa), float(sb))
        left = multiply_by_quantized_multiplier(a << 20, float(sa) / twice)
        right = multiply_by_quantized_multiplier(b << 20, float(sb) / twice)
        return run.stored(op, multiply_by_quantized_multiplier(left + sign * right, twice / (2**20 * float(so))))
    # XNNPACK: both inputs by multipliers of 21 bits with one shift, rounded half up.
    ra, rb = np.float32(sa / so), np.float32(sb / so)
    shift = 20 - (int(np.frexp(max(ra, rb))[1]) - 1)
    ma, mb = (int(np.rint(np.ldexp(np.float64(r), shift))) for r in (ra, rb))
    return run.stored(op, (a * ma + sign * b * mb + (1 << (shift - 1))) >> shift)


def _sub(run: _Run, op: Op) -> np.ndarray:
    return _add(run, op, -1)


def _mul(run: _Run, op: Op) -> np.ndarray:
    qa, qb, qo = (run.quantization(n) for n in (*op.inputs[:2], op.outputs[0]))
    a, b = (run.read(n).astype(np.int64) - int(q.zero_point[0]) for n, q in zip(op.inputs, (qa, qb), strict=False))
    return run.stored(op, run.scaled(a * b, qa.scale * qb.scale / qo.scale))


def _mean(run: _Run, op: Op) -> np.ndarray:
    x, q = run.read(op.inputs[0]).astype(np.int64), run.quantization(op.inputs[0])
    axes = tuple(int(a) for a in np.atleast_1d(run.read(op.inputs[1])))
    sums = (x - int(q.zero_point[0])).sum(axes, keepdims=bool(op.options.get("keepDims")))
    n = int(np.prod([x.shape[a] for a in axes])) if op.kind == "MEAN" else 1
    if run.fixed:  # the multiplier is divided by n, and loses the bits that this takes
        multiplier, exponent = _quantized_multiplier(
            float(q.scale[0]) / float(run.quantization(op.outputs[0]).scale[0])
        )
        shift = n.bit_length() - 1
        return run.stored(op, _multiplied(sums, (multiplier << shift) // n, exponent - shift))
    return run.stored(op, run.scaled(sums, q.scale / (run.quantization(op.outputs[0]).scale * np.float32(n))))


def _pool(run: _Run, op: Op) -> np.ndarray:
    x, o = run.read(op.inputs[0]), op.options
    kernel = (int(o["filterHeight"]), int(o["filterWidth"]))
    if op.kind == "MAX_POOL_2D":
        wide = x.astype(np.int64)
        taps = [t for row in _taps(wide, kernel, op.window, INTEGER[str(x.dtype)][0]) for t in row]
        return run.stored(op, np.maximum.reduce(taps) - int(run.quantization(op.outputs[0]).zero_point[0]))
    # The stored numbers themselves, divided with rounding half away from zero; padding is not averaged.
    ones = _taps(np.ones((1, *x.shape[1:3], 1), np.int64), kernel, op.window, 0)
    count = sum(t for row in ones for t in row)
    sums = sum(t for row in _taps(x.astype(np.int64), kernel, op.window, 0) for t in row)
    average = np.sign(sums) * ((np.abs(sums) + count // 2) // count)
    return run.stored(op, average - int(run.quantization(op.outputs[0]).zero_point[0]))


def _quantize(run: _Run, op: Op) -> np.ndarray:
    x, t, q = run.read(op.inputs[0]), run.tensor(op.outputs[0]), run.quantization(op.outputs[0])
    if x.dtype.kind == "f":
        levels = np.rint(x.astype(np.float32) / np.float32(q.scale[0]))
        return np.clip(levels + int(q.zero_point[0]), *INTEGER[t.dtype]).astype(t.dtype)
    source = run.quantization(op.inputs[0])
    return run.stored(op, run.scaled(x.astype(np.int64) - int(source.zero_point[0]), source.scale / q.scale))


def _dequantize(run: _Run, op: Op) -> np.ndarray:
    return _real(run.read(op.inputs[0]), run.quantization(op.inputs[0]))


def _relu(run: _Run, op: Op) -> np.ndarray:
    q, qo = run.quantization(op.inputs[0]), run.quantization(op.outputs[0])
    levels = run.scaled(run.read(op.inputs[0]).astype(np.int64) - int(q.zero_point[0]), q.scale / qo.scale)
    return run.stored(Op(op.kind, op.inputs, op.outputs, fused(Activation[op.kind])), levels)


def _table(function: Callable[[np.ndarray], np.ndarray]) -> "Kernel":
    """An int8 function of one number: the kernel looks its 256 answers up."""

    def kernel(run: _Run, op: Op) -> np.ndarray:
        real = _real(run.read(op.inputs[0]), run.quantization(op.inputs[0])).astype(np.float64)
        return run.stored(
            op, np.rint(function(real) / float(run.quantization(op.outputs[0]).scale[0])).astype(np.int64)
        )

    return kernel


def _pad(run: _Run, op: Op) -> np.ndarray:
    fill = int(run.quantization(op.inputs[0]).zero_point[0])
    return np.pad(run.read(op.inputs[0]), np.asarray(run.read(op.inputs[1])), constant_values=fill)


def _reshape(run: _Run, op: Op) -> np.ndarray:
    x = run.read(op.inputs[0])
    return x.reshape(len(x), *run.tensor(op.outputs[0]).shape[1:])


def _concatenation(run: _Run, op: Op) -> np.ndarray:
    return np.concatenate([run.read(n) for n in op.inputs], int(op.options["axis"]))


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


Kernel = Callable[[_Run, Op], np.ndarray]
_KERNELS: dict[str, Kernel] = {
    "CONV_2D": _conv, "DEPTHWISE_CONV_2D": _depthwise, "FULLY_CONNECTED": _dense, "ADD": _add, "SUB": _sub, "MUL": _mul,
    "MEAN": _mean, "SUM": _mean, "AVERAGE_POOL_2D": _pool, "MAX_POOL_2D": _pool, "QUANTIZE": _quantize,
    "DEQUANTIZE": _dequantize, "RELU": _relu, "RELU6": _relu, "RELU_N1_TO_1": _relu, "LOGISTIC": _table(_sigmoid),
    "TANH": _table(np.tanh), "PAD": _pad, "RESHAPE": _reshape, "SQUEEZE": _reshape, "EXPAND_DIMS": _reshape,
    "CONCATENATION": _concatenation,
}  # fmt: skip
