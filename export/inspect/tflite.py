"""Read a .tflite file into `Facts`: operators, constant tensors and metadata, straight from the flatbuffer.

Nothing native parses the file, so a damaged one ends in an InputError, never in a crash. Each list in the file is
checked against a budget before it is walked, so that overwritten lengths cannot make it run for hours.
https://github.com/tensorflow/tensorflow/blob/master/tensorflow/compiler/mlir/lite/schema/schema.fbs
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from edgenet.errors import InputError, MissingDependency
from edgenet.export.inspect.facts import Facts, Operator, Weight, largest_q
from edgenet.export.metadata import BUFFER_NAME, parse_metadata, split_files
from edgenet.export.tflite_file import PARSE_ERRORS
from edgenet.results.tensor_info import TensorInfo

T = TypeVar("T")

_NUMPY = {
    "float32": np.float32, "float16": np.float16, "float64": np.float64, "int8": np.int8, "uint8": np.uint8,
    "int16": np.int16, "uint16": np.uint16, "int32": np.int32, "uint32": np.uint32, "int64": np.int64,
    "uint64": np.uint64, "bool": np.bool_,
}  # fmt: skip
_PACKED_BITS = {"int4": 4, "int2": 2, "uint4": 4}
_INDEX_TYPES = {"int32", "int64", "uint32", "uint64", "bool", "string", "resource", "variant"}
_FLOATS = {"float32", "float16", "float64", "bfloat16"}
_NARROW = {"int8", "uint8", "int4", "int2", "uint4"}
_CONVERT = {"QUANTIZE", "DEQUANTIZE", "CAST", "FAKE_QUANT"}
_BY_ACTIVATION = {"int16": "int16x8", "float16": "float16", "int8": "int8", "uint8": "uint8"}
_MATRIX = {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV", "CONV_3D", "CONV_3D_TRANSPOSE",
           "BATCH_MATMUL"}  # fmt: skip
_RECURRENT = ("LSTM", "RNN", "SVDF")


@dataclass(frozen=True)
class _Tensor:
    name: str
    shape: tuple[int, ...]  # a dynamic dimension is 1
    signature: tuple[int, ...]  # a dynamic dimension is -1
    dtype: str
    buffer: int
    data: "np.ndarray[Any, Any] | None"  # uint8, None where the tensor is not constant
    scales: "np.ndarray[Any, Any]"
    zero_points: "np.ndarray[Any, Any]"
    axis: int

    @property
    def n(self) -> int:
        return math.prod(self.shape)

    @property
    def info(self) -> TensorInfo:
        one = self.scales.size == 1
        return TensorInfo(
            self.name,
            self.signature,
            self.dtype,
            float(self.scales[0]) if one else None,
            (int(self.zero_points[0]) if self.zero_points.size else 0) if one else None,
        )


@dataclass(frozen=True)
class _Op:
    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    adj_x: bool = False


class _Reader:
    """Walks the flatbuffer; `budget` is what is left of the list entries that a file of this size can hold."""

    def __init__(self, buf: bytes, schema: Any) -> None:
        self.buf, self.schema = buf, schema
        self.budget = max(len(buf), 1 << 12)
        self.types = {v: k.lower() for k, v in vars(schema.TensorType).items() if isinstance(v, int)}
        self.operators = {v: k for k, v in vars(schema.BuiltinOperator).items() if isinstance(v, int)}
        self.root = schema.Model.GetRootAs(buf)
        self.codes = [self._code(self.root.OperatorCodes(i)) for i in self.count(self.root.OperatorCodesLength())]
        self.buffers = [self._data(self.root.Buffers(i)) for i in self.count(self.root.BuffersLength())]

    def count(self, n: int) -> range:
        self.budget -= n
        if self.budget < 0:
            raise ValueError("a list is longer than the file")
        return range(n)

    def ints(self, vector: Any) -> tuple[int, ...]:
        if isinstance(vector, int):  # what the generated code returns for a missing vector
            return ()
        self.count(len(vector))
        return tuple(int(v) for v in vector)

    def _code(self, code: Any) -> tuple[str, str]:
        number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())  # the older field holds numbers below 127
        kind = self.operators.get(number)
        if kind is None:
            raise ValueError(f"operator number {number}")
        custom = (code.CustomCode() or b"").decode() if kind == "CUSTOM" else ""
        return (custom or kind, custom)

    def _data(self, buffer: Any) -> "np.ndarray[Any, Any]":
        if (offset := buffer.Offset()) > 1:  # beyond 2 GB the bytes stand behind the flatbuffer
            if offset + buffer.Size() > len(self.buf):
                raise ValueError("a buffer reaches beyond the end of the file")
            return np.frombuffer(self.buf, np.uint8, buffer.Size(), offset)
        data = buffer.DataAsNumpy()
        return np.zeros(0, np.uint8) if isinstance(data, int) else data

    def tensor(self, t: Any) -> _Tensor:
        dtype = self.types.get(t.Type())
        if dtype is None:
            raise ValueError(f"tensor type {t.Type()}")
        shape = self.ints(t.ShapeAsNumpy())
        signature = self.ints(t.ShapeSignatureAsNumpy()) or shape
        if len(signature) != len(shape) or any(d < 0 for d in shape) or any(d < -1 for d in signature):
            raise ValueError(f"shape {shape}, signature {signature}")
        data = self.buffers[t.Buffer()] if t.Buffer() else np.zeros(0, np.uint8)
        q = t.Quantization()
        scales = q.ScaleAsNumpy() if q is not None else 0
        zero_points = q.ZeroPointAsNumpy() if q is not None else 0
        _check_scales(t.Name() or b"", shape, scales, zero_points, q.QuantizedDimension() if q is not None else 0)
        return _Tensor(
            name=(t.Name() or b"").decode(),
            shape=shape,
            signature=signature,
            dtype=dtype,
            buffer=t.Buffer(),
            data=data if data.size else None,
            scales=np.zeros(0, np.float32) if isinstance(scales, int) else scales,
            zero_points=np.zeros(0, np.int64) if isinstance(zero_points, int) else zero_points,
            axis=q.QuantizedDimension() if q is not None else 0,
        )

    def operator(self, op: Any) -> _Op:
        kind = self.codes[op.OpcodeIndex()][0]
        adj_x = False
        if kind == "BATCH_MATMUL" and (table := op.BuiltinOptions()) is not None:
            options = self.schema.BatchMatMulOptions()
            options.Init(table.Bytes, table.Pos)
            adj_x = options.AdjX()
        inputs, outputs = self.ints(op.InputsAsNumpy()), self.ints(op.OutputsAsNumpy())
        if min(outputs, default=0) < 0:  # an input of -1 is one that is left out
            raise ValueError(f"{kind} gives a tensor below zero")
        return _Op(kind, inputs, outputs, adj_x)


def _check_scales(name: bytes, shape: tuple[int, ...], scales: Any, zero_points: Any, axis: int) -> None:
    """Raise ValueError where scales are no numbers above zero, or not one for the tensor or for each channel."""
    if isinstance(scales, int) or not scales.size:  # what the generated code returns for a missing vector
        return
    shown = name.decode()
    if not (np.isfinite(scales).all() and (scales >= 0).all()):
        raise ValueError(f"the scales of {shown} are not all numbers above zero")
    n = 1 if isinstance(zero_points, int) else zero_points.size
    if scales.size > 1 and not (0 <= axis < len(shape) and scales.size == shape[axis]):
        raise ValueError(f"{scales.size} scales of {shown} of shape {shape}, along the axis {axis}")
    if n not in (0, 1, scales.size):
        raise ValueError(f"{n} zero points of {shown} for {scales.size} scales")


def tflite_facts(path: Path) -> Facts:
    """Read a .tflite file.

    Raises:
        InputError: it is damaged.
        MissingDependency: ai-edge-litert, whose schema is used, is not installed.
    """
    return _parsed(path, _facts)


def _parsed(path: Path, parse: Callable[[bytes, Any], T]) -> T:
    try:
        from ai_edge_litert import schema_py_generated as schema
    except ImportError:
        raise MissingDependency("ai-edge-litert", "tflite", "inspecting a .tflite file") from None
    buf = path.read_bytes()
    if buf[4:8] != b"TFL3":
        raise InputError(f"{path} is not a .tflite file: the identifier TFL3 is missing")
    try:
        return parse(buf, schema)
    except InputError as e:
        raise InputError(f"{path}: {e}") from None
    except (*PARSE_ERRORS, AssertionError, RecursionError) as e:
        raise InputError(f"{path} is a .tflite file by its first bytes, but damaged or cut short ({e})") from None


def operator_outputs(path: Path) -> list[tuple[str, str]]:
    """Return (kind, name of the first output) of every operator of the main graph, as the file spells them.

    Raises as `tflite_facts` does.
    """

    def outputs(buf: bytes, schema: Any) -> list[tuple[str, str]]:
        reader = _Reader(buf, schema)
        graph = reader.root.Subgraphs(0)
        names = [(graph.Tensors(i).Name() or b"").decode() for i in reader.count(graph.TensorsLength())]
        ops = [reader.operator(graph.Operators(i)) for i in reader.count(graph.OperatorsLength())]
        return [(op.kind, names[op.outputs[0]] if op.outputs else "") for op in ops]

    return _parsed(path, outputs)


def _facts(buf: bytes, schema: Any) -> Facts:
    reader = _Reader(buf, schema)
    root = reader.root
    operators: list[Operator] = []
    weights: dict[tuple[int, int], Weight] = {}  # by (graph, tensor): equal tensors may share one buffer
    zero_points: list[int] = []
    custom: list[str] = []
    if not root.SubgraphsLength():
        raise ValueError("no graph in it")
    inputs: tuple[TensorInfo, ...] = ()
    outputs: tuple[TensorInfo, ...] = ()
    graph_name = ""
    for s in reader.count(root.SubgraphsLength()):
        graph = root.Subgraphs(s)
        tensors = [reader.tensor(graph.Tensors(i)) for i in reader.count(graph.TensorsLength())]
        ops = [reader.operator(graph.Operators(i)) for i in reader.count(graph.OperatorsLength())]
        for op in ops:
            for i in op.inputs + op.outputs:
                if not -1 <= i < len(tensors):
                    raise ValueError(f"{op.kind} uses tensor {i} of {len(tensors)}")
        origin = {  # tensor that a constant is expanded to -> the constant
            op.outputs[0]: op.inputs[0]
            for op in ops
            if op.kind == "DEQUANTIZE" and op.inputs and op.outputs and tensors[op.inputs[0]].data is not None
        }
        operators += [_operator(op, tensors, origin) for op in ops]
        for op in ops:
            _collect(op, s, tensors, origin, weights)
        custom += [c for c in (reader.codes[graph.Operators(i).OpcodeIndex()][1] for i in range(len(ops))) if c]
        zero_points += [
            int(t.zero_points[0]) for t in tensors if t.data is None and t.scales.size == 1 and t.zero_points.size
        ]
        if s == 0:
            graph_name = (graph.Name() or b"").decode()
            ends = [reader.ints(vector) for vector in (graph.InputsAsNumpy(), graph.OutputsAsNumpy())]
            if min(ends[0] + ends[1], default=0) < 0:
                raise ValueError("an input or an output below zero")
            inputs, outputs = (tuple(tensors[i].info for i in end) for end in ends)
    attached = _attached(reader)
    metadata, edgenet, files, files_bytes, warnings = _described(buf, attached, inputs, outputs)
    described = {i for i, _ in attached.values()}
    return Facts(
        format="tflite",
        name=metadata.get("name") or (edgenet or {}).get("model") or graph_name,
        operators=tuple(operators),
        weights=tuple(weights.values()),
        constant_bytes=sum(d.size for i, d in enumerate(reader.buffers) if i not in described),
        inputs=inputs,
        outputs=outputs,
        activation_zero_points=tuple(zero_points),
        signatures=tuple(
            (root.SignatureDefs(i).SignatureKey() or b"").decode() for i in reader.count(root.SignatureDefsLength())
        ),
        custom_operators=tuple(custom),
        metadata=metadata,
        edgenet=edgenet,
        files=files,
        files_bytes=files_bytes,
        versions={"schema": str(root.Version()), **_min_runtime(attached)},
        warnings=(*_uncounted(operators), *warnings),
    )


def _operator(op: _Op, tensors: list[_Tensor], origin: dict[int, int]) -> Operator:
    if op.kind in _CONVERT:
        return Operator(op.kind, "convert")
    constants = {i: tensors[i] for i in op.inputs if i >= 0 and tensors[i].data is not None}
    expanded = [tensors[origin[i]] for i in op.inputs if i in origin]
    active = {
        tensors[i].dtype
        for i in (*op.inputs, *op.outputs)
        if i >= 0 and i not in constants and i not in origin and tensors[i].dtype not in _INDEX_TYPES
    }
    if not active:
        return Operator(op.kind, "integer")
    if active == {"float32"}:
        if any(t.dtype in _NARROW for t in constants.values()):
            precision = "dynamic"
        elif any(t.dtype in _NARROW or t.dtype == "int16" for t in expanded):
            precision = "weight-only"
        elif any(t.dtype == "float16" for t in (*expanded, *constants.values())):
            precision = "float16 weights"
        else:
            precision = "float32"
    else:
        precision = "+".join(sorted(_BY_ACTIVATION.get(a, a) for a in active))
        if precision == "int8" and any(_PACKED_BITS.get(t.dtype) == 4 for t in constants.values()):
            precision = "int4"
    return Operator(op.kind, precision, _multiply_adds(op, tensors))


def _multiply_adds(op: _Op, tensors: list[_Tensor]) -> int:
    if op.kind not in _MATRIX:
        return 0
    shapes = [tensors[i].shape if i >= 0 else () for i in op.inputs]
    out = math.prod(tensors[op.outputs[0]].shape)
    match op.kind:
        case "CONV_2D":  # weights (out, h, w, in / groups)
            return out * math.prod(shapes[1][1:])
        case "DEPTHWISE_CONV_2D":  # weights (1, h, w, channels)
            return out * math.prod(shapes[1][1:3])
        case "FULLY_CONNECTED":  # weights (out, in)
            return out * shapes[1][-1]
        case "TRANSPOSE_CONV":  # inputs: output shape, weights (out, h, w, in), data
            return math.prod(shapes[2]) * math.prod(shapes[1][:-1])
        case "CONV_3D":  # weights (d, h, w, in, out)
            return out * math.prod(shapes[1][:4])
        case "CONV_3D_TRANSPOSE":  # inputs: output shape, weights (d, h, w, out, in), data
            return math.prod(shapes[2]) * math.prod(shapes[1][:4])
        case _:  # BATCH_MATMUL (..., n, k) x (..., k, m)
            return out * shapes[0][-2 if op.adj_x else -1]


def _collect(
    op: _Op, graph: int, tensors: list[_Tensor], origin: dict[int, int], weights: dict[tuple[int, int], Weight]
) -> None:
    """Add the trained numbers among the operator's constants: no shapes, axes or indices."""
    for place, i in enumerate(op.inputs):
        key = (graph, origin.get(i, i))
        t = tensors[key[1]] if i >= 0 else None
        if t is None or t.data is None or not t.shape or key in weights:
            continue
        bias = op.kind in _MATRIX and place == 2 and t.dtype in ("int32", "int64")
        if not (t.dtype in _FLOATS or (t.scales.size and t.dtype not in _INDEX_TYPES) or bias):
            continue
        matrix = op.kind in _MATRIX and len(t.shape) > 1
        if op.kind in _CONVERT:
            continue  # counted where its result is used
        narrow = t.dtype in _NARROW and t.scales.size > 0
        weights[key] = Weight(
            n=t.n,
            dtype=t.dtype,
            matrix=matrix,
            n_scales=int(t.scales.size) if narrow else 0,
            symmetric=not np.any(t.zero_points),
            q_max=_q_max(t) if narrow and matrix else None,
            depthwise=op.kind == "DEPTHWISE_CONV_2D",
        )


def _q_max(t: _Tensor) -> int | None:
    assert t.data is not None
    if t.dtype in _PACKED_BITS:
        return 1 << (_PACKED_BITS[t.dtype] - 1)  # by its type
    values: np.ndarray[Any, Any] = t.data.view(_NUMPY[t.dtype])
    if values.size != t.n:
        raise ValueError(f"constant '{t.name}' has {values.size} values for shape {t.shape}")
    return largest_q(values, not np.any(t.zero_points))


def _attached(reader: _Reader) -> dict[str, tuple[int, bytes]]:
    """Return the metadata buffers: name -> (index of the buffer, content)."""
    out = {}
    for i in reader.count(reader.root.MetadataLength()):
        entry = reader.root.Metadata(i)
        out[(entry.Name() or b"").decode()] = (entry.Buffer(), reader.buffers[entry.Buffer()].tobytes())
    return out


def _min_runtime(attached: dict[str, tuple[int, bytes]]) -> dict[str, str]:
    text = attached.get("min_runtime_version", (0, b""))[1].rstrip(b"\0")
    return {"runtime": f">={text.decode()}"} if text and text.isascii() else {}


def _described(
    buf: bytes,
    attached: dict[str, tuple[int, bytes]],
    inputs: tuple[TensorInfo, ...],
    outputs: tuple[TensorInfo, ...],
) -> tuple[dict[str, Any], dict[str, Any] | None, dict[str, int], int, list[str]]:
    """Return (metadata, edgenet's own JSON, associated files, bytes of their archive, warnings)."""
    warnings = []
    body, archive = split_files(buf)
    edgenet = None
    if "edgenet" in attached:
        edgenet = json.loads(attached["edgenet"][1])
        if not isinstance(edgenet, dict):
            raise ValueError("its edgenet entry is no JSON object")
    metadata: dict[str, Any] = {}
    if BUFFER_NAME in attached:
        raw = parse_metadata(attached[BUFFER_NAME][1])
        sides = {"inputs": raw.pop("inputs"), "outputs": raw.pop("outputs")}
        metadata = raw
        if sides["inputs"] and sides["inputs"][0]["mean"]:
            metadata["mean"], metadata["std"] = sides["inputs"][0]["mean"], sides["inputs"][0]["std"]
        elif inputs and inputs[0].dtype == "float32" and len(inputs[0].shape) == 4:
            warnings.append("no normalization in the metadata: MediaPipe Tasks refuses a float input without it")
        for f in (f for t in sides["outputs"] for f in t["files"]):
            content = archive.get(f["name"] or "")
            if content is None:
                warnings.append(f"the metadata names {f['name']}, which the file does not carry: was it cut short?")
            elif f["type"] == "axis labels" and "labels" not in metadata:
                metadata["labels"] = n = len(content.decode().splitlines())
                classes = outputs[0].shape[-1] if outputs and outputs[0].shape else n
                if n != classes:
                    warnings.append(f"{n} labels for {classes} outputs")
    return metadata, edgenet, {k: len(v) for k, v in archive.items()}, len(buf) - len(body), warnings


def _uncounted(operators: list[Operator]) -> list[str]:
    kinds = sorted({o.kind for o in operators if any(r in o.kind for r in _RECURRENT)})
    return [f"{', '.join(kinds)}: recurrent operators are not in the multiply-adds"] if kinds else []
