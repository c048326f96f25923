"""What keeps the house in order: arrows point one way, drawers stay small, and only the command line prints."""

import ast
import tomllib
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from helpers.places import ROOT

FOLDERS = {"edgenet": "edgenet", "export": "edgenet.export", "calibration": "edgenet.calibration",
           "device_bench": "edgenet.device_bench"}  # fmt: skip
# From the front door to the foundations: a module imports from its own row and those below. The longest name counts.
ROWS = (
    ("edgenet.__main__", "edgenet.cli"),
    ("edgenet.cli_",),
    ("edgenet.library",),
    (
        "edgenet.compare",
        "edgenet.dry_run",
        "edgenet.history",
        "edgenet.jobs",
        "edgenet.pipeline",
        "edgenet.publish",
        "edgenet.preflight",
        "edgenet.doctor",
    ),
    ("edgenet.report", "edgenet.paper", "edgenet.handoff", "edgenet.farm"),
    ("edgenet.evaluate", "edgenet.tasks.measures", "edgenet.farm.answers"),
    ("edgenet.calibration", "edgenet.device_bench"),
    ("edgenet.export",),
    ("edgenet.images", "edgenet.models"),
    (
        "edgenet.cache",
        "edgenet.options",
        "edgenet.results",
        "edgenet.files",
        "edgenet.targets",
        "edgenet.device_bench.machine",
        "edgenet.tasks.words",
    ),
    # Leaves: anybody may use them.
    (
        "edgenet.export.graph",
        "edgenet.export.op_versions",
        "edgenet.device_bench.describe",
        "edgenet.results.warning_codes",
    ),
    ("edgenet.errors", "edgenet.frameworks", "edgenet.sandbox", "edgenet.templating", "edgenet"),
)
PRINTERS = (
    "edgenet/__main__.py",
    "edgenet/cli.py",
    "edgenet/cli_errors.py",
    "edgenet/cli_output.py",
    "edgenet/sandbox/child.py",
    "edgenet/sandbox/confined.py",
    "device_bench/runner.py",
    "device_bench/describe.py",
)


def modules() -> dict[str, Path]:
    """Every module of edgenet by its dotted name; a package's is its __init__."""
    found = {}
    for folder, package in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            found[".".join([package, *parts]).removesuffix(".__init__")] = path
    return found


MODULES = modules()


@cache
def tree(name: str) -> ast.Module:
    return ast.parse(MODULES[name].read_text())


def defined_in(module: str, name: str) -> str:
    """Return the module that `from module import name` reaches, through tables of contents."""
    if f"{module}.{name}" in MODULES:
        return f"{module}.{name}"
    for node in tree(module).body:
        if (
            isinstance(node, ast.ImportFrom)
            and node.module in MODULES
            and name in [a.asname or a.name for a in node.names]
        ):
            return defined_in(node.module, name)
    return module


@cache
def imports(name: str) -> frozenset[str]:
    """Return the modules of edgenet that one imports, those that it imports late included."""
    found: set[str] = set()
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.ImportFrom) and node.module in MODULES:
            found |= {defined_in(node.module, a.name) for a in node.names}
        elif isinstance(node, ast.Import):
            found |= {a.name for a in node.names if a.name in MODULES}
    return frozenset(found - {name})


def row(name: str) -> int:
    def length(prefix: str) -> int:
        fits = name == prefix or name.startswith(prefix + ("" if prefix.endswith("_") else "."))
        return len(prefix) if fits else -1

    best = max(((length(p), i) for i, prefixes in enumerate(ROWS) for p in prefixes), default=(-1, 0))
    assert best[0] >= 0, f"{name} has no row"
    return best[1]


@pytest.mark.parametrize("name", MODULES)
def test_no_arrow_runs_back(name: str) -> None:
    assert [i for i in sorted(imports(name)) if row(i) < row(name)] == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    # A package's table of contents imports what stands below it, and nothing that it names imports the table.
    order = TopologicalSorter({name: imports(name) for name in MODULES}).static_order()
    assert set(order) == set(MODULES)  # a circle has no order: CycleError names its modules


def functions(of: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (n for n in ast.walk(of) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))


@pytest.mark.parametrize("name", MODULES)
def test_files_and_functions_stay_short(name: str) -> None:
    assert len(MODULES[name].read_text().splitlines()) <= 500
    assert [f.name for f in functions(tree(name)) if (f.end_lineno or 0) - f.lineno >= 80] == []


def test_no_drawer_holds_more_than_twenty_files() -> None:
    drawers = [path.parent for path in MODULES.values()]
    assert {str(d.relative_to(ROOT)): drawers.count(d) for d in set(drawers) if drawers.count(d) > 20} == {}


def test_every_package_is_installed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = {name for name, path in MODULES.items() if path.name == "__init__.py"}
    assert set(project["tool"]["setuptools"]["packages"]) == packages


def test_nothing_but_the_command_line_prints_or_exits() -> None:
    """Runner, describe and the sandbox's child are programs of their own, on the other side of a pipe."""
    for name, path in MODULES.items():
        if str(path.relative_to(ROOT)) in PRINTERS:
            continue
        for node in ast.walk(tree(name)):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in ("print", "sys.exit", "exit", "os._exit"), f"{path}:{node.lineno}"
