"""An ONNX classifier, from PyTorch say, as a float graph: NCHW becomes NHWC on the way, with no stray TRANSPOSE.

    model = load_onnx(Path("resnet18.onnx"))
    graph = from_onnx(model, (1, 3, 224, 224))

onnx_graph.py explains the axes; onnx_handlers.py lists the operators.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgenet.errors import InputError
from edgenet.export.graph import Graph
from edgenet.export.importers.classifier import chosen_output
from edgenet.export.importers.fuse import fuse
from edgenet.export.importers.onnx_graph import Importer, Node, one_line, onnx_module
from edgenet.export.importers.onnx_handlers import HANDLERS, WHOLE
from edgenet.export.importers.onnx_patterns import join_patterns

REAL = ("FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE")  # inputs of these are computed in float32
MAX_DEPTH = 4  # of operators that stand for others that stand for others
SMALL = 64  # numbers in a constant that shapes may depend on
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
    _check_whole(model, str(path))
    folder = path.parent.resolve()
    for name in external_files(model):
        if not (folder / name).resolve().is_relative_to(folder):
            raise InputError(f"{path} keeps its weights in {name}, outside of its folder, where edgenet reads nothing")
    missing = [f for f in external_files(model) if not (path.parent / f).is_file()]
    if missing:
        raise InputError(f"{path} keeps its weights in {missing[0]}, which is not beside it: copy it there")
    try:
        onnx.load_external_data_for_model(model, str(path.parent))
    except Exception as e:  # a length or a path that does not fit the file beside it
        raise InputError(f"the weights of {path} in {', '.join(external_files(model))} cannot be read ({e})") from None
    return prepared(model, str(path))


def _check_whole(model: Any, path: str) -> None:
    """Raise InputError where a model gives two things one name, or is of a version that there is not."""
    newest = onnx_module().defs.onnx_opset_version()
    version = opset_of(model)
    if not 1 <= version <= newest:
        raise InputError(f"{path} is of ONNX's opset {version}; edgenet reads 1 to {newest}: export it with one")
    made = [t.name for t in model.graph.initializer] + [n for node in model.graph.node for n in node.output if n]
    if len(set(made)) < len(made):
        twice, _ = Counter(made).most_common(1)[0]
        raise InputError(f"{path} makes {twice} twice: it is damaged; export or copy it again")


def prepared(model: Any, path: str) -> Any:
    """Return a model with its functions inlined; `path` names it in messages.

    Raises:
        InputError: an operator that has no form here, named with its node; functions that call each other in a circle.
    """
    if model.functions:
        from onnx.inliner import inline_local_functions

        try:
            model = inline_local_functions(model)
        except Exception as e:  # a function that calls itself, among others
            raise InputError(
                f"the functions of {path} cannot be put in place ({one_line(e)}): export it anew"
            ) from None
    model = taken_apart(model)
    check_operators(model, path)
    return model


def taken_apart(model: Any) -> Any:
    """Replace the operators that have no handler here, but that ONNX defines by others, by those others, and return it.

    Their nodes are called after the operator that they stand for.
    """
    for _ in range(MAX_DEPTH):
        kinds = {n.op_type for n in model.graph.node if n.domain in ("", "ai.onnx")} - set(HANDLERS) - QUANTIZED
        kinds = {k for k in kinds if not _is_shape_work(k) and _has_body(k)}
        nodes = _opened(model, kinds) if kinds else None
        if nodes is None:
            break
        del model.graph.node[:]
        model.graph.node.extend(nodes)
    return model


def _has_body(kind: str) -> bool:
    """Whether ONNX defines an operator by others. The newest version says so; older ones have it and do not say."""
    defs = onnx_module().defs
    return bool(defs.has(kind)) and (
        defs.get_schema(kind).has_function or defs.get_schema(kind).has_context_dependent_function
    )


def _opened(model: Any, kinds: set[str]) -> list[Any] | None:
    """Return a model's nodes with what stands for `kinds` in place of them, None where that cannot be told."""
    onnx = onnx_module()
    from onnx.inliner import inline_selected_functions

    whole = _without_weights(onnx, model)
    try:
        for node in (n for n in whole.graph.node if n.op_type in kinds):
            # What ONNX puts in place of them forgets the defaults of their attributes.
            given = {a.name for a in node.attribute}
            attributes = onnx.defs.get_schema(node.op_type, opset_of(model)).attributes
            defaults = {k: a.default_value for k, a in attributes.items() if a.default_value.type}
            node.attribute.extend(d for k, d in defaults.items() if k not in given)
        typed = onnx.shape_inference.infer_shapes(whole)
        new = inline_selected_functions(typed, [("", k) for k in sorted(kinds)], False, True)
    except Exception:  # its types cannot be told, say: the operator is refused by its own name
        return None
    made, nodes = [(n.op_type, list(n.output)) for n in model.graph.node], list(new.graph.node)
    left = list(nodes)
    for i, node in enumerate(model.graph.node):
        following = made[i + 1] if i + 1 < len(made) else None
        while left and (left[0].op_type, list(left[0].output)) != following:
            part = left.pop(0)
            if (part.op_type, list(part.output)) != made[i]:
                part.name = f"{node.name or node.output[0]}, a part of {node.op_type}"
    return nodes


def _without_weights(onnx: Any, model: Any) -> Any:
    """Return a copy of a model in which all but small constants are inputs: what types and shapes follow from."""
    graph = onnx.GraphProto(name=model.graph.name, node=model.graph.node, output=model.graph.output)
    graph.value_info.extend(model.graph.value_info)
    constants = {t.name for t in model.graph.initializer}
    graph.input.extend(i for i in model.graph.input if i.name not in constants)
    for t in model.graph.initializer:
        graph.input.append(onnx.helper.make_tensor_value_info(t.name, t.data_type, list(t.dims)))
        if math.prod(t.dims) <= SMALL:
            graph.initializer.append(t)
    return onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import, graph=graph)


def external_files(model: Any) -> list[str]:
    """Return the files beside it in which an ONNX model keeps its weights, sorted."""
    constants = [a.t for n in model.graph.node for a in n.attribute if a.HasField("t")]
    tensors = [*model.graph.initializer, *constants]
    return sorted({e.value for t in tensors for e in t.external_data if e.key == "location"})


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
        "Constant", "ConstantOfShape", "Range", "NonZero", "EyeLike", "Size", "TopK", "Einsum", "OneHot", "Erf",
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
    inputs = open_inputs(model)
    if len(inputs) != 1:
        names = ", ".join(inputs)
        raise InputError(f"{path} has {len(inputs)} inputs ({names}); an image classifier has one: export it with one")
    image = next(iter(inputs.values()))
    kind = element_type(image)
    if kind not in REAL:
        raise InputError(f"{path} takes {kind} numbers; edgenet feeds normalised float pictures: export it with such")
    dims = image.type.tensor_type.shape.dim
    return tuple(int(d.dim_value) if d.HasField("dim_value") and d.dim_value > 0 else None for d in dims)


def opset_of(model: Any) -> int:
    """Return the version of ONNX's own operators that a model uses."""
    return next((int(o.version) for o in model.opset_import if o.domain in ("", "ai.onnx")), 1)


def open_inputs(model: Any) -> dict[str, Any]:
    """Return the inputs that a caller has to feed, ValueInfoProto by name."""
    constants = {t.name for t in model.graph.initializer}
    return {i.name: i for i in model.graph.input if i.name not in constants}


def element_type(value: Any) -> str:
    """Return ONNX's name of the numbers in a ValueInfoProto: "FLOAT", or "SEQUENCE" and the like for no tensor."""
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        return str(kind or "unknown").removesuffix("_type").upper()
    return str(onnx_module().TensorProto.DataType.Name(value.type.tensor_type.elem_type))


def from_onnx(model: Any, shape: Sequence[int]) -> Graph:
    """Return an ONNX model as a float graph (1, H, W, 3) -> (1, classes).

    Args:
        model: as `load_onnx` gives it.
        shape: the input's, in the model's own layout and with nothing left open.

    Raises:
        InputError: an operator, or a use of one, that has no form here, named with its node.
    """
    name = next(iter(open_inputs(model)), "")
    b = import_nodes(model, {name: tuple(shape)})
    return fuse(_classifier(b, model.graph.output[0].name))


def import_nodes(model: Any, shapes: Mapping[str, tuple[int, ...]]) -> Importer:
    """Handle the nodes in order, each from what those before it made.

    Args:
        shapes: of the inputs by their names, in ONNX's layout.

    Raises:
        InputError: as `from_onnx`.
    """
    b = Importer(model, shapes)
    nodes = [_node(b.onnx, n) for n in b.model.graph.node]
    for node in join_patterns(b, nodes):
        if b.fold(node):
            continue
        if node.kind not in WHOLE and any(b.values[n].numbers != "real" for n in node.inputs if n in b.values):
            raise InputError(f"{node} works on whole numbers or truth values, which edgenet handles in few operators")
        unknown = [n for n in node.inputs if n and n not in b.values and n not in b.constants]
        if unknown:
            raise InputError(f"{node} reads {unknown[0]}, which nothing makes: the file is damaged")
        if node.kind not in HANDLERS:
            raise InputError(f"the operator {node} works on activations, which edgenet does not handle")
        try:
            made = HANDLERS[node.kind](b, node)
        except InputError:
            raise
        except Exception as e:  # an attribute that is missing or of another type, shapes that do not fit: anything
            raise InputError(f"{node} is not as ONNX defines it ({one_line(e)}): the file is damaged") from e
        made = made if isinstance(made, list) else [made]
        b.values.update({n: v for n, v in zip(node.outputs, made, strict=False) if n and v is not None})
    return b


def _classifier(b: Importer, name: str) -> Graph:
    """Return the graph that gives the value `name` as (1, classes)."""
    if name not in b.values:
        raise InputError(f"the output {name} does not depend on the picture")
    out = b.plain(b.values[name])
    if out.numbers != "real":
        raise InputError(
            f"the output {name} is no score but {'a whole number' if out.numbers == 'whole' else 'a truth value'}: "
            "export the network without what picks the class"
        )
    if not out.shape or max(out.shape) != int(np.prod(out.shape)):
        raise InputError(f"the output {name} has the shape {out.shape}; a classifier's is (1, classes)")
    out = b.in_order(b.reshape(out, (1, max(out.shape))))
    return Graph("main", b.tensors, tuple(b.ops), ("image",), (out.name,))


def _node(onnx: Any, n: Any) -> Node:
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in n.attribute}
    attributes = {k: v.decode() if isinstance(v, bytes) else v for k, v in attributes.items()}
    return Node(n.op_type, n.name, tuple(n.input), tuple(n.output), attributes)
