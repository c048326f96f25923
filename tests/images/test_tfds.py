"""TensorFlow Datasets: a data set that the test writes in TFDS's format is read from disk, by commands, and offline."""

import importlib.util
import os
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgenet.errors import InputError, MissingDependency
from edgenet.images import load_pixels, open_images, tfds
from edgenet.jobs.finetune import classes_of_folder
from helpers import fork_server, tiny

pytestmark = pytest.mark.skipif(importlib.util.find_spec("tensorflow_datasets") is None, reason="needs edgenet[tfds]")
PER_SPLIT = {"train": 60, "test": 20}


def examples(split: str) -> dict[str, np.ndarray]:
    """Pictures of the five colours; of the test split the first has no label."""
    rng = np.random.default_rng(len(split))
    labels = np.arange(PER_SPLIT[split]) % tiny.CLASSES
    pictures = np.stack([tiny.picture(int(label), rng) for label in labels])
    return {"picture": pictures, "colour": np.where((labels == 0) & (split == "test"), -1, labels)}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of TFDS with `colours` (pictures and classes) and `numbers` (no pictures)."""
    import tensorflow as tf
    import tensorflow_datasets as datasets

    root = tmp_path_factory.mktemp("tensorflow_datasets")
    f = datasets.features
    colours = f.FeaturesDict({
        "picture": f.Image(shape=(48, 48, 3), encoding_format="png"),
        "colour": f.ClassLabel(names=[f"class {i}" for i in range(tiny.CLASSES)]),
    })  # fmt: skip
    for name, features, splits in (
        ("colours", colours, {s: tf.data.Dataset.from_tensor_slices(examples(s)) for s in PER_SPLIT}),
        ("numbers", f.FeaturesDict({"n": np.int64}), {"train": tf.data.Dataset.from_tensor_slices({"n": [1, 2, 3]})}),
    ):
        datasets.disable_progress_bar()
        datasets.dataset_builders.TfDataBuilder(
            name=name, version="1.0.0", config="small", split_datasets=splits, features=features, data_dir=root
        ).download_and_prepare()
    return root


@pytest.fixture(autouse=True)
def here(data_dir: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    # TFDS reads TFDS_DATA_DIR once, when it is imported.
    monkeypatch.setattr("tensorflow_datasets.core.constants.DATA_DIR", str(data_dir))
    monkeypatch.setenv("TFDS_DATA_DIR", str(data_dir))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.delenv("EDGENET_CACHE", raising=False)
    for proxy in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(proxy, raising=False)
        monkeypatch.delenv(proxy.upper(), raising=False)
    tfds.folder_of.cache_clear()


def test_pictures_and_labels_are_those_that_the_data_set_holds() -> None:
    names = [f"class {i}" for i in range(tiny.CLASSES)]
    images = open_images("tfds:colours/small#train", (), names)
    assert images.root == "tfds:colours/small#train"
    assert len(images) == 60
    found = {}
    for file, label in zip(images.files, images.labels, strict=True):
        with Image.open(file) as picture:
            found[np.asarray(picture).tobytes()] = label
    wanted = examples("train")
    assert found == {
        picture.tobytes(): int(label) for picture, label in zip(wanted["picture"], wanted["colour"], strict=True)
    }
    assert load_pixels(images, tiny.PREPROCESSING).shape == (60, tiny.PX, tiny.PX, 3)


def test_without_a_split_all_are_taken_and_a_secret_label_is_none() -> None:
    images = open_images("tfds:colours", (), [f"class {i}" for i in range(tiny.CLASSES)])
    assert len(images) == 80
    assert images.n_labelled == 76
    assert classes_of_folder("tfds:colours") == tuple(f"class {i}" for i in range(tiny.CLASSES))


def test_it_is_copied_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first = tfds.folder_of("tfds:colours/small:1.0.0")
    before = {p: p.stat().st_mtime_ns for p in first.iterdir()}
    tfds.folder_of.cache_clear()
    monkeypatch.setattr(tfds, "_copy", lambda *_: pytest.fail("copied again"))
    assert tfds.folder_of("tfds:colours") == first
    assert {p: p.stat().st_mtime_ns for p in first.iterdir()} == before


def test_a_copy_that_was_cut_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("EDGENET_CACHE", raising=False)
    monkeypatch.setattr(tfds.csv, "writer", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        tfds.folder_of("tfds:colours")
    assert not list((tmp_path / "edgenet" / "tfds").iterdir())


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("tfds:imagenete", r"no such data set \(near: imagenette"),
        ("tfds:", "names no data set"),
        ("tfds:colours#validation", r"no split 'validation' \(valid: test, train\)"),
        ("tfds:mnist:9.9.9", "cannot be loaded at version 9.9.9, only: 3.0.1; write NAME"),
        ("tfds:imagenette/tiny", "BuilderConfig tiny not found"),
        ("tfds:numbers", r"has no pictures \(it has n\)"),
    ],
)
def test_what_cannot_be_had_is_told(name: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        open_images(name, (), ())


def test_what_must_be_fetched_by_hand_is_told_with_where_it_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tfds, "_resolves", lambda host: True)
    with pytest.raises(InputError, match=r"cannot be fetched \(Manual directory .*datasets/catalog/imagenet2012 says"):
        tfds.folder_of("tfds:imagenet2012")


def test_offline_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(host: str, port: int) -> Any:
        raise OSError(-2, "Name or service not known")

    monkeypatch.setattr(tfds.socket, "getaddrinfo", no_network)
    monkeypatch.setattr(urllib.request, "getproxies", dict)
    with pytest.raises(InputError, match=r"cannot be fetched: no \S+ from here; set TFDS_DATA_DIR"):
        tfds.folder_of("tfds:beans")


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(MissingDependency, match=r"pip install 'edgenet\[tfds\]'"):
        tfds.folder_of("tfds:colours")


def test_a_command_reads_it_from_disk_in_a_process_that_knows_no_builder_of_that_name(tmp_path: Path) -> None:
    command = [sys.executable, tiny.__file__, "export", "tiny", "--precision", "int8", "--calibration-images", "20",
               "--images", "tfds:colours", "--out", str(tmp_path / "OUT")]  # fmt: skip
    done = subprocess.run(
        command, env={**os.environ, **fork_server.WITH_TENSORFLOW}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "OUT" / "tiny_int8.tflite").exists()
    assert '"root": "tfds:colours"' in (tmp_path / "OUT" / "results.json").read_text()
