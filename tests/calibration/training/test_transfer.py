"""What fine-tuning computes once, which learning rate it finds, and how large its pictures are."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgenet.calibration.execute import Executor
from edgenet.calibration.training.activations import Activations, Look, activations, delete, expected_bytes
from edgenet.calibration.training.augment import Pictures, centre, load_pictures
from edgenet.calibration.training.cut import below
from edgenet.calibration.training.keras_graph import float_model
from edgenet.calibration.training.lesson import training_px
from edgenet.calibration.training.loop import Place, Task, Training
from edgenet.calibration.training.rate import HIGHEST, LOWEST, PART, find_rate
from edgenet.calibration.training.strategy import open_strategy
from edgenet.calibration.training.transfer import smoothed_cross_entropy
from edgenet.errors import InputError
from edgenet.frameworks import tensorflow
from edgenet.images import normalise
from edgenet.models import zoo
from edgenet.models.resnet_mobilenet import efficientnet
from edgenet.results import ImageSet
from helpers import tiny
from helpers.graph_builder import Builder
from helpers.trainings import needs_training, settings

pytestmark = needs_training


@pytest.fixture
def pictures(tiny_images: tuple[ImageSet, ImageSet], tmp_path: Path) -> Pictures:
    return load_pictures((tiny_images[1],), tiny.PREPROCESSING, tmp_path)


def kept(pictures: Pictures, folder: Path, n: int = 2, **changes: Any) -> Activations:
    look = Look(n, ("flip", "colour"), seed=0)
    return activations(
        tiny.graph(), "pooled", "added", pictures, "fingerprint", look, folder, lambda *_: None, **changes
    )


def test_the_first_view_is_what_evaluation_sees_and_the_others_differ(pictures: Pictures, tmp_path: Path) -> None:
    found = kept(pictures, tmp_path)
    x = normalise(centre(pictures), pictures.preprocessing)
    run = Executor(below(tiny.graph(), "pooled"), ["pooled", "added"], 1)
    features, cut = (np.concatenate(a) for a in zip(*(run(v[None]) for v in x), strict=True))
    np.testing.assert_allclose(found.features[0], features, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.cut[0], cut, rtol=1e-3, atol=1e-3)  # 16 bits
    assert not np.allclose(found.features[1], features, rtol=1e-3)
    assert found.size_bytes == sum(p.stat().st_size - 128 for p in tmp_path.rglob("*.npy"))  # less NumPy's headers
    assert expected_bytes((10, 10, 16), len(pictures), 2) == sum(a.nbytes for a in found.cut)


def test_a_view_is_read_again_only_for_the_same_pictures_and_network(pictures: Pictures, tmp_path: Path) -> None:
    kept(pictures, tmp_path)
    files = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.npy")}
    assert len(files) == 4
    kept(pictures, tmp_path)
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.npy")} == files
    look = Look(1, ("flip",), seed=0)
    activations(tiny.graph(1), "pooled", "added", pictures, "fingerprint", look, tmp_path, lambda *_: None)
    assert len(list(tmp_path.rglob("*.npy"))) == 6
    delete(tmp_path)
    assert not list(tmp_path.rglob("*.npy"))


@pytest.mark.parametrize(
    "content", [b"", b"no array", b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }"]
)
def test_a_view_that_is_damaged_on_disk_is_named(content: bytes, pictures: Pictures, tmp_path: Path) -> None:
    kept(pictures, tmp_path)
    path = next(tmp_path.rglob("*-1-cut.npy"))
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"{path.name} is not what this run kept .*: delete it to compute it again"):
        kept(pictures, tmp_path)


def test_where_the_head_alone_learns_no_activation_is_kept_and_the_features_are_the_same(
    pictures: Pictures, tmp_path: Path
) -> None:
    alone = kept(pictures, tmp_path / "a", keep_cut=False)
    assert alone.cut == ()
    for a, b in zip(alone.features, kept(pictures, tmp_path / "b").features, strict=True):
        np.testing.assert_array_equal(a, b)


def test_an_epoch_takes_each_picture_once_in_a_view_that_is_another_one_in_the_next() -> None:
    n, views = 8, 3  # activation: (picture, view)
    cut = tuple(np.array([[i, v] for i in range(n)], np.float16) for v in range(views))
    made = Activations(cut, (), np.arange(n) % 4, 0)
    seen = []
    for epoch in range(views):
        x, target = (np.concatenate(a) for a in zip(*made.batches(4, 0, epoch, 4).as_numpy_iterator(), strict=True))
        assert sorted(x[:, 0]) == list(range(n))
        np.testing.assert_array_equal(target.argmax(1), x[:, 0] % 4)
        assert len(set(x[:, 1])) == views
        seen += [tuple(row) for row in x]
    assert len(set(seen)) == n * views
    again = np.concatenate([x for x, _ in made.batches(4, 0, 2, 4).as_numpy_iterator()])
    np.testing.assert_array_equal(again, x)


@pytest.mark.parametrize(("model", "px"), [("efficientnet-lite0", 192), ("efficientnet-lite1", 208),
                                           ("efficientnet-lite2", 224), ("efficientnet-b0", 192)])  # fmt: skip
def test_all_layers_learn_from_pictures_a_seventh_smaller(model: str, px: int) -> None:
    assert training_px(efficientnet(zoo.spec(model)).graph()) == px


def test_a_small_network_and_one_that_is_bound_to_its_size_learn_at_their_own() -> None:
    assert training_px(tiny.graph()) == tiny.PX
    b = Builder(1, 224, 224, 3)
    stem = b.conv("image", "stem", np.zeros((4, 3, 3, 3)), np.zeros(4), stride=2)
    flat = b.op("RESHAPE", [stem], (1, 112 * 112 * 4), "ReshapeOptions", out="flat")
    b.dense(flat, "logits", np.zeros((5, 112 * 112 * 4)), np.zeros(5))
    assert training_px(b.graph("logits")) == 224


def test_a_model_of_any_size_answers_as_the_graph_does_at_its_own(pictures: Pictures) -> None:
    x = normalise(centre(pictures)[:4], pictures.preprocessing)
    fixed, free = float_model(tiny.graph()), float_model(tiny.graph(), any_size=True)
    np.testing.assert_allclose(np.asarray(free(x)), np.asarray(fixed(x)), atol=1e-5)
    assert free(x[:, 2:18, 2:18]).shape == (4, tiny.CLASSES)


def test_smoothed_labels_are_best_met_by_their_own_shares() -> None:
    tf = tensorflow()
    loss, target = smoothed_cross_entropy(0.1), tf.one_hot([1], 5)
    shares = np.full((1, 5), 0.02, np.float32)
    shares[0, 1] = 0.92
    least = float(loss(tf.math.log(shares), None, target)[0])
    assert least == pytest.approx(-float((shares * np.log(shares)).sum()), rel=1e-5)
    for other in ([0.02, 0.99, 0.02, 0.02, 0.02], [0.1, 0.6, 0.1, 0.1, 0.1]):
        assert float(loss(tf.math.log([other]), None, target)[0]) > least
    assert float(smoothed_cross_entropy(0.0)(tf.math.log(shares), None, target)[0]) == pytest.approx(-np.log(0.92))


def rate_of(steepness: float, folder: Path) -> tuple[float, float]:
    """Return the rate that is found where one step of 1 / steepness is too far, and the weight afterwards."""
    tf = tensorflow()
    strategy = open_strategy("cpu")
    from edgenet.frameworks import keras

    with strategy.scope():
        model = keras().Sequential([keras().layers.Dense(1, use_bias=False, input_shape=(1,))])
    model.set_weights([np.full((1, 1), 0.5, np.float32)])
    data = tf.data.Dataset.from_tensors((np.ones((8, 1), np.float32), np.ones((8, 1), np.float32)))
    task = Task(
        model, lambda z, *_: 1.0 + tf.reduce_sum(tf.square(steepness * (z - 0.5)), -1), lambda _: data, 1,
        lambda: {"loss": 0.0},
    )  # fmt: skip
    model.set_weights([np.full((1, 1), 0.5001, np.float32)])
    run = Training(task, settings(learning_rate=1.0), Place(folder, {}, strategy))
    return find_rate(run, data), float(model.get_weights()[0][0, 0])


def test_the_rate_is_a_part_of_that_at_which_the_loss_rises_and_the_weights_are_as_before(tmp_path: Path) -> None:
    steep, weight = rate_of(1000.0, tmp_path / "a")
    flat, _ = rate_of(100.0, tmp_path / "b")
    assert weight == pytest.approx(0.5001)
    assert PART * LOWEST < steep < flat < PART * HIGHEST
    assert flat / steep > 3  # it would be 10, were the rate not rising all the time
