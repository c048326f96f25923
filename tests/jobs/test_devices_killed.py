"""A run that is killed while a chip's emulator answers, with the real emulators, and the same command once more."""

import importlib.util
import signal
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from edgenet.results import Results
from helpers.command_line import Edgenet
from helpers.hexagon import needs_qnn
from helpers.processes import wait_for

needs_micro = pytest.mark.skipif(importlib.util.find_spec("tflite_micro") is None, reason="needs edgenet[micro]")
CHIPS = ("--device", "micro", "--device", "qnn:SM8750")


def started_for(folder: Path) -> list[str]:
    """Return the command lines of processes that have a file in a folder."""
    found = []
    for p in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = p.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            environment = (p.parent / "environ").read_bytes()
        except OSError:  # it has ended
            continue
        if f"TMPDIR={folder}\0".encode() in environment:
            found.append(words)
    return found


def told(results: Results) -> dict[str, Any]:
    """Return what was found on chips, by what it is about."""
    emulated = {f"{e.device} {e.artifact} emulated": asdict(e) for e in results.evaluations if e.emulated}
    estimates = {f"{e.device} {e.artifact}": asdict(e) for e in results.estimates}
    return emulated | estimates | {a.id: (a.sha256, a.made_for) for a in results.artifacts}


@needs_qnn
@needs_micro
@pytest.mark.slow
def test_a_run_that_is_killed_while_a_chip_is_emulated_goes_on_and_ends_as_one_that_was_not(
    edgenet: Edgenet, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    given = ("run", "tiny", "--images", tiny_folder, "--calibration-images", 10, "--format", "tflite", *CHIPS)
    given = (*given, "--precision", "float32", "--precision", "int8", "--emulated-images", 6, "--out")
    killed = edgenet(*given, tmp_path / "out", kill="in qnn")
    assert killed.returncode == -signal.SIGKILL
    wait_for(lambda: not started_for(temporary), 60)  # no emulator outlives the run
    before = Results.load(tmp_path / "out")
    assert [e.device for e in before.evaluations if e.emulated] == ["micro"]
    assert {e.device for e in before.estimates} == {"micro", "qnn:SM8750"}

    # What was emulated and whole is not emulated again: it would die there.
    resumed = edgenet(*given, tmp_path / "out", kill="in micro")
    assert resumed.returncode == 0, resumed.stderr
    after = Results.load(tmp_path / "out")
    assert after.failures == []
    assert [e for e in after.evaluations if e.device == "micro"] == [
        e for e in before.evaluations if e.device == "micro"
    ]
    assert after.estimates == before.estimates

    whole = edgenet(*given, tmp_path / "undisturbed")
    assert whole.returncode == 0, whole.stderr
    expected = told(Results.load(tmp_path / "undisturbed"))
    assert {k: (v, expected.get(k)) for k, v in told(after).items() if expected.get(k) != v} == {}
    assert set(told(after)) == set(expected)
