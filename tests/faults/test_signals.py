"""Signals at any moment: a command ends with its children, and the same command finishes what it left.

SIGKILL at each write of a run is in tests/test_pipeline.py, signals to a training in tests/jobs, others to what runs
models in tests/device_bench/test_worker.py.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edgenet.device_bench.tool import run_tool
from edgenet.device_bench.worker import Worker
from edgenet.errors import DeviceError, InputError
from edgenet.files import sha256_of
from edgenet.results import Results
from edgenet.sandbox import apart
from helpers import tiny
from helpers.command_line import Edgenet
from helpers.processes import is_running, wait_for

RUN = ("run", "tiny", "--precision", "float32", "--precision", "int8", "--calibration-images", "10")
FILES = ("tiny_float32.tflite", "tiny_int8.tflite")
MOMENTS: dict[str, Callable[[Path], bool]] = {
    "it holds the folder": lambda out: (out / ".edgenet.lock").exists(),
    "a file is written": lambda out: (out / FILES[0]).exists(),
    "all files are written": lambda out: (out / FILES[1]).exists(),
}


def start(*args: object) -> "subprocess.Popen[str]":
    command = [sys.executable, tiny.__file__, *map(str, args)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def below(pid: int) -> list[int]:
    """Return the processes that this one has started, and those have."""
    found, parents = [pid], {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except (OSError, IndexError):
            continue
    for process in found:
        found += [child for child, parent in parents.items() if parent == process]
    return found[1:]


@pytest.fixture(scope="module")
def undisturbed(edgenet: Edgenet, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    out = tmp_path_factory.mktemp("undisturbed") / "OUT"
    assert edgenet(*RUN, "--images", tiny_folder, "--out", out).returncode == 0
    return {name: sha256_of(out / name) for name in FILES}


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_run_ends_by_a_signal_with_its_children_and_the_same_command_finishes_it(
    number: signal.Signals, moment: str, undisturbed: dict[str, str], edgenet: Edgenet, tiny_folder: Path,
    tmp_path: Path,
) -> None:  # fmt: skip
    asked = (*RUN, "--images", tiny_folder, "--out", tmp_path / "OUT")
    with start(*asked) as process:
        wait_for(lambda: MOMENTS[moment](tmp_path / "OUT") or process.poll() is not None, 60)
        children = below(process.pid)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    expected = 130 if number == signal.SIGINT else -number
    assert process.returncode in (expected, 0), err  # it may have been done already
    assert "Traceback" not in out + err
    if process.returncode == 130:
        # Not the last line always: the interpreter may complain of the socket to the tests' fork server when it ends.
        assert "edgenet: interrupted; the same command goes on where it was" in err.splitlines()
    wait_for(lambda: not any(map(is_running, children)), 20)
    done = edgenet(*asked)
    assert done.returncode == 0, done.stderr
    assert {name: sha256_of(tmp_path / "OUT" / name) for name in FILES} == undisturbed
    assert Results.load(tmp_path / "OUT").failures == []
    assert not list((tmp_path / "OUT").glob(".*"))


def test_a_run_that_was_stopped_and_goes_on_ends_as_any(
    undisturbed: dict[str, str], tiny_folder: Path, tmp_path: Path
) -> None:
    with start(*RUN, "--images", tiny_folder, "--out", tmp_path / "OUT") as process:
        wait_for(lambda: (tmp_path / "OUT" / FILES[0]).exists() or process.poll() is not None, 60)
        process.send_signal(signal.SIGSTOP)
        time.sleep(1.5)
        process.send_signal(signal.SIGCONT)
        _, err = process.communicate(timeout=100)
    assert process.returncode == 0, err
    assert {name: sha256_of(tmp_path / "OUT" / name) for name in FILES} == undisturbed
    assert Results.load(tmp_path / "OUT").failures == []


# ------------------------------------------------------------------------------------------- the child that reads files


def signalled_reading(number: signal.Signals, file: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Send a signal to the child that reads a file, as soon as it has its request; return what the user is told."""
    send = apart._Answer.send

    def sending(self: apart._Answer, data: bytes) -> None:
        send(self, data)
        threading.Timer(0.5, os.kill, (self._process.pid, number)).start()

    monkeypatch.setattr(apart._Answer, "send", sending)
    with pytest.raises(InputError) as e:
        apart.read_apart("helpers.bad_readers:sleep_for_ever", file, {"path": str(file)})
    return str(e.value)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGSEGV, signal.SIGXCPU])
def test_a_reader_that_is_ended_is_a_line_with_the_file_and_the_reason(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "model.keras"
    file.write_bytes(b"x")
    line = signalled_reading(number, file, monkeypatch)
    assert str(file) in line
    assert (number.name if number != signal.SIGXCPU else "30 s of computing") in line
    assert "\n" not in line


def test_a_reader_that_was_stopped_is_ended_and_the_line_says_that_it_did_not_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "model.keras"
    file.write_bytes(b"x")
    monkeypatch.setattr(apart, "_IDLE_S", 2)
    line = signalled_reading(signal.SIGSTOP, file, monkeypatch)
    assert line.startswith(f"reading {file} does not go on: ")


# ----------------------------------------------------------------------------------------------- what runs a model


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_a_worker_that_is_ended_is_an_error_with_the_signal_and_no_process_is_left(
    number: signal.Signals, tiny_files: dict[str, Path]
) -> None:
    with Worker(tiny_files["int8"]) as worker:
        pid = worker.pid
        os.kill(pid, number)
        with pytest.raises(DeviceError, match=number.name):
            worker.memory()
    assert not is_running(pid)


def test_a_worker_that_was_stopped_is_told_with_what_was_waited_for(tiny_files: dict[str, Path]) -> None:
    with Worker(tiny_files["int8"], timeout_s=0.5) as worker:
        os.kill(worker.pid, signal.SIGSTOP)
        with pytest.raises(DeviceError, match=r"no answer to 'memory' in 0\.5 s, so its process was ended"):
            worker.memory()


# ------------------------------------------------------------------------------------------------ compilers of others

PROGRAMS = {
    "it was stopped": "kill -STOP $$",
    "it takes no signal": "trap '' TERM HUP INT; sleep 1000",
    "it closes its output and goes on": "exec >&- 2>&-; sleep 1000",
    "its child holds the output": "sleep 1000 & sleep 1000",
    "it prints without an end": "yes",
}


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_a_compiler_that_does_not_end_is_ended_and_told_by_its_name(program: str) -> None:
    began = time.monotonic()
    with pytest.raises(DeviceError, match=r"^Vela was ended after 1 s: it hangs on this file$"):
        run_tool("Vela", ["sh", "-c", program], 1)
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGBUS])
def test_a_compiler_that_is_ended_is_an_error_with_the_signal_and_its_last_words(number: signal.Signals) -> None:
    with pytest.raises(DeviceError, match=rf"^Vela was killed by {number.name}.*; it said last: layer 7$"):
        run_tool("Vela", ["sh", "-c", f"echo layer 7; kill -{number.value} $$"], 20)
