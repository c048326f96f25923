"""The documentation names every command and option, promises no other, and its links lead somewhere."""

import dataclasses
import re
from pathlib import Path

import click
import pytest

from edgenet.calibration import CORRECTIONS, RANGE_METHODS
from edgenet.calibration.image_checks import CODES
from edgenet.cli import main
from edgenet.export import FORMATS, IO_DTYPES
from edgenet.models.checkpoints import READERS
from edgenet.models.zoo import MODELS
from edgenet.results import (
    Artifact,
    Confusion,
    Estimate,
    Evaluation,
    Explanation,
    Failure,
    Layer,
    LeftOperators,
    Measurement,
    Warning,
    records,
)
from edgenet.targets import TARGETS
from helpers.places import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
COMMANDS = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")


def section(command: str) -> str:
    found = re.search(rf"^## {command}\n(.*?)(?=^## |\Z)", COMMANDS, re.MULTILINE | re.DOTALL)
    assert found, f"docs/commands.md has no section on {command}"
    return found[1]


def options(command: str) -> set[str]:
    top = main.commands[command]
    params = [p for c in (top, *getattr(top, "commands", {}).values()) for p in c.params]
    return {o for p in params if isinstance(p, click.Option) for o in (*p.opts, *p.secondary_opts)}


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("command", sorted(main.commands))
def test_every_command_has_a_section_with_an_example(command: str) -> None:
    assert re.search(rf"^    edgenet {command}\b", section(command), re.MULTILINE)


@pytest.mark.parametrize("command", sorted(main.commands))
def test_every_option_is_explained(command: str) -> None:
    # What a command shares with another is explained there; --json and --help stand on top of the page.
    shared = {"export": "run", "finetune": "qat"}
    where = section(command) + section(shared.get(command, command)) + COMMANDS.split("\n## ", 1)[0]
    missing = {o for o in options(command) if not re.search(rf"`{o}[` ]", where)}
    assert not missing


def test_no_option_is_promised_that_is_not_there() -> None:
    known = {"--help", "--version"}.union(*map(options, main.commands))
    for path in PAGES:
        for line in path.read_text(encoding="utf-8").splitlines():
            line = re.sub(r"^ +docker run .* edgenet (?=[a-z])", "edgenet ", line)  # those before are docker's
            if "edgenet" in line or path.name == "commands.md":
                promised = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", line))
                others = "pip" in line or "benchmarks/" in line
                assert others or promised <= known, f"{path.name}: {promised - known}"


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.name)
def test_every_link_within_the_project_leads_to_a_file_and_a_heading(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (path.parent / name).resolve() if name else path
        assert file.exists(), f"{path.name} links to {target}"
        if anchor:
            titles = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", title).strip().lower().replace(" ", "-") for title in titles}
            assert anchor in slugs, f"{path.name} links to {target}"


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.name)
def test_every_command_in_the_documentation_is_one(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for command in re.findall(r"^    (?:\.venv/bin/)?edgenet ([a-z]+)", text, re.MULTILINE):
        assert command in main.commands, f"{path.name}: edgenet {command}"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("commands.md", [*RANGE_METHODS, *CORRECTIONS, *IO_DTYPES, *FORMATS]),
        ("commands.md", sorted({p for f in FORMATS.values() for p in f.precisions})),
        ("images.md", CODES),
        ("targets.md", list(TARGETS)),
        ("weights.md", list(READERS)),
        ("formats.md", [*FORMATS, *IO_DTYPES]),
    ],
)
def test_every_word_that_an_option_takes_is_explained(name: str, words: list[str]) -> None:
    text = page(name)
    assert not [w for w in words if f"`{w}`" not in text]


def test_every_model_of_the_zoo_has_a_line_about_its_weights() -> None:
    text = page("weights.md")
    covered = {*re.findall(r"efficientnet-\w+", text)}
    covered |= {f"efficientnet-{short}" for short in re.findall(r" -(lite\d)", text)}
    covered |= {f"efficientnet-b{i}" for i in range(8) if "efficientnet-b0 to -b7" in text}
    assert not set(MODELS) - covered


RECORDS = [r for r in vars(records).values() if dataclasses.is_dataclass(r)]


@pytest.mark.parametrize(
    "noun",
    [
        Artifact,
        Confusion,
        Evaluation,
        Measurement,
        Estimate,
        LeftOperators,
        Explanation,
        Layer,
        Failure,
        Warning,
        *RECORDS,
    ],
)
def test_every_field_of_the_results_is_explained(noun: type) -> None:
    in_json = {"samples_ns": "samples_ms", "disturbed_ns": "disturbed_ms", "load_ns": "load_ms"}
    names = [in_json.get(f.name, f.name) for f in dataclasses.fields(noun)]
    text = page("results.md")
    assert not [n for n in names if f"`{n}`" not in text]


def test_the_formats_table_says_which_precision_a_format_lacks() -> None:
    table = page("formats.md").split("\n\n")[2]
    head, _, *rows = ([cell.strip(" `") for cell in line.strip("|").split("|")] for line in table.splitlines())
    for name, format in FORMATS.items():
        column = head.index(name)
        said = {p for row in rows if row[column] == "yes" for p in row[0].split(", ")}
        assert said == set(format.precisions)
