"""equalize_gates.py: the function stays, int8 loses less, and nothing is touched where it would not be exact."""

from dataclasses import replace

import numpy as np
import pytest

from edgenet.calibration import quantize
from edgenet.calibration.equalize_gates import equalize_gates, find_gates
from edgenet.calibration.quantize import affine, quantize_array
from edgenet.calibration.ranges import choose_ranges, observe
from edgenet.calibration.sensitivity import sqnr_db
from edgenet.errors import InputError
from edgenet.export.graph import Graph, fused
from edgenet.export.nchw import to_nchw
from edgenet.results import Calibration
from helpers.graph_builder import RELU, Builder
from helpers.layers import outputs, pictures


def half_closed(classes: int = 5) -> Graph:
    """One gated product. Three quarters of the gates are nearly closed, and the layer behind makes up for it.

    8 bits hold the gates themselves exactly: what is lost is lost in the product.
    """
    rng = np.random.default_rng(0)
    b, c = Builder(1, 16, 16, 3), 24
    opened = np.where(np.arange(c) % 4, 0.75 * 14 / 255, 0.75)
    x = b.conv("image", "expand", rng.normal(0, 0.5, (c, 3, 3, 3)), rng.normal(0, 0.3, c), RELU)
    pooled = b.mean(x, "squeeze", keep=True)
    gate = b.conv(pooled, "excite", np.zeros((c, 1, 1, c)), np.log(opened / (1 - opened)))
    gate = b.op("LOGISTIC", [gate], (1, 1, 1, c), out="gate")
    x = b.op("MUL", [x, gate], b.tensors[x].shape, "MulOptions", out="gated", **fused())
    x = b.conv(x, "project", rng.normal(0, 0.3, (8, 1, 1, c)) / opened, rng.normal(0, 0.1, 8))
    return b.graph(b.dense(b.mean(x, "pool"), "logits", rng.normal(0, 1, (classes, 8)), np.zeros(classes)))


def int8(graph: Graph, xs: list[np.ndarray]) -> Graph:
    """Only the products in integers: what the sigmoid loses is not the question."""
    ranges = choose_ranges(observe(graph, xs, 1), "auto")
    others = {op.outputs[0]: "float32" for op in graph.ops if op.kind != "MUL"}
    return quantize(graph, "int8", Calibration(ranges, "auto", "", len(xs), ""), exceptions=others)


def test_the_function_stays_and_int8_loses_less() -> None:
    graph, xs = half_closed(), pictures(24, 16)
    even = equalize_gates(graph, xs, 1)
    expected = outputs(graph, xs)
    np.testing.assert_allclose(outputs(even, xs), expected, rtol=1e-4, atol=1e-4)
    before, after = (sqnr_db(y, outputs(int8(g, xs), xs)) for g, y in ((graph, expected), (even, expected)))
    assert after > before + 3


def test_names_stay_and_each_gate_has_one_multiplication_of_a_vector_more() -> None:
    graph = half_closed()
    even = equalize_gates(graph, pictures(8, 16), 1)
    assert [n for n in even.activations() if n != "gate_opened"] == graph.activations()
    assert even.tensors["gate_opened"].shape == (1, 1, 1, 24)
    to_nchw(even)  # has a form in ONNX and OpenVINO


def test_an_int8_constant_holds_the_factors_and_no_gate_goes_beyond_one() -> None:
    xs = pictures(8, 16)
    even = equalize_gates(half_closed(), xs, 1)
    parts = even.constant("gate_parts")
    assert parts is not None
    assert parts.max() > 3
    stored = affine(0.0, float(parts.max()), "int8")
    np.testing.assert_allclose(stored.real(quantize_array(parts, stored, "int8")), parts, rtol=1e-5)
    assert observe(even, xs, 1)["gate_opened"].range[1] <= 1


@pytest.mark.parametrize("output", ["gate", "gated"])
def test_a_gate_or_a_product_that_is_an_output_is_left_alone(output: str) -> None:
    graph = half_closed()
    graph = replace(graph, outputs=(*graph.outputs, output))
    assert find_gates(graph) == []
    assert equalize_gates(graph, pictures(2, 16), 1) is graph


def test_a_product_that_an_addition_reads_is_left_alone() -> None:
    b = Builder(1, 8, 8, 3)
    x = b.conv("image", "conv", b.normal(4, 1, 1, 3), np.zeros(4))
    gate = b.op("LOGISTIC", [b.mean(x, "squeeze", keep=True)], (1, 1, 1, 4), out="gate")
    y = b.op("MUL", [x, gate], b.tensors[x].shape, "MulOptions", out="gated", **fused())
    y = b.add(y, x, "sum")
    graph = b.graph(b.dense(b.mean(y, "pool"), "logits", b.normal(3, 4), np.zeros(3)))
    assert find_gates(graph) == []


def test_without_pictures_there_is_an_error() -> None:
    with pytest.raises(InputError, match="no picture"):
        equalize_gates(half_closed(), [], 1)
