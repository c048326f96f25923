"""From a name of the zoo or a model file to a `Source`: verified at once, built later.

A model may be a .keras or .h5 file of Keras 2 or 3, a SavedModel folder, an ONNX file or a float .tflite. The content
of a file decides what it is, not its name. It is read, and later built, in a child process that can do no harm
(edgenet/sandbox); checking reads no more than it has to and never loads TensorFlow.
"""

import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgenet.errors import InputError
from edgenet.export.foreign.ask import read_file
from edgenet.export.graph import Graph
from edgenet.export.importers.classifier import ending_of
from edgenet.export.importers.labels import class_labels
from edgenet.export.importers.model_file import ModelFacts
from edgenet.export.inspect import first_bytes, looks_like
from edgenet.export.network import Source
from edgenet.images import Pixels, normalise
from edgenet.images.decode import MAX_SIDE_PX
from edgenet.images.preprocess_option import EXAMPLES, PRESETS, parse_preprocess, preprocessing_of
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
    found, building = read_file(kind_of(path), path, output)
    size, channels = input_size(path, found.shape)
    if preprocess is not None:
        preprocessing = parse_preprocess(preprocess, size, channels)
    elif found.preprocessing is not None:
        preprocessing = found.preprocessing
    else:
        hint = f" (its metadata says {found.hint})" if found.hint else ""
        raise InputError(
            f"{path} does not say how its input is made from a picture{hint}: give --preprocess, a preset "
            f"({', '.join(PRESETS)}; raw where the network itself divides by 255) or settings, {EXAMPLES}"
            + ("" if size else " with size=PIXELS")
        )
    build = functools.cache(lambda: building(preprocessing.shape))
    kind, n = _task(path, found, build, task, labels is not None)
    if kind.kind == "embedding" and labels is not None:
        raise InputError(f"--labels names classes, and {path} gives an embedding: leave it out, or give --task classes")
    ids, names = class_labels(kind.n_names(n), labels, found.labels, kind)
    return Source(
        artifact_name(path), preprocessing, ids, names, path.name, found.sha256, build, pictures=found.pictures,
        task=kind,
    )  # fmt: skip


def _task(path: Path, found: ModelFacts, build: Callable[[], Graph], asked: str, named: bool) -> tuple[Task, int]:
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
    """Return the kind of a file or folder, a key of readers.KINDS, by its content.

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
    if max(height or 0, width or 0) > MAX_SIDE_PX:
        raise InputError(f"{path} takes pictures of {height} x {width}; edgenet feeds up to {MAX_SIDE_PX} px a side")
    return (None if height is None or width is None else (height, width)), shape[3] or 3
