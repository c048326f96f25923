"""A QDQ .onnx compiled for a Hexagon by onnxruntime-qnn: a small .onnx with the context binary that it loads."""

import csv
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgenet.device_bench.qnn import compile_onnx as child
from edgenet.device_bench.qnn.built import FILLED, READ, SPILLED, WRITTEN, Built
from edgenet.device_bench.qnn.chip import Chip
from edgenet.device_bench.tool import confined_module, run_tool
from edgenet.errors import DeviceError
from edgenet.export.importers.onnx_importer import read_onnx
from edgenet.results import LeftOperators

NAME = "onnxruntime-qnn"
_QUANTIZE, _DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
_CONTEXT = "EPContext"
_NO_REASON = "onnxruntime-qnn gives no reason"
# Lines of the profile, and what is read from them.
_CYCLES = "Simulated (Accelerator exec cycles)"
_TIME, _LOWER, _UPPER = (
    f"Simulated (Accelerator exec time us{w})" for w in ("", " (lower estimate)", " (upper estimate)")
)
_FIRST, _LAST, _FILL, _SPILL = "Input Fill", "Output Spill", "Intermediate Fill", "Intermediate Spill"
_UNPRICED = "Missing Ops (Number of Ops with no Costs associated)"


def compile_onnx(model: Path, name: str, chip: Chip, out: Path, timeout_s: float) -> Built:
    """Compile `model` for `chip` into the folder `out`, as NAME.onnx and its context binary.

    Raises:
        MissingDependency: the package onnx is not installed.
        DeviceError: the compiler failed, was killed, or wrote half a file.
    """
    compiled = out / f"{name}.onnx"
    arguments = [str(model), str(compiled), str(chip.qnn_id)]
    run_tool(NAME, confined_module(child.__name__, arguments, out), timeout_s)
    files = _whole(out, compiled)
    trace = _json(out / child.TRACE)
    after = read_onnx(compiled)
    n_operators, left = operators(read_onnx(model), after, trace)
    n_parts = sum(node.op_type == _CONTEXT for node in after.graph.node)
    return Built(files, n_operators, left, is_whole=not left, **estimate(_profile(out / child.PROFILE), n_parts))


def operators(model: Any, compiled: Any, trace: Mapping[str, Any]) -> tuple[int, tuple[LeftOperators, ...]]:
    """Return how many operators a QDQ file has, and which of them the NPU does not run.

    QuantizeLinear and DequantizeLinear carry the scales of the operators between them and count only where they
    convert: a QuantizeLinear that no operator feeds, and a DequantizeLinear whose result is the network's.

    Args:
        model, compiled: onnx.ModelProto before and after.
        trace: qnn_op_trace.json.
    """
    made_by = {output: node.op_type for node in model.graph.node for output in node.output}
    results = {output.name for output in model.graph.output}

    def counts(node: Any) -> bool:
        if node.op_type == _QUANTIZE:
            return made_by.get(node.input[0]) in (None, _DEQUANTIZE)
        return node.op_type != _DEQUANTIZE or node.output[0] in results

    # onnxruntime renames nodes, and adds some to change a layout; what is left is in the compiled file, by its outputs.
    try:
        whys = {str(n["node_name"]): str(n["reason"]).rstrip(".") for n in trace.get("unsupported_nodes", ())}
    except (KeyError, TypeError, AttributeError):
        raise DeviceError(f"{NAME}'s list of what it refuses is not that of a version that edgenet knows") from None
    ours = {node.output[0]: node for node in model.graph.node}
    left: Counter[tuple[str, str]] = Counter()
    added = 0
    for node in compiled.graph.node:
        source = ours.get(node.output[0])
        if node.op_type == _CONTEXT or (source is not None and not counts(source)):
            continue
        if source is None:
            if node.op_type in (_QUANTIZE, _DEQUANTIZE):
                continue
            added += 1
        left[node.op_type, whys.get(node.name, _NO_REASON)] += 1
    rows = sorted(left.items(), key=lambda row: (-row[1], row[0]))
    n = sum(map(counts, model.graph.node)) + added
    return n, tuple(LeftOperators(kind, count, why) for (kind, why), count in rows)


def estimate(profile: Sequence[Mapping[str, float]], n_parts: int) -> dict[str, Any]:
    """Return what QNN estimates, as fields of `Built`; nothing where it does not know the chip.

    Args:
        profile: for each part that QNN reports, message -> number. With each part that it finishes it reports those
            before it once more.
        n_parts: that the network has on the NPU.

    Raises:
        DeviceError: the numbers are none.
    """
    parts = profile[-n_parts:] if n_parts and len(profile) in (n_parts, n_parts * (n_parts + 1) // 2) else ()
    if not parts or not all(key in part for part in parts for key in (_CYCLES, _TIME, _LOWER, _UPPER)):
        return {}
    sums = {key: sum(part.get(key, 0.0) for part in parts) for key in (*parts[0], _FIRST, _LAST, _FILL, _SPILL)}
    cycles, time_us, lower_us, upper_us = numbers = [sums[key] for key in (_CYCLES, _TIME, _LOWER, _UPPER)]
    others = [sums.get(key, 0.0) for key in (_FIRST, _LAST, _FILL, _SPILL, _UNPRICED)]
    sound = all(math.isfinite(v) and v > 0 for v in numbers) and all(math.isfinite(v) for v in others)
    if not sound or not lower_us <= time_us <= upper_us:
        raise DeviceError(f"{NAME}'s estimate has numbers that are none: {[*numbers, *others]}")
    return {
        "cycles": round(cycles),
        "inference_ms": time_us / 1e3,
        "inference_bounds_ms": (lower_us / 1e3, upper_us / 1e3),
        "moved_bytes": {
            READ: round(sums[_FIRST] + sums[_FILL]),
            WRITTEN: round(sums[_LAST] + sums[_SPILL]),
            FILLED: round(sums[_FILL]),
            SPILLED: round(sums[_SPILL]),
        },
        "unpriced": round(sums.get(_UNPRICED, 0)),
    }


def _whole(out: Path, compiled: Path) -> tuple[Path, ...]:
    """Return the files that the child says it wrote, the .onnx first. Raises DeviceError where one is not whole."""
    sizes = _json(out / child.DONE)
    files = [compiled, *(out / name for name in sizes if name != compiled.name)]
    if len(files) < 2 or any(not p.is_file() or p.stat().st_size != sizes.get(p.name) for p in files):
        raise DeviceError(f"{NAME} wrote half a file")
    return tuple(files)


def _json(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found
    except (OSError, ValueError, RecursionError) as e:
        raise DeviceError(f"{NAME} ended well and wrote no {path.name} that can be read ({_why(e)})") from None


def _why(e: Exception) -> str:
    return (e.strerror or "no reason told") if isinstance(e, OSError) else " ".join(str(e).split())[:200]


def _profile(path: Path) -> list[dict[str, float]]:
    """Return what the profile of a compilation says, for each part that it reports: message -> number."""
    parts: list[dict[str, float]] = []
    try:
        with open(path, newline="", encoding="utf-8", errors="replace") as f:
            for row in csv.DictReader(f):
                if row.get("Message") == "FINALIZE":
                    parts.append({})
                if parts:
                    parts[-1][str(row.get("Event Identifier"))] = float(row.get("Time") or "nan")
    except (OSError, ValueError, csv.Error) as e:
        raise DeviceError(f"{NAME}'s profile cannot be read ({_why(e)})") from None
    return parts
