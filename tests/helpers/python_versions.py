"""Which extras of edgenet have wheels for which Python: pip resolves each, and installs nothing.

    python tests/helpers/python_versions.py [3.11 3.12 3.13] [--extra NAME]...

prints a table, with the reason under it where an extra cannot be had. It says that the pinned versions can be installed
together, not that edgenet works with them: that is what the tests say, of the Python that runs them.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

PROJECT = Path(__file__).parents[2] / "pyproject.toml"
VERSIONS = ("3.11", "3.12", "3.13")
TIMEOUT_S = 600


def requirements(project: Mapping[str, object], extra: str) -> list[str]:
    """Return what edgenet and an extra of it ask for; extras that name extras are followed. "" is edgenet alone."""
    extras: Mapping[str, Sequence[str]] = project["optional-dependencies"]  # type: ignore[assignment]
    found: dict[str, None] = {}

    def follow(names: Sequence[str]) -> None:
        for name in names:
            for line in extras[name]:
                own = re.fullmatch(r"edgenet\[([\w,-]+)\]", line)
                follow(own[1].split(",")) if own else found.setdefault(line, None)

    follow([extra] if extra else [])
    return [*project["dependencies"], *found]  # type: ignore[misc]


def problem(asked: Sequence[str], version: str) -> str:
    """Return "" where pip finds wheels of all that is asked for, for a Python version, else the reason in a line."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-I", "-m", "pip", "install", "--dry-run", "--quiet", "--disable-pip-version-check",
                   "--python-version", version, "--only-binary", ":all:", "--target", folder, *asked]  # fmt: skip
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            return f"pip had found no answer after {TIMEOUT_S} s"
    errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
    found = next((line for line in errors if "No matching" in line), errors[-1] if errors else done.stderr[-300:])
    return "" if done.returncode == 0 else found.removeprefix("ERROR: ").strip() or "pip failed"


def main() -> None:
    project = tomllib.loads(PROJECT.read_text())["project"]
    every = ["", *(e for e in project["optional-dependencies"] if e not in ("all", "dev"))]
    given = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    given.add_argument("versions", nargs="*", default=VERSIONS, metavar="3.12")
    given.add_argument("--extra", action="append", choices=every[1:], dest="extras")
    asked = given.parse_args()
    versions, extras, reasons = asked.versions, asked.extras or every, []
    print("| | " + " | ".join(versions) + " |\n|---|" + "---|" * len(versions), flush=True)
    for extra in extras:
        why = {v: problem(requirements(project, extra), v) for v in versions}
        name = f"edgenet[{extra}]" if extra else "edgenet"
        print(f"| `{name}` | " + " | ".join("no" if why[v] else "yes" for v in versions) + " |", flush=True)
        reasons += [f"{name}, Python {v}: {text}" for v, text in why.items() if text]
    print("\n".join(["", *reasons]).rstrip())


if __name__ == "__main__":
    main()
