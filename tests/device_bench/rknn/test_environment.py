"""environment.py: `devices prepare rknn` with wheels of a few hundred bytes in the place of rknn-toolkit2 and PyTorch.

Under the mark `device` the real ones are installed.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgenet.cli import main
from edgenet.device_bench.rknn import environment
from edgenet.errors import DeviceError, InputError

LIST = [("torch", "2.13.0+cpu"), ("rknn-toolkit2", "2.5.0"), ("tqdm", "4.67.1")]
PREPARE = ["devices", "prepare", "rknn", "--wheels"]


def wheel(folder: Path, name: str, version: str, files: dict[str, str]) -> None:
    plain = name.replace("-", "_").replace(".", "_")
    known = f"{plain}-{version}.dist-info"
    files = files | {
        f"{known}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nRequires-Dist: nobody-has-it\n",
        f"{known}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{n},,\n" for n in (*files, f"{known}/RECORD"))
    with zipfile.ZipFile(folder / f"{plain}-{version}-py3-none-any.whl", "w") as z:
        for n, text in (files | {f"{known}/RECORD": record}).items():
            z.writestr(n, text)


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A short list, and a wheel of each. They need what no index has: dependencies must not be looked at."""
    (tmp_path / "list.txt").write_text("# why\n" + "".join(f"{name}=={version}\n" for name, version in LIST))
    monkeypatch.setattr(environment, "_LIST", tmp_path / "list.txt")
    folder = tmp_path / "wheels"
    folder.mkdir()
    for name, version in LIST:
        files = {f"{name.replace('-', '_').replace('.', '_')}_here.py": ""}
        if name == "rknn-toolkit2":
            files = {"rknn/__init__.py": "", "rknn/api.py": "class RKNN:\n    def __init__(self, verbose): pass\n"}
        wheel(folder, name, version, files)
    return folder


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.delenv(environment.FOLDER_VARIABLE, raising=False)
    return tmp_path / "data" / "edgenet" / "rknn"


def test_it_is_made_once_says_before_what_it_takes_and_is_left_alone_then(wheels: Path, place: Path) -> None:
    done = CliRunner().invoke(main, [*PREPARE, str(wheels)])
    assert done.exit_code == 0, done.output
    first = done.stderr.splitlines()[0]
    assert all(said in first for said in (str(place), "MB", "GB", "EDGENET_RKNN", "RKNN SDK licence"))
    assert "rknn is ready: Python 3." in done.stdout
    found = environment.find()
    assert found is not None
    assert (found.folder, found.packages) == (place, dict(LIST))
    assert not place.with_name("rknn.part").exists()
    again = CliRunner().invoke(main, [*PREPARE, str(wheels), "--json"])
    assert json.loads(again.stdout)["done"] == []
    assert json.loads(again.stdout)["packages"] == dict(LIST)


@pytest.mark.slow
def test_a_killed_one_goes_on_where_it_was(wheels: Path, place: Path) -> None:
    code = (
        "import pathlib, sys; from edgenet.device_bench.rknn import environment as e; "
        "e._LIST = pathlib.Path(sys.argv[1]); e.prepare(pathlib.Path(sys.argv[2]))"
    )
    command = [sys.executable, "-c", code, str(environment._LIST), str(wheels)]
    process = subprocess.Popen(command, start_new_session=True)
    notes = place.with_name("rknn.part") / "edgenet-installed.json"
    while not notes.exists() or len(json.loads(notes.read_text())["whole"]) < 1:
        assert process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert environment.find() is None
    whole = json.loads(notes.read_text())["whole"]
    (site,) = notes.parent.glob("lib/python3*/site-packages")
    name, version = LIST[len(whole)]
    half = (
        site / f"{name.replace('-', '_')}-{version}.dist-info"
    )  # as a killed pip leaves it: without its list of files
    shutil.rmtree(half, ignore_errors=True)
    half.mkdir()
    (half / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    done = environment.prepare(wheels)
    assert [step for step in done.done if step.startswith("installing")] == [
        f"installing {n} {v}" for n, v in LIST[len(whole) :]
    ]
    assert environment.find() is not None
    assert (place / site.relative_to(notes.parent) / half.name / "RECORD").is_file()


@pytest.mark.slow
def test_one_that_does_not_start_any_more_is_made_anew(wheels: Path, place: Path) -> None:
    environment.prepare(wheels)
    (api,) = place.glob("lib/python3*/site-packages/rknn/api.py")
    api.unlink()
    assert "installing rknn-toolkit2 2.5.0" in environment.prepare(wheels).done
    (api,) = place.glob("lib/python3*/site-packages/rknn/api.py")


@pytest.mark.slow
def test_a_toolkit_that_does_not_start_is_an_error_with_its_words_and_never_found(wheels: Path, place: Path) -> None:
    wheel(wheels, "rknn-toolkit2", "2.5.0", {"rknn/__init__.py": "", "rknn/api.py": "import not_to_be_found\n"})
    with pytest.raises(DeviceError, match=r"does not start: .*No module named 'not_to_be_found'; run `edgenet devices"):
        environment.prepare(wheels)
    assert environment.find() is None


def test_a_package_that_cannot_be_fetched_says_how_to_carry_it(
    wheels: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "_TORCH_INDEX", (wheels / "none").as_uri())
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    (torch,) = wheels.glob("torch-*")
    torch.unlink()
    with pytest.raises(DeviceError, match=r"put a wheel of torch \S+ into a folder and run `edgenet devices prepare r"):
        environment.prepare(wheels)


def test_a_folder_of_something_else_is_left_alone(
    wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "diary.txt").write_text("dear diary")
    monkeypatch.setenv(environment.FOLDER_VARIABLE, str(mine))
    with pytest.raises(InputError, match="is in use for something else: name another folder by EDGENET_RKNN"):
        environment.prepare(wheels)
    assert (mine / "diary.txt").read_text() == "dear diary"


def test_a_full_disk_is_told_before_anything_is_downloaded(
    wheels: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "INSTALLED_MB", 10**9)
    with pytest.raises(DeviceError, match=r"GB of free space, and the environment takes .* name another folder"):
        environment.prepare(wheels)


def test_the_list_pins_every_package_and_a_pytorch_without_cuda() -> None:
    pinned = dict(environment._requirements())
    assert len(pinned) > 10
    assert pinned["torch"].endswith("+cpu")
    assert environment.PACKAGE in pinned


def test_two_at_once_are_kept_apart(wheels: Path, place: Path) -> None:
    with (
        environment._alone(place),
        pytest.raises(DeviceError, match="another `edgenet devices prepare rknn` is at work"),
    ):
        environment.prepare(wheels)


def test_a_folder_without_wheels_is_refused(tmp_path: Path, place: Path) -> None:
    for given in (tmp_path, tmp_path / "none"):
        with pytest.raises(InputError, match=r"no wheels|cannot read the folder of wheels"):
            environment.prepare(given)


def test_only_boards_and_rknn_are_prepared() -> None:
    done = CliRunner().invoke(main, ["devices", "prepare", "adb:123"])
    assert done.exit_code == 2
    assert "boards do, give ssh:[USER@]HOST[:PORT], and Rockchip's compiler, give rknn" in done.stderr
