"""What a network has seen never measures it: known again by content and by look, whatever the command."""

import base64
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgenet.errors import InputError
from edgenet.export import export_graph, find_source
from edgenet.images import imagenet_classes, open_images
from edgenet.images.roles import (
    MOST_LOOKS,
    STORED_BYTES,
    Divided,
    apart,
    divide_by_role,
    history_of,
    joined,
    merged,
    new_pictures,
    part,
    read_history,
    recognised,
    table_of,
)
from edgenet.results import ImageSet, Results
from edgenet.results.plain import write
from edgenet.results.records import NOTHING_SEEN, UNKNOWN_HISTORY
from helpers import tiny
from helpers.command_line import Edgenet
from helpers.places import IMAGENET_MINI


def photos(root: Path, n: int = 20, seed: int = 0) -> ImageSet:
    """Photographs without labels: smooth random pictures, larger than their fingerprints."""
    rng = np.random.default_rng(seed)
    root.mkdir(parents=True)
    for i in range(n):
        coarse = Image.fromarray(rng.integers(0, 256, (7, 7, 3), np.uint8).astype(np.uint8))
        coarse.resize((120, 120), Image.Resampling.BICUBIC).save(root / f"{i:02}.jpg", quality=95)
    return open_images(root, (), ())


def scaled(file: str, to: Path, quality: int = 60) -> None:
    with Image.open(file) as picture:
        small = picture.resize((picture.width * 2 // 3, picture.height * 2 // 3))
        small.save(to, quality=quality)


def codes(divided: Divided) -> list[str]:
    return [f.code for f in divided.findings]


def test_a_table_knows_its_own_pictures_and_no_others(tmp_path: Path) -> None:
    images, others = photos(tmp_path / "a"), photos(tmp_path / "b", seed=1)
    table = table_of(part(images, range(8)))
    assert table.n == 8
    assert recognised(images, [table]).tolist() == [True] * 8 + [False] * 12
    assert not recognised(others, [table]).any()


def test_a_scaled_copy_under_another_name_is_known_again(tmp_path: Path) -> None:
    images = photos(tmp_path / "a")
    (tmp_path / "b").mkdir()
    for i, file in enumerate(images.files[:5]):
        scaled(file, tmp_path / "b" / f"holiday{i}.jpg")
    assert recognised(open_images(tmp_path / "b", (), ()), [table_of(images)]).all()


def test_two_tables_become_one_that_knows_both(tmp_path: Path) -> None:
    images = photos(tmp_path / "a")
    first, second = part(images, range(10)), part(images, range(5, 15))
    both = merged(history_of(taught=first), history_of(taught=second, complete=False))
    assert both.taught is not None
    assert both.taught.n == 15
    assert not both.complete
    assert recognised(images, [both.taught]).tolist() == [True] * 15 + [False] * 5


def test_the_looks_of_a_long_table_end_and_its_contents_do_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgenet.images.roles.MOST_LOOKS", 3)
    images = photos(tmp_path / "a", 6)
    table = table_of(images)
    assert len(base64.b64decode(table.looks)) == 3 * STORED_BYTES
    assert recognised(images, [table]).all()
    assert MOST_LOOKS >= 8192


HOSTILE = [
    None, {}, {"pictures": None}, {"pictures": []}, {"pictures": {"taught": 3}},
    {"pictures": {"taught": {"n": 1, "contents": "AAAA", "looks": ""}}},  # no whole number of hashes
    {"pictures": {"taught": {"n": 1, "contents": "not base64!", "looks": ""}}},
    {"pictures": {"taught": {"n": 1, "contents": "", "looks": "AAAA"}}},
]  # fmt: skip


@pytest.mark.parametrize("about", HOSTILE)
def test_a_record_that_is_missing_or_damaged_is_no_record(about: dict[str, object] | None) -> None:
    assert read_history(about) == UNKNOWN_HISTORY


def test_a_record_survives_the_way_through_json(tmp_path: Path) -> None:
    images = photos(tmp_path / "a", 6)
    history = history_of(taught=part(images, range(4)), measured=part(images, [4, 5]))
    assert read_history(json.loads(json.dumps({"pictures": write(history)}))) == history


def test_what_the_network_has_seen_calibrates_and_the_rest_measures(tmp_path: Path) -> None:
    images = photos(tmp_path / "a")
    seen = part(images, range(12))
    divided = divide_by_role(images, 6, history_of(taught=seen), model="net")
    assert set(divided.calibration.digests) < set(seen.digests)
    assert len(divided.calibration) == 6
    assert set(divided.evaluation.digests) == set(images.digests) - set(seen.digests)
    assert codes(divided) == ["seen-before"]
    assert divided.findings[0].message.startswith(f"12 of the 20 pictures of {tmp_path / 'a'} taught net")


def test_a_few_that_were_seen_are_joined_by_new_ones_to_calibrate(tmp_path: Path) -> None:
    images = photos(tmp_path / "a")
    divided = divide_by_role(images, 6, history_of(chose=part(images, [3, 7])), model="net")
    assert len(divided.calibration) == 6
    assert {images.digests[3], images.digests[7]} < set(divided.calibration.digests)
    assert len(divided.evaluation) == 14
    assert not set(divided.calibration.digests) & set(divided.evaluation.digests)


def test_copies_within_one_folder_do_not_measure_what_they_calibrate(tmp_path: Path) -> None:
    images = photos(tmp_path / "a")
    calibration = divide_by_role(images, 6, NOTHING_SEEN, model="net").calibration
    for i, file in enumerate(calibration.files[:3]):
        scaled(file, tmp_path / "a" / f"copy{i}.jpg")
    divided = divide_by_role(open_images(tmp_path / "a", (), ()), 6, NOTHING_SEEN, model="net")
    shared = recognised(divided.evaluation, [table_of(divided.calibration)])
    assert not shared.any()
    assert codes(divided) == ["copies"]


def test_a_test_folder_only_measures_and_copies_in_it_are_told(tmp_path: Path) -> None:
    images, test = photos(tmp_path / "a"), photos(tmp_path / "b", seed=1)
    divided = divide_by_role(images, 15, NOTHING_SEEN, model="net", test=test)
    assert len(divided.calibration) == 15
    assert divided.evaluation.digests == test.digests
    assert codes(divided) == []
    scaled(divided.calibration.files[0], tmp_path / "b" / "copy.jpg")
    divided = divide_by_role(images, 15, NOTHING_SEEN, model="net", test=open_images(tmp_path / "b", (), ()))
    assert divided.evaluation.digests == test.digests
    assert codes(divided) == ["copies"]


def test_accuracy_is_withheld_where_nothing_is_new(tmp_path: Path) -> None:
    images = photos(tmp_path / "a")
    left, findings = new_pictures(images, history_of(taught=images), "net")
    assert not left
    assert [f.code for f in findings] == ["seen-before", "no-own-pictures"]


def test_a_network_without_a_record_is_said_to_have_none(tmp_path: Path) -> None:
    divided = divide_by_role(photos(tmp_path / "a"), 6, UNKNOWN_HISTORY, model="net")
    assert codes(divided) == ["unknown-training"]
    assert len(divided.evaluation) == 14


def test_one_picture_is_too_few(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds 1 picture, and those that calibrate do not measure"):
        divide_by_role(photos(tmp_path / "a", 1), 6, NOTHING_SEEN, model="net")


def test_all_crops_of_a_sample_photograph_are_one_picture() -> None:
    pytest.importorskip("skimage")
    pytest.importorskip("sklearn")
    images = open_images("sample", (), ())
    seen, new = apart(images, history_of(taught=part(images, [0])))
    photograph = images.files[0].partition("#")[0]
    assert {f.partition("#")[0] for f in seen.files} == {photograph}
    assert photograph not in {f.partition("#")[0] for f in new.files}
    assert len(joined(seen, new)) == len(images)


# --------------------------------------------------------------------------------------------------- as a user sees it


def test_evaluate_tells_a_planted_copy_and_does_not_count_it(
    edgenet: Edgenet, tiny_folder: Path, tmp_path: Path
) -> None:
    out, elsewhere = tmp_path / "OUT", tiny.make_folder(tmp_path / "elsewhere", 3, labels=[0])
    for file in elsewhere.rglob("*.jpg"):
        file.unlink()
    done = edgenet("export", "tiny", "--precision", "int8", "--images", tiny_folder, "--out", out)
    assert done.returncode == 0, done.stderr
    calibration = Results.load(out).context.images
    assert calibration is not None
    assert calibration.calibration is not None
    images = open_images(tiny_folder, (), [f"class_{i}" for i in range(5)])
    by_digest = dict(zip(images.digests, images.files, strict=True))
    for i, digest in enumerate(calibration.calibration.sha256[:2]):
        scaled(by_digest[digest], elsewhere / "class_0" / f"copy{i}.jpg", quality=90)
    done = edgenet("evaluate", out / "tiny_int8.tflite", "--images", elsewhere)
    assert done.returncode == 2
    assert "no picture of" in done.stderr
    done = edgenet("evaluate", out / "tiny_int8.tflite", "--images", tiny_folder)
    assert done.returncode == 0, done.stderr
    assert "of the 40 pictures of" in " ".join(done.stdout.split())


def test_a_run_without_a_new_picture_writes_files_and_withholds_accuracy(
    edgenet: Edgenet, tiny_folder: Path, tmp_path: Path
) -> None:
    images = open_images(tiny_folder, (), [f"class_{i}" for i in range(5)])
    network = tiny.network()
    export_graph(
        network, network.graph, tmp_path, format="tflite", precision="float32", pictures=history_of(taught=images)
    )
    model = tmp_path / "tiny_float32.tflite"
    assert find_source(str(model)).pictures.taught == table_of(images)
    out = tmp_path / "OUT"
    done = edgenet("run", model, "--images", tiny_folder, "--precision", "float32", "--precision", "int8", "--out", out)
    assert done.returncode == 0, done.stderr
    results = Results.load(out)
    assert results.evaluations == []
    assert len(results.measurements) == 2
    assert "no-own-pictures" in [f.code for f in results.context.calibration_findings]
    assert "Ship" not in done.stdout


@pytest.mark.slow
@pytest.mark.skipif(not IMAGENET_MINI.is_dir(), reason="needs imagenet-mini beside the project")
def test_copies_of_photographs_are_known_and_different_photographs_are_not(tmp_path: Path) -> None:
    images = open_images(IMAGENET_MINI, *imagenet_classes())
    (tmp_path / "copies").mkdir()
    for i, file in enumerate(images.files[::10]):
        scaled(file, tmp_path / "copies" / f"{i}.jpg")
    assert recognised(open_images(tmp_path / "copies", (), ()), [table_of(images)]).mean() >= 0.98
    half = len(images) // 2
    first, second = part(images, range(half)), part(images, range(half, len(images)))
    assert not recognised(first, [table_of(second)]).any()
