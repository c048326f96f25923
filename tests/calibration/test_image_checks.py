"""image_checks.py: nothing to say of good photographs, and the right thing of every kind of bad ones."""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from edgenet.calibration import image_checks as lint_module
from edgenet.calibration.image_checks import CODES, SEVERITIES, check_allowed, lint, lint_network, refuse
from edgenet.errors import InputError
from edgenet.export.graph import Graph
from edgenet.images import Preprocessing, load_pixels, open_images, split, stream
from edgenet.images.near_duplicates import glances, looks_alike
from edgenet.results import ImageSet, Results
from edgenet.results.records import Context, Finding
from helpers.command_line import Edgenet
from helpers.graph_builder import Builder
from helpers.places import IMAGENET_MINI

PX = 64
P = Preprocessing(PX, (127.0,) * 3, (128.0,) * 3)
N = 24
CLASSES = ("cat", "dog")

Make = Callable[[int, np.random.Generator], np.ndarray]
MADE: dict[int, tuple[np.random.Generator, list[np.ndarray]]] = {}  # by seed


def photograph(i: int, rng: np.random.Generator, height: int = 160, width: int = 200) -> np.ndarray:
    """A made picture with the spectrum of a photograph, a brightness and a tint of its own: (H, W, 3) uint8."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]) + 1 / height
    planes = [
        np.fft.irfft2(np.exp(2j * np.pi * rng.random(frequency.shape)) / frequency**1.2, s=(height, width))
        for _ in range(3)
    ]
    shared = planes[0] / planes[0].std()
    picture = np.stack([shared + 0.4 * p / p.std() for p in planes], -1)
    tint = rng.normal(0, 12, 3) + rng.uniform(70, 180)
    return np.clip(tint + 45 * picture, 0, 255).astype(np.uint8)


def folder(root: Path, make: Make = photograph, n: int = N, suffix: str = "png", seed: int = 0) -> ImageSet:
    root.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    pictures = photographs(n, seed) if make is photograph else (make(i, rng) for i in range(n))
    for i, picture in enumerate(pictures):
        Image.fromarray(picture).save(root / f"{i:03}.{suffix}", compress_level=1)
    return open_images(root, (), ())


def photographs(n: int, seed: int) -> list[np.ndarray]:
    """Return what `photograph` makes, one after another, from a seed; each is made once."""
    rng, made = MADE.setdefault(seed, (np.random.default_rng(seed), []))
    made += [photograph(i, rng) for i in range(len(made), n)]
    return made[:n]


def findings(images: ImageSet, p: Preprocessing = P, evaluation: ImageSet | None = None) -> dict[str, Finding]:
    """By code, without `few`, which every small set of a test has."""
    found = lint(load_pixels(images, p), images, p, evaluation)
    assert all(f.severity in SEVERITIES and f.code in CODES for f in found)
    assert [SEVERITIES.index(f.severity) for f in found] == sorted(
        (SEVERITIES.index(f.severity) for f in found), reverse=True
    )
    return {f.code: f for f in reversed(found) if f.code != "few"}


# -------------------------------------------------------------------------------------------------------- good pictures


@pytest.mark.skipif(not IMAGENET_MINI.exists(), reason="needs the photographs beside the project")
@pytest.mark.parametrize("n", [20, 100, 250])
def test_photographs_of_imagenet_have_nothing_wrong(n: int) -> None:
    from edgenet.images import imagenet_classes

    p = Preprocessing(224, (127.0,) * 3, (128.0,) * 3)
    calibration, evaluation = split(open_images(IMAGENET_MINI, *imagenet_classes()), n)
    found = lint(load_pixels(calibration, p), calibration, p, evaluation)
    assert [f.code for f in found if f.code != "few"] == []
    assert [f.severity for f in found] == ([] if n >= 100 else ["info"])


def test_the_sample_photographs_are_few_and_nothing_else_is_wrong() -> None:
    p = Preprocessing(224, (127.0,) * 3, (128.0,) * 3)
    images = open_images("sample", (), ())
    calibration, evaluation = split(images, 100)
    found = lint(load_pixels(calibration, p), calibration, p, evaluation)
    assert {f.code: f.severity for f in found} == {"few": "info"}
    assert "danger" not in [f.severity for f in lint(load_pixels(images, p), images, p)]
    refuse(found)


def test_made_photographs_have_nothing_wrong(tmp_path: Path) -> None:
    calibration, evaluation = split(folder(tmp_path, n=2 * N), N)
    assert findings(calibration, P, evaluation) == {}


def test_a_stream_is_as_good_as_an_array_and_twice_is_the_same(tmp_path: Path) -> None:
    images = folder(tmp_path, n=8)
    once = lint(stream(images, P, chunk=3), images, P)
    assert once == lint(load_pixels(images, P), images, P)
    assert once == lint(stream(images, P, chunk=3), images, P)


def test_a_hundred_pictures_are_looked_at_in_no_time(tmp_path: Path) -> None:
    images = folder(tmp_path, n=100, suffix="jpg")
    p = replace(P, resolution_px=224)
    pixels = load_pixels(images, p)
    start = time.process_time()
    lint(pixels, images, p)
    assert time.process_time() - start < 3  # measured 0.3 s; the machine may be busy


# --------------------------------------------------------------------------------------------------------- bad pictures


def normalised_lite(x: np.ndarray) -> np.ndarray:
    return (x - 127.0) / 128.0


def normalised_torch(x: np.ndarray) -> np.ndarray:
    return (x - np.array([123.7, 116.3, 103.5])) / np.array([58.4, 57.1, 57.4])  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("spoil", "severity"),
    [
        (lambda x: np.rint(x / 100), "danger"),  # about 0..1
        (lambda x: np.clip(np.rint(normalised_torch(x)), 0, 255), "danger"),
        (lambda x: normalised_torch(x).astype(np.int64), "danger"),  # wraps
        (lambda x: (normalised_lite(x) * 255).astype(np.int64), "danger"),  # wraps
        (lambda x: np.clip(normalised_lite(x) * 255, 0, 255), "warning"),  # cut at zero: could be dark pictures
    ],
)
def test_pictures_saved_after_they_were_normalised_are_told(
    spoil: Callable[[np.ndarray], np.ndarray], severity: str, tmp_path: Path
) -> None:
    images = folder(
        tmp_path, lambda i, rng: spoil(photograph(i, rng, 260, 300).astype(np.float64)).astype(np.uint8), n=10
    )
    found = findings(images, replace(P, resolution_px=224))
    assert found["normalised"].severity == severity
    assert "photographs as they were" in found["normalised"].remedy


def test_arrays_that_were_normalised_are_told(tmp_path: Path) -> None:
    images = folder(tmp_path, n=6)
    pixels = load_pixels(images, P).astype(np.float32)
    (found,) = (f for f in lint((pixels - 127) / 128, images, P) if f.severity == "danger")
    assert (found.code, found.remedy) == ("normalised", "give pixels of 0..255, which are normalised here, once")
    (found,) = (f for f in lint(pixels / 255, images, P) if f.severity == "danger")
    assert found.code == "normalised"
    assert "hold no value over 1 of 255" in found.message


@pytest.mark.parametrize(
    ("mean", "std", "says"),
    [
        ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "as if meant for pixels of 0..1"),
        ((127.0,) * 3, (128.0 * 255,) * 3, "normalised twice"),
    ],
)
def test_a_mean_and_std_of_the_wrong_unit_are_told(
    mean: tuple[float, float, float], std: tuple[float, float, float], says: str, tmp_path: Path
) -> None:
    found = findings(folder(tmp_path, n=6), Preprocessing(PX, mean, std))
    assert found["normalised"].severity == "danger"
    assert says in found["normalised"].message


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (0.0, 255.0), (127.0, 128.0), (116.0, 57.0), (103.9, 1.0)])
def test_every_usual_way_to_normalise_is_fine(mean: float, std: float, tmp_path: Path) -> None:
    assert findings(folder(tmp_path, n=6), Preprocessing(PX, (mean,) * 3, (std,) * 3)) == {}


@pytest.mark.parametrize("side", [32, 64, 73, 200])
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_random_numbers_are_told_at_any_size(side: int, suffix: str, tmp_path: Path) -> None:
    images = folder(tmp_path, lambda _, rng: rng.integers(0, 256, (side, side, 3), dtype=np.uint8), suffix=suffix)
    assert findings(images)["noise"].severity == "danger"


def test_a_few_pictures_of_noise_among_photographs_are_only_mentioned(tmp_path: Path) -> None:
    images = folder(
        tmp_path, lambda i, rng: rng.integers(0, 256, (90, 90, 3), dtype=np.uint8) if i < 2 else photograph(i, rng)
    )
    found = findings(images)
    assert found["noise"].severity == "info"
    assert "2 of 24" in found["noise"].message


@pytest.mark.parametrize(("copies", "severity"), [(1, "info"), (5, "warning"), (23, "danger")])
def test_copies_by_content_are_counted(copies: int, severity: str, tmp_path: Path) -> None:
    folder(tmp_path, n=N - copies)
    for i in range(copies):
        (tmp_path / f"copy_{i}.png").write_bytes((tmp_path / "000.png").read_bytes())
    images = open_images(tmp_path, (), ())
    found = findings(images)
    assert found["duplicates"].severity == severity
    assert f"{copies} of {N} pictures are copies" in found["duplicates"].message


def test_the_same_picture_saved_again_and_again_counts_once(tmp_path: Path) -> None:
    picture = Image.fromarray(photograph(0, np.random.default_rng(0)))
    for i in range(12):
        picture.resize((200 - 4 * i, 160 - 3 * i)).save(tmp_path / f"{i}.jpg", quality=60 + 3 * i)
    images = open_images(tmp_path, (), ())
    found = {f.code: f for f in lint(load_pixels(images, P), images, P)}
    assert (found["duplicates"].severity, found["few"].severity) == ("warning", "danger")
    assert "1 different picture to calibrate" in found["few"].message


@pytest.mark.parametrize(
    ("n", "severity"), [(1, "danger"), (2, "danger"), (3, "warning"), (19, "warning"), (20, "info")]
)
def test_fewer_than_enough_are_told(n: int, severity: str, tmp_path: Path) -> None:
    images = folder(tmp_path, n=n)
    (found,) = lint(load_pixels(images, P), images, P)
    assert (found.code, found.severity) == ("few", severity)
    assert f"{n} different picture" in found.message


def test_one_class_only_is_told_and_two_are_not(tmp_path: Path) -> None:
    for name, seed in (("cat", 0), ("dog", 1)):
        folder(tmp_path / name, n=6, seed=seed)
    both = open_images(tmp_path, CLASSES, CLASSES)
    assert "one-class" not in findings(both)
    found = findings(replace(both, labels=(0,) * len(both)))
    assert found["one-class"].severity == "warning"
    assert "all 12 labelled pictures" in found["one-class"].message


@pytest.mark.parametrize("side", [16, 30])
def test_pictures_smaller_than_the_input_are_told(side: int, tmp_path: Path) -> None:
    images = folder(tmp_path, lambda i, rng: photograph(i, rng, side, side + 8))
    found = findings(images)
    assert found["resolution"].severity == "warning"
    assert f"short side {side} px" in found["resolution"].message


def test_long_pictures_are_told(tmp_path: Path) -> None:
    images = folder(tmp_path, lambda i, rng: photograph(i, rng, 100, 300 if i % 2 else 150))
    assert findings(images)["aspect"].severity == "info"
    images = folder(tmp_path / "all", lambda i, rng: photograph(i, rng, 300, 100))
    assert findings(images)["aspect"].severity == "warning"


def test_gray_pictures_are_told(tmp_path: Path) -> None:
    images = folder(tmp_path, lambda i, rng: np.repeat(photograph(i, rng)[..., :1], 3, -1), suffix="jpg")
    assert findings(images)["grayscale"].severity == "warning"


@pytest.mark.parametrize("value", [0, 128, 255])
def test_blank_pictures_are_told(value: int, tmp_path: Path) -> None:
    images = folder(tmp_path, lambda i, _: np.full((80 + i, 90, 3), value, np.uint8))
    assert findings(images)["blank"].severity == "danger"


def test_equally_bright_pictures_are_told(tmp_path: Path) -> None:
    def make(i: int, rng: np.random.Generator) -> np.ndarray:
        x = photograph(i, rng).astype(np.float64)
        return np.clip(x - x[20:140, 40:160].mean() + 120, 0, 255).astype(np.uint8)

    assert findings(folder(tmp_path, make))["brightness"].severity == "warning"


# -------------------------------------------------------------------------------------------------------------- overlap


def test_a_picture_in_both_sets_is_told_whatever_its_name(tmp_path: Path) -> None:
    calibration = folder(tmp_path / "calibration", n=12)
    folder(tmp_path / "evaluation", n=40, seed=1)
    (tmp_path / "evaluation" / "renamed.png").write_bytes((tmp_path / "calibration" / "003.png").read_bytes())
    evaluation = open_images(tmp_path / "evaluation", (), ())
    found = findings(calibration, P, evaluation)["overlap"]
    assert found.severity == "danger"
    assert "1 by content" in found.message
    assert "003.png" in found.message


@pytest.mark.parametrize(("copied", "severity"), [(1, "warning"), (8, "danger")])
def test_a_picture_saved_again_in_the_other_set_is_told_by_its_look(copied: int, severity: str, tmp_path: Path) -> None:
    calibration = folder(tmp_path / "calibration", n=N)
    folder(tmp_path / "evaluation", n=40, seed=1)
    for i in range(copied):
        with Image.open(tmp_path / "calibration" / f"{i:03}.png") as picture:
            picture.resize((120, 96)).save(tmp_path / "evaluation" / f"other_{i}.jpg", quality=70)
    found = findings(calibration, P, open_images(tmp_path / "evaluation", (), ()))["overlap"]
    assert found.severity == severity
    assert f"{copied} of 24" in found.message


def test_two_sets_with_the_same_names_do_not_overlap(tmp_path: Path) -> None:
    a, b = folder(tmp_path / "a", n=8), folder(tmp_path / "b", n=8, seed=1)
    assert {Path(f).name for f in a.files} == {Path(f).name for f in b.files}
    assert "overlap" not in findings(a, P, b)


def test_a_look_survives_scaling_turning_by_exif_and_compression_and_no_other_picture_has_it(tmp_path: Path) -> None:
    original = Image.fromarray(photograph(0, np.random.default_rng(0)))
    original.save(tmp_path / "a.png")
    original.resize((90, 72)).save(tmp_path / "b.jpg", quality=50)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter; the viewer turns it back
    original.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "c.jpg", exif=exif)
    original.filter(ImageFilter.GaussianBlur(1)).convert("L").save(tmp_path / "d.jpg")
    Image.fromarray(photograph(1, np.random.default_rng(1))).save(tmp_path / "e.png")
    (tmp_path / "f.png").write_bytes(b"\x89PNG no more")
    seen = glances([str(tmp_path / f"{name}") for name in ("a.png", "b.jpg", "c.jpg", "d.jpg", "e.png", "f.png")])
    assert seen[5] is None
    assert seen[0] is not None
    assert (seen[0].width_px, seen[0].height_px, seen[0].short_px, seen[0].aspect) == (200, 160, 160, 1.25)
    assert looks_alike(seen[:1], seen).tolist() == [[True, True, True, True, False, False]]


def test_of_a_large_evaluation_set_the_content_is_always_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lint_module, "MAX_COMPARED", 3)
    calibration = folder(tmp_path / "a", n=8)
    assert "8 by content" in findings(calibration, P, calibration)["overlap"].message


# ------------------------------------------------------------------------------------------------------------- network


def network(*kinds: tuple[str, float]) -> Graph:
    b, x = Builder(1, 8, 8, 3), "image"
    for kind, constant in kinds:
        x = b.op(kind, [x, b.constant([constant])], (1, 8, 8, 3))
    return b.graph(x)


def test_a_network_that_normalises_by_itself_must_not_be_fed_normalised_pictures() -> None:
    inside = network(("MUL", 1 / 127.5), ("SUB", 1.0), ("CONV_2D", 1.0))
    (found,) = lint_network(inside, P)
    assert (found.code, found.severity) == ("normalised", "danger")
    assert "twice" in found.message
    assert lint_network(inside, Preprocessing(PX, (0.0,) * 3, (1.0,) * 3)) == []
    assert lint_network(network(("DIV", 255.0), ("CONV_2D", 1.0)), P)[0].severity == "danger"


def test_a_network_that_does_not_normalise_should_be_fed_normalised_pictures() -> None:
    plain = network(("CONV_2D", 0.01), ("MUL", 1e-3))
    assert lint_network(plain, P) == []
    (found,) = lint_network(plain, Preprocessing(PX, (0.0,) * 3, (1.0,) * 3))
    assert found.severity == "warning"
    assert "not normalised" in found.message


def test_the_network_is_looked_at_with_the_pictures(tmp_path: Path) -> None:
    images = folder(tmp_path, n=6)
    found = lint(load_pixels(images, P), images, P, graph=network(("MUL", 1 / 255), ("CONV_2D", 1.0)))
    assert found[0].code == "normalised"


# -------------------------------------------------------------------------------------------------------------- refusal


BAD = (
    Finding("few", "warning", "few", "more"),
    Finding("noise", "danger", "3 of 4 pictures are noise", "give photographs"),
    Finding("overlap", "danger", "2 are in both", "remove them"),
)


def test_dangerous_findings_stop_and_say_how_to_go_on() -> None:
    with pytest.raises(InputError) as caught:
        refuse(BAD)
    text = str(caught.value)
    assert "3 of 4 pictures are noise; give photographs. 2 are in both; remove them" in text
    assert text.endswith("--allow noise --allow overlap goes on")
    assert "\n" not in text


def test_what_is_allowed_does_not_stop() -> None:
    refuse(BAD, ("noise", "overlap"))
    refuse(BAD[:1])
    with pytest.raises(InputError, match="--allow overlap goes on"):
        refuse(BAD, ("noise",))


def test_an_unknown_code_lists_the_valid_ones() -> None:
    with pytest.raises(InputError, match=r"unknown --allow 'nois' \(valid: normalised, noise, .*brightness\)"):
        check_allowed(("nois",))


# --------------------------------------------------------------------------------------------------------- command line


def noise_folder(root: Path) -> Path:
    rng = np.random.default_rng(5)
    for label in range(5):
        (root / f"class_{label}").mkdir(parents=True)
        for i in range(4):
            noise = rng.integers(0, 256, (48, 48, 3), dtype=np.uint8)
            Image.fromarray(noise).save(root / f"class_{label}" / f"{i}.png")
    return root


EXPORT = ("export", "tiny", "--precision", "float32", "--precision", "int8")


def test_a_run_on_noise_stops_before_anything_is_written_and_goes_on_where_it_is_allowed(
    edgenet: Edgenet, tmp_path: Path
) -> None:
    photos, out = noise_folder(tmp_path / "photos"), tmp_path / "OUT"
    refused = edgenet(*EXPORT, "--images", photos, "--out", out)
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert "10 of 10 pictures are random noise" in refused.stderr
    assert "--allow noise goes on" in refused.stderr
    assert not out.exists()
    done = edgenet(*EXPORT, "--images", photos, "--out", out, "--allow", "noise")
    assert done.returncode == 0, done.stderr
    assert "Warning: 10 of 10 pictures are random noise" in done.stdout
    found = Results.load(out).context.calibration_findings
    assert ("noise", "danger") in {(f.code, f.severity) for f in found}


def test_without_a_calibrated_precision_nobody_looks_at_the_pictures(edgenet: Edgenet, tmp_path: Path) -> None:
    photos, out = noise_folder(tmp_path / "photos"), tmp_path / "OUT"
    done = edgenet("export", "tiny", "--precision", "float32", "--images", photos, "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["context"]["calibration_findings"] == []


@pytest.mark.parametrize(
    ("option", "says"),
    [(("--allow", "nois"), "unknown --allow 'nois'"), (("--target", "pixel"), "unknown target 'pixel'")],
)
def test_a_wrong_code_or_target_is_refused_and_nothing_is_written(
    option: tuple[str, str], says: str, edgenet: Edgenet, tiny_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "OUT"
    done = edgenet(*EXPORT, "--images", tiny_folder, "--out", out, *option)
    assert done.returncode == 2
    assert says in done.stderr
    assert "valid: " in done.stderr
    assert not out.exists()


def test_the_summary_says_what_was_found() -> None:
    from edgenet.report.recommendation import recommend

    found = [
        Finding("few", "info", "60 pictures", "give more"),
        Finding("one-class", "warning", "all of one class", "give all"),
        Finding("noise", "danger", "all noise", "give photographs"),
    ]
    notes = {n.text: n.loud for n in recommend(Results(Context(calibration_findings=tuple(found)))).notes}
    assert notes == {
        "Calibration pictures: all of one class; give all.": False,
        "Calibration pictures: all noise; give photographs.": True,
    }
