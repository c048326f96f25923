"""policy.py: each net alone, and all together, keep a process from harm; what a reader needs goes on working."""

import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgenet.sandbox import policy
from helpers import bad_readers
from helpers.places import ROOT

HEADERS = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"), Path("/usr/include/asm-generic/unistd.h")
TESTS = str(ROOT / "tests")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[tuple[Path, "subprocess.Popen[bytes]", socket.socket]]:
    """A folder with a file of the user's, a process of the user's and a port that listens."""
    folder = tmp_path / "place"
    folder.mkdir()
    (folder / "mine.txt").write_text("mine")
    with socket.create_server(("127.0.0.1", 0)) as port, subprocess.Popen(["sleep", "1000"]) as process:
        port.setblocking(False)
        (folder / "port").write_text(str(port.getsockname()[1]))
        (folder / "pid").write_text(str(process.pid))
        yield folder, process, port
        process.kill()


def done_in(folder: Path, nets: tuple[str, ...]) -> set[str]:
    """Return the harm that a process held by `nets` does."""
    code = (
        "import sys; sys.path.append(sys.argv[1])\n"
        "from edgenet.sandbox.policy import Policy, confine\n"
        "nets = tuple(sys.argv[3].split(','))\n"
        "held = confine(Policy(file_bytes=None), nets)\n"
        "assert set(held) == set(nets), held\n"
        "from helpers.bad_readers import harm\n"
        "print('|'.join(harm(sys.argv[2] + '/model')))\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, TESTS, str(folder), ",".join(nets)], capture_output=True, text=True,
        check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return set(filter(None, done.stdout.strip().split("|")))


@pytest.mark.parametrize("nets", [policy.NETS, ("landlock",), ("seccomp",)])
def test_a_net_alone_keeps_a_process_from_writing_connecting_starting_and_killing(
    nets: tuple[str, ...], place: tuple[Path, "subprocess.Popen[bytes]", socket.socket]
) -> None:
    missing = set(nets) - set(policy.available())
    if missing:
        pytest.skip(f"this kernel has no {missing}")
    folder, process, port = place
    assert done_in(folder, nets) == set()
    assert {p.name for p in folder.iterdir()} == {"mine.txt", "port", "pid"}
    assert (folder / "mine.txt").read_text() == "mine"
    assert process.poll() is None
    with pytest.raises(BlockingIOError):
        port.accept()


def test_without_a_net_the_same_process_does_all_of_it(
    place: tuple[Path, "subprocess.Popen[bytes]", socket.socket],
) -> None:
    folder, process, _ = place
    left = set(bad_readers.deeds(folder)) - done_in(folder, ("limits",))
    # The file was removed and the process killed before; root has given up its powers.
    assert left <= {"rename", "append", "truncate", "link", "memory of another"}, left
    process.wait(timeout=10)
    for trace in Path("/tmp").glob("edgenet-harm-*"):
        trace.unlink()


def test_a_confined_process_reads_computes_in_threads_and_writes_where_it_may(tmp_path: Path) -> None:
    code = (
        "import sys, threading, os\n"
        "from edgenet.sandbox.policy import Policy, confine\n"
        "confine(Policy(writes_in=sys.argv[1], file_bytes=1 << 20))\n"
        "import numpy as np\n"
        "found = []\n"
        "thread = threading.Thread(target=lambda: found.append(float((np.ones((50, 50)) @ np.ones(50))[0])))\n"
        "thread.start(); thread.join()\n"
        "os.mkdir(sys.argv[1] + '/made'); open(sys.argv[1] + '/made/a', 'w').write('x')\n"
        "os.rename(sys.argv[1] + '/made/a', sys.argv[1] + '/b'); os.rmdir(sys.argv[1] + '/made')\n"
        "try: open(sys.argv[1] + '/../out', 'w')\n"
        "except OSError: found.append('refused')\n"
        "print(found, len(open('/proc/self/status').read()) > 0)\n"
    )
    (tmp_path / "scratch").mkdir()
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, str(tmp_path / "scratch")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[50.0, 'refused'] True\n"
    assert [p.name for p in tmp_path.rglob("*")] == ["scratch", "b"]


def test_the_numbers_of_system_calls_are_the_kernel_s() -> None:
    if not all(p.exists() for p in HEADERS):
        pytest.skip("no header files of Linux")
    known = [dict(re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", p.read_text())) for p in HEADERS]
    groups = [v for k, v in vars(policy).items() if k.isupper() and isinstance(v, dict) and k != "_ARCHES"]
    listed = {name: numbers for group in groups for name, numbers in group.items()}
    assert len(listed) > 90
    for name, numbers in listed.items():
        for header, number in zip(known, numbers, strict=True):
            if name in header and number is not None:
                assert int(header[name]) == number, name


def test_no_call_by_another_architecture_s_number_gets_through() -> None:
    column, arch = policy._ARCHES["x86_64"]
    code = policy.program(policy.Policy(), column, arch, 1)
    assert len(code) % 8 == 0
    assert len(code) // 8 < 4096  # what the kernel takes
    instructions = [(code[i : i + 2], code[i + 4 : i + 8]) for i in range(0, len(code), 8)]
    x32 = (0x35).to_bytes(2, "little"), (0x40000000).to_bytes(4, "little")
    assert x32 in instructions
