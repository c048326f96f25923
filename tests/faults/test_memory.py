"""Too little of what a system gives: memory, open files, processes. A line and a status, and nothing half done."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgenet import pipeline
from helpers.places import ROOT

MAIN = "from edgenet.__main__ import main; main()"
EXPORT = ("export", "tiny", "--precision", "int8", "--calibration-images", "5", "--images", "photos", "--out", "OUT")


def limited(limit: str, *args: object, cwd: Path) -> "subprocess.CompletedProcess[str]":
    """Start a command in an interpreter of its own, under a limit of the shell's."""
    command = ["sh", "-c", f'{limit}; exec "$@"', "sh", sys.executable, "-P", "-c", MAIN, *map(str, args)]
    one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=cwd, env={**os.environ, **one})


@pytest.mark.parametrize("mib", [120, 200, 300, 2000])
def test_a_limit_of_memory_ends_in_an_answer_or_in_a_line(
    mib: int, tiny_files: dict[str, Path], tmp_path: Path
) -> None:
    done = limited(f"ulimit -v {mib * 1024}", "inspect", tiny_files["int8"], cwd=tmp_path)
    assert "Traceback" not in done.stderr, done.stderr
    if done.returncode == 0:
        assert "int8" in done.stdout
        return
    assert mib < 2000, done.stderr
    assert done.returncode in (2, 3), (done.returncode, done.stderr)
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("edgenet: ")


@pytest.mark.parametrize("files", [8, 12, 20, 64])
def test_a_limit_of_open_files_ends_in_an_answer_or_in_a_line(
    files: int, tiny_files: dict[str, Path], tmp_path: Path
) -> None:
    done = limited(f"ulimit -n {files}", "inspect", tiny_files["int8"], cwd=tmp_path)
    assert "Traceback" not in done.stderr, done.stderr
    if done.returncode == 0:
        assert "int8" in done.stdout
        return
    assert files < 64, done.stderr
    assert done.returncode in (2, 3), (done.returncode, done.stderr)
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("edgenet: ")


@pytest.mark.parametrize("stage", ["_export", "_evaluate", "bench_devices"])
def test_memory_that_ends_in_any_stage_of_a_run_is_status_3_and_a_line(
    stage: str, refused: Any, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny_folder, tmp_path / "photos")

    def fail(*args: object, **more: object) -> None:
        raise MemoryError

    for name in ("_export", "_evaluate", "bench_devices"):
        monkeypatch.setattr(pipeline, name, fail if name == stage else lambda *args, **more: None)
    line = refused("run", *EXPORT[1:-1], tmp_path / "OUT", status=3)
    assert "this machine has too little memory for that" in line


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ENOMEM, errno.EMFILE], ids=errno.errorcode.get)
@pytest.mark.parametrize("command", ["inspect", "bench"])
def test_a_process_that_cannot_be_started_is_a_line(
    command: str, number: int, refused: Any, tiny_files: dict[str, Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    model = shutil.copy(tiny_files["int8"], tmp_path / "tiny.tflite")

    def fail(*args: object, **more: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(subprocess, "Popen", fail)
    line = refused(command, model, status=3)
    assert "cannot start" in line
    assert os.strerror(number) in line
    assert str(ROOT) not in line.replace(sys.executable, "")
