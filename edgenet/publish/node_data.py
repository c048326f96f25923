"""What is known of single operators, as node data for Model Explorer, which colours the graph of a .tflite file by it.

A file of node data has one figure of one model. Its keys are names of output tensors, which Model Explorer looks up in
the graph. https://github.com/google-ai-edge/model-explorer/wiki/2.-User-Guide#custom-node-data
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from edgenet.calibration import NEEDS_CALIBRATION
from edgenet.results import Artifact, Explanation, Results

MADE_BY = "made_by"  # the key by which a file is known again as edgenet's
_FORMAT = "tflite"  # Model Explorer reads no other of edgenet's formats by itself
_GROWING = [{"stop": 0, "bgColor": "#ffffff"}, {"stop": 1, "bgColor": "#d7301f"}]  # the largest needs attention
_FALLING = [{"stop": 0, "bgColor": "#d7301f"}, {"stop": 1, "bgColor": "#ffffff"}]  # the smallest does
_COLOURS = {"int8": "#c7e9c0", "int16x8": "#c7e9c0", "int16": "#9ecae1", "float16": "#fdd0a2", "float32": "#fcae91",
            "weight-only": "#dadaeb"}  # fmt: skip
_SQNR = "SQNR of this layer alone in int8 (dB)"
_CONVERTS = ("QUANTIZE", "DEQUANTIZE")  # between precisions: they have none of their own


def node_data(results: Results) -> dict[str, dict[str, Any]]:
    """Return the content of each file by its name: MODEL.tflite.FIGURE.json.

    FIGURE is time (microseconds of an operator, by `bench --explain`), precision (what an operator of an integer file
    computes in) or sqnr (dB that are left of the logits where this layer alone is int8, by the search for a budget).
    """
    found: dict[str, dict[str, Any]] = {}
    for a in results.artifacts:
        if a.format != _FORMAT:
            continue
        explained = explanations_of(results, a)
        for e in explained:
            where = "" if len(explained) == 1 else f", {e.device}, {e.runtime}, threads: {e.threads}"
            times = {layer.name: {"value": layer.time_us} for layer in e.layers}
            suffix = "" if len(explained) == 1 else f"-{explained.index(e) + 1}"
            found[_file(a, f"time{suffix}")] = _figure(results, f"time (µs){where}", times, gradient=_GROWING)
        if precisions := _precisions(results, a, explained):
            values = {name: {"value": p, "bgColor": _COLOURS.get(p, "#ffffff")} for name, p in precisions.items()}
            found[_file(a, "precision")] = _figure(results, "precision", values)
        if sqnr := _sqnr(results, a):
            alone = {name: {"value": db} for name, db in sqnr.items()}
            found[_file(a, "sqnr")] = _figure(results, _SQNR, alone, gradient=_FALLING)
    return found


def missing(results: Results) -> tuple[str, ...]:
    """Return a sentence for each figure that the run has not recorded, with the command that records it."""
    files = [a for a in results.artifacts if a.format == _FORMAT]
    if not files:
        return ("Model Explorer reads .tflite, and the run has no such file: run it again with --format tflite",)
    said = []
    if without := [a for a in files if not explanations_of(results, a)]:
        names = f"{without[0].path}{f' and {len(without) - 1} more' * (len(without) > 1)}"
        said.append(f"no times of operators for {names}: `edgenet bench OUT/FILE --explain --out OUT` records them")
    if not any(_sqnr(results, a) for a in files):
        said.append("no SQNR of layers: `edgenet run` with --min-sqnr or --max-accuracy-drop records it, where it "
                    "keeps layers in other precisions")  # fmt: skip
    return tuple(said)


def explanations_of(results: Results, a: Artifact) -> list[Explanation]:
    """Return what was timed of a file's operators in LiteRT, whose names are those of the file's tensors."""
    return [
        e
        for e in results.explanations
        if e.artifact == a.id and e.runtime == "litert" and e.artifact_sha256 in ("", a.sha256)
    ]


def _file(a: Artifact, figure: str) -> str:
    return f"{a.path.replace('/', '_')}.{figure}.json"


def _figure(results: Results, name: str, values: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return {"name": name, "results": values, **more, MADE_BY: f"edgenet {results.context.edgenet_version}".strip()}


def _precisions(results: Results, a: Artifact, explained: Iterable[Explanation]) -> dict[str, str]:
    """Return what each operator of an integer file computes in, by its output; {} of any other file."""
    if a.precision not in NEEDS_CALIBRATION:
        return {}
    record = results.context.calibration
    known = {t.name: t.kind for t in record.tensors} if record is not None else {}
    known |= {layer.name: layer.kind for e in explained for layer in e.layers}
    found = {name: a.precision for name, kind in known.items() if kind not in (*_CONVERTS, "INPUT", "")}
    for other in a.other_precisions:
        found |= dict.fromkeys(other.operators, other.precision)
    return found


def _sqnr(results: Results, a: Artifact) -> dict[str, float]:
    search = results.context.search.get(a.format)
    if search is None or a.precision != "int8" or a.made_for:
        return {}
    return {s.name: s.sqnr_db for s in search.sensitivity if s.sqnr_db is not None and math.isfinite(s.sqnr_db)}
