"""equalize_swish.py: the function stays, int8 loses less, and nothing is touched where it would not be exact."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from edgenet.calibration import quantize
from edgenet.calibration.equalize_swish import (
    LOWEST,
    SIGMOID_REACH,
    equalize_swishes,
    find_swishes,
    sigmoid_ranges,
)
from edgenet.calibration.quantize import affine, quantize_array
from edgenet.calibration.ranges import choose_ranges, observe
from edgenet.calibration.sensitivity import sqnr_db
from edgenet.errors import InputError
from edgenet.export.graph import Graph, fused
from edgenet.results import Calibration
from helpers.graph_builder import Builder
from helpers.layers import bottleneck, gated, outputs, pictures, silu


def int8(graph: Graph, xs: list[np.ndarray], own: dict[str, tuple[float, float]]) -> Graph:
    ranges = {**choose_ranges(observe(graph, xs, 1), "auto"), **own}
    ranges |= sigmoid_ranges(graph, ranges)
    return quantize(graph, "int8", Calibration(ranges, "auto", "", len(xs), ""))


def centred(y: np.ndarray) -> np.ndarray:
    return y - y.mean(1, keepdims=True)


def test_the_function_stays_and_int8_loses_much_less() -> None:
    graph, xs = gated(), pictures(24, 16)
    even, ranges = equalize_swishes(graph, xs, 1)
    expected = outputs(graph, xs)
    np.testing.assert_allclose(outputs(even, xs), expected, rtol=1e-4, atol=1e-4)
    before, after = (
        sqnr_db(centred(expected), centred(outputs(g, xs))) for g in (int8(graph, xs, {}), int8(even, xs, ranges))
    )
    assert after > before + 6


def test_names_stay_and_each_scaled_silu_has_one_multiplication_more() -> None:
    graph = gated()
    even, ranges = equalize_swishes(graph, pictures(8, 16), 1)
    assert [n for n in even.activations() if not n.endswith("_unscaled")] == graph.activations()
    assert [n for n in even.activations() if n.endswith("_unscaled")] == ["expand_unscaled", "depthwise_unscaled"]
    assert set(ranges) == {"expand", "expanded", "depthwise", "filtered"}  # nothing for the SiLU of one position


def test_the_scales_are_numbers_that_an_int8_constant_holds() -> None:
    even, _ = equalize_swishes(gated(), pictures(8, 16), 1)
    for name in ("expand_scales", "depthwise_scales"):
        scales = even.constant(name)
        assert scales is not None
        stored = affine(0.0, float(scales.max()), "int8")
        np.testing.assert_allclose(stored.real(quantize_array(scales, stored, "int8")), scales, rtol=1e-5)


def test_a_gate_a_mean_and_padding_pass_the_scale_on_to_every_layer_that_reads_it() -> None:
    found = {s.y: s for s in find_swishes(gated())}
    assert found["filtered"].carried == ("filtered", "squeeze", "gated")
    assert {op.outputs[0] for op in found["filtered"].readers} == {"reduce", "project"}
    assert {op.outputs[0] for op in found["expanded"].readers} == {"depthwise"}


def test_channels_that_are_alike_get_ranges_and_no_operator() -> None:
    rng = np.random.default_rng(0)
    b = Builder(1, 8, 8, 3)
    kernel = np.repeat(rng.normal(0, 1, (1, 1, 1, 3)), 4, axis=0)
    x = silu(b, b.conv("image", "conv", kernel, np.zeros(4)), "y")
    graph = b.graph(b.dense(b.mean(x), "logits", rng.normal(0, 1, (3, 4)), np.zeros(3)))
    even, ranges = equalize_swishes(graph, pictures(8, 8), 1)
    assert even.ops == graph.ops
    low, high = ranges["y"]
    assert LOWEST - 1e-6 <= low < 0 < high


def test_a_silu_that_an_addition_reads_is_not_scaled() -> None:
    rng = np.random.default_rng(0)
    b = Builder(1, 8, 8, 3)
    one = silu(b, b.conv("image", "one", rng.normal(0, 1, (4, 1, 1, 3)), np.zeros(4)), "y")
    other = b.conv("image", "two", rng.normal(0, 9, (4, 1, 1, 3)), np.zeros(4))
    graph = b.graph(b.dense(b.mean(b.add(one, other)), "logits", rng.normal(0, 1, (3, 4)), np.zeros(3)))
    assert find_swishes(graph)[0].readers == ()
    even, ranges = equalize_swishes(graph, pictures(8, 8), 1)
    assert even.ops == graph.ops
    assert set(ranges) == {"one", "y"}


def test_a_silu_that_is_an_output_is_not_scaled() -> None:
    b = Builder(1, 8, 8, 3)
    out = silu(b, b.conv("image", "one", b.normal(4, 1, 1, 3), np.zeros(4)), "y")
    assert find_swishes(b.graph(out))[0].readers == ()


def test_a_product_of_other_things_is_no_silu() -> None:
    b = Builder(1, 8, 8, 3)
    x = b.conv("image", "one", b.normal(4, 1, 1, 3), np.zeros(4))
    other = b.conv("image", "two", b.normal(4, 1, 1, 3), np.zeros(4))
    sigmoid = b.op("LOGISTIC", [x], (1, 8, 8, 4))
    b.op("MUL", [other, sigmoid], (1, 8, 8, 4), "MulOptions", **fused())
    assert find_swishes(b.graph()) == []


def test_networks_without_silu_stay_as_they_are() -> None:
    graph = bottleneck()
    assert equalize_swishes(graph, [], 1) == (graph, {})


def test_what_only_a_sigmoid_reads_needs_no_more_range_than_its_8_bits_tell_apart() -> None:
    graph = gated()
    wide = dict.fromkeys(graph.activations(), (-40.0, 2.0))
    assert sigmoid_ranges(graph, wide) == {"excite": (-SIGMOID_REACH, 2.0)}
    levels = 256 / (1 + np.exp(-np.array([SIGMOID_REACH, 100.0])))
    assert levels[1] - levels[0] < 0.5 + 1e-6  # the last level is reached


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_numbers_are_named(value: float) -> None:
    graph = gated()
    t = graph.tensors["expand_b"]
    broken = replace(graph, tensors={**graph.tensors, "expand_b": replace(t, data=np.full(24, value, np.float32))})
    with pytest.raises(InputError, match="expand"):
        equalize_swishes(broken, pictures(2, 16), 1)


def test_without_pictures_there_is_an_error() -> None:
    with pytest.raises(InputError, match="no picture"):
        equalize_swishes(gated(), [], 1)


def test_of_each_picture_only_a_sample_is_kept() -> None:
    graph, xs = gated(size=96), pictures(40, size=96)
    whole = 4 * np.prod(graph.tensors["expand"].shape)
    tracemalloc.start()
    equalize_swishes(graph, xs, 1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 * whole  # of 40 pictures with two SiLUs of this size
