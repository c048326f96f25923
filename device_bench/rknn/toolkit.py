"""What the interpreter of the rknn environment runs: compile a model, or simulate it as runner.py's runtime.

    python toolkit.py MODEL.onnx CHIP OUT.rknn     compile; print the compiler's log, note beside OUT how it ended
    runner.py --runtime toolkit.py                 simulate, by runner.py's protocol, with CHIP as the delegate

Nothing of edgenet is installed there: this needs the standard library, NumPy, the toolkit, and runtime.py by its path.
The integers and scales of the file are kept: no quantizer of the toolkit is asked (do_quantization), and
optimizations of level 3, which move scales, are left out.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib import metadata
from typing import Any

PACKAGE, NAME, SUFFIX = "rknn-toolkit2", "rknn", ".onnx"
ENDING = ".json"  # OUT's name and this: {"refused": why} or {"version": ...}
_RUNTIME = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "export", "runtime.py")
_OPTIMIZATION_LEVEL = 2


def _runtime() -> Any:
    spec = importlib.util.spec_from_file_location("edgenet_any_runtime", _RUNTIME)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


_ANY = _runtime()
LoadError, MissingRuntime = _ANY.LoadError, _ANY.MissingRuntime


def import_runtime(path: str, runtime: str | None = None) -> str:
    """Import the toolkit, so that loading the model after is only that. Raises MissingRuntime, LoadError."""
    if runtime not in (None, NAME) or not path.lower().endswith(SUFFIX):
        raise LoadError(f"{PACKAGE} reads {SUFFIX} files, not {path} in {runtime}")
    try:
        import rknn.api  # noqa: F401
    except ImportError as e:
        message = f"{PACKAGE} does not start ({e}): run `edgenet devices prepare rknn` again"
        raise MissingRuntime(message) from None
    return NAME


def load(path: Any, threads: int = 1, runtime: str | None = None, delegate: str | None = None) -> Any:
    """Build a model for the chip `delegate` and return a `Predictor` that simulates it. Raises LoadError."""
    path = os.fspath(path)
    import_runtime(path, runtime)
    return _ANY.Predictor(path, _Simulated(path, str(delegate)), 1)


class _Simulated:
    runtime, delegate = NAME, ""

    def __init__(self, path: str, chip: str) -> None:
        import onnx

        self.version = metadata.version(PACKAGE)
        model = onnx.load(path)
        self.input = _tensor(onnx, model, model.graph.input[0])
        self.outputs = [_tensor(onnx, model, value) for value in model.graph.output]
        self._x: Any = None
        self._answers: list[Any] = []
        self._rknn = build(path, chip, verbose=False)
        if self._rknn.init_runtime(target=None) != 0:
            raise LoadError(f"the simulator of {PACKAGE} does not start with {path}")

    def set_input(self, x: Any) -> None:
        self._x = x

    def invoke(self) -> None:
        answers = self._rknn.inference(inputs=[self._x], data_format=["nchw"])
        if answers is None:
            raise RuntimeError("the simulator gives no answer")
        self._answers = answers

    def get_output(self, i: int) -> Any:
        return self._answers[i]


def build(path: str, chip: str, verbose: bool) -> Any:
    """Return the toolkit with the model compiled. Raises LoadError where it refuses the model."""
    from rknn.api import RKNN

    said: list[str] = []
    rknn: Any = None
    try:
        with _heard(said):
            rknn = RKNN(verbose=verbose)
            steps: tuple[tuple[str, Callable[[], int]], ...] = (
                ("configure", lambda: rknn.config(target_platform=chip, optimization_level=_OPTIMIZATION_LEVEL)),
                ("read", lambda: rknn.load_onnx(model=path)),
                ("compile", lambda: rknn.build(do_quantization=False)),
            )
            for what, do in steps:
                if do() != 0:
                    raise LoadError(f"it does not {what} the file, and gives no reason")
    except Exception as e:
        raise LoadError(_reason(said[0]) or _last_line(e)) from None
    return rknn


@contextlib.contextmanager
def _heard(said: list[str]) -> Iterator[None]:
    """Add to `said` what is printed in this block, by native code too, and print it after."""
    own = [os.dup(1), os.dup(2)]
    with tempfile.TemporaryFile() as f:
        try:
            for fd in (1, 2):
                os.dup2(f.fileno(), fd)
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for fd, before in zip((1, 2), own):  # noqa: B905
                os.dup2(before, fd)
                os.close(before)
            f.seek(0)
            said.append(f.read().decode(errors="replace"))
            sys.stdout.write(said[-1])
            sys.stdout.flush()


def _reason(said: str) -> str:
    """Return the last error that the toolkit, not its compiler, printed: `E build: why`, in colours."""
    plain = re.sub(r"\x1b\[[\d;]*m", "", said)
    found = re.findall(r"^E (?:\w+: )?(.+)$", plain, re.MULTILINE)
    # The compiler's own notes, and what stands around a reason.
    others = re.compile(r"\[|Traceback|rknn-toolkit2 version")
    return next((why.strip() for why in reversed(found) if not others.match(why)), "")


def _last_line(e: Exception) -> str:
    """Return the last line of what the toolkit raises, which is a whole traceback, without the name of the error."""
    lines = [line.strip() for line in str(e).splitlines() if line.strip()]
    last = lines[-1] if lines else type(e).__name__
    kind, colon, text = last.partition("Error: ")
    return text if colon and kind.isidentifier() else last


def _tensor(onnx: Any, model: Any, value: Any) -> Any:
    t = value.type.tensor_type
    shape = tuple(d.dim_value if d.HasField("dim_value") else -1 for d in t.shape.dim)
    dtype = onnx.helper.tensor_dtype_to_np_dtype(t.elem_type).name
    about = {p.key: p.value for p in model.metadata_props}.get("edgenet", "{}")
    try:  # the scale of an integer output, which the simulator does not tell: edgenet notes it in the file
        scale, zero_point = json.loads(about)["output_scales"][value.name]
        return _ANY.Tensor(value.name, shape, dtype, float(scale), int(zero_point))
    except (ValueError, KeyError, TypeError):
        return _ANY.Tensor(value.name, shape, dtype)


def main() -> None:
    """Compile, in a folder of its own: the toolkit leaves its steps where it stands."""
    path, chip, out = sys.argv[1:]
    said = {"version": metadata.version(PACKAGE)}
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            rknn = build(path, chip, verbose=True)
            if rknn.export_rknn(out) != 0:
                raise LoadError(f"{PACKAGE} compiles it and does not write the file")
        except LoadError as e:
            said["refused"] = str(e)
        os.chdir("/")
    with open(out + ENDING, "w") as f:
        json.dump(said, f)


if __name__ == "__main__":
    main()
