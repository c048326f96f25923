"""Half precision on the CPU, by force: what is stored is float32, float16 scales its loss, qat answers as its file."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgenet.calibration.training.augment import Pictures, load_pictures
from edgenet.calibration.training.qat import Distillation
from edgenet.calibration.training.strategy import half_type, open_strategy, policy
from edgenet.errors import InputError
from edgenet.export import Network
from edgenet.frameworks import keras, tensorflow
from edgenet.jobs import qat as qat_job
from edgenet.results import ImageSet, Results
from helpers import tiny
from helpers.trainings import Rewound, labelled_training, needs_training, settings

pytestmark = needs_training
HALVES = ("float16", "bfloat16")


@pytest.fixture(scope="module")
def pictures(tiny_images: tuple[ImageSet, ImageSet], tmp_path_factory: pytest.TempPathFactory) -> Pictures:
    return load_pictures((tiny_images[1],), tiny.PREPROCESSING, tmp_path_factory.mktemp("pixels"))


@pytest.fixture(scope="module")
def trainings(
    tiny_network: Network, pictures: Pictures, tmp_path_factory: pytest.TempPathFactory
) -> dict[str | None, Rewound]:
    """The same training in each type, None for float32."""
    folder = tmp_path_factory.mktemp("trainings")
    return {h: Rewound(labelled_training(tiny_network, pictures, folder, h)) for h in (None, *HALVES)}


@dataclass(frozen=True)
class Ended:
    """What float32 came to: the averages before and after, and the curve."""

    before: list[np.ndarray]
    after: list[np.ndarray]
    curve: list[dict[str, float]]


@pytest.fixture(scope="module")
def full(trainings: dict[str | None, Rewound], tmp_path_factory: pytest.TempPathFactory) -> Ended:
    run = trainings[None].to(tmp_path_factory.mktemp("full"))
    before = values(run.average)
    run.run()
    return Ended(before, values(run.average), run.state.curve)


def values(variables: list[Any]) -> list[np.ndarray]:
    return [v.numpy() for v in variables]


@pytest.mark.parametrize("half", HALVES)
def test_layers_compute_in_half_and_what_is_stored_is_float32(
    trainings: dict[str | None, Rewound], full: Ended, tmp_path: Path, half: str
) -> None:
    run = trainings[half].to(tmp_path)
    assert {layer.compute_dtype for layer in run.model.layers if layer.weights} == {half}
    run.run()
    assert {v.dtype.name for v in (*run.trained, *run.average)} == {"float32"}
    assert {b.dtype.name for b in run.best} == {"float32"}

    def distance(a: list[np.ndarray], b: list[np.ndarray]) -> float:
        return float(np.sqrt(sum(np.square(u - v).sum() for u, v in zip(a, b, strict=True))))

    moved, apart = distance(full.before, full.after), distance(values(run.average), full.after)
    # Adam follows the signs of small gradients, which rounding turns: near, and no more than that.
    assert 0 < apart < 0.5 * moved
    assert run.state.curve[-1]["held_back_loss"] == pytest.approx(full.curve[-1]["held_back_loss"], abs=0.05)


def test_float16_scales_its_loss_and_bfloat16_does_not(trainings: dict[str | None, Rewound], tmp_path: Path) -> None:
    kind = keras().mixed_precision.LossScaleOptimizer
    made = {h: t.to(tmp_path).optimizer for h, t in trainings.items()}
    assert {h: isinstance(o, kind) for h, o in made.items()} == {None: False, "float16": True, "bfloat16": False}


def test_a_gradient_that_overflows_float16_skips_the_step_and_halves_the_scale(
    trainings: dict[str | None, Rewound], tmp_path: Path
) -> None:
    run = trainings["float16"].to(tmp_path)
    run.optimizer._loss_scale._current_loss_scale.assign(2.0**60)
    before = [v.numpy() for v in run.trained]
    x, target = next(iter(run.task.data(0)))
    assert np.isfinite(float(run._step(x, target)))
    for v, b in zip(run.trained, before, strict=True):
        np.testing.assert_array_equal(v.numpy(), b)
    assert float(run.optimizer.loss_scale) == 2.0**59


def test_a_cut_float16_run_resumes_with_its_loss_scale(
    trainings: dict[str | None, Rewound], tiny_network: Network, pictures: Pictures, tmp_path: Path
) -> None:
    whole = trainings["float16"].to(tmp_path / "whole")
    whole.run()
    expected = values(whole.everything())
    cut = trainings["float16"].to(tmp_path / "cut")

    save = cut._save

    def save_and_stop() -> None:
        save()
        if cut.state.epoch == 1:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cut, "_save", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            cut.run()
    again = labelled_training(tiny_network, pictures, tmp_path / "cut", "float16")
    again.run()
    assert len(expected) > len(trainings[None].to(tmp_path).everything())
    for a, b in zip(expected, values(again.everything()), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("half", HALVES)
def test_qat_with_a_teacher_in_half_still_answers_as_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, half: str
) -> None:
    photos = tiny.make_folder(tmp_path / "photos", 20)
    monkeypatch.setattr(qat_job, "find_source", tiny.source)
    seen: list[str] = []
    from edgenet.calibration.training import qat

    make = qat.float_model

    def noted(graph: Any) -> Any:
        model = make(graph)
        seen.append(model.get_layer("head").compute_dtype)
        return model

    monkeypatch.setattr(qat, "float_model", noted)
    job = qat_job.QatJob("tiny", tmp_path / "OUT", str(photos), calibration_images=20, settings=settings(epochs=1))
    qat_job.qat(replace(job, distill=Distillation(mixed_precision=half)))
    assert seen == [half]
    told = Results.load(tmp_path / "OUT").context.training
    assert told is not None
    like = told.simulated_like_file
    assert like is not None
    assert min(like.before or 0, like.after or 0) >= 0.995


def test_auto_is_float32_where_there_is_no_accelerator() -> None:
    cpu = open_strategy("cpu")
    assert half_type("auto", cpu) is None
    assert half_type("off", cpu) is None
    assert half_type("bfloat16", cpu) == "bfloat16"


def test_auto_is_float16_on_a_gpu_and_bfloat16_on_a_tpu(monkeypatch: pytest.MonkeyPatch) -> None:
    tf = tensorflow()
    cpu = open_strategy("cpu")
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind=None: ["a"] if kind == "GPU" else [])
    mirrored = object.__new__(tf.distribute.MirroredStrategy)
    assert half_type("auto", mirrored) == "float16"
    assert half_type("auto", cpu) is None  # --strategy cpu on a machine with a GPU
    assert half_type("auto", object.__new__(tf.distribute.TPUStrategy)) == "bfloat16"


def test_the_policy_ends_with_its_block() -> None:
    mixed = keras().mixed_precision

    def fail() -> None:
        with policy("float16"):
            assert mixed.global_policy().name == "mixed_float16"
            raise InputError("anything")

    with pytest.raises(InputError, match="anything"):
        fail()
    assert mixed.global_policy().name == "float32"
