"""From a name of the zoo or a model file to a `Source`: verified at once, built later.

A model may be a .keras or .h5 file of Keras 2 or 3, a SavedModel folder, an ONNX file or a float .tflite. The content
of a file decides what it is, not its name. Checking reads no more than it has to and never loads TensorFlow. Nothing in
a file is run: pickles, Lambda layers and custom code are refused.
"""

import functools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgenet.errors import InputError
from edgenet.export import metadata
from edgenet.export.graph import Graph
from edgenet.export.importers.classifier import checked, chosen_output, ending_of, float_constants
from edgenet.export.importers.fuse import drop_unused
from edgenet.export.importers.labels import class_labels, own_names
from edgenet.export.importers.model_file import ModelFile, sha256_of_all
from edgenet.export.inspect import first_bytes, looks_like
from edgenet.export.network import Source
from edgenet.export.tflite_file import PARSE_ERRORS, read_tflite
from edgenet.files import sha256_of
from edgenet.images import Pixels, Preprocessing, normalise
from edgenet.images.preprocess_option import EXAMPLES, PRESETS, parse_preprocess, preprocessing_of
from edgenet.images.roles import read_history
from edgenet.models import weights as weights_module
from edgenet.models import zoo
from edgenet.results.records import PictureHistory
from edgenet.tasks import AUTO, CLASSES, Task, told_from

BATCH_PIXELS = 32 * 224**2  # of the batch whose statistics a network with random weights gets
SUFFIXES = (".keras", ".h5", ".hdf5", ".onnx", ".tflite")
VALID = "a .keras, .h5, .onnx or float .tflite file, or a SavedModel folder"
# Files that people have instead, and what to do.
_OTHERS = {
    ".pt": "a PyTorch file, which may carry code: export the model, torch.onnx.export(model, ...), and give the .onnx",
    ".pth": "a PyTorch file of weights: export the model, torch.onnx.export(model, ...), and give the .onnx",
    ".pkl": "a pickle, which edgenet never runs",
    ".pickle": "a pickle, which edgenet never runs",
    ".xml": "an OpenVINO model: give the file that it was made from",
    ".pb": "a frozen graph or a part of a SavedModel: give the SavedModel's folder",
    ".mlmodel": "a Core ML model: give the file that it was made from",
    ".mlpackage": "a Core ML model: give the file that it was made from",
    ".task": "a MediaPipe bundle: give the float .tflite in it",
    ".safetensors": "a file of weights: give a model, or a zoo model with --weights",
    ".npz": "a file of weights: give a model, or a zoo model with --weights",
    ".toml": "a recipe: `edgenet run` takes it",
}


def find_source(
    model: str,
    weights: Path | None = None,
    random_weights: bool = False,
    *,
    preprocess: str | None = None,
    labels: Path | None = None,
    task: str = AUTO,
    output: str | None = None,
) -> Source:
    """Find the model that the user means: a name of the zoo, or the path of a model file or folder.

    Args:
        weights: a file of pretrained weights; the zoo's package of them by default.
        random_weights: use the initialiser's weights instead.
        preprocess: how a picture becomes the input of a model file that does not say so (see preprocess_option.py).
        labels: names of the classes of a model file.
        task, output: of a model file, what its output means, and which of several is wanted.

    Raises:
        InputError: unknown model; weights that are missing, damaged or another variant's; a file that is no model, or
            none that edgenet reads.
        MissingDependency: the package with the weights is not installed.
    """
    if model not in zoo.MODELS and is_path(model):
        if weights or random_weights:
            option = "--weights" if weights else "--random-weights"
            raise InputError(f"{model} carries its weights: leave {option} out, which is for models of the zoo")
        return find_file(model, preprocess, labels, task, output)
    spec = zoo.spec(model)
    for option, given in (("--preprocess", preprocess), ("--labels", labels)):
        if given is not None and weights is None:
            raise InputError(
                f"{option} is for a model file or --weights; {model} is of the zoo, which knows it: leave it out"
            )
    for option, given in (("--output", output), ("--task", None if task in (AUTO, CLASSES.kind) else task)):
        if given is not None:
            raise InputError(f"{option} is for a model file; {model} is of the zoo, which knows it: leave it out")
    if weights and random_weights:
        raise InputError("--weights and --random-weights exclude each other: give one")
    loaded = (
        weights_module.random(spec, spec.classes)
        if random_weights
        else weights_module.load(spec, weights, None if weights else spec.classes)
    )
    spec = loaded.network(spec)
    ids, names = class_labels(spec.classes, labels)
    preprocessing = preprocessing_of(spec)
    if preprocess is not None:
        preprocessing = parse_preprocess(
            preprocess, None if "size=" in preprocess else (spec.resolution_px, spec.resolution_px)
        )

    def build() -> Graph:
        from edgenet.models.efficientnet import deploy

        return deploy(spec, loaded.arrays, preprocessing.resolution_px)

    def build_on(pixels: Pixels) -> Graph:
        from edgenet.models.efficientnet import deploy, with_batch_statistics

        x = normalise(pixels[: max(2, BATCH_PIXELS // spec.resolution_px**2)], preprocessing)
        return deploy(spec, with_batch_statistics(spec, loaded.arrays, x))

    # The zoo's own weights learned ImageNet's training pictures and nothing else; nobody knows what a file's learned.
    pictures = PictureHistory(complete=weights is None)
    source = Source(
        spec.name, preprocessing, ids, names, loaded.provenance, loaded.sha256, build, pictures=pictures,
        findings=loaded.findings,
    )  # fmt: skip
    return replace(source, build_on=build_on) if random_weights else source


def is_path(model: str) -> bool:
    """Whether the user means a file or a folder, there or not, and not a name of the zoo."""
    path = Path(model)
    return "/" in model or "\\" in model or path.suffix.lower() in (*SUFFIXES, *_OTHERS) or path.exists()


def find_file(
    model: str,
    preprocess: str | None = None,
    labels: Path | None = None,
    task: str = AUTO,
    output: str | None = None,
) -> Source:
    """Return the `Source` of a model file or folder.

    Args:
        preprocess: how its input is made (see edgenet.images.preprocess_option); None where the file says so itself.
        labels: the names of its classes, one a line, or CSV index,wnid,name.
        task: what its output means (edgenet.tasks); auto goes by how the network ends.
        output: the name of the output that is wanted, where it has several.

    Raises:
        InputError: no such file, not a model that edgenet reads, or one that is no image classifier; the input's
            preprocessing is not known; labels that do not fit.
        MissingDependency: the package that reads this kind of file is not installed.
    """
    path = Path(model)
    found = KINDS[kind_of(path)](path, output)
    size, channels = input_size(path, found.shape)
    if preprocess is not None:
        preprocessing = parse_preprocess(preprocess, size, channels)
    elif found.preprocessing is not None:
        preprocessing = found.preprocessing
    else:
        hint = f" (its metadata says {found.hint})" if found.hint else ""
        raise InputError(
            f"{path} does not say how its input is made from a picture{hint}: give --preprocess, a preset "
            f"({', '.join(PRESETS)}) or settings, {EXAMPLES}" + ("" if size else " with size=PIXELS")
        )
    build = functools.cache(lambda: found.build(preprocessing.shape))
    kind, n = _task(path, found, build, task, labels is not None)
    if kind.kind == "embedding" and labels is not None:
        raise InputError(f"--labels names classes, and {path} gives an embedding: leave it out, or give --task classes")
    ids, names = class_labels(kind.n_names(n), labels, found.labels, kind)
    return Source(
        artifact_name(path), preprocessing, ids, names, path.name, found.sha256, build, pictures=found.pictures,
        task=kind,
    )  # fmt: skip


def _task(path: Path, found: ModelFile, build: Callable[[], Graph], asked: str, named: bool) -> tuple[Task, int]:
    """Return what a model's outputs mean, and how many there are; the graph is built where only it tells."""
    n, ending = found.classes, found.ending
    if n is None or not ending:
        graph = build()
        n, ending = int(np.prod(graph.tensors[graph.outputs[0]].shape)), ending_of(graph)
    if asked == AUTO and found.task is not None:
        return found.task, n
    return told_from(path, ending, n, asked=asked, named=named or bool(found.labels)), n


def artifact_name(path: Path) -> str:
    """Return what the files that are made from `path` are called: its stem, in letters that every system takes."""
    path = path.absolute()
    stem = path.name if path.is_dir() else path.stem
    if stem.isdigit():  # a version folder of a served SavedModel
        stem = f"{path.parent.name}_{stem}"
    return re.sub(r"[^A-Za-z0-9._-]+", "_", stem).strip("._-") or "model"


def kind_of(path: Path) -> str:
    """Return the key of KINDS for a file or folder, by its content.

    Raises:
        InputError: there is none, or it is something else; the message says what.
    """
    if path.is_dir():
        if (path / "saved_model.pb").is_file():
            return "savedmodel"
        raise InputError(f"{path} is a folder without saved_model.pb, no SavedModel: give {VALID}")
    if not path.exists():
        raise InputError(f"there is no file {path}: give {VALID}, or a name that `edgenet models` lists")
    head = first_bytes(path, f"give {VALID}")
    suffix, like = path.suffix.lower(), looks_like(head)
    if suffix in _OTHERS:
        raise InputError(f"{path} is {_OTHERS[suffix]}; edgenet reads {VALID}")
    for magic, kind in ((b"\x89HDF\r\n\x1a\n", "h5"), (b"PK\x03\x04", "keras")):
        if head.startswith(magic):
            return kind
    if head[4:8] == b"TFL3":
        return "tflite"
    if like == "an ONNX model" or (suffix == ".onnx" and like == "a binary file of an unknown kind"):
        return "onnx"
    raise InputError(f"{path} looks like {like}: give {VALID}")


def input_size(path: Path, shape: Sequence[int | None]) -> tuple[tuple[int, int] | None, int]:
    """Return height and width that a model takes, None where they are open, and its channels.

    Raises:
        InputError: the input is no picture, of neither three channels nor one, or half open.
    """
    shown = "x".join("?" if n is None else str(n) for n in shape)
    if len(shape) != 4 or shape[3] not in (3, 1, None):
        raise InputError(
            f"{path} takes an input of {shown or 'no shape'}; edgenet feeds colour or grey pictures, 1 x H x W x 3 or 1"
        )
    if shape[0] not in (1, None):
        raise InputError(f"{path} takes {shape[0]} pictures at once: save it with a batch of 1, or an open one")
    height, width = shape[1], shape[2]
    if (height is None) != (width is None):
        raise InputError(f"{path} takes pictures of {height or '?'} x {width or '?'}: save it with a fixed size")
    return (None if height is None or width is None else (height, width)), shape[3] or 3


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
    props = {p.key: p.value for p in model.metadata_props}
    dims = model.graph.output[0].type.tensor_type.shape.dim
    sizes = [int(d.dim_value) for d in dims[1:] if d.HasField("dim_value")]
    classes = int(np.prod(sizes)) if len(dims) > 1 and len(sizes) == len(dims) - 1 and min(sizes) > 0 else None

    def build(shape: tuple[int, int, int]) -> Graph:
        height, width, channels = shape
        full = (1, channels, height, width) if nchw else (1, height, width, channels)
        return checked(path, importer.from_onnx(model, full))

    own = _own(props.get("edgenet"))
    return ModelFile(
        tuple(shape[i] for i in NHWC) if nchw else shape,
        sha256_of_all(files),
        build,
        classes,
        _own_preprocessing(own),
        own_names(own, props["labels"].splitlines()) if props.get("labels") else None,
        read_history(own),
        task=Task.from_json(own.get("task")),
    )


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
    graph = checked(path, float_constants(path, graph))
    shape = graph.tensors[graph.inputs[0]].shape
    about = buffers.get("edgenet")
    own = _own(about.decode("utf-8", "replace") if about else None)
    labels = files.get(metadata.LABELS_FILE)
    return ModelFile(
        shape,
        sha256_of(path),
        lambda shape: graph,
        int(np.prod(graph.tensors[graph.outputs[0]].shape)),
        _own_preprocessing(own),
        own_names(own, labels.decode("utf-8", "replace").splitlines()) if labels else None,
        read_history(own),
        _normalization(data),
        ending_of(graph),
        Task.from_json(own.get("task")),
    )


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
