"""What runner.py loads in the place of runtime.py to run a .tflite in tflite-micro: its reference kernels, compiled.

The same C++ runs on microcontrollers. It says what it needs and why it fails on standard error only, so that the
arena is read from there (arena.py), by this process where it has to grow and by its parent.
https://github.com/tensorflow/tflite-micro
"""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import IO, Any

import numpy as np

from edgenet.device_bench.micro.arena import reason, wants_more
from edgenet.errors import EdgenetError
from edgenet.export.runtime import LoadError, MissingRuntime, Predictor, Tensor

__all__ = ["LoadError", "MissingRuntime", "import_runtime", "load"]

NAME, SUFFIX, PACKAGE, EXTRA = "tflite-micro", ".tflite", "tflite-micro", "micro"
# Memory that is not used is not touched; what does not fit into the last has no place on a microcontroller.
ARENAS_BYTES = (1 << 25, 1 << 28, 1 << 30)


def import_runtime(path: str, runtime: str | None = None) -> str:
    """Import tflite-micro, so that loading the model after is only that. Raises MissingRuntime, LoadError."""
    if runtime not in (None, NAME) or not path.lower().endswith(SUFFIX):
        raise LoadError(f"{NAME} reads {SUFFIX} files, not {path} in {runtime}")
    interpreter_class()
    return NAME


def load(path: Any, threads: int = 1, runtime: str | None = None, delegate: str | None = None) -> Predictor:
    """Load a .tflite file and print its allocations on standard error. Raises LoadError, MissingRuntime."""
    path = os.fspath(path)
    import_runtime(path, runtime)
    if not os.path.isfile(path):
        raise LoadError(f"no such file: {path}")
    return Predictor(path, _Micro(path), 1)


class _Micro:
    runtime, delegate = NAME, ""

    def __init__(self, path: str) -> None:
        self.version = metadata.version(PACKAGE)
        with open(path, "rb") as f:
            self._interpreter = allocated(f.read())
        inputs, outputs = _names(path)
        if len(inputs) != 1:
            raise LoadError(f"{path} takes {len(inputs)} inputs; an image classifier takes one")
        self.input = _tensor(inputs[0], self._interpreter.get_input_details(0))
        self.outputs = [_tensor(n, self._interpreter.get_output_details(i)) for i, n in enumerate(outputs)]
        self._interpreter.print_allocations()

    def set_input(self, x: np.ndarray) -> None:
        self._interpreter.set_input(x, 0)

    def invoke(self) -> None:
        self._interpreter.invoke()

    def get_output(self, i: int) -> np.ndarray:
        return np.asarray(self._interpreter.get_output(i))


def allocated(model: bytes) -> Any:
    """Return an interpreter of a model with all its memory set out, in the first arena that suffices.

    Raises:
        LoadError: an operator is missing or refuses, or the model takes more memory than the last arena has.
    """
    new = interpreter_class()
    for size in ARENAS_BYTES:
        said: list[str] = []
        try:
            with heard(said):
                return new(model, [], size)
        except (RuntimeError, ValueError) as e:
            if not wants_more(said[0]):
                raise LoadError(reason(said[0]) or str(e)) from None
    raise LoadError(f"it needs an arena of more than {ARENAS_BYTES[-1] >> 20} MiB, which no microcontroller has")


@contextlib.contextmanager
def heard(said: list[str]) -> Iterator[None]:
    """Add to `said` what native code prints on standard error in this block, which it still prints."""
    sys.stderr.flush()
    own = os.dup(2)
    with _memory_file() as f:
        os.dup2(f.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(own, 2)
            os.close(own)
            f.seek(0)
            said.append(f.read().decode(errors="replace"))
            sys.stderr.write(said[-1])
            sys.stderr.flush()


def _memory_file() -> IO[bytes]:
    """Return a file that no folder holds, where the system has such: this process may write into none."""
    return os.fdopen(os.memfd_create("said"), "w+b") if sys.platform == "linux" else tempfile.TemporaryFile()


def interpreter_class() -> Any:
    """Return tflite-micro's Interpreter. Raises MissingRuntime."""
    try:
        from tflite_micro import runtime
    except ImportError as e:
        message = f"running files in {NAME} needs {e.name or PACKAGE}, which is not installed: "
        raise MissingRuntime(message + f"pip install 'edgenet[{EXTRA}]'") from None
    return runtime.Interpreter


def _names(path: str) -> tuple[list[str], list[str]]:
    """Return the names of inputs and outputs, which tflite-micro does not keep. Raises LoadError."""
    from edgenet.export.inspect.tflite import tflite_facts

    try:
        facts = tflite_facts(Path(path))
    except EdgenetError as e:
        raise LoadError(str(e)) from None
    return [t.name for t in facts.inputs], [t.name for t in facts.outputs]


def _tensor(name: str, detail: dict[str, Any]) -> Tensor:
    q = detail["quantization_parameters"]
    shape, dtype = tuple(int(d) for d in detail["shape"]), np.dtype(detail["dtype"]).name
    if len(q["scales"]) and np.dtype(dtype).kind in "iu":
        return Tensor(name, shape, dtype, float(q["scales"][0]), int(q["zero_points"][0]))
    return Tensor(name, shape, dtype)
