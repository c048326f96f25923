"""A model that is an object becomes a file in a temporary folder, and is read like any other."""

import re
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

from edgenet.errors import EdgenetError, InputError

_KERAS = ("keras", "tf_keras")


@contextmanager
def as_path(model: Any, example_input: Any, function: str) -> Iterator[str]:
    """Yield the name of a model or its path, of whatever a user gives as a model; of an object for the block only.

    Args:
        example_input: of a torch.nn.Module.
        function: of edgenet, as messages name it.

    Raises:
        InputError: it is no model, or cannot be saved.
    """
    kind = _kind(model)
    if kind == "torch" or (not kind and example_input is not None):
        from edgenet.library import pytorch

        torch = pytorch.installed(function)
        x = pytorch.checked(torch, model, example_input, function)
        with _named(model, ".onnx") as path:
            pytorch.export(torch, model, x, path)
            yield str(path)
        return
    if example_input is not None:
        raise InputError("example_input is for a torch.nn.Module: leave it out")
    if kind == "keras":
        with _named(model, ".keras") as path:
            _save_keras(model, path)
            yield str(path)
        return
    if kind != "name":
        raise InputError(
            f"edgenet.{function} takes a name of the zoo, a path, a torch.nn.Module with example_input, or a Keras "
            f"model; was given {type(model).__name__}"
        )
    if not str(model) or "\0" in str(model):
        raise InputError(f"the model is {model!r}: give a name of the zoo, or a path")
    yield str(model)


def _kind(model: Any) -> str:
    """Return "name", "torch", "keras", or "" where it is something else. No framework is imported for it."""
    if isinstance(model, str | PathLike):
        return "name"
    bases = [(c.__module__.partition(".")[0], c.__name__) for c in type(model).__mro__]
    if ("torch", "Module") in bases:
        return "torch"
    return "keras" if any((package, "Model") in bases for package in _KERAS) else ""


@contextmanager
def _named(model: Any, suffix: str) -> Iterator[Path]:
    """Yield a path in a folder that goes with the block. Errors call the model by its name, not by that path."""
    name = str(getattr(model, "name", "") or type(model).__name__)
    stem = re.sub(r"\W+", "_", name).strip("_").lower() or "module"
    with tempfile.TemporaryDirectory(prefix="edgenet-") as folder:
        path = Path(folder) / f"{stem}{suffix}"
        try:
            yield path
        except EdgenetError as e:
            e.args = (str(e).replace(str(path), name),)
            raise


def _save_keras(model: Any, path: Path) -> None:
    """Write a Keras model, of Keras 2 or 3. Raises InputError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Keras' own formats
            model.save(path)
    except Exception as e:  # whatever a layer's own code, or Keras, raises
        reason = " ".join(str(e).split())[:300]
        raise InputError(f"Keras cannot save {type(model).__name__}: {reason}") from e
