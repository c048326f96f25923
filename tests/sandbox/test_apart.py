"""apart.py: whatever becomes of the child that reads, it is one line that names the file, or plain values."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from edgenet.errors import InputError, MissingDependency
from edgenet.sandbox import apart, wire
from edgenet.sandbox.apart import Effort, clean, read_apart
from helpers.places import ROOT

SHORT = Effort(cpu_s=2, cpu_s_per_mib=0, mib=512, mib_per_mib=0)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.keras"
    path.write_bytes(b"x")
    return path


def read(name: str, file: Path, effort: Effort = SHORT) -> object:
    return read_apart(f"helpers.bad_readers:{name}", file, {"path": str(file)}, effort)


def test_plain_values_come_back_as_they_were_given(file: Path) -> None:
    got = read_apart("helpers.bad_readers:array", file, {"n": 1000})
    np.testing.assert_array_equal(got["numbers"], np.arange(1000, dtype=np.float32))
    assert (got["pair"], got["text"], got["odd"]) == ((1, None), b"\x00\xff", float("inf"))


@pytest.mark.parametrize(
    ("reader", "says"),
    [
        ("abort", "ended its process by SIGABRT"),
        ("leave", "ended its process, which said: the last words of a reader"),
        ("compute_for_ever", "took more than 2 s of computing"),
        ("take_memory", "takes more than .* MiB of memory|ended its process by"),
        ("shout", r"cannot be read \(long long"),
        ("recurse", "cannot be read"),
        ("leave_plain_python", "object is not plain|ended its process"),
        ("answer_garbage", "its reader gave no sense"),
        ("promise_too_much", "its reader gave no sense"),
    ],
)
def test_a_child_that_does_not_end_well_is_one_line_that_names_the_file(reader: str, says: str, file: Path) -> None:
    with pytest.raises(InputError, match=says) as e:
        read(reader, file)
    text = str(e.value)
    assert file.name in text
    assert text.isprintable()
    assert len(text) < 1200


def test_a_package_that_the_child_lacks_is_named_with_its_extra(file: Path) -> None:
    with pytest.raises(MissingDependency, match=r"reading a Keras file needs h5py.*edgenet\[export\]") as e:
        read("lack", file)
    assert (e.value.package, e.value.extra) == ("h5py", "export")


def test_a_child_that_waits_for_nothing_is_ended(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart, "_IDLE_S", 3)
    start = time.monotonic()
    with pytest.raises(InputError, match="does not go on"):
        read("sleep_for_ever", file)
    assert time.monotonic() - start < 60


def test_a_reader_can_do_no_harm(file: Path) -> None:
    (file.parent / "mine.txt").write_text("mine")
    (file.parent / "port").write_text("9")
    (file.parent / "pid").write_text(str(os.getpid()))
    assert read("harm", file) == []
    assert {p.name for p in file.parent.iterdir()} == {"model.keras", "mine.txt", "port", "pid"}


def test_a_child_ends_with_its_parent(file: Path) -> None:
    code = (
        "import sys, os, threading, time; sys.path.append(sys.argv[1])\n"
        "from pathlib import Path\n"
        "from edgenet.sandbox import apart\n"
        "real = apart._Answer.send\n"
        "def send(self, data):\n"
        "    real(self, data); print(self._process.pid, flush=True)\n"
        "apart._Answer.send = send\n"
        "apart.read_apart('helpers.bad_readers:sleep_for_ever', Path(sys.argv[2]), {'path': sys.argv[2]})\n"
    )
    command = [sys.executable, "-I", "-c", code, str(ROOT / "tests"), str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.kill()
    for _ in range(600):
        if not Path(f"/proc/{child}").exists() or "\nState:\tZ" in Path(f"/proc/{child}/status").read_text():
            return
        time.sleep(0.1)
    pytest.fail("the child lives on")


def test_nothing_of_the_working_folder_is_imported(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("numpy", "edgenet", "json", "helpers"):
        (file.parent / f"{name}.py").write_text("open('harm', 'w').write('x')")
    monkeypatch.chdir(file.parent)
    monkeypatch.syspath_prepend("")
    assert read_apart("edgenet.sandbox.apart:clean", file, {"text": "a\x1b[1mb\nc"}) == "ab c"
    assert not (file.parent / "harm").exists()


def test_text_of_a_file_is_shown_without_what_a_terminal_obeys() -> None:
    assert clean("a\x1b[31mb\x1b[0m\n\tc\x07\x9b") == "ab c"
    assert len(clean("x" * 10_000)) == 1000


def unpacked(data: bytes, max_bytes: int = 1 << 20) -> object:
    at = 0

    def take(n: int) -> bytearray:
        nonlocal at
        at += n
        if at > len(data):
            raise ValueError("cut off")
        return bytearray(data[at - n : at])

    return wire.unpack(take, max_bytes)


@pytest.mark.parametrize(
    "header",
    [
        b"", b"[]", b"{}", b'{"value": {"array": 0}, "arrays": []}', b'{"value": {"array": -1}, "arrays": []}',
        b'{"value": {"odd": 1}, "arrays": []}', b'{"value": {"bytes": 1}, "arrays": []}',
        b'{"value": {"a": 1, "b": 2}, "arrays": []}', b'{"value": NaN, "arrays": []}',
        b'{"value": 1, "arrays": [["O", [1]]]}', b'{"value": 1, "arrays": [["<f4", [-1]]]}',
        b'{"value": 1, "arrays": [["<f4", [1000000, 1000000]]]}', b'{"value": 1, "arrays": [["<f4", [true]]]}',
        b'{"value": {"float": "1e5"}, "arrays": []}',
        b'{"value": ' + b"[" * 100_000 + b"]" * 100_000 + b', "arrays": []}',
        b'{"value": ' + b'{"tuple": [' * 50 + b"1" + b"]}" * 50 + b', "arrays": []}', b"\xff\xfe",
        b'{"value": ' + b"9" * 10_000 + b', "arrays": []}',
    ],
)  # fmt: skip
def test_a_message_that_is_none_is_a_value_error(header: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (its text is never shown)
        unpacked(wire.HEAD.pack(wire.MAGIC, len(header), 0) + header)
