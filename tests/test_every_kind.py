"""Every kind of classifier goes the whole way: from a model to files, measures, a page and a hand-over that holds."""

import importlib.util
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgenet.errors import InputError
from edgenet.jobs import bench, qat
from edgenet.options import QatJob
from edgenet.pipeline import Job, run
from edgenet.results import Results
from helpers import kinds, tiny
from helpers.command_line import Edgenet

needs_mediapipe = pytest.mark.skipif(importlib.util.find_spec("mediapipe") is None, reason="needs mediapipe")
HOW = "mean=127.5 std=127.5 crop=0"


def two_folders(root: Path, names: tuple[str, str], n: int = 16) -> Path:
    rng = np.random.default_rng(2)
    for i in range(n):
        folder = root / names[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(tiny.picture(1 - i % 2, rng)).save(folder / f"{i}.png")
    return root


def test_one_sigmoid_goes_the_whole_way_and_its_folders_name_it(edgenet: Edgenet, tmp_path: Path) -> None:
    path = kinds.save(tmp_path / "net.tflite", "binary")
    images = two_folders(tmp_path / "photos", ("cat", "dog"))
    precisions = ("--precision", "float32", "--precision", "int8", "--calibration-images", 6, "--allow", "few")
    done = edgenet("run", path, "--images", images, "--preprocess", HOW, *precisions, "--out", tmp_path / "OUT")
    assert done.returncode == 0, done.stderr
    assert "accuracy" in done.stdout
    assert "ROC AUC" in done.stdout
    assert "No is 'cat' and yes is 'dog': the folders in the order of their names" in " ".join(done.stdout.split())
    results = Results.load(tmp_path / "OUT")
    assert {e.task for e in results.evaluations} == {"binary"}
    assert all(e.measures is not None for e in results.evaluations)
    page = (tmp_path / "OUT" / "report.html").read_text()
    assert "ROC AUC" in page
    assert "Accuracy" in page
    again = edgenet("evaluate", *(tmp_path / "OUT").glob("*.tflite"), "--images", images)
    assert again.returncode == 0, again.stderr
    assert "F1" in again.stdout


def test_qat_refuses_what_it_cannot_train(tmp_path: Path) -> None:
    images = str(two_folders(tmp_path / "photos", ("cat", "dog")))
    for kind, shape, message in (
        ("binary", {}, "the task is binary; qat trains classifiers of square colour pictures"),
        ("softmax", {"channels": 1}, "its input is grey or no square; qat trains"),
    ):
        path = kinds.save(tmp_path / f"{kind}.tflite", kind, **shape)
        with pytest.raises(InputError, match=message):
            qat.qat(QatJob(str(path), tmp_path / "OUT", images=images, preprocess=HOW))


def build(name: str, folder: Path) -> Path:
    """Save a Keras network of this kind, as a tutorial builds it."""
    import keras
    from keras import layers

    shape = {"grey": (64, 64, 1), "wide": (96, 192, 3)}.get(name, (64, 64, 3))
    ends: dict[str, list[Any]] = {
        "binary": [layers.Dense(1, activation="sigmoid")],
        "labels": [layers.Dense(5, activation="sigmoid")],
        "embedding": [layers.Dense(32), layers.UnitNormalization()],
    }
    body = [layers.Input(shape)]
    for filters in (16, 32):
        body += [layers.Conv2D(filters, 3, strides=2, padding="same"), layers.BatchNormalization(), layers.ReLU(6.0)]
    body.append(layers.GlobalAveragePooling2D())
    keras.utils.set_random_seed(3)
    model = keras.Sequential([*body, *ends.get(name, [layers.Dense(4, activation="softmax")])])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save(folder / f"{name}.keras")
    return folder / f"{name}.keras"


@needs_mediapipe
@pytest.mark.slow
@pytest.mark.parametrize("name", ["binary", "labels", "embedding", "grey", "wide"])
def test_a_keras_network_of_every_kind_goes_from_run_to_a_hand_over_that_holds(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgenet.handoff import hand_over
    from edgenet.handoff.verify import verify

    monkeypatch.setattr(bench, "RUN_PLAN", tiny.SHORT)
    tiny.shorten_timing(monkeypatch.setattr)
    photos = tiny.make_folder(tmp_path / "classes", per_class=4)
    images = tmp_path / "photos"
    images.mkdir()
    for i, file in enumerate(sorted(photos.rglob("*.jpg"))):
        file.rename(images / f"{i:02}.jpg")
    rng = np.random.default_rng(0)
    if name != "embedding":
        several = ["|".join(str(k) for k in range(5) if rng.random() < 0.5) for _ in range(20)]
        one = [str(rng.integers(2 if name == "binary" else 4)) for _ in range(20)]
        texts = several if name == "labels" else one
        (images / "labels.csv").write_text("\n".join(f"{i:02}.jpg,{text}" for i, text in enumerate(texts)))
    out = tmp_path / "OUT"
    job = Job(
        str(build(name, tmp_path)), out, images=str(images), formats=("tflite", "onnx", "openvino"),
        precisions=("float32", "int8"), calibration_images=6, preprocess=HOW, allow=("few",),
    )  # fmt: skip
    results = run(job)
    assert results.failures == []
    assert len(results.evaluations) == 6
    assert {e.task for e in results.evaluations} == {name if name in ("binary", "labels", "embedding") else "classes"}
    floats = [e for e in results.evaluations if "float32" in e.artifact and e.reference]
    assert [e.agreement for e in floats] == [1.0, 1.0]
    assert (out / "report.html").exists()
    for precision in ("float32", "int8"):
        hand_over(out / f"{name}_{precision}.tflite", tmp_path / precision)
        assert all(c.ok is not False for c in verify(tmp_path / precision))
