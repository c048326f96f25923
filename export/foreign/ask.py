"""Ask a child process to read or build a model file, and check what it answers."""

import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgenet.errors import InputError
from edgenet.export.foreign.plain_graph import from_plain
from edgenet.export.graph import Graph
from edgenet.export.importers.model_file import ModelFacts
from edgenet.results import plain
from edgenet.sandbox.apart import BUILDING, PARSING, printable, read_apart

MAX_CLASSES = 1_000_000
_LOADS_TENSORFLOW = ("keras", "h5", "savedmodel")
_SUFFIX = {"keras": (".keras",), "h5": (".h5", ".hdf5")}  # Keras goes by the name, edgenet by the content


def read_file(kind: str, path: Path, output: str | None) -> tuple[ModelFacts, Callable[[tuple[int, int, int]], Graph]]:
    """Return what a model file says of itself, and what builds its graph for an input of (H, W, C).

    Args:
        kind: a key of readers.KINDS.
        output: the name of the output that is wanted, where it has several.

    Raises:
        InputError: it is damaged, or no classifier of pictures that edgenet reads; the child did not end well.
        MissingDependency: the package that reads this kind of file is not installed.
    """
    arguments = {"kind": kind, "path": str(path), "output": output}
    answer = read_apart("edgenet.export.foreign.readers:find", path, arguments)
    facts = _facts(path, answer)
    graph = answer["graph"]
    if graph is not None:
        whole = _graph(path, graph)
        return facts, lambda shape: whole

    def build(shape: tuple[int, int, int]) -> Graph:
        with _named(kind, path) as name:
            asked = {**arguments, "path": name, "shape": list(shape)}
            effort = BUILDING if kind in _LOADS_TENSORFLOW else PARSING
            try:
                built = read_apart("edgenet.export.foreign.readers:build", path, asked, effort)
            except InputError as e:
                raise InputError(str(e).replace(name, str(path))) from None
        if not isinstance(built, dict) or built.get("sha256") != facts.sha256:
            raise InputError(f"{path} changed while it was read: leave it alone and start again")
        return _graph(path, built.get("graph"))

    return facts, build


def read_tflite_apart(path: Path) -> Graph:
    """Return the graph of a .tflite file, quantized or not. Raises InputError, MissingDependency."""
    return _graph(path, read_apart("edgenet.export.foreign.readers:tflite_graph", path, {"path": str(path)}))


@contextmanager
def _named(kind: str, path: Path) -> Iterator[str]:
    """Yield a name of the file that ends as its content has it."""
    suffixes = _SUFFIX.get(kind, ())
    if not suffixes or path.suffix.lower() in suffixes:
        yield str(path)
        return
    with tempfile.TemporaryDirectory(prefix="edgenet-") as folder:
        link = Path(folder, f"model{suffixes[0]}")
        link.symlink_to(path.absolute())
        yield str(link)


def _graph(path: Path, value: Any) -> Graph:
    try:
        return from_plain(value)
    except ValueError as e:
        raise InputError(f"{path} holds no network that edgenet takes: {e}") from None


def _facts(path: Path, answer: Any) -> ModelFacts:
    try:
        found = plain.read(ModelFacts, answer["facts"])
    except (ValueError, TypeError, KeyError):
        raise InputError(f"{path} cannot be read: it is damaged; save or copy it again") from None
    if not re.fullmatch("[0-9a-f]{64}", found.sha256):
        raise InputError(f"{path} cannot be read: it is damaged; save or copy it again")
    if found.classes is not None and not 0 <= found.classes <= MAX_CLASSES:
        raise InputError(f"{path} has {found.classes} classes; edgenet takes up to {MAX_CLASSES}")
    labels = None if found.labels is None else tuple(map(printable, found.labels))
    return replace(found, labels=labels, hint=printable(found.hint))
