"""edgenet.images: pixels of every kind of file, the stream, splits and fingerprints."""

import dataclasses
import hashlib
import io
import sys
import threading
import warnings
import weakref
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile, PngImagePlugin

from edgenet.errors import InputError
from edgenet.images import (
    Preprocessing,
    decode,
    duplicates,
    image_set,
    imagenet_classes,
    limit,
    load_pixels,
    normalise,
    open_images,
    split,
    stream,
    thumbnail,
)
from edgenet.results import ImageSet
from helpers.places import IMAGENET_MINI

PRE = Preprocessing(resolution_px=32, mean=(127.0,) * 3, std=(128.0,) * 3)
WHOLE = dataclasses.replace(PRE, crop_padding_px=0)
RED, BLUE = (255, 0, 0), (0, 0, 255)


def photo(seed: int = 0, width: int = 60, height: int = 50) -> Image.Image:
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 255, (5, 6, 3), dtype=np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


def folder(tmp_path: Path, n: int, name: str = "photos") -> Path:
    out = tmp_path / name
    out.mkdir()
    for i in range(n):
        photo(i).save(out / f"{i:03}.jpg")
    return out


def truncate(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def fake_set(n: int) -> ImageSet:
    return ImageSet("x", tuple(f"/x/{i}.jpg" for i in range(n)), (None,) * n, tuple(f"{i:064x}" for i in range(n)), "")


# --- geometry ---------------------------------------------------------------------------------------------------


def test_the_official_crop_is_the_centre_square_of_res_by_res_plus_32_of_the_short_side(tmp_path):
    picture = photo(width=401, height=300)
    picture.save(tmp_path / "a.png")
    pre = dataclasses.replace(PRE, resolution_px=224)
    side = int(224 / 256 * 300)  # 262
    top, left = (300 - side + 1) // 2, (401 - side + 1) // 2
    expected = picture.crop((left, top, left + side, top + side)).resize((224, 224), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(decode(str(tmp_path / "a.png"), pre), np.asarray(expected))


def test_a_square_of_the_input_size_passes_unchanged_without_padding(tmp_path):
    picture = photo(width=32, height=32)
    picture.save(tmp_path / "a.png")
    np.testing.assert_array_equal(decode(str(tmp_path / "a.png"), WHOLE), np.asarray(picture))


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (900, 1), (5, 3)])
def test_tiny_and_long_pictures_still_fill_the_square(tmp_path, size):
    Image.new("RGB", size, RED).save(tmp_path / "a.png")
    assert (decode(str(tmp_path / "a.png"), PRE) == RED).all()


def test_jpeg_is_decoded_at_full_size_even_where_the_decoder_could_scale(tmp_path):
    photo(width=640, height=480).save(tmp_path / "a.jpg")
    with Image.open(tmp_path / "a.jpg") as picture:
        square = picture.crop((80, 0, 560, 480)).resize((32, 32), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(decode(str(tmp_path / "a.jpg"), WHOLE), np.asarray(square))


def test_bgr_swaps_the_channels(tmp_path):
    Image.new("RGB", (9, 9), RED).save(tmp_path / "a.png")
    assert (decode(str(tmp_path / "a.png"), dataclasses.replace(PRE, channel_order="bgr")) == BLUE).all()


def test_normalise_subtracts_the_mean_and_divides_by_std():
    pixels = np.array([0, 127, 255], np.uint8).reshape(1, 1, 1, 3)
    pre = Preprocessing(1, (127, 127, 100), (128, 64, 50))
    out = normalise(pixels, pre)
    assert out.dtype == np.float32
    np.testing.assert_allclose(out.ravel(), [-127 / 128, 0, 155 / 50], rtol=1e-6)


def test_preprocessing_survives_json_and_refuses_nonsense():
    pre = Preprocessing(240, (1.0, 2.0, 3.0), (4.0, 5.0, 6.0), 0, "bilinear", "bgr")
    assert Preprocessing.from_json({**pre.to_json(), "later": 1}) == pre
    for wrong in ({"interpolation": "cubic"}, {"channel_order": "gbr"}, {"std": [0, 1, 1]}, {"mean": [1]}):
        with pytest.raises(InputError):
            Preprocessing.from_json({**pre.to_json(), **wrong})
    with pytest.raises(InputError, match="needs resolution_px"):
        Preprocessing.from_json({"mean": [0, 0, 0]})


# --- kinds of file ----------------------------------------------------------------------------------------------


STORED = {  # EXIF orientation -> how an upright picture was turned before it was stored so
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpg", "png", "webp", "tif"])
def test_every_exif_orientation_comes_out_upright(tmp_path, kind, orientation):
    picture = Image.new("RGB", (64, 64), RED)
    picture.paste(BLUE, (32, 0, 64, 32))  # blue at the top right
    exif = Image.Exif()
    exif[0x0112] = orientation
    turn = STORED.get(orientation)
    saved = picture if turn is None else picture.transpose(turn)
    saved.save(tmp_path / f"a.{kind}", exif=exif, **({"quality": 95} if kind in ("jpg", "webp") else {}))
    out = decode(str(tmp_path / f"a.{kind}"), WHOLE).astype(int)
    assert out[8, 24, 2] > 200  # top right is blue
    assert all(out[y, x, 0] > 200 for y, x in [(8, 8), (24, 8), (24, 24)])
    with Image.open(io.BytesIO(thumbnail(str(tmp_path / f"a.{kind}"), 40))) as small:
        assert small.size == (40, 40)
        assert small.getpixel((30, 10))[2] > 200


def test_damaged_exif_data_does_not_make_a_photograph_unreadable(tmp_path):
    photo().save(tmp_path / "a.jpg", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\x7f garbage")
    assert decode(str(tmp_path / "a.jpg"), PRE).shape == (32, 32, 3)


@pytest.mark.parametrize(
    ("mode", "value", "expected"),
    [
        ("L", 100, (100, 100, 100)),
        ("1", 1, (255, 255, 255)),
        ("LA", (100, 255), (100, 100, 100)),
        ("LA", (100, 0), (255, 255, 255)),
        ("RGBA", (10, 20, 30, 255), (10, 20, 30)),
        ("RGBA", (10, 20, 30, 0), (255, 255, 255)),
        ("RGBA", (0, 0, 0, 128), (127, 127, 127)),
    ],
)
def test_gray_bilevel_and_transparent_png_become_rgb_on_white(tmp_path, mode, value, expected):
    Image.new(mode, (40, 40), value).save(tmp_path / "a.png")
    assert (decode(str(tmp_path / "a.png"), PRE) == expected).all()


def test_16_bit_gray_is_scaled_and_not_clipped(tmp_path):
    values = np.array([[0, 257 * 100], [257 * 200, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    Image.fromarray(values).save(tmp_path / "a.tif")
    nearest = dataclasses.replace(WHOLE, resolution_px=2, interpolation="nearest")
    for name in ("a.png", "a.tif"):
        assert decode(str(tmp_path / name), nearest)[..., 0].tolist() == [[0, 100], [200, 255]]


def test_16_bit_pgm_is_scaled_too(tmp_path):
    (tmp_path / "a.pgm").write_bytes(b"P5 1 1 65535\n" + (257 * 100).to_bytes(2, "big"))
    assert (decode(str(tmp_path / "a.pgm"), PRE) == 100).all()


def test_float_pixels_are_refused_because_their_range_is_unknown(tmp_path):
    Image.new("F", (8, 8), 0.5).save(tmp_path / "a.tif")
    with pytest.raises(InputError, match=r"a\.tif: pixels of mode F .* convert it to 8-bit RGB"):
        decode(str(tmp_path / "a.tif"), PRE)


def test_a_palette_keeps_its_colours_and_its_transparency(tmp_path):
    picture = Image.new("P", (40, 40), 1)
    picture.putpalette([0, 0, 0, 10, 200, 30])
    picture.save(tmp_path / "a.png")
    assert (decode(str(tmp_path / "a.png"), PRE) == (10, 200, 30)).all()
    picture.save(tmp_path / "b.png", transparency=1)
    assert (decode(str(tmp_path / "b.png"), PRE) == 255).all()
    picture.save(tmp_path / "c.png", transparency=bytes([255, 255]))  # PIL would warn about this one
    assert (decode(str(tmp_path / "c.png"), PRE) == (10, 200, 30)).all()


def test_cmyk_jpeg_is_not_inverted(tmp_path):
    Image.new("CMYK", (40, 40), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=95)  # red, with Adobe's marker
    assert b"Adobe" in (tmp_path / "a.jpg").read_bytes()[:200]
    np.testing.assert_allclose(decode(str(tmp_path / "a.jpg"), PRE).reshape(-1, 3).mean(axis=0), RED, atol=4)


@pytest.mark.parametrize("kind", ["BMP", "GIF", "WEBP", "TIFF", "PPM", "PNG", "JPEG"])
def test_the_content_decides_the_format_and_not_the_extension(tmp_path, kind):
    path = tmp_path / "a.jpg"
    Image.new("RGB", (40, 40), RED).save(path, kind)
    np.testing.assert_allclose(decode(str(path), PRE).reshape(-1, 3).mean(axis=0), RED, atol=4)


def test_an_animation_gives_its_first_frame(tmp_path):
    frames = [Image.new("RGB", (40, 40), c) for c in (RED, BLUE)]
    for kind in ("gif", "webp", "tif", "png"):
        frames[0].save(tmp_path / f"a.{kind}", save_all=True, append_images=frames[1:])
        np.testing.assert_allclose(decode(str(tmp_path / f"a.{kind}"), PRE)[16, 16], RED, atol=4)


def test_postscript_is_never_run(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n%%EOF\n")
    with pytest.raises(InputError, match="not an image"):
        decode(str(tmp_path / "a.jpg"), PRE)


def test_a_huge_picture_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    Image.new("1", (20_000, 10_000)).save(tmp_path / "a.png")  # 200 megapixels in a few kB
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("it was decoded"))
    with pytest.raises(InputError, match=r"a\.png: larger than 179 megapixels; scale it down"):
        decode(str(tmp_path / "a.png"), PRE)


def test_pils_warnings_do_not_leak(tmp_path, monkeypatch):
    photo().save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)  # PIL warns above it, and refuses twice as much
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        decode(str(tmp_path / "a.png"), PRE)
    assert not caught
    with pytest.warns(Image.DecompressionBombWarning):
        Image.open(tmp_path / "a.png").close()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
@pytest.mark.parametrize("part", [0.0, 0.01, 0.5, 0.95])
def test_a_truncated_file_of_any_kind_is_an_input_error_that_names_it(tmp_path, kind, part):
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 60, 3), dtype=np.uint8)).save(out, kind)
    path = tmp_path / "cut.jpg"
    path.write_bytes(out.getvalue()[: int(len(out.getvalue()) * part)])
    with pytest.raises(InputError, match=rf"^{path}: \S"):
        decode(str(path), PRE)


def test_a_file_that_is_gone_or_a_broken_parser_is_an_input_error(tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"gone\.jpg: No such file"):
        decode(str(tmp_path / "gone.jpg"), PRE)

    def broken(self: object) -> None:
        raise KeyError(17)

    photo().save(tmp_path / "a.png")
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load_prepare", broken)
    with pytest.raises(InputError, match=r"a\.png: 17"):
        decode(str(tmp_path / "a.png"), PRE)


# --- the stream -------------------------------------------------------------------------------------------------


def test_the_stream_gives_every_picture_once_in_order(tmp_path):
    opened = open_images(folder(tmp_path, 23), [], [])
    reader = stream(opened, PRE, chunk=5, workers=3)
    chunks = list(reader)
    assert [len(c.indices) for c in chunks] == [5, 5, 5, 5, 3]
    assert np.concatenate([c.indices for c in chunks]).tolist() == list(range(23))
    expected = np.stack([decode(f, PRE) for f in opened.files])
    np.testing.assert_array_equal(np.concatenate([c.pixels for c in chunks]), expected)
    assert reader.skipped == []
    np.testing.assert_array_equal(load_pixels(opened, PRE), expected)
    np.testing.assert_array_equal(np.concatenate([c.pixels for c in reader]), expected)  # and again


def test_a_truncated_file_is_named_and_skipped(tmp_path):
    root = folder(tmp_path, 100)
    truncate(root / "041.jpg")
    reader = stream(open_images(root, [], []), PRE, chunk=10)
    indices = np.concatenate([c.indices for c in reader])
    assert indices.tolist() == [i for i in range(100) if i != 41]
    assert [s.file for s in reader.skipped] == [str(root / "041.jpg")]
    assert reader.skipped[0].why == "the file is truncated"


def test_more_than_one_percent_truncated_is_an_error_as_soon_as_it_is_known(tmp_path):
    root = folder(tmp_path, 150)
    for i in (3, 20):
        truncate(root / f"{i:03}.jpg")
    seen = []
    reader = stream(open_images(root, [], []), PRE, chunk=10)
    message = r"2 or more of 150 .* 1 %.*003\.jpg \(the file is truncated\).*020\.jpg .*repair or remove"
    with pytest.raises(InputError, match=message):
        seen.extend(reader)
    assert sum(len(c.indices) for c in seen) < 20


def test_one_bad_file_of_fifty_is_more_than_one_percent(tmp_path):
    root = folder(tmp_path, 50)
    truncate(root / "007.jpg")
    with pytest.raises(InputError, match=r"007\.jpg"):
        load_pixels(open_images(root, [], []), PRE)


def test_the_one_percent_is_of_the_whole_set_on_both_sides_of_a_split(tmp_path):
    root = folder(tmp_path, 300)
    calibration, evaluation = split(open_images(root, [], []), 40)
    for file in (*calibration.files[5:7], *evaluation.files[5:7]):
        truncate(Path(file))
    calibration, evaluation = rehashed(calibration), rehashed(evaluation)
    first, second = stream(calibration, PRE), stream(evaluation, PRE)
    assert sum(len(c.indices) for c in first) == 38  # 2 of these 40, but of 300 in all
    assert sum(len(c.indices) for c in second) == 258
    assert [s.file for s in (*first.skipped, *second.skipped)] == [*calibration.files[5:7], *evaluation.files[5:7]]
    with pytest.raises(InputError, match="4 or more of 300"):
        list(stream(evaluation, PRE, skipped_before=first.skipped))


def test_a_part_of_which_nothing_is_left_is_an_error(tmp_path):
    root = folder(tmp_path, 200)
    calibration, _ = split(open_images(root, [], []), 1)
    truncate(Path(calibration.files[0]))
    with pytest.raises(InputError, match="cannot be read"):
        list(stream(rehashed(calibration), PRE))


def rehashed(images):
    """The set as it would have been opened from what its files are now."""
    digests = tuple(hashlib.sha256(Path(file).read_bytes()).hexdigest() for file in images.files)
    return dataclasses.replace(images, digests=digests)


def test_a_picture_that_was_replaced_after_it_was_hashed_ends_the_command(tmp_path):
    images = open_images(folder(tmp_path, 300), [], [])
    Path(images.files[7]).write_bytes(Path(images.files[8]).read_bytes())
    with pytest.raises(InputError, match=r"007\.jpg was replaced while this command ran"):
        list(stream(images, PRE))


@pytest.mark.parametrize("n", [100, 3000])
def test_memory_stays_flat_however_many_images(monkeypatch, n):
    live = peak = 0
    lock = threading.Lock()

    def gone() -> None:
        nonlocal live
        with lock:
            live -= 1

    def fake(file: str, preprocessing: Preprocessing, digest: str, data: bytes | None = None) -> np.ndarray:
        nonlocal live, peak
        pixels = np.zeros((2, 2, 3), np.uint8)
        weakref.finalize(pixels, gone)
        with lock:
            live += 1
            peak = max(peak, live)
        return pixels

    monkeypatch.setattr(sys.modules["edgenet.images.decode"], "decode", fake)
    total = 0
    for part in stream(fake_set(n), PRE, chunk=8, workers=2):
        total += len(part.indices)
    assert total == n
    assert peak <= 8 + 8 + 2, "one chunk being filled, one ahead, and what the threads hold"


def test_decoding_runs_ahead_of_the_reader_and_on_several_threads(monkeypatch):
    started, both = [], threading.Barrier(2, timeout=20)

    def fake(file: str, preprocessing: Preprocessing, digest: str, data: bytes | None = None) -> np.ndarray:
        if len(started) < 2:
            started.append(threading.get_ident())
            both.wait()  # passes only when two threads decode at a time
        else:
            started.append(threading.get_ident())
        return np.zeros((2, 2, 3), np.uint8)

    monkeypatch.setattr(sys.modules["edgenet.images.decode"], "decode", fake)
    reader = iter(stream(fake_set(40), PRE, chunk=4, workers=2))
    next(reader)
    assert len(set(started)) == 2
    reader.close()
    assert len(started) < 20  # what was not needed was not begun


# --- sets -------------------------------------------------------------------------------------------------------


def test_a_split_is_disjoint_by_content_and_does_not_depend_on_names(tmp_path):
    root, other = folder(tmp_path, 40), tmp_path / "other"
    (root / "copy.jpg").write_bytes((root / "000.jpg").read_bytes())
    other.mkdir()
    for i, file in enumerate(sorted(root.iterdir(), reverse=True)):
        (other / f"{i}.JPG").write_bytes(file.read_bytes())
    opened = open_images(root, [], [])
    calibration, evaluation = split(opened, 12)
    assert len(calibration) == 12
    assert len(calibration) + len(evaluation) == 41
    assert not set(calibration.digests) & set(evaluation.digests)
    again = open_images(other, [], [])
    assert again.fingerprint == opened.fingerprint
    assert [s.fingerprint for s in split(again, 12)] == [calibration.fingerprint, evaluation.fingerprint]
    assert duplicates(opened) == ((str(root / "000.jpg"), str(root / "copy.jpg")),)


def test_a_split_takes_at_most_half_of_the_set(tmp_path):
    opened = open_images(folder(tmp_path, 9), [], [])
    assert [len(s) for s in split(opened, 100)] == [4, 5]
    assert [len(s) for s in split(opened, 0)] == [0, 9]


def test_equal_photographs_never_stand_on_both_sides_even_when_there_are_few():
    same = ImageSet("x", tuple("abcd"), (None,) * 4, ("1", "1", "2", "2"), "")
    for n in (1, 2, 3):
        calibration, evaluation = split(same, n)
        assert 1 <= len(calibration) <= n
        assert evaluation.digests == ("2", "2")
    one = ImageSet("x", tuple("abcd"), (None,) * 4, ("1",) * 4, "")
    assert [len(s) for s in split(one, 2)] == [0, 4]


def test_the_fingerprint_depends_on_labels_and_content_only():
    a = image_set._image_set("x", ["a", "b"], [1, 2], ["d1", "d2"])
    assert image_set._image_set("y", ["q", "p"], [2, 1], ["d2", "d1"]).fingerprint == a.fingerprint
    assert image_set._image_set("x", ["a", "b"], [2, 1], ["d1", "d2"]).fingerprint != a.fingerprint
    assert image_set._image_set("x", ["a", "b"], [1, None], ["d1", "d2"]).fingerprint != a.fingerprint


def test_a_limit_takes_a_subset_that_a_larger_limit_contains(tmp_path):
    opened = open_images(folder(tmp_path, 20), [], [])
    small, large = limit(opened, 5), limit(opened, 11)
    assert (len(small), len(large)) == (5, 11)
    assert set(small.files) < set(large.files)
    assert list(large.files) == sorted(large.files)
    assert limit(opened, 99) is opened
    with pytest.raises(InputError, match="at least 1"):
        limit(opened, 0)


def test_files_that_are_plainly_no_images_are_refused_when_the_folder_is_opened(tmp_path):
    root = folder(tmp_path, 20)
    (root / "text.jpg").write_text("no photograph")
    (root / "void.jpg").touch()
    with pytest.raises(
        InputError, match=r"2 or more of 22 .*text\.jpg \(not an image\).*void\.jpg \(the file is empty\)"
    ):
        open_images(root, [], [])


def test_heic_photographs_are_named_and_not_silently_left_out(tmp_path):
    root = folder(tmp_path, 3)
    (root / "IMG_1.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    opened = open_images(root, [], [])
    with pytest.raises(InputError, match=r"IMG_1\.HEIC \(HEIC cannot be read; convert it to JPEG\)"):
        load_pixels(opened, PRE)


def test_imagenets_classes_are_a_thousand_in_the_order_of_their_ids():
    ids, names = imagenet_classes()
    assert len(ids) == len(names) == 1000
    assert list(ids) == sorted(set(ids))
    assert (ids[1], names[1]) == ("n01443537", "goldfish")


@pytest.mark.skipif(not IMAGENET_MINI.is_dir(), reason="needs imagenet-mini beside the project")
def test_imagenet_mini_opens_with_a_label_for_each_of_500_photographs():
    opened = open_images(IMAGENET_MINI, *imagenet_classes())
    assert (len(opened), opened.n_labelled) == (500, 500)
    ids, _ = imagenet_classes()
    assert all(ids[label] == Path(f).parent.name for f, label in zip(opened.files, opened.labels, strict=True))
    assert [len(s) for s in split(opened, 100)] == [100, 400]
    assert load_pixels(limit(opened, 10), PRE).shape == (10, 32, 32, 3)


def test_a_thumbnail_is_only_made_of_a_picture_that_was_measured(tmp_path):
    picture = folder(tmp_path, 2) / "000.jpg"
    digest = hashlib.sha256(picture.read_bytes()).hexdigest()
    assert thumbnail(str(picture), 40, known={digest})[:2] == b"\xff\xd8"
    for known in ((), {"0" * 64}):
        with pytest.raises(InputError, match=r"000\.jpg"):
            thumbnail(str(picture), 40, known=known)
