"""doctor.py: what a machine is, what is missing, and the remedy for each problem."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from edgenet import doctor
from edgenet.cli import main
from edgenet.doctor import Package, examine, lines, packages, problems, reason
from edgenet.errors import InputError
from edgenet.targets import TARGETS, target
from helpers.places import ROOT

GOOD: dict[str, Any] = {
    "memory_bytes": 8 * 10**9,
    "governor": "performance",
    "load_average": [0.1, 0.1, 0.1],
    "cores": 4,
}
PLENTY = 10**11
LITERT = Package("ai-edge-litert", "tflite", "==2.3.0", "2.3.0")


def test_a_good_machine_has_no_problems() -> None:
    assert problems(GOOD, (LITERT,), PLENTY) == []
    assert problems({**GOOD, "memory_bytes": None, "load_average": None, "governor": None}, (), PLENTY) == []


@pytest.mark.parametrize(
    ("machine", "found", "free", "writable", "what", "remedy"),
    [
        ({}, (Package("onnx", "onnx", "==1", None), Package("onnxruntime", "onnx", "==1", None)), PLENTY, True,
         "onnx, onnxruntime not installed, needed for writing and running .onnx files", "pip install 'edgenet[onnx]'"),
        ({}, (Package("openvino", "openvino", "==2026.4.1", "2025.1.0"),), PLENTY, True,
         "openvino 2025.1.0 is installed, tested is 2026.4.1", "pip install 'openvino==2026.4.1'"),
        ({"governor": "powersave"}, (), PLENTY, True, "governor is powersave", "cpupower frequency-set -g performance"),
        ({"load_average": [3.0, 1, 1]}, (), PLENTY, True, "busy (load average 3.0 on 4 cores)", "stop other programs"),
        ({"memory_bytes": 10**9}, (), PLENTY, True, "only 1.0 GB of memory", "larger machine"),
        ({}, (), 10**9, True, "only 1.0 GB of disk", "make room"),
        ({}, (), PLENTY, False, "cannot be written to", "--out"),
    ],
)  # fmt: skip
def test_each_problem_comes_with_its_remedy(
    machine: dict[str, Any], found: tuple[Package, ...], free: int, writable: bool, what: str, remedy: str
) -> None:
    (problem,) = problems({**GOOD, **machine}, found, free, writable)
    assert what in problem.what
    assert remedy in problem.remedy


def test_a_kernel_that_cannot_hold_a_reader_is_a_problem() -> None:
    (problem,) = problems(GOOD, (), PLENTY, sandbox=("limits",))
    assert "neither Landlock nor seccomp" in problem.what
    assert "people whom you trust" in problem.remedy
    assert problems(GOOD, (), PLENTY, sandbox=("seccomp",)) == []


def test_a_version_that_is_not_pinned_is_never_untested() -> None:
    assert Package("flatbuffers", "export", ">=24.3", "25.1").is_tested
    assert not Package("openvino", "openvino", "==2026.4.1", "2026.4.0").is_tested


def test_every_extra_of_the_project_is_looked_for() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = {name for name, wants in project["optional-dependencies"].items() if name not in ("all", "dev")}
    assert {p.extra for p in packages()} == extras == set(doctor.EXTRAS)
    litert = next(p for p in packages() if p.name == "ai-edge-litert")
    assert f"{litert.name}{litert.tested}" in project["optional-dependencies"]["tflite"]


def test_edgenet_that_is_not_installed_has_no_packages_and_does_not_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise doctor.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(doctor.metadata, "requires", missing)
    assert packages() == ()


@pytest.mark.parametrize("name", TARGETS)
def test_every_target_has_a_reason_why_it_matters(name: str) -> None:
    t = target(name)
    assert ("saturate" in reason(t)) == bool(t.saturating_formats)
    assert ("7-bit" in reason(t)) == bool(t.saturating_formats)


def test_a_machine_without_vnni_is_told_what_it_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "target", lambda _: TARGETS["x86-avx2"])
    d = examine()
    assert d.weight_bits == {"openvino": 7, "tflite": 8, "onnx": 7}
    text = dict(lines(d))
    assert text["INT8"].startswith("saturating 16-bit u8*s8: ")
    assert text["INT8 weights"] == "openvino 7 bits, tflite 8 bits, onnx 7 bits"


def test_a_tool_is_found_on_the_path_and_beside_the_interpreter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder, name in (("path", "adb"), ("venv", "vela"), ("path", "google-chrome")):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / name).write_text("#!/bin/sh\n")
        (tmp_path / folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.setattr(doctor.sys, "executable", str(tmp_path / "venv" / "python"))
    tools = {t.name: t for t in examine().tools}
    assert tools["adb"].path == str(tmp_path / "path" / "adb")
    assert tools["vela"].path == str(tmp_path / "venv" / "vela")
    assert tools["chromium"].path == str(tmp_path / "path" / "google-chrome")
    assert tools["edgetpu_compiler"].path is None
    assert dict(lines(examine()))["edgetpu_compiler"].startswith("not found; for compiling for the Coral Edge TPU: ")


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no folder"):
        examine(tmp_path / "missing")


def test_the_command_says_what_this_machine_is_and_ends_well() -> None:
    shown = CliRunner().invoke(main, ["doctor"])
    assert shown.exit_code == 0
    assert target("auto").name in shown.output
    assert "Remedy: " in shown.output or "No problems found." in shown.output


def test_json_holds_the_same_and_nothing_else() -> None:
    shown = CliRunner().invoke(main, ["doctor", "--json"])
    assert shown.exit_code == 0
    data = json.loads(shown.stdout)
    assert data["target"] == target("auto").name
    assert data["disk_free_bytes"] > 0
    assert data["machine"]["cores"] >= 1
    assert {"name", "extra", "tested", "version"} == set(data["packages"][0])
    assert all({"what", "remedy"} == set(p) for p in data["problems"])
