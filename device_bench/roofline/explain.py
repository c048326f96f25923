"""Why a file is as fast as it is: each operator against the roofline of the same core, and what follows, in words.

Pure: operators and limits come from `operator_times`. The roofline model: Williams et al. 2009,
https://doi.org/10.1145/1498765.1498785.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

from edgenet.device_bench.comparison import Comparison
from edgenet.results import Explanation, Layer
from edgenet.targets import DOT_PRODUCT, I8MM, SATURATING, TARGETS, detect

COMPUTE, MEMORY, OVERHEAD = "compute", "memory", "overhead"
# An operator that reaches less of both limits is held up by something else: how its kernel goes about it, its call.
_REACHED = 0.3
_MUCH = 0.3  # share of the time
_WORTH_A_WORD = 0.02  # share of the time
_CONVERSIONS = ("QUANTIZE", "DEQUANTIZE", "QuantizeLinear", "DequantizeLinear", "FakeQuantize", "Reorder", "Convert",
                "Cast", "CAST", "Transpose", "TRANSPOSE", "ReorderInput", "ReorderOutput")  # fmt: skip
_DOT_PRODUCTS = ("amx_int8", "avx512_vnni", "avx_vnni", "i8mm", "dotprod")
_HOW_INT8_IS_ADDED = {
    DOT_PRODUCT: "adds four INT8 products in one step",
    I8MM: "multiplies small INT8 matrices in one step",
    SATURATING: "has no instruction for INT8 dot products, so that they take several",
}


def compute_us(layer: Layer, e: Explanation) -> float:
    """Return what the multiply-adds of an operator take at the pace of the matrix product, in microseconds."""
    return layer.multiply_adds / e.multiply_adds_per_s[layer.arithmetic] * 1e6


def memory_us(layer: Layer, e: Explanation) -> float:
    """Return what a copy that moves as many bytes as an operator takes, in microseconds."""
    return layer.moved_bytes / copy_rate(layer.moved_bytes, e) * 1e6


def copy_rate(moved_bytes: int, e: Explanation) -> float:
    """Return the bytes a second of a copy of that size, between those measured by the logarithm of the size."""
    points = sorted(zip(e.copy_bytes, e.copy_bytes_per_s, strict=True))
    for (low, a), (high, b) in pairwise(points):
        if low <= moved_bytes <= high:
            return a + (b - a) * math.log(moved_bytes / low) / math.log(high / low)
    return points[0][1] if moved_bytes < points[0][0] else points[-1][1]


def fraction(layer: Layer, e: Explanation) -> float:
    """Return the part of the nearer limit that an operator reaches: 1 is as fast as this core can."""
    return max(compute_us(layer, e), memory_us(layer, e)) / layer.time_us if layer.time_us > 0 else 0.0


def bound(layer: Layer, e: Explanation) -> str:
    """Return what holds an operator up: compute, memory, or overhead where it comes near neither limit."""
    if fraction(layer, e) < _REACHED:
        return OVERHEAD
    return COMPUTE if compute_us(layer, e) >= memory_us(layer, e) else MEMORY


def shares(e: Explanation) -> dict[str, float]:
    """Return the part of the operators' time that is bound by compute, memory, and overhead."""
    total = _total_us(e.layers) or 1.0
    return {b: sum(x.time_us for x in e.layers if bound(x, e) == b) / total for b in (COMPUTE, MEMORY, OVERHEAD)}


def explained(
    found: Sequence[Explanation],
    isa: Sequence[str],
    machine: str,
    cpu_model: str,
    against: Callable[[Explanation, Explanation], Comparison | None],
) -> list[Explanation]:
    """Return the explanations with their sentences, each against the float32 file of the same runtime, if it is there.

    Args:
        isa, machine, cpu_model: as `local_info` has them.
        against: returns how the measured latencies of two files compare, None where they cannot be compared.
    """
    out = []
    for e in found:
        base = next((f for f in found if f.precision == "float32" and f.runtime == e.runtime and f is not e), None)
        base = None if e.precision == "float32" else base
        said = [
            _arithmetic(e, isa, machine, cpu_model),
            "" if base is None else _against(e, base, against(e, base)),
            _bounds(e),
            _kernels(e),
            _coverage(e),
        ]
        out.append(replace(e, sentences=tuple(s for s in said if s)))
    return out


def _arithmetic(e: Explanation, isa: Sequence[str], machine: str, cpu_model: str) -> str:
    ours = TARGETS[detect(isa, machine, cpu_model)].arithmetic
    instructions = [i for i in _DOT_PRODUCTS if i in isa]
    how = _HOW_INT8_IS_ADDED.get(ours, "widens INT8 products before it adds them")
    named = f" ({', '.join(instructions)})" if instructions else ""
    floats, ints = e.multiply_adds_per_s["float32"], e.multiply_adds_per_s["int8"]
    return (
        f"This CPU{named} {how}: a matrix product in {e.runtime} reaches {_giga(ints)} multiply-adds/s in int8 and "
        f"{_giga(floats)} in float32, so INT8 can be {ints / floats:.1f} times as fast where arithmetic alone counts."
    )


def _against(e: Explanation, base: Explanation, c: Comparison | None) -> str:
    medians = f"({e.median_ms:.2f} and {base.median_ms:.2f} ms)"
    said = f"{e.precision} and float32 cannot be told apart here {medians}"
    if c is not None and c.verdict != "cannot tell":
        said = f"{e.precision} is {c.verdict} than float32 here, {c.ratio:.2f} times its time {medians}"
    ours, theirs = _by_work(e.layers), _by_work(base.layers)
    gains = {k: theirs[k] - ours.get(k, 0.0) for k in theirs}
    most = max(gains, key=lambda k: gains[k])
    parts = []
    if gains[most] > 0:
        parts.append(f"most is won in {most} ({_change(theirs[most], ours.get(most, 0.0))})")
    # What is left of the time and gained least, among that which matters.
    rest = [k for k in theirs if k != most and ours.get(k, 0.0) > 0.05 * sum(ours.values())]
    if rest:
        least = max(rest, key=lambda k: ours[k] / theirs[k])
        parts.append(f"least in {least} ({_change(theirs[least], ours[least])})")
    return f"{said}; {', '.join(parts)}." if parts else f"{said}."


def _bounds(e: Explanation) -> str:
    part = shares(e)
    words = {
        COMPUTE: f"{part[COMPUTE]:.0%} of the operators' time is bound by arithmetic",
        MEMORY: f"{part[MEMORY]:.0%} by memory",
        OVERHEAD: f"{part[OVERHEAD]:.0%} comes near neither limit",
    }
    slow: dict[str, float] = {}
    for layer in e.layers:
        if bound(layer, e) == OVERHEAD:
            slow[work(layer.kind)] = slow.get(work(layer.kind), 0.0) + layer.time_us
    whose = f" (mostly {max(slow, key=lambda k: slow[k])})" if slow and part[OVERHEAD] > _WORTH_A_WORD else ""
    meaning = ""
    if part[OVERHEAD] > _MUCH:
        meaning = ": there the kernel itself is what takes the time, not the arithmetic and not the bytes"
    elif part[MEMORY] > _MUCH:
        meaning = ": what is bound by memory gains from INT8 only in that there are fewer bytes"
    return f"{words[COMPUTE]}, {words[MEMORY]}, and {words[OVERHEAD]}{whose}{meaning}."


def _kernels(e: Explanation) -> str:
    left = [x for x in e.layers if x.kernel == "built-in"]
    delegated = [x for x in e.layers if x.kernel == "XNNPACK"]
    said = []
    if left:
        kinds = ", ".join(dict.fromkeys(x.kind for x in left))
        said.append(
            f"{len(left)} of {len(e.layers)} operators are not delegated to XNNPACK ({kinds}) and take "
            f"{_share(left, e)} of the time"
        )
    elif delegated:
        said.append(f"XNNPACK runs all {len(delegated)} operators")
    slow = [x for x in e.layers if x.kernel.startswith("ref")]
    if _total_us(slow) > _WORTH_A_WORD * _total_us(e.layers):
        kinds = ", ".join(dict.fromkeys(x.kind for x in slow))
        said.append(f"{_share(slow, e)} of the time goes into reference kernels, which nobody made fast ({kinds})")
    if e.precision != "float32":
        floats = [x for x in e.layers if x.multiply_adds and x.arithmetic == "float32"]
        if floats:
            said.append(f"{_share(floats, e)} of the time goes into convolutions and dense layers left in float32")
        moving = [x for x in e.layers if work(x.kind) == "conversions"]
        if _total_us(moving) > _WORTH_A_WORD * _total_us(e.layers):
            said.append(
                f"{_share(moving, e)} goes into conversions ({', '.join(dict.fromkeys(x.kind for x in moving))})"
            )
    text = "; ".join(said)
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _coverage(e: Explanation) -> str:
    parts_ms = _total_us(e.layers) / 1e3
    text = (
        f"Timed by {e.how}, the operators come to {parts_ms:.2f} ms; the whole file takes {e.median_ms:.2f} ms, and "
        f"{e.fastest_ms:.2f} in its fastest run."
    )
    if parts_ms > (1 + _MUCH) * e.fastest_ms:
        text += " The profile was disturbed, so do not rely on it: profile again on a quiet machine."
    elif e.median_ms > (1 + _MUCH) * parts_ms:
        text += " What is missing is not in the operators: other work on the machine, or what happens between them."
    return text


def work(kind: str) -> str:
    """Return what kind of work an operator does, by one name for all runtimes."""
    if kind in _CONVERSIONS:
        return "conversions"
    words = kind.lower()
    if "conv" in words:
        return "depthwise convolutions" if "depthwise" in words or "group" in words else "convolutions"
    if any(w in words for w in ("fully", "gemm", "matmul")):
        return "dense layers"
    if any(w in words for w in ("mean", "pool", "reduce")):
        return "pooling"
    return "additions" if "add" in words or words == "eltwise" else kind


def _by_work(layers: Sequence[Layer]) -> dict[str, float]:
    found: dict[str, float] = {}
    for layer in layers:
        found[work(layer.kind)] = found.get(work(layer.kind), 0.0) + layer.time_us
    return found


def _total_us(layers: Sequence[Layer]) -> float:
    return sum(x.time_us for x in layers)


def _share(layers: Sequence[Layer], e: Explanation) -> str:
    return f"{_total_us(layers) / (_total_us(e.layers) or 1.0):.0%}"


def _change(before_us: float, after_us: float) -> str:
    return f"{before_us / 1e3:.2f} to {after_us / 1e3:.2f} ms"


def _giga(per_s: float) -> str:
    return f"{per_s / 1e9:,.0f} G"
