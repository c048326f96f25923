"""Pictures for networks of grey input, and of input that is no square: what is cut, scaled and made grey."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgenet.errors import InputError
from edgenet.images import Preprocessing, decode, load_pixels, normalise, open_images
from edgenet.images.preprocess_option import parse_preprocess

RGB = {"mean": (127.5,) * 3, "std": (127.5,) * 3}


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A picture of 90 x 60 whose red grows to the right and whose green grows downwards."""
    x = np.zeros((60, 90, 3), np.uint8)
    x[..., 0], x[..., 1] = np.arange(90) * 2, np.arange(60)[:, None] * 4
    Image.fromarray(x).save(tmp_path / "a.png")
    return tmp_path / "a.png"


def test_an_input_that_is_no_square_gets_the_centre_of_its_own_shape(picture: Path) -> None:
    whole = np.asarray(Image.open(picture))
    for height, width, rows, columns in ((20, 60, 30, 90), (60, 20, 60, 20), (30, 45, 60, 90)):
        how = Preprocessing(height, crop_padding_px=0, interpolation="nearest", width_px=width, **RGB)
        top, left = (60 - rows + 1) // 2, (90 - columns + 1) // 2
        seen = Image.fromarray(whole[top : top + rows, left : left + columns]).resize((width, height), 0)
        np.testing.assert_array_equal(decode(str(picture), how), np.asarray(seen))
        assert how.shape == (height, width, 3)


def test_what_is_cut_away_is_a_part_of_the_short_side(picture: Path) -> None:
    how = Preprocessing(20, crop_padding_px=20, width_px=30, **RGB)
    assert how.crop_px(60, 90) == (30, 45)
    assert Preprocessing(224, **RGB).crop_px(300, 451) == (262, 262)  # 224 / 256 of 300


def test_grey_is_made_before_the_picture_is_scaled(picture: Path) -> None:
    how = Preprocessing(16, (100.0,), (50.0,), 0, "bilinear", "grey")
    cut = Image.open(picture).convert("L").crop((15, 0, 75, 60)).resize((16, 16), Image.Resampling.BILINEAR)
    pixels = decode(str(picture), how)
    assert pixels.shape == (16, 16, 1)
    np.testing.assert_array_equal(pixels[..., 0], np.asarray(cut))
    np.testing.assert_allclose(normalise(pixels[None], how), (pixels[None] - 100.0) / 50, rtol=1e-6)


def test_a_grey_picture_keeps_its_numbers(tmp_path: Path) -> None:
    x = np.arange(256, dtype=np.uint8).reshape(16, 16)
    Image.fromarray(x).save(tmp_path / "a.png")
    how = Preprocessing(16, (0.0,), (1.0,), 0, "nearest", "grey")
    np.testing.assert_array_equal(decode(str(tmp_path / "a.png"), how)[..., 0], x)
    assert load_pixels(open_images(tmp_path, (), ()), how).shape == (1, 16, 16, 1)


def test_a_preprocessing_comes_back_and_a_square_says_nothing_of_its_width() -> None:
    wide = Preprocessing(96, (1.0,), (2.0,), channel_order="grey", width_px=192)
    assert Preprocessing.from_json(wide.to_json()) == wide
    assert "width_px" not in Preprocessing(96, width_px=96, **RGB).to_json()
    assert Preprocessing(96, width_px=96, **RGB) == Preprocessing(96, **RGB)
    with pytest.raises(InputError, match="give one number each, std > 0"):
        Preprocessing(8, channel_order="grey", **RGB)
    with pytest.raises(InputError, match="give three numbers each, std > 0"):
        Preprocessing(8, (1.0,), (1.0,))


def test_the_option_takes_height_and_width() -> None:
    assert parse_preprocess("tf size=96x192", None).size_px == (96, 192)
    assert parse_preprocess("tf", (96, 192)).size_px == (96, 192)
    with pytest.raises(InputError, match="size=64, but the model takes 96x192 px"):
        parse_preprocess("tf size=64", (96, 192))
    with pytest.raises(InputError, match="size must be a whole number of pixels, or HEIGHTxWIDTH"):
        parse_preprocess("tf size=1x2x3", None)
