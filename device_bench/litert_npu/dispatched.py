"""Read from a .tflite that LiteRT compiled for an NPU what runs there: DISPATCH_OP's options name a stretch of bytes
behind the model, which is what the vendor's compiler made."""

from dataclasses import dataclass
from typing import Any

from edgenet.errors import InputError
from edgenet.export.tflite_file import PARSE_ERRORS, schema
from edgenet.results import TensorInfo

DISPATCH = "DISPATCH_OP"
_TYPES = {"FLOAT32": "float32", "UINT8": "uint8", "INT8": "int8", "INT16": "int16", "INT32": "int32"}


@dataclass(frozen=True)
class Dispatched:
    """One part of a network that runs on the NPU. `code` is the vendor's."""

    name: str
    code: bytes
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]


def read_dispatched(model: bytes) -> tuple[Dispatched, ...]:
    """Return the parts of the main graph that run on the NPU, in the file's order; none where it is not compiled.

    Raises:
        InputError: the file is damaged or cut short.
    """
    try:
        return tuple(_read(model))
    except PARSE_ERRORS as e:
        raise InputError(f"the compiled .tflite is damaged or cut short ({e}): compile it again") from None


def _read(model: bytes) -> list[Dispatched]:
    from flatbuffers import flexbuffers

    s = schema()
    types = {v: _TYPES.get(k, k.lower()) for k, v in vars(s.TensorType).items() if isinstance(v, int)}
    root = s.Model.GetRootAs(model, 0)
    graph = root.Subgraphs(0)

    def tensor(i: int) -> TensorInfo:
        t = graph.Tensors(i)
        q, shape = t.Quantization(), tuple(int(d) for d in t.ShapeAsNumpy())
        one = q is not None and q.ScaleLength() == 1
        name = (t.Name() or b"").decode()
        return TensorInfo(name, shape, types[t.Type()], *((q.Scale(0), q.ZeroPoint(0)) if one else ()))

    found = []
    for i in range(graph.OperatorsLength()):
        op = graph.Operators(i)
        if root.OperatorCodes(op.OpcodeIndex()).CustomCode() != DISPATCH.encode():
            continue
        options: dict[str, Any] = flexbuffers.Loads(op.CustomOptionsAsNumpy().tobytes())
        start, size = int(options["bytecode_offset"]), int(options["bytecode_size"])
        if not 0 < start < start + size <= len(model):
            raise ValueError(f"{start + size} bytes are needed, {len(model)} are there")
        inputs = tuple(tensor(int(t)) for t in op.InputsAsNumpy())
        outputs = tuple(tensor(int(t)) for t in op.OutputsAsNumpy())
        found.append(Dispatched(str(options["name"]), model[start : start + size], inputs, outputs))
    return found
