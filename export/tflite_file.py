"""Read a .tflite file into a `Graph` and write a `Graph` as one, without loss and always with the same bytes.

The file is a flatbuffer; its classes are generated from
https://github.com/google-ai-edge/LiteRT, `tflite/converter/schema/schema.fbs`.
"""

import math
import struct
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from edgenet.errors import InputError, MissingDependency
from edgenet.export.graph import LARGEST_BYTES, Graph, Op, Quantization, Tensor, packed, unpacked
from edgenet.export.op_versions import op_version

# What the flatbuffers package and NumPy raise on a buffer that is cut or overwritten.
PARSE_ERRORS = (struct.error, ValueError, IndexError, TypeError, OverflowError, AttributeError, KeyError, MemoryError)


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
_DTYPES = {
    "FLOAT32": "float32", "FLOAT16": "float16", "INT32": "int32", "UINT8": "uint8", "INT64": "int64", "BOOL": "bool",
    "INT16": "int16", "INT8": "int8", "FLOAT64": "float64", "UINT32": "uint32", "UINT16": "uint16", "UINT64": "uint64",
}  # fmt: skip

FEW = "INT4"  # two a byte; int8 with `bits` in a graph


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
    except PARSE_ERRORS:
        raise InputError("the TFLite file is damaged or cut short: copy it again, or convert it anew") from None


def _read(s: Any, model: bytes) -> Graph:
    m = s.ModelT.InitFromPackedBuf(model, 0)
    if len(m.subgraphs) != 1:
        raise InputError(
            f"the file has {len(m.subgraphs)} subgraphs; edgenet handles one: export without loops and branches"
        )
    sub = m.subgraphs[0]
    types, kinds, unions = _names(s.TensorType), _names(s.BuiltinOperator), _names(s.BuiltinOptions)
    names = _unique_names([t.name.decode() for t in sub.tensors])
    tensors = {}
    for name, t in zip(names, sub.tensors, strict=True):
        few = types[t.type] == FEW
        dtype = "int8" if few else _DTYPES.get(types[t.type])
        if dtype is None:
            raise InputError(f"tensor {name} has type {types[t.type]}, which edgenet does not handle")
        shape = () if t.shape is None else tuple(int(d) for d in t.shape)
        data = _buffer(m, t.buffer, "uint8" if few else dtype, (-1,) if few else shape)
        if few:
            if data is None or data.size != (math.prod(shape) + 1) // 2:
                raise InputError(f"tensor {name} has type {FEW} and is no constant, which edgenet does not handle")
            data = unpacked(data, shape)
        bits = 4 if few else None
        tensors[name] = Tensor(name, shape, dtype, data, _read_quantization(t.quantization), bits)
    ops = []
    placed = [i for row in (sub.inputs, sub.outputs, *(op.outputs for op in sub.operators)) for i in row]
    if min(placed, default=0) < 0:
        raise ValueError("a tensor below zero")
    for op in sub.operators:
        code = m.operatorCodes[op.opcodeIndex]
        kind = kinds[max(code.builtinCode, code.deprecatedBuiltinCode)]
        if kind == "CUSTOM":
            raise InputError(
                f"the file has the custom operator {code.customCode.decode()}: edgenet handles TFLite's own only"
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
    few_bits: bool = False,
) -> bytes:
    """Return `graph` as a .tflite file: the same graph always gives the same bytes.

    Args:
        signature: key of the signature that names inputs and outputs, None for none.
        metadata: entries of the model's metadata table by name.
        few_bits: store constants of 4 bits two a byte; else as the int8 that kernels of the same integers take.

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
    if not few_bits:
        graph = replace(graph, tensors={n: replace(t, bits=None) for n, t in graph.tensors.items()})
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
    few = len(dtypes) > 1 and op.inputs[1] is not None and graph.tensors[op.inputs[1]].bits is not None
    return op_version(op.kind, str(data), FEW if few else dtypes[1] if len(dtypes) > 1 else None, op.version)


def _bytes_buffer(s: Any, data: np.ndarray) -> Any:
    buffer = s.BufferT()
    buffer.data = data
    return buffer


def _pack_tensor(s: Any, m: Any, t: Tensor, shared: dict[tuple[str, bytes], int]) -> Any:
    out = s.TensorT()
    out.name, out.shape, out.hasRank = t.name, np.array(t.shape, np.int32), True
    stored = FEW if t.bits is not None else {v: k for k, v in _DTYPES.items()}[t.dtype]
    out.type = getattr(s.TensorType, stored)
    out.buffer = 0
    if t.data is not None:
        raw = np.ascontiguousarray(t.data if t.bits is None else packed(t.data)).tobytes()
        if (stored, raw) not in shared:
            shared[stored, raw] = len(m.buffers)
            m.buffers.append(_bytes_buffer(s, np.frombuffer(raw, np.uint8)))
        out.buffer = shared[stored, raw]
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
