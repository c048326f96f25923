"""Learning once more from all pictures: how much of it fits into the time, when it is not kept, what it learns from."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgenet.calibration.training.activations import Activations, joined
from edgenet.calibration.training.again import Chosen, part_that_fits, reason_against
from edgenet.calibration.training.loop import Place, Task, Training
from edgenet.calibration.training.stages import measured
from edgenet.calibration.training.strategy import open_strategy
from edgenet.frameworks import keras, tensorflow
from helpers.trainings import needs_training, settings

CHOSEN = (Chosen("top", 10, 6.0), Chosen("all", 4, 30.0))  # three minutes


@pytest.mark.parametrize(
    ("left_s", "part"),
    [(1000.0, 1.0), (216.0, 1.0), (162.0, 0.75), (108.0, 0.5), (107.0, 0.0), (0.0, 0.0), (-5.0, 0.0)],
)
def test_as_many_of_the_epochs_are_done_again_as_fit_and_none_where_less_than_half_do(
    left_s: float, part: float
) -> None:
    assert part_that_fits(CHOSEN, 1.2, left_s) == pytest.approx(part)


def test_a_head_alone_needs_no_epoch_but_some_time() -> None:
    assert (part_that_fits((), 1.2, 1.0), part_that_fits((), 1.2, -1.0)) == (1.0, 0.0)


def test_a_part_of_the_epochs_is_a_whole_number_and_one_at_least() -> None:
    assert [CHOSEN[0].epochs_again(part) for part in (1.0, 0.74, 0.5)] == [10, 7, 5]
    assert Chosen("top", 1, 6.0).epochs_again(0.5) == 1


@pytest.mark.parametrize(
    ("loss", "why"), [(0.3, ""), (0.5, "loss"), (0.6, "loss"), (math.nan, "diverged"), (math.inf, "diverged")]
)
def test_what_learned_the_held_back_pictures_and_is_no_better_on_them_is_broken(loss: float, why: str) -> None:
    assert reason_against(loss, 0.5) == why


def test_the_loss_is_that_of_a_given_sharpness_where_one_is_given() -> None:
    labels = np.arange(4)
    own = measured(2 * np.eye(4), labels)
    assert measured(2 * np.eye(4), labels, own.sharpness).loss == pytest.approx(own.loss)
    assert measured(2 * np.eye(4), labels, 1.0).loss == pytest.approx(np.log(1 + 3 * np.exp(-2)))


def some_activations(first: int, n: int, views: int = 2) -> Activations:
    """Views of pictures whose numbers are told by their activations: (picture, view)."""
    of = [np.array([[i, v] for i in range(first, first + n)], np.float32) for v in range(views)]
    return Activations(tuple(a.astype(np.float16) for a in of), tuple(of), np.arange(first, first + n) % 3, 100)


@needs_training
def test_views_of_two_sets_of_pictures_are_read_as_those_of_one() -> None:
    both, whole = joined(some_activations(0, 5), some_activations(5, 3)), some_activations(0, 8)
    assert (len(both), both.size_bytes) == (8, 200)
    for a, b in zip(both.features, whole.features, strict=True):
        np.testing.assert_array_equal(a, b)
    for epoch in (0, 1):
        read = [list(a.batches(4, 0, epoch, 3).as_numpy_iterator()) for a in (both, whole)]
        for (x, target), (other_x, other_target) in zip(*read, strict=True):
            np.testing.assert_array_equal(x, other_x)
            np.testing.assert_array_equal(target, other_target)


def test_views_of_which_one_set_lacks_the_cut_have_features_alone() -> None:
    second = some_activations(5, 3)
    both = joined(some_activations(0, 5), Activations((), second.features, second.labels, 50))
    assert both.cut == ()
    assert len(both.features[0]) == 8


def a_training(folder: Path, epochs: int, note: Any = lambda _: None) -> Training:
    """A training of one weight that is measured on nothing: it is to become 1."""
    tf, strategy = tensorflow(), open_strategy("cpu")
    with strategy.scope():
        model = keras().Sequential([keras().layers.Dense(1, use_bias=False, input_shape=(1,))])
    model.set_weights([np.zeros((1, 1), np.float32)])
    data = tf.data.Dataset.from_tensors((np.ones((8, 1), np.float32), np.ones((8, 1), np.float32))).repeat(4)
    task = Task(model, lambda z, _, target: tf.reduce_sum(tf.square(z - target), -1), lambda _: data, 4, None)
    s = settings(epochs=epochs, patience=1, learning_rate=0.01, ema=0.5)
    return Training(task, s, Place(folder, {}, strategy, note=note))


@needs_training
def test_where_nothing_is_held_back_the_last_average_is_kept_and_patience_ends_nothing(tmp_path: Path) -> None:
    said: list[str] = []
    run = a_training(tmp_path / "whole", 5, said.append)
    outcome = run.run()
    assert (outcome.best_epoch, len(outcome.curve), outcome.stopped_early) == (5, 6, False)
    assert all("held_back_loss" not in row for row in outcome.curve)
    kept = float(run.model.get_weights()[0][0, 0])
    assert kept == pytest.approx(float(run.average[0].numpy()[0, 0]))
    assert 0 < kept < 1
    assert said[0] == "epoch 0/5"

    def stop(line: str) -> None:
        if line.startswith("epoch 3/"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        a_training(tmp_path / "cut", 5, stop).run()
    cut = a_training(tmp_path / "cut", 5)
    assert [row["epoch"] for row in cut.run().curve] == [0, 1, 2, 3, 4, 5]
    assert float(cut.model.get_weights()[0][0, 0]) == kept
