"""Training: what is trained is what is exported, a run that is cut ends as one that is not, the better file stays."""

import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgenet.calibration import Recipe, SharedCalibration, quantize
from edgenet.calibration.training.augment import Pictures, batches, load_pictures
from edgenet.calibration.training.keras_graph import FakeQuantized, float_model, quantized_logits
from edgenet.calibration.training.loop import CHECKPOINT, LOGS, Outcome, Place, Settings, Task, Training
from edgenet.calibration.training.qat import Distillation, _apart, bits_of, logits, start, train
from edgenet.calibration.training.strategy import open_strategy
from edgenet.errors import InputError
from edgenet.export import Network
from edgenet.frameworks import keras, tensorflow
from edgenet.images import divide, load_pixels, normalise, open_images
from edgenet.jobs import qat
from edgenet.results import Evaluation, ImageSet, Results
from edgenet.targets import PAIR_LIMIT, SAFE_BITS
from helpers import tiny
from helpers.graph_builder import Builder
from helpers.trainings import Rewound, calibrating, needs_training, settings, student_of, training

pytestmark = needs_training


@pytest.fixture(scope="module")
def shared(tiny_network: Network, tiny_images: tuple[ImageSet, ImageSet]) -> SharedCalibration:
    pixels = load_pixels(tiny_images[0], tiny_network.preprocessing)
    return SharedCalibration(tiny_network, pixels, tiny_images[0].fingerprint, Recipe())


@pytest.fixture(scope="module")
def x(tiny_network: Network, tiny_images: tuple[ImageSet, ImageSet]) -> np.ndarray:
    return normalise(load_pixels(tiny_images[1], tiny_network.preprocessing), tiny_network.preprocessing)


@pytest.fixture(scope="module")
def pictures(tiny_images: tuple[ImageSet, ImageSet], tmp_path_factory: pytest.TempPathFactory) -> Pictures:
    return load_pictures((tiny_images[1],), tiny.PREPROCESSING, tmp_path_factory.mktemp("pixels"))


@pytest.fixture(scope="module")
def untouched(shared: SharedCalibration) -> Callable[[int], FakeQuantized]:
    """Return the network of so many bits before any training. Read only."""
    return cache(lambda bits: student_of(shared, bits, learn_scales=bits == 4))


@dataclass(frozen=True)
class Broken:
    """A network whose weights are broken at the head, and a training that mends them and can be begun anew."""

    student: FakeQuantized
    training: Rewound


@dataclass(frozen=True)
class Ended:
    """What that training came to. Read only."""

    folder: Path
    outcome: Outcome
    best: list[np.ndarray]
    everything: list[np.ndarray]


MENDING = {"ema": 0.5}


@pytest.fixture(scope="module")
def broken(shared: SharedCalibration, pictures: Pictures, tmp_path_factory: pytest.TempPathFactory) -> Broken:
    student, run = training(shared, pictures, tmp_path_factory.mktemp("broken"), **MENDING)
    kernel = next(v for v in student.model.trainable_variables if v.shape == (1, 1, 16, 96))  # head's
    kernel.assign_add(np.random.default_rng(0).normal(0, 12, kernel.shape).astype(np.float32))
    for average, v in zip(run.average, run.trained, strict=True):
        average.assign(v)
    return Broken(student, Rewound(run))


@pytest.fixture(scope="module")
def ended(broken: Broken, tmp_path_factory: pytest.TempPathFactory) -> Ended:
    run = broken.training.to(tmp_path_factory.mktemp("ended"))
    outcome = run.run()
    return Ended(run.place.folder, outcome, run.best, [v.numpy() for v in run.everything()])


def test_the_float_model_answers_as_the_graph_does(shared: SharedCalibration, x: np.ndarray) -> None:
    ours = np.asarray(float_model(shared.network.graph)(x))
    np.testing.assert_allclose(ours, logits(shared.network.graph, "logits", x), atol=1e-4)


@pytest.mark.parametrize("bits", [4, 7, 8])
def test_before_training_the_simulation_answers_bit_by_bit_as_the_file(
    untouched: Callable[[int], FakeQuantized], x: np.ndarray, bits: int
) -> None:
    student = untouched(bits)
    simulated = np.asarray(student.model(x, training=False))
    stored = logits(student.quantized, quantized_logits(student.quantized), x)
    np.testing.assert_allclose(simulated, stored, atol=1e-5)


@pytest.mark.parametrize("bits", [7, 8])
def test_an_untrained_model_gives_back_the_integers_that_it_was_made_from(
    shared: SharedCalibration, untouched: Callable[[int], FakeQuantized], bits: int
) -> None:
    student = untouched(bits)
    weights, calibration = student.trained(shared.calibration)
    again = quantize(shared.graph, "int8", calibration, weights=weights)
    for name, t in student.quantized.tensors.items():
        if t.data is not None and t.data.dtype == np.int8:
            np.testing.assert_array_equal(again.tensors[name].data, t.data)
    assert calibration.ranges == shared.calibration.ranges


def test_after_training_the_exported_integers_answer_as_the_simulation(
    shared: SharedCalibration, broken: Broken, ended: Ended, x: np.ndarray, tmp_path: Path
) -> None:
    student, run = broken.student, broken.training.to(tmp_path)
    before = [np.asarray(v) for v in student.model.trainable_variables]
    run._assign([v + 0.3 for v in ended.best[: len(run.trained)]] + ended.best[len(run.trained) :])  # wherever it ended
    weights, calibration = student.trained(shared.calibration)
    graph = quantize(shared.graph, "int8", calibration, weights=weights)
    assert calibration.ranges != shared.calibration.ranges
    assert any((np.asarray(v) != b).any() for v, b in zip(student.model.trainable_variables, before, strict=True))
    simulated = np.asarray(student.model(x, training=False))
    stored = logits(graph, quantized_logits(graph), x)
    assert (simulated.argmax(1) == stored.argmax(1)).mean() >= 0.995
    step = float(graph.tensors["logits"].quantization.scale[0]) if "logits" in graph.tensors else 0.1
    assert np.abs(simulated - stored).max() <= 2 * step


def test_a_trained_bias_is_exported_as_the_integer_that_the_simulation_adds(shared: SharedCalibration) -> None:
    student, rng = student_of(shared, learn_ranges=False), np.random.default_rng(0)
    added = {}
    for layer in student.model.layers:
        for v in layer.weights:
            if v.name.endswith("bias:0"):
                v.assign(rng.uniform(-3000, 3000, v.shape))  # steps of the output: millions of the sums' own
                added[layer.name] = np.rint(np.asarray(v) / np.asarray(layer.quantize_config.factor()))
    weights, calibration = student.trained(shared.calibration)
    graph = quantize(shared.graph, "int8", calibration, weights=weights)
    stored = {name: graph.tensors[f"{name}_bias"].data for name in added}
    assert len(stored) > 2
    for name, expected in added.items():
        assert np.abs(expected).max() < 2**23  # what float32 holds with room for the rounding
        np.testing.assert_array_equal(stored[name], expected)


def test_weights_that_share_seven_bits_share_them_after_training_too(shared: SharedCalibration, x: np.ndarray) -> None:
    student = student_of(shared, SAFE_BITS)
    for v in student.model.trainable_variables:  # as if it had learned wildly
        v.assign_add(np.random.default_rng(0).normal(0, 40 if v.shape.rank > 1 else 0, v.shape).astype(np.float32))
    weights, calibration = student.trained(shared.calibration)
    pairs = np.abs(weights["head"].values.astype(int)).reshape(-1, 2)
    assert pairs.sum(1).max() == PAIR_LIMIT
    assert pairs.max() > 63 >= np.abs(weights["depthwise"].values).max()
    graph = quantize(shared.graph, "int8", calibration, weights=weights)
    simulated = np.asarray(student.model(x, training=False))
    np.testing.assert_allclose(simulated, logits(graph, quantized_logits(graph), x), atol=1e-4)


def test_with_four_bits_pointwise_convolutions_and_dense_layers_have_four(shared: SharedCalibration) -> None:
    bits = bits_of(shared.graph, 4, 7)
    assert bits == {"stem": 7, "expand": 4, "depthwise": 7, "project": 4, "head": 4, "logits": 4}
    weights = start(shared, bits, calibrating(shared))
    assert np.abs(weights["expand"].values).max() <= 7 < np.abs(weights["depthwise"].values).max() <= 63


def test_four_bits_start_from_what_all_pictures_say(shared: SharedCalibration, pictures: Pictures) -> None:
    bits = bits_of(shared.graph, 4)
    few, all_of_them = (start(shared, bits, p)["head"].values for p in (pictures.subset([0, 1]), pictures))
    assert (few != all_of_them).any()
    eight = bits_of(shared.graph, 8)
    np.testing.assert_array_equal(start(shared, eight, pictures)["head"].values, shared.weights("int8")["head"].values)


def test_what_cannot_be_trained_is_told_before_any_calibration(
    tiny_network: Network, shared: SharedCalibration, pictures: Pictures, tmp_path: Path
) -> None:
    shape = tiny_network.graph.tensors[tiny_network.graph.inputs[0]].shape
    b = Builder(*shape)
    b.op("ABS", ["image"], shape, "AbsOptions", out="size")
    graph = b.graph(b.dense(b.mean("size", "pool"), "logits", np.eye(3), np.zeros(3)))
    own = SharedCalibration(replace(tiny_network, graph=graph), shared.pixels)
    with pytest.raises(InputError, match=r"size is a ABS, which cannot be trained .*`edgenet run`"):
        train(own, pictures, pictures, {}, Distillation(), settings(), Place(tmp_path, {}, open_strategy("cpu")))
    assert "calibration" not in vars(own)


def test_training_brings_broken_weights_back(ended: Ended) -> None:
    curve = ended.outcome.curve
    assert curve[-1]["held_back_loss"] < 0.5 * curve[0]["held_back_loss"]


def test_a_run_that_is_cut_ends_at_the_weights_of_one_that_is_not(
    shared: SharedCalibration, pictures: Pictures, broken: Broken, ended: Ended, tmp_path: Path
) -> None:
    def stop(what: str, done: int, total: int) -> None:
        if done == 5:  # in the middle of the second epoch
            handler = signal.getsignal(signal.SIGTERM)
            assert callable(handler)
            # Called, not signalled: where another test ran OpenVINO in this process, the AMX state that it switched on
            # makes a signal's frame larger than the alternative stack, and the signal would end all tests.
            handler(signal.SIGTERM, None)

    with pytest.raises(KeyboardInterrupt):
        broken.training.to(tmp_path, progress=stop).run()
    assert (tmp_path / CHECKPOINT).exists()
    _, again = training(shared, pictures, tmp_path, **MENDING)  # another network, which is not broken
    again.run()
    for a, b in zip(ended.everything, again.everything(), strict=True):
        np.testing.assert_array_equal(a, b.numpy())
    drop = {"images_per_s", "seconds"}
    rows = [
        [{k: v for k, v in row.items() if k not in drop} for row in curve]
        for curve in (ended.outcome.curve, again.state.curve)
    ]
    assert rows[0] == rows[1]


def test_a_checkpoint_of_other_settings_is_refused(broken: Broken, ended: Ended, tmp_path: Path) -> None:
    shutil.copy(ended.folder / CHECKPOINT, tmp_path)
    run = broken.training.to(tmp_path)
    with pytest.raises(InputError, match=r"of another run .*seed was 0, is 1"):
        Training(run.task, replace(run.settings, seed=1), run.place).run()


def test_a_damaged_checkpoint_is_named(broken: Broken, tmp_path: Path) -> None:
    (tmp_path / CHECKPOINT).write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(InputError, match="not a whole checkpoint"):
        broken.training.to(tmp_path).run()


def test_a_loss_that_is_no_number_stops_with_step_rate_and_advice(pictures: Pictures, tmp_path: Path) -> None:
    layers, strategy = keras().layers, open_strategy("cpu")
    with strategy.scope():
        model = keras().Sequential([layers.Input((tiny.PX, tiny.PX, 3)), layers.Flatten(), layers.Dense(tiny.CLASSES)])
    task = Task(
        model,
        lambda z, x, target: z[:, 0] * float("nan"),
        lambda epoch: batches(pictures, 8, 0, epoch, (), tiny.CLASSES),
        len(pictures) // 8,
        lambda: {"loss": 0.0},
    )
    run = Training(task, settings(), Place(tmp_path, {}, strategy))
    with pytest.raises(InputError, match=r"loss of step 1 is nan at learning rate .* Try --learning-rate 0\.005"):
        run.run()


def test_tensorboard_gets_a_point_an_epoch(ended: Ended) -> None:
    tf = tensorflow()
    logged: dict[str, dict[int, float]] = {}
    for file in (ended.folder / LOGS).iterdir():
        for event in tf.compat.v1.train.summary_iterator(str(file)):
            for value in event.summary.value:
                logged.setdefault(value.tag, {})[event.step] = float(tf.make_ndarray(value.tensor))
                assert value.metadata.plugin_data.plugin_name == "scalars"
    for row in ended.outcome.curve:
        for name, value in row.items():
            assert logged[name][int(row["epoch"])] == pytest.approx(value, rel=1e-6)
    assert set(logged["loss"]) == {1, 2, 3}
    assert set(logged["held_back_loss"]) == {0, 1, 2, 3}


def test_pixels_that_memory_should_not_hold_are_in_files_that_go_with_the_process(
    tiny_images: tuple[ImageSet, ImageSet], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgenet.calibration.training import augment

    held = [load_pictures((part,), tiny.PREPROCESSING, tmp_path).pixels.copy() for part in tiny_images]
    monkeypatch.setattr(augment, "IN_MEMORY_BYTES", 1)
    mapped = [load_pictures((part,), tiny.PREPROCESSING, tmp_path) for part in tiny_images]
    both = load_pictures(tiny_images, tiny.PREPROCESSING, tmp_path)
    assert all(isinstance(m.pixels.base, np.memmap) or isinstance(m.pixels, np.memmap) for m in mapped)
    for a, b in zip(held, mapped, strict=True):
        np.testing.assert_array_equal(a, b.pixels)
    np.testing.assert_array_equal(np.concatenate(held), both.pixels)
    assert list(both.labels) == [*tiny_images[0].labels, *tiny_images[1].labels]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("wanted", [1, 7, 12, 20, 23, 24, 30])
def test_crops_of_one_sample_photograph_stay_in_one_part(wanted: int) -> None:
    pytest.importorskip("skimage")
    images = open_images("sample", (), ())
    a, b = divide(images, wanted)
    photographs = [{file.split("#")[0] for file in part.files} for part in (a, b)]
    assert not photographs[0] & photographs[1]
    assert len(a) + len(b) == len(images)
    assert abs(len(a) - wanted) <= 16  # crops of a photograph
    assert len(a) > 0


def test_batches_are_the_same_for_the_same_seed_and_differ_by_epoch(pictures: Pictures) -> None:
    def first(seed: int, epoch: int) -> np.ndarray:
        return next(iter(batches(pictures, 8, seed, epoch, ("flip", "crop", "colour", "mixup"), 5)))[0].numpy()

    one = first(0, 1)
    np.testing.assert_array_equal(one, first(0, 1))
    assert np.abs(one - first(0, 2)).max() > 0.1
    assert np.abs(one - first(1, 1)).max() > 0.1


def test_without_augmentation_a_batch_is_what_evaluation_sees(pictures: Pictures) -> None:
    from edgenet.calibration.training.augment import centre, order_of

    x, target = next(iter(batches(pictures, 8, 0, 0, (), 5)))
    picked = order_of(len(pictures), 0, 0)[:8]
    np.testing.assert_allclose(x, normalise(centre(pictures)[picked], pictures.preprocessing), atol=1e-6)
    assert list(np.argmax(target, 1)) == list(pictures.labels[picked])


# ------------------------------------------------------------------------------------------------------- the command


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hundred pictures. Read only."""
    return tiny.make_folder(tmp_path_factory.mktemp("many") / "photos", 20)


def job(many: Path, out: Path, **changes: Any) -> qat.QatJob:
    made = qat.QatJob("tiny", out, str(many), calibration_images=20, settings=settings(epochs=1))
    return replace(made, **changes)


def test_qat_writes_the_better_file_and_says_which(many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qat, "find_source", tiny.source)
    results = qat.qat(job(many, tmp_path / "out"))
    told = Results.load(tmp_path / "out").context.training
    assert told is not None
    assert told.before is not None
    assert told.after is not None
    assert told.simulated_like_file is not None
    assert [row.epoch for row in told.curve] == [0, 1]
    assert told.kept in ("ptq", "qat")
    assert (told.after.agreement or 0) >= (told.before.agreement or 0) or told.kept == "ptq"
    ids = {a.id for a in results.artifacts}
    assert {"tiny_int8.tflite", "tiny_float32.tflite"} <= ids
    final = results.artifact("tiny_int8.tflite")
    same = tmp_path / "out" / told.kept / "tiny_int8.tflite"
    assert (tmp_path / "out" / final.path).read_bytes() == same.read_bytes()
    assert (told.simulated_like_file.before or 0) >= 0.995


@pytest.mark.parametrize(
    ("before", "after", "kept"),
    [
        ((0.98, 0.85), (0.98, 0.85), "qat"),  # the held-back pictures were for it
        ((0.98, 0.85), (0.97, 0.86), "ptq"),
        ((0.98, 0.85), (0.98, 0.84), "ptq"),
        ((0.98, 0.85), (0.99, 0.84), "qat"),  # what post-training answered otherwise than float was right by luck
        ((0.98, None), (0.99, None), "qat"),  # no labels
    ],
)
def test_a_trained_file_that_agrees_less_or_as_much_and_is_right_less_is_not_returned(
    before: tuple[float, float | None], after: tuple[float, float | None], kept: str
) -> None:
    files = [
        Evaluation("f", "", 100, 100, top1, None, None, None, "litert", agreement=agreement)
        for agreement, top1 in (before, after)
    ]
    assert qat._choose(*files, better=True)[0] == kept


def test_where_training_brings_nothing_the_post_training_file_is_returned(
    many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qat, "find_source", tiny.source)
    wild = settings(epochs=1, learning_rate=50.0, ema=0.0)
    results = qat.qat(job(many, tmp_path / "out", settings=wild))
    told = results.context.training
    assert told is not None
    assert told.kept == "ptq"
    assert told.best_epoch == 0
    before, after = (row.held_back_loss for row in told.curve)
    assert before is not None
    assert after is not None
    assert after > before


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"weight_bits": 5}, "--weight-bits must be one of 4, 7, 8"),
        ({"settings": Settings(epochs=1, batch=500, learning_rate=0.1)}, "a batch has 500: give more pictures"),
        ({"images": "nowhere"}, "no folder nowhere"),
        ({"formats": ("coreml",)}, "unknown format 'coreml'"),
    ],
)
def test_wrong_input_is_told_before_anything_is_written(
    many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], says: str
) -> None:
    monkeypatch.setattr(qat, "find_source", tiny.source)
    with pytest.raises(InputError, match=says):
        qat.qat(job(many, tmp_path / "out", **changes))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("wrong", "says"),
    [({"temperature": 0.0}, "--temperature must be above 0"),
     ({"labels_weight": 2.0}, "--labels-weight must be at least 0 and at most 1"),
     ({"augment": ("blur",)}, "valid: flip, crop, colour, mixup"), ({"mixed_precision": "int4"}, "valid: off")],
)  # fmt: skip
def test_settings_that_make_no_sense_are_named(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        Distillation(**wrong)


def test_an_out_folder_of_another_command_is_refused(
    many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_files: dict[str, Path]
) -> None:
    monkeypatch.setattr(qat, "find_source", tiny.source)
    from edgenet.results import Artifact

    out = tmp_path / "out"
    out.mkdir()
    a = Artifact("tiny_int8.tflite", "tiny", "tflite", "int8", "tiny_int8.tflite", 1, "0" * 64, "float32")
    Results(artifacts=[a]).save(out)
    with pytest.raises(InputError, match="of another command"):
        qat.qat(job(many, out))


@pytest.mark.parametrize(
    ("a", "b", "n", "apart"),
    [(1.0, 44 / 45, 45, False), (1.0, 43 / 45, 45, True), (0.99, 0.986, 1000, False), (0.99, 0.984, 1000, True)],
)
def test_one_picture_of_few_is_no_difference_between_simulation_and_file(
    a: float, b: float, n: int, apart: bool
) -> None:
    assert _apart(a, b, n) is apart
