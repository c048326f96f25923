"""ROC AUC, average precision and F1 against their definitions; intervals that hold what they say."""

from itertools import product

import numpy as np
import pytest

from edgenet.tasks.statistics import Ranked, f1, interval_of, interval_of_difference, nearest, resampled, unit


def drawn(n: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores with many ties, and which pictures are of yes."""
    rng = np.random.default_rng(seed)
    truth = rng.random(n) < 0.4
    return np.round(rng.normal(truth * 0.8, 1), 1), truth


@pytest.mark.parametrize("seed", range(5))
def test_roc_auc_is_the_share_of_pairs_in_the_right_order_ties_half(seed: int) -> None:
    scores, truth = drawn(seed=seed)
    pairs = [(yes > no) + 0.5 * (yes == no) for yes, no in product(scores[truth], scores[~truth])]
    assert Ranked.of(scores, truth).figures(np.ones(len(truth)))[0] == pytest.approx(np.mean(pairs))


@pytest.mark.parametrize("seed", range(5))
def test_average_precision_is_the_step_sum_over_thresholds(seed: int) -> None:
    scores, truth = drawn(seed=seed)
    total, recall = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        said = scores >= threshold
        now = (truth & said).sum() / truth.sum()
        total += (now - recall) * (truth & said).sum() / said.sum()
        recall = now
    assert Ranked.of(scores, truth).figures(np.ones(len(truth)))[1] == pytest.approx(total)


def test_a_weight_of_two_is_the_picture_twice() -> None:
    scores, truth = drawn()
    twice = np.ones(len(truth))
    twice[::3] = 2
    again = np.repeat(np.arange(len(truth)), twice.astype(int))
    ones = np.ones(len(again))
    assert Ranked.of(scores, truth).figures(twice) == pytest.approx(
        Ranked.of(scores[again], truth[again]).figures(ones)
    )
    said = (scores > 0)[:, None]
    assert f1(said, truth[:, None], twice) == pytest.approx(f1(said[again], truth[again][:, None], ones))


def test_scikit_learn_finds_the_same() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    scores, truth = drawn(200, 7)
    ours = Ranked.of(scores, truth).figures(np.ones(200))
    theirs = metrics.roc_auc_score(truth, scores), metrics.average_precision_score(truth, scores)
    assert ours == pytest.approx(theirs)
    assert f1((scores > 0)[:, None], truth[:, None], np.ones(200))[0] == pytest.approx(
        metrics.f1_score(truth, scores > 0)
    )


def test_figures_of_one_kind_of_picture_alone_are_none() -> None:
    scores = np.arange(4.0)
    assert np.isnan(Ranked.of(scores, np.zeros(4, bool)).figures(np.ones(4))).all()
    area, precision = Ranked.of(scores, np.ones(4, bool)).figures(np.ones(4))
    assert np.isnan(area)
    assert precision == 1
    assert np.isnan(f1(np.ones((4, 1), bool), np.zeros((4, 1), bool), np.ones(4)))[0]


def test_the_interval_of_an_auc_holds_the_true_one_about_95_times_in_100() -> None:
    from scipy import stats

    true, held = stats.norm.cdf(1 / 2**0.5), 0
    rng = np.random.default_rng(1)
    for _ in range(200):
        truth = np.arange(120) % 2 == 0
        ranked = Ranked.of(rng.normal(truth * 1.0, 1), truth)
        samples = resampled(lambda w, ranked=ranked: np.array(ranked.figures(w)[:1]), 120, resamples=150)[:, 0]
        low, high = interval_of(samples, 60)
        held += low <= true <= high
    assert 180 <= held <= 200


def test_a_perfect_figure_of_few_pictures_is_not_sure() -> None:
    low, high = interval_of(np.ones(50), 8)
    assert high == 1
    assert low == pytest.approx(0.6756, abs=1e-3)  # Wilson's for 8 of 8
    low, high = interval_of_difference(np.zeros(50), 98)
    assert (low, high) == pytest.approx((-0.0196, 0.0196), abs=1e-4)


def test_two_files_are_resampled_alike() -> None:
    scores, truth = drawn()
    a, b = (
        resampled(lambda w, s=s: np.array(Ranked.of(s, truth).figures(w)), len(truth), 20) for s in (scores, scores + 5)
    )
    np.testing.assert_array_equal(a, b)


def test_the_nearest_is_the_one_at_the_least_angle_and_never_itself() -> None:
    rng = np.random.default_rng(0)
    vectors = unit(rng.normal(size=(1500, 6)) * rng.uniform(1, 9, (1500, 1)))  # more than one chunk
    found, cosine = nearest(vectors, vectors, others=True)
    alike = vectors.astype(np.float64) @ vectors.T
    np.fill_diagonal(alike, -2)
    np.testing.assert_array_equal(found, alike.argmax(axis=1))
    np.testing.assert_allclose(cosine, alike.max(axis=1), atol=1e-6)
    assert (nearest(vectors, vectors, others=False)[0] == np.arange(1500)).all()
    assert (unit(np.zeros((1, 3))) == 0).all()
