"""helpers/fork_server.py: a process that is forked does what one with an interpreter of its own does."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import fork_server, tiny
from helpers.command_line import Edgenet


@pytest.mark.parametrize(
    ("arguments", "status"),
    [(("models", "--json"), 0), (("inspect", "missing.tflite"), 2), (("no-such-command",), 2), (("--version",), 0)],
)
def test_status_and_streams_are_those_of_a_fresh_interpreter(
    edgenet: Edgenet, arguments: tuple[str, ...], status: int, tmp_path: Path
) -> None:
    forked = edgenet(*arguments, cwd=tmp_path)
    with fork_server.fresh_interpreters():
        fresh = edgenet(*arguments, cwd=tmp_path)
    assert forked.returncode == fresh.returncode == status
    assert (forked.stdout, forked.stderr) == (fresh.stdout, fresh.stderr)


def test_it_runs_in_the_folder_that_was_asked_for(edgenet: Edgenet, tiny_files: dict[str, Path]) -> None:
    done = edgenet("inspect", tiny_files["int8"].name, "--json", cwd=tiny_files["int8"].parent)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_signal_ends_it_and_its_status_says_so(number: signal.Signals) -> None:
    command = [sys.executable, tiny.__file__, "evaluate", "-"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.send_signal(number)
        assert process.wait(timeout=60) == -number


def test_a_time_limit_ends_it(edgenet: Edgenet, tiny_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        edgenet("run", "tiny", "--images", tiny_folder, "--out", tmp_path / "OUT", timeout_s=0.05)


def test_any_other_command_has_an_interpreter_of_its_own(edgenet: Edgenet) -> None:
    assert edgenet("models").returncode == 0
    code = "import sys; print(sorted(m for m in sys.modules if m in ('numpy', 'edgenet')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
