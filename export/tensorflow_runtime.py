"""What runner.py loads in the place of runtime.py to time a SavedModel in TensorFlow: a tf.function, called eagerly.

It runs on this machine only, where edgenet and TensorFlow are installed; the paper measured in TensorFlow, nobody else
should ship it.
"""

import os
from typing import Any

import numpy as np

from edgenet.export.runtime import LoadError, MissingRuntime, Predictor, Tensor

__all__ = ["LoadError", "MissingRuntime", "import_runtime", "load"]

NAME, SUFFIX = "tensorflow", ".savedmodel"


def import_runtime(path: str, runtime: str | None = None) -> str:
    """Import TensorFlow, so that loading the model after is only that. Raises MissingRuntime, LoadError."""
    if runtime not in (None, NAME) or not path.endswith(SUFFIX):
        raise LoadError(f"{NAME} reads folders called *{SUFFIX}, not {path} in {runtime}")
    _import()
    return NAME


def load(path: Any, threads: int = 1, runtime: str | None = None, delegate: str | None = None) -> Predictor:
    """Load the SavedModel in the folder `path`. Raises LoadError."""
    if delegate not in (None, "cpu"):
        raise LoadError(f"{NAME} is timed on the CPU only, not on '{delegate}' (valid: cpu)")
    path = os.fspath(path)
    import_runtime(path, runtime)
    if not os.path.isdir(path):
        raise LoadError(f"no such folder: {path}")
    try:
        return Predictor(path, _TensorFlow(path, threads), threads)
    except (OSError, ValueError, AttributeError) as e:
        raise LoadError(f"{NAME} cannot load {path}: {' '.join(str(e).split())[:300]}") from e


class _TensorFlow:
    runtime, delegate = NAME, ""

    def __init__(self, path: str, threads: int) -> None:
        tf = _import()
        self.version = tf.__version__
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        self._tf, self._model = tf, tf.saved_model.load(path)
        self._serve = self._model.serve.get_concrete_function()
        spec = self._serve.structured_input_signature[0][0]
        self.input = Tensor("image", tuple(spec.shape), spec.dtype.name)
        self.outputs = [Tensor("probabilities", tuple(self._serve.output_shapes), "float32")]
        self._x: Any = None
        self._y: Any = None

    def lanes(self, n: int) -> "list[_TensorFlow]":
        return [self]

    def set_input(self, x: np.ndarray) -> None:
        self._x = self._tf.constant(x)

    def invoke(self) -> None:
        self._y = self._serve(self._x)

    def get_output(self, i: int) -> np.ndarray:
        return np.asarray(self._y)


def _import() -> Any:
    from edgenet.errors import MissingDependency
    from edgenet.frameworks import tensorflow

    try:
        return tensorflow()
    except MissingDependency as e:
        raise MissingRuntime(str(e)) from None
