"""The process of a command: closed streams, Ctrl-C at any moment, files of the working folder, what nobody foresaw."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgenet import cli
from edgenet.cli_errors import TRACEBACK, echo
from edgenet.errors import printable
from edgenet.export import inspect as inspect_package
from helpers.command_line import Done

MAIN = "from edgenet.__main__ import main; main()"


def python(code: str, *args: object, shell: str = "", cwd: Path) -> Done:
    """Run edgenet in an interpreter of its own; `shell` redirects its streams."""
    command = ["sh", "-c", f'exec "$@" {shell}', "sh", sys.executable, "-P", "-c", code, *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=cwd)


@pytest.mark.parametrize("shell", ["2>&-", "<&-", "<&- 2>&-"])
def test_a_closed_stream_changes_neither_work_nor_status(shell: str, tmp_path: Path) -> None:
    done = python(MAIN, "classes", "fridge", "--json", shell=shell, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "refrigerator" in done.stdout
    done = python(MAIN, "report", "nowhere", shell=shell, cwd=tmp_path)
    assert done.returncode == 2


def test_a_closed_standard_output_is_no_budget_that_was_missed(tmp_path: Path) -> None:
    assert python(MAIN, "classes", "fridge", shell=">&-", cwd=tmp_path).returncode == 0


def test_nothing_that_is_printed_lands_in_a_file_that_took_the_number_of_a_closed_stream(tmp_path: Path) -> None:
    code = (
        "import os\nfrom edgenet.cli_errors import prepare_process\nprepare_process()\n"
        "f = open('mine', 'wb', buffering=0)\nassert f.fileno() > 2\nos.write(2, b'a library says something')\n"
    )
    assert python(code, shell="2>&- <&-", cwd=tmp_path).returncode == 0
    assert (tmp_path / "mine").read_bytes() == b""


def test_a_reader_of_stderr_that_left_ends_no_command(monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w", buffering=1) as broken:
        monkeypatch.setattr(sys, "stderr", broken)
        echo("epoch 3 of 9", err=True)
        monkeypatch.undo()
        with pytest.raises(BrokenPipeError):
            broken.flush()
        with pytest.raises(BrokenPipeError):  # else closing it raises again
            broken.close()


INTERRUPTED = """
import builtins, os, signal, sys
load, when = builtins.__import__, sys.argv.pop(1)
def interrupted(name, *args, **more):
    if name == when:
        builtins.__import__ = load
        os.kill(os.getpid(), signal.SIGINT)
    return load(name, *args, **more)
builtins.__import__ = interrupted
"""


@pytest.mark.parametrize("when", ["edgenet.cli_errors", "edgenet.cli", "edgenet.options", "edgenet.images", "numpy"])
def test_ctrl_c_while_libraries_load_is_one_line_at_most(when: str, tmp_path: Path) -> None:
    done = python(INTERRUPTED + MAIN, when, "classes", "fridge", cwd=tmp_path)
    assert done.returncode == 130, (done.returncode, done.stderr)
    assert done.stdout == ""
    assert done.stderr in ("", "edgenet: interrupted; the same command goes on where it was\n")


def test_an_error_that_a_library_makes_of_ctrl_c_is_still_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgenet import cli_errors

    def swallowed(_: object) -> None:
        cli_errors._interrupts.append(signal.SIGINT)
        raise ImportError("initialization failed")

    monkeypatch.setattr(cli_errors, "_interrupts", [])
    monkeypatch.setattr(inspect_package, "inspect", swallowed)
    done = CliRunner().invoke(cli.main, ["inspect", "x"])
    assert (done.exit_code, done.stderr) == (130, "edgenet: interrupted; the same command goes on where it was\n")


@pytest.mark.parametrize(
    "error",
    [TypeError("unhashable type: 'list'"), KeyError("x"), IndexError(), RecursionError("maximum"), AssertionError(),
     ZeroDivisionError("division by zero"), UnicodeDecodeError("utf-8", b"", 0, 1, "x")],
    ids=lambda e: type(e).__name__,
)  # fmt: skip
def test_an_error_that_nobody_foresaw_is_a_line_that_says_where(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise error

    monkeypatch.setattr(inspect_package, "inspect", fail)
    monkeypatch.delenv(TRACEBACK, raising=False)
    done = CliRunner().invoke(cli.main, ["inspect", "x"])
    assert done.exit_code == 2
    assert done.stderr.startswith("edgenet: a fault of edgenet's, not of your input (")
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr
    monkeypatch.setenv(TRACEBACK, "1")
    assert CliRunner().invoke(cli.main, ["inspect", "x"]).exception is error


def test_too_little_memory_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(inspect_package, "inspect", fail)
    done = CliRunner().invoke(cli.main, ["inspect", "x"])
    assert done.exit_code == 3
    assert "too little memory" in done.stderr


@pytest.mark.parametrize("name", ["edgenet.py", "ethosu.py", "numpy.py", "openvino.py", "json.py"])
def test_no_file_of_the_working_folder_runs(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("open('ran', 'w').write('')\nraise SystemExit(7)\n")
    program = shutil.which("edgenet", path=str(Path(sys.executable).parent))
    command = [program] if program else [sys.executable, "-P", "-c", MAIN]
    done = subprocess.run([*command, "devices", "--json"], capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "ran").exists()


def test_every_python_that_edgenet_starts_looks_for_modules_in_no_folder_of_the_users() -> None:
    import ast

    from helpers.places import ROOT

    started = []
    for folder in ("edgenet", "export", "calibration", "device_bench"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.List) and node.elts and ast.unparse(node.elts[0]) == "sys.executable":
                    flags = [e.value for e in node.elts[1:3] if isinstance(e, ast.Constant)]
                    started.append((path.name, bool({"-P", "-I", "-IP", "-PI"} & set(flags))))
    assert len(started) >= 5
    assert [name for name, safe in started if not safe] == []


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[31mb", r"a\x1b[31mb"),
        ("\x9b31m", r"\x9b31m"),
        ("\u202egpj", r"\u202egpj"),
        ("a\rb\tc\x08", r"a\rb\tc\x08"),
        (os.fsdecode(b"\xff.jpg"), r"\udcff.jpg"),
        ("\u2028x\u2066", r"\u2028x\u2066"),
        ("30\u00a0% größer: 大 ×1", "30\u00a0% größer: 大 ×1"),
        ("two\nlines", "two\nlines"),
    ],
)
def test_a_terminal_is_only_shown_what_it_can_show(text: str, shown: str) -> None:
    assert printable(text) == shown


@pytest.mark.parametrize("name", ["\x1b]0;x\x07", "\u202ex", "a\nb", os.fsdecode(b"\xff\xfe")])
def test_a_name_in_any_message_or_table_is_only_shown(name: str, tmp_path: Path) -> None:
    for args in (["report", tmp_path / name], ["inspect", f"{name}.tflite"], ["bench", f"{name}.xyz"], ["run", name],
                 ["handoff", "--verify", name], ["evaluate", name, "--images", name],
                 ["devices", "prepare", f"ssh:{name}"], ["bench", "x.tflite", "--device", name]):  # fmt: skip
        done = CliRunner().invoke(cli.main, [str(a) for a in args])
        assert done.exit_code == 2, (args, done.output)
        assert done.stderr.count("\n") == 1
        assert not set(done.stderr[:-1]) & set("\x1b\x07\u202e\n")


@pytest.mark.parametrize("columns", [1, 10])
def test_a_narrow_terminal_leaves_out_no_column(columns: int, tmp_path: Path) -> None:
    import fcntl
    import pty
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 5, columns, 0, 0))
    command = [sys.executable, "-P", "-c", MAIN, "models"]
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=tmp_path, env=environment) as child:
        os.close(theirs)
        shown = b""
        while True:
            try:
                shown += os.read(ours, 1 << 16)
            except OSError:  # nobody holds the other end any more
                break
    os.close(ours)
    assert child.returncode == 0
    for cell in (b"efficientnet-lite0", b"top-1", b"75.1 %", b"weights"):
        assert cell in shown


VARIABLES = {
    "no home": {"HOME": None, "XDG_CACHE_HOME": None},
    "a home that is not there": {"HOME": "/nowhere", "XDG_CACHE_HOME": "relative"},
    "no place for temporary files": {"TMPDIR": "/nowhere"},
    "a place that is relative": {"TMPDIR": "relative"},
    "bytes": {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "ASCII": {"PYTHONIOENCODING": "ascii"},
    "no columns": {"COLUMNS": "x", "LINES": "-1"},
    "warnings as errors": {"PYTHONWARNINGS": "error"},
    "numbers that are none": {"OMP_NUM_THREADS": "x", "OPENBLAS_NUM_THREADS": "x"},
    "other libraries' own": {"TF_CONFIG": "{", "KERAS_BACKEND": "torch", "TF_CPP_MIN_LOG_LEVEL": "x"},
    "no programs": {"PATH": "/nowhere"},
    "a program for every interactive Python": {"PYTHONSTARTUP": "json.py"},
}


@pytest.mark.parametrize("changed", VARIABLES.values(), ids=VARIABLES)
def test_an_odd_environment_changes_neither_work_nor_status(changed: dict[str, str | None], tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("open('ran', 'w').write('')\n")
    environment = {**os.environ, **{n: v for n, v in changed.items() if v is not None}}
    for name in (n for n, v in changed.items() if v is None):
        environment.pop(name, None)
    (tmp_path / "x.tflite").write_bytes(b"\x1c\0\0\0TFL3" + bytes(100))
    for args, status in ((("classes", "fridge", "--json"), 0), (("inspect", "x.tflite"), 2)):
        command = [sys.executable, "-P", "-c", MAIN, *args]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path, env=environment)
        assert done.returncode == status, done.stderr
        assert done.stderr.count("\n") == (status != 0), done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["json.py", "x.tflite"]


def test_the_program_looks_for_modules_in_no_folder_of_the_users(tmp_path: Path) -> None:
    """What pip made of `edgenet` in pyproject.toml starts with its own folder on the path, never the working one."""
    program = shutil.which("edgenet", path=str(Path(sys.executable).parent))
    if program is None:
        pytest.skip("edgenet is not installed beside this Python")
    names = "edgenet", "numpy", "json", "click", "rich", "os", "re", "sitecustomize", "usercustomize"
    for name in names:
        (tmp_path / f"{name}.py").write_text(f"open('ran-{name}', 'w').write('')\n")
    (tmp_path / "x.tflite").write_bytes(b"\x1c\0\0\0TFL3" + bytes(100))
    done = subprocess.run([program, "inspect", "x.tflite"], capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert sorted(p.name for p in tmp_path.glob("*")) == sorted([*(f"{n}.py" for n in names), "x.tflite"])
