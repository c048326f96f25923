"""preprocess_option.py and labels.py: what a user says of an own model's pixels and classes."""

from pathlib import Path

import numpy as np
import pytest

from edgenet.errors import InputError
from edgenet.export.importers.labels import read_labels
from edgenet.images import Preprocessing, normalise
from edgenet.images.preprocess_option import PRESETS, parse_preprocess

# -------------------------------------------------------------------------------------------------------- preprocessing


def test_settings_say_what_becomes_of_a_pixel() -> None:
    text = "mean=123.675,116.28,103.53 std=58.395,57.12,57.375 crop=16 order=bgr size=224 interpolation=nearest"
    want = Preprocessing(224, (123.675, 116.28, 103.53), (58.395, 57.12, 57.375), 16, "nearest", "bgr")
    assert parse_preprocess(text, (224, 224)) == parse_preprocess(text, None) == want


def test_one_number_stands_for_three_channels() -> None:
    assert parse_preprocess("mean=127.5 std=127.5", (224, 224)) == Preprocessing(224, (127.5,) * 3, (127.5,) * 3)


@pytest.mark.parametrize(("px", "crop"), [(28, 4), (64, 9), (192, 27), (224, 32), (380, 32)])
def test_small_inputs_see_as_much_of_a_picture_as_224_px(px: int, crop: int) -> None:
    assert parse_preprocess("torch", (px, px)).crop_padding_px == crop
    assert parse_preprocess("torch crop=32", (px, px)).crop_padding_px == 32
    assert parse_preprocess("torch", (px, 4 * px)).crop_padding_px == crop


@pytest.mark.parametrize(
    ("preset", "of_0_and_255"),
    [
        ("tf", ([-1, -1, -1], [1, 1, 1])),
        ("torch", ([-2.1179, -2.0357, -1.8044], [2.2489, 2.4286, 2.64])),
        ("caffe", ([-103.939, -116.779, -123.68], [151.061, 138.221, 131.32])),
        ("raw", ([0, 0, 0], [255, 255, 255])),
        ("unit", ([0, 0, 0], [1, 1, 1])),
        ("efficientnet", ([-2.1179, -2.0357, -1.8044], [2.2489, 2.4286, 2.64])),
        ("lite", ([-0.9922] * 3, [1.0] * 3)),
    ],
)
def test_a_preset_gives_the_published_range(preset: str, of_0_and_255: tuple[list[float], list[float]]) -> None:
    preprocessing = parse_preprocess(preset, (2, 2))
    for pixel, want in zip((0, 255), of_0_and_255, strict=True):
        got = normalise(np.full((1, 2, 2, 3), pixel, np.uint8), preprocessing)[0, 0, 0]
        np.testing.assert_allclose(got, want, atol=1e-3)


def test_settings_change_a_preset() -> None:
    assert parse_preprocess("torch crop=0 size=256", None).crop_padding_px == 0
    assert parse_preprocess("torch crop=0 size=256", None).mean == PRESETS["torch"]["mean"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty: give a preset"),
        ("imagenet", "preset 'imagenet' is not known .valid: tf, torch"),
        ("crop=0 torch", "preset 'torch' comes first"),
        ("mean=127", "std is missing"),
        ("mean=1,2 std=1", "mean must be one number or three"),
        ("mean=nan std=1", "mean must be one number or three"),
        ("mean=0 std=0", "std > 0"),
        ("tf scale=2", "unknown setting 'scale' .valid: mean, std, crop"),
        ("tf crop=a", "crop must be a whole number"),
        ("tf size=224 size=1", "'size' is given twice"),
        ("tf size=224", "size=224, but the model takes 32 px"),
        ("tf order=grb", "unknown channel order 'grb' .valid: rgb, bgr"),
        ("tf interpolation=cubic", "unknown interpolation 'cubic'"),
    ],
)
def test_a_wrong_preprocessing_is_told_by_its_word(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as e:
        parse_preprocess(text, (32, 32))
    assert "\n" not in str(e.value)


def test_an_open_size_has_to_be_said() -> None:
    with pytest.raises(InputError, match=r"leaves the size of its input open: give it, e\.g\. --preprocess"):
        parse_preprocess("torch", None)


# --------------------------------------------------------------------------------------------------------------- labels


def test_labels_come_one_a_line_or_as_csv_or_with_wordnet_ids(tmp_path: Path) -> None:
    file = tmp_path / "labels"
    file.write_text("cat\nhot dog\n")
    assert read_labels(file, 2) == (("cat", "hot dog"), ("cat", "hot dog"))
    file.write_text('index,wnid,name\n0,n01440764,tench\n1,n01443537,"goldfish, small"\n')
    assert read_labels(file, 2) == (("n01440764", "n01443537"), ("tench", "goldfish, small"))
    file.write_text("n01440764 tench\nn01443537 goldfish\n")
    assert read_labels(file, 2) == (("n01440764", "n01443537"), ("tench", "goldfish"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a\n", "has 1 name, the model 2 classes"),
        (b"a\n\n", "has 1 name,"),
        (b"a\n\nb\n", "has 3 names"),
        (b"\n\xff\xfe", "is not UTF-8 text: give one name a line"),
        (b"index,wnid,name\n1,a,b\n0,c,d\n", "rows out of order"),
        (b"index,wnid,name\n0,a\n1,b\n", "the row '0,a'"),
        (b" \nb", "the name of class 0 is empty"),
    ],
)
def test_labels_that_do_not_fit_are_refused(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_labels(tmp_path / "labels.txt", 2)
