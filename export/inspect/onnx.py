"""Read an .onnx file into `Facts`: QDQ, integer operators, dynamic and weight-only quantization, told by the graph.

An operator of a QDQ graph is one that the runtime fuses with the DequantizeLinear before it and the QuantizeLinear
behind it, so it counts as integer when both its weights and its activations come from a DequantizeLinear.
https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgenet.errors import InputError, MissingDependency
from edgenet.export.inspect.facts import Facts, Operator, Weight, largest_pair, largest_q
from edgenet.export.tflite_file import PARSE_ERRORS
from edgenet.files import WEIGHTS_BESIDE
from edgenet.results.tensor_info import TensorInfo

_CONVERT = {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "Cast"}
_VIEWS = {"DequantizeLinear", "Cast", "Identity", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten"}
_FUSED = {"Relu", "Clip", "LeakyRelu", "Sigmoid", "HardSigmoid", "HardSwish"}
_DYNAMIC = {"ConvInteger", "MatMulInteger", "DynamicQuantizeMatMul", "MatMulIntegerToFloat", "DynamicQuantizeLSTM"}
_FLOATS = {"float32", "float16", "float64", "bfloat16"}
_NARROW = {"int8", "uint8", "int4", "uint4", "int2", "uint2"}
_INDEX_TYPES = {"int32", "int64", "uint32", "uint64", "bool", "string"}
# Operator -> (place of the data, of the weights, of the weights' zero point and scale where they are inputs of it).
_MATRIX: dict[str, tuple[int, int, int | None, int | None]] = {
    "Conv": (0, 1, None, None),
    "FusedConv": (0, 1, None, None),
    "ConvTranspose": (0, 1, None, None),
    "Gemm": (0, 1, None, None),
    "MatMul": (0, 1, None, None),
    "FusedMatMul": (0, 1, None, None),
    "ConvInteger": (0, 1, 3, None),
    "MatMulInteger": (0, 1, 3, None),
    "MatMulIntegerToFloat": (0, 1, 5, 3),
    "DynamicQuantizeMatMul": (0, 1, 3, 2),
    "QLinearConv": (0, 3, 5, 4),
    "QLinearMatMul": (0, 3, 5, 4),
    "QGemm": (0, 3, 5, 4),
}
_OWN_DOMAINS = ("", "ai.onnx", "ai.onnx.ml")
# onnxruntime's own operator, of which onnx infers no shape -> (a standard one of the same shape, which of the inputs).
_SAME_SHAPES: dict[str, tuple[str, tuple[int, ...]]] = {
    "QLinearAdd": ("Add", (0, 3)),
    "QLinearMul": ("Mul", (0, 3)),
    "QLinearSigmoid": ("Identity", (0,)),
    "QLinearLeakyRelu": ("Identity", (0,)),
    "QLinearSoftmax": ("Identity", (0,)),
    "QLinearGlobalAveragePool": ("GlobalMaxPool", (0,)),
    "QLinearAveragePool": ("MaxPool", (0,)),
    "QGemm": ("Gemm", (0, 3)),
    "FusedConv": ("Conv", (0, 1)),
    "DynamicQuantizeMatMul": ("MatMul", (0, 1)),
    "MatMulIntegerToFloat": ("MatMul", (0, 1)),
}


@dataclass(frozen=True)
class _Graph:
    onnx: Any
    constants: dict[str, Any]  # name -> TensorProto
    producers: dict[str, Any]  # value -> NodeProto
    consumers: dict[str, list[Any]]
    types: dict[str, tuple[str, tuple[int, ...]]]  # value -> (dtype, shape with -1 for dynamic, -2 for unknown)

    def origin(self, name: str) -> tuple[Any, list[Any]]:
        """Return (the constant that `name` is made of or None, the nodes between)."""
        nodes: list[Any] = []
        while name not in self.constants:
            node = self.producers.get(name)
            if node is None or not (node.op_type in _VIEWS or self.is_scaling(node)) or len(nodes) > 16:
                return None, nodes
            nodes.append(node)
            name = node.input[0]
        return self.constants[name], nodes

    def is_scaling(self, node: Any) -> bool:
        """Whether a Mul does what DequantizeLinear does, in a form that is folded: a cast constant times a scale."""
        if node.op_type != "Mul" or node.input[1] not in self.constants:
            return False
        cast = self.producers.get(node.input[0])
        return cast is not None and cast.op_type == "Cast" and cast.input[0] in self.constants

    def dtype(self, name: str) -> str:
        if name in self.constants:
            return self.type_name(self.constants[name].data_type)
        return self.types.get(name, ("", ()))[0]

    def shape(self, name: str) -> tuple[int, ...] | None:
        if name in self.constants:
            return tuple(self.constants[name].dims)
        if name in self.types:
            shape = self.types[name][1]
            return None if -2 in shape else tuple(1 if d == -1 else d for d in shape)
        constant, nodes = self.origin(name)
        same = {"DequantizeLinear", "Cast", "Identity"}
        return tuple(constant.dims) if constant is not None and all(n.op_type in same for n in nodes) else None

    def type_name(self, number: int) -> str:
        name = str(self.onnx.TensorProto.DataType.Name(number)).lower()
        return {"float": "float32", "double": "float64"}.get(name, name)

    def array(self, name: str) -> "np.ndarray[Any, Any] | None":
        """Return the values of a constant, None where it is not one or its data stands in another file."""
        tensor = self.constants.get(name)
        if tensor is None or tensor.data_location == self.onnx.TensorProto.EXTERNAL:
            return None
        return np.asarray(self.onnx.numpy_helper.to_array(tensor))


def onnx_facts(path: Path) -> Facts:
    """Read an .onnx file.

    Raises:
        InputError: it is not an ONNX model, or damaged.
        MissingDependency: the onnx package is not installed.
    """
    try:
        import onnx
        import onnx.numpy_helper
        import onnx.shape_inference
        from google.protobuf.message import DecodeError
    except ImportError:
        raise MissingDependency("onnx", "onnx", "inspecting an .onnx file") from None
    try:
        model = onnx.load_model_from_string(path.read_bytes())
        if not model.graph.node and not model.graph.output:
            raise ValueError("no graph in it")
        return _facts(model, onnx, path)
    except DecodeError:
        raise InputError(f"{path} is not an ONNX model, or it is damaged or cut short: export it again") from None
    except InputError:
        raise
    except (*PARSE_ERRORS, RecursionError) as e:
        raise InputError(f"{path} is a damaged ONNX model ({_first_line(e)}): export it again") from None


def _first_line(e: BaseException) -> str:
    return (str(e).strip().splitlines() or ["no reason told"])[0]


def _facts(model: Any, onnx: Any, path: Path) -> Facts:
    g, warnings = _graph(model, onnx)
    nodes = list(model.graph.node)
    operators: list[Operator] = []
    weights: dict[str, Weight] = {}
    unknown: list[str] = []
    for node in nodes:
        if node.op_type == "Constant":
            continue
        adds = _multiply_adds(g, node)
        if adds is None:
            unknown.append(node.op_type)
        operators.append(Operator(node.op_type, _precision(g, node), adds or 0))
        _collect(g, node, weights)
    operators += _nested(nodes)
    if unknown:
        warnings.append(f"the shapes of {len(unknown)} operators are not known: multiply-adds are a lower bound")
    own = path.with_suffix(WEIGHTS_BESIDE[".onnx"]).name
    elsewhere = [t for t in g.constants.values() if _external(t).get("location", own) != own]
    if elsewhere:
        warnings.append(f"{len(elsewhere)} constants stand in another file beside it, which is not in its size")
    props = {p.key: p.value for p in model.metadata_props if isinstance(p.key, str) and isinstance(p.value, str)}
    edgenet = json.loads(props.pop("edgenet")) if "edgenet" in props else None
    if edgenet is not None and not isinstance(edgenet, dict):
        raise ValueError("its edgenet entry is no JSON object")
    labels = props.pop("labels", None)
    metadata: dict[str, Any] = {**({"description": model.doc_string} if model.doc_string else {}), **props}
    if labels is not None:
        metadata["labels"] = len(labels.splitlines())
    opsets = {o.domain or "ai.onnx": o.version for o in model.opset_import}
    return Facts(
        format="onnx",
        name=(edgenet or {}).get("model") or model.graph.name,
        operators=tuple(operators),
        weights=tuple(weights.values()),
        constant_bytes=sum(_size(t, onnx) for t in g.constants.values()),
        inputs=tuple(_info(g, v.name) for v in model.graph.input if v.name not in g.constants),
        outputs=tuple(_info(g, v.name) for v in model.graph.output),
        activation_zero_points=tuple(_zero_points(g, nodes)),
        signatures=(),
        custom_operators=tuple(n.op_type for n in nodes if n.domain not in (*_OWN_DOMAINS, "com.microsoft")),
        metadata=metadata,
        edgenet=edgenet,
        versions={
            "opset": ", ".join(str(v) if d == "ai.onnx" else f"{d} {v}" for d, v in opsets.items()),
            **({"by": f"{model.producer_name} {model.producer_version}".strip()} if model.producer_name else {}),
        },
        warnings=tuple(warnings),
    )


def _graph(model: Any, onnx: Any) -> tuple[_Graph, list[str]]:
    warnings: list[str] = []
    inferred = model
    try:
        inferred = onnx.shape_inference.infer_shapes(_standard(model))
    except Exception as e:  # the library raises bare C++ errors, of several types
        warnings.append(f"shapes could not be inferred ({_first_line(e)})")
    constants = {t.name: t for t in model.graph.initializer}
    producers, consumers = {}, {}  # type: ignore[var-annotated]
    for node in model.graph.node:
        if node.op_type == "Constant":
            for a in node.attribute:
                if a.name == "value":
                    constants[node.output[0]] = a.t
            continue
        producers.update(dict.fromkeys(node.output, node))
        for name in node.input:
            consumers.setdefault(name, []).append(node)
    g = _Graph(onnx, constants, producers, consumers, {})
    for v in (*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output):
        t = v.type.tensor_type
        dims = tuple(
            int(d.dim_value) if d.HasField("dim_value") else (-1 if d.HasField("dim_param") or i == 0 else -2)
            for i, d in enumerate(t.shape.dim)
        )
        if any(d < -2 for d in dims):
            raise ValueError(f"shape {dims} of '{v.name}'")
        if t.elem_type and t.HasField("shape"):
            g.types[v.name] = (g.type_name(t.elem_type), dims)
    ms = sorted({n.op_type for n in model.graph.node if n.domain == "com.microsoft" and n.op_type not in _CONVERT})
    if ms:
        warnings.append(f"operators of onnxruntime's own ({', '.join(ms)}): other runtimes refuse them")
    return g, warnings


def _standard(model: Any) -> Any:
    """Return `model`, or a copy in which each operator of onnxruntime's own is a standard one with the same shapes."""
    if not any(n.domain == "com.microsoft" and n.op_type in _SAME_SHAPES for n in model.graph.node):
        return model
    copy = type(model)()
    copy.CopyFrom(model)
    for node in copy.graph.node:
        if node.domain == "com.microsoft" and node.op_type in _SAME_SHAPES:
            kind, places = _SAME_SHAPES[node.op_type]
            kept = [node.input[i] for i in places]
            del node.input[:]
            node.input.extend(kept)
            node.op_type, node.domain = kind, ""
    return copy


def _nested(nodes: list[Any], depth: int = 0) -> list[Operator]:
    """Return the operators in the branches of If and Loop, by kind only."""
    out: list[Operator] = []
    for node in nodes:
        for a in node.attribute:
            for graph in (*([a.g] if a.HasField("g") else []), *a.graphs):
                inner = list(graph.node)
                out += [Operator(n.op_type, "float32") for n in inner if n.op_type != "Constant"]
                out += _nested(inner, depth + 1) if depth < 8 else []
    return out


def _precision(g: _Graph, node: Any) -> str:
    kind = node.op_type
    if kind in _CONVERT or (node.input and all(g.origin(n)[0] is not None for n in node.input if n)):
        return "convert"
    if kind in _DYNAMIC:
        return "dynamic"
    if kind == "MatMulNBits":
        return "weight-only"
    if kind.startswith("QLinear") or kind == "QGemm":
        return "int8"
    data = [n for n in node.input if n and g.origin(n)[0] is None]
    types = {g.dtype(n) for n in data} | {g.dtype(n) for n in node.output}
    types.discard("")
    if types and types <= _INDEX_TYPES:
        return "integer"
    if types and types <= {"int8", "uint8"}:
        return "int8"
    if types and types <= {"int16", "uint16"}:
        return "int16x8"
    weights = _stored(g, node)
    activations = [_dequantized(g, n) for n in data]
    if activations and all(activations) and (kind in _MATRIX or _quantized_after(g, node)):
        wide = any(a in ("int16", "uint16") for a in activations)
        if kind not in _MATRIX or weights & (_NARROW | {"int16", "uint16"}) or not weights:
            return "int16x8" if wide else "int4" if weights & {"int4", "uint4"} else "int8"
    if _fused_activation(g, node):
        return _precision(g, g.producers[data[0]])
    if kind in _MATRIX and weights & _NARROW:
        return "weight-only"
    if types & {"float16", "bfloat16"}:
        return "float16"
    return "float16 weights" if "float16" in weights else "float32"


def _stored(g: _Graph, node: Any) -> set[str]:
    """Return the types that the constants of `node` are stored in; scalars tell nothing."""
    found = (g.origin(n)[0] for n in node.input if n)
    return {g.type_name(t.data_type) for t in found if t is not None and len(t.dims) > 1}


def _dequantized(g: _Graph, name: str) -> str:
    """Return the integer type that activation `name` was expanded from, "" where it was not."""
    node = g.producers.get(name)
    return g.dtype(node.input[0]) if node is not None and node.op_type == "DequantizeLinear" else ""


def _quantized_after(g: _Graph, node: Any) -> bool:
    users = [u for n in node.output for u in g.consumers.get(n, [])]
    return bool(users) and all(u.op_type == "QuantizeLinear" for u in users)


def _fused_activation(g: _Graph, node: Any) -> bool:
    """Return whether `node` is an activation function between an operator of a QDQ graph and its QuantizeLinear."""
    if node.op_type not in _FUSED or not _quantized_after(g, node):
        return False
    before = g.producers.get(node.input[0])
    return before is not None and before.op_type in _MATRIX


def _multiply_adds(g: _Graph, node: Any) -> int | None:
    """Return the multiply-adds of `node`, None where its shapes are not known."""
    if node.op_type not in _MATRIX:
        return 0
    data, weight, *_ = _MATRIX[node.op_type]
    x, w, y = g.shape(node.input[data]), g.shape(node.input[weight]), g.shape(node.output[0])
    if w is None:
        w = _shape_by_nodes(g, node.input[weight])
    if node.op_type == "ConvTranspose":  # weights (in, out / groups, h, w)
        return None if x is None or w is None else math.prod(x) * math.prod(w[1:])
    if y is None or not w:
        return None
    if "Conv" in node.op_type:  # weights (out, in / groups, h, w)
        return math.prod(y) * math.prod(w[1:])
    transposed = any(a.name == "transB" and a.i for a in node.attribute)
    inner = w[-1] if transposed or len(w) == 1 else w[-2]  # weights (..., in, out)
    return math.prod(y) * inner


def _shape_by_nodes(g: _Graph, name: str) -> tuple[int, ...] | None:
    constant, nodes = g.origin(name)
    keep = ("DequantizeLinear", "Cast", "Identity", "Mul", "Transpose")
    if constant is None or any(n.op_type not in keep for n in nodes):
        return None
    shape = tuple(constant.dims)
    for n in reversed(nodes):
        if n.op_type == "Transpose":
            perm = next((list(a.ints) for a in n.attribute if a.name == "perm"), list(range(len(shape)))[::-1])
            shape = tuple(shape[p] for p in perm)
    return shape


def _collect(g: _Graph, node: Any, weights: dict[str, Weight]) -> None:
    """Add the trained numbers among the operator's constants: no scales, zero points, shapes or indices."""
    kind = node.op_type
    if kind in _CONVERT or g.is_scaling(node):
        return  # counted where their result is used
    place = _MATRIX.get(kind)
    for i, name in enumerate(node.input):
        tensor, nodes = g.origin(name) if name else (None, [])
        if tensor is None or not tensor.dims or tensor.name in weights:
            continue
        dtype = g.type_name(tensor.data_type)
        scaled = [n for n in nodes if n.op_type in ("DequantizeLinear", "Mul")]
        direct = place is not None and place[2] is not None  # an integer operator: scales and zero points are inputs
        if direct and i != place[1] and not (kind.startswith("Q") and i == (6 if kind == "QGemm" else 8)):  # type: ignore[index]
            continue
        if not (dtype in _FLOATS or scaled or direct):
            continue
        matrix = place is not None and i == place[1]
        narrow = matrix and (bool(scaled) or direct) and dtype in _NARROW
        zero, scale = (None, None)
        if narrow and scaled:
            scale, zero = scaled[0].input[1], scaled[0].input[2] if len(scaled[0].input) > 2 else None
        elif narrow and place is not None:
            zero = node.input[place[2]] if place[2] is not None and len(node.input) > place[2] else None
            scale = node.input[place[3]] if place[3] is not None and len(node.input) > place[3] else _scale_of(g, node)
        zeros = g.array(zero) if zero else None
        zeros = np.zeros(1, np.int32) if zeros is None else zeros.astype(np.int32).ravel()
        values = g.array(tensor.name) if narrow and tensor.name in g.constants else None
        weights[tensor.name] = Weight(
            n=math.prod(tensor.dims),
            dtype=dtype,
            matrix=matrix,
            n_scales=math.prod(g.shape(scale) or ()) if narrow and scale else int(narrow),
            symmetric=not zeros.any(),
            q_max=None if values is None else largest_q(values, not zeros.any()),
            depthwise="Conv" in kind and len(tensor.dims) > 2 and tensor.dims[1] == 1 and _groups(node) > 1,
            pair_max=None if values is None or zeros.any() else largest_pair(values, _input_axis(node)),
        )


def _input_axis(node: Any) -> int:
    """The axis of the weights that a layer's inputs run along: (O, I, ...) of a convolution, (I, O) of a matrix."""
    transposed = any(a.name == "transB" and a.i for a in node.attribute)
    return 1 if "Conv" in node.op_type or transposed else 0


def _groups(node: Any) -> int:
    return next((int(a.i) for a in node.attribute if a.name == "group"), 1)


def _scale_of(g: _Graph, node: Any) -> str | None:
    """Return the scale of an integer operator's weights: a constant of the Mul that expands its result."""
    for user in g.consumers.get(node.output[0], []):
        chain = g.consumers.get(user.output[0], []) if user.op_type == "Cast" else [user]
        for mul in (m for m in chain if m.op_type == "Mul"):
            for name in mul.input:
                producer = g.producers.get(name)
                if producer is not None and producer.op_type == "Mul":  # scale of the data x scale of the weights
                    return next((n for n in producer.input if n in g.constants), None)
    return None


def _zero_points(g: _Graph, nodes: list[Any]) -> list[int]:
    out = []
    for node in nodes:
        if node.op_type == "QuantizeLinear" and node.input and g.origin(node.input[0])[0] is None:
            zero = g.array(node.input[2]) if len(node.input) > 2 else None
            if zero is not None and zero.size == 1:
                out.append(int(zero.ravel()[0]))
            elif len(node.input) < 3:
                out.append(0)
    return out


def _info(g: _Graph, name: str) -> TensorInfo:
    dtype, shape = g.types.get(name, ("", ()))
    shape = tuple(max(d, -1) for d in shape)
    if dtype not in _NARROW | {"int16", "uint16"}:
        return TensorInfo(name, shape, dtype)
    near = [n for n in g.consumers.get(name, []) if n.op_type == "DequantizeLinear"]
    before = g.producers.get(name)
    near += [before] if before is not None and before.op_type == "QuantizeLinear" else []
    if not near:
        return TensorInfo(name, shape, dtype)
    scale = g.array(near[0].input[1])
    zero = g.array(near[0].input[2]) if len(near[0].input) > 2 else np.zeros(1)
    if scale is None or zero is None or scale.size != 1:
        return TensorInfo(name, shape, dtype)
    return TensorInfo(name, shape, dtype, float(scale.ravel()[0]), int(zero.ravel()[0]))


def _external(tensor: Any) -> dict[str, str]:
    """Return where a constant stands that is not in the file: location, offset, length; empty for one that is."""
    return {e.key: e.value for e in tensor.external_data}


def _size(tensor: Any, onnx: Any) -> int:
    """Return the bytes of a constant as it is stored, in the file or beside it."""
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        return int(_external(tensor).get("length", 0))
    return len(tensor.raw_data) or int(tensor.ByteSize())
