"""split_channels.py: groups of channels get operators of their own, and no integer changes."""

from collections import Counter

import numpy as np
import pytest

from edgenet.calibration import quantize
from edgenet.calibration.equalize_swish import equalize_swishes, sigmoid_ranges
from edgenet.calibration.ranges import choose_ranges, observe
from edgenet.export.graph import Graph
from edgenet.export.lowering.split_channels import split_channels
from edgenet.export.tflite_file import read_tflite, write_tflite
from edgenet.results import Calibration
from helpers.layers import bottleneck, gated, outputs, pictures

SIZE = 32


def integers(graph: Graph, xs: list[np.ndarray], precision: str = "int8") -> Graph:
    even, own = equalize_swishes(graph, xs, 1)
    ranges = {**choose_ranges(observe(even, xs, 1), "auto"), **own}
    ranges |= sigmoid_ranges(even, ranges)
    return quantize(even, precision, Calibration(ranges, "auto", "", len(xs), "", wide=ranges))


@pytest.fixture(scope="module")
def xs() -> list[np.ndarray]:
    return pictures(8, SIZE)


@pytest.fixture(scope="module")
def whole(xs: list[np.ndarray]) -> Graph:
    return integers(gated(size=SIZE, channels=64), xs)


def test_each_integer_is_what_it_was(whole: Graph, xs: list[np.ndarray]) -> None:
    split = split_channels(whole)
    names = ["filtered", *whole.outputs]  # the first is put together, and read by two
    for g in (whole, split):
        assert outputs(g.with_outputs(names[:1]), xs).dtype == np.int8
    for name in names:
        np.testing.assert_array_equal(*(outputs(g.with_outputs([name]), xs) for g in (whole, split)))


def test_the_reference_kernels_agree(whole: Graph, xs: list[np.ndarray]) -> None:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    found = []
    for g in (whole, split_channels(whole)):
        run = Interpreter(
            model_content=write_tflite(g, signature=None), experimental_op_resolver_type=OpResolverType.BUILTIN_REF
        )
        run.allocate_tensors()
        run.set_tensor(run.get_input_details()[0]["index"], xs[0])
        run.invoke()
        found.append(run.get_tensor(run.get_output_details()[0]["index"]))
    np.testing.assert_array_equal(*found)


def test_each_group_has_a_layer_and_multiplies_by_one_number(whole: Graph) -> None:
    split = read_tflite(write_tflite(split_channels(whole), signature=None))
    before, after = (Counter(op.kind for op in g.ops) for g in (whole, split))
    more = after["CONV_2D"] - before["CONV_2D"]
    assert 1 <= more == after["DEPTHWISE_CONV_2D"] - before["DEPTHWISE_CONV_2D"]
    assert after["CONCATENATION"] == 1  # the convolution's SiLU goes to its own depthwise layer
    consumers = split.consumers()
    for op in split.ops:
        constant = split.constant(op.inputs[1]) if op.kind == "MUL" else None
        if constant is not None and any(split.ops[i].kind == "LOGISTIC" for i in consumers[op.outputs[0]]):
            assert constant.size == 1


def test_groups_are_put_together_before_channels_with_a_number_each(xs: list[np.ndarray]) -> None:
    whole = integers(gated(size=SIZE, channels=64, stride=2), xs)
    split = split_channels(whole)
    before, after = (Counter(op.kind for op in g.ops) for g in (whole, split))
    assert after["DEPTHWISE_CONV_2D"] > before["DEPTHWISE_CONV_2D"]
    assert split.tensors["depthwise_unscaled"].shape == whole.tensors["depthwise_unscaled"].shape
    np.testing.assert_array_equal(outputs(split, xs), outputs(whole, xs))


def test_what_has_no_groups_is_left_alone(xs: list[np.ndarray]) -> None:
    many = integers(gated(size=SIZE), xs)  # 24 channels, each with its own scale
    assert split_channels(many) is many
    plain = integers(bottleneck(size=SIZE), xs)
    assert split_channels(plain) is plain


def test_a_network_whose_names_are_those_of_groups_is_left_alone(whole: Graph) -> None:
    named = whole.renamed({"expanded": "expand_group2"})
    assert split_channels(named) is named


def test_16_bits_are_left_alone(xs: list[np.ndarray]) -> None:
    sixteen = integers(gated(size=SIZE, channels=64), xs, "int16x8")
    assert split_channels(sixteen) is sixteen


def test_a_layer_that_stays_in_float_keeps_its_channels_together(xs: list[np.ndarray]) -> None:
    graph = gated(size=SIZE, channels=64)
    even, own = equalize_swishes(graph, xs, 1)
    ranges = {**choose_ranges(observe(even, xs, 1), "auto"), **own}
    mixed = quantize(even, "int8", Calibration(ranges, "auto", "", len(xs), ""), exceptions={"expand": "float32"})
    np.testing.assert_array_equal(outputs(split_channels(mixed), xs), outputs(mixed, xs))
