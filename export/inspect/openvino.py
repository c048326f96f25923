"""Read an OpenVINO model (.xml and .bin) into `Facts`, from the XML itself: no native parser sees the file.

In OpenVINO's intermediate representation quantization is FakeQuantize on activations and constants of i8 behind
Convert, Subtract and Multiply as weights; both stand beside float operators, which the plugin fuses at load. An
operator counts as integer when its weights are stored as integers and its activations come from a FakeQuantize, or
when it is fused behind such a one (bias, clamp, residual addition).
https://docs.openvino.ai/2025/documentation/openvino-ir-format.html
"""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from edgenet.errors import InputError
from edgenet.export.inspect.facts import Facts, Operator, Weight, largest_pair, largest_q
from edgenet.export.tflite_file import PARSE_ERRORS
from edgenet.results.tensor_info import TensorInfo

_DTYPES = {"f32": "float32", "f16": "float16", "f64": "float64", "bf16": "bfloat16", "i8": "int8", "u8": "uint8",
           "i16": "int16", "u16": "uint16", "i32": "int32", "u32": "uint32", "i64": "int64", "u64": "uint64",
           "i4": "int4", "u4": "uint4", "u2": "uint2", "nf4": "nf4", "boolean": "bool", "fp32": "float32",
           "fp16": "float16", "fp64": "float64", "string": "string", "u1": "uint1", "bool": "bool"}  # fmt: skip
_BITS = {"int4": 4, "uint4": 4, "nf4": 4, "uint2": 2, "uint1": 1}
_FLOATS = {"float32", "float16", "float64", "bfloat16"}
_NARROW = {"int8", "uint8", *_BITS}
_INDEX_TYPES = {"int32", "int64", "uint32", "uint64", "bool", "string"}
_MATRIX = {"Convolution", "GroupConvolution", "ConvolutionBackpropData", "GroupConvolutionBackpropData", "MatMul"}
_TRANSPARENT = {"Reshape", "Transpose", "Squeeze", "Unsqueeze", "MaxPool", "Concat", "StridedSlice", "Slice", "Split",
                "VariadicSplit", "Pad", "ShuffleChannels", "DepthToSpace", "SpaceToDepth"}  # fmt: skip
_FUSED = {"Add", "Subtract", "Multiply", "Clamp", "ReLU", "PReLU", "Swish", "HSwish", "Sigmoid", "HSigmoid", "Elu",
          "AvgPool", "ReduceMean", *_TRANSPARENT}  # fmt: skip
_NOT_OPERATORS = {"Parameter", "Const", "Result"}


@dataclass(frozen=True)
class _Layer:
    id: str
    name: str
    kind: str
    version: str
    data: dict[str, str]
    in_shapes: tuple[tuple[int, ...], ...]
    out_shapes: tuple[tuple[int, ...], ...]
    dtype: str  # of the first output, "" where it has none
    names: str
    sources: tuple[str, ...]  # ids of the layers that its inputs come from


class _Graph:
    def __init__(self, layers: list[_Layer], blob: bytes) -> None:
        self.layers = {layer.id: layer for layer in layers}
        self.blob = blob
        self.constant: set[str] = set()  # made of constants only
        self.quantized: dict[str, int] = {}  # activation out of a FakeQuantize -> its levels
        for layer in layers:  # in the order of the graph
            data = [s for s in layer.sources if s not in self.constant]
            if layer.kind == "Const" or (layer.sources and not data):
                self.constant.add(layer.id)
            elif layer.kind == "FakeQuantize":
                self.quantized[layer.id] = int(layer.data.get("levels", "256"))
            elif layer.kind in _TRANSPARENT and data and all(s in self.quantized for s in data):
                self.quantized[layer.id] = max(self.quantized[s] for s in data)

    def chain(self, id: str) -> list[_Layer]:
        """Return the layers that constant `id` is made by, from it back to the stored numbers; [] if it is none."""
        out: list[_Layer] = []
        while id in self.constant and len(out) < 32:
            layer = self.layers[id]
            out.append(layer)
            if not layer.sources:
                break
            id = layer.sources[0]
        return out

    def values(self, layer: _Layer) -> "np.ndarray[Any, Any] | None":
        """Return the numbers of a Const, None where they are packed below a byte."""
        if layer.dtype in _BITS or layer.dtype in ("bfloat16", "string"):
            return None
        offset, size = int(layer.data["offset"]), int(layer.data["size"])
        dtype = np.dtype(layer.dtype)
        shape = layer.out_shapes[0]
        if size < math.prod(shape) * dtype.itemsize:
            raise ValueError(f"constant '{layer.name}' has {size} bytes for shape {shape}")
        return np.frombuffer(self.blob, dtype, math.prod(shape), offset).reshape(shape)


def openvino_facts(path: Path) -> Facts:
    """Read an OpenVINO .xml file and the .bin beside it.

    Raises:
        InputError: it is not an OpenVINO model, it is damaged, or its .bin is missing or cut short.
    """
    text = path.read_bytes()
    if b"<!DOCTYPE" in text or b"<!ENTITY" in text:
        raise InputError(f"{path} is not an OpenVINO model: one declares no entities")
    weights = path.with_suffix(".bin")
    try:
        net = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError, LookupError) as e:
        raise InputError(f"{path} is damaged or cut short ({e}): export it again") from None
    if net.tag != "net" or net.find("layers") is None:
        raise InputError(f"{path} is XML, but not an OpenVINO model: it has no <net> with <layers>")
    try:
        layers = _layers(net)
        needs = max((int(x.data["offset"]) + int(x.data["size"]) for x in layers if x.kind == "Const"), default=0)
        if any(min(int(x.data["offset"]), int(x.data["size"])) < 0 for x in layers if x.kind == "Const"):
            raise ValueError("a constant with a negative place")
        if needs and not weights.is_file():
            raise InputError(f"{path} needs its weights {weights.name} beside it, which is not there")
        blob = weights.read_bytes() if needs else b""
        if len(blob) < needs:
            raise InputError(f"{weights} is cut short: {len(blob)} bytes, and {path.name} needs {needs}")
        return _facts(net, layers, blob)
    except PARSE_ERRORS as e:
        why = f"it lacks {e}" if isinstance(e, KeyError) else str(e) or "it is cut short"
        raise InputError(f"{path} is a damaged OpenVINO model ({why}): export it again") from None


def _layers(net: ElementTree.Element) -> list[_Layer]:
    sources: dict[str, dict[str, str]] = {}
    for e in net.iterfind("edges/edge"):
        sources.setdefault(e.attrib["to-layer"], {})[e.attrib["to-port"]] = e.attrib["from-layer"]
    out: dict[str, _Layer] = {}
    for e in net.iterfind("layers/layer"):
        id = e.attrib["id"]
        ports = list(e.iterfind("input/port"))
        outs = list(e.iterfind("output/port"))
        data = e.find("data")
        attributes = dict(data.attrib) if data is not None else {}
        precision = outs[0].get("precision", "") if outs else ""
        inputs = sources.get(id, {})
        if id in out or any(i not in out for i in inputs.values()):
            raise ValueError(f"layer {id} '{e.get('name')}' takes from a layer that does not stand before it")
        out[id] = _Layer(
            id=id,
            name=e.get("name", ""),
            kind=e.attrib["type"],
            version=e.get("version", ""),
            data=attributes,
            in_shapes=tuple(_shape(p) for p in ports),
            out_shapes=tuple(_shape(p) for p in outs),
            dtype=_dtype(attributes.get("element_type", "") or precision),
            names=outs[0].get("names", "") if outs else "",
            sources=tuple(inputs[p.attrib["id"]] for p in ports if p.attrib["id"] in inputs),
        )
    if not out:
        raise ValueError("no layer in it")
    return list(out.values())


def _shape(port: ElementTree.Element) -> tuple[int, ...]:
    shape = tuple(int(d.text or "") for d in port.iterfind("dim"))
    if any(d < -1 for d in shape):
        raise ValueError(f"shape {shape}")
    return shape


def _dtype(name: str) -> str:
    if not name:
        return ""
    return _DTYPES[name.lower()]


def _facts(net: ElementTree.Element, layers: list[_Layer], blob: bytes) -> Facts:
    g = _Graph(layers, blob)
    operators: dict[str, Operator] = {}
    weights: dict[str, Weight] = {}
    for layer in layers:
        if layer.kind not in _NOT_OPERATORS:
            operators[layer.id] = Operator(layer.kind, _precision(g, layer, operators), _multiply_adds(layer))
            _collect(g, layer, weights)
    rt = net.find("rt_info")
    info = {e.get("name") or e.tag: e for e in rt} if rt is not None else {}
    edgenet = _own(info.pop("edgenet", None))
    versions = {"ir": net.get("version", "?")}
    for key in ("OpenVINO Runtime", "Runtime_version"):
        if key in info:
            versions["by"] = f"openvino {info.pop(key).get('value', '')}"
    if (nncf := info.pop("nncf", None)) is not None:
        versions["quantized by"] = f"nncf {_tree(nncf).get('version', '')}".strip()
    info.pop("conversion_parameters", None)  # says nothing of the model
    extensions = [x.kind for x in layers if not x.version.startswith("opset")]
    return Facts(
        format="openvino",
        name=str((edgenet or {}).get("model") or net.get("name", "")),
        operators=tuple(operators.values()),
        weights=tuple(weights.values()),
        constant_bytes=len(blob),
        inputs=tuple(
            TensorInfo(x.names.split(",")[0] or x.name, x.out_shapes[0], x.dtype)
            for x in layers
            if x.kind == "Parameter"
        ),
        outputs=tuple(_output(g, x) for x in layers if x.kind == "Result"),
        activation_zero_points=tuple(_zero_points(g, layers)),
        custom_operators=tuple(extensions),
        metadata={k: v.get("value", "") or _tree(v) for k, v in info.items()},
        edgenet=edgenet,
        versions=versions,
    )


def _output(g: _Graph, result: _Layer) -> TensorInfo:
    source = g.layers[result.sources[0]]
    name = source.names.split(",")[0] or result.data.get("output_names", "") or result.name
    return TensorInfo(name, result.in_shapes[0], source.dtype)


def _own(e: ElementTree.Element | None) -> dict[str, Any] | None:
    if e is None:
        return None
    value: Any = json.loads(e.attrib["value"]) if "value" in e.attrib else _tree(e)
    if not isinstance(value, dict):
        raise ValueError("its edgenet entry is no JSON object")
    return value


def _tree(e: ElementTree.Element, depth: int = 0) -> dict[str, Any]:
    if depth > 32:
        raise ValueError("rt_info is nested too deeply")
    return {c.get("name") or c.tag: c.attrib.get("value") or _tree(c, depth + 1) for c in e}


def _precision(g: _Graph, layer: _Layer, before: dict[str, Operator]) -> str:
    if layer.kind in ("FakeQuantize", "Convert") or layer.id in g.constant:
        return "convert"
    data = [s for s in layer.sources if s not in g.constant]
    types = {layer.dtype} | {g.layers[s].dtype for s in data}
    types.discard("")
    if types and types <= _INDEX_TYPES:
        return "integer"
    stored = {t.dtype for s in layer.sources for t in g.chain(s)[-1:] if math.prod(t.out_shapes[0]) > 1}
    fake = any(t.kind == "FakeQuantize" for s in layer.sources for t in g.chain(s))
    narrow = bool(stored & _NARROW) or fake
    if layer.kind in _MATRIX:
        levels = [g.quantized.get(s, 0) for s in data]
        if data and all(levels) and (narrow or len(data) == 2):
            few = any(_BITS.get(dtype) == 4 for dtype in stored)
            return "int16x8" if max(levels) > 256 else "int4" if few else "int8"
        if narrow and len(data) == 1:
            return "weight-only"
    elif layer.kind in _FUSED and data:
        inner = [_of(g, before, s) for s in data]
        if all(p in ("int8", "int16x8", "int4") for p in inner):
            return min(("int8" if p == "int4" else p for p in inner), key=len)  # of the layer's own weights alone
    if "float16" in types or "bfloat16" in types:
        return "float16"
    return "float16 weights" if "float16" in stored else "float32"


def _of(g: _Graph, before: dict[str, Operator], id: str) -> str:
    if id in g.quantized:
        return "int8" if g.quantized[id] <= 256 else "int16x8"
    return before[id].precision if id in before else ""


def _multiply_adds(layer: _Layer) -> int:
    if layer.kind not in _MATRIX:
        return 0
    x, w = (tuple(1 if d < 0 else d for d in s) for s in layer.in_shapes[:2])
    out = math.prod(1 if d < 0 else d for d in layer.out_shapes[0])
    match layer.kind:
        case "Convolution":  # weights (out, in, h, w)
            return out * math.prod(w[1:])
        case "GroupConvolution":  # weights (groups, out / groups, in / groups, h, w)
            return out * math.prod(w[2:])
        case "ConvolutionBackpropData":  # weights (in, out, h, w)
            return math.prod(x) * math.prod(w[1:])
        case "GroupConvolutionBackpropData":  # weights (groups, in / groups, out / groups, h, w)
            return math.prod(x) * math.prod(w[2:])
        case _:  # MatMul
            transposed = layer.data.get("transpose_a", "false").lower() in ("true", "1")
            return out * (x[-2] if transposed and len(x) > 1 else x[-1])


def _collect(g: _Graph, layer: _Layer, weights: dict[str, Weight]) -> None:
    """Add the trained numbers among the operator's constants: no ranges, shapes or axes."""
    if layer.kind in ("FakeQuantize", "Convert") or layer.id in g.constant:
        return  # counted where their result is used
    for place, source in enumerate(layer.sources):
        chain = g.chain(source)
        if not chain or chain[-1].id in weights:
            continue
        stored = chain[-1]
        matrix = layer.kind in _MATRIX and place == 1
        if not stored.out_shapes[0] or not (stored.dtype in _FLOATS or (matrix and stored.dtype in _NARROW)):
            continue
        scales, symmetric, q_max, pair_max = 0, True, None, None
        if matrix and stored.dtype in _NARROW:
            scales, symmetric, q_max = _stored_scales(g, chain)
            values = g.values(stored) if symmetric and stored.dtype == "int8" else None
            transposed = layer.kind != "MatMul" or layer.data.get("transpose_b") == "true"
            pair_max = None if values is None else largest_pair(values, 1 if transposed else 0)
        elif matrix and (fake := next((t for t in chain if t.kind == "FakeQuantize"), None)):
            scales = math.prod(g.layers[fake.sources[4]].out_shapes[0])
            q_max = int(fake.data.get("levels", "255")) // 2
        weights[stored.id] = Weight(
            n=math.prod(stored.out_shapes[0]),
            dtype=stored.dtype,
            matrix=matrix,
            n_scales=scales,
            symmetric=symmetric,
            q_max=q_max,
            depthwise=layer.kind == "GroupConvolution" and layer.in_shapes[1][2:3] == (1,),
            pair_max=pair_max,
        )


def _stored_scales(g: _Graph, chain: list[_Layer]) -> tuple[int, bool, int | None]:
    """Return (scales, symmetric, largest |q|) of integer weights behind Convert, Subtract and Multiply."""
    stored = chain[-1]
    scale = next((t for t in chain if t.kind == "Multiply"), None)
    shift = next((t for t in chain if t.kind == "Subtract"), None)
    n = math.prod(g.layers[scale.sources[1]].out_shapes[0]) if scale is not None and len(scale.sources) > 1 else 1
    zero = None
    if shift is not None and len(shift.sources) > 1 and (last := g.chain(shift.sources[1])):
        zero = g.values(last[-1])
    symmetric = shift is None or (zero is not None and not np.any(zero))
    if stored.dtype in _BITS:
        return n, symmetric, 1 << (_BITS[stored.dtype] - 1)
    values = g.values(stored)
    if values is None:
        return n, symmetric, None
    return n, symmetric, largest_q(values, symmetric)


def _zero_points(g: _Graph, layers: Iterable[_Layer]) -> list[int]:
    """Return the zero points that the ranges of the activations' FakeQuantize come to."""
    out = []
    for layer in layers:
        if layer.kind != "FakeQuantize" or layer.id in g.constant or len(layer.sources) < 3:
            continue
        ends = [g.chain(s)[-1:] for s in layer.sources[1:3]]
        if not all(ends):
            continue
        low, high = (g.values(e[0]) for e in ends)
        levels = g.quantized[layer.id]
        if low is None or high is None or low.size != 1 or high.size != 1 or levels < 2:
            continue
        step = (float(high.ravel()[0]) - float(low.ravel()[0])) / (levels - 1)
        if step > 0 and math.isfinite(step):
            zero = round(-float(low.ravel()[0]) / step)
            out.append(0 if zero in (0, levels // 2, levels // 2 - 1) else zero)  # unsigned from 0, or centred
    return out
