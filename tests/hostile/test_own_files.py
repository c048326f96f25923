"""Files of the user's in the output folder, by names that edgenet would give: none is replaced, none is deleted."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgenet import cli, pipeline
from edgenet.files import LOCK_FILE, PARTS
from helpers import tiny

EXPORT = ("export", "tiny", "--precision", "float32", "--out", "OUT")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "OUT").mkdir()
    return tmp_path / "OUT"


@pytest.fixture
def done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run a command that ends well."""
    monkeypatch.setattr(pipeline, "find_source", tiny.source)
    monkeypatch.chdir(tmp_path)

    def run(*args: str) -> None:
        ended = CliRunner().invoke(cli.main, list(args), prog_name="edgenet")
        assert ended.exit_code == 0, ended.output

    return run


def files(folder: Path) -> dict[str, bytes | str]:
    """Return what is below a folder: content of files, targets of links. Only times of folders may change."""
    below = {p: os.readlink(p) if p.is_symlink() else p.read_bytes() for p in folder.rglob("*") if not p.is_dir()}
    return {p.relative_to(folder).as_posix(): held for p, held in below.items()}


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Run a command that must be refused and leave every file as it is; return its line."""
    monkeypatch.setattr(pipeline, "find_source", tiny.source)
    monkeypatch.chdir(tmp_path)

    def run(*args: str) -> str:
        before = files(tmp_path)
        ended = CliRunner().invoke(cli.main, list(args), prog_name="edgenet")
        assert ended.exit_code == 2, ended.output
        assert ended.stdout == ""
        assert ended.stderr.startswith("edgenet: ")
        assert ended.stderr.count("\n") == 1
        assert files(tmp_path) == before
        return ended.stderr

    return run


def test_a_file_of_the_users_by_the_name_of_an_output_is_not_replaced_however_often(
    out: Path, kept: Callable[..., str]
) -> None:
    (out / "tiny_float32.tflite").write_text("mine")
    for _ in range(2):
        assert "edgenet did not make it" in kept(*EXPORT)


def test_a_link_by_the_name_of_an_output_is_not_replaced(out: Path, kept: Callable[..., str]) -> None:
    (out / "tiny_float32.tflite").symlink_to("../elsewhere")
    assert "edgenet did not make it" in kept(*EXPORT)


def test_a_file_of_the_users_is_not_replaced_in_the_folder_of_an_earlier_run_either(
    out: Path, done: Callable[..., None]
) -> None:
    done(*EXPORT)
    (out / "tiny_float32.onnx").write_text("mine")
    ended = CliRunner().invoke(cli.main, [*EXPORT, "--format", "onnx"], prog_name="edgenet")
    assert ended.exit_code == 2
    assert "edgenet did not make it" in ended.stderr
    assert (out / "tiny_float32.onnx").read_text() == "mine"


def test_what_an_earlier_run_made_is_made_again(out: Path, done: Callable[..., None]) -> None:
    done(*EXPORT)
    (out / "tiny_float32.tflite").write_bytes(b"damaged")
    done(*EXPORT)
    assert (out / "tiny_float32.tflite").stat().st_size > 10_000


def test_what_a_killed_run_made_and_did_not_list_is_made_again(out: Path, done: Callable[..., None]) -> None:
    (out / "tiny_float32.tflite").write_text("of the run that was killed")
    (out / LOCK_FILE).touch()
    done(*EXPORT)
    assert (out / "tiny_float32.tflite").stat().st_size > 10_000


def test_an_int8_file_of_the_users_is_not_replaced(
    tiny_folder: Path, out: Path, kept: Callable[..., str], tmp_path: Path
) -> None:
    shutil.copytree(tiny_folder, tmp_path / "photos")
    (out / "tiny_int8.tflite").write_text("mine")
    args = ("export", "tiny", "--precision", "int8", "--images", "photos", "--calibration-images", "10")
    assert "edgenet did not make it" in kept(*args, "--out", "OUT")


def test_a_file_in_edgenets_folder_for_parts_stays_where_edgenet_would_not_name_it_so(
    out: Path, done: Callable[..., None]
) -> None:
    (out / PARTS).mkdir()
    (out / PARTS / "mine.txt").write_text("mine")
    (out / PARTS / "tiny_int8.tflite.a1b2_c3d.tflite").write_text("half written by a run that was killed")
    done(*EXPORT)
    assert os.listdir(out / PARTS) == ["mine.txt"]


def test_nothing_is_written_through_a_link_by_the_name_of_the_folder_for_parts(
    out: Path, tmp_path: Path, kept: Callable[..., str]
) -> None:
    (tmp_path / "mine").mkdir()
    (out / PARTS).symlink_to("../mine")
    assert "is a link" in kept(*EXPORT)
