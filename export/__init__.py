"""Write a network as files for phones, boards and desktops, one file a format, and say what a file really is."""

import time
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from edgenet.errors import InputError
from edgenet.export.graph import Graph
from edgenet.export.interface import IO_DTYPES, with_io
from edgenet.export.network import Network, Source, find_source
from edgenet.export.tflite import to_tflite
from edgenet.results import Artifact, Calibration, TensorInfo, atomic_write, sha256_of

__all__ = ["FORMATS", "IO_DTYPES", "Network", "Source", "export_graph", "find_source", "versions"]

Exporter = Callable[[Network, Graph, Path, dict[str, Any]], Path]
# format -> (suffix of its files, what writes one)
FORMATS: dict[str, tuple[str, Exporter]] = {"tflite": (".tflite", to_tflite)}


def export_graph(
    network: Network,
    graph: Graph,
    out: Path,
    *,
    format: str,
    precision: str,
    io: str = "float32",
    calibration: Calibration | None = None,
    options: Mapping[str, Any] | None = None,
) -> Artifact:
    """Write `graph`, a quantized form of `network`, to OUT/MODEL_PRECISION.<suffix> and return what it is.

    The file appears whole or not at all.

    Raises:
        InputError: unknown format or io type; the disk is full or not writable.
    """
    if format not in FORMATS:
        raise InputError(f"unknown format '{format}' (valid: {', '.join(FORMATS)})")
    suffix, write = FORMATS[format]
    start = time.perf_counter()
    about = {
        "edgenet_version": version("edgenet"),
        "model": network.name,
        "precision": precision,
        "io_dtype": io,
        "preprocessing": network.preprocessing.to_json(),
        "weights": network.weights,
        "calibration": calibration.fingerprint if calibration else None,
    }
    path = out / f"{network.name}_{precision}{suffix}"
    whole = with_io(graph, io, network.preprocessing)
    with atomic_write(path) as tmp:
        write(network, whole, tmp, about)
    return Artifact(
        id=path.name,
        model=network.name,
        format=format,
        precision=precision,
        path=path.name,
        size_bytes=path.stat().st_size,
        sha256=sha256_of(path),
        io_dtype=io,
        calibration=calibration.fingerprint if calibration else None,
        weights=network.weights,
        inputs=tuple(_info(whole, n) for n in whole.inputs),
        outputs=tuple(_info(whole, n) for n in whole.outputs),
        preprocessing=network.preprocessing.to_json(),
        options=dict(options or {}),
        export_s=round(time.perf_counter() - start, 3),
        versions=versions("edgenet", "tensorflow", "ai-edge-litert"),
    )


def versions(*packages: str) -> dict[str, str]:
    """Return the installed version of each package, leaving out those that are not installed."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _info(graph: Graph, name: str) -> TensorInfo:
    t = graph.tensors[name]
    if t.quantization is None:
        return TensorInfo(name, t.shape, t.dtype)
    return TensorInfo(name, t.shape, t.dtype, float(t.quantization.scale[0]), int(t.quantization.zero_point[0]))
