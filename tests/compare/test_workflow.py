"""The workflow of docs/ci.md works as it is written: its `run:` steps, in order, in a real repository.

The runner below does what GitHub's does of it: bash -e, the workflow's environment, `if: always()`. The step that
installs edgenet is not run, as the tests run where it is installed; what it names is checked. `edgenet` is the command
line itself, which times files briefly (helpers/tiny.py).
"""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from edgenet.export import export_graph
from helpers import tiny
from helpers.places import ROOT

WORKFLOW: dict[str, Any] = yaml.safe_load(
    re.findall(r"^```yaml\n(.*?)^```", (ROOT / "docs" / "ci.md").read_text(), re.MULTILINE | re.DOTALL)[0]
)
STEPS: list[dict[str, Any]] = WORKFLOW["jobs"]["compare"]["steps"]


@dataclass(frozen=True)
class Ran:
    """What became of a job: the output of each step that ran, by its name, and of the first that failed its name."""

    said: dict[str, str]
    failed: str


def run_steps(repository: Path, env: dict[str, str]) -> Ran:
    said: dict[str, str] = {}
    failed = ""
    for step in STEPS:
        script = step.get("run")
        if script is None or script.startswith("python -m pip install") or (failed and step.get("if") != "always()"):
            continue
        command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script]
        done = subprocess.run(command, cwd=repository, env=env, capture_output=True, text=True, timeout=300)
        said[step["name"]] = done.stdout + done.stderr
        if done.returncode and not failed:
            failed = step["name"]
    return Ran(said, failed)


def export(network: Any, place: Path, scratch: Path) -> None:
    made = export_graph(network, network.graph, scratch, format="tflite", precision="float32")
    shutil.copy(scratch / made.path, place)


def git(repository: Path, *args: str) -> None:
    who = ["-c", "user.name=T", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *who, *args], cwd=repository, check=True, capture_output=True)


def junit_failures(path: Path) -> int:
    """Return how many cases of a JUnit file failed, as a reader of CI tools counts them."""
    junitparser = pytest.importorskip("junitparser")
    cases = [case for suite in junitparser.JUnitXml.fromfile(str(path)) for case in suite]
    return sum(any(isinstance(r, junitparser.Failure) for r in case.result) for case in cases)


@pytest.fixture
def repository(tmp_path: Path, tiny_folder: Path) -> Path:
    """A repository whose main branch has a model and photographs, as a runner checks out a pull request for it."""
    root = tmp_path / "repository"
    shutil.copytree(tiny_folder, root / "photos")
    export(tiny.network(), root / "model.tflite", tmp_path)
    git(tmp_path, "init", "-q", "repository")
    git(root, "add", ".")
    git(root, "commit", "-qm", "the model that is shipped")
    git(root, "update-ref", "refs/remotes/origin/main", "HEAD")
    return root


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    bin = tmp_path / "bin"
    bin.mkdir()
    (bin / "edgenet").write_text(f'#!/bin/sh\nexec "{sys.executable}" "{tiny.__file__}" "$@"\n')
    (bin / "edgenet").chmod(0o755)
    (tmp_path / "summary.md").touch()
    github = {"GITHUB_BASE_REF": "main", "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"), "GITHUB_ACTIONS": "true"}
    return {**os.environ, **github, "PATH": f"{bin}{os.pathsep}{os.environ['PATH']}"}


def test_a_pull_request_that_leaves_the_model_as_good_passes(repository: Path, env: dict[str, str]) -> None:
    ran = run_steps(repository, env)
    assert ran.failed == "", ran.said
    assert list(ran.said) == ["Take the model that is shipped", "Make and measure both", "Compare"]
    assert "it is the same file, byte for byte" in (repository / "out" / "compare.xml").read_text()
    assert "is as good as out/old" in ran.said["Compare"]


def test_a_pull_request_that_damages_the_model_fails_where_everybody_sees_it(
    repository: Path, env: dict[str, str], tmp_path: Path
) -> None:
    network = tiny.network()
    graph = network.graph
    weights = graph.tensors["logits_w"]
    assert weights.data is not None
    graph.tensors["logits_w"] = replace(weights, data=np.roll(weights.data, 1, axis=0))  # each class is another one
    export(network, repository / "model.tflite", tmp_path)
    ran = run_steps(repository, env)
    assert ran.failed == "Compare", ran.said
    errors = [line for line in ran.said["Compare"].splitlines() if line.startswith("::error ")]
    assert [re.findall("accuracy of (.*?)::", line) for line in errors] == [
        ["model_float32.tflite"],
        ["model_int8.tflite"],
    ]
    assert junit_failures(repository / "out" / "compare.xml") == 2
    for written in (tmp_path / "summary.md", repository / "out" / "compare.md"):
        assert written.read_text().startswith("### edgenet compare: worse\n")


def test_the_workflow_installs_extras_that_there_are_and_keeps_what_it_found() -> None:
    (installs,) = [step["run"] for step in STEPS if "pip install" in step.get("run", "")]
    extras = re.findall(r"\[(.*?)\]", installs)[0].split(",")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(extras) <= set(project["optional-dependencies"])
    assert STEPS[-1]["if"] == "always()"
