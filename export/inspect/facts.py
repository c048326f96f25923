"""The facts of a model file of any format, and the verdict on its precision.

A reader (tflite.py, onnx.py, openvino.py) turns a file into `Facts`: flat lists of operators and constant tensors.
Everything that a user reads is derived from them here, by the same rules for all formats.

Precision of one operator:
    float32          float weights and activations
    float16          computes in float16
    float16 weights  weights stored as float16, expanded to float32 before use
    dynamic          integer weights meet float activations in the operator, which quantizes them for each input
    weight-only      integer weights, expanded to float32 before use
    int8, uint8      integer weights and activations
    int16x8          8-bit weights, 16-bit activations
    int4             4-bit weights, 8-bit activations
    integer          index arithmetic: shapes, gathers, ids
    convert          changes the representation only: QUANTIZE, DEQUANTIZE, CAST, and work on constants
Two joined by "+" mean that an operator has activations of both kinds.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgenet.export.inspect.inspection import Inspection, WeightQuantization
from edgenet.results.tensor_info import TensorInfo
from edgenet.targets import PAIR_LIMIT

# Verdict of an operator's precision.
_VERDICTS = {"float16 weights": "float16", "uint8": "int8"}
_STORAGE = ("float16 weights", "dynamic", "weight-only")  # small tensors are usually left in float32 beside these
_NO_ARITHMETIC = ("convert", "integer")
_MEANING = {
    "float32": "nothing is quantized",
    "float16": "float16",
    "float16 weights": "weights stored as float16 and expanded to float32, arithmetic in float32",
    "dynamic": "integer weights with float activations that are quantized for each input at run time",
    "weight-only": "integer weights expanded to float32 before use, arithmetic in float32",
    "int8": "full integer",
    "uint8": "full integer, in the older uint8 scheme",
    "int16x8": "full integer, 8-bit weights and 16-bit activations",
    "int4": "full integer, 4-bit weights and 8-bit activations",
}


@dataclass(frozen=True)
class Operator:
    """One operator of the graph. `multiply_adds` are for one inference, 0 for other than convolution and dense."""

    kind: str
    precision: str
    multiply_adds: int = 0


@dataclass(frozen=True)
class Weight:
    """A constant tensor of trained numbers, as it is stored.

    Attributes:
        n: elements.
        dtype: as stored.
        matrix: whether a convolution or a dense layer multiplies by it (else a bias, a scale or the like).
        depthwise: whether that is a depthwise convolution.
        n_scales: how many quantization scales it has; 0 where it is not quantized, 1 where per tensor.
        symmetric: whether all its zero points are 0.
        q_max: the largest |q| of its values (`largest_q`), None where not quantized or not read.
        pair_max: the largest sum of |q| that x86 kernels may add in 16 bits (`largest_pair`), None where not known.
    """

    n: int
    dtype: str
    matrix: bool = False
    n_scales: int = 0
    symmetric: bool = True
    q_max: int | None = None
    depthwise: bool = False
    pair_max: int | None = None


@dataclass(frozen=True)
class Facts:
    """What a reader found in a file."""

    format: str
    name: str
    operators: tuple[Operator, ...]
    weights: tuple[Weight, ...]
    constant_bytes: int  # all constants, shapes and indices included
    inputs: tuple[TensorInfo, ...]  # -1 is a dynamic dimension
    outputs: tuple[TensorInfo, ...]
    activation_zero_points: tuple[int, ...] = ()
    signatures: tuple[str, ...] = ()
    custom_operators: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    edgenet: Mapping[str, Any] | None = None
    files: Mapping[str, int] = field(default_factory=dict)  # associated files, name -> size in bytes
    files_bytes: int = 0  # with the archive's own structure
    versions: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def bits_of(q_max: int) -> int:
    """Return the bits that a signed integer needs for values up to `q_max`: the smallest b with q_max <= 2^(b-1)."""
    return max(1, (max(q_max, 1) - 1).bit_length() + 1)


def verdict(operators: Iterable[Operator]) -> tuple[str, str]:
    """Return (precision, one sentence of why). Convolutions and dense layers decide; the sentence names the rest."""
    compute = [o for o in operators if o.precision not in _NO_ARITHMETIC]
    heavy = [o for o in compute if o.multiply_adds] or compute
    if not compute:
        return "float32", "no operator computes anything"
    kinds = Counter(o.precision for o in heavy)
    main = [k for k in kinds if k != "float32"]
    if set(main) == {"dynamic", "weight-only"}:  # where a runtime has no hybrid kernel, of depthwise convolutions say
        main = ["dynamic"]
    if "int4" in kinds and set(kinds) <= {"int4", "int8"}:  # what has few weights keeps 8 bits
        why = f"{_MEANING['int4']}, in {kinds['int4']} of {len(heavy)} {_layers(heavy)}"
        return "int4", why + _others(heavy, "int4")
    if len(kinds) == 1 or (len(main) == 1 and main[0] in _STORAGE):
        chosen = main[0] if main else "float32"
        n = sum(o.precision == chosen for o in compute)
        meaning = _MEANING.get(chosen, chosen)
        if chosen in _STORAGE:
            why = f"{meaning}, in {kinds[chosen]} of {len(heavy)} {_layers(heavy)}"
            return _VERDICTS.get(chosen, chosen), why + _others(heavy, chosen)
        share = f"all {n}" if n == len(compute) else f"{n} of {len(compute)}"
        return _VERDICTS.get(chosen, chosen), f"{meaning}; {share} operators in {chosen}" + _others(compute, chosen)
    parts = ", ".join(f"{n} in {k}" for k, n in kinds.most_common())
    total = sum(o.multiply_adds for o in heavy)
    work = ""
    if total:
        first = kinds.most_common(1)[0][0]
        done = sum(o.multiply_adds for o in heavy if o.precision == first)
        work = f"; {first} does {100 * done / total:.0f} % of the multiply-adds"
    return "mixed", f"of {len(heavy)} {_layers(heavy)}, {parts}{work}"


def _layers(heavy: list[Operator]) -> str:
    return "convolution and dense operators" if any(o.multiply_adds for o in heavy) else "operators"


def _others(operators: list[Operator], chosen: str) -> str:
    rest: dict[str, Counter[str]] = {}
    for o in operators:
        if o.precision != chosen:
            rest.setdefault(o.precision, Counter())[o.kind] += 1
    parts = []
    for precision, kinds in rest.items():
        names = ", ".join(k if n == 1 else f"{n} {k}" for k, n in kinds.most_common(4))
        more = f" and {len(kinds) - 4} more kinds" if len(kinds) > 4 else ""
        parts.append(f"{names}{more} in {precision}")
    return "".join(f"; {p}" for p in parts)


def conclude(path: str, size_bytes: int, facts: Facts) -> Inspection:
    """Derive what a user wants to know from what a reader found."""
    precision, why = verdict(facts.operators)
    if precision in ("int8", "int16x8", "int4"):
        edges = [
            s for s, t in (("input", facts.inputs), ("output", facts.outputs)) if any(x.dtype == "float32" for x in t)
        ]
        why += f"; float32 {' and '.join(edges)}" if edges else ""
    operators: dict[str, dict[str, int]] = {}
    by_kind: Counter[str] = Counter()
    for o in facts.operators:
        counts = operators.setdefault(o.kind, {})
        counts[o.precision] = counts.get(o.precision, 0) + 1
        by_kind[o.kind] += o.multiply_adds
    order = sorted(operators, key=lambda k: (-sum(operators[k].values()), k))
    shape = facts.inputs[0].shape if facts.inputs else ()
    quantization = _quantization(facts)
    return Inspection(
        path=path,
        format=facts.format,
        name=facts.name,
        precision=precision,
        why=why,
        operators={k: operators[k] for k in order},
        n_operators=len(facts.operators),
        weight_quantization=quantization,
        inputs=facts.inputs,
        outputs=facts.outputs,
        batch=None if shape and shape[0] < 0 else (shape[0] if shape else 1),
        parameters=sum(w.n for w in facts.weights),
        multiply_adds=sum(by_kind.values()),
        multiply_adds_by_kind={k: n for k, n in by_kind.most_common() if n},
        size_bytes=size_bytes,
        weights_bytes=facts.constant_bytes,
        graph_bytes=max(size_bytes - facts.constant_bytes - facts.files_bytes, 0),
        files_bytes=facts.files_bytes,
        files=dict(facts.files),
        metadata=dict(facts.metadata),
        edgenet=None if facts.edgenet is None else dict(facts.edgenet),
        signatures=facts.signatures,
        versions=dict(facts.versions),
        warnings=(*_warnings(path, precision, facts, quantization), *facts.warnings),
    )


def _quantization(facts: Facts) -> WeightQuantization:
    matrices = [w for w in facts.weights if w.matrix]
    quantized = [w for w in matrices if w.n_scales]
    zero_points = facts.activation_zero_points
    return WeightQuantization(
        dtypes=dict(Counter(w.dtype for w in matrices).most_common()),
        per_channel=sum(w.n_scales > 1 for w in quantized),
        per_tensor=sum(w.n_scales == 1 for w in quantized),
        symmetric=all(w.symmetric for w in quantized) if quantized else None,
        bits=_bits(w for w in quantized if not w.depthwise),
        depthwise_bits=_bits(w for w in quantized if w.depthwise),
        activations_symmetric=not any(zero_points) if zero_points else None,
        saturates=_saturates([w for w in quantized if not w.depthwise]),
    )


def _saturates(weights: Sequence[Weight]) -> bool | None:
    if not weights:
        return None
    pairs = [w.pair_max if w.pair_max is not None else None if w.q_max is None else 2 * w.q_max for w in weights]
    return None if None in pairs else max(p for p in pairs if p is not None) > PAIR_LIMIT


def _bits(weights: Iterable[Weight]) -> int | None:
    maxima = [w.q_max for w in weights if w.q_max is not None]
    return bits_of(max(maxima)) if maxima else None


def _warnings(path: str, precision: str, facts: Facts, q: WeightQuantization) -> list[str]:
    out = []
    stem = path.replace("\\", "/").rsplit("/", 1)[-1].lower()
    said = _claim(stem)
    if said and said != precision:
        out.append(f"calls itself {said} in its name, but is {precision}")
    for tensors, side in ((facts.inputs, "input"), (facts.outputs, "output")):
        half = [t.name for t in tensors if t.dtype == "float16"]
        out += [f"{side} '{name}' is float16: apps hand over float32 or uint8" for name in half]
    if facts.format == "tflite":
        if not facts.metadata:
            out.append("no TFLite metadata: MediaPipe Tasks finds no labels, and refuses it if its input is float")
        if not facts.signatures:
            out.append("no signature: it can be run by the position of its tensors only")
    elif precision in ("int8", "int4") and q.saturates:
        out.append(
            "weights use all 8 bits: on x86 without VNNI, OpenVINO and onnxruntime add products in saturating 16 bits, "
            "which costs accuracy; `--target generic` writes weights that fit"
        )
    flex = sorted({c for c in facts.custom_operators if c.startswith("Flex")})
    if flex:
        out.append(f"flex operators ({', '.join(flex)}): needs the TensorFlow Select delegate in the app")
    custom = sorted({c for c in facts.custom_operators if not c.startswith("Flex")})
    if custom:
        out.append(f"custom operators ({', '.join(custom)}): runs only where they are registered; work not counted")
    if facts.inputs and any(d < 0 for t in facts.inputs for d in t.shape):
        out.append("dynamic shape: multiply-adds are counted with 1 for each dynamic dimension")
    if q.dtypes and q.per_tensor > q.per_channel and precision in ("int8", "int16x8", "int4"):
        out.append("most weights have one scale a tensor: one scale a channel is more accurate at the same size")
    return out


def _claim(stem: str) -> str | None:
    """Return the precision that a file name promises."""
    words = set(stem.replace(".", "_").replace("-", "_").split("_"))
    for precision, names in {
        "int16x8": {"int16x8", "16x8"},
        "dynamic": {"dynamic", "drq"},
        "weight-only": {"weightonly", "wo"},
        "int4": {"int4", "w4a8"},
        "int8": {"int8", "uint8", "quant", "quantized", "i8"},
        "float16": {"float16", "fp16", "f16"},
        "float32": {"float32", "fp32", "f32"},
    }.items():
        if words & names or (precision == "weight-only" and {"weight", "only"} <= words):
            return precision
    return None


def largest_pair(values: "np.ndarray[Any, Any]", axis: int) -> int | None:
    """Return the largest |a| + |b| of weights of the inputs 2i and 2i + 1 along `axis`; None of no values.

    With an odd number of inputs it is not known which are added first: the largest weight counts twice.
    """
    if not values.size:
        return None
    sizes = np.abs(np.moveaxis(values, axis, -1).astype(np.int32))
    if sizes.shape[-1] % 2:
        return 2 * int(sizes.max())
    return int((sizes[..., ::2] + sizes[..., 1::2]).max())


def largest_q(values: "np.ndarray[Any, Any]", symmetric: bool = True) -> int | None:
    """Return the largest |q|, or half the span of the values where a zero point shifts them; None of no values."""
    if not values.size:
        return None
    high, low = int(values.max()), int(values.min())
    return max(high, -low) if symmetric else (high - low + 1) // 2
