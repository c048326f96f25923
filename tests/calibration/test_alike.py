"""Pictures that count alike: their histograms, their weights, and the range that all of them vote for."""

import numpy as np
import pytest

from edgenet.calibration.alike import (
    Pictures,
    best_range,
    errors,
    histogram,
    picture_weights,
    weighted_mean,
    weights_of,
)

PICTURES = np.random.default_rng(1).standard_normal((20, 3000)).astype(np.float32)


def test_a_pictures_histogram_tells_its_error_with_any_range() -> None:
    x = PICTURES[:1]
    for low, high in ((-5.0, 5.0), (-1.0, 2.0)):
        step = (high - low) / 255
        stored = np.clip(np.rint((x - low) / step) * step + low, low, high)
        found = errors(Pictures.of(x), np.array([low]), np.array([high]))[0, 0, 0]
        assert found == pytest.approx(np.square(stored - x).mean(), rel=0.05)


def test_a_histogram_holds_every_value_and_counts_the_zeros() -> None:
    counts, width, zeros = histogram(np.array([0, 0, -3, 1.5], np.float32))
    assert counts.sum() == 4
    assert zeros == 2
    assert width * len(counts) / 2 >= 3


def test_pictures_alike_keep_their_range_and_their_weights() -> None:
    seen = Pictures.of(PICTURES)
    low, high, _ = best_range(seen, float(PICTURES.min()), float(PICTURES.max()))
    assert high - low > 0.75 * np.ptp(PICTURES)
    assert picture_weights(PICTURES).min() > 0.4  # the largest number of some is cut off a little


def test_a_picture_that_is_cut_off_hardly_counts() -> None:
    weights = picture_weights([*PICTURES, 100 * PICTURES[0]])
    assert weights[-1] < 0.01
    assert weights[:-1].min() > 0.5


def test_what_is_not_wrong_anywhere_counts_alike() -> None:
    assert weights_of(np.zeros(3)).tolist() == [1, 1, 1]


def test_an_activation_of_zeros_keeps_its_range() -> None:
    assert best_range(Pictures.of(np.zeros((2, 10), np.float32)), 0.0, 0.0) == (0.0, 0.0, 0.0)


def test_a_weighted_mean_with_equal_weights_is_the_mean() -> None:
    assert weighted_mean(PICTURES, np.ones(20)) == pytest.approx(PICTURES.mean(0), abs=1e-6)
