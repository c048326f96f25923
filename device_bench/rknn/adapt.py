"""Write an .onnx file in the form that rknn-toolkit2 reads, with the same integers, scales and answers.

It reads operator sets up to 19, a fixed batch, and a zero point beside the scale of every int32 bias. Nothing else is
changed: what a newer operator set has and 19 does not is refused, never replaced.
"""

from pathlib import Path
from typing import Any

from edgenet.errors import InputError, MissingDependency
from edgenet.export.importers.onnx_importer import read_onnx

OPSET = 19
_IR_VERSION = 10
_OTHER_MEANING = {"GridSample": 20}  # since this operator set its attributes mean something else


def adapt(path: Path, out: Path) -> Path:
    """Write the file at `path` to `out` as the toolkit reads it.

    Raises:
        InputError: it is no .onnx file, or has operators or types that operator set 19 lacks.
        MissingDependency: the onnx package is not installed.
    """
    try:
        import onnx
    except ImportError:
        raise MissingDependency("onnx", "onnx", "reading an .onnx file") from None
    if path.suffix.lower() != ".onnx":
        raise InputError(
            f"{path} is no .onnx file, which is what rknn-toolkit2 takes edgenet's integers from: give the .onnx, as "
            "`edgenet export --format onnx --precision int8` writes it"
        )
    if not path.is_file():
        raise InputError(f"no file {path}: give model files")
    model = read_onnx(path)
    _lower(path, model)
    _fix_batch(path, model)
    _add_zero_points(onnx, model)
    try:
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, out)
    except Exception as e:  # also a model over 2 GB
        raise InputError(
            f"{path} cannot be written in ONNX's operator set {OPSET}, the newest that rknn-toolkit2 reads: {_line(e)}"
        ) from None
    return out


def _lower(path: Path, model: Any) -> None:
    for opset in model.opset_import:
        if opset.domain not in ("", "ai.onnx"):
            continue
        for node in model.graph.node:
            if opset.version >= _OTHER_MEANING.get(node.op_type, opset.version + 1) > OPSET:
                raise InputError(
                    f"{path} has {node.op_type} of operator set {opset.version}, which means something else in {OPSET}"
                )
        opset.version = min(opset.version, OPSET)
    model.ir_version = min(model.ir_version, _IR_VERSION)


def _fix_batch(path: Path, model: Any) -> None:
    constants = {i.name for i in model.graph.initializer}
    inputs = [i for i in model.graph.input if i.name not in constants]
    if len(inputs) != 1:
        raise InputError(f"{path} takes {len(inputs)} inputs; an image classifier takes one")
    for value in (*inputs, *model.graph.output):
        dims = value.type.tensor_type.shape.dim
        if dims and not dims[0].HasField("dim_value"):
            dims[0].dim_value = 1
    if not all(d.dim_value > 0 for d in inputs[0].type.tensor_type.shape.dim):
        raise InputError(f"{path} leaves a dimension of its input open, and an NPU takes only fixed shapes")
    del model.graph.value_info[:]  # what was inferred with the batch open


def _add_zero_points(onnx: Any, model: Any) -> None:
    """Give each DequantizeLinear of int32 constants the zero point 0 that it stands for."""
    graph = model.graph
    constants = {i.name: i for i in graph.initializer}
    for node in graph.node:
        if node.op_type != "DequantizeLinear" or (len(node.input) > 2 and node.input[2]):
            continue
        data, scale = (constants.get(name) for name in node.input[:2])
        if data is None or scale is None or data.data_type != onnx.TensorProto.INT32:
            continue
        name, n = f"{node.output[0]}_zero_point", 1
        for d in scale.dims:
            n *= d
        graph.initializer.append(onnx.helper.make_tensor(name, onnx.TensorProto.INT32, list(scale.dims), [0] * n))
        del node.input[2:]
        node.input.append(name)


def _line(e: Exception) -> str:
    return " ".join(str(e).split())[:200] or type(e).__name__
