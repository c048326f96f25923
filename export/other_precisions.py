"""Which operators of an integer file compute in something else, why, and how much of the work they are."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgenet.export.graph import Graph, Op
    from edgenet.results import OtherPrecision

# Why an operator has another precision than its file.
OUTPUT = "output"  # the softmax or sigmoid of the answer: in 8 bits it would have ties
PIXELS = "pixels"  # it normalises pixels before they become the network's integers
NORMALISES = "normalises"  # it divides, or was just divided by: a small variance would be less than one step, 0
NO_KERNEL = "no-kernel"  # the kind has no integer form
COMPUTED_WEIGHTS = "computed-weights"  # its weights come from the picture, and are not stored
KEPT = "kept"  # `--keep` or the search for a budget asked for it

# In words, for a reader.
WHY = {
    OUTPUT: "the answer itself, which would have ties in 8 bits",
    PIXELS: "it normalises the pixels that the file takes",
    NORMALISES: "a divisor, or what is divided by one: small ones would become 0",
    NO_KERNEL: "there is no integer kernel of this kind",
    COMPUTED_WEIGHTS: "its weights are computed, not stored",
    KEPT: "--keep or the search for a budget asked for it",
}
OTHERS = "other_precisions"  # what a file's own notes call them

_OWN = {"int8": "int8", "int16x8": "int16", "int4": "int8"}
_CONVERTS = ("QUANTIZE", "DEQUANTIZE")


def unlike(graph: "Graph", dtype: str) -> "list[Op]":
    """Return the operators of a quantized graph that give real numbers in another type than `dtype`."""
    types = {"float32", "int8", "int16"} - {dtype}
    return [op for op in graph.ops if op.kind not in _CONVERTS and graph.tensors[op.outputs[0]].dtype in types]


def other_precisions(
    graph: "Graph", named: "Graph", precision: str, reasons: Mapping[str, tuple[str, str]] | None
) -> "tuple[OtherPrecision, ...]":
    """Return what computes in another precision than the file, most multiply-adds first.

    Args:
        graph: as the file has it, with its interface.
        named: the same operators with the file's names.
        reasons: {operator's output: (precision, why)}, of those that the quantization decided; None where nobody asked.
    """
    from edgenet.export.graph import multiply_adds  # late: whoever reads only the words above does without NumPy
    from edgenet.results import OtherPrecision

    if precision not in _OWN or reasons is None:
        return ()
    names = {a.outputs[0]: b.outputs[0] for a, b in zip(graph.ops, named.ops, strict=True)}
    whole = sum(multiply_adds(graph, op) for op in graph.ops) or 1
    found: dict[tuple[str, str, str], list[Op]] = {}
    for op in unlike(graph, _OWN[precision]):
        # What the quantization did not make, the interface did: the output in float, or what normalises raw pixels.
        by_interface = (graph.tensors[op.outputs[0]].dtype, OUTPUT if op.kind in ("SOFTMAX", "LOGISTIC") else PIXELS)
        found.setdefault((op.kind, *reasons.get(op.outputs[0], by_interface)), []).append(op)
    others = [
        OtherPrecision(
            kind,
            computed,
            why,
            tuple(names[op.outputs[0]] for op in ops),
            sum(multiply_adds(graph, op) for op in ops) / whole,
        )
        for (kind, computed, why), ops in found.items()
    ]
    return tuple(sorted(others, key=lambda o: -o.multiply_adds_share))
