"""Readers of strangers' files. They run in a child process (edgenet/sandbox) and give plain values.

Each says first what a file is, without building it; building loads TensorFlow for Keras' and TensorFlow's own formats.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgenet.errors import InputError
from edgenet.export import metadata
from edgenet.export.foreign.plain_graph import to_plain
from edgenet.export.foreign.tried import tried
from edgenet.export.graph import Graph
from edgenet.export.importers.classifier import checked, chosen_output, ending_of, float_constants
from edgenet.export.importers.fuse import drop_unused
from edgenet.export.importers.labels import own_names
from edgenet.export.importers.model_file import ModelFacts, ModelFile, sha256_of_all
from edgenet.export.tflite_file import PARSE_ERRORS, read_tflite
from edgenet.files import sha256_of
from edgenet.images import Preprocessing
from edgenet.images.roles import read_history
from edgenet.results.plain import write
from edgenet.tasks import Task


def find(kind: str, path: str, output: str | None) -> dict[str, Any]:
    """Return what a model file says of itself, and its graph where that needs no building."""
    found = KINDS[kind](Path(path), output)
    graph = to_plain(found.build((0, 0, 0))) if kind == "tflite" else None  # the file fixes its shape
    return {"facts": write(found.facts), "graph": graph}


def build(kind: str, path: str, output: str | None, shape: list[int]) -> dict[str, Any]:
    """Return the graph for an input of this (H, W, C), and the hash of what it was made from."""
    found = KINDS[kind](Path(path), output)
    height, width, channels = shape
    return {"graph": to_plain(found.build((height, width, channels))), "sha256": found.facts.sha256}


def tflite_graph(path: str) -> dict[str, Any]:
    """Return the graph of a .tflite file, quantized or not."""
    try:
        return to_plain(read_tflite(Path(path).read_bytes()))
    except InputError as e:
        raise InputError(f"{path}: {e}") from None


def _find_onnx(path: Path, output: str | None) -> ModelFile:
    from edgenet.export.importers import onnx_importer as importer
    from edgenet.export.importers.onnx_graph import NHWC

    model = importer.with_output(importer.load_onnx(path), output, str(path))
    shape = importer.input_shape(model, str(path))
    if len(shape) != 4 or not {1, 3} & {shape[1], shape[3]}:
        shown = "x".join("?" if n is None else str(n) for n in shape)
        raise InputError(
            f"{path} takes an input of {shown}; edgenet feeds colour pictures, N x 3 x H x W or N x H x W x 3, or grey "
            "ones with 1 in the place of 3"
        )
    nchw = shape[1] == 3 or (shape[1] == 1 and shape[3] != 3)
    files = [path, *(path.parent / f for f in importer.external_files_of(path))]
    props = {p.key: p.value for p in model.metadata_props if isinstance(p.key, str) and isinstance(p.value, str)}
    dims = model.graph.output[0].type.tensor_type.shape.dim
    sizes = [int(d.dim_value) for d in dims[1:] if d.HasField("dim_value")]
    classes = int(np.prod(sizes)) if len(dims) > 1 and len(sizes) == len(dims) - 1 and min(sizes) > 0 else None

    def build(shape: tuple[int, int, int]) -> Graph:
        height, width, channels = shape
        full = (1, channels, height, width) if nchw else (1, height, width, channels)
        return tried(path, checked(path, importer.from_onnx(model, full)))

    own = _own(props.get("edgenet"))
    facts = ModelFacts(
        tuple(shape[i] for i in NHWC) if nchw else shape,
        sha256_of_all(files),
        classes,
        _own_preprocessing(own),
        own_names(own, props["labels"].splitlines()) if props.get("labels") else None,
        read_history(own),
        task=Task.from_json(own.get("task")),
    )
    return ModelFile(facts, build)


def _find_tflite(path: Path, output: str | None) -> ModelFile:
    data = path.read_bytes()
    try:
        graph = read_tflite(data)
        buffers, files = metadata.read_buffers(data), metadata.read_files(data)
    except InputError as e:
        raise InputError(f"{path}: {e}") from None
    except PARSE_ERRORS:
        raise InputError(f"{path} is not a whole .tflite file: convert or copy it again") from None
    if output is not None or len(graph.outputs) > 1:
        graph = drop_unused(graph.with_outputs([chosen_output(path, graph.outputs, output)]))
    graph = tried(path, checked(path, float_constants(path, graph)))
    shape = graph.tensors[graph.inputs[0]].shape
    about = buffers.get("edgenet")
    own = _own(about.decode("utf-8", "replace") if about else None)
    labels = files.get(metadata.LABELS_FILE)
    facts = ModelFacts(
        shape,
        sha256_of(path),
        int(np.prod(graph.tensors[graph.outputs[0]].shape)),
        _own_preprocessing(own),
        own_names(own, labels.decode("utf-8", "replace").splitlines()) if labels else None,
        read_history(own),
        _normalization(data),
        ending_of(graph),
        Task.from_json(own.get("task")),
    )
    return ModelFile(facts, lambda shape: graph)


def _normalization(data: bytes) -> str:
    """Return mean and std of a file's TFLite metadata as `--preprocess` takes them; it says nothing of the crop."""
    try:
        image = (metadata.read_metadata(data).get("inputs") or [{}])[0]
    except InputError:
        return ""
    mean, std = image.get("mean"), image.get("std")
    return f"mean={','.join(f'{m:g}' for m in mean)} std={','.join(f'{s:g}' for s in std)}" if mean and std else ""


def _find_h5(path: Path, output: str | None) -> ModelFile:
    from edgenet.export.importers.keras_file import find_h5

    return find_h5(path, output)


def _find_keras(path: Path, output: str | None) -> ModelFile:
    from edgenet.export.importers.keras_file import find_keras

    return find_keras(path, output)


def _find_saved_model(path: Path, output: str | None) -> ModelFile:
    from edgenet.export.importers.saved_model import find_saved_model

    return find_saved_model(path, output)


KINDS: dict[str, Callable[[Path, str | None], ModelFile]] = {
    "onnx": _find_onnx,
    "tflite": _find_tflite,
    "h5": _find_h5,
    "keras": _find_keras,
    "savedmodel": _find_saved_model,
}


def _own(about: str | None) -> dict[str, Any]:
    """Return what edgenet wrote of a file into it, nothing where that is not there or damaged."""
    try:
        own = json.loads(about) if about else {}
    except ValueError:
        return {}
    return own if isinstance(own, dict) else {}


def _own_preprocessing(own: Mapping[str, Any]) -> Preprocessing | None:
    """Return the preprocessing that a file of edgenet's carries."""
    try:
        return Preprocessing.from_json(own["preprocessing"])
    except (ValueError, KeyError, TypeError, InputError):
        return None
