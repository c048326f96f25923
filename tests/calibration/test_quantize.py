"""quantize.py: a two-layer network worked out by hand, and every precision run by LiteRT."""

import numpy as np
import pytest

from edgenet.calibration import PRECISIONS, measure_ranges, quantize
from edgenet.calibration.execute import Executor
from edgenet.calibration.quantize import affine, round_weights
from edgenet.errors import InputError
from edgenet.export.graph import Graph, fused
from edgenet.results import Calibration
from helpers.graph_builder import RELU, VALID, Builder
from helpers.layers import bottleneck, pictures

# Ranges that give round scales: image 0.01 (zero point 0), hidden 0.02 (-128), logits 0.02 (0).
RANGES = {"image": (-1.28, 1.27), "hidden": (0.0, 5.1), "logits": (-2.56, 2.54)}


def two_layers() -> Graph:
    b = Builder(1, 2)
    b.dense("image", "hidden", [[1.27, -0.5], [0.26, 2.54]], [0.1, -0.2], RELU)
    return b.graph(b.dense("hidden", "logits", [[1.27, 0.64], [-1.27, 0.3]], [0.2, 0.0]))


def calibration(ranges: dict[str, tuple[float, float]]) -> Calibration:
    return Calibration(ranges, "min-max", "", 1, "")


def run(graph: Graph, x: np.ndarray) -> np.ndarray:
    return Executor(graph, graph.outputs, 1)(x)[0]


def kinds(graph: Graph) -> list[str]:
    return [op.kind for op in graph.ops]


@pytest.mark.parametrize(
    ("low", "high", "scale", "zero"),
    [
        (0, 6, 6 / 255, -128),
        (-1.28, 1.27, 0.01, 0),
        (-2, 0, 2 / 255, 127),
        (1, 3, 3 / 255, -128),
        (-1, 3, 4 / 255, -64),
    ],
)
def test_int8_covers_the_range_and_zero(low: float, high: float, scale: float, zero: int) -> None:
    q = affine(low, high, "int8")
    assert q.scale[0] == pytest.approx(scale, rel=1e-6)
    assert q.zero_point[0] == zero


def test_int16_is_symmetric() -> None:
    q = affine(-1, 3, "int16")
    assert (q.scale[0], q.zero_point[0]) == (pytest.approx(3 / 32767), 0)


def test_a_range_of_nothing_still_has_a_scale() -> None:
    assert affine(0, 0, "int8").scale[0] > 0


def test_the_integers_of_two_layers_are_those_worked_out_by_hand() -> None:
    q = quantize(two_layers(), "int8", calibration(RANGES))
    t = q.tensors
    assert t["hidden"].quantization.scale[0] == pytest.approx(0.02)
    assert t["hidden"].quantization.zero_point[0] == -128
    np.testing.assert_array_equal(t["hidden_weights"].data, [[127, -50], [13, 127]])
    np.testing.assert_allclose(t["hidden_weights"].quantization.scale, [0.01, 0.02], rtol=1e-6)
    np.testing.assert_array_equal(t["hidden_bias"].data, [1000, -1000])  # in steps of 0.0001 and 0.0002
    np.testing.assert_array_equal(t["logits_weights"].data, [[127, 64], [-127, 30]])
    np.testing.assert_array_equal(t["logits_bias"].data, [1000, 0])
    assert t["hidden_bias"].dtype == "int32"


def test_two_layers_compute_what_was_worked_out_by_hand() -> None:
    # 100, -50 -> 127*100 + 50*50 + 1000 = 16200 = 1.62 -> 81 steps; 13*100 - 127*50 - 1000 < 0 -> 0
    # 127*81 + 1000 = 11287 = 2.2574 -> 113 steps of 0.02; -127*81 = -10287 = -2.0574 -> -103 steps
    q = quantize(two_layers(), "int8", calibration(RANGES))
    np.testing.assert_allclose(run(q, np.array([[1.0, -0.5]], np.float32)), [[2.26, -2.06]], atol=1e-6)


def test_seven_bit_weights_reach_63() -> None:
    w = round_weights(two_layers(), bits=7)["hidden"]
    np.testing.assert_array_equal(w.values, [[63, -25], [6, 63]])
    np.testing.assert_allclose(w.scale, [1.27 / 63, 2.54 / 63], rtol=1e-6)


def test_one_scale_for_all_channels_where_the_target_has_no_other() -> None:
    w = round_weights(two_layers(), per_channel=False)["hidden"]
    np.testing.assert_allclose(w.scale, [0.02], rtol=1e-6)
    assert w.values[0, 0] in (63, 64)  # 63.5
    np.testing.assert_array_equal(w.values.ravel()[1:], [-25, 13, 127])


def test_a_layer_in_float_stands_between_conversions() -> None:
    q = quantize(two_layers(), "int8", calibration(RANGES), exceptions={"hidden": "float32"})
    assert kinds(q) == ["FULLY_CONNECTED", "QUANTIZE", "FULLY_CONNECTED", "DEQUANTIZE"]
    assert q.tensors["hidden"].dtype == "float32"
    np.testing.assert_array_equal(q.tensors["logits_weights"].data, [[127, 64], [-127, 30]])


def test_a_layer_in_int16_stands_between_conversions_and_runs() -> None:
    graph, x = two_layers(), np.array([[0.7, 0.3]], np.float32)
    q = quantize(graph, "int8", calibration(RANGES), exceptions={"hidden": "int16"})
    assert kinds(q) == ["QUANTIZE", "FULLY_CONNECTED", "QUANTIZE", "FULLY_CONNECTED", "DEQUANTIZE"]
    assert (q.tensors["hidden"].dtype, q.tensors["hidden_bias"].dtype) == ("int16", "int64")
    np.testing.assert_allclose(run(q, x), run(graph, x), atol=0.04)


def test_a_pool_keeps_the_scale_of_what_it_reads() -> None:
    b = Builder(1, 4, 4, 1)
    x = b.conv("image", "conv", np.full((2, 1, 1, 1), 0.5), [0, 0])
    q = quantize(
        b.graph(b.pool(x, "MAX_POOL_2D", VALID, size=2, out="pool")),
        "int8",
        calibration({"image": (-1, 1), "conv": (-1, 1), "pool": (0, 0.5)}),
    )
    assert q.tensors["pool"].quantization == q.tensors["conv"].quantization
    assert "QUANTIZE" not in kinds(q)[1:]


def test_all_parts_of_a_concatenation_get_its_scale() -> None:
    b = Builder(1, 2)
    b.dense("image", "a", [[1.0, 0.0]], [0.0])
    b.dense("image", "b", [[0.0, 4.0]], [0.0])
    b.op("CONCATENATION", ["a", "b"], (1, 2), "ConcatenationOptions", out="both", axis=1, **fused())
    ranges = {"image": (-1.0, 1.0), "a": (-1.0, 1.0), "b": (-4.0, 4.0), "both": (-4.0, 4.0)}
    graph = b.graph("both")
    q = quantize(graph, "int8", calibration(ranges))
    joined = q.ops[[op.kind for op in q.ops].index("CONCATENATION")]
    assert {float(q.tensors[n].quantization.scale[0]) for n in joined.inputs} == {np.float32(8 / 255)}
    x = np.array([[0.5, -0.25]], np.float32)
    np.testing.assert_allclose(run(q, x), run(graph, x), atol=8 / 255)


def test_the_bias_of_a_dead_channel_does_not_overflow() -> None:
    b = Builder(1, 2)
    graph = b.graph(b.dense("image", "logits", [[0.0, 1e-9], [0.5, 0.5]], [3.0, 0.0]))
    q = quantize(graph, "int8", calibration({"image": (-1, 1), "logits": (-1, 3)}))
    assert abs(int(q.tensors["logits_bias"].data[0])) == pytest.approx(2**30, rel=1e-6)  # half of what int32 holds
    np.testing.assert_allclose(run(q, np.array([[0.5, 0.5]], np.float32)), [[3.0, 0.5]], atol=0.02)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_precision_runs_and_gives_the_float_logits(precision: str) -> None:
    graph, xs = bottleneck(), pictures(8)
    ranges = measure_ranges(graph, xs, 1)
    q = quantize(graph, precision, calibration(ranges))
    expected = np.concatenate([run(graph, x) for x in xs])
    found = np.concatenate([run(q, x) for x in xs])
    noise = {
        "float32": 0, "float16": 1e-3, "weight-only": 0.05, "dynamic": 0.1, "int8": 0.2, "int16x8": 0.05, "int4": 0.5
    }[precision]  # fmt: skip
    assert np.sqrt(np.mean((found - expected) ** 2)) <= noise * np.std(expected) + 1e-6


def test_an_unknown_precision_lists_the_valid_ones() -> None:
    with pytest.raises(InputError, match=r"unknown precision 'int3' .*int16x8"):
        quantize(two_layers(), "int3")


def test_int8_without_a_calibration_says_what_to_give() -> None:
    with pytest.raises(InputError, match="--images"):
        quantize(two_layers(), "int8")


def test_a_normalisation_stays_in_float() -> None:
    b = Builder(1, 4)
    b.op("MUL", ["image", "image"], (1, 4), "MulOptions", out="squares", **fused())
    b.mean("squares", "variance", axes=[1], keep=True)
    b.op("ADD", ["variance", b.constant([[1e-6]])], (1, 1), "AddOptions", out="safe", **fused())
    b.op("RSQRT", ["safe"], (1, 1), out="inverse")
    b.op("MUL", ["image", "inverse"], (1, 4), "MulOptions", out="normal", **fused())
    graph = b.graph(b.dense("normal", "logits", np.eye(4), np.zeros(4)))
    ranges = {"image": (-1.28, 1.27), "normal": (-2.56, 2.54), "logits": (-2.56, 2.54), "inverse": (0.8, 40.0)}
    found = quantize(graph, "int8", calibration({**ranges, **dict.fromkeys(("squares", "variance", "safe"), (0, 1.6))}))
    inside = ("squares", "variance", "safe", "inverse", "normal")
    assert {found.tensors[n].dtype for n in inside} == {"float32"}
    # 0.03 squared is far below one step of the variance's range, and 1 and 33 are both one over a root that was seen.
    for x in (0.03, 1.0):
        np.testing.assert_allclose(run(found, np.array([[x, -x, x, x]], np.float32)), [[1, -1, 1, 1]], atol=0.021)
