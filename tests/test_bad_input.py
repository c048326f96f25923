"""What users get wrong: one line on stderr that says what, why and what to do; exit status 2; nothing half-written."""

import io
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgenet.export.tflite_file import write_tflite
from edgenet.files import sha256_of
from edgenet.jobs.output_folder import exclusive
from edgenet.models import weights, zoo
from edgenet.results import Results
from helpers import tiny
from helpers.command_line import Done, Edgenet

MODEL = "efficientnet-lite0"


def assert_refused(done: Done, *says: str, status: int = 2) -> None:
    assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("edgenet: ")
    assert "Traceback" not in done.stderr
    assert "Error" not in done.stderr  # the name of an exception means nothing to a user
    for text in says:
        assert text in done.stderr, (text, done.stderr)


@pytest.fixture
def check_refused(edgenet: Edgenet, tmp_path: Path) -> Callable[..., None]:
    """Run a command with --out OUT; it must be refused for the reasons given, and OUT must not be there."""

    def check(*args: object, says: tuple[str, ...], **options: object) -> None:
        out = tmp_path / "OUT"
        assert_refused(edgenet(*args, "--out", out, **options), *says)
        assert not out.exists()

    return check


# ----------------------------------------------------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["run", "efficientnet-lit0"], ("unknown model 'efficientnet-lit0'", "efficientnet-lite0", "efficientnet-b7")),
        (["run", "tiny", "--precision", "int3"], ("unknown precision 'int3'", "float32", "int16x8")),
        (["run", "tiny", "--format", "coreml"], ("unknown format 'coreml'", "tflite")),
        (["run", "tiny", "--format", "openvino", "--precision", "dynamic"], ("openvino", "dynamic", "valid: ")),
        (["run", "tiny", "--io", "float16"], ("unknown io 'float16'", "uint8")),
        (["run", "tiny", "--device", "phone"], ("unknown device 'phone'", "local")),
        (["run", "tiny", "--threads", "0"], ("--threads must be at least 1",)),
        (["run", "tiny", "--calibration-images", "0"], ("--calibration-images must be at least 1",)),
        (["run", "tiny", "--limit", "1"], ("--limit must be at least 2",)),
        (["run", "nothing.toml"], ("no recipe nothing.toml",)),
        (["run", "efficientnet-lite0", "--weights", "no.pth"], ("no.pth",)),
        (
            ["run", "efficientnet-b0"],
            ("no package carries weights of efficientnet-b0", "--weights", "--random-weights"),
        ),
        (["run", "efficientnet-lite0", "--weights", "x", "--random-weights"], ("exclude each other",)),
    ],
)
def test_a_wrong_argument_is_refused(
    args: list[str], says: tuple[str, ...], check_refused: Callable[..., None], tiny_folder: Path
) -> None:
    check_refused(*args, "--images", tiny_folder, says=says)


@pytest.mark.parametrize("precision", ["int8", "int16x8"])
def test_full_integer_without_images_is_refused(precision: str, check_refused: Callable[..., None]) -> None:
    check_refused(
        "export", "tiny", "--precision", precision, says=(f"precision {precision} needs images", "--images", "sample")
    )


def test_a_wrong_name_is_told_before_missing_images(check_refused: Callable[..., None]) -> None:
    check_refused("export", "efficientnet-lite9", says=("unknown model 'efficientnet-lite9'",))


def test_a_run_without_images_is_refused(check_refused: Callable[..., None]) -> None:
    check_refused("run", "tiny", "--precision", "float32", says=("needs images", "--images"))


def test_a_run_without_an_output_folder_is_refused(edgenet: Edgenet, tiny_folder: Path, tmp_path: Path) -> None:
    assert_refused(edgenet("run", "tiny", "--images", tiny_folder, cwd=tmp_path), "--out is missing")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("option", ["--out", "--images", "--weights"])
def test_an_empty_path_is_not_the_current_folder(option: str, edgenet: Edgenet, tmp_path: Path) -> None:
    given = {"--out": "OUT", "--images": "photos", option: ""}
    done = edgenet("run", "tiny", *(word for pair in given.items() for word in pair), cwd=tmp_path)
    assert_refused(done, f"{option} is empty")
    assert list(tmp_path.iterdir()) == []


# -------------------------------------------------------------------------------------------------------------- images


def test_a_folder_that_is_not_there_is_refused(check_refused: Callable[..., None], tmp_path: Path) -> None:
    check_refused("run", "tiny", "--images", tmp_path / "nowhere", says=("no folder", "nowhere", "sample"))


def test_an_empty_folder_is_refused(check_refused: Callable[..., None], tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    check_refused("run", "tiny", "--images", tmp_path / "photos", says=("no photographs in", "it is empty", ".jpg"))


def test_a_folder_of_text_files_is_refused(check_refused: Callable[..., None], tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for i in range(3):
        (tmp_path / "photos" / f"{i}.txt").write_text("hello")
    check_refused("run", "tiny", "--images", tmp_path / "photos", says=("no photographs in", "3 x .txt"))


def test_text_files_called_jpg_are_refused(check_refused: Callable[..., None], tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for i in range(3):
        (tmp_path / "photos" / f"{i}.jpg").write_text("hello")
    check_refused("run", "tiny", "--images", tmp_path / "photos", says=("not an image", "0.jpg"))


def test_a_file_in_the_place_of_the_folder_is_refused(check_refused: Callable[..., None], tiny_folder: Path) -> None:
    photo = next(tiny_folder.glob("*/*.jpg"))
    check_refused("run", "tiny", "--images", photo, says=("is a file, not a folder",))


def test_truncated_pictures_are_named_when_they_are_more_than_a_hundredth(
    edgenet: Edgenet, tiny_folder: Path, tmp_path: Path
) -> None:
    folder, out = Path(shutil.copytree(tiny_folder, tmp_path / "photos")), tmp_path / "OUT"
    for photo in folder.glob("*/[0-3].jpg"):
        photo.write_bytes(photo.read_bytes()[:400])
    for precision in ("float32", "int8"):  # found as it measures, and as it calibrates
        asked = ("--precision", precision, "--calibration-images", 10, "--images", folder)
        assert_refused(edgenet("run", "tiny", *asked, "--out", out), "truncated", ".jpg", "1 %")
        assert not list(out.glob(".*"))
        whole = {a.path: a.sha256 for a in Results.load(out).artifacts} if out.exists() else {}
        assert {p.name: sha256_of(p) for p in out.glob("*.tflite")} == whole  # what was written is whole, and known


def test_one_truncated_picture_among_many_is_skipped_and_counted(edgenet: Edgenet, tmp_path: Path) -> None:
    folder = tiny.make_folder(tmp_path / "photos", per_class=41)
    bad = sorted(folder.glob("class_2/*.jpg"))[20]
    bad.write_bytes(bad.read_bytes()[:400])
    out = tmp_path / "OUT"
    asked = ("--precision", "float32", "--calibration-images", 1, "--images", folder)
    done = edgenet("run", "tiny", *asked, "--out", out)
    assert done.returncode == 0, done.stderr
    e = Results.load(out).evaluations[0]
    assert (e.n_images, e.n_skipped) == (203, 1)


def test_a_class_folder_that_the_labels_do_not_know_is_refused(
    check_refused: Callable[..., None], tiny_folder: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "photos"))
    (folder / "class_4").rename(folder / "clas_4")
    check_refused(
        "run", "tiny", "--images", folder, says=("clas_4", "is not a class of this model", "near: class 4", "0 to 4")
    )


def test_a_single_picture_cannot_calibrate_and_measure(
    check_refused: Callable[..., None], tiny_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "photos").mkdir()
    shutil.copy(next(tiny_folder.glob("*/*.jpg")), tmp_path / "photos")
    check_refused("run", "tiny", "--images", tmp_path / "photos", says=("holds 1 picture,", "two or more"))


# ------------------------------------------------------------------------------------------------------------- weights


def test_weights_of_another_variant_are_refused_by_name(
    check_refused: Callable[..., None], tiny_folder: Path, tmp_path: Path
) -> None:
    lite1 = zoo.spec("efficientnet-lite1")
    style = next(s for s in weights.STYLES if not s.torch)
    theirs = {ours: name for name, ours in style.names(lite1).items()}
    path = tmp_path / "w.npz"
    np.savez(path, **{theirs[name]: a for name, a in weights.random(lite1).arrays.items()})
    check_refused(
        "run", MODEL, "--weights", path, "--images", tiny_folder,
        says=("the weights of efficientnet-lite1, not of efficientnet-lite0", "run edgenet with efficientnet-lite1"),
    )  # fmt: skip


class _Calls:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (self.command,)


@pytest.mark.parametrize("container", ["pickle", "zip"])
def test_a_pickle_that_calls_os_system_is_refused_and_does_not_run(
    container: str, check_refused: Callable[..., None], tiny_folder: Path, tmp_path: Path
) -> None:
    path, mark = tmp_path / "w.pth", tmp_path / "ran"
    evil = pickle.dumps({"_conv_stem.weight": _Calls(f"touch {mark}")}, protocol=2)
    if container == "zip":
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as z:
            z.writestr("archive/data.pkl", evil)
            z.writestr("archive/version", "3\n")
        evil = buffer.getvalue()
    path.write_bytes(evil)
    check_refused("run", MODEL, "--weights", path, "--images", tiny_folder, says=(str(path), "system"))
    assert not mark.exists()


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89PNG\r\n\x1a\n", bytes(1000)])
def test_a_file_that_holds_no_weights_is_refused(
    content: bytes, check_refused: Callable[..., None], tiny_folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(content)
    check_refused("run", MODEL, "--weights", path, "--images", tiny_folder, says=(str(path),))


# ------------------------------------------------------------------------------------------------------- output folder


@pytest.mark.parametrize("command", ["run", "export"])
def test_a_network_with_nan_in_its_weights_is_refused_before_anything_is_written(
    command: str, check_refused: Callable[..., None], tiny_folder: Path, tmp_path: Path
) -> None:
    g = tiny.graph()
    data = np.full_like(g.tensors["head_w"].data, np.nan)
    g.tensors["head_w"] = replace(g.tensors["head_w"], data=data)
    model = tmp_path / "diverged.tflite"
    model.write_bytes(write_tflite(g))
    how = ("--images", tiny_folder, "--preprocess", "mean=127 std=128", "--precision", "int8")
    check_refused(command, model, *how, says=("diverged", "weights head_w are NaN or infinity", "before training"))


def test_an_output_folder_that_is_a_file_is_refused(edgenet: Edgenet, tiny_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "OUT"
    out.write_text("mine")
    assert_refused(edgenet("run", "tiny", "--images", tiny_folder, "--out", out), "OUT is a file", "folder")
    assert_refused(edgenet("run", "tiny", "--images", tiny_folder, "--out", out / "below"), "OUT", "--out")
    assert out.read_text() == "mine"


def test_an_output_folder_in_use_is_refused(edgenet: Edgenet, tiny_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "OUT"
    with exclusive(out):
        assert_refused(edgenet("run", "tiny", "--images", tiny_folder, "--out", out), "in use by another run", "wait")
        assert [p.name for p in out.iterdir()] == [".edgenet.lock"]


def test_an_output_folder_with_another_programs_results_is_refused(
    edgenet: Edgenet, tiny_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "OUT"
    out.mkdir()
    for text, says in (
        ("{", "not a results file"),
        ("[]", "schema"),
        ('{"schema": 99}', "schema 99"),
        ('{"schema": 1}', "is damaged (.artifacts must be a list"),
    ):
        (out / "results.json").write_text(text)
        assert_refused(edgenet("run", "tiny", "--images", tiny_folder, "--out", out), "results.json", says)
        assert (out / "results.json").read_text() == text
        assert [p.name for p in out.iterdir()] == ["results.json"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_output_folder_that_is_read_only_is_refused(edgenet: Edgenet, tiny_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    assert_refused(
        edgenet("run", "tiny", "--images", tiny_folder, "--out", tmp_path / "closed" / "OUT"), "cannot write"
    )


@pytest.mark.parametrize("room_bytes", [0, 4000, 23_500])  # the model has 22.5 kB, the report 24.5 kB
def test_a_full_disk_is_one_line_and_leaves_no_half_file(
    room_bytes: int, edgenet: Edgenet, tiny_folder: Path, tmp_path: Path
) -> None:
    """No file may grow beyond the limit, as when the disk is full: the kernel refuses the write."""
    out = tmp_path / "OUT"
    asked = ("run", "tiny", "--precision", "float32", "--calibration-images", 10, "--images", tiny_folder, "--out", out)
    assert_refused(edgenet(*asked, room_bytes=room_bytes), "cannot write", str(out), "--out")
    assert not list(out.glob(".*")) if out.exists() else True
    if (out / "results.json").exists():
        for a in Results.load(out).artifacts:
            assert (out / a.path).stat().st_size == a.size_bytes
    assert edgenet(*asked).returncode == 0  # with room again, the same command goes on
    assert (out / "report.html").exists()


# ------------------------------------------------------------------------------------------------- the other commands


@pytest.mark.parametrize("command", ["inspect", "evaluate", "bench", "report"])
def test_a_file_that_is_not_there_is_refused(command: str, edgenet: Edgenet, tiny_folder: Path, tmp_path: Path) -> None:
    images = ("--images", tiny_folder) if command == "evaluate" else ()
    assert_refused(edgenet(command, tmp_path / "nothing.tflite", *images), "nothing.tflite")


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04" + bytes(60), bytes(4) + b"TFL3" + bytes(60)])
@pytest.mark.parametrize("command", ["inspect", "evaluate"])
def test_a_file_that_is_no_model_is_refused(
    command: str, content: bytes, edgenet: Edgenet, tiny_folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / "net.tflite"
    path.write_bytes(content)
    images = ("--images", tiny_folder) if command == "evaluate" else ()
    assert_refused(edgenet(command, path, *images), "net.tflite")


def test_evaluate_without_images_is_refused(edgenet: Edgenet, tiny_files: dict[str, Path]) -> None:
    assert_refused(edgenet("evaluate", tiny_files["int8"]), "needs images", "--images")


def test_files_that_take_different_pixels_are_not_evaluated_together(
    edgenet: Edgenet, tiny_files: dict[str, Path], tiny_folder: Path, tmp_path: Path
) -> None:
    import dataclasses

    from edgenet.export import export_graph

    network = tiny.network()
    other = dataclasses.replace(
        network, name="other", preprocessing=dataclasses.replace(network.preprocessing, mean=(0.0,) * 3)
    )
    a = export_graph(other, other.graph, tmp_path, format="tflite", precision="float32")
    done = edgenet("evaluate", tiny_files["float32"], tmp_path / a.path, "--images", tiny_folder)
    assert_refused(done, "do not take the same pixels")


def test_a_file_that_edgenet_did_not_write_is_not_guessed_at(
    edgenet: Edgenet, tiny_folder: Path, tmp_path: Path
) -> None:
    from edgenet.export.tflite_file import write_tflite

    path = tmp_path / "foreign.tflite"
    path.write_bytes(write_tflite(tiny.graph()))
    assert_refused(
        edgenet("evaluate", path, "--images", tiny_folder), "foreign.tflite", "does not say how its input is made"
    )


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["evaluate", "FILE", "--images", "PHOTOS", "--limit", "0"], "--limit must be at least 1"),
        (["bench", "FILE", "--threads", "0"], "--threads must be at least 1"),
        (["bench", "FILE", "--device", "phone"], "unknown device 'phone'"),
        (["bench", "FILE", "PHOTOS"], "is not a model file by its name"),
        (["evaluate", "FILE", "--images", "PHOTOS", "--reference", "gone.tflite"], "gone.tflite"),
    ],
)
def test_wrong_numbers_and_names_are_refused_everywhere(
    args: list[str], says: str, edgenet: Edgenet, tiny_files: dict[str, Path], tiny_folder: Path
) -> None:
    replaced = [a.replace("FILE", str(tiny_files["int8"])).replace("PHOTOS", str(tiny_folder)) for a in args]
    assert_refused(edgenet(*replaced), says)


def test_a_report_of_a_folder_without_results_is_refused(edgenet: Edgenet, tmp_path: Path) -> None:
    assert_refused(edgenet("report", tmp_path), "no results.json", "--out")
    assert list(tmp_path.iterdir()) == []
