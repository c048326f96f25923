"""Where a network is cut, how fast each layer learns in a stage of fine-tuning, and whether a stage was worth it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgenet.calibration.execute import Executor
from edgenet.calibration.training.augment import Pictures, batches, centre, load_pictures
from edgenet.calibration.training.cut import (
    above,
    below,
    cuts,
    depths,
    head_of,
    sharpened,
    top_cut,
    with_head,
    with_trained,
)
from edgenet.calibration.training.keras_graph import float_model
from edgenet.calibration.training.loop import Outcome, Place, Task, Training, joined
from edgenet.calibration.training.stages import MOST_SHARPENED, Gain, HeldBack, Measured, gain, measured, rate_factors
from edgenet.calibration.training.strategy import open_strategy
from edgenet.errors import InputError
from edgenet.export.graph import Graph
from edgenet.frameworks import tensorflow
from edgenet.images import normalise
from edgenet.results import ImageSet
from helpers import tiny
from helpers.trainings import needs_training, settings

pytestmark = needs_training


@pytest.fixture
def strategy() -> Any:
    return open_strategy("cpu")


@pytest.fixture
def model(strategy: Any) -> Any:
    """The tiny network up to its logits, all of which may learn."""
    return learning(tiny.graph(), strategy)


def learning(graph: Graph, strategy: Any) -> Any:
    with strategy.scope():
        made = float_model(graph)
    made.trainable = True
    return made


@pytest.fixture
def x() -> np.ndarray:
    """(4, 20, 20, 3) float32."""
    return np.random.default_rng(0).normal(0, 1, (4, tiny.PX, tiny.PX, 3)).astype(np.float32)


def answers(graph: Graph, x: np.ndarray) -> np.ndarray:
    run = Executor(graph, graph.outputs, 1)
    return np.concatenate([run(v[None])[0] for v in x])


def test_a_cut_is_where_all_that_follows_comes_from_one_activation() -> None:
    found = [(c.name, c.layers) for c in cuts(tiny.graph())]
    # "expand" to "project" are passed by the addition of "stem".
    assert found == [("image", 6), ("stem", 5), ("added", 2), ("head", 1), ("pooled", 1)]
    work = [c.work for c in cuts(tiny.graph())]
    assert work[0] == 1
    assert work == sorted(work, reverse=True)


def test_the_top_is_about_the_half_of_the_layers_next_to_the_head() -> None:
    assert top_cut(tiny.graph()).name == "stem"  # 5 of 6 layers: "added" would leave it but 2


def test_the_two_parts_of_a_network_answer_as_the_whole_does(x: np.ndarray) -> None:
    graph = tiny.graph()
    for cut in ("stem", "added", "pooled"):
        middle = answers(below(graph, cut), x)
        np.testing.assert_allclose(answers(above(graph, cut), middle), answers(graph, x), atol=1e-6)
    assert [op.outputs[0] for op in above(graph, "head").ops] == ["pooled", "logits", "probabilities"]


def test_a_new_head_answers_for_other_classes_and_the_old_one_is_gone(x: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    kernel, bias = rng.normal(0, 1, (96, 3)).astype(np.float32), rng.normal(0, 1, 3).astype(np.float32)
    graph = with_head(tiny.graph(), kernel, bias)
    z = answers(below(graph, "pooled"), x) @ kernel + bias
    expected = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    np.testing.assert_allclose(answers(graph, x), expected, atol=1e-5)
    assert not {"logits_w", "logits_b"} & set(graph.tensors)


def test_a_network_that_ends_in_no_dense_layer_is_refused() -> None:
    with pytest.raises(InputError, match="pooled is made by a MEAN, and finetune puts a new head in the place of"):
        head_of(below(tiny.graph(), "pooled"))


def test_a_network_that_answers_yes_or_no_can_get_a_head_of_several_classes(x: np.ndarray) -> None:
    graph = tiny.graph(classes=1)
    softmax = graph.ops[-1]
    binary = replace(graph, ops=(*graph.ops[:-1], replace(softmax, kind="LOGISTIC", options={}, options_type="NONE")))
    assert head_of(binary).outputs == ("logits",)
    made = with_head(binary, np.zeros((96, 3), np.float32), np.array([0, 0, np.log(2)], np.float32))
    np.testing.assert_allclose(answers(made, x), np.tile([0.25, 0.25, 0.5], (len(x), 1)), atol=1e-6)


def test_what_a_part_of_a_network_learned_is_in_the_whole(strategy: Any, x: np.ndarray) -> None:
    graph = tiny.graph()
    top = learning(above(graph, "added"), strategy)
    for v in top.trainable_variables:
        v.assign(v + 0.1)
    trained = with_trained(graph, top)
    learned = np.asarray(top(answers(below(graph, "added"), x)))
    np.testing.assert_allclose(answers(trained.with_outputs(["logits"]), x), learned, rtol=1e-4, atol=1e-4)
    changed = {n for n, t in trained.tensors.items() if t.data is not graph.tensors[n].data}
    assert changed == {"head_w", "head_b", "logits_w", "logits_b"}


def test_the_head_stands_at_depth_0_and_the_first_layer_at_1() -> None:
    found = depths(tiny.graph())
    assert list(found) == ["stem", "expand", "depthwise", "project", "head", "logits"]
    np.testing.assert_allclose(list(found.values()), [1, 0.8, 0.6, 0.4, 0.2, 0])


def test_the_rate_falls_geometrically_from_the_head_to_the_first_layer(strategy: Any) -> None:
    graph = tiny.graph()
    for name in ("stem", "expand", "depthwise", "project", "head", "logits"):  # of one size, so that depth alone counts
        graph.tensors[f"{name}_w"].data[:] = 1.0
    model = learning(graph, strategy)
    found = dict(zip((v.name for v in model.trainable_variables), rate_factors(graph, model, 0.01), strict=True))
    steps = [float(found[f"{name}/kernel:0"].max()) for name in ("stem", "expand", "project", "head", "logits")]
    np.testing.assert_allclose(steps, [0.01**d for d in (1, 0.8, 0.4, 0.2, 0)], rtol=1e-5)
    of_stem = np.sqrt((graph.tensors["stem_b"].data ** 2).mean())
    np.testing.assert_allclose(found["stem/bias:0"], 0.01 * of_stem, rtol=1e-5)
    assert found["logits/bias:0"] == 1  # in the units of a logit


def test_a_channels_step_is_a_part_of_the_size_of_its_own_weights(strategy: Any) -> None:
    """Folding batch norm may give a channel weights a hundred times as large as another's."""
    graph = tiny.graph()
    w = graph.tensors["expand_w"].data  # (48, 1, 1, 16)
    assert w is not None
    w[5], w[6] = 100 * w[5], 0.0
    model = learning(graph, strategy)
    names = [v.name for v in model.trainable_variables]
    kernel, bias = (rate_factors(graph, model, 1.0)[names.index(f"expand/{v}:0")] for v in ("kernel", "bias"))
    np.testing.assert_allclose(kernel[0, 0, 0, 5], np.sqrt((w[5] ** 2).mean()), rtol=1e-5)
    assert kernel.shape == (1, 1, 1, 48)
    assert bias == pytest.approx(np.sqrt((graph.tensors["expand_b"].data ** 2).mean()))  # whatever its weights' size
    assert kernel.min() > 0  # a channel that is all zeros may learn too
    depthwise = rate_factors(graph, model, 1.0)[names.index("depthwise/depthwise_kernel:0")]
    assert depthwise.shape == (1, 1, 48, 1)


def one_step(model: Any, pictures: Pictures, place: Place, factors: tuple[np.ndarray, ...]) -> list[np.ndarray]:
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
    factors = rate_factors(tiny.graph(), model, 0.1)
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


def of(losses: Any) -> Measured:
    return Measured(np.asarray(losses), np.zeros(len(losses), bool))


def test_a_stage_is_better_where_the_loss_fell_by_more_than_half_its_standard_error() -> None:
    before = of([1.0, 2.0, 3.0, 4.0])
    fell = gain(before, of(before.losses - [0.5, 0.4, 0.6, 0.5]))
    assert fell.mean == pytest.approx(0.5)
    assert fell.error == pytest.approx(np.std([0.5, 0.4, 0.6, 0.5], ddof=1) / 2)
    assert fell.is_real
    assert gain(before, of(before.losses - [2.0, 0.0, 0.0, 0.0])).is_real  # one picture put right
    assert not gain(before, of(before.losses - [2.0, -1.5, 0.0, 0.0])).is_real  # and another one lost
    assert not gain(before, before).is_real  # a tie is the cheaper stage's
    assert not Gain(-0.1, 0.0).is_real


def test_one_held_back_picture_cannot_tell() -> None:
    assert not gain(of([1.0]), of([0.1])).is_real


def test_the_held_back_pictures_are_measured_with_the_weights_of_the_moment(
    model: Any, tiny_images: tuple[ImageSet, ImageSet], tmp_path: Path
) -> None:
    pictures = load_pictures((tiny_images[1],), tiny.PREPROCESSING, tmp_path)
    pixels = centre(pictures)
    held_back = HeldBack(model, lambda i, j: normalise(pixels[i:j], tiny.PREPROCESSING), pictures.labels)
    classifier = model.get_layer("logits")
    kernel, bias = (np.zeros_like(v) for v in classifier.get_weights())
    classifier.set_weights([kernel, bias])
    np.testing.assert_allclose(held_back.measure().losses, np.log(tiny.CLASSES), rtol=1e-6)
    bias[2] = 3.0
    classifier.set_weights([kernel, bias])
    found = held_back.measure()
    assert found.accuracy == pytest.approx((pictures.labels == 2).mean())
    logit = 3 * found.sharpness
    of_2 = np.log(np.exp(logit) + tiny.CLASSES - 1) - logit
    np.testing.assert_allclose(found.losses[pictures.labels == 2], of_2, rtol=1e-6)


def test_pictures_learned_and_forgotten_are_counted_since_the_stage_before() -> None:
    labels = np.array([0, 1, 2, 3])
    before, after = (measured(5.0 * np.eye(4)[picked], labels) for picked in ([0, 0, 2, 3], [0, 1, 1, 1]))
    row = after.row(before)
    assert (row["learned"], row["forgotten"], row["accuracy"]) == (1, 2, 0.5)
    logit = 5 * after.sharpness
    assert row["loss"] == pytest.approx(
        (2 * np.log1p(3 * np.exp(-logit)) + 2 * (np.log1p(3 * np.exp(-logit)) + logit)) / 4
    )


def test_how_sure_a_network_is_of_its_answers_is_not_what_it_has_learned() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 6, 300)
    logits = 2.0 * np.eye(6)[labels] + rng.normal(size=(300, 6))
    plain, shy, bold = (measured(factor * logits, labels) for factor in (1.0, 0.4, 2.5))
    assert plain.sharpness == pytest.approx(2.0, abs=0.5)  # logits of unit variance, their means 2 apart
    for found in (shy, bold):
        np.testing.assert_allclose(found.losses, plain.losses, rtol=1e-6)
    assert (shy.sharpness, bold.sharpness) == pytest.approx((plain.sharpness / 0.4, plain.sharpness / 2.5))
    worse = [measured(logits, labels).loss]
    for factor in (0.8, 1.2):
        z = factor * plain.sharpness * logits
        worse.append(float((np.log(np.exp(z).sum(1)) - z[np.arange(300), labels]).mean()))
    assert min(worse) == worse[0]


def test_a_few_answers_that_are_all_right_are_not_made_as_good_as_certain() -> None:
    found = measured(np.eye(4), np.arange(4))
    sure = 1 / (1 + 3 * np.exp(-found.sharpness))
    assert sure == pytest.approx(5 / 6 + 1 / 6 / 4)  # of 4 pictures, 1 / 6 of a label is spread over 4 classes
    many = measured(np.tile(np.eye(4), (100, 1)), np.tile(np.arange(4), 100))
    assert many.sharpness > 1.5 * found.sharpness
    assert measured(1e-3 * np.eye(4), np.arange(4)).sharpness == pytest.approx(MOST_SHARPENED)
    assert measured(-np.eye(4), np.arange(4)).sharpness == pytest.approx(1 / MOST_SHARPENED)


def test_a_sharpened_network_gives_larger_logits_and_the_same_answers(x: np.ndarray) -> None:
    plain = tiny.graph()
    name = head_of(plain).outputs[0]
    logits, larger = (Executor(g, [name], 1)(x[:1])[0] for g in (plain, sharpened(plain, 2.5)))
    np.testing.assert_allclose(larger, 2.5 * logits, rtol=1e-5)


@pytest.mark.parametrize(("better", "best"), [(True, 4), (False, 1)])
def test_two_trainings_are_one_curve_and_the_best_epoch_is_of_the_one_that_is_kept(better: bool, best: int) -> None:
    first = Outcome(tuple({"epoch": e, "held_back_loss": 1.0 - e} for e in range(3)), 1, 2.0, 20, False)
    then = Outcome(tuple({"epoch": e, "held_back_loss": -e} for e in range(4)), 2, 3.0, 30, True)
    both = joined(first, then, better)
    assert [row["epoch"] for row in both.curve] == [0, 1, 2, 3, 4, 5]
    assert [row["held_back_loss"] for row in both.curve] == [1.0, 0.0, -1.0, -1, -2, -3]
    assert (both.best_epoch, both.seconds, both.pictures_seen, both.stopped_early) == (best, 5.0, 50, True)
