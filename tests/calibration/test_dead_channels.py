"""dead_channels.py: dead first channels that carry copies, by hand and on a small network."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from edgenet.calibration.dead_channels import _share_out, use_dead_channels
from edgenet.calibration.quantize import constant_weights
from edgenet.export.graph import Activation, Graph
from helpers.graph_builder import NONE, RELU6, Builder
from helpers.layers import outputs

STEP = 6 / 255
BLACK, WHITE = np.array([-1.0]), np.array([1.0])


def network(dead_bias: float = -1.0, activation: Activation = RELU6, **changes: Any) -> Graph:
    """Three first channels: 3 + 3 x, 3 - 3 x and a dead one; the first is read as ten times the differences of
    neighbours, the second as it is."""
    b = Builder(1, 8, 8, 1)
    b.conv("image", "first", [[[[3.0]]], [[[-3.0]]], [[[0.5]]]], [3.0, 3.0, dead_bias], activation)
    filters = np.zeros((1, 1, 3, 3))
    filters[0, 0, :2, 0], filters[0, 0, 1, 1] = (-10, 10), 1
    b.depthwise("first", "middle", filters, [1.0, 0.0, 0.5], changes.get("then", NONE))
    return b.graph(b.conv("middle", "y", [[[[1.0, 1.0, 2.0]]]], [0.25]))


def greys(n: int = 8, slope: float = 0.01) -> list[np.ndarray]:
    """(1, 8, 8, 1) in [-0.9, 0.9], of noise around greys of their own, and white."""
    rng = np.random.default_rng(0)
    centres = np.linspace(-0.8, 0.8, n)
    return [(c + rng.uniform(-slope, slope, (1, 8, 8, 1))).astype(np.float32) for c in centres] + [
        np.ones((1, 8, 8, 1), np.float32)  # 3 + 3 x reaches 6
    ]


def weights_of(graph: Graph, out: str) -> tuple[np.ndarray, np.ndarray]:
    op = next(op for op in graph.ops if op.outputs[0] == out)
    w, bias = constant_weights(graph, op), graph.constant(op.inputs[2])
    assert w is not None
    assert bias is not None
    return w, bias


def test_the_channel_that_suffers_most_is_copied_half_a_step_apart_by_hand() -> None:
    made = use_dead_channels(network(), BLACK, WHITE, greys())
    w, bias = weights_of(made, "first")
    np.testing.assert_allclose(w.ravel(), [3, -3, 3])
    np.testing.assert_allclose(bias, [3 - STEP / 4, 3, 3 + STEP / 4], rtol=1e-6)
    w, bias = weights_of(made, "middle")
    np.testing.assert_allclose(w[0, 0].T, [[-10, 10, 0], [0, 1, 0], [-10, 10, 0]])
    np.testing.assert_allclose(bias, [1, 0, 1])  # the taps' sum is zero: nothing to take back
    w, bias = weights_of(made, "y")
    np.testing.assert_allclose(w.ravel(), [0.5, 1, 0.5])
    np.testing.assert_allclose(bias, [0.25 + 2 * 0.5])  # the dead channel's own 0.5 is read twice as strongly


def test_the_offset_of_a_copy_is_taken_back_behind_the_depthwise_kernel() -> None:
    graph = network()
    filters = graph.tensors["middle_w"].data
    assert filters is not None
    filters[0, 0, 1, 0] = 14.0  # the taps' sum is 4
    _, bias = weights_of(use_dead_channels(graph, BLACK, WHITE, greys()), "middle")
    np.testing.assert_allclose(bias, [1 + 4 * STEP / 4, 0, 1 - 4 * STEP / 4], rtol=1e-6)


@pytest.mark.parametrize(("then", "constant"), [(NONE, -0.5), (RELU6, 0.0)])
def test_what_a_dead_channel_added_everywhere_goes_into_the_bias(then: int, constant: float) -> None:
    graph = network(then=then)
    graph.tensors["middle_b"].data[2] = -0.5  # type: ignore[index]
    _, bias = weights_of(use_dead_channels(graph, BLACK, WHITE, greys()), "y")
    np.testing.assert_allclose(bias, [0.25 + 2 * constant])


def test_the_function_stays_and_rounding_the_first_activation_makes_a_quarter_of_the_noise() -> None:
    graph, xs = network(), greys(64, slope=0.1)[:-1]
    made = use_dead_channels(graph, BLACK, WHITE, greys())
    expected = outputs(graph, xs)
    inside = (slice(None), slice(None), slice(2, -2))  # where the kernel does not reach the zeros around
    np.testing.assert_allclose(outputs(made, xs)[inside], expected[inside], atol=1e-4)

    def noise(g: Graph) -> float:
        first = outputs(g.with_outputs(["first"]), xs)
        rest = dataclasses.replace(g, ops=g.ops[1:], inputs=("first",))
        rounded = outputs(rest, list((np.rint(first / np.float32(STEP)) * np.float32(STEP))[:, None]))
        return float(np.square((rounded - expected)[inside]).mean())

    assert noise(made) / noise(graph) == pytest.approx(1 / 4, abs=0.03)


def test_a_dead_channel_goes_where_it_gains_most() -> None:
    noise = np.array([9.0, 4.0, 1.0, 0.0, 0.0, 0.0])
    # 9 -> 9 / 4 gains 6.75; 4 -> 1 gains 3; then 9 / 4 -> 1 gains 1.25 where 1 -> 1 / 4 gains 0.75.
    assert _share_out(noise, np.array([3, 4, 5])) == {0: [3, 5], 1: [4]}


def test_channels_that_do_not_suffer_get_no_copy() -> None:
    assert _share_out(np.zeros(3), np.array([2])) == {}


def test_a_network_of_which_nothing_fires_is_left_as_it_is() -> None:
    graph = network()
    for name, value in (("first_w", 0.0), ("first_b", -1.0)):
        data = graph.tensors[name].data
        assert data is not None
        data[:] = value
    made = use_dead_channels(graph, BLACK, WHITE, greys())
    for out in ("first", "middle", "y"):
        for a, b in zip(weights_of(made, out), weights_of(graph, out), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "graph",
    [
        pytest.param(network(dead_bias=-0.49), id="a picture could wake the channel"),
        pytest.param(network(activation=NONE), id="nothing keeps it at zero"),
        pytest.param(network(then=Activation.TANH), id="a tanh in between"),
        pytest.param(network().with_outputs(["middle", "y"]), id="an output in between"),
    ],
)
def test_a_network_without_a_spare_channel_is_left_alone(graph: Graph) -> None:
    assert use_dead_channels(graph, BLACK, WHITE, greys()) is graph


def test_a_network_that_begins_otherwise_is_left_alone() -> None:
    b = Builder(1, 8, 8, 1)
    b.conv("image", "first", [[[[3.0]]], [[[0.5]]]], [3.0, -1.0], RELU6)
    graph = b.graph(b.conv("first", "y", [[[[1.0, 1.0]]]], [0.0]))
    assert use_dead_channels(graph, BLACK, WHITE, greys()) is graph


def test_a_kernel_that_reads_neighbours_behind_the_depthwise_one_is_left_alone() -> None:
    """Around the picture it would read zeros, and not what a dead channel adds elsewhere."""
    b = Builder(1, 8, 8, 1)
    b.conv("image", "first", [[[[3.0]]], [[[0.5]]]], [3.0, -1.0], RELU6)
    b.depthwise("first", "middle", np.ones((1, 3, 3, 2)), [0.0, 0.5])
    graph = b.graph(b.conv("middle", "y", np.ones((1, 3, 3, 2)), [0.0]))
    assert use_dead_channels(graph, BLACK, WHITE, greys()) is graph


def test_the_bound_of_a_channel_counts_the_zeros_around_the_picture() -> None:
    # On [1, 2] the sum is -2 x + 1 < 0, but the kernel also reads zeros, where it is 1.
    b = Builder(1, 8, 8, 1)
    w = np.zeros((2, 3, 3, 1))
    w[:, 1, 1, 0] = (3, -2)
    b.conv("image", "first", w, [0.0, 1.0], RELU6)
    b.depthwise("first", "middle", np.ones((1, 3, 3, 2)), [0.0, 0.0])
    graph = b.graph(b.conv("middle", "y", [[[[1.0, 1.0]]]], [0.0]))
    assert use_dead_channels(graph, np.array([1.0]), np.array([2.0]), greys()) is graph
