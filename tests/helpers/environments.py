"""Environments of Python with edgenet's wheel and chosen packages in it, made of what is installed here.

What users install is not what the tests run in, which has every extra. Files are linked, so that an environment with
NumPy takes a second and no disk.
"""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Sequence
from functools import cache
from importlib import metadata
from pathlib import Path

import pytest

from helpers.places import ROOT

SOURCES = ("pyproject.toml", "README.md", "LICENSE", "edgenet", "export", "calibration", "device_bench")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def build_wheel(folder: Path) -> Path:
    """Build edgenet's wheel in `folder`, from a copy of the source; return its path. pip fetches setuptools for it."""
    source = folder / "source"
    source.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, source / name)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps",
               "--wheel-dir", str(folder), str(source)]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if "satisfies the requirement setuptools" in done.stderr:
        pytest.skip("pip wheel needs a package registry that has setuptools")
    assert done.returncode == 0, done.stderr
    return next(folder.glob("edgenet-*.whl"))


def environment(folder: Path, wheel: Path, extras: Sequence[str] = ()) -> Path:
    """Make an environment with the wheel, what it needs, and the packages of some extras; return its `edgenet`."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True, timeout=120)
    python = folder / "bin" / "python"
    site = folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    asked = [*PROJECT["dependencies"], *(r for e in extras for r in PROJECT["optional-dependencies"][e])]
    for name in needed(map(_name, asked)):
        _link(name, site)
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index",
               "--disable-pip-version-check", "--no-compile", str(wheel)]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    return folder / "bin" / "edgenet"


def needed(names: Iterable[str]) -> list[str]:
    """Return distributions with all that they need in turn, those that are not installed left out."""
    found: dict[str, None] = {}
    left = list(names)
    while left:
        name = left.pop()
        if name not in found and (asked := _requires(name)) is not None:
            found[name] = None
            left += asked
    return list(found)


@cache
def _requires(name: str) -> tuple[str, ...] | None:
    try:
        asked = metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        return None
    return tuple(_name(line) for line in asked if "extra" not in line.partition(";")[2])


def _name(requirement: str) -> str:
    found = re.match(r"[\w.-]+", requirement)
    assert found, requirement
    return re.sub(r"[-_.]+", "-", found[0]).lower()


def _link(name: str, site: Path) -> None:
    for file in metadata.files(name) or []:
        if file.parts[0] == ".." or file.suffix == ".pyc":
            continue
        to, there = site / file, Path(str(file.locate()))
        to.parent.mkdir(parents=True, exist_ok=True)
        if there.is_file() and not to.exists():
            try:
                os.link(there, to)
            except OSError:  # another disk
                shutil.copy(there, to)
