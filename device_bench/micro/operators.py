"""Which operators of a file tflite-micro does not take, all of them, each with its reason.

tflite-micro stops at the first operator that it lacks or refuses. So each is cut out of the file into one of its own
and tried there, in a child process (this module as a script), which is started again behind one that crashes it.
"""

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from edgenet.device_bench.micro.arena import reason
from edgenet.device_bench.micro.interpreter import NAME, allocated, heard
from edgenet.device_bench.tool import confined_module, run_tool
from edgenet.errors import DeviceError
from edgenet.export.runtime import LoadError
from edgenet.export.tflite_file import schema

_UNEXPLAINED = f"{NAME} gives no reason"
_MODULE = "edgenet.device_bench.micro.operators"


class Alone(NamedTuple):
    """An operator of the main graph as a file of its own."""

    kind: str  # TFLite's name
    model: bytes
    n_inputs: int


def refused(path: Path, timeout_s: float) -> list[tuple[str, str]]:
    """Return (kind, why) of each operator of a .tflite file, whose bytes are sound, that tflite-micro does not run.

    Raises:
        DeviceError: the child process does not start, or hangs.
    """
    with tempfile.TemporaryDirectory(prefix="edgenet-micro-") as folder:
        log = Path(folder) / "tried"
        log.touch()
        while True:
            done = len(_tried(log))
            try:
                run_tool(NAME, confined_module(_MODULE, [str(path.resolve()), str(log)], Path(folder)), timeout_s)
                return [(kind, why) for kind, why in _tried(log) if why]
            except DeviceError as e:
                begun = log.read_text().splitlines()[-1:]
                if len(_tried(log)) == done and not (begun and "why" not in json.loads(begun[0])):
                    raise  # it is not an operator's doing
                kind = json.loads(begun[0])["kind"]
                with log.open("a") as f:
                    _note(f, kind=kind, why=str(e))


def _tried(log: Path) -> list[tuple[str, str]]:
    notes = [json.loads(line) for line in log.read_text().splitlines()]
    return [(note["kind"], note["why"]) for note in notes if "why" in note]


def _note(f: Any, **values: str) -> None:
    f.write(json.dumps(values) + "\n")
    f.flush()


def main() -> None:
    """Try the operators that the log does not have yet; note each in it before and after."""
    model, log = Path(sys.argv[1]).read_bytes(), Path(sys.argv[2])
    done = len(_tried(log))
    with log.open("a") as f:
        for place, operator in enumerate(single_operators(model)):
            if place >= done:
                _note(f, kind=operator.kind)
                _note(f, kind=operator.kind, why=why_not(operator))


def why_not(operator: Alone) -> str:
    """Return why tflite-micro does not run an operator, "" where it does. Native code may crash this process."""
    said: list[str] = []
    try:
        interpreter = allocated(operator.model)
        with heard(said):  # some operators refuse only when they run
            for i in range(operator.n_inputs):
                detail = interpreter.get_input_details(i)
                interpreter.set_input(_numbers(operator.kind, detail["shape"], np.dtype(detail["dtype"])), i)
            interpreter.invoke()
    except LoadError as e:
        return str(e) or _UNEXPLAINED
    except (RuntimeError, ValueError) as e:
        return reason(said[0]) or str(e) or _UNEXPLAINED
    return ""


def _numbers(kind: str, shape: Any, dtype: np.dtype[Any]) -> np.ndarray:
    """Return what an operator is tried on: numbers of the whole range; for a softmax one class far above all others.

    The reference softmax in 8 bits aborts where no class gets more than 1/512. If it does so here, it always does.
    """
    rng = np.random.default_rng(0)
    if dtype.kind == "f":
        return rng.standard_normal(shape).astype(dtype)
    if dtype not in (np.int8, np.uint8, np.int16):
        return np.zeros(shape, dtype)  # indices and conditions
    limits = np.iinfo(dtype)
    if kind != "SOFTMAX":
        return rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)
    logits = np.full(shape, limits.min, dtype)
    logits[..., 0] = limits.max
    return logits


def single_operators(model: bytes) -> Iterator[Alone]:
    """Yield each operator of the main graph as a .tflite file of it alone, with its constants."""
    import flatbuffers

    s = schema()
    names = {number: name for name, number in vars(s.BuiltinOperator).items() if isinstance(number, int)}
    whole = s.ModelT.InitFromPackedBuf(model, 0)
    graph = whole.subgraphs[0]
    for op in graph.operators:
        code = whole.operatorCodes[op.opcodeIndex]
        used = [i for i in dict.fromkeys(int(i) for i in (*op.inputs, *op.outputs)) if i >= 0]
        place = {old: new for new, old in enumerate(used)}
        sub, alone, cut = _like(graph), _like(op), _like(whole)
        alone.opcodeIndex = 0
        alone.inputs = [place.get(int(i), -1) for i in op.inputs]
        alone.outputs = [place[int(i)] for i in op.outputs]
        sub.operators, sub.tensors = [alone], [_like(graph.tensors[i]) for i in used]
        cut.subgraphs, cut.operatorCodes, cut.signatureDefs, cut.metadata = [sub], [code], None, None
        cut.buffers = [s.BufferT(), *(whole.buffers[t.buffer] for t in sub.tensors)]
        for i, t in enumerate(sub.tensors):
            t.buffer = i + 1
        given = [i for i in dict.fromkeys(alone.inputs) if i >= 0 and not _has_data(cut.buffers[i + 1])]
        sub.inputs, sub.outputs = given, alone.outputs
        b = flatbuffers.Builder(1024)
        b.Finish(cut.Pack(b), b"TFL3")
        yield Alone(names[max(code.builtinCode, code.deprecatedBuiltinCode)], bytes(b.Output()), len(given))


def _like(table: Any) -> Any:
    """Return a copy of a table of the schema whose fields can be set without changing it."""
    new = type(table)()
    vars(new).update(vars(table))
    return new


def _has_data(buffer: Any) -> bool:
    return buffer.data is not None and len(buffer.data) > 0


if __name__ == "__main__":
    main()
