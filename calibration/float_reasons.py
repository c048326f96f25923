"""Why an operator of an integer graph computes in something else: what `quantize` decided, told from what it made."""

from collections.abc import Mapping

from edgenet.calibration.quantize import ACTIVATIONS, INT8_KINDS, INT16_KINDS, constant_weights, normalising
from edgenet.export.graph import WEIGHT_AXIS, Graph, Op
from edgenet.export.other_precisions import COMPUTED_WEIGHTS, KEPT, NO_KERNEL, NORMALISES, OUTPUT, unlike

_KINDS = {"int8": INT8_KINDS, "int16": INT16_KINDS}


def float_reasons(
    graph: Graph, precision: str, exceptions: Mapping[str, str] | None = None
) -> dict[str, tuple[str, str]]:
    """Return {operator's output: (precision that it has, why)} of those that are not as the file.

    Args:
        graph: what `quantize` returned.
        precision: int8, int16x8 or int4; any other has no such operators.
        exceptions: as `quantize` took them.
    """
    own = ACTIVATIONS.get(precision)
    if own is None:
        return {}
    divided, asked = normalising(graph), exceptions or {}
    return {op.outputs[0]: _reason(graph, op, own, divided, asked) for op in unlike(graph, own)}


def _reason(graph: Graph, op: Op, own: str, divided: set[str], asked: Mapping[str, str]) -> tuple[str, str]:
    out = op.outputs[0]
    dtype, wanted = graph.tensors[out].dtype, asked.get(out, own)
    if dtype != "float32":
        return dtype, KEPT
    if out in asked and wanted != "int16":
        return wanted, KEPT
    if op.kind not in _KINDS.get(wanted, INT8_KINDS):
        return dtype, NO_KERNEL
    if out in divided:
        return dtype, NORMALISES
    if op.kind in WEIGHT_AXIS and constant_weights(graph, op) is None:
        return dtype, COMPUTED_WEIGHTS
    return dtype, OUTPUT
