"""From a PyTorch module in memory to an ONNX file, by torch.onnx.export, that answers as the module does.

PyTorch is imported here alone, and only when a module is given. https://docs.pytorch.org/docs/stable/onnx.html
"""

import contextlib
import io
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from edgenet.calibration.execute import Executor
from edgenet.errors import InputError, MissingDependency
from edgenet.export.graph import LARGEST_BYTES
from edgenet.export.importers.onnx_importer import from_onnx, load_onnx

TOLERANCE = 1e-3  # of the largest answer: both compute in float32, in another order


def installed(function: str) -> Any:
    """Return the module torch. Raises MissingDependency, also for what its exporter needs."""
    try:
        import onnxscript  # noqa: F401
        import torch
    except ImportError as e:
        package = e.name or "torch"
        raise MissingDependency(package, "", f"edgenet.{function}", install=f"pip install {package}") from None
    return torch


def checked(torch: Any, module: Any, example_input: Any, function: str) -> Any:
    """Return the example as a tensor of one picture. Raises InputError."""
    if not isinstance(module, torch.nn.Module):
        raise InputError(
            f"edgenet.{function} takes a torch.nn.Module with example_input, was given {type(module).__name__}"
        )
    if not isinstance(example_input, torch.Tensor):
        raise InputError(f"example_input is {type(example_input).__name__}: give a tensor, torch.zeros(1, 3, 224, 224)")
    shape = tuple(example_input.shape)
    if len(shape) != 4 or shape[0] != 1 or example_input.dtype != torch.float32:
        raise InputError(
            f"example_input has the shape {shape} and the type {example_input.dtype}: give one picture of float32, "
            "torch.zeros(1, 3, 224, 224)"
        )
    return example_input


def export(torch: Any, module: Any, x: Any, path: Path) -> None:
    """Write the module to `path`, and compare the file's answer with the module's. `x`: as `checked` returns it.

    Raises:
        InputError: it gives no single tensor, torch cannot export it, or the file answers otherwise.
    """
    picture, answer = _export(torch, module, x, path)
    _compare(path, picture, answer)


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
