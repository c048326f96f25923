"""What `edgenet` offers to Python: no name goes unseen, importing it loads nothing, type checkers know all of it."""

import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest

import edgenet
from edgenet.cli_options import options_of
from edgenet.compare.options import CompareJob
from edgenet.errors import EdgenetError
from edgenet.option_fields import option_fields
from edgenet.options import BenchJob, Job
from helpers import public_names

FUNCTIONS = [name for name in edgenet.__all__ if inspect.isfunction(getattr(edgenet, name))]
# All that `import edgenet` may load of what Python itself has not loaded: nothing of edgenet's own, no library.
ALLOWED = {"edgenet", "importlib", "typing", "types", "collections", "functools", "operator", "keyword", "reprlib",
           "contextlib", "warnings", "re", "enum", "copyreg", "abc"}  # fmt: skip


def python(code: str) -> str:
    command = [sys.executable, "-I", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


@pytest.mark.parametrize("path", [public_names.MANIFEST, public_names.STUB], ids=lambda p: p.name)
def test_no_public_name_comes_goes_or_changes_unseen(path: Path) -> None:
    now = public_names.manifest() if path == public_names.MANIFEST else public_names.stub()
    assert path.read_text(encoding="utf-8") == now, f"{public_names.RENEW} writes it; say in CHANGELOG.md what changed"


def test_the_list_of_public_names_is_true() -> None:
    assert edgenet.__all__ == sorted(set(edgenet.__all__))
    assert set(edgenet.__all__) <= set(dir(edgenet))
    assert FUNCTIONS == ["bench", "compare", "evaluate", "export", "inspect", "quantize", "run"]
    assert all(getattr(edgenet, name).__doc__ for name in edgenet.__all__)
    with pytest.raises(AttributeError, match="no attribute 'quantise'"):
        _ = edgenet.quantise  # type: ignore[attr-defined]


def test_importing_the_package_loads_nothing() -> None:
    code = (
        "import sys; before = set(sys.modules)\nimport edgenet\nloaded = sorted(set(sys.modules) - before)\n"
        "import json; print(json.dumps(loaded))"
    )
    loaded = {m.lstrip("_") for m in json.loads(python(code))}
    assert {m.partition(".")[0] for m in loaded} <= ALLOWED
    assert {m for m in loaded if m.startswith("edgenet")} == {"edgenet"}


def test_the_functions_themselves_load_no_framework() -> None:
    code = (
        "import sys, edgenet; [getattr(edgenet, n) for n in edgenet.__all__ if n != 'Quantized']\n"
        "print([m for m in ('tensorflow', 'keras', 'tf_keras', 'onnx', 'onnxruntime', 'openvino', 'torch', "
        "'ai_edge_litert', 'click', 'rich', 'PIL', 'jinja2') if m in sys.modules])"
    )
    assert python(code).strip() == "[]"


def test_a_function_stays_one_when_the_folder_of_its_name_is_loaded() -> None:
    code = (
        "import edgenet, types; first = edgenet.export\n"
        "import edgenet.compare.job, edgenet.evaluate\nfrom edgenet.export import FORMATS\n"
        "names = ('export', 'compare', 'evaluate')\n"
        "assert edgenet.export is first and all(type(getattr(edgenet, n)) is types.FunctionType for n in names)\n"
        "from edgenet import export, pipeline\nprint(export is first, type(pipeline).__name__, len(FORMATS))"
    )
    assert python(code).strip() == "True module 3"


@pytest.mark.parametrize(
    ("name", "job", "lacks"),
    [
        ("run", Job, set()),
        ("export", Job, {"devices", "threads", "emulated_images", "max_arena", "history"}),
        ("bench", BenchJob, set()),
        ("compare", CompareJob, {"github"}),
    ],
)
def test_a_function_has_the_options_and_defaults_of_its_command(name: str, job: type, lacks: set[str]) -> None:
    parameters = inspect.signature(getattr(edgenet, name)).parameters
    for f in option_fields(job):
        if f.name in lacks:
            assert f.name not in parameters
        elif not f.option.missing or f.default is None:
            assert parameters[f.name].default == f.default
        else:
            assert parameters[f.name].default is inspect.Parameter.empty
    assert callable(options_of(job))  # the same dataclass makes the command's


def test_the_errors_are_of_one_family() -> None:
    errors = [getattr(edgenet, n) for n in edgenet.__all__ if n.endswith("Error") or n in ("GateFailed",)]
    assert all(issubclass(e, EdgenetError) for e in errors)
    assert len(errors) == 4


@pytest.mark.slow
def test_a_type_checker_knows_options_and_records(tmp_path: Path) -> None:
    """mypy reads an installed copy: the stub and py.typed are in the wheel."""
    from helpers.places import ROOT

    (tmp_path / "program.py").write_text(
        "import edgenet\n"
        'results = edgenet.run("efficientnet-lite0", images="photos", out="OUT", precisions=("int8",))\n'
        "print(results.artifacts[0].size_bytes + 1, edgenet.inspect('x.tflite').n_operators + 1)\n"
        'edgenet.export("m", out="OUT", precison="int8")\n'
        'edgenet.bench("x.tflite", threads="two")\n'
        "results.artifacts[0].size_megabytes\n"
    )
    command = [sys.executable, "-m", "pip", "--version"]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("needs pip in the environment: make setup")
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target",
               str(tmp_path / "site"), str(ROOT)]  # fmt: skip
    subprocess.run(install, check=True, capture_output=True, timeout=300)
    assert (tmp_path / "site" / "edgenet" / "py.typed").is_file()
    mypy = [sys.executable, "-m", "mypy", "--strict", "--ignore-missing-imports", "program.py"]
    done = subprocess.run(mypy, cwd=tmp_path, capture_output=True, text=True, timeout=300,
                          env={"MYPYPATH": str(tmp_path / "site"), "PATH": ""})  # fmt: skip
    said = [line for line in done.stdout.splitlines() if line.startswith("program.py")]
    assert [line.split(":")[1] for line in said if "error" in line] == ["4", "5", "6"], done.stdout
