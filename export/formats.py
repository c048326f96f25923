"""The formats that a network is written in, one function for each, and `export_graph`, which makes a file of it."""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

from edgenet.errors import InputError
from edgenet.export import onnx, openvino, tflite
from edgenet.export.graph import Graph
from edgenet.export.interface import with_io, with_logits
from edgenet.export.nchw import stored
from edgenet.export.network import OUTPUT, Network, canonical_names
from edgenet.export.other_precisions import OTHERS, other_precisions
from edgenet.files import WEIGHTS_BESIDE, atomic_write, sha256_of, size_of
from edgenet.results import Artifact, Calibration, TensorInfo
from edgenet.results.plain import write
from edgenet.results.records import PictureHistory

Exporter = Callable[..., Path]  # (network, graph, path, about), and batch where the format leaves it open


class Format(NamedTuple):
    """A kind of file that networks are written as."""

    suffix: str
    write: Exporter
    precisions: tuple[str, ...]
    packages: tuple[str, ...]  # whose versions decide the bytes
    layout: str  # of the input
    tells_beside: bool = False  # the file says what the one with its weights is called (WEIGHTS_BESIDE)
    fixed: bool = False  # one picture in, probabilities out, nothing else: what MediaPipe Tasks reads


FORMATS: dict[str, Format] = {
    "tflite": Format(tflite.SUFFIX, tflite.to_tflite, tflite.PRECISIONS, ("ai-edge-litert",), "NHWC", fixed=True),
    "onnx": Format(onnx.SUFFIX, onnx.to_onnx, onnx.PRECISIONS, ("onnx",), "NCHW", tells_beside=True),
    "openvino": Format(openvino.SUFFIX, openvino.to_openvino, openvino.PRECISIONS, ("openvino",), "NCHW"),
}


def export_graph(
    network: Network,
    graph: Graph,
    out: Path,
    *,
    format: str,
    precision: str,
    tag: str = "",
    io: str = "float32",
    batch: int | None = 1,
    logits: bool = False,
    calibration: Calibration | None = None,
    pictures: PictureHistory | None = None,
    options: Mapping[str, Any] | None = None,
    reasons: Mapping[str, tuple[str, str]] | None = None,
) -> Artifact:
    """Write `graph`, a quantized form of `network`, to OUT/MODEL_PRECISION<tag>.<suffix>; return what it is.

    The file appears whole or not at all. Size and hash are of all that belongs to it: an OpenVINO IR is two files.

    Args:
        batch: pictures that the file takes at once, None for as many as the caller likes. A format that is fixed
            always takes one.
        pictures: which pictures had a role in this file; those of `network` by default.
        reasons: of an integer graph, why operators compute in something else: {output: (precision, why)}, as
            other_precisions.py has it; None where the file is to say nothing of it.
        logits: what the softmax reads is a second output. A format that is fixed has none.

    Raises:
        InputError: unknown format or io type, or a precision that the format lacks; the disk is full or not writable.
        MissingDependency: the format's package is not installed.
    """
    kind = _format(format, precision)
    start = time.perf_counter()
    about: dict[str, Any] = {
        "edgenet_version": version("edgenet"),
        "model": network.name,
        "precision": precision,
        "io_dtype": io,
        "preprocessing": network.preprocessing.to_json(),
        "task": network.task.to_json(network.class_names),
        "weights": network.weights,
        "calibration": calibration.fingerprint if calibration else None,
        "pictures": write(pictures or network.pictures),
    }
    path = out / f"{network.name}_{precision}{tag}{kind.suffix}"
    whole = before = with_io(graph, io, network.preprocessing)
    if whole.outputs[0] != OUTPUT:  # what is called so is an integer that is dequantized last
        whole = canonical_names(whole)
    if logits and not kind.fixed:
        whole = with_logits(whole)
    if others := other_precisions(before, whole, precision, reasons):
        about[OTHERS] = [{**write(o), "operators": len(o.operators)} for o in others]
    own = {"batch": batch} if not kind.fixed else {}
    inputs, outputs = ([_info(whole, n, kind.layout, **own) for n in names] for names in (whole.inputs, whole.outputs))
    # onnxruntime and OpenVINO do not tell what the integers of an output mean; the file does.
    about["output_scales"] = {t.name: [t.scale, t.zero_point] for t in outputs if t.scale is not None}
    with atomic_write(path) as tmp, _beside(tmp, path):
        kind.write(network, whole, tmp, about, **own, **({"name": path.name} if kind.tells_beside else {}))
    return Artifact(
        id=path.name,
        model=network.name,
        format=format,
        precision=precision,
        path=path.name,
        size_bytes=size_of(path),
        sha256=sha256_of(path),
        io_dtype=io,
        calibration=calibration.fingerprint if calibration else None,
        weights=network.weights,
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        preprocessing=network.preprocessing.to_json(),
        weight_bits=tflite.weight_bits(whole),
        stored_bits=tflite.stored_bits(whole, format),
        options=dict(options or {}),
        other_precisions=others,
        export_s=round(time.perf_counter() - start, 3),
        versions=versions("edgenet", "tensorflow", *kind.packages),
    )


def _format(format: str, precision: str) -> Format:
    """Return the format of that name. Raises InputError where there is none, or it lacks the precision."""
    if format not in FORMATS:
        raise InputError(f"unknown format '{format}' (valid: {', '.join(FORMATS)})")
    kind = FORMATS[format]
    if precision not in kind.precisions:
        others = [name for name, f in FORMATS.items() if precision in f.precisions]
        raise InputError(
            f"{format} has no precision {precision} (valid: {', '.join(kind.precisions)})"
            + (f"; {', '.join(others)} has" if others else "")
        )
    return kind


@contextmanager
def _beside(tmp: Path, path: Path) -> Iterator[None]:
    """Put the weights that were written beside `tmp` beside `path` when the block ends well, else delete them.

    An older `path` goes first: if all ends between the renames, a file is missing, and none has another's weights.
    """
    suffix = WEIGHTS_BESIDE.get(path.suffix)
    if suffix is None:
        yield
        return
    new, old = tmp.with_suffix(suffix), path.with_suffix(suffix)
    try:
        yield
        if new.exists():
            path.unlink(missing_ok=True)
            os.replace(new, old)
        elif old.exists():  # of a larger file that stood here
            path.unlink(missing_ok=True)
            old.unlink()
    finally:
        new.unlink(missing_ok=True)


def versions(*packages: str) -> dict[str, str]:
    """Return the installed version of each package, leaving out those that are not installed."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _info(graph: Graph, name: str, layout: str, batch: int | None = 1) -> TensorInfo:
    t = graph.tensors[name]
    shape = (batch or -1, *(stored(t.shape) if layout == "NCHW" else t.shape)[1:])
    if t.quantization is None:
        return TensorInfo(name, shape, t.dtype)
    return TensorInfo(name, shape, t.dtype, float(t.quantization.scale[0]), int(t.quantization.zero_point[0]))
