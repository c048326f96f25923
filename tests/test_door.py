"""The door: only regular, bounded files come in, any error of a parser is one line, and nobody reads past it."""

import ast
import os
import socket
from pathlib import Path

import pytest

from edgenet.door import (
    DEPTH,
    open_regular,
    parse_json,
    read_bytes,
    read_json,
    read_rows,
    read_text,
    read_toml,
    reading,
)
from edgenet.errors import EdgenetError, InputError
from helpers.places import ROOT

# What opens or parses a file, by how it is called.
READERS = {
    "open", "io.open", "os.open", "os.fdopen", "codecs.open", "gzip.open", "bz2.open", "lzma.open", "tarfile.open",
    "zipfile.ZipFile", "zipfile.is_zipfile", "json.load", "json.loads", "tomllib.load", "tomllib.loads", "csv.reader",
    "csv.DictReader", "configparser.ConfigParser", "Image.open", "np.load", "np.fromfile", "np.memmap", "np.loadtxt",
    "np.genfromtxt", "h5py.File", "pickle.load", "pickle.loads", "pickle.Unpickler", "ElementTree.parse",
    "ElementTree.fromstring", "ElementTree.iterparse", "onnx.load", "onnx.load_model", "onnx.load_model_from_string",
    "torch.load", "yaml.safe_load", "yaml.load", "sqlite3.connect",
}  # fmt: skip
METHODS = {"read_text", "read_bytes", "open"}  # of a path
# Who may: models and weights have a door of their own; the rest reads what edgenet itself, a device or the system made.
MODELS = ("edgenet/models/", "export/", "edgenet/sandbox/")
OWN = {
    "edgenet/door.py": "the door",
    "edgenet/frameworks.py": "the null device",
    "edgenet/cli_errors.py": "the null device",
    "edgenet/cli_runs.py": "adds to the summary of a step, a file that GitHub's runner made",
    "edgenet/files.py": "syncs what it wrote itself",
    "edgenet/cache/store.py": "steps that it wrote itself, whose hash it checks",
    "edgenet/farm/site.py": "the lock of its own folder",
    "edgenet/history/store.py": "a database whose header the door has read",
    "edgenet/jobs/output_folder.py": "the lock, which it checks to be a file",
    "edgenet/images/decode.py": "PIL, of bytes from the door",
    "edgenet/images/near_duplicates.py": "PIL, of a file from the door",
    "edgenet/images/sample.py": "a picture of an installed package",
    "edgenet/images/tfds.py": "writes a table; the description of a data set that TFDS prepared",
    "edgenet/images/image_set.py": "a table and pictures of installed packages",
    "edgenet/images/wordnet.py": "a table of this package",
    "edgenet/paper/published.py": "a table of this package",
    "edgenet/handoff/mediapipe_replay.py": "a program: the array that verify.py wrote",
    "edgenet/handoff/verify.py": "the array that its child wrote",
    "calibration/training/strategy.py": "an environment variable",
    "calibration/training/activations.py": "maps what it wrote itself, and turns errors into a line",
    "calibration/training/augment.py": "pixels that it wrote itself",
    "calibration/training/loop.py": "checkpoints, whose errors it turns into a line",
    "device_bench/runner.py": "a program: /proc and its own protocol",
    "device_bench/worker.py": "the protocol of its own child",
    "device_bench/qemu.py": "the release file of a root file system",
    "device_bench/describe.py": "a program: /proc and /sys",
    "device_bench/ethos_u.py": "tables that Vela wrote",
    "edgenet/handoff/micro.py": "the model, which inspect has checked",
    "device_bench/litert_npu/device.py": "the file that the compiler made",
    "device_bench/litert_npu/plugin.py": "what the compiler printed and made",
    "device_bench/micro/interpreter.py": "a program: the model, which operators.py has checked",
    "device_bench/micro/operators.py": "a program: its own notes; the model, which is checked first",
    "device_bench/qnn/chip.py": "tables of this package",
    "device_bench/qnn/device.py": "the file that the compiler made",
    "device_bench/qnn/onnx_compiler.py": "tables that the compiler wrote",
    "device_bench/qnn/packages.py": "a file of an installed package",
    "device_bench/rknn/device.py": "what its own child wrote",
    "device_bench/rknn/environment.py": "notes and the lock that it made; a list of this package",
    "device_bench/rknn/toolkit.py": "a program of another interpreter: the file that adapt.py wrote",
    "device_bench/roofline/operator_times.py": "a program: what its own child and onnxruntime wrote",
    "device_bench/edgetpu/device.py": "/sys; the model that is compiled",
    "device_bench/ssh/connection.py": "files that are sent",
    "device_bench/ssh/prepare.py": "what its own script on the board printed",
    "device_bench/ssh/device.py": "what its own script on the board printed",
    "device_bench/adb/benchmark_binary.py": "the tool that is sent",
    "device_bench/adb/device.py": "what the tool on the phone wrote",
}


def readers_in(path: Path) -> list[str]:
    """Return the calls of a module that open or parse a file, each with its line."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            of_a_path = isinstance(node.func, ast.Attribute) and node.func.attr in METHODS and called != "self.open"
            if called in READERS or of_a_path:
                found.append(f"{called}, line {node.lineno}")
    return found


def test_nobody_reads_past_the_door() -> None:
    past = {}
    for folder in ("edgenet", "export", "calibration", "device_bench"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            if name not in OWN and not name.startswith(MODELS) and (calls := readers_in(path)):
                past[name] = calls
    assert past == {}, "read what somebody else made by edgenet.door, or say here why it need not be"


def test_the_list_of_who_may_names_nobody_in_vain() -> None:
    assert [name for name in OWN if not (ROOT / name).is_file() or not readers_in(ROOT / name)] == []


# ------------------------------------------------------------------------------------------------------- special files


def a_fifo(path: Path) -> None:
    os.mkfifo(path)


def a_link_to_a_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def a_link_to_a_fifo(path: Path) -> None:
    os.mkfifo(path.with_suffix(".fifo"))
    path.symlink_to(path.with_suffix(".fifo"))


def a_folder(path: Path) -> None:
    path.mkdir()


def a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(str(path))


SPECIAL = (a_fifo, a_link_to_a_device, a_link_to_a_fifo, a_folder, a_socket)


@pytest.mark.parametrize("make", SPECIAL)
@pytest.mark.parametrize("read", [open_regular, lambda p: read_bytes(p, 9), read_text, read_json, read_rows],
                         ids=["open", "bytes", "text", "json", "rows"])  # fmt: skip
def test_what_is_no_regular_file_is_refused_at_once(make, read, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    make(Path("x"))
    with pytest.raises(InputError, match=r"x is a (FIFO|device|folder|socket), not a file"):
        read(Path("x"))


def test_a_file_larger_than_its_kind_may_be_is_refused_before_it_is_read(tmp_path) -> None:
    with open(tmp_path / "x", "wb") as f:
        f.truncate(1 << 40)  # a hole of a terabyte
    with pytest.raises(InputError, match="bytes, and at most 100 are read of such a file"):
        read_bytes(tmp_path / "x", 100)
    with pytest.raises(InputError, match="at most"):
        read_text(tmp_path / "x")


def test_a_file_that_tells_no_size_is_read_no_further_than_the_limit() -> None:
    with pytest.raises(InputError, match="grew beyond 10 bytes"):
        read_bytes("/proc/self/maps", 10)


@pytest.mark.parametrize(
    ("name", "says"), [("gone", "no file .*gone"), ("a\0b", "it holds NUL"), ("n" * 300, "cannot read .*name too long")]
)
def test_a_name_that_no_file_has_is_a_line(name, says, tmp_path) -> None:
    with pytest.raises(InputError, match=f"(?i){says}") as e:
        read_text(tmp_path / name)
    assert "\n" not in str(e.value)


# --------------------------------------------------------------------------------------------------------------- texts


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"\xff\xfe", "is not UTF-8 text: save it as UTF-8"),
        (b"a\0b", "is no text, it holds NUL"),
        (b"\xed\xa0\x80", "is not UTF-8"),
    ],
)
def test_what_is_no_text_is_refused(data, says, tmp_path) -> None:
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(InputError, match=says):
        read_text(tmp_path / "x")


def test_ends_of_lines_and_a_mark_of_order_are_those_of_any_system(tmp_path) -> None:
    (tmp_path / "x").write_bytes(b"\xef\xbb\xbfa\r\nb\rc\n")
    assert read_text(tmp_path / "x") == "a\nb\nc\n"


@pytest.mark.parametrize(
    "text",
    ["", "{", "[" * 100_000, "[" * (DEPTH + 2) + "]" * (DEPTH + 2), "9" * 5000, "[NaN]", "[1e]", '{"a": -Infinity}',
     '"\\ud800', "\ufeff", "nul", "[1,]", "{1: 2}", '"a" "b"'],
    ids=lambda t: t[:12],
)  # fmt: skip
def test_what_is_no_json_is_a_line_with_the_name_of_the_file(text, tmp_path) -> None:
    (tmp_path / "x.json").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=r"x\.json is not a test file") as e:
        read_json(tmp_path / "x.json", what="a test file", remedy="write it again")
    assert str(e.value).endswith(": write it again")
    assert "Error" not in str(e.value)


def test_json_of_a_usual_depth_is_read() -> None:
    assert parse_json("[" * DEPTH + "1" + "]" * DEPTH)


@pytest.mark.parametrize(
    "text", ["a = ", "[a", "a = 1\na = 2", "a.b = 1\na = 2", "x = " + "[" * 5000, "a = 99e999x", "\x01"]
)
def test_what_is_no_toml_is_a_line(text, tmp_path) -> None:
    (tmp_path / "x.toml").write_text(text)
    with pytest.raises(InputError, match=r"x\.toml is not TOML"):
        read_toml(tmp_path / "x.toml", "TOML")


def test_a_field_of_200_kb_in_a_table_is_a_line(tmp_path) -> None:
    (tmp_path / "x.csv").write_text("file,label\na.jpg," + "x" * 200_000 + "\n")
    with pytest.raises(InputError, match=r"x\.csv is not a table"):
        read_rows(tmp_path / "x.csv")


class Odd(Exception):
    pass


@pytest.mark.parametrize(
    "error",
    [
        KeyError("k"),
        Odd(),
        RecursionError(),
        MemoryError(),
        OSError("x"),
        AssertionError(),
        UnicodeError("a b"),
        ZeroDivisionError(),
    ],
)
def test_whatever_a_parser_raises_is_a_line_without_the_name_of_an_exception(error) -> None:
    with pytest.raises(EdgenetError) as e, reading("x.bin", "a file of this kind", "give another"):
        raise error
    assert str(e.value).count("\n") == 0
    assert "x.bin" in str(e.value)
    assert type(error).__name__ not in str(e.value)
