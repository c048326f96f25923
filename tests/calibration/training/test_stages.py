"""Which layers learn in a stage of fine-tuning, how fast, and whether a stage was worth it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgenet.calibration.training.augment import Pictures, batches, load_pictures
from edgenet.calibration.training.loop import Outcome, Place, Task, Training, joined
from edgenet.calibration.training.stages import (
    Gain,
    HeldBack,
    Measured,
    depths,
    gain,
    let_learn,
    rate_factors,
)
from edgenet.calibration.training.strategy import open_strategy
from edgenet.frameworks import keras, tensorflow
from edgenet.models.efficientnet import build
from edgenet.models.zoo import ModelSpec
from edgenet.results import ImageSet
from helpers import tiny
from helpers.trainings import needs_training, settings

pytestmark = needs_training


@pytest.fixture
def strategy() -> Any:
    return open_strategy("cpu")


@pytest.fixture
def model(tiny_zoo: ModelSpec, strategy: Any) -> Any:
    """efficientnet-tiny, a block a stage, up to its logits."""
    keras().utils.set_random_seed(0)
    with strategy.scope():
        whole = build(replace(tiny_zoo, depth=0.1), tiny.CLASSES, tiny.PREPROCESSING.resolution_px)
        return keras().Model(whole.input, whole.get_layer("classifier").output)


def is_norm(layer: Any) -> bool:
    return isinstance(layer, keras().layers.BatchNormalization)


def test_the_classifier_stands_at_depth_0_the_stem_at_1_and_a_block_at_one_depth(model: Any) -> None:
    found = depths(model)
    assert (found["classifier"], found["stem_conv"], found["stem_bn"]) == (0, 1, 1)
    assert found["block3_expand_conv"] == found["block3_project_bn"]
    in_order = [found[f"block{i}_project_conv"] for i in range(7)]
    assert in_order == sorted(in_order, reverse=True)
    assert len(set(in_order)) == 7


def test_the_top_is_the_third_next_to_the_head_and_batch_norm_stays_as_it_is(model: Any) -> None:
    let_learn(model, "top")
    learns = {layer.name.split("_")[0] for layer in model.layers if layer.weights and layer.trainable}
    assert learns == {"classifier", "head", "block6", "block5"}
    assert not any(layer.trainable for layer in model.layers if is_norm(layer))


def test_all_layers_learn_after_the_top_but_for_batch_norm(model: Any) -> None:
    let_learn(model, "top")
    let_learn(model, "all")
    assert all(layer.trainable != is_norm(layer) for layer in model.layers if layer.weights)


def test_the_rate_falls_geometrically_from_the_head_to_the_first_layer(model: Any) -> None:
    let_learn(model, "all")
    factors = dict(zip((v.name for v in model.trainable_variables), rate_factors(model, 0.01), strict=True))
    assert factors["classifier/kernel:0"] == 1
    assert factors["stem_conv/kernel:0"] == pytest.approx(0.01)
    steps = [factors[f"block{i}_project_conv/kernel:0"] for i in range(7)]
    np.testing.assert_allclose(np.divide(steps[1:], steps[:-1]), steps[1] / steps[0])


def one_step(model: Any, pictures: Pictures, place: Place, factors: tuple[float, ...]) -> list[np.ndarray]:
    """Return by how much each trainable variable moved in the first step, from the same start each time."""
    tf = tensorflow()

    def loss(z: Any, _: Any, target: Any) -> Any:
        return -tf.reduce_sum(target * tf.nn.log_softmax(z), -1)

    s = settings(learning_rate=0.001, warmup=0.0)
    data = batches(pictures, s.batch, s.seed, 0, (), tiny.CLASSES)
    task = Task(model, loss, lambda _: data, 1, lambda: {"loss": 0.0}, factors=factors)
    run = Training(task, s, place)
    before = [v.numpy() for v in run.trained]
    run._step(*next(iter(data)))
    moved = [v.numpy() - b for v, b in zip(run.trained, before, strict=True)]
    for v, b in zip(run.trained, before, strict=True):
        v.assign(b)
    return moved


def test_a_step_of_a_layer_is_shortened_by_its_factor(
    model: Any, strategy: Any, tiny_images: tuple[ImageSet, ImageSet], tmp_path: Path
) -> None:
    pictures, place = load_pictures((tiny_images[1],), tiny.PREPROCESSING, tmp_path), Place(tmp_path, {}, strategy)
    for layer in model.layers:  # dropout alone would be drawn anew
        if isinstance(layer, keras().layers.Dropout):
            layer.rate = 0.0
    let_learn(model, "all")
    factors = rate_factors(model, 0.1)
    whole = one_step(model, pictures, place, ())
    slower = one_step(model, pictures, place, factors)
    assert max(np.abs(a).max() for a in whole) > 5e-4
    for a, b, factor in zip(whole, slower, factors, strict=True):
        np.testing.assert_allclose(b, factor * a, atol=2e-7)


@pytest.mark.parametrize(("rising_epochs", "epochs"), [(0, 2), (1, 5)])
def test_epochs_in_which_the_rate_still_rises_cost_no_patience(
    model: Any, strategy: Any, tiny_images: tuple[ImageSet, ImageSet], tmp_path: Path, rising_epochs: int, epochs: int
) -> None:
    """Pictures unlike those of ImageNet first lose by training: here they are better from epoch 3 on."""
    pictures = load_pictures((tiny_images[1],), tiny.PREPROCESSING, tmp_path)
    held_back = iter([1.0, 2.0, 1.1, 0.5, 0.4, 0.6])
    s = settings(epochs=5, patience=2)
    data = batches(pictures, s.batch, s.seed, 0, (), tiny.CLASSES).take(1)
    task = Task(
        model, lambda z, *_: tensorflow().reduce_sum(z, -1) ** 2, lambda _: data, 1,
        lambda: {"loss": next(held_back)}, rising_epochs=rising_epochs,
    )  # fmt: skip
    outcome = Training(task, s, Place(tmp_path, {}, strategy)).run()
    assert (len(outcome.curve) - 1, outcome.best_epoch) == (epochs, 4 if rising_epochs else 0)


def test_a_stage_is_better_where_the_loss_fell_by_more_than_half_its_standard_error() -> None:
    before = Measured(np.array([1.0, 2.0, 3.0, 4.0]), 0.5)
    fell = gain(before, Measured(before.losses - [0.5, 0.4, 0.6, 0.5], 0.5))
    assert fell.mean == pytest.approx(0.5)
    assert fell.error == pytest.approx(np.std([0.5, 0.4, 0.6, 0.5], ddof=1) / 2)
    assert fell.is_real
    assert gain(before, Measured(before.losses - [2.0, 0.0, 0.0, 0.0], 1.0)).is_real  # one picture put right
    assert not gain(before, Measured(before.losses - [2.0, -1.5, 0.0, 0.0], 1.0)).is_real  # and another one lost
    assert not gain(before, before).is_real  # a tie is the cheaper stage's
    assert not Gain(-0.1, 0.0).is_real


def test_one_held_back_picture_cannot_tell() -> None:
    assert not gain(Measured(np.array([1.0]), 0.0), Measured(np.array([0.1]), 1.0)).is_real


def test_the_held_back_pictures_are_measured_with_the_weights_of_the_moment(
    model: Any, tiny_images: tuple[ImageSet, ImageSet], tmp_path: Path
) -> None:
    pictures = load_pictures((tiny_images[1],), tiny.PREPROCESSING, tmp_path)
    held_back, classifier = HeldBack(model, pictures), model.get_layer("classifier")
    kernel, bias = (np.zeros_like(v) for v in classifier.get_weights())
    classifier.set_weights([kernel, bias])
    np.testing.assert_allclose(held_back.measure().losses, np.log(tiny.CLASSES), rtol=1e-6)
    bias[2] = 3.0
    classifier.set_weights([kernel, bias])
    found = held_back.measure()
    assert found.accuracy == pytest.approx((pictures.labels == 2).mean())
    of_2 = np.log(np.exp(3) + tiny.CLASSES - 1) - 3
    np.testing.assert_allclose(found.losses[pictures.labels == 2], of_2, rtol=1e-6)


@pytest.mark.parametrize(("better", "best"), [(True, 4), (False, 1)])
def test_two_trainings_are_one_curve_and_the_best_epoch_is_of_the_one_that_is_kept(better: bool, best: int) -> None:
    first = Outcome(tuple({"epoch": e, "held_back_loss": 1.0 - e} for e in range(3)), 1, 2.0, 20, False)
    then = Outcome(tuple({"epoch": e, "held_back_loss": -e} for e in range(4)), 2, 3.0, 30, True)
    both = joined(first, then, better)
    assert [row["epoch"] for row in both.curve] == [0, 1, 2, 3, 4, 5]
    assert [row["held_back_loss"] for row in both.curve] == [1.0, 0.0, -1.0, -1, -2, -3]
    assert (both.best_epoch, both.seconds, both.pictures_seen, both.stopped_early) == (best, 5.0, 50, True)
