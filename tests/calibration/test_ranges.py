"""ranges.py: each method on numbers whose answer is known."""

import math

import numpy as np
import pytest

from edgenet.calibration.ranges import (
    BINS,
    FLAT_BELOW,
    METHODS,
    Observation,
    channel_ends,
    choose_ranges,
    measure_ranges,
    observe,
    squared_error,
    without_flat_tails,
)
from edgenet.calibration.shared import spread
from edgenet.errors import InputError
from helpers.graph_builder import Builder
from helpers.layers import bottleneck, pictures


def seen(*arrays: object) -> Observation:
    first = np.asarray(arrays[0], np.float32)
    o = Observation(np.full(first.shape[-1], np.inf, np.float32), np.full(first.shape[-1], -np.inf, np.float32))
    for a in arrays:
        o.see(np.asarray(a, np.float32))
    return o


def bell(n: int = 16000) -> Observation:
    return seen(np.random.default_rng(0).normal(0, 1, (1, n, 1)))


def with_outlier(value: float) -> Observation:
    """A normal distribution and one number in sixteen million that is far from it."""
    o = seen(np.append(np.random.default_rng(0).normal(0, 1, 16000), value)[None, :, None])
    o.counts[: o.counts.nonzero()[0][-1]] *= 1000
    o.pictures[0][0][: o.pictures[0][0].nonzero()[0][-1]] *= 1000
    return o


def chosen(o: Observation, method: str) -> tuple[float, float]:
    return choose_ranges({"x": o}, method)["x"]


def test_extremes_are_exact_and_kept_by_channel() -> None:
    o = seen([[[1, -2], [3, 4]]], [[[0, -5], [7, 1]]])
    np.testing.assert_array_equal(o.low, [0, -5])
    np.testing.assert_array_equal(o.high, [7, 4])
    assert chosen(o, "min-max") == (-5, 7)


def test_bins_are_merged_when_a_larger_value_comes_and_nothing_is_lost() -> None:
    small, large = np.linspace(0, 1, 1000)[None, :, None], np.full((1, 1, 1), 100.0)
    grown, at_once = seen(small, large), seen(large, small)
    np.testing.assert_array_equal(grown.counts, at_once.counts)
    assert grown.width == at_once.width == 128 / (BINS / 2)
    assert grown.counts.sum() == 1001


def test_the_moving_average_forgets_a_single_outlier() -> None:
    usual, outlier = np.array([[[-1.0], [1.0]]]), np.array([[[-1.0], [11.0]]])
    low, high = chosen(seen(usual, outlier, usual), "moving-average")
    assert low == pytest.approx(-1)
    assert high == pytest.approx(1 + 0.1 * 10 * 0.9)


def test_the_percentile_cuts_one_number_in_twenty_thousand() -> None:
    # One of a hundred thousand is cut, ten of a hundred thousand are not: a tail holds five.
    few, many = (seen(np.append(np.linspace(-1, 1, 10000 - n), np.full(n, 50.0))[None, :, None]) for n in (1, 10))
    few.counts[: few.counts.nonzero()[0][-1]] *= 10
    np.testing.assert_allclose(chosen(few, "percentile"), [-1, 1], atol=0.05)
    assert chosen(many, "percentile")[1] == pytest.approx(50, abs=0.05)


def test_mse_cuts_an_outlier_that_costs_more_than_it_is_worth() -> None:
    o = with_outlier(40)
    low, high = chosen(o, "mse")
    assert high < 20
    assert low < -2.5
    errors = squared_error(o, np.array([low, o.range[0]]), np.array([high, o.range[1]]))
    assert errors[0] < errors[1]


def test_the_squared_error_is_that_of_storing_the_numbers() -> None:
    x = np.random.default_rng(0).normal(0, 1, 16000).astype(np.float32)
    low, high = -2.0, 2.5
    step = (high - low) / 255
    stored = np.clip(np.rint((x - low) / step), 0, 255) * step + low
    found = squared_error(seen(x[None, :, None]), np.array([low]), np.array([high]))[0]
    assert found == pytest.approx(float(np.mean((stored - x) ** 2)), rel=0.02)


def test_zeros_cost_nothing() -> None:
    x = np.random.default_rng(0).uniform(0, 6, 8000)
    half = seen(np.concatenate([x, np.zeros(8000)])[None, :, None])
    full = seen(x[None, :, None])
    error = squared_error(half, np.array([0.0]), np.array([6.0]))[0]
    assert error == pytest.approx(squared_error(full, np.array([0.0]), np.array([6.0]))[0] / 2)


@pytest.mark.parametrize("method", [*METHODS, "auto"])
def test_a_uniform_distribution_is_not_cut(method: str) -> None:
    low, high = chosen(seen(np.linspace(0, 6, 16000)[None, :, None]), method)
    assert low == 0
    assert high == pytest.approx(6, rel=0.05)


def test_entropy_cuts_a_far_outlier_and_not_the_bell() -> None:
    low, high = chosen(with_outlier(100), "entropy")
    assert 2 < high < 20
    assert low < -2


def test_entropy_is_not_misled_by_the_zeros_below_a_relu() -> None:
    x = np.maximum(np.random.default_rng(0).normal(-1, 2, 16000), 0)
    _, high = chosen(seen(x[None, :, None]), "entropy")
    assert high > 0.6 * x.max()


def test_auto_keeps_the_range_unless_cutting_it_pays() -> None:
    plain, wild = seen(np.linspace(-1, 1, 16000)[None, :, None]), with_outlier(40)
    assert chosen(plain, "auto") == plain.range
    low, high = chosen(wild, "auto")
    best = chosen(wild, "mse")
    error = squared_error(wild, np.array([low, best[0]]), np.array([high / 1.1, best[1]]))
    assert low == wild.range[0]
    assert error[0] < 1.02 * error[1]  # of one picture the least squared error, and a tenth more
    assert high < 20


def test_a_few_pictures_that_reach_far_take_no_levels_from_the_others() -> None:
    rng = np.random.default_rng(0)
    usual = rng.standard_normal((30, 4000, 1)).astype(np.float32)
    mixed = seen(*usual[:, None], *100 * usual[:2, None])
    low, high = chosen(mixed, "auto")
    assert -8 < low < -3
    assert 3 < high < 8
    assert chosen(mixed, "mse")[1] > 100  # summed over all pictures, two decide for all
    half = seen(*usual[:, None], *3 * usual[:, None])
    assert chosen(half, "auto")[1] > 0.6 * half.range[1]  # but half of the pictures are not a few


def test_what_only_a_hard_swish_or_a_gelu_reads_needs_no_level_below_what_they_make_zero() -> None:
    b = Builder(1, 8)
    b.op("HARD_SWISH", ["image"], (1, 8), out="swished")
    b.op("GELU", ["swished"], (1, 8), out="bent")
    b.op("ADD", ["bent", "swished"], (1, 8), out="sum")
    graph = b.graph("sum")
    ranges = {"image": (-50.0, 20.0), "swished": (-0.375, 20.0), "bent": (-9.0, 20.0), "sum": (-9.0, 20.0)}
    assert without_flat_tails(graph, ranges) == {"image": (-3.0, 20.0)}  # the sum reads the second as it is
    assert without_flat_tails(graph, {"image": (-2.0, -1.0)}) == {"image": (-2.0, 0.0)}


def test_what_is_cut_below_a_hard_swish_or_a_gelu_is_less_than_half_a_level() -> None:
    x = np.linspace(-60, -3, 1000)
    gelu = x * np.array([math.erfc(-v / math.sqrt(2)) / 2 for v in x])
    swish = x * np.clip(x + 3, 0, 6) / 6
    assert set(FLAT_BELOW) == {"HARD_SWISH", "GELU"}
    assert not swish.any()
    assert np.abs(gelu - gelu[-1]).max() < (2 + 0.17) / 255 / 2


def test_the_histogram_for_a_figure_counts_everything_within_the_range() -> None:
    counts, edges = bell().histogram(64)
    assert (len(counts), len(edges)) == (64, 65)
    assert counts.sum() == 16000
    assert counts.argmax() in range(26, 38)


def test_every_float_activation_is_observed_and_the_same_twice() -> None:
    graph, xs = bottleneck(), pictures(4)
    first, second = (measure_ranges(graph, xs, 1, method="mse") for _ in range(2))
    assert first == second
    assert set(first) == set(graph.activations())


def test_an_unknown_method_lists_the_valid_ones_before_anything_runs() -> None:
    with pytest.raises(InputError, match=r"unknown calibration method 'best' .*min-max, .*auto"):
        measure_ranges(bottleneck(), iter(()), 1, method="best")


@pytest.mark.parametrize("shape", [(1, 5), (7, 3), (2047, 1), (5000, 96), (300, 3000)])
def test_the_ends_of_channels_are_those_of_all_rows(shape: tuple[int, int]) -> None:
    rows = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    low, high = channel_ends(rows)
    np.testing.assert_array_equal(low, rows.min(0))
    np.testing.assert_array_equal(high, rows.max(0))


def test_a_channel_with_a_number_that_is_none_has_no_ends() -> None:
    rows = np.zeros((4000, 5), np.float32)
    rows[1234, 2] = np.nan
    assert [np.isnan(e).tolist() for e in channel_ends(rows)] == [[False, False, True, False, False]] * 2


def test_no_picture_is_an_error() -> None:
    with pytest.raises(InputError, match="no picture to calibrate with"):
        observe(bottleneck(), [], 1)


def test_an_activation_that_is_not_finite_is_named() -> None:
    b = Builder(1, 2)
    graph = b.graph(b.dense("image", "broken", [[np.nan, 1.0]], [0.0]))
    with pytest.raises(InputError, match="broken is not a finite number"):
        observe(graph, [np.ones((1, 2), np.float32)], 1)


@pytest.mark.parametrize("n", [1, 2, 5, 100, 333])
def test_wherever_one_stops_the_pictures_that_came_are_spread_over_all(n: int) -> None:
    order = spread(n)
    assert sorted(order) == list(range(n))
    for k in range(2, n + 1):
        ends = np.concatenate([[0], np.sort(order[:k]), [n - 1]])
        assert np.diff(ends).max() <= 2.7 * n / k + 1, f"a hole among the first {k}"
