"""Disks that are full, read-only or broken, folders that go, and what may not be read or written.

RLIMIT_FSIZE in `run` is in tests/test_bad_input.py, OUT removed on the way in tests/hostile/test_files.py, a full
board or phone with its device's tests.
"""

import ctypes
import errno
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from edgenet import cli, pipeline
from edgenet.errors import DeviceError, InputError
from edgenet.files import PARTS, atomic_folder, atomic_write
from edgenet.results import Results
from helpers import tiny
from helpers.command_line import Edgenet
from helpers.hand_built import some_results

MAIN = "from edgenet.__main__ import main; main()"

# --------------------------------------------------------------------------------------------------- a write that fails

CALLS = ("os.fsync", "os.replace", "tempfile.mkstemp")
ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EACCES)


@pytest.mark.parametrize("number", ERRORS, ids=errno.errorcode.get)
@pytest.mark.parametrize("call", CALLS)
def test_a_write_that_fails_leaves_the_old_file_and_nothing_half_written(
    call: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "results.json"
    path.write_text("old")

    def fail(*args: object, **more: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(call, fail)
    with (
        pytest.raises(InputError, match=rf"^cannot write {path}: {os.strerror(number)}; .*--out"),
        atomic_write(path) as part,
    ):
        part.write_text("new")
    monkeypatch.undo()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["results.json"]


def test_a_folder_that_cannot_be_made_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "handoff").mkdir()
    (tmp_path / "handoff/mine").write_text("mine")

    def fail(*args: object, **more: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("tempfile.mkdtemp", fail)
    with pytest.raises(InputError, match="No space left on device"), atomic_folder(tmp_path / "handoff"):
        pass
    assert (tmp_path / "handoff/mine").read_text() == "mine"
    assert not (tmp_path / PARTS).exists()


# ---------------------------------------------------------------------------------------------------------- a full disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB; mounting one takes root."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(place)], capture_output=True)
    if mounted.returncode:
        pytest.skip("a disk cannot be mounted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


EXPORT = ("export", "tiny", "--precision", "float32", "--precision", "int8", "--calibration-images", 10)


def test_a_disk_without_room_is_told_before_any_work(small_disk: Path, edgenet: Edgenet, tiny_folder: Path) -> None:
    (small_disk / "mine").write_bytes(bytes(7 << 20))
    done = edgenet(*EXPORT, "--images", tiny_folder, "--out", small_disk / "OUT")
    assert done.returncode == 2
    assert "OUT has 1 MB free, and about 5 MB will be written: make room" in done.stderr
    assert [p.name for p in small_disk.iterdir()] == ["mine"]


def test_a_disk_that_fills_up_on_the_way_is_a_line_and_the_same_command_goes_on(
    small_disk: Path, edgenet: Edgenet, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "find_source", tiny.source)
    export = pipeline._export

    def filling(*args: Any) -> Any:
        with suppress(OSError), open(small_disk / "mine", "wb", buffering=0) as f:
            while True:
                f.write(bytes(4096))
        return export(*args)

    monkeypatch.setattr(pipeline, "_export", filling)
    asked = [str(a) for a in (*EXPORT, "--images", tiny_folder, "--out", small_disk / "OUT")]
    done = CliRunner().invoke(cli.main, asked)
    assert done.exit_code == 2, done.output
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"edgenet: cannot write {small_disk}/OUT/")
    assert "No space left on device" in last
    assert not list((small_disk / "OUT").rglob("*.tflite"))
    (small_disk / "mine").unlink()
    assert edgenet(*asked).returncode == 0
    assert len(Results.load(small_disk / "OUT").artifacts) == 2


@pytest.mark.parametrize("command", ["report", "handoff", "explain"])
def test_a_command_that_has_no_room_changes_nothing_that_is_there(
    command: str, edgenet: Edgenet, tiny_folder: Path, tiny_files: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "OUT"
    some_results().save(out)
    (out / "report.html").write_text("old")
    model = shutil.copy(tiny_files["int8"], tmp_path / "tiny.tflite")
    args: tuple[object, ...] = {
        "report": ("report", out),
        "handoff": ("handoff", model, "--images", tiny_folder, "--out", tmp_path / "app"),
        "explain": ("bench", model, "--explain", "--out", out),
    }[command]
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    done = edgenet(*args, room_bytes=0)
    assert done.returncode in (2, 3), (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


# ------------------------------------------------------------------------------------------------------ folders that go


def run_where(code: str, *args: object, cwd: Path, **env: str) -> "subprocess.CompletedProcess[str]":
    """Start edgenet in an interpreter of its own; `code` comes first."""
    command = [sys.executable, "-P", "-c", code + MAIN, *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=cwd, env={**os.environ, **env})


@pytest.mark.parametrize("args", [("classes", "fridge"), ("inspect", "model.tflite"), ("report", "OUT")], ids=str)
def test_a_working_folder_that_was_removed_is_no_traceback(args: tuple[str, ...], tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    done = run_where("import os; os.rmdir(os.getcwd()); ", *args, cwd=gone)
    assert done.returncode == (0 if args[0] == "classes" else 2), done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == (0 if args[0] == "classes" else 1), done.stderr


@pytest.mark.parametrize("name", ["TMPDIR", "HOME", "XDG_CACHE_HOME"])
@pytest.mark.parametrize("where", ["/nowhere/at/all", "/dev/null", "/proc"])
def test_a_folder_of_the_system_that_cannot_be_written_to_keeps_no_file_from_being_inspected(
    name: str, where: str, tiny_files: dict[str, Path], tmp_path: Path
) -> None:
    done = run_where("", "inspect", tiny_files["int8"], cwd=tmp_path, **{name: where})
    assert done.returncode == 0, done.stderr
    assert "int8" in done.stdout


def test_the_folder_of_a_held_output_that_is_replaced_is_told_at_the_next_write(tmp_path: Path) -> None:
    from edgenet.jobs.output_folder import exclusive

    out = tmp_path / "OUT"
    with pytest.raises(DeviceError, match="was removed or replaced"), exclusive(out):  # noqa: PT012
        out.rename(tmp_path / "moved")
        out.mkdir()
        with atomic_write(out / "results.json") as part:
            part.write_text("x")
    assert list(out.iterdir()) == []


# ------------------------------------------------------------------------------------------------ what is not allowed


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


def _set_powers(effective: int, permitted: int) -> bool:
    """Set what this thread may do (capset, Linux); what is permitted can be taken again."""
    libc = ctypes.CDLL(None, use_errno=True)
    header, low = _Header(0x20080522, 0), 0xFFFFFFFF
    data = struct.pack("=6I", effective & low, permitted & low, 0, effective >> 32, permitted >> 32, 0)
    return bool(libc.capset(ctypes.byref(header), ctypes.c_char_p(data)) == 0)


@pytest.fixture
def as_anyone() -> Iterator[None]:
    """Root reads and writes everything; not in this test."""
    if os.geteuid() != 0:
        yield
        return
    status = Path("/proc/self/status").read_text()
    permitted = int(next(line for line in status.splitlines() if line.startswith("CapPrm")).split()[1], 16)
    override = 1 << 1 | 1 << 2  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    assert _set_powers(permitted & ~override, permitted)
    yield
    assert _set_powers(permitted, permitted)


RECIPE = 'model = "efficientnet-lite0"\nout = "OUT"\nimages = "photos"\n'


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("model.tflite", ("inspect", "model.tflite")),
        ("model.tflite", ("bench", "model.tflite")),
        ("photos", ("export", "tiny", "--precision", "int8", "--images", "photos", "--out", "OUT")),
        ("photos/class_1", ("export", "tiny", "--precision", "int8", "--images", "photos", "--out", "OUT")),
        ("photos/class_1/0.jpg", ("export", "tiny", "--precision", "int8", "--images", "photos", "--out", "OUT")),
        ("recipe.toml", ("run", "recipe.toml")),
        ("DONE/results.json", ("report", "DONE")),
        ("DONE", ("report", "DONE")),
    ],
    ids=lambda v: v if isinstance(v, str) else v[0],
)
def test_what_may_not_be_read_is_named(
    name: str, args: tuple[str, ...], refused: Any, tiny_folder: Path, tiny_files: dict[str, Path], tmp_path: Path,
    as_anyone: None,
) -> None:  # fmt: skip
    shutil.copytree(tiny_folder, tmp_path / "photos")
    shutil.copy(tiny_files["int8"], tmp_path / "model.tflite")
    (tmp_path / "recipe.toml").write_text(RECIPE)
    some_results().save(tmp_path / "DONE")
    place = tmp_path / name
    mode = place.stat().st_mode
    place.chmod(0)
    try:
        line = refused(*args)
    finally:
        place.chmod(mode)
    assert Path(name).name in line
    assert "ermission denied" in line or "may read" in line


@pytest.mark.parametrize("place", [".", "OUT"])
def test_a_folder_that_may_not_be_written_to_is_refused_before_any_work(
    place: str, refused: Any, tiny_folder: Path, tmp_path: Path, as_anyone: None
) -> None:
    (tmp_path / "OUT").mkdir()
    (tmp_path / place).chmod(0o555)
    out = "OUT" if place == "OUT" else "NEW/OUT"
    try:
        line = refused("export", "tiny", "--precision", "float32", "--images", tiny_folder, "--out", out)
    finally:
        (tmp_path / place).chmod(0o755)
    assert "--out" in line
    assert "ermission denied" in line
    assert len(list(tiny_folder.iterdir())) == tiny.CLASSES
