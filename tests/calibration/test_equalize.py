"""equalize.py: by hand, against brute force, and on a network of a few layers."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from edgenet.calibration import quantize
from edgenet.calibration.equalize import cheapest_ranges, equalizable, equalize, movable
from edgenet.calibration.gptq import gptq_weights
from edgenet.calibration.ranges import choose_ranges, observe
from edgenet.calibration.sensitivity import sqnr_db
from edgenet.errors import InputError
from edgenet.export.graph import Graph
from edgenet.results import Calibration
from helpers.graph_builder import NONE, RELU, RELU6, Builder
from helpers.layers import bottleneck, outputs, pictures

ENDS = [np.full((1, 1, 1, 1), v, np.float32) for v in (-1.0, 1.0)]


def weights(graph: Graph, out: str) -> tuple[np.ndarray, np.ndarray | None]:
    op = graph.ops[graph.producers()[out]]
    return graph.constant(op.inputs[1]), graph.constant(op.inputs[2]) if len(op.inputs) > 2 else None


def test_the_function_stays_and_channels_come_to_lie_alike() -> None:
    graph, xs = bottleneck(), pictures(16)
    even = equalize(graph, xs)
    np.testing.assert_allclose(outputs(even, xs), outputs(graph, xs), rtol=1e-4, atol=1e-4)
    before, after = (observe(g, xs, 1) for g in (graph, even))

    def spread(o: object) -> float:
        width = o.high - o.low  # type: ignore[attr-defined]
        return float(width.max() / width.min())

    assert spread(before["add2"]) > 5
    assert spread(after["add2"]) < 2
    middle = after["add2"].high + after["add2"].low
    assert np.abs(middle / (after["add2"].high - after["add2"].low)).max() < 0.2
    np.testing.assert_allclose(after["expand1"].high, before["expand1"].high, rtol=1e-5)  # below a ReLU6: untouched


def test_channels_between_a_convolution_and_a_dense_layer_by_hand() -> None:
    b = Builder(1, 1, 1, 1)
    b.conv("image", "hidden", [[[[1.0]]], [[[4.0]]]], [0.0, 1.0])  # from -1 to 1, and from -3 to 5
    graph = b.graph(b.dense(b.mean("hidden", "pool"), "logits", [[1.0, 1.0]], [0.0]))
    even = equalize(graph, ENDS)
    (w, bias), (head, last) = weights(even, "hidden"), weights(even, "logits")
    np.testing.assert_allclose(w.ravel(), [4, 4])
    np.testing.assert_allclose(bias, [0, 0])  # the second one's middle, 1, is gone
    np.testing.assert_allclose(head, [[0.25, 1]])
    np.testing.assert_allclose(last, [1])  # and added where it is read


def test_an_addition_is_centred_by_the_operand_that_nothing_else_reads() -> None:
    b = Builder(1, 1, 1, 1)
    one = [[[[1.0]]]]
    b.conv("image", "skip", one, [1.0])  # 0 to 2
    b.conv("image", "branch", [[[[-2.0]]]], [5.0])  # 7 to 3
    b.add("skip", "branch", "sum")  # 7 to 5
    b.conv("skip", "other", one, [0.0])
    b.conv("sum", "end", one, [0.0])
    graph = b.graph(b.add("other", "end", "y"))
    even = equalize(graph, ENDS)
    assert equalizable(graph) == [["skip", "branch", "sum"]]
    assert weights(even, "skip")[1] == 0  # its own middle, 1
    assert weights(even, "branch")[1] == 0  # 5 is its middle, and what the sum's, 6, leaves
    assert weights(even, "end")[1] == 6
    np.testing.assert_allclose(outputs(even, ENDS), outputs(graph, ENDS))


def test_a_layer_without_a_bias_gets_one_where_what_it_reads_was_moved() -> None:
    b = Builder(1, 1, 1, 1)
    b.conv("image", "hidden", [[[[1.0]]]], [3.0])
    b.dense(b.mean("hidden", "pool"), "y", [[2.0]], [0.0])
    *others, last = b.ops
    graph = replace(b.graph("y"), ops=(*others, replace(last, inputs=(*last.inputs[:2], None))))
    even = equalize(graph, ENDS)
    assert weights(even, "y")[1] == pytest.approx(6)
    np.testing.assert_allclose(outputs(even, ENDS), outputs(graph, ENDS))


@pytest.mark.parametrize("activation", ["none, read with padding", "relu"])
def test_what_is_padded_or_made_by_a_relu_is_scaled_and_not_moved(activation: str) -> None:
    b = Builder(1, 2, 2, 1)
    rng = np.random.default_rng(0)
    kernel = 3 if activation.startswith("none") else 1
    b.conv("image", "a", [[[[1.0]]], [[[4.0]]]], [2.0, 5.0], RELU if kernel == 1 else NONE)
    graph = b.graph(b.conv("a", "y", rng.normal(size=(1, kernel, kernel, 2)), [0.0]))
    xs = [rng.uniform(-1, 1, (1, 2, 2, 1)).astype(np.float32) for _ in range(4)]
    even = equalize(graph, xs)
    assert not movable(graph, ["a"])
    (w, bias), (old, was) = weights(even, "a"), weights(graph, "a")
    assert w.ravel()[0] / w.ravel()[1] > 1.2 * old.ravel()[0] / old.ravel()[1]
    np.testing.assert_allclose(bias / w.ravel(), was / old.ravel(), rtol=1e-6)
    np.testing.assert_allclose(outputs(even, xs), outputs(graph, xs), rtol=1e-5, atol=1e-5)


def test_an_output_and_what_a_relu6_makes_stay_as_they_are() -> None:
    b = Builder(1, 2, 2, 1)
    graph = b.graph(
        b.conv(b.conv("image", "a", np.ones((2, 1, 1, 1)), [0, 3], RELU6), "b", np.eye(2)[:, None, None], [0, 0])
    )
    assert equalize(graph, [np.full((1, 2, 2, 1), 0.5, np.float32)]) == graph


def test_an_equalised_network_loses_less_in_int8() -> None:
    graph, xs, unseen = bottleneck(), pictures(32), pictures(32, seed=2)
    expected = outputs(graph, unseen)
    found = []
    for g in (graph, equalize(graph, xs)):
        c = Calibration(choose_ranges(observe(g, xs, 1)), "min-max", "", len(xs), "")
        w = gptq_weights(g, xs, c, threads=1)
        found.append(sqnr_db(expected, outputs(quantize(g, "int8", c, weights=w), unseen)))
    assert found[1] > found[0]


def test_the_range_of_a_channel_is_the_cheapest_of_all_cuts() -> None:
    rng = np.random.default_rng(0)
    rows = np.stack([rng.uniform(3, 5, 200_000), rng.laplace(0, 2, 200_000)], axis=1)
    low, high = rows.min(0), rows.max(0)
    found = np.stack(cheapest_ranges(rows, low, high))

    def below(a: np.ndarray) -> np.ndarray:
        return np.square(np.minimum(rows - a, 0)).mean(0)

    def above(b: np.ndarray) -> np.ndarray:
        return np.square(np.maximum(rows - b, 0)).mean(0)

    def rounding(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return ((b - a) / 255) ** 2 / 12

    cuts = [i * (high - low) for i in np.linspace(0, 0.5, 26)]
    lower, upper = [(low + c, below(low + c)) for c in cuts], [(high - c, above(high - c)) for c in cuts]
    every = [ca + cb + rounding(a, b) for (a, ca), (b, cb) in product(lower, upper)]
    a, b = found
    assert (below(a) + above(b) + rounding(a, b) < 1.02 * np.min(every, axis=0)).all()
    np.testing.assert_allclose(found[:, 0], [low[0], high[0]])  # nothing of it is far from the rest
    assert 15 < found[1, 1] < 0.9 * high[1]


def test_a_channel_that_never_changes_has_no_range() -> None:
    low, high = cheapest_ranges(np.full((5, 1), 2.0), np.array([2.0]), np.array([2.0]))
    assert (low, high) == (2, 2)


def test_no_picture_and_an_activation_that_is_no_number_are_told() -> None:
    b = Builder(1, 1, 1, 1)
    b.conv("image", "hidden", [[[[np.nan]]]], [3.0])
    graph = b.graph(b.conv("hidden", "y", [[[[2.0]]]], [0.0]))
    with pytest.raises(InputError, match="no picture to calibrate with"):
        equalize(graph, [])
    with pytest.raises(InputError, match="hidden is not a finite number"):
        equalize(graph, ENDS)
