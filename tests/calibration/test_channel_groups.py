"""channel_groups.py: another order of channels is the same network, and few scales do nearly as well as many."""

import numpy as np
import pytest

from edgenet.calibration.channel_groups import UNIT, assigned, balanced, groups_for, reordered
from edgenet.calibration.equalize_swish import equalize_swishes
from edgenet.export.graph import Graph
from helpers.graph_builder import Builder
from helpers.layers import bottleneck, gated, outputs, pictures, silu


@pytest.mark.parametrize("name", ["expand", "filtered", "gate", "reduce", "project"])
def test_another_order_of_channels_is_the_same_function(name: str) -> None:
    graph, xs = gated(), pictures(3, 16)
    order = np.random.default_rng(0).permutation(graph.tensors[name].shape[-1])
    found = reordered(graph, name, order)
    assert found is not None
    changed, _ = found
    assert changed.activations() == graph.activations()
    np.testing.assert_allclose(outputs(changed, xs), outputs(graph, xs), rtol=1e-4, atol=1e-5)
    before, after = (outputs(g.with_outputs([name]), xs) for g in (graph, changed))
    np.testing.assert_allclose(after, before[..., order], rtol=1e-4, atol=1e-5)


def test_channels_that_are_added_to_others_take_them_along() -> None:
    graph, xs = bottleneck(), pictures(3)
    found = reordered(graph, "project1", np.arange(6)[::-1])
    assert found is not None
    changed, along = found
    assert along == {"project0", "project1", "project2", "add1", "add2", "pool"}
    np.testing.assert_allclose(outputs(changed, xs), outputs(graph, xs), rtol=1e-4, atol=1e-5)
    before, after = (outputs(g.with_outputs(["project0"]), xs) for g in (graph, changed))
    np.testing.assert_allclose(after, before[..., ::-1], rtol=1e-4, atol=1e-5)


def mixed_otherwise() -> Graph:
    """A layer whose channels become positions."""
    b, rng = Builder(1, 8, 8, 3), np.random.default_rng(0)
    x = b.conv("image", "first", rng.normal(0, 1, (4, 1, 1, 3)), np.zeros(4))
    b.tensors["shape"] = b.tensors[x].__class__("shape", (2,), "int32", np.array([1, 256], np.int32))
    x = b.op("RESHAPE", [x, "shape"], (1, 256), "ReshapeOptions", out="flat")
    return b.graph(b.dense(x, "logits", rng.normal(0, 1, (5, 256)), np.zeros(5)))


def test_what_mixes_channels_otherwise_and_what_is_given_back_stays() -> None:
    assert reordered(mixed_otherwise(), "first", np.arange(4)[::-1]) is None
    assert reordered(gated(), "logits", np.arange(5)[::-1]) is None


def test_groups_are_multiples_of_a_unit_and_channels_go_where_they_cost_least() -> None:
    rng = np.random.default_rng(0)
    for channels in (64, 96, 104, 240):
        costs = rng.uniform(0, 1, (channels, 3))
        groups = balanced(costs)
        sizes = np.bincount(groups, minlength=3)
        assert sizes.sum() == channels
        assert sum(n % UNIT != 0 for n in sizes) <= (channels % UNIT != 0)
        moved = groups != costs.argmin(1)
        assert moved.mean() < 0.3


def test_channels_that_are_planted_alike_come_together() -> None:
    rng = np.random.default_rng(0)
    kind = rng.permutation(np.arange(96) // 32)
    best = np.array([[3, 9], [9, 3], [6, 6]])[kind]
    noise = [np.square(np.arange(12.0) - best[:, s : s + 1]) for s in range(2)]
    groups, picked = assigned(noise, 3)
    assert [tuple(p) for p in picked] == [(3, 9), (6, 6), (9, 3)]
    assert (np.array([0, 2, 1])[kind] == groups).all()


def test_small_activations_have_no_groups() -> None:
    assert groups_for((1, 112, 112, 32)) == 1
    assert groups_for((1, 7, 7, 1152)) == 1
    assert groups_for((1, 112, 112, 96)) == 6
    assert groups_for((1, 28, 28, 960)) == 8


def test_neighbours_have_one_scale_where_there_are_many_channels() -> None:
    graph, xs = gated(size=32, channels=64), pictures(8, 32)
    even, _ = equalize_swishes(graph, xs, 1)
    np.testing.assert_allclose(outputs(even, xs), outputs(graph, xs), rtol=1e-3, atol=1e-4)
    for name in ("expand_scales", "depthwise_scales"):
        scales = even.constant(name)
        assert scales is not None
        assert 1 <= np.count_nonzero(np.diff(scales)) < 4


def test_a_small_activation_behind_a_large_one_keeps_a_scale_for_each_channel() -> None:
    graph, xs = gated(size=32, channels=64, stride=2), pictures(8, 32)
    even, _ = equalize_swishes(graph, xs, 1)
    np.testing.assert_allclose(outputs(even, xs), outputs(graph, xs), rtol=1e-3, atol=1e-4)
    few, many = even.constant("expand_scales"), even.constant("depthwise_scales")
    assert few is not None
    assert many is not None
    assert np.count_nonzero(np.diff(few)) < 4
    assert len(np.unique(many)) > 8


def in_a_row(size: int = 32, channels: int = 64) -> Graph:
    """A convolution and three depthwise layers, a SiLU behind each, whose channels are unlike."""
    rng, b = np.random.default_rng(0), Builder(1, size, size, 3)
    spread = np.geomspace(0.05, 20, channels)
    x = b.conv(
        "image", "first", rng.normal(0, 0.3, (channels, 3, 3, 3)) * spread[:, None, None, None], np.zeros(channels)
    )
    x = silu(b, x, "first_y")
    for i in range(3):
        # each makes the channels as unlike as the first did, in an order of its own
        w = rng.normal(0, 0.4, (1, 3, 3, channels)) / spread * (spread := rng.permutation(spread))
        x = silu(b, b.depthwise(x, f"depthwise{i}", w, np.zeros(channels)), f"y{i}")
    x = b.mean(b.conv(x, "project", rng.normal(0, 0.2, (8, 1, 1, channels)) / spread, np.zeros(8)), "pool")
    return b.graph(b.dense(x, "logits", rng.normal(0, 1, (5, 8)), np.zeros(5)))


def test_channels_that_moved_once_stay_and_every_scale_moves_with_its_channel() -> None:
    graph, xs = in_a_row(), pictures(8, 32)
    even, ranges = equalize_swishes(graph, xs, 1)
    np.testing.assert_allclose(outputs(even, xs), outputs(graph, xs), rtol=1e-3, atol=1e-3)
    assert np.count_nonzero(np.diff(even.constant("first_scales"))) < 4
    for name in ("first", "depthwise0", "depthwise1", "depthwise2"):
        x = outputs(even.with_outputs([name]), xs)
        high = x.reshape(-1, x.shape[-1]).max(0)
        assert high.max() < 2.5 * ranges[name][1]  # a scale of another channel would be off by a hundred
