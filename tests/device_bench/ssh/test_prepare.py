"""prepare.py against a real sshd on loopback: boards that were never prepared, and what is missing or wrong there."""

import contextlib
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from edgenet.device_bench.ssh.connection import CONFIG_VARIABLE, bundle
from edgenet.device_bench.ssh.device import Board
from edgenet.device_bench.ssh.prepare import prepare
from edgenet.errors import DeviceError
from helpers import boards
from helpers.boards import BATCH, FakeBoard, Keys, connection
from helpers.boards import keys as keys

pytestmark = boards.needs_sshd

RNG = np.random.default_rng(0)
FAILS = '#!/bin/sh\ncase "$*" in *"{words}"*) echo "{says}" >&2; exit 1;; esac\nexec {python} "$@"\n'

NewBoard = Callable[..., FakeBoard]


@pytest.fixture
def new_board(tmp_path: Path, keys: Keys, monkeypatch: pytest.MonkeyPatch) -> Iterator[NewBoard]:
    """Start another board, and make it the one that is known."""
    with contextlib.ExitStack() as stack:

        def start(**options: object) -> FakeBoard:
            b = stack.enter_context(boards.board(tmp_path / "board", keys, **options))  # type: ignore[arg-type]
            monkeypatch.setenv(CONFIG_VARIABLE, str(b.config))
            return b

        yield start


def test_a_board_without_python_is_told_what_to_install(
    new_board: NewBoard, tiny_files: dict[str, Path], edgenet
) -> None:
    b = new_board(python="")
    with pytest.raises(DeviceError, match=r"has no Python: install Python 3\.9 or newer"):
        prepare(connection(b))
    done = edgenet("devices", "prepare", b.id)
    assert done.returncode == 3
    assert done.stderr.endswith("(apt install python3-venv)\n")
    with pytest.raises(DeviceError, match=f"is not set up for edgenet yet: run `edgenet devices prepare {b.id}` once"):
        Board(connection(b)).predict(tiny_files["int8"], BATCH)


def test_a_board_with_an_old_python_only_is_told_so(new_board: NewBoard) -> None:
    old = {"exe": "/usr/bin/python3", "version": [3, 7, 3], "machine": "armv7l", "bits": 32, "libc": "glibc"}
    b = new_board(python=f"#!/bin/sh\necho '{json.dumps(old)}'\n")
    with pytest.raises(DeviceError, match=r"has Python 3\.7\.3 only"):
        prepare(connection(b))


@pytest.mark.parametrize("said", ["/usr/bin/python3: No module named venv", "ensurepip is not available"])
def test_a_python_without_venv_names_the_package(new_board: NewBoard, said: str) -> None:
    b = new_board(python=FAILS.format(words="-m venv", says=said, python=boards.REAL_PYTHON))
    with pytest.raises(DeviceError, match=r"no venv module: sudo apt install python3\.\d+-venv"):
        prepare(connection(b))
    assert not (b.cache / "venv").exists()


def test_a_full_disk_is_told_with_what_is_needed(tmp_path: Path, keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    home.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(home)], capture_output=True).returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        with boards.board(tmp_path / "board", keys, home=home) as b:
            monkeypatch.setenv(CONFIG_VARIABLE, str(b.config))
            (tmp_path / "large").write_bytes(RNG.bytes(2_000_000))
            with pytest.raises(DeviceError, match=r"its disk is full: 2\.0 MB are needed in ~/\.cache/edgenet"):
                connection(b).carry([bundle("models", [("model.tflite", tmp_path / "large")])])
            assert list(b.cache.iterdir()) == [b.cache / "models"]  # nothing half-sent is left
            with pytest.raises(DeviceError, match="its disk is full"):
                prepare(connection(b))
    finally:
        subprocess.run(["umount", "--lazy", str(home)], check=True)


def test_a_folder_that_may_not_be_written_is_told(new_board: NewBoard, tmp_path: Path) -> None:
    b = new_board()
    (b.home / ".cache").write_text("a file stands where the folder should")
    (tmp_path / "a").write_text("a")
    with pytest.raises(DeviceError, match=r"cannot write to ~/\.cache/edgenet there: .*(Not a directory|File exists)"):
        connection(b).carry([bundle("models", [("model.tflite", tmp_path / "a")])])


@pytest.mark.slow
def test_a_runtime_that_crashes_there_gives_way_to_the_older_one(new_board: NewBoard, tmp_path: Path) -> None:
    folder = tmp_path / "wheels"
    crash = "import os\nos.abort()\n"
    boards.make_wheel(folder, "numpy", "1.26.4", {"numpy/__init__.py": ""})
    boards.make_wheel(
        folder, "ai_edge_litert", "9.0", {"ai_edge_litert/__init__.py": "", "ai_edge_litert/interpreter.py": crash}
    )
    boards.make_wheel(
        folder, "tflite_runtime", "2.14.0",
        {"tflite_runtime/__init__.py": "", "tflite_runtime/interpreter.py": "class Interpreter: pass\n"},
    )  # fmt: skip
    b = new_board()
    boards.give_environment(b)
    done = prepare(connection(b), wheels=folder)
    assert done.packages == {"numpy": "1.26.4", "tflite-runtime": "2.14.0"}
    assert done.done[-2:] == ("installing ai-edge-litert", "installing tflite-runtime")
