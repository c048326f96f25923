"""The hub: a network as one flat list of operators with their weights, read from and written to .tflite.

Every network, ours or the user's, becomes a `Graph` of float operators with batch norm folded and activations fused;
everything after (calibration, quantization, all formats) works on it. Operators and their options carry TFLite's names:
https://github.com/google-ai-edge/LiteRT, `tflite/converter/schema/schema.fbs`. Layouts are TFLite's: activations NHWC,
convolution weights OHWI, depthwise weights (1, H, W, C), dense weights (out, in).
"""

import hashlib
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from edgenet.errors import InputError, MissingDependency
from edgenet.export.op_versions import op_version


@dataclass(frozen=True)
class Quantization:
    """real = scale * (stored - zero_point); one scale, or one per index of `axis`."""

    scale: np.ndarray  # (1,) or (C,) float32
    zero_point: np.ndarray  # (1,) or (C,) int64
    axis: int = 0

    @classmethod
    def per_tensor(cls, scale: float, zero_point: int = 0) -> "Quantization":
        return cls(np.array([scale], np.float32), np.array([zero_point], np.int64))


@dataclass(frozen=True)
class Tensor:
    """A value of the graph; `data` holds its stored numbers when it is a constant."""

    name: str
    shape: tuple[int, ...]
    dtype: str  # NumPy's name
    data: np.ndarray | None = None
    quantization: Quantization | None = None


@dataclass(frozen=True)
class Op:
    """One operator. `inputs` are names of tensors, None where an optional one is left out."""

    kind: str  # TFLite's builtin name, e.g. "CONV_2D"
    inputs: tuple[str | None, ...]
    outputs: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    options_type: str = "NONE"  # member of the schema's union BuiltinOptions
    version: int = 1  # as the float file has it; writing raises it where the types need that


@dataclass(frozen=True)
class Graph:
    """Operators in the order they run, and every tensor by its name."""

    name: str
    tensors: dict[str, Tensor]
    ops: tuple[Op, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def constant(self, name: str | None) -> np.ndarray | None:
        """Return the numbers of a constant, None where `name` is not one."""
        return None if name is None else self.tensors[name].data

    def producers(self) -> dict[str, int]:
        """Return the index of the operator that makes each tensor."""
        return {out: i for i, op in enumerate(self.ops) for out in op.outputs}

    def consumers(self) -> dict[str, list[int]]:
        """Return the indices of the operators that read each tensor."""
        found: dict[str, list[int]] = {name: [] for name in self.tensors}
        for i, op in enumerate(self.ops):
            for name in op.inputs:
                if name is not None:
                    found[name].append(i)
        return found

    def activations(self) -> list[str]:
        """Return the names of all tensors that are computed or fed, inputs first, in the order they are made."""
        return [*self.inputs, *(out for op in self.ops for out in op.outputs)]

    def with_outputs(self, names: Iterable[str]) -> "Graph":
        """Return the same graph with other outputs."""
        return replace(self, outputs=tuple(names))

    def renamed(self, new: Mapping[str, str]) -> "Graph":
        """Return the graph with other names for some tensors."""

        def name(n: Any) -> Any:
            return None if n is None else new.get(n, n)

        tensors = {name(n): replace(t, name=name(n)) for n, t in self.tensors.items()}
        ops = tuple(
            replace(op, inputs=tuple(map(name, op.inputs)), outputs=tuple(map(name, op.outputs))) for op in self.ops
        )
        inputs, outputs = tuple(map(name, self.inputs)), tuple(map(name, self.outputs))
        return replace(self, tensors=tensors, ops=ops, inputs=inputs, outputs=outputs)

    def logits(self) -> str:
        """Return the name of what the final softmax reads, or of the output itself where there is no softmax."""
        producers = self.producers()
        name = self.outputs[0]
        while name in producers and self.ops[producers[name]].kind in ("SOFTMAX", "RESHAPE", "DEQUANTIZE"):
            op = self.ops[producers[name]]
            name = str(op.inputs[0])
            if op.kind == "SOFTMAX":
                return name
        return self.outputs[0]


def schema() -> Any:
    """Return the generated flatbuffer classes of TFLite's schema. Raises MissingDependency."""
    try:
        from ai_edge_litert import schema_py_generated
    except ImportError:
        raise MissingDependency("ai-edge-litert", "tflite", "reading and writing .tflite") from None
    return schema_py_generated


def _names(enum: type) -> dict[int, str]:
    return {v: k for k, v in vars(enum).items() if isinstance(v, int)}


# TFLite's tensor types that NumPy has too.
LARGEST_BYTES = 2**31 - 2**20  # of constants in a flatbuffer or a protobuf, which cannot exceed 2 GiB
_DTYPES = {
    "FLOAT32": "float32", "FLOAT16": "float16", "INT32": "int32", "UINT8": "uint8", "INT64": "int64", "BOOL": "bool",
    "INT16": "int16", "INT8": "int8", "FLOAT64": "float64", "UINT32": "uint32", "UINT16": "uint16", "UINT64": "uint64",
}  # fmt: skip


def read_tflite(model: bytes) -> Graph:
    """Return the main subgraph of a .tflite file.

    Raises:
        InputError: it is not a TFLite file, or has control flow, custom operators, or tensors of a type that edgenet
            does not handle.
    """
    s = schema()
    if len(model) < 8 or model[4:8] != b"TFL3":
        raise InputError("not a TFLite file (no TFL3 mark at byte 4): give a .tflite as a converter wrote it")
    try:
        return _read(s, model)
    except _DAMAGE as e:
        raise InputError(f"a damaged TFLite file ({type(e).__name__}): fetch or convert it anew") from None


# What following offsets that lead nowhere ends in.
_DAMAGE = (struct.error, IndexError, KeyError, ValueError, TypeError, AttributeError, OverflowError, MemoryError)


def _read(s: Any, model: bytes) -> Graph:
    m = s.ModelT.InitFromPackedBuf(model, 0)
    if len(m.subgraphs) != 1:
        raise InputError(f"the file has {len(m.subgraphs)} subgraphs; edgenet handles one (no control flow)")
    sub = m.subgraphs[0]
    types, kinds, unions = _names(s.TensorType), _names(s.BuiltinOperator), _names(s.BuiltinOptions)
    names = _unique_names([t.name.decode() for t in sub.tensors])
    tensors = {}
    for name, t in zip(names, sub.tensors, strict=True):
        dtype = _DTYPES.get(types[t.type])
        if dtype is None:
            raise InputError(f"tensor {name} has type {types[t.type]}, which edgenet does not handle")
        shape = () if t.shape is None else tuple(int(d) for d in t.shape)
        tensors[name] = Tensor(
            name, shape, dtype, _buffer(m, t.buffer, dtype, shape), _read_quantization(t.quantization)
        )
    ops = []
    for op in sub.operators:
        code = m.operatorCodes[op.opcodeIndex]
        kind = kinds[max(code.builtinCode, code.deprecatedBuiltinCode)]
        if kind == "CUSTOM":
            raise InputError(
                f"the file has the custom operator {code.customCode.decode()}, which edgenet does not handle"
            )
        ops.append(
            Op(
                kind,
                tuple(None if i < 0 else names[i] for i in op.inputs),
                tuple(names[i] for i in op.outputs),
                dict(vars(op.builtinOptions)) if op.builtinOptions is not None else {},
                unions[op.builtinOptionsType],
                int(code.version),
            )
        )
    return Graph(
        sub.name.decode() if sub.name else "main",
        tensors,
        tuple(ops),
        tuple(names[i] for i in sub.inputs),
        tuple(names[i] for i in sub.outputs),
    )


def _buffer(m: Any, index: int, dtype: str, shape: tuple[int, ...]) -> np.ndarray | None:
    data = m.buffers[index].data
    if data is None or len(data) == 0:
        return None
    return np.frombuffer(np.asarray(data, np.uint8).tobytes(), dtype).reshape(shape)


def _read_quantization(q: Any) -> Quantization | None:
    if q is None or q.scale is None or len(q.scale) == 0:
        return None
    zero = np.zeros(len(q.scale), np.int64) if q.zeroPoint is None else np.asarray(q.zeroPoint, np.int64)
    return Quantization(np.asarray(q.scale, np.float32), zero, int(q.quantizedDimension))


def _unique_names(raw: list[str]) -> list[str]:
    """Shorten the converter's names ("net/a/Relu6;net/a/Conv2D" -> "a/Relu6") and make them unique."""
    first = [name.split(";")[0] for name in raw]
    heads = [name.split("/")[0] for name in first if "/" in name]
    common = max(set(heads), key=lambda h: (heads.count(h), h)) + "/" if heads else ""
    if heads.count(common[:-1]) < len(raw) / 2:
        common = ""
    seen: dict[str, int] = {}
    out = []
    for name in first:
        short = name.removeprefix(common) or "tensor"
        while short in seen:
            seen[short] += 1
            short = f"{short}_{seen[short]}"
        seen[short] = 0
        out.append(short)
    return out


def write_tflite(
    graph: Graph,
    *,
    description: str = "edgenet",
    signature: str | None = "serving_default",
    metadata: Mapping[str, bytes] | None = None,
) -> bytes:
    """Return `graph` as a .tflite file: the same graph always gives the same bytes.

    Args:
        signature: key of the signature that names inputs and outputs, None for none.
        metadata: entries of the model's metadata table by name.

    Raises:
        InputError: the constants exceed the 2 GB that a flatbuffer can hold.
    """
    import flatbuffers

    s = schema()
    used = {n for op in graph.ops for n in (*op.inputs, *op.outputs) if n} | {*graph.inputs, *graph.outputs}
    constants = [t.data for n, t in graph.tensors.items() if n in used and t.data is not None]
    size = sum(data.nbytes for data in constants)
    if size > LARGEST_BYTES:
        raise InputError(f"the weights are {size / 2**30:.1f} GiB and a .tflite file holds 2: use openvino or onnx")
    m = s.ModelT()
    m.version, m.description, m.buffers = 3, description, [s.BufferT()]  # buffer 0 is empty by convention
    sub = s.SubGraphT()
    sub.name, m.subgraphs = graph.name, [sub]
    index = {name: i for i, name in enumerate(n for n in graph.tensors if n in used)}
    shared: dict[tuple[str, bytes], int] = {}
    sub.tensors = [_pack_tensor(s, m, graph.tensors[name], shared) for name in index]
    codes: dict[tuple[str, int], int] = {}
    m.operatorCodes, sub.operators = [], []
    for op in graph.ops:
        key = (op.kind, _version(graph, op))
        if key not in codes:
            codes[key] = len(codes)
            m.operatorCodes.append(_operator_code(s, *key))
        sub.operators.append(_pack_op(s, op, codes[key], index))
    sub.inputs, sub.outputs = [index[n] for n in graph.inputs], [index[n] for n in graph.outputs]
    if signature:
        m.signatureDefs = [_signature(s, graph, index, signature)]
    m.metadata = []
    for name, data in (metadata or {}).items():
        entry = s.MetadataT()
        entry.name, entry.buffer = name, len(m.buffers)
        m.metadata.append(entry)
        m.buffers.append(_bytes_buffer(s, np.frombuffer(data, np.uint8)))
    builder = flatbuffers.Builder(size + (1 << 16))
    builder.Finish(m.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _version(graph: Graph, op: Op) -> int:
    dtypes = [None if n is None else graph.tensors[n].dtype for n in op.inputs]
    if op.kind == "QUANTIZE":
        return 2 if graph.tensors[op.outputs[0]].dtype == "int16" else 1
    if op.kind == "DEQUANTIZE" and dtypes[0] == "int8":
        quantization = graph.tensors[str(op.inputs[0])].quantization
        return 5 if quantization is not None and len(quantization.scale) > 1 else 2
    data = dtypes[1] if op.kind == "SPLIT" else dtypes[0]
    return op_version(op.kind, str(data), dtypes[1] if len(dtypes) > 1 else None, op.version)


def _bytes_buffer(s: Any, data: np.ndarray) -> Any:
    buffer = s.BufferT()
    buffer.data = data
    return buffer


def _pack_tensor(s: Any, m: Any, t: Tensor, shared: dict[tuple[str, bytes], int]) -> Any:
    out = s.TensorT()
    out.name, out.shape, out.hasRank = t.name, np.array(t.shape, np.int32), True
    out.type = getattr(s.TensorType, {v: k for k, v in _DTYPES.items()}[t.dtype])
    out.buffer = 0
    if t.data is not None:
        raw = np.ascontiguousarray(t.data).tobytes()
        if (t.dtype, raw) not in shared:
            shared[t.dtype, raw] = len(m.buffers)
            m.buffers.append(_bytes_buffer(s, np.frombuffer(raw, np.uint8)))
        out.buffer = shared[t.dtype, raw]
    if t.quantization is not None:
        q = s.QuantizationParametersT()
        q.scale, q.zeroPoint = t.quantization.scale.astype(np.float32), t.quantization.zero_point.astype(np.int64)
        q.quantizedDimension = t.quantization.axis
        out.quantization = q
    return out


def _operator_code(s: Any, kind: str, version: int) -> Any:
    code = s.OperatorCodeT()
    code.builtinCode = getattr(s.BuiltinOperator, kind)
    code.deprecatedBuiltinCode = min(code.builtinCode, 127)  # readers from before the code outgrew a byte
    code.version = version
    return code


def _pack_op(s: Any, op: Op, code: int, index: dict[str, int]) -> Any:
    out = s.OperatorT()
    out.opcodeIndex = code
    out.inputs = [-1 if n is None else index[n] for n in op.inputs]
    out.outputs = [index[n] for n in op.outputs]
    if op.options_type != "NONE":
        out.builtinOptionsType = getattr(s.BuiltinOptions, op.options_type)
        out.builtinOptions = getattr(s, f"{op.options_type}T")()
        for name, value in op.options.items():
            setattr(out.builtinOptions, name, value)
    return out


def _signature(s: Any, graph: Graph, index: dict[str, int], key: str) -> Any:
    def maps(names: tuple[str, ...]) -> list[Any]:
        out = []
        for name in names:
            entry = s.TensorMapT()
            entry.name, entry.tensorIndex = name, index[name]
            out.append(entry)
        return out

    signature = s.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = key, 0
    signature.inputs, signature.outputs = maps(graph.inputs), maps(graph.outputs)
    return signature


def fingerprint(graph: Graph) -> str:
    """Return the sha256 of operators and weights, also of a graph that no .tflite file holds."""
    digest = hashlib.sha256(repr((graph.ops, graph.inputs, graph.outputs)).encode())
    for name, tensor in graph.tensors.items():
        digest.update(f"{name} {tensor.shape} {tensor.dtype}".encode())
        if tensor.data is not None:
            digest.update(tensor.data.tobytes())
    return digest.hexdigest()
