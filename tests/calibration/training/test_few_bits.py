"""Training with 4-bit weights: the top alone, from what the frozen rest makes of the pictures, scales too."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgenet.calibration import SharedCalibration
from edgenet.calibration.quantize import FEW_BITS, Weight, round_weights
from edgenet.calibration.training import qat
from edgenet.calibration.training.activations import FOLDER, Look, answers
from edgenet.calibration.training.augment import Pictures, load_pictures
from edgenet.calibration.training.cut import weighty_cut
from edgenet.calibration.training.distill import cross_entropy
from edgenet.calibration.training.loop import Place
from edgenet.calibration.training.qat import LONGER, Trained, bits_of, learns_scales, precision_of, step_factors, train
from edgenet.calibration.training.strategy import open_strategy
from edgenet.export import Network
from edgenet.export.graph import Graph
from edgenet.images import load_pixels
from edgenet.options import Distillation
from edgenet.results import ImageSet
from helpers import tiny
from helpers.trainings import needs_training, settings, student_of

pytestmark = needs_training


@pytest.fixture(scope="module")
def shared(tiny_network: Network, tiny_images: tuple[ImageSet, ImageSet]) -> SharedCalibration:
    pixels = load_pixels(tiny_images[0], tiny_network.preprocessing)
    return SharedCalibration(tiny_network, pixels, tiny_images[0].fingerprint)


@pytest.fixture(scope="module")
def pictures(tiny_images: tuple[ImageSet, ImageSet], tmp_path_factory: pytest.TempPathFactory) -> Pictures:
    return load_pictures((tiny_images[1],), tiny.PREPROCESSING, tmp_path_factory.mktemp("pixels"))


LEARN = Distillation(layers="top", views=2, labels_weight=0.3)


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let training start from a last layer of half its size, so that there is something to learn."""

    def half(shared: SharedCalibration, bits: dict[str, int], pictures: Pictures) -> dict[str, Weight]:
        weights = round_weights(shared.graph, bits)
        last = next(op.outputs[0] for op in reversed(shared.graph.ops) if op.outputs[0] in weights)
        return {**weights, last: replace(weights[last], values=weights[last].values // 2)}

    monkeypatch.setattr(qat, "start", half)


def trained(shared: SharedCalibration, pictures: Pictures, folder: Path) -> Trained:
    bits, place = bits_of(shared.graph, FEW_BITS), Place(folder, {}, open_strategy("cpu"))
    how = settings(epochs=4, learning_rate=4e-3, ema=0.5)
    return train(shared, pictures, pictures, bits, LEARN, how, place, "a test")


def weights_of(graph: Graph) -> dict[str, np.ndarray]:
    found = {}
    for op in graph.ops:
        t = graph.tensors[str(op.inputs[1])] if len(op.inputs) > 1 and op.inputs[1] else None
        if t is not None and t.data is not None and t.dtype == "int8":
            found[op.outputs[0]] = t.data
    return found


@pytest.mark.usefixtures("broken")
def test_the_layers_below_the_cut_stay_and_those_above_learn_integers_of_4_bits(
    shared: SharedCalibration, pictures: Pictures, tmp_path: Path
) -> None:
    found = trained(shared, pictures, tmp_path)
    assert found.outcome.best_epoch > 0
    before, after = weights_of(found.before), weights_of(found.after)
    names = [op.outputs[0] for op in shared.graph.ops]
    above = set(names[names.index(weighty_cut(shared.graph).name) + 1 :])
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert changed
    assert changed <= above
    few = {n for n, b in bits_of(shared.graph, FEW_BITS).items() if b == FEW_BITS}
    assert few & above
    assert all(np.abs(after[name].astype(int)).max() <= 7 for name in few)
    assert all(found.after.tensors[str(op.inputs[1])].bits == 4 for op in found.after.ops if op.outputs[0] in few)
    losses = [row["held_back_loss"] for row in found.outcome.curve]
    assert min(losses[1:]) < losses[0]
    assert found.matches_before >= 0.95
    assert found.matches_after >= 0.95
    assert not (tmp_path / FOLDER).exists()


@pytest.mark.usefixtures("broken")
def test_the_same_seed_gives_the_same_integers(shared: SharedCalibration, pictures: Pictures, tmp_path: Path) -> None:
    one, other = (weights_of(trained(shared, pictures, tmp_path / name).after) for name in ("a", "b"))
    assert all(np.array_equal(one[name], other[name]) for name in one)


def test_views_are_kept_with_the_float_answers_and_read_again(
    shared: SharedCalibration, pictures: Pictures, tmp_path: Path
) -> None:
    quantized, cut = shared.quantized("int4"), weighty_cut(shared.graph).name
    said: list[int] = []

    def seen() -> object:
        return answers(
            quantized, cut, shared.network.graph, pictures, "all", Look(2, ("flip",)), tmp_path,
            lambda what, done, total: said.append(done),
        )  # fmt: skip

    kept = seen()
    assert said[-1] == 2 * len(pictures)
    n = len(said)
    again = seen()
    assert len(said) == n  # nothing was computed again
    assert kept.cut[0].dtype == np.int8  # type: ignore[attr-defined]
    assert np.array_equal(kept.cut[1], again.cut[1])  # type: ignore[attr-defined]
    x, target = next(iter(again.batches(4, 0, 0)))  # type: ignore[attr-defined]
    assert x.shape == (4, *kept.cut[0].shape[1:])  # type: ignore[attr-defined]
    assert target.shape == (4, 2 * tiny.CLASSES)
    assert np.array_equal(np.asarray(target)[:, : tiny.CLASSES].sum(-1), np.ones(4))


def test_a_scale_takes_shorter_steps_the_more_weights_hang_on_it(shared: SharedCalibration) -> None:
    bits = bits_of(shared.graph, FEW_BITS)
    student = student_of(shared, FEW_BITS, learn_scales=True)
    factors = step_factors(student, bits)
    variables = [v for layer in student.model.layers for v in layer.trainable_variables]
    assert len(factors) == len(student.model.trainable_variables) == len(variables)
    by_name = {v.name: float(f) for v, f in zip(variables, factors, strict=True)}
    scales = {n: f for n, f in by_name.items() if "kernel_moved" in n}
    assert scales
    assert all(f < LONGER for f in scales.values())
    assert step_factors(student, dict.fromkeys(bits, 8)) == ()


def test_scales_learn_by_default_where_weights_have_4_bits(shared: SharedCalibration) -> None:
    four, eight = (bits_of(shared.graph, n) for n in (4, 8))
    assert (learns_scales(Distillation(), four), learns_scales(Distillation(), eight)) == (True, False)
    assert not learns_scales(Distillation(learn_scales=False), four)
    assert (precision_of(4), precision_of(7), precision_of(8)) == ("int4", "int8", "int8")


def test_cross_entropy_counts_pictures_with_a_label() -> None:
    logits = np.log(np.array([[0.5, 0.5], [0.9, 0.1], [0.2, 0.8]]))
    assert cross_entropy(np.array([0, -1, 1]), logits) == pytest.approx(-(np.log(0.5) + np.log(0.8)) / 2)
