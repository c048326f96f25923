"""The networks of the paper's comparison by one name each, of the zoo or of its rivals: counted, and written as files.

Files are made in a child process: what TensorFlow and two gigabytes of weights take is given back when it ends, and
where there is not enough memory the child is killed, not the run.
"""

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from edgenet import rivals, zoo
from edgenet.errors import DeviceError, EdgenetError, InputError, MissingDependency
from edgenet.export import FORMATS, Source, export_graph, find_source, versions
from edgenet.export.graph import LARGEST_BYTES
from edgenet.export.savedmodel import SUFFIX, to_saved_model
from edgenet.images import limit
from edgenet.results import Artifact, Failure, ImageSet, sha256_of, size_of
from edgenet.scaled_tables import ScaledRow, scaled_rows

T = TypeVar("T")

SAVED_MODEL = "savedmodel"
_FEW_PICTURES = 8  # to calibrate weights that mean nothing
_LARGEST_BYTES = {"tflite": LARGEST_BYTES}  # ONNX and OpenVINO keep constants in a file beside the model
_COPIES = 3  # of the weights in memory while a file is written: the graph's, the writer's, the file's


@dataclass(frozen=True)
class Counts:
    """Numbers that are trained, and multiply-adds of one picture, counted from the layers."""

    parameters: int
    multiply_adds: int


def counts(name: str) -> Counts:
    """Count a network. Raises InputError, MissingDependency."""
    if name in zoo.MODELS:
        return Counts(zoo.parameters(zoo.MODELS[name]), zoo.multiply_adds(zoo.MODELS[name]))
    return Counts(rivals.parameters(name), rivals.multiply_adds(name))


def scaled_key(table: str, row: ScaledRow) -> str:
    """Return what results.json calls a network of table 3 or 7."""
    return f"table {table}: {row.baseline}, {row.scaling}"


def scaled_counts(table: str) -> dict[str, Counts]:
    """Return the counts of the networks of table 3 or 7 by `scaled_key`."""
    return {scaled_key(table, r): Counts(r.parameters, r.multiply_adds) for r in scaled_rows(table)}


def published_name(name: str) -> str:
    """Return what a network is called in the paper's tables: EfficientNet-B0 for efficientnet-b0."""
    if name in zoo.MODELS:
        return name.replace("efficientnet-b", "EfficientNet-B")
    return rivals.spec(name).paper_name or name


def count_all(names: Sequence[str]) -> tuple[dict[str, Counts], dict[str, str]]:
    """Count networks in a child process: (by name, why not by name)."""
    return in_child(_count_all, tuple(names))


def _count_all(names: Sequence[str]) -> tuple[dict[str, Counts], dict[str, str]]:
    found: dict[str, Counts] = {}
    problems: dict[str, str] = {}
    for name in names:
        try:
            found[name] = counts(name)
        except EdgenetError as e:
            problems[name] = str(e)
    return found, problems


def file_id(name: str, format: str, precision: str, group: str = "") -> str:
    """Return the id of the artifact that `write` makes; `group` tells files apart that are timed against others."""
    suffix = SUFFIX if format == SAVED_MODEL else FORMATS[format].suffix
    return f"{group}/{name}_{precision}{suffix}" if group else f"{name}_{precision}{suffix}"


def too_large(name: str, format: str, available_bytes: int | None) -> str:
    """Return why a network cannot be a file of this format on this machine, "" where it can."""
    needed = counts(name).parameters * 4
    largest = _LARGEST_BYTES.get(format)
    if largest is not None and needed > largest:
        return f"its weights are {needed / 1e9:.1f} GB in float32, and a {format} file holds {largest / 1e9:.1f}"
    if available_bytes is not None and needed * _COPIES > available_bytes:
        return (
            f"writing and running it takes about {needed * _COPIES / 1e9:.1f} GB of memory, and "
            f"{available_bytes / 1e9:.1f} are free"
        )
    return ""


def source_of(name: str) -> Source:
    """Return a network of the zoo with its pretrained weights where they are installed, else with random ones."""
    try:
        return find_source(name)
    except (InputError, MissingDependency):
        return find_source(name, random_weights=True)


def write(
    name: str, files: Sequence[tuple[str, str]], out: Path, calibration: ImageSet
) -> tuple[list[Artifact], list[Failure]]:
    """Write a network as (format, precision) files into `out`, in a child process.

    Raises:
        DeviceError: the child was killed, for want of memory most likely.
    """
    return in_child(_write, name, tuple(files), out, calibration)


def in_child(work: Callable[..., T], *args: Any) -> T:
    """Return what `work` does, in a process of its own. Raises what it raises, or DeviceError where it was killed."""
    # A fork: this process has not loaded TensorFlow, whose threads would not survive it.
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as pool:
        try:
            return pool.submit(work, *args).result()
        except BrokenProcessPool:
            raise DeviceError("its process was killed, most likely because the memory did not suffice") from None


def _write(
    name: str, files: Sequence[tuple[str, str]], out: Path, calibration: ImageSet
) -> tuple[list[Artifact], list[Failure]]:
    make = _zoo_maker(name, out, calibration) if name in zoo.MODELS else _rival_maker(name, out)
    artifacts, failures = [], []
    for format, precision in files:
        try:
            artifacts.append(make(format, precision))
        except EdgenetError as e:
            failures.append(Failure("export", file_id(name, format, precision), str(e), "see docs/paper.md"))
    return artifacts, failures


def _zoo_maker(name: str, out: Path, calibration: ImageSet) -> Callable[[str, str], Artifact]:
    from edgenet.calibration import Recipe
    from edgenet.making import Interface, Making
    from edgenet.targets import target

    source = source_of(name)
    real = source.build_on is None
    pictures = calibration if real else limit(calibration, _FEW_PICTURES)
    # Corrections cost minutes for the large ones and change no latency: they are for weights that mean something.
    recipe = Recipe() if real else Recipe(corrections=())
    making = Making(source, pictures, target("auto"), recipe, Interface())

    def make(format: str, precision: str) -> Artifact:
        if format == SAVED_MODEL:
            return _saved_model(name, making.network.graph, out, source.weights)
        return making.export(out, format, precision)

    return make


def _rival_maker(name: str, out: Path) -> Callable[[str, str], Artifact]:
    from edgenet.calibration import quantize

    network = rivals.network_of(name)

    def make(format: str, precision: str) -> Artifact:
        if format == SAVED_MODEL:
            return _saved_model(name, network.graph, out, network.weights)
        graph = quantize(network.graph, precision)
        return export_graph(network, graph, out, format=format, precision=precision)

    return make


def _saved_model(name: str, graph: Any, out: Path, weights: str) -> Artifact:
    id = file_id(name, SAVED_MODEL, "float32")
    path = to_saved_model(graph, out / id)
    return Artifact(
        id=id, model=name, format=SAVED_MODEL, precision="float32", path=id, size_bytes=size_of(path),
        sha256=sha256_of(path), io_dtype="float32", weights=weights, versions=versions("edgenet", "tensorflow"),
    )  # fmt: skip
