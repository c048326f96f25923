"""What is installed: its licences are those of docs/licences.md, and versions are pinned."""

import re
import tomllib
from importlib import metadata

import pytest

from helpers.places import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# How packages call a licence -> as SPDX has it.
SPDX = {
    "apache 2.0": "Apache-2.0", "apache license 2.0": "Apache-2.0", "apache software license": "Apache-2.0",
    "apache software license 2.0": "Apache-2.0", "apache-2.0": "Apache-2.0", "mit": "MIT", "mit license": "MIT",
    "bsd license": "BSD-3-Clause", "bsd-3-clause": "BSD-3-Clause", "mit-cmu": "MIT-CMU",
    "python software foundation license": "PSF-2.0",
}  # fmt: skip


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def requirements() -> dict[str, str]:
    """Return what the project asks for: name -> the rest of the requirement."""
    asked = [*PROJECT["dependencies"], *(r for extra in PROJECT["optional-dependencies"].values() for r in extra)]
    split = (re.match(r"([A-Za-z0-9._-]+)(\[.*?\])?(.*)", r) for r in asked)
    return {m[1]: m[3].strip() for m in split if m and m[1] != "edgenet"}


def table() -> dict[str, str]:
    """Return the rows of docs/licences.md: name -> licence."""
    rows = re.findall(r"^\| ([^|]+?) \| ([^|]+?) \|", (ROOT / "docs/licences.md").read_text(), re.MULTILINE)
    return {plain(name): licence for name, licence in rows}


def stated(name: str) -> str | None:
    """Return the licence that an installed package states, as SPDX has it; None where it states none."""
    about = metadata.metadata(name)
    if expression := about.get("License-Expression"):
        return expression
    kinds = [c.rpartition(" :: ")[2] for c in about.get_all("Classifier") or [] if c.startswith("License ::")]
    for said in (*kinds, (about.get("License") or "").partition("\n")[0].strip()):
        if said.lower() in SPDX:
            return SPDX[said.lower()]
    first = next((f for f in metadata.files(name) or [] if f.name.upper().startswith("LICENSE")), None)
    text = first.read_text().lstrip().partition("\n")[0].strip().lower() if first else ""
    return SPDX.get(text) or _in_headers(name)


def _in_headers(name: str) -> str | None:
    """Return the licence that the package's own files of Python name at their beginning."""
    sources = [f for f in metadata.files(name) or [] if f.name.endswith(".py")]
    apache = any("Licensed under the Apache License, Version 2.0" in f.read_text()[:1000] for f in sources)
    return "Apache-2.0" if apache else None


@pytest.mark.parametrize("name", requirements())
def test_the_table_has_the_licence_that_each_package_states(name: str) -> None:
    assert plain(name) in table(), f"add a row for {name} to docs/licences.md"
    try:
        metadata.metadata(name)
    except metadata.PackageNotFoundError:
        pytest.skip(f"{name} is not installed")
    assert stated(name) == table()[plain(name)]


def test_no_licence_asks_for_the_source_of_what_uses_it() -> None:
    assert [name for name, licence in table().items() if re.search(r"GPL|SSPL|BUSL|Commons Clause", licence)] == []


def test_every_version_of_an_extra_is_pinned_or_said_to_be_any() -> None:
    loose = [name for name, rest in requirements().items() if not rest.startswith(("==", ">="))]
    assert loose == []
