"""tool.py: what a program that reads a stranger's file may still do, and what it may not."""

import os
import socket
import sys
from pathlib import Path

import numpy as np
import pytest

from edgenet.device_bench import Worker
from edgenet.device_bench.tool import confined, confined_module, run_tool
from edgenet.errors import DeviceError
from helpers.processes import is_held, needs_nets

# Each line is tried; what did not fail is printed.
DEEDS = """
import os, socket, subprocess, sys, tempfile
def tried(name, deed):
    try:
        deed()
        print(name)
    except OSError:
        pass
tried("own folder", lambda: open("OWN/new", "w").close())
tried("temporary file", lambda: tempfile.TemporaryFile())
tried("its place", lambda: print(tempfile.gettempdir()))
tried("other folder", lambda: open("OTHER/new", "w").close())
tried("user's file", lambda: open("OTHER/mine", "a").close())
tried("user's file removed", lambda: os.remove("OTHER/mine"))
tried("network", lambda: socket.create_connection(("127.0.0.1", PORT), timeout=5))
tried("program", lambda: subprocess.run(["/bin/true"], check=True))
tried("program that writes", lambda: print(subprocess.run(["/bin/cp", "OTHER/mine", "OTHER/copy"]).returncode))
tried("read", lambda: open("OTHER/mine").close())
"""


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    """The program's own folder, and one with a file of the user's."""
    own, other = tmp_path / "own", tmp_path / "other"
    own.mkdir()
    other.mkdir()
    (other / "mine").write_text("mine")
    return own, other


def deeds(places: tuple[Path, Path], port: int) -> str:
    return DEEDS.replace("OWN", str(places[0])).replace("OTHER", str(places[1])).replace("PORT", str(port))


@needs_nets
def test_a_program_writes_in_its_folder_alone_and_reaches_no_network_nor_does_what_it_starts(
    places: tuple[Path, Path],
) -> None:
    own, other = places
    with socket.create_server(("127.0.0.1", 0)) as port:
        code = deeds(places, port.getsockname()[1])
        said = run_tool("it", confined([sys.executable, "-I", "-c", code], own), 60).splitlines()
    said = [line for line in said if not line.startswith("/bin/cp:")]
    assert said[:4] == ["own folder", "temporary file", str(own), "its place"]
    assert said[4] == "program"
    assert said[-3:] == ["1", "program that writes", "read"]  # it started, and failed
    assert len(said) == 8
    assert [p.name for p in other.iterdir()] == ["mine"]
    assert (other / "mine").read_text() == "mine"


@needs_nets
def test_a_module_may_start_no_program_either(places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    own, other = places
    with socket.create_server(("127.0.0.1", 0)) as port:
        (own / "deeds.py").write_text(deeds(places, port.getsockname()[1]))
        monkeypatch.setenv("PYTHONPATH", str(own))
        said = run_tool("it", confined_module("deeds", [], own), 60).splitlines()
    assert said == ["own folder", "temporary file", str(own), "its place", "read"]
    assert [p.name for p in other.iterdir()] == ["mine"]


def test_a_held_program_gets_its_arguments_and_gives_its_status_and_output(tmp_path: Path) -> None:
    show = "import sys; print(sys.argv[1:]); sys.exit(3)"
    with pytest.raises(DeviceError, match=r"it ended with exit status 3; it said last: \['a', '--', '-m'\]"):
        run_tool("it", confined([sys.executable, "-c", show, "a", "--", "-m"], tmp_path), 60)


def test_a_held_program_that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="cannot start /no/such: No such file or directory; give the path of a pro"):
        run_tool("it", confined(["/no/such"], tmp_path), 60)


def test_a_held_program_that_hangs_is_ended(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="it was ended after 1 s: it hangs on this file"):
        run_tool("it", confined([sys.executable, "-c", "import time; time.sleep(60)"], tmp_path), 1)


@needs_nets
def test_the_process_that_holds_a_file_in_tflite_micro_is_held(tiny_files: dict[str, Path]) -> None:
    pytest.importorskip("tflite_micro")
    from edgenet.device_bench.micro.device import open_worker

    assert not is_held(os.getpid())
    with open_worker(tiny_files["int8"]) as worker:
        assert is_held(worker.pid)
        assert worker.predict(np.zeros((1, 20, 20, 3), np.float32)).shape == (1, 5)


@needs_nets
def test_the_process_that_holds_a_file_in_litert_is_held(tiny_files: dict[str, Path]) -> None:
    with Worker(tiny_files["int8"]) as worker:
        assert is_held(worker.pid)
