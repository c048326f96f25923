"""operators.py: all operators that tflite-micro does not run, tried in tflite-micro itself."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from edgenet.calibration import quantize
from edgenet.device_bench import open_device
from edgenet.device_bench.device import Request
from edgenet.device_bench.micro.arena import LACKED
from edgenet.device_bench.micro.operators import refused, single_operators
from edgenet.errors import DeviceError
from edgenet.export import Network, export_graph
from edgenet.export.graph import Graph, Op, Quantization, Tensor
from edgenet.export.inspect.tflite import operator_outputs
from edgenet.export.tflite_file import read_tflite, write_tflite
from edgenet.results import Calibration

pytestmark = pytest.mark.skipif(importlib.util.find_spec("tflite_micro") is None, reason="needs edgenet[micro]")


def a_file(path: Path, kinds: list[tuple[str, str, dict[str, object]]]) -> Path:
    """Float operators of one input, one after another: (kind, type of its options, options)."""
    names = [f"t{i}" for i in range(len(kinds) + 1)]
    tensors = {name: Tensor(name, (1, 8, 8, 3), "float32") for name in names}
    ops = tuple(
        Op(kind, (x,), (y,), options, type)
        for (kind, type, options), x, y in zip(kinds, names[:-1], names[1:], strict=True)
    )
    path.write_bytes(write_tflite(Graph("m", tensors, ops, (names[0],), (names[-1],))))
    return path


def softmaxes(path: Path, *scales: float) -> Path:
    """8-bit softmaxes of 1,000 classes, side by side on inputs of these scales, and a RELU behind the first."""

    def q(scale: float, zero_point: int) -> Quantization:
        return Quantization(np.array([scale], np.float32), np.array([zero_point], np.int64), 0)

    tensors, ops = {}, []
    for i, scale in enumerate(scales):
        tensors |= {
            f"x{i}": Tensor(f"x{i}", (1, 1000), "int8", None, q(scale, 0)),
            f"y{i}": Tensor(f"y{i}", (1, 1000), "int8", None, q(1 / 256, -128)),
        }
        ops.append(Op("SOFTMAX", (f"x{i}",), (f"y{i}",), {"beta": 1.0}, "SoftmaxOptions"))
    n = range(len(scales))
    graph = Graph("m", tensors, tuple(ops), tuple(f"x{i}" for i in n), tuple(f"y{i}" for i in n))
    path.write_bytes(write_tflite(graph))
    return path


def test_all_that_is_missing_is_found_not_only_the_first(tmp_path: Path) -> None:
    gelu = ("GELU", "GeluOptions", {"approximate": False})
    relu: tuple[str, str, dict[str, object]] = ("RELU", "NONE", {})
    path = a_file(tmp_path / "a.tflite", [gelu, relu, ("ATAN2", "NONE", {}), relu, gelu])
    assert refused(path, 60) == [("GELU", LACKED), ("ATAN2", LACKED), ("GELU", LACKED)]


def test_an_operator_of_types_that_its_kernel_does_not_have_says_so_in_the_kernels_words(
    tiny_network: Network, tiny_calibration: Calibration, tmp_path: Path
) -> None:
    g = quantize(tiny_network.graph, "dynamic", tiny_calibration)
    a = export_graph(tiny_network, g, tmp_path, format="tflite", precision="dynamic")
    assert set(refused(tmp_path / a.path, 60)) == {
        ("CONV_2D", "Hybrid models are not supported on TFLite Micro.")  # its other weights are too few to be 8-bit
    }


def test_one_that_crashes_is_named_and_those_behind_it_are_tried_too(tmp_path: Path) -> None:
    path = softmaxes(tmp_path / "a.tflite", 0.1, 1e-7, 0.1, 1e-7)  # of logits that hardly differ it always aborts
    crashed = ("SOFTMAX", "tflite-micro was killed by SIGABRT")
    assert refused(path, 60) == [crashed, crashed]


def test_a_softmax_is_not_refused_for_pictures_of_which_the_network_has_no_idea(tmp_path: Path) -> None:
    assert refused(softmaxes(tmp_path / "a.tflite", 0.005), 60) == []  # logits may differ by 1.3; equal ones abort


def test_a_child_that_hangs_is_ended(tmp_path: Path) -> None:
    path = a_file(tmp_path / "a.tflite", [("RELU", "NONE", {})])
    with pytest.raises(DeviceError, match=r"ended after 0\.01 s"):
        refused(path, 0.01)


def test_an_operator_alone_is_the_one_of_the_file(tiny_files: dict[str, Path]) -> None:
    path = tiny_files["int8"]
    graph, alone = read_tflite(path.read_bytes()), list(single_operators(path.read_bytes()))
    assert [a.kind for a in alone] == [kind for kind, _ in operator_outputs(path)]
    for a, op in zip(alone, graph.ops, strict=True):
        (cut,) = (g := read_tflite(a.model)).ops
        assert (cut.kind, cut.options) == (op.kind, op.options)
        assert len(g.inputs) == a.n_inputs
        for name, own in zip(cut.inputs, op.inputs, strict=True):
            assert (name is None) == (own is None)
            if name is not None and own is not None:
                ours, theirs = g.tensors[name], graph.tensors[own]
                assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
                assert (ours.data is None) == (theirs.data is None)
                assert ours.data is None or np.array_equal(ours.data, theirs.data)


def test_the_estimate_of_a_file_that_does_not_run_lists_why_and_has_no_memory(tmp_path: Path) -> None:
    path = a_file(tmp_path / "a.tflite", [("RELU", "NONE", {}), ("GELU", "GeluOptions", {"approximate": False})])
    with open_device("micro") as device:
        (e,), failures = device.bench([("a", path)], Request())
        assert not failures
        assert (e.n_operators, e.n_accelerated) == (2, 1)
        assert [(o.kind, o.n, o.why) for o in e.left] == [("GELU", 1, LACKED)]
        assert (e.sram_bytes, e.flash_bytes, e.memory_bytes) == (None, None, {})
        assert [(w.code, w.value) for w in e.warnings] == [("missing-operators", 1)]
        with pytest.raises(DeviceError, match="names all that is missing"):
            device.predict(path, np.zeros((1, 8, 8, 3), np.float32))


def test_a_softmax_that_aborts_is_a_failure_that_says_what_to_do(tmp_path: Path) -> None:
    """On a picture that the network has no idea about; the file has the shape of a classifier of 1,000 classes."""
    path = tmp_path / "a.tflite"
    q8 = Quantization(np.array([1e-7], np.float32), np.array([0], np.int64), 0)
    out = Quantization(np.array([1 / 256], np.float32), np.array([-128], np.int64), 0)
    tensors = {"x": Tensor("x", (1, 20, 50, 1), "int8", None, q8), "y": Tensor("y", (1, 20, 50, 1), "int8", None, q8),
               "shape": Tensor("shape", (2,), "int32", np.array([1, 1000], np.int32)),
               "flat": Tensor("flat", (1, 1000), "int8", None, q8),
               "z": Tensor("z", (1, 1000), "int8", None, out)}  # fmt: skip
    ops = (Op("RELU", ("x",), ("y",), {}, "NONE"),
           Op("RESHAPE", ("y", "shape"), ("flat",), {"newShape": np.array([1, 1000], np.int32)}, "ReshapeOptions"),
           Op("SOFTMAX", ("flat",), ("z",), {"beta": 1.0}, "SoftmaxOptions"))  # fmt: skip
    path.write_bytes(write_tflite(Graph("m", tensors, ops, ("x",), ("z",))))
    with open_device("micro") as device, pytest.raises(DeviceError, match=r"no class gets more than 1/512.*--io float"):
        device.predict(path, np.zeros((2, 20, 50, 1), np.uint8))
