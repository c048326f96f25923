"""Data sets in their official layouts: pictures, classes and splits are the authors', and what is wrong is one line."""

import functools
import json
import re
import shutil
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from edgenet import data_sets
from edgenet.errors import InputError
from edgenet.images import names_in, official, open_images
from edgenet.images.class_names import Classes
from edgenet.images.official import mat_file
from edgenet.jobs.finetune import classes_of_folder
from edgenet.options import FinetuneJob, Job, QatJob
from helpers import official_layouts
from helpers.places import SHARED

WRITERS = {name: getattr(official_layouts, name) for name in data_sets.NAMES}


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("EDGENET_CACHE", raising=False)
        yield


def contents(images: str, file: str) -> bytes:
    """Return what the helpers know a picture by."""
    if not images.startswith("cifar"):
        return Path(file).read_bytes()
    with Image.open(file) as picture:
        return np.asarray(picture).tobytes()


@pytest.mark.parametrize("name", data_sets.NAMES)
def test_pictures_classes_and_splits_are_the_data_set_s_own(name: str, tmp_path: Path) -> None:
    wanted = WRITERS[name](tmp_path)
    images = f"{name}:{tmp_path}"
    names = names_in(images)
    for split, pictures in wanted.items():
        found = open_images(f"{images}#{split}", (), names)
        assert {contents(images, f): label for f, label in zip(found.files, found.labels, strict=True)} == pictures
        assert found.root == f"{images}#{split}"
    learning = open_images(images, (), names)
    assert len(learning) == sum(len(p) for split, p in wanted.items() if split != "test")
    assert len(names) == (102 if name == "flowers102" else 5)
    assert name == "flowers102" or names[0].startswith("red")
    assert classes_of_folder(images) == names


@pytest.mark.parametrize("name", data_sets.NAMES)
def test_the_folder_may_be_the_one_that_holds_what_was_unpacked(name: str, tmp_path: Path) -> None:
    inside = tmp_path / official.LAYOUTS[name].inside[0]
    wanted = WRITERS[name](inside)
    assert len(official.listing(f"{name}:{tmp_path}#test").files) == len(wanted["test"])


@pytest.mark.parametrize("name", data_sets.NAMES)
def test_each_file_that_is_missing_is_named_with_what_brings_it(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path)
    layout = official.LAYOUTS[name]
    for file, archive in layout.files:
        away = tmp_path / "away"
        shutil.move(tmp_path / file, away)
        with pytest.raises(InputError, match=re.escape(f"has no {file}: get {archive} from {layout.page}")):
            open_images(f"{name}:{tmp_path}", (), ())
        shutil.move(away, tmp_path / file)
    with pytest.raises(InputError, match=rf"no folder .*nowhere: put {layout.title} there, from https://"):
        open_images(f"{name}:{tmp_path / 'nowhere'}", (), ())


def test_flowers_have_the_names_of_their_site_in_the_order_of_its_labels(tmp_path: Path) -> None:
    official_layouts.flowers102(tmp_path)
    names = names_in(f"flowers102:{tmp_path}")
    assert len(set(names)) == 102
    assert [names[i] for i in (0, 9, 53, 76, 101)] == [
        "pink primrose", "globe thistle", "sunflower", "passion flower", "blackberry lily",
    ]  # fmt: skip


@pytest.mark.skipif(not (SHARED / "flowers102").is_dir(), reason="needs ../shared")
def test_the_official_layout_and_class_folders_of_the_same_pictures_are_the_same_set(tmp_path: Path) -> None:
    given = SHARED / "flowers102"
    official_layouts.flowers_of_folders(given / "train", given / "test", tmp_path / "official")
    folders = tuple(f"{i:03d}" for i in range(102))
    images = f"flowers102:{tmp_path}/official"
    for part, folder in ((images, "train"), (f"{images}#test", "test")):
        as_folders = open_images(given / folder, folders, folders)
        assert open_images(part, folders, folders).fingerprint == as_folders.fingerprint


# ------------------------------------------------------------------------------------------------ a model's own classes


def five(tmp_path: Path) -> str:
    official_layouts.pets(tmp_path)
    return f"pets:{tmp_path}"


@pytest.mark.parametrize(
    ("ids", "names", "found"),
    [
        ((), (), [0, 1, 2, 3, 4]),
        ("01234", tuple(f"class {i}" for i in range(5)), [0, 1, 2, 3, 4]),
        (("000", "001", "002", "003", "004"), ("000", "001", "002", "003", "004"), [0, 1, 2, 3, 4]),
        ("12345", "12345", [0, 1, 2, 3, 4]),
        (("1", "10", "2", "3", "0"), ("1", "10", "2", "3", "0"), None),  # 10 is none of five
        (("0", "1", "4", "3", "2"), ("0", "1", "4", "3", "2"), [0, 1, 4, 3, 2]),
        ((), ("blue cat", "green cat", "grey cat", "RED_CAT", "yellow cat", "dog"), [3, 1, 0, 4, 2]),
        ((), ("blue cat", "green cat", "grey cat", "red cat"), None),
        ("012345", tuple(f"class {i}" for i in range(6)), None),
    ],
)
def test_classes_are_found_by_name_and_else_by_number(ids, names, found, tmp_path: Path) -> None:
    images = five(tmp_path)
    if found is None:
        with pytest.raises(InputError, match=r"the 5 classes of pets:.* \(red cat, .*\) are not the \d of this model"):
            official.indices_in(images, Classes(tuple(ids), tuple(names)))
    else:
        assert official.indices_in(images, Classes(tuple(ids), tuple(names))) == found


# -------------------------------------------------------------------------------------------------- which part measures


@pytest.mark.parametrize("job", [Job, QatJob, FinetuneJob])
def test_the_official_test_pictures_measure_where_no_others_are_named(job: type) -> None:
    made = {images: job(model="m", out=Path("o"), images=images).images_test for images in (
        "flowers102:F", "flowers102:F#train", "photos", "tfds:cifar10", "sample")}  # fmt: skip
    assert made == {
        "flowers102:F": "flowers102:F#test", "flowers102:F#train": None, "photos": None, "tfds:cifar10": None,
        "sample": None,
    }  # fmt: skip
    assert job(model="m", out=Path("o"), images="flowers102:F", images_test="mine").images_test == "mine"


def test_a_run_calibrates_on_the_official_training_pictures_and_measures_on_the_test_pictures(
    edgenet: Callable[..., object], tmp_path: Path
) -> None:
    wanted = official_layouts.pets(tmp_path / "pets", {"trainval": 30, "test": 12})
    images = f"pets:{tmp_path / 'pets'}"
    done = edgenet("run", "tiny", "--images", images, "--precision", "int8", "--out", tmp_path / "out", "--json")
    assert done.returncode == 0, done.stderr
    used = json.loads((tmp_path / "out" / "results.json").read_text())
    assert used["context"]["images"]["evaluation"]["n"] == len(wanted["test"])
    assert used["context"]["images"]["calibration"]["n"] == 100
    assert all(e["top1"] > 0.9 for e in used["evaluations"])
    files = list((tmp_path / "out").glob("*.tflite"))
    again = edgenet("evaluate", *files, "--images", images, "--json")
    assert {e["n_images"] for e in json.loads(again.stdout)["evaluations"]} == {len(wanted["test"])}


# -------------------------------------------------------------------------------------------------------- what is wrong


def test_a_split_that_is_none_is_told_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"pets has no split 'train' \(valid: trainval, test\)"):
        open_images(f"{five(tmp_path)}#train", (), ())
    with pytest.raises(InputError, match="names no folder: write pets:DIR"):
        open_images("pets:", (), ())


@pytest.mark.parametrize(("name", "pickle"), [("cifar10", "data_batch_1"), ("cifar100", "meta")])
def test_the_pickled_version_of_cifar_is_refused(name: str, pickle: str, tmp_path: Path) -> None:
    (tmp_path / pickle).write_bytes(b"\x80\x04.")
    with pytest.raises(
        InputError, match=rf"{pickle} is .* pickles run code: get cifar-100?-binary\.tar\.gz, from https"
    ):
        open_images(f"{name}:{tmp_path}", (), ())


def test_binary_batches_that_end_within_a_record_or_have_a_class_too_many_are_refused(tmp_path: Path) -> None:
    official_layouts.cifar10(tmp_path)
    whole = (tmp_path / "test_batch.bin").read_bytes()
    for data, why in ((whole[:-1], "are no records of 3,073"), (b"", "0 bytes"), (b"\x05" + whole[1:], "class 5, and")):
        (tmp_path / "test_batch.bin").write_bytes(data)
        with pytest.raises(InputError, match=f"test_batch.bin.*{why}.*get"):
            open_images(f"cifar10:{tmp_path}#test", (), ())
        official.listing.cache_clear()


def test_pictures_of_cifar_are_written_once_and_are_the_same_bytes_each_time(tmp_path, monkeypatch) -> None:
    official_layouts.cifar10(tmp_path / "set")
    digests = []
    for cache in ("a", "a", "b"):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / cache))
        monkeypatch.delenv("EDGENET_CACHE", raising=False)
        official.listing.cache_clear()
        images = open_images(f"cifar10:{tmp_path / 'set'}", (), ())
        digests.append(
            (images.digests, Path(images.files[0]).stat().st_mtime_ns, Path(images.files[0]).parents[3].name)
        )
    assert digests[0] == digests[1]
    assert digests[0][0] == digests[2][0]
    assert digests[2][2] == "b"
    official.listing.cache_clear()


def test_a_list_with_pictures_that_are_not_there_or_outside_is_refused(tmp_path: Path) -> None:
    official_layouts.food101(tmp_path)
    path = tmp_path / "meta" / "test.txt"
    lines = path.read_text()
    for line, why in (
        ("red_pie/gone", r"lacks 1 of 6 pictures \(red_pie/gone.jpg\): unpack food-101"),
        ("red_pie/../../../x", "names 'red_pie/../../../x.jpg', which is not inside"),
        ("/etc/passwd", "is of no class"),
        ("pizza/1", "'pizza/1' is of no class of meta/classes.txt"),
    ):
        path.write_text(f"{lines}\n{line}")
        with pytest.raises(InputError, match=why):
            open_images(f"food101:{tmp_path}#test", (), ())


@pytest.mark.parametrize(
    ("name", "values", "why"),
    [
        ("setid.mat", {"trnid": [[1, 9999]], "valid": [[2]], "tstid": [[3]]}, "names picture 9999, and .* has 45"),
        ("setid.mat", {"trnid": [[0]], "valid": [[2]], "tstid": [[3]]}, "names picture 0"),
        ("setid.mat", {"trnid": [[1.5]], "valid": [[2]], "tstid": [[3]]}, "trnid is no list of whole numbers"),
        ("setid.mat", {"valid": [[2]], "tstid": [[3]]}, r"has no 'trnid' \(it has valid, tstid\)"),
        ("imagelabels.mat", {"labels": [[103] * 45]}, "class 103 of 102"),
        ("imagelabels.mat", {"labels": "text"}, "labels is no list of whole numbers"),
        ("imagelabels.mat", {"labels": {"a": 1}}, "labels is no list of whole numbers"),
    ],
)
def test_mat_files_that_make_no_sense_are_refused_by_name(name, values, why, tmp_path: Path) -> None:
    official_layouts.flowers102(tmp_path)
    savemat(tmp_path / name, values)
    with pytest.raises(InputError, match=why) as e:
        open_images(f"flowers102:{tmp_path}", (), ())
    assert name in str(e.value)
    assert "\n" not in str(e.value)


@functools.cache
def hostile() -> dict[str, bytes]:
    head = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"
    bomb = zlib.compress(b"\0" * (1 << 28), 1)
    return {
        "empty": b"", "text": b"labels = [1 2 3]", "half": head + b"\x0f\0\0\0\xff\xff\0\0" + b"x" * 100,
        "hdf5": b"\x89HDF\r\n\x1a\n" + b"\0" * 500, "a pickle": b"\x80\x04\x95\x10\0\0\0\0\0\0\0.",
        "bomb": head + b"\x0f\0\0\0" + len(bomb).to_bytes(4, "little") + bomb,
        "large": head + b"\x0e\0\0\0\xff\xff\xff\x7f" + b"\x06\0\0\0\x08\0\0\0" + b"\x06" + b"\0" * 64,
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["empty", "text", "half", "hdf5", "a pickle", "bomb", "large"])
def test_a_mat_file_that_is_none_or_made_to_do_harm_is_one_line(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "x.mat"
    path.write_bytes(hostile()[kind])
    with pytest.raises(InputError, match=r"x\.mat") as e:
        mat_file.whole_numbers(path, ["labels"])
    assert "\n" not in str(e.value)
    assert "Error" not in str(e.value)


def test_a_child_that_gives_something_else_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.mat").write_bytes(b"x")
    for given in (None, {"other": [1]}, {"labels": "abc"}, {"labels": []}, {"labels": [1, "2"]}, {"labels": [True]}):
        monkeypatch.setattr(mat_file, "read_apart", lambda *_, given=given: given)
        mat_file._read_once.cache_clear()
        with pytest.raises(InputError, match=r"x\.mat"):
            mat_file.whole_numbers(tmp_path / "x.mat", ["labels"])
    mat_file._read_once.cache_clear()
