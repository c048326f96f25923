"""Graphs of strangers that no network has: refused in a line, before anything works with them."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgenet.device_bench.worker import Worker
from edgenet.errors import InputError
from edgenet.export import find_source
from edgenet.export.inspect import inspect
from edgenet.export.tflite_file import schema

Change = Callable[[Any], None]


def changed(path: Path, change: Change) -> bytes:
    """Return a .tflite file with its main graph changed."""
    flatbuffers = pytest.importorskip("flatbuffers")
    model = schema().ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    change(model.subgraphs[0])
    b = flatbuffers.Builder(1 << 16)
    b.Finish(model.Pack(b), b"TFL3")
    return bytes(b.Output())


def of_input(shape: list[int]) -> Change:
    return lambda graph: setattr(graph.tensors[graph.inputs[0]], "shape", shape)


def of_output(shape: list[int]) -> Change:
    return lambda graph: setattr(graph.tensors[graph.outputs[0]], "shape", shape)


def of_first(name: str, value: object) -> Change:
    return lambda graph: setattr(graph.operators[0], name, value)


def of_options(name: str, value: int) -> Change:
    return lambda graph: setattr(graph.operators[0].builtinOptions, name, value)


GRAPHS: dict[str, Change] = {
    "an input of nothing": of_input([0, 0, 0, 0]),
    "an input of 10^18 pixels": of_input([1, 2**31 - 1, 2**31 - 1, 3]),
    "an input of 4 channels": of_input([1, 20, 20, 4]),
    "an input of one pixel": of_input([1, 1, 1, 3]),
    "an input of 1,200 dimensions": of_input([1, 20, 20, 3] * 300),
    "six classes of five": of_output([1, 6]),
    "four classes of five": of_output([1, 4]),
    "an operator without inputs": of_first("inputs", []),
    "an operator that reads nothing": of_first("inputs", [-1]),
    "an operator without outputs": of_first("outputs", []),
    "an operator without options": of_first("builtinOptions", None),
    "a stride of 0": of_options("strideW", 0),
    "a stride below zero": of_options("strideH", -1),
    "a stride of 2^31": of_options("strideW", 2**31 - 1),
    "a dilation of 0": of_options("dilationWFactor", 0),
    "an unknown padding": of_options("padding", 9),
    "an output below zero": lambda graph: setattr(graph, "outputs", [-1]),
    "an input below zero": lambda graph: setattr(graph, "inputs", [-1]),
}


@pytest.mark.parametrize("change", GRAPHS.values(), ids=GRAPHS)
def test_a_tflite_graph_that_tflite_does_not_take_is_refused(
    change: Change, tiny_files: dict[str, Path], tmp_path: Path
) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(changed(tiny_files["float32"], change))
    with pytest.raises(InputError, match=r"model\.tflite") as e:
        find_source(str(path), preprocess="tf").network()
    assert "\n" not in str(e.value)


def scales(**values: Any) -> Change:
    def change(graph: Any) -> None:
        for t in graph.tensors:
            if t.quantization is not None and t.quantization.scale is not None and len(t.quantization.scale) > 1:
                for name, value in values.items():
                    setattr(t.quantization, name, value(len(t.quantization.scale)))
                return

    return change


INSPECTED: dict[str, Change] = {
    "NaN": scales(scale=lambda n: np.full(n, np.nan, np.float32)),
    "infinity": scales(scale=lambda n: np.full(n, np.inf, np.float32)),
    "below zero": scales(scale=lambda n: np.full(n, -1, np.float32)),
    "a thousand": scales(scale=lambda n: np.full(1000, 0.1, np.float32)),
    "an axis that there is not": scales(quantizedDimension=lambda n: 99),
    "a thousand zero points": scales(zeroPoint=lambda n: np.zeros(1000, np.int64)),
    "an output below zero": lambda graph: setattr(graph, "outputs", [-1]),
    "an operator's output below zero": of_first("outputs", [-1]),
}


@pytest.mark.parametrize("change", INSPECTED.values(), ids=INSPECTED)
def test_inspect_refuses_scales_and_places_that_cannot_be(
    change: Change, tiny_files: dict[str, Path], tmp_path: Path
) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(changed(tiny_files["int8"], change))
    with pytest.raises(InputError, match=r"model\.tflite") as e:
        inspect(path)
    assert "\n" not in str(e.value)


def test_weights_that_are_a_fifo_beside_an_xml_are_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "model.xml").write_text("<net/>")
    os.mkfifo(tmp_path / "model.bin")
    with pytest.raises(InputError, match=r"model\.bin is no regular file"):
        Worker(tmp_path / "model.xml")


# ------------------------------------------------------------------------------------------------------------- ONNX


def onnx_file(
    path: Path, operator: str, *more: np.ndarray, opset: int = 13, twice: bool = False, **options: Any
) -> None:
    """Write a classifier whose first operator is this, with constants as its further inputs."""
    onnx = pytest.importorskip("onnx")
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    numbers = onnx.TensorProto.FLOAT
    names = [f"c{i}" for i in range(len(more))]
    nodes = [
        helper.make_node(operator, ["x", *names], ["p"], **options),
        helper.make_node("GlobalAveragePool", ["p"], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"]),
        helper.make_node("MatMul", ["f", "W"], ["y"]),
    ]
    nodes += [nodes[1]] if twice else []
    constants = [numpy_helper.from_array(a, n) for a, n in zip(more, names, strict=True)]
    constants.append(numpy_helper.from_array(np.ones((3, 4), np.float32), "W"))
    ends = (
        helper.make_tensor_value_info("x", numbers, (1, 3, 8, 8)),
        helper.make_tensor_value_info("y", numbers, (1, 4)),
    )
    graph = helper.make_graph(nodes, "g", [ends[0]], [ends[1]], constants)
    path.write_bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)]).SerializeToString())


KERNEL = np.ones((3, 3, 3, 3), np.float32)
INFINITY, NAN = (np.full((1, 3, 1, 1), v, np.float32) for v in (np.inf, np.nan))
NETS: dict[str, tuple[Any, ...]] = {
    "no dilation": ("Conv", (KERNEL,), {"dilations": [0, 0]}),
    "a thousand strides": ("Conv", (KERNEL,), {"strides": [1] * 1000}),
    "one pad": ("Conv", (KERNEL,), {"pads": [1]}),
    "a kernel of another size": ("Conv", (KERNEL,), {"kernel_shape": [2**31, 2]}),
    "an unknown padding": ("Conv", (KERNEL,), {"auto_pad": "FOO"}),
    "a pool over nothing": ("MaxPool", (), {"kernel_shape": [0, 0]}),
    "a pool below zero": ("AveragePool", (), {"kernel_shape": [-2, 2]}),
    "a pool over 2^31": ("MaxPool", (), {"kernel_shape": [2**31] * 2, "pads": [2**31] * 4}),
    "transposed without strides": ("ConvTranspose", (KERNEL,), {"strides": [0, 0]}),
    "no repeats": ("Tile", (np.array([1, 1, 0, 0]),), {}),
    "fewer than no repeats": ("Tile", (np.array([1, 1, -1, 1]),), {}),
    "infinity added": ("Add", (INFINITY,), {}),
    "infinity as a factor": ("Mul", (INFINITY,), {}),
    "a division by zero": ("Div", (np.zeros((1, 3, 1, 1), np.float32),), {}),
    "an infinite slope": ("LeakyRelu", (), {"alpha": float("inf")}),
    "a slope that is NaN": ("LeakyRelu", (), {"alpha": float("nan")}),
    "a limit that is NaN": ("Clip", (np.array(np.nan, np.float32),), {}),
    "complex numbers": ("Add", (np.array([1 + 2j], np.complex64),), {}),
    "version 0": ("Relu", (), {"opset": 0}),
    "version 9999": ("Relu", (), {"opset": 9999}),
    "a node twice": ("Relu", (), {"twice": True}),
}


@pytest.mark.parametrize(("operator", "more", "options"), NETS.values(), ids=NETS)
def test_an_onnx_network_that_cannot_be_is_refused(
    operator: str, more: tuple[np.ndarray, ...], options: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "model.onnx"
    onnx_file(path, operator, *more, **options)
    with pytest.raises(InputError, match="model") as e:
        find_source(str(path), preprocess="tf").network()
    assert "\n" not in str(e.value)
    assert "Error" not in str(e.value)


def test_a_limit_may_be_infinite(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx_file(path, "Clip", np.array(-np.inf, np.float32), np.array(np.inf, np.float32))
    assert find_source(str(path), preprocess="tf").network().graph.ops
