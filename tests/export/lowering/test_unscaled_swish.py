"""Files of a network whose SiLUs calibration took apart: all runtimes compute the graph's integers."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgenet.calibration import quantize
from edgenet.calibration.equalize_swish import equalize_swishes, sigmoid_ranges
from edgenet.calibration.gptq import Rounding, gptq_weights
from edgenet.calibration.integer_reference import integer_logits
from edgenet.calibration.quantize import round_weights
from edgenet.calibration.ranges import choose_ranges, observe, wide_range
from edgenet.calibration.sensitivity import sqnr_db
from edgenet.export.graph import Graph
from edgenet.export.lowering.unscaled_swish import unscaled_swishes
from edgenet.export.nchw import left_in_float, to_nchw
from edgenet.export.network import Network
from edgenet.export.onnx import to_onnx
from edgenet.export.openvino import to_openvino
from edgenet.results import Calibration
from helpers.layers import gated, outputs, pictures
from helpers.nchw_files import ABOUT, EXACT_BITS, run, session

WRITERS = {"onnx": to_onnx, "openvino": to_openvino}
SUFFIXES = {"onnx": ".onnx", "openvino": ".xml"}


@pytest.fixture(scope="module")
def xs() -> list[np.ndarray]:
    return pictures(24, 16)


@pytest.fixture(scope="module")
def even(xs: list[np.ndarray]) -> tuple[Graph, Calibration]:
    graph, own = equalize_swishes(gated(), xs, 1)
    seen = observe(graph, xs, 1)
    ranges = {**choose_ranges(seen, "auto"), **own}
    ranges |= sigmoid_ranges(graph, ranges)
    return graph, Calibration(ranges, "auto", "", len(xs), "", wide={n: wide_range(o) for n, o in seen.items()})


def integers(even: tuple[Graph, Calibration], precision: str) -> Graph:
    graph, calibration = even
    bits = EXACT_BITS if precision == "int8" else 8
    return quantize(graph, precision, calibration, weights=round_weights(graph, bits))


def written(network: Network, graph: Graph, format: str, out: Path) -> Path:
    path = out / f"file{SUFFIXES[format]}"
    WRITERS[format](replace(network, graph=graph), graph, path, ABOUT)
    return path


@pytest.mark.parametrize("precision", ["int8", "int16x8"])
@pytest.mark.parametrize("format", ["onnx", "openvino"])
def test_a_file_is_as_near_to_float_as_the_exact_integers_are(
    even: tuple[Graph, Calibration],
    xs: list[np.ndarray],
    tiny_network: Network,
    tmp_path: Path,
    format: str,
    precision: str,
) -> None:
    whole = integers(even, precision)
    expected, x = outputs(gated(), xs), np.concatenate(xs)
    exact = sqnr_db(expected, integer_logits(whole, x))
    found = sqnr_db(expected, run(written(tiny_network, whole, format, tmp_path), x))
    tflite = sqnr_db(expected, outputs(whole, xs))
    assert min(found, tflite) > exact - 1  # OpenVINO rounds less, and may be nearer


def test_16_bits_are_better_than_8_in_every_runtime(
    even: tuple[Graph, Calibration], xs: list[np.ndarray], tiny_network: Network, tmp_path: Path
) -> None:
    graph, calibration = even
    expected, x = outputs(gated(), xs), np.concatenate(xs)
    made = []
    for precision, rounded, bits in (("int8", "int8", EXACT_BITS), ("int16x8", "weight-only", 8)):
        weights = gptq_weights(graph, xs, calibration, Rounding(bits, precision=rounded), threads=1)  # as files have
        made.append(quantize(graph, precision, calibration, weights=weights))
    for format in WRITERS:
        eight, sixteen = (sqnr_db(expected, run(written(tiny_network, g, format, tmp_path), x)) for g in made)
        assert sixteen > eight + 12, format


def test_onnxruntime_computes_16_bits_alike_with_and_without_its_optimizations(
    even: tuple[Graph, Calibration], xs: list[np.ndarray], tiny_network: Network, tmp_path: Path
) -> None:
    import onnxruntime as ort

    path = written(tiny_network, integers(even, "int16x8"), "onnx", tmp_path)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    plain = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    x = [np.ascontiguousarray(a.transpose(0, 3, 1, 2)) for a in xs]
    expected = np.concatenate([plain.run(None, {"image": a})[0] for a in x])
    assert sqnr_db(expected, run(path, np.concatenate(xs))) > 50


def test_16_bit_activations_are_unsigned_in_an_onnx_file(
    even: tuple[Graph, Calibration], tiny_network: Network, tmp_path: Path
) -> None:
    import onnx

    model = onnx.load(str(written(tiny_network, integers(even, "int16x8"), "onnx", tmp_path)))
    types = {i.name: i.data_type for i in model.graph.initializer if i.name.endswith("_zero_point")}
    assert set(types.values()) == {onnx.TensorProto.UINT16, onnx.TensorProto.INT8}  # activations, and weights


def test_onnxruntime_has_an_integer_kernel_for_each_operator_of_a_scaled_silu(
    even: tuple[Graph, Calibration], tiny_network: Network, tmp_path: Path
) -> None:
    import onnx

    session(written(tiny_network, integers(even, "int8"), "onnx", tmp_path), tmp_path / "optimized.onnx")
    kinds = Counter(n.op_type for n in onnx.load(str(tmp_path / "optimized.onnx")).graph.node)
    assert not {"Mul", "Sigmoid", "Conv"} & set(kinds)
    assert kinds["QLinearMul"] == 6  # three SiLUs, the gate, and the scales of two


def test_openvino_has_its_own_silu_again_and_no_multiplication_more(
    even: tuple[Graph, Calibration], tiny_network: Network, tmp_path: Path
) -> None:
    import openvino as ov

    model = ov.Core().read_model(written(tiny_network, integers(even, "int8"), "openvino", tmp_path))
    sigmoids = [n for n in model.get_ops() if n.get_type_name() == "Sigmoid"]
    assert len(sigmoids) == 4
    for node in sigmoids:
        assert node.input_value(0).get_node().get_type_name() == "Add"  # the bias: nothing is multiplied in between


def test_a_layer_in_float_keeps_its_scaled_silu(even: tuple[Graph, Calibration]) -> None:
    graph, calibration = even
    mixed = quantize(graph, "int8", calibration, exceptions={"expand": "float32"})
    _, divided = unscaled_swishes(to_nchw(left_in_float(mixed, ())))
    assert set(divided) == {"filtered"}
