"""From a PyTorch module in memory to measured files: torch.onnx.export into a temporary folder, then the pipeline.

PyTorch is imported here alone, and only when a module is given. https://docs.pytorch.org/docs/stable/onnx.html
"""

import contextlib
import io
import logging
import re
import tempfile
import typing
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgenet import pipeline
from edgenet.calibration.execute import Executor
from edgenet.errors import InputError, MissingDependency
from edgenet.export.graph import LARGEST_BYTES
from edgenet.export.importers.onnx_importer import from_onnx, load_onnx
from edgenet.option_fields import OptionField, build, option_fields
from edgenet.options import Job, Progress
from edgenet.results import Results

TOLERANCE = 1e-3  # of the largest answer: both compute in float32, in another order
_OWN = ("model", "out", "images", "command", "weights", "random_weights")  # that are no options of this call


def run(
    module: Any, example_input: Any, images: Any, out: Any, progress: Progress, options: Mapping[str, Any]
) -> Results:
    """Export `module` and do what `edgenet run` does. See `edgenet.run`."""
    torch = _torch()
    job = _job(options)
    x = _checked(torch, module, example_input)
    name = re.sub(r"\W+", "_", type(module).__name__).strip("_").lower() or "module"
    with tempfile.TemporaryDirectory(prefix="edgenet-") as folder:
        path = Path(folder) / f"{name}.onnx"
        picture, answer = _export(torch, module, x, path)
        try:
            _compare(path, picture, answer)
        except InputError as e:
            raise InputError(str(e).replace(str(path), type(module).__name__)) from None
        values = {**job, "model": str(path), "images": str(images), "out": Path(out), "command": f"edgenet.run({name})"}
        return pipeline.run(build(Job, values), progress)


def _torch() -> Any:
    try:
        import onnxscript  # noqa: F401
        import torch
    except ImportError as e:
        package = e.name or "torch"
        raise MissingDependency(package, "", "edgenet.run", install=f"pip install {package}") from None
    return torch


def _job(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a Job that `options` name. Raises InputError for one that there is not."""
    fields = {f.name: f for f in option_fields(Job) if f.name not in _OWN}
    unknown = [name for name in options if name not in fields]
    if unknown:
        raise InputError(f"edgenet.run has no option {unknown[0]} (valid: {', '.join(fields)})")
    return {name: _value(fields[name], value) for name, value in options.items()}


def _value(f: OptionField, value: Any) -> Any:
    """Return what the field holds: a word of the command line may stand for several values, a text for a path."""
    kinds = {typing.get_origin(f.type) or f.type, *typing.get_args(f.type)}
    if tuple in kinds:
        given = (value,) if isinstance(value, str) else tuple(value)
        return tuple(v for g in given for v in f.option.words.get(g, (g,)))
    return Path(value) if Path in kinds and value is not None else value


def _checked(torch: Any, module: Any, example_input: Any) -> Any:
    """Return the example as a tensor of one picture. Raises InputError."""
    if not isinstance(module, torch.nn.Module):
        raise InputError(f"edgenet.run takes a torch.nn.Module, was given {type(module).__name__}")
    if not isinstance(example_input, torch.Tensor):
        raise InputError(f"example_input is {type(example_input).__name__}: give a tensor, torch.zeros(1, 3, 224, 224)")
    shape = tuple(example_input.shape)
    if len(shape) != 4 or shape[0] != 1 or example_input.dtype != torch.float32:
        raise InputError(
            f"example_input has the shape {shape} and the type {example_input.dtype}: give one picture of float32, "
            "torch.zeros(1, 3, 224, 224)"
        )
    return example_input


def _export(torch: Any, module: Any, x: Any, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Write the module, in inference mode, to `path`; return a random picture, as `x`, and its answer, both float32.

    Raises:
        InputError: it gives no single tensor, or torch cannot export it.
    """
    training = module.training
    module.eval()
    large = sum(p.numel() * p.element_size() for p in module.parameters()) > LARGEST_BYTES
    try:
        picture = np.random.default_rng(0).normal(size=tuple(x.shape)).astype(np.float32)  # the example may be zeros
        with torch.no_grad():
            answer = module(torch.from_numpy(picture).to(x.device))
        if not isinstance(answer, torch.Tensor):
            raise InputError(
                f"the module gives {type(answer).__name__}; edgenet takes one that gives a tensor of scores"
            )
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")  # torch warns of its own internals, and logs them
            logging.disable(logging.WARNING)
            torch.onnx.export(module, (x,), str(path), dynamo=True, external_data=large, verbose=False)
    except InputError:
        raise
    except Exception as e:  # whatever the module's own code, or the exporter, raises
        reason = " ".join(str(e).split())[:300]
        raise InputError(f"torch.onnx.export cannot export {type(module).__name__}: {reason}") from e
    finally:
        logging.disable(logging.NOTSET)
        module.train(training)
    return picture, np.asarray(answer.detach().cpu().numpy(), np.float32)


def _compare(path: Path, picture: np.ndarray, answer: np.ndarray) -> None:
    """Raise InputError where the exported file does not answer as the module does: no figure would be true then."""
    graph = from_onnx(load_onnx(path), picture.shape)
    same = graph.tensors[graph.inputs[0]].shape == picture.shape
    stored = picture if same else picture.transpose(0, 2, 3, 1)
    got = Executor(graph, graph.outputs, 1)(np.ascontiguousarray(stored))[0]
    off, largest = np.abs(got.ravel() - answer.ravel()).max(), np.abs(answer).max()
    if not off <= TOLERANCE * max(float(largest), 1e-6):
        raise InputError(
            f"the exported network answers otherwise than the module: off by {off:.3g} where the largest answer is "
            f"{largest:.3g}. Does it draw random numbers, or depend on the picture in Python?"
        )
