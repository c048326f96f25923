"""The networks of the paper's comparison counted and written as files, each in a child process.

The memory that TensorFlow and two gigabytes of weights take is free again when the child ends; and where there is not
enough of it, the system kills the child, not the run.
"""

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, TypeVar

from edgenet.calibration import quantize
from edgenet.errors import DeviceError, EdgenetError, InputError, MissingDependency
from edgenet.export import Source, export_graph, find_source, versions
from edgenet.export.saved_model import to_saved_model
from edgenet.files import sha256_of, size_of
from edgenet.images import limit
from edgenet.jobs.file_factory import FileFactory, Interface
from edgenet.models import zoo
from edgenet.options import Recipe
from edgenet.paper import networks
from edgenet.paper.networks import counts
from edgenet.paper.plan import SAVED_MODEL, file_id
from edgenet.results import Artifact, Failure, ImageSet
from edgenet.results.records import Counts
from edgenet.targets import target

T = TypeVar("T")

CHILD_TIMEOUT_S = 6 * 3600.0  # for all files of a network: the largest took an hour on two cores
_FEW_PICTURES = 8  # to calibrate random weights


def count_all(names: Sequence[str]) -> tuple[dict[str, Counts], dict[str, str]]:
    """Count networks in a child process: (counts by name, reasons of failures by name)."""
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


def in_child(work: Callable[..., T], *args: Any, timeout_s: float = CHILD_TIMEOUT_S) -> T:
    """Return work(*args), computed in a process of its own.

    Raises:
        DeviceError: it was killed, or took longer than `timeout_s`; else what the work raises.
    """
    # A fork: this process has not loaded TensorFlow, whose threads would not survive it.
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as pool:
        try:
            return pool.submit(work, *args).result(timeout_s)
        except FutureTimeoutError:
            for child in list(pool._processes.values()):  # no public name; the pool itself would wait for it
                child.kill()
            what = " ".join(str(a) for a in args[:1])
            raise DeviceError(f"writing {what} was ended after {timeout_s:g} s: this machine is too slow") from None
        except BrokenProcessPool:
            raise DeviceError(
                "its process was killed, most likely for lack of memory: close other programs, or use a larger machine"
            ) from None


def _write(
    name: str, files: Sequence[tuple[str, str]], out: Path, calibration: ImageSet
) -> tuple[list[Artifact], list[Failure]]:
    make = _zoo_maker(name, out, calibration) if name in zoo.MODELS else _rival_maker(name, out)
    artifacts, failures = [], []
    for format, precision in files:
        try:
            artifacts.append(make(format, precision))
        except EdgenetError as e:
            id = file_id(name, format, precision)
            failures.append(Failure("export", id, why=str(e), remedy="see docs/paper.md"))
    return artifacts, failures


def _zoo_maker(name: str, out: Path, calibration: ImageSet) -> Callable[[str, str], Artifact]:
    source = source_of(name)
    real = source.build_on is None
    pictures = calibration if real else limit(calibration, _FEW_PICTURES)
    # Corrections cost minutes for the large ones and change no latency: they are for weights that mean something.
    recipe = Recipe() if real else Recipe(corrections=())
    factory = FileFactory(source, pictures, target("auto"), recipe, Interface())

    def make(format: str, precision: str) -> Artifact:
        if format == SAVED_MODEL:
            return _saved_model(name, factory.network.graph, out, source.weights)
        return factory.export(out, format, precision)

    return make


def _rival_maker(name: str, out: Path) -> Callable[[str, str], Artifact]:
    network = networks.network_of(name)

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
