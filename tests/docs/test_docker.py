"""The Dockerfile, read as Docker reads it: what it copies is there, is all of the wheel, and nobody runs as root.

No image is built: that needs Docker and a base image.
"""

import json
import re
import subprocess
import tomllib
from fnmatch import fnmatch

import pytest

from helpers.places import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def instructions() -> list[tuple[str, str]]:
    """Return (INSTRUCTION, the rest) with continued lines joined, without comments."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    text = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    return [
        (word.upper(), rest.strip()) for word, _, rest in (line.partition(" ") for line in text.splitlines() if line)
    ]


def stages() -> list[list[tuple[str, str]]]:
    found: list[list[tuple[str, str]]] = []
    for each in instructions():
        if each[0] == "FROM":
            found.append([])
        found[-1].append(each)
    return found


def test_only_instructions_that_docker_knows_stand_in_it_and_two_stages() -> None:
    known = {"FROM", "WORKDIR", "COPY", "RUN", "ARG", "USER", "ENTRYPOINT", "CMD"}
    assert {word for word, _ in instructions()} <= known
    build, image = stages()
    assert build[0] == ("FROM", "python:3.11-slim AS build")
    assert image[0] == ("FROM", "python:3.11-slim")


def test_what_the_wheel_is_made_of_is_copied_and_kept_by_dockerignore() -> None:
    build, image = stages()
    copied = {source for word, rest in build if word == "COPY" for source in rest.split()[:-1]}
    folders = set(PROJECT["tool"]["setuptools"]["package-dir"].values())
    assert copied == {"pyproject.toml", PROJECT["project"]["readme"], "LICENSE", *folders}
    assert all((ROOT / source).exists() for source in copied)
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert kept == copied
    assert [rest for word, rest in image if word == "COPY"] == ["--from=build /wheels /wheels"]


def test_the_default_extras_are_edgenets() -> None:
    extras = set(PROJECT["project"]["optional-dependencies"])
    text = (ROOT / "Dockerfile").read_text() + (ROOT / "docs/first-quarter-of-an-hour.md").read_text()
    named = re.findall(r"EXTRAS=([\w,-]+)", text)
    assert len(named) == 3
    assert {extra for each in named for extra in each.split(",")} <= extras
    assert any(
        fnmatch("edgenet-0.1.0-py3-none-any.whl", glob) for glob in re.findall(r"/wheels/(edgenet-\S+\.whl)", text)
    )


def test_it_ends_as_a_user_without_rights_in_a_folder_of_its_own_and_starts_edgenet() -> None:
    image = stages()[1]
    order = [word for word, _ in image]
    said = dict(image)
    assert said["USER"] == "edgenet"
    assert order.index("USER") > max(i for i, word in enumerate(order) if word == "RUN")
    assert f"install -d -o {said['USER']} -g {said['USER']} {said['WORKDIR']}" in said["RUN"]
    assert json.loads(said["ENTRYPOINT"]) == ["edgenet"]
    assert json.loads(said["CMD"]) == ["--help"]


@pytest.mark.parametrize("script", [rest for word, rest in instructions() if word == "RUN"], ids=lambda s: s[:30])
def test_every_line_that_it_runs_is_shell(script: str) -> None:
    done = subprocess.run(["sh", "-n", "-c", script], capture_output=True, text=True, timeout=10)
    assert (done.returncode, done.stderr) == (0, "")
