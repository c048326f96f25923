"""An ONNX classifier, from PyTorch say, as a float graph: NCHW becomes NHWC on the way, with no stray TRANSPOSE.

    model = load_onnx(Path("resnet18.onnx"))
    graph = from_onnx(model, (1, 3, 224, 224))

onnx_graph.py explains the axes; onnx_handlers.py lists the operators.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgenet.errors import InputError
from edgenet.export.graph import Graph
from edgenet.export.importers.classifier import chosen_output
from edgenet.export.importers.fuse import fuse
from edgenet.export.importers.onnx_graph import Importer, Node, onnx_module
from edgenet.export.importers.onnx_handlers import HANDLERS
from edgenet.export.importers.onnx_patterns import join_patterns

CONTROL_FLOW = {"If", "Loop", "Scan"}
QUANTIZED = {
    "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger",
    "MatMulInteger",
}  # fmt: skip


def load_onnx(path: Path) -> Any:
    """Return the ONNX model of a file, weights in files beside it included, functions inlined.

    Raises:
        InputError: not ONNX, damaged, weights missing; an operator that has no form here, named with its node.
        MissingDependency: the onnx package is not installed.
    """
    onnx = onnx_module()
    try:
        model = onnx.load(str(path), load_external_data=False)
    except OSError as e:
        raise InputError(f"cannot read {path}: {e.strerror}") from None
    except Exception:  # protobuf's DecodeError, which has moved from version to version
        raise InputError(f"{path} is not a whole ONNX file: export or copy it again") from None
    if not model.graph.output or not model.graph.node:
        raise InputError(f"{path} is not a whole ONNX file (no operators or no output): export or copy it again")
    missing = [f for f in external_files(model) if not (path.parent / f).is_file()]
    if missing:
        raise InputError(f"{path} keeps its weights in {missing[0]}, which is not beside it: copy it there")
    try:
        onnx.load_external_data_for_model(model, str(path.parent))
    except Exception as e:  # a length or a path that does not fit the file beside it
        raise InputError(f"the weights of {path} in {', '.join(external_files(model))} cannot be read ({e})") from None
    if model.functions:
        from onnx.inliner import inline_local_functions

        model = inline_local_functions(model)
    check_operators(model, str(path))
    return model


def external_files(model: Any) -> list[str]:
    """Return the files beside it in which an ONNX model keeps its weights, sorted."""
    return sorted({e.value for t in model.graph.initializer for e in t.external_data if e.key == "location"})


def external_files_of(path: Path) -> list[str]:
    """Return the files beside `path` in which it keeps weights, sorted."""
    return external_files(onnx_module().load(str(path), load_external_data=False))


def check_operators(model: Any, path: str) -> None:
    """Raise InputError for operators that have no form here, whatever their operands."""
    for n in model.graph.node:
        where = f"{n.op_type} (node {n.name or n.output[0]})"
        if n.op_type in QUANTIZED:
            raise InputError(f"{path} is quantized already, by {where}: give the float model")
        if n.op_type in CONTROL_FLOW:
            raise InputError(f"{path} has control flow, {where}: export it with fixed shapes and in inference mode")
        if n.domain not in ("", "ai.onnx"):
            raise InputError(f"{path} has the custom operator {n.domain}.{where}: edgenet handles ONNX's own")
        if n.op_type not in HANDLERS and not _is_shape_work(n.op_type):
            raise InputError(f"{path} has the operator {where}, which edgenet does not handle")


def _is_shape_work(kind: str) -> bool:
    """Whether an operator without a handler may stand in a file, because it usually works on shapes and is folded."""
    return kind in {
        "Constant", "ConstantOfShape", "Range", "Where", "Equal", "Greater", "Less", "GreaterOrEqual", "LessOrEqual",
        "Not", "And", "Or", "Mod", "Ceil", "Sign", "NonZero", "ScatterND", "ScatterElements", "GatherND", "Tile",
        "CumSum", "Trilu", "EyeLike", "Size", "ReduceProd", "GatherElements", "Round", "Sin", "Cos", "Xor", "IsNaN",
        "Compress", "ArgMax", "TopK", "Einsum", "OneHot", "Erf",
    }  # fmt: skip


def with_output(model: Any, output: str | None, path: str) -> Any:
    """Return the model with one of its outputs and the operators that it needs.

    Raises:
        InputError: it has several and none is named, or none of that name.
    """
    chosen = chosen_output(path, [o.name for o in model.graph.output], output)
    if len(model.graph.output) == 1:
        return model
    one = type(model)()
    one.CopyFrom(model)
    wanted, nodes = {chosen}, []
    for node in reversed(model.graph.node):
        if wanted & set(node.output):
            nodes.append(node)
            wanted |= set(node.input)
    del one.graph.node[:], one.graph.output[:]
    one.graph.node.extend(reversed(nodes))
    one.graph.output.extend(o for o in model.graph.output if o.name == chosen)
    return one


def input_shape(model: Any, path: str) -> tuple[int | None, ...]:
    """Return the shape of the one input, None where it is open. Raises InputError for several inputs."""
    constants = {t.name for t in model.graph.initializer}
    inputs = [i for i in model.graph.input if i.name not in constants]
    if len(inputs) != 1:
        names = ", ".join(i.name for i in inputs)
        raise InputError(f"{path} has {len(inputs)} inputs ({names}); an image classifier has one: export it with one")
    kind = onnx_module().TensorProto.DataType.Name(inputs[0].type.tensor_type.elem_type)
    if kind not in ("FLOAT", "FLOAT16", "DOUBLE"):
        raise InputError(f"{path} takes {kind} numbers; edgenet feeds normalised float pictures: export it with such")
    dims = inputs[0].type.tensor_type.shape.dim
    return tuple(int(d.dim_value) if d.HasField("dim_value") and d.dim_value > 0 else None for d in dims)


def from_onnx(model: Any, shape: Sequence[int]) -> Graph:
    """Return an ONNX model as a float graph (1, H, W, 3) -> (1, classes).

    Args:
        model: as `load_onnx` gives it.
        shape: the input's, in the model's own layout and with nothing left open.

    Raises:
        InputError: an operator, or a use of one, that has no form here, named with its node.
    """
    return fuse(_run(Importer(model, tuple(shape))))


def _run(b: Importer) -> Graph:
    """Handle the nodes in order, each from what those before it made."""
    nodes = [_node(b.onnx, n) for n in b.model.graph.node]
    for node in join_patterns(b, nodes):
        if b.fold(node):
            continue
        unknown = [n for n in node.inputs if n and n not in b.values and n not in b.constants]
        if unknown:
            raise InputError(f"{node} reads {unknown[0]}, which nothing makes: the file is damaged")
        if node.kind not in HANDLERS:
            raise InputError(f"the operator {node} works on activations, which edgenet does not handle")
        made = HANDLERS[node.kind](b, node)
        made = made if isinstance(made, list) else [made]
        b.values.update({n: v for n, v in zip(node.outputs, made, strict=False) if n})
    name = b.model.graph.output[0].name
    if name not in b.values:
        raise InputError(f"the output {name} does not depend on the picture")
    out = b.plain(b.values[name])
    if not out.shape or max(out.shape) != int(np.prod(out.shape)):
        raise InputError(f"the output {name} has the shape {out.shape}; a classifier's is (1, classes)")
    out = b.in_order(b.reshape(out, (1, max(out.shape))))
    return Graph("main", b.tensors, tuple(b.ops), ("image",), (out.name,))


def _node(onnx: Any, n: Any) -> Node:
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in n.attribute}
    attributes = {k: v.decode() if isinstance(v, bytes) else v for k, v in attributes.items()}
    return Node(n.op_type, n.name, tuple(n.input), tuple(n.output), attributes)
