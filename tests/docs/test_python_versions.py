"""`make python-versions` asks pip for all that an extra needs, and the README says only what it found out."""

import tomllib

from helpers.places import ROOT
from helpers.python_versions import VERSIONS, requirements

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_an_extra_that_is_made_of_others_asks_for_all_of_theirs() -> None:
    asked = requirements(PROJECT, "qat")
    extras = PROJECT["optional-dependencies"]
    own = [line for line in (*extras["qat"], *extras["export"], *extras["tflite"]) if not line.startswith("edgenet[")]
    assert set(asked) == {*PROJECT["dependencies"], *own}
    assert requirements(PROJECT, "") == PROJECT["dependencies"]


def test_the_readme_names_the_versions_that_were_asked_for_and_says_which_one_ran() -> None:
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert f"run on Python {VERSIONS[0]}" in readme
    assert f"For {' and '.join(VERSIONS[1:])} `make python-versions` only asks pip" in readme
